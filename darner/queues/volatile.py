"""
Queues that are not durable: they are kept in memory, and gone when the process ends.

They are the same queues as those on disk (`darner.queues.fifo`), with a window that holds all of their items.  What
they would write goes to a store in memory, which has no need of items.

Payloads that are too large for memory go to disk as those of other queues do.  There no item holds them, so that the
next process gives up what this one leaves; as long as this one runs, its reclaimer is told who has them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Final, Optional

from darner.queues.commit import GroupCommit
from darner.queues.head import MemoryBudget
from darner.queues.interfaces import Reclaims
from darner.store.batch import VolatileBatch
from darner.store.memory import MemoryStore
from darner.values.consumed import Consumed
from darner.values.items import Item

FIRST_NUMBER: Final = 1 << 61
"""Of a queue in memory; a store on disk gives numbers from 0 on."""




class VolatileStore(MemoryStore):
    """
    What queues in memory keep beside their items.

    Its numbers are far above those on disk: so one queue may be here and there in turn.

    @ivar room: for the windows of these queues; it has no limit, as they let go of nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.room = MemoryBudget(sys.maxsize)

    def new_number(self) -> int:
        return FIRST_NUMBER + super().new_number()

    def batch(self) -> VolatileBatch:
        return VolatileBatch()

    def read(self, number: int, start: int, stop: int, max_bytes: int) -> list[Item]:
        return []

    def give_up(self, number: int) -> None:
        """Forget what was kept under a number."""
        next_id: Optional[int] = 0
        while next_id is not None:
            step = self.reclaim_queue(number, next_id, sys.maxsize)
            next_id = step.next_id
            self.unheld.difference_update(step.streams)  # they are the other store's to give up


class Volatile:
    """
    Of one queue, what is only there while it is in memory.

    What a turn changes in the store waits for the end of that turn, so that it can be refused with the rest.
    """

    def __init__(self, store: VolatileStore, commit: GroupCommit, reclaimer: Reclaims) -> None:
        self.store = store
        self._commit = commit
        self._reclaimer = reclaimer
        self._streams: dict[int, int] = {}
        self._delayed: dict[int, dict[int, int]] = {}
        self._discards: list[int] = []
        self._batch: Optional[VolatileBatch] = None
        self._handed_discards = 0

    def discard(self, numbers: Iterable[int]) -> None:
        """Nothing is kept under these numbers any more."""
        self._discards += numbers

    def batch(self) -> VolatileBatch:
        """@return: what this turn changes; made by L{written}."""
        self._batch = self.store.batch()
        for number in self._discards:
            self._batch.discard(number)
        self._handed_discards = len(self._discards)
        return self._batch

    def written(self) -> None:
        """The turn is at its end."""
        if self._batch is not None and not self._batch.empty:
            self.store.write(self._batch)
            for number in self._discards[: self._handed_discards]:
                self.store.give_up(number)
            del self._discards[: self._handed_discards]
        self._batch = None

    def not_written(self) -> None:
        """Nothing of it holds; the queue says anew what still does."""
        self._batch = None

    # The streams of large items

    def pin(self, id: int, stream: int) -> None:
        """An item of the queue has this stream."""
        self._reclaimer.pin(stream)
        self._streams[id] = stream

    def consumed(self, consumed: Consumed, id: int) -> None:
        """This item is consumed, unless that cannot be written."""
        if id in self._streams:
            self._unpin_consumed(consumed, [id])

    def flushed(self, consumed: Consumed) -> None:
        """Any of the items may be consumed."""
        if self._streams:
            self._unpin_consumed(consumed, [id for id in self._streams if id in consumed])

    def leave(self) -> None:
        """The queue is deleted."""
        if self._streams:
            self._unpin_consumed(Consumed(sys.maxsize), list(self._streams))
            self._streams = {}

    def pin_delayed(self, number: int, id: int, stream: int) -> None:
        self._reclaimer.pin(stream)
        self._delayed.setdefault(number, {})[id] = stream

    def unpin_delayed(self, number: int, id: int) -> None:
        stream = self._delayed[number].pop(id)
        self._reclaimer.unpin(stream)
        self._reclaimer.stream(stream)

    def unpin_all_delayed(self, number: int) -> None:
        for id in list(self._delayed.get(number, {})):
            self.unpin_delayed(number, id)
        self._delayed.pop(number, None)

    def _unpin_consumed(self, consumed: Consumed, ids: list[int]) -> None:
        streams = self._streams

        def unpin(_: None) -> None:
            for id in ids:
                # It may be an item again, or there was a flush as well.
                if id in streams and id in consumed:
                    stream = streams.pop(id)
                    self._reclaimer.unpin(stream)
                    self._reclaimer.stream(stream)

        # Not before: what was moved to a queue on disk is not held there yet, and comes back if it cannot be.
        self._commit.written().addCallback(unpin)
