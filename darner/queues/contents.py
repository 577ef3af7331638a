"""
What a queue holds, and where that is.

Its memory holds the head of the queue, as far as a bound allows, and what is open; the rest lies in the store.  An item
comes from one of three places, in this order: those given back, the window (items read ahead, or put while the queue is
short), the store.

What is in the queue follows from the next id and the set of consumed ids alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import chain
from typing import Any, ClassVar, Final, Optional, Protocol

from twisted.logger import Logger

from darner.config.policies import QueueSettings
from darner.errors import StoreError
from darner.queues.attempts import Attempts
from darner.queues.commit import GroupCommit
from darner.queues.head import WINDOW_BYTES, Head, MemoryBudget
from darner.queues.turn import Changing
from darner.queues.volatile import Volatile, VolatileStore
from darner.store.interfaces import IStore
from darner.values.items import ITEM_OVERHEAD, LET_GO, Item, QueueState
from darner.values.stats import QueueStats, ServerStats

HEAVY: Final = 1024
"""
Payloads above this size, in bytes, are not kept in memory while their items are open or given back: clients may have
any number of those.
"""


class Reclaims(Protocol):
    """Who gives the room of consumed items back, as the queue sees it."""

    def intervals(self, queue: Any) -> list[tuple[int, int]]:
        """@return: the intervals of consumed ids to reclaim once they are written; none while it is not worth it."""

    def reclaim(self, queue: Any, number: int, intervals: list[tuple[int, int]]) -> None:
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

    move: Callable[[Any, Item, bytes, str], None]
    """Puts an item that was taken out of memory on another queue (`Queues.move`)."""

    is_durable: Callable[[bytes], bool]
    """Whether what is put on the queue of that name is written to disk (`Queues.is_durable`)."""

    def watch(self, queue: Any) -> None:
        """Something changed at the head of the queue, which may hold what expires."""

    def sweep(self, queue: Any) -> None:
        """There is more to be dropped: call its C{sweep_on} in a later turn."""


class Contents(Changing):
    """
    The items of a queue.

    @ivar number: the number under which the store keeps it; C{None} while the store does not know it.
    @ivar created: when it was made, in ms since the epoch; 0 while the store does not know it.
    @ivar policy: its settings; change them by L{darner.queues.bounds.Bounded.adopt}.
    @ivar durable: whether it is kept on disk, and not in memory (`darner.queues.volatile`); where it does not exist,
        whether it will be.
    @ivar perishable: whether it may hold what expires, or expires itself.
    @ivar count: how many items are to be had.
    @ivar bytes: how many bytes of payload they have.
    @ivar consumed: the ids of all items that are gone.
    @ivar floor: everything below this id is reclaimed.
    @ivar unreclaimed: about how many bytes were consumed since the reclaimer last looked.
    """

    __slots__ = (
        "_bytes_consumed",
        "_bytes_put",
        "_commit",
        "_disk",
        "_expiry",
        "_fresh",
        "_head",
        "_heavy",
        "_in_memory",
        "_marked",
        "_memory",
        "_next_id",
        "_open",
        "_perishable_id",
        "_reclaimer",
        "_retries",
        "_room",
        "_shares",
        "_store",
        "_synced",
        "_window_bytes",
        "_writing",
        "bytes",
        "consumed",
        "count",
        "created",
        "durable",
        "floor",
        "name",
        "number",
        "perishable",
        "policy",
        "stats",
        "unreclaimed",
    )

    _log: ClassVar[Logger] = Logger()

    def __init__(
        self,
        name: bytes,
        store: IStore,
        commit: GroupCommit,
        reclaimer: Reclaims,
        expiry: Expires,
        room: MemoryBudget,
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
        self.name = name
        self.policy = policy
        self._store = store
        self._commit = commit
        self._reclaimer = reclaimer
        self._expiry = expiry
        self._room = room
        self._window_bytes = window_bytes
        self._head = Head(bound=window_bytes)
        self._disk = (store, room, window_bytes)
        self._memory = memory
        self._in_memory: Optional[Volatile] = None
        self.durable = True
        self._synced = False
        self._retries: Optional[Attempts] = None
        self.number: Optional[int] = None
        self._set_up()

    def _set_up(self) -> None:
        """Begin with nothing."""

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
            if self._in_memory is None:
                self._in_memory = Volatile(self._memory, self._commit, self._reclaimer)
        self._head = Head(bound=self._window_bytes)

    def _begin(self, state: QueueState) -> None:
        """Take over what the store knows of the queue."""
        self.number = state.number
        self.stats = QueueStats()
        self.created = state.created
        self._next_id = state.next_id
        self._bytes_put = state.bytes_put
        self._bytes_consumed = state.bytes_consumed
        self.floor = state.floor
        self.consumed = state.consumed
        self._marked = False  # whether it is to be written how far it is consumed
        self.unreclaimed = 0
        self.count = state.next_id - len(state.consumed)
        self.bytes = state.bytes_put - state.bytes_consumed
        self._forget_head(0)
        self._open: dict[int, Item] = {}
        self._fresh: list[Item] = []  # put since the last batch
        self._writing: list[Item] = []  # in the batch that is being written
        self._shares: list[tuple[int, int]] = []  # streams that are held by others as well, and by which item here
        self._heavy: list[Item] = []  # of which the payload goes at the end of the turn
        self.perishable = False
        self._perishable_id = 0  # no item from there on expires

    def _forget_head(self, read_id: int) -> None:
        self._head.held = 0
        self._room.account(self._head)
        self._head = Head(read_id, self._window_bytes)

    @property
    def exists(self) -> bool:
        """Whether there is such a queue: items were put on it, and it was not deleted since."""
        return self.number is not None

    @property
    def unwritten_id(self) -> int:
        """From which id on items are neither in the store nor in the batch that is being written."""
        return self._fresh[0].id if self._fresh else self._next_id

    @property
    def set_aside_count(self) -> int:
        """How many of the items that were given back are not to be had yet; they are among C{count}."""
        return self._retries.set_aside_count if self._retries is not None else 0

    # Putting

    def _append(self, item: Item, shared: bool) -> None:
        """
        Put an item at the end, under the next id.

        @param shared: whether other items hold its stream as well.
        """
        self._next_id = item.id + 1
        self._bytes_put += item.size
        self.count += 1
        self.bytes += item.size
        if item.stream:
            self._hold(item.stream, item.id, shared)
        self._fresh.append(item)
        self._head.follow(item)
        self._commit.changed(self)

    def _hold(self, stream: int, id: int, shared: bool) -> None:
        if not self.durable:
            assert self._in_memory is not None
            self._in_memory.hold(id, stream)
        elif shared:
            self._shares.append((stream, id))

    def _watch(self) -> None:
        self.perishable = True
        self._expiry.watch(self)

    # Reading

    def _first(self) -> Optional[Item]:
        """@return: the item at the head, whether it has expired or not; C{None} where there is nothing."""
        item = self._head.first()
        if item is None:
            self._read_ahead(self._window_bytes)
            # At once: a queue that is only looked at, or whose items are opened, has nothing to be written.
            self._room.account(self._head)
            item = self._head.first()
        return item

    def _glance(self) -> Optional[Item]:
        """As L{_first}, but nobody reads the queue, and there may be many of them."""
        item = self._head.first()
        if item is None and self.count:
            # No more than is needed.
            self._read_ahead(1)
            self._room.account(self._head)
            item = self._head.first()
        return item

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
            self._commit.changed(self)
            self._log.error(
                "{missing} items of queue {name!r} before item {stop} are missing from the store",
                missing=missing, name=self.name, stop=stop,
            )  # fmt: skip

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
            self._commit.changed(self)

    def _lighten(self) -> None:
        """Let go of the payloads that were needed in this turn, but for those that are still to be written."""
        written = self.unwritten_id
        for item in self._heavy:
            if item.id < written:
                item.payload = LET_GO
        self._heavy = [item for item in self._heavy if item.id >= written]

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

    def _take_head(self) -> Item:
        """Take the item at the head out of memory.  It is neither to be had nor consumed."""
        item = self._head.take_first()
        self.count -= 1
        self.bytes -= item.size
        if self.perishable:
            self._expiry.watch(self)
        return item

    def _give_back(self, item: Item) -> None:
        self.count += 1
        self.bytes += item.size
        self._head.give_back(item)
        if item.expiry:
            self._watch()

    def take_out(self) -> Item:
        """
        Take the item out of memory that L{peek} returned, for L{move_out} or L{put_back}.

        @return: the item, which is neither to be had nor consumed.
        """
        return self._take_head()

    def put_back(self, item: Item) -> None:
        """An item that was taken out is to be had again."""
        self._give_back(item)

    def _consume(self, item: Item) -> None:
        if self._retries is not None:
            self._retries.forget(item.id)
        self.consumed.add(item.id, item.id + 1)
        self._bytes_consumed += item.size
        self.unreclaimed += item.size + ITEM_OVERHEAD
        self._marked = True
        self._commit.changed(self)
        if item.stream and self._in_memory is not None:
            self._in_memory.consumed(self.consumed, item.id)
