r"""The mean objective of softmax regression, for problems that share their rows.

With s the total weight and lambda = 1 / (C s),

    F(theta) = sum_i m_i [logsumexp(z_i) - <y_i, z_i>] / s + R(theta),    Z = X̃ theta

in standardised features, with R the penalty. theta is (P, K): features and the intercept by
the classes of all problems; column b * n_classes + k is class k of problem b. Every value,
slope or step is an array (n_problems,) on the host. The logits of an iterate stay with the
blocks of rows, and are opaque here.
"""

from dataclasses import dataclass, field, replace
from functools import partial

from skfc import _blockwise
from skfc._array import Array, cast, host, namespace, take, to_numpy
from skfc._hessian import HessianOperator
from skfc._penalty import Penalty, sums_of_problems
from skfc._pool import inner, over_rows
from skfc._rows import LocalRows, columns_of


@dataclass(eq=False)
class Evaluation:
    """An iterate: theta and gradient (P, K), value (n_problems,), and the state of the rows."""

    theta: Array
    value: Array
    gradient: Array
    state: list = field(repr=False)

    def problems(self, index, columns, state):
        """The iterate of the problems `index`, which own `columns`."""
        return Evaluation(
            take(self.theta, columns, 1), self.value[index], take(self.gradient, columns, 1), state
        )


@dataclass(frozen=True)
class Objective:
    """Rows and penalty: value, gradient, line and Hessian of the mean objective.

    Parameters
    ----------
    rows : Rows, with targets, weights and frame
    penalty : Penalty of as many problems
    """

    rows: LocalRows
    penalty: Penalty

    # -- shapes and arithmetic of weights ------------------------------------------------------

    @property
    def n_problems(self):
        return self.rows.n_problems

    @property
    def shape(self):
        """Shape (P, K) of weights and gradients."""
        return self.rows.n_parameters, self.rows.n_columns

    def dot(self, a, b):
        """Inner product of two arrays (P, K) in every problem, (n_problems,)."""
        if self.n_problems == 1:
            return host.array([inner(a, b)])
        return to_numpy(sums_of_problems(a * b, self.n_problems))

    def spread(self, per_problem):
        """(n_problems,) to (K,), to scale columns."""
        if self.n_problems == 1:
            return per_problem
        return host.repeat(per_problem, self.rows.n_classes)

    def scaled(self, array, per_problem):
        """`array` (P, K) times a number per problem."""
        return array * self._scale(per_problem, array)

    def add(self, out, array, per_problem):
        """Add `array` (P, K) times a number per problem to `out`, in place."""
        scale = self._scale(per_problem, out)

        def piece(rows):
            part = out[rows, :]
            part += array[rows, :] * scale

        over_rows(piece, out)

    def _scale(self, per_problem, like):
        xp = namespace(like)
        return xp.asarray(self.spread(per_problem), dtype=like.dtype)

    # -- evaluations ----------------------------------------------------------------------------

    def at(self, theta):
        """The :class:`Evaluation` at `theta`: one pass, or half of one where W = 0."""
        return self.from_sums(theta, self.rows.sum(_blockwise.evaluate, theta))

    def again(self, evaluation, theta=None):
        """The evaluation once more from the logits of the rows: the adjoint half of a pass."""
        theta = evaluation.theta if theta is None else theta
        sums = self.rows.sum(_blockwise.evaluate_again, state=evaluation.state)
        return self.from_sums(theta, sums)

    def from_sums(self, theta, sums):
        """The evaluation at `theta` from the sums of losses and residuals."""
        gradient = sums.gradient
        self.penalty.add_gradient(gradient, theta)
        value = to_numpy(sums.values[0]) + self.penalty.value(theta)
        return Evaluation(theta, value, gradient, sums.state)

    def with_penalty(self, penalty, evaluation=None):
        """This objective with another penalty, and an evaluation as it sees it, without a pass."""
        other = replace(self, penalty=penalty)
        if evaluation is None:
            return other
        theta, gradient = evaluation.theta, evaluation.gradient + 0
        change = replace(penalty, l2=penalty.l2 - self.penalty.l2)
        if (change.l2 != 0).any():
            value = evaluation.value + 0.5 * change_of(self.penalty, penalty, theta)
            add_difference(gradient, theta, self.penalty, penalty)
        else:
            value = evaluation.value
        return other, Evaluation(theta, value, gradient, evaluation.state)

    @property
    def smooth(self):
        """The objective without the absolute values of its penalty, an `ElasticNet`."""
        return replace(self, penalty=self.penalty.smooth)

    def features(self, index, evaluation):
        """The objective of the features `index` alone, and an evaluation of it.

        The logits are those of all weights: the others stay as they are.
        """
        N, rows = self.rows.shape[1], self.rows.features(index)
        index = host.concatenate([index, host.arange(N, self.rows.n_parameters)])
        theta, gradient = (take(a, index) for a in (evaluation.theta, evaluation.gradient))
        part = replace(self, rows=rows, penalty=self.penalty.features(index[: rows.shape[1]]))
        return part, replace(evaluation, theta=theta, gradient=gradient)

    def line(self, evaluation, direction):
        """The half line from `evaluation` along `direction`.

        It takes one pass, which gives value and gradient at step one.
        """
        return Line.start(self, evaluation, direction)

    def value_after(self, evaluation, step):
        """F (n_problems,) after a step from `evaluation`: half a pass."""
        sums = self.rows.sum(_blockwise.loss, step, evaluation.state)
        return to_numpy(sums.values[0]) + self.penalty_after(evaluation, step)

    def penalty_after(self, evaluation, step):
        """R (n_problems,) after a step from `evaluation`."""
        return self.penalty.value(evaluation.theta + cast(step, evaluation.theta.dtype))

    def hessian(self, evaluation):
        """The Hessian at `evaluation`, as a function of directions (P, K)."""
        return HessianOperator.of(self, evaluation)

    def columns(self, index):
        """Indices of the columns of the problems `index`."""
        return columns_of(index, self.rows.n_classes)

    def single(self):
        """This objective on rows in single precision, where that pays, else itself.

        Without a penalty, directions of little curvature need all the digits of dense rows.
        """
        if not (self.rows.sparse or self.penalty.strict.all()):
            return self
        rows = self.rows.single()
        return self if rows is None else replace(self, rows=rows)

    def problems(self, index, *evaluations):
        """The objective of the problems `index` alone, and evaluations of them."""
        rows, *states = self.rows.problems(index, *(e.state for e in evaluations))
        part = Objective(rows, self.penalty.problems(index))
        columns = columns_of(index, self.rows.n_classes)
        cut = [e.problems(index, columns, s) for e, s in zip(evaluations, states, strict=True)]
        return (part, *cut)


class Line:
    """F along theta + t * direction, from the logits that stay with the rows.

    Attributes
    ----------
    slope : (n_problems,), at t = 0
    at_unit_step : value and slope at t = 1
    """

    def __init__(self, objective, evaluation, direction, state, penalty_terms):
        self.objective, self.evaluation, self.direction = objective, evaluation, direction
        self.slope = objective.dot(evaluation.gradient, direction)
        self.state, self.penalty_terms = state, penalty_terms
        self._unit_gradient = self.at_unit_step = None

    @property
    def itemsize(self):
        """Bytes of a logit."""
        return 4 if self.objective.rows.dtype == self.objective.rows.xp.float32 else 8

    @classmethod
    def start(cls, objective, evaluation, direction):
        terms = objective.penalty.along(evaluation.theta, direction)
        sums = objective.rows.sum(_blockwise.step_along, direction, evaluation.state)
        line = cls(objective, evaluation, direction, sums.state, terms)
        loss, slope = to_numpy(sums.values[0]), objective.dot(sums.gradient, direction)
        there, rise, curvature = terms
        line.at_unit_step = loss + there + rise + 0.5 * curvature, slope + rise + curvature
        line._unit_gradient = sums.gradient
        return line

    def at(self, t, problems):
        """Value and slope at steps `t` (n_tried,) of some problems: no product with X."""
        o = self.objective
        some = {}
        if len(problems) < o.n_problems:
            some = {"problems": problems, "columns": columns_of(problems, o.rows.n_classes)}
        steps = t if o.n_problems == 1 else host.repeat(t, o.rows.n_classes)
        function = partial(_blockwise.try_steps, steps=steps, **some)
        sums = o.rows.sum(function, state=self.state, count=False)
        loss, slope = (to_numpy(v) for v in sums.values)
        there, rise, curvature = (terms[problems] for terms in self.penalty_terms)
        value = loss + there + t * rise + 0.5 * t**2 * curvature
        return value, slope + rise + t * curvature

    def move(self, t):
        """The :class:`Evaluation` at steps `t`; the old one must not be used again."""
        o, evaluation = self.objective, self.evaluation
        theta = evaluation.theta + o.scaled(self.direction, t)
        unit = bool((t == 1.0).all())
        function = partial(_blockwise.move_along, steps=None if unit else o.spread(t))
        state = o.rows.sum(function, state=self.state, count=False).state
        if unit:
            gradient = self._unit_gradient
            o.penalty.add_gradient(gradient, theta)
            return Evaluation(theta, self.at_unit_step[0], gradient, state)
        moved = replace(evaluation, theta=theta, state=state)
        again = o.again(moved)
        return replace(again, state=state)


def change_of(old, new, theta):
    """<theta, (R_new'' - R_old'') theta> in every problem."""
    return new.dot(theta, theta) - old.dot(theta, theta)


def add_difference(gradient, theta, old, new):
    """Add ∇R_new(theta) - ∇R_old(theta) to `gradient`, in place."""
    replace(new, l2=new.l2 - old.l2).add_gradient(gradient, theta)
