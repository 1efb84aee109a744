r"""Softmax regression of a stream of rows: every row is read once.

The objective is that of a fit of all rows seen so far,

    F(theta) = Σ_past rows  expansion of loss_i  +  Σ_window  loss_i(theta)  +  penalty,

of which past rows are known by the sum of their second-order expansions (`_past`), and the
rows of a window as they are (`_window`). A few Newton steps minimise it when the rows that
have come since the last time are a share of all, and rows drawn by chance then leave the
window. Up to its size the fit is exact. Where classes come after rows have left, rows that are
held stand for these (`_stand_ins`).

A row expanded where the model knows it by heart, with p next to y, is forgotten. Where rows
were much more surprising when they came than they are after the steps, beyond what other
shares of the classes explain, the model overfits, and a ridge in units of the features'
standard deviations grows; elsewhere it shrinks.
"""

from copy import copy
from dataclasses import replace
from functools import partial

import numpy as np
from scipy.special import logsumexp

from skfc._blockwise import evaluate, keep_softened, surprise
from skfc._conjugate_gradients import newton_step
from skfc._hessian import HessianOperator
from skfc._objective import Objective
from skfc._past import FullCurvature, Past, choose_curvature
from skfc._stand_ins import with_stand_ins
from skfc._tuned import TUNED
from skfc._window import PIECES, Chunk, Window, wanted_order
from skfc.solvers._line_search import search


class Stream:
    """What is known of the rows seen so far. Updates give a new stream; arrays are shared.

    Parameters
    ----------
    rows : the first rows, validated (n, n_features), dense or CSR
    n_classes : int
    fit_intercept : bool

    Attributes
    ----------
    window : Window
    theta : (P, n_active), of features less the `shift` of the window, the intercept last
    active : (n_active,) indices of the classes with weight
    totals, known : (n_classes,) weights of the classes: of all rows, and up to the last steps
    seen, pending : numbers of rows: all, and those since the last steps
    n_steps : int, the Newton steps taken
    n_settled : int, how often there were any
    ridge, ridged : the ridge of the next steps, in rows, and whether the last had one
    approximate : whether rows have left the window
    rank : (n_classes,) the places of the active classes in the order in which they came
    left : {number of active classes: (n_classes,) weights of rows that left then, by class}
    penalty : strength of that of a coefficient, and whether in units of standard deviations
    dtype : that of coefficients, the widest of the rows
    """

    def __init__(self, rows, n_classes, fit_intercept):
        self.n_classes, self.fit_intercept, self.dtype = n_classes, fit_intercept, rows.dtype
        self.window = Window.begin(rows, n_classes, fit_intercept)
        self.active = np.zeros(0, dtype=np.intp)
        self.theta = self.gradient = np.zeros((rows.shape[1] + fit_intercept, 0))
        self.value, self.curvature = 0.0, None
        self.moments = self.inverse = None
        self.totals = self.known = np.zeros(n_classes)
        self.rank, self.left = np.zeros(n_classes, dtype=np.intp), {}
        self.seen = self.pending = self.n_steps = self.n_settled = 0
        self.ridge, self.ridged, self.approximate = 1.0, False, False
        self.penalty = 1.0, False

    @property
    def total(self):
        """The weight of all rows."""
        return float(self.totals.sum())

    # -- what comes in --------------------------------------------------------------------------

    def widened(self, place, n_classes):
        """This stream among more classes, where the present ones stand at `place`."""
        new = copy(self)
        new.n_classes, new.active = n_classes, place[self.active]
        new.window = self.window.widened(place, n_classes)

        def wide(values):
            among = np.zeros(n_classes, dtype=values.dtype)
            among[place] = values
            return among

        new.totals, new.known, new.rank = map(wide, (self.totals, self.known, self.rank))
        new.left = {count: wide(weight) for count, weight in self.left.items()}
        return new

    def with_rows(self, rows, target, weight, sample_weight, penalty):
        """This stream and more rows, under a `penalty`."""
        new = copy(self)
        new.penalty, new.dtype = penalty, np.result_type(self.dtype, rows.dtype)
        for piece in new.window.pieces(rows):
            held = new.window.held(rows[piece])
            new._take_in(Chunk(held, target[..., piece], weight[piece], sample_weight[piece]))
        return new

    def _take_in(self, chunk):
        """Take rows in, and steps where enough of them have come."""
        wider = self.window.plus(chunk)
        capacity = wider.capacity()
        largest = max(1, capacity // PIECES)
        if len(wider) > capacity:
            self._let_go(capacity - largest)
        totals = chunk.class_totals(self.n_classes)
        new_class = self._activate(np.union1d(self.active, np.flatnonzero(totals)), totals)
        self.window = self.window.plus(chunk)
        self.seen, self.pending = self.seen + len(chunk), self.pending + len(chunk)
        self.totals = self.totals + totals
        if new_class or self.pending >= min(largest, self.seen // TUNED.batch_share + 1):
            self._settle()

    def _activate(self, active, totals):
        """Make room for the classes `active`; returns whether there are new ones.

        `totals` (n_classes,) are the weights of the classes in the rows that come.
        """
        if len(active) == len(self.active):
            return False
        new = ~np.isin(active, self.active)
        place, (P, _) = np.searchsorted(active, self.active), self.theta.shape
        wide = np.zeros((2, P, len(active)))
        wide[:, :, place] = self.theta, self.gradient
        self.theta, self.gradient = wide
        kind = choose_curvature(P, len(active))
        if self.curvature is None or not len(self.active):
            self.curvature = kind.zero(P, len(active))
        else:
            self.curvature = self.curvature.widened(place, len(active))
        self.rank = self.rank.copy()
        self.rank[active[new]] = np.arange(len(self.active), len(active))
        self.active, self.inverse = active, None
        if self.fit_intercept and len(place) and len(self.window):
            self._introduce(new, totals[active[new]])
        return True

    def _introduce(self, new, weight):
        """The classes `new` (a mask) begin with their share of all rows, `weight`."""
        chunk = self.held()
        Z = (chunk.rows @ self.theta[:, ~new]).T
        typical = logsumexp(-logsumexp(Z, axis=0), b=chunk.weight / chunk.weight.sum())
        self.theta[-1, new] = np.log(weight / (self.total + weight.sum())) - typical
        self.theta -= self.theta.mean(axis=1, keepdims=True)

    # -- the objective --------------------------------------------------------------------------

    def _surprise(self, chunk, theta=None, shift=0.0):
        """The sum of the losses of rows, each no more than twice that of knowing nothing."""
        theta = self.theta if theta is None else theta
        function = partial(surprise, most=2 * np.log(len(self.active)), shift=shift)
        return float(chunk.among(self.active).sum(function, theta).values[0][0])

    def _unite(self):
        """Make the window one chunk; returns that and the rows of it that the steps wait for."""
        chunk = self.held()
        self.window = self.window.holding(chunk)
        latest = chunk.take(slice(len(chunk) - self.pending, None))
        if self.pending:
            found = latest.moments(self.window.n_features)
            self.moments = found if self.moments is None else self.moments + found
        return chunk, latest

    def _settle(self):
        """Newton steps, and the ridge."""
        chunk, latest = self._unite()
        self.window = self.window.within(self.moments)
        if len(self.active) > 1:
            self._learn(chunk, latest)
        self.pending, self.n_settled, self.known = 0, self.n_settled + 1, self.totals

    def _learn(self, chunk, latest):
        """Newton steps, and the ridge, which is left out where `latest` rows lose by it.

        Where some are of a class of which nothing was known, they tell nothing of the ridge.
        """
        totals, known = self.totals[self.active], self.known[self.active]
        adapts = bool((known > 0).all())
        if adapts:
            # Classes may come in other shares than before; what that alone costs is left out.
            share = totals - known + len(totals) / self.seen * totals
            was = self.theta, self.value, self.gradient
            before = self._surprise(latest, shift=np.log(share / known))
        self._minimise(chunk, self._penalties())
        if adapts:
            after = self._surprise(latest, shift=np.log(share / totals))
            if self.ridge > 0.0 and after > before:
                self.theta, self.value, self.gradient = was
                self.ridge, self.inverse = 0.0, None
                self._minimise(chunk, self._penalties())
                after = self._surprise(latest, shift=np.log(share / totals))
        self.ridged = self.ridge > 0.0
        if adapts:
            self._adapt(latest, before, after)

    def _penalties(self):
        """The penalty of every parameter, (P,), and which may be other than zero."""
        strength, standardize = self.penalty
        m = self.moments
        squares = m.std[0] ** 2
        unit = self.total / self.seen  # the ridge is that many rows, of mean weight
        spread = squares if self.fit_intercept else squares + m.mean[0] ** 2
        least = np.finfo(float).eps * self.total  # beside the curvature, no more than rounding
        ridge = self.ridge * unit + least
        of_coef = strength * (squares if standardize else 1.0) + ridge * spread
        free = m.varies if self.fit_intercept else (m.low != 0) | (m.high != 0)
        of_intercept = np.full(int(self.fit_intercept), least)
        everywhere = np.ones(len(of_intercept), dtype=bool)
        return np.concatenate([of_coef, of_intercept]), np.concatenate([free, everywhere])

    def _minimise(self, chunk, penalties, *, accuracy=TUNED.accuracy, least=1):
        """Newton steps on F, of `least` products and more, until they promise little."""
        ridge, free = penalties
        past = Past(self.value, self.gradient, self.curvature, self.theta, ridge)
        little, rows = accuracy**2 * chunk.weight.sum(), self._standing(chunk, self.theta)
        objective = Objective(rows.among(self.active), past)
        evaluation = objective.at(self.theta)
        for _ in range(TUNED.most_steps):
            second = replace(objective, penalty=past.quadratic)
            proba = softened(objective.rows, evaluation.state)
            self._refresh(rows, joined_columns(proba), ridge, free)
            found = newton_step(
                objective, HessianOperator(second, objective.rows, proba), evaluation.gradient,
                self.inverse[0], share=TUNED.share_to_come, least=least, most=TUNED.most_steps,
            )  # fmt: skip
            line = objective.line(evaluation, -found.step)
            t = search(line, TUNED.wolfe_newton)
            evaluation = line.move(t)
            self.n_steps += 1
            usual = self._surprise(chunk, evaluation.theta) + max(self.value, 0.0)
            if found.decrement[0] <= accuracy * usual + little or t[0] == 0:
                break
            if rows is not chunk:
                rows = self._standing(chunk, evaluation.theta)
                objective = Objective(rows.among(self.active), past)
                evaluation = objective.at(evaluation.theta)
        self.theta = evaluation.theta
        self.value, self.gradient = past.of_rows(self.theta)

    def _standing(self, chunk, theta):
        """The rows of the window, which stand for those that left before later classes came."""
        return with_stand_ins(chunk, self.active, self.rank[self.active], self.left, theta)

    def _refresh(self, chunk, proba, ridge, free):
        """Form the preconditioner again where the rows or the ridge have grown."""
        if self.inverse is not None:
            _, seen, was, freed = self.inverse
            low, high = np.sort([was, self.ridge])
            alike = high <= TUNED.stronger * max(low, 1.0) and (free == freed).all()
            if self.seen < TUNED.stream_refresh * seen and alike:
                return
        inverse = self.curvature.inverse(chunk.rows, proba, chunk.weight, ridge, free)
        self.inverse = inverse, self.seen, self.ridge, free

    def _adapt(self, latest, before, after):
        """A larger ridge where the latest rows show that the model overfits.

        Rows that surprised much more `before` the steps than `after` them ask for it; rows that
        did not surprise more, for less. Between, the ridge stays.
        """
        if before > TUNED.stream_overfit * after:
            self.ridge = max(2.0 * self.ridge, 1.0)
        elif before < TUNED.stream_overfit**0.5 * after:
            self.ridge = self.ridge / 2 if self.ridge > 1.0 else 0.0

    def _let_go(self, size):
        """Rows leave the window until `size` are left; their expansions stay."""
        if self.pending:
            self._settle()
        chunk = self.held()
        if len(chunk) <= size:  # the rows to come are larger
            return
        self.approximate = True
        order = wanted_order(chunk, self.window.n_features, self.moments, seed=self.seen)
        leaving = chunk.take(np.sort(order[size:]))
        self.window = self.window.holding(chunk.take(np.sort(order[:size])))
        among = len(self.active)
        left = np.bincount(leaving.classes, weights=leaving.weight, minlength=self.n_classes)
        self.left = {**self.left, among: self.left.get(among, 0.0) + left}
        if among < 2:
            return
        rows = leaving.among(self.active)
        sums = rows.sum(evaluate, self.theta)
        proba = joined_columns(softened(rows, sums.state))
        self.value += float(sums.values[0][0])
        self.gradient = self.gradient + sums.gradient
        self.curvature = self.curvature.plus(leaving.rows, proba, leaving.weight)

    # -- what comes out -------------------------------------------------------------------------

    def held(self):
        """The rows of the window, one chunk."""
        return self.window.chunk

    def learned(self):
        """This stream after steps on all of its rows, without a ridge.

        Where steps are cheap they end close to the minimum: along the axis of a heavy tail a few
        rows decide, and a percent of all losses is much of theirs.
        """
        new = copy(self)
        if len(new.active) < 2:
            return new
        chunk, latest = new._unite()
        cheap = isinstance(new.curvature, FullCurvature)
        if cheap or new.ridge > 0.0:
            new.ridge, new.inverse = 0.0, None
        if cheap or new.ridged or len(latest):
            close = {"accuracy": TUNED.accuracy**3, "least": TUNED.decided_steps} if cheap else {}
            new._minimise(chunk, new._penalties(), **close)
        return new

    def coefficients(self):
        """Coefficients (n_active, n_features) and intercepts, of features less the `shift`."""
        N = self.window.n_features
        W = self.theta[:N].T
        return W, self.theta[N] if self.fit_intercept else np.zeros(len(W))


def logits_of(rows, theta):
    """Logits of rows, as a state."""
    return rows.sum(evaluate, theta).state


def softened(rows, logits):
    """Probabilities for curvature, as a state; see :func:`skfc._blockwise.keep_softened`."""
    return rows.sum(keep_softened, state=logits).state


def joined_columns(proba):
    """A state of arrays (n_classes, n_rows of a block) as one array."""
    return proba[0][0] if len(proba) == 1 else np.concatenate([p for (p,) in proba], axis=1)
