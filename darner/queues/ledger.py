"""
The ids of a queue's items: which are in the store, and which are still to be written.

Memory changes at once, the store at the end of the turn, which writes all changes or refuses them.  The next id and the
set of consumed ids alone tell what the queue contains.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import chain
from typing import Final, Optional

from darner.queues.commit import GroupCommit
from darner.queues.deletions import Deletions
from darner.queues.turn import Changing
from darner.store.batch import Batch
from darner.store.records import LARGE
from darner.values.consumed import Consumed
from darner.values.items import ITEM_OVERHEAD, Item, Mark, QueueState

ENOUGH: Final = 2 * 8
"""
A turn that writes only one key leaves the deletion of fewer runs (two ids each) to a later one: a batch costs twice as
much as one key.
"""


class Ledger:
    """
    The ids of a queue's items, from its creation until its deletion.

    Each id below C{next_id} is consumed or an item.  Each item is in the store, in the batch that is being written
    (C{_writing}), or in the next batch (C{_fresh}), in the order of the ids.

    @ivar number: the number under which the store keeps the queue; 0 while it does not exist.
    @ivar created: when the queue was created, in ms since the epoch; 0 while it does not exist.
    @ivar made: whether the queue is in the store.
    @ivar next_id: the id of the next item.
    @ivar consumed: the ids of all consumed items.
    @ivar reclaimed: the ids of those that are not in the store.
    @ivar unreclaimed: approximate bytes consumed since the reclaimer last looked.
    @ivar freed: approximate bytes of these of which this ledger deletes the runs itself.
    @ivar due: whether the reclaimer wants to look with the next turn, however little there is.
    @ivar ask_at: the reclaimer is asked whether to look when C{unreclaimed} is at least this.
    """

    __slots__ = (
        "_bytes_consumed", "_bytes_put", "_commit", "_deletable", "_deleting", "_ended", "_fresh", "_handed_changes",
        "_handed_ended", "_large", "_making", "_marked", "_queue", "_shares", "_writing", "ask_at", "consumed",
        "created", "due", "freed", "made", "next_id", "number", "reclaimed", "unreclaimed",
    )  # fmt: skip

    def __init__(self, queue: Changing, commit: GroupCommit, state: QueueState, made: bool) -> None:
        """@param queue: registered with the turn when there are changes to write."""
        self._queue = queue
        self._commit = commit
        self.number = state.number
        self.created = state.created
        self.made = made
        self._making = False  # in the batch that is being written
        self.next_id = state.next_id
        self._bytes_put = state.bytes_put
        self._bytes_consumed = state.bytes_consumed
        self.consumed = state.consumed
        self.reclaimed = Consumed(state.floor)
        self.unreclaimed = self.freed = self.ask_at = 0
        self.due = False
        # Runs whose items are all consumed: the first and the last id of each, one after the other.
        self._ended: list[int] = []  # since the last batch
        self._handed_ended: list[int] = []  # by the batch that is being written
        self._deletable: list[int] = []  # by a batch that is written
        self._deleting: list[int] = []  # these are deleted by the batch that is being written, or not put at all
        self._large = False  # whether one of these runs may have large payloads
        self._marked = False  # whether the mark must be written
        self._handed_changes: list[tuple[int, int]] = []  # of the consumed ids, in the batch that is being written
        self._fresh: list[Item] = []  # put since the last batch
        self._writing: list[Item] = []  # in the batch that is being written
        self._shares: list[tuple[int, int]] = []  # streams with other holders, and the ids of the items here

    def make(self, number: int) -> None:
        """Create the queue, under this number."""
        self.number = number
        self.created = self._commit.now

    @property
    def begun(self) -> bool:
        """Whether the queue is in the store or in the batch that is being written."""
        return self.made or self._making

    # What changes

    def append(self, item: Item) -> None:
        """Add an item with the next id."""
        self.next_id = item.id + 1
        self._bytes_put += item.size
        self._fresh.append(item)
        self._commit.changed(self._queue)

    def share(self, item: Item) -> None:
        """Record that the stream of this item has other holders."""
        self._shares.append((item.stream, item.id))

    def consume(self, item: Item) -> None:
        id = item.id
        self.consumed.add(id, id + 1)
        if item.run and not item.stream:
            first = id - item.run + 1
            if item.run == 1 or self.consumed.covers(first, id):
                self._ended.append(first)
                self._ended.append(id)
                self.freed += item.run * (item.size + ITEM_OVERHEAD)
                if item.size >= LARGE:
                    self._large = True
        self._bytes_consumed += item.size
        self.unreclaimed += item.size + ITEM_OVERHEAD
        self._marked = True
        self._commit.changed(self._queue)

    def restore(self, item: Item) -> bool:
        """
        Undo the consumption of an item, which could not be written or whose reader gives it back.

        @return: whether the item was consumed.
        """
        if item.id not in self.consumed:
            return False
        self.consumed.discard(item.id)
        self._bytes_consumed -= item.size
        # The reclaimer will find those that are consumed all the same.
        self._ended = []
        self._handed_ended = []
        self._deletable = []
        self.remark()
        return True

    def lose(self, start: int, stop: int) -> int:
        """
        Take items from C{start} up to C{stop}, which are missing from the store, for consumed.

        @return: the number of these items.
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
        """Account for the payload bytes of items that L{lose} counts."""
        self._bytes_consumed += size

    def flush(self, open: Collection[int], count: int, size: int) -> None:
        """
        Consume all items except the open ones.

        @param count: the number of items that this consumes.
        @param size: their payload bytes.
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
        """Write the mark with the next turn."""
        self._marked = True
        self._commit.changed(self._queue)

    def changed(self) -> None:
        """Register the queue with this turn, so that L{Changing.written} is called."""
        self._commit.changed(self._queue)

    # What the store does not have yet

    @property
    def unwritten_id(self) -> int:
        """The first id that is neither in the store nor in the batch that is being written."""
        return self._fresh[0].id if self._fresh else self.next_id

    @property
    def pending(self) -> bool:
        """Whether there are items for the next batch."""
        return bool(self._fresh)

    def unwritten(self) -> list[Item]:
        """@return: the items that are not in the store yet, consumed or not."""
        return list(chain(self._writing, self._fresh))

    def find_unwritten(self, id: int) -> Optional[Item]:
        """@return: the item with this id if it is not in the store yet, else C{None}."""
        for items in (self._writing, self._fresh):
            if items and items[0].id <= id <= items[-1].id:
                return items[id - items[0].id]
        return None

    def is_writing(self, item: Item) -> bool:
        """@return: whether a batch is being written and the put of the item is in that or in a later one."""
        return bool(self._writing) and item.id >= self._writing[0].id

    # The store

    def write_to(self, batch: Batch, name: bytes, puts: bool) -> bool:
        """
        Add the changes to the batch.

        @param puts: whether to add the puts.
        @return: whether the batch has a new mark.
        """
        before = len(batch.writes)
        if puts:
            if not self.made:
                batch.create(name, self.number, self.created)
                self._making = True
            self._writing, self._fresh = self._fresh, []
            if self._writing:
                self._put(batch)
            if self._shares:
                for stream, id in self._shares:
                    batch.share(stream, self.number, id)
                self._shares = []
        marked = self._mark(batch, puts)
        if self._deletable and (
            before or len(batch.writes) != 1 or len(self._deletable) >= ENOUGH or self._large or self.due
        ):
            batch.reclaim(self.number, self._deletable, self._large)
            self._large = self._large and bool(self._ended or self._handed_ended)
            self._deleting += self._deletable
            self._deletable = []
        return marked

    def _mark(self, batch: Batch, puts: bool) -> bool:
        if not self._marked or not (puts or self.made):
            return False
        self._handed_ended, self._ended = self._ended, []
        changes = self._handed_changes = self.consumed.take_changes()
        if self._fresh:
            mark, changes = self._part_mark(changes)
        else:
            self._marked = False
            mark = Mark(self.consumed.low, self.next_id, self._bytes_put, self._bytes_consumed, self.reclaimed.low)
        batch.mark(self.number, mark)
        if changes:
            batch.consume(self.number, changes)
        return True

    def _put(self, batch: Batch) -> None:
        """Put the items of this turn, but for the first ones if they are consumed already: nobody will read them."""
        items = self._writing
        first = items[0].id
        if first in self.consumed:
            stop = self.consumed.next_missing(first)
            skipped = 0
            for item in items:
                if item.id >= stop or item.stream or item.returnable:
                    break
                skipped += 1
            if skipped:
                self._deleting.append(first)
                self._deleting.append(first + skipped - 1)
                items = items[skipped:]
        batch.put(self.number, items, self._bytes_put)

    def _part_mark(self, changes: list[tuple[int, int]]) -> tuple[Mark, list[tuple[int, int]]]:
        """
        @return: the mark and changes without the items put since the last batch, which are not in the store: if the
            process dies now, they are lost.  The batch that puts them writes the complete mark.
        """
        first = self._fresh[0].id
        put = sum(item.size for item in self._fresh)
        consumed = sum(item.size for item in self._fresh if item.id in self.consumed)
        mark = Mark(
            min(self.consumed.low, first), first, self._bytes_put - put, self._bytes_consumed - consumed,
            min(self.reclaimed.low, first),
        )  # fmt: skip
        self.consumed.put_back_changes(changes)
        return mark, [(start, min(stop, first)) for start, stop in changes if start < first]

    def written(self) -> None:
        if self._making:
            self.made, self._making = True, False
        if self._writing:
            self._writing = []
        if self._handed_changes:
            self._handed_changes = []
        if self._deleting:
            for at in range(0, len(self._deleting), 2):
                self.reclaimed.add(self._deleting[at], self._deleting[at + 1] + 1)
            self._deleting = []
        if self._handed_ended:
            self._deletable += self._handed_ended
            self._handed_ended = []
        if self._deletable:
            self._commit.deletes(self._queue)

    def refuse(self) -> list[Item]:
        """
        Drop the puts of the batch, which is not written.

        @return: the refused items.
        """
        self._making = False
        items, self._writing = self._writing, []
        for item in items:
            item.refused = True
            item.run = 0
        return items

    def not_written(self) -> None:
        """
        Add the consumption to the next batch.  What it deletes is left to the reclaimer, as it may be in the store, or
        not be consumed.
        """
        self._ended = []
        self._handed_ended = []
        self._deleting = []
        self._marked = True
        self.consumed.put_back_changes(self._handed_changes)
        self._handed_changes = []

    def abandon(self, deletions: Deletions) -> list[Item]:
        """
        Pass unwritten items on to C{deletions}, as the queue is deleted and this ledger is dropped.

        @return: the items that are in no batch, and never will be.
        """
        deletions.abandon(self._fresh, self._writing)
        return self._fresh
