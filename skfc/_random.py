"""Random numbers of a sequence of its own, the same in every fit: it is deterministic.

Data are often drawn from `numpy.random.default_rng(0)`, and rows that are drawn by the same
numbers can all be of one category.
"""

import numpy as np

ENTROPY = int.from_bytes(b"skfc", "big")


def generator():
    """A `numpy.random.Generator` at the start of the sequence."""
    return np.random.default_rng(ENTROPY)


def uniform(start, n, turn=0):
    """The numbers `start` to `start + n` of a sequence of uniform ones, one for each `turn`."""
    return np.random.Generator(np.random.PCG64([ENTROPY, turn]).advance(start)).random(n)
