r"""Mini-batch gradient descent with momentum, preconditioned, for one problem.

An epoch takes the rows in random order, a step for every batch B,

    v <- β v - rate M⁻¹ g_B(theta + β v),     theta <- theta + v.

With a constant rate g_B is ∇F_B, the gradient of the mean objective with the loss of the rows
of B: the textbook algorithm, which ends in a cloud round the minimum. With the rate that is
chosen here it is

    g_B(theta) = ∇F_B(theta) - ∇F_B(theta₀) + ∇F(theta₀)

for an epoch from theta₀ (Johnson and Zhang 2013), whose noise vanishes at the minimum. From
theta₀ through the mean of the iterates of an epoch leads a line on which F is searched: for the
pass over all rows that measures it after every epoch.

The gradients of all rows there also tell what M misses of the curvature. M⁻¹ then stands in the
middle of the two-loop recursion of L-BFGS, with the pairs of the last epochs (Moritz, Nishihara
and Jordan 2016). Without a preconditioner the batches take the steps of the textbook.
"""

from functools import partial

from skfc import _blockwise
from skfc._array import concatenate, host
from skfc._preconditioner import Diagonal, Identity
from skfc._tuned import TUNED
from skfc.solvers._gd import gd, natural_rate, raise_for_overflow
from skfc.solvers._iterate import Iterate
from skfc.solvers._lbfgs import inverse_product, pair
from skfc.solvers._line_search import search

# Arrays like theta that a step reads or writes, and columns per class of products with a batch.
ARRAYS, COLUMNS = 10, 3
MOMENTUM = 0.9


def sgd(
    objective, preconditioner, theta, *, learning_rate="auto", momentum="auto", batch_size="auto",
    seed=0,
):  # fmt: skip
    """Generate iterates from `theta`, one per epoch; where a batch holds all rows, those of `gd`.

    Parameters
    ----------
    learning_rate : a number is the constant rate. "auto" is 1 with a preconditioner and without
        one 1 / L, with L a bound of the curvature, each times 1 - β. It is halved where an
        epoch leads uphill, and the step is then one of all rows.
    momentum : the constant β; "auto" is 0.9
    batch_size : rows of a batch; "auto" is the rule of :func:`rows_of_batch`
    seed : of the order of the rows
    """
    size = rows_of_batch(objective) if batch_size == "auto" else batch_size
    if size >= objective.rows.shape[0]:
        options = {"learning_rate": learning_rate, "momentum": momentum}
        yield from gd(objective, preconditioner, theta, **options)
        return
    rng = host.random.default_rng(seed)
    evaluation = objective.at(theta)
    textbook = isinstance(preconditioner, Identity)
    # Plain gradients do not say how far the minimum is: a cheap preconditioner measures that.
    measure = Diagonal(objective) if textbook else preconditioner
    measure.update(objective, evaluation, renew=True)
    adaptive = learning_rate == "auto"
    beta = MOMENTUM if momentum == "auto" else momentum
    rate = (1 - beta) * natural_rate(objective, textbook) if adaptive else learning_rate
    n_iter, stalled, least, since = 0, host.full(1, rate == 0.0), host.inf, 0
    pairs = []
    while True:
        precondition = partial(inverse_product, objective, measure, pairs)
        step = -precondition(evaluation.gradient)
        decrement = -0.5 * objective.dot(step, evaluation.gradient)
        if not adaptive:
            raise_for_overflow(evaluation.value + decrement, learning_rate)
        yield Iterate(
            objective, evaluation, n_iter, decrement, precondition, preconditioner.sampler.at,
            measure.confirming_steps, stalled, measure.is_poor,
        )  # fmt: skip
        start = evaluation if adaptive else None
        solve = preconditioner.solve if textbook else precondition
        end = epoch(objective, solve, evaluation.theta, start, size, rng, rate, beta)
        if adaptive:
            last = evaluation
            evaluation, t, rate = on_line(objective, last, end, step, rate)
            # Where no step was found, old pairs may have misled: without any, it is rounding.
            stalled = (t == 0) & (not pairs)
            pairs = remembered(pairs, pair(objective, last, evaluation), t)
        else:
            evaluation = objective.at(end)
            since = 0 if evaluation.value[0] < least else since + 1
            least, stalled = min(evaluation.value[0], least), host.full(1, since >= TUNED.patience)
        n_iter += 1
        if measure.update(objective, evaluation) and measure.is_newton:
            pairs = []  # the new Hessian knows better


def on_line(objective, evaluation, end, step, rate):
    """The evaluation of low F on the line to `end`, how far on it that is, and the next rate.

    Where the line leads uphill, that of the `step` of all rows takes its place.
    """
    direction = end - evaluation.theta
    if uphill := not objective.dot(evaluation.gradient, direction)[0] < 0:
        direction = step
    line = objective.line(evaluation, direction)
    t = search(line, TUNED.wolfe_newton)
    return line.move(t), t, rate * (0.5 if uphill or t[0] < 0.5 else 1.0)


def remembered(pairs, new, t):
    """The pairs of the last epochs, none where there was no step."""
    return [] if t[0] == 0 else [*pairs[1 - TUNED.memory :], new]


def epoch(objective, solve, theta, start, size, rng, rate, beta):
    """The mean of the iterates of an epoch, with an evaluation of its `start`.

    Without one, its last iterate, with gradients of the batches alone.
    """
    first, velocity, total, n_batches = theta, 0.0 * theta, 0.0 * theta, 0
    for rows in objective.rows.batches(size, rng):
        there = theta + beta * velocity
        if start is None:
            gradient = rows.sum(_blockwise.evaluate, there, count=False).gradient
            objective.penalty.add_gradient(gradient, there)
        else:
            both = concatenate([there, first], axis=1)
            gradient = rows.sum(_blockwise.difference, both, count=False).gradient
            objective.penalty.add_gradient(gradient, there - first)
            gradient = gradient + start.gradient
        velocity = beta * velocity - rate * solve(gradient)
        theta = theta + velocity
        total, n_batches = total + theta, n_batches + 1
    objective.rows.work.passes += 1.0 if start is None else 1.5
    objective.rows.work.steps += 1
    return theta if start is None else total / n_batches


def rows_of_batch(objective):
    """A sixteenth of the rows, but no more than a block, nor fewer than pay for a step.

    That are the rows that pay for calls, and those whose products cost as much as the arrays of
    weights that a step passes over.
    """
    rows = objective.rows
    values = max(rows.n_values / rows.shape[0], 1.0)  # of a row
    block = TUNED.block_bytes / (8 * values)
    least = max(TUNED.min_block_rows, ARRAYS / COLUMNS * objective.shape[0] / values)
    return int(max(min(rows.shape[0] / TUNED.batch_share, block), least))
