"""
Making a backup in a directory of backups: of an open store, or of a stream.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Optional

from attrs import frozen

from darner.store.backup.archive import Read, receive
from darner.store.backup.capture import Capture
from darner.store.backup.contents import Contents
from darner.store.backup.copying import Proceed, go_on, told
from darner.store.backup.folder import BackupFolder, NewBackup

MOST_KNOWN: Final = 12_000
"""How many files at most a receiver says to have: so many identities fit into a request."""


@frozen
class Made:
    """
    A backup that was made.

    @ivar bytes: of all its files.
    @ivar linked: how many files are links.
    @ivar copied: how many were copied.
    @ivar removed: the names of older backups that were removed.
    """

    name: str
    time: int
    files: int
    bytes: int
    linked: int
    copied: int
    copied_bytes: int
    removed: tuple[str, ...]


def make_backup(
    path: Path, capture: Capture, version: str, keep: Optional[int] = None, proceed: Proceed = go_on
) -> Made:
    """
    Add a backup of an open store to a directory of backups.  In a worker thread; takes seconds to minutes.

    @param capture: was taken.
    @param version: of the server.
    @param keep: how many backups stay; by default all.
    @param proceed: see L{Proceed}.
    @raise StoreError: it cannot be made.  There is nothing of it then, and the others are as they were.
    """
    folder = BackupFolder(path)
    with folder.adding() as backup:
        files = tuple(backup.add(captured.path, captured.file, proceed) for captured in capture.files)
        contents = Contents(version, capture.time, capture.position, files)
        return _finish(folder, backup, contents, keep)


def receive_backup(path: Path, ask: Callable[[Sequence[str]], Read], keep: Optional[int] = None) -> Made:
    """
    As L{make_backup}, from a stream.

    @param ask: is called with the identities of files that need not be in the stream, and returns what reads it.
    """
    folder = BackupFolder(path)
    with folder.adding() as backup, told("cannot back up"):
        read = ask(list(backup.known)[-MOST_KNOWN:])
        contents = receive(read, backup.path, backup.reuse)
        backup.copied = len(contents.files) - backup.linked
        return _finish(folder, backup, contents, keep)


def _finish(folder: BackupFolder, backup: NewBackup, contents: Contents, keep: Optional[int]) -> Made:
    name = backup.finish(contents)
    removed = folder.keep(keep) if keep is not None else []
    return Made(
        name, contents.time, len(contents.files), contents.size, backup.linked, backup.copied, backup.copied_bytes,
        tuple(removed),
    )  # fmt: skip
