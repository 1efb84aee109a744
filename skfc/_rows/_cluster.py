"""Where the parts of rows are, in this process or on workers of a client, and states of calls.

Functions and weights go to the parts; sums, and samples of rows, come back. A state stays with
its part: here is a handle, which cannot be read. It knows the call that made it, so that a
state on a worker that is lost, or has no room, is made again.
"""

import time
from dataclasses import replace
from itertools import count
from uuid import uuid4
from weakref import finalize

import numpy as np

from skfc import _blockwise
from skfc._array import take
from skfc._pool import thread_map
from skfc._rows import _worker
from skfc._rows._calls import (
    Ref,
    Sent,
    Store,
    attempt,
    collected,
    mapped,
    merged,
    unanswered,
)
from skfc._rows._part_functions import cut, logits_at, sum_blocks
from skfc._rows._parts import size_of
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
            self.call = replace(self.call, function=logits_at, arguments=(weights,))

    def _weights(self):
        """The weights whose logits this is, where it was made of the logits of others."""
        function, arguments = self.call.function, self.call.arguments
        if function is cut and arguments[0].logits_of is not None:
            return take(arguments[0].logits_of, arguments[1], axis=1)
        if function is not sum_blocks or not is_move(arguments[0]):
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
    last = call.function is sum_blocks and is_move(call.arguments[0])

    def reference(argument):
        if not isinstance(argument, State):
            return argument
        recipe = to_send(argument.call, whole) if whole or not argument.made else None
        return Ref(argument.key, recipe, last)

    return replace(call, arguments=tuple(map(reference, call.arguments)))


class Cluster:
    """Parts of the rows, and calls of functions of them.

    A subclass gives `_send`, which performs a call for some parts, and returns pairs of their
    numbers and answers; those of parts for which a state was lost are missing.

    Attributes
    ----------
    numbers : list of the numbers of the parts
    dropped : keys of states that nobody holds any more
    received : bytes of all answers so far
    """

    def __init__(self, n_parts):
        self.numbers, self.dropped, self.received = list(range(n_parts)), [], 0

    def run(self, call):
        """The answers of a call in the order of the parts; one or a few where they merge."""
        done, left, whole = [], self.numbers, False
        for trial in range(TRIALS):
            # One by one: states are let go of at any time, in other threads too.
            dropped = {self.dropped.pop() for _ in range(len(self.dropped))}
            found = self._send(to_send(call, whole), left, dropped, again=whole)
            done += found
            left = unanswered(left, found)
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
        self.received += size_of([answer for _, answer in done])
        done = sorted(done, key=lambda item: item[0])
        answers = [answer for _, answer in merged(call, done)]
        return answers if call.merge is None else answers[0]

    def close(self):
        """Forget what is there."""


class Here(Cluster):
    """Parts in this process, on its pool.

    Parameters
    ----------
    parts : list of :class:`skfc._rows._parts.Part`
    """

    def __init__(self, parts):
        super().__init__(len(parts))
        self.parts, self.store = parts, Store()

    def _send(self, call, numbers, dropped, again):
        self.store.drop(dropped)

        def answer(number):
            return attempt(self.parts[number], number, self.store, call)

        return collected(call, thread_map(answer, numbers))

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
    futures : of :class:`skfc._rows._parts.Part`
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

    def _send(self, call, numbers, dropped, again):
        self._find()
        homes = {}
        for number in numbers:
            if number in self.homes:
                place = number, self.futures[number].key
                homes.setdefault(self.homes[number], []).append(place)
        held = []
        if not again and homes:
            call, held = self._sent_ahead(call, next(iter(homes)))
        found = self.client.run(
            _worker.serve, call, homes, dropped, self.name, None if again else next(tokens),
            [future.key for future in held], workers=list(homes), on_error="return",
        )  # fmt: skip
        del held
        done = []
        for address in homes:
            answer = found.get(address, OSError())
            if isinstance(answer, OSError):  # out of reach
                continue
            if isinstance(answer, Exception):
                raise answer
            done += answer
        if unanswered(numbers, done):
            self.homes = None
        return done

    def _sent_ahead(self, call, worker):
        """A call whose large arrays are with a worker already, and what keeps them there."""
        held = []

        def send(argument):
            if not isinstance(argument, np.ndarray) or argument.nbytes < TUNED.small_block_bytes:
                return argument
            # A worker that pauses or closes is not waited for: the call itself finds out.
            options = {"workers": [worker], "hash": False, "timeout": 0}
            held.append(self.client.scatter(argument, **options))
            return Sent(held[-1].key)

        try:
            return mapped(call, send), held
        except Exception:  # a worker that is gone
            return call, []

    def close(self):
        self.client.run(_worker.forget, self.name, on_error="ignore")
        self.futures = []
