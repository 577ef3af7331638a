"""Tests of `darner.front.audit`."""

from __future__ import annotations

from typing import Any, Optional

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from darner.config.settings import Rights
from darner.front.audit import MAX_TEXT, describe_address, describe_request, printable
from darner.front.kestrel_port import TextFactory
from darner.front.protocol import QueueFactory
from darner.values import requests
from test import allow_critical
from test.front.test_access import AccessTestCase
from test.front.test_protocol import MemoryClient

ADDRESS = "192.168.1.1:54321"
"""That of the clients here."""


class TextTests(SynchronousTestCase):
    """The texts of log lines."""

    def test_printable(self) -> None:
        """Whatever a client sends is one line of ASCII, and not too long."""
        for text, shown in (
            (b"ann", "ann"),
            (b"", ""),
            (b"a\r\nb\0\xff", r"a\r\nb\x00\xff"),
            (b"x" * MAX_TEXT, "x" * MAX_TEXT),
            (b"x" * (MAX_TEXT + 1), "x" * (MAX_TEXT - 3) + "..."),
            (b"\xff" * 10_000, (r"\xff" * MAX_TEXT)[: MAX_TEXT - 3] + "..."),
        ):
            self.assertEqual(printable(text), shown)

    def test_addresses(self) -> None:
        for address, shown in (
            (IPv4Address("TCP", "10.0.0.1", 5), "10.0.0.1:5"),
            (IPv6Address("TCP", "::1", 5), "[::1]:5"),
            (UNIXAddress("/socket"), "unix"),
            (None, "unix"),
        ):
            self.assertEqual(describe_address(address), shown)

    def test_requests(self) -> None:
        get = requests.Get(b"q", b"q/open", open=True)
        for request, shown in (
            (requests.Set(b"q", 0, 0, 5), "set q"),
            (get, "get q"),
            (requests.GetMany((b"a", b"b")), "get a b"),
            (requests.GetFirst((get, requests.Get(b"r", b"r"))), "get q r"),
            (requests.Confirm(b"q", 3), "confirm q 3"),
            (requests.Requeue(b"a", b"b", 7), "requeue a b 7"),
            (requests.Requeue(b"a", b"b"), "requeue a b"),
            (requests.FlushAll(), "flush_all"),
            (requests.FlushAllExpired(), "flush_all_expired"),
            (requests.SetStatus("readonly"), "status readonly"),
            (requests.DumpConfig((b"a",)), "dump_config a"),
            (requests.GetMany((b"x" * 100,) * 100), "get " + ("x" * 100 + " ") * 2 + "x" * 41 + "..."),
        ):
            self.assertEqual(describe_request(request), shown)


class AuditTests(AccessTestCase):
    """What clients do, and the log says."""

    def setUp(self) -> None:
        super().setUp()
        self.guard = self.access(bob=Rights(read=("b*",), write=("w*",)), root=Rights(admin=("*",)))
        self.factory = QueueFactory(self.queues, access=self.guard)
        captured = capturedLogs()
        self.events: list[Any] = captured.__enter__()
        self.addCleanup(captured.__exit__, None, None, None)

    def lines(self) -> list[tuple[LogLevel, str]]:
        """What the audit log got since the last call."""
        found = [event for event in self.events if event["log_namespace"] == "darner.audit"]
        self.events.clear()
        return [(event["log_level"], formatEvent(event)) for event in found]

    def ask(self, request: bytes, client: Optional[MemoryClient] = None, **options: Any) -> bytes:
        client = self.connect(access=self.guard, **options) if client is None else client
        client.send(request)
        return client.receive()

    def logged_in(self, user: bytes, password: bytes) -> MemoryClient:
        client = MemoryClient(self.clock, self.factory)
        self.ask(b"set auth 0 0 %d\r\n%b %b\r\n" % (len(user + password) + 1, user, password), client)
        return client

    def test_failed_log_in(self) -> None:
        """User and address, and not the password."""
        self.logged_in(b"ann", b"wrong")
        line = f"user ann failed to log in from {ADDRESS}: authentication failure"
        self.assertEqual(self.lines(), [(LogLevel.warn, line)])

    def test_user_with_a_line_end(self) -> None:
        """A client cannot forge lines of the log."""
        self.logged_in(b"a\nb", b"wrong")
        self.assertIn(r"user a\nb failed", self.lines()[0][1])

    def test_many_failed_log_ins(self) -> None:
        """One line a minute for each address, whatever the user names."""
        for number in range(50):
            self.logged_in(b"user%d" % number, b"wrong")
            self.clock.advance(1.1)
        self.assertEqual(len(self.lines()), 1)
        self.clock.advance(5.4)
        reason = f"user user49 failed to log in from {ADDRESS}: authentication failure"
        self.assertEqual(self.lines(), [(LogLevel.warn, f"{reason} (49 more in the last 60 s)")])

    def test_log_in(self) -> None:
        """With C{debug}, successful log-ins are logged."""
        self.logged_in(b"ann", b"secret")
        self.assertEqual(self.lines(), [])
        self.ask(b"set auth 0 0 10\r\nann secret\r\n", debug=True)
        self.assertEqual(self.lines(), [(LogLevel.debug, f"user ann logged in from {ADDRESS}")])

    def test_fault(self) -> None:
        """An internal error is not logged as a failed log-in."""
        self.holding = True
        self.logged_in(b"ann", b"secret")
        self.checks.pop()[0].errback(MemoryError("none"))
        self.assertEqual(self.lines(), [])
        self.flushLoggedErrors(MemoryError)

    def test_refused(self) -> None:
        bob = self.logged_in(b"bob", b"plain")
        large = b"x" * 100_000
        for request, shown in (
            (b"get a/open\r\n", "get a"),
            (b"set a 0 0 1\r\nx\r\n", "set a"),
            (b"set a2 0 0 100000\r\n%b\r\n" % large, "set a2"),
            (b"set a3 0 0 1 noreply\r\nx\r\n", "set a3"),
            (b"flush_all\r\n", "flush_all"),
        ):
            self.ask(request, bob)
            line = f"refused: {shown} of user bob from {ADDRESS}: not allowed"
            self.assertEqual(self.lines(), [(LogLevel.warn, line)])
        for _ in range(10):
            self.ask(b"get a/open\r\n", bob)
        self.assertEqual(self.lines(), [])

    def test_refused_before_logging_in(self) -> None:
        self.ask(b"delete a\r\nversion\r\n")
        self.assertEqual(
            self.lines(), [(LogLevel.warn, f"refused: delete a of user - from {ADDRESS}: unauthenticated")]
        )

    def test_acts(self) -> None:
        """Administrative requests are logged, and no other requests."""
        root = self.logged_in(b"root", b"toor")
        self.ask(b"set a 0 0 1\r\nx\r\nget a/peek\r\nget a b\r\ntouch a\r\nstatus\r\nstats\r\ndump_stats\r\n", root)
        self.assertEqual(self.lines(), [])
        for request, shown in (
            (b"delete a", "delete a"), (b"delete b noreply", "delete b"), (b"flush a", "flush a"),
            (b"flush_all", "flush_all"), (b"flush_all_expired", "flush_all_expired"),
            (b"requeue a b 5", "requeue a b 5"), (b"dump_config", "dump_config"),
            (b"status readonly", "status readonly"),
        ):  # fmt: skip
            self.ask(request + b"\r\n", root)
            self.assertEqual(self.lines(), [(LogLevel.info, f"{shown} by user root from {ADDRESS}")])

    def test_act_that_fails(self) -> None:
        """A request that fails is not logged."""
        root = self.logged_in(b"root", b"toor")
        self.ask(b"status quiescent\r\n", root)
        self.lines()
        self.assertTrue(self.ask(b"flush_all\r\nreload\r\n", root).startswith(b"SERVER_ERROR server is quiescent\r\n"))
        self.assertEqual(self.lines(), [])

    def test_without_users(self) -> None:
        """Without users, administrative requests are logged too, for both protocols."""
        for factory, request, shown in (
            (None, b"delete a\r\n", "delete a"),
            (TextFactory(self.queues), b"flush a\n", "flush a"),
            (TextFactory(self.queues), b"status readonly\n", "status readonly"),
        ):
            client = self.connect() if factory is None else MemoryClient(self.clock, factory)
            client.send(request)
            self.assertEqual(self.lines(), [(LogLevel.info, f"{shown} by user - from {ADDRESS}")])

    def test_text_protocol(self) -> None:
        """The same is logged for clients of the text port."""
        factory = TextFactory(self.queues, access=self.guard, debug=True)
        client = MemoryClient(self.clock, factory)
        for sent, level, line in (
            (b"delete a\n", LogLevel.warn, "refused: delete a of user - from {}: unauthenticated"),
            (b"put a:\nx\ny\n\n", LogLevel.warn, "refused: put a of user - from {}: unauthenticated"),
            (b"put a:\nbob plain\n\n", LogLevel.debug, "user bob logged in from {}"),
            (b"put a:\nx\n\n", LogLevel.warn, "refused: put a of user bob from {}: not allowed"),
            (b"get b\nput w:\nx\n\n", None, ""),
        ):
            self.ask(sent, client)
            self.assertEqual(self.lines(), [(level, line.format(ADDRESS))] if level else [])
        self.ask(b"put a:\nbob wrong\n\n", MemoryClient(self.clock, factory))
        line = f"user bob failed to log in from {ADDRESS}: authentication failure"
        self.assertEqual(self.lines(), [(LogLevel.warn, line)])

    def test_faults(self) -> None:
        """A repeated error is logged once and counted; the count is logged at the stop."""
        allow_critical(self, "error while checking a password: none (2 more")
        self.holding = True
        for password in (b"a", b"b", b"c"):
            self.logged_in(b"ann", password)
            self.checks.pop()[0].errback(MemoryError("none"))
        self.assertEqual(len(self.flushLoggedErrors(MemoryError)), 1)
        self.events.clear()
        self.factory.finish()
        self.assertIn(
            "internal error while checking a password: none (2 more in the last 0 s)", map(formatEvent, self.events)
        )

    def test_counted_at_the_stop(self) -> None:
        """Counts that are not logged yet are logged at the stop."""
        client = self.connect(access=self.guard)
        for _ in range(3):
            self.ask(b"delete a\r\n", client)
        self.lines()
        client.protocol.factory.finish()
        self.assertIn("(2 more in the last 0 s)", self.lines()[0][1])
