"""Dense rows: NumPy arrays (C or F order, memory maps) and array-API arrays."""

from itertools import pairwise

import numpy as np

from skfc._array import namespace

# One block of X, its logits and residuals stay in the cache between the two products.
BLOCK_BYTES = 16 * 2**20
MIN_BLOCK_ROWS = 512


def row_blocks(n_rows, bytes_per_row, block_bytes=BLOCK_BYTES, min_rows=MIN_BLOCK_ROWS):
    """Slices that cut `n_rows` into equal blocks of about `block_bytes`."""
    n_blocks = max(1, round(n_rows * bytes_per_row / block_bytes))
    n_blocks = min(n_blocks, max(1, n_rows // min_rows))
    edges = [n_rows * k // n_blocks for k in range(n_blocks + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]


class ArrayDesign:
    """Rows of an array-API array."""

    sparse = False

    def __init__(self, X, blocks=None):
        self.X = X
        self.xp = namespace(X)
        self.dtype = X.dtype
        self.shape = X.shape
        self.blocks = blocks or row_blocks(X.shape[0], X.shape[1] * 8)

    def map(self, function):
        """`function(rows)` for every block, in order."""
        return map(function, self.blocks)

    def forward(self, weights, rows):
        return self.xp.matmul(weights.T, self.X[rows, :].T)

    def adjoint(self, residual, rows):
        return self.xp.matmul(self.X[rows, :].T, residual.T)


class DenseDesign(ArrayDesign):
    """Rows of a NumPy array."""

    def __init__(self, X, blocks=None):
        super().__init__(X, blocks or row_blocks(X.shape[0], X.shape[1] * X.itemsize))

    def take(self, rows):
        """The rows with these indices, dense, in float64."""
        return self.X[rows].astype(np.float64)

    def mean(self, weight):
        """Weighted mean row, (n_features,), for weights that sum to one."""
        return weight @ self.X

    def variance(self, weight, mean):
        """Weighted variance of every feature, (n_features,)."""
        total = np.zeros(self.shape[1])
        for rows in self.blocks:
            centred = self.X[rows] - mean
            total += np.einsum("n,nj,nj->j", weight[rows], centred, centred)
        return total
