"""How input becomes an array: what is read, and what is refused by name."""

from collections.abc import Iterator

import numpy as np

from skfc._array import cast
from skfc._namespaces import (
    HALF,
    SETTING,
    has_namespace,
    in_memory,
    is_array,
    is_dispatched,
    namespace,
    refuse_distributed,
    refuse_foreign,
    to_numpy,
)

# How X is validated, in fit and in predict: no copy of what is already right.
ACCEPTED = {"accept_sparse": "csr", "order": None}

NO_NUMBERS = (
    "X has columns that do not hold numbers: {}. Encode text and categories in a pipeline, as "
    "OneHotEncoder in a ColumnTransformer does, make numbers of dates, and impute what is missing."
)

TEXT = (
    "X holds text: {}. Turn it into numbers in a pipeline: documents with a TfidfVectorizer, "
    "categories with a OneHotEncoder."
)


def as_array(values, what="the input"):
    """`values` itself where its library has a namespace for it, else a NumPy array of it."""
    refuse_distributed(values, what)
    return values if has_namespace(values) else np.asarray(values)


def refuse_unread(value, what):
    """Raise for what holds no rows in order, or has not read them yet."""
    kind = type(value)
    orderless = isinstance(value, dict | set | frozenset | Iterator)
    if orderless and not hasattr(value, "shape"):  # a sparse matrix can be a dict
        raise TypeError(
            f"{what} must be an array, a frame or a list, with an entry for every row; "
            f"got {kind.__name__}."
        )
    if kind.__name__ == "LazyFrame":
        raise TypeError(f"{what} is a LazyFrame, which is not read yet: pass {what}.collect().")


def readable(value, what):
    """`value` itself, in NumPy where it is an array of another library, as scikit-learn does.

    Raises for a Dask collection, and for an array that is out of NumPy's reach, as one in the
    memory of an accelerator is, unless array_api_dispatch=True says to fetch it.
    """
    if value is None or isinstance(value, np.ndarray | np.generic):
        return value
    refuse_distributed(value, what)
    refuse_unread(value, what)
    if not (is_array(value) or hasattr(value, "__dlpack__")):
        return value
    if is_dispatched(value):
        refuse_foreign(value, what)
        return to_numpy(value)
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        kind = type(value)
        raise TypeError(
            f"{what} is a {kind.__module__}.{kind.__qualname__} on "
            f"{getattr(value, 'device', 'another device')}, which NumPy cannot read ({error}). "
            f"With {SETTING} fits run where X is. Without, pass a copy in the memory of the CPU, "
            f"as {what}.detach().cpu().numpy() of a torch tensor."
        ) from error


def as_features(X):
    """`X` as `readable` gives it, or itself where its own library is to do the work.

    Raises where it has more axes than rows and features. Dates are refused by name: they would
    be microseconds or nanoseconds since 1970, by the library and by the types of the other
    columns.
    """
    if is_dispatched(X):
        refuse_foreign(X, "X")
        if namespace(X).isdtype(X.dtype, "complex floating"):
            raise ValueError("Complex data not supported")
        X = in_memory(X)
    else:
        X = readable(X, "X")
    refuse_times(X)
    shape = getattr(X, "shape", None)
    if shape is None and isinstance(X, list | tuple) and depth(X) > 2:
        shape = np.shape(X)
    if shape is not None and len(shape) > 2:
        raise ValueError(
            f"X must have two axes, (n_samples, n_features); found array with dim {len(shape)}, "
            f"of shape {tuple(shape)}. Images and other maps become rows of features in a "
            "pipeline: make_pipeline(skfc.Flatten(), SoftmaxFCClassifier())."
        )
    return X


def float_types(X):
    """The types in which rows are kept as they are; the first is that of all others."""
    if not is_dispatched(X):
        return [np.float64, np.float32]
    xp = namespace(X)
    return [getattr(xp, name) for name in ("float64", "float32", *HALF) if hasattr(xp, name)]


def refuse_times(frame):
    """Raise where columns of a frame hold dates or time spans; others without numbers are named
    with them."""
    times = {name for name, dtype in columns_of(frame) if holds_times(dtype)}
    if times:
        times.update(columns_without_numbers(frame))
        raise ValueError(NO_NUMBERS.format([c for c, _ in columns_of(frame) if c in times]))


def columns_of(frame):
    """Names and types of the columns of a frame; nothing of what is no frame."""
    if not (hasattr(frame, "columns") and hasattr(frame, "dtypes")):
        return []
    return list(zip(frame.columns, frame.dtypes, strict=False))


def holds_times(dtype):
    """Whether a type of pandas, NumPy or polars is that of dates or of time spans."""
    if getattr(dtype, "kind", "") in ("m", "M"):
        return True
    temporal = getattr(dtype, "is_temporal", None)
    return callable(temporal) and temporal()


def about_X(X, message):
    """What an error of scikit-learn's validation should say of X; None: what it says.

    The columns of a frame that it is about have their names.
    """
    if message.startswith(("Input X contains NaN", "Input X contains infinity")):
        wrong = columns_not_finite(X)
        return f"{message}\nThese columns of X hold it: {wrong}." if wrong else None
    wrong = [] if "NaN" in message else columns_without_numbers(X)
    if wrong:
        return NO_NUMBERS.format(wrong)
    _, is_text, value = message.partition("could not convert string to float: ")
    return TEXT.format(value) if is_text else None


def columns_without_numbers(X):
    """Names of the columns of a frame that NumPy makes no numbers of."""
    wrong = []
    for name, _ in columns_of(X):
        try:
            np.asarray(X[name]).astype(np.float64)
        except (TypeError, ValueError):
            wrong.append(name)
    return wrong


def columns_not_finite(X):
    """Names of the columns of a frame that hold NaN, missing values or infinity."""
    wrong = []
    for name, _ in columns_of(X):
        try:
            finite = np.isfinite(np.asarray(X[name], dtype=np.float64)).all()
        except (TypeError, ValueError):  # NA among objects, which NumPy makes no number of
            finite = False
        if not finite:
            wrong.append(name)
    return wrong


def depth(nested):
    """How deep lists are nested, by their first entries."""
    levels = 0
    while isinstance(nested, list | tuple) and nested:
        nested, levels = nested[0], levels + 1
    return levels + len(getattr(nested, "shape", ()))


def as_floating(array, what):
    """`array` in float32 or float64; other real numbers become float64."""
    xp = namespace(array)
    if array.dtype in (xp.float32, xp.float64):
        return array
    if xp is np:
        real = array.dtype.kind in "buif"
    else:
        real = xp.isdtype(array.dtype, ("bool", "integral", "real floating"))
    if not real:
        raise TypeError(f"{what} must hold real numbers; got dtype {array.dtype}.")
    return cast(array, xp.float64)
