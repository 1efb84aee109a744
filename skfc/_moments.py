r"""Weighted means and standard deviations of features, which merge.

The moments of a union of rows follow from those of its parts (Chan, Golub and LeVeque 1983):
with total weights a and b, a + b = s and the difference d of the means,

    mean = mean_a + d b / s,     std² = (a std_a² + b std_b²) / s + d² a b / s²

so that blocks, files and machines can be summed in any order. The standard deviation is
stored, not its square, which may leave the range of float64.
"""

from dataclasses import dataclass
from functools import reduce

from skfc._array import Array, cast, concatenate, host, namespace, product, take, to_numpy

# Values whose squares stay within the range of their type, by its itemsize.
SQUARES_IN_RANGE = {4: (1e-15, 1e15), 8: (1e-140, 1e140)}


@dataclass(frozen=True)
class Moments:
    """Weighted moments of rows, for several sets of weights at once.

    Attributes
    ----------
    total : (n_problems,), the total weights
    mean, std : (n_problems, n_features)
    low, high : (n_features,), bounds of the values; equal where a column is constant
    """

    total: Array
    mean: Array
    std: Array
    low: Array
    high: Array

    @classmethod
    def of(cls, x, weight):
        """The moments of dense rows x (n_rows, n_features) with weights (n_problems, n_rows)."""
        parts = [cls._of_one(x, weight[k, :]) for k in range(weight.shape[0])]
        if len(parts) == 1:
            return parts[0]
        stacked = (concatenate([getattr(p, f) for p in parts]) for f in ("total", "mean", "std"))
        xp = namespace(x)
        low = reduce(xp.minimum, (p.low for p in parts))
        return cls(*stacked, low, reduce(xp.maximum, (p.high for p in parts)))

    @classmethod
    def _of_one(cls, x, weight):
        """The moments with weights (n_rows,). Rows without weight may hold anything."""
        xp = namespace(x)
        if not bool(xp.all(weight > 0)):
            rows = host.flatnonzero(to_numpy(weight) > 0)
            x, weight = take(x, rows), take(weight, rows)
        if x.shape[0] == 0:
            zeros = xp.zeros((1, x.shape[1]), dtype=xp.float64)
            return cls(zeros[:, 0] if x.shape[1] else xp.zeros(1, dtype=xp.float64), zeros, zeros,
                       zeros[0, :] + xp.inf, zeros[0, :] - xp.inf)  # fmt: skip
        low, high = xp.min(x, axis=0), xp.max(x, axis=0)
        w = cast(weight, x.dtype)[None, :]
        total = xp.sum(w, axis=1)
        share = w / total[:, None]
        unit = unit_of(low, high)
        if unit is not None:
            x = x / unit
        centre = product(share, x)[0, :]
        centred = x - centre
        # The rounding of the centre is measured and taken out again.
        offset = cast(product(share, centred), xp.float64)
        squares = cast(product(share, xp.square(centred)), xp.float64)
        std = xp.sqrt(xp.maximum(squares - offset**2, xp.zeros_like(squares)))
        mean = cast(centre, xp.float64) + offset
        if unit is not None:
            unit = cast(unit, xp.float64)
            mean, std = mean * unit, std * unit
        return cls(
            cast(total, xp.float64), mean, std, cast(low, xp.float64), cast(high, xp.float64)
        )

    def __add__(self, other):
        xp = namespace(self.mean)
        total = self.total + other.total
        s = xp.where(total > 0, total, xp.ones_like(total))[:, None]
        a, b = self.total[:, None] / s, other.total[:, None] / s
        d = other.mean - self.mean
        std = hypot(hypot(xp.sqrt(a) * self.std, xp.sqrt(b) * other.std), xp.sqrt(a * b) * d)
        low, high = xp.minimum(self.low, other.low), xp.maximum(self.high, other.high)
        return Moments(total, self.mean + d * b, std, low, high)

    def pooled(self):
        """The moments of all problems together, each with the same total weight."""
        xp = namespace(self.mean)
        one = xp.ones_like(self.total[:1])
        parts = [
            Moments(one, self.mean[k : k + 1, :], self.std[k : k + 1, :], self.low, self.high)
            for k in range(self.total.shape[0])
        ]
        return reduce(Moments.__add__, parts)

    @property
    def varies(self):
        """(n_features,) of bool: whether a column has two different values."""
        return self.high > self.low


def unit_of(low, high):
    """Units that bring the squares of columns into range, or None where they are."""
    xp = namespace(low)
    size = xp.maximum(xp.abs(low), xp.abs(high))
    smallest, largest = SQUARES_IN_RANGE[4 if size.dtype == xp.float32 else 8]
    strange = (size > largest) | ((size < smallest) & (size > 0))
    return xp.where(strange, size, xp.ones_like(size)) if bool(xp.any(strange)) else None


def hypot(a, b):
    """√(a² + b²) without overflow."""
    xp = namespace(a)
    return host.hypot(a, b) if xp is host else xp.hypot(a, b)
