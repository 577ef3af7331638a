"""
Large payloads apart from the database: what is written to segments, and when they are synced.

A batch contains its payloads.  When it is written, a large one goes to a segment, and the database gets a record that
refers to it (`darner.store.references`).

After a loss of power the start gives up what the newest logs say from the first lost payload on
(`darner.store.lost_payloads`), but it cannot give up what a table says.  So no table may refer to a payload that is not
on stable storage.  LevelDB writes a table when its buffer in memory is full, and does not tell.  The log that goes with
the buffer tells enough: the buffer has at most L{DENSITY} times the length of the log.  As long as this is less than
the buffer may have, LevelDB does not write it.  From then on, and until LevelDB has begun a new log, everything is
synced before each write, and large payloads go to the database.  As that fills the buffer, it does not take long.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Optional, Protocol

from twisted.logger import Logger

from darner.errors import StoreError
from darner.store import records, references
from darner.store.batch import Write
from darner.store.faults import Work
from darner.store.files.damage import BadFile
from darner.store.files.names import logs
from darner.store.references import Reference
from darner.store.segments import Appender, Segment, Segments

DENSITY: Final = 4
"""
LevelDB's buffer in memory has no more than this many times the bytes of its log.  The worst is 3.5: 11 bytes of a log
that delete a key of 9 bytes take 38 in the buffer.
"""
EARLY: Final = 8
"""Payloads are synced in the background about so many times before the buffer is written."""
_SOON: Final = 0.0005
ATTEMPTS: Final = 3
"""How often a value is looked for that was moved while it was looked for."""


Bytes = Mapping[int, int]
"""A number of bytes for each segment."""


class DatabaseAccess(Protocol):
    """What payloads need of the database."""

    def get(self, key: bytes) -> Optional[bytes]:
        """@return: the value of a key."""

    def write(self, writes: Sequence[Write], sync: bool = False, large: bool = False) -> None:
        """Write all of these keys, or none."""


class Payloads:
    """
    The payloads in the segments of a data directory.

    @ivar segments: the segments.
    @ivar held: whether large payloads go to the database, as LevelDB is about to begin a new log.
    @ivar died: bytes of segments to which nothing refers any more, in all since the start.
    """

    _log = Logger()

    def __init__(
        self, path: Path, database: Path, database_access: DatabaseAccess, segment_bytes: int,
        separate_from: Optional[int],
    ) -> None:  # fmt: skip
        """
        @param path: the directory of the segments.
        @param database: the directory of the database.
        @param segment_bytes: as for L{Segments}.
        @param separate_from: as for L{darner.store.leveldb.LevelStore}.
        """
        self.segments = Segments(path, segment_bytes)
        self.held = False
        self.died = 0
        self._separate_from = separate_from
        self._dying: list[tuple[Segment, int]] = []
        self._access = database_access
        self._hot = Appender(self.segments)
        self._database = database
        self._current = database / "none.log"
        self._buffer = 0
        self._before = 0
        self._crowded = False
        self._synced_at = 0
        self._written: list[Reference] = []
        self._notes: list[Write] = []
        self._thread: Optional[threading.Thread] = None

    # The log

    def opened(self, buffer: int) -> None:
        """The database was opened, and has begun a new log.  @param buffer: its write buffer, in bytes."""
        self._buffer = buffer
        self.new_log()

    def newest_log(self) -> Path:
        """@return: the log to which LevelDB writes."""
        return max(logs(self._database).items(), default=(0, self._current))[1]

    def new_log(self) -> None:
        """LevelDB has begun a new log.  No other thread writes."""
        self._current = self.newest_log()
        self._synced_at = 0
        self._crowded = False

    def begin_log(self, compact: Callable[[], object], writing: threading.Lock) -> None:
        """
        Have LevelDB begin a new log and compact.  What was written to the old log goes to a table.

        @param compact: does that.
        @param writing: the lock of all who write.
        """
        with writing:
            self.held = True
        try:
            self.sync()
            compaction = Work(compact)
            with writing:
                log = self.newest_log()
                compaction.start()
                while compaction.is_alive() and self.newest_log() == log:
                    compaction.join(_SOON)
                self.new_log()
        finally:
            self.held = False
        compaction.join()
        if compaction.error is not None:
            raise compaction.error

    def _length(self) -> int:
        try:
            return os.stat(self._current).st_size
        except FileNotFoundError:  # its contents are in a table by now
            self.new_log()
            return os.stat(self._current).st_size

    # Writing

    def separate(
        self, writes: Sequence[Write], large: bool, sync: bool, apart: Sequence[bytes], more: Optional[Bytes]
    ) -> Sequence[Write]:
        """
        Write the large payloads of a batch to segments, and what must be so to stable storage.  No other thread writes.

        @param large: whether the batch may have large payloads.
        @param sync: whether it is going to be synced.
        @param apart: the keys that it deletes whose values may be in segments.
        @param more: the bytes of segments to which nothing refers afterwards, beside these.
        @return: what to write to the database.
        @raise StoreError: this is not possible.  The database does not refer to anything that was written.
        """
        try:
            before = self._before = self._length()
            self._crowded = before * DENSITY >= self._buffer
            if large and self._separate_from is not None and not (self._crowded or self.held):
                try:
                    writes = self._to_segments(writes)
                except OSError as error:
                    # Clients may use up all descriptors.  The database has its files open, so it can take this.
                    if error.errno not in (errno.EMFILE, errno.ENFILE):
                        raise
            if self.segments.dirty:
                if sync or self._crowded:
                    self.sync()
                elif before - self._synced_at > self._buffer // (DENSITY * EARLY):
                    self._sync_behind()
        except OSError as error:
            self.refused()
            raise StoreError(f"cannot write: {os.strerror(error.errno or 0)}") from error
        self._dying = self._dead(apart, more or {})
        if large or sync or self._dying:
            return [*self._take_notes(), *self._counts(), *writes]
        return writes

    def _dead(self, keys: Sequence[bytes], more: Bytes) -> list[tuple[Segment, int]]:
        """@return: the bytes of segments to which nothing refers when these keys are deleted, and C{more}."""
        dead = dict(more)
        for key in dict.fromkeys(keys):
            try:
                value = self._access.get(key)
            except Exception:  # LevelDB's; it is deleted all the same
                self.segments.all_miscounted()
                continue
            reference = None if value is None else references.reference_of(key, value)
            if reference is not None:
                dead[reference.segment] = dead.get(reference.segment, 0) + reference.length
        known = self.segments.by_number
        return [(known[number], size) for number, size in dead.items() if number in known]

    def _counts(self) -> list[Write]:
        return [
            (references.segment_key(segment.number), records.pack_u64(segment.dead + size))
            for segment, size in self._dying
        ]

    def _to_segments(self, writes: Sequence[Write]) -> list[Write]:
        least = self._separate_from or 0
        separated: list[Write] = []
        large: list[tuple[bytes, bytes]] = []
        places: list[int] = []
        for key, value in writes:
            if value is not None and len(value) >= least and references.is_separable(key, value):
                places.append(len(separated))
                large.append((references.separate_key(key), value))
            separated.append((key, value))
        if large:
            self._written = self._hot.append(large)
            for place, (key, value), reference in zip(places, large, self._written, strict=True):
                separated[place] = key, references.referring(key, value, reference)
        return separated

    def _take_notes(self) -> list[Write]:
        """@return: what is to be recorded of the segments with the next write."""
        segments = self.segments
        with segments.lock:
            created, segments.created = segments.created, []
            sealed, segments.sealed = segments.sealed, []
            synced, segments.synced = segments.synced, []
            lengths = dict(synced)
            if synced:
                for number, segment in segments.by_number.items():
                    if segment.synced and not segment.sealed:
                        lengths.setdefault(number, segment.synced)
            next_number = segments.next_number
        if created:
            # What a start recognises as the creation: see `darner.store.lost_payloads`.
            self._notes.append((references.SEGMENTS_KEY, records.pack_u64(next_number)))
        for segment in created:
            self._notes.append((references.segment_key(segment.number), records.pack_u64(segment.dead)))
        for segment in sealed:
            # Where it is not recorded, the next start counts what is needed.
            size = records.pack_u64(segment.size) if segment.known else None
            self._notes.append((references.size_key(segment.number), size))
        if lengths:
            self._notes.append((references.SYNCED_KEY, references.pack_synced(lengths.items())))
        return self._notes

    def written(self) -> None:
        """The database has written what L{separate} returned."""
        self._written = []
        self._notes = []
        for segment, size in self._dying:
            segment.dead += size
            self.died += size
        self._dying = []
        if self._crowded and self._length() == self._before:
            self.new_log()

    def refused(self) -> None:
        """The database has not written what L{separate} returned."""
        self._hot.give_up(self._written)
        self._written = []
        # It is not certain whether this was written.
        for segment, _ in self._dying:
            self.segments.miscounted(segment)
        self._dying = []

    def seal_idle(self) -> None:
        """Append nothing more to a segment of which nothing is needed.  No other thread writes."""
        segment = self._hot.segment
        if segment is not None and segment.live <= 0:
            self._hot.seal()

    def seal(self) -> None:
        """Append nothing more.  No other thread writes."""
        self._hot.seal()

    # Stable storage

    def sync(self, without: frozenset[int] = frozenset()) -> None:
        """
        Write the payloads to stable storage.

        @param without: segments that need not be.
        @raise OSError: they cannot be written.
        """
        self._synced_at = self._before
        self.segments.sync(without)

    def _sync_behind(self) -> None:
        self._synced_at = self._before
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._sync_and_record, name="darner payloads", daemon=True)
            self._thread.start()

    def _sync_and_record(self) -> None:
        # What fails is tried again when it is needed, and reported then.
        with contextlib.suppress(OSError, StoreError):
            self.sync()
            self._access.write([], large=True)

    # Reading

    def find(self, key: bytes, value: bytes) -> Optional[bytes]:
        """
        @param key: of a record that refers to a segment.
        @param value: its value when it was read.
        @return: what it refers to; C{None} if the record was deleted meanwhile.
        @raise BadFile: that is damaged.
        """
        for _ in range(ATTEMPTS):
            reference = references.reference_of(key, value)
            if reference is None:
                break
            try:
                return self.segments.read(reference, key)
            except FileNotFoundError:
                now = self._access.get(key)  # its segment may have been deleted, after the payload was moved
                if now is None:
                    return None
                value = now
        raise BadFile(f"{self.segments.path.name}: a segment is missing")

    def close(self) -> None:
        """Close all files.  Nobody writes any more.  Idempotent."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._hot.seal()
        self.segments.close()
