"""The rules of docs/architecture.md, whose list of modules is read here."""

import ast
import io
import json
import re
import subprocess
import sys
import tokenize
from dataclasses import fields
from pathlib import Path

import pytest

import skfc
from skfc._tuned import Tuned

PACKAGE = Path(skfc.__file__).parent
PAGE = PACKAGE.parent / "docs" / "architecture.md"
MODULES = sorted(PACKAGE.rglob("*.py"))
OPTIONAL = [
    "pandas", "polars", "matplotlib", "torch", "cupy", "jax", "dask", "distributed",
    "array_api_strict", "array_api_compat",
]  # fmt: skip

MODULE_LINES, FUNCTION_LINES, BRANCHES, THRESHOLDS = 350, 60, 15, 60

# `.X` outside _rows/: what is read there, and why.
SEES_X = {
    "_prediction.py": {"self.X"},  # the rows to predict, which no solver sees
    "_problem.py": {"merged.X", "turned.X"},  # changes of features, passed on to the rows
}

# These take the namespace of the arrays that they are given.
NO_NUMPY = [
    "solvers", "_preconditioner", "_objective.py", "_hessian.py", "_optimality.py",
    "_conjugate_gradients.py",
    "_newton_bound.py", "_newton_end.py", "_tails.py",
    "_continuation.py", "_duality.py", "_row_samples.py", "_penalty.py", "_frame.py",
    "_moments.py",
]  # fmt: skip

# Numbers of modules that are not measured: by file and name, why they stand there.
NUMBERS = {
    ("_softmax.py", "LOWEST"): "exponentials below are subnormal",
    ("_softmax.py", "SMALL_LOSS"): "log(1 + e) has lost digits",
    ("_array.py", "LOCKED"): "a constant of NumPy",
    ("_moments.py", "SQUARES_IN_RANGE"): "squares stay within the range of the type",
    ("_frame.py", "LARGEST"): "the range of float64",
    ("_frame.py", "FARTHEST"): "the range of float32",
    ("_preconditioner/_base.py", "LARGEST"): "the range of float64",
    ("_preconditioner/_base.py", "SINGLE_RANGE"): "the range of float32",
    ("_problem.py", "STRONGEST"): "the range of float64",
    ("_conjugate_gradients.py", "FLAT"): "steps along directions of curvature that is rounding",
    ("_conjugate_gradients.py", "BLIND"): "steps of an inverse of another matrix",
    ("_duality.py", "SHARES"): "where a concave function is looked at",
    ("_duality.py", "ROUNDING"): "rounding of a quotient in float64",
    ("_duality.py", "NO_THRESHOLD"): "rounding of a mean of residuals, relatively to tol",
    ("_coordinate_descent.py", "FARTHEST"): "squares stay within the range of float64",
    ("_optimality.py", "ROUNDING"): "rounding of a value in float32",
    ("_optimality.py", "FARTHEST"): "the logarithm of the factor that an estimate may be off",
    ("_margins.py", "HARM"): "the tolerance of a linear program",
    ("_margins.py", "HELP"): "far above that tolerance",
    ("_rows/_row_space.py", "OPERATIONS"): "operations of a decomposition",
    ("_preconditioner/_block_diagonal.py", "SOLVE"): "operations of a solution bound by memory",
    ("_preconditioner/_kronecker.py", "EIGEN"): "operations of an eigenproblem",
    ("solvers/_line_search.py", "ROUNDING"): "rounding of a value by the bytes of a logit",
    ("solvers/_line_search.py", "SHUT"): "rounding of a step",
    ("solvers/_sgd.py", "ARRAYS"): "a count of arrays",
    ("solvers/_sgd.py", "COLUMNS"): "a count of products",
    ("solvers/_sgd.py", "MOMENTUM"): "what the documentation promises",
    ("_rows/_worker.py", "STATES"): "what the documentation promises",
    ("_rows/_parts.py", "VIEWS"): "a count of objects",
    ("_rows/_cluster.py", "TRIALS"): "seconds in which a lost worker is noticed",
    ("_rows/_cluster.py", "WAIT"): "seconds in which a lost worker is noticed",
    ("_rows/_exchange.py", "LATE"): "seconds in which a call has come to all workers",
    ("_runtime.py", "LARGEST_LEARNT"): "a constant of glibc",
    ("_runtime.py", "SHARE_LEARNT"): "memory of a worker; docs/decisions/clusters.md",
    ("_runtime.py", "M_TRIM_THRESHOLD"): "a constant of glibc",
    ("_runtime.py", "M_MMAP_THRESHOLD"): "a constant of glibc",
    ("_runtime.py", "MAPPED"): "a constant of glibc",
    ("_pool.py", "ALIGNED"): "bytes of the widest registers",
    ("_rows/_csr_parts.py", "VALUES_PER_SUM"): "sums of products cost less than the products",
    ("_window.py", "WINDOW_ROWS"): "what the documentation promises",
    ("_window.py", "WINDOW_BYTES"): "what the documentation promises",
    ("_rows/_pairs.py", "PIECE"): "small beside the columns of a product that takes time",
    ("_window.py", "PIECES"): "rows that come leave most of the window to those before",
    ("_window.py", "FARTHEST"): "where squares leave no digits to others in a sum",
    ("_targets.py", "SUM_SLACK"): "rounding that is allowed to rows of probabilities",
    ("_array.py", "TEMPORARIES"): "a count of arrays",
    ("_namespaces.py", "TF32"): "the rounding of a type",
    ("_search.py", "LOGIT_ARRAYS"): "a count of arrays",
    ("_search.py", "VECTORS"): "a count of arrays",
    ("_rows/_lean.py", "LOGIT_ARRAYS"): "a count of arrays",
    ("_rows/_dense.py", "FULL"): "the widths of BLAS's kernels in float32",
    ("_prediction.py", "BLOCK_BYTES"): "the size of a cache",
    ("_prediction.py", "FEWEST_ROWS"): "rows of a block where there are very many classes",
    ("_flatten.py", "AXES"): "numbers of dimensions",
    ("_parameters.py", "CHECKS"): "what users may ask for",
}


def file_name(path):
    return path.relative_to(PACKAGE).as_posix()


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def tree_of(path):
    return ast.parse(path.read_text("utf-8"))


# -- imports go one way -----------------------------------------------------------------------


def listed():
    """The modules and packages of the page, from the top down."""
    block = re.search(r"```\nskfc/\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)[1]
    names = [line.split()[0].removesuffix(".py").rstrip("/") for line in block.splitlines()]
    return ["skfc" if name == "__init__" else f"skfc.{name}" for name in names]


LISTED = listed()


def rank(name):
    """Where in the list a module, or the package that it is in, stands."""
    top = ".".join(name.split(".")[:2])
    return LISTED.index(top)


def imported(path):
    """Names of all modules that the file imports, wherever it does."""
    package = module_name(path) if path.name == "__init__.py" else module_name(path.parent / "x")
    package = package.removesuffix(".x")
    found = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            found += [f"{base}.{alias.name}" for alias in node.names]
    return found


def target_of(name):
    """The module that `from module import name` reads: without names defined in it."""
    while not any(module_name(path) == name for path in MODULES):
        name = name.rpartition(".")[0]
    return name


def test_the_list_has_every_module_once():
    top = {".".join(module_name(path).split(".")[:2]) for path in MODULES}
    assert sorted(LISTED) == sorted(top)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_go_one_way(path):
    here = module_name(path)
    for name in imported(path):
        if name.partition(".")[0] != "skfc":
            continue
        there = target_of(name)
        inside = rank(there) == rank(here) and here.count(".") > 0
        assert inside or rank(there) < rank(here), f"{here} imports {there}"


def test_no_module_imports_in_a_circle():
    graph = {
        module_name(path): {target_of(n) for n in imported(path) if n.startswith("skfc.")}
        for path in MODULES
    }

    done = set()

    def visit(name, trail):
        assert name not in trail, " -> ".join([*trail, name])
        if name in done:
            return
        for other in graph[name] - {name}:
            visit(other, [*trail, name])
        done.add(name)

    for name in graph:
        visit(name, [])


# -- names that belong to others ----------------------------------------------------------------


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def defined(path):
    """Names that a file defines: of functions, classes, variables and attributes."""
    names = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def own(node):
    """Whether an expression is an object's or a class's own self."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id == "super"
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_no_private_names_of_other_packages(path):
    for name in imported(path):
        package, _, rest = name.partition(".")
        if package != "skfc":
            assert not any(part.startswith("_") for part in rest.split(".") if rest), name


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_no_private_names_of_other_modules(path):
    """But modules, which are all private; names of the same folder; and those of a base class."""
    here, bases = defined(path), {target_of(n) for n in imported(path) if n.startswith("skfc.")}
    if path.parent != PACKAGE:
        here = set().union(*map(defined, path.parent.glob("*.py")))
    family = here.union(*(defined(other) for other in MODULES if module_name(other) in bases))
    modules = {other.stem for other in MODULES} | {other.parent.name for other in MODULES}
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            allowed = family if own(node.value) else here
            assert node.attr in allowed, f"line {node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                assert not is_private(alias.name) or alias.name in modules, alias.name


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_only_rows_see_X(path):
    name = file_name(path)
    if name.startswith("_rows/"):
        return
    found = {
        ast.unparse(node)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Attribute) and node.attr == "X"
    }
    assert found == SEES_X.get(name, set())


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_numerical_modules_take_the_namespace_of_their_arrays(path):
    name = file_name(path)
    if name in NO_NUMPY or name.partition("/")[0] in NO_NUMPY:
        assert not [n for n in imported(path) if n.partition(".")[0] in ("numpy", "scipy")]


@pytest.mark.parametrize("name", NO_NUMPY)
def test_those_modules_exist(name):
    assert (PACKAGE / name).exists()


# -- numbers ------------------------------------------------------------------------------------


def test_there_are_few_thresholds():
    values = [field.default for field in fields(Tuned)]
    assert all(type(value) in (int, float) for value in values)
    assert len(values) <= THRESHOLDS


def test_every_threshold_is_used():
    text = "".join(path.read_text("utf-8") for path in MODULES if path.name != "_tuned.py")
    unused = [f.name for f in fields(Tuned) if not re.search(rf"TUNED\.{f.name}\b", text)]
    assert not unused


def numbers(path):
    """Names that a module gives a number, or a dict or tuple with one in it."""
    for node in tree_of(path).body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        inside = [node.value]
        if isinstance(node.value, ast.Dict | ast.Tuple | ast.List | ast.Set | ast.BinOp):
            inside = ast.walk(node.value)
        elif isinstance(node.value, ast.UnaryOp):
            inside = [node.value.operand]
        constants = [n.value for n in inside if isinstance(n, ast.Constant)]
        if any(type(value) in (int, float) for value in constants):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                yield from (n.id for n in ast.walk(target) if isinstance(n, ast.Name))


def test_numbers_of_modules_have_a_reason():
    found = {(file_name(path), name) for path in MODULES for name in numbers(path)}
    assert found == set(NUMBERS)


# -- sizes --------------------------------------------------------------------------------------


def docstring_lines(tree):
    """The lines of all docstrings."""
    lines = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if (
            isinstance(first, ast.Expr)
            and isinstance(first.value, ast.Constant)
            and isinstance(first.value.value, str)
        ):
            lines.update(range(first.lineno, first.end_lineno + 1))
    return lines


def lines_of_code(path):
    """Lines that hold anything but comments and docstrings."""
    source = path.read_text("utf-8")
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skipped and token.type != tokenize.ENDMARKER:
            lines.update(range(token.start[0], token.end[0] + 1))
    return lines - docstring_lines(ast.parse(source))


BRANCHING = (
    ast.If, ast.IfExp, ast.For, ast.While, ast.ExceptHandler, ast.Assert, ast.match_case,
)  # fmt: skip


def complexity(function):
    """McCabe's number; boolean operators, comprehensions and asserts count."""
    count = 1
    for node in ast.walk(function):
        if isinstance(node, BRANCHING):
            count += 1
        elif isinstance(node, ast.BoolOp):
            count += len(node.values) - 1
        elif isinstance(node, ast.comprehension):
            count += 1 + len(node.ifs)
    return count


def functions(path):
    return [n for n in ast.walk(tree_of(path)) if isinstance(n, ast.FunctionDef)]


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_modules_are_short(path):
    assert len(lines_of_code(path)) <= MODULE_LINES


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_functions_are_short(path):
    code = lines_of_code(path)
    for function in functions(path):
        lines = code & set(range(function.lineno, function.end_lineno + 1))
        assert len(lines) < FUNCTION_LINES, function.name


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_functions_are_simple(path):
    for function in functions(path):
        assert complexity(function) < BRANCHES, function.name


def test_the_count_of_branches():
    source = """
def f(x):
    assert x or not x
    for y in [z for z in x if z and y]:
        if y:
            return 1 if y else 2
    while x:
        try:
            x = x()
        except ValueError:
            pass
"""
    (function,) = ast.parse(source).body
    assert complexity(function) == 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1


# -- the package --------------------------------------------------------------------------------


def test_import_is_light():
    """No optional package is imported, also where it is installed."""
    loaded, already = (
        modules_after(f"import {name}") for name in ("skfc", "sklearn.linear_model")
    )
    assert not (loaded - already) & set(OPTIONAL)


def modules_after(statement):
    code = f"import json, sys; {statement}; print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return {name.partition(".")[0] for name in json.loads(out.stdout)}


def test_public_names():
    for name in skfc.__all__:
        assert hasattr(skfc, name)
    public = {name for name in vars(skfc) if not name.startswith("_")}
    submodules = {path.stem for path in MODULES} | {"solvers"}
    assert public - submodules == set(skfc.__all__)
