"""Tests of `darner.queues.timings` and `darner.queues.late_sync`."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from darner.queues.late_sync import LateSync
from darner.queues.timings import MOST_AGES, SAMPLES, Histogram
from test.harness import Server


class HistogramTests(SynchronousTestCase):
    def test_bounds(self) -> None:
        histogram = Histogram([1.0, 2.0])
        for value, weight in ((0.5, 1), (1.0, 2), (1.5, 1), (3.0, 4)):
            histogram.add(value, weight)
        self.assertEqual((histogram.counts, histogram.total), ([3, 1, 4], 16.0))


class TimingsTests(SynchronousTestCase):
    """Seen through a server whose time for measurements is a test's."""

    settings: dict[str, object] = {}

    def setUp(self) -> None:
        self.server = Server(**self.settings)
        self.time = 1.0
        self.step = 0.0
        self.timings = self.server.queues.measure(self.timer)
        self.client = self.server.client()

    def timer(self) -> float:
        self.time += self.step
        return self.time

    def put(self, *payloads: bytes, sync: bool = False) -> None:
        for payload in payloads:
            self.client.set(b"q/sync" if sync else b"q", payload)
        self.server.commit()

    @staticmethod
    def count(histogram: Histogram) -> int:
        return sum(histogram.counts)

    def test_commits(self) -> None:
        self.step = 0.01
        self.put(b"1")
        self.put(b"1", sync=True)
        self.assertEqual((self.count(self.timings.commits), self.count(self.timings.syncs)), (1, 1))
        self.assertEqual(round(self.timings.commits.total, 6), 0.01)
        self.client.ask(b"version")
        self.server.commit()
        self.assertEqual(self.count(self.timings.commits), 1, "there was nothing to be written")

    def test_requests(self) -> None:
        self.step = 0.001
        self.put(b"1", b"2")
        self.client.ask(b"get q/peek")
        self.client.ask(b"get q")
        self.client.ask(b"get q")
        self.client.ask(b"get q")
        self.server.commit()
        timings = self.timings
        counts = [self.count(histogram) for histogram in (timings.sets, timings.gets, timings.peeks)]
        self.assertEqual(counts, [2, 3, 1])
        self.assertGreater(timings.gets.total, 0)

    def test_ages(self) -> None:
        """Samples stand for all since the ones before."""
        self.put(b"1", b"2", b"3")
        self.server.clock.advance(5)
        self.time += 1
        self.client.ask(b"get q")
        self.server.commit()
        self.client.ask(b"get q")
        self.server.commit()
        self.assertEqual(self.count(self.timings.ages), 1, "no more than a few each millisecond")
        self.time += 1
        self.client.ask(b"get q")
        self.server.commit()
        self.assertEqual((self.count(self.timings.ages), self.timings.ages.total), (3, 15.0))
        self.assertEqual(self.timings.take_ages(), [(b"q", 5000.0, 1), (b"q", 5000.0, 2)])
        self.assertEqual(self.timings.take_ages(), [])

    def test_many(self) -> None:
        self.put(*[b"x"] * 100)
        self.time += 1
        for _ in range(100):
            self.client.ask(b"get q")
        self.server.commit()
        ages = self.timings.take_ages()
        self.assertLessEqual(len(ages), SAMPLES)
        self.assertGreater(sum(weight for _, _, weight in ages), 90)

    def test_bound(self) -> None:
        """Nobody may ask for the ages of queues."""
        self.put(b"1")
        self.timings._ages = [(b"q", 0.0, 1)] * MOST_AGES
        self.time += 1
        self.client.ask(b"get q")
        self.server.commit()
        self.assertEqual((len(self.timings.take_ages()), self.count(self.timings.ages)), (MOST_AGES, 1))

    def test_sizes(self) -> None:
        self.time += 1
        self.put(b"x" * 10, b"x" * 2000)
        self.put(b"x")
        self.assertEqual((self.count(self.timings.sizes), self.timings.sizes.total), (2, 2010))
        self.time += 1
        self.put(b"x" * 10)
        self.assertEqual((self.count(self.timings.sizes), self.timings.sizes.total), (4, 2030))
        self.time += 1
        self.client.ask(b"flush q")
        self.server.commit()
        self.assertEqual(self.count(self.timings.sizes), 4)

    def test_off(self) -> None:
        """As it comes, nothing is measured."""
        self.assertIsNone(Server().queues.commit.timings)


class LateSyncTests(SynchronousTestCase):
    def test_earliest(self) -> None:
        clock, due = Clock(), []
        late = LateSync(clock, lambda: due.append(clock.seconds()))
        late.within(5)
        late.within(9)
        late.within(2)
        self.assertTrue(late.promised)
        clock.advance(2)
        clock.advance(10)
        self.assertEqual((due, late.promised, late.forget()), ([2.0], False, False))
        late.within(1)
        self.assertTrue(late.forget())
        clock.advance(1)
        self.assertEqual(due, [2.0])
