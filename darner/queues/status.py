"""
The server's status: up, or refusing what it was told to refuse.

Kestrel's rules: a stricter status is said at once and enforced after a grace period, in which clients can learn of it
and go elsewhere; a laxer one holds at once.  It is kept for the next start.
"""

from __future__ import annotations

from typing import Final, Optional

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger, LogLevel

from darner.errors import ClientError, StoreError, Unavailable
from darner.net.log_limits import LimitedLog
from darner.store.status_file import StatusFile
from darner.values.vocabulary import STATUSES

_STRICTNESS: Final = {status: strictness for strictness, status in enumerate(STATUSES)}


class ServerStatus:
    """
    What the server is told to refuse.

    @ivar name: the status, one of L{STATUSES}; with a grace period it may not be enforced yet.
    @ivar log: where changes are logged; those that repeat are counted.
    @ivar refuses_writes: whether nothing may be put, flushed or deleted.
    @ivar refuses_reads: whether nothing may be taken or looked at.  What is open may still be closed or given back.
    """

    _log = Logger()

    def __init__(
        self, clock: IReactorTime, default: str = "up", grace: float = 0.0, kept: Optional[StatusFile] = None
    ) -> None:
        """
        @param default: the status where none was kept.
        @param grace: seconds until a stricter status is enforced.
        @param kept: where it is kept; C{None}: nowhere.
        """
        self._clock = clock
        self.log = LimitedLog(self._log, clock)
        self._grace = grace
        self._kept = kept
        self._pending: Optional[IDelayedCall] = None
        self.name = self._recall(default)
        self._enforce()

    def _recall(self, default: str) -> str:
        try:
            name = self._kept.read() if self._kept is not None else ""
        except OSError as error:
            self._log.error("cannot read the saved status: {error}; starting as {status}", error=error, status=default)
            return default
        if name and name not in STATUSES:
            self._log.error("the saved status {name!r} is unknown; starting as {status}", name=name, status=default)
        return name if name in STATUSES else default

    def _enforce(self) -> None:
        self._pending = None
        self._enforced = self.name
        self.refuses_writes = self.name != "up"
        self.refuses_reads = self.name == "quiescent"

    def change(self, name: str) -> None:
        """
        Have another status, now or after the grace period, and at the next start.

        @param name: one of L{STATUSES}.
        @raise ClientError: another change to a stricter one is still in its grace period.
        @raise StoreError: it cannot be kept; nothing is changed then.
        """
        before = self.name
        if name == before:
            return
        stricter = _STRICTNESS[name] > _STRICTNESS[before]
        if stricter and self._pending is not None:
            raise ClientError(f"a change to {before} is under way")
        if self._kept is not None:
            try:
                self._kept.write(name)
            except OSError as error:
                raise StoreError(f"cannot keep the status: {error.strerror}") from error
        self._stop_grace()
        self.name = name
        self.log.emit(LogLevel.info, "status changed from {before} to {name}", name, name=name, before=before)
        if stricter and self._grace:
            self._pending = self._clock.callLater(self._grace, self._grace_is_over)
        else:
            self._enforce()

    def _grace_is_over(self) -> None:
        self._enforce()
        self.log.emit(LogLevel.info, "status {name} is now enforced", ("enforced", self.name), name=self.name)

    def check_writes(self) -> None:
        """@raise Unavailable: nothing may be put, flushed or deleted."""
        if self.refuses_writes:
            raise Unavailable(self._enforced)

    def check_reads(self) -> None:
        """@raise Unavailable: nothing may be taken or looked at."""
        if self.refuses_reads:
            raise Unavailable(self._enforced)

    def stop(self) -> None:
        """Let no time pass any more."""
        self.log.close()
        self._stop_grace()

    def _stop_grace(self) -> None:
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None
