"""Rows as blocks: one small class per kind of container, with the two products.

A design gives, for a slice of its rows and weights W (n_features, n_columns),

    forward(W, rows)  (n_columns, n_rows)       logits, class-major
    adjoint(R, rows)  (n_features, n_columns)   XᵀRᵀ

and nothing else touches X, but for the sums of rows that a metric needs.
"""

from skfc._design._dense import ArrayDesign, DenseDesign, row_blocks
from skfc._design._sparse import SparseDesign

__all__ = ["ArrayDesign", "DenseDesign", "SparseDesign", "make_design", "row_blocks"]


def make_design(X):
    """The design for validated `X`: a NumPy array, CSR, or an array-API array."""
    import numpy as np
    from scipy import sparse

    if sparse.issparse(X):
        return SparseDesign(X)
    return DenseDesign(X) if isinstance(X, np.ndarray) else ArrayDesign(X)
