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


@pytest.mark.parametrize("page", [p for p in PAGES if any(blocks(p))], ids=name_of)
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
    assert list(tmp_path.glob("*.png")), "no picture"


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
