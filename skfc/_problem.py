"""Problems: from validated data and parameters to coefficients.

A :class:`Problem` is the one place where rows, frame, penalty, preconditioner, solver and
driver are put together: for a classifier, for the folds of a search, and for its refit.
"""

import math

import numpy as np
from scipy import sparse

from skfc import _preconditioner
from skfc._array import (
    as_like,
    cast,
    is_numpy,
    itemsize,
    namespace,
    short_rounding,
    take,
    to_numpy,
)
from skfc._driver import Run
from skfc._frame import Frame
from skfc._monitors import Progress, ProgressLines
from skfc._objective import Objective
from skfc._outcome import OVERFLOW, Fit, Status
from skfc._penalty import ElasticNet, Penalty
from skfc._pool import thread_map
from skfc._rows import LocalRows, make_rows, merge_columns, some_rows, to_row_space
from skfc._runtime import fit_arithmetic
from skfc._screening import Screened
from skfc._tuned import TUNED
from skfc.solvers import SOLVERS

# The strongest penalty: the minimum is W = 0 to all digits, and products with it stay finite.
STRONGEST = 1e280


class Problem:
    """Fits of the same rows: one, or folds as weights, at any C.

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

    def solve_warm(self, method, C, start, *, suspicious=True, **options):
        """The fits from a `start` that may be far off: never above those from the null model.

        The lower of the two starts is taken. With `suspicious`, every estimate of the gap is
        thorough. A fit that gets stuck begins again from the null model.
        """
        objective = self.objective(C)
        with fit_arithmetic(self.rows):
            at_start, at_null = (objective.at(t).value for t in (start, self.null_model()))
        if not (at_start <= at_null).all():
            return self.solve(method, C, **options)
        fits, solver = self.solve(method, C, start=start, suspicious=suspicious, **options)
        if any(fit.status is Status.STUCK for fit in fits):
            fits, solver = self.solve(method, C, **options)
        return fits, solver

    def solve(
        self, method, C, *, start=None, monitors=(), cache=None, name="skfc", suspicious=False
    ):
        """Fits at C (n_problems,), and the name of the solver.

        Problems are solved in lock-step if the solver can, else in turn.

        Parameters
        ----------
        method : Method
        start : theta (P, K) near the solutions, or None: the null model, or zeros for the
            textbook gradient
        cache : dict that keeps preconditioners, with their samples, from one C to the next
        name : what lines of progress call the fits, or a function of the indices of problems
        """
        if self.n_classes == 1:
            fits = [nothing_to_solve(self.frame, value) for value in C]
            self._show(fits, monitors)
            return fits, method.named
        with fit_arithmetic(self.rows):
            objective = self.objective(C)
            if method.solver in SOLVERS and SOLVERS[method.solver].proximal:
                objective = objective.with_penalty(ElasticNet.of(objective.penalty))
            method = method.choose(objective)
            everything = np.arange(self.n_problems)
            start = self.begin(method) if start is None else start

            def run(index, part):
                begin = take(start, objective.columns(index), axis=1)
                called = name(index) if callable(name) else name
                return self._run(part, method, begin, index, monitors, cache, called, suspicious)

            if SOLVERS[method.solver].batched or self.n_problems == 1:
                fits = run(everything, objective)
            else:
                quiet = not (monitors or method.verbose or SOLVERS[method.solver].options)
                fits = self._one_by_one(run, objective, quiet)
        for fit, value in zip(fits, C, strict=True):
            fit.C = float(value)
        switched = {fit.switched for fit in fits} - {None}
        return fits, max(switched, default=method.solver)

    def _one_by_one(self, run, objective, quiet):
        """The fits of problems by themselves: side by side, where nobody watches their steps."""
        indices = np.arange(self.n_problems)[:, None]
        if not (isinstance(self.rows, LocalRows) and self.rows.on_pool):
            return flat(run(index, *objective.problems(index)) for index in indices)
        if self.alone is None:  # they stay: preconditioners go on with their count of work
            objective.rows.single()  # makes the copy that all of them share
            self.alone = [self.rows.alone(index) for index in indices]
        parts = [
            Objective(rows, objective.penalty.problems(index))
            for rows, index in zip(self.alone, indices, strict=True)
        ]
        before = [rows.work.steps for rows in self.alone]
        each = thread_map if quiet else map
        found = list(each(lambda pair: run(*pair), zip(indices, parts, strict=True)))
        # To a preconditioner that is used again, the steps of the others have cost time, too.
        taken = [rows.work.steps - b for rows, b in zip(self.alone, before, strict=True)]
        for rows, own in zip(self.alone, taken, strict=True):
            rows.work.steps += sum(taken) - own
        return flat(found)

    def _show(self, fits, monitors):
        """Show the monitors fits that take no iteration."""
        value = np.zeros(len(fits))
        progress = Progress(
            0, np.arange(len(fits)), len(fits), value, value,
            lambda: self.coefficients(fits[0].theta),
        )  # fmt: skip
        for monitor in monitors:
            monitor.step(progress)
            monitor.end(fits)

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

    def begin(self, method):
        """Where a cold fit starts."""
        theta = self.null_model()
        return theta * 0.0 if method.preconditioner is None else theta

    def _run(self, objective, method, theta, index, monitors, cache, name, suspicious):
        key = tuple(index.tolist())
        preconditioner = (cache or {}).get(key)
        if preconditioner is None:
            try:
                exact = SOLVERS[method.solver].exact
                preconditioner = _preconditioner.make(objective, method.preconditioner, exact)
            except np.linalg.LinAlgError as error:
                raise ValueError(OVERFLOW.format(self.dtype)) from error
            if cache is not None:
                cache[key] = preconditioner
        if method.verbose:
            monitors = (*monitors, ProgressLines(int(method.verbose), name))
        solver, coefficients = SOLVERS[method.solver], self.coefficients
        options = {key: getattr(method, key) for key in solver.options}
        screened = Screened.of(objective) if solver.proximal else None
        if screened is not None:
            objective, theta = screened.objective, screened.cut(theta)
            coefficients = lambda theta: self.coefficients(screened.whole(theta))  # noqa: E731
        try:
            fits = Run(
                solver, objective, preconditioner, theta, tol=method.tol,
                max_iter=method.max_iter, monitors=monitors, options=options,
                suspicious=suspicious, coefficients=coefficients,
                other=method.other if objective.n_problems == 1 else None,
            ).run()  # fmt: skip
        except np.linalg.LinAlgError as error:
            raise ValueError(OVERFLOW.format(self.dtype)) from error
        for fit in fits if screened is not None else []:
            fit.theta = screened.whole(fit.theta)
        return fits


def flat(lists):
    """What lists hold, in one."""
    return [item for items in lists for item in items]


def held_in_double(X):
    """`X` in float64 where it is small: single precision saves no time there, and costs digits."""
    if itemsize(X) == 8:
        return X
    if sparse.issparse(X):
        return X.astype(np.float64) if X.nnz <= TUNED.few_single else X
    return cast(X[:, :], namespace(X).float64) if math.prod(X.shape) <= TUNED.few_single else X


def nothing_to_solve(frame, C):
    """The `Fit` where one class has all the weight: its loss is zero with any weights."""
    theta = np.zeros((frame.n_parameters, 1))
    return Fit(theta, Status.CONVERGED, 0, 0.0, 0.0, True, [0.0], float(C))


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
