"""Preconditioned, truncated Newton on a sampled Hessian, for one problem.

Values and gradients are exact, one pass per iterate. The step solves the Newton equation by
preconditioned conjugate gradients (Steihaug 1983), on a Hessian from the rows that matter
(Byrd, Chin, Neveitt and Nocedal 2011). Few vectors, no history: the method for wide sparse
data.

Rows that are all but decided can make a step go too far, since their curvature grows along
the step. The model is then damped by a stronger penalty (Levenberg 1944), which shortens the
step in directions of little curvature only, until the objective falls by what the model
promises.
"""

from skfc._array import cast, host
from skfc._conjugate_gradients import newton_step, ratio
from skfc._tuned import TUNED
from skfc.solvers._iterate import Iterate, enter
from skfc.solvers._line_search import search


def newton(objective, preconditioner, theta):
    """Generate iterates from `theta`."""
    sampler = preconditioner.sampler
    evaluation = objective.at(cast(theta, objective.rows.parameter_dtype))
    preconditioner.update(objective, evaluation)
    damping, before, n_products, n_iter = 0, host.inf, 0, 0
    stalled, found, renew, factor = host.zeros(1, dtype=bool), None, False, 0.5
    decrement = most = evaluation.value  # not known yet
    while True:
        fresh, products = preconditioner.is_fresh(evaluation), None if damping else found
        change = yield Iterate(
            objective, evaluation, n_iter, most,
            preconditioner.solve, sampler.at, max(preconditioner.confirming_steps, n_products),
            stalled, preconditioner.is_poor, products if fresh else None, products=products,
        )  # fmt: skip
        if change.nearly_done:
            preconditioner.put_off()
        if change.newton is not None:
            found, fresh, damping = change.newton, True, 0
            n_products, decrement = found.n_products, found.decrement
        if change.objective is not None:
            step = found and -found.step
            objective, evaluation, moved = enter(objective, change.objective, evaluation, step)
            stalled, damping, n_iter = host.zeros(1, dtype=bool), 0, n_iter + moved
        elif found is not None:
            line = objective.line(evaluation, -found.step)
            steps = search(line, TUNED.wolfe_newton)
            stuck = (steps == 0) | (line.slope >= 0)  # or without a direction
            if not stuck[0] or renew or fresh:
                value, evaluation = evaluation.value, line.move(steps)
                kept = ratio(value - evaluation.value, decrement)[0]
                # A damped step goes elsewhere.
                ended = (line.slope >= 0) | (damping > 0) | (not objective.penalty.active)
                stalled, n_iter, renew = stuck & ended, n_iter + 1, False
                damping = damping_after(steps[0], damping, objective)
                missed, factor = left_out(decrement[0], before, value[0])
                if kept < TUNED.share_to_come or missed:
                    sampler.grow(2)
                before = decrement[0]
            else:  # the step was from an old preconditioner: once more from a new one
                renew = True
        found, damping, most = damped_step(
            objective, preconditioner, evaluation, damping, renew,
            least=max(preconditioner.least_steps, int(factor * n_products)),
        )  # fmt: skip
        n_products, decrement = found.n_products, found.decrement


def left_out(decrement, before, value):
    """Whether a step has left directions out, and the products of the next as a factor of its own.

    Near the minimum the decrement of a step is far below that of the step `before`.
    """
    near = before < TUNED.accuracy * value
    missed = bool(near and decrement > TUNED.share_to_come * before)
    return missed, 2.0 if missed and decrement > TUNED.smooth_share * before else 0.5


def damped_step(objective, preconditioner, evaluation, damping, renew, *, least):
    """A Newton step that promises no more than F, of a penalty 10**damping times as strong.

    F is not negative. A row that is on the wrong side with certainty has a gradient but no
    curvature, so that the model promises more than F. Returns the step, the damping, and the most
    that half the decrement may be without it.
    """
    gradient = cast(evaluation.gradient, objective.rows.parameter_dtype)
    hold = False
    while True:
        model = objective.with_penalty(penalty_of(objective, damping, hold))
        preconditioner.update(model, evaluation, renew=renew)
        found = newton_step(
            model, preconditioner.sampler.at(model, evaluation), gradient, preconditioner.solve,
            share=TUNED.share_to_come, least=least, most=TUNED.most_steps, limit=evaluation.value,
        )  # fmt: skip
        broken = bool(found.broken[0])
        if broken and preconditioner.in_double(objective):
            continue
        too_much = broken or found.decrement[0] > evaluation.value[0]
        if not too_much or not model.penalty.active or damping >= TUNED.most_damping:
            # With a penalty f times as strong the Hessian is at most f times as large.
            bound = host.inf if hold else found.decrement * TUNED.stronger**damping
            most = host.minimum(bound, evaluation.value) if damping else found.decrement
            return found, damping, most
        damping, hold = damping + 1, hold or broken


def penalty_of(objective, damping, hold):
    """The penalty of a damped model, to `hold` the intercepts as well.

    Those have none of their own, and of a class that is impossible no curvature either.
    """
    penalty, factor = objective.penalty, TUNED.stronger**damping
    if hold and objective.rows.frame.fit_intercept:
        return penalty.damped(factor)
    return penalty.scaled(factor)


def damping_after(step, damping, objective):
    """The next damping: more after a short step, since the model did not hold, else less."""
    short = step < TUNED.smooth_share and objective.penalty.active
    return min(damping + 1, TUNED.most_damping) if short else max(damping - 1, 0)
