"""Tests of `darner.net.port`: the protocol's contract over real sockets, and the fast port as a transport."""

from __future__ import annotations

import errno
import gc
import itertools
import os
import select
import socket
import time
from collections.abc import Iterable
from typing import Any, Optional
from unittest import skipUnless

from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import AdoptedStreamServerEndpoint, TCP4ServerEndpoint
from twisted.internet.error import AlreadyListened, CannotListenError, ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    IListeningPort,
    IPushProducer,
    IReadDescriptor,
    IStreamServerEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from bench.ports import reserve_port
from darner.front.protocol import QueueFactory
from darner.net import port
from darner.net.connection import FEW_READS, IN, READ_FEW
from darner.net.endpoints import FastEndpoint, InheritedEndpoint, fastest, tcp_endpoint
from darner.net.log_limits import PERIOD
from darner.net.port import RETRY_ACCEPT, FastPort
from darner.net.worker import Worker
from darner.queues.collection import Queues
from darner.queues.surroundings import Surroundings
from darner.store.memory import MemoryStore
from test import LoggedAsCritical, allow_critical
from test.harness import from_source
from test.protocol_contract import ProtocolContract
from test.servers import PATIENCE

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
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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
        self.ports: dict[tuple[Any, ...], Any] = {}

    def port(self, **options: Any) -> Any:
        key = tuple(options.items())
        if key not in self.ports:
            factory = QueueFactory(self.queues, **options)
            port = self.ports[key] = self.successResultOf(self.make_endpoint().listen(factory))
            self.addCleanup(self.stop, port)
        return self.ports[key]

    def stop(self, port: Any) -> None:
        stopped = maybeDeferred(port.stopListening)
        self.spin()
        self.successResultOf(stopped)

    def connect(self, **options: Any) -> SocketClient:
        return SocketClient(self, ("127.0.0.1", self.port(**options).getHost().port))

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


class Recorder(Protocol):
    """A protocol that notes what its transport does."""

    def __init__(self) -> None:
        self.data = b""
        self.sizes: list[int] = []
        self.lost: list[Failure] = []

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self.sizes.append(len(data))

    def connectionLost(self, reason: Failure) -> None:
        self.lost.append(reason)


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Recorder):
    """One that wants to know of half-closed connections."""

    read_lost = write_lost = 0

    def readConnectionLost(self) -> None:
        self.read_lost += 1

    def writeConnectionLost(self) -> None:
        self.write_lost += 1


@implementer(IPushProducer)
class Producer:
    """A producer that notes what it is told."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


@needs_epoll
class FastConnectionTests(FastTestCase):
    """A connection of the fast port is a transport like any other."""

    kind: type[Recorder] = Recorder

    def setUp(self) -> None:
        super().setUp()
        self.made: list[Recorder] = []
        self.patch(QueueFactory, "buildProtocol", self.build)
        self.client = self.connect()
        self.protocol = self.made[0]
        self.transport = self.protocol.transport

    def build(self, _: Any) -> Recorder:
        self.made.append(self.kind())
        return self.made[-1]

    def reason(self) -> type[BaseException]:
        (failure,) = self.protocol.lost
        return failure.type

    def test_interfaces(self) -> None:
        for interface in (ITCPTransport, IConsumer, IPushProducer):
            verifyObject(interface, self.transport)
        verifyObject(IListeningPort, self.port())
        verifyObject(IReadDescriptor, self.port())
        verifyObject(IStreamServerEndpoint, self.make_endpoint())

    def test_addresses(self) -> None:
        ours, theirs = self.client.socket.getsockname(), self.client.socket.getpeername()
        self.assertEqual((self.transport.getPeer().host, self.transport.getPeer().port), ours)
        self.assertEqual((self.transport.getHost().host, self.transport.getHost().port), theirs)

    def test_socket_options(self) -> None:
        for enabled in (True, False):
            self.transport.setTcpNoDelay(enabled)
            self.transport.setTcpKeepAlive(enabled)
            self.assertEqual((self.transport.getTcpNoDelay(), self.transport.getTcpKeepAlive()), (enabled, enabled))

    def test_client_that_goes_away(self) -> None:
        self.client.hang_up()
        self.assertEqual(self.reason(), ConnectionDone)
        self.assertFalse(self.transport.connected)
        self.transport.write(b"x")
        self.transport.loseConnection()
        self.transport.abortConnection()
        self.transport.resumeProducing()
        self.spin()
        self.assertEqual(len(self.protocol.lost), 1)

    def test_client_that_resets_the_connection(self) -> None:
        self.client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.client.hang_up()
        self.assertEqual(self.reason(), ConnectionLost)

    def test_reset_is_seen_while_paused(self) -> None:
        self.transport.pauseProducing()
        self.client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.client.hang_up()
        self.assertEqual(self.reason(), ConnectionLost)

    def test_write_to_a_reset_connection(self) -> None:
        self.client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.client.socket.close()
        self.transport.write(b"x")
        self.assertEqual(self.protocol.lost, [])
        self.spin()
        self.assertEqual(self.reason(), ConnectionLost)

    def test_how_much_is_read(self) -> None:
        """A client that sends little at once is read little at once, until it sends more."""
        for _ in range(2):
            self.client.send(bytes(1000))
            self.spin()
            self.client.send(bytes(1000))
            self.spin()
            self.assertEqual(self.protocol.sizes, [READ_FEW, 1000 - READ_FEW, 1000])
            self.protocol.sizes.clear()
            for number in range(FEW_READS):
                self.client.send(bytes(READ_FEW - 1))
                self.spin()
                self.assertEqual(len(self.protocol.sizes), number + 1)
            self.protocol.sizes.clear()

    def test_pausing(self) -> None:
        self.transport.pauseProducing()
        self.client.send(b"held")
        self.assertEqual(self.protocol.data, b"")
        self.transport.resumeProducing()
        self.spin()
        self.assertEqual(self.protocol.data, b"held")

    def test_lose_connection_sends_what_is_written(self) -> None:
        data = os.urandom(8_000_000)
        self.transport.writeSequence([data[:5], data[5:]])
        self.transport.loseConnection()
        self.transport.write(b"too late") if self.protocol.lost else None
        received = b""
        for _ in range(10_000):
            received += self.client.receive()
            if self.client.closed:
                break
        self.assertEqual(received, data)
        self.assertEqual(self.reason(), ConnectionDone)

    def test_stop_producing_loses_the_connection(self) -> None:
        self.transport.stopProducing()
        self.spin()
        self.assertEqual(self.reason(), ConnectionDone)

    def test_abort(self) -> None:
        self.transport.write(b"x" * 8_000_000)
        self.transport.abortConnection()
        self.assertEqual(self.protocol.lost, [])
        self.spin()
        self.assertEqual(self.reason(), ConnectionAborted)
        self.client.receive()
        self.assertTrue(self.client.closed)

    def test_push_producer(self) -> None:
        producer = Producer()
        self.transport.registerProducer(producer, True)
        self.assertRaises(RuntimeError, self.transport.registerProducer, producer, True)
        self.transport.write(b"x")
        self.assertEqual(producer.calls, [])
        self.transport.write(b"x" * 8_000_000)
        self.transport.write(b"x" * 100)
        self.assertEqual(producer.calls, ["pause"])
        total = 0
        while total < 8_000_101:
            total += len(self.client.receive())
        self.assertEqual(producer.calls, ["pause", "resume"])
        self.transport.loseConnection()
        self.spin()
        self.assertEqual(self.protocol.lost, [])
        self.transport.unregisterProducer()
        self.spin()
        self.assertEqual(self.reason(), ConnectionDone)

    def test_pull_producer(self) -> None:
        producer = Producer()
        producer.resumeProducing = lambda: self.transport.write(b"y")
        self.transport.registerProducer(producer, False)
        self.spin()
        self.assertEqual(self.client.receive(), b"y")
        self.transport.unregisterProducer()

    def test_producer_of_a_lost_connection_is_stopped(self) -> None:
        producer, late = Producer(), Producer()
        self.transport.registerProducer(producer, True)
        self.client.hang_up()
        self.transport.registerProducer(late, True)
        self.assertEqual((producer.calls, late.calls), (["stop"], ["stop"]))

    def test_a_fault_of_the_protocol_ends_its_connection_only(self) -> None:
        other = self.connect()
        self.protocol.dataReceived = lambda data: 1 / 0
        self.client.send(b"x")
        other.send(b"y")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.reason(), ZeroDivisionError)
        self.assertEqual(self.made[1].data, b"y")

    def test_a_fault_at_the_end_of_a_connection_is_not_the_end_of_the_port(self) -> None:
        other = self.connect()
        allow_critical(self, "client's connection; closing it: division by zero (1 more")
        self.protocol.dataReceived = self.protocol.connectionLost = lambda _: 1 / 0
        self.client.send(b"x")
        other.send(b"y")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1, "of the same fault")
        self.assertEqual(self.made[1].data, b"y")
        self.connect().send(b"z")
        self.assertEqual(self.made[2].data, b"z")
        self.clock.advance(PERIOD)


@needs_epoll
class HalfClosedTests(FastConnectionTests):
    """The same for a protocol that knows of half-closed connections, and what it is told of them."""

    kind = HalfCloseable

    def test_client_that_goes_away(self) -> None:
        self.client.hang_up()
        self.assertEqual((self.protocol.read_lost, self.protocol.lost), (1, []))
        self.transport.loseConnection()
        self.spin()
        self.assertEqual(self.reason(), ConnectionDone)

    def test_producer_of_a_lost_connection_is_stopped(self) -> None:
        producer = Producer()
        self.transport.registerProducer(producer, True)
        self.transport.abortConnection()
        self.spin()
        self.assertEqual(producer.calls, ["stop"])

    def test_client_that_closes_its_writing_side(self) -> None:
        self.client.send(b"x")
        self.client.socket.shutdown(socket.SHUT_WR)
        self.spin()
        self.assertEqual(self.protocol.read_lost, 1)
        self.transport.write(b"answer")
        self.assertEqual(self.client.receive(), b"answer")

    def test_closing_the_writing_side(self) -> None:
        data = os.urandom(3_000_000)
        self.transport.write(data)
        self.transport.loseWriteConnection()
        received = b""
        while not self.client.closed:
            received += self.client.receive()
        self.assertEqual(received, data)
        self.assertEqual(self.protocol.write_lost, 1)
        self.transport.write(b"too late")
        self.client.send(b"still read")
        self.assertEqual(self.protocol.data, b"still read")


@needs_epoll
class FastPortTests(FastTestCase):
    """The port itself."""

    def ask(self, request: bytes) -> bytes:
        client = self.connect()
        client.send(request)
        return client.receive()

    def test_port_that_is_taken(self) -> None:
        taken = self.port().getHost().port
        again = FastPort(self.reactor, taken, "127.0.0.1")
        self.assertRaises(CannotListenError, again.startListening)

    def test_ipv6(self) -> None:
        port = FastPort(self.reactor, 0, "::1")
        port.startListening()
        port.serve(QueueFactory(self.queues))
        self.addCleanup(self.stop, port)
        client = SocketClient(self, ("::1", port.getHost().port))
        client.send(b"version\r\n")
        self.assertTrue(client.receive().startswith(b"VERSION"))

    def test_inherited_socket(self) -> None:
        """A socket that listens already is served, once, and is closed when the port stops."""
        inherited = socket.create_server(("127.0.0.1", reserve_port()))
        address = inherited.getsockname()
        waiting = socket.create_connection(address)
        self.addCleanup(waiting.close)
        endpoint = InheritedEndpoint(self.reactor, inherited.detach())
        verifyObject(IStreamServerEndpoint, endpoint)
        port = self.successResultOf(endpoint.listen(QueueFactory(self.queues)))
        self.assertEqual((port.getHost().host, port.getHost().port), address)
        client = SocketClient(self, address)
        client.send(b"version\r\n")
        self.assertTrue(client.receive().startswith(b"VERSION"))
        waiting.sendall(b"version\r\n")
        self.spin()
        self.assertTrue(waiting.recv(100).startswith(b"VERSION"))
        self.failureResultOf(endpoint.listen(QueueFactory(self.queues)), AlreadyListened)
        self.stop(port)
        self.assertRaises(ConnectionRefusedError, socket.create_connection, address)

    def test_which_inherited_sockets(self) -> None:
        """Those of TCP, where the reactor can do it; all others are Twisted's."""
        epoll = type("EPollReactor", (), {})()
        for family, reactor, expected in (
            (socket.AF_INET, epoll, InheritedEndpoint), (socket.AF_INET6, epoll, InheritedEndpoint),
            (socket.AF_UNIX, epoll, AdoptedStreamServerEndpoint),
            (socket.AF_INET, self.reactor, AdoptedStreamServerEndpoint),
        ):  # fmt: skip
            endpoint = AdoptedStreamServerEndpoint(reactor, 3, family)
            self.assertIs(type(fastest(reactor, endpoint)), expected)

    def test_connections_go_on_when_listening_stops(self) -> None:
        number = reserve_port()  # where nobody else answers after that
        self.patch(self, "make_endpoint", lambda: FastEndpoint(self.reactor, number, "127.0.0.1"))
        client = self.connect()
        port = self.ports.pop(())
        self.stop(port)
        self.stop(port)
        self.assertRaises(ConnectionRefusedError, socket.create_connection, client.socket.getpeername())
        client.send(b"version\r\n")
        self.assertTrue(client.receive().startswith(b"VERSION"))
        self.assertEqual(self.reactor.readers, [port])
        client.hang_up()
        self.assertEqual(self.reactor.readers, [])
        self.assertEqual(port.fileno(), -1)

    @from_source
    def test_no_descriptors_to_spare(self) -> None:
        """Clients beyond the limit are told so; service goes on, and takes clients again when others leave."""
        self.fill_descriptors()
        first = self.connect()
        limit = first.socket.fileno() + 6
        self.patch(port, "descriptor_limit", lambda: limit)
        clients = [self.connect() for _ in range(10)]
        for client in clients:
            client.send(b"version\r\n")
        replies = [client.receive() for client in clients]
        self.assertIn(b"SERVER_ERROR too many connections\r\n", replies)
        self.assertTrue(replies[0].startswith(b"VERSION"))
        first.send(b"version\r\n")
        self.assertTrue(first.receive().startswith(b"VERSION"))
        for client in clients:
            client.hang_up()
        gc.collect()
        self.assertTrue(self.ask(b"version\r\n").startswith(b"VERSION"))

    def fill_descriptors(self) -> None:
        """Have no free descriptors between those that are open, whatever other tests have left."""
        gc.collect()
        highest = max(map(int, os.listdir("/proc/self/fd")))
        while (filler := os.dup(0)) < highest:
            self.addCleanup(os.close, filler)
        os.close(filler)

    def test_failing_accept(self) -> None:
        """One failed accept is one failed accept; a lasting shortage is tried again after a while."""
        port = self.port()
        real, errors = port._listening, [errno.ECONNABORTED, errno.EMFILE, errno.EMFILE]

        class Failing:
            def accept(self) -> Any:
                if errors:
                    number = errors.pop(0)
                    raise OSError(number, os.strerror(number))
                return real.accept()

            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

        port._listening = Failing()
        with capturedLogs() as logs:
            client = self.connect()
            client.send(b"version\r\n")
            self.assertEqual((client.receive(), len(errors)), (b"", 1))
            for _ in range(2):
                self.clock.advance(RETRY_ACCEPT + 0.1)
                self.spin()
            self.assertTrue(client.receive().startswith(b"VERSION"))
        lines = [formatEvent(event) for event in logs if "cannot accept" in (formatEvent(event))]
        self.assertEqual(lines, ["cannot accept connections: Too many open files"], "not for each attempt")

    def test_no_room_in_the_epoll(self) -> None:
        """The kernel limits a user's epolls: clients beyond that are refused, and the port goes on."""
        port = self.port()
        real, errors = port._epoll, [errno.ENOSPC]

        class Failing:
            def register(self, *arguments: int) -> None:
                if errors:
                    number = errors.pop()
                    raise OSError(number, os.strerror(number))
                real.register(*arguments)

            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

        port._epoll = Failing()
        self.assertEqual(self.ask(b"version\r\n"), b"SERVER_ERROR too many connections\r\n")
        self.assertTrue(self.ask(b"version\r\n").startswith(b"VERSION"))

    def test_stopping_during_a_shortage(self) -> None:
        port = self.port()
        port._accept_none(OSError(errno.EMFILE, "none"))
        self.stop(self.ports.pop(()))
        self.clock.advance(RETRY_ACCEPT + 0.1)
        self.assertEqual(self.reactor.readers, [])

    @from_source
    def test_the_reactor_gets_its_turn(self) -> None:
        """The port returns to the reactor soon, however fast a client is."""
        client = self.connect()
        now = [0.0]
        self.patch(self.port(), "_seconds", lambda: now[0])
        served = []
        serve = self.port()._serve

        def count(ready: Any) -> None:
            served.append(ready)
            serve(ready)
            now[0] += port.WORK / 4
            client.socket.send(b"version\r\n")

        self.patch(self.port(), "_serve", count)
        client.socket.send(b"version\r\n")
        self.wait_for(self.port()._connections)
        self.port().doRead()
        self.assertIn(len(served), range(1, 7))

    def wait_for(self, descriptors: Iterable[int]) -> None:
        """Wait until there is something to read for each of the port's connections with these descriptors."""
        for descriptor in descriptors:
            self.assertEqual(select.select([descriptor], [], [], PATIENCE)[0], [descriptor])

    def turns(self, *looks: int, known: bool = False, synced: int = 0, processors: bool = True) -> int:
        """
        @param looks: how many clients are ready at each look of the port.
        @param known: whether the first client has come alone before.
        @param synced: how many clients a turn before has served that was written to stable storage.
        @return: how many turns are written.
        """
        clients = [self.connect() for _ in range(sum(looks))]
        for client in clients:
            client.socket.send(b"set q 0 0 1\r\nx\r\n")
        port, store = self.port(), self.queues.store
        self.wait_for(sorted(port._connections)[-len(clients) :])
        ready = iter(sorted(port._connections)[-len(clients) :])
        left = list(looks)
        written: list[Any] = []
        port._spins = processors
        port._served, port._synced = synced, bool(synced)
        port._last_fd = sorted(port._connections)[-len(clients)] if known else -1

        class Epoll:
            closed = False

            def poll(self, *_: Any) -> list[tuple[int, int]]:
                return [(next(ready), IN) for _ in range(left.pop(0))] if left else []

        write = store.write
        patched = self.patch(store, "write", lambda batch, sync=False: (written.append(batch), write(batch, sync)))
        real, port._epoll = port._epoll, Epoll()
        ticks = itertools.count()
        port._seconds = lambda: next(ticks) / 1e6  # a slow machine has time enough, too
        try:
            port.doRead()
        finally:
            port._epoll, port._seconds = real, time.monotonic
            patched.restore()
        for client in clients:
            self.assertEqual(client.receive(), b"STORED\r\n")
        return len(written)

    def test_others_are_looked_for_before_a_small_turn_is_written(self) -> None:
        self.assertEqual(self.turns(2, 3), 1)
        self.assertEqual(self.turns(port.FEW - 1, 1), 1)

    def test_a_lone_client_and_many_are_answered_at_once(self) -> None:
        self.assertEqual(self.turns(1, 2, known=True), 2)
        self.assertEqual(self.turns(port.FEW, 2), 2)

    def test_a_client_that_others_take_turns_with(self) -> None:
        """It is not the one that came last, so that one may be about to come."""
        self.assertEqual(self.turns(1, *[0] * (port.GATHER - 1), 1), 1)
        self.assertEqual(self.turns(1, *[0] * port.GATHER, 1), 2)
        self.assertEqual(self.turns(1, 1, processors=False), 1)
        self.assertEqual(self.turns(1, 0, 1, processors=False), 2)

    def test_as_many_as_in_the_turn_before_are_looked_for(self) -> None:
        vain = [0] * port.GATHER
        self.assertEqual(self.turns(3, *vain, 2, *vain[1:], 1), 2)
        self.assertEqual(self.turns(3, *vain, 2, *vain, 1), 3)
        self.assertEqual(self.turns(3, *vain, 2, 1, 1), 3)

    def test_many_are_looked_for_after_a_sync(self) -> None:
        """A sync costs more than some looks in vain."""
        vain = [0] * port.GATHER_SYNCED
        self.assertEqual(self.turns(port.FEW, *vain[1:], 3, synced=port.FEW + 3), 1)
        self.assertEqual(self.turns(port.FEW, *vain, 3, synced=port.FEW + 3), 2)
        self.assertEqual(self.turns(1, *vain[1:], 1, synced=2), 1)
        self.assertEqual(self.turns(port.FEW, 1, synced=port.FEW), 2)

    def test_nobody_is_looked_for_while_a_turn_is_written(self) -> None:
        """Whoever comes meanwhile belongs to the next turn anyway."""
        port = self.port()

        class Busy:
            busy = True

        class Epoll:
            closed = False

            def poll(self, *_: Any) -> list[tuple[int, int]]:
                raise AssertionError("looked for clients")

        commit, epoll = port._commit, port._epoll
        self.addCleanup(setattr, port, "_commit", commit)
        self.addCleanup(setattr, port, "_epoll", epoll)
        port._commit, port._epoll = Busy(), Epoll()
        port._synced, port._served = True, 5
        port._gather([(7, IN), (8, IN)])
        self.assertEqual(port._served, 5)

    def lingers(
        self, *delays: float, served: int = 1, processors: bool = True, worker: Optional[Worker] = None
    ) -> list[str]:
        """
        @param worker: writes each turn to stable storage.
        @return: how a client was waited for that comes back after these times, in us: C{awake} or C{asleep}.
        """
        port = self.port()
        now = [0.0]
        ways: list[str] = []

        class Epoll:
            closed = False
            comes = 0.0

            def poll(self, timeout: float, _: int) -> list[tuple[int, int]]:
                if timeout:
                    ways[-1:] = ["asleep"]
                    now[0] = max(now[0], min(self.comes, now[0] + timeout))
                else:
                    now[0] += 1e-5
                return [(99, 1)] if now[0] >= self.comes else []

        real, port._epoll = port._epoll, Epoll()
        port._seconds = lambda: now[0]
        port._spins = processors
        port._worker = worker
        try:
            for delay in delays:
                if worker is not None:
                    worker.call_unless_quick(list)
                port._synced = port._has_worked()
                port._epoll.comes = now[0] + delay / 1e6
                ways.append("awake")
                began = now[0]
                port._linger(served)
                self.assertLess(now[0] - began, delay / 1e6 + 1.1e-5)
        finally:
            port._epoll = real
            port._seconds = time.monotonic
            port._worker = None
        return ways

    def test_few_clients_are_waited_for_awake(self) -> None:
        """From the second time on that one comes back at once, and until none does."""
        self.assertEqual(self.lingers(50, 50, 50, 60), ["asleep", "awake", "awake", "awake"])
        self.assertEqual(self.lingers(50, 50, 500, 50, 50), ["awake", "awake", "asleep", "asleep", "awake"])

    def test_clients_that_are_not_so_prompt(self) -> None:
        """The port does not poll for such clients again and again."""
        self.assertEqual(self.lingers(50, 50, 150, 150, 180, 150)[2:], ["asleep"] * 4)
        self.assertFalse(self.port()._prompt)

    def test_many_are_waited_for_asleep(self) -> None:
        self.assertEqual(self.lingers(50, 50, 50, served=port.FEW), ["asleep"] * 3)
        self.assertEqual(self.lingers(50, 50, 50, served=port.FEW - 1), ["asleep", "awake", "awake"])

    def test_nobody_is_waited_for_awake_after_a_sync(self) -> None:
        worker = Worker(self.reactor, "work")
        self.assertEqual(self.lingers(50, 50, 50, worker=worker), ["asleep"] * 3)
        self.assertEqual(self.lingers(50, 50, 50), ["asleep", "awake", "awake"])

    def test_nobody_is_waited_for_awake_without_a_processor_to_spare(self) -> None:
        self.assertEqual(self.lingers(50, 50, 50, processors=False), ["asleep"] * 3)


class FailingCommit:
    """A group commit that fails when its time has come."""

    def __init__(self, commit: Any) -> None:
        self._commit = commit
        self.failing: set[str] = set()

    def begin(self) -> None:
        if "begin" in self.failing:
            raise OSError(errno.EIO, "begin")
        self._commit.begin()

    def end(self) -> None:
        self._commit.end()
        if "end" in self.failing:
            raise OSError(errno.EIO, "end")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._commit, name)


@needs_epoll
class FaultTests(FastTestCase):
    """An error raised while clients are served disconnects these at most, and never stops the port."""

    def errors(self, kind: type[Exception] = OSError) -> int:
        return len(self.flushLoggedErrors(kind))

    def serves(self) -> None:
        """Check that new clients are served."""
        client = self.connect()
        client.send(b"version\r\n")
        self.assertTrue(client.receive().startswith(b"VERSION"))

    def failing_port(self) -> FailingCommit:
        port = self.port()
        commit = port._commit = FailingCommit(port._commit)
        return commit

    def test_the_end_of_a_turn_fails(self) -> None:
        commit = self.failing_port()
        other, client = self.connect(), self.connect()
        commit.failing.add("end")
        client.send(b"version\r\n")
        self.assertEqual(self.errors(), 1)
        commit.failing.clear()
        client.receive()
        self.assertTrue(client.closed)
        other.send(b"version\r\n")
        self.assertTrue(other.receive().startswith(b"VERSION"))
        self.serves()

    def test_the_beginning_of_a_turn_fails(self) -> None:
        commit = self.failing_port()
        client = self.connect()
        commit.failing.add("begin")
        client.send(b"version\r\n")
        self.assertEqual(self.errors(), 1, "it is said once, and then how often")
        commit.failing.clear()
        self.spin()
        self.assertTrue(client.receive().startswith(b"VERSION"))
        self.serves()
        self.advance(60)
        (told,) = self.flushLoggedErrors(LoggedAsCritical)
        said = r"internal error while serving clients; the server continues: .* \([0-9]+ more in the last"
        self.assertRegex(str(told.value), said)

    def test_the_stop_after_a_fault(self) -> None:
        """The port can stop after an internal error."""
        commit = self.failing_port()
        client = self.connect()
        commit.failing.add("end")
        client.send(b"version\r\n")
        self.errors()
        self.stop(self.ports.pop(()))
        self.assertEqual(self.reactor.readers, [])

    def test_a_protocol_cannot_be_made(self) -> None:
        port = self.port()
        build = port._factory.buildProtocol
        port._factory.buildProtocol = lambda _: 1 / 0
        refused = self.connect()
        self.assertEqual(self.errors(ZeroDivisionError), 1)
        refused.receive()
        self.assertTrue(refused.closed)
        port._factory.buildProtocol = build
        self.serves()

    def test_a_connection_cannot_be_made(self) -> None:
        port = self.port()
        joined = port._factory.joined
        port._factory.joined = lambda _: 1 / 0
        lost = self.connect()
        self.assertEqual(self.errors(ZeroDivisionError), 1)
        lost.receive()
        self.assertTrue(lost.closed)
        port._factory.joined = joined
        self.serves()

    def test_an_abort_without_its_option(self) -> None:
        self.serves()
        connection = next(iter(self.port()._connections.values()))

        class Failing:
            def setsockopt(self, *_: object) -> None:
                raise OSError(errno.EINVAL, "no")

            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

        real, connection._socket = connection._socket, Failing()
        connection.abortConnection()
        self.spin()
        self.assertEqual(self.port()._connections, {})
