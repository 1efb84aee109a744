r"""Separation: without a penalty, directions along which the loss falls for ever.

Classes are *separable* where some coefficients put every row on its side: scaled up, they lower
the loss towards zero. They are *quasi-separable* where a direction makes no row worse and some
rows better for ever, as the coefficient of a 0/1 column that one class never has (Albert and
Anderson 1984). There is no minimum in either case.

A linear program decides whether there is such a direction (Konis 2007): the largest sum of margins
<x_i, d_y - d_k> that are zero to one. Where the data are too large for it,
Newton steps show it. In the tail of a loss, e^-m of the margin m, a step raises the margin by
one: rows that the direction helps move by about a logit at every iteration, however small the
decrement has become, and none moves back.

An objective may arrive at its infimum, to `tol`, before that shows. There, a direction that helps
row i against class k lowers the objective by w_i p_ik at least, so that no pair with more than
what is left of the objective is helped. Mostly these pairs pin down every direction.
"""

from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np
from scipy import linalg, optimize, sparse, special
from scipy.sparse import csgraph

from skfc import _gap_blockwise
from skfc._array import take, to_numpy
from skfc._conjugate_gradients import newton_step
from skfc._hessian import HessianOperator
from skfc._row_samples import everything
from skfc._tuned import TUNED

# What a linear program may miss a margin by.
HARM = 1e-6


@dataclass(frozen=True)
class Separation:
    """What was found: `direction` (P, n_classes), and `classes`, indices of those it helps."""

    complete: bool
    direction: np.ndarray
    classes: np.ndarray


def complete(iterate):
    """A :class:`Separation` of every problem whose rows are all on their sides, else None."""
    objective, value = iterate.objective, iterate.evaluation.value
    found = [None] * len(value)
    if objective.penalty.strict.all():
        return found
    near_zero = value < TUNED.small_loss
    suspect = ~objective.penalty.strict & near_zero & (iterate.decrement > 0.1 * value)
    if suspect.any():
        wrong = objective.rows.sum(
            _gap_blockwise.separation, state=iterate.evaluation.state, count=False
        )
        for b in np.flatnonzero(suspect & (to_numpy(wrong.values[0]) == 0)):
            theta = take(iterate.evaluation.theta, objective.columns(np.array([b])), axis=1)
            found[b] = Separation(True, theta, np.arange(objective.rows.n_classes))
    return found


def quasi(iterate, b, left=np.inf):
    """The separation of problem `b`, at least of some rows, or None; and whether that is certain.

    Call it where the decrement is next to nothing and rows still move, or with what is `left` of
    the objective above its infimum.
    """
    objective = iterate.objective
    rows = objective.rows
    if 2 * rows.n_classes * rows.shape[0] * rows.n_parameters <= TUNED.largest_program:
        theta = to_numpy(take(iterate.evaluation.theta, objective.columns(np.array([b])), axis=1))
        try:
            return by_program(rows, b, theta, left), True
        except Undecided:
            return None, False
    return (by_step(iterate, b) if left == np.inf else None), False


def by_program(rows, b, theta, left):
    """The separation of problem `b` as a linear program finds it, or None."""
    part = rows.select(everything(rows), rows.xp.float64).rows
    X, target, T = to_numpy(part.standardised()), to_numpy(part.target), rows.n_classes
    if rows.frame.fit_intercept:
        X = np.column_stack([X, np.ones(len(X))])
    weight = to_numpy(part.weight)[b]
    loss = weight[:, None] * special.softmax(X @ theta, axis=1) / rows.n_total
    own = target.T > 0 if target.ndim == 2 else np.arange(T) == target[:, None]
    axes = orthonormal(X[weight > 0])
    X = X @ axes
    size = np.abs(X).max(axis=1, initial=0.0)
    kept = (weight > 0) & (size > 0)
    if not kept.any():
        return None
    X, own, loss = X[kept] / size[kept, None], own[kept], loss[kept]
    first = own.argmax(axis=1)
    # The margin among several classes of a row stays, and one that is worth more than is left.
    stays = own | (loss > left)
    if are_pinned(X, first, stays):
        return None
    i, k = np.nonzero(np.arange(T) != first[:, None])  # margins of the label over class k
    margins = Margins(X, first, i, k, np.where(stays[i, k], 0.0, 1.0), T)
    direction = margins.direction(leading(X, first, i, k, loss))
    if direction is None:
        return None
    helped = np.unique(first[i[margins.of(direction) > 0.5]])
    direction = direction - direction.mean(axis=0)  # what all classes share changes nothing
    return Separation(False, axes @ direction.T, helped)


def orthonormal(X):
    """Directions (P, m) along which rows are uncorrelated, of size one: programs need digits."""
    _, values, axes = linalg.svd(X, full_matrices=False)
    kept = values > TUNED.rounding_of_gram * values[:1]
    return axes[kept].T / values[kept] * len(X) ** 0.5


class Undecided(ArithmeticError):
    """A linear program that rounding has kept from its end."""


@dataclass(frozen=True)
class Margins:
    """Margins <x_i, d_y - d_k> of rows i and other classes k, for directions d (T, P).

    Attributes
    ----------
    rows, first : (n, P) and (n,), features of rows, and their labels
    i, k : (m,), the row and the class of every margin
    most : (m,), the most that it may be
    n_classes : T
    """

    rows: np.ndarray
    first: np.ndarray
    i: np.ndarray
    k: np.ndarray
    most: np.ndarray
    n_classes: int

    def of(self, direction):
        """The margins, (m,)."""
        Z = self.rows @ direction.T
        return Z[self.i, self.first[self.i]] - Z[self.i, self.k]

    def direction(self, chosen):
        """A direction with some margin of one and none below zero, or None.

        A linear program of the `chosen` margins, which span all, finds one, or that there is none;
        of the others, those that it makes worst are chosen too, until none is worse.
        """
        P = self.rows.shape[1]
        free = (self.n_classes - 1) * P
        while True:
            x = most_margins(self.matrix(chosen), self.most[chosen])
            if not (x[free:] > 0.5).any():
                return None
            direction = np.vstack([np.zeros(P), x[:free].reshape(-1, P)])
            found = self.of(direction)
            harm = np.where(self.most > 0, -found, np.abs(found))
            harm[chosen] = 0.0
            worst = np.argsort(-harm, kind="stable")[: len(chosen)]
            worst = worst[harm[worst] > HARM]
            if not len(worst):
                return direction
            chosen = np.concatenate([chosen, worst])

    def matrix(self, chosen):
        """Sparse rows of the margins `chosen`, in the entries of a direction.

        That of the first class is zero: what all classes share changes nothing, and a program in
        which it is free does not end.
        """
        i, k, m = self.i[chosen], self.k[chosen], np.arange(len(chosen))
        sign = np.zeros((len(i), self.n_classes, 1))
        sign[m, self.first[i]], sign[m, k] = 1.0, -1.0
        return sparse.csr_array((sign[:, 1:] * self.rows[i, None, :]).reshape(len(i), -1))


def leading(X, first, i, k, loss):
    """Indices of margins that span all, and of those most at stake between every two classes."""
    P = X.shape[1]
    spanning = linalg.qr(X.T, mode="r", pivoting=True)[1][:P]
    order = np.argsort(-loss[i, k], kind="stable")
    pair = first[i[order]] * (k.max() + 1) + k[order]
    by_pair = np.argsort(pair, kind="stable")
    sizes = np.bincount(pair)
    place = np.arange(len(pair)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.union1d(np.flatnonzero(np.isin(i, spanning)), order[by_pair[place < 2 * P]])


def are_pinned(X, first, stays):
    """Whether margins that stay leave no direction but those that all classes share.

    Two classes have one direction where the rows whose margin between them stays span all
    features.
    """
    P, T = X.shape[1], stays.shape[1]
    same = np.zeros((T, T), dtype=bool)
    for c, k in combinations(range(T), 2):
        rows = ((first == c) & stays[:, k]) | ((first == k) & stays[:, c])
        if np.count_nonzero(rows) >= P:
            spectrum = np.linalg.eigvalsh(X[rows].T @ X[rows])
            same[c, k] = spectrum[0] > TUNED.rounding_of_gram * spectrum[-1]
    return csgraph.connected_components(same, directed=False)[0] == 1


def most_margins(A, most):
    """The direction of the largest sum of margins, and these.

    A margin is a row of `A`, at least zero and at most `most`.
    """
    m, n = A.shape
    found = optimize.linprog(
        np.concatenate([np.zeros(n), -most]),
        A_eq=sparse.hstack([A, -sparse.identity(m)]), b_eq=np.zeros(m),
        bounds=np.column_stack([
            np.concatenate([np.full(n, -np.inf), np.zeros(m)]),
            np.concatenate([np.full(n, np.inf), most]),
        ]), method="highs-ds",
    )  # fmt: skip
    if found.x is None:  # zero would do: the program has an end
        raise Undecided
    return found.x


def by_step(iterate, b):
    """The separation of problem `b` along its Newton step, or None."""
    objective, evaluation = iterate.objective, iterate.evaluation
    step = newton_step(
        objective, iterate.hessian(objective, evaluation), evaluation.gradient,
        iterate.precondition, share=TUNED.share_to_come, least=TUNED.decided_steps,
        most=TUNED.most_steps,
    ).step  # fmt: skip
    operator = HessianOperator.of(objective, evaluation)
    function = partial(_gap_blockwise.margins, far=TUNED.far_logits)
    better, worse = operator.rows.sum(function, -step, operator.state).values
    better, worse = to_numpy(better), to_numpy(worse)
    helped = better[b] > 0
    if worse[b] > 0 or not helped.any():
        return None
    columns = objective.columns(np.array([b]))
    return Separation(False, -take(step, columns, axis=1), np.flatnonzero(helped))
