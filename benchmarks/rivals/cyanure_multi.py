"""cyanure's `Classifier` with its multinomial loss; it stops by a relative duality gap."""

import numpy as np

from benchmarks.rivals import Fitted, Rival, binomial_C, tolerances, two_rows


def fit(X, y, C, tol, count):
    from cyanure.estimators import Classifier

    model = Classifier(
        loss="logistic" if y.max() == 1 else "multiclass-logistic", penalty="l2", tol=tol,
        lambda_1=1 / (binomial_C(C, y) * len(y)), max_iter=1_000_000, verbose=False,
    )  # fmt: skip
    model.fit(X, y)
    N = X.shape[1]
    coef = np.reshape(model.coef_, (N, -1)).T
    return Fitted(*two_rows(coef, np.ravel(model.intercept_)), float(np.max(model.n_iter_)))


RIVALS = [Rival("cyanure", "cyanure", "cyanure", fit, tolerances(-1))]
