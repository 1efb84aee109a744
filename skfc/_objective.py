r"""The mean objective of softmax regression, for problems that share their rows.

With s the total weight and lambda = 1 / (C s),

    F(W, b) = sum_i m_i [logsumexp(z_i) - <y_i, z_i>] / s + lambda / 2 |W|^2
    Z = X W + b

Weights are one array V of shape (n_features + 1, n_columns): W above, the intercept as
the last row (absent without intercept). A column is a class of a problem: column
b * n_classes + k is class k of problem b. Every value, slope or step is an array
(n_problems,).

Solvers meet the data only here, and in what it is near an iterate: :mod:`skfc._local`.
"""

import math
from copy import copy
from dataclasses import dataclass

import numpy as np

from skfc._array import cast
from skfc._local import Curvature, Point, Ray
from skfc._softmax import kernel
from skfc._threads import add, over_rows

# Numbers from which on they are held in float32, where that is enough.
SINGLE_FROM = 2**17
# From so many features and classes on, products with dense rows take longer than all else.
HEAVY_FEATURES, HEAVY_CLASSES = 500, 100


@dataclass
class Work:
    """Passes over the data, of all objectives that came from one; samples count in part."""

    passes: float = 0.0


class Objective:
    """Value, gradient, rays and curvature of the mean objective.

    Parameters
    ----------
    design : design of shape (n_samples, n_features)
    target : array, (n_samples,) class indices or (n_classes, n_samples) probabilities
    weight : array (n_problems, n_samples), the weight of every row in every problem
    C : array (n_problems,), inverse penalty strength; inf is none
    n_classes : int
    fit_intercept : bool
    """

    def __init__(self, design, target, weight, C, *, n_classes, fit_intercept=True):
        xp = design.xp
        self.design, self.target, self.xp = design, target, xp
        self.n_classes, self.fit_intercept = n_classes, fit_intercept
        self.n_problems = weight.shape[0]
        self.n_columns = self.n_problems * n_classes
        self.C = C
        self.total = xp.sum(weight, axis=1)
        # Scaled to mean one over the rows: residuals of order one in any precision.
        scale = weight.shape[1] / self.total
        self.weight = cast(weight * scale[:, None], design.dtype)
        self._set_penalty(1.0 / C / self.total)
        self.work, self.share = Work(), 1.0
        self.dtype = xp.float64  # of weights and gradients
        self.chart = None  # coordinates of the design's features, where not their own
        self._kernel = kernel(xp)

    def _set_penalty(self, l2):
        """`l2` (n_problems,); and whether any problem has a penalty."""
        self.l2, self.penalised = l2, bool(self.xp.any(l2 > 0))

    @property
    def precision(self):
        """The precision of weights and of passes."""
        return self.dtype, self.design.dtype

    @property
    def is_large(self):
        """Whether a pass is enough work for float32 to pay."""
        n, N = self.design.shape
        return n * max(self.n_columns, 0 if self.design.sparse else N) > SINGLE_FROM

    @property
    def is_heavy(self):
        """Whether products with X are most of a pass, beside exponentials and to read X."""
        many = self.design.shape[1] >= HEAVY_FEATURES and self.n_columns >= HEAVY_CLASSES
        return many and not self.design.sparse

    @property
    def shape(self):
        """Shape (P, K) of weights and gradients."""
        return self.design.shape[1] + self.fit_intercept, self.n_columns

    def take(self, keep):
        """The objective of the problems `keep` alone."""
        part = copy(self)
        part.n_problems = len(keep)
        part.n_columns = part.n_problems * self.n_classes
        part.C, part.total = self.C[keep], self.total[keep]
        part._set_penalty(self.l2[keep])
        part.weight = self.weight[keep]
        return part

    def lighter(self):
        """This objective of sparse rows with the products that cost least.

        They are in float32, where there is enough to do, as are weights and gradients.
        """
        part = copy(self)
        part.dtype = np.float32 if self.is_large else self.design.dtype
        # Xᵀ is kept beside X where it is no larger than a few vectors.
        transpose = self.design.X.nnz <= 2 * math.prod(self.shape)
        part.design = self.design.lighter(part.dtype, self.n_columns, transpose=transpose)
        part.weight = cast(self.weight, part.dtype)
        return part

    def in_chart(self, design, chart):
        """This objective from the same rows in coordinates: `design`, of any precision."""
        part = copy(self)
        part.design, part.chart = design, chart
        part.weight = cast(self.weight, design.dtype)
        return part

    def with_penalty(self, l2, point):
        """This objective with the penalty `l2` (n_problems,), and `point` as it sees it."""
        part = copy(self)
        part._set_penalty(l2)
        change, W = l2 - self.l2, self._penalised(point.weights)
        value = point.value + 0.5 * change * self.dot(W, W)
        gradient = point.gradient.copy()
        add(self._penalised(gradient), W, cast(self.spread(change), gradient.dtype))
        return part, Point(point.weights, point.logits, value, gradient, point.room)

    def damped(self, factor):
        """This objective with so much more penalty, for a cautious model at the same point."""
        if factor == 1:
            return self
        part = copy(self)
        part._set_penalty(self.l2 * factor)
        return part

    def on_rows(self, design, weight, chart=None):
        """The data part on a sample: rows `design` in coordinates, importance in `weight`."""
        part = copy(self)
        part.design, part.target, part.chart = design, None, chart
        part.share = self.share * design.shape[0] / self.design.shape[0]
        part.weight = cast(weight * (design.shape[0] / self.design.shape[0]), design.dtype)
        part._set_penalty(self.l2 * 0)
        return part

    # -- per problem ------------------------------------------------------------------

    def dot(self, a, b):
        """Inner product of two arrays of weights in every problem, (n_problems,)."""
        xp = self.xp
        if self.n_problems == 1 and xp is np:
            if self.design.sparse:
                pieces = over_rows(lambda rows: float(np.vdot(a[rows], b[rows])), a)
                return np.array([sum(pieces)])
            return np.array([np.vdot(a, b)], dtype=np.float64)
        if self.n_problems == 1:
            return xp.reshape(cast(xp.sum(a * b), xp.float64), (1,))
        shape = (a.shape[0], self.n_problems, self.n_classes)
        return np.einsum("pbk,pbk->b", a.reshape(shape), b.reshape(shape))

    def spread(self, per_problem):
        """(n_problems,) to (n_columns,), to scale columns."""
        if self.n_problems == 1:
            return per_problem
        return np.repeat(per_problem, self.n_classes)

    def columns(self, problems):
        """Indices of the columns of `problems`."""
        return (problems[:, None] * self.n_classes + np.arange(self.n_classes)).ravel()

    def _stack(self, logits):
        return self.xp.reshape(logits, (self.n_problems, self.n_classes, logits.shape[-1]))

    # -- the two products ---------------------------------------------------------------

    def _forward(self, weights, rows):
        if not self.fit_intercept:
            return self.design.forward(weights, rows)
        logits = self.design.forward(weights[:-1, :], rows)
        logits += weights[-1, :][:, None]
        return logits

    def _inner(self, weights):
        """Weights as the design takes them."""
        own = weights if self.chart is None else self.chart.carry(weights)
        return cast(own, self.design.dtype)

    def _constant(self, weights):
        return weights[-1, :][:, None] if self.fit_intercept else 0.0

    def _sum(self, block, dtype=None, reduce=None):
        """Losses, and the part of a gradient (P, K) from the data: means over the rows.

        `block(rows)` gives the losses of some rows and the residuals (..., n_rows).
        """
        xp = self.xp

        def flat(rows):
            loss, residual = block(rows)
            return loss, xp.reshape(residual, (-1, residual.shape[-1]))

        out = xp.empty(self.shape, dtype=dtype or self.dtype)
        loss, sums = (reduce or self.design.reduce)(flat, out[: self.design.shape[1], :])
        if self.fit_intercept:
            out[-1, :] = sums
        out /= self.design.shape[0]
        if self.chart is not None and reduce is None:
            out = self.chart.pull_back(out)
        return loss / self.design.shape[0], out

    def _target(self, rows):
        return self.target[rows] if self.target.ndim == 1 else self.target[:, rows]

    def add_penalty(self, gradient, weights):
        """Add lambda W to a gradient, or to a Hessian product, in place."""
        if self.penalised:
            scale = cast(self.spread(self.l2), gradient.dtype)
            add(self._penalised(gradient), self._penalised(weights), scale)

    def _penalised(self, weights):
        """The rows of `weights` that the penalty sees."""
        return weights[: self.design.shape[1], :]

    def most_to_come(self, residual, preconditioned):
        """A bound of <r, H⁻¹ r> / 2, (n_problems,): the penalty is curvature that H has at least.

        The intercepts have none of it; for their part stands that in the metric.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            W = self._penalised(residual)
            of_weights = 0.5 * self.dot(W, W) / self.l2
        b = slice(self.design.shape[1], None)
        return of_weights + np.abs(self.dot(residual[b], preconditioned[b]))

    def _finish(self, block, weights):
        """Value and gradient: the sums over blocks, and the penalty."""
        value, gradient = self._sum(block)
        if self.penalised:
            W = self._penalised(weights)
            value = value + 0.5 * self.l2 * self.dot(W, W)
            self.add_penalty(gradient, weights)
        return value, gradient

    # -- points -------------------------------------------------------------------------

    def at(self, weights):
        """The :class:`Point` at `weights` (P, K): one pass, or half of one where W = 0."""
        logits = self.design.logits(self.n_columns)
        inner = self._inner(weights)
        null = not self.xp.any(self._penalised(weights) != 0)  # no product is needed

        def block(rows):
            logits[:, rows] = self._constant(inner) if null else self._forward(inner, rows)
            z = logits[:, rows] + 0
            return self._kernel.residual(self._stack(z), self._target(rows), self.weight[:, rows])

        self.work.passes += 0.5 if null else 1
        value, gradient = self._finish(block, weights)
        return Point(weights, logits, value, gradient)

    def _gradient(self, logits, weights):
        """Value and gradient from logits: the adjoint half of a pass."""

        def block(rows):
            z = self._stack(logits[:, rows] + 0)
            return self._kernel.residual(z, self._target(rows), self.weight[:, rows])

        self.work.passes += 0.5
        return self._finish(block, weights)

    def ray(self, point, direction, *, whole=True):
        """The half line from `point` along `direction`: a pass, which tries step one.

        Without `whole` it is half of one, and the other half comes with the step.
        """
        return Ray(self, point, direction, whole=whole)

    def curvature(self, point):
        """The Hessian at `point`, as a function of directions (P, K)."""
        return Curvature(self, point.logits)

    def separates(self, point):
        """Whether every row of positive weight has its label's logit above the others."""

        def block(rows):
            z = self._stack(point.logits[:, rows] + 0)
            label = self._target(rows)
            own = np.take_along_axis(z, label[None, None, :], axis=1)[:, 0]
            np.put_along_axis(z, label[None, None, :], -np.inf, axis=1)
            return ((own > z.max(axis=1)) | (self.weight[:, rows] == 0)).all(axis=1)

        if self.target.ndim == 2:
            return np.zeros(self.n_problems, dtype=bool)
        return np.logical_and.reduce(list(self.design.map(block)))

    def row_curvature(self, point):
        """Trace of every row's curvature, m_i (1 - |p_i|²), summed over problems, (n,)."""
        out = np.empty(self.design.shape[0])

        def block(rows):
            p = self._kernel.probabilities(self._stack(point.logits[:, rows] + 0))
            trace = 1.0 - np.einsum("bkn,bkn->bn", p, p)
            out[rows] = np.einsum("bn,bn->n", self.weight[:, rows], np.maximum(trace, 1e-12))

        list(self.design.map(block))
        return out

    def class_curvature(self, point, n_rows=None):
        """Weighted mean of diag(p) - p pᵀ over all rows, or about `n_rows` of them.

        Its shape is (n_problems, n_classes, n_classes).
        """
        step = 1 if n_rows is None else max(1, self.design.shape[0] // n_rows)
        rows = slice(None, None, step)
        p = self._kernel.probabilities(self._stack(point.logits[:, rows] + 0))
        weight = self.weight[:, rows]
        weighted = p * weight[:, None, :]
        S = -np.matmul(weighted, p.transpose(0, 2, 1)).astype(np.float64)
        k = np.arange(self.n_classes)
        S[:, k, k] += weighted.sum(axis=2, dtype=np.float64)
        # The weights of the whole data have mean one.
        return S / np.maximum(weight.sum(axis=1), 1.0)[:, None, None]
