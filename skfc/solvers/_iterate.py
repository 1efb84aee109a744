"""What a solver yields to the driver, and what it gets back."""

from collections.abc import Callable
from dataclasses import dataclass

from skfc._array import Array, cast
from skfc._conjugate_gradients import NewtonStep
from skfc._objective import Evaluation, Objective


@dataclass(eq=False)
class Iterate:
    """One iterate of the problems that are still being solved.

    Attributes
    ----------
    objective : the objective of these problems
    evaluation : where they are
    n_iter : how many steps have been taken
    decrement : (n_problems,), half the Newton decrement as the solver sees it; where `proven`
        a bound of F - F*
    precondition : an approximate inverse of the Hessian there, on arrays (P, K)
    hessian : function from objective and evaluation to the Hessian, exact or on a sample
    least_steps : the least conjugate-gradient steps of an estimate with `precondition`
    stalled : (n_problems,), True where no step lowers the value any more
    poor : whether `precondition` leaves out curvature even where it was formed
    whole : the Hessian of all rows by its factor, which `newton` is from, or None
    newton : the NewtonStep that `decrement` is from, where it is one on the Hessian with a
        preconditioner formed here; else None
    products : the same, wherever the preconditioner was formed
    nearly_exact : whether `precondition` is about the inverse of the Hessian of all rows of one
        problem, in double precision
    """

    objective: Objective
    evaluation: Evaluation
    n_iter: int
    decrement: Array
    precondition: Callable
    hessian: Callable
    least_steps: int
    stalled: Array
    poor: bool
    newton: NewtonStep | None = None
    whole: object = None
    proven: bool = False
    products: NewtonStep | None = None
    nearly_exact: bool = False

    @property
    def is_exact(self):
        """Whether the Newton step is that of the Hessian of all rows, so that a bound follows."""
        return self.newton is not None and self.newton.is_exact


@dataclass(eq=False)
class Change:
    """What the driver asks of a solver: problems to keep, and another objective.

    Where an estimate of the gap has found a Newton step `newton` that goes further than the
    solver's own, Newton's methods take that one. `nearly_done` says that the next iterate is
    likely to be the last.
    """

    keep: Array | None = None
    objective: Objective | None = None
    newton: NewtonStep | None = None
    nearly_done: bool = False


GO_ON = Change()


def enter(objective, other, evaluation, step=None):
    """Go on with another objective: itself, the evaluation there, and whether a step was taken.

    With the same rows nothing needs to be computed. On others a planned `step` is taken on the
    way, unless it leads up.
    """
    if other.rows is objective.rows:
        return (*objective.with_penalty(other.penalty, evaluation), 0)
    theta = cast(evaluation.theta, other.rows.parameter_dtype)
    if step is not None:
        found = other.at(theta + cast(step, theta.dtype))
        if (found.value <= evaluation.value).all():
            return other, found, 1
    return other, other.at(theta), 0
