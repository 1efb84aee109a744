"""Fits of rows that are elsewhere: states are opaque and get lost, and the fit is the same."""

import numpy as np
import problems
import pytest
from core import PROXIMAL, SMOOTH
from in_parts import in_parts
from numpy.testing import assert_allclose

from skfc import _blockwise, _draws, _problem
from skfc._fits import solve
from skfc._method import Method
from skfc._preconditioner import PRECONDITIONERS
from skfc._problem import Problem
from skfc._row_samples import draw_by_prominence, everything
from skfc._targets import Targets
from skfc._tuned import override

n, N, T = 900, 4, 3
# Fits end well within what their coefficients are compared to, √1e-8.
TOL, APART = 1e-9, 1e-4
# Samples smaller than the rows: of curvature, for blocks, and for the Hessian.
SAMPLES = {
    "hessian_rows": 150, "rows_per_feature": 0, "all_rows_small": 1.5,
    "hessian_rows_per_direction": 60,
}  # fmt: skip

# Without one, rounding decides how many steps it takes from raw features.
every_preconditioner = pytest.mark.parametrize(
    "preconditioner", [name for name in PRECONDITIONERS if name is not None]
)


def data(n_problems=1):
    """X and the targets of some problems, which differ in weights."""
    X, y = problems.overlapping(n, N, T)
    weight = np.random.default_rng(1).uniform(0.5, 2, (n_problems, n))
    return X, [Targets(np.arange(T), y, w) for w in weight]


@pytest.fixture
def pair():
    """A function: the same problem with its rows here, and in parts elsewhere."""

    def make(X, targets, **options):
        options = {"fit_intercept": True} | options
        with pytest.MonkeyPatch.context() as patch:
            here = Problem(X, targets, **options)
            patch.setattr(_problem, "make_rows", in_parts)
            return here, Problem(X, targets, **options)

    return make


@pytest.fixture
def both(pair):
    """The same rows of two problems, here and in parts."""
    return [problem.rows for problem in pair(*data(2))]


@pytest.fixture
def theta(rng):
    return rng.standard_normal((N + 1, 2 * T))


def test_a_state_cannot_be_read(both):
    state = both[1].sum(_draws.take_all).state
    for read in (lambda s: s[0], len, list, np.asarray, bool):
        with pytest.raises(TypeError, match="not on this side"):
            read(state)


def test_sums(both, theta):
    def sums(rows):
        first = rows.sum(_blockwise.evaluate, theta)
        second = rows.sum(_blockwise.step_along, theta[::-1], first.state)
        proba = rows.sum(_blockwise.keep_probabilities, state=second.state).state
        return first, second, rows.sum(_blockwise.curvature_diagonal, state=proba, power=2)

    for a, b in zip(*map(sums, both), strict=True):
        assert_allclose(b.gradient, a.gradient, rtol=1e-10, atol=1e-12)
        assert_allclose(b.values, a.values, rtol=1e-12)
    here, there = (rows.work for rows in both)
    assert there.passes == pytest.approx(here.passes)
    assert there.steps == here.steps


def test_loss_of_coefficients(both, rng):
    coef, intercept = rng.standard_normal((2 * T, N)) / problems.RAW_SCALE[:N], np.ones(2 * T)
    here, there = (rows.loss_of(coef, intercept) for rows in both)
    assert_allclose(there, here, rtol=1e-12)


def test_gram(both):
    here, there = (rows.gram(everything(rows)) for rows in both)
    assert_allclose(there, here, rtol=1e-10, atol=1e-12)


def test_some_problems(both, theta):
    def losses(rows):
        state = rows.sum(_blockwise.evaluate, theta).state
        rows, state = rows.problems(np.array([1]), state)
        return rows.sum(_blockwise.evaluate_again, state=state).values

    here, there = map(losses, both)
    assert_allclose(there, here, rtol=1e-12)


def test_batches(both, theta):
    """Of the same rows, also where a part has none of them."""

    def gradients(rows):
        batches = rows.batches(5, np.random.default_rng(0))
        return [next(batches).sum(_blockwise.evaluate, theta).gradient for _ in range(4)]

    here, there = map(gradients, both)
    assert_allclose(there, here, rtol=1e-10, atol=1e-12)


def test_a_sample_has_the_same_rows(both, theta):
    """Whether a row is drawn depends on its place among all rows, not on its block."""

    def sample(rows):
        state = rows.sum(_blockwise.evaluate, theta).state
        curvature = rows.sum(_draws.row_curvature, state=state).state
        drawn = rows.select(draw_by_prominence(rows, curvature, 100), np.float64)
        logits = np.concatenate([z for (z,) in drawn.carry(state)], axis=1)
        return drawn.rows.X, drawn.rows.target, drawn.rows.weight, logits

    here, there = map(sample, both)
    assert 50 < len(here[0]) < 200
    for a, b in zip(here, there, strict=True):
        assert_allclose(b, a, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("samples", [{}, SAMPLES], ids=["all rows", "samples"])
@every_preconditioner
@pytest.mark.parametrize("solver", SMOOTH)
def test_fit(pair, solver, preconditioner, samples):
    method = Method(solver=solver, preconditioner=preconditioner, tol=TOL)
    with override(**samples):
        assert_same(method, pair(*data()))


@pytest.mark.parametrize("l1_ratio", [0.5, 1.0])
@pytest.mark.parametrize("changes", [{}, {"most_coordinates": 1}], ids=["matrix", "products"])
@pytest.mark.parametrize("solver", PROXIMAL)
def test_elastic_nets(pair, solver, changes, l1_ratio):
    X, targets = data()
    method = Method(solver=solver, tol=TOL, max_iter=10**5)
    with override(**changes):
        assert_same(method, pair(X / X.std(axis=0), targets, l1_ratio=l1_ratio))


@every_preconditioner
def test_several_problems(pair, preconditioner):
    method = Method(solver="lbfgs", preconditioner=preconditioner, tol=TOL)
    with override(**SAMPLES):
        assert_same(method, pair(*data(2)))


def test_more_features_than_rows(pair, rng):
    X, y = rng.standard_normal((40, 90)), np.arange(40) % T
    method = Method(solver="newton-cg", preconditioner="kronecker", tol=TOL)
    assert_same(method, pair(X, [Targets(np.arange(T), y, np.ones(40))]))


def assert_same(method, pair):
    """Fits of two problems have the same coefficients, for a tenth and one pass more at most."""
    C = np.geomspace(1.0, 10.0, pair[0].n_problems)
    solved = [solve(problem, method, C)[0] for problem in pair]
    for fits in zip(*solved, strict=True):
        models = [p.coefficients(f.theta) for p, f in zip(pair, fits, strict=True)]
        (coef, intercept), (remote_coef, remote_intercept) = models
        scale = np.abs(coef).max(axis=0)
        assert_allclose(remote_coef / scale, coef / scale, atol=APART)
        assert_allclose(remote_intercept, intercept, atol=APART * np.abs(intercept).max())
    here, there = (problem.rows.work for problem in pair)
    assert there.passes <= 1.1 * here.passes + 1
