"""
Replacing the database of a node by a snapshot that was taken.

A snapshot is taken into C{snapshot.taking}, and renamed to C{snapshot} when it is whole and on stable storage.  From
then on its database is the one that counts, wherever the process is killed: the next start finishes installing it.
"""

from __future__ import annotations

import fcntl
import shutil
from pathlib import Path

from darner.errors import StoreUnusable
from darner.store.directory import DATABASE, MARKER, SNAPSHOT, TAKING, in_use, sync

_BEFORE = "before"
"""What a snapshot has replaced, in the directory of the snapshot."""


def install(data_dir: Path) -> bool:
    """
    Put a snapshot that is complete in the place of the database, and remove what is left of one that is not.

    No store may be open there.

    @return: whether there was one.
    @raise StoreUnusable: another process uses the directory, or it cannot be written.
    """
    try:
        if not (data_dir / SNAPSHOT).exists() and not (data_dir / TAKING).exists():
            return False
        with (data_dir / MARKER).open("rb") as marker:
            try:
                fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise in_use(data_dir) from None
            return _install(data_dir)
    except OSError as error:
        raise StoreUnusable(f"cannot install the snapshot in {data_dir}: {error.strerror}") from error


def _install(data_dir: Path) -> bool:
    database, snapshot = data_dir / DATABASE, data_dir / SNAPSHOT
    new, before = snapshot / DATABASE, snapshot / _BEFORE
    found = new.exists()
    if found:
        if database.exists():
            if before.exists():
                shutil.rmtree(before)
            database.rename(before)
        new.rename(database)
        sync(snapshot)
        sync(data_dir)
    for left in (snapshot, data_dir / TAKING):
        if left.exists():
            shutil.rmtree(left)
    return found
