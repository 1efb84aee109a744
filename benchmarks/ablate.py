"""What every measured threshold is worth: fits without it beside fits with it.

A threshold is a field of `skfc._tuned.Tuned`. It is switched off with `override`, or given
another value where there is no off; `OFF` says which. A field that no fit of the set reads is
not judged.
"""

import os
import sys
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cache
from unittest.mock import patch

import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from benchmarks import problems, report
from benchmarks.objective import mean_objective
from skfc import SoftmaxFCClassifier
from skfc._rows import _base
from skfc._tuned import TUNED, Tuned, override

NEVER = 2**62
# The value of a field without its mechanism: nothing is asked of it, it is always or never
# met, or it falls back to the plainer field beside it. `x 2` and `/ 2`: there is no off.
OFF = {
    # memory and blocks
    "block_bytes": NEVER, "min_block_rows": 1, "small_block_bytes": NEVER, "piece_bytes": NEVER,
    "block_operations": 1, "dense_share": np.inf, "row_major_from": NEVER, "few": 0,
    "few_numbers": 0, "batch_share": 1,
    # precision
    "single_from": NEVER, "small_loss": 0.0,
    "few_single": 0, "single_digits": 1e-9,
    "next_to_one_another": 0.0, "lost_digits": np.inf,
    # samples of rows
    "nearly_all": 1.0, "all_rows_small": 1.5, "least_chance": 0.0,
    "hessian_rows": 1, "rows_per_feature": 0,
    "probes": 5,  # / 2
    # preconditioners
    "no_curvature": 0.0, "rounding_of_gram": 1e-14,
    "block_price": 0.0, "numbers_per_step": np.inf,
    "hessian_rows_per_direction": 27,  # / 2
    "operations_per_logit": 0.0,
    # the ladder
    "hessian_size": 0, "most_passes": np.inf,
    "speed_of_matrices": 1.0, "merge_share": 0.0,
    # conjugate gradients and Newton
    "accuracy": 0.1, "look_back": 1, "most_steps": NEVER, "wolfe_newton": 0.9,
    "stronger": 100.0,  # twice as long a way in its logarithm
    "most_damping": 0,
    # streams, which no fit of the set reads
    "stream_refresh": 1.0, "stream_overfit": np.inf,
    # L-BFGS, gradient descent, line searches
    "memory": 5,  # / 2
    "armijo": 0.0, "wolfe": 1e300, "smooth_share": 1e-4,
    # proximal steps, which no fit of the set reads
    "least_working_set": NEVER, "most_coordinates": 0,
    "sweeps": 1, "mixed": 0.0,
    # the gap
    "share_to_come": 1e300, "thorough_steps": 2, "small_tol": 1.0,
    "decided": 0.0, "far_out": np.inf, "far_logits": 0.0, "farther": np.inf, "steps_per_root": 0.0,
    "decided_steps": 2, "farthest_intercept": 0.0,
    "patience": NEVER, "largest_program": 0,

}  # fmt: skip
# Without these the same is done in other pieces: time alone tells. Of another field, fits that
# are the same to the last digit are not timed.
PIECES = list(OFF)[: list(OFF).index("single_from")]

MOST_ITERATIONS = 500
REPEATS = 3
# Real data that are taken from --data where they are.
REAL = ("letter", "satimage", "covtype_kaggle", "optdigits", "usps")
BUNDLED = ("iris", "wine", "digits", "gen-6000x20x5", "gen-20000x30x4-p2", "words", "outlier",
           "wide", "shifted")  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One fit of the set."""

    problem: str
    C: float
    tol: float
    solver: str = "auto"


@dataclass(frozen=True)
class Found:
    """What a fit cost and gave; `value` is the objective, infinite where the fit failed."""

    passes: float
    products: int
    value: float
    converged: bool
    seconds: float
    note: str = ""


def cases(folder):
    """The set: every problem at C = 1 and 100, tol = 1e-3 and 1e-6; some more by name."""
    real = [name for name in REAL if folder and os.path.exists(f"{folder}/{name}.npz")]
    yield from (
        Case(name, C, tol) for name in (*BUNDLED, *real) for C in (1.0, 100.0)
        for tol in (1e-3, 1e-6)
    )  # fmt: skip
    yield from (Case(name, np.inf, 1e-4) for name in ("iris", "gen-6000x20x5", "outlier"))
    yield from (Case(name, 1.0, 1e-4, "gd") for name in ("iris", "wine"))
    yield from (Case(name, 1.0, 1e-4, "lbfgs") for name in ("digits", "words"))
    yield Case("gen-6000x20x5", 1.0, 1e-4, "newton-cg")


@cache
def load(name, folder=None):
    """A :class:`problems.Problem`; four kinds are made here, for what upsets a fit."""
    if name not in ("words", "outlier", "wide", "shifted"):
        return problems.load(name, folder)
    if name == "words":  # rare and frequent columns, half of them of one entry
        rng = np.random.default_rng(0)
        rate = np.minimum(0.3, 4.0 / np.arange(1, 6001))
        X = sparse.vstack([
            sparse.csr_matrix(rng.random((500, len(rate))) < rate, dtype=float) for _ in range(8)
        ]).tocsr()  # fmt: skip
        Z = X @ rng.standard_normal((len(rate), 8)) + rng.gumbel(size=(X.shape[0], 8))
        return problems.Problem(name, X, Z.argmax(axis=1))
    shape = (100, 400, 3) if name == "wide" else (5000, 12, 6)
    X, y = problems.generate(*shape)
    if name == "outlier":
        X[:3, 0], X[3:6, 1] = 100.0, -30.0
    elif name == "shifted":
        X += 1e3
    return problems.Problem(name, X, y)


@contextmanager
def counted():
    """The counts of work that rows inside are given."""
    made, Work = [], _base.Work

    def new():
        made.append(Work())
        return made[-1]

    with patch.object(_base, "Work", new):
        yield made


def measure(case, folder, **values):
    """A :class:`Found` of one fit with other values of thresholds."""
    problem = load(case.problem, folder)
    model = SoftmaxFCClassifier(
        C=case.C, tol=case.tol, solver=case.solver, max_iter=MOST_ITERATIONS
    )
    with warnings.catch_warnings(record=True) as caught, counted() as works, override(**values):
        warnings.simplefilter("always")
        begin = time.process_time()
        try:
            model.fit(problem.X, problem.y)
        except Exception as error:  # a fit without its guards may fail in any way
            note = f"{type(error).__name__}: {error}"
            return Found(np.nan, 0, np.inf, False, np.nan, note.partition("\n")[0][:60])
        seconds = time.process_time() - begin
    value = mean_objective(problem.X, problem.y, model.coef_, model.intercept_, case.C)
    told = any(issubclass(w.category, ConvergenceWarning) for w in caught)
    return Found(
        sum(w.passes for w in works), sum(w.products for w in works), value, not told, seconds
    )


@contextmanager
def reads():
    """The set of the fields that are read inside."""
    seen, names = set(), {f.name for f in fields(Tuned)}

    class Watched(Tuned):
        def __getattribute__(self, name):
            if name in names:
                seen.add(name)
            return super().__getattribute__(name)

    TUNED.__class__ = Watched
    try:
        yield seen
    finally:
        TUNED.__class__ = Tuned


def total(part):
    """Geometric mean of ratios without / with; 1 where there are none."""
    ratios = [ratio for ratio in part if np.isfinite(ratio) and ratio > 0]
    return report.geometric_mean(ratios) if ratios else 1.0


@dataclass
class Row:
    """One field: ratios without / with over the cases that read it, and what breaks."""

    name: str
    n_cases: int
    n_changed: int
    passes: float
    products: float
    seconds: float
    worst_seconds: float
    missed: list
    failed: list

    def cells(self):
        ratios = (self.passes, self.products, self.seconds, self.worst_seconds)
        return [self.name, getattr(TUNED, self.name), OFF[self.name], self.n_cases,
                self.n_changed, *(f"{r:.3f}" for r in ratios), len(self.missed),
                len(self.failed)]  # fmt: skip


HEADER = ["field", "value", "off", "fits", "changed", "passes", "products", "seconds",
          "worst fit's", "misses tol", "fails"]  # fmt: skip


def differ(a, b):
    """Whether two fits are not the same to the last digit."""
    return (a.passes, a.products, a.value) != (b.passes, b.products, b.value)


def ablate(name, read, folder, base, repeats):
    """The runs of one field: pairs of all `Found` with and without it, by case."""
    runs = {}
    for case, seen in read.items():
        if name not in seen:
            continue
        without, times = measure(case, folder, **{name: OFF[name]}), []
        if np.isfinite(without.seconds) and (name in PIECES or differ(base[case], without)):
            for _ in range(repeats):
                times.append([measure(case, folder, **v).seconds for v in ({}, {name: OFF[name]})])
        ours, theirs = np.min(times or [[1.0, 1.0]], axis=0)
        runs[case] = replace(base[case], seconds=ours), replace(without, seconds=theirs)
    return runs


def judge(name, runs, least):
    """The :class:`Row` of a field, with the least objectives that anybody saw."""
    pairs = runs.values()
    ratios = {
        what: [(1 + getattr(b, what)) / (1 + getattr(a, what)) for a, b in pairs]
        for what in ("passes", "products")
    }
    seconds = [b.seconds / a.seconds for a, b in pairs]
    finite = [ratio for ratio in seconds if np.isfinite(ratio)]

    def off(case, found):
        return found.value - least[case] > case.tol * least[case]

    missed = [c for c, (a, b) in runs.items() if b.converged and off(c, b) and not off(c, a)]
    failed = [c for c, (a, b) in runs.items() if a.converged and not b.converged]
    changed = sum(differ(a, b) for a, b in pairs)
    return Row(
        name, len(runs), changed, total(ratios["passes"]), total(ratios["products"]),
        total(seconds), max(finite, default=1.0), missed, failed,
    )  # fmt: skip


def run(names, chosen, folder=None, *, repeats=REPEATS, log=lambda text: None):
    """Rows of the fields, and the names of those that no fit of the set reads."""
    base, read, runs = {}, {}, {}
    with threadpool_limits(1):
        for case in chosen:
            measure(case, folder)  # warms up
            with reads() as seen:
                measure(case, folder)
            base[case], read[case] = measure(case, folder), seen
        least = {case: min(base[case].value, measure(replace(case, tol=1e-10), folder).value)
                 for case in chosen}  # fmt: skip
        idle = [n for n in names if not any(n in seen for seen in read.values())]
        for name in names:
            if name in idle:
                continue
            runs[name] = ablate(name, read, folder, base, repeats)
            for case, (_, b) in runs[name].items():
                least[case] = min(least[case], b.value)
            log(" ".join(map(str, judge(name, runs[name], least).cells())))
    return [judge(name, found, least) for name, found in runs.items()], idle


def markdown(rows, idle, n_cases):
    """The table, the fields of the least worth first, and what broke without which."""
    worth = sorted(rows, key=lambda r: (len(r.missed) + len(r.failed), max(r.passes, r.seconds)))
    text = (
        f"{n_cases} fits, one thread. Ratios without / with: geometric means over the fits "
        f"that read the field, of 1 + passes, 1 + products, and processor seconds.\n\n"
    )
    text += report.table(HEADER, [row.cells() for row in worth])
    broken = [
        f"- {row.name}: " + ", ".join(f"{c.problem} C={c.C:g} tol={c.tol:g} {c.solver}"
                                      for c in (*row.missed, *row.failed))
        for row in worth if row.missed or row.failed
    ]  # fmt: skip
    text += "\n\nMore than tol from the minimum, or not converged, without:\n\n"
    text += "\n".join(broken or ["- none"])
    return text + f"\n\nNot judged, for no fit reads them: {', '.join(idle) or 'none'}."


def main(args):
    """All fields, or those of --fields."""
    os.environ["OMP_NUM_THREADS"] = "1"
    names = args.fields or [f.name for f in fields(Tuned)]
    chosen = list(cases(None if args.quick else args.data))
    if args.problems:
        chosen = [case for case in chosen if case.problem in args.problems]
    rows, idle = run(
        names, chosen, args.data, repeats=args.repeats,
        log=lambda text: print(text, file=sys.stderr, flush=True),
    )  # fmt: skip
    text = markdown(rows, idle, len(chosen))
    print(report.write(args.out, "ablate", report.environment(), rows, text))
