"""
One queue: who puts items on it, reads them, has them open, and waits for them.

It is made of parts, each of which holds what it says: the L{Ledger}, the L{Contents}, the L{Bounds}, the L{Sides} from
when the queue is made until it is deleted, the L{Waiters} and the L{Deletions} for longer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar, Optional

from twisted.logger import Logger

from darner.config.policies import QueueSettings
from darner.errors import StoreError
from darner.queues.bounds import Bounds
from darner.queues.commit import Changing, GroupCommit, Replies
from darner.queues.contents import Contents, Medium
from darner.queues.delayed import DelayedItems
from darner.queues.head import WINDOW_BYTES, MemoryBudget
from darner.queues.interfaces import Expires, Reclaims
from darner.queues.ledger import Deletions, Ledger
from darner.queues.producer_ids import ProducerIds
from darner.queues.retries import Read, Retries
from darner.queues.sides import Sides
from darner.queues.volatile import Volatile, VolatileStore
from darner.queues.waiters import Waiter, Waiters
from darner.store.interfaces import IBatch, IStore
from darner.values.items import Item, QueueState
from darner.values.stats import QueueStats, Removal


class OpenRead:
    """
    An item that was taken tentatively: it is neither to be had nor consumed until it is closed or aborted.

    @ivar late: whether it was given back as it was open for too long, behind the back of whoever opened it.
    @ivar since: when it was opened or extended, where the queue asks for that.
    """

    __slots__ = ("fifo", "item", "late", "since")

    def __init__(self, fifo: Fifo, item: Item) -> None:
        self.fifo = fifo
        self.item = item
        self.late = False
        self.since = 0.0

    @property
    def is_open(self) -> bool:
        """Whether it still is: not closed, not aborted, the queue not deleted under it, and its item really stored."""
        return not self.late and self.fifo.is_open(self.item)

    @property
    def refused(self) -> bool:
        """Whether the store refused the item, so that there never was one."""
        return self.item.refused


class Fifo(Changing):
    """
    A queue by its name.

    The object stays as long as somebody knows the queue: also before the first item is put (clients may wait for it),
    and after a deletion.

    @ivar number: the number under which the store keeps it; C{None} while there is no such queue.
    @ivar policy: its settings; change them by L{adopt}.
    @ivar durable: whether it is kept on disk, and not in memory (`darner.queues.volatile`); where it does not exist,
        whether it will be.
    @ivar limited: whether the settings limit what it holds.
    @ivar sweeping: whether more has expired at its head than is dropped in one go.  The rest is dropped in the turns
        that follow; until then nobody knows what is behind it.
    @ivar spreads: whether what is set on its name is for other queues as well, or instead (`darner.queues.routing`).
    @ivar stats: its counters.
    @ivar ledger: what the store knows of its items.
    @ivar waiters: those who wait for an item.
    """

    __slots__ = (
        "_bounds", "_commit", "_contents", "_deletions", "_disk", "_expiry", "_medium", "_memory", "_reclaimable",
        "_reclaimer", "_sides", "_synced", "_volatile", "durable", "ledger", "limited", "name", "number", "policy",
        "spreads", "stats", "sweeping", "waiters",
    )  # fmt: skip

    _log: ClassVar[Logger] = Logger()

    def __init__(
        self, name: bytes, store: IStore, commit: GroupCommit, reclaimer: Reclaims, expiry: Expires, budget: MemoryBudget,
        window_bytes: int = WINDOW_BYTES, policy: QueueSettings = QueueSettings(),  # noqa: B008  (it is frozen)
        memory: Optional[VolatileStore] = None,
    ) -> None:  # fmt: skip
        """
        @param budget: what the windows of all queues have together.
        @param window_bytes: about how much of the queue's head is held in memory.
        @param policy: the queue's settings.
        @param memory: for queues that are not durable; C{None} makes it durable whatever the settings say.
        """
        self.name = name
        self.number: Optional[int] = None
        self.policy = policy
        self.limited = policy.max_items is not None or policy.max_bytes is not None
        self.spreads = False
        self.sweeping = False
        self.stats = QueueStats()
        self.waiters = Waiters()
        self._commit = commit
        self._reclaimer = reclaimer
        self._expiry = expiry
        self._memory = memory
        self._volatile: Optional[Volatile] = None
        self._deletions: Optional[Deletions] = None
        self._reclaimable: list[tuple[int, int]] = []  # what can be reclaimed once the batch is written
        self._disk = self._medium = Medium(store, budget, window_bytes, True)
        self.durable = True
        self._synced = False
        self._sides = Sides()
        self.ledger = Ledger(self, commit, QueueState(name, 0, 0), False)
        self._contents = Contents(self, name, self._medium, self.ledger, expiry)
        self._bounds = Bounds(self, self._contents, self._sides, commit, expiry, 0)
        self._begin_anew()

    # Its settings, and where it is kept

    def adopt(self, policy: QueueSettings) -> None:
        """Have these settings from now on.  Items keep the expiry that they have."""
        self.policy = policy
        self.limited = policy.max_items is not None or policy.max_bytes is not None
        if self.number is None:
            self._begin_anew()  # it may be kept elsewhere now
        self._synced = self.durable and policy.sync != "never"
        self._bounds.adopt()
        if self._bounds.lifetime and self.number is not None:
            self._contents.watch()
        self._sides.adopt()

    def _begin_anew(self) -> None:
        """Know nothing of any item, as the store knows no such queue."""
        self.number = None
        if self.policy.durable or self._memory is None:
            self._medium = self._disk
        else:
            self._medium = Medium(self._memory, self._memory.room, sys.maxsize, False)
            if self._volatile is None:
                self._volatile = Volatile(self._memory, self._commit, self._reclaimer)
        self._begin(QueueState(self.name, 0, 0), False)

    def _begin(self, state: QueueState, made: bool) -> None:
        """
        Have new parts.

        @param state: what is known of the queue.
        @param made: whether the store knows that.
        """
        self.durable = self._medium.durable
        self._synced = self.durable and self.policy.sync != "never"
        self.stats = QueueStats()
        self._reclaimable = []
        self._sides = Sides()
        self.ledger = Ledger(self, self._commit, state, made)
        self._contents = Contents(
            self, self.name, self._medium, self.ledger, self._expiry,
            state.next_id - len(state.consumed), state.bytes_put - state.bytes_consumed,
        )  # fmt: skip
        self._bounds = Bounds(self, self._contents, self._sides, self._commit, self._expiry, state.next_id)

    def recover(self, state: QueueState) -> None:
        """Begin with what the store has of this queue: it stays there whatever the settings say."""
        self._medium = self._disk
        self._begin(state, True)
        self.number = state.number
        attempts = {id: count for id, count in state.attempts.items() if id not in state.consumed}
        if attempts:
            self._add_retries().recover(attempts)
        if state.delayed is not None:
            self._add_delays().recover(state.delayed)
        if any(state.generations):
            self._add_ids().recover(*state.generations)
        if self.count or self._bounds.lifetime:
            self._contents.watch()

    def make(self) -> None:
        """
        Have the queue exist.

        @raise darner.errors.StoreError: the store has no number for it.
        """
        self.number = self._medium.store.new_number()
        self.ledger.make(self.number)
        if self._bounds.lifetime:
            self._contents.watch()

    def flush(self) -> None:
        """Consume all that is to be had; what is open stays open."""
        if self.number is None:
            return
        self._contents.flush()
        self.give_up(self._sides.flush(self._contents.open))
        if self._volatile is not None:
            self._volatile.flushed(self.ledger.consumed)
        self.stats.total_flushes += 1
        self._commit.flushed(self)

    def delete(self) -> None:
        """Forget everything.  Open reads have nowhere to go back to; those who wait go on waiting."""
        if self.number is None:
            return
        deletions = self._begin_deletions()
        if self.durable and self.ledger.begun:
            deletions.add_queue(self.number)
        self._commit.changed(self)
        for item in self.ledger.abandon(deletions):
            if item.stream:
                self._reclaimer.stream(item.stream)
        self._leave()

    def _leave(self) -> None:
        """There is no such queue any more."""
        self.give_up(self._sides.delete())
        if self._volatile is not None:
            self._volatile.leave()
        self._contents.delete()
        self._begin_anew()

    def _begin_deletions(self) -> Deletions:
        if self._deletions is None:
            self._deletions = Deletions(self._reclaimer)
        return self._deletions

    def give_up(self, numbers: list[int]) -> None:
        """Nothing is kept under these numbers any more."""
        if not numbers:
            return
        if self.durable:
            self._begin_deletions().add(numbers)
        else:
            assert self._volatile is not None
            self._volatile.discard(numbers)
            self._commit.changed(self)

    def stop(self) -> None:
        """Do nothing by the clock any more."""
        self._sides.stop()

    # Figures

    @property
    def exists(self) -> bool:
        """Whether there is such a queue: items were put on it, and it was not deleted since."""
        return self.number is not None

    @property
    def unwritten(self) -> bool:
        """Whether it exists, but the store does not know it yet."""
        return self.number is not None and not self.ledger.made

    @property
    def idle(self) -> bool:
        """Whether nobody would miss the object: the store knows no such queue, and nobody waits."""
        pending = self._deletions is not None and self._deletions.pending
        return self.number is None and not (self.waiters.line or pending)

    @property
    def created(self) -> int:
        """When it was made, in ms since the epoch; 0 while it does not exist."""
        return self.ledger.created

    @property
    def count(self) -> int:
        """How many items are to be had or set aside."""
        return self._contents.count

    @property
    def bytes(self) -> int:
        """How many bytes of payload these have."""
        return self._contents.bytes

    @property
    def set_aside_count(self) -> int:
        """How many of the items that were given back are not to be had yet; they are among C{count}."""
        return self._sides.set_aside_count

    @property
    def delayed_count(self) -> int:
        """How many items are not to be had yet; they are not among C{count}."""
        return self._sides.delayed_count

    @property
    def open_count(self) -> int:
        """How many items are open."""
        return len(self._contents.open)

    @property
    def oldest_age(self) -> int:
        """How long the item at the head has been there, in ms; 0 where there is none, or it cannot be read."""
        time = self._contents.oldest()
        return 0 if time is None else max(0, self._commit.now - time)

    # Limits and expiry

    def check_limits(self, size: int) -> None:
        """
        See whether one more item keeps within the limits, or L{enforce_limits} would see to it: only what has expired
        goes.

        @param size: of the item, in bytes; no more than C{max_bytes}.
        @raise QueueFull: it does not.
        """
        self._bounds.check(size)

    def enforce_limits(self, size: int) -> None:
        """
        See that one more item keeps within the limits: what has expired goes, and where the settings say so the oldest
        items that are to be had.  More of these than may be dropped in one go are dropped in the turns that follow.

        @param size: of the item, in bytes; no more than C{max_bytes}.
        @raise QueueFull: it does not.
        """
        self._bounds.check(size)
        if self.policy.discard_old_when_full and not self._bounds.drop_old(1, size):
            self._expiry.sweep(self)

    @property
    def perishable(self) -> bool:
        """Whether it may hold what expires, or expires itself."""
        return self._contents.perishable

    @property
    def ends(self) -> int:
        """When the queue expires if it is empty then, in ms since the epoch; 0 is never."""
        return self._bounds.lifetime and self.created + self._bounds.lifetime

    def due(self) -> int:
        """
        @return: when the item at the head expires, in ms since the epoch; 0 where it never does, or there is none.
        @raise StoreError: it cannot be read.
        """
        return self._bounds.due()

    def sweep_on(self) -> bool:
        """
        Drop more of what has expired, or is too much, and serve those who wait for that.

        @return: whether it could be done; false where the store refuses.
        """
        self.sweeping = False
        done = True
        try:
            self.peek()
            if self.policy.discard_old_when_full and not self._bounds.drop_old(0, 0):
                self._expiry.sweep(self)
        except StoreError:
            done = False
        self.serve()
        self.waiters.serve_for_nothing(self._is_swept)
        return done

    def _is_swept(self) -> bool:
        with suppress(StoreError):  # where it cannot be read the waiter hears of it
            self.peek()
        return not self.sweeping

    def _sweep(self) -> None:
        """Drop what has expired at the head, as much as may be dropped in one go."""
        self.sweeping = True  # so that nobody else does while items are moved
        more = False
        try:
            more = self._bounds.drop_expired()
        finally:
            self.sweeping = more
        # An item may have come back to this queue by way of another; who waits for it was not served meanwhile.
        if more or (self.waiters.line and self.policy.expire_to_queue):
            self._expiry.sweep(self)

    # Putting

    def put(self, flags: int, expiry: int, size: int, payload: bytes, stream: int = 0, shared: bool = False) -> Item:
        """
        Put an item at the end, and serve whoever waits for it.

        @param expiry: in ms since the epoch; 0 is never.
        @param size: its length in bytes.
        @param payload: the payload, or empty where C{stream} is the number of the stream that holds it.
        @param shared: whether other items hold the stream as well.
        @raise darner.errors.StoreError: the queue is new, and the store has no number for it.
        """
        if self.number is None:
            self.make()
        ledger = self.ledger
        if expiry or self._bounds.max_age:
            expiry = self._bounds.expiry_of(ledger.next_id, expiry)
        item = Item(ledger.next_id, flags, self._commit.now, expiry, size, payload, stream)
        if stream:
            self._hold(item, shared)
        ledger.append(item)
        self._contents.append(item)
        self.stats.total_items += 1
        if self._synced:
            self._sync()
        if self.waiters.line:
            self.serve()
        return item

    def _hold(self, item: Item, shared: bool) -> None:
        """See that the stream of an item stays."""
        if not self.durable:
            assert self._volatile is not None
            self._volatile.pin(item.id, item.stream)
        elif shared:
            self.ledger.share(item)

    def _sync(self) -> None:
        """Have what was put on stable storage when the settings want it there."""
        if isinstance(self.policy.sync, float):
            self._commit.sync_within(self.policy.sync)
        else:
            self._commit.sync()

    def delay(
        self, due: int, flags: int, expiry: int, size: int, payload: bytes, stream: int = 0, shared: bool = False
    ) -> None:
        """
        As L{put}, but later; the queue exists, and L{begin_delays} was called.

        @param due: when, in ms since the epoch.
        """
        assert self._sides.delays is not None
        self._sides.delays.put(due, flags, expiry, size, payload, stream, shared)
        self.stats.total_items += 1
        if self._synced:
            self._sync()

    def begin_delays(self) -> None:
        """
        An item is about to be put that comes later.

        @raise StoreError: the store has no number for what keeps it.
        """
        (self._sides.delays or self._add_delays()).begin()

    def _add_delays(self) -> DelayedItems:
        pins = None if self.durable else self._volatile
        return self._sides.add_delays(DelayedItems(self, self._medium.store, self._commit, self._reclaimer, pins))

    def put_due(self, item: Item) -> None:
        self.put(item.flags, item.expiry, item.size, item.payload, item.stream, shared=True)
        self.stats.total_items -= 1  # it was counted when it was set

    # Ids of producers

    def _add_ids(self) -> ProducerIds:
        return self._sides.add_ids(ProducerIds(self, self._commit, self._medium.store))

    def find_id(self, id: bytes) -> Optional[Replies]:
        """
        See whether an item was put under an id.

        @return: the reply to that (L{GroupCommit.follow}); C{None} where there was none within the queue's C{dedupe_window}.
        @raise StoreError: it cannot be told.
        """
        ids = self._sides.ids
        return None if ids is None or self.policy.dedupe_window is None else ids.find(id)

    def begin_ids(self) -> None:
        """
        An item is about to be put under an id (L{add_id}).

        @raise StoreError: the store has no number for what keeps it.
        """
        if self.policy.dedupe_window is not None:
            (self._sides.ids or self._add_ids()).begin()

    def add_id(self, id: bytes, reply: Replies) -> None:
        """An item is put under an id in this turn, and C{reply} will tell whether it is stored."""
        if self._sides.ids is not None and self.policy.dedupe_window is not None:
            self._sides.ids.add(id, reply)

    def leave_out(self) -> bool:
        """
        An item is not put, as it was before.

        @return: whether there is something to wait for all the same: that it is on stable storage.
        """
        self.stats.duplicates += 1
        if self._synced:
            self._sync()
        return self.policy.sync == "always"

    # Reading

    def peek(self) -> Optional[Item]:
        """
        @return: the item at the head, which stays there; C{None} where there is nothing, or where nobody knows yet as
            it is L{sweeping}.
        """
        while True:
            item = self._contents.head.first() or self._contents.read_first()
            if item is None:
                return None
            if not item.expiry or item.expiry > self._commit.now:
                retries = self._sides.retries
                if retries is not None and retries.exhausted(item.id):
                    retries.dead_letter(self._contents.take_first())
                elif not item.unloaded or self._contents.load_first():
                    return item
            elif self.sweeping:
                return None
            else:
                self._sweep()

    def take(self) -> Optional[Item]:
        """@return: the item at the head, which is consumed by that; C{None} where there is nothing."""
        item = self.peek()
        if item is not None:
            self._contents.take_first()
            self.consume(item)
            self.stats.age_msec = max(0, self._commit.now - item.time)
        return item

    def consume(self, item: Item) -> None:
        if self._sides.retries is not None:
            self._sides.retries.forget(item.id)
        self.ledger.consume(item)
        if item.stream and self._volatile is not None:
            self._volatile.consumed(self.ledger.consumed, item.id)

    def payload(self, item: Item) -> bytes:
        """
        @return: an item's payload; empty where a stream has it.
        @raise StoreError: it cannot be read.
        """
        return self._contents.payload(item)

    # Moving to another queue

    def take_out(self) -> Item:
        """
        Take the item out of memory that L{peek} returned, for L{move_out} or L{put_back}.

        @return: the item, which is neither to be had nor consumed.
        """
        return self._contents.take_first()

    def put_back(self, item: Item) -> None:
        """An item that was taken out is to be had again."""
        self._contents.give_back(item)

    def move_out(self, item: Item, removal: Removal) -> None:
        """
        Consume an item that was put on another queue in this turn (`Queues.move`).  Where that cannot be written, it is
        an item of this queue again.

        @param item: one that was taken out of memory: neither to be had nor consumed.
        @param removal: why.
        """
        if item.stream and self.durable:
            self.ledger.share(item)
        self.consume(item)
        self._commit.moved(self, item, removal)

    def move_to_dead_letters(self, item: Item) -> None:
        assert self.policy.dead_letter_queue is not None
        self._expiry.move(self, item, self.policy.dead_letter_queue.encode(), Removal.DEAD)
        self.stats.count_removal(Removal.DEAD)

    # Open reads

    def open(self) -> Optional[OpenRead]:
        """@return: the item at the head, which nobody else can have for now; C{None} where there is nothing."""
        item = self.peek()
        if item is None:
            return None
        self._contents.take_first()
        self._contents.open[item.id] = item
        self._contents.weigh(item)
        self.stats.transactions += 1
        self.stats.age_msec = max(0, self._commit.now - item.time)
        read = OpenRead(self, item)
        if self._sides.retries is None and self.policy.retries:
            self._add_retries()
        if self._sides.retries is not None:
            self._sides.retries.opened(read)
        return read

    def _add_retries(self) -> Retries:
        return self._sides.add_retries(Retries(self, self._commit, self.ledger, self._contents))

    def is_open(self, item: Item) -> bool:
        return self._contents.open.get(item.id) is item

    def close(self, read: OpenRead) -> bool:
        """
        Consume the item of an open read.

        @return: whether it was open.
        """
        if not read.is_open:
            return False
        del self._contents.open[read.item.id]
        self.consume(read.item)
        return True

    def abort(self, read: OpenRead) -> bool:
        """
        Give the item of an open read back, ahead of all that came after it.

        @return: whether it was open.
        """
        if not read.is_open:
            return False
        del self._contents.open[read.item.id]
        if self._sides.retries is None:
            self._contents.give_back(read.item)
        else:
            self._sides.retries.give_back(read)
        self.stats.canceled_transactions += 1
        if self.waiters.line:
            self.serve()
        return True

    def touch(self, read: OpenRead) -> bool:
        """
        Have the time for which a read may be open begin anew.

        @return: whether it was open.
        """
        if not read.is_open:
            return False
        if self._sides.retries is not None:
            self._sides.retries.extend(read)
        return True

    def time_out(self, read: Read) -> None:
        assert isinstance(read, OpenRead)
        self.abort(read)
        read.late = True

    # Waiting

    def wait(self, serve: Callable[[], None], even_if_empty: bool = False) -> Waiter:
        """
        Stand in line.

        @param serve: called once, when there is an item and everybody who came earlier was served.
        @param even_if_empty: call it also when the queue, which is L{sweeping}, turns out to have nothing.
        """
        return self.waiters.join(Waiter(serve, even_if_empty))

    def leave(self, waiter: Waiter) -> None:
        """Step out of the line.  Harmless for one who was served already."""
        self.waiters.leave(waiter)

    def serve(self) -> None:
        """Serve those who wait, in the order in which they came, as long as there are items."""
        try:
            while self.waiters.line and self.peek() is not None:
                self.waiters.serve_next()
        except StoreError as error:
            self._log.error("cannot read queue {name!r}: {error}", name=self.name, error=error)

    # The turn

    def remark(self) -> None:
        """Write down how far it is consumed with the next turn, whether that has changed or not."""
        if self.number is not None:
            self.ledger.remark()

    def write_to(self, batch: IBatch, puts: bool) -> None:
        if self._deletions is not None:
            self._deletions.write_to(batch, self.name, puts)
        if self._volatile is not None:
            own = self._volatile.batch()
            if not self.durable:
                batch = own
        if self.number is None:
            return
        if self.ledger.write_to(batch, self.name, puts) and self.durable:
            self._reclaimable = self._reclaimer.intervals(self)
        if self._sides.all and (puts or self.ledger.made):
            self._sides.write_to(batch, puts)

    def written(self) -> None:
        self._contents.written()
        self.ledger.written()
        if self._deletions is not None:
            self._deletions.written()
            if self._deletions.done:
                self._deletions = None
        if self._sides.all:
            self._sides.written()
        if self._volatile is not None:
            self._volatile.written()
        if self._reclaimable:
            assert self.number is not None
            self._reclaimer.reclaim(self, self.number, self._reclaimable)
            self._reclaimable = []

    def refuse(self, uncertain: bool) -> None:
        items = self.ledger.refuse()
        self._sides.refuse({item.id for item in items}, uncertain)
        self.not_written()
        if self._deletions is not None:
            self._deletions.refuse()
        self._contents.refuse(items)
        for item in items:
            if item.stream:
                self._reclaimer.stream(item.stream)
            if item.id not in self.ledger.consumed:
                self.consume(item)
        if not (self.ledger.made or self.ledger.pending or self._contents.open or self._sides.pending):
            if self.number is not None and self.durable:
                # Where it was the fsync that failed, the queue may be in the store all the same.
                self._begin_deletions().add_queue(self.number)
            self._leave()

    def not_written(self) -> None:
        self._sides.not_written()
        if self._volatile is not None:
            self._volatile.not_written()
        self.ledger.not_written()
        self._reclaimable = []

    def unread(self, item: Item, number: Optional[int], removal: Optional[Removal] = None) -> None:
        if number != self.number or not self.ledger.restore(item):
            return
        retries = self._sides.retries
        if retries is not None:
            retries.restore(item.id)
        if removal is not None:
            self.stats.count_removal(removal, -1)
            self._expiry.stats.count_removal(removal, -1)
        if removal is Removal.DEAD:
            assert retries is not None
            retries.set_aside(item)
        else:
            self._contents.give_back(item)
        if self.waiters.line:
            self.serve()
