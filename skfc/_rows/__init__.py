"""Rows as blocks: the only code that sees X, one small class per kind of container.

Rows hold X with targets, weights and a frame of the features. Everything else asks for

    sum(function, theta, state)   Σ over blocks of a function, with X̃ theta on the way in and
                                  X̃ᵀ residual on the way out; blocks keep state
    gram(weights)                 weighted Gram matrices of standardised rows
    with_prominence, select       for samples of rows
    joined(first, second)         two states as one
    batches(size, rng)            the rows in random order, some at a time
    moments()                     means and standard deviations
    problems(index), single()     some problems only; a copy in single precision

in standardised features, whatever holds the data.
"""

import numpy as np
from scipy import sparse

from skfc._array import as_like, is_numpy, take
from skfc._rows._arrays import ArrayRows
from skfc._rows._base import LocalRows, Sample, columns_of, is_small
from skfc._rows._blocks import Block, Sums, Work
from skfc._rows._calls import Call
from skfc._rows._chunks import Summary, check_alike, features_of, read, read_rows, summary
from skfc._rows._cluster import Here, OnWorkers
from skfc._rows._csr import CSRRows
from skfc._rows._csr_parts import without_duplicates
from skfc._rows._dask import DaskRows
from skfc._rows._dense import DenseRows
from skfc._rows._lean import LOGIT_ARRAYS, LeanRows, logits_fit
from skfc._rows._merge import merge_columns
from skfc._rows._parts import Layout, Part
from skfc._rows._row_space import to_row_space
from skfc._rows._streamed import Streamed, streamed

__all__ = [
    "ArrayRows", "Block", "CSRRows", "Call", "DaskRows", "DenseRows", "Here", "Layout",
    "LeanRows", "LocalRows", "OnWorkers", "Part", "Sample", "Summary", "Sums", "Work",
    "check_alike", "columns_of", "features_of", "is_small", "make_rows", "merge_columns", "read",
    "read_rows", "some_rows", "streamed", "summary", "to_row_space", "without_duplicates",
]  # fmt: skip


def make_rows(X, target, weight, n_classes):
    """The rows of validated `X`: a NumPy array, CSR, an array-API array, or streamed."""
    if sparse.issparse(X):
        return CSRRows(X, target, weight, n_classes=n_classes)
    kind, target, weight = DenseRows, as_like(target, X), as_like(weight, X)
    if not is_numpy(X):  # what is left of a device beside these decides
        n_logits = LOGIT_ARRAYS * weight.shape[1] * weight.shape[0] * n_classes
        fit = logits_fit(X, n_logits)
        kind = ArrayRows if fit else LeanRows
        X = X.keeping(n_logits if fit else 0) if isinstance(X, Streamed) else X
    return kind(X, target, weight, n_classes=n_classes)


def some_rows(X, mask):
    """The rows of validated `X` where a host array is True."""
    return X[mask] if sparse.issparse(X) or is_numpy(X) else take(X, np.flatnonzero(mask))
