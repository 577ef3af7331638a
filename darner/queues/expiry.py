"""
What expires: items, and queues that were empty for long enough.

Readers drop what has expired at the head of their queue, a bounded number of items in one go.  Where there are more,
and in queues that nobody reads, this goes on: one queue's sweep in a turn of the event loop, with all others served in
between.  It asks nothing of a queue that holds nothing that expires.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
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
"""Seconds after which queues are looked at anew, as long as there are any with something that expires."""

LOOKS: Final = 64
"""How many queues are looked at in a turn: one whose head is not in memory takes a read of the store."""


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
        @param move: puts an item of a queue on another.
        @param delete: deletes a queue.
        @param is_durable: says of a queue whether what is put there is written to disk.
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
        self._sweeps: dict[Fifo, None] = {}
        self._touched: dict[Fifo, None] = {}  # to be looked at by the clock
        self._looks: deque[dict[Fifo, None]] = deque()  # to be looked at now
        self._agenda = Agenda()

    def watch(self, fifo: Fifo) -> None:
        """Something changed at the head of a queue that may hold what expires."""
        self._touched[fifo] = None
        if self._timer is None:
            self._arm()

    def sweep(self, fifo: Fifo) -> None:
        """There is more to be dropped at the head of a queue: have L{Fifo.sweep_on} called in a later turn."""
        self._sweeps[fifo] = None
        self._soon()

    async def flush(self, fifos: Iterable[Fifo]) -> int:
        """
        Drop all that has expired at the heads of queues, a bounded number in a turn.

        @return: how many items that were.
        @raise StoreError: a queue cannot be read.
        """
        dropped = 0
        for at, fifo in enumerate(fifos, 1):
            # It is another object once the queue is deleted.
            stats = fifo.stats
            before = stats.expired_items
            while fifo.perishable and fifo.peek() is None and fifo.sweeping and not self._stopped:
                await self._commit.written()
            dropped += stats.expired_items - before
            if at % LOOKS == 0:
                await self._commit.written()
        return dropped

    def stop(self) -> None:
        """Sweep no more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # By the clock

    def _arm(self) -> None:
        if not self._stopped:
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
            # When all that was done is written: so no more is moved meanwhile than the store can take, and no queue is
            # deleted of which the last item could come back.
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
        See what is to be done for a queue, and when.

        @param deleted: its name is added, if it is deleted.
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
