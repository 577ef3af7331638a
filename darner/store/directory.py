"""
The data directory: whose it is, in which format, and that only one process serves from it.

It holds the file ``darner`` that says so, the LevelDB in ``leveldb/``, ``reserve``, a file without contents that keeps
room on the disk, and, where somebody has set one, the server's ``status`` (`darner.queues.status`).
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
from darner.store.status_file import StatusFile
from darner.values.vocabulary import STATUSES

MARKER: Final = "darner"
MARKER_TEXT: Final = b"darner data directory, format 1\n"
STATUS: Final = "status"
"""The file that keeps the server's status."""
DATABASE: Final = "leveldb"
RESERVE: Final = "reserve"
SAVING: Final = "leveldb.saving"
"""What a repair is writing."""
SAVED: Final = "leveldb.saved"
"""What a repair has written, and has not put in place of the database yet."""
BEFORE: Final = "leveldb.before"
"""The database as it was before it was opened, as links."""
AFTER: Final = "leveldb.after"
"""The database as it was opened, in place of which that is put again."""
ASIDE: Final = "damaged-"
"""How directories begin in which files lie that were damaged."""
NEW: Final = "leveldb.new"
"""The database while it is being made for the first time."""
LOST: Final = "lost"
"""Where logs are moved that were written behind what a loss of power took away."""
RESERVE_BYTES: Final = 12 * 1024 * 1024
"""Enough to open the database anew after a fault, which writes what is in its logs to a table, and to work on."""
_HARMLESS: Final = frozenset({"lost+found", "twistd.log", "twistd.pid"})
_OURS: Final = frozenset({MARKER, DATABASE, RESERVE, SAVING, SAVED, BEFORE, AFTER, NEW, LOST, STATUS})
_FORMAT: Final = re.compile(rb"darner data directory, format \d+\n")


def check_directory(path: Path) -> None:
    """
    See whether a data directory can be served from, without changing anything.  One that is missing can be.

    @raise StoreUnusable: it cannot be written, or what is in it is not ours.
    """
    try:
        if not path.exists():
            return
        if not path.is_dir():
            raise StoreUnusable(f"{path} is not a directory: name another data directory")
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
            raise StoreDamaged(path, f"{MARKER}: it is not as it was written")
        if marker != MARKER_TEXT:
            raise StoreUnusable(
                f"{path} is of a format that this version does not know: "
                "serve it with the version that made it, or name another data directory"
            )


def make_directory(path: Path) -> None:
    """
    Make a data directory where it is missing, and have the machine remember it.

    @raise StoreUnusable: it cannot be made.
    """
    try:
        made = [directory for directory in (path, *path.parents) if not directory.exists()]
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for directory in made:
            # Where that cannot be read, the file system has to do without.
            with contextlib.suppress(PermissionError):
                sync(directory.parent)
    except FileExistsError:
        raise StoreUnusable(f"{path} is not a directory: name another data directory") from None
    except OSError as error:
        raise StoreUnusable(f"cannot make the data directory {path}: {error.strerror}") from None


def belongs(name: str) -> bool:
    """@return: whether a file of that name may be in a data directory."""
    return name.startswith((".", ASIDE)) or name in _HARMLESS or name in _OURS


def no_access(file: str) -> str:
    """@return: what to do about a file that may not be read."""
    return (
        f"{file}: {os.strerror(errno.EACCES)}: nothing is damaged; "
        "give it to the user who runs the server (chown), and let that user read and write it (chmod 600)"
    )


def check_access(database: Path) -> None:
    """
    See whether the files of a database may be read: one that may not is no sign of damage.

    @raise StoreUnusable: one may not.
    """
    for name in sorted(os.listdir(database)):
        if not os.access(database / name, os.R_OK):
            raise StoreUnusable(f"cannot read {no_access(str(database / name))}")


def _matters(entry: Path) -> bool:
    if entry.name == DATABASE and entry.is_dir():
        return any(entry.iterdir())  # an empty one may be left of a first start that was cut short
    if entry.name == STATUS and _is_status(entry):
        # Somebody wants the first start to find it.
        return False
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
    """Kestrel's journals are ``queue`` or ``queue.<time>`` and start with one of ten small operation codes."""
    try:
        with entry.open("rb") as journal:
            first = journal.read(1)
    except OSError:
        return False
    return len(first) == 1 and first[0] < 10


def in_use(path: Path) -> StoreUnusable:
    """The error for a directory that another process serves from."""
    return StoreUnusable(f"the data directory {path} is in use by another process: stop that one, or name another")


class Reserve:
    """
    Room on the disk that is kept for the time when there is no other.

    A full disk must not keep anybody from taking items away, and to do that takes some writing.

    @ivar held: whether the room is kept.
    @ivar reason: the system's word for what kept it from being taken the last time.
    """

    def __init__(self, path: Path, size: int) -> None:
        """@param size: in bytes."""
        self._path = path
        self._size = size
        self.held = False
        self.reason = ""

    def take(self) -> bool:
        """
        Keep the room, unless that would take the last that there is.

        Nothing is raised: this is asked for while clients are served, on a disk that fails.

        @return: whether it is kept now; if not, C{reason} says why.
        """
        if not self.held:
            try:
                self._allocate()
            except OSError as error:
                self.reason = os.strerror(error.errno or errno.EIO)
                self.give_up()
        return self.held

    def _allocate(self) -> None:
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            space = os.fstatvfs(file)
            missing = self._size - os.fstat(file).st_blocks * 512
            if missing > 0 and space.f_bavail * space.f_frsize < missing + self._size // 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.posix_fallocate(file, 0, self._size)
            self.held = True
        finally:
            os.close(file)

    def give_up(self) -> None:
        """Let the room be used, if the disk allows that.  Nothing is raised."""
        self.held = False
        try:
            self._path.unlink(missing_ok=True)
        except OSError:
            # A file that stays may be made empty all the same.
            with contextlib.suppress(OSError):
                os.truncate(self._path, 0)


def _log_number(name: str) -> int:
    digits = name.partition(".")[0]
    return int(digits) if digits.isdecimal() else -1


def sync(path: Path) -> None:
    """Bring a file or directory to stable storage."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def claim(path: Path) -> None:
    """Say that a directory is ours: the marker is there whole, or not at all."""
    new = path / ".darner.new"
    with new.open("wb") as marker:
        marker.write(MARKER_TEXT)
        marker.flush()
        os.fsync(marker.fileno())
    new.rename(path / MARKER)


def set_aside(path: Path) -> Path:
    """@return: a new directory in a data directory, for what is damaged."""
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
    A data directory that this process serves from.

    @ivar database: where its LevelDB is.
    @ivar reserve: room for what has to be written when the disk is full.
    """

    def __init__(self, path: Path) -> None:
        """
        Make it ours.

        @raise StoreUnusable: see L{check_directory}; also when another process serves from it.
        """
        make_directory(path)
        check_directory(path)
        self._path = path
        self._marker: Optional[IO[bytes]] = None
        self._newest_log = ""
        self.database = path / DATABASE
        self.reserve = Reserve(path / RESERVE, RESERVE_BYTES)
        try:
            if not (path / MARKER).exists():
                # Before the marker: so where that is, a database that is missing was there once.
                self.database.mkdir(mode=0o700, exist_ok=True)
                sync(path)
                try:
                    claim(path)
                except OSError:
                    self.database.rmdir()
                    raise
            # Also where it was there: whoever made it may have been killed before it was safe.
            with contextlib.suppress(PermissionError):
                sync(path.parent)
            sync(path)
            # LevelDB keeps others out as well, but only after it has touched its own log file.
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
        Have the database made where there is nothing of one yet.  It is there whole and safe, or not at all.

        LevelDB by itself names the first of its files in another before the first is safe, and would not open what is
        there if the power failed in between.

        @param make: makes a database in a directory that exists.
        @raise OSError: it cannot be made, or what C{make} raises.
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
        Give up the reserve and what LevelDB could not finish, so that the database, which is closed, can be opened.

        @raise OSError: it cannot be done.
        """
        self.reserve.give_up()
        for path in unfinished_files(self.database):
            path.unlink()

    def sync_older_logs(self) -> None:
        """
        Bring what LevelDB wrote to a log before the newest to stable storage.

        A write with sync makes the newest log safe, and it alone: when LevelDB has begun a new log and has not made a
        table of the one before yet, that holds what was written before, as the queue of an item and its chunks.

        @raise OSError: it cannot be done.
        """
        logs = sorted((name for name in os.listdir(self.database) if name.endswith(".log")), key=_log_number)
        for name in logs[:-1]:
            # What is gone is in a table by now, and that is safe.
            with contextlib.suppress(FileNotFoundError):
                sync(self.database / name)
        if logs and logs[-1] != self._newest_log:
            sync(self.database)
            self._newest_log = logs[-1]

    def release(self) -> None:
        """Let other processes have it.  Idempotent."""
        if self._marker is not None:
            self._marker.close()
            self._marker = None
