"""Parts of a CSR: cuts of equal work, and views of their rows without a copy."""

from itertools import pairwise

import numpy as np

from skfc._rows._blocks import work_of
from skfc._tuned import TUNED

# Stored values for every feature in a block: its product with residuals is summed.
VALUES_PER_SUM = 4


def small_pieces(X):
    """Slices of rows for what copies their values, or gives a number for every feature."""
    values = max(TUNED.small_block_bytes // 4, VALUES_PER_SUM * X.shape[1])
    return even_blocks(X, 1 + X.nnz // values)


def even_blocks(X, n_blocks):
    """Slices of the rows of a CSR with about equal numbers of stored values."""
    n_blocks = max(1, min(n_blocks, X.nnz, X.shape[0]))
    targets = [X.nnz * k // n_blocks for k in range(1, n_blocks)]
    inner = np.searchsorted(X.indptr, targets).tolist()
    edges = sorted({0, *inner, X.shape[0]})
    return [slice(a, b) for a, b in pairwise(edges)]


def without_duplicates(X):
    """A CSR with one stored value per entry: a copy where an entry may have several."""
    if X.has_canonical_format:
        return X
    X = X.copy()
    X.sum_duplicates()
    return X


def stored(X, rows):
    """The slice of the stored values of some rows of a CSR."""
    return slice(X.indptr[rows.start], X.indptr[rows.stop])


def view(X, rows):
    """Some rows of a CSR, without a copy: SciPy's slices would make one."""
    place = stored(X, rows)
    part = type(X)((rows.stop - rows.start, X.shape[1]), dtype=X.dtype)
    part.data, part.indices = X.data[place], X.indices[place]
    part.indptr = X.indptr[rows.start : rows.stop + 1] - place.start
    return part


def transposed_view(X):
    """Xᵀ of a view, a CSC without a copy: SciPy's `X.T` would copy a part of larger arrays."""
    part = type(X)(X.shape, dtype=X.dtype).T
    part.data, part.indices, part.indptr = X.data, X.indices, X.indptr
    return part


def views(X, blocks):
    """Those of every block, by (start, stop)."""
    return {(rows.start, rows.stop): view(X, rows) for rows in blocks}


def by_columns(transposed, n_columns):
    """Views of a CSR of Xᵀ for products with so many columns on threads."""
    n_blocks = work_of(transposed.nnz, 0, n_columns) // (TUNED.block_operations // 4)
    return views(transposed, even_blocks(transposed, n_blocks))


def counts_of(X, pieces):
    """Stored values of every column of a CSR, counted piece by piece."""
    return sum(np.bincount(X.indices[stored(X, rows)], minlength=X.shape[1]) for rows in pieces)
