"""Functions of the rows of a part, for calls: each gives an answer, and what stays of it."""

import math

import numpy as np

from skfc import _blockwise, _draws, _gap_blockwise
from skfc._array import concatenate, take
from skfc._rows._blocks import add

# Functions of a block that leave a state, and give neither values nor a residual.
ONLY_STATE = {
    _blockwise.move_along, _blockwise.keep_probabilities, _blockwise.keep_mixture,
    _blockwise.curvature_weights, _blockwise.log_totals,
    _draws.row_curvature, _draws.row_weight, _draws.draw, _draws.take_all,
    _draws.times_row_weight, _draws.times, _draws.blend,
}  # fmt: skip

# Those, and functions that give values alone: there is no product with X.
WITHOUT_X = ONLY_STATE | {
    _blockwise.try_steps, _blockwise.class_products, _blockwise.share_of_new,
    _gap_blockwise.beyond, _gap_blockwise.divergence, _gap_blockwise.separation,
    _draws.chance, _draws.expected, _draws.times_row_curvature,
}  # fmt: skip


def sum_blocks(rows, function, theta, state, power):
    """The values and the gradient of a sum; its state stays."""
    sums = rows.sum(function, theta, state, power=power, count=False)
    return (sums.values, sums.gradient), sums.state


def add_sums(one, other):
    """Two answers of :func:`sum_blocks` together."""
    gradient = None if one[1] is None else one[1] + other[1]
    return add(one[0], other[0]), gradient


def ask(rows, method, *arguments):
    """The answer of a method."""
    return getattr(rows, method)(*arguments), None


def ask_half(rows, method, *arguments):
    """The answer of a method, symmetric matrices (..., m, m): their lower halves, row by row."""
    found = getattr(rows, method)(*arguments)
    return np.concatenate([found[..., k, : k + 1] for k in range(found.shape[-1])], axis=-1), None


def whole(halves):
    """The symmetric matrices of which :func:`ask_half` gives the halves."""
    m = math.isqrt(2 * halves.shape[-1])  # m (m + 1) / 2 numbers
    out, start = np.empty((*halves.shape[:-1], m, m), dtype=halves.dtype), 0
    for k in range(m):
        out[..., k, : k + 1] = out[..., : k + 1, k] = halves[..., start : start + k + 1]
        start += k + 1
    return out


def attribute(rows, name):
    """An attribute."""
    return getattr(rows, name), None


def logits_at(rows, theta):
    """The logits at weights stay."""
    return None, rows.sum(look_at, theta, count=False).state


def look_at(block, logits):
    """Keep the logits."""
    return (), None, (logits + 0,)


def prominence(rows):
    """The prominence of the rows stays."""
    return None, rows.with_prominence([()] * len(rows.blocks))


def row_forms(rows, forms):
    """Quadratic forms of the rows stay."""
    return None, rows.row_forms(forms)


def joined(rows, first, second):
    """Two states stay as one."""
    return None, [(*a, *b) for a, b in zip(first, second, strict=True)]


def cut(rows, state, columns):
    """A state of some problems, whose columns are given."""
    return None, [tuple(take(a, columns) for a in kept) for kept in state]


def select(rows, importance, dtype, held):
    """The rows of a sample: their numbers among all rows, X where not `held`, places by block."""
    sample, starts = rows.select(importance, dtype), [b.rows.start for b in rows.local_blocks]
    place = [i + start for i, start in zip(sample.index, starts, strict=True)]
    numbers = rows.first + np.concatenate(place)
    chosen, new = sample.rows, ~np.isin(numbers, held)
    return (numbers, chosen.X[new], chosen.target, chosen.weight, sample.index), None


def carry(rows, state, index):
    """The logits of the rows of a sample, out of those of all."""
    logits = [take(kept[0], i, axis=-1) for kept, i in zip(state, index, strict=True)]
    return concatenate(logits, axis=-1), None


def values_of(rows, index, columns):
    """Some values of X; `index` are numbers among all rows."""
    index = index[(index >= rows.first) & (index < rows.first + rows.shape[0])]
    return rows._values(index - rows.first, columns), None
