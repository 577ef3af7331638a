"""
Compaction of the ranges where keys were deleted, so that the file system gets their disk space back.

LevelDB frees it only when it merges the tables there.  It merges its newest tables unasked, but not the older ones that
have become garbage.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from darner.store import records
from darner.store.batch import Batch, Write
from darner.store.database import Database

Bounds = tuple[bytes, bytes]

GARBAGE: Final = 32 * 1024 * 1024
"""Bytes of deleted records in the older tables that are left there while the server is busy."""
GAP: Final = 256 * 1024
"""Bytes between two ranges that are merged with them: less than it costs to begin another merge."""


class Compaction:
    """
    The ranges of keys to compact.  The store records them for the next process.

    @ivar ranges: the first and the last key of each range, by L{records.neighbourhood}.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self.ranges = {
            key[1:]: self._clipped(*records.unpack_bounds(value))
            for key, value in database.prefixed(records.UNCOMPACTED)
        }

    def _clipped(self, low: bytes, high: bytes) -> Bounds:
        """@return: the range without the items of a queue that nobody has consumed."""
        number = records.queue_number(low) if records.is_run(low) else 0
        if high != records.mark_key(number):
            return low, high
        mark = self._database.get(high)
        if mark is None:
            return low, high
        stop = records.unpack_mark(mark).low
        last = self._database.last(records.interval_key(number, stop), records.intervals_end_key(number))
        return low, records.run_key(number, stop if last is None else max(stop, records.unpack_u64(last[1])))

    def reclaimed(self, batch: Batch) -> None:
        """
        Record the ranges of runs that a batch deletes.  The records are in the batch.

        One record serves until the range is compacted: it names all runs of the queue, and the next process finds out
        how far they were deleted.
        """
        for number, first, last in batch.reclaimed:
            low, high = records.run_key(number, first), records.run_key(number, last)
            kind = records.neighbourhood(low)
            known = self.ranges.get(kind)
            if known is None:
                # While this is locked, L{_compacted} is not about to delete the record.
                with self._lock:
                    self.ranges[kind] = low, high
                bounds = records.pack_bounds(records.run_key(number, 0), records.mark_key(number))
                batch.writes.append((records.uncompacted_key(kind), bounds))
            else:
                self.ranges[kind] = min(low, known[0]), max(high, known[1])

    def write(
        self, writes: Sequence[Write], deleted: Mapping[bytes, Bounds], apart: Sequence[bytes] = ()
    ) -> None:
        """
        Write, and in the same batch record the ranges of deleted keys.

        @param deleted: as C{ranges}.
        @param apart: as for L{Database.write}.
        """
        grown = {}
        noted: list[Write] = []
        for kind, (low, high) in deleted.items():
            known = self.ranges.get(kind, (low, high))
            grown[kind] = (min(low, known[0]), max(high, known[1]))
            if grown[kind] != self.ranges.get(kind):
                noted.append((records.uncompacted_key(kind), records.pack_bounds(*grown[kind])))
        if writes or noted:
            self._database.write([*writes, *noted], False, False, apart)
        self.ranges.update(grown)

    # Compacting

    def run(self, wanted: Callable[[], bool], all: bool = True) -> None:
        """
        Compact the ranges.  A damaged store is not compacted.

        @param all: whether all of them; else those with the most garbage, while there is much.
        """
        database = self._database
        if database.damage:
            return
        groups = [(self._size(low, high), low, high, kinds) for low, high, kinds in self._groups()]
        garbage = sum(group[0] for group in groups) - database.in_thread(database.newest_bytes)
        for size, low, high, kinds in sorted(groups, reverse=True):
            if not wanted() or not (all or garbage > GARBAGE):
                break
            self._compact(low, high, kinds)
            garbage -= size
        database.page_out()

    def _size(self, low: bytes, high: bytes) -> int:
        """@return: about how many bytes of LevelDB's tables are between two keys."""
        size: int = self._database.in_thread(lambda: self._database.opened().approximate_size(low, high + b"\0"))
        return size

    def _groups(self) -> list[tuple[bytes, bytes, list[bytes]]]:
        """@return: the ranges in their order, those that are close to one another together."""
        groups: list[tuple[bytes, bytes, list[bytes]]] = []
        for kind, (low, high) in sorted(self.ranges.items(), key=lambda item: item[1]):
            if groups:
                first, last, kinds = groups[-1]
                if low <= last or self._size(last, low) <= GAP:
                    groups[-1] = first, max(last, high), [*kinds, kind]
                    continue
            groups.append((low, high, [kind]))
        return groups

    def _compact(self, low: bytes, high: bytes, kinds: Sequence[bytes]) -> None:
        database = self._database
        with self._lock:
            taken = {kind: self.ranges.pop(kind) for kind in kinds}
        try:
            database.in_thread(functools.partial(database.compact_range, low, high + b"\0"))
            if records.is_run(high):
                # The attempts of deleted items.
                number, _ = records.run_place(high)
                bounds = records.intervals_end_key(number), records.delayed_key(number)
                if self._size(*bounds) > GAP:
                    database.in_thread(functools.partial(database.compact_range, *bounds))
            with self._lock:
                done: list[Write] = [
                    (records.uncompacted_key(kind), None) for kind in kinds if kind not in self.ranges
                ]
                if done:
                    database.in_thread(functools.partial(database.write, done))
        except BaseException:
            for kind, (low, high) in taken.items():
                known = self.ranges.get(kind, (low, high))
                self.ranges[kind] = min(low, known[0]), max(high, known[1])
            raise
