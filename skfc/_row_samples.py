"""Samples of rows for curvature: the Hessian on the rows that matter, and rows of leverage."""

from copy import copy
from functools import partial

from skfc import _draws
from skfc._array import host, to_numpy
from skfc._hessian import HessianOperator
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


def draw(rows, chance, size, *, state, theta=None, passed_on=False, turn=0):
    """A Poisson sample of at most about `size` rows: their importance, as a state (M, n_rows).

    Parameters
    ----------
    chance : function of a block. Its state begins with the numbers (M, n_rows) to which the
        chances of the rows are proportional; its value is their sums (M,)
    state, theta : the arguments of `chance`
    passed_on : whether rows that are drawn for certain leave their surplus to the others
    turn : int, another gives another sample
    """
    sums = rows.sum(chance, theta, state, count=False)
    size = min(size, rows.shape[0])
    factor = size / (to_numpy(sums.values[0]) * rows.n_total)
    for _ in range(TUNED.patience if passed_on else 0):  # Newton's method
        function = partial(_draws.expected, factor=factor)
        values = rows.sum(function, state=sums.state, count=False).values
        count, slope = (to_numpy(value) * rows.n_total for value in values)
        if (count > 0.9 * size).all():
            break
        more = host.divide(size - count, slope, out=host.zeros_like(count), where=slope > 0)
        factor = factor + more
    function = partial(_draws.draw, factor=factor, turn=turn)
    return rows.sum(function, state=sums.state, count=False).state


def draw_by_prominence(rows, state, size, turn=0):
    """`draw` in proportion to a state (n_rows,) times the prominence of rows."""
    state = rows.with_prominence(state)
    return draw(rows, _draws.chance, size, state=state, passed_on=True, turn=turn)


def rows_for_curvature(rows):
    """How many rows a Hessian is taken from that a method of many steps corrects."""
    return max(TUNED.hessian_rows, TUNED.rows_per_feature * rows.shape[1])


def curvature_sample(rows, state, size, dtype):
    """About `size` rows that matter, and the logits of a state on them; see the sampler."""
    curvature = rows.sum(_draws.row_curvature, state=state, count=False).state
    sample = rows.select(draw_by_prominence(rows, curvature, size), dtype)
    return sample.rows, sample.carry(state)


def everything(rows):
    """The importance of all rows in a sample of all, as a state."""
    return rows.sum(_draws.take_all, count=False).state


def leverage_sample(rows, size, turn=0):
    """The importance of about `size` rows, drawn by prominence and weight, or of all."""
    n = rows.shape[0]
    if n <= TUNED.nearly_all * size:
        return everything(rows)
    function = partial(_draws.row_weight, scale=n / size, least=TUNED.least_chance)
    return draw_by_prominence(rows, rows.sum(function, count=False).state, size, turn)


class CurvatureSampler:
    """Hessians of an objective on the rows that matter.

    Rows whose class is certain have next to no curvature. Where there are many rows, a
    Poisson sample stands for them: row i is drawn with a probability proportional to
    m_i (1 - |p_i|²) (1 + |x̃_i|² / N), and weighs the inverse of it (Xu, Yang, Roosta, Ré and
    Mahoney 2016). Neither values nor gradients come from here, so that float32 may be enough.

    Of many rows it takes a batch, up to a block: a product with these costs little beside a pass.
    """

    def __init__(self, objective):
        rows = objective.rows
        n, N = rows.shape
        batch = min(n // TUNED.batch_share, TUNED.block_bytes // (8 * max(N, 1)))
        self.size = max(rows_for_curvature(rows), batch)
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

    def in_double(self, rows):
        """Take curvature from the rows as they are from now on."""
        self.whole, self.dtype, self._last = rows, rows.xp.float64, (None, None)

    @property
    def takes_all(self):
        """Whether the sample is all rows: drawing and copying would cost more than it saves."""
        rows = self.whole
        times = TUNED.all_rows_small if is_small(rows.shape) else TUNED.nearly_all
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
        rows, state = objective.rows, evaluation.state
        if self.takes_all:
            return HessianOperator.at(objective, *self._all_rows(rows, state))
        return HessianOperator.at(objective, *curvature_sample(rows, state, self.size, self.dtype))

    def _all_rows(self, rows, state):
        """All rows in the precision of Hessians, and a state of theirs with the same logits."""
        whole = rows if rows.dtype == self.whole.dtype else (rows.single() or rows)
        if whole is rows:
            return rows, state
        return whole, whole.adopt(rows, state)
