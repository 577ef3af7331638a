"""
What a queue remembers of items that were opened before: how often, since when, and from when on they are to be had
again.

Only queues with such settings have this, or had when the items were opened.  Attempts are written down with the turn in
which the item is opened, so that one that ends the process counts as well; the times are in memory alone.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection
from heapq import heapify, heappop, heappush
from math import inf
from typing import Final, Optional, Protocol

from twisted.internet.interfaces import IDelayedCall

from darner.config.policies import QueueSettings
from darner.queues.commit import GroupCommit
from darner.store.batch import Batch
from darner.values.items import Item

AT_ONCE: Final = 100
"""How many items go back, or to the dead letters, before others have their turn."""
BYTES_AT_ONCE: Final = 1024 * 1024
"""And how many bytes of payload of dead letters that were found at the start."""


class Read(Protocol):
    """An open read, as far as this goes."""

    item: Item
    since: float
    """When it was opened, or extended, by the monotonic clock."""


class Retried(Protocol):
    """The queue, as far as this goes."""

    policy: QueueSettings
    number: Optional[int]

    @property
    def unwritten_id(self) -> int:
        """From which id on items are neither in the store nor in the batch that is being written."""

    def time_out(self, read: Read) -> None:
        """The read was open for too long."""

    def come_back(self, item: Item) -> None:
        """An item that was set aside is due."""

    def bury_found(self, id: int) -> int:
        """
        An item was open for the last time when the process before this ended.

        @return: about how much there was to do, in bytes.
        """

    def serve(self) -> None:
        """Serve those who wait."""


class Attempts:
    """
    Of one queue, the attempts of its items, its open reads, and what is set aside.

    There is one call of the clock at most, whatever there is to wait for.
    """

    def __init__(self, fifo: Retried, commit: GroupCommit) -> None:
        self._fifo = fifo
        self._commit = commit
        self._attempts: dict[int, int] = {}
        self._changed: set[int] = set()
        self._handed: set[int] = set()
        self._gone: dict[int, int] = {}  # attempts of items that are consumed, until that is written
        self._reads: OrderedDict[int, Read] = OrderedDict()  # since when they are open, the longest first
        self._aside: list[tuple[float, int, Item]] = []
        self.set_aside_bytes = 0
        self._found: deque[int] = deque()
        self._timer: Optional[IDelayedCall] = None
        self._wake = inf

    @property
    def set_aside_count(self) -> int:
        """How many items are set aside."""
        return len(self._aside)

    def recover(self, attempts: dict[int, int]) -> None:
        """Begin with what is written down of items that are not consumed."""
        self._attempts = attempts
        self._found.extend(sorted(attempts))
        self._arm()

    # Attempts

    def opened(self, read: Read) -> bool:
        """
        An item is open.

        @return: whether there is something to write.
        """
        self.extend(read)
        if self._fifo.policy.max_attempts is None:
            return False
        id = read.item.id
        self._attempts[id] = self._attempts.get(id, 0) + 1
        self._changed.add(id)
        return True

    def spent(self, id: int) -> bool:
        """@return: whether an item was opened as often as it may be, and there is somewhere to go for it."""
        policy = self._fifo.policy
        if policy.max_attempts is None or policy.dead_letter_queue is None:
            return False
        return self._attempts.get(id, 0) >= policy.max_attempts

    def forget(self, id: int) -> None:
        """The item is consumed."""
        self._reads.pop(id, None)
        attempts = self._attempts.pop(id, 0)
        if attempts:
            self._gone[id] = attempts
            self._changed.add(id)

    def remember(self, id: int) -> None:
        """The item is one again: that it was consumed could not be written."""
        attempts = self._gone.pop(id, 0)
        if attempts:
            self._attempts[id] = attempts
            self._changed.add(id)

    # A side of the queue

    @property
    def pending(self) -> bool:
        return False  # attempts are of items, which hold the queue

    def flush(self, open: Collection[int]) -> list[int]:
        self._aside.clear()
        self.set_aside_bytes = 0
        for id in set(self._attempts).difference(open):
            self.forget(id)
        return []

    def delete(self) -> list[int]:
        return []

    def write_to(self, batch: Batch, puts: bool) -> None:
        # Of items that are not in the store yet nothing is written either.
        stop = self._fifo.unwritten_id
        self._handed = {id for id in self._changed if id < stop}
        if self._handed:
            self._changed -= self._handed
            number = self._fifo.number
            assert number is not None
            batch.attempts(number, [(id, self._attempts.get(id, 0)) for id in sorted(self._handed)])

    def written(self) -> None:
        for id in self._handed:
            self._gone.pop(id, None)
        self._handed = set()

    def refuse(self, ids: set[int], uncertain: bool) -> None:
        self._aside = [entry for entry in self._aside if entry[1] not in ids]
        heapify(self._aside)
        self.set_aside_bytes = sum(item.size for _, _, item in self._aside)

    def not_written(self) -> None:
        self._changed |= self._handed
        self._handed = set()

    # Time

    def adopt(self) -> None:
        """The queue has other settings: what is open may be overdue sooner."""
        self._arm()

    def extend(self, read: Read) -> None:
        """The time of an open read begins anew."""
        read.since = self._commit.clock.seconds()
        self._reads[read.item.id] = read
        self._reads.move_to_end(read.item.id)
        self._arm()

    def ended(self, read: Read) -> None:
        """The read is not open any more."""
        self._reads.pop(read.item.id, None)  # it may be open since a time when nothing was asked of that

    def set_aside(self, item: Item, delay: float) -> None:
        """Keep an item back for so many seconds."""
        heappush(self._aside, (self._commit.clock.seconds() + delay, item.id, item))
        self.set_aside_bytes += item.size
        self._arm()

    def stop(self) -> None:
        """Wait for nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _overdue(self) -> float:
        """@return: when the read that is open for the longest time has to go back."""
        timeout = self._fifo.policy.open_timeout
        if timeout is None or not self._reads:
            return inf
        return next(iter(self._reads.values())).since + timeout

    def _due(self) -> float:
        return self._aside[0][0] if self._aside else inf

    def _arm(self) -> None:
        """See to it that L{_look} is called in time.  Too early does no harm: what was waited for may be gone."""
        wake = 0.0 if self._found else min(self._overdue(), self._due())
        if wake < self._wake:
            self.stop()
            self._wake = wake
            self._timer = self._commit.clock.callLater(max(0.0, wake - self._commit.clock.seconds()), self._look)

    def _look(self) -> None:
        """Do what is due, a bounded part of it."""
        self._timer = None
        now = self._commit.clock.seconds()
        size = 0
        for _ in range(AT_ONCE):
            if self._found and size < BYTES_AT_ONCE:
                size += self._fifo.bury_found(self._found.popleft())
            if self._overdue() <= now:
                self._fifo.time_out(next(iter(self._reads.values())))
            if self._due() <= now:
                item = heappop(self._aside)[2]
                self.set_aside_bytes -= item.size
                self._fifo.come_back(item)
        self._fifo.serve()
        self._wake = inf
        self._arm()
