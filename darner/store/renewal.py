"""
Reopening the database before LevelDB's C{LOG} and C{MANIFEST} are long.

LevelDB appends to both for as long as a database is open, about 250 bytes for each MiB that is set, and begins new ones
only when it is opened.
"""

from __future__ import annotations

from typing import Final

from darner.store.database import Database

_NOWHERE: Final = b"~"
"""Behind all keys."""


class Renewal:
    """Reopens a database when that is due."""

    LOG: Final = 2 * 1024 * 1024
    """Bytes of C{LOG} from which on it is due."""
    MANIFEST: Final = 512 * 1024
    """Bytes of C{MANIFEST} from which on it is due.  A start reads a MiB in 0.3 s."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def due(self) -> bool:
        directory = self._database.directory.database
        try:
            manifest = directory / (directory / "CURRENT").read_text().strip()
            return (directory / "LOG").stat().st_size > self.LOG or manifest.stat().st_size > self.MANIFEST
        except OSError:
            return False

    def prepare(self) -> None:
        """In a worker thread, make a table of the current log, so that reopening has little to read again."""
        database = self._database
        database.in_thread(lambda: database.compact_range(_NOWHERE, _NOWHERE + b"\0"))

    def run(self) -> None:
        """
        Reopen the database, in the reactor's thread, in some milliseconds.  Does nothing while a thread uses it.

        @raise darner.errors.StoreError: it was closed, and cannot be opened now.
        """
        database = self._database
        if self.due and not (database.writer.torn or database.damage):
            database.renew()
