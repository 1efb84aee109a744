"""Each preconditioner solves with the matrix that it claims, whatever units and degeneracies."""

import numpy as np
import problems
import pytest
from core import (
    apply,
    dense_hessian,
    make_objective,
    probabilities,
    ridge,
    standardised,
    zero_mean,
)
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from skfc import SoftmaxFCClassifier
from skfc._preconditioner import PRECONDITIONERS, FullHessian, Kronecker, choose, make
from skfc._preconditioner._base import factorise
from skfc._preconditioner._deferred import Deferred
from skfc._preconditioner._exact import ExactHessian
from skfc._preconditioner._kronecker import LowRank
from skfc._tuned import TUNED

N, T, n = 4, 3, 120
NAMES = ["hessian", "block-diagonal", "kronecker", "diagonal"]
CS = [0.01, 10.0, np.inf]


@pytest.fixture(autouse=True)
def arithmetic():
    """As in a fit: dividing by zero is no warning."""
    with np.errstate(all="ignore"):
        yield


@pytest.fixture
def data(rng):
    X, y = problems.overlapping(n_samples=n, raw=False)
    return X + rng.standard_normal(N), y, rng.uniform(0.1, 2, n)


def formed(name, objective, theta):
    """The preconditioner `name` (or of a class), in its last form, formed at `theta`."""
    preconditioner = make(objective, name) if name in PRECONDITIONERS else name(objective)
    preconditioner.refresh(objective, objective.at(theta))
    return preconditioner


def prepare(name, X, y, weight=None, C=1.0, theta=None, **options):
    objective = make_objective(X, y, weight, C, n_classes=T, **options)
    theta = np.zeros(objective.shape) if theta is None else theta
    return formed(name, objective, theta), objective


def draw(rng, fit_intercept=True, n_features=N):
    """A gradient or a direction: (P, T) of zero mean over the classes."""
    return zero_mean(rng.standard_normal((n_features + fit_intercept, T)))


def null_model(rng, fit_intercept=True):
    """No weights, and intercepts that are not zero."""
    theta = np.zeros((N + fit_intercept, T))
    theta[N:] = rng.standard_normal(T)
    return theta


def mean_curvature(objective, X, theta):
    """The weighted mean of diag(p) - p pᵀ, (T, T)."""
    p = probabilities(objective, X, theta)
    m = objective.rows.weight[0] / len(X)
    return np.diag(m @ p) - p.T @ (m[:, None] * p)


# -- M is what it claims to be ------------------------------------------------------------


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("C", CS)
@pytest.mark.parametrize("where", ["null model", "elsewhere"])
def test_full_hessian_of_all_rows_is_the_hessian(data, where, C, fit_intercept, rng):
    X, y, weight = data
    theta = (null_model if where == "null model" else draw)(rng, fit_intercept)
    M, objective = prepare("hessian", X, y, weight, C, theta, fit_intercept=fit_intercept)
    D = draw(rng, fit_intercept)
    HD = apply(dense_hessian(objective, X, theta), D)
    assert_allclose(zero_mean(M.solve(HD)), D, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("C", [1e6, np.inf])
@pytest.mark.parametrize("least", [1e-8, 1e-12, 1e-16])
def test_a_class_that_is_all_but_impossible_keeps_its_curvature(data, least, C, rng):
    """However little that is beside the others', and beside what is common to all classes."""
    X, y, _ = data
    weight = np.where(y == T - 1, least, 1.0)
    objective = make_objective(X, y, weight, C, n_classes=T)
    theta = np.zeros(objective.shape)
    theta[N] = np.log(np.bincount(y, weight))
    hessian = ExactHessian(objective)
    hessian.refresh(objective, objective.at(theta))
    assert hessian.is_exact
    for_class = np.zeros(T)
    for_class[T - 1] = 1.0
    step = rng.standard_normal(N + 1)[:, None] * for_class
    X, p = standardised(objective, X), probabilities(objective, X, theta)
    q = p[:, T - 1] * weight / weight.sum()
    gradient = -q[:, None] * (X @ step[:, T - 1])[:, None] * (p - for_class)
    gradient[:, T - 1] = -gradient[:, : T - 1].sum(axis=1)
    gradient = X.T @ gradient + ridge(objective)[:, None] * zero_mean(step)
    assert_allclose(hessian.solve(gradient), zero_mean(step), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("C", CS)
def test_kronecker_is_the_hessian_at_the_null_model(data, C, fit_intercept, rng):
    X, y, weight = data
    theta, D = null_model(rng, fit_intercept), draw(rng, fit_intercept)
    M, objective = prepare("kronecker", X, y, weight, C, theta, fit_intercept=fit_intercept)
    HD = apply(dense_hessian(objective, X, theta), D)
    assert_allclose(zero_mean(M.solve(HD)), D, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("C", CS)
def test_kronecker_is_a_product_of_means_elsewhere(data, C, fit_intercept, rng):
    """(A ⊗ S + lambda D), with means over the rows of x̃ x̃ᵀ and of diag(p) - p pᵀ."""
    X, y, weight = data
    theta, D = draw(rng, fit_intercept), draw(rng, fit_intercept)
    M, objective = prepare("kronecker", X, y, weight, C, theta, fit_intercept=fit_intercept)
    rows = standardised(objective, X)
    A = rows.T @ (objective.rows.weight[0][:, None] * rows) / n
    MD = A @ D @ mean_curvature(objective, X, theta) + ridge(objective)[:, None] * D
    assert_allclose(zero_mean(M.solve(MD)), D, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("C", CS)
def test_blocks_are_those_of_the_hessian(data, C, fit_intercept, rng):
    X, y, weight = data
    theta, g = 0.3 * draw(rng, fit_intercept), draw(rng, fit_intercept)
    M, objective = prepare("block-diagonal", X, y, weight, C, theta, fit_intercept=fit_intercept)
    H = dense_hessian(objective, X, theta)
    expected = np.column_stack([np.linalg.solve(H[:, k, :, k], g[:, k]) for k in range(T)])
    assert_allclose(M.solve(g), zero_mean(expected), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("C", CS)
@pytest.mark.parametrize("where", ["null model", "elsewhere"])
def test_the_diagonal_is_that_of_the_hessian(data, where, C, fit_intercept, kind, rng):
    X, y, weight = data
    theta = (null_model if where == "null model" else draw)(rng, fit_intercept)
    g = draw(rng, fit_intercept)
    M, objective = prepare("diagonal", kind(X), y, weight, C, theta, fit_intercept=fit_intercept)
    diagonal = np.einsum("jkjk->jk", dense_hessian(objective, X, theta))
    # It is stored in float32.
    assert_allclose(M.solve(g), zero_mean(g / diagonal), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_no_preconditioner_is_the_textbook_gradient(data, fit_intercept, rng):
    """A step of `coef` and `intercept` along their own gradient, whatever theta is."""
    X, y, weight = data
    X = X * [1.0, 100.0, 1e-3, 5.0] + [0.0, 30.0, 1.0, 0.0]
    M, objective = prepare(None, X, y, weight, fit_intercept=fit_intercept)
    frame, theta = objective.rows.frame, draw(rng, fit_intercept)
    coef, intercept = frame.to_user(theta)
    g = draw(rng, fit_intercept)

    def inner(d_coef, d_intercept):
        """<g, change of theta> along a change of coefficients and intercepts."""
        there = frame.from_user(coef + d_coef, intercept + d_intercept)
        return np.vdot(g, there - theta)

    step_coef, step_intercept = (a - b for a, b in zip(
        frame.to_user(theta + M.solve(g)), (coef, intercept), strict=True
    ))  # fmt: skip
    # The gradient in coefficients is the derivative along each of them, and theta is linear.
    for k, j in np.ndindex(T, N):
        unit = np.zeros((T, N))
        unit[k, j] = 1.0
        assert_allclose(step_coef[k, j], inner(unit, np.zeros(T)), rtol=1e-8, atol=1e-8)
    expected = [inner(np.zeros((T, N)), e) for e in np.eye(T)] if fit_intercept else 0.0
    assert_allclose(step_intercept, expected, rtol=1e-8, atol=1e-8)


# -- fewer rows than features -------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("C", [1e-3, 1.0, 100.0, np.inf])
def test_low_rank_is_the_kronecker_form(C, fit_intercept, raw, weighted, rng):
    """In the span of the rows, and outside it, where the penalty is all the curvature."""
    few, wide = 15, 40
    X, y = problems.overlapping(few, wide, T, raw=False)
    X = X * np.geomspace(0.1, 10, wide) if raw else X
    weight = rng.uniform(0.5, 2, few) if weighted else None
    theta = 0.2 * draw(rng, fit_intercept, wide)
    objective = make_objective(X, y, weight, C, n_classes=T, fit_intercept=fit_intercept)
    assert isinstance(make(objective, "kronecker"), LowRank)
    low, full = (formed(kind, objective, theta) for kind in (LowRank, Kronecker))
    rows = standardised(objective, X)
    inside = zero_mean(rows.T @ rng.standard_normal((few, T)))
    g = draw(rng, fit_intercept, wide)
    # Orthogonal to the rows in units of the penalty: M is the penalty there.
    factors = objective.penalty.factors
    basis = np.linalg.qr((rows[:, :wide] / np.sqrt(factors.T)).T)[0]
    outside = g.copy()
    scaled = g[:wide] / np.sqrt(factors)
    outside[:wide] = np.sqrt(factors) * (scaled - basis @ (basis.T @ scaled))
    outside[wide:] = 0.0
    if np.isfinite(C):
        expected = outside[:wide] / (objective.penalty.l2[0] * factors)
        assert_allclose(low.solve(outside)[:wide], expected, rtol=1e-6, atol=1e-6)
    # Without a penalty there is no curvature outside the span, and no gradient either.
    for gradient in (inside, g, outside) if np.isfinite(C) else (inside,):
        a, b = zero_mean(low.solve(gradient)), zero_mean(full.solve(gradient))
        assert_allclose(a, b, rtol=1e-6, atol=1e-6 * np.abs(b).max())


# -- blocks of a sample of many rows ------------------------------------------------------


@pytest.fixture(scope="module")
def many_rows():
    """Blocks of more rows than they take, the objective, and where they were formed."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((6000, 5)), rng.integers(T, size=6000)
    X[:, 4] = 0.0
    X[7, 4] = 1.0
    objective = make_objective(X, y, C=1e3, n_classes=T)
    theta = zero_mean(rng.standard_normal(objective.shape))
    # The only row of a feature is all but decided.
    theta[4] = np.array([16.0, -8.0, -8.0]) / 3 * X[:, 4].std()
    evaluation = objective.at(theta)
    blocks = make(objective, "block-diagonal")
    blocks.sampler.size = 6000
    blocks.warm = True
    blocks.refresh(objective, evaluation)
    return blocks, objective, evaluation, X


def test_leverage_of_rows_is_that_in_the_blocks(many_rows):
    blocks, objective, evaluation, X = many_rows
    rows = blocks.sampler.at(objective, evaluation).rows
    x, z = standardised(objective, X), blocks._probes(rows)
    estimate = (np.einsum("nj,jqk->kqn", x, z) ** 2).sum(axis=1)
    for k in range(T):
        B = blocks.grams[k] + np.diag(ridge(objective))
        exact = np.einsum("ni,ij,nj->n", x, np.linalg.inv(B), x)
        ratio = estimate[k] / exact
        # Means of `probes` squares of normal numbers, 6 x `probes` independent ones in all.
        assert 0.4 < ratio.mean() < 1.7
        assert ratio.min() > 0.05
        assert ratio.max() < 6


def test_blocks_of_a_sample_stand_for_those_of_all_rows(many_rows):
    blocks, objective, evaluation, X = many_rows
    H = dense_hessian(objective, X, evaluation.theta)
    p, x = probabilities(objective, X, evaluation.theta), standardised(objective, X)
    blocks.refresh(objective, evaluation)
    for k, B in enumerate(blocks.grams):
        exact = H[:, k, :, k] - np.diag(ridge(objective))
        assert not np.allclose(B, exact, rtol=1e-4)  # it is a sample
        C = exact + 1e-6 * np.trace(exact) * np.eye(len(exact))
        L = np.linalg.inv(np.linalg.cholesky(C))
        assert_allclose(np.linalg.eigvalsh(L @ (B + C - exact) @ L.T), 1.0, atol=0.35)
        # The row that alone has a feature is there, with the weight that it has; the others,
        # which have its mean, are a sample.
        own = p[7, k] * (1 - p[7, k]) * x[7, 4] ** 2 / len(x)
        assert abs(B[4, 4] - exact[4, 4]) < 0.35 * (exact[4, 4] - own) + 1e-6 * own


# -- solve is pure ------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*NAMES, None])
def test_solve_changes_nothing(data, name, rng):
    X, y, weight = data
    M, objective = prepare(name, X, y, weight, theta=draw(rng))
    g, other = draw(rng), draw(rng)
    given, work = g.copy(), vars(objective.rows.work).copy()
    first = M.solve(g)
    kept = first.copy()
    M.solve(other)
    M.solve(other.astype(np.float32))
    assert_array_equal(M.solve(g), kept)
    assert_array_equal(first, kept)
    assert_array_equal(g, given)
    assert vars(objective.rows.work) == work
    assert first is not g


@pytest.mark.parametrize("name", NAMES)
def test_solve_is_linear_symmetric_and_positive(data, name, rng):
    X, y, weight = data
    M, _ = prepare(name, X, y, weight, theta=draw(rng))
    a, b = draw(rng), draw(rng)
    scale = np.abs(M.solve(a)).max()
    assert_allclose(M.solve(2 * a - b), 2 * M.solve(a) - M.solve(b), atol=1e-5 * scale)
    assert_allclose(np.vdot(a, M.solve(b)), np.vdot(b, M.solve(a)), atol=1e-5 * scale)
    assert np.vdot(a, M.solve(a)) > 0


# -- when M is formed ---------------------------------------------------------------------


def steps_later(objective, steps):
    """The clock of the preconditioners, `steps` later."""
    objective.rows.work.steps += steps


@pytest.mark.parametrize("name", ["hessian", "diagonal"])
def test_a_refresh_is_due_when_steps_have_cost_as_much(data, name, rng):
    X, y, weight = data
    objective = make_objective(X, y, weight, n_classes=T)
    M = make(objective, name)
    M.price = 3.0
    first, second, third = (objective.at(draw(rng)) for _ in range(3))
    assert M.update(objective, first)
    assert M.is_fresh(first)
    assert not M.update(objective, second)
    assert not M.is_fresh(second)
    steps_later(objective, 3)
    assert M.update(objective, second)
    assert M.is_fresh(second)
    assert not M.update(objective, second, renew=True)  # it is the one of this iterate
    assert M.update(objective, third, renew=True)  # not due, but asked for
    steps_later(objective, 3)
    assert M.update(objective, first, growth=3.0)
    steps_later(objective, 8)
    assert not M.update(objective, second, growth=3.0)
    steps_later(objective, 1)
    assert M.update(objective, second, growth=3.0)


@pytest.mark.parametrize("name", NAMES)
def test_a_change_of_the_penalty_is_followed_at_once(data, name, rng):
    X, y, weight = data
    theta, g = draw(rng), draw(rng)
    M, objective = prepare(name, X, y, weight, 10.0, theta)
    evaluation = objective.at(theta)
    M.update(objective, evaluation, renew=True)
    M.price = M._interval = 1e9
    strong = objective.with_penalty(objective.penalty.scaled(100.0))
    assert M.update(strong, evaluation)
    expected, _ = prepare(name, X, y, weight, 0.1, theta)
    scale = np.abs(expected.solve(g)).max()
    assert_allclose(M.solve(g), expected.solve(g), atol=1e-6 * scale)


def test_blocks_begin_as_the_kronecker_form(data, rng):
    """They are formed when the steps so far have cost as much, or when a gap is in doubt."""
    X, y, weight = data
    objective = make_objective(X, y, weight, n_classes=T)
    start, later = objective.at(np.zeros(objective.shape)), objective.at(0.1 * draw(rng))
    M, g = make(objective, "block-diagonal"), draw(rng)
    M.update(objective, start)
    assert_allclose(M.solve(g), formed("kronecker", objective, start.theta).solve(g))
    assert M.is_fresh(later)  # the Kronecker form is taken at every iterate
    M.update(objective, later)
    assert_allclose(M.solve(g), formed("kronecker", objective, later.theta).solve(g))
    steps_later(objective, 1000)
    M.update(objective, later)
    assert_allclose(M.solve(g), formed("block-diagonal", objective, later.theta).solve(g))


def test_a_warm_start_is_confirmed_in_blocks(data, rng):
    """The Kronecker form of a start from elsewhere says little of its end."""
    X, y, weight = data
    objective = make_objective(X, y, weight, n_classes=T)
    start, g = objective.at(draw(rng)), draw(rng)
    M = make(objective, "block-diagonal")
    M.update(objective, start)
    assert not M.is_fresh(start)
    M.update(objective, start, renew=True)
    assert M.is_fresh(start)
    assert_allclose(M.solve(g), formed("block-diagonal", objective, start.theta).solve(g))


# -- units, origin, degenerate columns, containers, weights ---------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_no_units_and_no_origin(data, name, rng):
    """Standardised features have none: without a penalty, M is the same matrix."""
    X, y, weight = data
    theta, g = draw(rng), draw(rng)
    s, m = np.array([1e-6, 1.0, 1e3, 1e6]), np.array([1e-4, 100.0, 0.0, -1e8])
    plain, _ = prepare(name, X, y, weight, np.inf, theta)
    other, _ = prepare(name, X * s + m, y, weight, np.inf, theta)
    expected = plain.solve(g)
    assert_allclose(other.solve(g), expected, atol=1e-5 * np.abs(expected).max())


DEGENERATE = {
    "constant": lambda X: np.column_stack([X[:, :3], np.full(len(X), 7.7)]),
    "zero": lambda X: np.column_stack([X[:, :3], np.zeros(len(X))]),
    "duplicated": lambda X: X[:, [0, 1, 0, 1]],
    "collinear": lambda X: np.column_stack([X[:, :3], X[:, :3] @ [1, -2, 3]]),
    "all constant": lambda X: np.ones_like(X),
    "one row differs": lambda X: np.vstack([np.ones(N), np.zeros((len(X) - 1, N))]),
}


@pytest.mark.parametrize("kind", DEGENERATE)
@pytest.mark.parametrize("C", [1.0, np.inf])
@pytest.mark.parametrize("name", NAMES)
def test_degenerate_columns(data, name, C, kind, rng):
    """The step is finite and downhill, and the preconditioner stays symmetric."""
    X, y, weight = data
    X = DEGENERATE[kind](X)
    M, objective = prepare(name, X, y, weight, C)
    start = objective.at(np.zeros(objective.shape))
    step = M.solve(start.gradient)
    # From the null model a step asks for logits of the order of one, and promises to lower
    # the value by no more than all of it. Directions that hold only rounding get no step.
    assert 0 < np.vdot(step, start.gradient) / 2 <= 2 * start.value[0]
    assert np.abs(zero_mean(standardised(objective, X) @ step)).max() < 30
    # Gradients that can occur: sums over rows of residuals, and of weights.
    first, second = (objective.at(draw(rng)).gradient for _ in range(2))
    one, two = np.vdot(second, M.solve(first)), np.vdot(first, M.solve(second))
    scale = np.sqrt(np.vdot(first, M.solve(first)) * np.vdot(second, M.solve(second)))
    assert abs(one - two) <= 1e-5 * scale


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [sparse.csr_array, np.float32, np.asfortranarray])
def test_containers_have_one_preconditioner(data, name, kind, rng):
    X, y, weight = data
    X = np.float32(X).astype(float)
    theta, g = draw(rng), draw(rng)
    plain, other = (prepare(name, A, y, weight, 1.0, theta)[0] for A in (X, kind(X)))
    expected = plain.solve(g)
    single = kind is np.float32 or (name == "diagonal" and kind is sparse.csr_array)
    precision = 1e-5 if single else 1e-9
    assert_allclose(other.solve(g), expected, atol=precision * np.abs(expected).max())


@pytest.mark.parametrize("name", NAMES)
def test_rows_without_weight_are_absent(data, name, rng):
    X, y, weight = data
    weight[::3] = 0
    wild = X.copy()
    wild[::3] = 1e6
    theta, g = draw(rng), draw(rng)
    steps = [prepare(name, A, y, weight, 1.0, theta)[0].solve(g) for A in (X, wild)]
    assert_allclose(steps[1], steps[0], rtol=1e-9, atol=1e-10)


# -- several problems -----------------------------------------------------------------------


@pytest.mark.parametrize("C", [[0.1, 1.0, 100.0], [0.1, 10.0, np.inf]])
@pytest.mark.parametrize("name", NAMES)
def test_several_problems_equal_one_at_a_time(data, name, C, rng):
    X, y, weight = data
    theta, g = (zero_mean(rng.standard_normal((N + 1, 3 * T)), T) for _ in range(2))
    together, objective = prepare(name, X, y, weight, C, theta)
    step = together.solve(g)
    for k in range(3):
        columns = objective.columns([k])
        alone, _ = prepare(name, X, y, weight, C[k], theta[:, columns])
        assert_allclose(step[:, columns], alone.solve(g[:, columns]), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("index", [[0], [2], [0, 2], [0, 1, 2]])
@pytest.mark.parametrize("name", NAMES)
def test_some_problems_equal_those_built_alone(data, name, index, rng):
    """Also at the next iterate of those that are left, and when the penalty changes."""
    X, y, weight = data
    C = np.array([0.1, 1.0, 100.0])
    theta, g = (zero_mean(rng.standard_normal((N + 1, 3 * T)), T) for _ in range(2))
    whole, objective = prepare(name, X, y, weight, C, theta)
    columns = objective.columns(index)
    evaluation = objective.at(theta)
    few, here = objective.problems(np.array(index), evaluation)
    part = whole.problems(few, np.array(index), here)
    alone, own = prepare(name, X, y, weight, C[index], theta[:, columns])
    assert few.n_problems == len(index)
    assert_allclose(part.solve(g[:, columns]), alone.solve(g[:, columns]), rtol=1e-6, atol=1e-8)
    assert_allclose(part.solve(g[:, columns]), whole.solve(g)[:, columns], rtol=1e-9, atol=1e-12)
    there = 0.5 * theta[:, columns]
    part.refresh(few, few.at(there))
    alone.refresh(own, own.at(there))
    assert_allclose(part.solve(g[:, columns]), alone.solve(g[:, columns]), rtol=1e-6, atol=1e-8)


def test_problems_of_low_rank_equal_those_built_alone(rng):
    X, y = problems.overlapping(15, 40, T, raw=False)
    C = np.array([0.1, 1.0, 100.0])
    theta, g = (zero_mean(rng.standard_normal((41, 3 * T)), T) for _ in range(2))
    whole, objective = prepare(LowRank, X, y, None, C, 0.1 * theta)
    for k in range(3):
        columns = objective.columns([k])
        few, here = objective.problems(np.array([k]), objective.at(0.1 * theta))
        part = whole.problems(few, np.array([k]), here)
        alone, _ = prepare(LowRank, X, y, None, C[k], 0.1 * theta[:, columns])
        step = part.solve(g[:, columns])
        assert_allclose(step, alone.solve(g[:, columns]), rtol=1e-6, atol=1e-8)
        assert_allclose(step, whole.solve(g)[:, columns], rtol=1e-9, atol=1e-12)


# -- the ladder -----------------------------------------------------------------------------


def test_the_effective_dimension_is_the_trace(data):
    X, y, _ = data
    objective = make_objective(X, y, n_classes=T)
    kronecker = make(objective, "kronecker")
    rows = standardised(objective, X)
    A, D = rows.T @ rows / n / T, np.diag(np.append(objective.penalty.factors[:, 0], 0.0))
    last = N + 1.0
    for l2 in [1e-9, 1e-3, 1e-1, 10.0, 1e6]:
        found = kronecker.effective_dimension(l2)
        assert_allclose(found, np.trace(np.linalg.solve(A + l2 * D, A)), rtol=1e-3)
        assert found < last
        last = found
    assert_allclose(last, 1.0, rtol=0.01)  # the intercept is left


def test_a_weaker_penalty_draws_more_rows(rng):
    X, y = rng.standard_normal((6000, 40)), rng.integers(T, size=6000)
    M = make(make_objective(X, y, C=1e-4), "hessian")
    theta, drawn = 0.1 * draw(rng, n_features=40), []
    first = make_objective(X, y, C=1e-4)
    M.refresh(first, first.at(np.zeros(first.shape)))
    for C in [1e-4, 1.1e-4, 10.0]:
        objective = make_objective(X, y, C=C)
        M.refresh(objective, objective.at(theta))
        drawn.append(M.sample.rows.shape[0])
    # Poisson samples of some 1400 rows: their sizes differ by some 50.
    assert abs(drawn[0] - drawn[1]) < 200 < drawn[2] - drawn[1]


def test_the_hessian_is_taken_where_it_costs_few_passes(rng):
    few, many = (
        make_objective(rng.random((rows, 70)), np.arange(rows) % 7) for rows in (3000, 90_000)
    )
    most = TUNED.most_passes
    assert FullHessian.passes(few) > most > FullHessian.passes(many)
    assert [choose(few), choose(many)] == ["block-diagonal", "hessian"]
    y = np.arange(3000) % 7
    assert choose(make_objective(rng.random((3000, 70)), y, C=np.ones(5))) == "hessian"


def test_rows_that_span_nothing():
    """Fewer rows than features, and all of them zero: the intercept is all there is."""
    X, y = np.zeros((4, 6)), np.array([0, 1, 1, 1])
    model = SoftmaxFCClassifier(preconditioner="kronecker").fit(X, y)
    assert_allclose(model.predict_proba(X[:1]), [[0.25, 0.75]], rtol=1e-2)
    assert_array_equal(model.coef_, 0)


def test_rounding_may_exceed_a_diagonal():
    """A Gram matrix of sparse columns far from zero may hold nothing but rounding."""
    A = np.eye(3)
    A[0, 1] = A[1, 0] = 40.0
    (L,) = factorise(A[None])
    assert_allclose(L @ L.T - A, (L @ L.T - A)[0, 0] * np.eye(3), atol=1e-9)
    A[2, 2] = np.inf
    with pytest.raises(np.linalg.LinAlgError):
        factorise(A[None])


@pytest.mark.parametrize("C", [1.0, 1e6])
def test_a_hessian_that_single_precision_would_hide_is_formed_in_double_at_once(C, monkeypatch):
    """Levels of a category sum to one: the penalty is all that tells them apart."""
    rng = np.random.default_rng(0)
    levels = rng.integers(12, size=6000)
    X = np.column_stack([np.eye(12)[levels], rng.standard_normal((6000, 8))])
    y = (X @ rng.standard_normal((20, 4)) + rng.gumbel(size=(6000, 4))).argmax(axis=1)
    objective, formed_in = make_objective(X, y, C=C), []
    invert = FullHessian._invert

    def spy(self, objective, sums):
        formed_in.append(str(sums.dtype))
        invert(self, objective, sums)

    monkeypatch.setattr(FullHessian, "_invert", spy)
    hessian = FullHessian(objective)
    for theta in (np.zeros(objective.shape), 0.1 * zero_mean(rng.standard_normal((21, 4)))):
        hessian.update(objective, objective.at(theta), renew=True)
    assert formed_in == ["float32" if C == 1.0 else "float64"]


@pytest.mark.parametrize("C", CS)
def test_rows_that_are_decided_lose_their_part_in_the_kronecker_form(data, C, rng):
    """After many steps A is that of rows weighted by their curvature, and a hundredth of all."""
    X, y, weight = data
    theta, D = 3 * draw(rng, True), draw(rng, True)
    objective = make_objective(X, y, weight, C, n_classes=T)
    M, start = make(objective, "kronecker"), objective.rows.work.steps
    rows, m = standardised(objective, X), objective.rows.weight[0]
    trace = m * (1 - (probabilities(objective, X, theta) ** 2).sum(axis=1))
    trace = trace / trace.mean()
    for steps, weights in ((24, m), (25, (trace + 0.01 * m) / 1.01)):
        evaluation = objective.at(theta)
        objective.rows.work.steps = start + steps
        M.update(objective, evaluation, renew=True)
        A = rows.T @ (weights[:, None] * rows) / n
        MD = A @ D @ mean_curvature(objective, X, theta) + ridge(objective)[:, None] * D
        assert_allclose(zero_mean(M.solve(MD)), D, rtol=1e-7, atol=1e-7)


def test_blocks_are_put_off_where_the_next_iterate_is_likely_to_be_the_last():
    """They may cost more than the fit so far. A step later they are due again."""
    objective = make_objective(*problems.overlapping(200, 20, 3), C=1.0)
    M = make(objective, "block-diagonal")
    theta, work = np.zeros(objective.shape), objective.rows.work
    M.update(objective, objective.at(theta))
    work.steps += 100
    M.put_off()
    for first in (True, False):
        theta = theta + 0.01
        M.update(objective, objective.at(theta))
        assert (M.first is not None) is first


def pairs_of_rows(n_classes, n_features, rng):
    """Two rows of every class."""
    centres = rng.normal(size=(n_classes, n_features))
    X = np.concatenate([centres, centres + 0.3 * rng.normal(size=centres.shape)])
    return X, np.tile(np.arange(n_classes), 2)


def test_of_many_classes_and_few_rows_the_diagonal_stands_for_their_curvature(rng):
    """M is A ⊗ diag(S) + lambda D, between projections to vectors of mean zero."""
    X, y = pairs_of_rows(60, 5, rng)
    objective = make_objective(X, y, n_classes=60)
    M = make(objective, "kronecker")
    M.update(objective, objective.at(0.1 * rng.normal(size=objective.shape)))
    assert M.diagonal_alone
    gradient = rng.normal(size=objective.shape)
    centred = gradient - gradient.mean(axis=1, keepdims=True)
    A = M.Q.T @ (centred / M.unit[:, None])
    expected = (M.Q @ (A * M.inverse[:, 0])) / M.unit[:, None]
    expected -= expected.mean(axis=1, keepdims=True)
    assert_allclose(M.solve(gradient), expected, rtol=1e-10, atol=1e-12)
    few = make_objective(*pairs_of_rows(4, 5, rng), n_classes=4)
    assert not make(few, "kronecker").diagonal_alone


def test_a_form_that_costs_much_is_formed_when_products_have_cost_as_much(rng):
    X, y = pairs_of_rows(40, 60, rng)
    objective = make_objective(X, y, n_classes=40)
    assert not isinstance(make(objective, "kronecker"), Deferred)
    M = make(objective, "kronecker", deferred=True)
    assert isinstance(M, Deferred)
    evaluation, work = objective.at(np.zeros(objective.shape)), objective.rows.work
    gradient, price = evaluation.gradient, M.left
    M.update(objective, evaluation)
    diagonal = M.solve(gradient)
    work.products += int(M.free)  # those of a step that the other form would take as well
    M.update(objective, evaluation)
    assert M.left == price
    assert_array_equal(M.solve(gradient), diagonal)
    work.products += int(M.free + price) + 1
    M.update(objective, evaluation)
    other = make(objective, "kronecker")
    other.update(objective, evaluation)
    assert_allclose(M.solve(gradient), other.solve(gradient))
    assert M.confirming_steps == other.confirming_steps
