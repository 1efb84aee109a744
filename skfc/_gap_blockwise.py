"""Functions of one block of rows that tell how far a minimum is, and whether there is one.

Bounds, rows that move far, tails and separation; see :mod:`skfc._blockwise` for their form.
"""

import math

from skfc._array import cast, namespace
from skfc._blockwise import residual_of
from skfc._softmax import one_hot, probabilities_and_logarithms


def dual_point(block, direction, logits, *unused):
    """At least KL(q | p), and the residual of q, what a step leads the probabilities p to.

    q is p (1 + v - <p, v>), v the logits of the step, with zero in the place of what is negative.
    """
    xp, v = namespace(direction), block.stack(direction)
    p = block.kernel.probabilities(block.stack(block.kernel.scratch(logits)))
    v += 1 - xp.sum(p * v, axis=1, keepdims=True)
    v = xp.maximum(v, xp.zeros_like(v)) if bool(xp.min(v) < 0) else v
    v /= xp.sum(p * v, axis=1, keepdims=True)
    q = p * v
    v -= 1
    p *= v
    p *= v
    # (1 + t) log(1 + t) - t <= t² / 2 for t >= 0, and (1 - t) t² / 2 below.
    most = 0.5 * xp.sum(p, axis=1) - 0.5 * xp.sum(p * xp.minimum(v, xp.zeros_like(v)), axis=1)
    residual = block.kernel.beside_targets(q, block.target)
    divergence = xp.sum(cast(block.weight * most, xp.float64), axis=1)
    if not block.unit_weight:
        residual = block.weight[:, None, :] * residual
    return (divergence,), block.flat(residual), ()


def divergence(block, _, logits, *unused, mix, rest, shares):
    """Sums of m KL(q | p) over the rows of one problem, a value for every one of `shares`.

    q = (1 - a) y + a ((1 - mix) p + mix rest) for a share a; `rest` (n_classes,) sums to one.
    """
    xp, z = namespace(logits), cast(logits, namespace(logits).float64)[None, ...]
    (p, log_p), weight = probabilities_and_logarithms(z), cast(block.weight[0, :], xp.float64)
    y = cast(one_hot(block.target, z), xp.float64)
    mixed, log_p = (1 - mix) * p[0, ...], log_p[0, ...]
    if mix > 0:
        mixed = mixed + mix * xp.asarray(rest, dtype=xp.float64)[:, None]
    of_share = divergence_of_labels if block.target.ndim == 1 else divergence_of_targets
    values = [xp.sum(weight * rows) for rows in of_share(y, log_p, mixed, mix, shares)]
    return (xp.stack(values),), None, (logits,)


def divergence_of_targets(y, log_p, mixed, mix, shares):
    """KL(q | p) of every row, for every share a of q = (1 - a) y + a mixed."""
    xp = namespace(y)
    for a in shares:
        yield xp.sum(relative_entropy((1 - a) * y + a * mixed, log_p), axis=0)


def divergence_of_labels(y, log_p, mixed, mix, shares):
    """The same where y is a unit vector: of the other classes q is a mixed, for every a.

    With mixed = p they have a log a of what is theirs.
    """
    xp = namespace(y)
    own, own_log_p = xp.sum(y * mixed, axis=0), xp.sum(y * log_p, axis=0)
    others = xp.sum(relative_entropy((1 - y) * mixed, log_p), axis=0) if mix > 0 else 0.0
    for a in shares:
        of_label = relative_entropy((1 - a) + a * own, own_log_p)
        yield of_label + a * others + (a * math.log(a) * (1 - own) if a > 0 else 0.0)


def relative_entropy(q, log_p):
    """q log(q / p), entry by entry."""
    xp = namespace(q)
    least = xp.finfo(q.dtype).smallest_normal  # 0 log 0 = 0
    return q * (xp.log(xp.maximum(q, xp.full_like(q, least))) - log_p)


def forms(block, directions, proba, share=1.0, *unused):
    """The curvature between directions, each the weights of all classes of one problem.

    And that of every direction, were its logits not taken from their mean over the classes. Of the
    curvature of rows there is a `share` (n_rows,).
    """
    xp, dz = namespace(directions), block.stack(directions)
    p, root = proba[None, ...], xp.sqrt(proba[None, ...] * block.weight[:, None, :] * share)
    size = xp.sum((root * dz) ** 2, axis=(1, 2))
    dz = root * (dz - xp.sum(p * dz, axis=1, keepdims=True))
    flat = xp.reshape(dz, (dz.shape[0], -1))
    return (xp.matmul(flat, flat.T), size), None, (proba,)


def form_of_pair(block, _, form, proba, share, left, *, pair):
    """The forms (n_rows,) of rows that have both classes of a pair, else zero."""
    i, j = pair
    return (), None, (form * left[i, :] * left[j, :],)


def larger(block, _, first, second):
    """The larger of two numbers of every row."""
    return (), None, (namespace(first).maximum(first, second),)


def allowed(block, _, form, *before, scale):
    """How far rows may move at most, a state (n_rows,): thrice what they would, or `before`."""
    moved = 3.0 * way_of(form, scale) + 1e-9
    return (), None, (namespace(form).maximum(moved, *before) if before else moved,)


def share_of_allowed(block, _, form, most, *, scale):
    """How far rows would move, as a share of the `most` that they may."""
    return (), None, (way_of(form, scale) / most,)


def way_of(form, scale):
    """How far a step moves a row whose `form` is that of a unit step; it may be rounding < 0."""
    xp = namespace(form)
    return xp.sqrt(scale * xp.maximum(form, xp.zeros_like(form)))


def weakened(block, _, most, proba, *unused):
    """Probabilities, and the mean share of a row's curvature along a way of `most` logits.

    The value is the sum of these shares.
    """
    xp = namespace(most)
    share = -xp.expm1(-most) / most
    return (xp.sum(share)[None],), None, (proba, share)


def without_classes(block, _, form, logits, *unused, limit, little):
    """Loss and residual without classes of little probability, in rows of a form beyond `limit`.

    That is where a weight times a probability is less than `little`; a class of the target
    stays. The loss is not larger than with them. Probabilities stay, the share of curvature, which
    is one, and which classes are left.
    """
    xp, z = namespace(logits), block.stack(logits + 0)
    out = block.kernel.probabilities(z + 0) * block.weight[:, None, :] < little
    out = out & (form > limit) & (one_hot(block.target, z) == 0)[None, ...]
    z = xp.where(out, xp.full_like(z, -0.5 * float(xp.finfo(z.dtype).max)), z)
    left = cast(~out, z.dtype)
    proba = block.flat(block.kernel.probabilities(z + 0) * left)
    (loss,), residual, _ = residual_of(block, block.flat(z), logits)
    return (loss,), residual, (proba, xp.ones_like(form), block.flat(left))


def squared_residuals(block, _, logits, *unused):
    """The squares of the residuals at the logits that are with the block."""
    _, residual, _ = residual_of(block, logits + 0, logits)
    return (), residual**2, (logits,)


def far_from_tails(block, _, moved, logits, *unused, far, little):
    """How many rows move far that have no tail, see :func:`cut_tails`."""
    xp, p = namespace(logits), block.kernel.probabilities(block.stack(logits + 0))
    out = p * block.weight[:, None, :] < block.like(little)[:, None, None]
    out = xp.any(out & (one_hot(block.target, p) == 0)[None, ...], axis=1)
    held = ~out & (moved > block.like(far)[:, None])
    return (xp.sum(cast(held, xp.float64), axis=1),), None, (moved, logits)


def cut_tails(block, direction, logits, *unused, far, little):
    """Logits without tails: classes of little probability, of rows that move far.

    Far is more than `far` (n_problems,) of one class against another. A tail moves by a quarter of
    that against the target, and its weight times its probability is below `little` (n_problems,).
    A class of the target stays. The values are how many rows move far before and after. Logits
    stay, of tails next to minus infinity, and how far the rows move.
    """
    xp, z, dz = namespace(logits), block.stack(logits + 0), block.stack(direction)
    lowest = -0.5 * float(xp.finfo(z.dtype).max)
    p = block.kernel.probabilities(z + 0)

    def movement(left):
        up = xp.max(xp.where(left, dz, xp.full_like(dz, -xp.inf)), axis=1)
        down = xp.min(xp.where(left, dz, xp.full_like(dz, xp.inf)), axis=1)
        return xp.where(block.weight > 0, up - down, xp.zeros_like(up))

    def number(moved):
        return xp.sum(cast(moved > block.like(far)[:, None], xp.float64), axis=1)

    left = z > 0.5 * lowest
    before = movement(left)
    out = p * block.weight[:, None, :] < block.like(little)[:, None, None]
    target = cast(one_hot(block.target, z), z.dtype)[None, ...]
    apart = xp.abs(dz - xp.sum(target * dz, axis=1, keepdims=True))
    out = out & (target == 0) & (before > block.like(far)[:, None])[:, None, :]
    left = left & ~(out & (apart > 0.25 * block.like(far)[:, None, None]))
    after = movement(left)
    z = block.flat(xp.where(left, z, xp.full_like(z, lowest)))
    return (number(before), number(after)), None, (z, after)


def keep_steady(block, _, prominence, moved, logits, *unused, decided, far_out, little):
    """Probabilities, and no curvature where a row may lose it.

    That are rows beyond `far_out` that move by more than `little`, or have a probability of
    more than 1 - `decided`. The value is their number, in every problem.
    """
    p = block.kernel.probabilities(block.stack(logits + 0))
    xp = namespace(p)
    loose = (xp.max(p, axis=1) > 1 - decided) | (moved > little)
    out = loose & (prominence > far_out)[None, :] & (block.weight > 0)
    p = xp.where(out[:, None, :], xp.zeros_like(p), p)
    return (xp.sum(cast(out, xp.float64), axis=1),), None, (block.flat(p),)


def beyond(block, _, moved, *, far):
    """How many rows have moved by more than `far` (n_problems,)."""
    xp = namespace(moved)
    return (xp.sum(cast(moved > block.like(far)[:, None], xp.float64), axis=1),), None, (moved,)


def margins(block, direction, proba, *, far):
    """How many rows of every class a direction helps by more than `far`, and how many it harms.

    A row is harmed where another logit rises against its label's by a tenth of that. Rows of
    several classes are harmed by every movement between them.
    """
    dz, xp = block.stack(direction), namespace(direction)
    target = one_hot(block.target, dz)[None, ...] + 0 * dz
    weighted = cast(block.weight > 0, dz.dtype)
    own = xp.min(xp.where(target > 0, dz, xp.full_like(dz, xp.inf)), axis=1)
    lowest, highest = xp.min(dz, axis=1), xp.max(dz, axis=1)
    helped = cast(own - lowest > far, dz.dtype) * weighted
    harmed = cast(highest - own > 0.1 * far, dz.dtype) * weighted
    per_class = xp.sum(helped[:, None, :] * cast(target > 0, dz.dtype), axis=2)
    return (per_class, xp.sum(harmed, axis=1)), None, (proba,)


def separation(block, _, logits, *unused):
    """How many rows of positive weight have another logit at or above their label's."""
    xp = namespace(logits)
    z = block.stack(logits)
    target = one_hot(block.target, z)[None, ...]
    others = xp.max(xp.where(target > 0, xp.full_like(z, -xp.inf), z), axis=1)
    own = xp.min(xp.where(target > 0, z, xp.full_like(z, xp.inf)), axis=1)
    wrong = (own <= others) & (block.weight > 0)
    mixed = (xp.sum(cast(target > 0, z.dtype), axis=1) > 1) & (block.weight > 0)
    return (xp.sum(cast(wrong | mixed, xp.float64), axis=1),), None, (logits,)
