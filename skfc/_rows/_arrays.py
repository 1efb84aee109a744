"""Rows of array-API arrays, dense ones of any library."""

from functools import cached_property, reduce

import numpy as np

from skfc._array import cast, concatenate, epsilon, itemsize, rows_that_fit, take, to_numpy
from skfc._moments import Moments
from skfc._rows._base import LocalRows
from skfc._rows._blocks import row_blocks
from skfc._rows._pairs import dense_pairs
from skfc._tuned import TUNED


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
        xp, every = self.xp, index.shape[0] == block.weight.shape[1]
        x = self.X[block.rows, :] if every else take(self.X, index + block.rows.start)[:, :]
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
        x = take(take(self.X, rows), columns, axis=1)[:, :]
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
        return (dense_pairs(x, place, classes, cast(p, dtype), weight),)

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
