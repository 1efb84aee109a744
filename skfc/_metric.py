"""Metrics: approximate Hessians in whose coordinates the gradient is followed.

A metric stands for an approximation M of the Hessian; `refresh` looks at an iterate, and
`solve` applies the inverse of M. All of them work on standardised features, see
:mod:`skfc._coordinates`: none depends on the units of the features, nor on where their
zero is.
"""

import numpy as np
from scipy.linalg import lapack

from skfc._coordinates import Coordinates
from skfc._sampling import leverage_rows

# Relative to a unit diagonal: directions with less curvature count as having none.
TINY = 1e-13
# What is added to a unit diagonal to keep a singular Hessian positive definite.
JITTER = 1e-10


def with_ones(coordinates, rows):
    """Standardised rows (n_rows, P) in float64, with the intercept's column of ones."""
    x = coordinates.standardise(rows, np.float64)
    return np.column_stack([x, np.ones(len(x))]) if coordinates.intercept else x


class Metric:
    """What the metrics share: when to look at the iterate again."""

    refresh_at = frozenset({2, 5, 10, 20, 40, 80, 160})
    replaces_pairs = False

    def is_due(self, n_iter):
        return n_iter in self.refresh_at


class Kronecker(Metric):
    """M = A ⊗ S + lambda I, with A the Gram matrix and S the mean of diag(p) - p pᵀ.

    One generalised eigenproblem for A and the penalty, then S alone, (T, T), follows the
    iterates: Martens and Grosse (2015) for one softmax layer.
    """

    def __init__(self, objective, coordinates, sample_size):
        self.objective, self.coordinates = objective, coordinates
        rows, importance = leverage_rows(coordinates, sample_size)
        x = with_ones(coordinates, rows)
        x *= np.sqrt(importance * coordinates.row_weight[rows])[:, None]
        A = x.T @ x
        # Both matrices in one basis: B = A s + lambda D is well scaled whatever the units.
        l2 = objective.l2.min()
        shift = l2 * coordinates.penalty
        diagonal = np.sqrt(np.diag(A) / objective.n_classes + shift)
        self.unit = np.where(diagonal > 0, diagonal, 1.0)
        A /= np.outer(self.unit, self.unit)
        penalty = coordinates.penalty / self.unit**2
        if l2 == 0.0:
            a, Q = np.linalg.eigh(A)
            self.penalty = np.zeros_like(a)
        else:
            B = A / objective.n_classes
            B[np.diag_indices_from(B)] += l2 * penalty + TINY
            inverse = np.linalg.inv(np.linalg.cholesky(B))
            a, Q = np.linalg.eigh(inverse @ A @ inverse.T)
            Q = inverse.T @ Q
            # Qᵀ B Q = 1, so that what A does not explain of it is the penalty.
            self.penalty = np.maximum(1.0 - a / objective.n_classes, 0.0) / l2
        self.a = np.where(a > TINY * a.max(), a, 0.0)
        self.Q = Q

    def refresh(self, point):
        S = self.objective.class_curvature(point)
        s, self.U = np.linalg.eigh(S)
        s[s < TINY * s.max(axis=1, keepdims=True)] = 0.0
        M = self.a[:, None, None] * s + self.penalty[:, None, None] * self.objective.l2[:, None]
        self.inverse = np.divide(1.0, M, out=np.zeros_like(M), where=M > 0)

    def take(self, objective, keep):
        self.objective = objective
        self.U, self.inverse = self.U[keep], self.inverse[:, keep]

    def _rotate(self, x, U):
        o = self.objective
        if o.n_problems == 1:
            return x @ U[0]
        shape = (-1, o.n_problems, o.n_classes)
        return np.einsum("pbk,bkl->pbl", x.reshape(shape), U, optimize=True).reshape(len(x), -1)

    def solve(self, gradient):
        x = self.coordinates.pull(gradient)
        x /= self.unit[:, None]
        x = self._rotate(self.Q.T @ x, self.U)
        x *= self.inverse.reshape(x.shape)
        x = self.Q @ self._rotate(x, self.U.transpose(0, 2, 1))
        x /= self.unit[:, None]
        return self.coordinates.push(x)


class Hessian(Metric):
    """The exact Hessian on a sample of rows, by its Cholesky factor."""

    refresh_at = frozenset({2, 4, 8, 16, 32, 64, 128})
    replaces_pairs = True

    def __init__(self, objective, coordinates, sample_size):
        self.objective, self.coordinates = objective, coordinates
        self.sample, importance = leverage_rows(coordinates, sample_size)
        self.importance = importance / objective.design.shape[0]
        x = with_ones(coordinates, self.sample).T
        P = len(x)
        # Products of all pairs of features, once: a Hessian is then one matrix product.
        self.pairs = np.empty((P * (P + 1) // 2, x.shape[1]))
        self.pair_of = np.empty((P, P), dtype=np.intp)
        end = 0
        for i in range(P):
            start, end = end, end + P - i
            np.multiply(x[i], x[i:], out=self.pairs[start:end])
            self.pair_of[i, i:] = self.pair_of[i:, i] = np.arange(start, end)

    def refresh(self, point):
        o = self.objective
        logits = point.logits[:, self.sample].astype(np.float64)
        proba = o._kernel.probabilities(o._stack(logits))
        weight = o.weight[:, self.sample] * self.importance
        self.factor = [
            self._factorise(p, w, l2) for p, w, l2 in zip(proba, weight, o.l2, strict=True)
        ]

    def _factorise(self, proba, weight, l2):
        """Cholesky factor of the Hessian, scaled to a unit diagonal, and its scale."""
        T, P = len(proba), len(self.pair_of)
        first, second = np.triu_indices(T)
        curvature = proba[first] * -proba[second]
        curvature[first == second] += proba
        curvature *= weight
        sums = (curvature @ self.pairs.T)[:, self.pair_of]
        H = np.empty((T, P, T, P))
        H[first, :, second, :] = sums
        H[second, :, first, :] = sums
        H = H.reshape(T * P, T * P)
        diagonal = np.einsum("ii->i", H)
        diagonal += np.tile(l2 * self.coordinates.penalty, T)
        # One vector added to all classes changes nothing: any curvature there will do.
        gauge = diagonal.reshape(T, P).mean(axis=0)
        gauge[gauge == 0] = 1.0
        j = np.arange(P)
        H.reshape(T, P, T, P)[:, j, :, j] += (gauge / T)[:, None, None]
        unit = np.sqrt(diagonal)
        H /= unit
        H /= unit[:, None]
        diagonal += JITTER
        return np.linalg.cholesky(H), unit

    def take(self, objective, keep):
        self.objective = objective
        self.factor = [self.factor[b] for b in keep]

    def solve(self, gradient):
        o = self.objective
        x = self.coordinates.pull(gradient)
        P = len(x)
        out = np.empty_like(x)
        for b, (factor, unit) in enumerate(self.factor):
            columns = slice(b * o.n_classes, (b + 1) * o.n_classes)
            flat = x[:, columns].T.ravel() / unit
            flat, _ = lapack.dpotrs(factor.T, flat, overwrite_b=True)
            out[:, columns] = (flat / unit).reshape(-1, P).T
        return self.coordinates.push(out)


class Diagonal(Metric):
    """M = diag(variance) ⊗ S + lambda I: for sparse and very wide data."""

    def __init__(self, objective, coordinates):
        self.objective, self.coordinates = objective, coordinates
        self.a = np.where(coordinates.constant, 0.0, 1.0)
        if coordinates.intercept:
            self.a = np.append(self.a, 1.0)

    def refresh(self, point):
        S = self.objective.class_curvature(point)
        s, self.U = np.linalg.eigh(S)
        s[s < TINY * s.max(axis=1, keepdims=True)] = 0.0
        c = self.coordinates
        M = self.a[:, None, None] * s + c.penalty[:, None, None] * self.objective.l2[:, None]
        self.inverse = np.divide(1.0, M, out=np.zeros_like(M), where=M > 0)

    take = Kronecker.take
    _rotate = Kronecker._rotate

    def solve(self, gradient):
        x = self._rotate(self.coordinates.pull(gradient), self.U)
        x *= self.inverse.reshape(x.shape)
        return self.coordinates.push(self._rotate(x, self.U.transpose(0, 2, 1)))


class Identity(Metric):
    """No metric: textbook gradients."""

    refresh_at = frozenset()

    def __init__(self, objective, coordinates):
        self.objective, self.coordinates = objective, coordinates

    def refresh(self, point):
        pass

    def take(self, objective, keep):
        pass

    def solve(self, gradient):
        return gradient.copy()


HESSIAN_SIZE = 3000
KRONECKER_FEATURES = 3000
SAMPLE_ROWS = 5000


def make_metric(objective, name="auto"):
    """The metric called `name`; for "auto" the first of the ladder that is affordable."""
    if name == "auto":
        name = choose(objective)
    coordinates = Coordinates(objective)
    if name is None:
        return Identity(objective, coordinates)
    if name == "hessian":
        return Hessian(objective, coordinates, SAMPLE_ROWS)
    if name == "kronecker":
        return Kronecker(objective, coordinates, max(SAMPLE_ROWS, 8 * objective.shape[0]))
    return Diagonal(objective, coordinates)


def choose(objective):
    """The ladder: what is affordable beside a pass over the data."""
    P = objective.shape[0]
    if P * objective.n_classes <= HESSIAN_SIZE and objective.n_problems == 1:
        return "hessian"
    if P <= KRONECKER_FEATURES and not objective.design.sparse:
        return "kronecker"
    return "diagonal"
