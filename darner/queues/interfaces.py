"""
What the parts of a queue expect of each other, and of what is around the queue.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Protocol

from darner.store.batch import Batch
from darner.values.items import Item
from darner.values.stats import Removal, ServerStats


class Side(Protocol):
    """What a queue keeps beside its items, under numbers of its own."""

    @property
    def pending(self) -> bool:
        """Whether there is anything in it for which the queue has to exist."""

    def write_to(self, batch: Batch, puts: bool) -> None:
        """Add what changed to the batch, and without C{puts} nothing that takes space on the disk."""

    def written(self) -> None:
        """The batch is in the store."""

    def refuse(self, ids: set[int], uncertain: bool) -> None:
        """
        It is not, and what was put with it never will be; called before L{not_written}.

        @param ids: of the items of the queue that never will be.
        @param uncertain: as in L{darner.queues.commit.Changing.refuse}.
        """

    def not_written(self) -> None:
        """What the batch took away is to be written with the next turn."""

    def flush(self, open: Collection[int]) -> list[int]:
        """
        Forget the items.

        @param open: the ids of those that are open, and stay.
        @return: the numbers under which nothing is kept any more.
        """

    def delete(self) -> list[int]:
        """
        The queue is deleted, or the store will never know it.

        @return: the numbers under which something was kept.
        """

    def stop(self) -> None:
        """Do nothing by the clock any more."""


class Reclaims(Protocol):
    """Who reclaims the disk space of consumed items, as a queue sees it."""

    def intervals(self, queue: Any) -> list[tuple[int, int]]:
        """@return: the intervals of consumed ids to reclaim once they are written; none while it is not worth it."""

    def reclaim(self, queue: Any, number: int, intervals: list[tuple[int, int]]) -> None:
        """These ids are written down as consumed."""

    def queue(self, number: int) -> None:
        """The deletion of the queue with this number is written down."""

    def delayed(self, number: int, since: int, until: int, size: int) -> None:
        """So many bytes of delayed items that were due between these are not kept any more."""

    def stream(self, stream: int) -> None:
        """If no item in the store holds this stream, none will."""

    def pin(self, stream: int) -> None:
        """This stream stays until as many calls of L{unpin} were made."""

    def unpin(self, stream: int) -> None:
        """Whoever called L{pin} needs it no more."""


class Expires(Protocol):
    """Who drops what has expired, as a queue sees it."""

    stats: ServerStats
    """The server's counters."""

    move: Callable[[Any, Item, bytes, Removal], None]
    """Puts an item that was taken out of memory on another queue (`Queues.move`)."""

    is_durable: Callable[[bytes], bool]
    """Whether what is put on the queue of that name is written to disk (`Queues.is_durable`)."""

    def watch(self, queue: Any) -> None:
        """Something changed at the head of the queue, which may hold what expires."""

    def sweep(self, queue: Any) -> None:
        """There is more to be dropped: call its C{sweep_on} in a later turn."""
