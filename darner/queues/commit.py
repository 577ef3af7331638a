"""
The group commit: one write for all that happened in one turn of the event loop, and the replies after it.

Queues change their memory at once and tell the turn; who has to be answered tells it as well.  When the turn ends, the
changes of all queues go to the store in one batch, and only then does anybody hear of them.

A turn in which somebody asked for stable storage is written by a worker thread.  What arrives meanwhile gathers for
the next one: a single fsync serves everybody who was waiting, and replies keep their order.

When a write fails, the puts of the turn are refused and all that was read stands, if that can be written; what cannot
is undone (`darner.queues.turn`).  Until a write succeeds again, the rest is tried by the clock.

Queues in memory add nothing to the batch.  A turn of theirs alone writes nothing, not even what is left from before.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any, Final, Optional, Union

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from darner.errors import StoreError
from darner.net.log_limits import LimitedLog
from darner.queues.answers import Answers, Asker, Resting, Verdict
from darner.queues.turn import Changing, Chunk, Emptied, Move, Read, Turn, Writer
from darner.store.batch import Batch
from darner.store.interfaces import IStore
from darner.values.items import Item
from darner.values.stats import Health, Removal

RETRY: Final = 1.0
"""Seconds after which a store that refused a write is tried again."""
RESUMED: Final = 16
"""How many of those who have had as much as they get in a turn go on in the next: the rest come after them."""
ENOUGH: Final = 256
"""After how many C{copies} of items no more of them go on."""
_REFUSED: Final = "the store refused a write: {error}"


class GroupCommit:
    """
    What is gathering now, and what is being written.

    @ivar now: the time of this turn by the wall clock, in ms since the epoch; 1 at least, also before 1970.
    @ivar health: whether the store takes what is put, as far as was seen.
    @ivar clock: the time that passes, whatever the wall clock is set to.
    @ivar copies: how many items came of the sets of this turn that are for several queues.
    @ivar log: the log of all queues, in which what happens again and again is counted.
    """

    def __init__(
        self, store: IStore, schedule: Callable[[Callable[[], None]], object], in_thread: Callable[..., Deferred[Any]],
        wall: Callable[[], float], clock: IReactorTime,
    ) -> None:  # fmt: skip
        """The parameters are those of L{darner.queues.collection.Surroundings}."""
        self._store = store
        self._schedule = schedule
        self._in_thread = in_thread
        self._wall = wall
        self.clock = clock
        self.log = LimitedLog(Logger("darner.queues"), clock)
        self._retry: Optional[IDelayedCall] = None
        self.health = Health()
        self._gathering = Turn()
        self._owed: dict[Changing, None] = {}  # queues with something that could not be written
        self._deletes: dict[Changing, None] = {}
        self._scheduled = False
        self._held = False
        self._writing: Optional[Deferred[None]] = None
        self._now = self.copies = 0
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
        for number, resting in enumerate(list(islice(self._resting, RESUMED))):
            if number and self.copies > ENOUGH:
                break
            del self._resting[resting]
            try:
                resting.go_on()
            except Exception:
                self.log.failure("could not go on with a client")
        if self._resting:
            self._soon()

    def begin(self) -> None:
        """Somebody who serves many at once begins, and will call L{end} soon."""
        self._held = True
        self._now = 0  # somebody may have asked for the time after the last turn, long before this one

    def answers_for(self, asker: Asker) -> Answers:
        """@return: a new answer sheet for C{asker}, which is told when this turn ends and when it is written."""
        answers = Answers(asker)
        self._gathering.answers.append(answers)
        if not self._scheduled:
            self._soon()
        return answers

    def rest(self, resting: Resting) -> None:
        """Call C{go_on} in a later turn: else 1,000 clients that ask for all they get would make a turn of 64 MiB."""
        self._resting[resting] = None
        if not self._scheduled:
            self._soon()

    def changed(self, queue: Changing) -> None:
        """C{queue} has something to write."""
        self._gathering.queues[queue] = None
        if not self._scheduled:
            self._soon()

    def deletes(self, queue: Changing) -> None:
        """C{queue} has something to delete with whatever is written next: it is worth no write of its own."""
        self._deletes[queue] = None

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

    def put(self, answers: Answers, slot: int) -> None:
        """The reply at C{slot} says that an item is stored."""
        gathering = self._gathering
        gathering.puts.append(answers)
        gathering.put_slots.append(slot)

    def verdict(self) -> Verdict:
        """@return: what becomes of the puts of this turn."""
        verdict = Verdict()
        self._gathering.verdicts.append(verdict)
        return verdict

    def follow(self, first: Verdict, answers: Answers, slot: int) -> None:
        """The reply at C{slot} is true if the puts of C{first} are stored, whose turn may be being written."""
        self._gathering.followers.append((first, answers, slot))

    def read(
        self, queue: Emptied, item: Item, tentative: bool, answers: Answers, slot: int, told: Optional[int]
    ) -> None:
        """
        The reply at C{slot} hands out an item, which is consumed by that or (C{tentative}) not.

        @param told: the slot that tells of an error; C{None}: nobody is told, as the item is only left out.
        """
        self._gathering.reads.append(Read(queue, item, tentative, answers, slot, told))

    def moved(self, queue: Emptied, item: Item, removal: Removal) -> None:
        """
        An item of C{queue} is consumed because of what was put there or on another.

        @param removal: why.
        """
        self._gathering.moves.append(Move(queue, item, removal))

    def flushed(self, queue: Emptied) -> None:
        """All that C{queue} had is consumed, and what was moved before in this turn does not come back."""
        self._gathering.forget_moves(queue)

    def consumed(self, answers: Answers, slot: int) -> None:
        """The reply at C{slot} says that items are gone: closed, flushed or deleted."""
        self._gathering.consumed.append(answers)
        self._gathering.consumed_slots.append(slot)

    def chunk(self, inflow: Writer, stream: int, index: int, data: bytes) -> None:
        """Write a chunk of a large item."""
        self._gathering.chunks.append(Chunk(inflow, stream, index, data))
        self._soon()

    def written(self) -> Deferred[None]:
        """@return: fires when all that was gathered so far is written or has failed."""
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        self._soon()
        return waiter

    def unless_put(self, refused: Callable[[StoreError], object]) -> None:
        """Have C{refused} called if what this turn puts is not in the store."""
        verdict = self.verdict()
        self.written().addCallback(lambda _: verdict.error and refused(verdict.error))

    # Writing

    def end(self) -> None:
        """End the turn: write what was gathered, and have it answered."""
        self._held = False
        self._now = self.copies = 0
        if self._resting and not self._scheduled:
            self._soon()
        if self._writing is not None:
            return
        turn = self._gathering
        waiting, self._waiting = self._waiting, []  # who asks while the turn is answered, asks for the next one
        if turn.queues or turn.answers or turn.chunks or turn.sync or self._owed:
            self._gathering = Turn()
            for answers in turn.answers:
                answers.asker.seal()
            self._write(turn)
        if waiting:
            for waiter in waiting:
                self._when_written().addCallback(waiter.callback)

    def _when_written(self) -> Deferred[None]:
        return succeed(None) if self._writing is None else self._writing

    def _add(self, queues: dict[Changing, None], turn: Turn, batch: Batch) -> None:
        for queue in queues:
            if queue not in turn.queues:
                turn.queues[queue] = None
                queue.write_to(batch, True)
        queues.clear()

    def _write(self, turn: Turn) -> None:
        if not (turn.queues or turn.chunks or turn.sync or self._owed):
            self._deliver(turn)
            return
        try:
            # Before anything can fail, so that the queues know what it is that they refuse.
            batch = turn.batch(self._store, True)
            untouched = batch.empty and not turn.sync
            if self._owed and not (untouched and turn.queues):
                self._add(self._owed, turn, batch)
                untouched = batch.empty and not turn.sync
            if not untouched:
                self._add(self._deletes, turn, batch)
                self._store.mend()
            if turn.sync:
                # What was promised to be done by and by is done with that.
                turn.promised = self._forget_late_sync() or turn.promised
                self._writing = Deferred()
                self._in_thread(self._store.write, batch, True).addBoth(self._synced, turn)
                return
            if not untouched:
                self._store.write(batch)
        except StoreError as error:
            self._failed(turn, error)
        except Exception as error:
            self._failed(turn, self._fault(Failure(), error))
        else:
            self._done(turn, untouched)

    def _fault(self, failure: Failure, error: Optional[BaseException]) -> StoreError:
        """A fault of ours is no reason to leave anybody without an answer."""
        self.log.failure("a write failed unexpectedly", failure)
        unexpected = StoreError(f"cannot write: {error}")
        unexpected.uncertain = True
        return unexpected

    def _synced(self, result: Union[Failure, None], turn: Turn) -> None:
        done, self._writing = self._writing, None
        assert done is not None
        if isinstance(result, Failure):
            error = result.value
            self._failed(turn, error if isinstance(error, StoreError) else self._fault(result, error))
        else:
            self._done(turn)
        done.callback(None)
        self.end()

    def _done(self, turn: Turn, untouched: bool = False) -> None:
        """@param untouched: whether there was nothing for the store: what queues in memory do says nothing of it."""
        for queue in turn.queues:
            queue.written()
        if not self.health.writable and not untouched:
            self._see()
        self._deliver(turn)

    def _deliver(self, turn: Turn) -> None:
        for answers in turn.answers:
            try:
                answers.asker.deliver(answers)
            except Exception:
                self.log.failure("could not answer a client")

    # Failing

    def _failed(self, turn: Turn, error: StoreError) -> None:
        error.forget()
        turn.refuse_puts(error, self._gathering)
        try:
            batch = turn.batch(self._store, False)
            if not batch.empty:
                self._store.mend()
                self._store.write(batch)
        except StoreError as second:
            self._undo(turn, second)
        except Exception as second:
            self._undo(turn, self._fault(Failure(), second))
        else:
            for queue in turn.queues:
                queue.written()
        self.trouble(error)
        if turn.promised:
            self.sync_within(RETRY)
        self._deliver(turn)

    def _undo(self, turn: Turn, error: StoreError) -> None:
        """Not even what was consumed can be written."""
        turn.undo(error)
        self._owed.update(turn.queues)

    # Until it works again

    def trouble(self, error: StoreError) -> None:
        """The store refused something that was to be put; also at each attempt until it works again."""
        self.log.emit(LogLevel.error, _REFUSED, error=str(error))
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
            self.log.end("the store takes writes again; it refused {total} in {seconds} s", _REFUSED)
            self.health = Health()

    def stop(self) -> None:
        """Do nothing by the clock any more."""
        self._forget_late_sync()
        self.log.close()
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
