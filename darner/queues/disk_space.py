"""
The disk space that puts must leave free, so that clients can always consume.

Consuming and reclaiming write records as well.  The data directory's reserve (`darner.store.directory`) is the last
resort for these; puts are refused long before it is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Optional

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from darner.errors import DiskAlmostFull
from darner.store.interfaces import IStore
from darner.values.stats import Health

KEPT: Final = 64 * 1024 * 1024
"""Bytes that are kept free by default."""
KEPT_PART: Final = 20
"""On a small file system, 1/20 of it is kept free by default, if that is less."""
OFTEN: Final = 64 * 1024
"""Minimum bytes of puts between two queries of the file system."""
INTERVAL: Final = 1.0
"""Maximum seconds between two queries, while there are puts or puts are refused."""
_FOR_EVER: Final = float("inf")


class DiskSpace:
    """
    The check for free disk space.

    It queries the file system from time to time, depending on the time and the bytes put; in between, a put costs a
    subtraction.

    @ivar health: whether there was space at the last query.
    """

    def __init__(
        self, store: IStore, clock: IReactorTime, min_free_bytes: Optional[int], wall: Callable[[], float]
    ) -> None:
        """
        @param min_free_bytes: bytes to keep free; 0: none, C{None}: L{KEPT} or the L{KEPT_PART}.
        @param wall: the time in seconds since the epoch.
        """
        self._store = store
        self._clock = clock
        self._wall = wall
        self._wanted = min_free_bytes
        self._kept = 0
        self._free = 0
        self._left = _FOR_EVER if min_free_bytes == 0 else -1.0
        self._timer: Optional[IDelayedCall] = None
        self.health = Health()

    def take(self, size: int) -> None:
        """
        Check that there is space for a put.

        @param size: in bytes.
        @raise DiskAlmostFull: there is not.
        """
        self._left -= size
        if self._left < 0:
            self._take(size)

    def _take(self, size: int) -> None:
        if self._timer is None or self.health.writable:
            self._look()
            self._left -= size
        if not self.health.writable:
            raise DiskAlmostFull(self._free, self._kept)

    def room(self) -> Optional[tuple[int, int]]:
        """@return: free and total bytes of the file system; C{None} if they are unknown."""
        return self._store.space()

    def stop(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        space = self._store.space()
        if space is None:
            self._left = _FOR_EVER
            return
        self._free, size = space
        self._kept = min(KEPT, size // KEPT_PART) if self._wanted is None else self._wanted
        # Accept puts again only with a little more than that, so that it does not change with each item.
        if self._free >= self._kept + (0 if self.health.writable else self._kept // 8):
            self.health = Health()
            # At most half of the free space: LevelDB needs space to merge tables, and others use the disk too.
            self._left = float(max(OFTEN, min(self._kept // 8, (self._free - self._kept) // 2)))
        else:
            reason = str(DiskAlmostFull(self._free, self._kept))
            self.health = Health(False, reason, self.health.since or self._wall())
            self._left = -1.0
        if self._timer is None:
            self._timer = self._clock.callLater(INTERVAL, self._late)

    def _late(self) -> None:
        self._timer = None
        if not self.health.writable:
            self._look()
        else:
            self._left = -1.0  # so that the next put queries
