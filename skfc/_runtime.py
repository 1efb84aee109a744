"""What a fit takes from the machine: cores, BLAS's threads, freed memory; and its warnings."""

import ctypes
import os
import warnings
from contextlib import contextmanager
from functools import cache
from inspect import currentframe
from threading import Lock, Thread, get_ident, local

import numpy as np
from threadpoolctl import ThreadpoolController

from skfc._pool import caller, n_threads

# The largest block that glibc learns from: 32 MB, less its header and some pages.
LARGEST_LEARNT = 2**25 - 2**16
# Blocks that are kept are this part of a limit at most.
SHARE_LEARNT = 64

# Parameters of `mallopt`, and glibc's own threshold of blocks that are mapped.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, MAPPED = -1, -3, 2**17


@cache
def blas_libraries():
    """The BLAS libraries of NumPy and SciPy; both are loaded by now, and the search is slow."""
    return ThreadpoolController().select(user_api="blas")


def blas_threads():
    """The most threads that one of them may use now."""
    return max((library.num_threads for library in blas_libraries().lib_controllers), default=None)


class _Blas:
    """BLAS's threads while fits run in this process.

    A fit on the pool leaves BLAS one thread: its own would wait for one another, and cut and
    round products by their number. Fits off the pool share them. Limits hold for the process,
    and a limit can only be changed by the thread that set it, if that thread is alive: the
    thread of a fit that is alone sets and lifts it, else one that lives no longer.
    """

    def __init__(self):
        self.lock, self.running, self.on_pool = Lock(), 0, 0
        self.limits = self.owner = self.before = None

    def enter(self, on_pool):
        """Count a fit in; returns a function that says how many threads fits may have."""
        with self.lock:
            if self.limits is None:
                self.before = blas_threads()
            self._count(1, on_pool)
            before = self.before
        return lambda: min(n_threads(), before or n_threads())

    def leave(self, on_pool):
        with self.lock:
            self._count(-1, on_pool)

    def _count(self, by, on_pool):
        self.running += by
        self.on_pool += by * on_pool
        wanted = self._wanted()
        alone = self.running == (1 if by > 0 else 0)
        if by < 0 and not alone and self.owner == get_ident():
            self.lift()  # others go on: the limit must not be this thread's
        if self.limits is None and wanted == self.before:
            return
        if alone and (self.limits is None or self.owner == get_ident()):
            self._set(wanted, get_ident())
        elif self.limits is None or wanted != blas_threads():
            setter = Thread(target=self._set, args=(wanted, None))
            setter.start()
            setter.join()

    def _wanted(self):
        """The threads that BLAS should have now."""
        if self.on_pool:
            return 1
        return self.before and max(1, self.before // max(self.running, 1))

    def _set(self, wanted, owner):
        self.lift()
        if wanted != self.before:
            self.limits, self.owner = blas_libraries().limit(limits=wanted), owner
            self.limits.__enter__()

    def lift(self):
        """Give BLAS the threads back that it had before the first fit."""
        if self.limits is not None:
            self.limits.__exit__(None, None, None)
            self.limits = self.owner = None


_blas = _Blas()
_this = local()  # whether this thread computes


@contextmanager
def computing(*, on_pool=True):
    """Around what computes: its threads, and those of BLAS. Once more inside changes nothing.

    Fits in several threads share the cores.
    """
    if getattr(_this, "computes", False):
        yield
        return
    blas = _blas
    limit = blas.enter(on_pool)
    _this.computes = True
    try:
        with caller(limit):
            yield
    finally:
        _this.computes = False
        blas.leave(on_pool)


@contextmanager
def fit_arithmetic(rows):
    """Around a fit: no floating-point warnings, its threads, memory that is kept."""
    keep_freed_memory()
    with np.errstate(all="ignore"), computing(on_pool=rows.on_pool):
        yield


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


def hold_freed_memory(hold, limit=None):
    """Keep some megabytes of freed memory, or give all back as the environment has set it.

    Of a process that may take `limit` bytes (None: as many as it likes) blocks of a 64th of that
    at most are kept. More could be what Dask waits for: a worker at its limit takes no task until
    it has memory back, and arrays between others, in one heap for each thread, never are.

    Dask starts its workers with MALLOC_TRIM_THRESHOLD_, by which glibc gives freed memory back at
    once, and learns nothing (:func:`keep_freed_memory`): the pages of all temporaries would be
    fetched anew, for half of the time of a fit. Where that is not set, nothing changes.
    """
    given = os.environ.get("MALLOC_TRIM_THRESHOLD_", "")
    library = ctypes.CDLL(None) if given.isdigit() and os.name == "posix" else None
    if not hasattr(library, "mallopt"):
        return
    mapped = os.environ.get("MALLOC_MMAP_THRESHOLD_", "")
    before = int(given), int(mapped) if mapped.isdigit() else MAPPED
    # As much as glibc learns at the most: of larger arrays nothing is kept.
    block = min(LARGEST_LEARNT, limit // SHARE_LEARNT) if limit else LARGEST_LEARNT
    kept, largest = (2 * block, block) if hold else before
    library.mallopt(M_TRIM_THRESHOLD, kept)
    library.mallopt(M_MMAP_THRESHOLD, largest)
    if not hold:
        library.malloc_trim(0)


def _after_fork():
    """A forked child has the limit but not the fit."""
    global _blas, _this
    _blas.lift()
    _blas, _this = _Blas(), local()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def warn_caller(text, category):
    """Warn at the line that called the package, past what scikit-learn wraps methods in."""
    frame, level = currentframe(), 1
    while frame.f_back is not None and is_inside(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, category, stacklevel=level)


def is_inside(name):
    """Whether a module is one of this package, or wraps its methods."""
    return name.partition(".")[0] == "skfc" or name.startswith("sklearn.callback.")
