"""What a solver yields to the driver."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from skfc._local import Point
from skfc._objective import Objective


@dataclass(frozen=True)
class Iterate:
    """One iterate of the problems that are still being solved.

    Attributes
    ----------
    objective : the objective of these problems
    point : where they are
    decrement : (n_problems,), half the Newton decrement as the solver sees it
    precondition : an approximate inverse of the Hessian at `point`, on arrays (P, K)
    stalled : (n_problems,), True where no step lowers the value any more
    hessian : function from the objective and the point to the Hessian, exact or from a
        sample of rows
    doubt : conjugate-gradient steps that a confirmation of `decrement` takes at least
    renew : where `decrement` has come from the Hessian, in a metric of an older point:
        function of the point that renews it, and returns whether there was need
    """

    objective: Objective
    point: Point
    decrement: np.ndarray
    precondition: Callable
    stalled: np.ndarray
    hessian: Callable
    doubt: int
    renew: Callable | None = None
