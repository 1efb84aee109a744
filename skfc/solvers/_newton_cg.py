"""Preconditioned, truncated Newton with a sampled Hessian, for one problem.

Values and gradients are exact, one pass per iterate. The step solves the Newton
equation by conjugate gradients in the metric (Steihaug 1983), on a Hessian from the rows
that matter (Byrd, Chin, Neveitt and Nocedal 2011). Few vectors, no history: the method
for wide sparse data.

Far from the minimum the quadratic model promises more than there is. There, a stronger
penalty has its minimum where the model holds, and the way to the one that was asked for
leads over a few of them, each a tenth of the one before. Later, rows that are all but
decided make single steps go too far: a stronger penalty in the model alone shortens a step
just in the directions that have little curvature (Levenberg 1944).
"""

from functools import partial

import numpy as np

from skfc._conjugate_gradients import newton_step
from skfc.solvers._iterate import Iterate, Start
from skfc.solvers._line_search import search

# The Newton equation is solved up to this share of the decrement, near the minimum and far.
FORCING, LOOSE = 0.2, 0.5
LEAST_STEPS, MAX_STEPS = 2, 100
# Steps are long here: a trial on the ray costs less than they do.
WOLFE = 0.25
# Near the minimum, below this share of the objective, a sample is large enough while a
# step leaves less than that share of the decrement.
NEAR = 0.03
CONTRACTION = 0.2
# A step from a sample keeps this share of what it promises, or else rows that matter are
# missing. One that promises so much less than the last may have missed what is left: far from
# the minimum it takes so many conjugate-gradient steps to be believed.
KEPT, COLLAPSE, DOUBT = 0.1, 0.03, 5
# Below this mean loss most rows are decided, and the few others make blocks too stiff in places:
# so many steps before the end of the fit is believed.
DECIDED, LAST_DOUBT = 0.05, 12
# A step of which less than this share is taken went beyond where its model holds.
SHORT = 0.5
# From a penalty to the next, once the decrement is below this share of the objective.
FACTOR, ARRIVED, MAX_LEVEL = 10.0, 0.3, 12


def newton_cg(objective, metric, weights):
    """Generate iterates from `weights`."""
    l2, exact, sampler = objective.l2, objective, metric.sampler
    objective = sampler.lighten(exact)
    light = objective.dtype
    point = objective.at(weights.astype(light))
    start = Start(weights, point.value)
    metric.update(objective, point)
    level, damping = level_of(objective, metric, point), 0
    before, n_steps = np.inf, 0
    whole = not objective.is_heavy
    stalled = np.zeros(1, dtype=bool)
    while True:
        here = l2 * FACTOR**level
        if (here != objective.l2).any():
            objective, point = objective.with_penalty(here, point)
        near = not level and before < NEAR * point.value[0]
        # In a poor metric few steps may miss directions that tell of the end, where the last
        # iteration has seen them.
        far = level or before > point.value[0]
        decided = point.value[0] < DECIDED
        least = max(LEAST_STEPS if far else metric.doubt, n_steps // 2)
        step, decrement, n_steps, damping = believable_step(
            objective, metric, point, light, before, max(damping - 1, 0),
            share=FORCING if near else LOOSE, steps=(least, MAX_STEPS),
        )  # fmt: skip
        if near and not sampler.takes_all and decrement[0] > CONTRACTION * before:
            sampler.size *= 2
        before = decrement[0]
        if level:
            # How far the minimum is cannot be seen from here: as far as can be.
            final, seen = objective.with_penalty(l2, point)
            yield Iterate(final, seen, seen.value, metric.solve, stalled, sampler.at, metric.doubt)
        else:
            seen = point.value if damping else decrement
            yield Iterate(
                objective, point, seen, metric.solve, stalled, sampler.at,
                max(LAST_DOUBT if decided else metric.doubt, n_steps),
                None if damping or (decided and n_steps < LAST_DOUBT) else metric.renew, step,
            )  # fmt: skip
        ray = objective.ray(point, -step, whole=whole)
        steps = search(ray, WOLFE)
        spent = not level and sampler.is_spent(objective, decrement, point.value)
        spent |= steps[0] == 0
        if spent and objective.precision != exact.precision:
            point = start.settle(exact, point.weights - step * steps)
            objective = exact
            continue
        if steps[0] == 0 and metric.renew(point):
            continue
        if steps[0] == 0:
            damping = 0
        elif steps[0] < SHORT and objective.penalised:
            damping = min(damping + 2, MAX_LEVEL)
            metric.strain()
        stalled = (steps == 0) & (level == 0)
        value = point.value
        point = ray.move(steps)
        if not sampler.takes_all and value[0] - point.value[0] < KEPT * decrement[0]:
            sampler.size *= 4
        if level and (decrement[0] < ARRIVED * point.value[0] or steps[0] == 0):
            level -= 1


def believable_step(objective, metric, point, dtype, before, damping, *, share, steps):
    """A Newton step that promises no more than F, of a penalty FACTOR**damping times as strong.

    F is not negative: a row that is on the wrong side for sure has a gradient but no
    curvature, and the model would go any way for it. Returns step (of `dtype`), decrement,
    its number of conjugate-gradient steps, and the damping that it took.
    """
    gradient = point.gradient.astype(dtype, copy=False)
    while True:
        model = objective.damped(FACTOR**damping)
        metric.update(model, point)
        newton = partial(
            newton_step, model, metric.sampler.at(model, point), gradient, metric.solve,
            most=point.value, share=share,
        )  # fmt: skip
        step, decrement, n_steps = newton(steps=steps)
        if decrement[0] < COLLAPSE * before < np.inf:
            far = before >= NEAR * point.value[0]
            least = max(steps[0], DOUBT) if far else steps[0]
            if metric.renew(point) or n_steps < least:
                step, decrement, n_steps = newton(steps=(least, steps[1]))
        if decrement[0] <= point.value[0] or not model.penalised or damping >= MAX_LEVEL:
            return step, decrement, n_steps, damping
        damping += 1


def level_of(objective, metric, point):
    """The least number of stronger penalties for which the model at `point` is believable.

    F is not negative. Where a step along the gradient, by the quadratic model, takes off
    more than all of F, the model does not hold.
    """
    step = metric.solve(point.gradient)
    W = objective._penalised(step)
    penalty = (objective.l2 * objective.dot(W, W))[0]
    slope = objective.dot(point.gradient, step)[0]
    if 0.5 * slope**2 <= penalty * point.value[0]:  # the data have some curvature too
        return 0
    curvature = objective.dot(step, metric.sampler.at(objective, point)(step))[0]
    missing = 0.5 * slope**2 / point.value[0] - curvature
    if not (missing > 0 and penalty > 0):
        return 0
    return int(min(np.ceil(np.log(1 + missing / penalty) / np.log(FACTOR)), MAX_LEVEL))
