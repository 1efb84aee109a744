"""The search over C: folds, the paths of their fits, scores of held-out rows, the choice."""

import inspect
import time
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata
from sklearn.exceptions import ConvergenceWarning

from skfc import _targets
from skfc._absent import finish
from skfc._array import concatenate, is_array, is_numpy, numpy_type, take, to_numpy
from skfc._continuation import step_in_log_C
from skfc._fits import solve
from skfc._input import readable
from skfc._outcome import Status, advice, distance
from skfc._prediction import Logits
from skfc._problem import Problem
from skfc._runtime import warn_caller
from skfc._scoring import mean_losses
from skfc._tuned import TUNED

SELECTIONS = ("best", "one_standard_error")


@dataclass(frozen=True)
class Fold:
    """Settled targets, of no weight outside the training rows; classes with weight; test rows."""

    train: _targets.Targets
    active: np.ndarray
    test: np.ndarray
    sample_weight: np.ndarray


class Paths(NamedTuple):
    """Coefficients, intercepts and how the fits ended: arrays (n_folds, n_Cs, ...)."""

    coef: np.ndarray
    intercept: np.ndarray
    n_iter: np.ndarray
    gap: np.ndarray
    status: np.ndarray
    solver: list


def joined(parts):
    """The paths of several searches over the same folds, one after the other."""
    arrays = [np.concatenate(pair, axis=1) for pair in zip(*(p[:-1] for p in parts), strict=True)]
    return Paths(*arrays, [name for part in parts for name in part.solver])


def check_ratios(estimator):
    """Check `l1_ratios`; returns them as an array."""
    ratios, right = estimator.l1_ratios, "a list of numbers in [0, 1]"
    wrong = f"The 'l1_ratios' parameter of SoftmaxFCClassifierCV must be {right}; got {ratios!r}."
    try:
        ratios = np.array(ratios, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(wrong) from None
    if ratios.ndim != 1:
        raise TypeError(wrong)
    if not len(ratios) or not ((ratios >= 0) & (ratios <= 1)).all():
        raise ValueError(wrong)
    return ratios


def check_search(estimator):
    """Check the parameters of the search; returns `Cs` as an array."""
    if estimator.selection not in SELECTIONS:
        raise ValueError(
            f"The 'selection' parameter of SoftmaxFCClassifierCV must be one of {SELECTIONS}; "
            f"got {estimator.selection!r}."
        )
    for name in ("refit", "store_paths"):
        value = getattr(estimator, name)
        if not isinstance(value, bool | np.bool_):
            raise TypeError(
                f"The {name!r} parameter of SoftmaxFCClassifierCV must be True or False; "
                f"got {value!r}."
            )
    Cs, right = estimator.Cs, "an integer >= 1 or a list of numbers > 0 (np.inf for no penalty)"
    wrong = f"The 'Cs' parameter of SoftmaxFCClassifierCV must be {right}; got {Cs!r}."
    if isinstance(Cs, Integral) and not isinstance(Cs, bool | np.bool_):
        if Cs < 1:
            raise ValueError(wrong)
        return np.logspace(-4, 4, Cs)
    try:
        Cs = np.array(Cs, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(wrong) from None
    if Cs.ndim == 0:
        raise TypeError(wrong)
    if Cs.ndim != 1 or not len(Cs) or not (Cs > 0).all():
        raise ValueError(wrong)
    return Cs


def takes_weights(scorer):
    """Whether a scorer has a parameter for sample weights."""
    parameters = inspect.signature(scorer).parameters.values()
    return any(p.name == "sample_weight" or p.kind is p.VAR_KEYWORD for p in parameters)


def row_indices(rows, n, k):
    """Indices of the rows that a split gave, as such or as a mask."""
    rows = np.asarray(readable(rows, "cv"))
    if rows.dtype == bool and rows.shape == (n,):
        rows = np.flatnonzero(rows)
    if rows.ndim != 1 or not len(rows) or rows.dtype.kind not in "iu":
        raise ValueError(
            f"Fold {k} of cv must give indices of training and of test rows, some of each; "
            f"got an array of shape {rows.shape} and dtype {rows.dtype}."
        )
    if rows.min() < 0 or rows.max() >= n:
        raise ValueError(
            f"Fold {k} of cv has row indices from {rows.min()} to {rows.max()}, "
            f"but X has {n} rows."
        )
    return rows


def take_rows(value, rows, n):
    """The part of metadata that belongs to `rows`, if there is an entry for every row."""
    per_row = hasattr(value, "__len__") and len(value) == n
    return np.asarray(readable(value, "metadata"))[rows] if per_row else value


# Logits of an iterate, of a direction and residuals, (n_classes, n_samples) each, and
# pairs, iterates and gradients of (P, n_classes): what a problem takes.
LOGIT_ARRAYS, VECTORS = 3, 26


def frame_rows(X, rows):
    """Some rows of an array, CSR or frame, as one of those."""
    if hasattr(X, "iloc"):
        return X.iloc[rows]
    return X[rows] if is_numpy(X) or not is_array(X) else take(X, rows)


def solve_folds(X, folds, Cs, method, parameters):
    """The `Paths` of all folds, those with the same classes, targets and scales together.

    Parameters
    ----------
    method : Method
    parameters : dict of `fit_intercept`, `standardize` and `l1_ratio`
    """
    order = np.argsort(Cs, kind="stable")
    done, left, begin = [None] * len(folds), len(folds) * len(Cs), time.perf_counter()

    def progress(name, n_solved):
        nonlocal left
        left -= n_solved
        if method.verbose:
            seconds = time.perf_counter() - begin
            of = f"{left} of {len(folds) * len(Cs)} problems left"
            print(f"[{name}] {of}, {seconds:.1f} s", flush=True)

    quiet = replace(method, verbose=max(0, int(method.verbose) - 1))
    for alike in group(folds):
        for part in groups(X, len(folds[alike[0]].active), alike):
            for some, problem in problems_of(X, [folds[k] for k in part], part, parameters):
                paths, solver = solve_path(problem, Cs[order], quiet, progress, some)
                for k, path in zip(some, paths, strict=True):
                    path = [path[i] for i in np.argsort(order)]
                    done[k] = models(problem, path, X, folds[k], parameters), path
    coef, intercept = (
        np.array([[pair[j] for pair in pairs] for pairs, _ in done]) for j in (0, 1)
    )
    n_iter, gap, status = (
        np.array([[getattr(fit, name) for fit in path] for _, path in done])
        for name in ("n_iter", "gap", "status")
    )
    return Paths(coef, intercept, n_iter, gap, status, [solver] * len(Cs))


def models(problem, path, X, fold, parameters):
    """Coefficients and intercepts of the fits of one fold, a list of pairs."""
    found = (problem.coefficients(fit.theta) for fit in path)
    fit_intercept = parameters["fit_intercept"]
    return [finish(*pair, X, fold.train, fold.active, fit_intercept) for pair in found]


def problems_of(X, folds, which, parameters):
    """Pairs of folds and their problem: one, or one per fold where scales are far apart.

    A value in held-out rows that is far out of the range of a fold would decide its scales.
    """
    solved = [fold.train.keep(fold.active) for fold in folds]
    weights = None
    if parameters["standardize"]:
        weights = np.stack([fold.sample_weight for fold in folds])
    problem = Problem(X, solved, sample_weight=weights, **parameters)
    std, scale = to_numpy(problem.moments.std), to_numpy(problem.frame.scale)
    if ((std > 0) & (std * TUNED.farther < scale)).any() and len(folds) > 1:
        for k, targets in enumerate(solved):
            one = None if weights is None else weights[k : k + 1]
            yield [which[k]], Problem(X, [targets], sample_weight=one, **parameters)
    else:
        yield which, problem


def title(folds, C, problems):
    """What lines of progress call the fits of some `problems` (indices into `folds`) at a C."""
    folds = np.asarray(folds)[problems]
    runs = np.split(folds, np.flatnonzero(np.diff(folds) != 1) + 1)
    names = ", ".join(f"{run[0]}" + f"-{run[-1]}" * (len(run) > 1) for run in runs)
    return f"skfc fold{'s' * (len(folds) > 1)} {names}, C={C:.4g}"


def solve_path(problem, Cs, method, progress, folds):
    """Fits of all problems at all `Cs`, a list per problem, and the name of the solver.

    Every C starts from the ones before it: the coefficients move smoothly in log C, so a
    straight line through the last two of them is close to the next. Where many are zero they do
    not, and the last ones are the start.

    Parameters
    ----------
    Cs : (n_Cs,), ascending
    method : Method
    progress : function, called with a title and the number of problems solved
    folds : list of the indices of the problems' folds, for titles
    """
    n, N = problem.rows.shape
    paths = [[] for _ in range(problem.n_problems)]
    K = problem.n_problems * problem.n_classes
    cache = {} if N * (K * N + n) <= TUNED.few_numbers else None
    last, start = problem.null_model(), None
    for i, C in enumerate(Cs):
        C_all = np.full(problem.n_problems, C)
        name = partial(title, folds, C)
        fits, solver = solve(problem, method, C_all, start=start, cache=cache, name=name)
        if start is not None and any(fit.status is Status.STUCK for fit in fits):
            # A path that is stuck begins again from the null model.
            again, _ = solve(problem, method, C_all, name=name)
            fits = [
                min(pair, key=lambda fit: fit.loss_curve[-1])
                for pair in zip(fits, again, strict=True)
            ]
        for path, fit in zip(paths, fits, strict=True):
            path.append(fit)
        before, last = last, concatenate([fit.theta for fit in fits], axis=1)
        ahead = 0.0 if problem.l1_ratio else step_in_log_C(Cs, i)
        start = last + ahead * (last - before)
        progress(name(range(problem.n_problems)), problem.n_problems)
    return paths, solver


def groups(X, n_classes, folds):
    """Lists of folds that fit into the memory together."""
    n, N = X.shape
    each = n_classes * (LOGIT_ARRAYS * n * numpy_type(X).itemsize + VECTORS * (N + 1) * 8)
    size = max(1, 4 * TUNED.few_numbers // each)
    return [folds[k : k + size] for k in range(0, len(folds), size)]


def group(folds):
    """Lists of the folds that can be solved together: of equal classes and targets."""
    lists = []
    for k, fold in enumerate(folds):
        for alike in lists:
            first = folds[alike[0]]
            target, other = first.train.target, fold.train.target
            if np.array_equal(first.active, fold.active) and (
                target is other or np.array_equal(target, other)
            ):
                alike.append(k)
                break
        else:
            lists.append([k])
    return lists


def log_losses(X, target, weight, fold, coef, intercept):
    """Weighted mean log loss of the held-out rows at every C, (n_Cs,)."""
    test = fold.test[weight[fold.test] > 0]  # rows without weight may hold anything
    rows, n_models = frame_rows(X, test), len(coef)
    stacked = coef.reshape(-1, X.shape[1]), intercept.ravel()
    held_out = weight[test] / weight[test].max()
    over_blocks = Logits(rows, *stacked).over_blocks
    return mean_losses(over_blocks, target[..., test], held_out, n_models)


def select(scores, Cs, selection):
    """Index of the chosen C."""
    mean = scores.mean(axis=0)
    if np.isnan(mean).all():
        raise ValueError("The scorer gave NaN at every C.")
    best = int(np.nanargmax(mean))
    if selection == "best" or len(scores) == 1:
        return best
    error = scores[:, best].std(ddof=1) / np.sqrt(len(scores))
    near = np.flatnonzero(mean >= mean[best] - error)
    return int(near[np.argmin(Cs[near])])


def tabulate(grid, scores, n_iter):
    """The columns of `cv_results_`; `grid` has the values of every parameter that varies."""
    mean = scores.mean(axis=0)
    split = {f"split{k}_test_score": row for k, row in enumerate(scores)}
    ranked = np.where(np.isnan(mean), -np.inf, mean)
    with np.errstate(invalid="ignore"):  # scores may be infinite
        std = scores.std(axis=0)
    return {
        **{f"param_{name}": values.copy() for name, values in grid.items()},
        "params": [
            dict(zip(grid, point, strict=True))
            for point in zip(*(values.tolist() for values in grid.values()), strict=True)
        ],
        **split,
        "mean_test_score": mean,
        "std_test_score": std,
        "rank_test_score": rankdata(-ranked, method="min").astype(np.int32),
        "mean_n_iter": n_iter.mean(axis=0),
    }


def warn_of_grid(scores, Cs, best, selection, tol):
    """Say where the chosen C is at the end of the grid, and those beyond it may be better."""
    mean, C, low, high = scores.mean(axis=0), Cs[best], Cs.min(), Cs.max()
    if low == high or low < C < high or np.isinf(C):
        return
    # Where another C scores as well, as far as fits to `tol` tell, the curve has levelled off.
    if selection == "best":
        near = mean[best] - np.sqrt(tol) * abs(mean[best])
        if (mean[Cs != C] >= near).any():
            return
    end, beyond = ("smallest", "smaller") if low == C else ("largest", "larger")
    warn_caller(
        f"C_={C:g} is the {end} of Cs, and a {beyond} C may score higher. Extend Cs, or see in "
        "scores_ whether it would be worth it.",
        UserWarning,
    )


def warn_of_paths(paths, Cs, method, tol, max_iter):
    """One warning for all fits of the folds that did not end well; `Cs` are the candidates'."""
    total = paths.status.size
    early = np.isin(paths.status, [Status.MAX_ITER, Status.STUCK])
    if early.any():
        gap = np.where(early, paths.gap, -np.inf)
        fold, worst = np.unravel_index(gap.argmax(), gap.shape)
        late, fine = Cs[early.any(axis=0)], Cs[~early.any(axis=0)]
        general = "Raise max_iter or tol"
        if fine.size and late.min() > fine.max():
            general += ", or leave out the largest Cs"
        warn_caller(
            f"{early.sum()} of {total} fits of the folds stopped before tol={tol:g} was met, at "
            f"max_iter={max_iter} or where the arithmetic ends; the objective of the worst, of "
            f"fold {fold} at C={Cs[worst]:g}, is {distance(gap.max())}. "
            + advice(method, general),
            ConvergenceWarning,
        )
    separated = sum(s is Status.SEPARATED for s in paths.status.flat)
    if separated:
        warn_caller(
            f"In {separated} of {total} fits of the folds the classes are separable or "
            "quasi-separable: with C=inf some coefficients grow for ever, and their scores are "
            "those of where the fits stopped. Finite Cs have unique answers.",
            ConvergenceWarning,
        )
