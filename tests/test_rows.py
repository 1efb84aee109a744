"""One table of laws for every container of rows: sums, Gram matrices, moments, samples."""

import pickle
from functools import partial

import array_api_strict
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from scipy.special import logsumexp

from skfc._array import take
from skfc._blockwise import evaluate
from skfc._frame import Frame
from skfc._row_samples import draw, everything
from skfc._rows import columns_of, make_rows
from skfc._rows._part_functions import logits_at
from skfc._rows._streamed import Streamed
from skfc._runtime import computing
from skfc._tuned import override

n, N, T = 57, 6, 3
# Columns this far from zero: float32 keeps 3 digits of what varies, float64 12, and 3 again.
OFFSET, FAR = 2.0**18, 2.0**42
WHOLE = [slice(0, n)]
SPLITS = [[slice(0, 1), slice(1, n)], [slice(k, k + 1) for k in range(n)],
          [slice(0, 20), slice(20, 41), slice(41, n)]]  # fmt: skip


def memory_map(X, path):
    np.save(path / "X.npy", X)
    return np.load(path / "X.npy", mmap_mode="r")


def read_only(X):
    X = X.copy()
    X.setflags(write=False)
    return X


def int64_indexed(X):
    X = sparse.csr_matrix(X)
    X.indices, X.indptr = X.indices.astype(np.int64), X.indptr.astype(np.int64)
    return X


def stored_zeros(X):
    coo = sparse.coo_array(np.ones_like(X))
    return sparse.csr_array((X[coo.row, coo.col], (coo.row, coo.col)), shape=X.shape)


def strict(X):
    return array_api_strict.asarray(X)


def streamed(X):
    return Streamed(X, strict(X[:0]))


def some_streamed(X):
    """Seen through indices of rows and features of a larger array."""
    rows, columns = np.random.default_rng(1).permutation(n + 1)[:n], np.arange(N)[::-1]
    larger = np.full((n + 1, N + 1), 1e9)
    larger[np.ix_(rows, columns)] = X
    return take(take(streamed(larger), rows), columns, axis=1)


def as_float32(X):
    return X.astype(np.float32)


def as_csr32(X):
    return sparse.csr_array(X.astype(np.float32))


class Container:
    """How X is held, how far its columns are from zero, and how exact sums must be.

    Sums of squares of rows that are not centred lose twice the digits: `squares` for them.
    """

    def __init__(self, hold, eps=1e-13, offset=0.0, view=lambda rows: rows, squares=None):
        self.hold, self.eps, self.offset, self.view = hold, eps, offset, view
        self.squares = squares or eps


def single(rows):
    """The copy for cheap products: scaled values, and Xᵀ beside X, in small blocks. Or none."""
    with override(single_from=0, small_block_bytes=256):
        return rows.single() or rows


def single_without_transposed(rows):
    """The same with more stored values than weights, where Xᵀ would be large."""
    rows = rows._like(rows.X, rows.target, rows.weight, blocks=rows.blocks)
    with override(single_from=0):
        one = rows.single()
    return one._like(one.X, one.target, one.weight, blocks=rows.blocks, transposed=None)


def all_selected(rows):
    """The dense, standardised sample of all rows."""
    return rows.select(everything(rows), rows.xp.float64).rows


SINGLE = 1e-5
CONTAINERS = {
    "C order": Container(np.ascontiguousarray),
    "F order": Container(np.asfortranarray),
    "every other row": Container(lambda X: np.repeat(X, 2, axis=0)[::2]),
    "read-only": Container(read_only),
    "memory map": Container(memory_map),
    "float32": Container(as_float32, SINGLE),
    "float32 copy": Container(np.array, SINGLE, view=single),
    "sample": Container(np.array, view=all_selected),
    "offset": Container(np.array, 1e-9, OFFSET),
    "offset float32, centred": Container(as_float32, SINGLE, OFFSET),
    "offset, centred": Container(np.array, 1e-13, FAR),
    "offset, float32 copy": Container(np.array, SINGLE, OFFSET, single),
    "csr_array": Container(sparse.csr_array),
    "csr_matrix": Container(sparse.csr_matrix),
    "csr, int64": Container(int64_indexed),
    "csr, float32": Container(as_csr32, SINGLE),
    "csr, stored zeros": Container(stored_zeros),
    "csr, single": Container(sparse.csr_array, SINGLE, view=single),
    "csr, single, no transpose": Container(
        sparse.csr_array, SINGLE, view=single_without_transposed
    ),
    "csr, offset": Container(sparse.csr_array, 1e-9, OFFSET, squares=1e-3),
    "csr, float32, offset": Container(as_csr32, 1e-9, OFFSET, squares=1e-3),
    "csr, offset, single": Container(sparse.csr_array, 1e-9, OFFSET, single, 1e-3),
    "csr, float32, offset, single": Container(as_csr32, 1e-9, OFFSET, single, 1e-3),
    "array API": Container(strict),
    "array API, float32": Container(lambda X: strict(as_float32(X)), SINGLE),
    "streamed": Container(streamed),
    "streamed, float32": Container(lambda X: streamed(as_float32(X)), SINGLE),
    "streamed, some rows and columns": Container(some_streamed),
}


def plain_data(offset=0.0):
    """X that float32 holds too: a column of zeros, a constant one, and those far from zero."""
    X = np.random.default_rng(0).integers(-3, 4, (n, N)) / 4
    X[5] = 0
    X[:, 1], X[:, 2] = 0.0, 1.5
    X[:, 3] += offset
    return X


@pytest.fixture(params=CONTAINERS)
def container(request):
    return CONTAINERS[request.param]


@pytest.fixture(params=[1, 2, 6], ids=lambda k: f"{k} problems")
def n_problems(request):
    return request.param


@pytest.fixture(params=[True, False], ids=["intercept", "no intercept"])
def fit_intercept(request):
    return request.param


class Case:
    """Rows of a container, and the same as dense standardised features in long double."""

    def __init__(
        self, container, path, *, n_problems=2, fit_intercept=True, blocks=None, frame=None
    ):
        self.plain = plain_data(container.offset)
        rng = np.random.default_rng(1)
        self.y = rng.integers(0, T, n)
        weight = rng.integers(0, 4, (n_problems, n)).astype(float)
        weight[:, :T] = 1.0
        self.weight = weight * (n / weight.sum(axis=1, keepdims=True))
        hold = partial(container.hold, path=path) if container.hold is memory_map else (
            container.hold
        )  # fmt: skip
        self.held = hold(self.plain)
        kind = type(getattr(self.held, "like", self.held))
        xp = strict if "strict" in kind.__module__ else np.asarray
        rows = make_rows(self.held, xp(self.y), xp(self.weight), T)
        if blocks is not None:
            rows = type(rows)(rows.X, rows.target, rows.weight, n_classes=T, blocks=blocks)
        self.moments = rows.moments()
        frame = frame or Frame.of(self.moments.pooled(), fit_intercept)
        self.rows = container.view(rows.in_frame(frame))
        self.frame, self.array = frame, xp
        mean, inverse = (np.asarray(v, dtype=np.longdouble) for v in (frame.mean, frame.inverse))
        standard = (self.plain - mean) * inverse
        ones = np.ones((n, int(fit_intercept)), dtype=np.longdouble)
        self.X = np.hstack([standard, ones])
        # Without an intercept features are not centred: float32 is right for all of x̃.
        uncentred = container.offset and sparse.issparse(self.held) and not fit_intercept
        self.eps = SINGLE if uncentred else container.eps
        self.close = {"rtol": self.eps, "atol": 4 * self.eps}

    @property
    def K(self):
        return T * len(self.weight)

    def like(self, values):
        """Values in the library and the type of products."""
        return self.array(np.asarray(values).astype(type_name(self.rows.dtype)))

    def parameters(self, values):
        return self.array(np.asarray(values).astype(type_name(self.rows.parameter_dtype)))

    def state(self, values):
        """Host values (M, n) as what blocks keep."""
        return [(self.like(values)[:, block],) for block in self.rows.blocks]


def type_name(dtype):
    return "float32" if "float32" in str(dtype) else "float64"


def host(array):
    return np.asarray(array).astype(float)


def whole(state, k=0):
    """A kept array of all blocks, put together."""
    return np.concatenate([host(kept[k]) for kept in state], axis=-1)


# -- functions of a block -------------------------------------------------------------------------


def keep_logits(block, logits):
    return (), None, (logits + 0,)


def give(block, logits, *, R):
    """Residuals R (K, n), and their sums as values."""
    part = R[:, block.rows]
    return (block.like([float(np.sum(host(part)))]),), part, ()


def leave_two(block, logits):
    return (), None, (logits, 2.0 * logits)


def look_at_two(block, logits, first, second):
    """Whether what comes back belongs to the block, by the logits that came again."""
    wrong = np.abs(host(second) - 2 * host(first)).max() + np.abs(host(first - logits)).max()
    return (np.array([wrong]),), None, (second, first)


# -- sums ----------------------------------------------------------------------------------------


def test_logits_are_products_with_standardised_features(
    container, tmp_path, n_problems, fit_intercept, rng
):
    case = Case(container, tmp_path, n_problems=n_problems, fit_intercept=fit_intercept)
    theta = rng.integers(-5, 6, (case.X.shape[1], case.K))
    found = case.rows.sum(keep_logits, case.parameters(theta))
    assert found.gradient is None
    logits = whole(found.state)
    assert logits.shape == (case.K, n)
    assert_allclose(logits, (case.X @ theta).T.astype(float), **case.close)


@pytest.mark.parametrize("power", [1, 2])
def test_gradients_are_products_with_powers_of_standardised_features(
    container, tmp_path, n_problems, fit_intercept, power, rng
):
    case = Case(container, tmp_path, n_problems=n_problems, fit_intercept=fit_intercept)
    R = rng.integers(0 if power == 2 else -6, 7, (case.K, n))
    found = case.rows.sum(partial(give, R=case.like(R)), power=power)
    assert found.gradient.dtype == case.rows.parameter_dtype
    assert_allclose(found.values[0], [R.sum() / n], rtol=1e-6)
    expected = (case.X**power).T @ R.T / n
    eps = case.eps if power == 1 else container.squares
    assert_allclose(host(found.gradient), expected.astype(float), rtol=eps, atol=20 * eps)


def test_weights_of_zero_need_no_product(container, tmp_path):
    case = Case(container, tmp_path)
    theta = np.zeros((case.X.shape[1], case.K))
    theta[N] = np.arange(case.K)
    before = case.rows.work.passes
    logits = whole(case.rows.sum(keep_logits, case.parameters(theta)).state)
    assert_array_equal(logits, np.tile(np.arange(case.K, dtype=float)[:, None], n))
    assert case.rows.work.passes == before


def test_a_product_is_half_a_pass(container, tmp_path, rng):
    case = Case(container, tmp_path)
    theta = case.parameters(rng.standard_normal((case.X.shape[1], case.K)))
    R = case.like(np.ones((case.K, n)))
    work = case.rows.work
    for function, first, passes, steps in [
        (keep_logits, theta, 0.5, 0), (partial(give, R=R), None, 0.5, 1),
        (partial(give, R=R), theta, 1.0, 1),
    ]:  # fmt: skip
        before = work.passes, work.steps
        case.rows.sum(function, first)
        assert (work.passes - before[0], work.steps - before[1]) == (passes, steps)
        case.rows.sum(function, first, count=False)
        assert (work.passes - before[0], work.steps - before[1]) == (passes, steps)


def test_state_stays_with_its_block(container, tmp_path, rng):
    case = Case(container, tmp_path, blocks=SPLITS[2])
    theta = case.parameters(rng.standard_normal((case.X.shape[1], case.K)))
    first = case.rows.sum(leave_two, theta)
    again = case.rows.sum(look_at_two, theta, first.state)
    assert_allclose(again.values[0], 0.0)
    assert_array_equal(whole(again.state, 0), whole(first.state, 1))
    assert len(again.state) == len(case.rows.blocks)


def test_blocks_can_be_pickled(container, tmp_path):
    """A function of a block runs where the block lives."""
    case = Case(container, tmp_path)
    logits = case.like(np.random.default_rng(3).standard_normal((case.K, n)))
    for block in case.rows._blocks:
        other = pickle.loads(pickle.dumps(block)) if case.array is np.asarray else block
        here, there = (evaluate(b, logits[:, b.rows] + 0) for b in (block, other))
        assert_array_equal(host(there[0][0]), host(here[0][0]))
        assert_array_equal(host(there[1]), host(here[1]))


@pytest.mark.parametrize("blocks", SPLITS, ids=len)
def test_the_split_into_blocks_changes_nothing(container, tmp_path, blocks, rng):
    """Up to rounding, for all that a container gives."""
    one = Case(container, tmp_path, blocks=WHOLE)
    cut = Case(container, tmp_path, blocks=blocks, frame=one.frame)
    theta = one.parameters(rng.integers(-3, 4, (one.X.shape[1], one.K)))
    R = one.like(rng.integers(0, 5, (one.K, n)))
    close = one.close | {"atol": 100 * container.eps}
    for function in (partial(give, R=R), evaluate):
        a, b = (c.rows.sum(function, theta) for c in (one, cut))
        assert_allclose(host(b.gradient), host(a.gradient), **close)
        assert_allclose(host(b.values[0]), host(a.values[0]), **close)
    weights = rng.integers(0, 3, (2, n))
    a, b = (host(c.rows.gram(c.state(weights))) for c in (one, cut))
    assert_allclose(b, a, **close)
    for name in ("total", "mean", "std", "low", "high"):
        a, b = (host(getattr(c.moments, name)) for c in (one, cut))
        assert_allclose(b, a, **moments_close(one))


def test_blocks_cover_every_row_once(container, tmp_path):
    case = Case(container, tmp_path)
    covered = np.concatenate([np.arange(n)[rows] for rows in case.rows.blocks])
    assert_array_equal(covered, np.arange(n))


def test_large_rows_are_cut(rng):
    """Rows that do not fit into a block: the sums are those with the whole."""
    X = rng.standard_normal((5000, 6))
    y, weight = np.arange(len(X)) % T, np.ones((1, len(X)))
    with override(small_block_bytes=2**14, min_block_rows=256, block_operations=1):
        rows = make_rows(X, y, weight, T)
    assert len(rows.blocks) > 5
    rows = rows.in_frame(Frame.of(rows.moments().pooled(), True))
    standard = (X - X.mean(axis=0)) / X.std(axis=0)
    R = rng.standard_normal((T, len(X)))
    found = rows.sum(partial(give, R=R)).gradient
    assert_allclose(found[:6], standard.T @ R.T / len(X), rtol=0, atol=1e-12)


def test_some_problems_alone(container, tmp_path, rng):
    case = Case(container, tmp_path, n_problems=4)
    theta = rng.integers(-3, 4, (case.X.shape[1], case.K)) / 4
    index = np.array([0, 3])
    columns = columns_of(index, T)
    assert_array_equal(columns, [0, 1, 2, 9, 10, 11])
    sums = case.rows.sum(evaluate, case.parameters(theta))
    part, state = case.rows.problems(index, sums.state)
    assert (part.n_problems, part.n_columns) == (2, 2 * T)
    assert_array_equal(whole(state), whole(sums.state)[columns])
    alone = part.sum(evaluate, case.parameters(theta[:, columns]))
    assert_allclose(alone.values[0], host(sums.values[0])[index], **case.close)
    assert_allclose(host(alone.gradient), host(sums.gradient)[:, columns], **case.close)
    assert part.work is case.rows.work


# -- what the frame and preconditioners need -----------------------------------------------------


def test_gram(container, tmp_path, fit_intercept, rng):
    case = Case(container, tmp_path, fit_intercept=fit_intercept)
    weights = rng.integers(0, 3, (4, n))
    weights[1, : n // 2] = 0  # most rows without weight
    found = host(case.rows.gram(case.state(weights)))
    expected = [(case.X * w[:, None]).T @ case.X / n for w in weights]
    assert_allclose(found, np.array(expected, dtype=float), rtol=0, atol=20 * container.squares)


@pytest.mark.parametrize("size", [2**24, 1000], ids=["at once", "in pieces"])
@pytest.mark.parametrize("sampled", [False, True], ids=["all rows", "a sample"])
def test_sums_of_pairs(container, tmp_path, fit_intercept, size, sampled, rng):
    """X̃ᵀ diag(m p_k p_j) X̃ / n for the pairs k < j of classes.

    Six weights are more than half as many as the features, three are not: of these Gram matrices
    are formed where products of all pairs of features are large.
    """
    case = Case(container, tmp_path, fit_intercept=fit_intercept, blocks=SPLITS[2])
    rows = all_selected(case.rows) if sampled else case.rows
    proba = rng.dirichlet(np.ones(T), (2, n)).transpose(0, 2, 1)
    state = [(case.array(proba.reshape(2 * T, n)[:, block]),) for block in rows.blocks]
    with override(block_bytes=size, small_block_bytes=size):
        found = [host(rows.pair_sums(state, rows.xp.float64)) for _ in range(2)]
        first, its_state = rows.problems(np.array([0]), state)
        alone = [host(first.pair_sums(its_state, rows.xp.float64)) for _ in range(2)]
    for b, p in enumerate(proba):
        weights = [case.weight[b] * p[k] * p[j] for k in range(T) for j in range(k + 1, T)]
        right = np.array([(case.X * w[:, None]).T @ case.X / n for w in weights], dtype=float)
        close = {"rtol": case.eps, "atol": 20 * container.squares}
        assert_allclose(found[0][b], right, **close)
        if b == 0:
            assert_allclose(alone[0][0], right, **close)
    assert_array_equal(found[1], found[0])
    assert_array_equal(alone[1], alone[0])


@pytest.mark.parametrize("size", [2**24, 1000], ids=["at once", "in pieces"])
def test_quadratic_forms_of_rows(container, tmp_path, fit_intercept, size, rng):
    case = Case(container, tmp_path, fit_intercept=fit_intercept, blocks=SPLITS[2])
    P = case.rows.n_parameters
    forms = rng.standard_normal((3, P, P))
    forms = forms + forms.transpose(0, 2, 1)
    with override(block_bytes=size, small_block_bytes=size):
        found = whole(case.rows.row_forms(case.array(forms)))
    right = np.einsum("ni,kij,nj->kn", case.X, forms, case.X).max(axis=0)
    assert_allclose(found, right.astype(float), rtol=0, atol=100 * P * container.squares)


def moments_close(case):
    """Weights are in the type of X; and a mean is rounded, by parts of a standard deviation."""
    eps = 1e-6 if type_name(case.held.dtype) == "float32" else 1e-10
    return {"rtol": eps, "atol": eps + np.abs(case.plain).max() * 2.0**-50}


def test_moments(container, tmp_path):
    """Weighted means and standard deviations, and which columns are constant."""
    case = Case(container, tmp_path, n_problems=3)
    moments = case.moments
    plain, weight = case.plain.astype(np.longdouble), case.weight
    share = weight / weight.sum(axis=1, keepdims=True)
    mean = share @ plain
    std = np.sqrt([s @ (plain - m) ** 2 for s, m in zip(share, mean, strict=True)])
    assert_allclose(host(moments.total), weight.sum(axis=1), rtol=1e-6)
    assert_allclose(host(moments.mean), mean.astype(float), **moments_close(case))
    assert_allclose(host(moments.std), std.astype(float), **moments_close(case))
    frame = Frame.of(moments.pooled(), True)
    assert_array_equal(np.flatnonzero(host(frame.inverse) == 0), [1, 2])


def test_loss_of_coefficients_in_the_units_of_X(container, tmp_path, rng):
    """In float64, whatever the type of X."""
    base = Container(container.hold, container.eps, container.offset)
    case = Case(base, tmp_path, n_problems=1)
    coef, intercept = rng.standard_normal((T, N)), rng.standard_normal(T)
    coef[:, 3] /= 1 + container.offset
    logits = case.plain @ coef.T + intercept
    rows = logsumexp(logits, axis=1) - logits[np.arange(n), case.y]
    expected = case.weight[0].astype(np.float32 if container.eps == SINGLE else float) @ rows / n
    found = case.rows.loss_of(case.array(coef), case.array(intercept))
    assert_allclose(host(found), [expected], rtol=1e-7 if container.eps >= SINGLE else 1e-12)


def test_the_container_is_left_alone(container, tmp_path, rng):
    case = Case(container, tmp_path)
    theta = case.parameters(rng.standard_normal((case.X.shape[1], case.K)))
    before = theta + 0
    sums = case.rows.sum(evaluate, theta)
    case.rows.sum(partial(give, R=case.like(np.ones((case.K, n)))), power=2, state=None)
    case.rows.gram(case.state(np.ones((1, n))))
    sample = case.rows.select(everything(case.rows), case.rows.xp.float64)
    sample.rows.sum(evaluate, theta)
    sample.carry(sums.state)
    prominence(case.rows)
    held = case.held.toarray() if sparse.issparse(case.held) else host(case.held[:, :])
    assert_array_equal(held, case.plain)
    assert_array_equal(host(theta), host(before))


# -- samples -------------------------------------------------------------------------------------


def state_of(rows, values):
    """What rows stand for in a sample, one number per row, as a state."""
    return [(rows.xp.asarray(values[block])[None, :],) for block in rows.blocks]


def prominence(rows):
    return whole(rows.with_prominence([()] * len(rows.blocks)))


def given_chance(block, _, *, chance):
    """What rows are drawn in proportion to stays, and its sum is the value."""
    part = block.like(chance[block.rows])[None, :]
    return (np.array([np.sum(host(part))]),), None, (part,)


def test_prominence_is_the_length_of_standardised_rows(container, tmp_path):
    case = Case(container, tmp_path)
    found = prominence(case.rows)
    expected = 1 + (case.X[:, :N] ** 2).sum(axis=1) / N
    assert_allclose(found, expected.astype(float), rtol=20 * container.squares)


@pytest.mark.parametrize("passed_on", [False, True])
def test_draws_are_poisson_samples(container, tmp_path, rng, passed_on):
    """Importance is one over the chance: the expected importance of every row is one."""
    case = Case(container, tmp_path, blocks=SPLITS[2])
    chance = rng.uniform(0.1, 1, n)
    chance[7] = 10  # a row that is drawn for sure
    function = partial(given_chance, chance=chance)
    importance = whole(draw(case.rows, function, 20, state=None, passed_on=passed_on))[0]
    drawn, factor = importance > 0, 20 / chance.sum()
    while passed_on:  # the surplus of rows drawn for sure goes to the others
        sure = chance * factor >= 1
        if sure.sum() + factor * chance[~sure].sum() > 0.9 * 20:
            break
        factor = (20 - sure.sum()) / chance[~sure].sum()
    expected = np.minimum(chance * factor, 1.0)
    assert_allclose(importance[drawn], 1 / expected[drawn], rtol=1e-6)
    assert 5 < drawn.sum() < n // 2
    assert importance[7] == 1
    again = whole(draw(case.rows, function, 20, state=None, passed_on=passed_on))[0]
    assert_array_equal(again, importance)


@pytest.mark.parametrize("blocks", SPLITS, ids=len)
def test_the_same_rows_are_drawn_in_any_blocks(tmp_path, blocks, rng):
    function = partial(given_chance, chance=rng.uniform(0.1, 1, n))
    cases = [Case(CONTAINERS["C order"], tmp_path, blocks=b) for b in (WHOLE, blocks)]
    a, b = (whole(draw(case.rows, function, 20, state=None)) for case in cases)
    assert_allclose(b, a, rtol=1e-12)


def test_the_size_of_a_draw(rng):
    X = rng.standard_normal((4000, 2))
    rows = make_rows(X, np.arange(4000) % T, np.ones((1, 4000)), T)
    function = partial(given_chance, chance=rng.uniform(0.5, 1.5, 4000))
    for size in (100, 1000):
        drawn = np.count_nonzero(whole(draw(rows, function, size, state=None)))
        assert abs(drawn - size) < 5 * np.sqrt(size)


def test_logits_that_are_made_again_are_no_workspace(container, tmp_path, rng):
    """Products of the next block, and of the next call, are written where theirs were."""
    case = Case(container, tmp_path, blocks=SPLITS[2])
    theta = rng.integers(-3, 4, (case.X.shape[1], case.K))
    expected = whole(case.rows.sum(keep_logits, case.parameters(theta)).state)
    with override(piece_bytes=1), computing():
        _, again = logits_at(case.rows, case.parameters(theta))
        case.rows.sum(evaluate, case.parameters(2 * theta))
    assert_allclose(whole(again), expected, **case.close)


def test_a_sample_stands_for_all_rows(container, tmp_path, rng):
    """Its sums are those of its rows, weighted by importance, over the number of all rows."""
    case = Case(container, tmp_path, blocks=SPLITS[2])
    importance = rng.integers(0, 3, n).astype(float)
    kept = np.flatnonzero(importance)
    sample = case.rows.select(state_of(case.rows, importance), case.rows.xp.float64)
    rows = sample.rows
    assert (rows.shape, rows.n_total) == ((len(kept), N), n)
    assert_allclose(host(rows.standardised()), case.X[kept, :N].astype(float), **case.close)
    assert_array_equal(host(rows.target), case.y[kept])
    assert_allclose(host(rows.weight), case.weight[:, kept] * importance[kept], rtol=1e-12)
    theta = rng.integers(-3, 4, (case.X.shape[1], case.K))
    logits = case.rows.sum(keep_logits, case.parameters(theta)).state
    carried = whole(sample.carry(logits))
    assert_allclose(carried, whole(logits)[:, kept], rtol=1e-7)
    found = rows.sum(evaluate, case.array(theta.astype(float)))
    assert_allclose(whole(found.state), carried, **case.close)
    z = (case.X[kept] @ theta).T.reshape(-1, T, len(kept)).astype(float)
    losses = logsumexp(z, axis=1) - z[:, case.y[kept], np.arange(len(kept))]
    expected = (losses * case.weight[:, kept] * importance[kept]).sum(axis=1) / n
    assert_allclose(host(found.values[0]), expected, rtol=1e3 * container.eps)
    (part,) = sample.problems(np.array([1])).rows.problems(np.array([0]))
    assert_array_equal(host(part.weight), host(rows.weight)[1:])
    before = rows.work.passes
    rows.sum(evaluate, case.array(theta.astype(float)))
    assert_allclose(rows.work.passes - before, len(kept) / n)


def test_states_pass_between_precisions_and_blocks(rng):
    X = sparse.csr_array(plain_data())
    y, weight = np.arange(n) % T, np.ones((1, n))
    exact = make_rows(X, y, weight, T)
    exact = type(exact)(X, y, weight, n_classes=T, blocks=SPLITS[2])
    exact = exact.in_frame(Frame.of(exact.moments().pooled(), True))
    cheap = single(exact)
    theta = rng.standard_normal((N + 1, T))
    state = exact.sum(keep_logits, theta).state
    adopted = cheap.adopt(exact, state)
    assert [kept[0].shape[1] for kept in adopted] == [b.stop - b.start for b in cheap.blocks]
    assert whole(adopted).dtype == np.float64
    assert adopted[0][0].dtype == np.float32
    assert_allclose(whole(adopted), whole(state), rtol=1e-6)


def test_float32_sparse_rows_have_no_copy(tmp_path):
    with override(single_from=0):
        assert Case(CONTAINERS["csr, float32"], tmp_path).rows.single() is None
        assert Case(CONTAINERS["csr_array"], tmp_path).rows.single().dtype == np.float32


def test_empty_sparse_rows():
    X = sparse.csr_array((200, 7))
    rows = make_rows(X, np.arange(200) % T, np.ones((1, 200)), T)
    frame = Frame.of(rows.moments().pooled(), True)
    assert not frame.inverse.any()
    rows = rows.in_frame(frame)
    theta = np.ones((8, T))
    assert_array_equal(whole(rows.sum(keep_logits, theta).state), np.ones((T, 200)))


@pytest.mark.parametrize("rows", ["csr, float32, offset", "csr, float32, offset, single",
                                  "csr, offset, single"])  # fmt: skip
def test_sparse_columns_far_from_zero_leave_float32(rows, tmp_path):
    """Products with them would keep 3 digits of what varies."""
    assert Case(CONTAINERS[rows], tmp_path).rows.dtype == np.float64


def test_batches_are_all_rows_once(container, tmp_path, n_problems, rng):
    """Gradients of batches, weighed by their rows, are that of all rows; orders are drawn."""
    case = Case(container, tmp_path, n_problems=n_problems)
    theta = case.parameters(rng.standard_normal((case.X.shape[1], case.K)))
    gradient = host(case.rows.sum(evaluate, theta).gradient)
    first = []
    for seed in (0, 0, 1):
        batches = case.rows.batches(10, np.random.default_rng(seed))
        found = [(b.shape[0], host(b.sum(evaluate, theta).gradient)) for b in batches]
        sizes, parts = zip(*found, strict=True)
        assert sum(sizes) == n
        assert 8 <= min(sizes) <= max(sizes) <= 12
        total = sum(size * part for size, part in zip(sizes, parts, strict=True)) / n
        assert_allclose(total, gradient, **case.close)
        first.append(parts[0])
    assert_array_equal(first[1], first[0])
    assert not np.array_equal(first[2], first[0])


def test_runs_of_a_memory_map_stay_together(tmp_path):
    held = memory_map(np.arange(4000.0)[:, None], tmp_path)
    rows = make_rows(held, np.zeros(4000, dtype=int), np.ones((1, 4000)), T)
    rows = rows.in_frame(Frame.of(rows.moments().pooled(), True))
    found = []
    for batch in rows.batches(800, np.random.default_rng(0)):
        x = batch.X[:, 0]
        assert (np.diff(x) == 1).mean() > 0.9  # runs of fifty
        assert np.ptp(x) > 2000
        found.append(x)
    assert_array_equal(np.sort(np.concatenate(found)), held[:, 0])
