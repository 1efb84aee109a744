"""The methods, one file each, and a table of what each can do.

A solver is a generator: `solver(objective, preconditioner, theta)` yields an `Iterate` for
every step it has taken, the start included, and knows nothing of tolerances, iteration
limits, printing or warnings. What the driver sends back is a `Change`: the problems to go
on with, or another objective.
"""

from collections.abc import Callable
from dataclasses import dataclass

from skfc.solvers._gd import gd
from skfc.solvers._iterate import GO_ON, Change, Iterate
from skfc.solvers._lbfgs import lbfgs
from skfc.solvers._newton import newton
from skfc.solvers._newton_cd import newton_cd
from skfc.solvers._newton_cholesky import newton_cholesky
from skfc.solvers._proximal import proximal
from skfc.solvers._sgd import sgd

__all__ = ["GO_ON", "SOLVERS", "Change", "Iterate", "Solver", "choose_solver"]


@dataclass(frozen=True)
class Solver:
    """A method and what it can do."""

    generate: Callable
    batched: bool = False  # takes several problems that share their rows
    continuation: bool = False  # goes from strong penalties to weak ones
    single: bool = False  # may begin in single precision
    proximal: bool = False  # takes absolute values in the penalty; needs a penalty
    exact: bool = False  # takes the Hessian of all rows in the place of a preconditioner
    options: tuple = ()  # parameters of the estimator that it takes, by name


SOLVERS = {
    "lbfgs": Solver(lbfgs, batched=True, single=True),
    "newton-cg": Solver(newton, continuation=True, single=True),
    "newton-cholesky": Solver(newton_cholesky, single=True, exact=True),
    "gd": Solver(gd, options=("learning_rate", "momentum")),
    "sgd": Solver(sgd, options=("learning_rate", "momentum", "batch_size", "seed")),
    "newton-cd": Solver(newton_cd, proximal=True),
    "proximal": Solver(proximal, proximal=True),
}


def choose_solver(preconditioner):
    """The rule of `solver="auto"`, which goes by the class of the preconditioner.

    With the factor of a Hessian, every L-BFGS step is nearly a Newton step and costs one
    pass; where it takes many iterations all the same, Newton steps need fewer. Elsewhere
    Newton-CG needs the fewest passes, and the fewest vectors. Returns the name of the solver,
    and that of the solver to go on with after many iterations, in the Hessian where it is small.
    """
    return ("lbfgs" if preconditioner.is_newton else "newton-cg"), "newton-cg"
