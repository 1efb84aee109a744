"""Memory that stays with the process from one array to the next."""

from functools import cache

import numpy as np

# The largest block that glibc learns from.
LARGEST = 2**25 - 2**16


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
    np.empty(LARGEST, dtype=np.uint8)
