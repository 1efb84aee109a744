"""A search over C by cross-validation: seconds, objectives, and whether winners agree."""

import multiprocessing
import os
import signal
import sys
import time
import warnings
from contextlib import suppress

import numpy as np
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import GridSearchCV, StratifiedKFold

import skfc
from benchmarks import problems, report
from benchmarks.objective import mean_objective

CS = np.logspace(-4, 4, 10)
FOLDS = 5
# Objectives count as equal within this, relatively; the loosest tol that gives it is used.
TARGET = 1e-3
TOLS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
OURS, OUR_TOL = "SoftmaxFCClassifierCV", 1e-4
# A rival that is so many times slower is stopped; every search may take FLOOR seconds.
CAP, FLOOR = 10.0, 10.0
SOLVERS = ("newton-cholesky", "newton-cg", "lbfgs")
# newton-cholesky forms a Hessian of (features x classes)² numbers.
CHOLESKY_SIZE = 3000
DENSE = ("letter", "optdigits", "usps", "covtype_kaggle")


def folds():
    return StratifiedKFold(FOLDS, shuffle=True, random_state=0)


def logistic(solver, tol):
    return LogisticRegression(solver=solver, tol=tol, max_iter=100_000)


def searched(estimator, n_jobs=1):
    return GridSearchCV(estimator, {"C": CS}, scoring="neg_log_loss", cv=folds(), n_jobs=n_jobs)


def logistic_cv(solver, tol):
    extra = {}
    if "use_legacy_attributes" in LogisticRegressionCV().get_params():
        extra["use_legacy_attributes"] = False
    return LogisticRegressionCV(Cs=CS, cv=folds(), scoring="neg_log_loss", solver=solver, tol=tol,
                                max_iter=100_000, **extra)  # fmt: skip


# Name -> (solver of LogisticRegression or None, function of a tol that makes the search).
SEARCHES = {
    OURS: (None, lambda tol: skfc.SoftmaxFCClassifierCV(Cs=CS, cv=folds(), tol=tol)),
    "GridSearchCV(skfc)": (None, lambda tol: searched(skfc.SoftmaxFCClassifier(tol=tol))),
}
for _solver in SOLVERS:
    SEARCHES |= {
        f"GridSearchCV(logistic {_solver})":
            (_solver, lambda tol, s=_solver: searched(logistic(s, tol))),
        f"GridSearchCV(logistic {_solver}), n_jobs=2":
            (_solver, lambda tol, s=_solver: searched(logistic(s, tol), n_jobs=2)),
        f"LogisticRegressionCV({_solver})": (_solver, lambda tol, s=_solver: logistic_cv(s, tol)),
    }  # fmt: skip


def isolated(function, *arguments, limit):
    """`function(*arguments)` in a process group of its own; None after `limit` seconds.

    The seconds begin when the function calls `begin`, its first argument.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=answer, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    result = None
    with suppress(EOFError):
        if ours.recv() == "begin" and ours.poll(limit):
            result = ours.recv()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # the processes of joblib too
    process.join()
    return result


def answer(connection, function, arguments):
    os.setsid()
    warnings.simplefilter("ignore")
    connection.send(function(lambda: connection.send("begin"), *arguments))


def objectives(X, y, coefs, intercepts):
    """Those of one fit per C on the same rows."""
    return np.array([
        mean_objective(X, y, *fit) for fit in zip(coefs, intercepts, CS, strict=True)
    ])  # fmt: skip


def first_fold(problem):
    """The training rows of the first fold."""
    train, _ = next(folds().split(problem.X, problem.y))
    return problem.X[train], problem.y[train]


def fit_first_fold(begin, name, data, solver, tol):
    """Objectives at every C of separate fits of the first fold; ours for `solver=None`."""
    X, y = first_fold(problems.load(name, data))
    begin()
    models = []
    for C in CS:
        model = logistic(solver, tol) if solver else skfc.SoftmaxFCClassifier(tol=tol)
        models.append(model.set_params(C=C).fit(X, y))
    return objectives(X, y, [m.coef_ for m in models], [m.intercept_ for m in models])


def measure(begin, name, data, how, tol):
    """Seconds and winner of one search, and the first fold's objectives if it keeps them."""
    problem = problems.load(name, data)
    search = SEARCHES[how][1](tol)
    clone(search).fit(*load_iris(return_X_y=True))  # imports, pools of threads and processes
    begin()
    start = time.perf_counter()
    search.fit(problem.X, problem.y)
    found = {"seconds": time.perf_counter() - start, "tol": tol, "C": winner(search)}
    if hasattr(search, "coefs_paths_"):
        paths = np.squeeze(search.coefs_paths_[0])  # (n_Cs, n_classes, n_features [+ 1])
        coefs, intercepts = paths[..., : problem.X.shape[1]], paths[..., -1]
        if how == OURS:
            intercepts = search.intercepts_paths_[0]
        found["objectives"] = objectives(*first_fold(problem), coefs, intercepts)
    return found


def winner(model):
    """The C chosen."""
    found = model.best_params_["C"] if hasattr(model, "best_params_") else model.C_
    return float(np.ravel(found)[0])


def loosest(name, data, solver, best, limit):
    """The loosest tol that reaches the objectives `best`, and None; or the last tried, and why."""
    for tol in TOLS:
        found = isolated(fit_first_fold, name, data, solver, tol, limit=limit)
        if found is None:
            return tol, "stopped"
        gap = (found / best - 1).max()
        if gap <= TARGET:
            return tol, None
    return tol, f"{gap:.1e} off"


def compete(name, data, log):
    """What every search did on one problem: name -> dict, with a `note` where it failed."""
    problem = problems.load(name, data)
    log(f"{problem}")
    best = isolated(fit_first_fold, name, data, None, 1e-8, limit=600)
    found = {}

    def run(how, tol, limit, repeats=1):
        runs = [isolated(measure, name, data, how, tol, limit=limit) for _ in range(repeats)]
        if None in runs:
            found[how] = {"tol": tol, "note": f"> {limit:.3g} s"}
        else:
            found[how] = min(runs, key=lambda run: run["seconds"])
            gap = (found[how].pop("objectives", best) / best - 1).max()
            if gap > TARGET:
                found[how]["note"] = f"{gap:.1e} off"
        log(f"  {how} {found[how]}")

    run(OURS, OUR_TOL, 600, repeats=2)
    limit = max(FLOOR, CAP * found[OURS]["seconds"])
    run("GridSearchCV(skfc)", OUR_TOL, limit)
    for solver in SOLVERS:
        if (
            solver == "newton-cholesky"
            and (problem.X.shape[1] + 1) * problem.n_classes > CHOLESKY_SIZE
        ):
            continue
        # Ten fits of 50: a search that takes longer on two processors is beyond the limit.
        tol, why = loosest(name, data, solver, best, 2 * limit / FOLDS)
        for how, (its, _) in SEARCHES.items():
            if its == solver and how.startswith("LogisticRegressionCV"):
                # Warm starts end its fits early: it may need a smaller tol than separate fits.
                for smaller in TOLS[TOLS.index(tol) :]:
                    run(how, smaller, limit)
                    if "off" not in found[how].get("note", ""):
                        break
            elif its == solver and why is None:
                run(how, tol, limit)
            elif its == solver:
                note = f"> {limit:.3g} s" if why == "stopped" else why
                found[how] = {"tol": tol, "note": note}
                log(f"  {how} {found[how]}")
    return found


def fastest(found, begins):
    """The name of the fastest search of objectives close to ours, and its seconds."""
    timed = {
        how: run["seconds"] for how, run in found.items()
        if how.startswith(begins) and SEARCHES[how][0] and "note" not in run
    }  # fmt: skip
    return min(timed.items(), key=lambda item: item[1], default=(None, None))


def main(args):
    """Every search on every problem."""
    names = args.problems or (("iris", "wine") if args.quick else
                              (*(f"{d}:std" for d in DENSE), "clinc150", *DENSE))  # fmt: skip
    rows, data, notes, ratios = [], {}, [], {"GridSearchCV": [], "LogisticRegressionCV": []}
    for name in names:
        try:
            found = data[name] = compete(
                name, args.data, lambda text: print(text, file=sys.stderr)
            )
        except problems.Unavailable as error:
            notes.append(f"- {name}: {error}.")
            continue
        ours = found[OURS]["seconds"]
        for how, run in found.items():
            seconds = run.get("seconds")
            rows.append([
                f"{name}, {how}", report.short(seconds) or "", f"{run['tol']:g}",
                f"{seconds / ours:.1f}" if seconds and "note" not in run else "",
                f"{run['C']:.3g}" if "C" in run else "", run.get("note", ""),
            ])  # fmt: skip
        for kind, seen in ratios.items():
            how, seconds = fastest(found, kind)
            ratio = CAP if how is None else min(seconds / ours, CAP)
            seen.append(ratio)
            notes.append(f"- {name}: {kind}, {how or 'none arrived'}: "
                         f"{'>= ' if how is None else ''}{ratio:.1f} times ours.")  # fmt: skip
    for kind, seen in ratios.items():
        if seen:
            notes.append(f"- {kind}, geometric mean: {report.geometric_mean(seen):.1f}.")
    header = ["problem, search", "seconds", "tol", "times ours", "winning C", "note"]
    text = (
        f"{len(CS)} values of C in 1e-4 … 1e4, {FOLDS} folds. Every peer has the loosest of the "
        f"tols {', '.join(f'{t:g}' for t in TOLS)} at which the objectives of the first fold are "
        f"within {TARGET:g} of ours at every C; one that does not get there, or takes more than "
        f"{CAP:g} times as long, is not divided by, and counts as so many times in the means.\n\n"
    )
    text += "\n\n".join([report.table(header, rows), "\n".join(notes)])
    print(report.write(args.out, "grid", report.environment(), data, text.rstrip(),
                       publish=args.publish))  # fmt: skip
