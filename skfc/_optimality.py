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
from skfc._array import host
from skfc._conjugate_gradients import newton_step
from skfc._objective import first_of, on_host
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
    least = TUNED.thorough_steps if thorough else iterate.least_steps
    if newton is None or thorough:
        newton = newton_step(
            objective, hessian, evaluation.gradient, precondition,
            share=TUNED.share_to_come, least=least, most=TUNED.most_confirming_steps,
        )  # fmt: skip
    far = hessian.far_share(newton.step, TUNED.far_logits) > TUNED.far_share
    poor = newton.n_products > TUNED.poor_after
    decided = evaluation.value < TUNED.decided_loss
    doubtful = far | newton.broken | (decided | poor if not thorough else False)
    return Estimate(newton.decrement, doubtful | iterate.doubtful[index])


def on_part(iterate, index):
    """The preconditioner of an iterate for gradients of the problems `index` alone."""
    columns = iterate.objective.columns(index)

    def solve(gradient):
        whole = iterate.evaluation.gradient * 0
        whole[:, columns] = gradient
        return iterate.precondition(whole)[:, columns]

    return solve


def lower_bound(objective, evaluation):
    """A proven lower bound of F*, (n_problems,): minus infinity without a penalty.

    About one pass: Newton's method on the intercepts, which needs no product with X, and
    the gradient there.
    """
    if not objective.penalty.strict.any():
        return host.full(objective.n_problems, -host.inf)
    if objective.rows.frame.fit_intercept:
        evaluation = with_best_intercepts(objective, evaluation)
    return evaluation.value - objective.penalty.conjugate(evaluation.gradient)


def with_best_intercepts(objective, evaluation):
    """The evaluation where the intercepts are the best ones for its coefficients.

    Newton's method on n_classes numbers with steps halved until the loss falls; the
    gradient of the intercepts is then zero but for rounding.
    """
    rows, B, T = objective.rows, objective.n_problems, objective.rows.n_classes
    state, shift = first_of(evaluation.state), host.zeros((B, T))
    loss, residual, S = intercept_model(rows, state, shift)
    for _ in range(TUNED.most_intercept_steps):
        # The null direction has no curvature: any will do.
        S = S + host.ones((T, T)) * (host.trace(S, axis1=1, axis2=2) / T**2)[:, None, None]
        S = S + host.eye(T) * host.finfo(float).tiny
        step = -host.linalg.solve(S, residual[:, :, None])[:, :, 0]
        t, slope = 1.0, (residual * step).sum()
        if not -slope > TUNED.intercept_slack * abs(loss).sum():
            break
        while t > TUNED.least_intercept_step:
            found = intercept_model(rows, state, shift + t * step)
            if found[0].sum() <= loss.sum() + 1e-4 * t * slope:
                break
            t /= 2
        shift, (loss, residual, S) = shift + t * step, found
    theta = evaluation.theta + 0
    theta[-1, :] += rows.xp.asarray(shift.ravel(), dtype=theta.dtype)
    function = partial(_softmax.evaluate_shifted, shift=shift.ravel())
    sums = rows.sum(function, state=state)
    return objective.from_sums(theta, sums)


def intercept_model(rows, state, shift):
    """Loss (B,), its gradient (B, T) and Hessian (B, T, T) in intercepts moved by `shift`."""
    function = partial(_softmax.intercept_model, shift=shift.ravel())
    loss, residual, S = rows.sum(function, state=state, count=False).values
    return on_host(loss), on_host(residual).reshape(shift.shape), on_host(S)
