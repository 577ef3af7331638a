"""
Expiry: of items, and of queues that are empty and older than C{max_queue_age}.

A read drops expired items at the head of its queue, up to a limit.  If there are more, and in queues that no client
reads, L{Expiry} drops them: it sweeps one queue in a turn of the event loop, and clients are served in between.  Queues
in which nothing can expire cost nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, Optional

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import LogLevel

from darner.errors import StoreError
from darner.queues.agenda import Agenda
from darner.queues.commit import GroupCommit
from darner.queues.fifo import Fifo
from darner.values.items import Item
from darner.values.stats import Removal, ServerStats

EVERY: Final = 1.0
"""Seconds between checks, as long as there are queues in which something may expire."""

LOOKS: Final = 64
"""The maximum number of queues checked in a turn: a queue whose head is not in memory takes a read of the store."""


class Expiry:
    """
    Sweeps the queues of one server.

    @ivar stats: the server's counters.
    """

    def __init__(
        self,
        commit: GroupCommit,
        clock: IReactorTime,
        stats: ServerStats,
        move: Callable[[Fifo, Item, bytes, Removal], None],
        delete: Callable[[bytes], None],
        is_durable: Callable[[bytes], bool],
    ) -> None:
        """
        @param move: moves an item to another queue.
        @param delete: deletes a queue.
        @param is_durable: returns whether puts on a queue are written to disk.
        """
        self.stats = stats
        self.move = move
        self._delete = delete
        self.is_durable = is_durable
        self._commit = commit
        self._clock = clock
        self._timer: Optional[IDelayedCall] = None
        self._stepping = False
        self._stopped = False
        self._held = False
        self._sweeps: dict[Fifo, None] = {}
        self._touched: dict[Fifo, None] = {}  # to be checked at the next tick
        self._looks: deque[dict[Fifo, None]] = deque()  # to be checked now
        self._agenda = Agenda()

    def watch(self, fifo: Fifo) -> None:
        """Check a queue at the next tick: its head has changed, and something in it may expire."""
        self._touched[fifo] = None
        if self._timer is None:
            self._arm()

    def sweep(self, fifo: Fifo) -> None:
        """Call L{Fifo.sweep_on} in a later turn, as there is more to drop at the head of the queue."""
        self._sweeps[fifo] = None
        self._soon()

    @contextmanager
    def held(self) -> Iterator[None]:
        """The context in which queues are loaded: none is checked before it has ended."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._touched:
            self._arm()

    async def flush(self, fifos: Iterable[Fifo]) -> int:
        """
        Drop the expired items at the heads of queues, a bounded number in a turn.

        @return: the number of items dropped.
        @raise StoreError: a queue cannot be read.
        """
        dropped = 0
        for at, fifo in enumerate(fifos, 1):
            # Kept, as a deletion replaces the queue's counters.
            stats = fifo.stats
            before = stats.expired_items
            while fifo.perishable and fifo.peek() is None and fifo.sweeping and not self._stopped:
                await self._commit.written()
            dropped += stats.expired_items - before
            if at % LOOKS == 0:
                await self._commit.written()
        return dropped

    def stop(self) -> None:
        """Stop sweeping."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # By the clock

    def _arm(self) -> None:
        if not self._stopped and not self._held:
            self._timer = self._clock.callLater(EVERY, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._touched:
            self._looks.append(self._touched)
            self._touched = {}
        self._looks += self._agenda.take(self._commit.now)
        if self._looks:
            self._soon()
        if self._looks or len(self._agenda):
            self._arm()

    # A step in a turn

    def _soon(self) -> None:
        if not self._stepping and not self._stopped:
            self._stepping = True
            # Once this turn is written: so moves do not outrun the store, and no queue is deleted whose last item may
            # come back because the write is refused.
            self._commit.written().addCallback(self._step)

    def _step(self, _: None) -> None:
        self._stepping = False
        if self._stopped:
            return
        try:
            self._look_at_some()
            if self._sweeps:
                fifo = next(iter(self._sweeps))
                del self._sweeps[fifo]
                self._sweep_on(fifo)
        except Exception:
            self._commit.log.failure("internal error while dropping expired items")
        if self._looks or self._sweeps:
            self._soon()

    def _look_at_some(self) -> None:
        deleted: list[bytes] = []
        for _ in range(LOOKS):
            if not self._looks:
                break
            fifo, _ = self._looks[0].popitem()
            if not self._looks[0]:
                self._looks.popleft()
            self._look(fifo, deleted)
        if deleted:
            self._commit.log.emit(
                LogLevel.info, "deleted {count} empty queues older than max_queue_age, such as {name!r}",
                count=len(deleted), name=deleted[0],
            )  # fmt: skip

    def _sweep_on(self, fifo: Fifo) -> None:
        if not fifo.sweep_on():
            self.watch(fifo)

    def _look(self, fifo: Fifo, deleted: list[bytes]) -> None:
        """
        Sweep or delete a queue if it is due, otherwise schedule its next check.

        @param deleted: gets the queue's name if it is deleted.
        """
        self._agenda.discard(fifo)
        if not fifo.exists:
            return
        now = self._commit.now
        ends = fifo.ends
        if ends and ends <= now and not fifo.count:
            if fifo.waiters.line or fifo.open_count:
                self.watch(fifo)
            elif not fifo.storage.sides.delayed_count:
                deleted.append(fifo.name)
                self.stats.queue_expires += 1
                self._delete(fifo.name)
            return
        try:
            due = fifo.storage.bounds.due()
        except StoreError:
            self.watch(fifo)
            return
        if due and due <= now:
            self.sweep(fifo)
            return
        if ends > now and (not due or ends < due):
            due = ends
        if due:
            self._agenda.put(fifo, due, now)
