"""
Tests of nodes over the log in memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from darner.cluster.exits import EXIT_BEHIND, EXIT_DAMAGED, EXIT_FENCED
from darner.cluster.notes import STEP_DOWN
from darner.cluster.records import CLAIM, Record
from darner.cluster.replicated_store import ReplicatedStore
from darner.config.policies import Policies, QueueSettings
from darner.errors import StoreUnusable
from darner.store.leveldb import LevelStore
from test.cluster.nodes import Cluster

STORED = b"STORED\r\n"


def value(queue: bytes, payload: bytes) -> bytes:
    return b"VALUE %b 0 %d\r\n%b\r\nEND\r\n" % (queue, len(payload), payload)


class ClusterTests(SynchronousTestCase):
    """Three nodes."""

    def cluster(self, **more: Any) -> Cluster:
        return Cluster(self, **more)

    def equal(self, cluster: Cluster) -> None:
        """All that live have the same keys and values."""
        cluster.settle()
        first, *others = (process.store.shared() for process in cluster.processes if process.alive)
        self.assertTrue(first)
        for other in others:
            self.assertEqual(first, other)

    def test_one_leads(self) -> None:
        cluster = self.cluster()
        leader = cluster.leader()
        client = leader.client()
        self.assertEqual(client.sets(b"jobs", b"one"), STORED)
        self.assertEqual(client.does(b"get jobs"), value(b"jobs", b"one"))
        self.assertEqual(client.does(b"get jobs"), b"END\r\n")
        self.equal(cluster)
        self.assertEqual({process.node.leader for process in cluster.processes}, {leader.name})

    def test_failover(self) -> None:
        """Everything that was acknowledged is there in its order, and what was open goes back."""
        cluster = self.cluster()
        for round in range(5):
            leader = cluster.leader()
            client = leader.client()
            for number in range(round * 10, round * 10 + 10):
                self.assertEqual(client.sets(b"jobs", b"%d" % number), STORED)
            self.assertEqual(client.does(b"get jobs"), value(b"jobs", b"%d" % round))
            self.assertEqual(client.does(b"get jobs/open"), value(b"jobs", b"%d" % (round + 1)))
            began = cluster.clock.seconds()
            leader.kill()
            other = cluster.leader()
            self.assertIsNot(other, leader)
            self.assertLess(cluster.clock.seconds() - began, 4)
            leader.start()
            self.equal(cluster)
        client = cluster.leader().client()
        for number in range(5, 50):
            self.assertEqual(client.does(b"get jobs"), value(b"jobs", b"%d" % number))

    def test_large_items_and_features(self) -> None:
        """Streams, delays, ids, retries, fan-out and requeue are on all nodes; what is consumed is reclaimed there."""
        policies = Policies(QueueSettings(dedupe_window=60.0))
        cluster = self.cluster(policies=policies, max_record_bytes=100_000)
        client = cluster.leader().client()
        large = b"0123456789" * 40_000
        self.assertEqual(client.sets(b"large", large), STORED)
        for queue in (b"fan", b"fan+a", b"fan+b"):
            self.assertEqual(client.sets(queue, b"x"), STORED)
        self.assertEqual(client.sets(b"fan", large), STORED)
        self.assertEqual(client.sets(b"later/delay=5000", b"delayed"), STORED)
        self.assertEqual(client.sets(b"once/id=a", b"once"), STORED)
        self.assertEqual(client.sets(b"once/id=a", b"once"), STORED)
        self.equal(cluster)
        cluster.leader().kill()
        client = cluster.leader().client()
        self.assertEqual(client.sets(b"once/id=a", b"once"), STORED)
        self.assertEqual(client.does(b"get once"), value(b"once", b"once"))
        self.assertEqual(client.does(b"get once"), b"END\r\n")
        self.assertEqual(client.does(b"get fan+a"), value(b"fan+a", b"x"))
        client.ask(b"get fan+a")
        cluster.run(1)
        self.assertEqual(client.hears(), value(b"fan+a", large))
        client.ask(b"get large")
        cluster.run(1)
        self.assertEqual(client.hears(), value(b"large", large))
        cluster.run(6)
        self.assertEqual(client.does(b"get later"), value(b"later", b"delayed"))
        cluster.run(5)
        self.equal(cluster)
        shared = cluster.leader().store.shared()
        self.assertEqual({key[:9] for key in shared if key[:1] == b"C"}, {b"C" + (2).to_bytes(8, "big")})

    def test_deposed(self) -> None:
        """A leader that has stood still, and whose place is taken, answers nothing, not even END, and ends."""
        cluster = self.cluster()
        old = cluster.leader()
        idle, busy = old.client(), old.client()
        self.assertEqual(idle.sets(b"jobs", b"one"), STORED)
        old.log.unavailable = True
        idle.ask(b"get nothing")
        busy.set(b"jobs", b"two")
        self.assertTrue(cluster.run(5, lambda: len(cluster.leaders) == 2))
        (new,) = (process for process in cluster.leaders if process is not old)
        self.assertEqual(new.client().does(b"get jobs"), value(b"jobs", b"one"))
        self.assertEqual(idle.hears() + busy.hears(), b"")
        old.log.unavailable = False
        cluster.run(2)
        self.assertEqual(idle.hears() + busy.hears(), b"")
        assert old.ended is not None
        self.assertEqual(old.ended[0], EXIT_FENCED)
        old.start()
        self.equal(cluster)

    def test_deposed_and_idle(self) -> None:
        """It finds out without a turn."""
        cluster = self.cluster()
        old = cluster.leader()
        old.log.unavailable = True
        self.assertTrue(cluster.run(5, lambda: len(cluster.leaders) == 2))
        old.log.unavailable = False
        cluster.run(2)
        assert old.ended is not None
        self.assertEqual(old.ended[0], EXIT_FENCED)

    def test_out_of_reach(self) -> None:
        """Nothing is acknowledged while nobody reaches the log; it is when they do."""
        cluster = self.cluster()
        leader = cluster.leader()
        client = leader.client()
        cluster.log.unavailable = True
        client.set(b"jobs", b"one")
        cluster.run(5)
        self.assertEqual(client.hears(), b"")
        cluster.log.unavailable = False
        cluster.run(1)
        self.assertEqual(client.hears(), STORED)
        self.assertEqual(cluster.leaders, [leader])

    def test_in_doubt(self) -> None:
        """Whether an append was done is found out; it is done once."""
        cluster = self.cluster()
        leader = cluster.leader()
        client = leader.client()
        for number, done in enumerate((True, False, True, False)):
            leader.log.doubtful = [done]
            self.assertEqual(client.sets(b"jobs", b"%d" % number), STORED)
        for number in range(4):
            self.assertEqual(client.does(b"get jobs"), value(b"jobs", b"%d" % number))
        self.assertEqual(client.does(b"get jobs"), b"END\r\n")
        self.equal(cluster)

    def test_killed_in_doubt(self) -> None:
        """What the log has is there, though nobody was told so."""
        cluster = self.cluster()
        leader = cluster.leader()
        client = leader.client()
        client.set(b"jobs", b"one")
        leader.log.doubtful = [True]
        leader.log.delay = 0.01
        cluster.run(5, lambda: not leader.log.doubtful)
        leader.kill()
        self.assertEqual(client.hears(), b"")
        self.assertEqual(cluster.leader().client().does(b"get jobs"), value(b"jobs", b"one"))

    def test_step_down(self) -> None:
        """On demand, and on a clean stop, another leads at once."""
        cluster = self.cluster()
        leader = cluster.leader()
        leadership = leader.node.leadership
        assert leadership is not None
        leader.log.note(STEP_DOWN, b"%d" % leadership.claim)
        self.assertTrue(cluster.run(2, lambda: not leader.alive))
        began = cluster.clock.seconds()
        self.assertIsNone(leader.ended)
        self.assertIsNot(cluster.leader(), leader)
        self.assertLess(cluster.clock.seconds() - began, 1.5)
        leader.start()
        second = cluster.leader()
        cluster.run(3)
        self.assertEqual(cluster.leaders, [second])

    def test_all_killed(self) -> None:
        cluster = self.cluster()
        client = cluster.leader().client()
        self.assertEqual(client.sets(b"jobs", b"one"), STORED)
        cluster.end()
        for process in cluster.processes:
            process.start()
        self.assertEqual(cluster.leader().client().does(b"get jobs"), value(b"jobs", b"one"))
        self.equal(cluster)

    def test_trimming(self) -> None:
        """The log is trimmed up to what all that are alive have on stable storage."""
        cluster = self.cluster()
        client = cluster.leader().client()
        for number in range(20):
            self.assertEqual(client.sets(b"jobs", b"%d" % number), STORED)
        cluster.run(5)
        self.assertGreater(cluster.log.first, 20)
        self.equal(cluster)
        cluster.followers()[0].kill()
        position = cluster.log.last
        for number in range(20):
            self.assertEqual(client.sets(b"jobs", b"%d" % number), STORED)
        cluster.run(5)
        self.assertLessEqual(cluster.log.first, position + 1)

    def test_behind(self) -> None:
        """A node whose records are trimmed says what to do."""
        cluster = self.cluster()
        cluster.leader()
        late = cluster.followers()[0]
        late.kill()
        client = cluster.leader().client()
        for number in range(20):
            self.assertEqual(client.sets(b"jobs", b"%d" % number), STORED)
        cluster.run(5)
        cluster.leader().log.trim(cluster.log.last - 2)
        cluster.run(1)
        late.start()
        cluster.run(1)
        assert late.ended is not None
        self.assertEqual(late.ended[0], EXIT_BEHIND)
        self.assertIn("Restore a backup of another node", late.ended[1])

    def test_damaged(self) -> None:
        """A damaged record ends the followers; nothing is skipped."""
        cluster = self.cluster()
        leader = cluster.leader()
        follower = cluster.followers()[0]
        cluster.log.appended(cluster.log.last + 1, b"dr nonsense that is long enough")
        cluster.run(2)
        self.assertEqual(leader.ended and leader.ended[0], EXIT_FENCED)
        self.assertEqual(follower.ended and follower.ended[0], EXIT_DAMAGED)
        self.assertIn("cannot apply record", str(follower.ended))

    def test_a_record_while_the_log_is_asked(self) -> None:
        """A node that would claim, and is told of the last record when it has one more already, just follows."""
        cluster = self.cluster()
        leader, (node, other) = cluster.leader(), cluster.followers()
        cluster.settle()
        late: Deferred[int] = Deferred()
        last = cluster.log.last
        with mock.patch.object(node.log, "last", return_value=late):
            leader.kill()
            other.kill()
            cluster.run(3)
            record = Record(CLAIM, node.store.cluster, last + 1, 0, b"another")
            cluster.log.appended(last + 1, record.to_bytes())
            cluster.run(0.1)
            late.callback(last)
        self.assertEqual((node.ended, node.node.leader, node.store.position), (None, "another", last + 1))

    def test_another_log(self) -> None:
        """A data directory belongs to one log."""
        cluster = self.cluster()
        client = cluster.leader().client()
        self.assertEqual(client.sets(b"jobs", b"one"), STORED)
        cluster.end()
        cluster.log.records.clear()
        cluster.log.first, cluster.log.last = 1, 0
        for process in cluster.processes:
            process.start()
        cluster.run(5)
        for process in cluster.processes:
            self.assertEqual(process.ended and process.ended[0], EXIT_DAMAGED)
            self.assertIn("it has lost record", str(process.ended))

    def test_queues_from_elsewhere(self) -> None:
        """A data directory with queues that the log does not know is refused."""
        path = Path(self.mktemp())
        store = LevelStore(path)
        store.new_number()
        store.close()
        error = self.assertRaises(StoreUnusable, ReplicatedStore, path)
        self.assertIn("not from a cluster", str(error))
