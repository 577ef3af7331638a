"""
The file of ``darner export``: items one after the other, each with a checksum.  `docs/command_line.rst` describes it.

It is written and read as a stream.  One that was cut short can be read up to there, and be gone on with.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, Optional

MAGIC: Final = b"darner-export 1\n"
_FAMILY: Final = b"darner-export "
LONGEST: Final = 1 << 20
"""Bytes of a block's body at most, but for what goes before the payload of an item."""

_HEAD: Final = struct.Struct(">cI")
_CHECKSUM: Final = struct.Struct(">I")
_ITEM: Final = struct.Struct(">IQQQcB")
HEADER, QUEUE, ITEM, PIECE, END = (b"H", b"Q", b"I", b"P", b"E")
STATE_LETTERS: Final = {"ready": b"r", "retrying": b"t", "delayed": b"d", "open": b"o", "dead": b"x"}
_STATES: Final = {letter: state for state, letter in STATE_LETTERS.items()}


class BadArchive(Exception):
    """
    The file is not what C{darner export} writes, or is damaged.

    @ivar position: of the first byte that is wrong.
    """

    def __init__(self, reason: str, position: int) -> None:
        super().__init__(f"{reason}, at byte {position}")
        self.position = position


class CutShort(BadArchive):
    """The file ends before its end was written."""


@dataclass(frozen=True)
class Record:
    """
    An item.

    @ivar expires: when it expires, in ms since the epoch; 0 is never.
    @ivar due: when it is to be had, in ms since the epoch; 0 is at once.
    @ivar state: which it was in.
    @ivar id: what the server called it; empty where that is not known.
    """

    queue: str
    flags: int
    size: int
    expires: int = 0
    due: int = 0
    state: str = "ready"
    id: str = ""


class Writer:
    """
    Writes an archive.

    @ivar items: how many are in it.
    @ivar bytes: of their payload.
    """

    def __init__(self, file: BinaryIO, digest: Any = None, items: int = 0, bytes: int = 0, queue: str = "") -> None:
        """@param digest: of what is in the file already, and so for the rest; see L{Scan}."""
        self._file = file
        self._digest = hashlib.sha256() if digest is None else digest
        self._queue = queue
        self.items = items
        self.bytes = bytes

    def begin(self, facts: dict[str, Any]) -> None:
        """Begin a new file.  @param facts: what its header says."""
        self._write(MAGIC)
        self._block(HEADER, json.dumps(facts).encode())

    def put(self, record: Record, payload: Iterable[bytes]) -> None:
        """@param payload: its pieces, C{record.size} bytes together."""
        if record.queue != self._queue:
            self._block(QUEUE, record.queue.encode())
            self._queue = record.queue
        id = record.id.encode()
        head = _ITEM.pack(
            record.flags, record.expires, record.due, record.size, STATE_LETTERS[record.state], len(id)
        ) + id  # fmt: skip
        pieces = _even(payload)
        self._block(ITEM, head + next(pieces, b""))
        for piece in pieces:
            self._block(PIECE, piece)
        self.items += 1
        self.bytes += record.size

    def end(self) -> None:
        """Say that this is all."""
        facts = {"items": self.items, "bytes": self.bytes, "sha256": self._digest.hexdigest()}
        self._block(END, json.dumps(facts).encode())

    def _block(self, kind: bytes, body: bytes) -> None:
        head = _HEAD.pack(kind, len(body))
        self._write(head + body + _CHECKSUM.pack(zlib.crc32(body, zlib.crc32(head))))

    def _write(self, data: bytes) -> None:
        self._digest.update(data)
        self._file.write(data)


def _even(payload: Iterable[bytes]) -> Iterator[bytes]:
    """@return: the same bytes in pieces that fit a block."""
    held = bytearray()
    for piece in payload:
        held += piece
        while len(held) >= LONGEST:
            yield bytes(held[:LONGEST])
            del held[:LONGEST]
    if held:
        yield bytes(held)


class Reader:
    """
    Reads an archive.

    @ivar header: what its header says.
    @ivar position: how many bytes have been read of blocks that are right.
    @ivar complete: whether its end was read.
    """

    def __init__(self, file: BinaryIO) -> None:
        """@raise BadArchive: it is none."""
        self._file = file
        self._queue = ""
        self.digest = hashlib.sha256()
        self.position = 0
        self.complete = False
        self.items = 0
        self.bytes = 0
        magic = self._read(len(MAGIC))
        if magic != MAGIC:
            if magic.startswith(_FAMILY) and len(magic) == len(MAGIC):
                raise BadArchive("it is of a version that this darner does not know", 0)
            raise (CutShort if MAGIC.startswith(magic) else BadArchive)("this is no file of darner export", 0)
        self._took(magic)
        kind, body = self._block()
        if kind != HEADER:
            raise BadArchive("there is no header", self.position)
        self.header: dict[str, Any] = self._facts(body)

    def records(self) -> Iterator[tuple[Record, Iterator[bytes]]]:
        """
        @return: the items with their payloads, each of which is to be read before the next one.
        @raise BadArchive: something is wrong; L{CutShort} where the file ends too early.
        """
        while True:
            before = self.position
            kind, body = self._block()
            if kind == QUEUE:
                self._queue = body.decode("ascii", "replace")
            elif kind == ITEM:
                record, first = self._item(body, before)
                payload = self._payload(record, first)
                yield record, payload
                for _ in payload:
                    pass  # what was not read
                self.items += 1
                self.bytes += record.size
            elif kind == END:
                self._end(body, before)
                return
            else:
                raise BadArchive(f"a block of an unknown kind {kind!r}", before)

    def _item(self, body: bytes, before: int) -> tuple[Record, bytes]:
        if len(body) < _ITEM.size or not self._queue:
            raise BadArchive("an item that is none", before)
        flags, expires, due, size, state, length = _ITEM.unpack_from(body)
        start = _ITEM.size + length
        if state not in _STATES or len(body) < start:
            raise BadArchive("an item that is none", before)
        id = body[_ITEM.size : start].decode("ascii", "replace")
        return Record(self._queue, flags, size, expires, due, _STATES[state], id), body[start:]

    def _payload(self, record: Record, first: bytes) -> Iterator[bytes]:
        left = record.size - len(first)
        if first:
            yield first
        while left > 0:
            before = self.position
            kind, body = self._block()
            if kind != PIECE or len(body) > left:
                raise BadArchive("the payload of an item is not whole", before)
            left -= len(body)
            yield body
        if left < 0:
            raise BadArchive("the payload of an item is longer than it says", self.position)

    def _end(self, body: bytes, before: int) -> None:
        facts = self._facts(body)
        if (facts.get("items"), facts.get("bytes")) != (self.items, self.bytes):
            raise BadArchive(f"it has {self.items} items and says {facts.get('items')}", before)
        if facts.get("sha256") != self._before_end:
            raise BadArchive("its checksum is wrong", before)
        if self._file.read(1):
            raise BadArchive("something follows its end", self.position)
        self.complete = True

    def _facts(self, body: bytes) -> dict[str, Any]:
        try:
            facts = json.loads(body)
        except ValueError:
            facts = None
        if not isinstance(facts, dict):
            raise BadArchive("a block that is none", self.position)
        return facts

    def _block(self) -> tuple[bytes, bytes]:
        head = self._read(_HEAD.size)
        if len(head) < _HEAD.size:
            raise CutShort("it is cut short", self.position)
        kind, length = _HEAD.unpack(head)
        if length > LONGEST + _ITEM.size + 255:
            raise BadArchive("a block that is none", self.position)
        rest = self._read(length + _CHECKSUM.size)
        if len(rest) < length + _CHECKSUM.size:
            raise CutShort("it is cut short", self.position)
        body = rest[:length]
        if zlib.crc32(body, zlib.crc32(head)) != _CHECKSUM.unpack(rest[length:])[0]:
            raise BadArchive("a checksum is wrong", self.position)
        self._before_end = self.digest.hexdigest() if kind == END else ""
        self._took(head + rest)
        return kind, body

    def _read(self, size: int) -> bytes:
        """@return: so many bytes; fewer where the file ends."""
        data = self._file.read(size)
        while len(data) < size:
            more = self._file.read(size - len(data))
            if not more:
                break
            data += more
        return data

    def _took(self, data: bytes) -> None:
        self.digest.update(data)
        self.position += len(data)


@dataclass
class Scan:
    """
    What is in a file that is to be gone on with.

    @ivar position: where to go on: behind the last item that is whole.
    @ivar digest: of what is before that.
    @ivar last: the last item.
    """

    header: dict[str, Any]
    position: int
    digest: Any
    items: int
    bytes: int
    last: Optional[Record]
    complete: bool


def scan(file: BinaryIO) -> Scan:
    """
    Read all of a file that may be cut short.

    @raise BadArchive: it is damaged otherwise, or not even its header is whole.
    """
    reader = Reader(file)
    found = Scan(reader.header, reader.position, reader.digest.copy(), 0, 0, None, False)
    try:
        for record, payload in reader.records():
            for _ in payload:
                pass
            found = Scan(
                reader.header, reader.position, reader.digest.copy(), reader.items + 1, reader.bytes + record.size,
                record, False,
            )  # fmt: skip
    except CutShort:
        return found
    found.complete = reader.complete
    return found
