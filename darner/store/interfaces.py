"""
The seam between the queues and the store: a batch of changes, and where queues are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Optional

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from darner.values.items import Delayed, Generation, Item, Mark, QueueState, Step


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

        Every chunk but the last is L{darner.values.vocabulary.CHUNK_BYTES} long.
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
