"""Moments of parts are those of the whole, in any order and any range."""

from functools import reduce
from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from skfc._moments import Moments, hypot, unit_of
from skfc._rows import make_rows

n, N, B = 60, 5, 3
SPLITS = [[60], [1, 59], [59, 1], [20, 20, 20], [1] * 60, [7, 0, 53]]
FIELDS = ("total", "mean", "std", "low", "high")


def exact(X, weight):
    """Means and standard deviations (B, N) in long double."""
    X, share = X.astype(np.longdouble), weight.astype(np.longdouble)
    share = share / share.sum(axis=1, keepdims=True)
    unit = np.abs(X).max(axis=0)
    unit[unit == 0] = 1
    mean = share @ (X / unit)
    std = np.sqrt([s @ (X / unit - m) ** 2 for s, m in zip(share, mean, strict=True)])
    return (mean * unit).astype(float), (std * unit).astype(float)


@pytest.fixture
def X(rng):
    """Columns of several units and offsets: one constant, one of zeros, one far from zero."""
    X = rng.standard_normal((n, N)) * [1e-6, 1e6, 1.0, 1.0, 1.0] + [0.0, 1e6, 3.0, 0.0, 1e6]
    X[:, 2], X[:, 3] = 3.0, 0.0
    return X


@pytest.fixture
def weight(rng):
    """Weights (B, n), zero for some rows; in one problem for all but the last ones."""
    weight = rng.uniform(0.1, 2, (B, n)) * rng.integers(0, 2, (B, n))
    weight[2, : n // 2] = 0.0
    weight[:, -1] = 1.0
    return weight


def in_parts(X, weight, sizes):
    edges = np.cumsum([0, *sizes])
    parts = [slice(a, b) for a, b in pairwise(edges) if b > a]
    return [Moments.of(X[part], weight[:, part]) for part in parts]


def assert_equal_moments(a, b, rtol=1e-12, atol=0.0):
    for name in FIELDS:
        assert_allclose(getattr(a, name), getattr(b, name), rtol=rtol, atol=atol, err_msg=name)


def test_the_moments(X, weight):
    found = Moments.of(X, weight)
    mean, std = exact(X, weight)
    assert_allclose(found.total, weight.sum(axis=1))
    assert_allclose(found.mean, mean, rtol=1e-13, atol=1e-20)
    assert_allclose(found.std, std, rtol=1e-9, atol=1e-15)
    weighted = X[weight.any(axis=0)]  # other rows may hold anything
    assert_array_equal(found.low, weighted.min(axis=0))
    assert_array_equal(found.high, weighted.max(axis=0))
    assert_array_equal(found.varies, [True, True, False, False, True])


@pytest.mark.parametrize("sizes", SPLITS, ids=lambda s: f"{len(s)} parts")
def test_any_split_merges_to_the_whole(X, weight, sizes):
    """Also where a part has no weight in some problem, and where every part is one row."""
    whole, parts = Moments.of(X, weight), in_parts(X, weight, sizes)
    assert_equal_moments(reduce(Moments.__add__, parts), whole, rtol=1e-9, atol=1e-15)
    assert_equal_moments(reduce(Moments.__add__, parts[::-1]), whole, rtol=1e-9, atol=1e-15)


def test_parts_whose_means_differ(weight):
    """All of the variance is between the parts."""
    X = np.repeat([[0.0], [10.0]], n // 2, axis=0)
    merged = reduce(Moments.__add__, in_parts(X, weight, [n // 2, n // 2]))
    assert_allclose(merged.std, exact(X, weight)[1], rtol=1e-14, atol=1e-20)
    assert (merged.std[:2] > 1).all()


def test_a_part_without_weight_in_some_problems(rng):
    """Rows that a fold holds out, in columns far from zero."""
    X = rng.standard_normal((n, 2)) + np.array([1e9, 3.0])
    weight = np.ones((2, n))
    weight[0, :20] = 0.0
    merged = reduce(Moments.__add__, in_parts(X, weight, [20, 40]))
    assert_allclose(merged.std, exact(X, weight)[1], rtol=1e-6)


def test_order_and_grouping_do_not_matter(X, weight):
    a, b, c, d = in_parts(X, weight, [10, 20, 5, 25])
    close = {"rtol": 1e-9, "atol": 1e-15}
    assert_equal_moments((a + b) + (c + d), ((d + c) + b) + a, **close)
    assert_equal_moments(a + (b + (c + d)), ((a + b) + c) + d, **close)


def test_whole_weights_are_repeated_rows(X, rng):
    weight = rng.integers(0, 4, n)
    found = Moments.of(X, weight[None].astype(float))
    rows = np.repeat(X, weight, axis=0)
    expected = Moments.of(rows, np.ones((1, len(rows))))
    for name in FIELDS[:3]:
        assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-9, atol=1e-15)


def test_problems_pool_with_equal_totals(X, weight):
    pooled = Moments.of(X, weight).pooled()
    share = weight / weight.sum(axis=1, keepdims=True)
    expected = exact(X, share.sum(axis=0)[None])
    assert_allclose(pooled.mean, expected[0], rtol=1e-12, atol=1e-20)
    assert_allclose(pooled.std, expected[1], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("size", [1e-300, 1e-160, 1e-100, 1e100, 1e160, 1e300])
def test_columns_whose_squares_leave_the_range(size, weight, rng):
    X = rng.standard_normal((n, 2)) * [size, 1.0]
    mean, std = exact(X, weight)
    for moments in (Moments.of(X, weight),
                    reduce(Moments.__add__, in_parts(X, weight, [20, 20, 20])),
                    csr_moments(X, weight)):  # fmt: skip
        assert_allclose(moments.mean, mean, rtol=1e-10)
        assert_allclose(moments.std, std, rtol=1e-10)
        assert moments.varies.all()


@pytest.mark.parametrize("size", [1e-30, 1e-18, 1e18, 1e30])
def test_columns_whose_squares_leave_the_range_of_float32(size, weight, rng):
    X = (rng.standard_normal((n, 2)) * [size, 1.0]).astype(np.float32)
    mean, std = exact(X, weight)
    for moments in (Moments.of(X, weight), csr_moments(X, weight)):
        assert moments.mean.dtype == moments.std.dtype == np.float64
        assert_allclose(moments.mean / std, mean / std, atol=1e-6)
        assert_allclose(moments.std, std, rtol=1e-5)


def csr_moments(X, weight):
    rows = make_rows(sparse.csr_array(X), np.zeros(len(X), dtype=int), weight, 2)
    with np.errstate(all="ignore"):  # as in a fit
        return rows.moments()


@pytest.mark.parametrize("distance", [0.0, 1e2, 1e5, 1e9])
@pytest.mark.parametrize("hold", [np.asarray, sparse.csr_array])
def test_columns_far_from_zero(hold, distance, weight, rng):
    """In standard deviations; X itself is rounded to 1e-16 of them times the distance."""
    X = np.column_stack([rng.standard_normal(n), rng.standard_normal(n) + distance])
    X[3, 0] = 0.0
    rows = make_rows(hold(X), np.zeros(n, dtype=int), weight, 2)
    mean, std = exact(X, weight)
    moments = rows.moments()
    assert_allclose(moments.mean, mean, rtol=1e-14, atol=1e-14)
    assert_allclose(moments.std, std, rtol=1e-9)
    assert moments.varies.all()


def test_constant_columns_of_a_csr(weight):
    """Zeros, a constant, and a constant times the mean weight that rounds."""
    X = np.column_stack([np.zeros(n), np.full(n, 0.1), np.full(n, 1e9 / 3), np.arange(n)])
    moments = csr_moments(X, weight)
    assert_array_equal(moments.varies, [False, False, False, True])


def test_float32_loses_no_offset(weight, rng):
    """The mean of float32 columns is summed from the centre, not from zero."""
    X = (rng.standard_normal((n, 1)) + 1e4).astype(np.float32)
    mean, std = exact(X, weight)
    moments = Moments.of(X, weight)
    assert_allclose(moments.mean, mean, atol=1e-5)
    assert_allclose(moments.std, std, rtol=1e-5)


def test_array_api(X, weight):
    xp = pytest.importorskip("array_api_strict")
    parts = [slice(0, 25), slice(25, n)]
    parts = [Moments.of(xp.asarray(X[p]), xp.asarray(weight[:, p])) for p in parts]
    found = reduce(Moments.__add__, parts)
    whole = Moments.of(X, weight)
    for a, b in ((found, whole), (found.pooled(), whole.pooled())):
        for name in FIELDS:
            assert_allclose(np.asarray(getattr(a, name)), getattr(b, name), rtol=1e-9, atol=1e-15)


def test_units():
    assert unit_of(np.array([-1.0, 0.0]), np.array([2.0, 0.0])) is None
    low, high = np.array([-1e200, 0.0, 1.0]), np.array([1e150, 1e-200, 2.0])
    assert_array_equal(unit_of(low, high), [1e200, 1e-200, 1.0])
    assert_allclose(hypot(np.array([3e200]), np.array([4e200])), [5e200])
