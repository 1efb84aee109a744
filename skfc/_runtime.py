"""What a fit takes from the machine: threads, freed memory, and how overflow is treated."""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from threading import Lock, Thread

import joblib
import numpy as np
from threadpoolctl import ThreadpoolController

from skfc._tuned import TUNED

# The largest block that glibc learns from: 32 MB, less its header and some pages.
LARGEST_LEARNT = 2**25 - 2**16

_pool = None


def n_threads():
    """Threads that a fit may use: the processors joblib sees, at most OMP_NUM_THREADS."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    count = joblib.cpu_count()
    return max(1, min(count, int(limit))) if limit.isdigit() else count


@cache
def blas_libraries():
    """The BLAS libraries of NumPy and SciPy; both are loaded by now, and the search is slow."""
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
                # A limit can only be changed by the thread that set it first, if that thread
                # is alive. A fit may outlive it, so a thread of its own sets every limit.
                setter = Thread(target=self._share)
                setter.start()
                setter.join()

    def _share(self):
        self.restore()
        if self.running > 1 or self.on_pool:
            blas = blas_libraries()
            counts = [library["num_threads"] for library in blas.info()]
            share = 1 if self.on_pool else max(counts, default=1) // self.running
            self.limits = blas.limit(limits=max(1, share))

    def restore(self):
        """Give BLAS the threads back that it had before the first fit."""
        if self.limits is not None:
            self.limits.restore_original_limits()
            self.limits = None


_fits = _Fits()


@contextmanager
def one_of_several(*, on_pool=False):
    """Around a fit: fits in several threads share the processors.

    Each would call BLAS with all of its threads, which then wait for one another. So would
    they and the pool, where a fit's products run `on_pool`: BLAS then has one thread. The
    limit holds for the process, and is taken back when the fit is over.
    """
    _fits.change(1, on_pool)
    try:
        yield
    finally:
        _fits.change(-1, on_pool)


@contextmanager
def fit_arithmetic(rows):
    """Around a fit: no floating-point warnings, a share of the threads, memory that is kept."""
    keep_freed_memory()
    with np.errstate(all="ignore"), one_of_several(on_pool=rows.on_pool):
        yield


def thread_map(function, items):
    """`[function(item) for item in items]`, on the pool when there are several."""
    if len(items) < 2:
        return [function(item) for item in items]
    return list(_get_pool().map(function, items))


def over_rows(function, array):
    """`function(rows)` over pieces of the rows of `array`, on the pool where it is large.

    For sums and products of arrays like it: pieces and their temporaries stay in the cache.
    """
    n_pieces = array.nbytes // TUNED.piece_bytes if isinstance(array, np.ndarray) else 0
    if n_pieces < 2:
        return [function(slice(None))]
    edges = [len(array) * k // n_pieces for k in range(n_pieces + 1)]
    return thread_map(function, [slice(a, b) for a, b in pairwise(edges)])


@cache
def keep_freed_memory():
    """Let freed arrays of up to some megabytes be used again, not handed back.

    The temporaries of a fit come and go. At first glibc gives each of more than 128 kB back
    to the system, and to fetch its pages again takes longer than what is done with them: a
    third of a fit of some 10 ms. It stops doing so, up to the size of the largest block that
    the process has ever freed. Here is such a block; its pages are never touched. Where
    `mallopt` or the environment has set the thresholds, and with another C library, nothing
    changes.
    """
    np.empty(LARGEST_LEARNT, dtype=np.uint8)


def _get_pool():
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(n_threads(), thread_name_prefix="skfc")
    return _pool


def _after_fork():
    """A forked child has the pool but not its threads, and the limit but not the fit."""
    global _pool, _fits
    _fits.restore()
    _pool, _fits = None, _Fits()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
