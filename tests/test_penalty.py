"""The penalty is half a weighted sum of squares per problem, and its conjugate belongs to it."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skfc._penalty import Penalty, sums_of_problems
from skfc._tuned import override

N, T = 5, 3
RTOL = 1e-13


@pytest.fixture(params=["one problem", "several", "several, own factors", "strict arrays"])
def case(request, rng):
    """A penalty, a function that makes its arrays, and its matrix D (N, K) by the definition."""
    B = 1 if request.param == "one problem" else 4
    own = "own" in request.param
    xp = np
    if request.param == "strict arrays":
        xp = pytest.importorskip("array_api_strict")
    l2, factors = rng.uniform(0.1, 3, B), 10.0 ** rng.uniform(-6, 6, (N, B if own else 1))
    D = np.repeat(np.broadcast_to(factors, (N, B)) * l2, T, axis=1)
    return Penalty(l2, xp.asarray(factors)), xp.asarray, D


def per_problem(array):
    """Sums over the features and the classes of every problem."""
    return np.asarray(array).reshape(N, -1, T).sum(axis=(0, 2))


def parameters(rng, D, fit_intercept):
    """theta (P, K) with every part of the penalty of the size of one."""
    theta = rng.standard_normal((N + fit_intercept, D.shape[1]))
    theta[:N] /= np.sqrt(D)
    return theta


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_value_gradient_diagonal(case, fit_intercept, rng):
    penalty, array, D = case
    theta, other = (parameters(rng, D, fit_intercept) for _ in range(2))
    assert_allclose(penalty.value(array(theta)), per_problem(D * theta[:N] ** 2) / 2, rtol=RTOL)
    found = penalty.dot(array(theta), array(other))
    assert_allclose(found, per_problem(D * theta[:N] * other[:N]), rtol=1e-12, atol=1e-12)
    out = np.ones_like(theta)
    expected = np.ones_like(theta)
    expected[:N] += D * theta[:N]
    out = array(out)
    penalty.add_gradient(out, array(theta))
    assert_allclose(np.asarray(out), expected, rtol=RTOL)
    diagonal = np.asarray(penalty.diagonal(len(theta)))
    assert_allclose(np.repeat(diagonal, D.shape[1] // diagonal.shape[1], axis=1)[:N], D)
    assert not diagonal[N:].any()


def test_intercepts_are_free(case, rng):
    penalty, array, D = case
    theta = parameters(rng, D, True)
    theta[:N] = 0
    assert not penalty.value(array(theta)).any()
    assert not penalty.conjugate(array(theta)).any()


def test_conjugate(case, rng):
    """R*(g) is the supremum of <g, W> - R(W), and attained where g is the gradient of R."""
    penalty, array, D = case
    for fit_intercept in (True, False):
        theta = parameters(rng, D, fit_intercept)
        gradient = np.zeros_like(theta)
        gradient[:N] = D * theta[:N]
        gradient[N:] = 7.0  # of intercepts: no part of it
        conjugate = penalty.conjugate(array(gradient))
        inner = per_problem(gradient[:N] * theta[:N])
        assert_allclose(conjugate, inner - penalty.value(array(theta)), rtol=1e-12)
        for _ in range(20):  # Fenchel and Young
            other = parameters(rng, D, fit_intercept)
            inner = per_problem(gradient[:N] * other[:N])
            assert (inner <= (conjugate + penalty.value(array(other))) * (1 + 1e-12)).all()


def test_no_penalty_has_no_bound(rng):
    """Its conjugate is infinite but at zero, where it is zero."""
    penalty = Penalty(np.array([0.0, 1.0]), np.ones((N, 1)))
    gradient = rng.standard_normal((N, 2 * T))
    assert_array_equal(np.isinf(penalty.conjugate(gradient)), [True, False])
    assert_array_equal(penalty.conjugate(0 * gradient), [0.0, 0.0])
    assert penalty.active
    assert_array_equal(penalty.strict, [False, True])
    free = Penalty(np.zeros(2), np.ones((N, 1)))
    assert not free.active
    out = np.zeros_like(gradient)
    free.add_gradient(out, gradient)
    assert not out.any()
    assert not free.value(gradient).any()


def test_scaled(case, rng):
    penalty, array, D = case
    theta = array(parameters(rng, D, True))
    stronger = penalty.scaled(10.0)
    assert_allclose(stronger.value(theta), 10 * penalty.value(theta), rtol=RTOL)
    assert_allclose(stronger.conjugate(theta), penalty.conjugate(theta) / 10, rtol=RTOL)
    assert_allclose(np.asarray(stronger.diagonal(N)), 10 * np.asarray(penalty.diagonal(N)))


@pytest.mark.parametrize("own", [True, False])
def test_problems_alone(own, rng):
    penalty = Penalty(rng.uniform(0.1, 3, 4), rng.uniform(0.1, 3, (N, 4 if own else 1)))
    theta, index = rng.standard_normal((N + 1, 4 * T)), np.array([1, 3])
    columns = np.concatenate([np.arange(3, 6), np.arange(9, 12)])
    part = penalty.problems(index)
    assert part.n_problems == 2
    assert_allclose(part.value(theta[:, columns]), penalty.value(theta)[index], rtol=RTOL)
    assert_allclose(part.conjugate(theta[:, columns]), penalty.conjugate(theta)[index], rtol=RTOL)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pieces_add_up(dtype, rng):
    """Arrays that are large are summed in pieces."""
    penalty = Penalty(np.array([0.3]), rng.uniform(0.1, 3, (1000, 1)))
    theta = rng.standard_normal((1001, T)).astype(dtype)
    rtol = 1e-5 if dtype == np.float32 else 1e-12
    with override(piece_bytes=2**10):
        out = np.zeros_like(theta)
        penalty.add_gradient(out, theta)
        value, conjugate = penalty.value(theta), penalty.conjugate(theta)
    assert out.dtype == dtype
    expected = 0.3 * penalty.factors * theta[:1000]
    assert_allclose(out[:1000], expected, rtol=rtol)
    assert not out[1000:].any()
    assert_allclose(value, [0.5 * np.sum(expected * theta[:1000])], rtol=rtol)
    squares = theta[:1000].astype(float) ** 2 / penalty.factors
    assert_allclose(conjugate, [squares.sum() / 0.6], rtol=rtol)


def test_the_null_direction(rng):
    """Of all rows that can be added to the coefficients of every class, it leaves the least."""
    penalty, coef = Penalty(np.ones(1), rng.uniform(0.1, 3, (N, 1))), rng.standard_normal((T, N))
    best = coef - penalty.null_direction(coef.T).T
    for _ in range(20):
        other = best + rng.standard_normal(N)
        assert penalty.value(best.T)[0] < penalty.value(other.T)[0]


def test_sums_over_no_rows_are_zero():
    """The intercepts of several problems without any."""
    np.testing.assert_array_equal(sums_of_problems(np.empty((0, 6)), 2), [0.0, 0.0])
