"""
The group commit: one write for all that happened in one turn of the event loop, and the replies after it.

Queues change their memory at once and tell the turn; who has to be answered tells it as well.  When the turn ends,
the changes of all queues go to the store in one batch, and only then does anybody hear of them.  So a turn of fifty
clients costs one write, and nothing is acknowledged before it is written.

A turn in which somebody asked for stable storage is written by a worker thread.  What arrives meanwhile gathers for
the next one: a single fsync serves everybody who was waiting, and replies keep their order.

When a write fails, the puts of the turn are refused and all that was read stands, if that can be written; what cannot
be written is undone.  Nobody is told of what is not in the store.  Until a write succeeds again, what is left to be
written is tried by the clock, also when nobody asks for anything.

Queues in memory add nothing to the batch.  A turn of theirs alone leaves the store alone, whatever state that is in,
and what is left to be written as well; in a turn with others they share its lot.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final, Optional, Protocol, Union

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from darner.errors import StoreError
from darner.store.batch import Batch
from darner.store.interfaces import IStore
from darner.values.items import Item
from darner.values.stats import Health, Removal

RETRY: Final = 1.0
"""Seconds after which a store that refused a write is tried again."""

RESUMED: Final = 16
"""How many of those who have had as much as they get in a turn go on in the next: the rest come after them."""

NOBODY: Final = -1
"""In place of the slot that would tell of an error: nobody is told, as what was handed out is only left out."""

Replies = list[Any]
"""
What one client is to be told at the end of a turn, in order.  An entry whose change could not be written is replaced by
the L{StoreError}.
"""


class Reply(Protocol):
    """A reply that is more than bytes."""

    def cancel(self) -> None:
        """It will not be given; something else stands in its place."""


def _spoil(replies: Replies, slot: int, end: int, error: StoreError) -> None:
    spoilt: Union[bytes, Reply, None] = replies[slot]
    replies[slot] = b""
    if end != NOBODY:
        replies[end] = error
    if spoilt is not None and not isinstance(spoilt, (bytes, StoreError)):
        spoilt.cancel()


def _tell(_: None, waiting: list[Deferred[None]]) -> None:
    for waiter in waiting:
        waiter.callback(None)


class Owner(Protocol):
    """Somebody who is to be answered."""

    def seal(self) -> Replies:
        """@return: the replies so far, and begin a new list for the next turn."""

    def deliver(self, replies: Replies) -> None:
        """The turn of these replies is written."""


class Resting(Protocol):
    """Somebody who has had enough for one turn."""

    def go_on(self) -> None:
        """The others have had theirs."""


class Changing(Protocol):
    """What a queue has in the store, as the turn sees it."""

    __slots__ = ()

    def write_to(self, batch: Batch, puts: bool) -> None:
        """Add what changed since the last turn to the batch; without C{puts} only what was consumed."""

    def written(self) -> None:
        """The batch is in the store."""

    def refuse(self, uncertain: bool) -> None:
        """
        The batch is not in the store, and the items put with it never will be: they are C{refused} from now on.

        @param uncertain: whether it may be there all the same; what is written next has to be right in both cases.
        """

    def not_written(self) -> None:
        """What was consumed is not in the store either, and is to be written with a later turn."""


class Emptied(Protocol):
    """A queue of which items are read or moved, as the turn sees it."""

    __slots__ = ()

    @property
    def number(self) -> Optional[int]:
        """What the store knows it by; another one after it was deleted."""

    def unread(self, item: Item, number: Optional[int], removal: Optional[Removal] = None) -> None:
        """
        That C{item} was read could not be written: it is an item again, if the queue is not deleted.

        @param number: the queue's number when it was read.
        @param removal: why it left the queue, where it was not read.
        """


class Writer(Protocol):
    """A large item that is being written."""

    def fail(self, error: StoreError) -> None:
        """One of its chunks is not in the store."""


class _Changes:
    """What happened in one turn."""

    __slots__ = (
        "chunks", "consumed", "followers", "moves", "owners", "promised", "puts", "queues", "reads", "sealed", "sync",
    )  # fmt: skip

    def __init__(self) -> None:
        self.queues: dict[Changing, None] = {}
        self.owners: dict[Owner, None] = {}
        self.puts: list[tuple[Replies, int]] = []
        self.followers: list[tuple[Replies, Replies, int]] = []
        self.reads: list[tuple[Emptied, Optional[int], Item, bool, Replies, int, int]] = []
        self.consumed: list[tuple[Replies, int]] = []
        self.moves: list[tuple[Emptied, Optional[int], Item, Removal]] = []
        self.chunks: list[tuple[Writer, int, int, bytes]] = []
        self.sync = False
        self.promised = False
        self.sealed: list[tuple[Owner, Replies]] = []


class GroupCommit:
    """
    What is gathering now, and what is being written.

    @ivar now: the time of this turn by the wall clock, in ms since the epoch.  It is 1 at least, where the clock is set
        to before 1970: so it can be written down, and what had expired from the start still has.
    @ivar health: whether the store takes what is put, as far as was seen.
    @ivar clock: the time that passes, whatever the wall clock is set to.
    """

    _log: ClassVar[Logger] = Logger()

    def __init__(
        self,
        store: IStore,
        schedule: Callable[[Callable[[], None]], object],
        in_thread: Callable[..., Deferred[Any]],
        wall: Callable[[], float],
        clock: IReactorTime,
    ) -> None:
        """
        @param schedule: calls its argument soon, from the reactor.
        @param in_thread: calls its arguments in a worker thread; fires with the result.
        @param wall: the time in seconds since the epoch.
        """
        self._store = store
        self._schedule = schedule
        self._in_thread = in_thread
        self._wall = wall
        self.clock = clock
        self._retry: Optional[IDelayedCall] = None
        self.health = Health()
        self._gathering = _Changes()
        self._owed: dict[Changing, None] = {}  # queues with something that could not be written
        self._scheduled = False
        self._held = False
        self._writing: Optional[Deferred[None]] = None
        self._now = 0
        self._waiting: list[Deferred[None]] = []
        self._late_sync: Optional[IDelayedCall] = None
        self._resting: dict[Resting, None] = {}

    @property
    def now(self) -> int:
        if not self._now:
            self._now = max(1, int(self._wall() * 1000))
            self._soon()
        return self._now

    @property
    def busy(self) -> bool:
        """Whether a write is under way in a thread, so that what is added now has to wait for it."""
        return self._writing is not None

    # Gathering

    def _soon(self) -> None:
        if not self._scheduled and not self._held:
            self._scheduled = True
            self._schedule(self._scheduled_end)

    def _scheduled_end(self) -> None:
        self._scheduled = False
        if self._resting:
            self._resume()
        self.end()

    def _resume(self) -> None:
        for resting in list(self._resting)[:RESUMED]:
            del self._resting[resting]
            try:
                resting.go_on()
            except Exception:
                self._log.failure("could not answer {owner}", owner=resting)
        if self._resting:
            self._soon()

    def begin(self) -> None:
        """Somebody who serves many at once begins, and will call L{end} soon."""
        self._held = True

    def answers(self, owner: Owner) -> None:
        """C{owner} has replies that go out when this turn is written."""
        self._gathering.owners[owner] = None
        if not self._scheduled:
            self._soon()

    def rest(self, resting: Resting) -> None:
        """
        Call C{go_on} in a later turn, so that those who want much do not keep the others waiting: 1,000 clients that
        ask for all they can get would make a turn of 64 MiB.
        """
        self._resting[resting] = None
        if not self._scheduled:
            self._soon()

    def changed(self, queue: Changing) -> None:
        """C{queue} has something to write."""
        self._gathering.queues[queue] = None
        if not self._scheduled:
            self._soon()

    def sync(self) -> None:
        """This turn is to be on stable storage before it is answered."""
        self._gathering.sync = True

    def sync_within(self, seconds: float) -> None:
        """What is gathered is to be on stable storage that many seconds from now, answered or not."""
        if self._late_sync is not None:
            if self._late_sync.getTime() <= self.clock.seconds() + seconds:
                return
            self._late_sync.cancel()
        self._late_sync = self.clock.callLater(seconds, self._sync_late)

    def _sync_late(self) -> None:
        self._late_sync = None
        self._gathering.promised = True
        self.sync()
        self._soon()

    def sync_soon(self) -> None:
        """What L{sync_within} promised is to be done with this turn."""
        if self._late_sync is not None:
            self.sync()
            self._soon()

    def put(self, replies: Replies, slot: int) -> None:
        """The reply at C{slot} says that an item is stored."""
        self._gathering.puts.append((replies, slot))

    def follow(self, first: Replies, replies: Replies, slot: int) -> None:
        """
        The reply at C{slot} says what another says.

        @param first: the one reply of an earlier L{put}, also of the turn that is being written.
        """
        self._gathering.followers.append((first, replies, slot))

    def read(
        self, queue: Emptied, item: Item, tentative: bool, replies: Replies, slot: int, end: Optional[int] = None
    ) -> None:
        """
        The reply at C{slot} hands out an item, which is consumed by that or (C{tentative}) not.

        @param end: the slot of what ends the reply and would tell of an error, where that is another one; or L{NOBODY}.
        """
        self._gathering.reads.append(
            (queue, queue.number, item, tentative, replies, slot, slot if end is None else end)
        )

    def moved(self, queue: Emptied, item: Item, removal: Removal) -> None:
        """
        An item of C{queue} is consumed because of what was put there or on another.

        @param removal: why.
        """
        self._gathering.moves.append((queue, queue.number, item, removal))

    def flushed(self, queue: Emptied) -> None:
        """All that C{queue} had is consumed, and what was moved before in this turn does not come back."""
        if self._gathering.moves:
            self._gathering.moves = [move for move in self._gathering.moves if move[0] is not queue]

    def consumed(self, replies: Replies, slot: int) -> None:
        """The reply at C{slot} says that items are gone: closed, flushed or deleted."""
        self._gathering.consumed.append((replies, slot))

    def chunk(self, inflow: Writer, stream: int, index: int, data: bytes) -> None:
        """Write a chunk of a large item."""
        self._gathering.chunks.append((inflow, stream, index, data))
        self._soon()

    def written(self) -> Deferred[None]:
        """@return: fires when all that was gathered so far is written or has failed."""
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        self._soon()
        return waiter

    def unless_put(self, refused: Callable[[StoreError], object]) -> None:
        """Have C{refused} called if what this turn puts is not in the store."""
        replies: Replies = [b""]
        self.put(replies, 0)
        self.written().addCallback(lambda _: replies[0] and refused(replies[0]))

    # Writing

    def end(self) -> None:
        """End the turn: write what was gathered, and have it answered."""
        self._held = False
        self._now = 0
        if self._resting and not self._scheduled:
            self._soon()
        if self._writing is not None:
            return
        changes = self._gathering
        # Taken before the turn is written and answered: who asks then, asks for the next turn.
        waiting, self._waiting = self._waiting, []
        if changes.queues or changes.owners or changes.chunks or changes.sync or self._owed:
            self._gathering = _Changes()
            changes.sealed = [(owner, owner.seal()) for owner in changes.owners]
            self._write(changes)
        if waiting:
            self._when_written().addCallback(_tell, waiting)

    def _when_written(self) -> Deferred[None]:
        """@return: fires when what is being written is, at once where nothing is."""
        return succeed(None) if self._writing is None else self._writing

    def _batch(self, changes: _Changes, puts: bool) -> Batch:
        batch = self._store.batch()
        if puts:
            # Before the items that may hold them.
            for _, stream, index, data in changes.chunks:
                batch.chunk(stream, index, data)
        for queue in changes.queues:
            queue.write_to(batch, puts)
        return batch

    def _add_owed(self, changes: _Changes, batch: Batch) -> None:
        owed, self._owed = self._owed, {}
        for queue in owed:
            if queue not in changes.queues:
                changes.queues[queue] = None
                queue.write_to(batch, True)

    def _write(self, changes: _Changes) -> None:
        if not (changes.queues or changes.chunks or changes.sync or self._owed):
            self._deliver(changes)
            return
        try:
            # Before anything can fail, so that the queues know what it is that they refuse.
            batch = self._batch(changes, True)
            untouched = batch.empty and not changes.sync
            if self._owed and not (untouched and changes.queues):
                self._add_owed(changes, batch)
                untouched = batch.empty and not changes.sync
            if not untouched:
                self._store.mend()
            if changes.sync:
                # What was promised to be done by and by is done with that.
                changes.promised = self._forget_late_sync() or changes.promised
                self._writing = Deferred()
                self._in_thread(self._store.write, batch, True).addBoth(self._synced, changes)
                return
            if not untouched:
                self._store.write(batch)
        except StoreError as error:
            self._failed(changes, error)
        except Exception as error:
            self._failed(changes, self._fault(Failure(), error))
        else:
            self._done(changes, untouched)

    def _fault(self, failure: Failure, error: Optional[BaseException]) -> StoreError:
        """A fault of ours is no reason to leave anybody without an answer."""
        self._log.failure("a write failed unexpectedly", failure)
        unexpected = StoreError(f"cannot write: {error}")
        unexpected.uncertain = True
        return unexpected

    def _synced(self, result: Union[Failure, None], changes: _Changes) -> None:
        done, self._writing = self._writing, None
        assert done is not None
        if isinstance(result, Failure):
            error = result.value
            self._failed(changes, error if isinstance(error, StoreError) else self._fault(result, error))
        else:
            self._done(changes)
        done.callback(None)
        self.end()

    def _done(self, changes: _Changes, untouched: bool = False) -> None:
        """@param untouched: whether there was nothing for the store: what queues in memory do says nothing of it."""
        for queue in changes.queues:
            queue.written()
        if not self.health.writable and not untouched:
            self._see()
        self._deliver(changes)

    def _deliver(self, changes: _Changes) -> None:
        for owner, replies in changes.sealed:
            try:
                owner.deliver(replies)
            except Exception:
                self._log.failure("could not answer {owner}", owner=owner)

    # Failing

    def _failed(self, changes: _Changes, error: StoreError) -> None:
        self._log.error("the store refused a write: {error}", error=error)
        error.forget()
        for queue in changes.queues:
            queue.refuse(error.uncertain)
        for replies, slot in changes.puts:
            _spoil(replies, slot, slot, error)
        for first, replies, slot in changes.followers + self._gathering.followers:
            if first[0]:
                _spoil(replies, slot, slot, error)
        for origin, number, item, removal in changes.moves:
            # Where it was to go it is not: so it is where it came from.
            if not item.refused:
                origin.unread(item, number, removal)
        for inflow, *_ in changes.chunks:
            inflow.fail(error)
        # An item may have been read before its put was written, also in the turn that is gathering.
        for _, _, item, _, replies, slot, end in changes.reads + self._gathering.reads:
            if item.refused:
                _spoil(replies, slot, end, error)
        # Should the next turn fail too, what never was an item is not to become one.
        self._gathering.moves = [move for move in self._gathering.moves if not move[2].refused]
        try:
            batch = self._batch(changes, False)
            if not batch.empty:
                self._store.mend()
                self._store.write(batch)
        except StoreError as second:
            self._undo(changes, second)
        except Exception as second:
            self._undo(changes, self._fault(Failure(), second))
        else:
            for queue in changes.queues:
                queue.written()
        self.trouble(error)
        if changes.promised:
            self.sync_within(RETRY)
        self._deliver(changes)

    def _undo(self, changes: _Changes, error: StoreError) -> None:
        """Not even what was consumed can be written."""
        for origin, number, item, tentative, replies, slot, end in changes.reads:
            if not (item.refused or tentative):
                _spoil(replies, slot, end, error)
                origin.unread(item, number)
        for replies, slot in changes.consumed:
            _spoil(replies, slot, slot, error)
        for queue in changes.queues:
            queue.not_written()
            self._owed[queue] = None

    # Until it works again

    def trouble(self, error: StoreError) -> None:
        """The store refused something that was to be put."""
        self.health = Health(False, str(error), self.health.since or self._wall())
        self._later()

    def _later(self) -> None:
        if self._retry is None:
            self._retry = self.clock.callLater(RETRY, self._try_again)

    def _try_again(self) -> None:
        """Write what could not be written, and see whether the store takes more."""
        self._retry = None
        if self._gathering.queues:
            self.end()
        if self._owed:
            self.end()
        if not self.health.writable:
            self._see()

    def _see(self) -> None:
        try:
            if self.busy:
                raise StoreError(self.health.reason)
            self._store.mend()
            self._store.ready()
        except StoreError as error:
            self.trouble(error)
        else:
            self._log.info("the store takes writes again")
            self.health = Health()

    def stop(self) -> None:
        """Do nothing by the clock any more."""
        self._forget_late_sync()
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _forget_late_sync(self) -> bool:
        """@return: whether there was one to come."""
        if self._late_sync is None:
            return False
        self._late_sync.cancel()
        self._late_sync = None
        return True
