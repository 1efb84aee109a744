"""Coordinates for more features than rows, and for columns that depend on one another."""

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


def column_space(X, *, dependent=1e-14):
    """Orthonormal Q (n, r) and R (r, p) with X = Q R; r leaves out columns of the others' span."""
    n, p = X.shape
    Q, R, r = np.zeros((n, min(n, p)), X.dtype), np.zeros((min(n, p), p), X.dtype), 0
    for j in range(p):
        q = X[:, j].copy()
        for _ in range(3):
            share = Q[:, :r].T @ q
            q -= Q[:, :r] @ share
            R[:r, j] += share
        norm = np.sqrt(q @ q)
        if r < len(R) and norm > dependent * np.sqrt(X[:, j] @ X[:, j]):
            Q[:, r], R[r, j] = q / norm, norm
            r += 1
    return Q[:, :r], R[:r]
