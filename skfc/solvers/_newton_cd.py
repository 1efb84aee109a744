"""Proximal Newton with coordinate descent, for an elastic net and one problem.

A step minimises the quadratic model of loss and squares, with the curvature of a row coupling
the classes as it does in the Hessian, plus the absolute values (Lee, Sun and Saunders 2014;
Friedman, Hastie and Tibshirani 2010). Only some weights take part: those that are not zero, and
the zeros whose gradients are furthest beyond their thresholds, as many more. The others stay at
zero at the price of one product for their gradients.

From far away the model promises weights that do not last, and with them a large Hessian. The
penalty therefore starts at nearly the least that keeps all weights as they are, and is weakened
after every full step (continuation).

Of many weights the model's minimum is found by conjugate gradients, see
:mod:`skfc.solvers._model_steps`.
"""

from functools import partial

from skfc import _blockwise
from skfc._array import host, to_numpy
from skfc._duality import Dual
from skfc._tuned import TUNED
from skfc.solvers._line_search import ROUNDING
from skfc.solvers._model_steps import by_conjugate_gradients, by_coordinate_descent
from skfc.solvers._proximal import certified, proximal_step


def newton_cd(objective, preconditioner, theta):
    """Generate iterates from `theta`; no preconditioner takes part."""
    dual, evaluation = Dual.of(objective), objective.smooth.at(theta)
    _, worst = distance_of(objective.penalty, evaluation)
    strength = max(1.0, (1.0 + worst) / TUNED.stronger)
    n_iter, stuck, bound = 0, False, 1.0 / objective.rows.n_classes
    share, wait = TUNED.mixed, 0
    while True:
        iterate = certified(objective, dual, evaluation, n_iter, stuck)
        yield iterate
        model = objective.with_penalty(objective.penalty.scaled(strength))
        smooth, evaluation = objective.smooth.with_penalty(model.penalty.smooth, evaluation)
        distance, worst = distance_of(model.penalty, evaluation)
        mask = working_set(evaluation, distance)
        function = partial(_blockwise.keep_mixture, share=share)
        proba = model.rows.sum(function, state=evaluation.state, count=False).state
        if mask.sum() <= most_coordinates(objective.rows):
            rough = iterate.decrement[0] > TUNED.small_loss * iterate.evaluation.value[0]
            step = by_coordinate_descent(model, evaluation, mask, proba, worst, rough)
        else:
            step = by_conjugate_gradients(model, evaluation, mask, proba)
        length, evaluation = descend(smooth, model.penalty, evaluation, step)
        if length == 0.0:  # the model was wrong, or rounding is all that is left
            before = evaluation
            evaluation, bound = proximal_step(smooth, model.penalty, evaluation, bound)
            moved = evaluation.theta - before.theta
            stuck = strength == 1.0 and not host.any(smooth.dot(moved, moved))
        if length < 1.0 and share == 0.0:
            wait = TUNED.look_back
        elif length == strength == 1.0:
            wait -= 1
        share = TUNED.mixed if length < 1.0 or strength > 1.0 or wait > 0 else 0.0
        if length in (0.0, 1.0):
            strength = max(strength / TUNED.stronger, 1.0)
        _, evaluation = smooth.with_penalty(objective.penalty.smooth, evaluation)
        n_iter += 1


def most_coordinates(rows):
    """The most weights of which a step takes the Hessian as a matrix."""
    most = TUNED.most_coordinates
    return min(most, (TUNED.few_numbers * most / rows.shape[0]) ** 0.5)


def distance_of(penalty, evaluation):
    """How far zero is from the subdifferential: of every weight, and in units of thresholds.

    The first are (n_features, T), the second is the largest.
    """
    distance = to_numpy(penalty.distance(evaluation.theta, evaluation.gradient))
    thresholds = to_numpy(penalty.thresholds)
    some = thresholds[:, 0] > 0
    worst = distance.max(axis=1, initial=0.0)[some] / thresholds[some, 0]
    return distance, float(worst.max(initial=0.0))


def working_set(evaluation, distance):
    """The weights that take part (P, T), of bool: the intercepts, and as the module says."""
    mask = to_numpy(evaluation.theta) != 0
    N = len(distance)
    mask[N:, :] = True
    outside = host.where(mask[:N, :], 0.0, distance).ravel()
    beyond = host.flatnonzero(outside > 0)
    room = max(TUNED.least_working_set, int(mask[:N, :].sum()))
    if len(beyond) > room:
        beyond = beyond[host.argpartition(-outside[beyond], room)[:room]]
    mask[:N, :].ravel()[beyond] = True
    return mask


def descend(smooth, penalty, evaluation, direction):
    """The step length, the first of 1, 1/2, 1/4 ... that lowers F enough, and the evaluation."""
    line, theta = smooth.line(evaluation, direction), evaluation.theta
    here = penalty.absolute(theta)
    start = evaluation.value + here
    promised = line.slope + penalty.absolute(theta + direction) - here
    noise = ROUNDING[line.itemsize] * host.abs(start)
    step, value = 1.0, line.at_unit_step[0]
    for _ in range(TUNED.patience):
        whole = value + penalty.absolute(theta + step * direction)
        if whole[0] <= start[0] + TUNED.armijo * step * promised[0] + noise[0]:
            break
        step /= 2
        value, _ = line.at(host.full(1, step), host.arange(1))
    else:
        step = 0.0
    return step, line.move(host.full(1, step))
