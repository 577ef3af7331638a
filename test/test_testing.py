"""
Tests of `darner.testing`.
"""

from __future__ import annotations

import os
import threading

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from darner.config.policies import Policies, QueueSettings
from darner.config.settings import Settings
from darner.errors import ClientError, QueueFull, Stopped
from darner.interfaces import IQueueService
from darner.testing import MemoryQueueService, MemoryStore
from test.descriptors import descriptors


class MemoryQueueServiceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.queues = MemoryQueueService()
        self.queues.startService()

    def test_interface(self) -> None:
        self.assertTrue(verifyObject(IQueueService, self.queues))

    def test_put_and_get(self) -> None:
        put = self.queues.put(b"q", b"payload", sync=True)
        self.assertNoResult(put)
        self.queues.clock.advance(0)
        self.successResultOf(put)
        message = self.queues.result(self.queues.get(b"q"))
        assert message is not None
        self.assertEqual(message.payload, b"payload")

    def test_errors(self) -> None:
        self.assertRaises(ClientError, self.queues.result, self.queues.put(b"q", b"x", flags=-1))
        error = self.assertRaises(AssertionError, self.queues.result, self.queues.get(b"q", timeout=5))
        self.assertIn("has not finished", str(error))

    def test_time(self) -> None:
        """Delays, expiry and timeouts go by the clock."""
        self.queues.result(self.queues.put(b"later", b"x", delay=60))
        self.queues.result(self.queues.put(b"gone", b"x", expiry=5))
        got = self.queues.get(b"q", timeout=5)
        self.queues.clock.advance(6)
        self.assertIsNone(self.successResultOf(got))
        self.assertIsNone(self.queues.result(self.queues.get(b"gone")))
        self.assertIsNone(self.queues.result(self.queues.get(b"later")))
        self.queues.clock.advance(60)
        self.assertIsNotNone(self.queues.result(self.queues.get(b"later")))

    def test_restart(self) -> None:
        self.queues.result(self.queues.put(b"q", b"x"))
        self.queues.result(self.queues.stopService())
        self.assertRaises(Stopped, self.queues.count, b"q")
        again = MemoryQueueService(Clock(), store=self.queues.store)
        again.startService()
        self.assertEqual(again.count(b"q"), 1)
        self.assertIsInstance(again.store, MemoryStore)

    def test_settings(self) -> None:
        queues = MemoryQueueService(settings=Settings(policies=Policies(QueueSettings(max_items=1))))
        queues.startService()
        queues.result(queues.put(b"q", b"1"))
        self.assertRaises(QueueFull, queues.result, queues.put(b"q", b"2"))
        self.assertEqual(queues.count(b"q"), 1)

    def test_nothing_outside(self) -> None:
        """No thread and no file."""
        before = set(threading.enumerate()), set(os.listdir()), descriptors()
        queues = MemoryQueueService()
        queues.startService()
        queues.result(queues.put(b"q", b"x", sync=True))
        now = set(threading.enumerate()), set(os.listdir()), descriptors()
        self.assertEqual([new - old for new, old in zip(now, before, strict=True)], [set()] * 3)
