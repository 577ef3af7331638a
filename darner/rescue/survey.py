"""
The state of a damaged store: which items of which queue are lost.

It reads the records (`darner.store.records`) in the order of their keys.  `darner.rescue.rewriting` reads them a second
time and writes the repaired store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from struct import error as struct_error
from typing import Final, Optional

from attrs import frozen

from darner.rescue.queue_records import (
    DelayedRecords,
    Entries,
    QueueRecords,
    StreamSizes,
    by_queue,
    read_delayed_item,
    read_run,
)
from darner.store import records, references
from darner.values.items import Delayed, Item

RECOVERED: Final = b"recovered_%d"


@frozen
class QueueFinding:
    """The finding about one queue."""

    name: bytes
    saved: int
    """The number of items found."""
    lost: int
    """The number of items known to be lost."""
    uncertain: bool = False
    """Whether its last changes may be lost: more items, or the record that items were consumed, which come again."""
    unnamed: bool = False
    """Whether its name is lost and C{name} is a new one."""


class Survey:
    """
    What the records of a store say.

    @ivar format: the format of the store; C{None} if the record is missing.
    @ivar unreadable: the number of records that this version cannot read.
    @ivar counters_lost: whether a number of a queue or stream in use is not below the counter.
    @ivar queue_records: the records of queues and of their delayed items, by number.
    @ivar streams: the streams of large items.
    @ivar found: the findings about the queues, by number.
    @ivar holders: the numbers and ids of the items that hold a stream, by stream.
    @ivar owned: the numbers of delayed items.
    @ivar generations: the numbers of generations of producers' ids.
    @ivar dead: what is recorded of each segment, by number, and C{sizes} of those that were sealed.
    @ivar next_number: the next number of a queue.
    @ivar next_stream: the next number of a stream.
    """

    def __init__(self, entries: Entries, may_have_lost: Callable[[bytes, bytes], bool]) -> None:
        """
        @param entries: the records, in order.
        @param may_have_lost: whether records between two keys may be lost; called once all entries are read.
        """
        self.format: Optional[bytes] = None
        self.unreadable = 0
        self.counters_lost = False
        self.queue_records: dict[int, QueueRecords] = {}
        self.streams = StreamSizes()
        self.dead: dict[int, int] = {}
        self.sizes: dict[int, int] = {}
        self._counters: dict[bytes, int] = {}
        self._used_streams = 1
        for kind, group in groupby(entries, lambda entry: entry[0][:1]):
            if kind == b"C":
                for stream, chunks in groupby(self._chunks(group), lambda chunk: chunk[0]):
                    self.streams.add(stream, ((index, size) for _, index, size in chunks))
            elif kind == b"Q":
                for number, queue in by_queue(group):
                    self._read_queue(self._queue(number), queue)
            else:
                for key, value in group:
                    self._read(kind, key, value)
        self._conclude(may_have_lost)

    def _queue(self, number: int) -> QueueRecords:
        return self.queue_records.setdefault(number, QueueRecords(number))

    def _chunks(self, entries: Entries) -> Iterator[tuple[int, int, int]]:
        for key, value in entries:
            if len(key) == 13:
                yield records.chunk_stream(key), records.chunk_index(key), len(value)
            else:
                self.unreadable += 1

    def _read(self, kind: bytes, key: bytes, value: bytes) -> None:
        try:
            if key == records.FORMAT_KEY:
                self.format = value
            elif key in (records.NUMBERS_KEY, records.STREAMS_KEY):
                self._counters[key] = records.unpack_u64(value)
            elif key == references.SEGMENTS_KEY:
                records.unpack_u64(value)
            elif key == references.SYNCED_KEY:
                references.unpack_synced(value)
            elif kind == references.SEGMENT:
                number, is_size = references.segment_of(key)
                (self.sizes if is_size else self.dead)[number] = records.unpack_u64(value)
            elif kind == records.NAME:
                number, created = records.unpack_name(value)
                queue = self._queue(number)
                queue.name, queue.created = key[1:], created
            elif kind == records.DELETED:
                self._queue(records.key_number(key)).deleted = True
            elif kind == records.UNCOMPACTED:
                records.unpack_bounds(value)  # the repaired store needs none
            elif key == records.POSITION_KEY:
                records.unpack_position(value)  # the repaired store is not what the log of the cluster made
            elif kind == records.HOLDER:
                pass  # the items tell which of them hold a stream
            elif kind == records.UNHELD:
                self._used_streams = max(self._used_streams, records.key_number(key) + 1)
            else:
                self.unreadable += 1
        except struct_error:
            self.unreadable += 1

    def _read_queue(self, queue: QueueRecords, entries: Entries) -> None:
        for key, value in entries:
            items = read_run(key, value, queue.last)
            if items:
                self._read_run(queue, items, value)
                continue
            item = read_delayed_item(key, value)
            if item is not None:
                if self.is_whole(item):
                    queue.delays.add(records.due_of(key), item)
                continue
            try:
                if key == records.mark_key(queue.number):
                    queue.mark = records.unpack_mark(value)
                elif records.is_imported(key):
                    queue.imported.append(records.unpack_imported(key, value))
                elif key[9:10] == b"\2" and len(key) == 18:
                    queue.above.append((records.key_number(key), records.unpack_u64(value)))
                elif key[9:10] == b"\3" and len(key) == 18:
                    queue.attempts[records.key_number(key)] = records.unpack_u32(value)
                elif key == records.delayed_key(queue.number):
                    queue.delayed = records.unpack_delayed(value)
                elif key == records.generations_key(queue.number):
                    queue.generations = records.unpack_generations(value)
                elif records.is_seen(key):
                    records.unpack_u64(value)  # there may be too many ids for memory
                elif key not in (records.intervals_end_key(queue.number), records.end_key(queue.number)):
                    self.unreadable += 1
            except struct_error:
                self.unreadable += 1

    def _read_run(self, queue: QueueRecords, items: list[Item], value: bytes) -> None:
        if queue.last < 0:
            queue.first_time = items[0].time
        queue.last = items[-1].id
        queue.bytes_put = records.run_head(value)[0]
        for item in items:
            if not self.is_whole(item):
                continue
            if item.stream:
                queue.large.append((item.id, item.stream))
            queue.present.add(item.id, item.id + 1)

    def is_whole(self, item: Item) -> bool:
        """@return: whether the item's payload is complete, which may be in a stream."""
        if not item.stream:
            return True
        self._used_streams = max(self._used_streams, item.stream + 1)
        return self.streams.holds(item.stream, item.size)

    def _adopt_delays(self) -> None:
        """Give delayed items whose queue is unknown a queue of their own."""
        owned = {queue.delayed.number for queue in self.queue_records.values() if queue.delayed is not None}
        for number, queue in list(self.queue_records.items()):
            if queue.delays.items and number not in owned and not queue.deleted:
                owner = self._queue(max(self._counters.get(records.NUMBERS_KEY, 0), max(self.queue_records) + 1))
                owner.delayed = Delayed(number)

    def _conclude(self, may_have_lost: Callable[[bytes, bytes], bool]) -> None:
        self._adopt_delays()
        names = {queue.name for queue in self.queue_records.values()}
        self.found: dict[int, QueueFinding] = {}
        self.holders: dict[int, list[tuple[int, int]]] = {}
        self.owned: set[int] = set()
        self.generations: set[int] = set()
        for number, queue in sorted(self.queue_records.items()):
            if queue.deleted:
                continue
            queue.conclude()
            delays, lost = self.delays_of(queue)
            unnamed = queue.name is None
            if unnamed:
                if not queue.saved and not queue.lost and not delays.items:
                    continue
                queue.name = RECOVERED % number
                while queue.name in names:
                    queue.name += b"_"
                queue.created = queue.first_time
            assert queue.name is not None
            for id, stream in queue.large:
                if id not in queue.gone:
                    self._hold(stream, number, id)
            if queue.delayed is not None:
                self.owned.add(queue.delayed.number)
                for id, stream in delays.large:
                    self._hold(stream, queue.delayed.number, id)
            uncertain = queue.mark is None or may_have_lost(
                records.run_key(number, queue.next_id), records.end_key(number)
            )
            self.found[number] = QueueFinding(
                queue.name, queue.saved + delays.items, queue.lost + lost, uncertain, unnamed
            )
            self.generations.update(generation.number for generation in queue.generations if generation is not None)
        used = max([*self.queue_records, *self.generations], default=-1) + 1
        self.next_number = max(self._counters.get(records.NUMBERS_KEY, 0), used)
        self.next_stream = max(
            self._counters.get(records.STREAMS_KEY, 0), self.streams.next_number, self._used_streams
        )
        self.counters_lost = (
            self._counters.get(records.NUMBERS_KEY, 0) < used
            or max(1, self._counters.get(records.STREAMS_KEY, 0)) < self.next_stream
        )

    def _hold(self, stream: int, number: int, id: int) -> None:
        self.streams.hold(stream)
        self.holders.setdefault(stream, []).append((number, id))

    def delays_of(self, queue: QueueRecords) -> tuple[DelayedRecords, int]:
        """@return: a queue's delayed items, and the number of lost ones."""
        if queue.delayed is None:
            return DelayedRecords(), 0
        kept = self.queue_records.get(queue.delayed.number)
        delays = kept.delays if kept is not None else DelayedRecords()
        return delays, max(0, queue.delayed.items - delays.items)

    @property
    def queues(self) -> list[QueueFinding]:
        """The findings about the queues, sorted by name."""
        return sorted(self.found.values(), key=lambda queue: queue.name)

    @property
    def sound(self) -> bool:
        """Whether no record is missing that the others imply."""
        return not (
            self.unreadable or self.counters_lost or (self.queue_records and self.format is None)
            or any(queue.lost or queue.uncertain or queue.unnamed for queue in self.found.values())
        )  # fmt: skip
