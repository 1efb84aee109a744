"""Problems: from validated data and parameters to coefficients.

A :class:`Problem` is the one place where rows, frame and penalty are put together: for a
classifier, for the folds of a search, and for its refit. `_fits` solves it.
"""

import math

import numpy as np
from scipy import sparse

from skfc._array import (
    as_like,
    cast,
    is_numpy,
    itemsize,
    namespace,
    short_rounding,
    to_numpy,
)
from skfc._frame import Frame
from skfc._objective import Objective
from skfc._outcome import OVERFLOW
from skfc._penalty import ElasticNet, Penalty
from skfc._rows import make_rows, merge_columns, some_rows, to_row_space
from skfc._runtime import fit_arithmetic
from skfc._tuned import TUNED

# The strongest penalty: the minimum is W = 0 to all digits, and products with it stay finite.
STRONGEST = 1e280


class Problem:
    """Problems of the same rows: one, or folds as weights, at any C.

    Parameters
    ----------
    X : validated array or CSR (n_rows, n_features)
    targets : list of Targets over the same classes, all with weight; they differ in weights
    fit_intercept, standardize, l1_ratio : as in the estimators
    sample_weight : array (n_problems, n_rows), the weights before class weights, or None where
        they are those of the targets
    """

    def __init__(
        self, X, targets, *, fit_intercept, standardize=False, l1_ratio=0.0, sample_weight=None
    ):
        weight = np.stack([t.weight for t in targets])
        target = targets[0].target
        kept = (weight > 0).any(axis=0)
        if not kept.all():
            X, weight, target = some_rows(X, kept), weight[:, kept], target[..., kept]
            sample_weight = None if sample_weight is None else sample_weight[:, kept]
        self.total = weight.sum(axis=1)
        check_total(self.total, weight)
        weight = weight * (weight.shape[1] / self.total)[:, None]
        self.given = X, target, weight
        X = held_in_double(X)
        self.l1_ratio, self.kind = l1_ratio, ElasticNet if l1_ratio > 0 else Penalty
        self.n_classes, self.dtype = targets[0].n_classes, X.dtype
        self.least_gap = short_rounding(X) ** 2
        self.changes = []  # orthogonal changes of features
        if self.kind.takes_rotations and not standardize:
            X = self.with_fewer_features(X, weight if fit_intercept else None)
        self.class_totals = np.stack([t.class_totals() for t in targets])
        unweighted = None
        if standardize and sample_weight is not None:
            unweighted = make_rows(X, target, sample_weight, self.n_classes)
        rows = make_rows(X, target, weight, self.n_classes)
        self.given = None if X is self.given[0] else self.given
        self._set_frame(rows, fit_intercept, standardize, unweighted)

    @classmethod
    def of_rows(
        cls, rows, targets, *, fit_intercept, standardize=False, l1_ratio=0.0, unweighted=None
    ):  # fmt: skip
        """The problem of rows that hold their targets already, wherever they are.

        `unweighted` are the rows with the weights before class weights, where these differ.
        """
        self = cls.__new__(cls)
        self.total, self.given = np.array([targets.total]), None
        check_total(self.total, self.total)
        self.l1_ratio, self.kind = l1_ratio, ElasticNet if l1_ratio > 0 else Penalty
        self.n_classes, self.dtype, self.changes = rows.n_classes, rows.dtype, []
        self.class_totals = targets.class_totals()[None]
        self._set_frame(rows, fit_intercept, standardize, unweighted)
        return self

    def _set_frame(self, rows, fit_intercept, standardize, unweighted):
        """Standardise the rows, and say what penalty the features have."""
        with fit_arithmetic(rows):
            self.moments = rows.moments()
            pooled = self.moments.pooled()
            self.frame = Frame.of(pooled, fit_intercept, rows.typical(pooled))
            check_frame(self.frame, rows.dtype)
            self.rows, self.alone = rows.in_frame(self.frame), None
            std = None
            if standardize:
                std = self.moments.std if unweighted is None else unweighted.moments().std
                xp = namespace(std)
                std = xp.where(std > 0, std, xp.ones_like(std))
            self.factors = self.frame.penalty_factors(std)

    # What can be known of a gap, where products round numbers of X to shorter ones.
    least_gap = 0.0

    @property
    def n_problems(self):
        return len(self.total)

    def with_fewer_features(self, X, weight):
        """X in as many features as its rows need, where that pays; `changes` lead back.

        `weight` (n_problems, n_rows) is that of the mean which may be taken off, or None.
        """
        if sparse.issparse(X) and (merged := merge_columns(X)) is not None:
            self.changes.append(merged)
            X = merged.X
        if is_numpy(X) or sparse.issparse(X):
            share = None if weight is None else weight.mean(axis=0) / weight.shape[1]
            turned = to_row_space(X, self.n_classes, share)
            if turned is not None:
                self.changes.append(turned)
                X = turned.X
        return X

    def to_given(self, coef, intercept):
        """Coefficients and intercepts of the features that were given."""
        for change in reversed(self.changes):
            coef, intercept = change.postsolve(coef, intercept)
        return coef, intercept

    def objective(self, C):
        """The objective at C (n_problems,)."""
        with np.errstate(over="ignore", divide="ignore"):
            strength = np.minimum(1.0 / C / self.total, STRONGEST)
        if not self.l1_ratio or np.isinf(C).all():
            return Objective(self.rows, Penalty(strength, self.factors))
        l1 = self.l1_ratio * strength
        return Objective(self.rows, ElasticNet(strength - l1, self.factors, l1))

    def null_model(self):
        """theta (P, K) of the models that know the shares of the classes only."""
        theta = np.zeros((self.frame.n_parameters, self.n_problems * self.n_classes))
        if self.frame.fit_intercept:
            prior = np.log(self.class_totals)
            theta[-1] = (prior - prior.mean(axis=1, keepdims=True)).ravel()
        return as_like(theta, self.frame.mean)

    def leading_features(self, fit, names, n=3):
        """Names of the features with the largest share in the separation of a fit, `n` at most."""
        if fit.separation is None:
            return []
        direction = fit.separation.direction[: self.frame.n_features, :]
        if self.changes:
            spread = to_numpy(make_rows(*self.given, self.n_classes).moments().pooled().std)[0]
            coef = to_numpy(direction * self.frame.inverse[:, None]).T
            direction = (self.to_given(coef, np.zeros(len(coef)))[0] * spread).T
        share = np.abs(to_numpy(direction)).max(axis=1)
        order = np.argsort(-share, kind="stable")[:n]
        return [str(names[j]) for j in order if share[j] > 0.1 * share.max()]

    def start(self, coef, intercept):
        """theta (P, T) of coefficients (T, n_features) and intercepts (T,)."""
        coef, intercept = (to_numpy(a).astype(np.float64) for a in (coef, intercept))
        for change in self.changes:
            coef, intercept = change.presolve(coef, intercept)
        return self.frame.from_user(*(as_like(a, self.frame.mean) for a in (coef, intercept)))

    def coefficients(self, theta):
        """NumPy coefficients (T, n_features) and intercepts (T,) of one problem.

        One vector added to every row changes no probability: the penalty says which. The
        intercepts have zero mean.
        """
        xp = namespace(theta)
        theta = cast(theta, xp.float64)
        if self.l1_ratio in (0.0, 1.0):  # in between, the minimum itself is unique
            theta = theta - self.kind.null_direction(theta)
        coef, intercept = self.to_given(*(to_numpy(a) for a in self.frame.to_user(theta)))
        return coef, intercept - intercept.mean()

    def stored_gap(self, fit, coef, intercept):
        """The gap of coefficients as they are stored: rounding to float32 included."""
        if coef.dtype == np.float64 or self.n_classes == 1:
            return fit.gap
        objective = self.objective(np.array([fit.C]))
        given = self.rows if self.given is None else make_rows(*self.given, self.n_classes)
        with fit_arithmetic(self.rows):
            before, after = (
                given.loss_of(*pair) + objective.penalty.value(theta)
                for pair, theta in (
                    (self.coefficients(fit.theta), fit.theta),
                    ((coef, intercept), self.start(coef, intercept)),
                )
            )
        if not np.isfinite(after).all():
            raise ValueError(OVERFLOW.format(coef.dtype))
        rounding = (float(after[0]) - float(before[0])) / float(before[0])
        return max(fit.gap + max(rounding, 0.0), self.least_gap)


def held_in_double(X):
    """`X` in float64 where it is small: single precision saves no time there, and costs digits."""
    if itemsize(X) == 8:
        return X
    if sparse.issparse(X):
        return X.astype(np.float64) if X.nnz <= TUNED.few_single else X
    return cast(X[:, :], namespace(X).float64) if math.prod(X.shape) <= TUNED.few_single else X


def check_total(total, weight):
    """Raise where sums of weights leave the range of float64."""
    if not (np.isfinite(total).all() and (total > np.finfo(float).tiny).all()):
        raise ValueError(
            f"sample_weight is out of range: it holds values up to {weight.max():g}, and their "
            "sum overflows or underflows; rescale the weights."
        )


def check_frame(frame, dtype):
    """Raise where the values of X have no mean or standard deviation in float64."""
    if not all(np.isfinite(to_numpy(a)).all() for a in (frame.mean, frame.scale)):
        raise ValueError(OVERFLOW.format(dtype))
