"""The estimator that finds C by cross-validation: split, solve the path, choose, refit."""

import inspect
import warnings
from dataclasses import dataclass
from numbers import Integral
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata
from sklearn import get_config
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.utils import Bunch
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing

from skfc import _fitting, _targets
from skfc._classifier import SoftmaxFCClassifier, finish, null_model, unchanged_on_failure
from skfc._design import make_design
from skfc._fitting import Status
from skfc._objective import Objective
from skfc._parameters import check_parameters
from skfc._path import solve_batch, solve_path
from skfc._scoring import neg_log_loss_scorer
from skfc._softmax import kernel

SELECTIONS = ("best", "one_standard_error")


class SoftmaxFCClassifierCV(SoftmaxFCClassifier):
    r"""Softmax regression that finds its `C` by cross-validation.

    The fits of all folds at all values of `C` are solved together: the folds in lock-step,
    on one copy of `X`, from the strongest penalty to the weakest, every `C` started from
    the ones before it. The outcome is that of a search over
    :class:`SoftmaxFCClassifier`, sooner.

    Parameters
    ----------
    Cs : int or array-like of shape (n_Cs,), default=10
        The values of `C` to choose from, in any order; `np.inf` is no penalty. An integer
        is that many values on a logarithmic scale from 1e-4 to 1e4.
    cv : int, cross-validation splitter or iterable of (train, test), default=None
        How the rows are split: the number of stratified folds (None is 5), a splitter of
        scikit-learn, or the indices of training and test rows themselves. For `y` of
        probability rows the folds are stratified by the most probable class.
    scoring : str, callable or None, default=None
        The score of the held-out rows, the greater the better: a name that scikit-learn
        knows, or `scorer(estimator, X, y)`. None is minus the mean log loss, that of
        `neg_log_loss_scorer`.
    refit : bool, default=True
        Whether to fit all rows at the `C` found. If not, `coef_` and `intercept_` are the
        means of the folds' at that `C`.
    selection : {"best", "one_standard_error"}, default="best"
        The `C` of the highest mean score, or the smallest `C` whose mean score is within
        one standard error of it: a simpler model that is not clearly worse.
    fit_intercept : bool, default=True
        Whether to learn `intercept_`; without, it is zero.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, `{label: weight}`; labels left out have weight one.
        "balanced" weights a class inversely to its total sample weight in the training
        rows of each fold.
    classes : array-like of shape (n_classes,), default=None
        The full set of labels, where `y` may miss some. A set, not an order. None takes
        the labels found in `y`: folds may miss some of those in any case.
    label_smoothing : float, default=0.0
        Share in [0, 1) of every target that is spread evenly over the classes, in training.
    solver : str, default="auto"
        The method, as in :class:`SoftmaxFCClassifier`.
    preconditioner : {"auto", "hessian", "kronecker", "diagonal"} or None, default="auto"
        The metric in which the gradient is followed, as in :class:`SoftmaxFCClassifier`.
    learning_rate : float or "auto", default="auto"
        As in :class:`SoftmaxFCClassifier`.
    momentum : float or "auto", default="auto"
        As in :class:`SoftmaxFCClassifier`.
    max_iter : int, default=1000
        The most iterations of every fit.
    tol : float, default=1e-6
        Every fit stops when its objective is estimated to be within `tol`, relatively, of
        its minimum.
    random_state : int, RandomState instance or None, default=None
        For scikit-learn's conventions. Fits are deterministic.
    verbose : int or bool, default=0
        1 prints the number of problems left after every value of `C`, larger numbers
        also the progress of the iterations.

    Attributes
    ----------
    C_ : float
        The `C` found.
    Cs_ : ndarray of shape (n_Cs,)
        The values of `C`, in the order given.
    scores_ : ndarray of shape (n_folds, n_Cs)
        Scores of the held-out rows.
    best_index_ : int
        Index of `C_` in `Cs_`.
    best_score_ : float
        Mean score at `C_`.
    cv_results_ : dict of ndarrays
        A table of the search with a row for every `C`, ready for a data frame: `param_C`,
        `params`, `split0_test_score` ..., `mean_test_score`, `std_test_score` and
        `rank_test_score`, as those of :class:`~sklearn.model_selection.GridSearchCV`, and
        `mean_n_iter`.
    coefs_paths_ : ndarray of shape (n_folds, n_Cs, n_classes, n_features)
        Coefficients of every fold at every `C`.
    intercepts_paths_ : ndarray of shape (n_folds, n_Cs, n_classes)
        Intercepts of every fold at every `C`.
    coef_ : ndarray of shape (n_classes, n_features)
        Weights, one row per class, for two classes too. In the dtype of `X`.
    intercept_ : ndarray of shape (n_classes,)
        Biases, which sum to zero.
    classes_ : ndarray of shape (n_classes,)
        Sorted labels.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, where `X` had string names for all of them.
    n_iter_ : int
        Iterations of the last fit, that of all rows, which starts close to its end;
        with `refit=False` the most that a fold took at `C_`.
    loss_curve_ : ndarray of shape (n_iter_ + 1,)
        Objective of the last fit, divided by :math:`C \sum_i s_i` (for `C=np.inf` the mean
        loss), at its start and after every iteration. Only with `refit=True`.
    optimality_gap_ : float
        Estimate of (objective - minimum) / minimum of the last fit; with `refit=False` the
        largest of the folds at `C_`.
    solver_ : str
        The solver used.

    See Also
    --------
    SoftmaxFCClassifier : One fit, and the meaning of the parameters.
    sklearn.linear_model.LogisticRegressionCV : Its model; folds in turn, other solvers.

    Notes
    -----
    Where the training rows of a fold miss a class, its row of coefficients there is zero
    and its intercept is that of a class without weight in :class:`SoftmaxFCClassifier`, so
    that held-out rows of that class have a finite log loss.

    `score` is the accuracy, whatever `scoring` is.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from skfc import SoftmaxFCClassifierCV
    >>> X, y = load_wine(return_X_y=True)
    >>> clf = SoftmaxFCClassifierCV(Cs=[0.01, 0.1, 1.0, 10.0], cv=3).fit(X, y)
    >>> clf.scores_.shape, clf.coefs_paths_.shape
    ((3, 4), (3, 4, 3, 13))
    >>> clf.C_ in clf.Cs_
    True
    >>> clf.predict(X[[0, 60, 170]])
    array([0, 1, 2])
    """

    def __init__(
        self,
        *,
        Cs=10,
        cv=None,
        scoring=None,
        refit=True,
        selection="best",
        fit_intercept=True,
        class_weight=None,
        classes=None,
        label_smoothing=0.0,
        solver="auto",
        preconditioner="auto",
        learning_rate="auto",
        momentum="auto",
        max_iter=1000,
        tol=1e-6,
        random_state=None,
        verbose=0,
    ):
        self.Cs = Cs
        self.cv = cv
        self.scoring = scoring
        self.refit = refit
        self.selection = selection
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.classes = classes
        self.label_smoothing = label_smoothing
        self.solver = solver
        self.preconditioner = preconditioner
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X, y, sample_weight=None, **params):
        """Find `C_`, and learn `coef_` and `intercept_` there.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            float32 is kept, everything else becomes float64. Sparse formats other than CSR
            are converted once.
        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            Labels, or one row per sample, one-hot or of probabilities. For rows the labels
            are `classes`, the column names of a frame, or 0 ... n_classes - 1.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, >= 0, in the fits, and in the scores if the scorer takes
            them.
        **params : dict
            `groups` for the splitter. With metadata routing whatever splitter and scorer
            request.

        Returns
        -------
        self : SoftmaxFCClassifierCV
            The fitted estimator.

        Raises
        ------
        ValueError, TypeError
            For parameters or input that do not fit, and for a fold whose training rows
            hold one class only. An earlier fit is then left as it was.

        Warns
        -----
        ConvergenceWarning
            When `max_iter` ends a fit before `tol` is met, or nothing bounds the
            coefficients.
        """
        with unchanged_on_failure(self):
            return self._fit(X, y, sample_weight, params)

    def _fit(self, X, y, sample_weight, params):
        check_parameters(self)
        Cs = check_search(self)
        scorer, routed = self._route(sample_weight, params)
        X, *read = self._read(X, y, sample_weight)
        folds = self._split(X, *read, routed.splitter.split)
        design = make_design(X)
        method = self.get_params(deep=False)
        with _fitting.arithmetic(design):
            paths = solve_folds(X, design, folds, Cs, method)
        if scorer is None:
            scores = [
                log_losses(X, *read, *of_fold) for of_fold in zip(folds, *paths[:2], strict=True)
            ]
            scores = -np.array(scores)
        else:
            given = routed.scorer.score.items()  # the weights as they were checked
            given = {k: read[-1] if v is sample_weight else v for k, v in given}
            scores = self._score(scorer, X, *read, folds, Cs, paths, given)
        best = select(scores, Cs, self.selection)
        self.Cs_, self.scores_, self.best_index_ = Cs, scores, best
        self.C_, self.best_score_ = float(Cs[best]), float(scores[:, best].mean())
        self.cv_results_ = tabulate(Cs, scores, paths.n_iter)
        self.coefs_paths_, self.intercepts_paths_ = paths.coef, paths.intercept
        if self.refit:
            last = self._refit(X, design, *read, paths, method)
            _fitting.warn(last, self.tol, self.max_iter)
        else:
            self._average(paths, read[0])
        warn_of_paths(paths, self.tol, self.max_iter)
        return self

    def _route(self, sample_weight, params):
        """The scorer (None for the log loss), and what splitter and scorer are given."""
        scoring = self.scoring
        if not (scoring is None or isinstance(scoring, str) or callable(scoring)):
            raise TypeError(
                "The 'scoring' parameter of SoftmaxFCClassifierCV must be one score, its name or "
                f"a callable, or None; got {scoring!r}."
            )
        scorer = None if scoring is None else check_scoring(self, scoring)
        if get_config()["enable_metadata_routing"]:
            return scorer, process_routing(self, "fit", sample_weight=sample_weight, **params)
        unknown = sorted(set(params) - {"groups"})
        if unknown:
            raise TypeError(
                f"fit takes X, y, sample_weight and groups; got {unknown}. Other metadata of "
                "a splitter or scorer needs set_config(enable_metadata_routing=True)."
            )
        weighted = sample_weight is not None and scorer is not None and takes_weights(scorer)
        score = {"sample_weight": sample_weight} if weighted else {}
        return scorer, Bunch(splitter=Bunch(split=params), scorer=Bunch(score=score))

    def _split(self, X, classes, target, weight, split_params):
        """The folds."""
        n = X.shape[0]
        labels = classes[target if target.ndim == 1 else target.argmax(axis=0)]
        splits = list(check_cv(self.cv, labels, classifier=True).split(X, labels, **split_params))
        if not splits:
            raise ValueError("cv gives no split; at least one (train, test) pair is needed.")
        folds = []
        for k, (train, test) in enumerate(splits):
            train, test = (row_indices(rows, n, k) for rows in (train, test))
            share = weight * np.bincount(train, minlength=n)
            if not weight[test].any():
                raise ValueError(f"The test rows of fold {k} of cv have no weight.")
            settled = _targets.settle(
                classes, target, share, self.class_weight, self.label_smoothing
            )
            active = np.flatnonzero(settled.class_totals() > 0)
            unsmoothed = _targets.Targets(classes, target, share).class_totals()
            present = active[unsmoothed[active] > 0]
            if len(present) < 2:
                raise ValueError(
                    f"The training rows of fold {k} of cv must hold at least two classes with "
                    f"positive weight; got {classes[present].tolist()}."
                )
            folds.append(Fold(settled, active, test))
        return folds

    def _score(self, scorer, X, classes, target, weight, folds, Cs, paths, score_params):
        """Scores (n_folds, n_Cs) by a scorer of fitted estimators."""
        n = X.shape[0]
        y = classes[target] if target.ndim == 1 else target.T
        names = SoftmaxFCClassifier().get_params()
        same = {k: v for k, v in self.get_params(deep=False).items() if k in names}
        scores = np.empty((len(folds), len(Cs)))
        for k, fold in enumerate(folds):
            held_out = {key: take_rows(v, fold.test, n) for key, v in score_params.items()}
            for i, C in enumerate(Cs):
                model = SoftmaxFCClassifier(C=C, **same)
                model.coef_, model.intercept_ = paths.coef[k, i], paths.intercept[k, i]
                model.classes_, model.n_features_in_ = classes, X.shape[1]
                scores[k, i] = scorer(model, X[fold.test], y[fold.test], **held_out)
        return scores

    def _refit(self, X, design, classes, target, weight, paths, method):
        """Fit all rows at `C_`, from the mean of the folds."""
        targets = _targets.settle(classes, target, weight, self.class_weight, self.label_smoothing)
        active = np.flatnonzero(targets.class_totals() > 0)
        solved, best = targets.keep(active), self.best_index_
        start = [paths.coef[:, best].mean(axis=0)[active].T]
        if self.fit_intercept:
            start.append(paths.intercept[:, best].mean(axis=0)[None, active])
        with _fitting.arithmetic(design):
            objective = Objective(
                design, solved.target, solved.weight[None], np.array([self.C_]),
                n_classes=len(active), fit_intercept=self.fit_intercept,
            )  # fmt: skip
            start = np.vstack(start).astype(np.float64)
            (fit,), self.solver_ = solve_batch(objective, start, method)
            self._store(X, fit, targets, active)
        return fit

    def _average(self, paths, classes):
        """The mean of the folds at `C_`."""
        best = self.best_index_
        self.coef_ = paths.coef[:, best].mean(axis=0)
        self.intercept_ = paths.intercept[:, best].mean(axis=0)
        self.classes_, self.solver_ = classes, paths.solver
        self.n_iter_ = int(paths.n_iter[:, best].max())
        self.optimality_gap_ = float(paths.gap[:, best].max())
        vars(self).pop("loss_curve_", None)  # of an earlier fit

    def get_metadata_routing(self):
        """What splitter and scorer request of the metadata that `fit` is given.

        Returns
        -------
        routing : MetadataRouter
            As scikit-learn's metadata routing needs it.
        """
        scorer = neg_log_loss_scorer.set_score_request(sample_weight=True)
        if self.scoring is not None:
            scorer = check_scoring(self, self.scoring)
        split, score = (MethodMapping().add(caller="fit", callee=c) for c in ("split", "score"))
        return (
            MetadataRouter(owner=type(self).__name__)
            .add_self_request(self)
            .add(splitter=self.cv, method_mapping=split)
            .add(scorer=scorer, method_mapping=score)
        )


@dataclass(frozen=True)
class Fold:
    """Settled targets, of no weight outside the training rows; classes with weight; test rows."""

    train: _targets.Targets
    active: np.ndarray
    test: np.ndarray


class Paths(NamedTuple):
    """Coefficients, intercepts and how the fits ended: arrays (n_folds, n_Cs, ...)."""

    coef: np.ndarray
    intercept: np.ndarray
    n_iter: np.ndarray
    gap: np.ndarray
    status: np.ndarray
    solver: str


def check_search(estimator):
    """Check the parameters of the search; returns `Cs` as an array."""
    if estimator.selection not in SELECTIONS:
        raise ValueError(
            f"The 'selection' parameter of SoftmaxFCClassifierCV must be one of {SELECTIONS}; "
            f"got {estimator.selection!r}."
        )
    if not isinstance(estimator.refit, bool | np.bool_):
        raise TypeError(
            "The 'refit' parameter of SoftmaxFCClassifierCV must be True or False; "
            f"got {estimator.refit!r}."
        )
    Cs, right = estimator.Cs, "an integer >= 1 or a list of numbers > 0 (np.inf for no penalty)"
    wrong = f"The 'Cs' parameter of SoftmaxFCClassifierCV must be {right}; got {Cs!r}."
    if isinstance(Cs, Integral) and not isinstance(Cs, bool | np.bool_):
        if Cs < 1:
            raise ValueError(wrong)
        return np.logspace(-4, 4, Cs)
    try:
        Cs = np.array(Cs, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(wrong) from None
    if Cs.ndim == 0:
        raise TypeError(wrong)
    if Cs.ndim != 1 or not len(Cs) or not (Cs > 0).all():
        raise ValueError(wrong)
    return Cs


def takes_weights(scorer):
    """Whether a scorer has a parameter for sample weights."""
    parameters = inspect.signature(scorer).parameters.values()
    return any(p.name == "sample_weight" or p.kind is p.VAR_KEYWORD for p in parameters)


def row_indices(rows, n, k):
    """Indices of the rows that a split gave, as such or as a mask."""
    rows = np.asarray(rows)
    if rows.dtype == bool and rows.shape == (n,):
        rows = np.flatnonzero(rows)
    if rows.ndim != 1 or not len(rows) or rows.dtype.kind not in "iu":
        raise ValueError(
            f"Fold {k} of cv must give indices of training and of test rows, some of each; "
            f"got an array of shape {rows.shape} and dtype {rows.dtype}."
        )
    if rows.min() < 0 or rows.max() >= n:
        raise ValueError(
            f"Fold {k} of cv has row indices from {rows.min()} to {rows.max()}, "
            f"but X has {n} rows."
        )
    return rows


def take_rows(value, rows, n):
    """The part of metadata that belongs to `rows`, if there is an entry for every row."""
    per_row = hasattr(value, "__len__") and len(value) == n
    return np.asarray(value)[rows] if per_row else value


def solve_folds(X, design, folds, Cs, method):
    """The `Paths` of all folds, those with the same classes and targets together."""
    ascending = np.argsort(Cs, kind="stable")
    fits, left = [None] * len(folds), len(folds) * len(Cs)

    def progress(C, n_solved):
        nonlocal left
        left -= n_solved
        if method["verbose"]:
            print(f"[skfc] C={C:.4g}: {left} of {len(folds) * len(Cs)} problems left", flush=True)

    for alike in group(folds):
        solved = [folds[k].train.keep(folds[k].active) for k in alike]
        shape = design.shape[1] + method["fit_intercept"], solved[0].n_classes
        starts = [null_model(t, shape, method["fit_intercept"]) for t in solved]
        found, solver = solve_path(
            design, solved, starts, Cs[ascending],
            method | {"verbose": max(0, int(method["verbose"]) - 1)}, progress,
        )  # fmt: skip
        for k, path in zip(alike, found, strict=True):
            fits[k] = [path[i] for i in np.argsort(ascending)]
    done = [
        [finish(f.weights, X, fold.train, fold.active, method["fit_intercept"]) for f in path]
        for fold, path in zip(folds, fits, strict=True)
    ]
    coef, intercept = (np.array([[fit[j] for fit in path] for path in done]) for j in (0, 1))
    n_iter, gap, status = (
        np.array([[getattr(f, name) for f in path] for path in fits])
        for name in ("n_iter", "gap", "status")
    )
    return Paths(coef, intercept, n_iter, gap, status, solver)


def group(folds):
    """Lists of the folds that can be solved together: of equal classes and targets."""
    lists = []
    for k, fold in enumerate(folds):
        for alike in lists:
            first = folds[alike[0]]
            target, other = first.train.target, fold.train.target
            if np.array_equal(first.active, fold.active) and (
                target is other or np.array_equal(target, other)
            ):
                alike.append(k)
                break
        else:
            lists.append([k])
    return lists


def log_losses(X, classes, target, weight, fold, coef, intercept):
    """Weighted mean log loss of the held-out rows at every C, (n_Cs,)."""
    rows, T = X[fold.test], len(classes)
    logits = (rows @ coef.reshape(-1, X.shape[1]).T + intercept.ravel()).T
    logits = np.array(logits.reshape(len(coef), T, -1), dtype=np.float64, order="C")
    held_out = weight[fold.test] / weight[fold.test].max()
    loss, _ = kernel(np).residual(logits, target[..., fold.test], held_out[None])
    return loss / held_out.sum()


def select(scores, Cs, selection):
    """Index of the chosen C."""
    mean = scores.mean(axis=0)
    if np.isnan(mean).all():
        raise ValueError("The scorer gave NaN at every C.")
    best = int(np.nanargmax(mean))
    if selection == "best" or len(scores) == 1:
        return best
    error = scores[:, best].std(ddof=1) / np.sqrt(len(scores))
    near = np.flatnonzero(mean >= mean[best] - error)
    return int(near[np.argmin(Cs[near])])


def tabulate(Cs, scores, n_iter):
    """The columns of `cv_results_`."""
    mean = scores.mean(axis=0)
    split = {f"split{k}_test_score": row for k, row in enumerate(scores)}
    ranked = np.where(np.isnan(mean), -np.inf, mean)
    with np.errstate(invalid="ignore"):  # scores may be infinite
        std = scores.std(axis=0)
    return {
        "param_C": Cs.copy(),
        "params": [{"C": C} for C in Cs.tolist()],
        **split,
        "mean_test_score": mean,
        "std_test_score": std,
        "rank_test_score": rankdata(-ranked, method="min").astype(np.int32),
        "mean_n_iter": n_iter.mean(axis=0),
    }


def warn_of_paths(paths, tol, max_iter):
    """One warning for all fits of the folds that did not end well."""
    total = paths.status.size
    early = sum(s in (Status.MAX_ITER, Status.STUCK) for s in paths.status.flat)
    if early:
        warnings.warn(
            f"{early} of {total} fits of the folds stopped before tol={tol:g} was met, at "
            f"max_iter={max_iter} or where the arithmetic ends; the worst is an estimated "
            f"{paths.gap.max():.1e} above its minimum, relatively. Raise max_iter or tol, or "
            "leave out the largest Cs.",
            ConvergenceWarning,
            stacklevel=4,
        )
    separated = sum(s is Status.SEPARATED for s in paths.status.flat)
    if separated:
        warnings.warn(
            f"In {separated} of {total} fits of the folds the classes are separable: with "
            "C=inf the loss falls towards zero for ever, and their scores are those of where "
            "the fits stopped. Finite Cs have unique answers.",
            ConvergenceWarning,
            stacklevel=4,
        )
