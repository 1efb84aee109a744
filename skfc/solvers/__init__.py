"""The methods, one file each, and a table of what each can do.

A solver is a generator: `solver(objective, metric, weights)` yields an `Iterate` for
every step it has taken, the start included, and knows nothing of tolerances, iteration
limits, printing or warnings. What the driver sends back are the problems to go on with.
"""

from collections.abc import Callable
from dataclasses import dataclass

from skfc.solvers._gd import gd
from skfc.solvers._lbfgs import lbfgs
from skfc.solvers._newton_cg import newton_cg


@dataclass(frozen=True)
class Solver:
    """A method and what it can do."""

    generate: Callable
    l1: bool = False  # takes an L1 penalty
    batched: bool = False  # takes several problems that share their rows
    options: tuple = ()  # parameters of the estimator that it takes, by name


SOLVERS = {
    "lbfgs": Solver(lbfgs, batched=True),
    "newton-cg": Solver(newton_cg),
    "gd": Solver(gd, options=("learning_rate", "momentum")),
}


def choose_solver(metric):
    """The rule of `solver="auto"`, which goes by the metric.

    With the factor of a Hessian, every L-BFGS step is nearly a Newton step and costs one
    pass. Elsewhere Newton-CG needs the fewest passes, and the fewest vectors.
    """
    return "lbfgs" if metric.is_newton else "newton-cg"
