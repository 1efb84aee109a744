"""Random hostile problems: the same one for the same seed and index."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.special import softmax

from benchmarks.hostile import columns

TOLS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
SOLVERS = ("lbfgs", "newton-cg", "gd")
PRECONDITIONERS = ("hessian", "block-diagonal", "kronecker", "diagonal")
METHOD = ("solver", "preconditioner")
# Shares of the sizes; a reference for the large ones costs the most time.
SIZES = {"small": 0.5, "medium": 0.2, "wide": 0.15, "large": 0.15}
WEIGHTS = {"none": 0.55, "lognormal": 0.12, "heavy rows": 0.12, "zeros": 0.13, "tiny": 0.08}
TARGETS = {"labels": 0.5, "unbalanced": 0.2, "soft": 0.1, "smoothed": 0.1, "balanced": 0.1}
CONTAINERS = {"C": 0.45, "F": 0.2, "csr": 0.35}


@dataclass
class Problem:
    """What is fitted, and what it is made of.

    Attributes
    ----------
    X : array or CSR matrix (n_samples, n_features)
    y : array of labels (n_samples,), or of probabilities (n_samples, n_classes)
    weight : array (n_samples,) or None
    n_classes : int
    parameters : dict, for the constructor of the estimator
    made_of : dict from a property to its value: "size", "container", "dtype", "weights",
        "targets", "columns" (a tuple)
    """

    X: object
    y: np.ndarray
    weight: np.ndarray | None
    n_classes: int
    parameters: dict
    made_of: dict

    @property
    def work(self):
        """Multiplications of a product of X with one set of coefficients."""
        stored = self.X.nnz if sparse.issparse(self.X) else self.X.size
        return stored * self.n_classes

    def __str__(self):
        n, N = self.X.shape
        given = {**self.made_of, **self.parameters}
        words = [f"{n}×{N}, T={self.n_classes}", *(f"{k}={v}" for k, v in given.items())]
        return ", ".join(words)


def draw(rng, shares):
    names = list(shares)
    p = np.array(list(shares.values()))
    return names[rng.choice(len(names), p=p / p.sum())]


def shape(rng, size):
    """n, N, T; the number of coefficients is kept to what the reference can factorise."""
    T = int(rng.choice([2, 3, 4, 5, 6, 8, 12], p=[0.25, 0.25, 0.15, 0.1, 0.1, 0.1, 0.05]))
    if size == "tiny":
        return int(rng.integers(60, 250)), int(rng.integers(2, 11)), min(T, 4)
    if size == "tiny wide":
        n = int(rng.integers(20, 41))
        return n, int(n * rng.uniform(1.1, 2.5)), min(T, 3)
    if size == "wide":
        n = int(rng.integers(40, 120))
        return n, int(n * rng.uniform(1.1, 4)), min(T, 4)
    if size == "small":
        n, most = int(rng.integers(60, 601)), 300
    elif size == "medium":
        n, most = int(rng.integers(600, 5001)), 300
    else:
        n, most = int(10 ** rng.uniform(4, 4.6)), 120
    return n, int(rng.integers(2, max(3, min(40, most // T)))), T


def make_columns(rng, n, N):
    """X (n, N), and the names of the kinds that it has."""
    names = rng.choice(list(columns.KINDS), size=rng.choice(4, p=[0.1, 0.4, 0.3, 0.2]))
    names = list(dict.fromkeys(names.tolist()))
    plain = max(1, round(N * rng.uniform(0.2, 0.9))) if names else N
    X = columns.gaussian(rng, np.empty((n, 0)), plain)
    for name in sorted(names, key=lambda name: name in ("near_duplicates", "huge_value")):
        m = max(1, (N - plain) // len(names))
        new = columns.KINDS[name](rng, X, m)
        X = X if new is None else np.column_stack([X, new])
    return X[:, rng.permutation(X.shape[1])], tuple(names) or ("gaussian",)


def thin(rng, X):
    """Zeros in most places; some columns stay as they are."""
    full = rng.random(X.shape[1]) < rng.choice([0.0, 0.3])
    mask = rng.random(X.shape) < rng.uniform(0.05, 0.4)
    return np.where(mask | full, X, 0.0)


def make_weights(rng, kind, X, largest):
    """Weights or None; rows of weight zero are given huge values."""
    n = len(X)
    if kind == "none":
        return None
    if kind == "lognormal":
        return np.exp(4 * rng.standard_normal(n))
    if kind == "tiny":
        return np.where(rng.random(n) < rng.choice([0.5, 2.0]), 1e-12, 1.0)
    weight = np.ones(n)
    if kind == "heavy rows":
        few = rng.choice(n, max(2, n // 50), replace=False)
        weight[few] = rng.choice([1e6, 1e12])
        return weight
    weight[rng.random(n) < 0.1] = 0
    rows = np.flatnonzero(weight == 0)
    X[rows, rng.integers(X.shape[1], size=len(rows))] = 10 ** rng.uniform(6, largest, len(rows))
    return weight


def make_target(rng, kind, X, weight, T):
    """Labels or probability rows of a softmax model on tamed columns.

    Every class has at least one row of positive weight.
    """
    rows = columns.tame(X)
    strength = np.exp(rng.uniform(-1, 2)) / np.sqrt(rows.shape[1])
    Z = strength * rows @ rng.standard_normal((rows.shape[1], T))
    if kind == "unbalanced":
        Z += 3 * rng.gumbel(size=T)
    if kind == "soft":
        return softmax(Z + rng.standard_normal(Z.shape), axis=1)
    y = (Z + rng.gumbel(size=Z.shape)).argmax(axis=1)
    counted = np.flatnonzero(weight) if weight is not None else np.arange(len(y))
    if len(np.unique(y[counted])) < T:
        y[rng.choice(counted, T, replace=False)] = np.arange(T)
    return y


def make_parameters(rng, target):
    """Arguments of the constructor: the solver is the default one in three of five."""
    C = rng.choice([1.0, np.inf, 10 ** rng.uniform(-12, 4), 10 ** rng.uniform(-2, 4)],
                   p=[0.25, 0.1, 0.35, 0.3])  # fmt: skip
    parameters = {"C": float(C), "tol": float(rng.choice(TOLS))}
    if rng.random() < 0.4:
        parameters["solver"] = str(rng.choice(SOLVERS))
        parameters["preconditioner"] = str(rng.choice(PRECONDITIONERS))
    if rng.random() < 0.05:
        parameters["fit_intercept"] = False
    if target == "smoothed":
        parameters["label_smoothing"] = float(rng.choice([0.01, 0.1]))
    if target == "balanced":
        parameters["class_weight"] = "balanced"
    return parameters


def make(seed, index, size=None, l1_ratio=None):
    """The :class:`Problem` of `seed` and `index`.

    `size` is "tiny", "tiny wide" or of :data:`SIZES`; None draws one of these. With an `l1_ratio`
    the problem is the same but for its penalty, and solvers and preconditioners are not drawn.
    """
    rng = np.random.default_rng([seed, index])
    size = size or draw(rng, SIZES)
    n, N, T = shape(rng, size)
    X, names = make_columns(rng, n, N)
    container, single = draw(rng, CONTAINERS), rng.random() < 0.25
    if container == "csr":
        X = thin(rng, X)
    kind, target = draw(rng, WEIGHTS), draw(rng, TARGETS)
    rows = X.copy()
    weight = make_weights(rng, kind, X, 37 if single else 300)
    y = make_target(rng, target, rows, weight, T)
    X = X.astype(np.float32 if single else np.float64)
    X = sparse.csr_matrix(X) if container == "csr" else np.asarray(X, order=container)
    made_of = {"size": size, "container": container, "dtype": X.dtype.name, "weights": kind,
               "targets": target, "columns": names}  # fmt: skip
    parameters = make_parameters(rng, target)
    if l1_ratio is not None:
        parameters = {k: v for k, v in parameters.items() if k not in METHOD}
        parameters["l1_ratio"] = l1_ratio
    return Problem(X, y, weight, T, parameters, made_of)
