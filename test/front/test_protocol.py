"""Tests of `darner.front.protocol` over memory transports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from darner.front.protocol import TOO_MANY_CONNECTIONS, QueueFactory
from darner.front.session import RELIEF, RELIEFS
from darner.net.limits import CLIENT_BYTES, Limits
from darner.net.log_limits import PERIOD
from darner.queues.collection import Queues
from darner.queues.surroundings import Surroundings
from darner.store.memory import MemoryStore
from test.protocol_contract import LARGE, ProtocolContract


class MemoryClient:
    """
    A client over a memory transport.

    @ivar write: called with what the server writes.
    """

    def __init__(self, clock: Clock, factory: QueueFactory) -> None:
        self._clock = clock
        self._gone = False
        self.transport = StringTransport()
        self.write: Callable[[bytes], object] = self.transport.write
        self.transport.write = lambda data: self.write(data)
        self.transport.loseConnection = self.transport.abortConnection = self._lose
        self.protocol = factory.buildProtocol(None)
        self.protocol.makeConnection(self.transport)

    def _lose(self) -> None:
        self.transport.disconnecting = True
        self._clock.callLater(0, self._lost)

    def _lost(self) -> None:
        """Tell the protocol, once."""
        if not self._gone:
            self._gone = True
            self.protocol.connectionLost(Failure(ConnectionDone()))

    @property
    def closed(self) -> bool:
        return self.transport.disconnecting

    def send(self, data: bytes) -> None:
        if data:
            self.protocol.dataReceived(data)
        self._clock.advance(0)

    def receive(self) -> bytes:
        data = self.transport.value()
        self.transport.clear()
        return data

    def hang_up(self) -> None:
        self._lost()
        self._clock.advance(0)


class MemoryTestCase(SynchronousTestCase):
    """Queues in memory, a clock that tests move, and clients without sockets."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.surroundings = Surroundings(
            self.clock, lambda call: self.clock.callLater(0, call), maybeDeferred, lambda: 1e9 + self.clock.seconds()
        )
        self.queues = Queues(MemoryStore(), self.surroundings)

    def connect(self, **options: Any) -> MemoryClient:
        return MemoryClient(self.clock, QueueFactory(self.queues, **options))

    def advance(self, seconds: float) -> None:
        self.clock.pump([seconds / 10] * 10)


class MemoryTransportTests(MemoryTestCase, ProtocolContract):
    """The contract, over memory transports."""

    def setUp(self) -> None:
        super().setUp()
        self.start()


class DebugTests(MemoryTestCase):
    """What is logged of clients where that is asked for."""

    def texts(self, debug: bool) -> list[str]:
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        client = self.connect(debug=debug)
        client.send(b"nonsense\r\n")
        client.hang_up()
        return [formatEvent(event) for event in events if event["log_namespace"].startswith("darner.front.protocol")]

    def test_asked_for(self) -> None:
        joined, refused, left = self.texts(debug=True)
        self.assertRegex(joined, r"\) connected$")
        self.assertRegex(refused, r"\) was refused: b'ERROR\\r\\n'$")
        self.assertRegex(left, r"\) disconnected: Connection was closed cleanly\.$")

    def test_not_asked_for(self) -> None:
        self.assertEqual(self.texts(debug=False), [])


class FlowTests(MemoryTestCase):
    """Backpressure: limits on what is read, processed and sent."""

    def setUp(self) -> None:
        super().setUp()
        self.client = self.connect()

    def test_a_waiting_client_is_read_from_up_to_a_bound(self) -> None:
        self.client.send(b"get q/t=1000\r\n")
        self.client.send(b"version\r\n" * (CLIENT_BYTES // 9))
        self.assertEqual(self.client.transport.producerState, "producing")
        self.client.send(b"version\r\n" * 10)
        self.assertEqual(self.client.transport.producerState, "paused")
        self.advance(1.1)
        self.assertEqual(self.client.transport.producerState, "producing")
        self.assertEqual(self.client.receive().count(b"VERSION"), CLIENT_BYTES // 9 + 10)

    def test_a_client_that_does_not_read_is_not_served(self) -> None:
        producer = self.client.transport.producer
        self.client.send(b"set q 0 0 1\r\nx\r\n")
        producer.pauseProducing()
        self.client.receive()
        self.client.send(b"get q\r\n")
        self.assertEqual(self.client.receive(), b"")
        producer.resumeProducing()
        self.client.send(b"")
        self.assertEqual(self.client.receive(), b"VALUE q 0 1\r\nx\r\nEND\r\n")

    def test_a_large_item_stops_with_the_client(self) -> None:
        self.client.send(b"set q 0 0 %d\r\n%b\r\n" % (len(LARGE), LARGE))
        self.client.receive()
        producer = self.client.transport.producer
        written = self.client.write
        got = []

        def write(data: bytes) -> None:
            got.append(len(data))
            written(data)
            producer.pauseProducing()

        self.client.write = write
        self.client.send(b"get q\r\nversion\r\n")
        self.assertEqual(len(got), 1)
        while not self.client.transport.value().endswith(b"END\r\n"):
            count = len(got)
            producer.resumeProducing()
            self.assertEqual(len(got), count + 1)
        self.assertIn(LARGE, self.client.receive())
        producer.resumeProducing()
        self.clock.advance(0)
        self.assertTrue(self.client.receive().startswith(b"VERSION"))

    def test_a_large_payload_waits_while_the_store_is_behind(self) -> None:
        """Small sets do not wait; when the store has caught up, the large payload goes on by itself."""
        behind = [True]
        self.patch(self.queues.store, "pressed", lambda: behind[0])
        other = self.connect()
        self.client.send(b"set q 0 0 %d\r\n%b" % (len(LARGE), LARGE[:70_000]))
        self.client.send(LARGE[70_000:80_000])
        self.client.send(LARGE[80_000:] + b"\r\n")
        self.advance(1)
        other.send(b"set q 0 0 1\r\nx\r\n")
        self.assertEqual((self.client.receive(), other.receive()), (b"", b"STORED\r\n"))
        behind[0] = False
        self.advance(1)
        self.assertEqual(self.client.receive(), b"STORED\r\n")
        other.send(b"get q\r\nget q\r\n")
        self.assertIn(LARGE, other.receive())

    def test_a_store_that_stays_behind(self) -> None:
        """It may be unable to merge its tables, which only a write shows: so a write is made at last."""
        self.patch(self.queues.store, "pressed", lambda: True)
        self.client.send(b"set q 0 0 %d\r\n%b" % (len(LARGE), LARGE[:70_000]))
        self.client.send(LARGE[70_000:] + b"\r\n")
        self.clock.pump([RELIEF] * (RELIEFS - 1))
        self.assertEqual(self.client.receive(), b"")
        self.clock.pump([RELIEF] * (2 * RELIEFS + 5))
        self.assertEqual(self.client.receive(), b"STORED\r\n")

    def test_client_that_goes_while_the_store_is_behind(self) -> None:
        self.patch(self.queues.store, "pressed", lambda: True)
        self.client.send(b"set q 0 0 %d\r\n%b" % (len(LARGE), LARGE[:70_000]))
        self.client.send(LARGE[70_000:])
        self.client.hang_up()
        self.advance(1)
        self.assertEqual(self.queues.store.leftovers(), ([], []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_client_does_not_take_a_whole_turn(self) -> None:
        other = self.connect()
        pieces = []
        self.client.write = other.write = lambda data: pieces.append(data.count(b"VERSION"))
        self.client.protocol.dataReceived(b"version\r\n" * 5000)
        other.protocol.dataReceived(b"version\r\n")
        self.clock.advance(0)
        self.assertEqual(sum(pieces), 5001)
        self.assertLess(max(pieces), 500)
        self.assertEqual(pieces[1], 1)

    def test_half_closed_connection_is_answered_and_ended(self) -> None:
        self.client.protocol.dataReceived(b"set q 0 0 1\r\nx\r\nget q\r\n")
        self.client.protocol.readConnectionLost()
        self.clock.advance(0)
        self.assertEqual(self.client.receive(), b"STORED\r\nVALUE q 0 1\r\nx\r\nEND\r\n")
        self.assertTrue(self.client.closed)

    def test_half_closed_connection_waits_for_nothing(self) -> None:
        """The requests behind the wait do not wait either: the client has probably gone, and would lose an item."""
        self.client.send(b"get q/t=1000\r\nget r/open/t=1000\r\n")
        self.client.protocol.readConnectionLost()
        self.clock.advance(0)
        self.assertEqual(self.client.receive(), b"END\r\nEND\r\n")
        self.assertTrue(self.client.closed)
        self.assertIsNone(self.queues.find(b"q"))
        self.assertIsNone(self.queues.find(b"r"))

    def test_what_was_open_is_given_back_without_waiting_for_a_sync(self) -> None:
        """When a client has hung up, others get its open items, even while its replies wait for an fsync."""
        synced: Deferred[None] = Deferred()
        queues = Queues(MemoryStore(), replace(self.surroundings, in_thread=lambda *work: synced))
        factory = QueueFactory(queues)
        first, second, third = (MemoryClient(self.clock, factory) for _ in range(3))
        first.send(b"set q 0 0 1\r\na\r\nset q 0 0 1\r\nb\r\nget q/open\r\n")
        self.assertEqual(first.receive(), b"STORED\r\nSTORED\r\nVALUE q 0 1\r\na\r\nEND\r\n")
        second.send(b"set r/sync 0 0 1\r\nx\r\n")
        first.protocol.readConnectionLost()
        third.send(b"get q\r\n")
        self.assertEqual((second.receive(), third.receive()), (b"", b""), "they wait for the fsync")
        synced.callback(None)
        self.clock.advance(0)
        self.assertEqual(second.receive(), b"STORED\r\n")
        self.assertEqual(third.receive(), b"VALUE q 0 1\r\na\r\nEND\r\n")
        self.assertTrue(first.closed)
        first.hang_up()
        self.assertEqual(queues.queue_figures(b"q")["items"], 1, "it is not given back twice")

    def test_requests_behind_a_wait_come_before_what_is_given_back(self) -> None:
        """Requests that a client sent before it hung up are served, also a close behind a wait."""
        self.client.send(b"set q 0 0 1\r\na\r\nget q/open\r\nget r/t=1000\r\nget q/close\r\n")
        self.client.receive()
        self.client.protocol.readConnectionLost()
        self.clock.advance(0)
        self.assertEqual(self.client.receive(), b"END\r\nEND\r\n")
        self.client.hang_up()
        self.assertEqual(self.queues.queue_figures(b"q")["items"], 0)

    def test_client_that_closed_its_reading_side_is_gone(self) -> None:
        self.client.protocol.writeConnectionLost()
        self.assertTrue(self.client.closed)

    def test_small_reply_goes_out_in_one_piece(self) -> None:
        pieces = []
        self.client.write = pieces.append
        self.client.send(b"set q 0 0 1\r\nx\r\nget q\r\n")
        self.assertEqual(pieces, [b"STORED\r\nVALUE q 0 1\r\nx\r\nEND\r\n"])

    def test_connections_are_counted(self) -> None:
        self.connect().hang_up()
        stats = self.queues.stats
        self.assertEqual((stats.curr_connections, stats.total_connections), (1, 2))


class LogTests(MemoryTestCase):
    """Log lines that clients can cause are limited."""

    def test_too_many_connections(self) -> None:
        """Refused clients do not get a line each, even if others connect and disconnect in between."""
        factory = QueueFactory(self.queues, limits=Limits(max_connections=1))
        with capturedLogs() as logs:
            for _ in range(10):
                client = MemoryClient(self.clock, factory)
                self.assertEqual(MemoryClient(self.clock, factory).receive(), TOO_MANY_CONNECTIONS)
                client.hang_up()
            self.clock.pump([PERIOD] * 2)
        refusing = "too many connections: max_connections or the limit of open files is reached"
        self.assertEqual(
            [formatEvent(event) for event in logs],
            [refusing, f"{refusing} (9 more in the last 60 s)", f"{refusing} (over: 10 times in 120 s)"],
        )
