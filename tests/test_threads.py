"""Threads: one pool, pieces in order, the same bits for any number, and fits that share cores."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, current_thread

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from threadpoolctl import threadpool_info, threadpool_limits

from skfc import SoftmaxFCClassifier, SoftmaxFCClassifierCV, _pool, _prediction, _runtime
from skfc._pool import caller, in_order, over_rows, product, room, thread_map
from skfc._preconditioner import PRECONDITIONERS
from skfc._runtime import computing
from skfc._tuned import TUNED, override
from skfc.solvers import SOLVERS


def blas_threads():
    return [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]


def test_fits_that_run_together_share_the_threads_of_blas():
    before, both = blas_threads(), Barrier(2)

    def fit(_):
        with computing(on_pool=False):
            both.wait()
            seen = blas_threads()
            both.wait()
        return seen

    with ThreadPoolExecutor(2) as pool:
        seen = list(pool.map(fit, range(2)))
    share = max(1, max(before) // 2)
    assert seen == [[share for _ in before]] * 2
    assert blas_threads() == before


def test_a_fit_that_fails_gives_its_share_back():
    before = blas_threads()
    with computing(on_pool=False):
        with pytest.raises(ValueError, match="inside"), computing(on_pool=False):
            raise ValueError("inside")
        assert blas_threads() == before


def test_fits_on_the_pool_leave_blas_one_thread_and_give_the_others_back():
    before, first, last = blas_threads(), Barrier(2), Barrier(2)

    def outlived():
        with computing():
            first.wait()

    def outliving():
        with computing(on_pool=False):
            first.wait()
            last.wait()
        return blas_threads()

    with computing():
        assert blas_threads() == [1 for _ in before]
    assert blas_threads() == before
    with ThreadPoolExecutor(2) as pool:
        short, long = pool.submit(outlived), pool.submit(outliving)
        short.result()
        last.wait()
        assert long.result() == before
    assert blas_threads() == before


@pytest.mark.parametrize("n_rows", [0, 1, 3, 9000])
def test_pieces_cover_every_row_once(n_rows, rng):
    y, x = rng.standard_normal((2, n_rows, 60))
    assert n_rows < 9000 or y.nbytes > 4 * TUNED.piece_bytes
    rows = np.concatenate([np.arange(n_rows)[piece] for piece in over_rows(lambda r: r, y)])
    assert_array_equal(rows, np.arange(n_rows))
    scale = rng.standard_normal(60)
    expected = y + x * scale

    def add(piece):
        y[piece] += x[piece] * scale

    over_rows(add, y)
    assert_allclose(y, expected, rtol=1e-15)


# -- pieces in order ------------------------------------------------------------------------------


def slowly(x):
    time.sleep(0.001 * (x % 3))
    return x * x, current_thread().name


def test_results_come_in_order_from_several_threads():
    with caller(4):
        squares, names = zip(*in_order(slowly, range(60)), strict=True)
    assert squares == tuple(x * x for x in range(60))
    assert 2 <= len(set(names)) <= 4


def test_no_more_threads_than_cores_whoever_calls():
    """Two callers and their helpers are three threads, and so is one of them alone."""
    both = Barrier(2)

    def fit(_):
        with caller(3):
            both.wait()
            names = {name for _, name in in_order(slowly, range(60))}
            both.wait()
        return names

    with ThreadPoolExecutor(2) as pool:
        names = set().union(*pool.map(fit, range(2)))
    assert len(names) <= 3
    assert _pool._pool.helpers == 0


def test_work_inside_work_takes_no_further_threads():
    def outer(x):
        return [name for _, name in thread_map(slowly, range(3))], current_thread().name

    with caller(2):
        for names, here in in_order(outer, range(8)):
            if here.startswith("skfc"):
                assert set(names) == {here}
    assert _pool._pool.helpers == 0


def test_an_error_in_a_piece_is_raised_and_the_pool_goes_on():
    def fail(x):
        if slowly(x)[0] == 25:
            raise ValueError("five")
        return x

    with caller(3):
        found = in_order(fail, range(30))
        assert [next(found) for _ in range(5)] == [0, 1, 2, 3, 4]
        with pytest.raises(ValueError, match="five"):
            next(found)
        assert _pool._pool.helpers == 0
        assert thread_map(lambda x: x + 1, range(9)) == list(range(1, 10))


def test_what_is_left_alone_is_not_begun():
    begun = []
    with caller(2):
        found = in_order(begun.append, range(1000))
        next(found)
        found.close()
    assert len(begun) < 1000
    assert _pool._pool.helpers == 0


def test_floating_point_warnings_are_those_of_the_caller():
    with caller(3):
        with np.errstate(divide="ignore"):
            assert np.isinf(thread_map(lambda x: np.divide(1.0, slowly(0)[0]), range(40))).all()
        with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
            thread_map(lambda x: np.divide(1.0, slowly(0)[0]), range(40))


def test_rooms_are_a_threads_own_and_let_go_of_at_the_end():
    n = TUNED.piece_bytes

    def fill(x):
        memory = room("here", (n,), np.float32)
        memory[:] = x
        time.sleep(0.001)
        return (memory == x).all() and memory.ctypes.data % 64 == 0

    with caller(3):
        assert all(thread_map(fill, range(20)))
        assert np.shares_memory(*(room("here", (m,), np.float32) for m in (n, n - 9)))
        assert _pool._pool.rooms
    assert not _pool._pool.rooms


def test_predictions_of_one_block_leave_no_room(rng):
    X, y = rng.standard_normal((20_000, 4)), np.arange(20_000) % 10
    model = SoftmaxFCClassifier(max_iter=1, tol=1.0).fit(X, y)
    assert 8 * len(X) * 10 > TUNED.piece_bytes
    model.predict(X)
    model.log_loss(X, y)
    assert not _pool._pool.rooms


def test_where_no_thread_can_be_had_the_caller_works_alone(monkeypatch):
    def start(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_pool, "_pool", _pool._Pool())
    monkeypatch.setattr(_pool._Helper, "start", start)
    with caller(3):
        squares, names = zip(*thread_map(slowly, range(9)), strict=True)
    assert squares == tuple(x * x for x in range(9))
    assert set(names) == {current_thread().name}
    assert _pool._pool.helpers == 0


@pytest.mark.parametrize("n", [3, 50])
def test_products_in_pieces(n, rng):
    a, b = rng.standard_normal((70, n)), rng.standard_normal((n, 30))
    with override(block_operations=n * 500), caller(3):
        assert_allclose(product(a, b), a @ b, rtol=0, atol=1e-12)


# -- the same bits for any number of threads ----------------------------------------------------


def force(monkeypatch, n):
    """Fits have `n` threads, and small data many blocks."""
    monkeypatch.setattr(_runtime, "n_threads", lambda: n)
    monkeypatch.setattr(_runtime, "blas_threads", lambda: n)
    monkeypatch.setattr(_prediction, "BLOCK_BYTES", 2**10)
    return override(
        block_operations=1, min_block_rows=16, small_block_bytes=2**10, piece_bytes=2**8,
        single_from=0,
    )  # fmt: skip


def made(container, rng):
    X = rng.standard_normal((400, 7)) * np.array([1, 1, 30, 1, 0.1, 1, 1]) + 0.3
    y = (X @ rng.standard_normal((7, 3)) / X.std(axis=0).max() + rng.gumbel(size=(400, 3))).argmax(
        axis=1
    )
    kinds = {
        "C order": lambda: X, "F order": lambda: np.asfortranarray(X),
        "float32": lambda: X.astype(np.float32),
        "far": lambda: X + np.array([0, 1e14, 0, 0, 0, 0, 0]),
        "CSR": lambda: sparse.csr_array(X * (X > 0.5)),
        "CSR float32": lambda: sparse.csr_array((X * (X > 0.5)).astype(np.float32)),
    }  # fmt: skip
    return kinds[container](), y


def bits(model, X):
    found = model.coef_, model.intercept_, model.predict_proba(X), model.n_iter_
    return b"".join(np.asarray(a).tobytes() for a in found)


CONTAINERS = ["C order", "F order", "float32", "far", "CSR", "CSR float32"]


def of_threads(monkeypatch, model, X, y):
    """What fits with one to four threads give; with one, BLAS is told to have one, too."""
    found = []
    with override(few_single=0), threadpool_limits(1, user_api="blas"):
        for n in (1, 2, 3, 4):
            with monkeypatch.context() as patch, force(patch, n):
                found.append(bits(model.fit(X, y), X))
                assert n == 1 or len(_pool._pool.threads) >= n - 1
    return found


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("solver", ["auto", *SOLVERS])
@pytest.mark.parametrize("container", CONTAINERS)
def test_any_number_of_threads_gives_the_same_bits(container, solver, monkeypatch, rng):
    X, y = made(container, rng)
    model = SoftmaxFCClassifier(solver=solver, max_iter=15, tol=1e-8, random_state=0)
    assert len(set(of_threads(monkeypatch, model, X, y))) == 1


@pytest.mark.parametrize("preconditioner", PRECONDITIONERS)
@pytest.mark.parametrize("container", ["C order", "float32", "CSR"])
def test_so_it_does_with_every_preconditioner(container, preconditioner, monkeypatch, rng):
    X, y = made(container, rng)
    model = SoftmaxFCClassifier(solver="newton-cg", preconditioner=preconditioner, tol=1e-3)
    assert len(set(of_threads(monkeypatch, model, X, y))) == 1


@pytest.mark.filterwarnings("ignore:C_=")
@pytest.mark.parametrize("solver", ["auto", "newton-cg"])
@pytest.mark.parametrize("container", ["C order", "CSR"])
def test_so_does_a_search(container, solver, monkeypatch, rng, capsys):
    """Whether folds are solved together or side by side, and watched or not."""
    X, y = made(container, rng)
    model = SoftmaxFCClassifierCV(Cs=[0.1, 1.0], cv=3, solver=solver)
    found = set(of_threads(monkeypatch, model, X, y))
    assert len(found) == 1
    assert set(of_threads(monkeypatch, model.set_params(verbose=2), X, y)) == found
    assert "skfc fold" in capsys.readouterr().out


# -- limits that others set --------------------------------------------------------------------


def helpers_of(fit, monkeypatch):
    """The most helpers that a fit has asked for and got."""
    most, take = [0], _pool._Pool.take

    def taken(self, wanted):
        most.append(take(self, wanted))
        return most[-1]

    with monkeypatch.context() as patch:
        patch.setattr(_pool._Pool, "take", taken)
        fit()
    return max(most)


@pytest.mark.parametrize("limit", [1, 2])
def test_limits_of_threadpoolctl_hold_for_the_pool(limit, monkeypatch, rng):
    X, y = made("C order", rng)
    monkeypatch.setattr(_runtime, "n_threads", lambda: 3)
    few = override(block_operations=1, min_block_rows=16, small_block_bytes=2**10)
    with few, threadpool_limits(limit, user_api="blas"):
        before = blas_threads()
        assert helpers_of(lambda: SoftmaxFCClassifier().fit(X, y), monkeypatch) == limit - 1
        assert blas_threads() == before


def test_small_fits_stay_in_their_thread(monkeypatch, rng):
    X, y = made("C order", rng)
    monkeypatch.setattr(_runtime, "n_threads", lambda: 4)
    monkeypatch.setattr(_runtime, "blas_threads", lambda: 4)
    assert helpers_of(lambda: SoftmaxFCClassifier().fit(X, y).predict(X), monkeypatch) == 0
