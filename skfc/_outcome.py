"""How a fit ended: its outcome, its status, and the warning that says what would help."""

from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from skfc._runtime import warn_caller
from skfc._separation import Separation
from skfc._tuned import TUNED

OVERFLOW = (
    "X holds values so large or so small that the arithmetic of {} overflows: rescale its columns."
)


class Status(Enum):
    """Why a fit ended."""

    CONVERGED = "converged"
    FLOOR = "at the floor of the arithmetic"
    STUCK = "no step lowers the objective, far above that floor"
    MAX_ITER = "max_iter reached"
    SEPARATED = "separable"
    STOPPED = "stopped by a monitor"


@dataclass
class Fit:
    """The outcome of one problem.

    Attributes
    ----------
    theta : (P, n_classes), after one more Newton step where it has converged
    value : F before that step
    gap : (F - F*) / F* there, estimated, or where `proven` bounded
    C : the inverse strength of its penalty
    separation : why there is no minimum, where that was found
    switched : the name of the solver that it ended with, where that is another
    """

    theta: np.ndarray
    status: Status
    n_iter: int
    value: float
    gap: float
    proven: bool
    loss_curve: list = field(repr=False)
    C: float = np.inf
    separation: Separation | None = field(default=None, repr=False)
    switched: str | None = None


def status_of(converged, floor, separated, stopped, near):
    """The status of a problem that ends."""
    if separated:
        return Status.SEPARATED
    if converged:
        return Status.CONVERGED
    if floor:
        return Status.FLOOR if near else Status.STUCK
    return Status.STOPPED if stopped else Status.MAX_ITER


def warn(fit, tol, max_iter, method, labels, features, *, dtype=np.float64):
    """Turn a status into a `ConvergenceWarning` that says what would help.

    `dtype` is that of X.
    """
    if fit.status is Status.MAX_ITER:
        text = (
            f"The fit stopped at max_iter={max_iter} with its objective {distance(fit.gap)}; "
            f"tol={tol:g} was asked for. " + advice(method, "Raise max_iter or tol")
        )
    elif fit.status is Status.STUCK:
        general = "Rescale extreme columns or weights, lower C"
        general += ", use float64" if dtype == np.float32 else ""
        what = "No further step lowered the objective in the arithmetic at hand"
        if method.solver == "sgd" and method.learning_rate != "auto":
            general = "Lower learning_rate"
            what = f"The last {TUNED.patience} epochs of mini-batches did not lower the objective"
        text = f"{what}: it is {distance(fit.gap)}; tol={tol:g} was asked for. " + advice(
            method, general
        )
    elif fit.status is Status.SEPARATED:
        text = named(fit, labels, features)
    else:
        return
    warn_caller(text, ConvergenceWarning)


def distance(gap):
    """How far an objective is above its minimum, in words."""
    if np.isfinite(gap):
        return f"an estimated {gap:.1e} above the minimum, relatively"
    return "above the minimum by an unknown amount"


def named(fit, labels, features):
    """The warning of separation: its kind, the classes and the features."""
    found = fit.separation
    who = ", ".join(map(str, labels[found.classes].tolist()[:5]))
    what = ", ".join(features)
    if found.complete:
        kind = "separable: with C=inf the loss falls towards zero for ever"
        stop = f"at a mean loss of {fit.loss_curve[-1]:.1e}, with every row on its side"
    else:
        kind = (
            "quasi-separable: with C=inf some coefficients grow for ever, which makes rows "
            f"of class {who} more certain and no row less"
        )
        stop = f"at a mean loss of {fit.loss_curve[-1]:.3g}"
    return (
        f"The classes are {kind}, and no coefficients are the best ones. The features with "
        f"the largest share in this are {what}. The fit stopped {stop}. A finite C gives a "
        "unique answer."
    )


def advice(method, general):
    """What would help, by the parameters that are set."""
    if method.solver in ("gd", "sgd") and method.learning_rate != "auto":
        return f"{general}, or leave learning_rate={method.learning_rate!r} to 'auto'."
    if method.preconditioner != "auto":
        return f"{general}, or leave preconditioner={method.preconditioner!r} to 'auto'."
    return f"{general}."
