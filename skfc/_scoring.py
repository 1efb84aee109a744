"""How well probabilities fit a `y` of any form: mean log loss, and its scorer for searches."""

import inspect
from dataclasses import dataclass

import numpy as np
from sklearn import metrics
from sklearn.metrics import make_scorer
from sklearn.utils.metadata_routing import MetadataRequest

from skfc import _targets
from skfc._array import as_like, cast, namespace, refuse_distributed, to_numpy
from skfc._input import readable
from skfc._prediction import row_blocks
from skfc._softmax import kernel

# Named scores that must be told which column belongs to which class where y misses some:
# function, whether greater is better, and where it finds the columns. Releases of
# scikit-learn without the function or its parameter score as they can.
OF_COLUMNS = {
    "neg_log_loss": ("log_loss", False, "predict_proba"),
    "neg_brier_score": ("brier_score_loss", False, "predict_proba"),
    "d2_log_loss_score": ("d2_log_loss_score", True, "predict_proba"),
    "d2_brier_score": ("d2_brier_score", True, "predict_proba"),
    "top_k_accuracy": ("top_k_accuracy_score", True, ("decision_function", "predict_proba")),
}


def with_labels(scoring, scorer, classes):
    """`scorer`, that of the name `scoring`, told the classes where it can be."""
    name, greater, method = OF_COLUMNS.get(scoring if isinstance(scoring, str) else "", [None] * 3)
    function = getattr(metrics, name or "", None)
    known = {} if function is None else inspect.signature(function).parameters
    options = {"labels": classes} if "labels" in known else {}
    if classes.shape[0] == 2 and "pos_label" in known:
        options["pos_label"] = to_numpy(classes)[1]
    if not options:
        return scorer
    return make_scorer(function, greater_is_better=greater, response_method=method, **options)


def cannot_score(scoring, fold, classes, target, error):
    """What to say where the name `scoring` raised an error for the held-out rows of a fold."""
    missed = classes[np.bincount(target, minlength=len(classes)) == 0] if target.ndim == 1 else []
    averages = [
        name for name in metrics.get_scorer_names()
        if name.startswith(f"{scoring}_") and not name.endswith("_samples")  # of several labels
    ]  # fmt: skip
    if len(missed):
        advice = f"These rows miss the classes {missed.tolist()}."
    elif len(classes) > 2 and averages:
        advice = f"Its averages over several classes are {averages}."
    else:
        advice = ""
    return f"scoring={scoring!r} cannot score the held-out rows of fold {fold}: {error} {advice}"


def read_target(y, classes, sample_weight, n_samples):
    """Targets as `_targets.encode` gives them, and weights of at most one."""
    _, target = _targets.encode(y, to_numpy(classes))
    if target.shape[-1] != n_samples:
        raise ValueError(f"y has {target.shape[-1]} rows, but X has {n_samples}.")
    weight = _targets.check_weights(readable(sample_weight, "sample_weight"), (n_samples,))
    return target, weight / weight.max()


def mean_log_loss(over_blocks, n_samples, classes, y, sample_weight=None):
    """Weighted mean of -log p in float64.

    `over_blocks` is a function as `Logits.over_blocks`: it yields what a function gives for
    slices of rows and their logits (n_classes, n_rows).
    """
    target, weight = read_target(y, classes, sample_weight, n_samples)
    return mean_loss_of_targets(over_blocks, target, weight)


def mean_loss_of_targets(over_blocks, target, weight):
    """:func:`mean_log_loss` of targets and weights as `read_target` gives them."""
    return float(mean_losses(over_blocks, target, weight)[0])


def mean_losses(over_blocks, target, weight, n_models=1):
    """The same of several models (n_models,), whose logits stand below one another."""

    def loss(rows, logits):
        xp = namespace(logits)
        if xp is np:
            logits = np.array(logits, dtype=np.float64, order="C")  # a copy: it is overwritten
        stack = xp.reshape(cast(logits, xp.float64), (n_models, -1, logits.shape[1]))
        some = (as_like(a, stack) for a in (target[..., rows], weight[None, rows]))
        return to_numpy(kernel(xp).residual(stack, *some)[0])

    return sum(over_blocks(loss)) / float(weight.sum())


def mean_target(predicted, classes, y, sample_weight=None):
    """Weighted mean of the target's probability of the classes `predicted` (indices)."""
    predicted = to_numpy(predicted)
    target, weight = read_target(y, classes, sample_weight, len(predicted))
    rows = np.arange(len(predicted))
    share = target == predicted if target.ndim == 1 else target[predicted, rows]
    return float(weight @ share / weight.sum())


@dataclass(frozen=True)
class NegLogLossScorer:
    """A scorer for searches: minus the weighted mean log loss, the greater the better.

    Call it as ``neg_log_loss_scorer(estimator, X, y, sample_weight=None)``, or pass it as
    ``scoring=`` to :class:`~sklearn.model_selection.GridSearchCV`,
    :func:`~sklearn.model_selection.cross_validate` and their like.

    It takes what scikit-learn's ``"neg_log_loss"`` refuses: folds that miss a class, and a
    `y` of one-hot or probability rows. Every classifier with `classes_` and
    `predict_log_proba` or `predict_proba` can be scored, a pipeline too. Nothing is clipped;
    only a probability of exactly zero counts as the smallest normal number of its type.

    Parameters
    ----------
    sample_weight : bool, str or None, default=None
        Whether metadata routing passes sample weights to the scorer, set by
        `set_score_request`.

    Raises
    ------
    TypeError
        If the estimator gives no class probabilities.
    ValueError
        If `y` holds a class that the estimator does not know. Where the training rows of a
        fold may miss a class, name all of them: ``SoftmaxFCClassifier(classes=...)``.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skfc import SoftmaxFCClassifier, neg_log_loss_scorer
    >>> X, y = load_iris(return_X_y=True)
    >>> search = GridSearchCV(
    ...     SoftmaxFCClassifier(), {"C": [0.1, 10.0]}, scoring=neg_log_loss_scorer
    ... )
    >>> search.fit(X, y).best_params_
    {'C': 10.0}
    """

    sample_weight: bool | str | None = None

    def __call__(self, estimator, X, y, sample_weight=None):
        """The score of a fitted classifier on X (n_samples, ...) and y, a float."""
        classes, log_proba = predict(estimator, X)
        n, T = log_proba.shape

        def over_blocks(function):
            return (function(rows, log_proba[rows].T) for rows in row_blocks(n, T))

        return -mean_log_loss(over_blocks, n, classes, y, sample_weight)

    def set_score_request(self, *, sample_weight):
        """A scorer that asks metadata routing for sample weights.

        Parameters
        ----------
        sample_weight : bool, str or None
            True to ask for `sample_weight`, False to refuse it, a name to ask for it under
            that name, None to raise if it is passed.

        Returns
        -------
        scorer : NegLogLossScorer
            A new one: this one is shared, and stays as it is.
        """
        return NegLogLossScorer(sample_weight)

    def get_metadata_routing(self):
        """What the scorer asks metadata routing for, a `MetadataRequest`."""
        request = MetadataRequest(owner="neg_log_loss_scorer")
        request.score.add_request(param="sample_weight", alias=self.sample_weight)
        return request

    def __sklearn_clone__(self):
        return self  # it cannot change

    def __repr__(self):
        if self.sample_weight is None:
            return "neg_log_loss_scorer"
        return f"neg_log_loss_scorer.set_score_request(sample_weight={self.sample_weight!r})"


def predict(estimator, X):
    """Classes, and log-probabilities (n_samples, n_classes) without -inf."""
    refuse_distributed(X, "X")
    with np.errstate(divide="ignore"):  # log(0), in here and in estimators
        if hasattr(estimator, "predict_log_proba"):
            log_proba = np.array(fetched(estimator.predict_log_proba(X)))
        elif hasattr(estimator, "predict_proba"):
            log_proba = np.log(fetched(estimator.predict_proba(X)))
        else:
            raise TypeError(
                f"neg_log_loss_scorer needs a classifier with predict_proba; got {estimator!r}."
            )
    classes = np.asarray(fetched(estimator.classes_))
    if log_proba.ndim != 2 or classes.shape != log_proba.shape[1:]:
        raise TypeError(
            "neg_log_loss_scorer needs probabilities of shape (n_samples, n_classes), one "
            f"column for each of {len(classes)} classes; got shape {log_proba.shape}."
        )
    log_proba[np.isneginf(log_proba)] = np.log(np.finfo(log_proba.dtype).tiny)
    return classes, log_proba


def fetched(found):
    """What an estimator gives, in NumPy where it is an array of another library."""
    return readable(found, "what the estimator gives")


neg_log_loss_scorer = NegLogLossScorer()
