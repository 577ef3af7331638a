"""
Interfaces between the parts of a queue, and between a queue and the reclaimer and expiry that all queues share.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Protocol

from darner.store.batch import Batch
from darner.values.items import Item
from darner.values.stats import Removal, ServerStats


class Side(Protocol):
    """Data that a queue keeps beside its items, under other numbers than its own."""

    @property
    def pending(self) -> bool:
        """Whether it has data for which the queue must exist."""

    def write_to(self, batch: Batch, puts: bool) -> None:
        """Add the changes to the batch; without C{puts} only those that take no disk space."""

    def written(self) -> None:
        """Called when the batch is in the store."""

    def refuse(self, ids: set[int], uncertain: bool) -> None:
        """
        Called when the batch was not written, before L{not_written}: drop what was put with it.

        @param ids: the ids of the refused items of the queue.
        @param uncertain: as in L{darner.queues.turn.Changing.refuse}.
        """

    def not_written(self) -> None:
        """Add the removals of the batch to the next one."""

    def flush(self, open: Collection[int]) -> list[int]:
        """
        Drop the data of all items except the open ones.

        @param open: the ids of the open items.
        @return: the numbers whose data in the store is to be deleted.
        """

    def delete(self) -> list[int]:
        """
        Called when the queue is deleted, or the store refused to create it.

        @return: the numbers whose data in the store is to be deleted.
        """

    def stop(self) -> None:
        """Stop all timers."""


class Reclaims(Protocol):
    """The reclaimer of the disk space of consumed items, as a queue sees it."""

    def intervals(self, queue: Any) -> list[tuple[int, int]]:
        """@return: the intervals of consumed ids to reclaim once they are written; empty while there is too little."""

    def reclaim(self, queue: Any, number: int, intervals: list[tuple[int, int]]) -> None:
        """Reclaim these ids, which the store has as consumed."""

    def queue(self, number: int) -> None:
        """Reclaim the data under this number, whose deletion is written."""

    def delayed(self, number: int, since: int, until: int, size: int) -> None:
        """Reclaim C{size} bytes of delayed items with due times between C{since} and C{until}."""

    def stream(self, stream: int) -> None:
        """Reclaim a stream, unless an item in the store refers to it."""

    def pin(self, stream: int) -> None:
        """Keep a stream until L{unpin} was called as often as this."""

    def unpin(self, stream: int) -> None:
        """Undo one call of L{pin}."""


class Expires(Protocol):
    """What drops expired items and queues, as a queue sees it."""

    stats: ServerStats
    """The server's counters."""

    move: Callable[[Any, Item, bytes, Removal], None]
    """Moves an item that was taken out of memory to another queue (`Queues.move`)."""

    is_durable: Callable[[bytes], bool]
    """Whether puts on the queue of that name are written to disk (`Queues.is_durable`)."""

    def watch(self, queue: Any) -> None:
        """Check the queue soon: its head has changed, and items in it may expire."""

    def sweep(self, queue: Any) -> None:
        """Call the queue's C{sweep_on} in a later turn, as more of its items are to be dropped."""
