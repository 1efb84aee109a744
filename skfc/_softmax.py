r"""Pure functions of one block of rows: softmax, cross-entropy, its residual and curvature.

For one row with logits z, target probabilities y and weight m,

    p = exp(z - logsumexp(z))          probabilities
    m * (logsumexp(z) - <y, z>)        loss
    m * (p - y)                        residual: the gradient of the loss in z
    m * p * (v - <p, v>)               curvature of the loss in z, applied to v

The kernels work on blocks of shape (n_problems, n_classes, n_rows): problems that
share the data are stacked first, and rows come last so that reductions over the
classes run along long rows of memory. There are two of them with one meaning, chosen
by :func:`kernel`: NumPy in place, and any array-API library out of place. A target is
an integer array (n_rows,) of class indices, or probabilities (n_classes, n_rows).

The functions of a block, below, are what `Rows.sum` runs on every block: each takes the
block, the logits of the weights or direction that was given (K, n_rows), and the arrays
that an earlier function left with the block, and returns `(values, residual, state)`.
They can be pickled and sent to where the block lives.
"""

from types import SimpleNamespace

import numpy as np

from skfc._array import cast, concatenate, itemsize, namespace, permute, take

# Shifted logits are clipped here before `exp`: exp(-80) and exp(-600), times a weight,
# stay clear of subnormal numbers, which slow matrix products down tenfold.
LOWEST = {4: -80.0, 8: -600.0}
# Mean losses below this have lost digits in log(1 + e): log1p of e takes over.
SMALL_LOSS = {4: 1e-3, 8: 1e-5}


def _residual_numpy(logits, target, weight):
    """Loss (n_problems,) and residual; the residual takes the place of `logits`."""
    logits -= logits.max(axis=1, keepdims=True)
    labels = target.ndim == 1
    if labels:
        entries, index = _entries(logits, target)
        at_target = entries[index]
    else:
        at_target = np.einsum("kn,bkn->bn", target, logits)
    total = _exp_numpy(logits)
    loss = _weighted_sum(weight, np.log(total) - at_target)
    decided = (loss < SMALL_LOSS[logits.itemsize] * weight.sum(axis=1)).any()
    if decided:
        rest = _sum_of_others(logits)
        loss = _weighted_sum(weight, np.log1p(rest) - at_target)
        right = labels and entries[index] == 1.0
    logits *= (weight / total)[:, None, :]
    if not labels:
        logits -= target * weight[:, None, :]
        return loss, logits
    entries[index] -= weight
    if decided:  # 1 - p without cancellation
        entries[index] = np.where(right, -weight * rest / total, entries[index])
    return loss, logits


def _weighted_sum(weight, rows):
    return np.einsum("bn,bn->b", weight, rows, dtype=np.float64, casting="same_kind")


def _sum_of_others(exponentials):
    """The sum over the classes without the largest, which is exactly one."""
    largest = exponentials == 1.0
    rest = np.where(largest, 0, exponentials).sum(axis=1)
    return rest + (largest.sum(axis=1) - 1).astype(rest.dtype)


def _entries(logits, target):
    """A view of `logits`, and the index in it of the labels' entries (n_problems, n_rows)."""
    n_rows = logits.shape[2]
    if not logits.flags.c_contiguous:
        return logits, (slice(None), target, np.arange(n_rows))
    flat = target * n_rows
    flat += np.arange(n_rows)
    if len(logits) > 1:
        return logits.reshape(len(logits), -1), (slice(None), flat)
    return logits.reshape(1, -1)[0], flat[None]


def _exp_numpy(shifted):
    """Exponentiate in place; returns the sum over classes, (n_problems, n_rows)."""
    lowest = LOWEST[shifted.itemsize]
    if shifted.min(initial=0.0) < lowest:
        np.clip(shifted, lowest, 0.0, out=shifted)
    np.exp(shifted, out=shifted)
    return shifted.sum(axis=1)


def _probabilities_numpy(logits):
    """Softmax over the classes, in place."""
    logits -= logits.max(axis=1, keepdims=True)
    total = _exp_numpy(logits)
    logits /= total[:, None, :]
    return logits


def _curvature_numpy(proba, dz, weight):
    """Curvature applied to `dz`, which is overwritten; a weight of None is one."""
    dz -= np.einsum("bkn,bkn->bn", proba, dz)[:, None, :]
    dz *= proba
    if weight is not None:
        dz *= weight[:, None, :]
    return dz


def _inner_numpy(a, b):
    """Sums over classes and rows of a * b, (n_problems,)."""
    return np.einsum("bkn,bkn->b", a, b, dtype=np.float64, casting="same_kind")


def _shift(logits, axis=1):
    xp = namespace(logits)
    return logits - xp.max(logits, axis=axis, keepdims=True)


def _residual_generic(logits, target, weight):
    xp = namespace(logits)
    target = _one_hot(target, logits)
    shifted = _shift(logits)
    lowest = xp.asarray(LOWEST[itemsize(logits)], dtype=logits.dtype)
    e = xp.exp(xp.maximum(shifted, lowest))
    total = xp.sum(e, axis=1, keepdims=True)
    rows = xp.log(total[:, 0, :]) - xp.sum(target[None, ...] * shifted, axis=1)
    loss = xp.sum(xp.astype(weight * rows, xp.float64), axis=1)
    return loss, weight[:, None, :] * (e / total - target[None, ...])


def _one_hot(target, logits):
    """`target` as probabilities (n_classes, n_rows)."""
    if target.ndim == 2:
        return target
    xp = namespace(logits)
    classes = xp.arange(logits.shape[1], dtype=target.dtype)
    return cast(classes[:, None] == target[None, :], logits.dtype)


def _probabilities_generic(logits, axis=1):
    xp = namespace(logits)
    e = xp.exp(_shift(logits, axis))
    return e / xp.sum(e, axis=axis, keepdims=True)


def log_probabilities(logits, axis=1):
    """z - logsumexp(z), out of place: exact where a probability rounds to zero."""
    xp = namespace(logits)
    shifted = _shift(logits, axis)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=axis, keepdims=True))


def _curvature_generic(proba, dz, weight):
    xp = namespace(proba)
    out = proba * (dz - xp.sum(proba * dz, axis=1, keepdims=True))
    return out if weight is None else weight[:, None, :] * out


def _inner_generic(a, b):
    xp = namespace(a)
    return xp.sum(xp.sum(cast(a * b, xp.float64), axis=2), axis=1)


IN_PLACE = SimpleNamespace(
    residual=_residual_numpy, probabilities=_probabilities_numpy,
    curvature=_curvature_numpy, inner=_inner_numpy,
)  # fmt: skip
GENERIC = SimpleNamespace(
    residual=_residual_generic, probabilities=_probabilities_generic,
    curvature=_curvature_generic, inner=_inner_generic,
)  # fmt: skip


def kernel(xp):
    """The kernel for arrays of namespace `xp`: functions that may overwrite their input."""
    return IN_PLACE if xp is np else GENERIC


# -- functions of a block: (block, logits, *state) -> (values, residual, state) -----------------


def evaluate(block, logits):
    """Loss and residual at logits, which stay with the block."""
    loss, residual = block.kernel.residual(block.stack(logits + 0), block.target, block.weight)
    return (loss,), block.flat(residual), (logits,)


def evaluate_again(block, _, logits, *unused):
    """Loss and residual at the logits that are with the block."""
    return evaluate(block, logits)


def evaluate_shifted(block, _, logits, *unused, shift):
    """Loss and residual with intercepts moved by `shift` (K,)."""
    return evaluate(block, logits + block.like(shift)[:, None])


def look_along(block, direction, logits, room=None):
    """Keep the logits of a direction beside those of the iterate."""
    return (), None, (logits, fill(room, direction))


def step_along(block, direction, logits, room=None):
    """`look_along`, and loss and residual at step one, of the direction's logits."""
    kept = fill(room, direction)
    direction += logits  # what came from the product is free to be overwritten
    loss, residual = block.kernel.residual(block.stack(direction), block.target, block.weight)
    return (loss,), block.flat(residual), (logits, kept)


def try_steps(block, _, logits, direction, *, steps, columns=None, problems=None):
    """Loss and slope at `steps`, of some problems or of all: no product with X."""
    z, dz, weight = logits, direction, block.weight
    if problems is not None:
        z, dz, weight = take(z, columns), take(dz, columns), take(weight, problems)
    z = z + block.like(steps)[:, None] * dz
    loss, residual = block.kernel.residual(block.stack(z), block.target, weight)
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
        p = (1 - share) * p + share * cast(_one_hot(block.target, p), p.dtype)[None, ...]
    return (), None, (block.flat(p),)


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


def pair_weights(block, _, proba, *, n_classes):
    """The curvature m (p_k [k = j] - p_k p_j) of every row for pairs of the classes but the last.

    A state (n_problems * T (T - 1) / 2, n_rows), pairs k <= j by rows of the upper triangle.
    """
    xp, T = namespace(proba), n_classes
    p, weight, out = block.stack(proba), block.weight, []
    for k in range(T - 1):
        # p (1 - p) without cancellation, for a p next to one.
        others = xp.sum(p[:, :k, :], axis=1) + xp.sum(p[:, k + 1 :, :], axis=1)
        first = weight * p[:, k, :] * others
        rest = -(weight * p[:, k, :])[:, None, :] * p[:, k + 1 : T - 1, :]
        out += [first[:, None, :], rest]
    return (), None, (block.flat(concatenate(out, axis=1)),)


def class_curvature(block, _, logits, *unused, stride):
    """Sums over every `stride`-th row of m (diag(p) - p pᵀ), and of m; the logits stay."""
    xp = namespace(logits)
    p = block.kernel.probabilities(block.stack(logits[:, ::stride] + 0))
    weight = block.weight[:, ::stride]
    weighted = p * weight[:, None, :]
    S = -xp.matmul(weighted, permute(p, (0, 2, 1)))
    diagonal = xp.sum(weighted, axis=2)
    S = S + xp.eye(p.shape[1], dtype=p.dtype)[None, ...] * diagonal[:, None, :]
    return (cast(S, xp.float64), cast(xp.sum(weight, axis=1), xp.float64)), None, (logits,)


def movement(block, direction, proba):
    """Keep how far the logits of every row move against one another, zero without weight.

    The values are sums of the fourth roots, and the number of rows with weight.
    """
    dz, xp = block.stack(direction), namespace(direction)
    weighted = block.weight > 0
    moved = xp.max(dz, axis=1) - xp.min(dz, axis=1)
    moved = xp.where(weighted, moved, xp.zeros_like(moved))
    roots = xp.sum(cast(xp.sqrt(xp.sqrt(moved)), xp.float64), axis=1)
    return (roots, xp.sum(cast(weighted, xp.float64), axis=1)), None, (moved,)


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
    target = _one_hot(block.target, dz)[None, ...] + 0 * dz
    weighted = cast(block.weight > 0, dz.dtype)
    own = xp.min(xp.where(target > 0, dz, xp.full_like(dz, xp.inf)), axis=1)
    lowest, highest = xp.min(dz, axis=1), xp.max(dz, axis=1)
    helped = cast(own - lowest > far, dz.dtype) * weighted
    harmed = cast(highest - own > 0.1 * far, dz.dtype) * weighted
    per_class = xp.sum(helped[:, None, :] * cast(target > 0, dz.dtype), axis=2)
    return (per_class, xp.sum(harmed, axis=1)), None, (proba,)


def divergence(block, _, logits, *unused, mix, rest, shares):
    """Sums of m KL(q | p) over the rows of one problem, a value for every one of `shares`.

    q = (1 - a) y + a ((1 - mix) p + mix rest) for a share a; `rest` (n_classes,) sums to one.
    """
    xp, z = namespace(logits), cast(logits, namespace(logits).float64)[None, ...]
    log_p, weight = log_probabilities(z)[0, ...], cast(block.weight[0, :], xp.float64)
    y = cast(_one_hot(block.target, z), xp.float64)
    mixed = (1 - mix) * xp.exp(log_p)
    if mix > 0:
        mixed = mixed + mix * xp.asarray(rest, dtype=xp.float64)[:, None]
    values = []
    for a in shares:
        q = (1 - a) * y + a * mixed
        log_q = xp.log(xp.where(q > 0, q, xp.ones_like(q)))
        rows = xp.sum(xp.where(q > 0, q * (log_q - log_p), xp.zeros_like(q)), axis=0)
        values.append(xp.sum(weight * rows))
    return (xp.stack(values),), None, (logits,)


def weights_alone(block, _, logits, *unused):
    """The weights of the rows as a residual, the same for every class; the logits stay."""
    return (), logits * 0 + block.weight[0, :][None, :], (logits,)


def separation(block, _, logits, *unused):
    """How many rows of positive weight have another logit at or above their label's."""
    xp = namespace(logits)
    z = block.stack(logits)
    target = _one_hot(block.target, z)[None, ...]
    others = xp.max(xp.where(target > 0, xp.full_like(z, -xp.inf), z), axis=1)
    own = xp.min(xp.where(target > 0, z, xp.full_like(z, xp.inf)), axis=1)
    wrong = (own <= others) & (block.weight > 0)
    mixed = (xp.sum(cast(target > 0, z.dtype), axis=1) > 1) & (block.weight > 0)
    return (xp.sum(cast(wrong | mixed, xp.float64), axis=1),), None, (logits,)


def fill(room, values):
    """A copy of `values` in the memory `room`, where there is some."""
    if room is None or namespace(values) is not np:
        return values + 0
    np.copyto(room, values)
    return room


# -- functions of a block, for samples of rows ---------------------------------------------------


def row_curvature(block, _, logits, *unused):
    """The trace of the curvature m (1 - |p|²) of every row, summed over problems."""
    p = block.kernel.probabilities(block.stack(logits + 0))
    xp = namespace(p)
    trace = xp.maximum(1.0 - xp.sum(p * p, axis=1), block.like(1e-12))
    return (), None, (xp.sum(trace * block.weight, axis=0),)


def row_weight(block, _, *, scale, least):
    """The mean weight of every row over problems, times `scale`, and `least` more."""
    weight = namespace(block.weight).sum(block.weight, axis=0) / block.weight.shape[0]
    return (), None, (scale * weight + least,)


def chance(block, _, a, b):
    """The chance of every row to be drawn, a * b of two states (n_rows,), and its sum."""
    product = cast(a * b, namespace(a).float64)[None, :]
    return (namespace(product).sum(product, axis=1),), None, (product,)


def chance_by_leverage(block, products, weights, *, n, scale):
    """The chance of every row, weight times leverage, for every row of `weights` (K, n_rows).

    The leverage is `scale` times the sum of squares over q of products (q * n, n_rows), with
    n = 1 or K. It is cut at one: a row that the blocks have not seen can exceed that, and is
    taken for certain anyway.
    """
    xp = namespace(products)
    x = xp.reshape(products, (-1, n, products.shape[-1]))
    score = weights * xp.sum(x * x, axis=0) * block.like(scale)
    score = xp.minimum(score, block.like(1.0))
    return (xp.sum(cast(score, xp.float64), axis=1),), None, (score, weights)


def expected(block, _, chance, *state, factor):
    """How many rows `draw` is expected to draw, (M,)."""
    xp = namespace(chance)
    p = xp.minimum(chance * cast(xp.asarray(factor), chance.dtype)[:, None], xp.ones_like(chance))
    return (xp.sum(cast(p, xp.float64), axis=1),), None, (chance, *state)


def draw(block, _, chance, *state, factor):
    """A Poisson draw: the importance of every row takes the place of its chance (M, n_rows).

    A row is drawn with the probability chance * `factor` (M,), at most one; its importance
    is the inverse of that, and zero if it is not drawn. All M share a draw. The same rows for
    the same data: a fit is deterministic.
    """
    xp = namespace(chance)
    p = xp.minimum(chance * cast(xp.asarray(factor), chance.dtype)[:, None], xp.ones_like(chance))
    drawn = xp.asarray(uniform(block.first, p.shape[1]))[None, :] < p
    importance = xp.where(drawn, 1.0 / xp.where(drawn, p, xp.ones_like(p)), xp.zeros_like(p))
    return (), None, (importance, *state)


def uniform(start, n):
    """The numbers `start` to `start + n` of a fixed sequence of uniform random numbers."""
    return np.random.Generator(np.random.PCG64(0).advance(start)).random(n)


def take_all(block, *unused):
    """The importance of every row in a sample of all of them, (1, n_rows): one."""
    return (), None, (0.0 * block.weight[:1, :] + 1.0,)


def times_row_weight(block, _, importance):
    """Importance times the mean weight of every row over problems, (1, n_rows)."""
    _, _, (weight,) = row_weight(block, None, scale=1.0, least=0.0)
    return (), None, (importance * weight,)


def times(block, _, a, b):
    """The product of two states."""
    return (), None, (a * b,)
