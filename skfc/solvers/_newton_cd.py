"""Proximal Newton with coordinate descent, for an elastic net and one problem.

A step minimises the quadratic model of loss and squares, with the curvature of a row coupling
the classes as it does in the Hessian, plus the absolute values (Lee, Sun and Saunders 2014;
Friedman, Hastie and Tibshirani 2010). Only some weights take part: those that are not zero, and
the zeros whose gradients are furthest beyond their thresholds, as many more. The others stay at
zero at the price of one product for their gradients.

From far away the model promises weights that do not last, and with them a large Hessian. The
penalty therefore starts at nearly the least that keeps all weights as they are, and is weakened
after every full step (continuation): by less where more zeros would enter than take part, and
where steps are dear, since many weights are not zero. On the way, and where the last step has
gained a tenth of F, a sample of the rows gives the Hessian, until a step is not full.

The model's minimum is found with the Hessian as a matrix, or by conjugate gradients, see
:mod:`skfc.solvers._model_steps`: of many weights, and under a sum of squares that makes this easy.
"""

from dataclasses import replace
from functools import partial

from skfc import _blockwise
from skfc._array import host, to_numpy
from skfc._duality import Dual, largest_size
from skfc._row_samples import curvature_sample, rows_for_curvature
from skfc._tuned import TUNED
from skfc.solvers._line_search import ROUNDING
from skfc.solvers._model_steps import by_conjugate_gradients, by_coordinate_descent
from skfc.solvers._proximal import certified, proximal_step


def newton_cd(objective, preconditioner, theta):
    """Generate iterates from `theta`; no preconditioner takes part."""
    dual, evaluation = Dual.of(objective), objective.smooth.at(theta)
    strength = max(1.0, largest_size(objective.penalty, evaluation.gradient) / TUNED.stronger)
    n_iter, stuck, bound = 0, False, 1.0 / objective.rows.n_classes
    share, wait, last, full_steps = TUNED.mixed, 0, host.inf, True
    largest = first_coordinates(objective)
    while True:
        iterate = certified(objective, dual, evaluation, n_iter, stuck, near=strength == 1.0)
        yield iterate
        rough = is_far(iterate, last if strength == 1.0 else host.inf)
        sampled = may_sample(full_steps, strength, iterate, last)
        last = iterate.evaluation.value[0]
        model = objective.with_penalty(objective.penalty.scaled(strength))
        smooth, evaluation = objective.smooth.with_penalty(model.penalty.smooth, evaluation)
        step, solved = model_step(
            model, evaluation, largest, share, rough, strength == 1.0, sampled
        )
        largest = largest if solved else most_coordinates(objective.rows)
        length, evaluation = descend(smooth, model.penalty, evaluation, step)
        full_steps &= length == 1.0
        if length == 0.0:  # the model was wrong, or rounding is all that is left
            before = evaluation
            evaluation, bound = proximal_step(smooth, model.penalty, evaluation, bound)
            moved = evaluation.theta - before.theta
            stuck = strength == 1.0 and not host.any(smooth.dot(moved, moved))
        if length < 1.0 and share == 0.0:
            wait = TUNED.look_back
        elif length == strength == 1.0:
            wait -= 1
        if length in (0.0, 1.0) and strength > 1.0:
            strength = max(1.0, strength * next_share(model.penalty, evaluation))
        share = TUNED.mixed if length < 1.0 or strength > 1.0 or wait > 0 else 0.0
        evaluation = replace(evaluation, theta=model.penalty.centred(evaluation.theta))
        _, evaluation = smooth.with_penalty(objective.penalty.smooth, evaluation)
        n_iter += 1


def model_step(model, evaluation, most, share, rough, accurate, sampled):
    """The step (P, T) to the minimum of the model, and whether it leads there.

    Of up to `most` weights the Hessian is a matrix, of some rows if they may be `sampled`. A
    `share` of the probabilities in it is that of the targets; `rough` and `accurate` are for
    the two ways, see there.
    """
    mask = working_set(model.penalty, evaluation)
    few, rows, state = mask.sum() <= most, model.rows, evaluation.state
    if few and sampled:
        rows, state = some_rows(rows, state)
    function = partial(_blockwise.keep_mixture, share=share)
    proba = rows.sum(function, state=state, count=False).state
    if few:
        return by_coordinate_descent(model, evaluation, mask, rows, proba, rough), True
    return by_conjugate_gradients(model, evaluation, mask, proba, accurate)


def some_rows(rows, state):
    """Rows for a Hessian that need not be accurate, and the state of logits on them.

    Twice those of a preconditioner, as no products with all rows correct the step.
    """
    size = 2 * rows_for_curvature(rows)
    if rows.sparse or rows.shape[0] <= TUNED.nearly_all * size:
        return rows, state
    return curvature_sample(rows, state, size, rows.dtype)


def may_sample(full_steps, strength, iterate, before):
    """Whether some rows are enough: under a stronger penalty, or where a tenth of F is gained."""
    gained = host.inf > before > (1 + 1 / TUNED.stronger) * iterate.evaluation.value[0]
    return full_steps and (strength > 1.0 or gained)


def is_far(iterate, before):
    """Whether the minimum is far, by the gap, which may be loose, and the fall from `before`."""
    value, small = iterate.evaluation.value[0], TUNED.small_loss * iterate.evaluation.value[0]
    return iterate.decrement[0] > small and before - value > small


def most_coordinates(rows):
    """The most weights of which a step takes the Hessian as a matrix."""
    most = TUNED.most_coordinates
    return min(most, (TUNED.few_numbers * most / rows.shape[0]) ** 0.5)


def first_coordinates(objective):
    """The same, until conjugate gradients have not solved a model.

    A sum of squares may make that easy.
    """
    most = most_coordinates(objective.rows)
    return min(most, TUNED.hessian_size) if (objective.penalty.l2 > 0).any() else most


def sizes_of(penalty, evaluation, some):
    """Gradients in units of their thresholds, of the weights of a mask (n_features, T)."""
    thresholds = to_numpy(penalty.thresholds) + host.zeros(some.shape)
    slopes = host.abs(to_numpy(evaluation.gradient)[: len(some), :])
    return slopes[some] / thresholds[some]


def weaker(penalty, evaluation):
    """The least multiple of a penalty at which no more zeros would enter than a step takes.

    Parameters
    ----------
    penalty : ElasticNet
    evaluation : Evaluation of loss and squares
    """
    thresholds = to_numpy(penalty.thresholds)
    weights = to_numpy(evaluation.theta)[: len(thresholds), :]
    sizes = sizes_of(penalty, evaluation, (weights == 0) & (thresholds > 0))
    room = room_of(weights)
    return float(host.partition(sizes, -room - 1)[-room - 1]) if len(sizes) > room else 0.0


def next_share(penalty, evaluation):
    """The multiple of a penalty that comes next: 1/10 to 1/√10, of many weights 1/2 to 1/√2."""
    few = (to_numpy(evaluation.theta) != 0).sum() <= TUNED.hessian_size
    most = TUNED.stronger if few else 2.0
    return min(max(weaker(penalty, evaluation), 1.0 / most), most**-0.5)


def room_of(weights):
    """How many zeros enter at a time: as many as there are weights that are not zero, or more.

    Of many classes some for every class.
    """
    least = max(TUNED.least_working_set, 4 * weights.shape[1])
    return max(least, int((weights != 0).sum()))


def working_set(penalty, evaluation):
    """The weights that take part (P, T), of bool: the intercepts, and as the module says."""
    distance = to_numpy(penalty.distance(evaluation.theta, evaluation.gradient))
    mask = to_numpy(evaluation.theta) != 0
    N = len(distance)
    mask[N:, :] = True
    outside = host.where(mask[:N, :], 0.0, distance).ravel()
    beyond = host.flatnonzero(outside > 0)
    room = room_of(mask[:N, :])
    if len(beyond) > room:
        beyond = beyond[host.argpartition(-outside[beyond], room)[:room]]
    mask[:N, :].ravel()[beyond] = True
    return mask


def descend(smooth, penalty, evaluation, direction):
    """The step length, the first of 1, 1/2, 1/4 ... that lowers F enough, and the evaluation."""
    line, theta = smooth.line(evaluation, direction), evaluation.theta
    here = penalty.absolute(theta)
    start = evaluation.value + here
    # A model that is wrong promises a rise: what is taken falls all the same.
    promised = host.minimum(line.slope + penalty.absolute(theta + direction) - here, 0.0)
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
