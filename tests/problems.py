"""Generated problems, and problems whose optimum is known before anything is solved."""

from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

# Units and offsets as raw data has them.
RAW_SCALE = np.array([1.0, 1000.0, 0.01, 30.0, 5.0, 0.2])
RAW_SHIFT = np.array([0.0, 5000.0, 1.0, -300.0, 20.0, 0.0])


@dataclass(frozen=True)
class Known:
    """A problem and its exact optimum: what `fit` takes, and what it must find."""

    X: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    C: float
    coef: np.ndarray
    intercept: np.ndarray


def overlapping(n_samples=300, n_features=4, n_classes=3, *, raw=True, seed=0):
    """X (n, N) and labels (n,) drawn from a softmax model: classes that overlap."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n_samples, n_features))
    coef = rng.standard_normal((n_classes, n_features))
    P = softmax(X @ coef.T, axis=1)
    y = (P.cumsum(axis=1) < rng.random((n_samples, 1))).sum(axis=1)
    y[:n_classes] = np.arange(n_classes)  # no class is missing
    if raw:
        j = np.arange(n_features) % len(RAW_SCALE)
        X = X * RAW_SCALE[j] + RAW_SHIFT[j]
    return X, y


def separable(n_samples=60, n_classes=3, seed=0):
    """Classes far apart: without a penalty there is no optimum."""
    rng = np.random.default_rng(seed)
    y = np.arange(n_samples) % n_classes
    centres = 20 * np.eye(n_classes)
    return centres[y] + rng.uniform(-1, 1, (n_samples, n_classes)), y


def model(n_features, n_classes, scale, rng):
    """W* (T, N) and b* (T,), both of zero mean over the classes."""
    coef = rng.standard_normal((n_classes, n_features)) / scale
    intercept = rng.standard_normal(n_classes)
    return coef - coef.mean(axis=0), intercept - intercept.mean()


def known_unpenalised(n_samples=60, n_features=4, n_classes=3, *, seed=0):
    """Rows (xᵢ, k) of weight P(W*)ᵢₖ: the residuals of W* cancel in every xᵢ."""
    rng = np.random.default_rng(seed)
    scale = RAW_SCALE[np.arange(n_features) % len(RAW_SCALE)]
    X = rng.standard_normal((n_samples, n_features)) * scale
    coef, intercept = model(n_features, n_classes, scale, rng)
    P = softmax(X @ coef.T + intercept, axis=1)
    return Known(
        X=np.repeat(X, n_classes, axis=0),
        y=np.tile(np.arange(n_classes), n_samples),
        weight=P.ravel(),
        C=np.inf,
        coef=coef,
        intercept=intercept,
    )


def known_penalised(n_samples=60, n_features=4, n_classes=3, *, fit_intercept=True, seed=0):
    """Targets Y = P + R, with R so that Rᵀ[X, 1] = [W*, 0] / C balances the penalty.

    R is the smallest such matrix, and C the smallest for which Y stays clear of zero.
    """
    rng = np.random.default_rng(seed)
    scale = RAW_SCALE[np.arange(n_features) % len(RAW_SCALE)]
    X = rng.standard_normal((n_samples, n_features)) * scale
    coef, intercept = model(n_features, n_classes, scale, rng)
    intercept *= fit_intercept
    P = softmax(X @ coef.T + intercept, axis=1)
    if fit_intercept:
        rows = np.column_stack([X, np.ones(n_samples)])
        right = np.column_stack([coef, np.zeros(n_classes)])
    else:
        rows, right = X, coef
    R = rows @ np.linalg.solve(rows.T @ rows, right.T)
    C = 1.1 * np.max(-R / P)
    return Known(X, P + R / C, np.ones(n_samples), C, coef, intercept)


def far_rows(seed, largest):
    """X and y with rows far out in a column each, three of four of which have the same label."""
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((80, 4)), rng.integers(3, size=80)
    for j in range(2):
        rows = rng.choice(80, 4, replace=False)
        X[rows, j] = largest * 10.0 ** -rng.integers(3)
        y[rows[:3]] = y[rows[0]]
    return X, y
