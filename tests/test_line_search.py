"""Steps on a line: the Wolfe conditions, and where rounding hides the value, the slope."""

from types import SimpleNamespace

import numpy as np
import problems
import pytest
from core import apply, dense_hessian, make_objective, zero_mean
from numpy.testing import assert_allclose, assert_array_equal

from skfc._tuned import TUNED
from skfc.solvers._line_search import ROUNDING, search


@pytest.mark.parametrize("wolfe", [0.9, 0.25])
@pytest.mark.parametrize("size", [1e-4, 1e-2, 1.0, 1e2, 1e4])
@pytest.mark.parametrize("C", [0.01, 1.0, np.inf])
def test_steps_meet_the_wolfe_conditions(C, size, wolfe, rng):
    """Whether the first step is far too long or far too short, for several problems at once."""
    X, y = problems.overlapping(100, raw=False)
    objective = make_objective(X, y, C=[C, 1.0, 10.0])
    theta = 2 * zero_mean(rng.standard_normal(objective.shape), 3)
    evaluation = objective.at(theta)
    direction = -size * evaluation.gradient * np.repeat([1.0, 100.0, 0.01], 3)
    line = objective.line(evaluation, direction)
    value, slope = evaluation.value, line.slope
    steps = search(line, wolfe)
    assert (steps > 0).all()
    # From values and gradients that no line has computed.
    there = objective.at(theta + direction * np.repeat(steps, 3))
    assert (there.value <= value + TUNED.armijo * steps * slope + 1e-14 * value).all()
    assert (abs(objective.dot(there.gradient, direction)) <= -wolfe * slope * (1 + 1e-9)).all()


def test_the_first_step_stands_where_it_meets_them(rng):
    """Newton steps at the minimum: one is tried, and taken."""
    X, y = problems.overlapping(100, raw=False)
    objective = make_objective(X, y)
    evaluation = newton_steps(objective, X, np.zeros(objective.shape), 3)
    line = objective.line(evaluation, newton_direction(objective, X, evaluation))
    line.at = None  # no other step is looked at
    assert_array_equal(search(line), 1.0)


def newton_direction(objective, X, evaluation):
    H = dense_hessian(objective, X, evaluation.theta).reshape(evaluation.theta.size, -1)
    step = np.linalg.lstsq(H, evaluation.gradient.ravel(), rcond=1e-13)[0]
    return -zero_mean(step.reshape(evaluation.theta.shape))


def newton_steps(objective, X, theta, n):
    evaluation = objective.at(theta)
    for _ in range(n):
        evaluation = objective.at(evaluation.theta + newton_direction(objective, X, evaluation))
    return evaluation


@pytest.mark.parametrize("seed", range(20))
def test_the_slope_decides_where_rounding_hides_the_value(seed):
    """So near the minimum that values differ by rounding alone, steps still lead there.

    Hager and Zhang (2005): in exact arithmetic the approximate Wolfe conditions are the Wolfe
    conditions of a parabola.
    """
    X, y = problems.overlapping(100, seed=seed, raw=False)
    objective = make_objective(X, y)
    best = newton_steps(objective, X, np.zeros(objective.shape), 8)
    away = zero_mean(np.random.default_rng(seed).standard_normal(objective.shape))
    for distance in (1e-9, 1e-10):
        evaluation = objective.at(best.theta + distance * away)
        H = dense_hessian(objective, X, evaluation.theta)
        gap = 0.5 * np.vdot(away, apply(H, away)) * distance**2
        assert gap < 1e-16 * evaluation.value[0]
        before = np.linalg.norm(evaluation.gradient)
        line = objective.line(evaluation, newton_direction(objective, X, evaluation))
        steps = search(line)
        assert_allclose(steps, 1.0, atol=0.5)
        assert np.linalg.norm(line.move(steps).gradient) < 0.5 * before


def parabola(f0, slope, curvature, noise=0.0, itemsize=8):
    """A line of value f0 + slope t + curvature t² / 2, `noise` above it but at zero."""
    tried = []

    def at(t, problems):
        tried.append(t)
        value = f0 + slope * t + 0.5 * curvature * t**2 + noise
        return value[problems], (slope + curvature * t)[problems]

    one, everything = np.ones(1), np.arange(1)
    line = SimpleNamespace(
        evaluation=SimpleNamespace(value=np.array([f0])), slope=np.array([slope]),
        itemsize=itemsize, at=at, at_unit_step=at(one, everything), tried=tried,
    )  # fmt: skip
    tried.clear()
    return line


@pytest.mark.parametrize("itemsize", [4, 8])
def test_values_above_the_start_by_rounding_are_no_reason_to_search(itemsize):
    noise = 0.5 * ROUNDING[itemsize]
    line = parabola(1.0, -1e-20, 1e-20, noise, itemsize)
    assert_array_equal(search(line), 1.0)
    assert not line.tried
    # The slope has to show that the step is no longer than it should be.
    line = parabola(1.0, -1e-20, 3e-20, noise, itemsize)
    assert search(line)[0] < 1.0


@pytest.mark.parametrize("itemsize", [4, 8])
def test_values_above_the_start_by_more_than_rounding_are(itemsize):
    line = parabola(1.0, -1e-20, 1e-20, 10 * ROUNDING[itemsize], itemsize)
    assert_array_equal(search(line), 0.0)


@pytest.mark.parametrize("best", [1e-8, 1e-3, 0.3, 1.0, 7.0, 1e4])
def test_the_minimum_of_a_parabola(best):
    line = parabola(1.0, -1e-6 / best, 1e-6 / best**2)
    step = search(line, wolfe=0.01)[0]
    assert abs(step - best) <= 0.01 * best
    assert len(line.tried) <= 20


def test_no_step_where_nothing_falls():
    """Uphill, along a direction of which the slope is wrong."""
    line = parabola(1.0, -1.0, 0.0)
    line.at = lambda t, problems: (1.0 + t[problems], np.ones(1))
    line.at_unit_step = np.array([2.0]), np.ones(1)
    assert_array_equal(search(line), 0.0)


def test_values_that_overflow_are_too_far():
    line = parabola(1.0, -1e-2, 1e-2)
    at = line.at

    def overflowing(t, problems):
        value, slope = at(t, problems)
        return np.where(t > 0.5, np.inf, value), np.where(t > 0.5, np.inf, slope)

    line.at, line.at_unit_step = overflowing, (np.array([np.inf]), np.array([np.nan]))
    assert 0 < search(line)[0] <= 0.5


def test_a_bracket_that_rounding_has_shut_ends_the_search():
    """The slope leads on, and values grow by more than rounding: there is nothing between."""
    line = parabola(1.0, -1e-3, 0.0)
    tried = line.tried

    def at(t, problems):
        tried.append(t)
        return np.where(t > 0.3, 2.0, 1.0 - 1e-3 * t), np.full(1, -1e-3)

    line.at, line.at_unit_step = at, at(np.ones(1), None)
    step = search(line)[0]
    assert_allclose(step, 0.3, rtol=1e-9)
    assert step <= 0.3
    assert len(tried) < TUNED.most_steps


def test_a_search_ends_where_rounding_is_all_that_is_to_gain():
    """Values and slopes are noise: at the floor of the arithmetic that had taken 100 trials."""
    line = parabola(1.0, -1e-12, 0.0)
    tried = line.tried

    def at(t, problems):
        tried.append(t)
        return np.full(1, 1 + 2 * ROUNDING[8]), np.full(1, 1e-12)

    line.at, line.at_unit_step = at, at(np.ones(1), None)
    assert_array_equal(search(line), 0.0)
    assert len(tried) <= 20
