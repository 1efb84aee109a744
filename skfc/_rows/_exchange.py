"""Large arrays that workers hand to one another: weights from the first worker, sums to it.

The client sends one array and gets one, however many workers there are. Both ways are the same
tree: of eight workers 0 is beside 1, 2 and 4, 2 beside 3, 4 beside 5 and 6, and 6 beside 7.
What does not arrive, since a worker is lost, is missing in the answer of the call, and the client
asks again, without exchange.
"""

import asyncio
from contextlib import contextmanager, suppress

from skfc._rows._calls import merged
from skfc._rows._parts import size_of
from skfc._tuned import TUNED

# The operation of a worker that another asks for, and the name of sums; arrays have keys.
GIVE, SUMS = "skfc_give", "sums"
# Seconds in which a call has come to all workers, or is not waited for.
LATE = 10


class Exchange:
    """What a worker of a fit has for others: futures by call and name.

    Calls have numbers that grow, and a worker performs one at a time.
    """

    def __init__(self, fit):
        self.fit, self.futures, self.begun, self.ended = fit, {}, 0, 0

    def _future(self, number, name):
        if (number, name) not in self.futures:
            self.futures[number, name] = asyncio.get_running_loop().create_future()
        return self.futures[number, name]

    @contextmanager
    def during(self, number):
        """Around a call: what is left of others is forgotten, and at the end nobody waits."""
        self.begun = max(number, self.begun)
        for before in [key for key in self.futures if key[0] < number]:
            del self.futures[before]
        try:
            yield
        finally:
            self.ended = max(number, self.ended)
            for key, future in self.futures.items():
                if key[0] == number and not future.done():
                    future.set_result(None)

    async def found(self, number, name):
        """What another worker asks for, or None."""
        if number <= self.ended and (number, name) not in self.futures:
            return None
        future = self._future(number, name)
        if number > self.begun:
            await asyncio.wait([future], timeout=LATE)
        return await future if number <= self.begun else None

    async def ask(self, worker, address, number, name):
        """What another worker has, or None."""
        with suppress(Exception):  # the client asks again
            give = getattr(worker.rpc(address), GIVE)
            return (await give(fit=self.fit, number=number, name=name))["found"]

    async def array(self, number, key, worker, order):
        """An array that was sent ahead to the first of the workers `order`, or None."""
        place = order.index(worker.address)
        if place == 0:
            array = worker.data.get(key)
        else:
            array = await self.ask(worker, order[place & (place - 1)], number, key)
        self._future(number, key).set_result(array)
        return array

    async def summed(self, number, call, done, worker, order):
        """The pairs of numbers and answers that are left for the client.

        Those of others are added to `done`, and large ones are left to the next.
        """
        if call.merge is None or not done or size_of(done[0][1]) < TUNED.small_block_bytes:
            return done
        place, step = order.index(worker.address), 1
        while not place & step and place + step < len(order):
            more = await self.ask(worker, order[place + step], number, SUMS)
            done = await asyncio.to_thread(merged, call, [*done, *(more or [])])
            step *= 2
        if place == 0:
            return done
        self._future(number, SUMS).set_result(done)
        return []
