"""Data at the edges: degenerate columns, separation, extreme sizes, kinds of numbers."""

import warnings

import numpy as np
import problems
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from reference import Reference, one_hot
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning

from skfc import SoftmaxFCClassifier

TOL = 1e-8
METRICS = ["auto", "hessian", "block-diagonal", "kronecker", "diagonal"]


def fit(X, y, weight=None, **options):
    return SoftmaxFCClassifier(**{"tol": TOL, **options}).fit(X, y, sample_weight=weight)


def value(model, X, y, **options):
    """The mean objective of a fit, and at the minimum by the reference."""
    F = Reference(X, one_hot(y), **options)
    return F.value(model.coef_, model.intercept_), F.minimise()[2]


@pytest.fixture(scope="module")
def data():
    return problems.overlapping()


# -- degenerate columns -----------------------------------------------------------------

COLUMNS = {
    "constant": lambda X: np.column_stack([X, np.full(len(X), 7.7)]),
    "large constant": lambda X: np.column_stack([X, np.full(len(X), 1e9 / 7)]),
    "zero": lambda X: np.column_stack([X, np.zeros(len(X))]),
    "all constant": lambda X: np.full((len(X), 2), 7.7),
    "duplicated": lambda X: np.column_stack([X, X]),
    "collinear": lambda X: np.column_stack([X, X @ np.arange(1, X.shape[1] + 1)]),
    "one row differs": lambda X: np.column_stack([X, np.arange(len(X)) == 5]),
    "one-hot, over-complete": lambda X: np.column_stack([X, np.eye(3)[np.arange(len(X)) % 3]]),
    "nearly constant": lambda X: np.column_stack([X, 1 + 1e-9 * np.arange(len(X))]),
}


@pytest.mark.parametrize("C", [1.0, np.inf])
@pytest.mark.parametrize("kind", COLUMNS)
@pytest.mark.parametrize("preconditioner", METRICS)
def test_degenerate_columns(data, preconditioner, kind, C):
    X, y = data
    X = COLUMNS[kind](X)
    if kind == "one row differs" and np.inf == C:
        y = np.where(X[:, -1] == 1, (y + 1) % 3, y)
    apart = kind == "one row differs" and np.inf == C  # nothing bounds that row's coefficient
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = fit(X, y, C=C, preconditioner=preconditioner)
    # Said, unless the loss of that row is below tol before its coefficient is seen to grow.
    said = [str(warning.message) for warning in caught]
    assert all(apart and "quasi-separable" in text for text in said)
    assert said or model.optimality_gap_ <= TOL
    # The reference's own coordinates, so that it is not led astray.
    Z = (X - X.mean(axis=0)) / np.where(X.std(axis=0) > 0, X.std(axis=0), 1)
    got, best = value(model, X, y, C=C) if np.inf > C else (model.loss_curve_[-1], None)
    if best is None:
        best = Reference(Z, one_hot(y), C=C).minimise()[2]
    assert got <= best * (1 + 10 * TOL)
    assert_allclose(model.loss_curve_[-1], got, rtol=1e-10)


@pytest.mark.parametrize("C", [1.0, np.inf])
@pytest.mark.parametrize("number", [7.7, 1e6 / 3])
def test_a_constant_column_changes_nothing(data, number, C):
    """In float32 too, where a mean is rounded; sparse, where it is not centred."""
    X, y = data
    wider = np.column_stack([X, np.full(len(X), number)])
    plain = fit(X, y, C=C)
    assert_allclose(fit(wider, y, C=C).loss_curve_[-1], plain.loss_curve_[-1], rtol=10 * TOL)
    model = fit(sparse.csr_array(wider), y, C=C)
    assert_allclose(model.loss_curve_[-1], plain.loss_curve_[-1], rtol=10 * TOL)
    model = fit(wider.astype(np.float32), y, C=C, tol=1e-6)
    F = Reference(X.astype(np.float32), one_hot(y), C=C)
    logits = model.predict_log_proba(wider.astype(np.float32)).astype(float)
    assert -np.mean(logits[np.arange(len(y)), y]) <= F.minimise()[2] * (1 + 1e-4)


@pytest.mark.parametrize("preconditioner", METRICS)
def test_more_features_than_rows(preconditioner):
    X, y = problems.overlapping(25, 200, 4)
    model = fit(X, y, preconditioner=preconditioner)
    # Of the rows' span, which holds the optimum: an orthonormal basis loses nothing.
    basis = np.linalg.svd(X, full_matrices=False)[2]
    best = Reference(X @ basis.T, one_hot(y)).minimise()[2]
    got = Reference(X, one_hot(y)).value(model.coef_, model.intercept_)
    assert got <= best * (1 + 10 * TOL)


def test_many_classes_some_of_one_row():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((320, 3)) * [1, 100, 0.01]
    y = np.concatenate([np.arange(150), rng.integers(0, 20, 170)])
    model = fit(X, y, tol=1e-12)
    assert model.coef_.shape == (150, 3)
    F = Reference(X, one_hot(y))
    g_coef, g_intercept = F.gradient(model.coef_, model.intercept_)
    # Duality: F - F* <= ‖∇F‖² / (2 λ), with the intercept at its optimum.
    assert np.abs(g_intercept).max() <= 1e-6
    best = F.value(model.coef_, model.intercept_)
    assert np.sum(g_coef**2) / (2 * F.l2) <= 1e-6 * best


def test_one_row_per_class():
    X = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    model = fit(X, [0, 1, 2])
    got, best = value(model, X, np.arange(3))
    assert got <= best * (1 + 10 * TOL)
    two = fit([[0.0], [1.0]], [0, 1])
    got, best = value(two, [[0.0], [1.0]], np.arange(2))
    assert got <= best * (1 + 10 * TOL)


# -- separation -------------------------------------------------------------------------


@pytest.mark.parametrize("preconditioner", METRICS)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_separable_classes_without_penalty(preconditioner, scale):
    X, y = problems.separable()
    with pytest.warns(ConvergenceWarning, match="separable") as caught:
        model = fit(X * scale, y, C=np.inf, preconditioner=preconditioner)
    assert len(caught) == 1
    assert model.score(X * scale, y) == 1
    assert np.isfinite(model.coef_).all()
    assert model.n_iter_ < 200


def test_separable_with_two_classes_float32_and_csr():
    X, y = problems.separable(n_classes=2)
    for A in (X, X.astype(np.float32), sparse.csr_array(X)):
        with pytest.warns(ConvergenceWarning, match="separable"):
            model = fit(A, y, C=np.inf)
        assert model.score(A, y) == 1


def test_a_finite_penalty_makes_separable_classes_fine():
    X, y = problems.separable()
    for C in (1.0, 1e6):
        model = fit(X, y, C=C)
        got, best = value(model, X, y, C=C)
        assert got <= best * (1 + 10 * TOL)


def test_a_class_that_alone_is_separable():
    """Quasi-separation: the others overlap, so the loss has a positive infimum."""
    X, y = problems.overlapping(raw=False)
    X, y = np.vstack([X, 100 + np.eye(4)]), np.append(y, [3] * 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = fit(X, y, C=np.inf)
    plain = fit(X[:-4], y[:-4], C=np.inf)
    assert np.isfinite(model.coef_).all()
    infimum = plain.loss_curve_[-1] * (len(y) - 4) / len(y)
    assert model.log_loss(X, y) <= infimum * (1 + 1e-4)


# -- sizes of numbers -------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e150, 1e100, 1e-100, 1e-150])
@pytest.mark.parametrize("C", [1.0, np.inf])
@pytest.mark.parametrize("preconditioner", METRICS)
def test_features_of_extreme_size(preconditioner, C, scale):
    """An answer that is right, or an error that tells what to do; never NaN."""
    X, y = problems.overlapping(raw=False)
    try:
        model = fit(scale * X, y, C=C, preconditioner=preconditioner)
    except ValueError as error:
        assert "rescale" in str(error)  # noqa: PT017
        return
    plain = fit(X, y, C=C * scale**2)
    assert np.isfinite(model.coef_).all()
    assert_allclose(model.loss_curve_[-1], plain.loss_curve_[-1], rtol=20 * TOL)


@pytest.mark.parametrize("scale", [1e30, 1e-30])
@pytest.mark.parametrize("C", [1.0, np.inf])
def test_float32_features_of_extreme_size(C, scale):
    X, y = problems.overlapping(raw=False)
    X32 = (X * scale).astype(np.float32)
    try:
        model = fit(X32, y, C=C, tol=1e-5)
    except ValueError as error:
        assert "rescale" in str(error)  # noqa: PT017
        return
    assert np.isfinite(model.coef_).all()
    plain = fit(X, y, C=C * scale**2)
    assert_allclose(model.loss_curve_[-1], plain.loss_curve_[-1], rtol=1e-3)


def test_one_huge_column_beside_small_ones(data):
    X, y = data
    X = np.column_stack([X[:, :2], 1e100 * X[:, 2], 1e-100 * X[:, 3]])
    try:
        model = fit(X, y)
    except ValueError as error:
        assert "rescale" in str(error)  # noqa: PT017
        return
    assert np.isfinite(model.coef_).all()
    assert np.isfinite(model.predict_proba(X)).all()


def test_overflow_at_prediction_is_never_nan(data):
    X, y = problems.overlapping(raw=False)
    model = fit(X, y)
    for scale in (1e200, 1e307):
        try:
            proba = model.predict_proba(scale * X)
        except ValueError:
            continue
        assert np.isfinite(proba).all()


@pytest.mark.parametrize("C", [1e-10, 1e10, 1e-300, 1e300])
def test_extreme_penalties(data, C):
    X, y = data
    model = fit(X, y, C=C)
    assert np.isfinite(model.coef_).all()
    assert np.isfinite(model.loss_curve_).all()
    limit = fit(X, y, C=np.inf) if C > 1 else None
    if limit is not None:
        assert_allclose(model.log_loss(X, y), limit.log_loss(X, y), rtol=1e-6)
    elif C == 1e-300:
        null = np.bincount(y) / len(y)
        assert_allclose(model.predict_proba(X), np.tile(null, (len(y), 1)), rtol=1e-4)


# -- kinds of input ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "convert",
    [
        lambda X: X.astype(np.float16),
        lambda X: X.astype(np.int8),
        lambda X: X.astype(np.uint16),
        lambda X: X.astype(object),
        lambda X: X.astype(np.longdouble),
        lambda X: X > 2,
        lambda X: [[float(v) for v in row] for row in X],
        lambda X: sparse.csr_array(X.astype(np.int64)),
        lambda X: sparse.csr_array(X > 2),
    ],
    ids=[
        "float16",
        "int8",
        "uint16",
        "object",
        "longdouble",
        "bool",
        "list",
        "csr int",
        "csr bool",
    ],
)
def test_numbers_of_every_kind(convert, rng):
    X = rng.integers(0, 6, (200, 4)).astype(float)
    y = rng.integers(0, 3, 200)
    given = convert(X)
    plain = given.toarray() if sparse.issparse(given) else np.array(given)
    model, expected = fit(given, y), fit(plain.astype(float), y)
    assert model.coef_.dtype == np.float64
    assert_allclose(model.coef_, expected.coef_, atol=1e-12)
    assert_array_equal(model.predict(given), expected.predict(plain.astype(float)))


def test_a_column_of_labels_is_ravelled(data):
    X, y = data
    with pytest.warns(DataConversionWarning):
        model = fit(X, y[:, None])
    assert_array_equal(model.coef_, fit(X, y).coef_)
