"""What a solver yields to the driver."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from skfc._local import Point
from skfc._objective import Objective


@dataclass(frozen=True)
class Start:
    """Where a solver began: `weights` (P, K), and their `value` (n_problems,)."""

    weights: np.ndarray
    value: np.ndarray

    def take(self, keep, columns):
        return Start(self.weights[:, columns], self.value[keep])

    def settle(self, exact, weights):
        """The point at `weights` by exact passes.

        Where rounding has led those before astray, up from the start, it is the start again.
        """
        point = exact.at(weights)
        worse = np.flatnonzero(point.value > self.value)
        if not len(worse):
            return point
        columns = exact.columns(worse)
        weights[:, columns] = self.weights[:, columns]
        return exact.at(weights)


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
    step : (P, K), the Newton step that `decrement` has come from, where there is `renew`
    metric : the inverse of the metric, where that alone is not `precondition`
    """

    objective: Objective
    point: Point
    decrement: np.ndarray
    precondition: Callable
    stalled: np.ndarray
    hessian: Callable
    doubt: int
    renew: Callable | None = None
    step: np.ndarray | None = None
    metric: Callable | None = None
