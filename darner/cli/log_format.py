"""
The log as JSON, an object a line, and from which level on.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, Final

import twisted.logger
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
)
from twisted.scripts._twistd_unix import UnixAppLogger
from zope.interface import implementer

_OWN: Final = frozenset(["format", "message", "time", "system", "isError", "level", "namespace", "failure", "why"])
"""Keys of events that are no fields of theirs, or have other names in a line."""


@implementer(ILogObserver)
class JsonObserver:
    """Writes events as JSON."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __call__(self, event: LogEvent) -> None:
        self._file.write(json.dumps(describe(event), ensure_ascii=True, default=str) + "\n")
        self._file.flush()


def describe(event: LogEvent) -> dict[str, Any]:
    """@return: an event as what becomes JSON: time, level, namespace, message, its traceback, and its fields."""
    level = event.get("log_level")
    line: dict[str, Any] = {
        "time": datetime.fromtimestamp(event["log_time"], timezone.utc).isoformat(timespec="milliseconds"),
        "level": getattr(level, "name", "info"),
        "namespace": event.get("log_namespace", "-"),
        "message": formatEvent(event),
    }
    failure = event.get("log_failure")
    if failure is not None:
        line["traceback"] = failure.getTraceback()
    for name, value in event.items():
        if not name.startswith("log_") and name not in _OWN and name not in line:
            line[name] = value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
    return line


def observer_maker(format: str, level: str) -> Callable[[Any], Any]:
    """
    @param format: C{text} or C{json}.
    @param level: the name of the lowest level that is logged.
    @return: makes an observer that writes such a log to a file.
    """
    make: Any = JsonObserver if format == "json" else twisted.logger.textFileLogObserver
    lowest = LogLevel.levelWithName(level)
    return lambda file: _filtered(make(file), lowest)


def install(format: str, level: str) -> None:
    """Have the log that twistd writes to a file or to standard output be as by L{observer_maker}, from now on."""
    make = observer_maker(format, level)

    def get(self: UnixAppLogger) -> Any:
        return _with_observer(make, _get, self)

    UnixAppLogger._getLogObserver = get  # type: ignore[method-assign]


_get: Final = UnixAppLogger._getLogObserver


def _filtered(observer: Any, lowest: Any) -> Any:
    return FilteringLogObserver(observer, [LogLevelFilterPredicate(defaultLogLevel=lowest)])


def _with_observer(make: Callable[[Any], Any], call: Callable[..., Any], *arguments: Any) -> Any:
    """Call something that makes an observer for a file, and have it be another one."""
    logger: Any = twisted.logger
    usual = logger.textFileLogObserver
    logger.textFileLogObserver = make
    try:
        return call(*arguments)
    finally:
        logger.textFileLogObserver = usual
