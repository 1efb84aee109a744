"""What is solved: bundled, local, downloaded and generated data, by name.

A name is that of a data set, with `:std` behind it for standardised columns, or
`gen-2000x30x5` for generated data of 2000 rows, 30 features and 5 classes;
`gen-2000x30x5-p2` has singular values that fall as k^-2 instead of k^-1. `benchmarks/families.py`
says what other generated data there are.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse
from sklearn import datasets

from benchmarks import families

# Letters to columns: data_id of OpenML, and the rows that are the usual training part.
OPENML = {
    "letter": (6, 16000),
    "satimage": (182, 4435),
    "winequality_white": (40498, None),
    "optdigits": (28, 3823),
    "usps": (41082, 7291),
    "isolet_sf": (300, 1560),
    "mnist": (554, 60000),
}
BUNDLED = {
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
    "breast_cancer": datasets.load_breast_cancer,
    "digits": datasets.load_digits,
}
DENSE = ("satimage", "winequality_white", "optdigits", "letter", "covtype_kaggle", "usps",
         "isolet_sf", "mnist")  # fmt: skip
FULL = (
    "iris", "wine", "digits", "khan",
    *(name + variant for name in DENSE for variant in ("", ":std")),
    "clinc150", "news20", "embeddings",
)  # fmt: skip
QUICK = ("wine", "digits", "gen-4000x40x6")
# Costly ones are solved for C = 1 alone.
ONE_C = ("mnist", "embeddings")


class Unavailable(Exception):
    """The data cannot be had here; the message says why."""


@dataclass
class Problem:
    """Data to fit: `X` (n_samples, n_features), `y` (n_samples,) class indices."""

    name: str
    X: object
    y: np.ndarray

    @property
    def n_classes(self):
        return int(self.y.max()) + 1

    @property
    def size(self):
        """Number of coefficients, without intercepts."""
        return self.X.shape[1] * self.n_classes

    @property
    def is_sparse(self):
        return sparse.issparse(self.X)

    def __str__(self):
        return f"{self.name} ({self.X.shape[0]}×{self.X.shape[1]}, T={self.n_classes})"


def load(name, folder=None, dtype=np.float64):
    """The :class:`Problem` called `name`; raises :class:`Unavailable`.

    `folder` holds `NAME.npz` files, which come before a download.
    """
    base, _, variant = name.partition(":")
    if variant not in ("", "std"):
        raise Unavailable(f"no variant {variant!r}; there is 'std'")
    X, y = _source(base, folder)
    y = np.unique(np.asarray(y), return_inverse=True)[1]
    if base == "mnist":
        X = X / 255
    X = X.tocsr() if sparse.issparse(X) else np.ascontiguousarray(X)
    X = X.astype(dtype, copy=False)
    if variant == "std":
        if sparse.issparse(X):
            raise Unavailable("sparse data is not standardised: that would fill it in")
        scale = X.std(axis=0)
        X = (X - X.mean(axis=0)) / np.where(scale > 0, scale, 1)
    return Problem(name, X, y)


def _source(name, folder):
    generated = re.fullmatch(r"gen-(\d+)x(\d+)x(\d+)(?:-p([\d.]+))?", name)
    if generated:
        n, N, T, power = generated.groups()
        return generate(int(n), int(N), int(T), power=float(power or 1))
    kind, _, shape = name.partition("-")
    if kind in families.KINDS and (sizes := re.fullmatch(r"(\d+)x(\d+)x(\d+)", shape)):
        return families.generate(kind, *map(int, sizes.groups()))
    if name == "embeddings":
        return embeddings(50_000, 512, 1000)
    if name in BUNDLED:
        return BUNDLED[name](return_X_y=True)
    if folder is not None and (file := Path(folder, f"{name}.npz")).exists():
        return read(file)
    try:
        return _download(name)
    except OSError as error:
        raise Unavailable(f"no {name}.npz in --data, and no download: {error}") from error


def read(file):
    """X and y, or their training part, from a `.npz` file; CSR is stored in its parts."""
    parts = np.load(file, allow_pickle=False)
    key, label = ("X_train", "y_train") if "y_train" in parts else ("X", "y")
    if f"{key}_indptr" not in parts:
        return parts[key], parts[label]
    csr = tuple(parts[f"{key}_{part}"] for part in ("data", "indices", "indptr"))
    return sparse.csr_matrix(csr, shape=tuple(parts[f"{key}_shape"])), parts[label]


def _download(name):
    if name == "news20":
        return datasets.fetch_20newsgroups_vectorized(subset="train", return_X_y=True)
    if name == "covtype_kaggle":  # as many rows of every class
        X, y = datasets.fetch_covtype(return_X_y=True)
        rng = np.random.default_rng(0)
        rows = [rng.choice(np.flatnonzero(y == k), 2160, replace=False) for k in range(1, 8)]
        rows = np.sort(np.concatenate(rows))
        return X[rows], y[rows]
    if name not in OPENML:
        raise Unavailable(f"{name} comes from a local folder alone: give --data")
    data_id, rows = OPENML[name]
    X, y = datasets.fetch_openml(
        data_id=data_id, as_frame=False, parser="liac-arff", return_X_y=True, n_retries=1
    )
    return X[:rows], y[:rows]


def generate(n, N, T, *, power=1.0, seed=0):
    """Rows whose singular values fall as k^-power, labels drawn from a softmax model.

    The directions are mixed by four reflections, so that no feature is a direction; the
    logits of the model have unit variance in each class.
    """
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, N))
    W = rng.standard_normal((N, T)) / np.sqrt(N)
    y = np.empty(n, dtype=np.intp)
    step = max(1, 2**22 // T)
    for start in range(0, n, step):
        Z = X[start : start + step] @ W
        Z += rng.gumbel(size=Z.shape)  # the largest is a draw from the softmax
        y[start : start + step] = Z.argmax(axis=1)
    y[:T] = np.arange(T)  # every class has a row
    X *= np.arange(1, N + 1) ** -power
    for _ in range(4):
        v = rng.standard_normal(N)
        v /= np.linalg.norm(v)
        X -= np.outer(X @ v, 2 * v)
    return X, y


def embeddings(n, N, T, *, seed=0):
    """Unit rows round T centres of unequal spread: singular values fall as k^-1/2."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % T)
    spectrum = np.arange(1, N + 1) ** -0.5
    X = rng.standard_normal((T, N))[y] + 2 * rng.standard_normal((n, N))
    X *= spectrum
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    return X, y
