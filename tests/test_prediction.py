"""Predictions in blocks of rows: the same answers, in bounded memory, in agreement."""

import pickle
import tracemalloc
from itertools import pairwise

import numpy as np
import problems
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from scipy.special import log_softmax
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import check_classifiers_train

from skfc import SoftmaxFCClassifier, SoftmaxFCClassifierCV, _prediction, neg_log_loss_scorer

METHODS = ["decision_function", "predict", "predict_proba", "predict_log_proba"]


def model_of(coef, intercept=None):
    """A fitted estimator with these coefficients."""
    model = SoftmaxFCClassifier()
    model.coef_, model.classes_ = coef, np.arange(len(coef))
    model.intercept_ = np.zeros(len(coef), coef.dtype) if intercept is None else intercept
    model.n_features_in_ = coef.shape[1]
    return model


@pytest.mark.parametrize("n_classes", [2, 3, 50])
@pytest.mark.parametrize("kind", ["dense", "F order", "float32", "csr"])
def test_blocks_change_nothing(monkeypatch, rng, n_classes, kind):
    X = rng.standard_normal((500, 6))
    y, weight = rng.integers(0, n_classes, 500), rng.uniform(0, 2, 500)
    X = {
        "dense": X, "F order": np.asfortranarray(X), "float32": X.astype(np.float32),
        "csr": sparse.csr_array(X * (X > 0)),
    }[kind]  # fmt: skip
    model = model_of(rng.standard_normal((n_classes, 6)), rng.standard_normal(n_classes))
    rows = np.eye(n_classes)[y]
    targets = y, rows, 0.9 * rows + 0.1 / n_classes
    whole = {name: getattr(model, name)(X) for name in METHODS}
    losses = [
        model.log_loss(X, target, weight) for target in (y, rows, 0.9 * rows + 0.1 / n_classes)
    ]
    scores = model.score(X, rows, weight), neg_log_loss_scorer(model, X, y, weight)
    monkeypatch.setattr(_prediction, "BLOCK_BYTES", 1)
    assert len(_prediction.row_blocks(500, n_classes)) > 30
    near = 1e-5 if kind == "float32" else 1e-12
    for name in METHODS:
        found = getattr(model, name)(X)
        assert found.dtype == whole[name].dtype
        assert_allclose(found, whole[name], rtol=near, atol=near)
    assert_allclose([model.log_loss(X, t, weight) for t in targets], losses, rtol=near)
    assert_allclose(
        (model.score(X, rows, weight), neg_log_loss_scorer(model, X, y, weight)), scores, rtol=near
    )


def test_blocks_cover_the_rows_in_order():
    for n_rows in (1, 15, 16, 17, 10**6):
        for n_classes in (2, 10**3, 10**6):
            blocks = _prediction.row_blocks(n_rows, n_classes)
            assert blocks[0].start == 0
            assert blocks[-1].stop == n_rows
            assert all(a.stop == b.start for a, b in pairwise(blocks))


@pytest.mark.parametrize("kind", ["dense", "csr"])
def test_memory_beside_the_result_is_bounded(rng, kind):
    """Ten blocks' worth at most, where all logits together are fifty."""
    n_classes = 400
    n_rows = 50 * _prediction.BLOCK_BYTES // (8 * n_classes)
    X = rng.standard_normal((n_rows, 4))
    X = sparse.csr_array(X) if kind == "csr" else X
    y = np.arange(n_rows) % n_classes
    model = model_of(rng.standard_normal((n_classes, 4)))
    whole = 8 * n_classes * n_rows
    calls = {name: (lambda name=name: getattr(model, name)(X)) for name in METHODS}
    calls["log_loss"] = lambda: model.log_loss(X, y)
    calls["score"] = lambda: model.score(X, y)
    for name, call in calls.items():
        tracemalloc.start()
        call()
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        result = whole if name in ("decision_function", METHODS[2], METHODS[3]) else 0
        assert used <= result + 10 * _prediction.BLOCK_BYTES, name


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_labels_probabilities_and_their_logarithms_agree(rng, dtype):
    """Logits from all alike to far apart; the logarithm of one is zero, small ones are exact."""
    logits = (rng.standard_normal((3000, 4)) * np.logspace(-3, 3, 3000)[:, None]).astype(dtype)
    model = model_of(np.eye(4, dtype=dtype))
    proba, log_proba = model.predict_proba(logits), model.predict_log_proba(logits)
    exact = log_softmax(logits.astype(np.float64), axis=1)
    eps = np.finfo(dtype).eps
    assert_array_equal(proba.argmax(axis=1), model.predict(logits))
    assert_array_equal(log_proba.argmax(axis=1), model.predict(logits))
    assert ((proba == 1) == (log_proba == 0)).all()
    assert (proba == 1).any()
    assert_allclose(log_proba, exact, rtol=4 * eps, atol=4 * eps)
    seen = proba > np.finfo(dtype).tiny
    assert_allclose(np.log(proba[seen]), log_proba[seen], rtol=4 * eps, atol=4 * eps)
    assert np.isfinite(log_proba).all()
    assert_allclose(proba.sum(axis=1), 1, rtol=4 * eps)
    # The order of the classes survives wherever probabilities are told apart.
    order = np.argsort(log_proba, axis=1)
    assert (np.diff(np.take_along_axis(proba, order, axis=1), axis=1) >= 0).all()


@pytest.mark.filterwarnings("ignore:C_=.* of Cs:UserWarning")
@pytest.mark.parametrize("estimator", [SoftmaxFCClassifier(), SoftmaxFCClassifierCV()], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scikit_learns_check_in_both_types(estimator, dtype):
    check_classifiers_train(type(estimator).__name__, estimator, X_dtype=dtype)


@pytest.mark.parametrize("method", METHODS[1:])
def test_logits_that_overflow_are_said(method):
    X, y = problems.overlapping(raw=False)
    model = SoftmaxFCClassifier().fit(X, y)
    model.coef_ = model.coef_ * 1e10
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="logits overflow float64"):
        getattr(model, method)(1e300 * X)


@pytest.mark.parametrize("kind", ["dense", "csr", "float32"])
def test_sparse_coefficients_predict_the_same(rng, kind):
    X, y = problems.overlapping(raw=False)
    X = np.column_stack([X, np.zeros((len(y), 3))])  # whose coefficients are zero
    X = {"dense": X, "csr": sparse.csr_array(X), "float32": X.astype(np.float32)}[kind]
    model = SoftmaxFCClassifier(classes=[0, 1, 2, 3], warm_start=True).fit(X, y)
    before = {name: getattr(model, name)(X) for name in METHODS}
    coef, loss = model.coef_, model.log_loss(X, y)
    assert model.sparsify() is model
    assert sparse.issparse(model.coef_)
    assert model.coef_.nnz == 3 * 4
    near = 1e-5 if kind == "float32" else 1e-12
    for name in METHODS:
        found = getattr(model, name)(X)
        assert isinstance(found, np.ndarray)
        assert found.dtype == before[name].dtype
        assert_allclose(found, before[name], rtol=near, atol=near)
    assert_allclose(model.log_loss(X, y), loss, rtol=near)
    copy = pickle.loads(pickle.dumps(model))
    assert_array_equal(copy.predict(X), before["predict"])
    assert model.densify() is model.densify() is model
    assert_array_equal(model.coef_, coef)
    assert model.sparsify().fit(X, y).n_iter_ == 0  # from where it was
    assert isinstance(model.coef_, np.ndarray)
    with pytest.raises(NotFittedError):
        SoftmaxFCClassifier().sparsify()
    with pytest.raises(NotFittedError):
        SoftmaxFCClassifier().densify()
