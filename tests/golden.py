"""Golden fits: what a table of fits gave and cost when the table was last written.

`python -m tests.golden` fits the table again and writes `golden.json` and `golden.npz`;
`test_golden.py` holds every later fit to them. Arrays are stored for small models only; of a
larger model a sketch is stored, see :func:`sketch`. All fits have one BLAS thread.
"""

import json
import sys
import tempfile
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unittest.mock import patch

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import norm
from scipy.special import softmax
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

sys.path.append(str(Path(__file__).parent))

from problems import overlapping
from reference import Reference, one_hot

from skfc import SoftmaxFCClassifier, SoftmaxFCClassifierCV
from skfc._rows import _base

FOLDER = Path(__file__).parent
# Models of more numbers are stored as a sketch, with so many columns.
LARGEST, SKETCH = 1000, 8


@dataclass
class Count:
    """Passes over the data, and products of a Hessian, sampled or not, with a direction."""

    passes: float = 0.0
    products: int = 0


@contextmanager
def count_work():
    """Yield a `Count` of the work done inside; it is complete at the end of the block.

    This is the only place in these tests that knows how the package counts its work.
    """
    count, works = Count(), []
    Work = _base.Work

    def new_work():
        works.append(Work())
        return works[-1]

    with patch.object(_base, "Work", new_work):
        yield count
    count.passes = sum(work.passes for work in works)
    count.products = sum(work.products for work in works)


# -- problems -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """What `fit` takes: `y` holds labels 0, 1, ... or rows of probabilities."""

    X: np.ndarray
    y: np.ndarray
    weight: np.ndarray | None = None


def bundled(load):
    return lambda: Problem(*load(return_X_y=True))


def drawn(n_samples, n_features, n_classes):
    return lambda: Problem(*overlapping(n_samples, n_features, n_classes))


def weighted_wine():
    """Weights from 0 to 3, a quarter of them 0."""
    X, y = load_wine(return_X_y=True)
    weight = np.random.default_rng(1).uniform(-1, 3, len(y)).clip(0)
    return Problem(X, y, weight)


def soft():
    """Rows of probabilities, a third of each spread over all classes."""
    X, y = overlapping(400, 5, 4)
    spread = softmax(np.random.default_rng(2).standard_normal((400, 4)), axis=1)
    return Problem(X, (2 * one_hot(y) + spread) / 3)


def wide():
    """More features than rows; five features tell the classes."""
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((80, 400)), np.arange(80) % 3
    X[:, :5] += rng.standard_normal((3, 5))[y]
    return Problem(X, y)


def many_classes():
    """As many features and classes as make products with X most of the work."""
    rng = np.random.default_rng(4)
    y = np.arange(700) % 105
    return Problem(rng.standard_normal((700, 500)) + 0.5 * rng.standard_normal((105, 500))[y], y)


def text(n_samples, n_words, n_classes, length=40):
    """CSR rows of unit length, of logarithms of counts; words are rare, as in texts."""

    def make():
        rng = np.random.default_rng(5)
        y = np.arange(n_samples) % n_classes
        often = -np.log(np.arange(1, n_words + 1)) + rng.standard_normal((n_classes, n_words))
        upto = softmax(often, axis=1).cumsum(axis=1)
        words = [np.searchsorted(upto[k], rng.random(length)) for k in y]
        rows, words = np.repeat(np.arange(n_samples), length), np.minimum(words, n_words - 1)
        X = sparse.csr_matrix((np.ones(rows.size), (rows, words.ravel())), (n_samples, n_words))
        X.data = 1 + np.log(X.data)
        X.data /= np.repeat(norm(X, axis=1), np.diff(X.indptr))
        return Problem(X, y)

    return make


PROBLEMS = {
    "iris": bundled(load_iris),
    "wine": bundled(load_wine),
    "cancer": bundled(load_breast_cancer),
    "digits": bundled(load_digits),
    "weighted wine": weighted_wine,
    "soft": soft,
    "wide": wide,
    "overlapping": drawn(300, 4, 3),
    "9000 x 15": drawn(9000, 15, 8),
    "6000 x 60": drawn(6000, 60, 8),
    "12000 x 30": drawn(12000, 30, 5),
    "many classes": many_classes,
    "text": text(2000, 3000, 5),
    "few words": text(1000, 300, 5),
}


@cache
def problem_of(name):
    return PROBLEMS[name]()


# -- cases --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Case:
    """A fit: a problem, the container and precision of its X, parameters of the estimator.

    With `Cs` it is a search over C, and `C` the one that it is to find.
    """

    problem: str
    container: str
    dtype: str
    options: tuple

    @property
    def parameters(self):
        return dict(self.options)

    @property
    def tol(self):
        return self.parameters["tol"]

    @property
    def name(self):
        """Its key in the files."""
        how = [] if self.container == "C" else [self.container]
        how += [] if self.dtype == "float64" else [self.dtype]
        return ", ".join([self.problem, *how, *(f"{k}={v}" for k, v in self.options)])


def case(problem, C, tol, container="C", dtype="float64", **options):
    return Case(problem, container, dtype, (("C", C), ("tol", tol), *options.items()))


def contain(X, container, dtype, folder):
    """X as "C" or "F" array, memory map in `folder`, or CSR; CSR where it already is."""
    if sparse.issparse(X):
        return X.astype(dtype)
    if container == "CSR":
        return sparse.csr_matrix(X, dtype=dtype)
    if container != "memmap":
        return np.array(X, dtype=dtype, order=container)
    mapped = np.memmap(Path(folder) / "X", dtype=dtype, mode="w+", shape=X.shape)
    mapped[:] = X
    return mapped


def reference(case):
    """The objective of `case` in float64, with the conventions of the documentation."""
    problem, options = problem_of(case.problem), case.parameters
    Y = problem.y if problem.y.ndim == 2 else one_hot(problem.y)
    weight = np.ones(len(Y)) if problem.weight is None else problem.weight
    for label, factor in (options.get("class_weight") or {}).items():
        weight = weight * np.where(problem.y == label, factor, 1.0)
    share = options.get("label_smoothing", 0.0)
    Y = (1 - share) * Y + share / Y.shape[1]
    X = problem.X.astype(case.dtype)  # as the fit has seen it
    return Reference(X, Y, weight, C=options["C"])


@dataclass
class Measured:
    """Outcome and cost of a fit. `scores` are those of the folds in a search, else None."""

    coef: np.ndarray
    intercept: np.ndarray
    scores: np.ndarray | None
    C: float
    solver: str
    n_iter: int
    gap: float
    passes: float
    products: int


@cache
def measure(case):
    """Fit `case` with one BLAS thread; returns a `Measured`."""
    problem, options = problem_of(case.problem), case.parameters
    if "Cs" in options:
        del options["C"]
        model = SoftmaxFCClassifierCV(cv=StratifiedKFold(3), **options)
    else:
        model = SoftmaxFCClassifier(**options)
    with (
        tempfile.TemporaryDirectory() as folder,
        threadpool_limits(1, user_api="blas"),
        count_work() as count,
    ):
        X = contain(problem.X, case.container, case.dtype, folder)
        with warnings.catch_warnings():  # the grids of some searches end at their best C
            warnings.filterwarnings("ignore", "C_=", UserWarning)
            model.fit(X, problem.y, sample_weight=problem.weight)
        del X  # so that the file of a memory map can go
    return Measured(
        model.coef_, model.intercept_, getattr(model, "scores_", None),
        float(getattr(model, "C_", case.parameters["C"])), model.solver_, int(model.n_iter_),
        float(model.optimality_gap_), round(count.passes, 3), count.products,
    )  # fmt: skip


def sketch(coef):
    """coef (T, N) times a fixed Gaussian matrix (N, SKETCH).

    On average it keeps the squared length of the matrix it is taken of (Johnson and
    Lindenstrauss 1984): two models are as far apart as their sketches.
    """
    G = np.random.default_rng(6).standard_normal((coef.shape[1], SKETCH)) / np.sqrt(SKETCH)
    return coef.astype(float) @ G


# -- the table ----------------------------------------------------------------------------

INF = np.inf
CASES = [
    case("iris", 1.0, 1e-6),
    case("iris", 100.0, 1e-8, solver="newton-cg"),
    case("iris", 1.0, 1e-6, dtype="float32"),
    case("iris", 0.01, 1e-3, solver="gd"),
    case("wine", 1.0, 1e-6),
    case("wine", 100.0, 1e-8, "F", preconditioner="kronecker"),
    case("wine", 1.0, 1e-3, solver="gd"),
    case("wine", 1.0, 1e-6, fit_intercept=False),
    case("weighted wine", 1.0, 1e-6),
    case("wine", 1.0, 1e-6, class_weight={0: 2.0, 2: 0.5}),
    case("wine", 10.0, 1e-6, label_smoothing=0.1, solver="newton-cg"),
    case("cancer", 1.0, 1e-6),
    case("cancer", 100.0, 1e-6, "F", solver="newton-cg"),
    case("cancer", 0.01, 1e-8, preconditioner="diagonal", solver="lbfgs"),
    case("digits", 0.01, 1e-3),
    case("digits", 1.0, 1e-6),
    case("digits", 100.0, 1e-3, "CSR"),
    case("digits", 1.0, 1e-3, dtype="float32", solver="lbfgs"),
    case("soft", 1.0, 1e-8),
    case("soft", INF, 1e-6, solver="lbfgs"),
    case("overlapping", INF, 1e-8),
    case("overlapping", INF, 1e-6, solver="newton-cg"),
    case("overlapping", INF, 1e-6, "CSR", preconditioner="kronecker", solver="lbfgs"),
    case("overlapping", 1.0, 1e-6, "memmap", solver="gd", preconditioner="block-diagonal"),
    case("wide", 1.0, 1e-6),
    case("wide", 0.01, 1e-6, solver="lbfgs", preconditioner="diagonal"),
    case("9000 x 15", 1.0, 1e-6),
    case("9000 x 15", 100.0, 1e-3, dtype="float32"),
    case("6000 x 60", 1.0, 1e-6, "F"),
    case("6000 x 60", 0.01, 1e-8),
    case("12000 x 30", 1.0, 1e-6, "memmap", preconditioner="block-diagonal"),
    case("many classes", 1.0, 1e-3),
    case("text", 1.0, 1e-3),
    case("text", 100.0, 1e-6, preconditioner="diagonal"),
    case("few words", 1.0, 1e-6, dtype="float32"),
    case("wine", 100.0, 1e-6, Cs=(0.01, 1.0, 100.0)),
    case("few words", 100.0, 1e-3, Cs=(0.1, 1.0, 10.0, 100.0)),
]


def stored(coef):
    """The part of the coefficients that is stored."""
    return coef.astype(float) if coef.size <= LARGEST else sketch(coef)


def write():
    """Fit the table and write what it gave."""
    rows, arrays = {}, {}
    columns = ("solver", "n_iter", "gap", "passes", "products")
    for case in CASES:
        found = measure(case)
        assert case.parameters["C"] == found.C, f"{case.name}: the search found C={found.C}"
        with threadpool_limits(1, user_api="blas"):
            value = float(reference(case).value(found.coef, found.intercept))
        rows[case.name] = {"value": value} | {name: getattr(found, name) for name in columns}
        arrays[f"{case.name}|coef"] = stored(found.coef)
        arrays[f"{case.name}|intercept"] = found.intercept.astype(float)
        if found.scores is not None:
            arrays[f"{case.name}|scores"] = found.scores
    lines = [f"{json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items()]
    (FOLDER / "golden.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
    np.savez_compressed(FOLDER / "golden.npz", **arrays)


def read():
    """The rows (a dict of dicts) and the arrays (a dict) that were written last."""
    rows = json.loads((FOLDER / "golden.json").read_text("utf-8"))
    with np.load(FOLDER / "golden.npz") as arrays:
        return rows, dict(arrays)


if __name__ == "__main__":
    write()
