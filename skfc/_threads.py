"""One pool of threads for the products that release the interpreter lock."""

import os
from concurrent.futures import ThreadPoolExecutor

import joblib

_pool = None


def n_threads():
    """Threads that a fit may use: the processors joblib sees, at most OMP_NUM_THREADS."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    count = joblib.cpu_count()
    return max(1, min(count, int(limit))) if limit.isdigit() else count


def thread_map(function, items):
    """`[function(item) for item in items]`, on the pool when there are several."""
    if len(items) < 2:
        return [function(item) for item in items]
    return list(_get_pool().map(function, items))


def _get_pool():
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(n_threads(), thread_name_prefix="skfc")
    return _pool


def _forget_pool():
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):  # a forked child has the object but not its threads
    os.register_at_fork(after_in_child=_forget_pool)
