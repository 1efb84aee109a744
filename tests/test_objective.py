"""Value, gradient, line and Hessian against the reference, in the units of X."""

import numpy as np
import problems
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from reference import Reference, one_hot
from scipy import sparse, special

from skfc import _blockwise, _gap_blockwise
from skfc._frame import Frame
from skfc._objective import Objective
from skfc._penalty import Penalty
from skfc._rows import make_rows
from skfc._tuned import override

N, T, n = 4, 3, 90
HOLD = {"dense": np.asarray, "sparse": sparse.csr_array}
SPLITS = [[slice(0, n)], [slice(0, 1), slice(1, n)], [slice(k, k + 1) for k in range(n)],
          [slice(0, 37), slice(37, 64), slice(64, n)]]  # fmt: skip
CLOSE = {"rtol": 1e-11, "atol": 1e-13}


@pytest.fixture(params=[False, True], ids=["even", "raw"])
def data(request, rng):
    X, y = problems.overlapping(n_samples=n, raw=request.param)
    X[rng.random(X.shape) < 0.3] = 0
    return X, y, rng.uniform(0.1, 2, n)


@pytest.fixture(params=HOLD)
def hold(request):
    return HOLD[request.param]


def make(X, target, weight, C, *, fit_intercept=True, blocks=None):
    """The objective of X as it is, for weights (n,) or (n_problems, n)."""
    weight = np.atleast_2d(weight)
    C = np.broadcast_to(np.asarray(C, dtype=float), len(weight))
    total = weight.sum(axis=1)
    scaled = weight * (n / total)[:, None]
    rows = make_rows(X, target, scaled, T)
    if blocks is not None:
        rows = type(rows)(X, target, scaled, n_classes=T, blocks=blocks)
    frame = Frame.of(rows.moments().pooled(), fit_intercept)
    return Objective(rows.in_frame(frame), Penalty(1 / (C * total), frame.penalty_factors()))


def direction(rng, objective):
    """Standardised weights (P, K) of the size of one."""
    return rng.standard_normal(objective.shape)


def user_step(objective, step):
    """A direction (P, T) as one of coefficients (T, N) and intercepts of X."""
    return objective.rows.frame.to_user(step)


def assert_same_gradient(objective, gradient, expected, rtol=1e-10):
    """A gradient in standardised weights against one of X (coef, intercept)."""
    coef, intercept = expected
    frame = objective.rows.frame
    # The chain rule: coef = W / scale, intercept = b - mean . W / scale.
    inner = (coef - np.outer(intercept, frame.mean) * frame.fit_intercept).T
    assert_allclose(gradient[:N], inner * frame.inverse[:, None], rtol=rtol, atol=1e-12)
    if frame.fit_intercept:
        assert_allclose(gradient[N], intercept, rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("C", [0.01, 10.0, np.inf])
@pytest.mark.parametrize("soft", [False, True])
def test_value_gradient_and_hessian(data, hold, soft, C, fit_intercept, rng):
    X, y, weight = data
    Y = rng.dirichlet(np.ones(T), n) if soft else one_hot(y)
    target = Y.T.copy() if soft else y
    objective = make(hold(X), target, weight, C, fit_intercept=fit_intercept)
    F = Reference(X, Y, weight, C=C, fit_intercept=fit_intercept)
    theta, d = direction(rng, objective), direction(rng, objective)
    at = user_step(objective, theta)
    evaluation = objective.at(theta)
    assert_allclose(evaluation.value, [F.value(*at)], rtol=1e-12)
    assert_same_gradient(objective, evaluation.gradient, F.gradient(*at))
    Hd = objective.hessian(evaluation)(d)
    assert_same_gradient(objective, Hd, F.hessian_product(*at, *user_step(objective, d)))


def test_finite_differences(data, hold, rng):
    X, y, weight = data
    objective = make(hold(X), y, weight, 1.0)
    theta, d, h = direction(rng, objective), direction(rng, objective), 1e-5
    here, ahead, behind = (objective.at(t) for t in (theta, theta + h * d, theta - h * d))
    slope = (ahead.value - behind.value) / (2 * h)
    assert_allclose(np.sum(here.gradient * d), slope[0], rtol=1e-8)
    change = (ahead.gradient - behind.gradient) / (2 * h)
    assert_allclose(objective.hessian(here)(d), change, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("C", [1.0, np.inf])
def test_the_diagonal_of_the_hessian(data, hold, C, rng):
    """Of the data part, column by column; with the penalty's it is that of the matrix."""
    X, y, weight = data
    objective = make(hold(X), y, weight, C)
    H = objective.hessian(objective.at(direction(rng, objective)))
    units = np.eye(H.diagonal().size).reshape(-1, *objective.shape)
    diagonal = np.array([np.vdot(e, H(e)) for e in units]).reshape(objective.shape)
    penalty = objective.penalty.diagonal(objective.shape[0])
    assert_allclose(H.diagonal() + penalty, diagonal, rtol=1e-9)


@pytest.mark.parametrize("blocks", SPLITS, ids=len)
def test_the_split_into_blocks_changes_only_rounding(data, hold, blocks, rng):
    X, y, weight = data
    whole, cut = (make(hold(X), y, weight, 1.0, blocks=b) for b in (SPLITS[0], blocks))
    theta, d = direction(rng, whole), direction(rng, whole)
    close = {"rtol": 1e-10, "atol": 1e-12}
    a, b = whole.at(theta), cut.at(theta)
    assert_allclose(b.value, a.value, **close)
    assert_allclose(b.gradient, a.gradient, **close)
    assert_allclose(cut.hessian(b)(d), whole.hessian(a)(d), **close)
    a, b = (o.line(e, d).move(np.array([0.3])) for o, e in ((whole, a), (cut, b)))
    assert_allclose(b.value, a.value, **close)
    assert_allclose(b.gradient, a.gradient, **close)


def test_float32_keeps_its_type_and_sums_in_float64(data, hold, rng):
    X, y, weight = data
    exact, short = (make(hold(Z), y, weight, 1.0) for Z in (X, X.astype(np.float32)))
    theta = direction(rng, exact)
    a, b = exact.at(theta), short.at(theta)
    assert short.rows.dtype == np.float32
    assert b.value.dtype == b.gradient.dtype == np.float64
    assert_allclose(b.value, a.value, rtol=1e-5)
    assert_allclose(b.gradient, a.gradient, atol=1e-5)


@pytest.mark.parametrize("C", [1.0, np.inf])
def test_single_precision(data, hold, C, rng):
    """The same objective in the same units to the digits of float32; not all that is dense."""
    X, y, weight = data
    exact = make(hold(X), y, weight, C)
    theta, d = direction(rng, exact), direction(rng, exact)
    with override(single_from=0):
        short = exact.single()
    if not (np.isfinite(C) or exact.rows.sparse):
        assert short is exact
        return
    assert short.rows.dtype == np.float32
    a, b = exact.at(theta), short.at(theta.astype(short.rows.parameter_dtype))
    assert b.value.dtype == np.float64
    assert_allclose(b.value, a.value, rtol=1e-5)
    assert_allclose(b.gradient, a.gradient, atol=1e-5)
    d = d.astype(short.rows.parameter_dtype)
    assert_allclose(short.hessian(b)(d), exact.hessian(a)(d), atol=1e-5)
    assert_allclose(short.line(b, d).slope, exact.line(a, d).slope, rtol=1e-4)


def test_several_problems_equal_one_at_a_time(data, hold, rng):
    X, y, weight = data
    C = np.array([0.1, 10.0, np.inf])
    weights = np.stack([weight, rng.uniform(0, 1, n), (np.arange(n) % 3 > 0).astype(float)])
    together = make(hold(X), y, weights, C)
    theta, d = direction(rng, together), direction(rng, together)
    alone = [together.problems(np.array([k]))[0] for k in range(3)]
    # A problem alone is what it is with its own rows, in units that all share.
    frame = together.rows.frame
    for k, one in enumerate(alone):
        rows = make_rows(hold(X), y, weights[k : k + 1] * n / weights[k].sum(), T).in_frame(frame)
        own = Objective(rows, Penalty(1 / (C[k : k + 1] * weights[k].sum()),
                                      frame.penalty_factors()))  # fmt: skip
        part = theta[:, 3 * k : 3 * k + 3]
        a, b = own.at(part), one.at(part)
        assert_allclose(b.value, a.value, **CLOSE)
        assert_allclose(b.gradient, a.gradient, **CLOSE)
    evaluation = together.at(theta)
    applied = together.hessian(evaluation)(d)
    steps = np.array([1.0, 0.25, 0.0])
    cut, part = together.problems(np.array([0, 2]), evaluation)
    columns = together.columns(np.array([0, 2]))
    assert_array_equal(part.theta, theta[:, columns])
    assert_array_equal(part.gradient, evaluation.gradient[:, columns])
    assert_allclose(cut.hessian(part)(d[:, columns]), applied[:, columns], **CLOSE)
    line = together.line(evaluation, d)
    slope, unit = line.slope, [v.copy() for v in line.at_unit_step]
    tried = line.at(steps[:2], np.array([0, 1]))
    moved = line.move(steps)
    for k in range(3):
        columns = slice(k * T, (k + 1) * T)
        e = alone[k].at(theta[:, columns])
        assert_allclose(applied[:, columns], alone[k].hessian(e)(d[:, columns]), **CLOSE)
        other = alone[k].line(e, d[:, columns])
        assert_allclose(slope[k], other.slope[0], **CLOSE)
        assert_allclose([v[k] for v in unit], [v[0] for v in other.at_unit_step], **CLOSE)
        if k < 2:
            here = other.at(steps[k : k + 1], np.array([0]))
            assert_allclose([v[k] for v in tried], [v[0] for v in here], **CLOSE)
        end = other.move(steps[k : k + 1])
        assert_allclose(moved.value[k], end.value[0], **CLOSE)
        assert_allclose(moved.gradient[:, columns], end.gradient, **CLOSE)
    again = together.at(moved.theta)
    assert_allclose(moved.value, again.value, **CLOSE)
    assert_allclose(together.again(moved).gradient, again.gradient, **CLOSE)


@pytest.mark.parametrize("C", [1.0, np.inf])
@pytest.mark.parametrize("t", [0.0, 0.1, 1.0, 3.5])
def test_a_line_agrees_with_fresh_evaluations(data, hold, C, t, rng):
    X, y, weight = data
    objective = make(hold(X), y, weight, C)
    theta, d = direction(rng, objective), direction(rng, objective)
    fresh, begin = objective.at(theta + t * d), objective.at(theta)
    slope = np.sum(begin.gradient * d)
    line = objective.line(begin, d)
    assert_allclose(line.slope[0], slope, rtol=1e-12)
    found = line.at(np.array([t]), np.array([0]))
    expected = fresh.value, [np.sum(fresh.gradient * d)]
    assert_allclose(found[0], expected[0], rtol=1e-11)
    assert_allclose(found[1], expected[1], rtol=1e-9, atol=1e-12)
    if t == 1.0:
        assert_allclose(line.at_unit_step[0], expected[0], rtol=1e-11)
        assert_allclose(line.at_unit_step[1], expected[1], rtol=1e-9)
    moved = line.move(np.array([t]))
    assert_allclose(moved.theta, theta + t * d, rtol=1e-14)
    assert_allclose(moved.value, fresh.value, rtol=1e-11)
    assert_allclose(moved.gradient, fresh.gradient, rtol=1e-9, atol=1e-12)
    # The next line begins where this one ended.
    next_line = objective.line(moved, -d)
    assert_allclose(next_line.at(np.array([t]), np.array([0]))[0], begin.value, rtol=1e-10)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("C", [0.1, np.inf])
def test_another_penalty_is_another_C(data, hold, C, fit_intercept, rng):
    X, y, weight = data
    first, other = (make(hold(X), y, weight, c, fit_intercept=fit_intercept) for c in (2.0, C))
    theta, d = direction(rng, first), direction(rng, first)
    before = first.at(theta)
    changed, seen = first.with_penalty(other.penalty, before)
    expected = other.at(theta)
    assert_allclose(seen.value, expected.value, rtol=1e-12)
    assert_allclose(seen.gradient, expected.gradient, rtol=1e-11, atol=1e-14)
    hessian = changed.hessian(seen)
    assert_allclose(hessian(d), other.hessian(expected)(d), rtol=1e-11, atol=1e-14)
    assert_allclose(hessian.with_objective(first)(d), first.hessian(before)(d), rtol=1e-11)
    assert_allclose(before.gradient, first.at(theta).gradient, rtol=1e-14)  # as it was


def test_what_a_step_leads_to(data, hold, rng):
    """The value there, and how far it moves rows with weight: logits against one another."""
    X, y, weight = data
    weights = np.stack([weight, (np.arange(n) % 3 > 0).astype(float)])
    objective = make(hold(X), y, weights, 1.0, blocks=SPLITS[3])
    theta, step = (direction(rng, objective) for _ in range(2))
    frame = objective.rows.frame
    standard = np.column_stack([(X - frame.mean) * frame.inverse, np.ones(n)])
    evaluation = objective.at(theta)
    trial = objective.hessian(evaluation).trial(step)
    moved = np.ptp((standard @ step).reshape(n, 2, T), axis=2).T * (weights > 0)
    assert_allclose(np.concatenate([m for (m,) in trial.moved], axis=1), moved, atol=1e-11)
    typical = [np.mean(m[w > 0] ** 0.25) ** 4 for m, w in zip(moved, weights, strict=True)]
    assert_allclose(trial.typical, typical, rtol=1e-9)
    there = objective.at(theta + step).value
    assert_allclose(objective.value_after(evaluation, step), there, rtol=1e-12)
    penalty = objective.penalty_after(evaluation, step)
    assert_allclose(trial.loss + penalty, there, rtol=1e-12)
    # Nothing has changed.
    assert_allclose(objective.again(evaluation).value, evaluation.value, rtol=1e-14)


def test_a_hessian_without_rows_that_may_lose_their_curvature(data, hold, rng):
    """That are those far out that are decided or move; any row that moves far is told."""
    X, y, weight = data
    objective = make(hold(X), y, weight, 1.0, blocks=SPLITS[3])
    theta, d = 2 * direction(rng, objective), direction(rng, objective)
    hessian = objective.hessian(objective.at(theta))
    frame = objective.rows.frame
    standard = np.column_stack([(X - frame.mean) * frame.inverse, np.ones(n)])
    p = special.softmax(standard @ theta, axis=1)
    prominence = 1 + (standard[:, :-1] ** 2).mean(axis=1)
    moved = np.ptp(standard @ d, axis=1)
    little, far_out = np.quantile(moved, 0.9), np.median(prominence)
    out = ((p.max(axis=1) > 0.6) | (moved > little)) & (prominence > far_out) & (weight > 0)
    trial = hessian.trial(d)
    with override(decided=0.4, far_out=far_out, far_logits=little):
        others, n_out = hessian.without_far_rows(trial.moved)
    assert_allclose(n_out * objective.rows.n_total, [out.sum()])
    assert 0 < out.sum() < n
    z = standard @ d
    left = np.where(out, 0.0, weight)[:, None]
    left = left * p * (z - (p * z).sum(axis=1, keepdims=True))
    expected = standard.T @ left / weight.sum()
    objective.penalty.add_gradient(expected, d)
    assert_allclose(others(d), expected, rtol=1e-9, atol=1e-12)
    farthest = moved[weight > 0].max()
    for far in (farthest * (1 - 1e-9), farthest * (1 + 1e-9)):
        assert_array_equal(trial.exceeds(far, np.inf), farthest > far)


def test_inputs_are_not_mutated(data, rng):
    X, y, weight = data
    objective = make(X, y, weight, 1.0)
    theta, d = direction(rng, objective), direction(rng, objective)
    before = [a.copy() for a in (X, y, weight, theta, d)]
    evaluation = objective.at(theta)
    gradient = evaluation.gradient.copy()
    objective.hessian(evaluation)(d)
    objective.hessian(evaluation).diagonal()
    objective.rows.sum(_gap_blockwise.separation, state=evaluation.state)
    objective.with_penalty(objective.penalty.scaled(3.0), evaluation)
    assert_array_equal(objective.again(evaluation).gradient, gradient)
    assert_array_equal(evaluation.gradient, gradient)
    objective.line(evaluation, d).move(np.array([0.5]))
    for a, b in zip((X, y, weight, theta, d), before, strict=True):
        assert_array_equal(a, b)


def test_separation_looks_at_rows_with_weight():
    X = np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]])
    y, theta = np.array([0, 1, 2, 1]), np.vstack([10 * np.eye(4, T), np.zeros(T)])
    for weight, n_wrong in ((np.ones((1, 4)), 1), (np.array([[1.0, 1, 1, 0]]), 0)):
        rows = make_rows(X, y, weight, T)
        rows = rows.in_frame(Frame(np.zeros(4), np.ones(4), np.ones(4), True, np.ones(4)))
        state = rows.sum(_blockwise.evaluate, theta).state
        assert rows.sum(_gap_blockwise.separation, state=state).values[0] == n_wrong / 4


@pytest.mark.parametrize(
    ("t", "passes"),
    [(1, 1), (0.5, 1.5)],
)
def test_a_step_costs_one_pass(data, hold, t, passes, rng):
    """Half more only where the gradient has come with step one and another was taken."""
    X, y, weight = data
    objective = make(hold(X), y, weight, 1.0)
    work = objective.rows.work
    evaluation = objective.at(np.zeros(objective.shape))
    assert work.passes == 0.5  # there are no logits to compute
    line = objective.line(evaluation, direction(rng, objective))
    line.at(np.array([0.7]), np.array([0]))
    line.move(np.array([t]))
    assert work.passes == 0.5 + passes


def test_passes_are_counted_once_for_all_views(data, rng):
    X, y, weight = data
    objective = make(X, y, np.stack([weight, weight]), 1.0)
    evaluation = objective.at(direction(rng, objective))
    changed, evaluation = objective.with_penalty(objective.penalty.scaled(10.0), evaluation)
    changed.hessian(evaluation)(direction(rng, objective))
    (part,) = changed.problems(np.array([1]))
    part.at(direction(rng, part))
    work = objective.rows.work
    assert (work.passes, work.products) == (3.0, 1)


@pytest.mark.parametrize("C", [1.0, np.inf])
@pytest.mark.parametrize("soft", [False, True])
def test_array_api(data, C, soft, rng):
    """Evaluations, lines and Hessians under the strict namespace equal those of NumPy."""
    xp = pytest.importorskip("array_api_strict")
    X, y, weight = data
    target = rng.dirichlet(np.ones(T), n).T.copy() if soft else y
    plain = make(X, target, weight, C)
    weight = (weight * (n / weight.sum()))[None]
    rows = make_rows(xp.asarray(X), xp.asarray(target), xp.asarray(weight), T)
    frame = Frame.of(rows.moments().pooled(), True)
    penalty = Penalty(plain.penalty.l2, frame.penalty_factors())
    strict = Objective(rows.in_frame(frame), penalty)
    theta, d = direction(rng, plain), direction(rng, plain)
    close = {"rtol": 1e-10, "atol": 1e-12}
    a, b = plain.at(theta), strict.at(xp.asarray(theta))
    assert_allclose(np.asarray(b.value), a.value, **close)
    assert_allclose(np.asarray(b.gradient), a.gradient, **close)
    Hd = strict.hessian(b)(xp.asarray(d))
    assert_allclose(np.asarray(Hd), plain.hessian(a)(d), **close)
    diagonals = (o.hessian(e).diagonal() for o, e in ((strict, b), (plain, a)))
    assert_allclose(*(np.asarray(v) for v in diagonals), **close)
    p, q = plain.line(a, d), strict.line(b, xp.asarray(d))
    assert_allclose(np.asarray(q.slope), p.slope, **close)
    for s, r in zip(q.at_unit_step, p.at_unit_step, strict=True):
        assert_allclose(np.asarray(s), r, **close)
    t, which = np.array([0.3]), np.array([0])
    for s, r in zip(q.at(t, which), p.at(t, which), strict=True):
        assert_allclose(np.asarray(s), r, **close)
    end, strict_end = p.move(t), q.move(t)
    assert_allclose(np.asarray(strict_end.value), end.value, **close)
    assert_allclose(np.asarray(strict_end.gradient), end.gradient, **close)
