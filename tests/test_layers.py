"""The house rules: imports go one way, no private scikit-learn, short modules, light import."""

import ast
import io
import json
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

import skfc

PACKAGE = Path(skfc.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 350
# From the bottom up: a module imports only from the layers before its own.
LAYERS = [
    ["skfc._array", "skfc._memory", "skfc._threads"],
    ["skfc._softmax", "skfc._targets", "skfc._prediction"],
    ["skfc._design"],
    ["skfc._local"],
    ["skfc._objective"],
    ["skfc._coordinates", "skfc._conjugate_gradients"],
    ["skfc._gap"],
    ["skfc._sampling"],
    ["skfc._metric"],
    ["skfc.solvers"],
    ["skfc._parameters", "skfc._fitting", "skfc._functions", "skfc._scoring"],
    ["skfc._path"],
    ["skfc._classifier"],
    ["skfc._search"],
    ["skfc._classifier_cv"],
    ["skfc._flatten"],
    ["skfc"],
]
OPTIONAL = ["pandas", "polars", "matplotlib", "torch", "cupy", "jax", "dask", "array_api_strict"]


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path):
    """Names of all modules that the file imports, wherever it does."""
    package = module_name(path) if path.name == "__init__.py" else module_name(path.parent / "x")
    package = package.removesuffix(".x")
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            found += [f"{base}.{alias.name}" for alias in node.names]
    return found


def layer(name):
    """Which layer a module is in: the one of its longest prefix."""
    matches = [
        (len(prefix), rank)
        for rank, prefixes in enumerate(LAYERS)
        for prefix in prefixes
        if name == prefix or (name + ".").startswith(prefix + ".")
    ]
    rank = max(matches)[1]
    assert name == "skfc" or rank < len(LAYERS) - 1, f"{name} has no layer"
    return rank


def target_of(name):
    """The module that `from module import name` reads: without names defined in it."""
    while not any(module_name(path) == name for path in MODULES):
        name = name.rpartition(".")[0]
    return name


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_go_one_way(path):
    here = module_name(path)
    for name in imported(path):
        if not name.startswith("skfc."):
            continue
        there = target_of(name)
        inside = there.split(".")[:2] == here.split(".")[:2] and len(here.split(".")) > 1
        assert inside or layer(there) < layer(here), f"{here} imports {there}"


def test_no_module_imports_in_a_circle():
    graph = {
        module_name(path): {target_of(n) for n in imported(path) if n.startswith("skfc.")}
        for path in MODULES
    }

    def visit(name, trail):
        assert name not in trail, " -> ".join([*trail, name])
        for other in graph[name] - {name}:
            visit(other, [*trail, name])

    for name in graph:
        visit(name, [])


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_no_private_names_of_other_packages(path):
    for name in imported(path):
        package, _, rest = name.partition(".")
        if package != "skfc":
            assert not any(part.startswith("_") for part in rest.split(".") if rest), name


def lines_of_code(path):
    """Lines that hold anything but comments and docstrings."""
    source = path.read_text()
    docstrings = set()
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if (
            isinstance(first, ast.Expr)
            and isinstance(first.value, ast.Constant)
            and isinstance(first.value.value, str)
        ):
            docstrings.update(range(first.lineno, first.end_lineno + 1))
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skipped and token.type != tokenize.ENDMARKER:
            lines.update(range(token.start[0], token.end[0] + 1))
    return lines - docstrings


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_modules_are_short(path):
    assert len(lines_of_code(path)) <= LONGEST


def test_import_is_light():
    """No optional package is imported, also where it is installed."""
    code = "import json, sys, skfc; print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = {name.partition(".")[0] for name in json.loads(out.stdout)}
    code = "import json, sys, sklearn.linear_model; print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    already = {name.partition(".")[0] for name in json.loads(out.stdout)}
    assert not (loaded - already) & set(OPTIONAL)


def test_public_names():
    for name in skfc.__all__:
        assert hasattr(skfc, name)
    public = {name for name in vars(skfc) if not name.startswith("_")}
    submodules = {path.stem for path in MODULES} | {"solvers"}
    assert public - submodules == set(skfc.__all__)
