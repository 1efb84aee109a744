"""What runs where the chunks of a collection are: chunks become rows, and calls are performed.

Nothing here knows Dask. A :class:`Part` is a chunk with its targets and weights; a :class:`Call`
is a function of the rows of every part. What a call leaves behind stays in a :class:`Store`
beside the part, under a key, and can be made again from its recipe, which is another call.
"""

import asyncio
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import reduce
from threading import Lock

import numpy as np
from scipy import sparse

from skfc import _blockwise, _draws
from skfc._array import concatenate, take
from skfc._rows._blocks import BlockSums, add
from skfc._rows._csr import CSRRows
from skfc._rows._dense import DenseRows
from skfc._runtime import computing, hold_freed_memory

# The share of a worker's memory that states may take: chunks that do not fit go to its disk.
STATES = 0.25
# Views of one part that are held ready: of all features, and of some.
VIEWS = 3
# Functions of a block that leave a state, and give neither values nor a residual.
ONLY_STATE = {
    _blockwise.move_along, _blockwise.keep_probabilities, _blockwise.keep_mixture,
    _blockwise.curvature_weights, _blockwise.pair_weights, _blockwise.log_totals,
    _draws.row_curvature, _draws.row_weight, _draws.draw, _draws.take_all,
    _draws.times_row_weight, _draws.times,
}  # fmt: skip
# Those, and functions that give values alone: there is no product with X.
WITHOUT_X = ONLY_STATE | {
    _blockwise.try_steps, _blockwise.class_products, _blockwise.beyond, _blockwise.divergence,
    _blockwise.separation, _blockwise.share_of_new, _draws.chance, _draws.expected,
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """How parts become rows: what is known when all of them have been looked at.

    Attributes
    ----------
    n_classes, dtype, n_total : as of all rows together
    first : {number of a part: number of its first row}
    settle : function from target, labels and weights of a part to target (n_rows,) or
        (n_classes, n_rows) and weights (n_problems, n_rows); None: they are settled
    """

    n_classes: int
    dtype: np.dtype
    n_total: int
    first: dict
    settle: object = None


@dataclass(frozen=True)
class View:
    """The rows that a call sees: of some problems and features, in a frame.

    `places` are the rows that are seen, by the number of the part, or None; `n_total` is then
    what sums are divided by.
    """

    token: int
    layout: Layout
    frame: object = None
    problems: np.ndarray | None = None
    features: np.ndarray | None = None
    places: dict | None = None
    n_total: int | None = None


class Part:
    """A chunk: X, and target, labels and weights of its rows.

    Rows of a view are made when they are asked for, and are no part of what is sent or spilled.
    """

    def __init__(self, X, target, weight, labels=None):
        self.X, self.target, self.weight, self.labels = X, target, weight, labels
        self.made = {}

    def __getstate__(self):
        return vars(self) | {"made": {}}

    def __sizeof__(self):
        return size_of((self.X, self.target, self.weight))

    def rows(self, view, number):
        """The rows of a view, held ready for the next call."""
        if view is None:
            return self
        if view.token not in self.made:
            rows = self._all_rows(view.layout, number)
            if view.frame is not None:
                rows = rows.in_frame(view.frame)
            if view.problems is not None:
                (rows,) = rows.problems(view.problems)
            if view.features is not None:
                rows = rows.features(view.features)
            if view.places is not None:
                rows = rows.taken(view.places[number], view.n_total)
            while len(self.made) >= VIEWS:
                del self.made[next(iter(self.made))]
            self.made[view.token] = rows
        return self.made[view.token]

    def _all_rows(self, layout, number):
        target, weight = self.target, self.weight
        if layout.settle is not None:
            target, weight = layout.settle(target, self.labels, weight)
        kind = CSRRows if sparse.issparse(self.X) else DenseRows
        return kind(
            cast_rows(self.X, layout.dtype), target, weight, n_classes=layout.n_classes,
            n_total=layout.n_total, share=self.X.shape[0] / layout.n_total,
            first=layout.first[number],
        )  # fmt: skip


class Rest(BlockSums):
    """Rows without X: targets, weights and blocks, for sums that need no product."""

    on_pool = False

    def __init__(self, rows):
        self.n_total, self.xp, self.work = rows.n_total, rows.xp, rows.work
        self.on_pool, self.parameter_dtype = rows.on_pool, rows.parameter_dtype
        # Copies: out of a part that comes from disk, they are views of all that was read.
        self._blocks = [
            replace(block, target=block.target.copy(), weight=block.weight.copy())
            for block in rows.local_blocks
        ]
        self.blocks = rows.blocks


def cast_rows(X, dtype):
    """X in a type, itself where it has that."""
    return X if X.dtype == dtype else X.astype(dtype)


# -- calls ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ref:
    """What an earlier call has left, in the place of an argument.

    `recipe` is the call that makes it where it is not there; `last` says that it is used up.
    """

    key: int
    recipe: object = None
    last: bool = False


@dataclass(frozen=True)
class Each:
    """An argument that differs from part to part: `values` by number."""

    values: dict


@dataclass(frozen=True)
class Sent:
    """An array that is in the data of a worker, in the place of an argument."""

    key: str


@dataclass(frozen=True)
class Call:
    """`function(rows, *arguments)` gives an answer, and what stays under `key` (None: nothing).

    `merge` adds two answers; without it they are told apart by the number of their part.
    """

    view: View | None
    function: object
    arguments: tuple = ()
    key: int | None = None
    merge: object = None

    @property
    def needs_X(self):
        """Whether a part must be there, X and all."""
        if self.function in (cut, carry, joined):
            return False
        base = getattr(self.arguments[0], "func", self.arguments[0]) if self.arguments else None
        return not (
            self.function is sum_blocks and base in WITHOUT_X and self.arguments[1] is None
        )


def mapped(call, change):
    """A call with its arguments changed by a function, and those of its recipes."""

    def changed(argument):
        if isinstance(argument, Ref) and argument.recipe is not None:
            return replace(argument, recipe=mapped(argument.recipe, change))
        return change(argument)

    return replace(call, arguments=tuple(map(changed, call.arguments)))


class Lost(Exception):
    """A state is not here, and there is no recipe for it; or a part is not."""


class Store:
    """States of parts by key and number: those used last, within `limit` bytes.

    With `rests`, rows without X stay beside them, for calls that go without the part.
    """

    def __init__(self, limit=None, rests=False):
        self.limit, self.lock, self.held, self.size = limit, Lock(), OrderedDict(), 0
        self.rests = {} if rests else None  # of the last view of every part
        self.parts = ()  # the keys of those that were asked last

    def rows(self, part, number, call):
        """The rows of a call: those of a part, or without one what there is of them."""
        token = getattr(call.view, "token", None)
        if part is None:
            known, rest = self.rests.get(number, (None, None))
            if call.needs_X or known != token:
                raise Lost
            return rest
        rows = part.rows(call.view, number)
        if self.rests is None or token is None:
            return rows
        if self.rests.get(number, (None, None))[0] != token:
            self.rests[number] = token, Rest(rows)
        return rows

    def put(self, key, number, value):
        with self.lock:
            self._pop((key, number))
            self.held[key, number] = value, size_of(value)
            self.size += size_of(value)
            while self.limit and self.size > self.limit and len(self.held) > 1:
                self._pop(next(iter(self.held)))

    def get(self, key, number, last=False):
        """What was put, or None."""
        with self.lock:
            if last:
                return self._pop((key, number))
            if (key, number) not in self.held:
                return None
            self.held.move_to_end((key, number))
            return self.held[key, number][0]

    def _pop(self, place):
        value, size = self.held.pop(place, (None, 0))
        self.size -= size
        return value

    def drop(self, keys):
        """Forget some keys."""
        with self.lock:
            for place in [place for place in self.held if place[0] in keys]:
                self._pop(place)


def size_of(value):
    """Bytes of the arrays in a nested value."""
    if sparse.issparse(value):
        return size_of((value.data, value.indices, value.indptr))
    if isinstance(value, dict):
        return sum(map(size_of, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(size_of, value))
    if is_dataclass(value):
        return sum(size_of(getattr(value, f.name)) for f in fields(value))
    return getattr(value, "nbytes", 8)


def perform(part, number, store, call):
    """The answer of a call for one part, and what it leaves.

    Without the part (None), where the call needs no product with X.
    """

    def found(argument):
        if isinstance(argument, Each):
            return argument.values[number]
        if not isinstance(argument, Ref):
            return argument
        value = store.get(argument.key, number, argument.last)
        if value is None:
            if argument.recipe is None:
                raise Lost
            _, value = perform(part, number, store, argument.recipe)
        return value

    rows = store.rows(part, number, call)
    answer, kept = call.function(rows, *map(found, call.arguments))
    if call.key is not None:
        store.put(call.key, number, kept)
    return answer, kept


def attempt(part, number, store, call):
    """The number of a part and its answer in a tuple, empty where a state was lost."""
    try:
        with np.errstate(all="ignore"):
            return number, (perform(part, number, store, call)[0],)
    except Lost:
        return number, ()


def attempt_alone(*arguments):
    """:func:`attempt` in a thread of a worker, with the threads of a fit."""
    with computing():
        return attempt(*arguments)


def collected(call, found):
    """Answers by the number of their part, or of the first of them where they are merged."""
    done = sorted((number, *answer) for number, answer in found if answer)
    lost = [number for number, answer in found if not answer]
    if call.merge is not None and done:
        done = [(done[0][0], reduce(call.merge, (answer for _, answer in done)))]
    return done, lost


STORES = {}


async def serve(call, homes, dropped, fit, dask_worker=None):
    """Perform a call for the parts of a worker, beside its tasks; see `Client.run`.

    `homes` are lists of the numbers and keys of parts, by the addresses of workers.
    """
    places, store = homes[dask_worker.address], store_of(dask_worker, fit)
    store.drop(dropped)
    store.parts = [key for _, key in places]

    def found_here(argument):
        return dask_worker.data[argument.key] if isinstance(argument, Sent) else argument

    try:
        call = mapped(call, found_here)
    except KeyError:
        return [], [number for number, _ in places]
    gate = asyncio.Semaphore(dask_worker.state.nthreads)

    async def one(number, key):
        async with gate:  # as many chunks at a time as there are threads: others may be on disk
            found = number, ()
            if not call.needs_X:
                found = await asyncio.to_thread(attempt_alone, None, number, store, call)
            if not found[1]:
                with suppress(KeyError):
                    part = fetch(dask_worker.data, key)
                    found = await asyncio.to_thread(attempt_alone, part, number, store, call)
            return found

    found = await asyncio.gather(*(one(*item) for item in places))
    return collected(call, found)


def store_of(worker, fit):
    """The states of a fit on a worker."""
    own, address = (fit, worker.address), worker.address
    if own not in STORES:
        # Those of a client that is gone: the scheduler has let go of its parts.
        for other, store in list(STORES.items()):
            if other[1] == address and not any(key in worker.data for key in store.parts):
                del STORES[other]
        limit = memory_limit(worker)
        STORES[own] = Store(limit and int(limit * STATES), rests=True)
        hold_freed_memory(True, limit)
    return STORES[own]


def memory_limit(worker):
    """Bytes that a worker may take, or None."""
    return getattr(worker.memory_manager, "memory_limit", None)


def fetch(data, key):
    """A part out of the data of a worker; one that is on disk stays there, for the next pass too.

    Every pass reads all parts: with the one read last in memory, the next would never be.
    """
    disk = getattr(data, "disk", ())
    return disk[key] if key in disk else data[key]


def forget(fit, dask_worker=None):
    """Forget the states of a fit."""
    STORES.pop((fit, dask_worker.address), None)
    hold_freed_memory(bool(STORES), memory_limit(dask_worker))


# -- functions of rows, for calls: answer, and what stays -----------------------------------------


def sum_blocks(rows, function, theta, state, power):
    """The values and the gradient of a sum; its state stays."""
    sums = rows.sum(function, theta, state, power=power, count=False)
    return (sums.values, sums.gradient), sums.state


def add_sums(one, other):
    """Two answers of :func:`sum_blocks` together."""
    gradient = None if one[1] is None else one[1] + other[1]
    return add(one[0], other[0]), gradient


def ask(rows, method, *arguments):
    """The answer of a method."""
    return getattr(rows, method)(*arguments), None


def attribute(rows, name):
    """An attribute."""
    return getattr(rows, name), None


def logits_at(rows, theta):
    """The logits at weights stay."""
    return None, rows.sum(look_at, theta, count=False).state


def look_at(block, logits):
    """Keep the logits."""
    return (), None, (logits,)


def prominence(rows):
    """The prominence of the rows stays."""
    return None, rows.with_prominence([()] * len(rows.blocks))


def joined(rows, first, second):
    """Two states stay as one."""
    return None, [(*a, *b) for a, b in zip(first, second, strict=True)]


def cut(rows, state, columns):
    """A state of some problems, whose columns are given."""
    return None, [tuple(take(a, columns) for a in kept) for kept in state]


def select(rows, importance, dtype):
    """The rows of a sample, and their places by block."""
    sample = rows.select(importance, dtype)
    return (sample.rows.X, sample.rows.target, sample.rows.weight, sample.index), None


def carry(rows, state, index):
    """The logits of the rows of a sample, out of those of all."""
    logits = [take(kept[0], i, axis=-1) for kept, i in zip(state, index, strict=True)]
    return concatenate(logits, axis=-1), None


def values_of(rows, index, columns):
    """Some values of X; `index` are numbers among all rows."""
    index = index[(index >= rows.first) & (index < rows.first + rows.shape[0])]
    return rows._values(index - rows.first, columns), None
