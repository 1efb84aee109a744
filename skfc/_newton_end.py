"""Where Newton's method leads from an end in doubt, and what it proves there.

A fit may have come to its minimum and not know it: rows that may hide others, or no step that
lowers the objective any more. Some steps with the Hessian of all rows, where that is small, bound
the minimum. The bound holds for every iterate, so that the gap of all of them is known.
"""

from dataclasses import dataclass

from skfc._array import Array, host
from skfc._dual_bound import bound_of_step
from skfc._optimality import lower_bound, relative
from skfc._preconditioner import affordable_steps, is_small, make
from skfc.solvers import GO_ON, SOLVERS


@dataclass(frozen=True)
class NewtonEnd:
    """Where it has led one problem: theta (P, T), F (1,) there, and a lower bound of F*."""

    theta: Array
    value: Array
    lower: float


def newton_end(objective, theta, tol, most):
    """The :class:`NewtonEnd` of a problem from `theta`, or None where its Hessian costs much.

    That is after a proof that F is within `tol` of its minimum, or after `most` steps: fewer
    where the Hessian is not small.
    """
    if not is_small(objective):
        most = min(most, affordable_steps(objective) - 1)
    if most < 0:
        return None
    hessian = make(objective, None, exact=True)
    hessian.in_double(objective)
    steps, lower = SOLVERS["newton-cholesky"].generate(objective, hessian, theta), -host.inf
    change = None
    for _ in range(most + 1):
        iterate = steps.send(change)
        change, value = GO_ON, iterate.evaluation.value
        if iterate.newton is not None and (iterate.decrement <= tol * value).all():
            lower = max(lower, lower_of(iterate, tol)[0])
        if iterate.stalled.any() or (relative(value - lower, value) <= tol).all():
            break
    steps.close()
    return NewtonEnd(iterate.evaluation.theta, value, lower)


def lower_of(iterate, tol):
    """A proven lower bound of F* (1,), by the penalty or by the Newton step of an iterate."""
    objective, evaluation = iterate.objective, iterate.evaluation
    wanted = tol * evaluation.value
    lower = lower_bound(objective, evaluation, wanted)
    if (evaluation.value - lower <= wanted).all() or not iterate.is_exact:
        return lower
    bound = bound_of_step(iterate, wanted, final=True)
    return host.maximum(lower, evaluation.value - bound)
