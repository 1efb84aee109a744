"""Calls of functions of the rows of parts, and how they are performed where the parts are.

Nothing here knows Dask. What a call leaves behind stays in a :class:`Store` beside the part, under
a key, and can be made again from its recipe, which is another call.
"""

from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import reduce
from threading import Lock

import numpy as np

from skfc._rows._part_functions import WITHOUT_X, carry, cut, joined, sum_blocks
from skfc._rows._parts import Rest, View, size_of


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
        self.exchange = None  # with other workers

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


def collected(call, found):
    """Pairs of the numbers of parts and their answer, one pair where the answers merge.

    Parts that have lost a state have none.
    """
    return merged(call, [([number], *answer) for number, answer in found if answer])


def merged(call, done):
    """Pairs as of :func:`collected`, put together as far as they are."""
    if call.merge is None or not done:
        return done
    numbers = [number for some, _ in done for number in some]
    return [(numbers, reduce(call.merge, (answer for _, answer in done)))]


def unanswered(numbers, done):
    """Which of the numbers are missing among pairs of :func:`collected`."""
    answered = {number for some, _ in done for number in some}
    return [number for number in numbers if number not in answered]
