"""Tables, pictures, JSON: what a measurement leaves behind."""

import json
import math
import os
import platform
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import scipy
import sklearn

from benchmarks.runner import NO_TIME

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"


def git(*arguments):
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def environment(rivals=()):
    """Commit, versions and machine of this run, as a flat dict."""
    commit = git("rev-parse", "--short=12", "HEAD")
    if git("status", "--porcelain", "--", "skfc"):
        commit += " with uncommitted changes"
    versions = {rival.distribution: rival.version for rival in rivals if not rival.missing}
    return {
        "commit": commit, "date": date.today().isoformat(), "python": platform.python_version(),
        "numpy": np.__version__, "scipy": scipy.__version__, "scikit-learn": sklearn.__version__,
        **versions, "machine": platform.machine(),
        "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1),
        **{k: v for k, v in os.environ.items() if k.endswith("_NUM_THREADS")},
    }  # fmt: skip


def table(header, rows):
    """A Markdown table; the first column is text, the others numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def short(seconds):
    return "" if seconds is None else f"{seconds:.3g}"


def geometric_mean(ratios):
    return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else math.nan


def where(cell):
    return f"{cell.problem}, C={cell.C:g}"


def run_markdown(cells, targets, rivals, missing, unavailable, *, ours="skfc", cap=20.0):
    """The report of a run: ratios, all times, and what was left out."""
    parts = []
    for target in targets:
        rows, ratios = [], {}
        for cell in cells:
            ratio = cell.ratio(target, ours, rivals, cap)
            own, best = cell.times[target].get(ours, {}), cell.best(target, rivals)
            theirs = cell.times[target].get(best, {})
            if ratio is not None:
                ratios[where(cell)] = ratio
            rows.append([
                where(cell), "×".join(map(str, cell.shape)), short(own.get("median")) or "never",
                short(own.get("passes")), best or "none", short(theirs.get("median")),
                "" if ratio is None else f"{ratio:.2f}",
            ])  # fmt: skip
        header = ["problem", "n×N×T", f"{ours} s", "passes", "best rival", "its s", "ratio"]
        slower = [f"{place} ({ratio:.2f})" for place, ratio in ratios.items() if ratio < 1]
        parts += [
            f"#### To {target:g} of the optimum", table(header, rows),
            f"Geometric mean of {len(ratios)} ratios: **{geometric_mean(ratios.values()):.2f}**. "
            f"Slower than the best rival: {', '.join(slower) or 'none'}.",
        ]  # fmt: skip
    names = list(dict.fromkeys(name for cell in cells for name in cell.runs))
    rows = [
        [f"{where(cell)}, {target:g}", *(outcome(cell, target, name) for name in names)]
        for cell in cells for target in targets
    ]  # fmt: skip
    parts += ["#### Seconds of everybody", table(["problem, target", *names], rows)]
    parts += ["#### Left out", "\n".join(left_out(cells, missing, unavailable)) or "Nothing."]
    return "\n\n".join(parts)


def outcome(cell, target, name):
    """Median seconds, or why there are none."""
    if name in cell.times[target]:
        return short(cell.times[target][name]["median"])
    runs = cell.runs.get(name)
    if not runs:
        return "–"
    note = runs[-1].note
    told = {"": "never", "stopped": f">{short(runs[-1].seconds)}", NO_TIME: NO_TIME}
    return told.get(note, "failed")


def left_out(cells, missing, unavailable):
    reasons = {}
    for cell in cells:
        for name, why in cell.declined.items():
            reasons.setdefault((name, why), []).append(cell.problem)
        for name, runs in cell.runs.items():
            if runs and runs[-1].note not in ("", "stopped", NO_TIME):
                reasons.setdefault((name, runs[-1].note), []).append(where(cell))
    yield from (f"- {name}: {why}." for name, why in {**missing, **unavailable}.items())
    for (name, why), places in reasons.items():
        yield f"- {name}, on {', '.join(dict.fromkeys(places))}: {why}."


def write(folder, name, environment, data, markdown, *, publish=False):
    """Write NAME.json and NAME.md to `folder`, and the tables into the page of results."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    record = {"environment": environment, "data": data}
    (folder / f"{name}.json").write_text(json.dumps(record, indent=1, default=str) + "\n")
    told = ", ".join(f"{key} {value}" for key, value in environment.items())
    markdown = f"{markdown}\n\nMeasured with: {told}.\n"
    (folder / f"{name}.md").write_text(markdown)
    if publish:
        PAGE.write_text(placed(PAGE.read_text(), name, markdown))
    return markdown


def placed(page, name, markdown):
    """`page` with what stands between the marks of section `name` replaced."""
    pattern = rf"(<!-- {name} -->\n).*?(<!-- end {name} -->)"
    filled, count = re.subn(pattern, lambda m: f"{m[1]}{markdown}{m[2]}", page, flags=re.DOTALL)
    if not count:
        raise ValueError(f"the page has no marks <!-- {name} --> … <!-- end {name} -->")
    return filled


def pyplot():
    """`matplotlib.pyplot` without a display, or None where it is not installed."""
    try:
        import matplotlib
    except ImportError:
        print("matplotlib is not installed: no pictures", file=sys.stderr)
        return None
    matplotlib.use("agg")
    from matplotlib import pyplot

    return pyplot


def draw_run(cells, folder):
    """Suboptimality against seconds and against passes, a picture for every cell."""
    plt = pyplot()
    if plt is None:
        return
    for cell in cells:
        figure, axes = plt.subplots(1, 2, figsize=(12, 4.5), sharey=True)
        for i, (name, runs) in enumerate(cell.runs.items()):
            style = {"marker": "o", "ms": 3, "color": f"C{i % 10}"}
            style |= {"lw": 2.5 if name == "skfc" else 1, "ls": ("-", "--", ":")[i // 10 % 3]}
            for ax, what in zip(axes, ("seconds", "passes"), strict=True):
                seen = [(getattr(r, what), max(r.gap, 1e-12)) for r in runs if not r.note]
                seen = [(x, gap) for x, gap in seen if x is not None and math.isfinite(gap)]
                seen.sort(key=lambda point: -point[1])
                if seen:
                    ax.plot(*zip(*seen, strict=True), label=name, **style)
        for ax, what in zip(axes, ("seconds of a whole fit", "passes over X"), strict=True):
            ax.set(xscale="log", yscale="log", xlabel=what)
            ax.grid(alpha=0.3)
        axes[0].set_ylabel("(F - F*) / F*")
        axes[1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
        figure.suptitle(where(cell))
        figure.tight_layout()
        figure.savefig(Path(folder, re.sub(r"\W+", "-", where(cell)) + ".png"), dpi=110)
        plt.close(figure)


def draw_growth(series, folder):
    """Passes (above) and seconds (below) against what grows, log-log."""
    plt = pyplot()
    if plt is None:
        return
    words = {"n": "rows n", "N": "features N", "T": "classes T"}
    figure, axes = plt.subplots(
        2, len(series), figsize=(3.4 * len(series), 5), sharex="col", sharey="row", squeeze=False
    )
    for (above, below), (what, rows) in zip(axes.T, series.items(), strict=True):
        sizes = [row[what] for row in rows]
        above.plot(sizes, [row["passes"] for row in rows], "o-", color="#0b6fa4")
        below.plot(sizes, [row["seconds"] for row in rows], "s-", color="#c1272d")
        fixed = [f"{other} = {rows[0][other]}" for other in words if other != what]
        above.set(title=f"more {words[what][:-2]}\n{', '.join(fixed)}", xscale="log")
        below.set(xlabel=words[what], xscale="log", yscale="log")
        for ax in (above, below):
            ax.grid(alpha=0.3)
    axes[0, 0].set(ylabel="passes over X", ylim=(0, None))
    axes[1, 0].set_ylabel("seconds of a fit")
    figure.tight_layout()
    figure.savefig(Path(folder, "growth.png"), dpi=200)
    plt.close(figure)
