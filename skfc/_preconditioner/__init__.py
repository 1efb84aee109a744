"""Preconditioners: approximate Hessians in which the gradient is followed.

A preconditioner stands for an approximation M of the Hessian in standardised features;
`update` looks at an evaluation where that is due, and `solve` applies the inverse of M.
"""

from skfc._preconditioner._base import (
    Diagonal,
    Identity,
    Preconditioner,
    passes_of,
    work_of_pass,
)  # fmt: skip
from skfc._preconditioner._block_diagonal import BlockDiagonal, blocks_operations
from skfc._preconditioner._deferred import kronecker
from skfc._preconditioner._exact import ExactHessian
from skfc._preconditioner._full import FullHessian
from skfc._preconditioner._kronecker import Kronecker, eigen_operations
from skfc._tuned import TUNED

__all__ = [
    "PRECONDITIONERS",
    "Diagonal",
    "ExactHessian",
    "Identity",
    "Preconditioner",
    "choose",
    "exact",
    "exact_later",
    "make",
]

PRECONDITIONERS = {
    "hessian": FullHessian,
    "block-diagonal": BlockDiagonal,
    "kronecker": Kronecker,
    "diagonal": Diagonal,
    None: Identity,
}


def make(objective, name, exact=False, deferred=False):
    """The preconditioner called `name`, or the `exact` Hessian of all rows at every iterate.

    With `deferred` the Kronecker form may begin as the diagonal where it costs much.
    """
    if exact:
        return ExactHessian(objective)
    kind = PRECONDITIONERS[name]
    if kind is BlockDiagonal:
        return BlockDiagonal(objective, deferred)
    return kronecker(objective, deferred) if kind is Kronecker else kind(objective)


def choose(objective, *, in_batches=False):
    """The name of the first of the ladder that is affordable beside a pass over the data.

    Blocks of many features miss the curvature of rows that only some batches have: steps
    `in_batches` would have to be very short.
    """
    rows = objective.rows
    n, N = rows.shape
    small = objective.shape[0] * rows.n_classes <= TUNED.hessian_size
    # Several problems take their steps together in it, and wait for it once.
    several = objective.n_problems > 1
    if small and (several or FullHessian.passes(objective) <= TUNED.most_passes):
        return "hessian"
    even = passes_of(objective, eigen_operations(objective)) <= TUNED.most_passes
    unsafe = in_batches and TUNED.hessian_size <= N and even
    dense = n >= 2 * N and not unsafe and rows.n_classes * N**2 <= TUNED.few_numbers
    if dense and (
        not rows.sparse or passes_of(objective, blocks_operations(objective)) <= TUNED.most_passes
    ):
        return "block-diagonal"
    return "kronecker" if even else "diagonal"


def exact(objective, evaluation):
    """The Hessian at an evaluation by its factor, in double precision, or None where it is large.

    The gap of a fit that another preconditioner has brought to its end is estimated with it.
    """
    hessian = exact_later(objective)
    if hessian is not None:
        hessian.in_double(objective)
        hessian.update(objective, evaluation)
    return hessian


def exact_later(objective):
    """The preconditioner that is the Hessian, not formed yet, or None where it is large.

    Where passes are short, it may cost more than `choose` allows it. It is that of all rows
    where that costs little.
    """
    size = objective.shape[0] * objective.rows.n_classes
    if size > TUNED.hessian_size or (
        FullHessian.operations(objective) > TUNED.few_numbers
        and FullHessian.passes(objective) > TUNED.most_passes
    ):
        return None
    whole = FullHessian.is_small(objective) or is_free(objective)
    return ExactHessian(objective) if whole else FullHessian(objective)


def is_small(objective):
    """Whether the Hessian of all rows is small, costs little, and has curvature everywhere.

    Without a penalty, a row or more for every parameter are needed for that: elsewhere products
    with the inverse hold rounding alone.
    """
    P, strict = objective.shape[0], objective.penalty.strict.all()
    small = P * objective.rows.n_classes <= TUNED.hessian_size
    return small and FullHessian.is_small(objective) and (strict or objective.rows.shape[0] > P)


def is_cheap(objective):
    """Whether the Hessian of all rows is small, and costs little from the first step on."""
    work = FullHessian.work_of_all(objective)
    few = work <= min(TUNED.few_numbers, TUNED.most_passes * work_of_pass(objective))
    return few and is_small(objective)


def is_whole_affordable(objective):
    """Whether the Hessian of all rows is small, of however many rows: it costs 100 passes at most.

    As in :func:`is_small` it must have curvature everywhere.
    """
    P, n = objective.shape[0], objective.rows.shape[0]
    bent = objective.penalty.strict.all() or n > P
    few = P * objective.rows.n_classes <= TUNED.hessian_size
    return few and bent and objective.n_problems == 1


def passes_of_whole(objective):
    """What the Hessian of all rows costs, in passes over the data, about."""
    return FullHessian.work_of_all(objective) / work_of_pass(objective)


def affordable_steps(objective):
    """How many steps with the Hessian of all rows cost no more than a preconditioner may."""
    if not is_whole_affordable(objective):
        return 0
    return int(TUNED.most_passes / passes_of_whole(objective))


def is_worth_switching(objective):
    """Whether the Hessians that Newton's method takes from a step on, about three, cost little."""
    return affordable_steps(objective) >= TUNED.look_back


def is_free(objective):
    """Whether there is no penalty, and the Hessian of all of many rows costs little.

    Products with a Hessian on a sample may then miss more than anywhere else.
    """
    large = not (FullHessian.is_small(objective) or objective.penalty.strict.any())
    return large and affordable_steps(objective) > 0
