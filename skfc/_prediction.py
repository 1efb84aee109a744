"""From rows to logits, labels and probabilities: in blocks of rows, in bounded memory.

Logits are class-major, (n_classes, n_rows), as everywhere inside.
"""

import numpy as np

# What the logits of a block fill: few enough to stay in the caches between two passes.
BLOCK_BYTES = 2**22
FEWEST_ROWS = 16

OVERFLOW = "X holds values so large that logits overflow {}: rescale its columns as in fit."


def row_blocks(n_rows, n_classes, itemsize=8):
    """Slices of rows, in order, with logits of about BLOCK_BYTES."""
    step = max(FEWEST_ROWS, BLOCK_BYTES // (n_classes * itemsize))
    return [slice(k, min(k + step, n_rows)) for k in range(0, n_rows, step)]


class Logits:
    """The logits of the rows of X, computed when they are asked for.

    Parameters
    ----------
    X : array or CSR of shape (n_rows, n_features), validated
    coef : array or sparse array of shape (n_classes, n_features)
    intercept : (n_classes,)
    """

    def __init__(self, X, coef, intercept):
        self.X, self.shape = X, (coef.shape[0], X.shape[0])
        self.coef = coef.astype(X.dtype, copy=False)
        self.intercept = intercept.astype(X.dtype, copy=False)[:, None]
        self.by_rows = hasattr(X, "tocsr")
        if self.by_rows and isinstance(self.coef, np.ndarray):
            self.coef = np.ascontiguousarray(self.coef.T)  # as sparse products want it
        elif self.by_rows:
            self.coef = self.coef.T

    def blocks(self):
        """Pairs of a slice of rows and their logits, a new array that may be overwritten."""
        for block in self.rows():
            yield block, self.of(block)

    def rows(self):
        return row_blocks(self.shape[1], self.shape[0], self.X.dtype.itemsize)

    def of(self, block, out=None):
        """The logits of a slice of rows, in `out` if that is given."""
        X = self.X if block == slice(0, self.shape[1]) else self.X[block]
        if self.by_rows:
            Z = np.empty((self.shape[0], X.shape[0]), dtype=X.dtype) if out is None else out
            Z[:] = dense(X @ self.coef).T
        elif isinstance(self.coef, np.ndarray):
            Z = np.matmul(self.coef, X.T, out=out)
        else:
            Z = self.coef @ X.T
            if out is not None:
                out[:], Z = Z, out
        Z += self.intercept
        return Z

    def each(self, function):
        """`function` of the logits of every block, one number per row: (n_rows,)."""
        parts = [function(Z) for _, Z in self.blocks()]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def all(self, function):
        """What `function` makes of the logits in their place: (n_classes, n_rows)."""
        rows = self.rows()
        if len(rows) == 1:
            return function(self.of(rows[0]))
        whole = np.empty(self.shape, dtype=self.X.dtype)
        for block in rows:
            function(self.of(block, out=whole[:, block]))
        return whole


def dense(array):
    """An array of a sparse one."""
    return array.toarray() if hasattr(array, "toarray") else array


def difference(Z):
    """The logit of the second of two classes less that of the first, (n_rows,)."""
    return Z[1] - Z[0]


def unchanged(Z):
    """The logits themselves."""
    return Z


def most_probable(Z):
    """Indices of the classes of largest logit, (n_rows,)."""
    with np.errstate(over="ignore", invalid="ignore"):
        doubtful = not np.isfinite(Z.sum())
    if doubtful:
        check_top(Z.max(axis=0))
    return Z.argmax(axis=0)


def probabilities(Z):
    """The softmax over the classes, in the place of `Z`."""
    shift(Z)
    np.exp(Z, out=Z)
    Z /= Z.sum(axis=0)
    return Z


def log_probabilities(Z):
    """The log-softmax over the classes, in the place of `Z`.

    With the sum that `probabilities` divides by: where a probability rounds to one its
    logarithm is zero, as if it had been taken of that, and where one rounds to zero its
    logarithm is exact.
    """
    shift(Z)
    Z -= np.log(np.exp(Z).sum(axis=0))
    return Z


def shift(Z):
    """Take the largest logit of every row from all of that row."""
    top = Z.max(axis=0)
    check_top(top)
    Z -= top


def check_top(top):
    """Raise unless the largest logits are numbers."""
    if not np.isfinite(top).all():
        raise ValueError(OVERFLOW.format(top.dtype))
