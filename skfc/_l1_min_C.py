"""The smallest C at which a coefficient is not zero."""

from numbers import Real

import numpy as np

from skfc._array import to_numpy
from skfc._classifier import SoftmaxFCClassifier, prepare
from skfc._duality import Dual
from skfc._runtime import fit_arithmetic


def l1_min_C(
    X, y, *, l1_ratio=1.0, fit_intercept=True, sample_weight=None, class_weight=None,
    standardize=False,
):  # fmt: skip
    r"""The smallest C at which a coefficient is not zero.

    At this C and below, :class:`SoftmaxFCClassifier` with the same parameters has zero
    coefficients, and intercepts that give the shares of the classes; above it, it has some that
    are not. Paths of C start here.

    With :math:`G` the gradient of :math:`\sum_i s_i\, [-\log p_{i y_i}]` in the coefficients,
    where all of them are zero, it is :math:`l1\_ratio / \max_{jk} |G_{jk}|`.

    Parameters
    ----------
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Rows of features.
    y : array-like of shape (n_samples,) or (n_samples, n_classes)
        Labels, or one-hot or probability rows.
    l1_ratio : float, default=1.0
        Share of the absolute values in the penalty, in (0, 1].
    fit_intercept : bool, default=True
        Whether the model has intercepts.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes.
    standardize : bool, default=False
        Whether the penalty is on coefficients in units of the features' standard deviations.

    Returns
    -------
    l1_min_C : float
        The smallest C, infinite where no C gives a coefficient other than zero.

    Raises
    ------
    ValueError, TypeError
        For parameters or input that do not fit.

    See Also
    --------
    sklearn.svm.l1_min_c : The same for other models; its logistic loss is one-vs-rest.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from skfc import SoftmaxFCClassifier, l1_min_C
    >>> X, y = load_wine(return_X_y=True)
    >>> C = l1_min_C(X, y)
    >>> for factor in [1, 1.1, 10]:
    ...     clf = SoftmaxFCClassifier(C=factor * C, l1_ratio=1).fit(X, y)
    ...     print(int((clf.coef_ != 0).sum()))
    0
    1
    2
    """
    if isinstance(l1_ratio, Real) and not isinstance(l1_ratio, bool) and l1_ratio == 0:
        raise ValueError("l1_ratio of l1_min_C must be a number in (0, 1]; got 0.")
    estimator = SoftmaxFCClassifier(
        l1_ratio=l1_ratio, fit_intercept=fit_intercept, class_weight=class_weight,
        standardize=standardize,
    )  # fmt: skip
    problem = prepare(estimator, X, y, sample_weight)
    objective = problem.objective(np.ones(1))
    with fit_arithmetic(objective.rows):
        gradient = Dual.of(objective).null_gradient()
    N = objective.rows.shape[1]
    size = np.abs(to_numpy(gradient)[:N]) / to_numpy(objective.penalty.thresholds)
    largest = size.max(initial=0.0)
    return float(1.0 / largest) if largest > 0 else np.inf
