"""One file per rival library. A file's `RIVALS` says what it can run.

A rival minimises `mean_i loss_i + ||W||² / (2 C n)`, its intercept free where the library
can, at a *setting* of its own tolerance or length. Settings form a ladder, loosest first.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np


class Fitted(NamedTuple):
    """Coefficients (n_classes, n_features), intercept (n_classes,) and passes over X.

    `passes` is None where the library does not tell.
    """

    coef: np.ndarray
    intercept: np.ndarray
    passes: float | None


@dataclass(frozen=True)
class Rival:
    """One way to fit.

    Attributes
    ----------
    name : str
    package : str, what is imported
    distribution : str, what is installed
    fit : function (X, y, C, setting, count) -> `Fitted`; `count` asks for passes that
        cost time to count
    ladder : settings, loosest first
    declines : function of a `Problem` -> why it is left out, or ""
    prepare : function (X, y) -> (X, y) in the library's own containers, not timed
    """

    name: str
    package: str
    distribution: str
    fit: Callable
    ladder: tuple
    declines: Callable = lambda problem: ""
    prepare: Callable = lambda X, y: (X, y)

    @property
    def is_ours(self):
        return self.package == "skfc"

    @property
    def missing(self):
        """What to install, or ""."""
        return "" if find_spec(self.package) else f"{self.distribution} is not installed"

    @property
    def version(self):
        try:
            return metadata.version(self.distribution)
        except metadata.PackageNotFoundError:  # run from a checkout
            return getattr(importlib.import_module(self.package), "__version__", "unknown")


def all_rivals():
    """Every rival by name, ours first."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        for rival in getattr(importlib.import_module(f"{__name__}.{module.name}"), "RIVALS", ()):
            found[rival.name] = rival
    return dict(sorted(found.items(), key=lambda item: not item[1].is_ours))


def tolerances(loosest=1, tightest=-10):
    """Half decades from 10^loosest to 10^tightest."""
    return tuple(10.0 ** (k / 2) for k in range(2 * loosest, 2 * tightest - 1, -1))


def dense_only(problem):
    return "takes no sparse X" if problem.is_sparse else ""


def binomial_C(C, y):
    """Two classes with one row of coefficients: the same optimum at 2C."""
    return 2 * C if y.max() == 1 else C


def two_rows(coef, intercept):
    """One row of a binary model as the two rows of its softmax."""
    if len(coef) > 1:
        return coef, intercept
    return np.vstack([-coef / 2, coef / 2]), np.concatenate([-intercept / 2, intercept / 2])
