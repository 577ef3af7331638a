"""
What a queue may hold, and for how long.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from darner.config.policies import QueueSettings
from darner.errors import QueueFull, StoreError
from darner.queues.ledger import Ledger
from darner.queues.producer_ids import ID_OVERHEAD
from darner.values.items import ITEM_OVERHEAD, LET_GO, Item

SWEEP_BYTES: Final = 1024 * 1024
"""About how many bytes of items, as they are in memory, are dropped in one go at most."""


class Bounded(Ledger):
    """
    A queue of which items are refused, discarded and expire, as its settings say.

    @ivar limited: whether these limit what it holds.
    """

    __slots__ = ("_lifetime", "_max_age", "_oldest", "limited")

    def _set_up(self) -> None:
        super()._set_up()
        self._oldest = (0, -1, 0)  # the queue's number, the id of an item that was at its head, and when it was put
        self.adopt(self.policy)

    def adopt(self, policy: QueueSettings) -> None:
        """Have these settings from now on.  Items keep the expiry that they have."""
        self.policy = policy
        self.limited = policy.max_items is not None or policy.max_bytes is not None
        if self.number is None:
            self._settle(policy.durable)
        self._synced = self.durable and policy.sync != "never"
        self._max_age = int((policy.max_age or 0) * 1000)
        self._lifetime = int((policy.max_queue_age or 0) * 1000)
        if self._lifetime and self.number is not None:
            self._watch()
        if self._seen is not None:
            self._seen.adopt()
        if self._retries is not None:
            self._retries.adopt()

    def make(self) -> None:
        super().make()
        if self._lifetime:
            self._watch()

    # Limits

    def make_room(self, size: int) -> None:
        """
        See that there is room for one more item: what has expired goes, and where the settings say so the oldest items
        that are to be had.  More of these than may be dropped in one go are dropped in the turns that follow.

        @param size: of the item, in bytes; no more than C{max_bytes}.
        @raise QueueFull: there is no room.
        """
        self.check_room(size)
        if self.policy.discard_old_when_full and self._is_over(1, size) and not self._drop_old(1, size):
            self._expiry.sweep(self)

    def check_room(self, size: int) -> None:
        """
        See whether there is room for one more item, or L{make_room} would see to it: nothing goes but what has expired.

        @param size: of the item, in bytes; no more than C{max_bytes}.
        @raise QueueFull: there is no room.
        """
        if self.policy.discard_old_when_full:
            if self._is_stuffed(size):
                raise QueueFull()
        elif self._is_over(1, size) and not self._drop_old(1, size):
            raise QueueFull()

    def _exceeds(self, items: int, size: int) -> bool:
        policy = self.policy
        return (policy.max_items is not None and items > policy.max_items) or (
            policy.max_bytes is not None and size > policy.max_bytes
        )

    def _is_stuffed(self, size: int) -> bool:
        """Whether there is no room for an item of that size though all be dropped that can be."""
        items, overhead = 1, 0
        if self._delays is not None:
            items += self._delays.count
            size += self._delays.bytes
        if not self.durable:
            overhead = items
            size += self._bytes_of_ids()
            if self._retries is not None:
                size += self._retries.set_aside_bytes
                overhead += self._retries.set_aside_count
        return self._exceeds(items, size + overhead * ITEM_OVERHEAD)

    def _bytes_of_ids(self) -> int:
        return self._seen.count * ID_OVERHEAD if self._seen is not None else 0

    def _is_over(self, items: int, size: int) -> bool:
        """Whether it would be over its limits with so many more items and bytes."""
        items += self.count
        size += self.bytes
        if self._delays is not None:
            items += self._delays.count
            size += self._delays.bytes
        if not self.durable:
            # It is for memory, which ids take as well, and items that are set aside.
            size += items * ITEM_OVERHEAD + self._bytes_of_ids()
        if self._retries is not None:
            # They are not to be had, as open ones are not.
            items -= self._retries.set_aside_count
            if self.durable:
                size -= self._retries.set_aside_bytes
        return self._exceeds(items, size)

    def _drop_old(self, items: int, size: int) -> bool:
        """
        Drop items at the head to make room, as many as may be dropped in one go.

        @return: whether there is room now.
        """
        left, bytes_left = self.policy.max_expire_sweep, SWEEP_BYTES
        while self._is_over(items, size):
            item = self._first()
            if item is None:
                # What is over then is set aside: to go on would be no use.
                return self.policy.discard_old_when_full
            if not left or bytes_left <= 0:
                return False
            left -= 1
            bytes_left -= len(item.payload) + ITEM_OVERHEAD
            if item.expiry and item.expiry <= self._commit.now:
                self._expire(item)
            elif self.policy.discard_old_when_full:
                self._discard(item)
            else:
                return False
        return True

    def _discard(self, item: Item) -> None:
        """Drop the item at the head, unless what came in its place cannot be written."""
        self._take_head()
        self._consume(item)
        self._commit.moved(self, item, "discarded")
        self.stats.discarded += 1
        self._expiry.stats.discarded += 1

    # Expiry

    def _perish(self, expiry: int) -> int:
        """@return: when an item expires that is put now and would by itself expire then."""
        if self._max_age:
            latest = self._commit.now + self._max_age
            expiry = min(expiry or latest, latest)
        self._perishable_id = self._next_id + 1
        self.perishable = True
        if self.count == self.set_aside_count:  # it will be at the head
            self._expiry.watch(self)
        return expiry

    @property
    def ends(self) -> int:
        """When the queue expires if it is empty then, in ms since the epoch; 0 is never."""
        return self._lifetime and self.created + self._lifetime

    def due(self) -> int:
        """
        @return: when the item at the head expires, in ms since the epoch; 0 where it never does, or there is none.
        @raise StoreError: it cannot be read.
        """
        item = self._glance()
        if item is None or item.id >= self._perishable_id:
            self.perishable = self._lifetime > 0
            return 0
        return item.expiry

    def _drop_expired(self) -> bool:
        """@return: whether there is more."""
        left, bytes_left = self.policy.max_expire_sweep, SWEEP_BYTES
        while (item := self._first()) is not None and item.expiry and item.expiry <= self._commit.now:
            if not left or bytes_left <= 0:
                return True
            left -= 1
            bytes_left -= len(item.payload) + ITEM_OVERHEAD
            self._expire(item)
        return False

    def _expire(self, item: Item) -> None:
        """
        Drop the item at the head, or have it moved where such items go.

        @raise StoreError: it cannot be moved, and is still there.
        """
        target = self.policy.expire_to_queue
        if target is not None:
            written = self.durable or self._expiry.is_durable(target.encode())
            if written and not self._commit.health.writable:
                # Nor will this be written: each attempt would open the store anew.
                raise StoreError(self._commit.health.reason)
            if item.payload is LET_GO and not self._load(item):
                return
        self._take_head()
        if target is None:
            self._consume(item)
        else:
            try:
                self._expiry.move(self, item, target.encode(), "expired_items")
            except StoreError:
                self._give_back(item)
                raise
        self.stats.expired_items += 1
        self._expiry.stats.expired_items += 1

    def _age(self, item: Item) -> int:
        """@return: how long ago an item was put, in ms; 0 where the clock was set back since."""
        return max(0, self._commit.now - item.time)

    @property
    def oldest_age(self) -> int:
        """How long the item at the head has been there, in ms; 0 where there is none, or it cannot be read."""
        item = self._head.first()
        if item is not None:
            return self._age(item)
        id = self.consumed.next_missing(self._head.read_id)
        if not self.count or id >= self._next_id:
            return 0
        for unwritten in (self._writing, self._fresh):
            if unwritten and unwritten[0].id <= id <= unwritten[-1].id:
                return self._age(unwritten[id - unwritten[0].id])
        if self._oldest[:2] != (self.number, id):
            # It is not taken into memory, where it would have the place of what is read; there may be many queues.
            assert self.number is not None
            with suppress(StoreError):
                for item in self._store.read(self.number, id, id + 1, 1):
                    self._oldest = (self.number, id, item.time)
        number, known, time = self._oldest
        return max(0, self._commit.now - time) if (number, known) == (self.number, id) else 0
