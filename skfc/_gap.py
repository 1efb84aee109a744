"""How far the minimum is: half the Newton decrement, and where that is not to be believed."""

import numpy as np

from skfc._conjugate_gradients import newton_step

# Conjugate gradients on the Hessian, to this share of the decrement, and the most of their steps.
SHARE, MAX_STEPS = 0.3, 50
# Rows that a step moves by more, and by more than so many times what is typical, are moved far.
FAR, FARTHER, SOME = 0.2, 5, 500
# Where it moves most rows by more, it is not a step of a fit that is at its end.
WILD = 4.0
# The estimate is meant to be right within such a factor.
HONEST = 10


def relative(gap, value):
    """(F - F*) / F* from F - F* and F."""
    optimum = np.maximum(value - gap, np.finfo(float).tiny)
    return np.where(gap < value, gap / optimum, np.inf)


def confirm(iterate, which):
    """F - F* of the problems `which`, by the Hessian: the decrement, and what there may be.

    Where the solver has not taken the first from the Hessian in a metric of this point,
    conjugate gradients do.
    """
    objective, point, columns = iterate.objective, iterate.point, slice(None)
    part = len(which) < objective.n_problems
    if part:
        columns = objective.columns(which)
        objective, point = objective.take(which), point.take(which, columns)

    def own(solve):
        def solve_part(r):
            whole = np.zeros_like(iterate.point.gradient)
            whole[:, columns] = r
            return solve(whole)[:, columns]

        return solve_part if part else solve

    hessian = iterate.hessian(objective, point)
    if iterate.renew and not iterate.renew(iterate.point):
        step, decrement = iterate.step, iterate.decrement
    else:
        step, decrement, _ = newton_step(
            objective, hessian, point.gradient, own(iterate.precondition),
            share=SHARE, steps=(iterate.doubt, MAX_STEPS),
        )  # fmt: skip
    metric = own(iterate.metric or iterate.precondition)
    return decrement, beyond(objective, hessian, point, step, decrement, metric)


def beyond(objective, hessian, point, step, decrement, metric):
    """What there is to gain where `step` goes beyond where its model holds, else `decrement`.

    The curvature of a row changes by a factor of e at most where its logits move by one
    against each other (Bach 2010). A few rows that move far may have most of the curvature in
    some direction, as one that an outlier of a feature has in this feature, and be decided a
    little later: then the others tell what there is to gain. The direction is where the metric,
    in the place of H, sees the curvature of those rows.
    """
    moves = hessian.moves(step)
    far = moves > FAR
    if not far.any():
        return decrement
    some = np.sort(moves[:, :: 1 + moves.shape[1] // SOME], axis=1)
    typical = some[:, some.shape[1] // 2]
    most = np.maximum(decrement, np.where(typical > WILD, point.value / 2, 0.0))
    far &= moves > FARTHER * typical[:, None]
    if not far.any():
        return most
    direction = metric(hessian.of(far)(step))
    penalty = np.zeros_like(direction)
    objective.add_penalty(penalty, direction)
    curvature = np.sum(hessian.along(direction) * ~far, axis=1, dtype=np.float64)
    curvature += objective.dot(direction, penalty)
    slope = objective.dot(point.gradient, direction)
    gain = np.divide(0.5 * slope**2, curvature, out=np.zeros_like(slope), where=curvature > 0)
    return np.maximum(most, np.where(gain > HONEST * decrement, gain, 0.0))
