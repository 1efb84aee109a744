"""A block of curvature for every class, for some hundreds of features."""

import math

import numpy as np
from scipy.linalg import lapack

from skfc._coordinates import balance
from skfc._metric._base import JITTER, Metric, factorise
from skfc._metric._kronecker import Kronecker
from skfc._sampling import lots

# Steps in the metric that cost as much as blocks: so many, and more with features x classes.
BASE_STEPS, NUMBERS_PER_STEP = 4, 200
# Conjugate-gradient steps before their end is believed, where rows are all but decided: two of
# them have seen an eighth of the decrement.
DOUBT = 5
# Rows of a block, where there are many: so many, and more per feature.
BASE_ROWS, ROWS_PER_FEATURE = 1000, 8
# Random vectors that tell the leverage of rows. With four of them, rows that matter are missed.
PROBES = 10


class BlockDiagonal(Metric):
    """The Gram matrix of the features for every class, weighted by p (1 - p).

    It knows that features can matter where one class is decided and not where another is,
    and leaves what couples the classes to the solver. It starts as the Kronecker form.
    Blocks are taken, and later taken again, when the steps since the last look have cost
    as much as they do. Of many rows, a block takes those of leverage in the block before
    (Cohen, Musco and Musco 2017).
    """

    def __init__(self, objective, coordinates):
        super().__init__(objective, coordinates)
        self.kronecker = Kronecker(objective, coordinates)
        self.doubt, self.steps = self.kronecker.doubt, 0
        self.grams = self.seen = self.warm = None
        self.strained = False
        self.price = BASE_STEPS + math.prod(objective.shape) / NUMBERS_PER_STEP

    def refresh(self, point):
        o = self.objective
        if self.warm is None:
            self.warm = bool(point.weights[: o.design.shape[1]].any())
        other = self.grams is not None and len(self.grams) != o.n_columns
        if other or self.steps >= self.price:
            self._look(point)
        elif self.kronecker:
            self.kronecker.objective = o
            self.kronecker.refresh(point)
        elif (self.l2 != o.l2).any():
            self._factorise()

    def renew(self, point):
        # From the null model on, where it is exact, the Kronecker form follows the iterates.
        stale = self.strained and self.seen is not point if self.kronecker is None else self.warm
        if stale:
            self._look(point)
        return stale

    def strain(self):
        self.strained, self.doubt = True, DOUBT

    def _look(self, point):
        """Take the blocks anew: Gram matrices of the standardised rows of a sample."""
        part = self.sampler.at(self.objective, point).data
        proba, o = part.objective._stack(part.proba), part.objective
        weight = proba * (1 - proba) * (o.weight / o.design.shape[0])[:, None]
        weight = weight.reshape(o.n_columns, -1)
        size = BASE_ROWS + ROWS_PER_FEATURE * o.shape[0]
        steps = math.prod(o.shape) / NUMBERS_PER_STEP
        if weight.shape[1] > 1.5 * size and (leverage := self._leverage(o)) is not None:
            thin(weight, leverage, size)
            steps = PROBES / 2 + steps * size / weight.shape[1]
        self.price = BASE_STEPS + steps
        self.grams = np.stack([self._gram(o.design, q) for q in weight])
        self.seen, self.steps, self.kronecker = point, 0, None
        self._factorise()

    def _leverage(self, part):
        """x̃ᵀ M⁻¹ x̃ of every row of a sample, for every block M so far, (K or 1, n_rows), or None.

        Estimated from products with a few random vectors (Drineas, Magdon-Ismail, Mahoney
        and Woodruff 2012). Before there are blocks, M is the Gram matrix of the features: near
        the null model no row is decided yet.
        """
        P, K = part.shape
        if self.kronecker:
            return None if self.warm else self._norms(part, self.kronecker.root()[:, :, None])
        if len(self.grams) != K:
            return None
        probes = np.random.default_rng(0).standard_normal((PROBES, P)).astype(self.grams.dtype)
        solve = lapack.strtrs if probes.itemsize == 4 else lapack.dtrtrs
        # One by one: more at once wake the threads of SciPy's BLAS, which fight with NumPy's.
        z = np.array([[solve(factor, g)[0] for factor in self.factor] for g in probes])
        return self._norms(part, (z / self.unit.T).transpose(2, 0, 1)) / PROBES

    def _norms(self, part, z):
        """|zᵀ x̃|² of every row of a sample, for several z (P, q, n_z): (n_z, n_rows)."""
        P, q, n = z.shape
        z = z.reshape(P, q * n)
        if part.design.sparse:
            z = self.coordinates.push(z)
        z = z.astype(part.design.dtype)
        out = np.empty((n, part.design.shape[0]), dtype=z.dtype)

        def block(rows):
            x = part._forward(z, rows).reshape(q, n, -1)
            np.einsum("qkn,qkn->kn", x, x, out=out[:, rows])

        list(part.design.map(block))
        return out

    def _gram(self, design, weight):
        N, rows, x = design.shape[1], np.flatnonzero(weight), design.X
        if design.sparse:
            return self.coordinates.gram(rows, weight[rows])
        if len(rows) < len(weight):
            x, weight = x[rows], weight[rows]
        root = np.sqrt(weight)
        x = np.multiply(x, root[:, None], out=None if x is design.X else x)
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


def thin(weight, leverage, size):
    """Of `weight` (K, n_rows) leave about `size` in a row, which stand for all; in place.

    Drawn in proportion to weight times leverage. That is one at most: more, in blocks that
    have not seen a row, says no more than that it has to be taken.
    """
    drawn, chance = lots(np.minimum(weight * leverage, 1.0), size)
    np.divide(weight, chance, out=weight, where=drawn)
    weight[~drawn] = 0.0
