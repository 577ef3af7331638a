"""
Taking a snapshot from a node.  It blocks: in a thread of a node, or in a program.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from darner.cluster.replicated_store import ReplicatedStore
from darner.cluster.snapshots.addresses import split_address
from darner.cluster.snapshots.exchange import (
    FRAME,
    HEAD,
    LINE,
    NONCE,
    Frames,
    Header,
    SnapshotError,
    frame_key,
    read_greeting,
    request,
)
from darner.errors import StoreError
from darner.store.backup.restoring import restore_stream
from darner.store.directory import DATABASE, SNAPSHOT, TAKING, sync

PATIENCE: Final = 5.0
"""Seconds to connect, and for the greeting."""
STALL: Final = 90.0
"""Seconds within which the next bytes have to come; the giver looks up its files first, which may be many."""
LOOK: Final = 0.5
"""Seconds between two looks whether to go on."""
SPARE: Final = 64 << 20
"""Bytes that stay free on the disk."""


class Taking:
    """
    A snapshot that a node gives.

    @ivar header: what the node says of it.
    @ivar bytes: how many bytes of it were read.
    """

    def __init__(self, address: str, secret: bytes, proceed: Callable[[], None] = lambda: None) -> None:
        """
        Ask for it.

        @param address: C{HOST:PORT} of the giver.
        @param secret: of its note.
        @param proceed: is called from time to time, and raises an error to end it.
        @raise SnapshotError: the node gives none.
        """
        self._address = address
        self._proceed = proceed
        self._content = memoryview(b"")
        self._ended = False
        self._patience = PATIENCE
        self.bytes = 0
        try:
            self._socket = socket.create_connection(split_address(address), PATIENCE)
        except OSError as error:
            raise SnapshotError(f"{address}: {error.strerror or error}") from None
        try:
            self._socket.settimeout(LOOK)
            giver = read_greeting(self._line())
            taker = secrets.token_bytes(NONCE)
            self._send(request(secret, giver, taker))
            self._frames = Frames(frame_key(secret, giver, taker))
            self._patience = STALL
            self.header = Header.from_bytes(self._frame())
            if self.header.refused:
                raise SnapshotError(f"{address}: {self.header.refused}")
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Take no more of it.  Idempotent."""
        self._socket.close()

    def read(self, most: int) -> bytes:
        """
        As C{read} of a file.

        @raise SnapshotError: it is cut short, or not what the giver has sent.
        """
        if not self._content and not self._ended:
            self._content = memoryview(self._frame())
            self._ended = not self._content
        piece = bytes(self._content[:most])
        self._content = self._content[most:]
        self.bytes += len(piece)
        return piece

    def _line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n") and len(line) < LINE:
            line += self._exactly(1)
        return line

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise SnapshotError(f"{self._address}: {error.strerror or error}") from None

    def _frame(self) -> bytes:
        length, tag = HEAD.unpack(self._exactly(HEAD.size))
        if length > FRAME:
            raise SnapshotError(f"{self._address}: what it sends is no snapshot")
        content = self._exactly(length)
        self._frames.check(content, tag)
        return content

    def _exactly(self, size: int) -> bytes:
        data = bytearray(size)
        rest = memoryview(data)
        late = time.monotonic() + self._patience
        while rest:
            self._proceed()
            try:
                count = self._socket.recv_into(rest)
            except TimeoutError:
                if time.monotonic() < late:
                    continue
                raise SnapshotError(f"{self._address}: it sends nothing more") from None
            except OSError as error:
                raise SnapshotError(f"{self._address}: {error.strerror or error}") from None
            if not count:
                raise SnapshotError(f"{self._address}: the connection was closed too early")
            rest = rest[count:]
            late = time.monotonic() + self._patience
        return bytes(data)


def take(taking: Taking, data_dir: Path) -> tuple[str, int]:
    """
    Take a snapshot into a data directory, beside what is there, verified and on stable storage.

    @return: the cluster and the position of its store.  L{complete} makes it ready to be installed.
    @raise StoreError: it is not what it should be, or cannot be written.  Nothing of it stays.
    """
    target = data_dir / TAKING
    try:
        shutil.rmtree(target, ignore_errors=True)
        space = os.statvfs(data_dir)
        free = space.f_bavail * space.f_frsize
        if free < taking.header.size + SPARE:
            raise StoreError(f"a snapshot has {taking.header.size} bytes, and {free} are free in {data_dir}")
        restore_stream(taking.read, target)
        store = ReplicatedStore(target)
        told = store.cluster.hex(), store.position
        store.close()
        # LevelDB has made new files, and syncs not all of them.
        for file in (target / DATABASE).iterdir():
            sync(file)
        sync(target / DATABASE)
    except OSError as error:
        discard(data_dir)
        raise StoreError(f"cannot take a snapshot into {data_dir}: {error.strerror or error}") from error
    except BaseException:
        discard(data_dir)
        raise
    if told[0] != taking.header.cluster or told[1] < taking.header.position:
        discard(data_dir)
        raise SnapshotError(f"the snapshot is of record {told[1]} of cluster {told[0]}, and not what was announced")
    return told


def complete(data_dir: Path) -> None:
    """A snapshot is what was wanted: from now on it replaces what is in the directory, at the next L{install}."""
    (data_dir / TAKING).rename(data_dir / SNAPSHOT)
    sync(data_dir)


def discard(data_dir: Path) -> None:
    """Remove a snapshot that is not complete."""
    shutil.rmtree(data_dir / TAKING, ignore_errors=True)
