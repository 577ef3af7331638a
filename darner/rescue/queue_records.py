"""
What the records of a queue, of its delayed items and of the streams of large items say.

This takes memory for each queue, each gap in a queue, and each large item.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import groupby
from struct import error as struct_error
from typing import Optional

from attrs import define, field

from darner.errors import StoreError
from darner.store import records
from darner.values.consumed import Consumed
from darner.values.items import Delayed, Generation, Imported, Item, Mark
from darner.values.vocabulary import CHUNK_BYTES

Entries = Iterable[tuple[bytes, bytes]]
"""Keys and values, in the order of the keys."""


@define
class DelayedRecords:
    """The delayed items under one number."""

    items: int = 0
    bytes: int = 0
    due: int = 0
    next_id: int = 0
    large: list[tuple[int, int]] = field(factory=list)

    def add(self, due: int, item: Item) -> None:
        if not self.items:
            self.due = due
        self.items += 1
        self.bytes += item.size
        self.next_id = max(self.next_id, item.id + 1)
        if item.stream:
            self.large.append((item.id, item.stream))


@define
class QueueRecords:
    """The records of one queue, or of the delayed items of one."""

    number: int
    name: Optional[bytes] = None
    created: int = 0
    deleted: bool = False
    mark: Optional[Mark] = None
    above: list[tuple[int, int]] = field(factory=list)
    attempts: dict[int, int] = field(factory=dict)
    generations: tuple[Optional[Generation], Optional[Generation]] = (None, None)
    present: Consumed = field(factory=Consumed)
    last: int = -1
    bytes_put: int = 0
    first_time: int = 0
    large: list[tuple[int, int]] = field(factory=list)
    delayed: Optional[Delayed] = None
    delays: DelayedRecords = field(factory=DelayedRecords)
    imported: list[Imported] = field(factory=list)
    # Computed by conclude().
    gone: Consumed = field(factory=Consumed)
    next_id: int = 0
    lost: int = 0

    def conclude(self) -> None:
        """Take missing items for consumed."""
        mark = self.mark or Mark()
        gone = self.gone = Consumed(mark.low, self.above)
        self.next_id = max(mark.next_id, self.last + 1, *(stop for _, stop in gone.intervals()), 0)
        present = list(self.present.intervals())
        if self.mark is None:
            # All items below the first that exists may have been consumed.
            gone.add(0, present[0][0] if present else self.next_id)
        before = len(gone)
        at = 0
        for start, stop in [*present, (self.next_id, self.next_id)]:
            gone.add(at, start)
            at = stop
        self.lost = len(gone) - before

    @property
    def saved(self) -> int:
        return self.next_id - len(self.gone)


class StreamSizes:
    """The existing streams and their sizes in bytes; 0 if a chunk is missing."""

    def __init__(self) -> None:
        self._numbers = array("Q")
        self._sizes = array("Q")
        self._held = bytearray()

    def add(self, stream: int, chunks: Iterable[tuple[int, int]]) -> None:
        """@param chunks: the index and size of each chunk."""
        size = 0
        whole = True
        for index, length in chunks:
            # Each chunk but the last is full, so the bytes before a chunk give its index.
            whole = whole and size == index * CHUNK_BYTES and length > 0
            size += length
        self._numbers.append(stream)
        self._sizes.append(size if whole else 0)
        self._held.append(0)

    def _place(self, stream: int) -> Optional[int]:
        place = bisect_left(self._numbers, stream)
        return place if place < len(self._numbers) and self._numbers[place] == stream else None

    def holds(self, stream: int, size: int) -> bool:
        place = self._place(stream)
        return place is not None and self._sizes[place] == size

    def hold(self, stream: int) -> None:
        place = self._place(stream)
        assert place is not None
        self._held[place] = 1

    def is_held(self, stream: int) -> bool:
        place = self._place(stream)
        return place is not None and bool(self._held[place])

    @property
    def next_number(self) -> int:
        return self._numbers[-1] + 1 if self._numbers else 1


def by_queue(entries: Entries) -> Iterator[tuple[int, Entries]]:
    for key, group in groupby(entries, lambda entry: entry[0][:9]):
        if len(key) == 9:
            yield records.key_number(key), group


def read_run(key: bytes, value: bytes, before: int) -> list[Item]:
    """
    @param before: the last id in the run before.
    @return: the items of a run; empty if it is not a complete, readable run.
    """
    if len(key) != 18 or not records.is_run(key):
        return []
    try:
        last = records.key_number(key)
        items = list(records.run_items(last, value))
    except (struct_error, StoreError):
        return []
    if not items or items[0].id <= before or records.run_length(items) != len(value):
        return []
    return items


def read_delayed_item(key: bytes, value: bytes) -> Optional[Item]:
    """@return: a delayed item; C{None} if it is not a complete, readable one."""
    if not records.is_delayed(key):
        return None
    try:
        items = list(records.run_items(records.key_number(key), value))
    except (struct_error, StoreError):
        return None
    return items[0] if len(items) == 1 and records.run_length(items) == len(value) else None
