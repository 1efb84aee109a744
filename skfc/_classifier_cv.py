"""The estimator that finds C by cross-validation: split, solve the path, choose, refit."""

import warnings
from difflib import get_close_matches

import numpy as np
from sklearn import get_config
from sklearn.metrics import check_scoring, get_scorer_names
from sklearn.model_selection import check_cv
from sklearn.utils import Bunch
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.validation import check_is_fitted

from skfc import _labels, _targets
from skfc._absent import finish
from skfc._array import all_beside, beside, is_dispatched, to_numpy
from skfc._callbacks import CallbackMonitor, FitTask, with_callbacks
from skfc._classifier import SoftmaxFCClassifier
from skfc._fits import solve, solve_warm
from skfc._input import as_features, readable
from skfc._method import Method
from skfc._parameters import check_parameters, check_solver
from skfc._problem import Problem
from skfc._reading import beside_targets, read_data, unchanged_on_failure
from skfc._scoring import cannot_score, neg_log_loss_scorer, with_labels
from skfc._search import (
    Fold,
    Paths,
    check_ratios,
    check_search,
    frame_rows,
    joined,
    log_losses,
    row_indices,
    select,
    solve_folds,
    tabulate,
    take_rows,
    takes_weights,
    warn_of_grid,
    warn_of_paths,
)


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
    l1_ratios : array-like of shape (n_l1_ratios,), default=(0.0,)
        The shares of the absolute values in the penalty to choose from, as `l1_ratio` of
        :class:`SoftmaxFCClassifier`.
    cv : int, cross-validation splitter or iterable of (train, test), default=None
        How the rows are split: the number of stratified folds (None is 5, or the size of
        the largest class where that is less), a splitter of scikit-learn, or the indices of
        training and test rows themselves. For `y` of probability rows the folds are
        stratified by the most probable class.
    scoring : str, callable or None, default=None
        The score of the held-out rows, the greater the better: a name that scikit-learn
        knows, or `scorer(estimator, X, y)`, which gets rows of a frame where `X` is one.
        None is minus the mean log loss, that of `neg_log_loss_scorer`. Named scores of
        probabilities are told `classes_`, so that a fold may miss a class.
    refit : bool, default=True
        Whether to fit all rows at the `C` found. If not, `coef_` and `intercept_` are the
        means of the folds' at that `C`.
    selection : {"best", "one_standard_error"}, default="best"
        The `C` of the highest mean score, or the smallest `C` whose mean score is within
        one standard error of it: a simpler model that is not clearly worse.
    store_paths : bool, default=True
        Whether to keep `coefs_paths_` and `intercepts_paths_`, which for many features are
        by far the largest part of a fitted search.
    fit_intercept : bool, default=True
        Whether to learn `intercept_`; without, it is zero.
    standardize : bool, default=False
        Whether the penalty is on coefficients in units of the features' standard deviations,
        as in :class:`SoftmaxFCClassifier`; those of its training rows in every fold.
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
    preconditioner : str or None, default="auto"
        The approximation of the Hessian that scales the steps, as in
        :class:`SoftmaxFCClassifier`.
    learning_rate : float or "auto", default="auto"
        As in :class:`SoftmaxFCClassifier`.
    momentum : float or "auto", default="auto"
        As in :class:`SoftmaxFCClassifier`.
    batch_size : int or "auto", default="auto"
        As in :class:`SoftmaxFCClassifier`.
    max_iter : int, default=1000
        The most iterations of every fit.
    tol : float, default=1e-6
        Every fit stops when its objective is estimated to be within `tol`, relatively, of
        its minimum.
    random_state : int, RandomState instance or None, default=None
        Draws the order of the rows for `solver="sgd"`. All else is deterministic.
    verbose : int or bool, default=0
        1 prints the number of problems left after every value of `C`, larger numbers
        also the progress of the iterations.

    Attributes
    ----------
    C_ : float
        The `C` found.
    Cs_ : ndarray of shape (n_Cs,)
        The values of `C`, in the order given.
    l1_ratio_ : float
        The share of the absolute values found.
    l1_ratios_ : ndarray of shape (n_l1_ratios,)
        Those to choose from, in the order given.
    scores_ : ndarray of shape (n_folds, n_Cs)
        Scores of the held-out rows; (n_folds, n_l1_ratios, n_Cs) for several `l1_ratios`.
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
        Coefficients of every fold at every `C`, with an axis for several `l1_ratios` after the
        first. Only with `store_paths=True`.
    intercepts_paths_ : ndarray of shape (n_folds, n_Cs, n_classes)
        Intercepts of every fold at every `C`, with that axis too. Only with `store_paths=True`.
    coef_ : ndarray of shape (n_classes, n_features)
        Weights, one row per class, in the dtype of `X`. **For two classes too:
        coef_[1] - coef_[0] at C is coef_[0] of LogisticRegression at 2 * C.**
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
        Estimate of (objective - minimum) / minimum of the last fit, or a proven bound of it;
        with `refit=False` the largest of the folds at `C_`.
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

    `score` is the score by `scoring` where it is given, else the accuracy, as for
    :class:`~sklearn.linear_model.LogisticRegressionCV`. That model's `scores_` and
    `n_iter_` always have an axis for its `l1_ratios` between folds and `Cs`, and so has its
    `coefs_paths_`, which appends the intercepts to the coefficients as a last column; here
    `intercepts_paths_` has them. Both models have a float `C_` (there unless
    `use_legacy_attributes=True`).

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from skfc import SoftmaxFCClassifierCV
    >>> X, y = load_wine(return_X_y=True)
    >>> clf = SoftmaxFCClassifierCV(Cs=[0.1, 1.0, 10.0, 100.0], cv=3).fit(X, y)
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
        l1_ratios=(0.0,),
        cv=None,
        scoring=None,
        refit=True,
        selection="best",
        store_paths=True,
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
        random_state=None,
        verbose=0,
    ):
        self.Cs = Cs
        self.l1_ratios = l1_ratios
        self.cv = cv
        self.scoring = scoring
        self.refit = refit
        self.selection = selection
        self.store_paths = store_paths
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
        self.random_state = random_state
        self.verbose = verbose

    @with_callbacks
    def fit(self, X, y, sample_weight=None, **params):
        """Find `C_`, and learn `coef_` and `intercept_` there.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            float32 is kept, everything else becomes float64. Sparse formats other than CSR
            are converted once. With scikit-learn's `array_api_dispatch` PyTorch tensors and
            CuPy arrays stay what and where they are, and fitted attributes are beside them.
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
            For parameters or input that do not fit, and for a fold whose training or test
            rows have no weight. An earlier fit is then left as it was.

        Warns
        -----
        ConvergenceWarning
            When `max_iter` ends a fit before `tol` is met, or nothing bounds the
            coefficients.
        UserWarning
            When `C_` is the smallest or the largest of several `Cs`, and no other scores
            as well, to within a share √`tol` of the score.
        """
        task = FitTask.of_fit(self, X, y, sample_weight)
        with unchanged_on_failure(self):
            check_parameters(self)
            task.begin()
            self._fit(X, y, sample_weight, params, task)
            task.end(dict)
        return self

    def _fit(self, X, y, sample_weight, params, task):
        Cs, ratios = check_search(self), check_ratios(self)
        check_solver(type(self).__name__, self.solver, ratios.tolist(), Cs.tolist())
        scorer, routed = self._route(sample_weight, params)
        given_X = X
        X, *read = read_data(self, X, y, sample_weight)
        folds = self._split(X, *read, routed.splitter.split)
        as_given = hasattr(given_X, "columns") or is_dispatched(given_X)
        rows = given_X if as_given else X
        given = routed.scorer.score.items()  # the weights as they were checked
        given = {k: read[-1] if v is sample_weight else v for k, v in given}
        if isinstance(self.scoring, str):
            self._try_score(scorer, rows, *read, folds, given)
        method = Method.of(self)
        parameters = {"fit_intercept": self.fit_intercept, "standardize": self.standardize}
        X = beside_targets(X, y, sample_weight)
        search = task.part("search").begin()
        paths = joined(
            [solve_folds(X, folds, Cs, method, parameters | {"l1_ratio": r}) for r in ratios]
        )
        search.end()
        # Every C with the first ratio, then every C with the second, and so on.
        grid = {"C": np.tile(Cs, len(ratios)), "l1_ratio": np.repeat(ratios, len(Cs))}
        if scorer is None:
            scores = [
                log_losses(X, *read[1:], *of_fold)
                for of_fold in zip(folds, *paths[:2], strict=True)
            ]
            scores = -np.array(scores)
        else:
            scores = self._score(scorer, rows, *read, folds, grid, paths, given)
        best = select(scores, grid["C"], self.selection)
        self._keep(given_X, Cs, ratios, grid, scores, paths, best)
        if self.refit:
            self._refit(X, given_X, *read, paths, best, method, task.part("refit", None))
        else:
            self._average(given_X, paths, best, read[0])
        warn_of_paths(paths, grid["C"], method, self.tol, self.max_iter)
        alike = grid["l1_ratio"] == self.l1_ratio_
        warn_of_grid(scores[:, alike], Cs, self.best_index_, self.selection, self.tol)

    def _keep(self, given, Cs, ratios, grid, scores, paths, best):
        """The attributes of the search; those of an earlier one do not stay."""
        shape = (len(scores), len(ratios), len(Cs)) if len(ratios) > 1 else (len(scores), len(Cs))
        self.Cs_, self.l1_ratios_ = beside(Cs, given), beside(ratios, given)
        self.scores_ = beside(scores.reshape(shape), given)
        self.C_, self.l1_ratio_ = float(grid["C"][best]), float(grid["l1_ratio"][best])
        self.best_index_, self.best_score_ = best % len(Cs), float(scores[:, best].mean())
        varied = grid if len(ratios) > 1 else {"C": Cs}
        self.cv_results_ = tabulate(varied, scores, paths.n_iter)
        if self.store_paths:
            for name in ("coef", "intercept"):
                path = getattr(paths, name)
                path = path.reshape(shape + path.shape[2:])
                setattr(self, f"{name}s_paths_", beside(path, given))
        else:
            vars(self).pop("coefs_paths_", None), vars(self).pop("intercepts_paths_", None)

    def score(self, X, y, sample_weight=None, **score_params):
        """The score by `scoring` where it is given, else the accuracy.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to score.
        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            Labels, or one-hot or probability rows, where the score takes those.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, for scores that take them.
        **score_params : dict
            With metadata routing, what the scorer requests.

        Returns
        -------
        score : float
            The greater the better.
        """
        if score_params and (self.scoring is None or not get_config()["enable_metadata_routing"]):
            raise TypeError(
                f"score takes X, y and sample_weight; got {sorted(score_params)}. Other metadata "
                "of a scorer needs `scoring` and set_config(enable_metadata_routing=True)."
            )
        if self.scoring is None:
            return super().score(X, y, sample_weight)
        check_is_fitted(self)
        scorer, given = self._scorer(), {"sample_weight": sample_weight} | score_params
        if get_config()["enable_metadata_routing"]:
            given = process_routing(self, "score", **given).scorer.score
        elif sample_weight is None or not takes_weights(scorer):
            given = {}
        scorer = with_labels(self.scoring, scorer, self.classes_)
        # Not `self`: a scorer may call the `score` of what it is given, which is accuracy.
        found = self.C_, self.l1_ratio_
        model = self._model(*found, self.coef_, self.intercept_, self.classes_)
        X = X if is_dispatched(X) else as_features(X)
        given = {key: readable(value, key) for key, value in given.items()}
        y, given = all_beside(_labels.plain(y), given, X)
        return scorer(model, X, y, **given)

    def _model(self, C, l1_ratio, coef, intercept, classes):
        """A fitted `SoftmaxFCClassifier`, as scorers get it."""
        names = SoftmaxFCClassifier().get_params()
        same = {k: v for k, v in self.get_params(deep=False).items() if k in names}
        model = SoftmaxFCClassifier(C=C, l1_ratio=l1_ratio, **same)
        model.coef_, model.intercept_, model.classes_ = coef, intercept, classes
        model.n_features_in_ = self.n_features_in_
        if hasattr(self, "feature_names_in_"):
            model.feature_names_in_ = self.feature_names_in_
        return model

    def _scorer(self):
        """The scorer that `scoring` stands for; None for the log loss."""
        scoring = self.scoring
        if not (scoring is None or isinstance(scoring, str) or callable(scoring)):
            raise TypeError(
                "The 'scoring' parameter of SoftmaxFCClassifierCV must be one score, its name or "
                f"a callable, or None; got {scoring!r}."
            )
        if isinstance(scoring, str) and scoring not in get_scorer_names():
            raise ValueError(
                "The 'scoring' parameter of SoftmaxFCClassifierCV must be a name out of "
                f"sklearn.metrics.get_scorer_names(); got {scoring!r}. Names like it: "
                f"{get_close_matches(scoring, get_scorer_names()) or 'none'}."
            )
        return None if scoring is None else check_scoring(self, scoring)

    def _route(self, sample_weight, params):
        """The scorer (None for the log loss), and what splitter and scorer are given."""
        scorer = self._scorer()
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
        cv = self.cv
        if cv is None:  # five folds, where a class has as many rows
            cv = int(np.clip(np.unique(labels, return_counts=True)[1].max(), 2, 5))
        splits = list(check_cv(cv, labels, classifier=True).split(X, labels, **split_params))
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
            if not len(active):
                raise ValueError(f"The training rows of fold {k} of cv have no weight.")
            folds.append(Fold(settled, active, test, share))
        return folds

    def _score(self, scorer, X, classes, target, weight, folds, grid, paths, score_params):
        """Scores (n_folds, n_candidates) by a scorer of fitted estimators."""
        n = X.shape[0]
        y = classes[target] if target.ndim == 1 else target.T
        classes = beside(classes, X)
        scorer = with_labels(self.scoring, scorer, classes)
        points = list(zip(*(values.tolist() for values in grid.values()), strict=True))
        scores = np.empty((len(folds), len(points)))
        for k, fold in enumerate(folds):
            rows = frame_rows(X, fold.test)
            held_out = {key: take_rows(v, fold.test, n) for key, v in score_params.items()}
            labels, held_out = all_beside(y[fold.test], held_out, X)
            for i, point in enumerate(points):
                pair = beside(paths.coef[k, i], X), beside(paths.intercept[k, i], X)
                model = self._model(*point, *pair, classes)
                scores[k, i] = scorer(model, rows, labels, **held_out)
        return scores

    def _try_score(self, scorer, X, classes, target, weight, folds, score_params):
        """Score coefficients of zero, so that a score that does not suit `y` raises at once."""
        zeros = np.zeros((1, 1, len(classes), X.shape[1]))
        paths = Paths(zeros, zeros[..., 0], None, None, None, None)
        one = {"C": np.ones(1), "l1_ratio": np.zeros(1)}
        with warnings.catch_warnings():  # of classes that are never predicted
            warnings.simplefilter("ignore")
            for k, fold in enumerate(folds):
                data = X, classes, target, weight, [fold]
                try:
                    self._score(scorer, *data, one, paths, score_params)
                except ValueError as error:
                    held_out = classes, target[..., fold.test]
                    raise ValueError(cannot_score(self.scoring, k, *held_out, error)) from error

    def _refit(self, X, given, classes, target, weight, paths, best, method, task):
        """Fit all rows at `C_`, from the mean of the folds where there was a choice."""
        targets = _targets.settle(classes, target, weight, self.class_weight, self.label_smoothing)
        active = np.flatnonzero(targets.class_totals() > 0)
        problem = Problem(
            X, [targets.keep(active)], fit_intercept=self.fit_intercept,
            standardize=self.standardize,
            l1_ratio=self.l1_ratio_ if np.isfinite(self.C_) else 0.0,
            sample_weight=None if self.class_weight is None else weight[None],
        )  # fmt: skip

        def complete(coef, intercept):
            pair = finish(coef, intercept, X, targets, active, self.fit_intercept)
            return tuple(beside(a, given) for a in pair)

        task.begin()
        options = {"name": "skfc refit", "monitors": [CallbackMonitor(task, complete, classes)]}
        C = np.array([self.C_])
        if np.unique(to_numpy(self.Cs_)).size > 1 or self.l1_ratios_.shape[0] > 1:
            start = problem.start(
                paths.coef[:, best].mean(axis=0)[active],
                paths.intercept[:, best].mean(axis=0)[active],
            )
            (fit,), solver = solve_warm(problem, method, C, start, suspicious=False, **options)
        else:  # the fit of `SoftmaxFCClassifier`, digit for digit
            (fit,), solver = solve(problem, method, C, **options)
        self._store(problem, X, given, fit, solver, targets, active)
        task.end(dict)
        self._warn(problem, fit, method, targets.classes[active])

    def _average(self, given, paths, best, classes):
        """The mean of the folds at `C_`."""
        self.coef_ = beside(paths.coef[:, best].mean(axis=0), given)
        self.intercept_ = beside(paths.intercept[:, best].mean(axis=0), given)
        self.classes_, self.solver_ = beside(classes, given), paths.solver[best]
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
        if self.scoring is not None:
            score = score.add(caller="score", callee="score")
        return (
            MetadataRouter(owner=type(self).__name__)
            .add_self_request(self)
            .add(splitter=self.cv, method_mapping=split)
            .add(scorer=scorer, method_mapping=score)
        )
