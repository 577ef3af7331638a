"""
Tests of `darner.net.refusal`.
"""

from __future__ import annotations

import gc
import os
import resource
import sys

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from darner.net import refusal
from darner.net.refusal import PATIENCE, SPARE_DESCRIPTORS, Dismissal, Refusal


class DescriptorTests(SynchronousTestCase):
    def limit(self, limit: int) -> None:
        self.patch(resource, "getrlimit", lambda _: (limit, limit))

    def test_limit(self) -> None:
        for limit, queues, http in (
            (100, 75, 88),
            (1024, 1024 - SPARE_DESCRIPTORS, 1024 - SPARE_DESCRIPTORS // 2),
            (resource.RLIM_INFINITY, sys.maxsize, sys.maxsize),
        ):
            self.limit(limit)
            self.assertEqual(refusal.descriptor_limit(), queues)
            self.assertEqual(refusal.descriptor_limit(SPARE_DESCRIPTORS // 2), http)

    def test_scarce(self) -> None:
        """The last descriptor that clients can use is the one before the limit."""
        # Whatever the process has open: there may be gaps below others.
        gc.collect()  # not between two looks
        lowest = os.dup(0)
        os.close(lowest)
        for limit, scarce in ((lowest - 1, True), (lowest, False)):
            self.patch(refusal, "descriptor_limit", lambda spare, limit=limit: limit)
            self.assertEqual(refusal.descriptors_are_scarce(), scarce)

    def test_none_at_all(self) -> None:
        def refuse(path: str, flags: int) -> int:
            raise OSError(24, "Too many open files")

        self.patch(os, "open", refuse)
        self.assertTrue(refusal.descriptors_are_scarce())


class RefusalTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.transport = StringTransport()
        self.connection = Refusal(b"no\r\n", self.clock)
        self.connection.makeConnection(self.transport)

    def test_told(self) -> None:
        self.assertEqual(self.transport.value(), b"no\r\n")
        self.assertTrue(self.transport.disconnecting)
        self.connection.connectionLost()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_does_not_go(self) -> None:
        """A client that is not told in time is disconnected all the same."""
        self.clock.advance(PATIENCE - 0.1)
        self.assertFalse(self.transport.disconnected)
        self.clock.advance(0.2)
        self.assertTrue(self.transport.disconnected)
        self.connection.connectionLost()

    def test_dismissed(self) -> None:
        transport = StringTransport()
        Dismissal().makeConnection(transport)
        self.assertEqual((transport.value(), transport.disconnected), (b"", True))
