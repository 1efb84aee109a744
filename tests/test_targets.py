"""Targets: labels, one-hot and probability rows, smoothing, class weights, absent classes."""

import numpy as np
import problems
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import log_softmax

from skfc import SoftmaxFCClassifier
from skfc._labels import check_classes, unique_labels
from skfc._targets import Targets, encode, settle

TOL = 1e-10
# Probabilities agree with the optimum's to a small multiple of the root of `tol`.
NEAR = {"rtol": 0, "atol": 10 * TOL**0.5}
NAMES = np.array(["x", "y", "z"])


@pytest.fixture
def data(rng):
    """X, labels, probability rows and weights of three classes that overlap."""
    X, y = problems.overlapping(n_samples=150, raw=False)
    return X, y, rng.dirichlet(np.ones(3), len(y)), rng.uniform(0, 2, len(y))


def fit(X, y, sample_weight=None, **options):
    return SoftmaxFCClassifier(**{"tol": TOL, "C": 2.0, **options}).fit(X, y, sample_weight)


def logits(model, X, classes=slice(None)):
    """Those of some classes, up to what softmax does not see."""
    Z = X @ model.coef_[classes].T + model.intercept_[classes]
    return Z - Z.mean(axis=1, keepdims=True)


# ---- settling


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("class_weight", [None, {0: 0.5, 2: 3.0}, {1: 0.0}, "balanced"])
def test_settled_rows_term_by_term(data, soft, smoothing, class_weight):
    _, y, rows, s = data
    before = rows if soft else np.eye(3)[y]
    w = {0: 1.0, 1: 1.0, 2: 1.0}
    if class_weight == "balanced":
        counts = [sum(s * before[:, k]) for k in range(3)]
        w = {k: sum(s) / (3 * counts[k]) for k in range(3)}
    elif class_weight:
        w |= class_weight
    classes, target = encode(rows if soft else y)
    settled = settle(classes, target, s, class_weight, smoothing)
    dense = settled.target if settled.target.ndim == 2 else np.eye(3)[:, settled.target]
    for i in range(len(y)):
        terms = [w[k] * ((1 - smoothing) * before[i, k] + smoothing / 3) for k in range(3)]
        assert settled.weight[i] == pytest.approx(s[i] * sum(terms), rel=1e-13)
        if sum(terms) > 0:
            assert_allclose(dense[:, i], np.divide(terms, sum(terms)), rtol=1e-13)
    totals = (dense * settled.weight).sum(axis=1)
    assert_allclose(settled.class_totals(), totals, rtol=1e-13)


def test_keeping_some_classes(rng):
    weight = np.array([1.0, 2.0, 3.0])
    rows = np.array([[0.2, 0.0, 1.0], [0.0, 0.0, 0.0], [0.8, 1.0, 0.0]])
    for target in (np.array([2, 0, 2]), rows):
        targets = Targets(NAMES, target, weight)
        assert targets.keep([0, 1, 2]) is targets
        kept = targets.keep(np.array([0, 2]))
        assert_array_equal(kept.classes, ["x", "z"])
        assert_array_equal(kept.class_totals(), targets.class_totals()[[0, 2]])


def test_labels_of_every_sortable_kind():
    kinds = [
        [3, 1, 2, 1],
        [3.0, 1.0, 2.0, 1.0],
        ["c", "a", "b", "a"],
        np.array(["c", "a", "b", "a"], dtype=object),
        np.array(["2003", "2001", "2002", "2001"], dtype="datetime64[D]"),
    ]
    for y in kinds:
        classes, index = encode(y)
        assert_array_equal(classes, np.unique(y))
        assert_array_equal(index, [2, 0, 1, 0])
        given, same = encode(y, check_classes(np.asarray(y)[:3]))
        assert_array_equal(given, classes)
        assert_array_equal(same, index)
    assert_array_equal(encode([True, False, True])[1], [1, 0, 1])


def test_rows_of_every_kind_of_number(rng):
    rows = np.eye(3)[rng.integers(0, 3, 8)]
    for dtype in (bool, int, np.uint8, np.float32, object):
        classes, target = encode(rows.astype(dtype))
        assert_array_equal(classes, [0, 1, 2])
        assert_array_equal(target, rows.argmax(axis=1))
    rounded = rng.dirichlet(np.ones(50), 8).astype(np.float32)
    assert_allclose(encode(rounded)[1].sum(axis=0), 1, rtol=1e-14)


def test_columns_of_frames():
    pd = pytest.importorskip("pandas")
    rows = np.array([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]])
    frame = pd.DataFrame(rows, columns=["z", "x", "y"])
    classes, target = encode(frame)
    assert_array_equal(classes, NAMES)
    assert_allclose(target.T, rows[:, [1, 2, 0]], rtol=1e-15)
    classes, target = encode(frame, np.array(["w", *NAMES]))
    assert_array_equal(target[0], 0)
    assert_allclose(target[1:].T, rows[:, [1, 2, 0]], rtol=1e-15)
    assert_allclose(encode(pd.DataFrame(rows), NAMES)[1].T, rows, rtol=1e-15)  # no names


def test_columns_of_polars_frames():
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame({"z": [0.75, 0.25], "x": [0.25, 0.75]})
    classes, target = encode(frame)
    assert_array_equal(classes, ["x", "z"])
    assert_array_equal(target, [[0.25, 0.75], [0.75, 0.25]])


# ---- fits


@pytest.mark.parametrize(
    "options",
    [{}, {"C": np.inf}, {"class_weight": "balanced"}, {"label_smoothing": 0.1}, {"max_iter": 3}],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # of max_iter=3
def test_one_hot_rows_give_the_very_fit_of_labels(data, options):
    X, y, _, s = data
    labels = fit(X, y, s, **options)
    for rows in (np.eye(3)[y], np.eye(3, dtype=np.float32)[y], np.eye(3, dtype=bool)[y]):
        one_hot = fit(X, rows, s, **options)
        assert_array_equal(one_hot.coef_, labels.coef_)
        assert_array_equal(one_hot.intercept_, labels.intercept_)
        assert one_hot.loss_curve_.tolist() == labels.loss_curve_.tolist()
        assert_array_equal(one_hot.predict(X), labels.predict(X))
    named = fit(X, NAMES[y], s, **options)
    assert_array_equal(named.coef_, labels.coef_)
    assert_array_equal(named.predict(X), NAMES[labels.predict(X)])


def test_rows_are_named_by_classes_or_by_the_columns_of_a_frame(data):
    X, _, rows, _ = data
    plain = fit(X, rows)
    assert_array_equal(plain.classes_, [0, 1, 2])
    given = fit(X, rows, classes=["z", "x", "y"])  # a set: columns follow the sorted classes
    assert_array_equal(given.classes_, NAMES)
    assert_array_equal(given.coef_, plain.coef_)
    pd = pytest.importorskip("pandas")
    for classes in (None, ["z", "x", "y"]):
        frame = fit(X, pd.DataFrame(rows, columns=NAMES)[["y", "z", "x"]], classes=classes)
        assert_array_equal(frame.classes_, NAMES)
        assert_allclose(frame.predict_proba(X), plain.predict_proba(X), rtol=1e-12)
        assert_array_equal(frame.predict(X), NAMES[plain.predict(X)])


@pytest.mark.parametrize("class_weight", [None, {0: 0.5, 2: 3.0}, "balanced"], ids=str)
@pytest.mark.parametrize("C", [2.0, np.inf])
def test_soft_rows_equal_weighted_repeated_rows(data, C, class_weight):
    X, _, rows, s = data
    soft = fit(X, rows, s, C=C, class_weight=class_weight)
    repeated = fit(
        np.repeat(X, 3, axis=0), np.tile(np.arange(3), len(X)), (s[:, None] * rows).ravel(),
        C=C, class_weight=class_weight,
    )  # fmt: skip
    assert_allclose(soft.predict_proba(X), repeated.predict_proba(X), **NEAR)
    assert_allclose(soft.loss_curve_[-1], repeated.loss_curve_[-1], rtol=10 * TOL)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("class_weight", [None, {0: 0.5, 2: 3.0}], ids=str)
def test_smoothing_equals_the_rows_it_stands_for(data, soft, class_weight):
    X, y, rows, s = data
    y = rows if soft else y
    before = rows if soft else np.eye(3)[y]
    smoothed = fit(X, y, s, label_smoothing=0.15, class_weight=class_weight)
    stated = fit(X, 0.85 * before + 0.15 / 3, s, class_weight=class_weight)
    assert_allclose(smoothed.coef_, stated.coef_, rtol=1e-9)
    assert_allclose(smoothed.loss_curve_, stated.loss_curve_, rtol=1e-12)


def test_soft_rows_with_a_known_optimum():
    known = problems.known_penalised()
    model = fit(known.X, known.y, C=known.C)
    assert_allclose(
        model.predict_log_proba(known.X),
        log_softmax(known.X @ known.coef.T + known.intercept, axis=1),
        rtol=0, atol=10 * TOL**0.5,
    )  # fmt: skip


def test_classes_are_a_set(data):
    X, y, _, _ = data
    plain = fit(X, NAMES[y])
    for classes in (["z", "x", "y"], {"x", "y", "z"}, NAMES, ("y", "x", "z")):
        given = fit(X, NAMES[y], classes=classes)
        assert_array_equal(given.classes_, NAMES)
        assert_array_equal(given.coef_, plain.coef_)


WAYS = ["classes=", "empty column", "zero sample weight", "zero class weight"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("C", [2.0, np.inf])
def test_classes_without_weight(data, way, fit_intercept, C):
    """Their probability is as stated, and the others' fit as if they were not there."""
    X, y, rows, s = data
    options = {"fit_intercept": fit_intercept, "C": C}
    present = [0, 2]
    here = y != 1
    if way == "classes=":
        X, y, s = X[here], y[here], s[here]
        model, alone = fit(X, y, s, classes=[0, 1, 2], **options), fit(X, y, s, **options)
    elif way == "empty column":
        rows = rows[:, present] / rows[:, present].sum(axis=1, keepdims=True)
        wide = np.column_stack([rows[:, 0], np.zeros(len(X)), rows[:, 1]])
        model, alone = fit(X, wide, s, **options), fit(X, rows, s, **options)
    elif way == "zero sample weight":
        model = fit(X, y, s * here, **options)
        X, y, s = X[here], y[here], s[here]
        alone = fit(X, y, s, **options)
    else:
        model = fit(X, y, s, class_weight={1: 0.0}, **options)
        X, y, s = X[here], y[here], s[here]
        alone = fit(X, y, s, **options)
    assert_array_equal(model.classes_, [0, 1, 2])
    assert_array_equal(model.coef_[1], 0)
    assert_allclose(logits(model, X, present), logits(alone, X), rtol=1e-9, atol=1e-9)
    proba = model.predict_proba(X)
    assert np.average(proba[:, 1], weights=s) == pytest.approx(0.5 / (s.sum() + 0.5), rel=1e-9)
    if fit_intercept:
        assert model.intercept_.sum() == pytest.approx(0, abs=1e-12)
    assert np.isfinite(model.log_loss(data[0], data[1]))


def test_several_classes_without_weight(data):
    X, y, _, s = data
    model, alone = fit(X, y, s, classes=range(-2, 5)), fit(X, y, s)
    absent = np.array([0, 1, 5, 6])
    proba = model.predict_proba(X)[:, absent]
    assert_allclose(np.average(proba, axis=0, weights=s), 0.5 / (s.sum() + 0.5 * 4), rtol=1e-9)
    assert_array_equal(model.coef_[absent], 0)
    assert len(set(model.intercept_[absent])) == 1
    assert_allclose(logits(model, X, [2, 3, 4]), logits(alone, X), rtol=1e-9, atol=1e-9)
    assert set(model.predict(X)) <= {0, 1, 2}


def test_two_present_classes_keep_the_shape_of_all(data):
    X, y, _, _ = data
    some = y != 1
    model = fit(X[some], y[some], classes=[0, 1, 2])
    assert model.coef_.shape == (3, 4)
    assert model.decision_function(X).shape == (len(X), 3)


def test_smoothing_gives_weight_to_every_class(data):
    X, y, _, _ = data
    model = fit(X, y, classes=[0, 1, 2, 3], label_smoothing=0.2)
    rows = 0.8 * np.eye(4)[y] + 0.2 / 4
    assert_allclose(model.predict_proba(X), fit(X, rows).predict_proba(X), **NEAR)
    # An unpenalised intercept matches the mean target.
    assert_allclose(model.predict_proba(X).mean(axis=0), rows.mean(axis=0), **NEAR)


def test_class_weights_that_name_more_than_y_holds(data):
    X, y, _, _ = data
    some = y != 1
    weights = {0: 2.0, 1: 3.0, 2: 0.5}
    named = fit(X[some], y[some], class_weight=weights)
    assert_array_equal(named.coef_, fit(X[some], y[some], class_weight={0: 2.0, 2: 0.5}).coef_)


def test_inputs_are_not_mutated(data):
    X, y, rows, s = data
    copies = [a.copy() for a in (X, y, rows, s)]
    classes, weights = ["x", "w", "z", "y"], {"x": 2.0}
    for target in (NAMES[y], np.column_stack([rows, np.zeros(len(y))])):
        fit(X, target, s, classes=classes, class_weight=weights, label_smoothing=0.1)
    fit(X, rows, s, class_weight="balanced")
    for before, after in zip(copies, (X, y, rows, s), strict=True):
        assert_array_equal(before, after)
    assert classes == ["x", "w", "z", "y"]
    assert weights == {"x": 2.0}


@pytest.mark.parametrize(
    "y",
    [
        np.array([3, -1, 3, 2, -1]),
        np.array([-128, 127, 0] * 100, dtype=np.int8),
        np.array([0, 255] * 300, dtype=np.uint8),
        np.array([2**64 - 1, 2**64 - 2] * 3, dtype=np.uint64),
        np.array([10**12, 0, 5]),
        np.array([], dtype=np.int64),
        np.array(["b", "a", "b"]),
    ],
    ids=["int64", "int8", "uint8", "uint64", "far apart", "empty", "str"],
)
def test_unique_labels_are_those_of_numpy(y):
    present, index = unique_labels(y)
    expected, place = np.unique(y, return_inverse=True)
    assert present.dtype == y.dtype
    assert_array_equal(present, expected)
    assert_array_equal(index, place)
