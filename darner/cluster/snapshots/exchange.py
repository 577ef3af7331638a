"""
What the node that gives a snapshot and the one that takes it say to each other, as bytes.

The giver greets with random bytes.  The taker answers with random bytes of its own, and proves that it knows the secret
in the giver's note, which only those who may read the cluster's etcd can know.  All that the giver says from then on is
in frames with a tag, which proves the same of the giver, and that nothing was changed, left out or put in.  The first
frame has a L{Header}, the others a stream of `darner.store.backup.archive`.  Nothing is encrypted.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from dataclasses import asdict, dataclass
from struct import Struct
from typing import Any, Final

from darner.errors import StoreError

NONCE: Final = 16
"""Random bytes of each side."""
FRAME: Final = 1 << 20
"""Bytes of a frame's content at most."""
TAG: Final = 32
HEAD: Final = Struct(f">I{TAG}s")
"""Before each frame: how long its content is, and its tag."""
LINE: Final = 256
"""Bytes of a greeting or a request at most."""

_GREETING: Final = re.compile(rb"darner snapshot 1 ([0-9a-f]{%d})\n" % (2 * NONCE))
_REQUEST: Final = re.compile(rb"take ([0-9a-f]{%d}) ([0-9a-f]{%d})\n" % (2 * NONCE, 2 * TAG))


class SnapshotError(StoreError):
    """A snapshot cannot be taken from a node.  Another one may give one, or the same one later."""


@dataclass(frozen=True)
class Header:
    """
    What the giver says first.

    @ivar refused: why it gives none; empty if it does.
    @ivar cluster: hexadecimal digits that name its cluster.
    @ivar position: it has applied at least the records up to this one.
    @ivar size: the bytes of all files.
    @ivar version: of darner.
    """

    refused: str = ""
    cluster: str = ""
    position: int = 0
    size: int = 0
    version: str = ""

    def to_bytes(self) -> bytes:
        """@return: the header for L{from_bytes}."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def from_bytes(data: bytes) -> Header:
        """
        @param data: from L{to_bytes}, of this version or of one that added fields.
        @raise SnapshotError: it is none.
        """
        try:
            told: dict[str, Any] = json.loads(data)
            return Header(
                str(told["refused"]), str(told["cluster"]), int(told["position"]), int(told["size"]),
                str(told["version"]),
            )  # fmt: skip
        except (ValueError, TypeError, KeyError):
            raise SnapshotError("what the node says is no header of a snapshot") from None


def read_secret(text: str) -> bytes:
    """@param text: hexadecimal digits of a note.  @raise SnapshotError: they are none."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise SnapshotError("what its note says is no secret") from None


def greeting(nonce: bytes) -> bytes:
    """@param nonce: random bytes of the giver.  @return: what it says first."""
    return b"darner snapshot 1 %s\n" % nonce.hex().encode()


def read_greeting(line: bytes) -> bytes:
    """@return: the giver's random bytes.  @raise SnapshotError: it is no greeting."""
    match = _GREETING.fullmatch(line)
    if match is None:
        raise SnapshotError("there is no node that gives snapshots, or one of a version that this one does not know")
    return bytes.fromhex(match[1].decode())


def request(secret: bytes, giver: bytes, taker: bytes) -> bytes:
    """
    @param secret: from the giver's note.
    @param giver: the random bytes of its greeting.
    @param taker: random bytes of the taker.
    @return: what the taker asks with.
    """
    return b"take %s %s\n" % (taker.hex().encode(), _proof(secret, b"take", giver, taker).hex().encode())


def read_request(line: bytes, secret: bytes, giver: bytes) -> bytes:
    """
    @return: the key of all frames.
    @raise SnapshotError: it is no request, or of somebody who does not know the secret.
    """
    match = _REQUEST.fullmatch(line)
    taker = b"" if match is None else bytes.fromhex(match[1].decode())
    proof = b"" if match is None else bytes.fromhex(match[2].decode())
    if not hmac.compare_digest(proof, _proof(secret, b"take", giver, taker)):
        raise SnapshotError("it does not know the secret in the note of this node")
    return frame_key(secret, giver, taker)


def frame_key(secret: bytes, giver: bytes, taker: bytes) -> bytes:
    """@return: the key of all frames of a connection.  The parameters are those of L{request}."""
    return _proof(secret, b"give", giver, taker)


def _proof(secret: bytes, what: bytes, giver: bytes, taker: bytes) -> bytes:
    return hmac.digest(secret, what + giver + taker, hashlib.sha256)


class Frames:
    """The tags of the frames of one connection, in their order."""

    empty: Final = HEAD.size
    """Bytes of a frame without content, which is the last one."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._number = 0

    def pack(self, content: bytes) -> bytes:
        """@param content: at most L{FRAME} bytes; empty in the last frame.  @return: the next frame."""
        return HEAD.pack(len(content), self._tag(content)) + content

    def check(self, content: bytes, tag: bytes) -> None:
        """@raise SnapshotError: the next frame is not as the giver has sent it."""
        if not hmac.compare_digest(tag, self._tag(content)):
            raise SnapshotError("the snapshot was changed on its way, or is not from the node that it was asked of")

    def _tag(self, content: bytes) -> bytes:
        tag = hmac.new(self._key, self._number.to_bytes(8, "big"), hashlib.sha256)
        tag.update(content)
        self._number += 1
        return tag.digest()
