"""Full-batch gradient descent with Nesterov momentum, preconditioned, for one problem.

The textbook algorithm. From x₀ = y₀,

    xₖ₊₁ = yₖ - rate M⁻¹ ∇F(yₖ)
    yₖ₊₁ = xₖ₊₁ + βₖ (xₖ₊₁ - xₖ)

with M = 1 without a preconditioner, and β = 0 without momentum. The iterates are the y:
one pass each gives their value and their gradient.

Without a preconditioner the gradient is that of the coefficients of X as it is, so that a
constant rate means the same as in a textbook.
"""

import math

from skfc._array import host, random_normal
from skfc._preconditioner import Diagonal, Identity
from skfc._tuned import TUNED
from skfc.solvers._iterate import Iterate, enter
from skfc.solvers._line_search import ROUNDING


def gd(objective, preconditioner, theta, *, learning_rate="auto", momentum="auto"):
    """Generate iterates from `theta`.

    Parameters
    ----------
    learning_rate : a number is the constant rate. "auto" is 1 with a preconditioner, and without
        one 1 / L with L a bound of the curvature; F then never rises: where it would, the step
        is halved.
    momentum : a number is the constant β. "auto" is Nesterov's schedule, started again
        where it leads uphill (O'Donoghue and Candès 2015).
    """
    evaluation = objective.at(theta)
    textbook = isinstance(preconditioner, Identity)
    # Plain gradients do not say how far the minimum is: a cheap preconditioner measures that.
    measure = Diagonal(objective) if textbook else preconditioner
    measure.update(objective, evaluation, renew=True)
    adaptive = learning_rate == "auto"
    start = natural_rate(objective, textbook) if adaptive else learning_rate
    rate, last, weight, n_iter = start, evaluation.theta, 1.0, 0
    measured, stalled = evaluation.value[0], host.full(1, rate == 0.0)
    while True:
        gradient = evaluation.gradient
        direction = -preconditioner.solve(gradient)
        measured_step = measure.solve(gradient) if textbook else -direction
        decrement = 0.5 * objective.dot(measured_step, gradient)
        if not adaptive:
            raise_for_overflow(evaluation.value + decrement, learning_rate)
        change = yield Iterate(
            objective, evaluation, n_iter, decrement, measure.solve, whole_hessian,
            measure.confirming_steps, stalled, measure.is_poor,
        )  # fmt: skip
        if change.objective is not None:
            objective, evaluation, _ = enter(objective, change.objective, evaluation)
            last, weight = evaluation.theta, 1.0
            continue
        ahead = evaluation.theta + rate * direction
        uphill = objective.dot(gradient, ahead - last)[0] > 0
        beta, weight = next_beta(momentum, weight, uphill, adaptive)
        line = objective.line(evaluation, ahead + beta * (ahead - last) - evaluation.theta)
        share = TUNED.armijo if beta else TUNED.smooth_share
        step = backtrack(line, share) if adaptive else 1.0
        last, evaluation = ahead, line.move(host.full(1, step))
        n_iter += 1
        if step < 1.0:  # the momentum has led uphill; without it, the rate was too large
            stalled = host.full(1, step == 0.0 and beta == 0.0)
            rate *= 1.0 if beta else step
            last, weight = evaluation.theta, 1.0
        # The preconditioner is formed at iterates 1, 2, 4, 8 ..., and when F has halved.
        if n_iter & (n_iter - 1) == 0 or evaluation.value[0] < 0.5 * measured:
            measure.update(objective, evaluation, renew=True)
            measured, rate = evaluation.value[0], start


def raise_for_overflow(value, learning_rate):
    """Raise where the objective overflows at a constant rate."""
    if not host.isfinite(value).all():
        raise ValueError(
            f"The objective overflows at learning_rate={learning_rate!r}: the steps are "
            "too large. Lower it, or set it to 'auto'."
        )


def next_beta(momentum, weight, uphill, adaptive):
    """β, and the next weight of Nesterov's schedule, which begins with one."""
    if momentum != "auto":
        return 0.0 if uphill and adaptive else momentum, weight
    before = 1.0 if uphill else weight
    weight = (1 + math.sqrt(1 + 4 * before**2)) / 2
    return (before - 1) / weight, weight


def whole_hessian(objective, evaluation):
    """The Hessian on all rows."""
    return objective.hessian(evaluation)


def natural_rate(objective, textbook):
    """1 with a preconditioner, and 1 / L without, which needs no search (Nesterov 1983)."""
    bound = largest_curvature(objective) if textbook else 1.0
    return 1.0 / bound if bound > 0 else 0.0


def backtrack(line, share):
    """The first of 1, 1/2, 1/4 ... that gives `share` of what the slope promises, else 0."""
    if not line.slope[0] < 0:  # rounding is all that is left of the gradient
        return 0.0
    start = line.evaluation.value[0]
    noise = ROUNDING[line.itemsize] * abs(start)
    step, value = 1.0, line.at_unit_step[0]
    for _ in range(TUNED.patience):
        if value[0] <= start + share * step * line.slope[0] + noise:
            return step
        step /= 2
        value, _ = line.at(host.full(1, step), host.arange(1))
    return 0.0


def largest_curvature(objective):
    """An upper bound of the largest eigenvalue of every Hessian of F, in the units of X.

    Böhning (1992): H ≼ ½ (I - 11ᵀ/T) ⊗ XᵀSX/s + λ. The first term is T/2 times the Hessian
    of the loss where all logits are zero; Lanczos finds its largest eigenvalue from
    below, and the residual is added for what may be missing.
    """
    xp = objective.rows.xp
    half, frame = objective.rows.n_classes / 2, objective.rows.frame
    v = xp.zeros(objective.shape, dtype=xp.float64)
    curvature = objective.hessian(objective.at(v))

    def bound(v):
        v = frame.step_from_user(v)
        out = half * curvature(v)
        objective.penalty.add_gradient(out, (1 - half) * v)
        return frame.gradient_to_user(out)

    def norm(v):
        return math.sqrt(objective.dot(v, v)[0])

    v = random_normal(objective.shape, v)
    most = TUNED.thorough_steps
    basis, T = [v / norm(v)], host.zeros((most + 1, most + 1))
    for k in range(1, most + 1):
        v = bound(basis[-1])
        T[k - 1, k - 1] = objective.dot(basis[-1], v)[0]
        for q in 2 * basis:  # twice: once leaves rounding
            v = v - q * float(objective.dot(q, v)[0])
        residual = norm(v)
        if not host.isfinite(residual):
            return host.inf
        values, vectors = host.linalg.eigh(T[:k, :k])
        missing = residual * abs(vectors[-1, -1])
        if missing <= TUNED.accuracy * values[-1] or residual == 0.0:
            break
        T[k, k - 1] = T[k - 1, k] = residual
        basis.append(v / residual)
    return float(values[-1] + missing)
