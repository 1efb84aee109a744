"""Gram matrices of rows of a NumPy array, with a column of ones for the intercept."""

import numpy as np

from skfc._array import pair_places, product
from skfc._pool import in_order, room, thread_map
from skfc._rows._blocks import row_blocks
from skfc._tuned import TUNED


class DenseGrams:
    """Gram matrices of standardised rows: for some weights, and for those of pairs of classes."""

    _pairs = None  # products of all pairs of features, where they are kept

    def gram(self, weights, *, pairs=False):
        if pairs:
            return self._gram_of_pairs(weights)
        P, M = self.n_parameters, weights[0][0].shape[0]
        total = 0.0

        def part(item):
            k, blocks = item
            return k, self._weighted_gram([(self._blocks[b], weights[b][0][k]) for b in blocks])

        for k, A in in_order(part, self._groups(weights)):
            total = np.zeros((M, P, P), dtype=A.dtype) if np.ndim(total) == 0 else total
            total[k] += A
        return total / self.n_total

    def _groups(self, weights):
        """Pairs of a weight and blocks next to each other, with rows enough for one product."""
        least = max(TUNED.min_block_rows, TUNED.block_operations // self.n_parameters**2)
        counts = np.stack(list(self.each(lambda _, kept: (kept[0] != 0).sum(axis=1), weights)))
        groups = []
        for k, count in enumerate(counts.T.tolist()):
            rows, blocks = 0, []
            for b, more in enumerate(count):
                rows, blocks = rows + more, [*blocks, b]
                if rows >= least or b == len(count) - 1:
                    groups.append((k, blocks))
                    rows, blocks = 0, []
        return groups

    def _weighted_gram(self, parts):
        """The Gram matrix of some blocks, pairs of a block and the weights of its rows."""
        X = self._single.X if self._single is not None else self.X
        index = [np.flatnonzero(weight) for _, weight in parts]
        weight = np.concatenate([w[i] for (_, w), i in zip(parts, index, strict=True)])
        N, end = self.shape[1], 0
        x = room("rows", (len(weight), N), X.dtype)
        for (block, _), i in zip(parts, index, strict=True):
            start, end = end, end + len(i)
            np.take(X[block.rows], i, axis=0, out=x[start:end], mode="clip")
        if self._single is None:
            x = self._standardised(x)
        root = np.sqrt(weight, dtype=x.dtype)
        x *= root[:, None]
        A = np.empty((self.n_parameters,) * 2, dtype=x.dtype)
        A[:N, :N] = product(x.T, x)
        if self.frame.fit_intercept:
            A[N, :N] = A[:N, N] = product(root, x)
            A[N, N] = weight.sum()
        return A

    def _gram_of_pairs(self, weights):
        """Gram matrices for many weights: one product with the products of all pairs."""
        P, n = self.n_parameters, len(self.X)
        weight = weights[0][0] if len(weights) == 1 else np.concatenate([w for (w,) in weights], 1)
        n_pairs = P * (P + 1) // 2
        bytes_per_row = n_pairs * self.X.itemsize
        memory = min(2 * TUNED.few_numbers, max(TUNED.small_block_bytes, self.n_total * P * 2))
        most = max(
            n * n_pairs * len(weight) // TUNED.block_operations, n * bytes_per_row // memory
        )
        pieces = row_blocks(n, bytes_per_row, TUNED.small_block_bytes, 1, most)
        if self._pairs is None and n * bytes_per_row <= memory:
            self._pairs = thread_map(self._products, pieces)

        def part(item):
            rows, products = item
            products = self._products(rows) if products is None else products
            return product(weight[:, rows], products.T)

        products = [None] * len(pieces) if self._pairs is None else self._pairs
        sums = sum(in_order(part, zip(pieces, products, strict=True)))
        return sums[:, pair_places(P)] / self.n_total

    def _products(self, rows):
        """Products of all pairs of features and ones, (n_pairs, n_rows)."""
        x = self.X[rows].T
        if self.frame.fit_intercept:
            x = np.vstack([x, np.ones((1, x.shape[1]), dtype=x.dtype)])
        x, end = np.ascontiguousarray(x), 0
        out = np.empty((len(x) * (len(x) + 1) // 2, x.shape[1]), dtype=x.dtype)
        for i in range(len(x)):
            start, end = end, end + len(x) - i
            np.multiply(x[i], x[i:], out=out[start:end])
        return out
