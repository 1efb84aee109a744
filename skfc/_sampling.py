"""Rows that cost less: in float32 on the way to the minimum, and samples for curvature."""

import numpy as np

from skfc._coordinates import is_small
from skfc._design import LITTLE, DenseDesign
from skfc._local import Curvature
from skfc._objective import SINGLE_FROM

# Rows of a Hessian, at first: so many, or more with the features.
MIN_ROWS = 2000
ROWS_PER_FEATURE = 8
# All rows are taken up to so many times as many. Of data of few numbers, up to more times: to draw
# and to copy rows, at every iterate, costs more than it saves, and all of them make better steps.
FEW_TIMES, MANY_TIMES = 1.5, 5
# Passes are in float32 until the decrement is below this share of the objective: with a penalty
# and means not far from zero, and else. Losses below the last have lost digits too.
SINGLE, COARSE, SMALL_LOSS = 1e-6, 1e-4, 1e-3


def working_dtype(objective, size):
    """The precision of a curvature matrix from `size` numbers.

    float32 is faster, where there is enough to do. Without a penalty, directions of
    little curvature want all the digits.
    """
    return np.float32 if size > SINGLE_FROM and (objective.l2 > 0).all() else np.float64


def lots(chance, size):
    """Poisson samples of about `size` rows, drawn in proportion to `chance` (..., n_rows).

    Returns who is drawn, and the probabilities. The same rows for the same data: a fit is
    deterministic.
    """
    chance = np.minimum(chance * (size / chance.sum(axis=-1, keepdims=True)), 1.0)
    return np.random.default_rng(0).random(chance.shape[-1]) < chance, chance


def draw(chance, size):
    """One such sample: indices and importance, the inverse of the probabilities."""
    drawn, chance = lots(chance, size)
    rows = np.flatnonzero(drawn)
    return rows, 1.0 / chance[rows]


def leverage_rows(coordinates, size):
    """Rows of positive weight, drawn by prominence: rare features are not missed."""
    weight = coordinates.row_weight
    positive = np.flatnonzero(weight)
    if len(positive) <= 1.25 * size:
        return positive, np.ones(len(positive))
    return draw(coordinates.prominence * (weight > 0), size)


class CurvatureSampler:
    """Hessians of an objective on the rows that matter.

    Rows that the model is sure of have next to no curvature. Where there are many rows,
    a Poisson sample stands for them: row i is drawn with a probability proportional to
    m_i (1 - |p_i|²) (1 + |x̃_i|² / N), and weighs the inverse of it (Xu, Yang,
    Roosta, Ré and Mahoney 2016). Neither values nor gradients come from here, so
    that float32 may be enough; dense rows are standardised for it.
    """

    def __init__(self, objective, coordinates):
        self.coordinates, self.design = coordinates, objective.design
        self.size = max(MIN_ROWS, ROWS_PER_FEATURE * self.design.shape[1])
        self.dtype = working_dtype(objective, self.size * self.design.shape[1])
        self._whole = None
        if coordinates.light is not None:
            self._whole, self.dtype = DenseDesign(coordinates.light), np.float32
        self._last = None, None

    @property
    def takes_all(self):
        times = MANY_TIMES if is_small(self.design) else FEW_TIMES
        return self.design.sparse or self.design.shape[0] <= times * self.size

    def is_spent(self, objective, decrement, value):
        """Whether float32 passes have brought a problem as far as they can."""
        c = self.coordinates
        level = not self.design.sparse or (np.abs(c.mean) <= LITTLE * c.scale).all()
        share = np.where(level & (objective.l2 > 0), SINGLE, COARSE)
        return ((decrement < share * value) | (value < SMALL_LOSS)).any()

    def lighten(self, objective):
        """`objective` with cheaper products, for the way to the minimum, or itself.

        In float32, where that pays: sparse rows as they are, dense ones standardised, so that
        rounding does not depend on the units of the features nor on where their zero is.
        Without a penalty, directions of little curvature want all the digits: dense rows keep
        them, sparse ones get them back sooner.
        """
        if objective.design.sparse:
            return objective.lighter()
        if self.coordinates.light is None:
            return objective
        return objective.in_chart(self._whole, self.coordinates)

    def at(self, objective, point):
        """The Hessian of `objective` at `point`, a function of arrays (P, K)."""
        known, data = self._last
        if known is not point:
            data = self._curvature(objective, point)
            self._last = point, data
        return SampledHessian(objective, data)

    def diagonal(self, objective, point):
        """The diagonal of its data part, for standardised features (P, K)."""
        data = self.at(objective, point).data
        if self.design.sparse:
            return data.diagonal(self.coordinates.mean, self.coordinates.scale)
        N = self.design.shape[1]
        return data.diagonal(np.zeros(N), np.ones(N))

    def _curvature(self, objective, point):
        if self.takes_all:
            if self._whole is None and self.design.sparse:
                self._whole = objective.lighter().design
            elif self._whole is None:
                self._whole = self._copy(slice(None))
            rows, importance, design = slice(None), 1.0, self._whole
        else:
            chance = objective.row_curvature(point) * self.coordinates.prominence
            rows, importance = draw(chance, self.size)
            design = self._copy(rows)
        chart = None if self.design.sparse else self.coordinates
        part = objective.on_rows(design, objective.weight[:, rows] * importance, chart)
        logits = point.logits[:, rows].astype(design.dtype, copy=False)
        return Curvature(part, logits)

    def _copy(self, rows):
        if self._whole is not None:
            return DenseDesign(self._whole.X[rows])
        return DenseDesign(self.coordinates.standardise(rows, self.dtype))


class SampledHessian:
    """The Hessian of `objective`, its data part taken from a sample."""

    def __init__(self, objective, data):
        self.objective, self.data = objective, data

    def __call__(self, direction):
        out = self.data(direction)
        self.objective.add_penalty(out, direction)
        return out

    def of(self, rows):
        return self.data.of(rows)

    def moves(self, step):
        return self.data.moves(step)

    def along(self, direction):
        return self.data.along(direction)
