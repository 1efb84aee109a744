r"""How far the minimum is at most, by a Newton step on the Hessian of all rows.

No penalty is needed, and no model of the loss but that its curvature falls by a factor of e at
most where a step moves the logits of a row by one against one another.
"""

from functools import partial

from skfc import _blockwise, _gap_blockwise
from skfc._array import cast, host, to_numpy
from skfc._conjugate_gradients import direct_step
from skfc._tuned import TUNED


def newton_bound(newton, hessian, objective, evaluation, wanted):
    """A proven upper bound of F - F*, (n_problems,), from a Newton step on the whole Hessian.

    Along a step that moves the logits of no row by more than r against one another, curvature
    falls by a factor of e^r at most (Bach 2010, proposition 1). With m the most that a step u of
    norm √(uᵀ H u) = 1 moves a row, d = ½ gᵀ H⁻¹ g and a = m √(2 d) < 1,

        F* >= min_s F - s √(2 d) + (e^(-m s) + m s - 1) / m²
            = F - 2 d (a + (1 - a) log(1 - a)) / a²

    which is F - 2 d at the least. Where a is larger, rows have bounds r_i of their own: with
    (1 - e^(-r_i)) / r_i of the curvature of row i in H, F - F* <= d if m_i √(2 d) <= r_i for all.
    F then grows along all ways out of the steps of norm √(2 d), on which its slope has grown by
    2 d at least. If that is not enough, and d is next to nothing, rows lose classes of next to no
    probability first. Infinite where nothing is known, or d is more than `wanted`.
    """
    residuals = sizes_at_most(objective.rows, evaluation)
    bound, d = bound_near(newton, hessian, objective, evaluation, wanted, residuals)
    little = d <= TUNED.accuracy * host.minimum(wanted, near_minimum(evaluation))
    if host.isfinite(bound).all() or not (little & objective.penalty.strict).all():
        return bound
    residuals = sizes_of_residuals(objective.rows, evaluation)
    return bound_with_less(newton, hessian, objective, evaluation, wanted, residuals)


def near_minimum(evaluation):
    """The most of d (n_problems,) at which rows in the tail may stand in the way of a proof."""
    return TUNED.stronger * TUNED.small_tol * evaluation.value


def bound_near(newton, hessian, objective, evaluation, wanted, residuals, left=None):
    """The bound where rows that may move far have less curvature, and d with all of it.

    `left` are probabilities, and the classes of rows that are left, if some are not, and
    `residuals` the sizes of what the rows add to the gradient.
    """
    rows, gradient = objective.rows, cast(evaluation.gradient, objective.rows.parameter_dtype)
    nothing, most, proba = host.full(objective.n_problems, host.inf), None, left
    first = before = None
    # Without a penalty there may be no minimum: in the tail of the loss a is one.
    largest = 1.0 if objective.penalty.strict.all() else 1 - TUNED.accuracy
    for _ in range(TUNED.look_back):
        if newton.broken.any() or not hessian.is_exact:
            break
        forms, factor = hessian.row_forms(rows, left)
        d = factor * (host.sqrt(newton.decrement) + host.sqrt(hessian.noise(residuals))) ** 2
        if first is None:
            first = before = d
        scale = float(2 * d[0] * factor)
        if most is None:
            a = host.sqrt(scale * rows.largest(forms))
            if a < largest:
                small = max(a, 1e-3)  # digits cancel below
                return 2 * d * (small + (1 - small) * host.log1p(-small)) / small**2, first
        elif rows.largest(ratios_of(rows, forms, most, scale)) <= 1 - TUNED.accuracy:
            return host.where(d <= wanted, d, host.inf), first
        if not (d * d <= before * wanted).all() or not host.isfinite(d).all():
            break  # it grows by as much the next time
        before = d
        if proba is None:
            keep = _blockwise.keep_probabilities
            proba = rows.sum(keep, state=evaluation.state, count=False).state
        most = allowed(rows, forms, most, scale)
        weak = rows.sum(_gap_blockwise.weakened, state=rows.joined(most, proba), count=False)
        share = float(to_numpy(weak.values[0])[0]) * rows.n_total / rows.shape[0]
        if share < TUNED.share_to_come:  # d would be many times as large
            break
        hessian = hessian.of(objective, weak.state)
        newton = direct_step(objective, gradient, hessian.solve)
    return nothing, nothing if first is None else first


def allowed(rows, forms, before, scale):
    """How far every row may move, more than it would and than `before`: a state."""
    state = forms if before is None else rows.joined(forms, before)
    return rows.sum(partial(_gap_blockwise.allowed, scale=scale), state=state, count=False).state


def ratios_of(rows, forms, most, scale):
    """How far every row would move, as a share of the `most` it may: a state."""
    function = partial(_gap_blockwise.share_of_allowed, scale=scale)
    return rows.sum(function, state=rows.joined(forms, most), count=False).state


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
        _gap_blockwise.without_classes, limit=limit, little=min(little, rows.n_total / limit)
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
    function = _gap_blockwise.squared_residuals
    return host.sqrt(
        to_numpy(rows.sum(function, state=evaluation.state, power=2, count=False).gradient)
    )
