"""Samples of rows for curvature: the Hessian on the rows that matter, and rows of leverage."""

from copy import copy

from skfc import _softmax
from skfc._objective import HessianOperator, first_of
from skfc._rows import is_small
from skfc._tuned import TUNED


def working_dtype(objective, size):
    """The precision of a curvature matrix from `size` numbers.

    float32 is faster, where there is enough to do. Without a penalty, directions of
    little curvature need all the digits.
    """
    xp = objective.rows.xp
    single = size > TUNED.single_from and objective.penalty.strict.all()
    return xp.float32 if single else xp.float64


def leverage_sample(rows, size):
    """The importance of about `size` rows, drawn by prominence and weight, or of all."""
    if rows.shape[0] <= TUNED.nearly_all * size:
        return rows.everything()
    prominence = rows.prominence()
    weight = [(w.sum(axis=0) / rows.n_problems,) for w in row_weights(rows)]
    chance = [
        (p * (rows.shape[0] / size * w + TUNED.least_chance),)
        for (p,), (w,) in zip(prominence, weight, strict=True)
    ]
    return rows.draw(chance, size)


def row_weights(rows):
    """The weights of every block, (n_problems, n_rows)."""
    return [w for (w,) in rows.sum(_softmax.keep_weights, count=False).state]


class CurvatureSampler:
    """Hessians of an objective on the rows that matter.

    Rows whose class is certain have next to no curvature. Where there are many rows, a
    Poisson sample stands for them: row i is drawn with a probability proportional to
    m_i (1 - |p_i|²) (1 + |x̃_i|² / N), and weighs the inverse of it (Xu, Yang, Roosta, Ré and
    Mahoney 2016). Neither values nor gradients come from here, so that float32 may be enough.
    """

    def __init__(self, objective):
        rows = objective.rows
        self.size = max(TUNED.hessian_rows, TUNED.hessian_rows_per_feature * rows.shape[1])
        self.whole = rows.single() or rows
        self.dtype = self.whole.dtype
        if self.whole is rows:
            self.dtype = working_dtype(objective, self.size * rows.shape[1])
        self._last = None, None

    def problems(self, index):
        """The sampler of the problems `index` alone."""
        part = copy(self)
        (part.whole,) = self.whole.problems(index)
        part._last = None, None
        return part

    @property
    def takes_all(self):
        """Whether the sample is all rows: drawing and copying would cost more than it saves."""
        rows = self.whole
        times = TUNED.all_rows_small if is_small(rows.shape) else TUNED.all_rows
        return rows.sparse or rows.shape[0] <= times * self.size

    def grow(self, factor):
        """Take `factor` times as many rows from now on."""
        if not self.takes_all:
            self.size *= factor

    def at(self, objective, evaluation):
        """The Hessian of `objective` at `evaluation`, its data part from the sample."""
        known, hessian = self._last
        if known is not evaluation.state:
            hessian = self._hessian(objective, evaluation)
            self._last = evaluation.state, hessian
        return hessian.with_objective(objective)

    def _hessian(self, objective, evaluation):
        rows, logits = objective.rows, first_of(evaluation.state)
        if self.takes_all:
            return HessianOperator.at(objective, *self._all_rows(rows, logits))
        curvature = rows.sum(_softmax.row_curvature, state=logits, count=False).state
        chance = [(c * p,) for (c,), (p,) in zip(curvature, rows.prominence(), strict=True)]
        sample = rows.select(rows.draw(chance, self.size), self.dtype)
        return HessianOperator.at(objective, sample.rows, sample.carry(logits))

    def _all_rows(self, rows, logits):
        """All rows in the precision of Hessians, and logits for them."""
        whole = rows if rows.dtype == self.whole.dtype else (rows.single() or rows)
        if whole is rows:
            return rows, logits
        return whole, whole.adopt(rows, logits)
