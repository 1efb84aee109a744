"""Kronecker-factored metrics: one matrix of the features, one of the classes."""

import numpy as np

from skfc._coordinates import LARGEST
from skfc._metric._base import TINY, Diagonal, Metric, factorise
from skfc._sampling import leverage_rows

# Rows that a Gram matrix is taken over: so many, and more per feature.
BASE_ROWS, GRAM_ROWS = 1000, 8
# What rounding of a Gram matrix may be of the penalty.
EVEN = 1e-10
# Rows that the mean of diag(p) - p pᵀ is taken over, at most about.
PILOT_ROWS = 4000


class Factored(Metric):
    """M = A ⊗ S + lambda D in a basis of the features where A and D are diagonal.

    S, the mean of diag(p) - p pᵀ, is (n_classes, n_classes) and follows the iterates.
    A subclass gives the diagonals `a` and `penalty`, and the basis.
    """

    def refresh(self, point):
        S = self.objective.class_curvature(point, PILOT_ROWS)
        # One vector added to all classes changes nothing: any curvature there will do.
        S += (np.trace(S, axis1=1, axis2=2) / S.shape[1] ** 2)[:, None, None]
        s, self.U = np.linalg.eigh(S)
        s[s < TINY * s.max(axis=1, keepdims=True)] = 0.0
        l2 = self.objective.l2[:, None]
        M = self.a[:, None, None] * s + np.minimum(self.penalty[:, None, None] * l2, LARGEST)
        self.inverse = np.divide(1.0, M, out=np.zeros_like(M), where=M > 0)

    def take(self, objective, keep):
        self.objective = objective
        self.U, self.inverse = self.U[keep], self.inverse[:, keep]

    def solve(self, gradient):
        x = self.coordinates.pull(gradient)
        return self.coordinates.push(self._solve(x))

    def _filter(self, x):
        """Divide by M, in the basis of the features."""
        x = self._rotate(x, self.U)
        x *= self.inverse.reshape(x.shape)
        return self._rotate(x, self.U.transpose(0, 2, 1))

    def _rotate(self, x, U):
        U = U.astype(x.dtype, copy=False)
        if len(U) == 1:
            return x @ U[0]
        x = x.reshape(len(x), *U.shape[:2]).transpose(1, 0, 2)
        return np.matmul(x, U).transpose(1, 0, 2).reshape(x.shape[1], -1)


class Kronecker(Factored):
    """A is the Gram matrix of the features: Martens and Grosse (2015) for one layer.

    One generalised eigenproblem diagonalises A and the penalty together, for every C.
    """

    def __init__(self, objective, coordinates):
        super().__init__(objective, coordinates)
        P = objective.shape[0]
        rows, importance = leverage_rows(coordinates, BASE_ROWS + GRAM_ROWS * P)
        A = coordinates.gram(rows, importance * coordinates.row_weight[rows])
        positive = objective.l2[objective.l2 > 0]
        l2 = positive.min() if len(positive) else 0.0
        # Without a penalty, directions of next to no curvature hide longer.
        self.doubt = Metric.doubt if (objective.l2 > 0).all() else Diagonal.doubt
        self.l2, self._cast = l2, {}
        if l2 > 0 and self._is_even(A):
            self._decompose_in_units_of_penalty(A)
        else:
            self._decompose(A)
        self.a = np.where(self.a > TINY * self.a.max(), self.a, 0.0)

    def _is_even(self, A):
        """Whether the penalty is far above what rounding of A is, in units where it is one."""
        penalty = self.coordinates.penalty
        N = len(self.coordinates.mean)
        return (np.diag(A)[:N] * EVEN < self.l2 * penalty[:N]).all()

    def _decompose(self, A):
        # B = A / T + lambda D, scaled to a unit diagonal, is tame whatever the units.
        T = self.objective.n_classes
        ridge = self.coordinates.ridge(self.l2)
        diagonal = np.diag(A) / T + ridge
        self.unit = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
        A /= np.outer(self.unit, self.unit)
        if self.l2 == 0.0:
            self.a, self.Q = np.linalg.eigh(A)
            self.penalty = np.zeros_like(self.a)
        else:
            B = A / T
            B[np.diag_indices_from(B)] += ridge / self.unit**2
            inverse = np.linalg.inv(factorise(B, TINY))
            self.a, Q = np.linalg.eigh(inverse @ A @ inverse.T)
            self.Q = inverse.T @ Q
            # Qᵀ B Q = 1, so that what A does not explain of it is the penalty.
            self.penalty = np.maximum(1.0 - self.a / T, 0.0) / self.l2

    def _decompose_in_units_of_penalty(self, A):
        # Features are centred: what couples them to the intercept is noise of the sample.
        N = len(self.coordinates.mean)
        self.unit = np.ones(len(A))
        self.unit[:N] = np.sqrt(self.coordinates.penalty[:N])
        self.penalty = np.zeros(len(A))
        self.penalty[:N] = 1.0
        self.a, self.Q = np.diag(A).copy(), np.eye(len(A))
        W = A[:N, :N] / np.outer(self.unit[:N], self.unit[:N])
        self.a[:N], self.Q[:N, :N] = np.linalg.eigh(W)

    def effective_dimension(self, l2):
        """How many directions of the features the penalty `l2` leaves free, at most P."""
        loose = self.a / self.objective.n_classes
        return float(np.sum(loose / np.maximum(loose + l2 * self.penalty, TINY)))

    def root(self):
        """A root (P, P) of the inverse of A / T + lambda D."""
        B = self.a / self.objective.n_classes + self.l2 * self.penalty
        return self.Q / np.sqrt(np.where(B > 0, B, np.inf)) / self.unit[:, None]

    def _solve(self, x):
        Q, unit = self._basis(x.dtype)
        x /= unit
        x = Q @ self._filter(Q.T @ x)
        x /= unit
        return x

    def _basis(self, dtype):
        """Q, and the unit as a column, in `dtype`."""
        if dtype not in self._cast:
            self._cast[dtype] = self.Q.astype(dtype, copy=False), self.unit.astype(dtype)[:, None]
        return self._cast[dtype]


class LowRank(Factored):
    """The Kronecker form for fewer rows than features, by the Gram matrix of the rows.

    In centred features of their own units the penalty is the identity: what the rows do
    not span has it for all its curvature.
    """

    def __init__(self, objective, coordinates):
        super().__init__(objective, coordinates)
        rows = np.flatnonzero(coordinates.row_weight)
        x = coordinates.standardise(rows, np.float64)
        # Features in units of the largest: squares then stay in range.
        self.unit = coordinates.scale / coordinates.scale.max()
        x *= self.unit
        x *= np.sqrt(coordinates.row_weight[rows])[:, None]
        a, U = np.linalg.eigh(x @ x.T)
        keep = a > TINY * a[-1]
        self.a = a[keep]
        self.Q = x.T @ (U[:, keep] / np.sqrt(self.a))
        self.outside = coordinates.scale.max() ** -2.0
        self.penalty = np.full_like(self.a, self.outside)
        self.intercept = coordinates.intercept
        if self.intercept:
            self.a, self.penalty = np.append(self.a, 1.0), np.append(self.penalty, 0.0)

    def _solve(self, x):
        N = len(self.unit)
        W = x[:N]
        W *= self.unit[:, None]
        inside = self.Q.T @ W
        outside = W - self.Q @ inside
        if self.intercept:
            inside = np.vstack([inside, x[N:]])
        inside = self._filter(inside)
        l2 = self.objective.spread(self.objective.l2) * self.outside
        outside *= np.divide(1.0, l2, out=np.zeros_like(l2), where=l2 > 0)
        x[:N] = outside + self.Q @ inside[: self.Q.shape[1]]
        x[:N] *= self.unit[:, None]
        x[N:] = inside[self.Q.shape[1] :]
        return x
