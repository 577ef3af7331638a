"""
What runs of the database for each turn: one write to LevelDB.

It is apart from `darner.store.database` because it is compiled, and that is not.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Optional, Protocol

import plyvel

from darner.errors import StoreError
from darner.store.batch import Batch, Write
from darner.store.payloads import Bytes, Payloads
from darner.store.reserve import Reserve

_monotonic: Final = time.monotonic  # as a value, since an attribute of a module is looked up at each use
_LOOK: Final = 0.001
"""Seconds between two calls of C{look}."""


class Writable(Protocol):
    """The database, as its writer sees it."""

    def discard_rollback(self) -> None:
        """Give up the files as they were before the database was opened."""

    def mend(self) -> None:
        """
        Reopen the database.

        @raise StoreError: this is not possible now.
        """

    def require_room(self) -> None:
        """@raise StoreError: there is no space for a put, or the store is damaged."""

    def require_whole(self) -> None:
        """@raise StoreError: a write has failed, and the database was not reopened since."""

    def torn_by(self, error: Exception) -> StoreError:
        """@return: the error for a write that has failed."""


class Recording(Protocol):
    """What records the ranges to compact, as the writer sees it."""

    def reclaimed(self, batch: Batch) -> None:
        """Record the ranges of runs that a batch deletes."""


class Writer:
    """
    Writes to a LevelDB: all of some keys, or none.

    @ivar db: the C{plyvel.DB}, while it is open.
    @ivar torn: whether a write has failed, so that the database must be reopened before the next.
    @ivar damaged: whether tables could not be merged, so that nothing can be put.
    @ivar first: whether the next write is the first since the start, so that there is no way back from it.
    @ivar lock: held by whoever writes, and by a backup for its moment.
    """

    def __init__(
        self, database: Writable, payloads: Payloads, reserve: Reserve, look: Callable[[], object]
    ) -> None:
        """
        @param reserve: must be held while something is put.
        @param look: called while something is written, every millisecond at most.
        """
        self.db: Any = None
        self.torn = self.damaged = False
        self.first = False
        self.lock = threading.Lock()
        self._database = database
        self._payloads = payloads
        self._reserve = reserve
        self._dirty = payloads.segments.dirty
        self._look = look
        self._look_at = 0.0

    def mend(self) -> None:
        """See L{darner.store.interfaces.IWrites.mend}."""
        if self.torn:
            self._database.mend()

    def prepare(self, batch: Batch, compaction: Recording) -> None:
        """
        Do for a turn's batch what comes before the write.

        @raise StoreError: there is no space for its puts, or the store is damaged.
        """
        if batch.puts and (self.damaged or not self._reserve.held):
            self._database.require_room()
        if batch.reclaimed:
            compaction.reclaimed(batch)

    def write_batch(self, batch: Batch, compaction: Recording) -> None:
        """L{prepare} and L{write} a turn's batch."""
        self.prepare(batch, compaction)
        self.write(batch.writes, False, batch.large, batch.apart)

    def write(
        self, writes: Sequence[Write], sync: bool = False, large: bool = False, apart: Sequence[bytes] = ()
    ) -> None:
        """
        Write all of these keys, or none.

        @param large: whether large payloads may be among the values.  These go to segments.
        @param apart: those of the deleted keys whose values may be in segments.
        @raise StoreError: none was written, unless the error is C{uncertain}.
        """
        now = _monotonic()
        if now >= self._look_at:
            self._look_at = now + _LOOK
            self._look()
        # One at a time, as in LevelDB, so that no thread writes behind a tear that another thread causes.
        lock = self.lock
        lock.acquire()
        try:
            self.write_alone(writes, sync, large, apart, None)
        finally:
            lock.release()

    def write_alone(
        self, writes: Sequence[Write], sync: bool, large: bool, apart: Sequence[bytes], more: Optional[Bytes]
    ) -> None:
        """
        As L{write}, while the caller has the lock.

        @param more: bytes of segments to which nothing refers afterwards, beside those of C{apart}.
        """
        if self.torn:
            self._database.require_whole()
        if self.first:
            self.first = False
            self._database.discard_rollback()
        db = self.db
        if db is None:
            raise StoreError("the store is closed")
        # What is promised is recorded as synced: a start does not give it up.
        watched = large or sync or bool(apart) or bool(self._dirty)
        if watched:
            writes = self._payloads.separate(writes, large, sync, apart, more)
        try:
            _put(db, writes, sync)
        except (plyvel.Error, OSError) as error:
            if watched:
                self._payloads.refused()
            raise self._database.torn_by(error) from error
        if watched:
            self._payloads.written()


def _put(db: Any, writes: Sequence[Write], sync: bool) -> None:
    if len(writes) == 1:
        key, value = writes[0]
        if value is not None:
            # Half the price of a batch, and less without a name.
            if sync:
                db.put(key, value, sync=True)
            else:
                db.put(key, value)
            return
    elif not (writes or sync):
        return
    batch = db.write_batch(sync=sync)
    put, delete = batch.put, batch.delete
    for key, value in writes:
        if value is None:
            delete(key)
        else:
            put(key, value)
    batch.write()
