r"""The step of a quadratic model under a sum of absolute values, by coordinate descent.

With the Hessian H and the gradient g of the smooth part at u⁰, find

    argmin_u  <g, u - u⁰> + <u - u⁰, H (u - u⁰)> / 2 + sum_i t_i |u_i|

Coordinates of t_i = 0, the intercepts, are eliminated: for any others their best values are
linear. In units of 1 / t_i the rest is a lasso, with the Cholesky factor of H for its features.
scikit-learn's compiled coordinate descent finds the signs of its solution; on these signs the
model is smooth, and solved directly.
"""

import warnings
from threading import Lock

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import enet_path

from skfc._tuned import TUNED

# The filters of warnings belong to the process, and fits run side by side.
QUIET = Lock()


def minimise(H, gradient, start, thresholds, accuracy, rounds):
    """The solution u (m,), which has exact zeros.

    Parameters
    ----------
    H : (m, m), positive semidefinite up to rounding
    gradient, start : (m,), g and u⁰
    thresholds : (m,), t
    accuracy : how far from the subdifferential zero may be, in units of t
    rounds : after so many rounds of sweeps and a direct solution, it may be further
    """
    free = thresholds == 0
    if free.all():
        return start - np.linalg.lstsq(H, gradient, rcond=TUNED.rounding_of_gram)[0]
    if free.any():
        inverse = np.linalg.pinv(
            H[np.ix_(free, free)], rcond=TUNED.rounding_of_gram, hermitian=True
        )
        cross = H[np.ix_(~free, free)] @ inverse
        reduced = H[np.ix_(~free, ~free)] - cross @ H[np.ix_(free, ~free)]
        slope = gradient[~free] - cross @ gradient[free]
    else:
        reduced, slope = H.copy(), gradient
    u, t = start.copy(), thresholds[~free]
    before = start[~free] * t
    after = Lasso(reduced / t[:, None] / t, slope / t, before).solve(accuracy, rounds)
    u[~free] = np.where(after == 0, 0.0, start[~free] + (after - before) / t)
    if free.any():
        step = u[~free] - start[~free]
        u[free] -= inverse @ (gradient[free] + H[np.ix_(free, ~free)] @ step)
    return u


class Lasso:
    """Minimise <g, v - v⁰> + <v - v⁰, A (v - v⁰)> / 2 + |v|_1.

    Gradients are those at v⁰ and what the way from there changes, which is accurate where v⁰ is
    near the solution. The diagonal of A is raised by as little as makes it positive definite.
    """

    def __init__(self, A, slope, start):
        jitter, diagonal = TUNED.rounding_of_gram, A.diagonal().copy()
        diagonal = np.maximum(diagonal, TUNED.no_curvature * diagonal.max())
        while True:
            np.fill_diagonal(A, diagonal * (1 + jitter))
            try:
                factor = np.linalg.cholesky(A)
                break
            except np.linalg.LinAlgError:
                if not jitter < 1:
                    raise
                jitter *= 100
        self.A, self.slope, self.start = np.ascontiguousarray(A), slope, start
        self.q = self.A @ start - slope
        self.features = np.asfortranarray(factor.T)
        self.targets = solve_triangular(factor, self.q, lower=True, check_finite=False)

    def solve(self, accuracy, rounds):
        """A point where zero is within `accuracy` of the subdifferential, or near it."""
        v = self.on_signs(self.start)
        for _ in range(rounds):
            if self.distance(v) <= accuracy:
                break
            v = self.on_signs(self.sweep(v))
        return v

    def gradient(self, v):
        """That of the smooth part."""
        return self.slope + self.A @ (v - self.start)

    def distance(self, v):
        """How far zero is from the subdifferential at `v`."""
        gradient = self.gradient(v)
        off = np.where(v == 0, np.abs(gradient) - 1, np.abs(gradient + np.sign(v)))
        return off.max()

    def sweep(self, v):
        """Some sweeps of coordinate descent."""
        with QUIET, warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            _, coef, _ = enet_path(
                self.features, self.targets, l1_ratio=1.0, alphas=[1.0 / len(v)],
                precompute=self.A, Xy=self.q, coef_init=v.copy(), check_input=False,
                max_iter=TUNED.sweeps, tol=np.finfo(float).tiny,
            )  # fmt: skip
        return coef[:, 0]

    def on_signs(self, v):
        """The minimum among vectors of the signs of `v`, or the way to it until a sign is lost."""
        index, sign = np.flatnonzero(v), np.sign(v)
        if not len(index):
            return v
        some = np.ix_(index, index)
        factor = cho_factor(self.A[some], lower=True, check_finite=False)
        here, out = v[index], np.zeros_like(v)
        slope = self.gradient(v)[index] + sign[index]
        there = here - cho_solve(factor, slope, check_finite=False)
        lost = there * sign[index] <= 0
        ratio = np.where(lost, here / np.where(lost, here - there, 1.0), np.inf)
        share = min(ratio.min(), 1.0)
        out[index] = np.where(ratio <= share, 0.0, here + share * (there - here))
        return out
