"""Preconditioned L-BFGS (Nocedal 1980), for problems in lock-step.

The inverse of the preconditioner stands where the textbook has a multiple of the identity.
All problems of a batch take their iterations together, each with its own step, and leave
when the driver drops them.
"""

from functools import partial

from skfc._array import host, take
from skfc._tuned import TUNED
from skfc.solvers._iterate import Iterate, enter
from skfc.solvers._line_search import search


def lbfgs(objective, preconditioner, theta):
    """Generate iterates from `theta`."""
    evaluation = objective.at(theta)
    preconditioner.update(objective, evaluation)
    pairs = []
    fresh = stalled = host.zeros(objective.n_problems, dtype=bool)
    # What it remembers is lost with a new Hessian: the way to the next is twice as long.
    n_iter, growth = 0, 2.0 if preconditioner.is_newton else 1.0
    while True:
        precondition = partial(inverse_product, objective, preconditioner, pairs)
        direction = -precondition(evaluation.gradient)
        decrement = -0.5 * objective.dot(direction, evaluation.gradient)
        change = yield Iterate(
            objective, evaluation, n_iter, decrement, precondition, preconditioner.sampler.at,
            preconditioner.confirming_steps, stalled, preconditioner.is_poor,
            nearly_exact=is_nearly_exact(objective, preconditioner),
        )  # fmt: skip
        if change.keep is not None:
            keep = change.keep
            columns = objective.columns(keep)
            objective, evaluation = objective.problems(keep, evaluation)
            preconditioner = preconditioner.problems(objective, keep, evaluation)
            direction, decrement = take(direction, columns, axis=1), decrement[keep]
            fresh = fresh[keep]
            pairs = [(take(s, columns, 1), take(y, columns, 1), rho[keep]) for s, y, rho in pairs]
        last = evaluation
        if change.objective is not None:
            objective, evaluation, moved = enter(objective, change.objective, last, direction)
            stuck = stalled = host.zeros(objective.n_problems, dtype=bool)
        else:
            line = objective.line(evaluation, direction)
            steps = search(line)
            evaluation = line.move(steps)
            stuck, moved = steps == 0, 1
            # Where no step was found, old curvature may have misled: forget it. Nothing to
            # forget means that rounding is all that is left.
            stalled = stuck & fresh
        fresh, n_iter = stuck, n_iter + moved
        if stalled.any() and preconditioner.in_double(objective):
            stalled = host.zeros(objective.n_problems, dtype=bool)
        formed = preconditioner.update(objective, evaluation, growth=growth)
        if formed and preconditioner.is_newton:
            pairs = []
            continue
        pairs = [(s, y, host.where(stuck, 0.0, rho)) for s, y, rho in pairs[1 - TUNED.memory :]]
        pairs.append(pair(objective, last, evaluation))


def is_nearly_exact(objective, preconditioner):
    """Whether M is about the Hessian of all rows of one problem, to all digits."""
    double = objective.rows.dtype == objective.rows.xp.float64
    return preconditioner.of_all_rows and double and objective.n_problems == 1


def pair(objective, last, evaluation):
    """Step, change of the gradient, and the inverse of their product."""
    s, y = evaluation.theta - last.theta, evaluation.gradient - last.gradient
    curvature = objective.dot(s, y)
    rho = host.divide(1.0, curvature, out=host.zeros_like(curvature), where=curvature > 0)
    return s, y, rho


def inverse_product(objective, preconditioner, pairs, vector):
    """H v by the two-loop recursion, the inverse of the preconditioner in its middle."""
    q = vector + 0
    alphas = []
    for s, y, rho in reversed(pairs):
        alpha = rho * objective.dot(s, q)
        objective.add(q, y, -alpha)
        alphas.append(alpha)
    q = preconditioner.solve(q)
    for (s, y, rho), alpha in zip(pairs, reversed(alphas), strict=True):
        beta = rho * objective.dot(y, q)
        objective.add(q, s, alpha - beta)
    return q
