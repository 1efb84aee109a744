"""Generated data of stated difficulty, by name: a kind, rows × features × classes.

`tails-2000x10x5` has heavy-tailed features in units of 0.01 to 100, `near-…` features that nearly
are sums of others, `onehot-…` categories with rare levels (CSR), `text-…` weighted counts of
words (CSR). Labels are drawn from a softmax model of the features.
"""

from itertools import pairwise

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfTransformer

CATEGORIES = 8  # of one-hot data
WORDS = 60  # of a text, on average


def labels(Z, spread, rng):
    """Draws from softmax(Z), scaled to logits of standard deviation `spread`; all classes."""
    Z = (Z - Z.mean(axis=0)) * (spread / Z.std())
    y = (Z + rng.gumbel(size=Z.shape)).argmax(axis=1)
    y[: Z.shape[1]] = np.arange(Z.shape[1])
    return y


def tails(n, N, T, rng):
    """Student's t of 1.2 to 4 degrees of freedom; every third column an exponential of it."""
    X = np.column_stack([rng.standard_t(freedom, n) for freedom in rng.uniform(1.2, 4, N)])
    y = labels(np.tanh(X) @ rng.standard_normal((N, T)), 2, rng)
    X[:, ::3] = np.exp(np.clip(X[:, ::3], -10, 10))
    return X * 10.0 ** rng.uniform(-2, 2, N), y


def near(n, N, T, rng):
    """Half of the features are sums of two others, and a thousandth of noise."""
    X = rng.standard_normal((n, N))
    free = (N + 1) // 2
    for j in range(free, N):
        X[:, j] = X[:, rng.integers(free, size=2)].sum(axis=1) + 1e-3 * X[:, j]
    return X, labels(X @ rng.standard_normal((N, T)), 2, rng)


def onehot(n, N, T, rng):
    """One level of each of 8 variables per row; levels by Zipf's law, N of them in all."""
    first = np.linspace(0, N, CATEGORIES + 1).astype(int)
    columns = []
    for a, b in pairwise(first):
        chance = 1 / np.arange(1.0, b - a + 1)
        columns.append(a + rng.choice(b - a, n, p=chance / chance.sum()))
    indices = np.column_stack(columns).ravel()
    parts = np.ones(indices.size), indices, np.arange(n + 1) * CATEGORIES
    X = sparse.csr_matrix(parts, shape=(n, N))
    return X, labels(X @ rng.standard_normal((N, T)), 2, rng)


def text(n, N, T, rng):
    """Texts of about 60 words by Zipf's law, a third of them of the class; tf-idf, unit rows."""
    chance = 1 / np.arange(2.0, N + 2)
    chance /= chance.sum()
    y = rng.permutation(np.arange(n) % T)
    own = np.array([rng.permutation(N) for _ in range(T)])  # of a class the words by rank
    length = 1 + rng.poisson(WORDS, n)
    row = np.repeat(np.arange(n), length)
    word = rng.choice(N, len(row), p=chance)
    of_class = rng.random(len(row)) < 1 / 3
    word[of_class] = own[y[row[of_class]], word[of_class]]
    X = sparse.csr_matrix((np.ones(len(row)), (row, word)), shape=(n, N))
    return TfidfTransformer().fit_transform(X), y


KINDS = {"tails": tails, "near": near, "onehot": onehot, "text": text}


def generate(kind, n, N, T, *, seed=0):
    """X (n, N) and y (n,) of the family `kind`."""
    return KINDS[kind](n, N, T, np.random.default_rng(seed))
