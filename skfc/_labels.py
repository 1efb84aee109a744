"""Labels of any kind as arrays, and as indices of their classes."""

from contextlib import contextmanager
from datetime import date, timedelta

import numpy as np
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from skfc._input import readable

MULTILABEL = (
    "A softmax gives every row one label. Where a row may have several or none, fit one "
    "classifier per label: sklearn.multiclass.OneVsRestClassifier(SoftmaxFCClassifier()) "
    "on an indicator array (n_samples, n_labels) of zeros and ones."
)


def is_rows(y):
    """Whether `y` holds a row per sample (one-hot or probabilities), not labels."""
    return getattr(y, "ndim", 1) == 2 and y.shape[1] > 1


def column_names(y):
    """The column names of a frame; None where `y` is not one or its names are no labels."""
    columns = getattr(y, "columns", None)
    if columns is None or getattr(y, "ndim", 2) != 2:
        return None
    names = np.asarray(columns)
    return names if names.ndim == 1 else None


def plain(y, what="y"):
    """`y` in NumPy's own types, every label as it was; raises where labels are missing.

    Of pandas' nullable columns NumPy would make floats, which merge large integers, and
    scikit-learn takes no `StringDType`. A frame of several columns, a sparse matrix, and
    what is no array is left as it is.
    """
    y = readable(y, what)
    if hasattr(y, "columns") and getattr(y, "ndim", 2) == 2:
        if y.shape[1] != 1:
            return y
        column = y.iloc[:, 0] if hasattr(y, "iloc") else y[y.columns[0]]
        return plain(column, what)[:, None]
    native = getattr(getattr(y, "dtype", None), "numpy_dtype", None)  # pandas' own types
    if native is not None and native.kind in "biufmM" and hasattr(y, "isna"):
        check_missing(np.asarray(y.isna()), lambda row: "NA", what)
        return y.to_numpy(dtype=native)
    if not hasattr(y, "__array__"):
        if not isinstance(y, list | tuple):
            return y
        y = from_list(y, what)
    return plain_array(np.asarray(y), what)


def plain_array(y, what):
    """:func:`plain` for a NumPy array of any type."""
    if y.dtype.kind in "mM":
        check_missing(np.isnat(y), lambda row: "NaT", what)
    elif y.dtype.kind == "T":
        listed = y.tolist()
        check_missing(np.array([not isinstance(v, str) for v in listed]), listed.__getitem__, what)
        return np.array(listed, dtype=str)
    elif y.dtype.kind == "O" and y.ndim == 1:
        check_missing(np.array([missing(v) for v in y], dtype=bool), y.__getitem__, what)
    return y


def from_list(labels, what):
    """An array of listed labels, which does not make text of numbers and None."""
    try:
        array = np.asarray(labels)
    except ValueError:
        raise ValueError(f"{what} holds lists of several lengths. {MULTILABEL}") from None
    text = array.dtype.kind == "U" and array.ndim == 1
    if text and not all(isinstance(label, str) for label in labels):
        return np.array(labels, dtype=object)
    return array


def missing(label):
    """Whether a label is None, NaN, NaT or NA."""
    try:
        return label is None or bool(label != label)
    except TypeError:  # NA is neither equal to itself nor not
        return True
    except ValueError:  # an array or a list of them: no label, but there
        return False


def check_missing(mask, label_of, what):
    """Raise if `mask` (n_samples,) marks labels as missing; `label_of(row)` names one."""
    if mask.any():
        row = int(mask.argmax())
        raise ValueError(
            f"{what} has missing labels ({label_of(row)}): {mask.sum()} of {mask.size}, the "
            f"first at index {row}. Leave them out, or give them a label of their own."
        )


def check_classes(classes, *, what="classes"):
    """The sorted set of labels that a caller gave; raises for duplicates or fewer than two."""
    given = list(classes) if isinstance(classes, set | frozenset | range) else classes
    try:
        shaped = np.ndim(given) == 1 and len(given) > 1
    except ValueError:  # lists of several lengths
        shaped = False
    if not shaped:
        raise ValueError(f"{what} must be a list of at least two labels; got {classes!r}.")
    labels = np.asarray(plain(given, what))
    try:
        unique = np.unique(labels)
    except TypeError:
        raise TypeError(
            f"{what} must be labels of one kind, which can be sorted; got {labels.tolist()}."
        ) from None
    if (unique != unique).any():  # only NaN differs from itself
        raise ValueError(f"{what} must not hold NaN; got {labels.tolist()}.")
    if len(unique) < len(labels):
        found = labels.tolist()
        repeated = [label for label in unique.tolist() if found.count(label) > 1]
        raise ValueError(f"{what} must name every label once; repeated: {repeated}.")
    return unique


def encode_labels(y, classes=None, *, what="y"):
    """`classes`, sorted, and the index of every label; raises for labels outside them."""
    with of_one_kind(what):
        y, present, index = labels_of(y, what)
        refuse_objects(present, what)
        # Whole numbers are labels; of very many classes scikit-learn warns.
        if y.dtype.kind not in "biu" or len(present) > 0.5 * len(y):
            with np.errstate(invalid="ignore"):  # floats beyond int64: refused as no labels
                check_classification_targets(y)
    if classes is None:
        return present, index
    classes, place = places(present, classes, what)
    return classes, place[index]


def refuse_objects(present, what="y"):
    """Raise where the labels that occur are objects, and no text: scikit-learn knows no such."""
    if present.dtype.kind != "O":
        return
    types = {type(label) for label in present}
    if not all(issubclass(kind, str) for kind in types):
        names = sorted(f"{kind.__module__}.{kind.__qualname__}" for kind in types)
        names = ", ".join(names).replace("builtins.", "")
        raise ValueError(
            f"Unknown label type: {what} holds objects ({names}), no type of NumPy's. Labels "
            "are text, whole numbers, booleans or datetime64: convert them, as "
            f"{what}.astype(int) or {what}.astype(str) does."
        )


@contextmanager
def of_one_kind(what="y"):
    """Around what sorts labels: where they do not sort, the error says so."""
    try:
        yield
    except TypeError as error:
        raise TypeError(f"{what} must hold labels of one kind that sorts: {error}") from error


def union(several):
    """The labels of several arrays, sorted, and where those of each stand among them."""
    kinds = sorted({labels.dtype.kind for labels in several})
    with of_one_kind():
        if not (len(kinds) == 1 or set(kinds) <= set("buif") or set(kinds) <= set("OU")):
            raise TypeError(f"got NumPy's kinds {kinds}")
        labels, place = np.unique(np.concatenate(several), return_inverse=True)
    return labels, np.split(place, np.cumsum([len(labels) for labels in several])[:-1])


def labels_of(y, what="y"):
    """`y` as one column, the labels that occur, and the index of every one."""
    y = y if y.ndim == 1 else column_or_1d(y, warn=True)
    if y.dtype.kind == "O" and len(y) and isinstance(y[0], list | tuple | set | np.ndarray):
        raise ValueError(f"{what} holds a {type(y[0]).__name__} in a row. {MULTILABEL}")
    return y, *unique_labels(y)


def places(present, classes, what="y"):
    """The classes, and where the labels `present` stand among them; raises for others."""
    classes, present = same_unit(classes, present)
    known, found = listed(classes), listed(present)
    place = {label: k for k, label in enumerate(known)}
    unknown = [label for label in found if label not in place]
    if unknown:
        raise ValueError(f"{what} holds labels outside the classes {known}: {unknown[:5]}.")
    return classes, np.array([place[label] for label in found], dtype=np.intp)


def same_unit(classes, present):
    """Both in the finer of their units where they are dates or time spans; else as they are.

    `classes` may be objects of `datetime`, as they stand in a list.
    """
    if present.dtype.kind not in "mM":
        return classes, present
    if classes.dtype.kind == "O" and all(isinstance(c, date | timedelta) for c in classes):
        classes = classes.astype(present.dtype.kind + "8")
    if classes.dtype.kind != present.dtype.kind:
        return classes, present
    unit = np.result_type(classes, present)
    return classes.astype(unit), present.astype(unit)


def listed(labels):
    """Labels as Python objects; dates and time spans as text, which says more than integers."""
    return (labels.astype(str) if labels.dtype.kind in "mM" else labels).tolist()


def unique_labels(y):
    """The labels that occur, sorted, and the index of every one of `y`."""
    if y.dtype.kind in "iu" and len(y):
        low, high = int(y.min()), int(y.max())
        if high - low < len(y) and high <= np.iinfo(np.intp).max:  # no need to sort
            place = y.astype(np.intp) - low
            seen = np.zeros(high - low + 1, dtype=bool)
            seen[place] = True
            present = (np.flatnonzero(seen) + low).astype(y.dtype)
            return present, (np.cumsum(seen) - 1)[place]
    return np.unique(y, return_inverse=True)
