"""Pure functions of one block of rows, which `Rows.sum` runs on every block.

Each takes the block, the logits of the weights or direction that was given (K, n_rows), and
the arrays that an earlier function left with the block, and returns
`(values, residual, state)`. The logits given are in memory that the next block is written to: a
function may overwrite them, and copies what it keeps. They can be pickled and sent to where the
block lives.
"""

from skfc._array import cast, namespace, permute, take
from skfc._softmax import one_hot


def evaluate(block, logits):
    """Loss and residual at logits, which stay with the block."""
    return residual_of(block, logits, block.kernel.keep(logits))


def residual_of(block, logits, kept):
    """Loss and residual at logits, which are overwritten; `kept` stays with the block."""
    loss, residual = block.kernel.residual(block.stack(logits), block.target, block.weight)
    return (loss,), block.flat(residual), (kept,)


def evaluate_again(block, _, logits, *unused):
    """Loss and residual at the logits that are with the block."""
    return residual_of(block, block.kernel.scratch(logits), logits)


def evaluate_shifted(block, _, logits, *unused, shift):
    """Loss and residual with intercepts moved by `shift` (K,)."""
    shifted = block.kernel.scratch(logits)
    shifted += block.like(shift)[:, None]
    return evaluate(block, shifted)


def difference(block, logits):
    """The residual at the first half of the logits less that at the second."""
    p = block.kernel.probabilities(block.stack(logits))
    return (), block.weight * (p[0, ...] - p[1, ...]), ()


def step_along(block, direction, logits, room=None):
    """Loss and residual at step one; the logits of the direction stay beside the iterate's."""
    kept = fill(room, direction)
    direction += logits  # what came from the product is free to be overwritten
    loss, residual = block.kernel.residual(block.stack(direction), block.target, block.weight)
    return (loss,), block.flat(residual), (logits, kept)


def trial(block, direction, logits, *unused):
    """The loss at step one; how far it moves the logits of every row against one another stays.

    That is zero without weight. The other values are sums of the fourth roots of it, and the
    number of rows with weight.
    """
    dz, xp = block.stack(direction), namespace(direction)
    weighted = block.weight > 0
    moved = xp.max(dz, axis=1) - xp.min(dz, axis=1)
    moved = xp.where(weighted, moved, xp.zeros_like(moved))
    roots = xp.sum(cast(xp.sqrt(xp.sqrt(moved)), xp.float64), axis=1)
    direction += logits
    loss, _ = block.kernel.residual(block.stack(direction), block.target, block.weight)
    return (loss, roots, xp.sum(cast(weighted, xp.float64), axis=1)), None, (moved,)


def loss(block, direction, logits, *unused):
    """The loss at step one."""
    direction += logits
    value, _ = block.kernel.residual(block.stack(direction), block.target, block.weight)
    return (value,), None, ()


def try_steps(block, _, logits, direction, *, steps, columns=None, problems=None):
    """Loss and slope at `steps`, of some problems or of all: no product with X."""
    z, dz, weight = logits, direction, block.weight
    if problems is not None:
        z, dz, weight = take(z, columns), take(dz, columns), take(weight, problems)
    tried = block.kernel.scratch(dz)
    tried *= block.like(steps)[:, None]
    tried += z
    loss, residual = block.kernel.residual(block.stack(tried), block.target, weight)
    return (loss, block.kernel.inner(residual, block.stack(dz))), None, (logits, direction)


def move_along(block, _, logits, direction, *, steps):
    """The logits after `steps` (K,), or step one where that is None; the old are overwritten."""
    if steps is not None:
        direction *= block.like(steps)[:, None]
    logits += direction
    return (), None, (logits, direction)


def keep_probabilities(block, _, logits, *unused):
    """Probabilities at the logits that are with the block."""
    return (), None, (block.flat(block.kernel.probabilities(block.stack(logits + 0))),)


def keep_mixture(block, _, logits, *unused, share):
    """Probabilities, of which a share is that of the targets: curvature on the way to these."""
    p = block.kernel.probabilities(block.stack(logits + 0))
    if share > 0:
        p *= 1 - share
        p += share * cast(one_hot(block.target, p), p.dtype)[None, ...]
    return (), None, (block.flat(p),)


def keep_level(block, _, prominence, weight, *, n_classes):
    """Probabilities whose curvature in the first class is a quarter over the prominence."""
    xp = namespace(prominence)
    share = 0.25 / cast(prominence, xp.float64)
    first = 0.5 + xp.sqrt(0.25 - share)
    rest = [xp.zeros_like(first)] * (n_classes - 2)
    return (), None, (xp.stack([first, share / first, *rest]),)


def keep_softened(block, _, logits, *unused):
    """Probabilities, half way to the target where a loss is large.

    On the wrong side p is certain and has no curvature, but the way to the other side has.
    """
    xp = namespace(logits)
    p = block.kernel.probabilities(block.stack(logits + 0))
    half = 0.5 * xp.clip(row_losses(p, block.target) - 1.0, 0.0, 1.0)[:, None, :]
    p = (1 - half) * p + half * cast(one_hot(block.target, p), p.dtype)[None, ...]
    return (), None, (block.flat(p),)


def surprise(block, logits, *, most, shift=0.0):
    """The sum of the losses of the rows, each `most` at the most; `shift` is added to logits."""
    xp = namespace(logits)
    p = block.kernel.probabilities(block.stack(logits) + xp.asarray(shift)[..., None])
    loss = xp.clip(row_losses(p, block.target), 0.0, most)
    return (xp.sum(block.weight * loss, axis=1),), None, ()


def row_losses(proba, target):
    """-log of the probability of the target, (n_problems, n_rows)."""
    xp = namespace(proba)
    there = xp.sum(cast(one_hot(target, proba), proba.dtype)[None, ...] * proba, axis=1)
    return -xp.log(xp.clip(there, float(xp.finfo(there.dtype).smallest_normal), 1.0))


def curve(block, direction, proba):
    """The curvature applied to the logits of a direction."""
    weight = None if block.unit_weight else block.weight
    dz = block.kernel.curvature(block.stack(proba), block.stack(direction), weight)
    return (), block.flat(dz), (proba,)


def curvature_diagonal(block, _, proba):
    """m p (1 - p): the diagonal of the curvature of every row."""
    _, _, (weights,) = curvature_weights(block, None, proba)
    return (), weights, (proba,)


def curvature_weights(block, _, proba):
    """The diagonal of the curvature of every row, as a state (K, n_rows)."""
    return (), None, (block.flat(block.stack(proba * (1 - proba)) * block.weight[:, None, :]),)


def class_products(block, _, logits, *unused, stride):
    """Sums over every `stride`-th of all rows of m p pᵀ, of m p and of m; the logits stay."""
    p, weighted, sums = some_probabilities(block, logits, stride)
    products = namespace(p).matmul(weighted, permute(p, (0, 2, 1)))
    return (products, *sums), None, (logits,)


def class_squares(block, _, logits, *unused, stride):
    """The same with m p² in the place of m p pᵀ."""
    p, weighted, sums = some_probabilities(block, logits, stride)
    return (namespace(p).sum(weighted * p, axis=2), *sums), None, (logits,)


def some_probabilities(block, logits, stride):
    """Probabilities p of every `stride`-th of all rows, m p, and the sums of m p and of m."""
    xp, start = namespace(logits), -block.first % stride
    p = block.kernel.probabilities(block.stack(logits[:, start::stride] + 0))
    weight = block.weight[:, start::stride]
    weighted = p * weight[:, None, :]
    return p, weighted, (xp.sum(weighted, axis=2), xp.sum(weight, axis=1))


def log_totals(block, _, logits, *unused):
    """The logarithm of the sum of exponentials of every row, as a state (n_problems, n_rows)."""
    xp, z = namespace(logits), block.stack(logits)
    top = xp.max(z, axis=1)
    return (), None, (top + xp.log(xp.sum(xp.exp(z - top[:, None, :]), axis=1)),)


def share_of_new(block, _, rest, *, logit, n_new):
    """Sums of m p for each of `n_new` more classes of one logit; `rest` is by `log_totals`."""
    xp = namespace(rest)
    p = 1.0 / (n_new + xp.exp(rest - logit))
    return (xp.sum(cast(block.weight * p, xp.float64), axis=1),), None, (rest,)


def weights_alone(block, _, logits, *unused):
    """The weights of the rows as a residual, the same for every class; the logits stay."""
    return (), logits * 0 + block.weight[0, :][None, :], (logits,)


def fill(room, values):
    """A copy of `values` in the memory `room`, where there is some."""
    if room is None:
        return values + 0
    room[...] = values
    return room
