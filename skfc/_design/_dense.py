"""Dense rows: NumPy arrays (C or F order, memory maps) and array-API arrays."""

from itertools import pairwise

import numpy as np

from skfc._array import cast, namespace

# One block of X, its logits and residuals stay in the cache between the two products.
BLOCK_BYTES = 16 * 2**20
MIN_BLOCK_ROWS = 512
# Few columns as many as BLAS takes at a time in float32: with zeros in the others products are
# up to 1.7 times faster.
FULL = {3: 4, 5: 8, 6: 8, 7: 8}


def row_blocks(n_rows, bytes_per_row, block_bytes=BLOCK_BYTES, min_rows=MIN_BLOCK_ROWS):
    """Slices that cut `n_rows` into equal blocks of about `block_bytes`."""
    n_blocks = max(1, round(n_rows * bytes_per_row / block_bytes))
    n_blocks = min(n_blocks, max(1, n_rows // min_rows))
    edges = [n_rows * k // n_blocks for k in range(n_blocks + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]


def fill(rows, n_rows):
    """`rows`, and rows of zeros below."""
    out = np.zeros((n_rows, rows.shape[1]), dtype=rows.dtype)
    out[: len(rows)] = rows
    return out


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

    def logits(self, n_columns):
        """Room for (n_columns, n_samples) numbers, laid out as `forward` gives them."""
        return self.xp.empty((n_columns, self.shape[0]), dtype=self.dtype)

    def reduce(self, block, out):
        """Sums over all rows of the residuals R (n_columns, n_rows) that `block` gives.

        `block(rows)` gives losses and R; `out` (n_features, n_columns) is overwritten with
        XᵀRᵀ. Returns the sums of the losses and of R, (n_columns,).
        """
        xp = self.xp
        loss, sums = 0.0, 0.0
        for k, rows in enumerate(self.blocks):
            part, residual = block(rows)
            loss, sums = loss + part, sums + cast(xp.sum(residual, axis=1), out.dtype)
            product = self.adjoint(residual, rows)
            if k:
                out += product
            else:
                out[...] = product
        return loss, sums

    def turn(self, weights):
        return weights

    restore = turn

    def forward(self, weights, rows):
        return self.xp.matmul(weights.T, self.X[rows, :].T)

    def adjoint(self, residual, rows):
        return self.xp.matmul(residual, self.X[rows, :]).T


class DenseDesign(ArrayDesign):
    """Rows of a NumPy array."""

    def __init__(self, X, blocks=None):
        super().__init__(X, blocks or row_blocks(X.shape[0], X.shape[1] * X.itemsize))
        self.single = self.dtype == np.float32

    def forward(self, weights, rows):
        n_columns = weights.shape[1]
        if self.single and (full := FULL.get(n_columns)):
            return np.matmul(fill(weights.T, full), self.X[rows].T)[:n_columns]
        return np.matmul(weights.T, self.X[rows].T)

    def adjoint(self, residual, rows):
        n_columns = len(residual)
        # What BLAS does best: in float32 the longer side of the product first.
        if not self.single or n_columns > self.shape[1]:
            return np.matmul(residual, self.X[rows]).T
        if full := FULL.get(n_columns):
            return np.matmul(self.X[rows].T, fill(residual, full).T)[:, :n_columns]
        return np.matmul(self.X[rows].T, residual.T)

    def reduce_squares(self, block, out, mean, scale):
        """As `reduce`, with ((x - mean) / scale)² for x."""
        out[...] = 0.0
        sums = 0.0
        for rows in row_blocks(self.shape[0], self.shape[1] * 8, 2**22, 64):
            x = self.X[rows] - mean
            x /= scale
            np.square(x, out=x)
            _, residual = block(rows)
            out += x.T @ residual.T
            sums = sums + residual.sum(axis=1, dtype=np.float64)
        return 0.0, sums

    def take(self, rows):
        """A float64 copy of the rows with these indices, an integer array."""
        return self.X[rows].astype(np.float64, copy=False)

    def column(self, j):
        """A float64 copy of one column."""
        return self.X[:, j].astype(np.float64)

    def mean(self, weight):
        """Weighted mean row, (n_features,), for weights (n_rows,) that sum to one."""
        total = np.zeros(self.shape[1])
        for rows in self.blocks:
            total += weight[rows].astype(self.dtype) @ self.X[rows]
        return total

    def variance(self, weight, mean, centred=None):
        """Weighted variance of every feature, (n_features,).

        The rounding of `mean` is taken out again: a constant column has variance zero. An
        array `centred`, of the shape of X, gets x - mean.
        """
        total, offset = np.zeros(self.shape[1]), np.zeros(self.shape[1])
        mean = mean.astype(self.dtype)
        for rows in self._pieces():
            x = self.X[rows] - mean
            if centred is not None:
                centred[rows] = x
            w = weight[rows].astype(self.dtype)
            offset += w @ x
            np.square(x, out=x)
            total += w @ x
        return np.maximum(total - offset**2, 0.0)

    def squared_norms(self, mean, scale):
        """Squared norms of the standardised rows, (n_rows,)."""
        out = np.empty(self.shape[0])
        mean = mean.astype(self.dtype)
        weight = (scale**-2.0).astype(self.dtype)
        for rows in self._pieces():
            x = self.X[rows] - mean
            np.square(x, out=x)
            out[rows] = x @ weight
        return out

    def _pieces(self):
        """Small blocks for sums that need a temporary of their own."""
        return row_blocks(self.shape[0], self.shape[1] * self.dtype.itemsize, 2**20, 64)
