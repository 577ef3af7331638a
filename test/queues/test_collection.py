"""All queues of a server: `darner.queues.collection`."""

from __future__ import annotations

import gc
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from darner.config.policies import Policies, QueueSettings
from darner.errors import ItemTooLarge
from darner.front import memcache
from darner.queues.collection import Queues
from darner.queues.fifo import Fifo
from darner.store.interfaces import IStore
from darner.store.leveldb import LevelStore
from test.harness import EPOCH, REFUSED, Asker, FaultyStore, Server, value

YEAR = 365 * 24 * 3600


class QueuesTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = Server()
        self.client = self.server.client()

    def restart(self) -> None:
        self.client.leave()
        self.server.restart()
        self.client = self.server.client()


class NamesTests(QueuesTestCase):
    def test_a_first_set_makes_a_queue(self) -> None:
        self.assertEqual(self.server.queues.names(), [])
        for name in (b"b", b".", b"a:1"):
            self.client.sets(name, b"1")
        self.assertEqual(self.server.queues.names(), [b".", b"a:1", b"b"])
        self.assertEqual(self.server.queues.queue_figures(b"none"), {})

    def test_they_are_found_again(self) -> None:
        self.client.sets(b"empty", b"1")
        self.client.does(b"get empty")
        self.client.sets(b"full", b"12")
        self.restart()
        self.assertEqual(self.server.queues.names(), [b"empty", b"full"])
        self.assertEqual(self.server.figures(b"empty"), (0, 0))
        self.assertEqual(self.server.figures(b"full"), (1, 2))
        self.assertEqual(self.server.queues.figures("")["queue_creates"], 0)

    def test_a_queue_that_nobody_knows_any_more_takes_no_memory(self) -> None:
        self.client.sets(b"q", b"1")
        self.assertEqual(len(self.fifos()), 1)
        self.client.does(b"delete q")
        self.server.clock.advance(1)
        self.assertIsNone(self.server.queues.find(b"q"))
        self.assertEqual(self.fifos(), [])

    def test_memory_is_free_at_once(self) -> None:
        """Without the garbage collector, which would run late; also after clients had items of the queue."""
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        reader = self.server.client()
        for number in range(20):
            name = b"q%d" % number
            self.client.sets(name, b"x" * 2000)
            reader.does(b"get " + name + b"/open")
            self.client.sets(name, b"2", expiry=3)
            reader.does(b"get waited%d/t=1" % number)
            self.client.does(b"delete " + name)
            self.server.clock.advance(10)
        reader.does(b"get q3/close")
        reader.leave()
        self.server.clock.advance(10)
        alive = [found for found in gc.get_objects() if isinstance(found, Fifo)]
        self.assertEqual([fifo.name for fifo in alive if fifo._commit is self.server.queues.commit], [b""])

    def fifos(self) -> list[Fifo]:
        """@return: the objects of this server's queues that are in memory, whoever has them."""
        gc.collect()
        alive = [found for found in gc.get_objects() if isinstance(found, Fifo)]
        return [fifo for fifo in alive if fifo.name and fifo._commit is self.server.queues.commit]

    def test_that_cannot_be_made(self) -> None:
        """A queue that cannot be created leaves no object behind, whatever names are tried."""
        self.server.store.full = True
        for number in range(5):
            for name in (b"q%d" % number, b"parent+%d" % number):
                self.assertEqual(self.client.sets(name, b"x"), REFUSED)
        self.assertEqual(self.server.queues._fifos, {})
        self.server.store.full = False
        self.assertEqual(self.client.sets(b"parent", b"y"), memcache.STORED)
        self.assertEqual(self.server.queues.names(), [b"parent"])

    def test_delete_behind_a_read_of_what_is_refused(self) -> None:
        """The client that read the item gets an error if its put is refused, though the queue is deleted meanwhile."""
        for ahead in (b"", b"/sync"):
            self.client.sets(b"q", b"a")
            self.client.does(b"get q")
            self.client.set(b"q" + ahead, b"x")
            self.client.ask(b"get q")
            self.client.ask(b"delete q")
            self.client.set(b"q", b"y")
            self.client.ask(b"get q")
            self.server.store.broken = 1
            self.server.commit()
            self.assertEqual(self.client.hears(), REFUSED * 2 + memcache.DELETED + REFUSED * 2)
            self.assertEqual(self.client.does(b"get q"), memcache.END)

    def test_delete_while_a_put_is_written(self) -> None:
        self.client.sets(b"q", b"a")
        self.client.does(b"get q")
        self.server.holding = True
        self.client.set(b"q/sync", b"x")
        self.server.commit()
        other = self.server.client()
        other.ask(b"get q")
        other.ask(b"delete q")
        self.server.commit()
        self.server.store.broken = 1
        self.server.release()
        self.assertEqual((self.client.hears(), other.hears()), (REFUSED, REFUSED + memcache.DELETED))

    def test_delete_and_make_again(self) -> None:
        self.client.sets(b"q", b"1")
        self.client.ask(b"delete q")
        self.assertEqual(self.client.sets(b"q", b"2"), memcache.DELETED + memcache.STORED)
        self.assertEqual(self.client.does(b"get q"), value(b"q", b"2"))
        self.restart()
        self.assertEqual(self.server.queues.names(), [b"q"])

    def test_released_twice(self) -> None:
        """A queue that was created under the name in between stays."""
        queues = self.server.queues
        old = queues.make(b"q")
        queues.release(old)
        Asker(queues).put(b"q", b"1")
        queues.release(old)
        self.assertEqual(queues.names(), [b"q"])

    def test_delete_and_flush_take_no_longer_for_a_long_queue(self) -> None:
        """One write, and not one item is read."""
        store = self.server.store
        for line in (b"delete q", b"flush q", b"flush_all"):
            for number in range(500):
                self.client.set(b"q", b"%d" % number)
            self.server.commit()
            before = len(store.writes), len(store.reads)
            self.client.ask(line)
            self.server.queues.commit.end()
            self.assertEqual((len(store.writes), len(store.reads)), (before[0] + 1, before[1]), line)
            self.assertEqual(self.server.queues.queue_figures(b"q").get("items", 0), 0)


class LimitTests(SynchronousTestCase):
    """C{max_queues}."""

    def setUp(self) -> None:
        self.server = Server(make=partial(Queues, max_queues=3))
        self.client = self.server.client()

    def test_one_too_many(self) -> None:
        refused = b"SERVER_ERROR too many queues: max_queues is 3\r\n"
        for name in (b"a", b"a+b", b"c"):
            self.assertEqual(self.client.sets(name, b"x"), memcache.STORED)
        self.assertEqual(self.client.sets(b"d", b"x"), refused)
        self.assertEqual(self.client.does(b"get a+e"), refused)
        self.assertEqual(self.client.does(b"get c a+e"), value(b"c", b"x", end=refused))
        self.assertEqual(self.server.queues.names(), [b"a", b"a+b", b"c"])
        self.assertEqual(self.client.sets(b"a", b"y"), memcache.STORED)
        self.assertEqual(self.client.does(b"get d"), memcache.END)
        self.assertTrue(self.server.queues.health().writable)
        self.client.does(b"delete c")
        self.assertEqual(self.client.sets(b"d", b"x"), memcache.STORED)

    def test_children(self) -> None:
        """C{max_children}: those of one queue are bounded, and count where they exist."""
        self.server = Server(make=partial(Queues, max_children=2))
        client = self.client = self.server.client()
        refused = b"SERVER_ERROR queue a has too many children: max_children is 2\r\n"
        for name in (b"a", b"a+1", b"b", b"b+1", b"b+2"):
            self.assertEqual(client.sets(name, b"x"), memcache.STORED)
        self.assertEqual(client.does(b"get a+2"), memcache.END)
        self.assertEqual(client.sets(b"a+3", b"x"), refused)
        for read in (b"get a+3", b"get a+3/t=10", b"monitor a+3 0"):
            self.assertEqual(client.does(read), refused)
        self.assertEqual(client.sets(b"a", b"y"), memcache.STORED)
        self.assertEqual(self.server.queues.names(), [b"a", b"a+1", b"a+2", b"b", b"b+1", b"b+2"])
        client.does(b"delete a+1")
        self.assertEqual(client.sets(b"a+3", b"x"), memcache.STORED)

    def test_more_are_recovered(self) -> None:
        """Existing queues are kept, even if C{max_queues} is lower now."""
        for name in (b"a", b"b", b"c"):
            self.client.sets(name, b"x")
        self.server._make = partial(Queues, max_queues=1)
        self.server.start()
        self.client = self.server.client()
        self.assertEqual(self.server.queues.names(), [b"a", b"b", b"c"])
        self.assertEqual(self.client.sets(b"c", b"y"), memcache.STORED)
        self.assertEqual(self.client.sets(b"d", b"y"), b"SERVER_ERROR too many queues: max_queues is 1\r\n")

    def test_where_dead_letters_go(self) -> None:
        """They stay where they are until the queue may be created."""
        self.server.queues.apply(Policies(QueueSettings(max_attempts=1, dead_letter_queue="dead")))
        for name in (b"a", b"b", b"c"):
            self.client.sets(name, b"x")
        self.client.does(b"get a/open")
        self.client.does(b"get a/abort")
        self.assertEqual(self.server.figures(b"a"), (1, 1))
        self.client.does(b"delete b")
        self.server.clock.pump([1] * 60)
        self.assertEqual(self.server.queues.names(), [b"a", b"c", b"dead"])


class PutTests(QueuesTestCase):
    def test_over_the_limit(self) -> None:
        server = Server(max_item_bytes=3)
        Asker(server.queues).put(b"q", b"123")
        self.assertRaises(ItemTooLarge, Asker(server.queues).put, b"q", b"1234")
        self.assertEqual(server.queues.figures("")["total_items"], 1)

    def test_expiry(self) -> None:
        for expiry, seconds in ((1, 1), (999_999, 999_999), (EPOCH + YEAR, YEAR)):
            server = Server()
            client = server.client()
            client.sets(b"q", b"1", expiry=expiry)
            client.sets(b"q", b"2", expiry=expiry)
            client.sets(b"q", b"3")
            server.clock.advance(seconds - 0.5)
            self.assertEqual(client.does(b"get q"), value(b"q", b"1"))
            server.clock.advance(0.5)
            self.assertEqual(client.does(b"get q"), value(b"q", b"3"))
            self.assertEqual(server.queues.queue_figures(b"q")["expired_items"], 1)

    def test_expired_already(self) -> None:
        for expiry in (-1, EPOCH - 1):
            self.client.sets(b"q", b"1", expiry=expiry)
            self.assertEqual(self.client.does(b"get q"), memcache.END)

    def test_expiry_survives_a_restart(self) -> None:
        self.client.sets(b"q", b"1", expiry=5)
        self.restart()
        self.server.clock.advance(5)
        self.assertEqual(self.client.does(b"get q"), memcache.END)


class FiguresTests(QueuesTestCase):
    def test_of_a_queue(self) -> None:
        client = self.client
        self.server.clock.advance(1)
        for payload in (b"1", b"12", b"123"):
            client.sets(b"q", payload)
        self.server.clock.advance(2.5)
        client.does(b"get q/open")
        client.does(b"get q/abort")
        client.does(b"get q/open")
        client.does(b"get q/peek")
        expected = {
            "items": 2, "bytes": 5, "total_items": 3, "expired_items": 0, "discarded": 0, "waiters": 0,
            "open_transactions": 1, "transactions": 2, "canceled_transactions": 1, "set_aside": 0, "dead": 0,
            "total_flushes": 0, "age_msec": 2500, "oldest_msec": 2500, "create_time": (EPOCH + 1) * 1000,
        }  # fmt: skip
        self.assertLessEqual(expected.items(), self.server.queues.queue_figures(b"q").items())
        client.does(b"flush q")
        figures = self.server.queues.queue_figures(b"q")
        self.assertEqual((figures["items"], figures["total_flushes"], figures["age_msec"]), (0, 1, 0))

    def test_of_those_who_wait_for_a_queue_that_does_not_exist(self) -> None:
        """Waiting clients are counted in all figures, but the queue is not created."""
        queues = self.server.queues
        self.client.sets(b"other", b"x")
        waiting = self.server.client()
        waiting.ask(b"get jobs/t=1000")
        several = self.server.client()
        several.ask(b"get jobs more/t=1000")
        watching = self.server.client()
        watching.ask(b"monitor jobs 10")
        self.assertEqual((queues.names(), queues.stats.queue_creates), ([b"other"], 1))
        self.assertEqual(queues.figures("")["waiters"], 4)
        figures = queues.queue_figures(b"jobs")
        self.assertEqual((figures["waiters"], figures["items"], figures["create_time"]), (3, 0, 0))
        self.assertEqual(figures.keys(), queues.queue_figures(b"other").keys())
        stats = self.client.does(b"stats")
        for line in (b"waiters 4", b"queue_jobs_waiters 3", b"queue_more_waiters 1", b"queue_other_waiters 0"):
            self.assertIn(b"STAT %b\r\n" % line, stats)
        dump = self.client.does(b"dump_stats")
        self.assertEqual(self.client.does(b"dump_stats jobs more other"), dump)
        self.assertRegex(dump, rb"(?s)queue 'jobs' {.*  waiters=3.*queue 'more' {.*queue 'other' {")
        self.assertNotIn(b"jobs", self.client.does(b"dump_config"))
        self.client.sets(b"jobs", b"1")
        self.assertEqual((queues.figures("")["waiters"], queues.queue_figures(b"jobs")["waiters"]), (3, 2))
        several.leave()
        watching.leave()
        self.client.does(b"delete jobs")
        self.assertEqual((queues.figures("")["waiters"], queues.names()), (0, [b"other"]))
        self.assertEqual(queues.queue_figures(b"jobs"), {})

    def test_begin_anew_when_the_queue_is_deleted(self) -> None:
        self.client.sets(b"q", b"1")
        self.client.does(b"delete q")
        self.client.sets(b"q", b"2")
        self.assertEqual(self.server.queues.queue_figures(b"q")["total_items"], 1)


class StopTests(QueuesTestCase):
    def test_all_that_was_gathered_is_written(self) -> None:
        self.client.set(b"q", b"1")
        self.client.set(b"q", b"2")
        self.restart()
        self.assertEqual(self.server.figures(b"q"), (2, 2))

    def test_a_write_in_a_thread_is_waited_for(self) -> None:
        self.server.holding = True
        self.client.set(b"q/sync", b"1")
        self.server.commit()
        stopped = Deferred.fromCoroutine(self.server.queues.stop())
        self.server.commit()
        self.assertNoResult(stopped)
        self.server.holding = False
        self.server.release()
        self.successResultOf(stopped)
        self.assertEqual(self.client.hears(), memcache.STORED)
        self.assertEqual(self.server.clock.getDelayedCalls(), [])

    def test_nothing_goes_on_afterwards(self) -> None:
        self.client.sets(b"q", b"1")
        self.client.does(b"get q")
        self.server.stop()
        self.assertEqual(self.server.clock.getDelayedCalls(), [])


class HarnessTests(SynchronousTestCase):
    """The store with faults keeps the interface."""

    def test_interfaces(self) -> None:
        self.assertTrue(verifyObject(IStore, Server().store))


class DiskTests(SynchronousTestCase):
    """The same on a real disk, through a crash at every point."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name)
        self.server = Server(LevelStore(self.path))
        self.addCleanup(lambda: self.server.store.close())

    def crash(self) -> Any:
        self.server.store.close()
        self.server.store = FaultyStore(LevelStore(self.path))
        self.server.start()
        return self.server.client()

    def test_holes(self) -> None:
        client = self.server.client()
        for number in range(300):
            client.set(b"q", b"%d" % number)
            if number % 50 == 0:
                self.server.commit()
        self.server.commit()
        self.assertEqual(client.hears(), memcache.STORED * 300)
        reader = self.server.client()
        reader.does(b"get q/open")
        for number in range(1, 200):
            self.assertEqual(client.does(b"get q"), value(b"q", b"%d" % number))
        client = self.crash()
        self.assertEqual(self.server.figures(b"q"), (101, 301))
        self.server.clock.advance(1)
        for number in (0, *range(200, 300)):
            self.assertEqual(client.does(b"get q"), value(b"q", b"%d" % number))
        self.assertEqual(client.does(b"get q"), memcache.END)
        client = self.crash()
        self.assertEqual(self.server.figures(b"q"), (0, 0))

    def test_a_read_that_was_answered_is_not_handed_out_again(self) -> None:
        client = self.server.client()
        client.sets(b"q", b"1")
        client.sets(b"q", b"2")
        self.assertEqual(client.does(b"get q"), value(b"q", b"1"))
        client = self.crash()
        self.assertEqual(client.does(b"get q"), value(b"q", b"2"))

    def test_deleted_queues_stay_deleted(self) -> None:
        client = self.server.client()
        client.sets(b"q", b"1")
        client.ask(b"delete q")
        self.server.queues.commit.end()
        client = self.crash()
        self.assertEqual(self.server.queues.names(), [])
        self.assertEqual(client.does(b"get q"), memcache.END)
        self.server.clock.advance(1)
        self.assertEqual(self.server.store.leftovers(), ([], []))
