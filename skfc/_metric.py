"""Metrics: approximate Hessians in whose coordinates the gradient is followed.

A metric stands for an approximation M of the Hessian; `refresh` looks at an iterate, and
`solve` applies the inverse of M. All of them work on standardised features, see
:mod:`skfc._coordinates`: none depends on the units of the features, nor on where their
zero is.
"""

import numpy as np
from scipy.linalg import lapack

from skfc._coordinates import LARGEST, Coordinates
from skfc._design import row_blocks
from skfc._sampling import CurvatureSampler, leverage_rows, working_dtype
from skfc._threads import over_rows

# The ladder: the largest exact Hessian, and the largest eigenproblem.
HESSIAN_SIZE = 500
KRONECKER_SIZE = 3000
# When it is taken again: soon where it costs less than a pass.
CHEAP_SIZE = 128
SOON, LATE = frozenset({1, 2, 4, 8, 16, 32, 64, 128}), frozenset({3, 9, 27, 81})
# Rows that a Hessian, and a Gram matrix, is taken over: so many, and more per feature.
BASE_ROWS = 1000
HESSIAN_ROWS = 55
GRAM_ROWS = 8
PAIR_BYTES = 2**26
# Relative to a unit diagonal: directions with less curvature count as having none.
TINY = 1e-13
# Rows that the mean of diag(p) - p pᵀ is taken over, at most about.
PILOT_ROWS = 4000
# What is added to a unit diagonal to keep a singular Hessian positive definite.
JITTER = {np.float32: 1e-6, np.float64: 1e-10}
# Sizes of an inverse that float32 holds with room to spare.
SINGLE_RANGE = 1e-30, 1e30


class Metric:
    """What the metrics share: when to look at the iterate again."""

    refresh_at = frozenset({2, 5, 10, 20, 40, 80, 160})
    # Conjugate-gradient steps in the metric before their end is believed.
    doubt = 2
    # Whether a step in the metric is nearly a Newton step, so that a refresh makes the
    # memory of older curvature worthless.
    is_newton = False

    def __init__(self, objective, coordinates):
        self.objective, self.coordinates = objective, coordinates
        self.sampler = CurvatureSampler(objective, coordinates)

    def is_due(self, n_iter):
        return n_iter in self.refresh_at


class Diagonal(Metric):
    """The diagonal of the Hessian in centred features: for sparse and very wide data."""

    doubt = 4

    def refresh(self, point):
        o, c = self.objective, self.coordinates
        M = self.sampler.diagonal(o, point)
        floor = TINY * M.max(axis=0)
        ridge, l2 = c.ridge(1.0), o.spread(o.l2)
        unit = np.append(c.scale, 1.0) if c.intercept else c.scale
        idle = np.append(c.constant, False) if c.intercept else c.constant

        def invert(rows):
            m = M[rows]
            m[m <= floor] = 0.0  # without curvature but for rounding
            m += np.minimum(ridge[rows, None] * l2, LARGEST)
            m[idle[rows]] = 0.0
            np.divide(1.0, m, out=m, where=m > 0)
            m /= unit[rows, None]
            m /= unit[rows, None]

        over_rows(invert, M)
        smallest, largest = SINGLE_RANGE
        inside = (M == 0) | ((smallest < M) & (largest > M))
        self.inverse = M.astype(np.float32) if inside.all() else M

    def take(self, objective, keep):
        self.inverse = self.inverse[:, self.objective.columns(keep)]
        self.objective = objective

    def solve(self, gradient):
        return self.coordinates.filter(gradient, self.inverse)


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
        # B = A / T + lambda D, scaled to a unit diagonal, is tame whatever the units.
        ridge = coordinates.ridge(l2)
        diagonal = np.diag(A) / objective.n_classes + ridge
        self.unit = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
        A /= np.outer(self.unit, self.unit)
        if l2 == 0.0:
            a, self.Q = np.linalg.eigh(A)
            self.penalty = np.zeros_like(a)
        else:
            B = A / objective.n_classes
            B[np.diag_indices_from(B)] += ridge / self.unit**2 + TINY
            inverse = np.linalg.inv(np.linalg.cholesky(B))
            a, Q = np.linalg.eigh(inverse @ A @ inverse.T)
            self.Q = inverse.T @ Q
            # Qᵀ B Q = 1, so that what A does not explain of it is the penalty.
            self.penalty = np.maximum(1.0 - a / objective.n_classes, 0.0) / l2
        self.a = np.where(a > TINY * a.max(), a, 0.0)

    def _solve(self, x):
        x /= self.unit[:, None]
        x = self.Q @ self._filter(self.Q.T @ x)
        x /= self.unit[:, None]
        return x


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


class Hessian(Metric):
    """The exact Hessian on a sample of rows, by its Cholesky factor."""

    is_newton = True
    doubt = 1

    def __init__(self, objective, coordinates):
        super().__init__(objective, coordinates)
        P = objective.shape[0]
        self.refresh_at = SOON if P * objective.n_classes <= CHEAP_SIZE else LATE
        size = BASE_ROWS + HESSIAN_ROWS * objective.shape[0]
        self.sample, importance = leverage_rows(coordinates, size)
        self.importance = importance / objective.design.shape[0]
        x = coordinates.with_ones(self.sample).T
        self.dtype = working_dtype(objective, x.size * len(x) // 2)
        self.rows = x = x.astype(self.dtype, copy=False)
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
        logits = point.logits[:, self.sample].astype(np.float64)
        proba = o._kernel.probabilities(o._stack(logits))
        weight = o.weight[:, self.sample] * self.importance
        self.factor = [
            self._factorise(p, w, l2) for p, w, l2 in zip(proba, weight, o.l2, strict=True)
        ]

    def _factorise(self, proba, weight, l2):
        """Cholesky factor of the Hessian, scaled to a unit diagonal, and its scale."""
        T, P = len(proba), len(self.pair_of)
        first, second = np.triu_indices(T - 1)
        curvature = proba[first] * -proba[second]
        # p (1 - p) without cancellation, for a p next to one.
        others = [np.delete(proba, k, axis=0).sum(axis=0) for k in range(T - 1)]
        curvature[first == second] = proba[:-1] * others
        curvature *= weight
        curvature = curvature.astype(self.dtype, copy=False)
        sums = 0.0
        for rows in self.pieces:
            pairs = self._pairs(rows) if self.pairs is None else self.pairs
            sums = sums + curvature[:, rows] @ pairs.T
        sums = sums[:, self.pair_of]
        H = np.empty((T, P, T, P))
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


def factorise(H, jitter):
    """Cholesky factor of H with `jitter`, or as much more as it takes, on its diagonal."""
    diagonal = np.einsum("ii->i", H)
    while True:
        diagonal += jitter
        try:
            return np.linalg.cholesky(H)
        except np.linalg.LinAlgError:
            if not jitter < 1:
                raise
            jitter *= 100


class Identity(Metric):
    """No metric: textbook gradients."""

    refresh_at = frozenset()
    doubt = 10

    def refresh(self, point):
        pass

    def take(self, objective, keep):
        pass

    def solve(self, gradient):
        return gradient.copy()


METRICS = {
    "hessian": Hessian,
    "kronecker": Kronecker,
    "diagonal": Diagonal,
    None: Identity,
}


def make_metric(objective, name="auto"):
    """The metric called `name`; for "auto" the first of the ladder that is affordable."""
    if name == "auto":
        name = choose(objective)
    make = METRICS[name]
    if make is Kronecker and objective.design.shape[0] < objective.design.shape[1]:
        make = LowRank
    return make(objective, Coordinates(objective))


def choose(objective):
    """The ladder: what is affordable beside a pass over the data."""
    n, N = objective.design.shape
    if objective.shape[0] * objective.n_classes <= HESSIAN_SIZE:
        return "hessian"
    if min(n, N) <= KRONECKER_SIZE and not (objective.design.sparse and N > KRONECKER_SIZE):
        return "kronecker"
    return "diagonal"
