"""Who reaches which objective, and how fast: contestants in alternation on one problem."""

import math
import pickle
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.objective import mean_objective
from benchmarks.rivals import all_rivals
from benchmarks.worker import Failed, Stopped, Worker

CAP = 20.0  # a rival that is slower than this many times ours is stopped, and counts as this
FLOOR = 1.0  # seconds that every fit may take, however fast ours is
REPEATS = {0.1: 11, 2: 5, 10: 3, math.inf: 1}  # below so many seconds so many
FAR = 3.0  # rivals slower than this many times the best one are not repeated
REFERENCE_TOL = 1e-11
NO_TIME = "no time"


@dataclass
class Run:
    """One timed fit. `gap` is (F - F*) / F*; `note` says why there is no value."""

    setting: float
    seconds: float
    value: float = math.inf
    passes: float | None = None
    gap: float = math.inf
    note: str = ""


@dataclass
class Cell:
    """One problem at one C: what every contestant did, and the times to each target."""

    problem: str
    shape: tuple
    C: float
    optimum: float = math.inf
    runs: dict = field(default_factory=dict)  # contestant -> [Run]
    times: dict = field(default_factory=dict)  # target -> contestant -> timing
    declined: dict = field(default_factory=dict)  # contestant -> why

    def best(self, target, rivals):
        """The fastest of `rivals` to `target`, or None."""
        timed = {name: t["median"] for name, t in self.times[target].items() if name in rivals}
        return min(timed, key=timed.get, default=None)

    def ratio(self, target, ours, rivals, cap=CAP):
        """Best rival's time over ours, between 1 / cap and cap.

        None where no rival took part, or for want of time: ours, or one's where none arrived.
        """
        ends = [runs[-1].note for name, runs in self.runs.items() if name in rivals and runs]
        if not ends or (self.best(target, rivals) is None and NO_TIME in ends):
            return None
        own = self.times[target].get(ours)
        best = self.best(target, rivals)
        if own is None:
            return None if any(run.note == NO_TIME for run in self.runs[ours]) else 1 / cap
        return (
            cap if best is None else min(cap, self.times[target][best]["median"] / own["median"])
        )

    def to_json(self):
        return asdict(self)


@dataclass(frozen=True)
class Options:
    """Bounds in seconds: `limit` of one fit of ours, `share` of a whole cell."""

    targets: tuple = (1e-3, 1e-6)
    limit: float = 600.0
    cap: float = CAP
    floor: float = FLOOR
    share: float = math.inf


class Field:
    """Contestants in their processes: names, each a rival and the root of its skfc."""

    def __init__(self, contestants, log=None):
        self.rivals = {name: rival for name, (rival, _) in contestants.items()}
        self.workers = {
            name: Worker(rival.name, root) for name, (rival, root) in contestants.items()
        }
        self.failed = {}
        self.log = log or (lambda text: print(text, file=sys.stderr, flush=True))
        self._stack = ExitStack()

    def __enter__(self):
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        for worker in self.workers.values():
            self._stack.callback(worker.close)
            worker.launch()
        for name, worker in self.workers.items():
            try:
                worker.wait()
            except (Failed, Stopped) as error:
                self.failed[name] = str(error)
                self.log(f"  {name} cannot be used: {error}")
        return self

    def __exit__(self, *exception):
        self._stack.close()

    def take(self, problem):
        """Give the data to those that accept it; returns why the others do not."""
        path = self.folder / "problem.pickle"
        with open(path, "wb") as file:
            pickle.dump((problem.X, problem.y), file, protocol=5)
        declined = {}
        for name, worker in self.workers.items():
            reason = self.failed.get(name) or self.rivals[name].declines(problem)
            if not reason:
                try:
                    worker.take(path)
                except (Failed, Stopped) as error:
                    reason = str(error)
            if reason:
                declined[name] = reason
        return declined

    def run(self, name, problem, C, setting, limit, count=False):
        """One :class:`Run` of contestant `name`, judged by the common objective."""
        begin = time.perf_counter()
        try:
            seconds, fitted = self.workers[name].fit(C, setting, limit, count)
        except Stopped:
            return Run(setting, limit, note="stopped")
        except Failed as error:
            return Run(setting, time.perf_counter() - begin, note=str(error))
        value = mean_objective(problem.X, problem.y, fitted.coef, fitted.intercept, C)
        return Run(setting, seconds, value, fitted.passes)


def climb(attempt, n_settings, targets):
    """Find the loosest setting for each target, in steps of two and then one back.

    `attempt(i)` runs setting `i` and returns its gap, or None where it was not completed.
    """
    gaps = {}
    i = 0
    for target in sorted(targets, reverse=True):
        while True:
            if i not in gaps:
                gaps[i] = attempt(i)
            if gaps[i] is None or gaps[i] <= target or i == n_settings - 1:
                break
            i = min(i + 2, n_settings - 1)
        if gaps[i] is None:
            return
        if i and i - 1 not in gaps and gaps[i] <= target:
            gaps[i - 1] = attempt(i - 1)


def n_repeats(seconds):
    """Eleven below a tenth of a second, five below two seconds, one above ten."""
    for longest, repeats in REPEATS.items():
        if seconds < longest:
            return repeats


def relative(value, optimum):
    return (value - optimum) / max(optimum, 1e-300) if math.isfinite(value) else math.inf


def measure(problem, C, contestants, options, *, ours="skfc", declined=()):
    """Time every contestant on `problem` at `C`; returns a :class:`Cell`."""
    cell = Cell(problem.name, (*problem.X.shape, problem.n_classes), C)
    cell.declined = dict(declined)
    names = [name for name in contestants.workers if name not in cell.declined]
    names.sort(key=lambda name: name != ours)
    settle(cell, contestants.run(ours, problem, C, REFERENCE_TOL, options.limit).value)
    end = time.perf_counter() + options.share
    limit = options.limit
    for i, name in enumerate(names):
        now = time.perf_counter()
        # What is left of the cell's time is shared by those that are left, and the repeats.
        turn_end = now + (end - now) / (len(names) - i + 1)
        explore(name, cell, problem, contestants, options.targets, limit, turn_end)
        if name == ours:
            reached = [r.seconds for r in cell.runs[ours] if r.gap <= min(options.targets)]
            if reached:
                limit = max(options.floor, options.cap * min(reached))
    settle(cell)
    repeat(cell, problem, contestants, options.targets, ours, end)
    return cell


def settle(cell, value=math.inf):
    """Take the least value known as the optimum, and the gaps of all runs from it."""
    runs = [run for runs in cell.runs.values() for run in runs]
    cell.optimum = min([cell.optimum, value, *(run.value for run in runs)])
    for run in runs:
        run.gap = relative(run.value, cell.optimum)


def explore(name, cell, problem, contestants, targets, limit, end):
    """Climb the ladder of one contestant: fits of at most `limit` seconds, until `end`."""
    runs = cell.runs[name] = []
    ladder = contestants.rivals[name].ladder

    def attempt(i):
        left = end - time.perf_counter()
        if left > 0:
            run = contestants.run(name, problem, cell.C, ladder[i], min(limit, left), count=True)
        if left <= 0 or (run.note == "stopped" and left < limit):
            run = Run(ladder[i], max(left, 0), note=NO_TIME)
        runs.append(run)
        settle(cell)
        return None if run.note else run.gap

    climb(attempt, len(ladder), targets)
    reached = [first(runs, ladder, target) for target in targets]
    words = [
        f"{target:g}: {run.seconds:.3g} s" if run else f"{target:g}: {runs[-1].note or 'never'}"
        for target, run in zip(targets, reached, strict=True)
    ]
    contestants.log(f"    {name:25s}" + "   ".join(words))


def first(runs, ladder, target):
    """The run of the loosest setting that reached `target`, or None."""
    reached = [run for run in runs if run.gap <= target]
    return min(reached, key=lambda run: ladder.index(run.setting), default=None)


def repeat(cell, problem, contestants, targets, ours, end):
    """Time the settings chosen for every target again, in turns, until `end`."""
    chosen, seconds = {}, {}
    for target in targets:
        for name, runs in cell.runs.items():
            run = first(runs, contestants.rivals[name].ladder, target)
            if run is not None:
                chosen[target, name] = run
        rivals = [run.seconds for (t, n), run in chosen.items() if t == target and n != ours]
        for (t, name), run in chosen.items():
            if t == target and (name == ours or run.seconds <= FAR * min(rivals)):
                seconds.setdefault((name, run.setting), [])
    first_seconds = {(name, run.setting): run.seconds for (_, name), run in chosen.items()}
    for turn in range(max(REPEATS.values())):
        for (name, setting), taken in seconds.items():
            once = first_seconds[name, setting]
            if turn < n_repeats(once) and once <= 10 and time.perf_counter() < end:
                run = contestants.run(name, problem, cell.C, setting, 10 * once + 10)
                if not run.note:
                    taken.append(run.seconds)
    for target in targets:
        cell.times[target] = {
            name: {
                "setting": run.setting, "passes": run.passes, "gap": run.gap,
                "seconds": (s := seconds.get((name, run.setting)) or [run.seconds]),
                "median": median(s),
            }
            for (t, name), run in chosen.items() if t == target
        }  # fmt: skip


def contest(names):
    """Contestants by name, and what is missing of those asked for.

    `names` are names of rivals or their beginnings; ours are always there.
    """
    known = all_rivals()
    unknown = [name for name in names or () if not any(k.startswith(name) for k in known)]
    if unknown:
        raise ValueError(f"unknown rivals {unknown}; known are {list(known)}")
    asked = {
        name: rival for name, rival in known.items()
        if rival.is_ours or not names or any(name.startswith(n) for n in names)
    }  # fmt: skip
    missing = {name: rival.missing for name, rival in asked.items() if rival.missing}
    return {name: (r, None) for name, r in asked.items() if name not in missing}, missing
