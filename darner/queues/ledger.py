"""
How a queue is written down: what a turn has changed of it goes to the store together, or is refused.

Every change goes to memory at once, and to the store at the end of the turn by L{Ledger.write_to}.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Optional, Protocol

from darner.queues.contents import Contents
from darner.queues.delayed import DelayedItems
from darner.queues.producer_ids import ProducerIds
from darner.store.batch import Batch
from darner.values.items import ITEM_OVERHEAD, Item, Mark, QueueState


class Side(Protocol):
    """What a queue keeps beside its items, under numbers of its own."""

    @property
    def pending(self) -> bool:
        """Whether there is anything in it for which the queue has to exist."""

    def write_to(self, batch: Batch, puts: bool) -> None:
        """Add what changed to the batch, and without C{puts} nothing that needs room."""

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


class Ledger(Contents):
    """A queue, and what of it the store does not have yet."""

    __slots__ = (
        "_abandoned",
        "_abandoning",
        "_delays",
        "_gone",
        "_handed_changes",
        "_handed_gone",
        "_made",
        "_making",
        "_reclaimable",
        "_seen",
        "_sides",
    )

    def _set_up(self) -> None:
        super()._set_up()
        self._gone: list[tuple[int, bool]] = []  # numbers that nobody needs any more, and whether the name goes too
        self._handed_gone = 0
        self._abandoned: list[Item] = []  # put since the last batch, before the queue was deleted
        self._abandoning: list[Item] = []  # in the batch that is being written
        self._sides: list[Side] = []
        self._delays: Optional[DelayedItems] = None
        self._seen: Optional[ProducerIds] = None
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Know nothing of any item, as the store knows no such queue."""
        self._begin(QueueState(self.name, 0, 0))
        self.number = None
        self._made = False
        self._settle(self.policy.durable)

    def _begin(self, state: QueueState) -> None:
        super()._begin(state)
        self._made = True
        self._making = False
        self._handed_changes: list[tuple[int, int]] = []
        self._reclaimable: list[tuple[int, int]] = []

    def stop(self) -> None:
        """Do nothing by the clock any more."""
        for side in self._sides:
            side.stop()

    @property
    def unwritten(self) -> bool:
        """Whether it exists, but the store does not know it yet."""
        return self.number is not None and not self._made

    def make(self) -> None:
        """
        Have the queue exist.

        @raise darner.errors.StoreError: the store has no number for it.
        """
        self.number = self._store.new_number()
        self._made = False
        self.created = self._commit.now

    # Consuming

    def move_out(self, item: Item, counter: str) -> None:
        """
        Consume an item that was put on another queue in this turn (`Queues.move`).  Where that cannot be written, it is
        an item of this queue again.

        @param item: one that was taken out of memory: neither to be had nor consumed.
        @param counter: the statistic in which that is counted, if any.
        """
        if item.stream and self.durable:
            self._shares.append((item.stream, item.id))
        self._consume(item)
        self._commit.moved(self, item, counter)

    def flush(self) -> None:
        """Consume all that is to be had; what is open stays open."""
        if self.number is None:
            return
        start = self.consumed.low
        for id in sorted(self._open):
            self.consumed.add(start, id)
            start = id + 1
        self.consumed.add(start, self._next_id)
        self._bytes_consumed += self.bytes
        self.unreclaimed += self.bytes + self.count * ITEM_OVERHEAD
        self.count = self.bytes = 0
        for side in self._sides:
            self.give_up(side.flush(self._open))
        if self._in_memory is not None:
            self._in_memory.flushed(self.consumed)
        if self.perishable:
            self._expiry.watch(self)
        self.stats.total_flushes += 1
        self._forget_head(self._next_id)
        self._marked = True
        self._commit.flushed(self)
        self._commit.changed(self)

    def delete(self) -> None:
        """Forget everything.  Open reads have nowhere to go back to; those who wait go on waiting."""
        if self.number is None:
            return
        if self.durable and (self._made or self._making):
            self._gone.append((self.number, True))
        self._commit.changed(self)
        self._leave_sides()
        # They may have been handed out, and whether they ever were is not decided yet.
        self._abandoned += self._fresh
        self._abandoning += self._writing
        for item in self._fresh:
            if item.stream:
                self._reclaimer.stream(item.stream)
        if self.perishable:
            self._expiry.watch(self)
        self._begin_anew()

    def _leave_sides(self) -> None:
        for side in self._sides:
            side.stop()
            self.give_up(side.delete())
        self._sides = []
        self._retries = None
        self._delays = None
        self._seen = None
        if self._in_memory is not None:
            self._in_memory.leave()

    def give_up(self, numbers: list[int]) -> None:
        """Nothing is kept under these numbers any more."""
        if self.durable:
            self._gone += ((number, False) for number in numbers)
        elif numbers:
            assert self._in_memory is not None
            self._in_memory.discard(numbers)
            self._commit.changed(self)

    # The store

    def remark(self) -> None:
        """Write the mark anew with the next turn."""
        if self.number is not None:
            self._marked = True
            self._commit.changed(self)

    def write_to(self, batch: Batch, puts: bool) -> None:
        if self._gone:
            self._write_gone(batch)
        if self._abandoned and puts:
            self._abandoning += self._abandoned
            self._abandoned = []
        if self._in_memory is not None:
            own = self._in_memory.batch()
            if not self.durable:
                batch = own
        if self.number is None:
            return
        if puts:
            if not self._made:
                batch.create(self.name, self.number, self.created)
                self._making = True
            self._writing, self._fresh = self._fresh, []
            if self._writing:
                batch.put(self.number, self._writing, self._bytes_put)
            if self._shares:
                for stream, id in self._shares:
                    batch.share(stream, self.number, id)
                self._shares = []
        if self._marked and (puts or self._made):
            changes = self._handed_changes = self.consumed.take_changes()
            if self._fresh:
                mark, changes = self._part_mark(changes)
            else:
                self._marked = False
                mark = Mark(self.consumed.low, self._next_id, self._bytes_put, self._bytes_consumed, self.floor)
            batch.mark(self.number, mark)
            if changes:
                batch.consume(self.number, changes)
            if self.durable:
                self._reclaimable = self._reclaimer.intervals(self)
        if self._sides and (puts or self._made):
            for side in self._sides:
                side.write_to(batch, puts)

    def _write_gone(self, batch: Batch) -> None:
        for number, named in self._gone:
            if named:
                batch.remove(self.name, number)
            else:
                batch.discard(number)
        self._handed_gone = len(self._gone)

    def _gone_for_good(self) -> None:
        """It is written that nobody needs these any more."""
        for number, _ in self._gone[: self._handed_gone]:
            self._reclaimer.queue(number)
        del self._gone[: self._handed_gone]
        self._handed_gone = 0

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
        self._room.account(self._head)
        if self._handed_gone:
            self._gone_for_good()
        if self._abandoning:
            self._abandoning = []
        if self._making:
            self._made, self._making = True, False
        if self._writing:
            self._writing = []
        if self._handed_changes:
            self._handed_changes = []
        if self._heavy:
            self._lighten()
        if self._sides:
            for side in self._sides:
                side.written()
        if self._in_memory is not None:
            self._in_memory.written()
        if self._reclaimable:
            assert self.number is not None
            self._reclaimer.reclaim(self, self.number, self._reclaimable)
            self._reclaimable = []

    def refuse(self, uncertain: bool) -> None:
        self._making = False
        items, self._writing = self._writing, []
        refused = {item.id for item in items}
        for side in self._sides:
            side.refuse(refused, uncertain)
        self.not_written()
        self._head.remove(refused)
        for item in self._abandoning:
            item.time = 0
        self._abandoning = []
        for item in items:
            item.time = 0
            if item.stream:
                self._reclaimer.stream(item.stream)
            if item.id in self.consumed:
                continue
            if self._open.pop(item.id, None) is None:
                self.count -= 1
                self.bytes -= item.size
            self._consume(item)
        pending = self._fresh or self._open or any(side.pending for side in self._sides)
        if not self._made and not pending:
            if self.number is not None and self.durable:
                # Where it was the fsync that failed, the queue may be in the store all the same.
                self._gone.append((self.number, True))
            self._leave_sides()
            self._begin_anew()

    def not_written(self) -> None:
        for side in self._sides:
            side.not_written()
        if self._in_memory is not None:
            self._in_memory.not_written()
        self._marked = True
        self.consumed.put_back_changes(self._handed_changes)
        self._handed_changes = []
        self._reclaimable = []

    def unread(self, item: Item, number: Optional[int], counter: str = "") -> None:
        if number == self.number and item.id in self.consumed:
            self.consumed.discard(item.id)
            self._bytes_consumed -= item.size
            if self._retries is not None:
                self._retries.remember(item.id)
            self.remark()
            self._come_again(item, counter)

    def _come_again(self, item: Item, counter: str) -> None:
        """
        An item is one again: that it was consumed could not be written.

        @param counter: the statistic in which that was counted, if any.
        """
