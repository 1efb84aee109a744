"""One pass over a stream: held-out log loss beside that of a fit of all rows, and of rivals."""

import time
import warnings
from pathlib import Path

import numpy as np
from scipy import sparse
from sklearn.linear_model import SGDClassifier
from sklearn.neural_network import MLPClassifier

from benchmarks import problems, report
from skfc import SoftmaxFCClassifier, neg_log_loss_scorer

PROBLEMS = ("letter", "satimage", "covtype_kaggle", "usps", "mnist", "news20")
QUICK = ("gen-4000x20x5", "digits")
LEARNERS = {
    "skfc": SoftmaxFCClassifier,
    "SGDClassifier": lambda: SGDClassifier(loss="log_loss", random_state=0),
    "MLPClassifier(())": lambda: MLPClassifier(hidden_layer_sizes=(), random_state=0),
}
BATCH, ORDERS, OTHER_BATCHES, PASSES = 256, 3, (1, 16, 4096), 5
MOST_OF_ONE = 20_000  # rows beyond which batches of one row are left out: hours for the rivals


def main(args):
    """The tables, and `streams.json`."""
    found, rows, batches = {}, [], []
    for name in args.problems or (QUICK if args.quick else PROBLEMS):
        try:
            data = split(name, args.data)
        except problems.Unavailable as error:
            print(f"  {name}: {error}")
            continue
        cell = found[name] = measure(*data)
        print(f"  {name}: {cell['skfc']} against {cell['full']:.4f}", flush=True)
        rows.append([name, f"{cell['full']:.4f}", *(told(cell, who) for who in LEARNERS),
                     report.short(cell["passes"] / cell["full"])])  # fmt: skip
        batches.append([name, *(report.short(x / cell["skfc"][0][0]) if x else ""
                                for x in cell["batches"].values()),
                        *(report.short(1e6 * cell[who][0][1]) for who in LEARNERS)])  # fmt: skip
    text = (
        f"Raw features, defaults, one pass, batches of {BATCH} rows. Held-out mean log loss: of "
        f"a fit of all rows, and the range over {ORDERS} orders of the rows.\n\n"
    )
    header = ["problem", "fit", *LEARNERS, f"{PASSES} passes / fit"]
    text += report.table(header, rows)
    text += f"\n\nLog loss with other batches over that with {BATCH}, and µs per row.\n\n"
    header = ["problem", *map(str, OTHER_BATCHES), *LEARNERS]
    text += report.table(header, batches)
    print(report.write(args.out, "streams", report.environment(), found, text,
                       publish=args.publish))  # fmt: skip


def told(cell, who):
    """The least and the largest log loss over the orders."""
    losses = [loss for loss, _ in cell[who]]
    return f"{min(losses):.3f} – {max(losses):.3f}"


def split(name, folder):
    """Training and test rows, raw; a quarter is for testing where the data has no test part."""
    file = Path(folder, f"{name}.npz") if folder is not None else None
    if file is not None and file.exists():
        parts = np.load(file, allow_pickle=False)
        if "y_test" in parts:
            X, y = problems.read(file)
            return X, y, of(parts, "X_test"), parts["y_test"]
    problem = problems.load(name, folder)
    order = np.random.default_rng(0).permutation(len(problem.y))
    train, test = np.split(order, [3 * len(order) // 4])
    return problem.X[train], problem.y[train], problem.X[test], problem.y[test]


def of(parts, key):
    """An array of a `.npz` file, dense or CSR."""
    if key in parts:
        return parts[key]
    csr = tuple(parts[f"{key}_{part}"] for part in ("data", "indices", "indptr"))
    return sparse.csr_matrix(csr, shape=tuple(parts[f"{key}_shape"]))


def measure(X, y, X_test, y_test):
    """Log losses and seconds per row: of the fit, the learners, other batches, more passes."""

    def loss(model):
        return -float(neg_log_loss_scorer(model, X_test, y_test))

    classes = np.unique(y)
    X, X_test = (part.astype(np.float64) for part in (X, X_test))
    cell = {"full": loss(SoftmaxFCClassifier().fit(X, y))}
    orders = [np.random.default_rng(k).permutation(len(y)) for k in range(ORDERS)]
    for who, learner in LEARNERS.items():
        cell[who] = []
        for order in orders:
            model, seconds = stream(learner(), X, y, [order], BATCH, classes)
            cell[who].append((loss(model), seconds / len(y)))
    cell["batches"] = {}
    for size in OTHER_BATCHES:
        there = size > 1 or len(y) <= MOST_OF_ONE
        run = stream(SoftmaxFCClassifier(), X, y, orders[:1], size, classes) if there else None
        cell["batches"][size] = loss(run[0]) if run else None
    passes = [np.random.default_rng(k).permutation(len(y)) for k in range(PASSES)]
    cell["passes"] = loss(stream(SoftmaxFCClassifier(), X, y, passes, BATCH, classes)[0])
    return cell


def stream(model, X, y, orders, size, classes):
    """The model after passes in these orders, and the seconds of `partial_fit`."""
    seconds = 0.0
    for order in orders:
        for start in range(0, len(y), size):
            rows = order[start : start + size]
            batch = X[rows], y[rows]
            begin = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.partial_fit(*batch, classes=classes)
            seconds += time.perf_counter() - begin
    return model, seconds
