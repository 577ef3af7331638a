"""
What is written to LevelDB together: the changes of a turn, and what a step of reclaiming deletes.

Both are lists of keys (`darner.store.records`), and know no database.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Optional

from zope.interface import classImplements

from darner.store import records
from darner.store.interfaces import IBatch
from darner.values.items import Delayed, Generation, Item, Mark
from darner.values.vocabulary import chunk_count


class LevelBatch:
    """
    A batch as the list of the keys it writes; C{None} in place of a value deletes.

    @ivar puts: whether it adds something, and not only takes away.
    """

    def __init__(self) -> None:
        self.writes: list[tuple[bytes, Optional[bytes]]] = []
        self.puts = False

    @property
    def empty(self) -> bool:
        return not self.writes

    def create(self, name: bytes, number: int, created: int) -> None:
        self.puts = True
        self.writes += (
            (records.name_key(name), records.pack_name(number, created)),
            (records.mark_key(number), records.pack_mark(Mark())),
            (records.intervals_end_key(number), b""),
            (records.end_key(number), b""),
        )

    def remove(self, name: bytes, number: int) -> None:
        self.writes += ((records.name_key(name), None), (records.deleted_key(number), b""))

    def discard(self, number: int) -> None:
        self.writes.append((records.deleted_key(number), b""))

    def put(self, number: int, items: Sequence[Item], bytes_put: int) -> None:
        self.puts = True
        for last, value in records.runs(items, bytes_put):
            self.writes.append((records.run_key(number, last), value))
        for item in items:
            if item.stream:
                self.writes.append((records.unheld_key(item.stream), None))

    def share(self, stream: int, number: int, id: int) -> None:
        self.writes.append((records.holder_key(stream, number, id), b""))

    def mark(self, number: int, mark: Mark) -> None:
        self.writes.append((records.mark_key(number), records.pack_mark(mark)))

    def consume(self, number: int, changes: Sequence[tuple[int, int]]) -> None:
        for start, stop in changes:
            value = records.pack_u64(stop) if stop > start else None
            self.writes.append((records.interval_key(number, start), value))

    def attempts(self, number: int, changes: Sequence[tuple[int, int]]) -> None:
        for id, count in changes:
            self.writes.append((records.attempts_key(number, id), records.pack_u32(count) if count else None))

    def delayed(self, number: int, delayed: Optional[Delayed]) -> None:
        self.writes.append((records.delayed_key(number), delayed and records.pack_delayed(delayed)))

    def delay(self, number: int, items: Sequence[tuple[int, Item]]) -> None:
        self.puts = True
        self.writes.append((records.end_key(number), b""))
        for due, item in items:
            ((_, value),) = records.runs([item], 0)
            self.writes.append((records.due_key(number, due, item.id), value))
            if item.stream:
                self.writes.append((records.unheld_key(item.stream), None))

    def due(self, number: int, items: Sequence[tuple[int, Item]]) -> None:
        for due, item in items:
            self.writes.append((records.due_key(number, due, item.id), None))
            if item.stream:
                self.writes.append((records.holder_key(item.stream, number, item.id), None))

    def generations(self, number: int, current: Optional[Generation], previous: Optional[Generation]) -> None:
        value = records.pack_generations(current, previous)
        self.writes.append((records.generations_key(number), value or None))
        if current is not None:
            self.writes.append((records.end_key(current.number), b""))

    def seen(self, generation: int, id: bytes, time: int) -> None:
        self.writes.append((records.seen_key(generation, id), records.pack_u64(time) if time else None))

    def undelay(self, number: int, items: Sequence[tuple[int, Item]]) -> None:
        self.due(number, items)
        for _, item in items:
            if item.stream:
                count = chunk_count(item.size)
                self.writes.append((records.unheld_key(item.stream), records.pack_u64(count)))

    def chunk(self, stream: int, index: int, data: bytes) -> None:
        self.puts = True
        if index == 0:
            self.writes.append((records.unheld_key(stream), b""))
        self.writes.append((records.chunk_key(stream, index), data))


classImplements(LevelBatch, IBatch)


class Deletion:
    """What one step of reclaiming deletes."""

    def __init__(self, iterator: Callable[..., Any]) -> None:
        """@param iterator: gives an iterator of the database's."""
        self._iterator = iterator
        self.writes: list[tuple[bytes, Optional[bytes]]] = []
        self.streams: list[int] = []
        self._let_go: set[bytes] = set()
        self.ranges: dict[bytes, tuple[bytes, bytes]] = {}
        self.count = 0
        self.freed = 0

    def key(self, key: bytes, size: int) -> None:
        self.writes.append((key, None))
        self.count += 1
        self.freed += len(key) + size
        kind = records.neighbourhood(key)
        low, high = self.ranges.get(kind, (key, key))
        self.ranges[kind] = (min(low, key), max(high, key))

    def run(self, key: bytes, value: bytes) -> None:
        """Delete a run; where it is a large item, and the last to hold its stream, nobody does from then on."""
        self.key(key, len(value))
        stream, chunks = records.run_stream(value)
        if stream and not self._is_held(stream, records.holder_key(stream, *records.run_place(key))):
            self.writes.append((records.unheld_key(stream), records.pack_u64(chunks)))
            self.streams.append(stream)

    def _is_held(self, stream: int, holder: bytes) -> bool:
        """@return: whether others than this holder, which lets go of it, hold a stream."""
        prefix = records.holders_prefix(stream)
        with self._iterator(prefix=prefix, include_value=False) as keys:
            holders = set(keys)
        if holder in holders:
            self.key(holder, 0)
            self._let_go.add(holder)
        return bool(holders - self._let_go)
