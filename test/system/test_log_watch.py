"""
Tests of the checks of servers' logs (`bench.server_log`, `test.servers`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from unittest import TestResult

from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from bench.server_log import LogWatch, entries, unhandled
from test import LoggedAsCritical, allow_critical
from test.servers import FOREGROUND, TWISTD, Server, check_output, make_directory, run

FAULTY = """
from twisted.internet.defer import fail
from darner.front.protocol import QueueProtocol

def fail_now(protocol):
    raise ZeroDivisionError("on purpose")

def drop(protocol):
    fail(ZeroDivisionError("on purpose"))

QueueProtocol.readConnectionLost = {what}
from twisted.scripts.twistd import run
run()
"""
"""twistd with a server that does something wrong when a client closes its side of the connection."""

STAMP = "2026-01-02T03:04:05+0000 "


class ReadingTests(SynchronousTestCase):
    """Errors that are found in a text."""

    def test_entries(self) -> None:
        log = f"{STAMP}[darner#info] one\n{STAMP}[-#critical] two\n\tTraceback (most recent call last):\n\t  x\n"
        self.assertEqual([len(entry.splitlines()) for entry in entries(log)], [1, 3])
        self.assertEqual(entries("a\nb\n"), ["a\nb\n"])
        self.assertEqual(entries(""), [])

    def test_unhandled(self) -> None:
        for text in (
            "[twisted.internet.defer#critical] Unhandled error in Deferred:",
            "[-] x\n\tTraceback (most recent call last):\n\tbuiltins.OSError: no",
            "Traceback: <class 'OSError'>: no",
            "Exception ignored in: <function f>",
            "sys:1: RuntimeWarning: coroutine 'f' was never awaited",
            "Fatal Python error: Segmentation fault",
        ):
            self.assertEqual(unhandled(f"{STAMP}[-#info] well\n{STAMP}{text}\n"), [f"{STAMP}{text}"])
            self.assertEqual(unhandled(f"{STAMP}{text}\n", ["something else"]), [f"{STAMP}{text}"])
            self.assertEqual(unhandled(f"{STAMP}{text}\n", ["something else", text[-9:]]), [])

    def test_handled(self) -> None:
        """Log lines about a disk or a client are not unhandled errors."""
        for text in (
            "[darner.queues.commit.GroupCommit#error] the store refused a write: No space left on device",
            "[darner#warn] too many connections: refusing new ones",
            "Received SIGTERM, shutting down.",
        ):
            self.assertEqual(unhandled(f"{STAMP}{text}\n"), [])


class RealServerTests(SynchronousTestCase):
    """A server that logs a traceback fails the test that it was started by."""

    def outcome(self, what: str, test: Callable[[SynchronousTestCase], None]) -> TestResult:
        """@return: what comes of a test that starts a server and has a client close its side."""
        directory = make_directory(self)
        (directory / "faulty.py").write_text(FAULTY.format(what=what))
        program = (sys.executable, "faulty.py", *FOREGROUND[len(TWISTD) :])

        class Inner(SynchronousTestCase):
            def test(self) -> None:
                self.server = Server(self, "--port=0", program=program, directory=directory)
                with self.server.client() as client:
                    client.send(b"version\r\n")
                    client.line()
                test(self)

        result = TestResult()
        Inner("test").run(result)
        return result

    def wait(self, case: SynchronousTestCase) -> None:
        case.server.wait_for("on purpose")  # type: ignore[attr-defined]

    def test_traceback(self) -> None:
        for what in ("fail_now", "drop"):
            result = self.outcome(what, self.wait)
            (error,) = result.failures + result.errors
            self.assertIn("the server logged:\n", error[1])
            self.assertIn("on purpose", error[1])

    def test_traceback_of_an_earlier_life(self) -> None:
        def restart(case: SynchronousTestCase) -> None:
            self.wait(case)
            case.server.restart()  # type: ignore[attr-defined]

        result = self.outcome("fail_now", restart)
        self.assertIn("on purpose", (result.failures + result.errors)[0][1])

    def test_once(self) -> None:
        """A server that several tests use fails that one in which it was."""

        def look(case: SynchronousTestCase) -> None:
            self.wait(case)
            self.assertRaises(AssertionError, case.server.check_log)  # type: ignore[attr-defined]

        self.assertTrue(self.outcome("fail_now", look).wasSuccessful())

    def test_expected(self) -> None:
        def allow(case: SynchronousTestCase) -> None:
            self.wait(case)
            case.server.allow("on purpose")  # type: ignore[attr-defined]

        self.assertTrue(self.outcome("fail_now", allow).wasSuccessful())

    def test_nothing_wrong(self) -> None:
        self.assertTrue(self.outcome("QueueProtocol.readConnectionLost", lambda case: None).wasSuccessful())

    def test_program(self) -> None:
        """The same for a program that is run to its end."""
        fails = (sys.executable, "-c", "1 / 0")
        error = self.assertRaises(AssertionError, run, *fails, cwd=Path())
        self.assertIn("ZeroDivisionError", str(error))
        self.assertEqual(run(*fails, cwd=Path(), allowed=["ZeroDivisionError"]).returncode, 1)
        check_output("well\n", "")


class InProcessTests(SynchronousTestCase):
    """What is logged in the process of the tests."""

    def outcome(self, test: Callable[[SynchronousTestCase], None]) -> TestResult:
        class Inner(SynchronousTestCase):
            def test(self) -> None:
                test(self)

        result = TestResult()
        Inner("test").run(result)
        return result

    def test_failure(self) -> None:
        result = self.outcome(lambda case: Logger().failure("oh", Failure(ZeroDivisionError("on purpose"))))
        self.assertIn("on purpose", result.errors[0][1])

    def test_critical(self) -> None:
        result = self.outcome(lambda case: Logger().critical("on {what}", what="purpose"))
        self.assertIn("on purpose", result.errors[0][1])

    def test_flushed(self) -> None:
        def flush(case: SynchronousTestCase) -> None:
            Logger().critical("on purpose")
            self.assertEqual(len(case.flushLoggedErrors(LoggedAsCritical)), 1)

        self.assertTrue(self.outcome(flush).wasSuccessful())

    def test_allowed(self) -> None:
        """What is expected is expected by its text."""
        for allowed, successful in (("on purpose", True), ("something else", False)):

            def log(case: SynchronousTestCase, allowed: str = allowed) -> None:
                allow_critical(case, allowed)
                Logger().critical("on purpose")

            self.assertEqual(self.outcome(log).wasSuccessful(), successful)

    def test_other_levels(self) -> None:
        self.assertTrue(self.outcome(lambda case: Logger().error("a disk is full")).wasSuccessful())

    def test_watch(self) -> None:
        """As workers of benchmarks have it, who are no tests."""
        with LogWatch() as watch:
            Logger().error("a disk is full")
            watch.check()
            Logger().critical("oh {what}", what="no")
            Logger().failure("oh", Failure(ZeroDivisionError("on purpose")))
        Logger().critical("later")
        # What `test` makes of the critical one, for trial, is seen as well.
        seen = [text for text in watch.unhandled if "LoggedAsCritical" not in text]
        self.assertEqual(seen, ["oh no", "oh: ZeroDivisionError('on purpose')"])
        self.assertRaises(AssertionError, watch.check)
        self.flushLoggedErrors()
