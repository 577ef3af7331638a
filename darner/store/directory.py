"""
The data directory: check that it is darner's and in a known format, and claim it for one process.

It contains the marker file ``darner``, the LevelDB in ``leveldb/``, large payloads in ``segments/``, the file
``reserve``, which reserves disk space, and the server's ``status`` if one was set (`darner.queues.status`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import IO, Final, Optional

from darner.errors import StoreDamaged, StoreUnusable
from darner.store.power_loss import unfinished_files
from darner.store.reserve import Reserve
from darner.store.status_file import StatusFile
from darner.values.vocabulary import STATUSES

MARKER: Final = "darner"
MARKER_TEXT: Final = b"darner data directory, format 1\n"
STATUS: Final = "status"
DATABASE: Final = "leveldb"
SEGMENTS: Final = "segments"
RESERVE: Final = "reserve"
SAVING: Final = "leveldb.saving"
"""The database that a repair is writing."""
SAVED: Final = "leveldb.saved"
"""The database that a repair has finished, before it replaces the damaged one."""
BEFORE: Final = "leveldb.before"
"""Links to the files of the database as they were before it was opened."""
AFTER: Final = "leveldb.after"
"""The database as LevelDB left it, while a refused start restores it from C{BEFORE}."""
ASIDE: Final = "damaged-"
"""Prefix of the directories for damaged files."""
NEW: Final = "leveldb.new"
"""A new database while it is created."""
BACKED_UP: Final = "leveldb.backup"
GIVEN: Final = "leveldb.given"
"""Links to and copies of the database's files, while a backup is made of them, or a snapshot of a node is given."""
TAKING: Final = "snapshot.taking"
"""A snapshot that a node of a cluster is taking."""
SNAPSHOT: Final = "snapshot"
"""One that it has taken, which replaces the database."""
RESTORING: Final = "restoring"
"""The file that is there while a backup is restored into the directory."""
LOST: Final = "lost"
"""Directory for logs that were written after records which a loss of power has destroyed."""
RESERVE_BYTES: Final = 12 * 1024 * 1024
"""Enough to reopen the database after a fault, which writes the contents of its logs to a table, and to continue."""
SETTLED: Final = 50_000_000
"""Nanoseconds after which another change of a directory has another time: the system's clock ticks meanwhile."""
_HARMLESS: Final = frozenset({"lost+found", "twistd.log", "twistd.pid"})
_OURS: Final = {
    MARKER, DATABASE, SEGMENTS, RESERVE, SAVING, SAVED, BEFORE, AFTER, NEW, LOST, STATUS, BACKED_UP, GIVEN, TAKING,
    SNAPSHOT,
}  # fmt: skip
_FORMAT: Final = re.compile(rb"darner data directory, format \d+\n")


def check_directory(path: Path) -> None:
    """
    Check, without changing anything, that the server can use a data directory.  The directory may be missing.

    @raise StoreUnusable: it cannot be written, or its contents are not darner's.
    @raise StoreDamaged: its marker is missing or damaged.
    """
    try:
        if not path.exists():
            return
        if not path.is_dir():
            raise StoreUnusable(f"{path} is not a directory: name another data directory")
        if (path / RESTORING).exists():
            raise StoreUnusable(f"a restore into {path} did not end: run it again")
    except OSError as error:
        raise StoreUnusable(f"cannot read the data directory {path}: {error.strerror}") from None
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise StoreUnusable(f"cannot write to the data directory {path}: change its owner or mode, or name another")
    try:
        marker = (path / MARKER).read_bytes()
    except FileNotFoundError:
        entries = sorted(entry for entry in path.iterdir() if _matters(entry))
        if any((path / name / "CURRENT").exists() for name in (DATABASE, SAVED)) and all(
            belongs(entry.name) for entry in entries
        ):
            raise StoreDamaged(path, f"{MARKER}: it is missing") from None
        if entries:
            raise StoreUnusable(_foreign(path, entries)) from None
    except OSError as error:
        raise StoreUnusable(f"cannot read {path / MARKER}: {error.strerror}") from None
    else:
        if not _FORMAT.fullmatch(marker):
            raise StoreDamaged(path, f"{MARKER}: its contents are wrong")
        if marker != MARKER_TEXT:
            raise StoreUnusable(
                f"{path} is in a format that this version does not know: "
                "serve it with the version that created it, or name another data directory"
            )


def make_directory(path: Path) -> None:
    """
    Create a data directory if it is missing, on stable storage.

    @raise StoreUnusable: it cannot be created.
    """
    try:
        made = [directory for directory in (path, *path.parents) if not directory.exists()]
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for directory in made:
            # A parent that this user may not read cannot be synced.
            with contextlib.suppress(PermissionError):
                sync(directory.parent)
    except FileExistsError:
        raise StoreUnusable(f"{path} is not a directory: name another data directory") from None
    except OSError as error:
        raise StoreUnusable(f"cannot create the data directory {path}: {error.strerror}") from None


def belongs(name: str) -> bool:
    """@return: whether a file of this name may be in a data directory."""
    return name.startswith((".", ASIDE)) or name in _HARMLESS or name in _OURS


def no_access(file: str) -> str:
    """@return: the advice for a file that this user may not read."""
    return (
        f"{file}: {os.strerror(errno.EACCES)}: nothing is damaged; "
        "give it to the user who runs the server (chown), and let that user read and write it (chmod 600)"
    )


def check_access(database: Path) -> None:
    """
    Check that this user may read the files of a database.  A file without permission is not damaged.

    A server may be using it, and removing files meanwhile.

    @raise StoreUnusable: the user may not read a file.
    """
    for name in sorted(os.listdir(database)):
        if not os.access(database / name, os.R_OK) and os.path.lexists(database / name):
            raise StoreUnusable(f"cannot read {no_access(str(database / name))}")


def _matters(entry: Path) -> bool:
    if entry.name == DATABASE and entry.is_dir():
        return any(entry.iterdir())  # a first start that was interrupted may leave an empty one
    if entry.name == STATUS and _is_status(entry):
        return False  # an operator set the status for the first start
    return not (entry.name.startswith(".") or entry.name in _HARMLESS)


def _foreign(path: Path, entries: Sequence[Path]) -> str:
    if any((entry / "CURRENT").exists() for entry in entries):
        what = "holds queues of the C++ Darner"
    elif (path / "CURRENT").exists():
        what = "holds a LevelDB of something else"
    elif all(entry.is_file() for entry in entries) and any(_is_journal(entry) for entry in entries):
        what = "holds journals of Kestrel"
    else:
        what = f"holds files that are not darner's ({entries[0].name}, ...)"
    return f"{path} {what}: name an empty directory as the data directory (nothing was touched)"


def _is_status(entry: Path) -> bool:
    try:
        return StatusFile(entry).read() in STATUSES
    except OSError:
        return False


def _is_journal(entry: Path) -> bool:
    """@return: whether it looks like a journal of Kestrel, which starts with one of ten small operation codes."""
    try:
        with entry.open("rb") as journal:
            first = journal.read(1)
    except OSError:
        return False
    return len(first) == 1 and first[0] < 10


def in_use(path: Path) -> StoreUnusable:
    return StoreUnusable(f"the data directory {path} is in use by another process: stop that one, or name another")


def _log_number(name: str) -> int:
    digits = name.partition(".")[0]
    return int(digits) if digits.isdecimal() else -1


def sync(path: Path) -> None:
    """Write a file or directory to stable storage."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def claim(path: Path) -> None:
    """Write the marker into a data directory, atomically."""
    new = path / ".darner.new"
    with new.open("wb") as marker:
        marker.write(MARKER_TEXT)
        marker.flush()
        os.fsync(marker.fileno())
    new.rename(path / MARKER)


def set_aside(path: Path) -> Path:
    """@return: a new directory for damaged files, in a data directory."""
    name = ASIDE + time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    aside = path / name
    others = count(2)
    while True:
        try:
            aside.mkdir(mode=0o700)
        except FileExistsError:
            aside = path / f"{name}-{next(others)}"
        else:
            return aside


class DataDirectory:
    """
    A data directory that this process has claimed.

    @ivar database: the directory of its LevelDB.
    @ivar reserve: disk space for what must be written when the disk is full.
    """

    def __init__(self, path: Path) -> None:
        """
        Claim the directory.  Create it if it is missing.

        @raise StoreUnusable: see L{check_directory}; also if another process uses it.
        """
        make_directory(path)
        check_directory(path)
        self._path = path
        self._marker: Optional[IO[bytes]] = None
        self._newest_log = ""
        self._synced_change = 0  # the change of the database's directory whose older logs are synced
        self.database = path / DATABASE
        self.reserve = Reserve(path / RESERVE, RESERVE_BYTES)
        try:
            if not (path / MARKER).exists():
                # Before the marker: so if the marker exists and the database does not, the database was lost.
                self.database.mkdir(mode=0o700, exist_ok=True)
                sync(path)
                try:
                    claim(path)
                except OSError:
                    self.database.rmdir()
                    raise
            # Also if it existed: the process that created it may have been killed before it synced.
            with contextlib.suppress(PermissionError):
                sync(path.parent)
            sync(path)
            # LevelDB has a lock too, but takes it only after it has changed its own log file.
            self._marker = (path / MARKER).open("rb")
        except OSError as error:
            raise StoreUnusable(f"cannot serve from the data directory {path}: {error.strerror}") from error
        try:
            fcntl.flock(self._marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.release()
            raise in_use(path) from error

    def make_database(self, make: Callable[[Path], None]) -> None:
        """
        Create the database if there is none yet, atomically and on stable storage.

        LevelDB alone writes the name of its first file to another file before the first one is on stable storage.  If
        the power fails in between, it cannot open the database.

        @param make: creates a database in an existing directory.
        @raise OSError: it cannot be created; also what C{make} raises.
        """
        if any(self.database.iterdir()):
            return
        new = self._path / NEW
        shutil.rmtree(new, ignore_errors=True)
        try:
            new.mkdir(mode=0o700)
            make(new)
            for file in new.iterdir():
                sync(file)
            sync(new)
            new.rename(self.database)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        sync(self._path)

    def make_room(self) -> None:
        """
        Release the reserve and delete LevelDB's unfinished files, so that the closed database can be opened.

        @raise OSError: a file cannot be deleted.
        """
        self.reserve.give_up()
        for path in unfinished_files(self.database):
            path.unlink()

    def sync_older_logs(self) -> None:
        """
        Write LevelDB's logs before the newest one to stable storage.

        A write with sync only syncs the newest log.  If LevelDB has started a new log and not yet written the one
        before to a table, the older log contains earlier records, for example the queue of an item, or its chunks.
        Nothing more is written to it, so this is done once for each change of the directory.

        @raise OSError: a log cannot be synced.
        """
        now, changed = time.time_ns(), os.stat(self.database).st_mtime_ns
        if changed != self._synced_change:
            self._sync_logs(slice(-1))
            self._synced_change = changed if now - changed > SETTLED else 0

    def sync_logs(self) -> None:
        """
        As L{sync_older_logs}, with the newest one.

        @raise OSError: a log cannot be synced.
        """
        self._sync_logs(slice(None))

    def _sync_logs(self, which: slice) -> None:
        logs = sorted((name for name in os.listdir(self.database) if name.endswith(".log")), key=_log_number)
        for name in logs[which]:
            # The contents of a deleted log are in a table, which is on stable storage.
            with contextlib.suppress(FileNotFoundError):
                sync(self.database / name)
        if logs and logs[-1] != self._newest_log:
            sync(self.database)
            self._newest_log = logs[-1]

    def release(self) -> None:
        """Release the claim.  Idempotent."""
        if self._marker is not None:
            self._marker.close()
            self._marker = None
