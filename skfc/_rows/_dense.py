"""Rows of NumPy arrays, dense: in C or F order, or a memory map."""

from functools import reduce

import numpy as np

from skfc._array import product
from skfc._moments import Moments
from skfc._pool import room
from skfc._rows._arrays import ArrayRows, Centred
from skfc._rows._base import is_small
from skfc._rows._blocks import row_blocks, work_of
from skfc._rows._dense_grams import DenseGrams
from skfc._tuned import TUNED

# Few columns, as many as BLAS takes at a time in float32: with zeros in the others products are
# up to 1.7 times faster.
FULL = {3: 4, 5: 8, 6: 8, 7: 8}


class DenseRows(DenseGrams, ArrayRows):
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

    def _user_logits(self, block, coef):
        X, out = self.X[block.rows], np.empty((len(coef), block.weight.shape[1]))
        for piece in self._pieces(block):
            np.matmul(coef, X[piece].T.astype(np.float64, copy=False), out=out[:, piece])
        return out

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
            # Of few columns, extremes are found faster where their values are together.
            layout = np.asfortranarray if x.shape[1] <= TUNED.few else np.asarray
            parts = (Moments.of(layout(x[p]), block.weight[:, p]) for p in self._pieces(block))
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
        return self._standardised_copy(np.float32)

    def _standardised_copy(self, dtype):
        index = [np.arange(block.weight.shape[1]) for block in self._blocks]
        return self._standard_rows(index, dtype)

    def _standardised_whole(self):
        """All rows standardised, where there is a copy, or a small one can be made; else None."""
        if self._single is not None or self.standard:
            return self.X if self._single is None else self._single.X
        if self.X.nbytes > TUNED.small_block_bytes:
            return None
        if "whole" not in self._copies:
            self._copies["whole"] = self._standardised_copy(self.dtype)
        return self._copies["whole"]


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
