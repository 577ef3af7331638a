"""Items that are not to be had yet: `darner.queues.delayed`, seen through the server, over every store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from darner.config.policies import Policies, QueueSettings
from darner.errors import StoreError
from darner.front.memcache import END, STORED
from darner.queues.commit import RETRY
from darner.queues.delayed import BYTES_AT_ONCE, LONGEST, DelayedItems
from darner.store.leveldb import LevelStore, records
from darner.store.memory import MemoryStore
from darner.values.items import ITEM_OVERHEAD
from darner.values.vocabulary import CHUNK_BYTES
from test.harness import REFUSED, Server, from_source, value

LARGE = b"x" * (CHUNK_BYTES + 1)


class Base(SynchronousTestCase):
    settings: dict[str, Any] = {}

    def setUp(self) -> None:
        self.memory = MemoryStore()
        self.serve(self.memory)

    def serve(self, store: Any) -> None:
        self.server = Server(store, **self.settings)
        self.client = self.server.client()

    def restart(self, clean: bool = True) -> None:
        """Restart, after a clean stop or the end of the process."""
        if clean:
            self.server.stop()
        self.server.start()
        self.client = self.server.client()

    def all(self, queue: bytes = b"q") -> list[bytes]:
        """@return: what is to be had of a queue, which is taken."""
        taken = []
        while (reply := self.client.does(b"get " + queue)) != END:
            taken.append(reply.split(b"\r\n", 1)[1][: -len(b"\r\nEND\r\n")])
        return taken

    def figures(self, queue: bytes = b"q") -> tuple[int, int]:
        """@return: how many items are to be had, and how many are delayed."""
        figures = self.server.queues.queue_figures(queue)
        return figures["items"], figures["delayed"]

    def later(self, seconds: float) -> None:
        self.server.clock.advance(seconds)
        self.server.clock.pump([0] * 3)


class DelayTests(Base):
    """What a client sees."""

    def test_delay(self) -> None:
        self.assertEqual(self.client.sets(b"q/delay=500", b"late", flags=7), STORED)
        self.assertEqual(self.figures(), (0, 1))
        self.assertEqual(self.client.does(b"get q"), END)
        self.later(0.499)
        self.assertEqual(self.client.does(b"get q/peek"), END)
        self.later(0.002)
        self.assertEqual(self.figures(), (1, 0))
        self.assertEqual(self.client.does(b"get q"), value(b"q", b"late", 7))
        self.assertEqual(self.figures(), (0, 0))

    def test_never_early(self) -> None:
        """A delay counts from its set, even if the turn began earlier."""
        self.assertGreater(self.server.queues.commit.now, 0)
        self.server.clock.rightNow += 0.005
        self.assertEqual(self.client.sets(b"q/delay=500", b"late"), STORED)
        self.later(0.498)
        self.assertEqual(self.figures(), (0, 1))
        self.later(0.02)
        self.assertEqual(self.figures(), (1, 0))

    def test_to_the_end(self) -> None:
        """It is put after items that were put before it was due."""
        self.client.sets(b"q/delay=500", b"late")
        self.later(0.1)
        self.client.sets(b"q", b"early")
        self.later(0.5)
        self.client.sets(b"q", b"last")
        self.assertEqual(self.all(), [b"early", b"late", b"last"])

    def test_in_order_of_time(self) -> None:
        for place, delay in enumerate((300, 100, 200, 100, 300)):
            self.client.sets(b"q/delay=%d" % delay, b"%d.%d" % (delay, place))
        self.later(1)
        self.assertEqual(self.all(), [b"100.1", b"100.3", b"200.2", b"300.0", b"300.4"])

    def test_none(self) -> None:
        self.assertEqual(self.client.sets(b"q/delay=0", b"now"), STORED)
        self.assertEqual(self.figures(), (1, 0))

    def test_who_waits_is_served(self) -> None:
        self.client.sets(b"q/delay=500", b"late")
        waiter = self.server.client()
        waiter.does(b"get q/t=1000")
        self.later(0.4)
        self.assertEqual(waiter.hears(), b"")
        self.later(0.2)
        self.assertEqual(waiter.hears(), value(b"q", b"late"))

    def test_sync(self) -> None:
        self.assertEqual(self.client.sets(b"q/sync/delay=5", b"late"), STORED)
        self.assertTrue(self.server.store.writes[-1])

    def test_expiry(self) -> None:
        """It may expire before it becomes available."""
        self.client.sets(b"q/delay=5000", b"late", expiry=3)
        self.client.sets(b"q/delay=5000", b"later", expiry=8)
        self.later(5.1)
        self.assertEqual(self.all(), [b"later"])
        self.assertEqual(self.server.queues.queue_figures(b"q")["expired_items"], 1)

    def test_longest(self) -> None:
        self.assertEqual(self.client.sets(b"q/delay=999999999999999999", b"never"), STORED)
        self.later(10 * 365 * 24 * 3600)
        self.assertEqual(self.figures(), (0, 1))

    def test_counted(self) -> None:
        self.client.sets(b"q/delay=500", b"12345")
        figures = self.server.queues.queue_figures(b"q")
        self.assertEqual((figures["total_items"], figures["bytes"]), (1, 0))
        self.later(1)
        figures = self.server.queues.queue_figures(b"q")
        self.assertEqual((figures["total_items"], figures["bytes"]), (1, 5))
        self.assertEqual(self.server.queues.stats.total_items, 1)

    def test_one_call_of_the_clock(self) -> None:
        before = len(self.server.clock.getDelayedCalls())
        for delay in (5000, 3000, 4000):
            self.client.sets(b"q/delay=%d" % delay, b"x")
        self.assertEqual(len(self.server.clock.getDelayedCalls()), before + 1)

    def test_nothing_is_waited_for_in_the_end(self) -> None:
        self.client.sets(b"q/delay=300", b"x")
        self.client.sets(b"q/delay=700", b"y")
        for _ in range(40):
            self.server.clock.advance(0.1)
            if not (self.figures()[1] or self.server.queues.reclaimer.pending):
                break
        self.server.commit()  # the figures have to know what time it is
        self.assertEqual(self.server.clock.getDelayedCalls(), [])

    def test_clock_set_back(self) -> None:
        """The delay is measured by the wall clock, as items outlive the process."""
        self.client.sets(b"q/delay=500", b"late")
        self.server.set_by = -2
        self.later(1)
        self.assertEqual(self.figures(), (0, 1))
        self.client.sets(b"q/delay=500", b"first")
        self.later(1)
        self.assertEqual(self.figures(), (1, 1))
        self.later(1)
        self.assertEqual(self.all(), [b"first", b"late"])

    def test_clock_set_forward(self) -> None:
        """That is noticed after some time."""
        self.client.sets(b"q/delay=%d" % (10 * LONGEST * 1000), b"late")
        self.server.set_by = 20 * LONGEST
        self.later(LONGEST)
        self.assertEqual(self.all(), [b"late"])

    def test_clock_before_1970(self) -> None:
        """The store has no place for a negative time: the delay counts from 1970, and the turn is stored."""
        self.server.set_by = -1e10
        self.assertEqual(self.client.sets(b"q/delay=500", b"late"), STORED)
        self.assertEqual(self.figures(), (0, 1))
        self.server.set_by = 0
        self.later(1)
        self.assertEqual(self.all(), [b"late"])

    def test_flush(self) -> None:
        self.client.sets(b"q/delay=500", b"late")
        self.client.sets(b"q/delay=500", LARGE)
        self.client.does(b"flush q")
        self.assertEqual(self.figures(), (0, 0))
        self.client.does(b"flush q")
        self.client.sets(b"q/delay=600", b"new")
        self.later(1)
        self.assertEqual(self.all(), [b"new"])
        self.later(5)
        self.assertEqual((self.memory.chunks, self.memory.deleted), ({}, set()))

    def test_delete(self) -> None:
        self.client.sets(b"q/delay=500", b"late")
        self.client.does(b"delete q")
        self.client.sets(b"q", b"new")
        self.later(1)
        self.assertEqual(self.all(), [b"new"])
        self.later(5)
        self.assertEqual((self.memory.delays, self.memory.deleted), ({}, set()))

    def test_delete_at_once(self) -> None:
        self.client.set(b"q/delay=500", LARGE)
        self.client.does(b"delete q")
        self.later(5)
        self.assertEqual((self.memory.delays, self.memory.deleted, self.memory.chunks), ({}, set(), {}))
        self.assertEqual(self.server.queues.names(), [])

    def test_large(self) -> None:
        self.client.sets(b"q/delay=500", LARGE)
        self.later(1)
        self.assertEqual(self.all(), [LARGE])
        self.later(5)
        self.assertEqual((self.memory.chunks, self.memory.holders.get(1, set())), ({}, set()))

    @from_source
    def test_many(self) -> None:
        """No more than a bounded part of them is put in one turn."""
        count = 3 * BYTES_AT_ONCE // ITEM_OVERHEAD
        for number in range(count):
            self.client.set(b"q/delay=500", b"%d" % number)
        self.server.commit()
        self.client.hears()
        steps = []
        move = DelayedItems._move
        self.patch(DelayedItems, "_move", lambda delays: (steps.append(1), move(delays))[1])
        self.later(0.6)
        self.assertLess(3, len(steps))
        self.assertEqual(self.all(), [b"%d" % number for number in range(count)])


class RestartTests(Base):
    """Delayed items survive a restart."""

    def test_restart(self) -> None:
        for clean in (True, False):
            self.client.sets(b"q/delay=2000", b"two")
            self.client.sets(b"q/delay=1000", b"one")
            self.client.sets(b"q", b"zero")
            self.restart(clean)
            self.assertEqual(self.figures(), (1, 2))
            self.later(1.5)
            self.assertEqual(self.figures(), (2, 1))
            self.restart(clean)
            self.assertEqual(self.figures(), (2, 1))
            self.later(1)
            self.assertEqual(self.all(), [b"zero", b"one", b"two"])

    def test_due_meanwhile(self) -> None:
        self.client.sets(b"q/delay=1000", b"one")
        self.server.set_by = 5
        self.restart()
        self.later(0)
        self.assertEqual(self.all(), [b"one"])
        self.client.sets(b"q/delay=1000", b"two")
        self.restart()
        self.later(2)
        self.assertEqual(self.all(), [b"two"])

    def test_stop(self) -> None:
        """After a stop no timer is left, and no item is put that would not be written."""
        self.client.sets(b"q/delay=1000", b"one")
        self.server.clock.advance(0.999)
        clock = self.server.clock
        self.server.stop()
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_stop_while_it_is_due(self) -> None:
        self.client.sets(b"q/delay=1000", b"one")
        fifo = self.server.queues.find(b"q")
        assert fifo is not None
        self.server.clock.rightNow += 2
        fifo.storage.sides.delays._wake()  # type: ignore[union-attr]
        fifo.stop()
        self.server.commit()
        self.assertEqual(self.figures(), (0, 1))

    def test_missing(self) -> None:
        """Records are missing, which happens only in a damaged store; the other items are served."""
        self.client.sets(b"q/delay=1000", b"one")
        self.memory.delays.clear()
        self.restart()
        self.later(2)
        self.assertEqual(self.figures(), (0, 0))
        self.assertEqual(len(self.flushLoggedErrors()), 0)
        self.client.sets(b"q/delay=1000", b"two")
        self.later(2)
        self.assertEqual(self.all(), [b"two"])

    def test_nothing_left(self) -> None:
        self.client.sets(b"q/delay=1000", b"one")
        self.later(2)
        self.restart()
        self.assertEqual(self.all(), [b"one"])
        self.assertEqual(self.figures(), (0, 0))


class FaultTests(Base):
    """When the store refuses."""

    def test_refused(self) -> None:
        self.server.store.full = True
        self.assertEqual(self.client.sets(b"q/delay=500", b"late"), REFUSED)
        self.assertEqual(self.client.sets(b"q/delay=500", LARGE), REFUSED)
        self.server.store.full = False
        self.later(2)
        self.assertEqual(self.server.queues.queue_figures(b"q"), {})
        self.assertEqual(self.client.sets(b"q/delay=500", b"again"), STORED)
        self.assertEqual(self.figures(), (0, 1))
        self.later(2)
        self.assertEqual(self.all(), [b"again"])

    def test_refused_beside_another(self) -> None:
        """A new queue is kept for items that were put while its creation was refused."""
        self.server.holding = True
        self.client.set(b"q/sync/delay=500", b"refused")
        self.server.commit()
        other = self.server.client()
        other.set(b"q/delay=500", b"kept")
        self.server.commit()
        self.server.store.full = True
        self.server.held[0] = (*self.server.held[0][:1], self._refuse, ())
        self.server.store.full = False
        self.server.release()
        self.assertEqual(self.client.hears(), REFUSED)
        self.assertEqual(other.hears(), STORED)
        self.later(2)
        self.assertEqual(self.all(), [b"kept"])

    def _refuse(self) -> None:
        self.server.store._unless(True, "no room")

    def test_numberless(self) -> None:
        self.client.sets(b"q", b"one")
        self.server.store.numberless = True
        self.assertEqual(self.client.sets(b"q/delay=500", b"late"), b"SERVER_ERROR no numbers\r\n")
        self.assertEqual(self.figures(), (1, 0))

    def test_due_while_full(self) -> None:
        """It stays delayed until the disk has space."""
        self.client.sets(b"q/delay=500", b"late")
        self.client.sets(b"q/delay=600", LARGE)
        self.server.store.full = True
        self.later(1)
        self.assertEqual(self.client.does(b"get q"), END)
        self.assertEqual(self.figures(), (0, 2))
        self.restart()
        self.later(3 * RETRY)
        self.assertEqual(self.figures(), (0, 2))
        self.server.store.full = False
        self.later(3 * RETRY)
        self.assertEqual(self.all(), [b"late", LARGE])

    def test_handed_out_while_full(self) -> None:
        """The client that waited for it gets an error."""
        self.client.sets(b"q/delay=500", b"late")
        waiter = self.server.client()
        waiter.does(b"get q/t=5000")
        self.server.store.full = True
        self.later(1)
        self.assertEqual(waiter.hears(), REFUSED)
        self.server.store.full = False
        self.later(3 * RETRY)
        self.assertEqual(self.all(), [b"late"])

    def test_unreadable(self) -> None:
        self.client.sets(b"q/delay=500", b"late")
        self.server.store.unreadable = True
        self.later(1)
        self.assertEqual(self.figures(), (0, 1))
        self.server.store.unreadable = False
        self.later(RETRY)
        self.assertEqual(self.all(), [b"late"])

    def test_flush_while_broken(self) -> None:
        """The flush stays in effect, and items put after it are not lost."""
        self.client.sets(b"q/delay=500", b"late")
        self.server.store.broken = 2
        self.client.does(b"flush q")
        self.assertEqual(self.figures(), (0, 0))
        self.later(RETRY)
        self.client.sets(b"q/delay=500", b"new")
        self.restart(clean=False)
        self.assertEqual(self.figures(), (0, 1))
        self.later(5)
        self.assertEqual(self.all(), [b"new"])

    def test_delete_while_broken(self) -> None:
        """It is tried again after a pause, not all the time."""
        self.client.sets(b"q/delay=500", b"late")
        self.server.store.broken = 10
        self.client.does(b"delete q")
        self.assertEqual(self.server.store.broken, 8)
        self.server.clock.pump([RETRY] * 10)
        self.restart(clean=False)
        self.later(5)
        self.assertEqual((self.memory.delays, self.memory.deleted), ({}, set()))

    def test_flush_while_its_put_is_refused(self) -> None:
        self.client.sets(b"q/delay=500", b"late")
        self.server.store.full = True
        self.client.set(b"q/delay=500", b"refused")
        self.client.does(b"flush q")
        self.server.store.full = False
        self.restart(clean=False)
        self.assertEqual(self.figures(), (0, 0))

    def test_killed_behind_a_refused_write(self) -> None:
        """Items that were put or came due since are not counted as if they were written."""
        self.client.sets(b"q/delay=500", b"one")
        self.client.sets(b"q/delay=90000", b"two")
        self.server.holding = True
        self.client.set(b"r/sync", b"x")
        self.later(1)
        self.client.set(b"q/delay=500", b"three")
        self.server.store.full = True
        self.server.release()
        self.restart(clean=False)
        self.server.store.full = False
        self.assertEqual(self.figures(), (0, 2))
        self.later(100)
        self.assertEqual(self.all(), [b"one", b"two"])

    def test_put_while_the_last_turn_is_written(self) -> None:
        """Of the items that are not written yet, the one that is due first comes first."""
        self.client.sets(b"q/delay=1500", b"second")
        self.client.sets(b"q/delay=100", b"zeroth")
        self.server.holding = True
        self.client.set(b"r/sync", b"x")
        self.server.commit()
        other = self.server.client()
        other.set(b"q/delay=1000", b"first")
        self.later(2)
        self.assertEqual(self.figures(), (0, 3))
        self.server.holding = False
        self.server.release()
        self.later(1)
        self.client.hears()
        self.assertEqual(self.all(), [b"zeroth", b"first", b"second"])


class UncertainTests(Base):
    """A write that is reported as failed was made all the same: the next write must be right in both cases."""

    def doubt(self) -> None:
        self.server.store.doubtful = 1

    def gone(self) -> None:
        """Check that no records are left of items that are gone."""
        self.later(10)
        self.assertEqual((self.client.does(b"flush q"), self.figures()), (END, (0, 0)))
        self.later(10)
        self.assertEqual((self.memory.chunks, self.memory.unheld, self.memory.deleted), ({}, set(), set()))
        self.assertEqual([holders for holders in self.memory.holders.values() if holders], [])

    def test_put(self) -> None:
        for payload in (b"late", LARGE):
            self.client.sets(b"q/delay=1000", b"other")
            self.doubt()
            self.assertEqual(self.client.sets(b"q/sync/delay=500", payload), REFUSED)
            self.assertEqual(self.figures(), (0, 1))
            self.later(2)
            self.assertEqual(self.all(), [b"other"])
            self.restart(clean=False)
            self.assertEqual(self.figures(), (0, 0))
        self.gone()

    def test_put_with_an_id(self) -> None:
        self.server.queues.apply(Policies(QueueSettings(dedupe_window=100)))
        self.doubt()
        self.assertEqual(self.client.sets(b"q/delay=500/id=a", b"once"), REFUSED)
        self.assertEqual(self.client.sets(b"q/delay=500/id=a", b"once"), STORED)
        self.later(2)
        self.assertEqual(self.all(), [b"once"])

    def test_put_that_cannot_be_corrected(self) -> None:
        """The correction fails too; meanwhile no client gets the item."""
        self.client.sets(b"q/delay=1000", b"other")
        self.doubt()
        self.client.set(b"q/delay=500", b"late")
        self.server.store.doubtful = 2
        self.server.commit()
        self.assertEqual(self.client.hears(), REFUSED)
        self.later(0.9)
        self.assertEqual(self.figures()[0], 0)
        self.later(3)
        self.assertEqual(self.all(), [b"other"])

    def test_come_due(self) -> None:
        for payload in (b"late", LARGE):
            for again in (1, 2):
                self.client.sets(b"q/delay=2000", payload)
                self.later(1.9)
                self.server.store.doubtful = again
                self.later(0.2)
                self.assertLess(self.server.store.doubtful, again)
                self.restart(clean=False)
                self.later(3)
                self.assertEqual(self.all(), [payload])
        self.gone()

    def test_come_due_later(self) -> None:
        """Without a restart."""
        for payload in (b"late", LARGE):
            for again in (1, 2):
                self.client.sets(b"q/delay=2000", payload)
                self.later(1.9)
                self.server.store.doubtful = again
                self.server.clock.pump([0.2] * 20)
                self.assertEqual(self.all(), [payload])
        self.gone()

    def test_flush(self) -> None:
        self.client.sets(b"q/delay=1000", LARGE)
        self.doubt()
        self.client.set(b"q/delay=500", LARGE)
        self.client.does(b"flush q")
        self.later(2)
        self.assertEqual(self.figures(), (0, 0))
        self.gone()

    @from_source
    def test_while_unreadable(self) -> None:
        """A put does not make the server try again at once."""
        self.client.sets(b"q/delay=1", b"one")
        self.server.store.unreadable = True
        tries = []
        move = DelayedItems._move
        self.patch(DelayedItems, "_move", lambda delays: (tries.append(1), move(delays))[1])
        for _ in range(20):
            self.client.sets(b"q/delay=1", b"more")
            self.later(0.01)
        self.assertEqual(len(tries), 1)
        self.server.store.unreadable = False
        self.client.does(b"flush q")
        self.client.sets(b"q/delay=1", b"new")
        self.later(0.1)
        self.assertEqual(self.all(), [b"new"])


class PolicyTests(Base):
    """Together with the other settings."""

    def apply(self, **settings: Any) -> None:
        self.server.queues.apply(Policies(QueueSettings(**settings)))

    def test_default_delay(self) -> None:
        self.apply(default_delay=0.5)
        self.client.sets(b"q", b"late")
        self.client.sets(b"q/delay=0", b"now")
        self.client.sets(b"q/delay=700", b"latest")
        self.assertEqual(self.all(), [b"now"])
        self.later(0.6)
        self.assertEqual(self.all(), [b"late"])
        self.apply()
        self.client.sets(b"q", b"now")
        self.later(0.6)
        self.assertEqual(self.all(), [b"now", b"latest"])

    def test_sync(self) -> None:
        self.apply(sync="always")
        self.assertEqual(self.client.sets(b"q/delay=500", b"late"), STORED)
        self.assertEqual(self.server.store.writes[-1:], [True])

    def test_limits(self) -> None:
        """Delayed items count towards the limits."""
        self.apply(max_items=2)
        self.client.sets(b"q/delay=500", b"late")
        self.client.sets(b"q", b"one")
        for queue in (b"q", b"q/delay=500"):
            self.assertEqual(self.client.sets(queue, b"two"), b"NOT_STORED\r\n")
        self.later(1)
        self.assertEqual(self.client.sets(b"q", b"two"), b"NOT_STORED\r\n")
        self.assertEqual(self.all(), [b"one", b"late"])

    def test_limit_of_bytes(self) -> None:
        self.apply(max_bytes=10)
        self.client.sets(b"q/delay=500", b"123456")
        self.assertEqual(self.client.sets(b"q", b"12345"), b"NOT_STORED\r\n")
        self.assertEqual(self.client.sets(b"q", b"1234"), STORED)

    def test_discard_old_when_full(self) -> None:
        """Only available items are dropped to make space."""
        self.apply(max_items=2, discard_old_when_full=True)
        self.client.sets(b"q", b"one")
        self.client.sets(b"q", b"two")
        self.assertEqual(self.client.sets(b"q/delay=500", b"late"), STORED)
        self.assertEqual(self.figures(), (1, 1))
        self.assertEqual(self.client.sets(b"q/delay=500", b"later"), STORED)
        self.assertEqual(self.figures(), (0, 2))
        for queue in (b"q", b"q/delay=500"):
            self.assertEqual(self.client.sets(queue, b"three"), b"NOT_STORED\r\n")
        self.later(1)
        self.assertEqual(self.client.sets(b"q", b"three"), STORED)
        self.assertEqual(self.all(), [b"later", b"three"])

    def test_lower_limit(self) -> None:
        """If there is nothing to drop, the sweep ends."""
        self.apply(discard_old_when_full=True)
        for _ in range(3):
            self.client.sets(b"q/delay=500", b"late")
        self.apply(max_items=2, discard_old_when_full=True)
        self.assertEqual(self.client.sets(b"q", b"x"), b"NOT_STORED\r\n")
        self.assertEqual(len(self.server.clock.getDelayedCalls()), 1)

    def test_fan_out(self) -> None:
        for child in (b"q+a", b"q+b"):
            self.client.does(b"get " + child)
        self.client.sets(b"q/delay=500", LARGE)
        self.assertEqual([self.figures(name) for name in (b"q", b"q+a", b"q+b")], [(0, 1)] * 3)
        self.assertEqual(len(self.memory.chunks), 1)
        self.later(1)
        self.assertEqual([self.all(name) for name in (b"q", b"q+a", b"q+b")], [[LARGE]] * 3)
        self.later(5)
        self.assertEqual((self.memory.chunks, self.memory.holders.get(1, set())), ({}, set()))

    def test_fan_out_to_who_delays(self) -> None:
        self.server.queues.apply(Policies(overrides={"q+late": {"default_delay": 0.5}}))
        self.client.does(b"get q+late")
        self.client.sets(b"q", LARGE)
        self.assertEqual((self.all(), self.all(b"q+late")), ([LARGE], []))
        self.later(2)
        self.assertEqual(self.all(b"q+late"), [LARGE])

    def test_queue_that_ends(self) -> None:
        """It is not empty."""
        self.apply(max_queue_age=5)
        self.client.sets(b"q/delay=9000", b"late")
        self.server.clock.pump([1] * 8)
        self.assertEqual(self.figures(), (0, 1))
        self.server.clock.pump([1] * 2)
        self.assertEqual(self.all(), [b"late"])
        self.server.clock.pump([1] * 3)
        self.assertEqual(self.server.queues.names(), [])

    def test_max_age_begins_when_it_is_due(self) -> None:
        self.apply(max_age=1)
        self.client.sets(b"q/delay=5000", b"late")
        self.later(5.5)
        self.assertEqual(self.all(), [b"late"])

    def test_fan_out_without_numbers(self) -> None:
        """All of it is refused, or nothing."""
        self.server.queues.apply(Policies(overrides={"q+late": {"default_delay": 0.5}}))
        self.client.does(b"get q+late")
        self.client.sets(b"q/delay=0", b"one")
        self.client.does(b"flush q+late")
        self.server.store.numberless = True
        for payload in (b"two", LARGE):
            self.assertEqual(self.client.sets(b"q", payload), b"SERVER_ERROR no numbers\r\n")
        self.assertEqual([self.figures(name) for name in (b"q", b"q+late")], [(1, 0), (0, 0)])
        self.server.store.numberless = False
        self.later(3)
        self.assertEqual(self.client.sets(b"q", b"two"), STORED)
        self.assertEqual([self.figures(name) for name in (b"q", b"q+late")], [(2, 0), (0, 1)])
        self.assertEqual(self.memory.chunks, {})

    def test_with_an_id(self) -> None:
        """The id is known from the set on, not from when the item is due."""
        self.apply(dedupe_window=10)
        self.server.store.full = True
        self.assertEqual(self.client.sets(b"q/delay=5000/id=a", b"late"), REFUSED)
        self.server.store.full = False
        self.later(3)
        for _ in range(2):
            self.assertEqual(self.client.sets(b"q/delay=5000/id=a", b"late"), STORED)
        self.later(6)
        self.assertEqual(self.client.sets(b"q/id=a", b"late"), STORED)
        self.assertEqual(self.all(), [b"late"])
        self.later(5)
        self.assertEqual(self.client.sets(b"q/id=a", b"again"), STORED)
        self.assertEqual(self.all(), [b"again"])

    def test_with_an_id_of_a_turn_that_is_refused(self) -> None:
        self.apply(dedupe_window=10)
        self.server.holding = True
        self.client.set(b"q/delay=500/id=a/sync", b"late")
        self.server.commit()
        other = self.server.client()
        other.set(b"q/id=a", b"late")
        self.server.commit()
        self.server.store.full = True
        self.server.release()
        self.server.holding = False
        self.assertEqual((self.client.hears(), other.hears()), (REFUSED, REFUSED))

    def test_requeue_takes_what_is_to_be_had(self) -> None:
        self.client.sets(b"q/delay=500", b"late")
        self.client.sets(b"q", b"one")
        self.client.does(b"requeue q r")
        self.assertEqual((self.all(b"r"), self.figures()), ([b"one"], (0, 1)))


class VolatileTests(DelayTests):
    """The same for volatile queues; large items are on disk as long as a queue or a reader has them."""

    settings = {"durable": False, "max_bytes": 10_000_000}

    def tearDown(self) -> None:
        self.client.does(b"flush_all")
        self.later(5)
        self.assertEqual((self.memory.chunks, self.memory.unheld, self.memory.delays), ({}, set(), {}))
        self.assertEqual(self.server.queues.reclaimer._pins, {})

    def test_large_while_it_waits(self) -> None:
        self.client.sets(b"q/delay=5000", LARGE)
        self.later(3)
        self.assertEqual(len(self.memory.chunks), 1)
        self.later(3)
        self.assertEqual(self.all(), [LARGE])

    def test_while_the_disk_is_broken(self) -> None:
        """A broken disk does not affect volatile queues."""
        self.client.sets(b"q/delay=500", b"late")
        self.server.queues.commit.trouble(StoreError("broken"))
        self.server.store.unmendable = True
        self.later(1)
        self.assertEqual(self.all(), [b"late"])
        self.server.store.unmendable = False
        self.later(2)

    def test_large_that_is_refused(self) -> None:
        self.client.set(b"q/delay=500", LARGE)
        self.client.set(b"q/delay=500", b"small")
        self.server.store.full = True
        self.server.commit()
        self.assertEqual(self.client.hears(), REFUSED * 2)
        self.server.store.full = False
        self.later(2)
        self.assertEqual(self.all(), [])

    def test_large_that_comes_due_while_full(self) -> None:
        """In a turn with something for the disk both are refused; the item is still to come."""
        self.client.sets(b"q/delay=500", LARGE)
        self.server.queues.apply(Policies(overrides={"disk": {"durable": True}}, defaults=QueueSettings(durable=False)))
        self.server.clock.rightNow += 1
        self.server.store.full = True
        fifo = self.server.queues.find(b"q")
        assert fifo is not None
        fifo.storage.sides.delays._wake()  # type: ignore[union-attr]
        self.client.set(b"disk", b"x")
        self.server.commit()
        self.server.store.full = False
        self.later(3 * RETRY)
        self.client.hears()
        self.assertEqual(self.all(), [LARGE])

    def test_due_while_the_disk_takes_nothing(self) -> None:
        """An item of a volatile queue comes due without the disk."""
        self.server.queues.apply(Policies(overrides={"disk": {"durable": True}}, defaults=QueueSettings(durable=False)))
        self.client.sets(b"q/delay=500", b"late")
        self.server.store.full = self.server.store.unmendable = True
        self.assertEqual(self.client.sets(b"disk", b"x"), REFUSED)
        self.client.ask(b"get q/t=2000")
        self.later(0.6)
        self.assertEqual(self.client.hears(), value(b"q", b"late"))

    def test_delete_of_a_large_one(self) -> None:
        self.client.sets(b"q/delay=500", LARGE)
        self.client.does(b"delete q")
        self.later(2)
        self.assertEqual(self.memory.chunks, {})

    def test_limit(self) -> None:
        """Delayed items count towards the limit, as they take memory too."""
        self.server.queues.apply(Policies(QueueSettings(durable=False, max_bytes=2 * ITEM_OVERHEAD)))
        for reply in (STORED, STORED, b"NOT_STORED\r\n"):
            self.assertEqual(self.client.sets(b"q/delay=500", b""), reply)
        self.server.queues.apply(
            Policies(QueueSettings(durable=False, max_bytes=2 * ITEM_OVERHEAD, discard_old_when_full=True))
        )
        self.assertEqual(self.client.sets(b"q", b""), b"NOT_STORED\r\n")
        self.later(1)
        self.assertEqual(self.client.sets(b"q", b""), STORED)
        self.assertEqual(self.figures(), (2, 0))

    def test_numberless(self) -> None:
        """A volatile queue needs no numbers from the store on disk."""
        self.server.store.numberless = True
        self.assertEqual(self.client.sets(b"q/delay=500", b"late"), STORED)
        self.later(1)


class LevelDelayTests(DelayTests):
    """The same over LevelDB."""

    def setUp(self) -> None:
        self.level = LevelStore(Path(self.mktemp()))
        self.memory = MemoryStore()  # nothing is there
        self.serve(self.level)

    def left(self) -> list[bytes]:
        """@return: what there is beside the format and the counters, the queues and their ends, and notes of room."""
        with self.level._database.iterator(include_value=False) as keys:
            return [key for key in keys if key[:1] in b"CSDH" or key[9:10] == b"\4"]

    def tearDown(self) -> None:
        self.client.does(b"flush_all")
        self.later(5)
        kept = [key for key in self.left() if len(key) > 10]
        self.level.close()
        self.assertEqual(kept, [])


class LevelRestartTests(RestartTests):
    def setUp(self) -> None:
        self.level = LevelStore(Path(self.mktemp()))
        self.addCleanup(lambda: self.level.close())
        self.memory = MemoryStore()
        self.serve(self.level)

    def restart(self, clean: bool = True) -> None:
        if clean:
            self.server.stop()
        self.level.close()
        self.level = self.server.store.store = LevelStore(self.level.path)
        super().restart(False)

    def test_missing(self) -> None:
        self.client.sets(b"q/delay=1000", b"one")
        (key,) = (key for key, _ in self.level._database.prefixed(b"Q") if records.is_delayed(key))
        self.level._database.write([(key, None)])
        self.restart()
        self.later(2)
        self.assertEqual(self.figures(), (0, 0))
