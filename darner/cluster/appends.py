"""
The records of a leader that are on their way to the log: several at a time, in their order.

Where it is in doubt whether the log has one, nothing more is sent until all that is under way has an outcome.  Then the
log is read, record by record; what is not there is appended again, one after the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from darner.cluster.interfaces import ILog
from darner.errors import LogConflict, LogInDoubt, LogTrimmed, LogUnavailable

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
        except LogInDoubt:
            if await has_record(log, clock, number, record):
                return
        except LogConflict:
            if await has_record(log, clock, number, record):
                return
            raise


async def has_record(log: ILog, clock: IReactorTime, number: int, record: bytes) -> bool:
    """
    Look whether the log has a record, however long it is out of reach.

    @return: whether it does; if not, nobody has appended that number.
    @raise LogConflict: it has another one there.
    @raise LogDamaged: it cannot be read, or the log ends before the record in front of it.
    """
    while True:
        try:
            found = await log.read(number - 1, 1)
            break
        except LogUnavailable:
            await deferLater(clock, PAUSE, lambda: None)
        except LogTrimmed:
            raise LogConflict(f"record {number} is trimmed already") from None
    if found and found[0] != (number, record):
        raise LogConflict(f"another node has appended record {number}")
    return bool(found)


class _Append:
    """A record that is on its way; C{done} fires when the log has it and all before."""

    def __init__(self, number: int, record: bytes) -> None:
        self.number = number
        self.record = record
        self.appended = False
        self.done: Deferred[None] = Deferred()


class Appends:
    """The records of one leader."""

    def __init__(self, log: ILog, clock: IReactorTime, lost: Callable[[Exception], object]) -> None:
        """
        @param lost: called once, with a L{LogConflict} where somebody else has appended, or with why a record cannot be
            appended.  No Deferred of L{append} fires any more then.
        """
        self._log = log
        self._clock = clock
        self._lost = lost
        self._pending: deque[_Append] = deque()
        self._under_way = 0
        self._in_doubt = False
        self._ended = False

    def append(self, number: int, record: bytes) -> Deferred[None]:
        """
        Append a record.

        @param number: the next one.
        @param record: one that nobody else appends.
        @return: fires when the log has it, behind those that were given before; never, if it does not come to that.
        """
        append = _Append(number, record)
        self._pending.append(append)
        # A log that has refused one may take the next one behind somebody else's.
        if not self._in_doubt:
            self._under_way += 1
            self._log.append(number, record).addCallbacks(
                self._has_it, self._refused, callbackArgs=(append,), errbackArgs=(append,)
            )
        return append.done

    def _has_it(self, _: None, append: _Append) -> None:
        self._under_way -= 1
        append.appended = True
        self._tell()
        if self._in_doubt:
            self._find_out()

    def _refused(self, failure: Failure, append: _Append) -> None:
        self._under_way -= 1
        self._in_doubt = True
        if failure.check(LogUnavailable, LogConflict, LogInDoubt):
            _log.debug("record {n} is in doubt: {error}", n=append.number, error=failure.value)
            self._find_out()
        else:
            self._failed(failure)

    def _tell(self) -> None:
        while self._pending and self._pending[0].appended and not self._ended:
            self._pending.popleft().done.callback(None)

    def _find_out(self) -> None:
        """Once nothing is under way any more, see to it that the log has all of them."""
        if not (self._under_way or self._ended):
            Deferred.fromCoroutine(self._append_each()).addErrback(self._failed)

    async def _append_each(self) -> None:
        while self._pending and not self._ended:
            append = self._pending[0]
            if not (append.appended or await has_record(self._log, self._clock, append.number, append.record)):
                await append_surely(self._log, self._clock, append.number, append.record)
            append.appended = True
            self._tell()
        self._in_doubt = self._ended

    def _failed(self, failure: Failure) -> None:
        if not self._ended:
            self.end()
            error: Any = failure.value
            self._lost(error)

    def end(self) -> None:
        """Tell nothing any more."""
        self._ended = self._in_doubt = True
