"""
Copying files of a backup, with their checksums.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from darner.errors import StoreError
from darner.store.backup.contents import BackupDamaged

PIECE: Final = 256 * 1024
"""Bytes that are read at once: a millisecond's work, in which the interpreter is free for other threads."""

Proceed = Callable[[], None]
"""Is called after each piece; raises an error to end the work."""


def go_on() -> None:
    """Nothing ends the work."""


@contextlib.contextmanager
def told(doing: str) -> Iterator[None]:
    """
    The context in which files are read and written.

    @param doing: what cannot be done, such as C{cannot back up}.
    @raise StoreError: in place of an C{OSError}.
    """
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise StoreError(f"{doing}: {where}{error.strerror or error}") from error


def pieces(path: Path, size: int, proceed: Proceed = go_on) -> Iterator[bytes]:
    """
    Read the first C{size} bytes of a file.

    @raise BackupDamaged: there are fewer.
    """
    with path.open("rb", buffering=0) as file:
        while size:
            piece = file.read(min(PIECE, size))
            if not piece:
                raise BackupDamaged(f"{path.name}: it is cut short")
            size -= len(piece)
            yield piece
            proceed()


def checksum(path: Path, size: int, proceed: Proceed = go_on) -> str:
    """@return: the checksum of a file's first bytes.  @raise BackupDamaged: there are fewer."""
    digest = hashlib.sha256()
    for piece in pieces(path, size, proceed):
        digest.update(piece)
    return digest.hexdigest()


def write_file(path: Path, data: Iterable[bytes]) -> tuple[int, str]:
    """
    Write a new file to stable storage.

    @return: its size and its checksum.
    """
    digest, size = hashlib.sha256(), 0
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(file, "wb", buffering=0) as out:
        for piece in data:
            digest.update(piece)
            size += len(piece)
            rest = memoryview(piece)
            while rest:
                rest = rest[out.write(rest) :]
        os.fsync(out.fileno())
    return size, digest.hexdigest()


def link(source: Path, target: Path) -> bool:
    """
    Make a hard link.

    @return: whether that worked: false where the file systems differ, have no links, or allow no more of them.
    @raise FileNotFoundError: there is no such file.
    """
    try:
        os.link(source, target, follow_symlinks=False)
    except FileNotFoundError:
        raise
    except OSError:
        return False
    return True
