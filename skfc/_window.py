"""The rows of a stream that are held as they are: few, and in bounded memory."""

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from skfc._frame import Frame
from skfc._rows import CSRRows, DenseRows, make_rows
from skfc._tuned import TUNED

# What `partial_fit` may remember of rows: their number, and their bytes. No Gram matrix is larger.
WINDOW_ROWS, WINDOW_BYTES = 2000, 2**26
# The share of them that rows which come may take at once.
PIECES = 4
# Standard deviations beyond which a Gram matrix holds nothing but the square of a value.
FARTHEST = TUNED.rounding_of_gram**-0.5


@dataclass(frozen=True)
class Chunk:
    """Rows (n, P) with their targets and weights.

    `target` are class indices (n,) or probabilities (n_classes, n); weights are those of the
    loss, and `sample_weight` those without class weights.
    """

    rows: object
    target: np.ndarray
    weight: np.ndarray
    sample_weight: np.ndarray

    def __len__(self):
        return len(self.weight)

    @property
    def nbytes(self):
        """Memory of the rows."""
        if sparse.issparse(self.rows):
            return self.rows.data.nbytes + self.rows.indices.nbytes + self.rows.indptr.nbytes
        return self.rows.nbytes

    @property
    def classes(self):
        """The most probable class of every row, (n,)."""
        return self.target if self.target.ndim == 1 else self.target.argmax(axis=0)

    def take(self, index):
        """Some of the rows, by indices or a slice."""
        return Chunk(
            self.rows[index], self.target[..., index], self.weight[index],
            self.sample_weight[index],
        )  # fmt: skip

    def widened(self, place, n_classes):
        """Among `n_classes`, where the present classes stand at `place`."""
        if self.target.ndim == 1:
            return replace(self, target=place[self.target])
        target = np.zeros((n_classes, len(self)))
        target[place] = self.target
        return replace(self, target=target)

    def among(self, active):
        """The rows with weights of the classes `active`; sums are not divided by their number."""
        zero = np.zeros(self.rows.shape[1])
        frame = Frame(zero, zero + 1, zero + 1, False, zero + 1)
        kind = CSRRows if sparse.issparse(self.rows) else DenseRows
        return kind(
            self.rows, self.target_of(active), self.weight[None], n_classes=len(active),
            frame=frame, n_total=1,
        )  # fmt: skip

    def target_of(self, active):
        """The target among the classes `active` (indices), which have all the weight."""
        if self.target.ndim == 2:
            return self.target[active]
        return np.searchsorted(active, self.target)

    def class_totals(self, n_classes):
        """The weight of every class, (n_classes,)."""
        if self.target.ndim == 1:
            return np.bincount(self.target, weights=self.weight, minlength=n_classes)
        return self.target @ self.weight

    def moments(self, n_features):
        """The `Moments` of the first features, without class weights."""
        rows, target = self.rows[:, :n_features], np.zeros(len(self), dtype=np.intp)
        rows = sparse.csr_matrix(rows) if sparse.issparse(rows) else rows
        return make_rows(rows, target, self.sample_weight[None], 1).moments()


@dataclass(frozen=True)
class Window:
    """The rows that are held: centred, cut to limits, with a column of ones, in float64.

    Attributes
    ----------
    shift : (n_features,), what is taken off the features
    limits : two of (n_features,), the least and largest value that is held
    sparse : whether rows are CSR arrays; features that fit into the memory are dense
    fit_intercept : whether there is a column of ones
    n_classes : int
    chunks : tuple of Chunk
    """

    shift: np.ndarray
    limits: tuple
    sparse: bool
    fit_intercept: bool
    n_classes: int
    chunks: tuple = ()

    @classmethod
    def begin(cls, rows, n_classes, fit_intercept):
        """An empty window for rows like the first ones, dense or CSR."""
        N, P = rows.shape[1], rows.shape[1] + fit_intercept
        fits = WINDOW_ROWS * P * 8 <= WINDOW_BYTES and P**2 * 8 <= WINDOW_BYTES
        as_csr = sparse.issparse(rows) and not fits
        shift = np.zeros(N)
        if fit_intercept and not as_csr:
            shift = np.median(rows.toarray() if sparse.issparse(rows) else rows, axis=0)
        return cls(shift, first_limits(rows, shift), as_csr, fit_intercept, n_classes)

    def __len__(self):
        return sum(map(len, self.chunks))

    @property
    def n_features(self):
        return len(self.shift)

    @property
    def chunk(self):
        """All of its rows, one chunk."""
        return joined(self.chunks, self.n_classes)

    def plus(self, chunk):
        """This and more rows."""
        return replace(self, chunks=(*self.chunks, chunk))

    def holding(self, chunk):
        """This with the rows of `chunk` alone."""
        return replace(self, chunks=(chunk,))

    def widened(self, place, n_classes):
        """Among `n_classes`, where the present classes stand at `place`."""
        chunks = tuple(chunk.widened(place, n_classes) for chunk in self.chunks)
        return replace(self, n_classes=n_classes, chunks=chunks)

    def within(self, moments):
        """This, which cuts the rows to come where a value would hide all others."""
        spread = FARTHEST * moments.std[0]
        spread = np.where(spread > 0, spread, np.inf)
        return replace(self, limits=(moments.mean[0] - spread, moments.mean[0] + spread))

    def capacity(self, *parts):
        """The rows it may hold, where they are as large as those of `parts`, or its own."""
        parts = parts or tuple(chunk.rows for chunk in self.chunks)
        n, size = sum(rows.shape[0] for rows in parts), 8 * (self.n_features + 1)
        if self.sparse:
            stored = sum(rows.nnz if sparse.issparse(rows) else rows.size for rows in parts)
            size = 16 + 12 * stored / n
        return int(np.clip(WINDOW_BYTES // size, 8, WINDOW_ROWS))

    def pieces(self, rows):
        """Slices of rows that come, each a share of the capacity."""
        step = max(1, self.capacity(rows) // PIECES)
        return [slice(i, i + step) for i in range(0, rows.shape[0], step)]

    def held(self, rows):
        """Rows of X as they are held."""
        one = np.ones((rows.shape[0], int(self.fit_intercept)))
        if self.sparse:
            rows = sparse.csr_array(rows, copy=True)
            low, high = self.limits
            rows.data = np.clip(rows.data, low[rows.indices], high[rows.indices])
            return sparse.hstack([rows, one], format="csr", dtype=np.float64)
        rows = rows.toarray() if sparse.issparse(rows) else rows
        return np.concatenate([np.clip(rows - self.shift, *self.limits), one], axis=1)


def first_limits(rows, shift):
    """Bounds of the features of the first rows, less `shift`, from quartiles of theirs.

    Columns of which half of the values are equal have none, nor has a CSR array.
    """
    unbounded = np.full(len(shift), np.inf)
    if sparse.issparse(rows):
        return -unbounded, unbounded
    low, high = np.quantile(rows - shift, (0.25, 0.75), axis=0)
    spread = np.where(high > low, FARTHEST * (high - low), np.inf)
    return low - spread, high + spread


def joined(chunks, n_classes):
    """One chunk of several."""
    if len(chunks) == 1:
        return chunks[0]
    stack = sparse.vstack if sparse.issparse(chunks[0].rows) else np.vstack
    targets = [c.target for c in chunks]
    if any(t.ndim == 2 for t in targets):
        targets = [one_hot(t, n_classes) for t in targets]
    rows = stack([c.rows for c in chunks])
    return Chunk(
        rows.tocsr() if sparse.issparse(rows) else rows,
        np.concatenate(targets, axis=-1),
        np.concatenate([c.weight for c in chunks]),
        np.concatenate([c.sample_weight for c in chunks]),
    )


def one_hot(target, n_classes):
    """Targets as probabilities (n_classes, n)."""
    if target.ndim == 2:
        return target
    return (target == np.arange(n_classes)[:, None]).astype(np.float64)


def wanted_order(chunk, n_features, moments, *, seed):
    """Rows by how much they are wanted in a smaller window, indices.

    Those of the classes with most rows last: of a class that comes no more, or seldom, rows
    are held for those to come. Of each class rows are drawn by chance, and every sixteenth is
    the one farthest from the mean, in standard deviations: its logits change most from step
    to step, and an expansion holds for small changes.
    """
    rows = chunk.rows[:, :n_features]
    mean, std = moments.mean[0], moments.std[0]
    precision = np.where(std > 0, std, np.inf) ** -2.0
    squares = rows.multiply(rows) if sparse.issparse(rows) else rows**2
    nearness = 2 * rows @ (precision * mean) - squares @ precision
    chance = np.random.default_rng(seed).permutation(len(chunk))
    far, rank = np.argsort(nearness, kind="stable"), np.empty(len(chunk))
    rank[chance] = ranks_within(chunk.classes[chance])
    rank[far] = np.minimum(rank[far], TUNED.batch_share * ranks_within(chunk.classes[far]))
    order = np.lexsort((chance, rank))
    return order[np.argsort(ranks_within(chunk.classes[order]), kind="stable")]


def ranks_within(classes):
    """For every row, how many rows before it are of its class, (n,)."""
    order, counts = np.argsort(classes, kind="stable"), np.bincount(classes)
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    return ranks
