"""Columns that only one row has: an orthogonal change of features makes them few.

Where several columns have their one entry in the same row, their features enter the logits as
one sum, and under an L2 penalty their best weights are in the proportion of the entries.
They are one feature, whose entry is the length of theirs. Half of the words of a collection
of texts occur in one of them only.
"""

import numpy as np

from skfc._tuned import TUNED


class MergedColumns:
    """X Q, with orthonormal columns of Q that have one entry, or those of one row of X.

    Attributes
    ----------
    X : CSR (n_samples, n_features_left), the product
    Q : CSR (n_features, n_features_left)
    """

    def __init__(self, X, single):
        n, N = X.shape
        alone = single[X.indices]
        columns, entries = X.indices[alone], X.data[alone]
        rows = np.repeat(np.arange(n), np.diff(X.indptr))[alone]
        hosts, starts, whose = np.unique(rows, return_index=True, return_inverse=True)
        lengths = norms(entries, starts, whose)
        n_kept = N - int(single.sum())
        target = np.where(single, 0, np.cumsum(~single) - 1).astype(X.indices.dtype)
        share = np.where(single, 0, 1).astype(X.dtype)
        target[columns] = n_kept + whose
        long = lengths[whose]
        share[columns] = np.divide(entries, long, out=np.zeros_like(entries), where=long > 0)
        ends = np.arange(N + 1, dtype=X.indptr.dtype)
        self.Q = type(X)((share, target, ends), shape=(N, n_kept + len(hosts)))
        self.X = self._product(X, target, ~alone, hosts, lengths)

    def _product(self, X, target, kept, hosts, lengths):
        """The entries `kept`, and at the end of every row of `hosts` its length."""
        extra = np.zeros(X.shape[0], dtype=np.intp)
        extra[hosts] = 1
        ends = np.append(0, np.cumsum(kept))[X.indptr[1:]] + np.cumsum(extra)
        indices, data = np.empty(ends[-1], X.indices.dtype), np.empty(ends[-1], X.dtype)
        last = np.zeros(ends[-1], dtype=bool)
        last[ends[hosts] - 1] = True
        n_left = self.Q.shape[1]
        indices[~last], data[~last] = target[X.indices[kept]], X.data[kept]
        indices[last], data[last] = np.arange(n_left - len(hosts), n_left), lengths
        indptr = np.append(0, ends).astype(X.indptr.dtype)
        return type(X)((data, indices, indptr), shape=(X.shape[0], n_left))

    def presolve(self, coef, intercept):
        """Coefficients (T, n_features) and intercepts (T,) as those of the product."""
        return (self.Q.T @ coef.T).T, intercept

    def postsolve(self, coef, intercept):
        """Coefficients and intercepts of the product as those of all features."""
        return (self.Q @ coef.T).T, intercept


def norms(entries, starts, whose):
    """Euclidean norms of the groups that begin at `starts`; `whose` gives that of an entry."""
    if not len(entries):
        return entries
    size = np.maximum.reduceat(np.abs(entries), starts)
    scaled = entries / np.where(size > 0, size, 1)[whose]  # squares stay in range
    return size * np.sqrt(np.add.reduceat(scaled**2, starts))


def merge_columns(X):
    """The :class:`MergedColumns` of a CSR, or None where not many fewer features are left."""
    counts = np.zeros(X.shape[1], dtype=np.intp)
    n = TUNED.block_bytes // 16
    for start in range(0, X.nnz, n):  # bincount takes a wider copy
        counts += np.bincount(X.indices[start : start + n], minlength=X.shape[1])
    single = counts <= 1
    if len(single) - single.sum() > TUNED.merge_share * len(single):
        return None
    found = MergedColumns(X, single)
    return found if 0 < found.X.shape[1] <= TUNED.merge_share * len(single) else None
