"""Rows in the parts of a cluster: the operations of rows as calls of functions of the parts."""

from dataclasses import dataclass, replace

import numpy as np

from skfc import _blockwise
from skfc._array import any_nonzero
from skfc._moments import Moments
from skfc._rows import _part_functions
from skfc._rows._base import LocalRows, columns_of
from skfc._rows._blocks import Sizes, Sums, Work
from skfc._rows._calls import Call, Each
from skfc._rows._cluster import State, tokens
from skfc._rows._dense import DenseRows
from skfc._rows._parts import View
from skfc._softmax import one_hot
from skfc._tuned import TUNED


class DaskRows(Sizes):
    """Rows in the parts of a cluster; see :class:`skfc._rows.LocalRows`.

    Parameters
    ----------
    cluster : Cluster
    view : what the parts show
    shape : of all rows
    n_values : the numbers that a product with X reads
    """

    xp, parameter_dtype = np, np.float64
    typical = LocalRows.typical  # by values of a few rows
    on_pool = True  # what is computed here: samples, factors

    def __init__(self, cluster, view, shape, *, dtype, n_problems, sparse, n_values, work=None):
        self.cluster, self.view, self.shape, self.dtype = cluster, view, shape, dtype
        self.n_classes, self.n_total = view.layout.n_classes, view.layout.n_total
        self.n_problems, self.sparse, self.n_values = n_problems, sparse, n_values
        self.frame = view.frame
        self.work = Work() if work is None else work
        self._prominence, self._drawn = None, Drawn()

    @classmethod
    def of(cls, cluster, layout, shape, *, n_problems=1, sparse=False, n_values=None):
        """The rows of the parts as a layout makes them."""
        return cls(
            cluster, View(next(tokens), layout), shape, dtype=np.dtype(layout.dtype),
            n_problems=n_problems, sparse=sparse,
            n_values=shape[0] * shape[1] if n_values is None else n_values,
        )  # fmt: skip

    def _with(self, **changes):
        """The same rows in another view."""
        view = replace(self.view, token=next(tokens), **changes)
        kept = {name: getattr(self, name) for name in ("dtype", "n_problems", "sparse")}
        n_values, shape = self.n_values, self.shape
        if "features" in changes:
            shape = self.shape[0], len(view.features)
            n_values = self.n_values * shape[1] // max(self.shape[1], 1)
        return DaskRows(self.cluster, view, shape, n_values=n_values, work=self.work, **kept)

    # -- calls ------------------------------------------------------------------------------

    def _ask(self, function, *arguments, merge=None):
        """The answers of a function of the rows."""
        return self.cluster.run(Call(self.view, function, arguments, None, merge))

    def _symmetric(self, method, *arguments):
        """The sum of the symmetric matrices that a method gives."""
        half = self._ask(_part_functions.ask_half, method, *arguments, merge=plus)
        return _part_functions.whole(half)

    def _keep(self, function, *arguments, **known):
        """The state that a function of the rows leaves."""
        return State(self.cluster, Call(self.view, function, arguments, next(tokens)), **known)

    def sum(self, function, theta=None, state=None, *, power=1, count=True):
        base = getattr(function, "func", function)
        # A recipe may be needed when the caller has used the array for something else.
        theta = None if theta is None else np.array(theta)
        call = Call(
            self.view, _part_functions.sum_blocks, (function, theta, state, power), next(tokens),
            _part_functions.add_sums,
        )  # fmt: skip
        kept = State(self.cluster, call, theta if base is _blockwise.evaluate else None)
        values, gradient = (), None
        # One that leaves a state alone waits until another needs that, and goes with it.
        if base not in _part_functions.ONLY_STATE:
            values, gradient = self.cluster.run(call)
            kept.note()
        if count:
            forward = theta is not None and any_nonzero(theta[: self.shape[1]])
            self.work.passes += 0.5 * (forward + (gradient is not None))
            self.work.steps += gradient is not None
        return Sums(values, gradient, kept)

    def gram(self, weights):
        return self._symmetric("gram", weights)

    def pair_sums(self, proba, dtype):
        return self._symmetric("pair_sums", proba, dtype)

    def second_moments(self, dtype):
        return self._symmetric("second_moments", dtype)

    def row_forms(self, forms):
        return self._keep(_part_functions.row_forms, forms)

    def largest(self, state):
        return self._ask(_part_functions.ask, "largest", state, merge=max)

    def moments(self):
        found = self._ask(_part_functions.ask, "moments", merge=Moments.__add__)
        if not self.sparse:
            return found
        # Of columns with few values, bounds are one deviation: that of all rows, not of a part.
        counts, std = (
            self._ask(_part_functions.ask, "stored_values", merge=plus),
            found.std.max(axis=0),
        )
        few = (counts <= TUNED.dense_share * self.shape[0]) & (std > 0)
        low, high = np.where(few, -std, found.low), np.where(few, std, found.high)
        return replace(found, low=low, high=high)

    def loss_of(self, coef, intercept):
        return self._ask(_part_functions.ask, "loss_of", coef, intercept, merge=plus)

    def hessian_on(self, proba, *coordinates):
        return self._symmetric("hessian_on", proba, *coordinates)

    def _values(self, rows, columns):
        """Some values of X, (n_rows, n_columns)."""
        return np.concatenate(self._ask(_part_functions.values_of, rows, columns))

    # -- parts ------------------------------------------------------------------------------

    def in_frame(self, frame):
        rows = self._with(frame=frame)
        rows.dtype = rows._ask(_part_functions.attribute, "dtype")[0]
        return rows

    def joined(self, first, second):
        return self._keep(_part_functions.joined, first, second)

    def with_prominence(self, state):
        if self._prominence is None:
            self._prominence = self._keep(_part_functions.prominence)
        return self.joined(self._prominence, state)

    def problems(self, index, *states):
        if len(index) == self.n_problems:
            return (self, *states)
        before = self.view.problems
        rows = self._with(problems=np.asarray(index) if before is None else before[index])
        rows.n_problems, rows._prominence = len(index), self._prominence
        rows._drawn = self._drawn
        columns = columns_of(index, self.n_classes)
        return rows, *(self._keep(_part_functions.cut, state, columns) for state in states)

    def features(self, index):
        before = self.view.features
        return self._with(features=np.asarray(index) if before is None else before[index])

    def batches(self, size, rng):
        """All rows in random order, in batches of about `size`, which give means over them."""
        n, first = self.shape[0], self.view.layout.first
        ends = [*(first[number] for number in self.cluster.numbers[1:]), n]
        for index in np.array_split(rng.permutation(n), max(1, round(n / size))):
            index = np.sort(index)
            places = {
                number: index[(index >= first[number]) & (index < end)] - first[number]
                for number, end in zip(self.cluster.numbers, ends, strict=True)
            }
            part = self._with(places=places, n_total=len(index))
            part.shape, part.n_total = (len(index), self.shape[1]), len(index)
            yield part

    def single(self):
        """None: there is no copy in single precision."""
        return None

    def select(self, importance, dtype):
        held = self._drawn.held(dtype)
        answers = self._ask(_part_functions.select, importance, dtype, held)
        numbers, X, target, weight, index = zip(*answers, strict=True)
        X = self._drawn.complete(np.concatenate(numbers), np.concatenate(X))
        if len({t.ndim for t in target}) > 1:  # labels in some parts, probabilities in others
            like = np.empty((1, self.n_classes, 0))
            target = [one_hot(t, like) for t in target]
        rows = DenseRows(
            X, np.concatenate(target, axis=-1), np.concatenate(weight, axis=-1),
            n_classes=self.n_classes, frame=self.frame, standard=True, n_total=self.n_total,
            share=len(X) / self.n_total, work=self.work,
        )  # fmt: skip
        return DaskSample(self, rows, dict(zip(self.cluster.numbers, index, strict=True)))


class Drawn:
    """X of the rows that were drawn last.

    The random numbers of the rows stay, so that most of them are drawn the next time, too. Those
    need not come here again.
    """

    def __init__(self):
        self.numbers, self.X = np.empty(0, dtype=int), np.empty((0, 0))

    def held(self, dtype):
        """The numbers of the rows that are here in a type."""
        return self.numbers if self.X.dtype == dtype else self.numbers[:0]

    def complete(self, numbers, new):
        """X of the rows `numbers`, of which the `new` ones have come; they are kept."""
        here = np.isin(numbers, self.held(new.dtype))
        X = np.empty((len(numbers), new.shape[1]), dtype=new.dtype)
        X[~here] = new
        if here.any():
            X[here] = self.X[np.searchsorted(self.numbers, numbers[here])]
        self.numbers, self.X = numbers, X
        return X


@dataclass(frozen=True)
class DaskSample:
    """Rows of a sample, which are here, and where they were, by part and block."""

    source: DaskRows
    rows: DenseRows
    index: dict

    def problems(self, index):
        """The sample of the problems `index` alone."""
        source, rows = self.source.problems(index)[0], self.rows.problems(index)[0]
        return DaskSample(source, rows, self.index)

    def carry(self, state):
        """The logits of these rows, out of those of all, which are the first array of a state."""
        parts = self.source._ask(_part_functions.carry, state, Each(self.index))
        logits = np.concatenate(parts, axis=-1).astype(self.rows.dtype, copy=False)
        return [(logits[..., block],) for block in self.rows.blocks]


def plus(one, other):
    """one + other"""
    return one + other
