"""The rows of a stream that are held as they are: few, and in bounded memory."""

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from skfc._frame import Frame
from skfc._rows import CSRRows, DenseRows, make_rows
from skfc._tuned import TUNED

# What `partial_fit` may remember of rows: their number, and their bytes. No Gram matrix is larger.
WINDOW_ROWS, WINDOW_BYTES = 2000, 2**26


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
