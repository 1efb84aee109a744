"""What the metrics share, and the two that need no matrix."""

import numpy as np

from skfc._coordinates import LARGEST, SINGLE_RANGE
from skfc._sampling import CurvatureSampler
from skfc._threads import over_rows

# Relative to a unit diagonal: directions with less curvature count as having none.
TINY = 1e-13
# What is added to a unit diagonal to keep a singular matrix positive definite.
JITTER = {np.float32: 1e-6, np.float64: 1e-10}


class Metric:
    """What the metrics share: when to look at the iterate again."""

    refresh_at = frozenset({2, 5, 10, 20, 40, 80, 160})
    # Conjugate-gradient steps in the metric before their end is believed.
    doubt = 2
    # Whether a step in the metric is nearly a Newton step, so that a refresh makes the
    # memory of older curvature worthless.
    is_newton = False

    def __init__(self, objective, coordinates):
        self.objective, self.coordinates = objective, coordinates
        self.sampler = CurvatureSampler(objective, coordinates)
        self.looked = None, None

    def update(self, objective, point):
        """Look at `point` of `objective`, unless that was the last look."""
        objective_seen, point_seen = self.looked
        if point is not point_seen or (objective.l2 != objective_seen.l2).any():
            self.objective, self.looked = objective, (objective, point)
            self.refresh(point)

    def renew(self, point):
        """Whether M was older than `point`, so that it is another one now."""
        return False

    def strain(self):
        """Take note that a step went beyond where its model holds."""

    def is_due(self, n_iter):
        return n_iter in self.refresh_at


class Identity(Metric):
    """No metric: textbook gradients."""

    refresh_at = frozenset()
    doubt = 10

    def refresh(self, point):
        pass

    def take(self, objective, keep):
        pass

    def solve(self, gradient):
        return gradient.copy()


class Diagonal(Metric):
    """The diagonal of the Hessian in centred features: for sparse and very wide data."""

    doubt = 4
    # A look costs as much as so many steps.
    look_steps = 5
    steps = 0

    def update(self, objective, point):
        seen, _ = self.looked
        if seen is None or self.steps >= self.look_steps or (seen.l2 != objective.l2).any():
            super().update(objective, point)
        self.objective = objective

    def refresh(self, point):
        o, c = self.objective, self.coordinates
        self.steps = 0
        M = self._diagonal(point)
        floor = TINY * M.max(axis=0)
        ridge, l2 = c.ridge(1.0)[:, None], o.spread(o.l2)
        unit = np.append(c.scale, 1.0) if c.intercept else c.scale
        idle = np.append(c.constant, False) if c.intercept else c.constant
        smallest, largest = SINGLE_RANGE

        def invert(rows):
            m = M[rows]
            m[m <= floor] = 0.0  # without curvature but for rounding
            m += np.minimum(ridge[rows] * l2, LARGEST)
            m[idle[rows]] = 0.0
            np.divide(1.0, m, out=m, where=m > 0)
            m /= unit[rows, None]
            m /= unit[rows, None]
            return m.max() < largest and m.min(where=m > 0, initial=largest) > smallest

        inside = all(over_rows(invert, M))
        self.inverse = M.astype(np.float32) if inside else M

    def _diagonal(self, point):
        """The diagonal of the data part of the Hessian, for standardised features (P, K)."""
        o = self.objective
        if point.weights[: o.design.shape[1]].any():
            return self.sampler.diagonal(o, point)
        # All rows have the same probabilities, and the features the variance one.
        p = o._kernel.probabilities(o._stack(point.logits[:, :1].astype(np.float64)))
        return np.tile((p * (1 - p)).ravel(), (o.shape[0], 1))

    def take(self, objective, keep):
        self.inverse = self.inverse[:, self.objective.columns(keep)]
        self.objective = objective

    def solve(self, gradient):
        self.steps += 1
        return self.coordinates.filter(gradient, self.inverse)


def factorise(H, jitter):
    """Cholesky factor of H with `jitter`, or as much more as it takes, on its diagonal."""
    diagonal = np.einsum("ii->i", H)
    while True:
        diagonal += jitter
        try:
            return np.linalg.cholesky(H)
        except np.linalg.LinAlgError:
            if not jitter < 1:
                raise
            jitter *= 100
