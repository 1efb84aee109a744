"""Counts of faults over all problems, and by what the problems are made of."""

from statistics import median

from benchmarks import report

FAULTS = {
    "silent": "gap > 10 tol, no warning",
    "silent, minimum zero": "objective > 1e-5 where the minimum is <= 1e-6, no warning",
    "unbounded, silent": "C = inf, (quasi-)separable classes, no warning",
    "needless warning": "a warning, and gap <= tol (not where nothing bounds the coefficients)",
    "estimate low": "optimality_gap_ < gap / 10, gap > 1e-9",
    "estimate high": "optimality_gap_ > 10 gap and > tol",
    "bound broken": "l1_ratio > 0, optimality_gap_ < gap",
    "estimate zero": "optimality_gap_ is 0, gap > 1e-9",
    "not finite": "NaN or infinity in the coefficients",
    "exception": "an exception",
    "time": "more than the limit of time",
    "slow": "n > 2000, more than 30 times the median seconds per n N T",
    "unsettled": "the reference has not proven its minimum",
}
# Problems of more rows are timed against one another.
LONG, SLOW = 2000, 30


def mark_slow(records):
    """Add "slow" to the faults of those far from the median of the processor's time per n N T."""
    timed = [r for r in records if r["n"] > LONG and "time" not in r["faults"]]
    rates = [r["seconds"] / (r["n"] * r["N"] * r["T"]) for r in timed]
    rate = median(rates) if timed else 0.0
    for r, own in zip(timed, rates, strict=True):
        r["slowness"] = own / rate
        if r["slowness"] > SLOW and "slow" not in r["faults"]:
            r["faults"] = [*r["faults"], "slow"]


def count(records, fault):
    return sum(fault in r["faults"] for r in records)


def share(records, fault):
    found = count(records, fault)
    return f"{found} ({100 * found / len(records):.1f} %)" if records else "0"


def totals(records):
    """One row per kind of fault, float64 and float32 apart."""
    double = [r for r in records if r["dtype"] == "float64"]
    single = [r for r in records if r["dtype"] == "float32"]
    rows = [["problems", len(double), len(single)]]
    counted = [[r for r in part if r.get("minimum", 1) > 1e-6] for part in (double, single)]
    rows.append(["of these with a minimum > 1e-6", *map(len, counted)])
    for fault, meaning in FAULTS.items():
        rows.append([f"{fault}: {meaning}", share(double, fault), share(single, fault)])
    return report.table(["", "float64", "float32"], rows)


def size_class(r):
    for top in (250, 600, 2000, 5000, 20_000):
        if r["n"] <= top:
            return f"<= {top}"
    return "> 20000"


def strength(r):
    if r["C"] == float("inf"):
        return "inf"
    for top in (1e-8, 1e-4, 1e-1, 1e1):
        if r["C"] <= top:
            return f"<= {top:g}"
    return "> 10"


def method(r):
    if "solver_asked" in r:
        return f"{r['solver_asked']}, {r['preconditioner_asked']}"
    return "auto" + (f" -> {r['solver']}" if "solver" in r else "")


GROUPS = {
    "container": lambda r: [r["container"]],
    "dtype": lambda r: [r["dtype"]],
    "shape": lambda r: [r["size"]],
    "rows": lambda r: [size_class(r)],
    "method": lambda r: [method(r)],
    "tol": lambda r: [f"{r['tol']:g}"],
    "l1_ratio": lambda r: [f"{r.get('l1_ratio', 0):g}"],
    "C": lambda r: [strength(r)],
    "weights": lambda r: [r["weights"]],
    "targets": lambda r: [r["targets"]],
    "column": lambda r: r["columns"],
}
SHOWN = ("silent", "estimate low", "estimate high", "needless warning", "slow")


def breakdown(records):
    """The same counts by container, dtype, rows, method, tol, C, weights, targets, columns."""
    rows = []
    for name, of in GROUPS.items():
        for value in sorted({v for r in records for v in of(r)}):
            part = [r for r in records if value in of(r)]
            cells = [share(part, "silent"), *(count(part, fault) for fault in SHOWN[1:])]
            rows.append([f"{name}: {value}", len(part), *cells])
    return report.table(["", "problems", *SHOWN], rows)


def worst(records, most=20):
    """The silent failures, the largest gap / tol first."""
    silent = [r for r in records if "silent" in r["faults"]]
    silent.sort(key=lambda r: -r["gap"] / r["tol"])
    rows = [
        [f"{r['seed']}:{r['index']}", f"{r['n']}×{r['N']}×{r['T']}", f"{r['gap']:.1e}",
         f"{r['estimate']:.1e}", f"{r['tol']:g}", r["n_iter"], method(r), r["container"],
         r["dtype"], f"{r['C']:.1e}", r["weights"], ", ".join(r["columns"])]
        for r in silent[:most]
    ]  # fmt: skip
    header = ["--show", "n×N×T", "gap", "optimality_gap_", "tol", "iterations", "method",
              "container", "dtype", "C", "weights", "columns"]  # fmt: skip
    return report.table(header, rows)


def markdown(records):
    return "\n\n".join([totals(records), breakdown(records), worst(records)])
