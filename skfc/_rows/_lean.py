"""Rows whose logits do not fit beside them: blocks make these anew when they need them.

What would stay with a block are logits, (K, n_rows) for every row of X. They are a function of
the weights, and so are the probabilities that are made of them. Here the weights stay.
"""

from dataclasses import dataclass, replace

from skfc import _blockwise, _gap_blockwise
from skfc._array import free_memory, itemsize, take
from skfc._rows._arrays import ArrayRows, CentredArrayRows
from skfc._rows._base import columns_of
from skfc._rows._blocks import Sums

# Logits of an iterate and of a direction, probabilities, and one more where these are made anew:
# what blocks would keep.
LOGIT_ARRAYS = 4


@dataclass(frozen=True)
class Recomputed:
    """The logits of some weights, or what functions keep of these.

    Attributes
    ----------
    terms : pairs of rows and weights theta (P, K), the logits of which are summed
    functions : of a block, each of what the one before it keeps
    """

    terms: tuple
    functions: tuple = ()

    def at(self, block, entered):
        """The array of a block; `entered` keeps what is the same for all of them."""
        total = None
        for rows, theta in self.terms:
            if id(theta) not in entered:
                entered[id(theta)] = rows._enter(theta)
            logits = rows._logits(entered[id(theta)], block)
            total = logits if total is None else total + logits
        for function in self.functions:
            (total,) = function(block, None, total)[2]
        return total

    def on(self, sample):
        """Logits of a sample of all rows, as a state of its blocks."""
        return [(self._of(sample).at(block, {}),) for block in sample._blocks]

    def _of(self, rows):
        return replace(self, terms=tuple((rows, theta) for _, theta in self.terms))

    def moved(self, direction, steps):
        """After `steps` (K,) of a direction, or step one where that is None."""
        terms = list(self.terms)
        for rows, change in direction.terms:
            if steps is not None:
                change = change * rows.xp.asarray(steps, dtype=change.dtype)
            for i, (known, theta) in enumerate(terms):
                if known is rows:
                    terms[i] = rows, theta + change
                    break
            else:
                terms.append((rows, change))
        return replace(self, terms=tuple(terms))

    def shifted(self, shift):
        """With intercepts moved by `shift` (K,)."""
        (rows, theta), *others = self.terms
        theta = theta + 0
        theta[-1, :] += rows.xp.asarray(shift, dtype=theta.dtype)
        return replace(self, terms=((rows, theta), *others))

    def keeping(self, function):
        """What a function of these keeps."""
        return replace(self, functions=(*self.functions, function))

    def problems(self, index, columns, parts):
        """Of the problems `index` alone; `parts` are the rows of these, by the id of all."""
        terms = []
        for rows, theta in self.terms:
            if id(rows) not in parts:
                (parts[id(rows)],) = rows.problems(index)
            terms.append((parts[id(rows)], take(theta, columns, axis=1)))
        return replace(self, terms=tuple(terms))


def begins(rows, theta, kept, function):
    """Logits of the weights given."""
    return (Recomputed(((rows, theta),)),)


def beside(rows, theta, kept, function):
    """Logits of an iterate and, beside them, of the direction given."""
    return kept[0], Recomputed(((rows, theta),))


def shifted(rows, theta, kept, function):
    """With intercepts moved."""
    return (kept[0].shifted(function.keywords["shift"]),)


def moved(rows, theta, kept, function):
    """After steps along a direction."""
    logits, direction = kept
    return logits.moved(direction, function.keywords["steps"]), direction


def made_later(rows, theta, kept, function):
    """What a function makes of the first of what was there."""
    return (kept[0].keeping(function),)


def first(rows, theta, kept, function):
    """The first of what was there."""
    return kept[:1]


def both(rows, theta, kept, function):
    """Logits of an iterate and of a direction, as they were."""
    return kept[:2]


# What the functions of a block leave with it, where weights stand for logits: of the rows, the
# weights given, what was there, and the function. Others leave little, and that stays as it is.
LEFT = {
    _blockwise.evaluate: begins,
    _blockwise.evaluate_shifted: shifted,
    _blockwise.step_along: beside,
    _blockwise.try_steps: both,
    _blockwise.evaluate_again: first,
    _blockwise.curve: first,
    _blockwise.curvature_diagonal: first,
    _gap_blockwise.margins: first,
    _blockwise.class_products: first,
    _gap_blockwise.divergence: first,
    _blockwise.weights_alone: first,
    _gap_blockwise.separation: first,
}
# The same of functions that do nothing else: there is nothing to run.
LATER = {
    _blockwise.move_along: moved,
    _blockwise.keep_probabilities: made_later,
    _blockwise.keep_mixture: made_later,
    _blockwise.keep_softened: made_later,
    _blockwise.curvature_weights: made_later,
}


class Lean:
    """Of rows that keep weights in the place of logits."""

    @property
    def _dense_kind(self):
        return ArrayRows

    @property
    def _centred(self):
        return CentredLeanRows

    def sum(self, function, theta=None, state=None, *, power=1, count=True):
        plain = getattr(function, "func", function)
        lean = plain is _blockwise.evaluate or (state and isinstance(state[0][0], Recomputed))
        rule = (LEFT.get(plain) or LATER.get(plain)) if lean else None
        before, entered = [()] * len(self.blocks) if state is None else state, {}

        def run(block, logits, *kept):
            made = made_of(kept, block, entered)
            values, residual, left = function(block, logits, *made)
            return values, residual, left if rule is None else ()

        sums = Sums((), None, before)
        if rule is None or plain not in LATER:
            sums = super().sum(run, theta, state, power=power, count=count)
            self.work.passes += 0.5 * self.share * len(entered)
        if rule is None:
            return sums
        return replace(sums, state=shared(before, lambda kept: rule(self, theta, kept, function)))

    def gram(self, weights):
        return super().gram(self._made(weights))

    def pair_sums(self, proba, dtype):
        return super().pair_sums(self._made(proba), dtype)

    def hessian_on(self, proba, *options):
        return super().hessian_on(self._made(proba), *options)

    def _made(self, state):
        entered = {}
        return (
            made_of(kept, block, entered) for block, kept in zip(self._blocks, state, strict=True)
        )

    def problems(self, index, *states):
        if len(index) == self.n_problems:
            return (self, *states)
        (part,) = super().problems(index)
        columns, parts = columns_of(index, self.n_classes), {id(self): part}
        return part, *(
            shared(state, lambda kept: tuple(a.problems(index, columns, parts) for a in kept))
            for state in states
        )


def shared(state, function):
    """`function` of what every block keeps, called once for those that keep the same."""
    made = {}
    for kept in state:
        key = tuple(map(id, kept))
        if key not in made:
            made[key] = function(kept)
    return [made[tuple(map(id, kept))] for kept in state]


def made_of(kept, block, entered):
    """The arrays of a block, those that are recomputed made now."""
    return tuple(a.at(block, entered) if isinstance(a, Recomputed) else a for a in kept)


class LeanRows(Lean, ArrayRows):
    """Rows of an array-API array that keep no logits."""


class CentredLeanRows(Lean, CentredArrayRows):
    """Centred rows that keep no logits."""


def logits_fit(X, n_logits):
    """Whether the logits that blocks keep take at most half of the free memory of a device."""
    room = free_memory(X)
    return room is None or 2 * n_logits * itemsize(X) <= room
