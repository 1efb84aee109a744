"""Large sums, added up from worker to worker: the client gets one, however many workers there are.

Each worker adds the sums of up to log2 n others to its own, and leaves the result to the next:
of eight workers 0 takes those of 1, 2 and 4, and 2 that of 3. What does not arrive, since a worker
is lost, is missing among the numbers of the answer, and the client asks again.
"""

import asyncio
from contextlib import asynccontextmanager, suppress

from skfc._rows._calls import merged
from skfc._rows._parts import size_of
from skfc._tuned import TUNED

# The operation of a worker that another asks for.
GIVE = "skfc_give"
# Seconds in which a call has come to all workers, or is not waited for.
LATE = 10


class Sums:
    """What a worker has of large sums, for others to take: futures by ticket.

    The tickets of a fit grow from call to call.
    """

    def __init__(self, fit):
        self.fit, self.futures, self.begun = fit, {}, 0

    def _future(self, ticket):
        if ticket not in self.futures:
            self.futures[ticket] = asyncio.get_running_loop().create_future()
        return self.futures[ticket]

    async def taken(self, ticket):
        """The pairs of numbers and answers of a ticket, for another worker."""
        from distributed.protocol import to_serialize

        future = self._future(ticket)
        if ticket > self.begun:
            await asyncio.wait([future], timeout=LATE)
        done = await future if ticket <= self.begun else []
        self.futures.pop(ticket, None)
        return {"done": to_serialize(done)}

    @asynccontextmanager
    async def of(self, ticket):
        """Around a call: a function that leaves its answers to others, or gives them back."""
        self.begun = ticket
        for before in [t for t in self.futures if t < ticket]:
            del self.futures[before]
        future = self._future(ticket)
        try:
            yield lambda *arguments: self.give(future, ticket, *arguments)
        finally:  # whoever waits is told
            if not future.done():
                future.set_result([])

    async def give(self, future, ticket, call, done, worker, order):
        """Leave answers in a future for the next of the workers `order`, or give them back."""
        if not done or size_of(done[0][1]) < TUNED.small_block_bytes:
            return done
        place, step = order.index(worker.address), 1
        while place % (2 * step) == 0 and place + step < len(order):
            with suppress(Exception):  # what does not arrive is asked for again
                ask = getattr(worker.rpc(order[place + step]), GIVE)
                more = await ask(fit=self.fit, ticket=ticket) or {"done": []}
                done = await asyncio.to_thread(merged, call, [*done, *more["done"]])
            step *= 2
        if place == 0:
            return done
        future.set_result(done)
        return []
