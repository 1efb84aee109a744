"""Dask collections, checked before any work, and cut into chunks of the same rows.

Dask is never imported here: a collection is there when one is given.
"""

import numpy as np
from sklearn.utils.validation import validate_data

from skfc._array import is_distributed
from skfc._input import refuse_times


def is_array(collection):
    """Whether a collection is a Dask array."""
    return hasattr(type(collection), "rechunk")  # a Delayed has every attribute


def check_collection(value, name, beside="X"):
    """Raise unless `value` is a Dask array or frame."""
    if not is_distributed(value):
        raise TypeError(
            f"{name} must be a Dask collection as {beside} is; got {type(value).__name__}. "
            "dask.array.from_array makes one of an array."
        )
    kind = type(value)
    if not (is_array(value) or hasattr(kind, "map_partitions")):
        raise TypeError(
            f"{name} must be a Dask array or frame; got a {kind.__module__}.{kind.__qualname__}."
        )


def chunked(value):
    """An array with all of its columns in one chunk; a frame is left as it is."""
    if is_array(value) and value.ndim == 2 and value.numblocks[1] > 1:
        return value.rechunk({1: -1})
    return value


def lengths(value):
    """Numbers of rows by chunk, NaN where they are not known."""
    return value.chunks[0] if is_array(value) else (np.nan,) * value.npartitions


def aligned(value, X, name):
    """`value` (y, or weights) in chunks of the rows of X."""
    check_collection(value, name)
    if is_array(value) and value.ndim not in (1, 2):
        raise ValueError(f"{name} must have one or two axes; got shape {value.shape}.")
    if value.ndim == 2 and np.isnan(value.shape[1]):
        raise ValueError(
            f"{name} has an unknown number of columns: call {name}.compute_chunk_sizes()."
        )
    value, there, here = chunked(value), lengths(X), lengths(value)
    if not (np.isnan(there).any() or np.isnan(here).any()):
        if sum(here) != sum(there):
            raise ValueError(f"{name} has {sum(here)} rows, but X has {sum(there)}.")
        if here != there:
            return value.rechunk({0: there})
    elif len(here) != len(there):
        raise ValueError(
            f"{name} has {len(here)} chunks and X has {len(there)}, of unknown sizes: give both "
            f"the same chunks. X.compute_chunk_sizes() and {name}.compute_chunk_sizes() find the "
            "sizes of arrays, to_dask_array(lengths=True) those of frames."
        )
    return value


def pieces(value):
    """The chunks of a collection, a list of `Delayed`.

    The graph is left as it is. Optimized for each collection by itself, what X and y have in
    common would run twice; and where it gives other rows each time, they would not fit together.
    """
    if value is None:
        return None
    found = value.to_delayed(optimize_graph=False)
    return found.ravel().tolist() if is_array(value) else found


def check_features(estimator, X, reset):
    """Check names and number of the features of a collection, before any work."""
    check_collection(X, "X", "y")
    if X.ndim != 2:
        raise ValueError(f"X must have two axes, (n_samples, n_features); got {X.ndim}.")
    refuse_times(X)
    if not is_array(X):
        import pandas

        stub = pandas.DataFrame(columns=X.columns)
    else:
        if np.isnan(X.shape[1]):
            raise ValueError("X has an unknown number of features: call X.compute_chunk_sizes().")
        stub = np.empty((1, X.shape[1]))
    if stub.shape[1] == 0:
        raise ValueError("Found array with 0 feature(s) while a minimum of 1 is required.")
    validate_data(estimator, stub, reset=reset, skip_check_array=True)
    return chunked(X)
