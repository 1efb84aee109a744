"""The factor of a Hessian that conjugate gradients are preconditioned with."""

import numpy as np
from scipy import linalg

from benchmarks.hostile.objective import Long

# Multiplications up to which a Hessian is summed and factorised in extended precision.
AFFORDABLE = 1e8


def hessian(X, P, weight, penalty):
    """The Hessian (T p, T p), class by class, in the dtype of X.

    Where one vector is added to all classes the loss stays the same: there the mean of the
    classes' own blocks is put in.
    """
    p, T = X.shape[1], P.shape[1]
    H = np.empty((T, p, T, p), X.dtype)
    gauge = np.zeros((p, p), X.dtype)
    for k in range(T):
        for m in range(k + 1):
            share = weight * P[:, k] * ((k == m) - P[:, m])
            H[k, :, m] = X.T @ (share[:, None] * X)
            H[m, :, k] = H[k, :, m].T
        H[k, np.arange(p), k, np.arange(p)] += penalty
        gauge += H[k, :, k] / T**2
    H += gauge[None, :, None, :]
    return H.reshape(T * p, T * p)


def cholesky(A):
    """Lower factor in extended precision."""
    L = np.zeros_like(A)
    for j in range(len(A)):
        column = A[j:, j] - L[j:, :j] @ L[j, :j]
        if not column[0] > 0:
            raise linalg.LinAlgError("not positive definite")
        L[j:, j] = column / np.sqrt(column[0])
    return L


def substitute(L, b):
    """L⁻ᵀ L⁻¹ b in extended precision."""
    x = b.copy()
    for j in range(len(L)):
        x[j] = (x[j] - L[j, :j] @ x[:j]) / L[j, j]
    for j in reversed(range(len(L))):
        x[j] = (x[j] - L[j + 1 :, j] @ x[j + 1 :]) / L[j, j]
    return x


def make_factor(X, P, weight, penalty):
    """A function that applies an approximate inverse of the Hessian to an array (p, T)."""
    (n, p), T = X.shape, P.shape[1]
    size = p * T
    exact = n * size**2 / 2 + size**3 / 3 < AFFORDABLE
    dtype = Long if exact else np.float64
    H = hessian(*(a.astype(dtype) for a in (X, P, weight, penalty)))
    scale = 1 / np.sqrt(np.maximum(np.diag(H), np.finfo(dtype).tiny))
    H *= scale[:, None]
    H *= scale
    jitter = 4 * np.finfo(dtype).eps
    while True:
        try:
            shifted = H + np.diag(np.full(size, dtype(jitter)))
            L = cholesky(shifted) if exact else linalg.cholesky(shifted, lower=True)
            break
        except linalg.LinAlgError:
            jitter *= 10

    def solve(G):
        b = G.T.ravel().astype(Long)
        norm = np.abs(b).max() or 1
        b = (b / norm).astype(dtype) * scale
        x = substitute(L, b) if exact else linalg.cho_solve((L, True), b)
        return (x * scale).astype(Long).reshape(T, p).T * norm

    return solve
