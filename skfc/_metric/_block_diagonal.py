"""A block of curvature for every class, for some hundreds of features."""

import math

import numpy as np
from scipy.linalg import lapack

from skfc._coordinates import balance
from skfc._metric._base import JITTER, Metric, factorise
from skfc._metric._kronecker import Kronecker

# Steps in the metric that cost as much as blocks: so many, and more with features x classes.
BASE_STEPS, NUMBERS_PER_STEP = 4, 200
# Rows of less curvature than this share of the mean are left out.
LITTLE = 1e-4


class BlockDiagonal(Metric):
    """The Gram matrix of the features for every class, weighted by p (1 - p).

    It knows that features can matter where one class is decided and not where another is,
    and leaves what couples the classes to the solver. It starts as the Kronecker form.
    Blocks are taken, and later taken again, when the steps since the last look have cost
    as much as they do.
    """

    def __init__(self, objective, coordinates):
        super().__init__(objective, coordinates)
        self.kronecker = Kronecker(objective, coordinates)
        self.doubt, self.steps = self.kronecker.doubt, 0
        self.grams = self.seen = None

    def refresh(self, point):
        o = self.objective
        other = self.grams is not None and len(self.grams) != o.n_columns
        if other or self.steps >= BASE_STEPS + math.prod(o.shape) // NUMBERS_PER_STEP:
            self._look(point)
        elif self.kronecker:
            self.kronecker.objective = o
            self.kronecker.refresh(point)
        elif (self.l2 != o.l2).any():
            self._factorise()

    def renew(self, point):
        stale = self.grams is not None and self.seen is not point
        if stale:
            self._look(point)
        return stale

    def _look(self, point):
        """Take the blocks anew: Gram matrices of the standardised rows of a sample."""
        part = self.sampler.at(self.objective, point).data
        proba, o = part.objective._stack(part.proba), part.objective
        weight = proba * (1 - proba) * (o.weight / o.design.shape[0])[:, None]
        self.grams = np.stack([self._gram(o.design, q) for q in weight.reshape(o.n_columns, -1)])
        self.seen, self.steps, self.kronecker = point, 0, None
        self._factorise()

    def _gram(self, design, weight):
        N, rows = design.shape[1], np.flatnonzero(weight >= LITTLE * weight.mean())
        weight = weight[rows]
        if design.sparse:
            return self.coordinates.gram(rows, weight)
        root = np.sqrt(weight)
        x = design.X[rows]
        x *= root[:, None]
        A = np.empty((self.objective.shape[0],) * 2, dtype=x.dtype)
        A[:N, :N] = x.T @ x
        if self.coordinates.intercept:
            A[N, :N] = A[:N, N] = root @ x
            A[N, N] = weight.sum()
        return A

    def _factorise(self):
        self.l2 = self.objective.l2
        ridges = [self.coordinates.ridge(l2) for l2 in self.objective.l2]
        self.factor, units = [], []
        jitter = JITTER[self.grams.dtype.type]
        for k, A in enumerate(self.grams):
            B = A + np.diag(ridges[k // self.objective.n_classes].astype(A.dtype))
            unit = np.sqrt(np.einsum("ii->i", B))
            unit[unit == 0] = 1.0
            B /= unit
            B /= unit[:, None]
            self.factor.append(factorise(B, jitter).T)
            units.append(unit)
        self.unit = np.stack(units, axis=1)

    def take(self, objective, keep):
        columns = self.objective.columns(keep)
        self.objective = objective
        if self.kronecker:
            self.kronecker.take(objective, keep)
            return
        self.l2 = self.l2[keep]
        self.grams, self.unit = self.grams[columns], self.unit[:, columns]
        self.factor = [self.factor[k] for k in columns]

    def solve(self, gradient):
        self.steps += 1
        if self.kronecker:
            return self.kronecker.solve(gradient)
        x = self.coordinates.pull(gradient)
        flat = np.ascontiguousarray((x / self.unit).T, dtype=self.grams.dtype)
        solve = lapack.spotrs if flat.itemsize == 4 else lapack.dpotrs
        for k, factor in enumerate(self.factor):
            flat[k] = solve(factor, flat[k])[0]
        x[:] = flat.T
        x /= self.unit
        return self.coordinates.push(balance(x, self.objective.n_classes))
