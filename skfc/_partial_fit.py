"""`partial_fit`: what the estimator does with a stream."""

from numbers import Real

import numpy as np
from sklearn.utils.metaestimators import available_if

from skfc import _targets
from skfc._array import is_dispatched, place
from skfc._parameters import check_parameters
from skfc._reading import read_data, unchanged_on_failure
from skfc._stream_model import check_stream, learn, model, stream_classes


def takes_batches(estimator):
    """Whether an estimator learns from batches: a search needs all rows, a stream squares."""
    ratio = getattr(estimator, "l1_ratio", 0.0)
    if isinstance(ratio, Real) and ratio > 0:
        raise AttributeError(
            f"partial_fit has an L2 penalty only; got l1_ratio={ratio!r}. Set l1_ratio to 0, or "
            "use fit."
        )
    return not hasattr(estimator, "cv")


# Attributes that wait until they are read, and those that only a fit has.
READ = ("coef_", "intercept_")
OF_A_FIT = ("loss_curve_", "validation_curve_", "optimality_gap_", "solver_")


def when_read(name):
    """The attribute `name`, which after `partial_fit` is computed when it is read."""

    def get(self):
        if name not in vars(self) and "_stream" in vars(self):
            self._read_stream()
        if name not in vars(self):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return vars(self)[name]

    def put(self, value):
        vars(self)[name] = value

    def drop(self):
        del vars(self)[name]

    return property(get, put, drop)


class PartialFitMixin:
    """`partial_fit`, for estimators that learn from batches."""

    coef_, intercept_ = map(when_read, READ)

    @available_if(takes_batches)
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        r"""Learn from more rows of a stream.

        The objective is that of `fit` of all rows seen so far. Up to 2000 of them, and 64 MB,
        are kept; the loss of the others is known by its second-order expansion. There is
        nothing to scale and no learning rate, and batches may have any size: a call takes
        steps when a sixteenth of the rows is new, and the rest is done when `coef_` is asked
        for, here or by a prediction.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows, each to be passed once.
        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            Labels, or one-hot or probability rows.
        classes : array-like of shape (n_classes,), default=None
            The full set of labels. The first call needs it for labels, here or as the
            parameter of the estimator, or takes those of a fit before. A later call may name
            more: what was learned stays.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, >= 0, not all zero.

        Returns
        -------
        self : SoftmaxFCClassifier
            The estimator, fitted to all rows since the first call. Of the fitted attributes
            it has `coef_`, `intercept_`, `classes_` and `n_iter_`, the Newton steps so far.

        Raises
        ------
        ValueError, TypeError
            For parameters or input that do not fit; what was learned is left as it was.

        Notes
        -----
        `fit` forgets the stream, and a stream forgets the fit before it. Solver,
        preconditioner, `tol`, `max_iter` and the parameters of early stopping play no part.
        With `standardize=True` standard deviations are those of the rows so far.
        `class_weight="balanced"` would need all rows, and raises. With `l1_ratio` > 0 there is
        no `partial_fit`: a stream has an L2 penalty only. Nothing is discounted: old rows
        count like new ones. `fit_intercept` must stay what it was in the first call; other
        parameters may change.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from skfc import SoftmaxFCClassifier
        >>> X, y = load_digits(return_X_y=True)
        >>> clf = SoftmaxFCClassifier(classes=range(10))
        >>> for start in range(0, 1500, 100):
        ...     batch = slice(start, start + 100)
        ...     clf = clf.partial_fit(X[batch], y[batch])
        >>> bool(clf.score(X[1500:], y[1500:]) > 0.85)
        True
        """
        with unchanged_on_failure(self):
            return self._partial_fit(X, y, classes, sample_weight)

    def _partial_fit(self, X, y, classes, sample_weight):
        check_parameters(self)
        check_stream(self)
        if is_dispatched(X):
            raise TypeError(f"partial_fit takes NumPy arrays; X is {place(X)}. fit takes it.")
        before = getattr(self, "_stream", None)
        known = self.classes_ if before else None
        classes = stream_classes(self, y, classes, known)
        X, classes, target, weight = read_data(self, X, y, sample_weight, classes, before is None)
        targets = _targets.settle(classes, target, weight, self.class_weight, self.label_smoothing)
        penalty = 1 / self.C, self.standardize
        with np.errstate(all="ignore"):
            self._stream = learn(before, known, X, targets, weight, penalty, self.fit_intercept)
        for name in (*READ, *OF_A_FIT):
            vars(self).pop(name, None)
        self.classes_, self.n_iter_ = classes, self._stream.n_steps
        return self

    def _read_stream(self):
        with np.errstate(all="ignore"):
            self.coef_, self.intercept_ = model(self._stream, self.classes_)
