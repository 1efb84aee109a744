r"""Features whose weights are zero at the minimum of an elastic net, whatever the others are.

The residual of a row is q - y with probabilities q and y: no entry is beyond one. So no gradient
of the loss in a weight of feature j is beyond the mean of m |x_j|, and where that is below the
threshold of the penalty, the weights are zero. This holds with the intercepts at their optimum,
where the gradient is the same whatever centre is taken off the feature, and for every residual
that a gap is made of (:mod:`skfc._duality`): the gap of the other features is that of all.
(Safe screening, El Ghaoui, Viallon and Rabbani 2012, without a dual point.)
"""

from dataclasses import dataclass, field

from skfc._array import Array, as_like, host, take, to_numpy
from skfc._objective import Objective
from skfc._tuned import TUNED


@dataclass(frozen=True)
class Screened:
    """An objective of one problem in some of its features, the rest having no weight.

    Attributes
    ----------
    objective : Objective in these features
    index : host array, their rows of theta, the intercept included
    n_parameters : int, rows of theta with all features
    """

    objective: Objective
    index: Array = field(repr=False)
    n_parameters: int

    @classmethod
    def of(cls, objective):
        """That of an objective of an `ElasticNet`, or None where it pays not."""
        rows, N = objective.rows, objective.rows.shape[1]
        sizes = rows.mean_sizes
        if sizes is None:
            return None
        thresholds = to_numpy(objective.penalty.thresholds)[:, 0]
        kept = host.flatnonzero(sizes > (1 - TUNED.single_digits) * thresholds)
        if not 0 < len(kept) <= TUNED.merge_share * N:
            return None
        part = Objective(rows.features(kept), objective.penalty.features(kept))
        index = host.append(kept, host.arange(N, rows.n_parameters))
        return cls(part, index, rows.n_parameters)

    def cut(self, theta):
        """The weights of these features, (P, T)."""
        return take(theta, self.index)

    def whole(self, theta):
        """The weights of all features."""
        out = host.zeros((self.n_parameters, theta.shape[1]))
        out[self.index] = to_numpy(theta)
        return as_like(out, theta)
