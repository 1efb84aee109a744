"""Coordinates for more features than rows: those of the space that the rows span."""

import numpy as np


class RowSpace:
    """X = coordinates @ Q.T, with Q (n_features, n_samples) of orthonormal columns.

    The optimum's coefficients are in the span of the rows, so W = U Qᵀ, and ||W|| = ||U||. Q is
    a product of Householder reflections. With features sorted by size and rows pivoted, every
    feature is kept to its own precision, however much units differ [1]_.

    .. [1] A. Cox, N. Higham, "Stability of Householder QR factorization for weighted least
           squares problems", 1998.
    """

    def __init__(self, X):
        n = len(X)
        self.order = np.argsort(-np.abs(X).max(axis=0), kind="stable")
        A, rows = X.T[self.order], np.arange(n)
        self.reflections = []
        for k in range(n):
            pivot = k + (A[k:, k:] ** 2).sum(axis=0).argmax()
            A[:, [k, pivot]], rows[[k, pivot]] = A[:, [pivot, k]], rows[[pivot, k]]
            v = A[k:, k].copy()
            v[0] += np.copysign(np.sqrt((v**2).sum()), v[0])
            norm = (v**2).sum()
            if norm > 0:
                v *= np.sqrt(2 / norm)
                A[k:, k:] -= np.outer(v, v @ A[k:, k:])
            self.reflections.append(v)
        self.coordinates = np.zeros((n, n), X.dtype)
        self.coordinates[rows] = np.triu(A[:n]).T

    def project(self, W):
        """U of W (n_features, T)."""
        B = W[self.order]
        for k, v in enumerate(self.reflections):
            B[k:] -= np.outer(v, v @ B[k:])
        return B[: len(self.reflections)]
