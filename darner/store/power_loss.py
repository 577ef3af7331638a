"""
Repair of LevelDB's newest files after a loss of power, before LevelDB opens them.

LevelDB writes to a new log while the one before is not on stable storage yet, and names a new table in its manifest
before the table's directory entry is on stable storage.  A loss of power may keep the later of the two and lose the
earlier.  LevelDB would then read the newer log without the records that were lost before it, or not open at all.

Nothing of the later file was promised to be on stable storage, as such a promise requires the earlier one to be synced
as well.  So the later file is given up.  The store then contains everything that was written up to some moment.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Optional

from darner.store.files.damage import BadFile
from darner.store.files.log import LogFile, batch_head, ends_well
from darner.store.files.manifest import Manifest, newest
from darner.store.files.names import logs, tables


def truncate(path: Path, length: int) -> None:
    """
    Truncate a file of a database to C{length} bytes.  A new file replaces it, so that hard links keep the old contents.

    @raise OSError: it cannot be truncated; nothing has changed.
    """
    shorter = path.with_name(path.name + ".cut")
    with shorter.open("wb") as file:
        file.write(path.read_bytes()[:length])
        file.flush()
        os.fsync(file.fileno())
    shorter.rename(path)


def drop_unsafe_tail(database: Path, aside: Path) -> list[str]:
    """
    Give up the newest records if a loss of power kept them and lost earlier ones.

    @param database: the directory of the database, which no process has open.
    @param aside: the directory for logs that are given up, and for a copy of a manifest that is truncated; created if
        it is needed.
    @return: a line for the log about each change.
    @raise OSError: a file cannot be read or changed.
    """
    try:
        manifest = newest(database)
    except BadFile:
        return []  # not the effect of a loss of power
    done = []
    before = _before_last(manifest, database)
    if before is not None and before.end is not None:
        aside.mkdir(mode=0o700, exist_ok=True)
        shutil.copy2(manifest.path, aside)
        truncate(manifest.path, before.end)
        manifest = before
        done.append(f"the last entry of {manifest.path.name} names a table that is missing: the entry was removed")
    live = list(manifest.logs(database).values())
    for path in live[_gap(live, manifest.sequence) :]:
        aside.mkdir(mode=0o700, exist_ok=True)
        path.rename(aside / path.name)
        done.append(f"the end of the log before {path.name} is lost: {path.name} was moved to {aside}")
    return done


def _before_last(manifest: Manifest, database: Path) -> Optional[Manifest]:
    """@return: the manifest without its last entry, if that names a missing table and the rest is complete."""
    there = tables(database).keys()
    if manifest.tables.keys() <= there:
        return None
    try:
        before = Manifest(manifest.path, leave_out=1)
    except BadFile:
        return None
    # LevelDB removes the older files only once the entry is on stable storage.
    return before if before.tables.keys() <= there and before.log in logs(database) else None


def unfinished_files(database: Path) -> list[Path]:
    """
    Find files that LevelDB left when it could not finish its work.

    When a compaction runs out of room, its tables stay until the database is opened the next time, and to open it takes
    room as well.  The same goes for the log that each try to open it begins.

    @param database: its directory.  Nobody has it open.
    @return: tables and logs that the database is not made of.  None where its manifest is not understood to the end.
    @raise OSError: it cannot be read.
    """
    try:
        manifest = newest(database)
    except BadFile:
        return []
    if not ends_well(manifest.path):
        return []
    unnamed = [path for number, path in tables(database).items() if number not in manifest.tables]
    # The manifest's own log stays also where it is empty: were it missing, something would be lost.
    idle = [
        path
        for number, path in logs(database).items()
        if number < manifest.log or (number > manifest.log and not path.stat().st_size)
    ]
    return sorted(unnamed + idle)


def _gap(paths: list[Path], given: int) -> int:
    """
    Find the first gap in the sequence numbers.

    @param paths: logs, in order.
    @param given: the last sequence number in the manifest.
    @return: the index of the first log before which records are lost; the number of logs if there is none, or if a log
        is damaged elsewhere than at its end, which is not the effect of a loss of power.
    """
    expected = given + 1
    # LevelDB reads the good records at the start of a single log.
    for place, path in enumerate(paths if len(paths) > 1 else ()):
        file = LogFile(path)
        # A log that is followed by another was not empty: `darner.store.database` ensures that.
        after = 0
        for record in file.records():
            try:
                first, count = batch_head(record)
            except BadFile:
                return len(paths)
            if not after and first > expected:
                return place
            after = first + count
            if path is paths[-1]:
                break  # its end does not matter
        if file.lost:
            return len(paths)
        expected = after
    return len(paths)
