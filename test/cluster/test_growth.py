"""
Tests of the model of a service that grows (`bench.cluster_growth`): what must hold, whatever the figures are.
"""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from bench.cluster_growth import Costs, Outcome, Service, calibrated, simulate, table
from test.servers import ROOT

SERVICE = Service(machines=3, shards=3, clients=150)
QUICK = Costs(append=0.0002, sync=0.0005, round_trip=0.0005)


def run(seconds: float = 0.3, costs: Costs = QUICK, seed: int = 1, **changes: int) -> Outcome:
    return simulate(replace(SERVICE, **changes), costs, seed, seconds)


class GrowthTests(SynchronousTestCase):
    """The model."""

    def test_the_same_again(self) -> None:
        self.assertEqual(run(), run())
        self.assertNotEqual(run(), run(seed=2))

    def test_requests_are_conserved(self) -> None:
        """Each client has one request under way at any time, so each that was sent is answered or open."""
        for changes in ({}, {"shards": 9, "machines": 9}, {"clients": 7}, {"turns_in_flight": 3}, {"most": 4}):
            got = run(0.2, **changes)
            self.assertGreater(got.answered, 0)
            self.assertEqual(got.sent, got.answered + got.open)
            # Those that travel to their clients are answered, and not sent again yet.
            self.assertLessEqual(got.open, changes.get("clients", SERVICE.clients))
            used = (got.etcd, got.process, got.machine)
            self.assertTrue(all(0 < part <= 1 for part in used), used)
            self.assertLessEqual(got.median, got.late)
            # By Little's law: all clients are always waiting.
            self.assertGreater(got.throughput * got.late, 0.5 * changes.get("clients", SERVICE.clients))

    def test_a_shard_is_limited_by_its_log(self) -> None:
        """However many clients there are, it has one append under way at a time; they share it."""
        most = 1 / (QUICK.append + QUICK.round_trip)
        before = 0.0
        for clients in (10, 100, 1000):
            got = run(shards=1, clients=clients)
            self.assertLess(got.appends, most)
            self.assertLessEqual(got.throughput, got.appends * clients * 1.01)
            self.assertGreater(got.throughput, before)
            before = got.throughput
        slow = replace(QUICK, round_trip=QUICK.round_trip + 0.01)
        self.assertLess(run(costs=slow, shards=1).throughput, run(shards=1).throughput / 3)

    def test_shards_add_up_until_etcd_is_full(self) -> None:
        figures = [run(machines=n, shards=n, clients=50 * n, etcds=1) for n in (1, 2, 4, 32, 64)]
        throughput = [got.throughput for got in figures]
        self.assertGreater(throughput[1], throughput[0] * 1.3)
        self.assertGreater(throughput[2], throughput[1] * 1.2)
        self.assertLess(figures[0].etcd, 0.9)
        self.assertEqual(figures[3].limit, "etcd")
        self.assertLess(throughput[4], throughput[3] * 1.3, "twice the machines, and little more")
        more = run(machines=64, shards=64, clients=64 * 50, etcds=8)
        self.assertGreater(more.throughput, throughput[4] * 3, "more clusters of etcd help")

    def test_a_queue_is_in_one_shard(self) -> None:
        """So more shards are of no use for a single queue, and it has no more than one process can do."""
        one = run(machines=8, shards=8, clients=4000, queues=1)
        many = run(machines=8, shards=8, clients=4000, queues=1000)
        self.assertLess(one.throughput, 1 / QUICK.request)
        self.assertGreater(many.throughput, one.throughput * 1.5)

    def test_processors(self) -> None:
        """Where requests cost more than the log, leaders' processes are the limit, or cores are."""
        dear = replace(QUICK, request=0.001)
        self.assertEqual(run(costs=dear, cores=4).limit, "leaders' processes")
        self.assertEqual(run(costs=replace(dear, apply=0.001), cores=1).limit, "processors")
        self.assertEqual(run(clients=3).limit, "round trips")

    def test_calibration(self) -> None:
        """With the figures that it is told, the model has them."""
        costs = calibrated(Costs(request=0, turn=0, apply=0, client=0, byte=0), 1000, 4000, 8)
        alone = run(1.0, costs, shards=1, clients=1)
        self.assertLess(abs(alone.appends - 1000), 100)
        several = run(1.0, costs, shards=1, clients=8, most=1, turns_in_flight=8)
        self.assertLess(abs(several.appends - 4000), 600)

    def test_page(self) -> None:
        """The page has what the program prints."""
        lines = (ROOT / "docs" / "cluster_growth.rst").read_text().splitlines()
        costs = calibrated(Costs(), 1000, 4000, 8)
        for line in table(costs, 1, 8, 50, Service(queues=10_000), sizes=(3, 6, 9)):
            self.assertIn("    " + line, lines)

    def test_table(self) -> None:
        lines = table(QUICK, 1, 8, 20, Service(), seconds=0.05, sizes=(3, 30))
        self.assertEqual(len(lines), 3)
        self.assertEqual([line.split()[:3] for line in lines[1:]], [["3", "3", "1"], ["30", "30", "4"]])
