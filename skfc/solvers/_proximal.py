"""Accelerated proximal gradient (Beck and Teboulle 2009), for one problem.

The textbook algorithm for an elastic net, in standardised features. From x₀ = y₀,

    xₖ₊₁ = prox(yₖ - ∇f(yₖ) / L)
    yₖ₊₁ = xₖ₊₁ + βₖ (xₖ₊₁ - xₖ)

with f the loss and the squares of the penalty, and the momentum started again where it leads
uphill (O'Donoghue and Candès 2015). L bounds the curvature along the step: it is doubled where
the step shows more, and falls slowly in between.
"""

from dataclasses import replace

from skfc._array import host
from skfc._duality import Dual
from skfc._tuned import TUNED
from skfc.solvers._gd import next_beta
from skfc.solvers._iterate import Iterate
from skfc.solvers._line_search import ROUNDING


def proximal(objective, preconditioner, theta):
    """Generate iterates from `theta`; no preconditioner takes part."""
    dual, steps = Dual.of(objective), accelerated(objective, theta)
    for n_iter, (evaluation, stalled) in enumerate(steps):
        yield certified(objective, dual, evaluation, n_iter, stalled)


def certified(objective, dual, evaluation, n_iter, stalled, *, near=True):
    """The iterate at an evaluation of the smooth part, with its proven gap.

    That is at least the square of the `violation`, as a share of F: where gradients are far
    beyond small thresholds, the gap alone can be small with all weights at zero. Unless the
    iterate is `near`, it is all of F, which costs nothing: no minimum is negative.
    """
    value = evaluation.value + objective.penalty.absolute(evaluation.theta)
    whole, gap = replace(evaluation, value=value), value
    if near:
        gap = host.maximum(dual.gap(evaluation), dual.violation(evaluation) ** 2 * value)
    return Iterate(
        objective, whole, n_iter, gap, precondition=None, hessian=None,
        least_steps=0, stalled=host.full(1, stalled), poor=False, proven=True,
    )  # fmt: skip


def accelerated(objective, theta):
    """Generate evaluations of the smooth part, the start included, and whether it is stuck."""
    smooth, penalty = objective.smooth, objective.penalty
    at = smooth.at(theta)
    there, weight, bound = at, 1.0, 1.0 / objective.rows.n_classes
    yield at, False
    while True:
        ahead, bound = proximal_step(smooth, penalty, there, bound)
        uphill = smooth.dot(there.theta - ahead.theta, ahead.theta - at.theta)[0] > 0
        stuck = not host.any(smooth.dot(ahead.theta - there.theta, ahead.theta - there.theta))
        beta, weight = next_beta("auto", weight, uphill, adaptive=True)
        beyond = ahead.theta + beta * (ahead.theta - at.theta)
        there = smooth.at(beyond) if beta else ahead
        at = ahead
        yield at, stuck and not beta


def itemsize_of(rows):
    """Bytes of a logit."""
    return 4 if rows.dtype == rows.xp.float32 else 8


def proximal_step(smooth, penalty, there, bound):
    """The evaluation after a proximal step, and the bound of the curvature that it took.

    No step is taken where none lowers F as its bound promises.
    """
    for _ in range(TUNED.most_steps):
        ahead = smooth.at(penalty.shrink(there.theta - there.gradient / bound, 1.0 / bound))
        step = ahead.theta - there.theta
        rise = smooth.dot(there.gradient, step) + 0.5 * bound * smooth.dot(step, step)
        noise = ROUNDING[itemsize_of(smooth.rows)] * there.value
        if ahead.value <= there.value + rise + noise:
            return ahead, bound
        bound *= 2
    return there, bound
