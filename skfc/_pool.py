"""One pool of threads: pieces of work in order, arrays that threads keep, and who may compute.

A fit computes in the thread that called it. Where a piece of work is cut into several, threads
of the pool take part as long as there are cores for them: those that come late find the work
done, and nobody waits for them. The cut never depends on the number of threads, and results
come in order, so that sums have the same bits for any number.
"""

import math
import os
from contextlib import contextmanager, suppress
from itertools import count, pairwise
from queue import SimpleQueue
from threading import Condition, Lock, Thread, current_thread, get_ident

import joblib
import numpy as np

from skfc import _array
from skfc._tuned import TUNED

# Bytes between the starts of arrays in a room: as wide as the widest of registers.
ALIGNED = 64

ALL = slice(None)  # rows


def n_threads():
    """Threads that a fit may use: the processors joblib sees, at most OMP_NUM_THREADS."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    count = joblib.cpu_count()
    return max(1, min(count, int(limit))) if limit.isdigit() else count


class _Pool:
    """The threads, and a count of those that compute: callers, and helpers of the pool."""

    def __init__(self):
        self.lock, self.jobs, self.threads = Lock(), SimpleQueue(), []
        self.callers = self.helpers = 0
        self.limit = None  # threads that all callers and helpers may be; None: as many as cores
        self.rooms = {}  # memory of every thread, by what it is for

    def take(self, wanted):
        """Helpers for a job, `wanted` at most: as many as cores are left."""
        with self.lock:
            if callable(self.limit):
                self.limit = self.limit()
            limit = n_threads() if self.limit is None else self.limit
            n = max(0, min(wanted, limit - max(self.callers, 1) - self.helpers))
            with suppress(RuntimeError):  # no more threads can be had
                while len(self.threads) < self.helpers + n:
                    helper = _Helper(self)
                    helper.start()
                    self.threads.append(helper)
            n = min(n, len(self.threads) - self.helpers)
            self.helpers += n
        return n

    def give(self, n):
        """Take back what helpers there were."""
        with self.lock:
            self.helpers -= n

    def change(self, callers, limit):
        """Count a caller that comes (1) or goes (-1); the first says how many threads may be."""
        with self.lock:
            if self.callers == 0:
                self.limit = limit
            self.callers += callers
            if self.callers == 0:
                self.limit = None
                self.rooms.clear()


class _Helper(Thread):
    """A thread of the pool. It sleeps until there is work, and does not keep Python alive."""

    def __init__(self, pool):
        super().__init__(name=f"skfc-{len(pool.threads)}", daemon=True)
        self.pool = pool

    def run(self):
        while True:
            self.pool.jobs.get().help(self.pool)


class _Job:
    """Pieces of one piece of work, which threads take in turn."""

    def __init__(self, function, items, n_helpers):
        self.function, self.items, self.turn = function, items, count()
        self.found = [None] * len(items)  # pairs: whether it came to an end, and with what
        self.changed, self.asleep, self.active = Condition(), n_helpers, 0
        self.errors = np.geterr()

    def step(self):
        """Run the next of the pieces; False where none is left."""
        i = next(self.turn)
        if i >= len(self.items):
            return False
        try:
            found = True, self.function(self.items[i])
        except BaseException as error:
            found = False, error
        with self.changed:
            self.found[i] = found
            self.changed.notify_all()
        return True

    def help(self, pool):
        """Take part, in a thread of the pool that has woken up."""
        with self.changed:
            if not self.asleep:  # too late
                return
            self.asleep -= 1
            self.active += 1
        with np.errstate(**self.errors):
            while self.step():
                pass
        pool.give(1)
        with self.changed:
            self.active -= 1
            self.changed.notify_all()

    def result(self, i):
        """What the function gave for item `i`."""
        while self.found[i] is None:
            if not self.step():
                with self.changed:
                    self.changed.wait_for(lambda: self.found[i] is not None)
        ended, value = self.found[i]
        self.found[i] = ()
        if not ended:
            raise value
        return value

    def close(self, pool):
        """Leave what is not begun, and wait for what is."""
        self.items = ()
        with self.changed:
            late, self.asleep = self.asleep, 0
        pool.give(late)
        with self.changed:
            self.changed.wait_for(lambda: not self.active)


_pool = _Pool()


@contextmanager
def caller(limit=None):
    """Around a fit: it computes in this thread, and with helpers up to `limit` threads in all.

    A function gives the limit once it is needed: to count processors takes a small fit's time.
    Several that run at once share the cores, down to one thread each.
    """
    pool = _pool
    pool.change(1, limit)
    try:
        yield
    finally:
        pool.change(-1, None)


def in_order(function, items):
    """Yield `function(item)` for every item, in order; threads take part where there are some.

    What is yielded is let go of: no more of it is held than threads are ahead.
    """
    items = list(items)
    return map(function, items) if len(items) < 2 else _with_helpers(function, items)


def _with_helpers(function, items):
    """:func:`in_order` for a list of several."""
    free = not isinstance(current_thread(), _Helper)
    n_helpers = _pool.take(len(items) - 1) if free else 0
    if not n_helpers:
        yield from map(function, items)
        return
    pool, job = _pool, _Job(function, items, n_helpers)
    try:
        for _ in range(n_helpers):
            pool.jobs.put(job)
        for i in range(len(items)):
            yield job.result(i)
    finally:
        job.close(pool)


def thread_map(function, items, work=None):
    """`[function(item) for item in items]`, by several threads where there are some.

    `work` is that of all of them, in operations, where it may be too little for threads.
    """
    if work is not None and work < 2 * TUNED.block_operations:
        return [function(item) for item in items]
    return list(in_order(function, items))


def product(a, b):
    """a @ b for matrices; of NumPy's where it is work enough, by pieces of the rows of `a`."""
    work = 2 * a.shape[0] * a.shape[1] * b.shape[1]
    if not isinstance(a, np.ndarray) or work < 2 * TUNED.block_operations:
        return _array.product(a, b)
    out = np.empty((len(a), b.shape[1]), dtype=np.result_type(a, b))
    edges = even(len(a), work // TUNED.block_operations)

    def piece(rows):
        out[rows] = np.dot(a[rows], b)

    thread_map(piece, edges)
    return out


def even(n, n_pieces):
    """Slices that cut `n` rows into pieces of about equal numbers."""
    edges = [n * k // n_pieces for k in range(n_pieces + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]


def over_rows(function, array):
    """`function(rows)` over pieces of the rows of `array`, by several threads where it is large.

    For sums and products of arrays like it: pieces of NumPy's, and their temporaries, stay in
    the cache.
    """
    n_pieces = pieces_of(array)
    if n_pieces < 2:
        return [function(ALL)]
    return thread_map(function, even(len(array), n_pieces))


def pieces_of(array):
    """How many pieces of its rows a large array of NumPy's makes; of others there is one."""
    return array.nbytes // TUNED.piece_bytes if isinstance(array, np.ndarray) else 1


def inner(a, b, factors=None):
    """The sum of a * b, or of factors * a * b, by :func:`over_rows`: a float."""
    if pieces_of(a) < 2:
        return _array.inner(a if factors is None else a * factors, b)

    def piece(rows):
        part = a[rows, :] if factors is None else a[rows, :] * factors[rows, :]
        return _array.inner(part, b[rows, :])

    return sum(over_rows(piece, a))


def room(name, shape, dtype):
    """An array of this thread, whose numbers are any; the next of this name has its memory.

    Made once and written into: fresh memory comes page by page, and threads that fetch pages
    wait for one another. It is let go of when the last fit is over.
    """
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if size < TUNED.piece_bytes:
        return np.empty(shape, dtype)
    rooms = _pool.rooms.setdefault(get_ident(), {})
    memory = rooms.get(name)
    if memory is None or memory.nbytes < size:
        # Blocks differ by a row: a little more than is asked for serves all of them.
        memory = np.empty(size + size // 8 + ALIGNED, dtype=np.uint8)
        memory = memory[-memory.ctypes.data % ALIGNED :]
        rooms[name] = memory
    return memory[:size].view(dtype).reshape(shape)


def _after_fork():
    """A forked child has neither the threads nor the fits."""
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
