"""
The interface between the queues and the engine that stores them.

L{IStore} has three parts, by who waits for an answer.  What L{IReads} has is answered at once, in every engine: a queue
asks in the middle of a turn, and goes on with the answer.  The answer to L{IWrites.write} is the only one that an
engine may give later, as a replicated one has to.  What L{IReclaiming} has runs in worker threads, and may take its
time there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Optional

from zope.interface import Interface

if TYPE_CHECKING:
    from darner.store.batch import Batch
    from darner.values.items import Item, QueueState, Step


class IReads(Interface):
    """
    What is answered at once, in the reactor's thread: local reads, and what the engine knows in memory.

    No engine may return a Deferred from these.  Queues rely on it: between a read and the use of what it gave, nothing
    else happens to the queue.
    """

    def recover() -> list[QueueState]:
        """
        Read every queue, once, at the start.  What this reads is proportional to the number of queues, and of items
        whose attempts are counted, not to the queues' length.

        @return: every queue.
        """

    def leftovers() -> tuple[list[int], list[int]]:
        """@return: the numbers of deleted queues and of streams that no item holds, for the reclaimer, at the start."""

    def new_number() -> int:
        """
        A queue is made in the turn that puts its first item, so its number cannot be waited for.  An engine reserves
        many at once.

        @return: a number for a new queue, never given before.
        """

    def new_stream() -> int:
        """As L{new_number}, for the stream of an item that begins to arrive.  @return: a number from 1 on."""

    def batch() -> Batch:
        """@return: a new, empty batch."""

    def read(number: int, start: int, stop: int, max_bytes: int) -> list[Item]:
        """
        Read items that were written.  A queue fills its window with them while a client waits for the first, and takes
        it for granted that none of them is consumed meanwhile.

        @return: the items with ids from C{start} up to, not including, C{stop}, in order, consumed or not; those from
            the first run on until C{max_bytes} of payload are reached, at least one run where there is any.
        """

    def read_delayed(
        number: int, since: int, until: int, max_bytes: int
    ) -> tuple[list[tuple[int, Item]], Optional[int]]:
        """
        Find delayed items that are due.  They are put on the queue, and deleted here, with the same turn's batch.

        @param since: nothing is due before; what is due later is found without a look at what was before.
        @param until: up to when they are due, in ms since the epoch.
        @return: items and when each is due, in that order and else in that of their ids, until C{max_bytes} of payload
            are reached; and when the next one is due, C{None} where there is none.
        """

    def seen(generation: int, id: bytes) -> Optional[int]:
        """
        A put with an id is accepted or dropped by this; were it answered later, the same id could be put in between.

        @return: when an item was put under this id, as L{Batch.seen} records it; C{None} where none was.
        """

    def chunk(stream: int, index: int) -> bytes:
        """
        Read a part of a large item, while it is sent to a client.

        @return: a chunk of a stream.
        @raise StoreError: also when there is no such chunk.
        """

    def pressed() -> bool:
        """@return: whether the store has fallen behind with its own work, so that large payloads had better wait."""

    def space() -> Optional[tuple[int, int]]:
        """@return: how many bytes are free where the store is kept, and how many there are; C{None} if nobody knows."""

    def uncompacted() -> bool:
        """@return: whether there is anything to L{compact<IReclaiming.compact>}, also from an earlier process."""


class IWrites(Interface):
    """
    How the changes of a turn are written.  One write is under way at a time.

    L{write} may return a Deferred in another engine, and is the only method that may.  The commit relies on no more
    than that the answer comes, and that writes are made in order: with C{sync} it awaits it already, as that runs in a
    thread; it answers no client before, and gathers what arrives meanwhile for the next write.
    """

    def write(batch: Batch, sync: bool = False) -> None:
        """
        Make the changes of a batch.  When this returns they outlive the process; with C{sync} also the machine.

        Without C{sync} it is called in the reactor's thread; with it, in a worker thread.

        @raise StoreError: nothing of the batch was changed, unless the error says that this is C{uncertain}.
        """

    def mend() -> None:
        """
        Make the store writable again after a write failed.  Called before each write, in the reactor's thread;
        immediate.

        @raise StoreError: it cannot be made so now.  Nothing is lost by trying again later.
        """

    def ready() -> None:
        """
        See whether something could be put now.  Called in the reactor's thread, and not while a thread writes;
        immediate.

        @raise StoreError: why it could not.
        """


class IReclaiming(Interface):
    """
    Work in the background, a step at a time.  Called in worker threads, beside reads and writes; slow, and blocking.
    """

    def reclaim(number: int, start: int, stop: int, next_id: int, limit: int) -> Step:
        """
        Delete consumed items, in one bounded step.

        @param start: start of an interval of ids that is recorded as consumed.
        @param stop: its end.
        @param next_id: the id to start looking at (C{start}, or where the step before stopped).
        @param limit: about how many runs or chunks to delete.
        """

    def reclaim_queue(number: int, next_id: int, limit: int) -> Step:
        """
        Delete what a deleted queue held, or what was discarded, in one bounded step as L{reclaim} does.

        @param next_id: 0 at first, then what the step before gave; it means nothing to others.
        """

    def reclaim_stream(stream: int, next_index: int, limit: int) -> Step:
        """
        Delete a stream that no item holds, in one bounded step as L{reclaim} does.

        It stays, and is not among the L{leftovers<IReads.leftovers>} any more, where an item came to L{Batch.share} it
        while those that had held it were reclaimed.
        """

    def delayed_deleted(number: int, since: int, until: int) -> None:
        """Note that delayed items that were due between these times were deleted, so that L{compact} visits them."""

    def compact(wanted: Callable[[], bool] = ...) -> None:
        """
        Give the disk space of all that was reclaimed back to the file system.  May take seconds.

        @param wanted: asked now and then whether to go on; by default to the end.
        """


class IStore(IReads, IWrites, IReclaiming):
    """
    Where queues are kept.

    Every method may raise L{darner.errors.StoreError}.  Every implementation passes `test/store_contract.py`.
    """

    def close() -> None:
        """Close the store.  No other thread may be in any of its methods.  Idempotent."""
