"""
The available items of a queue, and the open ones.

Memory holds the head of the queue, up to a limit, and the open items; the rest is in the store.  A read takes the next
item from the first of these that has one: items given back, the window (items read ahead, or put while the queue is
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
Payloads above this size, in bytes, are not kept in memory while their items are open or given back, as clients may have
any number of such items.
"""


@dataclass(frozen=True)
class Medium:
    """Where a queue is kept."""

    store: IStore
    """The store that it is written to."""
    budget: MemoryBudget
    """The limit for the windows of all queues there."""
    window_bytes: int
    """Approximate maximum size of the queue's window."""
    durable: bool
    """Whether the store has the items; if not, the window has all of them."""


class Contents:
    """
    The items of a queue, from its creation until its deletion.

    An item that is not consumed is in one place: in C{head}, in C{open}, taken out by a caller that is about to consume
    it, set aside (L{darner.queues.retries.Retries}), or beyond the head, from C{head.read_id} on.

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
        @param queue: passed to C{expiry}, which watches it.
        @param log: for lines about missing items.
        @param count: the number of items, all of them in the store.
        @param size: their payload bytes.
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
        self._heavy: list[Item] = []  # their payloads are unloaded at the end of the turn
        self._oldest_id = -1  # of the item whose time is in _oldest_time
        self._oldest_time = 0

    # Available items

    def append(self, item: Item) -> None:
        """Add an item at the end."""
        self.count += 1
        self.bytes += item.size
        self.head.follow(item)

    def take_first(self) -> Item:
        """Take the item at the head out of memory.  It is then neither available nor consumed."""
        item = self.head.take_first()
        self.count -= 1
        self.bytes -= item.size
        if self.perishable:
            self._expiry.watch(self._queue)
        return item

    def give_back(self, item: Item) -> None:
        """Make an item that was taken available again; it comes before all items with higher ids."""
        self.count += 1
        self.bytes += item.size
        if item.id < self.head.read_id:  # else it will be read
            self.head.give_back(item)
        if item.expiry:
            self.watch()

    def watch(self) -> None:
        """Have the queue watched, as it or one of its items may expire."""
        self.perishable = True
        self._expiry.watch(self._queue)

    def find(self, id: int, near: Optional[dict[int, Item]] = None) -> Optional[Item]:
        """
        @param id: of an item that is neither consumed nor set aside.
        @param near: the items that were read with the one that was looked for before, by their ids: whoever looks for
            several has a run read once.
        @return: it, with its payload where that is not in a stream; C{None} where it is missing.
        @raise StoreError: it cannot be read.
        """
        item = self._ledger.find_unwritten(id)
        if item is None and self._medium.durable:
            if near is None:
                return self.read(id)
            if id not in near:
                near.clear()
                for item in self._medium.store.read(self._ledger.number, id, self._ledger.next_id, 1):
                    near[item.id] = item
            return near.get(id)
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
        """Remove these items, which the store refused."""
        self.head.remove({item.id for item in items})
        for item in items:
            if item.id not in self._ledger.consumed and self.open.pop(item.id, None) is None:
                self.count -= 1
                self.bytes -= item.size

    def flush(self) -> None:
        """Consume all items except the open ones."""
        self._ledger.flush(self.open, self.count, self.bytes)
        self.count = self.bytes = 0
        if self.perishable:
            self._expiry.watch(self._queue)
        self._drop_head()
        self.head = Head(self._ledger.next_id, self._medium.window_bytes)

    def delete(self) -> None:
        """Drop all items, as the queue is deleted."""
        if self.perishable:
            self._expiry.watch(self._queue)
        self._drop_head()

    def _drop_head(self) -> None:
        self.head.held = 0
        self._medium.budget.account(self.head)

    # Reading

    def read_first(self) -> Optional[Item]:
        """@return: the item at the head, expired or not; C{None} if there is none."""
        return self._first_of(self._medium.window_bytes)

    def glance(self) -> Optional[Item]:
        """As L{read_first}, for queues that no client reads: at most one item is read from the store."""
        return self._first_of(1)

    def _first_of(self, max_bytes: int) -> Optional[Item]:
        item = self.head.first()
        if item is None and self.count:
            self._read_ahead(max_bytes)
            # Now, as a queue whose items are only peeked at or opened writes nothing, so written() is not called.
            self._medium.budget.account(self.head)
            item = self.head.first()
        return item

    def _read_ahead(self, max_bytes: int) -> None:
        """Fill the empty window with the next items, from the store or from those that are still to be written."""
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
        Add the items that are not consumed to the window, up to its limit.

        @param start: the first id that is expected.
        @param items: the items from there on, or the first of these.
        @param stop: where the range ends if it has no items.
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
        """Account for items that are missing from the store, which happens only if it is damaged."""
        missing = self._ledger.lose(start, stop)
        if missing:
            self.count -= missing
            message = "the store is damaged, run --check: {missing} items of queue {name!r} before {stop} are missing"
            kind = (message, self._name)
            self._log.emit(LogLevel.error, message, kind, missing=missing, name=self._name, stop=stop)

    # Payloads

    def load_first(self) -> bool:
        """
        Read the payload of the item at the head from the store again.

        @return: whether the store has it; if not, the item is consumed.
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
        """Unload the payload at the end of this turn if it is large."""
        if item.size > HEAVY and not item.stream and self._medium.durable:
            self._heavy.append(item)
            self._ledger.changed()

    def payload(self, item: Item) -> bytes:
        """
        @return: an item's payload; empty if it is in a stream.
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
        @return: the item with this id in the store; C{None} if there is none.
        @raise StoreError: it cannot be read.
        """
        for item in self._medium.store.read(self._ledger.number, id, id + 1, 1):
            return item
        return None

    def written(self) -> None:
        """Called at the end of the turn."""
        if self.head.held != self.head.accounted:
            self._medium.budget.account(self.head)
        if self._heavy:
            self._unload_heavy()

    def _unload_heavy(self) -> None:
        """Unload the large payloads, except those that are still to be written."""
        written = self._ledger.unwritten_id
        for item in self._heavy:
            if item.id < written:
                item.unload()
        self._heavy = [item for item in self._heavy if item.id >= written]

    # Ages

    def oldest(self) -> Optional[int]:
        """@return: when the item at the head was put, in ms since the epoch; C{None} if unknown."""
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
            # Not into the window: with many queues that would evict the windows of those that clients read.
            with suppress(StoreError):
                item = self.read(id)
            if item is None:
                return None
            self._oldest_id, self._oldest_time = id, item.time
        return self._oldest_time
