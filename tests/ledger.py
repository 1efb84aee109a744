"""A ledger of passes: what fits cost when the ledger was last written.

`python -m tests.ledger` fits the table again and writes `ledger.json`, a line per fit;
`test_ledger.py` holds every later fit to it.
"""

import json
import sys
from itertools import product
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

from golden import FOLDER, case, measure

FILE = FOLDER / "ledger.json"
COLUMNS = ["passes", "iterations", "products"]
# Solvers beside "auto": those that "auto" does not choose.
SOLVERS = {
    "iris": ("lbfgs", "newton-cg", "gd"),
    "wine": ("lbfgs", "newton-cg", "gd"),
    "cancer": ("lbfgs", "newton-cg", "gd"),
    "9000 x 15": ("newton-cg", "gd", "sgd"),
    "digits": ("lbfgs", "gd"),
    "wide": ("lbfgs", "gd"),
    "6000 x 60": ("lbfgs", "gd"),
    "few words": ("lbfgs", "gd", "sgd"),
}
# The order of rows is drawn.
OPTIONS = {"sgd": {"random_state": 0}}
CASES = [
    case(problem, C, tol, solver=solver, **OPTIONS.get(solver, {}))
    for problem, others in SOLVERS.items()
    for solver, C, tol in product(("auto", *others), (0.01, 1.0, 100.0), (1e-3, 1e-6))
]


def cost(case):
    """The numbers of `COLUMNS`."""
    found = measure(case)
    return [found.passes, found.n_iter, found.products]


def bounds(numbers):
    """What a fit may cost: a tenth and one more than was written."""
    return [1.1 * number + 1 for number in numbers]


def write():
    """Fit the table and write what it cost."""
    rows = {"columns": COLUMNS} | {case.name: cost(case) for case in CASES}
    lines = [f"{json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items()]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")


def read():
    """Costs by the names of the cases."""
    rows = json.loads(FILE.read_text("utf-8"))
    del rows["columns"]
    return rows


if __name__ == "__main__":
    write()
