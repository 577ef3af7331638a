"""
Decompression of Snappy.  Darner compresses nothing, but another tool that has had the database open may have.
"""

from __future__ import annotations

from darner.store.files.damage import BadFile
from darner.store.files.varint import read_varint


def uncompressed(data: bytes) -> bytes:
    """
    @param data: a compressed block.
    @raise BadFile: it is damaged.
    """
    out = bytearray()
    try:
        size, at = read_varint(data, 0)
        while at < len(data):
            tag = data[at]
            kind, length = tag & 3, tag >> 2
            at += 1
            if kind == 0:  # literal bytes
                if length >= 60:
                    more = length - 59
                    length = int.from_bytes(data[at : at + more], "little")
                    at += more
                out += data[at : at + length + 1]
                at += length + 1
                continue
            if kind == 1:  # a short copy from nearby
                offset, more, length = tag >> 5 << 8 | data[at], 1, (length & 7) + 3
            else:
                more = 2 if kind == 2 else 4
                offset = int.from_bytes(data[at : at + more], "little")
            at += more
            length += 1
            start = len(out) - offset
            if not offset or start < 0:
                raise BadFile("a compressed block is malformed")
            piece = out[start : start + length]
            out += (piece * (length // len(piece) + 1))[:length]
    except IndexError as error:
        raise BadFile("a compressed block is cut short") from error
    if len(out) != size:
        raise BadFile("a compressed block has the wrong length")
    return bytes(out)
