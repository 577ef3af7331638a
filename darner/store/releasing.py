"""
Disk space of segments: deleting those of which nothing is needed, and moving the rest out of those of which little is.

All of it runs in one worker thread at a time, with the reclaimer's steps.  A segment that is deleted must not be missed
after a loss of power, which may undo what was written last.  So the order is: the payloads that are still needed are on
stable storage; the database has recorded that the segment is gone; that is on stable storage, and with it that all of
the segment was consumed; and then the file is deleted.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, Optional

from twisted.logger import Logger

from darner.store import records, references
from darner.store.batch import Write
from darner.store.database import Database
from darner.store.files.segment import SegmentFile
from darner.store.payloads import Bytes
from darner.store.references import Reference
from darner.store.segments import Appender, Segment

AT_ONCE: Final = 2
"""Segments' worth of bytes that are deleted together, as that takes an fsync."""
SPARE: Final = 3
"""Segments' worth of bytes that segments may have beyond twice of what is needed of them."""
LOOK: Final = 0.5
"""After so many segments' worth of bytes were consumed it is worth looking."""
STEP: Final = 256
"""Records that are moved with one write."""

_Moved = tuple[bytes, bytes, Reference, Reference]
"""Key and value of a record, and what it refers to before and after the move."""


class Then:
    """What was known of a segment at a moment: see L{Segment}."""

    dead = live = doubts = 0

    def be(self, segment: Segment) -> None:
        self.dead, self.live, self.doubts = segment.dead, segment.live, segment.doubts


class Releasing:
    """
    What gives the disk space of segments back.

    @ivar behind: whether so much waits to be given back that nothing large should be put now.
    """

    _log = Logger()

    def __init__(self, database: Database) -> None:
        self._database = database
        self._payloads = database.payloads
        self._segments = database.payloads.segments
        self._cold = Appender(self._segments, True)
        self._spare = SPARE * self._segments.segment_bytes
        self._seen = 0  # how much had died when this was looked at last
        self.behind = False

    def remove_strays(self) -> None:
        """Delete the files of segments to which the database does not refer, once the start has succeeded."""
        strays, self._segments.strays = self._segments.strays, []
        for number in strays:
            with contextlib.suppress(OSError):
                self._segments.remove(number)

    def _all(self) -> list[Segment]:
        with self._segments.lock:
            return list(self._segments.by_number.values())

    def _excess(self) -> int:
        """@return: bytes that segments have beyond what they may."""
        segments = self._all()
        return sum(segment.size for segment in segments) - 2 * sum(segment.live for segment in segments) - self._spare

    def _empty(self) -> list[Segment]:
        return [segment for segment in self._all() if segment.sealed and segment.live <= 0]

    def _sparsest(self) -> Optional[Segment]:
        """@return: the segment to move, if one is worth it."""
        movable = [segment for segment in self._all() if segment.sealed and segment.live > 0 and not segment.damaged]
        best = max(movable, key=lambda segment: segment.dead / segment.size, default=None)
        return best if best is not None and 2 * best.dead >= best.size else None

    @property
    def wanted(self) -> bool:
        """Whether there is disk space to give back."""
        return any(
            segment.live <= 0 or not (segment.known or segment.damaged) for segment in self._all()
        ) or self._sparsest() is not None

    # Doing it

    def step(self, wanted: Callable[[], bool] = lambda: True) -> None:
        """
        Give back what is worth it by now.  In a worker thread.

        @param wanted: as for L{all}.
        @raise OSError: not possible now.
        @raise darner.errors.StoreError: also this.
        """
        died = self._payloads.died
        moves = int((died - self._seen) / (LOOK * self._segments.segment_bytes))
        if not moves:
            return
        self._seen = died
        self._release(AT_ONCE * self._segments.segment_bytes)
        while moves and wanted() and self._excess() > 0:
            segment = self._sparsest()
            if segment is None or not self._move(segment):
                break
            moves -= 1
        self.behind = self._excess() > self._spare

    def all(self, wanted: Callable[[], bool]) -> None:
        """As L{step}, all there is, also what a busy server may leave, until C{wanted} returns false."""
        self.behind = False
        for segment in self._all():
            if segment.sealed and segment.live > 0 and not (segment.known or segment.damaged) and wanted():
                self._move(segment, False)
        while wanted():
            sparse = self._sparsest()
            if sparse is None or not self._move(sparse):
                break
        cold = self._cold.segment
        if cold is not None and cold.live <= 0:
            self._cold.seal()
        self._database.write_if(self._seal_idle)
        self._release(0)

    def _seal_idle(self) -> tuple[Sequence[Write], Bytes]:
        self._payloads.seal_idle()
        return [], {}

    def _release(self, least: int) -> None:
        empty = self._empty()
        if not empty or sum(segment.size for segment in empty) < least:
            return
        numbers = frozenset(segment.number for segment in empty)
        database = self._database
        # A start may truncate the log before the record that they are gone, where a turn puts a payload meanwhile.  It
        # has to know then that nothing of them is needed.
        known: list[Write] = []
        for segment in empty:
            known.append((references.segment_key(segment.number), records.pack_u64(segment.dead)))
            known.append((references.size_key(segment.number), records.pack_u64(segment.size)))
        database.write(known, large=True)
        self._payloads.sync(numbers)
        database.write([(make(number), None) for number in sorted(numbers) for make in _KEYS], large=True)
        database.directory.sync_logs()
        for number in numbers:
            self._segments.remove(number)

    def _move(self, segment: Segment, needed: bool = True) -> bool:
        """
        Copy what is still needed of a segment to another one.

        @param needed: whether to do that where most of it is needed, or just to count.
        @return: whether that could be done.
        """
        self._database.require_whole()
        file = SegmentFile(self._segments.path_of(segment.number))
        then = Then()
        with self._database.snapshot(lambda: then.be(segment)) as snapshot:
            found = self._find(segment, file, snapshot)
        live = sum(reference.length for _, _, reference in found)
        # Where the process ended, a write may have been cut short.
        if file.end < (segment.synced if then.doubts else segment.size):
            self._log.critical(
                "{file} is damaged at {at} and stays as it is.  To repair the store, stop the server and start it with "
                "--repair",
                file=str(file.path), at=file.end,
            )  # fmt: skip
            segment.damaged = True
            return False
        if live != then.live or then.doubts:
            if not then.doubts and segment.number >= self._segments.first_number:
                return False  # the database is still to be told of some
            # A process that was killed has not synced what nothing refers to, nor has a write that failed.
            self._segments.sync_one(segment)
            self._database.write_if(lambda: self._count(segment, then, file.end, live))
        if needed or 2 * segment.dead >= segment.size:
            self._copy(segment, found)
        return True

    def _find(self, segment: Segment, file: SegmentFile, snapshot: Any) -> list[tuple[bytes, bytes, Reference]]:
        """@return: key and value of each record of the database that refers to a segment, and what it refers to."""
        found: list[tuple[bytes, bytes, Reference]] = []
        for key, offset, record in file.records():
            reference = Reference(segment.number, offset, len(record))
            value = snapshot.get(key, verify_checksums=True)
            if value is not None and references.reference_of(key, value) == reference:
                found.append((key, value, reference))
        return found

    def _count(self, segment: Segment, then: Then, size: int, live: int) -> tuple[Sequence[Write], Bytes]:
        """@param live: how much was needed C{then}.  What died since is known."""
        segment.dead += size - live - then.dead
        self._doubt(segment.number, -then.doubts)
        segment.size = size
        writes: list[Write] = [(references.segment_key(segment.number), records.pack_u64(segment.dead))]
        if segment.known:
            writes.append((references.size_key(segment.number), records.pack_u64(size)))
        return writes, {}

    def _copy(self, segment: Segment, found: Sequence[tuple[bytes, bytes, Reference]]) -> None:
        moved: list[_Moved] = []
        copies: set[int] = set()
        try:
            for key, value, old in found:
                (new,) = self._cold.append([(key, self._segments.read(old, key))])
                moved.append((key, value, old, new))
                # Until the database refers to all of them.
                if new.segment not in copies:
                    copies.add(new.segment)
                    self._doubt(new.segment, 1)
            self._refer(segment, moved, copies)
            for number in copies:
                self._doubt(number, -1)
        except BaseException:
            self._cold.give_up(new for _, _, _, new in moved)
            raise

    def _doubt(self, number: int, more: int) -> None:
        with self._segments.lock:
            self._segments.by_number[number].doubts += more

    def _refer(self, segment: Segment, moved: Sequence[_Moved], copies: AbstractSet[int]) -> None:
        """Have the database refer to the copies, which are in these segments."""
        # So that it does not matter when LevelDB writes what refers to them to a table.
        with self._segments.lock:
            others = frozenset(self._segments.dirty.keys() - copies)
        self._payloads.sync(others)
        for start in range(0, len(moved), STEP):
            self._database.write_if(functools.partial(self._changes, segment, moved[start : start + STEP]))

    def _changes(self, segment: Segment, moved: Sequence[_Moved]) -> tuple[Sequence[Write], Bytes]:
        more = {segment.number: 0}
        changed: list[Write] = []
        for key, value, old, new in moved:
            if self._database.get(key) == value:
                changed.append((key, references.moved(value, new)))
                more[segment.number] += old.length
            else:  # it was deleted meanwhile
                more[new.segment] = more.get(new.segment, 0) + new.length
        return changed, more

    def close(self) -> None:
        """Append nothing more."""
        self._cold.seal()


_KEYS: Final = (references.segment_key, references.size_key)
