"""Preconditioned, truncated Newton with a sampled Hessian, for one problem.

Values and gradients are exact, one pass per iterate. The step solves the Newton
equation by conjugate gradients in the metric (Steihaug 1983), on a Hessian from the rows
that matter (Byrd, Chin, Neveitt and Nocedal 2011). Few vectors, no history: the method
for wide sparse data.
"""

from functools import partial

import numpy as np

from skfc._conjugate_gradients import newton_step
from skfc._sampling import CurvatureSampler
from skfc.solvers._iterate import Iterate
from skfc.solvers._line_search import search

# The Newton equation is solved up to this share of the decrement, near the minimum and far.
FORCING, LOOSE = 0.2, 0.5
LEAST_STEPS, MAX_STEPS = 2, 100
# Near the minimum, below this share of the objective, a sample is large enough while a
# step leaves less than that share of the decrement.
NEAR = 0.03
CONTRACTION = 0.2


def newton_cg(objective, metric, weights):
    """Generate iterates from `weights`."""
    point = objective.at(weights)
    sampler = CurvatureSampler(objective, metric.coordinates)
    before = np.inf
    stalled = np.zeros(1, dtype=bool)
    while True:
        metric.refresh(point)
        gradient = point.gradient
        if objective.design.sparse:
            gradient = gradient.astype(np.float32)
        near = before < NEAR * point.value[0]
        hessian = sampler.at(objective, point)
        step, decrement = newton_step(
            objective, hessian, gradient, metric.solve,
            share=FORCING if near else LOOSE, steps=(LEAST_STEPS, MAX_STEPS),
        )  # fmt: skip
        if near and decrement[0] > CONTRACTION * before:
            sampler.size *= 2
        before = decrement[0]
        # In a poor metric the few steps may have missed directions: the driver takes more.
        check = partial(_same, hessian) if metric.doubt > LEAST_STEPS else None
        yield Iterate(objective, point, decrement, metric.solve, stalled, check, metric.doubt)
        ray = objective.ray(point, -step)
        steps = search(ray)
        stalled = steps == 0
        point = ray.move(steps)


def _same(hessian, objective, point):
    return hessian
