"""
How LevelDB writes its files down, for reading them without it: manifest, logs and tables, each record and each block
checked.

LevelDB itself changes a database by opening it, and gives up at the first fault.  Whoever is to say what is damaged,
and to save the rest, has to read with more patience.  Nothing here writes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from struct import error as struct_error
from typing import Final, NamedTuple, Optional

from darner.store.files.crc32c import crc32c, masked

_BLOCK: Final = 32768
_HEADER: Final = Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_SECTOR: Final = 512
_BATCH: Final = Struct("<QI")
_FIXED32: Final = Struct("<I")
_FIXED64: Final = Struct("<Q")

_FOOTER: Final = 48
_MAGIC: Final = 0xDB4775248B80FB57
_TRAILER: Final = 5
_RESTART: Final = 16
"""Every so many entries of a block one stands with its whole key."""
_LONGEST_HEAD: Final = 15
"""Bytes of three numbers ahead of an entry's key."""
_LARGEST_BLOCK: Final = 2**30

_NAME: Final = re.compile(r"(\d+)\.(ldb|sst|log|dbtmp)|MANIFEST-(\d+)|CURRENT|LOCK|LOG|LOG\.old")
_CURRENT: Final = re.compile(rb"(MANIFEST-\d+)\n")


def _behind_blocks() -> bytes:
    block = _FIXED32.pack(0) + _FIXED32.pack(1) + b"\0"
    return block + _FIXED32.pack(masked(crc32c(block)))


_BEHIND_BLOCKS: Final = _behind_blocks()
"""What follows the blocks of entries in every table: an index of further blocks, of which there are none."""


class BadFile(Exception):
    """A file, or a part of it, is not as LevelDB writes it.  The text says how."""


class Entry(NamedTuple):
    """What was done to a key; of several entries of one key that of the highest sequence number holds."""

    key: bytes
    sequence: int
    value: Optional[bytes]
    """C{None} where it was deleted."""


class Lost(NamedTuple):
    """A part of a file that cannot be read, and the keys that may have been in it."""

    reason: str
    start: bytes = b""
    """No key below this one is in it."""
    stop: Optional[bytes] = None
    """No key above this one is in it; C{None} where any may be."""


def file_number(name: str) -> int:
    """@return: the number of a log, table or manifest; -1 where a name has none."""
    match = _NAME.fullmatch(name)
    return int(match[1] or match[3] or -1) if match else -1


def is_ours(name: str) -> bool:
    """@return: whether LevelDB gives names like this to its files."""
    return _NAME.fullmatch(name) is not None


def tables(database: Path) -> dict[int, Path]:
    """@return: every table in a database's directory, by its number."""
    return _numbered(database, (".ldb", ".sst"))


def logs(database: Path) -> dict[int, Path]:
    """@return: every log in a database's directory, by its number, in order."""
    return _numbered(database, (".log",))


def manifests(database: Path) -> list[Path]:
    """@return: every manifest in a database's directory, the newest first."""
    names = [name for name in os.listdir(database) if is_ours(name) and name.startswith("MANIFEST-")]
    return [database / name for name in sorted(names, key=file_number, reverse=True)]


def _numbered(database: Path, endings: tuple[str, ...]) -> dict[int, Path]:
    names = [name for name in os.listdir(database) if is_ours(name) and name.endswith(endings)]
    return {file_number(name): database / name for name in sorted(names, key=file_number)}


# Logs ------------------------------------------------------------------------------------------------------------


class LogFile:
    """
    A log, or a manifest, which is written like one.

    What the end of a process or of the power leaves at the end of a log is no damage: half a record, or zeros in place
    of it.  LevelDB passes over the half record and over zeros behind whole records, but not over a record whose end is
    zeros; hence C{cut}.

    @ivar lost: after L{records} is exhausted, what could not be read.
    @ivar cut: after that, the length to which the log is to be cut so that LevelDB reads it; C{None} where it need not
        be.
    @ivar start: where the record begins that L{records} gave last.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost: list[Lost] = []
        self.cut: Optional[int] = None
        self.start = 0

    def records(self) -> Iterator[bytes]:
        """
        Read every whole record.  Behind a damaged one, the rest of its block of 32 KiB cannot be trusted.

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
                at = end  # room that was never written to
                continue
            if stop > end:
                fault = "a record is longer than there is room for it"
            elif masked(crc32c(data[at + 6 : stop])) != crc:
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
        """Tell damage from what is left at the end of a log that nobody came to finish."""
        if not bad:
            return
        at, _ = bad[0]
        if last < at and not _record_behind(data, at):
            stop = at + _HEADER.size + _HEADER.unpack_from(data, at)[1]
            written = len(data.rstrip(b"\0"))
            zeros = -(-written // _SECTOR) * _SECTOR
            # Where the record ends within the file, its page may have been kept as it was when less of it was written.
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
    """@return: whether there is a whole record anywhere behind one that is none."""
    end = min(len(data), (at // _BLOCK + 1) * _BLOCK) - _HEADER.size
    return any(_good(data, other) for other in range(at + 1, end + 1))


def _whole(data: bytes, at: int) -> bool:
    """@return: whether a record that seems to go on behind the end of its log is there, with a wrong length."""
    return bool(masked(crc32c(data[at + 6 :])) == _HEADER.unpack_from(data, at)[0])


def ends_well(path: Path) -> bool:
    """
    Walk along a log, and look at no checksum but the last: LevelDB looks at all of them when it is opened.

    @return: whether its records end where the file ends; where they do not, LevelDB might pass over good ones.  And
        whether the last one is good: where its end was lost with the power, that may be zeros, which LevelDB refuses.
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
    @return: of one batch, a log's record, its first sequence number and how many entries it has.
    @raise BadFile: it is none.
    """
    try:
        sequence, count = _BATCH.unpack_from(record)
    except struct_error as error:
        raise BadFile("a batch is cut short") from error
    return sequence, count


def batch_entries(record: bytes) -> list[Entry]:
    """
    @return: the entries of one batch, a log's record.
    @raise BadFile: it is none.
    """
    sequence, count = batch_head(record)
    try:
        at = _BATCH.size
        entries = []
        for place in range(count):
            kind = record[at]
            key, at = _string(record, at + 1)
            value = None
            if kind == 1:
                value, at = _string(record, at)
            elif kind != 0:
                raise BadFile("a batch holds what is neither written nor deleted")
            entries.append(Entry(key, sequence + place, value))
    except IndexError as error:
        raise BadFile("a batch is cut short") from error
    if at != len(record):
        raise BadFile("a batch is too long")
    return entries


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def _string(data: bytes, at: int) -> tuple[bytes, int]:
    length, at = _varint(data, at)
    if at + length > len(data):
        raise IndexError
    return data[at : at + length], at + length


# The manifest ----------------------------------------------------------------------------------------------------


def current(database: Path) -> Path:
    """
    @return: the manifest of a database that holds.
    @raise BadFile: the file that names it is missing or damaged; the text begins with its name.
    """
    try:
        match = _CURRENT.fullmatch((database / "CURRENT").read_bytes())
    except OSError as error:
        raise BadFile(f"CURRENT: {error.strerror}") from error
    if match is None:
        raise BadFile("CURRENT: it names no manifest")
    return database / match[1].decode()


class TableInfo(NamedTuple):
    """What the manifest says of a table: its size in bytes, and its smallest and largest key."""

    size: int
    smallest: bytes
    largest: bytes


class Manifest:
    """
    The list of the tables and logs that make up a database.

    @ivar path: where it is.
    @ivar tables: what it says of every table, by number.
    @ivar log: the number of the first log that is not in tables yet.
    @ivar sequence: a sequence number that was given when it was written.
    @ivar end: where the records end that were read, if some were left out.
    @ivar cut: as that of L{LogFile}.
    """

    def __init__(self, path: Path, leave_out: int = 0) -> None:
        """
        @param leave_out: of how many records at its end to take no notice.
        @raise BadFile: it is missing or damaged; the text begins with the file's name.
        """
        self.path = path
        self.tables: dict[int, TableInfo] = {}
        self.log = -1
        self.sequence = 0
        self.end: Optional[int] = None
        self._previous_log = 0
        file = LogFile(path)
        try:
            records = [(file.start, record) for record in file.records()]
            for place, (start, record) in enumerate(records):
                if place == len(records) - leave_out:
                    self.end = start
                    break
                self._apply(record)
        except OSError as error:
            raise BadFile(f"{self.path.name}: {error.strerror}") from error
        except IndexError as error:
            raise BadFile(f"{self.path.name}: a record is cut short") from error
        except BadFile as error:
            raise BadFile(f"{self.path.name}: {error}") from error
        if file.lost:
            raise BadFile(f"{self.path.name}: {file.lost[0].reason}")
        if self.log < 0:
            raise BadFile(f"{self.path.name}: it holds no state of the database")
        self.cut = file.cut

    def _apply(self, record: bytes) -> None:
        at = 0
        while at < len(record):
            tag, at = _varint(record, at)
            if tag == 1:  # the comparator
                _, at = _string(record, at)
            elif tag == 2:
                self.log, at = _varint(record, at)
            elif tag == 9:
                self._previous_log, at = _varint(record, at)
            elif tag == 3:  # the next file's number
                _, at = _varint(record, at)
            elif tag == 4:
                self.sequence, at = _varint(record, at)
            elif tag == 5:  # where the next compaction of a level begins
                _, at = _varint(record, at)
                _, at = _string(record, at)
            elif tag == 6:
                _, at = _varint(record, at)
                number, at = _varint(record, at)
                self.tables.pop(number, None)
            elif tag == 7:
                _, at = _varint(record, at)
                number, at = _varint(record, at)
                size, at = _varint(record, at)
                smallest, at = _string(record, at)
                largest, at = _string(record, at)
                self.tables[number] = TableInfo(size, smallest[:-8], largest[:-8])
            else:
                raise BadFile(f"it holds a record of kind {tag}, which is unknown")

    def logs(self, database: Path) -> dict[int, Path]:
        """@return: the logs that are not in tables yet, those of them that are there."""
        return {
            number: path for number, path in logs(database).items()
            if number >= self.log or number == self._previous_log
        }  # fmt: skip


# Tables ----------------------------------------------------------------------------------------------------------


class Handle(NamedTuple):
    """Where a block lies, and how long it is, without its trailer."""

    offset: int
    size: int


def footer(path: Path, size: int) -> Handle:
    """
    @param size: of the file.
    @return: where a table's index is.
    @raise BadFile: the footer is not one.
    @raise OSError: it cannot be read.
    """
    if size < _FOOTER:
        raise BadFile(f"it is cut short, to {size} bytes")
    with path.open("rb") as file:
        file.seek(size - _FOOTER)
        data = file.read(_FOOTER)
    if len(data) < _FOOTER or _FIXED64.unpack_from(data, _FOOTER - 8)[0] != _MAGIC:
        raise BadFile("its footer is not that of a table")
    try:
        at = 0
        for _ in range(2):
            offset, at = _varint(data[:-8], at)
            length, at = _varint(data[:-8], at)
            if offset + length + _TRAILER > size - _FOOTER:
                raise BadFile("its footer points outside the file")
    except IndexError as error:
        raise BadFile("its footer is damaged") from error
    return Handle(offset, length)


def _block_entries(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """
    @param data: a block without its trailer.
    @raise BadFile: it is none.
    """
    try:
        end = len(data) - 4 - 4 * _FIXED32.unpack_from(data, len(data) - 4)[0]
        at, key = 0, b""
        while at < end:
            key, value, at = _block_entry(data, at, key)
            yield key, value
    except (IndexError, struct_error) as error:
        raise BadFile("a block is not as it should be") from error


def _block_entry(data: bytes, at: int, before: bytes) -> tuple[bytes, bytes, int]:
    shared, own, length = data[at], data[at + 1], data[at + 2]
    if shared < 128 and own < 128 and length < 128:
        at += 3
    else:
        shared, at = _varint(data, at)
        own, at = _varint(data, at)
        length, at = _varint(data, at)
    if shared > len(before) or at + own + length > len(data):
        raise IndexError
    split = at + own
    return before[:shared] + data[at:split], data[split : split + length], split + length


def begins_with(path: Path, key: bytes) -> bool:
    """@return: whether a table's first key is this one, by a quick look that sees no checksum."""
    with path.open("rb") as file:
        data = file.read(len(key) + _LONGEST_HEAD)
    try:
        _, at = _varint(data, 0)
        own, at = _varint(data, at)
        _, at = _varint(data, at)
    except IndexError:
        return False
    return own == len(key) + 8 and data.startswith(key, at)


class Table:
    """
    A table, read block by block.

    @ivar lost: what could not be read of it so far.
    """

    def __init__(self, path: Path, info: Optional[TableInfo] = None) -> None:
        """@param info: what the manifest says of it, where there is one."""
        self.path = path
        self.lost: list[Lost] = []
        self._info = info

    @property
    def _largest(self) -> Optional[bytes]:
        return None if self._info is None else self._info.largest

    def first_key(self) -> bytes:
        """@return: a key of which it is known that no smaller one is in here."""
        if self._info is not None:
            return self._info.smallest
        try:
            return next((entry.key for entry in self.entries()), b"") if not self.lost else b""
        finally:
            self.lost.clear()

    def entries(self) -> Iterator[Entry]:
        """Read all that can be read, in order; a key that was written several times comes newest first."""
        try:
            size = self.path.stat().st_size
            file = self.path.open("rb")
        except OSError as error:
            self._lose(f"{error.strerror}")
            return
        with file:
            try:
                try:
                    index = list(_block_entries(_read_block(file.fileno(), footer(self.path, size), size)))
                    handles = [(separator[:-8], _handle(value)) for separator, value in index]
                except BadFile as error:
                    yield from self._without_index(file.fileno(), size, str(error))
                else:
                    yield from self._with_index(file.fileno(), handles, size)
            except OSError as error:
                self._lose(f"{error.strerror}")

    def first_damage(self) -> str:
        """@return: what is wrong with the first block that is damaged; empty where none is."""
        with self.path.open("rb") as file:
            size = self.path.stat().st_size
            try:
                for _, value in _block_entries(_read_block(file.fileno(), footer(self.path, size), size)):
                    handle = _handle(value)
                    try:
                        _read_block(file.fileno(), handle, size)
                    except BadFile as error:
                        return f"{error}, at {handle.offset} of {size}"
            except BadFile as error:
                return str(error)
        return ""

    def _lose(self, reason: str, start: Optional[bytes] = None, stop: Optional[bytes] = None) -> None:
        if start is None:
            start = self._info.smallest if self._info is not None else b""
        self.lost.append(Lost(reason, start, stop if stop is not None else self._largest))

    def _with_index(self, file: int, handles: list[tuple[bytes, Handle]], size: int) -> Iterator[Entry]:
        before = self._info.smallest if self._info is not None else b""
        for separator, handle in handles:
            try:
                yield from list(self._decoded(_read_block(file, handle, size)))
            except (BadFile, OSError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                self._lose(f"{reason}, at {handle.offset} of {size}", before, separator)
            before = separator

    def _decoded(self, block: bytes) -> Iterator[Entry]:
        for key, value in _block_entries(block):
            if len(key) < 8:
                raise BadFile("a block is not as it should be")
            packed = _FIXED64.unpack_from(key, len(key) - 8)[0]
            yield Entry(key[:-8], packed >> 8, value if packed & 255 else None)

    def _without_index(self, file: int, size: int, reason: str) -> Iterator[Entry]:
        """The blocks lie one behind the other, and each tells where it ends: up to the first that is damaged."""
        at, before = 0, None
        while True:
            block = _next_block(file, at, size)
            if block is None:
                break
            for entry in self._decoded(block):
                before = entry.key
                yield entry
            at += len(block) + _TRAILER
        if os.pread(file, len(_BEHIND_BLOCKS), at) == _BEHIND_BLOCKS:
            self.lost.append(Lost(f"{reason}; its contents are whole", b"", b""))
        else:
            self._lose(reason, before)


def _handle(value: bytes) -> Handle:
    try:
        offset, at = _varint(value, 0)
        return Handle(offset, _varint(value, at)[0])
    except IndexError as error:
        raise BadFile("its index is damaged") from error


def _read_block(file: int, handle: Handle, size: int) -> bytes:
    if handle.offset + handle.size + _TRAILER > size:
        raise BadFile("a block is cut off")
    data = os.pread(file, handle.size + _TRAILER, handle.offset)
    if len(data) < handle.size + _TRAILER:
        raise BadFile("a block is cut off")
    if masked(crc32c(data[:-4])) != _FIXED32.unpack_from(data, handle.size + 1)[0]:
        raise BadFile("the checksum of a block is wrong")
    if data[handle.size]:
        # This server compresses nothing, but a tool that has had the database open may have.
        return _uncompressed(data[: handle.size])
    return data[: handle.size]


def _uncompressed(data: bytes) -> bytes:
    """Undo Snappy."""
    out = bytearray()
    try:
        size, at = _varint(data, 0)
        while at < len(data):
            tag = data[at]
            kind, length = tag & 3, tag >> 2
            at += 1
            if kind == 0:  # bytes as they are
                if length >= 60:
                    more = length - 59
                    length = int.from_bytes(data[at : at + more], "little")
                    at += more
                out += data[at : at + length + 1]
                at += length + 1
                continue
            if kind == 1:  # what was there before, short and near
                offset, more, length = tag >> 5 << 8 | data[at], 1, (length & 7) + 3
            else:
                more = 2 if kind == 2 else 4
                offset = int.from_bytes(data[at : at + more], "little")
            at += more
            length += 1
            start = len(out) - offset
            if not offset or start < 0:
                raise BadFile("a compressed block is not as it should be")
            piece = out[start : start + length]
            out += (piece * (length // len(piece) + 1))[:length]
    except IndexError as error:
        raise BadFile("a compressed block is cut short") from error
    if len(out) != size:
        raise BadFile("a compressed block is not as long as it says")
    return bytes(out)


def _next_block(file: int, at: int, size: int) -> Optional[bytes]:
    """@return: the block of entries that begins at an offset; C{None} where there is no whole one."""
    window = 64 * 1024
    while True:
        data = os.pread(file, min(window, size - at), at)
        end = _end_of_block(data)
        if end is not None:
            return data[:end]
        if window > _LARGEST_BLOCK or at + window >= size:
            return None
        window *= 4


def _end_of_block(data: bytes) -> Optional[int]:
    """
    Go along the entries of a block until what follows can only be its restart points, and its checksum agrees.

    @return: the block's length; C{None} where it is none, or not all of it is here.
    """
    at, key, count = 0, b"", 0
    restarts = b""
    while True:
        if count % _RESTART == 0:
            key = b""
            restarts += _FIXED32.pack(at)
        try:
            key, _, at = _block_entry(data, at, key)
        except IndexError:
            return None
        if len(key) < 8:
            return None
        count += 1
        tail = restarts + _FIXED32.pack(len(restarts) // 4) + b"\0"
        if data.startswith(tail, at):
            end = at + len(tail)
            if masked(crc32c(data[:end])).to_bytes(4, "little") == data[end : end + 4]:
                return end - 1
