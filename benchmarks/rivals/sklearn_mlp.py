"""scikit-learn's `MLPClassifier` without hidden layers."""

import numpy as np

from benchmarks.rivals import Fitted, Rival, binomial_C, dense_only, tolerances, two_rows
from benchmarks.rivals._counting import minimize_evaluations

BATCH = 200


def lbfgs(X, y, C, tol, count):
    # Its penalty is alpha / (2 n) ||W||².
    return run(X, y, alpha=1 / binomial_C(C, y), solver="lbfgs", tol=tol, max_iter=1_000_000,
               max_fun=10_000_000)  # fmt: skip


def adam(X, y, C, epochs, count):
    batch = min(BATCH, len(y))
    return run(
        X, y, alpha=batch / (len(y) * binomial_C(C, y)), solver="adam", batch_size=batch, tol=0.0,
        max_iter=epochs, n_iter_no_change=epochs + 1, learning_rate_init=0.01,
    )  # fmt: skip


def run(X, y, **parameters):
    from sklearn.neural_network import MLPClassifier

    model = MLPClassifier(hidden_layer_sizes=(), random_state=0, **parameters)
    with minimize_evaluations() as counts:
        model.fit(X, y)
    passes = float(sum(counts)) or float(np.max(model.n_iter_))
    return Fitted(*two_rows(model.coefs_[0].T, model.intercepts_[0]), passes)


RIVALS = [
    Rival("mlp-lbfgs", "sklearn", "scikit-learn", lbfgs, tolerances(), dense_only),
    Rival("mlp-adam", "sklearn", "scikit-learn", adam, (3, 10, 30, 100, 300), dense_only),
]
