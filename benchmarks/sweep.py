"""Everybody on every problem, to the targets: the run itself."""

import time

import numpy as np

from benchmarks import problems, report, runner


def options(args):
    if args.quick:
        return runner.Options(args.targets, limit=10, cap=args.cap, floor=0.5)
    return runner.Options(args.targets, cap=args.cap)


def cases(args):
    """Pairs (name, C) to solve."""
    names = args.problems or (problems.QUICK if args.quick else problems.FULL)
    for name in names:
        one = args.quick or name.partition(":")[0] in problems.ONE_C
        yield name, args.Cs or ((1.0,) if one else (0.01, 1.0, 100.0))


def sweep(args, field, *, ours="skfc", budget=np.inf, save=lambda cells: None):
    """Cells of all cases, and why problems are not among them. Interrupt to end early."""
    cells, unavailable, begin = [], {}, time.perf_counter()
    todo = list(cases(args))
    try:
        for i, (name, Cs) in enumerate(todo, start=1):
            try:
                problem = problems.load(name, args.data, np.dtype(args.dtype))
            except problems.Unavailable as error:
                unavailable[name] = str(error)
                field.log(f"[{i}/{len(todo)}] {name}: {error}")
                continue
            declined = field.take(problem)
            for C in Cs:
                spent = time.perf_counter() - begin
                if spent > budget:
                    unavailable[f"{name}, C={C:g}"] = "no time left for it"
                    continue
                field.log(f"[{i}/{len(todo)}, {spent:.0f} s] {problem}, C={C:g}")
                cells.append(runner.measure(problem, C, field, options(args), ours=ours,
                                            declined=declined))  # fmt: skip
                save(cells)
    except KeyboardInterrupt:
        unavailable["the rest"] = "interrupted"
    return cells, unavailable


def main(args):
    """Everybody against everybody, to the targets."""
    contestants, missing = runner.contest(args.rivals)
    rivals = [name for name, (rival, _) in contestants.items() if not rival.is_ours]
    told = report.environment(rival for rival, _ in contestants.values())
    begin = time.perf_counter()

    def save(cells):
        data = {"cells": [cell.to_json() for cell in cells], "missing": missing}
        report.write(args.out, "run", told, data, "")

    with runner.Field(contestants) as field:
        for name, why in missing.items():
            field.log(f"  {name} is left out: {why}")
        # Half a minute is kept for a last cell that was begun in time, and the pictures.
        budget = 135 - (time.perf_counter() - begin) if args.quick else np.inf
        cells, unavailable = sweep(args, field, budget=budget, save=save)
    data = {"cells": [cell.to_json() for cell in cells], "missing": missing}
    text = report.run_markdown(cells, args.targets, rivals, missing, unavailable, cap=args.cap)
    print(report.write(args.out, "run", told, data, text, publish=args.publish))
    report.draw_run(cells, args.out)
