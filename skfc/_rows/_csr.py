"""Sparse rows: CSR, never densified, never centred; products on several threads."""

from itertools import pairwise

import numpy as np

from skfc._array import product
from skfc._moments import Moments
from skfc._pool import in_order, over_rows, thread_map
from skfc._rows._base import LocalRows, is_small
from skfc._rows._blocks import add, row_blocks, work_of
from skfc._rows._dense import DenseRows
from skfc._rows._pairs import forms_of_pairs, sparse_pairs, sums_of_pairs
from skfc._tuned import TUNED

# Stored values for every feature in a block: its product with residuals is summed.
VALUES_PER_SUM = 4


class CSRRows(LocalRows):
    """Rows of a CSR array. Blocks hold equal numbers of stored values.

    With `transposed`, a second CSR of Xᵀ, both products run over rows of what they give.
    With `scaled`, the stored values are in units of the features' scales already.
    """

    on_pool = sparse = True

    def __init__(self, X, target, weight, *, transposed=None, scaled=False, **kept):
        self.scaled = scaled
        super().__init__(X, target, weight, **kept)
        self._views = views(X, self.blocks)
        self._columns = {} if transposed is None else {1: by_columns(transposed, self.n_columns)}
        self._transposed, self._residuals, self._units = transposed, None, {}

    def _cut(self):
        """Blocks of work enough for a thread: for products, and for sums of what they give."""
        X, K = self.X, self.n_columns
        n_blocks = work_of(X.nnz, X.shape[0], K) // TUNED.block_operations
        return even_blocks(X, min(n_blocks, X.nnz // (VALUES_PER_SUM * (1 + X.shape[1]))))

    @property
    def _dense_kind(self):
        return DenseRows

    @property
    def n_values(self):
        return self.X.nnz

    @property
    def parameter_dtype(self):
        return self.dtype if self.scaled else np.float64

    def in_frame(self, frame):
        rows = super().in_frame(frame)
        far = (np.abs(frame.shift) * 2.0**-23 > TUNED.lost_digits).any()
        if rows.dtype == np.float32 and far:  # float32 products would lose its digits
            X = rows.X.astype(np.float64)
            return rows._like(X, rows.target, rows.weight, blocks=rows.blocks)
        return rows

    def _like(self, X, target, weight, **changes):
        kept = {"scaled": self.scaled, "transposed": self._transposed}
        return super()._like(X, target, weight, **(kept | changes))

    def features(self, index):
        return self._like(
            self.X[:, index], self.target, self.weight, frame=self.frame.features(index),
            blocks=self.blocks, transposed=None,
        )  # fmt: skip

    def taken(self, index, n_total=None, **changes):
        return super().taken(index, n_total, transposed=None, **changes)

    def _rows_at(self, index):
        return self.X[index]

    # -- products ----------------------------------------------------------------------------

    def _transform(self, dtype):
        if dtype not in self._units:  # of very many features every sum would cast them
            self._units[dtype] = super()._transform(dtype)
        return self._units[dtype]

    def _logits(self, inner, block):
        logits = super()._logits(inner, block)
        if inner[0] is None and len(logits) >= TUNED.row_major_from:
            return np.asfortranarray(logits)  # as products give them
        return logits

    def _forward(self, W, block):
        out = (self._views[block.rows.start, block.rows.stop] @ W).T
        return np.ascontiguousarray(out) if len(out) < TUNED.row_major_from else out

    def _adjoint(self, residual, block, power):
        if self._columns:  # one product with Xᵀ, once all residuals are there
            self._residuals[block.rows] = residual.T
            return None
        X = self._views[block.rows.start, block.rows.stop]
        if power == 1:
            return X.T @ np.ascontiguousarray(residual.T)
        out = 0.0
        for rows in small_pieces(X):
            part = view(X, rows)
            squares = self._squared(part, part.indices)
            out = out + squares.T @ np.ascontiguousarray(residual[:, rows].T)
        return out

    def _squared(self, X, features):
        """((x - mean) / scale)² less (mean / scale)² of a CSR: zero where X is."""
        x = X.data if self.scaled else X.data * self.frame.inverse.astype(X.dtype)[features]
        data = x * (x - 2 * self.frame.shift.astype(X.dtype)[features])
        return type(X)((data, X.indices, X.indptr), shape=X.shape)

    def sum(self, function, theta=None, state=None, *, power=1, count=True):
        if self._columns and self._residuals is None:
            self._residuals = np.empty((self.shape[0], self.n_columns), dtype=self.dtype)
        return super().sum(function, theta, state, power=power, count=count)

    def _reduce(self, found_in_blocks, power):
        if not self._columns:
            return super()._reduce(found_in_blocks, power)
        values, sums, states = (), 0.0, []
        for found, part, _, kept in found_in_blocks:
            values = add(values, found)
            sums = None if part is None else sums + part
            states.append(kept)
        if sums is None:
            return values, None, states
        if power not in self._columns:
            features = np.repeat(np.arange(self.shape[1]), np.diff(self._transposed.indptr))
            self._columns[power] = by_columns(
                self._squared(self._transposed, features), self.n_columns
            )
        total = np.empty((self.n_parameters, self.n_columns), dtype=self.parameter_dtype)

        def multiply(item):
            (start, stop), columns = item
            total[start:stop] = columns @ self._residuals

        thread_map(multiply, self._columns[power].items())
        return values, self._leave(total, sums, power), states

    def _enter(self, theta):
        N = self.shape[1]
        W, b = theta[:N], theta[N] if self.frame.fit_intercept else np.zeros(theta.shape[1])
        if not all(over_rows(lambda rows: not W[rows].any(), W)):
            shift, inverse = self._transform(theta.dtype)
            inner = W if self.scaled else np.empty((N, W.shape[1]), self.dtype)

            def piece(rows):
                if not self.scaled:
                    np.multiply(W[rows], inverse[rows, None], out=inner[rows], casting="same_kind")
                return product(shift[rows], W[rows])

            slopes = over_rows(piece, W)
            return inner, (b - sum(slopes)).astype(self.dtype)
        return None, b.astype(self.dtype)

    def _leave(self, total, sums, power):
        N, sums = self.shape[1], (sums / self.n_total).astype(total.dtype)
        if len(total) < self.n_parameters:
            total = np.vstack([total, sums[None]])
        shift, inverse = self._transform(total.dtype)
        scale = total.dtype.type(1.0 / self.n_total)
        W = total[:N]

        def piece(rows):
            part = W[rows]
            part *= scale
            if power == 2:
                part += shift[rows, None] ** 2 * sums
                np.maximum(part, 0.0, out=part)
                return
            if not self.scaled:
                part *= inverse[rows, None]
            part -= shift[rows, None] * sums

        over_rows(piece, W)
        if self.frame.fit_intercept:
            total[N] = sums
        return total

    # -- what the frame, samples and preconditioners need ----------------------------------------

    def single(self):
        """These rows in float32 where that saves time, with Xᵀ where that is no larger.

        The stored values are in units of the features' scales; the indices are shared.
        """
        if self._single is None and not self.scaled:
            large = self.shape[0] * self.n_columns > TUNED.single_from
            dtype = np.float32 if large else self.dtype
            if (np.abs(self.frame.shift) * 2.0**-23 > TUNED.lost_digits).any():
                dtype = np.float64
            X = self._in_units_of_scales(dtype)
            transposed, blocks = None, self.blocks
            if X.nnz <= 2 * self.n_parameters * self.n_columns:
                transposed = self._transpose_of(X)
                # Residuals of a block, in float32, stay in the cache; nothing is summed.
                n_blocks = self.shape[0] * self.n_columns // (TUNED.small_block_bytes // 4)
                most = work_of(X.nnz, self.shape[0], self.n_columns) // TUNED.block_operations
                blocks = even_blocks(X, max(len(blocks), n_blocks, most))
            self._single = self._like(
                X, self.target, self.weight, scaled=True, transposed=transposed, blocks=blocks
            )
        return self._single

    def _in_units_of_scales(self, dtype):
        """X with its stored values divided by the scales of the features."""
        key = "scaled", np.dtype(dtype)
        if key not in self._copies:
            X, data = self.X, np.empty(self.X.nnz, dtype)

            def scale(rows):
                place = stored(X, rows)
                inverse = self.frame.inverse[X.indices[place]]
                np.multiply(X.data[place], inverse, out=data[place], casting="same_kind")

            thread_map(scale, small_pieces(X))
            self._copies[key] = type(X)((data, X.indices, X.indptr), shape=X.shape)
        return self._copies[key]

    def _transpose_of(self, X):
        """A CSR of the transpose of one of the copies."""
        key = "transposed", X.dtype
        if key not in self._copies:
            self._copies[key] = X.T.tocsr()
        return self._copies[key]

    def _standard(self, block, index, dtype):
        x = self.X[block.rows.start + index].toarray().astype(np.float64, copy=False)
        if not self.scaled:
            x *= self.frame.inverse
        x -= self.frame.shift
        x[:, self.frame.inverse == 0] = 0.0
        return x.astype(dtype, copy=False)

    def _sums_of_pairs(self, block, weight):
        return sums_of_pairs(self, block, weight)

    def _row_forms(self, block, forms):
        return forms_of_pairs(self, block, forms)

    def _norms(self, block):
        whole, out = view(self.X, block.rows), np.empty(block.weight.shape[1])
        for rows in small_pieces(whole):
            X = view(whole, rows).astype(np.float64)
            out[rows] = self._squared(X, X.indices).sum(axis=1).ravel()
        return np.maximum(out + (self.frame.shift**2).sum(), 0.0)

    def _user_logits(self, block, coef):
        X, out = view(self.X, block.rows), np.empty((len(coef), block.weight.shape[1]))
        for rows in small_pieces(X):
            out[:, rows] = (view(X, rows) @ coef.T).T
        return out

    def moments(self):
        """The :class:`Moments` of the rows in every problem."""
        weight = np.concatenate([block.weight for block in self._blocks], axis=1)
        weight = weight.astype(np.float64)
        total = weight.sum(axis=1)
        share = weight / total[:, None]
        B, N = len(weight), self.shape[1]
        mean, squares = np.zeros((N, B)), np.zeros((N, B))
        pieces = small_pieces(self.X)
        tame = all(thread_map(self._is_tame, pieces))

        def sums(rows):
            X, part = view(self.X, rows).astype(np.float64), share[:, rows].T
            first = X.T @ part
            X.data = np.square(X.data, out=X.data) if tame else np.abs(X.data, out=X.data)
            return first, X.T @ part

        for first, second in in_order(sums, pieces):
            mean += first
            squares += second
        spread = squares - mean**2
        # Where the mean is most of the squares, their difference has lost its digits.
        doubtful = (not tame) | (spread <= TUNED.single_digits * squares).any(axis=1)
        std = np.sqrt(np.maximum(spread, 0.0))
        empty = (squares == 0).all(axis=1)
        spread = np.where(empty, 0.0, np.maximum(std.max(axis=1), 1e-300))
        low, high = extremes(self.X, spread, pieces)
        for j in np.flatnonzero(doubtful & ~empty):
            column = Moments.of(self.X[:, [j]].toarray().astype(np.float64), weight)
            mean[j], std[j] = column.mean[:, 0], column.std[:, 0]
            low[j], high[j] = column.low[0], column.high[0]
        return Moments(total, mean.T, std.T, low, high)

    def _is_tame(self, rows):
        """Whether squares of the values of some rows stay within the range of float64."""
        size = np.abs(self.X.data[stored(self.X, rows)])
        smallest = size.min(initial=np.inf, where=size != 0)
        return float(size.max(initial=0.0)) < 1e140 and float(smallest) > 1e-140

    def stored_values(self):
        """How many values are stored of every column, (n_features,)."""
        return counts_of(self.X, small_pieces(self.X))

    def _values(self, rows, columns):
        return self.X[rows][:, columns].toarray().astype(np.float64)

    def gram(self, weights, *, pairs=False):
        """Weighted Gram matrices of standardised rows, with a column of ones for the intercept.

        `weights` is a state of arrays (M, n_rows), >= 0; the result (M, P, P) is divided by
        the number of rows. Rows without weight are left out; X stays sparse.
        """
        weight = np.concatenate([w for (w,) in weights], axis=1)
        return np.stack([self._weighted_gram(w) for w in weight]) / self.n_total

    def _weighted_gram(self, weight):
        rows, N = np.flatnonzero(weight), self.shape[1]
        weight, total = weight[rows].astype(np.float64), weight.sum(dtype=np.float64)
        x = self.X[rows].astype(np.float64)
        if not self.scaled:
            x.data *= self.frame.inverse[x.indices]
        shift, sums = self.frame.shift, x.T @ weight
        A = np.empty((self.n_parameters,) * 2)
        if x.nnz > TUNED.dense_share * len(rows) * N and is_small((len(rows), N)):
            A[:N, :N] = dense_gram(x, np.sqrt(weight))
        else:
            A[:N, :N] = (x.T @ x.multiply(weight[:, None]).tocsr()).toarray()
        A[:N, :N] += total * np.outer(shift, shift) - np.outer(shift, sums) - np.outer(sums, shift)
        if self.frame.fit_intercept:
            A[N, :N] = A[:N, N] = sums - total * shift
            A[N, N] = total
        idle = np.flatnonzero(self.frame.inverse == 0)
        A[idle] = A[:, idle] = 0.0
        return A

    def _pairs_of(self, block, p, used, place, classes, dtype):
        inner = used[used < self.shape[1]]
        x = self._views[block.rows.start, block.rows.stop][:, inner].tocsc().astype(np.float64)
        shift, inverse = (a[inner] for a in self._transform(np.float64))
        x.data *= np.repeat(inverse, np.diff(x.indptr))
        weight = block.weight[0].astype(np.float64)
        return sparse_pairs(x, shift, place, classes, p.astype(np.float64), weight)


def extremes(X, std, pieces):
    """Bounds of the values of every column of a CSR: one `std` where few of them are stored.

    The rows `pieces` are sorted by columns one after the other: together that would take
    several times the memory of X.
    """
    low, high = -std, std.copy()
    counts = counts_of(X, pieces)
    columns = np.flatnonzero(counts > TUNED.dense_share * X.shape[0])
    if len(columns):
        # One that is not stored is zero.
        full = counts[columns] == X.shape[0]
        low[columns], high[columns] = np.where(full, np.inf, 0.0), np.where(full, -np.inf, 0.0)

        def bounds(rows):
            some = view(X, rows)[:, columns].tocsc()
            some_stored = np.diff(some.indptr) > 0
            starts, found = some.indptr[:-1][some_stored], columns[some_stored]
            if not len(found):
                return found, np.inf, -np.inf
            reduced = (f.reduceat(some.data, starts) for f in (np.minimum, np.maximum))
            return found, *reduced

        for found, least, most in in_order(bounds, pieces):
            low[found] = np.minimum(low[found], least)
            high[found] = np.maximum(high[found], most)
    return low, high


def counts_of(X, pieces):
    """Stored values of every column of a CSR, counted piece by piece."""
    return sum(np.bincount(X.indices[stored(X, rows)], minlength=X.shape[1]) for rows in pieces)


def dense_gram(x, root):
    """The Gram matrix of rows of a CSR times `root`, in pieces that are made dense."""
    n, N = x.shape
    pieces = row_blocks(n, 8 * N, min_rows=1, most=n * N**2 // TUNED.block_operations)

    def part(rows):
        dense = view(x, rows).toarray()
        dense *= root[rows, None]
        return dense.T @ dense

    return sum(in_order(part, pieces))


def small_pieces(X):
    """Slices of rows for what copies their values, or gives a number for every feature."""
    values = max(TUNED.small_block_bytes // 4, VALUES_PER_SUM * X.shape[1])
    return even_blocks(X, 1 + X.nnz // values)


def even_blocks(X, n_blocks):
    """Slices of the rows of a CSR with about equal numbers of stored values."""
    n_blocks = max(1, min(n_blocks, X.nnz, X.shape[0]))
    targets = [X.nnz * k // n_blocks for k in range(1, n_blocks)]
    inner = np.searchsorted(X.indptr, targets).tolist()
    edges = sorted({0, *inner, X.shape[0]})
    return [slice(a, b) for a, b in pairwise(edges)]


def without_duplicates(X):
    """A CSR with one stored value per entry: a copy where an entry may have several."""
    if X.has_canonical_format:
        return X
    X = X.copy()
    X.sum_duplicates()
    return X


def stored(X, rows):
    """The slice of the stored values of some rows of a CSR."""
    return slice(X.indptr[rows.start], X.indptr[rows.stop])


def view(X, rows):
    """Some rows of a CSR, without a copy: SciPy's slices would make one."""
    place = stored(X, rows)
    part = type(X)((rows.stop - rows.start, X.shape[1]), dtype=X.dtype)
    part.data, part.indices = X.data[place], X.indices[place]
    part.indptr = X.indptr[rows.start : rows.stop + 1] - place.start
    return part


def views(X, blocks):
    """Those of every block, by (start, stop)."""
    return {(rows.start, rows.stop): view(X, rows) for rows in blocks}


def by_columns(transposed, n_columns):
    """Views of a CSR of Xᵀ for products with so many columns on threads."""
    n_blocks = work_of(transposed.nnz, 0, n_columns) // (TUNED.block_operations // 4)
    return views(transposed, even_blocks(transposed, n_blocks))
