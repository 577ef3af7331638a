"""
The leader's side of the log: appending what turns write, and finding out what became of it.

Safety rests on this alone: a turn is answered when the log has its record, and the log takes a record only behind the
one that this node knows as the last.  Where it is in doubt whether the log has a record, the log is read; where another
record is in that place, somebody else leads, and this node never answers again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from darner.cluster.interfaces import ILog
from darner.cluster.records import OVERHEAD, PART, TURN, Record, pack_batch
from darner.cluster.replicated_store import ReplicatedStore
from darner.errors import LogConflict, LogInDoubt, LogTrimmed, LogUnavailable
from darner.store.batch import Batch

PAUSE: Final = 0.1
"""Seconds before the log is asked again, when it could not be reached."""

_log = Logger("darner.cluster")


async def append_surely(log: ILog, clock: IReactorTime, number: int, record: bytes) -> None:
    """
    Append a record, and return when the log has it, however long the log is out of reach.

    @param record: one that nobody else appends.
    @raise LogConflict: somebody else has appended that number.
    @raise LogDamaged: the record there cannot be read.
    """
    while True:
        try:
            await log.append(number, record)
            return
        except LogUnavailable as error:
            _log.debug("record {number} is not appended yet: {error}", number=number, error=error)
            await deferLater(clock, PAUSE, lambda: None)
        except (LogConflict, LogInDoubt) as error:
            if await _has(log, clock, number, record, error):
                return


async def _has(log: ILog, clock: IReactorTime, number: int, record: bytes, error: Exception) -> bool:
    """
    Look whether the log has a record.

    @param error: why that is not known.
    @return: whether it does; if not, it may be appended again.
    @raise LogConflict: it has another one there.
    """
    while True:
        try:
            found = await log.read(number - 1, 1)
            break
        except LogUnavailable:
            await deferLater(clock, PAUSE, lambda: None)
        except LogTrimmed:
            raise LogConflict(f"record {number} is trimmed already") from None
    if found:
        if found[0] == (number, record):
            return True
        raise LogConflict(f"another node has appended record {number}")
    if isinstance(error, LogConflict):
        raise error
    return False


class Leadership:
    """
    What a node appends while it leads.

    @ivar claim: the number of the record by which it leads.
    @ivar highest: the highest number that it has given to the log.
    @ivar append_seconds: how long the last append took.
    @ivar appended: how many records it has appended.
    @ivar kept_bytes: the bytes of those that are not trimmed.
    """

    def __init__(
        self, log: ILog, store: ReplicatedStore, node: bytes, clock: IReactorTime, wall: Callable[[], float],
        lost: Callable[[Exception], object],
    ) -> None:  # fmt: skip
        """
        @param store: the last record that it has applied is this node's claim.
        @param lost: called once, with a L{LogConflict} where somebody else leads, or with why this node cannot go on.
            Nothing is answered any more then.
        """
        self._log = log
        self._store = store
        self._node = node
        self._clock = clock
        self._wall = wall
        self._lost = lost
        self.claim = self.highest = store.position
        self.append_seconds = 0.0
        self.appended = 0
        self._sizes: deque[tuple[int, int]] = deque()
        self.kept_bytes = 0

    def commit(self, batch: Batch) -> Deferred[None]:
        """As L{darner.store.interfaces.IReplicatedStore.commit}."""
        return Deferred.fromCoroutine(self._commit(batch))

    async def _commit(self, batch: Batch) -> None:
        try:
            await self._append(pack_batch(batch))
            self._store.written(self.highest, batch)
        except Exception as error:
            self._lost(error)
            await Deferred()  # never

    async def _append(self, body: bytes) -> None:
        """Append a body, in parts if it is too large for a record."""
        began = self._clock.seconds()
        most = self._log.max_record_bytes * 15 // 16 - OVERHEAD
        while len(body) > most:
            await self._append_record(PART, body[:most])
            body = body[most:]
        await self._append_record(TURN, body)
        self.append_seconds = self._clock.seconds() - began

    async def _append_record(self, kind: int, body: bytes) -> None:
        self.highest += 1
        record = Record(kind, self._store.cluster, self.claim, int(self._wall() * 1000), self._node, body)
        data = record.to_bytes()
        await append_surely(self._log, self._clock, self.highest, data)
        self.appended += 1
        self.kept_bytes += len(data)
        self._sizes.append((self.highest, len(data)))

    def forget(self, to: int) -> None:
        """The records up to this number are trimmed."""
        while self._sizes and self._sizes[0][0] <= to:
            self.kept_bytes -= self._sizes.popleft()[1]

    async def check(self) -> None:
        """
        Ask the log whether this node still leads: a turn would find out, but there may be none.

        @raise LogUnavailable: the log cannot be reached.
        """
        last = await self._log.last()
        if last > self.highest:
            self._lost(LogConflict(f"another node has appended record {last}"))

