r"""From `y` and weights to weighted probability rows, settled before any solving.

Inside, a target is a probability row per sample with a weight; labels are the sparse
case of it, kept as class indices. With sample weight s, label smoothing a and class
weights w, a row y (one-hot for a label) becomes

    y' = (1 - a) y + a / T          smoothing first
    weight = s sum_k w_k y'_k       then class weights, term by term
    target = w∘y' / sum_k w_k y'_k
"""

from dataclasses import dataclass

import numpy as np
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d


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


def is_rows(y):
    """Whether `y` holds a row per sample (one-hot or probabilities), not labels."""
    return getattr(y, "ndim", 1) == 2 and y.shape[1] > 1


def column_names(y):
    """The column names of a frame; None where `y` is not one or its names are no labels."""
    columns = getattr(y, "columns", None)
    if columns is None or getattr(y, "ndim", 2) != 2:
        return None
    names = np.asarray(columns)
    return names if names.ndim == 1 else None


def check_classes(classes):
    """The sorted set of labels that a caller gave; raises for duplicates or fewer than two."""
    labels = np.asarray(classes)
    if labels.ndim != 1 or len(labels) < 2:
        raise ValueError(
            f"classes must be a list of at least two labels; got shape {labels.shape}."
        )
    unique = np.unique(labels)
    if len(unique) < len(labels):
        repeated = sorted({label for label in labels.tolist() if labels.tolist().count(label) > 1})
        raise ValueError(f"classes must name every label once; repeated: {repeated}.")
    return unique


def encode_labels(y, classes=None, *, what="y"):
    """`classes`, sorted, and the index of every label; raises for labels outside them."""
    y = column_or_1d(y, warn=True)
    check_classification_targets(y)
    if classes is None:
        return np.unique(y, return_inverse=True)
    try:
        index = np.searchsorted(classes, y)
        index[index == len(classes)] = 0
        unknown = classes[index] != y
    except TypeError:
        unknown = np.ones(len(y), dtype=bool)
    if np.any(unknown):
        strange = np.unique(np.asarray(y)[unknown])[:5].tolist()
        raise ValueError(f"{what} holds labels outside the classes {classes.tolist()}: {strange}.")
    return classes, index


def check_rows(y, n_classes=None, *, what="y"):
    """Probability rows as float64 (n_samples, n_classes); raises for what is none."""
    try:
        rows = np.asarray(y, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(
            f"{what} with {y.shape[1]} columns must hold numbers, one-hot or probability "
            f"rows; got dtype {np.asarray(y).dtype}. Labels go into one column."
        ) from None
    if n_classes is not None and rows.shape[1] != n_classes:
        raise ValueError(f"{what} has {rows.shape[1]} columns, but there are {n_classes} classes.")
    if not np.isfinite(rows).all():
        raise ValueError(f"{what} contains NaN or infinity; its rows must be probabilities.")
    if (rows < 0).any():
        raise ValueError(f"{what} has a negative entry, {rows.min():g}; probabilities are >= 0.")
    total = rows.sum(axis=1)
    worst = np.argmax(np.abs(total - 1))
    # Probabilities that came through float32 are off by its rounding, not by more.
    if abs(total[worst] - 1) > 1e-5:
        raise ValueError(
            f"The rows of {what} must sum to one, as one-hot or probability rows do; "
            f"row {worst} sums to {total[worst]:g}."
        )
    return rows / total[:, None]


def encode(y, classes=None, *, names=None, what="y"):
    """Classes, and class indices (n_samples,) or probabilities (n_classes, n_samples)."""
    if not is_rows(y):
        return encode_labels(y, classes, what=what)
    rows = check_rows(y, None if classes is None else len(classes), what=what)
    if classes is None:
        classes = np.arange(rows.shape[1]) if names is None else names
        order = np.argsort(classes, kind="stable")
        classes, rows = classes[order], rows[:, order]
    if ((rows == 0) | (rows == 1)).all():
        return classes, rows.argmax(axis=1)
    return classes, np.ascontiguousarray(rows.T)


def check_smoothing(label_smoothing):
    """Raise unless label smoothing is in [0, 1)."""
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be in [0, 1); got {label_smoothing!r}.")


def class_weights(class_weight, classes, totals):
    """The weight of every class, (n_classes,), from None, "balanced" or a dict.

    `totals` are the sample-weighted counts of the classes, unsmoothed.
    """
    if class_weight is None:
        return np.ones(len(classes))
    if isinstance(class_weight, str):
        present = totals > 0
        balanced = np.ones(len(classes))
        balanced[present] = totals.sum() / (present.sum() * totals[present])
        return balanced
    known = classes.tolist()
    unknown = [label for label in class_weight if label not in known]
    if unknown:
        raise ValueError(f"class_weight names classes that y does not have: {unknown}.")
    weights = np.array([float(class_weight.get(label, 1.0)) for label in known])
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError(f"class_weight must hold finite weights >= 0; got {class_weight!r}.")
    return weights


def settle(classes, target, weight, class_weight=None, label_smoothing=0.0):
    """`Targets` with label smoothing and class weights worked in."""
    n_classes = len(classes)
    counts = Targets(classes, target, weight).class_totals()
    per_class = class_weights(class_weight, classes, counts)
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
