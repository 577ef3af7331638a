"""
Tests of a node that loads its queues while others wait to hear that it leads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint, UNIXServerEndpoint
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from bench.ports import reserve_port
from darner.cli import cluster_service
from darner.cli.cluster_service import ClusterService
from darner.cluster.exits import EXIT_LEAD
from darner.cluster.memory_log import MemoryLog
from darner.cluster.notes import LEADER, RESIGNED, read_notes
from darner.config.settings import make_settings
from darner.errors import StoreError
from darner.net.endpoints import tcp_endpoint
from darner.queues.collection import Queues
from darner.queues.control import Control
from test.servers import Address, Client

reactor: Any = global_reactor

load = Queues.load


class LoadingTests(TestCase):
    """A node that leads, and whose queues are loaded when the test says so."""

    def setUp(self) -> None:
        self.loaded = False
        self.error: Any = None
        self.steps = 0

        def slowly(queues: Queues) -> Iterator[None]:
            while not self.loaded:
                self.steps += 1
                if self.error is not None:
                    raise self.error
                yield
            yield from load(queues)

        self.patch(Queues, "load", slowly)
        # A machine that is busy with other things is not taken for a log that is out of reach.
        self.patch(cluster_service, "LEAVE", 600.0)
        self.log = MemoryLog(reactor)
        self.ended: list[tuple[int, str]] = []

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            await deferLater(reactor, 0.01, lambda: None)

    async def leading(self, *endpoints: Any) -> ClusterService:
        """@return: a node that leads, and loads its queues."""
        settings = make_settings({"cluster": "etcd://127.0.0.1:1/jobs", "cluster_port": "none"}, "test")
        service = ClusterService(
            Path(self.mktemp()), list(endpoints), settings, reactor, lambda _: None, Control(), self.log.member()  # type: ignore[arg-type,return-value]
        )  # fmt: skip
        self.patch(service, "_end_process", lambda *end: self.ended.append(end))
        service.startService()
        self.addCleanup(lambda: service.running and service.stopService())
        await self.until(lambda: service.node.role == LEADER and self.steps)
        return service

    async def roles(self) -> list[str]:
        return [note.role for note in read_notes(await self.log.member().notes()).values()]

    async def test_serves_then(self) -> None:
        """Until its queues are loaded clients are refused, or they wait where Twisted has the port."""
        first, second, path = reserve_port(), reserve_port(), self.mktemp()
        service = await self.leading(
            tcp_endpoint(reactor, first, "127.0.0.1"), TCP4ServerEndpoint(reactor, second, interface="127.0.0.1"),
            UNIXServerEndpoint(reactor, path),
        )  # fmt: skip
        await self.until(lambda: self.steps > 100)
        self.assertEqual(await self.roles(), [LEADER])
        self.assertEqual((service.queues, service.node.serves), (None, False))
        told = dict(self.log.notes)
        await self.until(lambda: self.log.notes != told)  # again and again
        places: list[Address] = [("127.0.0.1", second), path]

        def put() -> list[bytes]:
            with ExitStack() as stack:
                clients = [stack.enter_context(Client(place)) for place in places]
                for client in clients:
                    client.send_set(b"jobs", b"one")
                return [client.line() for client in clients]

        told: Deferred[list[bytes]] = deferToThread(put)
        await deferLater(reactor, 0.2, lambda: None)
        self.assertNoResult(told)
        await self.assertFailure(deferToThread(Client, ("127.0.0.1", first)), ConnectionRefusedError)
        self.loaded = True
        self.assertEqual(await told, [b"STORED"] * 2)
        places = [("127.0.0.1", first)]
        self.assertEqual(await deferToThread(put), [b"STORED"])
        self.assertTrue(service.node.serves)

    async def test_stops(self) -> None:
        """It stops before it serves; another one may lead at once, and nothing stays open."""
        ports = reserve_port(), reserve_port()
        service = await self.leading(
            tcp_endpoint(reactor, ports[0], "127.0.0.1"),
            TCP4ServerEndpoint(reactor, ports[1], interface="127.0.0.1"),
        )
        await service.stopService()
        self.assertEqual((await self.roles(), self.ended, service.ports), ([RESIGNED], [], []))
        self.assertRaises(StoreError, service.node.store.sync)
        for port in ports:
            await self.assertFailure(deferToThread(Client, ("127.0.0.1", port)), ConnectionRefusedError)

    async def test_cannot_load(self) -> None:
        """It says why, tells others that they may lead, and ends."""
        service = await self.leading(TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"))
        self.error = StoreError("cannot read: the disk has gone")
        await self.until(lambda: self.ended)
        self.assertEqual([status for status, _ in self.ended], [EXIT_LEAD])
        self.assertIn("cannot serve: cannot read: the disk has gone", self.ended[0][1])
        self.assertEqual(await self.roles(), [RESIGNED])
        self.assertEqual(len(self.flushLoggedErrors(StoreError)), 1)
        self.assertIsNone(service.queues)
