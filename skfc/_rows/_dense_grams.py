"""Gram matrices of rows of a NumPy array, with a column of ones for the intercept."""

import numpy as np

from skfc._array import product
from skfc._pool import in_order, room
from skfc._rows._pairs import forms_of_pairs, hessian_of_pairs, sums_of_pairs
from skfc._tuned import TUNED


class DenseGrams:
    """Gram matrices of standardised rows, block by block also by the products of all pairs."""

    def gram(self, weights):
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
        whole = self._standardised_whole()
        X = self.X if whole is None else whole
        index = [np.flatnonzero(weight) for _, weight in parts]
        weight = np.concatenate([w[i] for (_, w), i in zip(parts, index, strict=True)])
        N, end = self.shape[1], 0
        x = room("rows", (len(weight), N), X.dtype)
        for (block, _), i in zip(parts, index, strict=True):
            start, end = end, end + len(i)
            np.take(X[block.rows], i, axis=0, out=x[start:end], mode="clip")
        if whole is None:
            x = self._standardised(x)
        root = np.sqrt(weight, dtype=x.dtype)
        x *= root[:, None]
        A = np.empty((self.n_parameters,) * 2, dtype=x.dtype)
        A[:N, :N] = product(x.T, x)
        if self.frame.fit_intercept:
            A[N, :N] = A[:N, N] = product(root, x)
            A[N, N] = weight.sum()
        return A

    def hessian_on(self, proba, features, classes, dtype):
        """That of all weights of a few features, where most of them are asked for."""
        few, all_of_them = self.n_parameters <= TUNED.few, self.n_parameters * self.n_classes
        if not few or 2 * len(features) <= all_of_them:
            return super().hessian_on(proba, features, classes, dtype)
        H = hessian_of_pairs(super().pair_sums(proba, dtype)[0].astype(np.float64), self.n_classes)
        index = features * self.n_classes + classes
        return H[np.ix_(index, index)]

    def _sums_of_pairs(self, block, weight):
        return sums_of_pairs(self, block, weight)

    def _row_forms(self, block, forms):
        return forms_of_pairs(self, block, forms)
