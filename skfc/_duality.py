r"""The gap under an elastic net, proven by duality (Fenchel 1949).

The loss of a row with target y has the conjugate sum_k q_k log q_k at the residual q - y, for
any probabilities q. So, for any q_i whose weighted mean is that of the targets,

    F - F*  <=  mean_i m_i KL(q_i | p_i)  +  R(W) + R*(-G) + <W, G>,    G = X̃ᵀ M (Q - Y) / n

with the probabilities p of the present weights, and neither part is negative. The condition on
the mean is that of the intercepts, which have no penalty. Here

    q = (1 - a) y + a ((1 - e) p + e r)

where e is as small, and r the probabilities, that meet this condition: e vanishes as the
intercepts come to their optimum. R*(-G) is finite for a sum of absolute values where no entry
of G is beyond its threshold; a is the largest share for which that holds. With a sum of squares
as well every a gives a bound, and the least of some of them is taken.

Of a feature whose penalty is lost in the rounding of gradients, such as one with values of 1e12
beside others, no such bound is finite in practice. Its weights at the minimum are within what
the penalty allows, of all that the objective is now, and are assumed to be within `farthest` of
the present ones, which bounds what they may gain: no more is left to assume than that no logit
is far away, see `farthest_of`.
"""

from dataclasses import dataclass
from functools import cached_property, partial

from skfc import _blockwise, _draws, _gap_blockwise
from skfc._array import Array, host, to_numpy
from skfc._objective import Objective
from skfc._tuned import TUNED

# Shares of the way from the largest feasible a to one.
SHARES = (0.0, 0.5, 0.9, 0.99, 1.0)
# Rounding of gradients leaves no digits of thresholds below this, in standardised units.
NO_THRESHOLD = 1e-10
# a share is lowered by so much, so that rounding leaves no entry of G beyond its threshold
ROUNDING = 1e-15


@dataclass(frozen=True)
class Dual:
    """What the gap of one problem needs beside an evaluation.

    Attributes
    ----------
    objective : with an `ElasticNet`
    at_zero : gradient (P, T) of the loss where all logits are zero
    centre : (P, 1), weighted means of the standardised features
    share : (T,), the classes' shares of the weight
    farthest : (n_features, 1), how far weights at the minimum may be, see `farthest_of`
    """

    objective: Objective
    at_zero: Array
    centre: Array
    share: Array
    farthest: Array

    @classmethod
    def of(cls, objective):
        """That of an objective; one pass."""
        rows, T = objective.rows, objective.rows.n_classes
        zeros = rows.xp.zeros(objective.shape, dtype=rows.parameter_dtype)
        sums = rows.sum(_blockwise.evaluate, zeros)
        centre = rows.sum(_blockwise.weights_alone, state=sums.state).gradient[:, :1]
        share = host.full(T, 1.0 / T)
        if rows.frame.fit_intercept:
            share = share - to_numpy(sums.gradient[-1, :])
        return cls(objective, sums.gradient, centre, share, farthest_of(objective))

    def null_gradient(self):
        """The gradient (P, T) of the loss where all weights are zero, at the best intercepts."""
        return self.with_mean(self.share)

    def with_mean(self, rest):
        """The gradient of the loss where every row has the probabilities `rest` (T,)."""
        xp, T = self.objective.rows.xp, self.objective.rows.n_classes
        change = xp.asarray(rest - 1.0 / T, dtype=self.at_zero.dtype)
        return self.at_zero + self.centre * change[None, :]

    def gap(self, evaluation):
        """The least bound of F - F* found, (1,).

        Parameters
        ----------
        evaluation : Evaluation whose gradient is that of loss and squares
        """
        penalty, rows = self.objective.penalty, self.objective.rows
        gradient = evaluation.gradient + 0
        penalty.add_gradient(gradient, -evaluation.theta)
        mix, rest = self.mixture(gradient)
        if mix > 0:
            gradient = (1 - mix) * gradient + mix * self.with_mean(rest)
        least = penalty.largest_share(gradient, NO_THRESHOLD)
        least = least if least == 1.0 else least * (1 - ROUNDING)
        shares = [least]
        if (penalty.l2 > 0).all():
            shares = [least + (1 - least) * share for share in SHARES]
        function = partial(_gap_blockwise.divergence, mix=mix, rest=rest, shares=shares)
        found = rows.sum(function, state=evaluation.state, count=False)
        divergence = to_numpy(found.values[0])
        value = float((evaluation.value + penalty.absolute(evaluation.theta))[0])
        weak = NO_THRESHOLD, value, self.farthest
        gaps = divergence + penalty.excess(evaluation.theta, gradient, *weak, shares)
        return host.maximum(gaps.min(keepdims=True), 0.0)  # rounding

    def violation(self, evaluation):
        """How far zero is from the subdifferential, as a share of what it is for the null model.

        In thresholds, of the features that have one; the `evaluation` is as for :meth:`gap`.
        """
        penalty = self.objective.penalty
        here = largest_size(penalty, penalty.distance(evaluation.theta, evaluation.gradient))
        return here / self.largest if self.largest > 0 else 0.0

    @cached_property
    def largest(self):
        """The largest gradient of the null model, in thresholds."""
        return largest_size(self.objective.penalty, self.null_gradient())

    def mixture(self, gradient):
        """e and r (T,), for which the mean of (1 - e) p + e r is that of the targets."""
        if not self.objective.rows.frame.fit_intercept:
            return 0.0, self.share
        excess = to_numpy(gradient[-1, :])
        excess = excess - excess.mean()
        mean = self.share + excess
        mix = float(min(host.max(excess / host.maximum(mean, host.finfo(float).tiny)), 1.0))
        if not mix > 0:
            return 0.0, self.share
        rest = host.maximum(mean - excess / mix, 0.0)
        return mix, rest / rest.sum()


def largest_size(penalty, gradient):
    """The largest entry of a gradient in thresholds, of those that rounding leaves digits of."""
    t = to_numpy(penalty.thresholds)
    some = host.flatnonzero(t[:, 0] > NO_THRESHOLD)
    return float((host.abs(to_numpy(gradient)[some, :]) / t[some]).max(initial=0.0))


def farthest_of(objective):
    """How far weights at the minimum may be, by feature (n_features, 1); of weak ones alone.

    Features that are nearly equal may have weights that are as far apart as makes a logit of
    their difference. The root of a diagonal entry of the inverse of the weak features' Gram
    matrix says how far one weight is where logits are one, whatever the others are. In the
    matrix a row counts for no more than its prominence, since a row that is far out may have
    any logit that is on its side. Where such rows have most of the variance of a feature, it
    does not say how small the other values are, and all that is known is the penalty.
    """
    rows, penalty, far = objective.rows, objective.penalty, TUNED.farthest_intercept
    strength = to_numpy(penalty.thresholds + penalty.factors * float(penalty.l2[0]))[:, 0]
    weak = host.flatnonzero(strength < NO_THRESHOLD)
    out = host.full((len(strength), 1), far**2)
    if len(weak) > TUNED.few:
        out[weak, 0] = host.inf
    elif len(weak):
        H = level_gram(rows, weak)
        root = host.sqrt(host.maximum(H.diagonal(), host.finfo(float).tiny))
        values, vectors = host.linalg.eigh(H / root[:, None] / root)
        inverse = (vectors**2 / host.maximum(values, TUNED.no_curvature)).sum(axis=1)
        out[weak, 0] = host.maximum(far**2, far * (host.sqrt(inverse) / root)[: len(weak)])
        alone = [level_gram(rows.features(weak[j : j + 1]), [0])[0, 0] for j in range(len(weak))]
        out[weak[host.asarray(alone) * TUNED.farther < 1.0], 0] = host.inf
    return rows.xp.asarray(out, dtype=penalty.thresholds.dtype)


def level_gram(rows, index):
    """The Gram matrix of some features and ones, in which a row counts for its prominence."""
    plain = partial(_draws.row_weight, scale=1.0, least=0.0)
    weights = rows.sum(plain, count=False).state
    level = partial(_blockwise.keep_level, n_classes=rows.n_classes)
    proba = rows.sum(level, state=rows.with_prominence(weights), count=False).state
    columns = host.append(index, [rows.shape[1]] * rows.frame.fit_intercept).astype(int)
    return 4 * rows.hessian_on(proba, columns, 0 * columns, rows.xp.float64)
