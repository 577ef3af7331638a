"""
Reclaiming the disk space of items that are consumed, deleted or were never completed.

A worker thread does the work in bounded steps, one at a time.  Only the disk space depends on it.  The store tells what
is left to do, so a crash loses nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, NamedTuple, Optional

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from darner.errors import StoreError
from darner.queues.commit import GroupCommit
from darner.queues.fifo import Fifo
from darner.store.interfaces import IStore
from darner.values.items import Step

RECLAIM_BYTES: Final = 4 * 1024 * 1024
"""Consumed bytes after which a queue is reclaimed at once and not in a quiet moment."""
COMPACT_BYTES: Final = 16 * 1024 * 1024
"""Deleted bytes after which the store is compacted at once and not in a quiet moment."""
QUIET: Final = 0.5
"""Seconds after which consumed items are reclaimed in any case."""
RETRY: Final = 1.0
"""Seconds until a failed step is retried."""
STEP: Final = 256
"""Runs or chunks that one step deletes."""


class Gone(NamedTuple):
    """Deleted delayed items."""

    since: int
    """When the first was due, in ms since the epoch."""
    until: int
    """When the last was due."""
    size: int
    """Their bytes."""


class Reclaimer:
    """The reclaimer of a store."""

    def __init__(
        self, store: IStore, commit: GroupCommit, in_thread: Callable[..., Deferred[Any]], clock: IReactorTime
    ) -> None:
        """@param in_thread: calls its arguments in a worker thread; fires with the result."""
        self._store = store
        self._commit = commit
        self._in_thread = in_thread
        self._clock = clock
        self._jobs: deque[Callable[[], Coroutine[Any, Any, None]]] = deque()
        self._working: Optional[Deferred[None]] = None
        self._timer: Optional[IDelayedCall] = None
        self._touched: set[Fifo] = set()
        self._gone: dict[int, Gone] = {}  # by the number under which they were kept
        self._pins: dict[int, int] = {}
        self._parked: set[int] = set()
        self._freed = 0
        self._stopped = False

    def start(self) -> None:
        """Continue the work of an earlier process."""
        numbers, streams = self._store.leftovers()
        for number in numbers:
            self.queue(number)
        for stream in streams:
            self._job(self._reclaim_stream, stream)
        if self._store.uncompacted():
            self._freed += 1
            self._soon(QUIET)

    def stop(self) -> Deferred[None]:
        """@return: fires when no step is running, and none will be."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        stopped: Deferred[None] = Deferred()
        (self._working or succeed(None)).addBoth(lambda _: stopped.callback(None))
        return stopped

    @property
    def pending(self) -> bool:
        """Whether there is work left or running."""
        return bool(self._jobs or self._touched or self._gone or self._freed or self._working)

    # What there is to do

    def intervals(self, fifo: Fifo) -> list[tuple[int, int]]:
        ledger = fifo.storage.ledger
        if ledger.unreclaimed < RECLAIM_BYTES and not ledger.due:
            ledger.ask_at = RECLAIM_BYTES
            if fifo not in self._touched:
                self._touched.add(fifo)
                self._soon(QUIET)
            return []
        ledger.ask_at = 0
        self._touched.discard(fifo)
        self._freed += ledger.freed
        ledger.unreclaimed = ledger.freed = 0
        ledger.due = False
        return list(ledger.consumed.intervals())

    def reclaim(self, fifo: Fifo, number: int, intervals: list[tuple[int, int]]) -> None:
        self._job(self._reclaim_intervals, fifo, number, intervals)

    def queue(self, number: int) -> None:
        self._job(self._reclaim_queue, number)

    def delayed(self, number: int, since: int, until: int, size: int) -> None:
        known = self._gone.get(number, Gone(since, until, 0))
        gone = self._gone[number] = Gone(min(since, known.since), max(until, known.until), known.size + size)
        if gone.size < RECLAIM_BYTES:
            self._soon(QUIET)
        else:
            self._job(self._reclaim_delayed, number)

    def stream(self, stream: int) -> None:
        # After the turn, which may still write its last chunks.
        self._commit.written().addCallback(lambda _: self._job(self._reclaim_stream, stream))

    def pin(self, stream: int) -> None:
        self._pins[stream] = self._pins.get(stream, 0) + 1

    def unpin(self, stream: int) -> None:
        self._pins[stream] -= 1
        if not self._pins[stream]:
            del self._pins[stream]
            if stream in self._parked:
                self._parked.discard(stream)
                self._job(self._reclaim_stream, stream)

    # Doing it

    def _job(self, work: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> None:
        self._jobs.append(partial(work, *arguments))
        if self._working is None:
            # Not at once: the turn that wrote the consumption is still being answered.
            self._soon(0)

    def _go(self) -> None:
        if self._working is None and not self._stopped:
            self._working = Deferred()
            Deferred.fromCoroutine(self._work()).addBoth(self._rest)

    async def _work(self) -> None:
        while self._jobs and not self._stopped:
            try:
                await self._jobs[0]()
            except StoreError as error:
                self._commit.log.emit(
                    LogLevel.error, "cannot reclaim disk space, will try again: {error}", error=str(error)
                )
                self._soon(RETRY)
                return
            self._jobs.popleft()
            if self._freed >= COMPACT_BYTES:
                self._jobs.appendleft(self._compact)
        if self._freed or self._touched or self._gone:
            self._soon(QUIET)

    def _rest(self, result: object) -> None:
        working, self._working = self._working, None
        if isinstance(result, Failure):
            self._commit.log.failure("internal error while reclaiming disk space", result)
            self._jobs.popleft()
            self._soon(0)
        assert working is not None
        working.callback(None)

    async def _compact(self, all: bool = False) -> None:
        """@param all: whether there is time to compact everything."""
        self._freed = 0
        self._store.mend()
        await self._in_thread(self._store.compact, lambda: not self._stopped, all)
        if not all and self._store.uncompacted():
            self._freed += 1  # the rest in a quiet moment

    def _soon(self, delay: float) -> None:
        if self._stopped:
            return
        due = self._clock.seconds() + delay
        if self._timer is not None and self._timer.getTime() > due:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._clock.callLater(delay, self._look)

    async def _renew(self) -> None:
        self._store.mend()
        await self._in_thread(self._store.settle)
        await self._commit.written()  # no thread writes then
        if not self._stopped:
            self._store.renew()

    def _look(self) -> None:
        """Start the jobs; in a quiet moment also the work that was too little to start at once."""
        self._timer = None
        if self._store.worn():
            self._jobs.append(self._renew)
        if self._jobs:
            self._go()
            return
        for number in self._gone:
            self._jobs.append(partial(self._reclaim_delayed, number))
        if self._jobs:
            self._go()
        touched, self._touched = self._touched, set()
        for fifo in touched:
            fifo.storage.ledger.due = True
            fifo.storage.ledger.ask_at = 0
            fifo.remark()
        if touched and self._freed:
            # Compact later, even if the queues are deleted by now and remark() starts no job.
            self._soon(QUIET)
        elif self._freed:
            self._jobs.append(partial(self._compact, True))
            self._go()
        if self._timer is not None and not self.pending:
            # The work for the next quiet moment is done already.
            self._timer.cancel()
            self._timer = None

    async def _steps(self, step: Callable[[int], Step], next_id: int = 0) -> bool:
        """@return: whether all steps were made; false if L{stop} has interrupted them."""
        while not self._stopped:
            self._store.mend()
            made: Step = await self._in_thread(step, next_id)
            if self._commit.replicated:
                # The next step relies on what this one deleted, which is written with the next turn.
                self._commit.sync()
                await self._commit.written()
            self._freed += made.freed
            for stream in made.streams:
                self._job(self._reclaim_stream, stream)
            if made.next_id is None:
                return True
            next_id = made.next_id
            if self._freed >= COMPACT_BYTES:
                # Compact little at a time, as a compaction needs memory for what it compacts.
                await self._compact()
        return False

    async def _reclaim_intervals(self, fifo: Fifo, number: int, intervals: list[tuple[int, int]]) -> None:
        for start, stop in intervals:
            ledger = fifo.storage.ledger
            if fifo.number != number or not ledger.consumed.covers(start, stop):
                continue
            next_id = ledger.reclaimed.next_missing(start)
            if next_id < stop and await self._steps(partial(self._reclaim_step, number, start, stop), next_id):
                ledger.reclaimed.add(start, stop)  # of the queue as it was, if it was deleted meanwhile

    def _reclaim_step(self, number: int, start: int, stop: int, next_id: int) -> Step:
        return self._store.reclaim(number, start, stop, next_id, STEP)

    async def _reclaim_queue(self, number: int) -> None:
        await self._steps(lambda next_id: self._store.reclaim_queue(number, next_id, STEP))

    async def _reclaim_delayed(self, number: int) -> None:
        if number in self._gone:
            gone = self._gone.pop(number)
            self._store.mend()
            await self._in_thread(self._store.delayed_deleted, number, gone.since, gone.until)
            self._freed += gone.size

    async def _reclaim_stream(self, stream: int) -> None:
        if stream in self._pins:
            self._parked.add(stream)
        else:
            await self._steps(lambda index: self._store.reclaim_stream(stream, index, STEP))
