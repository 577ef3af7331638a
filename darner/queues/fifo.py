"""
One queue: who puts items on it, reads them, has them open, and waits for them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Optional

from darner.errors import StoreError
from darner.queues.answers import Verdict
from darner.queues.attempts import Attempts, Read
from darner.queues.bounds import Bounded
from darner.queues.delayed import DelayedItems
from darner.queues.producer_ids import ProducerIds
from darner.values.items import LET_GO, Item, QueueState

BURY_AGAIN: Final = 1.0
"""Seconds after which an item that could not be moved to the dead letters is tried again."""


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
        return not self.item.time


class Waiter:
    """
    Somebody who waits for an item.  L{serve} is called once there is one, and has to take it or leave it.

    @ivar hasty: whether it is called as well when all that has expired is dropped, and there is nothing behind.
    """

    __slots__ = ("hasty", "serve")

    def __init__(self, serve: Callable[[], None], hasty: bool) -> None:
        self.serve = serve
        self.hasty = hasty


class Fifo(Bounded):
    """
    A queue by its name.

    The object stays as long as somebody knows the queue: also before the first item is put (clients may wait for it),
    and after a deletion.

    @ivar sweeping: whether more has expired at its head than is dropped in one go.  The rest is dropped in the turns
        that follow; until then nobody knows what is behind it.
    @ivar spreads: whether what is set on its name is for other queues as well, or instead (`darner.queues.routing`).
    @ivar waiters: those who wait for an item, in the order in which they came.
    """

    __slots__ = ("spreads", "sweeping", "waiters")

    def _set_up(self) -> None:
        super()._set_up()
        self.spreads = False
        self.sweeping = False
        self.waiters: OrderedDict[Waiter, None] = OrderedDict()

    def recover(self, state: QueueState) -> None:
        """Begin with what the store has of this queue: it stays there whatever the settings say."""
        self._settle(True)
        self._begin(state)
        attempts = {id: count for id, count in state.attempts.items() if id not in self.consumed}
        if attempts:
            self._look_after_reads().recover(attempts)
        if state.delayed is not None:
            self._make_delays().recover(state.delayed)
        if any(state.generations):
            self._remember().recover(*state.generations)
        self._perishable_id = self._next_id
        if self.count or self._lifetime:
            self._watch()

    @property
    def delayed_count(self) -> int:
        """How many items are not to be had yet; they are not among C{count}."""
        return self._delays.count if self._delays is not None else 0

    @property
    def open_count(self) -> int:
        """How many items are open."""
        return len(self._open)

    @property
    def idle(self) -> bool:
        """Whether nobody would miss the object: the store knows no such queue, and nobody waits."""
        return self.number is None and not (self.waiters or self._gone)

    # Putting

    def put(
        self, flags: int, expiry: int, size: int, payload: bytes, stream: int = 0, shared: bool = False
    ) -> Item:
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
        if expiry or self._max_age:
            expiry = self._perish(expiry)
        item = Item(self._next_id, flags, self._commit.now, expiry, size, payload, stream)
        self._append(item, shared)
        self.stats.total_items += 1
        if self._synced:
            self._sync()
        if self.waiters:
            self.serve()
        return item

    def _sync(self) -> None:
        """Have what was put on stable storage when the settings want it there."""
        if isinstance(self.policy.sync, float):
            self._commit.sync_within(self.policy.sync)
        else:
            self._commit.sync()

    # Putting what comes later

    def delay(
        self, due: int, flags: int, expiry: int, size: int, payload: bytes, stream: int = 0, shared: bool = False
    ) -> None:
        """
        As L{put}, but later; the queue exists, and L{begin_delays} was called.

        @param due: when, in ms since the epoch.
        """
        assert self._delays is not None
        self._delays.put(due, flags, expiry, size, payload, stream, shared)
        self.stats.total_items += 1
        if self._synced:
            self._sync()

    def begin_delays(self) -> None:
        """
        An item is about to be put that comes later.

        @raise StoreError: the store has no number for what keeps it.
        """
        (self._delays or self._make_delays()).begin()

    def _make_delays(self) -> DelayedItems:
        holds = None if self.durable else self._in_memory
        delays = self._delays = DelayedItems(self, self._store, self._commit, self._reclaimer, holds)
        self._sides.append(delays)
        return delays

    def come_due(self, item: Item) -> None:
        self.put(item.flags, item.expiry, item.size, item.payload, item.stream, shared=True)
        self.stats.total_items -= 1  # it was counted when it was set

    # Ids of producers

    def _remember(self) -> ProducerIds:
        """@return: where ids are kept."""
        if self._seen is None:
            self._seen = ProducerIds(self, self._commit, self._store)
            self._sides.append(self._seen)
        return self._seen

    def find_id(self, id: bytes) -> Optional[Verdict]:
        """
        See whether an item was put under an id.

        @return: what becomes of that (L{GroupCommit.follow}); C{None} where there was none within
            the queue's C{dedupe_window}.
        @raise StoreError: it cannot be told.
        """
        if self._seen is None or self.policy.dedupe_window is None:
            return None
        return self._seen.find(id)

    def begin_ids(self) -> None:
        """
        An item is about to be put under an id (L{add_id}).

        @raise StoreError: the store has no number for what keeps it.
        """
        if self.policy.dedupe_window is not None:
            self._remember().begin()

    def add_id(self, id: bytes, reply: Verdict) -> None:
        """An item is put under an id in this turn, and C{reply} will tell whether it is stored."""
        if self._seen is not None and self.policy.dedupe_window is not None:
            self._seen.add(id, reply)

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
            item = self._head.first() or self._first()
            if item is None:
                return None
            if not item.expiry or item.expiry > self._commit.now:
                if self._retries is not None and self._retries.spent(item.id):
                    self._bury(self._take_head())
                    continue
                if item.payload is not LET_GO or self._load(item):
                    return item
                continue
            if self.sweeping:
                return None
            self._sweep()

    def _sweep(self) -> None:
        """Drop what has expired at the head, as much as may be dropped in one go."""
        self.sweeping = True  # so that nobody else does while items are moved
        more = False
        try:
            more = self._drop_expired()
        finally:
            self.sweeping = more
        # An item may have come back to this queue by way of another; who waits for it was not served meanwhile.
        if more or (self.waiters and self.policy.expire_to_queue):
            self._expiry.sweep(self)

    def sweep_on(self) -> bool:
        """
        Drop more of what has expired, or is too much, and serve those who wait for that.

        @return: whether it could be done; false where the store refuses.
        """
        self.sweeping = False
        done = True
        try:
            self.peek()
            if self.policy.discard_old_when_full and not self._drop_old(0, 0):
                self._expiry.sweep(self)
        except StoreError:
            done = False
        self.serve()
        for waiter in [waiter for waiter in self.waiters if waiter.hasty]:
            # Where it cannot be read the waiter hears of it.
            with suppress(StoreError):
                self.peek()
            if self.sweeping:
                break
            self.leave(waiter)
            waiter.serve()
        return done

    def take(self) -> Optional[Item]:
        """@return: the item at the head, which is consumed by that; C{None} where there is nothing."""
        item = self.peek()
        if item is not None:
            self._take_head()
            self._consume(item)
            self.stats.age_msec = self._age(item)
        return item

    def open(self) -> Optional[OpenRead]:
        """@return: the item at the head, set aside for the caller; C{None} where there is nothing."""
        item = self.peek()
        if item is None:
            return None
        self._take_head()
        self._open[item.id] = item
        self._weigh(item)
        self.stats.transactions += 1
        self.stats.age_msec = self._age(item)
        read = OpenRead(self, item)
        if self._retries is None and self.policy.retries:
            self._look_after_reads()
        if self._retries is not None and self._retries.opened(read):
            self._commit.changed(self)
        return read

    def is_open(self, item: Item) -> bool:
        return self._open.get(item.id) is item

    def close(self, read: OpenRead) -> bool:
        """
        Consume the item of an open read.

        @return: whether it was open.
        """
        if not read.is_open:
            return False
        del self._open[read.item.id]
        self._consume(read.item)
        return True

    def abort(self, read: OpenRead) -> bool:
        """
        Give the item of an open read back, ahead of all that came after it.

        @return: whether it was open.
        """
        if not read.is_open:
            return False
        del self._open[read.item.id]
        if self._retries is None:
            self._give_back(read.item)
        else:
            self._retries.ended(read)
            self._retry(read.item, self._retries)
        self.stats.canceled_transactions += 1
        if self.waiters:
            self.serve()
        return True

    # Trying again

    def _look_after_reads(self) -> Attempts:
        retries = self._retries = Attempts(self, self._commit)
        self._sides.append(retries)
        return retries

    def touch(self, read: OpenRead) -> bool:
        """
        Have the time for which a read may be open begin anew.

        @return: whether it was open.
        """
        if not read.is_open:
            return False
        if self._retries is not None:
            self._retries.extend(read)
        return True

    def time_out(self, read: Read) -> None:
        assert isinstance(read, OpenRead)
        self.abort(read)
        read.late = True

    def _retry(self, item: Item, retries: Attempts) -> None:
        """An item was given back: have it again, now or later, or be rid of it."""
        if retries.spent(item.id):
            self._bury(item)
        elif self.policy.retry_delay is None:
            self._give_back(item)
        else:
            self._set_aside(item, self.policy.retry_delay)

    def _set_aside(self, item: Item, delay: float) -> None:
        assert self._retries is not None
        self.count += 1
        self.bytes += item.size
        if item.id < self._head.read_id:
            self._retries.set_aside(item, delay)

    def come_back(self, item: Item) -> None:
        assert self._retries is not None
        self.count -= 1
        self.bytes -= item.size
        if self._retries.spent(item.id):
            self._bury(item)
        else:
            self._give_back(item)

    def _bury(self, item: Item) -> None:
        """
        Move an item to the dead letters.

        @param item: one that was taken out of memory: neither to be had nor consumed.
        """
        name = self.policy.dead_letter_queue
        assert name is not None
        if self._writing and item.id >= self._writing[0].id:
            # Its put is being written.  Where that is refused it must not be found there.
            self._set_aside(item, BURY_AGAIN)
            return
        try:
            self._expiry.move(self, item, name.encode(), "dead")
        except StoreError as error:
            self._log.error(
                "cannot move item {id} of queue {name!r} to the dead letters, will try again: {error}",
                id=item.id, name=self.name, error=error,
            )  # fmt: skip
            self._set_aside(item, BURY_AGAIN)
        else:
            self.stats.dead += 1

    def bury_found(self, id: int) -> int:
        assert self._retries is not None
        assert self.number is not None
        # What the window came to is found at the head, when it is there.
        if id < self._head.read_id or not self._retries.spent(id):
            return 0
        try:
            found = self._store.read(self.number, id, id + 1, 1)
        except StoreError:
            found = []
        for item in found:
            self.count -= 1
            self.bytes -= item.size
            self._bury(item)
        return sum(item.size for item in found)

    def _come_again(self, item: Item, counter: str) -> None:
        if counter:
            self._count_back(counter)
        if counter == "dead":
            self._set_aside(item, BURY_AGAIN)
        else:
            self._give_back(item)
        if self.waiters:
            self.serve()

    def _count_back(self, counter: str) -> None:
        """What was counted has not happened."""
        for stats in (self.stats, self._expiry.stats):
            if hasattr(stats, counter):
                setattr(stats, counter, getattr(stats, counter) - 1)

    # Waiting

    def wait(self, serve: Callable[[], None], hasty: bool = False) -> Waiter:
        """
        Stand in line.

        @param serve: called once, when there is an item and everybody who came earlier was served.
        @param hasty: call it also when the queue, which is L{sweeping}, turns out to have nothing.
        """
        waiter = Waiter(serve, hasty)
        self.waiters[waiter] = None
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Step out of the line.  Harmless for one who was served already."""
        self.waiters.pop(waiter, None)

    def serve(self) -> None:
        """Serve those who wait, in the order in which they came, as long as there are items."""
        try:
            while self.waiters and self.peek() is not None:
                waiter, _ = self.waiters.popitem(last=False)
                waiter.serve()
        except StoreError as error:
            self._log.error("cannot read queue {name!r}: {error}", name=self.name, error=error)
