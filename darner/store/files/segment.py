"""
Segments: files of records with checksums, for the payloads that are too large for the database.

A segment begins with L{MAGIC}.  A record is the CRC-32 of what follows it, the lengths of key and value, the key that
the value has in the database, and the value.  Numbers are big-endian.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import Final

from darner.store.files.damage import BadFile

MAGIC: Final = b"darner segment\n\1"
_HEADER: Final = Struct(">IHI")
_LENGTHS: Final = Struct(">HI")
_NAME: Final = re.compile(r"(\d+)\.seg")
_SECTOR: Final = 512
_AT_ONCE: Final = 1024 * 1024


def name_of(number: int) -> str:
    return f"{number:06}.seg"


def segments(directory: Path) -> dict[int, Path]:
    """@return: every segment in a directory, by number, in order; none if there is no directory."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return {}
    numbers = {int(match[1]): directory / name for name in names if (match := _NAME.fullmatch(name))}
    return dict(sorted(numbers.items()))


def is_ours(name: str) -> bool:
    """@return: whether this may be the name of a segment."""
    return _NAME.fullmatch(name) is not None


def pack(key: bytes, value: bytes) -> bytes:
    """@return: a record."""
    head = _LENGTHS.pack(len(key), len(value)) + key
    return b"".join((zlib.crc32(value, zlib.crc32(head)).to_bytes(4, "big"), head, value))


def unpack(record: bytes, key: bytes) -> bytes:
    """
    @param record: as many bytes as the record has.
    @return: the value.
    @raise BadFile: it is damaged, or the record of another key.
    """
    if len(record) < _HEADER.size + len(key):
        raise BadFile("a record is cut short")
    checksum, key_length, length = _HEADER.unpack_from(record)
    start = _HEADER.size + key_length
    if start + length != len(record) or checksum != zlib.crc32(memoryview(record)[4:]):
        raise BadFile("the checksum of a record is wrong")
    if record[_HEADER.size : start] != key:
        raise BadFile("a record has another key")
    return record[start:]


def read(file: int, offset: int, length: int, key: bytes) -> bytes:
    """
    @param file: the descriptor of a segment.
    @return: the value of a record.
    @raise BadFile: it is damaged.
    @raise OSError: it cannot be read.
    """
    try:
        return unpack(os.pread(file, length, offset), key)
    except BadFile as error:
        raise BadFile(f"{error}, at {offset}") from error


def is_unwritten(file: int, offset: int, length: int) -> bool:
    """
    @param file: the descriptor of a segment.
    @return: whether a record that cannot be read looks like one that a loss of power has destroyed: a part of it is
        missing, or zeros are in its place.
    @raise OSError: it cannot be read.
    """
    record = os.pread(file, length, offset)
    sectors = range(-offset % _SECTOR, length - _SECTOR + 1, _SECTOR)
    return len(record) < length or record.endswith(b"\0") or any(
        not any(record[at : at + _SECTOR]) for at in sectors
    )


class SegmentFile:
    """
    A segment that is read from the beginning to the end.

    @ivar end: where the last complete record ends that L{records} has found.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.end = 0

    def records(self) -> Iterator[tuple[bytes, int, bytes]]:
        """
        Read every record up to the first that is not complete.

        @return: key, offset, and all bytes of the record.
        @raise OSError: the file cannot be read.
        """
        with self.path.open("rb", buffering=_AT_ONCE) as file:
            size = os.fstat(file.fileno()).st_size
            if file.read(len(MAGIC)) != MAGIC:
                return
            self.end = len(MAGIC)
            while self.end < size:
                head = file.read(_HEADER.size)
                if len(head) < _HEADER.size:
                    return
                _, key_length, length = _HEADER.unpack(head)
                stop = self.end + _HEADER.size + key_length + length
                if stop > size:
                    return
                record = head + file.read(key_length + length)
                key = record[_HEADER.size : _HEADER.size + key_length]
                try:
                    unpack(record, key)
                except BadFile:
                    return
                yield key, self.end, record
                self.end = stop
