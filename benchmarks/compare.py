"""Two revisions of skfc in alternation: `python -m benchmarks compare OLD NEW`."""

import contextlib
import subprocess
import tempfile
from pathlib import Path

from benchmarks import report, runner
from benchmarks.rivals import all_rivals
from benchmarks.sweep import sweep


@contextlib.contextmanager
def checkout(revision):
    """A folder with `revision`; "." is the working tree as it is."""
    if revision == ".":
        yield report.ROOT
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tree").resolve()
        git = ["git", "-C", str(report.ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", "--quiet", str(path), revision], check=True)
        try:
            yield path
        finally:
            subprocess.run([*git, "remove", "--force", str(path)], check=True)


def main(args):
    """Ratios above one mean that the second revision is the faster."""
    old, new = args.revisions
    names = [f"{old} (old)", f"{new} (new)"]
    skfc = all_rivals()["skfc"]
    with checkout(old) as first, checkout(new) as second:
        contestants = dict(zip(names, [(skfc, first), (skfc, second)], strict=True))
        with runner.Field(contestants) as field:
            cells, unavailable = sweep(args, field, ours=names[1])
    told = report.environment()
    commits = [
        told["commit"] if r == "." else report.git("rev-parse", "--short=12", r)
        for r in args.revisions
    ]
    told["commit"] = " against ".join(commits)
    text = report.run_markdown(
        cells, args.targets, names[:1], {}, unavailable, ours=names[1], cap=args.cap
    )
    data = {"cells": [cell.to_json() for cell in cells]}
    print(report.write(args.out, "compare", told, data, text))
