"""A block of curvature for every class, for some hundreds of features."""

import math
from functools import partial

from skfc import _blockwise, _draws
from skfc._array import (
    cast,
    cholesky_solve,
    diagonals,
    inverse_factor,
    is_numpy,
    namespace,
    permute,
    random_normal,
    take,
    triangular_solve,
    with_diagonals,
)  # fmt: skip
from skfc._pool import thread_map
from skfc._preconditioner._base import (
    Diagonal,
    Preconditioner,
    centred_over_classes,
    factorise,
    is_singular,
    ridge_of,
    steps_of,
    units_of,
)  # fmt: skip
from skfc._preconditioner._deferred import kronecker
from skfc._preconditioner._kronecker import Kronecker, eigen_operations
from skfc._row_samples import draw
from skfc._rows import columns_of
from skfc._tuned import TUNED

# Operations for every number of a factor that a solution reads: it is bound by memory.
SOLVE = 50


class BlockDiagonal(Preconditioner):
    """The Gram matrix of the features for every class, weighted by p (1 - p).

    It knows that features can matter where one class is decided and not where another is,
    and leaves what couples the classes to the solver. It starts as the Kronecker form, or, of
    sparse rows for which that costs more than some steps, as the diagonal. Blocks are formed, and
    later formed again, when the steps since the last refresh have cost as much as they do. Of
    many rows, a block takes those of leverage in the block before (Cohen, Musco and Musco 2017).
    """

    def __init__(self, objective, deferred=False):
        super().__init__(objective)
        self.n_classes = objective.rows.n_classes
        sparse = objective.rows.sparse
        costly = sparse and steps_of(objective, eigen_operations(objective)) > TUNED.block_price
        self.first = Diagonal(objective) if costly else kronecker(objective, deferred)
        self.least_steps = self.first.least_steps
        self.grams, self.warm, self.waits = None, None, False
        self._of_size = math.prod(objective.shape) / TUNED.numbers_per_step
        self._least = TUNED.block_price
        if not isinstance(self.first, Kronecker):
            self.confirming_steps = Diagonal.confirming_steps
        if sparse:
            self._least += steps_of(objective, blocks_operations(objective))

    def update(self, objective, evaluation, *, renew=False, growth=1.0):
        if self.warm is None:
            N = objective.rows.shape[1]
            self.warm = bool(objective.rows.xp.any(evaluation.theta[:N, :] != 0))
        work = objective.rows.work
        if self.first is not None and not (self.double or (renew and self.warm)):
            if self._seen is None:
                self._seen, self._clock = (), work.steps
                self._interval = self._least + self._of_size
            if self.waits or work.steps - self._clock < self._interval:
                self.l2, self.waits = objective.penalty.l2, False
                return self.first.update(objective, evaluation, growth=growth)
        return super().update(objective, evaluation, renew=renew, growth=growth)

    def put_off(self):
        self.waits = True

    def is_fresh(self, evaluation):
        if self.first is not None:
            return not self.warm
        return super().is_fresh(evaluation)

    def refresh(self, objective, evaluation):
        """Form the blocks: Gram matrices of the standardised rows of a sample."""
        hessian = self.sampler.at(objective, evaluation)
        rows = hessian.rows
        sums = rows.sum(_blockwise.curvature_weights, state=hessian.state, count=False)
        weights, n_rows = sums.state, rows.shape[0]
        size = TUNED.hessian_rows + TUNED.rows_per_feature * objective.shape[0]
        steps = self._of_size
        if n_rows > TUNED.nearly_all * size:
            probes = self._probes(rows)
            if probes is not None:
                weights = thinned(rows, weights, probes, size)
                steps = TUNED.probes / 2 + steps * size / n_rows
        self.price = self._least + steps
        self.grams, self.first = rows.gram(weights), None
        self.least_steps = 2 if objective.penalty.strict.all() else Diagonal.least_steps
        self.follow(objective, evaluation)

    def follow(self, objective, evaluation):
        xp, grams = namespace(self.grams), self.grams
        K, P = grams.shape[:2]
        ridge = ridge_of(objective, grams.dtype)
        if ridge.shape[1] != K:
            ridge = xp.repeat(ridge, K // ridge.shape[1], axis=1)
        d = diagonals(grams) + ridge.T
        unit = units_of(d, objective.rows.frame.idle)
        B = grams / (unit[:, :, None] * unit[:, None, :])
        self.factor = factorise(with_diagonals(B, d / unit**2))
        hidden = any(is_singular(L) for L in self.factor)
        self.confirming_steps = TUNED.decided_steps if hidden else 2
        self.unit, self.inverse = unit.T, None
        if K > 1 and TUNED.few >= P:
            L = inverse_factor(xp.stack(self.factor))
            self.inverse = xp.matmul(permute(L, (0, 2, 1)), L)

    def _probes(self, rows):
        """Vectors that tell the leverage x̃ᵀ M⁻¹ x̃ of rows for every block M so far, or None.

        It is about |zᵀ x̃|² for z (P, q), with q random vectors (Drineas, Magdon-Ismail, Mahoney
        and Woodruff 2012). The array is (P, q, K), or (P, q, 1) before there are blocks: M is
        then the Gram matrix of the features, since near the null model no row is decided yet, and
        z may be its inverse root itself.
        """
        n, K = TUNED.probes, rows.n_columns
        if self.first is not None:
            if self.warm:
                return None
            root = self.first.root()
            if root.shape[1] > n * K:  # as many vectors as for the blocks that follow
                random = random_normal((root.shape[1], n * K), root)
                root = namespace(root).matmul(root, random) / (n * K) ** 0.5
            return root[:, :, None]
        P = self.unit.shape[0]
        if self.unit.shape[1] != K:
            return None
        xp = namespace(self.grams)
        probes = random_normal((n, P), self.grams)
        # One by one: more at once wake the threads of SciPy's BLAS, which fight with NumPy's.
        z = [[triangular_solve(L, probes[i, :]) for L in self.factor] for i in range(n)]
        z = xp.stack([xp.stack(z[i], axis=1) for i in range(n)], axis=1)
        return z / self.unit[:, None, :] / n**0.5

    def problems(self, objective, index, evaluation):
        part = super().problems(objective, index, evaluation)
        if self.first is not None:
            part.first = self.first.problems(objective, index, evaluation)
            return part
        columns = columns_of(index, self.n_classes)
        part.grams, part.unit = take(self.grams, columns), take(self.unit, columns, axis=1)
        part.factor = [self.factor[k] for k in columns]
        part.inverse = None if self.inverse is None else take(self.inverse, columns)
        return part

    def solve(self, gradient):
        if self.first is not None:
            return self.first.solve(gradient)
        xp = namespace(gradient)
        gradient = centred_over_classes(gradient, self.n_classes)
        flat = cast(gradient / cast(self.unit, gradient.dtype), self.grams.dtype).T
        if self.inverse is None:
            x = xp.stack(self._solve_blocks(flat), axis=1)
        else:
            x = xp.matmul(self.inverse, flat[:, :, None])[:, :, 0].T
        x = cast(x, gradient.dtype) / cast(self.unit, gradient.dtype)
        return centred_over_classes(x, self.n_classes)

    def _solve_blocks(self, flat):
        """The solutions of every block, a list."""

        def solve(k):
            return cholesky_solve(self.factor[k], flat[k, :])

        if not is_numpy(flat):
            return [solve(k) for k in range(flat.shape[0])]
        return thread_map(solve, range(len(flat)), work=SOLVE * flat.size * flat.shape[1])


def blocks_operations(objective):
    """Operations of a block per class: Gram matrices of the rows that they take, and factors."""
    n, N = objective.rows.shape
    taken = min(n, TUNED.hessian_rows + TUNED.rows_per_feature * N)
    return objective.rows.n_classes * (N**3 / 3 + taken * N**2)


def thinned(rows, weights, probes, size):
    """Of a state of weights (K, n_rows) leave about `size` in a row, which stand for all.

    Drawn in proportion to weight times leverage; all blocks share a draw.
    """
    P, q, n = probes.shape
    function = partial(_draws.chance_by_leverage, n=n, scale=1.0 / rows.n_total)
    probes = namespace(probes).reshape(probes, (P, q * n))
    state = draw(rows, function, size, theta=probes, state=weights)
    return rows.sum(_draws.times, state=state, count=False).state
