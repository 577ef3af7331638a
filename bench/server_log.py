"""
Checks that the log of a server under test has no unhandled errors.

A test that runs a server checks its log by L{unhandled}; a test that runs queues in its own process checks its log
events by L{LogWatch}.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from zope.interface import implementer

_ENTRY: Final = re.compile(r"^(?=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S* )", re.MULTILINE)
"""The beginning of an entry in twistd's log; its further lines have no time."""
_UNHANDLED: Final = re.compile(
    r"^.*(?:"
    r"Traceback \(most recent call last\)|Traceback: <class |#critical\]|[Uu]nhandled [Ee]rror|Exception ignored in"
    r"|was never (?:awaited|retrieved)|Fatal Python error|ResourceWarning|terminate called|pure virtual method"
    r").*$",
    re.MULTILINE,
)


def entries(log: str) -> list[str]:
    """@return: the entries of a log; text without times, such as a standard error, is one entry."""
    return [entry for entry in _ENTRY.split(log) if entry]


def unhandled(log: str, allowed: Collection[str] = ()) -> list[str]:
    """
    @param log: twistd's log, or the standard error of a process.
    @param allowed: texts; an entry with one of them is expected.
    @return: the entries with unhandled errors.
    """
    return [
        entry.rstrip()
        for entry in entries(log)
        if _UNHANDLED.search(entry) and not any(text in entry for text in allowed)
    ]


@implementer(ILogObserver)
class LogWatch:
    """
    A context manager that collects the unhandled errors that this process logs.

    @ivar unhandled: the logged failures and events of the level C{critical}.
    """

    def __init__(self) -> None:
        self.unhandled: list[str] = []

    def __call__(self, event: LogEvent) -> None:
        if "log_failure" in event or event["log_level"] is LogLevel.critical:
            failure = event.get("log_failure")
            self.unhandled.append(formatEvent(event) + (f": {failure.value!r}" if failure is not None else ""))

    def __enter__(self) -> LogWatch:
        globalLogPublisher.addObserver(self)
        return self

    def __exit__(self, *_: object) -> None:
        globalLogPublisher.removeObserver(self)

    def check(self) -> None:
        """@raise AssertionError: there was an unhandled error."""
        assert not self.unhandled, f"logged: {self.unhandled}"
