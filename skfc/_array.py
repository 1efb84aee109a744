"""Array namespaces: the only module that knows which array libraries there are."""

import numpy as np

DISTRIBUTED = ("dask", "dask_expr", "dask_cudf")


def namespace(array):
    """Return the array-API namespace of `array`; NumPy itself for NumPy arrays."""
    if isinstance(array, np.ndarray | np.generic):
        return np
    if hasattr(array, "__array_namespace__"):
        return array.__array_namespace__()
    raise TypeError(
        f"{type(array).__name__} is not an array: expected a NumPy array or one "
        "that implements the array API standard."
    )


def cast(array, dtype):
    """`array` in `dtype`, itself where it has that type already."""
    if array.dtype == dtype:
        return array
    if isinstance(array, np.ndarray | np.generic):
        return array.astype(dtype)
    return namespace(array).astype(array, dtype)


def as_array(values, what="the input"):
    """`values` itself where it is an array of any library, else a NumPy array of it."""
    refuse_distributed(values, what)
    known = isinstance(values, np.ndarray | np.generic) or hasattr(values, "__array_namespace__")
    return values if known else np.asarray(values)


def refuse_distributed(value, what):
    """Raise for a Dask collection, which NumPy would gather without a word.

    It is known by the name of its module: nothing is imported.
    """
    kind = type(value)
    if any(base.__module__.partition(".")[0] in DISTRIBUTED for base in kind.__mro__):
        raise TypeError(
            f"{what} is a Dask collection ({kind.__module__}.{kind.__qualname__}), which is not "
            f"supported. If it fits into the memory of this machine, pass {what}.compute()."
        )


def readable(value, what):
    """`value` itself, in NumPy where it is an array of another library, as scikit-learn does.

    Raises for an array that is out of NumPy's reach, as one in the memory of an accelerator
    is, and for a Dask collection.
    """
    if value is None or isinstance(value, np.ndarray | np.generic):
        return value
    refuse_distributed(value, what)
    if not (hasattr(value, "__array_namespace__") or hasattr(value, "__dlpack__")):
        return value
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        kind, device = type(value), getattr(value, "device", "another device")
        raise TypeError(
            f"{what} is a {kind.__module__}.{kind.__qualname__} on {device}, which NumPy cannot "
            f"read ({error}). Fits run on NumPy arrays: pass a copy in the memory of the CPU, "
            f"as {what}.detach().cpu().numpy() of a torch tensor."
        ) from error


def as_features(X):
    """`X` as `readable` gives it; raises where it has more axes than rows and features."""
    X = readable(X, "X")
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


def as_like(array, like):
    """`array` in the library and on the device of `like`."""
    xp = namespace(like)
    if namespace(array) is xp:
        return array
    return np.asarray(array) if xp is np else xp.asarray(array, device=like.device)


def to_numpy(array):
    """A NumPy view or copy of `array`."""
    return array if isinstance(array, np.ndarray) else np.from_dlpack(array)
