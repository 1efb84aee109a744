"""The second derivatives of the loss of one problem in some of its weights alone.

A coordinate is a weight, a feature and a class. With probabilities p and mean weights m, that
of the coordinates (j, k) and (i, l) is the mean over the rows of

    m p_k (1 - p_k) x̃_j x̃_i  for k = l,      - m p_k p_l x̃_j x̃_i  for other classes

Coordinates come sorted by class. The feature N, one more than there are, is the intercept.
"""

from itertools import pairwise

import numpy as np

from skfc._array import concatenate, namespace, outer, take


def classes_of(classes, n_classes):
    """Slices of the coordinates of every class."""
    edges = np.searchsorted(classes, np.arange(n_classes + 1)).tolist()
    return [slice(a, b) for a, b in pairwise(edges)]


def variances(p, present):
    """p_k (1 - p_k) of every row for some classes, without cancellation for a p_k next to one."""
    before, after, total = {}, {}, 0 * p[0, :]
    for k in range(p.shape[0]):
        before[k], total = total, total + p[k, :]
    total = 0 * p[0, :]
    for k in reversed(range(p.shape[0])):
        after[k], total = total, total + p[k, :]
    return [p[k, :] * (before[k] + after[k]) for k in present]


def variance_of(p, k):
    """The same for one class of NumPy arrays."""
    out = p[k] * (1 - p[k])
    near = np.flatnonzero(p[k] > 0.5)
    out[near] = p[k, near] * np.delete(p[:, near], k, axis=0).sum(axis=0)
    return out


def dense_pairs(x, place, classes, p, weight):
    """Sums over dense rows, (m, m).

    Parameters
    ----------
    x : (n_columns, n_rows), standardised features, and ones
    place, classes : (m,), the row of `x` and the class of every coordinate
    p : (n_classes, n_rows), probabilities
    weight : (n_rows,)
    """
    xp, parts = namespace(x), classes_of(classes, p.shape[0])
    root = xp.sqrt(weight)
    columns = [take(x, place[part]) for part in parts]
    scaled = concatenate([c * (p[k, :] * root)[None, :] for k, c in enumerate(columns)])
    H = -xp.matmul(scaled, scaled.T)
    for k, own in enumerate(variances(p, range(p.shape[0]))):
        part, own = parts[k], weight * own
        H[part, part] = xp.matmul(columns[k] * own[None, :], columns[k].T)
    return H


def sparse_pairs(x, shift, place, classes, p, weight):
    """Sums over rows of a CSC (n_rows, n_columns) of features in units of their scales.

    `shift` (n_columns,) is what standardised features are less. A `place` of n_columns is
    the intercept.
    """
    present, classes = np.unique(classes, return_inverse=True)
    own_of = [weight * variance_of(p, k) for k in present]
    p = p[present]
    m = len(classes)
    inner, root = np.flatnonzero(place < x.shape[1]), np.sqrt(weight)
    of, where = classes[inner], place[inner]
    columns = x[:, where]
    H = -gram(times(columns, of, p * root))
    cross, rest = -(times(columns, of, p * root).T @ (p * root).T), -(p * weight) @ p.T
    for k, (part, own) in enumerate(zip(classes_of(of, len(p)), own_of, strict=True)):
        some = columns[:, part]
        H[part, part] = gram(times(some, 0 * of[part], np.sqrt(own)[None, :]))
        cross[part, k] = some.T @ own
        rest[k, k] = own.sum()
    s = shift[where]
    H -= s[:, None] * cross[:, of].T + cross[:, of] * s[None, :]
    H += outer(s, s) * rest[np.ix_(of, of)]
    cross -= s[:, None] * rest[of]
    out, ends = np.empty((m, m)), np.flatnonzero(place == x.shape[1])
    out[np.ix_(inner, inner)] = H
    out[np.ix_(inner, ends)] = cross[:, classes[ends]]
    out[np.ix_(ends, inner)] = cross[:, classes[ends]].T
    out[np.ix_(ends, ends)] = rest[np.ix_(classes[ends], classes[ends])]
    return out


def times(columns, of, factor):
    """Columns of a CSC, each times the row of `factor` (n_classes, n_rows) of its class."""
    whose = np.repeat(of, np.diff(columns.indptr))
    data = columns.data * factor[whose, columns.indices]
    return type(columns)((data, columns.indices, columns.indptr), shape=columns.shape)


def gram(columns):
    """The products of the columns of a CSC with one another, an array."""
    return (columns.T @ columns).toarray()
