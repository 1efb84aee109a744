"""Monitors: what watches a fit, step by step, and may ask it to stop.

A monitor is called with the :class:`Progress` of every iteration, the start included. It
sees coefficients in the user's units, when it asks for them. One that returns True ends the
fit at this iterate.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(eq=False)
class Progress:
    """Where a fit is.

    Attributes
    ----------
    n_iter : int
    problems : (n_left,), indices of the problems that are not solved yet
    n_problems : int, those that the fit began with
    value : (n_left,), mean objectives
    gap : (n_left,), estimates of (F - F*) / F*; infinite where unknown
    coefficients : function that gives coefficients and intercepts in the user's units
    """

    n_iter: int
    problems: np.ndarray
    n_problems: int
    value: np.ndarray
    gap: np.ndarray
    coefficients: Callable


class Monitor(Protocol):
    """What the driver asks of a monitor."""

    def begin(self):
        """Work on the next iterate begins; where a stage ends, on the same one again."""

    def step(self, progress):
        """Look at an iterate; True asks to stop."""

    def end(self, fits):
        """Look at the fits, when all have ended."""


class Quiet:
    """A monitor that only looks at iterates."""

    def begin(self):
        """Nothing to do."""

    def end(self, fits):
        """Nothing to tell."""


class History(Quiet):
    """The mean objective at every iterate, a list per problem."""

    def __init__(self, n_problems):
        self.curves = [[] for _ in range(n_problems)]

    def step(self, progress):
        for problem, value in zip(progress.problems, progress.value, strict=True):
            self.curves[problem].append(float(value))


class ProgressLines(Quiet):
    """Lines on standard output: `verbose`.

    Every tenth iteration (`verbose=1`), every second one (2) or every one (3 and more), and
    whenever ten seconds have passed without a line.
    """

    SECONDS = 10.0

    def __init__(self, verbose, name="skfc"):
        self.every = max(1, 10 // verbose**2) if verbose < 3 else 1
        self.name = name
        self.start = self.last = time.perf_counter()

    def step(self, progress):
        now = time.perf_counter()
        if progress.n_iter % self.every and now - self.last < self.SECONDS:
            return
        self.last, n = now, progress.n_problems
        left = f", {len(progress.problems)} of {n} problems left" if n > 1 else ""
        self._print(
            f"iteration {progress.n_iter}: objective {progress.value.mean():.6g}, "
            f"estimated gap {as_text(progress.gap.max())}, "
            f"{now - self.start:.1f} s{left}"
        )

    def end(self, fits):
        worst = max(fits, key=lambda fit: fit.gap)
        status = ", ".join(dict.fromkeys(fit.status.value for fit in fits))
        of = f" ({len(fits)} problems)" if len(fits) > 1 else ""
        self._print(
            f"{status}{of}: {max(fit.n_iter for fit in fits)} iterations, "
            f"gap {as_text(worst.gap)}, {time.perf_counter() - self.start:.1f} s"
        )

    def _print(self, text):
        print(f"[{self.name}] {text}", file=sys.stdout, flush=True)


def as_text(gap):
    """A gap for people: a dash where it is not known."""
    return f"{gap:.0e}" if np.isfinite(gap) else "–"
