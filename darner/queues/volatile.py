"""
Volatile queues, which are in memory and do not survive the process.

They are the same objects as durable queues (`darner.queues.fifo`), with a window that contains all of their items.
Their batches go to a store in memory, which does not keep the items.

Large payloads are written to disk as those of durable queues are.  No item in the store holds them, so that the next
process reclaims them; while this process runs, pins keep the reclaimer from doing so.
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
"""The first number of a volatile queue; a store on disk gives numbers from 0 on."""




class VolatileStore(MemoryStore):
    """
    What volatile queues store beside their items.

    Its numbers are far above those on disk, as a queue may be durable and volatile in turn.

    @ivar room: the budget of these queues' windows.  It is unlimited, as they must not be evicted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.room = MemoryBudget(sys.maxsize)

    def new_number(self) -> int:
        return FIRST_NUMBER + super().new_number()

    def read(self, number: int, start: int, stop: int, max_bytes: int) -> list[Item]:
        return []

    def give_up(self, number: int) -> None:
        """Delete the data under a number."""
        next_id: Optional[int] = 0
        while next_id is not None:
            step = self.reclaim_queue(number, next_id, sys.maxsize)
            next_id = step.next_id
            self.unheld.difference_update(step.streams)  # the streams are in the store on disk


class Volatile:
    """
    The pins and unwritten deletions of one volatile queue.

    The changes of a turn are made at its end, so that they can be refused with the rest of the turn.
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
        """Delete the data under these numbers at the end of the turn."""
        self._discards += numbers

    def batch(self) -> VolatileBatch:
        """@return: the batch of this turn, which L{written} writes."""
        self._batch = VolatileBatch()
        for number in self._discards:
            self._batch.discard(number)
        self._handed_discards = len(self._discards)
        return self._batch

    def written(self) -> None:
        """The turn is written."""
        if self._batch is not None and not self._batch.empty:
            self.store.write(self._batch)
            for number in self._discards[: self._handed_discards]:
                self.store.give_up(number)
            del self._discards[: self._handed_discards]
        self._batch = None

    def not_written(self) -> None:
        """The turn is refused.  The queue builds the next batch from what is still valid."""
        self._batch = None

    # The streams of large items

    def pin(self, id: int, stream: int) -> None:
        """Pin the stream of an item."""
        self._reclaimer.pin(stream)
        self._streams[id] = stream

    def consumed(self, consumed: Consumed, id: int) -> None:
        """Unpin the stream of a consumed item at the end of the turn, unless the consumption is undone."""
        if id in self._streams:
            self._unpin_consumed(consumed, [id])

    def flushed(self, consumed: Consumed) -> None:
        """As L{consumed}, for every item in C{consumed}."""
        if self._streams:
            self._unpin_consumed(consumed, [id for id in self._streams if id in consumed])

    def leave(self) -> None:
        """As L{consumed}, for all items, as the queue is deleted."""
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
                # The consumption may have been undone, or the stream unpinned by a flush.
                if id in streams and id in consumed:
                    stream = streams.pop(id)
                    self._reclaimer.unpin(stream)
                    self._reclaimer.stream(stream)

        # Only then: an item that is moved to a durable queue does not hold the stream there before it is written.
        self._commit.written().addCallback(unpin)
