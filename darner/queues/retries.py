"""
Items that are given back: they become available again, now or later, or become dead letters.

Only queues with settings for this have a L{Retries}, or queues that had them when items were opened.  The turn that
opens an item writes the attempt, so that an attempt that kills the process counts as well.  Times are in memory alone.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection
from heapq import heappop, heappush
from math import inf
from typing import Final, Optional, Protocol

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import LogLevel

from darner.config.policies import QueueSettings
from darner.errors import StoreError
from darner.queues.commit import GroupCommit
from darner.queues.contents import Contents
from darner.queues.ledger import Ledger
from darner.store.batch import Batch
from darner.values.items import Item

AT_ONCE: Final = 100
"""The number of items that are given back or moved to the dead letters before other work is done."""
BYTES_AT_ONCE: Final = 1024 * 1024
"""The limit of payload bytes for dead letters that are found at the start."""
DEAD_LETTER_RETRY: Final = 1.0
"""Seconds until another attempt to move an item to the dead letters."""


class Read(Protocol):
    """An open read, as L{Retries} sees it."""

    item: Item
    since: float
    """When it was opened or extended, by the monotonic clock."""

    def time_out(self) -> None:
        """Give the item back, as it was open for too long."""


class Retried(Protocol):
    """The queue, as L{Retries} sees it."""

    name: bytes
    policy: QueueSettings

    def move_to_dead_letters(self, item: Item) -> None:
        """
        Put an item on the queue of dead letters, and consume it here.

        @raise StoreError: it cannot be moved; nothing has changed.
        """

    def serve(self) -> None:
        """Serve waiters."""


class Retries:
    """
    A L{Side} of a queue: the attempts of its items, its open reads, and the items that are set aside for a delay.

    An item that is set aside is not available, but L{Contents} counts it.  There is at most one timer.

    @ivar set_aside_bytes: payload bytes of the items that are set aside.
    """

    def __init__(self, queue: Retried, commit: GroupCommit, ledger: Ledger, contents: Contents) -> None:
        self._queue = queue
        self._commit = commit
        self._ledger = ledger
        self._contents = contents
        self._attempts: dict[int, int] = {}
        self._changed: set[int] = set()
        self._handed: set[int] = set()
        self._consumed: dict[int, int] = {}  # attempts of consumed items, until the consumption is written
        self._reads: OrderedDict[int, Read] = OrderedDict()  # by id, the one that is open longest first
        self._aside: dict[int, tuple[float, Item]] = {}
        self._dues: list[tuple[float, int]] = []  # a heap; entries of items that are set aside no more are left in it
        self.set_aside_bytes = 0
        self._found: deque[int] = deque()
        self._timer: Optional[IDelayedCall] = None
        self._wake = inf

    @property
    def set_aside_count(self) -> int:
        return len(self._aside)

    def recover(self, attempts: dict[int, int]) -> None:
        """Start with the stored attempts of items that are not consumed."""
        self._attempts = attempts
        self._found.extend(sorted(attempts))
        self._arm()

    # Attempts

    def attempts(self, id: int) -> int:
        """@return: how often an item was opened, where that is counted."""
        return self._attempts.get(id, 0)

    def opened(self, read: Read) -> None:
        """Count an attempt, and start the timeout of the read."""
        self.extend(read)
        if self._queue.policy.max_attempts is not None:
            id = read.item.id
            self._attempts[id] = self._attempts.get(id, 0) + 1
            self._changed.add(id)
            self._ledger.changed()

    def exhausted(self, id: int) -> bool:
        """@return: whether an item has used up C{max_attempts}, and the queue has a C{dead_letter_queue}."""
        policy = self._queue.policy
        if policy.max_attempts is None or policy.dead_letter_queue is None:
            return False
        return self._attempts.get(id, 0) >= policy.max_attempts

    def forget(self, id: int) -> None:
        """Drop the data of an item that is consumed."""
        self._reads.pop(id, None)
        attempts = self._attempts.pop(id, 0)
        if attempts:
            self._consumed[id] = attempts
            self._changed.add(id)

    def restore(self, id: int) -> None:
        """Restore the attempts of an item whose consumption could not be written."""
        attempts = self._consumed.pop(id, 0)
        if attempts:
            self._attempts[id] = attempts
            self._changed.add(id)

    # Giving back

    def give_back(self, read: Read) -> None:
        """Give back the item of a read that was open until now."""
        self._reads.pop(read.item.id, None)  # it may have been opened before the queue had retries
        delay = self._queue.policy.retry_delay
        if delay is not None and not self.exhausted(read.item.id):
            self.set_aside(read.item, delay)
        else:
            self._retry(read.item)

    def _retry(self, item: Item) -> None:
        if self.exhausted(item.id):
            self.dead_letter(item)
        else:
            self._contents.give_back(item)

    def set_aside(self, item: Item, delay: float = DEAD_LETTER_RETRY) -> None:
        """
        Make an item available after a delay.

        @param item: an item that was taken out of memory.
        @param delay: in seconds.
        """
        self._contents.count += 1
        self._contents.bytes += item.size
        if item.id < self._contents.head.read_id:
            # Otherwise the item is beyond the head and will be read from the store.
            due = self._commit.clock.seconds() + delay
            self._aside[item.id] = (due, item)
            heappush(self._dues, (due, item.id))
            self.set_aside_bytes += item.size
            self._arm()

    def aside(self) -> dict[int, tuple[float, Item]]:
        """@return: the items that are set aside, by id, with when each becomes available; not to be changed."""
        return self._aside

    def take_out(self, id: int) -> Item:
        """Take an item that is set aside out of memory: it is neither to be had nor consumed."""
        _, item = self._aside.pop(id)
        self.set_aside_bytes -= item.size
        self._take_out(item)
        return item

    def withdraw(self, id: int) -> None:
        """A read is not open any more, whatever its reader does."""
        self._reads.pop(id, None)

    def dead_letter(self, item: Item) -> None:
        """
        Move an item to the dead letters, or retry that later.

        @param item: an item that was taken out of memory.
        """
        if self._ledger.is_writing(item):
            # If its put is refused, the item must not be a dead letter.
            self.set_aside(item)
            return
        try:
            self._queue.move_to_dead_letters(item)
        except StoreError as error:
            message = "cannot move item {id} of queue {name!r} to its dead_letter_queue, will try again: {error}"
            self._commit.log.emit(
                LogLevel.error, message, (message, self._queue.name),
                id=item.id, name=self._queue.name, error=str(error),
            )  # fmt: skip
            self.set_aside(item)

    def _dead_letter_found(self, id: int) -> int:
        """
        Move an item to the dead letters that may have used up its attempts in an earlier process.

        @return: the payload bytes that were read.
        """
        # Items in memory are checked when they are read.
        if id < self._contents.head.read_id or not self.exhausted(id):
            return 0
        try:
            item = self._contents.read(id)
        except StoreError:
            item = None
        if item is None:
            return 0
        self._take_out(item)
        self.dead_letter(item)
        return item.size

    def _take_out(self, item: Item) -> None:
        self._contents.count -= 1
        self._contents.bytes -= item.size

    # A side of the queue

    @property
    def pending(self) -> bool:
        return False  # the items keep the queue in existence

    def flush(self, open: Collection[int]) -> list[int]:
        self._aside.clear()
        self._dues.clear()
        self.set_aside_bytes = 0
        for id in set(self._attempts).difference(open):
            self.forget(id)
        return []

    def delete(self) -> list[int]:
        return []

    def write_to(self, batch: Batch, puts: bool) -> None:
        # Only for items that are in the store or in this batch.
        stop = self._ledger.unwritten_id
        self._handed = {id for id in self._changed if id < stop}
        if self._handed:
            self._changed -= self._handed
            batch.attempts(self._ledger.number, [(id, self._attempts.get(id, 0)) for id in sorted(self._handed)])

    def written(self) -> None:
        for id in self._handed:
            self._consumed.pop(id, None)
        self._handed = set()

    def refuse(self, ids: set[int], uncertain: bool) -> None:
        self._aside = {id: entry for id, entry in self._aside.items() if id not in ids}
        self.set_aside_bytes = sum(item.size for _, item in self._aside.values())

    def not_written(self) -> None:
        self._changed |= self._handed
        self._handed = set()

    # Time

    def adopt(self) -> None:
        """Apply new settings of the queue: open reads may time out earlier."""
        self._arm()

    def extend(self, read: Read) -> None:
        """Restart the timeout of an open read."""
        read.since = self._commit.clock.seconds()
        self._reads[read.item.id] = read
        self._reads.move_to_end(read.item.id)
        self._arm()

    def stop(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _overdue(self) -> float:
        """@return: when the oldest open read times out."""
        timeout = self._queue.policy.open_timeout
        if timeout is None or not self._reads:
            return inf
        return next(iter(self._reads.values())).since + timeout

    def _due(self) -> float:
        while self._dues:
            due, id = self._dues[0]
            entry = self._aside.get(id)
            if entry is not None and entry[0] == due:
                return due
            heappop(self._dues)
        return inf

    def _arm(self) -> None:
        """Set the timer.  It may fire early, as what it waited for may be gone."""
        wake = 0.0 if self._found else min(self._overdue(), self._due())
        if wake < self._wake:
            self.stop()
            self._wake = wake
            self._timer = self._commit.clock.callLater(max(0.0, wake - self._commit.clock.seconds()), self._look)

    def _look(self) -> None:
        """Do a bounded part of the work that is due."""
        self._timer = None
        now = self._commit.clock.seconds()
        size = 0
        for _ in range(AT_ONCE):
            if self._found and size < BYTES_AT_ONCE:
                size += self._dead_letter_found(self._found.popleft())
            if self._overdue() <= now:
                next(iter(self._reads.values())).time_out()
            if self._due() <= now:
                item = self.take_out(heappop(self._dues)[1])
                self._retry(item)
        self._queue.serve()
        self._wake = inf
        self._arm()
