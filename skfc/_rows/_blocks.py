"""Blocks of rows, and sums over them: the one place that runs blocks.

A container of rows says what a block gives: `_enter` and `_leave` lead from standardised
weights to products with X and back, `_logits` and `_adjoint` are those products. Here they
are put together: a function of every block, and the sums of what it gives, in order.
"""

from dataclasses import dataclass, field
from functools import reduce
from types import SimpleNamespace

import numpy as np

from skfc._array import as_like, cast, namespace, reshape, to_numpy
from skfc._pool import even, in_order
from skfc._random import uniform
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


@dataclass(eq=False)
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
        return reshape(logits, shape)

    def flat(self, stacked):
        """(n_problems, n_classes, n_rows) as (K, n_rows)."""
        shape = (stacked.shape[0] * stacked.shape[1], stacked.shape[-1])
        return reshape(stacked, shape)

    def like(self, values):
        """Host values as an array of the library and type of the block."""
        xp = namespace(self.weight)
        return xp.asarray(values, dtype=self.weight.dtype)

    def uniform(self, turn):
        """Random numbers of the rows, of their library; see `_random.uniform`."""
        return namespace(self.weight).asarray(uniform(self.first, self.weight.shape[1], turn))

    def __reduce__(self):
        data = (self.rows, self.target, self.weight, self.n_classes, self.unit_weight, self.first)
        return block_of, data


def block_of(rows, target, weight, n_classes, unit_weight, first):
    return Block(rows, target, weight, n_classes, unit_weight, first, kernel(namespace(weight)))


class Sizes:
    """Sizes that follow from others."""

    # Weighted means of |x|, (n_features,), of rows of which most values are zero.
    mean_sizes = None

    @property
    def n_columns(self):
        """K: the classes of all problems."""
        return self.n_problems * self.n_classes

    @property
    def n_parameters(self):
        """P: the features, and the intercept."""
        return self.frame.n_parameters


class BlockSums:
    """Sums over the blocks of rows: what a container is to everything that does not see X."""

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

        def run(block, kept):
            logits = None if inner is None else self._logits(inner, block)
            values, residual, kept = function(block, logits, *kept)
            if residual is None:
                return values, None, None, kept
            sums = self.xp.sum(residual, axis=1)
            return values, sums, self._adjoint(residual, block, power), kept

        values, product, states = self._reduce(self.each(run, state), power)
        values = tuple(v / self.n_total for v in values)
        adjoint = product is not None
        if count:
            self.work.passes += 0.5 * self.share * (forward + adjoint)
            self.work.steps += adjoint
        return Sums(values, product, states)

    def _reduce(self, found_in_blocks, power):
        """The sums of what blocks gave, one after the other."""
        values, total, sums, states = (), None, None, []
        for found, part, product, kept in found_in_blocks:
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

    def each(self, function, *states):
        """`function` of every block, and what states have for it, in order: an iterator.

        Several threads take part where the container is one for them.
        """
        if len(self._blocks) == 1:
            return map(function, self._blocks, *states)
        items = list(zip(self._blocks, *states, strict=True))
        run = lambda item: function(*item)  # noqa: E731
        return in_order(run, items) if self.on_pool else map(run, items)

    def loss_of(self, coef, intercept):
        """The mean loss (1,) at coefficients and intercepts of X as it is, in float64.

        Infinite where logits leave the range of X's own type, in which predictions are made.
        """
        coef, intercept = (
            cast(as_like(a, self.weight), self.xp.float64) for a in (coef, intercept)
        )

        def loss(block):
            logits = self._user_logits(block, coef)
            logits += intercept[:, None]
            if self.dtype == self.xp.float32 and bool(self.xp.max(self.xp.abs(logits)) > 3.4e38):
                return self.xp.full(1, self.xp.inf, dtype=self.xp.float64)
            weight = cast(block.weight, self.xp.float64)
            return block.kernel.residual(block.stack(logits), block.target, weight)[0]

        return to_numpy(sum(self.each(loss)) / self.n_total)

    def hessian_on(self, proba, features, classes, dtype):
        """The second derivatives of the mean loss in some weights of one problem, (m, m).

        Parameters
        ----------
        proba : state, the probabilities of the rows
        features, classes : host arrays (m,), the coordinates; see :mod:`skfc._rows._pairs`
        dtype : of the products
        """
        used, place = np.unique(features, return_inverse=True)

        def pairs(block, kept):
            return self._pairs_of(block, kept[0], used, place, classes, dtype)

        total = reduce(accumulate_all, self.each(pairs, proba))
        return self._hessian_of(total, used, place, classes) / self.n_total

    def _hessian_of(self, sums, used, place, classes):
        """The second derivatives, of the sums of `_pairs_of` over the blocks, in float64."""
        return to_numpy(sums[0]).astype(np.float64)


def row_blocks(n_rows, bytes_per_row, block_bytes=None, min_rows=None, most=None):
    """Slices that cut `n_rows` into equal blocks of about `block_bytes`, `most` at the most."""
    block_bytes = block_bytes or TUNED.block_bytes
    min_rows = min_rows or TUNED.min_block_rows
    n_blocks = round(n_rows * bytes_per_row / block_bytes)
    n_blocks = min(n_blocks, n_rows // min_rows, n_blocks if most is None else most)
    return even(n_rows, max(1, n_blocks))


def add(values, more):
    """The sums of two tuples of arrays in float64, in the place of the first; () is zero."""
    if not values:
        return tuple(cast(value, namespace(value).float64) for value in more)
    return tuple(accumulate(a, b) for a, b in zip(values, more, strict=True))


def work_of(n_values, n_rows, n_columns):
    """Operations of a pass over rows of so many values, about; columns are classes."""
    return n_columns * (4 * n_values + int(TUNED.operations_per_logit) * n_rows)


def accumulate(total, part):
    """total + part, in place."""
    total += part
    return total


def accumulate_all(total, part):
    """The sums of two tuples of arrays, in the place of the first."""
    return tuple(accumulate(a, b) for a, b in zip(total, part, strict=True))


def scale_by(array, factor):
    """array * factor, in place."""
    array *= factor
    return array
