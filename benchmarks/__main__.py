"""The command line: `python -m benchmarks`."""

import argparse
import importlib
import os
import signal
import sys
from pathlib import Path

# A command is the `main` of its module, which is imported when it is asked for: `compare`
# decides first which skfc is imported.
COMMANDS = {
    "run": "skfc beside its rivals (the default)",
    "compare": "two revisions of skfc in alternation",
    "growth": "passes and seconds as rows, features and classes grow",
    "memory": "peak memory of a fit",
    "cores": "seconds by the number of threads, beside solvers of scikit-learn",
    "grid": "a search over C by cross-validation",
    "figures": "the tables of README and docs/solvers.md, from docs/benchmarks.md",
    "streams": "one pass of partial_fit beside a fit, SGDClassifier and MLPClassifier",
    "clusters": "fits of Dask collections beside a fit in memory",
    "l1": "L1 fits beside saga",
    "probe": "a linear probe on tensors beside PyTorch's optimisers and scikit-learn",
    "checks": "default fits of small data, predict_proba, import time",
    "ablate": "what every measured threshold is worth",
    "unseen": "data that the rules were not made on, and one data set left out at a time",
    "hostile": "random hostile problems against the minimum in extended precision",
}
MODULES = {"run": "sweep"}


def numbers(text):
    return tuple(float(part) for part in text.split(","))


def words(text):
    return tuple(part for part in text.split(",") if part)


def parse(arguments=None):
    common = argparse.ArgumentParser(add_help=False)
    add = common.add_argument
    add("--quick", action="store_true", help="small, offline, within three minutes")
    add(
        "--data",
        metavar="FOLDER",
        default=os.environ.get("SKFC_DATA"),
        help="folder of NAME.npz files, used before a download (default: $SKFC_DATA)",
    )
    add("--out", metavar="FOLDER", type=Path, default=Path("build/benchmarks"))
    add("--publish", action="store_true", help="put the tables into docs/benchmarks.md")
    add("--problems", type=words, help="names, e.g. letter,letter:std,gen-5000x30x4")
    add("--C", type=numbers, dest="Cs", help="default: 0.01,1,100; with --quick: 1")
    add("--targets", type=numbers, default=(1e-3, 1e-6), help="relative suboptimality")
    add("--rivals", type=words, help="names or their beginnings (default: all)")
    add("--dtype", choices=("float32", "float64"), default="float64")
    add(
        "--cap",
        type=float,
        default=20.0,
        help="a rival slower than this many times ours is stopped, and counts as this",
    )
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, parents=[common], help=text)
        if name == "compare":
            command.add_argument("revisions", nargs=2, metavar="REVISION")
        if name == "ablate":
            command.add_argument("--fields", type=words, help="of Tuned (default: all)")
            command.add_argument("--repeats", type=int, default=3, help="0: passes alone")
        if name == "probe":
            command.add_argument("--rows", type=int, default=1_000_000)
            command.add_argument("--features", type=int, default=1024)
            command.add_argument("--classes", type=int, default=1000)
            command.add_argument("--device", default="cpu", help='as PyTorch names it: "cuda"')
        if name == "hostile":
            command.add_argument("--n", type=int, default=1000, help="number of problems")
            command.add_argument("--seed", type=int, default=0)
            command.add_argument("--jobs", type=int, default=1, help="processes")
            command.add_argument(
                "--l1-ratio", type=numbers, dest="l1_ratios", help="elastic nets, e.g. 0.5,1"
            )
            command.add_argument("--limit", type=float, default=60.0, help="seconds of a fit")
            command.add_argument(
                "--show", metavar="SEED:INDEX[:SIZE]", help="one problem, in detail"
            )
    given = sys.argv[1:] if arguments is None else list(arguments)
    if not given or given[0] not in (*COMMANDS, "-h", "--help"):
        given = ["run", *given]
    return parser.parse_args(given)


if __name__ == "__main__":
    args = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends contestants on the way
    importlib.import_module(f"benchmarks.{MODULES.get(args.command, args.command)}").main(args)
