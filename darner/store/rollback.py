"""
Restoring the database as it was before a start that fails.

LevelDB moves, writes and deletes files as soon as it is opened, and may find damage only then.  So hard links keep the
files until the start has read what it needs; a start that fails restores them.  Links are enough, as LevelDB writes
only to files that it has created since it was opened.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from darner.store.directory import AFTER, ASIDE, BACKED_UP, BEFORE, DATABASE, GIVEN, LOST, RESERVE


class Rollback:
    """Hard links to all files of a database."""

    def __init__(self, path: Path) -> None:
        """
        Make the links.  If the file system has no links or no space for them, there are none.

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
        """Remove the links, as the start has succeeded."""
        self.kept = False
        shutil.rmtree(self._links, ignore_errors=True)

    def restore(self) -> None:
        """Restore every file.  The database is closed."""
        if not self.kept:
            return  # the files stay as LevelDB has left them; that loses nothing
        if _files(self._database) == _files(self._links):
            self.discard()
        else:
            self.kept = False
            self._database.rename(self._opened)
            self._links.rename(self._database)
            shutil.rmtree(self._opened, ignore_errors=True)
        for name in set(os.listdir(self._path)) - self._there:
            # The restored database contains what was set aside there.
            if name == LOST or name.startswith(ASIDE):
                shutil.rmtree(self._path / name, ignore_errors=True)
            elif name == RESERVE:
                (self._path / name).unlink()


def _files(directory: Path) -> dict[str, int]:
    return {entry.name: entry.inode() for entry in os.scandir(directory)}


def finish_interrupted(path: Path) -> None:
    """Finish a L{Rollback.restore} or L{Rollback.discard} that was interrupted because the process died."""
    if not (path / DATABASE).exists() and (path / BEFORE).exists():
        (path / BEFORE).rename(path / DATABASE)
    for name in (BEFORE, AFTER, BACKED_UP, GIVEN):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path / name)
