r"""The minimum in extended precision, by damped Newton, with a bound from below.

The coordinates are features from their weighted median in units of their spread: the median
is one of the values, so the differences are exact. Where there are more features than rows they
are first turned into the space of the rows; without a penalty the columns are made orthogonal.
For λ > 0, and the intercepts at their optimum, duality bounds the minimum from below [1]_:

.. math:: F - F^* \le \lVert \nabla_W F \rVert^2 / (2 λ).

.. [1] The probabilities themselves are feasible for the dual problem; its value is
       F less this number.
"""

import time
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks.hostile.factor import make_factor
from benchmarks.hostile.objective import Long, losses
from benchmarks.hostile.row_space import RowSpace, column_space

# Relative distance at which the minimum counts as found, and a value that counts as zero.
FOUND, ZERO = 1e-12, 1e-7
# A Newton step towards infinity moves the logits of some row by about one, and so do some more.
MOVE, MORE = 0.1, 10
# Rounding of the logits, relative to the objective and alone, up to which a value is believed.
NOISE, LITTLE = 1e-9, 1e-12
# Steps shorter than the first, as a share of Newton's, ask for damping; above the second for less.
FAR, NEAR, LEAST_MIX = 0.2, 0.5, Long(1e-10)


@dataclass
class Minimum:
    """What is known of F*.

    Attributes
    ----------
    value : the least value found, an upper bound
    lower : a lower bound; NaN where there is none
    decrement : half the Newton decrement at `value`
    n_iter : Newton steps
    attained : False where the last Newton step gains next to nothing and still moves logits:
        without a penalty they then go to infinity, as for (quasi-)separable classes
    """

    value: float
    lower: float
    decrement: float
    n_iter: int
    attained: bool = True

    @property
    def settled(self):
        """Whether the bound or the decrement says that `value` is the minimum, or about zero."""
        if not np.isfinite(self.value):
            return False
        proven = self.value - self.lower <= 1e-9 * self.value
        near = 0 <= self.decrement <= 1e-10 * self.value
        return bool(proven or near or self.value <= ZERO)


class System:
    """The objective in coordinates V (p, T) that suit the features, or are those `axes`."""

    def __init__(self, rows, axes=False):
        self.rows = rows
        X = rows.X
        self.center = np.zeros(X.shape[1], Long)
        if rows.intercept:
            order = X.argsort(axis=0)
            half = (rows.weight[order].cumsum(axis=0) >= 0.5).argmax(axis=0)
            j = np.arange(X.shape[1])
            self.center = X[order[half, j], j]
        X = X - self.center
        wide = X.shape[1] > X.shape[0] and not axes
        self.space = RowSpace(X) if wide else None
        if self.space is not None:
            X = self.space.coordinates
        scale = np.sqrt(rows.weight @ X**2)
        self.scale = np.where(scale > 0, scale, 1)
        self.X = X / self.scale
        self.penalty = rows.l2 / self.scale**2
        if rows.intercept:
            self.X = np.column_stack([self.X, np.ones(len(X), Long)])
            self.penalty = np.append(self.penalty, Long(0))
        self.turn = None
        if rows.l2 == 0 and not axes:
            self.X, self.turn = column_space(self.X)
            self.penalty = np.zeros(self.X.shape[1], Long)

    def at(self, coef, intercept):
        """V at coefficients, less what all classes have in common."""
        W = coef.astype(Long).T
        U = W if self.space is None else self.space.project(W)
        V = U * self.scale[:, None]
        if self.rows.intercept:
            V = np.vstack([V, intercept.astype(Long) + self.center @ W])
        return self.turned(V - V.mean(axis=1, keepdims=True))

    def null(self):
        """The model without features."""
        V = np.zeros((len(self.scale) + self.rows.intercept, self.rows.Y.shape[1]), Long)
        if self.rows.intercept:
            V[-1] = np.log(self.rows.weight @ self.rows.Y)
            V[-1] -= V[-1].mean()
        return self.turned(V)

    def turned(self, V):
        return V if self.turn is None else self.turn @ V

    def noise(self, V):
        """What rounding of the logits may change the objective by: the most in four draws."""
        Z, rng = self.X @ V, np.random.default_rng(0)
        size = 8 * np.finfo(Long).eps * (np.abs(self.X) @ np.abs(V))
        value, _ = self.value(Z, V)
        return max(
            abs(self.value(Z + size * rng.uniform(-1, 1, Z.shape), V)[0] - value) for _ in range(4)
        )

    def value(self, Z, V):
        """Objective and probabilities."""
        loss, P = losses(Z, self.rows.Y)
        return self.rows.weight @ loss + self.penalty @ (V**2).sum(axis=1) / 2, P

    def gradient(self, P, V):
        R = self.rows.weight[:, None] * (P - self.rows.Y)
        return self.X.T @ R + self.penalty[:, None] * V

    def curvature(self, P, V):
        """The Hessian's product with V."""
        dZ = self.X @ V
        Q = P * (dZ - (P * dZ).sum(axis=1, keepdims=True))
        return self.X.T @ (self.rows.weight[:, None] * Q) + self.penalty[:, None] * V

    def with_best_intercepts(self, V):
        """V after some Newton steps of its intercepts."""
        V, Z = V.copy(), self.X @ V
        for _ in range(5 * self.rows.intercept):
            _, P = losses(Z, self.rows.Y)
            mean = self.rows.weight @ P
            H = np.diag(mean) - P.T @ (self.rows.weight[:, None] * P) + mean.mean() / len(mean)
            step = np.linalg.lstsq(
                H.astype(float), (mean - self.rows.weight @ self.rows.Y).astype(float), rcond=None
            )[0]
            V[-1] -= step
            Z = Z - step
        return V

    def bound(self, V):
        """A lower bound of the minimum, at V with its intercepts put right."""
        if not self.rows.l2 > 0:
            return np.nan
        V = self.with_best_intercepts(V)
        value, P = self.value(self.X @ V, V)
        N = len(self.scale)
        G = self.gradient(P, V)[:N] / self.scale[:, None]
        return value - (G**2).sum() / (2 * self.rows.l2)


def conjugate_gradients(product, solve, b, *, share=1e-8, steps=60):
    """x with product(x) = b, to `share` of b · x; where that breaks down at once, solve(b)."""
    x = np.zeros_like(b)
    r, z = b.copy(), solve(b)
    p, rz = z, (b * z).sum()
    first = rz
    for step in range(steps):
        Hp = product(p)
        curvature = (p * Hp).sum()
        if not curvature > 0:
            return x if step else z
        x = x + rz / curvature * p
        r = r - rz / curvature * Hp
        z = solve(r)
        rz, last = (r * z).sum(), rz
        if not rz > share * first:
            break
        p = z + rz / last * p
    return x


def search(system, Z, dZ, V, D, P):
    """The step t ≥ 0 along D that about minimises the objective, by its derivative."""
    w, Y, penalty = system.rows.weight, system.rows.Y, system.penalty

    def slope(t, P):
        moved = w @ ((P - Y) * dZ).sum(axis=1) + penalty @ (D * (V + t * D)).sum(axis=1)
        mean = (P * dZ).sum(axis=1)
        bend = w @ ((P * dZ**2).sum(axis=1) - mean**2) + penalty @ (D**2).sum(axis=1)
        return moved, bend

    first, bend = slope(Long(0), P)
    low, high, t = Long(0), Long(np.inf), Long(1)
    for _ in range(60):
        moved, bend = slope(t, losses(Z + t * dZ, Y)[1])
        if abs(moved) <= 0.2 * abs(first) or t > 1e6:
            break
        low, high = (t, high) if moved < 0 else (low, t)
        new = t - moved / bend if bend > 0 else high
        if not low < new < min(high, 10 * t):
            new = (low + high) / 2 if np.isfinite(high) else 4 * t
        t = new
    return t


def newton(system, V, deadline, most=200):
    """The end of damped Newton from V: V, value, half the decrement, steps, last move.

    Where rows are decided their curvature vanishes, and steps go far beyond where the model
    holds. As long as they do, the Hessian is that of probabilities mixed with even ones.
    """
    Z, mix, more = system.X @ V, Long(0), MORE if can_escape(system.rows) else 0
    value, P = system.value(Z, V)
    for n_iter in range(1, 1 + most):  # noqa: B007
        G, mixed = system.gradient(P, V), (1 - mix) * P + mix / P.shape[1]
        solve = make_factor(system.X, mixed, system.rows.weight, system.penalty)
        D = -conjugate_gradients(partial(system.curvature, mixed), solve, G)
        D -= D.mean(axis=1, keepdims=True)
        decrement, dZ = -(G * D).sum() / 2, system.X @ D
        small = mix == 0 and 0 <= decrement <= FOUND / 10 * value
        t = Long(1) if small else search(system, Z, dZ, V, D, P)
        new_V = V + t * D
        new_Z = system.X @ new_V
        new_value, new_P = system.value(new_Z, new_V)
        lower = new_value < value
        if lower or small:
            V, Z, P, value = new_V, new_Z, new_P, new_value
        if small and more and np.ptp(dZ, axis=1).max() >= MOVE:
            more -= 1  # a row in the tail of its loss may come to an end
            continue
        if small or value < ZERO or time.monotonic() > deadline or not (lower or mix < 1):
            break
        if not lower or t < FAR:
            mix = min(max(100 * mix, LEAST_MIX), Long(1))
        elif t > NEAR:
            mix = mix / 10 if mix > LEAST_MIX else Long(0)
    return V, value, decrement, n_iter, np.ptp(dZ, axis=1).max()


def can_escape(rows):
    """Whether there may be no minimum, and a last Newton step can tell.

    With a penalty or where no probability is zero there is one. Where weights differ by more
    than the step resolves, it may move rows whose loss is not seen.
    """
    spread = rows.weight.max() / rows.weight.min()
    return rows.l2 == 0 and (rows.Y == 0).any() and spread < 1e6


def minimum(rows, start=None, *, seconds=30.0):
    """The :class:`Minimum` of the mean objective.

    Newton goes from the better of `start`, a pair of coefficients and intercepts, and the null
    model; where neither the bound nor the decrement settles it, from the other one too.
    """
    system, begin = System(rows), time.monotonic()
    starts = [system.null()]
    if start is not None and all(np.isfinite(part).all() for part in start):
        starts.append(system.at(*start))
    values = [system.value(system.X @ V, V)[0] for V in starts]
    best = None
    for i in np.argsort(values):
        V, value, decrement, n_iter, move = newton(system, starts[i], begin + seconds)
        lower, attained = system.bound(V), move < MOVE or not can_escape(rows)
        if system.noise(V) > max(NOISE * value, LITTLE):
            value, lower, decrement = np.inf, np.nan, np.inf
        if best is not None:
            lower = np.fmax(lower, best.lower)
            n_iter += best.n_iter
            if best.value < value:
                value, decrement, attained = best.value, best.decrement, best.attained
        best = Minimum(float(value), float(lower), float(decrement), n_iter, bool(attained))
        if best.settled or time.monotonic() > begin + seconds:
            break
        begin = time.monotonic()
    return best
