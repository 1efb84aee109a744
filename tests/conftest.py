"""What every test file shares."""

import os
from importlib.metadata import version

import pytest

# scikit-learn dispatches with releases of SciPy that know how to, and where they are told to
# before they are imported. Its own checks of arrays of other libraries then run, too.
DISPATCHES = tuple(map(int, version("scipy").split(".")[:2])) >= (1, 14)
if DISPATCHES:
    os.environ.setdefault("SCIPY_ARRAY_API", "1")

import numpy as np  # noqa: E402


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def dispatch():
    """Dispatching on, for one test."""
    from sklearn import config_context

    if not DISPATCHES:
        pytest.skip("scikit-learn dispatches with SciPy 1.14 and later")
    with config_context(array_api_dispatch=True):
        yield
