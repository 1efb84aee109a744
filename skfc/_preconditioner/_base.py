"""What the preconditioners share, and the two that need no matrix."""

from copy import copy
from functools import cache

from skfc._array import (
    add_to_diagonal,
    at_most,
    cast,
    cholesky,
    diagonal,
    diagonals,
    host,
    itemsize,
    namespace,
    random_normal,
    take,
    with_diagonals,
)  # fmt: skip
from skfc._hessian import class_curvature
from skfc._pool import over_rows, thread_map
from skfc._row_samples import CurvatureSampler
from skfc._rows import columns_of
from skfc._tuned import TUNED

# Sizes that float32 holds with room to spare.
SINGLE_RANGE = 1e-30, 1e30
LARGEST = 1e300


class Preconditioner:
    """An approximation M of the Hessian, in standardised features.

    `refresh` looks at an evaluation, and `solve` applies the inverse of M; it changes
    nothing. A refresh is due when the steps since the last one (passes and products with a
    Hessian) have cost as much as it does: `price` of them. A solver that loses its memory with
    a refresh asks for `growth` times as many every time.
    """

    price = 0.0
    # The least conjugate-gradient steps with it; a poor one hides directions from the first.
    least_steps = 2
    # The least that an estimate of the gap takes: of a poor one hides directions for longer.
    confirming_steps = 2
    # Whether single precision was given up, after a breakdown.
    double = False
    # Whether M is the whole Hessian, so that a refresh replaces what L-BFGS remembers.
    is_newton = False
    # Whether M is the Hessian of all rows, so that M⁻¹ gives Newton steps.
    is_exact = False
    # Whether M leaves out curvature even where it was formed.
    is_poor = True
    # Whether M is formed of all rows, though it may be at an iterate before.
    of_all_rows = False
    # Whether the next form of M costs more than this one, and is another.
    is_provisional = False

    def __init__(self, objective):
        self.sampler = CurvatureSampler(objective)
        self.l2, self._seen, self._clock, self._interval = objective.penalty.l2, None, 0, 0.0

    def update(self, objective, evaluation, *, renew=False, growth=1.0):
        """Refresh M if it is due, or `renew` it; follow a change of the penalty at once."""
        work = objective.rows.work
        first = self._seen is None
        due = first or work.steps - self._clock >= self._interval or renew
        if due and evaluation.state is not self._seen:
            self._form(objective, evaluation)
            self._interval = max(self.price, growth * self._interval)
        elif objective.penalty.l2 is self.l2 or (objective.penalty.l2 == self.l2).all():
            return False
        else:
            self.follow(objective, evaluation)
        self.l2 = objective.penalty.l2
        return True

    def put_off(self):
        """Form no costlier M at the next iterate, which is likely to be the last."""

    def expire(self):
        """Let the next refresh be due at once."""
        self._interval = 0.0

    def _form(self, objective, evaluation):
        self.refresh(objective, evaluation)
        self._seen, self._clock = evaluation.state, objective.rows.work.steps

    def in_double(self, objective):
        """Form M in double precision from now on; False where it was already."""
        if self.double:
            return False
        self.double, self._seen = True, None
        self.sampler.in_double(objective.rows)
        return True

    def refresh(self, objective, evaluation):
        """Form M at an evaluation."""

    def follow(self, objective, evaluation):
        """Form M for another penalty; the data part may stay."""
        self._form(objective, evaluation)

    def is_fresh(self, evaluation):
        """Whether M was formed at `evaluation`."""
        return self._seen is evaluation.state

    def problems(self, objective, index, evaluation):
        """The preconditioner of the problems `index`; `objective` and `evaluation` are theirs."""
        part = copy(self)
        part.l2, part.sampler = self.l2[index], self.sampler.problems(index)
        part._seen = evaluation.state if evaluation is not None else None
        return part


def passes_of(objective, operations):
    """What operations of matrices cost, in passes over the data, about."""
    return operations / speed_of_matrices(objective.rows) / max(work_of_pass(objective), 1)


def steps_of(objective, operations):
    """The same in products with the Hessian, which has no exponentials."""
    rows = objective.rows
    return operations / speed_of_matrices(rows) / max(4 * rows.n_values * rows.n_classes, 1)


def speed_of_matrices(rows):
    """How many times as fast operations of matrices are as those of a pass.

    Products of dense rows with the weights of many classes are those of matrices.
    """
    speed = TUNED.speed_of_matrices
    return speed if rows.sparse else max(min(speed, TUNED.few / rows.n_classes), 1.0)


def work_of_pass(objective):
    """Operations of a pass: four for every value and class, and some for every logit."""
    rows = objective.rows
    return rows.n_classes * (4 * rows.n_values + TUNED.operations_per_logit * rows.shape[0])


class Identity(Preconditioner):
    """None: the textbook gradient, that of the coefficients of X in its own units."""

    least_steps = confirming_steps = 12

    def __init__(self, objective):
        super().__init__(objective)
        self.frame = objective.rows.frame

    def refresh(self, objective, evaluation):
        """Nothing to form."""

    def solve(self, gradient):
        return self.frame.step_from_user(self.frame.gradient_to_user(gradient))


class Diagonal(Preconditioner):
    """The diagonal of the Hessian: for sparse and very wide data."""

    least_steps, confirming_steps = 4, 5

    def __init__(self, objective):
        super().__init__(objective)
        self.price, self.n_classes = TUNED.block_price, objective.rows.n_classes

    def refresh(self, objective, evaluation):
        M = self._data_part(objective, evaluation)
        self._invert(objective, M)

    def _invert(self, objective, M):
        o, xp = objective, namespace(M)
        rounding = TUNED.no_curvature * xp.max(M)
        ridge = ridge_of(o, M.dtype)
        if o.n_problems > 1:
            ridge = xp.repeat(ridge, o.rows.n_classes, axis=1)
        idle = o.rows.frame.idle

        def invert(rows):
            m = M[rows, :]
            m = xp.where(rounding < m, m, xp.zeros_like(m)) + ridge[rows, :]
            positive = (m > 0) & ~idle[rows][:, None]
            m = xp.where(positive, 1.0 / m, xp.ones_like(m))
            M[rows, :] = xp.where(positive, m, xp.zeros_like(m))
            return float(xp.min(m)), float(xp.max(m))

        low, high = zip(*over_rows(invert, M), strict=True)
        smallest, largest = SINGLE_RANGE
        fits = max(high) < largest and min(low) > smallest
        self.inverse = cast(M, xp.float32) if fits else M

    def _data_part(self, objective, evaluation):
        """The diagonal of the data part of the Hessian, (P, K)."""
        o = objective
        xp = o.rows.xp
        if bool(xp.any(evaluation.theta[: o.rows.shape[1], :] != 0)):
            return cast(self.sampler.at(o, evaluation).diagonal(), xp.float64)
        # All rows have the same probabilities.
        row = xp.asarray(mean_class_curvature(o, evaluation, diagonal=True).ravel())
        M = xp.zeros(o.shape, dtype=xp.float64) + row[None, :]
        N = o.rows.shape[1]
        M[:N, :] = M[:N, :] * o.rows.frame.squares[:, None]
        return M

    def problems(self, objective, index, evaluation):
        part = super().problems(objective, index, evaluation)
        part.inverse = take(self.inverse, columns_of(index, self.n_classes), axis=1)
        return part

    def root(self):
        """Random vectors (P, q): the mean of their products is that of M⁻¹ over the classes."""
        xp, q = namespace(self.inverse), TUNED.probes
        root = xp.sqrt(xp.mean(self.inverse, axis=1) / q)
        return random_normal((root.shape[0], q), root) * root[:, None]

    def solve(self, gradient):
        xp, inverse, T = namespace(gradient), self.inverse, self.n_classes
        out = xp.empty_like(gradient)

        def piece(rows):
            centred = centred_over_classes(gradient[rows, :], T)
            out[rows, :] = centred_over_classes(centred * inverse[rows, :], T)

        over_rows(piece, gradient)
        return out


def mean_class_curvature(objective, evaluation, *, diagonal=False):
    """The weighted mean of diag(p) - p pᵀ over a part of the rows, (n_problems, T, T).

    Or its diagonal, (n_problems, T).
    """
    rows = objective.rows
    stride = max(1, rows.shape[0] // TUNED.hessian_rows)
    S, total = class_curvature(rows, evaluation.state, stride, diagonal=diagonal)
    total = host.maximum(total, host.finfo(float).tiny)
    return S / total.reshape(-1, *[1] * (S.ndim - 1))


def ridge_of(objective, dtype):
    """The second derivative of the penalty (P, n_problems), within the range of `dtype`."""
    xp = objective.rows.xp
    ridge = objective.penalty.diagonal(objective.shape[0])
    largest = SINGLE_RANGE[1] if dtype == xp.float32 else LARGEST
    return cast(at_most(ridge, largest), dtype)


def units_of(d, idle=None):
    """Units (K, P) in which diagonals `d` of matrices are one, or less where they are rounding.

    An intercept of a class that is decided has next to no curvature: steps there would be
    without bound. That is beside the other classes: features have curvatures of any size, of
    values far out as of others. Rows `idle` have unit one.
    """
    xp = namespace(d)
    least = TUNED.no_curvature * xp.max(d, axis=0, keepdims=True)
    unit = xp.sqrt(xp.maximum(d, least))
    unit = xp.where(unit > 0, unit, 1.0)
    return unit if idle is None else xp.where(idle, 1.0, unit)


def centred_over_classes(x, n_classes):
    """An array (P, K) less its means over the classes of every problem.

    No probability sees that direction: its curvature is rounding alone, and its gradient
    would grow.
    """
    xp = namespace(x)
    if x.shape[1] == n_classes <= TUNED.few:  # a product is faster than sums of few
        return xp.matmul(x, centring_of(n_classes, xp, x.dtype))
    stack = xp.reshape(x, (x.shape[0], -1, n_classes))
    centred = stack - xp.mean(stack, axis=2, keepdims=True)
    return xp.reshape(centred, x.shape)


@cache
def centring_of(n_classes, xp, dtype):
    """The matrix (n_classes, n_classes) that takes the mean off rows, of a library and type."""
    return xp.eye(n_classes, dtype=dtype) - 1 / n_classes


def factorise(A, jitter=None):
    """The lower Cholesky factors, a list, of matrices (K, P, P) with unit diagonals.

    As little is added to a diagonal as makes the matrix positive definite, a `jitter` at least.
    """
    jitter = jitter_of(A) if jitter is None else jitter
    K, P = A.shape[:2]
    if K == 1:
        return [factor_of(add_to_diagonal(A[0, ...], jitter), jitter)]
    A = with_diagonals(A, diagonals(A) + jitter)
    if namespace(A) is host:
        return thread_map(lambda k: factor_of(A[k], jitter), range(K), work=K * P**3 // 3)
    L = cholesky(A)
    if L is not None:
        return [L[k, ...] for k in range(K)]
    return [factor_of(A[k, ...], jitter) for k in range(K)]


def is_singular(L):
    """Whether a factor has a pivot that is mostly what :func:`factorise` has added.

    Directions of so little curvature are hidden behind it.
    """
    return least_pivot(L) < 10 * jitter_of(L)


def least_pivot(L):
    """The least pivot of a matrix by its factor, a float."""
    return float(namespace(L).min(diagonal(L))) ** 2


def jitter_of(A):
    """What is added to unit diagonals, for their precision."""
    return TUNED.single_digits if itemsize(A) == 4 else TUNED.rounding_of_gram


def factor_of(A, added):
    """The factor of one matrix, to whose diagonal so much is added already.

    Of a sparse matrix far from zero, rounding may exceed the diagonal.
    """
    jitter = added
    while (L := cholesky(A)) is None:
        if not (jitter < 1 or bool(namespace(A).all(namespace(A).isfinite(A)))):
            raise host.linalg.LinAlgError("no Cholesky factor: the arithmetic overflows")
        A = add_to_diagonal(A, 100 * jitter - added)
        jitter = added = 100 * jitter
    return L
