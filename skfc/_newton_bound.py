r"""How far the minimum is at most, by a Newton step on the Hessian of all rows.

No penalty is needed, and no model of the loss but that its curvature falls by a factor of e at
most where a step moves the logits of a row by one against one another.
"""

from functools import partial

from skfc import _blockwise
from skfc._array import cast, host, to_numpy
from skfc._conjugate_gradients import direct_step
from skfc._objective import on_host
from skfc._row_samples import everything
from skfc._tuned import TUNED


def newton_bound(newton, hessian, objective, evaluation, wanted):
    """A proven upper bound of F - F*, (n_problems,), from a Newton step on the whole Hessian.

    Along a step that moves the logits of no row by more than r against one another, curvature
    falls by a factor of e^r at most (Bach 2010, proposition 1). With m the most that a step u of
    norm √(uᵀ H u) = 1 moves a row, d = ½ gᵀ H⁻¹ g and a = m √(2 d) < 1,

        F* >= min_s F - s √(2 d) + (e^(-m s) + m s - 1) / m²
            = F - 2 d (a + (1 - a) log(1 - a)) / a²

    which is F - 2 d at the least. It holds as well with less curvature than there is: near the
    minimum, rows that may move by more than half a logit are left out of H, and then need no m. If
    that is not enough, and d is next to nothing, such rows lose classes of next to no probability
    first. Infinite where nothing is known, or d is more than `wanted`.
    """
    residuals = sizes_at_most(objective.rows, evaluation)
    bound, d = bound_near(newton, hessian, objective, evaluation, wanted, residuals)
    little = d <= TUNED.accuracy * host.minimum(wanted, near_minimum(evaluation))
    if host.isfinite(bound).all() or not (little & objective.penalty.strict).all():
        return bound
    residuals = sizes_of_residuals(objective.rows, evaluation)
    return bound_with_less(newton, hessian, objective, evaluation, wanted, residuals)


def near_minimum(evaluation):
    """The most of d with which rows are left out."""
    return TUNED.stronger * TUNED.small_tol * evaluation.value


def bound_near(newton, hessian, objective, evaluation, wanted, residuals, state=None):
    """The bound where rows that may move far are left out, and d with all of them.

    `state` are probabilities, rows and classes that are left, if some are not, and `residuals`
    the sizes of what the rows add to the gradient.
    """
    rows, gradient = objective.rows, cast(evaluation.gradient, objective.rows.parameter_dtype)
    bound, first = host.full(objective.n_problems, host.inf), None
    # Without a penalty there may be no minimum: in the tail of the loss a is one.
    largest = 1.0 if objective.penalty.strict.all() else 1 - TUNED.accuracy
    for _ in range(TUNED.look_back):
        if newton.broken.any() or not hessian.is_exact:
            break
        forms, factor = hessian.row_forms(rows, state)
        d = factor * (host.sqrt(newton.decrement) + host.sqrt(hessian.noise(residuals))) ** 2
        first = factor * newton.decrement if first is None else first
        a = host.sqrt(2 * d * factor * rows.largest(forms))
        if (a < largest).all():
            small = host.maximum(a, 1e-3)  # digits cancel below
            bound = 2 * d * (small + (1 - small) * host.log1p(-small)) / small**2
            break
        if not (d <= host.minimum(wanted, near_minimum(evaluation))).all():
            break
        if state is None:
            keep = _blockwise.keep_probabilities
            state = rows.sum(keep, state=evaluation.state, count=False).state
            state = rows.joined(state, everything(rows))
        near = partial(_blockwise.keep_near, limit=farthest_form(d))
        state = rows.sum(near, state=rows.joined(forms, state), count=False).state
        hessian = hessian.of(objective, state)
        newton = direct_step(objective, gradient, hessian.solve)
    return bound, host.full(objective.n_problems, host.inf) if first is None else first


def bound_with_less(newton, hessian, objective, evaluation, wanted, residuals):
    """The bound where rows that may move far lose classes of next to no probability.

    The objective is not larger without them. A class of more probability holds its row by itself.
    """
    rows = objective.rows
    forms, factor = hessian.row_forms(rows)
    if not host.isfinite(factor):
        return host.full(1, host.inf)
    limit = farthest_form(factor * newton.decrement)
    little = TUNED.accuracy * float(host.min(wanted)) / rows.n_classes
    fewer = partial(
        _blockwise.without_classes, limit=limit, little=min(little, rows.n_total / limit)
    )
    sums = rows.sum(fewer, state=rows.joined(forms, evaluation.state))
    less = objective.from_sums(evaluation.theta, sums)
    hessian = hessian.of(objective, less.state)
    gradient = cast(less.gradient, rows.parameter_dtype)
    newton = direct_step(objective, gradient, hessian.solve)
    bound, _ = bound_near(newton, hessian, objective, less, wanted, residuals, less.state)
    return host.maximum(evaluation.value - less.value, 0.0) + bound


def farthest_form(d):
    """The form above which a row may move by more than half a logit."""
    return float(0.5**2 / (2 * max(d[0], host.finfo(float).tiny)))


def sizes_at_most(rows, evaluation):
    """What `sizes_of_residuals` are at most, about, without a look at the rows."""
    sizes = host.ones((rows.n_parameters, rows.n_classes))
    sizes[: rows.shape[1], :] = host.sqrt(to_numpy(rows.frame.squares))[:, None]
    return sizes * min(float(evaluation.value[0]), 1.0) ** 0.5


def sizes_of_residuals(rows, evaluation):
    """Root mean squares (P, T) of what the rows add to the gradient, of one problem."""
    function = _blockwise.squared_residuals
    return host.sqrt(
        on_host(rows.sum(function, state=evaluation.state, power=2, count=False).gradient)
    )
