"""The estimator: validate, wire, store."""

import numpy as np
from scipy import optimize, special
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data

from skfc import _fitting, _targets
from skfc._design import make_design
from skfc._metric import make_metric
from skfc._objective import Objective
from skfc._parameters import check_parameters
from skfc._softmax import kernel
from skfc.solvers import SOLVERS

# How X is validated, in fit and in predict: no copy of what is already right.
ACCEPTED = {"accept_sparse": "csr", "dtype": [np.float64, np.float32], "order": None}


class SoftmaxFCClassifier(ClassifierMixin, BaseEstimator):
    def __init__(
        self,
        *,
        C=1.0,
        fit_intercept=True,
        class_weight=None,
        classes=None,
        label_smoothing=0.0,
        solver="auto",
        preconditioner="auto",
        max_iter=1000,
        tol=1e-6,
        warm_start=False,
        random_state=None,
        verbose=0,
    ):
        self.C = C
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.classes = classes
        self.label_smoothing = label_smoothing
        self.solver = solver
        self.preconditioner = preconditioner
        self.max_iter = max_iter
        self.tol = tol
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X, y, sample_weight=None):
        before = vars(self).copy()
        try:
            return self._fit(X, y, sample_weight)
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise

    def _fit(self, X, y, sample_weight):
        check_parameters(self)
        check_random_state(self.random_state)
        X, targets = self._validate(X, y, sample_weight)
        active = np.flatnonzero(targets.class_totals() > 0)
        solved = targets.keep(active)
        if len(active) < 2:
            raise ValueError(
                "y must hold at least two classes with positive weight; got one class, "
                f"{solved.classes.tolist()}."
            )
        solver = "lbfgs" if self.solver == "auto" else self.solver
        objective = Objective(
            make_design(X), solved.target, solved.weight[None], np.array([float(self.C)]),
            n_classes=len(active), fit_intercept=self.fit_intercept,
        )  # fmt: skip
        metric = make_metric(objective, self.preconditioner)
        start = self._start(objective, solved, targets.classes, active)
        (fit,) = _fitting.solve(
            SOLVERS[solver].generate, objective, metric, start,
            tol=self.tol, max_iter=self.max_iter, verbose=int(self.verbose),
        )  # fmt: skip
        self._store(X, fit, targets, active)
        self.solver_ = solver
        _fitting.warn(fit, self.tol, self.max_iter)
        return self

    def _validate(self, X, y, sample_weight):
        """X as an array or CSR, and the settled targets."""
        names = _targets.column_names(y)
        X, y = validate_data(self, X, y, multi_output=True, **ACCEPTED)
        if np.iscomplexobj(X):
            raise ValueError("Complex data not supported")
        classes = None if self.classes is None else _targets.check_classes(self.classes)
        classes, target = _targets.encode(y, classes, names=names)
        if target.ndim == 1 and len(np.unique(target)) < 2:
            raise ValueError(
                f"y must hold at least two classes; got one class, {classes[target[:1]].tolist()}."
            )
        weight = check_weights(sample_weight, X)
        return X, _targets.settle(classes, target, weight, self.class_weight, self.label_smoothing)

    def _start(self, objective, solved, classes, active):
        """The coefficients of the last fit with `warm_start`, else the null model."""
        start = np.zeros(objective.shape)
        N = objective.design.shape[1]
        if self.warm_start and hasattr(self, "coef_"):
            same = np.array_equal(self.classes_, classes) and self.coef_.shape[1] == N
            if same:
                start[:N] = self.coef_[active].T
                if self.fit_intercept:
                    start[N] = self.intercept_[active]
                return start
        if self.fit_intercept and self.preconditioner is not None:
            prior = np.log(solved.class_totals())
            start[N] = prior - prior.mean()
        return start

    def _store(self, X, fit, targets, active):
        """Fitted attributes; everything that can fail comes before the first of them."""
        N, T = X.shape[1], targets.n_classes
        W = fit.weights[:N].T
        b = fit.weights[N] if self.fit_intercept else np.zeros(len(active))
        # One vector added to every row changes no probability: the mean is the free part.
        coef, intercept = np.zeros((T, N)), np.zeros(T)
        coef[active] = W - W.mean(axis=0)
        intercept[active] = b - b.mean()
        absent = np.setdiff1d(np.arange(T), active)
        if len(absent):
            logits = X @ coef[active].T + intercept[active]
            intercept[absent] = absent_intercept(logits, targets.weight, len(absent))
            if self.fit_intercept:
                intercept -= intercept.mean()
        with np.errstate(over="ignore"):
            coef, intercept = coef.astype(X.dtype), intercept.astype(X.dtype)
        if not (np.isfinite(coef).all() and np.isfinite(intercept).all()):
            raise ValueError(
                f"The coefficients overflow {X.dtype}: X holds values too small or too "
                "large for it; rescale its columns."
            )
        self.coef_, self.intercept_, self.classes_ = coef, intercept, targets.classes
        self.n_iter_ = fit.n_iter
        self.loss_curve_ = np.array(fit.loss_curve)
        self.optimality_gap_ = fit.gap

    def _logits(self, X):
        """Logits, class-major (n_classes, n_samples)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, **ACCEPTED)
        if np.iscomplexobj(X):
            raise ValueError("Complex data not supported")
        coef = self.coef_.astype(X.dtype, copy=False)
        Z = np.ascontiguousarray((X @ coef.T).T) if hasattr(X, "tocsr") else coef @ X.T
        Z += self.intercept_.astype(X.dtype, copy=False)[:, None]
        return Z

    def decision_function(self, X):
        Z = self._logits(X)
        return Z[1] - Z[0] if len(Z) == 2 else Z.T

    def predict(self, X):
        Z = self._logits(X)
        return self.classes_[Z.argmax(axis=0)]

    def predict_proba(self, X):
        return kernel(np).probabilities(self._logits(X)[None])[0].T

    def predict_log_proba(self, X):
        Z = self._logits(X)
        Z -= Z.max(axis=0)
        Z -= special.logsumexp(Z, axis=0)
        return Z.T

    def log_loss(self, X, y, sample_weight=None):
        Z = self._logits(X)
        _, target = _targets.encode(np.asarray(y), self.classes_)
        weight = check_weights(sample_weight, Z.T)
        check_consistent_length(Z.T, y)
        loss, _ = kernel(np).residual(Z.astype(np.float64)[None], target, weight[None])
        return float(loss[0] / weight.sum())

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def check_weights(sample_weight, X):
    """Sample weights (n_samples,) in float64: finite, none negative, not all zero."""
    n = X.shape[0]
    if sample_weight is None:
        return np.ones(n)
    weight = np.asarray(sample_weight, dtype=np.float64)
    if weight.ndim == 0:
        weight = np.full(n, float(weight))
    if weight.shape != (n,):
        raise ValueError(f"sample_weight must have shape ({n},), one per row; got {weight.shape}.")
    if not np.isfinite(weight).all():
        raise ValueError("sample_weight contains NaN or infinity.")
    if (weight < 0).any():
        raise ValueError(f"sample_weight must not be negative; got {weight.min():g}.")
    if not weight.any():
        raise ValueError("sample_weight is zero everywhere; at least two classes need weight.")
    return weight


def absent_intercept(logits, weight, n_absent):
    """The logit that gives each of `n_absent` classes mean probability 0.5 / (s + 0.5 u).

    `logits` (n_samples, n_active) are those of the classes with weight.
    """
    total = weight.sum()
    log_target = np.log(0.5 / (total + 0.5 * n_absent))
    rest = special.logsumexp(logits, axis=1)
    share = weight / total

    def excess(b):
        return special.logsumexp(-np.logaddexp(rest - b, np.log(n_absent)), b=share) - log_target

    low, high = rest.min() + log_target - 1, rest.max() + 1
    while excess(high) < 0:
        high += 10
    return optimize.brentq(excess, low, high)
