"""
The items of a queue that are to be had, and those that are open.

Memory holds the head of the queue, as far as a bound allows, and what is open; the rest lies in the store.  An item
comes from one of three places, in this order: those given back, the window (items read ahead, or put while the queue is
short), the store.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Optional

from twisted.logger import LogLevel

from darner.errors import StoreError
from darner.net.log_limits import LimitedLog
from darner.queues.head import Head, MemoryBudget
from darner.queues.interfaces import Expires
from darner.queues.ledger import Ledger
from darner.store.interfaces import IStore
from darner.values.items import Item

HEAVY: Final = 1024
"""
Payloads above this size, in bytes, are not kept in memory while their items are open or given back: clients may have
any number of those.
"""


@dataclass(frozen=True)
class Medium:
    """Where a queue is kept."""

    store: IStore
    """What it writes to."""
    budget: MemoryBudget
    """What the windows of all queues there have together."""
    window_bytes: int
    """About how much of the queue's head is held in memory."""
    durable: bool
    """Whether the store has the items; where not, the window holds all of them."""


class Contents:
    """
    What can be read from a queue, from when it is made until it is deleted.

    An item that is not consumed is in one place: in the C{head}, open, taken out by whoever is about to consume it, set
    aside (L{darner.queues.retries.Retries}), or beyond the head, which is where C{head.read_id} begins.

    @ivar count: how many items are to be had or set aside.
    @ivar bytes: how many bytes of payload these have.
    @ivar head: the items that are next, as far as memory has them.
    @ivar open: the items that are open, by their ids.
    @ivar withdrawn: the ids of items that were open and taken away from their readers; C{None} if there are none, as
        in nearly every queue.
    @ivar perishable: whether the queue may hold what expires, or expires itself.
    """

    __slots__ = (
        "_expiry", "_heavy", "_ledger", "_log", "_medium", "_name", "_oldest_id", "_oldest_time", "_queue", "bytes",
        "count", "head", "open", "perishable", "withdrawn",
    )  # fmt: skip

    def __init__(
        self, queue: Any, name: bytes, medium: Medium, ledger: Ledger, expiry: Expires, log: LimitedLog,
        count: int = 0, size: int = 0,
    ) -> None:  # fmt: skip
        """
        @param queue: the one that is watched for what expires.
        @param log: where to log that items are missing.
        @param count: how many items there are, all of them in the store.
        @param size: how many bytes of payload they have.
        """
        self._queue = queue
        self._name = name
        self._medium = medium
        self._ledger = ledger
        self._expiry = expiry
        self._log = log
        self.count = count
        self.bytes = size
        self.head = Head(0, medium.window_bytes)
        self.open: dict[int, Item] = {}
        self.withdrawn: Optional[set[int]] = None
        self.perishable = False
        self._heavy: list[Item] = []  # of which the payload goes at the end of the turn
        self._oldest_id = -1  # of an item that was at the head, and only looked at
        self._oldest_time = 0

    # What there is

    def append(self, item: Item) -> None:
        """An item was put at the end."""
        self.count += 1
        self.bytes += item.size
        self.head.follow(item)

    def take_first(self) -> Item:
        """Take the item at the head out of memory.  It is neither to be had nor consumed."""
        item = self.head.take_first()
        self.count -= 1
        self.bytes -= item.size
        if self.perishable:
            self._expiry.watch(self._queue)
        return item

    def give_back(self, item: Item) -> None:
        """An item that was taken is to be had, ahead of all that came after it."""
        self.count += 1
        self.bytes += item.size
        if item.id < self.head.read_id:  # else it will be read
            self.head.give_back(item)
        if item.expiry:
            self.watch()

    def watch(self) -> None:
        """The queue may hold what expires, or expires itself."""
        self.perishable = True
        self._expiry.watch(self._queue)

    def find(self, id: int) -> Optional[Item]:
        """
        @param id: of an item that is neither consumed nor set aside.
        @return: it, with its payload where that is not in a stream; C{None} where it is missing.
        @raise StoreError: it cannot be read.
        """
        item = self._ledger.find_unwritten(id)
        if item is None and self._medium.durable:
            return self.read(id)
        return self.open.get(id) or self.head.find(id)

    def some(self, start: int, max_bytes: int) -> tuple[list[Item], int]:
        """
        Look at some items, consumed or not, of which the first may be open or set aside; memory stays as it is.

        @param start: the id from which on.
        @param max_bytes: about how many bytes of payload.
        @return: they, in order, and the id from which on there may be more.
        @raise StoreError: they cannot be read.
        """
        stop = self._ledger.next_id
        if not self._medium.durable:
            return self.head.some(start, stop)
        waiting = self._ledger.unwritten()
        written = waiting[0].id if waiting else stop
        if start >= written:
            return waiting, stop
        items = self._medium.store.read(self._ledger.number, start, written, max_bytes)
        return items, (items[-1].id + 1 if items else written)

    def take_out(self, item: Item) -> None:
        """Take an item that is to be had out of memory, wherever it is: it is neither to be had nor consumed."""
        if item.id < self.head.read_id:
            self.head.take_out(item.id)
        self.count -= 1
        self.bytes -= item.size
        if self.perishable:
            self._expiry.watch(self._queue)

    def withdraw(self, id: int) -> Item:
        """Take an open item away from its reader: it is neither open nor to be had nor consumed."""
        self.withdrawn = self.withdrawn or set()
        self.withdrawn.add(id)
        return self.open.pop(id)

    def refuse(self, items: list[Item]) -> None:
        """The store refused these items: they are not to be had, and not open."""
        self.head.remove({item.id for item in items})
        for item in items:
            if item.id not in self._ledger.consumed and self.open.pop(item.id, None) is None:
                self.count -= 1
                self.bytes -= item.size

    def flush(self) -> None:
        """Consume all that is to be had; what is open stays open."""
        self._ledger.flush(self.open, self.count, self.bytes)
        self.count = self.bytes = 0
        if self.perishable:
            self._expiry.watch(self._queue)
        self._drop_head()
        self.head = Head(self._ledger.next_id, self._medium.window_bytes)

    def delete(self) -> None:
        """Nothing of it is to be had any more."""
        if self.perishable:
            self._expiry.watch(self._queue)
        self._drop_head()

    def _drop_head(self) -> None:
        self.head.held = 0
        self._medium.budget.account(self.head)

    # Reading

    def read_first(self) -> Optional[Item]:
        """@return: the item at the head, whether it has expired or not; C{None} where there is nothing."""
        return self._first_of(self._medium.window_bytes)

    def glance(self) -> Optional[Item]:
        """As L{read_first}, but nobody reads the queue, and there may be many: no more is read than is needed."""
        return self._first_of(1)

    def _first_of(self, max_bytes: int) -> Optional[Item]:
        item = self.head.first()
        if item is None and self.count:
            self._read_ahead(max_bytes)
            # At once: a queue that is only looked at, or whose items are opened, has nothing to be written.
            self._medium.budget.account(self.head)
            item = self.head.first()
        return item

    def _read_ahead(self, max_bytes: int) -> None:
        """Fill the empty window with what comes next, from the store or from what is on its way there."""
        head, ledger = self.head, self._ledger
        start = ledger.consumed.next_missing(head.read_id)
        while start < ledger.next_id and not head.held:
            waiting = ledger.unwritten()
            written = waiting[0].id if waiting else ledger.next_id
            if start < written:
                stop = written
                items = self._medium.store.read(ledger.number, start, written, max_bytes)
            else:
                stop = ledger.next_id
                items = waiting
            self._take_in(start, items, stop)
            start = ledger.consumed.next_missing(head.read_id)

    def _take_in(self, start: int, items: list[Item], stop: int) -> None:
        """
        Take items into the window, those that are not consumed, up to its bound.

        @param start: the id that is expected first.
        @param items: all that there is from there on, or the first of it.
        @param stop: where the items end if there are none at all.
        """
        head, consumed = self.head, self._ledger.consumed
        for item in items:
            if head.full:
                return
            if item.id < start or item.id in consumed:
                continue
            self._miss(start, item.id)
            head.hold(item)
            start = item.id + 1
        if not items:
            self._miss(start, stop)
            head.read_id = stop
        else:
            head.read_id = max(head.read_id, items[-1].id + 1)

    def _miss(self, start: int, stop: int) -> None:
        """Account for items that should be in the store and are not, which takes a damaged store."""
        missing = self._ledger.lose(start, stop)
        if missing:
            self.count -= missing
            message = "{missing} items of queue {name!r} before item {stop} are missing from the store"
            kind = (message, self._name)
            self._log.emit(LogLevel.error, message, kind, missing=missing, name=self._name, stop=stop)

    # Payloads

    def load_first(self) -> bool:
        """
        Read the payload of the item at the head again.

        @return: whether it is there; it is consumed if not.
        @raise StoreError: it cannot be read.
        """
        item = self.head.first()
        assert item is not None
        found = self.read(item.id)
        if found is not None:
            item.load(found.payload)
            self.weigh(item)
            return True
        self.head.take_first()
        self.bytes -= item.size
        self._ledger.lose_bytes(item.size)
        self._miss(item.id, item.id + 1)
        return False

    def weigh(self, item: Item) -> None:
        """Where the payload is large, have it in memory for this turn only."""
        if item.size > HEAVY and not item.stream and self._medium.durable:
            self._heavy.append(item)
            self._ledger.changed()

    def payload(self, item: Item) -> bytes:
        """
        @return: an item's payload; empty where a stream has it.
        @raise StoreError: it cannot be read.
        """
        if not item.unloaded:
            return item.payload
        found = self.read(item.id)
        if found is None:
            raise StoreError(f"item {item.id} is missing")
        return found.payload

    def read(self, id: int) -> Optional[Item]:
        """
        @return: the item that the store has under an id; C{None} where there is none.
        @raise StoreError: it cannot be read.
        """
        for item in self._medium.store.read(self._ledger.number, id, id + 1, 1):
            return item
        return None

    def written(self) -> None:
        """The turn is at its end."""
        if self.head.held != self.head.accounted:
            self._medium.budget.account(self.head)
        if self._heavy:
            self._unload_heavy()

    def _unload_heavy(self) -> None:
        """Unload the payloads that were needed in this turn, but for those that are still to be written."""
        written = self._ledger.unwritten_id
        for item in self._heavy:
            if item.id < written:
                item.unload()
        self._heavy = [item for item in self._heavy if item.id >= written]

    # Ages

    def oldest(self) -> Optional[int]:
        """@return: when the item at the head was put, in ms since the epoch; C{None} where nobody can tell."""
        item = self.head.first()
        if item is not None:
            return item.time
        id = self._ledger.consumed.next_missing(self.head.read_id)
        if not self.count or id >= self._ledger.next_id:
            return None
        item = self._ledger.find_unwritten(id)
        if item is not None:
            return item.time
        if self._oldest_id != id:
            # It is not taken into memory, where it would have the place of what is read; there may be many queues.
            with suppress(StoreError):
                item = self.read(id)
            if item is None:
                return None
            self._oldest_id, self._oldest_time = id, item.time
        return self._oldest_time
