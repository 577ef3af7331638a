"""
Delayed items, which are not available yet.

The store keeps them in the order in which they become due, under a number of their own; memory has their count and the
earliest time when one may be due.  Items that are due are put at the end of the queue, a bounded number in a turn; the
same batch deletes them from the delayed items.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import chain
from typing import Final, Optional, Protocol

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import LogLevel

from darner.errors import StoreError
from darner.queues.commit import RETRY, GroupCommit
from darner.queues.interfaces import Reclaims
from darner.queues.ledger import Ledger
from darner.store.batch import Batch
from darner.store.interfaces import IStore
from darner.values.items import Delayed, Item

BYTES_AT_ONCE: Final = 64 * 1024
"""
Approximate bytes of items, as in memory, that become available in one queue in a turn.
L{darner.queues.commit.RESUMED} limits the number of queues in a turn.
"""

MAX_TIME: Final = 2**63 - 1
"""After every time when an item may be due."""
LONGEST: Final = 600.0
"""Maximum seconds between two looks at the wall clock, which may be set forward."""

Due = tuple[int, Item]
"""When an item is due, in ms since the epoch, and the item, whose id is not one of the queue's."""


class Delaying(Protocol):
    """The queue, as L{DelayedItems} sees it."""

    name: bytes

    def put_due(self, item: Item) -> None:
        """Put an item that is due at the end."""


class Pins(Protocol):
    """The pins on the streams of a volatile queue's delayed items."""

    def pin_delayed(self, number: int, id: int, stream: int) -> None:
        """Keep the stream of a delayed item."""

    def unpin_delayed(self, number: int, id: int) -> None:
        """Release the stream, as the item's put was refused, or the item is on the queue and that is written."""

    def unpin_all_delayed(self, number: int) -> None:
        """Release all streams of the delayed items under a number."""


class DelayedItems:
    """
    A L{Side} of a queue: its delayed items.

    @ivar count: the number of items.
    @ivar bytes: their payload bytes.
    """

    def __init__(
        self, queue: Delaying, ledger: Ledger, store: IStore, commit: GroupCommit, reclaimer: Reclaims,
        pins: Optional[Pins] = None,
    ) -> None:  # fmt: skip
        """@param pins: C{None} if the queue is durable."""
        self._pins = pins
        self._queue = queue
        self._ledger = ledger
        self._store = store
        self._commit = commit
        self._reclaimer = reclaimer
        self._timer: Optional[IDelayedCall] = None
        self._looking = False
        self._trying_again = False
        self._stopped = False
        self._begin(None)

    def _begin(self, known: Optional[Delayed]) -> None:
        self._number = known and known.number
        self.count = known.items if known else 0
        self.bytes = known.bytes if known else 0
        self._next_id = known.next_id if known else 0
        self._next_due = max(1, known.due) if known and known.items else 0  # no item is due before; 0: never
        self._changed = False
        self._fresh: list[Due] = []  # since the last batch
        self._writing: list[Due] = []  # in the batch that is being written
        self._shares: list[tuple[int, int]] = []
        self._moved: list[Due] = []  # put on the queue since the last batch
        self._moving: list[Due] = []  # in the batch that is being written
        self._dropped: list[Due] = []  # given up since the last batch
        self._dropping: list[Due] = []  # in the batch that is being written
        # If it is uncertain whether a refused batch is in the store:
        self._undone: list[Due] = []  # put by that batch, to be deleted
        self._again: list[Due] = []  # moved by that batch, to be written again

    def recover(self, known: Delayed) -> None:
        """Start with the summary in the store."""
        self._begin(known)
        self._arm()

    def begin(self) -> None:
        """
        Prepare for L{put}.

        @raise StoreError: the store cannot give the items a number.
        """
        if self._number is None:
            try:
                self._number = self._store.new_number()
            except StoreError as error:
                self._commit.trouble(error)
                raise

    def put(self, due: int, flags: int, expiry: int, size: int, payload: bytes, stream: int, shared: bool) -> None:
        """
        Keep an item until it is due.  The arguments are as for L{darner.queues.fifo.Fifo.put}.

        @param due: in ms since the epoch.
        """
        assert self._number is not None
        item = Item(self._next_id, flags, self._commit.now, expiry, size, payload, stream)
        self._next_id += 1
        self.count += 1
        self.bytes += size
        if stream and self._pins is not None:
            self._pins.pin_delayed(self._number, item.id, stream)
        elif stream and shared:
            self._shares.append((stream, item.id))
        self._fresh.append((due, item))
        self._look_by(due)
        self._change()

    def some(self, due: int, id: int, max_bytes: int) -> list[Due]:
        """
        Look at some items, in order; only when all that was put is written (L{GroupCommit.written}).

        @param due: the time from which on they are due, in ms since the epoch...
        @param id: ...and the id from which on at that time.
        @raise StoreError: the store cannot be read.
        """
        if self._number is None:
            return []
        return self._store.read_delayed(self._number, due, MAX_TIME, max_bytes, id)[0]

    def find(self, due: int, id: int) -> Optional[Item]:
        """As L{some}.  @return: one item; C{None} if it is not there any more."""
        for found, item in self.some(due, id, 1):
            if found == due and item.id == id and (due, item) not in self._dropped + self._moved:
                return item
        return None

    def release(self, due: int, item: Item) -> None:
        """
        An item is not delayed any more, as this turn puts it on a queue.

        @param item: one that L{find} returned.
        """
        self.count -= 1
        self.bytes -= item.size
        self._moved.append((due, item))
        self._change()

    def drop(self, due: int, item: Item) -> None:
        """Give up an item that L{find} returned."""
        self.count -= 1
        self.bytes -= item.size
        self._dropped.append((due, item))
        self._change()

    def _change(self) -> None:
        self._changed = True
        self._ledger.changed()

    # Time

    def _look_by(self, due: int) -> None:
        if not self._next_due or due < self._next_due:
            self._next_due = due
        self._arm()

    def _arm(self) -> None:
        if self._next_due:
            self._sleep(min(max(0, self._next_due - self._commit.now) / 1000, LONGEST))

    def _sleep(self, seconds: float) -> None:
        if self._stopped or self._looking or self._trying_again:
            return
        if self._timer is not None:
            if self._timer.getTime() <= self._commit.clock.seconds() + seconds:
                return
            self._timer.cancel()
        self._timer = self._commit.clock.callLater(seconds, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._trying_again = False
        self._looking = True
        self._commit.rest(self)  # many queues may have items that are due at once

    def go_on(self) -> None:
        # Read only once everything is written: so the store has all items that are due, each once.
        self._commit.written().addCallback(self._look)

    def _look(self, _: None) -> None:
        self._looking = False
        if self._stopped:
            return
        # If the store refuses writes, this would fail too, and each attempt reopens the store.
        done = self._pins is not None or self._commit.health.writable
        try:
            if done:
                self._move()
        except StoreError as error:
            message = "cannot read which delayed items of queue {name!r} are due, will try again: {error}"
            self._commit.log.emit(
                LogLevel.error, message, (message, self._queue.name), name=self._queue.name, error=str(error)
            )
            done = False
        if done:
            self._arm()
        else:
            self._sleep(RETRY)
            self._trying_again = True

    def _move(self) -> None:
        """
        Put items that are due on the queue, a bounded number.

        @raise StoreError: the store cannot be read.
        """
        if self._number is None or not self._next_due or self._next_due > self._commit.now:
            return
        # Items not written yet must come after those in the store, so stop before them.
        later = [due for due, _ in chain(self._writing, self._fresh)]
        until = min([self._commit.now, *later])
        items, next_due = self._store.read_delayed(self._number, self._next_due, until, BYTES_AT_ONCE)
        self._next_due = min(later if next_due is None else [next_due, *later], default=0)
        if items:
            self._change()
        for due, item in items:
            self.count -= 1
            self.bytes -= item.size
            self._moved.append((due, item))
            self._queue.put_due(item)
        if not self._next_due and self.count:
            message = "the store is damaged, run --check: {count} delayed items of queue {name!r} are missing"
            self._commit.log.emit(
                LogLevel.error, message, (message, self._queue.name), count=self.count, name=self._queue.name
            )
            self.count = self.bytes = 0
            self._change()

    def stop(self) -> None:
        """Cancel the timer, for good."""
        self._stopped = True
        self._sleep_no_more()

    def _sleep_no_more(self) -> None:
        self._trying_again = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # The store

    @property
    def pending(self) -> bool:
        return bool(self._fresh)

    def write_to(self, batch: Batch, puts: bool) -> None:
        if not self._changed:
            return
        self._correct(batch)
        self._dropping, self._dropped = self._dropping + self._dropped, []
        if self._dropping:
            assert self._number is not None
            batch.undelay(self._number, self._dropping)
        fresh, moved = self._fresh, self._moved
        if puts:
            self._writing, self._fresh = self._fresh, []
            self._moving, self._moved = self._moved, []
            fresh, moved = self._fresh, self._moved
            if self._writing:
                assert self._number is not None
                batch.delay(self._number, self._writing)
                for stream, id in self._shares:
                    batch.share(stream, self._number, id)
                self._shares = []
            if self._moving:
                assert self._number is not None
                batch.due(self._number, self._moving)
        self._changed = bool(fresh or moved)
        # Without puts, the fresh items are not in the store yet, and the moved ones still are.
        count = self.count - len(fresh) + len(moved)
        size = self.bytes - sum(item.size for _, item in fresh) + sum(item.size for _, item in moved)
        due = min([due for due, _ in moved] + [self._next_due] * bool(self._next_due), default=0)
        known = None
        if self._number is not None:
            known = Delayed(self._number, count, size, due, self._next_id)
        batch.delayed(self._ledger.number, known)

    def _correct(self, batch: Batch) -> None:
        """Correct the store, whether it has a refused batch or not."""
        if self._undone:
            assert self._number is not None
            batch.undelay(self._number, self._undone)
        if self._again:
            assert self._number is not None
            batch.delay(self._number, self._again)
            for _, item in self._again:
                if item.stream:
                    # The item on the queue, which is consumed, may hold it as well.
                    batch.share(item.stream, self._number, item.id)

    def written(self) -> None:
        self._undone = []
        self._again = []
        self._writing = []
        if self._dropping:
            self._reclaim(self._dropping)
            for _, item in self._dropping:
                if item.stream and self._pins is None:
                    self._reclaimer.stream(item.stream)
            self._dropping = []
        if self._moving:
            self._reclaim(self._moving)
            self._moving = []

    def _reclaim(self, gone: list[Due]) -> None:
        """The store does not have these items any more."""
        assert self._number is not None
        dues = [due for due, _ in gone]
        size = sum(item.size for _, item in gone)
        if self._pins is None:
            self._reclaimer.delayed(self._number, min(dues), max(dues), size)
        for _, item in gone:
            self._unpin(item)

    def refuse(self, ids: set[int], uncertain: bool) -> None:
        if uncertain and self._pins is None:
            self._undone += self._writing
            self._again += self._moving
        for _, item in self._writing:
            self.count -= 1
            self.bytes -= item.size
            if item.stream:
                self._unpin(item)
                self._reclaimer.stream(item.stream)
        self._writing = []
        for due, item in self._moving:
            self.count += 1
            self.bytes += item.size
            self._look_by(due)
        self._moving = []
        if self._dropping:
            self._changed = True

    def _unpin(self, item: Item) -> None:
        if self._pins is not None and item.stream:
            assert self._number is not None
            self._pins.unpin_delayed(self._number, item.id)

    def not_written(self) -> None:
        self._changed = True

    def flush(self, open: Collection[int]) -> list[int]:
        numbers = self.delete()
        if numbers:
            self._sleep_no_more()
            self._begin(None)
            self._change()
        return numbers

    def delete(self) -> list[int]:
        for _, item in chain(self._writing, self._fresh):
            if item.stream:
                self._reclaimer.stream(item.stream)
        if self._number is None:
            return []
        if self._pins is not None:
            self._pins.unpin_all_delayed(self._number)
        return [self._number]
