"""Fewer rows than features: an orthogonal change of features leaves as many as there are rows.

The gradient of the loss is a sum of rows, and so is the minimum under an L2 penalty: no weight
outside the space of the rows lowers the loss, and every one there adds to the penalty. In an
orthonormal basis of that space the penalty stays as it is (Hastie and Tibshirani 2004).
"""

import numpy as np
from scipy import linalg, sparse

from skfc._tuned import TUNED

# Operations of the decomposition, times the number of rows squared and the features: those of
# the triangle and of the basis, at a third of the speed of products.
OPERATIONS = 12


class RowSpace:
    """(X - mean) Q, for an orthonormal basis Q of the space of centred rows.

    Householder's triangularisation of the transposed rows, largest features first and rows
    pivoted, leaves errors in every feature that are small beside its own values (Cox and Higham
    1998). A feature of large values takes no digits from the others.

    Attributes
    ----------
    X : array (n_samples, n_left), the product
    Q : array (n_features, n_left)
    mean, rest : arrays (n_features,), whose sum has twice the digits
    largest : array (n_features,), the largest absolute values of X - mean
    """

    def __init__(self, X, share):
        X = (X.toarray() if sparse.issparse(X) else X).astype(np.float64, copy=False)
        self.mean = np.zeros(X.shape[1]) if share is None else share @ X
        A = X - self.mean
        # What all rows have in common is rounding of the mean.
        self.rest = np.zeros(X.shape[1]) if share is None else share @ A
        A -= self.rest
        if share is not None:  # of a constant far from zero, rounding of its mean is no feature
            A[:, X.max(axis=0) == X.min(axis=0)] = 0.0
        self.largest = largest = np.abs(A).max(axis=0)
        order = np.argsort(-largest, kind="stable")
        Q, R, pivots = linalg.qr(A.T[order], mode="economic", pivoting=True, check_finite=False)
        # What repeated rows leave is rounding of the features that a direction takes part of.
        rounding = len(X) * np.finfo(float).eps * (largest[order] @ np.abs(Q))
        kept = np.abs(np.diagonal(R)) > rounding
        self.Q = np.empty((X.shape[1], int(kept.sum())))
        self.Q[order] = Q[:, kept]
        self.X = np.empty((X.shape[0], self.Q.shape[1]))
        self.X[pivots] = R[kept].T

    def presolve(self, coef, intercept):
        """Coefficients (T, n_features) and intercepts (T,) as those of the product."""
        return coef @ self.Q, intercept + coef @ self.rest + coef @ self.mean

    def postsolve(self, coef, intercept):
        """Coefficients and intercepts of the product as those of all features."""
        coef = coef @ self.Q.T
        return coef, intercept - coef @ self.rest - coef @ self.mean


def to_row_space(X, n_classes, share):
    """The :class:`RowSpace` of an array or CSR, or None where it would not pay.

    `share` (n_samples,) are the weights of a mean that is taken off, or None.
    """
    n, N = X.shape
    a_pass = n_classes * (4 * n * N + TUNED.operations_per_logit * n)
    work = OPERATIONS * n**2 * N / TUNED.speed_of_matrices
    if n >= N or n * N > TUNED.few_numbers or work > TUNED.most_passes * a_pass:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        found = RowSpace(X, share)
    finite = np.isfinite(found.X).all() and np.isfinite(found.largest).all()
    return found if finite and found.X.shape[1] else None
