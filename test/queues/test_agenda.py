"""Tests of `darner.queues.agenda`."""

from __future__ import annotations

import random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from darner.queues.agenda import Agenda
from darner.queues.fifo import Fifo
from test.harness import Server

DAY = 24 * 3600 * 1000


class AgendaTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.agenda: Any = Agenda()
        queues = Server().queues
        self.fifos = [queues.make(b"q%d" % number) for number in range(300)]

    def take(self, now: int) -> list[Fifo]:
        return [fifo for queues in self.agenda.take(now) for fifo in queues]

    def test_every_queue_in_time(self) -> None:
        """If a queue that was taken too early is put again each time, it is never late."""
        chance = random.Random(5)
        dues = {fifo: chance.choice((10_000, DAY, 90 * DAY)) + chance.randrange(5000) for fifo in self.fifos}
        for fifo, due in dues.items():
            self.agenda.put(fifo, chance.randrange(1, 2 * DAY), 0)
            self.agenda.put(fifo, due, 0)
        looks = 0
        for now in sorted({*range(0, 20_000, 1000), *range(0, 91 * DAY, 1_000_000), *dues.values()}):
            for fifo in self.take(now):
                looks += 1
                self.agenda.discard(fifo)
                if dues[fifo] > now:
                    self.agenda.put(fifo, dues[fifo], now)
                else:
                    del dues[fifo]
            self.assertGreater(min(dues.values(), default=now + 1), now)
        self.assertEqual((dues, len(self.agenda)), ({}, 0))
        self.assertLess(looks, 20 * len(self.fifos))

    def test_few_times(self) -> None:
        """However many queues are due at different times, C{take} looks through few entries."""
        for number in range(100_000):
            self.agenda.put(self.fifos[number % 300], 1 + number * 400_000, 0)
        for number, fifo in enumerate(self.fifos):
            self.agenda.put(fifo, 1 + number * DAY, 0)
        self.assertEqual(len(self.agenda), 300)
        self.assertLess(len(self.agenda._due), 50)

    def test_discard(self) -> None:
        self.agenda.put(self.fifos[0], 5000, 0)
        self.agenda.put(self.fifos[1], 5001, 0)
        self.agenda.discard(self.fifos[0])
        self.agenda.discard(self.fifos[0])
        self.assertEqual((self.take(4999), self.take(5000), len(self.agenda)), ([], [self.fifos[1]], 1))
        self.agenda.discard(self.fifos[1])
        self.assertEqual((self.take(9999), len(self.agenda)), ([], 0))
