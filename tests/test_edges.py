"""Data at the edges, bad input, and fits that fail half-way."""

import copy
import warnings

import numpy as np
import problems
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from reference import Reference, one_hot
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning, NotFittedError

from skfc import SoftmaxFCClassifier

TOL = 1e-8
METRICS = ["auto", "hessian", "kronecker", "diagonal"]


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
    model = fit(X, y, C=C, preconditioner=preconditioner)
    # The reference's own coordinates, so that it is not led astray.
    Z = (X - X.mean(axis=0)) / np.where(X.std(axis=0) > 0, X.std(axis=0), 1)
    got, best = value(model, X, y, C=C) if np.inf > C else (model.loss_curve_[-1], None)
    if best is None:
        best = Reference(Z, one_hot(y), C=C).minimise()[2]
    assert got <= best * (1 + 10 * TOL)
    assert_allclose(model.loss_curve_[-1], got, rtol=1e-10)
    assert model.optimality_gap_ <= TOL


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


# -- bad input --------------------------------------------------------------------------


def spoil(X, number):
    X = X.copy()
    X[3, 1] = number
    return X


BAD_DATA = {
    "NaN in X": (lambda X, y: (spoil(X, np.nan), y), "NaN"),
    "infinity in X": (lambda X, y: (spoil(X, np.inf), y), "infinity"),
    "NaN in CSR": (lambda X, y: (sparse.csr_array(spoil(X, np.nan)), y), "NaN"),
    "one class": (lambda X, y: (X, np.zeros_like(y)), "class"),
    "float y": (lambda X, y: (X, y + 0.5), "continuous|Unknown label type"),
    "NaN in y": (lambda X, y: (X, np.where(y == 0, np.nan, y)), "NaN"),
    "no rows": (lambda X, y: (X[:0], y[:0]), "sample"),
    "no columns": (lambda X, y: (X[:, :0], y), "feature"),
    "X of one axis": (lambda X, y: (X[:, 0], y), "1D|dim"),
    "X of three axes": (lambda X, y: (X[:, :, None], y), "dim"),
    "shapes disagree": (lambda X, y: (X, y[:-1]), "inconsistent"),
    "text in X": (lambda X, y: (np.full(X.shape, "a"), y), "string|convert"),
    "complex X": (lambda X, y: (X + 1j, y), "[Cc]omplex"),
    "y is None": (lambda X, y: (X, None), "y"),
    "y of three axes": (lambda X, y: (X, np.zeros((len(y), 2, 2))), "y|dim"),
    "rows do not sum to one": (lambda X, y: (X, np.full((len(y), 3), 0.5)), "sum to one"),
    "negative probability": (lambda X, y: (X, np.tile([1.5, -0.5, 0], (len(y), 1))), "negative"),
}
BAD_WEIGHTS = {
    "NaN": (lambda n: np.full(n, np.nan), "NaN"),
    "infinity": (lambda n: np.full(n, np.inf), "infinity"),
    "negative": (lambda n: np.append(np.ones(n - 1), -1.0), "negative"),
    "all zero": (np.zeros, "zero"),
    "too short": (lambda n: np.ones(n - 1), "sample_weight|inconsistent"),
    "two axes": (lambda n: np.ones((n, 1)), "sample_weight"),
    "text": (lambda n: ["a"] * n, "sample_weight|convert|string"),
    "only one class": (lambda n: np.append(np.ones(1), np.zeros(n - 1)), "class"),
}
BAD_PARAMETERS = [
    ("C", 0, ValueError), ("C", -1.0, ValueError), ("C", np.nan, ValueError),
    ("C", "1", TypeError), ("C", None, TypeError), ("C", True, TypeError),
    ("tol", -1e-3, ValueError), ("tol", np.nan, ValueError), ("tol", np.inf, ValueError),
    ("tol", None, TypeError), ("max_iter", -1, ValueError), ("max_iter", 10.5, TypeError),
    ("max_iter", "many", TypeError), ("fit_intercept", "no", TypeError),
    ("fit_intercept", 1, TypeError), ("warm_start", None, TypeError),
    ("solver", "newton", ValueError), ("solver", None, ValueError), ("solver", 3, ValueError),
    ("preconditioner", "jacobi", ValueError), ("preconditioner", 3, ValueError),
    ("class_weight", "even", ValueError), ("class_weight", [1, 2, 3], ValueError),
    ("class_weight", {"x": 1.0}, ValueError), ("class_weight", {0: -1.0}, ValueError),
    ("class_weight", {0: np.nan}, ValueError), ("class_weight", {0: "a"}, ValueError),
    ("verbose", -1, ValueError), ("verbose", "loud", ValueError),
    ("random_state", "seed", ValueError),
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data(data, name):
    spoiled, message = BAD_DATA[name]
    X, y = spoiled(*data)
    with pytest.raises((ValueError, TypeError), match=message):
        SoftmaxFCClassifier().fit(X, y)


@pytest.mark.parametrize("name", BAD_WEIGHTS)
def test_bad_weights(data, name):
    X, y = data
    make, message = BAD_WEIGHTS[name]
    with pytest.raises((ValueError, TypeError), match=message):
        SoftmaxFCClassifier().fit(X, y, sample_weight=make(len(y)))
    if name != "only one class":
        model = SoftmaxFCClassifier().fit(X, y)
        with pytest.raises((ValueError, TypeError), match=message):
            model.log_loss(X, y, sample_weight=make(len(y)))


@pytest.mark.parametrize(("name", "bad", "error"), BAD_PARAMETERS)
def test_bad_parameters_are_named_with_the_value_found(data, name, bad, error):
    with pytest.raises(error, match=name) as caught:
        SoftmaxFCClassifier(**{name: bad}).fit(*data)
    shown = bad if not isinstance(bad, dict | list) else next(iter(bad))
    assert str(shown) in str(caught.value)


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_parameters_come_before_bad_data(data, name):
    X, y = BAD_DATA[name][0](*data)
    with pytest.raises(ValueError, match="'C'"):
        SoftmaxFCClassifier(C=-1).fit(X, y)


def test_numpy_scalars_are_parameters(data):
    X, y = data
    model = SoftmaxFCClassifier(
        C=np.float32(1), tol=np.float64(1e-6), max_iter=np.int64(500),
        fit_intercept=np.bool_(True), verbose=np.int8(0), random_state=np.random.RandomState(0),
    ).fit(X, y)  # fmt: skip
    assert type(model.n_iter_) is int
    assert isinstance(model.optimality_gap_, float)


def test_methods_before_fit(data):
    X, y = data
    for method in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        with pytest.raises(NotFittedError):
            getattr(SoftmaxFCClassifier(), method)(X)
    for method in ("log_loss", "score"):
        with pytest.raises(NotFittedError):
            getattr(SoftmaxFCClassifier(), method)(X, y)


def test_bad_input_of_a_fitted_model(data):
    X, y = data
    model = SoftmaxFCClassifier().fit(X, y)
    for method in (model.predict, model.predict_proba, model.predict_log_proba):
        with pytest.raises(ValueError, match="features"):
            method(X[:, :2])
        with pytest.raises(ValueError, match="NaN"):
            method(spoil(X, np.nan))
        with pytest.raises(ValueError, match="sample"):
            method(X[:0])
    with pytest.raises(ValueError, match="outside"):
        model.log_loss(X, y + 1)
    with pytest.raises(ValueError, match="inconsistent|rows"):
        model.log_loss(X, y[:-1])


# -- fits that do not end well ----------------------------------------------------------


def state(model):
    return copy.deepcopy({k: v for k, v in vars(model).items() if k.endswith("_")})


def assert_state(model, before):
    after = state(model)
    assert after.keys() == before.keys()
    for name in before:
        assert_array_equal(after[name], before[name])


@pytest.mark.parametrize("name", BAD_DATA)
def test_a_failed_fit_leaves_the_earlier_one(data, name):
    X, y = data
    model = SoftmaxFCClassifier().fit(X, y)
    before, proba = state(model), model.predict_proba(X)
    with pytest.raises((ValueError, TypeError)):
        model.fit(*BAD_DATA[name][0](X[:, :3], y))
    assert_state(model, before)
    assert_array_equal(model.predict_proba(X), proba)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("calls", [0, 2])
def test_an_interrupted_fit_leaves_the_earlier_one(data, error, calls, monkeypatch):
    from skfc._objective import Objective

    X, y = data
    model = SoftmaxFCClassifier().fit(X, y)
    before, ray, seen = state(model), Objective.ray, []

    def interrupt(self, *args):
        seen.append(1)
        if len(seen) > calls:
            raise error
        return ray(self, *args)

    monkeypatch.setattr(Objective, "ray", interrupt)
    with pytest.raises(error):
        model.set_params(tol=1e-12).fit(X[:, :3], np.array(list("abc"))[y])
    monkeypatch.undo()
    assert_state(model, before)
    assert model.score(X, y) > 0.5


def test_a_first_fit_that_fails_leaves_nothing(data):
    X, y = data
    model = SoftmaxFCClassifier()
    with pytest.raises(ValueError, match="class"):
        model.fit(X, np.zeros_like(y))
    with pytest.raises(NotFittedError):
        model.predict(X)
    assert not state(model)


def test_a_warning_that_is_an_error_leaves_the_earlier_fit(data):
    X, y = data
    model = SoftmaxFCClassifier().fit(X, y)
    before = state(model)
    with pytest.raises(ConvergenceWarning):
        model.set_params(max_iter=1, tol=1e-12).fit(X[:, :2], y)
    assert_state(model, before)


@pytest.mark.parametrize("preconditioner", [*METRICS, None])
def test_max_iter_warns_once_with_the_gap(data, preconditioner):
    X, y = data
    with pytest.warns(ConvergenceWarning, match="max_iter=2") as caught:
        model = fit(X, y, max_iter=2, tol=1e-12, preconditioner=preconditioner)
    assert len(caught) == 1
    assert f"{model.optimality_gap_:.1e}" in str(caught[0].message)
    assert "1e-12" in str(caught[0].message)
    assert caught[0].filename == __file__


def test_raw_data_needs_no_warning_at_default_settings(data):
    """Warnings are errors here: scales of 0.01 … 1000, offsets of 5000."""
    X, y = data
    for C in (0.01, 1.0, 100.0, np.inf):
        model = SoftmaxFCClassifier(C=C).fit(X, y)
        assert model.optimality_gap_ <= 1e-6
