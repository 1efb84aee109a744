"""The laws of `SoftmaxFCClassifier`, and what a fitted one says.

A fit is within `tol` of the minimum, give or take a factor of ten. Two fits of one
problem are then close: their objectives to 10 tol, and by the identity in `reference`
their probabilities to a multiple of √tol.
"""

import numpy as np
import problems
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from reference import Reference, assert_same_optimum, one_hot
from scipy import sparse

from skfc import SoftmaxFCClassifier

TOL = 1e-10
METRICS = ["auto", "hessian", "block-diagonal", "kronecker", "diagonal"]


def fit(X, y, weight=None, **options):
    return SoftmaxFCClassifier(**{"tol": TOL, **options}).fit(X, y, sample_weight=weight)


@pytest.fixture(scope="module")
def data():
    return problems.overlapping()


# -- laws -------------------------------------------------------------------------------


@pytest.mark.parametrize("C", [1.0, np.inf])
@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 2.0, 1: 0.5}])
def test_integer_weights_are_repeated_rows(data, C, class_weight, rng):
    X, y = data
    count = rng.integers(0, 4, len(y))
    options = {"C": C, "class_weight": class_weight}
    weighted = fit(X, y, count, **options)
    repeated = fit(np.repeat(X, count, axis=0), np.repeat(y, count), **options)
    assert_same_optimum(weighted, repeated, X)


@pytest.mark.parametrize("C", [1.0, np.inf])
def test_zero_weight_is_absence(data, C):
    X, y = data
    weight = np.ones(len(y))
    weight[::3] = 0
    wild = X.copy()
    wild[::3] *= 1e5
    kept = weight > 0
    assert_same_optimum(fit(wild, y, weight, C=C), fit(X[kept], y[kept], C=C), X[kept])


def test_zero_weight_of_a_class_is_absence_but_for_classes(data):
    X, y = data
    kept = y > 0
    model, other = fit(X, y, kept.astype(float)), fit(X[kept], y[kept])
    assert_array_equal(model.classes_, [0, 1, 2])
    assert not model.coef_[0].any()
    proba = model.predict_proba(X[kept])
    assert_allclose(proba[:, 0].mean(), 0.5 / (kept.sum() + 0.5), rtol=1e-6)
    among = proba[:, 1:] / proba[:, 1:].sum(axis=1, keepdims=True)
    distance = np.abs(among - other.predict_proba(X[kept])).sum(axis=1)
    assert np.sqrt(np.mean(distance**2)) <= 2 * np.sqrt(2 * 10 * TOL)


@pytest.mark.parametrize("C", [1.0, np.inf])
def test_a_common_factor_of_the_weights_is_one_of_c(data, C, rng):
    X, y = data
    weight = rng.uniform(0.5, 2, len(y))
    assert_same_optimum(fit(X, y, 7 * weight, C=C / 7), fit(X, y, weight, C=C), X)
    assert_same_optimum(fit(X, y, 1e-200 * weight, C=1e200 * C), fit(X, y, weight, C=C), X)
    assert_same_optimum(fit(X, y, 1e200 * weight, C=1e-200 * C), fit(X, y, weight, C=C), X)


def test_class_weights_are_sample_weights(data):
    X, y = data
    share = {0: 0.3, 1: 2.0, 2: 1.5}
    each = np.array([share[label] for label in y])
    assert_same_optimum(fit(X, y, class_weight=share), fit(X, y, each), X)
    balanced = len(y) / (3 * np.bincount(y))
    assert_same_optimum(fit(X, y, class_weight="balanced"), fit(X, y, balanced[y]), X)


@pytest.mark.parametrize("C", [1.0, np.inf])
def test_permutations(data, C, rng):
    X, y = data
    model = fit(X, y, C=C)
    rows = rng.permutation(len(y))
    assert_same_optimum(fit(X[rows], y[rows], C=C), model, X)
    columns = rng.permutation(X.shape[1])
    other = fit(X[:, columns], y, C=C)
    assert_allclose(other.loss_curve_[-1], model.loss_curve_[-1], rtol=10 * TOL)
    classes = np.array([2, 0, 1])
    other = fit(X, classes[y], C=C)
    distance = np.abs(other.predict_proba(X)[:, classes] - model.predict_proba(X)).sum(axis=1)
    assert np.sqrt(np.mean(distance**2)) <= 2 * np.sqrt(2 * 10 * TOL)
    assert_allclose(other.loss_curve_[-1], model.loss_curve_[-1], rtol=10 * TOL)


def test_a_rotation_of_the_features_changes_nothing(rng):
    X, y = problems.overlapping(raw=False)
    Q = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    model, other = fit(X, y), fit(X @ Q, y)
    assert_allclose(other.loss_curve_[-1], model.loss_curve_[-1], rtol=10 * TOL)
    assert_allclose(other.coef_ @ Q.T, model.coef_, atol=100 * np.sqrt(TOL))


@pytest.mark.parametrize("preconditioner", METRICS)
@pytest.mark.parametrize("seed", range(3))
def test_scale_and_origin_do_not_matter(preconditioner, seed):
    """Without a penalty: columns times 1e-6 … 1e6, shifted by up to 1e3 deviations."""
    rng = np.random.default_rng(seed)
    X, y = problems.overlapping(500, 6, 4, raw=False, seed=seed)
    options = {"C": np.inf, "preconditioner": preconditioner}
    model = fit(X, y, **options)
    shifted = (X + rng.uniform(-1e3, 1e3, 6)) * 10.0 ** rng.uniform(-6, 6, 6)
    other = fit(shifted, y, **options)
    F = [
        Reference(A, one_hot(y), C=np.inf).value(m.coef_, m.intercept_)
        for A, m in ((X, model), (shifted, other))
    ]
    assert abs(F[1] / F[0] - 1) <= 1e-10
    assert np.abs(other.predict_proba(shifted) - model.predict_proba(X)).max() <= 1e-4
    assert other.n_iter_ <= 1.5 * model.n_iter_
    assert model.n_iter_ <= 1.5 * other.n_iter_


def read_only(X):
    X = X.copy()
    X.setflags(write=False)
    return X


def int64_csr(X):
    X = sparse.csr_array(X)
    X.indices, X.indptr = X.indices.astype(np.int64), X.indptr.astype(np.int64)
    return X


def shuffled_csr(X):
    """Indices out of order."""
    X = sparse.csr_array(X)
    indices, data = X.indices.copy(), X.data.copy()
    for a, b in zip(X.indptr, X.indptr[1:], strict=False):
        indices[a:b], data[a:b] = indices[a:b][::-1], data[a:b][::-1]
    return sparse.csr_array((data, indices, X.indptr), shape=X.shape)


def memory_map(X, path):
    np.save(path / "X.npy", X)
    return np.load(path / "X.npy", mmap_mode="r")


CONTAINERS = {
    "F order": np.asfortranarray,
    "read-only": read_only,
    "list": lambda X: X.tolist(),
    "strided": lambda X: np.repeat(np.repeat(X, 2, axis=0), 2, axis=1)[::2, ::2],
    "csr_matrix": sparse.csr_matrix,
    "csr_array": sparse.csr_array,
    "int64 csr": int64_csr,
    "shuffled csr": shuffled_csr,
    "csc": sparse.csc_matrix,
    "coo": sparse.coo_array,
    "lil": sparse.lil_matrix,
    "big-endian": lambda X: X.astype(">f8"),
    "memory map": memory_map,
}


@pytest.mark.parametrize("C", [1.0, np.inf])
@pytest.mark.parametrize("kind", CONTAINERS)
def test_containers_agree_and_are_left_alone(kind, C, rng, tmp_path):
    X, y = problems.overlapping(raw=False)
    X[rng.random(X.shape) < 0.4] = 0
    weight = rng.uniform(0.5, 2, len(y))
    convert = CONTAINERS[kind]
    contained = convert(X, tmp_path) if convert is memory_map else convert(X)
    before = np.array(contained.toarray() if sparse.issparse(contained) else contained)
    y_before, weight_before = y.copy(), weight.copy()
    plain, other = fit(X, y, weight, C=C), fit(contained, y, weight, C=C)
    assert_same_optimum(other, plain, X)
    assert_allclose(other.predict_proba(contained), other.predict_proba(X), rtol=1e-10)
    assert_array_equal(other.predict(contained), other.predict(X))
    assert_allclose(other.log_loss(contained, y), other.log_loss(X, y), rtol=1e-12)
    after = contained.toarray() if sparse.issparse(contained) else contained
    assert_array_equal(after, before)
    assert_array_equal(y, y_before)
    assert_array_equal(weight, weight_before)


def test_read_only_targets_and_weights(data):
    X, y = data
    y, weight = read_only(y), read_only(np.ones(len(y)))
    fit(read_only(X), y, weight).log_loss(X, y, weight)
    known = problems.known_penalised()
    fit(known.X, read_only(known.y), C=known.C)


def test_float32_stays_float32(data):
    X, y = data
    exact = fit(X, y)
    model = SoftmaxFCClassifier().fit(X.astype(np.float32), y)
    for values in (model.coef_, model.intercept_, model.predict_proba(X.astype(np.float32))):
        assert values.dtype == np.float32
    for method in (model.decision_function, model.predict_log_proba):
        assert method(X.astype(np.float32)).dtype == np.float32
    F = Reference(X.astype(np.float32), one_hot(y))
    assert F.value(model.coef_, model.intercept_) <= exact.loss_curve_[-1] * (1 + 1e-5)


def test_float32_ends_at_its_floor_without_a_warning(data):
    X, y = data
    model = fit(X.astype(np.float32), y, tol=1e-15)
    assert model.n_iter_ < 1000
    F = Reference(X.astype(np.float32), one_hot(y))
    assert F.value(model.coef_, model.intercept_) / F.minimise()[2] - 1 <= 1e-5


def test_a_fit_is_deterministic(data):
    X, y = data
    a, b = (fit(X, y, random_state=seed) for seed in (0, 1))
    assert_array_equal(a.coef_, b.coef_)
    assert_array_equal(a.loss_curve_, b.loss_curve_)


def test_the_gauge():
    X, y = problems.overlapping()
    for C in (0.1, np.inf):
        model = fit(X, y, C=C)
        size = np.abs(model.coef_).max(axis=0)
        assert_allclose(model.coef_.sum(axis=0) / size, 0, atol=1e-12)
        assert_allclose(model.intercept_.sum() / np.abs(model.intercept_).max(), 0, atol=1e-12)


def test_warm_start(data):
    X, y = data
    model = fit(X, y, warm_start=True)
    cold = model.n_iter_
    assert model.fit(X, y).n_iter_ == 0 < cold
    model.set_params(C=1.1).fit(X, y)
    assert model.n_iter_ < cold
    assert_same_optimum(model, fit(X, y, C=1.1), X)
    # Other features or classes: a cold start.
    assert_same_optimum(model.set_params(C=1.0).fit(X[:, :2], y), fit(X[:, :2], y), X[:, :2])
    assert_same_optimum(model.fit(X, np.array(list("abc"))[y]), fit(X, y), X)


@pytest.mark.parametrize("labels", ["abc", [3, 4, 5], [1, 2, 3]], ids=str)
def test_a_warm_start_is_from_the_same_classes_only(data, labels):
    """As many others have nothing to do with the coefficients: that is a cold start."""
    X, y = data
    labels = np.array(list(labels))[y]
    options = {"solver": "newton-cg", "preconditioner": "diagonal"}
    cold = fit(X, labels, **options)
    model = fit(X, y, warm_start=True, **options).fit(X, labels)
    assert model.n_iter_ == cold.n_iter_ > 0
    assert_array_equal(model.loss_curve_, cold.loss_curve_)
    assert_array_equal(model.coef_, cold.coef_)
    assert model.fit(X, labels).n_iter_ == 0  # these are the same ones now


def test_labels_of_every_kind(data):
    X, y = data
    plain = fit(X, y)
    for labels in (
        np.array(["ant", "bee", "cat"]), np.array(["ant", "bee", "cat"], dtype=object),
        np.array([-5, 0, 17]), np.array([1.0, 2.0, 3.0]), np.array([10, 20, 30], dtype=np.uint8),
    ):  # fmt: skip
        model = fit(X, labels[y])
        assert_array_equal(model.classes_, np.sort(labels))
        assert_array_equal(model.predict(X), labels[plain.predict(X)])
        assert model.predict(X).dtype == labels.dtype
        assert_allclose(model.predict_proba(X), plain.predict_proba(X), rtol=1e-12)
    two = fit(X, y > 0)
    assert_array_equal(two.classes_, [False, True])
    assert two.predict(X).dtype == bool


# -- what a fitted model says -----------------------------------------------------------


def test_methods_agree_with_each_other(data, rng):
    X, y = data
    model = fit(X, y)
    logits = X @ model.coef_.T + model.intercept_
    assert_allclose(model.decision_function(X), logits, rtol=1e-12, atol=1e-12)
    proba, log_proba = model.predict_proba(X), model.predict_log_proba(X)
    assert_allclose(proba.sum(axis=1), 1, rtol=1e-14)
    assert_allclose(np.log(proba), log_proba, rtol=1e-9, atol=1e-13)
    assert_array_equal(model.predict(X), model.classes_[logits.argmax(axis=1)])
    weight = rng.uniform(0, 2, len(y))
    own = log_proba[np.arange(len(y)), y]
    assert_allclose(model.log_loss(X, y), -own.mean(), rtol=1e-13)
    assert_allclose(model.log_loss(X, y, weight), -weight @ own / weight.sum(), rtol=1e-13)
    few = y == 1  # misses classes
    assert_allclose(model.log_loss(X[few], y[few]), -own[few].mean(), rtol=1e-13)
    assert model.score(X, y) == np.mean(model.predict(X) == y)


def test_log_loss_does_not_clip():
    X, y = problems.overlapping(raw=False)
    model = fit(X, y)
    far = 1e6 * X
    logits = far @ model.coef_.T + model.intercept_
    own = logits[np.arange(len(y)), y]
    top = logits.max(axis=1)
    exact = np.mean(top - own + np.log(np.exp(logits - top[:, None]).sum(axis=1)))
    assert_allclose(model.log_loss(far, y), exact, rtol=1e-13)
    assert exact > 1e4


def test_log_proba_of_extreme_logits():
    X, y = problems.overlapping(raw=False, n_features=3)
    model = fit(X, y)
    model.coef_ = np.eye(3)
    model.intercept_ = np.zeros(3)
    logits = np.array([[1e4, -1e4, 0.0], [-1e4, -1e4, 1e4], [1e4, 1e4, 1e4], [0, -1e4, -1e4]])
    exact = [[0, -2e4, -1e4], [-2e4, -2e4, 0], 3 * [-np.log(3)], [0, -1e4, -1e4]]
    assert_allclose(model.predict_log_proba(logits), exact, rtol=1e-15)
    assert_allclose(model.log_loss(logits, [1, 0, 2, 2]), (2e4 + 2e4 + np.log(3) + 1e4) / 4)
    proba = model.predict_proba(logits)
    assert_allclose(proba, np.exp(exact), atol=1e-200)


def test_verbose_prints_progress_and_nothing_else_prints(data, capsys):
    X, y = data
    fit(X, y)
    assert capsys.readouterr().out == ""
    fit(X, y, verbose=3)
    assert len(capsys.readouterr().out.splitlines()) >= 3
    fit(X, y, verbose=True)
    assert "objective" in capsys.readouterr().out
