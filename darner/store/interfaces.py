"""
The interface between the queues and the engine that stores them.

L{IStore} has three parts.  Every engine answers the methods of L{IReads} at once: a queue calls them in the middle of a
turn and continues with the answer.  L{IWrites.write} is the only method that an engine may answer later, as a
replicated one must.  The methods of L{IReclaiming} run in worker threads and may be slow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Optional

from zope.interface import Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from darner.store.backup.capture import Capture
    from darner.store.batch import Batch
    from darner.values.items import Imported, Item, QueueState, Step


class IReads(Interface):
    """
    Methods that answer at once, in the reactor's thread: local reads, and what the engine knows in memory.

    No engine may return a Deferred from them.  Queues rely on it: nothing happens to a queue between a read and the use
    of its result.
    """

    def recover() -> Iterator[QueueState]:
        """
        Read the state of every queue, once, at the start, before anything is written.  The time is proportional to the
        number of queues and of items whose attempts are counted, not to the length of the queues.
        """

    def leftovers() -> tuple[list[int], list[int]]:
        """@return: what the reclaimer starts with: the numbers of deleted queues, and of streams that no item holds."""

    def new_number() -> int:
        """
        Return a number for a new queue, never returned before.

        The turn that puts the first item creates the queue and cannot wait for its number; so an engine reserves many
        at once.
        """

    def new_stream() -> int:
        """As L{new_number}, for the stream of an item that begins to arrive.  @return: a number, at least 1."""

    def read(number: int, start: int, stop: int, max_bytes: int) -> list[Item]:
        """
        Read written items, with which a queue fills its window.

        @return: the items with ids from C{start} up to, not including, C{stop}, in order, consumed or not.  It reads
            run by run until C{max_bytes} of payload are reached, at least one run if there is any.
        """

    def read_delayed(
        number: int, since: int, until: int, max_bytes: int, after: int = 0
    ) -> tuple[list[tuple[int, Item]], Optional[int]]:
        """
        Find delayed items that are due.  One batch puts them on the queue and deletes them here.

        @param since: the start of the search, in ms since the epoch; no item is due before.  The engine does not look
            at the deletion marks before it.
        @param until: the end of the search, in ms since the epoch, included.
        @param after: the id at which the search starts among the items that are due at C{since}.
        @return: items with the times when they are due, ordered by time and then by id, until C{max_bytes} of payload
            are reached; and the time when the next one is due, C{None} if there is none.
        """

    def seen(generation: int, id: bytes) -> Optional[int]:
        """
        Look an id up, for deduplication.  If an engine answered later, a client could put the same id in between.

        @return: when an item was put with this id, as L{Batch.seen} records it; C{None} if none was.
        """

    def imported(number: int) -> list[Imported]:
        """@return: what was imported into a queue, as L{Batch.imported} records it."""

    def chunk(stream: int, index: int) -> bytes:
        """
        Read a chunk of a large item, to send it to a client.

        @raise StoreError: also if there is no such chunk.
        """

    def pressed() -> bool:
        """@return: whether the store is behind with its compactions, so that large payloads should wait."""

    def space() -> Optional[tuple[int, int]]:
        """@return: free and total bytes of the store's file system; C{None} if they are unknown."""

    def worn() -> bool:
        """@return: whether L{IWrites.renew} is due, so that what the engine notes for itself stays short."""

    def uncompacted() -> bool:
        """@return: whether L{compact<IReclaiming.compact>} has anything to do, also from an earlier process."""


class IWrites(Interface):
    """
    The methods that write the changes of a turn.  Only one write runs at a time.

    L{write} is the only method that may return a Deferred in another engine.  The commit relies only on getting an
    answer, and on the order of writes.  It already waits for a write with C{sync}, which runs in a thread: it answers
    no client before, and collects the changes that arrive meanwhile for the next write.
    """

    def write(batch: Batch, sync: bool = False) -> None:
        """
        Write a batch.  When this returns, the changes survive a crash of the process; with C{sync} also of the machine.

        It is called in the reactor's thread without C{sync}, in a worker thread with it.

        @raise StoreError: nothing was written, unless the error is C{uncertain}.
        """

    def mend() -> None:
        """
        Make the store writable again after a failed write.  Called before each write, in the reactor's thread; quick.

        @raise StoreError: this is not possible now.  The caller may try again later.
        """

    def renew() -> None:
        """
        Begin anew what the engine notes for itself, if that is due and nothing prevents it.  Called in the reactor's
        thread, not while a thread writes; quick after L{IReclaiming.settle}.

        @raise StoreError: the store has to be mended before it can be used again.
        """

    def ready() -> None:
        """
        Check whether the store would accept a put.  Called in the reactor's thread, not while a thread writes; quick.

        @raise StoreError: why it would not.
        """


class IReclaiming(Interface):
    """
    Background work in steps.  Called in worker threads, concurrently with reads and writes; slow and blocking.
    """

    def reclaim(number: int, start: int, stop: int, next_id: int, limit: int) -> Step:
        """
        Delete consumed items, in one bounded step.

        @param start: start of an interval of ids that is recorded as consumed.
        @param stop: its end.
        @param next_id: the id at which this step starts: C{start}, or what the step before returned.
        @param limit: the approximate number of runs or chunks to delete.
        """

    def reclaim_queue(number: int, next_id: int, limit: int) -> Step:
        """
        Delete the contents of a deleted queue, or what L{Batch.discard} names, in one bounded step as L{reclaim} does.

        @param next_id: 0 at first, then what the step before returned; opaque.
        """

    def reclaim_stream(stream: int, next_index: int, limit: int) -> Step:
        """
        Delete a stream that no item holds, in one bounded step as L{reclaim} does.

        If another item came to L{Batch.share} the stream meanwhile, the stream stays and is no longer one of the
        L{leftovers<IReads.leftovers>}.
        """

    def delayed_deleted(number: int, since: int, until: int) -> None:
        """Record that delayed items due between these times were deleted, so that L{compact} compacts there."""

    def settle() -> None:
        """Prepare for L{IWrites.renew}."""

    def compact(wanted: Callable[[], bool] = ..., all: bool = True) -> None:
        """
        Give the disk space of deleted records back to the file system.  May take seconds.

        @param wanted: called from time to time; the compaction stops when it returns false.
        @param all: whether of all records; else only where there is much, as others have to wait for it.
        """


class IBackedUp(Interface):
    """A store on disk, whose files can be backed up while it is open."""

    def capture(proceed: Callable[[], None], wall: Callable[[], float]) -> Capture:
        """
        Get hold of its files as of one moment between two writes.  Called in a worker thread, concurrently with
        everything.

        @param proceed: is called from time to time; it raises an error to give up.
        @param wall: the time in seconds since the epoch.
        @raise StoreError: this is not possible now.
        """


class IStore(IReads, IWrites, IReclaiming):
    """
    A store of queues.

    Every method may raise L{darner.errors.StoreError}.  Every implementation passes `test/store_contract.py`.
    """

    def close() -> None:
        """Close the store.  No other thread may be in one of its methods.  Idempotent."""


class IReplicatedStore(IStore):
    """
    A store whose writes go through a log that several nodes share.

    L{commit} takes the place of L{IWrites.write}.  What the methods of L{IReclaiming} delete, and which numbers are
    reserved, is written with the next commit.
    """

    def check_room() -> None:
        """
        Check whether a batch that puts something may be committed.

        @raise StoreError: why it may not; nothing was done.
        """

    def commit(batch: Batch) -> Deferred[None]:
        """
        Append a batch, which may be empty, to the log, and write it here.

        The Deferred fires when that is done.  It never fails: where somebody else leads by now, or the batch cannot be
        written here, it does not fire, and the process ends.  So whoever reads the store is told at once what the batch
        will have changed, but must tell nobody before the Deferred fires.

        Several may be in flight.  They are done in the order of the calls, and never within one.
        """
