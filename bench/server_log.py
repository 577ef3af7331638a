"""
The log of a server that is tested: nothing in it may be an error that nobody handled.

Whoever runs a server reads its log to the end, by L{unhandled}; whoever runs queues in a process without a log
listens to what is logged, by L{LogWatch}.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from zope.interface import implementer

_ENTRY: Final = re.compile(r"^(?=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S* )", re.MULTILINE)
"""Where an entry of twistd's log begins; it goes on with lines that have no time."""
_UNHANDLED: Final = re.compile(
    r"^.*(?:"
    r"Traceback \(most recent call last\)|Traceback: <class |#critical\]|[Uu]nhandled [Ee]rror|Exception ignored in"
    r"|was never (?:awaited|retrieved)|Fatal Python error|ResourceWarning|terminate called|pure virtual method"
    r").*$",
    re.MULTILINE,
)


def entries(log: str) -> list[str]:
    """@return: the entries of a log; what has no times, such as a standard error, is one."""
    return [entry for entry in _ENTRY.split(log) if entry]


def unhandled(log: str, allowed: Collection[str] = ()) -> list[str]:
    """
    @param log: of twistd's, or what a process wrote to its standard error.
    @param allowed: texts; an entry with one of them is expected.
    @return: the entries that tell of an error which nobody handled.
    """
    return [
        entry.rstrip()
        for entry in entries(log)
        if _UNHANDLED.search(entry) and not any(text in entry for text in allowed)
    ]


@implementer(ILogObserver)
class LogWatch:
    """
    Listens, while it is entered, to what this process logs.

    @ivar unhandled: what was logged that should never be: failures, and events of the level C{critical}.
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
        """@raise AssertionError: something was logged that should never be."""
        assert not self.unhandled, f"logged: {self.unhandled}"
