"""The documentation is true: its code runs, its links resolve, no public name is missing."""

import ast
import doctest
import inspect
import os
import re
import subprocess
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from pydoc import ErrorDuringImport, locate

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.datasets import load_iris, load_wine
from sklearn.feature_selection import RFE, SelectFromModel
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import cross_val_score
from sklearn.preprocessing import StandardScaler

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


def skip_without_extra(path):
    """Skip what needs Dask where that is not installed."""
    if "cluster" in path.name:
        pytest.importorskip("dask.array", reason="needs the extra dask")
        pytest.importorskip("distributed", reason="needs the extra dask")


def runs(page):
    return any(blocks(page)) and AHEAD.get(page, "C") in PARAMETERS


@pytest.mark.parametrize("page", [*filter(runs, PAGES)], ids=name_of)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    skip_without_extra(page)
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
    skip_without_extra(example)
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


def test_the_readme_names_the_release_that_was_measured():
    release = re.search(rf"{figures.SECTION}.*?scikit-learn ([\d.]+)", BENCHMARKS, re.DOTALL)[1]
    assert f"`LogisticRegression` {release} " in figures.README.read_text("utf-8")


def test_skfc_is_sooner_on_all_data_of_the_readme():
    """As its first lines say; `>` stands before the seconds when the peers were stopped."""
    text = figures.README.read_text("utf-8")
    assert "sooner on all data of\nthe table" in text
    rows = [row[2:] for row in figures.rows_of(text) if "×" in row[1]][1:]
    for raw, peer, scaled, scaled_peer in rows:
        assert float(raw) < float(peer.lstrip(">"))
        assert scaled == scaled_peer == "" or float(scaled) < float(scaled_peer.lstrip(">"))


def test_a_figure_that_changes_changes_the_pages_that_quote_it():
    shown, row = FIGURES["letter", "1", "0.001"], "| letter, C=1 | "
    before = f"{row}{shown.shape} | {shown.seconds} |"
    other = BENCHMARKS.replace(before, f"{row}1×2×3 | 7 |", 1)
    other = other.replace(f"commit {figures.commit(BENCHMARKS)}", "commit 0123456")
    text = figures.README.read_text("utf-8")
    changed = figures.filled(text, other, figures.readme_table)
    assert f"| `letter` | 1×2×3 | 7 | {shown.its} | " in changed
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


def test_losses_with_chosen_columns_are_those_of_the_page():
    """Rows: selectors; columns: raw and standardised features."""
    X, y = load_wine(return_X_y=True)
    model = skfc.SoftmaxFCClassifier()
    five = {"threshold": -np.inf, "max_features": 5}

    def per_deviation(fitted):
        return np.linalg.norm(fitted.coef_ * X.std(axis=0), axis=0)

    def loss(selector, X):
        chosen = selector.fit(X, y).get_support()
        scores = cross_val_score(model, X[:, chosen], y, scoring=skfc.neg_log_loss_scorer)
        return f"{-scores.mean():.3f}"

    scaled = StandardScaler().fit_transform(X)
    raw = SelectFromModel(model, importance_getter=per_deviation, **five)
    page = (ROOT / "docs" / "coefficients.md").read_text("utf-8")
    rows = [row[1:] for row in figures.rows_of(page) if row[0].startswith(("Select", "RFE"))]
    assert rows == [
        [loss(selector, data) for data in (X, scaled)]
        for selector in (SelectFromModel(model, **five), RFE(model, n_features_to_select=5))
    ] + [[loss(raw, X), ""]]


COMING_FROM = (ROOT / "docs" / "from_logistic_regression.md").read_text("utf-8")
# The release that the page is about, or a later one.
NEWEST = tuple(map(int, sklearn.__version__.split(".")[:2])) >= (1, 9)
PEERS = [
    (LogisticRegression, skfc.SoftmaxFCClassifier, "Parameters of LogisticRegression"),
    (LogisticRegressionCV, skfc.SoftmaxFCClassifierCV, "LogisticRegressionCV"),
]


def rows_below(heading, width):
    """Cells of the rows of `width` columns in a section of the page for those who come."""
    pattern = rf"^## {heading}\n(.*?)(?=^## |\Z)"
    text = re.search(pattern, COMING_FROM, re.MULTILINE | re.DOTALL)[1]
    rows = [line[1:-1].split("|") for line in re.findall(r"^\|.*\|$", text, re.MULTILINE)]
    return [row for row in rows if len(row) == width]


def names_in(cells):
    """What stands in backquotes, without arguments."""
    return {name.partition("(")[0] for name in re.findall(r"`([^`]+)`", " ".join(cells))}


def default_in(cell):
    """The value at the beginning of a cell; `inspect.Parameter.empty` where there is none."""
    with suppress(ValueError, SyntaxError):
        return ast.literal_eval(re.match(r"[^ ,:]*", cell.strip(" `"))[0].strip("`"))
    return inspect.Parameter.empty


@pytest.mark.parametrize(("theirs", "ours", "heading"), PEERS, ids=["one fit", "search"])
def test_every_parameter_stands_beside_that_of_logistic_regression(theirs, ours, heading):
    """Names in both columns, and defaults where a row is about one parameter."""
    rows = rows_below(heading, 4)
    here = inspect.signature(ours).parameters
    # The parameters of one fit stand in one table for both.
    known = here if ours is skfc.SoftmaxFCClassifier else {*here} - {*PARAMETERS}
    assert not {*known} - names_in(row[2] for row in rows)
    compared = 0
    sides = [(here, 2, 3)]
    if NEWEST:
        there = inspect.signature(theirs).parameters
        assert not {*there} - names_in(row[0] for row in rows)
        sides.append((there, 0, 1))
    for parameters, name, default in sides:
        for row in rows:
            match = re.match(r" *`(\w+)`(?! and|, `)", row[name])
            stated = default_in(row[default])
            if match and match[1] in parameters and stated is not inspect.Parameter.empty:
                assert parameters[match[1]].default == stated, match[1]
                compared += 1
    assert compared >= 5 * len(sides)


@pytest.mark.parametrize(("theirs", "ours", "heading"), PEERS, ids=["one fit", "search"])
def test_every_attribute_stands_beside_that_of_logistic_regression(theirs, ours, heading):
    X, y = load_iris(return_X_y=True, as_frame=True)
    options = {"use_legacy_attributes": False, "max_iter": 10_000, "l1_ratios": [0.0]}
    known = inspect.signature(theirs).parameters
    options = {key: value for key, value in options.items() if key in known}
    with warnings.catch_warnings():
        # Of releases where a default changes, and of those that name no L2 by a ratio.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", "l1_ratios parameter", UserWarning)
        fitted = [theirs(**options).fit(X, y), ours().fit(X, y)]
    left, right = (
        names_in(row) for row in zip(*rows_below("Attributes and methods", 2), strict=True)
    )
    pages = [left, left | right]  # ours has the same name where the right has none
    if ours is skfc.SoftmaxFCClassifierCV:
        more = zip(*rows_below(heading, 3), strict=True)
        search = [names_in(row) for row in more]
        pages = [page.union(search[0], search[k + 1]) for k, page in enumerate(pages)]
    for model, page in list(zip(fitted, pages, strict=True))[0 if NEWEST else 1 :]:
        attributes = {name for name in vars(model) if name[-1] == "_" and name[0] != "_"}
        same = {"classes_", "n_features_in_", "feature_names_in_"}  # "the same"
        assert not attributes - page - same


OF_COEF = r"^coef_ : .*?\*\*For two classes too:\s+(.*?)\*\*\nintercept_ : "
BOLD = {
    "README.md": r"\*\*For two classes `coef_` has two rows: (.*?)\*\*",
    "docs/user_guide.md": r"\*\*For two classes `coef_` has two rows, and (.*?)\*\*",
    "docs/from_logistic_regression.md": r"\*\*(`coef_\[1\] - coef_\[0\]` at `C`.*?)\*\*",
    "docs/coefficients.md": r"\*\*(`coef_\[1\] - coef_\[0\]` is the row .*?)\*\*",
    "skfc.SoftmaxFCClassifier": OF_COEF,
    "skfc.SoftmaxFCClassifierCV": OF_COEF,
}


@pytest.mark.parametrize("place", BOLD)
def test_two_rows_for_two_classes_are_said_in_bold(place):
    """Where somebody who comes from LogisticRegression looks first."""
    path = ROOT / place
    text = path.read_text("utf-8") if path.is_file() else inspect.getdoc(locate(place))
    said = re.search(BOLD[place], text, re.DOTALL | re.MULTILINE)[1]
    words = re.findall(r"[\w\[\]]+", said)
    assert {"coef_[1]", "coef_[0]", "C", "LogisticRegression"} <= {*words}


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
