"""
The bounded steps of the reclaimer, which deletes consumed items, deleted queues, and streams that no item holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Optional, Protocol

from darner.store import records, references
from darner.store.batch import Write
from darner.store.database import Database
from darner.store.releasing import Releasing
from darner.values.items import Step
from darner.values.vocabulary import CHUNK_BYTES


class Deletions(Protocol):
    """What takes the deletions of a step, as L{darner.store.compaction.Compaction} does."""

    def write(
        self, writes: Sequence[Write], deleted: Mapping[bytes, tuple[bytes, bytes]], apart: Sequence[bytes] = ()
    ) -> None:
        """
        @param deleted: the first and the last deleted key of each L{records.neighbourhood}.
        @param apart: as for L{Database.write}.
        """


class Reclaiming:
    """The steps of reclaiming.  Each deletes in one batch, and may run in a worker thread."""

    def __init__(self, database: Database, deletions: Deletions, releasing: Releasing) -> None:
        self._database = database
        self._deletions = deletions
        self._releasing = releasing

    def runs(self, number: int, start: int, stop: int, next_id: int, limit: int) -> Step:
        """As L{darner.store.interfaces.IReclaiming.reclaim}."""
        self._releasing.step()
        deletion = Deletion(self._database)
        with self._database.iterator(
            start=records.run_key(number, next_id), stop=records.run_key(number, stop)
        ) as entries:
            for key, value in entries:
                if deletion.count >= limit:
                    return self._delete(deletion, records.key_number(key))
                first = records.key_number(key) - records.run_head(value)[1] + 1
                if first >= start:
                    deletion.run(key, value)
        return self._delete(deletion)

    def queue(self, number: int, next_id: int, limit: int) -> Step:
        """As L{darner.store.interfaces.IReclaiming.reclaim_queue}."""
        self._releasing.step()
        deletion = Deletion(self._database)
        start = records.key_at(number, next_id)
        with self._database.iterator(start=start, stop=records.end_key(number)) as entries:
            for key, value in entries:
                if deletion.count >= limit:
                    return self._delete(deletion, records.place_of(key))
                if records.is_run(key) or records.is_delayed(key):
                    deletion.run(key, value)
                else:
                    deletion.key(key, len(value))
        deletion.key(records.end_key(number), 0)
        deletion.key(records.deleted_key(number), 0)
        return self._delete(deletion)

    def stream(self, stream: int, next_index: int, limit: int) -> Step:
        """As L{darner.store.interfaces.IReclaiming.reclaim_stream}."""
        self._releasing.step()
        unheld = self._database.get(records.unheld_key(stream))
        if unheld is None:
            return Step()  # already reclaimed
        with self._database.iterator(prefix=records.holders_prefix(stream), include_value=False) as keys:
            if next(keys, None) is not None:
                self._deletions.write([(records.unheld_key(stream), None)], {})
                return Step()
        count = records.unpack_u64(unheld) if unheld else self._count_chunks(stream)
        deletion = Deletion(self._database)
        stop = min(count, next_index + limit)
        for index in range(next_index, stop):
            key = references.chunk_key(stream, index)
            value = self._database.get(key)
            if value is not None:
                deletion.value(key, value)
            else:
                deletion.key(records.chunk_key(stream, index), CHUNK_BYTES)
        if stop < count:
            return self._delete(deletion, stop)
        deletion.key(records.unheld_key(stream), 0)
        return self._delete(deletion)

    def _count_chunks(self, stream: int) -> int:
        last = self._database.last(records.chunk_key(stream, 0), records.chunk_key(stream + 1, 0))
        return 0 if last is None else records.chunk_index(last[0]) + 1

    def _delete(self, deletion: Deletion, next_id: Optional[int] = None) -> Step:
        if deletion.writes:
            self._deletions.write(deletion.writes, deletion.ranges, deletion.apart)
        return Step(next_id, deletion.freed, tuple(deletion.streams))


class Deletion:
    """
    The deletions of one step.

    @ivar writes: the keys to delete, and the records of streams that no item holds afterwards.
    @ivar ranges: the first and the last key of each L{records.neighbourhood}.
    @ivar streams: the streams that no item holds afterwards.
    @ivar apart: those of the keys whose values are in segments.
    @ivar count: the number of deleted keys.
    @ivar freed: bytes of keys and values.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.writes: list[Write] = []
        self.streams: list[int] = []
        self._released: set[bytes] = set()
        self.ranges: dict[bytes, tuple[bytes, bytes]] = {}
        self.apart: list[bytes] = []
        self.count = 0
        self.freed = 0

    def key(self, key: bytes, size: int) -> None:
        """Delete a key whose value has C{size} bytes."""
        self.writes.append((key, None))
        self.count += 1
        self.freed += len(key) + size
        kind = records.neighbourhood(key)
        low, high = self.ranges.get(kind, (key, key))
        self.ranges[kind] = (min(low, key), max(high, key))

    def value(self, key: bytes, value: bytes) -> None:
        """Delete a key, and what its value refers to."""
        self.key(key, len(value))
        reference = references.reference_of(key, value)
        if reference is not None:
            self.apart.append(key)
            self.freed += reference.length

    def run(self, key: bytes, value: bytes) -> None:
        """Delete a run.  If it is a large item and the last holder of its stream, record the stream as unheld."""
        self.value(key, value)
        stream, chunks = records.run_stream(value)
        if stream and not self._is_held(stream, records.holder_key(stream, *records.run_place(key))):
            self.writes.append((records.unheld_key(stream), records.pack_u64(chunks)))
            self.streams.append(stream)

    def _is_held(self, stream: int, holder: bytes) -> bool:
        """Release a holder of a stream.  @return: whether other holders remain."""
        prefix = records.holders_prefix(stream)
        with self._database.iterator(prefix=prefix, include_value=False) as keys:
            holders = set(keys)
        if holder in holders:
            self.key(holder, 0)
            self._released.add(holder)
        return bool(holders - self._released)
