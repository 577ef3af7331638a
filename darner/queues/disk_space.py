"""
Room on the disk that is not to be filled: puts are refused before it is, so that consumers can always go on.

To write down that items are gone takes some room as well, and so does giving room back.  The data directory's reserve
(`darner.store.directory`) is the last resort for that; this comes long before it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Optional

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from darner.errors import DiskAlmostFull
from darner.store.interfaces import IStore
from darner.values.stats import Health

KEPT: Final = 64 * 1024 * 1024
"""What is kept free by default, in bytes."""
KEPT_PART: Final = 20
"""On a small file system this part of it is kept free by default, where that is less."""
OFTEN: Final = 64 * 1024
"""The file system is not asked more often than after so many bytes."""
INTERVAL: Final = 1.0
"""Seconds after which it is asked in any case when something is put, or how often while puts are refused."""
_FOR_EVER: Final = float("inf")


class DiskSpace:
    """
    Whether there is room to put something.

    The file system is asked now and then only, by time and by what was put; in between, a put costs a subtraction.

    @ivar health: whether there is, as far as was seen.
    """

    def __init__(
        self, store: IStore, clock: IReactorTime, min_free_bytes: Optional[int], wall: Callable[[], float]
    ) -> None:
        """
        @param min_free_bytes: what is kept free; 0 for nothing, C{None} for L{KEPT} or the L{KEPT_PART}.
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
        Something is to be put.

        @param size: in bytes.
        @raise DiskAlmostFull: it is refused.
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

    def stop(self) -> None:
        """Look no more."""
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
        # A little more than that before puts are taken again, so that it does not change with each item.
        if self._free >= self._kept + (0 if self.health.writable else self._kept // 8):
            self.health = Health()
            # Half of what there is: others use the disk as well, and LevelDB to merge what it has.
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
            self._left = -1.0  # the next put looks; where there is none, nobody needs to
