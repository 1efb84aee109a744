"""Metrics: approximate Hessians in whose coordinates the gradient is followed.

A metric stands for an approximation M of the Hessian; `refresh` looks at an iterate, and
`solve` applies the inverse of M. All of them work on standardised features, see
:mod:`skfc._coordinates`: none depends on the units of the features, nor on where their
zero is.
"""

from skfc._coordinates import Coordinates
from skfc._metric._base import Diagonal, Identity
from skfc._metric._block_diagonal import BlockDiagonal
from skfc._metric._hessian import Hessian
from skfc._metric._kronecker import Kronecker, LowRank

__all__ = ["METRICS", "Diagonal", "Identity", "choose", "make_metric"]

# The ladder: the largest exact Hessian, and the largest eigenproblem.
HESSIAN_SIZE, HESSIAN_PASSES = 500, 10
BLOCKS_SIZE = 2**24
KRONECKER_SIZE = 3000

METRICS = {
    "hessian": Hessian,
    "block-diagonal": BlockDiagonal,
    "kronecker": Kronecker,
    "diagonal": Diagonal,
    None: Identity,
}


def make_metric(objective, name="auto"):
    """The metric called `name`; for "auto" the first of the ladder that is affordable."""
    if name == "auto":
        name = choose(objective)
    make = METRICS[name]
    if make is Kronecker and objective.design.shape[0] < objective.design.shape[1]:
        make = LowRank
    return make(objective, Coordinates(objective))


def choose(objective):
    """The ladder: what is affordable beside a pass over the data."""
    n, N = objective.design.shape
    small = objective.shape[0] * objective.n_classes <= HESSIAN_SIZE
    # Several problems take their steps together in it, and wait for it once.
    if small and (objective.n_problems > 1 or Hessian.passes(objective) <= HESSIAN_PASSES):
        return "hessian"
    if not objective.design.sparse and n >= N and objective.n_classes * N**2 <= BLOCKS_SIZE:
        return "block-diagonal"
    if min(n, N) <= KRONECKER_SIZE and not (objective.design.sparse and N > KRONECKER_SIZE):
        return "kronecker"
    return "diagonal"
