"""
The keys and values of the store that are about segments, the files for large payloads.

A value that is written to a segment has a record in the database that refers to it.  `docs/design/store.rst` explains
them.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import Final, NamedTuple, Optional

from darner.store import records

SEGMENTS_KEY: Final = b"!segments"
SYNCED_KEY: Final = b"!synced"
SEGMENT: Final = b"G"

_PAIR: Final = Struct(">QQ")
_RUN: Final = Struct(">QI")
_REFERENCE: Final = Struct(">QII")
_NUMBER_KEY: Final = Struct(">cQ")
_CHUNK_KEY_BYTES: Final = 13
_SEPARATE: Final = b"\1"
"""Behind the key of a chunk that is in a segment, and of a segment's size."""


class Reference(NamedTuple):
    """Where a value is that was written to a segment."""

    segment: int
    offset: int
    length: int
    """Bytes of its record."""


def chunk_key(stream: int, index: int) -> bytes:
    """@return: the key of a chunk that is in a segment."""
    return records.chunk_key(stream, index) + _SEPARATE


def segment_key(number: int) -> bytes:
    return _NUMBER_KEY.pack(SEGMENT, number)


def size_key(number: int) -> bytes:
    return _NUMBER_KEY.pack(SEGMENT, number) + _SEPARATE


def segment_of(key: bytes) -> tuple[int, bool]:
    """@return: the segment that a record is about, and whether it has the segment's size."""
    return records.unpack_u64(key[1:9]), len(key) > _NUMBER_KEY.size


def is_separable(key: bytes, value: bytes) -> bool:
    """@return: whether to write a value to a segment: a chunk or a run, if it has large payloads."""
    if len(value) < records.LARGE:
        return False
    return key[0:1] == records.CHUNK or (records.is_run(key) and records.is_large(value))


def separate_key(key: bytes) -> bytes:
    """@return: the key of the record that refers to a value, which had this key."""
    return key + _SEPARATE if key[0:1] == records.CHUNK else key


def referring(key: bytes, value: bytes, reference: Reference) -> bytes:
    """@return: the value of the record, with this L{separate_key}, that refers to a value."""
    if key[0:1] == records.CHUNK:
        return _REFERENCE.pack(*reference)
    bytes_put, count = _RUN.unpack_from(value)
    return _RUN.pack(bytes_put, count | records.ELSEWHERE) + _REFERENCE.pack(*reference)


def reference_of(key: bytes, value: bytes) -> Optional[Reference]:
    """@return: where the value of a record is; C{None} if it is in the database."""
    if key[0:1] == records.CHUNK:
        return Reference(*_REFERENCE.unpack(value)) if len(key) > _CHUNK_KEY_BYTES else None
    if records.is_run(key) and records.is_elsewhere(value):
        return Reference(*_REFERENCE.unpack(value[_RUN.size :]))
    return None


def moved(value: bytes, reference: Reference) -> bytes:
    """@return: the value of a record that refers to a segment, after that what it refers to was moved."""
    return value[: -_REFERENCE.size] + _REFERENCE.pack(*reference)


def whole(key: bytes, found: bytes) -> tuple[bytes, bytes]:
    """@return: a record as it was before its value, C{found}, was written to a segment."""
    return (key[:_CHUNK_KEY_BYTES] if key[0:1] == records.CHUNK else key), found


def pack_synced(lengths: Iterable[tuple[int, int]]) -> bytes:
    return b"".join(_PAIR.pack(*length) for length in lengths)


def unpack_synced(value: bytes) -> dict[int, int]:
    """@return: of segments, the lengths that are on stable storage."""
    return dict(_PAIR.iter_unpack(value))
