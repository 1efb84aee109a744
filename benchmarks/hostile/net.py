r"""The minimum of an elastic net in extended precision, with a bound from below.

Newton steps whose models, of weights that are not zero and of zeros whose gradient is beyond its
threshold, an active-set method solves [1]_. A ridge is added where no step leads down. Any
probabilities q whose weighted mean is that of the targets bound the minimum from below [2]_; those
taken are shares of the way from the targets to the model's probabilities, at the optimum of its
intercepts:

.. math:: F^* \ge - \sum_i w_i \sum_k q_{ik} \log q_{ik} - R^*(-G), \quad G = X^T W (Q - Y)

.. [1] M. Osborne, B. Presnell, B. Turlach, "A new approach to variable selection in least
       squares problems", 2000.
.. [2] Fenchel's duality; R* is finite where no entry of G is beyond its threshold, or where there
       is a sum of squares too.
"""

import time

import numpy as np
from scipy import linalg

from benchmarks.hostile.factor import cholesky, substitute
from benchmarks.hostile.objective import Long, losses
from benchmarks.hostile.reference import FOUND, LITTLE, NOISE, Minimum, System

# Multiplications up to which a Hessian is summed and factorised in extended precision.
AFFORDABLE = 5e8
# Shares of the way from the largest feasible to all of it; a relative gap that is small enough.
SHARES, CLOSED = (0.0, 0.5, 0.9, 0.99, 0.999, 1.0), 1e-10
# The least ridge and the largest, relative to the diagonal; steps that no halving helps.
LEAST, MOST, HALVINGS = 8 * np.finfo(Long).eps, 1e6, 40


class NetSystem(System):
    """The objective with absolute values, in coordinates V (p, T) of the features given."""

    def __init__(self, rows):
        super().__init__(rows, axes=True)
        self.thresholds = np.zeros(self.X.shape[1], Long)
        self.thresholds[: len(self.scale)] = rows.l1 / self.scale

    def value(self, Z, V):
        value, P = super().value(Z, V)
        return value + self.thresholds @ np.abs(V).sum(axis=1), P

    def at(self, coef, intercept):
        """V at coefficients."""
        W = coef.astype(Long).T
        V = W * self.scale[:, None]
        if self.rows.intercept:
            V = np.vstack([V, intercept.astype(Long) + self.center @ W])
        return V

    def centred(self, V):
        """`V` with weights of which zero is a median; no probability changes."""
        V = V.copy()
        if self.rows.intercept:
            V[-1] -= V[-1].mean()
        if self.rows.l2 == 0:
            N, ordered = len(self.scale), np.sort(V, axis=1)
            low, high = ordered[:, (V.shape[1] - 1) // 2], ordered[:, V.shape[1] // 2]
            V[:N] -= np.where(low > 0, low, np.where(high < 0, high, 0))[:N, None]
        return V

    def pseudo_gradient(self, P, V):
        """The steepest slope down of every weight, zero where it stays at zero."""
        G, t = self.gradient(P, V), self.thresholds[:, None]
        at_zero = np.sign(G) * np.maximum(np.abs(G) - t, 0)
        return np.where(V == 0, at_zero, G + t * np.sign(V))

    def hessian_on(self, P, features, classes):
        """The Hessian in some coordinates, in extended precision where that is affordable."""
        n, m = len(P), len(features)
        dtype = Long if n * m**2 / 2 + m**3 / 3 < AFFORDABLE else np.float64
        X, P, w = (a.astype(dtype) for a in (self.X, P, self.rows.weight))
        H = np.empty((m, m), dtype)
        for k in np.unique(classes):
            for c in np.unique(classes[classes <= k]):
                one, other = np.flatnonzero(classes == k), np.flatnonzero(classes == c)
                share = w * P[:, k] * ((k == c) - P[:, c])
                if k == c:
                    share = w * P[:, k] * np.delete(P, k, axis=1).sum(axis=1)
                block = X[:, features[one]].T @ (share[:, None] * X[:, features[other]])
                H[np.ix_(one, other)] = block
                H[np.ix_(other, one)] = block.T
        H[np.diag_indices(m)] += self.penalty.astype(dtype)[features]
        return H

    def bound(self, V):
        """The largest lower bound of the minimum that is found at V."""
        _, P = losses(self.X @ self.with_best_intercepts(V), self.rows.Y)
        N, w, Y = len(self.scale), self.rows.weight, self.rows.Y
        G = np.abs(self.X.T @ (w[:, None] * (P - Y)))[:N]
        t, d = self.thresholds[:N, None], self.penalty[:N, None]
        beyond = t < G
        least = min(Long(1), (np.broadcast_to(t, G.shape)[beyond] / G[beyond]).min(initial=1))

        def dual(share):
            Q = (1 - share) * Y + share * P
            over = np.maximum(share * G - t, 0)
            conjugate = (over**2 / (2 * d)).sum() if self.rows.l2 > 0 else Long(0)
            return -(w @ (Q * np.log(np.where(Q > 0, Q, 1))).sum(axis=1)) - conjugate

        least *= 1 - 4 * np.finfo(Long).eps
        shares = SHARES if self.rows.l2 > 0 else SHARES[:1]
        return max(dual(least + (1 - least) * Long(share)) for share in shares)


def step_of(system, P, V, slope, ridge):
    """The step to the minimum of the quadratic model, and by how much the model falls, or None.

    Weights that are not zero or have a slope take part.
    """
    taking_part = (V != 0) | (slope != 0)
    taking_part[len(system.scale) :] = True
    classes, features = np.nonzero(taking_part.T)
    H = system.hessian_on(P, features, classes)
    root = np.sqrt(np.maximum(H.diagonal(), np.finfo(H.dtype).tiny))
    H = H / root[:, None] / root
    H[np.diag_indices(len(H))] = 1 + max(ridge, 8 * np.finfo(H.dtype).eps)
    gradient = (system.gradient(P, V)[features, classes] / root).astype(H.dtype)
    start = (V[features, classes] * root).astype(H.dtype)
    thresholds = (system.thresholds[features] / root).astype(H.dtype)
    try:
        found = active_set(H, gradient, start, thresholds)
    except linalg.LinAlgError:
        return None
    step, way = np.zeros_like(V), found - start
    step[features, classes] = way / root
    rise = thresholds @ (np.abs(found) - np.abs(start))
    return step, -(gradient @ way + way @ H @ way / 2 + rise)


def active_set(H, gradient, start, t):
    """The minimum of a quadratic model and absolute values, by faces of equal signs.

    What crosses zero first on the way to the minimum of a face leaves it; at the minimum, zeros
    whose gradient is beyond the threshold enter.
    """
    v, slope = start.copy(), gradient
    sign = np.where(v == 0, np.where(np.abs(slope) > t, -np.sign(slope), 0), np.sign(v))
    on_face = (sign != 0) | (t == 0)
    for _ in range(10 * len(v)):
        index = np.flatnonzero(on_face)
        b = slope[index] + t[index] * sign[index]
        A = H[np.ix_(index, index)]
        if H.dtype == Long:
            step = -substitute(cholesky(A), b)
        else:
            step = -linalg.cho_solve((linalg.cholesky(A, lower=True), True), b)
        inward = (t[index] > 0) & (step * sign[index] < 0)
        crossing = np.full_like(step, np.inf)
        crossing[inward] = -v[index][inward] / step[inward]
        share, first = crossing.min(initial=1), crossing.argmin()
        v[index] += share * step
        if share < 1:
            v[index[first]] = sign[index[first]] = 0
            on_face[index[first]] = False
        slope = gradient + H @ (v - start)
        if share == 1:
            entering = ~on_face & (np.abs(slope) > t * (1 + 1e3 * np.finfo(H.dtype).eps))
            if not entering.any():
                break
            sign[entering], on_face = -np.sign(slope[entering]), on_face | entering
    return v


def descend(system, V, value, step):
    """V, value and probabilities after the first step of 1, 1/2 ... that leads down, or None."""
    length = Long(1)
    for _ in range(HALVINGS):
        ahead = system.centred(V + length * step)
        after, P = system.value(system.X @ ahead, ahead)
        if after < value:
            return ahead, after, P
        length /= 2
    return None


def newton(system, V, deadline, most=300):
    """The end of Newton from V: V, value, the best lower bound, the last promise, and steps."""
    V, ridge, lower, promise = system.centred(V), Long(LEAST), -np.inf, Long(np.inf)
    value, P = system.value(system.X @ V, V)
    for n_iter in range(1, 1 + most):  # noqa: B007
        lower = max(lower, system.bound(V))
        near = value - lower <= CLOSED * value or 0 <= promise <= FOUND * value
        if near or time.monotonic() > deadline or ridge > MOST:
            break
        found = step_of(system, P, V, system.pseudo_gradient(P, V), ridge)
        if found is not None:
            step, fall = found
            promise = fall if ridge <= LEAST else promise
            found = descend(system, V, value, step)
        if found is None:
            ridge *= 100
            continue
        V, value, P = found
        ridge = max(ridge / 10, Long(LEAST))
    return V, value, lower, promise, n_iter


def minimum(rows, starts, *, seconds=30.0):
    """The :class:`Minimum` of the mean objective; `starts` are coefficients and intercepts."""
    system, best = NetSystem(rows), Minimum(np.inf, -np.inf, np.inf, 0)
    for coef, intercept in starts:
        if not (np.isfinite(coef).all() and np.isfinite(intercept).all()):
            continue
        begin = system.at(coef, intercept)
        V, value, lower, promise, n_iter = newton(system, begin, time.monotonic() + seconds)
        if system.noise(V) > max(NOISE * value, LITTLE):
            value, lower, promise = np.inf, -np.inf, np.inf
        lower, n_iter = max(lower, best.lower), n_iter + best.n_iter
        if best.value < value:
            value, promise = best.value, best.decrement
        best = Minimum(float(value), float(lower), float(promise), n_iter)
        if best.settled:
            break
    return best
