"""Each metric solves with the matrix that it claims, whatever the units and degeneracies."""

import numpy as np
import problems
import pytest
from numpy.testing import assert_allclose
from reference import Reference, one_hot
from scipy import sparse
from scipy.special import softmax

from skfc._design import make_design
from skfc._metric import make_metric
from skfc._objective import Objective

N, T, n = 4, 3, 120
NAMES = ["hessian", "block-diagonal", "kronecker", "diagonal"]


@pytest.fixture
def data(rng):
    X, y = problems.overlapping(n_samples=n, raw=False)
    return X + rng.standard_normal(N), y, rng.uniform(0.1, 2, n)


def prepare(name, X, y, weight, C, V, *, fit_intercept=True):
    """The metric `name`, refreshed at weights V (P, T), and the objective."""
    objective = Objective(
        make_design(X), y, weight[None], np.array([C]), n_classes=T, fit_intercept=fit_intercept
    )
    metric = make_metric(objective, name)
    metric.refresh(objective.at(V))
    return metric, objective


def zero_mean(V):
    """Without the part that is the same for all classes: no probability depends on it."""
    return V - V.mean(axis=1, keepdims=True)


def claimed(name, X, y, weight, C, V, D, fit_intercept):
    """The matrix that `name` stands for, applied to D (P, T), from dense arrays."""
    bias = V[N] if fit_intercept else np.zeros(T)
    if name == "hessian":
        F = Reference(X, one_hot(y), weight, C=C, fit_intercept=fit_intercept)
        d_bias = D[N] if fit_intercept else np.zeros(T)
        HW, Hb = F.hessian_product(V[:N].T, bias, D[:N].T, d_bias)
        return np.vstack([HW.T, Hb]) if fit_intercept else HW.T
    share = weight / weight.sum()
    P = softmax(X @ V[:N] + bias, axis=1)
    S = np.diag(share @ P) - P.T @ (share[:, None] * P)
    rows = np.column_stack([X, np.ones(n)]) if fit_intercept else X
    A = rows.T @ (share[:, None] * rows)
    out = A @ D @ S
    out[:N] += D[:N] / (C * weight.sum())
    return out


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("C", [0.01, 10.0, np.inf])
@pytest.mark.parametrize("name", ["hessian", "kronecker"])
def test_solve_is_the_inverse_of_what_is_claimed(data, name, C, fit_intercept, rng):
    X, y, weight = data
    V, D = (rng.standard_normal((N + fit_intercept, T)) for _ in range(2))
    metric, _ = prepare(name, X, y, weight, C, V, fit_intercept=fit_intercept)
    D = zero_mean(D)
    MD = claimed(name, X, y, weight, C, V, D, fit_intercept)
    assert_allclose(zero_mean(metric.solve(MD)), D, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("C", [0.01, 10.0, np.inf])
def test_the_diagonal_is_that_of_the_hessian_in_centred_features(
    data, kind, C, fit_intercept, rng
):
    X, y, weight = data
    V, g = (rng.standard_normal((N + fit_intercept, T)) for _ in range(2))
    metric, _ = prepare("diagonal", kind(X), y, weight, C, V, fit_intercept=fit_intercept)
    share = weight / weight.sum()
    # Centring is a change of the intercept: b = b' - mean W, and g' = g - mean g_b.
    centre = share @ X if fit_intercept else np.zeros(N)
    F = Reference(X - centre, one_hot(y), weight, C=C, fit_intercept=fit_intercept)
    bias = V[N] + centre @ V[:N] if fit_intercept else np.zeros(T)
    expected = g.copy()
    if fit_intercept:
        expected[:N] -= np.outer(centre, g[N])
    for j, k in np.ndindex(expected.shape):
        unit = np.zeros((N + 1, T))
        unit[j, k] = 1.0
        HW, Hb = F.hessian_product(V[:N].T, bias, unit[:N].T, unit[N])
        expected[j, k] /= np.vstack([HW.T, Hb])[j, k]
    if fit_intercept:
        expected[N] -= centre @ expected[:N]
    expected = zero_mean(expected)  # the metric is held in float32
    assert_allclose(metric.solve(g), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("C", [0.01, 10.0])
def test_blocks_are_those_of_the_hessian(data, C, fit_intercept, rng):
    X, y, weight = data
    V = 0.3 * rng.standard_normal((N + fit_intercept, T))
    g = zero_mean(rng.standard_normal((N + fit_intercept, T)))
    metric, objective = prepare("block-diagonal", X, y, weight, C, V, fit_intercept=fit_intercept)
    metric.steps = 10**6  # as many as make a look worth its price
    metric.refresh(objective.at(V))
    P = softmax(X @ V[:N] + (V[N] if fit_intercept else 0), axis=1)
    rows = np.column_stack([X, np.ones(n)]) if fit_intercept else X
    penalty = np.diag(np.append(np.ones(N), [0] * fit_intercept)) / (C * weight.sum())
    expected = np.empty_like(g)
    for k in range(T):
        curvature = weight * P[:, k] * (1 - P[:, k]) / weight.sum()
        block = rows.T @ (curvature[:, None] * rows) + penalty
        expected[:, k] = np.linalg.solve(block, g[:, k])
    assert_allclose(metric.solve(g), zero_mean(expected), rtol=1e-6, atol=1e-6)


@pytest.fixture(scope="module")
def many_rows():
    """A block-diagonal metric with blocks, of more rows than they take, and its Hessian."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((6000, 5)), rng.integers(T, size=6000)
    X[:, 4] = 0.0
    X[7, 4] = 1.0
    objective = Objective(make_design(X), y, np.ones((1, 6000)), np.array([1e3]), n_classes=T)
    metric = make_metric(objective, "block-diagonal")
    metric.sampler.size = 6000
    metric.steps = 10**6
    V = rng.standard_normal(objective.shape)
    V[4] = [8.0, 0.0, 0.0]  # the only row of a feature is all but decided
    point = objective.at(V)
    metric.refresh(point)
    return metric, point


def test_leverage_of_rows_is_that_in_the_blocks(many_rows):
    metric, point = many_rows
    part = metric.sampler.at(metric.objective, point).data.objective
    estimate = metric._leverage(part)
    rows = np.column_stack([part.design.X, np.ones(6000)])
    for k in range(T):
        B = metric.grams[k] + np.diag(metric.coordinates.ridge(metric.l2[0]))
        exact = np.einsum("ni,ij,nj->n", rows, np.linalg.inv(B), rows)
        ratio = estimate[k] / exact
        # Means of PROBES squares of normal numbers, 6 x PROBES independent ones in all.
        assert 0.4 < ratio.mean() < 1.7
        assert ratio.min() > 0.05
        assert ratio.max() < 6


def test_blocks_of_few_rows_stand_for_those_of_all(many_rows):
    metric, point = many_rows
    before = metric.grams.copy()
    metric._look(point)
    assert not np.array_equal(metric.grams, before)
    for A, B in zip(before, metric.grams, strict=True):
        C = A + 1e-6 * np.trace(A) * np.eye(len(A))
        L = np.linalg.inv(np.linalg.cholesky(C))
        assert_allclose(np.linalg.eigvalsh(L @ (B + C - A) @ L.T), 1.0, atol=0.35)
        # The row that alone has a feature is there, with the weight that it has.
        assert_allclose(B[4, 4], A[4, 4], rtol=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_no_units_and_no_origin(data, name, rng):
    """With x' = s x + m, steps are W / s and b - W·(m/s) for gradients s g + m g_b."""
    X, y, weight = data
    V, g = rng.standard_normal((N + 1, T)), zero_mean(rng.standard_normal((N + 1, T)))
    s, m = np.array([1e-6, 1.0, 1e3, 1e6]), np.array([1e-4, 100.0, 0.0, -1e8])

    def changed(V):
        out = V / np.append(s, 1)[:, None]
        out[N] -= m @ out[:N]
        return out

    plain, _ = prepare(name, X, y, weight, np.inf, V)
    other, _ = prepare(name, X * s + m, y, weight, np.inf, changed(V))
    g_other = g * np.append(s, 1)[:, None]
    g_other[:N] += np.outer(m, g[N])
    # In standardised coordinates, where sizes can be compared.
    step, expected = (zero_mean(v) for v in (other.solve(g_other), changed(plain.solve(g))))
    size = np.append(s, 1)[:, None]
    slope = np.append(np.zeros(N), 1)[:, None] * (m @ (step - expected)[:N])
    assert_allclose((step - expected) * size + slope, 0, atol=1e-5 * np.abs(plain.solve(g)).max())


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
    """The step is finite and downhill, and the metric stays symmetric."""
    X, y, weight = data
    X = DEGENERATE[kind](X)
    V = np.zeros((N + 1, T))
    metric, objective = prepare(name, X, y, weight, C, V)
    point = objective.at(V)
    step = metric.solve(point.gradient)
    # From the null model a step asks for logits of the order of one, and promises to lower
    # the value by no more than all of it. Directions that hold only rounding get no step.
    assert 0 < np.sum(step * point.gradient) / 2 <= 2 * point.value[0]
    assert np.abs(zero_mean(X @ step[:N] + step[N])).max() < 30
    assert np.abs(zero_mean(step)[:N]).max() < 30
    # Gradients that can occur: sums over rows of residuals, and of weights.
    first, second = (
        objective.at(zero_mean(rng.standard_normal((N + 1, T)))).gradient for _ in range(2)
    )
    one, two = np.sum(second * metric.solve(first)), np.sum(first * metric.solve(second))
    scale = np.sqrt(np.sum(first * metric.solve(first)) * np.sum(second * metric.solve(second)))
    assert abs(one - two) <= 1e-5 * scale


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [sparse.csr_array, np.float32, np.asfortranarray])
def test_containers_have_one_metric(data, name, kind, rng):
    X, y, weight = data
    X = np.float32(X).astype(float)
    V, g = (zero_mean(rng.standard_normal((N + 1, T))) for _ in range(2))
    plain, other = (prepare(name, A, y, weight, 1.0, V)[0] for A in (X, kind(X)))
    expected, step = zero_mean(plain.solve(g)), zero_mean(other.solve(g))
    single = kind is np.float32 or (name == "diagonal" and kind is sparse.csr_array)
    precision = 1e-5 if single else 1e-9
    assert_allclose(step, expected, atol=precision * np.abs(expected).max())


@pytest.mark.parametrize("name", NAMES)
def test_rows_without_weight_are_absent(data, name, rng):
    X, y, weight = data
    weight[::3] = 0
    wild = X.copy()
    wild[::3] = 1e6
    V, g = (zero_mean(rng.standard_normal((N + 1, T))) for _ in range(2))
    steps = [prepare(name, A, y, weight, 1.0, V)[0].solve(g) for A in (X, wild)]
    assert_allclose(steps[1], steps[0], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("C", [[0.1, 1.0, 100.0], [0.1, 10.0, np.inf]])
@pytest.mark.parametrize("name", ["kronecker", "diagonal"])
def test_several_problems_equal_one_at_a_time(data, name, C, rng):
    X, y, weight = data
    C = np.array(C)
    V, g = (rng.standard_normal((N + 1, 3 * T)) for _ in range(2))
    g = np.hstack([zero_mean(part) for part in np.split(g, 3, axis=1)])
    objective = Objective(make_design(X), y, np.tile(weight, (3, 1)), C, n_classes=T)
    metric = make_metric(objective, name)
    metric.refresh(objective.at(V))
    step = metric.solve(g)
    for k in range(3):
        columns = slice(k * T, (k + 1) * T)
        alone, _ = prepare(name, X, y, weight, C[k], V[:, columns])
        expected = zero_mean(alone.solve(g[:, columns]))
        assert_allclose(zero_mean(step[:, columns]), expected, rtol=1e-6, atol=1e-8)


def test_no_metric_is_the_identity(data, rng):
    X, y, weight = data
    g = rng.standard_normal((N + 1, T))
    metric, _ = prepare(None, X, y, weight, 1.0, np.zeros((N + 1, T)))
    step = metric.solve(g)
    np.testing.assert_array_equal(step, g)
    assert step is not g
