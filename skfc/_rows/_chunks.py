"""Chunks of Dask collections, read: validated, encoded, and summed up for the client."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from sklearn.utils import check_array

from skfc import _labels, _targets
from skfc._input import ACCEPTED, NO_NUMBERS, as_features, columns_without_numbers, readable
from skfc._rows._csr import without_duplicates
from skfc._rows._tasks import Part


def features_of(X):
    """A chunk of X as an array or CSR, as the estimators take them; it may be empty."""
    X = as_features(X)
    types = [np.float64, np.float32]
    try:
        X = check_array(X, ensure_min_samples=0, dtype=types, input_name="X", **ACCEPTED)
    except (TypeError, ValueError) as error:
        wrong = [] if "NaN" in str(error) else columns_without_numbers(X)
        if not wrong:
            raise
        raise ValueError(NO_NUMBERS.format(wrong)) from error
    if np.iscomplexobj(X):
        raise ValueError("Complex data not supported")
    return without_duplicates(X) if sparse.issparse(X) else X


def joined(chunks):
    """Chunks of rows as one."""
    if len(chunks) == 1:
        return chunks[0]
    if any(map(sparse.issparse, chunks)):
        return sparse.vstack(chunks, format="csr")
    return np.concatenate(chunks)


def read(chunks, classes, names):
    """The :class:`Part` of a few chunks (X, y, sample_weight), rows without weight left out.

    Labels are encoded by those of the part, rows of probabilities by the columns of `classes`.
    """
    parts = [read_chunk(*chunk, classes, names) for chunk in chunks]
    if len(parts) > 1:
        labels = None if parts[0].labels is None else [p.labels for p in parts]
        targets = [p.target for p in parts]
        if labels is not None:
            labels, place = np.unique(np.concatenate(labels), return_inverse=True)
            ends = np.cumsum([len(p.labels) for p in parts])[:-1]
            targets = [p[t] for p, t in zip(np.split(place, ends), targets, strict=True)]
        X = joined([p.X for p in parts])
        weight = np.concatenate([p.weight for p in parts], axis=1)
        return Part(X, np.concatenate(targets, axis=-1), weight, labels)
    return parts[0]


def read_chunk(x, y, sample_weight, classes, names):
    """The part of one chunk of X, y and weights; see :func:`read`."""
    X = features_of(x)
    n = X.shape[0]
    y, weight = plain_column(_labels.plain(y)), plain_column(readable(sample_weight, "weights"))
    weight = _targets.check_weights(weight, (n,), some=False)
    if y.shape[0] != n:
        raise ValueError(f"A chunk of X has {n} rows, and that of y has {y.shape[0]}.")
    y = check_array(y, ensure_2d=False, ensure_min_samples=0, dtype=None, input_name="y")
    labels = None
    if y.ndim == 1:
        _, labels, target = _labels.labels_of(y)
    elif n:
        target = _targets.encode_rows(y, classes, names)[1].T
    else:
        target = np.empty((len(classes), 0))
    kept = weight > 0
    if not kept.all():
        X, target, weight = X[kept], target[..., kept], weight[kept]
    return Part(X, target, weight[None], labels)


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
