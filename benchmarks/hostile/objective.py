"""The objective in extended precision, from the definition, apart from skfc's own code."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

# 64 bits of mantissa on x86; elsewhere it may be float64, and gaps below 1e-13 are noise.
Long = np.longdouble


@dataclass
class Rows:
    """The rows of positive weight, as dense extended-precision arrays.

    Attributes
    ----------
    X : (n, N)
    Y : (n, T) probability rows
    weight : (n,), sums to one
    l2 : the factor of ||W||² / 2 in the mean objective, 1 / (C * sum of the weights)
    intercept : whether there is one
    l1 : the factor of the sum of absolute values
    """

    X: np.ndarray
    Y: np.ndarray
    weight: np.ndarray
    l2: np.longdouble
    intercept: bool
    l1: float = 0.0


def rows_of(problem):
    """The :class:`Rows` of a :class:`Problem`: smoothing first, then class weights."""
    parameters = problem.parameters
    X = problem.X.toarray() if sparse.issparse(problem.X) else problem.X
    s = np.ones(len(X)) if problem.weight is None else problem.weight
    keep = s > 0
    X, s, y, T = X[keep].astype(Long), s[keep].astype(Long), problem.y[keep], problem.n_classes
    if y.ndim == 1:
        Y = (y[:, None] == np.arange(T)).astype(Long)
    else:
        Y = y.astype(Long)
        Y /= Y.sum(axis=1, keepdims=True)
    per_class = np.ones(T, Long)
    if parameters.get("class_weight") == "balanced":
        totals = s @ Y
        per_class = totals.sum() / (T * totals)
    a = Long(parameters.get("label_smoothing", 0.0))
    Y = ((1 - a) * Y + a / T) * per_class
    scale = Y.sum(axis=1)
    s = s * scale
    C = parameters.get("C", 1.0)
    strength = Long(0) if np.isinf(C) else 1 / (Long(C) * s.sum())
    r = Long(parameters.get("l1_ratio", 0.0))
    return Rows(
        X, Y / scale[:, None], s / s.sum(), (1 - r) * strength,
        parameters.get("fit_intercept", True), r * strength,
    )  # fmt: skip


def losses(Z, Y):
    """Loss of every row and its probabilities; small losses keep their digits."""
    i, top = np.arange(len(Z)), Z.argmax(axis=1)
    D = Z - Z[i, top][:, None]
    E = np.exp(D)
    E[i, top] = 0
    rest = E.sum(axis=1)
    E[i, top] = 1
    return np.log1p(rest) - (Y * D).sum(axis=1), E / (1 + rest)[:, None]


def objective(rows, coef, intercept):
    """The mean objective at coefficients as they are stored."""
    W = np.asarray(coef).astype(Long)
    Z = rows.X @ W.T + np.asarray(intercept).astype(Long)
    penalty = rows.l2 / 2 * (W**2).sum() + rows.l1 * np.abs(W).sum()
    return rows.weight @ losses(Z, rows.Y)[0] + penalty
