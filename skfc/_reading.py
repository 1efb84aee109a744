"""What an estimator is given: X, y and weights, validated and encoded."""

from contextlib import contextmanager

from scipy import sparse
from sklearn.utils.validation import validate_data

from skfc import _labels, _targets
from skfc._array import check_place, is_dispatched, is_on_host
from skfc._input import ACCEPTED, about_X, as_features, float_types, readable
from skfc._prediction import dense
from skfc._rows import streamed, without_duplicates


def read_data(estimator, X, y, sample_weight, classes=None, reset=True):
    """X as an array or CSR; classes, encoded target and weights, all validated.

    `classes` are those known; None: those of the parameter, else those of y.
    """
    names = _labels.column_names(y)
    X, y = as_features(X), _labels.plain(y)
    X, y = validated(estimator, X, y, reset=reset, multi_output=True)
    X = without_duplicates(X) if sparse.issparse(X) else X
    if classes is None and estimator.classes is not None:
        classes = _labels.check_classes(estimator.classes)
    classes, target = _targets.encode(y, classes, names=names, validated=not sparse.issparse(y))
    weight = _targets.check_weights(readable(sample_weight, "sample_weight"), (X.shape[0],))
    check_several(classes)
    return X, classes, target, weight


def beside_targets(X, *targets):
    """Validated rows of the host, for a fit on the device that `y` or the weights are on.

    Without such a device, and for sparse rows, X itself.
    """
    if sparse.issparse(X):
        return X
    devices = (a for a in targets if is_dispatched(a) and not is_on_host(a))
    return streamed(X, next(devices, X))


def check_several(classes):
    """Raise for a single class."""
    if len(classes) < 2:
        raise ValueError(
            f"y must hold at least two classes; got one class, {classes.tolist()}. Where "
            "there are others that y misses, name all of them in `classes`."
        )


def validated(estimator, X, *y, **options):
    """scikit-learn's `validate_data`; the columns of a frame that it refuses are named."""
    try:
        return validate_data(estimator, X, *y, dtype=float_types(X), **ACCEPTED, **options)
    except (TypeError, ValueError) as error:
        if message := about_X(X, str(error)):
            raise ValueError(message) from error
        raise


def check_rows(estimator, X, method=None):
    """X, validated as rows of the features known, where a `method` needs it to be."""
    if method is not None:
        coef = dense(estimator.coef_)
        check_place(X, coef, f"{type(estimator).__name__}.{method}()")
    return validated(estimator, as_features(X), reset=False)


@contextmanager
def unchanged_on_failure(estimator):
    """Whatever ends the block early, the estimator is then as it was."""
    before = vars(estimator).copy()
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise
