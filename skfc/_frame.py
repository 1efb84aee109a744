r"""The door between the user's units and the solver's.

Inside, every feature is standardised, x̃ = (x - mean) / scale, and weights are one array
theta (P, K): a row per feature, the intercept as the last row (absent without intercept),
and a column per class of every problem. Outside are `coef_` (T, N) and `intercept_` (T,).
With W = theta[:N] and b = theta[N],

    coefficient = W / scale,     intercept = b - mean · (W / scale)

A constant column has no feature inside: its coefficient is zero, which is the best one.
"""

from dataclasses import dataclass, replace
from functools import cached_property

from skfc._array import Array, at_most, concatenate, namespace, take
from skfc._moments import hypot
from skfc._tuned import TUNED

# The penalty of a feature in standardised units is scale⁻², kept within the range of float64.
LARGEST = 1e300
# Values that float32 can square and sum, in units of a spread.
FARTHEST = 1e12


@dataclass(frozen=True)
class Frame:
    """Centre and scale of the features.

    Attributes
    ----------
    mean, scale : (n_features,)
    inverse : (n_features,), 1 / scale, and 0 for constant columns
    fit_intercept : bool
    squares : (n_features,), means of the squares of the features inside: one where the scale
        is the standard deviation
    """

    mean: Array
    scale: Array
    inverse: Array
    fit_intercept: bool
    squares: Array

    @classmethod
    def of(cls, moments, fit_intercept, typical=None):
        """The frame of pooled moments. Without an intercept, features are not centred.

        `typical` are medians and spreads of columns, host arrays (n_features,). They replace
        mean and standard deviation where a few values are so far out that the others would
        hardly differ in units of the standard deviation.
        """
        xp = namespace(moments.mean)
        mean, scale, varies = moments.mean[0, :], moments.std[0, :], moments.varies
        around, std = mean, scale
        if typical is not None:
            median, spread = (xp.asarray(values, dtype=mean.dtype) for values in typical)
            far = (spread > 0) & (spread < TUNED.next_to_one_another * scale)
            # Farther than this, squares of standardised values leave the range of float32.
            far = far & (moments.high - moments.low < FARTHEST * spread)
            mean, scale = xp.where(far, median, mean), xp.where(far, spread, scale)
        if not fit_intercept:
            scale, varies = hypot(scale, mean), (moments.low != 0) | (moments.high != 0)
            mean = xp.zeros_like(mean)
        varies = varies & (scale > 0)
        scale = xp.where(varies, scale, xp.ones_like(scale))
        inverse = xp.where(varies, 1.0 / scale, xp.zeros_like(scale))
        squares = at_most((hypot(std, around - mean) * inverse) ** 2, LARGEST)
        return cls(mean, scale, inverse, fit_intercept, squares)

    def features(self, index):
        """The frame of the features `index` alone."""
        return replace(
            self, mean=take(self.mean, index), scale=take(self.scale, index),
            inverse=take(self.inverse, index), squares=take(self.squares, index),
        )  # fmt: skip

    @property
    def n_features(self):
        return self.mean.shape[0]

    @property
    def n_parameters(self):
        """P: the features, and the intercept."""
        return self.n_features + self.fit_intercept

    @cached_property
    def shift(self):
        """mean / scale, (n_features,): what is subtracted from x / scale."""
        return self.mean * self.inverse

    @cached_property
    def idle(self):
        """(P,) of bool: the features without variance."""
        idle = self.inverse == 0
        if not self.fit_intercept:
            return idle
        return concatenate([idle, namespace(idle).zeros(1, dtype=idle.dtype)])

    def penalty_factors(self, std=None):
        """The penalty of every feature in standardised units, for lambda = 1.

        That is scale⁻² for coefficients in the units of X, (n_features, 1). For coefficients
        in units of the standard deviations `std` (n_problems, n_features) it is
        (std / scale)², (n_features, n_problems). Constant columns have a penalty of one.
        """
        if std is not None:
            xp, varies = namespace(std), self.inverse[:, None] != 0
            return xp.where(varies, (std * self.inverse).T ** 2, xp.ones_like(std.T))
        return at_most(self.scale**-2.0, LARGEST)[:, None]

    def to_user(self, theta):
        """Coefficients (K, n_features) and intercepts (K,) of `theta`."""
        N = self.n_features
        coef = theta[:N, :] * self.inverse[:, None]
        xp = namespace(coef)
        if not self.fit_intercept:
            return coef.T, xp.zeros_like(coef[0, :])
        intercept = theta[N, :] - xp.matmul(self.shift[None, :], theta[:N, :])[0, :]
        return coef.T, intercept

    def from_user(self, coef, intercept):
        """`theta` (P, K) of coefficients (K, n_features) and intercepts (K,)."""
        xp = namespace(coef)
        varies = self.inverse != 0
        W = xp.where(varies[:, None], coef.T * self.scale[:, None], xp.zeros_like(coef.T))
        if not self.fit_intercept:
            return W
        b = intercept + xp.matmul(self.mean[None, :], coef.T)[0, :]
        return concatenate([W, b[None, :]])

    def step_from_user(self, step):
        """A step (P, K) of coefficients and intercepts of X as one of `theta`."""
        N = self.n_features
        W = step[:N, :] * self.scale[:, None]
        if not self.fit_intercept:
            return W
        b = step[N, :] + namespace(W).matmul(self.mean[None, :], step[:N, :])[0, :]
        return concatenate([W, b[None, :]])

    def gradient_to_user(self, gradient):
        """A gradient (P, K) of `theta` as one of coefficients and intercepts of X."""
        N = self.n_features
        W = gradient[:N, :] * self.scale[:, None]
        if not self.fit_intercept:
            return W
        return concatenate([W + self.mean[:, None] * gradient[N:, :], gradient[N:, :]])
