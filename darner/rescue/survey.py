"""
What should be in a store, and what is: which items of which queue are lost, and how the rest is written down anew.

It goes by the records alone (`darner.store.records`), in the order of their keys, twice: once to see what there is, and
once to write.  Memory holds a few numbers for each queue, each gap in one, and each large item.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from struct import error as struct_error
from typing import Final, Optional

from attrs import define, field, frozen

from darner.errors import StoreError
from darner.store import records
from darner.values.consumed import Consumed
from darner.values.items import Delayed, Generation, Item, Mark
from darner.values.vocabulary import CHUNK_BYTES

Entries = Iterable[tuple[bytes, bytes]]

RECOVERED: Final = b"recovered_%d"


@frozen
class QueueFinding:
    """What is to be said of one queue."""

    name: bytes
    saved: int
    """How many items are there."""
    lost: int
    """How many items are known to be lost."""
    uncertain: bool = False
    """Whether its last changes may be lost: more items, or the note that some were read, so that they come again."""
    unnamed: bool = False
    """Whether its name is lost, so that it has a new one."""


@define
class _Delays:
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
class _Queue:
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
    delays: _Delays = field(factory=_Delays)
    # What follows from them.
    gone: Consumed = field(factory=Consumed)
    next_id: int = 0
    lost: int = 0

    def conclude(self) -> None:
        """Take the items that are not there for consumed."""
        mark = self.mark or Mark()
        gone = self.gone = Consumed(mark.low, self.above)
        self.next_id = max(mark.next_id, self.last + 1, *(stop for _, stop in gone.intervals()), 0)
        present = list(self.present.intervals())
        if self.mark is None:
            # Below the first that is there, all may have been consumed.
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


class _Streams:
    """Which streams there are, and how many bytes each has: 0 where a chunk is missing."""

    def __init__(self) -> None:
        self._numbers = array("Q")
        self._sizes = array("Q")
        self._held = bytearray()

    def add(self, stream: int, chunks: Iterable[tuple[int, int]]) -> None:
        """@param chunks: index and size of each."""
        size = 0
        whole = True
        for index, length in chunks:
            # Each but the last is full, so that the bytes before it tell its index.
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


class Survey:
    """
    What the records of a store tell.

    @ivar format: the format that the store says it is of; C{None} where it does not say.
    @ivar unreadable: how many records are none that this version writes.
    @ivar counters_lost: whether numbers of queues or streams in use are not below their counters.
    """

    def __init__(self, entries: Entries, may_have_lost: Callable[[bytes, bytes], bool]) -> None:
        """
        @param entries: the records, in order.
        @param may_have_lost: whether there may have been more between two keys; asked when all was read.
        """
        self.format: Optional[bytes] = None
        self.unreadable = 0
        self.counters_lost = False
        self._queues: dict[int, _Queue] = {}
        self._streams = _Streams()
        self._counters: dict[bytes, int] = {}
        self._used_streams = 1
        for kind, group in groupby(entries, lambda entry: entry[0][:1]):
            if kind == b"C":
                for stream, chunks in groupby(self._chunks(group), lambda chunk: chunk[0]):
                    self._streams.add(stream, ((index, size) for _, index, size in chunks))
            elif kind == b"Q":
                for number, queue in _by_queue(group):
                    self._read_queue(self._queue(number), queue)
            else:
                for key, value in group:
                    self._read(kind, key, value)
        self._conclude(may_have_lost)

    def _queue(self, number: int) -> _Queue:
        return self._queues.setdefault(number, _Queue(number))

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
            elif kind == records.NAME:
                number, created = records.unpack_name(value)
                queue = self._queue(number)
                queue.name, queue.created = key[1:], created
            elif kind == records.DELETED:
                self._queue(records.key_number(key)).deleted = True
            elif kind == records.UNCOMPACTED:
                records.unpack_bounds(value)  # what is written anew needs none
            elif kind == records.HOLDER:
                pass  # who holds a stream is seen by the items
            elif kind == records.UNHELD:
                self._used_streams = max(self._used_streams, records.key_number(key) + 1)
            else:
                self.unreadable += 1
        except struct_error:
            self.unreadable += 1

    def _read_queue(self, queue: _Queue, entries: Entries) -> None:
        for key, value in entries:
            items = _run(key, value, queue.last)
            if items:
                self._read_run(queue, items, value)
                continue
            item = _delayed_item(key, value)
            if item is not None:
                if self._is_whole(item):
                    queue.delays.add(records.due_of(key), item)
                continue
            try:
                if key == records.mark_key(queue.number):
                    queue.mark = records.unpack_mark(value)
                elif key[9:10] == b"\2" and len(key) == 18:
                    queue.above.append((records.key_number(key), records.unpack_u64(value)))
                elif key[9:10] == b"\3" and len(key) == 18:
                    queue.attempts[records.key_number(key)] = records.unpack_u32(value)
                elif key == records.delayed_key(queue.number):
                    queue.delayed = records.unpack_delayed(value)
                elif key == records.generations_key(queue.number):
                    queue.generations = records.unpack_generations(value)
                elif records.is_seen(key):
                    records.unpack_u64(value)  # of ids there may be too many to keep
                elif key not in (records.intervals_end_key(queue.number), records.end_key(queue.number)):
                    self.unreadable += 1
            except struct_error:
                self.unreadable += 1

    def _read_run(self, queue: _Queue, items: list[Item], value: bytes) -> None:
        if queue.last < 0:
            queue.first_time = items[0].time
        queue.last = items[-1].id
        queue.bytes_put = records.run_head(value)[0]
        for item in items:
            if not self._is_whole(item):
                continue
            if item.stream:
                queue.large.append((item.id, item.stream))
            queue.present.add(item.id, item.id + 1)

    def _is_whole(self, item: Item) -> bool:
        """@return: whether all of the stream is there that holds the payload, where one does."""
        if not item.stream:
            return True
        self._used_streams = max(self._used_streams, item.stream + 1)
        return self._streams.holds(item.stream, item.size)

    def _adopt_delays(self) -> None:
        """Delayed items of which nothing tells whose they are get a queue of their own."""
        owned = {queue.delayed.number for queue in self._queues.values() if queue.delayed is not None}
        for number, queue in list(self._queues.items()):
            if queue.delays.items and number not in owned and not queue.deleted:
                owner = self._queue(max(self._counters.get(records.NUMBERS_KEY, 0), max(self._queues) + 1))
                owner.delayed = Delayed(number)

    def _conclude(self, may_have_lost: Callable[[bytes, bytes], bool]) -> None:
        self._adopt_delays()
        names = {queue.name for queue in self._queues.values()}
        self._found: dict[int, QueueFinding] = {}
        self._holders: dict[int, list[tuple[int, int]]] = {}
        self._owned: set[int] = set()
        self._generations: set[int] = set()
        for number, queue in sorted(self._queues.items()):
            if queue.deleted:
                continue
            queue.conclude()
            delays, lost = self._delays_of(queue)
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
                self._owned.add(queue.delayed.number)
                for id, stream in delays.large:
                    self._hold(stream, queue.delayed.number, id)
            uncertain = queue.mark is None or may_have_lost(
                records.run_key(number, queue.next_id), records.end_key(number)
            )
            self._found[number] = QueueFinding(
                queue.name, queue.saved + delays.items, queue.lost + lost, uncertain, unnamed
            )
            self._generations.update(generation.number for generation in queue.generations if generation is not None)
        used = max([*self._queues, *self._generations], default=-1) + 1
        self.next_number = max(self._counters.get(records.NUMBERS_KEY, 0), used)
        self.next_stream = max(
            self._counters.get(records.STREAMS_KEY, 0), self._streams.next_number, self._used_streams
        )
        self.counters_lost = (
            self._counters.get(records.NUMBERS_KEY, 0) < used
            or max(1, self._counters.get(records.STREAMS_KEY, 0)) < self.next_stream
        )

    def _hold(self, stream: int, number: int, id: int) -> None:
        self._streams.hold(stream)
        self._holders.setdefault(stream, []).append((number, id))

    def _delays_of(self, queue: _Queue) -> tuple[_Delays, int]:
        """@return: a queue's delayed items, and how many are lost."""
        if queue.delayed is None:
            return _Delays(), 0
        kept = self._queues.get(queue.delayed.number)
        delays = kept.delays if kept is not None else _Delays()
        return delays, max(0, queue.delayed.items - delays.items)

    @property
    def queues(self) -> list[QueueFinding]:
        """What is to be said of each queue, by name."""
        return sorted(self._found.values(), key=lambda queue: queue.name)

    @property
    def sound(self) -> bool:
        """Whether every record is there that the others speak of."""
        return not (
            self.unreadable or self.counters_lost or (self._queues and self.format is None)
            or any(queue.lost or queue.uncertain or queue.unnamed for queue in self._found.values())
        )  # fmt: skip

    def rewritten(self, entries: Entries) -> Iterator[tuple[bytes, bytes]]:
        """
        Write down what is saved, so that all counts are right and nothing is left to be reclaimed.

        @param entries: the same records again.
        @return: the records of the new store.
        """
        yield records.FORMAT_KEY, records.FORMAT
        yield records.NUMBERS_KEY, records.pack_u64(self.next_number)
        yield records.STREAMS_KEY, records.pack_u64(self.next_stream)
        for number, finding in self._found.items():
            yield records.name_key(finding.name), records.pack_name(number, self._queues[number].created)
        for stream, holders in self._holders.items():
            if len(holders) > 1:
                yield from ((records.holder_key(stream, *holder), b"") for holder in holders)
        written = set()
        for kind, group in groupby(entries, lambda entry: entry[0][:1]):
            if kind == b"C":
                for key, value in group:
                    if len(key) == 13 and self._streams.is_held(records.chunk_stream(key)):
                        yield key, value
            elif kind == b"Q":
                for number, queue in _by_queue(group):
                    if number in self._found:
                        written.add(number)
                        yield from _rewritten_queue(self._queues[number], queue)
                    elif number in self._owned:
                        yield from self._rewritten_delays(queue)
                    elif number in self._generations:
                        yield from ((key, value) for key, value in queue if records.is_seen(key) and len(value) == 8)
        for number in self._generations:
            yield records.end_key(number), b""
        for number in self._found:
            if number not in written:
                yield from _rewritten_queue(self._queues[number], ())
            yield from self._rewritten_delayed(self._queues[number])

    def _rewritten_delays(self, entries: Entries) -> Iterator[tuple[bytes, bytes]]:
        for key, value in entries:
            item = _delayed_item(key, value)
            if item is not None and self._is_whole(item):
                yield key, value

    def _rewritten_delayed(self, queue: _Queue) -> Iterator[tuple[bytes, bytes]]:
        if queue.delayed is not None:
            number = queue.delayed.number
            delays, _ = self._delays_of(queue)
            next_id = max(queue.delayed.next_id, delays.next_id)
            known = Delayed(number, delays.items, delays.bytes, delays.due, next_id)
            yield records.delayed_key(queue.number), records.pack_delayed(known)
            yield records.end_key(number), b""


def _by_queue(entries: Entries) -> Iterator[tuple[int, Entries]]:
    for key, group in groupby(entries, lambda entry: entry[0][:9]):
        if len(key) == 9:
            yield records.key_number(key), group


def _run(key: bytes, value: bytes, before: int) -> list[Item]:
    """
    @param before: the last id in the run before.
    @return: the items of a run; none where it is no run that can be read as a whole.
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


def _delayed_item(key: bytes, value: bytes) -> Optional[Item]:
    """@return: a delayed item; C{None} where it is none that can be read as a whole."""
    if not records.is_delayed(key):
        return None
    try:
        items = list(records.run_items(records.key_number(key), value))
    except (struct_error, StoreError):
        return None
    return items[0] if len(items) == 1 and records.run_length(items) == len(value) else None


def _rewritten_queue(queue: _Queue, entries: Entries) -> Iterator[tuple[bytes, bytes]]:
    size = 0
    before = -1
    for key, value in entries:
        items = _run(key, value, before)
        if items:
            before = items[-1].id
            sizes = [item.size for item in items if item.id not in queue.gone]
            if sizes:
                size += sum(sizes)
                yield key, value
    low = queue.gone.low
    put = max(queue.bytes_put, queue.mark.bytes_put if queue.mark is not None else 0, size)
    mark = Mark(low, queue.next_id, put, put - size, low)
    yield records.mark_key(queue.number), records.pack_mark(mark)
    for start, stop in queue.gone.intervals():
        if start >= low:
            yield records.interval_key(queue.number, start), records.pack_u64(stop)
    yield records.intervals_end_key(queue.number), b""
    for id, count in queue.attempts.items():
        if id not in queue.gone:
            yield records.attempts_key(queue.number, id), records.pack_u32(count)
    if any(queue.generations):
        yield records.generations_key(queue.number), records.pack_generations(*queue.generations)
    yield records.end_key(queue.number), b""
