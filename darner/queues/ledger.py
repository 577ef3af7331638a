"""
What the store knows of a queue's items, and what it does not know yet.

Every change goes to memory at once, and to the store at the end of the turn, which writes all of it or refuses it.
What is in the queue follows from the next id and the set of consumed ids alone.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import chain
from typing import Optional

from darner.queues.commit import GroupCommit
from darner.queues.interfaces import Reclaims
from darner.queues.turn import Changing
from darner.store.batch import Batch
from darner.values.items import ITEM_OVERHEAD, Item, Mark, QueueState


class Ledger:
    """
    The ids of a queue's items, from when it is made until it is deleted.

    Each id below C{next_id} is consumed or an item, and each item is in the store, in the batch that is being written
    (C{_writing}) or to be written with the next one (C{_fresh}), in the order of their ids.

    @ivar number: the number under which the store keeps the queue; 0 while it does not exist.
    @ivar created: when it was made, in ms since the epoch; 0 while it does not exist.
    @ivar made: whether the store knows it.
    @ivar next_id: the id of the item that is put next.
    @ivar consumed: the ids of all items that are gone.
    @ivar floor: everything below this id is reclaimed.
    @ivar unreclaimed: about how many bytes were consumed since the reclaimer last looked.
    """

    __slots__ = (
        "_bytes_consumed", "_bytes_put", "_commit", "_fresh", "_handed_changes", "_making", "_marked", "_queue",
        "_shares", "_writing", "consumed", "created", "floor", "made", "next_id", "number", "unreclaimed",
    )  # fmt: skip

    def __init__(self, queue: Changing, commit: GroupCommit, state: QueueState, made: bool) -> None:
        """@param queue: what the turn is told of when there is something to write."""
        self._queue = queue
        self._commit = commit
        self.number = state.number
        self.created = state.created
        self.made = made
        self._making = False  # in the batch that is being written
        self.next_id = state.next_id
        self._bytes_put = state.bytes_put
        self._bytes_consumed = state.bytes_consumed
        self.floor = state.floor
        self.consumed = state.consumed
        self.unreclaimed = 0
        self._marked = False  # whether it is to be written how far the queue is consumed
        self._handed_changes: list[tuple[int, int]] = []  # of the consumed ids, in the batch that is being written
        self._fresh: list[Item] = []  # put since the last batch
        self._writing: list[Item] = []  # in the batch that is being written
        self._shares: list[tuple[int, int]] = []  # streams that are held by others as well, and by which item here

    def make(self, number: int) -> None:
        """The queue exists from now on, under this number."""
        self.number = number
        self.created = self._commit.now

    @property
    def begun(self) -> bool:
        """Whether the store knows the queue, or will when the batch is in it that is being written."""
        return self.made or self._making

    # What changes

    def append(self, item: Item) -> None:
        """Put an item at the end; it has the next id."""
        self.next_id = item.id + 1
        self._bytes_put += item.size
        self._fresh.append(item)
        self._commit.changed(self._queue)

    def share(self, item: Item) -> None:
        """Others hold the stream of this item as well."""
        self._shares.append((item.stream, item.id))

    def consume(self, item: Item) -> None:
        self.consumed.add(item.id, item.id + 1)
        self._bytes_consumed += item.size
        self.unreclaimed += item.size + ITEM_OVERHEAD
        self._marked = True
        self._commit.changed(self._queue)

    def restore(self, item: Item) -> bool:
        """
        That the item was consumed could not be written.

        @return: whether it is an item again; it may be one already.
        """
        if item.id not in self.consumed:
            return False
        self.consumed.discard(item.id)
        self._bytes_consumed -= item.size
        self.remark()
        return True

    def lose(self, start: int, stop: int) -> int:
        """
        Items from C{start} up to C{stop} should be in the store and are not: take them for consumed.

        @return: how many there are.
        """
        lost = 0
        start = self.consumed.next_missing(start)
        while start < stop:
            self.consumed.add(start, start + 1)
            lost += 1
            start = self.consumed.next_missing(start)
        if lost:
            self.remark()
        return lost

    def lose_bytes(self, size: int) -> None:
        """So many bytes of payload are lost with what L{lose} says."""
        self._bytes_consumed += size

    def flush(self, open: Collection[int], count: int, size: int) -> None:
        """
        Consume all but what is open.

        @param count: how many items that are.
        @param size: how many bytes of payload they have.
        """
        start = self.consumed.low
        for id in sorted(open):
            self.consumed.add(start, id)
            start = id + 1
        self.consumed.add(start, self.next_id)
        self._bytes_consumed += size
        self.unreclaimed += size + count * ITEM_OVERHEAD
        self.remark()

    def remark(self) -> None:
        """Write the mark anew with the next turn."""
        self._marked = True
        self._commit.changed(self._queue)

    def changed(self) -> None:
        """Have L{Changing.written} called at the end of this turn."""
        self._commit.changed(self._queue)

    # What the store does not have yet

    @property
    def unwritten_id(self) -> int:
        """From which id on items are neither in the store nor in the batch that is being written."""
        return self._fresh[0].id if self._fresh else self.next_id

    @property
    def pending(self) -> bool:
        """Whether there are items to be written with the next turn."""
        return bool(self._fresh)

    def unwritten(self) -> list[Item]:
        """@return: the items that are not in the store yet, whether they are consumed or not."""
        return list(chain(self._writing, self._fresh))

    def find_unwritten(self, id: int) -> Optional[Item]:
        """@return: the item with this id; C{None} where the store has it."""
        for items in (self._writing, self._fresh):
            if items and items[0].id <= id <= items[-1].id:
                return items[id - items[0].id]
        return None

    def is_writing(self, item: Item) -> bool:
        """Whether the put of the item is in the batch that is being written, or is to be written after that."""
        return bool(self._writing) and item.id >= self._writing[0].id

    # The store

    def write_to(self, batch: Batch, name: bytes, puts: bool) -> bool:
        """
        Add what changed to the batch.

        @param puts: whether to add what was put.
        @return: whether it says how far the queue is consumed.
        """
        if puts:
            if not self.made:
                batch.create(name, self.number, self.created)
                self._making = True
            self._writing, self._fresh = self._fresh, []
            if self._writing:
                batch.put(self.number, self._writing, self._bytes_put)
            if self._shares:
                for stream, id in self._shares:
                    batch.share(stream, self.number, id)
                self._shares = []
        if not self._marked or not (puts or self.made):
            return False
        changes = self._handed_changes = self.consumed.take_changes()
        if self._fresh:
            mark, changes = self._part_mark(changes)
        else:
            self._marked = False
            mark = Mark(self.consumed.low, self.next_id, self._bytes_put, self._bytes_consumed, self.floor)
        batch.mark(self.number, mark)
        if changes:
            batch.consume(self.number, changes)
        return True

    def _part_mark(self, changes: list[tuple[int, int]]) -> tuple[Mark, list[tuple[int, int]]]:
        """
        @return: how far the queue is consumed but for the items that were put since the last batch.  They are not in
            the store yet, and if this process ends now they never were; the turn that puts them writes all of it.
        """
        first = self._fresh[0].id
        put = sum(item.size for item in self._fresh)
        consumed = sum(item.size for item in self._fresh if item.id in self.consumed)
        mark = Mark(
            min(self.consumed.low, first), first, self._bytes_put - put, self._bytes_consumed - consumed,
            min(self.floor, first),
        )  # fmt: skip
        self.consumed.put_back_changes(changes)
        return mark, [(start, min(stop, first)) for start, stop in changes if start < first]

    def written(self) -> None:
        """The batch is in the store."""
        if self._making:
            self.made, self._making = True, False
        if self._writing:
            self._writing = []
        if self._handed_changes:
            self._handed_changes = []

    def refuse(self) -> list[Item]:
        """
        The batch is not in the store, and what was put with it never will be.

        @return: the items that were put; they are refused.
        """
        self._making = False
        items, self._writing = self._writing, []
        for item in items:
            item.refused = True
        return items

    def not_written(self) -> None:
        """What was consumed is to be written with the next turn."""
        self._marked = True
        self.consumed.put_back_changes(self._handed_changes)
        self._handed_changes = []

    def abandon(self, deletions: Deletions) -> list[Item]:
        """
        The queue is deleted, and this is of no use any more.

        @return: the items that are in no batch, and never will be.
        """
        deletions.abandon(self._fresh, self._writing)
        return self._fresh


class Deletions:
    """
    What is left of what was deleted, until that is written: numbers under which the store has something that nobody
    needs any more, and items that may have been handed out, so that it matters whether their puts are refused.

    It outlives the ledger: a queue may be deleted and made again in one turn.
    """

    __slots__ = ("_abandoned", "_abandoning", "_handed_numbers", "_handed_queues", "_numbers", "_queues", "_reclaimer")

    def __init__(self, reclaimer: Reclaims) -> None:
        """@param reclaimer: who reclaims what the store has under these numbers."""
        self._reclaimer = reclaimer
        self._queues: list[int] = []  # numbers of queues, which go with their name
        self._numbers: list[int] = []  # and others
        self._handed_queues = 0
        self._handed_numbers = 0
        self._abandoned: list[Item] = []  # put since the last batch, before the queue was deleted
        self._abandoning: list[Item] = []  # in the batch that is being written

    @property
    def pending(self) -> bool:
        """Whether the store still has something under these numbers."""
        return bool(self._queues or self._numbers)

    @property
    def done(self) -> bool:
        """Whether nothing is left to be written or decided."""
        return not (self._queues or self._numbers or self._abandoned or self._abandoning)

    def add_queue(self, number: int) -> None:
        """The queue that the store knows by this number is deleted, or has to be if it is there."""
        self._queues.append(number)

    def add(self, numbers: list[int]) -> None:
        """Nothing else is kept under these numbers any more."""
        self._numbers += numbers

    def abandon(self, fresh: list[Item], writing: list[Item]) -> None:
        """
        Nobody can find these items any more.

        @param fresh: those that are in no batch.
        @param writing: those in the batch that is being written.
        """
        self._abandoned += fresh
        self._abandoning += writing

    def write_to(self, batch: Batch, name: bytes, puts: bool) -> None:
        for number in self._queues:
            batch.remove(name, number)
        for number in self._numbers:
            batch.discard(number)
        self._handed_queues = len(self._queues)
        self._handed_numbers = len(self._numbers)
        if puts:
            self._abandoning += self._abandoned
            self._abandoned = []

    def written(self) -> None:
        for number in chain(self._queues[: self._handed_queues], self._numbers[: self._handed_numbers]):
            self._reclaimer.queue(number)
        del self._queues[: self._handed_queues]
        del self._numbers[: self._handed_numbers]
        self._handed_queues = self._handed_numbers = 0
        self._abandoning = []

    def refuse(self) -> None:
        for item in self._abandoning:
            item.refused = True
        self._abandoning = []
