r"""From `y` and weights to weighted probability rows, settled before any solving.

Inside, a target is a probability row per sample with a weight; labels are the sparse
case of it, kept as class indices. With sample weight s, label smoothing a and class
weights w, a row y (one-hot for a label) becomes

    y' = (1 - a) y + a / T          smoothing first
    weight = s sum_k w_k y'_k       then class weights, term by term
    target = w∘y' / sum_k w_k y'_k
"""

from contextlib import suppress
from dataclasses import dataclass
from numbers import Real

import numpy as np
from scipy import special
from sklearn.utils import check_array

from skfc._array import cast, namespace
from skfc._input import as_array, as_floating
from skfc._labels import MULTILABEL, check_classes, column_names, encode_labels, is_rows, plain
from skfc._prediction import logits_of

# Probabilities that came through float32 are off by its rounding, not by more.
SUM_SLACK = 1e-5

ZERO_WEIGHT = "{} is zero everywhere; some row needs weight."

WHOLE_NUMBERS = (
    "Counts become probabilities when every row is divided by its sum. Columns of labels are "
    "several targets: sklearn.multioutput.MultiOutputClassifier(SoftmaxFCClassifier()) fits "
    "one classifier per column."
)


@dataclass(frozen=True)
class Targets:
    """Weighted probability rows.

    Attributes
    ----------
    classes : (n_classes,) sorted labels, or names of the columns of `y`
    target : (n_samples,) class indices, or (n_classes, n_samples) probabilities
    weight : (n_samples,) float64
    """

    classes: np.ndarray
    target: np.ndarray
    weight: np.ndarray

    @property
    def n_classes(self):
        return len(self.classes)

    def class_totals(self):
        """Total weight of every class, (n_classes,)."""
        if self.target.ndim == 1:
            return np.bincount(self.target, weights=self.weight, minlength=self.n_classes)
        return self.target @ self.weight

    def share_of_new(self, X, coef, intercept, n_new):
        """How probable each of `n_new` more classes of one intercept is beside those of a model.

        A function of that intercept gives the log of the mean probability; and bounds between
        which the intercept is for means that are not next to one.
        """
        rest = special.logsumexp(logits_of(X, coef, intercept), axis=1)
        share = self.weight / self.weight.sum()

        def log_mean(b):
            return special.logsumexp(-np.logaddexp(rest - b, np.log(n_new)), b=share)

        return log_mean, rest.min(), rest.max()

    @property
    def total(self):
        """The weight of all rows."""
        return float(self.weight.sum())

    def keep(self, active):
        """The targets among the classes `active` (indices); the others have no weight."""
        if len(active) == self.n_classes:
            return self
        if self.target.ndim == 2:
            target = self.target[active]
        else:
            position = np.zeros(self.n_classes, dtype=np.intp)
            position[active] = np.arange(len(active))
            target = position[self.target]
        return Targets(self.classes[active], target, self.weight)


def check_rows(rows, *, what="y"):
    """Probability rows, classes last, in floats; raises for what is none.

    Any array-API array of any number of axes.
    """
    rows = as_floating(rows, what)
    xp = namespace(rows)
    if not xp.all(xp.isfinite(rows)):
        raise ValueError(f"{what} contains NaN or infinity; its rows must be probabilities.")
    low = float(xp.min(rows))
    if low < 0:
        raise ValueError(f"{what} has a negative entry, {low:g}; probabilities are >= 0.")
    total = xp.sum(rows, axis=-1, keepdims=True)
    flat = xp.reshape(total, (-1,))
    worst = int(xp.argmax(xp.abs(flat - 1)))
    if abs(float(flat[worst]) - 1) > SUM_SLACK:
        hint = ""
        if xp.all((rows == 0) | (rows == 1)):
            hint = f" {MULTILABEL}"
        elif xp.all(rows == xp.round(rows)):
            hint = f" {WHOLE_NUMBERS}"
        raise ValueError(
            f"The rows of {what} must sum to one, as one-hot or probability rows do; "
            f"row {worst} sums to {float(flat[worst]):g}.{hint}"
        )
    return rows / total


def place_columns(rows, classes, names, *, what="y"):
    """The classes, and the columns of `rows` in their order.

    An array has its columns in the order of the (sorted) classes. The columns of a frame
    are known by their names, and may be some of the classes only.
    """
    found = rows.shape[1]
    if names is not None and classes is not None:
        unknown = set(names.tolist()) - set(classes.tolist())
        if unknown and names.tolist() == list(range(found)):
            names = None  # a frame made without names
        elif unknown:
            raise ValueError(
                f"{what} has columns {sorted(unknown, key=str)[:5]} that are none of the "
                f"classes {classes.tolist()}."
            )
    if names is None:
        if classes is not None and len(classes) != found:
            raise ValueError(f"{what} has {found} columns, but there are {len(classes)} classes.")
        return np.arange(found) if classes is None else classes, rows
    labels = check_classes(names, what=f"The column names of {what}")
    classes = labels if classes is None else classes
    order = classes.tolist()
    placed = np.zeros((len(rows), len(classes)))
    placed[:, [order.index(name) for name in names.tolist()]] = rows
    return classes, placed


def encode(y, classes=None, *, names=None, what="y", validated=False):
    """Classes, and class indices (n_samples,) or probabilities (n_classes, n_samples).

    `names` are the column names of the frame that `y` was, where it no longer is one;
    `validated` says that it is an array that scikit-learn has checked.
    """
    names = column_names(y) if names is None else names
    if not validated:
        y = check_array(plain(y, what), ensure_2d=False, dtype=None, input_name=what)
    if not is_rows(y):
        return encode_labels(y, classes, what=what)
    classes, rows = encode_rows(y, classes, names, what)
    if ((rows == 0) | (rows == 1)).all():
        return classes, rows.argmax(axis=1)
    return classes, np.ascontiguousarray(rows.T)


def encode_rows(y, classes, names, what="y"):
    """Classes, and probabilities (n_samples, n_classes) in their order."""
    if y.dtype.kind == "O":
        with suppress(TypeError, ValueError):  # said below, with what is right
            y = y.astype(np.float64)
    if y.dtype.kind not in "buif":
        raise ValueError(
            f"{what} with {y.shape[1]} columns must hold numbers, one-hot or probability "
            f"rows; got dtype {y.dtype}. Labels go into one column."
        )
    rows = check_rows(cast(y, np.float64), what=what)
    return place_columns(rows, classes, names, what=what)


def check_weights(sample_weight, shape, what="sample_weight", some=True):
    """Sample weights of `shape` in float64: finite, none negative, not all zero if `some`."""
    if sample_weight is None:
        return np.ones(shape)
    weight = as_array(sample_weight, what)
    if getattr(weight.dtype, "kind", "") == "O":
        with suppress(TypeError, ValueError):  # said below, with what is right
            weight = weight.astype(np.float64)
    xp = namespace(weight)
    weight = cast(as_floating(weight, what), xp.float64)
    if weight.ndim == 0:
        weight = xp.broadcast_to(weight, shape)
    if weight.shape != shape:
        raise ValueError(f"{what} must have shape {shape}, one per row; got {weight.shape}.")
    if not xp.all(xp.isfinite(weight)):
        raise ValueError(f"{what} contains NaN or infinity.")
    if xp.any(weight < 0):
        raise ValueError(f"{what} must not be negative; got {float(xp.min(weight)):g}.")
    if some and not xp.any(weight > 0):
        raise ValueError(ZERO_WEIGHT.format(what))
    return weight


def check_smoothing(label_smoothing):
    """Raise unless label smoothing is a number in [0, 1)."""
    if not isinstance(label_smoothing, Real) or isinstance(label_smoothing, bool | np.bool_):
        raise TypeError(f"label_smoothing must be a number in [0, 1); got {label_smoothing!r}.")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be in [0, 1); got {label_smoothing!r}.")


def class_weights(class_weight, classes, totals):
    """The weight of every class, (n_classes,), from None, "balanced" or a dict.

    `totals` are the sample-weighted counts of the classes, unsmoothed.
    """
    if class_weight is None:
        return np.ones(len(classes))
    if isinstance(class_weight, str) and class_weight == "balanced":
        present = totals > 0
        balanced = np.ones(len(classes))
        balanced[present] = totals.sum() / (present.sum() * totals[present])
        return balanced
    if not isinstance(class_weight, dict):
        raise ValueError(
            "class_weight must be None, 'balanced' or a dict from class to weight; "
            f"got {class_weight!r}."
        )
    known = classes.tolist()
    unknown = [label for label in class_weight if label not in known]
    # As in scikit-learn: a fold may miss a class that the dict names, but a name that
    # is no class beside a class without a name is taken for a mistake.
    if unknown and any(label not in class_weight for label in known):
        raise ValueError(
            f"class_weight names classes that y does not have: {unknown}. The classes are {known}."
        )
    weights = [class_weight.get(label, 1.0) for label in known]
    if not all(isinstance(w, Real) and 0 <= w < np.inf for w in weights):
        raise ValueError(f"class_weight must hold finite weights >= 0; got {class_weight!r}.")
    return np.array(weights, dtype=np.float64)


def settle(classes, target, weight, class_weight=None, label_smoothing=0.0):
    """`Targets` with label smoothing and class weights worked in."""
    targets = Targets(classes, target, weight)
    return weigh(
        targets, class_weights(class_weight, classes, targets.class_totals()), label_smoothing
    )


def weigh(targets, per_class, label_smoothing):
    """Targets with label smoothing, and weights of the classes (n_classes,), worked in."""
    classes, target, weight = targets.classes, targets.target, targets.weight
    n_classes = len(classes)
    if label_smoothing:
        if target.ndim == 1:
            target = (target == np.arange(n_classes)[:, None]).astype(np.float64)
        target = (1 - label_smoothing) * target + label_smoothing / n_classes
    if target.ndim == 1:
        return Targets(classes, target, weight * per_class[target])
    target = target * per_class[:, None]
    scale = target.sum(axis=0)
    target /= np.where(scale > 0, scale, 1.0)
    return Targets(classes, target, weight * scale)
