"""
Restoring a backup into an empty data directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from darner.errors import StoreUnusable
from darner.store.backup.archive import Read, receive
from darner.store.backup.contents import MANIFEST, BackupDamaged, BackupFile, Contents
from darner.store.backup.copying import pieces, told, write_file
from darner.store.backup.folder import BackupFolder, read_contents
from darner.store.directory import DATABASE, RESTORING, claim, make_directory, sync
from darner.store.inspection import inspect, is_new

_HARMLESS: Final = frozenset({"lost+found", RESTORING})


def find_backup(source: Path, name: str = "") -> Path:
    """
    @param source: a directory of backups, or one backup.
    @param name: which backup of the directory; by default the latest.
    @raise StoreUnusable: there is none.
    """
    folder = BackupFolder(source)
    with told("cannot restore"):
        names = folder.names() if source.is_dir() else []
        if name and name not in names:
            raise StoreUnusable(f"there is no backup {name} in {source}")
        if names:
            return source / (name or names[-1])
        if not (source / MANIFEST).is_file():
            raise StoreUnusable(f"there is no backup in {source}")
    return source


def restore(backup: Path, target: Path, proceed: Callable[[int], object] = lambda _: None) -> Contents:
    """
    Restore one backup.

    @param target: the data directory, empty or missing.
    @param proceed: is called with the bytes that were copied.
    @raise StoreError: the backup is damaged, or the directory cannot be used.  No server would start on it then.
    """
    contents = read_contents(backup)
    with _restoring(target):
        for file in contents.files:
            (target / file.name).parent.mkdir(mode=0o700, exist_ok=True)
            _copy(backup, file, target)
            proceed(file.size)
        for folder in sorted({target / file.name.partition("/")[0] for file in contents.files}):
            sync(folder)
    return contents


def restore_stream(read: Read, target: Path) -> Contents:
    """As L{restore}, from a stream.  @param read: reads up to so many bytes of it."""
    with _restoring(target):
        return receive(read, target)


def _copy(backup: Path, file: BackupFile, target: Path) -> None:
    try:
        size = (backup / file.name).stat().st_size
        _, sha256 = write_file(target / file.name, pieces(backup / file.name, file.size))
    except FileNotFoundError:
        raise BackupDamaged(f"{backup / file.name}: it is missing") from None
    if size != file.size or sha256 != file.sha256:
        raise BackupDamaged(f"{backup / file.name}: it differs from what the manifest says")


@contextlib.contextmanager
def _restoring(target: Path) -> Iterator[None]:
    """
    The context in which files are written to a data directory.

    Until all is verified and on stable storage, the directory holds the file C{restoring}, and no server starts on it.
    """
    with told("cannot restore"):
        make_directory(target)
        entries = set(os.listdir(target))
        if RESTORING not in entries and entries - _HARMLESS:
            raise StoreUnusable(f"cannot restore into {target}: it is not empty")
        with (target / RESTORING).open("w+b") as mark:
            try:
                fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StoreUnusable(f"another process restores into {target}") from None
            sync(target)
            _clear(target)
            yield
            if is_new(target / DATABASE) or not (target / DATABASE).exists():
                raise BackupDamaged("cannot restore: there is no database in the backup")
            inspect(target)
            claim(target)
            sync(target)
            (target / RESTORING).unlink()
            sync(target)


def _clear(target: Path) -> None:
    """Remove what an interrupted restore has left."""
    for entry in target.iterdir():
        if entry.name in _HARMLESS:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
