r"""The layer's functions by themselves, on any array-API array, classes on the last axis."""

import numpy as np

from skfc import _targets
from skfc._array import as_like, cast, namespace
from skfc._input import as_array, as_floating
from skfc._softmax import GENERIC, log_probabilities


def softmax(logits):
    r"""Probabilities from logits: :math:`p_k = e^{z_k} / \sum_j e^{z_j}`.

    Parameters
    ----------
    logits : array of shape (..., n_classes)
        NumPy array, array-API array or nested list. float32 and float64 keep their type,
        other real numbers become float64. ``-inf`` marks a class that cannot occur.

    Returns
    -------
    proba : array of shape (..., n_classes)
        Probabilities, which sum to one over the last axis.

    Raises
    ------
    TypeError
        If `logits` holds no real numbers.
    ValueError
        If there is no last axis of classes, or a row without a finite largest logit: with
        NaN, ``inf``, or nothing but ``-inf``.

    See Also
    --------
    log_softmax : Logarithms of these, exact where a probability rounds to zero.

    Examples
    --------
    >>> from skfc import softmax
    >>> softmax([[0.0, 0.0], [1e300, -1e300]]).tolist()
    [[0.5, 0.5], [1.0, 0.0]]
    """
    with np.errstate(over="ignore"):
        return GENERIC.probabilities(_check_logits(logits), axis=-1)


def log_softmax(logits):
    r"""Logarithms of the softmax: :math:`\log p_k = z_k - \log \sum_j e^{z_j}`.

    Parameters
    ----------
    logits : array of shape (..., n_classes)
        As for :func:`softmax`.

    Returns
    -------
    log_proba : array of shape (..., n_classes)
        Logarithms of the probabilities, of full precision however small those are.

    Raises
    ------
    TypeError, ValueError
        As :func:`softmax`.

    Examples
    --------
    >>> from skfc import log_softmax
    >>> log_softmax([0.0, 1e300]).tolist()
    [-1e+300, 0.0]
    """
    with np.errstate(over="ignore"):
        return log_probabilities(_check_logits(logits), axis=-1)


def softmax_cross_entropy(
    logits, y, sample_weight=None, *, class_weight=None, label_smoothing=0.0
):
    r"""Weighted mean cross-entropy of logits against labels or probabilities.

    With the row :math:`y_i` (one-hot for a label), its smoothed form
    :math:`y'_i = (1 - a) y_i + a / T`, sample weights :math:`s` and class weights :math:`w`,

    .. math:: \frac{\sum_i s_i \sum_k w_k y'_{ik} (-\log p_{ik})}{\sum_i s_i \sum_k w_k y'_{ik}}

    It is the loss that :class:`SoftmaxFCClassifier` minimises, per unit of weight: the
    numerator sums PyTorch's ``cross_entropy(reduction="none")``. Without class weights the
    denominator is the sum of the sample weights.

    Parameters
    ----------
    logits : array of shape (..., n_classes)
        As for :func:`softmax`.
    y : array of shape (...,) or (..., n_classes)
        Labels 0 ... n_classes - 1, or one-hot or probability rows.
    sample_weight : array of shape (...,), default=None
        Weights of the rows; None is one for each.
    class_weight : dict or "balanced", default=None
        Weights of the classes, from label to weight. ``"balanced"`` weighs them inversely to
        their share of the (weighted, unsmoothed) `y`.
    label_smoothing : float, default=0.0
        Share in [0, 1) of every row that is spread evenly over the classes.

    Returns
    -------
    loss : float
        The weighted mean, computed in float64. ``inf`` where a class that occurs has the
        logit ``-inf``.

    Raises
    ------
    TypeError, ValueError
        As :func:`softmax`, and for a `y` that is neither labels nor probability rows of the
        right shape, weights that are negative, not finite or zero everywhere, or a
        `label_smoothing` outside [0, 1).

    Examples
    --------
    Five classes, the fourth of which is true:

    >>> import numpy as np
    >>> from skfc import softmax_cross_entropy
    >>> p = [0.1, 0.15, 0.05, 0.6, 0.1]
    >>> loss = softmax_cross_entropy(np.log(p), 3)
    >>> bool(np.isclose(loss, -np.log(0.6)))
    True
    >>> bool(np.isclose(loss, softmax_cross_entropy(np.log(p), [0, 0, 0, 1, 0])))
    True
    """
    _targets.check_smoothing(label_smoothing)
    logits = _check_logits(logits)
    xp = namespace(logits)
    logits = cast(logits, xp.float64)
    n_classes = logits.shape[-1]
    rows = _check_target(as_like(as_array(y), logits), logits)
    weight = _targets.check_weights(sample_weight, logits.shape[:-1])
    weight = as_like(weight, logits)
    terms = (weight / xp.max(weight))[..., None] * rows
    if class_weight is not None:
        totals = xp.sum(xp.reshape(terms, (-1, n_classes)), axis=0)
        totals = np.array([float(totals[k]) for k in range(n_classes)])
        w = _targets.class_weights(class_weight, np.arange(n_classes), totals)
    if label_smoothing:
        spread = xp.sum(terms, axis=-1, keepdims=True) / n_classes
        terms = (1 - label_smoothing) * terms + label_smoothing * spread
    if class_weight is not None:
        terms = terms * as_like(w, logits)
    total = xp.sum(terms)
    if not total > 0:
        raise ValueError("class_weight is zero for every class that y holds.")
    with np.errstate(over="ignore"):
        log_proba = log_probabilities(logits, axis=-1)
    # A class of no weight may have the logit -inf: 0 * -inf would be NaN.
    log_proba = xp.where(terms > 0, log_proba, xp.zeros_like(log_proba))
    return -float(xp.sum(terms * log_proba) / total)


def _check_logits(logits):
    """Logits as a floating array with classes last; a finite largest one in every row."""
    logits = as_floating(as_array(logits), "logits")
    xp = namespace(logits)
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(
            f"logits must have the classes on their last axis; got shape {logits.shape}."
        )
    if not xp.all(xp.isfinite(xp.max(logits, axis=-1))):
        raise ValueError("logits hold NaN or infinity, or a row of nothing but -inf.")
    return logits


def _check_target(y, logits):
    """Probability rows of the shape of `logits`, from those or from labels."""
    xp = namespace(logits)
    shape, n_classes = logits.shape, logits.shape[-1]
    if y.shape == shape:
        return cast(_targets.check_rows(y), xp.float64)
    if y.shape != shape[:-1]:
        raise ValueError(
            f"y must have shape {shape[:-1]} (labels) or {shape} (rows) for logits of shape "
            f"{shape}; got {y.shape}."
        )
    integers = y.dtype.kind in "ui" if xp is np else xp.isdtype(y.dtype, "integral")
    if not integers:
        raise TypeError(f"Labels in y must be integers 0 ... {n_classes - 1}; got {y.dtype}.")
    y = cast(y, xp.int64)
    if xp.any(y < 0) or xp.any(y >= n_classes):
        raise ValueError(
            f"Labels in y must be in 0 ... {n_classes - 1}; "
            f"got {int(xp.min(y))} ... {int(xp.max(y))}."
        )
    classes = as_like(np.arange(n_classes, dtype=np.int64), logits)
    return cast(y[..., None] == classes, xp.float64)
