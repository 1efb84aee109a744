"""The two products, and the sums over rows, for every kind of container."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import sparse

from skfc._design import make_design

n, N, K = 57, 5, 4


def read_only(X):
    X = X.copy()
    X.setflags(write=False)
    return X


def memory_map(X, path):
    np.save(path / "X.npy", X)
    return np.load(path / "X.npy", mmap_mode="r")


def int64_indexed(X, kind):
    X = kind(X)
    X.indices, X.indptr = X.indices.astype(np.int64), X.indptr.astype(np.int64)
    return X


CONTAINERS = {
    "C order": lambda X, path: np.ascontiguousarray(X),
    "F order": lambda X, path: np.asfortranarray(X),
    "every other row": lambda X, path: np.repeat(X, 2, axis=0)[::2],
    "read-only": lambda X, path: read_only(X),
    "memory map": memory_map,
    "float32": lambda X, path: X.astype(np.float32),
    "csr_array": lambda X, path: sparse.csr_array(X),
    "csr_matrix": lambda X, path: sparse.csr_matrix(X),
    "csr_array, int64": lambda X, path: int64_indexed(X, sparse.csr_array),
    "csr_matrix, int64": lambda X, path: int64_indexed(X, sparse.csr_matrix),
    "csr, float32": lambda X, path: sparse.csr_array(X.astype(np.float32)),
    "csr, stored zeros": lambda X, path: stored_zeros(X),
}


def stored_zeros(X):
    coo = sparse.coo_array(np.ones_like(X))
    return sparse.csr_array((X[coo.row, coo.col], (coo.row, coo.col)), shape=X.shape)


@pytest.fixture
def plain(rng):
    X = rng.integers(-3, 4, (n, N)) / 4  # exact in float32
    X[:, 1] = 0
    X[5] = 0
    return X


@pytest.fixture(params=CONTAINERS)
def container(request, plain, tmp_path):
    return CONTAINERS[request.param](plain, tmp_path)


def close(design):
    eps = np.finfo(design.dtype).eps
    return {"rtol": 100 * eps, "atol": 100 * eps}


def test_products(container, plain, rng):
    design = make_design(container)
    W, R = (rng.integers(-5, 6, (m, K)).astype(design.dtype) for m in (N, n))
    assert design.shape == (n, N)
    for rows in design.blocks:
        forward, adjoint = design.forward(W, rows), design.adjoint(R[rows].T.copy(), rows)
        assert forward.dtype == design.dtype
        assert_allclose(forward, (plain[rows] @ W).T, **close(design))
        assert_allclose(adjoint, plain[rows].T @ R[rows], **close(design))


def test_blocks_cover_every_row_once(container):
    design = make_design(container)
    covered = np.concatenate([np.arange(n)[rows] for rows in design.blocks])
    np.testing.assert_array_equal(covered, np.arange(n))
    assert list(design.map(lambda rows: rows)) == list(design.blocks)


def test_moments_and_rows(container, plain, rng):
    design = make_design(container)
    weight = rng.integers(0, 4, n).astype(float)
    weight /= weight.sum()
    mean = np.asarray(design.mean(weight.astype(design.dtype)), dtype=float)
    assert_allclose(mean, weight @ plain, **close(design))
    mean = weight @ plain
    assert_allclose(design.variance(weight, mean), weight @ (plain - mean) ** 2, **close(design))
    some = np.array([3, 5, 56])
    taken = design.take(some)
    assert taken.dtype == np.float64
    np.testing.assert_array_equal(taken, plain[some])


def test_the_container_is_left_alone(container, plain, rng):
    design = make_design(container)
    for rows in design.blocks:
        design.forward(rng.standard_normal((N, K)).astype(design.dtype), rows)
    design.take(np.arange(3))
    dense = container.toarray() if sparse.issparse(container) else container
    np.testing.assert_array_equal(dense, plain)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
def test_many_blocks_and_threads_add_up(kind, rng):
    """Large enough to be cut: the sum over blocks is the product with the whole."""
    X = rng.standard_normal((40_000, 60))
    design = make_design(kind(X))
    R = rng.standard_normal((K, len(X)))
    total = sum(design.map(lambda rows: design.adjoint(R[:, rows], rows)))
    assert_allclose(total, X.T @ R.T, rtol=1e-10, atol=1e-9)


def test_empty_rows_and_columns_of_a_sparse_design():
    X = sparse.csr_array((200, 7))
    design = make_design(X)
    W = np.ones((7, K))
    for rows in design.blocks:
        assert not design.forward(W, rows).any()
    assert not design.variance(np.full(200, 1 / 200), np.zeros(7)).any()


@pytest.mark.parametrize("n_columns", [K, 40])
def test_sums_over_all_rows(container, plain, n_columns, rng):
    """Residuals and squares of standardised features, in blocks, with Xᵀ or without."""
    design = make_design(container)
    R = rng.integers(0, 6, (n, n_columns)).astype(design.dtype)
    mean, scale = rng.standard_normal(N), rng.uniform(0.5, 2, N)
    designs = [design]
    if design.sparse:
        designs += [design.lighter(np.float32, 3, transpose=flag) for flag in (False, True)]
    for one in designs:
        logits = one.logits(n_columns)
        assert (logits.shape, logits.dtype) == ((n_columns, n), one.dtype)
        logits[:] = R.T

        def block(rows, logits=logits):
            return float(rows.stop - rows.start), logits[:, rows]

        out = np.empty((N, n_columns))
        loss, sums = one.reduce(block, out)
        assert loss == n
        assert_allclose(sums, R.sum(axis=0))
        assert_allclose(out, plain.T @ R, **close(one))
        _, sums = one.reduce_squares(block, out, mean, scale)
        assert_allclose(sums, R.sum(axis=0))
        expected = ((plain - mean) / scale).T ** 2 @ R
        assert_allclose(out, expected, rtol=1e-5 if one.dtype == np.float32 else 1e-12)
