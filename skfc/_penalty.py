r"""The penalty as a value: half a weighted sum of squares, per problem, or an elastic net.

For problem b with strengths l2_b and l1_b, and factors d_j of the features,

    R_b(W) = l2_b / 2  sum_jk d_j W_jk²  +  l1_b  sum_jk √d_j |W_jk|

in standardised units; intercepts are free. `factors` carries the units: scale⁻² penalises the
coefficients of X as it is, ones those of standardised features. The second term is that of an
`ElasticNet`.
"""

from dataclasses import dataclass, replace
from functools import cached_property

from skfc._array import Array, cast, concatenate, host, namespace, take, to_numpy
from skfc._pool import inner, over_rows


@dataclass(frozen=True)
class Penalty:
    """Strengths `l2` (n_problems,) and `factors` (n_features, 1 or n_problems)."""

    l2: Array
    factors: Array

    @property
    def n_problems(self):
        return self.l2.shape[0]

    @property
    def strict(self):
        """(n_problems,): whether the penalty makes a problem strictly convex."""
        return self.l2 > 0

    @cached_property
    def active(self):
        """Whether any problem has a penalty."""
        return bool((self.l2 != 0).any())

    # Whether orthogonal changes of features leave it as it is, with one factor for all of them.
    takes_rotations = True

    def problems(self, index):
        """The penalty of the problems `index` alone."""
        shared = self.factors.shape[1] == 1
        return Penalty(self.l2[index], self.factors if shared else self.factors[:, index])

    def features(self, index):
        """The penalty of the features `index` alone."""
        return replace(self, factors=take(self.factors, index))

    def scaled(self, factor):
        """The same penalty `factor` times as strong."""
        return self if factor == 1 else replace(self, l2=self.l2 * factor)

    def damped(self, factor):
        """The same `factor` times as strong, and on the intercepts as on the strongest feature."""
        most = namespace(self.factors).max(self.factors, axis=0)
        factors = concatenate([self.factors, most[None, :]])
        return replace(self, l2=self.l2 * factor, factors=factors)

    @cached_property
    def curvature(self):
        """Its second derivative for every feature, (n_features, n_problems)."""
        l2 = namespace(self.factors).asarray(self.l2, dtype=self.factors.dtype)
        return self.factors * l2[None, :]

    def diagonal(self, n_parameters):
        """Its second derivative, (n_parameters, n_problems): zero for intercepts."""
        xp, rows = namespace(self.factors), self.curvature
        if n_parameters == rows.shape[0]:
            return rows
        out = xp.zeros((n_parameters, rows.shape[1]), dtype=rows.dtype)
        out[: rows.shape[0], :] = rows
        return out

    def dot(self, a, b):
        """sum_jk l2 d_j a_jk b_jk in every problem, on the host."""
        N, B = self.factors.shape[0], self.n_problems
        if not self.active:
            return host.zeros(B)
        a, b = a[:N, :], b[:N, :]
        if B == 1:
            return self.l2 * inner(a, b, cast(self.factors, a.dtype))
        return self.l2 * to_numpy(sums_of_problems(a * b, B, self.factors))

    def value(self, theta):
        """R(theta) of every problem."""
        return 0.5 * self.dot(theta, theta)

    def along(self, theta, direction):
        """R(theta + t direction) as a polynomial of t: value, slope and second derivative."""
        return self.value(theta), self.dot(theta, direction), self.dot(direction, direction)

    def add_gradient(self, out, theta):
        """Add ∇R(theta) to `out` (P, K) in place; of a direction, the product with its Hessian."""
        if not self.active:
            return
        N, scale = self.factors.shape[0], self.curvature
        if self.n_problems > 1:
            scale = namespace(theta).repeat(scale, theta.shape[1] // self.n_problems, axis=1)
        scale = cast(scale, out.dtype)

        def piece(rows):
            part = out[:N, :][rows, :]
            part += theta[:N, :][rows, :] * scale[rows, :]

        over_rows(piece, out[:N, :])

    def conjugate(self, gradient):
        """sum_jk g_jk² / (2 l2 d_j) in every problem: R*(g), infinite without a penalty."""
        N, B = self.factors.shape[0], self.n_problems
        g = gradient[:N, :]
        inverse = 1.0 / self.factors
        if B == 1:
            total = inner(g, g, cast(inverse, g.dtype))
        else:
            total = to_numpy(sums_of_problems(g * g, B, inverse))
        with host.errstate(divide="ignore", invalid="ignore"):
            return host.where(total == 0, 0.0, 0.5 * total / self.l2)

    @staticmethod
    def null_direction(theta):
        """What to take off the columns of `theta` (P, T), (P, 1): no probability changes.

        A sum of squares is least where it is the mean over the classes.
        """
        return namespace(theta).mean(theta, axis=1, keepdims=True)


@dataclass(frozen=True)
class ElasticNet(Penalty):
    """A sum of squares and, of strength `l1` (n_problems,), a sum of absolute values.

    Gradients, `dot` and `diagonal` are those of the squares, which are smooth. `roots` are the
    roots of the factors. What has no counterpart in `Penalty` is for one problem.
    """

    l1: Array

    @classmethod
    def of(cls, penalty):
        """A penalty as an elastic net."""
        return (
            penalty
            if isinstance(penalty, cls)
            else cls(penalty.l2, penalty.factors, 0 * penalty.l2)
        )

    # Sums of absolute values depend on the axes, and zeros belong to the features given.
    takes_rotations = False

    @property
    def strict(self):
        """(n_problems,): whether the penalty keeps weights from growing for ever."""
        return (self.l2 > 0) | (self.l1 > 0)

    @property
    def smooth(self):
        """The sum of squares alone."""
        return Penalty(self.l2, self.factors)

    def problems(self, index):
        part = super().problems(index)
        return ElasticNet(part.l2, part.factors, self.l1[index])

    def scaled(self, factor):
        return self if factor == 1 else replace(self, l2=self.l2 * factor, l1=self.l1 * factor)

    @cached_property
    def thresholds(self):
        """l1 √d_j (n_features, n_problems): gradients up to them keep a weight at zero."""
        xp = namespace(self.factors)
        return xp.sqrt(self.factors) * xp.asarray(self.l1, dtype=self.factors.dtype)[None, :]

    def value(self, theta):
        return super().value(theta) + self.absolute(theta)

    def absolute(self, theta):
        """The sum of absolute values (n_problems,), on the host."""
        N, B = self.factors.shape[0], self.n_problems
        xp = namespace(theta)
        return to_numpy(sums_of_problems(xp.abs(theta[:N, :]), B, self.thresholds))

    def shrink(self, theta, step):
        """The proximal map: argmin_v |v - theta|² / (2 step) + the absolute values of v.

        `step` is a number, or one of every weight (n_features, T).
        """
        xp, N, out = namespace(theta), self.factors.shape[0], theta + 0
        left = xp.abs(theta[:N, :]) - step * self.thresholds
        out[:N, :] = xp.sign(theta[:N, :]) * positive_part(left)
        return out

    def distance(self, theta, gradient):
        """How far 0 is from gradient + the subdifferential, for every weight (n_features, T)."""
        xp, N = namespace(theta), self.factors.shape[0]
        W, g = theta[:N, :], gradient[:N, :]
        at_zero = positive_part(xp.abs(g) - self.thresholds)
        return xp.where(W == 0, at_zero, xp.abs(g + xp.sign(W) * self.thresholds))

    def conjugate(self, gradient):
        """sum_jk (|g_jk| - l1 √d_j)₊² / (2 l2 d_j) in every problem: R*(g)."""
        return super().conjugate(self.distance(0 * gradient, gradient))

    def excess(self, theta, gradient, least=0.0, value=0.0, farthest=None, shares=(1.0,)):
        """R(theta) + R*(-a gradient) + <theta, a gradient>, a sum without negative terms.

        Of every share 0 <= a <= 1 of the gradient, (n_shares,). R* is finite with l2 = 0 where no
        entry of the gradient is beyond its threshold, see `largest_share`. Features of a penalty
        below `least` count as if they had none: weights at the minimum may be up to `farthest`
        (n_features, 1) away, but no farther than R <= `value` allows.
        """
        xp, N = namespace(theta), self.factors.shape[0]
        W, g, t = theta[:N, :], gradient[:N, :], self.thresholds
        # All others have no part in it, and they are most.
        some = (W != 0) | (xp.abs(g) > t)
        l2 = xp.broadcast_to(self.factors * float(self.l2[0]), W.shape)[some]
        W, g, t = W[some], g[some], xp.broadcast_to(t, W.shape)[some]
        far, weak = None, t + l2 < least
        if bool(xp.any(weak)):
            way = xp.abs(W) + value / xp.where(t > 0, t, xp.ones_like(t))
            far = xp.broadcast_to(farthest, some.shape)[some]
            far = xp.where((way < far) & (t > 0), way, far)
        return host.asarray([self._excess(W, a * g, t, l2, weak, far) for a in shares])

    def _excess(self, W, g, t, l2, weak, far):
        """The same of some weights and one gradient; those that are `weak` may be `far` away."""
        xp = namespace(W)
        inside = xp.where(g < -t, -t, xp.where(g > t, t, g))
        each = t * xp.abs(W) + inside * W
        free = each + 0.5 * l2 * W**2
        if (self.l2 > 0).all():
            each = each + 0.5 * (l2 * W + (g - inside)) ** 2 / l2
        if far is not None:
            free = free + far * xp.abs(g - inside)
            weak = weak & (free < each) if (self.l2 > 0).all() else weak
            each = xp.where(weak, free, each)
        return float(xp.sum(each))

    def largest_share(self, gradient, least=0.0):
        """The largest a <= 1 for which no entry of a * gradient is beyond its threshold.

        But for features of a penalty below `least`.
        """
        xp, N = namespace(gradient), self.factors.shape[0]
        g = xp.abs(gradient[:N, :])
        weak = self.thresholds + self.factors * float(self.l2[0]) < least
        beyond = (g > self.thresholds) & ~weak
        share = xp.where(beyond, self.thresholds / xp.where(beyond, g, xp.ones_like(g)), 1.0)
        return float(xp.min(share)) if N else 1.0

    @staticmethod
    def null_direction(theta):
        """What to take off the columns of `theta` (P, T), (P, 1): zero becomes a median.

        The sum of absolute values of a feature is least where zero is a median of its weights.
        Of an even number all between the two middle ones are medians. That of these which is
        nearer the mean becomes zero, or the lower one, so that which weight is zero does not
        depend on the way to the minimum.
        """
        low, high = middle(theta)
        xp = namespace(theta)
        mean = xp.mean(theta, axis=1)
        # The mean of two is in the middle but for rounding.
        return xp.where((high - mean) < (1 - 1e-6) * (mean - low), high, low)[:, None]

    def centred(self, theta):
        """`theta` (P, T), with weights of which zero is a median where that lowers the penalty.

        No probability changes. With a sum of squares as well, nothing is done.
        """
        if (self.l2 > 0).any():
            return theta
        low, high = middle(theta)
        xp = namespace(theta)
        zero = xp.zeros_like(low)
        return theta - xp.where(low > 0, low, xp.where(high < 0, high, zero))[:, None]


def middle(theta):
    """The two middle values (P,) of every row of `theta`, or the one twice."""
    ordered, T = namespace(theta).sort(theta, axis=1), theta.shape[1]
    return ordered[:, (T - 1) // 2], ordered[:, T // 2]


def positive_part(array):
    """max(array, 0), entry by entry."""
    xp = namespace(array)
    return xp.where(array > 0, array, xp.zeros_like(array))


def sums_of_problems(array, n_problems, factors=1.0):
    """The sums of `array` (P, K) in every problem, rows times `factors` (P, 1 or n_problems)."""
    xp = namespace(array)
    stack = xp.reshape(array, (array.shape[0], n_problems, array.shape[1] // n_problems))
    return xp.sum(factors * xp.sum(stack, axis=2), axis=0)
