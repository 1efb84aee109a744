"""Rows as blocks: one small class per kind of container, with the two products.

A design gives, for a slice of its rows and weights W (n_features, n_columns),

    forward(W, rows)  (n_columns, n_rows)       logits, class-major
    adjoint(R, rows)  (n_features, n_columns)   XᵀRᵀ

and nothing else touches X, but for the sums of rows that a metric needs. `turn` and
`restore` change weights of the columns of X to those of its features, and back.
"""

from skfc._design._dense import ArrayDesign, DenseDesign, row_blocks
from skfc._design._rotation import rotation
from skfc._design._sparse import LITTLE, SparseDesign

__all__ = ["LITTLE", "ArrayDesign", "DenseDesign", "SparseDesign", "make_design", "row_blocks"]


def make_design(X, *, rotate=False):
    """The design for validated `X`: a NumPy array, CSR, or an array-API array.

    With `rotate` its features may be fewer, see :mod:`skfc._design._rotation`.
    """
    import numpy as np
    from scipy import sparse

    if not sparse.issparse(X):
        return DenseDesign(X) if isinstance(X, np.ndarray) else ArrayDesign(X)
    found = rotation(X) if rotate else None
    return SparseDesign(X) if found is None else SparseDesign(found.X, rotation=found)
