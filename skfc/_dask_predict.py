"""Predictions and scores of Dask collections, chunk by chunk.

Dask is imported in functions: a collection is there when one is given.
"""

import numpy as np
from sklearn.metrics import accuracy_score
from sklearn.utils.validation import check_is_fitted

from skfc import _labels, _scoring, _targets
from skfc._array import to_numpy
from skfc._dask_chunks import aligned, check_features, is_array, pieces
from skfc._prediction import Logits, most_probable
from skfc._rows import features_of, read_rows


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
