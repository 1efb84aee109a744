"""Threads: one pool, pieces that add up, and fits that share BLAS."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from threadpoolctl import threadpool_info

from skfc._runtime import one_of_several, over_rows
from skfc._tuned import TUNED


def blas_threads():
    return [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]


def test_fits_that_run_together_share_the_threads_of_blas():
    before, both = blas_threads(), Barrier(2)

    def fit(_):
        with one_of_several():
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
    with one_of_several():
        with pytest.raises(ValueError, match="inside"), one_of_several():
            raise ValueError("inside")
        assert blas_threads() == before


def test_fits_on_the_pool_leave_blas_one_thread_and_give_the_others_back():
    before, first, last = blas_threads(), Barrier(2), Barrier(2)

    def outlived():
        with one_of_several(on_pool=True):
            first.wait()

    def outliving():
        with one_of_several():
            first.wait()
            last.wait()
        return blas_threads()

    with one_of_several(on_pool=True):
        assert blas_threads() == [1 for _ in before]
    assert blas_threads() == before
    with ThreadPoolExecutor(2) as pool:
        short, long = pool.submit(outlived), pool.submit(outliving)
        short.result()
        last.wait()
        assert long.result() == before
    assert blas_threads() == before


@pytest.mark.parametrize("n_rows", [0, 1, 3, 4000])
def test_pieces_cover_every_row_once(n_rows, rng):
    y, x = rng.standard_normal((2, n_rows, 60))
    assert n_rows < 4000 or y.nbytes > 4 * TUNED.piece_bytes
    rows = np.concatenate([np.arange(n_rows)[piece] for piece in over_rows(lambda r: r, y)])
    assert_array_equal(rows, np.arange(n_rows))
    scale = rng.standard_normal(60)
    expected = y + x * scale

    def add(piece):
        y[piece] += x[piece] * scale

    over_rows(add, y)
    assert_allclose(y, expected, rtol=1e-15)
