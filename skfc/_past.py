r"""Rows of a stream that are no longer held: their loss as a quadratic function.

When a row x̃ of weight m leaves, the second-order expansion of its loss takes its place: with
probabilities p, residual r = m (p - y) and a step d of theta (P, T),

    l(theta + d) ≈ l + <x̃ rᵀ, d> + <d, (x̃ x̃ᵀ ⊗ m (diag p - p pᵀ)) d> / 2.

The sum over past rows is a value, a gradient and a curvature. The curvature is kept in the
form that its size allows: the matrix, one Kronecker product, or the diagonal.
"""

from dataclasses import dataclass, replace

import numpy as np

from skfc._array import add_to_diagonal, cholesky, cholesky_solve, diagonal
from skfc._tuned import TUNED
from skfc._window import WINDOW_BYTES


@dataclass(frozen=True)
class Curvature:
    """A sum over rows of x̃ x̃ᵀ ⊗ m (diag p - p pᵀ)."""

    parts: tuple

    def plus(self, rows, proba, weight):
        """With more rows (n, P), of probabilities (T, n) and weights (n,)."""
        new = self.of(rows, proba, weight)
        return replace(self, parts=tuple(a + b for a, b in zip(self.parts, new, strict=True)))


@dataclass(frozen=True)
class Past:
    """Past rows and a ridge, in the place of the penalty of an objective of one problem.

        R(theta) = value + <gradient, d> + <d, H d> / 2 + Σ ridge_j theta_jk² / 2,

    with d = theta - there, where value and gradient of the past rows are known.
    """

    value_there: float
    gradient: np.ndarray
    curvature: Curvature
    there: np.ndarray
    ridge: np.ndarray

    @property
    def strict(self):
        """Whether it makes the problem strictly convex, (1,)."""
        return np.array([bool((self.ridge > 0).all())])

    @property
    def quadratic(self):
        """The terms of second order alone: its gradient is their product with a direction."""
        zero = np.zeros_like(self.there)
        return replace(self, value_there=0.0, gradient=zero, there=zero)

    def of_rows(self, theta):
        """Value and gradient of the past rows at `theta`."""
        step = theta - self.there
        curved = self.curvature.times(step)
        value = self.value_there + float((step * (self.gradient + 0.5 * curved)).sum())
        return value, self.gradient + curved

    def value(self, theta):
        """R(theta), (1,)."""
        ridge = 0.5 * (self.ridge[:, None] * theta**2).sum()
        return np.array([self.of_rows(theta)[0] + ridge])

    def add_gradient(self, out, theta):
        """Add ∇R(theta) to `out` in place."""
        out += self.of_rows(theta)[1] + self.ridge[:, None] * theta

    def along(self, theta, direction):
        """R(theta + t direction) as a polynomial of t: value, slope and second derivative."""
        d = self.ridge[:, None] * direction
        slope = ((self.of_rows(theta)[1] * direction) + d * theta).sum()
        second = (direction * (self.curvature.times(direction) + d)).sum()
        return self.value(theta), np.array([slope]), np.array([second])

    def conjugate(self, gradient):
        """A bound of <g, R''⁻¹ g> / 2 by the ridge alone, (1,)."""
        ridge = np.where(self.ridge > 0, self.ridge, np.inf)  # free parameters have no gradient
        return np.array([0.5 * (gradient**2 / ridge[:, None]).sum()])


class FullCurvature(Curvature):
    """The matrix itself, (T, P, T, P)."""

    @classmethod
    def zero(cls, P, T):
        return cls((np.zeros((T, P, T, P)),))

    @staticmethod
    def of(rows, proba, weight):
        T, P = len(proba), rows.shape[1]
        H = np.empty((T, P, T, P))
        for k in range(T):
            for j in range(k + 1):
                pairs = weight * proba[k] * ((j == k) - proba[j])
                H[k, :, j] = gram(rows, pairs)
                H[j, :, k] = H[k, :, j]
        return (H,)

    def times(self, V):
        (H,) = self.parts
        size = V.size
        return (H.reshape(size, size) @ V.T.ravel()).reshape(V.T.shape).T

    def widened(self, place, T):
        """Among T classes, where the present ones stand at `place`."""
        (H,) = self.parts
        wide = np.zeros((T, H.shape[1], T, H.shape[1]))
        wide[np.ix_(place, range(H.shape[1]), place, range(H.shape[1]))] = H
        return FullCurvature((wide,))

    def inverse(self, rows, proba, weight, ridge, free):
        """An approximate inverse of this, the rows' curvature and `ridge`: block per class."""
        (H,) = self.parts
        blocks = [
            H[k, :, k] + gram(rows, weight * proba[k] * (1 - proba[k])) for k in range(len(proba))
        ]
        return BlockInverse.of(blocks, ridge, free)


class KroneckerCurvature(Curvature):
    """A ⊗ S / trace(S), by the Gram matrix A of rows weighted by the traces of theirs."""

    @classmethod
    def zero(cls, P, T):
        return cls((np.zeros((P, P)), np.zeros((T, T))))

    @staticmethod
    def of(rows, proba, weight):
        S = -(weight * proba) @ proba.T
        S = add_to_diagonal(S, proba @ weight)
        return gram(rows, row_traces(proba, weight)), S

    def times(self, V):
        A, S = self.parts
        trace = np.trace(S)
        return (A @ V) @ (S / trace) if trace > 0 else np.zeros_like(V)

    def widened(self, place, T):
        A, S = self.parts
        wide = np.zeros((T, T))
        wide[np.ix_(place, place)] = S
        return KroneckerCurvature((A, wide))

    def inverse(self, rows, proba, weight, ridge, free):
        """An approximate inverse of this, the rows' curvature and `ridge`: one for all classes."""
        A = self.parts[0] + gram(rows, row_traces(proba, weight))
        return BlockInverse.of([A / len(proba)], ridge, free)


class DiagonalCurvature(Curvature):
    """The diagonal, (P, T), for very many features."""

    @classmethod
    def zero(cls, P, T):
        return cls((np.zeros((P, T)),))

    @staticmethod
    def of(rows, proba, weight):
        squares = rows.multiply(rows) if hasattr(rows, "multiply") else rows**2
        return (squares.T @ (weight * proba * (1 - proba)).T,)

    def times(self, V):
        return self.parts[0] * V

    def widened(self, place, T):
        (D,) = self.parts
        wide = np.zeros((len(D), T))
        wide[:, place] = D
        return DiagonalCurvature((wide,))

    def inverse(self, rows, proba, weight, ridge, free):
        """The inverse of the diagonal of this, the rows' curvature and `ridge`."""
        D = self.parts[0] + self.of(rows, proba, weight)[0] + ridge[:, None]
        there = free[:, None] & (D > 0)
        return DiagonalInverse(np.where(there, 1 / np.where(there, D, 1.0), 0.0))


def choose_curvature(P, T):
    """The class of curvature for P parameters per class and T classes."""
    if TUNED.hessian_size >= P * T:
        return FullCurvature
    return KroneckerCurvature if P**2 * 8 <= WINDOW_BYTES else DiagonalCurvature


@dataclass(frozen=True)
class DiagonalInverse:
    """The inverse of a diagonal, on steps that sum to zero over the classes."""

    inverse: np.ndarray

    def __call__(self, gradient):
        return centred(self.inverse * centred(gradient))


@dataclass(frozen=True)
class BlockInverse:
    """Cholesky factors of blocks, one for every class or one for all, scaled to unit diagonals."""

    factors: list
    units: list
    free: np.ndarray

    @classmethod
    def of(cls, blocks, ridge, free):
        """Of `blocks` (P, P) and the diagonal `ridge`; parameters that are not free stay."""
        factors, units = [], []
        for B in blocks:
            d = diagonal(B) + ridge
            unit = np.sqrt(np.where(free & (d > 0), d, 1.0))
            B = np.where(free[:, None] & free, B, 0.0) / unit / unit[:, None]
            np.fill_diagonal(B, 1.0)
            factors.append(safe_cholesky(B))
            units.append(unit)
        return cls(factors, units, free)

    def __call__(self, gradient):
        g = np.where(self.free[:, None], centred(gradient), 0.0)
        if len(self.factors) == 1:
            unit = self.units[0][:, None]
            return centred(cholesky_solve(self.factors[0], g / unit) / unit)
        columns = [
            cholesky_solve(L, g[:, k] / unit) / unit
            for k, (L, unit) in enumerate(zip(self.factors, self.units, strict=True))
        ]
        return centred(np.stack(columns, axis=1))


def safe_cholesky(B):
    """The factor of a matrix of unit diagonal, with the least ridge that makes it definite."""
    if not np.isfinite(B).all():
        raise np.linalg.LinAlgError("the curvature overflows")
    ridge = 1e-10
    while (L := cholesky(add_to_diagonal(B, ridge))) is None:
        ridge *= 100
    return L


def gram(rows, weight):
    """Σ weight x̃ x̃ᵀ, (P, P)."""
    return rows.T @ (rows * weight[:, None])


def row_traces(proba, weight):
    """Traces of m (diag p - p pᵀ), (n,)."""
    return weight * (1 - np.einsum("kn,kn->n", proba, proba))


def centred(V):
    """Without the mean over the classes: it changes no probability."""
    return V - V.mean(axis=1, keepdims=True)
