"""The yardstick itself: the reference against finite differences and known optima."""

import numpy as np
import problems
import pytest
from numpy.testing import assert_allclose
from reference import Reference, one_hot

KNOWN = {
    "unpenalised": problems.known_unpenalised(),
    "penalised": problems.known_penalised(),
    "no intercept": problems.known_penalised(fit_intercept=False),
}


def reference(known):
    Y = known.y if known.y.ndim == 2 else one_hot(known.y)
    fit_intercept = bool(known.intercept.any())
    return Reference(known.X, Y, known.weight, C=known.C, fit_intercept=fit_intercept)


@pytest.mark.parametrize("name", KNOWN)
def test_known_optimum_has_no_gradient(name):
    known = KNOWN[name]
    F = reference(known)
    g_coef, g_intercept = F.gradient(known.coef, known.intercept)
    assert_allclose(g_coef / np.abs(known.X).max(axis=0), 0, atol=1e-14)
    if F.fit_intercept:
        assert_allclose(g_intercept, 0, atol=1e-14)


@pytest.mark.parametrize("name", KNOWN)
def test_newton_finds_the_known_optimum(name):
    known = KNOWN[name]
    F = reference(known)
    coef, intercept, value = F.minimise()
    assert_allclose(value, F.value(known.coef, known.intercept), rtol=1e-13)
    assert F.distance((known.coef, known.intercept), (coef, intercept)) < 1e-13


@pytest.mark.parametrize("name", KNOWN)
def test_distance_is_the_gap(name, rng):
    known = KNOWN[name]
    F = reference(known)
    coef = known.coef * (1 + 0.1 * rng.standard_normal(known.coef.shape))
    gap = F.value(coef, known.intercept) - F.value(known.coef, known.intercept)
    best = known.coef, known.intercept
    assert_allclose(F.distance(best, (coef, known.intercept)), gap, rtol=1e-10)


def test_gradient_and_hessian_are_derivatives(rng):
    X, y = problems.overlapping(n_samples=40, raw=False)
    F = Reference(X, one_hot(y), rng.uniform(0.1, 2, len(y)), C=0.1)
    coef, intercept = rng.standard_normal((3, 4)), rng.standard_normal(3)
    dW, db, h = rng.standard_normal((3, 4)), rng.standard_normal(3), 1e-5
    ahead, behind = (coef + h * dW, intercept + h * db), (coef - h * dW, intercept - h * db)
    gW, gb = F.gradient(coef, intercept)
    slope = (F.value(*ahead) - F.value(*behind)) / (2 * h)
    assert_allclose(np.sum(gW * dW) + gb @ db, slope, rtol=1e-8)
    HW, Hb = F.hessian_product(coef, intercept, dW, db)
    for product, (a, b) in zip(
        (HW, Hb), zip(F.gradient(*ahead), F.gradient(*behind), strict=True), strict=True
    ):
        assert_allclose(product, (a - b) / (2 * h), rtol=1e-6, atol=1e-9)
    matrix = F.hessian(coef, intercept) @ np.column_stack([dW, db]).ravel()
    assert_allclose(matrix, np.column_stack([HW, Hb]).ravel(), rtol=1e-12, atol=1e-14)
