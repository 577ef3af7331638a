"""
A queue service in memory whose clock the test advances, for tests of applications that embed darner.

`docs/embedding.rst` shows it in use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Optional, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock

from darner.config.settings import Settings
from darner.queues.surroundings import Surroundings
from darner.service import QueueService
from darner.store.memory import MemoryStore
from darner.store.status_file import StatusFile

__all__ = ["EPOCH", "MemoryQueueService", "MemoryStore"]

EPOCH: Final = 1_700_000_000
"""The wall-clock time of a new C{Clock}, in seconds since the epoch."""

_T = TypeVar("_T")


class MemoryQueueService(QueueService):
    """
    A L{QueueService} without disk, threads, reactor and listeners.

    Only C{clock.advance} makes anything happen.  As in a server, the calls of one turn are written together at its end:
    the Deferred of a put fires with C{clock.advance(0)}, which L{result} calls as well.

    A stopped service can be started again, and so can another one on the same store: the queues are still there.

    @ivar clock: its time, also for expiry and delays; C{clock} 0 is L{EPOCH}.
    @ivar store: its store.
    """

    def __init__(
        self, clock: Optional[Clock] = None, settings: Settings = Settings(), store: Optional[MemoryStore] = None  # noqa: B008
    ) -> None:
        """
        @param clock: by default a new one.
        @param settings: as for a L{QueueService}.
        @param store: the store of an earlier service; by default a new one.
        """
        self.clock = Clock() if clock is None else clock
        self.store = MemoryStore() if store is None else store
        super().__init__("in memory", (), settings, self.clock, lambda _: self.store)

    def result(self, deferred: Deferred[_T]) -> _T:
        """
        End the turn.

        @param deferred: the Deferred of a call to this service.
        @return: its result.
        @raise Exception: its failure.
        @raise AssertionError: it has not fired: the call waits for an item, or for a later time.
        """
        results: list[Any] = []
        failures: list[Any] = []
        deferred.addCallbacks(results.append, failures.append)
        self.clock.advance(0)
        for failure in failures:
            failure.raiseException()
        if not results:
            raise AssertionError("the call has not finished: it waits for an item, or for a later time")
        found: _T = results[0]
        return found

    def _start_surroundings(self) -> Surroundings:
        self._clock = self.clock
        return Surroundings(
            self.clock, lambda call: self.clock.callLater(0, call), self._in_thread,
            lambda: EPOCH + self.clock.seconds(),
        )  # fmt: skip

    def _stop_surroundings(self) -> None:
        pass

    def _status_file(self) -> Optional[StatusFile]:
        return None

    def _in_thread(self, work: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        return maybeDeferred(work, *arguments)
