"""
The manifest: the list of the tables and logs that make up a database.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple, Optional

from darner.store.files.damage import BadFile
from darner.store.files.log import LogFile
from darner.store.files.names import logs
from darner.store.files.varint import read_string, read_varint

_CURRENT: Final = re.compile(rb"(MANIFEST-\d+)\n")


def current(database: Path) -> Path:
    """
    @return: the current manifest of a database.
    @raise BadFile: the file C{CURRENT} is missing or damaged; the text begins with its name.
    """
    try:
        match = _CURRENT.fullmatch((database / "CURRENT").read_bytes())
    except OSError as error:
        raise BadFile(f"CURRENT: {error.strerror}") from error
    if match is None:
        raise BadFile("CURRENT: it names no manifest")
    return database / match[1].decode()


def newest(database: Path) -> Manifest:
    """
    Read the current manifest of a database; the same one again if it has not changed since, as a long one takes time.

    @raise BadFile: as for L{current} and L{Manifest}.
    """
    path = current(database)
    try:
        status = path.stat()
    except OSError as error:
        raise BadFile(f"{path.name}: {error.strerror}") from error
    state = path, status.st_ino, status.st_size, status.st_mtime_ns
    if state not in _read:
        manifest = Manifest(path)
        _read.clear()
        _read[state] = manifest
    return _read[state]


class TableInfo(NamedTuple):
    """A manifest's entry for a table: its size in bytes, its smallest and largest key."""

    size: int
    smallest: bytes
    largest: bytes


class Manifest:
    """
    A manifest.

    @ivar path: its path.
    @ivar tables: the entries of all tables, by number.
    @ivar log: the number of the first log that is not in tables yet.
    @ivar sequence: the last sequence number when it was written.
    @ivar end: the offset where the records that were left out begin; C{None} if none were.
    @ivar cut: as in L{LogFile}.
    """

    def __init__(self, path: Path, leave_out: int = 0) -> None:
        """
        @param leave_out: the number of records at its end to ignore.
        @raise BadFile: it is missing or damaged; the text begins with the file's name.
        """
        self.path = path
        self.tables: dict[int, TableInfo] = {}
        self.log = -1
        self.sequence = 0
        self.end: Optional[int] = None
        self._previous_log = 0
        file = LogFile(path)
        try:
            records = [(file.start, record) for record in file.records()]
            for place, (start, record) in enumerate(records):
                if place == len(records) - leave_out:
                    self.end = start
                    break
                self._apply(record)
        except OSError as error:
            raise BadFile(f"{self.path.name}: {error.strerror}") from error
        except IndexError as error:
            raise BadFile(f"{self.path.name}: a record is cut short") from error
        except BadFile as error:
            raise BadFile(f"{self.path.name}: {error}") from error
        if file.lost:
            raise BadFile(f"{self.path.name}: {file.lost[0].reason}")
        if self.log < 0:
            raise BadFile(f"{self.path.name}: it holds no state of the database")
        self.cut = file.cut

    def _apply(self, record: bytes) -> None:
        at = 0
        while at < len(record):
            tag, at = read_varint(record, at)
            if tag == 1:  # comparator
                _, at = read_string(record, at)
            elif tag == 2:
                self.log, at = read_varint(record, at)
            elif tag == 9:
                self._previous_log, at = read_varint(record, at)
            elif tag == 3:  # next file number
                _, at = read_varint(record, at)
            elif tag == 4:
                self.sequence, at = read_varint(record, at)
            elif tag == 5:  # start of a level's next compaction
                _, at = read_varint(record, at)
                _, at = read_string(record, at)
            elif tag == 6:
                _, at = read_varint(record, at)
                number, at = read_varint(record, at)
                self.tables.pop(number, None)
            elif tag == 7:
                _, at = read_varint(record, at)
                number, at = read_varint(record, at)
                size, at = read_varint(record, at)
                smallest, at = read_string(record, at)
                largest, at = read_string(record, at)
                self.tables[number] = TableInfo(size, smallest[:-8], largest[:-8])
            else:
                raise BadFile(f"it holds a record of kind {tag}, which is unknown")

    def logs(self, database: Path) -> dict[int, Path]:
        """@return: the existing logs that are not in tables yet, by number."""
        return {
            number: path for number, path in logs(database).items()
            if number >= self.log or number == self._previous_log
        }  # fmt: skip


_read: dict[tuple[Path, int, int, int], Manifest] = {}
"""The manifest that was read last, by its path, inode, size and time."""
