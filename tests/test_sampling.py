"""Single precision and samples of rows: they lead to the same minimum, bounds are bounds."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from skfc import SoftmaxFCClassifier
from skfc._conjugate_gradients import most_to_come
from skfc._hessian import HessianOperator
from skfc._penalty import Penalty
from skfc._preconditioner import make
from skfc._problem import Problem
from skfc._random import generator, uniform
from skfc._row_samples import CurvatureSampler
from skfc._rows import _blocks
from skfc._targets import Targets
from skfc._tuned import override
from skfc.solvers import GO_ON
from skfc.solvers._newton import newton

n, N, T = 3000, 50, 3
OFFSET = 1e6  # standard deviations from zero: float32 rows as they are would know nothing
EVERYTHING = {"hessian_rows": 10**9, "hessian_rows_per_direction": 10**9}


@pytest.fixture(scope="module")
def raw():
    """Rows enough for float32, in columns far from zero and of all scales."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, N))
    logits = x @ rng.standard_normal((N, T)) / np.sqrt(N)
    y = (logits + rng.gumbel(size=(n, T))).argmax(axis=1)
    scale = 10.0 ** np.linspace(-4, 4, N)
    return (x + OFFSET * (np.arange(N) % 3 == 0)) * scale, y, scale


def objective_of(X, y, C=1.0, n_classes=T, n_problems=1, fit_intercept=True, weight=None):
    weight = np.ones(X.shape[0]) if weight is None else weight
    targets = [Targets(np.arange(n_classes), y, weight)] * n_problems
    problem = Problem(X, targets, fit_intercept=fit_intercept)
    return problem.objective(np.full(n_problems, C))


def long_rows(rng, n_rows=6000, n_features=8):
    """Rows of very different lengths: some are drawn for sure, and some stand for many."""
    X = rng.standard_normal((n_rows, n_features)) * rng.lognormal(0.0, 1.5, (n_rows, 1))
    logits = np.tanh(X) @ rng.standard_normal((n_features, T))
    return X, (logits + rng.gumbel(size=(n_rows, T))).argmax(axis=1)


def matrix(operator, shape):
    """A linear function of arrays of a shape as a matrix."""
    columns = [operator(e.reshape(shape)).ravel() for e in np.eye(np.prod(shape))]
    return np.array(columns).T


def distance(A, B):
    """The largest |log of an eigenvalue| of A against B, two matrices on arrays (P, T).

    One vector added to all classes changes nothing: compared are those of zero sum.
    """
    centred = np.linalg.qr(np.eye(T) - 1 / T)[0][:, : T - 1]
    basis = np.kron(np.eye(len(A) // T), centred)
    A, B = (basis.T @ M @ basis for M in (A, B))
    assert_allclose(A, A.T, rtol=1e-4, atol=1e-4 * np.abs(A).max())
    L = np.linalg.inv(np.linalg.cholesky(B))
    ratios = np.linalg.eigvalsh(L @ A @ L.T)
    assert ratios[0] > 0
    return np.abs(np.log(ratios)).max()


# -- single precision ----------------------------------------------------------------------------


@pytest.mark.parametrize("hold", [np.asarray, sparse.csr_array])
def test_single_precision_gives_the_objective_of_rows_far_from_zero(raw, hold):
    X, y, _ = raw
    objective = objective_of(hold(X), y)
    cheap = objective.single()
    assert cheap.rows is not objective.rows
    rng = np.random.default_rng(1)
    theta = rng.standard_normal((N + 1, T)) / np.sqrt(N)
    d = rng.standard_normal((N + 1, T))
    exact, evaluation = objective.at(theta), cheap.at(theta)
    assert_allclose(evaluation.value, exact.value, rtol=1e-6)
    # One more digit than float32 has is lost in sums over the rows, and in X far from zero.
    assert_allclose(evaluation.gradient, exact.gradient, atol=1e-6)
    both = [(objective, exact), (cheap, evaluation)]
    a, b = (o.hessian(e)(d) for o, e in both)
    assert_allclose(b, a, atol=1e-5)
    a, b = (o.line(e, d).move(np.array([0.5])).value for o, e in both)
    assert_allclose(b, a, rtol=1e-6)


@pytest.mark.parametrize(
    ("C", "dtype", "rows"),
    [(np.inf, np.float64, n), (1.0, np.float32, n), (1.0, np.float64, 500)],
    ids=["no penalty", "float32", "little to do"],
)
def test_what_stays_as_it_is(raw, C, dtype, rows):
    X, y, scale = raw
    with override(few_single=0):  # else small float32 rows are held in float64
        objective = objective_of((X / scale)[:rows].astype(dtype), y[:rows], C)
    assert objective.single() is objective


@pytest.mark.parametrize("intercept", [True, False])
def test_single_precision_rows_are_the_standardised_ones(raw, intercept):
    """Also in columns that float32 cannot hold, and in constant ones."""
    X, y, _ = raw
    X = X.copy()
    for j, size in enumerate([1e-140, 1e-35, 1e35, 1e200]):
        X[:, 3 * j + 1] *= size
    X[:, 3], X[:, 4] = 7.0, 0.0
    rows = objective_of(X, y, fit_intercept=intercept).rows
    frame, single = rows.frame, rows.single()
    expected = (X - frame.mean) * frame.inverse
    idle = frame.inverse == 0
    assert idle.sum() == (2 if intercept else 1)
    assert_allclose(single.standardised(), expected, rtol=1e-6, atol=1e-30)
    assert_allclose((expected**2).mean(axis=0)[~idle], 1.0)


@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg"])
@pytest.mark.parametrize("tol", [1e-4, 1e-6, 1e-10])
@pytest.mark.parametrize("C", [0.01, 100.0])
def test_single_precision_leads_to_the_minimum(raw, C, tol, solver):
    X, y, scale = raw
    X = X / scale  # so that the penalty matters to all features
    options = {"C": C, "solver": solver, "preconditioner": "kronecker"}
    fit = SoftmaxFCClassifier(tol=tol, **options).fit(X, y)
    with override(single_from=2**60):
        best = SoftmaxFCClassifier(tol=1e-12, **options).fit(X, y)
    objective = objective_of(X, y, C)
    theta = objective.rows.frame.from_user(fit.coef_, fit.intercept_)
    value = objective.at(theta).value[0]
    rounding = 1e-13 * OFFSET  # of logits, far from zero
    assert value <= best.loss_curve_[-1] * (1 + 10 * tol + rounding)


# -- samples of rows -----------------------------------------------------------------------------


@pytest.fixture
def seeds(monkeypatch):
    """Another draw at every call: the seed is fixed, so that a fit is deterministic."""
    generator = np.random.default_rng(0)
    monkeypatch.setattr(_blocks, "uniform", lambda start, n, turn: generator.random(n))


@pytest.mark.parametrize("weighted", [False, True])
def test_the_expectation_of_the_sampled_hessian_is_the_hessian(weighted, seeds, rng):
    """Rows weigh the inverse of their chance: over many draws the mean is right."""
    X, y = long_rows(rng)
    weight = rng.uniform(0.0, 2.0, len(X)) if weighted else None
    objective = objective_of(X, y, C=np.inf, weight=weight)
    evaluation = objective.at(rng.standard_normal(objective.shape))
    exact = matrix(objective.hessian(evaluation), objective.shape)
    draws = []
    with override(hessian_rows=200, rows_per_feature=0, batch_share=10**9):
        for _ in range(100):
            sampler = CurvatureSampler(objective)
            assert not sampler.takes_all
            hessian = sampler.at(objective, evaluation)
            assert 100 < hessian.rows.shape[0] < 300
            draws.append(matrix(hessian, objective.shape))
    draws = np.array(draws)
    scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    error = (draws.mean(axis=0) - exact) / scale
    deviation = draws.std(axis=0) / scale
    # The mean of 100 draws is within five of its standard errors.
    assert (np.abs(error) <= 5 * deviation / 10 + 1e-12).all()
    assert np.abs(error).max() < 0.1


def test_of_many_rows_a_product_costs_little_beside_a_pass(rng):
    """The sample of a Hessian grows with the rows, up to a block of them."""
    sizes = {}
    for n in (3000, 60_000, 120_000):
        X, y = long_rows(rng, n)
        sampler = CurvatureSampler(objective_of(X, y))
        sizes[n] = sampler.size
        assert sampler.takes_all or sampler.size <= max(1000, n / 16)
    assert sizes[3000] == 1000
    assert sizes[120_000] == 2 * sizes[60_000] > 2000
    with override(block_bytes=8 * 8 * 2000):
        assert CurvatureSampler(objective_of(X, y)).size == 2000


def test_a_sample_of_all_rows_is_the_hessian(raw, rng):
    X, y, scale = raw
    objective = objective_of(X[:500] / scale, y[:500])
    evaluation = objective.at(rng.standard_normal(objective.shape) / 10)
    sampler = CurvatureSampler(objective)
    assert sampler.takes_all
    d = rng.standard_normal(objective.shape)
    hessian = sampler.at(objective, evaluation)
    assert_allclose(hessian(d), objective.hessian(evaluation)(d), rtol=1e-12)
    assert sampler.at(objective, evaluation).state is hessian.state  # once for an iterate
    other = objective.with_penalty(objective.penalty.scaled(10.0))
    again = sampler.at(other, evaluation)
    assert again.state is hessian.state
    assert_allclose(again(d), other.hessian(evaluation)(d), rtol=1e-12)


def test_sparse_rows_are_not_copied_for_samples(raw):
    X, y, scale = raw
    objective = objective_of(sparse.csr_array(X / scale), y)
    sampler = CurvatureSampler(objective)
    assert sampler.takes_all
    size = sampler.size
    sampler.grow(2)
    assert sampler.size == size


@pytest.mark.parametrize("name", ["hessian", "kronecker", "block-diagonal"])
def test_rows_drawn_by_leverage_weigh_the_inverse_of_their_chance(name, rng):
    """A preconditioner of a sample is close to that of all rows, whose lengths differ much."""
    X, y = long_rows(rng, 20_000)
    objective = objective_of(X, y)
    evaluation = objective.at(rng.standard_normal(objective.shape) / 10)
    few = {"hessian_rows": 4000, "rows_per_feature": 0,
           "all_rows_small": 1.5}  # fmt: skip
    found = []
    for values in (few, EVERYTHING):
        with override(**values):
            preconditioner = make(objective, name)
            preconditioner.update(objective, evaluation, renew=True)
            found.append(matrix(preconditioner.solve, objective.shape))
    # 1000 rows of 27 parameters: an eigenvalue is off by some 2 √(27 / 1000) or 0.3.
    assert 0 < distance(*found) < 0.5


@pytest.mark.parametrize("name", ["hessian", "kronecker", "block-diagonal"])
def test_blocks_thinned_again_stay_right(name, rng):
    """A second refresh draws rows by the leverage in the first."""
    X, y = long_rows(rng, 20_000)
    objective = objective_of(X, y)
    few = {"hessian_rows": 4000, "rows_per_feature": 0,
           "all_rows_small": 1.5}  # fmt: skip
    first, second = (objective.at(rng.standard_normal(objective.shape) / 10) for _ in range(2))
    found = []
    for values in (few, EVERYTHING):
        with override(**values):
            preconditioner = make(objective, name)
            for evaluation in (first, second):
                preconditioner.update(objective, evaluation, renew=True)
            found.append(matrix(preconditioner.solve, objective.shape))
    assert 0 < distance(*found) < 0.5


def test_a_sample_that_misses_rows_grows(rng):
    """Steps of 60 rows for 27 parameters contract slowly: the sample doubles until they do."""
    X, y = long_rows(rng, 20_000)
    objective = objective_of(X, y)
    few = {"hessian_rows": 60, "rows_per_feature": 0, "batch_share": 10**9, "all_rows_small": 1.5}
    with override(**few):
        preconditioner = make(objective, "diagonal")
        sizes, values = [], []
        theta = np.zeros(objective.shape)
        solver, change = newton(objective, preconditioner, theta), None
        for _ in range(25):
            iterate = solver.send(change)
            change = GO_ON
            sizes.append(preconditioner.sampler.size)
            values.append(iterate.evaluation.value[0])
    assert sizes[0] == 60
    assert sizes[-1] >= 8 * 60
    assert all(b in (a, 2 * a) for a, b in pairwise(sizes))
    assert values[-1] <= values[0]


def test_a_sample_that_serves_does_not_grow(rng):
    X, y = long_rows(rng, 20_000)
    X = X / np.linalg.norm(X, axis=1, keepdims=True)
    objective = objective_of(X, y)
    preconditioner = make(objective, "kronecker")
    size = preconditioner.sampler.size
    solver, change = newton(objective, preconditioner, np.zeros(objective.shape)), None
    for _ in range(4):
        solver.send(change)
        change = GO_ON
    assert not preconditioner.sampler.takes_all
    assert preconditioner.sampler.size == size


# -- what decides about samples ------------------------------------------------------------------


def test_the_effective_dimension_is_the_trace(raw):
    """tr A (A + T lambda D)⁻¹ of standardised rows with a column of ones."""
    X, y, scale = raw
    X = X[:1000] / scale
    objective = objective_of(X, y[:1000])
    kronecker = make(objective, "kronecker")
    frame = objective.rows.frame
    rows = np.column_stack([(X - frame.mean) * frame.inverse, np.ones(1000)])
    A = rows.T @ rows / 1000 / T
    last = N + 1.0
    for l2 in [1e-9, 1e-3, 1e-1, 10.0, 1e6]:
        penalty = np.diag(Penalty(np.array([l2]), frame.penalty_factors()).diagonal(N + 1)[:, 0])
        expected = np.trace(np.linalg.solve(A + penalty, A))
        found = kronecker.effective_dimension(l2)
        assert_allclose(found, expected, rtol=1e-3)  # it is to count rows
        assert found < last
        last = found
    assert_allclose(last, 1.0, rtol=0.01)  # the intercept is left


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("C", [1e-3, 1.0, 1e3])
def test_the_penalty_bounds_what_is_left_of_a_decrement(raw, C, fit_intercept):
    X, y, scale = raw
    X = X[:300, 1::3] / scale[1::3]
    objective = objective_of(X, y[:300], C, fit_intercept=fit_intercept)
    rng = np.random.default_rng(3)
    theta = rng.standard_normal(objective.shape) / 4
    H = matrix(objective.hessian(objective.at(theta)), objective.shape)
    r = rng.standard_normal(objective.shape)
    r -= r.mean(axis=1, keepdims=True)
    exact = 0.5 * r.ravel() @ np.linalg.lstsq(H, r.ravel(), rcond=None)[0]
    # The intercepts have the curvature of their own block, and features are centred.
    z = np.zeros_like(r)
    if fit_intercept:
        block = np.s_[-T:, -T:]
        z[-1] = np.linalg.lstsq(H[block], r[-1], rcond=None)[0]
    bound = most_to_come(objective, r, z)[0]
    assert exact <= bound * (1 + 1e-9)
    if C < 1e-2:  # the penalty is nearly all of the curvature
        assert bound < 1.2 * exact + 1.1 * np.vdot(r[X.shape[1] :], z[X.shape[1] :])


def test_hessians_of_parts_of_the_problems(rng):
    """A sampler of some problems gives the Hessian of these."""
    X, y = long_rows(rng, 600)
    weight = rng.integers(0, 3, (2, 600)).astype(float)
    targets = [Targets(np.arange(T), y, w) for w in weight]
    objective = Problem(X, targets, fit_intercept=True).objective(np.array([1.0, 5.0]))
    evaluation = objective.at(rng.standard_normal(objective.shape))
    sampler = CurvatureSampler(objective)
    index, columns = np.array([1]), np.arange(T, 2 * T)
    d = rng.standard_normal(objective.shape)
    expected = objective.hessian(evaluation)(d)[:, columns]
    part, own = objective.problems(index, evaluation)
    found = sampler.problems(index).at(part, own)
    assert isinstance(found, HessianOperator)
    assert_allclose(found(d[:, columns]), expected, rtol=1e-12)
    assert_array_equal(own.theta, evaluation.theta[:, columns])


# -- random numbers ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_random_numbers_are_not_those_that_data_are_drawn_by(seed):
    """A sample of rows drawn by the numbers that made their categories has only one of them."""
    size = 4000
    ours = [uniform(0, size), uniform(0, size, seed), generator().standard_normal(size)]
    for theirs in (np.random.default_rng(seed), np.random.RandomState(seed)):
        for numbers in (theirs.uniform(size=size), theirs.permutation(size)):
            for own in ours:
                assert abs(np.corrcoef(own, numbers)[0, 1]) < 5 / np.sqrt(size)


def test_a_hessian_takes_other_rows_every_time(rng):
    """So that luck with the rows of one sample does not last, and the same ones in every fit."""
    X, y = rng.standard_normal((6000, 12)), rng.integers(T, size=6000)
    objective = objective_of(X, y)
    evaluation = objective.at(0.1 * rng.standard_normal(objective.shape))
    found = []
    for _ in range(2):
        preconditioner = make(objective, "hessian")
        for _ in range(2):
            preconditioner.refresh(objective, evaluation)
            found.append(preconditioner.solve(evaluation.gradient))
    assert_array_equal(found[:2], found[2:])
    assert 0.01 < np.linalg.norm(found[0] - found[1]) / np.linalg.norm(found[0]) < 1


def test_categories_drawn_first_are_fitted_in_few_iterations():
    """Newton's method needs the curvature of all categories in its sample."""
    rng = np.random.default_rng(0)
    first = rng.choice(8, 20_000, p=1 / np.arange(1, 9) / (1 / np.arange(1, 9)).sum())
    X = np.hstack([np.eye(8)[first], np.eye(30)[rng.integers(30, size=20_000)]])
    y = (X @ rng.standard_normal((38, 4)) + rng.gumbel(size=(20_000, 4))).argmax(axis=1)
    assert SoftmaxFCClassifier(C=100.0, tol=1e-6).fit(X, y).n_iter_ <= 8
