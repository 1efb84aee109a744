"""The Kronecker form, which may begin as the diagonal where it costs much."""

from skfc._preconditioner._base import Diagonal, Preconditioner, steps_of
from skfc._preconditioner._kronecker import Kronecker, LowRank, eigen_operations
from skfc._tuned import TUNED


def kronecker(objective, deferred):
    """The Kronecker form, or if `deferred`, where it costs more than a step, :class:`Deferred`."""
    kind = LowRank if objective.rows.shape[0] < objective.rows.shape[1] else Kronecker
    solve = steps_of(objective, solve_operations(objective))
    # With what the first step of Newton's method takes.
    price = steps_of(objective, eigen_operations(objective)) + Diagonal.least_steps * solve
    if deferred and price > 1:
        return Deferred(objective, kind, price, solve)
    return kind(objective)


def solve_operations(objective):
    """Operations of a solution in the Kronecker form."""
    P = objective.shape[0]
    return 4 * P * min(P, objective.rows.shape[0]) * objective.rows.n_classes


class Deferred(Preconditioner):
    """The diagonal, until products in it have cost as much as the Kronecker form does.

    For Newton's method. Of the products of a step those count that the Kronecker form can save: it
    takes a third of them, where it helps, and each costs a `solve` more. It is formed when they
    have cost its `price`.
    """

    def __init__(self, objective, kind, price, solve):
        super().__init__(objective)
        self.form, self.kind, self.left = Diagonal(objective), kind, price
        self.form.sampler = self.sampler
        self.free = TUNED.look_back * Diagonal.least_steps * (1 + solve)
        self.before = objective.rows.work.products

    def update(self, objective, evaluation, *, renew=False, growth=1.0):
        products = objective.rows.work.products
        self.left -= max(products - self.before - self.free, 0)
        self.before = products
        if self.left <= 0 and self.kind is not None:
            self.form, self.kind = self.kind(objective), None
            self.form.sampler = self.sampler
        return self.form.update(objective, evaluation, renew=renew, growth=growth)

    @property
    def least_steps(self):
        return self.form.least_steps

    @property
    def confirming_steps(self):
        return self.form.confirming_steps

    def in_double(self, objective):
        changed = super().in_double(objective)
        if changed:
            self.form.double, self.form._seen = True, None
        return changed

    def is_fresh(self, evaluation):
        return self.form.is_fresh(evaluation)

    def problems(self, objective, index, evaluation):
        part = super().problems(objective, index, evaluation)
        part.form = self.form.problems(objective, index, evaluation)
        part.form.sampler = part.sampler
        return part

    def root(self):
        return self.form.root()

    def solve(self, gradient):
        return self.form.solve(gradient)
