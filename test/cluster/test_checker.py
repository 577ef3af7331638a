"""
Tests of the checker: nodes that are wrong on purpose are found, and right ones are not; so are stores that differ.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Sequence
from typing import Optional
from unittest import mock

import plyvel
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from bench.cluster_torture import differences
from darner.cluster.appends import Appends, append_surely
from darner.cluster.leading import Leadership
from darner.cluster.overlay import Overlay
from darner.cluster.replicated_store import ReplicatedStore
from darner.errors import LogConflict, LogDamaged
from darner.store import records
from darner.store.batch import Batch
from test.cluster.checker import Fault, QueueModel
from test.cluster.nodes import Cluster, Process
from test.harness import Client


class EarlyLeadership(Leadership):
    """Answers when it has given the record to the log."""

    def commit(self, batch: Batch) -> Deferred[None]:
        super().commit(batch)
        return succeed(None)


class HastyAppends(Appends):
    """Takes all records that are in flight for appended when the first one is."""

    def _tell(self) -> None:
        for append in self._pending:
            append.appended = True
        super()._tell()


class FencelessAppends(Appends):
    """Goes on where another node has appended."""

    def append(self, number: int, record: bytes) -> Deferred[None]:
        async def append() -> None:
            with contextlib.suppress(LogConflict, LogDamaged):  # it may be ahead of the log
                await append_surely(self._log, self._clock, number, record)

        return Deferred.fromCoroutine(append())


class FencelessLeadership(Leadership):
    """The same, when it looks."""

    async def check(self) -> None:
        pass


class NarrowProcess(Process):
    """Its queues have one item each in memory, and read the others from the store."""

    window_bytes = 1


Ask = tuple[QueueModel, Optional[bytes]]
"""A set of an item, or a get."""


class FaultsTests(SynchronousTestCase):
    """Clients of a cluster whose nodes die and are cut off from the log."""

    def torture(self, rounds: int, seed: int) -> None:
        """
        @raise Fault: the cluster did something wrong.
        """
        chance = random.Random(seed)
        cluster = Cluster(self, process=NarrowProcess)
        models = [QueueModel(f"jobs{number}") for number in range(3)]
        number = 0
        delay = chance.choice((0.0, 0.02))
        for _ in range(rounds):
            cluster.run(20, lambda: len([process for process in cluster.leaders if reachable(process)]) == 1)
            leader = chance.choice(cluster.leaders)
            client = leader.client()
            cut = chance.randrange(12)
            leader.log.delay = delay
            for step in range(12):
                asks: list[Ask] = []
                # Some are asked before the first is answered, each in a turn of its own.
                for _ in range(chance.choice((1, 3))):
                    number += 1
                    asks.append((chance.choice(models), b"%d" % number if chance.random() < 0.5 else None))
                    self.ask(client, *asks[-1])
                    for _ in range(chance.randrange(3)):
                        cluster.clock.advance(0)
                cluster.clock.advance(chance.random() * 2 * delay)
                if step == cut:
                    leader.log.unavailable = True
                for _ in range(6):
                    cluster.clock.advance(delay / 2)
                if not self.tell(asks, client.hears()):
                    break
            client.leave()
            # Others lead by now; the one before comes back, finds out or not, and others ask it.
            leader.log.delay = 0.0
            cluster.run(20, lambda leader=leader: any(each is not leader for each in cluster.leaders))
            leader.log.unavailable = chance.random() < 0.3
            cluster.run(chance.random())
            for process in cluster.processes:
                if not process.alive or process.log.unavailable:
                    process.kill()
                    process.start()
        cluster.run(5)
        if len([each for each in cluster.leaders if each.client().does(b"get nothing") == b"END\r\n"]) > 1:
            raise Fault("put and take: two nodes answer")
        last = cluster.leader().client()
        for model in models:
            while True:
                told = last.does(b"get " + model.name.encode())
                model.taken(None if told == b"END\r\n" else told.split(b"\r\n")[1])
                if told == b"END\r\n":
                    break

    def ask(self, client: Client, model: QueueModel, item: Optional[bytes]) -> None:
        if item is None:
            client.ask(b"get " + model.name.encode())
        else:
            client.set(model.name.encode(), item)

    def tell(self, asks: Sequence[Ask], told: bytes) -> bool:
        """
        Tell the models what the client heard.

        @return: whether all was answered.
        """
        lines = told.split(b"\r\n")[:-1]
        for model, item in asks:
            line = lines.pop(0) if lines else b""
            if item is not None:
                model.put(item, line == b"STORED")
            elif line == b"END":
                model.taken(None)
            elif line:
                model.taken(lines.pop(0))
                self.assertEqual(lines.pop(0), b"END")
            else:
                model.in_doubt()
        self.assertEqual(lines, [])
        return line != b""

    def test_right(self) -> None:
        for seed in range(6):
            self.torture(8, seed)

    def found(self) -> None:
        for seed in range(20):
            try:
                self.torture(6, seed)
            except Fault as fault:
                self.assertIn("put", str(fault))
                return
        self.fail("nobody has noticed")

    def test_answers_before_the_append(self) -> None:
        with mock.patch("darner.cluster.node.Leadership", EarlyLeadership):
            self.found()

    def test_answers_behind_the_first(self) -> None:
        with mock.patch("darner.cluster.leading.Appends", HastyAppends):
            self.found()

    def test_ignores_the_fence(self) -> None:
        with (
            mock.patch("darner.cluster.node.Leadership", FencelessLeadership),
            mock.patch("darner.cluster.leading.Appends", FencelessAppends),
        ):
            self.found()

    def test_reads_past_what_is_in_flight(self) -> None:
        with mock.patch.object(Overlay, "add"):
            self.found()

    def test_trims_too_early(self) -> None:
        """A node that was away, and of whom the log was to wait, cannot come back."""
        with mock.patch("darner.cluster.node.trim_to", lambda notes, _, __: max(n.position for n in notes.values())):
            cluster = Cluster(self)
            leader = cluster.leader()
            away = cluster.followers()[0]
            away.log.unavailable = True
            client = leader.client()
            for number in range(10):
                self.assertEqual(client.sets(b"jobs", b"%d" % number), b"STORED\r\n")
            cluster.run(3)
            away.log.unavailable = False
            cluster.run(3)
            self.assertFalse(away.alive)
        cluster = Cluster(self)
        leader = cluster.leader()
        away = cluster.followers()[0]
        away.log.unavailable = True
        cluster.run(3)
        self.assertEqual(leader.client().sets(b"jobs", b"one"), b"STORED\r\n")
        cluster.run(3)
        away.log.unavailable = False
        cluster.run(3)
        self.assertTrue(away.alive)


class DifferencesTests(SynchronousTestCase):
    """The stores of all nodes are compared."""

    def setUp(self) -> None:
        cluster = Cluster(self)
        client = cluster.leader().client()
        for number in range(3):
            self.assertEqual(client.sets(b"jobs", b"%d" % number), b"STORED\r\n")
        self.directories = [process.path for process in cluster.processes]
        cluster.settle()
        cluster.end()

    def test_equal(self) -> None:
        positions, different = differences(self.directories)
        self.assertEqual((len(positions), different), (1, []))

    def change(self, key: bytes, value: bytes) -> None:
        with contextlib.closing(plyvel.DB(str(self.directories[1] / "leveldb"))) as database:
            database.put(key, value)

    def test_different(self) -> None:
        with contextlib.closing(ReplicatedStore(self.directories[0])) as store:
            key = max(store.shared())
        self.change(key, b"changed")
        self.change(b"Zzz", b"too much")
        _, (changed, added) = differences(self.directories)
        self.assertIn(f"{key!r}: [", changed)
        self.assertIn("b'changed'", changed)
        self.assertIn("b'Zzz': [b'no such key', b'too much', b'no such key']", added)

    def test_other_position(self) -> None:
        """Where one is behind, there is nothing to compare."""
        with contextlib.closing(ReplicatedStore(self.directories[0])) as store:
            self.change(records.POSITION_KEY, records.pack_position(store.cluster, store.position - 1))
        positions, different = differences(self.directories)
        self.assertEqual((len(positions), different), (2, []))


def reachable(process: Process) -> bool:
    return not process.log.unavailable
