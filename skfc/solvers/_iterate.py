"""What a solver yields to the driver, and what it gets back."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from skfc._array import cast
from skfc._conjugate_gradients import NewtonStep
from skfc._objective import Evaluation, Objective


@dataclass(frozen=True)
class Iterate:
    """One iterate of the problems that are still being solved.

    Attributes
    ----------
    objective : the objective of these problems
    evaluation : where they are
    decrement : (n_problems,), half the Newton decrement as the solver sees it
    precondition : an approximate inverse of the Hessian there, on arrays (P, K)
    hessian : function from objective and evaluation to the Hessian, exact or on a sample
    least_steps : the least conjugate-gradient steps of an estimate with `precondition`
    stalled : (n_problems,), True where no step lowers the value any more
    doubtful : (n_problems,), True where the model did not hold at the last step
    newton : the NewtonStep that `decrement` is from, where it is one on the Hessian with a
        preconditioner formed here; else None
    """

    objective: Objective
    evaluation: Evaluation
    decrement: np.ndarray
    precondition: Callable
    hessian: Callable
    least_steps: int
    stalled: np.ndarray
    doubtful: np.ndarray
    newton: NewtonStep | None = None


@dataclass(frozen=True)
class Change:
    """What the driver asks of a solver: problems to keep, and another objective."""

    keep: np.ndarray | None = None
    objective: Objective | None = None


GO_ON = Change()


def enter(objective, evaluation, step=None):
    """The evaluation from which a solver goes on with another `objective`.

    With the same rows nothing needs to be computed. On others a planned `step` is taken on the
    way, unless it leads up.
    """
    theta = cast(evaluation.theta, objective.rows.parameter_dtype)
    if step is None:
        return objective.at(theta)
    found = objective.at(theta + step)
    worse = found.value > evaluation.value * (1 + 1e-3)
    if not worse.any():
        return found
    return objective.at(theta)
