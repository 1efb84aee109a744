"""The estimator: validate, wire, store."""

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.validation import check_is_fitted

from skfc import _dask_fit, _dask_predict, _labels, _outcome, _prediction, _scoring, _targets
from skfc._absent import finish
from skfc._array import beside, check_place, is_distributed, is_numpy, place, to_numpy
from skfc._callbacks import CallbackMonitor, CallbackSupportMixin, FitTask, with_callbacks
from skfc._fits import solve, solve_warm
from skfc._input import readable
from skfc._method import Method
from skfc._namespaces import CAN_DISPATCH
from skfc._parameters import check_parameters
from skfc._partial_fit import PartialFitMixin
from skfc._problem import Problem
from skfc._reading import beside_targets, check_rows, read_data, unchanged_on_failure
from skfc._rows import some_rows
from skfc._validation import HeldOut, Validation, check_given, hold_out, most_probable


class SoftmaxFCClassifier(PartialFitMixin, CallbackSupportMixin, ClassifierMixin, BaseEstimator):
    r"""One fully connected layer, a softmax, and the cross-entropy loss.

    For rows :math:`x_i` with weights :math:`s_i` and classes :math:`y_i` the fit minimises

    .. math:: C \sum_i s_i\, [-\log p_{i y_i}]
              + \tfrac{1 - r}{2} \lVert W \rVert^2 + r \lVert W \rVert_1,
              \qquad p_i = \operatorname{softmax}(W x_i + b),

    over `coef_` :math:`W` and `intercept_` :math:`b`, which is not penalised; :math:`r` is
    `l1_ratio`. It is the objective of multinomial
    :class:`~sklearn.linear_model.LogisticRegression`. Features are standardised inside, and
    steps are preconditioned, so the fit needs no scaler, no learning rate and no larger
    `max_iter`, and `optimality_gap_` says how far from the minimum it stopped.

    Parameters
    ----------
    C : float, default=1.0
        Inverse strength of the penalty, positive; `np.inf` is no penalty.
    l1_ratio : float, default=0.0
        Share of the absolute values in the penalty, in [0, 1]: 0 is the sum of squares, 1 the
        sum of absolute values (L1), which makes coefficients exactly zero.
    fit_intercept : bool, default=True
        Whether to learn `intercept_`; without, it is zero.
    standardize : bool, default=False
        Whether the penalty is on coefficients in units of the features' standard deviations
        (sample-weighted, around the mean), so that `C` means the same whatever the units of
        the features are; `coef_` is in the units of `X`. False is the penalty of
        `LogisticRegression`. Sparse `X` is never centred.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, `{label: weight}`; labels left out have weight one.
        "balanced" weights a class inversely to its total sample weight.
    classes : array-like of shape (n_classes,), default=None
        The full set of labels, where `y` may miss some (a fold, a first batch). A set, not
        an order: `classes_` is sorted. None takes the labels found in `y`.
    label_smoothing : float, default=0.0
        Share in [0, 1) of every target that is spread evenly over the classes.
    solver : str, default="auto"
        The method: "newton-cholesky" (Newton's with the Hessian of all rows), "lbfgs" [1]_,
        "newton-cg", "gd" or, in mini-batches, "sgd" [6]_; with `l1_ratio` > 0 "newton-cd"
        (proximal Newton with coordinate descent [5]_) or "proximal" (accelerated proximal
        gradient). "auto" chooses by the shape of the data and the penalty, and `solver_` says
        what it chose.
    preconditioner : str or None, default="auto"
        The approximation of the Hessian that scales the steps: "hessian", the Hessian on a
        sample of rows; "block-diagonal", its block of every class; "kronecker", the Kronecker
        product of a Gram matrix of features and a curvature of classes [3]_; "diagonal", the
        diagonal of the Hessian; None, the textbook gradient. "auto" chooses by the
        numbers of features and classes, and by sparsity. "newton-cholesky" and the solvers
        for `l1_ratio` > 0 leave it aside.
    learning_rate : float or "auto", default="auto"
        For the solvers "gd" and "sgd"; others leave it aside. A number > 0 multiplies the
        gradient of the mean objective (preconditioned, where there is a preconditioner) and
        stays constant. "auto" needs no tuning: 1 with a preconditioner, halved where that would
        raise the objective; without one 1 / L, with L an upper bound of the curvature [2]_.
        "sgd" then takes gradients of reduced variance, and multiplies the rate by
        1 - momentum.
    momentum : float or "auto", default="auto"
        Nesterov's momentum, for the solvers "gd" and "sgd"; others leave it aside. A number in
        [0, 1) is constant; "auto" is the accelerated schedule with adaptive restart [4]_ for
        "gd", and 0.9 for "sgd".
    batch_size : int or "auto", default="auto"
        Rows of a mini-batch, for `solver="sgd"`. "auto" is a sixteenth of the rows, up to 16 MB,
        and at least 512; of sparse rows as many as make a step worth its price. A batch of all
        rows makes "sgd" the same as "gd".
    max_iter : int, default=1000
        The most iterations; for `solver="sgd"` the most epochs.
    tol : float, default=1e-6
        Stop when the objective is estimated to be within `tol`, relatively, of its minimum,
        whatever the units of the features. Coefficients and probabilities then agree with
        the optimum's to a small multiple of the square root of `tol`.
    early_stopping : bool, default=False
        Whether to stop where the mean log loss of held-out rows no longer falls, and to keep
        the coefficients with the least: `validation_fraction` of the rows, or the `X_val` and
        `y_val` of `fit`. Held-out rows take no part in the fit. `optimality_gap_` is then
        that of the coefficients kept, which may be far above `tol`.
    validation_fraction : float, default=0.1
        The share in (0, 1) of the rows to hold out, stratified by class. Each class keeps a
        row to learn from. Only with `early_stopping=True` and without `X_val`.
    n_iter_no_change : int, default=10
        With `early_stopping=True`, the iterations in a row after which the fit stops, where
        none of them has lowered the validation loss by a share of `tol`.
    warm_start : bool, default=False
        Start from the coefficients of the previous fit, if it had the same classes and
        number of features.
    random_state : int, RandomState instance or None, default=None
        Draws the rows that early stopping holds out, and the order of the rows for
        `solver="sgd"`. All else is deterministic.
    verbose : int or bool, default=0
        Print progress every ten iterations; more often for larger numbers.

    Attributes
    ----------
    coef_ : ndarray of shape (n_classes, n_features)
        Weights :math:`W`, one row per class, in the dtype of `X`. **For two classes too:
        coef_[1] - coef_[0] at C is coef_[0] of LogisticRegression at 2 * C.**
    intercept_ : ndarray of shape (n_classes,)
        Biases :math:`b`, which sum to zero.
    classes_ : ndarray of shape (n_classes,)
        Sorted labels.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, where `X` had string names for all of them.
    n_iter_ : int
        Iterations taken.
    loss_curve_ : ndarray of shape (n_iter_ + 1,)
        The objective divided by :math:`C \sum_i s_i` (for `C=np.inf` the mean loss) at
        the start and after every iteration. The last is that of `coef_`.
    validation_curve_ : ndarray of shape (n_iter_ + 1,)
        Mean log losses of the held-out rows at the start and after every iteration. Only with
        `early_stopping=True`; `coef_` is that of the least.
    optimality_gap_ : float
        Estimate of (objective - minimum) / minimum, or a proven bound of it: the number
        compared with `tol`, and for float32 coefficients what rounding them has added. With
        `l1_ratio` > 0 always a bound. One more Newton step ends a fit that has converged; the
        estimate is that before it, and the coefficients are mostly 3 to 30 times closer.
    solver_ : str
        The solver used; with `solver="auto"` the one that ended the fit.

    See Also
    --------
    sklearn.linear_model.LogisticRegression : The same objective, other solvers.

    Notes
    -----
    For two classes the layer has two rows. Its optimum at `C` is that of the binomial
    `LogisticRegression` at `2 * C`, with `coef_[1] - coef_[0]` equal to that model's
    `coef_[0]`.

    One vector added to every row of :math:`W` changes no probability. The columns of
    `coef_` sum to zero over the classes, as the intercepts do. With `l1_ratio` > 0 zero is
    instead a median of the coefficients of every feature.

    A class named in `classes` without weight in `y` takes no part in the solve: its row of
    `coef_` is zero, and its intercept makes its mean training probability
    :math:`0.5 / (s + 0.5 u)` for :math:`u` such classes and total weight :math:`s`. Where
    one class has all the weight, all of `coef_` is zero and every row has these probabilities.

    With `C=np.inf` and separable or quasi-separable classes there is no minimum. The fit
    recognises this, stops, and its `ConvergenceWarning` names the classes and the features.

    References
    ----------
    .. [1] J. Nocedal, "Updating quasi-Newton matrices with limited storage", Mathematics of
           Computation 35, 1980.
    .. [2] D. Böhning, "Multinomial logistic regression algorithm", Annals of the Institute
           of Statistical Mathematics 44, 1992.
    .. [3] J. Martens, R. Grosse, "Optimizing neural networks with Kronecker-factored
           approximate curvature", ICML 2015.
    .. [4] B. O'Donoghue, E. Candès, "Adaptive restart for accelerated gradient schemes",
           Foundations of Computational Mathematics 15, 2015.
    .. [5] J. Lee, Y. Sun, M. Saunders, "Proximal Newton-type methods for minimizing composite
           functions", SIAM Journal on Optimization 24, 2014.
    .. [6] R. Johnson, T. Zhang, "Accelerating stochastic gradient descent using predictive
           variance reduction", NeurIPS 2013.

    Examples
    --------
    The columns of the wine data have standard deviations from 0.1 to 314:

    >>> from sklearn.datasets import load_wine
    >>> from skfc import SoftmaxFCClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> clf = SoftmaxFCClassifier().fit(X, y)
    >>> clf.coef_.shape, clf.intercept_.shape
    ((3, 13), (3,))
    >>> clf.optimality_gap_ <= clf.tol
    True
    >>> clf.predict(X[[0, 60, 170]])
    array([0, 1, 2])
    >>> clf.predict_proba(X[[0, 60, 170]]).round(2)
    array([[1.  , 0.  , 0.  ],
           [0.01, 0.95, 0.05],
           [0.  , 0.05, 0.95]])
    """

    def __init__(
        self,
        *,
        C=1.0,
        l1_ratio=0.0,
        fit_intercept=True,
        standardize=False,
        class_weight=None,
        classes=None,
        label_smoothing=0.0,
        solver="auto",
        preconditioner="auto",
        learning_rate="auto",
        momentum="auto",
        batch_size="auto",
        max_iter=1000,
        tol=1e-6,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        warm_start=False,
        random_state=None,
        verbose=0,
    ):
        self.C = C
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.class_weight = class_weight
        self.classes = classes
        self.label_smoothing = label_smoothing
        self.solver = solver
        self.preconditioner = preconditioner
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.tol = tol
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    @with_callbacks
    def fit(
        self, X, y, sample_weight=None, *, X_val=None, y_val=None, sample_weight_val=None
    ):  # fmt: skip
        """Learn `coef_` and `intercept_`.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            float32 is kept, everything else becomes float64. Sparse formats other than CSR
            are converted once. With scikit-learn's `array_api_dispatch` PyTorch tensors and
            CuPy arrays stay what and where they are, and fitted attributes are beside them.
            A Dask array or frame stays in its chunks; `y` and `sample_weight` are then
            collections, too.
        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            Labels, or one row per sample, one-hot or of probabilities. For rows the labels
            are `classes`, the column names of a frame, or 0 ... n_classes - 1.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, >= 0; a whole number stands for that many equal rows.
        X_val : {array-like, sparse matrix} of shape (n_held_out, n_features), default=None
            Rows for early stopping, in the place of a share of `X`.
        y_val : array-like of shape (n_held_out,) or (n_held_out, n_classes), default=None
            Their labels, among those of `y` or `classes`, or probability rows.
        sample_weight_val : array-like of shape (n_held_out,), default=None
            Their weights.

        Returns
        -------
        self : SoftmaxFCClassifier
            The fitted estimator.

        Raises
        ------
        ValueError, TypeError
            For parameters or input that do not fit. An earlier fit is then left as it was.

        Warns
        -----
        ConvergenceWarning
            When `max_iter` ends the fit before `tol` is met, or nothing bounds the
            coefficients.
        """
        task = FitTask.of_fit(self, X, y, sample_weight, self.max_iter)
        with unchanged_on_failure(self):
            check_parameters(self)
            check_given(self.early_stopping, X_val, y_val, sample_weight_val)
            if X_val is not None:
                check_place(X_val, X, "X_val of fit()", "X")
            task.begin()
            self._fit(X, y, sample_weight, (X_val, y_val, sample_weight_val), task)
            task.end(dict)
        return self

    def _fit(self, X, y, sample_weight, given, task):
        if is_distributed(X):
            with _dask_fit.collected(self, X, y, sample_weight) as (*made, X):
                self._solve(*made, X, None, None, task)
            return
        rows = X
        X, *read = read_data(self, X, y, sample_weight)
        X = beside_targets(X, y, sample_weight)
        X, read, held_out = self._hold_out(X, read, *given)
        self._solve(*make_problem(self, X, read), X, rows, held_out, task)

    def _solve(self, problem, targets, active, X, rows, held_out, task):
        """Solve a problem, and store the outcome beside `rows`, X as it was given."""

        def complete(coef, intercept):
            pair = finish(coef, intercept, X, targets, active, self.fit_intercept)
            return tuple(beside(a, rows) for a in pair)

        validation = held_out and Validation(held_out, complete, self.n_iter_no_change, self.tol)
        monitors = CallbackMonitor(task, complete, targets.classes), validation
        options = {"monitors": [monitor for monitor in monitors if monitor]}
        method, C = Method.of(self), np.array([float(self.C)])
        start = self._start(problem, targets.classes, active)
        if start is None:
            (fit,), solver = solve(problem, method, C, **options)
        else:
            (fit,), solver = solve_warm(problem, method, C, start, **options)
        fit = validation.restored(problem, fit) if validation else fit
        self._store(problem, X, rows, fit, solver, targets, active)
        for name in ("validation_curve_", "_stream"):  # of an earlier fit
            vars(self).pop(name, None)
        if validation:
            self.validation_curve_ = beside(np.array(validation.curve), rows)
        self._warn(problem, fit, method, targets.classes[active])

    def _hold_out(self, X, read, X_val, y_val, sample_weight_val):
        """X and what was read with it without the rows held out, and those (None: no rows)."""
        if not self.early_stopping:
            return X, read, None
        classes, target, weight = read
        if X_val is None:
            random = check_random_state(self.random_state)
            held = hold_out(most_probable(target), weight, self.validation_fraction, random)
            held_out = HeldOut(some_rows(X, held), target[..., held], weight[held])
            return some_rows(X, ~held), (classes, target[..., ~held], weight[~held]), held_out
        X_val = beside_targets(check_rows(self, X_val), X)
        _, target = _targets.encode(_labels.plain(y_val, "y_val"), classes, what="y_val")
        check_consistent_length(X_val, target.T)
        given = readable(sample_weight_val, "sample_weight_val")
        weight = _targets.check_weights(given, (X_val.shape[0],), "sample_weight_val")
        return X, read, HeldOut(X_val, target, weight)

    def _start(self, problem, classes, active):
        """The coefficients of the last fit with `warm_start`, as a start, else None."""
        if not (self.warm_start and hasattr(self, "coef_")):
            return None
        same = to_numpy(self.classes_).tolist() == classes.tolist()
        if not (same and self.coef_.shape[1] == self.n_features_in_):
            return None
        coef, intercept = (to_numpy(_prediction.dense(a)) for a in (self.coef_, self.intercept_))
        return problem.start(coef[active], intercept[active])

    def _store(self, problem, X, given, fit, solver, targets, active):
        """Fitted attributes, beside the rows `given`; all that can fail comes before them."""
        coef, intercept = finish(
            *problem.coefficients(fit.theta), X, targets, active, self.fit_intercept
        )
        gap = problem.stored_gap(fit, coef[active], intercept[active])
        self.coef_, self.intercept_ = beside(coef, given), beside(intercept, given)
        self.classes_ = beside(targets.classes, given)
        self.n_iter_, self.solver_ = fit.n_iter, solver
        self.loss_curve_ = beside(np.array(fit.loss_curve), given)
        self.optimality_gap_ = gap

    def _warn(self, problem, fit, method, labels):
        """Warn of a fit that did not converge."""
        names = getattr(self, "feature_names_in_", None)
        names = [f"X[:, {j}]" for j in range(self.n_features_in_)] if names is None else names
        features = problem.leading_features(fit, names)
        _outcome.warn(fit, self.tol, self.max_iter, method, labels, features, dtype=problem.dtype)

    def _logits(self, X, method):
        """The `Logits` of validated rows, for a method."""
        check_is_fitted(self)
        return _prediction.Logits(check_rows(self, X, method), self.coef_, self.intercept_)

    def _all(self, X, function, method):
        """(n_samples, n_classes): what `function` makes of the logits of rows, for a method."""
        if is_distributed(X):
            return _dask_predict.predicted(self, X, function, all_classes=True)
        return beside(self._logits(X, method).all(function).T, X)

    def _each(self, X, function, method):
        """(n_samples,): `function` of the logits of rows; for "predict" the label it points at."""
        if is_distributed(X):
            return _dask_predict.predicted(self, X, function, labels=method == "predict")
        found = self._logits(X, method).each(function)
        found = _prediction.labels(self.classes_, found) if method == "predict" else found
        return beside(found, X)

    def decision_function(self, X):
        """Logits.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        logits : ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
            One column per class; for two classes the logit of the second less that of the
            first, as scikit-learn requires.
        """
        if getattr(self, "classes_", np.empty(0)).shape[0] == 2:
            return self._each(X, _prediction.difference, "decision_function")
        return self._all(X, _prediction.unchanged, "decision_function")

    def predict(self, X):
        """The most probable class of every row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to classify.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Labels, members of `classes_`.
        """
        return self._each(X, _prediction.most_probable, "predict")

    def predict_proba(self, X):
        """Probabilities of the classes, the softmax of the logits.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to classify.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            Columns in the order of `classes_`.
        """
        return self._all(X, _prediction.probabilities, "predict_proba")

    def predict_log_proba(self, X):
        """Logarithms of the probabilities, exact where a probability rounds to zero.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to classify.

        Returns
        -------
        log_proba : ndarray of shape (n_samples, n_classes)
            The log-softmax of the logits: finite for finite logits. Where a probability
            rounds to one in the type of `X`, its logarithm is zero.
        """
        return self._all(X, _prediction.log_probabilities, "predict_log_proba")

    def score(self, X, y, sample_weight=None):
        r"""Accuracy; for rows of probabilities, their mean share that the predictions meet.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to score.
        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            Labels, or one-hot or probability rows in the order of `classes_` (a frame: by
            its column names).
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        score : float
            For labels the accuracy, for rows :math:`\sum_i s_i y_{i \hat y_i} / \sum_i s_i`,
            which is the accuracy where they are one-hot.
        """
        if is_distributed(X):
            return _dask_predict.reduced(
                self, X, y, sample_weight, _dask_predict.accuracy_of_chunk
            )
        y, sample_weight = _labels.plain(y), readable(sample_weight, "sample_weight")
        if not _labels.is_rows(np.asarray(y)):
            predicted = to_numpy(self.predict(X))
            return float(accuracy_score(y, predicted, sample_weight=sample_weight))
        predicted = self._logits(X, "score").each(_prediction.most_probable)
        return _scoring.mean_target(predicted, self.classes_, y, sample_weight)

    def log_loss(self, X, y, sample_weight=None):
        r"""Weighted mean cross-entropy on data.

        Nothing is clipped, and `y` may miss classes.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to score.
        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            Labels out of `classes_`, or one-hot or probability rows in their order (a frame:
            by its column names).
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        loss : float
            :math:`-\sum_i s_i \sum_k y_{ik} \log p_{ik} / \sum_i s_i`.
        """
        if is_distributed(X):
            return _dask_predict.reduced(self, X, y, sample_weight, _dask_predict.loss_of_chunk)
        logits = self._logits(X, "log_loss")
        return _scoring.mean_log_loss(
            logits.over_blocks, logits.shape[1], self.classes_, y, sample_weight
        )

    def sparsify(self):
        """Store `coef_` as a CSR array: less memory where most of it is zero.

        With `l1_ratio` > 0 many coefficients are zero; with squares alone, those of features
        that are constant and of classes without weight. Predictions stay the same; `fit` makes
        `coef_` dense again.

        Returns
        -------
        self : SoftmaxFCClassifier
            The fitted estimator.

        See Also
        --------
        densify : The way back.
        """
        check_is_fitted(self)
        if not is_numpy(_prediction.dense(self.coef_)):
            raise TypeError(f"sparsify takes NumPy coefficients; coef_ is {place(self.coef_)}.")
        self.coef_ = sparse.csr_array(self.coef_)
        return self

    def densify(self):
        """Store `coef_` as an array again, the form that `fit` leaves.

        Returns
        -------
        self : SoftmaxFCClassifier
            The fitted estimator.

        See Also
        --------
        sparsify : To a CSR array.
        """
        check_is_fitted(self)
        self.coef_ = _prediction.dense(self.coef_)
        return self

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.array_api_support = CAN_DISPATCH
        return tags


def prepare(estimator, X, y, sample_weight):
    """The problem of an estimator's checked parameters and of data that are read here."""
    check_parameters(estimator)
    X, *read = read_data(estimator, X, y, sample_weight)
    return make_problem(estimator, beside_targets(X, y, sample_weight), read)[0]


def make_problem(estimator, X, read):
    """The problem of validated rows, the settled targets, and the classes with weight.

    `read` are classes, encoded target and weights, as `read_data` gives them with `X`.
    """
    targets = _targets.settle(*read, estimator.class_weight, estimator.label_smoothing)
    active = np.flatnonzero(targets.class_totals() > 0)
    if not len(active):
        raise ValueError("class_weight is zero for every class that y holds.")
    problem = Problem(
        X, [targets.keep(active)], fit_intercept=estimator.fit_intercept,
        standardize=estimator.standardize,
        l1_ratio=estimator.l1_ratio if np.isfinite(estimator.C) else 0.0,
        sample_weight=None if estimator.class_weight is None else read[-1][None],
    )  # fmt: skip
    return problem, targets, active
