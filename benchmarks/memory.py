"""Peak memory of a fit, each in a process of its own."""

import multiprocessing
import resource
import sys
import warnings
from pathlib import Path

import numpy as np
from scipy import sparse

from benchmarks import report
from benchmarks.rivals import all_rivals

N_CLASSES = 10
# Kind of X, features; CSR rows have 100 values.
KINDS = {"C order": 250, "F order": 250, "CSR": 10_000}
FITTERS = ("skfc", "logistic-lbfgs")


def make(kind, megabytes):
    """float32 X of so many megabytes, and labels; no temporary of the size of X."""
    rng, N = np.random.default_rng(0), KINDS[kind]
    numbers = int(megabytes * 1e6 / 4)
    if kind == "CSR":
        n, per_row = numbers // 2 // 100, 100
        X = sparse.csr_matrix(
            (np.empty(n * per_row, np.float32), np.empty(n * per_row, np.int32),
             np.arange(0, n * per_row + 1, per_row, dtype=np.int32)), shape=(n, N),
        )  # fmt: skip
        X.data[:] = 0.1
        for row in range(n):  # one value in every stretch of N / 100 columns
            columns = rng.integers(0, N // per_row, per_row)
            X.indices[row * per_row : (row + 1) * per_row] = columns
            X.indices[row * per_row : (row + 1) * per_row] += np.arange(0, N, N // per_row)
    else:
        n = numbers // N
        flat = rng.standard_normal(n * N, dtype=np.float32)
        X = flat.reshape((n, N), order="C" if kind == "C order" else "F")
    Z = X[:, :50] @ rng.standard_normal((50, N_CLASSES)).astype(np.float32)
    return X, (Z + rng.gumbel(size=Z.shape)).argmax(axis=1)


def resident():
    """Resident bytes now and at their peak since :func:`forget_peak`, on Linux."""
    found = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return tuple(int(found[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))


def forget_peak():
    Path("/proc/self/clear_refs").write_text("5")


def peak_of_fit(connection, name, kind, megabytes):
    """Send shape, bytes of X, and the most that was added to the process by X and its fit."""
    warnings.simplefilter("ignore")
    rival = all_rivals()[name]
    rival.fit(*make(kind, 1), 1.0, 1e-3, False)  # imports and thread pools
    if sys.platform == "linux":
        before, _ = resident()
    X, y = make(kind, megabytes)
    size = X.data.nbytes + X.indices.nbytes if kind == "CSR" else X.nbytes
    if sys.platform == "linux":
        forget_peak()
        rival.fit(X, y, 1.0, 1e-3, False)
        added = resident()[1] - before
    else:  # the peak cannot be forgotten: that of making the data is in it
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        rival.fit(X, y, 1.0, 1e-3, False)
        added = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before + size
    connection.send((X.shape, size, added))


def bound(shape, size):
    """1.5 X, 3 n T float32, and the vectors of the solver: 10 pairs and about 8 more."""
    n, N = shape
    return 1.5 * size + 3 * n * N_CLASSES * 4 + 28 * (N + 1) * N_CLASSES * 8


def main(args):
    """Peak memory for float32 X of 400 MB."""
    context, rows, data = multiprocessing.get_context("spawn"), [], []
    megabytes = 40 if args.quick else 400
    for kind in KINDS:
        for name in FITTERS:
            ours, theirs = context.Pipe()
            process = context.Process(target=peak_of_fit, args=(theirs, name, kind, megabytes))
            process.start()
            theirs.close()
            try:
                shape, size, added = ours.recv()
            except EOFError as error:
                raise RuntimeError(f"{name} on {kind} ended without an answer") from error
            process.join()
            allowed = bound(shape, size)
            data.append({"X": kind, "shape": shape, "bytes": size, "by": name, "peak": added,
                         "bound": allowed})  # fmt: skip
            rows.append([kind, "×".join(map(str, shape)), name, f"{size / 1e6:.0f}",
                         f"{added / 1e6:.0f}", f"{added / size:.2f}", f"{allowed / 1e6:.0f}",
                         "yes" if added <= allowed else "no"])  # fmt: skip
            print(*rows[-1], file=sys.stderr, flush=True)
    text = (
        "Megabytes that X and a fit to 1e-3 added to the process at their peak. The bound is\n"
        f"1.5·X + 3·n·T + 28·(N+1)·T in float64 (10 pairs of L-BFGS and 8 vectors), T = "
        f"{N_CLASSES}.\n\n"
    )
    header = ["X", "n×N", "by", "X MB", "peak MB", "peak / X", "bound MB", "within"]
    text += report.table(header, rows)
    print(report.write(args.out, "memory", report.environment(), data, text,
                       publish=args.publish))  # fmt: skip
