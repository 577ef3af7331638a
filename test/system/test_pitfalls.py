"""
The known faults of earlier servers, each with a test, so that none comes back.

Most of them were seen in the C++ Darner or in Kestrel, by their users or in their code.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from bench.remains import disk_usage
from darner.front.protocol import QueueFactory
from darner.net.clock import MonotonicClock
from darner.queues.collection import Queues
from darner.queues.surroundings import Surroundings
from darner.service import QueueService
from darner.store.leveldb import LevelStore
from test.front.test_protocol import MemoryClient
from test.protocol_contract import LARGE


class StoredTestCase(SynchronousTestCase):
    """Queues on disk, clients over memory transports."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.clock = Clock()
        self.wall = 1_000_000_000.0
        self.start()

    def start(self) -> None:
        self.store = LevelStore(self.path)
        self.addCleanup(self.store.close)
        surroundings = Surroundings(
            self.clock, lambda call: self.clock.callLater(0, call), maybeDeferred, lambda: self.wall
        )
        self.queues = Queues(self.store, surroundings)
        self.queues.start()
        self.clock.advance(0)

    def restart(self) -> None:
        """Restart as after a kill: nothing is written at the end."""
        self.store.close()
        self.start()

    def connect(self) -> MemoryClient:
        return MemoryClient(self.clock, QueueFactory(self.queues))

    def ask(self, request: bytes, client: MemoryClient | None = None) -> bytes:
        client = client or self.connect()
        client.send(request)
        return client.receive()

    def stat(self, name: bytes) -> int:
        lines = self.ask(b"stats\r\n").split(b"\r\n")
        return int(next(line.split()[2] for line in lines if line.startswith(b"STAT " + name + b" ")))

    def fill(self, count: int, queue: bytes = b"q") -> None:
        requests = b"".join(b"set %b 0 0 5\r\n%05d\r\n" % (queue, n) for n in range(count))
        self.assertEqual(self.ask(requests), b"STORED\r\n" * count)

    @staticmethod
    def value(payload: bytes, flags: int = 0, queue: bytes = b"q") -> bytes:
        return b"VALUE %b %d %d\r\n%b\r\nEND\r\n" % (queue, flags, len(payload), payload)


class CountingTests(StoredTestCase):
    """A restart finds exactly the items that were written and not consumed."""

    def test_no_phantom_items_behind_an_old_open_read(self) -> None:
        self.fill(1000)
        holder = self.connect()
        self.ask(b"get q/open\r\n", holder)
        self.assertEqual(self.ask(b"get q\r\n" * 990).count(b"VALUE"), 990)
        self.restart()
        self.assertEqual(self.stat(b"queue_q_items"), 10)
        self.assertEqual(self.stat(b"queue_q_bytes"), 50)
        got = self.ask(b"get q\r\n" * 11)
        self.assertEqual(got, b"".join(self.value(b"%05d" % n) for n in (0, *range(991, 1000))) + b"END\r\n")

    def test_items_are_counted_from_the_start(self) -> None:
        self.fill(100)
        self.restart()
        self.assertEqual(self.stat(b"curr_items"), 100)

    def test_a_peek_and_an_aborted_read_take_nothing(self) -> None:
        self.fill(3)
        client = self.connect()
        self.ask(b"get q/peek\r\nget q/open\r\nget q/abort\r\nget q/peek\r\n", client)
        self.assertEqual(self.stat(b"curr_items"), 3)

    def test_statistics_of_a_deleted_queue_are_gone(self) -> None:
        self.fill(3)
        self.ask(b"delete q\r\n")
        self.assertNotIn(b"queue_q", self.ask(b"stats\r\n"))
        self.fill(1)
        self.assertEqual(self.stat(b"queue_q_total_items"), 1)

    def test_connections_are_never_negative(self) -> None:
        for _ in range(3):
            client = self.connect()
            client.send(b"quit\r\n")
            client.hang_up()
        self.assertEqual(self.queues.stats.curr_connections, 0)


class WaiterTests(StoredTestCase):
    """Waiting clients are served in order, or get C{END}; clients that have disconnected are not served."""

    def test_waiter_of_a_deleted_queue_gets_the_next_item(self) -> None:
        self.fill(1)
        waiting = self.connect()
        self.ask(b"get q\r\nget q/t=60000\r\n", waiting)
        self.assertEqual(self.ask(b"delete q\r\nflush q\r\n"), b"DELETED\r\nEND\r\n")
        self.fill(1)
        waiting.send(b"")
        self.assertEqual(waiting.receive(), self.value(b"00000"))

    def test_waiter_is_not_told_end_because_somebody_was_faster(self) -> None:
        waiting = self.connect()
        self.ask(b"get q/t=60000\r\n", waiting)
        self.ask(b"set q 0 0 1\r\na\r\nget q\r\nset q 0 0 1\r\nb\r\nget q\r\n")
        waiting.send(b"")
        self.assertEqual(waiting.receive(), self.value(b"a"))

    def test_item_is_not_handed_to_a_waiter_that_has_gone(self) -> None:
        for options in (b"/t=60000", b"/t=60000/open"):
            gone = self.connect()
            self.ask(b"get q%b\r\n" % options, gone)
            gone.hang_up()
        self.fill(1)
        self.assertEqual(self.ask(b"get q\r\n"), self.value(b"00000"))

    def test_setting_the_clock_does_not_touch_a_wait(self) -> None:
        waiting = self.connect()
        self.ask(b"get q/t=1000\r\n", waiting)
        self.wall -= 86_400
        self.clock.advance(0.9)
        self.wall += 2 * 86_400
        waiting.send(b"")
        self.assertEqual(waiting.receive(), b"")
        self.clock.advance(0.2)
        self.assertEqual(waiting.receive(), b"END\r\n")

    def test_waits_are_measured_by_a_clock_that_cannot_be_set(self) -> None:
        service = QueueService(self.mktemp())
        service.startService()
        self.addCleanup(service.stopService)
        assert service.queues is not None
        self.assertIsInstance(service.queues.clock, MonotonicClock)


class BytesTests(StoredTestCase):
    """Bytes go in and come out."""

    def test_empty_and_nul_payloads(self) -> None:
        for payload in (b"", b"\0", b"\0\0"):
            self.ask(b"set q 0 0 %d\r\n%b\r\n" % (len(payload), payload))
            self.assertEqual(self.ask(b"get q\r\n"), self.value(payload))

    def test_flags_are_kept_over_a_restart(self) -> None:
        self.ask(b"set q 77 0 1\r\nx\r\n")
        self.restart()
        self.assertEqual(self.ask(b"get q\r\n"), self.value(b"x", flags=77))

    def test_expiry_is_heeded(self) -> None:
        self.ask(b"set q 0 10 1\r\nx\r\nset q 0 0 1\r\ny\r\n")
        self.restart()
        self.wall += 11
        self.assertEqual(self.ask(b"get q\r\n"), self.value(b"y"))

    def test_large_item_of_a_dead_client_leaves_no_chunks(self) -> None:
        dying = self.connect()
        dying.send(b"set q 0 0 %d\r\n%b" % (len(LARGE), LARGE[:-1]))
        dying.hang_up()
        self.clock.advance(1)
        self.assertEqual(self.store.leftovers(), ([], []))

    def test_large_item_of_a_crash_leaves_no_chunks(self) -> None:
        self.connect().send(b"set q 0 0 %d\r\n%b" % (len(LARGE), LARGE[:-1]))
        self.assertEqual(len(self.store.leftovers()[1]), 1)
        self.restart()
        self.clock.advance(1)
        self.assertEqual(self.store.leftovers(), ([], []))
        self.assertEqual(self.ask(b"get q\r\n"), b"END\r\n")


class DeletionTests(StoredTestCase):
    """A delete removes what it should, and nothing else."""

    def test_flush_all_with_queues(self) -> None:
        for queue in (b"a", b"b", b"c"):
            self.fill(3, queue)
        self.assertEqual(self.ask(b"flush_all\r\nget a b c\r\n"), b"Flushed all queues.\r\nEND\r\n")

    def test_no_name_leads_out_of_the_data_directory(self) -> None:
        before = sorted(self.path.parent.iterdir())
        for name in (b"..", b".", b"...", b"~", b"C:", b"\\..\\x", b"$HOME", b"*"):
            self.fill(1, name)
            self.assertEqual(self.ask(b"get %b\r\n" % name), self.value(b"00000", queue=name))
        self.assertIn(b"CLIENT_ERROR", self.ask(b"set ../../x 0 0 1\r\nx\r\n"))
        self.assertEqual(sorted(self.path.parent.iterdir()), before)
        self.assertEqual(sorted(entry.name for entry in self.path.iterdir()), ["darner", "leveldb", "reserve"])

    def test_half_deleted_queue_does_not_come_back(self) -> None:
        self.fill(1000)
        held: list[Callable[[], Any]] = []
        self.patch(self.queues.reclaimer, "_in_thread", lambda *work: held.append(work) or Deferred())
        self.ask(b"delete q\r\n")
        self.clock.advance(1)
        self.assertEqual(len(held), 1)
        self.store.reclaim_queue(self.store.leftovers()[0][0], 0, 3)
        self.restart()
        self.assertEqual(self.queues.names(), [])
        self.assertEqual(self.ask(b"get q\r\n"), b"END\r\n")
        self.clock.advance(1)
        self.assertEqual(self.store.leftovers(), ([], []))


class SpaceTests(TestCase):
    """An emptied queue's room on disk comes back within seconds."""

    timeout = 300

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.service = QueueService(self.path)
        self.service.startService()
        self.addCleanup(self.service.stopService)

    async def comes_back(self) -> None:
        from twisted.internet import reactor

        for _ in range(2400):
            if disk_usage(self.path) < 6_000_000:
                return
            await deferLater(reactor, 0.05)
        self.fail(f"still {disk_usage(self.path)} bytes on disk")

    async def fill(self) -> None:
        for n in range(400):
            await self.service.put(b"q", b"%09d" % n + os.urandom(60_000))
        self.assertGreater(disk_usage(self.path), 20_000_000)

    async def test_of_a_queue_that_was_read(self) -> None:
        await self.fill()
        for _ in range(400):
            await self.service.get(b"q")
        await self.comes_back()

    async def test_behind_an_item_that_is_open_or_was_given_back(self) -> None:
        await self.fill()
        opened = await self.service.open(b"q")
        given_back = await self.service.open(b"q")
        for _ in range(398):
            await self.service.get(b"q")
        await given_back.abort()
        await self.comes_back()
        self.assertEqual((await self.service.get(b"q")).payload, given_back.payload)
        await opened.abort()
        self.assertEqual((await self.service.get(b"q")).payload, opened.payload)

    async def test_of_a_queue_that_was_flushed_or_deleted(self) -> None:
        await self.fill()
        await self.service.flush(b"q")
        await self.comes_back()
        await self.fill()
        await self.service.delete(b"q")
        await self.comes_back()

    async def test_of_large_items(self) -> None:
        for _ in range(3):
            await self.service.put(b"q", os.urandom(8_000_000))
        for _ in range(3):
            await self.service.get(b"q")
        await self.comes_back()

    async def test_stopping_does_not_close_the_store_under_the_reclaimer(self) -> None:
        await self.fill()
        await self.service.flush(b"q")
        await self.service.stopService()
        self.service.startService()
        self.assertEqual(self.service.count(b"q"), 0)
        await self.comes_back()


class ClientInputTests(StoredTestCase):
    """No input stops the server."""

    def test_an_over_long_name_is_refused(self) -> None:
        reply = self.ask(b"set %b 0 0 1\r\nx\r\nget %b\r\n" % (b"n" * 251, b"n" * 1000))
        self.assertEqual(reply, b"CLIENT_ERROR bad queue name\r\n" * 2)
        self.fill(1, b"n" * 250)

    def test_a_read_makes_no_queue(self) -> None:
        self.ask(b"get a\r\nget b/peek\r\nget c/open\r\nget d/t=10\r\nstats\r\ndump_stats e\r\nflush f\r\n")
        self.clock.advance(1)
        self.assertEqual(self.queues.names(), [])
        self.restart()
        self.assertEqual(self.queues.names(), [])

    def test_buffered_lines_are_not_copied_for_every_line(self) -> None:
        """LineReceiver's own loop would copy two terabytes here, and take minutes."""
        client = self.connect()
        client.protocol.dataReceived(b"version\r\n" * 500_000)
        self.clock.advance(0)
        self.assertEqual(client.receive().count(b"VERSION"), 500_000)


class ThreadTests(TestCase):
    """Slow work is done in a thread, and no client waits for it; short work needs no thread."""

    timeout = 300

    async def test_nobody_waits_for_a_compaction(self) -> None:
        from twisted.internet import reactor

        compacting, go_on, compacted = threading.Event(), threading.Event(), threading.Event()

        class SlowStore(LevelStore):
            def compact(self, wanted: Callable[[], bool] = lambda: True, all: bool = False) -> None:
                compacting.set()
                go_on.wait()
                super().compact(wanted, all)
                compacted.set()

        service = QueueService(self.mktemp(), open_store=SlowStore)
        service.startService()
        self.addCleanup(service.stopService)
        self.addCleanup(go_on.set)
        await service.put(b"q", b"x")
        await service.get(b"q")
        while not compacting.is_set():
            await deferLater(reactor, 0.01)
        for n in range(100):
            await service.put(b"q", b"%d" % n, sync=n == 50)
            self.assertEqual((await service.get(b"q")).payload, b"%d" % n)
        self.assertFalse(compacted.is_set())

    async def test_a_put_and_a_get_need_no_thread(self) -> None:
        service = QueueService(self.mktemp())
        service.startService()
        self.addCleanup(service.stopService)
        used: list[Any] = []
        service.queues.commit.worker = None
        in_thread = service.queues.commit._in_thread
        self.patch(service.queues.commit, "_in_thread", lambda *work: used.append(work) or in_thread(*work))
        await service.put(b"q", b"x")
        await service.get(b"q")
        self.assertEqual(used, [])
        await service.put(b"q", b"x", sync=True)
        self.assertEqual(len(used), 1)


class Gone(Protocol):
    """A client that tells when its connection has ended."""

    def __init__(self) -> None:
        self.gone: Deferred[None] = Deferred()

    def connectionLost(self, reason: Failure) -> None:
        self.gone.callback(None)


class StopTests(TestCase):
    """Twisted's service for an endpoint leaves connections open when it stops; ours does not."""

    async def test_connections_end_with_the_service(self) -> None:
        from twisted.internet import reactor

        service = QueueService(self.mktemp(), [TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")])
        service.startService()
        address = service.ports[0].getHost()
        client = await connectProtocol(TCP4ClientEndpoint(reactor, address.host, address.port), Gone())
        await service.stopService()
        self.assertEqual(service.ports, [])
        await client.gone
