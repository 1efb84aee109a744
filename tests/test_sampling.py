"""Cheap passes and samples of rows: float32 leads to the same minimum, bounds are bounds."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skfc import SoftmaxFCClassifier
from skfc._design import make_design
from skfc._metric import Hessian, choose, make_metric
from skfc._objective import Objective
from skfc._sampling import CurvatureSampler

n, N, T = 3000, 50, 3
OFFSET = 1e6  # standard deviations from zero: float32 rows as they are would know nothing


@pytest.fixture(scope="module")
def raw():
    """Rows enough for float32, in columns far from zero and of all scales."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, N))
    logits = x @ rng.standard_normal((N, T)) / np.sqrt(N)
    y = (logits + rng.gumbel(size=(n, T))).argmax(axis=1)
    scale = 10.0 ** np.linspace(-4, 4, N)
    return (x + OFFSET * (np.arange(N) % 3 == 0)) * scale, y, scale


def objective_of(X, y, C=1.0, n_classes=T, n_problems=1):
    weight = np.ones((n_problems, len(X)))
    return Objective(make_design(X), y, weight, np.full(n_problems, C), n_classes=n_classes)


def light(objective):
    metric = make_metric(objective, "kronecker")
    return metric.sampler.lighten(objective), metric.coordinates


def test_float32_rows_give_the_objective_of_those_far_from_zero(raw):
    X, y, _ = raw
    objective = objective_of(X, y)
    cheap, coordinates = light(objective)
    assert cheap.design.dtype == np.float32
    V = coordinates.push(np.random.default_rng(1).standard_normal((N + 1, T)) / np.sqrt(N))
    D = coordinates.push(np.random.default_rng(2).standard_normal((N + 1, T)))
    exact, point = objective.at(V), cheap.at(V)
    assert_allclose(point.value, exact.value, rtol=1e-6)
    a, b = coordinates.pull(exact.gradient), coordinates.pull(point.gradient)
    # One more digit than float32 has is lost in sums over the rows, and in X far from zero.
    assert_allclose(b, a, atol=1e-6)
    a, b = (coordinates.pull(o.curvature(p)(D)) for o, p in [(objective, exact), (cheap, point)])
    assert_allclose(b, a, atol=1e-5)
    t = np.array([0.5])
    a, b = (o.ray(p, D).move(t).value for o, p in [(objective, exact), (cheap, point)])
    assert_allclose(b, a, rtol=1e-6)


@pytest.mark.parametrize(
    ("C", "dtype", "rows"),
    [(np.inf, np.float64, n), (1.0, np.float32, n), (1.0, np.float64, 500)],
    ids=["no penalty", "float32", "little to do"],
)
def test_what_stays_as_it_is(raw, C, dtype, rows):
    X, y, _ = raw
    objective = objective_of(X[:rows].astype(dtype), y[:rows], C)
    assert light(objective)[0] is objective


@pytest.mark.parametrize("intercept", [True, False])
def test_light_rows_are_the_standardised_ones(raw, intercept):
    """Also in columns that float32 cannot hold, and in constant ones."""
    X, y, _ = raw
    X = X.copy()
    for j, size in enumerate([1e-140, 1e-35, 1e35, 1e200]):
        X[:, 3 * j + 1] *= size
    X[:, 3], X[:, 4] = 7.0, 0.0
    objective = Objective(
        make_design(X), y, np.ones((1, n)), np.ones(1), n_classes=T, fit_intercept=intercept
    )
    coordinates = make_metric(objective, "kronecker").coordinates
    expected = (X - coordinates.mean) / coordinates.scale
    expected[:, coordinates.constant] = 0.0
    assert coordinates.constant.sum() == (2 if intercept else 1)
    assert_allclose(coordinates.light, expected, rtol=1e-6, atol=1e-30)
    assert_allclose((expected**2).mean(axis=0)[~coordinates.constant], 1.0)


@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg"])
@pytest.mark.parametrize("tol", [1e-4, 1e-6, 1e-10])
@pytest.mark.parametrize("C", [0.01, 100.0])
def test_float32_leads_to_the_minimum(raw, monkeypatch, C, tol, solver):
    X, y, scale = raw
    X = X / scale  # so that the penalty matters to all features
    options = {"C": C, "solver": solver, "preconditioner": "kronecker"}
    fit = SoftmaxFCClassifier(tol=tol, **options).fit(X, y)
    monkeypatch.setattr(CurvatureSampler, "lighten", lambda self, objective: objective)
    best = SoftmaxFCClassifier(tol=1e-12, **options).fit(X, y)
    value = objective_of(X, y, C).at(np.vstack([fit.coef_.T, fit.intercept_])).value[0]
    rounding = 1e-13 * OFFSET  # of logits, far from zero
    assert value <= best.loss_curve_[-1] * (1 + 10 * tol + rounding)


def test_the_effective_dimension_is_the_trace(raw):
    X, y, scale = raw
    objective = objective_of(X[:1000] / scale, y[:1000])
    kronecker = make_metric(objective, "kronecker")
    rows = kronecker.coordinates.with_ones(slice(None))
    A = rows.T @ rows / 1000 / T
    last = N + 1.0
    for l2 in [1e-9, 1e-3, 1e-1, 10.0, 1e6]:
        penalty = np.diag(kronecker.coordinates.ridge(l2))
        expected = np.trace(np.linalg.solve(A + penalty, A))
        found = kronecker.effective_dimension(l2)
        assert_allclose(found, expected, rtol=1e-3)  # it is to count rows
        assert found < last
        last = found
    assert_allclose(last, 1.0, rtol=0.01)  # the intercept is left


def test_a_weaker_penalty_draws_more_rows():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((6000, 40)), rng.integers(T, size=6000)
    objective = objective_of(X, y, C=1e-4)
    metric = make_metric(objective, "hessian")
    metric.refresh(objective.at(np.zeros((41, T))))
    V = 0.1 * rng.standard_normal((41, T))
    drawn = []
    for C in [1e-4, 1.1e-4, 10.0]:
        metric.objective = objective_of(X, y, C)
        metric.refresh(metric.objective.at(V))
        drawn.append(len(metric.sample))
    assert drawn[0] == drawn[1] < drawn[2]


def test_the_hessian_is_taken_where_it_costs_few_passes():
    rng = np.random.default_rng(0)
    few, many = (objective_of(rng.random((rows, 40)), np.arange(rows) % 6, n_classes=6)
                 for rows in (3000, 30_000))  # fmt: skip
    assert Hessian.passes(few) > 10 > Hessian.passes(many)
    assert [choose(few), choose(many)] == ["block-diagonal", "hessian"]
    together = objective_of(rng.random((3000, 40)), np.arange(3000) % 6, n_classes=6, n_problems=5)
    assert choose(together) == "hessian"


@pytest.mark.parametrize("C", [1e-3, 1.0, 1e3])
def test_the_penalty_bounds_what_is_left_of_a_decrement(raw, C):
    X, y, scale = raw
    X = X[:300, 1::3] / scale[1::3]
    weight = np.ones((1, len(X)))
    objective = Objective(
        make_design(X), y[:300], weight, np.array([C]), n_classes=T, fit_intercept=False
    )
    rng = np.random.default_rng(3)
    V = rng.standard_normal((X.shape[1], T)) / 4
    hessian = objective.curvature(objective.at(V))
    H = np.column_stack([hessian(e.reshape(V.shape)).ravel() for e in np.eye(V.size)])
    r = rng.standard_normal(V.shape)
    exact = 0.5 * r.ravel() @ np.linalg.solve(H, r.ravel())
    bound = objective.most_to_come(r, r)[0]
    assert exact <= bound * (1 + 1e-9)
    if C < 1e-2:  # the penalty is nearly all of the curvature
        assert bound < 1.2 * exact
