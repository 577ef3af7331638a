"""
Reclaiming the records of delayed items that came due: `darner.queues.reclaiming`.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from darner.queues.commit import GroupCommit
from darner.queues.reclaiming import QUIET, RECLAIM_BYTES, Reclaimer
from darner.store.memory import MemoryStore


class Store(MemoryStore):
    """
    One that tells what is spent.

    @ivar told: number of the queue, and from when to when.
    """

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[int, int, int]] = []

    def delayed_deleted(self, number: int, since: int, until: int) -> None:
        self.told.append((number, since, until))


class DelayedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.store = Store()
        commit = GroupCommit(
            self.store, lambda end: self.clock.callLater(0, end), maybeDeferred, self.clock.seconds, self.clock
        )
        self.reclaimer = Reclaimer(self.store, commit, self.in_thread, self.clock)
        self.reclaimer.start()

    def in_thread(self, work: Any, *arguments: Any) -> Deferred[Any]:
        return maybeDeferred(work, *arguments)

    def test_little(self) -> None:
        """It waits for a quiet moment, and then reclaims all of a queue at once."""
        self.reclaimer.delayed(1, 20, 30, 10)
        self.reclaimer.delayed(1, 10, 25, 10)
        self.reclaimer.delayed(2, 5, 6, 10)
        self.clock.advance(0)
        self.assertEqual(self.store.told, [])
        self.clock.pump([QUIET] * 3)
        self.assertEqual(self.store.told, [(1, 10, 30), (2, 5, 6)])

    def test_much(self) -> None:
        """It does not wait, and does not reclaim a range twice."""
        self.reclaimer.delayed(1, 10, 20, RECLAIM_BYTES - 1)
        self.reclaimer.delayed(1, 20, 30, 1)
        self.reclaimer.delayed(1, 30, 40, 1)
        self.clock.advance(0)
        self.assertEqual(self.store.told, [(1, 10, 40)])
        self.clock.pump([QUIET] * 3)
        self.assertEqual(self.store.told, [(1, 10, 40)])
