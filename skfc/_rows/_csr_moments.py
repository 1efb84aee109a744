"""Means, deviations and bounds of the columns of a CSR, piece by piece."""

import numpy as np

from skfc._moments import Moments
from skfc._pool import in_order, thread_map
from skfc._rows._csr_parts import counts_of, small_pieces, stored, view
from skfc._tuned import TUNED


def moments_of(X, weight):
    """The :class:`Moments` of the rows of a CSR for weights (n_problems, n_rows) in float64."""
    total = weight.sum(axis=1)
    share = weight / total[:, None]
    B, N = len(weight), X.shape[1]
    mean, squares = np.zeros((N, B)), np.zeros((N, B))
    pieces = small_pieces(X)
    tame = all(thread_map(lambda rows: is_tame(X.data[stored(X, rows)]), pieces))

    def sums(rows):
        x, part = view(X, rows).astype(np.float64), share[:, rows].T
        first = x.T @ part
        x.data = np.square(x.data, out=x.data) if tame else np.abs(x.data, out=x.data)
        return first, x.T @ part

    for first, second in in_order(sums, pieces):
        mean += first
        squares += second
    spread = squares - mean**2
    # Where the mean is most of the squares, their difference has lost its digits.
    doubtful = (not tame) | (spread <= TUNED.single_digits * squares).any(axis=1)
    std = np.sqrt(np.maximum(spread, 0.0))
    empty = (squares == 0).all(axis=1)
    spread = np.where(empty, 0.0, np.maximum(std.max(axis=1), 1e-300))
    low, high = extremes(X, spread, pieces)
    for j in np.flatnonzero(doubtful & ~empty):
        column = Moments.of(X[:, [j]].toarray().astype(np.float64), weight)
        mean[j], std[j] = column.mean[:, 0], column.std[:, 0]
        low[j], high[j] = column.low[0], column.high[0]
    return Moments(total, mean.T, std.T, low, high)


def is_tame(data):
    """Whether squares of some values stay within the range of float64."""
    size = np.abs(data)
    smallest = size.min(initial=np.inf, where=size != 0)
    return float(size.max(initial=0.0)) < 1e140 and float(smallest) > 1e-140


def extremes(X, std, pieces):
    """Bounds of the values of every column of a CSR: one `std` where few of them are stored.

    The rows `pieces` are sorted by columns one after the other: together that would take
    several times the memory of X.
    """
    low, high = -std, std.copy()
    counts = counts_of(X, pieces)
    columns = np.flatnonzero(counts > TUNED.dense_share * X.shape[0])
    if len(columns):
        # One that is not stored is zero.
        full = counts[columns] == X.shape[0]
        low[columns], high[columns] = np.where(full, np.inf, 0.0), np.where(full, -np.inf, 0.0)

        def bounds(rows):
            some = view(X, rows)[:, columns].tocsc()
            some_stored = np.diff(some.indptr) > 0
            starts, found = some.indptr[:-1][some_stored], columns[some_stored]
            if not len(found):
                return found, np.inf, -np.inf
            reduced = (f.reduceat(some.data, starts) for f in (np.minimum, np.maximum))
            return found, *reduced

        for found, least, most in in_order(bounds, pieces):
            low[found] = np.minimum(low[found], least)
            high[found] = np.maximum(high[found], most)
    return low, high
