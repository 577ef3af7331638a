"""
Tests of giving snapshots to takers that are slow, gone or hostile.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional
from unittest import mock

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from darner.cluster.replicated_store import ReplicatedStore
from darner.cluster.snapshots.exchange import HEAD, Frames, Header, frame_key, read_greeting, request
from darner.cluster.snapshots.giving import MOST, PATIENCE, STALL, Giver
from darner.errors import StoreError
from darner.store.directory import BACKED_UP, DATABASE, GIVEN
from test.cluster.snapshots.stores import fill

OTHER = b"2" * 16


class Connection(StringTransport):
    """A connection to a giver whose other end the test is."""

    def __init__(self, giver: Giver) -> None:
        super().__init__()
        protocol = giver.buildProtocol(None)
        assert protocol is not None
        self._protocol = protocol
        protocol.makeConnection(self)
        self.key = b""

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """As a real one, which asks a pull producer at once."""
        super().registerProducer(producer, streaming)
        producer.resumeProducing()

    def abortConnection(self) -> None:
        super().abortConnection()
        self._protocol.connectionLost()

    def ask(self, secret: bytes, split: bool = False) -> None:
        nonce = read_greeting(self.value())
        self.clear()
        data = request(secret, nonce, OTHER)
        self.key = frame_key(secret, nonce, OTHER)
        for piece in [data[at : at + 1] for at in range(len(data))] if split else [data + b"more"]:
            self._protocol.dataReceived(piece)

    def header(self) -> Header:
        data = self.value()
        self.clear()
        length, tag = HEAD.unpack(data[: HEAD.size])
        Frames(self.key).check(data[HEAD.size :], tag)
        assert length == len(data) - HEAD.size
        return Header.from_bytes(data[HEAD.size :])


class GiverTests(SynchronousTestCase):
    """L{Giver}, whose takers are slow, gone or hostile."""

    def setUp(self) -> None:
        self.store: Optional[ReplicatedStore] = ReplicatedStore(Path(self.mktemp()))
        self.addCleanup(self.store.close)
        fill(self.store, 5)
        self.path = self.store.path
        self.clock = Clock()
        self.giver = Giver(lambda: self.store, self.clock, maybeDeferred)

    def test_gives(self) -> None:
        one = Connection(self.giver)
        one.ask(self.giver.secret, split=True)
        self.assertEqual((one.header().position, one.streaming), (5, False))
        self.assertTrue((self.path / GIVEN).exists())
        while not one.disconnecting:
            one.producer.resumeProducing()
            self.clock.advance(STALL - 1)
        self.assertEqual(one.value()[-HEAD.size : -HEAD.size + 4], bytes(4))
        self.assertIsNone(one.producer)
        one.abortConnection()
        self.assertFalse((self.path / GIVEN).exists())
        self.assertEqual(self.giver.given, 1)
        self.assertGreater(self.giver.given_bytes, len(one.value()))
        self.successResultOf(self.giver.drop())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_hostile(self) -> None:
        """Random bytes and a wrong secret get nothing; silence is not waited for."""
        for data in (b"\n", b"\0" * 1000, b"take \n"):
            one = Connection(self.giver)
            one.clear()
            one._protocol.dataReceived(data)
            self.assertTrue(one.disconnecting)
            one._protocol.dataReceived(b"more")
            self.assertEqual(one.value(), b"")
            one.abortConnection()
        one = Connection(self.giver)
        one.ask(b"wrong")
        self.assertEqual((one.value(), one.disconnecting), (b"", True))
        one.abortConnection()
        silent = Connection(self.giver)
        silent._protocol.dataReceived(b"take")
        self.clock.advance(PATIENCE)
        self.assertTrue(silent.disconnected)
        self.assertFalse((self.path / GIVEN).exists())

    def test_many(self) -> None:
        connections = [Connection(self.giver) for _ in range(MOST)]
        self.assertIsNone(self.giver.buildProtocol(None))
        connections[0].abortConnection()
        Connection(self.giver)

    def test_one_at_a_time(self) -> None:
        one, other = Connection(self.giver), Connection(self.giver)
        one.ask(self.giver.secret)
        other.ask(self.giver.secret)
        self.assertIn("to another one", other.header().refused)
        self.assertTrue(other.disconnecting)
        one.abortConnection()
        third = Connection(self.giver)
        third.ask(self.giver.secret)
        self.assertEqual(third.header().refused, "")

    def holds_files(self) -> Callable[[], None]:
        """Letting go of files takes until what this returns is called."""
        held: list[Deferred[None]] = []

        def in_thread(call: Callable[[], Any]) -> Deferred[Any]:
            done = maybeDeferred(call)
            if call.__name__ == "release":
                held.append(Deferred())
                held[-1].addCallback(lambda _: done)
                return held[-1]
            return done

        self.giver.in_thread = in_thread
        return lambda: held.pop().callback(None)

    def test_asked_while_the_last_ends(self) -> None:
        """Who asks when the last taker is gone, or has all, waits until its files are let go; the next is refused."""
        release = self.holds_files()
        for gone in (False, True):
            one, second, third = (Connection(self.giver) for _ in range(3))
            one.ask(self.giver.secret)
            if gone:
                one.abortConnection()
            else:
                while not one.disconnecting:
                    one.producer.resumeProducing()
            second.ask(self.giver.secret)
            third.ask(self.giver.secret)
            one.abortConnection()
            self.assertEqual((second.value(), third.value()), (b"", b""))
            self.clock.advance(PATIENCE + 1)
            release()
            self.assertEqual(second.header().refused, "")
            self.assertIn("to another one", third.header().refused)
            for connection in (second, third):
                connection.abortConnection()
            release()
        self.successResultOf(self.giver.drop())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_gone_while_the_last_ends(self) -> None:
        """Who waited for the end of the last snapshot and is gone, or waited too long, is given none."""
        release = self.holds_files()
        one, gone, late = (Connection(self.giver) for _ in range(3))
        one.ask(self.giver.secret)
        one.abortConnection()
        gone.ask(self.giver.secret)
        late.ask(self.giver.secret)
        gone.abortConnection()
        self.clock.advance(STALL)
        self.assertTrue(late.disconnected)
        release()
        self.assertEqual((gone.value(), late.value()), (b"", b""))
        self.assertFalse((self.path / GIVEN).exists())
        self.successResultOf(self.giver.drop())

    def test_beside_a_backup(self) -> None:
        assert self.store is not None
        capture = self.store.capture(lambda: None, lambda: 0.0)
        one = Connection(self.giver)
        one.ask(self.giver.secret)
        capture.release()
        self.assertEqual(one.header().refused, "")
        self.assertFalse((self.path / BACKED_UP).exists())
        self.assertTrue((self.path / GIVEN).exists())
        one.abortConnection()

    def test_slow(self) -> None:
        """Who does not read is cut, and what was captured is let go."""
        one = Connection(self.giver)
        one.ask(self.giver.secret)
        self.clock.advance(STALL)
        self.assertTrue(one.disconnected)
        self.assertFalse((self.path / GIVEN).exists())
        self.assertEqual(self.giver.given, 0)

    def test_gone_while_a_thread_works(self) -> None:
        """The thread is waited for."""
        work: list[tuple[Deferred[Any], Callable[[], Any]]] = []

        def in_thread(call: Callable[[], Any]) -> Deferred[Any]:
            work.append((Deferred(), call))
            return work[-1][0]

        def run() -> None:
            done, call = work.pop(0)
            maybeDeferred(call).chainDeferred(done)

        self.giver.in_thread = in_thread
        one = Connection(self.giver)
        one.ask(self.giver.secret)
        self.assertEqual(len(work), 1)
        one.producer.resumeProducing()
        self.assertEqual(len(work), 1)
        dropping = self.giver.drop()
        self.assertTrue(one.disconnected)
        self.assertNoResult(dropping)
        run()
        self.successResultOf(dropping)
        self.assertFalse((self.path / GIVEN).exists())

    def test_nothing_to_give(self) -> None:
        self.store = None
        one = Connection(self.giver)
        one.ask(self.giver.secret)
        self.assertIn("no snapshot", one.header().refused)

    def test_cannot_capture(self) -> None:
        one = Connection(self.giver)
        with mock.patch.object(self.store, "capture_snapshot", mock.Mock(side_effect=StoreError("torn"))):
            one.ask(self.giver.secret)
        self.assertEqual(one.header().refused, "torn")
        self.assertTrue(one.disconnecting)
        one.abortConnection()
        self.assertEqual(self.giver.given, 0)
        self.successResultOf(self.giver.drop())

    def test_cannot_read(self) -> None:
        """A file that was changed meanwhile ends it; the taker sees that it is not whole."""
        one = Connection(self.giver)
        one.ask(self.giver.secret)
        for file in (self.path / GIVEN / DATABASE).iterdir():
            file.write_bytes(b"")
        while not one.disconnected:
            one.producer.resumeProducing()
        self.assertEqual(self.giver.given, 0)
        self.successResultOf(self.giver.drop())
