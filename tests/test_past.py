"""Past rows as quadratics: which matrices they are, entry by entry."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import sparse
from scipy.special import softmax

from skfc._past import (
    DiagonalCurvature,
    FullCurvature,
    KroneckerCurvature,
    Past,
    centred,
    choose_curvature,
)

KINDS = [FullCurvature, KroneckerCurvature, DiagonalCurvature]


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, 4)) * [1, 10, 0.1, 1]
    return x, softmax(rng.standard_normal((3, 30)), axis=0), rng.uniform(0.5, 2, 30)


def hessian(x, p, m):
    """Σ x xᵀ ⊗ m (diag p - p pᵀ) from its definition, (P, T, P, T)."""
    S = np.einsum("kn,kl->nkl", p, np.eye(len(p))) - np.einsum("kn,ln->nkl", p, p)
    return np.einsum("n,nj,ni,nkl->jkil", m, x, x, S)


def matrix(curvature, P=4, T=3):
    """The matrix of `times`, (P, T, P, T)."""
    units = np.eye(P * T).reshape(P * T, P, T)
    return np.array([curvature.times(V) for V in units]).reshape(P, T, P, T)


def test_full(rows):
    curvature = FullCurvature.zero(4, 3).plus(*rows)
    assert_allclose(matrix(curvature), hessian(*rows), rtol=1e-10, atol=1e-12)


def test_diagonal(rows):
    H = hessian(*rows)
    expected = np.einsum("jkjk->jk", H)
    curvature = DiagonalCurvature.zero(4, 3).plus(*rows)
    assert_allclose(curvature.times(np.ones((4, 3))), expected)
    x, p, m = rows
    curvature = DiagonalCurvature.zero(4, 3).plus(sparse.csr_array(x), p, m)
    assert_allclose(curvature.times(np.ones((4, 3))), expected)


def test_kronecker_is_exact_where_rows_have_one_probability(rows):
    x, p, m = rows
    p = np.repeat(p[:, :1], 30, axis=1)
    curvature = KroneckerCurvature.zero(4, 3).plus(x, p, m)
    assert_allclose(matrix(curvature), hessian(x, p, m), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_sums_and_more_classes(rows, kind):
    x, p, m = rows
    parts = kind.zero(4, 3).plus(x[:10], p[:, :10], m[:10]).plus(x[10:], p[:, 10:], m[10:])
    whole = kind.zero(4, 3).plus(*rows)
    assert_allclose(matrix(parts), matrix(whole), rtol=1e-10, atol=1e-12)
    place = np.array([0, 2, 4])
    wide = matrix(whole.widened(place, 5), 4, 5)
    assert_allclose(wide[np.ix_(range(4), place, range(4), place)], matrix(whole), atol=1e-12)
    others = np.delete(wide, place, axis=1)
    assert not others.any()


@pytest.mark.parametrize("kind", KINDS)
def test_inverses_are_symmetric_and_positive(rows, kind, rng):
    x, p, m = rows
    ridge, free = np.array([0.5, 0.5, 0.5, 0.0]), np.array([True, True, False, True])
    inverse = kind.zero(4, 3).plus(*rows).inverse(x, p, m, ridge, free)
    A, B = centred(rng.standard_normal((2, 4, 3)).reshape(8, 3)).reshape(2, 4, 3)
    assert_allclose((A * inverse(B)).sum(), (inverse(A) * B).sum(), rtol=1e-8)
    assert (A * inverse(A)).sum() > 0
    assert not inverse(A)[2].any()  # a feature that is not free stays
    assert_allclose(inverse(A).sum(axis=1), 0, atol=1e-12)


def test_the_inverse_for_two_classes_of_equal_rows_is_exact(rng):
    """With p = 1/2 in all rows the blocks are the Hessian of steps that sum to zero, halved."""
    x, p, m = rng.standard_normal((30, 4)), np.full((2, 30), 0.5), np.ones(30)
    none = FullCurvature.zero(4, 2)
    inverse = none.inverse(x, p, m, np.zeros(4), np.ones(4, dtype=bool))
    V = centred(rng.standard_normal((4, 2)))
    product = none.plus(x, p, m).times(V)
    assert_allclose(inverse(product), 2 * V, rtol=1e-6)


def test_the_form_goes_by_size():
    assert choose_curvature(20, 10) is FullCurvature
    assert choose_curvature(800, 10) is KroneckerCurvature
    assert choose_curvature(100_000, 10) is DiagonalCurvature


# -- in the place of a penalty --------------------------------------------------------------------


@pytest.fixture
def past(rows, rng):
    gradient, there = rng.standard_normal((2, 4, 3))
    curvature = FullCurvature.zero(4, 3).plus(*rows)
    return Past(1.5, gradient, curvature, there, np.array([0.5, 2.0, 0.1, 1.0]))


def test_the_past_is_its_expansion(past, rng):
    """Where it was expanded, value and gradient are those that are known; then differences."""
    value, gradient = past.of_rows(past.there)
    assert value == 1.5
    assert_allclose(gradient, past.gradient)
    theta, V = rng.standard_normal((2, 4, 3))
    h = 1e-6
    slope = (past.value(theta + h * V) - past.value(theta - h * V))[0] / (2 * h)
    out = np.ones((4, 3))
    past.add_gradient(out, theta)
    assert_allclose(((out - 1) * V).sum(), slope, rtol=1e-6)
    assert_allclose(past.of_rows(theta)[1] + past.ridge[:, None] * theta, out - 1)
    for t in (0.0, 1.0, -2.0):
        a, b, c = (float(term[0]) for term in past.along(theta, V))
        assert_allclose(a + t * b + t**2 * c / 2, past.value(theta + t * V)[0])
    curved, ridge = np.zeros((4, 3)), past.ridge[:, None] * V
    past.quadratic.add_gradient(curved, V)
    assert_allclose(curved, past.curvature.times(V) + ridge)


def test_its_bound_is_one(past, rng):
    """<g, H⁻¹ g> / 2 with all of the curvature is less than with the ridge alone."""
    g = centred(rng.standard_normal((4, 3)))
    units = np.eye(12).reshape(12, 4, 3)
    H = np.array([past.curvature.times(V) + past.ridge[:, None] * V for V in units])
    exact = 0.5 * g.ravel() @ np.linalg.solve(H.reshape(12, 12), g.ravel())
    assert exact < past.conjugate(g)[0] < 0.5 * (g**2).sum() / past.ridge.min()
    assert past.strict.all()
