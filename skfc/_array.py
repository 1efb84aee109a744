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


def to_numpy(array):
    """A NumPy view or copy of `array`."""
    return array if isinstance(array, np.ndarray) else np.from_dlpack(array)
