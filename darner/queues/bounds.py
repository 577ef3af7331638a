"""
The limits of a queue, and the expiry of its items.
"""

from __future__ import annotations

from typing import Final, Optional, Protocol

from darner.config.policies import QueueSettings
from darner.errors import QueueFull, StoreError
from darner.queues.commit import GroupCommit
from darner.queues.contents import Contents
from darner.queues.interfaces import Expires
from darner.queues.producer_ids import ID_OVERHEAD
from darner.queues.sides import Sides
from darner.queues.turn import Emptied
from darner.values.items import ITEM_OVERHEAD, Item
from darner.values.stats import QueueStats, Removal

SWEEP_BYTES: Final = 1024 * 1024
"""Approximate bytes of items, as in memory, that one sweep drops at most."""


class Bounded(Emptied, Protocol):
    """The queue, as L{Bounds} sees it."""

    policy: QueueSettings

    @property
    def durable(self) -> bool: ...

    @property
    def stats(self) -> QueueStats: ...

    def consume(self, item: Item) -> None:
        """Consume an item that was taken out of memory."""


class Bounds:
    """
    The limits and the expiry in a queue's settings.  Puts over the limit are refused, or the oldest items are evicted;
    expired items are dropped from the head.

    @ivar max_age: maximum age of items, in ms; 0 is unlimited.
    @ivar lifetime: maximum age of the queue once it is empty, in ms; 0 is unlimited.
    """

    __slots__ = ("_commit", "_contents", "_expiry", "_perishable_id", "_queue", "_sides", "lifetime", "max_age")

    def __init__(
        self, queue: Bounded, contents: Contents, sides: Sides, commit: GroupCommit, expiry: Expires, perishable_id: int
    ) -> None:
        """@param perishable_id: no item from this id on expires."""
        self._queue = queue
        self._contents = contents
        self._sides = sides
        self._commit = commit
        self._expiry = expiry
        self._perishable_id = perishable_id
        self.max_age = int((queue.policy.max_age or 0) * 1000)
        self.lifetime = int((queue.policy.max_queue_age or 0) * 1000)

    def adopt(self) -> None:
        """Apply new settings of the queue.  Items keep their expiry."""
        self.max_age = int((self._queue.policy.max_age or 0) * 1000)
        self.lifetime = int((self._queue.policy.max_queue_age or 0) * 1000)

    # Limits

    def check(self, size: int) -> None:
        """
        Check that the queue accepts another item.  This drops expired items only; L{enforce} evicts others.

        @param size: of the item, in bytes; at most C{max_bytes}.
        @raise QueueFull: it does not.
        """
        if self._queue.policy.discard_old_when_full:
            if self._is_stuffed(size):
                raise QueueFull()
        elif not self.drop_old(1, size):
            raise QueueFull()

    def enforce(self, size: int) -> None:
        """
        Make space for another item: drop expired items and, if the settings say so, evict the oldest available ones.
        One sweep drops a bounded number; the following turns drop the rest.

        @param size: of the item, in bytes; at most C{max_bytes}.
        @raise QueueFull: there is no space.
        """
        self.check(size)
        if self._queue.policy.discard_old_when_full and not self.drop_old(1, size):
            self._expiry.sweep(self._queue)

    def _exceeds(self, items: int, size: int) -> bool:
        policy = self._queue.policy
        return (policy.max_items is not None and items > policy.max_items) or (
            policy.max_bytes is not None and size > policy.max_bytes
        )

    def _is_stuffed(self, size: int) -> bool:
        """@return: whether an item of that size would exceed the limits even after all evictions."""
        items, overhead = 1, 0
        delays, retries = self._sides.delays, self._sides.retries
        if delays is not None:
            items += delays.count
            size += delays.bytes
        if not self._queue.durable:
            overhead = items
            size += self._bytes_of_ids()
            if retries is not None:
                size += retries.set_aside_bytes
                overhead += retries.set_aside_count
        return self._exceeds(items, size + overhead * ITEM_OVERHEAD)

    def _bytes_of_ids(self) -> int:
        ids = self._sides.ids
        return ids.count * ID_OVERHEAD if ids is not None else 0

    def _is_over(self, items: int, size: int) -> bool:
        """@return: whether the queue would exceed its limits with so many more items and bytes."""
        delays, retries = self._sides.delays, self._sides.retries
        items += self._contents.count
        size += self._contents.bytes
        if delays is not None:
            items += delays.count
            size += delays.bytes
        if not self._queue.durable:
            # The limit is one of memory, which ids and items that are set aside also take.
            size += items * ITEM_OVERHEAD + self._bytes_of_ids()
        if retries is not None:
            # They do not count, as they are not available; nor do open items.
            items -= retries.set_aside_count
            if self._queue.durable:
                size -= retries.set_aside_bytes
        return self._exceeds(items, size)

    def drop_old(self, items: int, size: int) -> bool:
        """
        Make space for so many more items and bytes by dropping items at the head: expired ones and, if the settings say
        so, any; at most as many as one sweep may drop.

        @return: whether there is space.
        """
        policy = self._queue.policy
        left, bytes_left = policy.max_expire_sweep, SWEEP_BYTES
        while self._is_over(items, size):
            item = self._contents.read_first()
            if item is None:
                # The rest is set aside and cannot be evicted.
                return policy.discard_old_when_full
            if not left or bytes_left <= 0:
                return False
            left -= 1
            bytes_left -= len(item.payload) + ITEM_OVERHEAD
            if item.expiry and item.expiry <= self._commit.now:
                self._expire(item)
            elif policy.discard_old_when_full:
                self._discard()
            else:
                return False
        return True

    def _discard(self) -> None:
        """Evict the item at the head.  It comes back if the put that replaces it cannot be written."""
        item = self._contents.take_first()
        self._queue.consume(item)
        self._commit.moved(self._queue, item, Removal.DISCARDED)
        self._count(Removal.DISCARDED)

    def _count(self, removal: Removal) -> None:
        self._queue.stats.count_removal(removal)
        self._expiry.stats.count_removal(removal)

    # Expiry

    def expiry_of(self, id: int, expiry: int) -> int:
        """
        @param id: of an item that is about to be put.
        @param expiry: the expiry that the client asked for; 0 is never.
        @return: the expiry of the item.
        """
        if self.max_age:
            latest = self._commit.now + self.max_age
            expiry = min(expiry or latest, latest)
        self._perishable_id = id + 1
        self._contents.perishable = True
        if self._contents.count == self._sides.set_aside_count:  # it will be at the head
            self._contents.watch()
        return expiry

    def due(self) -> int:
        """
        @return: when the item at the head expires, in ms since the epoch; 0 if it does not, or there is none.
        @raise StoreError: it cannot be read.
        """
        item = self._contents.glance()
        if item is None or item.id >= self._perishable_id:
            self._contents.perishable = self.lifetime > 0
            return 0
        return item.expiry

    def drop_expired(self) -> bool:
        """
        Drop expired items at the head, at most as many as one sweep may drop.

        @return: whether there are more.
        @raise StoreError: the head cannot be read, or an item cannot be moved.
        """
        left, bytes_left = self._queue.policy.max_expire_sweep, SWEEP_BYTES
        while (item := self._first_expired()) is not None:
            if not left or bytes_left <= 0:
                return True
            left -= 1
            bytes_left -= len(item.payload) + ITEM_OVERHEAD
            self._expire(item)
        return False

    def _first_expired(self) -> Optional[Item]:
        item = self._contents.read_first()
        return item if item is not None and item.expiry and item.expiry <= self._commit.now else None

    def _expire(self, item: Item) -> None:
        """
        Drop the item at the head, or move it to C{expire_to_queue}.

        @raise StoreError: it cannot be moved, and is still there.
        """
        target = self._queue.policy.expire_to_queue
        if target is not None:
            written = self._queue.durable or self._expiry.is_durable(target.encode())
            if written and not self._commit.health.writable:
                # This would not be written either, and each attempt would reopen the store.
                raise StoreError(self._commit.health.reason)
            if item.unloaded and not self._contents.load_first():
                return
        self._contents.take_first()
        if target is None:
            self._queue.consume(item)
        else:
            try:
                self._expiry.move(self._queue, item, target.encode(), Removal.EXPIRED)
            except StoreError:
                self._contents.give_back(item)
                raise
        self._count(Removal.EXPIRED)
