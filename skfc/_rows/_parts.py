"""Parts of rows, each with a chunk of X and what belongs to its rows, and views of them."""

from dataclasses import dataclass, fields, is_dataclass, replace

import numpy as np
from scipy import sparse

from skfc._rows._blocks import BlockSums
from skfc._rows._csr import CSRRows
from skfc._rows._dense import DenseRows

# Views of one part that are held ready: of all features, and of some.
VIEWS = 3


@dataclass(frozen=True)
class Layout:
    """How parts become rows: what is known when all of them have been looked at.

    Attributes
    ----------
    n_classes, dtype, n_total : as of all rows together
    first : {number of a part: number of its first row}
    settle : function from target, labels and weights of a part to target (n_rows,) or
        (n_classes, n_rows) and weights (n_problems, n_rows); None: they are settled
    """

    n_classes: int
    dtype: np.dtype
    n_total: int
    first: dict
    settle: object = None


@dataclass(frozen=True)
class View:
    """The rows that a call sees: of some problems and features, in a frame.

    `places` are the rows that are seen, by the number of the part, or None; `n_total` is then
    what sums are divided by.
    """

    token: int
    layout: Layout
    frame: object = None
    problems: np.ndarray | None = None
    features: np.ndarray | None = None
    places: dict | None = None
    n_total: int | None = None


class Part:
    """A chunk: X, and target, labels and weights of its rows.

    Rows of a view are made when they are asked for, and are no part of what is sent or spilled.
    """

    def __init__(self, X, target, weight, labels=None):
        self.X, self.target, self.weight, self.labels = X, target, weight, labels
        self.made = {}

    def __getstate__(self):
        return vars(self) | {"made": {}}

    def __sizeof__(self):
        return size_of((self.X, self.target, self.weight))

    def rows(self, view, number):
        """The rows of a view, held ready for the next call."""
        if view is None:
            return self
        if view.token not in self.made:
            rows = self._all_rows(view.layout, number)
            if view.frame is not None:
                rows = rows.in_frame(view.frame)
            if view.problems is not None:
                (rows,) = rows.problems(view.problems)
            if view.features is not None:
                rows = rows.features(view.features)
            if view.places is not None:
                rows = rows.taken(view.places[number], view.n_total)
            while len(self.made) >= VIEWS:
                del self.made[next(iter(self.made))]
            self.made[view.token] = rows
        return self.made[view.token]

    def _all_rows(self, layout, number):
        target, weight = self.target, self.weight
        if layout.settle is not None:
            target, weight = layout.settle(target, self.labels, weight)
        kind = CSRRows if sparse.issparse(self.X) else DenseRows
        return kind(
            cast_rows(self.X, layout.dtype), target, weight, n_classes=layout.n_classes,
            n_total=layout.n_total, share=self.X.shape[0] / layout.n_total,
            first=layout.first[number],
        )  # fmt: skip


class Rest(BlockSums):
    """Rows without X: targets, weights and blocks, for sums that need no product."""

    on_pool = False

    def __init__(self, rows):
        self.n_total, self.xp, self.work = rows.n_total, rows.xp, rows.work
        self.on_pool, self.parameter_dtype = rows.on_pool, rows.parameter_dtype
        # Copies: out of a part that comes from disk, they are views of all that was read.
        self._blocks = [
            replace(block, target=block.target.copy(), weight=block.weight.copy())
            for block in rows.local_blocks
        ]
        self.blocks = rows.blocks


def cast_rows(X, dtype):
    """X in a type, itself where it has that."""
    return X if X.dtype == dtype else X.astype(dtype)


def size_of(value):
    """Bytes of the arrays in a nested value."""
    if sparse.issparse(value):
        return size_of((value.data, value.indices, value.indptr))
    if isinstance(value, dict):
        return sum(map(size_of, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(size_of, value))
    if is_dataclass(value):
        return sum(size_of(getattr(value, f.name)) for f in fields(value))
    return getattr(value, "nbytes", 8)
