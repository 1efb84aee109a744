"""The driver round a solver: tolerance, iteration limit, history, progress, status."""

import sys
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from skfc._gap import confirm, relative
from skfc._memory import keep_freed_memory
from skfc._threads import one_of_several

# Iterations without a smaller decrement or value before rounding is held to be all that is left.
PATIENCE = 25
SEPARATED_VALUE = 1e-3


OVERFLOW = (
    "X holds values so large or so small that the arithmetic of {} overflows: rescale its columns."
)


@contextmanager
def arithmetic(design):
    """Numbers may leave their range quietly inside: what comes of it is a ValueError."""
    keep_freed_memory()
    try:
        with np.errstate(all="ignore"), one_of_several(on_pool=design.sparse):
            yield
    except np.linalg.LinAlgError as error:
        raise ValueError(OVERFLOW.format(design.dtype)) from error


class Status(Enum):
    """Why a fit ended."""

    CONVERGED = "converged"
    FLOOR = "at the floor of the arithmetic"
    STUCK = "no step lowers the objective, far above that floor"
    MAX_ITER = "max_iter reached"
    SEPARATED = "separable"


@dataclass
class Fit:
    """The outcome of one problem. `gap` estimates (F - F*) / F*."""

    weights: np.ndarray
    status: Status
    n_iter: int
    gap: float
    loss_curve: list = field(repr=False)


def solve(generate, objective, metric, weights, *, tol, max_iter, verbose=0):
    """Run a solver on every problem of `objective` to its end; returns a list of `Fit`.

    Parameters
    ----------
    generate : generator function of :mod:`skfc.solvers`
    weights : (P, K), the start
    """
    n = objective.n_problems
    fits, curves = [None] * n, [[] for _ in range(n)]
    which = np.arange(n)
    ratio, best, since = np.ones(n), np.full(n, np.inf), np.zeros(n, dtype=int)
    lowest = np.full(n, np.inf)
    solver = generate(objective, metric, weights)
    keep = None
    n_iter = 0
    while len(which):
        iterate = solver.send(keep)
        keep = None
        value, decrement = iterate.point.value, iterate.decrement
        if not (np.isfinite(value).all() and np.isfinite(decrement).all()):
            raise ValueError(OVERFLOW.format(iterate.point.logits.dtype))
        for problem, v in zip(which, value, strict=True):
            curves[problem].append(float(v))
        eps = np.finfo(iterate.point.logits.dtype).eps
        better = (decrement < best[which]) | (value < lowest[which] * (1 - 10 * eps))
        best[which] = np.minimum(decrement, best[which])
        lowest[which] = np.minimum(value, lowest[which])
        since[which] = np.where(better, 0, since[which] + 1)
        if verbose:
            report(n_iter, which, value, decrement, n, verbose)

        gap = relative(ratio[which] * decrement, value)
        near = gap <= tol
        separated = find_separated(iterate)
        level = value <= lowest[which] * (1 + 1e4 * eps)
        floor = iterate.stalled | ((since[which] >= PATIENCE) & level)
        last = np.full(len(which), n_iter >= max_iter)
        asked = np.flatnonzero((near | floor | last) & ~separated)
        if len(asked):
            confirmed, most = confirm(iterate, asked)
            gap[asked] = relative(most, value[asked])
            small = np.maximum(decrement[asked], np.finfo(float).tiny)
            if iterate.renew is None:
                ratio[which[asked]] = np.maximum(confirmed / small, 1.0)
        done = (gap <= tol) | floor | last | separated
        for j in np.flatnonzero(done):
            status = (
                Status.SEPARATED if separated[j]
                else Status.CONVERGED if gap[j] <= tol
                else Status.FLOOR if floor[j] and gap[j] <= np.sqrt(eps)
                else Status.STUCK if floor[j]
                else Status.MAX_ITER
            )  # fmt: skip
            columns = iterate.objective.columns(np.array([j]))
            fits[which[j]] = Fit(
                iterate.point.weights[:, columns], status, n_iter, float(gap[j]),
                curves[which[j]],
            )  # fmt: skip
        if done.any():
            keep = np.flatnonzero(~done)
            which = which[keep]
        n_iter += 1
    solver.close()
    return fits


def find_separated(iterate):
    """True where, without penalty, every row is on its side: the loss has no minimum.

    Newton steps then shrink the loss by a constant factor, the decrement with it.
    """
    value, share = iterate.point.value, iterate.decrement / iterate.point.value
    suspect = (iterate.objective.l2 == 0) & (value < SEPARATED_VALUE) & (share > 0.1)
    if suspect.any():
        suspect &= iterate.objective.separates(iterate.point)
    return suspect


def report(n_iter, which, value, decrement, n_problems, verbose):
    """One line of progress."""
    if n_iter % max(1, 10 // verbose**2) and verbose < 3:
        return
    left = f", {len(which)} of {n_problems} problems left" if n_problems > 1 else ""
    gap = relative(decrement, value).max()
    print(
        f"[skfc] iteration {n_iter}: objective {value.mean():.6g}, estimated gap {gap:.1e}{left}",
        file=sys.stdout,
        flush=True,
    )


def warn(fit, tol, max_iter):
    """Turn a status into a `ConvergenceWarning` that says what would help."""
    if fit.status is Status.MAX_ITER:
        warnings.warn(
            f"The fit stopped at max_iter={max_iter} with its objective an estimated "
            f"{fit.gap:.1e} above the minimum, relatively; tol={tol:g} was asked for. "
            "Raise max_iter or tol, or set preconditioner='auto' if it is not.",
            ConvergenceWarning,
            stacklevel=4,
        )
    elif fit.status is Status.STUCK:
        warnings.warn(
            "No further step lowered the objective in the arithmetic at hand: it is an "
            f"estimated {fit.gap:.1e} above the minimum, relatively; tol={tol:g} was asked "
            "for. Rescale extreme columns or weights, use float64, or set "
            "preconditioner='auto' if it is not.",
            ConvergenceWarning,
            stacklevel=4,
        )
    elif fit.status is Status.SEPARATED:
        warnings.warn(
            "The classes are separable: with C=inf the loss falls towards zero for ever "
            "and no coefficients are the best ones. The fit stopped at a mean loss of "
            f"{fit.loss_curve[-1]:.1e}, with every row on its side. A finite C gives a "
            "unique answer.",
            ConvergenceWarning,
            stacklevel=4,
        )
