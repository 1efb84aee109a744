"""How far the minimum is: bounds lie below it, estimates are near it."""

from dataclasses import replace

import numpy as np
import problems
import pytest
from core import (
    SMOOTH,
    dense_hessian,
    make_iterate,
    make_objective,
    standardised,
    zero_mean,
)
from numpy.testing import assert_allclose, assert_array_equal

from skfc import _newton_bound, _optimality
from skfc._blockwise import keep_probabilities
from skfc._dual_bound import dual_bound
from skfc._newton_bound import newton_bound
from skfc._optimality import estimate, lower_bound, relative
from skfc._preconditioner import ExactHessian, make
from skfc._tuned import TUNED, override
from skfc.solvers import GO_ON, SOLVERS

WANTED, TOL = 1e-12, 1e-6


@pytest.fixture(autouse=True)
def arithmetic():
    """As in a fit: overflow and dividing by zero are no warnings."""
    with np.errstate(all="ignore"):
        yield


def minimise(objective, X):
    """The minimum of one problem by Newton's method with halved steps, to rounding."""
    evaluation = objective.at(np.zeros(objective.shape))
    for _ in range(100):
        H = dense_hessian(objective, X, evaluation.theta).reshape(evaluation.theta.size, -1)
        g = evaluation.gradient.ravel()
        step = zero_mean(np.linalg.lstsq(H, g, rcond=1e-14)[0].reshape(evaluation.theta.shape))
        t = 1.0
        while t > 1e-9:
            there = objective.at(evaluation.theta - t * step)
            if there.value[0] < evaluation.value[0]:
                break
            t /= 2
        else:
            break
        evaluation = there
    return evaluation


def problem(seed, C, *, fit_intercept=True):
    """A random problem of random shape, scales and weights: X, and its objective."""
    rng = np.random.default_rng(seed)
    shape = rng.integers(20, 150), rng.integers(1, 7), rng.integers(2, 6)
    X, y = problems.overlapping(*(int(n) for n in shape), seed=seed, raw=bool(seed % 2))
    if not fit_intercept:
        X = X / X.std(axis=0)
    weight = rng.uniform(0.1, 3.0, len(y))
    return X, make_objective(X, y, weight, C, fit_intercept=fit_intercept), rng


# -- bounds -------------------------------------------------------------------------------


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("C", [1e-3, 0.1, 10.0, 1e3])
@pytest.mark.parametrize("seed", range(12))
def test_the_lower_bound_is_one(seed, C, fit_intercept):
    """From wherever it is taken, intercepts far from their optimum included."""
    X, objective, rng = problem(seed, C, fit_intercept=fit_intercept)
    best = minimise(objective, X).value[0]
    for size in (0.0, 1e-3, 0.3, 3.0):
        theta = size * zero_mean(rng.standard_normal(objective.shape))
        bound = lower_bound(objective, objective.at(theta), np.array([WANTED]))
        assert bound.shape == (1,)
        assert bound[0] <= best * (1 + 1e-12)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("C", [1e-3, 0.1, 10.0, 1e3])
@pytest.mark.parametrize("seed", range(4))
def test_the_lower_bound_is_tight_at_the_optimum(seed, C, fit_intercept):
    X, objective, rng = problem(seed, C, fit_intercept=fit_intercept)
    best = minimise(objective, X)
    bound = lower_bound(objective, best, np.array([WANTED]))
    assert_allclose(bound, best.value, rtol=1e-9)
    # One Newton step before the end it is next to tight already, and the gap is proven.
    away = best.theta + 1e-9 * zero_mean(rng.standard_normal(objective.shape))
    near = objective.at(away)
    bound = lower_bound(objective, near, np.array([WANTED]))
    assert bound[0] <= best.value[0] * (1 + 1e-14)
    assert near.value[0] - bound[0] <= 1e-6 * best.value[0]


@pytest.mark.parametrize("seed", range(4))
def test_intercepts_far_from_their_optimum_are_moved(seed):
    """Their gradient is a term of the bound, for want of a penalty: it has to vanish."""
    X, objective, _ = problem(seed, 0.1)
    best = minimise(objective, X)
    theta = best.theta + 0
    theta[-1] += np.linspace(0.3, -0.3, theta.shape[1])
    evaluation = objective.at(theta)
    before = theta.copy()
    bound = lower_bound(objective, evaluation, np.array([1e-9]))
    assert bound[0] <= best.value[0] * (1 + 1e-12)
    assert_allclose(bound, best.value, rtol=1e-6)
    assert_array_equal(evaluation.theta, before)


def test_bounds_of_several_problems_are_those_of_each(rng):
    X, y = problems.overlapping(100, 4, raw=False)
    C, weight = np.array([0.01, 1.0, 100.0]), rng.uniform(0.0, 2.0, (3, 100))
    # Standardised features depend on the weights of all problems, the bound does not.
    together = make_objective(X, y, weight, C)
    theta = 0.3 * zero_mean(rng.standard_normal(together.shape), 3)
    evaluation = together.at(theta)
    bounds = lower_bound(together, evaluation, np.full(3, WANTED))
    for b in range(3):
        alone, here = together.problems(np.array([b]), evaluation)
        assert_allclose(bounds[b], lower_bound(alone, here, np.array([WANTED]))[0], rtol=1e-9)
        best = minimise(alone, X)
        assert bounds[b] <= best.value[0] * (1 + 1e-12)
        tight = lower_bound(alone, best, np.array([WANTED]))
        assert_allclose(tight, best.value, rtol=1e-9)


def test_there_is_no_bound_without_a_penalty(rng):
    X, y = problems.overlapping(100, 4, raw=False)
    alone = make_objective(X, y, C=np.inf)
    evaluation = alone.at(np.zeros(alone.shape))
    assert_array_equal(lower_bound(alone, evaluation, np.ones(1)), -np.inf)
    both = make_objective(X, y, C=[np.inf, 1.0])
    bounds = lower_bound(both, both.at(np.zeros(both.shape)), np.ones(2))
    assert bounds[0] == -np.inf
    assert np.isfinite(bounds[1])


def test_a_bound_costs_little():
    """Half a pass for each step of the intercepts, and none without one."""
    _, objective, rng = problem(1, 1.0, fit_intercept=False)
    evaluation = objective.at(zero_mean(rng.standard_normal(objective.shape)))
    before = objective.rows.work.passes
    lower_bound(objective, evaluation, np.array([WANTED]))
    assert objective.rows.work.passes == before
    _, objective, rng = problem(1, 1.0)
    evaluation = objective.at(zero_mean(rng.standard_normal(objective.shape)))
    before = objective.rows.work.passes
    lower_bound(objective, evaluation, np.array([0.0]))
    assert objective.rows.work.passes - before <= 0.5 * TUNED.look_back


def test_intercepts_stay_where_rounding_hides_what_moving_them_gains():
    """Rounding of their gradient alone is a larger term of the bound than is wanted."""
    X, y = problems.overlapping(300, 4, seed=3, raw=False)
    objective = make_objective(X.astype(np.float32), y, C=1.0)
    evaluation = objective.at(0.1 * zero_mean(np.ones(objective.shape).cumsum(axis=1)))
    for share, moves in ((1e-3, True), (1e-6, False)):
        before = objective.rows.work.passes
        bound = lower_bound(objective, evaluation, share * evaluation.value)
        assert (objective.rows.work.passes > before) == moves
        assert bound[0] <= evaluation.value[0]


@pytest.mark.parametrize("n_problems", [1, 3])
def test_the_conjugate_of_the_penalty(n_problems, rng):
    """R*(g) = max_W <g, W> - R(W), at W = g / (l2 d), and no other W gives more."""
    X, y = problems.overlapping(50, 4)
    objective = make_objective(X, y, C=np.geomspace(0.1, 10.0, n_problems))
    penalty, N = objective.penalty, 4
    g = rng.standard_normal(objective.shape)
    found = penalty.conjugate(g)
    of_weights = g.copy()
    of_weights[N:] = 0.0
    diagonal = np.repeat(penalty.diagonal(N + 1)[:N], 3, axis=1)
    W = np.vstack([g[:N] / diagonal, np.zeros(3 * n_problems)])
    best = objective.dot(of_weights, W) - penalty.value(W)
    assert_allclose(found, best, rtol=1e-12)
    for _ in range(20):
        other = W + 0.1 * np.abs(W).max() * rng.standard_normal(W.shape)
        assert (objective.dot(of_weights, other) - penalty.value(other) < found).all()
    assert_array_equal(make_objective(X, y, C=np.inf).penalty.conjugate(g[:, :3]), np.inf)


# -- bounds from a Newton step -------------------------------------------------------------


def iterate_of(objective, theta):
    """What Newton's method with the Hessian of all rows yields at `theta`."""
    solver = SMOOTH["newton-cholesky"].generate(objective, ExactHessian(objective), theta)
    return next(solver)


def bound_of(iterate):
    objective, evaluation = iterate.objective, iterate.evaluation
    return newton_bound(iterate.newton, iterate.whole, objective, evaluation, np.inf)[0]


@pytest.mark.parametrize("C", [1e-3, 1.0, 1e3, np.inf])
@pytest.mark.parametrize("seed", range(12))
def test_the_newton_bound_is_one(seed, C):
    """Wherever it is known it is at least F - F*, and at most twice the decrement."""
    X, objective, rng = problem(seed, C, fit_intercept=seed % 3 > 0)
    best, known = minimise(objective, X), 0
    for size in (1.0, 0.1, 1e-2, 1e-3, 1e-4):
        step = zero_mean(rng.standard_normal(objective.shape)) / objective.shape[0]
        iterate = iterate_of(objective, best.theta + size * step)
        bound, value = bound_of(iterate), iterate.evaluation.value[0]
        assert bound >= (value - best.value[0]) * (1 - 1e-9) - 1e-15 * value
        if np.isfinite(bound):
            known += 1
    assert known  # near the minimum


def test_there_is_no_newton_bound_where_rounding_overflows(monkeypatch):
    """As of sparse columns far from zero, whose factor holds rounding alone: rows may not move."""
    forms = ExactHessian.row_forms

    def one_row_stays(self, *args):
        found, factor = forms(self, *args)
        found[0][0][0] = 0.0
        return found, factor

    monkeypatch.setattr(ExactHessian, "row_forms", one_row_stays)
    monkeypatch.setattr(ExactHessian, "noise", lambda self, sizes: np.inf)
    X, objective, _ = problem(0, 1.0)
    assert bound_of(iterate_of(objective, minimise(objective, X).theta)) == np.inf


def test_the_newton_bound_is_tight():
    """Rows that all lose curvature along the step, by a factor that the bound allows for."""
    X, y = np.ones((1000, 1)), np.arange(1000) % 2
    X[:, 0] += 1e-3 * np.arange(1000)
    objective = make_objective(X, y, C=np.inf)
    theta = np.zeros(objective.shape)
    theta[-1] = [0.1, -0.1]
    iterate = iterate_of(objective, theta)
    best = minimise(objective, X).value[0]
    bound, gap = bound_of(iterate), iterate.evaluation.value[0] - best
    assert gap <= bound <= 1.3 * gap


def test_what_a_step_of_unit_norm_moves(rng):
    """No step moves a row's logits farther against one another, and one as far."""
    X, objective, _ = problem(3, 1.0)
    theta = 0.3 * zero_mean(rng.standard_normal(objective.shape))
    iterate = iterate_of(objective, theta)
    forms, factor = iterate.whole.row_forms(objective.rows)
    H = dense_hessian(objective, X, theta).reshape(theta.size, -1)
    inverse = np.linalg.pinv(H, rcond=1e-13)
    x, (P, T) = standardised(objective, X), objective.shape
    rows = np.zeros((len(x), T, T, P, T))
    for k in range(T):
        rows[:, k, :, :, k] += x[:, None, :]
        rows[:, :, k, :, k] -= x[:, None, :]
    rows = rows.reshape(len(x), -1, P * T)
    most = np.einsum("nia,ab,nib->ni", rows, inverse, rows).max(axis=1)
    assert factor == pytest.approx(1.0, abs=1e-4)
    assert_allclose(forms[0][0], most, rtol=1e-4)


def test_what_was_added_to_a_diagonal_is_counted():
    _, objective, _ = problem(3, 1.0)
    whole = iterate_of(objective, np.zeros(objective.shape)).whole
    (factor,) = whole.factor
    A = factor.L @ factor.L.T
    whole.factor = [replace(factor, L=np.linalg.cholesky(A + 1e-3 * np.eye(len(A))))]
    least = np.linalg.eigvalsh(A)[0]
    _, factor = whole.row_forms(objective.rows)
    assert factor >= (least + 1e-3) / least


def almost_equal_columns(change):
    """An objective with two columns that differ by little; the penalty is next to nothing."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 4))
    X[:, 3] = X[:, 0] + change * X[:, 3]
    y = (X[:, 0] + rng.logistic(size=300) > 0).astype(int) + (X[:, 1] > 1)
    return X, make_objective(X, y, C=1e30)


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 1e-18, reason="no extended precision")
@pytest.mark.parametrize("change", [1e-3, 1e-5, 1e-7])
def test_the_factor_of_a_hessian_keeps_directions_that_products_of_features_lose(change):
    """R with H⁻¹ = R Rᵀ: in its columns H is one, but where all classes change together."""
    X, objective = almost_equal_columns(change)
    iterate = iterate_of(objective, np.full(objective.shape, 0.1) * np.arange(3.0))
    assert iterate.is_exact
    assert (iterate.whole.factor[0].turn is None) == (change == 1e-3)
    x, T = standardised(objective, X).astype(np.longdouble), 3
    (p,) = objective.rows.sum(keep_probabilities, state=iterate.evaluation.state).state[0]
    p, P = p.astype(np.longdouble), objective.shape[0]
    H = np.zeros((T, P, T, P), np.longdouble)
    for k in range(T):
        for j in range(T):
            weight = p[k] * (p.sum(axis=0) - p[k]) if k == j else -p[k] * p[j]
            H[k, :, j] = (x.T * weight) @ x / len(x)
    R = iterate.whole.factor[0].root_of_inverse()
    size = P * T
    values = np.linalg.eigvalsh((R.T @ H.reshape(size, size) @ R).astype(float))
    assert_allclose(values[:P], 0.0, atol=1e-6)
    assert_allclose(values[P:], 1.0, atol=0.05)


def bounds_on_the_way(objective, tol=TOL, find=None):
    """F at 40 iterates of Newton's method, and the bounds where the Newton step is at hand.

    These are the Newton bounds, or what `find` gives for an iterate.
    """
    steps = SMOOTH["newton-cholesky"].generate(
        objective, ExactHessian(objective), np.zeros(objective.shape)
    )
    iterate, values, bounds = next(steps), [], []
    for _ in range(40):
        value, bound = iterate.evaluation.value, np.inf
        if iterate.is_exact and find is not None:
            bound = find(iterate)
        elif iterate.is_exact:
            bound = newton_bound(
                iterate.newton, iterate.whole, objective, iterate.evaluation, tol * value
            )[0]
        values.append(value[0])
        bounds.append(bound)
        iterate = steps.send(GO_ON)
    return np.array(values), np.array(bounds)


def far_rows(seed, largest):
    return make_objective(*problems.far_rows(seed, largest), C=10.0)


@pytest.mark.parametrize("largest", [1e6, 1e8])
@pytest.mark.parametrize("seed", range(8))
def test_the_newton_bound_is_one_where_rows_are_next_to_certain(seed, largest):
    values, bounds = bounds_on_the_way(far_rows(seed, largest))
    assert (bounds >= values - values.min() - 1e-10 * values).all()  # logits of 1e7
    assert (bounds <= TOL * values).any()


def test_rows_that_may_move_far_have_less_curvature_in_a_bound():
    """It is known earlier on the way to the minimum, and still a bound."""
    known = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        X = rng.standard_t(2, size=(200, 5))
        y = (X[:, :3] + rng.gumbel(size=(200, 3))).argmax(axis=1)
        for rounds in (TUNED.look_back, 1):
            with override(look_back=rounds):
                values, bounds = bounds_on_the_way(make_objective(X, y, C=10.0), 1e-3)
            assert (bounds >= values - values.min() - 1e-12 * values).all()
            known.append(np.flatnonzero(bounds <= 1e-3 * values)[0])
    assert sum(known[::2]) < sum(known[1::2])


def test_classes_of_no_probability_make_a_bound_known(monkeypatch):
    """Rows that have lost their curvature would hide what the penalty alone holds."""
    known = []
    for seed in range(8):
        values, bounds = bounds_on_the_way(far_rows(seed, 1e12))
        known.append((bounds <= TOL * values).any())
    monkeypatch.setattr(_newton_bound, "bound_with_less", lambda *_: np.full(1, np.inf))
    for seed in range(8):
        values, bounds = bounds_on_the_way(far_rows(seed, 1e12))
        known.append((bounds <= TOL * values).any())
    assert sum(known[8:]) < sum(known[:8])


def dual_bound_of(iterate, step=None, wanted=0.0):
    """That of the Newton step of an iterate, or of another `step`."""
    step = -iterate.newton.step if step is None else step
    objective, solve = iterate.objective, iterate.whole.solve
    return dual_bound(objective, iterate.evaluation, step, solve, np.array([wanted]))[0]


@pytest.mark.parametrize("C", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("seed", range(12))
def test_the_dual_bound_is_one(seed, C):
    """Of any step at any weights; and of Newton's next to half the decrement near the minimum."""
    X, objective, rng = problem(seed, C, fit_intercept=seed % 3 > 0)
    best = minimise(objective, X)
    for size in (1.0, 0.1, 1e-2, 1e-3, 1e-4):
        away = zero_mean(rng.standard_normal(objective.shape)) / objective.shape[0]
        iterate = iterate_of(objective, best.theta + size * away)
        value = iterate.evaluation.value[0]
        for step in (None, away, -size * away):
            bound = dual_bound_of(iterate, step)
            assert bound >= (value - best.value[0]) * (1 - 1e-9) - 1e-15 * value
    assert dual_bound_of(iterate) <= 1.01 * iterate.decrement[0]


def test_a_dual_bound_needs_a_penalty_and_as_little_as_is_wanted(monkeypatch):
    X, objective, rng = problem(0, np.inf)
    theta = minimise(objective, X).theta
    assert dual_bound_of(iterate_of(objective, theta)) == np.inf
    X, objective, rng = problem(0, 1.0)
    theta = minimise(objective, X).theta + 0.1 * zero_mean(rng.standard_normal(objective.shape))
    iterate, passes = iterate_of(objective, theta), []
    for wanted in (np.inf, 0.0):
        before = objective.rows.work.passes
        dual_bound_of(iterate, wanted=wanted)
        passes.append(objective.rows.work.passes - before)
    assert passes == [1, 1]  # it is enough, or none is


@pytest.mark.parametrize("largest", [1e6, 1e8])
@pytest.mark.parametrize("seed", range(8))
def test_a_dual_bound_is_known_where_rows_are_next_to_certain(seed, largest):
    values, bounds = bounds_on_the_way(
        far_rows(seed, largest), find=lambda it: dual_bound_of(it, wanted=TOL)
    )
    assert (bounds >= values - values.min() - 1e-10 * values).all()
    assert (bounds <= TOL * values).any()


# -- estimates ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hessian", "block-diagonal", "kronecker", "diagonal"])
@pytest.mark.parametrize("C", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("seed", range(6))
def test_the_estimate_is_right_within_ten(seed, C, name):
    """Near the minimum, in whatever direction from it."""
    X, objective, rng = problem(seed, C)
    best = minimise(objective, X)
    for size in (1e-1, 1e-3):
        theta = best.theta + size * zero_mean(rng.standard_normal(objective.shape))
        iterate = make_iterate(objective, theta, make(objective, name))
        found = estimate(iterate, np.arange(1), TOL)
        gap = iterate.evaluation.value[0] - best.value[0]
        assert gap / 10 <= found.decrement[0] <= 10 * gap
    assert not found.doubtful.any()  # so near that no row moves far


@pytest.mark.parametrize("C", [1e-3, 1.0, 1e3])
def test_a_thorough_estimate_is_right_to_third_order(C):
    X, objective, rng = problem(0, C)
    best = minimise(objective, X)
    for size in (1e-1, 1e-2, 1e-3):
        theta = best.theta + size * zero_mean(rng.standard_normal(objective.shape))
        iterate = make_iterate(objective, theta, make(objective, "kronecker"))
        found = estimate(iterate, np.arange(1), TOL, thorough=True)
        gap = iterate.evaluation.value[0] - best.value[0]
        assert found.decrement[0] <= gap * (1 + size)
        assert found.decrement[0] >= gap * (1 - size) / (1 + TUNED.share_to_come)


def test_estimates_of_some_problems_are_those_of_each(rng):
    X, y = problems.overlapping(100, 4, raw=False)
    C = np.array([0.1, 1.0, 10.0])
    objective = make_objective(X, y, C=C)
    theta = 0.1 * zero_mean(rng.standard_normal(objective.shape), 3)
    whole = make_iterate(objective, theta, make(objective, "kronecker"))
    every = estimate(whole, np.arange(3), TOL)
    assert every.decrement.shape == every.doubtful.shape == (3,)
    for index in ([0], [2], [0, 2]):
        some = estimate(whole, np.array(index), TOL)
        assert_allclose(some.decrement, every.decrement[index], rtol=0.3)
        for b, decrement in zip(index, some.decrement, strict=True):
            alone = make_objective(X, y, C=C[b])
            iterate = make_iterate(
                alone, theta[:, objective.columns([b])], make(alone, "kronecker")
            )
            found = estimate(iterate, np.arange(1), TOL)
            assert_allclose(decrement, found.decrement[0], rtol=0.3)


def test_a_broken_hessian_is_in_doubt():
    _, objective, rng = problem(0, 1.0)
    theta = 0.1 * zero_mean(rng.standard_normal(objective.shape))

    class Broken:
        """No curvature in any direction."""

        def __init__(self, hessian):
            self.hessian = hessian

        def __call__(self, direction):
            return 0.0 * direction

        def __getattr__(self, name):
            return getattr(self.hessian, name)

    iterate = make_iterate(
        objective, theta, make(objective, "kronecker"),
        hessian=lambda objective, evaluation: Broken(objective.hessian(evaluation)),
    )  # fmt: skip
    assert estimate(iterate, np.arange(1), TOL).doubtful.all()


def decided_and_far(value=1e5, margin=6.0):
    """Where a row of a far value is decided by it, and the other features have done their best."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 3))
    y = (X @ [[1.0, -1.0], [2.0, 0.5], [3.0, -3.0]] + rng.gumbel(size=(300, 2))).argmax(axis=1)
    X[7, 2] = value
    objective, others = make_objective(X, y, C=1.0), make_objective(X[:, :2], y, C=1.0)
    coef, intercept = others.rows.frame.to_user(minimise(others, X[:, :2]).theta)
    far = (np.arange(2) == y[7]) - 0.5
    coef = np.column_stack([coef, far * margin / value])
    return X, objective, objective.rows.frame.from_user(coef, intercept)


def test_a_row_that_is_decided_and_far_out_may_hide_the_others():
    """It has nearly all curvature of its feature, in which the others would gain."""
    X, objective, theta = decided_and_far()
    value = objective.at(theta).value[0]
    gap = value / minimise(objective, X).value[0] - 1
    iterate = make_iterate(objective, theta, make(objective, "hessian"))
    found = estimate(iterate, np.arange(1), 0.1 * gap)
    assert found.decrement[0] / value < 0.05 * gap
    assert found.doubtful.all()
    assert not found.broken.any()
    with override(decided=0.0, far_logits=np.inf):
        assert not estimate(iterate, np.arange(1), 0.1 * gap).doubtful.any()


def test_a_row_that_moves_far_may_hide_the_others():
    """Undecided, it has all curvature of its feature, and the step moves it a logit."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 3))
    y = (X @ [[0.0, 0.0], [0.0, 0.0], [2.0, -2.0]] + rng.gumbel(size=(300, 2))).argmax(axis=1)
    X[7, 2] = 1e4
    objective = make_objective(X, y, C=1.0)
    theta = np.zeros(objective.shape)
    value = objective.at(theta).value[0]
    iterate = make_iterate(objective, theta, make(objective, "hessian"))
    tol = 2 * estimate(iterate, np.arange(1), TOL).decrement[0] / value
    assert tol < 0.1 * (value / minimise(objective, X).value[0] - 1)
    assert estimate(iterate, np.arange(1), tol).doubtful.all()


def test_relative_gaps():
    """Infinite where the minimum may be zero."""
    value = np.array([1.0, 1.0, 1.0, 2.0])
    gap = np.array([0.0, 0.5, 1.0, 5.0])
    assert_array_equal(relative(gap, value), [0.0, 1.0, np.inf, np.inf])


def marked_rows(margin, C=1e6):
    """Where three rows of a mark are on their side by `margin`, the others at their minimum."""
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.standard_normal((300, 2)), np.zeros(300)])
    y = (X @ [[1.0, -1.0], [2.0, 0.5], [0.0, 0.0]] + rng.gumbel(size=(300, 2))).argmax(axis=1)
    X[np.flatnonzero(y == 1)[:3], 2] = 1.0
    few, others = X[:, 2] == 1.0, X[:, 2] == 0.0
    objective = make_objective(X, y, C=C)
    rest = make_objective(X[others, :2], y[others], C=C)
    coef, intercept = rest.rows.frame.to_user(minimise(rest, X[others, :2]).theta)
    scores = X[few, :2] @ (coef[1] - coef[0]) + intercept[1] - intercept[0]
    mark = (margin - scores.min()) * np.array([[-0.5], [0.5]])
    return X, objective, objective.rows.frame.from_user(np.column_stack([coef, mark]), intercept)


@pytest.mark.parametrize("name", ["hessian", "diagonal"])
@pytest.mark.parametrize("C", [1e4, 1e6])
def test_rows_in_the_tail_of_their_loss_leave_no_doubt(C, name, monkeypatch):
    """They move by a logit at every step, and have next to nothing to gain."""
    X, objective, theta = marked_rows(18.0, C)
    value = objective.at(theta).value[0]
    gap = 1 - minimise(objective, X).value[0] / value
    tol = 3e-3 if C == 1e4 else 1e-4
    iterate = make_iterate(objective, theta, make(objective, name), poor=name == "diagonal")
    found = estimate(iterate, np.arange(1), tol)
    assert not found.doubtful.any()
    assert 0 < gap <= 1.1 * found.decrement[0] / value <= 1.1 * tol
    monkeypatch.setattr(_optimality, "without_tails", lambda *_: None)
    assert estimate(iterate, np.arange(1), tol).doubtful.all()


def test_rows_that_have_something_to_gain_stay_in_doubt():
    """What they would lose is more than `tol` allows; without a penalty nothing holds them."""
    _, objective, theta = marked_rows(6.0)
    iterate = make_iterate(objective, theta, make(objective, "hessian"))
    assert estimate(iterate, np.arange(1), 1e-4).doubtful.all()
    _, objective, theta = marked_rows(18.0)
    free = objective.with_penalty(replace(objective.penalty, l2=0 * objective.penalty.l2))
    iterate = make_iterate(free, theta, make(free, "hessian"))
    assert estimate(iterate, np.arange(1), 1e-4).doubtful.all()


@pytest.mark.parametrize("seed", range(3))
def test_without_a_penalty_almost_equal_columns_hide_nothing(seed):
    """Few products miss a direction of next to no curvature: the Hessian itself shows it."""
    rng = np.random.default_rng(seed)
    X, change = rng.standard_normal((2000, 6)), rng.standard_normal(2000)
    y = (X[:, 0] + 0.2 * change + rng.gumbel(size=2000) > rng.gumbel(size=2000)).astype(int)
    some = make_objective(X, y, C=np.inf)
    near = minimise(some, X).theta + 1e-3 * rng.standard_normal(some.shape)
    coef, intercept = some.rows.frame.to_user(near)
    both, apart = X[:, 0] + 1e-6 * change, np.column_stack([X, change])
    objective = make_objective(np.column_stack([X, both]), y, C=np.inf)
    theta = objective.rows.frame.from_user(np.column_stack([coef, 0 * coef[:, 0]]), intercept)
    value = objective.at(theta).value[0]
    gap = 1 - minimise(make_objective(apart, y, C=np.inf), apart).value[0] / value
    iterate = make_iterate(objective, theta, make(objective, "diagonal"), poor=True)
    found = estimate(iterate, np.arange(1), 1e-4)
    assert found.decrement[0] / value > 0.5 * gap > 1e-4


def test_an_estimate_takes_the_products_of_the_step_at_hand():
    """Wherever their preconditioner was formed: the same products would be made once more."""
    X, y = problems.overlapping(900, 126, 4, seed=1)
    objective = make_objective(X, y, C=100.0)
    M = make(objective, "block-diagonal")
    steps = SOLVERS["newton-cg"].generate(objective, M, np.zeros(objective.shape))
    iterate, old = steps.send(None), []
    for _ in range(12):
        iterate = steps.send(GO_ON)
        if iterate.newton is None and iterate.products is not None:
            found = estimate(iterate, np.array([0]), 0.1)
            again = estimate(replace(iterate, products=None), np.array([0]), 0.1)
            assert_allclose(found.decrement, again.decrement, rtol=1e-6)
            old.append(found.newton is iterate.products)
    assert any(old)
