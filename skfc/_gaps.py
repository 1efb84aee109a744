"""How far the problems of a run are from their minima: what is estimated, bounded and believed."""

import numpy as np

from skfc._array import take
from skfc._dual_bound import bound_of_step, dual_bound
from skfc._last_step import LastStep
from skfc._newton_bound import near_minimum
from skfc._newton_end import newton_end
from skfc._optimality import eps_of, estimate, lower_bound, relative, slack_of_intercepts
from skfc._preconditioner import is_free
from skfc._tuned import TUNED


class Gaps:
    """What is known of the gaps of `n` problems.

    Parameters
    ----------
    tol, max_iter : those of the fit
    suspicious : whether every estimate is a thorough one, as after a warm start

    Attributes
    ----------
    which : (n_left,), the numbers of the problems of an iterate
    ratio : (n,), by which the solver's own decrements are corrected
    lower : (n,), the largest lower bounds of the minima; where `certain`, next to these
    least : (n,), the least values that were compared with these
    doubts : (n,), how many estimates were doubtful
    tried : (n,) of bool: Newton's method was tried
    ends, led : where that has led, by problem of this iterate, and by number of the problem
    """

    def __init__(self, n, tol, max_iter, suspicious):
        self.tol, self.max_iter, self.suspicious = tol, max_iter, suspicious
        self.which = np.arange(n)
        self.ratio, self.lower, self.least = np.ones(n), np.full(n, -np.inf), np.full(n, np.inf)
        self.doubts = np.zeros(n, dtype=int)
        self.tried, self.certain = np.zeros((2, n), dtype=bool)
        self.ends, self.led, self.ahead, self.newton = {}, {}, None, None

    def of(self, iterate, value):
        """The gaps of an iterate (n_left,), before they are looked at closely."""
        gap, certain = relative(self.ratio[self.which] * iterate.decrement, value), self.certain
        if not certain.any():
            return gap
        return np.where(certain[self.which], self.above_lower(self.which, value), gap)

    def confirm(self, iterate, exact, asked, gap, floor, last, *, early, late):
        """Gaps of the problems `asked`: proven, estimated on the Hessian, or unknown.

        A proof is tried where it may succeed. Elsewhere the estimate stands, unless it is
        doubtful: the fit then goes on. At the `floor` of the arithmetic, and with the `last`
        iteration, problems end whatever the gap is. `exact` is the objective in the precision of
        the end, and `late` says that a doubt may cost some Newton steps; `early` that an estimate
        would take the Hessian, of which the next steps have more. Returns gaps, which of them are
        proven, and whether more digits may help, after a breakdown.
        """
        value = iterate.evaluation.value
        if iterate.proven:
            return gap, np.ones(len(value), dtype=bool), False
        self.ahead, self.ends, self.newton, gap = LastStep(iterate), {}, None, gap.copy()
        most = np.minimum(TUNED.accuracy * self.tol * value, near_minimum(iterate.evaluation))
        strict, near = iterate.objective.penalty.strict, iterate.decrement <= most
        near &= iterate.objective.rows is exact.rows  # other steps cost less in single precision
        final = bool((floor | last | near | ~strict)[asked].any())
        proven, beyond = self.prove(iterate, asked, gap, final)
        rest = asked[~proven[asked]]
        if iterate.is_exact and not (floor | last | near & strict)[rest].any():
            gap[rest] = np.inf  # Newton steps lead to where it can be proven
            self.wait(iterate, rest, beyond)
            return gap, proven, False
        if early and not (floor | last)[rest].any():
            gap[rest] = np.inf
            return gap, proven, False
        if not len(rest):
            return gap, proven, False
        thorough = self.suspicious or iterate.is_exact or is_free(iterate.objective)
        found = estimate(iterate, rest, self.tol, thorough=thorough)
        self.ahead.adopt(rest, found)
        further = found.decrement > (1 + TUNED.share_to_come) * iterate.decrement[rest]
        if (further & ~found.broken).all() and len(value) == 1:
            self.newton = found.newton
        gap[rest] = relative(found.decrement, value[rest])
        self.remember(iterate, rest, found)
        # After a doubtful estimate, no gap below a share of tol is stated.
        past = self.doubts[self.which[rest]] > 0
        gap[rest] = np.where(past, np.maximum(gap[rest], TUNED.accuracy * self.tol), gap[rest])
        sure = found.doubtful & ~last[rest]
        gap[rest[sure]] = np.inf
        self.doubts[self.which[rest[sure]]] += 1
        # In the last iteration, a doubtful estimate above tol is stated as it is.
        beyond = ~found.broken & (relative(found.decrement, value[rest]) > self.tol)
        early = beyond & (last[rest] | ~found.doubtful)
        final = found.doubtful & (floor | last)[rest] | beyond & floor[rest]
        if final.any():
            self.last_word(iterate, exact, rest[final], gap, proven, early[final])
        tired = rest[found.doubtful & ~final & ~self.tried[self.which[rest]]]
        if late and len(tired):
            self.go_ahead(iterate, exact, tired)
            certain = self.certain[self.which[tired]]
            known = self.above_lower(self.which[tired], value[tired])
            gap[tired], proven[tired] = np.where(certain, known, np.inf), certain
        return gap, proven, bool((found.broken & sure).any())

    def take(self):
        """The Newton step of the last estimate, where it goes further than the solver's."""
        newton, self.newton = self.newton, None
        return newton

    def prove(self, iterate, asked, gap, final):
        """Put proven gaps in their places of `gap`; returns which these are.

        Before the `final` tries no proof is tried that takes as long as a step. Returned, too, is
        by which factor the decrement should fall before the next try.
        """
        objective, value = iterate.objective, iterate.evaluation.value
        proven, beyond, wanted = self.certain[self.which], TUNED.stronger, self.tol * value
        gradient = iterate.evaluation.gradient
        loose = objective.penalty.conjugate(gradient)
        if iterate.is_exact:  # intercepts are moved by the step, too
            loose = loose + slack_of_intercepts(objective, gradient)
        provable = asked[(loose <= wanted)[asked] & ~proven[asked]]
        if len(provable):
            gap[provable] = self.bound(iterate, provable)
            proven[provable] = gap[provable] <= self.tol
        if iterate.is_exact and not proven.all():
            bound = bound_of_step(iterate, wanted, final)
            known = (bound <= wanted) & ~proven
            if np.isfinite(bound).all():  # what is missing falls faster than the decrement
                beyond = min(float((bound / wanted)[0]), TUNED.stronger) ** 0.5
            gap[known], proven = relative(bound, value)[known], proven | known
        elif iterate.nearly_exact and not proven.all():
            bound = dual_bound(
                objective, iterate.evaluation, self.ahead.step, iterate.precondition, wanted
            )
            known = (bound <= wanted) & ~proven
            gap[known], proven = relative(bound, value)[known], proven | known
        return proven, beyond

    def bound(self, iterate, index):
        """Proven gaps of the problems `index`; the best lower bound of the minimum is kept."""
        k, value = self.which[index], iterate.evaluation.value[index]
        part = iterate.objective.problems(index, iterate.evaluation)
        self.raise_lower(k, lower_bound(*part, self.tol * value), value)
        return self.above_lower(k, value)

    def raise_lower(self, k, lower, value):
        """Take lower bounds of problems `k` where they are larger, and none that a value refutes.

        Intercepts have no penalty. They can be farther from the minimum than a bound assumes,
        for one where the mean of heavy-tailed features is far from most rows.
        """
        self.lower[k] = np.maximum(self.lower[k], lower)
        self.least[k] = np.minimum(self.least[k], value)
        wrong = self.lower[k] - self.least[k] > TUNED.accuracy * self.tol * self.least[k]
        self.lower[k] = np.where(wrong, -np.inf, self.lower[k])
        self.certain[k] = self.certain[k] & ~wrong

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

    def wait(self, iterate, index, factor=TUNED.stronger):
        """Ask about the problems `index` again when their decrements have fallen by a factor."""
        k, value = self.which[index], iterate.evaluation.value[index]
        own = np.maximum(iterate.decrement[index], np.finfo(float).tiny)
        self.ratio[k] = np.maximum(self.ratio[k], self.tol * value * factor / own)

    def last_word(self, iterate, exact, index, gap, proven, known):
        """Gaps of problems `index` that end in doubt: proven bounds, else thorough estimates.

        `known` says of which problems an estimate above `tol` stands where a bound is no better.
        """
        value = iterate.evaluation.value
        self.go_ahead(iterate, exact, index)
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

    def go_ahead(self, iterate, exact, index):
        """Let Newton's method bound the minimum from where problems of a small Hessian are."""
        for j in index:
            k, columns = self.which[j], iterate.objective.columns(np.array([j]))
            theta = take(iterate.evaluation.theta, columns, axis=1)
            if k in self.led and self.led[k].value[0] < iterate.evaluation.value[j]:
                theta = self.led[k].theta
            (part,) = exact.problems(np.array([j]))
            end = newton_end(part, theta, 0.1 * self.tol, min(self.max_iter, TUNED.patience))
            self.tried[k] = True
            if end is not None:
                self.ends[j] = self.led[k] = end
                self.raise_lower(k, end.lower, end.value[0])
                self.certain[k] = self.above_lower(k, end.value)[0] <= 0.1 * self.tol

    def above_lower(self, k, value):
        """The gaps of values of problems `k` above the largest lower bounds so far.

        A bound that is larger than a value shows how much rounding there is in both, see
        :meth:`raise_lower`: that much is left.
        """
        return relative(np.abs(value - self.lower[k]), value)

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
        gap[index] = np.maximum(gap, self.ahead.least_gap(eps_of(iterate.objective.rows)))[index]
        down = self.ahead.leads_down
        return {j: (*self.ahead.of(j), False) for j in index[down[index]].tolist()}

    def better_ends(self, iterate, stuck, gap, proven):
        """By problem the steps to where Newton's method has ended, of fits that are `stuck`.

        `gap` is then the proven one there.
        """
        steps = {}
        for j, end in self.ends.items():
            there = self.above_lower(self.which[j], end.value)[0]
            if stuck[j] and gap[j] > self.tol >= there:
                columns = iterate.objective.columns(np.array([j]))
                theta = take(iterate.evaluation.theta, columns, axis=1)
                gap[j], proven[j] = there, True
                steps[j] = end.theta - theta, end.value[0], True
        return steps
