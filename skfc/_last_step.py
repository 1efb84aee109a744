"""The step that ends a fit: Newton's, from where it has converged.

The Newton step of an estimate of the gap is at hand when a fit converges, and F after it costs
half a pass, or nothing where the estimate took all rows. The fit ends with it where it lowers F
by about what it promises: F - F* then mostly falls by a factor of 10 to 1000, and the
coefficients come closer to those of the minimum by the root of that. What the step gains is a
lower bound of F - F* before it.
"""

from skfc._array import cast, host, take
from skfc._optimality import relative
from skfc._tuned import TUNED


class LastStep:
    """The step after an iterate, of every problem.

    Attributes
    ----------
    step : (P, K)
    value : (n_problems,), F after it, or NaN where that is not known
    """

    def __init__(self, iterate):
        self.iterate = iterate
        gradient, newton = iterate.evaluation.gradient, iterate.newton
        self.step = -(iterate.precondition(gradient) if newton is None else newton.step)
        self.value = host.full(len(iterate.evaluation.value), host.nan)

    def adopt(self, index, estimate):
        """Take the steps of an `Estimate` of the problems `index`."""
        step, T = (
            cast(-estimate.newton.step, self.step.dtype),
            self.iterate.objective.rows.n_classes,
        )
        for k, b in enumerate(index.tolist()):
            self.step[:, b * T : (b + 1) * T] = step[:, k * T : (k + 1) * T]
        self.value[index] = estimate.after

    def of(self, j):
        """The step (P, n_classes) of problem `j`, and F after it."""
        columns = self.iterate.objective.columns(host.array([j]))
        return take(self.step, columns, axis=1), self.value[j]

    def look(self, index):
        """Find out F after the steps of the problems `index`."""
        index = index[host.isnan(self.value[index])]
        if not len(index):
            return
        objective, evaluation = self.iterate.objective, self.iterate.evaluation
        step = take(self.step, objective.columns(index), axis=1)
        if len(index) < objective.n_problems:
            objective, evaluation = objective.problems(index, evaluation)
        self.value[index] = objective.value_after(evaluation, step)

    def least_gap(self, eps):
        """A lower bound of (F - F*) / F*, (n_problems,): what the steps gain beyond rounding."""
        value = self.iterate.evaluation.value
        gain = value - self.value
        return host.where(gain > TUNED.stronger * eps * value, relative(gain, value), 0.0)

    @property
    def leads_down(self):
        """Whether the steps gain about what they promise, up to rounding, (n_problems,)."""
        evaluation = self.iterate.evaluation
        promised = -0.5 * self.iterate.objective.dot(evaluation.gradient, self.step)
        rounding = TUNED.stronger * host.finfo(float).eps * evaluation.value
        return evaluation.value - self.value + rounding > TUNED.smooth_share * promised
