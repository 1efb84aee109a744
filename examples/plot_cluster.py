"""
A cluster: more rows than a worker has memory for
=================================================

Two workers with 450 MB each fit 480 MB of generated rows, in chunks of 10 MB that the workers make
themselves; what does not fit into their memory is on their disks. The picture shows the loss
beside the objective's minimum, and the memory of the workers during the fit.

    python examples/plot_cluster.py [folder for the picture]
"""

import sys
import tempfile
import threading
import time
from pathlib import Path

import dask
import dask.array as da
import matplotlib.pyplot as plt
import numpy as np
import psutil
from distributed import Client, LocalCluster

from skfc import SoftmaxFCClassifier

N, T, ROWS, CHUNKS, LIMIT = 100, 4, 25_000, 48, 450e6


def make_rows(seed):
    """A chunk of X (ROWS, N) in single precision: features of scales from 0.1 to 100."""
    X = np.random.default_rng(seed).standard_normal((ROWS, N), dtype=np.float32)
    return X * np.geomspace(0.1, 100, N, dtype=np.float32)


def make_labels(X):
    """Labels drawn from a softmax of the rows."""
    W = np.random.default_rng(0).standard_normal((N, T)) / np.geomspace(0.1, 100, N)[:, None]
    noise = np.random.default_rng(abs(int(X[0, 0] * 1e6))).gumbel(size=(len(X), T))
    return np.argmax(X @ W / 3 + noise, axis=1)


def watch(processes, memory, end):
    """Note the megabytes of processes, until the end."""
    start = time.perf_counter()
    while not end.wait(0.05):
        found = [process.memory_info().rss / 1e6 for process in processes]
        memory.append([time.perf_counter() - start, *found])


def main(folder):
    chunks = [
        da.from_delayed(dask.delayed(make_rows)(k), (ROWS, N), dtype=np.float32)
        for k in range(CHUNKS)
    ]
    X = da.concatenate(chunks)
    y = X.map_blocks(make_labels, dtype=np.int64, drop_axis=1)
    with (
        tempfile.TemporaryDirectory() as disk,
        LocalCluster(
            n_workers=2, threads_per_worker=1, memory_limit=LIMIT, dashboard_address=":0",
            local_directory=disk,
        ) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        workers = [
            psutil.Process(pid) for pid in client.run(lambda: psutil.Process().pid).values()
        ]
        memory, end = [], threading.Event()
        watcher = threading.Thread(target=watch, args=(workers, memory, end))
        watcher.start()
        try:
            clf = SoftmaxFCClassifier(tol=1e-3).fit(X, y)
        finally:
            end.set()
            watcher.join()
    seconds, *used = np.array(memory).T
    print(f"{X.nbytes / 1e6:.0f} MB of rows, {clf.n_iter_} iterations")
    print(f"most memory of a worker: {np.max(used):.0f} of {LIMIT / 1e6:.0f} MB")

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    left.semilogy(clf.loss_curve_[:-1] - clf.loss_curve_[-1], "o-")
    left.set(title="Objective above its last value", xlabel="iteration")
    for k, megabytes in enumerate(used):
        right.plot(seconds, megabytes, label=f"worker {k + 1}")
    right.axhline(LIMIT / 1e6, color="black", linestyle="--", label="limit")
    right.axhline(X.nbytes / 1e6, color="grey", linestyle=":", label="X")
    right.set(title="Memory of the workers, MB", xlabel="seconds", ylim=(0, None))
    right.legend()
    figure.savefig(folder / "cluster.png", dpi=120)


if __name__ == "__main__":  # the workers are processes that read this file
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
