"""
The leader's side of the log: appending what turns write, and finding out what became of it.

Safety rests on this alone: a turn is answered when the log has its record, and the log takes a record only behind the
one that this node has appended before, or had applied when it claimed to lead.  Where it is in doubt whether the log
has a record, the log is read (`darner.cluster.appends`); where another record is in that place, somebody else leads,
and this node never answers again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from darner.cluster.appends import Appends
from darner.cluster.interfaces import ILog
from darner.cluster.records import OVERHEAD, PART, TURN, Record, pack_batch
from darner.cluster.replicated_store import ReplicatedStore
from darner.errors import LogConflict, LogUnavailable
from darner.store.batch import Batch


class Leadership:
    """
    What a node appends while it leads.

    @ivar claim: the number of the record by which it leads.
    @ivar highest: the highest number that it has given to the log.
    @ivar append_seconds: how long the last append took.
    @ivar appended: how many records it has appended.
    @ivar kept_bytes: the bytes of those that are not trimmed.
    """

    _logger = Logger()

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
        self._appends = Appends(log, clock, self._lose)
        self._node = node
        self._clock = clock
        self._wall = wall
        self._lost = lost
        self.claim = self.highest = store.position
        self.append_seconds = 0.0
        self.appended = 0
        self._sizes: deque[tuple[int, int]] = deque()
        self.kept_bytes = self._trimmed = 0
        self._trimming = False
        self._trouble = ""

    def commit(self, batch: Batch) -> Deferred[None]:
        """As L{darner.store.interfaces.IReplicatedStore.commit}."""
        done: Deferred[None] = Deferred()
        began = self._clock.seconds()
        try:
            appending = self._append(pack_batch(batch))
        except Exception as error:
            self._lose(error)
        else:
            appending.addCallback(self._appended, self.highest, batch, began, done)
        return done

    def _append(self, body: bytes) -> Deferred[None]:
        """
        Append a body, in parts if it is too large for a record.

        @return: fires when the log has all of it.
        """
        most = self._log.max_record_bytes * 15 // 16 - OVERHEAD
        while len(body) > most:
            self._append_record(PART, body[:most])
            body = body[most:]
        return self._append_record(TURN, body)

    def _append_record(self, kind: int, body: bytes) -> Deferred[None]:
        self.highest += 1
        record = Record(kind, self._store.cluster, self.claim, int(self._wall() * 1000), self._node, body)
        data = record.to_bytes()
        return self._appends.append(self.highest, data).addCallback(self._count, self.highest, len(data))

    def _count(self, _: None, number: int, size: int) -> None:
        self.appended += 1
        self.kept_bytes += size
        self._sizes.append((number, size))

    def _appended(self, _: None, number: int, batch: Batch, began: float, done: Deferred[None]) -> None:
        """The log has a batch, and this is the number of its last record."""
        try:
            self._store.written(number, batch)
        except Exception as error:
            self._lose(error)
        else:
            self.append_seconds = self._clock.seconds() - began
            done.callback(None)

    def _lose(self, error: Exception) -> None:
        self._appends.end()
        self._lost(error)

    def trim(self, to: int) -> int:
        """
        Trim the log up to a record, beside everything else, as that may take seconds.

        @return: the last record that is known to be trimmed; 0 if none is.
        """
        if to > self._trimmed and not self._trimming:
            self._trimming = True
            self._log.trim(to).addCallback(self._forget, to).addErrback(self._cannot_trim)
        return self._trimmed

    def _cannot_trim(self, failure: Failure) -> None:
        self._trimming = False
        error = failure.value
        assert isinstance(error, Exception)
        if not isinstance(error, LogUnavailable):
            self._lose(error)
        elif str(error) != self._trouble:
            self._trouble = str(error)
            self._logger.warn("cluster: cannot trim the log, will try again: {error}", error=self._trouble)

    def _forget(self, _: None, to: int) -> None:
        self._trimming = False
        self._trouble = ""
        self._trimmed = to
        while self._sizes and self._sizes[0][0] <= to:
            self.kept_bytes -= self._sizes.popleft()[1]

    async def check(self) -> None:
        """
        Ask the log whether this node still leads: a turn would find out, but there may be none.

        @raise LogUnavailable: the log cannot be reached.
        """
        last = await self._log.last()
        if last > self.highest:
            self._lose(LogConflict(f"another node has appended record {last}"))

