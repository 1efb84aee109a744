r"""Separation: without a penalty, directions along which the loss falls for ever.

Classes are *separable* where some coefficients put every row on its side: scaled up, they lower
the loss towards zero. They are *quasi-separable* where a direction makes no row worse and some
rows better for ever, as the coefficient of a 0/1 column that one class never has (Albert and
Anderson 1984). There is no minimum in either case.

Weights in balance prove that there is no such direction, and a linear program finds one (Konis
2007), see :mod:`skfc._margins`. Where the data are too large for these,
Newton steps show it. In the tail of a loss, e^-m of the margin m, a step raises the margin by
one: rows that the direction helps move by about a logit at every iteration, however small the
decrement has become, and none moves back.

An objective may arrive at its infimum, to `tol`, before that shows. There, a direction that helps
row i against class k lowers the objective by w_i p_ik at least, so that no pair with more than
what is left of the objective is helped. Mostly these pairs pin down every direction.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import linalg, special

from skfc import _gap_blockwise
from skfc._array import take, to_numpy
from skfc._conjugate_gradients import newton_step
from skfc._hessian import HessianOperator
from skfc._margins import HELP, Margins, Undecided, are_balanced, are_pinned, direction
from skfc._row_samples import everything
from skfc._tuned import TUNED


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
            return by_program(rows, b, theta, left, iterate.decrement[b]), True
        except Undecided:
            return None, False
    return (by_step(iterate, b) if left == np.inf else None), False


def by_program(rows, b, theta, left, decrement=0.0):
    """The separation of problem `b` as balanced margins or a linear program tell it, or None.

    Margins that are worth more than what is `left` stay. Those that are worth far more than half
    the Newton `decrement` most likely do: a program without them is small.
    """
    T = rows.n_classes
    X, own, loss, axes = margins_at_stake(rows, b, theta)
    if not len(X):
        return None
    margins = Margins.of(X, own.argmax(axis=1), T)
    stays = own | (loss > left)
    if are_pinned(margins, stays) or are_balanced(margins, loss, stays):
        return None
    order = np.argsort(-loss, axis=None, kind="stable")
    least = TUNED.stronger * max(decrement, np.finfo(float).eps * loss.sum())
    for worth in sorted({min(least, left), left}):
        try:
            found = direction(margins, own | (loss > worth), order)
        except Undecided:
            if worth == left:
                raise
            continue
        if found is not None:
            break
    else:
        return None
    helped = margins.others & ~own & (margins.along(found) > HELP)
    found = np.vstack([np.zeros(X.shape[1]), found.reshape(T - 1, -1)])
    found = found - found.mean(axis=0)  # what all classes share changes nothing
    return Separation(False, axes @ found.T, np.unique(margins.label[helped.any(axis=1)]))


def margins_at_stake(rows, b, theta):
    """Rows (n, m) of weight, which classes are theirs, what these lose against others, and axes.

    Features are uncorrelated, and the largest of a row is one; the axes (P, m) lead there.
    """
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
    return X[kept] / size[kept, None], own[kept], loss[kept], axes


def orthonormal(X):
    """Directions (P, m) along which rows are uncorrelated, of size one: programs need digits."""
    _, values, axes = linalg.svd(X, full_matrices=False)
    kept = values > TUNED.rounding_of_gram * values[:1]
    return axes[kept].T / values[kept] * len(X) ** 0.5


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
