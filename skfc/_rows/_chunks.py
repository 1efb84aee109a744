"""Chunks of Dask collections, read: validated, encoded, and summed up for the client."""

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from sklearn.utils import check_array

from skfc import _labels, _targets
from skfc._input import ACCEPTED, about_X, as_features, readable
from skfc._rows._csr_parts import without_duplicates
from skfc._rows._parts import Part


def features_of(X):
    """A chunk of X as an array or CSR, as the estimators take them; it may be empty."""
    X = as_features(X)
    types = [np.float64, np.float32]
    try:
        X = check_array(X, ensure_min_samples=0, dtype=types, input_name="X", **ACCEPTED)
    except (TypeError, ValueError) as error:
        if message := about_X(X, str(error)):
            raise ValueError(message) from error
        raise
    if np.iscomplexobj(X):
        raise ValueError("Complex data not supported")
    return without_duplicates(X) if sparse.issparse(X) else X


def joined(chunks):
    """Chunks of rows as one."""
    check_alike([x.shape[1] for x in chunks], map(sparse.issparse, chunks))
    if sparse.issparse(chunks[0]):
        return sparse.vstack(chunks, format="csr")
    return np.concatenate(chunks)


def check_alike(widths, sparse):
    """Raise unless chunks of X have the same features, and all or none of them are sparse."""
    if len(set(widths)) > 1:
        raise ValueError(
            f"The chunks of X have different numbers of features: {sorted(set(widths))}."
        )
    if len(set(sparse)) > 1:
        raise ValueError("Some chunks of X are sparse and some are not: make them all the same.")


def read(chunks, classes, names):
    """The :class:`Part` of a few chunks (X, y, sample_weight), rows without weight left out.

    Labels are encoded by those of the part, rows of probabilities by the columns of `classes`.
    """
    parts = [read_chunk(*chunk, classes, names) for chunk in chunks]
    parts = [part for part in parts if part.X.shape[0]] or parts[:1]
    if len(parts) == 1:
        return parts[0]
    labels, targets = None, [p.target for p in parts]
    if parts[0].labels is not None:
        labels, places = _labels.union([p.labels for p in parts])
        targets = [place[t] for place, t in zip(places, targets, strict=True)]
    weight = np.concatenate([p.weight for p in parts], axis=1)
    return Part(joined([p.X for p in parts]), np.concatenate(targets, axis=-1), weight, labels)


def read_chunk(x, y, sample_weight, classes, names):
    """The part of one chunk of X, y and weights; see :func:`read`."""
    X, y, weight = read_rows(x, y, sample_weight)
    y = check_array(y, ensure_2d=False, ensure_min_samples=0, dtype=None, input_name="y")
    labels = None
    if y.ndim == 1:
        with _labels.of_one_kind():
            _, labels, target = _labels.labels_of(y)
    elif len(y):
        target = _targets.encode_rows(y, classes, names)[1].T
    else:
        target = np.empty((len(classes), 0))
    kept = weight > 0
    if not kept.all():
        X, target, weight = X[kept], target[..., kept], weight[kept]
    return Part(X, target, weight[None], labels)


def read_rows(x, y, sample_weight):
    """A chunk of X, y and weights as arrays of the same rows, y as it is."""
    check_order(x, y, "y")
    check_order(x, sample_weight, "sample_weight")
    X = features_of(x)
    n = X.shape[0]
    y = plain_column(_labels.plain(y, "A chunk of y"))
    weight = plain_column(readable(sample_weight, "weights"))
    weight = _targets.check_weights(weight, (n,), some=False)
    if y.shape[0] != n:
        raise ValueError(f"A chunk of X has {n} rows, and that of y has {y.shape[0]}.")
    return X, y, weight


def check_order(x, other, name):
    """Raise where two frames have the same index in another order.

    Rows go together by their place, as in memory. On a cluster the order may have been lost: a
    shuffle that runs once for X and once for y can give two.
    """
    one, two = getattr(x, "index", None), getattr(other, "index", None)
    if not hasattr(one, "equals") or not hasattr(two, "equals") or one.equals(two):
        return
    with suppress(TypeError):  # what does not sort
        if one.sort_values().equals(two.sort_values()):
            raise ValueError(
                f"{name} has the index of X in another order: rows go together by their place. "
                f"Persist the frame that both come from, or sort the rows of X and {name} alike."
            )


def plain_column(values):
    """A single column as one axis; all else as it is."""
    if getattr(values, "ndim", 1) == 2 and values.shape[1] == 1:
        return np.asarray(values)[:, 0]
    return values


@dataclass(frozen=True)
class Summary:
    """What the client learns of a part.

    Attributes
    ----------
    shape, dtype, n_values, sparse : of X
    labels : those that occur, or None for rows of probabilities
    totals : weights by label, or by class for rows
    one_hot : whether all rows are
    """

    shape: tuple
    dtype: np.dtype
    n_values: int
    sparse: bool
    labels: np.ndarray | None
    totals: np.ndarray
    one_hot: bool


def summary(part):
    """The :class:`Summary` of a part, for a call."""
    X, target, weight = part.X, part.target, part.weight[0]
    if part.labels is not None:
        totals, one_hot = np.bincount(target, weight, len(part.labels)), False
    else:
        totals, one_hot = target @ weight, bool(((target == 0) | (target == 1)).all())
    is_sparse = sparse.issparse(X)
    n_values = X.nnz if is_sparse else X.size
    # A copy: in a part that comes from disk, the labels are a view of all that was read with them.
    labels = None if part.labels is None else part.labels.copy()
    found = Summary(X.shape, X.dtype, n_values, is_sparse, labels, totals, one_hot)
    return found, None
