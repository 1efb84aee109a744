"""What all containers of rows share: blocks, their state, and sums over them."""

import math
from dataclasses import dataclass, field
from itertools import pairwise
from types import SimpleNamespace

import numpy as np

from skfc._array import (
    any_nonzero,
    as_like,
    cast,
    concatenate,
    namespace,
    take,
    to_numpy,
)
from skfc._softmax import kernel
from skfc._tuned import TUNED


@dataclass
class Work:
    """What a fit has cost, of all rows that come from one container.

    `passes` are evaluations of value and gradient on all rows: a product with X, or with Xᵀ,
    is half of one, and samples count in part. `steps` are passes and products with a Hessian,
    whatever rows it has: the clock of preconditioners. `products` are the latter.
    """

    passes: float = 0.0
    steps: int = 0
    products: int = 0


@dataclass(frozen=True)
class Sums:
    """Means over all rows: `values`, and `gradient` (P, K); `state` is what blocks keep."""

    values: tuple
    gradient: np.ndarray | None
    state: list = field(repr=False)


@dataclass(frozen=True)
class Block:
    """Rows `rows` (a slice) with their targets and weights (n_problems, n_rows)."""

    rows: slice
    target: np.ndarray
    weight: np.ndarray
    n_classes: int
    unit_weight: bool
    first: int  # the number of its first row among all rows
    kernel: SimpleNamespace = field(repr=False)

    def stack(self, logits):
        """(K, n_rows) as (n_problems, n_classes, n_rows)."""
        shape = (logits.shape[0] // self.n_classes, self.n_classes, logits.shape[-1])
        return namespace(logits).reshape(logits, shape)

    def flat(self, stacked):
        """(n_problems, n_classes, n_rows) as (K, n_rows)."""
        shape = (stacked.shape[0] * stacked.shape[1], stacked.shape[-1])
        return namespace(stacked).reshape(stacked, shape)

    def like(self, values):
        """Host values as an array of the library and type of the block."""
        xp = namespace(self.weight)
        return xp.asarray(values, dtype=self.weight.dtype)

    def __reduce__(self):
        data = (self.rows, self.target, self.weight, self.n_classes, self.unit_weight, self.first)
        return _block, data


def _block(rows, target, weight, n_classes, unit_weight, first):
    return Block(rows, target, weight, n_classes, unit_weight, first, kernel(namespace(weight)))


class LocalRows:
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
        self.xp, self.dtype, self.shape = namespace(weight), X.dtype, X.shape
        self.blocks = self._cut() if blocks is None else blocks
        unit = bool(self.xp.all(weight == 1.0))
        self._blocks = [
            _block(
                b, target[..., b], cast(weight[:, b], X.dtype), n_classes, unit, first + b.start
            )
            for b in self.blocks
        ]
        self._single = None
        self._copies = {}  # of X in this frame, shared with the rows of fewer problems

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
    def n_columns(self):
        """K: the classes of all problems."""
        return self.n_problems * self.n_classes

    @property
    def n_parameters(self):
        """P: the features, and the intercept."""
        return self.frame.n_parameters

    @property
    def parameter_dtype(self):
        """The type of weights and gradients."""
        return self.xp.float64

    @property
    def precision(self):
        """The types of weights and of products."""
        return self.parameter_dtype, self.dtype

    # -- sums over blocks ------------------------------------------------------------------

    def sum(self, function, theta=None, state=None, *, power=1, count=True):
        """Sum a function of the blocks; see :mod:`skfc._blockwise` for its form.

        Parameters
        ----------
        function : (block, logits of `theta`, *state of the block) -> (values, residual, state);
            picklable
        theta : (P, K), weights or a direction
        state : what an earlier sum left with the blocks
        power : the residuals are multiplied by standardised features to this power, 1 or 2

        Returns
        -------
        Sums : values and X̃ᵀ residual, both divided by the number of rows
        """
        state = [()] * len(self.blocks) if state is None else state
        forward, inner = theta is not None, None
        if forward:
            inner = self._enter(theta)
            forward = inner[0] is not None

        def run(item):
            block, kept = item
            logits = None if inner is None else self._logits(inner, block)
            values, residual, kept = function(block, logits, *kept)
            if residual is None:
                return values, None, None, kept
            sums = self.xp.sum(residual, axis=1)
            return values, sums, self._adjoint(residual, block, power), kept

        items = list(zip(self._blocks, state, strict=True))
        values, product, states = self._reduce(run, items, power)
        values = tuple(v / self.n_total for v in values)
        adjoint = product is not None
        if count:
            self.work.passes += 0.5 * self.share * (forward + adjoint)
            self.work.steps += adjoint
        return Sums(values, product, states)

    def _reduce(self, run, items, power):
        """The sums of what `run` gives for `items`, blocks in order."""
        values, total, sums, states = (), None, None, []
        for found, part, product, kept in self._map(run, items):
            states.append(kept)
            values = add(values, found)
            if product is None:
                continue
            if total is None:
                sums = cast(part, self.parameter_dtype)
                total = cast(product, self.parameter_dtype)
            else:
                sums, total = sums + cast(part, sums.dtype), accumulate(total, product)
        return values, None if total is None else self._leave(total, sums, power), states

    def _map(self, run, items):
        return map(run, items)

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

    def loss_of(self, coef, intercept):
        """The mean loss (1,) at coefficients and intercepts of X as it is, in float64.

        Infinite where logits leave the range of X's own type, in which predictions are made.
        """
        coef, intercept = (
            cast(as_like(a, self.weight), self.xp.float64) for a in (coef, intercept)
        )
        total = 0.0
        for block in self._blocks:
            logits = self._user_logits(block, coef) + intercept[:, None]
            if self.dtype == self.xp.float32 and bool(self.xp.max(self.xp.abs(logits)) > 3.4e38):
                return np.full(1, np.inf)
            weight = cast(block.weight, self.xp.float64)
            loss, _ = block.kernel.residual(block.stack(logits), block.target, weight)
            total = total + loss
        return to_numpy(total / self.n_total)

    def hessian_on(self, proba, features, classes, dtype):
        """The second derivatives of the mean loss in some weights of one problem, (m, m).

        Parameters
        ----------
        proba : state, the probabilities of the rows
        features, classes : host arrays (m,), the coordinates; see :mod:`skfc._rows._pairs`
        dtype : of the products
        """
        used, place = np.unique(features, return_inverse=True)
        parts = [
            self._pairs_of(block, p, used, place, classes, dtype)
            for block, (p,) in zip(self._blocks, proba, strict=True)
        ]
        return to_numpy(sum(parts[1:], start=parts[0])).astype(np.float64) / self.n_total

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
        rows = np.linspace(0, self.shape[0] - 1, min(self.shape[0], TUNED.gram_rows))
        x = np.sort(self._values(np.unique(rows.astype(int)), columns), axis=0)
        n = len(x)
        median, spread = np.zeros(self.shape[1]), np.zeros(self.shape[1])
        median[columns] = x[n // 2]
        spread[columns] = (x[n - 1 - n // 4] - x[n // 4]) / 1.35
        return median, spread

    # -- samples ----------------------------------------------------------------------------

    def with_prominence(self, state):
        """A state and, in front of it, 1 + |x̃|² / N of every row: what stands in for leverage."""
        if not hasattr(self, "_prominence"):
            N = max(self.shape[1], 1)
            self._prominence = [1.0 + self._norms(block) / N for block in self._blocks]
        return [(p, *kept) for p, kept in zip(self._prominence, state, strict=True)]

    def select(self, importance, dtype):
        """The rows that were drawn, standardised and dense, in this process: a :class:`Sample`.

        `importance` is a state (1, n_rows): what a row stands for, zero where it is not drawn.
        """
        xp = self.xp
        index = [np.flatnonzero(to_numpy(kept[0])) for kept in importance]
        X = concatenate(
            [self._standard(b, i, dtype) for b, i in zip(self._blocks, index, strict=True)]
        )
        start = [block.rows.start for block in self._blocks]
        chosen = np.concatenate([i + s for i, s in zip(index, start, strict=True)])
        scale = concatenate(
            [take(kept[0][0, :], i) for kept, i in zip(importance, index, strict=True)]
        )
        sample = self._dense_kind(
            X, take(self.target, chosen, axis=-1),
            take(self.weight, chosen, axis=1) * cast(scale, xp.float64)[None, :],
            n_classes=self.n_classes, frame=self.frame, standard=True, n_total=self.n_total,
            share=self.share * len(chosen) / max(self.shape[0], 1), work=self.work,
        )  # fmt: skip
        return Sample(sample, index)


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
        logits = concatenate(
            [take(kept[0], i, axis=-1) for kept, i in zip(state, self.index, strict=True)], axis=-1
        )
        logits = cast(logits, self.rows.dtype)
        return [(logits[..., block],) for block in self.rows.blocks]


def row_blocks(n_rows, bytes_per_row, block_bytes=None, min_rows=None):
    """Slices that cut `n_rows` into equal blocks of about `block_bytes`."""
    block_bytes = block_bytes or TUNED.block_bytes
    min_rows = min_rows or TUNED.min_block_rows
    n_blocks = max(1, round(n_rows * bytes_per_row / block_bytes))
    n_blocks = min(n_blocks, max(1, n_rows // min_rows))
    edges = [n_rows * k // n_blocks for k in range(n_blocks + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]


def columns_of(index, n_classes):
    """Indices of the columns of the problems `index`."""
    return (np.asarray(index)[:, None] * n_classes + np.arange(n_classes)).ravel()


def add(values, more):
    """The sums of two tuples of arrays; an empty one is zero."""
    return tuple(a + b for a, b in zip(values, more, strict=True)) if values else more


def accumulate(total, part):
    """total + part, in place."""
    total += part
    return total


def scale_by(array, factor):
    """array * factor, in place."""
    array *= factor
    return array


def is_small(shape):
    """Whether a copy of all rows is small."""
    return math.prod(shape) <= TUNED.few_numbers
