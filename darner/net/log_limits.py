"""
Limits the number of log lines that clients, or a full disk, can cause.

The first line of a kind is logged at once.  The following ones are counted, and logged as one line a period with the
count.  When they end, one more line says so, with the total count.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final, Optional

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

PERIOD: Final = 60.0
"""Seconds between two lines of one kind."""
KINDS: Final = 100
"""The number of kinds that are counted separately; further ones are counted together by their format."""


class SparseLog:
    """
    As L{LimitedLog}, for what has no reactor and may log from any thread: what was left out is told with the next line
    of its kind.
    """

    def __init__(self, log: Logger, seconds: Callable[[], float], period: float = PERIOD) -> None:
        """@param seconds: a monotonic clock."""
        self._log = log
        self._seconds = seconds
        self._period = period
        self._lock = threading.Lock()
        self._said: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def emit(self, level: Any, format: str, **fields: object) -> None:
        """Log an event, or count it by its format.  C{left_out} and C{seconds} are taken among the C{fields}."""
        with self._lock:
            now = self._seconds()
            before = self._said.get(format)
            if before is not None and now < before + self._period:
                self._left_out[format] = self._left_out.get(format, 0) + 1
                return
            self._said[format] = now
            left_out = self._left_out.pop(format, 0)
        if before is None or not left_out:
            self._log.emit(level, format, **fields)
        else:
            self._log.emit(
                level, format + " ({left_out} more in the last {seconds} s)", left_out=left_out,
                seconds=round(now - before), **fields,
            )  # fmt: skip


class _Kind:
    """The counts of one kind of line, and its latest event."""

    timer: IDelayedCall

    def __init__(self, now: float) -> None:
        self.level: Any = LogLevel.info
        self.format = ""
        self.fields: dict[str, object] = {}
        self.since = now
        self.total = 0
        self.left_out = 0
        self.announced = False
        self.end: Optional[tuple[str, dict[str, object]]] = None
        self.said = now


class LimitedLog:
    """
    A C{Logger} that logs each kind of event at most once a period.

    The latest event of those left out is kept, so fields must be small values, and errors be given as text.
    """

    def __init__(self, log: Logger, clock: IReactorTime, period: float = PERIOD, kinds: int = KINDS) -> None:
        """
        @param log: the logger for the lines.
        @param period: in seconds.
        @param kinds: the number of kinds that are counted separately.
        """
        self._log = log
        self._clock = clock
        self._period = period
        self._most = kinds
        self._kinds: dict[object, _Kind] = {}

    def emit(self, level: Any, format: str, kind: object = None, **fields: object) -> None:
        """
        Log an event, or count it.

        @param level: one of C{LogLevel}.
        @param kind: events of the same kind are counted together; by default the format.
        @param fields: the values for the format; not C{left_out}, C{total} or C{seconds}.
        """
        self._emit(level, format, format if kind is None else kind, None, fields)

    def failure(self, format: str, failure: Optional[Failure] = None) -> None:
        """
        Log an internal error, with its traceback the first time.

        Errors of the same type, raised by the same line, are counted together.

        @param failure: by default the exception that is being handled.
        """
        failure = Failure() if failure is None else failure
        where = tuple(failure.frames[-1][1:3]) if failure.frames else ()
        kind = (format, failure.type, where)
        self._emit(LogLevel.critical, format + ": {error}", kind, failure, {"error": failure.getErrorMessage()})

    def _emit(
        self, level: Any, format: str, kind: object, failure: Optional[Failure], fields: dict[str, object]
    ) -> None:
        now = self._clock.seconds()
        state = self._kinds.get(kind)
        if state is None and len(self._kinds) >= self._most:
            kind = ("others", format)
            state = self._kinds.get(kind)
        fresh = state is None
        if state is None:
            state = self._kinds[kind] = _Kind(now)
            state.announced = True
        elif not state.total:
            state.since = now  # it had ended
        state.level, state.format, state.fields = level, format, fields
        state.total += 1
        state.end = None
        if not fresh:
            state.left_out += 1
            return
        state.timer = self._clock.callLater(self._period, self._period_over, kind)
        if failure is None:
            self._log.emit(level, format, **fields)
        else:
            self._log.emit(level, format, log_failure=failure, **fields)

    def end(self, format: str, kind: object, **fields: object) -> bool:
        """
        Log that events of this kind have ended: at once if a line of them was logged, otherwise after the next one.

        @param format: may contain C{total}, the number of events, and C{seconds}, the time since the first.
        @return: whether there were any.
        """
        state = self._kinds.get(kind)
        if state is None or not state.total:
            return False
        if state.announced:
            self._say_end(state, format, fields)
        else:
            state.end = (format, fields)
        return True

    def close(self) -> None:
        """Log the counts of lines that were left out, and stop all timers."""
        kinds, self._kinds = self._kinds, {}
        for state in kinds.values():
            state.timer.cancel()
            self._say_left_out(state)

    def _period_over(self, kind: object) -> None:
        state = self._kinds[kind]
        if state.left_out:
            self._say_left_out(state)
            state.timer = self._clock.callLater(self._period, self._period_over, kind)
            return
        del self._kinds[kind]
        if state.total > 1:
            self._say(state, state.level, state.format + " (over: {total} times in {seconds} s)", state.fields)

    def _say_left_out(self, state: _Kind) -> None:
        """Log the count of lines left out since the last line, if any."""
        if not state.left_out:
            return
        seconds = round(self._clock.seconds() - state.said)
        self._log.emit(
            state.level, state.format + " ({left_out} more in the last {seconds} s)",
            left_out=state.left_out, seconds=seconds, **state.fields,
        )  # fmt: skip
        state.left_out = 0
        state.said = self._clock.seconds()
        state.announced = True
        if state.end is not None:
            self._say_end(state, *state.end)

    def _say_end(self, state: _Kind, format: str, fields: dict[str, object]) -> None:
        self._say(state, LogLevel.info, format, fields)
        state.total = state.left_out = 0
        state.announced = False
        state.end = None

    def _say(self, state: _Kind, level: Any, format: str, fields: dict[str, object]) -> None:
        seconds = round(self._clock.seconds() - state.since)
        self._log.emit(level, format, total=state.total, seconds=seconds, **fields)
