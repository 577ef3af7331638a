"""
Tests of `darner.front.kestrel_port`: the text protocol over memory transports, and on a port of a real server.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.trial.unittest import SynchronousTestCase, TestCase

import darner
from darner.config.passwords import Passwords
from darner.config.policies import Policies, QueueSettings
from darner.config.settings import Rights, Settings, make_settings
from darner.errors import SettingsError, StoreError
from darner.front import kestrel
from darner.front.access import Access
from darner.front.kestrel_port import TextFactory
from darner.front.protocol import QueueFactory
from darner.net.limits import Limits
from darner.net.listeners import TEXT, Listener
from darner.queues.collection import Queues
from darner.queues.control import Control
from darner.queues.fifo import Fifo
from darner.service import QueueService
from darner.store.memory import MemoryStore
from darner.values import requests
from darner.values.vocabulary import CHUNK_BYTES
from test import servers
from test.front.test_protocol import MemoryClient, MemoryTestCase
from test.harness import FaultyStore, from_source


class TextTestCase(MemoryTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.store = FaultyStore(MemoryStore())
        self.queues = Queues(self.store, self.surroundings)
        self.client = self.text_client()

    def text_client(self, **options: Any) -> MemoryClient:
        return MemoryClient(self.clock, TextFactory(self.queues, **options))

    def says(self, sent: bytes, client: Any = None) -> bytes:
        """@return: what a client is answered."""
        client = client or self.client
        client.send(sent)
        return client.receive()

    def items(self, queue: bytes = b"q") -> int:
        fifo = self.queues.find(queue)
        return 0 if fifo is None else fifo.count


class PutTests(TextTestCase):
    """``put``: lines with items, and an empty one."""

    def test_put(self) -> None:
        self.assertEqual(self.says(b"put q:\none\ntwo words\n\n"), b"+2\n")
        self.assertEqual(self.says(b"get q\nget q\nget q\n"), b":one\n:two words\n*\n")

    def test_byte_by_byte(self) -> None:
        sent = b"put q:\r\none\r\n\xff \x00:\r\n\r\nput q:\n\nversion\nget q\nget q\n"
        expected = b"+2\n+0\n:%b\n:one\n:\xff \x00:\n" % darner.__version__.encode()
        self.assertEqual(self.says(sent), expected)
        for number in range(len(sent)):
            self.client.send(sent[number : number + 1])
        self.assertEqual(self.client.receive(), expected)

    def test_nothing_before_it_is_complete(self) -> None:
        self.assertEqual(self.says(b"put q:\none\ntwo\n"), b"")
        self.assertEqual(self.items(), 0)
        self.client.hang_up()
        self.assertEqual(self.items(), 0)
        self.assertEqual(self.store.writes, [])

    def test_all_in_one_write(self) -> None:
        self.says(b"put q:\n" + b"x\n" * kestrel.MAX_ITEMS + b"\n")
        self.assertEqual((self.items(), len(self.store.writes)), (kestrel.MAX_ITEMS, 1))

    def test_too_many_items(self) -> None:
        """Kestrel would take the lines after the 1024th item for commands."""
        sent = b"put q:\n" + b"flush_all\n" * (kestrel.MAX_ITEMS + 1) + b"get q\n\nversion\n"
        self.assertEqual(self.says(sent), kestrel.TOO_MUCH + kestrel.line(darner.__version__))
        self.assertEqual(self.items(), 0)

    def test_too_many_bytes(self) -> None:
        """Items over the limit are not buffered, nor is a line that is too long."""
        self.client.send(b"put q:\nitem\n")
        for _ in range(40):
            self.client.send(bytes(64 * 1024))
            framing = self.client.protocol.framing
            self.assertLess(len(framing._line) + len(framing._data), kestrel.MAX_PUT + 65536)
        self.assertLess(len(framing._line), 10)
        self.assertEqual(self.says(b"\nmore\n\nversion\n"), kestrel.TOO_MUCH + kestrel.line(darner.__version__))
        self.assertEqual(self.items(), 0)
        self.assertEqual(self.says(b"put q:\n%b\n\n" % bytes(kestrel.MAX_PUT)), b"+1\n")

    def test_refused_and_in_step(self) -> None:
        """The items of a refused put are not taken for commands."""
        self.assertEqual(
            self.says(b"put a/b:\nget q\n\r\nversion\n"), b"-bad queue name\n" + kestrel.line(darner.__version__)
        )

    def test_what_belongs_to_a_refused_request_is_no_command(self) -> None:
        """The items of what is not known are skipped; where they end nobody knows, the connection is closed."""
        self.says(b"put q:\nkept\n\n")
        for request in (b"putt q", b"set q", b"put a/b", b"put q 1 2", b""):
            sent = b"%b:\nflush q\ndelete q\n\nversion\n" % request
            refusal, _, rest = self.says(sent).partition(b"\n")
            self.assertRegex(refusal, rb"\A-[A-Za-z .]+\Z")
            self.assertEqual(rest, kestrel.line(darner.__version__))
        for sent, said in (
            (b"put q\nflush q\n\n", b"-A colon is to end the line, and items are to follow.\n"),
            (b"put\nflush q\n\n", b"-A colon is to end the line, and items are to follow.\n"),
            (b"set q 0 0 7\r\nflush q\r\n", b"-Unknown command.\n"),
            (b"POST / HTTP/1.1\r\nHost: x\r\n\r\nflush q\r\n", b""),
            (b"Host: x\r\nflush q\r\n", b""),
        ):
            client = self.text_client()
            self.assertEqual(self.says(sent, client), said)
            self.assertTrue(client.closed, sent)
        self.assertEqual(self.items(), 1)

    def test_large_items(self) -> None:
        large = bytes(range(11, 256)) * 1024
        self.assertEqual(self.says(b"put q:\n%b\nsmall\n%b\n\n" % (large, large)), b"+3\n")
        self.assertGreater(len(large), CHUNK_BYTES)
        self.client.send(b"get q\nget q\npeek q\n")
        for _ in range(20):
            self.clock.advance(0)
        self.assertEqual(self.client.receive(), b":%b\n:small\n:%b\n" % (large, large))

    def test_expiry(self) -> None:
        """In ms from now."""
        self.says(b"put q 250:\nsoon\n\nput q -1:\npast\n\nput q 2000000000:\nlate\n\nput q 0:\nnever\n\n")
        self.clock.advance(0.2)
        self.assertEqual(self.says(b"peek q\n"), b":soon\n")
        self.clock.advance(0.06)
        self.assertEqual(self.says(b"peek q\n"), b":late\n")
        self.clock.advance(1_999_999)
        self.assertEqual(self.says(b"peek q\n"), b":late\n")
        self.clock.advance(1)
        self.assertEqual(self.says(b"get q\nget q\n"), b":never\n*\n")

    def test_over_the_limit(self) -> None:
        """Items before the refused one are stored and counted."""
        self.queues.apply(Policies(QueueSettings(max_item_bytes=3)))
        self.assertEqual(self.says(b"put q:\n1\n22\n4444\n5\n\n"), b"+2\n")
        self.assertEqual(self.says(b"put q:\n4444\n5\n\n"), b"-object too large\n")
        self.assertEqual((self.items(), self.queues.stats.cmd_set), (2, 4))

    def test_no_room(self) -> None:
        """All items are refused together."""
        self.store.full = True
        self.assertEqual(self.says(b"put q:\none\ntwo\n\nversion\n"), b"-no room\n" + kestrel.line(darner.__version__))
        self.assertEqual(self.items(), 0)
        self.store.full = False
        self.assertEqual(self.says(b"put q:\none\n\n"), b"+1\n")

    def test_who_puts_much_waits_for_its_turn(self) -> None:
        other = self.text_client()
        put = b"put q:\n" + b"x\n" * 600 + b"\n"
        self.client.protocol.dataReceived(put * 4)
        self.assertEqual(self.items(), 600)
        self.assertEqual(self.says(b"peek q\n", other), b":x\n")
        for _ in range(10):
            self.clock.advance(0)
        self.assertEqual((self.client.receive(), self.items()), (b"+600\n" * 4, 2400))


class ReadTests(TextTestCase):
    """``get`` and ``peek``."""

    def setUp(self) -> None:
        super().setUp()
        self.says(b"put q:\n1\n2\n3\n\n")

    def test_the_next_read_confirms(self) -> None:
        """Every read is open until the next one, or the end of the connection."""
        self.assertEqual(self.says(b"get q\n"), b":1\n")
        self.assertEqual(self.says(b"get q\n"), b":2\n")
        self.client.hang_up()
        other = self.text_client()
        self.assertEqual(self.says(b"get q\n", other), b":2\n")
        self.assertEqual(self.says(b"peek q\n", other), b":3\n")
        other.hang_up()
        self.assertEqual(self.says(b"get q\nget q\n", self.text_client()), b":3\n*\n")

    def test_all_open_reads_are_closed(self) -> None:
        """Also where there are more than one."""
        self.queues.apply(Policies(QueueSettings(max_open_reads=5)))
        session = self.client.protocol.session
        self.says(b"get q\n")
        session.reads.get(requests.Get(b"q", b"q", open=True))
        self.assertEqual(self.queues.queue_figures(b"q")["open_transactions"], 2)
        self.says(b"peek q\n")
        self.assertEqual(self.queues.queue_figures(b"q")["open_transactions"], 0)
        self.assertEqual(self.items(), 1)

    def test_wait(self) -> None:
        self.assertEqual(self.says(b"get r 500\nversion\n"), b"")
        self.advance(0.4)
        self.assertEqual(self.client.receive(), b"")
        self.assertEqual(self.says(b"put r:\nhere\n\n", self.text_client()), b"+1\n")
        self.assertEqual(self.client.receive(), b":here\n" + kestrel.line(darner.__version__))
        self.client.send(b"get r 500\npeek r 1\n")
        self.advance(0.6)
        self.assertEqual(self.client.receive(), b"*\n*\n")

    def test_with_the_memcache_protocol(self) -> None:
        """Both work on the same queues."""
        other = self.connect()
        self.assertEqual(self.says(b"get q\nset q 7 0 4\r\nfour\r\n", other), b"VALUE q 0 1\r\n1\r\nEND\r\nSTORED\r\n")
        self.assertEqual(self.says(b"get q\n" * 3), b":2\n:3\n:four\n")

    def test_it_cannot_be_read(self) -> None:
        self.says(b"put r:\n%b\n%b\n\n" % (b"x" * 300_000, b"y"))
        self.queues.find(b"r").storage.contents.head.evict()
        self.store.unreadable = True
        self.assertEqual(self.says(b"get r\n"), b"-unreadable\n")
        self.store.unreadable = False
        self.assertEqual(len(self.says(b"get r\n") or self.settled()), 300_002)

    def settled(self) -> bytes:
        for _ in range(20):
            self.clock.advance(0)
        return self.client.receive()

    @from_source
    def test_it_cannot_be_read_when_the_wait_is_over(self) -> None:
        self.client.send(b"get s 1000\n")

        def unreadable(fifo: Fifo) -> None:
            raise StoreError("unreadable")

        self.patch(Fifo, "open", unreadable)
        self.assertEqual(self.says(b"put s:\n1\n\n", self.text_client()), b"+1\n")
        self.assertEqual(self.client.receive(), b"-unreadable\n")


class MonitorTests(TextTestCase):
    """``monitor`` and ``confirm``."""

    def setUp(self) -> None:
        super().setUp()
        self.queues.apply(Policies(QueueSettings(max_open_reads=3)))
        self.other = self.text_client()

    def open_count(self) -> int:
        fifo = self.queues.find(b"q")
        return 0 if fifo is None else fifo.open_count

    def test_as_they_come(self) -> None:
        """The time is in ms."""
        self.assertEqual(self.says(b"monitor q 250\n"), b"")
        self.says(b"put q:\none\n\n", self.other)
        self.assertEqual(self.client.receive(), b":one\n")
        self.clock.advance(0.2)
        self.says(b"put q:\ntwo\n\n", self.other)
        self.clock.advance(0.05)
        self.clock.advance(0)
        self.assertEqual(self.client.receive(), b":two\n*\n")
        self.assertEqual(self.says(b"confirm q 3\nconfirm q 2\n"), b"-Not that many transactions open.\n+2\n")
        self.assertEqual((self.open_count(), self.items()), (0, 0))

    def test_as_many_as_may_be_open(self) -> None:
        """What was open before is closed first, as by every read here."""
        self.says(b"put q:\n1\n2\n3\n4\n5\n\n")
        self.assertEqual(self.says(b"monitor q 1000\n"), b":1\n:2\n:3\n*\n")
        self.assertEqual(self.says(b"monitor q 0\n"), b":4\n:5\n*\n")
        self.assertEqual(self.says(b"confirm q 1\n"), b"+1\n")
        self.client.hang_up()
        self.assertEqual(self.says(b"get q\nget q\n", self.other), b":5\n*\n")

    def test_nothing_open(self) -> None:
        for count in (b"0", b"1", b"-1"):
            self.assertEqual(self.says(b"confirm q %b\n" % count), b"-Not that many transactions open.\n")

    @from_source
    def test_unreadable(self) -> None:
        self.says(b"put q:\n1\n\n")

        def unreadable(fifo: Fifo) -> None:
            raise StoreError("unreadable")

        self.patch(Fifo, "open", unreadable)
        self.assertEqual(self.says(b"monitor q 1000\nversion\n"), b"-unreadable\n" + kestrel.line(darner.__version__))


class OtherTests(TextTestCase):
    """The other commands, and the connection."""

    def test_flush_and_delete(self) -> None:
        self.says(b"put q:\n1\n\n")
        self.assertEqual(self.says(b"flush q\nget q\ndelete q\ndelete q\nflush none\n"), b"+0\n*\n+0\n+0\n+0\n")
        self.assertEqual(self.queues.names(), [])

    def test_status(self) -> None:
        self.says(b"put q:\n1\n\n")
        self.assertEqual(self.says(b"status\nstatus readonly\nstatus\n"), b":UP\n+0\n:READONLY\n")
        self.assertEqual(
            self.says(b"put q:\n2\n\nflush q\ndelete q\nget q\n"), b"-server is readonly\n" * 3 + b":1\n"
        )
        self.assertEqual(self.says(b"status quiescent\nget q\npeek q\n"), b"+0\n" + b"-server is quiescent\n" * 2)
        self.assertEqual(self.queues.queue_figures(b"q")["open_transactions"], 0, "what was open is confirmed")

    def test_quit(self) -> None:
        self.assertEqual(self.says(b"version\nquit\nversion\n"), kestrel.line(darner.__version__))
        self.assertTrue(self.client.closed)

    def test_shutdown(self) -> None:
        self.assertEqual(self.says(b"shutdown\n"), b"-shutdown is not allowed here\n")
        called: list[str] = []
        self.queues.control = Control(None, lambda: called.append("shutdown"))
        self.assertEqual(self.says(b"shutdown\nversion\n"), b"")
        self.assertEqual((called, self.client.closed), (["shutdown"], True))

    def test_unknown(self) -> None:
        self.assertEqual(self.says(b"stats\n\nversion 1\n")[:36], b"-Unknown command.\n-Unknown command.\n")
        self.assertFalse(self.client.closed)

    def test_another_protocol(self) -> None:
        self.assertEqual(self.says(b"\x80\x0b\n"), b"")
        self.assertTrue(self.client.closed)

    def test_a_line_too_long(self) -> None:
        self.assertEqual(self.says(b"get " + b"q" * 2100), kestrel.LINE_TOO_LONG)
        self.assertTrue(self.client.closed)

    def test_too_many_connections(self) -> None:
        factory = TextFactory(self.queues, limits=Limits(max_connections=1))
        self.assertEqual(MemoryClient(self.clock, factory).receive(), b"-Too many connections.\n")
        plain = QueueFactory(self.queues, limits=Limits(max_connections=1))
        self.assertEqual(MemoryClient(self.clock, plain).receive(), b"SERVER_ERROR too many connections\r\n")

    def test_a_client_that_stops_in_the_middle_of_a_put(self) -> None:
        self.client.hang_up()
        limits = Limits(stall_timeout=10)
        stalling, waiting = self.text_client(limits=limits), self.text_client(limits=limits)
        stalling.send(b"put q:\none\n")
        waiting.send(b"put q:\nx\n\nget q\nget q 100000\n")
        self.assertTrue(stalling.protocol.framing.stalled)
        self.assertFalse(waiting.protocol.framing.stalled)
        self.advance(16)
        self.assertEqual((stalling.closed, waiting.closed), (True, False))

    def test_a_client_that_shuts_its_side(self) -> None:
        """It gets its replies; an incomplete put has no effect."""
        self.client.send(b"version\nput q:\none\n")
        self.client.protocol.readConnectionLost()
        self.clock.advance(0)
        self.assertEqual(self.client.receive(), kestrel.line(darner.__version__))
        self.assertTrue(self.client.closed)
        self.assertEqual(self.items(), 0)


class DocsTests(TextTestCase):
    def test_the_session_in_the_description(self) -> None:
        description = (servers.ROOT / "docs" / "protocol.rst").read_text()
        (session,) = re.findall(r"(?:^    [<>].*\n)+", description, re.MULTILINE)
        sent, answered = (
            "".join(line[6:] + "\n" for line in session.splitlines() if line[4] == who).encode() for who in "><"
        )
        self.client.send(sent)
        self.advance(1)
        self.assertEqual(self.client.receive(), answered)


class UsersTests(TextTestCase):
    """Users and their rights, as by the memcache protocol."""

    def setUp(self) -> None:
        super().setUp()
        path = Path(self.mktemp())
        path.write_text("ann:secret\nbob:hidden\n")
        rights = {"bob": Rights(read=("jobs",), write=("mail",))}
        self.passwords = Passwords(path)
        self.access = Access(self.passwords, rights, maybeDeferred, self.clock)
        self.client = self.text_client(access=self.access)

    def test_log_in(self) -> None:
        self.assertEqual(self.says(b"put q:\nann secret\n\n"), b"+1\n")
        self.assertEqual(self.items(), 0)
        self.assertEqual(self.says(b"put q:\none\ntwo\n\nget q\n"), b"+2\n:one\n")

    def test_before(self) -> None:
        self.assertEqual(self.says(b"version\n"), b":%b\n" % darner.__version__.encode())
        self.assertEqual(self.says(b"get q\nflush q\nstatus\n"), b"-unauthenticated\n" * 3)
        self.assertEqual(self.says(b"put q:\nann secret\nann secret\n\n"), b"-unauthenticated\n")
        self.assertEqual(self.says(b"put q:\n" + bytes(1025) + b"\n\n"), kestrel.TOO_MUCH)
        self.assertEqual(self.says(b"put q:\nann secret\n\n"), b"+1\n")

    def test_rights(self) -> None:
        self.assertEqual(self.says(b"put q:\nbob hidden\n\n"), b"+1\n")
        self.assertEqual(self.says(b"put mail:\n1\n\nput jobs:\n1\n\n"), b"+1\n-not allowed\n")
        self.assertEqual(self.says(b"get jobs\nget mail\n"), b"*\n-not allowed\n")
        self.assertEqual(self.says(b"delete jobs\nshutdown\nstatus readonly\n"), b"-not allowed\n" * 3)
        self.assertEqual(self.says(b"status\n"), b":UP\n")

    def test_checking(self) -> None:
        """The client cannot time out while its password is checked; requests behind it are served after that."""
        done: Deferred[Any] = Deferred()
        access = Access(self.passwords, {}, lambda *_: done, self.clock)
        client = self.text_client(access=access)
        self.assertTrue(client.protocol.session.anonymous)
        client.send(b"put q:\nann secret\n\nversion\n")
        self.assertEqual((client.protocol.session.anonymous, client.receive()), (False, b""))
        done.callback(True)
        self.clock.advance(0)
        self.assertEqual(client.receive(), b"+1\n:%b\n" % darner.__version__.encode())

    def test_wrong_password(self) -> None:
        self.assertEqual(self.says(b"put q:\nann guessed\n\n"), b"-authentication failure\n")
        self.assertTrue(self.client.transport.disconnecting)
        self.assertEqual((self.queues.stats.auth_cmds, self.queues.stats.auth_errors), (1, 1))


class SettingsTests(SynchronousTestCase):
    def test_port(self) -> None:
        self.assertEqual(make_settings({"text_port": 1, "password_file": "p"}, "").text_port, 1)
        self.assertEqual(make_settings({"text_port": 0}, "").text_port, 0)
        self.assertRaises(SettingsError, make_settings, {"text_port": 65536}, "")


class ServiceTests(TestCase):
    async def test_users(self) -> None:
        """An embedded service requires a log-in on both ports."""
        from twisted.internet import reactor

        passwords = Path(self.mktemp())
        passwords.write_text("ann:secret\n")  # noqa: ASYNC240  (a test)
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        service = QueueService(
            self.mktemp(), [endpoint, Listener(endpoint, TEXT)], evolve(Settings(), password_file=str(passwords))
        )
        service.startService()
        sessions = [factory.make_session(None) for factory in service._factories]
        await service.stopService()
        self.assertEqual([session.anonymous for session in sessions], [True, True])

    async def test_ports(self) -> None:
        from twisted.internet import reactor

        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        service = QueueService(self.mktemp(), [endpoint, Listener(endpoint, TEXT)])
        service.startService()
        self.assertIsInstance(service.ports[1].getHost(), IPv4Address)
        kinds = [type(factory) for factory in service._factories]
        await service.stopService()
        self.assertEqual(kinds, [QueueFactory, TextFactory])


class TwistdTests(SynchronousTestCase):
    """A raw socket on the text port of a server in a process of its own."""

    def test_text_port(self) -> None:
        server = servers.Server(self, "--port=0", "--text-port=0")
        self.assertEqual(len(server.addresses), 2)
        self.assertIn("(text protocol)", server.text)
        with server.client() as plain, server.client(server.addresses[1]) as client:
            client.send(b"put q:\none\ntwo\n\nget q\nget r 50\nstatus\n")
            expected = b"+2\n:one\n*\n:UP\n"
            self.assertEqual(client.read(len(expected)), expected)
            self.assertEqual(plain.get(b"q"), b"two")
            client.send(b"put q 60000:\n%b\n\nquit\n" % (b"x" * 500_000))
            self.assertEqual(client.rest(), b"+1\n")
            # What was open was given back when the connection ended.
            self.assertEqual(plain.get(b"q"), b"one")
            self.assertEqual(len(plain.get(b"q") or b""), 500_000)
        server.restart()
        self.assertEqual(server.stop(), 0)

    def test_users(self) -> None:
        directory = servers.make_directory(self)
        (directory / "passwords").write_text("ann:secret\n")
        server = servers.Server(self, "--port=0", "--text-port=0", f"--password-file={directory}/passwords")
        with server.client(server.addresses[1]) as client:
            client.send(b"get q\nput q:\nann secret\n\nput q:\none\n\nget q\nquit\n")
            self.assertEqual(client.rest(), b"-unauthenticated\n+1\n+1\n:one\n")
        self.assertEqual(server.stop(), 0)
