"""mlxtend's `SoftmaxRegression`: gradient descent of a fixed step, here 1 / L."""

import numpy as np

from benchmarks.rivals import Fitted, Rival, dense_only


def fit(X, y, C, epochs, count):
    from mlxtend.classifier import SoftmaxRegression

    # The gradient is a sum over rows: L bounds its Hessian, by half the Gram matrix.
    gram = X.T @ X
    lipschitz = 0.5 * (np.linalg.norm(gram, 2) + len(y)) + 1 / C
    model = SoftmaxRegression(
        eta=1 / lipschitz, epochs=epochs, l2=1 / C, minibatches=1, random_seed=0
    )
    model.fit(X, y.astype(int))
    return Fitted(model.w_.T, model.b_, 2.0 * epochs)  # an epoch ends with its cost


RIVALS = [
    Rival("mlxtend", "mlxtend", "mlxtend", fit, (10, 100, 1000, 10_000, 100_000), dense_only)
]
