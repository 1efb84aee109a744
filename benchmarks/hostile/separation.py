"""Whether nothing bounds coefficients without a penalty: a linear program on all margins."""

import numpy as np
from scipy import optimize, sparse

# Margins below this, of rows of largest value one, are rounding of the program.
ROUNDING, LARGEST = 1e-9, 1e6


def are_separable(rows):
    """Whether a direction makes no row worse and some better, for :class:`Rows` of labels.

    What the program finds is looked at in extended precision. Weights play no part in it.
    """
    Y = rows.Y
    if ((Y > 0).sum(axis=1) > 1).any():
        return False
    X, T = rows.X - np.median(rows.X, axis=0), Y.shape[1]
    if not rows.intercept:
        X = rows.X
    size = np.abs(X).max(axis=0)
    X = X / np.where(size > 0, size, 1)
    if rows.intercept:
        X = np.column_stack([X, np.ones(len(X), X.dtype)])
    size = np.abs(X).max(axis=1)
    X, y = X[size > 0] / size[size > 0, None], Y[size > 0].argmax(axis=1)
    i, k = np.nonzero(np.arange(T) != y[:, None])
    sign = np.zeros((len(i), T, 1))
    sign[np.arange(len(i)), y[i]], sign[np.arange(len(i)), k] = 1, -1
    A = sparse.csr_array((sign * X.astype(float)[i, None, :]).reshape(len(i), -1))
    m, n = A.shape
    found = optimize.linprog(
        np.concatenate([np.zeros(n), -np.ones(m)]),
        A_ub=sparse.hstack([-A, sparse.identity(m)]), b_ub=np.zeros(m),
        bounds=[(None, None)] * n + [(0, 1)] * m, method="highs", options={"time_limit": 60},
    )  # fmt: skip
    if found.x is None or np.abs(found.x[:n]).max() > LARGEST:
        return False
    Z = X @ found.x[:n].reshape(T, -1).T.astype(X.dtype)
    margins = Z[i, y[i]] - Z[i, k]
    return bool(margins.max() > 0.5 and margins.min() >= -ROUNDING)
