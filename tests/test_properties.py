"""Any parameters on any data: a clear error, or finite coefficients and probabilities."""

import re
import warnings

import numpy as np
import pytest
from core import SMOOTH
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

from skfc import SoftmaxFCClassifier
from skfc._parameters import PRECONDITIONERS

# What may be said about data that are valid but hostile; a message says what to do.
CLEAR = re.compile("rescale|at least two classes|learning_rate")

slowly = settings(
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)

parameters = st.fixed_dictionaries(
    {
        "C": st.sampled_from([1e-300, 1e-10, 1e-2, 1.0, 100.0, 1e10, 1e300, np.inf]),
        "fit_intercept": st.booleans(),
        "class_weight": st.sampled_from([None, "balanced", {0: 1e-8, 1: 1e8}]),
        "label_smoothing": st.sampled_from([0.0, 0.1, 0.99]),
        "preconditioner": st.sampled_from(PRECONDITIONERS),
        "learning_rate": st.sampled_from(["auto", 1e-3, 1.0, 1e3]),
        "momentum": st.sampled_from(["auto", 0.0, 0.99]),
        "max_iter": st.sampled_from([0, 1, 20]),
        "tol": st.sampled_from([0.0, 1e-6, 1e-2]),
    }
)


@st.composite
def columns(draw, y, rng, decades):
    """One column (n_samples,) of a kind, in a unit from 10**-decades to 10**decades."""
    n = len(y)
    kind = draw(st.sampled_from(["normal", "offset", "constant", "zero", "rare", "separable"]))
    column = {
        "normal": lambda: rng.standard_normal(n),
        "offset": lambda: 1e6 + rng.standard_normal(n),
        "constant": lambda: np.ones(n),
        "zero": lambda: np.zeros(n),
        "rare": lambda: (np.arange(n) == 0).astype(float),
        "separable": lambda: y + 0.1 * rng.random(n),
    }[kind]()
    exponent = draw(st.integers(-decades, decades)) if draw(st.booleans()) else 0
    return column * 10.0**exponent


@st.composite
def tables(draw, decades):
    """X, y: few rows, perhaps some of them twice, classes of one row, a column twice."""
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    n, n_classes = draw(st.integers(2, 25)), draw(st.integers(2, 4))
    shares = np.array([1.0, *[draw(st.sampled_from([1.0, 0.01]))] * (n_classes - 1)])
    y = rng.choice(n_classes, n, p=shares / shares.sum())
    y[:2] = 0, 1
    n_columns = draw(st.integers(1, 4))
    X = np.column_stack([draw(columns(y, rng, decades)) for _ in range(n_columns)])
    X = np.clip(X, -1e300, 1e300)
    if draw(st.booleans()):
        X = np.column_stack([X, X[:, 0]])
    if draw(st.booleans()):
        X[n // 2 :] = X[: n - n // 2]
    if draw(st.booleans()):  # beyond 1e36 scikit-learn's own check of X overflows
        X = np.clip(X, -1e36, 1e36).astype(np.float32)
    container = draw(st.sampled_from([np.ascontiguousarray, np.asfortranarray, sparse.csr_array]))
    return container(X), y


@st.composite
def weights(draw, n):
    kind = draw(st.sampled_from([None, 1e-200, 1e200, "spread"]))
    if kind == "spread":
        return 10.0 ** np.random.default_rng(0).integers(-100, 100, n)
    return kind and np.full(n, kind)


def fit(model, X, y, weight=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # any other is an error
        return model.fit(X, y, sample_weight=weight)


def assert_sound(model, X, y):
    assert np.isfinite(model.coef_).all()
    assert np.isfinite(model.intercept_).all()
    assert np.isfinite(model.loss_curve_).all()
    assert len(model.loss_curve_) == model.n_iter_ + 1 <= model.max_iter + 1
    assert model.coef_.dtype == X.dtype
    assert model.optimality_gap_ >= 0
    proba = model.predict_proba(X)
    assert (proba >= 0).all()
    assert_allclose(proba.sum(axis=1), 1, atol=1e-5)
    assert np.isfinite(model.predict_log_proba(X)).all()
    assert set(model.predict(X)) <= set(y)


@pytest.mark.parametrize("solver", SMOOTH)
@given(data=st.data(), parameters=parameters)
@settings(slowly, max_examples=250)
def test_a_clear_error_or_a_finite_answer(solver, data, parameters):
    X, y = data.draw(tables(300))
    weight = data.draw(weights(len(y)))
    model = SoftmaxFCClassifier(solver=solver, **parameters)
    try:
        fit(model, X, y, weight)
    except ValueError as error:
        assert type(error) is ValueError, "a LinAlgError is no answer"  # noqa: PT017
        assert CLEAR.search(str(error)), error  # noqa: PT017
    else:
        assert_sound(model, X, y)


@pytest.mark.parametrize("solver", SMOOTH)
@given(
    table=tables(12),
    C=st.sampled_from([1e-8, 1.0, 1e8, np.inf]),
    preconditioner=st.sampled_from(PRECONDITIONERS),
    fit_intercept=st.booleans(),
)
@settings(slowly, max_examples=150)
def test_always_an_answer_in_sane_units(solver, table, C, preconditioner, fit_intercept):
    X, y = table
    model = SoftmaxFCClassifier(
        solver=solver, C=C, preconditioner=preconditioner, fit_intercept=fit_intercept, max_iter=30
    )
    assert_sound(fit(model, X, y), X, y)
    assert model.loss_curve_[-1] <= model.loss_curve_[0] * (1 + 1e-6)
