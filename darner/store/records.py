"""
The keys and values of the store.

`docs/design/store.rst` lists and explains them, and says how to change them.  Only this module packs and unpacks them,
and `darner.store.references` those about segments.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import Struct
from typing import Final, Optional

from darner.errors import StoreError
from darner.values.items import Delayed, Generation, Imported, Item, Mark
from darner.values.vocabulary import chunk_count

FORMAT_KEY: Final = b"!format"
FORMAT: Final = b"darner 2"
FORMAT_1: Final = b"darner 1"
"""The format before there were segments: all payloads are in the database."""
NUMBERS_KEY: Final = b"!numbers"
STREAMS_KEY: Final = b"!streams"
POSITION_KEY: Final = b"!position"
"""Only in the store of a node of a cluster: up to where it has applied the log."""

NAME: Final = b"N"
QUEUE: Final = b"Q"
DELETED: Final = b"D"
UNHELD: Final = b"S"
UNCOMPACTED: Final = b"U"
HOLDER: Final = b"H"
CHUNK: Final = b"C"

RUNS: Final = 0
MARK: Final = 1
INTERVALS: Final = 2
_ATTEMPTS: Final = 3
_DELAYED: Final = 4
_GENERATIONS: Final = 5
_END: Final = 255
"""The kind of record, behind a queue's number in the key."""

RUN_BYTES: Final = 64 * 1024
"""Payload bytes after which the next item of a turn starts a new run."""

LARGE: Final = 4096
"""Bytes from which on a payload is large.  Large ones and others are in different runs."""

_U64: Final = Struct(">Q")
_U32: Final = Struct(">I")
_PAIR: Final = Struct(">QQ")
_MARK: Final = Struct(">QQQQQ")
_QUEUE_KEY: Final = Struct(">cQB")
_ITEM_KEY: Final = Struct(">cQBQ")
_DUE_KEY: Final = Struct(">cQBQQ")
_NUMBER_KEY: Final = Struct(">cQ")
_CHUNK_KEY: Final = Struct(">cQI")
_HOLDER_KEY: Final = Struct(">cQQQ")
_RUN: Final = Struct(">QI")
_ITEM: Final = Struct(">BIQQQ")
_RUN_AND_ITEM: Final = Struct(">QIBIQQQ")
_GENERATION: Final = Struct(">BQQ")

_IMPORTED: Final = Struct(">16sQ?")

_LENGTH: Final = Struct(">H")

ELSEWHERE: Final = 0x80000000
"""The bit of a run's count that says that the run is in a segment (`darner.store.references`)."""

_INLINE: Final = 0
_STREAM: Final = 1

pack_u64 = _U64.pack
pack_u32 = _U32.pack


def unpack_u64(value: bytes) -> int:
    number: int = _U64.unpack(value)[0]
    return number


def unpack_u32(value: bytes) -> int:
    number: int = _U32.unpack(value)[0]
    return number


# Keys ------------------------------------------------------------------------------------------------------------


def name_key(name: bytes) -> bytes:
    return NAME + name


def mark_key(number: int) -> bytes:
    return _QUEUE_KEY.pack(QUEUE, number, MARK)


def imported_key(number: int, source: bytes) -> bytes:
    """Behind the mark, so that the last table of an import overlaps few of those before."""
    return _QUEUE_KEY.pack(QUEUE, number, MARK) + source


def is_imported(key: bytes) -> bool:
    return len(key) == 26 and key[0:1] == QUEUE and key[9] == MARK


def interval_key(number: int, start: int) -> bytes:
    return _ITEM_KEY.pack(QUEUE, number, INTERVALS, start)


def intervals_end_key(number: int) -> bytes:
    return _QUEUE_KEY.pack(QUEUE, number, _ATTEMPTS)


def attempts_key(number: int, id: int) -> bytes:
    return _ITEM_KEY.pack(QUEUE, number, _ATTEMPTS, id)


def delayed_key(number: int) -> bytes:
    return _QUEUE_KEY.pack(QUEUE, number, _DELAYED)


def due_key(number: int, due: int, id: int) -> bytes:
    return _DUE_KEY.pack(QUEUE, number, _DELAYED, due, id)


def run_key(number: int, last: int) -> bytes:
    return _ITEM_KEY.pack(QUEUE, number, RUNS, last)


def generations_key(number: int) -> bytes:
    return _QUEUE_KEY.pack(QUEUE, number, _GENERATIONS)


def seen_key(generation: int, id: bytes) -> bytes:
    return _QUEUE_KEY.pack(QUEUE, generation, _GENERATIONS) + id


def seen_id(key: bytes) -> bytes:
    return key[10:]


def is_seen(key: bytes) -> bool:
    return len(key) == 26 and key[0:1] == QUEUE and key[9] == _GENERATIONS


def end_key(number: int) -> bytes:
    return _QUEUE_KEY.pack(QUEUE, number, _END)


def chunk_key(stream: int, index: int) -> bytes:
    return _CHUNK_KEY.pack(CHUNK, stream, index)


def holder_key(stream: int, number: int, id: int) -> bytes:
    return _HOLDER_KEY.pack(HOLDER, stream, number, id)


def holder_of(key: bytes) -> tuple[int, tuple[int, int]]:
    """@return: the stream, and the number and id of the item that holds it together with others."""
    _, stream, number, id = _HOLDER_KEY.unpack(key)
    return stream, (number, id)


def holders_prefix(stream: int) -> bytes:
    return _NUMBER_KEY.pack(HOLDER, stream)


def deleted_key(number: int) -> bytes:
    return _NUMBER_KEY.pack(DELETED, number)


def unheld_key(stream: int) -> bytes:
    return _NUMBER_KEY.pack(UNHELD, stream)


def queue_number(key: bytes) -> int:
    """@return: the number of the queue, of the delayed items or of the generation to which a record belongs."""
    return unpack_u64(key[1:9])


def run_place(key: bytes) -> tuple[int, int]:
    """@return: the number and the last id in the key of a run or a delayed item."""
    return queue_number(key), key_number(key)


def due_of(key: bytes) -> int:
    """@return: when a delayed item is due."""
    return unpack_u64(key[10:18])


def key_number(key: bytes) -> int:
    """@return: the last number of a key: an interval's start, a run's last id, a deleted queue, an unheld stream."""
    return unpack_u64(key[-8:])


def chunk_stream(key: bytes) -> int:
    stream: int = _CHUNK_KEY.unpack_from(key)[1]
    return stream


def chunk_index(key: bytes) -> int:
    index: int = _CHUNK_KEY.unpack_from(key)[2]
    return index


def place_of(key: bytes) -> int:
    """@return: a number that orders the keys of one queue: the first bytes of the key, so never beyond the key."""
    return int.from_bytes(key[9:18].ljust(9, b"\0"), "big")


def key_at(number: int, place: int) -> bytes:
    """@return: the smallest key with this L{place_of}."""
    return _NUMBER_KEY.pack(QUEUE, number) + place.to_bytes(9, "big").rstrip(b"\0")


def is_delayed(key: bytes) -> bool:
    return len(key) == _DUE_KEY.size and key[0:1] == QUEUE and key[9] == _DELAYED


def is_run(key: bytes) -> bool:
    return key[0:1] == QUEUE and key[9] == RUNS


def neighbourhood(key: bytes) -> bytes:
    """@return: the prefix of keys that are adjacent and are deleted together: with a queue's number, or the kind."""
    return key[:9] if key[0:1] == QUEUE else key[:1]


def uncompacted_key(neighbourhood: bytes) -> bytes:
    return UNCOMPACTED + neighbourhood


# Values ----------------------------------------------------------------------------------------------------------


def pack_name(number: int, created: int) -> bytes:
    return _PAIR.pack(number, created)


def unpack_name(value: bytes) -> tuple[int, int]:
    number, created = _PAIR.unpack(value)
    return number, created


def pack_mark(mark: Mark) -> bytes:
    return _MARK.pack(mark.low, mark.next_id, mark.bytes_put, mark.bytes_consumed, mark.floor)


def unpack_mark(value: bytes) -> Mark:
    return Mark(*_MARK.unpack(value))


def pack_delayed(delayed: Delayed) -> bytes:
    return _MARK.pack(*delayed)


def unpack_delayed(value: bytes) -> Delayed:
    return Delayed(*_MARK.unpack(value))


def pack_generations(current: Optional[Generation], previous: Optional[Generation]) -> bytes:
    return b"".join(
        _GENERATION.pack(which, generation.number, generation.since)
        for which, generation in enumerate((current, previous))
        if generation is not None
    )


def unpack_generations(value: bytes) -> tuple[Optional[Generation], Optional[Generation]]:
    found = {which: Generation(number, since) for which, number, since in _GENERATION.iter_unpack(value)}
    return found.get(0), found.get(1)


def pack_imported(imported: Imported) -> bytes:
    return _IMPORTED.pack(imported.fingerprint, imported.items, imported.finished)


def unpack_imported(key: bytes, value: bytes) -> Imported:
    return Imported(key[10:], *_IMPORTED.unpack(value))


def pack_position(cluster: bytes, number: int) -> bytes:
    """@param cluster: 16 bytes that name the cluster.  @param number: of the last record that was applied."""
    return cluster + _U64.pack(number)


def unpack_position(value: bytes) -> tuple[bytes, int]:
    return value[:-8], unpack_u64(value[-8:])


def pack_bounds(low: bytes, high: bytes) -> bytes:
    return _LENGTH.pack(len(low)) + low + high


def unpack_bounds(value: bytes) -> tuple[bytes, bytes]:
    end = _LENGTH.size + _LENGTH.unpack_from(value)[0]
    return value[_LENGTH.size : end], value[end:]


def single_run(item: Item, bytes_put: int) -> bytes:
    """@return: the value of a run of one item, which is not a stream.  Its C{run} is set."""
    item.run = 1
    head = _RUN_AND_ITEM.pack(bytes_put, 1, _INLINE, item.flags, item.time, item.expiry, item.size)
    return head + item.payload


def runs(items: Sequence[Item], bytes_put: int) -> list[tuple[int, bytes]]:
    """
    Encode items as runs, and set their C{run}.

    @param items: items with consecutive ids, in order.
    @param bytes_put: payload bytes of all items ever put on the queue, including these.
    @return: for each run its last id and its value.
    """
    if len(items) == 1 and not items[0].stream:
        return [(items[0].id, single_run(items[0], bytes_put))]
    packed: list[tuple[int, bytes]] = []
    total = bytes_put - sum(item.size for item in items)
    parts: list[bytes] = []
    count, held, large, head = 0, 0, False, b""
    before: Optional[Item] = None
    for at, item in enumerate(items):
        if count and (held >= RUN_BYTES or item.stream or large != (item.size >= LARGE)):
            items[at - 1].run = count
            packed.append((item.id - 1, b"".join([_RUN.pack(total, count), *parts])))
            parts.clear()
            count = held = 0
        large = item.size >= LARGE
        if before is None or not item.resembles(before):
            head = _ITEM.pack(_STREAM if item.stream else _INLINE, item.flags, item.time, item.expiry, item.size)
            before = item
        parts.append(head)
        parts.append(_U64.pack(item.stream) if item.stream else item.payload)
        count += 1
        held += RUN_BYTES if item.stream else item.size
        total += item.size
    if count:
        items[-1].run = count
        packed.append((items[-1].id, b"".join([_RUN.pack(total, count), *parts])))
    return packed


def run_head(value: bytes) -> tuple[int, int]:
    """@return: a run's C{bytes_put}, up to its end, and the number of its items."""
    bytes_put, count = _RUN.unpack_from(value)
    return bytes_put, count & ~ELSEWHERE


def is_elsewhere(value: bytes) -> bool:
    """@return: whether a run is in a segment."""
    return bool(value[8] & 0x80)


def is_large(value: bytes) -> bool:
    """@return: whether the payloads of a run are L{LARGE}."""
    kind, _, _, _, size = _ITEM.unpack_from(value, _RUN.size)
    return bool(kind == _INLINE and size >= LARGE)


def run_items(last: int, value: bytes) -> Iterator[Item]:
    """
    Decode a run.

    @param last: the id of its last item.
    @raise StoreError: this version does not know the run's format.
    """
    _, count = run_head(value)
    at = _RUN.size
    for id in range(last - count + 1, last + 1):
        kind, flags, time, expiry, size = _ITEM.unpack_from(value, at)
        at += _ITEM.size
        if kind == _INLINE:
            item = Item(id, flags, time, expiry, size, value[at : at + size])
            at += size
        elif kind == _STREAM:
            item = Item(id, flags, time, expiry, size, stream=_U64.unpack_from(value, at)[0])
            at += _U64.size
        else:
            raise StoreError(f"item {id} is of kind {kind}, which this version cannot read")
        if id == last:
            item.run = count
        yield item


def run_length(items: Sequence[Item]) -> int:
    """@return: the length of the value of a run with these items."""
    return _RUN.size + sum(_ITEM.size + (_U64.size if item.stream else item.size) for item in items)


def run_stream(value: bytes) -> tuple[int, int]:
    """@return: the stream of a run that is one large item, and the number of its chunks; 0 and 0 for any other run."""
    if is_elsewhere(value):
        return 0, 0  # a large item never is
    kind, _, _, _, size = _ITEM.unpack_from(value, _RUN.size)
    if kind != _STREAM:
        return 0, 0
    return _U64.unpack_from(value, _RUN.size + _ITEM.size)[0], chunk_count(size)
