"""Tests of `darner.net.log_limits`."""

from __future__ import annotations

from typing import Any, ClassVar

from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from darner.net.log_limits import KINDS, PERIOD, LimitedLog, SparseLog
from test import allow_critical


class LimitedLogTests(SynchronousTestCase):
    """Log lines that a client can cause any number of times."""

    _log: ClassVar[Logger] = Logger()

    def setUp(self) -> None:
        self.clock = Clock()
        self.limited = LimitedLog(self._log, self.clock)
        captured = capturedLogs()
        self.events: list[Any] = captured.__enter__()
        self.addCleanup(captured.__exit__, None, None, None)

    def lines(self) -> list[str]:
        """What was logged since the last call."""
        found = [formatEvent(event) for event in self.events if event["log_namespace"].startswith(__name__)]
        self.events.clear()
        return found

    def refuse(self, reason: str = "full", **fields: object) -> None:
        self.limited.emit(LogLevel.warn, "refused: {reason}", reason=reason, **fields)

    def test_once(self) -> None:
        """A single event is one line, with its level, fields and source, and nothing is left of it."""
        self.refuse()
        self.assertEqual((self.events[0]["log_level"], self.events[0]["reason"]), (LogLevel.warn, "full"))
        self.assertEqual(self.events[0]["log_namespace"], f"{__name__}.LimitedLogTests")
        self.assertEqual(self.lines(), ["refused: full"])
        self.clock.advance(PERIOD)
        self.assertEqual((self.lines(), self.clock.getDelayedCalls()), ([], []))
        self.refuse("empty")
        self.assertEqual(self.lines(), ["refused: empty"])

    def test_many(self) -> None:
        """However many there are: the first, one line a period, and the end."""
        for _ in range(1000):
            self.refuse()
        self.assertEqual(self.lines(), ["refused: full"])
        self.clock.advance(PERIOD - 1)
        self.refuse("still full")
        self.assertEqual(self.lines(), [])
        self.clock.advance(1)
        self.assertEqual(self.lines(), ["refused: still full (1000 more in the last 60 s)"])
        self.refuse()
        self.clock.advance(PERIOD)
        self.assertEqual(self.events[0]["left_out"], 1)
        self.assertEqual(self.lines(), ["refused: full (1 more in the last 60 s)"])
        self.clock.advance(PERIOD)
        self.assertEqual(self.events[0]["log_level"], LogLevel.warn)
        self.assertEqual(self.lines(), ["refused: full (over: 1002 times in 180 s)"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_kinds(self) -> None:
        """Each kind is counted by itself; by default a kind is a format."""
        for number in range(3):
            self.limited.emit(LogLevel.info, "{number}", kind=number, number=number)
            self.limited.emit(LogLevel.info, "other {number}", number=number)
        self.assertEqual(self.lines(), ["0", "other 0", "1", "2"])

    def test_too_many_kinds(self) -> None:
        """New kinds each time fill neither the memory nor the log."""
        for number in range(10 * KINDS):
            self.limited.emit(LogLevel.info, "{number}", kind=number, number=number)
        self.assertEqual(self.lines(), [str(number) for number in range(KINDS + 1)])
        self.assertEqual(len(self.clock.getDelayedCalls()), KINDS + 1)
        self.clock.advance(PERIOD)
        self.assertEqual(self.lines(), [f"{10 * KINDS - 1} ({9 * KINDS - 1} more in the last 60 s)"])

    def end(self) -> bool:
        return self.limited.end("all is well after {total} in {seconds} s", "refused: {reason}")

    def test_end(self) -> None:
        """An end is logged at once, with the total count."""
        self.assertFalse(self.end())
        self.refuse()
        self.clock.advance(3)
        self.refuse()
        self.assertTrue(self.end())
        self.assertEqual(self.lines(), ["refused: full", "all is well after 2 in 3 s"])
        self.assertFalse(self.end())
        self.clock.advance(PERIOD)
        self.assertEqual((self.lines(), self.clock.getDelayedCalls()), ([], []))

    def test_on_and_off(self) -> None:
        """Events that begin and end all the time are not logged each time."""
        for _ in range(100):
            self.refuse()
            self.assertTrue(self.end())
        self.assertEqual(self.lines(), ["refused: full", "all is well after 1 in 0 s"])
        self.clock.advance(PERIOD)
        self.assertEqual(self.lines(), ["refused: full (99 more in the last 60 s)", "all is well after 99 in 60 s"])
        self.refuse()
        self.end()
        self.refuse()
        self.clock.advance(PERIOD)
        self.assertEqual(self.lines(), ["refused: full (2 more in the last 60 s)"])
        self.assertTrue(self.end())
        self.assertEqual(self.lines(), ["all is well after 2 in 60 s"])

    def fail_at(self, where: str) -> None:
        try:
            if where == "here":
                raise ValueError("wrong")
            raise ValueError("wrong")
        except ValueError:
            self.limited.failure("a client failed")

    def test_failure(self) -> None:
        """The traceback of each fault is logged, once."""
        allow_critical(self, "9 more in the last 60 s")
        for _ in range(10):
            self.fail_at("here")
            self.fail_at("there")
        self.assertEqual(self.lines(), ["a client failed: wrong"] * 2)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)
        self.clock.advance(PERIOD)
        self.assertEqual(self.lines(), ["a client failed: wrong (9 more in the last 60 s)"] * 2)
        self.assertEqual(self.flushLoggedErrors(ValueError), [])

    def test_close(self) -> None:
        """Nothing that was counted is lost at the end, and no timer stays."""
        self.refuse()
        self.refuse("empty")
        self.limited.emit(LogLevel.info, "once")
        self.lines()
        self.limited.close()
        self.assertEqual(self.lines(), ["refused: empty (1 more in the last 0 s)"])
        self.assertEqual(self.clock.getDelayedCalls(), [])


class SparseLogTests(SynchronousTestCase):
    """The same without a reactor."""

    _log: ClassVar[Logger] = Logger()

    def test_period(self) -> None:
        clock = Clock()
        log = SparseLog(self._log, clock.seconds)
        with capturedLogs() as events:
            for number in range(3):
                log.emit(LogLevel.warn, "read {number}", number=number)
                log.emit(LogLevel.info, "reopened")
            clock.advance(PERIOD - 1)
            log.emit(LogLevel.warn, "read {number}", number=4)
            clock.advance(1)
            log.emit(LogLevel.warn, "read {number}", number=5)
            log.emit(LogLevel.warn, "read {number}", number=6)
            clock.advance(2 * PERIOD)
            log.emit(LogLevel.info, "reopened")
            clock.advance(PERIOD)
            log.emit(LogLevel.info, "reopened")
        self.assertEqual(
            [(event["log_level"], formatEvent(event)) for event in events],
            [
                (LogLevel.warn, "read 0"),
                (LogLevel.info, "reopened"),
                (LogLevel.warn, "read 5 (3 more in the last 60 s)"),
                (LogLevel.info, "reopened (2 more in the last 180 s)"),
                (LogLevel.info, "reopened"),
            ],
        )
