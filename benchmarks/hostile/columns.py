"""Kinds of hostile columns: functions of a generator, the columns so far, and a number.

Every kind returns an array (n_samples, m), or changes columns in place and returns None.
"""

import numpy as np

SENTINELS = (-999.0, 1e6, 1e9)
DAY, YEAR = 86_400, 365 * 86_400


def gaussian(rng, X, m):
    return rng.standard_normal((len(X), m))


def sentinels(rng, X, m):
    """Missing values that were written as a number."""
    columns = gaussian(rng, X, m)
    for j in range(m):
        missing = rng.random(len(X)) < rng.uniform(0.01, 0.2)
        columns[missing, j] = rng.choice(SENTINELS)
    return columns


def cauchy(rng, X, m):
    return rng.standard_cauchy((len(X), m))


def lognormal(rng, X, m):
    return np.exp(3 * gaussian(rng, X, m))


def counts(rng, X, m):
    """Whole numbers whose mean does not exist."""
    return np.maximum(1, np.floor(rng.pareto(1.0, (len(X), m))))


def polynomial(rng, X, m):
    """Powers 1 ... m of one column that is far from zero or is not."""
    column = rng.choice([0.0, 5.0, 100.0]) + rng.standard_normal(len(X))
    return column[:, None] ** np.arange(1, 1 + min(m, 5))


def one_hot(rng, X, m):
    """All indicators of a category, unequal in frequency: they sum to a constant."""
    m = max(m, 2)
    category = rng.choice(m, size=len(X), p=rng.dirichlet(np.ones(m)))
    return (category[:, None] == np.arange(m)).astype(float)


def near_duplicates(rng, X, m):
    """Columns of X, changed by 1e-3 to 1e-8 of their standard deviation."""
    of = rng.integers(X.shape[1], size=m)
    change = 10 ** -rng.uniform(3, 8, size=m)
    return X[:, of] + X[:, of].std(axis=0) * change * gaussian(rng, X, m)


def ids(rng, X, m):
    return rng.integers(0, 10**9, (len(X), m)).astype(float)


def timestamps(rng, X, m):
    """Seconds or nanoseconds since 1970, of one day or one year."""
    unit = rng.choice([1.0, 1e9], size=m)
    return unit * (1.7e9 + rng.choice([DAY, YEAR], size=m) * rng.random((len(X), m)))


def offsets(rng, X, m):
    """Means of 1e3 to 1e9 standard deviations."""
    return (10 ** rng.uniform(3, 9, size=m) + gaussian(rng, X, m)) * 10 ** rng.uniform(-2, 2, m)


def rare(rng, X, m):
    """Three rows that are not zero."""
    columns = np.zeros((len(X), m))
    for j in range(m):
        columns[rng.choice(len(X), 3, replace=False), j] = rng.choice([1.0, 1.0, 1e4])
    return columns


def scales(rng, X, m):
    return gaussian(rng, X, m) * 10 ** rng.uniform(-8, 8, size=m)


def constant(rng, X, m):
    return np.tile(rng.choice([0.0, 1.0, 0.1, 1e9], size=m), (len(X), 1))


def huge_value(rng, X, m):
    """One value of 1e3 to 1e8 in one row of a column that is there already."""
    X[rng.integers(len(X)), rng.integers(X.shape[1])] = 10 ** rng.uniform(3, 8)


KINDS = {
    kind.__name__: kind
    for kind in (
        sentinels, cauchy, lognormal, counts, polynomial, one_hot, near_duplicates, ids,
        timestamps, offsets, rare, scales, constant, huge_value,
    )
}  # fmt: skip


def tame(X):
    """X as a model of labels may see it: from the median, in units of its spread, clipped."""
    low, median, high = np.quantile(X, [0.1, 0.5, 0.9], axis=0)
    from_median = X - median
    spread = high - low
    spread = np.where(spread > 0, spread, np.abs(from_median).max(axis=0))
    return np.clip(2.5 * from_median / np.where(spread > 0, spread, 1.0), -3, 3)
