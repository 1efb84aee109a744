"""Weighted Gram matrices of the rows of a CSR, standardised without making them dense."""

import numpy as np

from skfc._pool import in_order
from skfc._rows._base import is_small
from skfc._rows._blocks import row_blocks
from skfc._rows._csr_parts import view
from skfc._tuned import TUNED


def weighted_gram(X, weight, frame, scaled):
    """The Gram matrix (P, P) of standardised rows of a CSR, times their weights >= 0, and a one.

    With `scaled`, the stored values are in units of the features' scales already. Rows without
    weight are left out; X stays sparse.
    """
    rows, N = np.flatnonzero(weight), X.shape[1]
    weight, total = weight[rows].astype(np.float64), weight.sum(dtype=np.float64)
    x = X[rows].astype(np.float64)
    if not scaled:
        x.data *= frame.inverse[x.indices]
    shift, sums = frame.shift, x.T @ weight
    A = np.empty((frame.n_parameters,) * 2)
    if x.nnz > TUNED.dense_share * len(rows) * N and is_small((len(rows), N)):
        A[:N, :N] = dense_gram(x, np.sqrt(weight))
    else:
        A[:N, :N] = (x.T @ x.multiply(weight[:, None]).tocsr()).toarray()
    A[:N, :N] += total * np.outer(shift, shift) - np.outer(shift, sums) - np.outer(sums, shift)
    if frame.fit_intercept:
        A[N, :N] = A[:N, N] = sums - total * shift
        A[N, N] = total
    idle = np.flatnonzero(frame.inverse == 0)
    A[idle] = A[:, idle] = 0.0
    return A


def dense_gram(x, root):
    """The Gram matrix of rows of a CSR times `root`, in pieces that are made dense."""
    n, N = x.shape
    pieces = row_blocks(n, 8 * N, min_rows=1, most=n * N**2 // TUNED.block_operations)

    def part(rows):
        dense = view(x, rows).toarray()
        dense *= root[rows, None]
        return dense.T @ dense

    return sum(in_order(part, pieces))
