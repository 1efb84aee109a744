"""A search over C by cross-validation: seconds, and whether all find the same winner."""

import sys
import time
import warnings
from statistics import median

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import GridSearchCV, StratifiedKFold

import skfc
from benchmarks import problems, report

CS = np.logspace(-4, 4, 10)
FOLDS = 5


def search(estimator, n_jobs=1):
    def make(cv, tol):
        return GridSearchCV(estimator(tol), {"C": CS}, scoring="neg_log_loss", cv=cv,
                            n_jobs=n_jobs)  # fmt: skip

    return make


def logistic(solver):
    return lambda tol: LogisticRegression(solver=solver, tol=tol, max_iter=100_000)


def logistic_cv(solver):
    def make(cv, tol):
        extra = {}
        if "use_legacy_attributes" in LogisticRegressionCV().get_params():
            extra["use_legacy_attributes"] = False
        return LogisticRegressionCV(Cs=CS, cv=cv, scoring="neg_log_loss", solver=solver, tol=tol,
                                    max_iter=100_000, **extra)  # fmt: skip

    return make


def ours(cv, tol):
    """The search of all Cs and folds together."""
    return skfc.SoftmaxFCClassifierCV(Cs=CS, cv=cv, tol=tol)


# Name -> (function of folds and tol that makes the search, its tol). The tols of
# LogisticRegression are those at which its losses have settled to three digits.
SEARCHES = {
    "GridSearchCV(skfc)": (search(lambda tol: skfc.SoftmaxFCClassifier(tol=tol)), 1e-4),
    "GridSearchCV(logistic lbfgs)": (search(logistic("lbfgs")), 1e-4),
    "GridSearchCV(logistic lbfgs), n_jobs=2": (search(logistic("lbfgs"), n_jobs=2), 1e-4),
    "GridSearchCV(logistic newton-cg)": (search(logistic("newton-cg")), 1e-4),
    "LogisticRegressionCV(lbfgs)": (logistic_cv("lbfgs"), 1e-4),
    "LogisticRegressionCV(newton-cg)": (logistic_cv("newton-cg"), 1e-4),
}
if hasattr(skfc, "SoftmaxFCClassifierCV"):
    SEARCHES = {"SoftmaxFCClassifierCV": (ours, 1e-4), **SEARCHES}


def winner(model):
    """The C chosen."""
    found = model.best_params_["C"] if hasattr(model, "best_params_") else model.C_
    return float(np.ravel(found)[0])


def measure(name, problem):
    """Seconds, winner and number of convergence warnings of one search."""
    make, tol = SEARCHES[name]
    cv = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        begin = time.perf_counter()
        model = make(cv, tol).fit(problem.X, problem.y)
        seconds = time.perf_counter() - begin
    warned = sum(issubclass(w.category, ConvergenceWarning) for w in caught)
    return {"seconds": seconds, "C": winner(model), "warnings": warned}


def main(args):
    """Every search on every problem, in turns."""
    names = args.problems or (("iris", "wine") if args.quick else ("optdigits", "optdigits:std"))
    rows, data, notes = [], {}, []
    for name in names:
        try:
            problem = problems.load(name, args.data)
        except problems.Unavailable as error:
            notes.append(f"- {name}: {error}.")
            continue
        found = data[name] = {how: [] for how in SEARCHES}
        for turn in range(2 if args.quick else 3):
            for how, runs in found.items():
                if not turn or runs[0]["seconds"] < 10:
                    runs.append(measure(how, problem))
                    print(f"  {problem} {how} {runs[-1]}", file=sys.stderr, flush=True)
        times = {how: median(run["seconds"] for run in runs) for how, runs in found.items()}
        base = next(iter(times.values()))
        rows += [
            [f"{problem}, {how}", report.short(times[how]), f"{times[how] / base:.1f}",
             f"{runs[0]['C']:.3g}", runs[0]["warnings"]] for how, runs in found.items()
        ]  # fmt: skip
    if not hasattr(skfc, "SoftmaxFCClassifierCV"):
        notes.append("- SoftmaxFCClassifierCV: not in this revision.")
    header = ["problem, search", "seconds", "times the first", "winning C", "warnings"]
    text = f"{len(CS)} values of C in 1e-4 … 1e4, {FOLDS} folds.\n\n"
    text += "\n\n".join([report.table(header, rows), "\n".join(notes)])
    print(report.write(args.out, "grid", report.environment(), data, text.rstrip(),
                       publish=args.publish))  # fmt: skip
