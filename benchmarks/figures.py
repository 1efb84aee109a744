"""Figures that other pages quote: their tables, made from those of docs/benchmarks.md.

The page of benchmarks is the one source. `--publish` of a run writes it and then the tables of
the other pages; `python -m benchmarks figures` writes those alone.
"""

import re
from typing import NamedTuple

from benchmarks.report import PAGE, ROOT, placed

SECTION = "### Against every rival"
OTHER_RUN = "### Other libraries"  # its figures are of another commit
README = ROOT / "README.md"
SOLVERS = ROOT / "docs" / "solvers.md"
TARGET = "0.001"

README_HEADER = (
    "| data | n × features × classes | raw: skfc | raw: peer | standardised: skfc | "
    "standardised: peer |\n|---|---|---:|---:|---:|---:|"
)
SOLVERS_HEADER = (
    "| data | n × features × classes | C | to | skfc | best peer | its seconds |\n"
    "|---|---|---:|---:|---:|---|---:|"
)
# What the README shows, in this order: data, and what to say of it.
SHOWN = {
    "letter": "", "covtype_kaggle": "", "satimage": "", "winequality_white": "", "optdigits": "",
    "usps": "", "isolet_sf": "", "mnist": "", "clinc150": ", sparse", "news20": ", sparse",
}  # fmt: skip
SPARSE = ("clinc150", "news20")


class Figure(NamedTuple):
    """One cell of the page: strings as they stand there."""

    shape: str
    seconds: str
    rival: str  # "none" where none arrived
    its: str  # its seconds, or when all were stopped
    ratio: str


def rows_of(text):
    """Cells of the rows of all tables of a page, without backquotes."""
    lines = re.findall(r"^\|(.+)\|$", text, re.MULTILINE)
    return [[cell.strip().strip("`") for cell in line.split("|")] for line in lines]


def published(page):
    """{(problem, C, target): Figure} of the page of benchmarks."""
    text = page[page.index(SECTION) :].partition(OTHER_RUN)[0]
    stopped, found = {}, {}
    for cells in rows_of(text):
        if match := re.fullmatch(r"(\S+), C=(\S+), (\S+)", cells[0]):
            stopped[match.groups()] = min(cells[2:], key=lambda s: not s.startswith(">"))
    sections = r"^#### To (\S+) of the optimum\n(.*?)(?=^###)"
    for target, part in re.findall(sections, text, re.MULTILINE | re.DOTALL):
        for problem, shape, seconds, _, rival, its, ratio in rows_of(part)[2:]:
            name, C = problem.split(", C=")
            key, rival = (name, C, target), rival.removeprefix("logistic-")
            found.setdefault(key, Figure(shape, seconds, rival, its or stopped[key], ratio))
    return found


def commit(page):
    """The commit that the figures are of."""
    return re.search(rf"{SECTION}.*?commit (\w{{7}})", page, re.DOTALL)[1]


def readme_table(figures):
    """A row for each problem of `SHOWN`, raw and standardised, at C = 1."""
    lines = [README_HEADER]
    for name, note in SHOWN.items():
        raw, scaled = (figures.get((n, "1", TARGET)) for n in (name, f"{name}:std"))
        pairs = (raw.seconds, raw.its, *((scaled.seconds, scaled.its) if scaled else ("", "")))
        lines.append(row(f"`{name}`{note}", raw.shape, *pairs))
    return "\n".join(lines)


def solvers_table(figures):
    """A row for every C and target of the sparse problems."""
    lines = [SOLVERS_HEADER]
    for (name, C, target), of in sorted(figures.items(), key=lambda item: by_number(item[0])):
        if name in SPARSE:
            cells = of.shape, C, target, of.seconds, f"`{of.rival}`", of.its
            lines.append(row(f"`{name}`", *cells))
    return "\n".join(lines)


def row(*cells):
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


def by_number(key):
    """Problems by name, C from small to large, targets from loose to tight."""
    name, C, target = key
    return name, float(C), -float(target)


def filled(text, page, make):
    """`text` of a page with the figures of the `page` of benchmarks and their commit's name."""
    text = placed(text, "figures", f"\n{make(published(page))}\n\n")
    return re.sub(r"(?<=ommit )[0-9a-f]{7}\b", commit(page), text)


QUOTING = {README: readme_table, SOLVERS: solvers_table}


def main(args=None):
    """Write the tables of the pages that quote figures."""
    page = PAGE.read_text("utf-8")
    for path, make in QUOTING.items():
        path.write_text(filled(path.read_text("utf-8"), page, make), "utf-8")
