"""Elastic nets beside saga, in alternation, each to the same objective.

Ours is fitted once to `tol=1e-6`, whose proven gap says where the minimum is. Then both run in
turn, each at the loosest tolerance that comes within TARGET of it; saga is stopped where it takes
CAP times as long, and counts as that.
"""

import math
import time
import warnings
from itertools import product

import numpy as np
from sklearn.linear_model import LogisticRegression

from benchmarks import problems, report
from benchmarks.grid import isolated
from benchmarks.objective import mean_objective
from skfc import SoftmaxFCClassifier, l1_min_C

PROBLEMS = ("khan:std", "satimage:std", "letter:std", "isolet_sf:std", "usps:std", "news20",
            "clinc150")  # fmt: skip
QUICK = ("wine:std", "digits:std")
RATIOS = (0.1, 0.5, 1.0)
# The first is for a multiple of the smallest C at which a coefficient is not zero.
CS = (None, 0.1, 1.0, 100.0)
ABOVE = 1.1
TARGET, CAP, ROUNDS = 1e-4, 50.0, 3
TOLS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


def objective(problem, coef, intercept, C, ratio):
    """The mean loss, and the penalty / (C n)."""
    loss = mean_objective(problem.X, problem.y, coef, intercept, np.inf)
    penalty = ratio * np.abs(coef).sum() + (1 - ratio) / 2 * (coef**2).sum()
    return loss + penalty / (C * len(problem.y))


def ours(tol, C, ratio):
    return SoftmaxFCClassifier(C=C, l1_ratio=ratio, tol=tol)


def saga(tol, C, ratio):
    return LogisticRegression(C=C, l1_ratio=ratio, solver="saga", tol=tol, max_iter=10**6)


def fit(begin, make, name, data, C, ratio, tol):
    """Seconds and objective of one fit."""
    problem = problems.load(name, data)
    begin()
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = make(tol, C, ratio).fit(problem.X, problem.y)
    seconds = time.perf_counter() - start
    zeros = int((model.coef_ == 0).sum())
    return seconds, objective(problem, model.coef_, model.intercept_, C, ratio), zeros


def loosest(make, case, best, limit):
    """The first tolerance that comes within TARGET of the objective `best`, or None."""
    for tol in TOLS:
        found = isolated(fit, make, *case, tol, limit=limit)
        if found is None:
            return None
        if found[1] <= best * (1 + TARGET):
            return tol
    return None


def compete(name, data, C, ratio, log):
    """The row of one problem; without C, at a multiple of the smallest."""
    if C is None:
        problem = problems.load(name, data)
        C = ABOVE * l1_min_C(problem.X, problem.y, l1_ratio=ratio)
    case = name, data, C, ratio
    _, best, zeros = isolated(fit, ours, *case, 1e-6, limit=600)
    tol = loosest(ours, case, best, 600)
    first = isolated(fit, ours, *case, tol, limit=600)[0]
    limit = CAP * first
    theirs = loosest(saga, case, best, limit)
    seconds = {"skfc": [first], "saga": []}
    for _ in range(ROUNDS - 1 if theirs is not None else 0):
        found = isolated(fit, saga, *case, theirs, limit=limit)
        seconds["saga"] += [] if found is None else [found[0]]
        seconds["skfc"].append(isolated(fit, ours, *case, tol, limit=600)[0])
    # A round that was stopped has no time; where none has one, all that is known is the limit.
    mine, other = min(seconds["skfc"]), min(seconds["saga"], default=limit)
    row = {"problem": name, "C": C, "l1_ratio": ratio, "objective": best, "zeros": zeros,
           "skfc": mine, "saga": other, "stopped": not seconds["saga"],
           "ratio": other / mine}  # fmt: skip
    log(row)
    return row


def markdown(rows):
    """The table, and the geometric mean of the ratios."""
    lines = [
        "| data | C | l1_ratio | zeros | skfc, s | saga, s | ratio |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        sign = "> " if row["stopped"] else ""
        lines.append(
            f"| `{row['problem']}` | {row['C']:.3g} | {row['l1_ratio']:g} | {row['zeros']} "
            f"| {row['skfc']:.3g} | {sign}{row['saga']:.3g} | {sign}{row['ratio']:.3g} |"
        )
    mean = math.exp(np.mean([math.log(row["ratio"]) for row in rows])) if rows else math.nan
    return "\n".join([*lines, "", f"Geometric mean of the ratios: {mean:.3g}.", ""])


def main(args):
    """Every problem at every C and ratio."""
    rows, missing = [], {}
    for name in args.problems or (QUICK if args.quick else PROBLEMS):
        Cs = args.Cs or ((1.0,) if args.quick else CS)
        for C, ratio in product(Cs, (1.0,) if args.quick else RATIOS):
            try:
                rows.append(compete(name, args.data, C, ratio, print))
            except problems.Unavailable as error:
                missing[name] = str(error)
    told = report.environment([])
    data = {"rows": rows, "missing": missing}
    print(report.write(args.out, "l1", told, data, markdown(rows)))
