"""
Tests of snapshots: what is said, giving and taking over real connections, installing, and nodes that join.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional
from unittest import mock

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase

from darner.cluster.memory_log import MemoryLog
from darner.cluster.node import EXIT_STORE, Node
from darner.cluster.notes import FOLLOWER, JOINING, LEADER, Note, read_notes
from darner.cluster.records import CLAIM, TURN, Record, pack_batch
from darner.cluster.replicated_store import ReplicatedStore
from darner.cluster.snapshots import giving, joining, taking
from darner.cluster.snapshots.addresses import join_address, own_address, split_address
from darner.cluster.snapshots.exchange import (
    FRAME,
    HEAD,
    Frames,
    Header,
    SnapshotError,
    frame_key,
    greeting,
    read_greeting,
    read_request,
    request,
)
from darner.cluster.snapshots.giving import MOST, PATIENCE, STALL, Giver, cut
from darner.cluster.snapshots.installing import install
from darner.cluster.snapshots.joining import Joiner, givers
from darner.cluster.snapshots.taking import Taking, complete, take
from darner.cluster.trimming import HELD, HELD_BYTES, KEPT_BYTES, trim_to
from darner.errors import Stopped, StoreError, StoreUnusable
from darner.store.batch import Batch
from darner.store.directory import BACKED_UP, DATABASE, GIVEN, MARKER, SNAPSHOT, TAKING

reactor: Any = global_reactor
CLUSTER = b"c" * 16
SECRET, ONE, OTHER = b"secret", b"1" * 16, b"2" * 16


def claim(cluster: bytes = CLUSTER) -> Record:
    return Record(CLAIM, cluster, 1, 0, b"node")


def turn(number: int, size: int = 10, cluster: bytes = CLUSTER) -> Record:
    batch = Batch()
    batch.writes.append((b"Zkey%06d" % number, b"x" * size))
    return Record(TURN, cluster, 1, 0, b"node", pack_batch(batch))


def fill(store: ReplicatedStore, to: int, size: int = 10, cluster: bytes = CLUSTER) -> None:
    """Apply records up to a number."""
    for number in range(store.position + 1, to + 1):
        store.apply(number, claim(cluster) if number == 1 else turn(number, size, cluster))


class ExchangeTests(SynchronousTestCase):
    """What is said."""

    def test_there_and_back(self) -> None:
        self.assertEqual(read_greeting(greeting(ONE)), ONE)
        key = read_request(request(SECRET, ONE, OTHER), SECRET, ONE)
        self.assertEqual(key, frame_key(SECRET, ONE, OTHER))
        sender, receiver = Frames(key), Frames(key)
        for content in (Header("", "c", 3, 4, "1.0").to_bytes(), b"x" * 1000, b""):
            frame = sender.pack(content)
            length, tag = HEAD.unpack(frame[: HEAD.size])
            self.assertEqual((length, frame[HEAD.size :]), (len(content), content))
            receiver.check(content, tag)
        self.assertEqual(Header.from_bytes(Header("no", "c", 3, 4, "1.0").to_bytes()), Header("no", "c", 3, 4, "1.0"))

    def test_nonsense(self) -> None:
        for line in (b"", b"\n", b"x" * 300, greeting(ONE)[:-1], b"darner snapshot 2 " + b"0" * 32 + b"\n"):
            self.assertRaises(SnapshotError, read_greeting, line)
            self.assertRaises(SnapshotError, read_request, line, SECRET, ONE)
        for data in (b"", b"[]", b"{}", b'{"refused": "", "cluster": "", "position": [], "size": 1, "version": ""}'):
            self.assertRaises(SnapshotError, Header.from_bytes, data)

    def test_who_does_not_know_the_secret(self) -> None:
        """Nor does a request that was overheard help: the giver's random bytes are other ones each time."""
        self.assertRaises(SnapshotError, read_request, request(b"another", ONE, OTHER), SECRET, ONE)
        self.assertRaises(SnapshotError, read_request, request(SECRET, OTHER, OTHER), SECRET, ONE)

    def test_order(self) -> None:
        """Frames that are left out, changed, or come twice are noticed."""
        sender = Frames(b"key")
        first, second = (sender.pack(content)[4 : HEAD.size] for content in (b"first", b"second"))
        self.assertRaises(SnapshotError, Frames(b"key").check, b"second", second)
        self.assertRaises(SnapshotError, Frames(b"key").check, b"firsT", first)
        self.assertRaises(SnapshotError, Frames(b"other").check, b"first", first)
        receiver = Frames(b"key")
        receiver.check(b"first", first)
        self.assertRaises(SnapshotError, receiver.check, b"first", first)

    def test_long_pieces(self) -> None:
        pieces = list(cut([b"a", b"b" * (2 * FRAME + 1)]))
        self.assertEqual([len(piece) for piece in pieces], [1, FRAME, FRAME, 1])

    def test_addresses(self) -> None:
        for host in ("127.0.0.1", "::1", "a.example"):
            self.assertEqual(split_address(join_address(host, 7)), (host, 7))
        for text in ("", "a", "a:", ":1", "a:0", "a:65536", "a:x", "a:²"):
            self.assertRaises(SnapshotError, split_address, text)
        self.assertEqual(own_address(["nonsense", "127.0.0.1:2379"]), "127.0.0.1")
        self.assertEqual(own_address([]), socket.gethostname())


class NoteTests(SynchronousTestCase):
    """Who may give one, and how far the log is kept."""

    def test_givers(self) -> None:
        """Followers come first; who is behind the log, or of another cluster, or gives none, does not count."""
        notes = {
            "leads": Note(LEADER, 9, 20, cluster="c", snapshots="a:1"),
            "follows": Note(position=18, cluster="c", snapshots="a:2"),
            "more": Note(position=19, cluster="c", snapshots="a:3"),
            "behind": Note(position=8, cluster="c", snapshots="a:4"),
            "joins": Note(JOINING, position=20, cluster="c", snapshots="a:5"),
            "stranger": Note(position=20, cluster="d", snapshots="a:6"),
            "silent": Note(position=20, cluster="c"),
            "empty": Note(snapshots="a:7"),
        }
        for cluster in ("", "c"):
            self.assertEqual([name for name, _ in givers(notes, cluster, 10)], ["more", "follows", "leads"])
        self.assertEqual([name for name, _ in givers(notes, "d", 10)], ["stranger"])
        self.assertEqual([name for name, _ in givers(notes, "c", 22)], [])
        self.assertEqual(givers({"empty": Note(snapshots="a:7")}, "", 1), [])

    def test_old_and_wrong_notes(self) -> None:
        values = {"old": (b'{"position": 3}', 0.0), "odd": (b'{"snapshots": 3, "holding": "4"}', 0.0)}
        self.assertEqual(read_notes(values), {"old": Note(position=3), "odd": Note(snapshots="3", holding=4)})

    def test_held(self) -> None:
        """Who takes a snapshot has the log kept for longer, as long as it gives signs of life, up to a limit."""
        notes = {"a": Note(durable=9), "b": Note(durable=8), "c": Note(JOINING, holding=5)}
        self.assertEqual(trim_to(notes, 3, KEPT_BYTES + 1), 5)
        self.assertEqual(trim_to(notes, 3, HELD_BYTES + 1), 8)
        self.assertEqual(trim_to({**notes, "c": Note(JOINING, holding=5, age=HELD)}, 3, KEPT_BYTES + 1), 8)
        self.assertEqual(trim_to({**notes, "c": Note(JOINING)}, 3, KEPT_BYTES + 1), 8)


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


class InstallTests(SynchronousTestCase):
    """L{install}, wherever it was interrupted."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        for place, position in ((self.path, 3), (self.path / SNAPSHOT, 7)):
            store = ReplicatedStore(place)
            fill(store, position)
            store.close()

    def installed(self, position: int) -> None:
        """What is there is whole, and nothing else is."""
        store = ReplicatedStore(self.path)
        self.assertEqual(store.position, position)
        self.assertEqual(len(store.shared()), position)
        store.close()
        self.assertEqual({SNAPSHOT, TAKING} & {entry.name for entry in self.path.iterdir()}, set())

    def test_nothing_to_install(self) -> None:
        shutil.rmtree(self.path / SNAPSHOT)
        self.assertFalse(install(self.path))
        self.assertFalse(install(self.path / "missing"))
        self.installed(3)

    def test_not_complete(self) -> None:
        """What is left of a taker that was killed is removed."""
        (self.path / SNAPSHOT).rename(self.path / TAKING)
        self.assertFalse(install(self.path))
        self.installed(3)

    def test_complete(self) -> None:
        self.assertTrue(install(self.path))
        self.installed(7)

    def test_interrupted(self) -> None:
        """At each step but the first, as a kill would leave it."""
        for steps in (1, 2, 3):
            with self.subTest(steps=steps):
                self.setUp()
                before = self.path / SNAPSHOT / "before"
                (self.path / DATABASE).rename(before)
                if steps > 1:
                    (self.path / SNAPSHOT / DATABASE).rename(self.path / DATABASE)
                if steps > 2:
                    shutil.rmtree(before)
                self.assertEqual(install(self.path), steps == 1)
                self.installed(7)

    def test_in_use(self) -> None:
        store = ReplicatedStore(self.path)
        self.addCleanup(store.close)
        self.assertIn("in use", str(self.assertRaises(StoreUnusable, install, self.path)))

    def test_cannot(self) -> None:
        (self.path / MARKER).unlink()
        self.assertIn("cannot install", str(self.assertRaises(StoreUnusable, install, self.path)))


class OverTheNetworkTests(TestCase):
    """Giving, taking and joining by real connections."""

    def setUp(self) -> None:
        self.store = ReplicatedStore(Path(self.mktemp()))
        self.addCleanup(lambda: self.store.close())
        fill(self.store, 100, 20_000)
        self.giver = Giver(lambda: self.store, reactor, deferToThread)
        self.address = self.listen(self.giver)
        empty = ReplicatedStore(Path(self.mktemp()))
        empty.close()
        self.path = empty.path

    def listen(self, giver: Giver) -> str:
        port = reactor.listenTCP(0, giver, interface="127.0.0.1")

        async def end() -> None:
            await maybeDeferred(port.stopListening)
            await giver.drop()

        self.addCleanup(lambda: Deferred.fromCoroutine(end()))
        return f"127.0.0.1:{port.getHost().port}"

    def take(self, address: str = "", secret: bytes = b"") -> Deferred[Any]:
        def work() -> tuple[str, int]:
            one = Taking(address or self.address, secret or self.giver.secret)
            try:
                return take(one, self.path)
            finally:
                one.close()

        return deferToThread(work)

    async def fails(self, text: str, address: str = "", secret: bytes = b"") -> None:
        """Taking fails, and leaves nothing."""
        try:
            await self.take(address, secret)
        except StoreError as error:
            self.assertIn(text, str(error))
        else:
            self.fail("it was taken")
        self.assertFalse((self.path / TAKING).exists())

    def through(self, change: Callable[[bytes], bytes]) -> str:
        """@return: the address of somebody between, who changes what the giver says."""
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)

        def pass_on(source: socket.socket, to: socket.socket, change: Callable[[bytes], bytes]) -> None:
            try:
                while data := source.recv(65536):
                    changed = change(data)
                    to.sendall(changed)
                    if len(changed) < len(data):
                        break
            except OSError:
                pass
            for one in (source, to):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()

        def serve() -> None:
            taker, _ = listening.accept()
            giver = socket.create_connection(split_address(self.address))
            threading.Thread(target=pass_on, args=(taker, giver, lambda data: data), daemon=True).start()
            pass_on(giver, taker, change)

        threading.Thread(target=serve, daemon=True).start()
        return f"127.0.0.1:{listening.getsockname()[1]}"

    async def test_taken(self) -> None:
        """All is there, key by key, while the store goes on; it is there under the name of the database only later."""
        taking = self.take()
        await deferLater(reactor, 0, lambda: None)
        fill(self.store, 150, 20_000)
        cluster, position = await taking
        self.assertEqual(cluster, CLUSTER.hex())
        self.assertTrue(100 <= position <= 150)
        complete(self.path)
        self.assertTrue(install(self.path))
        store = ReplicatedStore(self.path)
        self.addCleanup(store.close)
        self.assertEqual(store.position, position)
        fill(store, 150, 20_000)
        self.assertEqual(store.shared(), self.store.shared())

    async def test_refused(self) -> None:
        await self.fails("closed too early", secret=b"wrong")
        await self.fails("is no address", "nonsense")
        self.patch(self.giver, "source", lambda: None)
        await self.fails("no snapshot to give")

    async def test_changed_on_its_way(self) -> None:
        """One byte is enough."""
        passed = 0

        def change(data: bytes) -> bytes:
            nonlocal passed
            at = 500_000 - passed
            passed += len(data)
            return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] if 0 <= at < len(data) else data

        await self.fails("changed on its way", self.through(change))

    async def test_cut_short(self) -> None:
        """The giver dies."""
        for length in (10, 500_000):
            passed = 0

            def change(data: bytes, length: int = length) -> bytes:
                nonlocal passed
                before, passed = passed, passed + len(data)
                return data[: max(0, length - before)]

            await self.fails("", self.through(change))

    async def test_not_a_giver(self) -> None:
        for said, text in ((b"HTTP/1.1 400 Bad Request\r\n\r\n", "no node that gives"), (b"x" * 1000, "no node")):
            await self.fails(text, self.through(lambda data, said=said: said.ljust(len(data), b"\n")))
        closed = socket.create_server(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        closed.close()
        await self.fails("refused", address)

    async def test_no_room(self) -> None:
        self.patch(taking, "SPARE", 1 << 60)
        await self.fails("are free in")

    async def test_cannot_write(self) -> None:
        self.patch(taking.shutil, "rmtree", shutil.rmtree)
        with mock.patch.object(taking.os, "statvfs", mock.Mock(side_effect=OSError(5, "broken"))):
            await self.fails("broken")

    async def test_silent(self) -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        self.patch(taking, "PATIENCE", 0.05)
        self.patch(taking, "LOOK", 0.02)
        await self.fails("it sends nothing more", f"127.0.0.1:{listening.getsockname()[1]}")

    async def test_not_as_announced(self) -> None:
        with mock.patch.object(giving, "Header", lambda *header: Header(header[0], "dd", *header[2:])):
            await self.fails("not what was announced")

    async def test_stopped_while_nothing_comes(self) -> None:
        """Who stops need not wait for the giver."""
        stopped = threading.Event()

        def proceed() -> None:
            if stopped.is_set():
                raise Stopped()

        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        self.patch(taking, "LOOK", 0.01)
        self.patch(taking, "PATIENCE", 1000.0)
        waiting = deferToThread(lambda: Taking(address, b"secret", proceed))
        await deferLater(reactor, 0.05, lambda: None)
        self.assertNoResult(waiting)
        stopped.set()
        await self.assertFailure(waiting, Stopped)

    # Joining

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            await deferLater(reactor, 0.01, lambda: None)

    def joining(self) -> Node:
        """@return: a node without data that takes a snapshot, as the log begins with record 91."""
        self.log = MemoryLog(reactor)
        for number in range(1, 101):
            self.log.appended(number, (claim() if number == 1 else turn(number, 20_000)).to_bytes())
        self.log.records = {number: record for number, record in self.log.records.items() if number > 90}
        self.log.first = 91
        self.ended: list[tuple[int, str]] = []
        self.patch(joining, "PAUSE", 0.02)
        path = Path(self.mktemp())
        member = self.log.member()
        joiner = Joiner(member, path, reactor, deferToThread)
        node = Node(
            member, ReplicatedStore(path), "late", reactor, lambda: 0.0, deferToThread, lambda: None, lambda: None,
            lambda *end: self.ended.append(end), joiner=joiner,
        )  # fmt: skip

        async def end() -> None:
            await joiner.stop()
            await node.rest()
            await node.stop()
            node.store.close()

        self.addCleanup(lambda: Deferred.fromCoroutine(end()))
        node.start()
        return node

    def note(self, **more: Any) -> None:
        """Say that the giver gives."""
        facts = {
            "role": LEADER, "claim": 1, "position": 100, "durable": 95, "cluster": CLUSTER.hex(),
            "snapshots": self.address, "secret": self.giver.secret.hex(), **more,
        }  # fmt: skip
        self.log.notes["giver"] = (Note(**facts).to_bytes(), reactor.seconds())

    async def test_joins(self) -> None:
        """It waits for who gives one, holds the log meanwhile, goes on from there, and holds it no more."""
        with capturedLogs() as logs:
            node = self.joining()
            await self.until(lambda: node.role == JOINING)
            await deferLater(reactor, 0.1, lambda: None)
            texts = [event.get("reason") for event in logs if "waits" in (event["log_format"] or "")]
        self.assertEqual(texts, ["no node of this cluster that is far enough gives one"])
        held: list[int] = []
        switch = node.joiner.switch  # type: ignore[union-attr]

        def switching(store: ReplicatedStore) -> Any:
            held.append(node.holding)
            return switch(store)

        self.patch(node.joiner, "switch", switching)
        self.note()
        await self.until(lambda: node.role == FOLLOWER and node.store.position == 100)
        self.assertEqual(held, [100])
        self.assertEqual(node.store.shared(), self.store.shared())
        self.log.appended(101, turn(101).to_bytes())
        await self.until(lambda: node.store.position == 101 and node.durable == 101 and not node.holding)
        assert node.joiner is not None
        self.assertEqual((node.joiner.taken, self.giver.given, self.ended), (1, 1, []))
        self.assertGreater(node.joiner.taken_bytes, 1_900_000)
        self.assertEqual([entry.name for entry in node.store.path.iterdir() if "snapshot" in entry.name], [])

    async def test_another_giver(self) -> None:
        """Where one fails, the next is asked; and all of them again."""
        node = self.joining()
        self.note(secret="00")
        await deferLater(reactor, 0.1, lambda: None)
        self.assertEqual(node.role, JOINING)
        self.log.notes["dead"] = (
            Note(position=100, cluster=CLUSTER.hex(), snapshots="127.0.0.1:1", secret="00").to_bytes(), 0.0
        )  # fmt: skip
        self.note()
        await self.until(lambda: node.role == FOLLOWER and node.store.position == 100)

    async def test_out_of_reach(self) -> None:
        node = self.joining()
        await self.until(lambda: node.role == JOINING)
        self.log.unavailable = True
        self.note()
        await deferLater(reactor, 0.1, lambda: None)
        self.assertEqual(node.role, JOINING)
        self.log.unavailable = False
        await self.until(lambda: node.role == FOLLOWER and node.store.position == 100)

    async def test_wrong_cluster(self) -> None:
        """What a note says does not count alone."""
        node = self.joining()
        self.note(cluster="dd")
        await deferLater(reactor, 0.2, lambda: None)
        self.assertEqual((node.role, node.store.position), (JOINING, 0))

    async def test_too_old(self) -> None:
        """The log was trimmed while it was taken: there is nothing that would follow, so another one is taken."""
        node = self.joining()
        await self.until(lambda: node.role == JOINING)
        assert node.joiner is not None
        take_it, times = joining.take, 0

        def slowly(*arguments: Any) -> Any:
            nonlocal times
            told = take_it(*arguments)
            times += 1
            if times == 1:
                self.log.first = 102
            return told

        self.patch(joining, "take", slowly)
        self.note()
        await self.until(lambda: times)
        await deferLater(reactor, 0.1, lambda: None)
        self.assertEqual((node.role, node.joiner.taken), (JOINING, 0))
        fill(self.store, 101, 20_000)
        self.log.records.clear()
        self.log.last = 101
        self.note(position=101)
        await self.until(lambda: node.role == FOLLOWER and node.store.position == 101)

    async def test_stopped_meanwhile(self) -> None:
        """No thread is left behind, and the store is as it was."""
        node = self.joining()
        await self.until(lambda: node.role == JOINING)
        reached, go_on = threading.Event(), threading.Event()
        read = Taking.read

        def slowly(one: Taking, most: int) -> bytes:
            reached.set()
            go_on.wait(30)
            return read(one, most)

        self.patch(Taking, "read", slowly)
        self.note()
        await self.until(reached.is_set)
        assert node.joiner is not None
        stopping = node.joiner.stop()
        self.assertNoResult(stopping)
        go_on.set()
        await stopping
        await deferLater(reactor, 0, lambda: None)
        self.assertEqual((node.store.position, self.ended), (0, []))
        self.assertFalse((node.store.path / TAKING).exists())
        self.assertRaises(Stopped, node.joiner._in_thread, lambda: None)

    async def test_cannot_switch(self) -> None:
        """It ends, and the next start finishes it."""
        node = self.joining()
        await self.until(lambda: node.role == JOINING)
        self.patch(joining, "install", mock.Mock(side_effect=StoreUnusable("broken")))
        self.note()
        await self.until(lambda: self.ended)
        self.assertEqual(self.ended[0][0], EXIT_STORE)
        self.assertTrue(install(node.store.path))
        store = ReplicatedStore(node.store.path)
        self.assertEqual(store.position, 100)
        store.close()
