"""Array namespaces: the only module that knows which array libraries there are."""

import numpy as np


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


def as_array(values):
    """`values` itself where it is an array of any library, else a NumPy array of it."""
    known = isinstance(values, np.ndarray | np.generic) or hasattr(values, "__array_namespace__")
    return values if known else np.asarray(values)


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
