"""From rows to logits, labels and probabilities: in blocks of rows, in bounded memory.

Logits are class-major, (n_classes, n_rows), as everywhere inside.
"""

import numpy as np

from skfc._array import (
    as_like,
    cast,
    concatenate,
    exp,
    is_numpy,
    itemsize,
    namespace,
    rows_that_fit,
    take,
    to_numpy,
    working_type,
)
from skfc._pool import in_order, room, thread_map
from skfc._runtime import computing

# What the logits of a block fill: few enough to stay in the caches between two passes.
BLOCK_BYTES = 2**22
FEWEST_ROWS = 16

OVERFLOW = "X holds values so large that logits overflow {}: rescale its columns as in fit."


def row_blocks(n_rows, n_classes, n_bytes=8, step=None):
    """Slices of `step` rows, in order, or of logits of about BLOCK_BYTES, `n_bytes` each."""
    step = step or max(FEWEST_ROWS, BLOCK_BYTES // (n_classes * n_bytes))
    return [slice(k, min(k + step, n_rows)) for k in range(0, n_rows, step)]


class Logits:
    """The logits of the rows of X, computed when they are asked for.

    Parameters
    ----------
    X : array of any library, or CSR, of shape (n_rows, n_features), validated
    coef : array or sparse array of shape (n_classes, n_features)
    intercept : (n_classes,)
    """

    def __init__(self, X, coef, intercept):
        self.X, self.shape = X, (coef.shape[0], X.shape[0])
        self.by_rows = hasattr(X, "tocsr")
        self.xp = np if self.by_rows else namespace(X)
        self.dtype = X.dtype if self.by_rows else working_type(X)
        coef, intercept = (self._beside(a) for a in (coef, intercept))
        self.coef, self.intercept = coef, intercept[:, None]
        if self.by_rows and isinstance(self.coef, np.ndarray):
            self.coef = np.ascontiguousarray(self.coef.T)  # as sparse products want it
        elif self.by_rows:
            self.coef = self.coef.T

    def _beside(self, array):
        """`array` in the library and on the device of X, in the type of products with X."""
        if hasattr(array, "tocsr"):
            return array.astype(self.dtype)
        like = np.empty(0) if self.by_rows else self.X
        return cast(as_like(array, like), self.dtype)

    def over_blocks(self, function):
        """Yield `function(rows, logits)` for blocks of rows, in order; several threads take part.

        The logits may be overwritten, and not kept.
        """
        blocks = self.rows()
        if len(blocks) == 1 or self.xp is not np:
            yield from (function(rows, self.of(rows)) for rows in blocks)
            return

        def piece(rows):
            shape = self.shape[0], rows.stop - rows.start
            return function(rows, self.of(rows, room("logits", shape, self.dtype)))

        with computing():
            yield from in_order(piece, blocks)

    def rows(self):
        T, n = self.shape
        step = None if self.by_rows else rows_that_fit(self.X, T + self.X.shape[1])
        return row_blocks(n, T, itemsize(self.X), step)

    def of(self, block, out=None):
        """The logits of a slice of rows, in `out` if that is given."""
        whole = self.by_rows and block == slice(0, self.shape[1])
        X = self.X if whole else self.X[block, :]
        if self.by_rows:
            Z = np.empty((self.shape[0], X.shape[0]), dtype=X.dtype) if out is None else out
            Z[:] = dense(X @ self.coef).T
        elif self.xp is not np:
            Z = self.xp.matmul(self.coef, cast(X, self.dtype).T)
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
        parts = list(self.over_blocks(lambda _, Z: function(Z)))
        return parts[0] if len(parts) == 1 else concatenate(parts)

    def all(self, function):
        """What `function` makes of the logits in their place: (n_classes, n_rows)."""
        rows = self.rows()
        if len(rows) == 1:
            return function(self.of(rows[0]))
        whole = self.xp.empty(self.shape, dtype=self.dtype)
        if self.xp is np:
            with computing():
                thread_map(lambda block: function(self.of(block, out=whole[:, block])), rows)
            return whole
        for block in rows:
            whole[:, block] = function(self.of(block))
        return whole


def logits_of(X, coef, intercept):
    """NumPy logits (n_rows, n_classes) of all rows."""
    if is_numpy(X) or hasattr(X, "tocsr"):
        return X @ coef.T + intercept
    parts = Logits(X, coef, intercept).over_blocks(lambda _, Z: to_numpy(Z).T)
    return np.concatenate(list(parts)).astype(np.float64)


def labels(classes, index):
    """The labels of classes by their indices, where `classes` or NumPy's indices are."""
    if is_numpy(classes) or is_numpy(index):
        return to_numpy(classes)[to_numpy(index)]
    return take(classes, index)


def dense(array):
    """An array of a sparse one."""
    return array.toarray() if hasattr(array, "toarray") else array


def difference(Z):
    """The logit of the second of two classes less that of the first, (n_rows,)."""
    return Z[1, :] - Z[0, :]


def unchanged(Z):
    """The logits themselves."""
    return Z


def most_probable(Z):
    """Indices of the classes of largest logit, (n_rows,)."""
    xp = namespace(Z)
    with np.errstate(over="ignore", invalid="ignore"):
        doubtful = not xp.isfinite(xp.sum(Z))
    if doubtful:
        check_top(xp.max(Z, axis=0))
    return xp.argmax(Z, axis=0)


def probabilities(Z):
    """The softmax over the classes, in the place of `Z`."""
    shift(Z)
    Z = exp(Z)
    Z /= namespace(Z).sum(Z, axis=0)
    return Z


def log_probabilities(Z):
    """The log-softmax over the classes, in the place of `Z`.

    With the sum that `probabilities` divides by: where a probability rounds to one its
    logarithm is zero, as if it had been taken of that, and where one rounds to zero its
    logarithm is exact.
    """
    xp = namespace(Z)
    shift(Z)
    Z -= xp.log(xp.sum(xp.exp(Z), axis=0))
    return Z


def shift(Z):
    """Take the largest logit of every row from all of that row."""
    top = namespace(Z).max(Z, axis=0)
    check_top(top)
    Z -= top


def check_top(top):
    """Raise unless the largest logits are numbers."""
    xp = namespace(top)
    if not xp.all(xp.isfinite(top)):
        raise ValueError(OVERFLOW.format(top.dtype))
