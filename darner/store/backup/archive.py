"""
A backup as one stream: a tar archive of regular files whose last member is the manifest.

Any tar lists and unpacks it.  It is read here by strict rules: who wrote a stream may be hostile.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path
from typing import Final, Optional

from darner.store.backup.contents import (
    MANIFEST,
    MOST_BYTES,
    BackupDamaged,
    BackupFile,
    Captured,
    Contents,
    check_name,
)
from darner.store.backup.copying import PIECE, pieces, write_file
from darner.store.directory import sync

BLOCK: Final = 512
END: Final = bytes(2 * BLOCK)
"""The end of an archive."""

Read = Callable[[int], bytes]
"""Reads up to so many bytes of a stream; empty at its end."""
Reuse = Callable[[BackupFile, Path], Optional[str]]
"""Puts a file that a stream leaves out in its place, and returns its checksum; C{None} if it cannot."""


def nothing(_: BackupFile, __: Path) -> Optional[str]:
    """Nothing is there to be used again."""
    return None


def header(name: str, size: int, time: int) -> bytes:
    """@param time: in ms since the epoch.  @return: what stands before a file."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o600, time // 1000
    return info.tobuf(tarfile.GNU_FORMAT)


def padding(size: int) -> bytes:
    """@return: what stands behind a file of this size."""
    return bytes(-size % BLOCK)


class _Source:
    """A stream that is read exactly."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self.at = 0

    def pieces(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self._read(min(size, PIECE))
            if not piece:
                raise BackupDamaged(f"the stream is cut short after {self.at} bytes")
            size -= len(piece)
            self.at += len(piece)
            yield piece

    def exactly(self, size: int) -> bytes:
        return b"".join(self.pieces(size))

    def member(self) -> tuple[str, int]:
        """@return: name and size of the next file."""
        at = self.at
        try:
            info = tarfile.TarInfo.frombuf(self.exactly(BLOCK), "ascii", "strict")
        except (tarfile.HeaderError, ValueError):
            raise BackupDamaged(f"the stream is damaged at byte {at}") from None
        if info.type != tarfile.REGTYPE or info.size < 0:
            raise BackupDamaged(f"the stream has something else than a file at byte {at}")
        return info.name, info.size


def receive(read: Read, target: Path, reuse: Reuse = nothing) -> Contents:
    """
    Write the files of a stream into a directory, on stable storage, and verify them.

    @param target: an existing directory, which has none of the files yet.
    @return: what there is now; the manifest itself is not written.
    @raise BackupDamaged: the stream is cut short or damaged.
    @raise OSError: the files cannot be written.
    """
    source = _Source(read)
    received: dict[str, tuple[int, str]] = {}
    while True:
        name, size = source.member()
        if name == MANIFEST:
            break
        check_name(name)
        if name in received:
            raise BackupDamaged(f"the stream has {name} twice")
        folder = target / name.partition("/")[0]
        folder.mkdir(mode=0o700, exist_ok=True)
        received[name] = write_file(target / name, source.pieces(size))
        source.exactly(-size % BLOCK)
    if size > MOST_BYTES:
        raise BackupDamaged(f"{MANIFEST}: it is too long")
    contents = Contents.from_bytes(source.exactly(size))
    source.exactly(-size % BLOCK)
    if any(source.exactly(len(END))):
        raise BackupDamaged(f"the stream has something behind {MANIFEST}")
    files = tuple(_complete(file, received, target, reuse) for file in contents.files)
    if received:
        raise BackupDamaged(f"{min(received)}: {MANIFEST} does not name it")
    for folder in sorted({target / file.name.partition("/")[0] for file in files}):
        sync(folder)
    sync(target)
    return Contents(contents.version, contents.time, contents.position, files)


def _complete(file: BackupFile, received: dict[str, tuple[int, str]], target: Path, reuse: Reuse) -> BackupFile:
    """@return: the entry of a file that is in its place now, with its checksum."""
    there = received.pop(file.name, None)
    if there is not None:
        size, sha256 = there
        if size != file.size or sha256 != file.sha256:
            raise BackupDamaged(f"{file.name}: it differs from what {MANIFEST} says")
        return file
    path = target / file.name
    path.parent.mkdir(mode=0o700, exist_ok=True)
    known = reuse(file, path) if file.identity and file.sha256 is None else None
    if known is None:
        raise BackupDamaged(f"{file.name}: the stream does not have it")
    return file.with_checksum(known)


def send(files: Iterable[Captured], known: Container[str], conclude: Callable[[tuple[BackupFile, ...]], Contents]) -> (
    Iterator[bytes]
):
    """
    Make a stream.

    @param known: the identities of files that the receiver has, and that are left out.
    @param conclude: makes the manifest of all files.
    @return: the stream, in pieces of about L{PIECE} bytes.
    @raise BackupDamaged: a file is shorter than it was.
    """
    pending, size = [], 0
    for piece in _stream(files, known, conclude):
        pending.append(piece)
        size += len(piece)
        if size >= PIECE:
            yield b"".join(pending)
            pending, size = [], 0
    yield b"".join(pending)


def _stream(
    files: Iterable[Captured], known: Container[str], conclude: Callable[[tuple[BackupFile, ...]], Contents]
) -> Iterator[bytes]:
    sent = []
    for captured in files:
        file, sha256 = captured.file, None
        if not file.identity or file.identity not in known:
            digest = hashlib.sha256()
            yield header(file.name, file.size, 0)
            for piece in pieces(captured.path, file.size):
                digest.update(piece)
                yield piece
            yield padding(file.size)
            sha256 = digest.hexdigest()
        sent.append(file.with_checksum(sha256))
    contents = conclude(tuple(sent))
    manifest = contents.to_bytes()
    yield header(MANIFEST, len(manifest), contents.time) + manifest + padding(len(manifest)) + END
