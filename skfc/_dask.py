"""Dask collections: chunks to parts of rows for a fit, and predictions chunk by chunk.

X, y and weights stay where their chunks are. What comes here are summaries of the chunks, sums,
and samples of rows. Dask is imported in functions: a collection is there when one is given.
"""

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from sklearn.metrics import accuracy_score
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from skfc import _blockwise, _labels, _scoring, _targets
from skfc._array import is_distributed, to_numpy
from skfc._input import refuse_times
from skfc._pool import n_threads
from skfc._prediction import Logits, most_probable
from skfc._problem import Problem
from skfc._reading import check_several
from skfc._rows import (
    Call,
    DaskRows,
    Here,
    Layout,
    OnWorkers,
    check_alike,
    features_of,
    read,
    read_rows,
    summary,
)  # fmt: skip
from skfc._targets import Targets
from skfc._tuned import TUNED

# -- chunks -------------------------------------------------------------------------------------


def is_array(collection):
    """Whether a collection is a Dask array."""
    return hasattr(type(collection), "rechunk")  # a Delayed has every attribute


def check_collection(value, name, beside="X"):
    """Raise unless `value` is a Dask array or frame."""
    if not is_distributed(value):
        raise TypeError(
            f"{name} must be a Dask collection as {beside} is; got {type(value).__name__}. "
            "dask.array.from_array makes one of an array."
        )
    kind = type(value)
    if not (is_array(value) or hasattr(kind, "map_partitions")):
        raise TypeError(
            f"{name} must be a Dask array or frame; got a {kind.__module__}.{kind.__qualname__}."
        )


def chunked(value):
    """An array with all of its columns in one chunk; a frame is left as it is."""
    if is_array(value) and value.ndim == 2 and value.numblocks[1] > 1:
        return value.rechunk({1: -1})
    return value


def lengths(value):
    """Numbers of rows by chunk, NaN where they are not known."""
    return value.chunks[0] if is_array(value) else (np.nan,) * value.npartitions


def aligned(value, X, name):
    """`value` (y, or weights) in chunks of the rows of X."""
    check_collection(value, name)
    if is_array(value) and value.ndim not in (1, 2):
        raise ValueError(f"{name} must have one or two axes; got shape {value.shape}.")
    if value.ndim == 2 and np.isnan(value.shape[1]):
        raise ValueError(
            f"{name} has an unknown number of columns: call {name}.compute_chunk_sizes()."
        )
    value, there, here = chunked(value), lengths(X), lengths(value)
    if not (np.isnan(there).any() or np.isnan(here).any()):
        if sum(here) != sum(there):
            raise ValueError(f"{name} has {sum(here)} rows, but X has {sum(there)}.")
        if here != there:
            return value.rechunk({0: there})
    elif len(here) != len(there):
        raise ValueError(
            f"{name} has {len(here)} chunks and X has {len(there)}, of unknown sizes: give both "
            f"the same chunks. X.compute_chunk_sizes() and {name}.compute_chunk_sizes() find the "
            "sizes of arrays, to_dask_array(lengths=True) those of frames."
        )
    return value


def pieces(value):
    """The chunks of a collection, a list of `Delayed`.

    The graph is left as it is. Optimized for each collection by itself, what X and y have in
    common would run twice; and where it gives other rows each time, they would not fit together.
    """
    if value is None:
        return None
    found = value.to_delayed(optimize_graph=False)
    return found.ravel().tolist() if is_array(value) else found


def check_features(estimator, X, reset):
    """Check names and number of the features of a collection, before any work."""
    check_collection(X, "X", "y")
    if X.ndim != 2:
        raise ValueError(f"X must have two axes, (n_samples, n_features); got {X.ndim}.")
    refuse_times(X)
    if not is_array(X):
        import pandas

        stub = pandas.DataFrame(columns=X.columns)
    else:
        if np.isnan(X.shape[1]):
            raise ValueError("X has an unknown number of features: call X.compute_chunk_sizes().")
        stub = np.empty((1, X.shape[1]))
    if stub.shape[1] == 0:
        raise ValueError("Found array with 0 feature(s) while a minimum of 1 is required.")
    validate_data(estimator, stub, reset=reset, skip_check_array=True)
    return chunked(X)


@dataclass(frozen=True)
class Settle:
    """From a part's labels or rows to weighted targets of the classes with weight.

    Attributes
    ----------
    per_class : weights of the classes, or None: those before class weights
    scale : what makes the mean weight one
    one_hot : whether rows of probabilities are labels
    """

    classes: np.ndarray
    active: np.ndarray
    per_class: np.ndarray | None
    smoothing: float
    scale: float
    one_hot: bool

    def __call__(self, target, labels, weight):
        if labels is not None:
            _, place = _labels.places(labels, self.classes)
            target = place[target]
        elif self.one_hot:
            target = target.argmax(axis=0)
        targets = Targets(self.classes, target, weight[0])
        if self.per_class is not None:
            targets = _targets.weigh(targets, self.per_class, self.smoothing)
        targets = targets.keep(self.active)
        return targets.target, targets.weight[None] * self.scale


# -- a fit --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClassTotals:
    """Targets that are elsewhere: classes, and the weight of each; see :class:`Targets`."""

    classes: np.ndarray
    totals: np.ndarray
    problem: Problem | None = None

    @property
    def n_classes(self):
        return len(self.classes)

    @property
    def total(self):
        return float(self.totals.sum())

    def class_totals(self):
        return self.totals

    def share_of_new(self, X, coef, intercept, n_new):
        """See :meth:`Targets.share_of_new`: the rows stay where they are."""
        rows, theta = self.problem.rows, self.problem.start(coef, intercept)
        logits = rows.sum(_blockwise.evaluate, theta).state
        rest = rows.sum(_blockwise.log_totals, state=logits).state

        def log_mean(b):
            function = partial(_blockwise.share_of_new, logit=b, n_new=n_new)
            return float(np.log(rows.sum(function, state=rest).values[0][0]))

        return log_mean, 0.0, 0.0


@contextmanager
def collected(estimator, X, y, sample_weight):
    """Around a fit of collections: the problem, targets, the classes with weight, dtype of X.

    What the fit has left on a cluster is forgotten at the end.
    """
    if estimator.early_stopping:
        raise ValueError(
            "early_stopping=True holds rows out of arrays in memory; Dask collections are "
            "fitted to the minimum."
        )
    X = check_features(estimator, X, reset=True)
    y = aligned(y, X, "y")
    weight = None if sample_weight is None else aligned(sample_weight, X, "sample_weight")
    classes, names = known_classes(estimator, y)
    with cluster_of(X, y, weight, classes, names) as cluster:
        yield make_problem(estimator, cluster, classes, X.shape[1])


def known_classes(estimator, y):
    """The classes, as far as they are known without reading y, and the columns' names."""
    classes = None if estimator.classes is None else _labels.check_classes(estimator.classes)
    if y.ndim != 2:
        return classes, None
    names = None if is_array(y) else _labels.column_names(y)
    n_columns = y.shape[1]
    if n_columns == 1:
        column_or_1d(np.zeros((1, 1)), warn=True)
        return classes, None
    classes, _ = _targets.place_columns(np.empty((1, n_columns)), classes, names)
    return classes, names


@contextmanager
def cluster_of(X, y, weight, classes, names):
    """The parts of collections, where Dask's scheduler has its workers."""
    import dask
    from dask.base import get_scheduler

    get = get_scheduler(collections=[X])
    client = getattr(get, "__self__", None)
    if client is None and "multiprocessing" in get.__module__:
        raise ValueError(
            'The scheduler "processes" keeps nothing in its processes. Fit with a '
            "dask.distributed.Client, or with the threaded or the synchronous scheduler."
        )
    threads = n_threads() if client is None else sum(client.nthreads().values())
    chunks = [pieces(value) for value in (X, y, weight)]
    chunks[2] = chunks[2] or [None] * len(chunks[0])
    rows = zip(*chunks, strict=True)
    make = dask.delayed(read, pure=False)
    parts = [make(group, classes, names) for group in grouped(list(rows), sizes(X), threads)]
    with nullcontext() if client is None else beside_tasks():
        if client is None:
            cluster = Here(list(dask.compute(*parts)))
        else:
            cluster = OnWorkers(client, client.compute(parts))
        try:
            yield cluster
        finally:
            cluster.close()


@contextmanager
def beside_tasks():
    """Around a fit on a client: in a task, it leaves its thread to those that it waits for."""
    from distributed import get_worker, rejoin, secede

    try:
        get_worker()
    except ValueError:  # no task
        yield
        return
    secede()
    try:
        yield
    finally:
        rejoin()


def sizes(X):
    """Bytes of the chunks of an array, about; infinity where they are not known."""
    if not is_array(X):
        return [np.inf] * X.npartitions
    row = X.shape[1] * X.dtype.itemsize
    return [np.inf if np.isnan(n) else n * row for n in X.chunks[0]]


def grouped(chunks, sizes, threads):
    """Lists of chunks in a row: small ones together, but enough lists for all threads."""
    total = sum(sizes)
    least = TUNED.block_bytes if np.isinf(total) else min(TUNED.block_bytes, total / threads)
    groups, size = [[]], 0
    for chunk, more in zip(chunks, sizes, strict=True):
        if size >= least and groups[-1]:
            groups.append([])
            size = 0
        groups[-1].append(chunk)
        size += more
    return groups


def make_problem(estimator, cluster, classes, n_features):
    """The problem of the parts, its targets, the classes with weight, and what X was."""
    found = dict(zip(cluster.numbers, cluster.run(Call(None, summary)), strict=True))
    found = {number: part for number, part in found.items() if part.shape[0]}
    if not found:
        raise ValueError(_targets.ZERO_WEIGHT.format("sample_weight") + " Or X has no rows.")
    X = features(list(found.values()), n_features)
    classes, totals = class_totals(found.values(), classes)
    per_class = _targets.class_weights(estimator.class_weight, classes, totals)
    a = estimator.label_smoothing
    settled = per_class * ((1 - a) * totals + a * totals.sum() / len(classes))
    active = np.flatnonzero(settled > 0)
    if not len(active):
        raise ValueError("class_weight is zero for every class that y holds.")
    cluster.numbers = list(found)
    ends = np.cumsum([part.shape[0] for part in found.values()]).tolist()
    first = dict(zip(found, [0, *ends[:-1]], strict=True))
    n = ends[-1]
    dtype = np.float64 if X.n_values <= TUNED.few_single else X.dtype
    one_hot = all(part.one_hot for part in found.values())
    settle = Settle(classes, active, per_class, a, n / settled.sum(), one_hot)

    def rows(settle):
        layout = Layout(len(active), dtype, n, first, settle)
        return DaskRows.of(cluster, layout, (n, X.shape[1]), sparse=X.sparse, n_values=X.n_values)

    unweighted = None
    if estimator.standardize and estimator.class_weight is not None:
        unweighted = rows(replace(settle, per_class=None, active=np.arange(len(classes))))
    problem = Problem.of_rows(
        rows(settle), ClassTotals(classes[active], settled[active]),
        fit_intercept=estimator.fit_intercept, standardize=estimator.standardize,
        l1_ratio=estimator.l1_ratio if np.isfinite(estimator.C) else 0.0, unweighted=unweighted,
    )  # fmt: skip
    return problem, ClassTotals(classes, settled, problem), active, X


def features(found, n_features):
    """What X is, by the summaries of its parts: a :class:`Summary` of all of them."""
    check_alike([part.shape[1] for part in found], (part.sparse for part in found))
    if found[0].shape[1] != n_features:
        raise ValueError(
            f"X says that it has {n_features} features, but its chunks have {found[0].shape[1]}."
        )
    n, n_values = sum(part.shape[0] for part in found), sum(part.n_values for part in found)
    dtype = np.result_type(*(part.dtype for part in found))
    return replace(found[0], shape=(n, n_features), dtype=dtype, n_values=n_values)


def class_totals(found, classes):
    """All classes and their weights, from those of the parts."""
    totals = [part.totals for part in found]
    labels = [part.labels for part in found]
    if labels[0] is None:
        check_several(classes)
        return classes, sum(totals)
    labels, places = _labels.union(labels)
    # Twice, so that it does not warn of as many classes as rows.
    check_classification_targets(np.repeat(labels, 2))
    classes = labels if classes is None else classes
    check_several(classes)
    classes, place = _labels.places(labels, classes)
    totals = np.bincount(np.concatenate(places), np.concatenate(totals), len(labels))
    return classes, np.bincount(place, totals, len(classes))


# -- predictions ----------------------------------------------------------------------------------


def predicted(estimator, X, function, all_classes=False, labels=False):
    """A lazy Dask array of `function` of the logits of every chunk of X.

    For `all_classes` it is (n_rows, n_classes) of what the function makes of the logits in their
    place; else (n_rows,) of numbers, or of the `labels` of which these are the indices.
    """
    check_is_fitted(estimator)
    X = check_features(estimator, X, reset=False)
    if not is_array(X):  # columns that are no numbers have their names here
        meta = np.empty((0, X.shape[1]), floating(X.to_dask_array().dtype))
        X = X.map_partitions(features_of, meta=meta)
    model, classes = model_of(estimator), to_numpy(estimator.classes_)
    whole = {"chunks": (X.chunks[0], (len(classes),))}
    kept = whole if all_classes else {"drop_axis": 1}
    classes = classes if labels else None
    dtype = floating(X.dtype) if classes is None else classes.dtype
    return X.map_blocks(
        predict_chunk, model, function, all_classes, classes,
        meta=np.empty((0,) * (1 + all_classes), dtype), dtype=dtype, **kept,
    )  # fmt: skip


def model_of(estimator):
    """Coefficients and intercepts, one `Delayed` for all chunks: they may be large."""
    import dask

    coef = estimator.coef_
    coef = coef if hasattr(coef, "tocsr") else to_numpy(coef)
    return dask.delayed((coef, to_numpy(estimator.intercept_)), pure=False, traverse=False)


def floating(dtype):
    """float32 for that, float64 for all else: as predictions are."""
    return np.dtype(np.float32 if dtype == np.float32 else np.float64)


def predict_chunk(x, model, function, all_classes, classes):
    """`function` of the logits of a chunk; see :func:`predicted`."""
    logits = Logits(features_of(x), *model)
    if all_classes:
        return logits.all(function).T
    found = logits.each(function)
    return found if classes is None else classes[found]


def reduced(estimator, X, y, sample_weight, function):
    """The weighted mean over all rows of `function`(logits, y, weight), summed by chunk."""
    import dask

    check_is_fitted(estimator)
    X = check_features(estimator, X, reset=False)
    y = aligned(y, X, "y")
    weight = None if sample_weight is None else aligned(sample_weight, X, "sample_weight")
    known = model_of(estimator), to_numpy(estimator.classes_)
    names = _labels.column_names(y) if y.ndim == 2 and not is_array(y) else None
    chunks = [pieces(value) for value in (X, y, weight)]
    chunks[2] = chunks[2] or [None] * len(chunks[0])
    make = dask.delayed(reduce_chunk, pure=False)
    parts = [make(*chunk, *known, names, function) for chunk in zip(*chunks, strict=True)]
    total, weights = np.sum(dask.compute(*parts), axis=0)
    if not weights > 0:
        raise ValueError(_targets.ZERO_WEIGHT.format("sample_weight"))
    return float(total / weights)


def reduce_chunk(x, y, weight, model, classes, names, function):
    """The sum of `function` over the rows of a chunk, and that of their weights."""
    X, y, weight = read_rows(x, y, weight)
    if not weight.any():
        return 0.0, 0.0
    if _labels.is_rows(y):
        y = _targets.encode_rows(np.asarray(y), classes, names)[1]
    return function(Logits(X, *model), y, weight, classes), float(weight.sum())


def loss_of_chunk(logits, y, weight, classes):
    """The sum of the losses of a chunk."""
    _, target = _targets.encode(y, classes)
    mean = _scoring.mean_loss_of_targets(logits.over_blocks, target, weight)
    return mean * float(weight.sum())


def accuracy_of_chunk(logits, y, weight, classes):
    """The weight of the rows of a chunk that are right; for rows, their share."""
    best = logits.each(most_probable)
    if _labels.is_rows(y):
        return float(weight @ y[np.arange(len(best)), best])
    return accuracy_score(y, classes[best], normalize=False, sample_weight=weight)
