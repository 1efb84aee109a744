"""Small costs: default fits of small data, `predict_proba`, and the import."""

import subprocess
import sys
import time
import warnings
from functools import partial
from statistics import median

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.datasets import load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import validate_data

from benchmarks import problems, report
from skfc import SoftmaxFCClassifier


def alternate(functions, repeats):
    """Median seconds of each function, called in turns; the first turn is not counted."""
    seconds = [[] for _ in functions]
    for _ in range(repeats + 1):
        for function, taken in zip(functions, seconds, strict=True):
            begin = time.perf_counter()
            function()
            taken.append(time.perf_counter() - begin)
    return [median(taken[1:]) for taken in seconds]


def default_fits(repeats):
    """A whole fit with default settings beside `LogisticRegression()`."""
    for load in (load_iris, load_wine, load_digits):
        X, y = load(return_X_y=True)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            LogisticRegression().fit(X, y)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            models = SoftmaxFCClassifier(), LogisticRegression()
            own, theirs = alternate([partial(m.fit, X, y) for m in models], repeats)
        name = load.__name__.removeprefix("load_")
        yield [f"fit {name}", own * 1e3, theirs * 1e3, theirs / own,
               "LogisticRegression warns" if caught else ""]  # fmt: skip


class Bare(BaseEstimator):
    """Validation, a product and a softmax in place: the least that predict_proba costs."""

    def __init__(self, coef, intercept):
        self.coef, self.intercept = coef, intercept
        self.n_features_in_ = coef.shape[1]

    def predict_proba(self, X):
        X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        Z = self.coef @ X.T
        Z += self.intercept[:, None]
        Z -= Z.max(axis=0)
        np.exp(Z, out=Z)
        Z /= Z.sum(axis=0)
        return Z.T


def predictions(repeats):
    """`predict_proba` beside `LogisticRegression`'s and the bare cost of the work."""
    for n, N, T in ((1, 64, 10), (1000, 64, 10), (100_000, 50, 7), (60_000, 784, 10)):
        X = problems.generate(n + T, N, T)[0][:n]
        own, theirs = SoftmaxFCClassifier(max_iter=3), LogisticRegression(max_iter=3)
        fit_X, fit_y = problems.generate(50 * T, N, T)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            own.fit(fit_X, fit_y)
            theirs.fit(fit_X, fit_y)
        bare = Bare(own.coef_, own.intercept_)
        calls = [partial(m.predict_proba, X) for m in (own, theirs, bare)]
        a, b, c = alternate(calls, 200 if n < 10_000 else repeats)
        yield [f"predict_proba {n}×{N}, T={T}", a * 1e3, b * 1e3, b / a, f"{a / c:.2f} × bare"]


def imports(repeats):
    """Milliseconds of `import skfc` after `import sklearn.linear_model`, and of that."""
    code = (
        "import time; a = time.perf_counter(); import sklearn.linear_model; "
        "b = time.perf_counter(); import skfc; print(b - a, time.perf_counter() - b)"
    )
    found = []
    for _ in range(repeats):
        done = subprocess.run([sys.executable, "-c", code], cwd=report.ROOT, check=True,
                              capture_output=True, text=True)  # fmt: skip
        found.append([float(part) for part in done.stdout.split()])
    theirs, own = np.median(found, axis=0)
    yield ["import", own * 1e3, theirs * 1e3, theirs / own, "skfc beyond sklearn.linear_model"]


def main(args):
    """All of them, as one table."""
    repeats = 5 if args.quick else 21
    rows = []
    for check in (default_fits, predictions, imports):
        for row in check(repeats):
            rows.append([row[0], *map(report.short, row[1:4]), row[4]])
            print(*rows[-1], file=sys.stderr, flush=True)
    text = report.table(["what", "skfc ms", "scikit-learn ms", "ratio", ""], rows)
    print(report.write(args.out, "checks", report.environment(), rows, text,
                       publish=args.publish))  # fmt: skip
