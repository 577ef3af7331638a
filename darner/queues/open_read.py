"""
An open read: an item that a client has, and has yet to close or abort.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from darner.queues.storage import Storage
from darner.values.items import Item

if TYPE_CHECKING:
    from darner.queues.fifo import Fifo


class OpenRead:
    """
    An item that was taken tentatively.  It is neither available nor consumed until the read is closed or aborted.

    @ivar opened: when it was opened, in ms since the epoch.
    @ivar since: when it was opened or extended, by the monotonic clock, if the queue has L{Retries}.
    """

    __slots__ = ("_late", "_storage", "fifo", "item", "opened", "since")

    def __init__(self, fifo: Fifo, storage: Storage, item: Item, opened: int) -> None:
        self.fifo = fifo
        self.item = item
        self.opened = opened
        self._late = False
        self.since = 0.0
        self._storage = storage

    @property
    def is_open(self) -> bool:
        """False once it is closed, aborted or timed out, the queue is deleted, or the item's put is refused."""
        return not self._late and self._storage.contents.open.get(self.item.id) is self.item

    @property
    def late(self) -> bool:
        """Whether the read has ended by itself, without its reader: it has timed out, or somebody withdrew the item."""
        withdrawn = self._storage.contents.withdrawn
        return self._late or (withdrawn is not None and self.item.id in withdrawn)

    @property
    def refused(self) -> bool:
        """Whether the store refused the item's put."""
        return self.item.refused

    def close(self) -> bool:
        """
        Consume the item.

        @return: whether it was open.
        """
        if not self.is_open:
            return False
        del self._storage.contents.open[self.item.id]
        self._storage.consume(self.item)
        return True

    def abort(self) -> bool:
        """
        Give the item back, to its place in the queue, or as L{darner.queues.retries.Retries.give_back} says.

        @return: whether it was open.
        """
        if not self.is_open:
            return False
        storage = self._storage
        del storage.contents.open[self.item.id]
        if storage.sides.retries is None:
            storage.contents.give_back(self.item)
        else:
            storage.sides.retries.give_back(self)
        storage.stats.canceled_transactions += 1
        self.fifo.serve()
        return True

    def touch(self) -> bool:
        """
        Restart the timeout.

        @return: whether it was open.
        """
        if not self.is_open:
            return False
        if self._storage.sides.retries is not None:
            self._storage.sides.retries.extend(self)
        return True

    def time_out(self) -> None:
        """Give the item back, as it was open for too long."""
        self.abort()
        self._late = True
