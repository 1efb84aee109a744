"""Sparse rows: CSR, never densified, never centred; products on several threads."""

from itertools import pairwise

import numpy as np

from skfc._threads import n_threads, over_rows, thread_map

MIN_BLOCK_VALUES = 50_000
# Stored values of a piece for what needs a copy of them.
PIECE_VALUES = 2**20
# Residuals of a block that stay in the cache, where a block costs next to nothing.
CACHED_NUMBERS = 2**18
# Means of columns, in standard deviations, that leave their squares digits to spare.
LITTLE = 10.0
# From so many columns on, logits lie in memory as the products give them, row by row:
# below, sums over the classes want them the other way.
ROW_MAJOR_FROM = 16


class SparseDesign:
    """Rows of a CSR array. Blocks hold equal numbers of stored values.

    With `rotation` its features are those of a product of it. With `transposed`, a second
    CSR of Xᵀ, both products run over rows of what they give.
    """

    sparse = True
    xp = np

    def __init__(self, X, blocks=None, transposed=None, rotation=None):
        self.X, self.rotation = X, rotation
        self.dtype = X.dtype
        self.shape = X.shape
        self.blocks = blocks or even_blocks(X, n_threads())
        self._rows = views(X, self.blocks)
        self._squares = self._columns = self._residuals = None
        if transposed is not None:
            self._columns = views(transposed, even_blocks(transposed, 4 * n_threads()))

    def map(self, function):
        """`function(rows)` for every block, in order of the blocks, run on threads."""
        return thread_map(function, self.blocks)

    def logits(self, n_columns):
        """Room for (n_columns, n_samples) numbers, laid out as `forward` gives them."""
        if n_columns < ROW_MAJOR_FROM:
            return np.empty((n_columns, self.shape[0]), dtype=self.dtype)
        return np.empty((self.shape[0], n_columns), dtype=self.dtype).T

    def turn(self, weights):
        return weights if self.rotation is None else self.rotation.turn(weights)

    def restore(self, weights):
        return weights if self.rotation is None else self.rotation.restore(weights)

    def forward(self, weights, rows):
        out = (self._rows[rows.start, rows.stop] @ weights).T
        return np.ascontiguousarray(out) if len(out) < ROW_MAJOR_FROM else out

    def adjoint(self, residual, rows):
        return self._rows[rows.start, rows.stop].T @ np.ascontiguousarray(residual.T)

    def reduce(self, block, out):
        """Sums over all rows of the residuals R (n_columns, n_rows) that `block` gives.

        `block(rows)` gives losses and R; `out` (n_features, n_columns) is overwritten with
        XᵀRᵀ. Returns the sums of the losses and of R, (n_columns,).
        """
        if self._columns is None:
            return self._reduce_blocks(block, out)
        return self._reduce_transposed(block, out)

    def _reduce_blocks(self, block, out):
        def products(rows):
            loss, residual = block(rows)
            return loss, residual.sum(axis=1, dtype=np.float64), self.adjoint(residual, rows)

        first, *others = self.map(products)
        loss, sums, out[...] = first
        for other_loss, other_sums, product in others:
            loss, sums = loss + other_loss, sums + other_sums
            out += product
        return loss, sums

    def _reduce_transposed(self, block, out):
        if self._residuals is None or self._residuals.shape[1] != out.shape[1]:
            self._residuals = np.empty((self.shape[0], out.shape[1]), dtype=self.dtype)
        residuals = self._residuals

        def fill(rows):
            loss, residual = block(rows)
            residuals[rows] = residual.T
            ones = np.ones(residual.shape[1], dtype=self.dtype)
            return loss, (residual @ ones).astype(np.float64)

        def multiply(item):
            (start, stop), columns = item
            out[start:stop] = columns @ residuals

        loss, sums = map(sum, zip(*self.map(fill), strict=True))
        thread_map(multiply, self._columns.items())
        return loss, sums

    def reduce_squares(self, block, out, mean, scale):
        """As `reduce`, with ((x - mean) / scale)² for x."""
        if self._columns is None:
            sums = self._squares_of_blocks(block, out, mean, scale)
        else:
            if self._squares is None:
                X = squares(self.X, mean, scale)
                if (np.abs(mean) <= LITTLE * scale).all():  # else differences of large numbers
                    X = X.astype(self.dtype)
                self._squares = SparseDesign(X, self.blocks, X.T.tocsr())
            _, sums = self._squares.reduce(block, out)
        centre, sums = ((mean / scale) ** 2)[:, None], sums[None]

        def piece(rows):
            part = out[rows]
            part += centre[rows] @ sums
            np.maximum(part, 0.0, out=part)

        over_rows(piece, out)
        return 0.0, sums[0]

    def _squares_of_blocks(self, block, out, mean, scale):
        sums, out[...] = 0.0, 0.0
        for rows in self._pieces():
            _, residual = block(rows)
            sums = sums + residual.sum(axis=1, dtype=np.float64)
            X = squares(view(self.X, rows), mean, scale)
            out += X.T @ np.ascontiguousarray(residual.T)
        return sums

    def _pieces(self):
        """Small blocks for what needs a copy of its values."""
        return even_blocks(self.X, 1 + self.X.nnz // PIECE_VALUES)

    def take(self, rows):
        """A dense float64 copy of the rows with these indices."""
        return self.X[rows].toarray().astype(np.float64, copy=False)

    def column(self, j):
        """A dense float64 copy of one column."""
        return self.X[:, [j]].toarray()[:, 0].astype(np.float64)

    def mean(self, weight):
        """Weighted mean row, (n_features,), for weights (n_rows,) that sum to one."""
        total = np.zeros(self.shape[1])
        for rows in self._pieces():  # in float64, which takes a copy
            total += view(self.X, rows).T @ weight[rows]
        return total

    def variance(self, weight, mean):
        """Weighted variance of every feature, (n_features,)."""
        total = np.zeros_like(mean)
        for rows in self._pieces():
            X = view(self.X, rows)
            X.data = np.square(X.data, dtype=np.float64)
            total += X.T @ weight[rows]
        return np.maximum(total - mean**2, 0.0)

    def squared_norms(self, mean, scale):
        """Squared norms of the standardised rows, (n_rows,)."""
        out = np.empty(self.shape[0])
        for rows in self._pieces():
            out[rows] = np.ravel(squares(view(self.X, rows), mean, scale).sum(axis=1))
        return np.maximum(out + ((mean / scale) ** 2).sum(), 0.0)

    def moments(self, rows, weight):
        """Weighted sums of x (n_features,) and of x xᵀ, dense, over the rows `rows`."""
        x = self.X[rows].astype(np.float64)
        return x.T @ weight, (x.T @ x.multiply(weight[:, None]).tocsr()).toarray()

    def lighter(self, dtype, n_columns, *, transpose):
        """The same rows in `dtype`, with Xᵀ if wanted; the indices are shared.

        Its blocks suit products with `n_columns` columns.
        """
        X = self.X
        if X.dtype == dtype and transpose == (self._columns is not None):
            return self
        data = X.data.astype(dtype, copy=False)
        X = type(X)((data, X.indices, X.indptr), shape=X.shape)
        if not transpose:
            return SparseDesign(X, self.blocks)
        n_blocks = max(len(self.blocks), self.shape[0] * n_columns // CACHED_NUMBERS)
        return SparseDesign(
            X, even_blocks(X, n_blocks, MIN_BLOCK_VALUES // n_columns), X.T.tocsr()
        )


def squares(X, mean, scale):
    """((x - mean) / scale)² less (mean / scale)², in float64: zero where X is."""
    mean, scale = mean[X.indices], scale[X.indices]
    data = X.data / scale
    data *= data - 2 * mean / scale
    return type(X)((data, X.indices, X.indptr), shape=X.shape)


def even_blocks(X, n_blocks, least=MIN_BLOCK_VALUES):
    """Slices of the rows of a CSR with about equal numbers of stored values, `least` or more."""
    n_blocks = max(1, min(n_blocks, X.nnz // max(least, 1), X.shape[0]))
    targets = [X.nnz * k // n_blocks for k in range(1, n_blocks)]
    inner = np.searchsorted(X.indptr, targets).tolist()
    edges = sorted({0, *inner, X.shape[0]})
    return [slice(a, b) for a, b in pairwise(edges)]


def view(X, rows):
    """Some rows of a CSR, without a copy: SciPy's slices would make one."""
    start, stop = X.indptr[rows.start], X.indptr[rows.stop]
    part = type(X)((rows.stop - rows.start, X.shape[1]), dtype=X.dtype)
    part.data, part.indices = X.data[start:stop], X.indices[start:stop]
    part.indptr = X.indptr[rows.start : rows.stop + 1] - start
    return part


def views(X, blocks):
    """Those of every block, by (start, stop)."""
    return {(rows.start, rows.stop): view(X, rows) for rows in blocks}
