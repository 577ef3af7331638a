"""
Tests of `darner.queues.waiters`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.trial.unittest import SynchronousTestCase

from darner.queues.waiters import Waiter, Waiters
from darner.values.stats import ServerStats


class WaitersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.stats = ServerStats()
        self.waiters = Waiters(self.stats)
        self.served: list[str] = []

    def join(self, name: str, even_if_empty: bool = False) -> Waiter:
        serve: Callable[[], None] = partial(self.served.append, name)
        return self.waiters.join(Waiter(serve, even_if_empty))

    def test_in_order(self) -> None:
        for name in ("a", "b", "c"):
            self.join(name)
        self.waiters.serve_next()
        self.waiters.serve_next()
        self.assertEqual((self.served, len(self.waiters)), (["a", "b"], 1))
        self.assertEqual(self.stats.waiters, 1)

    def test_leave(self) -> None:
        waiter = self.join("a")
        self.join("b")
        self.waiters.leave(waiter)
        self.waiters.leave(waiter)
        self.waiters.serve_next()
        self.assertEqual((self.served, len(self.waiters)), (["b"], 0))
        self.assertEqual(self.stats.waiters, 0)

    def test_for_nothing(self) -> None:
        """Only waiters that want it are served, and only while the queue is known to be empty."""
        self.join("a")
        for name in ("b", "c", "d"):
            self.join(name, even_if_empty=True)
        answers = [True, True, False]
        self.waiters.serve_for_nothing(lambda: answers.pop(0))
        self.assertEqual((self.served, len(self.waiters)), (["b", "c"], 2))
        self.assertEqual(self.stats.waiters, 2)
