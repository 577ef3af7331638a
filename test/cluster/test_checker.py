"""
Tests of the checker: nodes that are wrong on purpose are found, and right ones are not; so are stores that differ.
"""

from __future__ import annotations

import contextlib
import random
from unittest import mock

import plyvel
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from bench.cluster_torture import differences
from darner.cluster import leading
from darner.cluster.leading import Leadership
from darner.cluster.replicated_store import ReplicatedStore
from darner.errors import LogConflict
from darner.store import records
from darner.store.batch import Batch
from test.cluster.checker import Fault, QueueModel
from test.cluster.nodes import Cluster, Process


class EarlyLeadership(Leadership):
    """Answers before the log has the record."""

    def commit(self, batch: Batch) -> Deferred[None]:
        super().commit(batch).addErrback(lambda _: None)
        return succeed(None)


class FencelessLeadership(Leadership):
    """Goes on where another node has appended."""

    async def _commit(self, batch: Batch) -> None:
        with contextlib.suppress(LogConflict):
            await super()._append(leading.pack_batch(batch))
        self._store.written(self.highest, batch)

    async def check(self) -> None:
        pass


class FaultsTests(SynchronousTestCase):
    """Clients of a cluster whose nodes die and are cut off from the log."""

    def torture(self, rounds: int, seed: int) -> None:
        """
        @raise Fault: the cluster did something wrong.
        """
        chance = random.Random(seed)
        cluster = Cluster(self)
        models = [QueueModel(f"jobs{number}") for number in range(3)]
        number = 0
        for _ in range(rounds):
            cluster.run(20, lambda: len([process for process in cluster.leaders if reachable(process)]) == 1)
            leader = chance.choice(cluster.leaders)
            client = leader.client()
            cut = chance.randrange(12)
            for step in range(12):
                if step == cut:
                    leader.log.unavailable = True
                model = chance.choice(models)
                number += 1
                item = b"%d" % number
                puts = chance.random() < 0.5
                if puts:
                    client.set(model.name.encode(), item)
                else:
                    client.ask(b"get " + model.name.encode())
                for _ in range(6):
                    cluster.clock.advance(0)
                told = client.hears()
                if puts:
                    model.put(item, told == b"STORED\r\n")
                elif told == b"END\r\n":
                    model.taken(None)
                elif told:
                    model.taken(told.split(b"\r\n")[1])
                else:
                    model.in_doubt()
                if not told:
                    break
            client.leave()
            # Others lead by now; the one before comes back, finds out or not, and others ask it.
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

    def test_right(self) -> None:
        for seed in range(4):
            self.torture(8, seed)

    def found(self, wrong: type[Leadership]) -> None:
        with mock.patch("darner.cluster.node.Leadership", wrong):
            for seed in range(20):
                try:
                    self.torture(6, seed)
                except Fault as fault:
                    self.assertIn("put", str(fault))
                    return
        self.fail("nobody has noticed")

    def test_answers_before_the_append(self) -> None:
        self.found(EarlyLeadership)

    def test_ignores_the_fence(self) -> None:
        self.found(FencelessLeadership)

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
