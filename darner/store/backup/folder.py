"""
A directory of backups: each a directory of its own, complete, and with hard links to what did not change.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Optional

from darner.errors import StoreError
from darner.store.backup.contents import MANIFEST, MOST_BYTES, BackupDamaged, BackupFile, Contents
from darner.store.backup.copying import Proceed, checksum, go_on, link, pieces, told, write_file
from darner.store.directory import sync

_NAME: Final = re.compile(r"(\d{6,18})-\d{8}T\d{6}Z")
_UNFINISHED: Final = ".unfinished-"
_REMOVED: Final = ".removed-"
PROOF: Final = ".proof-"
"""The beginning of the name of the file by which an asker shows the server that a directory is the same for both."""
_STALE: Final = 3600
"""Seconds after which such a file is one of a program that was killed."""


class BackupFolder:
    """
    A directory of backups.

    A backup is written under a name that begins with a dot, and renamed once it is complete and on stable storage.  So
    whatever has the name of a backup is whole, wherever the process was killed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        """@return: the names of the backups, oldest first.  @raise OSError: the directory cannot be read."""
        found = [name for name in os.listdir(self.path) if _NAME.fullmatch(name)]
        return sorted((name for name in found if (self.path / name / MANIFEST).is_file()), key=_number)

    def contents(self, name: str) -> Contents:
        """@raise BackupDamaged: its manifest is damaged, or there is none."""
        return read_contents(self.path / name)

    def latest(self) -> Optional[tuple[Path, Contents]]:
        """@return: the newest backup whose manifest can be read."""
        for name in reversed(self.names()):
            with contextlib.suppress(BackupDamaged):
                return self.path / name, self.contents(name)
        return None

    @contextlib.contextmanager
    def adding(self) -> Iterator[NewBackup]:
        """
        The context in which one backup is added.  What an interrupted process has left is removed before.

        @raise StoreError: another process is adding one, or the directory cannot be written.
        """
        with told("cannot back up"), contextlib.ExitStack() as stack:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StoreError(f"another backup is being written to {self.path}") from None
            for name in os.listdir(self.path):
                if name.startswith((_UNFINISHED, _REMOVED)):
                    shutil.rmtree(self.path / name)
                elif name.startswith(PROOF) and (self.path / name).stat().st_mtime < time.time() - _STALE:
                    (self.path / name).unlink()
            numbers = [_number(name) for name in os.listdir(self.path) if _NAME.fullmatch(name)]
            backup = NewBackup(self, max(numbers, default=0) + 1)
            backup.path.mkdir(mode=0o700)
            stack.callback(shutil.rmtree, backup.path, ignore_errors=True)
            yield backup

    def keep(self, most: int) -> list[str]:
        """
        Remove the oldest backups.

        @param most: how many stay, at least 1.
        @return: the names of those that were removed.
        @raise StoreError: one cannot be removed.
        """
        removed = self.names()[: -max(1, most)]
        with told("cannot remove old backups"):
            for name in removed:
                gone = self.path / (_REMOVED + name)
                (self.path / name).rename(gone)
                shutil.rmtree(gone)
        return removed


class NewBackup:
    """
    A backup that is being written.

    @ivar path: where its files are now.
    @ivar linked: how many of them are links to files of the store or of the backup before.
    @ivar copied: how many were copied.
    @ivar copied_bytes: how many bytes these have.
    """

    def __init__(self, folder: BackupFolder, number: int) -> None:
        self._folder = folder
        self._number = number
        self.path = folder.path / f"{_UNFINISHED}{number:06}"
        latest = folder.latest()
        self._before = None if latest is None else latest[0]
        self.known = {} if latest is None else latest[1].by_identity()
        self.linked = self.copied = self.copied_bytes = 0

    def reuse(self, file: BackupFile, path: Path) -> Optional[str]:
        """
        Put a file that the backup before has as well in its place.

        @return: its checksum; C{None} if there is none.
        """
        known = self.known.get(file.identity) if file.identity else None
        if known is None or self._before is None or known.size != file.size:
            return None
        source = self._before / known.name
        try:
            if source.stat().st_size != file.size:
                return None
            if link(source, path):
                self.linked += 1
            elif self._copy(source, file, path, go_on) != known.sha256:
                raise BackupDamaged(f"{source}: its checksum is wrong")
        except FileNotFoundError:
            return None
        return known.sha256

    def add(self, source: Path, file: BackupFile, proceed: Proceed = go_on) -> BackupFile:
        """
        Add a file of the store.

        @param source: where it is.  If it has an identity, it never changes.
        @param proceed: see L{Proceed}.
        @return: its entry, with its checksum.
        """
        path = self.path / file.name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        sha256 = self.reuse(file, path)
        if sha256 is None:
            if file.identity and link(source, path):
                self.linked += 1
                sha256 = checksum(path, file.size, proceed)
                sync(path)  # the store need not have done that yet
            else:
                sha256 = self._copy(source, file, path, proceed)
        proceed()
        return file.with_checksum(sha256)

    def _copy(self, source: Path, file: BackupFile, path: Path, proceed: Proceed) -> str:
        sha256 = write_file(path, pieces(source, file.size, proceed))[1]
        self.copied += 1
        self.copied_bytes += file.size
        return sha256

    def finish(self, contents: Contents) -> str:
        """
        All files are there: write the manifest.

        @return: the name of the backup.
        """
        for folder in sorted({self.path / file.name.partition("/")[0] for file in contents.files}):
            sync(folder)
        write_file(self.path / MANIFEST, [contents.to_bytes()])
        sync(self.path)
        name = f"{self._number:06}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(contents.time / 1000))}"
        self.path.rename(self._folder.path / name)
        sync(self._folder.path)
        return name


def _number(name: str) -> int:
    return int(name.partition("-")[0])


def read_contents(path: Path) -> Contents:
    """
    @param path: of one backup.
    @raise BackupDamaged: its manifest is damaged, or there is none.
    """
    try:
        with (path / MANIFEST).open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise BackupDamaged(f"{path}: {MANIFEST}: {error.strerror}") from None
    return Contents.from_bytes(data)


def verify(path: Path, contents: Contents, proceed: Callable[[int], object] = lambda _: None) -> None:
    """
    Read all files of a backup and compare their checksums.

    @param proceed: is called with the bytes that were read.
    @raise BackupDamaged: one is missing or damaged.
    """
    for file in contents.files:
        try:
            size = (path / file.name).stat().st_size
            wrong = size != file.size or checksum(path / file.name, size) != file.sha256
        except OSError as error:
            raise BackupDamaged(f"{path / file.name}: {error.strerror}") from None
        if wrong:
            raise BackupDamaged(f"{path / file.name}: it differs from what {MANIFEST} says")
        proceed(file.size)
