"""
Logs: records with checksums in blocks of 32 KiB, and the batches of writes in them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from struct import error as struct_error
from typing import Final, Optional

from darner.store.files.crc32c import crc32c, masked
from darner.store.files.damage import BadFile, Lost
from darner.store.files.entry import Entry
from darner.store.files.varint import read_string

_BLOCK: Final = 32768
_HEADER: Final = Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_SECTOR: Final = 512
_BATCH: Final = Struct("<QI")


class LogFile:
    """
    A log, or a manifest, which has the same format.

    When the process dies or the power fails, a log may end with part of a record, or with zeros in its place.  That is
    no damage.  LevelDB skips a partial record, and zeros behind complete records, but not a record whose end is zeros;
    for that there is C{cut}.

    @ivar lost: once L{records} is exhausted, the unreadable parts.
    @ivar cut: once L{records} is exhausted, the length to which the log must be truncated so that LevelDB can read it;
        C{None} if it can.
    @ivar start: the offset of the record that L{records} yielded last.
    """

    def __init__(self, path: Path, verify: bool = True) -> None:
        """@param verify: whether to verify the checksums, which takes most of the time."""
        self.path = path
        self._verify = verify
        self.lost: list[Lost] = []
        self.cut: Optional[int] = None
        self.start = 0

    def records(self) -> Iterator[bytes]:
        """
        Read every complete record.  After a damaged one it skips the rest of the block, which cannot be trusted.

        @raise OSError: the file cannot be read.
        """
        data = self.path.read_bytes()
        parts: Optional[list[bytes]] = None
        bad: list[tuple[int, str]] = []
        last = -1
        at = start = 0
        while len(data) - at >= _HEADER.size:
            room = _BLOCK - at % _BLOCK
            if room < _HEADER.size:
                at += room
                continue
            end = min(at + room, len(data))
            crc, length, kind = _HEADER.unpack_from(data, at)
            stop = at + _HEADER.size + length
            fault = ""
            if not kind and not length and not any(data[at:end]):
                at = end  # space that was never written
                continue
            if stop > end:
                fault = "a record extends beyond its block"
            elif self._verify and masked(crc32c(data[at + 6 : stop])) != crc:
                fault = "the checksum of a record is wrong"
            if fault:
                bad.append((at, fault))
                parts = None
                at = at + room
                continue
            last = at
            if kind in (_FULL, _FIRST):
                start = at
            piece = data[at + _HEADER.size : stop]
            at = stop
            if kind == _FULL:
                self.start = start
                yield piece
            elif kind == _FIRST:
                parts = [piece]
            elif parts is not None and kind in (_MIDDLE, _LAST):
                parts.append(piece)
                if kind == _LAST:
                    self.start = start
                    yield b"".join(parts)
                    parts = None
        self._judge(data, bad, last)

    def _judge(self, data: bytes, bad: list[tuple[int, str]], last: int) -> None:
        """Distinguish damage from an unfinished last write."""
        if not bad:
            return
        at, _ = bad[0]
        if last < at and not _record_behind(data, at):
            stop = at + _HEADER.size + _HEADER.unpack_from(data, at)[1]
            written = len(data.rstrip(b"\0"))
            zeros = -(-written // _SECTOR) * _SECTOR
            # The record may end inside the file: the disk may have an earlier state of the page, with less of it.
            begun = written < stop <= len(data) or (zeros < len(data) and stop > zeros)
            if begun or written <= at + _HEADER.size:
                self.cut = at
                return
            if stop > len(data) and len(data) // _BLOCK == at // _BLOCK and not _whole(data, at):
                return
            if stop > len(data) == (at // _BLOCK + 1) * _BLOCK and not _whole(data, at):
                self.cut = at
                return
        self.lost = [Lost(f"{reason}, at {offset} of {len(data)}") for offset, reason in bad]


def _good(data: bytes, at: int) -> bool:
    crc, length, kind = _HEADER.unpack_from(data, at)
    stop = at + _HEADER.size + length
    if not _FULL <= kind <= _LAST or stop > min(len(data), (at // _BLOCK + 1) * _BLOCK):
        return False
    return bool(masked(crc32c(data[at + 6 : stop])) == crc)


def _record_behind(data: bytes, at: int) -> bool:
    """@return: whether the block contains a complete record anywhere behind a bad one."""
    end = min(len(data), (at // _BLOCK + 1) * _BLOCK) - _HEADER.size
    return any(_good(data, other) for other in range(at + 1, end + 1))


def _whole(data: bytes, at: int) -> bool:
    """@return: whether a record that seems to extend beyond the end of its log is complete, with a wrong length."""
    return bool(masked(crc32c(data[at + 6 :])) == _HEADER.unpack_from(data, at)[0])


def ends_well(path: Path) -> bool:
    """
    Walk through a log and verify only the last checksum, as LevelDB verifies all when it opens the log.

    @return: whether the records end where the file ends, as LevelDB might otherwise skip good ones, and whether the
        last one is good, as a loss of power may have left zeros at its end, which LevelDB refuses.
    """
    data = path.read_bytes()
    at, size, unpack = 0, len(data), _HEADER.unpack_from
    last = -1
    while at < size:
        room = _BLOCK - at % _BLOCK
        if room < _HEADER.size:
            at += room
            continue
        if size - at < _HEADER.size:
            return False
        _, length, kind = unpack(data, at)
        if not _FULL <= kind <= _LAST or length + _HEADER.size > room:
            return False
        last = at
        at += _HEADER.size + length
    return at == size and (last < 0 or _good(data, last))


def batch_head(record: bytes) -> tuple[int, int]:
    """
    @param record: of a log: one batch.
    @return: its first sequence number and the number of its entries.
    @raise BadFile: it is not a batch.
    """
    try:
        sequence, count = _BATCH.unpack_from(record)
    except struct_error as error:
        raise BadFile("a batch is cut short") from error
    return sequence, count


def batch_entries(record: bytes) -> list[Entry]:
    """
    @param record: of a log: one batch.
    @raise BadFile: it is not a batch.
    """
    sequence, count = batch_head(record)
    try:
        at = _BATCH.size
        entries = []
        for place in range(count):
            kind = record[at]
            key, at = read_string(record, at + 1)
            value = None
            if kind == 1:
                value, at = read_string(record, at)
            elif kind != 0:
                raise BadFile("a batch has an entry that is neither a write nor a deletion")
            entries.append(Entry(key, sequence + place, value))
    except IndexError as error:
        raise BadFile("a batch is cut short") from error
    if at != len(record):
        raise BadFile("a batch is too long")
    return entries
