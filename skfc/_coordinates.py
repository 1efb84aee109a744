r"""Standardised features, without touching X.

With x̃ = (x - mean) / scale, an affine change of variables,

    weights    W̃ = W · scale,  b̃ = b + mean · W
    gradients  G̃ = (G - mean g_bᵀ) / scale,  g̃_b = g_b

gives every metric the same features whatever their units and wherever their zero is.
"""

from functools import cached_property

import numpy as np

from skfc._design import row_blocks
from skfc._threads import over_rows

# Scales below, and curvature above, leave the range of float64 when squared.
SMALLEST, LARGEST = 1e-150, 1e300
# Rows of so many classes are cheaper to centre by a matrix product.
SHORT = 64
# Data of up to so many numbers are copied.
FEW_NUMBERS = 2**25
# Sizes that float32 holds with room to spare.
SINGLE_RANGE = 1e-30, 1e30


def is_small(design):
    """Whether a copy of all rows is small."""
    return design.shape[0] * design.shape[1] <= FEW_NUMBERS


def pays_in_single(objective):
    """Whether a copy of the rows in float32 pays.

    Sparse rows stay as they are. Without a penalty, directions of little curvature want all
    the digits.
    """
    design = objective.design
    dense = not design.sparse and design.xp is np and design.dtype == np.float64
    return dense and is_small(design) and objective.is_large and (objective.l2 > 0).all()


class Coordinates:
    """Centre and scale of the features, and the penalty there.

    Attributes
    ----------
    mean, scale : (n_features,)
    constant : (n_features,) of bool, columns without variance
    penalty : (P,), the diagonal of the penalty in these coordinates, for lambda = 1
    row_weight : (n_samples,), mean weight of the rows over the problems, sums to one
    light : (n_samples, n_features), the standardised rows in float32, where they pay, or None
    """

    def __init__(self, objective):
        design = objective.design
        weight = objective.weight.mean(axis=0, dtype=np.float64)
        self.row_weight = weight = weight / weight.sum()
        self.design = design
        self.intercept = objective.fit_intercept
        self.n_classes = objective.n_classes
        single, self.light = pays_in_single(objective), None
        # The centred rows come by on the way to the variance.
        centred = [np.empty(design.shape, np.float32)] if single and self.intercept else []
        with np.errstate(over="ignore", invalid="ignore"):
            mean = design.mean(weight)
            scale = np.sqrt(design.variance(weight, mean, *centred))
        self._rescue(mean, scale)
        # Constant columns have rounding noise for variance: only a penalty holds them.
        scale[scale <= 8 * np.finfo(design.dtype).eps * np.abs(mean)] = 0.0
        if not self.intercept:
            scale = np.hypot(scale, mean)
            mean = np.zeros_like(mean)
        self.mean = mean
        self.constant = scale == 0
        self.scale = np.where(self.constant, 1.0, np.maximum(scale, SMALLEST))
        self._cast, self._constant = {}, np.flatnonzero(self.constant)
        penalty = self.scale**-2.0
        self.penalty = np.append(penalty, 0.0) if self.intercept else penalty
        if single:
            self.light = self._divide(*centred) if centred else self.standardise(slice(None))

    def _divide(self, centred):
        """Standardised rows from centred ones, and anew in columns that float32 cannot hold."""
        smallest, largest = SINGLE_RANGE
        inside = (self.scale > smallest) & (self.scale < largest)
        with np.errstate(over="ignore", invalid="ignore"):
            centred *= np.where(inside, 1.0 / self.scale, 0.0).astype(np.float32)
        for j in np.flatnonzero(~inside):
            centred[:, j] = (self.design.column(j) - self.mean[j]) / self.scale[j]
        centred[:, self.constant] = 0.0
        return centred

    def _rescue(self, mean, scale):
        """Columns whose squares overflow or underflow, again, in units of their largest."""
        limits = np.finfo(self.design.dtype)
        smallest, largest = 1e8 * np.sqrt(limits.tiny), 1e-8 * np.sqrt(limits.max)
        size = np.maximum(np.abs(mean), scale)
        strange = ~(size < largest) | ~np.isfinite(scale) | ((size < smallest) & (size > 0))
        for j in np.flatnonzero(strange):
            column = self.design.column(j)
            unit = np.abs(column).max()
            if unit > 0:
                column /= unit
                centre = self.row_weight @ column
                mean[j] = centre * unit
                scale[j] = np.sqrt(self.row_weight @ (column - centre) ** 2) * unit

    @cached_property
    def prominence(self):
        """1 + |x̃_i|² / N of every row: what stands in for its leverage."""
        if self.light is not None:
            norms = np.einsum("ij,ij->i", self.light, self.light)
        else:
            norms = self.design.squared_norms(self.mean, self.scale)
        return 1.0 + norms / len(self.mean)

    def pull(self, gradient):
        """A gradient (P, K) in these coordinates.

        It sums to zero over the classes but for rounding, which would grow in a metric
        where that direction has no curvature: the sum is taken out. So is the gradient
        of constant columns, whose best weight is zero.
        """
        out = balance(gradient.copy(), self.n_classes)
        mean, _, inverse = self._columns(out.dtype)
        W = out[: len(mean)]
        if self.intercept:
            W -= mean * out[-1]
        W *= inverse
        W[self._constant] = 0.0
        return out

    def push(self, step):
        """A step (P, K) from these coordinates back to W and b; overwrites it."""
        mean, _, inverse = self._columns(step.dtype)
        W = step[: len(mean)]
        W *= inverse
        if self.intercept:
            step[-1] -= mean[:, 0] @ W
        return step

    def filter(self, gradient, inverse):
        """A gradient (P, K) of centred features times `inverse`, as a step in W and b.

        It has the sum over the classes taken out, as in `pull`.
        """
        N, T = len(self.mean), self.n_classes
        mean = self.mean.astype(gradient.dtype)[:, None]
        less_mean = np.eye(T, dtype=gradient.dtype) - gradient.dtype.type(1 / T)
        out = np.empty_like(gradient)
        x = np.empty_like(gradient)

        def piece(rows):
            y, z = x[:N][rows], out[:N][rows]
            if self.intercept:
                np.matmul(mean[rows], gradient[N:], out=y)
                np.subtract(gradient[:N][rows], y, out=y)
                y *= inverse[:N][rows]
            else:
                np.multiply(gradient[rows], inverse[rows], out=y)
            if T > SHORT:
                z[...] = balance(y, T)
            else:
                for k in range(0, y.shape[1], T):
                    np.matmul(y[:, k : k + T], less_mean, out=z[:, k : k + T])
            return mean[rows, 0] @ z

        slopes = over_rows(piece, gradient)
        if self.intercept:
            out[N:] = balance(gradient[N:] * inverse[N:], T) - sum(slopes)
        return out

    def ridge(self, l2):
        """The diagonal (P,) of the penalty in these coordinates."""
        return np.minimum(l2 * self.penalty, LARGEST)

    def carry(self, step):
        """A step (P, K) in W and b, in these coordinates: the inverse of `push`."""
        mean, scale, _ = self._columns(step.dtype)
        out = step.copy()
        W = out[: len(mean)]
        if self.intercept:
            out[-1] += mean[:, 0] @ W
        W *= scale
        return out

    def pull_back(self, gradient):
        """A gradient in these coordinates, in W and b: the inverse of `pull`."""
        mean, scale, _ = self._columns(gradient.dtype)
        out = gradient.copy()
        W = out[: len(mean)]
        W *= scale
        if self.intercept:
            W += mean * out[-1]
        return out

    def _columns(self, dtype):
        """Mean, scale and its inverse as columns (n_features, 1) of `dtype`."""
        if dtype not in self._cast:
            columns = self.mean, self.scale, 1.0 / self.scale
            self._cast[dtype] = [v.astype(dtype)[:, None] for v in columns]
        return self._cast[dtype]

    def standardise(self, rows, dtype=np.float32):
        """The standardised rows with these indices, (n_rows, n_features)."""
        rows = np.arange(self.design.shape[0])[rows]
        out = np.empty((len(rows), len(self.mean)), dtype=dtype)
        for piece in row_blocks(len(rows), 8 * len(self.mean), 2**20, 64):
            x = self.design.take(rows[piece])
            x -= self.mean
            x /= self.scale
            out[piece] = x
        out[:, self.constant] = 0.0
        return out

    def with_ones(self, rows, dtype=np.float64):
        """Standardised rows (n_rows, P), with the intercept's column of ones."""
        x = self.standardise(rows, dtype) if self.light is None else self.light[rows]
        out = np.empty((len(x), len(self.mean) + self.intercept), dtype=dtype)
        out[:, : len(self.mean)] = x
        out[:, len(self.mean) :] = 1.0
        return out

    def gram(self, rows, weight):
        """Weighted Gram matrix (P, P) of standardised rows; sparse ones stay sparse."""
        if not self.design.sparse:
            x = self.with_ones(rows)
            x *= np.sqrt(weight)[:, None]
            return x.T @ x
        N = len(self.mean)
        A = np.empty((N + self.intercept,) * 2)
        total, sums, A[:N, :N] = weight.sum(), *self.design.moments(rows, weight)
        A[:N, :N] += total * np.outer(self.mean, self.mean)
        A[:N, :N] -= np.outer(self.mean, sums) + np.outer(sums, self.mean)
        A[:N, :N] /= np.outer(self.scale, self.scale)
        if self.intercept:
            A[N, :N] = A[:N, N] = (sums - total * self.mean) / self.scale
            A[N, N] = total
        idle = np.flatnonzero(self.constant)
        A[idle] = A[:, idle] = 0.0
        return A


def balance(x, n_classes):
    """An array (P, K) less its means over the classes of every problem; overwrites it."""
    stack = x.reshape(len(x), -1, n_classes)
    stack -= (np.einsum("pbk->pb", stack) / n_classes)[:, :, None]
    return x
