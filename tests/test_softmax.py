"""The kernels on logits: two of them, one table of tests."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import log_softmax, softmax

from skfc._softmax import GENERIC, IN_PLACE, kernel

KERNELS = {"in place": IN_PLACE, "generic": GENERIC}
LOGITS = {
    "plain": lambda rng: rng.standard_normal((2, 4, 50)),
    "far apart": lambda rng: 300 * rng.standard_normal((2, 4, 50)),
    "huge": lambda rng: 1e4 * rng.choice([-1.0, 0.0, 1.0], (2, 4, 50)),
    "shifted": lambda rng: 1e3 + rng.standard_normal((1, 3, 50)),
    "ties": lambda rng: np.zeros((3, 5, 20)),
    "two classes": lambda rng: rng.standard_normal((1, 2, 30)),
}


@pytest.fixture(params=KERNELS)
def run(request):
    """Call a function of either kernel on NumPy arrays, and get NumPy arrays back."""
    table = KERNELS[request.param]
    if request.param == "generic":
        xp = pytest.importorskip("array_api_strict")
        assert kernel(xp) is table
    else:
        xp = np
        assert kernel(np) is table

    def call(name, *arrays):
        out = getattr(table, name)(*(xp.asarray(a.copy()) for a in arrays))
        as_numpy = [np.asarray(o) for o in (out if isinstance(out, tuple) else (out,))]
        return as_numpy if isinstance(out, tuple) else as_numpy[0]

    return call


@pytest.fixture(params=LOGITS)
def logits(request, rng):
    return LOGITS[request.param](rng)


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return request.param


def tolerance(dtype, *arrays):
    """Rounding of `dtype` at the size of what is added up."""
    size = max(np.abs(a).max() for a in arrays)
    return {"rtol": 20 * np.finfo(dtype).eps, "atol": 20 * np.finfo(dtype).eps * max(size, 1)}


def make_target(kind, n_classes, n_rows, rng):
    if kind == "labels":
        return rng.integers(0, n_classes, n_rows)
    return rng.dirichlet(np.ones(n_classes), n_rows).T


@pytest.mark.parametrize("kind", ["labels", "rows"])
def test_residual_is_loss_and_its_gradient(run, logits, dtype, kind, rng):
    logits = logits.astype(dtype)
    B, T, n = logits.shape
    weight = rng.integers(0, 3, (B, n)).astype(dtype)
    target = make_target(kind, T, n, rng)
    Y = np.eye(T)[:, target] if kind == "labels" else target
    target = target if kind == "labels" else target.astype(dtype)
    loss, residual = run("residual", logits, target, weight)

    exact = logits.astype(float)
    rows = -np.sum(Y * log_softmax(exact, axis=1), axis=1)
    assert loss.dtype == np.float64
    assert residual.dtype == dtype
    assert_allclose(loss, np.sum(weight * rows, axis=1), **tolerance(dtype, n * rows))
    expected = weight[:, None] * (softmax(exact, axis=1) - Y)
    assert_allclose(residual, expected, **tolerance(dtype, logits))


def test_probabilities(run, logits, dtype):
    logits = logits.astype(dtype)
    proba = run("probabilities", logits)
    assert proba.dtype == dtype
    expected = softmax(logits.astype(float), axis=1)
    assert_allclose(proba, expected, **tolerance(dtype, logits))
    assert_allclose(proba.sum(axis=1), 1, rtol=10 * np.finfo(dtype).eps)


def test_curvature_is_the_derivative_of_the_residual(run, logits, dtype, rng):
    B, T, n = logits.shape
    proba = softmax(logits, axis=1)
    direction = rng.standard_normal(logits.shape)
    weight = rng.integers(0, 3, (B, n)).astype(dtype)
    applied = run("curvature", proba.astype(dtype), direction.astype(dtype), weight)
    assert applied.dtype == dtype
    matrix = np.einsum("bkn,kl->bnkl", proba, np.eye(T)) - np.einsum("bkn,bln->bnkl", proba, proba)
    expected = weight[:, None] * np.einsum("bnkl,bln->bkn", matrix, direction)
    assert_allclose(applied, expected, **tolerance(dtype, direction))


def test_a_shift_of_the_logits_changes_nothing(run, rng):
    logits, weight = rng.standard_normal((2, 4, 30)), np.ones((2, 30))
    target = make_target("labels", 4, 30, rng)
    shift = 100 * rng.standard_normal((2, 1, 30))
    loss, residual = run("residual", logits, target, weight)
    shifted_loss, shifted = run("residual", logits + shift, target, weight)
    assert_allclose(shifted_loss, loss, rtol=1e-12)
    assert_allclose(shifted, residual, atol=1e-12)


def test_in_place_kernels_make_no_subnormal_numbers():
    """They slow matrix products down tenfold."""
    for dtype in (np.float32, np.float64):
        logits = np.linspace(0, -2000, 4001, dtype=dtype)
        logits = np.stack([np.zeros_like(logits), logits])[None]
        weight = np.full((1, 4001), 1e-3, dtype=dtype)
        target = np.zeros(4001, dtype=int)
        _, residual = IN_PLACE.residual(logits.copy(), target, weight)
        proba = IN_PLACE.probabilities(logits.copy())
        for values in (residual, proba):
            size = np.abs(values[values != 0])
            assert size.min() >= np.finfo(dtype).tiny


def test_kernels_need_no_warning_for_what_underflows():
    logits = np.array([[[-1e4], [1e4]]])
    with np.errstate(all="raise"):
        loss, residual = IN_PLACE.residual(logits.copy(), np.array([0]), np.ones((1, 1)))
        proba = IN_PLACE.probabilities(logits.copy())
    assert loss[0] == 2e4
    assert_allclose(residual.ravel(), [-1, 1], atol=1e-15)
    assert_allclose(proba.ravel(), [0, 1], atol=1e-15)
