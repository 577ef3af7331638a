"""
Every way to listen, in a real process with default settings: the protocol's contract, and what clients may cost.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import socket
import ssl
import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from bench.remains import look_at
from bench.shortages import ITEM, MISDEEDS
from darner.net.refusal import PATIENCE
from test.protocol_contract import ProtocolContract
from test.servers import Client, open_socket, until
from test.system.transports import (
    PatientClient,
    SetServer,
    TransportServer,
    settings_of,
    shared_server,
    shared_set_server,
)

MIB = 1024 * 1024
PEEKS = 100_000
"""How often one client asks for an item of L{ITEM} bytes: 6 GB, that it does not read."""
STALL = 2.0
"""Seconds after which it is disconnected."""
CROWD = 60
"""Clients that misbehave."""
DESCRIPTORS = 500
"""How many descriptors there are for more, where they are few; a server with so many keeps all of its spare ones."""


class Contract(ProtocolContract):
    """The contract with a server that all tests share, by one of its ways to listen."""

    transport: str

    def setUp(self) -> None:
        self.server = self.use()
        self.client = self.connect()

    def use(self, **options: Any) -> SetServer:
        """@return: the server with these options, empty, which this test has to leave with a clean log."""
        server = shared_set_server(*settings_of(options))
        with server.client() as client:
            client.send(b"flush_all\r\ndump_stats\r\n")
            client.line()
            queues = [line.split(b"'")[1] for line in iter(client.line, b"END") if line.startswith(b"queue ")]
            for queue in queues:
                self.assertEqual(client.ask(b"delete " + queue), b"DELETED")
        server.wait_until_idle()
        # A server that is used twice is looked at twice, and it does no harm.
        self.addCleanup(server.check_log)
        return server

    def connect(self, **options: Any) -> PatientClient:
        server = self.server if not options else self._servers().setdefault(settings_of(options), None)
        if server is None:
            server = self._servers()[settings_of(options)] = self.use(**options)
        client = PatientClient(server, self.transport)
        self.addCleanup(server.wait_until_idle)
        self.addCleanup(client.close)
        return client

    def _servers(self) -> dict[Any, Any]:
        """Those that this test uses, by their settings."""
        if not hasattr(self, "_used"):
            self._used: dict[Any, Any] = {}
        return self._used

    def advance(self, seconds: float) -> None:
        for server in (self.server, *self._servers().values()):
            server.advance(seconds)

    def apply(self, **settings: Any) -> None:
        self.server.configure("[defaults]", *(f"{name} = {setting}" for name, setting in settings.items()))
        self.addCleanup(self._reload)
        self.addCleanup(self.server.configure)
        self._reload()

    def _reload(self) -> None:
        with self.server.client() as client:
            self.assertEqual(client.ask(b"reload"), b"Reloaded config.")

    def check_nothing_left(self) -> None:
        # One thing at a time is reclaimed, some of it in a quiet moment.
        for _ in range(20):
            self.advance(1)
        status = self.server.stop()
        remains = look_at(self.server.data)
        self.server.start()
        self.addCleanup(self.server.wait_until_idle)
        self.assertEqual((status, remains.astray(), remains.room()), (0, [], []))


class TcpTests(Contract, SynchronousTestCase):
    """The server's own port."""

    transport = "tcp"


class EndpointTests(Contract, SynchronousTestCase):
    """Twisted's TCP transport."""

    transport = "endpoint"


class TlsTests(Contract, SynchronousTestCase):
    transport = "ssl"


class MutualTlsTests(Contract, SynchronousTestCase):
    """TLS, where the client has a certificate as well."""

    transport = "mtls"


class UnixTests(Contract, SynchronousTestCase):
    transport = "unix"


class StallTests(SynchronousTestCase):
    """The server stops reading from a client that does not read its replies, and disconnects it."""

    def setUp(self) -> None:
        self.server = shared_server(f'stall_timeout = "{round(1000 * STALL)}ms"')
        self.addCleanup(self.server.check_log)
        self.control = self.server.client()
        self.addCleanup(self.control.close)
        self.control.ask(b"flush_all")
        self.kicks = int(self.control.stats()[b"idle_kicks"])

    def ask_and_not_read(self, transport: str, request: bytes) -> Client:
        """Send as much of a request as the server takes, and read nothing of what it says."""
        client = self.server.blocking_client(transport)
        self.addCleanup(client.close)
        client.socket.setblocking(False)
        view = memoryview(request)
        last = time.monotonic()
        while view and time.monotonic() - last < 0.3:
            try:
                view = view[client.socket.send(view[:65536]) :]
                last = time.monotonic()
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                select.select([], [client.socket], [], 0.1)
        return client

    def check(self, transport: str, request: bytes) -> None:
        # What the allocator keeps of an earlier test is no growth of this one.
        self.server.reset_peak_memory()
        before = self.server.memory("VmRSS")
        client = self.ask_and_not_read(transport, request)
        time.sleep(0.3)
        # The others are served meanwhile.
        self.assertEqual(self.control.set(b"other", b"x"), b"STORED")
        self.assertEqual(self.control.get(b"other"), b"x")
        until(lambda: int(self.control.stats()[b"idle_kicks"]) > self.kicks, "it is disconnected")
        peak = self.server.memory("VmHWM")
        self.assertLess(peak, 150 * MIB)
        self.assertLess(peak - before, 40 * MIB)
        self.kicks = int(self.control.stats()[b"idle_kicks"])
        client.close()

    def check_peeks(self, transport: str) -> None:
        self.assertEqual(self.control.set(b"peeked", b"x" * ITEM), b"STORED")
        self.check(transport, b"get peeked/peek\r\n" * PEEKS)

    def check_large_item(self, transport: str) -> None:
        """One reply of 60 MB; the item goes back when the client is gone."""
        self.control.ask(b"flush large")
        self.assertEqual(self.control.set(b"large", bytes(60 * 1000 * 1000)), b"STORED")
        self.check(transport, b"get large/open\r\n")
        self.assertEqual(self.control.count(b"large"), 1)

    def test_leave_that_is_not_returned(self) -> None:
        """A TLS client that does not close its side is disconnected all the same, and its items go back."""
        for transport in ("tcp", "endpoint", "ssl", "mtls", "unix"):
            connections = self.control.stats()[b"curr_connections"]
            self.assertEqual(self.control.set(b"left", b"x"), b"STORED")
            with self.server.blocking_client(transport) as client:
                self.assertEqual(client.get(b"left/open"), b"x")
                client.send(b"quit\r\n")
                self.assertEqual(client.rest(), b"")
                until(lambda: self.control.get(b"left") == b"x", f"it is given back: {transport}")
                self.assertEqual(self.control.stats()[b"curr_connections"], connections)

    def test_peeks_tcp(self) -> None:
        self.check_peeks("tcp")

    def test_peeks_endpoint(self) -> None:
        self.check_peeks("endpoint")

    def test_peeks_tls(self) -> None:
        self.check_peeks("ssl")

    def test_peeks_mutual_tls(self) -> None:
        self.check_peeks("mtls")

    def test_peeks_unix(self) -> None:
        self.check_peeks("unix")

    def test_large_item(self) -> None:
        for transport in ("tcp", "endpoint", "ssl", "mtls", "unix"):
            self.check_large_item(transport)


class ShortageTests(SynchronousTestCase):
    """Many clients that misbehave: what each of them may cost, and that the others are served."""

    def misbehave(self, transport: str) -> None:
        server = shared_server()
        self.addCleanup(server.check_log)
        self.addCleanup(server.wait_until_idle)
        with server.client() as control:
            control.ask(b"flush_all")
            for queue in [b"peeked", *[b"opened"] * CROWD]:
                self.assertEqual(control.set(queue, b"x" * ITEM), b"STORED")
            connections = control.stats()[b"curr_connections"]
            for misdeed in MISDEEDS:
                before = server.memory("VmRSS")
                crowd = [server.blocking_client(transport) for _ in range(CROWD)]
                self._send_all(crowd, misdeed.request)
                started = time.monotonic()
                self.assertEqual(control.set(b"other", b"x"), b"STORED", misdeed.name)
                self.assertEqual(control.get(b"other"), b"x", misdeed.name)
                self.assertLess(time.monotonic() - started, 5, misdeed.name)
                growth = server.memory("VmRSS") - before
                self.assertLess(growth / CROWD, 640 * 1024, misdeed.name)
                for client in crowd:
                    client.close()
                # Who has sent more than is read ahead is not seen to go before its wait is over.
                for _ in crowd if b"nothing" in misdeed.request else ():
                    self.assertEqual(control.set(b"nothing", b"x"), b"STORED")
                until(lambda: control.stats()[b"curr_connections"] == connections, f"all have gone: {misdeed.name}")
            # What they had opened is there again.
            self.assertEqual(control.count(b"opened"), CROWD)

    def _send_all(self, crowd: list[Client], request: bytes) -> None:
        """Have all of them send a request, as far as the server takes it."""
        left = {client: memoryview(request) for client in crowd}
        last = time.monotonic()
        for client in crowd:
            client.socket.setblocking(False)
        while left and time.monotonic() - last < 0.3:
            for client, rest in list(left.items()):
                with contextlib.suppress(BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                    left[client] = rest = rest[client.socket.send(rest[:65536]) :]
                    last = time.monotonic()
                if not rest:
                    del left[client]
        time.sleep(0.1)

    def test_misdeeds_tcp(self) -> None:
        self.misbehave("tcp")

    def test_misdeeds_endpoint(self) -> None:
        self.misbehave("endpoint")

    def test_misdeeds_tls(self) -> None:
        self.misbehave("ssl")

    def test_misdeeds_mutual_tls(self) -> None:
        self.misbehave("mtls")

    def test_misdeeds_unix(self) -> None:
        self.misbehave("unix")

    def descriptors(self, transport: str) -> None:
        """Clients without a descriptor do not affect others; when clients leave, new ones are served."""
        server = TransportServer(self)
        with server.blocking_client(transport) as client:
            self.assertEqual(client.set(b"q", b"1"), b"STORED")
            _, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
            count = len(os.listdir(f"/proc/{server.pid}/fd")) + DESCRIPTORS
            resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (count, hard))
            crowd: list[socket.socket] = []
            for _ in range(DESCRIPTORS + CROWD):
                # A unix socket refuses where its backlog is full.
                with contextlib.suppress(OSError):
                    crowd.append(open_socket(server.addresses_by_transport[transport], 0.2))
            self.assertEqual(client.get(b"q"), b"1")
            self.assertEqual(client.set(b"q", b"2"), b"STORED")
            self.assertEqual(client.set(b"q", bytes(200_000)), b"STORED")
            for member in crowd:
                member.close()
            until(lambda: self._is_served(server, transport), "newcomers are served", 10)
            self.assertEqual([client.get(b"q"), client.get(b"q")], [b"2", bytes(200_000)])
        self.assertEqual(server.stop(), 0)
        self.assertIn("the limit of open files is reached", server.text)
        self.assertNotIn("EMFILE", server.text)

    def _is_served(self, server: TransportServer, transport: str) -> bool:
        with contextlib.suppress(OSError), server.blocking_client(transport) as client:
            return client.ask(b"version").startswith(b"VERSION ")
        return False

    def test_descriptors_tls(self) -> None:
        self.descriptors("ssl")

    def test_descriptors_mutual_tls(self) -> None:
        self.descriptors("mtls")

    def test_descriptors_unix(self) -> None:
        self.descriptors("unix")

    def test_refused_and_silent(self) -> None:
        """Who is refused over TLS, and does no handshake, holds its descriptor only for a while."""
        server = shared_server("max_connections = 1")
        self.addCleanup(server.check_log)
        server.wait_until_idle()
        with server.client() as client, open_socket(server.addresses_by_transport["ssl"], 3 * PATIENCE) as silent:
            self.assertTrue(client.ask(b"version").startswith(b"VERSION "))
            with self.assertRaises(ConnectionResetError):
                silent.recv(1)
            self.assertEqual(int(client.stats()[b"rejected_connections"]), 1)
