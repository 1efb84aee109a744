"""Seconds by the number of threads, each in a process of its own."""

import os
import pickle
import sys
import tempfile
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks import problems, report
from benchmarks.objective import mean_objective
from benchmarks.rivals import all_rivals, tolerances

# Fits that take a second and more: problem, type of X, tol of skfc, and whether it is a search.
FITS = (
    ("gen-1000000x50x10", np.float64, 1e-6, False), ("embeddings", np.float32, 1e-3, False),
    ("mnist", np.float32, 1e-6, False), ("news20", np.float64, 1e-6, False),
    ("usps", np.float64, 1e-6, True),
)  # fmt: skip
QUICK = (("gen-20000x40x6", np.float64, 1e-6, False), ("digits", np.float64, 1e-6, True))
SOLVERS = ("lbfgs", "newton-cg")
# What tells libraries how many threads they may have.
VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")
TARGET = 1e-3
START = 120.0  # seconds to import, and to take over the data


def main(args):
    """A table and a picture: skfc, and solvers of scikit-learn to 1e-3 of the minimum."""
    counts, data = numbers_of_threads(os.cpu_count()), []
    for name, dtype, tol, search in QUICK if args.quick else FITS:
        if args.problems and name not in args.problems:
            continue
        try:
            problem = problems.load(name, args.data, dtype)
        except problems.Unavailable as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        data += rows_of(problem, tol, search, counts, args.cap)
    most = counts[-1]
    header = ["fit", "by", *map(str, counts), f"1 against {most}"]
    rows = [
        [row["fit"], row["by"], *(report.short(s) or "stopped" for s in row["seconds"]),
         ratio(row["seconds"])] for row in data
    ]  # fmt: skip
    ours = [row["seconds"] for row in data if row["by"].startswith("skfc")]
    mean = report.geometric_mean([seconds[0] / seconds[-1] for seconds in ours if all(seconds)])
    text = (
        "Seconds by the number of threads. Solvers of `LogisticRegression` at the loosest `tol`\n"
        f"of their ladder that comes within {TARGET:g} of the objective that skfc reaches;\n"
        f"stopped after {args.cap:g} times as long.\n\n{report.table(header, rows)}\n\n"
        f"Geometric mean of skfc, one thread against {most}: {mean:.2f}."
    )
    print(report.write(args.out, "cores", report.environment(), data, text, publish=args.publish))
    draw(data, counts, args.out)


def numbers_of_threads(n_cores):
    """1, 2, 4, ..., and all cores."""
    return sorted({*(2**k for k in range(n_cores.bit_length())), n_cores})


def ratio(seconds):
    return f"{seconds[0] / seconds[-1]:.2f}" if all(seconds) else ""


def rows_of(problem, tol, search, counts, cap):
    """The measurements of skfc and of every solver on a problem."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "data")
        path.write_bytes(pickle.dumps((problem.X, problem.y)))
        title, own = str(problem), "skfc"
        if search:
            title, own = f"search, {title}", "search"
        first = measure(counts[-1], path, own, tol)
        limit = cap * max(first.seconds, 1.0)
        fits = {"skfc": (own, tol)}
        least = mean_objective(problem.X, problem.y, first.coef, first.intercept, 1.0)
        for solver in () if search else SOLVERS:
            found = measure(counts[-1], path, solver, None, least * (1 + TARGET), limit)
            if found is not None:
                fits[f"logistic-{solver}"] = solver, found.tol
        rows = []
        for by, what in fits.items():
            runs = [measure(n, path, *what, None, limit) for n in counts]
            seconds = [run and run.seconds for run in runs]
            print(title, by, *map(report.short, seconds), file=sys.stderr, flush=True)
            rows.append({"fit": title, "by": by, "threads": counts, "seconds": seconds})
    return rows


@dataclass(frozen=True)
class Timed:
    """Median seconds of a fit at a setting, and its coefficients."""

    seconds: float
    tol: float
    coef: np.ndarray
    intercept: np.ndarray


@contextmanager
def threads(n):
    """Processes that begin here have `n` threads."""
    before = {name: os.environ.get(name) for name in VARIABLES}
    os.environ.update(dict.fromkeys(VARIABLES, str(n)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def measure(n_threads, path, what, tol, bound=None, limit=None):
    """The `Timed` fit in a process with so many threads, or None if it was stopped.

    Without a `tol`, the loosest of the ladder whose objective is at most `bound` is looked for.
    """
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, path, what, tol, bound), daemon=True)
    with threads(n_threads):
        process.start()
    theirs.close()
    try:
        return Timed(*ours.recv()) if ours.poll(START + (limit or 1e6)) else None
    except EOFError as error:
        raise RuntimeError(f"{what} ended without an answer") from error
    finally:
        process.kill()
        process.join()
        ours.close()


def serve(connection, path, what, tol, bound):
    """In the process: warm up, fit, and send what makes a `Timed`."""
    warnings.simplefilter("ignore")
    X, y = pickle.loads(Path(path).read_bytes())
    fit(what, *problems.generate(200, 4, 3), tol or 1.0)
    if tol is None:
        for tol in tolerances():
            found = fit(what, X, y, tol)
            if mean_objective(X, y, *found, 1.0) <= bound:
                break
        connection.send((np.nan, tol, *found))
        return
    seconds, n = [], 1
    while len(seconds) < n:
        begin = time.perf_counter()
        found = fit(what, X, y, tol)
        seconds.append(time.perf_counter() - begin)
        n = 5 if seconds[0] < 2 else 3 if seconds[0] < 10 else 1
    connection.send((median(seconds), tol, *found))


def fit(what, X, y, tol):
    """Coefficients and intercepts of a fit, or of a search."""
    if what == "search":
        from skfc import SoftmaxFCClassifierCV

        model = SoftmaxFCClassifierCV(Cs=10, cv=5, tol=tol).fit(X, y)
        return model.coef_, model.intercept_
    name = "skfc" if what == "skfc" else f"logistic-{what}"
    return all_rivals()[name].fit(X, y, 1.0, tol, False)[:2]


def draw(data, counts, folder):
    """Seconds against threads, a panel for every fit."""
    plt = report.pyplot()
    if plt is None or not data:
        return
    titles = list(dict.fromkeys(row["fit"] for row in data))
    figure, axes = plt.subplots(
        1, len(titles), figsize=(3.2 * len(titles), 3.4), squeeze=False, layout="constrained"
    )
    colours = {"skfc": "#c1272d", "logistic-lbfgs": "#0b6fa4", "logistic-newton-cg": "#5a8f29"}
    for ax, title in zip(axes[0], titles, strict=True):
        for row in (row for row in data if row["fit"] == title):
            seen = [(n, s) for n, s in zip(counts, row["seconds"], strict=True) if s]
            ax.plot(*zip(*seen, strict=True), "o-", color=colours[row["by"]], label=row["by"])
        ax.set(xscale="log", yscale="log", xlabel="threads", title=title.replace(" (", "\n("))
        ax.set_xticks(counts, map(str, counts))
        ax.minorticks_off()
        ax.grid(alpha=0.3)
    axes[0, 0].set_ylabel("seconds of a fit")
    axes[0, 0].legend(fontsize=7)
    figure.savefig(Path(folder, "cores.png"), dpi=150)
    plt.close(figure)
