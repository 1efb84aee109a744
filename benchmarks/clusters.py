"""Fits of Dask collections beside a fit in memory: seconds, passes, and bytes to the client."""

import functools
import os
import tempfile
import time
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil

from benchmarks import report
from skfc import SoftmaxFCClassifier

ROWS, FEATURES, CLASSES, CHUNK, REPEATS = 440_000, 100, 5, 50e6, 3
PLACES = ("memory", "threads", "1 worker", "2 workers")


def main(args):
    """The table, and `clusters.json`."""
    shrink = 20 if args.quick else 1
    found = measure(ROWS // shrink, CHUNK / shrink, 1 if args.quick else REPEATS)
    least = found["memory"]["seconds"]
    rows = []
    for place, cell in found.items():
        received = report.short(cell["received"] / 1e6) if "received" in cell else ""
        row = [f"{cell['seconds']:.2f}", f"{cell['seconds'] / least:.2f}"]
        row += [f"{cell['processor']:.2f}", cell["iterations"], cell.get("calls", ""), received]
        rows.append([place, *row])
    text = (
        f"Generated data, {ROWS // shrink} × {FEATURES} × {CLASSES}, raw features, in chunks of "
        f"{CHUNK / shrink / 1e6:g} MB that are on the workers already; one thread per worker, and "
        f"in memory. The least of {REPEATS} fits, and of their processor seconds.\n\n"
    )
    header = ["where", "seconds", "/ memory", "processor", "iterations", "calls", "MB received"]
    text += report.table(header, rows)
    print(report.write(args.out, "clusters", report.environment(), found, text,
                       publish=args.publish))  # fmt: skip


def generate(n):
    """Raw features of scales from 0.1 to 100, and labels that are drawn."""
    rng = np.random.default_rng(0)
    X, noise = rng.standard_normal((n, FEATURES)), rng.gumbel(size=(n, CLASSES))
    W = rng.standard_normal((FEATURES, CLASSES)) * 3 / np.sqrt(FEATURES)
    y = (X @ W + noise).argmax(axis=1)
    X *= np.geomspace(0.1, 100, FEATURES)
    return X, y


def processor_seconds(processes):
    """What processes have used of the processors so far."""
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def rows_of(path, start, stop):
    """Some rows of a file, in memory."""
    return np.load(path, mmap_mode="r")[start:stop].copy()


def measure(n, chunk, repeats):
    """{place: its cell}."""
    X, y = generate(n)
    step = int(chunk / (8 * FEATURES))
    edges = [*range(0, n, step), n]
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "X.npy"
        np.save(path, X)
        for place in PLACES:
            cell = found[place] = {"seconds": np.inf, "processor": np.inf}
            with collections(place, X, y, path, edges) as (data, workers, seen):
                processes = [psutil.Process(pid) for pid in (os.getpid(), *workers)]
                for _ in range(repeats):
                    seen.clear()
                    before, start = processor_seconds(processes), time.perf_counter()
                    clf = SoftmaxFCClassifier().fit(*data)
                    seconds = time.perf_counter() - start
                    used = processor_seconds(processes) - before
                    cell["seconds"] = min(seconds, cell["seconds"])
                    cell["processor"] = min(used, cell["processor"])
            cell.update(seen, iterations=clf.n_iter_)
            print(f"  {place}: {cell['seconds']:.2f} s", flush=True)
        return found


@contextmanager
def collections(place, X, y, path, edges):
    """X and y where they are to be fitted, the workers' processes, and what is counted there."""
    if place == "memory":
        yield (X, y), [], {}
        return
    import dask
    import dask.array as da
    from distributed import Client, LocalCluster, wait

    step, seen = edges[1], {}
    if place == "threads":
        with dask.config.set(scheduler="threads"):
            yield (da.from_array(X, chunks=(step, -1)), da.from_array(y, chunks=step)), [], seen
        return
    workers = int(place.split()[0])
    options = {"threads_per_worker": 1, "memory_limit": 0, "dashboard_address": ":0"}
    with (
        LocalCluster(n_workers=workers, **options) as cluster,
        Client(cluster) as client,
    ):
        make = dask.delayed(rows_of)
        chunks = [
            da.from_delayed(make(path, a, b), (b - a, FEATURES), float) for a, b in pairwise(edges)
        ]
        data = da.concatenate(chunks).persist(), da.from_array(y, chunks=step).persist()
        wait(data)
        with counted(seen):
            yield data, list(client.run(os.getpid).values()), seen


@contextmanager
def counted(seen):
    """Count the calls that go to the workers, and the bytes that come back."""
    from skfc._rows import OnWorkers

    run = OnWorkers.run

    @functools.wraps(run)
    def count(self, call):
        answer = run(self, call)
        seen["calls"], seen["received"] = seen.get("calls", 0) + 1, self.received
        return answer

    OnWorkers.run = count
    try:
        yield
    finally:
        OnWorkers.run = run
