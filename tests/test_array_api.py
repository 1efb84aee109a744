"""Fits of arrays of another library than NumPy: everything but numbers per problem is its own."""

import array_api_strict as xp
import numpy as np
import problems
import pytest
from core import PROXIMAL, SMOOTH
from numpy.testing import assert_allclose
from scipy.special import softmax

from skfc import _blockwise
from skfc._array import as_like, to_numpy
from skfc._fits import solve
from skfc._method import Method
from skfc._preconditioner import PRECONDITIONERS
from skfc._problem import Problem
from skfc._rows import LeanRows, _lean, make_rows
from skfc._rows._lean import Recomputed
from skfc._targets import Targets
from skfc._tuned import override

n, N, T = 300, 4, 3
TOL = 1e-8
# Samples smaller than the rows: of curvature, for blocks, and for the Hessian.
SAMPLES = {
    "hessian_rows": 100, "rows_per_feature": 0, "all_rows_small": 1.5,
    "hessian_rows_per_direction": 30,
}  # fmt: skip
every_preconditioner = pytest.mark.parametrize("preconditioner", PRECONDITIONERS)


def data(n_problems=1, *, raw=True, soft=False):
    """X and the targets of some problems, which differ in weights."""
    X, y = problems.overlapping(n, N, T, raw=raw)
    rng = np.random.default_rng(1)
    weight = rng.uniform(0.5, 2, (n_problems, n))
    target = rng.dirichlet(np.ones(T), n).T if soft else y
    return X, [Targets(np.arange(T), target, w) for w in weight]


def pair(X, targets, **options):
    """The same problem with X as a NumPy array and as one of the other library."""
    options = {"fit_intercept": True} | options
    return [Problem(X, targets, **options), Problem(xp.asarray(X), targets, **options)]


def assert_same(method, pair, X, *, C=(1.0, 10.0), tol=TOL):
    """Fits of two problems agree to √tol, and their weights are of the libraries of X."""
    models = []
    for problem, kind in zip(pair, (np.ndarray, type(xp.asarray(0.0))), strict=True):
        fits, _ = solve(problem, method, np.array(C[: problem.n_problems]))
        assert all(isinstance(fit.theta, kind) for fit in fits)
        assert all(isinstance(fit.gap, float) and fit.gap <= tol for fit in fits)
        models.append([problem.coefficients(fit.theta) for fit in fits])
    for (coef, intercept), (other_coef, other_intercept) in zip(*models, strict=True):
        scale = X.std(axis=0, dtype=float)
        size = np.abs(coef * scale).max()
        assert_allclose(other_coef * scale, coef * scale, atol=np.sqrt(tol) * size)
        proba, other = (
            softmax(X @ W.T + b, axis=1)
            for W, b in ((coef, intercept), (other_coef, other_intercept))
        )
        assert_allclose(other, proba, atol=np.sqrt(tol))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_sums_over_rows(fit_intercept, dtype, rng):
    """Losses, gradients, products with the Hessian, its diagonal, and prominence."""
    X, targets = data(2)
    theta, direction = rng.standard_normal((2, N + fit_intercept, 2 * T))

    def sums(problem):
        rows = problem.rows
        first = rows.sum(_blockwise.evaluate, as_like(theta, rows.weight))
        proba = rows.sum(_blockwise.keep_probabilities, state=first.state).state
        second = rows.sum(_blockwise.curve, as_like(direction, rows.weight), proba)
        third = rows.sum(_blockwise.curvature_diagonal, state=proba, power=2)
        ((prominence,),) = rows.with_prominence([()])
        found = first.values[0], first.gradient, second.gradient, third.gradient, prominence
        return [to_numpy(array) for array in found]

    with override(few_single=0):
        here, there = map(sums, pair(X.astype(dtype), targets, fit_intercept=fit_intercept))
    accuracy = 1e-10 if dtype == "float64" else 1e-3
    for a, b in zip(here, there, strict=True):
        assert_allclose(b, a, rtol=accuracy, atol=accuracy * np.abs(a).max())


@pytest.mark.parametrize("samples", [{}, SAMPLES], ids=["all rows", "samples"])
@every_preconditioner
@pytest.mark.parametrize("solver", SMOOTH)
def test_fit(solver, preconditioner, samples):
    X, targets = data(raw=preconditioner is not None)
    method = Method(solver=solver, preconditioner=preconditioner, tol=TOL)
    with override(**samples):
        assert_same(method, pair(X, targets), X)


@every_preconditioner
def test_several_problems(preconditioner):
    X, targets = data(2, raw=preconditioner is not None)
    with override(**SAMPLES):
        method = Method(solver="lbfgs", preconditioner=preconditioner, tol=TOL)
        assert_same(method, pair(X, targets), X)


@pytest.mark.parametrize(
    "options",
    [{"fit_intercept": False}, {"standardize": True}],
    ids=lambda options: next(iter(options)),
)
@every_preconditioner
@pytest.mark.parametrize("solver", SMOOTH)
def test_options(solver, preconditioner, options):
    X, targets = data(raw=False)
    method = Method(solver=solver, preconditioner=preconditioner, tol=TOL)
    assert_same(method, pair(X, targets, **options), X)


@pytest.mark.parametrize("solver", SMOOTH)
def test_probabilities_as_targets(solver):
    X, targets = data(soft=True)
    assert_same(Method(solver=solver, tol=TOL), pair(X, targets), X)


@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg"])
def test_without_a_penalty(solver):
    X, targets = data()
    assert_same(Method(solver=solver, tol=TOL), pair(X, targets), X, C=(np.inf,))


@pytest.mark.parametrize("solver", SMOOTH)
def test_more_features_than_rows(solver, rng):
    X, y = rng.standard_normal((40, 90)), np.arange(40) % T
    method = Method(solver=solver, preconditioner="kronecker", tol=TOL)
    assert_same(method, pair(X, [Targets(np.arange(T), y, np.ones(40))]), X)


@every_preconditioner
@pytest.mark.parametrize("solver", SMOOTH)
def test_single_precision(solver, preconditioner):
    """To the accuracy that float32 has, with X of the same rounded values."""
    X, targets = data(raw=False)
    X = X.astype(np.float32)
    method = Method(solver=solver, preconditioner=preconditioner, tol=1e-5)
    with override(few_single=0):
        assert_same(method, pair(X, targets), X, tol=1e-5)


@pytest.mark.parametrize("solver", SMOOTH)
def test_columns_far_from_zero(solver):
    """Products in float32 would lose all digits of values that are 100 000 deviations away."""
    X, targets = data(raw=False)
    X = (X + np.array([0.0, 1e5, 0.0, -1e5])).astype(np.float32)
    with override(few_single=0):
        assert_same(Method(solver=solver, tol=1e-5), pair(X, targets), X, tol=1e-5)


def test_constant_columns_and_rows_without_weight():
    X, (targets,) = data()
    X = np.column_stack([X, np.full(n, 3.0)])
    targets.weight[::3] = 0.0
    assert_same(Method(tol=TOL), pair(X, [targets]), X)


def test_stored_gap_and_warm_start():
    X, targets = data()
    gaps = []
    for problem in pair(X, targets):
        (fit,), _ = solve(problem, Method(tol=1e-12), np.ones(1))
        coef, intercept = problem.coefficients(fit.theta)
        start = problem.start(coef, intercept)
        (again,), _ = solve(problem, Method(tol=TOL), np.ones(1), start=start)
        assert again.n_iter == 0
        rounded = np.round(coef, 1 - int(np.log10(np.abs(coef).max()))), np.round(intercept, 1)
        gaps.append(problem.stored_gap(fit, *(a.astype(np.float32) for a in rounded)))
    assert gaps[0] > 1e-6
    assert_allclose(*gaps, rtol=1e-3)


def test_rows_of_a_library_keep_their_data_there():
    X, (targets,) = data()
    rows = make_rows(xp.asarray(X), targets.target, targets.weight[None], T)
    assert {a.__array_namespace__() for a in (rows.X, rows.target, rows.weight)} == {xp}


def test_logits_of_a_direction_take_the_place_of_the_last(rng):
    """Blocks keep two arrays of logits, in every library."""
    X, targets = data(raw=False)
    theta, direction = rng.standard_normal((2, N + 1, T))
    for problem in pair(X, targets):
        objective = problem.objective(np.ones(1))
        like = problem.frame.mean
        first = objective.line(objective.at(as_like(theta, like)), as_like(direction, like))
        second = objective.line(first.move(np.ones(1)), as_like(-direction, like))
        for before, after in zip(first.state, second.state, strict=True):
            assert all(a is b for a, b in zip(before, after, strict=True))


# -- logits that do not fit into the memory of a device ------------------------------------------


@pytest.fixture
def no_room(monkeypatch):
    monkeypatch.setattr(_lean, "free_memory", lambda array: 1)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("l1_ratio", [0.5, 1.0])
@pytest.mark.parametrize("changes", [{}, {"most_coordinates": 1}], ids=["matrix", "products"])
@pytest.mark.parametrize("solver", PROXIMAL)
def test_elastic_nets(solver, changes, l1_ratio, fit_intercept):
    """With `most_coordinates` of one, steps are by products with the Hessian."""
    X, targets = data(raw=False)
    method = Method(solver=solver, tol=TOL, max_iter=10**5)
    both = pair(X, targets, l1_ratio=l1_ratio, fit_intercept=fit_intercept)
    with override(**changes):
        assert_same(method, both, X)


@pytest.mark.parametrize("samples", [{}, SAMPLES], ids=["all rows", "samples"])
@pytest.mark.parametrize("solver", [*SMOOTH, "newton-cd"])
def test_fits_that_keep_no_logits(solver, samples, no_room):
    X, targets = data()
    elastic = {"l1_ratio": 0.5} if solver == "newton-cd" else {}
    with override(**samples):
        problems = pair(X, targets, **elastic)
        assert isinstance(problems[1].rows, LeanRows)
        assert_same(Method(solver=solver, tol=TOL), problems, X)


@pytest.mark.parametrize("preconditioner", ["block-diagonal", "diagonal"])
def test_several_problems_that_keep_no_logits(preconditioner, no_room):
    X, targets = data(2)
    with override(**SAMPLES):
        method = Method(solver="lbfgs", preconditioner=preconditioner, tol=TOL)
        assert_same(method, pair(X, targets), X)


def test_columns_far_from_zero_without_logits(no_room):
    X, targets = data(raw=False)
    X = (X + np.array([0.0, 1e5, 0.0, -1e5])).astype(np.float32)
    with override(few_single=0):
        assert_same(Method(tol=1e-5), pair(X, targets), X, tol=1e-5)


def test_without_a_penalty_and_without_logits(no_room):
    X, targets = data()
    assert_same(Method(tol=TOL), pair(X, targets), X, C=(np.inf,))


@pytest.mark.parametrize("n_problems", [1, 2])
def test_weights_stand_for_logits(n_problems, monkeypatch, rng):
    """Lines, Hessians and problems dropped are the same, and blocks keep no numbers of rows."""
    X, targets = data(n_problems, raw=False)
    theta, direction, other = rng.standard_normal((3, N + 1, n_problems * T))
    found = []
    for room in (None, 1):
        monkeypatch.setattr(_lean, "free_memory", lambda array, room=room: room)
        problem = Problem(xp.asarray(X), targets, fit_intercept=True)
        objective = problem.objective(np.ones(n_problems))
        evaluation = objective.at(xp.asarray(theta))
        states, numbers = [evaluation.state], [evaluation.value]
        for step in (1.0, 0.3):
            line = objective.line(evaluation, xp.asarray(direction))
            states.append(line.state)
            numbers += [line.slope, *line.at_unit_step]
            evaluation = line.move(np.full(n_problems, step))
            states.append(evaluation.state)
            numbers += [evaluation.value, to_numpy(evaluation.gradient).ravel()]
        last = np.array([n_problems - 1])
        objective, evaluation = objective.problems(last, evaluation)
        hessian = objective.hessian(evaluation)
        states += [evaluation.state, hessian.state]
        numbers.append(to_numpy(hessian(xp.asarray(other[:, -T:]))).ravel())
        numbers.append(to_numpy(hessian.diagonal()).ravel())
        found.append(np.concatenate(numbers))
        kept = [array for state in states for kept in state for array in kept]
        assert all(isinstance(array, Recomputed) for array in kept) == (room == 1)
    assert_allclose(*found, rtol=1e-9, atol=1e-12)
