"""The exact Hessian, for few features and classes."""

import numpy as np
from scipy.linalg import lapack

from skfc._design import row_blocks
from skfc._metric._base import JITTER, Metric, factorise
from skfc._metric._kronecker import Kronecker
from skfc._sampling import leverage_rows, working_dtype

# When it is taken again: soon where it costs less than a pass.
CHEAP_SIZE = 128
SOON, LATE = frozenset({1, 4, 10, 20, 40, 80, 160}), frozenset({3, 9, 27, 81})
# Rows that it is taken over: so many, and more per feature.
BASE_ROWS, HESSIAN_ROWS = 1000, 55
# They are drawn anew where so many times as many are needed.
MORE = 1.25
# What a logit of a pass costs, in operations of a large matrix product; one of a skinny product
# costs four.
OPERATIONS_PER_LOGIT = 100
PAIR_BYTES = 2**26


class Hessian(Metric):
    """The exact Hessian on a sample of rows, by its Cholesky factor.

    Where all rows have the same probabilities, as at the null model, that is the Kronecker
    form, which costs less.
    """

    is_newton = True

    def __init__(self, objective, coordinates):
        super().__init__(objective, coordinates)
        P = objective.shape[0]
        self.refresh_at = SOON if P * objective.n_classes <= CHEAP_SIZE else LATE
        self.kronecker = self.spectrum = self.rows = None
        self.size = 0.0

    @staticmethod
    def passes(objective):
        """What a look costs, in passes over the data, about."""
        (n, N), P, T = objective.design.shape, objective.shape[0], objective.n_classes
        rows = min(n, BASE_ROWS + HESSIAN_ROWS * P)
        return rows * (P * T) ** 2 / 2 / (n * T * (4 * N + OPERATIONS_PER_LOGIT))

    def _needed(self):
        """Rows that the Hessian takes: more for every direction that the penalty leaves free."""
        free = self.objective.shape[0]
        if self.spectrum is not None:
            free = self.spectrum.effective_dimension(self.objective.l2.min())
        return BASE_ROWS + HESSIAN_ROWS * free

    def _draw(self, size):
        """The rows of the sample, and how they pair."""
        objective, coordinates = self.objective, self.coordinates
        P = objective.shape[0]
        self.size = size
        self.sample, importance = leverage_rows(coordinates, size)
        self.importance = importance / objective.design.shape[0]
        self.dtype = working_dtype(objective, len(self.sample) * P**2 // 2)
        self.rows = x = coordinates.with_ones(self.sample, self.dtype).T
        # Constant columns keep a weight of zero, in any curvature.
        self.idle = np.zeros(P)
        self.idle[: len(coordinates.constant)] = coordinates.constant
        self.pair_of = np.empty((P, P), dtype=np.intp)
        first, second = np.triu_indices(P)
        self.pair_of[first, second] = self.pair_of[second, first] = np.arange(len(first))
        self.pieces = row_blocks(x.shape[1], len(first) * x.itemsize, PAIR_BYTES, 1)
        self.pairs = self._pairs(self.pieces[0]) if len(self.pieces) == 1 else None

    def _pairs(self, rows):
        """Products of all pairs of features: a Hessian is then one matrix product."""
        x = self.rows[:, rows]
        P, m = x.shape
        pairs, end = np.empty((P * (P + 1) // 2, m), dtype=self.dtype), 0
        for i in range(P):
            start, end = end, end + P - i
            np.multiply(x[i], x[i:], out=pairs[start:end])
        return pairs

    def refresh(self, point):
        o = self.objective
        if not point.weights[: o.design.shape[1]].any():
            self.kronecker = self.spectrum = Kronecker(o, self.coordinates)
            self.kronecker.refresh(point)
            self.doubt = self.kronecker.doubt
            return
        self.kronecker, self.doubt = None, 1
        needed = self._needed()
        if needed > MORE * self.size:
            self._draw(needed)
        logits = point.logits[:, self.sample].astype(self.dtype, copy=False)
        proba = o._kernel.probabilities(o._stack(logits))
        weight = o.weight[:, self.sample] * self.importance
        self.factor = [
            self._factorise(p, w, l2) for p, w, l2 in zip(proba, weight, o.l2, strict=True)
        ]

    def _factorise(self, proba, weight, l2):
        """Cholesky factor of the Hessian, scaled to a unit diagonal, and its scale."""
        T, P = len(proba), len(self.pair_of)
        first, second = np.triu_indices(T - 1)
        weight = weight.astype(self.dtype, copy=False)
        curvature = np.empty((len(first), len(weight)), dtype=self.dtype)
        weighted, end = -weight * proba[:-1], 0
        for k in range(T - 1):
            start, end = end, end + T - 1 - k
            np.multiply(weighted[k], proba[k:-1], out=curvature[start:end])
        # p (1 - p) without cancellation, for a p next to one.
        others = np.zeros_like(proba)
        np.cumsum(proba[:-1], axis=0, out=others[1:])
        others[:-1] += np.cumsum(proba[:0:-1], axis=0)[::-1]
        curvature[first == second] = weight * (proba * others)[:-1]
        sums = 0.0
        for rows in self.pieces:
            pairs = self._pairs(rows) if self.pairs is None else self.pairs
            sums = sums + curvature[:, rows] @ pairs.T
        sums = sums[:, self.pair_of]
        H = np.empty((T, P, T, P), dtype=self.dtype)
        H[first, :, second, :] = sums
        H[second, :, first, :] = sums
        # The classes sum to zero, which gives the last one.
        H[-1, :, :-1] = -H[:-1, :, :-1].sum(axis=0)
        H[:-1, :, -1] = H[-1, :, :-1].transpose(1, 0, 2)
        H[-1, :, -1] = -H[:-1, :, -1].sum(axis=0)
        H = H.reshape(T * P, T * P)
        diagonal = np.einsum("ii->i", H)
        diagonal += np.tile(self.coordinates.ridge(l2), T)
        diagonal += np.tile(self.idle, T)
        # One vector added to all classes changes nothing: any curvature there will do.
        gauge = diagonal.reshape(T, P).mean(axis=0)
        gauge[gauge == 0] = 1.0
        j = np.arange(P)
        H.reshape(T, P, T, P)[:, j, :, j] += (gauge / T)[:, None, None]
        unit = np.sqrt(diagonal)
        H /= unit
        H /= unit[:, None]
        return factorise(H, JITTER[self.dtype]), unit

    def take(self, objective, keep):
        self.objective = objective
        if self.kronecker:
            self.kronecker.take(objective, keep)
        else:
            self.factor = [self.factor[b] for b in keep]

    def solve(self, gradient):
        if self.kronecker:
            return self.kronecker.solve(gradient)
        o = self.objective
        x = self.coordinates.pull(gradient)
        P = len(x)
        out = np.empty_like(x)
        for b, (factor, unit) in enumerate(self.factor):
            columns = slice(b * o.n_classes, (b + 1) * o.n_classes)
            flat = (x[:, columns].T.ravel() / unit).astype(factor.dtype, copy=False)
            solve = lapack.spotrs if flat.itemsize == 4 else lapack.dpotrs
            flat, _ = solve(factor.T, flat, overwrite_b=True)
            out[:, columns] = (flat / unit).reshape(-1, P).T
        return self.coordinates.push(out)
