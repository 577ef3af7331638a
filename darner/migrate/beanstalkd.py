"""
Queues of beanstalkd, from the directory of its binlog.

A job may be deleted or changed anywhere in the binlog, and jobs are given out by priority.  So the jobs that are left
are listed in a temporary SQLite database, which takes little memory however many they are, and are fetched in the order
in which beanstalkd would give them.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final

from darner.migrate.beanstalkd_binlog import (
    BURIED,
    DELAYED,
    INVALID,
    READY,
    RESERVED,
    Record,
    binlog_files,
    read_binlog,
)
from darner.migrate.open_file import OpenFile
from darner.migrate.sources import Findings, Source, SourceError, SourceItem, SourceQueue, files_digest, refuse_locked

BURIED_QUEUE: Final = b".buried"
"""What the name of the queue for a tube's buried jobs ends with."""

_TABLE: Final = """
    PRAGMA journal_mode = OFF;
    PRAGMA synchronous = OFF;
    PRAGMA cache_size = -2048;
    CREATE TABLE job (
        id INTEGER PRIMARY KEY, tube BLOB, state INTEGER, priority INTEGER, created INTEGER, deadline INTEGER,
        file INTEGER, offset INTEGER, size INTEGER
    );
"""
_PUT: Final = "INSERT OR REPLACE INTO job VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_CHANGE: Final = "UPDATE job SET state = ?, priority = ?, deadline = ? WHERE id = ?"
_ORDER: Final = """
    SELECT created, deadline, file, offset, size FROM job WHERE tube = ? AND state = ?
    ORDER BY CASE state WHEN 4 THEN deadline WHEN 3 THEN 0 ELSE priority END, id
"""


class _Jobs:
    """The jobs that are left in a binlog."""

    def __init__(self, files: list[Path], findings: Findings) -> None:
        """@raise SourceError: a file cannot be read."""
        self.files = files
        self._database = sqlite3.connect("")  # a temporary file
        self._database.executescript(_TABLE)
        self._database.execute("BEGIN")
        for number, path in enumerate(files):
            try:
                for record in read_binlog(path, findings.lose):
                    self._apply(number, record)
            except OSError as error:
                raise SourceError(f"cannot read {path}: {error.strerror}") from error
        self._database.execute("CREATE INDEX place ON job (tube, state, priority)")
        self._note(findings)

    def _apply(self, file: int, record: Record) -> None:
        execute = self._database.execute
        if record.state == INVALID:
            execute("DELETE FROM job WHERE id = ?", (record.id,))
        elif record.tube:
            execute(_PUT, (
                record.id, record.tube, record.state, record.priority, record.created, record.deadline, file,
                record.offset, record.size,
            ))  # fmt: skip
        else:
            # Without an earlier record the job was deleted, or is in a later file once more.
            execute(_CHANGE, (record.state, record.priority, record.deadline, record.id))

    def _note(self, findings: Findings) -> None:
        for text, condition in (
            ("reserved jobs become ready items", f"state = {RESERVED}"),
            (f"buried jobs come to a queue of their own, TUBE{BURIED_QUEUE.decode()}", f"state = {BURIED}"),
        ):
            ((count,),) = self._database.execute(f"SELECT count(*) FROM job WHERE {condition}")
            if count:
                findings.note(text, count)
        ((priorities,),) = self._database.execute("SELECT count(DISTINCT priority) FROM job")
        if priorities > 1:
            findings.note("priorities are not kept: ready jobs are put in the order of their priorities", 0)
        ((jobs,),) = self._database.execute("SELECT count(*) FROM job")
        if jobs:
            findings.note("times to run (TTR) are not kept: set open_timeout for the queue instead", 0)
        self._database.execute(f"UPDATE job SET state = {READY} WHERE state = {RESERVED}")

    def tubes(self) -> list[tuple[bytes, bool]]:
        """@return: tubes with jobs, and whether it is their buried ones."""
        found = self._database.execute(f"SELECT DISTINCT tube, state = {BURIED} FROM job ORDER BY 1, 2")
        return [(tube, bool(buried)) for tube, buried in found]

    def jobs(self, tube: bytes, states: tuple[int, ...]) -> Iterator[tuple[int, int, int, int, int, int]]:
        """@return: for each job its state, when it was put, its deadline, and the file, offset and size of its body."""
        for state in states:
            for job in self._database.execute(_ORDER, (tube, state)):
                yield (state, *job)

    def close(self) -> None:
        self._database.close()


class BeanstalkdQueue(SourceQueue):
    """A tube of beanstalkd, or its buried jobs."""

    def __init__(self, tube: bytes, buried: bool, jobs: _Jobs) -> None:
        # No tube has a name with a space.
        super().__init__(tube + b" (buried)" if buried else tube, tube + BURIED_QUEUE if buried else None)
        self._tube = tube
        self._states = (BURIED,) if buried else (READY, DELAYED)
        self._jobs = jobs

    def items(self, findings: Findings) -> Iterator[SourceItem]:
        with OpenFile() as file:
            for state, created, deadline, number, offset, size in self._jobs.jobs(self._tube, self._states):
                pieces = file.read(self._jobs.files[number], offset, size)
                yield SourceItem(size, pieces, max(0, created), due=deadline if state == DELAYED else 0)


class Beanstalkd(Source):
    """A directory with a binlog of beanstalkd."""

    kind: ClassVar[str] = "beanstalkd"

    def __init__(self, directory: Path) -> None:
        """@raise SourceError: a server uses it."""
        super().__init__(str(directory.absolute()))
        self._directory = directory.absolute()
        self._stack = contextlib.ExitStack()
        refuse_locked(self._directory / "lock")

    @staticmethod
    def recognizes(directory: Path) -> bool:
        return bool(binlog_files(directory))

    def fingerprint(self) -> bytes:
        return files_digest(self._directory, binlog_files(self._directory))

    def queues(self, findings: Findings) -> list[SourceQueue]:
        jobs = self._stack.enter_context(contextlib.closing(_Jobs(binlog_files(self._directory), findings)))
        return [BeanstalkdQueue(tube, buried, jobs) for tube, buried in jobs.tubes()]

    def close(self) -> None:
        self._stack.close()
