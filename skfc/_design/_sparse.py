"""Sparse rows: CSR, never densified, never centred; products on several threads."""

from itertools import pairwise

import numpy as np

from skfc._threads import n_threads, thread_map

MIN_BLOCK_VALUES = 50_000


class SparseDesign:
    """Rows of a CSR array. Blocks hold equal numbers of stored values, one per thread."""

    sparse = True
    xp = np

    def __init__(self, X, blocks=None):
        self.X = X
        self.dtype = X.dtype
        self.shape = X.shape
        self.blocks = blocks or self._even_blocks(n_threads())
        # Views of the same values: SciPy's slices of rows would copy them every time.
        self._rows = {(b.start, b.stop): self._view(b) for b in self.blocks}

    def _even_blocks(self, n_blocks):
        nnz = self.X.nnz
        n_blocks = max(1, min(n_blocks, nnz // MIN_BLOCK_VALUES, self.shape[0]))
        targets = [nnz * k // n_blocks for k in range(1, n_blocks)]
        inner = np.searchsorted(self.X.indptr, targets).tolist()
        edges = sorted({0, *inner, self.shape[0]})
        return [slice(a, b) for a, b in pairwise(edges)]

    def _view(self, rows):
        X = self.X
        start, stop = X.indptr[rows.start], X.indptr[rows.stop]
        part = type(X)((rows.stop - rows.start, X.shape[1]), dtype=X.dtype)
        part.data, part.indices = X.data[start:stop], X.indices[start:stop]
        part.indptr = X.indptr[rows.start : rows.stop + 1] - start
        return part

    def _block(self, rows):
        return self._rows[rows.start, rows.stop]

    def map(self, function):
        """`function(rows)` for every block, in order of the blocks, run on threads."""
        return thread_map(function, self.blocks)

    def forward(self, weights, rows):
        return np.ascontiguousarray((self._block(rows) @ weights).T)

    def adjoint(self, residual, rows):
        return self._block(rows).T @ np.ascontiguousarray(residual.T)

    def take(self, rows):
        """A dense float64 copy of the rows with these indices."""
        return self.X[rows].toarray().astype(np.float64, copy=False)

    def column(self, j):
        """A dense float64 copy of one column."""
        return self.X[:, [j]].toarray()[:, 0].astype(np.float64)

    def mean(self, weight):
        """Weighted mean row, (n_features,), for weights (n_rows,) that sum to one."""
        return self.X.T @ weight

    def variance(self, weight, mean):
        """Weighted variance of every feature, (n_features,)."""
        return np.maximum(self._square().T @ weight - mean**2, 0.0)

    def squared_norms(self, mean, scale):
        """Squared norms of the standardised rows, (n_rows,)."""
        out = self._square() @ scale**-2.0 - 2 * (self.X @ (mean / scale**2))
        return np.maximum(out + ((mean / scale) ** 2).sum(), 0.0)

    def moments(self, rows, weight):
        """Weighted sums of x (n_features,) and of x xᵀ, dense, over the rows `rows`."""
        x = self.X[rows].astype(np.float64)
        return x.T @ weight, (x.T @ x.multiply(weight[:, None]).tocsr()).toarray()

    def _square(self):
        X = self.X
        data = np.square(X.data, dtype=np.float64)
        return type(X)((data, X.indices, X.indptr), shape=X.shape)

    def single(self):
        """The same rows in float32; the indices are shared."""
        X = self.X
        part = type(X)((X.data.astype(np.float32), X.indices, X.indptr), shape=X.shape)
        return SparseDesign(part, self.blocks)
