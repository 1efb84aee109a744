"""Preconditioned, truncated Newton on a sampled Hessian, for one problem.

Values and gradients are exact, one pass per iterate. The step solves the Newton equation by
preconditioned conjugate gradients (Steihaug 1983), on a Hessian from the rows that matter
(Byrd, Chin, Neveitt and Nocedal 2011). Few vectors, no history: the method for wide sparse
data.

Rows that are all but decided make single steps go too far: their curvature is of another
size where the step ends. The model is then damped by a stronger penalty (Levenberg 1944),
which shortens a step just in the directions of little curvature, until the objective falls
by what the model promises.
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
    damping, before, n_products = 0, host.inf, 0
    stalled = doubtful = host.zeros(1, dtype=bool)
    renew = False
    while True:
        model, found, damping = damped_step(
            objective, preconditioner, evaluation, damping, renew,
            least=max(preconditioner.least_steps, n_products // 2),
        )  # fmt: skip
        n_products, decrement = found.n_products, found.decrement
        fresh = preconditioner.is_fresh(evaluation)
        change = yield Iterate(
            objective, evaluation, decrement if not damping else evaluation.value,
            preconditioner.solve, sampler.at, max(preconditioner.least_steps, n_products),
            stalled, doubtful, found if fresh and not damping else None,
        )  # fmt: skip
        if change.objective is not None:
            other = change.objective
            if other.rows is objective.rows:
                objective, evaluation = objective.with_penalty(other.penalty, evaluation)
            else:
                evaluation = enter(
                    other, evaluation, -cast(found.step, other.rows.parameter_dtype)
                )
                objective = other
            stalled = host.zeros(1, dtype=bool)
            continue
        line = objective.line(evaluation, -found.step, with_gradient=not is_heavy(objective))
        steps = search(line, TUNED.wolfe_newton)
        stuck = steps[0] == 0
        if stuck and not renew and not fresh:
            renew = True  # the step was from an old preconditioner: once more from a new one
            continue
        renew = False
        value, promised = evaluation.value, decrement
        evaluation = line.move(steps)
        kept = ratio(value - evaluation.value, promised)[0]
        stalled = steps == 0
        doubtful = steps < TUNED.short_step
        if steps[0] < TUNED.short_step and objective.penalty.active:
            damping = min(damping + 1, TUNED.most_damping) if not stuck else 0
        else:
            damping = max(damping - 1, 0)
        missed = decrement[0] > TUNED.contraction * before < TUNED.near * value[0]
        if kept < TUNED.kept or missed:
            sampler.grow(2)
        before = decrement[0]


def damped_step(objective, preconditioner, evaluation, damping, renew, *, least):
    """A Newton step that promises no more than F, of a penalty 10**damping times as strong.

    F is not negative: a row that is on the wrong side for sure has a gradient but no
    curvature, and the model would go any way for it.
    """
    gradient = cast(evaluation.gradient, objective.rows.parameter_dtype)
    while True:
        model = objective.with_penalty(objective.penalty.scaled(TUNED.stronger**damping))
        preconditioner.update(model, evaluation, renew=renew)
        found = newton_step(
            model, preconditioner.sampler.at(model, evaluation), gradient, preconditioner.solve,
            share=TUNED.forcing, least=least, most=TUNED.most_steps, limit=evaluation.value,
        )  # fmt: skip
        too_much = found.decrement[0] > evaluation.value[0]
        if not too_much or not model.penalty.active or damping >= TUNED.most_damping:
            return model, found, damping
        damping += 1


def is_heavy(objective):
    """Whether products with X are most of a pass: gradients then wait for the step."""
    rows = objective.rows
    many = rows.shape[1] >= TUNED.heavy_features and rows.n_columns >= TUNED.heavy_classes
    return many and not rows.sparse
