"""Early stopping: rows that are held out, and the monitor that stops where their loss rises.

The fit keeps the coefficients with the least mean log loss of the held-out rows.
"""

from dataclasses import dataclass, replace

import numpy as np

from skfc._array import refuse_distributed
from skfc._monitors import Quiet
from skfc._outcome import Status
from skfc._prediction import Logits
from skfc._scoring import mean_loss_of_targets


@dataclass(frozen=True)
class HeldOut:
    """Rows that only judge: `rows` (n_rows, n_features), their targets and weights.

    `target` are class indices (n_rows,) or probabilities (n_classes, n_rows).
    """

    rows: object
    target: np.ndarray
    weight: np.ndarray

    def log_loss(self, coef, intercept):
        """Weighted mean log loss of a model of all classes."""
        logits = Logits(self.rows, coef, intercept)
        return mean_loss_of_targets(logits.over_blocks, self.target, self.weight)


class Validation(Quiet):
    """The monitor of early stopping.

    Parameters
    ----------
    held_out : HeldOut
    complete : function from the coefficients and intercepts of a solve to those of all classes
    n_iter_no_change : int, the iterations in a row without progress that end a fit
    tol : float, the share of the least loss that counts as progress

    Attributes
    ----------
    curve : list of the mean log losses of the held-out rows, the start included
    best : (coefficients, intercepts) of the least of them, as the solve has them
    """

    def __init__(self, held_out, complete, n_iter_no_change, tol):
        self.held_out, self.complete = held_out, complete
        self.n_iter_no_change, self.tol = n_iter_no_change, tol
        self.forget()

    def forget(self):
        """Forget what has been seen: a fit begins, or begins again."""
        self.curve, self.best = [], None
        self.least, self.since = np.inf, 0

    def step(self, progress):
        if progress.n_iter == 0:
            self.forget()
        pair = progress.coefficients()
        loss = self.held_out.log_loss(*self.complete(*pair))
        if self.best is None or loss < min(self.curve):
            self.best = pair
        self.curve.append(loss)
        progressed = loss < self.least * (1 - self.tol) or len(self.curve) == 1
        self.since = 0 if progressed else self.since + 1
        self.least = loss if progressed else self.least
        return self.since >= self.n_iter_no_change

    def restored(self, problem, fit):
        """`fit` with the best coefficients, and the gap of those.

        The minimum is known from the objective and the gap of the last iterate.
        """
        k = int(np.argmin(self.curve))
        if k == len(self.curve) - 1:
            return fit
        gap = fit.loss_curve[k] * (1 + fit.gap) / fit.loss_curve[-1] - 1
        # Where nothing bounds the coefficients, held-out rows have chosen some all the same.
        status = Status.STOPPED if fit.status is Status.SEPARATED else fit.status
        theta = problem.start(*self.best)
        return replace(fit, theta=theta, gap=max(gap, 0.0), status=status, separation=None)


def hold_out(labels, weight, fraction, rng):
    """A mask (n_rows,) of rows to hold out, a `fraction` of those with weight.

    The classes have the same share in it as in all rows, as nearly as whole rows can; every
    class keeps a row to learn from. `labels` are class indices (n_rows,).
    """
    rows = rng.permutation(np.flatnonzero(weight > 0))
    order = np.argsort(labels[rows], kind="stable")
    counts = np.bincount(labels[rows])
    first = np.repeat(np.cumsum(counts) - counts, counts)
    size = np.repeat(counts, counts)
    # Rows of a class stand at the quantiles (rank + 1/2) / size: the rows of the least
    # quantiles are a stratified sample of any size.
    rank = np.arange(len(rows)) - first
    quantile = np.where(rank == size - 1, np.inf, (rank + 0.5) / size)
    n_held = int(np.ceil(fraction * len(rows)))
    held = order[np.argsort(quantile, kind="stable")[:n_held]]
    held = rows[held[np.isfinite(np.sort(quantile)[:n_held])]]
    if not len(held):
        raise ValueError(
            "early_stopping=True holds rows out, but y has only one row of every class. Pass "
            "X_val and y_val, or set early_stopping=False."
        )
    mask = np.zeros(len(weight), dtype=bool)
    mask[held] = True
    return mask


def check_given(early_stopping, X_val, y_val, sample_weight_val):
    """Raise for validation data without early stopping, and for one part without the other."""
    given = {"X_val": X_val, "y_val": y_val, "sample_weight_val": sample_weight_val}
    there = [name for name, value in given.items() if value is not None]
    if there and not early_stopping:
        raise ValueError(
            f"{there[0]} is given, but early_stopping=False makes no use of it; set "
            "early_stopping=True."
        )
    if there and (X_val is None or y_val is None):
        missing = "X_val" if X_val is None else "y_val"
        raise ValueError(f"{there[0]} is given without {missing}: pass both.")
    for name in there:
        refuse_distributed(given[name], name)


def most_probable(target):
    """Class indices (n_rows,) of targets: the labels, or the largest probabilities."""
    return target if target.ndim == 1 else target.argmax(axis=0)
