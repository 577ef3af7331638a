"""
Tables: blocks of entries, sorted by key, each with a checksum, and an index of the blocks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from struct import Struct
from struct import error as struct_error
from typing import Final, NamedTuple, Optional

from darner.store.files.crc32c import crc32c, masked
from darner.store.files.damage import BadFile, Lost
from darner.store.files.entry import Entry
from darner.store.files.manifest import TableInfo
from darner.store.files.snappy import uncompressed
from darner.store.files.varint import read_varint

_FIXED32: Final = Struct("<I")
_FIXED64: Final = Struct("<Q")

_FOOTER: Final = 48
_MAGIC: Final = 0xDB4775248B80FB57
_TRAILER: Final = 5
_RESTART: Final = 16
"""Every 16th entry of a block has its whole key."""
_LONGEST_HEAD: Final = 15
"""Maximum length of the three numbers before an entry's key."""
_LARGEST_BLOCK: Final = 2**30

def _behind_blocks() -> bytes:
    block = _FIXED32.pack(0) + _FIXED32.pack(1) + b"\0"
    return block + _FIXED32.pack(masked(crc32c(block)))


_BEHIND_BLOCKS: Final = _behind_blocks()
"""An empty index of further blocks, which follows the blocks of entries in every table."""


class Handle(NamedTuple):
    """Offset and size of a block, without its trailer."""

    offset: int
    size: int


def footer(path: Path, size: int) -> Handle:
    """
    @param size: of the file.
    @return: the handle of the table's index.
    @raise BadFile: the footer is malformed.
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
            offset, at = read_varint(data[:-8], at)
            length, at = read_varint(data[:-8], at)
            if offset + length + _TRAILER > size - _FOOTER:
                raise BadFile("its footer points outside the file")
    except IndexError as error:
        raise BadFile("its footer is damaged") from error
    return Handle(offset, length)


def _block_entries(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """
    @param data: a block without its trailer.
    @raise BadFile: it is malformed.
    """
    try:
        end = len(data) - 4 - 4 * _FIXED32.unpack_from(data, len(data) - 4)[0]
        at, key = 0, b""
        while at < end:
            key, value, at = _block_entry(data, at, key)
            yield key, value
    except (IndexError, struct_error) as error:
        raise BadFile("a block is malformed") from error


def _block_entry(data: bytes, at: int, before: bytes) -> tuple[bytes, bytes, int]:
    shared, own, length = data[at], data[at + 1], data[at + 2]
    if shared < 128 and own < 128 and length < 128:
        at += 3
    else:
        shared, at = read_varint(data, at)
        own, at = read_varint(data, at)
        length, at = read_varint(data, at)
    if shared > len(before) or at + own + length > len(data):
        raise IndexError
    split = at + own
    return before[:shared] + data[at:split], data[split : split + length], split + length


def begins_with(path: Path, key: bytes) -> bool:
    """@return: whether this is a table's first key; no checksum is verified."""
    with path.open("rb") as file:
        data = file.read(len(key) + _LONGEST_HEAD)
    try:
        _, at = read_varint(data, 0)
        own, at = read_varint(data, at)
        _, at = read_varint(data, at)
    except IndexError:
        return False
    return own == len(key) + 8 and data.startswith(key, at)


class Table:
    """
    A table, read block by block.

    @ivar lost: the unreadable parts found so far.
    """

    def __init__(self, path: Path, info: Optional[TableInfo] = None) -> None:
        """@param info: the manifest's entry for it, if there is a manifest."""
        self.path = path
        self.lost: list[Lost] = []
        self._info = info

    @property
    def last(self) -> Optional[bytes]:
        """The last key, if there is a manifest that says so."""
        return None if self._info is None else self._info.largest

    def first_key(self) -> bytes:
        """@return: a lower bound of the keys in the table."""
        if self._info is not None:
            return self._info.smallest
        try:
            return next((entry.key for entry in self.entries()), b"") if not self.lost else b""
        finally:
            self.lost.clear()

    def entries(self, unwanted: Callable[[bytes], bool] = lambda last: False) -> Iterator[Entry]:
        """
        Read every readable entry, ordered by key; of one key the newest first.

        @param unwanted: whether blocks up to this key may be left out.
        """
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
                    yield from self._with_index(file.fileno(), handles, size, unwanted)
            except OSError as error:
                self._lose(f"{error.strerror}")

    def first_damage(self) -> str:
        """@return: the reason for the first damaged block; empty if there is none."""
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
        self.lost.append(Lost(reason, start, stop if stop is not None else self.last))

    def _with_index(
        self, file: int, handles: list[tuple[bytes, Handle]], size: int, unwanted: Callable[[bytes], bool]
    ) -> Iterator[Entry]:
        before = self._info.smallest if self._info is not None else b""
        for separator, handle in handles:
            if unwanted(separator):
                before = separator
                continue
            try:
                yield from list(self._decoded(_read_block(file, handle, size)))
            except (BadFile, OSError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                self._lose(f"{reason}, at {handle.offset} of {size}", before, separator)
            before = separator

    def _decoded(self, block: bytes) -> Iterator[Entry]:
        for key, value in _block_entries(block):
            if len(key) < 8:
                raise BadFile("a block is malformed")
            packed = _FIXED64.unpack_from(key, len(key) - 8)[0]
            yield Entry(key[:-8], packed >> 8, value if packed & 255 else None)

    def _without_index(self, file: int, size: int, reason: str) -> Iterator[Entry]:
        """Read block after block up to the first damaged one: blocks are adjacent, and each tells where it ends."""
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
            self.lost.append(Lost(f"{reason}; its contents are complete", b"", b""))
        else:
            self._lose(reason, before)


def _handle(value: bytes) -> Handle:
    try:
        offset, at = read_varint(value, 0)
        return Handle(offset, read_varint(value, at)[0])
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
        return uncompressed(data[: handle.size])
    return data[: handle.size]


def _next_block(file: int, at: int, size: int) -> Optional[bytes]:
    """@return: the block of entries that begins at an offset; C{None} if there is no complete one."""
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
    Read the entries of a block until its restart points and a matching checksum follow.

    @return: the length of the block; C{None} if it is malformed or incomplete.
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
