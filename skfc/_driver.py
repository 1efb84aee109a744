"""The driver round a solver: stages, tolerance, iteration limit, monitors, gaps."""

import numpy as np

from skfc import _separation
from skfc._array import cast, take
from skfc._continuation import Stages
from skfc._last_step import LastStep
from skfc._monitors import History, Progress
from skfc._newton_bound import newton_bound
from skfc._newton_end import newton_end
from skfc._optimality import estimate, lower_bound, relative
from skfc._outcome import OVERFLOW, Fit, status_of
from skfc._preconditioner import exact_later, is_free, is_small, is_whole_affordable, make
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
        self.preconditioner, self.taken = preconditioner, 0
        self.stages = Stages(objective, single=solver.single, continuation=solver.continuation)
        self.generator = solver.generate(
            self.stages.objective, preconditioner, theta, **(options or {})
        )
        self.tol, self.max_iter = tol, max_iter
        self.history = History(n)
        self.monitors = (self.history, *monitors)
        self.coefficients = coefficients
        # After a warm start every estimate of the gap is a thorough one.
        self.suspicious = suspicious
        self.which, self.fits = np.arange(n), [None] * n
        self.ratio, self.lower = np.ones(n), np.full(n, -np.inf)
        self.least_decrement, self.least_value = np.full(n, np.inf), np.full(n, np.inf)
        self.since, self.doubted = np.zeros(n, dtype=int), np.zeros(n, dtype=bool)
        self.bounded = np.zeros(n, dtype=bool)  # known to have a minimum
        # Newton's method was tried from a doubtful end; `lower` is next to the minimum.
        self.tried, self.certain = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
        self.ends, self.led = {}, {}  # where it led, of this iterate and at last
        self.seen = -1

    def run(self):
        """The list of `Fit`."""
        change = None
        while len(self.which):
            for monitor in self.monitors:
                monitor.begin()
            iterate = self.generator.send(change)
            change = self.judge(iterate, self.taken + iterate.n_iter)
            if self.other is not None and is_slow(iterate, self.solver, self.tol):
                change = self.switch(iterate, change)
        self.generator.close()
        for monitor in self.monitors:
            monitor.end(self.fits)
        return self.fits

    def switch(self, iterate, change):
        """Go on from an iterate with the other solver, and in the Hessian where that is small."""
        objective = self.stages.objective
        small = is_small(objective)
        whole = not self.solver.exact and (iterate.poor or small)
        exact = exact_later(objective) if whole else None
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
        preconditioner = self.preconditioner if exact is None else exact
        self.generator = solver.generate(objective, preconditioner, iterate.evaluation.theta)
        self.taken += iterate.n_iter
        self.solver, self.preconditioner, self.switched = solver, preconditioner, name
        self.ratio[:] = 1.0
        return None

    def judge(self, iterate, n_iter):
        """Look at an iterate: end what has ended, and say how to go on."""
        raise_for_overflow(iterate)
        value = self.stages.asked(iterate.evaluation)
        gap = relative(self.ratio[self.which] * iterate.decrement, value)
        gap = np.where(self.certain[self.which], self.above_lower(self.which, value), gap)
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
        proven, doubtful, steps = np.zeros(len(value), dtype=bool), False, {}
        if len(asked) and self.stages.may_end:
            gap, proven, doubtful = self.confirm(iterate, asked, gap, floor, last)
            self.look_for_separation(iterate, asked, gap, floor, found)
            separated = np.array([f is not None for f in found])
            arrived = (gap <= self.tol) & ~(separated | last) & (n_iter > 0)
            steps = self.last_steps(iterate, arrived, gap, proven)
            steps |= self.better_ends(iterate, ~last & (floor | self.automatic), gap, proven)
        done = (gap <= self.tol) | floor | last | separated
        if doubtful and not self.stages.is_last and not last.any():
            done &= ~np.isin(np.arange(len(done)), asked)
        near = gap <= np.sqrt(eps_of(iterate))
        for j in np.flatnonzero(done):
            status = status_of(gap[j] <= self.tol, floor[j], separated[j], stop, near[j])
            self.end(iterate, n_iter, j, status, gap[j], proven[j], found[j], steps.get(j))
        spent = doubtful or bool((idle[~done] >= TUNED.look_back).any())
        return self.go_on(iterate, done, spent)

    def go_on(self, iterate, done, spent):
        """The `Change` for the problems that are not done; `spent` as in :meth:`Stages.next`."""
        if not done.any():
            return Change(None, self.next_stage(iterate, spent, slice(None)))
        keep = np.flatnonzero(~done)
        self.which = self.which[keep]
        if not len(keep):
            return GO_ON
        self.stages.problems(keep)
        return Change(keep, self.next_stage(iterate, spent, keep))

    def last_steps(self, iterate, arrived, gap, proven):
        """By problem the steps that end fits which have arrived, and F after them.

        `gap` is raised to what they gain. After a proof, where no estimate was made, that is the
        solver's: Newton's, or a step in a preconditioner, which is not taken where that is poor.
        """
        newton = not iterate.poor or iterate.newton is not None
        index = np.flatnonzero(arrived & (~proven | newton))
        if iterate.proven or not len(index):
            return {}
        self.ahead.look(index)
        gap[index] = np.maximum(gap, self.ahead.least_gap(eps_of(iterate)))[index]
        down = self.ahead.leads_down
        return {j: (*self.ahead.of(j), False) for j in index[down[index]].tolist()}

    def better_ends(self, iterate, stuck, gap, proven):
        """By problem the steps to where Newton's method has ended, of fits that are `stuck`.

        `gap` is then the proven one there. Methods with a learning rate keep their own iterates.
        """
        steps = {}
        if self.solver.options:
            return steps
        for j, end in self.ends.items():
            there = self.above_lower(self.which[j], end.value)[0]
            if stuck[j] and gap[j] > self.tol >= there:
                columns = iterate.objective.columns(np.array([j]))
                theta = take(iterate.evaluation.theta, columns, axis=1)
                gap[j], proven[j] = there, True
                steps[j] = end.theta - theta, end.value[0], True
        return steps

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
        which, eps, decrement = self.which, eps_of(iterate), iterate.decrement
        least, lowest = self.least_decrement[which], self.least_value[which]
        # At a slower pace, all iterations that are left do not lower F by much of `tol`.
        slow = 0.0 if iterate.proven else 0.1 * self.tol / max(self.max_iter, 1)
        better = (decrement < least) | (value < lowest * (1 - max(10 * eps, slow)))
        since, lowest = np.where(better, 0, self.since[which] + 1), np.minimum(value, lowest)
        self.least_decrement[which] = np.minimum(decrement, least)
        self.least_value[which], self.since[which] = lowest, since
        return np.where(value <= lowest * (1 + 1e4 * eps), since, 0)

    def next_stage(self, iterate, spent, kept):
        """The objective of the next stage, or None; in a new one patience begins again."""
        objective = self.stages.next(iterate, spent, kept)
        if objective is not None:
            self.since[:] = 0
        return objective

    def confirm(self, iterate, asked, gap, floor, last):
        """Gaps of the problems `asked`: proven, estimated on the Hessian, or unknown.

        A proof is tried where it may succeed. Elsewhere the estimate stands, unless it is
        doubtful: the fit then goes on. At the `floor` of the arithmetic, and with the `last`
        iteration, problems end whatever the gap is. Returns gaps, which of them are proven,
        and whether a fit goes on because its estimate is doubtful.
        """
        value = iterate.evaluation.value
        if iterate.proven:
            return gap, np.ones(len(value), dtype=bool), False
        self.ahead, self.ends, gap = LastStep(iterate), {}, gap.copy()
        proven = self.prove(iterate, asked, gap)
        rest = asked[~proven[asked]]
        near = iterate.objective.penalty.strict
        near = near & (iterate.decrement <= TUNED.accuracy * self.tol * value)
        if iterate.is_exact and not (floor | last | near)[rest].any():
            gap[rest] = np.inf  # Newton steps lead to where it can be proven
            self.wait(iterate, rest)
            return gap, proven, bool(len(rest))
        if not len(rest):
            return gap, proven, False
        thorough = self.suspicious or iterate.is_exact or is_free(iterate.objective)
        found = estimate(iterate, rest, self.tol, thorough=thorough)
        self.ahead.adopt(rest, found)
        gap[rest] = relative(found.decrement, value[rest])
        self.remember(iterate, rest, found)
        # After a doubtful estimate, no gap below a share of tol is stated.
        past = self.doubted[self.which[rest]]
        gap[rest] = np.where(past, np.maximum(gap[rest], TUNED.accuracy * self.tol), gap[rest])
        sure = found.doubtful & ~last[rest]
        gap[rest[sure]] = np.inf
        self.doubted[self.which[rest[sure]]] = True
        # In the last iteration, a doubtful estimate above tol is stated as it is.
        beyond = ~found.broken & (relative(found.decrement, value[rest]) > self.tol)
        early = beyond & (last[rest] | ~found.doubtful)
        final = found.doubtful & (floor | last)[rest] | beyond & floor[rest]
        if final.any():
            self.last_word(iterate, rest[final], gap, proven, early[final])
        tired = rest[found.doubtful & ~final & ~self.tried[self.which[rest]]]
        if len(tired) and self.taken + iterate.n_iter >= TUNED.patience:
            self.go_ahead(iterate, tired)
            certain = self.certain[self.which[tired]]
            known = self.above_lower(self.which[tired], value[tired])
            gap[tired], proven[tired] = np.where(certain, known, np.inf), certain
        return gap, proven, bool(sure.any())

    def prove(self, iterate, asked, gap):
        """Put proven gaps in their places of `gap`; returns which these are."""
        objective, value = iterate.objective, iterate.evaluation.value
        proven = self.certain[self.which]
        if iterate.is_exact and not proven.all():
            bound = newton_bound(
                iterate.newton, iterate.whole, objective, iterate.evaluation, self.tol * value
            )
            found = relative(bound, value)
            known = np.isfinite(found) & ~proven
            gap[known], proven = found[known], proven | known
        loose = objective.penalty.conjugate(iterate.evaluation.gradient)
        provable = asked[(loose <= self.tol * value)[asked] & ~proven[asked]]
        if len(provable):
            gap[provable] = self.bound(iterate, provable)
            proven[provable] = gap[provable] <= self.tol
        return proven

    def bound(self, iterate, index):
        """Proven gaps of the problems `index`; the best lower bound of the minimum is kept."""
        k, value = self.which[index], iterate.evaluation.value[index]
        part = iterate.objective.problems(index, iterate.evaluation)
        self.lower[k] = np.maximum(self.lower[k], lower_bound(*part, 0.1 * self.tol * value))
        return self.above_lower(k, value)

    def remember(self, iterate, index, found):
        """Correct the solver's own decrement by the estimate, where that is larger.

        After a doubtful estimate, the next is due when the decrement has fallen tenfold.
        """
        k, before = self.which[index], self.ratio[self.which[index]]
        own = np.maximum(iterate.decrement[index], np.finfo(float).tiny)
        ratio = np.maximum(found.decrement / own, 1.0) if iterate.newton is None else 1.0
        self.ratio[k] = np.where(ratio > 1, ratio, before)
        self.wait(iterate, index[found.doubtful])
        self.ratio[k] = np.where(found.doubtful, np.maximum(before, self.ratio[k]), self.ratio[k])

    def wait(self, iterate, index):
        """Ask about the problems `index` again when their decrements have fallen tenfold."""
        k, value = self.which[index], iterate.evaluation.value[index]
        own = np.maximum(iterate.decrement[index], np.finfo(float).tiny)
        self.ratio[k] = np.maximum(self.ratio[k], self.tol * value * TUNED.stronger / own)

    def last_word(self, iterate, index, gap, proven, known):
        """Gaps of problems `index` that end in doubt: proven bounds, else thorough estimates.

        `known` says of which problems an estimate above `tol` stands where a bound is no better.
        """
        value = iterate.evaluation.value
        self.go_ahead(iterate, index)
        bound = self.bound(iterate, index)
        proven[index] = True
        open_ = np.flatnonzero((bound > self.tol) & ~self.certain[self.which[index]] & ~known)
        if len(open_):
            thorough = estimate(iterate, index[open_], self.tol, thorough=True)
            sure = open_[~thorough.doubtful]
            bound[sure] = relative(thorough.decrement, value[index[open_]])[~thorough.doubtful]
            proven[index[sure]] = False
        stands = known & (bound > gap[index])
        proven[index[stands]] = False
        gap[index] = np.where(stands, gap[index], bound)

    def go_ahead(self, iterate, index):
        """Let Newton's method bound the minimum from where problems of a small Hessian are."""
        for j in index:
            k, columns = self.which[j], iterate.objective.columns(np.array([j]))
            theta = take(iterate.evaluation.theta, columns, axis=1)
            if k in self.led and self.led[k].value[0] < iterate.evaluation.value[j]:
                theta = self.led[k].theta
            (part,) = self.stages.exact.problems(np.array([j]))
            end = newton_end(part, theta, 0.1 * self.tol, min(self.max_iter, TUNED.patience))
            self.tried[k] = True
            if end is not None:
                self.ends[j] = self.led[k] = end
                self.lower[k] = max(self.lower[k], end.lower)
                self.certain[k] = self.above_lower(k, end.value)[0] <= 0.1 * self.tol

    def above_lower(self, k, value):
        """The gaps of values of problems `k` above the largest lower bounds so far."""
        return relative(value - self.lower[k], value)


def is_slow(iterate, solver, tol):
    """Whether a solver that knows no damping has met its limits: the other one takes over.

    That is after many iterations, after half as many where at the pace so far it will be many,
    where no step was found, and where the model promises more than F, which is not negative. At
    the start it often does, and the first step mends it; with the Hessian of all rows the solver
    does.
    """
    beyond = iterate.n_iter > 0 and (iterate.decrement > iterate.evaluation.value).any()
    beyond = beyond and not solver.exact
    taken = iterate.n_iter / TUNED.patience
    late = taken >= 1
    if taken >= 0.5 and not (late or solver.exact):
        late = (iterate.decrement > tol**taken * iterate.evaluation.value).any()
    return late or beyond or iterate.stalled.any()


def eps_of(iterate):
    """The machine epsilon of the logits of an iterate."""
    rows = iterate.objective.rows
    return 2.0**-23 if rows.dtype == rows.xp.float32 else 2.0**-52


def raise_for_overflow(iterate):
    """Raise where a value or a decrement is not finite."""
    finite = np.isfinite(iterate.evaluation.value) & np.isfinite(iterate.decrement)
    if not finite.all():
        raise ValueError(OVERFLOW.format(iterate.objective.rows.dtype))
