"""`standardize=True`: the penalty is on coefficients in units of standard deviations."""

import numpy as np
import problems
import pytest
from numpy.testing import assert_allclose
from reference import assert_same_model
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from skfc import SoftmaxFCClassifier, SoftmaxFCClassifierCV

TOL = 1e-12
N, n = 4, 150
UNITS = [np.array([1e-6, 1e6, 1.0, 1e3]), np.array([1e6, 1e-3, 1e-6, 1e-6]), np.full(N, 1e-6)]
HOLD = {"dense": np.asarray, "sparse": sparse.csr_array}
CS = [1e-3, 1.0, 1e3]


@pytest.fixture(params=HOLD)
def hold(request):
    return HOLD[request.param]


@pytest.fixture
def data(rng):
    """Rows with zeros, of which none are constant, and classes that overlap."""
    X, y = problems.overlapping(n_samples=n, n_features=N, raw=False)
    X[rng.random(X.shape) < 0.3] = 0
    X[:, 2] += 2.0
    return X, y


def fit(X, y, sample_weight=None, **options):
    options = {"standardize": True, "tol": TOL, **options}
    return SoftmaxFCClassifier(**options).fit(X, y, sample_weight=sample_weight)


@pytest.mark.parametrize("units", UNITS, ids=["mixed", "other", "small"])
@pytest.mark.parametrize("C", CS)
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_units_change_no_probability(data, hold, C, units, fit_intercept):
    X, y = data
    plain = fit(hold(X), y, C=C, fit_intercept=fit_intercept)
    other = fit(hold(X * units), y, C=C, fit_intercept=fit_intercept)
    found = other.predict_proba(hold(X * units))
    assert_allclose(found, plain.predict_proba(hold(X)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("preconditioner", ["hessian", "block-diagonal", "kronecker", "diagonal"])
@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg"])
def test_units_change_no_probability_in_any_preconditioner(data, hold, solver, preconditioner):
    X, y = data
    options = {"solver": solver, "preconditioner": preconditioner}
    plain, other = (fit(hold(X * u), y, **options) for u in (np.ones(N), UNITS[0]))
    found = other.predict_proba(hold(X * UNITS[0]))
    assert_allclose(found, plain.predict_proba(hold(X)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("units", UNITS, ids=["mixed", "other", "small"])
def test_units_change_no_fold_of_a_search(data, hold, units):
    X, y = data
    searches = []
    for u in (np.ones(N), units):
        search = SoftmaxFCClassifierCV(Cs=CS, cv=3, standardize=True, tol=TOL)
        searches.append(search.fit(hold(X * u), y))
    plain, other = searches
    assert other.C_ == plain.C_
    assert_allclose(other.scores_, plain.scores_, rtol=1e-6)
    logits = [
        np.einsum("fctj,nj->fcnt", s.coefs_paths_, X * u) + s.intercepts_paths_[:, :, None]
        for s, u in zip(searches, (np.ones(N), units), strict=True)
    ]
    proba = [np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True) for z in logits]
    assert_allclose(proba[1], proba[0], rtol=0, atol=1e-6)
    found = other.predict_proba(hold(X * units))
    assert_allclose(found, plain.predict_proba(hold(X)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("C", CS)
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_a_standard_scaler_before_the_plain_fit(data, hold, C, fit_intercept, weighted, rng):
    """With its coefficients in the units of X: to the square root of tol."""
    X, y = data
    X = X * UNITS[0]
    weight = rng.integers(0, 4, n).astype(float) if weighted else None
    scaler = StandardScaler().fit(X, sample_weight=weight)
    if not fit_intercept:
        scaler.mean_ = np.zeros(N)  # scaled, not centred
    model = fit(hold(X), y, weight, C=C, fit_intercept=fit_intercept)
    plain = fit(
        scaler.transform(X), y, weight, C=C, fit_intercept=fit_intercept, standardize=False
    )
    coef = plain.coef_ / scaler.scale_
    size = np.abs(plain.coef_).max()
    assert_allclose(model.coef_ * scaler.scale_, plain.coef_, atol=np.sqrt(TOL) * size)
    intercept = plain.intercept_ - coef @ scaler.mean_
    assert_allclose(model.intercept_, intercept, rtol=np.sqrt(TOL), atol=np.sqrt(TOL) * size)
    assert_allclose(model.loss_curve_[-1], plain.loss_curve_[-1], rtol=10 * TOL)


def test_it_is_what_logistic_regression_finds_behind_a_scaler(data):
    X, y = data
    scaler = StandardScaler().fit(X)
    peer = LogisticRegression(C=0.5, tol=1e-10, max_iter=10_000).fit(scaler.transform(X), y)
    found = fit(X, y, C=0.5).predict_proba(X)
    assert_allclose(found, peer.predict_proba(scaler.transform(X)), atol=1e-6)


def test_weights_are_repeated_rows(data, hold, rng):
    X, y = data
    weight = rng.integers(0, 4, n)
    repeated = np.repeat(np.arange(n), weight)
    a = fit(hold(X), y, weight.astype(float))
    b = fit(hold(X[repeated]), y[repeated])
    assert_same_model(a, b, hold(X), tol=TOL)


@pytest.mark.parametrize("class_weight", ["balanced", {0: 5.0, 1: 1.0, 2: 0.2}])
def test_class_weights_change_no_standard_deviation(data, hold, class_weight, rng):
    """They are those of the rows: sample weights count, class weights do not."""
    X, y = data
    keep = (y > 0) | (np.arange(n) % 4 == 0)  # classes of different sizes
    X, y = X[keep] * UNITS[0], y[keep]
    weight = rng.uniform(0.1, 2, len(y))
    scaler = StandardScaler().fit(X, sample_weight=weight)
    model = fit(hold(X), y, weight, class_weight=class_weight)
    Z = scaler.transform(X)
    plain = fit(Z, y, weight, class_weight=class_weight, standardize=False)
    size = np.abs(plain.coef_).max()
    assert_allclose(model.coef_ * scaler.scale_, plain.coef_, atol=np.sqrt(TOL) * size)
    assert_allclose(model.predict_proba(hold(X)), plain.predict_proba(Z), atol=1e-6)


@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_folds_have_the_deviations_of_their_training_rows(data, hold, class_weight, rng):
    X, y = data
    weight = rng.uniform(0.1, 2, n)
    test = np.arange(n) % 3 == 1
    train = np.flatnonzero(~test)
    # Two fits are apart by the errors of both: each ends well within what they may differ.
    options = {"standardize": True, "tol": TOL / 100, "class_weight": class_weight}
    splits = [(train, np.flatnonzero(test)), (np.arange(n // 2), np.arange(n // 2, n))]
    search = SoftmaxFCClassifierCV(Cs=[0.3], cv=splits, **options)
    search.fit(hold(X * UNITS[0]), y, sample_weight=weight)
    for k, (rows, _) in enumerate(splits):
        alone = fit(hold((X * UNITS[0])[rows]), y[rows], weight[rows], C=0.3,
                    class_weight=class_weight, tol=TOL / 100)  # fmt: skip
        size = np.abs(alone.coef_ * UNITS[0]).max()
        assert_allclose(search.coefs_paths_[k, 0] * UNITS[0], alone.coef_ * UNITS[0],
                        atol=np.sqrt(TOL) * size)  # fmt: skip
    refit = fit(hold(X * UNITS[0]), y, weight, C=0.3, class_weight=class_weight)
    assert_same_model(search, refit, hold(X * UNITS[0]), tol=TOL)


@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg"])
@pytest.mark.parametrize("preconditioner", ["hessian", "block-diagonal", "kronecker", "diagonal"])
def test_constant_columns_say_nothing(data, hold, solver, preconditioner):
    X, y = data
    options = {"solver": solver, "preconditioner": preconditioner}
    wider = np.column_stack([X[:, :2], np.full(n, 7.0), X[:, 2:], np.zeros(n)])
    a, b = fit(hold(X), y, **options), fit(hold(wider), y, **options)
    assert not b.coef_[:, [2, 5]].any()
    assert_same_model(b, a_on(a, b), hold(wider), tol=TOL)
    assert b.n_iter_ <= a.n_iter_ + 1


def a_on(narrow, wide):
    """A fit to fewer columns as one of all of them."""
    out = SoftmaxFCClassifier(**wide.get_params())
    out.coef_ = np.insert(np.insert(narrow.coef_, 2, 0.0, axis=1), 5, 0.0, axis=1)
    out.intercept_, out.classes_ = narrow.intercept_, narrow.classes_
    out.n_features_in_ = wide.n_features_in_
    return out


def test_more_features_than_rows_with_constant_columns(hold, rng):
    """A penalty of nothing there would spoil the units of all others."""
    X, y = rng.standard_normal((20, 60)), np.arange(20) % 3
    X[:, ::7] = 1.0
    a = fit(hold(X), y, preconditioner="kronecker")
    b = fit(hold(X * 10.0 ** rng.uniform(-6, 6, 60)), y, preconditioner="kronecker")
    scaler = StandardScaler().fit(X)
    plain = fit(scaler.transform(X), y, standardize=False)
    assert_allclose(a.coef_ * scaler.scale_, plain.coef_, atol=1e-6)
    assert_allclose(a.loss_curve_[-1], b.loss_curve_[-1], rtol=10 * TOL)


@pytest.mark.parametrize("shift", [1e3, 1e6, 1e9])
def test_columns_far_from_zero(data, hold, shift):
    """As far as X itself keeps its digits: 16 less those of the distance."""
    X, y = data
    far = X.copy()
    far[:, 1] += shift
    exact = fit(far - [0.0, shift, 0.0, 0.0], y)  # X as it was rounded
    tol = TOL + 1e-16 * shift
    found = fit(hold(far), y, tol=tol)
    distance = np.abs(found.predict_proba(hold(far)) - exact.predict_proba(X)).sum(axis=1)
    assert np.sqrt(np.mean(distance**2)) <= 2 * np.sqrt(2 * 10 * tol)


def test_warm_start(data, hold):
    X, y = data
    model = fit(hold(X * UNITS[0]), y, warm_start=True)
    value = model.loss_curve_[-1]
    model.fit(hold(X * UNITS[0]), y)
    assert model.n_iter_ == 0
    assert_allclose(model.loss_curve_, value, rtol=1e-12)


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("preconditioner", ["auto", "diagonal"])
def test_values_that_are_stored_twice_are_their_sum(data, standardize, preconditioner):
    X, y = data
    A = sparse.csr_array(X)
    parts = np.stack([0.75 * A.data, 0.25 * A.data], axis=1).ravel()
    twice = sparse.csr_array((parts, np.repeat(A.indices, 2), 2 * A.indptr), shape=A.shape)
    model = SoftmaxFCClassifier(standardize=standardize, preconditioner=preconditioner, tol=TOL)
    expected = model.fit(A, y).coef_
    assert_allclose(model.fit(twice, y).coef_, expected, rtol=1e-12)
    assert twice.nnz == len(parts)  # that of the caller stays as it is
