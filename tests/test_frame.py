"""The door between the units of X and the solver's: both ways, for weights and gradients."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skfc._frame import LARGEST, Frame
from skfc._moments import Moments

N, K, n = 6, 4, 40
CONSTANT = [2, 4]


@pytest.fixture(params=["numpy", "strict"])
def array(request):
    """What makes arrays of a library."""
    if request.param == "numpy":
        return np.asarray
    return pytest.importorskip("array_api_strict").asarray


@pytest.fixture(params=[True, False], ids=["intercept", "no intercept"])
def fit_intercept(request):
    return request.param


def raw(rng):
    """Columns of all scales, two of them constant: one of zeros."""
    X = rng.standard_normal((n, N)) * 10.0 ** np.arange(-6, 6, 2) + 10.0 ** np.arange(6, -6, -2)
    X[:, 2], X[:, 4] = 3.25, 0.0
    return X


@pytest.fixture
def X(rng):
    return raw(rng)


@pytest.fixture
def frame(X, array, fit_intercept):
    moments = Moments.of(array(X), array(np.ones((1, n))))
    return Frame.of(moments.pooled(), fit_intercept)


def idle_columns(fit_intercept):
    """Without an intercept only columns of zeros say nothing: a constant one is an intercept."""
    return CONSTANT if fit_intercept else CONSTANT[1:]


def host(values):
    return (
        tuple(np.asarray(v) for v in values) if isinstance(values, tuple) else np.asarray(values)
    )


def test_standardised_features_have_mean_zero_and_variance_one(X, frame, fit_intercept):
    mean, inverse = host(frame.mean), host(frame.inverse)
    standard = (X - mean) * inverse
    idle = idle_columns(fit_intercept)
    rest = np.setdiff1d(np.arange(N), idle)
    assert_array_equal(np.flatnonzero(inverse == 0), idle)
    assert_array_equal(host(frame.scale)[idle], 1.0)
    assert_allclose((standard[:, rest] ** 2).mean(axis=0), 1.0, rtol=1e-9)
    assert not standard[:, idle].any()
    if fit_intercept:
        # A mean is rounded, and the first column is 1e12 standard deviations from zero.
        assert_allclose(standard.mean(axis=0), 0.0, atol=1e-3)
        assert_allclose(standard[:, 1:].mean(axis=0), 0.0, atol=1e-7)
    else:
        assert not mean.any()
    assert frame.n_parameters == N + fit_intercept


def test_logits_are_the_same_on_both_sides(X, frame, array, fit_intercept, rng):
    theta = rng.standard_normal((N + fit_intercept, K))
    coef, intercept = host(frame.to_user(array(theta)))
    standard = (X - host(frame.mean)) * host(frame.inverse)
    inside = standard @ theta[:N] + (theta[N] if fit_intercept else 0.0)
    size = np.abs(X) @ np.abs(coef.T)  # of the terms that add up outside
    assert_allclose(X @ coef.T + intercept, inside, rtol=0, atol=1e-14 * size.max())
    assert fit_intercept or not intercept.any()


def test_there_and_back(frame, array, fit_intercept, rng):
    """to_user and from_user are inverse to one another, but for what constant columns add."""
    theta = rng.standard_normal((N + fit_intercept, K))
    theta[idle_columns(fit_intercept)] = 0.0
    coef, intercept = frame.to_user(array(theta))
    again = host(frame.from_user(coef, intercept))
    # The intercept of X has the mean of the features in it.
    lost = 1e-15 * np.abs(host(coef) * host(frame.mean)).sum()
    assert_allclose(again, theta, rtol=1e-12, atol=10 * lost)
    assert_array_equal(host(coef).T[idle_columns(fit_intercept)], 0.0)


def test_a_constant_column_moves_to_the_intercept(X, frame, array, fit_intercept, rng):
    """A start may have coefficients there: the logits stay, the coefficients become zero."""
    coef, intercept = rng.standard_normal((K, N)), rng.standard_normal(K) * fit_intercept
    theta = frame.from_user(array(coef), array(intercept))
    found = host(frame.to_user(theta))
    assert_array_equal(found[0].T[idle_columns(fit_intercept)], 0.0)
    expected = X @ coef.T + intercept
    size = (np.abs(X) @ np.abs(coef.T)).max()
    assert_allclose(X @ found[0].T + found[1], expected, rtol=0, atol=1e-14 * size)


def test_steps_and_gradients_are_adjoint(frame, array, fit_intercept, rng):
    """<gradient, step> does not depend on the units in which both are written."""
    gradient, step = (rng.standard_normal((N + fit_intercept, K)) for _ in range(2))
    here = np.sum(gradient * host(frame.step_from_user(array(step))))
    there = np.sum(host(frame.gradient_to_user(array(gradient))) * step)
    size = np.sum(np.abs(gradient * host(frame.step_from_user(array(np.abs(step))))))
    assert_allclose(here, there, rtol=0, atol=1e-13 * size)


def test_a_step_is_the_difference_of_two_thetas(frame, array, fit_intercept, rng):
    idle = idle_columns(fit_intercept)
    (c, b), (d, e) = ((rng.standard_normal((K, N)), rng.standard_normal(K)) for _ in range(2))
    for coef in (c, d):
        coef[:, idle] = 0.0
    step = np.vstack([d.T - c.T, e - b]) if fit_intercept else d.T - c.T
    found = host(frame.step_from_user(array(step)))
    first, second = (host(frame.from_user(array(w), array(v))) for w, v in ((c, b), (d, e)))
    size = np.maximum(np.abs(first), np.abs(second)).max(axis=1, keepdims=True)
    size[size == 0] = 1.0
    assert_allclose(found / size, (second - first) / size, rtol=0, atol=1e-14)


def test_penalties_are_those_of_the_user(frame, array, fit_intercept, rng):
    """Of coefficients in the units of X, or of standard deviations that are given."""
    theta = rng.standard_normal((N + fit_intercept, K))
    theta[idle_columns(fit_intercept)] = 0.0
    coef = host(frame.to_user(array(theta))[0])
    factors = host(frame.penalty_factors())
    assert_allclose(np.sum(factors * theta[:N] ** 2), np.sum(coef**2), rtol=1e-12)
    std = rng.uniform(0.5, 2, (3, N))
    for k, factors in enumerate(host(frame.penalty_factors(array(std))).T):
        expected = np.sum((coef * std[k]) ** 2)
        assert_allclose(np.sum(factors[:, None] * theta[:N] ** 2), expected, rtol=1e-12)
        assert (factors > 0).all()


def test_penalties_stay_in_range():
    X = np.array([[0.0, 1e-200], [1e200, 0.0], [2e200, 0.0]])
    frame = Frame.of(Moments.of(X, np.ones((1, 3))).pooled(), True)
    with np.errstate(all="ignore"):  # as in a fit
        factors = frame.penalty_factors()
    assert np.isfinite(factors).all()
    assert factors[1, 0] == LARGEST


def test_columns_so_small_that_a_deviation_is_zero_are_constant():
    X = np.array([[0.0, 1.0], [5e-324, 2.0]])
    frame = Frame.of(Moments.of(X, np.array([[1.0, 1e-9]])).pooled(), True)
    assert np.isfinite(frame.inverse).all()
    with np.errstate(all="ignore"):
        assert np.isfinite(frame.penalty_factors()).all()
