"""Features that only one row has: fewer of them, and the same fit."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from reference import assert_same_model
from scipy import sparse

from skfc import SoftmaxFCClassifier, SoftmaxFCClassifierCV
from skfc._rows import merge_columns

n, COMMON, ALONE = 60, 4, 40


@pytest.fixture
def words(rng):
    """Rows (n, N) of a few features in common, and many of one row each; labels."""
    X = np.zeros((n, COMMON + ALONE))
    X[:, :COMMON] = rng.integers(0, 3, (n, COMMON))
    X[rng.integers(0, 15, ALONE), np.arange(COMMON, COMMON + ALONE)] = rng.normal(size=ALONE)
    X = X[:, rng.permutation(X.shape[1])]
    return X, rng.integers(0, 3, n)


KINDS = [sparse.csr_array, sparse.csr_matrix, lambda X: sparse.csr_array(X.astype(np.float32))]


@pytest.mark.parametrize("kind", KINDS)
def test_an_orthogonal_change(words, kind, rng):
    """Logits and the sum of squares are the same on both sides."""
    X = kind(words[0])
    found = merge_columns(X)
    eps = np.finfo(X.dtype).eps
    hosts = np.flatnonzero((X != 0).sum(axis=0) == 1)
    assert found.X.shape[1] == COMMON + len(np.unique(X.tocsc()[:, hosts].indices))
    Q = found.Q.toarray()
    assert_allclose(Q.T @ Q, np.eye(Q.shape[1]), atol=100 * eps)
    assert_allclose(found.X.toarray(), X @ Q, atol=100 * eps)
    assert_allclose(found.X.toarray() @ Q.T, X.toarray(), atol=100 * eps)
    V = rng.normal(size=(3, Q.shape[1]))
    coef, intercept = found.postsolve(V, np.arange(3.0))
    assert_allclose(found.presolve(coef, intercept)[0], V, atol=100 * eps)
    assert_allclose(intercept, np.arange(3.0), rtol=0)
    assert_allclose(X @ coef.T, found.X @ V.T, atol=300 * eps)
    assert_allclose(np.sum(coef**2), np.sum(V**2), rtol=100 * eps)
    assert found.X.dtype == X.dtype
    assert found.X.has_canonical_format


def test_only_where_it_is_worth_it(rng):
    assert merge_columns(sparse.csr_array(rng.normal(size=(10, 6)))) is None
    assert merge_columns(sparse.csr_array(np.eye(8))) is None  # one for every row already
    assert merge_columns(sparse.csr_array((5, 7))) is None  # nothing would be left


@pytest.mark.parametrize("size", [1e-200, 1.0, 1e200])
def test_columns_of_zeros_and_any_size(size):
    X = np.array([[0, 3.0, 4, 0, 0, 0], [0, 0, 0, 0, 2, 1], [0, 0, 0, 0, 1, 1]])
    stored = sparse.csr_array(X * size)
    stored.data[0] = 0.0  # a zero that is stored
    found = merge_columns(stored)
    assert_allclose(found.X.toarray() / size, [[0, 0, 4], [2, 1, 0], [1, 1, 0]])
    assert_array_equal(found.Q.toarray()[:4, 2], [0, 0, 1, 0])


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("C", [0.1, 10.0])
@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg", "gd"])
def test_the_same_fit_as_of_dense_rows(words, solver, C, fit_intercept):
    X, y = words
    model = SoftmaxFCClassifier(C=C, tol=1e-12, solver=solver, fit_intercept=fit_intercept)
    dense, merged = model.fit(X, y), SoftmaxFCClassifier(**model.get_params())
    merged.fit(sparse.csr_array(X), y)
    assert merged.coef_.shape == dense.coef_.shape
    assert_same_model(merged, dense, X, tol=1e-12)


def test_standardised_features_are_not_merged(words):
    """Their penalties differ, and the proportion of the entries is not the best one."""
    X, y = words
    model = SoftmaxFCClassifier(tol=1e-12, standardize=True)
    dense, of_csr = model.fit(X, y), SoftmaxFCClassifier(**model.get_params())
    assert_same_model(of_csr.fit(sparse.csr_array(X), y), dense, X, tol=1e-12)


def test_warm_start(words):
    X, y = words
    model = SoftmaxFCClassifier(tol=1e-10, warm_start=True).fit(sparse.csr_array(X), y)
    again = model.loss_curve_[-1]
    model.fit(sparse.csr_array(X), y)
    assert model.n_iter_ == 0
    assert_allclose(model.loss_curve_, again, rtol=1e-12)


@pytest.mark.filterwarnings("ignore:C_=.* of Cs:UserWarning")
def test_search(words):
    X, y = words
    search = SoftmaxFCClassifierCV(Cs=[0.1, 1.0], cv=3, tol=1e-12)
    dense, merged = (search.fit(Z, y).coefs_paths_ for Z in (X, sparse.csr_array(X)))
    assert_allclose(merged, dense, atol=1e-5 * np.abs(dense).max())
