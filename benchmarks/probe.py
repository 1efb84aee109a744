"""The linear probe on a device: skfc beside PyTorch's optimisers and scikit-learn, in one run.

    python -m benchmarks probe --rows 1000000 --features 1024 --classes 1000 --device cuda

All minimise the same objective on the same embeddings. Every rival is asked for the seconds until
its objective is within a share of the least that anybody reached; those objectives are evaluated
by one function in float64. SCIPY_ARRAY_API=1 must be set.
"""

import time
import warnings

import numpy as np
import sklearn
from sklearn.linear_model import LogisticRegression

from benchmarks import problems, report
from skfc import SoftmaxFCClassifier
from skfc._classifier import prepare
from skfc._fits import solve
from skfc._method import Method

RATES = 1e-3, 1e-2, 1e-1  # of Adam: the best of them counts
BLOCK = 2**16


def wait(torch, device):
    """Until the device has done what it was told."""
    if device != "cpu":
        torch.cuda.synchronize()


def objective(torch, X, y, coef, intercept, C):
    """The mean objective in float64, block by block."""
    total = 0.0
    coef, intercept = coef.double(), intercept.double()
    for start in range(0, len(X), BLOCK):
        rows = slice(start, start + BLOCK)
        Z = X[rows].double() @ coef.T + intercept
        total += float(torch.nn.functional.cross_entropy(Z, y[rows], reduction="sum"))
    return total / len(X) + float((coef**2).sum()) / (2 * C * len(X))


class Climb:
    """What an optimiser has reached, and when: its own time, without what is measured here."""

    def __init__(self, torch, device):
        self.torch, self.device, self.points = torch, device, []
        self.spent, self.began = 0.0, time.perf_counter()

    def at(self, coef, intercept):
        wait(self.torch, self.device)
        self.spent += time.perf_counter() - self.began
        self.points.append((self.spent, coef.detach().clone(), intercept.detach().clone()))
        self.began = time.perf_counter()


def by_optimiser(torch, X, y, T, C, make, n_steps):
    """The climb of an optimiser of PyTorch."""
    W = torch.zeros(T, X.shape[1], device=X.device, requires_grad=True)
    b = torch.zeros(T, device=X.device, requires_grad=True)
    optimiser, climb = make([W, b]), Climb(torch, X.device.type)

    def closure():
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(X @ W.T + b, y)
        loss = loss + (W**2).sum() / (2 * C * len(X))
        loss.backward()
        return loss

    for _ in range(n_steps):
        optimiser.step(closure)
        climb.at(W, b)
    return climb.points


def rivals(torch, n_steps):
    """Name to a function of X, y, T and C that gives the points of a climb."""
    found = {
        "torch L-BFGS": lambda *a: by_optimiser(
            torch, *a, lambda p: torch.optim.LBFGS(p, max_iter=1, line_search_fn="strong_wolfe"),
            n_steps,
        ),
    }  # fmt: skip
    for rate in RATES:
        found[f"torch Adam, {rate:g}"] = lambda *a, rate=rate: by_optimiser(
            torch, *a, lambda p: torch.optim.Adam(p, lr=rate), 2 * n_steps
        )
    return found


def by_estimator(torch, X, y, make):
    """The one point that an estimator reaches; `make` gives it."""
    wait(torch, X.device.type)
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = make().fit(X, y)
    wait(torch, X.device.type)
    return time.perf_counter() - begin, model.coef_, model.intercept_


def operations(estimator, X, y):
    """Passes over X and products with a Hessian of a fit."""
    problem = prepare(estimator, X, y, None)
    solve(problem, Method.of(estimator), np.array([estimator.C]))
    work = problem.rows.work
    return work.passes, work.products


def path(torch, X, y, tol):
    """Seconds for ten values of C, each from the coefficients of the one before."""
    model = SoftmaxFCClassifier(tol=tol, warm_start=True)
    fits = (
        by_estimator(torch, X, y, lambda C=C: model.set_params(C=C))
        for C in np.logspace(-2, 2, 10)
    )
    return sum(seconds for seconds, *_ in fits)


def peak(torch, device):
    """Bytes of the device at most since this was asked last; NaN on the CPU."""
    if device == "cpu":
        return float("nan")
    most = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return most


def seconds_to(points, least, target):
    """Seconds of the first point within a share of the least objective, infinite without one."""
    return min((s for s, value in points if value <= least * (1 + target)), default=np.inf)


def climbs(torch, X, y, T, C, targets, n_steps):
    """Name to points (seconds, objective), and to peak bytes."""
    found, memory, device = {}, {}, X.device.type
    for tol in (*targets, min(targets) / 1000):
        name = f"skfc, tol={tol:g}"
        make = lambda tol=tol: SoftmaxFCClassifier(C=C, tol=tol)  # noqa: E731
        found[name] = [by_estimator(torch, X, y, make)]
        memory[name] = peak(torch, device)
    for name, climb in rivals(torch, n_steps).items():
        found[name], memory[name] = climb(X, y, T, C), peak(torch, device)
    for n_iter in (n_steps // 4, n_steps):
        name = f"scikit-learn lbfgs, {n_iter}"
        make = lambda n_iter=n_iter: LogisticRegression(C=C, max_iter=n_iter, tol=1e-12)  # noqa: E731
        found[name] = [by_estimator(torch, X, y, make)]
        memory[name] = peak(torch, device)
    values = {
        name: [(s, objective(torch, X, y, W.detach(), b.detach(), C)) for s, W, b in points]
        for name, points in found.items()
    }
    return values, memory


def table(values, memory, targets):
    """The lines of a table in Markdown."""
    least = min(value for points in values.values() for _, value in points)
    yield "| | " + " | ".join(f"s to {t:g}" for t in targets) + " | least gap | peak GB |"
    yield "|---|" + "---:|" * (len(targets) + 2)
    for name, points in values.items():
        times = [seconds_to(points, least, t) for t in targets]
        gap = min(value for _, value in points) / least - 1
        cells = ["–" if np.isinf(s) else f"{s:.3g}" for s in times]
        yield f"| {name} | " + " | ".join(cells) + f" | {gap:.1e} | {memory[name] / 1e9:.3g} |"


def main(args):
    import torch

    sklearn.set_config(array_api_dispatch=True)
    n, N, T = (20_000, 256, 100) if args.quick else (args.rows, args.features, args.classes)
    C, targets = (args.Cs or (1.0,))[0], args.targets
    X, y = problems.embeddings(n, N, T)
    X = torch.asarray(X.astype(np.float32), device=args.device)
    y = torch.asarray(y, device=args.device)
    print({**report.environment(), "torch": torch.__version__, "device": args.device})
    print(f"n = {n}, N = {N}, T = {T}, C = {C:g}; a pass is {4 * n * N * T / 1e12:.3g} TFLOP")
    SoftmaxFCClassifier().fit(X[: 10 * T], y[: 10 * T])  # libraries are loaded
    for precision in ("highest", "high"):
        torch.set_float32_matmul_precision(precision)
        print(f"\nfloat32 products: {precision}\n")
        values, memory = climbs(torch, X, y, T, C, targets, 20 if args.quick else 60)
        print("\n".join(table(values, memory, targets)))
        for tol in targets:
            passes, products = operations(SoftmaxFCClassifier(C=C, tol=tol), X, y)
            print(f"skfc, tol={tol:g}: {passes:.3g} passes and {products} products")
        print(f"ten values of C, warm-started: {path(torch, X, y, max(targets)):.3g} s")
        if args.device == "cpu":
            break
