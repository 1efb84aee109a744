r"""The penalty as a value: half a weighted sum of squares, per problem.

For problem b with strength l2_b and factors d_j of the features,

    R_b(W) = l2_b / 2  sum_jk d_j W_jk²

in standardised units; intercepts are free. `factors` carries the units: scale⁻² penalises the
coefficients of X as it is, ones those of standardised features.
"""

from dataclasses import dataclass, replace

from skfc._array import Array, cast, host, namespace, to_numpy
from skfc._runtime import over_rows


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

    @property
    def active(self):
        """Whether any problem has a penalty."""
        return bool((self.l2 != 0).any())

    # True of a sum of squares with one factor for all columns, and false of other penalties.
    merges_columns = True

    def problems(self, index):
        """The penalty of the problems `index` alone."""
        shared = self.factors.shape[1] == 1
        return Penalty(self.l2[index], self.factors if shared else self.factors[:, index])

    def scaled(self, factor):
        """The same penalty `factor` times as strong."""
        return self if factor == 1 else replace(self, l2=self.l2 * factor)

    def diagonal(self, n_parameters):
        """Its second derivative, (n_parameters, n_problems): zero for intercepts."""
        xp = namespace(self.factors)
        rows = self.factors * xp.asarray(self.l2, dtype=self.factors.dtype)[None, :]
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
            d = cast(self.factors, a.dtype)
            return self.l2 * sum(
                over_rows(lambda rows: inner(a[rows, :] * d[rows, :], b[rows, :]), a)
            )
        return self.l2 * to_numpy(sums_of_problems(a * b, B, self.factors))

    def value(self, theta):
        """R(theta) of every problem."""
        return 0.5 * self.dot(theta, theta)

    def add_gradient(self, out, theta):
        """Add ∇R(theta) to `out` (P, K) in place; of a direction, the product with its Hessian."""
        if not self.active:
            return
        xp, N = namespace(theta), self.factors.shape[0]
        l2 = xp.asarray(self.l2, dtype=self.factors.dtype)
        scale = self.factors * l2[None, :]
        if self.n_problems > 1:
            scale = xp.repeat(scale, theta.shape[1] // self.n_problems, axis=1)
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
            d = cast(inverse, g.dtype)
            total = sum(over_rows(lambda rows: inner(g[rows, :] * d[rows, :], g[rows, :]), g))
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


def sums_of_problems(array, n_problems, factors=1.0):
    """The sums of `array` (P, K) in every problem, rows times `factors` (P, 1 or n_problems)."""
    xp = namespace(array)
    stack = xp.reshape(array, (array.shape[0], n_problems, array.shape[1] // n_problems))
    return xp.sum(factors * xp.sum(stack, axis=2), axis=0)


def inner(a, b):
    """The inner product of two arrays, a float."""
    xp = namespace(a)
    return float(host.vdot(a, b)) if xp is host else float(xp.sum(a * b))
