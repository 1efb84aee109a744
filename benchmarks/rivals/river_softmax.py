"""river's `SoftmaxRegression`: a row at a time. Its intercept is a feature, penalised."""

import numpy as np

from benchmarks.rivals import Fitted, Rival, dense_only


def prepare(X, y):
    return [{"b": 1.0} | dict(enumerate(row)) for row in X.tolist()], y


def fit(rows, y, C, epochs, count):
    from river.linear_model import SoftmaxRegression
    from river.optim import Adam

    model = SoftmaxRegression(optimizer=Adam(0.01), l2=1 / (C * len(y)))
    for _ in range(epochs):
        for row, label in zip(rows, y.tolist(), strict=True):
            model.learn_one(row, label)
    names = [name for name in rows[0] if name != "b"]
    weights = [model.weights[label] for label in range(int(y.max()) + 1)]
    coef = np.array([[w[name] for name in names] for w in weights])
    return Fitted(coef, np.array([w["b"] for w in weights]), float(epochs))


RIVALS = [Rival("river", "river", "river", fit, (1, 3, 10, 30), dense_only, prepare)]
