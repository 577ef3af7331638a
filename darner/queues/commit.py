"""
The group commit: one write for all changes of one turn of the event loop, and then the replies.

Queues change their memory at once and tell the turn; who has to be answered tells it as well.  When the turn ends, the
changes of all queues go to the store in one batch, and only then does anybody hear of them.

A turn in which a client asked for stable storage is written in a thread, where syncs take long (`darner.net.worker`).
What arrives meanwhile belongs to the next turn: one fsync serves all clients that waited, and replies keep their order.

If a write fails, the puts of the turn are refused.  Its reads are written without them; if that fails too, they are
undone (`darner.queues.turn`).  A timer tries to write what is left until a write succeeds.

Volatile queues add nothing to the batch.  A turn with changes of these alone writes nothing to the store.
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
from darner.net.served import Commit
from darner.net.worker import Worker, begin
from darner.queues.answers import Answers, Asker, Resting, Verdict
from darner.queues.late_sync import LateSync
from darner.queues.timings import Timings
from darner.queues.turn import Changing, Chunk, Emptied, Move, Read, Turn, Writer
from darner.store.batch import Batch
from darner.store.interfaces import IStore
from darner.values.items import Item
from darner.values.stats import Health, Removal

RETRY: Final = 1.0
"""Seconds after which a store that refused a write is tried again."""
RESUMED: Final = 16
"""The maximum number of clients that go on in a turn after they reached their limit for an earlier one."""
ENOUGH: Final = 256
"""When there are more C{copies} than this in a turn, no more of these clients go on in it."""
_REFUSED: Final = "the store refused a write: {error}"


class GroupCommit(Commit):
    """
    The turn that gathers changes now, and the one that is being written.

    @ivar now: the time of this turn by the wall clock, in ms since the epoch; at least 1, even before 1970.
    @ivar health: whether the store accepted the latest puts.
    @ivar clock: the monotonic clock.
    @ivar copies: the number of items put in this turn by sets on several queues.
    @ivar timings: what measures the turns; C{None}: nothing does.
    @ivar log: the log of all queues; repeated lines are counted.
    @ivar worker: the thread that writes turns to stable storage, for ports to wait for; C{None}: any thread does.
    @ivar replicated: whether turns wait for the log of a cluster (L{ReplicatedCommit}).
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
        self._spare: Optional[Turn] = None  # one that is over
        self._owed: dict[Changing, None] = {}  # queues with something that could not be written
        self._deletes: dict[Changing, None] = {}
        self._scheduled = self._held = self.replicated = False
        self._writing: Optional[Deferred[None]] = None
        self._now = self.copies = 0
        self._waiting: list[Deferred[None]] = []
        self._late_sync = LateSync(clock, self._sync_late)
        self.timings: Optional[Timings] = None
        self._resting: dict[Resting, None] = {}
        self.worker: Optional[Worker] = None

    @property
    def now(self) -> int:
        if not self._now:
            self._now = max(1, int(self._wall() * 1000))
            if self.timings is not None and not self._gathering.began:
                self._gathering.began = self.timings.timer()
            self._soon()
        return self._now

    @property
    def busy(self) -> bool:
        """Whether a thread is writing a turn, so that what is added now must wait."""
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
                self.log.failure("internal error while resuming a client")
        if self._resting:
            self._soon()

    def begin(self) -> None:
        """Begin to serve several clients in one turn; the caller must call L{end} soon."""
        self._held = True
        self._now = 0  # it may have been read after the last turn, long before this one

    def answers_for(self, asker: Asker) -> Answers:
        """@return: a new answer sheet for C{asker}, which is called when this turn ends and when it is written."""
        answers = Answers(asker)
        self._gathering.answers.append(answers)
        if not self._scheduled:
            self._soon()
        return answers

    def rest(self, resting: Resting) -> None:
        """Call C{go_on} in a later turn: otherwise 1,000 clients at their limit would make a turn of 64 MiB."""
        self._resting[resting] = None
        if not self._scheduled:
            self._soon()

    def changed(self, queue: Changing) -> None:
        """Register a queue that has changes to write."""
        self._gathering.queues[queue] = None
        if not self._scheduled:
            self._soon()

    def deletes(self, queue: Changing) -> None:
        """C{queue} has something to delete with whatever is written next: it is worth no write of its own."""
        self._deletes[queue] = None

    def sync(self) -> None:
        """Sync this turn to stable storage before its replies go out."""
        self._gathering.sync = True

    def sync_within(self, seconds: float) -> None:
        """Sync the changes of this turn within so many seconds; the replies do not wait for that."""
        self._late_sync.within(seconds)

    def _sync_late(self) -> None:
        self._gathering.promised = True
        self.sync()
        self._soon()

    def sync_soon(self) -> None:
        """Do with this turn what L{sync_within} promised."""
        if self._late_sync.promised:
            self.sync()
            self._soon()

    def put(self, answers: Answers, slot: int) -> None:
        """Register a reply, at C{slot}, that says that an item is stored."""
        self._gathering.puts.append(answers)
        self._gathering.put_slots.append(slot)

    def verdict(self) -> Verdict:
        """@return: the outcome of the puts of this turn, once it is written."""
        verdict = Verdict()
        self._gathering.verdicts.append(verdict)
        return verdict

    def follow(self, first: Verdict, answers: Answers, slot: int) -> None:
        """Register a reply, at C{slot}: true if the puts of C{first}, in this or an earlier turn, are stored."""
        self._gathering.followers.append((first, answers, slot))

    def read(
        self, queue: Emptied, item: Item, tentative: bool, answers: Answers, slot: int, told: Optional[int]
    ) -> None:
        """
        Register a reply, at C{slot}, that hands out an item and, unless C{tentative}, consumes it.

        @param told: the slot for an error; C{None}: the reply is left out without an error.
        """
        self._gathering.reads.append(Read(queue, item, tentative, answers, slot, told))

    def moved(self, queue: Emptied, item: Item, removal: Removal) -> None:
        """Register that an item of C{queue} is consumed because of a put on that or another queue."""
        self._gathering.moves.append(Move(queue, item, removal))

    def flushed(self, queue: Emptied) -> None:
        """Register that C{queue} is flushed: items that were moved before in this turn do not come back."""
        self._gathering.forget_moves(queue)

    def consumed(self, answers: Answers, slot: int) -> None:
        """Register a reply, at C{slot}, that says that items are gone: closed, flushed or deleted."""
        self._gathering.consumed.append(answers)
        self._gathering.consumed_slots.append(slot)

    def chunk(self, inflow: Writer, stream: int, index: int, data: bytes) -> None:
        """Write a chunk of a large item."""
        self._gathering.chunks.append(Chunk(inflow, stream, index, data))
        self._soon()

    def written(self) -> Deferred[None]:
        """@return: fires when the changes of this turn, and of those before, are written or refused."""
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        self._soon()
        return waiter

    def unless_put(self, refused: Callable[[StoreError], object]) -> None:
        """Call C{refused} if the puts of this turn are not stored."""
        verdict = self.verdict()
        self.written().addCallback(lambda _: verdict.error and refused(verdict.error))

    # Writing

    def end(self) -> None:
        """End the turn: write it and send the replies."""
        self._held = False
        self._now = self.copies = 0
        if self._resting and not self._scheduled:
            self._soon()
        if self._writing is not None:
            return
        turn = self._gathering
        waiting, self._waiting = self._waiting, []  # calls of written() during the replies are for the next turn
        if turn.queues or turn.answers or turn.chunks or turn.sync or self._owed:
            self._gathering, self._spare = self._spare or Turn(), None
            for answers in turn.answers:
                answers.asker.seal()
            self._write(turn)
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
        if self.timings is not None:
            turn.wrote = self.timings.timer()
            turn.began = turn.began or turn.wrote
        if not (turn.queues or turn.chunks or turn.sync or self._owed):
            self._deliver(turn)
            return
        try:
            # First, so that the queues know which changes to refuse if a later step fails.
            batch = turn.batch(True)
            untouched = batch.empty and not turn.sync
            if self._owed and not (untouched and turn.queues):
                self._add(self._owed, turn, batch)
                untouched = batch.empty and not turn.sync
            if not untouched:
                self._add(self._deletes, turn, batch)
                self._store.mend()
            if turn.sync:
                # This sync also does what sync_within promised.
                turn.promised = self._late_sync.forget() or turn.promised
                written = begin(self.worker or self._in_thread, not turn.chunks, self._store.write, batch, True)
                if written is not None:
                    self._writing = Deferred()
                    written.addBoth(self._synced, turn)
                    return
            elif not untouched:
                self._store.write(batch)
        except StoreError as error:
            self._failed(turn, error)
        except Exception as error:
            self._failed(turn, self._fault(Failure(), error))
        else:
            self._done(turn, untouched)

    def _fault(self, failure: Failure, error: Optional[BaseException]) -> StoreError:
        """Turn an internal error into a L{StoreError}, so that the clients of the turn get an answer."""
        self.log.failure("internal error while writing to the store", failure)
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
        """@param untouched: whether nothing was written to the store, so that its health is unknown."""
        if self.timings is not None and not untouched:
            self.timings.written(turn)
        for queue in turn.queues:
            queue.written()
        if not self.health.writable and not untouched:
            self._see()
        self._deliver(turn)
        self._spare = turn.over()

    def _deliver(self, turn: Turn) -> None:
        for answers in turn.answers:
            try:
                answers.asker.deliver(answers)
            except Exception:
                self.log.failure("internal error while answering a client")
        if self.timings is not None:
            self.timings.delivered(turn)

    # Failing

    def _failed(self, turn: Turn, error: StoreError) -> None:
        error.forget()
        turn.refuse_puts(error, self._gathering)
        try:
            batch = turn.batch(False)
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
        """Undo the reads of the turn, which could not be written either."""
        turn.undo(error)
        self._owed.update(turn.queues)

    # Until it works again

    def trouble(self, error: StoreError) -> None:
        """Record that the store refused a write, and try again later."""
        self.log.emit(LogLevel.error, _REFUSED, error=str(error))
        self.health = Health(False, str(error), self.health.since or self._wall())
        self._later()

    def _later(self) -> None:
        if self._retry is None:
            self._retry = self.clock.callLater(RETRY, self._try_again)

    def _try_again(self) -> None:
        """Write what is left, and check whether the store accepts writes."""
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
        """Stop all timers."""
        self._late_sync.forget()
        self.log.close()
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
