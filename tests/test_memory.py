"""Freed memory is used again, and copies of X are few."""

import gc
import os
import platform
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from scipy import sparse

from skfc import SoftmaxFCClassifier, SoftmaxFCClassifierCV
from skfc._driver import Run
from skfc._rows import _blocks
from skfc._rows._blocks import BlockSums, work_of
from skfc._rows._csr_moments import extremes
from skfc._rows._csr_parts import even_blocks
from skfc._runtime import keep_freed_memory
from skfc._tuned import TUNED, override

# Pages that the system had to bring, for arrays of 4 MB that come and go in turn.
COUNT = """
import resource
import numpy as np
from skfc._runtime import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        a = np.ones(2**19)
        b = a + 1
        del a, b
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if {keep}:
    keep_freed_memory()
faults()
print(faults())
"""


# Megabytes that a process still has of arrays of 20 MB which have come and gone in some threads,
# each with a small array on top that stays.
LEFT = """
import threading
import resource
import numpy as np
from skfc._runtime import hold_freed_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6

def come_and_go():
    arrays = []
    for _ in range(3):
        arrays.append(np.ones(20 * 125_000))
        small.append(np.ones(4000))

hold_freed_memory(True, {limit})
before, small = resident(), []
for _ in range(3):
    thread = threading.Thread(target=come_and_go)
    thread.start()
    thread.join()
print(round(resident() - before))
"""


# A fit of a memory map with no room for a copy of it: the system refuses more private memory.
MAPPED = """
import resource
import numpy as np
from skfc import SoftmaxFCClassifier
from skfc._tuned import TUNED

TUNED.few_numbers = 2**20  # small data are copied
X, y = np.load({X!r}, mmap_mode="r"), np.load({y!r})
model = SoftmaxFCClassifier(solver="sgd", tol=1e-3)
model.fit(X[:20_000], y[:20_000])  # imports and threads
with open("/proc/self/status") as file:
    status = dict(line.split(":") for line in file)
limit = 1024 * int(status["VmData"].split()[0]) + {room}
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
if {whole}:
    X = np.array(X)
model.fit(X, y)
print(int(model.optimality_gap_ < 1e-3))
"""


def number(code, **variables):
    """What code prints in a process of its own, where glibc is set by `variables` alone."""
    environ = {name: v for name, v in os.environ.items() if not name.startswith("MALLOC_")}
    environ.pop("GLIBC_TUNABLES", None)
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=environ | variables, check=True, capture_output=True)
    return int(result.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what glibc does")
def test_pages_of_freed_arrays_are_not_fetched_again():
    assert number(COUNT.format(keep=True)) < 0.05 * number(COUNT.format(keep=False))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what glibc does")
def test_a_worker_with_a_limit_gives_the_memory_of_chunks_back():
    """Else it waits at its limit for memory that it never gets."""
    worker = {"MALLOC_TRIM_THRESHOLD_": "65536"}  # as Dask starts one
    assert number(LEFT.format(limit=None), **worker) > 40
    assert number(LEFT.format(limit=450_000_000), **worker) < 5


@pytest.mark.skipif(sys.platform != "linux", reason="what Linux limits")
def test_a_memory_map_is_never_loaded_whole(tmp_path):
    rng = np.random.default_rng(0)
    X = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", np.float64, (800_000, 30))
    for start in range(0, len(X), 50_000):
        X[start : start + 50_000] = rng.standard_normal((50_000, 30))
    np.save(tmp_path / "y.npy", X[:, 0] + rng.logistic(size=len(X)) > 0)
    X.flush()
    given = {"X": str(tmp_path / "X.npy"), "y": str(tmp_path / "y.npy"), "room": X.nbytes // 2}
    assert number(MAPPED.format(**given, whole=False), OMP_NUM_THREADS="1") == 1
    with pytest.raises(subprocess.CalledProcessError):  # the limit is one
        number(MAPPED.format(**given, whole=True), OMP_NUM_THREADS="1")


def peak_of_search(X, y):
    model = SoftmaxFCClassifierCV(
        Cs=[1e-5, 1e-3, 10.0], cv=3, solver="newton-cg", preconditioner="diagonal", tol=1e-3
    )
    tracemalloc.start()
    try:
        model.fit(X, y)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_folds_and_values_of_C_share_one_copy_of_X_in_single_precision():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(8000, 300))
    y = (X[:, :3] + rng.gumbel(size=(8000, 3))).argmax(axis=1)
    # One float32 copy is half of X; the rest is for logits, vectors and samples.
    assert peak_of_search(X, y) < 2 * X.nbytes


def test_bounds_of_sparse_columns_are_found_piece_by_piece():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 30)) * (rng.random((500, 30)) < 0.3)
    X[:, 3], X[:, 4], X[:250, 5] = 2.0 + rng.random(500), -1.5, 0.0
    A, std = sparse.csr_array(X), np.ones(30)
    pieces = even_blocks(A, 7)
    assert len(pieces) == 7
    low, high = extremes(A, std, pieces)
    np.testing.assert_array_equal(low, X.min(axis=0))
    np.testing.assert_array_equal(high, X.max(axis=0))


@pytest.mark.parametrize("kind", ["C order", "F order", "CSR"])
def test_a_fit_of_float32_takes_half_of_X_more(kind):
    """Nothing of a CSR; and logits, a direction, probabilities, and vectors of a solver."""
    rng, T = np.random.default_rng(0), 5
    if kind == "CSR":
        X = sparse.random(100_000, 8000, 0.0075, "csr", np.float32, rng)  # too wide for matrices
        size = X.data.nbytes + X.indices.nbytes
    else:
        X = rng.standard_normal((240_000, 125), dtype=np.float32)
        X, size = np.asarray(X, order=kind[0]), X.nbytes
    y = (X[:, :T] + 0.1 * rng.gumbel(size=(X.shape[0], T))).argmax(axis=1)
    y = np.asarray(y).ravel()
    tracemalloc.start()
    try:
        SoftmaxFCClassifier(tol=1e-3).fit(X, y)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    n, N = X.shape
    of_rows = n * (3 * T * 4 + 3 * 8)  # and labels and weights, which are 8 bytes each
    copies = 0 if kind == "CSR" else 0.5 * size
    assert peak < copies + of_rows + 28 * (N + 1) * T * 8 + 2 * TUNED.block_bytes


@pytest.mark.parametrize("kind", ["C order", "F order", "CSR"])
def test_a_thread_takes_less_than_its_block(kind, monkeypatch):
    """What is done with a block needs less than half of its memory."""
    rng, T = np.random.default_rng(0), 5
    if kind == "CSR":
        X = sparse.random(120_000, 4000, 0.018, "csr", np.float32, rng)
        n_values, size = X.nnz, X.data.nbytes + X.indices.nbytes
    else:
        X = np.asarray(rng.standard_normal((80_000, 250), dtype=np.float32), order=kind[0])
        n_values, size = X.size, X.nbytes
    y = np.asarray((X[:, :T] + rng.gumbel(size=(X.shape[0], T))).argmax(axis=1)).ravel()
    peaks = []

    def one_by_one(function, items):
        for item in items:
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            yield function(item)
            peaks.append(tracemalloc.get_traced_memory()[1] - before)

    monkeypatch.setattr(_blocks, "in_order", one_by_one)
    keep_freed_memory()  # takes memory that is never touched
    tracemalloc.start()
    try:
        SoftmaxFCClassifier(tol=1e-3).fit(X, y)
    finally:
        tracemalloc.stop()
    n_blocks = work_of(n_values, X.shape[0], T) // TUNED.block_operations
    assert n_blocks >= 3
    assert len(peaks) > n_blocks
    assert max(peaks) < 0.5 * size / n_blocks


def test_a_memory_map_is_read_in_parts(tmp_path):
    """In batches and blocks; the largest copy is a sample of rows for curvature."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20_000, 256))
    y = (X[:, :3] + rng.gumbel(size=(20_000, 3))).argmax(axis=1)
    np.save(tmp_path / "X.npy", X)
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    keep_freed_memory()  # takes memory that is never touched
    with override(few_numbers=2**18, block_bytes=2**20):
        tracemalloc.start()
        try:
            model = SoftmaxFCClassifier(solver="sgd", random_state=0).fit(X, y)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert model.optimality_gap_ <= model.tol
    assert peak < 0.4 * X.nbytes


@pytest.mark.parametrize(
    "model",
    [
        SoftmaxFCClassifier(), SoftmaxFCClassifier(solver="sgd", random_state=0),
        SoftmaxFCClassifier(l1_ratio=0.5), SoftmaxFCClassifier(C=np.inf),
        SoftmaxFCClassifier(early_stopping=True, random_state=0),
        SoftmaxFCClassifierCV(Cs=3, cv=2),
    ],
    ids=["default", "sgd", "elastic net", "no penalty", "early stopping", "search"],
)  # fmt: skip
@pytest.mark.parametrize("hold", [np.asarray, sparse.csr_array], ids=["dense", "CSR"])
def test_a_fit_lets_go_of_its_rows_at_once(model, hold, rng):
    """No cycle of references keeps them until Python looks for cycles."""
    X = rng.standard_normal((200, 4))
    y = (X[:, :3] + rng.gumbel(size=(200, 3))).argmax(axis=1)
    gc.collect()
    gc.disable()
    try:
        model.fit(hold(X), y)
        left = [o for o in gc.get_objects() if isinstance(o, Run | BlockSums)]
    finally:
        gc.enable()
    assert not left
