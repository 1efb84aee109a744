"""The search over C: folds, the paths of their fits, scores of held-out rows, the choice."""

import inspect
import warnings
from dataclasses import dataclass
from numbers import Integral
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata
from sklearn.exceptions import ConvergenceWarning

from skfc import _targets
from skfc._classifier import finish, name_solver, nothing_to_solve, null_model
from skfc._fitting import Status
from skfc._path import solve_path
from skfc._softmax import kernel

SELECTIONS = ("best", "one_standard_error")


@dataclass(frozen=True)
class Fold:
    """Settled targets, of no weight outside the training rows; classes with weight; test rows."""

    train: _targets.Targets
    active: np.ndarray
    test: np.ndarray


class Paths(NamedTuple):
    """Coefficients, intercepts and how the fits ended: arrays (n_folds, n_Cs, ...)."""

    coef: np.ndarray
    intercept: np.ndarray
    n_iter: np.ndarray
    gap: np.ndarray
    status: np.ndarray
    solver: str


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
    rows = np.asarray(rows)
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
    return np.asarray(value)[rows] if per_row else value


def frame_rows(X, rows):
    """Some rows of an array, CSR or frame, as one of those."""
    return X.iloc[rows] if hasattr(X, "iloc") else X[rows]


def solve_folds(X, design, folds, Cs, method):
    """The `Paths` of all folds, those with the same classes and targets together."""
    ascending = np.argsort(Cs, kind="stable")
    fits, left = [None] * len(folds), sum(len(fold.active) > 1 for fold in folds) * len(Cs)

    def progress(C, n_solved):
        nonlocal left
        left -= n_solved
        if method["verbose"]:
            print(f"[skfc] C={C:.4g}: {left} of {len(folds) * len(Cs)} problems left", flush=True)

    solver = name_solver(method["solver"])
    for alike in group(folds):
        if len(folds[alike[0]].active) == 1:
            for k in alike:
                fits[k] = [nothing_to_solve(X, method["fit_intercept"])] * len(Cs)
            continue
        solved = [folds[k].train.keep(folds[k].active) for k in alike]
        shape = design.shape[1] + method["fit_intercept"], solved[0].n_classes
        starts = [null_model(t, shape, method["fit_intercept"]) for t in solved]
        found, solver = solve_path(
            design, solved, starts, Cs[ascending],
            method | {"verbose": max(0, int(method["verbose"]) - 1)}, progress,
        )  # fmt: skip
        for k, path in zip(alike, found, strict=True):
            fits[k] = [path[i] for i in np.argsort(ascending)]
    done = [
        [
            finish(f.weights, X, design, fold.train, fold.active, method["fit_intercept"])
            for f in path
        ]
        for fold, path in zip(folds, fits, strict=True)
    ]
    coef, intercept = (np.array([[fit[j] for fit in path] for path in done]) for j in (0, 1))
    n_iter, gap, status = (
        np.array([[getattr(f, name) for f in path] for path in fits])
        for name in ("n_iter", "gap", "status")
    )
    return Paths(coef, intercept, n_iter, gap, status, solver)


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


def log_losses(X, classes, target, weight, fold, coef, intercept):
    """Weighted mean log loss of the held-out rows at every C, (n_Cs,)."""
    rows, T = X[fold.test], len(classes)
    logits = (rows @ coef.reshape(-1, X.shape[1]).T + intercept.ravel()).T
    logits = np.array(logits.reshape(len(coef), T, -1), dtype=np.float64, order="C")
    held_out = weight[fold.test] / weight[fold.test].max()
    loss, _ = kernel(np).residual(logits, target[..., fold.test], held_out[None])
    return loss / held_out.sum()


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


def tabulate(Cs, scores, n_iter):
    """The columns of `cv_results_`."""
    mean = scores.mean(axis=0)
    split = {f"split{k}_test_score": row for k, row in enumerate(scores)}
    ranked = np.where(np.isnan(mean), -np.inf, mean)
    with np.errstate(invalid="ignore"):  # scores may be infinite
        std = scores.std(axis=0)
    return {
        "param_C": Cs.copy(),
        "params": [{"C": C} for C in Cs.tolist()],
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
    warnings.warn(
        f"C_={C:g} is the {end} of Cs: a {beyond} C may be chosen if there is one. Extend Cs, "
        "or see scores_ for how much there may be to gain.",
        UserWarning,
        stacklevel=4,
    )


def warn_of_paths(paths, tol, max_iter):
    """One warning for all fits of the folds that did not end well."""
    total = paths.status.size
    early = sum(s in (Status.MAX_ITER, Status.STUCK) for s in paths.status.flat)
    if early:
        warnings.warn(
            f"{early} of {total} fits of the folds stopped before tol={tol:g} was met, at "
            f"max_iter={max_iter} or where the arithmetic ends; the worst is an estimated "
            f"{paths.gap.max():.1e} above its minimum, relatively. Raise max_iter or tol, or "
            "leave out the largest Cs.",
            ConvergenceWarning,
            stacklevel=4,
        )
    separated = sum(s is Status.SEPARATED for s in paths.status.flat)
    if separated:
        warnings.warn(
            f"In {separated} of {total} fits of the folds the classes are separable: with "
            "C=inf the loss falls towards zero for ever, and their scores are those of where "
            "the fits stopped. Finite Cs have unique answers.",
            ConvergenceWarning,
            stacklevel=4,
        )
