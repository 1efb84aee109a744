"""The Hessian of the mean objective at an iterate, and what its steps do to the rows."""

from dataclasses import dataclass, field
from functools import partial

from skfc import _blockwise, _gap_blockwise
from skfc._array import Array, cast, host, to_numpy
from skfc._rows import LocalRows
from skfc._tuned import TUNED


class HessianOperator:
    """The Hessian on some rows, H V = X̃ᵀ S (P∘dZ - P rowsum(P∘dZ)) / s + R'' V.

    The penalty is that of `objective`; `rows` are all rows of it, or a sample.
    """

    def __init__(self, objective, rows, state, logits=None):
        self.objective, self.rows, self.state, self.logits = objective, rows, state, logits

    @classmethod
    def of(cls, objective, evaluation):
        """The Hessian at an evaluation, on all rows."""
        return cls.at(objective, objective.rows, evaluation.state)

    @classmethod
    def at(cls, objective, rows, logits):
        """From the logits that are with the rows."""
        probabilities = rows.sum(_blockwise.keep_probabilities, state=logits).state
        return cls(objective, rows, probabilities, logits)

    def with_objective(self, objective):
        """The same curvature of the data with the penalty of another objective."""
        return HessianOperator(objective, self.rows, self.state, self.logits)

    def __call__(self, direction):
        out = self.rows.sum(_blockwise.curve, direction, self.state).gradient
        out = cast(out, direction.dtype)
        self.rows.work.products += 1
        self.objective.penalty.add_gradient(out, direction)
        return out

    def diagonal(self):
        """The diagonal of the data part, (P, K)."""
        return self.rows.sum(_blockwise.curvature_diagonal, state=self.state, power=2).gradient

    def first_moments(self):
        """The features times the diagonal of the curvature of rows, (P, K)."""
        return self.rows.sum(_blockwise.curvature_diagonal, state=self.state).gradient

    def trial(self, step):
        """What a step does to the rows, a :class:`Trial`."""
        return trial(self.rows, self.logits, step)

    def without_far_rows(self, moved):
        """This without the curvature that rows far out may lose; their numbers (n_problems,).

        That are those which the step of a :class:`Trial` has `moved`, or which are decided.
        """
        keep = partial(
            _gap_blockwise.keep_steady, little=TUNED.far_logits, decided=TUNED.decided,
            far_out=TUNED.far_out,
        )  # fmt: skip
        state = self.rows.with_prominence(self.rows.joined(moved, self.logits))
        sums = self.rows.sum(keep, state=state, count=False)
        return HessianOperator(self.objective, self.rows, sums.state), to_numpy(sums.values[0])


@dataclass(frozen=True)
class Trial:
    """What a step leads to.

    Attributes
    ----------
    loss : (n_problems,), its mean after the step
    typical : (n_problems,), the power mean of order 1/4 over the rows of how far it moves
        their logits against one another; a few rows contribute little
    moved : the same of every row, as a state
    """

    rows: LocalRows
    loss: Array
    typical: Array
    moved: list = field(repr=False)

    def exceeds(self, most, least):
        """Whether a row moves far, (n_problems,).

        Far is more than `most` logits, or more than both `least` logits and `farther` times
        what is typical.
        """
        function = partial(_gap_blockwise.beyond, far=self.far(most, least))
        found = self.rows.sum(function, state=self.moved, count=False)
        return to_numpy(found.values[0]) > 0

    def far(self, most, least):
        """The logits (n_problems,) by which a row moves that moves far."""
        return host.minimum(host.maximum(least, TUNED.farther * self.typical), most)


def trial(rows, logits, step):
    """The :class:`Trial` of a step from the logits that are with the rows."""
    sums = rows.sum(_blockwise.trial, step, logits)
    loss, roots, count = (to_numpy(v) for v in sums.values)
    typical = (roots / host.maximum(count, host.finfo(float).tiny)) ** 4
    return Trial(rows, loss, typical, sums.state)


def class_curvature(rows, state, stride, *, diagonal=False):
    """The mean of m (diag(p) - p pᵀ) over every `stride`-th row, and of m, by problem.

    They are (n_problems, T, T), or of the `diagonal` alone (n_problems, T), and (n_problems,),
    and divided by the number of all rows.
    """
    function = _blockwise.class_squares if diagonal else _blockwise.class_products
    sums = rows.sum(partial(function, stride=stride), state=state, count=False)
    products, first, total = (to_numpy(v) for v in sums.values)
    if diagonal:
        return first - products, total
    S = -products
    host.einsum("bii->bi", S)[...] += first
    return S, total
