"""Threads that a fit may use."""

import json
import os
import subprocess
import sys

import joblib
import pytest

from skfc._pool import n_threads


@pytest.mark.parametrize("processors", [1, 2, 8])
@pytest.mark.parametrize(("limit", "most"), [("1", 1), ("2", 2), ("3", 3), ("64", 64)])
def test_a_fit_takes_no_more_threads_than_omp_num_threads(monkeypatch, processors, limit, most):
    monkeypatch.setattr(joblib, "cpu_count", lambda: processors)
    monkeypatch.setenv("OMP_NUM_THREADS", limit)
    assert n_threads() == min(processors, most)


@pytest.mark.parametrize("limit", ["", "0", "-1", "many", "4,2"])
def test_a_limit_that_is_none_leaves_at_least_one_thread(monkeypatch, limit):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", limit)
    assert n_threads() == (1 if limit == "0" else 8)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert n_threads() == 8


POOL = """
import json
import joblib
joblib.cpu_count = lambda: 4
from skfc._pool import thread_map
from threading import current_thread

print(json.dumps(sorted(set(thread_map(lambda _: current_thread().name, range(200))))))
"""


@pytest.mark.parametrize("limit", [1, 2])
def test_the_pool_has_no_more_threads_than_that(limit):
    environ = os.environ | {"OMP_NUM_THREADS": str(limit)}
    command = [sys.executable, "-c", POOL]
    out = subprocess.run(command, env=environ, check=True, capture_output=True, text=True)
    assert 1 <= len(json.loads(out.stdout)) <= limit
