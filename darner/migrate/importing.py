"""
Importing: from a source, through its queues and their items, to a destination.

A destination remembers how many items of each queue it has gone through, and skips these when the import is begun
again.  An item that has expired or cannot be read counts as gone through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Final, Optional, Protocol

from darner.errors import DarnerError
from darner.migrate.report import QueueReport, Report
from darner.migrate.sources import Findings, Source, SourceItem, SourceQueue, Unreadable, digest

Progress = Callable[[str, int, int], None]
"""Is told the name of a queue, and how many items and bytes were gone through in all, every now and then."""

_EVERY: Final = 1000
"""Items between two calls of a L{Progress}."""


class ImportRefused(DarnerError):
    """The import cannot be begun.  Nothing was put.  The text says why, and what to do."""


class QueueDestination(Protocol):
    """Where the items of one queue go."""

    done: int
    """How many items of the queue were gone through by earlier runs."""
    finished: bool
    """Whether these were all."""

    def put(self, item: SourceItem) -> None:
        """
        Put the next item, perhaps together with those behind it.

        @raise Unreadable: its payload could not be read.  It counts as gone through.
        """

    def skip(self) -> None:
        """Count the next item as gone through, without putting it."""

    def finish(self) -> None:
        """Put what is left.  All items of the queue were gone through, and are on stable storage."""


class Destination(Protocol):
    """Where imported queues go."""

    def begin(self, fingerprint: bytes, queues: list[SourceQueue]) -> None:
        """
        @raise ImportRefused: these queues cannot be imported.
        """

    def queue(self, source: bytes, fingerprint: bytes, target: bytes) -> QueueDestination:
        """
        @param source: 16 bytes that name the source and its queue.
        @param fingerprint: 16 bytes that tell whether the source has changed, and are the same wherever it is.
        @param target: the name of the queue.
        @raise ImportRefused: an earlier import from the same source was not finished, or was, and the source has
            changed since.
        """

    def close(self) -> None:
        """Release what the destination holds.  Idempotent."""


class _DryQueue:
    done = 0
    finished = False

    def put(self, item: SourceItem) -> None:
        if sum(map(len, item.pieces)) != item.size:
            raise Unreadable("an item", f"it has more or less than {item.size} bytes")

    def skip(self) -> None:
        pass

    def finish(self) -> None:
        pass


class DryRun:
    """Reads everything and puts nothing."""

    def begin(self, fingerprint: bytes, queues: list[SourceQueue]) -> None:
        pass

    def queue(self, source: bytes, fingerprint: bytes, target: bytes) -> QueueDestination:
        return _DryQueue()

    def close(self) -> None:
        pass


def run_import(
    source: Source, destination: Destination, now: int, progress: Optional[Progress] = None,
    exclude: Sequence[str] = (),
) -> Report:  # fmt: skip
    """
    Import all queues of a source.

    @param now: the time, in ms since the epoch.
    @param exclude: patterns, as a shell has them, of names of queues in the source that are left out.
    @raise SourceError: the source cannot be read.
    @raise ImportRefused: the destination does not take it.
    @raise DarnerError: the destination fails.  What was put before is there, and is not put again by the next run.
    """
    findings = Findings()
    report = Report(source.kind, source.place, isinstance(destination, DryRun))
    try:
        fingerprint = source.fingerprint()
        queues = [queue for queue in source.queues(findings) if not _matches(queue.name, exclude)]
        destination.begin(fingerprint, queues)
        for queue in queues:
            _import_queue(source, queue, destination, fingerprint, now, findings, report, progress)
        if source.fingerprint() != fingerprint:
            findings.note("the source changed while it was read: it may be in use", 0)
    finally:
        report.losses += findings.losses
        report.notes += findings.notes
        report.notes.update({text: 0 for text, count in findings.notes.items() if not count})
    return report


def _matches(name: bytes, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name.decode("utf-8", "surrogateescape"), pattern) for pattern in patterns)


def _import_queue(
    source: Source, queue: SourceQueue, destination: Destination, fingerprint: bytes, now: int, findings: Findings,
    report: Report, progress: Optional[Progress],
) -> None:  # fmt: skip
    name = queue.name.decode("utf-8", "backslashreplace")
    line = QueueReport(name, queue.target.decode())
    report.queues.append(line)
    names = digest(source.identity(), queue.name), digest(fingerprint, queue.name)
    target = destination.queue(*names, queue.target)
    if target.finished:
        line.before = target.done
        return
    before = report.items, report.bytes
    for count, item in enumerate(queue.items(findings)):
        if progress is not None and count % _EVERY == 0:
            progress(name, before[0] + count, before[1] + line.bytes)
        if count < target.done:
            line.before += 1
        elif item.expiry and item.expiry <= now:
            line.expired += 1
            target.skip()
        else:
            try:
                target.put(item)
            except Unreadable as error:
                line.lost += 1
                findings.lose(error.place, error.reason)
            else:
                line.items += 1
                line.bytes += item.size
                line.delayed += item.due > now
    target.finish()
    if progress is not None:
        progress(name, report.items, report.bytes)
