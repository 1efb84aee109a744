"""Rows in the chunks of a Dask collection: in this process, or on the workers of a client.

Functions and weights go to the chunks; sums, and samples of rows, come back. A state stays with
its chunk: here is a handle, which cannot be read. It knows the call that made it, so that a
state on a worker that is lost, or has no room, is made again.
"""

import time
from dataclasses import dataclass, replace
from itertools import count
from uuid import uuid4
from weakref import finalize

import numpy as np

from skfc import _blockwise
from skfc._array import any_nonzero, take
from skfc._moments import Moments
from skfc._pool import thread_map
from skfc._rows import _tasks
from skfc._rows._base import LocalRows, columns_of
from skfc._rows._blocks import Sizes, Sums, Work
from skfc._rows._dense import DenseRows
from skfc._rows._tasks import Call, Each, Ref, Sent, Store, View
from skfc._softmax import one_hot
from skfc._tuned import TUNED

# Trials of a call, with twice the wait after each: a lost worker is noticed in some seconds.
TRIALS = 10
WAIT = 0.05

tokens = count(1)


class State:
    """What a call leaves with the chunks. Here it can be passed on, and nothing else.

    Attributes
    ----------
    key : int
    call : the call that makes it; its arguments may hold other states
    made : whether it is there already
    logits_of : the weights (P, K) whose logits are the first array of the state, where known
    """

    def __init__(self, cluster, call, logits_of=None):
        self.key, self.call = call.key, call
        self.made, self.logits_of = False, logits_of
        finalize(self, cluster.dropped.append, self.key)

    def note(self):
        """Note that the state was made, and all that it was made of."""
        if self.made:
            return
        for argument in self.call.arguments:
            if isinstance(argument, State):
                argument.note()
        self.made, weights = True, self._weights()
        if weights is not None:
            # From now on made again by one product, whatever steps have led to it.
            self.logits_of = weights
            self.call = replace(self.call, function=_tasks.logits_at, arguments=(weights,))

    def _weights(self):
        """The weights whose logits this is, where it was made of the logits of others."""
        function, arguments = self.call.function, self.call.arguments
        if function is _tasks.cut and arguments[0].logits_of is not None:
            return take(arguments[0].logits_of, arguments[1], axis=1)
        if function is not _tasks.sum_blocks or not is_move(arguments[0]):
            return None
        _, direction, before, *_ = arguments[2].call.arguments
        steps = arguments[0].keywords["steps"]
        if before is None or before.logits_of is None:
            return None
        return before.logits_of + (direction if steps is None else direction * steps)

    def _refuse(self, *_, **__):
        raise TypeError("the state of a cluster is not on this side")

    __getitem__ = __iter__ = __len__ = __array__ = __float__ = __bool__ = __reduce__ = _refuse


def is_move(function):
    """Whether a function overwrites its state."""
    return getattr(function, "func", function) is _blockwise.move_along


def to_send(call, whole):
    """A call with references for states; with recipes where they are not made, or `whole`."""
    last = call.function is _tasks.sum_blocks and is_move(call.arguments[0])

    def reference(argument):
        if not isinstance(argument, State):
            return argument
        recipe = to_send(argument.call, whole) if whole or not argument.made else None
        return Ref(argument.key, recipe, last)

    return replace(call, arguments=tuple(map(reference, call.arguments)))


class Cluster:
    """Parts of the rows, and calls of functions of them.

    A subclass gives `_send`, which performs a call for some parts, and returns answers and
    the numbers of parts for which a state was lost.

    Attributes
    ----------
    numbers : list of the numbers of the parts
    dropped : keys of states that nobody holds any more
    received : bytes of all answers so far
    """

    on_pool = False

    def __init__(self, n_parts):
        self.numbers, self.dropped, self.received = list(range(n_parts)), [], 0

    def run(self, call):
        """The answers of a call in the order of the parts; one or a few where they merge."""
        done, left, whole = [], self.numbers, False
        for trial in range(TRIALS):
            # One by one: states are let go of at any time, in other threads too.
            dropped = {self.dropped.pop() for _ in range(len(self.dropped))}
            found, left = self._send(to_send(call, whole), left, dropped)
            done += found
            if not left:
                break
            if whole:  # a worker that is gone has not been missed yet
                time.sleep(WAIT * 2**trial)
            whole = True
        else:
            raise RuntimeError(f"parts {left} of the data are out of reach: their workers are.")
        for argument in call.arguments:
            if isinstance(argument, State):
                argument.note()
        self.received += _tasks.size_of([answer for _, answer in done])
        done = [answer for _, answer in sorted(done, key=lambda item: item[0])]
        if call.merge is None:
            return done
        total = done[0]
        for answer in done[1:]:
            total = call.merge(total, answer)
        return total

    def close(self):
        """Forget what is there."""


class Here(Cluster):
    """Parts in this process, on its pool.

    Parameters
    ----------
    parts : list of :class:`skfc._rows._tasks.Part`
    """

    on_pool = True

    def __init__(self, parts):
        super().__init__(len(parts))
        self.parts, self.store = parts, Store()

    def _send(self, call, numbers, dropped):
        self.store.drop(dropped)

        def attempt(number):
            return _tasks.attempt(self.parts[number], number, self.store, call)

        return _tasks.collected(call, thread_map(attempt, numbers))

    def close(self):
        self.store = Store()


class OnWorkers(Cluster):
    """Parts on the workers of a `distributed.Client`.

    Calls go to the workers beside their tasks, with `Client.run`: a round trip takes a few
    milliseconds, and no graph. Large arrays go ahead of it, as data of the workers, which takes a
    third of the time. The parts are futures, of which the scheduler takes care: it may
    move them, have them on disk, and make them again where a worker is lost.

    Parameters
    ----------
    client : distributed.Client
    futures : of :class:`skfc._rows._tasks.Part`
    """

    def __init__(self, client, futures):
        super().__init__(len(futures))
        self.client, self.futures, self.name = client, futures, uuid4().hex
        self.homes = None  # {number: address of its worker}

    def _find(self):
        """Wait until every part is on a worker, and note on which."""
        for number in self.numbers:
            future = self.futures[number]
            if future.status != "finished":
                self.homes = None
                error = future.exception()  # waits
                if future.status == "error":
                    error = error.with_traceback(future.traceback())
                    del future  # what is raised holds this frame, and a future holds that
                    raise error
        if self.homes is None:
            held = self.client.who_has([self.futures[number] for number in self.numbers])
            self.homes = {
                number: held[self.futures[number].key][0]
                for number in self.numbers
                if held[self.futures[number].key]
            }

    def _send(self, call, numbers, dropped):
        self._find()
        homes, lost = {}, []
        for number in numbers:
            if number in self.homes:
                place = number, self.futures[number].key
                homes.setdefault(self.homes[number], []).append(place)
            else:
                lost.append(number)
        call, held = self._sent_ahead(call, list(homes))
        found = self.client.run(
            _tasks.serve, call, homes, dropped, self.name, workers=list(homes), on_error="return"
        )
        del held
        done = []
        for address, places in homes.items():
            answer = found.get(address, OSError())
            if isinstance(answer, OSError):  # out of reach
                answer = [], [number for number, _ in places]
            elif isinstance(answer, Exception):
                raise answer
            done += answer[0]
            lost += answer[1]
        self.homes = None if lost else self.homes
        return done, lost

    def _sent_ahead(self, call, workers):
        """A call whose large arrays are with the workers already, and what keeps them there."""
        held = []

        def send(argument):
            if not isinstance(argument, np.ndarray) or argument.nbytes < TUNED.small_block_bytes:
                return argument
            options = {"workers": workers, "broadcast": True, "hash": False}
            held.append(self.client.scatter(argument, **options))
            return Sent(held[-1].key)

        try:
            return _tasks.mapped(call, send), held
        except Exception:  # a worker that is gone: the call itself finds out
            return call, held

    def close(self):
        self.client.run(_tasks.forget, self.name, on_error="ignore")
        self.futures = []


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

    def __init__(self, cluster, view, shape, *, dtype, n_problems, sparse, n_values, work=None):
        self.cluster, self.view, self.shape, self.dtype = cluster, view, shape, dtype
        self.n_classes, self.n_total = view.layout.n_classes, view.layout.n_total
        self.n_problems, self.sparse, self.n_values = n_problems, sparse, n_values
        self.frame, self.on_pool = view.frame, cluster.on_pool
        self.work = Work() if work is None else work
        self._prominence = None

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

    def _keep(self, function, *arguments, **known):
        """The state that a function of the rows leaves."""
        return State(self.cluster, Call(self.view, function, arguments, next(tokens)), **known)

    def sum(self, function, theta=None, state=None, *, power=1, count=True):
        base = getattr(function, "func", function)
        call = Call(
            self.view, _tasks.sum_blocks, (function, theta, state, power), next(tokens),
            _tasks.add_sums,
        )  # fmt: skip
        kept = State(self.cluster, call, theta if base is _blockwise.evaluate else None)
        values, gradient = (), None
        # One that leaves a state alone waits until another needs that, and goes with it.
        if base not in _tasks.ONLY_STATE:
            values, gradient = self.cluster.run(call)
            kept.note()
        if count:
            forward = theta is not None and any_nonzero(theta[: self.shape[1]])
            self.work.passes += 0.5 * (forward + (gradient is not None))
            self.work.steps += gradient is not None
        return Sums(values, gradient, kept)

    def gram(self, weights, *, pairs=False):
        assert not pairs, "those of a sample only"
        return self._ask(_tasks.ask, "gram", weights, merge=plus)

    def moments(self):
        found = self._ask(_tasks.ask, "moments", merge=Moments.__add__)
        if not self.sparse:
            return found
        # Of columns with few values, bounds are one deviation: that of all rows, not of a part.
        counts, std = self._ask(_tasks.ask, "stored_values", merge=plus), found.std.max(axis=0)
        few = (counts <= TUNED.dense_share * self.shape[0]) & (std > 0)
        low, high = np.where(few, -std, found.low), np.where(few, std, found.high)
        return replace(found, low=low, high=high)

    def loss_of(self, coef, intercept):
        return self._ask(_tasks.ask, "loss_of", coef, intercept, merge=plus)

    def hessian_on(self, proba, *coordinates):
        return self._ask(_tasks.ask, "hessian_on", proba, *coordinates, merge=plus)

    def _values(self, rows, columns):
        """Some values of X, (n_rows, n_columns)."""
        return np.concatenate(self._ask(_tasks.values_of, rows, columns))

    # -- parts ------------------------------------------------------------------------------

    def in_frame(self, frame):
        rows = self._with(frame=frame)
        rows.dtype = rows._ask(_tasks.attribute, "dtype")[0]
        return rows

    def joined(self, first, second):
        return self._keep(_tasks.joined, first, second)

    def with_prominence(self, state):
        if self._prominence is None:
            self._prominence = self._keep(_tasks.prominence)
        return self.joined(self._prominence, state)

    def problems(self, index, *states):
        if len(index) == self.n_problems:
            return (self, *states)
        before = self.view.problems
        rows = self._with(problems=np.asarray(index) if before is None else before[index])
        rows.n_problems, rows._prominence = len(index), self._prominence
        columns = columns_of(index, self.n_classes)
        return rows, *(self._keep(_tasks.cut, state, columns) for state in states)

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
        answers = self._ask(_tasks.select, importance, dtype)
        X, target, weight, index = zip(*answers, strict=True)
        if len({t.ndim for t in target}) > 1:  # labels in some parts, probabilities in others
            like = np.empty((1, self.n_classes, 0))
            target = [one_hot(t, like) for t in target]
        rows = DenseRows(
            np.concatenate(X), np.concatenate(target, axis=-1), np.concatenate(weight, axis=-1),
            n_classes=self.n_classes, frame=self.frame, standard=True, n_total=self.n_total,
            share=sum(map(len, X)) / self.n_total, work=self.work,
        )  # fmt: skip
        return DaskSample(self, rows, dict(zip(self.cluster.numbers, index, strict=True)))


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
        parts = self.source._ask(_tasks.carry, state, Each(self.index))
        logits = np.concatenate(parts, axis=-1).astype(self.rows.dtype, copy=False)
        return [(logits[..., block],) for block in self.rows.blocks]


def plus(one, other):
    """one + other"""
    return one + other
