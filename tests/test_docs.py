"""The documentation is true: its code runs, its links resolve, no public name is missing."""

import doctest
import inspect
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from pydoc import ErrorDuringImport, locate

import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris

import skfc

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
EXAMPLES = sorted(ROOT.glob("examples/*.py"))
ESTIMATORS = [
    getattr(skfc, name) for name in skfc.__all__ if isinstance(getattr(skfc, name), type)
]

# Pages about a parameter that the estimators do not have yet; their code runs once they have it.
AHEAD = {ROOT / "docs" / "standardize.md": "standardize"}
PARAMETERS = inspect.signature(skfc.SoftmaxFCClassifier).parameters

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


def name_of(path):
    return str(path.relative_to(ROOT))


def without_code(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page):
    """Anchors of the headings of a page, spelled as repository hosts spell them."""
    titles = HEADING.findall(without_code(page.read_text("utf-8")))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_resolve(page):
    for link in LINK.findall(without_code(page.read_text("utf-8"))):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link}: no such file"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


def test_pages_are_reachable():
    """Every page of docs/ and every example is linked from another page."""
    linked = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in PAGES
        for link in LINK.findall(without_code(page.read_text("utf-8")))
        if not link.startswith("#")
    }
    pages = set(ROOT.glob("docs/**/*.md")) - {ROOT / "docs" / "index.md"}
    assert not (pages | set(EXAMPLES)) - linked


def blocks(page):
    """(line, code) of the python blocks of a page."""
    text = page.read_text("utf-8")
    for match in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield text[: match.start(1)].count("\n"), match[1]


def runs(page):
    return any(blocks(page)) and AHEAD.get(page, "C") in PARAMETERS


@pytest.mark.parametrize("page", [*filter(runs, PAGES)], ids=name_of)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for line, code in blocks(page):
        if not code.startswith(">>>"):
            exec(compile("\n" * line + code, page, "exec"), namespace)
            continue
        test = doctest.DocTestParser().get_doctest(code, {}, page.name, str(page), line)
        test.globs = namespace
        report = []
        result = doctest.DocTestRunner().run(test, out=report.append, clear_globs=False)
        assert result.failed == 0, "".join(report)


@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_examples_run(example, tmp_path):
    """Each in a process of its own, without a display, warnings as errors."""
    environment = os.environ | {
        "MPLBACKEND": "Agg",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    subprocess.run(
        [sys.executable, "-W", "error", str(example)], cwd=tmp_path, env=environment, check=True
    )
    assert [*tmp_path.glob("*.png"), *tmp_path.glob("*.svg")], "no picture"


def table_rows(text):
    """Cells of the rows of all tables of a page, without backquotes."""
    lines = re.findall(r"^\|(.+)\|$", without_code(text), re.MULTILINE)
    return [[cell.strip().strip("`") for cell in line.split("|")] for line in lines]


@pytest.fixture(scope="module")
def measured():
    """{(problem, C, target): (shape, seconds, rival, its seconds)} of the page of benchmarks.

    Where no rival arrived its name is "none" and its seconds are where all were stopped.
    """
    page = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    start = page.index("### Dense, raw and standardised")
    stopped, found = {}, {}
    for cells in table_rows(page[start:]):
        if match := re.fullmatch(r"(\S+), C=(\S+), (\S+)", cells[0]):
            stopped[match.groups()] = min(cells[2:], key=lambda s: not s.startswith(">"))
    for target, section in re.findall(
        r"^#### To (\S+) of the optimum\n(.*?)(?=^###)", page[start:], re.MULTILINE | re.DOTALL
    ):
        for problem, shape, seconds, _, rival, its, _ in table_rows(section)[2:]:
            name, C = problem.split(", C=")
            key = name, C, target
            rival = rival.removeprefix("logistic-")
            found.setdefault(key, (shape, seconds, rival, its or stopped[key]))
    return found


def test_figures_of_the_readme_are_those_of_the_benchmarks(measured):
    rows = [r for r in table_rows((ROOT / "README.md").read_text("utf-8")) if "×" in r[1]][1:]
    assert rows
    for name, shape, *seconds in rows:
        name = name.partition("`")[0]
        raw, scaled = measured[name, "1", "0.001"], measured.get((f"{name}:std", "1", "0.001"))
        assert shape == raw[0]
        expected = [raw[1], raw[3], *((scaled[1], scaled[3]) if scaled else ("", ""))]
        assert seconds == expected, name


def test_figures_of_the_solvers_page_are_those_of_the_benchmarks(measured):
    page = (ROOT / "docs" / "solvers.md").read_text("utf-8")
    rows = [r for r in table_rows(page) if len(r) == 7 and "×" in r[1]][1:]
    assert rows
    for name, shape, C, target, *rest in rows:
        expected = measured[name, C, target]
        assert [shape, *rest] == list(expected), (name, C, target)


@pytest.mark.parametrize("name", ["README.md", "docs/solvers.md"])
def test_figures_name_the_commit_of_the_benchmarks(name):
    page = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    measured_at = re.search(r"### Against every rival.*?commit (\w{7})", page, re.DOTALL)[1]
    assert f"ommit {measured_at}" in (ROOT / name).read_text("utf-8")


def test_readme_is_short():
    """At most 450 words outside code and tables."""
    text = without_code((ROOT / "README.md").read_text("utf-8"))
    assert len(re.sub(r"^\|.*$", "", text, flags=re.MULTILINE).split()) <= 450


def public_members(cls):
    """Names of the public methods that a class of this package defines."""
    return [
        name
        for owner in cls.__mro__
        if owner.__module__.partition(".")[0] == "skfc"
        for name, member in vars(owner).items()
        if not name.startswith("_") and callable(member)
    ]


@pytest.mark.parametrize("name", skfc.__all__)
def test_public_names_are_in_the_api_page(name):
    page = (ROOT / "docs" / "api.md").read_text("utf-8")
    assert f"`{name}`" in page
    thing = getattr(skfc, name)
    if isinstance(thing, type):
        section = re.search(rf"^## `{name}`\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)[1]
        names = [*inspect.signature(thing).parameters, *public_members(thing)]
        missing = [n for n in names if not re.search(rf"`{n}\b", section)]
        assert not missing


@pytest.mark.parametrize("name", skfc.__all__)
def test_docstrings_describe_every_parameter(name):
    thing = getattr(skfc, name)
    functions = [(name, thing)]
    if isinstance(thing, type):
        functions += [(f"{name}.{m}", getattr(thing, m)) for m in public_members(thing)]
    elif not inspect.isfunction(thing):  # an object, whose class has the docstring
        functions = [(name, type(thing))]
    for title, function in functions:
        text = inspect.getdoc(function) or ""
        parameters = [p for p in inspect.signature(function).parameters if p != "self"]
        missing = [
            p
            for p in parameters
            if not re.search(rf"^(?:\w+, )*\*{{0,2}}{p}(?:, \w+)* : ", text, re.MULTILINE)
        ]
        assert text, f"{title} has no docstring"
        assert not missing, f"{title} does not describe {missing}"
    assert ">>> " in (inspect.getdoc(thing) or ""), f"{name} has no example"


ROLE = re.compile(r":(?:class|func|meth|mod|obj|data|attr):`~?([\w.]+)`")
SEE_ALSO = re.compile(r"^See Also\n-+\n(.*?)(?:\n\n[A-Z]|\Z)", re.MULTILINE | re.DOTALL)


def docstrings():
    """(name, owner, docstring) of public things and of their public methods."""
    for name in skfc.__all__:
        thing = getattr(skfc, name)
        owner = thing if isinstance(thing, type) else type(thing)
        yield name, owner, inspect.getdoc(thing) or ""
        if isinstance(thing, type):
            for member in public_members(thing):
                yield f"{name}.{member}", thing, inspect.getdoc(getattr(thing, member)) or ""


def resolves(reference, owner):
    """Whether a reference names something: of the owner, of skfc, or of a full path."""
    if hasattr(owner, reference):
        return True
    for root in ("skfc.", ""):
        with suppress(ErrorDuringImport):
            if locate(root + reference) is not None:
                return True
    return False


DOCSTRINGS = {name: (owner, text) for name, owner, text in docstrings()}


@pytest.mark.parametrize("name", DOCSTRINGS)
def test_references_of_docstrings_exist(name):
    owner, text = DOCSTRINGS[name]
    references = ROLE.findall(text)
    for section in SEE_ALSO.findall(text):
        references += re.findall(r"^([\w.]+) :", section, re.MULTILINE)
    missing = [r for r in references if not resolves(r, owner)]
    assert not missing
    cited = set(re.findall(r"\[(\d+)\]_", text))
    listed = set(re.findall(r"^\.\. \[(\d+)\]", text, re.MULTILINE))
    assert cited == listed


def test_the_search_for_references_finds_them():
    found = [r for _, text in DOCSTRINGS.values() for r in ROLE.findall(text)]
    assert "sklearn.model_selection.GridSearchCV" in found
    assert resolves("sklearn.linear_model.LogisticRegression", skfc.Flatten)
    assert not resolves("sklearn.linear_model.NoSuchModel", skfc.Flatten)
    assert any(SEE_ALSO.findall(text) for _, text in DOCSTRINGS.values())


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda cls: cls.__name__)
def test_docstrings_describe_every_fitted_attribute(estimator):
    fitted = clone(estimator()).fit(*load_iris(return_X_y=True, as_frame=True))
    attributes = [name for name in vars(fitted) if name.endswith("_") and name[0] != "_"]
    text = inspect.getdoc(estimator)
    missing = [a for a in attributes if not re.search(rf"^{a} : ", text, re.MULTILINE)]
    assert attributes
    assert not missing
