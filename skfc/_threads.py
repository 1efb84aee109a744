"""One pool of threads for the products that release the interpreter lock."""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from threading import Lock, Thread

import joblib
import numpy as np
from threadpoolctl import ThreadpoolController

PIECE_BYTES = 2**18

_pool = None


def n_threads():
    """Threads that a fit may use: the processors joblib sees, at most OMP_NUM_THREADS."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    count = joblib.cpu_count()
    return max(1, min(count, int(limit))) if limit.isdigit() else count


@cache
def blas_libraries():
    """The BLAS of NumPy and SciPy, which are loaded by now; to look for them takes a while."""
    return ThreadpoolController().select(user_api="blas")


class _Fits:
    """The fits that run in this process now, and their share of BLAS's threads."""

    def __init__(self):
        self.lock, self.running, self.on_pool, self.limits = Lock(), 0, 0, None

    def change(self, by, on_pool):
        with self.lock:
            self.running += by
            self.on_pool += by * on_pool
            if self.running > 1 or self.on_pool or self.limits is not None:
                # Of all threads that are alive only the first to set limits can change
                # them again, and a fit may outlive the one that was first.
                setter = Thread(target=self._share)
                setter.start()
                setter.join()

    def _share(self):
        if self.limits is not None:
            self.limits.restore_original_limits()
            self.limits = None
        if self.running > 1 or self.on_pool:
            blas = blas_libraries()
            counts = [library["num_threads"] for library in blas.info()]
            share = 1 if self.on_pool else max(counts, default=1) // self.running
            self.limits = blas.limit(limits=max(1, share))


_fits = _Fits()


@contextmanager
def one_of_several(*, on_pool=False):
    """Around a fit: fits in several threads share the processors.

    Each would call BLAS with all of its threads, which then wait for one another. So would
    they and the pool, where a fit's products run `on_pool`: BLAS then has one thread. The
    limit is the process's, and is taken back when the fit is over.
    """
    _fits.change(1, on_pool)
    try:
        yield
    finally:
        _fits.change(-1, on_pool)


def thread_map(function, items):
    """`[function(item) for item in items]`, on the pool when there are several."""
    if len(items) < 2:
        return [function(item) for item in items]
    return list(_get_pool().map(function, items))


def over_rows(function, array):
    """`function(rows)` over pieces of the rows of `array`, on the pool where it is large.

    For sums and products of arrays like it: pieces and their temporaries stay in the cache.
    """
    n_pieces = array.nbytes // PIECE_BYTES if isinstance(array, np.ndarray) else 0
    if n_pieces < 2:
        return [function(slice(None))]
    edges = [len(array) * k // n_pieces for k in range(n_pieces + 1)]
    return thread_map(function, [slice(a, b) for a, b in pairwise(edges)])


def add(y, x, scale):
    """y += x * scale for arrays (P, K) and a scale per column, in place."""

    def piece(rows):
        part = y[rows, :]
        part += x[rows, :] * scale

    over_rows(piece, y)


def _get_pool():
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(n_threads(), thread_name_prefix="skfc")
    return _pool


def _forget_pool():
    global _pool, _fits
    _pool, _fits = None, _Fits()


if hasattr(os, "register_at_fork"):  # a forked child has the object but not its threads
    os.register_at_fork(after_in_child=_forget_pool)
