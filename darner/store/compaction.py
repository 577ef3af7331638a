"""
Compaction of the ranges where keys were deleted, so that the file system gets their disk space back.

LevelDB frees it only when it merges the tables there, and may never do that unasked.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

from darner.store import records
from darner.store.batch import Write
from darner.store.database import Database


class Compaction:
    """
    The ranges of keys to compact.  The store records them for the next process.

    @ivar ranges: the first and the last key of each range, by L{records.neighbourhood}.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.ranges = {key[1:]: records.unpack_bounds(value) for key, value in database.prefixed(records.UNCOMPACTED)}

    def write(self, writes: Sequence[Write], deleted: Mapping[bytes, tuple[bytes, bytes]]) -> None:
        """
        Write, and in the same batch record the ranges of deleted keys.

        @param deleted: as C{ranges}.
        """
        grown = {}
        noted: list[Write] = []
        for kind, (low, high) in deleted.items():
            known = self.ranges.get(kind, (low, high))
            grown[kind] = (min(low, known[0]), max(high, known[1]))
            if grown[kind] != self.ranges.get(kind):
                noted.append((records.uncompacted_key(kind), records.pack_bounds(*grown[kind])))
        if writes or noted:
            self._database.write([*writes, *noted])
        self.ranges.update(grown)

    def run(self, wanted: Callable[[], bool]) -> None:
        """Compact all ranges.  A damaged store is not compacted."""
        database = self._database
        if database.damage:
            return
        for kind, (low, high) in list(self.ranges.items()):
            if not wanted():
                return
            database.in_thread(functools.partial(database.compact_range, low, high + b"\0"))
            if records.is_run(low):
                # The attempts of deleted items.
                number, _ = records.run_place(low)
                bounds = records.intervals_end_key(number), records.delayed_key(number)
                database.in_thread(functools.partial(database.compact_range, *bounds))
            database.in_thread(functools.partial(database.write, [(records.uncompacted_key(kind), None)]))
            del self.ranges[kind]
        database.page_out()
