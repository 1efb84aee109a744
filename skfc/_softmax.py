r"""Softmax, cross-entropy, its residual and curvature, for blocks of logits.

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
"""

from types import SimpleNamespace

import numpy as np

from skfc._array import cast, itemsize, namespace, subtract_at, take
from skfc._pool import room

# Shifted logits are clipped here before `exp`: exp(-80) and exp(-600), times a weight,
# stay clear of subnormal numbers, which slow matrix products down tenfold.
LOWEST = {4: -80.0, 8: -600.0}
# Mean losses below this have lost digits in log(1 + e): log1p of e takes over.
SMALL_LOSS = {4: 1e-3, 8: 1e-5}


def _residual_numpy(logits, target, weight):
    """Loss (n_problems,) and residual; the residual takes the place of `logits`."""
    logits -= np.maximum.reduce(logits, axis=1, keepdims=True)
    labels = target.ndim == 1
    if labels:
        entries, index = _entries(logits, target)
        at_target = entries[index]
    else:
        at_target = np.einsum("kn,bkn->bn", target, logits)
    total = _exp_numpy(logits)
    loss = _weighted_sum(weight, np.log(total) - at_target)
    decided = (loss < SMALL_LOSS[logits.itemsize] * np.add.reduce(weight, axis=1)).any()
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
    return np.add.reduce(shifted, axis=1)


def _probabilities_numpy(logits):
    """Softmax over the classes, in place."""
    logits -= np.maximum.reduce(logits, axis=1, keepdims=True)
    total = _exp_numpy(logits)
    logits /= total[:, None, :]
    return logits


def _beside_targets_numpy(proba, target):
    """Probabilities less the targets, in place; the targets' own are what the others leave.

    Where one is next to one, that has more digits.
    """
    if target.ndim == 2:
        return _beside_targets_generic(proba, target)
    entries, index = _entries(proba, target)
    entries[index] -= 1.0
    entries[index] -= np.add.reduce(proba, axis=1)
    return proba


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


def _scratch_numpy(values):
    """A copy of `values` in the memory of this thread, until the next."""
    if values.flags.c_contiguous:
        out = room("scratch", values.shape, values.dtype)
    else:
        out = room("scratch", values.shape[::-1], values.dtype).T
    np.copyto(out, values)
    return out


def _squares_numpy(a):
    """Sums over the classes of a², (n_problems, n_rows)."""
    return np.einsum("bkn,bkn->bn", a, a)


def _shift(logits, axis=1):
    xp = namespace(logits)
    return logits - xp.max(logits, axis=axis, keepdims=True)


def _residual_generic(logits, target, weight):
    """Loss and residual with few passes over the logits, which stay as they are."""
    xp = namespace(logits)
    shifted = _shift(logits)
    at_target = _at_target(shifted, target)
    lowest = xp.asarray(LOWEST[itemsize(logits)], dtype=logits.dtype)
    residual = xp.exp(xp.maximum(shifted, lowest))
    del shifted
    total = xp.sum(residual, axis=1)
    loss = xp.sum(cast(weight * (xp.log(total) - at_target), xp.float64), axis=1)
    residual *= (weight / total)[:, None, :]
    if target.ndim == 2:
        residual -= cast(target, logits.dtype)[None, ...] * weight[:, None, :]
        return loss, residual
    return loss, subtract_at(residual, target, weight)


def _at_target(shifted, target):
    """The entries of the labels, or the means over probabilities, (n_problems, n_rows)."""
    xp, (B, T, n) = namespace(shifted), shifted.shape
    if target.ndim == 2:
        return xp.sum(cast(target, shifted.dtype)[None, ...] * shifted, axis=1)
    place = target * n + xp.arange(n, dtype=target.dtype)
    return take(xp.reshape(shifted, (B, T * n)), place, axis=1)


def one_hot(target, logits):
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


def others(proba):
    """1 - p of every class without cancellation, where p is next to one: arrays (B, n_rows)."""
    T = proba.shape[1]
    after, before, found = [0 * proba[:, 0, :]], 0.0, []
    for k in range(T - 1, 0, -1):
        after.append(after[-1] + proba[:, k, :])
    for k in range(T):
        found.append(before + after[T - 1 - k])
        before = before + proba[:, k, :]
    return found


def log_probabilities(logits, axis=1):
    """z - logsumexp(z), out of place: exact where a probability rounds to zero."""
    xp = namespace(logits)
    shifted = _shift(logits, axis)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=axis, keepdims=True))


def probabilities_and_logarithms(logits, axis=1):
    """Probabilities, and what :func:`log_probabilities` says, out of place."""
    xp = namespace(logits)
    shifted = _shift(logits, axis)
    p = xp.exp(shifted)
    total = xp.sum(p, axis=axis, keepdims=True)
    return p / total, shifted - xp.log(total)


def _beside_targets_generic(proba, target):
    y = cast(one_hot(target, proba), proba.dtype)[None, ...]
    residual = proba - y
    return residual - y * namespace(proba).sum(residual, axis=1, keepdims=True)


def _curvature_generic(proba, dz, weight):
    xp = namespace(proba)
    out = proba * (dz - xp.sum(proba * dz, axis=1, keepdims=True))
    return out if weight is None else weight[:, None, :] * out


def _inner_generic(a, b):
    xp = namespace(a)
    return xp.sum(xp.sum(cast(a * b, xp.float64), axis=2), axis=1)


def _scratch_generic(values):
    return values + 0


def _squares_generic(a):
    return namespace(a).sum(a * a, axis=1)


IN_PLACE = SimpleNamespace(
    residual=_residual_numpy, probabilities=_probabilities_numpy,
    curvature=_curvature_numpy, inner=_inner_numpy, scratch=_scratch_numpy,
    squares=_squares_numpy, keep=np.copy, beside_targets=_beside_targets_numpy,
)  # fmt: skip
GENERIC = SimpleNamespace(
    residual=_residual_generic, probabilities=_probabilities_generic,
    curvature=_curvature_generic, inner=_inner_generic, scratch=_scratch_generic,
    squares=_squares_generic, keep=lambda logits: logits, beside_targets=_beside_targets_generic,
)  # fmt: skip


def kernel(xp):
    """The kernel for arrays of namespace `xp`: functions that may overwrite their input."""
    return IN_PLACE if xp is np else GENERIC
