"""What all containers of rows share: shapes, units, parts and samples of them."""

import math
from dataclasses import dataclass, field
from functools import reduce

import numpy as np

from skfc._array import (
    any_nonzero,
    cast,
    concatenate,
    is_memory_map,
    itemsize,
    namespace,
    nonzero,
    take,
    to_numpy,
    working_type,
)
from skfc._rows._blocks import BlockSums, Sizes, Work, accumulate, block_of, scale_by
from skfc._rows._pairs import pair_weights
from skfc._tuned import TUNED


class LocalRows(Sizes, BlockSums):
    """Rows in the memory of this process, with targets, weights and a frame.

    A subclass gives `_forward`, `_adjoint` and `_standard`, which see X; nothing else does.

    Parameters
    ----------
    X : rows (n_rows, n_features), of any container
    target : (n_rows,) class indices, or (n_classes, n_rows) probabilities
    weight : (n_problems, n_rows), of mean one in every problem
    n_classes : int
    frame : Frame of the features, or None before there is one
    standard : whether X holds standardised features, the intercept apart
    n_total : the number of rows that sums are divided by, more than n_rows for a sample
    share : the share of all rows that these are, for counting passes
    first : the number of the first of these rows, where they are a part of all rows
    """

    on_pool = sparse = False

    def __init__(
        self, X, target, weight, *, n_classes, frame=None, standard=False,
        n_total=None, share=1.0, first=0, work=None, blocks=None,
    ):  # fmt: skip
        self.X, self.target, self.weight, self.n_classes = X, target, weight, n_classes
        self.frame, self.standard = frame, standard
        self.n_total, self.share, self.first = n_total or X.shape[0], share, first
        self.work = Work() if work is None else work
        self.xp, self.shape = namespace(weight), X.shape
        self.dtype = X.dtype if self.sparse else working_type(X)
        self.blocks = self._cut() if blocks is None else blocks
        unit = bool(self.xp.all(weight == 1.0))
        self._blocks = [
            block_of(
                b, target[..., b], cast(weight[:, b], self.dtype), n_classes, unit, first + b.start
            )
            for b in self.blocks
        ]
        self._single = None
        self._copies = {}  # of X in this frame, shared with the rows of fewer problems
        self._pairs = {}  # products of features

    @property
    def _dense_kind(self):
        """The class of dense rows of the same library, for samples."""
        return type(self)

    # -- shapes --------------------------------------------------------------------------

    @property
    def n_problems(self):
        return self.weight.shape[0]

    @property
    def n_values(self):
        """The numbers that a product with X reads."""
        return self.shape[0] * self.shape[1]

    @property
    def parameter_dtype(self):
        """The type of weights and gradients."""
        return self.xp.float64

    @property
    def precision(self):
        """The types of weights and of products."""
        return self.parameter_dtype, self.dtype

    @property
    def local_blocks(self):
        """The blocks, which are here."""
        return self._blocks

    # -- between standardised weights and those of X ------------------------------------------

    def _enter(self, theta):
        """Weights and intercepts for products with X; weights are None where all are zero."""
        N = self.shape[1]
        W, xp = theta[:N, :], self.xp
        b = (
            theta[N, :]
            if self.frame.fit_intercept
            else xp.zeros(theta.shape[1], dtype=theta.dtype)
        )
        if not any_nonzero(W):
            return None, cast(b, self.dtype)
        if not self.standard:
            shift, inverse = self._transform(theta.dtype)
            b = b - xp.matmul(shift[None, :], W)[0, :]
            W = W * inverse[:, None]
        return cast(W, self.dtype), cast(b, self.dtype)

    def _leave(self, total, sums, power):
        """Products with X, and sums of residuals, as a gradient (P, K) of standardised weights."""
        xp, N = self.xp, self.shape[1]
        total = scale_by(total, 1.0 / self.n_total)
        sums = sums / self.n_total
        if not self.standard and power == 1:  # squares are of standardised features already
            shift, inverse = self._transform(total.dtype)
            total = scale_by(total, inverse[:, None])
            total -= shift[:, None] * sums[None, :]
        if not self.frame.fit_intercept:
            return total
        out = xp.empty((N + 1, total.shape[1]), dtype=total.dtype)
        out[:N, :] = total
        out[N, :] = sums
        return out

    def _transform(self, dtype):
        """Shift and inverse scale of the features."""
        return cast(self.frame.shift, dtype), cast(self.frame.inverse, dtype)

    def _logits(self, inner, block):
        W, b = inner
        if W is None:
            n = block.weight.shape[1]
            return self.xp.zeros((b.shape[0], n), dtype=self.dtype) + b[:, None]
        logits = self._forward(W, block)
        if self.frame.fit_intercept:
            logits += b[:, None]
        return logits

    # -- parts ------------------------------------------------------------------------------

    def problems(self, index, *states):
        """The rows of the problems `index` alone, and states cut to their columns."""
        if len(index) == self.n_problems:
            return (self, *states)
        part = self._like(self.X, self.target, take(self.weight, index), blocks=self.blocks)
        part._copies = self._copies
        columns = columns_of(index, self.n_classes)
        cut = [[tuple(take(a, columns) for a in kept) for kept in state] for state in states]
        if self._single is not None:
            part._single = self._single.problems(index)[0]
        for name in ("_prominence", "_pairs"):
            if hasattr(self, name):
                setattr(part, name, getattr(self, name))
        return (part, *cut)

    def alone(self, index):
        """The rows of the problems `index` alone, with a count of work of their own.

        Their blocks are two, where those of all problems are several: such fits run side by
        side, and the last of them has the threads to itself.
        """
        middle, n = self.blocks[len(self.blocks) // 2].start, self.shape[0]
        part = self._like(
            self.X, self.target, take(self.weight, index), work=Work(),
            blocks=[slice(0, middle), slice(middle, n)] if middle else self.blocks,
        )  # fmt: skip
        part._copies = self._copies
        return part

    def features(self, index):
        """The rows with the features `index` alone, in the same blocks."""
        return self._like(
            take(self.X, index, axis=1), self.target, self.weight,
            frame=self.frame.features(index), blocks=self.blocks,
        )  # fmt: skip

    def _like(self, X, target, weight, *, kind=None, **changes):
        kept = {
            "n_classes": self.n_classes, "frame": self.frame, "standard": self.standard,
            "n_total": self.n_total, "share": self.share, "first": self.first, "work": self.work,
        }  # fmt: skip
        return (kind or type(self))(X, target, weight, **(kept | changes))

    def in_frame(self, frame):
        """These rows with standardised features of `frame`."""
        return self._like(self.X, self.target, self.weight, frame=frame, blocks=self.blocks)

    def adopt(self, other, state):
        """The logits of `other`, the same rows in another precision or in other blocks, for these.

        They are the first array of a state.
        """
        dtype = self.dtype
        if self.blocks == other.blocks:
            return [(cast(kept[0], dtype),) for kept in state]
        whole = concatenate([kept[0] for kept in state], axis=-1)
        return [(cast(whole[..., rows], dtype),) for rows in self.blocks]

    def typical(self, moments):
        """Medians and spreads of the columns, host arrays; a spread of zero says nothing.

        By some evenly spaced rows. The spread is that between the quartiles, in standard
        deviations of a normal distribution. Sparse columns of few stored values are left out.
        """
        std, reach = to_numpy(moments.std[0, :]), to_numpy(moments.high - moments.low)
        columns = np.flatnonzero(reach > 2.01 * std)
        last, some = self.shape[0] - 1, min(self.shape[0], TUNED.hessian_rows)
        rows = np.arange(some) * last // max(some - 1, 1)
        x = np.sort(self._values(rows, columns), axis=0)
        n = len(x)
        median, spread = np.zeros(self.shape[1]), np.zeros(self.shape[1])
        median[columns] = x[n // 2]
        spread[columns] = (x[n - 1 - n // 4] - x[n // 4]) / 1.35
        return median, spread

    def taken(self, index, n_total=None, **changes):
        """The rows `index`; sums are means over them, or over `n_total`."""
        n_total = n_total or len(index)
        return self._like(
            self._rows_at(index), take(self.target, index, axis=-1),
            take(self.weight, index, axis=1), n_total=n_total,
            share=self.share * len(index) / self.shape[0], **changes,
        )  # fmt: skip

    def _rows_at(self, index):
        return take(self.X, index)

    def batches(self, size, rng):
        """All rows in random order, in batches of about `size`, each of which gives means over it.

        Of a memory map, runs of neighbouring rows stay together: reading one is reading them all.
        """
        n, run = self.shape[0], 1
        if is_memory_map(self.X):
            of_piece = TUNED.piece_bytes // (self.shape[1] * itemsize(self.X))
            run = max(1, min(of_piece, size // TUNED.batch_share))
        runs = rng.permutation(-(-n // run))
        for part in np.array_split(runs, min(len(runs), max(1, round(n / size)))):
            index = (np.sort(part)[:, None] * run + np.arange(run)).ravel()
            yield self.taken(index[index < n])

    def pair_sums(self, proba, dtype):
        """Means of m p_k p_j x̃ x̃ᵀ for the pairs k < j of classes, by rows of the upper triangle.

        (n_problems, T (T - 1) / 2, P, P). The second derivatives of the mean loss between two
        classes are these times -1, and sum to zero over the classes: that gives those of a class
        with itself.

        Parameters
        ----------
        proba : state, the probabilities of the rows, and a share of their curvature if not all
        dtype : of the products
        """

        def pairs(block, kept):
            return self._sums_of_pairs(block, cast(pair_weights(block, *kept[:2]), dtype))

        total = reduce(accumulate, self.each(pairs, proba)) / self.n_total
        return self.xp.reshape(total, (self.n_problems, -1, *total.shape[1:]))

    def second_moments(self, dtype):
        """Means of m x̃ x̃ᵀ for every problem, ones included: (n_problems, P, P)."""

        def of(block):
            return self._sums_of_pairs(block, cast(block.weight, dtype))

        return reduce(accumulate, self.each(of)) / self.n_total

    def row_forms(self, forms):
        """The largest x̃ᵀ A x̃ of every row, ones included, for A (M, P, P): a state (n_rows,)."""
        return [(found,) for found in self.each(lambda block: self._row_forms(block, forms))]

    def largest(self, state):
        """The largest number of a state."""
        return max(float(self.xp.max(kept[0])) for kept in state)

    # -- samples ----------------------------------------------------------------------------

    def joined(self, first, second):
        """Two states as one."""
        return [(*a, *b) for a, b in zip(first, second, strict=True)]

    def with_prominence(self, state):
        """A state and, in front of it, 1 + |x̃|² / N of every row: what stands in for leverage."""
        if not hasattr(self, "_prominence"):
            N = max(self.shape[1], 1)
            self._prominence = list(self.each(lambda block: 1.0 + self._norms(block) / N))
        return self.joined([(p,) for p in self._prominence], state)

    def select(self, importance, dtype):
        """The rows that were drawn, standardised and dense, in this process: a :class:`Sample`.

        `importance` is a state (1, n_rows): what a row stands for, zero where it is not drawn.
        """
        xp = self.xp
        index = list(self.each(lambda _, kept: nonzero(kept[0]), importance))
        X = self._standard_rows(index, dtype)
        start = [block.rows.start for block in self._blocks]
        chosen = concatenate([i + s for i, s in zip(index, start, strict=True)])
        scale = concatenate(
            list(self.each(lambda _, kept, i: take(kept[0][0, :], i), importance, index))
        )
        sample = self._dense_kind(
            X, take(self.target, chosen, axis=-1),
            take(self.weight, chosen, axis=1) * cast(scale, xp.float64)[None, :],
            n_classes=self.n_classes, frame=self.frame, standard=True, n_total=self.n_total,
            share=self.share * chosen.shape[0] / max(self.shape[0], 1), work=self.work,
        )  # fmt: skip
        return Sample(sample, index)

    def _standard_rows(self, index, dtype):
        """Standardised rows, those `index` of every block, one below the other."""
        return concatenate(list(self.each(lambda b, i: self._standard(b, i, dtype), index)))


@dataclass(frozen=True)
class Sample:
    """Some rows of a container: `rows`, and where they were, by block."""

    rows: LocalRows
    index: list = field(repr=False)

    def problems(self, index):
        """The sample of the problems `index` alone."""
        return Sample(self.rows.problems(index)[0], self.index)

    def carry(self, state):
        """The logits of these rows, out of those of all, which are the first array of a state."""
        if hasattr(state[0][0], "on"):  # no array: logits that are recomputed
            return state[0][0].on(self.rows)
        logits = concatenate(
            [take(kept[0], i, axis=-1) for kept, i in zip(state, self.index, strict=True)], axis=-1
        )
        logits = cast(logits, self.rows.dtype)
        return [(logits[..., block],) for block in self.rows.blocks]


def columns_of(index, n_classes):
    """Indices of the columns of the problems `index`."""
    return (np.asarray(index)[:, None] * n_classes + np.arange(n_classes)).ravel()


def is_small(shape):
    """Whether a copy of all rows is small."""
    return math.prod(shape) <= TUNED.few_numbers
