"""Preconditioned L-BFGS (Nocedal 1980), for problems in lock-step.

The inverse of the metric stands where the textbook has a multiple of the identity. All
problems of a batch take their iterations together, each with its own step, and leave
when the driver drops them.
"""

from functools import partial

import numpy as np

from skfc.solvers._iterate import Iterate, Start
from skfc.solvers._line_search import search

MEMORY = 10


def lbfgs(objective, metric, weights):
    """Generate iterates from `weights`; a sent index array keeps those problems only."""
    exact, objective = objective, metric.sampler.lighten(objective)
    point = objective.at(weights)
    start = Start(weights, point.value)
    metric.refresh(point)
    pairs, n_iter = [], 0
    fresh = stalled = np.zeros(objective.n_problems, dtype=bool)
    while True:
        precondition = partial(inverse_product, objective, metric, pairs)
        direction = -precondition(point.gradient)
        decrement = -0.5 * objective.dot(direction, point.gradient)
        keep = yield Iterate(
            objective, point, decrement, precondition, stalled, metric.sampler.at, metric.doubt,
            metric=metric.solve,
        )  # fmt: skip
        if keep is not None:
            columns = objective.columns(keep)
            exact, objective = exact.take(keep), objective.take(keep)
            metric.take(objective, keep)
            point, direction, fresh = point.take(keep, columns), direction[:, columns], fresh[keep]
            decrement, start = decrement[keep], start.take(keep, columns)
            pairs = [(s[:, columns], y[:, columns], rho[keep]) for s, y, rho in pairs]
        ray = objective.ray(point, direction)
        steps = search(ray)
        weights, gradient = point.weights, point.gradient
        stuck = steps == 0
        spent = stuck.any() or metric.sampler.is_spent(objective, decrement, point.value)
        if spent and objective.precision != exact.precision:
            objective, stuck = exact, np.zeros_like(stuck)
            point = start.settle(exact, weights + direction * exact.spread(steps))
        else:
            point = ray.move(steps)
        n_iter += 1
        # Where no step was found, old curvature may have misled: forget it. Nothing to
        # forget means that rounding is all that is left.
        stalled = stuck & fresh
        fresh = stuck
        if metric.is_due(n_iter):
            metric.refresh(point)
            if metric.is_newton:
                pairs = []
                continue
        s, y = point.weights - weights, point.gradient - gradient
        curvature = objective.dot(s, y)
        usable = curvature > 0
        rho = np.divide(1.0, curvature, out=np.zeros_like(curvature), where=usable)
        pairs = [(s, y, np.where(stuck, 0.0, rho)) for s, y, rho in pairs[1 - MEMORY :]]
        pairs.append((s, y, rho))


def inverse_product(objective, metric, pairs, vector):
    """H v by the two-loop recursion, the inverse of the metric in its middle."""
    q = vector.copy()
    alphas = []
    for s, y, rho in reversed(pairs):
        alpha = rho * objective.dot(s, q)
        q -= y * objective.spread(alpha)
        alphas.append(alpha)
    q = metric.solve(q)
    for (s, y, rho), alpha in zip(pairs, reversed(alphas), strict=True):
        beta = rho * objective.dot(y, q)
        q += s * objective.spread(alpha - beta)
    return q
