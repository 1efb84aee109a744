"""The command: many problems, or one of them in detail."""

import json
import multiprocessing
import sys
from functools import partial
from itertools import product

from benchmarks import report
from benchmarks.hostile import tables
from benchmarks.hostile.judge import judge
from benchmarks.hostile.problems import make


def one(which, *, seed, seconds):
    """The flat record of one problem: its index and ratio of absolute values."""
    index, ratio = which
    problem = make(seed, index, l1_ratio=ratio)
    n, N = problem.X.shape
    asked = {f"{k}_asked" if k in ("solver", "preconditioner") else k: v
             for k, v in problem.parameters.items()}  # fmt: skip
    known = {"seed": seed, "index": index, "n": n, "N": N, "T": problem.n_classes}
    return {**known, "work": problem.work, **problem.made_of, **asked, **judge(problem, seconds)}


def show(name, seconds, ratio):
    """Print all that is known of the problem SEED:INDEX, or SEED:INDEX:SIZE as in the tests."""
    seed, index, *size = name.split(":")
    problem = make(int(seed), int(index), *size, l1_ratio=ratio)
    print(problem)
    for key, value in judge(problem, seconds).items():
        print(f"  {key}: {value}")


def records_of(args):
    """Records of all problems, as they come."""
    task = partial(one, seed=args.seed, seconds=args.limit)
    indices = list(product(range(60 if args.quick else args.n), args.l1_ratios or (None,)))
    if args.jobs == 1:
        yield from map(task, indices)
        return
    with multiprocessing.get_context("spawn").Pool(args.jobs) as pool:
        yield from pool.imap_unordered(task, indices)


def main(args):
    """Fit the problems, write one JSON line for each, and the tables."""
    if args.show:
        for ratio in args.l1_ratios or (None,):
            show(args.show, args.limit, ratio)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    records = []
    with open(args.out / "hostile.jsonl", "w") as lines:
        for record in records_of(args):
            records.append(record)
            print(json.dumps(record), file=lines, flush=True)
            told = ", ".join(record["faults"]) or "good"
            ratio = f" l1_ratio={record['l1_ratio']:g}" if args.l1_ratios else ""
            print(f"{args.seed}:{record['index']}{ratio} {record['seconds']:.2f} s {told}",
                  file=sys.stderr, flush=True)  # fmt: skip
    tables.mark_slow(records)
    records.sort(key=lambda r: (r["index"], r.get("l1_ratio", 0)))
    print(report.write(args.out, "hostile", report.environment(), records,
                       tables.markdown(records), publish=args.publish))  # fmt: skip
