"""Sparse rows: CSR, never densified, never centred; products on several threads."""

import numpy as np

from skfc._array import product
from skfc._pool import over_rows, thread_map
from skfc._rows._base import LocalRows
from skfc._rows._blocks import add, work_of
from skfc._rows._csr_grams import weighted_gram
from skfc._rows._csr_moments import moments_of
from skfc._rows._csr_parts import (
    VALUES_PER_SUM,
    by_columns,
    counts_of,
    even_blocks,
    small_pieces,
    stored,
    transposed_view,
    view,
    views,
)  # fmt: skip
from skfc._rows._dense import DenseRows
from skfc._rows._pairs import centred_pairs, forms_of_pairs, sparse_pairs, sums_of_pairs
from skfc._tuned import TUNED


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
            return transposed_view(X) @ np.ascontiguousarray(residual.T)
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
        """A copy in float32 where that saves time, with Xᵀ where that is no larger.

        The stored values are in units of the features' scales; the indices are shared. Of rows
        that are float32 already, a copy is slower by 1 % to faster by 3 %: there is none.
        """
        if self._single is None and not self.scaled:
            large = self.shape[0] * self.n_columns > TUNED.single_from
            dtype = np.float32 if large else self.dtype
            if (np.abs(self.frame.shift) * 2.0**-23 > TUNED.lost_digits).any():
                dtype = np.float64
            if dtype == self.dtype == np.float32:
                return None
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
        return moments_of(self.X, weight.astype(np.float64))

    @property
    def mean_sizes(self):
        """Weighted means of |x| of one problem in units of the scales, (n_features,)."""
        weight = self.weight[0] / self.n_total
        return (abs(self.X).T @ weight) * (1.0 if self.scaled else self.frame.inverse)

    def stored_values(self):
        """How many values are stored of every column, (n_features,)."""
        return counts_of(self.X, small_pieces(self.X))

    def _values(self, rows, columns):
        return self.X[rows][:, columns].toarray().astype(np.float64)

    def gram(self, weights):
        """Weighted Gram matrices of standardised rows, with a column of ones for the intercept.

        `weights` is a state of arrays (M, n_rows), >= 0; the result (M, P, P) is divided by
        the number of rows.
        """
        weight = np.concatenate([w for (w,) in weights], axis=1)
        grams = [weighted_gram(self.X, w, self.frame, self.scaled) for w in weight]
        return np.stack(grams) / self.n_total

    def _pairs_of(self, block, p, used, place, classes, dtype):
        inner = used[used < self.shape[1]]
        x = self._views[block.rows.start, block.rows.stop][:, inner].tocsc().astype(np.float64)
        x.data *= np.repeat(self._transform(np.float64)[1][inner], np.diff(x.indptr))
        weight = block.weight[0].astype(np.float64)
        return sparse_pairs(x, place, classes, p.astype(np.float64), weight)

    def _hessian_of(self, sums, used, place, classes):
        shift = self._transform(np.float64)[0][used[used < self.shape[1]]]
        return centred_pairs(sums, shift, place, classes)
