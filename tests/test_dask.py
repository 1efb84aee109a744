"""Dask collections: a fit of chunks is that of all rows, and nothing else comes here."""

import gc
import os
import signal
from itertools import pairwise

import numpy as np
import problems
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import DataConversionWarning

from skfc import SoftmaxFCClassifier, SoftmaxFCClassifierCV, _blockwise, neg_log_loss_scorer
from skfc._tuned import override

dask = pytest.importorskip("dask", reason="needs the extra dask")
da = pytest.importorskip("dask.array", reason="needs the extra dask")
delayed = dask.delayed

n, N, T = 600, 5, 3
TOL = 1e-8
NAMES = np.array(["bird", "cat", "dog"])


@pytest.fixture(autouse=True)
def _synchronous():
    """Small chunks stay apart, and everything runs in this thread."""
    with dask.config.set(scheduler="synchronous"), override(block_bytes=64):
        yield


@pytest.fixture(scope="module")
def data():
    X, y = problems.overlapping(n, N, T)
    return X, y, np.random.default_rng(1).integers(0, 3, n).astype(float)


def lazy(values, chunks=250):
    """A Dask array in chunks of rows, whatever holds the values."""
    if not sparse.issparse(values):
        return da.from_array(values, chunks=(chunks, *values.shape[1:]))
    cut = [values[k : k + chunks] for k in range(0, values.shape[0], chunks)]
    meta = type(values)((0, 0), dtype=values.dtype)
    return da.concatenate(
        [da.from_delayed(delayed(c), c.shape, dtype=c.dtype, meta=meta) for c in cut]
    )


def unknown(collection):
    """The same array with chunks whose sizes nobody knows."""
    return collection[da.ones(collection.shape[0], chunks=collection.chunks[0]) > 0]


def assert_same(one, other, *, atol=TOL**0.5):
    """Two models have the same coefficients."""
    assert_array_equal(other.classes_, one.classes_)
    assert other.coef_.dtype == one.coef_.dtype
    size = np.abs(one.coef_).max(axis=0)
    size[size == 0] = 1
    assert_allclose(other.coef_ / size, one.coef_ / size, atol=atol)
    assert_allclose(other.intercept_, one.intercept_, atol=atol * np.abs(one.intercept_).max())
    assert type(other.optimality_gap_) is type(one.optimality_gap_)
    assert other.optimality_gap_ <= 10 * other.tol


def fitted(X, y, weight=None, **parameters):
    return SoftmaxFCClassifier(**({"tol": TOL} | parameters)).fit(X, y, weight)


# -- the same fit --------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [600, 250, 37, (1, 0, 400, 199)], ids=str)
def test_chunks_change_nothing(data, chunks):
    X, y, weight = data
    here = fitted(X, y, weight)
    there = fitted(lazy(X, chunks), lazy(y, chunks), lazy(weight, chunks))
    assert_same(here, there)
    assert abs(there.n_iter_ - here.n_iter_) <= 1


HELD = {
    "F order": np.asfortranarray,
    "float32": lambda X: X.astype(np.float32),
    "integers": lambda X: np.round(X).astype(int),
    "csr_array": sparse.csr_array,
    "csr_matrix": sparse.csr_matrix,
    "csr, float32": lambda X: sparse.csr_array(X.astype(np.float32)),
}


@pytest.mark.parametrize("hold", HELD.values(), ids=HELD)
def test_containers(data, hold):
    X, y, weight = data
    X = hold(X)
    here, there = fitted(X, y, weight), fitted(lazy(X), lazy(y), lazy(weight))
    assert_same(here, there, atol=1e-3 if X.dtype == np.float32 else np.sqrt(TOL))
    for method in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        found = getattr(there, method)(lazy(X))
        expected = getattr(there, method)(X)
        assert isinstance(found, da.Array)
        assert found.dtype == expected.dtype
        assert found.chunks[0] == (250, 250, 100)
        assert found.shape == expected.shape
        assert_allclose(found.compute(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "parameters",
    [
        {"class_weight": "balanced", "standardize": True},
        {"class_weight": {0: 0.0, 2: 3.0}},
        {"label_smoothing": 0.1, "fit_intercept": False},
        {"classes": [-1, 0, 1, 2, 7]},
        {"l1_ratio": 1.0, "C": 0.05},
        {"l1_ratio": 0.5, "solver": "proximal", "C": 0.05},
        {"solver": "gd"},
        {"C": np.inf, "preconditioner": "diagonal"},
    ],
    ids=str,
)
def test_parameters(data, parameters):
    X, y, weight = data
    tol = 1e-6 if parameters.get("l1_ratio") == 0.5 else TOL
    here = fitted(X, y, weight, **({"tol": tol} | parameters))
    there = fitted(lazy(X), lazy(y), lazy(weight), **({"tol": tol} | parameters))
    assert_same(here, there, atol=np.sqrt(tol))


def test_rows_of_probabilities(data):
    X, y, _ = data
    soft = np.random.default_rng(2).dirichlet(np.ones(T), n)
    one_hot = np.eye(T)[y]
    mixed = np.where(np.arange(n)[:, None] < 300, one_hot, soft)  # one-hot chunks among others
    for rows in (soft, one_hot, mixed):
        here, there = fitted(X, rows), fitted(lazy(X), lazy(rows))
        assert_same(here, there)
        assert there.score(lazy(X), lazy(rows)) == pytest.approx(here.score(X, rows))
        assert there.log_loss(lazy(X), lazy(rows)) == pytest.approx(here.log_loss(X, rows))


def test_labels_of_text_and_two_classes(data):
    X, y, weight = data
    for names in (NAMES, NAMES[[0, 1, 1]]):
        here, there = fitted(X, names[y], weight), fitted(lazy(X), lazy(names[y]), lazy(weight))
        assert_same(here, there)
        assert_array_equal(there.predict(lazy(X)).compute(), there.predict(X))
        logits = there.decision_function(lazy(X))
        assert_allclose(logits.compute(), there.decision_function(X))
        for method in ("score", "log_loss"):
            found = getattr(there, method)(lazy(X), lazy(names[y]), lazy(weight))
            assert found == pytest.approx(getattr(there, method)(X, names[y], weight))


def test_one_class_with_weight(data):
    X, _, _ = data
    y = np.zeros(n, dtype=int)
    assert_same(fitted(X, y, classes=[0, 1]), fitted(lazy(X), lazy(y), classes=[0, 1]))


def test_a_column_of_labels_is_ravelled(data):
    X, y, _ = data
    with pytest.warns(DataConversionWarning):
        there = fitted(lazy(X), lazy(y[:, None]))
    assert_same(fitted(X, y), there)


def test_threads_and_samples(data):
    """On the threaded scheduler, and with more rows than samples take."""
    X, y, weight = data
    few = {"hessian_rows": 100, "rows_per_feature": 0, "all_rows_small": 1.5}
    with dask.config.set(scheduler="threads", num_workers=2), override(**few):
        here, there = fitted(X, y, weight), fitted(lazy(X), lazy(y), lazy(weight))
    assert_same(here, there)


@pytest.mark.parametrize("chunks", [250, 77])
def test_chunks_change_no_step(data, chunks):
    """Samples of rows are by their number among all rows, whatever chunk has them."""
    X, y, _ = data
    few = {"hessian_rows": 47, "rows_per_feature": 0, "all_rows_small": 1.5}
    with override(**few):
        for preconditioner in ("kronecker", "block-diagonal"):
            parameters = {"solver": "lbfgs", "preconditioner": preconditioner}
            here = fitted(X, y, **parameters)
            there = fitted(lazy(X, chunks), lazy(y, chunks), **parameters)
            assert_allclose(there.loss_curve_, here.loss_curve_, rtol=1e-10)


def test_a_row_of_samples_comes_once(data, monkeypatch):
    """As long as it is drawn again, which the fixed random numbers of rows make likely."""
    from skfc._rows import DaskRows, Here, _part_functions

    X, y, _ = data
    sent, run = [], Here.run

    def note(self, call):
        found = run(self, call)
        if call.function is _part_functions.select:
            numbers, new = zip(*(answer[:2] for answer in found), strict=True)
            sent.append((set(np.concatenate(numbers).tolist()), sum(map(len, new))))
        return found

    monkeypatch.setattr(Here, "run", note)
    few = {"hessian_rows": 100, "rows_per_feature": 0, "all_rows_small": 1.5}
    parameters = {"solver": "newton-cg", "preconditioner": "kronecker"}
    with override(**few):
        here = fitted(X, y, **parameters)
        there = fitted(lazy(X), lazy(y), **parameters)
    assert_allclose(there.loss_curve_, here.loss_curve_, rtol=1e-10)
    assert len(sent) > 2
    for (before, _), (now, n_new) in pairwise(sent):
        assert n_new == len(now - before) < len(now)
    assert DaskRows.on_pool  # what is computed of them here is as in any fit


def test_halves_of_symmetric_matrices():
    from skfc._rows._part_functions import ask_half, whole

    A = np.random.default_rng(0).standard_normal((2, 7, 7))
    for symmetric in (A + A.transpose(0, 2, 1), (A @ A.transpose(0, 2, 1))[0], A[:, :1, :1]):
        half, _ = ask_half(symmetric, "view")
        assert half.shape[-1] == symmetric.shape[-1] * (symmetric.shape[-1] + 1) // 2
        assert_array_equal(whole(half), symmetric)


def test_warm_start(data):
    X, y, _ = data
    model = fitted(lazy(X), lazy(y), warm_start=True)
    assert model.fit(lazy(X), lazy(y)).n_iter_ <= 1


# -- chunks of all kinds -------------------------------------------------------------------------


def test_frames(data):
    pd = pytest.importorskip("pandas")
    dd = pytest.importorskip("dask.dataframe", reason="needs the extra dask")
    X, y, weight = data
    frame = pd.DataFrame(X, columns=list("abcde"))
    frame["b"] = np.round(frame["b"]).astype(int)
    labels = pd.Series(NAMES[y], name="animal")
    whole = dd.from_pandas(frame.assign(animal=labels, weight=weight), npartitions=4)
    X_there, y_there, w_there = whole[list("abcde")], whole["animal"], whole["weight"]
    here, there = fitted(frame, labels, weight), fitted(X_there, y_there, w_there)
    assert_same(here, there)
    assert_array_equal(there.feature_names_in_, list("abcde"))
    assert_array_equal(there.predict(X_there).compute(), here.predict(frame))
    assert_allclose(there.predict_proba(X_there).compute(), here.predict_proba(frame), atol=1e-4)
    assert there.score(X_there, y_there) == pytest.approx(here.score(frame, labels))
    one_hot = pd.get_dummies(labels, dtype=float)[["cat", "dog", "bird"]]
    rows = dd.from_pandas(one_hot, npartitions=4)
    assert_same(fitted(frame, one_hot), fitted(X_there, rows))
    assert there.log_loss(X_there, rows) == pytest.approx(here.log_loss(frame, one_hot), rel=1e-4)
    with pytest.raises(ValueError, match="feature names"):
        there.predict(X_there.rename(columns={"a": "z"}))
    missing = pd.array([pd.NA] * n, dtype="Int64")
    for column, error in (
        ("text", "numbers.*'a'"),
        (missing, r"(?s)contains NaN.*hold it: \['a'\]"),
    ):
        wrong = dd.from_pandas(frame.assign(a=column), npartitions=4)
        with pytest.raises(ValueError, match=error):
            there.predict(wrong).compute()
    single = frame.astype(np.float32).assign(a=1)
    found = there.predict_proba(dd.from_pandas(single, npartitions=4))
    assert found.dtype == found.compute().dtype == there.predict_proba(single).dtype
    dates = X_there.assign(a=pd.Timestamp("2020-01-01"))
    with pytest.raises(ValueError, match=r"numbers.*'a'"):
        clone(there).fit(dates, y_there)


def test_unknown_sizes_and_chunks_of_features(data):
    X, y, weight = data
    here = fitted(X, y, weight)
    assert_same(here, fitted(da.from_array(X, chunks=(100, 2)), lazy(y, 40), lazy(weight, 599)))
    there = fitted(unknown(lazy(X)), unknown(lazy(y)), unknown(lazy(weight)))
    assert_same(here, there)
    found = there.predict(unknown(lazy(X)))
    assert np.isnan(found.shape[0])
    assert_array_equal(found.compute(), there.predict(X))


def test_small_chunks_are_put_together(data):
    X, y, _ = data
    X = sparse.csr_array(X)
    soft = np.eye(T)[y]
    with override(block_bytes=2**20):
        for target in (NAMES[y], soft):
            assert_same(fitted(X, target), fitted(lazy(X, 50), lazy(target, 50)))


def test_types_that_differ_between_chunks(data):
    X, y, _ = data
    parts = [X[:300].astype(np.float32), X[300:]]
    mixed = da.concatenate([da.from_delayed(delayed(p), p.shape, dtype=X.dtype) for p in parts])
    assert_same(fitted(np.concatenate(parts), y), fitted(mixed, lazy(y, 300)))
    half = da.concatenate(
        [lazy(X[:300]), da.from_delayed(delayed(sparse.csr_array(X[300:])), (300, N), X.dtype)]
    )
    for block_bytes in (64, 2**20):  # chunks apart, and put together
        with (
            override(block_bytes=block_bytes),
            pytest.raises(ValueError, match="Some chunks of X are sparse"),
        ):
            fitted(half, lazy(y, half.chunks[0]))


def drawn():
    """Other rows each time, and labels that belong to them."""
    X = np.random.default_rng().standard_normal((200, N))
    return X, (X[:, 0] > 0).astype(int)


def test_what_X_and_y_have_in_common_is_made_once():
    """They belong together though the graph gives other rows each time it runs."""
    seen = []

    def part(k):
        seen.append(k)
        return drawn()

    parts = [delayed(part, nout=2)(k, pure=False) for k in range(3)]
    X = da.concatenate([da.from_delayed(x, (200, N), float) for x, _ in parts])
    y = da.concatenate([da.from_delayed(labels, (200,), int) for _, labels in parts])
    model = SoftmaxFCClassifier().fit(X, y)
    assert sorted(seen) == [0, 1, 2]
    assert model.score(X, y) > 0.9
    assert model.log_loss(X, y) < 0.2
    assert len(seen) == 9


def test_frames_that_share_a_source_are_read_once():
    pd = pytest.importorskip("pandas")
    dd = pytest.importorskip("dask.dataframe", reason="needs the extra dask")

    def part(k):
        seen.append(k)
        X, y = drawn()
        return pd.DataFrame(X, columns=list("abcde")).assign(y=y)

    seen = []
    frame = dd.from_map(part, range(3), meta=part(0))
    seen.clear()
    X, y = frame[list("abcde")], frame["y"]
    model = SoftmaxFCClassifier().fit(X, y)
    assert sorted(seen) == [0, 1, 2]
    assert model.score(X, y) > 0.9


def test_frames_of_files(data, tmp_path):
    """Dask reads small files together, fewer where there are fewer columns: not here."""
    pd = pytest.importorskip("pandas")
    dd = pytest.importorskip("dask.dataframe", reason="needs the extra dask")
    pytest.importorskip("pyarrow")
    X, y, _ = data
    frame = pd.DataFrame(X, columns=list("abcde")).assign(y=y, text="long text" * 30)
    for start in range(0, n, 30):
        frame[start : start + 30].to_parquet(tmp_path / f"{start:03}.parquet")
    there = dd.read_parquet(tmp_path)
    X_there = there[list("abcde")]
    model = fitted(X_there, there["y"])
    assert_same(fitted(frame[list("abcde")], y), model)
    assert model.score(X_there, there["y"]) == pytest.approx(model.score(frame[list("abcde")], y))
    assert_array_equal(model.predict(X_there).compute(), model.predict(frame[list("abcde")]))


def test_an_index_in_another_order_is_refused(data):
    pd = pytest.importorskip("pandas")
    dd = pytest.importorskip("dask.dataframe", reason="needs the extra dask")
    X, y, weight = data
    frame, labels = pd.DataFrame(X, columns=list("abcde")), pd.Series(y)

    def there(values):
        return dd.from_pandas(values, npartitions=1, sort=False)

    other = there(labels[::-1])
    with pytest.raises(ValueError, match="y has the index of X in another order"):
        fitted(there(frame), other)
    with pytest.raises(ValueError, match="sample_weight has the index of X in another order"):
        fitted(there(frame), there(labels), there(pd.Series(weight)[::-1]))
    model = fitted(frame, labels)
    with pytest.raises(ValueError, match="another order"):
        model.score(there(frame), other)
    # Of other indices nothing is said: rows go together by their place.
    assert_same(model, fitted(there(frame), there(labels.set_axis(np.arange(n) + 7))))


def test_labels_that_differ_in_kind_between_chunks(data):
    X, y, _ = data
    text, objects = NAMES[y[:300]], NAMES.astype(object)[y[300:]]

    def labels(*parts):
        return da.concatenate([da.from_delayed(delayed(p), p.shape, object) for p in parts])

    for block_bytes in (64, 2**20):  # chunks apart, and put together
        with override(block_bytes=block_bytes):
            assert_same(fitted(X, NAMES[y]), fitted(lazy(X, 300), labels(text, objects)))
            with pytest.raises(TypeError, match="labels of one kind that sorts"):
                fitted(lazy(X, 300), labels(text, y[300:]))
            with pytest.raises(TypeError, match="labels of one kind that sorts"):
                fitted(lazy(X, 300), labels(objects, y[300:].astype(object)))
    with pytest.raises(TypeError, match="labels of one kind that sorts"):
        fitted(lazy(X, 600), lazy(np.array([*objects, *y[300:]], dtype=object), 600))


def test_rare_columns_of_sparse_chunks_are_not_fetched(data, monkeypatch):
    """Bounds of their values say in no chunk that they are more than a few."""
    from skfc._rows import DaskRows

    rng = np.random.default_rng(0)
    X, y, _ = data
    rare = np.where(rng.random((n, 40)) < 0.01, rng.random((n, 40)), 0.0)
    X = sparse.csr_array(np.hstack([X, rare]))
    fetched, values_of = [], DaskRows._values

    def note(self, rows, columns):
        fetched.extend(columns)
        return values_of(self, rows, columns)

    monkeypatch.setattr(DaskRows, "_values", note)
    assert_same(fitted(X, y), fitted(lazy(X, 50), lazy(y, 50)))
    assert set(fetched) <= set(range(N))


# -- what is refused -----------------------------------------------------------------------------


def test_bad_input_is_refused_before_a_fit(data):
    X, y, weight = data
    good = fitted(lazy(X), lazy(y))
    before = vars(good).copy()

    def refused(error, match, *given, model=good):
        with pytest.raises(error, match=match):
            model.fit(*given)
        assert vars(good) == before

    bad = X.copy()
    bad[400, 2] = np.nan
    refused(ValueError, "NaN", lazy(bad), lazy(y))
    refused(ValueError, "negative", lazy(X), lazy(y), lazy(weight - 1))
    refused(ValueError, "zero everywhere", lazy(X), lazy(y), lazy(0 * weight))
    refused(ValueError, "one class", lazy(X), lazy(0 * y))
    refused(ValueError, "y has 599 rows, but X has 600", lazy(X), lazy(y[1:]))
    refused(ValueError, "of unknown sizes", unknown(lazy(X)), lazy(y, 600))
    refused(ValueError, "chunk of X has 250 rows", unknown(lazy(X)), lazy(y, (100, 400, 100)))
    refused(ValueError, "continuous", lazy(X), lazy(y + 0.5))
    refused(ValueError, r"y holds objects \(int\)", lazy(X), lazy(y.astype(object)))
    gap = np.where(np.arange(n) == 400, None, NAMES.astype(object)[y])
    refused(ValueError, "chunk of y has missing labels .*: 1 of 250", lazy(X), lazy(gap))
    refused(ValueError, "sum to one", lazy(X), lazy(np.abs(X[:, :T])))
    refused(ValueError, "two axes", lazy(X)[:, :, None], lazy(y))
    refused(TypeError, "y must be a Dask collection", lazy(X), y)
    refused(TypeError, "X must be a Dask array or frame", delayed(X), lazy(y))
    refused(ValueError, "two axes", lazy(X)[:, 0], lazy(y))
    refused(ValueError, "no rows", da.empty((0, N)), da.empty(0, dtype=int))
    wide = da.from_delayed(delayed(X), (n, N + 1), float)
    refused(ValueError, "says that it has 6 features, but its chunks have 5", wide, lazy(y, n))
    narrow = da.concatenate([lazy(X), da.from_delayed(delayed(X[:, 1:]), X.shape, float)])
    twice = da.concatenate([lazy(y), lazy(y)])
    refused(ValueError, r"different numbers of features: \[4, 5\]", narrow, twice)
    columns = lazy(np.eye(T)[y])[:, da.ones(T) > 0]
    refused(ValueError, "y has an unknown number of columns", lazy(X), columns)
    refused(TypeError, "y is a Dask collection", X, lazy(y))
    stopping = clone(good).set_params(early_stopping=True)
    refused(ValueError, "early_stopping", lazy(X), lazy(y), model=stopping)
    fewer = clone(good).set_params(classes=[0, 1])
    refused(ValueError, "outside the classes", lazy(X), lazy(y), model=fewer)
    with dask.config.set(scheduler="processes"):
        refused(ValueError, '"processes"', lazy(X), lazy(y))
    with pytest.raises(ValueError, match="features"):
        good.predict(lazy(X[:, 1:]))
    # Chunks of y that end elsewhere than those of X, where sizes are not known.
    for method in (good.score, good.log_loss):
        with pytest.raises(ValueError, match="chunk of X has 300 rows, and that of y has 400"):
            method(unknown(lazy(X[:300], 300)), unknown(lazy(y[:400], 400)))


def test_others_refuse_collections_by_name(data):
    X, y, _ = data
    with pytest.raises(TypeError, match="X is a Dask collection"):
        SoftmaxFCClassifierCV().fit(lazy(X), lazy(y))
    with pytest.raises(TypeError, match="X is a Dask collection"):
        SoftmaxFCClassifier().partial_fit(lazy(X), lazy(y), classes=[0, 1, 2])
    with pytest.raises(TypeError, match="X_val is a Dask collection"):
        SoftmaxFCClassifier(early_stopping=True).fit(X, y, X_val=lazy(X), y_val=lazy(y))
    with pytest.raises(TypeError, match="X is a Dask collection"):
        neg_log_loss_scorer(fitted(X, y), lazy(X), lazy(y))


def test_partial_fit_block_by_block(data):
    """As dask-ml's Incremental does: the model goes from block to block through `delayed`."""
    X, y, _ = data

    def learn(model, x, labels):
        return clone_of(model).partial_fit(x, labels, classes=range(T))

    def clone_of(model):
        other = clone(model)
        vars(other).update(vars(model))
        return other

    step, model = delayed(learn), SoftmaxFCClassifier()
    here = SoftmaxFCClassifier()
    blocks = zip(lazy(X).to_delayed().ravel(), lazy(y).to_delayed(), strict=True)
    for k, (x, labels) in enumerate(blocks):
        rows = slice(250 * k, 250 * (k + 1))
        here.partial_fit(X[rows], y[rows], classes=range(T))
        model = step(model, x, labels)
    assert_allclose(model.compute().coef_, here.coef_)


# -- a distributed client ------------------------------------------------------------------------


@pytest.fixture
def make_cluster():
    """A function that starts a small cluster and its client."""
    distributed = pytest.importorskip("distributed", reason="needs the extra dask")
    opened = []

    def make(**options):
        cluster = distributed.LocalCluster(threads_per_worker=1, dashboard_address=":0", **options)
        client = distributed.Client(cluster)
        opened.extend([cluster, client])
        return client

    with dask.config.set(scheduler=None), dask.config.set({"logging.distributed": "critical"}):
        yield make
        for each in reversed(opened):
            each.close(timeout=60)


def test_workers_of_a_client(data, make_cluster, monkeypatch):
    from skfc._rows import OnWorkers, _worker

    client = make_cluster(n_workers=2, processes=False)
    X, y, weight = data
    clusters, begin = [], OnWorkers.__init__

    def note(self, *args):
        begin(self, *args)
        clusters.append(self)

    monkeypatch.setattr(OnWorkers, "__init__", note)
    here = fitted(X, y, weight)
    there = fitted(lazy(X, 100), lazy(y, 100), lazy(weight, 100))
    assert_same(here, there)
    assert there.score(lazy(X), lazy(y)) == pytest.approx(here.score(X, y))
    assert not _worker.STORES  # nothing is left of the fit
    # Sums come here, one gradient at a time from every worker, and not the rows.
    (cluster,) = clusters
    passes = 10 * (there.n_iter_ + 3)
    assert 0 < cluster.received < 2 * passes * 8 * (N + 1) * T + 3 * X.nbytes
    with pytest.raises(ValueError, match="NaN") as raised:
        fitted(lazy(np.where(X > 1e3, np.nan, X) * np.nan), lazy(y))
    assert "worker" not in str(raised.value.__context__)
    gc.collect()
    assert not client.futures  # neither of fits that ended nor of one that failed


def test_an_interrupt_leaves_the_earlier_fit_and_nothing_else(data, make_cluster, monkeypatch):
    from skfc._rows import OnWorkers, _worker

    client = make_cluster(n_workers=1, processes=False)
    X, y, _ = data
    model = fitted(lazy(X), lazy(y))
    before, calls, run = vars(model).copy(), [], OnWorkers.run

    def interrupted(self, call):
        calls.append(call)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return run(self, call)

    monkeypatch.setattr(OnWorkers, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.fit(lazy(X), lazy(1 + y))
    assert vars(model) == before
    calls.clear()
    gc.collect()
    assert not client.futures
    assert not _worker.STORES


def test_large_arrays_go_ahead_of_calls(data, make_cluster):
    """Once for all workers, as data of theirs; the fit is the same."""
    client = make_cluster(n_workers=2, processes=False)
    X, y, weight = data
    sent, scatter = [], client.scatter

    def note(array, **options):
        sent.append(array)
        return scatter(array, **options)

    client.scatter = note
    here = fitted(X, y, weight)
    with override(small_block_bytes=8):
        assert_same(here, fitted(lazy(X, 100), lazy(y, 100), lazy(weight, 100)))
    assert {array.shape for array in sent} >= {(N + 1, T)}

    def fail(*_, **__):
        raise OSError("a worker that is gone")

    client.scatter = fail
    with override(small_block_bytes=8):
        assert_same(here, fitted(lazy(X, 100), lazy(y, 100), lazy(weight, 100)))


@pytest.mark.parametrize("lost", [None, "sums", "weights"])
def test_large_arrays_go_from_worker_to_worker(data, make_cluster, monkeypatch, lost):
    """The client sends one and gets one; what does not arrive is asked for once more."""
    from skfc._rows import OnWorkers
    from skfc._rows._exchange import SUMS, Exchange

    make_cluster(n_workers=5, processes=False)
    X, y, weight = data
    answers, send, asked, found = [], OnWorkers._send, [], Exchange.found

    def note(self, call, numbers, dropped, again):
        done = send(self, call, numbers, dropped, again)
        answers.append((len(done) if call.merge is not None else 1, again))
        return done

    async def fail(self, number, name):
        what = "sums" if name == SUMS else "weights"
        asked.append(what)
        if what == lost and asked.count(what) == 3:
            raise OSError("a worker that is gone")
        return await found(self, number, name)

    monkeypatch.setattr(OnWorkers, "_send", note)
    monkeypatch.setattr(Exchange, "found", fail)
    here = fitted(X, y, weight)
    with override(small_block_bytes=8):
        there = fitted(lazy(X, 60), lazy(y, 60), lazy(weight, 60))
    assert_same(here, there)
    assert {n_done for n_done, again in answers if not again} == {1}
    assert sum(again for _, again in answers) == (lost is not None)
    assert min(asked.count("sums"), asked.count("weights")) > 4 * there.n_iter_


def test_states_of_a_client_that_is_gone_are_let_go_of(data, make_cluster, monkeypatch):
    from skfc._rows import OnWorkers, _worker

    make_cluster(n_workers=1, processes=False)
    X, y, _ = data

    def go(self):
        self.futures = []

    with monkeypatch.context() as patch:
        patch.setattr(OnWorkers, "close", go)
        fitted(lazy(X), lazy(y))
    gc.collect()
    assert len(_worker.STORES) == 1
    fitted(lazy(X), lazy(y))
    assert not _worker.STORES


def test_a_fit_in_a_task_leaves_its_thread_to_others(data, make_cluster):
    client = make_cluster(n_workers=1, processes=False)
    X, y, _ = data
    task = client.submit(lambda: fitted(lazy(X), lazy(y)).coef_)
    assert_allclose(task.result(timeout=60), fitted(X, y).coef_, atol=1e-3)


def test_a_recipe_keeps_what_its_caller_overwrites(data):
    """Solvers use the arrays of their steps again; a state may be made again after that."""
    X, y, _ = data
    states = []

    class Overwriting(SoftmaxFCClassifier):
        def _start(self, problem, classes, active):
            theta = 0.0 * problem.null_model()
            states.append(problem.rows.sum(_blockwise.evaluate, theta).state)
            theta += 1.0
            return super()._start(problem, classes, active)

    Overwriting().fit(lazy(X), lazy(y))
    assert not states[0].logits_of.any()


@pytest.mark.parametrize(("solver", "at"), [("auto", 12), ("lbfgs", 9), ("lbfgs", 12)])
def test_a_worker_that_is_killed(data, make_cluster, solver, at):
    """In the middle of a fit: the other one takes its chunks, and the fit ends right.

    Nor does it matter that L-BFGS has put other steps where those of a recipe were.
    """
    client = make_cluster(n_workers=2, processes=True)
    X, y, weight = data
    here = fitted(X, y, weight, solver=solver)
    killed = []

    class Killing(SoftmaxFCClassifier):
        def _start(self, problem, classes, active):
            run, calls = problem.rows.cluster.run, []

            def kill_at_a_call(call):
                calls.append(call)
                if len(calls) == at:
                    pid = next(iter(client.run(os.getpid).values()))
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                return run(call)

            problem.rows.cluster.run = kill_at_a_call
            return super()._start(problem, classes, active)

    there = Killing(tol=TOL, solver=solver).fit(lazy(X, 100), lazy(y, 100), lazy(weight, 100))
    assert killed
    assert_same(here, there)
    client.wait_for_workers(2, timeout=60)  # a cluster that is mending itself does not close well
