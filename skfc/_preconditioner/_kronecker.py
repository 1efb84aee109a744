"""Kronecker-factored preconditioners: one matrix of the features, one of the classes."""

from functools import partial

from skfc import _draws
from skfc._array import (
    add_to_diagonal,
    cast,
    concatenate,
    diagonal,
    eigh,
    host,
    inverse_factor,
    namespace,
    outer,
    permute,
    take,
    to_numpy,
)  # fmt: skip
from skfc._pool import product
from skfc._preconditioner._base import (
    LARGEST,
    Diagonal,
    Preconditioner,
    centred_over_classes,
    factorise,
    mean_class_curvature,
    passes_of,
)  # fmt: skip
from skfc._row_samples import everything, leverage_sample
from skfc._tuned import TUNED

# Operations of an eigenproblem, in cubes of its size; a small one takes as long as twice that.
EIGEN = 10


class Factored(Preconditioner):
    """M = A ⊗ S + lambda D in a basis of the features where A and D are diagonal.

    S, the mean of diag(p) - p pᵀ, is (n_classes, n_classes) and follows the iterates. Of many
    classes and few rows its diagonal stands for it, where its eigenproblem costs more than a pass:
    next to the diagonal, products of probabilities are small. A subclass gives the diagonals `a`
    and `penalty`, and the basis.
    """

    confirming_steps = 12

    def __init__(self, objective):
        super().__init__(objective)
        self.n_classes = objective.rows.n_classes
        self.price, self.U = passes_of(objective, 2 * EIGEN * self.n_classes**3), None
        self.diagonal_alone = self.price > 1
        if self.diagonal_alone:
            self.price = TUNED.block_price

    def refresh(self, objective, evaluation):
        xp, alone = objective.rows.xp, self.diagonal_alone
        s = xp.asarray(mean_class_curvature(objective, evaluation, diagonal=alone))
        if not alone:
            # One vector added to all classes changes nothing: any curvature there will do.
            T = s.shape[1]
            trace = xp.sum(s * xp.eye(T)[None, ...], axis=(1, 2))
            s, self.U = eigh(s + (trace / T**2)[:, None, None])
        self.s = xp.where(s < TUNED.no_curvature * xp.max(s, axis=1, keepdims=True), 0.0, s)
        self.follow(objective, evaluation)

    def follow(self, objective, evaluation):
        xp = objective.rows.xp
        ridge = self.penalty[:, None, None] * xp.asarray(objective.penalty.l2)[:, None]
        M = self.a[:, None, None] * self.s + xp.where(ridge < LARGEST, ridge, LARGEST)
        # Intercepts of decided classes have next to no curvature: their steps need a bound.
        least = TUNED.no_curvature * (xp.max(M) if M.shape[0] else 0.0)  # rows of zeros: none
        free = (self.penalty == 0)[:, None, None] & bool(xp.any(self.penalty > 0))
        M = xp.where(free & (M > 0) & (least > M), least, M)
        self.inverse = xp.where(M > 0, 1.0 / xp.where(M > 0, M, 1.0), 0.0)

    def problems(self, objective, index, evaluation):
        part = super().problems(objective, index, evaluation)
        part.s = take(self.s, index)
        if self.U is not None:
            part.U = take(self.U, index)
        part.inverse = take(self.inverse, index, axis=1)
        return part

    def solve(self, gradient):
        x = self._solve(centred_over_classes(gradient, self.n_classes))
        return centred_over_classes(x, self.n_classes) if self.diagonal_alone else x

    def _divide(self, x):
        """Divide by M, in the basis of the features."""
        xp = namespace(x)
        x = self._rotate(x, self.U)
        x = x * cast(xp.reshape(self.inverse, x.shape), x.dtype)
        return self._rotate(x, None if self.U is None else permute(self.U, (0, 2, 1)))

    def _rotate(self, x, U):
        if U is None:
            return x
        U = cast(U, x.dtype)
        if U.shape[0] == 1:
            return product(x, U[0, ...])
        xp = namespace(x)
        stack = xp.reshape(x, (x.shape[0], *U.shape[:2]))
        parts = [product(stack[:, b, :], U[b, ...]) for b in range(U.shape[0])]
        return concatenate(parts, axis=1)


def eigen_operations(objective):
    """Operations of the eigenproblem of the Kronecker form, and of its Gram matrix."""
    rows, (n, N) = objective.rows, objective.rows.shape
    if n < N:
        return EIGEN * n**3 + n**2 * N
    if rows.sparse:
        return EIGEN * N**3 + 2 * rows.n_values * N
    size = gram_rows(objective)
    return EIGEN * N**3 + (n if n <= TUNED.nearly_all * size else size) * N**2


def gram_rows(objective):
    """About how many rows the Gram matrix of the Kronecker form takes, of many."""
    return TUNED.hessian_rows + TUNED.rows_per_feature * objective.shape[0]


class Kronecker(Factored):
    """A is the Gram matrix of the features: Martens and Grosse (2015) for one layer.

    One generalised eigenproblem diagonalises A and the penalty together, for every C. Rows that
    are decided on the way lose their curvature. After many steps, which have cost as much as A
    does, and twice as many every time, it is that of rows weighted by the trace of theirs.
    """

    def __init__(self, objective):
        super().__init__(objective)
        self.n_classes = objective.rows.n_classes
        l2 = objective.penalty.l2
        # Without a penalty, directions of next to no curvature hide longer.
        self.least_steps = 2 if objective.penalty.strict.all() else Diagonal.least_steps
        self.strength = float(l2[l2 > 0].min()) if (l2 > 0).any() else 0.0
        self.factors = shared_factors(objective)
        self._start = objective.rows.work.steps
        self._wait = max(passes_of(objective, eigen_operations(objective)), TUNED.patience)
        self._form_features(objective)

    def refresh(self, objective, evaluation):
        steps = objective.rows.work.steps - self._start
        if steps >= self._wait:
            self._wait = 2 * steps
            self._form_features(objective, evaluation.state)
        super().refresh(objective, evaluation)

    def _form_features(self, objective, state=None):
        """A and its eigenvectors, of rows weighted by their curvature at a `state`."""
        rows, importance = objective.rows, leverage_sample(objective.rows, gram_rows(objective))
        if state is None:
            weights = rows.sum(_draws.times_row_weight, state=importance, count=False).state
        else:
            state = rows.joined(importance, state)
            sums = rows.sum(_draws.times_row_curvature, state=state, count=False)
            product, weight = (float(to_numpy(value)[0]) for value in sums.values)
            # Directions in which all rows are decided keep a part: none is left out.
            blend = partial(_draws.blend, scale=weight / product, share=TUNED.accuracy)
            weights = rows.sum(blend, state=sums.state, count=False).state
        A = cast(rows.gram(weights)[0, ...], rows.xp.float64)
        # Rows of one weight are centred, so that features and intercept are apart.
        if state is None and self.strength > 0 and self._is_even(A):
            self._decompose_in_units_of_penalty(A)
        else:
            self._decompose(A)
        xp = rows.xp
        # Curvature that is rounding is none, where a penalty stands beside it.
        rounding = self.a <= TUNED.no_curvature * xp.max(self.a)
        rounding = rounding & ((self.penalty > 0) | (self.strength == 0.0)) | (self.a <= 0)
        self.a = xp.where(rounding, xp.zeros_like(self.a), self.a)
        self._cast = {}

    def _is_even(self, A):
        """Whether the penalty is far above rounding of A, in units where the penalty is one."""
        N = self.factors.shape[0]
        small = diagonal(A)[:N] * TUNED.rounding_of_gram < self.strength * self.factors
        return bool(namespace(A).all(small))

    def _decompose(self, A):
        # B = A / T + lambda D, scaled to a unit diagonal, is tame whatever the units.
        xp, P = namespace(A), A.shape[0]
        ridge = xp.zeros(P, dtype=A.dtype)
        ridge[: self.factors.shape[0]] = xp.where(
            self.strength * self.factors < LARGEST, self.strength * self.factors, LARGEST
        )
        B = diagonal(A) / self.n_classes + ridge
        self.unit = xp.sqrt(xp.where(B > 0, B, 1.0))
        A = A / outer(self.unit, self.unit)
        if self.strength == 0.0:
            self.a, self.Q = eigh(A)
            self.penalty = xp.zeros_like(self.a)
            return
        B = add_to_diagonal(A / self.n_classes, ridge / self.unit**2)
        inverse = inverse_factor(factorise(B[None, ...])[0])
        self.a, Q = eigh(xp.matmul(xp.matmul(inverse, A), inverse.T))
        self.Q = xp.matmul(inverse.T, Q)
        # Qᵀ B Q = 1, so that what A does not explain of it is the penalty.
        rest = 1.0 - self.a / self.n_classes
        self.penalty = xp.where(rest > 0, rest, 0.0) / self.strength

    def _decompose_in_units_of_penalty(self, A):
        # Features are centred: what couples them to the intercept is noise of the sample.
        xp, P, N = namespace(A), A.shape[0], self.factors.shape[0]
        self.unit, self.penalty = xp.ones(P, dtype=A.dtype), xp.zeros(P, dtype=A.dtype)
        self.unit[:N], self.penalty[:N] = xp.sqrt(self.factors), 1.0
        self.a, self.Q = diagonal(A), xp.eye(P, dtype=A.dtype)
        units = self.unit[:N]
        self.a[:N], self.Q[:N, :N] = eigh(A[:N, :N] / outer(units, units))

    def effective_dimension(self, l2):
        """The effective degrees of freedom of the features, tr A (A + T lambda D)⁻¹."""
        xp = namespace(self.a)
        free = self.a / self.n_classes
        whole = free + l2 * self.penalty
        return float(xp.sum(free / xp.where(whole > TUNED.no_curvature, whole, 1.0)))

    def root(self):
        """A root (P, P) of the inverse of A / T + lambda D."""
        xp = namespace(self.a)
        B = self.a / self.n_classes + self.strength * self.penalty
        inverse = xp.where(B > 0, 1.0 / xp.sqrt(xp.where(B > 0, B, 1.0)), 0.0)
        return self.Q * inverse[None, :] / self.unit[:, None]

    def _solve(self, x):
        Q, unit = self._basis(x.dtype)
        return product(Q, self._divide(product(Q.T, x / unit))) / unit

    def _basis(self, dtype):
        """Q, and the unit as a column, in `dtype`."""
        if dtype not in self._cast:
            self._cast[dtype] = cast(self.Q, dtype), cast(self.unit, dtype)[:, None]
        return self._cast[dtype]


class LowRank(Factored):
    """The Kronecker form for fewer rows than features, by the Gram matrix of the rows.

    In features of units in which the penalty is the identity, directions that the rows do
    not span have the penalty for all their curvature.
    """

    def __init__(self, objective):
        super().__init__(objective)
        rows = objective.rows
        xp, self.n_classes = rows.xp, rows.n_classes
        x = rows.select(everything(rows), xp.float64).rows
        weight = xp.sum(x.weight, axis=0) / rows.n_problems
        X = x.standardised() * xp.sqrt(weight / rows.n_total)[:, None]
        l2, squares = objective.penalty.l2, xp.sum(X * X, axis=0)
        squares = xp.where(squares > 0, squares, xp.ones_like(squares))
        factors = squares  # without a penalty: features of variance one
        if (l2 > 0).all():  # else none is next to nothing beside the curvature of its feature
            floor = squares * (TUNED.single_digits / self.n_classes / float(l2.min()))
            factors = xp.maximum(shared_factors(objective), floor)
        self.outside = float(xp.min(factors))
        self.unit = xp.sqrt(self.outside / factors)
        X = X * self.unit
        a, U = eigh(xp.matmul(X, X.T))
        values = to_numpy(a)
        keep = host.flatnonzero(values > TUNED.no_curvature * values[-1])
        self.a = take(a, keep)
        self.Q = xp.matmul(X.T, take(U, keep, axis=1) / xp.sqrt(self.a))
        self.penalty = xp.zeros_like(self.a) + self.outside
        self.intercept = rows.frame.fit_intercept
        if self.intercept:
            self.a = concatenate([self.a, xp.ones(1, dtype=self.a.dtype)])
            self.penalty = concatenate([self.penalty, xp.zeros(1, dtype=self.a.dtype)])

    def follow(self, objective, evaluation):
        super().follow(objective, evaluation)
        ridge = objective.spread(objective.penalty.l2 * self.outside)
        self.of_outside = host.divide(1.0, ridge, out=host.zeros_like(ridge), where=ridge > 0)

    def problems(self, objective, index, evaluation):
        part = super().problems(objective, index, evaluation)
        part.of_outside = self.of_outside.reshape(-1, self.n_classes)[index].ravel()
        return part

    def _solve(self, x):
        xp, N = namespace(x), self.unit.shape[0]
        unit = cast(self.unit, x.dtype)[:, None]
        Q = cast(self.Q, x.dtype)
        W = x[:N, :] * unit
        inside = product(Q.T, W)
        outside = W - product(Q, inside)
        if self.intercept:
            inside = concatenate([inside, x[N:, :]])
        inside = self._divide(inside)
        scale = xp.asarray(self.of_outside, dtype=x.dtype)
        W = (outside * scale + product(Q, inside[: Q.shape[1], :])) * unit
        return concatenate([W, inside[Q.shape[1] :, :]]) if self.intercept else W


def shared_factors(objective):
    """The penalty of every feature for lambda = 1, (n_features,): its mean over problems."""
    factors = objective.penalty.factors
    return namespace(factors).sum(factors, axis=1) / factors.shape[1]
