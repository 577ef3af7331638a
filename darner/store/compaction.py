"""
Where keys were deleted, so that LevelDB gives their disk space back to the file system.

LevelDB only does so when it merges the tables there, and of itself may never come to it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

from darner.store import records
from darner.store.batch import Write
from darner.store.database import Database


class Compaction:
    """
    The ranges of keys that are to be compacted.  They are recorded in the store as well, for the next process.

    @ivar ranges: the first and the last key of each, by L{records.neighbourhood}.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.ranges = {key[1:]: records.unpack_bounds(value) for key, value in database.prefixed(records.UNCOMPACTED)}

    def write(self, writes: Sequence[Write], deleted: Mapping[bytes, tuple[bytes, bytes]]) -> None:
        """
        Write, and record with that where keys are deleted.

        @param deleted: as L{ranges}.
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
        """Compact where keys were deleted since the last time; in a damaged store that is left alone."""
        database = self._database
        if database.damage:
            return
        for kind, (low, high) in list(self.ranges.items()):
            if not wanted():
                return
            database.in_thread(functools.partial(database.compact_range, low, high + b"\0"))
            if records.is_run(low):
                # Where the attempts of items that are gone lay.
                number, _ = records.run_place(low)
                bounds = records.intervals_end_key(number), records.delayed_key(number)
                database.in_thread(functools.partial(database.compact_range, *bounds))
            database.in_thread(functools.partial(database.write, [(records.uncompacted_key(kind), None)]))
            del self.ranges[kind]
        database.page_out()
