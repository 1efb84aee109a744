"""The second derivatives of the loss of one problem in some of its weights alone.

A coordinate is a weight, a feature and a class. With probabilities p and mean weights m, that
of the coordinates (j, k) and (i, l) is the mean over the rows of

    m p_k (1 - p_k) x̃_j x̃_i  for k = l,      - m p_k p_l x̃_j x̃_i  for other classes

Coordinates come sorted by class. The feature N, one more than there are, is the intercept.
"""

from itertools import pairwise

import numpy as np

from skfc._array import concatenate, namespace, pair_places, pairs_of, take
from skfc._pool import in_order, product, room
from skfc._rows._blocks import row_blocks
from skfc._softmax import others
from skfc._tuned import TUNED

# Columns of a symmetric product of sparse matrices that are taken at once.
PIECE = 256


def pair_weights(block, proba, share=None):
    """m p_k p_j of every row for the pairs k < j of classes, by rows of the upper triangle.

    (n_problems * T (T - 1) / 2, n_rows). Rows may have a `share` (n_rows,) of their curvature.
    """
    p = block.stack(proba)
    weighted = p if block.unit_weight else p * block.weight[:, None, :]
    weighted = weighted if share is None else weighted * share
    pairs = [weighted[:, k : k + 1, :] * p[:, k + 1 :, :] for k in range(block.n_classes - 1)]
    return block.flat(concatenate(pairs, axis=1))


def sums_of_pairs(rows, block, weight):
    """Sums over NumPy's rows of weights (M, n_rows) times x̃ x̃ᵀ, ones included: (M, P, P).

    Of few weights beside features Gram matrices are faster, unless the products of all pairs of
    features stay in the cache.
    """

    def gram(piece, x):
        scaled, out = room("scaled", x.shape, x.dtype), []
        for root in np.sqrt(weight[:, piece]):
            np.multiply(x, root, out=scaled)
            out.append(np.dot(scaled, scaled.T))
        return np.stack(out)

    def part(piece, products):
        return product(weight[:, piece], products.T)

    P = rows.n_parameters
    size = P * (P + 1) // 2 * block.weight.shape[1] * weight.itemsize
    if 2 * len(weight) <= P and size > 2 * TUNED.small_block_bytes:
        return sum(over_pieces(gram, rows, block, weight.dtype, P, features_and_ones))
    sums = sum(over_pairs(part, rows, block, weight.dtype))
    return np.take(sums, pair_places(P), axis=1)


def forms_of_pairs(rows, block, forms):
    """The largest x̃ᵀ A x̃ of each of NumPy's rows, ones included, for matrices A (M, P, P)."""
    first, second = pairs_of(rows.n_parameters)
    flat = forms[:, first, second] * np.where(first == second, 1.0, 2.0)

    def part(_, products):
        return product(flat, products).max(axis=0)

    return np.concatenate(list(over_pairs(part, rows, block, forms.dtype)))


def over_pairs(function, rows, block, dtype):
    """`function(piece, products)` for pieces of a block and products of pairs of features."""
    P = rows.n_parameters
    return over_pieces(function, rows, block, dtype, P * (P + 1) // 2, products_of_pairs)


def over_pieces(function, rows, block, dtype, n_numbers, make):
    """`function(piece, numbers)` for pieces of a block, of what is made of every row of them.

    These are `n_numbers` per row. They stay with `rows` where they are small.
    """
    n, P, total = block.weight.shape[1], rows.n_parameters, rows.shape[0]
    bytes_per_row = n_numbers * np.dtype(dtype).itemsize
    memory = min(2 * TUNED.few_numbers, max(TUNED.block_bytes, total * P * 2))
    pieces = row_blocks(n, bytes_per_row, 2 * TUNED.small_block_bytes, 1)
    keep, made = total * bytes_per_row <= memory, rows._pairs

    def part(piece):
        key = make, block.rows.start + piece.start, np.dtype(dtype)
        numbers = made.get(key)
        if numbers is None:
            numbers = make(rows, block, piece, dtype)
        if keep:
            made[key] = numbers
        return function(piece, numbers)

    return in_order(part, pieces)


def features_and_ones(rows, block, piece, dtype):
    """Standardised features and ones, (P, n_rows)."""
    out = np.ones((rows.n_parameters, piece.stop - piece.start), dtype=dtype)
    out[: rows.shape[1]] = rows._standard(block, np.arange(piece.start, piece.stop), dtype).T
    return out


def products_of_pairs(rows, block, piece, dtype):
    """Products of all pairs of standardised features and ones, (n_pairs, n_rows)."""
    x, end = features_and_ones(rows, block, piece, dtype), 0
    out = np.empty((len(x) * (len(x) + 1) // 2, x.shape[1]), dtype=dtype)
    for i in range(len(x)):
        start, end = end, end + len(x) - i
        np.multiply(x[i], x[i:], out=out[start:end])
    return out


def hessian_of_pairs(sums, n_classes):
    """The second derivatives in all weights, (P T, P T), of sums (M, P, P).

    They are those of m p_k p_l for the pairs k < l of classes. The classes sum to zero, which
    gives those of a class with itself.
    """
    P, T = sums.shape[-1], n_classes
    H = np.zeros((P, T, P, T))
    for total, k, j in zip(sums, *pairs_of(T, 1), strict=True):
        H[:, k, :, j] = H[:, j, :, k] = -total
        H[:, k, :, k] += total
        H[:, j, :, j] += total
    return H.reshape(P * T, P * T)


def classes_of(classes, n_classes):
    """Slices of the coordinates of every class."""
    edges = np.searchsorted(classes, np.arange(n_classes + 1)).tolist()
    return [slice(a, b) for a, b in pairwise(edges)]


def variances_of(p):
    """p_k (1 - p_k) of every row and class of a NumPy array, of which one can be next to one."""
    out = p * (1 - p)
    one = np.flatnonzero(p.max(axis=0) > 0.5)  # up to there 1 - p has lost no digits
    others, rows = p[:, one], np.arange(len(one))
    largest = others.argmax(axis=0)
    most = others[largest, rows]
    others[largest, rows] = 0.0
    out[largest, one] = most * others.sum(axis=0)
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
    scaled, root = xp.empty((len(place), x.shape[1]), dtype=x.dtype), xp.sqrt(weight)
    for k, part in enumerate(parts):
        scaled[part, :] = take(x, place[part]) * (p[k, :] * root)[None, :]
    H = -xp.matmul(scaled, scaled.T)
    for part, k, other in zip(parts, range(len(parts)), others(p[None, ...]), strict=True):
        columns, own = take(x, place[part]), weight * p[k, :] * other[0, :]
        H[part, part] = xp.matmul(columns * own[None, :], columns.T)
    return H


def sparse_pairs(x, place, classes, p, weight):
    """Sums over rows of a CSC (n_rows, n_columns), which :func:`centred_pairs` makes a Hessian of.

    A `place` of n_columns is the intercept. The sums are those of the pairs of other coordinates,
    where only those on and above the diagonal count, of these beside the classes, and of pairs
    of classes.
    """
    present, classes = np.unique(classes, return_inverse=True)
    own, p = (weight * variances_of(p))[present], p[present]
    n, inner, root = x.shape[0], np.flatnonzero(place < x.shape[1]), np.sqrt(weight)
    of = classes[inner]
    columns = x[:, place[inner]]
    scaled = times(columns, of, p * root)
    H, cross, rest = upper_gram(scaled), -(scaled.T @ (p * root).T), -(p * weight) @ p.T
    np.negative(H, out=H)
    for part in classes_of(of, len(p)):
        H[part, part] = 0.0
    # Rows of every class by themselves: products within a class alone.
    whose = np.repeat(of, np.diff(columns.indptr))
    apart = times(columns, of, np.sqrt(own))
    apart = type(columns)(
        (apart.data, columns.indices + n * whose, columns.indptr), shape=(n * len(p), len(of))
    )
    within = (apart.T @ apart).tocoo()
    H[within.row, within.col] += within.data
    cross[np.arange(len(of)), of] = times(columns, of, own).sum(axis=0)
    rest[np.diag_indices(len(p))] = own.sum(axis=1)
    return H, cross, rest


def centred_pairs(sums, shift, place, classes):
    """The sums of pairs (m, m) of features less `shift` (n_columns,), from `sparse_pairs`."""
    H, cross, rest = sums
    for i in range(0, len(H), PIECE):  # the other half
        H[i + PIECE :, i : i + PIECE] = H[i : i + PIECE, i + PIECE :].T
    classes = np.unique(classes, return_inverse=True)[1]
    inner, ends = np.flatnonzero(place < len(shift)), np.flatnonzero(place == len(shift))
    of, s = classes[inner], shift[place[inner]]
    # What centring takes off is of one column per class: half of it, and its transpose.
    shifted = cross - 0.5 * s[:, None] * rest[of]
    half = np.ascontiguousarray(shifted.T)[of]
    half *= s[:, None]
    H -= half
    H -= half.T
    cross -= s[:, None] * rest[of]
    out = np.empty((len(place), len(place)))
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


def upper_gram(columns):
    """The products of the columns of a CSC with one another (m, m), zeros left of the diagonal.

    A product of sparse matrices does not know that it is symmetric: in pieces, half is left out.
    """
    m, across = columns.shape[1], columns.T
    H = np.zeros((m, m))
    for i in range(0, m, PIECE):
        H[i : i + PIECE, i:] = (across[i : i + PIECE] @ columns[:, i:]).toarray()
    return H
