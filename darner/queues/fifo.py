"""
One queue: puts, reads, open reads and waiters.

L{darner.queues.storage.Storage} has its items.
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
from darner.values.items import ITEM_OVERHEAD, Item, QueueState
from darner.values.stats import QueueStats, Removal

DEFAULTS: Final = QueueSettings()


class Fifo(Emptied):
    """
    A queue.

    The object may exist before the first put, as clients may wait for it, and after a deletion of the queue.

    @ivar policy: its settings; change them with L{adopt}.
    @ivar limited: whether the settings limit its items or bytes.
    @ivar accepted: an item of this many bytes or fewer is certainly not too large; a larger one may be.
    @ivar sweeping: whether more items at its head have expired than one sweep drops.  The following turns drop the
        rest; until then it is unknown whether the queue has available items.
    @ivar spreads: whether a put on its name may go to other queues, as well or instead (`darner.queues.routing`), or
        be delayed.
    @ivar storage: its items and other data.
    @ivar waiters: the clients that wait for an item.
    """

    __slots__ = (
        "_commit", "_expiry", "accepted", "limited", "name", "policy", "spreads", "storage", "sweeping", "waiters",
    )  # fmt: skip

    def __init__(
        self, name: bytes, store: IStore, commit: GroupCommit, reclaimer: Reclaims, expiry: Expires,
        budget: MemoryBudget, window_bytes: int = WINDOW_BYTES, policy: QueueSettings = DEFAULTS,
        memory: Optional[VolatileStore] = None, state: Optional[QueueState] = None,
    ) -> None:  # fmt: skip
        """
        @param budget: shared by all queues.
        @param window_bytes: approximate size of the queue's window.
        @param policy: the queue's settings.
        @param memory: the store for volatile queues; C{None} makes the queue durable whatever its settings say.
        @param state: if the queue exists: it stays on disk whatever its settings say, and L{wake} follows.
        """
        self.name = name
        self._keep(policy)
        self.spreads = False
        self.sweeping = False
        self.waiters = Waiters(expiry.stats)
        self._commit = commit
        self._expiry = expiry
        medium = Medium(store, budget, window_bytes, True)
        self.storage = Storage(self, medium, memory, commit, reclaimer, expiry, state)

    def adopt(self, policy: QueueSettings) -> None:
        """Apply new settings.  Items keep their expiry."""
        self._keep(policy)
        self.storage.adopt()

    def _keep(self, policy: QueueSettings) -> None:
        """Note settings, and in the queue's own attributes what each put asks for."""
        self.policy = policy
        self.limited = policy.max_items is not None or policy.max_bytes is not None
        self.accepted = policy.max_item_bytes
        if policy.max_bytes is not None:
            self.accepted = min(self.accepted, policy.max_bytes - ITEM_OVERHEAD)  # as a volatile queue counts it

    def wake(self, state: QueueState) -> None:
        """Begin what goes on by itself, such as delays and expiry.  C{state} is that of the queue."""
        self.storage.wake(state)

    def flush(self) -> None:
        """Consume all items except the open ones."""
        if self.storage.number is not None:
            self.storage.flush()
            self._commit.flushed(self)

    def delete(self) -> None:
        """Delete the queue, with its open reads.  Waiters keep waiting."""
        if self.storage.number is not None:
            self.storage.delete()

    def stop(self) -> None:
        """Cancel all timers."""
        self.storage.sides.stop()

    def give_up(self, numbers: list[int]) -> None:
        self.storage.give_up(numbers)

    def changed(self) -> None:
        """Register the queue with this turn."""
        self._commit.changed(self.storage)

    def remark(self) -> None:
        """Write the mark with the next turn, whether it has changed or not."""
        if self.storage.number is not None:
            self.storage.ledger.remark()

    # Figures

    @property
    def number(self) -> Optional[int]:
        """As L{Storage.number}."""
        return self.storage.number

    @property
    def durable(self) -> bool:
        """As L{Storage.durable}."""
        return self.storage.durable

    @property
    def stats(self) -> QueueStats:
        return self.storage.stats

    @property
    def exists(self) -> bool:
        """Whether the queue exists: it was created by a put and not deleted since."""
        return self.storage.number is not None

    @property
    def unwritten(self) -> bool:
        """Whether it exists but is not in the store yet."""
        return self.storage.number is not None and not self.storage.ledger.made

    @property
    def idle(self) -> bool:
        """Whether the object is not needed: the queue does not exist, and no client waits for it."""
        return self.storage.idle and not self.waiters.line

    @property
    def created(self) -> int:
        """When it was created, in ms since the epoch; 0 while it does not exist."""
        return self.storage.ledger.created

    @property
    def count(self) -> int:
        """The number of items that are available or set aside."""
        return self.storage.contents.count

    @property
    def open_count(self) -> int:
        return len(self.storage.contents.open)

    @property
    def delayed_count(self) -> int:
        return self.storage.sides.delayed_count

    @property
    def oldest_age(self) -> int:
        """How long the item at the head has been in the queue, in ms; 0 if there is none or it cannot be read."""
        time = self.storage.contents.oldest()
        return 0 if time is None else max(0, self._commit.now - time)

    # Expiry

    @property
    def perishable(self) -> bool:
        """As L{Contents.perishable<darner.queues.contents.Contents.perishable>}."""
        return self.storage.contents.perishable

    @property
    def ends(self) -> int:
        """When the queue expires, if it is empty then, in ms since the epoch; 0 is never."""
        return self.storage.bounds.lifetime and self.created + self.storage.bounds.lifetime

    def sweep_on(self) -> bool:
        """
        Drop more items that have expired or exceed the limits, then serve waiters.

        @return: false if the store could not be read or written.
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
        with suppress(StoreError):  # the waiter gets the error when it reads
            self.peek()
        return not self.sweeping

    def _sweep(self) -> None:
        """Drop expired items at the head, at most as many as one sweep may drop."""
        self.sweeping = True  # so that moving items does not start another sweep
        more = False
        try:
            more = self.storage.bounds.drop_expired()
        finally:
            self.sweeping = more
        # An item may have come back to this queue by way of another.  Waiters were not served meanwhile.
        if more or (self.waiters.line and self.policy.expire_to_queue):
            self._expiry.sweep(self)

    # Putting

    def put(self, flags: int, expiry: int, size: int, payload: bytes, stream: int = 0, shared: bool = False) -> Item:
        """
        Put an item at the end, and serve waiters.

        @param expiry: in ms since the epoch; 0 is never.
        @param size: length of the payload in bytes.
        @param payload: the payload; empty if it is in C{stream}.
        @param stream: the number of the stream with the payload; 0 if there is none.
        @param shared: whether other items hold the stream as well.
        @raise darner.errors.StoreError: the queue is new, and the store cannot give it a number.
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
        As L{put}, but later.  The queue exists, and L{begin_delays} was called.

        @param due: when the item becomes available, in ms since the epoch.
        """
        assert self.storage.sides.delays is not None
        self.storage.sides.delays.put(due, flags, expiry, size, payload, stream, shared)
        self.storage.stats.total_items += 1
        if self.storage.synced:
            self.storage.sync()

    def begin_delays(self) -> None:
        """
        Prepare for L{delay}.

        @raise StoreError: the store cannot give a number to the delayed items.
        """
        (self.storage.sides.delays or self.storage.add_delays()).begin()

    def put_due(self, item: Item) -> None:
        self.put(item.flags, item.expiry, item.size, item.payload, item.stream, shared=True)
        self.storage.stats.total_items -= 1  # delay() has counted it

    # Reading

    def peek(self) -> Optional[Item]:
        """
        @return: the item at the head, which stays there; C{None} if there is none, or if that is unknown as the queue
            is C{sweeping}.
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
        """Consume and return the item at the head; C{None} if there is none."""
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
        @return: an item's payload; empty if it is in a stream.
        @raise StoreError: it cannot be read.
        """
        return self.storage.contents.payload(item)

    # Moving to another queue

    def take_out(self) -> Item:
        """Take the item that L{peek} returned out of memory, for L{move_out} or L{put_back}."""
        return self.storage.contents.take_first()

    def put_back(self, item: Item) -> None:
        """Make an item that was taken out available again."""
        self.storage.contents.give_back(item)

    def move_out(self, item: Item, removal: Removal) -> None:
        """
        Consume an item that this turn has put on another queue (`Queues.move`).  If that cannot be written, the item is
        available here again.

        @param item: an item that was taken out of memory.
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
        """Take the item at the head tentatively.  @return: the open read; C{None} if there is no item."""
        item = self.peek()
        if item is None:
            return None
        storage = self.storage
        storage.contents.take_first()
        storage.contents.open[item.id] = item
        storage.contents.weigh(item)
        storage.stats.transactions += 1
        storage.stats.age_msec = max(0, self._commit.now - item.time)
        read = OpenRead(self, storage, item, self._commit.now)
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
        Wait for an item.

        @param serve: called once, when there is an item and all earlier waiters are served.
        @param even_if_empty: call it also when the queue, which is C{sweeping}, turns out to be empty.
        """
        return self.waiters.join(Waiter(serve, even_if_empty))

    def leave(self, waiter: Waiter) -> None:
        """Stop waiting.  Does nothing if the waiter is served already."""
        self.waiters.leave(waiter)

    def serve(self) -> None:
        """Serve waiters in the order of their arrival, as long as there are items."""
        try:
            while self.waiters.line and self.peek() is not None:
                self.waiters.serve_next()
        except StoreError as error:
            message = "cannot read queue {name!r}: {error}"
            self._commit.log.emit(LogLevel.error, message, (message, self.name), name=self.name, error=str(error))
