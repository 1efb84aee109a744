"""Preconditioned, truncated Newton with a sampled Hessian, for one problem.

Values and gradients are exact, one pass per iterate. The step solves the Newton
equation by conjugate gradients in the metric (Steihaug 1983), on a Hessian from the rows
that matter (Byrd, Chin, Neveitt and Nocedal 2011). Few vectors, no history: the method
for wide sparse data.
"""

import numpy as np

from skfc._conjugate_gradients import newton_step
from skfc._sampling import CurvatureSampler
from skfc.solvers._iterate import Iterate
from skfc.solvers._line_search import search

# The Newton equation is solved up to this share of the decrement.
FORCING = 0.2
MAX_STEPS = 100
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
        step, decrement = newton_step(
            objective, sampler.at(objective, point), gradient, metric.solve,
            share=FORCING, steps=(metric.doubt, MAX_STEPS),
        )  # fmt: skip
        near = decrement[0] < NEAR * point.value[0]
        if near and decrement[0] > CONTRACTION * before:
            sampler.size *= 2
        before = decrement[0]
        yield Iterate(objective, point, decrement, metric.solve, stalled, None, metric.doubt)
        ray = objective.ray(point, -step)
        steps = search(ray)
        stalled = steps == 0
        point = ray.move(steps)
