"""Streams: what `partial_fit` learns, remembers and refuses."""

import copy
import pickle

import numpy as np
import problems
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from scipy.special import logsumexp
from sklearn.base import clone
from sklearn.datasets import load_digits

from skfc import SoftmaxFCClassifier, SoftmaxFCClassifierCV, _past, _stream, _window
from skfc._blockwise import evaluate
from skfc._stand_ins import with_stand_ins
from skfc._window import WINDOW_BYTES, WINDOW_ROWS

T = 3


@pytest.fixture(scope="module")
def data():
    """More rows than a window holds, features in raw units, and rows to judge by."""
    X, y = problems.overlapping(9000, 6, T)
    return X[:6000], y[:6000], X[6000:], y[6000:]


def streamed(X, y, batch=256, *, classes=range(T), weight=None, model=None, **params):
    """A model that has seen X and y in batches."""
    model = SoftmaxFCClassifier(**params) if model is None else model
    for start in range(0, X.shape[0], batch):
        rows = slice(start, start + batch)
        given = {} if weight is None else {"sample_weight": weight[rows]}
        model.partial_fit(X[rows], y[rows], classes=classes, **given)
        if batch >= 100 or rows.stop >= X.shape[0]:  # a look costs steps
            assert np.isfinite(model.coef_).all()
            assert np.isfinite(model.intercept_).all()
    return model


@pytest.mark.parametrize("batch", [1, 16, 256, 4096])
def test_one_pass_is_a_fit_to_a_percent(data, batch):
    X, y, X_test, y_test = data
    if batch == 1:
        X, y = X[:3000], y[:3000]
    model, full = streamed(X, y, batch), SoftmaxFCClassifier().fit(X, y)
    assert model.log_loss(X_test, y_test) < 1.01 * full.log_loss(X_test, y_test)
    assert_allclose(model.intercept_.sum(), 0, atol=1e-9 * abs(model.intercept_).max())
    assert_allclose(model.coef_.sum(axis=0), 0, atol=1e-9 * abs(model.coef_).max())


@pytest.mark.parametrize("seed", range(3))
def test_whatever_the_order(data, seed):
    X, y, X_test, y_test = data
    order = np.random.default_rng(seed).permutation(len(y))
    loss = streamed(X[order], y[order]).log_loss(X_test, y_test)
    assert loss < 1.01 * SoftmaxFCClassifier().fit(X, y).log_loss(X_test, y_test)


@pytest.mark.parametrize("kind", ["_past.KroneckerCurvature", "_past.DiagonalCurvature"])
def test_other_forms_of_the_past(data, kind, monkeypatch):
    """Less of the curvature of past rows: still below the losses of the window alone."""
    form = getattr(_past, kind.partition(".")[2])
    monkeypatch.setattr(_stream, "choose_curvature", lambda P, T: form)
    X, y, X_test, y_test = data
    full = SoftmaxFCClassifier().fit(X, y).log_loss(X_test, y_test)
    assert streamed(X, y).log_loss(X_test, y_test) < 1.02 * full


@pytest.mark.parametrize("batch", [1, 7, 256, 4096])
def test_while_all_rows_are_held_it_is_a_fit(data, batch):
    """Of all rows, those of the last call among them."""
    X, y, *_ = data
    X, y = X[:1201], y[:1201]

    def objective(model):
        return len(y) * model.log_loss(X, y) + 0.5 / 0.01 * (model.coef_**2).sum()

    model, full = streamed(X, y, batch, C=0.01), SoftmaxFCClassifier(C=0.01, tol=1e-9).fit(X, y)
    assert objective(model) < objective(full) * (1 + 1e-6)


@pytest.mark.parametrize("n_rows", [1000, 4000])
def test_a_look_at_coefficients_changes_nothing(data, n_rows):
    X, y, *_ = data
    one, other = SoftmaxFCClassifier(), SoftmaxFCClassifier()
    for start in range(0, n_rows, 90):
        rows = slice(start, start + 90)
        before = vars(one.partial_fit(X[rows], y[rows], range(T))).keys() - {"coef_"}
        assert "coef_" not in vars(one)
        assert one.coef_ is one.coef_
        assert before < vars(one).keys()
        other.partial_fit(X[rows], y[rows], range(T))
    assert_array_equal(one.coef_, other.coef_)
    assert_array_equal(one.intercept_, other.intercept_)


def test_coefficients_are_those_of_the_last_call(data):
    """What is set later is for the calls to come; without any call there are none."""
    X, y, *_ = data
    assert not hasattr(SoftmaxFCClassifier(), "coef_")
    model, same = streamed(X[:500], y[:500]), streamed(X[:500], y[:500])
    model = copy.deepcopy(model).partial_fit(X[:500], y[:500])
    same.partial_fit(X[:500], y[:500])
    model.set_params(C=1e-6, standardize=True)
    assert_array_equal(model.coef_, same.coef_)
    del model.coef_
    assert_array_equal(model.coef_, same.coef_)


def test_a_column_that_begins_to_vary_takes_part_at_once(data):
    X, y, *_ = data
    late = np.append(np.zeros(5000), np.where(y[5000:] == 1, 3.0, 0.0))[: len(y)]
    model = streamed(np.column_stack([X, late])[:5000], y[:5000])
    assert not model.coef_[:, -1].any()
    model.partial_fit(np.column_stack([X, late])[5000:5300], y[5000:5300])
    assert model.coef_[1, -1] > 1


def test_rows_far_out_stay(data):
    """Their expansions hold for the smallest changes only."""
    X, y, *_ = data
    Z = abs((X - X.mean(axis=0)) / X.std(axis=0)) ** 2
    held = streamed(X, y)._stream
    rows = held.held().rows[:, : X.shape[1]] + held.window.shift
    for label in range(T):
        mine = X[y == label][np.argsort(-Z[y == label].sum(axis=1))[:10]]
        near = [abs(rows - row).max(axis=1).min() for row in mine]
        assert np.sum(np.array(near) < 1e-6 * abs(X).max()) >= 9


@pytest.mark.parametrize("n_rows", [300, WINDOW_ROWS])
@pytest.mark.parametrize("batch", [50, 256])
def test_overfitting_is_that_of_a_fit_while_all_rows_are_held(n_rows, batch, rng):
    """The ridge against memorising is for rows that leave: with them it begins to show."""
    X = rng.standard_normal((2 * WINDOW_ROWS, 150))
    coef = rng.standard_normal((150, T))
    y = (X @ coef + 9 * rng.gumbel(size=(len(X), T))).argmax(axis=1)

    def objective(model):
        return n_rows * model.log_loss(X[:n_rows], y[:n_rows]) + 0.5 * (model.coef_**2).sum()

    model = streamed(X[:n_rows], y[:n_rows], batch)
    full = SoftmaxFCClassifier().fit(X[:n_rows], y[:n_rows])
    assert model._stream.ridge > 0
    assert model._stream.pending <= n_rows // 16
    assert objective(model) < objective(full) * 1.02
    model.partial_fit(X[n_rows:], y[n_rows:])
    assert model._stream.approximate == (len(X) > WINDOW_ROWS)


def test_standardize_does_not_depend_on_units(data, rng):
    X, y, X_test, _ = data
    units = np.logspace(-6, 6, X.shape[1])
    one = streamed(X, y, standardize=True, C=0.001)
    other = streamed(X * units, y, standardize=True, C=0.001)
    p, q = one.predict_proba(X_test), other.predict_proba(X_test * units)
    assert_allclose(p, q, atol=1e-6)
    assert not np.allclose(one.coef_, streamed(X, y, C=0.001).coef_, rtol=0.01)
    full = SoftmaxFCClassifier(standardize=True, C=0.001).fit(X, y)
    assert_allclose(p, full.predict_proba(X_test), atol=0.02)


def test_sparse_rows_are_dense_rows(data):
    X, y, *_ = data
    X = np.where(np.random.default_rng(0).random(X.shape) < 0.5, 0.0, X)
    one = streamed(X, y)
    other = streamed(sparse.csr_array(X), y)
    assert_allclose(one.coef_, other.coef_, rtol=1e-9)
    other.partial_fit(X[:10], y[:10])  # a stream may have both


def test_very_many_sparse_features():
    rng = np.random.default_rng(0)
    X = sparse.random(6000, 9000, 0.002, format="csr", random_state=0)
    coef = rng.standard_normal((9000, T)) * (rng.random((9000, 1)) < 0.05) * 8
    y = (X @ coef + 0.3 * rng.gumbel(size=(6000, T))).argmax(axis=1)
    model, full = streamed(X[:5000], y[:5000]), SoftmaxFCClassifier().fit(X[:5000], y[:5000])
    assert sparse.issparse(model._stream.held().rows)
    assert model.log_loss(X[5000:], y[5000:]) < 1.05 * full.log_loss(X[5000:], y[5000:])


@pytest.mark.parametrize("C", [1.0, 1e-3])
def test_rows_that_leave_change_neither_value_nor_gradient(data, C, monkeypatch):
    """Where the model stands; and the curvature of what leaves is added to that of the past."""
    seen, let_go = [], _stream.Stream._let_go

    def state(stream):
        rows = stream.held().among(stream.active)
        sums = rows.sum(evaluate, stream.theta)
        return sums.values[0][0] + stream.value, sums.gradient + stream.gradient

    def watched(stream, size):
        stream._settle()
        before = state(stream), stream.curvature, len(stream.held())
        let_go(stream, size)
        seen.append((before, (state(stream), stream.curvature, len(stream.held()))))

    monkeypatch.setattr(_stream.Stream, "_let_go", watched)
    X, y, *_ = data
    streamed(X[:4000], y[:4000], C=C)
    assert len(seen) > 3
    for (before, curvature, n), (after, curvature_after, m) in seen:
        assert m < n
        assert_allclose(after[0], before[0], rtol=1e-12)
        assert_allclose(after[1], before[1], rtol=1e-9, atol=1e-9 * abs(before[1]).max())
        V = np.random.default_rng(0).standard_normal(before[1].shape)
        assert (V * curvature_after.times(V)).sum() > (V * curvature.times(V)).sum()


# -- weights and targets --------------------------------------------------------------------------


def test_weights(data, rng):
    X, y, X_test, _ = data
    X, y = X[:1500], y[:1500]
    times = rng.integers(0, 3, len(y))
    one = streamed(X, y, weight=times)
    other = SoftmaxFCClassifier().fit(X, y, sample_weight=times)
    assert_allclose(one.predict_proba(X_test), other.predict_proba(X_test), atol=0.05)
    broken = X.copy()
    broken[times == 0] = 1e200
    absent = streamed(broken, y, weight=times)
    assert_array_equal(absent.coef_, one.coef_)
    for scale in (1e-9, 1e9):
        scaled = streamed(X, y, weight=times * scale, C=1 / scale)
        assert_allclose(scaled.predict_proba(X_test), one.predict_proba(X_test), atol=1e-6)


def test_class_weights_are_weights(data):
    X, y, X_test, _ = data
    share = {0: 3.0, 2: 0.5}
    one = streamed(X, y, class_weight=share)
    other = streamed(X, y, weight=np.array([3.0, 1.0, 0.5])[y])
    assert_allclose(one.predict_proba(X_test), other.predict_proba(X_test), atol=1e-3)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
def test_rows_of_a_class_without_weight_are_absent(data, kind):
    """In the first call a row needs weight; later ones may hold none, and name more classes."""
    X, y, *_ = data
    model = SoftmaxFCClassifier(class_weight={2: 0.0})
    two = kind(X[y == 2][:4])
    with pytest.raises(ValueError, match="class_weight is zero for every class"):
        model.partial_fit(two, [2] * 4, range(3))
    model.partial_fit(kind(X[:200]), y[:200], range(3))
    before = model.coef_.copy()
    assert_array_equal(model.partial_fit(two, [2] * 4).coef_, before)
    assert_array_equal(model.partial_fit(two, [2] * 4, range(4)).coef_[:3], before)
    assert model.classes_.tolist() == [0, 1, 2, 3]


def test_rows_of_probabilities(data):
    X, y, X_test, _ = data
    hot = np.eye(T)[y]
    one, other = streamed(X, y), SoftmaxFCClassifier()
    for start in range(0, len(y), 256):  # without `classes`: the columns say how many
        other.partial_fit(X[start : start + 256], hot[start : start + 256])
    assert_array_equal(one.coef_, other.coef_)
    smooth = streamed(X, y, label_smoothing=0.3)
    soft = streamed(X, 0.7 * hot + 0.1)
    assert_allclose(smooth.coef_, soft.coef_, rtol=1e-9)
    full = SoftmaxFCClassifier(label_smoothing=0.3).fit(X, y)
    assert_allclose(smooth.predict_proba(X_test), full.predict_proba(X_test), atol=0.02)
    streamed(X[:100], y[:100], model=soft)  # labels after probabilities


def test_float32_and_no_intercept(data):
    X, y, X_test, y_test = data
    model = streamed(X.astype(np.float32), y)
    assert model.coef_.dtype == model.intercept_.dtype == np.float32
    for rows in (X, X.astype(np.float32)):  # the widest type that has come stays
        streamed(rows, y, model=model)
        assert model.coef_.dtype == model.intercept_.dtype == np.float64
    model = streamed(X, y, fit_intercept=False)
    assert not model.intercept_.any()
    full = SoftmaxFCClassifier(fit_intercept=False).fit(X, y)
    assert model.log_loss(X_test, y_test) < 1.01 * full.log_loss(X_test, y_test)


# -- classes --------------------------------------------------------------------------------------


def test_classes_grow_and_what_was_learned_stays(data):
    X, y, X_test, y_test = data
    names = np.array(["m", "b", "z"])[y]
    two = names != "b"
    model = SoftmaxFCClassifier()
    for start in range(0, 4000, 500):
        rows = np.flatnonzero(two)[start : start + 500]
        model.partial_fit(X[rows], names[rows], classes=["z", "m"])
    assert model.classes_.tolist() == ["m", "z"]
    before = model.coef_[1] - model.coef_[0]
    model.partial_fit(X[:1], ["z"], classes=["z", "b", "m"])
    assert model.classes_.tolist() == ["b", "m", "z"]
    assert model.coef_.shape == (3, X.shape[1])
    assert not model.coef_[0].any()  # no row of it yet
    assert_allclose(model.coef_[2] - model.coef_[1], before, rtol=0.05, atol=1e-4)
    proba = model.predict_proba(X_test)[:, 0]
    assert (proba > 0).all()
    assert proba.mean() < 1e-3
    for start in range(0, 3000, 500):
        model.partial_fit(X[start : start + 500], names[start : start + 500])
    full = SoftmaxFCClassifier().fit(X, names)
    truth = np.array(["m", "b", "z"])[y_test]
    assert model.log_loss(X_test, truth) < 1.15 * full.log_loss(X_test, truth)


def test_classes_without_rows_have_their_stated_probability(data):
    X, y, *_ = data
    X, y = X[:1000], y[:1000]
    model = streamed(X, y, classes=range(5))
    assert_allclose(model.predict_proba(X)[:, 3:].mean(axis=0), 0.5 / (1000 + 0.5 * 2), rtol=0.1)
    one = SoftmaxFCClassifier().partial_fit(X[:8], np.zeros(8), classes=range(3))
    assert not one.coef_.any()
    assert_allclose(one.predict_proba(X[:8])[:, 1:], 0.5 / (8 + 0.5 * 2))
    streamed(X, y, model=one)
    assert one.log_loss(X, y) < 1.05 * SoftmaxFCClassifier().fit(X, y).log_loss(X, y)


@pytest.mark.parametrize(
    ("params", "first", "second", "words"),
    [
        ({}, None, None, "classes must be named in the first call"),
        (
            {"classes": [0, 1, 2, 3]},
            range(3),
            None,
            "are not those of the 'classes'",
        ),
        ({}, range(3), range(2), r"\[2\] missing from \[0, 1\]"),
        ({}, range(3), [0, 1, 3], r"\[2\] missing from \[0, 1, 3\]"),
        ({}, range(2), None, "labels outside the classes"),
        ({"class_weight": "balanced"}, range(3), None, "pass a dict from class to weight"),
    ],
)
def test_wrong_classes(data, params, first, second, words):
    X, y, *_ = data
    model = SoftmaxFCClassifier(**params)
    with pytest.raises(ValueError, match=words):
        model.partial_fit(X[:50], y[:50], first).partial_fit(X[:50], y[:50], second)


def test_the_parameter_names_classes_too(data):
    X, y, *_ = data
    model = SoftmaxFCClassifier(classes=[2, 1, 0]).partial_fit(X[:5], y[:5])
    assert model.classes_.tolist() == [0, 1, 2]
    model.set_params(classes=range(4)).partial_fit(X[5:9], y[5:9])
    assert model.classes_.tolist() == [0, 1, 2, 3]


# -- state ----------------------------------------------------------------------------------------


def test_a_call_that_fails_changes_nothing(data, monkeypatch):
    X, y, *_ = data
    model = streamed(X[:600], y[:600])
    before = vars(model).copy()
    nan, zero = X[:9].copy(), np.zeros(9)
    nan[2, 1] = np.nan
    for wrong, words in (
        ((nan, y[:9]), "NaN"), ((X[:9, 1:], y[:9]), "5 features"), ((X[:9], y[:8]), "samples"),
        ((X[:9], y[:9] + 7), "outside the classes"),
        ((X[:9], y[:9], None, zero), "zero everywhere"),
        ((X[:9], y[:9], None, -np.ones(9)), "negative"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            model.partial_fit(*wrong)
        assert vars(model) == before
    reference = copy.deepcopy(model)

    def interrupt(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_stream.Stream, "_adapt", interrupt)
        with pytest.raises(KeyboardInterrupt):
            streamed(X[600:1200], y[600:1200], model=model)
    streamed(X[600:1200], y[600:1200], model=reference)
    streamed(X[600:1200], y[600:1200], model=model)
    assert_array_equal(model.coef_, reference.coef_)


@pytest.mark.parametrize("intercept", [True, False])
def test_the_intercept_stays_or_goes_with_the_stream(data, intercept):
    X, y, *_ = data
    model = streamed(X[:600], y[:600], fit_intercept=intercept)
    before = vars(model).copy()
    model.set_params(fit_intercept=not intercept)
    with pytest.raises(
        ValueError, match=f"fit_intercept={not intercept} is not that of the calls"
    ):
        model.partial_fit(X[600:], y[600:])
    assert vars(model) == before | {"fit_intercept": not intercept}
    model.fit(X, y).partial_fit(X, y)
    assert model.intercept_.any() == (not intercept)


@pytest.mark.parametrize(
    "change", [{"C": 1e-3}, {"standardize": True}, {"class_weight": {0: 3.0}}]
)
def test_other_parameters_may_change_between_calls(data, change):
    """Within the window, penalty and class weights of later rows are those of the last call."""
    X, y, *_ = data
    model = streamed(X[:600], y[:600])
    streamed(X[600:1200], y[600:1200], model=model.set_params(**change))
    if "class_weight" in change:
        weight = np.where((np.arange(1200) >= 600) & (y[:1200] == 0), 3.0, 1.0)
        full = SoftmaxFCClassifier().fit(X[:1200], y[:1200], sample_weight=weight)
    else:
        full = SoftmaxFCClassifier(**change).fit(X[:1200], y[:1200])
    assert_allclose(model.predict_proba(X), full.predict_proba(X), atol=0.01)


def test_the_form_of_rows_may_change_between_calls(data):
    X, y, *_ = data
    dense = streamed(X, y)
    model = SoftmaxFCClassifier()
    forms = [np.asarray, sparse.csr_array, sparse.csc_matrix, np.asfortranarray, np.ndarray.tolist]
    for k, start in enumerate(range(0, len(y), 256)):
        rows = slice(start, start + 256)
        model.partial_fit(forms[k % len(forms)](X[rows]), y[rows], range(3))
    assert_allclose(model.coef_, dense.coef_, rtol=1e-6)


@pytest.mark.parametrize(
    "how", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), copy.copy]
)
def test_copies_go_on_alone(data, how):
    X, y, *_ = data
    model = streamed(X[:3000], y[:3000])
    before = model.coef_.copy()
    other = streamed(X[3000:], y[3000:], model=how(model))
    assert_array_equal(model.coef_, before)
    streamed(X[3000:], y[3000:], model=model)
    assert_array_equal(model.coef_, other.coef_)
    assert not hasattr(clone(model), "coef_")


def test_memory_is_bounded(data):
    X, y, *_ = data
    model, sizes = SoftmaxFCClassifier(), []
    for _ in range(4):
        streamed(X, y, model=model)
        sizes.append(len(pickle.dumps(model)))
        held = model._stream.held()
        assert len(held) <= WINDOW_ROWS
        assert held.nbytes <= WINDOW_BYTES
    assert max(sizes) < 1.3 * min(sizes)


def test_wide_rows_are_held_by_their_bytes():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((300, 60_000)), rng.integers(0, 2, 300)
    model = streamed(X, y, 100, classes=[0, 1])
    held = model._stream.held()
    assert held.nbytes <= WINDOW_BYTES
    assert 50 < len(held) < 300


def test_fits_and_streams_forget_one_another(data):
    X, y, *_ = data
    model = SoftmaxFCClassifier(early_stopping=True, random_state=0).fit(X, y)
    model.set_params(early_stopping=False).partial_fit(X[:1], y[:1])
    assert model.classes_.tolist() == [0, 1, 2]  # those of the fit
    assert not model.coef_.any()  # and nothing else
    model.fit(X, y)
    streamed(X[:500], y[:500], model=model)
    assert_array_equal(model.coef_, streamed(X[:500], y[:500]).coef_)
    for name in ("loss_curve_", "optimality_gap_", "validation_curve_", "solver_"):
        assert not hasattr(model, name)
    again = clone(model).fit(X, y)
    model.fit(X, y)
    assert_array_equal(model.coef_, again.coef_)
    assert vars(model).keys() == vars(again).keys()
    streamed(X[:500], y[:500], model=model)
    warm = model.set_params(warm_start=True, max_iter=0, tol=10.0)
    before = warm.coef_.copy()
    warm.fit(X[:500], y[:500])  # begins with what the stream has learned
    assert_allclose(warm.coef_, before, rtol=1e-6)


def test_every_label_of_a_row_counts_once_it_is_there(data):
    """A new class is learned from at once, however few its rows are."""
    X, y, *_ = data
    kept = y != 2
    model = streamed(X[kept], y[kept])
    row = X[~kept][:1]
    before = model.predict_proba(row)[0, 2]
    model.partial_fit(row, [2])
    assert model.predict_proba(row)[0, 2] > 10 * before


@pytest.mark.parametrize("n_new", [1, 20, 200])
@pytest.mark.parametrize("kind", ["FullCurvature", "KroneckerCurvature", "DiagonalCurvature"])
def test_a_new_class_is_as_frequent_as_its_rows(data, n_new, kind, monkeypatch):
    """Expansions of past rows know nothing of it, and rows that are held stand for them."""
    monkeypatch.setattr(_stream, "choose_curvature", lambda P, T: getattr(_past, kind))
    X, y, *_ = data
    old, new = np.flatnonzero(y != 2)[:3500], np.flatnonzero(y == 2)[:n_new]
    seen = np.concatenate([old, new])
    model = streamed(X[old], y[old])
    assert len(model._stream.held()) < 0.6 * len(old)
    model.partial_fit(X[new], y[new])
    full = SoftmaxFCClassifier().fit(X[seen], y[seen])
    share = model.predict_proba(X[seen])[:, 2].mean()
    off, more = (1.1, 1.02) if kind == "FullCurvature" else (1.7, 1.05)
    assert 1 / off < share / full.predict_proba(X[seen])[:, 2].mean() < off
    assert model.log_loss(X[seen], y[seen]) < more * full.log_loss(X[seen], y[seen])


def test_rows_held_stand_for_those_that_left_before_a_class_came(data, monkeypatch, rng):
    """Their gradient is that of losses among all classes less those among the known ones.

    The loss of the rows with new targets and weights is an upper bound of that, exact there.
    """
    monkeypatch.setattr(_window, "WINDOW_ROWS", 300)
    X, y, *_ = data
    rows = np.argsort(y, kind="stable")[::4]
    stream = streamed(X[rows], y[rows], 100)._stream
    assert sorted(stream.left) == [1, 2, 3]
    chunk, held = stream.held(), np.bincount(stream.held().classes)
    known = {count: stream.left[count][chunk.classes] / held[chunk.classes] for count in (1, 2)}
    assert_allclose(sum(map(np.sum, known.values())), sum(stream.left[k].sum() for k in (1, 2)))
    theta = 0.1 * rng.standard_normal(stream.theta.shape) / chunk.rows.std(axis=0)[:, None].clip(1)

    def exact(theta):
        Z = chunk.rows @ theta
        value = (logsumexp(Z, axis=1) - Z[np.arange(len(Z)), chunk.classes]).sum()
        for count, weight in known.items():
            value += weight @ (logsumexp(Z, axis=1) - logsumexp(Z[:, :count], axis=1))
        return value

    standing = with_stand_ins(chunk, stream.active, stream.rank, stream.left, theta)
    standing = standing.among(stream.active)

    def surrogate(theta):
        return float(standing.sum(evaluate, theta).values[0][0])

    gradient = standing.sum(evaluate, theta).gradient
    for size in (1e-3, 0.1, 1.0, 10.0):
        step = size * rng.standard_normal(theta.shape) * np.abs(theta)
        above = surrogate(theta + step) - surrogate(theta)
        assert above >= exact(theta + step) - exact(theta) - 1e-9 * exact(theta)
    there = (exact(theta + 1e-4 * step) - exact(theta - 1e-4 * step)) / 2e-4
    assert_allclose((gradient * step).sum(), there, rtol=1e-5)


def test_a_search_has_no_stream():
    assert not hasattr(SoftmaxFCClassifierCV(), "partial_fit")
    assert hasattr(SoftmaxFCClassifier(), "partial_fit")


# -- hostile streams ------------------------------------------------------------------------------


def scales(X, y):
    return (X - X.mean(axis=0)) / X.std(axis=0) * np.logspace(-6, 6, X.shape[1]), y


def outlier(X, y):
    X = X.copy()
    X[7 * 256 + 3] = 1e8
    return X, y


def outlier_at_once(X, y):
    X = X.copy()
    X[3] = 1e8
    return X, y


def one_class_first(X, y):
    order = np.argsort(y != 1, kind="stable")[:256]
    return np.vstack([X[order], X]), np.append(y[order], y)


def late_columns(X, y):
    X = X.copy()
    X[:3000, 0], X[:3000, 1], X[:3000, 2] = 5.0, 1 / 3, 1e9
    return X, y


def drifting(X, y, deviations=30):
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    return X + np.linspace(0, deviations, len(y))[:, None], y


def drifting_far(X, y):
    return drifting(X, y, 1e6)


@pytest.mark.parametrize(
    "change",
    [scales, outlier, outlier_at_once, one_class_first, late_columns, drifting, drifting_far],
)
@pytest.mark.parametrize("batch", [16, 256])
def test_hostile_streams_are_learned(data, change, batch):
    """To a few percent of the fit of the rows that are not strange, on such rows."""
    X, y = change(*data[:2])
    usual = (X < 1e8).all(axis=1) if change in (outlier, outlier_at_once) else slice(None)
    model, full = streamed(X, y, batch, C=1e3), SoftmaxFCClassifier(C=1e3).fit(X[usual], y[usual])
    late = slice(4000, None)
    assert model.log_loss(X[late], y[late]) < 1.06 * full.log_loss(X[late], y[late])


@pytest.mark.parametrize("batch", [1, 256, 1000])
@pytest.mark.parametrize("C", [1.0, np.inf])
def test_sorted_by_class(data, batch, C):
    X, y, X_test, y_test = data
    rows = np.argsort(y, kind="stable")
    rows = rows[::8] if batch == 1 else rows
    loss = streamed(X[rows], y[rows], batch, C=C).log_loss(X_test, y_test)
    full = SoftmaxFCClassifier().fit(X[rows], y[rows]).log_loss(X_test, y_test)
    assert loss < 1.03 * full


@pytest.fixture
def digits(monkeypatch):
    """Correlated rows, shuffled, a quarter for testing, and a window for fewer than there are."""
    monkeypatch.setattr(_window, "WINDOW_ROWS", 400)
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    return X[order], y[order], np.arange(len(y)) % 4 == 0


def test_a_class_that_was_rare_is_no_sign_of_overfitting(digits):
    X, y, test = digits
    rows = np.argsort(y[~test], kind="stable")
    model = streamed(X[~test][rows], y[~test][rows], 100, classes=range(10))
    assert model._stream.ridge < 100
    full = SoftmaxFCClassifier().fit(X[~test], y[~test])
    assert model.log_loss(X[test], y[test]) < 1.1 * full.log_loss(X[test], y[test])


def test_a_ridge_that_new_rows_lose_by_is_left_out(digits):
    """In units of deviations that a drift has made, one unit hides the classes."""
    X, y, test = digits
    X = X - X.mean(axis=0) + np.linspace(0, 1e6, len(y))[:, None] * X.std(axis=0)
    model = streamed(X[~test], y[~test], 100, classes=range(10))
    full = SoftmaxFCClassifier().fit(X[~test], y[~test])
    assert model.log_loss(X[test], y[test]) < 1.1 * full.log_loss(X[test], y[test])


@pytest.mark.parametrize("n_rows", [1000, WINDOW_ROWS, 6000])
def test_the_window_holds_rows_of_all_classes(data, n_rows):
    """Classes that come no more keep as many rows as there are, or as the others have."""
    X, y, *_ = data
    rows = np.argsort(y[:n_rows], kind="stable")
    held = np.bincount(streamed(X[rows], y[rows], 100)._stream.held().classes)
    assert held.min() > 0.45 * min(held.max(), np.bincount(y[:n_rows]).min())


@pytest.mark.parametrize("soft", [False, True])
def test_rows_leave_the_classes_with_most(data, soft):
    """Of a rare class, rows are held for those to come."""
    X, y, *_ = data
    rows = np.concatenate([np.flatnonzero(y == 0)[:10], np.flatnonzero(y > 0)])[:5000]
    rows = np.random.default_rng(0).permutation(rows)
    model = SoftmaxFCClassifier()
    for start in range(0, len(rows), 256):
        batch = rows[start : start + 256]
        model.partial_fit(X[batch], np.eye(T)[y[batch]] if soft else y[batch], range(T))
    assert model._stream.approximate
    held = np.bincount(model._stream.held().classes)
    assert held[0] == 10
    assert abs(held[1] - held[2]) < 0.2 * held[1]


@pytest.mark.parametrize("batch", [100, 256, 4096])
def test_heavy_tails_are_fitted_as_by_fit_while_all_rows_are_held(batch, rng):
    """A percent of the objective moves rows far out by many logits."""
    X = rng.standard_t(2, (1200, 5)) ** 3
    y = np.sign(X) * abs(X) ** 0.2 @ rng.standard_normal((5, T)) + rng.gumbel(size=(1200, T))
    y = y.argmax(axis=1)
    full = SoftmaxFCClassifier(tol=1e-9).fit(X, y)
    model = streamed(X, y, batch)
    assert not model._stream.pending

    def objective(model):
        return len(y) * model.log_loss(X, y) + 0.5 * (model.coef_**2).sum()

    assert objective(model) < objective(full) * (1 + 1e-5)
    far = abs(X).max(axis=1) > 100
    assert far.sum() > 20
    assert_allclose(model.predict_proba(X[far]), full.predict_proba(X[far]), atol=0.01)


@pytest.mark.parametrize("C", [1e-12, 1.0, np.inf])
def test_data_without_a_limit(C, rng):
    """Separable, heavy-tailed, constant, doubled columns: nothing diverges."""
    X, y = problems.separable(3000)
    streamed(X, y, C=C)
    y = rng.integers(0, T, 3000)
    doubled = np.repeat(X, 2, axis=1)
    for rows in (
        rng.standard_cauchy((3000, 5)), np.ones((3000, 2)), doubled,
        rng.lognormal(0, 8, (3000, 4)), np.eye(5)[rng.integers(0, 5, 3000)],
    ):  # fmt: skip
        log_proba = streamed(rows, y, C=C).predict_log_proba(rows)
        loss = np.minimum(-log_proba[np.arange(len(y)), y], 20)  # rows far out may cost more
        assert loss.mean() < 1.5 * np.log(T)


def test_overflow_is_an_error(data):
    X, y, *_ = data
    with pytest.raises(ValueError, match="overflow"):
        SoftmaxFCClassifier().partial_fit(X[:50] * 1e300, y[:50], range(T))


def test_extreme_weights(data, rng):
    X, y, X_test, y_test = data
    weight = np.exp(3 * rng.standard_normal(len(y)))
    model = streamed(X, y, weight=weight)
    full = SoftmaxFCClassifier().fit(X, y, sample_weight=weight)
    assert model.log_loss(X_test, y_test) < 1.1 * full.log_loss(X_test, y_test)


def test_a_stream_has_squares_only(data):
    """Raised before rows are read: what was learned stays."""
    X, y, *_ = data
    assert not hasattr(SoftmaxFCClassifier(l1_ratio=0.5), "partial_fit")
    model = streamed(X[:500], y[:500])
    before = model.coef_.copy()
    with pytest.raises(AttributeError) as raised:
        model.set_params(l1_ratio=1.0).partial_fit(X[500:], y[500:])
    assert "an L2 penalty only; got l1_ratio=1.0" in str(raised.value.__cause__)
    assert_array_equal(model.coef_, before)
    model.set_params(l1_ratio=0.0).partial_fit(X[500:], y[500:])
    assert not np.array_equal(model.coef_, before)
