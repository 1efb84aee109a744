"""Fits of Dask collections: chunks to parts of rows, and the problem that they are.

X, y and weights stay where their chunks are. What comes here are summaries of the chunks, sums,
and samples of rows. Dask is imported in functions: a collection is there when one is given.
"""

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from skfc import _blockwise, _labels, _targets
from skfc._dask_chunks import aligned, check_features, is_array, pieces
from skfc._pool import n_threads
from skfc._problem import Problem
from skfc._reading import check_several
from skfc._rows import Call, DaskRows, Here, Layout, OnWorkers, check_alike, read, summary
from skfc._targets import Targets
from skfc._tuned import TUNED


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

    task = True
    try:
        get_worker()
    except ValueError:
        task = False
    if task:
        secede()
    try:
        yield
    finally:
        if task:
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
    _labels.refuse_objects(labels)
    # Twice, so that it does not warn of as many classes as rows.
    check_classification_targets(np.repeat(labels, 2))
    classes = labels if classes is None else classes
    check_several(classes)
    classes, place = _labels.places(labels, classes)
    totals = np.bincount(np.concatenate(places), np.concatenate(totals), len(labels))
    return classes, np.bincount(place, totals, len(classes))
