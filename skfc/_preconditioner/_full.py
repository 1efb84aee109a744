"""The Hessian itself, on a sample of rows, for few features and classes."""

from copy import copy
from dataclasses import dataclass
from functools import cache, cached_property, partial

from skfc import _blockwise
from skfc._array import (
    Array,
    add_to_diagonal,
    add_to_diagonals_of_blocks,
    any_nonzero,
    cast,
    cholesky_solve,
    concatenate,
    diagonal,
    epsilon,
    host,
    inner,
    inverse_factor,
    namespace,
    outer,
    pairs_of,
    permute,
    take,
    tile,
    to_numpy,
)  # fmt: skip
from skfc._preconditioner._base import (
    Preconditioner,
    centred_over_classes,
    factorise,
    is_singular,
    jitter_of,
    ridge_of,
    units_of,
    work_of_pass,
)  # fmt: skip
from skfc._preconditioner._kronecker import Kronecker
from skfc._row_samples import leverage_sample, working_dtype
from skfc._tuned import TUNED


@dataclass(frozen=True)
class Factor:
    """A matrix of directions B (m, m), or the columns of `turn`: Bᵀ A B = D L Lᵀ D in units D.

    Attributes
    ----------
    L : (m, m), the lower factor
    unit : (m,), the diagonal of D
    turn : (m, m), B, or None for the coordinates themselves
    jitter : what was added to the diagonal, of ones, at least; rounding of A may be as much
    """

    L: Array
    unit: Array
    turn: Array | None = None
    jitter: float | None = None

    @cached_property
    def is_singular(self):
        """Whether what was added to the diagonal hides directions.

        A pivot is mostly that, or, where another factor would know more, inverse iteration finds
        a direction of little more curvature.
        """
        L, jitter = self.L, self.added
        if is_singular(L, jitter):
            return True
        if self.is_last or not is_singular(L, jitter / TUNED.lost_digits):
            return False
        x = namespace(L).ones_like(diagonal(L))
        for _ in range(TUNED.look_back):
            x, before = cholesky_solve(L, x), x
            norm = (inner(x, x) / inner(before, before)) ** 0.5
        return bool(norm * jitter > TUNED.accuracy)

    @property
    def is_last(self):
        """Whether rounding is all that another factor would show."""
        return self.jitter is not None and self.jitter > TUNED.no_curvature

    @property
    def added(self):
        """What was added to the diagonal at least."""
        return jitter_of(self.L) if self.jitter is None else self.jitter

    def solve(self, b):
        """A⁻¹ b for a vector, in its own type."""
        xp, dtype = namespace(self.L), self.L.dtype
        if self.turn is not None:
            b = xp.matmul(self.turn.T, b)
        x = cholesky_solve(self.L, cast(b / cast(self.unit, b.dtype), dtype))
        x = cast(x, b.dtype) / cast(self.unit, b.dtype)
        return x if self.turn is None else xp.matmul(self.turn, x)

    def root_of_inverse(self):
        """R with A⁻¹ = R Rᵀ."""
        root = inverse_factor(self.L).T / self.unit[:, None]
        return root if self.turn is None else namespace(root).matmul(self.turn, root)

    @cached_property
    def inverse(self):
        """A⁻¹, and by which factor what was added may have made its quadratic forms smaller.

        That is not more than 2, else infinity. Diagonals were one. What rounding of A may be
        counts as well.
        """
        L = self.L
        inverse = cholesky_solve(L, namespace(L).eye(L.shape[0], dtype=L.dtype))
        added = host.square(to_numpy(L)).sum(axis=1).max() - 1
        added = max(float(added), self.added) + self.added
        share = added * float(host.linalg.norm(to_numpy(inverse)))
        inverse = to_numpy(inverse / outer(self.unit, self.unit))
        if self.turn is not None:
            turn = to_numpy(self.turn)
            inverse = turn @ inverse @ turn.T
        return inverse, 1 / (1 - share) if share < 0.5 else host.inf


class FullHessian(Preconditioner):
    """The Hessian on a sample of rows, by its Cholesky factor.

    Where all rows have the same probabilities, as at the null model, that is the Kronecker
    form, which costs less.
    """

    is_newton = True

    def __init__(self, objective):
        super().__init__(objective)
        self.n_classes, self.whole = objective.rows.n_classes, False
        self.small = self.is_small(objective)
        self.price = min(max(round(self.passes(objective)), 1), TUNED.look_back)
        self.kronecker = self.spectrum = self.sample = None
        self.size = 0.0

    @property
    def is_poor(self):
        """While it is the Kronecker form, or that of a sample where all rows cost little."""
        return self.kronecker is not None or (self.small and not self.whole)

    @staticmethod
    def is_small(objective):
        """Whether that of all rows costs little: by itself, or beside a pass over the data."""
        work = FullHessian.work_of_all(objective)
        return work <= TUNED.few_numbers or work <= TUNED.block_price * work_of_pass(objective)

    @staticmethod
    def work_of_all(objective):
        """Operations of the Hessian of all rows, about, as those of matrices.

        That are the products of the pairs of features, their sums, and a factor.
        """
        (n, P), T = (objective.rows.shape[0], objective.shape[0]), objective.rows.n_classes
        pairs = TUNED.speed_of_matrices * n * P * (P + 1) / 2
        return pairs + n * (P * T) ** 2 / 2 + (P * T) ** 3 / 3

    @staticmethod
    def operations(objective):
        """Operations of a refresh, about."""
        rows, P = objective.rows, objective.shape[0]
        sample = min(rows.shape[0], TUNED.hessian_rows + TUNED.hessian_rows_per_direction * P)
        return sample * (P * rows.n_classes) ** 2 / 2

    @classmethod
    def passes(cls, objective):
        """What a refresh costs, in passes over the data, about."""
        (n, N), T = objective.rows.shape, objective.rows.n_classes
        logit = 4 * N + TUNED.operations_per_logit
        return cls.operations(objective) / (n * T * logit)

    def refresh(self, objective, evaluation):
        o, N = objective, objective.rows.shape[1]
        if not bool(o.rows.xp.any(evaluation.theta[:N, :] != 0)):
            self.kronecker = self.spectrum = Kronecker(o)
            self.kronecker.refresh(o, evaluation)
            self.least_steps = self.kronecker.least_steps
            self.confirming_steps = self.kronecker.confirming_steps
            return
        self.kronecker, self.least_steps = None, 1
        self._draw(o)
        sample, logits = self.sample.rows, self.sample.carry(evaluation.state)
        state = sample.sum(_blockwise.keep_probabilities, state=logits, count=False).state
        self._invert(o, sample.pair_sums(state, sample.dtype))
        if self.hidden and not self.double:
            self.double = True
            if self._outdated():
                self.refresh(o, evaluation)

    def _invert(self, o, sums):
        """Factorise the Hessian of sums of `pair_sums` and of the penalty of an objective."""
        ridge, idle = ridge_of(o, sums.dtype), o.rows.frame.idle
        self.factor = [
            self._factorise(sums[b, ...], ridge[:, min(b, ridge.shape[1] - 1)], idle)
            for b in range(o.n_problems)
        ]
        self.hidden = any(factor.is_singular for factor in self.factor)
        self.confirming_steps = TUNED.decided_steps if self.hidden else 2

    def _draw(self, objective):
        """Draw the rows of the sample, anew where many more of them are needed."""
        if self.whole and not self._outdated():
            return
        free = objective.shape[0]
        if self.spectrum is not None:
            free = self.spectrum.effective_dimension(float(objective.penalty.l2.min()))
        needed = TUNED.hessian_rows + TUNED.hessian_rows_per_direction * free
        rows, P = objective.rows, objective.shape[0]
        if needed <= TUNED.nearly_all * self.size and not self._outdated():
            return
        self.size, self.whole = needed, rows.shape[0] <= TUNED.nearly_all * needed
        dtype = working_dtype(objective, min(needed, rows.shape[0]) * P**2 // 2)
        dtype = rows.xp.float64 if self.double else dtype
        self.sample = rows.select(leverage_sample(rows, needed), dtype)

    def _outdated(self):
        """Whether the sample is in single precision, which was given up."""
        return self.double and self.sample.rows.dtype != self.sample.rows.xp.float64

    def _factorise(self, sums, ridge, idle):
        """Cholesky factor of the Hessian, scaled to a unit diagonal, and its scale.

        `sums` (T (T - 1) / 2, P, P) are those of the pairs of classes.
        """
        xp, T, P = namespace(sums), self.n_classes, sums.shape[-1]
        pairs, (member, place) = xp.reshape(sums, (-1, P * P)), blocks_of_pairs(T)
        # The classes sum to zero, which gives those of a class with itself.
        own = xp.matmul(xp.asarray(member, dtype=sums.dtype), pairs)
        blocks = xp.reshape(take(concatenate([-pairs, own]), place), (T, T, P, P))
        A = xp.reshape(permute(blocks, (0, 2, 1, 3)), (T * P, T * P))
        ridge = ridge + cast(idle, A.dtype)
        d = own[:, :: P + 1] + ridge
        # One vector added to all classes changes nothing: any curvature there will do.
        null = xp.sum(d, axis=0)
        null = xp.where(null == 0, 1.0, null) / T**2
        A = add_to_diagonal(add_to_diagonals_of_blocks(A, null), tile(ridge, T))
        unit = units_of(xp.reshape(d + null, (-1,)))
        scale = 1.0 / unit
        A *= scale[:, None]
        A *= scale[None, :]
        (factor,) = factorise(A[None, ...])
        return Factor(factor, unit)

    def problems(self, objective, index, evaluation):
        part = super().problems(objective, index, evaluation)
        if self.kronecker is not None:
            part.kronecker = self.kronecker.problems(objective, index, evaluation)
        else:
            part.factor = [self.factor[int(b)] for b in index]
        if self.sample is not None:
            part.sample = self.sample.problems(index)
        return part

    def solve(self, gradient):
        if self.kronecker is not None:
            return self.kronecker.solve(gradient)
        xp, P, T = namespace(gradient), gradient.shape[0], self.n_classes
        gradient = centred_over_classes(gradient, T)
        out = []
        for b, factor in enumerate(self.factor):
            x = factor.solve(xp.reshape(gradient[:, b * T : (b + 1) * T].T, (-1,)))
            out.append(xp.reshape(x, (T, P)).T)
        return out[0] if len(out) == 1 else concatenate(out, axis=1)


class ExactHessian(FullHessian):
    """The Hessian of all rows, anew at every iterate: for few features and classes.

    A Newton step is a product with its inverse, and needs no conjugate gradients.
    """

    is_poor = False

    def __init__(self, objective):
        Preconditioner.__init__(self, objective)
        self.n_classes, self.price = objective.rows.n_classes, 0.0
        self.kronecker = self.sample = None
        self.least_steps = 1

    @property
    def is_exact(self):
        return not self.hidden

    def refresh(self, objective, evaluation):
        rows, theta = objective.rows, evaluation.theta
        self.proba = partial(mixture, rows, evaluation.state, 0.0)
        if objective.n_problems == 1 and not any_nonzero(theta[: rows.shape[1], :]):
            self.sums = sums_at_null(rows, theta, self._dtype(rows))
        else:
            self.sums = self._sums(rows, self.proba())
        self._invert(objective, self.sums)
        if self.hidden and not self.double:
            self.double = True
            if self.sums.dtype != rows.xp.float64:
                self.refresh(objective, evaluation)

    def mixed(self, objective, evaluation, share):
        """That of probabilities at an evaluation of which a share is that of the targets."""
        return self.of(objective, mixture(objective.rows, evaluation.state, share))

    def of(self, objective, proba):
        """That of other probabilities of the rows, a state."""
        part = copy(self)
        part.proba, part.sums = lambda: proba, self._sums(objective.rows, proba)
        part._invert(objective, part.sums)
        return part

    def follow(self, objective, evaluation):
        self._invert(objective, self.sums)

    def _sums(self, rows, proba):
        return rows.pair_sums(proba, self._dtype(rows))

    def _dtype(self, rows):
        return rows.xp.float64 if self.double else rows.dtype

    def _invert(self, o, sums):
        """The same; where the factor hides directions, by the forms of those that it shows.

        Not without a penalty, where some may have no curvature at all.
        """
        super()._invert(o, sums)
        for _ in range(TUNED.look_back):
            if not (self.hidden and self._is_worth(o)):
                break
            self.factor = [self._again(o, self.factor[0])]
            self.hidden = self.factor[0].is_singular

    def _is_worth(self, o):
        """Whether another factor may know more: there are digits left, and it is affordable."""
        rows, size = o.rows, o.shape[0] * self.n_classes
        few = size * self.n_classes * rows.shape[0] <= TUNED.few_single and o.n_problems == 1
        left = not self.factor[0].is_last
        return few and left and o.penalty.strict.all() and rows.dtype == rows.xp.float64

    def _again(self, o, first):
        """The factor of the Hessian in directions in which it is about one, after a `first`.

        Sums of the rows' own changes keep twice the digits of those of products of features.
        """
        T, P, directions = self.n_classes, o.shape[0], first.root_of_inverse()
        xp, m = namespace(directions), directions.shape[1]
        by_class = xp.reshape(directions, (T, P, m))
        apart = by_class - xp.mean(by_class, axis=0, keepdims=True)
        theta = xp.reshape(permute(apart, (1, 2, 0)), (P, m * T))
        state = self.proba()
        forms, sizes = o.rows.sum(_blockwise.forms, theta, state, count=False).values
        ridge = ridge_of(o, forms.dtype)[:, 0] + cast(o.rows.frame.idle, forms.dtype)
        bent = directions * xp.sqrt(tile(ridge, T))[:, None]
        # One vector added to all classes changes nothing: any curvature there will do.
        null = xp.mean(xp.reshape(first.unit, (T, P)) ** 2, axis=0) / T
        common = xp.sum(by_class, axis=0) * xp.sqrt(null)[:, None]
        A = forms + xp.matmul(bent.T, bent) + xp.matmul(common.T, common)
        unit = units_of(diagonal(A))
        A = A / outer(unit, unit)
        rounding = TUNED.stronger * epsilon(A) * float(xp.sum(sizes / unit**2)) ** 0.5
        jitter = max(rounding, TUNED.no_curvature)
        return Factor(*factorise(A[None, ...], jitter), unit, directions, jitter)

    def noise(self, sizes):
        """What rounding of a gradient may add to half the Newton decrement, at most, about.

        The sums are of numbers of `sizes` (P, T).
        """
        inverse, _ = self.factor[0].inverse
        norm = host.sqrt(host.maximum(host.diagonal(inverse), 0.0)) @ host.ravel(sizes.T)
        return 0.5 * (epsilon(self.factor[0].L) * norm) ** 2

    def row_forms(self, rows, left=None):
        """How far a step of unit Newton norm moves each row's logits against one another at most.

        That is its square, a state, and the factor of :meth:`Factor.inverse`. Of some rows and
        classes, what is `left` by `without_classes` and `keep_near`.
        """
        T = self.n_classes
        inverse, factor = self.factor[0].inverse
        blocks = host.reshape(inverse, (T, len(inverse) // T, T, -1)).transpose(0, 2, 1, 3)
        first, second = pairs_of(T, 1)
        forms = blocks[first, first] + blocks[second, second]
        forms -= blocks[first, second] + blocks[second, first]
        forms = rows.xp.asarray(forms)
        if left is None:
            return rows.row_forms(forms), factor
        if len(left[0]) == 2:
            found = rows.joined(rows.row_forms(forms), left)
            return rows.sum(_blockwise.form_of_kept, state=found, count=False).state, factor
        largest = None
        for i, pair in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
            found = rows.joined(rows.row_forms(forms[i : i + 1, ...]), left)
            one = partial(_blockwise.form_of_pair, pair=pair)
            found = rows.sum(one, state=found, count=False).state
            if largest is not None:
                found = rows.sum(_blockwise.larger, state=rows.joined(found, largest), count=False)
                found = found.state
            largest = found
        return largest, factor


def mixture(rows, state, share):
    """Probabilities at logits, of which a share is that of the targets, a state."""
    return rows.sum(partial(_blockwise.keep_mixture, share=share), state=state, count=False).state


@cache
def blocks_of_pairs(n_classes):
    """Which classes are in the pairs k < j, (T, M), and where blocks are among pairs and classes.

    The blocks of all classes with one another, by rows: of a class with itself behind the pairs.
    """
    first, second = pairs_of(n_classes, 1)
    pairs, classes = host.arange(len(first)), host.arange(n_classes)
    member, place = host.zeros((n_classes, len(pairs))), host.diag(len(pairs) + classes)
    member[first, pairs] = member[second, pairs] = 1.0
    place[first, second] = place[second, first] = pairs
    return member, place.ravel()


def sums_at_null(rows, theta, dtype):
    """What `pair_sums` gives where only intercepts are not zero: a Kronecker product."""
    A = rows.second_moments(dtype)
    logits = to_numpy(theta[rows.shape[1] :, :]).sum(axis=0)
    p = host.exp(logits - logits.max())
    p /= p.sum()
    first, second = pairs_of(rows.n_classes, 1)
    pairs = rows.xp.asarray(p[first] * p[second], dtype=A.dtype)
    return (pairs[:, None, None] * A)[None, ...]
