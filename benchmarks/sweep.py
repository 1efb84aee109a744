"""Everybody on every problem, to the targets: the run itself."""

import math
import time

import numpy as np

from benchmarks import figures, problems, report, runner

# Seconds of a quick run; the last repeats and the pictures come on top.
QUICK = 130.0


def cases(args):
    """Pairs (name, C) to solve."""
    names = args.problems or (problems.QUICK if args.quick else problems.FULL)
    for name in names:
        one = args.quick or name.partition(":")[0] in problems.ONE_C
        for C in args.Cs or ((1.0,) if one else (0.01, 1.0, 100.0)):
            yield name, C


def sweep(args, field, *, ours="skfc", end=math.inf, save=lambda cells: None):
    """Cells of all cases, and why some are missing. Interrupt it to end early.

    What is left until `end`, of `time.perf_counter`, is shared by the cells that are left.
    """
    cells, unavailable, todo = [], {}, list(cases(args))
    problem, begin = None, time.perf_counter()
    limit, floor = (10, 0.3) if args.quick else (600, 1)
    try:
        for i, (name, C) in enumerate(todo):
            now = time.perf_counter()
            place = f"[{i + 1}/{len(todo)}, {now - begin:.0f} s]"
            if name in unavailable:
                continue
            try:
                if problem is None or problem.name != name:
                    problem = problems.load(name, args.data, np.dtype(args.dtype))
                    declined = field.take(problem)
            except problems.Unavailable as error:
                unavailable[name] = str(error)
                field.log(f"{place} {name}: {error}")
                continue
            field.log(f"{place} {problem}, C={C:g}")
            share = (end - now) / (len(todo) - i)
            options = runner.Options(args.targets, limit, args.cap, floor, share)
            cells.append(runner.measure(problem, C, field, options, ours=ours, declined=declined))
            save(cells)
    except KeyboardInterrupt:
        unavailable["the rest"] = "interrupted"
    return cells, unavailable


def main(args):
    """Everybody against everybody, to the targets."""
    contestants, missing = runner.contest(args.rivals)
    rivals = [name for name, (rival, _) in contestants.items() if not rival.is_ours]
    told = report.environment(rival for rival, _ in contestants.values())
    end = time.perf_counter() + (QUICK if args.quick else math.inf)

    def save(cells):
        data = {"cells": [cell.to_json() for cell in cells], "missing": missing}
        report.write(args.out, "run", told, data, "")

    with runner.Field(contestants) as field:
        for name, why in missing.items():
            field.log(f"  {name} is left out: {why}")
        cells, unavailable = sweep(args, field, end=end, save=save)
    data = {"cells": [cell.to_json() for cell in cells], "missing": missing}
    text = report.run_markdown(cells, args.targets, rivals, missing, unavailable, cap=args.cap)
    print(report.write(args.out, "run", told, data, text, publish=args.publish))
    if args.publish:
        figures.main()
    report.draw_run(cells, args.out)
