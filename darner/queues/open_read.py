"""
An item that a reader has, and has yet to close or give back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from darner.queues.storage import Storage
from darner.values.items import Item

if TYPE_CHECKING:
    from darner.queues.fifo import Fifo


class OpenRead:
    """
    An item that was taken tentatively: it is neither to be had nor consumed until it is closed or aborted.

    @ivar late: whether it was given back as it was open for too long, behind the back of whoever opened it.
    @ivar since: when it was opened or extended, where the queue asks for that.
    """

    __slots__ = ("_storage", "fifo", "item", "late", "since")

    def __init__(self, fifo: Fifo, storage: Storage, item: Item) -> None:
        self.fifo = fifo
        self.item = item
        self.late = False
        self.since = 0.0
        self._storage = storage

    @property
    def is_open(self) -> bool:
        """Whether it still is: not closed, not aborted, the queue not deleted under it, and its item really stored."""
        return not self.late and self._storage.contents.open.get(self.item.id) is self.item

    @property
    def refused(self) -> bool:
        """Whether the store refused the item, so that there never was one."""
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
        Give the item back, ahead of all that came after it; where it was opened too often, or there is a
        C{retry_delay}, see L{darner.queues.retries.Retries.give_back}.

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
        Have the time for which it may be open begin anew.

        @return: whether it was open.
        """
        if not self.is_open:
            return False
        if self._storage.sides.retries is not None:
            self._storage.sides.retries.extend(self)
        return True

    def time_out(self) -> None:
        """It was open for too long: give it back."""
        self.abort()
        self.late = True
