"""The Hessian itself, on a sample of rows, for few features and classes."""

from copy import copy
from functools import partial

from skfc import _blockwise, _draws
from skfc._array import (
    add_to_diagonal,
    add_to_diagonals_of_blocks,
    cast,
    cholesky_solve,
    concatenate,
    diagonal,
    host,
    namespace,
    outer,
    pair_places,
    permute,
    take,
    tile,
    to_numpy,
)  # fmt: skip
from skfc._objective import class_curvature
from skfc._preconditioner._base import (
    Preconditioner,
    centred_over_classes,
    factorise,
    idle_rows,
    is_singular,
    jitter_of,
    ridge_of,
    units_of,
)  # fmt: skip
from skfc._preconditioner._kronecker import Kronecker
from skfc._row_samples import everything, leverage_sample, working_dtype
from skfc._tuned import TUNED


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
        """Whether that of all rows costs little."""
        size = objective.shape[0] * objective.rows.n_classes
        return objective.rows.shape[0] * size**2 / 2 <= TUNED.few_numbers

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
        ridge, idle = ridge_of(o, sums.dtype), idle_rows(o)
        self.factor = [
            self._factorise(sums[b, ...], ridge[:, min(b, ridge.shape[1] - 1)], idle)
            for b in range(o.n_problems)
        ]
        self.hidden = any(is_singular(factor) for factor, _ in self.factor)
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

        `sums` (T (T - 1) / 2, P, P) are those of the classes but the last.
        """
        xp, T, P = namespace(sums), self.n_classes, sums.shape[-1]
        pairs = take(sums, pair_places(T - 1).ravel())
        H = xp.empty((T, P, T, P), dtype=sums.dtype)
        H[:-1, :, :-1, :] = permute(xp.reshape(pairs, (T - 1, T - 1, P, P)), (0, 2, 1, 3))
        # The classes sum to zero, which gives the last one.
        H[-1, :, :-1, :] = -xp.sum(H[:-1, :, :-1, :], axis=0)
        H[:, :, -1, :] = -xp.sum(H[:, :, :-1, :], axis=2)
        A = add_to_diagonal(xp.reshape(H, (T * P, T * P)), tile(ridge + cast(idle, H.dtype), T))
        # One vector added to all classes changes nothing: any curvature there will do.
        null = xp.mean(xp.reshape(diagonal(A), (T, P)), axis=0)
        null = xp.where(null == 0, xp.ones_like(null), null)
        A = add_to_diagonals_of_blocks(A, null / T)
        unit = units_of(diagonal(A))
        A /= unit[:, None]
        A /= unit[None, :]
        (factor,) = factorise(A[None, ...])
        return factor, unit

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
        for b, (factor, unit) in enumerate(self.factor):
            flat = xp.reshape(gradient[:, b * T : (b + 1) * T].T, (-1,))
            x = cholesky_solve(factor, cast(flat / cast(unit, flat.dtype), factor.dtype))
            x = cast(x, gradient.dtype) / cast(unit, gradient.dtype)
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
        at_null = not bool(rows.xp.any(theta[: rows.shape[1], :] != 0))
        if at_null and objective.n_problems == 1 and not rows.sparse:
            self.sums = sums_at_null(rows, evaluation.state)
        else:
            self.sums = self._sums(rows, mixture(rows, evaluation.state, 0.0))
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
        part.sums = self._sums(objective.rows, proba)
        part._invert(objective, part.sums)
        return part

    def follow(self, objective, evaluation):
        self._invert(objective, self.sums)

    def _sums(self, rows, proba):
        return rows.pair_sums(proba, rows.xp.float64 if self.double else rows.dtype)

    def row_forms(self, rows):
        """How far a step of unit Newton norm moves each row's logits against one another at most.

        That is its square, a state, and by which factor what has been added to the Hessian may
        have made squares smaller: not more than 2, else infinity.
        """
        T = self.n_classes
        ((L, unit),) = self.factor
        size = L.shape[0]
        inverse = cholesky_solve(L, namespace(L).eye(size, dtype=L.dtype))
        # Diagonals were one. What rounding of the Hessian may be counts as well.
        added = host.square(to_numpy(L)).sum(axis=1).max() - 1
        added = max(float(added), jitter_of(L)) + jitter_of(L)
        share = added * float(host.linalg.norm(to_numpy(inverse)))
        inverse = to_numpy(inverse / outer(unit, unit))
        blocks = host.reshape(inverse, (T, size // T, T, -1)).transpose(0, 2, 1, 3)
        first, second = host.triu_indices(T, 1)
        forms = blocks[first, first] + blocks[second, second]
        forms -= blocks[first, second] + blocks[second, first]
        return rows.row_forms(rows.xp.asarray(forms)), 1 / (1 - share) if share < 0.5 else host.inf


def mixture(rows, state, share):
    """Probabilities at logits, of which a share is that of the targets, a state."""
    return rows.sum(partial(_blockwise.keep_mixture, share=share), state=state, count=False).state


def sums_at_null(rows, state):
    """What `pair_sums` gives where all rows have the same probabilities: a Kronecker product."""
    weights = rows.sum(_draws.times_row_weight, state=everything(rows), count=False).state
    A, (S, _) = rows.gram(weights), class_curvature(rows, state, 1)
    pairs = host.triu_indices(rows.n_classes - 1)
    return (rows.xp.asarray(S[0][pairs], dtype=A.dtype)[:, None, None] * A)[None, ...]
