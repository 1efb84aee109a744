r"""Separation: without a penalty, directions along which the loss falls for ever.

Classes are *separable* where some coefficients put every row on its side: scaled up, they lower
the loss towards zero. They are *quasi-separable* where a direction makes no row worse and some
rows better for ever, as the coefficient of a 0/1 column that one class never has (Albert and
Anderson 1984). There is no minimum in either case.

Newton steps show both. In the tail of a loss, e^-m of the margin m, a step raises the margin
by one: rows that the direction helps move by about a logit at every iteration, however small
the decrement has become, and none moves back.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from skfc import _softmax
from skfc._array import take, to_numpy
from skfc._conjugate_gradients import newton_step
from skfc._objective import HessianOperator
from skfc._tuned import TUNED


@dataclass(frozen=True)
class Separation:
    """What was found: `direction` (P, n_classes), and `classes`, indices of those it helps."""

    complete: bool
    direction: np.ndarray
    classes: np.ndarray


def complete(iterate):
    """A :class:`Separation` of every problem whose rows are all on their sides, else None."""
    objective, value = iterate.objective, iterate.evaluation.value
    found = [None] * len(value)
    near_zero = value < TUNED.small_loss
    suspect = ~objective.penalty.strict & near_zero & (iterate.decrement > 0.1 * value)
    if suspect.any():
        wrong = objective.rows.sum(
            _softmax.separation, state=iterate.evaluation.state, count=False
        )
        for b in np.flatnonzero(suspect & (to_numpy(wrong.values[0]) == 0)):
            theta = take(iterate.evaluation.theta, objective.columns(np.array([b])), axis=1)
            found[b] = Separation(True, theta, np.arange(objective.rows.n_classes))
    return found


def quasi(iterate, b):
    """The quasi-separation of problem `b`, or None: along its Newton step.

    Call it where the decrement is next to nothing and rows still move.
    """
    objective, evaluation = iterate.objective, iterate.evaluation
    step = newton_step(
        objective, iterate.hessian(objective, evaluation), evaluation.gradient,
        iterate.precondition, share=TUNED.share_to_come, least=TUNED.decided_steps,
        most=TUNED.most_confirming_steps,
    ).step  # fmt: skip
    operator = HessianOperator.of(objective, evaluation)
    function = partial(_softmax.margins, far=TUNED.far_logits)
    better, worse = operator.rows.sum(function, -step, operator.state).values
    better, worse = to_numpy(better), to_numpy(worse)
    helped = better[b] > 0
    if worse[b] > 0 or not helped.any():
        return None
    columns = objective.columns(np.array([b]))
    return Separation(False, -take(step, columns, axis=1), np.flatnonzero(helped))
