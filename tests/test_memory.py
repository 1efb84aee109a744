"""Freed memory is used again."""

import os
import platform
import subprocess
import sys

import pytest

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


def count(keep):
    environ = {name: v for name, v in os.environ.items() if not name.startswith("MALLOC_")}
    environ.pop("GLIBC_TUNABLES", None)
    code = COUNT.format(keep=keep)
    command = [sys.executable, "-c", code]
    return int(subprocess.run(command, env=environ, check=True, capture_output=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what glibc does")
def test_pages_of_freed_arrays_are_not_fetched_again():
    assert count(keep=True) < 0.05 * count(keep=False)
