"""What runs on the workers of a client: calls for the parts there, and the states they leave."""

import asyncio
from contextlib import suppress

from skfc._rows._calls import Sent, Store, attempt, collected, mapped
from skfc._rows._exchange import GIVE, Exchange
from skfc._runtime import computing, hold_freed_memory

# The share of a worker's memory that states may take: chunks that do not fit go to its disk.
STATES = 0.25

STORES = {}


async def serve(call, homes, dropped, fit, number, ahead, dask_worker=None):
    """Perform a call for the parts of a worker, beside its tasks; see `Client.run`.

    `homes` are lists of the numbers and keys of parts, by the addresses of workers; `ahead` are
    keys of arrays that are with the first of them. A call without `number` exchanges nothing.
    """
    places, order, store = homes[dask_worker.address], list(homes), store_of(dask_worker, fit)
    store.drop(dropped)
    store.parts = [key for _, key in places]
    if number is None:
        return await perform_here(call, places, store, dask_worker)
    exchange = store.exchange
    with exchange.during(number):
        arrays = {key: await exchange.array(number, key, dask_worker, order) for key in ahead}
        if any(array is None for array in arrays.values()):
            return []
        call = mapped(call, lambda a: arrays[a.key] if isinstance(a, Sent) else a)
        done = await perform_here(call, places, store, dask_worker)
        return await exchange.summed(number, call, done, dask_worker, order)


async def perform_here(call, places, store, worker):
    """The answers of a call for the parts of a worker, as pairs of :func:`collected`."""
    gate = asyncio.Semaphore(worker.state.nthreads)

    async def one(number, key):
        async with gate:  # as many chunks at a time as there are threads: others may be on disk
            found = number, ()
            if not call.needs_X:
                found = await asyncio.to_thread(attempt_alone, None, number, store, call)
            if not found[1]:
                with suppress(KeyError):
                    part = fetch(worker.data, key)
                    found = await asyncio.to_thread(attempt_alone, part, number, store, call)
            return found

    found = await asyncio.gather(*(one(*item) for item in places))
    return await asyncio.to_thread(collected, call, found)


def attempt_alone(*arguments):
    """:func:`attempt` in a thread of a worker, with the threads of a fit."""
    with computing():
        return attempt(*arguments)


def store_of(worker, fit):
    """The states of a fit on a worker."""
    own, address = (fit, worker.address), worker.address
    if own not in STORES:
        # Those of a client that is gone: the scheduler has let go of its parts.
        for other, store in list(STORES.items()):
            if other[1] == address and not any(key in worker.data for key in store.parts):
                del STORES[other]
        limit = memory_limit(worker)
        STORES[own] = store = Store(limit and int(limit * STATES), rests=True)
        store.exchange = Exchange(fit)
        worker.handlers[GIVE] = given_by(worker)
        hold_freed_memory(True, limit)
    return STORES[own]


def given_by(worker):
    """What another worker may ask of this one: the operation `GIVE`."""
    from distributed.protocol import to_serialize

    async def give(fit, number, name):
        store = STORES.get((fit, worker.address))
        found = store and await store.exchange.found(number, name)
        return {"found": None if found is None else to_serialize(found)}

    return give


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
