"""
The database as it was before it was opened.

LevelDB moves, writes and deletes files as soon as it is opened, and may come upon damage only then.  What was there is
kept as links until the start has read what it needs; where it cannot, it is put back, so that a start which is refused
leaves everything as it was.  LevelDB writes to no file that it has not made itself since it was opened.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from darner.store.directory import AFTER, ASIDE, BEFORE, DATABASE, LOST, RESERVE


class Rollback:
    """Links to all files of a database."""

    def __init__(self, path: Path) -> None:
        """
        Keep what is there.  Where the file system knows no links or has no room for them, nothing is kept.

        @param path: the data directory.
        """
        self._path = path
        self._there = set(os.listdir(path))
        self._database = path / DATABASE
        self._links = path / BEFORE
        self._opened = path / AFTER
        self.kept = False
        finish_interrupted(path)
        try:
            self._links.mkdir(mode=0o700)
            for name in os.listdir(self._database):
                os.link(self._database / name, self._links / name)
            self.kept = True
        except OSError:
            self.discard()

    def discard(self) -> None:
        """Remove the links: the start has succeeded."""
        self.kept = False
        shutil.rmtree(self._links, ignore_errors=True)

    def restore(self) -> None:
        """Put every file back as it was.  The database is closed."""
        if not self.kept:
            return  # what is there is as LevelDB has left it, and nothing is lost by that
        if _files(self._database) == _files(self._links):
            self.discard()
        else:
            self.kept = False
            self._database.rename(self._opened)
            self._links.rename(self._database)
            shutil.rmtree(self._opened, ignore_errors=True)
        for name in set(os.listdir(self._path)) - self._there:
            # What was set aside is where it was again.
            if name == LOST or name.startswith(ASIDE):
                shutil.rmtree(self._path / name, ignore_errors=True)
            elif name == RESERVE:
                (self._path / name).unlink()


def _files(directory: Path) -> dict[str, int]:
    """@return: which files are in a directory, under their names."""
    return {entry.name: entry.inode() for entry in os.scandir(directory)}


def finish_interrupted(path: Path) -> None:
    """Finish a L{Rollback.restore}, or a L{Rollback.discard}, that the end of a process interrupted."""
    if not (path / DATABASE).exists() and (path / BEFORE).exists():
        (path / BEFORE).rename(path / DATABASE)
    for name in (BEFORE, AFTER):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path / name)
