"""
What the records of a cluster's log hold.

Most hold what one turn wrote, or nothing where the turn only answered; a L{CLAIM} says who leads from then on.  A turn
that is too large for a record is cut: L{PART} after L{PART}, and a L{TURN} with the rest.

A record begins with its version and flags.  A node refuses versions, kinds and flags that it does not know, as it could
not apply the record; it skips fields that were added at the end of the header, which it can do without.
"""

from __future__ import annotations

import secrets
import zlib
from dataclasses import dataclass
from struct import Struct
from typing import Final, Optional

from darner.errors import LogDamaged, StoreError
from darner.store.batch import Batch

TURN: Final = 0
"""What a turn wrote, or the last part of that."""
CLAIM: Final = 1
"""From this record on, its node leads.  Parts before it that nobody completed are void."""
PART: Final = 2
"""A part of what a turn wrote, which the next record continues."""

VERSION: Final = 1
COMPRESSED: Final = 1
"""A flag: the body is compressed by zlib."""
COMPRESS_FROM: Final = 512
"""Bytes of a body from which it is worth to be compressed..."""
SAMPLE: Final = 4096
"""
...if this many bytes of it shrink by a quarter.  That takes about 20 ms of processor time for each MiB, so it must be
worth it: random letters, and what is compressed and in Base64, shrink by less.
"""

_PREFIX: Final = Struct(">2sBBHHI")  # magic, version, kind, flags, bytes of the fields, CRC-32 of all but itself
_FIELDS: Final = Struct(">16sQQB")  # the cluster, the claim, the time in ms since the epoch, bytes of the name
_MAGIC: Final = b"dr"
OVERHEAD: Final = 512
"""More than a record has besides its body."""
_TOKEN: Final = 8


@dataclass(frozen=True)
class Record:
    """
    One record.

    @ivar kind: L{TURN}, L{CLAIM} or L{PART}.
    @ivar cluster: 16 bytes by which a cluster knows its own records.
    @ivar claim: the number of the record by which the node leads that appended this one; its own for a claim.
    @ivar wall: the time by that node's wall clock, in ms since the epoch.
    @ivar node: the name of that node: up to 250 bytes.
    @ivar body: of a turn the bytes of its batch (L{Batch.to_bytes}), or a part of them; empty where it wrote nothing.
        Of a claim random bytes, and one that says how long it is waited for (L{waited_times}).
    """

    kind: int
    cluster: bytes
    claim: int
    wall: int
    node: bytes
    body: bytes = b""

    def to_bytes(self) -> bytes:
        """@return: the record for L{from_bytes}."""
        body, flags = self.body, 0
        if len(body) >= COMPRESS_FROM and len(zlib.compress(body[:SAMPLE], 1)) < min(len(body), SAMPLE) * 3 // 4:
            body, flags = zlib.compress(body, 1), COMPRESSED
        fields = _FIELDS.pack(self.cluster, self.claim, self.wall, len(self.node)) + self.node
        rest = fields + body
        head = (_MAGIC, VERSION, self.kind, flags, len(fields))
        checksum = zlib.crc32(rest, zlib.crc32(_PREFIX.pack(*head, 0)))
        return _PREFIX.pack(*head, checksum) + rest

    @staticmethod
    def from_bytes(data: bytes) -> Record:
        """
        @param data: from L{to_bytes}, of this version or of one that added fields.
        @raise LogDamaged: it is damaged, or of a version that this one does not understand.
        """
        if len(data) < _PREFIX.size:
            raise LogDamaged("a record is damaged: it is cut short")
        magic, version, kind, flags, length, checksum = _PREFIX.unpack_from(data)
        if magic != _MAGIC:
            raise LogDamaged("a record is damaged, or is none of darner's")
        computed = zlib.crc32(data[_PREFIX.size :], zlib.crc32(_PREFIX.pack(magic, version, kind, flags, length, 0)))
        if checksum != computed:
            raise LogDamaged("a record is damaged: its checksum is wrong")
        if version != VERSION or kind not in (TURN, CLAIM, PART) or flags & ~COMPRESSED:
            raise LogDamaged(
                f"a record (version {version}, kind {kind}, flags {flags}) is of a newer version of darner: upgrade "
                "this node"
            )
        start = _PREFIX.size
        cluster, claim, wall, name = _FIELDS.unpack_from(data, start)
        at = start + _FIELDS.size
        body = data[start + length :]
        if flags & COMPRESSED:
            body = zlib.decompress(body)
        return Record(kind, cluster, claim, wall, data[at : at + name], body)


def claim_body(times: int) -> bytes:
    """
    @param times: how many times as long as usual others are to wait for this leader (`darner.cluster.patience`).
    @return: the body of a claim, which no other claim has.
    """
    return secrets.token_bytes(_TOKEN) + bytes([times])


def waited_times(body: bytes) -> int:
    """@return: what a claim says by L{claim_body}; 1 if it says nothing, as those of older versions."""
    return max(1, body[_TOKEN]) if len(body) > _TOKEN else 1


def pack_batch(batch: Batch) -> bytes:
    """@return: the body for a batch."""
    return batch.to_bytes() if batch.writes else b""


def unpack_batch(body: bytes) -> Optional[Batch]:
    """
    @param body: of a whole turn.
    @return: its batch; C{None} where it wrote nothing.
    @raise LogDamaged: it is damaged, or of a version that this one does not understand.
    """
    if not body:
        return None
    try:
        return Batch.from_bytes(body)
    except StoreError as error:
        raise LogDamaged(f"a record cannot be applied: {error}") from error
