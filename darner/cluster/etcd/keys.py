"""
The keys of a log in etcd, and what is in their values.

========================================  ====================================================================
key                                       value
========================================  ====================================================================
``darner/NAME/head``                      number and token of the last record: ``42 9f86d08...``
``darner/NAME/first``                     the lowest number that is not trimmed; absent: 1
``darner/NAME/record/NUMBER``             a record, or which pieces it consists of (L{Stored})
``darner/NAME/piece/NUMBER/UPLOAD/INDEX``  a piece of a large record
``darner/NAME/note/NODE``                 the note of a node
========================================  ====================================================================

Numbers in keys have 16 hexadecimal digits, so that keys sort as numbers do.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import NamedTuple, Optional

from darner.errors import LogDamaged

TOKEN_BYTES = 16

_WHOLE, _PIECES = 1, 2
_START = struct.Struct(f">B{TOKEN_BYTES}s")
_MANIFEST = struct.Struct(f">{TOKEN_BYTES}sIQI")


class Head(NamedTuple):
    """
    The last record.

    @ivar number: 0 where there is none.
    @ivar token: says which append it was; another append of the same number has another one.
    """

    number: int
    token: bytes

    def value(self) -> bytes:
        """@return: it as the value of its key."""
        return b"%d %b" % (self.number, self.token.hex().encode())


def new_head(number: int) -> Head:
    """@return: a head with that number, and a token that there has never been."""
    return Head(number, os.urandom(TOKEN_BYTES))


def read_head(value: Optional[bytes]) -> Head:
    """
    @param value: of the key C{head}; C{None} where there is none.
    @raise LogDamaged: it is none that a log writes.
    """
    if value is None:
        return Head(0, b"")
    try:
        number, token = value.split(b" ")
        return Head(int(number), bytes.fromhex(token.decode("ascii")))
    except ValueError as error:
        raise LogDamaged(f"the log's head is damaged: {value[:80]!r}") from error


def read_first(value: Optional[bytes]) -> int:
    """
    @param value: of the key C{first}; C{None} where there is none.
    @raise LogDamaged: it is none that a log writes.
    """
    try:
        return 1 if value is None else int(value)
    except ValueError as error:
        raise LogDamaged(f"where the log begins is damaged: {value[:80]!r}") from error  # type: ignore[index]


class Stored(NamedTuple):
    """
    What the key of a record has: the record, or what says where its pieces are.

    @ivar token: of the append.
    @ivar record: the record itself; empty where there are pieces.
    @ivar upload: under which the pieces are; empty where there are none.
    @ivar pieces: how many there are.
    @ivar size: of the record that they make, in bytes.
    @ivar checksum: the CRC-32 of that record.
    """

    token: bytes
    record: bytes = b""
    upload: bytes = b""
    pieces: int = 0
    size: int = 0
    checksum: int = 0

    def value(self) -> bytes:
        """@return: it as the value of its key."""
        if not self.upload:
            return _START.pack(_WHOLE, self.token) + self.record
        manifest = _MANIFEST.pack(self.upload, self.pieces, self.size, self.checksum)
        return _START.pack(_PIECES, self.token) + manifest

    def check(self, number: int, record: bytes) -> bytes:
        """
        @return: the record that was made of the pieces.
        @raise LogDamaged: it is not the one that was appended.
        """
        if len(record) != self.size or zlib.crc32(record) != self.checksum:
            raise LogDamaged(f"record {number} is damaged: its {self.pieces} pieces do not make what was appended")
        return record


def read_stored(number: int, value: bytes) -> Stored:
    """
    @param value: of a record's key.
    @raise LogDamaged: it is none that a log writes.
    """
    if len(value) >= _START.size:
        kind, token = _START.unpack_from(value)
        if kind == _WHOLE:
            return Stored(token, value[_START.size :])
        if kind == _PIECES and len(value) == _START.size + _MANIFEST.size:
            return Stored(token, b"", *_MANIFEST.unpack_from(value, _START.size))
    raise LogDamaged(f"record {number} is damaged, or of a later version: it begins with {value[:32]!r}")


class Keys:
    """
    The keys of one log.

    @ivar head: the key of its head.
    @ivar first: the key of its first number.
    @ivar notes: the range of the notes: the first key, and the one after the last.
    """

    def __init__(self, name: str) -> None:
        """@param name: of the log."""
        prefix = f"darner/{name}/".encode("ascii")
        self.head = prefix + b"head"
        self.first = prefix + b"first"
        self._record = prefix + b"record/"
        self._piece = prefix + b"piece/"
        self._note = prefix + b"note/"
        self.notes = (self._note, prefix + b"note0")
        self._end_of_records = prefix + b"record0"

    def record(self, number: int) -> bytes:
        """@return: the key of a record."""
        return self._record + b"%016x" % number

    def records(self, start: int, stop: Optional[int] = None) -> tuple[bytes, bytes]:
        """@return: the range of records from C{start} up to, not including, C{stop}; C{None}: all after it."""
        return self.record(start), self._end_of_records if stop is None else self.record(stop)

    def number(self, key: bytes) -> int:
        """@return: the number of the record with that key."""
        return int(key[len(self._record) :], 16)

    def piece(self, number: int, upload: bytes, index: int) -> bytes:
        """@return: the key of a piece."""
        return self._piece + b"%016x/%b/%06x" % (number, upload.hex().encode(), index)

    def pieces(self, stop: int) -> tuple[bytes, bytes]:
        """@return: the range of all pieces of records with lower numbers."""
        return self._piece, self._piece + b"%016x" % stop

    def note(self, node: str) -> bytes:
        """@return: the key of a node's note."""
        return self._note + node.encode("ascii")

    def node(self, key: bytes) -> str:
        """@return: the node whose note has that key."""
        return key[len(self._note) :].decode("ascii")
