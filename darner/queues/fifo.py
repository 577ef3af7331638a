"""
One queue: who puts items on it, reads them, has them open, and waits for them.

Its items are in the parts that L{darner.queues.storage.Storage} puts together.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final, Optional

from twisted.logger import LogLevel

from darner.config.policies import QueueSettings
from darner.errors import StoreError
from darner.queues.commit import GroupCommit
from darner.queues.contents import Medium
from darner.queues.head import WINDOW_BYTES, MemoryBudget
from darner.queues.interfaces import Expires, Reclaims
from darner.queues.open_read import OpenRead
from darner.queues.storage import Storage
from darner.queues.turn import Emptied
from darner.queues.volatile import VolatileStore
from darner.queues.waiters import Waiter, Waiters
from darner.store.interfaces import IStore
from darner.values.items import Item, QueueState
from darner.values.stats import QueueStats, Removal

DEFAULTS: Final = QueueSettings()


class Fifo(Emptied):
    """
    A queue by its name.

    The object stays as long as somebody knows the queue: also before the first item is put (clients may wait for it),
    and after a deletion.

    @ivar policy: its settings; change them by L{adopt}.
    @ivar limited: whether the settings limit what it holds.
    @ivar sweeping: whether more has expired at its head than is dropped in one go.  The rest is dropped in the turns
        that follow; until then nobody knows what is behind it.
    @ivar spreads: whether what is set on its name is for other queues as well, or instead (`darner.queues.routing`).
    @ivar storage: its items, and what is kept beside them.
    @ivar waiters: those who wait for an item.
    """

    __slots__ = ("_commit", "_expiry", "limited", "name", "policy", "spreads", "storage", "sweeping", "waiters")

    def __init__(
        self, name: bytes, store: IStore, commit: GroupCommit, reclaimer: Reclaims, expiry: Expires,
        budget: MemoryBudget, window_bytes: int = WINDOW_BYTES, policy: QueueSettings = DEFAULTS,
        memory: Optional[VolatileStore] = None,
    ) -> None:  # fmt: skip
        """
        @param budget: what the windows of all queues have together.
        @param window_bytes: about how much of the queue's head is held in memory.
        @param policy: the queue's settings.
        @param memory: for queues that are not durable; C{None} makes it durable whatever the settings say.
        """
        self.name = name
        self.policy = policy
        self.limited = policy.max_items is not None or policy.max_bytes is not None
        self.spreads = False
        self.sweeping = False
        self.waiters = Waiters(expiry.stats)
        self._commit = commit
        self._expiry = expiry
        self.storage = Storage(self, Medium(store, budget, window_bytes, True), memory, commit, reclaimer, expiry)

    def adopt(self, policy: QueueSettings) -> None:
        """Have these settings from now on.  Items keep the expiry that they have."""
        self.policy = policy
        self.limited = policy.max_items is not None or policy.max_bytes is not None
        self.storage.adopt()

    def recover(self, state: QueueState) -> None:
        """Begin with what the store has of this queue: it stays there whatever the settings say."""
        self.storage.recover(state)

    def flush(self) -> None:
        """Consume all that is to be had; what is open stays open."""
        if self.storage.number is not None:
            self.storage.flush()
            self._commit.flushed(self)

    def delete(self) -> None:
        """Forget everything.  Open reads have nowhere to go back to; those who wait go on waiting."""
        if self.storage.number is not None:
            self.storage.delete()

    def stop(self) -> None:
        """Do nothing by the clock any more."""
        self.storage.sides.stop()

    def give_up(self, numbers: list[int]) -> None:
        self.storage.give_up(numbers)

    def changed(self) -> None:
        """There may be something to write with this turn."""
        self._commit.changed(self.storage)

    def remark(self) -> None:
        """Write down how far it is consumed with the next turn, whether that has changed or not."""
        if self.storage.number is not None:
            self.storage.ledger.remark()

    # Figures

    @property
    def number(self) -> Optional[int]:
        """The number under which the store keeps it; C{None} while there is no such queue."""
        return self.storage.number

    @property
    def durable(self) -> bool:
        """Whether it is kept on disk, and not in memory; where it does not exist, whether it will be."""
        return self.storage.durable

    @property
    def stats(self) -> QueueStats:
        """Its counters."""
        return self.storage.stats

    @property
    def exists(self) -> bool:
        """Whether there is such a queue: items were put on it, and it was not deleted since."""
        return self.storage.number is not None

    @property
    def unwritten(self) -> bool:
        """Whether it exists, but the store does not know it yet."""
        return self.storage.number is not None and not self.storage.ledger.made

    @property
    def idle(self) -> bool:
        """Whether nobody would miss the object: the store knows no such queue, and nobody waits."""
        return self.storage.idle and not self.waiters.line

    @property
    def created(self) -> int:
        """When it was made, in ms since the epoch; 0 while it does not exist."""
        return self.storage.ledger.created

    @property
    def count(self) -> int:
        """How many items are to be had, or set aside."""
        return self.storage.contents.count

    @property
    def open_count(self) -> int:
        """How many items are open."""
        return len(self.storage.contents.open)

    @property
    def oldest_age(self) -> int:
        """How long the item at the head has been there, in ms; 0 where there is none, or it cannot be read."""
        time = self.storage.contents.oldest()
        return 0 if time is None else max(0, self._commit.now - time)

    # Expiry

    @property
    def perishable(self) -> bool:
        """Whether it may hold what expires, or expires itself."""
        return self.storage.contents.perishable

    @property
    def ends(self) -> int:
        """When the queue expires if it is empty then, in ms since the epoch; 0 is never."""
        return self.storage.bounds.lifetime and self.created + self.storage.bounds.lifetime

    def sweep_on(self) -> bool:
        """
        Drop more of what has expired, or is too much, and serve those who wait for that.

        @return: whether it could be done; false where the store refuses.
        """
        self.sweeping = False
        done = True
        try:
            self.peek()
            if self.policy.discard_old_when_full and not self.storage.bounds.drop_old(0, 0):
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
            more = self.storage.bounds.drop_expired()
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
        storage = self.storage
        if storage.number is None:
            storage.make()
        ledger = storage.ledger
        if expiry or storage.bounds.max_age:
            expiry = storage.bounds.expiry_of(ledger.next_id, expiry)
        item = Item(ledger.next_id, flags, self._commit.now, expiry, size, payload, stream)
        if stream:
            storage.pin(item, shared)
        ledger.append(item)
        storage.contents.append(item)
        storage.stats.total_items += 1
        if storage.synced:
            storage.sync()
        if self.waiters.line:
            self.serve()
        return item

    def delay(
        self, due: int, flags: int, expiry: int, size: int, payload: bytes, stream: int = 0, shared: bool = False
    ) -> None:
        """
        As L{put}, but later; the queue exists, and L{begin_delays} was called.

        @param due: when, in ms since the epoch.
        """
        assert self.storage.sides.delays is not None
        self.storage.sides.delays.put(due, flags, expiry, size, payload, stream, shared)
        self.storage.stats.total_items += 1
        if self.storage.synced:
            self.storage.sync()

    def begin_delays(self) -> None:
        """
        An item is about to be put that comes later.

        @raise StoreError: the store has no number for what keeps it.
        """
        (self.storage.sides.delays or self.storage.add_delays()).begin()

    def put_due(self, item: Item) -> None:
        self.put(item.flags, item.expiry, item.size, item.payload, item.stream, shared=True)
        self.storage.stats.total_items -= 1  # it was counted when it was set

    # Reading

    def peek(self) -> Optional[Item]:
        """
        @return: the item at the head, which stays there; C{None} where there is nothing, or where nobody knows yet as
            it is L{sweeping}.
        """
        storage = self.storage
        while True:
            item = storage.contents.head.first() or storage.contents.read_first()
            if item is None:
                return None
            if not item.expiry or item.expiry > self._commit.now:
                retries = storage.sides.retries
                if retries is not None and retries.exhausted(item.id):
                    retries.dead_letter(storage.contents.take_first())
                elif not item.unloaded or storage.contents.load_first():
                    return item
            elif self.sweeping:
                return None
            else:
                self._sweep()

    def take(self) -> Optional[Item]:
        """@return: the item at the head, which is consumed by that; C{None} where there is nothing."""
        item = self.peek()
        if item is not None:
            storage = self.storage
            storage.contents.take_first()
            storage.consume(item)
            storage.stats.age_msec = max(0, self._commit.now - item.time)
        return item

    def consume(self, item: Item) -> None:
        self.storage.consume(item)

    def payload(self, item: Item) -> bytes:
        """
        @return: an item's payload; empty where a stream has it.
        @raise StoreError: it cannot be read.
        """
        return self.storage.contents.payload(item)

    # Moving to another queue

    def take_out(self) -> Item:
        """
        Take the item out of memory that L{peek} returned, for L{move_out} or L{put_back}.

        @return: the item, which is neither to be had nor consumed.
        """
        return self.storage.contents.take_first()

    def put_back(self, item: Item) -> None:
        """An item that was taken out is to be had again."""
        self.storage.contents.give_back(item)

    def move_out(self, item: Item, removal: Removal) -> None:
        """
        Consume an item that was put on another queue in this turn (`Queues.move`).  Where that cannot be written, it is
        an item of this queue again.

        @param item: one that was taken out of memory: neither to be had nor consumed.
        @param removal: why.
        """
        if item.stream and self.storage.durable:
            self.storage.ledger.share(item)
        self.storage.consume(item)
        self._commit.moved(self, item, removal)

    def move_to_dead_letters(self, item: Item) -> None:
        assert self.policy.dead_letter_queue is not None
        self._expiry.move(self, item, self.policy.dead_letter_queue.encode(), Removal.DEAD)
        self.storage.stats.count_removal(Removal.DEAD)

    # Open reads

    def open(self) -> Optional[OpenRead]:
        """@return: the item at the head, which nobody else can have for now; C{None} where there is nothing."""
        item = self.peek()
        if item is None:
            return None
        storage = self.storage
        storage.contents.take_first()
        storage.contents.open[item.id] = item
        storage.contents.weigh(item)
        storage.stats.transactions += 1
        storage.stats.age_msec = max(0, self._commit.now - item.time)
        read = OpenRead(self, storage, item)
        if storage.sides.retries is None and self.policy.retries:
            storage.add_retries()
        if storage.sides.retries is not None:
            storage.sides.retries.opened(read)
        return read

    def unread(self, item: Item, number: Optional[int], removal: Optional[Removal] = None) -> None:
        if number == self.storage.number and self.storage.restore(item, removal):
            self.serve()

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
            message = "cannot read queue {name!r}: {error}"
            self._commit.log.emit(LogLevel.error, message, (message, self.name), name=self.name, error=str(error))
