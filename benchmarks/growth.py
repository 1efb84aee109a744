"""How cost grows with rows, features and classes."""

from statistics import median

from benchmarks import problems, report, runner
from benchmarks.rivals import all_rivals

TOL = 1e-6
# What grows, from which point (n, N, T), through which values.
SERIES = {
    "n": ((None, 50, 10), (1000, 10_000, 100_000, 1_000_000)),
    "N": ((5000, None, 10), (10, 30, 100, 300, 1000, 2000, 4000)),
    "T": ((10_000, 50, None), (2, 5, 10, 30, 100, 300, 1000)),
}
QUICK = {
    "n": ((None, 20, 5), (1000, 4000, 16_000)),
    "N": ((1000, None, 5), (10, 40, 160)),
    "T": ((2000, 20, None), (2, 8, 32)),
}


def main(args):
    """Passes and seconds of a fit at its default tol, on generated data."""
    series = {}
    skfc = all_rivals()["skfc"]
    limit = 60 if args.quick else 600
    with runner.Field({"skfc": (skfc, None)}) as field:
        for what, (point, values) in (QUICK if args.quick else SERIES).items():
            series[what] = [row(field, point, value, limit) for value in values]
    header = ["grows", "n", "N", "T", "passes", "seconds", "ms per pass"]
    rows = [
        [what, r["n"], r["N"], r["T"], report.short(r["passes"]), report.short(r["seconds"]),
         report.short(r["seconds"] / r["passes"] * 1e3 if r["passes"] else None)]
        for what, found in series.items() for r in found
    ]  # fmt: skip
    text = f"Generated data, singular values 1/k, C = 1, tol = {TOL:g}.\n\n"
    text += report.table(header, rows)
    print(report.write(args.out, "growth", report.environment(), series, text,
                       publish=args.publish))  # fmt: skip
    report.draw_growth(series, args.out)


def row(field, point, value, limit):
    """The measurement at `point` with `value` in the place left open."""
    n, N, T = (value if size is None else size for size in point)
    problem = problems.load(f"gen-{n}x{N}x{T}")
    field.take(problem)
    runs = [field.run("skfc", problem, 1.0, TOL, limit)]
    for _ in range(runner.n_repeats(runs[0].seconds) - 1):
        runs.append(field.run("skfc", problem, 1.0, TOL, limit))
    seconds = median(run.seconds for run in runs)
    field.log(f"  {problem}: {seconds:.3g} s {runs[0].note}")
    return {"n": n, "N": N, "T": T, "passes": runs[0].passes, "seconds": seconds,
            "note": runs[0].note}  # fmt: skip
