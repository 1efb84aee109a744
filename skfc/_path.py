"""Down a path of C: folds in lock-step, every C started from the ones before it.

Folds of one design are problems that differ in the weights of their rows. From strong
penalties to weak ones the coefficients move smoothly in log C, so a straight line through
the last two of them is close to the next.
"""

from functools import partial

import numpy as np

from skfc import _fitting
from skfc._metric import METRICS, choose, make_metric
from skfc._objective import Objective
from skfc.solvers import SOLVERS, choose_solver

# What the problems solved together may fill; beyond the caches more of them gain nothing.
GROUP_BYTES = 2**27
# Logits of an iterate, of a direction and residuals, (n_classes, n_samples) each, and
# pairs, iterates and gradients of (P, n_classes).
LOGIT_ARRAYS, VECTORS = 3, 26
# A start close to the end has nearly the Hessian of the end: a new one comes late.
WARM_REFRESH = frozenset({6, 12, 24, 48, 96})


def solve_batch(objective, start, method, *, warm=True, metrics=None):
    """Fits of the problems of `objective`, and the name of the solver.

    They are solved in lock-step if the solver can, else in turn.

    Parameters
    ----------
    start : (P, n_columns)
    method : dict of the parameters of the estimator
    warm : whether `start` is thought to be close to the solutions
    metrics : dict where metrics are kept, and taken from for the next C: they have drawn
        rows, and know a curvature that is close
    """
    name = method["preconditioner"]
    if name == "auto":
        name = choose(objective)
    solver = method["solver"]
    if solver == "auto":
        solver = choose_solver(METRICS[name])
    options = {key: method[key] for key in SOLVERS[solver].options}
    everything = np.arange(objective.n_problems)
    fits = []
    for problems in [everything] if SOLVERS[solver].batched else everything[:, None]:
        part = objective.take(problems)
        metric = (metrics or {}).get(tuple(problems)) or make_metric(part, name)
        metric.objective = part
        if metrics is not None:
            metrics[tuple(problems)] = metric
        if warm and metric.is_newton:
            metric.refresh_at = WARM_REFRESH
        fits += _fitting.solve(
            partial(SOLVERS[solver].generate, **options), part, metric,
            start[:, objective.columns(problems)],
            tol=method["tol"], max_iter=method["max_iter"], verbose=int(method["verbose"]),
        )  # fmt: skip
    return fits, solver


def solve_path(design, targets, starts, Cs, method, progress):
    """Fits of all folds at all `Cs`, a list per fold, and the name of the solver.

    Parameters
    ----------
    design : design of shape (n_samples, n_features)
    targets : list of `Targets`, which differ in their weights only
    starts : list of arrays (P, n_classes), the null model of every fold
    Cs : (n_Cs,), ascending
    method : dict of the parameters of the estimator
    progress : function, called with a C and the number of problems solved at it
    """
    paths = [[] for _ in targets]
    for folds in groups(design, targets[0].n_classes, len(targets)):
        weight = np.stack([targets[k].weight for k in folds])
        last = start = np.hstack([starts[k] for k in folds])
        metrics = {} if metrics_fit(design, weight.shape[0] * targets[0].n_classes) else None
        for i, C in enumerate(Cs):
            objective = Objective(
                design, targets[0].target, weight, np.full(len(folds), C),
                n_classes=targets[0].n_classes, fit_intercept=method["fit_intercept"],
            )  # fmt: skip
            fits, solver = solve_batch(objective, start, method, warm=i > 0, metrics=metrics)
            for k, fit in zip(folds, fits, strict=True):
                paths[k].append(fit)
            before, last = last, np.hstack([fit.weights for fit in fits])
            start = last + stride(Cs, i) * (last - before)
            progress(C, len(folds))
    return paths, solver


def metrics_fit(design, n_columns):
    """Whether metrics of `n_columns` classes in all, and their rows, may be kept."""
    n, N = design.shape
    return 4 * N * (n_columns * N + n) <= GROUP_BYTES


def stride(Cs, i):
    """How far from C number i to the next, in units of the way from the one before.

    In log C; at most one, and zero where there is no such way.
    """
    if i == 0 or i + 1 == len(Cs) or Cs[i] == Cs[i - 1] or not np.isfinite(Cs[i + 1]):
        return 0.0
    return min(np.log(Cs[i + 1] / Cs[i]) / np.log(Cs[i] / Cs[i - 1]), 1.0)


def groups(design, n_classes, n_folds):
    """Lists of folds that fit into the memory together."""
    n, N = design.shape
    itemsize = 4 if design.dtype == np.float32 else 8
    each = n_classes * (LOGIT_ARRAYS * n * itemsize + VECTORS * (N + 1) * 8)
    size = max(1, int(GROUP_BYTES // each))
    return [range(k, min(k + size, n_folds)) for k in range(0, n_folds, size)]
