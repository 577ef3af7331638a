"""
The parts of a queue, and what it writes to the store when a turn ends.
"""

from __future__ import annotations

import sys
from typing import Any, Optional

from darner.queues.answers import Verdict
from darner.queues.bounds import Bounds
from darner.queues.commit import GroupCommit
from darner.queues.contents import Contents, Medium
from darner.queues.delayed import DelayedItems
from darner.queues.deletions import Deletions
from darner.queues.interfaces import Expires, Reclaims
from darner.queues.ledger import Ledger
from darner.queues.producer_ids import ProducerIds
from darner.queues.retries import Retries
from darner.queues.sides import Sides
from darner.queues.turn import Changing
from darner.queues.volatile import Volatile, VolatileStore
from darner.store.batch import Batch
from darner.values.items import Item, QueueState
from darner.values.stats import QueueStats, Removal


class Storage(Changing):
    """
    The parts of a queue.

    A deletion of the queue replaces the L{Ledger}, the L{Contents}, the L{Sides} and the L{Bounds}.  L{Deletions} and
    L{Volatile} remain until their contents are written.

    @ivar number: the number under which the store keeps the queue; C{None} while it does not exist.
    @ivar durable: whether the queue is on disk or, while it does not exist, will be.
    @ivar synced: whether the settings want puts on stable storage.
    @ivar stats: the queue's counters.
    """

    __slots__ = (
        "_commit", "_deletions", "_disk", "_expiry", "_memory", "_queue", "_reclaimable", "_reclaimer", "bounds",
        "contents", "durable", "ledger", "medium", "name", "number", "sides", "stats", "synced", "volatile",
    )  # fmt: skip

    def __init__(
        self, queue: Any, disk: Medium, memory: Optional[VolatileStore], commit: GroupCommit, reclaimer: Reclaims,
        expiry: Expires, state: Optional[QueueState] = None,
    ) -> None:  # fmt: skip
        """
        @param queue: the L{Fifo}, whose C{name} and C{policy} are set.
        @param memory: the store for volatile queues; C{None} makes the queue durable whatever its settings say.
        @param state: the state in the store, if the queue exists there; L{wake} follows.
        """
        self.name: bytes = queue.name
        self.number: Optional[int] = None
        self.durable = True
        self.synced = False
        self.stats = QueueStats()
        self.medium = self._disk = disk
        self._memory = memory
        self.volatile: Optional[Volatile] = None
        self._deletions: Optional[Deletions] = None
        self._reclaimable: list[tuple[int, int]] = []  # intervals to reclaim once the batch is written
        self._queue = queue
        self._commit = commit
        self._reclaimer = reclaimer
        self._expiry = expiry
        self.sides: Sides
        self.ledger: Ledger
        self.contents: Contents
        self.bounds: Bounds
        if state is None:
            self.begin_anew()
        else:
            self.number = state.number
            self._begin(state, True)

    # From when it is made until it is deleted

    def begin_anew(self) -> None:
        """Start without items, as the queue does not exist."""
        self.number = None
        if self._queue.policy.durable or self._memory is None:
            self.medium = self._disk
        else:
            self.medium = Medium(self._memory, self._memory.room, sys.maxsize, False)
            if self.volatile is None:
                self.volatile = Volatile(self._memory, self._commit, self._reclaimer)
        self._begin(QueueState(self.name, 0, 0), False)

    def _begin(self, state: QueueState, made: bool) -> None:
        """
        Create the parts.

        @param state: the state of the queue.
        @param made: whether that is in the store.
        """
        self.durable = self.medium.durable
        self.synced = self.durable and self._queue.policy.sync != "never"
        self.stats = QueueStats()
        self._reclaimable = []
        self.sides = Sides()
        self.ledger = Ledger(self, self._commit, state, made)
        self.contents = Contents(
            self._queue, self.name, self.medium, self.ledger, self._expiry, self._commit.log,
            state.next_id - len(state.consumed), state.bytes_put - state.bytes_consumed,
        )  # fmt: skip
        self.bounds = Bounds(self._queue, self.contents, self.sides, self._commit, self._expiry, state.next_id)

    def adopt(self) -> None:
        """Apply new settings of the queue.  Items keep their expiry."""
        if self.number is None:
            self.begin_anew()  # the settings may have another medium
        self.synced = self.durable and self._queue.policy.sync != "never"
        self.bounds.adopt()
        if self.bounds.lifetime and self.number is not None:
            self.contents.watch()
        self.sides.adopt()

    def wake(self, state: QueueState) -> None:
        """See L{Fifo.wake}."""
        attempts = {id: count for id, count in state.attempts.items() if id not in state.consumed}
        if attempts:
            self.add_retries().recover(attempts)
        if state.delayed is not None:
            self.add_delays().recover(state.delayed)
        if any(state.generations):
            self.add_ids().recover(*state.generations)
        if self.contents.count or self.bounds.lifetime:
            self.contents.watch()

    def make(self) -> None:
        """
        Create the queue.

        @raise darner.errors.StoreError: the store cannot give it a number.
        """
        self.number = self.medium.store.new_number()
        self.ledger.make(self.number)
        if self.bounds.lifetime:
            self.contents.watch()

    def flush(self) -> None:
        """Consume all items except the open ones."""
        self.contents.flush()
        self.give_up(self.sides.flush(self.contents.open))
        if self.volatile is not None:
            self.volatile.flushed(self.ledger.consumed)
        self.stats.total_flushes += 1

    def delete(self) -> None:
        """Delete the queue."""
        deletions = self._begin_deletions()
        if self.durable and self.ledger.begun:
            assert self.number is not None
            deletions.add_queue(self.number)
        self._commit.changed(self)
        for item in self.ledger.abandon(deletions):
            if item.stream:
                self._reclaimer.stream(item.stream)
        self._leave()

    def _leave(self) -> None:
        self.give_up(self.sides.delete())
        if self.volatile is not None:
            self.volatile.leave()
        self.contents.delete()
        self.begin_anew()

    def _begin_deletions(self) -> Deletions:
        if self._deletions is None:
            self._deletions = Deletions(self._reclaimer)
        return self._deletions

    def retire(self, nowhere: Storage) -> None:
        """
        Let go of all that refers back to the queue, which no one knows any more, so that its memory is free at once.
        Only the collector would find it otherwise, which seldom looks at objects that are old.

        @param nowhere: the storage of a queue that never exists; its parts replace this one's.
        """
        self._queue = nowhere._queue
        self.sides = nowhere.sides
        self.ledger = nowhere.ledger
        self.contents = nowhere.contents
        self.bounds = nowhere.bounds

    @property
    def idle(self) -> bool:
        """Whether the queue does not exist, and no deletion is left to write."""
        return self.number is None and not (self._deletions is not None and self._deletions.pending)

    def give_up(self, numbers: list[int]) -> None:
        """Delete the data under these numbers."""
        if not numbers:
            return
        if self.durable:
            self._begin_deletions().add(numbers)
        else:
            assert self.volatile is not None
            self.volatile.discard(numbers)
            self._commit.changed(self)

    # Its sides

    def add_retries(self) -> Retries:
        return self.sides.add_retries(Retries(self._queue, self._commit, self.ledger, self.contents))

    def add_delays(self) -> DelayedItems:
        pins = None if self.durable else self.volatile
        delays = DelayedItems(self._queue, self.ledger, self.medium.store, self._commit, self._reclaimer, pins)
        return self.sides.add_delays(delays)

    def add_ids(self) -> ProducerIds:
        return self.sides.add_ids(ProducerIds(self._queue, self.ledger, self._commit, self.medium.store))

    # The ids of producers

    def find_id(self, id: bytes) -> Optional[Verdict]:
        """
        Look an id up.

        @return: the outcome of the put with this id (L{GroupCommit.follow}); C{None} if there was none within the
            C{dedupe_window}.
        @raise StoreError: the store cannot be read.
        """
        return None if self.sides.ids is None or self._queue.policy.dedupe_window is None else self.sides.ids.find(id)

    def begin_ids(self) -> None:
        """
        Prepare for L{add_id}.

        @raise StoreError: the store cannot give a number to the generation.
        """
        if self._queue.policy.dedupe_window is not None:
            (self.sides.ids or self.add_ids()).begin()

    def add_id(self, id: bytes, reply: Verdict) -> None:
        """Record that this turn puts an item with an id; C{reply} is the outcome."""
        if self.sides.ids is not None and self._queue.policy.dedupe_window is not None:
            self.sides.ids.add(id, reply)

    def leave_out(self) -> bool:
        """
        Count a put that deduplication drops.

        @return: whether its reply must wait all the same, until the first put is on stable storage.
        """
        self.stats.duplicates += 1
        if self.synced:
            self.sync()
        return bool(self._queue.policy.sync == "always")

    # Items

    def sync(self) -> None:
        """Sync this turn when the settings say."""
        if isinstance(self._queue.policy.sync, float):
            self._commit.sync_within(self._queue.policy.sync)
        else:
            self._commit.sync()

    def pin(self, item: Item, shared: bool) -> None:
        """Keep the stream of an item; C{shared}: other items hold it as well."""
        if not self.durable:
            assert self.volatile is not None
            self.volatile.pin(item.id, item.stream)
        elif shared:
            self.ledger.share(item)

    def consume(self, item: Item) -> None:
        """Consume an item that was taken out of memory."""
        if self.sides.retries is not None:
            self.sides.retries.forget(item.id)
        self.ledger.consume(item)
        if item.stream and self.volatile is not None:
            self.volatile.consumed(self.ledger.consumed, item.id)

    def restore(self, item: Item, removal: Optional[Removal]) -> bool:
        """
        Undo the consumption of an item, which could not be written.

        @param removal: why it left the queue, if it was not read.
        @return: whether the item was consumed.
        """
        if not self.ledger.restore(item):
            return False
        retries = self.sides.retries
        if retries is not None:
            retries.restore(item.id)
        if removal is not None:
            self.stats.count_removal(removal, -1)
            self._expiry.stats.count_removal(removal, -1)
        if removal is Removal.DEAD:
            assert retries is not None
            retries.set_aside(item)
        else:
            self.contents.give_back(item)
        return True

    # The turn

    def write_to(self, batch: Batch, puts: bool) -> None:
        if self._deletions is not None:
            self._deletions.write_to(batch, self.name, puts)
        if self.volatile is not None:
            own = self.volatile.batch()
            if not self.durable:
                batch = own
        if self.number is None:
            return
        ledger = self.ledger
        if ledger.write_to(batch, self.name, puts) and self.durable and ledger.unreclaimed >= ledger.ask_at:
            self._reclaimable = self._reclaimer.intervals(self._queue)
        if self.sides.all and (puts or self.ledger.made):
            self.sides.write_to(batch, puts)

    def written(self) -> None:
        self.contents.written()
        self.ledger.written()
        if self._deletions is not None:
            self._deletions.written()
            if self._deletions.done:
                self._deletions = None
        if self.sides.all:
            self.sides.written()
        if self.volatile is not None:
            self.volatile.written()
        if self._reclaimable:
            assert self.number is not None
            self._reclaimer.reclaim(self._queue, self.number, self._reclaimable)
            self._reclaimable = []

    def refuse(self, uncertain: bool) -> None:
        items = self.ledger.refuse()
        self.sides.refuse({item.id for item in items}, uncertain)
        self.not_written()
        if self._deletions is not None:
            self._deletions.refuse()
        self.contents.refuse(items)
        for item in items:
            if item.stream:
                self._reclaimer.stream(item.stream)
            if item.id not in self.ledger.consumed:
                self.consume(item)
        if not (self.ledger.made or self.ledger.pending or self.contents.open or self.sides.pending):
            if self.number is not None and self.durable:
                # If only the fsync failed, the queue may be in the store.
                self._begin_deletions().add_queue(self.number)
            self._leave()

    def not_written(self) -> None:
        self.sides.not_written()
        if self.volatile is not None:
            self.volatile.not_written()
        self.ledger.not_written()
        self._reclaimable = []
