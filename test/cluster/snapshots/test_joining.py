"""
Tests of nodes that join by a snapshot.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs
from twisted.trial.unittest import TestCase

from darner.cli import cluster_service
from darner.cli.cluster_service import ClusterService
from darner.cluster.exits import EXIT_STORE
from darner.cluster.memory_log import MemoryLog
from darner.cluster.node import Node
from darner.cluster.notes import FOLLOWER, JOINING, LEADER, Note
from darner.cluster.pace import Pace
from darner.cluster.replicated_store import ReplicatedStore
from darner.cluster.snapshots import giving, joining, taking
from darner.cluster.snapshots.addresses import split_address
from darner.cluster.snapshots.exchange import SnapshotError
from darner.cluster.snapshots.installing import install
from darner.cluster.snapshots.joining import Joiner
from darner.cluster.snapshots.taking import Taking
from darner.config.settings import make_settings
from darner.errors import Stopped, StoreError, StoreUnusable
from darner.queues.control import Control
from darner.store.directory import GIVEN, SNAPSHOT, TAKING
from test.cluster.snapshots.stores import CLUSTER, GivingCase, claim, fill, turn

reactor: Any = global_reactor


class JoiningTests(GivingCase):
    """A node without data, while the log begins with record 91."""

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
        # It never leads, however long it hears nothing of a leader.
        pace = Pace(patience=3600.0, settle=3600.0)
        node = Node(
            member, ReplicatedStore(path), "late", reactor, lambda: 0.0, deferToThread, lambda: None, lambda: None,
            lambda *end: self.ended.append(end), pace=pace, joiner=joiner,
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
            reasons: list[object] = []

            def said() -> bool:
                reasons[:] = [event["reason"] for event in logs if "waits" in (event["log_format"] or "")]
                return bool(reasons)

            await self.until(said)
            await deferLater(reactor, 0.1, lambda: None)  # it asks again, and says nothing more
            said()
        self.assertEqual((node.role, reasons), (JOINING, ["no node of this cluster that is far enough gives one"]))
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
        for secret in ("00", "no digits"):
            self.note(secret=secret)
            await deferLater(reactor, 0.1, lambda: None)
            self.assertEqual((node.role, self.ended), (JOINING, []))
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
            go_on.wait(120)
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


def names(path: Path) -> list[str]:
    """@return: what is in a data directory."""
    return sorted(entry.name for entry in path.iterdir())


class ServiceTests(TestCase):
    """What a process of a node does about snapshots."""

    def setUp(self) -> None:
        # A machine that is busy with other things is not taken for a peer or a log that is out of reach.
        self.patch(cluster_service, "LEAVE", 600.0)
        self.patch(giving, "PATIENCE", 600.0)
        self.patch(taking, "PATIENCE", 600.0)

    def service(self, path: Path, last: int = 0, **settings: Any) -> ClusterService:
        """@param last: the last record of the log, which has none any more."""
        made = make_settings({"cluster": "etcd://127.0.0.1:1/jobs", "interface": "0.0.0.0", **settings}, "test")
        log = MemoryLog(reactor)
        log.last, log.first = last, last + 1
        service = ClusterService(path, [], made, reactor, lambda _: None, Control(), log.member())  # type: ignore[arg-type,return-value]
        service.startService()
        self.addCleanup(lambda: service.running and service.stopService())
        return service

    def test_gives(self) -> None:
        """It tells others where, and installs what was taken before it was killed."""
        path = Path(self.mktemp())
        for place, position in ((path, 3), (path / SNAPSHOT, 7)):
            store = ReplicatedStore(place)
            fill(store, position)
            store.close()
        service = self.service(path, 7)
        host, port = split_address(service.node.gives_at)
        self.assertEqual((host, service.node.store.position), ("127.0.0.1", 7))
        with socket.create_connection((host, port)):
            pass

    async def test_stops_while_it_gives(self) -> None:
        """No thread of the giver is in the store that is closed, and nothing of the capture stays."""
        path = Path(self.mktemp())
        store = ReplicatedStore(path)
        fill(store, 100, 200_000)
        store.close()
        service = self.service(path, 100)
        giver = service.node.giver
        assert giver is not None
        one = await deferToThread(lambda: Taking(service.node.gives_at, giver.secret))
        self.addCleanup(one.close)
        self.assertIsNotNone(giver.current)
        await service.stopService()
        self.assertIsNone(giver.current)
        self.assertNotIn(GIVEN, names(path))
        self.assertRaises(StoreError, service.node.store.sync)
        await self.assertFailure(deferToThread(lambda: [one.read(1 << 20) for _ in range(100)]), SnapshotError)

    def test_gives_none(self) -> None:
        service = self.service(Path(self.mktemp()), cluster_port="none")
        self.assertEqual((service.node.giver, service.node.gives_at), (None, ""))

    def test_at_an_address(self) -> None:
        service = self.service(Path(self.mktemp()), interface="127.0.0.1")
        self.assertEqual(split_address(service.node.gives_at)[0], "127.0.0.1")
