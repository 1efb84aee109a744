"""The methods, one file each, and a table of what each can do.

A solver is a generator: `solver(objective, metric, weights)` yields an `Iterate` for
every step it has taken, the start included, and knows nothing of tolerances, iteration
limits, printing or warnings. What the driver sends back are the problems to go on with.
"""

from collections.abc import Callable
from dataclasses import dataclass

from skfc.solvers._lbfgs import lbfgs
from skfc.solvers._newton_cg import newton_cg


@dataclass(frozen=True)
class Solver:
    """A method and what it can do."""

    generate: Callable
    l1: bool = False  # takes an L1 penalty
    batched: bool = False  # takes several problems that share their rows


SOLVERS = {
    "lbfgs": Solver(lbfgs, batched=True),
    "newton-cg": Solver(newton_cg),
}
