"""The one objective by which everybody is judged, in float64."""

import numpy as np

# Logits held at a time: a block of rows has about this many.
BLOCK = 2**22


def mean_objective(X, y, coef, intercept, C):
    r"""Mean cross-entropy plus the penalty, mean_i loss_i + ||W||² / (2 C n).

    Parameters
    ----------
    X : array or CSR matrix (n_samples, n_features)
    y : array (n_samples,) of class indices
    coef : array (n_classes, n_features)
    intercept : array (n_classes,)
    C : float, inverse strength of the penalty; `np.inf` is none

    Returns
    -------
    float
        `np.inf` where the coefficients are not finite.
    """
    coef, intercept = np.asarray(coef, np.float64), np.asarray(intercept, np.float64)
    if not (np.isfinite(coef).all() and np.isfinite(intercept).all()):
        return np.inf
    n, step = X.shape[0], max(1, BLOCK // (len(coef) + X.shape[1]))
    loss = 0.0
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        Z = X[rows].astype(np.float64) @ coef.T + intercept
        Z -= Z.max(axis=1, keepdims=True)
        own = Z[np.arange(len(Z)), y[rows]].sum()
        loss += np.log(np.exp(Z).sum(axis=1)).sum() - own
    return float(loss / n + 0.5 * np.vdot(coef, coef) / (C * n))
