r"""The step of a quadratic model under a sum of absolute values, by coordinate descent.

With the Hessian H and the gradient g of the smooth part at u⁰, find

    argmin_u  <g, u - u⁰> + <u - u⁰, H (u - u⁰)> / 2 + sum_i t_i |u_i|

Coordinates of t_i = 0, the intercepts, are eliminated: for any others their best values are
linear. In units of 1 / t_i the rest is a lasso with H for its Gram matrix. scikit-learn's
compiled coordinate descent finds the signs of its solution; on these signs the model is smooth,
and solved directly.
"""

import warnings
from threading import Lock

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import enet_path

from skfc._tuned import TUNED

# The filters of warnings belong to the process, and fits run side by side.
QUIET = Lock()
# Thresholds beyond this are none, or leave no weight but zero; their squares stay finite.
FARTHEST = 1e100
# With the Gram matrix and its products, sweeps read of the rows their number, and of the targets
# their norm, which is for a gap: of one that is too large sweeps leave out nothing and go on.
FAR_TARGET = np.full(1, FARTHEST)


def minimise(H, gradient, start, thresholds, accuracy, rounds, rounding=TUNED.no_curvature):
    """The solution u (m,), which has exact zeros.

    Parameters
    ----------
    H : (m, m), positive semidefinite up to rounding
    gradient, start : (m,), g and u⁰
    thresholds : (m,), t
    accuracy : what may be left of how far zero is from the subdifferential at u⁰, in the metric
        of the diagonal of H, in which it knows no units
    rounds : after so many rounds of sweeps and a direct solution, more may be left
    rounding : of H, relative to its diagonal
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
        least = TUNED.no_curvature * H.diagonal()[~free]
        np.fill_diagonal(reduced, np.maximum(reduced.diagonal(), least))
        slope = gradient[~free] - cross @ gradient[free]
    else:
        reduced, slope = H.copy(), gradient
    u, t = start.copy(), np.clip(thresholds[~free], 1 / FARTHEST, FARTHEST)
    before = start[~free] * t
    after = Lasso(reduced, slope, before, t, rounding).solve(accuracy, rounds)
    u[~free] = np.where(after == 0, 0.0, start[~free] + (after - before) / t)
    if free.any():
        step = u[~free] - start[~free]
        u[free] -= inverse @ (gradient[free] + H[np.ix_(free, ~free)] @ step)
    return u


def factor_of(A, jitter):
    """The Cholesky factor of `A` (m, m), in its place, and the jitter that it took.

    The diagonal of `A` is one, and is raised by a share of `jitter`; by more where that leaves
    the matrix indefinite: where rounding has left larger entries beside it, until it dominates
    them.
    """
    kept = None
    while True:
        np.fill_diagonal(A, 1.0 + jitter)
        try:
            # The transpose is in the order of LAPACK; the lower half of A stays as it is.
            return cho_factor(A.T, lower=True, overwrite_a=True, check_finite=False), jitter
        except np.linalg.LinAlgError:
            if np.ndim(jitter):
                raise
            # Of a row of A the entries left of the diagonal are there still.
            np.fill_diagonal(A, 0.0)
            kept = np.tril(A) if kept is None else kept
            A = kept + kept.T
            jitter *= 100
            if jitter > 1:
                jitter = 2 * np.abs(A).sum(axis=0)  # what is added may be rounded


def solve_factored(factor, b):
    """The solution in double precision of a system by its factor, which may have fewer digits."""
    size = np.abs(b).max()
    if not size > 0:
        return b
    right = (b / size).astype(factor[0].dtype)
    return size * cho_solve(factor, right, check_finite=False).astype(np.float64)


class Lasso:
    """Minimise <g, v - v⁰> + <v - v⁰, A (v - v⁰)> / 2 + |v|_1, where v = t u.

    Gradients are those at v⁰ and what the way from there changes, which is accurate where v⁰ is
    near the solution.
    """

    def __init__(self, H, slope, start, t, rounding):
        diagonal = H.diagonal()
        np.fill_diagonal(H, np.maximum(diagonal, np.finfo(H.dtype).tiny))
        root = np.sqrt(H.diagonal())
        self.unit = H / root[:, None]
        self.unit /= root
        if rounding > TUNED.no_curvature:  # of a Hessian in single precision: no more digits
            self.unit = self.unit.astype(np.float32)
        H /= t[:, None]
        H /= t
        self.A, self.slope, self.start, self.rounding = H, slope / t, start, rounding
        self.root = np.sqrt(self.A.diagonal())
        self.q = self.A @ start - self.slope

    def solve(self, accuracy, rounds):
        """A point nearer the minimum, see :func:`minimise`."""
        least = accuracy * self.distance(self.start)
        v, solved = self.on_signs(self.start)
        for _ in range(rounds):
            if solved and self.distance(v) <= least:
                break
            v, solved = self.on_signs(self.sweep(v))
        return v

    def gradient(self, v):
        """That of the smooth part."""
        return self.slope + self.A @ (v - self.start)

    def form(self, change, index):
        """<d, A d> for a way d of which `change` are the coordinates `index`, not zero."""
        way = np.zeros(len(self.A))
        way[index] = change
        return way @ (self.A @ way)

    def distance(self, v):
        """How far zero is from the subdifferential at `v`, in the metric of the diagonal."""
        gradient = self.gradient(v)
        off = np.where(v == 0, np.abs(gradient) - 1, np.abs(gradient + np.sign(v)))
        return np.divide(off, self.root, out=np.zeros_like(off), where=self.root > 0).max()

    def sweep(self, v):
        """Some sweeps of coordinate descent."""
        with QUIET, warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            _, coef, _ = enet_path(
                np.zeros((1, len(v))), FAR_TARGET, l1_ratio=1.0, alphas=[1.0],
                precompute=self.A, Xy=self.q, coef_init=v.copy(), check_input=False,
                max_iter=TUNED.sweeps, tol=np.finfo(float).tiny,
            )  # fmt: skip
        return coef[:, 0]

    def on_signs(self, v):
        """The minimum among vectors of the signs of `v`, or of those that are left of them.

        What crosses zero on the way to the minimum is set to zero, if the model falls; else the
        way is halved, down to where the first one crosses (projected Newton steps, Bertsekas
        1982). Returns the minimum, and whether it is one.
        """
        few, jitter = np.count_nonzero(v) <= TUNED.hessian_size, self.rounding
        for _ in range(TUNED.most_steps if few else TUNED.sweeps):
            index = np.flatnonzero(v)
            if not len(index):
                return v, True
            sign, root = np.sign(v[index]), self.root[index]
            gradient = self.gradient(v)[index] + sign
            factor, took = factor_of(self.unit[np.ix_(index, index)], jitter)
            if np.ndim(took) == 0:  # what a matrix takes will do for a part of it
                jitter = took
            step = -solve_factored(factor, gradient / root) / root
            here, inward = v[index], step * sign < 0
            crossing = np.divide(-here, step, out=np.full_like(here, np.inf), where=inward)
            first, share = crossing.min(), 1.0
            for _ in range(TUNED.patience):
                kept = crossing > share
                change = np.where(kept, share * step, -here)
                # The model may not rise, where it is smooth on the way.
                if kept.all() or gradient @ change + 0.5 * self.form(change, index) < 0:
                    break
                share = max(share / 2, first)
            else:
                kept = crossing > first
                change = np.where(kept, first * step, -here)
            v = v.copy()
            v[index] = np.where(kept, here + change, 0.0)
            if kept.all():
                return v, True
        return v, False
