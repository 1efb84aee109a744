"""Newton steps by conjugate gradients: against dense solves, and the rules that end them."""

import numpy as np
import problems
import pytest
from core import dense_hessian, make_objective, zero_mean
from numpy.testing import assert_allclose, assert_array_equal

from skfc._conjugate_gradients import most_to_come, newton_step, still_to_come
from skfc._preconditioner import make

N, T = 4, 3
WHOLE = {"share": 0.0, "least": 16, "most": 16}


@pytest.fixture
def data(rng):
    return problems.overlapping(120, N, T, raw=False), rng.uniform(0.5, 1.5, 120)


def prepare(data, C, theta=None, *, preconditioner="diagonal", fit_intercept=True):
    """The objective, an evaluation, the Hessian there and a preconditioner."""
    (X, y), weight = data
    objective = make_objective(X, y, weight, C, fit_intercept=fit_intercept)
    theta = np.zeros(objective.shape) if theta is None else theta
    evaluation = objective.at(theta)
    M = make(objective, preconditioner)
    M.update(objective, evaluation, renew=True)
    return objective, evaluation, objective.hessian(evaluation), M


def dense_solve(objective, X, theta, g):
    """H⁻¹ g of zero mean over the classes, and the decrement <g, H⁻¹ g> / 2."""
    H = dense_hessian(objective, X, theta).reshape(theta.size, -1)
    step = zero_mean((np.linalg.pinv(H, rcond=1e-13) @ g.ravel()).reshape(theta.shape))
    return step, 0.5 * np.vdot(g, step)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("C", [1e-3, 1.0, 1e3, np.inf])
@pytest.mark.parametrize("preconditioner", ["kronecker", "diagonal", "block-diagonal"])
def test_newton_step_is_the_dense_solve(data, preconditioner, C, fit_intercept, rng):
    theta = 0.5 * zero_mean(rng.standard_normal((N + fit_intercept, T)))
    objective, evaluation, hessian, M = prepare(
        data, C, theta, preconditioner=preconditioner, fit_intercept=fit_intercept
    )
    found = newton_step(objective, hessian, evaluation.gradient, M.solve, **WHOLE)
    step, decrement = dense_solve(objective, data[0][0], theta, evaluation.gradient)
    assert_allclose(zero_mean(found.step), step, atol=1e-8 * np.abs(step).max())
    assert_allclose(found.decrement, decrement, rtol=1e-10)
    assert not found.broken.any()


def test_problems_take_their_steps_together(data, rng):
    C = np.array([0.1, 1.0, 100.0])
    theta = 0.5 * zero_mean(rng.standard_normal((N + 1, 3 * T)), T)
    objective, evaluation, hessian, M = prepare(data, C, theta)
    found = newton_step(objective, hessian, evaluation.gradient, M.solve, **WHOLE)
    for b in range(3):
        columns = objective.columns([b])
        alone, here, *_ = prepare(data, C[b], theta[:, columns])
        step, decrement = dense_solve(alone, data[0][0], theta[:, columns], here.gradient)
        assert_allclose(zero_mean(found.step[:, columns]), step, atol=1e-8 * np.abs(step).max())
        assert_allclose(found.decrement[b], decrement, rtol=1e-10)


@pytest.mark.parametrize("share", [0.5, 0.1, 1e-3])
@pytest.mark.parametrize("C", [1e-4, 1.0, 1e3])
@pytest.mark.parametrize("preconditioner", ["kronecker", "diagonal"])
@pytest.mark.parametrize("seed", range(5))
def test_steps_end_when_little_is_left(data, preconditioner, C, share, seed):
    """The decrement comes from below; what is missing of it is `share` of it, or a little more."""
    theta = zero_mean(np.random.default_rng(seed).standard_normal((N + 1, T)))
    objective, evaluation, hessian, M = prepare(data, C, theta, preconditioner=preconditioner)
    found = newton_step(
        objective, hessian, evaluation.gradient, M.solve, share=share, least=2, most=60
    )
    _, exact = dense_solve(objective, data[0][0], theta, evaluation.gradient)
    assert found.decrement[0] <= exact * (1 + 1e-9)
    assert exact - found.decrement[0] <= 2 * share * exact


def test_intercepts_have_their_steps_under_a_strong_penalty():
    """The penalty bounds what the gradient of the weights has to give, and that of the
    intercepts not at all: here they have all of the decrement."""
    X, y = problems.overlapping(120, N, T, raw=False)
    theta, elsewhere = np.zeros((2, N + 1, T))
    theta[N], elsewhere[N] = [1.0, 0.0, -1.0], [0.0, 3.0, -3.0]
    objective, evaluation, hessian, M = prepare(((X, y), np.ones(120)), 1e-8, theta)
    M.update(objective, objective.at(elsewhere), renew=True)
    found = newton_step(
        objective, hessian, evaluation.gradient, M.solve, share=0.1, least=9, most=9
    )
    _, exact = dense_solve(objective, X, theta, evaluation.gradient)
    assert exact - found.decrement[0] <= 0.1 * exact


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("C", [1e-4, 1e-2, 1.0, 1e3])
def test_most_to_come_bounds_what_is_left(data, C, fit_intercept, seed):
    """Where all rows have the same probabilities, weights and intercepts are apart in H."""
    rng = np.random.default_rng(seed)
    theta = np.zeros((N + fit_intercept, T))
    theta[N:] = rng.standard_normal(T)
    objective, _, _, M = prepare(
        data, C, theta, preconditioner="hessian", fit_intercept=fit_intercept
    )
    X, r = data[0][0], zero_mean(rng.standard_normal(theta.shape))
    for gradient in (
        r,
        r * (np.arange(len(r)) >= N)[:, None],
        r * (np.arange(len(r)) < N)[:, None],
    ):
        _, exact = dense_solve(objective, X, theta, gradient)
        bound = most_to_come(objective, gradient, M.solve(gradient))[0]
        assert exact <= bound * (1 + 1e-9)
    if C <= 1e-4 and not fit_intercept:  # the penalty is nearly all of the curvature
        assert bound < 1.2 * exact


@pytest.mark.parametrize("n", [2, 3, 6, 12])
@pytest.mark.parametrize("q", [0.1, 0.5, 0.9, 0.99])
def test_still_to_come_is_the_rest_of_a_geometric_series(q, n):
    gains = [np.array([2.0, 5.0]) * q**k for k in range(n)]
    assert_allclose(still_to_come(gains), gains[-1] * q / (1 - q), rtol=1e-9)


def test_still_to_come_of_no_series():
    """One term says nothing, a series that does not fall may go on for ever, and one that is
    over has nothing to come."""
    assert_array_equal(still_to_come([np.array([1.0, 0.0])]), [np.inf, 0.0])
    assert_array_equal(still_to_come([np.array([1.0, 1.0]), np.array([1.0, 3.0])]), np.inf)
    assert_array_equal(still_to_come([np.array([1.0]), np.array([0.0])]), 0.0)


def test_many_small_gains_add_up():
    """Fast at first and slowly then: the slower speed counts."""
    gains = [np.array([g]) for g in [1.0, 0.1, 0.05, 0.048, 0.046, 0.044, 0.042]]
    rest = 0.042 * 0.95 / 0.05
    assert still_to_come(gains)[0] > 0.5 * rest


@pytest.mark.parametrize(
    "spoil",
    [
        lambda hessian, M: (lambda v: -hessian(v), M.solve),
        lambda hessian, M: (lambda v: 0.0 * v, M.solve),
        lambda hessian, M: (hessian, lambda v: 0.0 * v),
    ],
    ids=["no curvature", "zero Hessian", "zero preconditioner"],
)
def test_a_breakdown_is_reported(data, spoil):
    objective, evaluation, hessian, M = prepare(data, 1.0)
    hessian, solve = spoil(hessian, M)
    found = newton_step(objective, hessian, evaluation.gradient, solve, share=0.1, least=2, most=9)
    assert found.broken.all()
    assert_array_equal(found.decrement, 0.0)
    assert_array_equal(found.step, 0.0)


def test_a_breakdown_of_one_problem_is_its_own(data):
    objective, evaluation, hessian, M = prepare(data, [1.0, 1.0])

    def spoilt(v):
        return hessian(v) * np.repeat([1.0, -1.0], T)

    found = newton_step(objective, spoilt, evaluation.gradient, M.solve, **WHOLE)
    assert_array_equal(found.broken, [False, True])
    alone, here, H, M = prepare(data, 1.0)
    expected = newton_step(alone, H, here.gradient, M.solve, **WHOLE)
    assert_allclose(found.decrement[:1], expected.decrement, rtol=1e-9)


def test_nothing_to_do_is_no_breakdown(data):
    objective, evaluation, hessian, M = prepare(data, 1.0)
    found = newton_step(objective, hessian, 0.0 * evaluation.gradient, M.solve, **WHOLE)
    assert not found.broken.any()
    assert_array_equal(found.decrement, 0.0)


def test_the_decrement_stays_below_its_limit(data, rng):
    theta = zero_mean(rng.standard_normal((N + 1, T)))
    objective, evaluation, hessian, M = prepare(data, 1.0, theta)
    _, exact = dense_solve(objective, data[0][0], theta, evaluation.gradient)
    limit = np.array([0.9 * exact])
    found = newton_step(
        objective, hessian, evaluation.gradient, M.solve, limit=limit, share=0.0, least=60, most=60
    )
    assert 0 < found.decrement[0] <= limit[0]
    assert found.n_products < 60


def test_products_are_counted(data):
    objective, evaluation, hessian, M = prepare(data, 1.0)
    before = objective.rows.work.products
    found = newton_step(
        objective, hessian, evaluation.gradient, M.solve, share=0.0, least=5, most=5
    )
    assert found.n_products == objective.rows.work.products - before == 5


@pytest.mark.parametrize("C", [1e-3, 1e-2])
def test_products_end_where_the_penalty_proves_the_decrement_small(data, rng, C):
    theta = zero_mean(rng.standard_normal((N + 1, T)))
    objective, evaluation, hessian, M = prepare(data, C, theta)
    _, exact = dense_solve(objective, data[0][0], theta, evaluation.gradient)
    ended = {}
    for factor in (0.99, 1.01, 2.0):
        below = np.array([factor * exact])
        found = newton_step(objective, hessian, evaluation.gradient, M.solve, below=below, **WHOLE)
        assert found.decrement[0] <= exact * (1 + 1e-9)
        ended[factor] = found.n_products
    assert ended[0.99] == WHOLE["most"]  # it does exceed that
    assert ended[2.0] <= ended[1.01] < WHOLE["most"]
