"""Newton's method with the Hessian of all rows, for one problem of few features and classes.

At every iterate the Hessian is formed and factorised, and a step is a product with its inverse.

A row that is on the wrong side with certainty has a gradient but no curvature, so that a step may
go much too far. Where the model promises more than F, which is not negative, and after a short
step, curvature is that of probabilities of which a share is that of the targets: on the way there
the row will have it.
"""

from skfc._array import cast, host
from skfc._conjugate_gradients import direct_step, newton_step
from skfc._hessian import HessianOperator
from skfc._tuned import TUNED
from skfc.solvers._iterate import Iterate, enter
from skfc.solvers._line_search import search


def newton_cholesky(objective, preconditioner, theta):
    """Generate iterates from `theta`."""
    evaluation = objective.at(cast(theta, objective.rows.parameter_dtype))
    share, times, n_iter, stalled = 0.0, 0, 0, host.zeros(1, dtype=bool)
    while True:
        newton, decrement = None, evaluation.value
        if not share:
            preconditioner.update(objective, evaluation)
            newton = step_of(objective, preconditioner, evaluation)
            decrement = newton.decrement
        change = yield Iterate(
            objective, evaluation, n_iter, decrement, preconditioner.solve, HessianOperator.of,
            preconditioner.confirming_steps, stalled, bool(share), newton, preconditioner,
        )  # fmt: skip
        if change.newton is not None:
            newton, decrement = change.newton, change.newton.decrement
        if change.objective is not None:
            step = newton and -newton.step
            objective, evaluation, moved = enter(objective, change.objective, evaluation, step)
            stalled, n_iter = host.zeros(1, dtype=bool), n_iter + moved
            continue
        if newton is None or newton.broken[0] or decrement[0] > evaluation.value[0]:
            times += not share
            share = share or TUNED.mixed
            mixed = preconditioner.mixed(objective, evaluation, share)
            step = mixed.solve(cast(evaluation.gradient, objective.rows.parameter_dtype))
        else:
            step = newton.step
        line = objective.line(evaluation, -step)
        steps = search(line, TUNED.wolfe_newton)
        evaluation = line.move(steps)
        stalled, n_iter = (steps == 0) & (share > 0), n_iter + 1
        share = share_after(steps[0], share, again=times > 1)


def step_of(objective, preconditioner, evaluation):
    """The Newton step; by conjugate gradients where the factor of the Hessian hides directions."""
    gradient = cast(evaluation.gradient, objective.rows.parameter_dtype)
    if preconditioner.is_exact:
        return direct_step(objective, gradient, preconditioner.solve)
    return newton_step(
        objective, HessianOperator.of(objective, evaluation), gradient, preconditioner.solve,
        share=TUNED.share_to_come, least=preconditioner.confirming_steps, most=TUNED.most_steps,
        limit=evaluation.value,
    )  # fmt: skip


def share_after(step, share, again):
    """The share of the targets in the next curvature: more after a short step, else less.

    Where none has misled `again`, it falls to next to nothing first.
    """
    if step < TUNED.smooth_share:
        return min(2 * share, 0.5) if share else TUNED.mixed
    if again:
        return share / TUNED.stronger if share > TUNED.small_tol else 0.0
    return share / 2 if share > TUNED.mixed / 4 else 0.0
