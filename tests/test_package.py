"""The package around the code: what it calls itself, where its names are found, its metadata."""

import importlib
import os
import pickle
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

import skfc
from skfc import _classifier, _classifier_cv, _flatten

ROOT = Path(__file__).parents[1]
ESTIMATORS = [
    (skfc.Flatten, _flatten), (skfc.SoftmaxFCClassifier, _classifier),
    (skfc.SoftmaxFCClassifierCV, _classifier_cv),
]  # fmt: skip


@pytest.mark.parametrize(("cls", "module"), ESTIMATORS, ids=lambda x: x.__name__)
def test_public_classes_name_the_package_and_old_pickles_load(cls, module):
    """Trusted types are listed by this name; pickles by the private one still load."""
    assert f"{cls.__module__}.{cls.__qualname__}" == f"skfc.{cls.__name__}"
    assert getattr(importlib.import_module(cls.__module__), cls.__name__) is cls
    X, y = load_iris(return_X_y=True)
    model = cls(**({"Cs": [1.0], "cv": 3} if cls is skfc.SoftmaxFCClassifierCV else {})).fit(X, y)
    text = pickle.dumps(model, protocol=0)
    assert b"cskfc\n" in text
    assert b"skfc._" not in text
    earlier = text.replace(b"cskfc\n", f"c{module.__name__}\n".encode())
    method = "transform" if cls is skfc.Flatten else "predict"
    for data in (text, earlier):
        copy = pickle.loads(data)
        assert type(copy) is cls
        assert np.array_equal(getattr(copy, method)(X), getattr(model, method)(X))


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "softmax_cross_entropy"])
def test_public_functions_name_the_package(name):
    assert getattr(skfc, name).__module__ == "skfc"
    assert pickle.loads(pickle.dumps(getattr(skfc, name))) is getattr(skfc, name)


@pytest.mark.parametrize("cls", [cls for cls, _ in ESTIMATORS], ids=lambda cls: cls.__name__)
def test_notebooks_show_links_and_what_parameters_mean(cls):
    """As far as the release of scikit-learn shows them for its own estimators."""
    page, theirs = cls()._repr_html_(), LogisticRegression()._repr_html_()
    assert ("sk-estimator-doc-link" in theirs) == ("sk-estimator-doc-link" in page)
    if "param-doc-description" in theirs:
        for name in cls().get_params():
            described = rf'class="param-doc-description".*?>\s*{name}: '
            assert re.search(described, page, re.DOTALL), name


def documentation(name, path):
    """Where the HTML of an estimator links to, in the package that `path` has."""
    code = f"import skfc; print(skfc.__file__, skfc.{name}()._repr_html_())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=path, env=os.environ | {"PYTHONPATH": str(path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith(str(path))
    return re.search(r'class="sk-estimator-doc-link[^>]*href="([^"]+)"', done.stdout)[1]


@pytest.mark.parametrize("cls", [cls for cls, _ in ESTIMATORS], ids=lambda cls: cls.__name__)
def test_links_of_notebooks_lead_to_a_file_that_describes_the_estimator(cls, tmp_path):
    """In a checkout its API page; in a package by itself, beside another's `docs`, the code."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"].get("urls", {})
    assert "Documentation" not in urls, "notebooks should link to the published page"
    shutil.copytree(ROOT / "skfc", tmp_path / "skfc")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "api.md").touch()
    assert documentation(cls.__name__, ROOT) == (ROOT / "docs" / "api.md").as_uri()
    assert f"## `{cls.__name__}`\n" in (ROOT / "docs" / "api.md").read_text("utf-8")
    source = Path(unquote(urlsplit(documentation(cls.__name__, tmp_path)).path))
    assert source.parent == tmp_path / "skfc"
    assert f"\nclass {cls.__name__}(" in source.read_text("utf-8")


def test_the_package_is_marked_as_typed():
    assert resources.files("skfc").joinpath("py.typed").is_file()


def test_citation_and_metadata_agree():
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert f"\nversion: {skfc.__version__}\n" in citation
    assert f"\nlicense: {project['license']['text']}\n" in citation
    assert all(f"name: {author['name']}" in citation for author in project["authors"])
    assert {"softmax", "logistic regression", "scikit-learn"} <= set(project["keywords"])
    status = [c for c in project["classifiers"] if c.startswith("Development Status")]
    assert len(status) == 1


def test_automation_calls_the_scripts_that_run_by_hand():
    workflow = (ROOT / ".github" / "workflows" / "checks.yml").read_text("utf-8")
    called = re.findall(r"^ +- run: (.+)$", workflow, re.MULTILINE)
    assert called == [".ci/run", ".ci/matrix"]
    assert all((ROOT / script).is_file() for script in called)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    ruff = [r for r in project["optional-dependencies"]["lint"] if r.startswith("ruff")]
    hooks = (ROOT / ".pre-commit-config.yaml").read_text("utf-8")
    assert re.findall(r'additional_dependencies: \["(.+)"\]', hooks) == 2 * ruff
    matrix = (ROOT / ".ci" / "matrix").read_text("utf-8")
    pythons = re.search(r"for python in (.+);", matrix)[1].split()
    assert re.findall(r"^ +(3\.\d+)$", workflow, re.MULTILINE) == pythons
