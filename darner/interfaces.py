"""
The seams: what one room of the house may expect of another, and what those who embed darner may rely on or replace.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Optional

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from darner.items import Delayed, Generation, Item, Mark, QueueState, Step
    from darner.stats import Health


class IBatch(Interface):
    """Changes that a store makes together or not at all.  Building one does no input or output."""

    empty = Attribute("Whether there is nothing in it yet, as C{bool}.")

    def create(name: bytes, number: int, created: int) -> None:
        """Make a queue.  C{created} is in ms since the epoch."""

    def remove(name: bytes, number: int) -> None:
        """Forget a queue; what it held is left to L{IStore.reclaim_queue}."""

    def discard(number: int) -> None:
        """Give up what is kept under a number beside a queue; it is left to L{IStore.reclaim_queue}."""

    def put(number: int, items: Sequence[Item], bytes_put: int) -> None:
        """
        Put items on a queue.

        The stream of a large one is held by its item from here on.

        @param items: items with consecutive ids that follow those put before.
        @param bytes_put: payload bytes of all items ever put on the queue, these included.
        """

    def share(stream: int, number: int, id: int) -> None:
        """
        Say that an item holds its stream together with others.

        It is said of all of them before the first is consumed, also of the one that held it alone before, and in the
        batch in which the others are put.  The stream stays until the last one is reclaimed.
        """

    def mark(number: int, mark: Mark) -> None:
        """Write down how far a queue is consumed."""

    def consume(number: int, changes: Sequence[tuple[int, int]]) -> None:
        """
        Write down which ids above the low-water mark are consumed.

        @param changes: intervals C{(start, stop)} that are new or longer; C{(start, start)} is one that is gone.
        """

    def attempts(number: int, changes: Sequence[tuple[int, int]]) -> None:
        """
        Write down how often items were opened.

        @param changes: an item's id and how often; 0 forgets it.
        """

    def delayed(number: int, delayed: Optional[Delayed]) -> None:
        """Write down what there is of a queue's delayed items; C{None}: nothing."""

    def delay(number: int, items: Sequence[tuple[int, Item]]) -> None:
        """
        Keep items until they are due.

        The stream of a large one is held by it from here on; who L{share}s it, does so under these numbers.

        @param number: that of the delayed items, not of the queue.
        @param items: each with when it is due, in ms since the epoch; its id was never given before under this number.
        """

    def due(number: int, items: Sequence[tuple[int, Item]]) -> None:
        """
        Keep delayed items no longer, in the batch in which they are put on the queue.  The stream of a large one is
        held by who is said to L{share} it then.
        """

    def undelay(number: int, items: Sequence[tuple[int, Item]]) -> None:
        """Take delayed items away that were refused, if they are there; nobody holds their streams."""

    def generations(number: int, current: Optional[Generation], previous: Optional[Generation]) -> None:
        """Write down which generations of ids a queue has."""

    def seen(generation: int, id: bytes, time: int) -> None:
        """
        Write down that an item was put under an id.

        @param generation: the number of the generation.
        @param id: 16 bytes that stand for it.
        @param time: when it was, in ms since the epoch; 0 forgets the id.
        """

    def chunk(stream: int, index: int, data: bytes) -> None:
        """
        Add the chunk C{index} (0, 1, ...) to a stream that no item holds yet.

        Every chunk but the last is L{darner.records.CHUNK_BYTES} long.
        """


class IStore(Interface):
    """
    Where queues are kept.

    Reads and writes are made from the reactor's thread, but for C{write(..., sync=True)}, C{reclaim...} and C{compact},
    which are slow and made for a worker thread.  Every method may raise L{darner.errors.StoreError}.  Every
    implementation passes `test/store_contract.py`.
    """

    def recover() -> list[QueueState]:
        """
        @return: every queue.  What this reads is proportional to the number of queues, and of items whose attempts are
            counted, not to the queues' length.
        """

    def leftovers() -> tuple[list[int], list[int]]:
        """@return: the numbers of deleted queues and of streams that no item holds, for the reclaimer."""

    def new_number() -> int:
        """@return: a number for a new queue, never given before."""

    def new_stream() -> int:
        """@return: a number, from 1, for a new stream, never given before."""

    def batch() -> IBatch:
        """@return: a new, empty batch."""

    def write(batch: IBatch, sync: bool = False) -> None:
        """
        Make the changes of a batch.  When this returns they outlive the process; with C{sync} also the machine.

        @raise StoreError: nothing of the batch was changed.
        """

    def pressed() -> bool:
        """@return: whether the store has fallen behind with its own work, so that large payloads had better wait."""

    def mend() -> None:
        """
        Make the store writable again after a write failed; to be called before each write, from the reactor's thread.

        @raise StoreError: it cannot be made so now.  Nothing is lost by trying again later.
        """

    def ready() -> None:
        """
        See whether something could be put now; to be called from the reactor's thread, and not while a thread writes.

        @raise StoreError: why it could not.
        """

    def space() -> Optional[tuple[int, int]]:
        """@return: how many bytes are free where the store is kept, and how many there are; C{None} if nobody knows."""

    def read(number: int, start: int, stop: int, max_bytes: int) -> list[Item]:
        """
        @return: the items with ids from C{start} up to, not including, C{stop}, in order, consumed or not; those from
            the first run on until C{max_bytes} of payload are reached, at least one run where there is any.
        """

    def seen(generation: int, id: bytes) -> Optional[int]:
        """@return: when an item was put under this id, as L{IBatch.seen} has it; C{None} where none was."""

    def chunk(stream: int, index: int) -> bytes:
        """
        @return: a chunk of a stream.
        @raise StoreError: also when there is no such chunk.
        """

    def read_delayed(
        number: int, since: int, until: int, max_bytes: int
    ) -> tuple[list[tuple[int, Item]], Optional[int]]:
        """
        Find delayed items that are due.

        @param since: nothing is due before; what is due later is found without a look at what was before.
        @param until: up to when they are due, in ms since the epoch.
        @return: items and when each is due, in that order and else in that of their ids, until C{max_bytes} of payload
            are reached; and when the next one is due, C{None} where there is none.
        """

    def spent(number: int, since: int, until: int) -> None:
        """Say that delayed items that were due between these are kept no longer, and their room can be compacted."""

    def reclaim(number: int, start: int, stop: int, next_id: int, limit: int) -> Step:
        """
        Give up the room of consumed items, in one bounded step.

        @param start: start of an interval of ids that is written down as consumed.
        @param stop: its end.
        @param next_id: the id to start looking at (C{start}, or where the step before stopped).
        @param limit: about how many runs or chunks to give up.
        """

    def reclaim_queue(number: int, next_id: int, limit: int) -> Step:
        """
        Give up the room of a deleted queue, or of what was discarded, in one bounded step as L{reclaim} does.

        @param next_id: 0 at first, then what the step before gave; it means nothing to others.
        """

    def reclaim_stream(stream: int, next_index: int, limit: int) -> Step:
        """
        Give up the room of a stream that no item holds, in one bounded step as L{reclaim} does.

        It is left alone, and not among the L{leftovers} any more, where an item came to L{IBatch.share} it while those
        that had held it were reclaimed.
        """

    def uncompacted() -> bool:
        """@return: whether there is anything to L{compact}, also from an earlier process."""

    def compact(wanted: Callable[[], bool] = ...) -> None:
        """
        Give the room of all that was reclaimed back to the file system.  May take seconds.

        @param wanted: asked now and then whether to go on; by default to the end.
        """

    def close() -> None:
        """Close the store.  No other thread may be in any of its methods.  Idempotent."""


class IMessage(Interface):
    """An item, as applications see it."""

    queue = Attribute("The name of its queue, as C{bytes}.")
    payload = Attribute("Its payload, as C{bytes}.")
    flags = Attribute("The 32 bit number that was set with it, as C{int}.")


class IOpenRead(IMessage):
    """
    An item that was taken tentatively.

    Also an async context manager: closed on a normal exit, aborted when an exception leaves the block.
    """

    is_open = Attribute(
        "Whether it is neither closed nor aborted nor open for too long, its queue not deleted, and the service not"
        " stopped, as C{bool}."
    )

    def close() -> Deferred[None]:
        """
        The work is done: the item is gone for good.  Fires once that is written; harmless when no longer open.

        Fails with L{darner.errors.Stopped} once the service has stopped: the item went back to its queue.
        """

    def abort() -> Deferred[None]:
        """
        Give the item back to the head of its queue, or as the queue's settings say.  Harmless when no longer open.
        """

    def touch() -> bool:
        """
        Have the time for which it may be open (C{open_timeout}) begin anew.

        @return: whether it is open.
        """


class IQueueService(Interface):
    """
    Queues by name, for applications (`docs/embedding.rst`).

    A queue name is bytes, as on the wire.  Every method that returns a Deferred may fail with a
    L{darner.errors.DarnerError}: L{darner.errors.ClientError} for what was asked, L{darner.errors.ServerError} for what
    could not be done; then nothing was changed.
    """

    def put(
        queue: bytes,
        payload: bytes,
        flags: int = 0,
        expiry: int = 0,
        sync: bool = False,
        *,
        delay: Optional[float] = None,
        id: bytes = b"",
    ) -> Deferred[None]:
        """
        Put an item at the end of a queue.

        @param flags: a 32 bit number that is kept with it.
        @param expiry: when it expires, by memcache's rules: 0 never; below 1,000,000 seconds from now; else Unix time.
        @param sync: fire only when the item is on stable storage.
        @param delay: after how many seconds it is to be had; by default as the queue's settings say.
        @param id: what the item is called, so that it is put once only: 1 to 250 bytes as in the name of a queue.
            Within the queue's C{dedupe_window} a second C{put} under the same id puts nothing, and fires as the first.
        @return: fires with C{None} once the item outlives the process.  Fails with L{darner.errors.QueueFull} where the
            queue is at its limit and refuses it.
        """

    def get(queue: bytes, timeout: Optional[float] = 0) -> Deferred[Optional[IMessage]]:
        """
        Take the item at the head of a queue.

        @param timeout: how long to wait for one, in seconds; C{None} for ever.
        @return: fires with an L{IMessage}, or with C{None} where there is nothing.  Cancelling it loses no item.
        """

    def open(queue: bytes, timeout: Optional[float] = 0) -> Deferred[Optional[IOpenRead]]:
        """As L{get}, but tentatively: fires with an L{IOpenRead} or C{None}."""

    def peek(queue: bytes, timeout: Optional[float] = 0) -> Deferred[Optional[IMessage]]:
        """As L{get}, but the item stays where it is."""

    def items(queue: bytes) -> AsyncIterator[IOpenRead]:
        """
        Iterate over a queue as long as one likes, waiting for items: each is an open read, closed when the loop asks
        for the next one and aborted when the loop is left by an error.
        """

    def flush(queue: bytes) -> Deferred[None]:
        """Consume every item of a queue that is not open."""

    def delete(queue: bytes) -> Deferred[None]:
        """Forget a queue and all its items, the open ones too.  Not an error where there is no such queue."""

    def requeue(origin: bytes, target: bytes, count: Optional[int] = None) -> Deferred[int]:
        """
        Move items from one queue to the end of another, in their order; each is whole in one of the two at every
        instant.

        @param count: how many at most; by default all that there are when it begins.
        @return: fires with how many were moved.  Cancelling it leaves the rest where they are.
        """

    def health() -> Health:
        """@return: whether items can be put, and if not, why and since when."""

    def count(queue: bytes) -> int:
        """@return: how many items are to be had; 0 where there is no such queue."""

    def names() -> list[bytes]:
        """@return: the names of all queues, sorted."""
