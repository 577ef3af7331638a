"""
What a loss of power may leave of LevelDB's newest files, put right before LevelDB opens them.

LevelDB writes to a new log while the one before is not safe yet, and names a new table in its manifest before the
table's entry in the directory is safe.  A disk that loses its power may keep the later and lose the earlier of the two.
LevelDB would take what is in the newer log without what was lost before it, or not open at all.  In both cases nothing
of the later was ever promised to be on stable storage, for whoever promises that makes the earlier safe as well.  So
the later is given up: what remains is all that was written up to some moment.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Optional

from darner.store.files.damage import BadFile
from darner.store.files.log import LogFile, batch_head, ends_well
from darner.store.files.manifest import Manifest, current
from darner.store.files.names import logs, tables


def truncate(path: Path, length: int) -> None:
    """
    Have a file of a database end after C{length} bytes: in another file of its name, so that links to it stay whole.

    @raise OSError: it cannot be done, and nothing has changed.
    """
    shorter = path.with_name(path.name + ".cut")
    with shorter.open("wb") as file:
        file.write(path.read_bytes()[:length])
        file.flush()
        os.fsync(file.fileno())
    shorter.rename(path)


def drop_unsafe_tail(database: Path, aside: Path) -> list[str]:
    """
    Drop what was written last, where a loss of power kept it and lost what was written before.

    @param database: its directory.  Nobody has it open.
    @param aside: a directory for the logs that are given up, and for a copy of the manifest where its end is; made when
        there is something for it.
    @return: what was done, a line each.
    @raise OSError: it cannot be read, or changed.
    """
    try:
        manifest = Manifest(current(database))
    except BadFile:
        return []  # no loss of power does that
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
    """@return: the manifest without its last entry, where that names a table that is missing and the rest is whole."""
    there = tables(database).keys()
    if manifest.tables.keys() <= there:
        return None
    try:
        before = Manifest(manifest.path, leave_out=1)
    except BadFile:
        return None
    # LevelDB removes what came before when the entry is safe.
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
        manifest = Manifest(current(database))
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
    @param paths: logs, in order.
    @param given: the last sequence number in the manifest.
    @return: the place of the first log before which something is lost; the number of logs where there is none, or where
        one is damaged elsewhere than at its end: that is no loss of power.
    """
    expected = given + 1
    # Of a single log LevelDB takes what is good, from its beginning on.
    for place, path in enumerate(paths if len(paths) > 1 else ()):
        file = LogFile(path)
        # A log that another followed had something in it: `darner.store.leveldb` sees to that.
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
                break  # where it ends matters to nobody
        if file.lost:
            return len(paths)
        expected = after
    return len(paths)
