"""
For tests of applications that embed darner: queues in memory, with time that the test moves.

`docs/embedding.rst` shows it in use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Optional, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock

from darner.config.settings import Settings
from darner.queues.collection import Surroundings
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

    Nothing happens but by C{clock.advance}: as in a server, the calls of one turn are written together at its end, so
    that the Deferred of a put fires with C{clock.advance(0)}.  L{result} does that as well.

    A service that is stopped can be started again, and so can another one on the same store: the queues are there.

    @ivar clock: its time; what expires and what is delayed goes by it as well, from L{EPOCH} on.
    @ivar store: what it keeps.
    """

    def __init__(
        self, clock: Optional[Clock] = None, settings: Settings = Settings(), store: Optional[MemoryStore] = None  # noqa: B008
    ) -> None:
        """
        @param clock: by default a new one.
        @param settings: as those of a L{QueueService}.
        @param store: what an earlier service has left; by default there is nothing.
        """
        self.clock = Clock() if clock is None else clock
        self.store = MemoryStore() if store is None else store
        super().__init__("in memory", (), settings, self.clock, lambda _: self.store)

    def result(self, deferred: Deferred[_T]) -> _T:
        """
        End the turn.

        @param deferred: of a call to this service.
        @return: what it fires with.
        @raise Exception: what it fails with.
        @raise AssertionError: it has not fired: it waits for an item, or for a later time.
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
