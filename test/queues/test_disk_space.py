"""Puts are refused before the disk is full: `darner.queues.disk_space`, and what clients and applications see of it."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Optional

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from darner.errors import DiskAlmostFull
from darner.queues.disk_space import INTERVAL, KEPT, OFTEN, DiskSpace
from darner.store.interfaces import IStore
from darner.store.leveldb import LevelStore
from darner.store.memory import MemoryStore
from darner.values.stats import Health
from test.harness import EPOCH, Asker, FaultyStore, Server, from_source, value

MIB = 1024 * 1024
LARGE = 100 * 1024 * MIB


class AskedStore(FaultyStore):
    """A store that counts how often it is asked for its space."""

    asked = 0

    def space(self) -> Optional[tuple[int, int]]:
        self.asked += 1
        return self.room


class SpaceTests(SynchronousTestCase):
    """When the file system is asked, and what follows from it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.store = AskedStore(MemoryStore())

    def make(self, free: int, size: int = LARGE, least: Optional[int] = None) -> DiskSpace:
        self.store.room = (free, size)
        store: IStore = self.store  # type: ignore[assignment]
        return DiskSpace(store, self.clock, least, lambda: EPOCH + self.clock.seconds())

    def refuses(self, space: DiskSpace, size: int = 10) -> bool:
        try:
            space.take(size)
        except DiskAlmostFull:
            return True
        return False

    def test_by_default(self) -> None:
        self.assertFalse(self.refuses(self.make(KEPT)))
        self.assertTrue(self.refuses(self.make(KEPT - 1)))
        # Small disks work.
        self.assertFalse(self.refuses(self.make(5 * MIB, 100 * MIB)))
        self.assertTrue(self.refuses(self.make(5 * MIB - 1, 100 * MIB)))

    def test_as_it_is_set(self) -> None:
        self.assertFalse(self.refuses(self.make(1000, 1000, least=1000)))
        self.assertTrue(self.refuses(self.make(LARGE - 1, LARGE, least=LARGE)))
        self.assertFalse(self.refuses(self.make(0, least=0)))
        self.assertEqual(self.store.asked, 2)

    def test_nobody_knows(self) -> None:
        space = self.make(0)
        self.store.room = None
        for _ in range(10):
            self.assertFalse(self.refuses(space, MIB))
        self.assertEqual((self.store.asked, self.clock.getDelayedCalls()), (1, []))

    def test_asked_by_what_is_put(self) -> None:
        space = self.make(10 * KEPT)
        for _ in range(1000):
            space.take(KEPT // 8 // 100)
        self.assertLess(self.store.asked, 14)
        # With little room left, more often; but not for each item.
        space = self.make(KEPT + MIB)
        self.store.asked = 0
        for _ in range(1000):
            space.take(1000)
        self.assertTrue(2 <= self.store.asked <= 4)
        space = self.make(KEPT)
        self.store.asked = 0
        for _ in range(100):
            space.take(OFTEN // 50)
        self.assertTrue(2 <= self.store.asked <= 4)

    def test_a_burst_does_not_get_far(self) -> None:
        space = self.make(KEPT + 100 * MIB)
        put = 0
        while not self.refuses(space, 1000):
            put += 1000
            self.store.room = (KEPT + 100 * MIB - put, LARGE)
        self.assertLess(put, 100 * MIB + 2 * OFTEN)

    def test_asked_by_time(self) -> None:
        """The free space is read again after some time, as other processes fill the disk too."""
        space = self.make(10 * KEPT)
        self.assertFalse(self.refuses(space))
        self.store.room = (0, LARGE)
        self.clock.advance(INTERVAL)
        self.assertEqual(self.store.asked, 1)  # while nothing is put, nobody needs to know
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertTrue(self.refuses(space))

    def test_until_there_is_room(self) -> None:
        space = self.make(KEPT - 1)
        self.clock.advance(3)
        for _ in range(20):
            self.assertTrue(self.refuses(space))
        self.assertEqual(self.store.asked, 1)
        reason = f"disk almost full: {KEPT - 1} bytes are free, {KEPT} are kept free"
        self.assertEqual(space.health, Health(False, reason, EPOCH + 3))
        self.clock.advance(INTERVAL)
        # A little more than what is kept, so that it does not go to and fro.
        self.store.room = (KEPT + KEPT // 8 - 1, LARGE)
        self.clock.advance(INTERVAL)
        self.assertTrue(self.refuses(space))
        self.assertEqual(space.health.since, EPOCH + 3)
        self.store.room = (KEPT + KEPT // 8, LARGE)
        self.clock.advance(INTERVAL)
        self.assertFalse(self.refuses(space))
        self.assertEqual(space.health, Health())

    def test_stop(self) -> None:
        space = self.make(0)
        self.assertTrue(self.refuses(space))
        space.stop()
        space.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class LevelSpaceTests(SynchronousTestCase):
    """What the store on disk says of its space."""

    def test_space(self) -> None:
        store = LevelStore(Path(self.mktemp()))
        self.addCleanup(store.close)
        space = store.space()
        assert space is not None
        self.assertTrue(0 < space[0] <= space[1])
        self.patch(os, "statvfs", lambda _: SimpleNamespace(f_bavail=2, f_blocks=7, f_frsize=4096))
        self.assertEqual(store.space(), (8192, 28672))

        def fail(_: object) -> None:
            raise OSError

        self.patch(os, "statvfs", fail)
        self.assertIsNone(store.space())


class AlmostFullTests(SynchronousTestCase):
    """Sets are refused, consumers go on, and sets work again by themselves."""

    REFUSED = b"SERVER_ERROR disk almost full: 1000 bytes are free, 67108864 are kept free\r\n"

    def setUp(self) -> None:
        self.server = Server()
        self.store = self.server.store
        self.client = self.server.client()
        self.store.room = (LARGE, LARGE)
        for number in range(6):
            self.client.sets(b"q", b"%d" % number)
        self.client.does(b"get q/open")

    def fill(self) -> None:
        self.store.room = (1000, LARGE)
        self.server.clock.advance(INTERVAL)

    def test_sets_are_refused_and_the_rest_goes_on(self) -> None:
        self.fill()
        before = len(self.store.writes)
        for queue in (b"q", b"q/sync", b"new"):
            self.assertEqual(self.client.sets(queue, b"x"), self.REFUSED)
        self.assertEqual(self.client.sets(b"q", b"x", end=b" noreply"), b"")
        self.assertEqual(len(self.store.writes), before)
        self.assertEqual(self.server.queues.names(), [b"q"])
        self.assertIsNone(self.server.queues.find(b"new"))
        self.assertEqual(self.client.does(b"get q/close/open"), value(b"q", b"1"))
        self.assertEqual(self.client.does(b"get q/abort"), b"END\r\n")
        self.assertEqual(self.client.does(b"get q"), value(b"q", b"1"))
        self.assertEqual(self.client.does(b"get q/peek"), value(b"q", b"2"))
        self.assertEqual(self.client.does(b"flush q"), b"END\r\n")
        self.assertEqual(self.client.does(b"delete q"), b"DELETED\r\n")

    def test_sets_work_again(self) -> None:
        self.fill()
        self.assertEqual(self.client.sets(b"q", b"x"), self.REFUSED)
        self.store.room = (LARGE, LARGE)
        self.server.clock.advance(INTERVAL)
        self.assertEqual(self.client.sets(b"q", b"x"), b"STORED\r\n")

    def test_large_item_on_its_way(self) -> None:
        """It is refused too, and leaves nothing behind."""
        queues = self.server.queues
        inflow = queues.puts.inflow()
        inflow.write(bytes(200_000))
        self.server.commit()
        self.assertEqual(len(self.store.store.chunks), 1)
        self.fill()
        inflow.write(bytes(200_000))
        self.assertIsInstance(inflow.error, DiskAlmostFull)
        self.assertRaises(DiskAlmostFull, Asker(queues).put_flow, b"q", inflow)
        self.server.clock.advance(1)
        self.assertEqual((self.store.store.chunks, self.store.leftovers()), ({}, ([], [])))
        self.assertEqual(self.server.figures(b"q"), (5, 5))

    @from_source
    def test_large_item_that_is_complete(self) -> None:
        """The disk fills after its last chunk."""
        queues = self.server.queues
        inflow = queues.puts.inflow()
        inflow.write(bytes(200_000))
        self.server.commit()
        finish = inflow.finish

        def full() -> bytes:
            data = finish()
            self.fill()
            return data

        self.patch(inflow, "finish", full)
        self.assertRaises(DiskAlmostFull, Asker(queues).put_flow, b"q", inflow)
        self.server.clock.advance(1)
        self.assertEqual(self.store.store.chunks, {})

    def test_over_the_wire(self) -> None:
        self.fill()
        self.assertEqual(self.client.sets(b"q", bytes(300_000)), self.REFUSED)
        self.server.clock.advance(1)
        self.assertEqual(self.store.store.chunks, {})

    def test_health(self) -> None:
        figures = self.server.queues.figures("")
        self.assertEqual((figures["store_writable"], "store_refuses" in figures), (1, False))
        self.fill()
        self.client.sets(b"q", b"x")
        reason = self.REFUSED[len("SERVER_ERROR ") : -2].decode()
        self.assertEqual(self.server.queues.health(), Health(False, reason, EPOCH + 1))
        said = self.client.does(b"stats")
        self.assertIn(b"STAT store_writable 0\r\n", said)
        self.assertIn(b"STAT store_refuses " + reason.encode() + b"\r\n", said)
        self.assertIn(b"STAT store_refuses_since %d\r\n" % (EPOCH + 1), said)

    def test_stop(self) -> None:
        self.fill()
        self.client.sets(b"q", b"x")
        self.client.leave()
        self.server.stop()
        self.assertEqual(self.server.clock.getDelayedCalls(), [])
