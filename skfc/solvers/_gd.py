"""Full-batch gradient descent with Nesterov momentum, in the metric, for one problem.

The textbook algorithm. From x₀ = y₀,

    xₖ₊₁ = yₖ - rate M⁻¹ ∇F(yₖ)
    yₖ₊₁ = xₖ₊₁ + βₖ (xₖ₊₁ - xₖ)

with M = 1 without a preconditioner, and β = 0 without momentum. The iterates are the y:
one pass each gives their value and their gradient.
"""

import numpy as np

from skfc._metric import Diagonal, Identity
from skfc._objective import Objective
from skfc.solvers._iterate import Iterate
from skfc.solvers._line_search import ROUNDING

# The largest eigenvalue: Lanczos steps until the residual is this share of it.
ACCURACY = 0.01
MAX_STEPS = 30
# Share of the decrease that the slope promises: rate <= 1 / curvature, or just no rise.
SMOOTH, DESCENT = 0.5, 1e-4
MAX_HALVINGS = 40
# The metric looks at the iterates 1, 2, 4, 8 ..., and when F has fallen by this factor.
FALLEN = 0.5


def gd(objective, metric, weights, *, learning_rate="auto", momentum="auto"):
    """Generate iterates from `weights`.

    Parameters
    ----------
    learning_rate : a number is the constant rate. "auto" is 1 in a metric, and without one
        1 / L with L a bound of the curvature; F then never rises: where it would, the step
        is halved.
    momentum : a number is the constant β. "auto" is Nesterov's schedule, started again
        where it leads uphill (O'Donoghue and Candès 2015).
    """
    point = objective.at(weights)
    textbook = isinstance(metric, Identity)
    # Plain gradients do not say how far the minimum is: a cheap metric measures that.
    gauge = Diagonal(objective, metric.coordinates) if textbook else metric
    gauge.refresh(point)
    adaptive = learning_rate == "auto"
    start = natural_rate(objective, textbook) if adaptive else learning_rate
    rate, last, theta, n_iter = start, point.weights, 1.0, 0
    measured, stalled = point.value[0], np.full(1, rate == 0.0)
    while True:
        gradient = point.gradient
        direction = -metric.solve(gradient)
        measure = gauge.solve(gradient) if textbook else -direction
        decrement = 0.5 * objective.dot(measure, gradient)
        if learning_rate != "auto" and not np.isfinite(point.value + decrement).all():
            raise ValueError(
                f"The objective overflows at learning_rate={learning_rate!r}: the steps are "
                "too large. Lower it, or set it to 'auto'."
            )
        yield Iterate(
            objective, point, decrement, gauge.solve, stalled, Objective.curvature, gauge.doubt
        )
        ahead = point.weights + rate * direction
        uphill = np.vdot(gradient, ahead - last) > 0
        if momentum == "auto":
            before = 1.0 if uphill else theta
            theta = (1 + np.sqrt(1 + 4 * before**2)) / 2
            beta = (before - 1) / theta
        else:
            beta = 0.0 if uphill and adaptive else momentum
        ray = objective.ray(point, ahead + beta * (ahead - last) - point.weights)
        step = backtrack(ray, DESCENT if beta else SMOOTH) if adaptive else 1.0
        last, point = ahead, ray.move(np.full(1, step))
        n_iter += 1
        if step < 1.0:  # the momentum has led uphill; without it, the rate was too large
            stalled = np.full(1, step == 0.0 and beta == 0.0)
            rate *= 1.0 if beta else step
            last, theta = point.weights, 1.0
        power_of_two = n_iter & (n_iter - 1) == 0
        if power_of_two or point.value[0] < FALLEN * measured:
            gauge.refresh(point)
            measured = point.value[0]
            rate = start


def natural_rate(objective, textbook):
    """1 in a metric, and 1 / L without, which needs no search (Nesterov 1983)."""
    bound = largest_curvature(objective) if textbook else 1.0
    return 1.0 / bound if bound > 0 else 0.0


def backtrack(ray, share):
    """The first of 1, 1/2, 1/4 ... that gives `share` of what the slope promises, else 0."""
    if not ray.slope[0] < 0:  # rounding is all that is left of the gradient
        return 0.0
    start = ray.point.value[0]
    noise = ROUNDING[ray.logits.itemsize] * abs(start)
    step, which = 1.0, np.arange(1)
    value = ray.one[0]
    for _ in range(MAX_HALVINGS):
        if value[0] <= start + share * step * ray.slope[0] + noise:
            return step
        step /= 2
        value, _ = ray.evaluate(np.full(1, step), which)
    return 0.0


def largest_curvature(objective):
    """An upper bound of the largest eigenvalue of every Hessian of F.

    Böhning (1992): H ≼ ½ (I - 11ᵀ/T) ⊗ XᵀSX/s + λ. The first term is T/2 times the Hessian
    of the loss where all logits are zero; Lanczos finds its largest eigenvalue from
    below, and the residual is added for what may be missing.
    """
    half = objective.n_classes / 2
    curvature = objective.curvature(objective.at(np.zeros(objective.shape)))

    def bound(v):
        out = half * curvature(v)
        objective.add_penalty(out, (1 - half) * v)
        return out

    v = np.random.default_rng(0).standard_normal(objective.shape)
    basis, T = [v / np.linalg.norm(v)], np.zeros((MAX_STEPS + 1, MAX_STEPS + 1))
    for k in range(1, MAX_STEPS + 1):
        v = bound(basis[-1])
        T[k - 1, k - 1] = np.vdot(basis[-1], v)
        for q in 2 * basis:  # twice: once leaves rounding
            v -= q * np.vdot(q, v)
        residual = np.linalg.norm(v)
        if not np.isfinite(residual):
            return np.inf
        values, vectors = np.linalg.eigh(T[:k, :k])
        missing = residual * abs(vectors[-1, -1])
        if missing <= ACCURACY * values[-1] or residual == 0.0:
            break
        T[k, k - 1] = T[k - 1, k] = residual
        basis.append(v / residual)
    return values[-1] + missing
