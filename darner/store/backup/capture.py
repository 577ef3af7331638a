"""
The files of an open store as of one moment.

`docs/design/backup.rst` explains why what is captured is consistent.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Optional

from attrs import frozen

from darner.errors import StoreError
from darner.store.backup.contents import BackupFile, Captured
from darner.store.backup.copying import PIECE, Proceed, go_on, link, pieces, told, write_file
from darner.store.database import Database
from darner.store.directory import BACKED_UP, DATABASE
from darner.store.files.damage import BadFile
from darner.store.files.log import ends_well
from darner.store.files.manifest import Manifest
from darner.store.files.names import file_number

TRIES: Final = 20
"""How often the files are looked for: LevelDB may replace some while they are."""

Sealed = Callable[[str], bool]
"""Whether the file of this name in a folder never changes again."""


class _Changed(Exception):
    """LevelDB has replaced a file meanwhile."""


@frozen
class _Growing:
    """An open file, and its size at the moment."""

    descriptor: int
    size: int


class Capture:
    """
    Links to and copies of the files of a store as of one moment, in a directory of their own.

    @ivar files: the files, while it is held.
    @ivar time: the moment, in ms since the epoch.
    @ivar position: LevelDB's last sequence number in the manifest, and the log with its length at the moment.
    """

    def __init__(
        self, database: Database, folders: Optional[Mapping[str, Sealed]] = None, proceed: Proceed = go_on,
        wall: Callable[[], float] = time.time, add: Callable[[Path, Path], bool] = link, place: str = BACKED_UP,
    ) -> None:  # fmt: skip
        """
        @param folders: further folders of the data directory, whose files are only appended to, and written before
            what names them in the database; and which of their files are sealed.
        @param proceed: see L{Proceed}.
        @param wall: the time in seconds since the epoch.
        @param add: makes a link.
        @param place: the name of its directory.  Two captures at once need two.
        """
        self._database = database
        self._folders = folders or {}
        self._proceed = proceed
        self._wall = wall
        self._link = add
        self._path = database.path / place
        self._growing: dict[str, _Growing] = {}
        self.files: list[Captured] = []
        self.position: dict[str, Any] = {}
        self.time = 0

    def take(self) -> None:
        """
        Capture.  In a worker thread: it takes some microseconds for each file.

        @raise StoreError: this is not possible now.
        """
        self._database.in_thread(self._take)

    def _take(self) -> None:
        with told("cannot back up"):
            for _ in range(TRIES):
                try:
                    self._try()
                    return
                except _Changed:
                    continue
                except BaseException:
                    self.release()
                    raise
            self.release()
            raise StoreError("cannot back up: the store changes too fast; try again later")

    def release(self) -> None:
        """Give the files up.  Idempotent."""
        self.files = []
        shutil.rmtree(self._path, ignore_errors=True)

    def _try(self) -> None:
        self.release()
        self._path.mkdir(mode=0o700)
        for folder in (DATABASE, *self._folders):
            (self._path / folder).mkdir(mode=0o700)
        with contextlib.ExitStack() as opened:
            sealed = {name: self._link_sealed(name) for name in self._folders}
            with self._database.writer.lock:
                if self._database.writer.torn:
                    raise StoreError("cannot back up: the store must be reopened after an error")
                # LevelDB deletes no table that an open iterator may read.
                opened.enter_context(self._database.iterator(include_value=False))
                self.time = int(self._wall() * 1000)
                manifest = self._note(opened)
                more = {name: self._note_folder(opened, name, done) for name, done in sealed.items()}
            for name, growing in self._growing.items():
                self._copy(name, growing)
            self._add_tables(self._path / DATABASE / manifest)
            for name, grown in more.items():
                for file in grown:
                    self._place_sealed(name, file)

    # While nothing is written

    def _note(self, opened: contextlib.ExitStack) -> str:
        """
        Note the logs and the manifest, in this order: what a newer manifest no longer needs of the logs is in tables.

        @return: the name of the manifest.
        """
        self._growing = {}
        leveldb = self._database.directory.database
        for name in os.listdir(leveldb):
            if name.endswith(".log"):
                self._open(opened, leveldb, f"{DATABASE}/{name}")
        manifest = (leveldb / "CURRENT").read_text().strip()
        self._open(opened, leveldb, f"{DATABASE}/{manifest}")
        return manifest

    def _open(self, opened: contextlib.ExitStack, folder: Path, name: str) -> None:
        try:
            descriptor = os.open(folder / name.partition("/")[2], os.O_RDONLY)
        except FileNotFoundError:
            raise _Changed() from None
        opened.callback(os.close, descriptor)
        self._growing[name] = _Growing(descriptor, os.fstat(descriptor).st_size)

    def _note_folder(self, opened: contextlib.ExitStack, name: str, done: set[str]) -> list[str]:
        """@return: the files that were sealed meanwhile, which are linked afterwards."""
        folder, sealed = self._database.path / name, []
        for entry in _listed(folder):
            if entry in done:
                continue
            if self._folders[name](entry):
                sealed.append(entry)
            else:
                self._open(opened, folder, f"{name}/{entry}")
        return sealed

    # Before and after

    def _link_sealed(self, name: str) -> set[str]:
        """Secure the sealed files of a folder before the moment, as they may be deleted behind it."""
        sealed = {entry for entry in _listed(self._database.path / name) if self._folders[name](entry)}
        for entry in sealed:
            self._place_sealed(name, entry)
        return sealed

    def _place_sealed(self, name: str, entry: str) -> None:
        self._place(self._database.path / name / entry, f"{name}/{entry}", None)

    def _copy(self, name: str, growing: _Growing) -> None:
        path = self._path / name
        write_file(path, self._beginning(growing))
        self.files.append(Captured(path, BackupFile(name, growing.size, "")))

    def _beginning(self, growing: _Growing) -> Iterator[bytes]:
        at = 0
        while at < growing.size:
            piece = os.pread(growing.descriptor, min(PIECE, growing.size - at), at)
            if not piece:
                raise _Changed()
            at += len(piece)
            yield piece
            self._goes_on()

    def _add_tables(self, copy: Path) -> None:
        """Add what the manifest names."""
        if not ends_well(copy):
            raise _Changed()  # LevelDB was appending to it
        try:
            manifest = Manifest(copy)
        except BadFile as error:
            raise StoreError(f"cannot back up: the store is damaged: {error}") from error
        leveldb = self._database.directory.database
        for number, info in manifest.tables.items():
            self._place(leveldb / f"{number:06}.ldb", f"{DATABASE}/{number:06}.ldb", info.size)
        log = f"{DATABASE}/{manifest.log:06}.log"
        if log not in self._growing:
            # It was begun when all of the moment was in tables or in the log before.
            write_file(self._path / log, [])
            self.files.append(Captured(self._path / log, BackupFile(log, 0, "")))
        self._drop_older_logs(manifest)
        current = self._path / DATABASE / "CURRENT"
        size, _ = write_file(current, [f"{copy.name}\n".encode()])
        self.files.append(Captured(current, BackupFile(f"{DATABASE}/CURRENT", size, "")))
        self.position = {
            "sequence": manifest.sequence,
            "logs": {
                captured.path.name: captured.file.size for captured in self.files if captured.path.suffix == ".log"
            },
        }

    def _drop_older_logs(self, manifest: Manifest) -> None:
        needed = {path.name for path in manifest.logs(self._path / DATABASE).values()}
        for captured in list(self.files):
            path = captured.path
            if path.suffix == ".log" and file_number(path.name) >= 0 and path.name not in needed:
                path.unlink()
                self.files.remove(captured)

    def _place(self, source: Path, name: str, size: Optional[int]) -> None:
        """
        Add a file that never changes.

        @param size: which it has to have.
        """
        self._goes_on()
        path = self._path / name
        try:
            if not self._link(source, path):
                with contextlib.suppress(FileExistsError):
                    write_file(path, pieces(source, source.stat().st_size, self._goes_on))
                shutil.copystat(source, path)
            stat = source.stat()
        except FileNotFoundError:
            raise _Changed() from None
        if size is not None and stat.st_size != size:
            raise StoreError(f"cannot back up: the store is damaged: {name} has {stat.st_size} bytes and not {size}")
        facts = f"{name} {stat.st_ino} {stat.st_mtime_ns} {stat.st_size}"
        identity = hashlib.blake2b(facts.encode(), digest_size=8).hexdigest()
        self.files.append(Captured(path, BackupFile(name, stat.st_size, identity)))

    def _goes_on(self) -> None:
        self._proceed()
        if self._database.writer.torn:
            raise StoreError("cannot back up: the store must be reopened after an error")


def _listed(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
