"""Tests of `darner.listen`: the protocol's contract over real sockets, and the fast port as a transport."""

from __future__ import annotations

import errno
import gc
import os
import resource
import select
import socket
import time
from typing import Any
from unittest import skipUnless

from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IReadDescriptor, IStreamServerEndpoint, ITCPTransport
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from darner import listen
from darner.listen import FastEndpoint, FastPort, tcp_endpoint
from darner.memory import MemoryStore
from darner.protocol import QueueFactory
from darner.queues import Queues, Surroundings
from test.protocol_contract import LARGE, ProtocolContract

needs_epoll = skipUnless(hasattr(select, "epoll"), "this system has no epoll")


class SmallReactor(Clock):
    """As much of a reactor as a fast port needs, that moves when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.remove(reader)

    def callFromThread(self, call: Any, *arguments: Any) -> None:
        self.callLater(0, call, *arguments)

    def iterate(self) -> None:
        self.advance(0)
        for reader in list(self.readers):
            if select.select([reader], [], [], 0)[0]:
                reader.doRead()
        self.advance(0)


class SocketClient:
    """A client with a real socket."""

    def __init__(self, case: SocketTestCase, address: tuple[str, int]) -> None:
        self._case = case
        self.socket = socket.create_connection(address)
        self.socket.setblocking(False)
        self.closed = False
        self.received = b""
        case.addCleanup(self.socket.close)
        case.spin()

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self.socket.send(view) :]
            except BlockingIOError:
                pass
            except (BrokenPipeError, ConnectionResetError):
                break
            self._take()
        self._take()

    def _take(self) -> None:
        for _ in range(4):
            self._case.spin()
            try:
                while data := self.socket.recv(1 << 20):
                    self.received += data
                self.closed = True
            except BlockingIOError:
                pass
            except ConnectionResetError:
                self.closed = True

    def receive(self) -> bytes:
        for _ in range(30):
            before = len(self.received)
            self._take()
            if len(self.received) == before:
                break
        received, self.received = self.received, b""
        return received

    def hang_up(self) -> None:
        self.socket.close()
        self._case.spin()


class SocketTestCase(SynchronousTestCase):
    """Queues in memory, served over loopback."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.reactor = self.make_reactor()
        self.surroundings = Surroundings(
            self.clock, self.reactor.callFromThread, maybeDeferred, lambda: 1e9 + self.clock.seconds()
        )
        self.queues = Queues(MemoryStore(), self.surroundings)
        self.ports: dict[bool, Any] = {}

    def port(self, whole_key: bool = False) -> Any:
        if whole_key not in self.ports:
            factory = QueueFactory(self.queues, whole_key)
            port = self.ports[whole_key] = self.successResultOf(self.make_endpoint().listen(factory))
            self.addCleanup(self.stop, port)
        return self.ports[whole_key]

    def stop(self, port: Any) -> None:
        stopped = maybeDeferred(port.stopListening)
        self.spin()
        self.successResultOf(stopped)

    def connect(self, whole_key: bool = False) -> SocketClient:
        return SocketClient(self, ("127.0.0.1", self.port(whole_key).getHost().port))

    def spin(self) -> None:
        for _ in range(3):
            self.reactor.iterate()

    def advance(self, seconds: float) -> None:
        for _ in range(10):
            self.clock.advance(seconds / 10)
            self.spin()


class TwistedTransportTests(SocketTestCase, ProtocolContract):
    """The contract, over Twisted's own TCP transport."""

    def setUp(self) -> None:
        super().setUp()
        self.start()

    def make_reactor(self) -> Any:
        return SelectReactor()

    def make_endpoint(self) -> Any:
        return TCP4ServerEndpoint(self.reactor, 0, interface="127.0.0.1")

    def test_other_reactors_use_twisteds_transports(self) -> None:
        self.assertIsInstance(tcp_endpoint(self.reactor, 0, "127.0.0.1"), TCP4ServerEndpoint)


class FastTestCase(SocketTestCase):
    """Queues served over a fast port."""

    def make_reactor(self) -> Any:
        return SmallReactor()

    def make_endpoint(self) -> Any:
        return FastEndpoint(self.reactor, 0, "127.0.0.1")


@needs_epoll
class FastTransportTests(FastTestCase, ProtocolContract):
    """The contract, over the fast port."""

    def setUp(self) -> None:
        super().setUp()
        self.start()
