"""Data that the rules were not made on: beside scikit-learn, and with thresholds of other data.

The first table times skfc and the solvers of `LogisticRegression` in turn in one process, without
pauses, each at the loosest tolerance that arrives. The second leaves one data set out at a time:
every threshold of speed takes the value (of half, as it is, double) that costs least on the
others, and the set is timed with these.
"""

import sys
import time
import warnings
from dataclasses import asdict, dataclass
from statistics import median

import numpy as np

from benchmarks import problems, report, runner
from skfc import SoftmaxFCClassifier
from skfc._tuned import TUNED, override

REAL = ("glass", "vehicle", "vowel", "segment", "page_blocks", "segment:std", "page_blocks:std",
        "splice", "khan", "banking77")  # fmt: skip
GENERATED = (
    "tails-2000x10x5", "tails-5000x10x10", "tails-20000x20x5", "tails-50000x5x3",
    "near-2000x30x5", "near-10000x16x8", "gen-5000x30x4", "gen-20000x12x6-p2",
    "onehot-5000x200x3", "onehot-20000x1000x6", "text-3000x7000x4", "text-6000x3000x40",
)  # fmt: skip
QUICK = ("tails-2000x10x5", "onehot-5000x200x3")
SOLVERS = ("logistic-lbfgs", "logistic-newton-cg", "logistic-newton-cholesky", "logistic-sag",
           "logistic-saga")  # fmt: skip
LEAST, MOST = 3, 15  # fits of each that are timed
TURN = 1.0  # seconds that all repeats of one fit may take
# What the choice of a method, its samples and its steps follow; not what decides whether a
# number is right, nor the sizes of blocks, which follow from caches.
OF_SPEED = (
    "dense_share", "single_from", "few_single", "nearly_all", "all_rows_small", "hessian_rows",
    "rows_per_feature", "probes", "block_price", "numbers_per_step", "hessian_rows_per_direction",
    "operations_per_logit", "hessian_size", "most_passes", "speed_of_matrices", "merge_share",
    "accuracy", "look_back", "wolfe_newton", "stronger", "memory", "share_to_come", "patience",
)  # fmt: skip
WORTH = 0.97  # of the seconds: a value that saves less is not taken


@dataclass
class Race:
    """One problem, C and target: seconds (processor, clock) of ours and of the best rival."""

    problem: str
    C: float
    target: float
    ours: tuple
    rival: str
    theirs: tuple

    @property
    def ratios(self):
        return tuple(b / a for a, b in zip(self.ours, self.theirs, strict=True))


def timed(rival, problem, C, setting):
    """Processor and clock seconds of one fit here."""
    begin = time.process_time(), time.perf_counter()
    rival.fit(problem.X, problem.y, C, setting, False)
    return time.process_time() - begin[0], time.perf_counter() - begin[1]


def in_turns(entries, problem, C):
    """Medians of the seconds of `entries`, pairs of a rival and its setting, in alternation."""
    seconds, begin = [[] for _ in entries], time.perf_counter()
    for turn in range(MOST):
        for taken, (rival, setting) in zip(seconds, entries, strict=True):
            taken.append(timed(rival, problem, C, setting))
        if turn + 1 >= LEAST and time.perf_counter() - begin > TURN * len(entries):
            break
    return [tuple(map(median, zip(*taken, strict=True))) for taken in seconds]


def race(problem, C, field, options, declined):
    """The :class:`Race` to every target; a rival that never arrives is not in one."""
    cell = runner.Cell(problem.name, (*problem.X.shape, problem.n_classes), C)
    runner.settle(cell, field.run("skfc", problem, C, runner.REFERENCE_TOL, options.limit).value)
    limit = options.limit
    for name in field.rivals:
        if name not in declined:
            runner.explore(name, cell, problem, field, options.targets, limit, np.inf)
        if name == "skfc":
            seconds = [run.seconds for run in cell.runs[name] if not run.note]
            limit = max(options.floor, options.cap * min(seconds, default=options.limit))
    for target in options.targets:
        runs = {
            name: runner.first(runs, field.rivals[name].ladder, target)
            for name, runs in cell.runs.items()
        }
        runs = {name: run for name, run in runs.items() if run is not None}
        near = min((r.seconds for n, r in runs.items() if n != "skfc"), default=0)
        runs = {n: r for n, r in runs.items() if n == "skfc" or r.seconds <= runner.FAR * near}
        if len(runs) < 2 or "skfc" not in runs:
            continue
        found = in_turns([(field.rivals[n], r.setting) for n, r in runs.items()], problem, C)
        found = dict(zip(runs, found, strict=True))
        own = found.pop("skfc")
        best = min(found, key=lambda name: found[name][0])
        yield Race(problem.name, C, target, own, best, found[best])


def ratios_markdown(races):
    """The table of the ratios, and how many are below one."""
    rows = [
        [f"{r.problem}, C={r.C:g}", f"{r.target:g}", f"{r.ours[0] * 1e3:.3g}", r.rival,
         f"{r.theirs[0] * 1e3:.3g}", *(f"{ratio:.2f}" for ratio in r.ratios)]
        for r in races
    ]  # fmt: skip
    header = ["problem", "to", "skfc ms", "best rival", "its ms", "ratio", "by the clock"]
    lines = [report.table(header, rows), ""]
    for target in dict.fromkeys(r.target for r in races):
        ratios = [r.ratios[0] for r in races if r.target == target]
        lines.append(
            f"To {target:g}: {len(ratios)} ratios, geometric mean "
            f"**{report.geometric_mean(ratios):.2f}**, {sum(r < 1 for r in ratios)} below 1, "
            f"{sum(r < 0.9 for r in ratios)} below 0.9."
        )
    return "\n".join(lines)


def fit_seconds(problem, C, tol, rounds, values):
    """The least processor seconds of a fit as it is, and with each of `values`."""
    taken = np.full((len(values) + 1, rounds), np.inf)
    for turn in range(rounds):
        for i, given in enumerate([{}, *values]):
            begin = time.process_time()
            try:
                with override(**given), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    SoftmaxFCClassifier(C=C, tol=tol).fit(problem.X, problem.y)
            except Exception:  # with a value that no fit was made for
                continue
            taken[i, turn] = time.process_time() - begin
    best = taken.min(axis=1)
    return best[0], best[1:]


def half_and_double(name):
    value = getattr(TUNED, name)
    return [{name: type(value)(value * factor)} for factor in (0.5, 2.0)]


def cost_of_values(loaded, Cs, tols, rounds, log):
    """By set and threshold, ratios (2,) of seconds with half of and double its value."""
    values = [value for name in OF_SPEED for value in half_and_double(name)]
    costs = {}
    for problem in loaded:
        ratios = []
        for C in Cs:
            for tol in tols:
                own, others = fit_seconds(problem, C, tol, rounds, values)
                ratios.append(others / own)
        mean = np.exp(np.mean(np.log(ratios), axis=0)).reshape(len(OF_SPEED), 2)
        costs[problem.name] = dict(zip(OF_SPEED, mean, strict=True))
        log(f"  {problem.name}: worst {mean.max():.2f}, best {mean.min():.2f}")
    return costs


def chosen_without(left_out, costs):
    """The thresholds that cost least on all sets but one, where that saves enough."""
    chosen = {}
    base = left_out.partition(":")[0]
    others = [costs[name] for name in costs if name.partition(":")[0] != base]
    for name in OF_SPEED:
        mean = np.exp(np.mean([np.log(cost[name]) for cost in others], axis=0))
        if mean.min() < WORTH:
            chosen |= half_and_double(name)[int(mean.argmin())]
    return chosen


def leave_one_out(loaded, Cs, tols, rounds, log):
    """By set: what the others would choose, and the ratio of seconds with that and as it is."""
    costs = cost_of_values(loaded, Cs, tols, rounds, log)
    rows = []
    for problem in loaded:
        chosen, ratios = chosen_without(problem.name, costs), []
        for C in Cs if chosen else ():
            for tol in tols:
                own, (other,) = fit_seconds(problem, C, tol, rounds, [chosen])
                ratios.append(other / own)
        rows.append((problem.name, chosen, report.geometric_mean(ratios) if ratios else 1.0))
    return costs, rows


def left_out_markdown(rows):
    lines = [
        [name, ", ".join(f"{k} {v:g}" for k, v in chosen.items()) or "as they are", f"{ratio:.2f}"]
        for name, chosen, ratio in rows
    ]
    mean = report.geometric_mean([ratio for *_, ratio in rows])
    table = report.table(["left out", "the others choose", "seconds, with / as they are"], lines)
    return f"{table}\n\nGeometric mean: **{mean:.2f}**."


def load_all(names, folder, log):
    for name in names:
        try:
            yield problems.load(name, folder)
        except problems.Unavailable as error:
            log(f"{name}: {error}")


def main(args):
    """Both tables, and `unseen.json`."""

    def log(text):
        print(text, file=sys.stderr, flush=True)

    warnings.simplefilter("ignore")
    names = args.problems or (QUICK if args.quick else (*REAL, *GENERATED))
    Cs = args.Cs or ((1.0,) if args.quick else (0.01, 1.0, 100.0))
    loaded, races = list(load_all(names, args.data, log)), []
    contestants, _ = runner.contest(args.rivals or SOLVERS)
    contestants = {name: contestants[name] for name in ("skfc", *SOLVERS) if name in contestants}
    options = runner.Options(args.targets, 60.0, args.cap, 0.3)
    with runner.Field(contestants, log) as field:
        for problem in loaded:
            declined = field.take(problem)
            for C in Cs:
                log(f"{problem}, C={C:g}")
                races += race(problem, C, field, options, declined)
    told, rounds = report.environment(), 1 if args.quick else 3
    costs, rows = leave_one_out(loaded, Cs, args.targets, rounds, log)
    text = (
        "Milliseconds of the processor; medians of fits in alternation in one process.\n\n"
        f"{ratios_markdown(races)}\n\n#### Thresholds of other data\n\n{left_out_markdown(rows)}"
    )
    costs = {name: {k: list(v) for k, v in cost.items()} for name, cost in costs.items()}
    data = {"races": [asdict(r) for r in races], "costs": costs, "left_out": rows}
    print(report.write(args.out, "unseen", told, data, text, publish=args.publish))
