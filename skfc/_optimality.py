r"""How far the minimum is: estimated, and where there is a bound, proven.

The estimate is half the Newton decrement, F - F* ≈ ½ ∇ᵀ H⁻¹ ∇, by conjugate gradients on
the Hessian. It is right to third order, and says nothing of directions that they have not
seen, nor of rows whose curvature is about to change.

The proof is duality. With the intercepts at their optimum the probabilities are dual
feasible, and

    F* >= F - R*(∇_W F),      R*(g) = sum_jk g_jk² / (2 lambda d_j)

with no constant and no model. It is loose where it is taken, but the minimum stays above it:
one Newton step later it is tight. Without a penalty there is no such bound.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from skfc import _softmax
from skfc._array import host, take
from skfc._conjugate_gradients import newton_step
from skfc._objective import on_host
from skfc._tuned import TUNED


@dataclass(frozen=True)
class Estimate:
    """Estimates of F - F* of some problems.

    Attributes
    ----------
    decrement : (n_problems,), half the Newton decrement
    doubtful : (n_problems,) of bool: it says little, for a reason that was seen
    """

    decrement: np.ndarray
    doubtful: np.ndarray


def relative(gap, value):
    """(F - F*) / F* from F - F* and F."""
    optimum = host.maximum(value - gap, host.finfo(float).tiny)
    return host.where(gap < value, gap / optimum, host.inf)


def estimate(iterate, index, *, thorough=False):
    """The estimate of the problems `index` of an iterate, on the Hessian.

    Where the solver has not taken its own from the Hessian, with enough steps and a
    preconditioner formed at this iterate, conjugate gradients do; `thorough` ones take more
    steps, on all rows.
    """
    objective, evaluation = iterate.objective, iterate.evaluation
    precondition = iterate.precondition
    if len(index) < objective.n_problems:
        precondition = on_part(iterate, index)
        objective, evaluation = objective.problems(index, evaluation)
    if thorough:
        hessian = objective.hessian(evaluation)
    else:
        hessian = iterate.hessian(objective, evaluation)
    newton = iterate.newton
    decided = evaluation.value < TUNED.decided_loss
    least = TUNED.decided_steps if decided.any() else iterate.least_steps
    least = TUNED.thorough_steps if thorough else least
    if newton is None or newton.n_products < least:
        newton = newton_step(
            objective, hessian, evaluation.gradient, precondition,
            share=TUNED.share_to_come, least=least, most=TUNED.most_confirming_steps,
        )  # fmt: skip
    doubtful = newton.broken | outgrown(objective, hessian, evaluation, newton, precondition)
    return Estimate(newton.decrement, doubtful)


def outgrown(objective, hessian, evaluation, newton, precondition):
    """Whether the Newton step goes beyond where its model holds, (n_problems,).

    The curvature of a row changes by a factor of e at most where its logits move by one
    against each other (Bach 2010). A few rows that move far may have most of the curvature in
    some direction, as one that an outlier of a feature has in this feature, and be decided a
    little later: then the others gain there what the model does not promise. The direction is
    where the preconditioner, in the place of H, sees the curvature of those rows.
    """
    mean, moved = hessian.movement(newton.step)
    far = host.maximum(TUNED.far_logits, TUNED.farther * mean)
    some, others = hessian.parts(newton.step, moved, far)
    wild = mean > TUNED.wild
    if not (some > TUNED.far_share * (some + others)).any():
        return wild
    direction = precondition(hessian.beyond(newton.step, moved, far))
    _, others = hessian.parts(direction, moved, far)
    curvature = others + objective.penalty.dot(direction, direction)
    slope = objective.dot(evaluation.gradient, direction)
    gain = host.divide(0.5 * slope**2, curvature, out=host.zeros_like(slope), where=curvature > 0)
    return wild | (gain > TUNED.honest * newton.decrement)


def on_part(iterate, index):
    """The preconditioner of an iterate for gradients of the problems `index` alone."""
    columns, T = iterate.objective.columns(index), iterate.objective.rows.n_classes

    def solve(gradient):
        whole = iterate.evaluation.gradient * 0
        for k, b in enumerate(index.tolist()):
            whole[:, b * T : (b + 1) * T] = gradient[:, k * T : (k + 1) * T]
        return take(iterate.precondition(whole), columns, axis=1)

    return solve


def lower_bound(objective, evaluation, wanted):
    """A proven lower bound of F*, (n_problems,): minus infinity without a penalty.

    The intercepts of the minimum are taken to be within `farthest_intercept` of these, so
    that a gradient of theirs that is not quite zero is a term of the bound. Where that term is
    more than `wanted`, the intercepts are moved to their optimum first: about half a pass.
    """
    if not objective.penalty.strict.any():
        return host.full(objective.n_problems, -host.inf)
    slack = slack_of_intercepts(objective, evaluation)
    for _ in range(TUNED.most_intercept_steps):
        if (slack <= wanted).all():
            break
        evaluation = with_better_intercepts(objective, evaluation)
        before, slack = slack, slack_of_intercepts(objective, evaluation)
        if not (slack < before).any():
            break
    return evaluation.value - objective.penalty.conjugate(evaluation.gradient) - slack


def slack_of_intercepts(objective, evaluation):
    """What the gradient of the intercepts may hide, (n_problems,)."""
    if not objective.rows.frame.fit_intercept:
        return host.zeros(objective.n_problems)
    gradient = on_host(evaluation.gradient[-1, :]).reshape(objective.n_problems, -1)
    return TUNED.farthest_intercept * host.abs(gradient).sum(axis=1)


def with_better_intercepts(objective, evaluation):
    """The evaluation after a Newton step of the intercepts alone, in which W stays."""
    rows, B, T = objective.rows, objective.n_problems, objective.rows.n_classes
    S = class_curvature(objective, evaluation)
    # The null direction has no curvature: any will do.
    S = S + (host.trace(S, axis1=1, axis2=2) / T**2)[:, None, None]
    residual = on_host(evaluation.gradient[-1, :]).reshape(B, T)
    residual = residual - residual.mean(axis=1, keepdims=True)
    shift = -host.linalg.pinv(S) @ residual[:, :, None]
    theta = evaluation.theta + 0
    theta[-1, :] += rows.xp.asarray(shift.ravel(), dtype=theta.dtype)
    function = partial(_softmax.evaluate_shifted, shift=shift.ravel())
    return objective.from_sums(theta, rows.sum(function, state=evaluation.state))


def class_curvature(objective, evaluation):
    """The weighted mean of diag(p) - p pᵀ over all rows, (n_problems, T, T)."""
    function = partial(_softmax.class_curvature, stride=1)
    sums = objective.rows.sum(function, state=evaluation.state, count=False)
    return on_host(sums.values[0])
