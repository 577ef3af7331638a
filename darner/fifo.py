"""
One queue.

Its memory holds the head of the queue, as far as a bound allows, and what is open; the rest lies in the store.  An item
comes from one of three places, in this order: those given back, the window (items read ahead, or put while the queue is
short), the store.

What is in the queue follows from the next id and the set of consumed ids alone.  Every change goes to memory at once
and to the store at the end of the turn, by L{Fifo.write_to}.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from itertools import chain
from typing import Final, Optional, Protocol

from twisted.logger import Logger

from darner.delays import Delays
from darner.errors import QueueFull, StoreError
from darner.head import WINDOW_BYTES, Head, Room
from darner.interfaces import IBatch, IStore
from darner.items import ITEM_OVERHEAD, LET_GO, Item, Mark, QueueState
from darner.policies import QueueSettings
from darner.retries import Read, Retries
from darner.seen import Seen
from darner.stats import QueueStats, ServerStats
from darner.turn import Replies, Turn
from darner.volatile import Volatile, VolatileStore

HEAVY: Final = 1024
"""
Payloads above this size, in bytes, are not kept in memory while their items are open or given back: clients may have
any number of those.
"""

BURY_AGAIN: Final = 1.0
"""Seconds after which an item that could not be moved to the dead letters is tried again."""

SWEEP_BYTES: Final = 1024 * 1024
"""About how many bytes of items, as they are in memory, are dropped in one go at most."""


class Reclaims(Protocol):
    """Who gives the room of consumed items back, as the queue sees it."""

    def intervals(self, fifo: Fifo) -> list[tuple[int, int]]:
        """@return: the intervals of consumed ids to reclaim once they are written; none while it is not worth it."""

    def reclaim(self, fifo: Fifo, number: int, intervals: list[tuple[int, int]]) -> None:
        """These ids are written down as consumed."""

    def queue(self, number: int) -> None:
        """The deletion of the queue with this number is written down."""

    def delayed(self, number: int, since: int, until: int, size: int) -> None:
        """So many bytes of delayed items that were due between these are not kept any more."""

    def stream(self, stream: int) -> None:
        """No item will ever hold this stream."""

    def pin(self, stream: int) -> None:
        """An item that is only in memory has this stream."""

    def unpin(self, stream: int) -> None:
        """It has it no more."""


class Expires(Protocol):
    """Who sees to what expires, as the queue sees it."""

    stats: ServerStats
    """The server's counters."""

    move: Callable[[Fifo, Item, bytes, str], None]
    """Puts an item that was taken out of memory on another queue (`Queues.move`)."""

    is_durable: Callable[[bytes], bool]
    """Whether what is put on the queue of that name is written to disk (`Queues.is_durable`)."""

    def watch(self, fifo: Fifo) -> None:
        """Something changed at the head of the queue, which may hold what expires."""

    def sweep(self, fifo: Fifo) -> None:
        """There is more to be dropped: call L{Fifo.sweep_on} in a later turn."""


class Side(Protocol):
    """What a queue keeps beside its items, under numbers of its own."""

    @property
    def pending(self) -> bool:
        """Whether there is anything in it for which the queue has to exist."""

    def write_to(self, batch: IBatch, puts: bool) -> None:
        """Add what changed to the batch, and without C{puts} nothing that needs room."""

    def written(self) -> None:
        """The batch is in the store."""

    def refuse(self) -> None:
        """It is not, and what was put with it never will be; called before L{not_written}."""

    def not_written(self) -> None:
        """What the batch took away is to be written with the next turn."""

    def flush(self) -> list[int]:
        """
        Forget the items.

        @return: the numbers under which nothing is kept any more.
        """

    def delete(self) -> list[int]:
        """
        The queue is deleted, or the store will never know it.

        @return: the numbers under which something was kept.
        """

    def stop(self) -> None:
        """Do nothing by the clock any more."""


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


class Fifo:
    """
    A queue by its name.

    The object stays as long as somebody knows the queue: also before the first item is put (clients may wait for it),
    and after a deletion.

    @ivar number: the number under which the store keeps it; C{None} while the store does not know it.
    @ivar created: when it was made, in ms since the epoch; 0 while the store does not know it.
    @ivar policy: its settings; change them by L{adopt}.
    @ivar durable: whether it is kept on disk, and not in memory (`darner.volatile`); where it does not exist, whether
        it will be.
    @ivar limited: whether these limit what it holds.
    @ivar perishable: whether it may hold what expires, or expires itself.
    @ivar sweeping: whether more has expired at its head than is dropped in one go.  The rest is dropped in the turns
        that follow; until then nobody knows what is behind it.
    @ivar spreads: whether what is set on its name is for other queues as well, or instead (`darner.fanout`).
    @ivar count: how many items are to be had.
    @ivar bytes: how many bytes of payload they have.
    @ivar consumed: the ids of all items that are gone.
    @ivar floor: everything below this id is reclaimed.
    @ivar unreclaimed: about how many bytes were consumed since the reclaimer last looked.
    """

    __slots__ = (
        "__weakref__",
        "_bytes_consumed",
        "_bytes_put",
        "_delays",
        "_discards",
        "_disk",
        "_expiry",
        "_fresh",
        "_handed_changes",
        "_handed_discards",
        "_handed_removals",
        "_head",
        "_heavy",
        "_lifetime",
        "_made",
        "_making",
        "_marked",
        "_max_age",
        "_memory",
        "_next_id",
        "_open",
        "_perishable_id",
        "_reclaimable",
        "_reclaimer",
        "_removals",
        "_retries",
        "_room",
        "_seen",
        "_shares",
        "_sides",
        "_store",
        "_synced",
        "_turn",
        "_volatile",
        "_window_bytes",
        "_writing",
        "bytes",
        "consumed",
        "count",
        "created",
        "durable",
        "floor",
        "limited",
        "name",
        "number",
        "perishable",
        "policy",
        "spreads",
        "stats",
        "sweeping",
        "unreclaimed",
        "waiters",
    )

    _log = Logger()

    def __init__(
        self,
        name: bytes,
        store: IStore,
        turn: Turn,
        reclaimer: Reclaims,
        expiry: Expires,
        room: Room,
        window_bytes: int = WINDOW_BYTES,
        policy: QueueSettings = QueueSettings(),  # noqa: B008  (it is frozen)
        memory: Optional[VolatileStore] = None,
    ) -> None:
        """
        @param room: what the windows of all queues have together.
        @param window_bytes: about how much of the queue's head is held in memory.
        @param policy: the queue's settings.
        @param memory: for queues that are not durable; C{None} makes it durable whatever the settings say.
        """
        self._retries: Optional[Retries] = None
        self._seen: Optional[Seen] = None
        self.name = name
        self.spreads = False
        self._expiry = expiry
        self._room = room
        self._head = Head(bound=window_bytes)
        self._reclaimer = reclaimer
        self._store = store
        self._turn = turn
        self._window_bytes = window_bytes
        self._disk = (store, room, window_bytes)
        self._memory = memory
        self._volatile: Optional[Volatile] = None
        self.durable = True
        self.policy = policy
        self.waiters: OrderedDict[Waiter, None] = OrderedDict()
        self._removals: list[int] = []
        self._handed_removals = 0
        self._discards: list[int] = []
        self._handed_discards = 0
        self._sides: list[Side] = []
        self._delays: Optional[Delays] = None
        self.number: Optional[int] = None
        self.sweeping = False
        self._begin_anew()
        self.adopt(policy)

    def adopt(self, policy: QueueSettings) -> None:
        """Have these settings from now on.  Items keep the expiry that they have."""
        self.policy = policy
        self.limited = policy.max_items is not None or policy.max_bytes is not None
        if self.number is None:
            self._settle(policy.durable)
        self._synced = self.durable and policy.sync != "never"
        self._max_age = int((policy.max_age or 0) * 1000)
        self._lifetime = int((policy.max_queue_age or 0) * 1000)
        if self._lifetime and self.number is not None:
            self._watch()
        if self._seen is not None:
            self._seen.adopt()
        if self._retries is not None:
            self._retries.adopt()

    def _settle(self, durable: bool) -> None:
        """Be kept on disk or in memory, while nothing is kept."""
        durable = durable or self._memory is None
        if durable == self.durable:
            return
        self.durable = durable
        self._synced = durable and self.policy.sync != "never"
        if self._memory is None or durable:
            self._store, self._room, self._window_bytes = self._disk
        else:
            self._store, self._room, self._window_bytes = self._memory, self._memory.room, sys.maxsize
            if self._volatile is None:
                self._volatile = Volatile(self._memory, self._turn, self._reclaimer)
        self._head = Head(bound=self._window_bytes)

    def _begin_anew(self) -> None:
        """Know nothing of any item, as the store knows no such queue."""
        self._begin(QueueState(self.name, 0, 0))
        self.number = None
        self._made = False
        self._settle(self.policy.durable)

    def _begin(self, state: QueueState) -> None:
        """Take over what the store knows of the queue."""
        self.number = state.number
        self._made = True
        self._making = False
        self.stats = QueueStats()
        self.created = state.created
        self._next_id = state.next_id
        self._bytes_put = state.bytes_put
        self._bytes_consumed = state.bytes_consumed
        self.floor = state.floor
        self.consumed = state.consumed
        self._marked = False
        self.unreclaimed = 0
        self.count = state.next_id - len(state.consumed)
        self.bytes = state.bytes_put - state.bytes_consumed
        self._forget_head(0)
        self._open: dict[int, Item] = {}
        self._fresh: list[Item] = []  # put since the last batch
        self._writing: list[Item] = []  # in the batch that is being written
        self._shares: list[tuple[int, int]] = []  # streams that are held by others as well, and by which item here
        self._handed_changes: list[tuple[int, int]] = []
        self._reclaimable: list[tuple[int, int]] = []
        self._heavy: list[Item] = []  # of which the payload goes at the end of the turn
        self._forget_retries()
        self.perishable = False
        self._perishable_id = 0  # no item from there on expires

    def _forget_head(self, read_id: int) -> None:
        self._head.held = 0
        self._room.account(self._head)
        self._head = Head(read_id, self._window_bytes)

    def recover(self, state: QueueState) -> None:
        """Begin with what the store has of this queue: it stays there whatever the settings say."""
        self._settle(True)
        self._begin(state)
        attempts = {id: count for id, count in state.attempts.items() if id not in self.consumed}
        if attempts:
            self._retries = Retries(self, self._turn)
            self._retries.recover(attempts)
        if state.delayed is not None:
            self._make_delays().recover(state.delayed)
        if any(state.generations):
            self._remember().recover(*state.generations)
        self._perishable_id = self._next_id
        if self.count or self._lifetime:
            self._watch()

    def stop(self) -> None:
        """Do nothing by the clock any more."""
        self._forget_retries()
        for side in self._sides:
            side.stop()

    def _forget_retries(self) -> None:
        if self._retries is not None:
            self._retries.stop()
            self._retries = None

    @property
    def set_aside_count(self) -> int:
        """How many of the items that were given back are not to be had yet; they are among C{count}."""
        return self._retries.set_aside_count if self._retries is not None else 0

    @property
    def delayed_count(self) -> int:
        """How many items are not to be had yet; they are not among C{count}."""
        return self._delays.count if self._delays is not None else 0

    @property
    def open_count(self) -> int:
        """How many items are open."""
        return len(self._open)

    @property
    def exists(self) -> bool:
        """Whether there is such a queue: items were put on it, and it was not deleted since."""
        return self.number is not None

    @property
    def unwritten(self) -> bool:
        """Whether it exists, but the store does not know it yet."""
        return self.number is not None and not self._made

    @property
    def idle(self) -> bool:
        """Whether nobody would miss the object: the store knows no such queue, and nobody waits."""
        return self.number is None and not (self.waiters or self._removals or self._discards)

    # Putting

    def make(self) -> None:
        """
        Have the queue exist.

        @raise darner.errors.StoreError: the store has no number for it.
        """
        self.number = self._store.new_number()
        self._made = False
        self.created = self._turn.now
        if self._lifetime:
            self._watch()

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
        id = self._next_id
        if expiry or self._max_age:
            expiry = self._perish(expiry)
        item = Item(id, flags, self._turn.now, expiry, size, payload, stream)
        self._next_id = id + 1
        self._bytes_put += size
        self.count += 1
        self.bytes += size
        self.stats.total_items += 1
        if stream:
            self._hold(stream, id, shared)
        self._fresh.append(item)
        self._head.follow(item)
        self._turn.changed(self)
        if self._synced:
            self._sync()
        if self.waiters:
            self.serve()
        return item

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

    def _make_delays(self) -> Delays:
        holds = None if self.durable else self._volatile
        delays = self._delays = Delays(self, self._store, self._turn, self._reclaimer, holds)
        self._sides.append(delays)
        return delays

    def come_due(self, item: Item) -> None:
        self.put(item.flags, item.expiry, item.size, item.payload, item.stream, shared=True)
        self.stats.total_items -= 1  # it was counted when it was set

    def _hold(self, stream: int, id: int, shared: bool) -> None:
        if not self.durable:
            assert self._volatile is not None
            self._volatile.hold(id, stream)
        elif shared:
            self._shares.append((stream, id))

    # Ids of producers

    def _remember(self) -> Seen:
        """@return: where ids are kept."""
        if self._seen is None:
            self._seen = Seen(self, self._turn, self._store)
            self._sides.append(self._seen)
        return self._seen

    def find_id(self, id: bytes) -> Optional[Replies]:
        """
        See whether an item was put under an id.

        @return: the reply to that (L{Turn.follow}); C{None} where there was none within the queue's C{dedupe_window}.
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

    def add_id(self, id: bytes, reply: Replies) -> None:
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

    def give_up(self, number: int) -> None:
        self._give_up([number])

    def _sync(self) -> None:
        """Have what was put on stable storage when the settings want it there."""
        if isinstance(self.policy.sync, float):
            self._turn.sync_within(self.policy.sync)
        else:
            self._turn.sync()

    # Limits

    def make_room(self, size: int) -> None:
        """
        See that there is room for one more item: what has expired goes, and where the settings say so the oldest items
        that are to be had.  More of these than may be dropped in one go are dropped in the turns that follow.

        @param size: of the item, in bytes; no more than C{max_bytes}.
        @raise QueueFull: there is no room.
        """
        self.check_room(size)
        if self.policy.discard_old_when_full and self._is_over(1, size) and not self._drop_old(1, size):
            self._expiry.sweep(self)

    def check_room(self, size: int) -> None:
        """
        See whether there is room for one more item, or L{make_room} would see to it: nothing goes but what has expired.

        @param size: of the item, in bytes; no more than C{max_bytes}.
        @raise QueueFull: there is no room.
        """
        if self.policy.discard_old_when_full:
            if self._is_stuffed(size):
                raise QueueFull()
        elif self._is_over(1, size) and not self._drop_old(1, size):
            raise QueueFull()

    def _exceeds(self, items: int, size: int) -> bool:
        policy = self.policy
        return (policy.max_items is not None and items > policy.max_items) or (
            policy.max_bytes is not None and size > policy.max_bytes
        )

    def _is_stuffed(self, size: int) -> bool:
        """Whether there is no room for an item of that size though all be dropped that can be."""
        items, overhead = 1, 0
        if self._delays is not None:
            items += self._delays.count
            size += self._delays.bytes
        if not self.durable:
            overhead = items
            if self._retries is not None:
                size += self._retries.set_aside_bytes
                overhead += self._retries.set_aside_count
        return self._exceeds(items, size + overhead * ITEM_OVERHEAD)

    def _is_over(self, items: int, size: int) -> bool:
        """Whether it would be over its limits with so many more items and bytes."""
        items += self.count
        size += self.bytes
        if self._delays is not None:
            items += self._delays.count
            size += self._delays.bytes
        if not self.durable:
            # It is for memory, which those that are set aside take as well.
            size += items * ITEM_OVERHEAD
        if self._retries is not None:
            # They are not to be had, as open ones are not.
            items -= self._retries.set_aside_count
            if self.durable:
                size -= self._retries.set_aside_bytes
        return self._exceeds(items, size)

    def _drop_old(self, items: int, size: int) -> bool:
        """
        Drop items at the head to make room, as many as may be dropped in one go.

        @return: whether there is room now.
        """
        left, bytes_left = self.policy.max_expire_sweep, SWEEP_BYTES
        while self._is_over(items, size):
            item = self._first()
            if item is None:
                # What is over then is set aside: to go on would be no use.
                return self.policy.discard_old_when_full
            if not left or bytes_left <= 0:
                return False
            left -= 1
            bytes_left -= len(item.payload) + ITEM_OVERHEAD
            if item.expiry and item.expiry <= self._turn.now:
                self._expire(item)
            elif self.policy.discard_old_when_full:
                self._discard(item)
            else:
                return False
        return True

    def _discard(self, item: Item) -> None:
        """Drop the item at the head, unless what came in its place cannot be written."""
        self._take_head()
        self._consume(item)
        self._turn.moved(self, item, "discarded")
        self.stats.discarded += 1
        self._expiry.stats.discarded += 1

    # Expiry

    def _watch(self) -> None:
        self.perishable = True
        self._expiry.watch(self)

    def _perish(self, expiry: int) -> int:
        """@return: when an item expires that is put now and would by itself expire then."""
        if self._max_age:
            latest = self._turn.now + self._max_age
            expiry = min(expiry or latest, latest)
        self._perishable_id = self._next_id + 1
        self.perishable = True
        if self.count == self.set_aside_count:  # it will be at the head
            self._expiry.watch(self)
        return expiry

    @property
    def ends(self) -> int:
        """When the queue expires if it is empty then, in ms since the epoch; 0 is never."""
        return self._lifetime and self.created + self._lifetime

    def due(self) -> int:
        """
        @return: when the item at the head expires, in ms since the epoch; 0 where it never does, or there is none.
        @raise StoreError: it cannot be read.
        """
        item = self._glance()
        if item is None or item.id >= self._perishable_id:
            self.perishable = self._lifetime > 0
            return 0
        return item.expiry

    def _glance(self) -> Optional[Item]:
        """As L{_first}, but nobody reads the queue, and there may be many of them."""
        item = self._head.first()
        if item is None and self.count:
            # No more than is needed.
            self._read_ahead(1)
            self._room.account(self._head)
            item = self._head.first()
        return item

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

    def _drop_expired(self) -> bool:
        """@return: whether there is more."""
        left, bytes_left = self.policy.max_expire_sweep, SWEEP_BYTES
        while (item := self._first()) is not None and item.expiry and item.expiry <= self._turn.now:
            if not left or bytes_left <= 0:
                return True
            left -= 1
            bytes_left -= len(item.payload) + ITEM_OVERHEAD
            self._expire(item)
        return False

    def _expire(self, item: Item) -> None:
        """
        Drop the item at the head, or have it moved where such items go.

        @raise StoreError: it cannot be moved, and is still there.
        """
        target = self.policy.expire_to_queue
        if target is not None:
            written = self.durable or self._expiry.is_durable(target.encode())
            if written and not self._turn.health.writable:
                # Nor will this be written: each attempt would open the store anew.
                raise StoreError(self._turn.health.reason)
            if item.payload is LET_GO and not self._load(item):
                return
        self._take_head()
        if target is None:
            self._consume(item)
        else:
            try:
                self._expiry.move(self, item, target.encode(), "expired_items")
            except StoreError:
                self._give_back(item)
                raise
        self.stats.expired_items += 1
        self._expiry.stats.expired_items += 1

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
            if not item.expiry or item.expiry > self._turn.now:
                if self._retries is not None and self._retries.spent(item.id):
                    self._bury(self._take_head())
                    continue
                if item.payload is not LET_GO or self._load(item):
                    return item
                continue
            if self.sweeping:
                return None
            self._sweep()

    def _first(self) -> Optional[Item]:
        """@return: the item at the head, whether it has expired or not; C{None} where there is nothing."""
        item = self._head.first()
        if item is None:
            self._read_ahead(self._window_bytes)
            # At once: a queue that is only looked at, or whose items are opened, has nothing to be written.
            self._room.account(self._head)
            item = self._head.first()
        return item

    def _load(self, item: Item) -> bool:
        """
        Read the payload of the item at the head again.

        @return: whether it is there; it is consumed if not.
        """
        assert self.number is not None
        found = self._store.read(self.number, item.id, item.id + 1, 1)
        if found:
            item.payload = found[0].payload
            self._weigh(item)
            return True
        self._head.take_first()
        self.bytes -= item.size
        self._bytes_consumed += item.size
        self._miss(item.id, item.id + 1)
        return False

    def _weigh(self, item: Item) -> None:
        """What is here of the item may stay for this turn only."""
        if item.size > HEAVY and not item.stream and self.durable:
            self._heavy.append(item)
            self._turn.changed(self)

    def _lighten(self) -> None:
        """Let go of the payloads that were needed in this turn, but for those that are still to be written."""
        written = self._fresh[0].id if self._fresh else self._next_id
        for item in self._heavy:
            if item.id < written:
                item.payload = LET_GO
        self._heavy = [item for item in self._heavy if item.id >= written]

    def _age(self, item: Item) -> int:
        """@return: how long ago an item was put, in ms; 0 where the clock was set back since."""
        return max(0, self._turn.now - item.time)

    @property
    def oldest_age(self) -> int:
        """How long the item at the head has been there, in ms; 0 where there is none, or it cannot be read."""
        with suppress(StoreError):
            item = self._glance()
            if item is not None:
                return self._age(item)
        return 0

    def _take_head(self) -> Item:
        """Take the item at the head out of memory.  It is neither to be had nor consumed."""
        item = self._head.take_first()
        self.count -= 1
        self.bytes -= item.size
        if self.perishable:
            self._expiry.watch(self)
        return item

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
            self._retries = Retries(self, self._turn)
        if self._retries is not None and self._retries.opened(read):
            self._turn.changed(self)
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

    def _give_back(self, item: Item) -> None:
        self.count += 1
        self.bytes += item.size
        # The window has still to come to an item that was found in the store and could not be moved.
        if item.id < self._head.read_id:
            self._head.give_back(item)
            if item.expiry:
                self._watch()

    # Trying again

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

    def _retry(self, item: Item, retries: Retries) -> None:
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

    def _consume(self, item: Item) -> None:
        if self._retries is not None:
            self._retries.forget(item.id)
        self.consumed.add(item.id, item.id + 1)
        self._bytes_consumed += item.size
        self.unreclaimed += item.size + ITEM_OVERHEAD
        self._marked = True
        self._turn.changed(self)
        if item.stream and self._volatile is not None:
            self._volatile.consumed(self.consumed, item.id)

    def payload(self, item: Item) -> bytes:
        """
        @return: an item's payload; empty where a stream has it.
        @raise StoreError: it cannot be read.
        """
        if item.payload is not LET_GO:
            return item.payload
        assert self.number is not None
        found = self._store.read(self.number, item.id, item.id + 1, 1)
        if not found:
            raise StoreError(f"item {item.id} is missing")
        return found[0].payload

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
        self._turn.moved(self, item, counter)

    def take_out(self) -> Item:
        """
        Take the item out of memory that L{peek} returned, for L{move_out} or L{put_back}.

        @return: the item, which is neither to be had nor consumed.
        """
        return self._take_head()

    def put_back(self, item: Item) -> None:
        """An item that was taken out is to be had again."""
        self._give_back(item)

    def _read_ahead(self, max_bytes: int) -> None:
        """Fill the empty window with what comes next, from the store or from what is on its way there."""
        head = self._head
        start = self.consumed.next_missing(head.read_id)
        while start < self._next_id and not head.held:
            waiting = list(chain(self._writing, self._fresh))
            written = waiting[0].id if waiting else self._next_id
            if start < written:
                assert self.number is not None
                stop = written
                items = self._store.read(self.number, start, written, max_bytes)
            else:
                stop = self._next_id
                items = waiting
            self._take_in(start, items, stop)
            start = self.consumed.next_missing(head.read_id)

    def _take_in(self, start: int, items: list[Item], stop: int) -> None:
        """
        Take items into the window, those that are not consumed, up to its bound.

        @param start: the id that is expected first.
        @param items: all that there is from there on, or the first of it.
        @param stop: where the items end if there are none at all.
        """
        for item in items:
            if self._head.full:
                return
            if item.id < start or item.id in self.consumed:
                continue
            self._miss(start, item.id)
            self._head.hold(item)
            start = item.id + 1
        if not items:
            self._miss(start, stop)
            self._head.read_id = stop
        else:
            self._head.read_id = max(self._head.read_id, items[-1].id + 1)

    def _miss(self, start: int, stop: int) -> None:
        """Account for items that should be in the store and are not, which takes a damaged store."""
        missing = 0
        start = self.consumed.next_missing(start)
        while start < stop:
            self.consumed.add(start, start + 1)
            missing += 1
            start = self.consumed.next_missing(start)
        if missing:
            self.count -= missing
            self._marked = True
            self._turn.changed(self)
            self._log.error(
                "{missing} items of queue {name!r} before item {stop} are missing from the store",
                missing=missing, name=self.name, stop=stop,
            )  # fmt: skip

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

    # Flushing and deleting

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
        if self._retries is not None:
            self._retries.flush(self._open)
        for side in self._sides:
            self._give_up(side.flush())
        if self._volatile is not None:
            self._volatile.flushed(self.consumed)
        if self.perishable:
            self._expiry.watch(self)
        self.stats.total_flushes += 1
        self._forget_head(self._next_id)
        self._marked = True
        self._turn.flushed(self)
        self._turn.changed(self)

    def delete(self) -> None:
        """Forget everything.  Open reads have nowhere to go back to; those who wait go on waiting."""
        if self.number is None:
            return
        if self.durable and (self._made or self._making):
            self._removals.append(self.number)
        self._turn.changed(self)
        self._leave_sides()
        for item in self._fresh:
            if item.stream:
                self._reclaimer.stream(item.stream)
        if self.perishable:
            self._expiry.watch(self)
        self._begin_anew()

    def _leave_sides(self) -> None:
        for side in self._sides:
            side.stop()
            self._give_up(side.delete())
        self._sides = []
        self._delays = None
        self._seen = None
        if self._discards:
            self._turn.changed(self)
        if self._volatile is not None:
            self._volatile.leave()

    def _give_up(self, numbers: list[int]) -> None:
        """Nothing is kept under these numbers any more."""
        if self.durable:
            self._discards += numbers
        elif numbers:
            assert self._volatile is not None
            self._volatile.discard(numbers)
            self._turn.changed(self)

    # The store

    def remark(self) -> None:
        """Write the mark anew with the next turn."""
        if self.number is not None:
            self._marked = True
            self._turn.changed(self)

    def write_to(self, batch: IBatch, puts: bool) -> None:
        if self._removals or self._discards:
            self._write_removals(batch)
        if self._volatile is not None:
            own = self._volatile.batch()
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
        if self._retries is not None and (puts or self._made):
            self._retries.write_to(batch, self.number, self._fresh[0].id if self._fresh else self._next_id)
        if puts or self._made:
            for side in self._sides:
                side.write_to(batch, puts)

    def _write_removals(self, batch: IBatch) -> None:
        for number in self._removals:
            batch.remove(self.name, number)
        for number in self._discards:
            batch.discard(number)
        self._handed_removals, self._handed_discards = len(self._removals), len(self._discards)

    def _removed(self) -> None:
        """The removals that were handed out are written."""
        for number in self._removals[: self._handed_removals] + self._discards[: self._handed_discards]:
            self._reclaimer.queue(number)
        del self._removals[: self._handed_removals]
        del self._discards[: self._handed_discards]
        self._handed_removals = self._handed_discards = 0

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
        if self._handed_removals or self._handed_discards:
            self._removed()
        if self._making:
            self._made, self._making = True, False
        if self._writing:
            self._writing = []
        if self._handed_changes:
            self._handed_changes = []
        if self._heavy:
            self._lighten()
        if self._retries is not None:
            self._retries.written()
        for side in self._sides:
            side.written()
        if self._volatile is not None:
            self._volatile.written()
        if self._reclaimable:
            assert self.number is not None
            self._reclaimer.reclaim(self, self.number, self._reclaimable)
            self._reclaimable = []

    def refuse(self) -> set[int]:
        self._making = False
        for side in self._sides:
            side.refuse()
        self.not_written()
        items, self._writing = self._writing, []
        refused = {item.id for item in items}
        self._head.remove(refused)
        if self._retries is not None:
            self._retries.remove(refused)
        for item in items:
            if item.stream:
                self._reclaimer.stream(item.stream)
            if item.id in self.consumed:
                continue
            if self._open.pop(item.id, None) is None:
                self.count -= 1
                self.bytes -= item.size
            item.time = 0
            self._consume(item)
        pending = self._fresh or self._open or any(side.pending for side in self._sides)
        if not self._made and not pending:
            if self.number is not None and self.durable:
                # Where it was the fsync that failed, the queue may be in the store all the same.
                self._removals.append(self.number)
            self._leave_sides()
            self._begin_anew()
        return refused

    def unread(self, item: Item, number: Optional[int], counter: str = "") -> None:
        if number == self.number and item.id in self.consumed:
            self.consumed.discard(item.id)
            self._bytes_consumed -= item.size
            if counter:
                self._count_back(counter)
            if self._retries is not None:
                self._retries.remember(item.id)
            if counter == "dead":
                self._set_aside(item, BURY_AGAIN)
            else:
                self._give_back(item)
            self.remark()
            if self.waiters:
                self.serve()

    def _count_back(self, counter: str) -> None:
        """What was counted has not happened."""
        for stats in (self.stats, self._expiry.stats):
            if hasattr(stats, counter):
                setattr(stats, counter, getattr(stats, counter) - 1)

    def not_written(self) -> None:
        if self._retries is not None:
            self._retries.not_written()
        for side in self._sides:
            side.not_written()
        if self._volatile is not None:
            self._volatile.not_written()
        self._marked = True
        self.consumed.put_back_changes(self._handed_changes)
        self._handed_changes = []
        self._reclaimable = []
