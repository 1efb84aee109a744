r"""Metrics: the coordinates in which the gradient is followed.

A metric stands for an approximation M of the Hessian, and `solve` applies its inverse.
All of them work on standardised features, which an affine change of variables gives
without touching X: with x̃ = (x - mean) / scale,

    gradient in W̃   (G - mean g_bᵀ) / scale
    step in W, b     W = W̃ / scale,  b = b̃ - mean · W

so no metric depends on the units of the features, nor on where their zero is.
"""

import numpy as np
from scipy import linalg

# Relative to a unit diagonal: directions with less curvature count as having none.
TINY = 1e-13


class Coordinates:
    """Centre and scale of the features, and the penalty there.

    `penalty` (P,) is the diagonal of lambda's matrix in these coordinates, for lambda = 1.
    """

    def __init__(self, objective):
        design = objective.design
        weight = objective.weight.mean(axis=0, dtype=np.float64)
        weight /= weight.sum()
        self.row_weight = weight
        self.intercept = objective.fit_intercept
        mean = np.asarray(design.mean(cast_like(weight, design)), dtype=np.float64)
        self.variance = design.variance(weight, mean)
        if self.intercept:
            self.mean = mean
        else:
            self.mean = np.zeros_like(mean)
            self.variance = self.variance + mean**2
        # Constant columns have rounding noise for variance: only a penalty holds them.
        noise = (np.finfo(design.dtype).eps * 8 * np.abs(self.mean)) ** 2
        scale = np.sqrt(np.where(self.variance > noise, self.variance, 0.0))
        self.scale = np.where(scale > 0, scale, 1.0)
        self.constant = scale == 0
        penalty = self.scale**-2.0
        self.penalty = np.append(penalty, 0.0) if self.intercept else penalty

    def pull(self, gradient):
        """A gradient (P, K) in these coordinates."""
        if not self.intercept:
            return gradient / self.scale[:, None]
        out = gradient.copy()
        out[:-1] -= np.outer(self.mean, gradient[-1])
        out[:-1] /= self.scale[:, None]
        return out

    def push(self, step):
        """A step (P, K) from these coordinates back to W and b; overwrites it."""
        if not self.intercept:
            step /= self.scale[:, None]
            return step
        step[:-1] /= self.scale[:, None]
        step[-1] -= self.mean @ step[:-1]
        return step

    def rows(self, design, rows):
        """Standardised rows (n_rows, P), in float64."""
        x = (design.take(rows) - self.mean) / self.scale
        return np.column_stack([x, np.ones(len(x))]) if self.intercept else x


def cast_like(weight, design):
    return weight.astype(design.dtype)


def sample_rows(weight, size, row_norms=None):
    """Indices and importance weights of about `size` rows of positive weight.

    The same rows for the same data: a fit is deterministic.
    """
    positive = np.flatnonzero(weight)
    if len(positive) <= size:
        return positive, weight[positive] / weight.sum()
    chance = weight[positive] / weight.sum()
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(positive), size, replace=True, p=chance)
    rows, counts = np.unique(positive[chosen], return_counts=True)
    return rows, counts / size


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
        rows, weight = sample_rows(coordinates.row_weight, sample_size)
        x = coordinates.rows(objective.design, rows)
        x *= np.sqrt(weight)[:, None]
        A = x.T @ x
        # Both matrices in one basis: B = A s + lambda D is well scaled whatever the units.
        l2 = objective.l2.min()
        shift = l2 * coordinates.penalty
        diagonal = np.sqrt(np.diag(A) / objective.n_classes + shift)
        self.unit = np.where(diagonal > 0, diagonal, 1.0)
        A /= np.outer(self.unit, self.unit)
        penalty = coordinates.penalty / self.unit**2
        if l2 == 0.0:
            a, Q = linalg.eigh(A, overwrite_a=True, driver="evd")
            self.penalty = np.zeros_like(a)
        else:
            B = A / objective.n_classes
            B[np.diag_indices_from(B)] += l2 * penalty + TINY
            L = linalg.cholesky(B, lower=True, overwrite_a=True)
            A = linalg.solve_triangular(L, A, lower=True)
            A = linalg.solve_triangular(L, A.T, lower=True)
            a, Q = linalg.eigh((A + A.T) / 2, overwrite_a=True, driver="evd")
            Q = linalg.solve_triangular(L, Q, lower=True, trans=1)
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
        self.sample, self.sample_weight = sample_rows(coordinates.row_weight, sample_size)
        self.rows = coordinates.rows(objective.design, self.sample)

    def refresh(self, point):
        o = self.objective
        logits = point.logits[:, self.sample].astype(np.float64)
        proba = o._kernel.probabilities(o._stack(logits))
        weight = o.weight[:, self.sample].astype(np.float64)
        scale = self.sample_weight / weight.mean(axis=0)
        self.factor = [
            self._factorise(p, w * scale, l2) for p, w, l2 in zip(proba, weight, o.l2, strict=True)
        ]

    def _factorise(self, proba, weight, l2):
        x = self.rows
        T, (m, P) = len(proba), x.shape
        scaled = x * np.sqrt(weight)[:, None]
        khatri_rao = (proba.T[:, :, None] * scaled[:, None, :]).reshape(m, T * P)
        H = -(khatri_rao.T @ khatri_rao)
        blocks = H.reshape(T, P, T, P)
        for k in range(T):
            blocks[k, :, k] += khatri_rao[:, k * P : (k + 1) * P].T @ scaled
        diagonal = np.einsum("ii->i", H)
        diagonal += np.tile(l2 * self.coordinates.penalty, T)
        # One vector added to all classes changes nothing: any curvature there will do.
        gauge = diagonal.reshape(T, P).mean(axis=0)
        gauge[gauge == 0] = 1.0
        j = np.arange(P)
        blocks[:, j, :, j] += (gauge / T)[:, None, None]
        self.unit = unit = np.sqrt(diagonal)
        H /= unit
        H /= unit[:, None]
        diagonal += 1e-10
        return linalg.cho_factor(H, overwrite_a=True, check_finite=False), unit

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
            flat = linalg.cho_solve(factor, flat, overwrite_b=True, check_finite=False)
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
    if name is None:
        return Identity()
    coordinates = Coordinates(objective)
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
