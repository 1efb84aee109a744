"""Features turned into the space of the rows, where there are fewer of these."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from reference import assert_same_optimum
from scipy import sparse

from skfc import SoftmaxFCClassifier
from skfc._rows import to_row_space
from skfc._tuned import override

KINDS = [np.asarray, np.asfortranarray, sparse.csr_array, lambda X: X.astype(np.float32)]


@pytest.fixture
def wide(rng):
    X = rng.standard_normal((40, 130)) + 3.0
    y = (X[:, :3] + rng.standard_normal((40, 3))).argmax(axis=1)
    return X, y


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_the_penalty_stay(wide, kind, centred, rng):
    X = kind(wide[0])
    found = to_row_space(X, 3, np.full(40, 1 / 40) if centred else None)
    n_left = found.X.shape[1]
    assert n_left <= 40
    assert_allclose(found.Q.T @ found.Q, np.eye(n_left), atol=1e-13)
    V, b = rng.standard_normal((3, n_left)), rng.standard_normal(3)
    coef, intercept = found.postsolve(V, b)
    assert_allclose(X @ coef.T + intercept, found.X @ V.T + b, atol=1e-11)
    assert_allclose(np.sum(coef**2), np.sum(V**2), rtol=1e-12)
    for back, given in zip(found.presolve(coef, intercept), (V, b), strict=True):
        assert_allclose(back, given, atol=1e-11)


def test_large_features_take_no_digits_from_small_ones(wide):
    """Errors are small beside the values of every feature, not beside the largest of all."""
    X = wide[0] * np.where(np.arange(130) % 3, 1.0, 1e12)
    X[::7, 5] = 1e9
    found = to_row_space(X, 3, np.full(40, 1 / 40))
    error = np.abs(found.X @ found.Q.T + found.mean - X).max(axis=0)
    assert (error <= 1e-13 * 40 * np.abs(X).max(axis=0)).all()


def test_repeated_rows_leave_no_features_of_rounding(wide):
    X, y = wide
    again = np.arange(15).repeat(2)
    assert to_row_space(X[again], 3, None).X.shape == (30, 15)
    huge = X * np.where(np.arange(130) % 3, 1.0, 1e15)
    assert to_row_space(huge[again], 3, None).X.shape == (30, 15)
    one = SoftmaxFCClassifier().fit(X[:15], y[:15], sample_weight=np.full(15, 2.0))
    two = SoftmaxFCClassifier().fit(X[again], y[again])
    assert_same_optimum(one, two, X, tol=1e-6)


def test_only_where_it_pays(wide):
    X = wide[0]
    assert to_row_space(X.T, 3, None) is None  # more rows than features
    assert to_row_space(np.tile(X, (50, 20)), 3, None) is None  # dearer than many passes
    far = np.full((40, 130), 1.7e308)
    far[0] = -far[0]
    assert to_row_space(far, 3, np.full(40, 1 / 40)) is None  # differences overflow


@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_minimum_as_without(wide, kind, C, rng):
    X, y = kind(wide[0]), wide[1]
    weight = rng.integers(0, 3, size=40)
    clf = SoftmaxFCClassifier(C=C, tol=1e-10)
    clf.fit(X, y, sample_weight=weight)
    with override(most_passes=0.0):
        other = SoftmaxFCClassifier(C=C, tol=1e-10).fit(X, y, sample_weight=weight)
    assert clf.coef_.dtype == X.dtype
    assert_same_optimum(clf, other, X, tol=1e-6 if X.dtype == np.float32 else 1e-10)


def test_a_warm_start_begins_where_the_fit_ended(wide):
    X, y = wide
    clf = SoftmaxFCClassifier(warm_start=True).fit(X, y)
    assert clf.fit(X, y).n_iter_ <= 1


def test_constant_rows_leave_the_prior():
    X, y = np.ones((6, 9)), np.array([0, 0, 0, 1, 1, 2])
    clf = SoftmaxFCClassifier().fit(X, y)
    assert_allclose(clf.coef_, 0)
    assert_allclose(clf.predict_proba(X)[0], [1 / 2, 1 / 3, 1 / 6], rtol=1e-6)


@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg", "gd"])
@pytest.mark.parametrize("preconditioner", ["hessian", "block-diagonal", "kronecker", "diagonal"])
@pytest.mark.parametrize("C", [1e-300, 1.0, np.inf])
def test_rows_of_zeros_leave_even_probabilities(solver, preconditioner, C):
    X, y = np.zeros((2, 3)), [0, 1]
    options = {"fit_intercept": False, "solver": solver, "preconditioner": preconditioner}
    clf = SoftmaxFCClassifier(C=C, **options).fit(X, y)
    assert_allclose(clf.predict_proba(X), 0.5)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("seed", range(3))
def test_rounding_of_a_mean_is_no_direction(kind, seed):
    """Constants, and what rows far from zero have in common, take part in no coefficient.

    Without a penalty a direction that is rounding would have coefficients of 1e6 times 1e9, and
    no digits of a logit would be left. The minimum is the entropy of the targets.
    """
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((60, 120))
    X[:, 0], X[:, 1] = 1e9, 0.1
    X[:, 2:6] += 10.0 ** rng.uniform(7, 9, 4)
    model = SoftmaxFCClassifier(C=np.inf, label_smoothing=0.1).fit(kind(X), np.arange(60) % 3)
    own, other = 1 - 0.1 + 0.1 / 3, 0.1 / 3
    targets = np.where(np.arange(3) == np.arange(60)[:, None] % 3, own, other)
    loss = -(targets * model.predict_log_proba(kind(X))).sum(axis=1).mean()
    least = -own * np.log(own) - 2 * other * np.log(other)
    assert loss <= least * (1 + 1e-6)
    assert np.abs(model.coef_).max() < 100
