"""
The server's status: up, readonly or quiescent.

The rules are Kestrel's: a stricter status is reported at once and enforced after a grace period, in which clients can
move elsewhere; a less strict one applies at once.  The status is saved for the next start.
"""

from __future__ import annotations

from typing import ClassVar, Final, Optional

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger, LogLevel

from darner.errors import ClientError, StoreError, Unavailable
from darner.net.log_limits import LimitedLog
from darner.store.status_file import StatusFile
from darner.values.vocabulary import STATUSES

_STRICTNESS: Final = {status: strictness for strictness, status in enumerate(STATUSES)}


class ServerStatus:
    """
    The server's status, and what it refuses.

    @ivar name: the status, one of L{STATUSES}; during the grace period it is not enforced yet.
    @ivar log: the log of changes; repeated ones are counted.
    @ivar refuses_writes: whether puts, flushes and deletions are refused.
    @ivar refuses_reads: whether reads and peeks are refused.  Open reads can still be closed or given back.
    """

    _log: ClassVar[Logger] = Logger()

    def __init__(
        self, clock: IReactorTime, default: str = "up", grace: float = 0.0, kept: Optional[StatusFile] = None
    ) -> None:
        """
        @param default: the status if none was saved.
        @param grace: seconds until a stricter status is enforced.
        @param kept: the file with the saved status; C{None}: it is not saved.
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
        Change the status, now or after the grace period, and save it for the next start.

        @param name: one of L{STATUSES}.
        @raise ClientError: another change to a stricter one is still in its grace period.
        @raise StoreError: it cannot be saved; nothing is changed.
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
        """@raise Unavailable: the status refuses puts, flushes and deletions."""
        if self.refuses_writes:
            raise Unavailable(self._enforced)

    def check_reads(self) -> None:
        """@raise Unavailable: the status refuses reads and peeks."""
        if self.refuses_reads:
            raise Unavailable(self._enforced)

    def stop(self) -> None:
        """Stop all timers."""
        self.log.close()
        self._stop_grace()

    def _stop_grace(self) -> None:
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None
