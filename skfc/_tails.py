"""Gaps where rows in the tail of their loss move far, however near the minimum is.

A row that is all but certain has a loss of e^-m at the margin m, and a Newton step raises m by
one: the row moves by a logit at every iterate, as long as nothing but a weak penalty stops it. It
has next to nothing to gain. Without its classes of next to no probability, its tails, the
objective is not larger, so that F - F* is at most what they are worth here, and the gap without.
"""

from dataclasses import dataclass, replace
from functools import partial

from skfc import _gap_blockwise
from skfc._array import Array, host, to_numpy
from skfc._conjugate_gradients import newton_step
from skfc._hessian import HessianOperator
from skfc._newton_bound import near_minimum
from skfc._objective import Evaluation
from skfc._tuned import TUNED


@dataclass(frozen=True)
class WithoutTails:
    """What is left of some problems without tails.

    Attributes
    ----------
    gap : (n_problems,), an estimate of F - F* of the problems as they are
    evaluation : without tails
    hessian : there
    step : Newton's, (P, K)
    moved : how far that moves every row of the Hessian, a state
    """

    gap: Array
    evaluation: Evaluation
    hessian: HessianOperator
    step: Array
    moved: list


def without_tails(
    objective, evaluation, hessian_at, precondition, newton, trial, logits, far, wanted
):
    """The :class:`WithoutTails`, or None where rows move far that have more to gain.

    None, too, where the decrement leaves little room below what is `wanted` or the minimum is not
    near, since the fit then goes on for less than this takes, and without a penalty, where rows in
    the tail may be a sign that there is no minimum.

    Parameters
    ----------
    hessian_at : function of an objective and an evaluation, to the Hessian there
    precondition : an approximate inverse of the Hessian
    newton : the NewtonStep, which moves rows by more than `far` (n_problems,)
    trial, logits : the :class:`Trial` of the step, and the logits of its rows before
    wanted : (n_problems,), the most that a gap may be
    """
    rows, hessian, gap = objective.rows, None, evaluation.value
    little, left = TUNED.accuracy * wanted * rows.n_total / rows.n_classes, evaluation
    step = -newton.step
    most = host.minimum(wanted / TUNED.stronger, TUNED.stronger * near_minimum(evaluation))
    room = (newton.decrement <= most) & ~newton.broken
    if not (room & objective.penalty.strict).all():
        return None
    held = partial(_gap_blockwise.far_from_tails, far=far, little=little)
    held = trial.rows.sum(held, state=trial.rows.joined(trial.moved, logits), count=False)
    if to_numpy(held.values[0]).any():
        return None
    for _ in range(TUNED.look_back + 1):
        cut = partial(_gap_blockwise.cut_tails, far=far, little=little)
        sums = rows.sum(cut, step, left.state)
        before, after = (to_numpy(v) for v in sums.values)
        if not before.any() and hessian is not None:
            return WithoutTails(gap, left, hessian, step, hessian.trial(step).moved)
        if after.any():
            return None
        left = objective.again(replace(evaluation, state=sums.state))
        hessian = hessian_at(objective, left)
        lost = host.maximum(evaluation.value - left.value, 0.0)
        newton = newton_step(
            objective, hessian, left.gradient, precondition, share=TUNED.share_to_come,
            least=TUNED.decided_steps, most=TUNED.thorough_steps, limit=wanted, by_condition=True,
        )  # fmt: skip
        step, gap = -newton.step, lost + newton.decrement
        unknown = newton.broken | newton.limited | (newton.n_products == TUNED.thorough_steps)
        if (unknown | (gap > wanted)).any():
            return None
    return None
