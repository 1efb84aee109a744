"""A Cholesky factor that knows what it hides, and one of a matrix in other directions."""

from dataclasses import dataclass
from functools import cached_property

from skfc._array import (
    Array,
    cast,
    cholesky_solve,
    diagonal,
    host,
    inner,
    inverse_factor,
    namespace,
    outer,
    to_numpy,
)  # fmt: skip
from skfc._preconditioner._base import jitter_of, least_pivot
from skfc._tuned import TUNED


@dataclass(frozen=True)
class Factor:
    """A matrix of directions B (m, m), or the columns of `turn`: Bᵀ A B = D L Lᵀ D in units D.

    Attributes
    ----------
    L : (m, m), the lower factor
    unit : (m,), the diagonal of D
    gauge : (T, P), what A holds where one vector is added to all classes, see `gauge_of`
    turn : (m, m), B, or None for the coordinates themselves
    jitter : what was added to the diagonal, of ones, at least; rounding of A may be as much
    """

    L: Array
    unit: Array
    gauge: Array
    turn: Array | None = None
    jitter: float | None = None

    @cached_property
    def is_singular(self):
        """Whether what was added to the diagonal hides directions.

        A pivot is mostly that, or, where another factor would know more, inverse iteration finds
        a direction of little more curvature.
        """
        L, jitter = self.L, self.added
        pivot = least_pivot(L) / 10
        if pivot < jitter:
            return True
        if self.is_last or pivot >= jitter / TUNED.lost_digits:
            return False
        x = namespace(L).ones_like(diagonal(L))
        for _ in range(TUNED.look_back):
            x, before = cholesky_solve(L, x), x
            norm = (inner(x, x) / inner(before, before)) ** 0.5
        return bool(norm * jitter > TUNED.accuracy)

    @property
    def is_last(self):
        """Whether rounding is all that another factor would show."""
        return self.jitter is not None and self.jitter > TUNED.no_curvature

    @property
    def added(self):
        """What was added to the diagonal at least."""
        return jitter_of(self.L) if self.jitter is None else self.jitter

    def solve(self, b):
        """A⁻¹ b for a vector, in its own type."""
        xp, dtype = namespace(self.L), self.L.dtype
        if self.turn is not None:
            b = xp.matmul(self.turn.T, b)
        x = cholesky_solve(self.L, cast(b / cast(self.unit, b.dtype), dtype))
        x = cast(x, b.dtype) / cast(self.unit, b.dtype)
        return x if self.turn is None else xp.matmul(self.turn, x)

    def root_of_inverse(self):
        """R with A⁻¹ = R Rᵀ."""
        root = inverse_factor(self.L).T / self.unit[:, None]
        return root if self.turn is None else namespace(root).matmul(self.turn, root)

    @cached_property
    def inverse(self):
        """A⁻¹, and by which factor what was added may have made its quadratic forms smaller.

        That is not more than 2, else infinity. Diagonals were one. What rounding of A may be
        counts as well.
        """
        L = self.L
        inverse = cholesky_solve(L, namespace(L).eye(L.shape[0], dtype=L.dtype))
        added = host.square(to_numpy(L)).sum(axis=1).max() - 1
        added = max(float(added), self.added) + self.added
        share = added * float(host.linalg.norm(to_numpy(inverse)))
        inverse = to_numpy(inverse / outer(self.unit, self.unit))
        if self.turn is not None:
            turn = to_numpy(self.turn)
            inverse = turn @ inverse @ turn.T
        return inverse, 1 / (1 - share) if share < 0.5 else host.inf
