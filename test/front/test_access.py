"""Tests of `darner.front.access`, and of `darner.front.log_in` over memory transports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from darner.config.passwords import Passwords
from darner.config.policies import Policies, QueueSettings
from darner.config.settings import Rights
from darner.errors import AuthenticationFailed, NotAllowed, TooManyLogins
from darner.front.access import MAX_CREDENTIALS, Access, Grant, network_of
from darner.front.audit import AuditLog, AuditTrail
from darner.front.log_in import LogIn
from darner.front.login_queue import MAX_OF_PLACE
from darner.net.limits import Limits
from darner.values.requests import Get
from darner.values.vocabulary import CHUNK_BYTES
from test.front.test_protocol import MemoryClient, MemoryTestCase


class GrantTests(SynchronousTestCase):
    """Rights by patterns of queue names."""

    def test_usual(self) -> None:
        grant = Grant(Rights())
        self.assertTrue(grant.may_read(b"q") and grant.may_write(b"q") and grant.may_see(b"q"))
        self.assertFalse(grant.may_administrate(b"q") or grant.everything)

    def test_patterns(self) -> None:
        grant = Grant(Rights(read=("jobs_*", "one"), write=("[a-c]?",), admin=()))
        for name, read, write in (
            (b"jobs_", True, False),
            (b"jobs_x", True, False),
            (b"xjobs_x", False, False),
            (b"one", True, False),
            (b"One", False, False),
            (b"ones", False, False),
            (b"ax", False, True),
            (b"dx", False, False),
            (b"axx", False, False),
        ):
            self.assertEqual((grant.may_read(name), grant.may_write(name)), (read, write), name)
            self.assertEqual(grant.may_see(name), read or write)

    def test_nothing(self) -> None:
        grant = Grant(Rights((), (), ()))
        self.assertFalse(grant.may_see(b"q") or grant.may_see(b""))

    def test_admin(self) -> None:
        some, all_ = Grant(Rights((), (), ("a*",))), Grant(Rights((), (), ("a*", "*")))
        self.assertTrue(some.may_administrate(b"ab") and some.may_see(b"ab"))
        self.assertFalse(some.may_administrate(b"b") or some.everything)
        self.assertTrue(all_.everything and all_.may_administrate(b"b"))


class AccessTestCase(MemoryTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = Path(self.mktemp())
        self.path.write_bytes(b"ann:secret\nbob:plain\nroot:toor\nout:in\n")
        self.path.chmod(0o600)
        self.checks: list[tuple[Deferred[Any], Any]] = []
        self.holding = False

    def in_thread(self, work: Any, *arguments: Any) -> Deferred[Any]:
        if not self.holding:
            return maybeDeferred(work, *arguments)
        done: Deferred[Any] = Deferred()
        self.checks.append((done, lambda: work(*arguments)))
        return done

    def release(self) -> None:
        done, work = self.checks.pop(0)
        maybeDeferred(work).chainDeferred(done)
        self.clock.advance(0)

    def access(self, **rights: Rights) -> Access:
        return Access(Passwords(self.path), rights, self.in_thread, self.clock)


class AccessTests(AccessTestCase):
    """Logging in."""

    def test_right_and_wrong(self) -> None:
        access = self.access(bob=Rights(read=("b",)))
        self.assertTrue(self.successResultOf(access.log_in(b"ann secret")).may_read(b"x"))
        self.assertFalse(self.successResultOf(access.log_in(b"bob plain")).may_read(b"x"))
        for credentials in (b"ann plain", b"eve secret", b"ann", b"", b" ", b"ann  secret", b"ann secret "):
            self.failureResultOf(access.log_in(credentials), AuthenticationFailed)

    def test_one_check_at_a_time(self) -> None:
        access = self.access()
        self.holding = True
        logins = [access.log_in(b"ann %d" % number) for number in range(3)] + [access.log_in(b"ann secret")]
        for login in logins:
            self.assertEqual(len(self.checks), 1)
            self.assertNoResult(login)
            self.release()
            (self.successResultOf if login is logins[3] else self.failureResultOf)(login)

    def test_known_without_a_check(self) -> None:
        access = self.access()
        self.successResultOf(access.log_in(b"ann secret"))
        self.holding = True
        self.successResultOf(access.log_in(b"ann secret"))
        self.assertNoResult(access.log_in(b"ann other"))

    def test_too_many(self) -> None:
        """Too many attempts from one address are refused; a user at another address is not."""
        access = self.access()
        self.holding = True
        bad, good = IPv4Address("TCP", "10.0.0.1", 1), IPv4Address("TCP", "10.0.0.2", 1)
        waiting = [access.log_in(b"ann %d" % number, bad) for number in range(MAX_OF_PLACE + 2)]
        ann = access.log_in(b"ann secret", good)
        self.failureResultOf(waiting[-1], TooManyLogins)
        self.clock.advance(1)
        for _ in range(2):
            self.release()
        self.failureResultOf(waiting[0], AuthenticationFailed)
        self.successResultOf(ann)

    def test_networks(self) -> None:
        for address, network in (
            (None, ""),
            (UNIXAddress("/socket"), ""),
            (IPv4Address("TCP", "10.0.0.1", 5), "10.0.0.1"),
            (IPv6Address("TCP", "::ffff:10.0.0.1", 5), "10.0.0.1"),
            (IPv6Address("TCP", "2001:db8:1:2:3:4:5:6", 5), "2001:db8:1:2::/64"),
            (IPv6Address("TCP", "fe80::1%eth0", 5), "fe80::/64"),
        ):
            self.assertEqual(network_of(address), network)

    def test_file_changes(self) -> None:
        access = self.access()
        self.successResultOf(access.log_in(b"ann secret"))
        self.path.write_bytes(b"ann:changed\n")
        self.failureResultOf(access.log_in(b"ann secret"), AuthenticationFailed)
        self.successResultOf(access.log_in(b"ann changed"))
        self.path.unlink()
        with capturedLogs() as logs:
            for _ in range(3):
                self.successResultOf(access.log_in(b"ann changed"))
        self.assertEqual(
            [formatEvent(event) for event in logs],
            [f"cannot read {self.path}: No such file or directory; the passwords read before stay in force"],
            "once, and not at each login",
        )

    def test_warnings(self) -> None:
        with capturedLogs() as logs:
            self.access()
            self.assertEqual(logs, [])
            self.path.chmod(0o604)
            self.access(eve=Rights())
        self.assertEqual(
            [formatEvent(event) for event in logs],
            [
                "user eve has rights, but is not in the password file",
                "others than its owner can read the password file: use chmod 600",
            ],
        )


class GuardTests(AccessTestCase):
    """A client that has to log in."""

    def setUp(self) -> None:
        super().setUp()
        self.guard = self.access(
            bob=Rights(read=("b*",), write=("w*",)), root=Rights(admin=("*",)), out=Rights((), (), ("o*",))
        )
        self.client = self.anonymous()
        free = self.connect()
        for queue in (b"a", b"b1", b"w1", b"o1"):
            free.send(b"set %b 0 0 1\r\nx\r\n" % queue)
        free.hang_up()

    def anonymous(self, **options: Any) -> MemoryClient:
        return self.connect(access=self.guard, **options)

    def logged_in(self, user: bytes, password: bytes) -> MemoryClient:
        client = self.anonymous()
        credentials = user + b" " + password
        request = b"set auth 0 0 %d\r\n%b\r\n" % (len(credentials), credentials)
        self.assertEqual(self.ask(request, client), b"STORED\r\n")
        return client

    def ask(self, request: bytes, client: MemoryClient) -> bytes:
        client.send(request)
        return client.receive()

    def test_before(self) -> None:
        """Only version and quit are served."""
        for request in (
            b"get a", b"get a/peek", b"get a/open", b"get a/abort", b"get a b1", b"get a/t=100", b"delete a",
            b"flush a", b"flush_all", b"stats", b"dump_stats", b"dump_stats a", b"touch a", b"requeue a b1",
            b"get a b1/t=5", b"monitor a 1", b"confirm a 1",
        ):  # fmt: skip
            self.assertEqual(self.ask(request + b"\r\n", self.client), b"CLIENT_ERROR unauthenticated\r\n", request)
        self.assertEqual(self.ask(b"delete a noreply\r\nflush_all noreply\r\nnonsense\r\n", self.client), b"ERROR\r\n")
        self.assertTrue(self.ask(b"version\r\n", self.client).startswith(b"VERSION "))
        self.assertEqual(self.queues.queue_figures(b"a")["items"], 1)
        self.assertEqual(self.ask(b"quit\r\n", self.client), b"")
        self.assertTrue(self.client.closed)

    def test_large_payload_before(self) -> None:
        """A large payload before the log-in is skipped, and the next request is served."""
        for size in (MAX_CREDENTIALS + 1, 3 * CHUNK_BYTES):
            request = b"set q 0 0 %d\r\n%b\r\nversion\r\n" % (size, b"get a\r\n" * (size // 7) + b"x" * (size % 7))
            reply = self.ask(request, self.client)
            self.assertTrue(reply.startswith(b"CLIENT_ERROR unauthenticated\r\nVERSION "), reply)
        self.assertEqual(self.queues.names(), [b"a", b"b1", b"o1", b"w1"])

    def test_log_in(self) -> None:
        client = self.logged_in(b"ann", b"secret")
        self.assertEqual(self.ask(b"set a 0 0 1\r\ny\r\nget a\r\n", client)[:16], b"STORED\r\nVALUE a ")
        self.assertEqual(self.queues.find(b"auth"), None)
        figures = self.queues.figures("")
        self.assertEqual((figures["auth_cmds"], figures["auth_errors"]), (1, 0))

    def test_log_in_by_pieces(self) -> None:
        for byte in b"set auth 0 0 10\r\nann secret\r\nget a\r\n":
            self.client.send(bytes([byte]))
        self.assertEqual(self.client.receive(), b"STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n")

    def test_log_in_without_a_reply(self) -> None:
        self.assertEqual(
            self.ask(b"set auth 0 0 10 noreply\r\nann secret\r\nget nothing\r\n", self.client), b"END\r\n"
        )

    def test_requests_behind_wait(self) -> None:
        """Requests sent ahead are served with the user's rights, once the password is checked."""
        self.holding = True
        self.assertEqual(self.ask(b"set auth 0 0 9\r\nbob plain\r\nget b1\r\nget a\r\n", self.client), b"")
        self.release()
        self.assertEqual(
            self.client.receive(), b"STORED\r\nVALUE b1 0 1\r\nx\r\nEND\r\nCLIENT_ERROR not allowed\r\n"
        )

    def test_failure(self) -> None:
        reply = self.ask(b"set auth 0 0 9\r\nann wrong\r\nget a\r\n", self.client)
        self.assertEqual(reply, b"CLIENT_ERROR authentication failure\r\n")
        self.assertTrue(self.client.closed)
        self.assertEqual(self.queues.queue_figures(b"a")["items"], 1)
        quiet = self.anonymous()
        self.assertEqual(self.ask(b"set auth 0 0 9 noreply\r\nann wrong\r\nget a\r\n", quiet), b"")
        self.assertTrue(quiet.closed)
        self.assertEqual(self.queues.figures("")["auth_errors"], 2)

    def test_gone_meanwhile(self) -> None:
        self.holding = True
        self.client.send(b"set auth 0 0 10\r\nann secret\r\n")
        self.client.hang_up()
        self.release()
        self.assertEqual(self.client.receive(), b"")

    def test_fault(self) -> None:
        """An internal error during the check refuses the log-in, and is logged."""
        self.holding = True
        self.client.send(b"set auth 0 0 10\r\nann secret\r\n")
        done, _ = self.checks.pop()
        done.errback(MemoryError("none"))
        self.clock.advance(0)
        self.assertEqual(self.client.receive(), b"SERVER_ERROR internal error\r\n")
        self.assertTrue(self.client.closed)
        self.assertEqual(len(self.flushLoggedErrors(MemoryError)), 1)

    def test_half_closed(self) -> None:
        """A client that closes its side for writing gets its replies."""
        self.holding = True
        self.client.send(b"set auth 0 0 10\r\nann secret\r\nget a\r\n")
        self.client.protocol.readConnectionLost()
        self.release()
        self.assertEqual(self.client.receive(), b"STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n")
        self.assertTrue(self.client.closed)

    def test_rights(self) -> None:
        denied = b"CLIENT_ERROR not allowed\r\n"
        bob = self.logged_in(b"bob", b"plain")
        for request, allowed in (
            (b"get b1/peek", True), (b"get b1/open", True), (b"get b1/abort", True), (b"get b1 b2", True),
            (b"get a", False), (b"get b1 a", False), (b"get w1", False), (b"get a/t=10", False),
            (b"set w2 0 0 1\r\nx", True), (b"set b1 0 0 1\r\nx", False), (b"set a/sync 0 0 1\r\nx", False),
            (b"delete b1", False), (b"flush w1", False), (b"flush_all", False),
            (b"flush_expired w1", False), (b"flush_all_expired", False), (b"dump_stats b1", True),
            (b"dump_stats a", False), (b"dump_stats w1 o1", False), (b"version", True), (b"touch b1", True),
            (b"touch w1", False), (b"requeue b1 w1", True), (b"requeue a w1", False), (b"requeue b1 a", False),
        ):  # fmt: skip
            reply = self.ask(request + b"\r\n", bob)
            self.assertEqual(reply == denied, not allowed, (request, reply))
        self.assertEqual(self.ask(b"set a 0 0 1 noreply\r\nx\r\ndelete a noreply\r\n", bob), b"")
        self.assertEqual(self.queues.queue_figures(b"a")["items"], 1)

    def test_rights_to_children(self) -> None:
        """Reads and sets of a child need a right to its own name; sets on its parent need a right to the parent."""
        denied = b"CLIENT_ERROR not allowed\r\n"
        bob, root = self.logged_in(b"bob", b"plain"), self.logged_in(b"root", b"toor")
        self.ask(b"get b1+x b1+y\r\n", root)
        for request, allowed in (
            (b"get b1+x/open", True), (b"get b1+y b2/t=0", True), (b"get b1 a/t=0", False), (b"get a b1/t=0", False),
            (b"get w1+x", False), (b"get w1+x b1/t=5", False), (b"set w1+y 0 0 1\r\nx", True),
            (b"set w1 0 0 1\r\ny", True), (b"set b1 0 0 1\r\nx", False), (b"monitor b1+x 0", True),
            (b"monitor w1+y 1", False), (b"confirm b1 1", True), (b"confirm w1 1", False),
        ):  # fmt: skip
            reply = self.ask(request + b"\r\n", bob)
            self.assertEqual(reply == denied, not allowed, (request, reply))
        self.assertEqual(self.queues.names(), [b"a", b"b1", b"b1+x", b"b1+y", b"o1", b"w1", b"w1+y"])
        self.assertEqual(self.queues.queue_figures(b"w1+y")["items"], 2)

    def test_a_right_to_read_makes_no_child(self) -> None:
        """A read creates a child only for users who may write to or administrate the child or its parent."""
        bob, root = self.logged_in(b"bob", b"plain"), self.logged_in(b"root", b"toor")
        for request in (
            b"get b1+n", b"get b1+n/open", b"get b1+n/peek", b"get b1+n/t=5", b"get b1 b1+n", b"get b1+n b2/t=5",
            b"monitor b1+n 0", b"monitor b1+n 1",
        ):  # fmt: skip
            self.assertEqual(self.ask(request + b"\r\n", bob), b"CLIENT_ERROR not allowed\r\n", request)
        self.assertEqual(self.queues.names(), [b"a", b"b1", b"o1", b"w1"])
        self.assertEqual(self.ask(b"get b1+n/close\r\n", bob), b"END\r\n")
        self.assertEqual(self.ask(b"get b1+n\r\n", root), b"END\r\n")
        self.assertEqual(self.ask(b"get b1+n\r\n", bob), b"END\r\n")
        self.assertEqual(self.queues.names(), [b"a", b"b1", b"b1+n", b"o1", b"w1"])

    def test_who_may_make_a_child(self) -> None:
        for child, parent, allowed in (
            (b"w+n", b"w", True), (b"w+n", b"x", True), (b"x+n", b"w", True), (b"a+n", b"x", True),
            (b"x+n", b"a", True), (b"x+n", b"x", False),
        ):  # fmt: skip
            read = Get(child, child)
            log_in = LogIn(self.guard, AuditTrail(AuditLog(self.clock), None))
            log_in.grant = Grant(Rights(read=("*",), write=("w", "w+*"), admin=("a", "a+*")))
            if allowed:
                log_in.check_new_child(read, child, parent)
            else:
                with capturedLogs() as logs:
                    self.assertRaises(NotAllowed, log_in.check_new_child, read, child, parent)
                said = [formatEvent(event) for event in logs]
                self.assertEqual(said, ["refused: get x+n of user - from unix: not allowed"])
            log_in.grant = None
            self.assertRaises(NotAllowed, log_in.check_new_child, read, child, parent)

    def test_rights_to_aliases(self) -> None:
        self.queues.apply(Policies(aliases={b"w_all": (b"a", b"b1"), b"all": (b"w1",)}))
        bob = self.logged_in(b"bob", b"plain")
        self.assertEqual(self.ask(b"set w_all 0 0 1\r\nx\r\n", bob), b"STORED\r\n")
        self.assertEqual(self.ask(b"set all 0 0 1\r\nx\r\n", bob), b"CLIENT_ERROR not allowed\r\n")
        figures = [self.queues.queue_figures(name)["items"] for name in (b"a", b"b1", b"w1")]
        self.assertEqual(figures, [2, 2, 1])

    def test_large_set_without_the_right(self) -> None:
        bob = self.logged_in(b"bob", b"plain")
        large = b"x" * (CHUNK_BYTES + 1)
        reply = self.ask(b"set a 0 0 %d\r\n%b\r\nset w1 0 0 %d\r\n%b\r\n" % (len(large), large, len(large), large), bob)
        self.assertEqual(reply, b"CLIENT_ERROR not allowed\r\nSTORED\r\n")
        self.assertEqual(self.queues.queue_figures(b"w1")["items"], 2)

    def test_too_large(self) -> None:
        self.queues.apply(Policies(QueueSettings(max_item_bytes=10)))
        bob = self.logged_in(b"bob", b"plain")
        self.assertEqual(self.ask(b"set w1 0 0 11\r\nxxxxxxxxxxx\r\n", bob), b"SERVER_ERROR object too large\r\n")
        self.queues.apply(Policies(QueueSettings(max_item_bytes=100_000)))
        large = b"x" * 100_001
        self.assertEqual(
            self.ask(b"set w1 0 0 100001\r\n%b\r\n" % large, bob), b"SERVER_ERROR object too large\r\n"
        )

    def test_figures(self) -> None:
        """A user sees the figures of only those queues to which it has a right."""
        bob, out = self.logged_in(b"bob", b"plain"), self.logged_in(b"out", b"in")
        for client, seen in ((bob, {b"b1", b"w1"}), (out, {b"o1"})):
            stats = self.ask(b"stats\r\n", client) + self.ask(b"dump_stats\r\n", client)
            for queue in (b"a", b"b1", b"w1", b"o1"):
                self.assertEqual(b"queue_%b_items" % queue in stats, queue in seen)
                self.assertEqual(b"queue '%b'" % queue in stats, queue in seen)

    def test_admin(self) -> None:
        out, root = self.logged_in(b"out", b"in"), self.logged_in(b"root", b"toor")
        self.assertEqual(self.ask(b"flush o1\r\ndelete o1\r\n", out), b"END\r\nDELETED\r\n")
        self.assertEqual(self.ask(b"flush_all\r\nflush a\r\nget o1\r\n", out), b"CLIENT_ERROR not allowed\r\n" * 3)
        self.assertEqual(self.ask(b"flush a\r\ndelete b1\r\n", root), b"END\r\nDELETED\r\n")
        self.assertEqual(self.ask(b"flush_all\r\n", root), b"Flushed all queues.\r\n")
        self.assertEqual(self.ask(b"flush_expired o1\r\n", out), b"0\r\n")
        self.assertEqual(self.ask(b"flush_all_expired\r\n", root), b"0\r\n")

    def test_who_never_logs_in(self) -> None:
        """A client that does not log in is disconnected, whatever it sends."""
        limits = Limits(stall_timeout=10)
        silent, talkative, half = (self.anonymous(limits=limits) for _ in range(3))
        user = self.anonymous(limits=limits)
        user.send(b"set auth 0 0 10\r\nann secret\r\n")
        half.send(b"set auth 0 0 100\r\n")
        for _ in range(20):
            for client, request in ((talkative, b"version\r\n"), (half, b"x"), (user, b"version\r\n")):
                if not client.closed:
                    client.send(request)
            self.advance(1)
        self.assertEqual([client.closed for client in (silent, talkative, half, user)], [True, True, True, False])

    def test_time_while_a_password_is_checked(self) -> None:
        """The time of the check does not count against the client."""
        self.holding = True
        client = self.anonymous(limits=Limits(stall_timeout=10))
        client.send(b"set auth 0 0 10\r\nann secret\r\n")
        self.advance(30)
        self.assertFalse(client.closed)
        self.release()
        self.assertEqual(client.receive(), b"STORED\r\n")

    def test_gone_before_its_turn(self) -> None:
        """The password of a client that has disconnected is not checked."""
        self.holding = True
        clients = [self.anonymous() for _ in range(10)]
        for number, client in enumerate(clients):
            client.send(b"set auth 0 0 9\r\nann %05d\r\n" % number)
        for client in clients:
            client.hang_up()
        self.release()
        self.assertEqual(self.checks, [])
        self.assertEqual(self.queues.figures("")["auth_errors"], 0)

    def test_flood(self) -> None:
        """A user can log in while 400 connections from the same address send wrong passwords."""
        self.holding = True
        bad = [self.anonymous() for _ in range(400)]
        for client in bad:
            client.send(b"set auth 0 0 10\r\nevil wrong\r\n")
        self.client.send(b"set auth 0 0 10\r\nann secret\r\n")
        for _ in range(3):
            self.release()
        self.assertEqual(self.client.receive(), b"STORED\r\n")
        self.assertEqual({client.receive() for client in bad}, {b"CLIENT_ERROR authentication failure\r\n"})
