"""What everyday code passes: nullable columns, dates, other libraries' arrays, images."""

from datetime import date, datetime
from decimal import Decimal

import numpy as np
import problems
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline

from skfc import (
    Flatten,
    SoftmaxFCClassifier,
    SoftmaxFCClassifierCV,
    neg_log_loss_scorer,
    softmax,
)

IDS = np.array([5, 2**60 + 1, 2**60 + 2])  # one float for two of them
DAYS = np.array(["2019-12-31", "2020-06-01", "2021-01-01"], dtype="M8[D]")


@pytest.fixture(scope="module")
def data():
    return problems.overlapping(150)


@pytest.fixture(scope="module")
def plain(data):
    return SoftmaxFCClassifier().fit(*data)


def assert_same_fit(model, plain, X, y, labels):
    """`labels` are the three classes, `y` holds them in another form."""
    assert model.classes_.dtype == labels.dtype
    assert_array_equal(model.classes_, labels)
    assert_array_equal(model.coef_, plain.coef_)
    assert_array_equal(model.predict(X), labels[plain.predict(X)])
    assert model.score(X, y) == plain.score(X, indices(y, labels))
    assert model.log_loss(X, y) == plain.log_loss(X, indices(y, labels))
    assert neg_log_loss_scorer(model, X, y) == -model.log_loss(X, y)


def indices(y, labels):
    """0, 1, 2 for the labels of `y`, by way of text, which keeps every digit."""
    place = {str(label): k for k, label in enumerate(labels.tolist())}
    return np.array([place[str(label)] for label in y])


@pytest.mark.parametrize("dtype", ["Int64", "int64"])
def test_nullable_integers_keep_type_and_every_digit(data, plain, dtype):
    pd = pytest.importorskip("pandas")
    X, y = data
    for column in (pd.Series(IDS[y], dtype=dtype), pd.array(IDS[y], dtype=dtype)):
        assert_same_fit(SoftmaxFCClassifier().fit(X, column), plain, X, column, IDS)
    named = SoftmaxFCClassifier(classes=pd.Series(IDS, dtype=dtype)).fit(X, column)
    assert_same_fit(named, plain, X, column, IDS)
    small = SoftmaxFCClassifier().fit(X, pd.Series(y, dtype="UInt8"))
    assert small.predict(X).dtype == np.uint8
    frame = pd.Series(IDS[y], dtype=dtype).to_frame("id")
    with pytest.warns(UserWarning, match="column-vector"):
        assert_array_equal(SoftmaxFCClassifier().fit(X, frame).classes_, IDS)
    search = SoftmaxFCClassifierCV(Cs=[1.0], cv=3, scoring="accuracy").fit(X, column)
    assert_array_equal(search.classes_, IDS)
    assert search.score(X, column) == np.mean(search.predict(X) == IDS[y])


def test_nullable_booleans_floats_and_text(data):
    pd = pytest.importorskip("pandas")
    X, y = data
    for values, dtype in ((y > 0, "boolean"), (y / 1.0, "Float64")):
        model = SoftmaxFCClassifier().fit(X, pd.Series(values, dtype=dtype))
        assert model.predict(X).dtype == values.dtype
        assert_array_equal(model.classes_, np.unique(values))
    text = np.array(["a", "b", "c"])[y]
    for dtype in ("string", "category", object):
        model = SoftmaxFCClassifier().fit(X, pd.Series(text, dtype=dtype))
        assert model.classes_.tolist() == ["a", "b", "c"]
        assert model.score(X, pd.Series(text, dtype=dtype)) == np.mean(model.predict(X) == text)


def test_numpy_strings(data, plain):
    pytest.importorskip("numpy", minversion="2.0")
    X, y = data
    labels = np.array(["a", "b", "c, a longer one"], dtype=np.dtypes.StringDType())
    model = SoftmaxFCClassifier().fit(X, labels[y])
    assert model.classes_.tolist() == labels.tolist()
    assert_array_equal(model.coef_, plain.coef_)
    assert_array_equal(model.predict(X) == labels[y], plain.predict(X) == y)
    assert model.score(X, labels[y]) == plain.score(X, y)
    assert model.log_loss(X, labels[y]) == plain.log_loss(X, y)
    named = SoftmaxFCClassifier(classes=labels).fit(X, labels[y])
    assert_array_equal(named.coef_, model.coef_)


@pytest.mark.parametrize("unit", ["s", "us", "ns"])
def test_dates_in_another_unit(data, plain, unit):
    X, y = data
    fine = DAYS.astype(f"M8[{unit}]")
    for days in (DAYS, DAYS.tolist(), [datetime(d.year, d.month, d.day) for d in DAYS.tolist()]):
        model = SoftmaxFCClassifier(classes=days).fit(X, fine[y])
        assert_array_equal(model.classes_, DAYS)
        assert_array_equal(model.predict(X), DAYS[plain.predict(X)])
        assert_array_equal(model.coef_, plain.coef_)
        assert model.log_loss(X, DAYS[y]) == plain.log_loss(X, y)
    coarse = SoftmaxFCClassifier(classes=fine).fit(X, DAYS[y])
    assert_array_equal(coarse.classes_, DAYS)
    with pytest.raises(ValueError, match=r"outside the classes.*2021-01-01"):
        SoftmaxFCClassifier(classes=DAYS[:2]).fit(X, fine[y])
    with pytest.raises(ValueError, match="outside the classes"):
        SoftmaxFCClassifier(classes=[date(2020, 6, 1), date(2021, 1, 1)]).fit(X, fine[y])
    spans = fine - fine[0]
    model = SoftmaxFCClassifier(classes=DAYS - DAYS[0]).fit(X, spans[y])
    assert_array_equal(model.classes_, spans)


def test_weights_of_objects(data, rng):
    X, y = data
    weight = rng.integers(1, 8, len(y)) / 4
    expected = SoftmaxFCClassifier().fit(X, y, sample_weight=weight)
    for given in (weight.astype(object), [Decimal(w) for w in weight], weight.tolist()):
        model = SoftmaxFCClassifier().fit(X, y, sample_weight=given)
        assert_array_equal(model.coef_, expected.coef_)
        assert model.log_loss(X, y, given) == expected.log_loss(X, y, weight)
    pd = pytest.importorskip("pandas")
    nullable = pd.Series(weight, dtype="Float64")
    assert_array_equal(SoftmaxFCClassifier().fit(X, y, nullable).coef_, expected.coef_)


def test_images_ask_for_flatten(data, rng):
    maps, y = rng.standard_normal((60, 2, 3, 3)), np.arange(60) % 3
    for X in (maps, maps.tolist()):
        with pytest.raises(ValueError, match=r"dim 4, of shape \(60, 2, 3, 3\).*skfc\.Flatten"):
            SoftmaxFCClassifier().fit(X, y)
        with pytest.raises(ValueError, match=r"skfc\.Flatten"):
            SoftmaxFCClassifierCV().fit(X, y)
    pipeline = make_pipeline(Flatten(), SoftmaxFCClassifier()).fit(maps, y)
    assert pipeline.predict(maps).shape == (60,)
    with pytest.raises(ValueError, match=r"skfc\.Flatten"):
        pipeline[-1].predict(maps)


def test_what_the_error_about_several_labels_names_works(data):
    X, y = data
    several = np.column_stack([y == 0, y > 0, y == 2]).astype(int)
    with pytest.raises(ValueError, match="OneVsRestClassifier"):
        SoftmaxFCClassifier().fit(X, several)
    model = OneVsRestClassifier(SoftmaxFCClassifier()).fit(X, several)
    assert model.predict(X).shape == several.shape
    assert model.score(X, several) > 0.5


def test_what_the_error_about_columns_of_labels_names_works(data):
    X, y = data
    several = np.column_stack([y, y[::-1]])
    with pytest.raises(ValueError, match=r"sums to \d.*MultiOutputClassifier"):
        SoftmaxFCClassifier().fit(X, several)
    model = MultiOutputClassifier(SoftmaxFCClassifier()).fit(X, several)
    assert model.predict(X).shape == several.shape
    counts = np.eye(3)[y] * 5 + 1
    with pytest.raises(ValueError, match=r"sums to 8\. Counts .* divided by its sum"):
        SoftmaxFCClassifier().fit(X, counts)
    SoftmaxFCClassifier().fit(X, counts / counts.sum(axis=1, keepdims=True))
    with pytest.raises(ValueError, match=r"sums to 0\.75\.$"):
        SoftmaxFCClassifier().fit(X, 0.75 * np.eye(3)[y])


@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize("kind", ["text", "category", "dates"])
def test_columns_without_numbers_are_named(data, library, kind):
    pd = pytest.importorskip(library)
    X, y = data
    wrong = {"text": list("uvw"), "category": list("uvw"), "dates": DAYS.astype("M8[us]")}[kind]
    column = pd.Series(np.asarray(wrong)[y])
    if kind == "category":
        column = column.astype("category") if library == "pandas" else column.cast(pd.Categorical)
    bad = pd.DataFrame({"x": X[:, 0], "when": column})
    message = r"columns that do not hold numbers: \['when'\]\. Encode text .*OneHotEncoder"
    for estimator in (SoftmaxFCClassifier(), SoftmaxFCClassifierCV(cv=3)):
        with pytest.raises(ValueError, match=message):
            estimator.fit(bad, y)
    model = SoftmaxFCClassifier().fit(pd.DataFrame({"x": X[:, 0], "when": X[:, 1]}), y)
    with pytest.raises(ValueError, match=message):
        model.predict(bad)
    both = bad.assign(more="u") if library == "pandas" else bad.with_columns(more=pd.lit("u"))
    with pytest.raises(ValueError, match=r"numbers: \['when', 'more'\]"):
        SoftmaxFCClassifier().fit(both, y)
    if kind == "dates":  # NumPy would make numbers of them
        with pytest.raises(ValueError, match=message):
            SoftmaxFCClassifier().fit(bad[["when"]], y)


@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize("missing", [None, np.nan, np.inf, -np.inf])
def test_columns_that_are_not_finite_are_named(data, library, missing):
    pd = pytest.importorskip(library)
    X, y = data
    columns = {"a": X[:, 0], "b": [missing, *X[1:, 1]], "c": X[:, 0], "d": [missing, *X[1:, 0]]}
    found = "infinity" if missing in (np.inf, -np.inf) else "NaN"
    message = rf"(?s)^Input X contains {found}.*These columns of X hold it: \['b', 'd'\]\.$"
    bad = pd.DataFrame(columns)
    for estimator in (SoftmaxFCClassifier(), SoftmaxFCClassifierCV(cv=3)):
        with pytest.raises(ValueError, match=message):
            estimator.fit(bad, y)
    good = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "c": X[:, 0], "d": X[:, 0]})
    with pytest.raises(ValueError, match=message):
        SoftmaxFCClassifier().fit(good, y).predict(bad)
    if library == "pandas":
        with pytest.raises(ValueError, match=message):
            SoftmaxFCClassifier().fit(bad.astype("Float64"), y)


@pytest.mark.parametrize("kind", ["documents", "array", "objects"])
def test_text_without_column_names_is_called_text(data, kind):
    _, y = data
    documents = ["a good film"] * len(y)
    rows = np.array([documents] * 2).T
    bad = {"documents": documents, "array": rows, "objects": rows.astype(object)}[kind]
    message = "X holds text: .*'a good film'.*TfidfVectorizer.*OneHotEncoder"
    for estimator in (SoftmaxFCClassifier(), SoftmaxFCClassifierCV(cv=3)):
        with pytest.raises(ValueError, match=message):
            estimator.fit(bad, y)


@pytest.mark.parametrize("kind", [dict, set, iter], ids=lambda kind: kind.__name__)
def test_what_has_no_rows_in_order_is_refused_without_printing_it(data, plain, kind):
    X, y = data
    given = kind(enumerate(y.tolist()))
    message = "{} must be an array, a frame or a list, with an entry for every row; got [a-z]+.$"
    for name in ("X", "y", "sample_weight"):
        arguments = {"X": X, "y": y, "sample_weight": None} | {name: given}
        with pytest.raises(TypeError, match=message.format(name)):
            SoftmaxFCClassifier().fit(**arguments)
    with pytest.raises(TypeError, match=message.format("y")):
        plain.log_loss(X, given)


def test_lazy_frames_are_refused_by_name(data):
    pl = pytest.importorskip("polars")
    X, y = data
    lazy = pl.DataFrame(X).lazy()
    with pytest.raises(TypeError, match=r"X is a LazyFrame, .*X\.collect\(\)"):
        SoftmaxFCClassifier().fit(lazy, y)


# -- other libraries --------------------------------------------------------------------


class Collection:
    """Stands for a Dask array: gathered by NumPy if it is asked to."""

    ndim, shape = 2, (150, 4)

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("gathered")

    def __len__(self):
        return 150


Collection.__module__ = "dask.array.core"


class Frame(Collection):  # of a library of frames on top of it
    pass


@pytest.mark.parametrize("kind", [Collection, Frame])
def test_dask_collections_are_refused_by_name(data, plain, kind):
    X, y = data
    many, message = kind(), "{} is a Dask collection .*compute"
    for estimator in (SoftmaxFCClassifier(), SoftmaxFCClassifierCV(cv=3)):
        for name, given in (("y", (X, many)), ("sample_weight", (X, y, many))):
            with pytest.raises(TypeError, match=message.format(name)):
                clone(estimator).fit(*given)
    for method in (SoftmaxFCClassifierCV(cv=3).fit, plain.partial_fit):
        with pytest.raises(TypeError, match=message.format("X")):
            method(many, y)
    # These take Dask's arrays and frames, which this is none of.
    for method in (plain.predict, plain.predict_proba, plain.decision_function):
        with pytest.raises(TypeError, match="X must be a Dask array or frame"):
            method(many)
    with pytest.raises(TypeError, match="X must be a Dask array or frame"):
        SoftmaxFCClassifier().fit(many, y)
    for method in (plain.score, plain.log_loss):
        with pytest.raises(TypeError, match=message.format("y")):
            method(X, many)
        with pytest.raises(TypeError, match=message.format("sample_weight")):
            method(X, y, many)
    flatten = Flatten().fit(X)
    for method in (softmax, Flatten().fit, flatten.transform, flatten.inverse_transform):
        with pytest.raises(TypeError, match="Dask collection"):
            method(many)


def test_arrays_of_other_libraries_become_numpy(data, plain):
    xp = pytest.importorskip("array_api_strict")
    X, y = data
    weight = np.linspace(0.5, 2, len(y))
    expected = SoftmaxFCClassifier().fit(X, y, weight)
    given = xp.asarray(X), xp.asarray(y), xp.asarray(weight)
    model = SoftmaxFCClassifier().fit(*given)
    assert_array_equal(model.coef_, expected.coef_)
    assert isinstance(model.predict(given[0]), np.ndarray)
    assert_array_equal(model.predict(given[0]), expected.predict(X))
    assert model.score(*given) == expected.score(X, y, weight)
    assert model.log_loss(*given) == expected.log_loss(X, y, weight)
    assert isinstance(model.coef_, np.ndarray)


class OnAccelerator:
    """Stands for a tensor in the memory of a GPU."""

    device, ndim, shape = "cuda:0", 2, (150, 4)

    def __dlpack__(self, **options):
        raise BufferError("not on the CPU")

    def __array__(self, dtype=None, copy=None):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def __len__(self):
        return 150


def test_arrays_out_of_reach_are_refused_with_what_helps(data, plain):
    X, y = data
    message = r"X is a .*OnAccelerator on cuda:0, which NumPy cannot read .*"
    message += r"array_api_dispatch=True.*X\.detach\(\)\.cpu"
    for method in (SoftmaxFCClassifier().fit, SoftmaxFCClassifierCV().fit):
        with pytest.raises(TypeError, match=message):
            method(OnAccelerator(), y)
    with pytest.raises(TypeError, match=message):
        plain.predict(OnAccelerator())
    with pytest.raises(TypeError, match=r"y is a .*OnAccelerator"):
        plain.log_loss(X, OnAccelerator())


# -- all the weight on one class ---------------------------------------------------------


WAYS = ["classes=", "empty columns", "zero sample weight", "zero class weight"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("C", [1.0, np.inf])
def test_all_the_weight_on_one_class(data, rng, way, fit_intercept, C):
    """Zero coefficients; 0.5 / (s + 0.5 u) for each of the u = 2 others, in every row."""
    X, y = data
    weight, one = rng.uniform(0.5, 2, len(y)), y == 1
    s = weight[one].sum()
    options = {"fit_intercept": fit_intercept, "C": C}
    if way == "classes=":
        options["classes"], given = [0, 1, 2], (X[one], y[one], weight[one])
    elif way == "empty columns":
        given = X[one], np.eye(3)[y[one]], weight[one]
    elif way == "zero sample weight":
        given = X, y, weight * one
    else:
        options["class_weight"], given = {0: 0.0, 2: 0.0}, (X, y, weight)
    model = SoftmaxFCClassifier(**options).fit(*given)
    assert_array_equal(model.classes_, [0, 1, 2])
    assert not model.coef_.any()
    stated = np.array([0.5, s, 0.5]) / (s + 0.5 * 2)
    assert_allclose(model.predict_proba(X), np.tile(stated, (len(X), 1)), rtol=1e-13)
    assert_array_equal(model.predict(X), 1)
    if fit_intercept:
        assert abs(model.intercept_.sum()) <= 1e-12
    assert np.isfinite(model.log_loss(X, y))
    assert (model.n_iter_, model.optimality_gap_) == (0, 0.0)
    assert_array_equal(model.loss_curve_, [0.0])
    assert model.solver_ == "lbfgs"
    again = clone(model).set_params(warm_start=True, solver="gd").fit(*given)
    assert again.fit(*given).solver_ == "gd"
    assert_array_equal(again.intercept_, model.intercept_)


def test_all_the_weight_on_one_class_in_float32_and_with_smoothing(data):
    X, y = data
    one = y == 1
    single = SoftmaxFCClassifier(classes=[0, 1]).fit(X[one].astype(np.float32), y[one])
    assert single.coef_.dtype == single.intercept_.dtype == np.float32
    smoothed = SoftmaxFCClassifier(classes=[0, 1], label_smoothing=0.2).fit(X[one], y[one])
    # Every class has weight by it: the optimum is the null model.
    assert_allclose(smoothed.predict_proba(X[one])[:, 0], 0.1, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:C_=.* is the smallest of Cs:UserWarning")
@pytest.mark.parametrize("refit", [True, False])
def test_folds_of_one_class(data, refit):
    X, y = data
    one, others = np.flatnonzero(y == 1), np.flatnonzero(y != 1)
    split = [(one, others), (others, one), (np.arange(len(y)), others)]
    model = SoftmaxFCClassifierCV(Cs=[0.1, 1.0, 10.0], cv=split, refit=refit).fit(X, y)
    for k, (train, test) in enumerate(split):
        for i, C in enumerate(model.Cs_):
            alone = SoftmaxFCClassifier(C=C, classes=[0, 1, 2]).fit(X[train], y[train])
            assert_allclose(-model.scores_[k, i], alone.log_loss(X[test], y[test]), rtol=2e-3)
    assert not model.coefs_paths_[0].any()
    assert_allclose(model.scores_[0], np.log(0.5 / (len(one) + 1.0)), rtol=1e-9)


@pytest.mark.parametrize("refit", [True, False])
def test_a_search_where_every_fold_holds_one_class(data, refit, capsys):
    X, y = data
    X, y = X[y == 1], y[y == 1]
    search = SoftmaxFCClassifierCV(Cs=[1.0], classes=[0, 1, 2], cv=3, refit=refit, verbose=1)
    model = search.fit(X, y)
    n = len(y) if refit else len(y) * 2 / 3
    assert_allclose(model.predict_proba(X[:1])[0, 0], 0.5 / (n + 1.0), rtol=1e-2)
    assert not model.coef_.any()
    assert model.solver_ == "lbfgs"
    assert (model.n_iter_, model.optimality_gap_) == (0, 0.0)


def test_one_label_where_no_other_is_known(data):
    X, y = data
    for estimator in (SoftmaxFCClassifier(), SoftmaxFCClassifierCV(cv=2)):
        with pytest.raises(ValueError, match=r"two classes; got one class, \[1\].*`classes`"):
            estimator.fit(X[y == 1], y[y == 1])
