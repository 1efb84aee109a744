"""The Hessian itself, on a sample of rows, for few features and classes."""

from functools import cache

from skfc import _blockwise
from skfc._array import (
    add_to_diagonals_of_blocks,
    cast,
    concatenate,
    host,
    namespace,
    pairs_of,
    permute,
    reshape,
    take,
)  # fmt: skip
from skfc._preconditioner._base import (
    Preconditioner,
    centred_over_classes,
    centring_of,
    factorise,
    ridge_of,
    units_of,
    work_of_pass,
)  # fmt: skip
from skfc._preconditioner._factor import Factor
from skfc._preconditioner._kronecker import Kronecker
from skfc._row_samples import leverage_sample, working_dtype
from skfc._tuned import TUNED


class FullHessian(Preconditioner):
    """The Hessian on a sample of rows, by its Cholesky factor.

    Where all rows have the same probabilities, as at the null model, that is the Kronecker
    form, which costs less.
    """

    is_newton = True
    # Whether it is that of all rows, at every iterate.
    takes_all = False

    def __init__(self, objective):
        super().__init__(objective)
        self.n_classes, self.whole = objective.rows.n_classes, False
        self.small = self.is_small(objective)
        self.price = min(max(round(self.passes(objective)), 1), TUNED.look_back)
        self.kronecker = self.spectrum = self.sample = None
        self.turn = 0

    @property
    def is_poor(self):
        """While it is the Kronecker form, or that of a sample where all rows cost little."""
        return self.kronecker is not None or (self.small and not self.whole)

    @property
    def of_all_rows(self):
        return self.whole and self.kronecker is None

    @property
    def is_provisional(self):
        return self.kronecker is not None

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
            self.double |= self._hides_in_single(o)
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

    def _hides_in_single(self, o):
        """Whether single precision would hide features that others nearly give, and be refused.

        The Hessian is less than the Kronecker form on most of the way. A pivot is the curvature
        of a feature that the others do not give.
        """
        xp, root = o.rows.xp, self.kronecker.root()
        whole = 1 / self.n_classes + ridge_of(o, root.dtype)[:, 0]
        share = xp.min(1.0 / (xp.sum(root**2, axis=1) * whole))
        return bool(share < TUNED.stronger * TUNED.single_digits)

    def _invert(self, o, sums):
        """Factorise the Hessian of sums of `pair_sums` and of the penalty of an objective."""
        ridge = ridge_of(o, sums.dtype) + cast(o.rows.frame.idle, sums.dtype)[:, None]
        self.factor = [
            self._factorise(sums[b, ...], ridge[:, min(b, ridge.shape[1] - 1)])
            for b in range(o.n_problems)
        ]
        self.hidden = any(factor.is_singular for factor in self.factor)
        self.confirming_steps = TUNED.decided_steps if self.hidden else 2

    def _draw(self, objective):
        """Draw the rows of the sample, others every time: luck with some does not last."""
        if self.whole and not self._outdated():
            return
        free = objective.shape[0]
        if self.spectrum is not None:
            free = self.spectrum.effective_dimension(float(objective.penalty.l2.min()))
        needed = TUNED.hessian_rows + TUNED.hessian_rows_per_direction * free
        rows, P = objective.rows, objective.shape[0]
        self.whole, self.turn = rows.shape[0] <= TUNED.nearly_all * needed, self.turn + 1
        dtype = working_dtype(objective, min(needed, rows.shape[0]) * P**2 // 2)
        dtype = rows.xp.float64 if self.double else dtype
        self.sample = rows.select(leverage_sample(rows, needed, self.turn), dtype)

    def _outdated(self):
        """Whether the sample is in single precision, which was given up."""
        return self.double and self.sample.rows.dtype != self.sample.rows.xp.float64

    def _factorise(self, sums, ridge):
        """Cholesky factor of the Hessian, scaled to a unit diagonal, and its scale.

        `sums` (T (T - 1) / 2, P, P) are those of the pairs of classes.
        """
        xp, T, P = namespace(sums), self.n_classes, sums.shape[-1]
        pairs, (member, place) = reshape(sums, (-1, P * P)), blocks_of_pairs(T)
        # The classes sum to zero, which gives those of a class with itself.
        own = xp.matmul(xp.asarray(member, dtype=sums.dtype), pairs)
        blocks = reshape(take(concatenate([-pairs, own]), place), (T, T, P, P))
        A = reshape(permute(blocks, (0, 2, 1, 3)), (T * P, T * P))
        d = own[:, :: P + 1] + ridge * (1 - 1 / T)
        gauge = gauge_of(d)
        added = gauge[:, None, :] * gauge[None, :, :]
        A = add_to_diagonals_of_blocks(A, added + centring_of(T, xp, A.dtype)[..., None] * ridge)
        unit = reshape(units_of(d + gauge**2), (-1,))
        scale = 1.0 / unit
        A *= scale[:, None]
        A *= scale[None, :]
        (factor,) = factorise(A[None, ...])
        return Factor(factor, unit, gauge)

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
        return centred_over_classes(out[0] if len(out) == 1 else concatenate(out, axis=1), T)


def gauge_of(d):
    """Curvature where one vector is added to all classes: g (T, P), of which g gᵀ is added.

    That changes nothing, so that any curvature will do. This one is at most that of a class
    itself, `d` (T, P): more would hide the curvature of a class that has next to none.
    """
    xp = namespace(d)
    total = xp.sum(d, axis=0)
    known = total > 0
    if bool(xp.all(known)):
        return d / xp.sqrt(total)
    return xp.where(known, d / xp.sqrt(xp.where(known, total, 1.0)), 1.0 / d.shape[0])


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
