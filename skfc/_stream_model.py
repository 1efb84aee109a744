"""From a stream to coefficients: its classes, and models in the units of X."""

import numpy as np
from scipy import sparse

from skfc import _labels, _targets
from skfc._absent import finish
from skfc._array import to_numpy
from skfc._fits import solve
from skfc._method import Method
from skfc._outcome import OVERFLOW
from skfc._problem import Problem
from skfc._stream import Stream


def check_stream(estimator):
    """Raise for parameters of an estimator that a stream does not take."""
    if isinstance(estimator.class_weight, str):
        raise ValueError(
            "class_weight='balanced' needs the counts of all rows, which partial_fit does not "
            "know; pass a dict from class to weight."
        )


def stream_classes(estimator, y, classes, known):
    """The classes of a call of `partial_fit`, None where only rows of `y` say how many.

    `known` are those of the calls before, None for the first.
    """
    given = named_classes(estimator, classes)
    if known is None:
        if given is None and hasattr(estimator, "classes_"):
            return to_numpy(estimator.classes_)  # of a fit
        if given is None and not _labels.is_rows(_labels.plain(y)):
            raise ValueError(
                "classes must be named in the first call of partial_fit, or by the 'classes' "
                "parameter: later batches may hold labels that this one misses."
            )
        return given
    if given is None:
        return known
    missing = [label for label in known.tolist() if label not in given.tolist()]
    if missing:
        raise ValueError(
            f"classes must hold those of the calls of partial_fit before; {missing} missing "
            f"from {given.tolist()}. `fit` begins anew."
        )
    return given


def named_classes(estimator, classes):
    """The classes that a call or the parameter names, which agree; None where neither does."""
    given = None if classes is None else _labels.check_classes(classes)
    own = None if estimator.classes is None else _labels.check_classes(estimator.classes)
    if given is not None and own is not None and given.tolist() != own.tolist():
        raise ValueError(
            f"The classes of partial_fit, {given.tolist()}, are not those of the 'classes' "
            f"parameter, {own.tolist()}."
        )
    return own if given is None else given


def learn(stream, known, X, targets, sample_weight, penalty, fit_intercept):
    """The stream with the rows of X.

    Parameters
    ----------
    stream, known : the stream before and its classes, None for the first rows
    X, targets, sample_weight : what `partial_fit` was given, settled
    penalty : its strength, and whether in units of the standard deviations
    """
    first, n_classes = stream is None, targets.n_classes
    rows = np.flatnonzero(targets.weight > 0)
    if first and not len(rows):
        raise ValueError("class_weight is zero for every class that y holds.")
    try:
        if first:
            stream = Stream(X[rows], n_classes, fit_intercept)
        check_intercept(stream, fit_intercept)
        wider = stream.n_classes < n_classes
        if wider:
            labels = targets.classes.tolist()
            place = np.array([labels.index(label) for label in known.tolist()])
            stream = stream.widened(place, n_classes)
        new = stream
        if len(rows):  # class_weight may be zero for all of them
            new = stream.with_rows(
                X[rows], targets.target[..., rows], targets.weight[rows], sample_weight[rows],
                penalty,
            )  # fmt: skip
    except np.linalg.LinAlgError as error:
        raise ValueError(OVERFLOW.format(X.dtype)) from error
    check_finite(new.total, new.theta, new.gradient, new.value, dtype=X.dtype)
    return new


def check_intercept(stream, fit_intercept):
    """Raise where the parameter is not that of the calls before."""
    if stream.fit_intercept != fit_intercept:
        raise ValueError(
            f"fit_intercept={fit_intercept} is not that of the calls of partial_fit before. "
            "`fit` begins anew."
        )


def model(stream, classes):
    """Coefficients and intercepts of all classes, in the units of X."""
    chunk, dtype = stream.held(), stream.dtype
    rows = chunk.rows[:, : stream.window.n_features]
    weight = chunk.weight * (stream.total / chunk.weight.sum())
    held = _targets.Targets(classes, chunk.target, weight)
    try:
        if stream.approximate:
            coef, intercept = stream.learned().coefficients()
        else:
            coef, intercept = fitted(stream, rows, held, chunk.sample_weight)
    except np.linalg.LinAlgError as error:
        raise ValueError(OVERFLOW.format(dtype)) from error
    coef, intercept = finish(coef, intercept, rows, held, stream.active, stream.fit_intercept)
    intercept = intercept - coef @ stream.window.shift
    if stream.fit_intercept:
        intercept -= intercept.mean()
    coef, intercept = coef.astype(dtype), intercept.astype(dtype)
    check_finite(coef, intercept, dtype=dtype)
    return coef, intercept


def fitted(stream, rows, targets, sample_weight):
    """Coefficients and intercepts of a fit of all rows, while all of them are held."""
    strength, standardize = stream.penalty
    rows = sparse.csr_matrix(rows) if sparse.issparse(rows) else np.ascontiguousarray(rows)
    problem = Problem(
        rows, [targets.keep(stream.active)], fit_intercept=stream.fit_intercept,
        standardize=standardize, l1_ratio=0.0, sample_weight=sample_weight[None],
    )  # fmt: skip
    C = np.array([1 / strength if strength > 0 else np.inf])
    (fit,), _ = solve(problem, Method(), C)
    return problem.coefficients(fit.theta)


def check_finite(*arrays, dtype):
    """Raise where anything has overflown."""
    if not all(np.isfinite(a).all() for a in arrays):
        raise ValueError(OVERFLOW.format(dtype))
