"""
The segments of a data directory: files to which large payloads are appended, and which are deleted as a whole.

This module knows files only.  `darner.store.payloads` decides what is written to them, and `darner.store.releasing`
which are deleted.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Optional

from darner.store.directory import sync
from darner.store.files import segment as files
from darner.store.files.damage import BadFile, Damage
from darner.store.references import Reference

SEGMENT_BYTES: Final = 16 * 1024 * 1024
"""The size of a segment, but in tests."""
_AT_ONCE: Final = 1024 * 1024
OPEN_FILES: Final = 32
"""Segments that are kept open for reading."""


class Segment:
    """
    A segment.

    @ivar size: its length in bytes.
    @ivar dead: how many of them nothing refers to any more, the head of the file included.
    @ivar synced: how many of them are on stable storage.
    @ivar sealed: whether nothing is appended to it any more.
    @ivar doubts: how many reasons there are that C{dead} may be too small: a failed write, or that a process ended.
    @ivar damaged: whether a record cannot be read, so that it must stay.
    @ivar suspect: whether it could not be synced.  The kernel then takes for written what is not.
    """

    __slots__ = ("damaged", "dead", "doubts", "number", "sealed", "size", "suspect", "synced")

    def __init__(self, number: int, size: int, dead: int, sealed: bool, known: bool) -> None:
        self.number = number
        self.size = size
        self.dead = dead
        self.synced = 0
        self.sealed = sealed
        self.doubts = 0 if known else 1
        self.damaged = False
        self.suspect = False

    @property
    def live(self) -> int:
        return self.size - self.dead

    @property
    def known(self) -> bool:
        """Whether C{dead} is exact."""
        return not self.doubts


class Appender:
    """
    Appends records to one segment after another.

    @ivar segment: the segment that the next record goes to; C{None} before the first.
    """

    def __init__(self, segments: Segments, entered: bool = False) -> None:
        """@param entered: whether the entry of a new segment is synced before the database may record it."""
        self._segments = segments
        self._entered = entered
        self.segment: Optional[Segment] = None
        self._file = -1

    def append(self, values: Iterable[tuple[bytes, bytes]]) -> list[Reference]:
        """
        Append records.  They are not synced.

        @param values: keys and values.
        @raise OSError: they cannot be written, and nothing will refer to what was written of them.
        """
        references: list[Reference] = []
        parts: list[bytes] = []
        size = 0
        try:
            for key, value in values:
                if self.segment is None or self.segment.size + size >= self._segments.segment_bytes:
                    self._write(parts, size)
                    parts, size = [], 0
                    self.seal()
                    self._begin()
                assert self.segment is not None
                record = files.pack(key, value)
                references.append(Reference(self.segment.number, self.segment.size + size, len(record)))
                parts.append(record)
                size += len(record)
            self._write(parts, size)
        except OSError:
            self.give_up(references)
            raise
        return references

    def _begin(self) -> None:
        self.segment, self._file = self._segments.create(self._entered)
        self._write([files.MAGIC], len(files.MAGIC))

    def _write(self, parts: Sequence[bytes], size: int) -> None:
        if self.segment is None or not parts:
            return
        data = memoryview(parts[0] if len(parts) == 1 else b"".join(parts))
        with self._segments.lock:
            self._segments.dirty[self.segment.number] = self.segment
            while data:
                data = data[os.write(self._file, data) :]
            self.segment.size += size

    def seal(self) -> Optional[Segment]:
        """Append nothing more to the segment.  @return: it."""
        segment, self.segment = self.segment, None
        if segment is not None:
            segment.sealed = True
            os.close(self._file)
            with self._segments.lock:
                self._segments.sealed.append(segment)
        return segment

    def give_up(self, references: Iterable[Reference] = ()) -> None:
        """Nothing will refer to these records, nor to one that was not written to its end: go on in another segment."""
        for number in {reference.segment for reference in references}:
            self._segments.miscounted(self._segments.by_number[number])
        if self.segment is not None:
            self.segment.doubts += 1
            # Not to keep the space of what was not written to its end; the disk may be full.
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self.segment.size)
            self.seal()


class Segments:
    """
    The segments of a data directory.

    @ivar by_number: all segments.
    @ivar dirty: those that are not wholly on stable storage.
    @ivar sealed: those sealed of late, whose size is still to be recorded; also where it must not be recorded any more.
    @ivar created: those created of late, which are still to be recorded.
    @ivar synced: the segments synced of late and their lengths, which are still to be recorded.
    @ivar strays: the numbers of files that are no segments of this database.
    @ivar first_number: the number of the first segment of this process.
    @ivar lock: guards C{dirty}, C{sealed}, C{created} and the sizes.
    """

    def __init__(self, path: Path, segment_bytes: int) -> None:
        """
        @param path: their directory, which is created with the first of them.
        @param segment_bytes: a segment of this size gets no further records.
        """
        self.path = path
        self.segment_bytes = segment_bytes
        self.by_number: dict[int, Segment] = {}
        self.dirty: dict[int, Segment] = {}
        self.sealed: list[Segment] = []
        self.created: list[Segment] = []
        self.synced: list[tuple[int, int]] = []
        self.lock = threading.Lock()
        self.strays: list[int] = []
        self.next_number = self.first_number = 1
        self._syncing = threading.Lock()
        self._new_entries = False
        self._open: OrderedDict[int, int] = OrderedDict()
        self._reading = threading.Lock()

    def path_of(self, number: int) -> Path:
        return self.path / files.name_of(number)

    def find(self, dead: Mapping[int, int], sizes: Mapping[int, int], next_number: int) -> Optional[Damage]:
        """
        Find the segments that an earlier process left.

        @param dead: by number, what is recorded of each.
        @param sizes: the sizes of those that were sealed.
        @param next_number: a number above all that were ever in use.
        @return: what is missing; C{None} if nothing is.
        """
        there = files.segments(self.path)
        if self.path.exists():
            # A number is used again where the file of that name is deleted for good.
            sync(self.path)
        for number, count in sorted(dead.items()):
            recorded = sizes.get(number)
            path = there.pop(number, None)
            if recorded is not None and count >= recorded:
                # Nothing of it is needed.  It may have been deleted, and a loss of power undid the record of that.
                size = recorded
            elif path is None:
                return self.damage(number, "it is missing")
            else:
                size = path.stat().st_size
                if size < (recorded or 0):
                    return self.damage(number, f"it has {size} bytes and not {recorded}")
            known = recorded is not None
            self.by_number[number] = Segment(number, size if recorded is None else recorded, count, True, known)
        # Nothing in the database refers to the others.
        self.strays = list(there)
        self.next_number = self.first_number = max([next_number - 1, *self.by_number, *self.strays]) + 1
        return None

    def miscounted(self, segment: Segment) -> None:
        """It is not certain any more what of a segment is needed."""
        with self.lock:
            segment.doubts += 1
            if segment.sealed:
                self.sealed.append(segment)

    def all_miscounted(self) -> None:
        with self.lock:
            segments = list(self.by_number.values())
        for segment in segments:
            self.miscounted(segment)

    def damage(self, number: int, reason: str) -> Damage:
        return Damage(f"{self.path.name}/{files.name_of(number)}", reason)

    def create(self, entered: bool = False) -> tuple[Segment, int]:
        """
        @param entered: whether to sync its entry first.  Where another thread writes to the database meanwhile, it may
            promise what it writes together with the record of this segment.
        @return: a new segment, and a descriptor to append to it.
        """
        if not self.path.exists():
            self.path.mkdir(mode=0o700)
            sync(self.path.parent)
        with self.lock:
            number = self.next_number
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            file = os.open(self.path_of(number), flags, 0o600)
            self.next_number += 1
            self._new_entries = True
        if entered:
            try:
                sync(self.path)
            except OSError:
                os.close(file)
                with contextlib.suppress(OSError):
                    self.path_of(number).unlink()
                raise
        with self.lock:
            segment = self.by_number[number] = Segment(number, 0, len(files.MAGIC), False, True)
            self.dirty[number] = segment
            self.created.append(segment)
        return segment, file

    def is_sealed(self, name: str) -> bool:
        """@return: whether this is a segment to which nothing is appended any more."""
        number = files.number_of(name)
        segment = None if number is None else self.by_number.get(number)
        return segment is not None and segment.sealed

    # Stable storage

    def sync(self, without: frozenset[int] = frozenset()) -> None:
        """
        Write all records, and the directory, to stable storage.

        @param without: segments that need not be.
        @raise OSError: a segment cannot be synced.
        """
        with self._syncing:
            with self.lock:
                todo = [(segment, segment.size) for number, segment in self.dirty.items() if number not in without]
                entries, self._new_entries = self._new_entries, False
            try:
                for segment, size in todo:
                    self._sync(segment, size)
                if entries:
                    sync(self.path)
            except OSError:
                self._new_entries = self._new_entries or entries
                raise
            with self.lock:
                for segment, size in todo:
                    segment.synced = size
                    if segment.size == size:
                        self.dirty.pop(segment.number, None)
                # Together with that, as whoever finds nothing dirty may promise something.
                self.synced += [(segment.number, size) for segment, size in todo]

    def sync_one(self, segment: Segment) -> None:
        """
        Write one segment to stable storage, as its size is going to be recorded.

        @raise OSError: it cannot be synced.
        """
        with self._syncing:
            self._sync(segment, segment.size)

    def _sync(self, segment: Segment, size: int) -> None:
        path = self.path_of(segment.number)
        if segment.suspect:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                for at in range(segment.synced, size, _AT_ONCE):
                    os.pwrite(file, os.pread(file, min(_AT_ONCE, size - at), at), at)
            finally:
                os.close(file)
        segment.suspect = True
        sync(path)
        segment.suspect = False

    # Reading

    def read(self, reference: Reference, key: bytes) -> bytes:
        """
        @return: the value that a record of the database refers to.
        @raise BadFile: it is damaged.
        @raise OSError: it cannot be read; C{FileNotFoundError} where the segment is deleted.
        """
        with self._reading:
            file = self._open.get(reference.segment)
            if file is None:
                file = os.open(self.path_of(reference.segment), os.O_RDONLY | os.O_CLOEXEC)
                self._open[reference.segment] = file
                if len(self._open) > OPEN_FILES:
                    os.close(self._open.popitem(last=False)[1])
            else:
                self._open.move_to_end(reference.segment)
            try:
                return files.read(file, reference.offset, reference.length, key)
            except BadFile as error:
                raise BadFile(str(self.damage(reference.segment, str(error)))) from error

    # Deleting

    def remove(self, number: int) -> None:
        """
        Delete a segment.

        @raise OSError: it cannot be deleted.
        """
        with self._reading:
            file = self._open.pop(number, None)
            if file is not None:
                os.close(file)
        # Not while another thread goes through the segments to sync them.
        with self._syncing:
            with contextlib.suppress(FileNotFoundError):
                self.path_of(number).unlink()
            with self.lock:
                self.dirty.pop(number, None)
                self.by_number.pop(number, None)

    def close(self) -> None:
        """Close all files.  Idempotent."""
        with self._reading:
            while self._open:
                os.close(self._open.popitem()[1])
