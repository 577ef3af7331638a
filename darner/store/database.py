"""
The LevelDB of a data directory: open, read, write, reopen after a fault, close.

It handles keys and values as bytes; `darner.store.records` encodes them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Optional, TypeVar

import plyvel
from twisted.logger import Logger, LogLevel

from darner.errors import StoreError, StoreUnusable
from darner.net.log_limits import SparseLog
from darner.store import records
from darner.store.batch import Write
from darner.store.directory import SEGMENTS, DataDirectory, in_use
from darner.store.faults import reason, uncertain
from darner.store.files.damage import BadFile
from darner.store.mapped_memory import MappedMemory
from darner.store.payloads import Bytes, Payloads
from darner.store.rollback import Rollback
from darner.store.segments import SEGMENT_BYTES
from darner.store.writer import Writer

_NEWEST_TABLES: Final = b"leveldb.num-files-at-level0"
_REPAIR: Final = "stop the server and start it with --repair"
_TORN: Final = "cannot write: the store must be reopened after an error"

DB: Final = plyvel.DB

_T = TypeVar("_T")


class Database:
    """
    A LevelDB that recovers from faults.

    After a failed write LevelDB's log may be torn, and records behind the tear would be lost.  So the database is
    reopened before the next write, which starts a new log.  Reopening needs disk space, and so does consuming items; if
    the disk is full, they use the directory's reserve.  Puts are refused until the reserve is allocated again.

    LevelDB verifies every checksum, when it reads and when it merges tables.  If a merge finds damage, LevelDB refuses
    every write until it is reopened, and then merges the same tables again.  From then on puts are refused, and
    consumption is written whenever the database can be reopened.

    @ivar path: the data directory.
    @ivar directory: the data directory, claimed by this process.
    @ivar rollback: the files as they were before the database was opened; C{None} once the start has succeeded.
    @ivar payloads: the large payloads, which are in segments.
    @ivar writer: writes to the database.
    @ivar write: as L{Writer.write}: the writer's own method, as it is called for each turn.
    @ivar damage: the error for every put once tables could not be merged; empty before.
    """

    _log: SparseLog

    WRITE_BUFFER: Final = 4 * 1024 * 1024
    CACHE: Final = 4 * 1024 * 1024
    PRESSED: Final = 4
    """Number of tables not merged yet.  LevelDB slows every write down at 8, and stops writes at 12."""
    OPEN_FILES: Final = 74
    """LevelDB's minimum.  It maps open tables, of 2 MiB each, into memory; they count as this process's memory."""
    REOPEN: Final = (0.2, 10.0)
    """Seconds between two attempts to merge damaged tables, first and longest: each leaves one more."""
    PATIENCE: Final = 0.5
    """Seconds for which reopening waits for threads that use the database."""

    def __init__(
        self, path: Path, open_database: Callable[..., Any], seconds: Callable[[], float],
        write_buffer: Optional[int], separate_from: Optional[int],
    ) -> None:  # fmt: skip
        """
        Claim the data directory, without opening the database.

        @param open_database: opens the LevelDB: C{plyvel.DB}, except in tests of its faults.
        The other parameters are those of L{darner.store.leveldb.LevelStore}.
        @raise StoreUnusable: see L{DataDirectory}.
        """
        self.path = path
        self._write_buffer = write_buffer or self.WRITE_BUFFER
        self.directory = DataDirectory(path)
        self.rollback: Optional[Rollback] = None
        self.damage = ""
        self._open_database = open_database
        self._mapped_memory = MappedMemory(self.directory.database)
        self.payloads = Payloads(
            path / SEGMENTS, self.directory.database, self, min(SEGMENT_BYTES, 4 * self._write_buffer), separate_from
        )
        self.writer = Writer(self, self.payloads, self.directory.reserve, self._mapped_memory.written)
        self.write = self.writer.write
        self._seconds = seconds
        self._log = SparseLog(Logger(), seconds)  # clients ask for what cannot be read as often as they like
        self._mend_at = 0.0
        self._reopen = self.REOPEN[0]
        self._in_threads = 0
        self._lock = threading.Condition(threading.Lock())
        self._patient = True

    # Opening and closing

    def make_and_open(self) -> None:
        """Open the database; create it if there is none."""
        self.directory.make_database(lambda path: self._open_database(str(path), create_if_missing=True).close())
        self.open()

    def open(self) -> None:
        try:
            self.writer.db = self._open_database(
                str(self.directory.database),
                create_if_missing=True,
                write_buffer_size=self._write_buffer,
                lru_cache_size=self.CACHE,
                max_open_files=self.OPEN_FILES,
                compression=None,
                paranoid_checks=True,
            )
        except plyvel.IOError as error:
            if reason(error).startswith("IO error: lock "):
                self.discard_rollback()  # another process writes to it
                raise in_use(self.path) from error
            raise
        self.payloads.opened(self._write_buffer)

    def keep_rollback(self, rollback: Rollback) -> None:
        """Have a way back until the first write."""
        self.rollback = rollback
        self.writer.first = True

    def discard_rollback(self) -> None:
        if self.rollback is not None:
            self.rollback.discard()
            self.rollback = None

    def roll_back(self) -> None:
        """Close the database and restore its files as they were before it was opened."""
        self._close_database()
        if self.rollback is not None:
            self.rollback.restore()
        self.close()

    def _close_database(self) -> bool:
        """@return: whether it was open."""
        # Not while the thread that syncs payloads writes that it has.
        with self.writer.lock:
            db, self.writer.db = self.writer.db, None
            if db is not None:
                db.close()
        return db is not None

    def close(self) -> None:
        """Close the database and release the directory.  Idempotent."""
        if self._close_database():
            self.writer.torn = False
        self.payloads.close()
        self._mapped_memory.stop()
        self.discard_rollback()
        self.directory.release()

    def mend(self) -> None:
        """
        Reopen the database.

        @raise StoreError: this is not possible now.
        """
        if self.damage:
            now = self._seconds()
            if now < self._mend_at:
                raise StoreError(self.damage)
            self._mend_at = now + self._reopen
            self._reopen = min(2 * self._reopen, self.REOPEN[1])
        with self._lock:
            if self._in_threads and self._patient:
                # Their work usually fails by the same fault.  Wait only once, as clients wait too.
                self._patient = False
                self._lock.wait_for(lambda: not self._in_threads, self.PATIENCE)
            if self._in_threads:
                raise StoreError(_TORN)
            self._reopen_now()
            self._patient = True
        self._log.emit(
            LogLevel.info, "reopened the store in {path} after a failed write: it accepts writes again", path=self.path
        )

    def renew(self) -> None:
        """
        Reopen the database, unless a thread is using it.

        @raise StoreError: it cannot be opened now; L{mend} tries again.
        """
        with self._lock:
            if not self._in_threads:
                self.writer.torn = True
                self._reopen_now()

    def _reopen_now(self) -> None:
        try:
            self._close_database()
            self.directory.make_room()
            # LevelDB makes a table of its logs.
            self.payloads.sync()
            self.open()
        except (plyvel.Error, StoreUnusable, OSError) as error:
            raise StoreError(f"cannot write: {reason(error)}") from error
        self.writer.torn = False

    def opened(self) -> Any:
        """
        @return: the C{plyvel.DB}.
        @raise StoreError: the store is closed.
        """
        if self.writer.db is None:
            raise StoreError("the store is closed")
        return self.writer.db

    # Reading

    def get(self, key: bytes) -> Optional[bytes]:
        value: Optional[bytes] = self.opened().get(key, verify_checksums=True)
        return value

    def iterator(self, **bounds: Any) -> Any:
        return self.opened().iterator(verify_checksums=True, **bounds)

    def prefixed(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        with self.iterator(prefix=prefix) as entries:
            return list(entries)

    def last(self, start: bytes, stop: bytes) -> Optional[tuple[bytes, bytes]]:
        """
        Find the last entry from C{start} up to, not including, C{stop}.  An entry at C{stop} or beyond must exist.

        plyvel's reversed iterator does not find an entry at C{start} itself, and reads on behind the one that it has
        found, possibly across many deletion marks.
        """
        with self.opened().raw_iterator(verify_checksums=True) as entries:
            entries.seek(stop)
            entries.prev()
            entry: tuple[bytes, bytes] = entries.item()
        return entry if entry[0] >= start else None

    def has_read(self, size: int) -> None:
        """Count bytes that were read through LevelDB's maps of its tables."""
        self._mapped_memory.read(size)

    def pressed(self) -> bool:
        return self.writer.db is not None and int(self.writer.db.get_property(_NEWEST_TABLES) or 0) >= self.PRESSED

    def newest_bytes(self) -> int:
        """@return: about how many bytes the tables take that LevelDB will merge without being asked."""
        return int(self.opened().get_property(_NEWEST_TABLES) or 0) * self.WRITE_BUFFER

    # Writing

    def require_room(self) -> None:
        """@raise StoreError: there is no space for a put, or the store is damaged."""
        if self.damage:
            raise StoreError(self.damage)
        reserve = self.directory.reserve
        if not reserve.held and not reserve.take():
            raise StoreError(f"cannot write: {reserve.reason}")

    def require_whole(self) -> None:
        """@raise StoreError: a write has failed, and the database was not reopened since."""
        if self.writer.torn:
            raise StoreError(self.damage or _TORN)

    def torn_by(self, error: Exception) -> StoreError:
        """@return: the error for a write that has failed."""
        self.writer.torn = True
        if not isinstance(error, plyvel.CorruptionError):
            return uncertain(f"cannot write: {reason(error)}")
        if not self.damage:
            self.damage = f"cannot write: the store is damaged ({reason(error)}): {_REPAIR}"
            self.writer.damaged = True
            self._log.emit(
                LogLevel.critical,
                "the store in {path} is damaged: LevelDB cannot merge its tables ({reason}).  The server "
                "refuses puts until the store is repaired: {repair}",
                path=self.path, reason=reason(error), repair=_REPAIR,
            )  # fmt: skip
        return uncertain(self.damage)

    def write_if(self, wanted: Callable[[], tuple[Sequence[Write], Bytes]]) -> None:
        """
        As L{write}, in a worker thread.

        @param wanted: called while no other thread writes.  It returns what to write, and how many bytes of segments
            nothing refers to afterwards.
        """
        with self.writer.lock:
            self.require_whole()
            writes, more = wanted()
            self.writer.write_alone(writes, False, True, (), more)

    def snapshot(self, meanwhile: Callable[[], None]) -> Any:
        """@return: a snapshot of the database, made together with C{meanwhile} while no thread writes."""
        with self.writer.lock:
            meanwhile()
            return self.opened().snapshot()

    def settle(self) -> None:
        """Write all payloads to stable storage, so that the next start need not look at them."""
        if self.writer.db is not None and not self.writer.torn:
            self.payloads.seal()
            with contextlib.suppress(StoreError, OSError):
                self.payloads.sync()
                self.write([], large=True)

    def write_safely(self, writes: Sequence[Write], large: bool = False, apart: Sequence[bytes] = ()) -> None:
        """As L{write}, in a worker thread.  When it returns, this and all earlier writes are on stable storage."""
        self.in_thread(lambda: self._write_and_sync(writes, large, apart))

    def _write_and_sync(self, writes: Sequence[Write], large: bool, apart: Sequence[bytes]) -> None:
        self.write(writes, True, large, apart)
        try:
            self.directory.sync_older_logs()
        except OSError as error:
            self.writer.torn = True
            raise uncertain(f"cannot write: {reason(error)}") from error

    def compact_range(self, start: bytes, stop: bytes) -> None:
        # LevelDB starts a new log for a compaction.  If the old one were empty, `darner.store.power_loss` would
        # conclude that its contents were lost.
        self.write([(records.FORMAT_KEY, records.FORMAT)])
        self.payloads.begin_log(lambda: self.opened().compact_range(start=start, stop=stop), self.writer.lock)

    def page_out(self) -> None:
        self._mapped_memory.page_out()

    # Faults and threads

    def guarded(self, read: Callable[[], _T]) -> _T:
        """
        @return: the result of C{read}.
        @raise StoreError: instead of errors of LevelDB and of the operating system.
        """
        try:
            return read()
        except (plyvel.CorruptionError, BadFile) as error:
            self._log.emit(
                LogLevel.critical,
                "the store in {path} is damaged ({reason}): some items cannot be read.  To repair it, {repair}",
                path=self.path, reason=reason(error), repair=_REPAIR,
            )  # fmt: skip
            raise StoreError(f"cannot read: the store is damaged ({reason(error)}): {_REPAIR}") from error
        except (plyvel.Error, OSError) as error:
            raise StoreError(f"cannot read: {reason(error)}") from error

    def in_thread(self, work: Callable[[], _T]) -> _T:
        """As L{guarded}, in a worker thread: the database is not closed meanwhile."""
        with self._lock:
            self._in_threads += 1
        try:
            return self.guarded(work)
        finally:
            with self._lock:
                self._in_threads -= 1
                self._lock.notify_all()
