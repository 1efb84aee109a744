"""Bad input, and fits that do not end well."""

import copy

import numpy as np
import problems
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from skfc import SoftmaxFCClassifier

TOL = 1e-8
METRICS = ["auto", "hessian", "block-diagonal", "kronecker", "diagonal"]


def fit(X, y, weight=None, **options):
    return SoftmaxFCClassifier(**{"tol": TOL, **options}).fit(X, y, sample_weight=weight)


@pytest.fixture(scope="module")
def data():
    return problems.overlapping()


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
    "text in X": (lambda X, y: (np.full(X.shape, "a"), y), "X holds text"),
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
    "text objects": (lambda n: np.array(["a"] * n, dtype=object), "sample_weight must hold real"),
    "None": (lambda n: [1.0] * (n - 1) + [None], "sample_weight contains NaN"),
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
    with pytest.raises(ValueError, match=r"inconsistent|rows"):
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
    before, line, seen = state(model), Objective.line, []

    def interrupt(self, *args, **options):
        seen.append(1)
        if len(seen) > calls:
            raise error
        return line(self, *args, **options)

    monkeypatch.setattr(Objective, "line", interrupt)
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


def test_a_hessian_that_is_too_large_is_refused():
    X = sparse.random(4000, 3000, density=0.01, format="csr", random_state=0)
    y = np.arange(4000) % 2
    with pytest.raises(ValueError, match="newton-cg"):
        SoftmaxFCClassifier(solver="newton-cholesky").fit(X, y)
