"""What an objective is near an iterate: its point, the rays from it and its curvature.

A :class:`Point` is an iterate with its logits, value and gradient; a :class:`Ray` is a half
line from it, on which a trial step costs no product with X; a :class:`Curvature` is the
Hessian there.
"""

from copy import copy
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np

from skfc._array import cast

# Rows by themselves are copied where they are at most one in so many.
FEW = 8


@dataclass
class Point:
    """An iterate: `weights` and `gradient` (P, K), `logits` (K, n), `value` (B,).

    `room` is space for as many logits again, which is used for those of a direction: large
    arrays that come and go cost as much as what is done to them.
    """

    weights: np.ndarray
    logits: np.ndarray
    value: np.ndarray
    gradient: np.ndarray
    room: np.ndarray | None = field(default=None, repr=False)

    def take(self, keep, columns):
        """The iterate of the problems `keep`, which own `columns`."""
        return Point(
            self.weights[:, columns],
            self.logits[columns],
            self.value[keep],
            self.gradient[:, columns],
        )


class Ray:
    """F along weights + t * direction, from cached logits.

    `slope` is that at t = 0, and `one` are value and slope at t = 1. With `whole` the gradient
    there comes with them, block by block, which costs least where t = 1 is the step; without,
    it waits for the step.
    """

    def __init__(self, objective, point, direction, *, whole=True):
        self.objective, self.point, self.direction = objective, point, direction
        self.slope = objective.dot(point.gradient, direction)
        room, design = point.room, objective.design
        self.logits = design.logits(objective.n_columns) if room is None else room
        self._one_gradient = None
        if whole:
            self._step_one()
        else:
            self._look()

    def _look(self):
        """Logits of the direction, and no gradient yet: half a pass."""
        o, inner = self.objective, self.objective._inner(self.direction)

        def block(rows):
            self.logits[:, rows] = o._forward(inner, rows)

        o.work.passes += 0.5
        list(o.design.map(block))
        self.one = self.evaluate(o.xp.ones_like(self.slope), o.xp.arange(o.n_problems))

    def _step_one(self):
        """Logits of the direction, and value and gradient at t = 1, block by block."""
        o, inner = self.objective, self.objective._inner(self.direction)

        def block(rows):
            dz = o._forward(inner, rows)
            self.logits[:, rows] = dz
            dz += self.point.logits[:, rows]
            return o._kernel.residual(o._stack(dz), o._target(rows), o.weight[:, rows])

        o.work.passes += 1
        weights = self.point.weights + self.direction
        value, self._one_gradient = o._finish(block, weights)
        self.one = value, o.dot(self._one_gradient, self.direction)

    @cached_property
    def _penalty(self):
        o = self.objective
        if not o.penalised:
            return (o.l2,) * 3  # zeros
        W, D = o._penalised(self.point.weights), o._penalised(self.direction)
        return o.l2 * o.dot(W, W), o.l2 * o.dot(W, D), o.l2 * o.dot(D, D)

    def evaluate(self, t, which):
        """Value and slope at steps `t` of the problems `which`: no product with X.

        `t` and `which`, and both results, are arrays (n_tried,).
        """
        o = self.objective
        if which.shape[0] == o.n_problems:
            columns, part = slice(None), o
        else:
            columns, part = o.columns(which), o.take(which)
        scale = cast(part.spread(t), o.design.dtype)[:, None]

        def block(rows):
            dz = self.logits[columns, rows]
            z = part._stack(self.point.logits[columns, rows] + scale * dz)
            loss, residual = o._kernel.residual(z, o._target(rows), part.weight[:, rows])
            slope = o.xp.sum(residual * part._stack(dz), axis=1)
            return loss, o.xp.sum(cast(slope, o.xp.float64), axis=1)

        value, slope = 0.0, 0.0
        for v, s in o.design.map(block):
            value, slope = value + v, slope + s
        n = o.design.shape[0]
        ww, wd, dd = (p[which] for p in self._penalty)
        return value / n + 0.5 * ww + t * wd + 0.5 * t**2 * dd, slope / n + wd + t * dd

    def move(self, t):
        """The :class:`Point` at steps `t`. The logits of the old point are overwritten."""
        o, point = self.objective, self.point
        scale = o.spread(t)
        weights = point.weights + self.direction * cast(scale, self.direction.dtype)
        scale = cast(scale, o.design.dtype)[:, None]
        other = o.xp.nonzero(t != 1.0)[0]
        for rows in o.design.blocks:
            if other.shape[0]:
                self.logits[:, rows] *= scale
            point.logits[:, rows] += self.logits[:, rows]
        if self._one_gradient is None or other.shape[0] == t.shape[0]:
            value, gradient = o._gradient(point.logits, weights)
        else:
            value, gradient = self.one[0], self._one_gradient
            if other.shape[0]:
                columns = o.columns(other)
                value[other], gradient[:, columns] = o.take(other)._gradient(
                    point.logits[columns], weights[:, columns]
                )
        return Point(weights, point.logits, value, gradient, self.logits)


class Curvature:
    """The Hessian at logits, H V = Xᵀ S (P∘dZ - P rowsum(P∘dZ)) / s + lambda V."""

    def __init__(self, objective, logits):
        self.objective = o = objective
        self.proba = o.design.logits(o.n_columns)
        self.weight = None if o.xp.all(o.weight == 1.0) else o.weight

        def block(rows):
            p = o._kernel.probabilities(o._stack(logits[:, rows] + 0))
            self.proba[:, rows] = o.xp.reshape(p, (o.n_columns, -1))

        list(o.design.map(block))

    def __call__(self, direction):
        o = self.objective
        inner = o._inner(direction)

        def block(rows):
            dz, p = o._stack(o._forward(inner, rows)), o._stack(self.proba[:, rows])
            weight = None if self.weight is None else self.weight[:, rows]
            return 0.0, o._kernel.curvature(p, dz, weight)

        o.work.passes += o.share
        _, out = o._sum(block, direction.dtype)
        o.add_penalty(out, direction)
        return out

    def of(self, rows):
        """The data part of `rows`, a mask (n_problems, n_rows), alone."""
        o, part, design = self.objective, copy(self), self.objective.design
        index = np.flatnonzero(rows.any(axis=0))
        if len(index) * FEW <= design.shape[0]:
            design = type(design)(design.X[index])
        else:
            index = slice(None)
        part.objective = o.on_rows(design, o.weight[:, index] * rows[:, index], o.chart)
        part.proba, part.weight = self.proba[:, index], part.objective.weight
        return part

    def moves(self, step):
        """By how much `step` moves logits against one another, (n_problems, n_rows).

        Rows without weight count as not moved.
        """
        out = self._over_rows(step, lambda dz, p: dz.max(axis=1) - dz.min(axis=1))
        out *= self.objective.weight > 0
        return out

    def along(self, direction):
        """What every row adds to <direction, H direction>, (n_problems, n_rows)."""
        o = self.objective

        def row(dz, p):
            return np.einsum("bkn,bkn->bn", o._kernel.curvature(p, dz + 0, None), dz)

        return self._over_rows(direction, row) * o.weight / self.proba.shape[1]

    def _over_rows(self, direction, function):
        o, inner = self.objective, self.objective._inner(direction)
        out = np.empty(o.weight.shape, dtype=self.proba.dtype)

        def block(rows):
            dz = o._stack(o._forward(inner, rows))
            out[:, rows] = function(dz, o._stack(self.proba[:, rows]))

        o.work.passes += o.share / 2
        list(o.design.map(block))
        return out

    def diagonal(self, mean, scale):
        """The diagonal of the data part, in features (x - mean) / scale: (P, K)."""
        o = self.objective

        def block(rows):
            p = o._stack(self.proba[:, rows])
            q = p * (1 - p)
            q *= o.weight[:, rows][:, None, :]
            return 0.0, q

        return o._sum(block, reduce=partial(o.design.reduce_squares, mean=mean, scale=scale))[1]
