"""Wrong targets: every one has its error, and an earlier fit stays as it was."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone

from skfc import SoftmaxFCClassifier
from skfc._targets import encode, encode_labels

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
    "one class": (LABELS * 0, "at least two classes; got one class"),
    "one class in rows": (np.eye(3)[LABELS * 0], "at least two classes; got one class"),
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
    "None in classes": ({"classes": [0, None, 2]}, TypeError, "one kind"),
    "smoothing of one": ({"label_smoothing": 1.0}, ValueError, r"in \[0, 1\); got 1.0"),
    "negative smoothing": ({"label_smoothing": -0.1}, ValueError, r"in \[0, 1\); got -0.1"),
    "NaN smoothing": ({"label_smoothing": np.nan}, ValueError, r"in \[0, 1\); got nan"),
    "text smoothing": ({"label_smoothing": "a"}, TypeError, r"in \[0, 1\); got 'a'"),
    "unknown class weight": ({"class_weight": {0: 1, 9: 1}}, ValueError, r"not have: \[9\]"),
    "negative class weight": ({"class_weight": {0: -1}}, ValueError, "finite weights? >= 0"),
    "infinite class weight": ({"class_weight": {0: np.inf}}, ValueError, "finite weights? >= 0"),
    "text class weight": ({"class_weight": {0: "a"}}, ValueError, "finite weights? >= 0"),
    "one class with weight": ({"class_weight": {0: 0, 1: 0}}, ValueError, "one class"),
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
    if "one class" in message:  # also when `classes` names more
        raises(ValueError, message, {"classes": [0, 1, 2]}, y)
        raises(ValueError, message, {"classes": [0, 1, 2], "label_smoothing": 0.1}, y)


@pytest.mark.parametrize(
    ("options", "error", "message"), WRONG_OPTIONS.values(), ids=WRONG_OPTIONS
)
def test_wrong_options(options, error, message):
    raises(error, message, options, LABELS)


def test_wrong_number_of_columns():
    raises(ValueError, "3 columns, but there are 4 classes", {"classes": [0, 1, 2, 3]}, ROWS)
    raises(ValueError, "3 columns, but there are 2 classes", {"classes": [0, 1]}, ROWS)


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
