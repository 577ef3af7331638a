"""
Tests of how long a node waits for a leader.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from darner.cluster import patience
from darner.cluster.notes import FOLLOWER, LEADER, RESIGNED, Note
from darner.cluster.pace import Pace
from darner.cluster.patience import MOST, Patience
from test.cluster.nodes import Cluster, Process


class PatienceTests(SynchronousTestCase):
    """The rules, by themselves."""

    def setUp(self) -> None:
        self.patch(patience.random, "uniform", lambda least, most: most)
        self.pace = Pace()
        self.patience = Patience(self.pace)

    def waits(self, since: float) -> float:
        """@return: for how many seconds from C{since} on this node would not try to lead."""
        return next(tenth / 10 for tenth in range(1000) if self.patience.is_over(since + tenth / 10 + 0.001, 0.0))

    def test_begin(self) -> None:
        self.patience.begin(10.0)
        self.assertAlmostEqual(self.waits(10.0), self.pace.settle + self.pace.jitter)
        self.assertFalse(self.patience.is_over(12.0, 0.6), "and longer where that is asked for")

    def test_records_and_notes(self) -> None:
        """Both are signs; a note that is too old is none, nor is that of a follower."""
        self.patience.begin(0.0)
        self.patience.worked(20.0)
        self.assertAlmostEqual(self.waits(20.0), self.pace.jitter)
        self.patience.look([Note(FOLLOWER), Note(LEADER, age=self.pace.patience)], 30.0)
        self.assertAlmostEqual(self.waits(20.0), self.pace.jitter)
        self.patience.look([Note(LEADER, age=self.pace.patience - 0.1)], 30.0)
        self.assertAlmostEqual(self.waits(30.0), self.pace.jitter)

    def test_a_new_leader_has_time(self) -> None:
        """As long as one that has told that it leads."""
        self.patience.begin(0.0)
        self.patience.claimed(7, 1, 50.0)
        self.assertAlmostEqual(self.waits(50.0), self.pace.patience + self.pace.jitter)

    def test_leaders_that_are_not_heard_of(self) -> None:
        """Each has twice as long as the one before, up to a limit; one that is heard of ends that at once."""
        self.patience.begin(0.0)
        for number, times in enumerate([1, 2, 4, 8, MOST, MOST]):
            self.assertEqual(self.patience.next_times, times)
            self.patience.claimed(number, times, 100.0 * number)
            self.assertAlmostEqual(self.waits(100.0 * number), times * self.pace.patience + self.pace.jitter)
            self.patience.look([Note(LEADER, claim=number - 1)], 100.0 * number)
        self.patience.look([Note(LEADER, claim=5)], 500.5)
        self.assertAlmostEqual(self.waits(500.5), self.pace.jitter)
        self.assertEqual(self.patience.next_times, 1)
        self.patience.claimed(6, 4, 700.0)
        self.assertEqual(self.patience.next_times, 8, "as others know it")
        self.patience.worked(701.0)
        self.assertAlmostEqual(self.waits(701.0), self.pace.jitter)
        self.assertEqual(self.patience.next_times, 1)

    def test_resigned(self) -> None:
        """Nobody waits for the leader that has resigned; one that has resigned earlier is another."""
        self.patience.begin(0.0)
        self.patience.claimed(7, 1, 50.0)
        self.patience.look([Note(RESIGNED, claim=6)], 50.1)
        self.assertAlmostEqual(self.waits(50.0), self.pace.patience + self.pace.jitter)
        self.patience.look([Note(RESIGNED, claim=7)], 50.1)
        self.assertAlmostEqual(self.waits(50.1), self.pace.jitter)

    def test_out_of_reach(self) -> None:
        self.patience.begin(0.0)
        self.patience.out_of_reach(70.0)
        self.assertAlmostEqual(self.waits(70.0), self.pace.patience + self.pace.jitter)


class SlowProcess(Process):
    """A process whose leader serves when it is told so."""

    loading: Any = None

    def _lead(self) -> Any:  # type: ignore[override]
        self.loading = Deferred()
        return self.loading.addCallback(lambda _: Process._lead(self))


class StillProcess(Process):
    """A process that stands still when it leads."""

    def _lead(self) -> None:
        self.log.unavailable = True
        self.clock.dead = True


class SluggishProcess(Process):
    """A process that gets nothing from the log in the first four seconds in which it leads."""

    def _lead(self) -> None:
        super()._lead()
        self.log.unavailable = True
        self.clock.callLater(4.0, self._is_quick)

    def _is_quick(self) -> None:
        self.log.unavailable = False


class SlowLeaderTests(SynchronousTestCase):
    """Leaders that take long."""

    def test_loads_for_long(self) -> None:
        """A leader that loads very many queues tells that it leads, and keeps its place."""
        cluster = Cluster(self, process=SlowProcess)
        leader = cluster.leader()
        cluster.run(60)
        self.assertEqual((cluster.leaders, cluster.log.last), ([leader], 1))
        leader.loading.callback(None)
        self.assertEqual(leader.client().sets(b"jobs", b"one"), b"STORED\r\n")

    def test_cannot_load(self) -> None:
        """Another one leads at once."""
        cluster = Cluster(self, process=SlowProcess)
        leader = cluster.leader()
        cluster.run(60)
        leader.loading.errback(OSError("no descriptors"))
        began = cluster.clock.seconds()
        self.assertIsNot(cluster.leader(), leader)
        self.assertLess(cluster.clock.seconds() - began, 1)
        cluster.run(1)
        assert leader.ended is not None
        self.assertIn("cannot serve: no descriptors", leader.ended[1])
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_stands_still(self) -> None:
        """
        Where each new leader stands still at once, others wait for the next one longer.
        """
        cluster = Cluster(self, process=StillProcess)
        claims = []
        for number in (1, 2, 3):
            self.assertTrue(cluster.run(20, lambda number=number: cluster.log.last == number))
            claims.append(cluster.clock.seconds())
        patience = Pace().patience
        self.assertGreaterEqual(claims[1] - claims[0], patience)
        self.assertGreaterEqual(claims[2] - claims[1], 2 * patience)
        for process in cluster.processes:
            process.log.close()
            process.store.close()

    def test_slow_nodes_settle(self) -> None:
        """
        Nodes whose first seconds as a leader are slow, and that start again soon after they were deposed, do not depose
        one another for ever.
        """
        cluster = Cluster(self, process=SluggishProcess)
        for _ in range(120):
            cluster.run(0.5)
            for process in cluster.processes:
                if not process.alive:
                    process.start()
        last = cluster.log.last
        self.assertLess(last, 8)
        cluster.run(30)
        self.assertEqual((cluster.log.last, len(cluster.leaders)), (last, 1))
