"""Dense rows: array-API arrays, and NumPy arrays (C or F order, memory maps)."""

from functools import cached_property, reduce

import numpy as np

from skfc._array import (
    cast,
    concatenate,
    epsilon,
    itemsize,
    product,
    rows_that_fit,
    take,
    to_numpy,
)
from skfc._moments import Moments
from skfc._pool import in_order, room
from skfc._rows._base import LocalRows, is_small
from skfc._rows._blocks import row_blocks, work_of
from skfc._rows._pairs import dense_pairs, forms_of_pairs, sums_of_pairs
from skfc._tuned import TUNED

# Few columns, as many as BLAS takes at a time in float32: with zeros in the others products are
# up to 1.7 times faster.
FULL = {3: 4, 5: 8, 6: 8, 7: 8}


class ArrayRows(LocalRows):
    """Rows of an array-API array."""

    exact = False  # whether float32 loses digits of columns far from zero

    def _cut(self):
        n, N = self.shape
        step = rows_that_fit(self.X, self.n_columns + N)
        if step is None:
            return row_blocks(n, N * itemsize(self.X))
        return [slice(k, min(k + step, n)) for k in range(0, n, step)] or [slice(0, 0)]

    def in_frame(self, frame):
        rows = super().in_frame(frame)
        if not rows.far:
            return rows
        return rows._like(rows.X, rows.target, rows.weight, kind=self._centred, blocks=rows.blocks)

    @property
    def _centred(self):
        return CentredArrayRows

    @property
    def far(self):
        """Whether a column is so far from zero that products with X would lose its digits."""
        return not self.standard and self._loses_digits(epsilon(self.X))

    def _loses_digits(self, rounding):
        largest = self.xp.max(self.xp.abs(self.frame.shift)) if self.shape[1] else 0.0
        return float(largest) * rounding > TUNED.lost_digits

    def _forward(self, W, block):
        return self.xp.matmul(W.T, self._rows_of(block).T)

    def _adjoint(self, residual, block, power):
        if power == 2:
            x = self._standard(block, np.arange(block.weight.shape[1]), self.dtype)
            return self.xp.matmul(residual, x * x).T
        return self.xp.matmul(residual, self._rows_of(block)).T

    def _rows_of(self, block):
        return cast(self.X[block.rows, :], self.dtype)

    def _user_logits(self, block, coef):
        return self.xp.matmul(coef, cast(self.X[block.rows, :].T, self.xp.float64))

    def _standard(self, block, index, dtype):
        """Standardised rows `index` of a block, (n_rows, n_features)."""
        xp, x = self.xp, self.X[block.rows, :]
        x = x if index.shape[0] == x.shape[0] else take(x, index)
        if not self.standard:
            x = cast(x, xp.float64 if self.exact else self.dtype)
            mean, inverse = (cast(a, x.dtype) for a in (self.frame.mean, self.frame.inverse))
            x = (x - mean) * inverse
        return cast(x, dtype)

    def _norms(self, block):
        x = self._standard(block, np.arange(block.weight.shape[1]), self.dtype)
        return self.xp.sum(x * x, axis=1)

    def moments(self):
        """The :class:`Moments` of the rows in every problem."""
        return reduce(
            Moments.__add__,
            (Moments.of(cast(self.X[b.rows, :], self.dtype), b.weight) for b in self._blocks),
        )

    def _values(self, rows, columns):
        """Some values of X, (n_rows, n_columns), a float64 array of NumPy's."""
        x = take(take(self.X, rows), columns, axis=1)
        return to_numpy(cast(x, self.dtype)).astype(np.float64)

    def single(self):
        """These rows in single precision where that pays, else None."""
        return None

    def standardised(self):
        """All rows of a sample, standardised, (n_rows, n_features)."""
        return self.X

    def gram(self, weights):
        """Weighted Gram matrices of standardised rows, with a column of ones for the intercept.

        `weights` is a state of arrays (M, n_rows); the result (M, P, P) is divided by the
        number of rows.
        """
        total = 0.0
        for block, (weight,) in zip(self._blocks, weights, strict=True):
            total = total + self._sums_of_pairs(block, cast(weight, self.dtype))
        return total / self.n_total

    def _sums_of_pairs(self, block, weight):
        x = self._with_ones(block, weight.dtype)
        parts = [self.xp.matmul((x * weight[k, :][:, None]).T, x) for k in range(weight.shape[0])]
        return self.xp.stack(parts)

    def _pairs_of(self, block, p, used, place, classes, dtype):
        xp, N = self.xp, self.shape[1]
        inner = used[used < N]
        x = cast(take(self._rows_of(block), inner, axis=1), xp.float64)
        shift, inverse = (take(a, inner) for a in self._transform(xp.float64))
        if not self.standard:
            x = x * inverse - shift
        x = cast(x, dtype).T
        if len(inner) < len(used):
            x = concatenate([x, xp.ones((1, x.shape[1]), dtype=dtype)])
        weight = cast(block.weight[0, :], dtype)
        return dense_pairs(x, place, classes, cast(p, dtype), weight)

    def _row_forms(self, block, forms):
        xp, x = self.xp, self._with_ones(block, forms.dtype)
        products = (xp.matmul(x, forms[k, ...]) for k in range(forms.shape[0]))
        return xp.max(xp.stack([xp.sum(product * x, axis=1) for product in products]), axis=0)

    def _with_ones(self, block, dtype):
        xp, n = self.xp, block.weight.shape[1]
        x = self._standard(block, np.arange(n), dtype)
        if not self.frame.fit_intercept:
            return x
        return concatenate([x, xp.ones((n, 1), dtype=x.dtype)], axis=1)


class DenseRows(ArrayRows):
    """Rows of a NumPy array."""

    on_pool = True

    def _cut(self):
        """Blocks that stay in the cache with their logits, of work enough for a thread.

        And of rows enough that sums of what they give, (P, K), cost little.
        """
        (n, N), K = self.shape, self.n_columns
        most = work_of(n * N, n, K) // TUNED.block_operations
        bytes_per_row, least = (N + K) * self.dtype.itemsize, 2 * TUNED.min_block_rows
        return row_blocks(n, bytes_per_row, 2 * TUNED.small_block_bytes, least, most)

    @property
    def _dense_kind(self):
        return DenseRows

    @property
    def _centred(self):
        return CentredRows

    def _forward(self, W, block):
        X, n = self._rows_of(block), W.shape[1]
        W = W.T
        if X.itemsize == 4 and (full := FULL.get(n)):
            W = padded(W, full)
        return np.matmul(W, X.T, out=room("logits", (len(W), len(X)), X.dtype))[:n]

    def _adjoint(self, residual, block, power):
        if power == 2:
            return self._squares(residual, block)
        X, n = self._rows_of(block), len(residual)
        # What BLAS does best: in float32 the longer side of the product first.
        if X.itemsize == 8 or n > self.shape[1]:
            return product(residual, X).T
        if full := FULL.get(n):
            return product(X.T, padded(residual, full).T)[:, :n]
        return product(X.T, residual.T)

    def _rows_of(self, block):
        return self.X[block.rows]

    def _squares(self, residual, block):
        """Residuals times squared features, in pieces: squares need memory of their own."""
        out = 0.0
        for piece in self._pieces(block):
            x = self._standardised(self._copy(self.X[block.rows][piece]))
            np.square(x, out=x)
            out = out + product(x.T, residual[:, piece].T)
        return out

    @staticmethod
    def _copy(x):
        out = room("rows", x.shape, x.dtype)
        np.copyto(out, x)
        return out

    def _standardised(self, x):
        """A copy of rows of X, standardised in its type, in its place."""
        if not self.standard:
            x -= self.frame.mean.astype(x.dtype)
            x *= self.frame.inverse.astype(x.dtype)
        return x

    def _standard(self, block, index, dtype, out=None):
        if self._single is not None and dtype == np.float32:
            return self._single._standard(block, index, dtype, out)
        x = self.X[block.rows]
        every = len(index) == len(x)
        if self.standard:
            x = x if every else x[index]
            if out is None:
                return x.astype(dtype, copy=False)
            out[...] = x
            return out
        out = np.empty((len(index), self.shape[1]), dtype=dtype) if out is None else out
        for piece in row_blocks(len(index), 8 * self.shape[1], TUNED.small_block_bytes, 64):
            part = x[piece] if every else x[index[piece]]
            part = part - self.frame.mean
            part *= self.frame.inverse
            out[piece] = part
        return out

    def _standard_rows(self, index, dtype):
        ends = np.cumsum([len(i) for i in index]).tolist()
        out = np.empty((ends[-1], self.shape[1]), dtype=dtype)

        def write(block, i, end):
            self._standard(block, i, dtype, out[end - len(i) : end])

        list(self.each(write, index, ends))
        return out

    def _norms(self, block):
        if self._single is not None:
            return self._single._norms(block)
        out = np.empty(block.weight.shape[1])
        for piece in self._pieces(block):
            x = self.X[block.rows][piece]
            x = x if self.standard else self._standardised(self._copy(x))
            out[piece] = np.einsum("ij,ij->i", x, x)
        return out

    def moments(self):
        def of(block):
            x = self.X[block.rows]
            parts = (Moments.of(x[p], block.weight[:, p]) for p in self._pieces(block))
            return reduce(Moments.__add__, parts)

        return reduce(Moments.__add__, self.each(of))

    def _pieces(self, block):
        """Small parts of a block for sums that need a temporary of their own."""
        n = block.weight.shape[1]
        return row_blocks(n, self.shape[1] * self.dtype.itemsize, TUNED.small_block_bytes, 64)

    def single(self):
        """A standardised float32 copy of float64 rows, where it is small and saves time."""
        n, N = self.shape
        large = n * max(self.n_columns, N) > TUNED.single_from
        if self._single is None and self.dtype == np.float64 and large and is_small(self.shape):
            if "single" not in self._copies:
                self._copies["single"] = self._standardised_single()
            self._single = self._like(
                self._copies["single"], self.target, self.weight, kind=self._dense_kind,
                standard=True, blocks=self.blocks,
            )  # fmt: skip
        return self._single

    def _standardised_single(self):
        index = [np.arange(block.weight.shape[1]) for block in self._blocks]
        return self._standard_rows(index, np.float32)

    def gram(self, weights):
        P, M = self.n_parameters, weights[0][0].shape[0]
        total = 0.0

        def part(item):
            k, blocks = item
            return k, self._weighted_gram([(self._blocks[b], weights[b][0][k]) for b in blocks])

        for k, A in in_order(part, self._groups(weights)):
            total = np.zeros((M, P, P), dtype=A.dtype) if np.ndim(total) == 0 else total
            total[k] += A
        return total / self.n_total

    def _groups(self, weights):
        """Pairs of a weight and blocks next to each other, with rows enough for one product."""
        least = max(TUNED.min_block_rows, TUNED.block_operations // self.n_parameters**2)
        counts = np.stack(list(self.each(lambda _, kept: (kept[0] != 0).sum(axis=1), weights)))
        groups = []
        for k, count in enumerate(counts.T.tolist()):
            rows, blocks = 0, []
            for b, more in enumerate(count):
                rows, blocks = rows + more, [*blocks, b]
                if rows >= least or b == len(count) - 1:
                    groups.append((k, blocks))
                    rows, blocks = 0, []
        return groups

    def _weighted_gram(self, parts):
        """The Gram matrix of some blocks, pairs of a block and the weights of its rows."""
        X = self._single.X if self._single is not None else self.X
        index = [np.flatnonzero(weight) for _, weight in parts]
        weight = np.concatenate([w[i] for (_, w), i in zip(parts, index, strict=True)])
        N, end = self.shape[1], 0
        x = room("rows", (len(weight), N), X.dtype)
        for (block, _), i in zip(parts, index, strict=True):
            start, end = end, end + len(i)
            np.take(X[block.rows], i, axis=0, out=x[start:end], mode="clip")
        if self._single is None:
            x = self._standardised(x)
        root = np.sqrt(weight, dtype=x.dtype)
        x *= root[:, None]
        A = np.empty((self.n_parameters,) * 2, dtype=x.dtype)
        A[:N, :N] = product(x.T, x)
        if self.frame.fit_intercept:
            A[N, :N] = A[:N, N] = product(root, x)
            A[N, N] = weight.sum()
        return A

    def _sums_of_pairs(self, block, weight):
        return sums_of_pairs(self, block, weight)

    def _row_forms(self, block, forms):
        return forms_of_pairs(self, block, forms)


class Centred:
    """Of rows with a column so far from zero that blocks are standardised before products."""

    @property
    def _dense_kind(self):
        return self._plain

    def _rows_of(self, block):
        return self._standard(block, np.arange(block.weight.shape[1]), self.dtype)

    def _transform(self, dtype):
        zeros = cast(0.0 * self.frame.mean, dtype)
        return zeros, zeros + 1.0


class CentredArrayRows(Centred, ArrayRows):
    """Centred rows of an array-API array."""

    _plain = ArrayRows

    @cached_property
    def exact(self):
        return itemsize(self.X) == 8 or self._loses_digits(2.0**-23)


class CentredRows(Centred, DenseRows):
    """Centred rows of a NumPy array."""

    _plain = DenseRows

    def _standardised(self, x):
        x = x.astype(np.float64)
        x -= self.frame.mean
        x *= self.frame.inverse
        return x.astype(self.dtype, copy=False)


def padded(rows, n_rows):
    """`rows`, and rows of zeros below."""
    out = np.zeros((n_rows, rows.shape[1]), dtype=rows.dtype)
    out[: len(rows)] = rows
    return out
