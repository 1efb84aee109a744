"""Rows in the memory of the host, for fits on a device: blocks are moved when they are read."""

import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import array_api_strict
import numpy as np
import problems
import pytest
from core import SMOOTH
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn import config_context

from skfc import (
    SoftmaxFCClassifier,
    SoftmaxFCClassifierCV,
    _array,
    _blockwise,
    _input,
    _namespaces,
    _reading,
)
from skfc._array import ReadAs, is_memory_map, itemsize, namespace, place, take, to_numpy
from skfc._classifier import prepare
from skfc._rows import LeanRows, _lean, _streamed
from skfc._rows._streamed import Streamed
from skfc._tuned import override

pytestmark = pytest.mark.usefixtures("dispatch")

n, N, T = 400, 5, 3
X_BYTES = 8 * n * N
# Free memory of a device: unknown, for X and logits, and for a part of X.
ROOMS = {"unknown": None, "for all": 10**7, "for a part": X_BYTES // 2}


def device(values):
    return array_api_strict.asarray(np.asarray(values), device=array_api_strict.Device("device1"))


@pytest.fixture(autouse=True)
def streams():
    """Small data are streamed as large ones are."""
    with override(few_single=0):
        yield


@pytest.fixture
def moves(monkeypatch):
    """What was moved: numbers of rows, how many were there at a time, and in which threads."""
    moves = Moves(monkeypatch)
    yield moves
    for mover in moves.movers:
        mover.shutdown()  # a block that nobody waits for would arrive in the next test


class Moves:
    def __init__(self, monkeypatch):
        self.rows, self.live, self.most, self.threads = 0, 0, 0, set()
        self.original, self.lock = _streamed.moved, threading.RLock()
        self.movers = []
        monkeypatch.setattr(_streamed, "moved", self)
        monkeypatch.setattr(_streamed, "ThreadPoolExecutor", self.mover)

    def __call__(self, array, like):
        found = self.original(array, like)
        with self.lock:
            self.rows += array.shape[0]
            self.live += array.shape[0]
            self.most = max(self.most, self.live)
            self.threads.add(threading.current_thread())
        weakref.finalize(found, self.gone, array.shape[0])
        return found

    def mover(self, n_threads):
        self.movers.append(ThreadPoolExecutor(n_threads))
        return self.movers[-1]

    def gone(self, n_rows):
        with self.lock:
            self.live -= n_rows


@pytest.fixture(params=ROOMS)
def room(request, monkeypatch):
    """Bytes that are free on the device."""
    limit_to(monkeypatch, lambda like: ROOMS[request.param])
    return request.param


def limit_to(monkeypatch, free):
    """Let a device have that many bytes free; blocks take an eighth of them, not a 64th."""
    monkeypatch.setattr(_array, "TEMPORARIES", 1)
    for module in (_array, _lean, _streamed):
        monkeypatch.setattr(module, "free_memory", free)


def data():
    return problems.overlapping(n, N, T, raw=False)


OPTIONS = {
    **{name: {"solver": name} for name in SMOOTH if name != "gd"},
    "elastic net": {"l1_ratio": 0.5},
    "standardize": {"standardize": True, "class_weight": "balanced"},
    "no penalty": {"C": np.inf},
    "early stopping": {"early_stopping": True, "random_state": 0},
}


@pytest.mark.parametrize("options", OPTIONS)
def test_a_fit_is_that_of_numpy(options, room, moves):
    """It is computed on the device of y, and its results are where X is."""
    X, y = data()
    here, there = (SoftmaxFCClassifier(tol=1e-8, **OPTIONS[options]) for _ in range(2))
    here.fit(X, y)
    there.fit(X, device(y))
    assert moves.rows >= n
    assert there.loss_curve_[-1] == pytest.approx(here.loss_curve_[-1], rel=1e-8)
    assert there.optimality_gap_ <= 1e-8 or options == "early stopping"
    for name, value in vars(here).items():
        if isinstance(value, np.ndarray):
            assert type(getattr(there, name)) is np.ndarray, name
    assert_allclose(there.predict_proba(X), here.predict_proba(X), atol=1e-3)


@pytest.mark.filterwarnings("ignore:C_=")
@pytest.mark.parametrize("scoring", [None, "accuracy"])
def test_a_search_is_that_of_numpy(scoring, room):
    X, y = data()
    options = {"Cs": [0.1, 1.0], "cv": 2, "scoring": scoring, "tol": 1e-9}
    here, there = (SoftmaxFCClassifierCV(**options) for _ in range(2))
    here.fit(X, y)
    there.fit(X, device(y))
    assert there.C_ == here.C_
    assert_allclose(there.scores_, here.scores_, rtol=1e-5)
    assert_allclose(there.predict_proba(X), here.predict_proba(X), atol=1e-4)
    assert type(there.coef_) is type(there.scores_) is np.ndarray


@pytest.mark.parametrize("of", ["y", "sample_weight"])
def test_y_or_the_weights_say_which_device(of, moves, rng):
    X, y = data()
    weight = rng.uniform(0.5, 2, n)
    labels = np.array(["x", "y", "z"])[y]
    expected = SoftmaxFCClassifier(tol=1e-8).fit(X, labels, sample_weight=weight)
    if of == "y":
        found = SoftmaxFCClassifier(tol=1e-8).fit(X, device(y), sample_weight=weight)
    else:
        found = SoftmaxFCClassifier(tol=1e-8).fit(X, labels, sample_weight=device(weight))
    assert moves.rows >= n
    assert_allclose(found.coef_, expected.coef_, rtol=1e-3, atol=1e-6)


def test_what_stays_on_the_host(moves):
    """Without a device, without dispatching, sparse rows, and what is predicted."""
    X, y = data()
    on_cpu = array_api_strict.asarray(y)
    for rows, labels in ((X, y), (X, on_cpu), (sparse.csr_array(X), device(y))):
        SoftmaxFCClassifier().fit(rows, labels)
    with config_context(array_api_dispatch=False):
        SoftmaxFCClassifier().fit(X, on_cpu)
    assert not moves.rows
    model = SoftmaxFCClassifier().fit(X, device(y))
    before = moves.rows
    model.predict(X)
    model.score(X, device(y))
    model.log_loss(X, device(y))
    model.partial_fit(X, device(y))
    assert moves.rows == before > 0


def test_rows_held_out_are_there_too(moves):
    X, y = data()
    given = {"X_val": X[::3], "y_val": y[::3]}
    models = [
        SoftmaxFCClassifier(early_stopping=True).fit(X, labels, **given)
        for labels in (y, device(y))
    ]
    assert_allclose(models[1].validation_curve_, models[0].validation_curve_, rtol=1e-6)


def test_few_numbers_are_moved_once():
    X, y = data()
    with override(few_single=X_BYTES):
        rows = prepare(SoftmaxFCClassifier(), X, device(y), None).rows
    assert rows.X.device == array_api_strict.Device("device1")
    assert not isinstance(rows.X, ReadAs)


def test_a_memory_map_is_not_copied(tmp_path, moves):
    X, y = data()
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    rows = prepare(SoftmaxFCClassifier(), mapped, device(y), None).rows
    assert is_memory_map(rows.X)
    assert np.shares_memory(rows.X.base, mapped)
    found, expected = (SoftmaxFCClassifier().fit(mapped, labels) for labels in (device(y), y))
    assert_allclose(found.coef_, expected.coef_, rtol=1e-3, atol=1e-6)


# -- how much is moved, and how much is there at a time ------------------------------------------


def rows_on_a_device(monkeypatch, free):
    limit_to(monkeypatch, lambda like: free)
    X, y = data()
    return prepare(SoftmaxFCClassifier(), X, device(y), None).rows


@pytest.fixture
def nothing_kept(monkeypatch, moves):
    """Rows of which no block stays on the device."""
    rows = rows_on_a_device(monkeypatch, X_BYTES // 4)
    rows.X.kept.clear()
    rows.X.room = 0
    return rows


def test_value_and_gradient_move_every_row_once(nothing_kept, moves):
    rows, theta = nothing_kept, device(np.ones((N + 1, T)))
    for _ in range(3):
        before = moves.rows
        rows.sum(_blockwise.evaluate, theta)
        ahead = rows.blocks[0].stop  # the first block of the next pass
        assert n - ahead <= moves.rows - before <= n + ahead


def test_two_blocks_at_a_time(nothing_kept, moves):
    """The one that is read, and the next, which another thread moves."""
    rows = nothing_kept
    moves.most, size = 0, max(b.stop - b.start for b in rows.blocks)
    assert n > 10 * size
    for _ in range(3):
        rows.sum(_blockwise.evaluate, device(np.ones((N + 1, T))))
    assert moves.most <= 2 * size
    assert len(moves.threads) == 2


def test_what_fits_stays(monkeypatch, moves):
    """All blocks where there is room, some of them where there is less; logits go first."""
    theta = device(np.ones((N + 1, T)))
    moved = {}
    for free in (10**7, X_BYTES, X_BYTES // 4):
        rows = rows_on_a_device(monkeypatch, free)
        rows.sum(_blockwise.evaluate, theta)
        rows.sum(_blockwise.evaluate, theta)
        before = moves.rows
        rows.sum(_blockwise.evaluate, theta)
        moved[free] = moves.rows - before
        kept = sum(to_numpy(block).nbytes for block in rows.X.kept.values())
        assert kept <= 5 / 8 * free
        assert isinstance(rows, LeanRows) == (free < 10**7)
    assert moved[10**7] == 0 < moved[X_BYTES] < 0.5 * n < moved[X_BYTES // 4]


def test_errors_of_the_other_thread_are_raised(monkeypatch):
    rows = rows_on_a_device(monkeypatch, X_BYTES // 4)
    theta = device(np.ones((N + 1, T)))
    rows.sum(_blockwise.evaluate, theta)

    def fails(array, like):
        raise MemoryError("of the device")

    monkeypatch.setattr(_streamed, "moved", fails)
    with pytest.raises(MemoryError, match="of the device"):
        rows.sum(_blockwise.evaluate, theta)


def test_it_reads_as_an_array_of_the_device(rng):
    X = rng.standard_normal((20, 4)).astype(np.float32)
    there, streamed = device(X), Streamed(X, device(X[:0]))
    for property_of in (namespace, place, itemsize, lambda a: a.dtype, lambda a: a.shape):
        assert property_of(streamed) == property_of(there)
    rows, columns = rng.permutation(20)[:7], np.array([2, 0])
    some = take(take(streamed, rows), columns, axis=1)
    assert_array_equal(to_numpy(some[2:5, :]), X[rows][2:5][:, columns])
    assert_array_equal(to_numpy(take(some, np.array([3, 1]))[:, :]), X[rows[[3, 1]]][:, columns])


def test_half_precision_is_moved_as_it_is(monkeypatch, moves):
    """By half of the bytes; blocks are computed in float32."""
    torch = pytest.importorskip("torch")
    X, y = data()
    X = torch.asarray(X / X.std(axis=0)).to(torch.bfloat16)
    expected = SoftmaxFCClassifier(tol=1e-6).fit(X.to(torch.float32), y)
    on_device = torch.asarray(y)
    original = _namespaces.is_on_host
    for module in (_namespaces, _reading):
        monkeypatch.setattr(module, "is_on_host", lambda a: a is not on_device and original(a))
    rows = prepare(SoftmaxFCClassifier(), X, on_device, None).rows
    assert isinstance(rows.X, Streamed)
    assert (rows.X.dtype, rows.dtype) == (torch.bfloat16, torch.float32)
    found = SoftmaxFCClassifier(tol=1e-6).fit(X, on_device)
    assert moves.rows >= n
    assert found.loss_curve_[-1] == pytest.approx(float(expected.loss_curve_[-1]), rel=1e-5)


def counted(capacity):
    """A device of PyTorch's tensors that counts the bytes of those that live."""
    from torch import Tensor
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Counted(TorchDispatchMode):
        live = peak = 0
        known, lock = set(), threading.RLock()

        def see(self, tensor):
            memory = tensor.untyped_storage()
            name, size = memory.data_ptr(), memory.nbytes()
            with self.lock:
                if size and name not in self.known:
                    self.known.add(name)
                    self.live += size
                    self.peak = max(self.peak, self.live)
                    weakref.finalize(memory, self.gone, name, size)

        def gone(self, name, size):
            with self.lock:
                self.known.discard(name)
                self.live -= size

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            found = function(*args, **(kwargs or {}))
            for value in tree_leaves((args, kwargs, found)):
                if isinstance(value, Tensor):
                    self.see(value)
            return found

        def free(self, like):
            return capacity - self.live

    return Counted()


@pytest.mark.parametrize(
    ("share", "where"), [(0.5, "host"), (1.0, "host"), (1.6, "device"), (4.0, "device")]
)
def test_the_memory_of_a_device_is_enough(share, where, monkeypatch):
    """All tensors that live at a time, where it is a `share` of X: blocks, logits, vectors.

    Where there is room for logits, blocks keep those of an iterate and of a direction.
    """
    torch = pytest.importorskip("torch")
    n, N, T = 12_000, 64, 16
    X, y = problems.overlapping(n, N, T, raw=False)
    X = X.astype(np.float32)
    capacity = int(share * X.nbytes)
    device = counted(capacity)
    for module in (_array, _lean, _streamed):
        monkeypatch.setattr(module, "free_memory", device.free)
    for module in (_namespaces, _reading):
        monkeypatch.setattr(module, "is_on_host", lambda a: isinstance(a, np.ndarray))
    monkeypatch.setattr(_input, "in_memory", lambda rows: rows)

    def moved(array, like):
        found = torch.asarray(array).clone()
        device.see(found)
        return found

    monkeypatch.setattr(_streamed, "moved", moved)
    few = {"hessian_rows": 100, "rows_per_feature": 0, "all_rows_small": 1.5}
    model = SoftmaxFCClassifier(C=1e-3, tol=1e-2, solver="lbfgs", preconditioner="diagonal")
    with override(**few), device:
        model.fit(X if where == "host" else torch.asarray(X), torch.asarray(y))
    assert model.optimality_gap_ <= 1e-2
    assert device.peak <= capacity
    if share == 4.0:
        logits, vectors = 4 * n * T, 40 * 8 * (N + 1) * T
        of_rows = 40 * n  # labels, weights, and what is summed over classes
        assert device.peak <= X.nbytes + 2 * logits + vectors + of_rows + capacity / 8
