"""Stages of a fit: the objectives that lead to the one that was asked for.

Far from the minimum the quadratic model promises more than F, which cannot be. A fit then
begins with a stronger penalty, for which the model holds, and weakens it tenfold from stage
to stage (continuation). Products in single precision are enough until the minimum is near.
Both are stages: an objective, and the rule when to leave it.
"""

import math

from skfc._tuned import TUNED


class Stages:
    """The stages of one fit; `objective` is that of the present one.

    Parameters
    ----------
    exact : the objective that was asked for
    single : whether the solver may begin in single precision
    continuation : whether it may begin with a stronger penalty
    """

    def __init__(self, exact, *, single, continuation):
        self.exact = exact
        self.objective = exact.single() if single else exact
        self.level = None if continuation else 0

    @property
    def is_last(self):
        """Whether the present objective is the one that was asked for."""
        return self.level == 0 and self.objective.rows is self.exact.rows

    @property
    def may_end(self):
        """Whether a fit may end in this stage: at any precision, with its own penalty."""
        return not self.level

    def problems(self, index):
        """Go on with the problems `index`."""
        alike = self.objective.rows is self.exact.rows
        (self.exact,) = self.exact.problems(index)
        (part,) = (self.exact,) if alike else self.objective.problems(index)
        self.objective = part

    def asked(self, evaluation):
        """Value of the objective that was asked for at an evaluation of this stage."""
        if not self.level:
            return evaluation.value
        here, asked = self.objective.penalty, self.exact.penalty
        theta = evaluation.theta
        return evaluation.value + 0.5 * (asked.dot(theta, theta) - here.dot(theta, theta))

    def next(self, iterate, spent, kept):
        """The objective of the next stage, or None to stay in this one.

        `kept` are the problems of the iterate that go on; `spent` says that this stage has no
        more to give: an estimate of the gap broke down, or there is no more progress.
        """
        if self.level is None:
            self.level = level_of(iterate)
            if not self.level:
                return None
        elif self.level:
            value, stuck = iterate.evaluation.value[0], iterate.stalled[0]
            arrived = iterate.decrement[0] < TUNED.share_to_come * value
            if not (arrived or stuck or spent):
                return None
            self.level -= 1
        elif self.is_last or not (spent or self._is_spent(iterate, kept)):
            return None
        else:
            self.objective = self.exact
            return self.objective
        penalty = self.exact.penalty.scaled(TUNED.stronger**self.level)
        self.objective = self.objective.with_penalty(penalty)
        return self.objective

    def _is_spent(self, iterate, kept):
        """Whether single precision has brought a problem as far as it can."""
        value, decrement = iterate.evaluation.value[kept], iterate.decrement[kept]
        spent = (decrement < TUNED.single_digits * value) | (value < TUNED.small_loss)
        return bool((spent | iterate.stalled[kept]).any())


def level_of(iterate):
    """The least k for which the model holds with a penalty `stronger`**k times as strong.

    F is not negative: the model does not hold where it promises that a step along the
    preconditioned gradient lowers F by more than F.
    """
    objective, evaluation = iterate.objective, iterate.evaluation
    step = iterate.precondition(evaluation.gradient)
    penalty = objective.penalty.dot(step, step)[0]
    slope = objective.dot(evaluation.gradient, step)[0]
    if 0.5 * slope**2 <= penalty * evaluation.value[0]:  # the data have some curvature too
        return 0
    hessian = iterate.hessian(objective, evaluation)
    missing = 0.5 * slope**2 / evaluation.value[0] - objective.dot(step, hessian(step))[0]
    if not (missing > 0 and penalty > 0):
        return 0
    levels = math.ceil(math.log(1 + missing / penalty) / math.log(TUNED.stronger))
    return min(levels, TUNED.most_damping)


def step_in_log_C(Cs, i):
    """The step in log C from Cs[i] to the next, in units of the step before it.

    At most one, and zero where there was no step before, or the next C is infinite.
    """
    if i == 0 or i + 1 == len(Cs) or Cs[i] == Cs[i - 1] or not math.isfinite(Cs[i + 1]):
        return 0.0
    return min(math.log(Cs[i + 1] / Cs[i]) / math.log(Cs[i] / Cs[i - 1]), 1.0)
