"""The Hessian of all rows, by a factor that keeps all digits, for few features and classes."""

from copy import copy
from functools import partial

from skfc import _blockwise, _gap_blockwise
from skfc._array import (
    any_nonzero,
    cast,
    diagonal,
    epsilon,
    host,
    namespace,
    outer,
    pairs_of,
    permute,
    tile,
    to_numpy,
)  # fmt: skip
from skfc._preconditioner._base import Preconditioner, factorise, ridge_of, units_of
from skfc._preconditioner._factor import Factor
from skfc._preconditioner._full import FullHessian
from skfc._tuned import TUNED


class ExactHessian(FullHessian):
    """The Hessian of all rows, anew at every iterate: for few features and classes.

    A Newton step is a product with its inverse, and needs no conjugate gradients.
    """

    is_poor, takes_all, of_all_rows = False, True, True

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
        forms, sizes = o.rows.sum(_gap_blockwise.forms, theta, state, count=False).values
        ridge = ridge_of(o, forms.dtype)[:, 0] + cast(o.rows.frame.idle, forms.dtype)
        bent = xp.reshape(apart, (T * P, m)) * xp.sqrt(tile(ridge, T))[:, None]
        common = xp.sum(by_class * first.gauge[..., None], axis=0)
        A = forms + xp.matmul(bent.T, bent) + xp.matmul(common.T, common)
        unit = units_of(diagonal(A))
        A = A / outer(unit, unit)
        rounding = TUNED.stronger * epsilon(A) * float(xp.sum(sizes / unit**2)) ** 0.5
        jitter = max(rounding, TUNED.no_curvature)
        return Factor(*factorise(A[None, ...], jitter), unit, first.gauge, directions, jitter)

    def noise(self, sizes):
        """What rounding of a gradient may add to half the Newton decrement, at most, about.

        The sums are of numbers of `sizes` (P, T).
        """
        inverse, _ = self.factor[0].inverse
        norm = host.sqrt(host.maximum(host.diagonal(inverse), 0.0)) @ host.ravel(sizes.T)
        return 0.5 * (epsilon(self.factor[0].L) * norm) ** 2

    def row_forms(self, rows, left=None):
        """How far a step of unit Newton norm moves each row's logits against one another at most.

        That is its square, a state, and the factor of :meth:`Factor.inverse`. Of some classes,
        what is `left` by `without_classes`.
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
        largest = None
        for i, pair in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
            found = rows.joined(rows.row_forms(forms[i : i + 1, ...]), left)
            one = partial(_gap_blockwise.form_of_pair, pair=pair)
            found = rows.sum(one, state=found, count=False).state
            if largest is not None:
                found = rows.sum(
                    _gap_blockwise.larger, state=rows.joined(found, largest), count=False
                )
                found = found.state
            largest = found
        return largest, factor


def mixture(rows, state, share):
    """Probabilities at logits, of which a share is that of the targets, a state."""
    return rows.sum(partial(_blockwise.keep_mixture, share=share), state=state, count=False).state


def sums_at_null(rows, theta, dtype):
    """What `pair_sums` gives where only intercepts are not zero: a Kronecker product."""
    A = rows.second_moments(dtype)
    logits = to_numpy(theta[rows.shape[1] :, :]).sum(axis=0)
    p = host.exp(logits - logits.max())
    p /= p.sum()
    first, second = pairs_of(rows.n_classes, 1)
    pairs = rows.xp.asarray(p[first] * p[second], dtype=A.dtype)
    return (pairs[:, None, None] * A)[None, ...]
