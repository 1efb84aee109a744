"""The driver round a solver: stages, tolerance, iteration limit, monitors."""

import numpy as np

from skfc import _separation
from skfc._array import cast, take
from skfc._continuation import Stages
from skfc._gaps import Gaps
from skfc._monitors import History, Progress
from skfc._optimality import eps_of
from skfc._outcome import OVERFLOW, Fit, status_of
from skfc._preconditioner import (
    exact_later,
    is_small,
    is_whole_affordable,
    is_worth_switching,
    make,
    passes_of_whole,
)  # fmt: skip
from skfc._tuned import TUNED
from skfc.solvers import GO_ON, SOLVERS, Change


class Run:
    """One run of a solver on every problem of an objective, to its end."""

    def __init__(self, solver, objective, preconditioner, theta, *, tol, max_iter, monitors=(),
                 suspicious=False, options=None, coefficients=None, other=None):  # fmt: skip
        n = objective.n_problems
        # The name of the solver to go on with where this one takes many iterations, or None.
        self.solver, self.other, self.switched = solver, other, None
        self.automatic = other is not None
        self.preconditioner, self.taken, self.paid = preconditioner, 0, 0.0
        self.stages = Stages(objective, single=solver.single, continuation=solver.continuation)
        self.generator = solver.generate(
            self.stages.objective, preconditioner, theta, **(options or {})
        )
        self.tol, self.max_iter = tol, max_iter
        self.history = History(n)
        self.monitors = (self.history, *monitors)
        self.coefficients = coefficients
        self.gaps = Gaps(n, tol, max_iter, suspicious)
        self.fits, self.since = [None] * n, np.zeros(n, dtype=int)
        self.least_decrement, self.least_value = np.full(n, np.inf), np.full(n, np.inf)
        self.bounded = np.zeros(n, dtype=bool)  # known to have a minimum
        self.recent, self.before = [], None  # decrements of the last two iterates, of the last
        self.seen = -1

    @property
    def which(self):
        """The numbers of the problems that are left."""
        return self.gaps.which

    def run(self):
        """The list of `Fit`."""
        change = None
        while len(self.which):
            for monitor in self.monitors:
                monitor.begin()
            iterate = self.generator.send(change)
            change = self.judge(iterate, self.taken + iterate.n_iter)
            if len(self.which) and self.other is not None and self.hands_over(iterate):
                change = self.switch(iterate, change)
        self.generator.close()
        for monitor in self.monitors:
            monitor.end(self.fits)
        return self.fits

    def hands_over(self, iterate):
        """Whether another solver takes over, see :func:`is_slow`.

        Where Newton's method costs little it is that: where the model promises more than F at the
        start, after two steps without much progress, and where a second estimate is in doubt.
        """
        before, here = self.recent, iterate.decrement[0]
        self.recent = [*before[-1:], here]
        curve = self.history.curves[self.which[0]]
        slow = is_slow(iterate, self.solver, self.tol, curve) or self.products_cost_more
        if slow or self.solver.exact:
            return slow
        stuck = len(before) == 2 and TUNED.stronger * here > before[0]
        stuck |= here > iterate.evaluation.value[0] or self.gaps.doubts[self.which[0]] > 1
        return stuck and self.wants_all_rows

    @property
    def products_cost_more(self):
        """Whether products with the Hessian have cost more than Newton's method is likely to."""
        objective = self.stages.objective
        spent = objective.rows.work.passes - self.paid
        later = self.other == "newton-cholesky"
        return later and spent > TUNED.look_back * passes_of_whole(objective)

    @property
    def wants_all_rows(self):
        """Whether Newton's method costs little where the Hessian is that of a sample."""
        sampled = self.preconditioner.is_newton and not self.solver.exact
        return sampled and is_worth_switching(self.stages.objective)

    def switch(self, iterate, change):
        """Go on from an iterate with the other solver, and in the Hessian where that is small."""
        objective = self.stages.objective
        small = is_small(objective) or self.wants_all_rows
        exact = self.hessian_later(iterate, small)
        name, self.other = self.other, None
        if exact is not None and small:
            name, self.other = "newton-cholesky", name
        elif not self.solver.exact and is_whole_affordable(objective):
            # Products with a Hessian of many rows cost more than its factor, in the end.
            self.other = "newton-cholesky"
        if name == "newton-cholesky" and exact is None:
            exact = make(objective, None, exact=True)
        solver = SOLVERS[name]
        if solver is self.solver and exact is None:
            return change
        self.generator.close()
        self.preconditioner.expire()  # where it was formed, curvature may be what is gone by now
        preconditioner = self.preconditioner if exact is None else exact
        self.generator = solver.generate(objective, preconditioner, iterate.evaluation.theta)
        self.taken += iterate.n_iter
        self.paid = objective.rows.work.passes
        self.solver, self.preconditioner, self.switched = solver, preconditioner, name
        self.gaps.ratio[:] = 1.0
        return None

    def hessian_later(self, iterate, small):
        """The Hessian in the place of another preconditioner, not formed yet, or None."""
        if self.solver.exact or not (small or iterate.poor):
            return None
        objective = self.stages.objective
        return make(objective, None, exact=True) if small else exact_later(objective)

    def judge(self, iterate, n_iter):
        """Look at an iterate: end what has ended, and say how to go on."""
        raise_for_overflow(iterate)
        value = self.stages.asked(iterate.evaluation)
        gap = self.gaps.of(iterate, value)
        gap = gap if self.stages.may_end else np.full_like(gap, np.inf)
        stop = self.tell(n_iter, value, gap, iterate)
        idle = self.idle(iterate, value)
        floor = iterate.stalled | (idle >= TUNED.patience)
        floor &= self.stages.is_last & (self.other is None)
        found = _separation.complete(iterate)
        separated = np.array([f is not None for f in found])
        last = np.full(len(value), n_iter >= self.max_iter or stop)
        done = (gap <= self.tol) | floor | last
        if not (done | separated).any():
            return self.go_on(iterate, done, bool((idle >= TUNED.look_back).any()))
        asked = np.flatnonzero(done & ~separated)
        proven, coarse, steps = np.zeros(len(value), dtype=bool), False, {}
        if len(asked) and self.stages.may_end:
            gap, proven, coarse = self.confirm(iterate, asked, gap, floor, last, n_iter)
            self.look_for_separation(iterate, asked, gap, floor, found)
            separated = np.array([f is not None for f in found])
            arrived = (gap <= self.tol) & ~(separated | last) & (n_iter > 0)
            steps = self.gaps.last_steps(iterate, arrived, gap, proven)
            if not self.solver.options:  # with a learning rate, a fit keeps its own iterates
                stuck = ~last & (floor | self.automatic)
                steps |= self.gaps.better_ends(iterate, stuck, gap, proven)
        done = (gap <= self.tol) | floor | last | separated
        if coarse and not self.stages.is_last and not last.any():
            done &= ~np.isin(np.arange(len(done)), asked)
        near = gap <= np.sqrt(eps_of(iterate.objective.rows))
        for j in np.flatnonzero(done):
            status = status_of(gap[j] <= self.tol, floor[j], separated[j], stop, near[j])
            self.end(iterate, n_iter, j, status, gap[j], proven[j], found[j], steps.get(j))
        spent = coarse or bool((idle[~done] >= TUNED.look_back).any())
        return self.go_on(iterate, done, spent)

    def confirm(self, iterate, asked, gap, floor, last, n_iter):
        """As :meth:`Gaps.confirm`; where it is too early for an estimate, the Hessian is due."""
        early = self.preconditioner.is_provisional and len(gap) == 1
        found = self.gaps.confirm(
            iterate, self.stages.exact, asked, gap, floor, last,
            early=early, late=n_iter >= TUNED.patience,
        )  # fmt: skip
        if early and not found[1].any():
            self.preconditioner.expire()
        return found

    def go_on(self, iterate, done, spent):
        """The `Change` for the problems that are not done; `spent` as in :meth:`Stages.next`."""
        if not done.any():
            other = self.next_stage(iterate, spent, slice(None))
            return Change(None, other, self.gaps.take(), self.is_nearly_done(iterate))
        keep = np.flatnonzero(~done)
        self.gaps.which = self.which[keep]
        if not len(keep):
            return GO_ON
        self.stages.problems(keep)
        return Change(keep, self.next_stage(iterate, spent, keep))

    def is_nearly_done(self, iterate):
        """Whether a step as good as the last leads to within `tol`."""
        before, here = self.before, iterate.decrement
        self.before = here
        if before is None or len(before) != len(here) or self.stages.level:
            return False
        return bool((here**2 <= self.tol * before * iterate.evaluation.value).all())

    def end(self, iterate, n_iter, j, status, gap, proven, separation, last_step):
        """Store the `Fit` of problem `j` of an iterate, after its last step or None.

        That is a step, F after it, and whether `gap` is the one there.
        """
        k, columns = self.which[j], iterate.objective.columns(np.array([j]))
        theta, curve = take(iterate.evaluation.theta, columns, axis=1), self.history.curves[k]
        value = curve[-1]
        if last_step is not None:
            step, after, there = last_step
            theta, curve[-1] = theta + cast(step, theta.dtype), float(after)
            value = curve[-1] if there else value
        self.fits[k] = Fit(
            theta, status, n_iter, value, float(gap), bool(proven), curve,
            separation=separation, switched=self.switched,
        )  # fmt: skip

    def look_for_separation(self, iterate, asked, gap, floor, found):
        """Note in `found` which problems without a penalty are quasi-separable.

        These are looked at in doubt, where steps lower the objective no more, and at their end.
        """
        value = iterate.evaluation.value
        small = iterate.decrement / value <= max(
            0.01 * min(self.tol, TUNED.small_tol), TUNED.no_curvature
        )
        arrived = gap <= self.tol
        free = ~iterate.objective.penalty.strict & (small | floor | arrived)
        free &= ~self.bounded[self.which]
        for b in asked[free[asked]]:
            left = self.tol * value[b] if arrived[b] else np.inf
            found[b], certain = _separation.quasi(iterate, b, left)
            self.bounded[self.which[b]] = certain and found[b] is None

    def tell(self, n_iter, value, gap, iterate):
        """Tell the monitors of a new iterate; returns whether one asks to stop."""
        if n_iter == self.seen:
            return False
        self.seen = n_iter
        progress = Progress(
            n_iter, self.which, len(self.fits), value, gap,
            lambda: self.coefficients(iterate.evaluation.theta),
        )  # fmt: skip
        asked = [bool(monitor.step(progress)) for monitor in self.monitors]  # every one is told
        return any(asked)

    def idle(self, iterate, value):
        """Iterations without progress, in which only rounding changed the value, (n_left,)."""
        which, eps, decrement = self.which, eps_of(iterate.objective.rows), iterate.decrement
        least, lowest = self.least_decrement[which], self.least_value[which]
        # At a slower pace, all iterations that are left do not lower F by much of `tol`.
        slow = 0.0 if iterate.proven else 0.1 * self.tol / max(self.max_iter, 1)
        if self.solver.continuation:
            slow = self.tol / TUNED.patience
        slow = max(10 * eps, slow)
        # What is proven may fall for ever by next to nothing, where rounding is all that is left.
        lower = decrement < least * (1 - TUNED.accuracy * iterate.proven)
        better = lower & (decrement > slow * value) | (value < lowest * (1 - slow))
        since, lowest = np.where(better, 0, self.since[which] + 1), np.minimum(value, lowest)
        self.least_decrement[which] = np.where(lower, decrement, least)
        self.least_value[which], self.since[which] = lowest, since
        return np.where(value <= lowest * (1 + max(1e4 * eps, slow)), since, 0)

    def next_stage(self, iterate, spent, kept):
        """The objective of the next stage, or None; in a new one patience begins again."""
        objective = self.stages.next(iterate, spent, kept)
        if objective is not None:
            self.since[:] = 0
        return objective


def is_slow(iterate, solver, tol, curve):
    """Whether a solver that knows no damping has met its limits: the other one takes over.

    That is after many iterations, after half as many where at the pace so far it will be many,
    where no step was found, and where the model promises more than F, which is not negative. At
    the start it often does, and the first step mends it; with the Hessian of all rows the solver
    does, and is not slow while F halves in as many iterations, by its `curve`.
    """
    beyond = not solver.exact and iterate.n_iter > 0
    beyond = beyond and (iterate.decrement > iterate.evaluation.value).any()
    taken = iterate.n_iter / TUNED.patience
    halves = taken >= 1 and curve[-1] < TUNED.smooth_share * curve[-1 - TUNED.patience]
    late = taken >= 1 and not (solver.exact and halves)
    if taken >= 0.5 and not (late or solver.exact):
        late = (iterate.decrement > tol**taken * iterate.evaluation.value).any()
    return late or beyond or iterate.stalled.any()


def raise_for_overflow(iterate):
    """Raise where a value or a decrement is not finite."""
    if not np.isfinite(iterate.evaluation.value + iterate.decrement).all():
        raise ValueError(OVERFLOW.format(iterate.objective.rows.dtype))
