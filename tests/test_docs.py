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
from benchmarks import figures, report

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


BENCHMARKS = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
FIGURES = figures.published(BENCHMARKS)


@pytest.mark.parametrize("page", figures.QUOTING, ids=name_of)
def test_quoted_figures_are_those_of_the_benchmarks(page):
    """`python -m benchmarks figures` would change nothing, the name of the commit included."""
    text = page.read_text("utf-8")
    assert figures.filled(text, BENCHMARKS, figures.QUOTING[page]) == text
    assert f"ommit {figures.commit(BENCHMARKS)}" in text
    table = re.search("<!-- figures -->(.*)<!-- end figures -->", text, re.DOTALL)[1]
    assert table.count("\n|") >= 12


def test_a_figure_that_changes_changes_the_pages_that_quote_it():
    other = BENCHMARKS.replace(
        "| letter, C=1 | 16000×16×26 | 0.0274 |", "| letter, C=1 | 1×2×3 | 7 |"
    )
    other = other.replace("commit bd392b1", "commit 0123456")
    text = figures.README.read_text("utf-8")
    changed = figures.filled(text, other, figures.readme_table)
    assert "| `letter` | 1×2×3 | 7 | >1 | 0.0294 | 0.105 |" in changed
    assert "Commit 0123456" in changed


def test_ratios_of_the_benchmarks_are_those_of_their_seconds():
    """Up to the three digits of the seconds; bounded by 20, which counts where none arrived."""
    assert len(FIGURES) > 100
    for key, figure in FIGURES.items():
        if figure.rival == "none":
            expected = 20.0
        else:
            expected = min(float(figure.its) / float(figure.seconds), 20.0)
        assert float(figure.ratio) == pytest.approx(expected, rel=0.011), key


def test_means_of_the_benchmarks_are_those_of_their_ratios():
    means = re.findall(
        r"^\|[^\n]* its s \| ratio \|\n(.*?)\n\nGeometric mean of (\d+) ratios: \*\*([\d.]+)\*\*"
        r"\. Slower than the best rival: (.*?)\.$",
        BENCHMARKS, re.MULTILINE | re.DOTALL,
    )  # fmt: skip
    assert means
    for rows, number, mean, slower in means:
        ratios = [float(cells[-1]) for cells in figures.rows_of(rows)[1:]]
        assert len(ratios) == int(number)
        assert float(mean) == pytest.approx(report.geometric_mean(ratios), rel=0.011)
        assert (slower == "none") == (min(ratios) >= 1)


def test_ratios_in_the_text_are_those_of_the_benchmarks():
    page = (ROOT / "docs" / "when_not.md").read_text("utf-8")
    low, high = re.search(r"ratios of ([\d.]+) to ([\d.]+) on `khan`", page).groups()
    ratios = [float(figure.ratio) for key, figure in FIGURES.items() if key[0] == "khan"]
    assert (float(low), float(high)) == (round(min(ratios), 1), round(max(ratios), 1))


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
