"""
Loading the queues of a store when a server starts, or a node of a cluster begins to lead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from darner.queues.expiry import Expiry
from darner.queues.fifo import Fifo
from darner.queues.reclaiming import Reclaimer
from darner.store.interfaces import IStore
from darner.values.items import QueueState


def load(
    store: IStore, make: Callable[[QueueState], Fifo], expiry: Expiry, reclaimer: Reclaimer
) -> Iterator[None]:
    """
    Load all queues, one in each step.

    None begins to work before all are there: an item that moves to a queue that is not loaded yet would make a second
    queue of that name.  Those that have more to do than to look for expired items begin with the last step.

    @param make: makes a queue.
    @raise darner.errors.StoreError: the store cannot be read.
    """
    busy: list[tuple[Fifo, QueueState]] = []
    with expiry.held():
        for state in store.recover():
            fifo = make(state)
            if state.busy:
                busy.append((fifo, state))
            else:
                fifo.wake(state)
            yield
        for fifo, state in busy:
            fifo.wake(state)
            if state.unreclaimed:
                reclaimer.reclaim(fifo, state.number, list(state.consumed.intervals()))
    reclaimer.start()
