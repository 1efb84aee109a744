"""X in the memory of the host, whose rows are arrays of a device when they are read."""

import math
from concurrent.futures import ThreadPoolExecutor

from skfc._array import (
    ReadAs,
    can_move,
    free_memory,
    itemsize,
    moved,
    take,
    to_numpy,
    wait_for,
)
from skfc._tuned import TUNED


def streamed(X, like):
    """`X` for work on the device of `like`, where that has an array and X is on the host.

    Few numbers are moved, more are :class:`Streamed`.
    """
    if not can_move(X, like):
        return X
    if math.prod(X.shape) <= TUNED.few_single:
        return moved(X, like)
    return Streamed(X, moved(X[:0, :], like))


class Streamed(ReadAs):
    """An array of the host; slices of its rows are arrays of a device, :func:`moved` when read.

    Two blocks are on the device at a time, besides those that stay: the last that was read, which
    a forward and an adjoint product share, and the one that came after it the last time. That one
    is moved by another thread, while the device computes.

    Parameters
    ----------
    base : (n_rows, n_features), of NumPy or in the memory of the CPU
    like : array of the device, in the type of rows
    rows, columns : host indices of those that are seen, or None: all
    room : bytes of blocks that may stay on the device
    mover : the thread that moves, one for all that is taken from `base`
    """

    def __init__(self, base, like, rows=None, columns=None, room=0, mover=None):
        self.base, self.like, self.rows, self.columns, self.room = base, like, rows, columns, room
        self.mover = mover or ThreadPoolExecutor(1)
        n, N = (
            size if index is None else len(index)
            for size, index in zip(base.shape, (rows, columns), strict=True)
        )
        self.shape, self.dtype, self.device = (n, N), like.dtype, like.device
        self.last, self.block = None, None
        self.coming, self.future = None, None
        self.after, self.kept = {}, {}

    def __getitem__(self, index):
        """The rows of a slice; the features are all of them."""
        key = index[0].indices(self.shape[0])[:2]
        if key != self.last:
            block = self.kept.get(key)
            if block is None:
                block = self._arrived(key)
            self.after[self.last] = key
            self.last, self.block = key, block
            self._expect(self.after.get(key))
        return self.block

    def _arrived(self, key):
        """A block that is not there: on its way, or moved now."""
        wait_for(self.like)  # the device is done with the block before, whose memory is free then
        self.block = None
        if key == self.coming:
            block, self.coming, self.future = self.future.result(), None, None
        else:
            block = self._moved(key)
        size = math.prod(block.shape) * itemsize(block)
        if size <= self.room:
            self.kept[key], self.room = block, self.room - size
        return block

    def _expect(self, key):
        """Have the block that is likely to be read next moved meanwhile."""
        if key is not None and key not in self.kept and key != self.coming:
            self.coming, self.future = key, self.mover.submit(self._moved, key)

    def _moved(self, key):
        rows = slice(*key)
        x = self.base[rows, :] if self.rows is None else take(self.base, self.rows[rows])
        x = moved(x, self.like)
        return x if self.columns is None else take(x, self.columns, axis=1)

    def take(self, index, axis):
        """Some rows or features, still on the host."""
        index, known = to_numpy(index), (self.rows, self.columns)[axis]
        index = index if known is None else known[index]
        rows, columns = (index, self.columns) if axis == 0 else (self.rows, index)
        return Streamed(self.base, self.like, rows, columns, mover=self.mover)

    def keeping(self, n_logits):
        """The same, of which what fits stays on the device, beside `n_logits` numbers."""
        free = free_memory(self.like) or 0
        room = free * 5 // 8 - n_logits * itemsize(self.like)
        return Streamed(self.base, self.like, self.rows, self.columns, room, self.mover)
