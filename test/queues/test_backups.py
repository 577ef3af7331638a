"""Tests of L{darner.queues.backups}."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from darner.errors import Stopped, StoreError
from darner.queues.backups import Backups
from darner.store.interfaces import IBackedUp
from test.servers import PATIENCE


@implementer(IBackedUp)
class Store:
    def capture(self, proceed: Callable[[], None], wall: Callable[[], float]) -> Any:
        """Nothing calls it here."""


class BackupsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.scheduled: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self.arrived = threading.Semaphore(0)
        self.backups = Backups(Store(), self.schedule)

    def schedule(self, call: Callable[..., object], *arguments: Any) -> None:
        self.scheduled.append((call, arguments))
        self.arrived.release()

    def deliver(self) -> None:
        """Wait until the thread is done, and take its result."""
        self.assertTrue(self.arrived.acquire(timeout=PATIENCE))
        call, arguments = self.scheduled.pop()
        call(*arguments)

    def test_work(self) -> None:
        backup = self.backups.begin()
        done = backup.run(threading.get_ident)
        self.assertNoResult(done)
        self.deliver()
        self.assertNotEqual(self.successResultOf(done), threading.get_ident())

    def test_fault(self) -> None:
        backup = self.backups.begin()
        done = backup.run(lambda: 1 // 0)
        self.deliver()
        self.failureResultOf(done, ZeroDivisionError)

    def test_one_at_a_time(self) -> None:
        backup = self.backups.begin()
        self.assertIn("another backup", str(self.assertRaises(StoreError, self.backups.begin)))
        backup.proceed()
        backup.end()
        backup.end()
        self.assertRaises(Stopped, backup.proceed)
        other = self.backups.begin()
        backup.end()
        self.assertRaises(StoreError, self.backups.begin)
        other.end()

    def test_not_on_disk(self) -> None:
        self.assertIn("not on disk", str(self.assertRaises(StoreError, Backups(object(), self.schedule).begin)))

    def test_cancelled(self) -> None:
        """The next one has to wait until the thread is done."""
        backup = self.backups.begin()
        done = backup.run(lambda: 5)
        done.cancel()
        self.failureResultOf(done, CancelledError)
        backup.end()
        self.assertRaises(StoreError, self.backups.begin)
        self.deliver()
        self.backups.begin()

    def test_last_work(self) -> None:
        """Behind what is done still, or at once."""
        for busy in (True, False):
            did: list[str] = []
            backup = self.backups.begin()
            if busy:
                backup.run(lambda: did.append("first"))  # noqa: B023
            backup.finish(lambda: did.append("last"))  # noqa: B023
            for _ in range(1 + busy):
                self.assertRaises(StoreError, self.backups.begin)
                self.deliver()
            self.assertEqual(did, ["first"] * busy + ["last"])
            self.backups.begin().end()

    def test_last_work_fails(self) -> None:
        """Nobody hears of it."""
        self.backups.begin().finish(lambda: 1 // 0)
        self.deliver()
        self.backups.begin()

    def test_stop(self) -> None:
        self.successResultOf(self.backups.stop())
        self.assertRaises(Stopped, self.backups.begin)

    def test_stop_while_one_is_made(self) -> None:
        backup = self.backups.begin()
        backup.run(lambda: None)
        stopped: Deferred[None] = self.backups.stop()
        self.assertRaises(Stopped, backup.proceed)
        self.assertNoResult(stopped)
        self.deliver()
        self.successResultOf(stopped)
