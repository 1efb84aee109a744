"""Classes that no row has, or none with weight: coefficients and intercepts of all classes."""

import numpy as np
from scipy import optimize

from skfc._array import (
    numpy_type,
)
from skfc._targets import Targets


def finish(coef, intercept, X, targets: Targets, active, fit_intercept):
    """Coefficients and intercepts of all classes, NumPy's in the type of X.

    `coef` and `intercept` are those of the classes `active`. The classes without weight get
    their stated row and intercept.
    """
    dtype = numpy_type(X)
    if len(active) == 1:
        return one_class_model(X.shape[1], dtype, targets, active, fit_intercept)
    T = targets.n_classes
    full, b = np.zeros((T, coef.shape[1])), np.zeros(T)
    full[active], b[active] = coef, intercept
    if len(active) < T:
        absent = np.setdiff1d(np.arange(T), active)
        share = targets.share_of_new(X, coef, intercept, len(absent))
        b[absent] = absent_intercept(*share, targets.total, len(absent))
        if fit_intercept:
            b -= b.mean()
    with np.errstate(over="ignore"):
        full, b = full.astype(dtype), b.astype(dtype)
    if not (np.isfinite(full).all() and np.isfinite(b).all()):
        raise ValueError(
            f"X holds values too small or too large for {dtype}: the coefficients overflow; "
            "rescale its columns."
        )
    return full, b


def one_class_model(n_features, dtype, targets, active, fit_intercept):
    """Coefficients and intercepts where one class, `active`, has all the weight s.

    Its logit is zero, that of the others -log 2s: each of u others has then the probability
    0.5 / (s + 0.5 u) in every row, what `absent_intercept` gives on the average.
    """
    coef = np.zeros((targets.n_classes, n_features), dtype=dtype)
    intercept = np.full(targets.n_classes, -np.log(2 * targets.total))
    intercept[active] = 0.0
    if fit_intercept:
        intercept -= intercept.mean()
    return coef, intercept.astype(dtype)


def absent_intercept(log_mean, low, high, total, n_absent):
    """The logit that gives each of `n_absent` classes mean probability 0.5 / (s + 0.5 u).

    `log_mean` is the logarithm of that probability as a function of the logit, which is about
    between `low` and `high`; `total` is the weight s.
    """
    log_target = np.log(0.5 / (total + 0.5 * n_absent))

    def excess(b):
        return log_mean(b) - log_target

    low, high = low + log_target - 1, high + 1
    while excess(low) > 0:
        low -= 10
    while excess(high) < 0:
        high += 10
    return optimize.brentq(excess, low, high)
