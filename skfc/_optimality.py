r"""How far the minimum is: estimated, and where there is a bound, proven.

The estimate is half the Newton decrement, F - F* ≈ ½ ∇ᵀ H⁻¹ ∇, by conjugate gradients on
the Hessian. It is right to third order, but misses directions that these steps have not
seen, and rows whose curvature is about to change.

The proof is duality. With the intercepts at their optimum the probabilities are dual
feasible, and

    F* >= F - R*(∇_W F),      R*(g) = sum_jk g_jk² / (2 lambda d_j)

with no constant and no model. The bound is loose far from the minimum, and tight one Newton
step later. Without a penalty there is none.
"""

from dataclasses import dataclass
from functools import partial

from skfc import _blockwise
from skfc._array import Array, cast, host, namespace, take, to_numpy
from skfc._conjugate_gradients import NewtonStep, direct_step, newton_step
from skfc._hessian import HessianOperator, class_curvature
from skfc._preconditioner import exact, is_small
from skfc._tails import without_tails
from skfc._tuned import TUNED

# Relative rounding of a value, in single precision too.
ROUNDING = 1e-6
# The smallest number that is divided by.
SMALLEST = float(host.finfo(float).tiny)
# Logits that change a curvature tenfold: no row may move farther.
FARTHEST = 2.3


@dataclass(frozen=True)
class Estimate:
    """Estimates of F - F* of some problems.

    Attributes
    ----------
    decrement : (n_problems,), half the Newton decrement
    doubtful : (n_problems,) of bool: no fit may converge on it, see :func:`estimate`
    broken : (n_problems,) of bool: the reason is a breakdown of the arithmetic
    newton : the NewtonStep of these problems
    after : (n_problems,), F after it, or NaN where that is not known
    """

    decrement: Array
    doubtful: Array
    broken: Array
    newton: NewtonStep
    after: Array


def relative(gap, value):
    """(F - F*) / F* from F - F* and F."""
    optimum = host.maximum(value - gap, SMALLEST)
    return host.where(gap < value, gap / optimum, host.inf)


def estimate(iterate, index, tol, *, thorough=False):
    """The estimate of the problems `index` of an iterate, on the Hessian.

    The number of conjugate-gradient steps grows with the condition of the preconditioned
    Hessian; `thorough` estimates take more steps, on all rows. It is doubtful where rows move
    far (more than a logit, times (tol / 1e-6)^(1/3) at a larger `tol`, or than is typical),
    where the step raises F by more than `tol` of it, or where rows far out may hide more than
    `tol` allows, see :func:`hide`.
    """
    objective, evaluation = iterate.objective, iterate.evaluation
    precondition = iterate.precondition
    if len(index) < objective.n_problems:
        precondition = on_part(iterate, index)
        objective, evaluation = objective.problems(index, evaluation)
    hessian_at = HessianOperator.of if thorough else iterate.hessian
    hessian = hessian_at(objective, evaluation)
    solve = partial(
        newton_step, objective, hessian, evaluation.gradient,
        share=TUNED.share_to_come, most=TUNED.most_steps, by_condition=True,
    )  # fmt: skip
    newton, whole = step_of(iterate, objective, evaluation, solve, precondition, tol, thorough)
    doubtful = broken = newton.broken | newton.is_blind
    step, after = -newton.step, host.full(len(index), host.nan)
    decrement = newton.decrement
    if is_near(newton, evaluation, tol):
        precondition = precondition if whole is None else whole.solve
        trial, scale = hessian.trial(step), max(tol / TUNED.small_tol, 1.0) ** (1 / 3)
        most = farthest(objective, evaluation, scale)
        moves = trial.exceeds(most, TUNED.far_logits)
        few = whole is None and newton.n_products < TUNED.decided_steps and not moves.all()
        if few and trial.exceeds(0.5 * scale, 0.5 * scale * TUNED.far_logits).any():
            # A few products may show only a part of how far a single row moves.
            newton = solve(precondition, least=TUNED.decided_steps)
            step = -newton.step
            trial = hessian.trial(step)
            moves = trial.exceeds(most, TUNED.far_logits)
        wanted = tol * evaluation.value
        if hessian.rows is objective.rows:
            after = trial.loss + objective.penalty_after(evaluation, step)
        doubtful, moved = broken | moves | (after - evaluation.value > wanted), trial.moved
        if moves.any():
            far = trial.far(most, TUNED.far_logits)
            found = without_tails(
                objective, evaluation, hessian_at, precondition, newton, trial, hessian.logits,
                far, wanted,
            )  # fmt: skip
            if found is not None:
                evaluation, hessian, moved = found.evaluation, found.hessian, found.moved
                up = objective.value_after(evaluation, found.step) - evaluation.value > wanted
                doubtful, decrement = broken | up, host.maximum(found.gap, decrement)
        if not doubtful.all():
            doubtful |= hide(hessian, moved, evaluation, precondition, wanted, whole)
    return Estimate(host.maximum(decrement, newton.decrement), doubtful, broken, newton, after)


def farthest(objective, evaluation, scale):
    """The most that a row may move for its curvature to stay, in logits (n_problems,).

    That is `scale`, up to `FARTHEST`; and `far_logits` where the penalty is next to nothing.
    """
    bound = objective.penalty.conjugate(evaluation.gradient)
    loose = TUNED.single_digits * bound > evaluation.value
    return host.where(loose, TUNED.far_logits, min(scale, FARTHEST))


def hide(hessian, moved, evaluation, precondition, most, whole=None):
    """Whether rows may hide more than `most` (n_problems,) of F - F* behind their curvature.

    A row far out can have most of the curvature in some direction, in which the others would
    gain; on the way to the minimum it loses it by a factor of e at most per logit (Bach 2010).
    Half the Newton decrement on the Hessian of the others tells. `moved` says how far a step
    moves the rows, a state. From the factor of the `whole` Hessian products would come to see
    directions last in which the others have 1e-9 of its curvature or less: theirs is factorised.
    """
    others, n_out = hessian.without_far_rows(moved)
    if not (n_out.any() and dominate(hessian, others)):
        return host.zeros(len(most), dtype=bool)
    if whole is not None and whole.takes_all and hessian.rows is hessian.objective.rows:
        precondition = whole.of(hessian.objective, others.state).solve
    newton = newton_step(
        others.objective, others, evaluation.gradient, precondition, share=TUNED.share_to_come,
        least=TUNED.decided_steps, most=TUNED.most_steps, by_condition=True, limit=most,
        below=most,
    )  # fmt: skip
    return newton.broken | newton.limited | (newton.decrement > most)


def dominate(hessian, others):
    """Whether the rows that `others` leaves out have most of the curvature of some feature.

    That is beside the others' curvature and the penalty's, where the intercept follows.
    """
    objective, rest = hessian.objective, others.diagonal()
    N, T, xp = objective.rows.shape[1], objective.rows.n_classes, namespace(rest)
    far = (hessian.diagonal() - rest)[:N, :]
    ridge = cast(xp.repeat(objective.penalty.diagonal(N), T, axis=1), rest.dtype)
    rest = rest[:N, :]
    if objective.rows.frame.fit_intercept:
        first = others.first_moments()
        total = xp.where(first[N, :] > 0, first[N, :], xp.ones_like(first[N, :]))
        rest = rest - first[:N, :] ** 2 / total
    return bool(xp.any(TUNED.share_to_come * far > rest + ridge))


def step_of(iterate, objective, evaluation, solve, precondition, tol, thorough):
    """The Newton step of an estimate, and the factorised Hessian where it took that.

    Features that nearly depend on each other hide directions from a poor preconditioner, which
    a small Hessian shows. With the Hessian itself many products are asked for where its factor
    hides directions, and none elsewhere: of a class that is all but impossible they show less.
    """
    if iterate.is_exact:
        return iterate.newton, iterate.whole
    least, newton = products_of(iterate, evaluation, thorough)
    far_off = newton is not None and not is_near(newton, evaluation, tol)
    hides = iterate.least_steps >= TUNED.decided_steps and is_small(objective)
    suspect = thorough or iterate.poor or hides
    whole = exact(objective, evaluation) if suspect and not far_off else None
    if whole is None:
        return newton or solve(precondition, least=least), None
    if whole.is_exact:
        gradient = cast(evaluation.gradient, objective.rows.parameter_dtype)
        return direct_step(objective, gradient, whole.solve), whole
    least = whole.confirming_steps
    if least >= TUNED.decided_steps and not objective.penalty.strict.any():
        least = TUNED.most_steps  # what the factor hides, nothing else holds
    return solve(whole.solve, least=least), whole


def is_near(newton, evaluation, tol):
    """Whether a Newton step says of a problem that it is within `tol` of its minimum."""
    return bool((relative(newton.decrement, evaluation.value) <= tol).any())


def products_of(iterate, evaluation, thorough):
    """The least products of an estimate, and the solver's Newton step, where that took them."""
    if thorough:
        return TUNED.thorough_steps, None
    decided = (evaluation.value < TUNED.small_loss).any()
    least, newton = TUNED.decided_steps if decided else iterate.least_steps, iterate.products
    return least, newton if newton is not None and newton.is_enough(least) else None


def on_part(iterate, index):
    """The preconditioner of an iterate for gradients of the problems `index` alone."""
    columns, T = iterate.objective.columns(index), iterate.objective.rows.n_classes

    def solve(gradient):
        whole = iterate.evaluation.gradient * 0
        for k, b in enumerate(index.tolist()):
            whole[:, b * T : (b + 1) * T] = gradient[:, k * T : (k + 1) * T]
        return take(iterate.precondition(whole), columns, axis=1)

    return solve


def lower_bound(objective, evaluation, wanted):
    """A proven lower bound of F*, (n_problems,): minus infinity without a penalty.

    Intercepts have no penalty. Those of the minimum are assumed to be within
    `farthest_intercept` of these, which turns their gradient into a term of the bound. Where
    the bound is farther below F than is `wanted`, and that term is part of the reason, the
    intercepts are moved to their optimum first, at about a pass per step, unless rounding alone
    would leave a term that large.
    """
    if not objective.penalty.strict.any():
        return host.full(objective.n_problems, -host.inf)
    slack = slack_of_intercepts(objective, evaluation.gradient)
    least = TUNED.farthest_intercept * eps_of(objective.rows) * evaluation.value
    for _ in range(TUNED.look_back if (least < wanted).any() else 0):
        beyond = objective.penalty.conjugate(evaluation.gradient)
        if ((beyond + slack <= wanted) | (slack <= 0.1 * wanted)).all():
            break
        better = with_better_intercepts(objective, evaluation)
        # A Newton step from far away may end anywhere: only one that leads down is taken.
        if not (better.value <= evaluation.value * (1 + ROUNDING)).all():
            break
        after = slack_of_intercepts(objective, better.gradient)
        if not (after < slack).any():
            break
        evaluation, slack = better, after
    return evaluation.value - objective.penalty.conjugate(evaluation.gradient) - slack


def eps_of(rows):
    """The machine epsilon of the logits of rows."""
    return 2.0**-23 if rows.dtype == rows.xp.float32 else 2.0**-52


def slack_of_intercepts(objective, gradient):
    """What moving the intercepts may gain at most with a gradient (P, K), (n_problems,)."""
    if not objective.rows.frame.fit_intercept:
        return host.zeros(objective.n_problems)
    gradient = to_numpy(gradient[-1, :]).reshape(objective.n_problems, -1)
    return TUNED.farthest_intercept * host.abs(gradient).sum(axis=1)


def with_better_intercepts(objective, evaluation):
    """The evaluation after a Newton step of the intercepts alone, in which W stays."""
    rows, B, T = objective.rows, objective.n_problems, objective.rows.n_classes
    S, _ = class_curvature(rows, evaluation.state, 1)
    # The null direction has no curvature of its own: it gets some.
    trace = host.trace(S, axis1=1, axis2=2)[:, None, None]
    S = S + trace / T**2 + host.eye(T) * (trace * TUNED.no_curvature + host.finfo(float).tiny)
    residual = to_numpy(evaluation.gradient[-1, :]).reshape(B, T)
    residual = residual - residual.mean(axis=1, keepdims=True)
    shift = -host.linalg.solve(S, residual[:, :, None])
    shift = host.clip(shift, -1.0, 1.0)  # the slack assumes that they stay near
    theta = evaluation.theta + 0
    theta[-1, :] += rows.xp.asarray(shift.ravel(), dtype=theta.dtype)
    function = partial(_blockwise.evaluate_shifted, shift=shift.ravel())
    return objective.from_sums(theta, rows.sum(function, state=evaluation.state))
