"""
What the tests of the HTTP side share: a server in memory, and browsers that talk to it without a network.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Optional

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from darner.config.passwords import Passwords
from darner.config.settings import Settings
from darner.front.access import Access
from darner.net.listeners import HTTP, MEMCACHE, Listener
from darner.web.site import WebFactory, make_root
from test.front.test_protocol import QueueFactory
from test.harness import EPOCH, Server

LOCAL = IPv4Address("TCP", "127.0.0.1", 40_000)
ELSEWHERE = IPv4Address("TCP", "192.0.2.7", 40_000)


class Transport(StringTransportWithDisconnection):
    """A connection that a test can make choke."""

    def abortConnection(self) -> None:
        self.disconnected = True
        self.loseConnection()

    def setTcpNoDelay(self, _: bool) -> None:
        pass


@implementer(ISSLTransport)
class SecureTransport(Transport):
    """One over TLS."""


class Port:
    """What a listener of a test listens at."""

    def __init__(self, number: int) -> None:
        self.number = number

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", self.number)


class Reply:
    """
    What a browser got.

    @ivar headers: by their names in lower case.
    """

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        head, _, self.body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split(" ")[1])
        self.headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(": ")
            self.headers[name.lower()] = value
        if self.headers.get("transfer-encoding") == "chunked":
            self.body = dechunk(self.body) if self.body.endswith(b"0\r\n\r\n") else b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def dechunk(body: bytes) -> bytes:
    whole = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        whole += rest[: int(size, 16)]
        body = rest[int(size, 16) + 2 :]
    return whole


class Browser:
    """One HTTP connection."""

    def __init__(self, web: WebServer, address: Any = LOCAL, tls: bool = False, certified: bool = False) -> None:
        self.web = web
        kind = SecureTransport if tls else Transport
        self.transport = kind(hostAddress=IPv4Address("TCP", "127.0.0.1", 2223), peerAddress=address)
        factory = web.certified if certified else web.factory
        self.protocol = factory.buildProtocol(address)
        self.transport.protocol = self.protocol
        self.protocol.makeConnection(self.transport)
        self.headers: dict[str, str] = {"Host": "localhost:2223"}

    def send(self, method: str, path: str, body: Any = None, **headers: Optional[str]) -> None:
        """
        Send a request.

        @param body: bytes, or what becomes JSON.
        @param headers: with C{_} in place of C{-}; C{None} leaves one out.
        """
        fields: dict[str, Optional[str]] = dict(self.headers)
        if method not in ("GET", "HEAD"):
            fields["X-Darner-Request"] = "1"
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            fields["Content-Type"] = "application/json"
        if body is not None:
            fields["Content-Length"] = str(len(body))
        fields.update({name.replace("_", "-"): value for name, value in headers.items()})
        lines = [f"{method} {path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in fields.items() if value is not None]
        self.receive("\r\n".join([*lines, "", ""]).encode() + (body or b""))

    def receive(self, data: bytes) -> None:
        """Have the server receive bytes."""
        self.protocol.dataReceived(data)

    def take(self) -> bytes:
        """@return: what was sent since the last call."""
        sent: bytes = self.transport.value()
        self.transport.clear()
        return sent

    def ask(self, method: str, path: str, body: Any = None, **headers: Optional[str]) -> Reply:
        """As L{send}.  @return: the reply, once all has happened that does without time."""
        self.send(method, path, body, **headers)
        for _ in range(100_000):
            if self.web.is_answered(self):
                break
            self.web.server.commit()
        return Reply(self.take())

    def reply(self) -> Reply:
        """@return: what was sent since the last call."""
        return Reply(self.take())

    def get(self, path: str, **headers: Optional[str]) -> Reply:
        return self.ask("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: Optional[str]) -> Reply:
        return self.ask("POST", path, body, **headers)

    def close(self) -> None:
        """Go away."""
        self.transport.loseConnection()


USUAL = Settings()


class WebServer:
    """
    Queues without a network, and their HTTP side.

    @ivar server: the queues.
    @ivar queues_factory: what would serve clients of the memcache protocol.
    """

    def __init__(self, settings: Settings = USUAL, access: Optional[Access] = None, server: Any = None) -> None:
        self.server = server or Server()
        self.queues = self.server.queues
        self.queues_factory = QueueFactory(self.queues, access=access)
        self.root = make_root(
            self.queues, settings, access, self._places,
            lambda: EPOCH + self.server.set_by + self.server.clock.seconds(),
        )  # fmt: skip
        self.factory = WebFactory(self.root)
        self.certified = WebFactory(self.root, True)

    def _places(self) -> list[Any]:
        endpoint: Any = None
        return [
            (Listener(endpoint, MEMCACHE), self.queues_factory, Port(22133)),
            (Listener(endpoint, HTTP), self.factory, Port(2223)),
        ]

    @staticmethod
    def is_answered(browser: Browser) -> bool:
        return not browser.protocol.requests or browser.transport.disconnected

    def browser(self, **options: Any) -> Browser:
        return Browser(self, **options)


class WebTestCase(SynchronousTestCase):
    """Tests of a server without users, as it comes."""

    settings = Settings()

    def setUp(self) -> None:
        self.web = WebServer(self.settings, self.make_access())
        self.server = self.web.server
        self.queues = self.web.queues
        self.browser = self.web.browser()

    def make_access(self) -> Optional[Access]:
        return None

    def tearDown(self) -> None:
        self.web.root.close()

    def put(self, queue: bytes, *payloads: bytes) -> None:
        """Put items as a client of the memcache protocol does."""
        client = self.server.client()
        for payload in payloads:
            client.set(queue, payload)
        self.server.commit()
        client.session.leave()

    def assert_problem(self, reply: Reply, status: int, text: str = "") -> None:
        self.assertEqual(reply.status, status, reply.raw)
        self.assertEqual(reply.headers["content-type"], "application/problem+json")
        self.assertEqual(reply.json["status"], status)
        self.assertIn(text, reply.json["detail"])


def access_for(case: Any, server: Server, passwords: bytes, settings: Settings) -> Access:
    """@return: the users of a password file that says this."""
    path = Path(case.mktemp())
    path.write_bytes(passwords)
    path.chmod(0o600)

    def in_thread(call: Any, *arguments: Any) -> Deferred[Any]:
        return maybeDeferred(call, *arguments)

    return Access(Passwords(path), settings.users, in_thread, server.clock)
