"""When items are brought to stable storage, by the setting C{sync} of their queue."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from darner.config.policies import Policies, QueueSettings
from darner.front import memcache
from test.harness import REFUSED, Server


class SyncTests(SynchronousTestCase):
    def serve(self, sync: str | float) -> None:
        self.server = Server(sync=sync)
        self.client = self.server.client()

    @property
    def synced(self) -> list[bool]:
        """Of each write, whether it was synced."""
        return self.server.store.writes

    def test_never(self) -> None:
        """Only sets with C{/sync} are synced."""
        self.serve("never")
        self.client.sets(b"q", b"a")
        self.client.sets(b"q/sync", b"b")
        self.client.does(b"get q")
        self.assertEqual(self.synced, [False, True, False])

    def test_always(self) -> None:
        """No set is answered before its sync."""
        self.serve("always")
        self.server.holding = True
        self.assertEqual(self.client.sets(b"q", b"a"), b"")
        self.server.release()
        self.assertEqual(self.client.hears(), memcache.STORED)
        self.assertEqual(self.client.does(b"get q")[:7], b"VALUE q")
        self.assertEqual(self.synced, [True, False])

    def test_of_one_queue(self) -> None:
        self.serve("never")
        self.server.queues.apply(Policies(QueueSettings(), {"q": {"sync": "always"}}))
        self.client.sets(b"other", b"a")
        self.client.sets(b"q", b"a")
        self.assertEqual(self.synced, [False, True])

    def test_within_a_time(self) -> None:
        """Sets are answered at once; one sync serves all that came meanwhile."""
        self.serve(0.2)
        for payload in (b"a", b"b", b"c"):
            self.assertEqual(self.client.sets(b"q", payload), memcache.STORED)
            self.server.clock.advance(0.05)
        self.assertEqual(self.synced, [False] * 3)
        self.server.clock.advance(0.06)
        self.assertEqual(self.synced, [False] * 3 + [True])
        self.server.clock.pump([1] * 5)
        self.assertEqual(self.synced.count(True), 1)
        self.client.sets(b"q", b"d")
        self.server.clock.advance(0.2)
        self.assertEqual(self.synced.count(True), 2)

    def test_sooner_for_others(self) -> None:
        """An earlier sync for another client serves them too."""
        self.serve(0.2)
        self.client.sets(b"q", b"a")
        self.client.sets(b"q/sync", b"b")
        self.server.clock.pump([0.1] * 5)
        self.assertEqual(self.synced.count(True), 1)

    def test_the_shortest_time_counts(self) -> None:
        self.serve(10.0)
        self.server.queues.apply(Policies(QueueSettings(sync=10.0), {"fast": {"sync": 0.1}}))
        self.client.sets(b"q", b"a")
        self.client.sets(b"fast", b"a")
        self.client.sets(b"q", b"b")
        self.server.clock.advance(0.1)
        self.assertEqual(self.synced, [False] * 3 + [True])

    def test_failing(self) -> None:
        """It is tried again, until it is done."""
        self.serve(0.2)
        self.client.sets(b"q", b"a")
        self.server.store.broken = 2
        self.server.clock.advance(0.2)
        self.assertEqual(self.synced.count(True), 0)
        self.server.clock.pump([0.5] * 6)
        self.assertEqual(self.synced.count(True), 1)
        self.assertEqual(self.client.does(b"get q")[:7], b"VALUE q")

    def test_refused(self) -> None:
        self.serve("always")
        self.server.store.full = True
        self.assertEqual(self.client.sets(b"q", b"a"), REFUSED)

    def test_stop(self) -> None:
        """A promised sync is done before the stop."""
        self.serve(60.0)
        self.client.sets(b"q", b"a")
        self.client.leave()
        self.server.stop()
        self.assertEqual(self.synced.count(True), 1)
        self.assertEqual(self.server.clock.getDelayedCalls(), [])
