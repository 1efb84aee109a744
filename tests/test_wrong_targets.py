"""Wrong targets: every one has its error, and an earlier fit stays as it was."""

from datetime import date
from decimal import Decimal

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone

from skfc import SoftmaxFCClassifier
from skfc._labels import encode_labels
from skfc._targets import encode

ROWS = np.full((4, 3), 1 / 3)
LABELS = np.array([0, 1, 2, 0])


def changed(rows, place, value):
    rows = rows.copy()
    rows[place] = value
    return rows


WRONG_TARGETS = {
    "rows that sum to more": (changed(ROWS, (2, 0), 0.5), "row 2 sums to 1.16667"),
    "rows that sum to nothing": (changed(ROWS, 1, 0), "row 1 sums to 0"),
    "several labels in a row": (np.array([[1, 0, 1]] * 4), "row 0 sums to 2"),
    "columns of labels": (np.array([[1, 2], [0, 1], [1, 1], [0, 0]]), "must sum to one"),
    "negative": (changed(ROWS, 0, [1.5, -0.5, 0]), "negative entry, -0.5"),
    "NaN": (changed(ROWS, (3, 0), np.nan), "y contains NaN"),
    "infinity": (changed(ROWS, (3, 0), np.inf), "y contains infinity"),
    "text": (ROWS.astype(str), "3 columns must hold numbers"),
    "text objects": (np.array([["a", "b"]] * 4, dtype=object), "2 columns must hold numbers"),
    "three axes": (ROWS[:, :, None], "dim 3"),
    "another length": (ROWS[:3], "inconsistent numbers of samples"),
    "labels of another length": (LABELS[:3], "inconsistent numbers of samples"),
    "fractions": (LABELS + 0.5, "continuous"),
    "huge floats": (LABELS * 1e300, "continuous"),
    "NaN label": (np.where(LABELS, LABELS, np.nan), "NaN"),
    "one class": (LABELS * 0, "at least two classes; got one class.*`classes`"),
    "several labels in a row: who takes them": (
        np.array([[1, 0, 1]] * 4),
        "OneVsRestClassifier",
    ),
    "no label in a row: who takes it": (changed(np.eye(3)[LABELS], 1, 0), "OneVsRestClassifier"),
    "lists of labels": ([[0, 1], [0], [1], [2]], "several lengths.*OneVsRestClassifier"),
    "objects of lists": (
        np.array([[0, 1], [0], [1], None], dtype=object)[[0, 1, 2, 1]],
        "list in a row.*OneVsRestClassifier",
    ),
}
OBJECTS = {
    "int": [0, 1, 2, 0],
    "bool": [False, True, True, False],
    "float": [0.0, 1.0, 2.0, 0.0],
    "decimal.Decimal": [Decimal(0), Decimal(1), Decimal(2), Decimal(0)],
    "datetime.date": [date(2020, 1, day) for day in (1, 2, 3, 1)],
}
WRONG_OPTIONS = {
    "label outside classes": ({"classes": [0, 1]}, ValueError, r"outside the classes.*\[2\]"),
    "labels of another kind": ({"classes": ["0", "1", "2"]}, ValueError, "outside the classes"),
    "classes twice": ({"classes": [0, 1, 2, 1]}, ValueError, r"once; repeated: \[1\]"),
    "no classes": ({"classes": []}, ValueError, r"at least two labels; got \[\]"),
    "one of classes": ({"classes": [0]}, ValueError, "at least two labels"),
    "a word": ({"classes": "abc"}, ValueError, "at least two labels; got 'abc'"),
    "a number": ({"classes": 3}, ValueError, "at least two labels; got 3"),
    "a table": ({"classes": [[0, 1, 2]]}, ValueError, "at least two labels"),
    "ragged": ({"classes": [[0], [1, 2]]}, ValueError, "at least two labels"),
    "NaN in classes": ({"classes": [0, 1, np.nan]}, ValueError, "NaN"),
    "classes of two kinds": ({"classes": [0, "a", 2]}, TypeError, "one kind"),
    "None in classes": ({"classes": [0, None, 2]}, ValueError, r"missing labels \(None\)"),
    "smoothing of one": ({"label_smoothing": 1.0}, ValueError, r"in \[0, 1\); got 1.0"),
    "negative smoothing": ({"label_smoothing": -0.1}, ValueError, r"in \[0, 1\); got -0.1"),
    "NaN smoothing": ({"label_smoothing": np.nan}, ValueError, r"in \[0, 1\); got nan"),
    "text smoothing": ({"label_smoothing": "a"}, TypeError, r"in \[0, 1\); got 'a'"),
    "unknown class weight": (
        {"class_weight": {0: 1, 9: 1}},
        ValueError,
        r"not have: \[9\]. The classes are \[0, 1, 2\]",
    ),
    "negative class weight": ({"class_weight": {0: -1}}, ValueError, "finite weights? >= 0"),
    "infinite class weight": ({"class_weight": {0: np.inf}}, ValueError, "finite weights? >= 0"),
    "text class weight": ({"class_weight": {0: "a"}}, ValueError, "finite weights? >= 0"),
    "no class with weight": ({"class_weight": {0: 0, 1: 0, 2: 0}}, ValueError, "every class"),
}
X4 = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [0.5, 0.0]])


def state(model):
    return {name: np.array(value) for name, value in vars(model).items() if name.endswith("_")}


def raises(error, message, options, y):
    """The fit raises, and an earlier fit is as it was."""
    model = SoftmaxFCClassifier().fit(X4, LABELS)
    before = state(model)
    with pytest.raises(error, match=message):
        model.set_params(**options).fit(X4, y)
    assert before.keys() == state(model).keys()
    for name, value in state(model).items():
        assert_array_equal(value, before[name])
    with pytest.raises(error, match=message):
        clone(model).fit(X4, y)


@pytest.mark.parametrize(("y", "message"), WRONG_TARGETS.values(), ids=WRONG_TARGETS)
def test_wrong_targets(y, message):
    raises(ValueError, message, {}, y)


@pytest.mark.parametrize(("kind", "labels"), OBJECTS.items(), ids=OBJECTS)
def test_objects_are_refused_by_their_type(kind, labels):
    y = np.array(labels, dtype=object)
    raises(ValueError, rf"Unknown label type: y holds objects \({kind}\).*astype\(str\)", {}, y)
    SoftmaxFCClassifier().fit(X4, y.astype(str))


def test_intervals_of_pandas_are_refused_by_their_type():
    pd = pytest.importorskip("pandas")
    y = pd.cut(pd.Series([0.0, 1.0, 2.0, 0.1]), 2)
    raises(ValueError, r"holds objects \(pandas\..*Interval\).*y\.astype\(str\)", {}, y)
    assert len(SoftmaxFCClassifier().fit(X4, y.astype(str)).classes_) == 2


@pytest.mark.parametrize(
    ("options", "error", "message"), WRONG_OPTIONS.values(), ids=WRONG_OPTIONS
)
def test_wrong_options(options, error, message):
    raises(error, message, options, LABELS)


def test_wrong_number_of_columns():
    raises(ValueError, "3 columns, but there are 4 classes", {"classes": [0, 1, 2, 3]}, ROWS)
    raises(ValueError, "3 columns, but there are 2 classes", {"classes": [0, 1]}, ROWS)


def missing_labels():
    """`y` of four labels, some of them missing, and what the error calls those."""
    text = np.array(["a", None, "b", "a"], dtype=object)
    days = np.array(["2020-01-01", "NaT", "2021-01-01", "NaT"], dtype="M8[D]")
    yield "None", text, r"\(None\): 1 of 4, the first at index 1"
    yield "None in a list", text.tolist(), r"\(None\)"
    yield "NaN in a list", ["a", np.nan, "b", "a"], r"\(nan\): 1 of 4"
    yield "NaN among objects", np.array(["a", np.nan, "b", "a"], dtype=object), r"\(nan\)"
    yield "NaT", days, r"\(NaT\): 2 of 4"
    yield "NaT of a time span", days - days[0], r"\(NaT\)"
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
        strings = np.dtypes.StringDType(na_object=None)
        yield "None in strings", np.array(text.tolist(), dtype=strings), r"\(None\)"


@pytest.mark.parametrize(
    ("y", "message"), [c[1:] for c in missing_labels()], ids=[c[0] for c in missing_labels()]
)
def test_missing_labels_are_named(y, message):
    raises(ValueError, "y has missing labels " + message, {}, y)


def test_missing_labels_of_pandas_are_named():
    pd = pytest.importorskip("pandas")
    for values, dtype in (
        ([0, 1, None, 1], "Int64"), ([True, False, None, True], "boolean"),
        ([0.0, 1.0, None, 1.0], "Float64"), (["a", "b", None, "a"], "string"),
        (["a", "b", None, "a"], "category"), (["a", "b", None, "a"], object),
        ([1, 0, pd.NA, 1], object), (["2020", "2021", None, "2020"], "datetime64[ns]"),
    ):  # fmt: skip
        column = pd.Series(values, dtype=dtype)
        for y in (column, column.to_frame()):
            raises(ValueError, "y has missing labels .*1 of 4, the first at index 2", {}, y)
    polars = pytest.importorskip("polars")
    raises(ValueError, "missing labels", {}, polars.Series(["a", None, "b", "a"]))
    raises(ValueError, "NaN", {}, polars.Series([0, None, 1, 0]))


def test_sparse_rows_are_refused():
    sparse = pytest.importorskip("scipy.sparse")
    raises(TypeError, "toarray", {}, sparse.csr_matrix(np.eye(3)[LABELS]))


def test_labels_that_do_not_sort():
    for labels in (["a", None, "b"], ["a", 0, 1]):
        with pytest.raises(TypeError, match="y must hold labels of one kind that sorts"):
            encode_labels(np.array(labels, dtype=object))


def test_wrong_frames():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(ROWS, columns=["a", "b", "c"])
    message = r"columns \['c'\] that are none of the classes \['a', 'b', 'd'\]"
    raises(ValueError, message, {"classes": ["a", "b", "d"]}, frame)
    mixed = pd.DataFrame(ROWS, columns=["a", 1, 2])
    raises(TypeError, "column names of y must be labels of one kind", {}, mixed)
    with pytest.raises(ValueError, match=r"column names of y must name every label once.*\['a'\]"):
        encode(ROWS, names=np.array(["a", "b", "a"]))
