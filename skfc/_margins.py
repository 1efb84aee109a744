r"""Margins of rows between classes, and directions that harm none of them and help some.

A margin of row i with label y over another class k changes by a·d = <x_i, d_y - d_k> along a
direction d. Either some direction makes no margin smaller and some larger, or the margins are
*balanced*: positive weights v exist with sum v a = 0 (Stiemke 1915). At a minimum of the loss
v = w p is such weights, so that near one a Newton step or two find them: on sum v e^-m, it takes v
to v (1 - a·d), which are weights in balance where no margin grows by one.

Where margins grow by one at every step, weights that stay pin the direction down: a linear
program looks for it where these margins do not change.
"""

from dataclasses import dataclass

import numpy as np
from scipy import linalg, optimize, sparse

from skfc._tuned import TUNED

# What a direction may take from a margin, as a share of what it adds to another.
HARM = 1e-9
# Margins that a direction adds less to are not helped.
HELP = 1e-3


class Undecided(ArithmeticError):
    """A linear program that rounding has kept from its end."""


@dataclass(frozen=True)
class Margins:
    """Margins of all rows over the other classes, for directions d (T, P) with d_0 = 0.

    What all classes share changes nothing. Arrays (n, T) have a number for every margin; that of
    the label itself means nothing.

    Attributes
    ----------
    rows, label : (n, P) and (n,)
    others : (n, T) of bool, the classes that are not the label
    groups : by class, the numbers of its rows
    """

    rows: np.ndarray
    label: np.ndarray
    others: np.ndarray
    groups: list

    @classmethod
    def of(cls, rows, label, n_classes):
        """The margins of `rows` with these labels."""
        groups = [np.flatnonzero(label == c) for c in range(n_classes)]
        return cls(rows, label, np.arange(n_classes) != label[:, None], groups)

    def along(self, direction):
        """What a direction ((T - 1) P,) adds to the margins, (n, T)."""
        Z = np.zeros(self.others.shape)
        Z[:, 1:] = self.rows @ direction.reshape(-1, self.rows.shape[1]).T
        return np.take_along_axis(Z, self.label[:, None], axis=1) - Z

    def sum(self, weight):
        """The sum of v a over margins of weights v (n, T), which are zero for the label."""
        residual = -weight
        np.put_along_axis(residual, self.label[:, None], weight.sum(axis=1)[:, None], axis=1)
        return (residual[:, 1:].T @ self.rows).ravel()

    def gram(self, weight):
        """The sum of v a aᵀ over margins of weights v, ((T - 1) P, (T - 1) P)."""
        P, T = self.rows.shape[1], self.others.shape[1]
        G = np.zeros((T, P, T, P))
        for c, group in enumerate(self.groups):
            X = self.rows[group]
            for k in range(T):
                v = weight[group, k]
                if k == c or not v.any():
                    continue
                M = (X * v[:, None]).T @ X
                G[c, :, c, :] += M
                G[k, :, k, :] += M
                G[c, :, k, :] -= M
                G[k, :, c, :] -= M
        return G[1:, :, 1:, :].reshape((T - 1) * P, -1)

    def matrix(self, chosen):
        """Sparse rows a of the margins with these flat numbers."""
        i, k = np.divmod(chosen, self.others.shape[1])
        m, T = np.arange(len(chosen)), self.others.shape[1]
        sign = np.zeros((len(i), T, 1))
        sign[m, self.label[i]], sign[m, k] = 1.0, -1.0
        return sparse.csr_array((sign[:, 1:] * self.rows[i, None, :]).reshape(len(i), -1))


def are_pinned(margins, stays):
    """Whether margins that stay leave no direction."""
    G = margins.gram((stays & margins.others).astype(float))
    G[np.diag_indices_from(G)] -= TUNED.rounding_of_gram * np.trace(G)
    return factor_of(G) is not None


def are_balanced(margins, weight, stays):
    """Whether positive weights of margins in balance are found, from weights (n, T) near to them.

    Margins that stay may have weights of any sign. Weights may be rounding of the largest.
    """
    least = TUNED.rounding_of_gram * weight.max()
    up = np.where(margins.others, np.maximum(weight, least), 0.0)
    down = np.where(stays & margins.others, up, 0.0)  # such a margin counts both ways
    up = up + down
    for _ in range(2 * TUNED.look_back):
        step = newton(margins, up, down)
        if step is None:
            return False
        m, noise = step
        most = np.max(m, initial=-np.inf, where=margins.others & ~stays)
        if most + noise < 1 - TUNED.accuracy:
            return True
        # No margin of weight falls by more than one: the model would not hold.
        t = 1.0 / max(1.0, np.max(-m, initial=0.0, where=up > 0))
        up = np.where(up > 0, np.maximum(up * np.exp(-t * m), least), 0.0)
        down = np.where(down > 0, np.maximum(down * np.exp(t * m), least), 0.0)
    return False


def newton(margins, up, down):
    """What the Newton step on sum up e^-m + down e^m adds to m, and the most that rounding does.

    Or None, where the Hessian has no factor.
    """
    gradient, both = margins.sum(up - down), up + down
    G = margins.gram(both)
    unit = np.sqrt(np.diagonal(G))
    unit = np.where(unit > 0, unit, 1.0)
    G /= unit[:, None] * unit
    G[np.diag_indices_from(G)] += TUNED.no_curvature
    factor = factor_of(G)
    if factor is None:
        return None
    step = np.zeros_like(gradient)
    for _ in range(TUNED.look_back):
        m = margins.along(step)
        correction = linalg.cho_solve(factor, (gradient - margins.sum(both * m)) / unit) / unit
        step += correction
    added = np.where(margins.others, np.abs(margins.along(correction)), 0.0)
    return margins.along(step), added.max()


def factor_of(G):
    """The Cholesky factor of a matrix, or None where that is not positive."""
    try:
        return linalg.cho_factor(G, overwrite_a=True)
    except linalg.LinAlgError:
        return None


def direction(margins, stays, order):
    """A direction along which some margin grows, none falls, and those that stay do; or None.

    A linear program of a few margins finds one, or that there is none: the first in `order`, an
    array of flat numbers. Of the others, those that it makes worst are added, until none is worse.
    """
    fixed = stays & margins.others
    basis = without_change(margins, fixed) if fixed.any() else None
    if basis is not None and not basis.shape[1]:
        return None
    free = margins.others & ~fixed
    total = margins.sum(free.astype(float))
    free = free.ravel()
    size = len(total) if basis is None else basis.shape[1]
    chosen = order[moving(margins, basis, size)[order] & free[order]][: 4 * size]
    while len(chosen):
        found = most_margins(margins.matrix(chosen), total, basis)
        m = margins.along(found).ravel()
        top = np.max(m, initial=0.0, where=free)
        if top <= HELP:
            return None
        harm = np.where(free, -m, np.abs(m)) * margins.others.ravel()
        worst = np.argsort(-harm, kind="stable")[: len(chosen)]
        worst = worst[harm[worst] > HARM * top]
        if not len(worst):
            return found
        if not free[worst].all() or np.isin(worst, chosen).any():
            raise Undecided
        chosen = np.concatenate([chosen, worst])
    return None


def without_change(margins, stays):
    """An orthonormal basis (F, k) of the directions that change none of the margins that stay."""
    values, vectors = np.linalg.eigh(margins.gram(stays.astype(float)))
    return vectors[:, values <= TUNED.rounding_of_gram * values[-1]]


def moving(margins, basis, size):
    """Which margins change along some direction of a basis: those that do along a random one."""
    z = np.random.default_rng(0).standard_normal(size)
    m = np.abs(margins.along(z if basis is None else basis @ z)).ravel()
    return m > TUNED.no_curvature**0.5 * m.max()


def most_margins(A, total, basis):
    """The direction d within a basis of the largest <total, d> with none of the margins A d < 0.

    Its coordinates are at most one.
    """
    A, total = (A, total) if basis is None else (A @ basis, total @ basis)
    found = optimize.linprog(
        -total, A_ub=-A, b_ub=np.zeros(A.shape[0]), bounds=(-1.0, 1.0), method="highs-ds",
        options={"primal_feasibility_tolerance": TUNED.rounding_of_gram},
    )  # fmt: skip
    if found.x is None:  # zero would do: the program has an end
        raise Undecided
    return found.x if basis is None else basis @ found.x
