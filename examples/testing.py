"""
Tests of an application, with its queues in memory and time that the tests move.

    python testing.py
"""

import io
import unittest

from twisted.internet.defer import Deferred

from darner.testing import MemoryQueueService


class Mailer:
    """The application: it sends a greeting now, and a reminder a day later."""

    def __init__(self, queues, sent):
        self.queues = queues
        self.sent = sent

    def welcome(self, name):
        self.queues.put(b"reminders", name, delay=86400)
        return self.queues.put(b"greetings", name)

    async def send_one(self, queue):
        async with await self.queues.open(queue, timeout=None) as read:
            self.sent.append((queue, read.payload))


class MailerTests(unittest.TestCase):
    def setUp(self):
        self.queues = MemoryQueueService()
        self.queues.startService()
        self.addCleanup(lambda: self.queues.result(self.queues.stopService()))
        self.sent = []
        self.mailer = Mailer(self.queues, self.sent)

    def test_greeting(self):
        self.queues.result(self.mailer.welcome(b"ann"))
        self.queues.result(Deferred.fromCoroutine(self.mailer.send_one(b"greetings")))
        self.assertEqual(self.sent, [(b"greetings", b"ann")])
        self.assertEqual(self.queues.count(b"greetings"), 0)

    def test_reminder(self):
        sending = Deferred.fromCoroutine(self.mailer.send_one(b"reminders"))
        self.queues.result(self.mailer.welcome(b"ann"))
        self.queues.clock.advance(86000)
        self.assertEqual(self.sent, [])
        self.queues.clock.advance(401)
        self.queues.result(sending)
        self.assertEqual(self.sent, [(b"reminders", b"ann")])

    def test_restart(self):
        self.queues.result(self.mailer.welcome(b"ann"))
        self.queues.result(self.queues.stopService())
        self.queues.startService()
        self.assertEqual(self.queues.count(b"greetings"), 1)


if __name__ == "__main__":
    report = io.StringIO()
    ran = unittest.TextTestRunner(report).run(unittest.defaultTestLoader.loadTestsFromTestCase(MailerTests))
    print("tests:", ran.testsRun, "failed:", len(ran.failures) + len(ran.errors))
