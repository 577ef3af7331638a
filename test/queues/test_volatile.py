"""
Tests of volatile queues: `darner.queues.volatile`, and items that go between these and queues on disk.

What is the same as on disk is shown by the protocol's contract, here, and by the model (`test.system.test_fifo_model`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock
from zlib import crc32

from twisted.trial.unittest import SynchronousTestCase

from darner.config.policies import Policies, QueueSettings
from darner.errors import StoreError
from darner.front import memcache
from darner.queues.collection import Queues
from darner.queues.contents import HEAVY
from darner.queues.fifo import Fifo
from darner.queues.head import WINDOW_BYTES
from darner.queues.volatile import FIRST_NUMBER, Volatile, VolatileStore
from darner.store import records
from darner.store.batch import Batch, VolatileBatch
from darner.store.leveldb import LevelStore
from darner.store.memory import MemoryStore
from darner.values.consumed import Consumed
from darner.values.items import ITEM_OVERHEAD, Item
from darner.values.vocabulary import CHUNK_BYTES
from test.front.test_protocol import MemoryTestCase
from test.harness import REFUSED, Server, value
from test.protocol_contract import ProtocolContract

LARGE = bytes(range(256)) * (CHUNK_BYTES // 100)



def brief(payload: bytes) -> bytes:
    """A payload that can be shown when it is wrong."""
    return payload if len(payload) < 5000 else b"%d bytes, %d" % (len(payload), crc32(payload))


BRIEF = brief(LARGE)

NOT_DURABLE = {"durable": False, "max_bytes": 2**20}


class ContractTests(ProtocolContract, MemoryTestCase):
    """Clients see no difference."""

    def setUp(self) -> None:
        super().setUp()
        self.store = MemoryStore()
        self.queues = Queues(self.store, self.surroundings, Policies(QueueSettings(durable=False)))
        self.start()

    def tearDown(self) -> None:
        self.assertEqual(self.store.queues, {})

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)


class VolatileTestCase(SynchronousTestCase):
    """Queues whose names begin with C{m} are in memory, the others on disk."""

    def serve(
        self, store: Any = None, changes: Any = None, window_bytes: int = WINDOW_BYTES, **settings: Any
    ) -> None:
        """
        @param changes: settings of single queues.
        @param settings: of all queues in memory.
        """
        self.policies = Policies(overrides={"m*": {**NOT_DURABLE, **settings}, **(changes or {})})
        self.memory = MemoryStore() if store is None else store
        self.server = Server(
            self.memory, lambda store, surroundings, _: Queues(
                store, surroundings, self.policies, 1, window_bytes=window_bytes
            ),
        )
        self.client = self.server.client()

    def setUp(self) -> None:
        self.serve()

    def restart(self) -> None:
        self.server.start()
        self.client = self.server.client()

    def settle(self) -> None:
        """Let the reclaimer do all that there is to do."""
        self.server.clock.pump([1] * 5)

    def had(self, queue: bytes) -> list[bytes]:
        payloads = []
        while (reply := self.client.does(b"get " + queue)) != memcache.END:
            self.assertTrue(reply.startswith(b"VALUE "), reply[:80])
            header, _, rest = reply.partition(b"\r\n")
            payloads.append(brief(rest[: int(header.split()[3])]))
        return payloads

    def fifo(self, queue: bytes) -> Fifo:
        fifo = self.server.queues.find(queue)
        assert fifo is not None
        return fifo

    def assertNothingLeft(self) -> None:
        self.settle()
        self.assertEqual((self.memory.chunks, self.memory.unheld), ({}, set()))
        self.assertEqual(self.server.queues.reclaimer._pins, {})
        self.assertEqual(self.server.queues.reclaimer._parked, set())


class MemoryTests(VolatileTestCase):
    def test_nothing_is_written(self) -> None:
        for payload in (b"one", b"two", bytes(HEAVY + 1)):
            self.assertEqual(self.client.sets(b"m", payload), memcache.STORED)
        self.assertEqual(self.client.does(b"get m"), value(b"m", b"one"))
        self.client.does(b"get m/open")
        self.client.does(b"get m/abort")
        self.assertEqual(self.had(b"m"), [b"two", bytes(HEAVY + 1)])
        self.assertEqual(self.client.does(b"delete m"), memcache.DELETED)
        self.assertEqual(self.server.store.writes, [])

    def test_a_restart_is_the_end(self) -> None:
        self.client.sets(b"m", b"x")
        self.client.does(b"get m+child/open")
        self.client.sets(b"d", b"x")
        self.server.commit()
        self.assertEqual(self.server.queues.names(), [b"d", b"m", b"m+child"])
        self.server.restart()
        self.assertEqual(self.server.queues.names(), [b"d"])

    def test_nothing_of_it_is_let_go_of(self) -> None:
        """No item or payload is evicted: not from the window, for other queues, or while it is open."""
        payloads = [b"%d" % at * (HEAVY + 1) for at in range(9)]
        self.serve(window_bytes=HEAVY * 2)
        for payload in payloads:
            self.client.sets(b"m", payload)
            self.client.sets(b"m2", payload)
        self.client.does(b"get m/open")
        self.client.does(b"get m/abort")
        self.assertEqual((self.had(b"m"), self.had(b"m2")), (payloads, payloads))
        self.assertEqual(self.server.store.reads, [])

    def test_nothing_is_left_of_what_is_consumed(self) -> None:
        """In whatever way it is consumed."""
        self.serve(max_attempts=9, dead_letter_queue="m2")
        for commit in range(200):
            self.client.sets(b"m", b"x")
            self.client.does(b"get m/open")
            self.client.does(b"get m/abort" if commit % 3 else b"get m/close")
        self.assertLessEqual(len(self.had(b"m")), 200)
        fifo = self.fifo(b"m")
        self.assertEqual(list(fifo.storage.ledger.consumed.intervals()), [(0, 200)])
        self.assertEqual((fifo.storage.ledger.consumed.take_changes(), fifo.storage.sides.retries._consumed), ([], {}))  # type: ignore[union-attr]
        self.assertEqual((fifo.storage.contents.head.held, fifo.storage.ledger.unwritten()), (0, []))
        memory = self.server.queues._memory
        self.assertEqual((memory.queues, memory.deleted, memory.room.held), ({}, set(), 0))

    def test_sync(self) -> None:
        """A set with C{/sync} is synced, though it is of no use; the setting C{sync} is ignored."""
        self.serve(sync="always")
        self.assertEqual(self.client.sets(b"m", b"x"), memcache.STORED)
        self.assertEqual(self.server.store.writes, [])
        self.assertEqual(self.client.sets(b"m/sync", b"x"), memcache.STORED)
        self.assertEqual(self.server.store.writes, [True])
        self.server.queues.apply(Policies(QueueSettings(sync="always")))
        self.assertEqual(self.client.sets(b"m", b"x"), memcache.STORED)
        self.assertEqual(self.server.store.writes, [True])

    def test_without_a_store_in_memory(self) -> None:
        """Without a store for volatile queues, all queues are on disk."""
        queues = self.server.queues
        fifo = Fifo(
            b"x", queues.store, queues.commit, queues.reclaimer, queues.expiry, queues._budget,
            policy=QueueSettings(durable=False),
        )  # fmt: skip
        self.assertTrue(fifo.durable)


class ReloadTests(VolatileTestCase):
    """A queue keeps its kind until it is deleted, whatever the settings say meanwhile."""

    def switch(self) -> None:
        self.policies = Policies(overrides={"d*": NOT_DURABLE})
        self.server.queues.apply(self.policies)

    def test_queues_that_are_there(self) -> None:
        self.client.sets(b"d", b"x")
        self.client.sets(b"m", b"x")
        self.switch()
        self.client.sets(b"d", b"y")
        self.client.sets(b"m", b"y")
        self.restart()
        self.assertEqual(self.server.queues.names(), [b"d"])
        self.client.sets(b"d", b"z")
        self.restart()
        self.assertEqual(self.had(b"d"), [b"x", b"y", b"z"])
        self.client.sets(b"d", b"z")
        self.client.does(b"delete d")
        self.client.sets(b"d", b"x")
        self.restart()
        self.assertEqual(self.server.queues.names(), [])

    def test_deleted_and_made_in_one_turn(self) -> None:
        for before, after in ((b"d", []), (b"m", [b"m"])):
            self.serve()
            self.client.sets(before, b"x")
            self.switch()
            self.client.ask(b"delete " + before)
            self.assertEqual(self.client.sets(before, b"y"), memcache.DELETED + memcache.STORED)
            self.assertEqual(self.had(before), [b"y"])
            self.restart()
            self.assertEqual(self.server.queues.names(), after)

    def test_while_somebody_waits(self) -> None:
        """The queue is not there yet."""
        self.client.does(b"get d/t=1000")
        self.switch()
        other = self.server.client()
        self.assertEqual(other.sets(b"d", b"x"), memcache.STORED)
        self.assertEqual(self.client.hears(), value(b"d", b"x"))
        self.assertEqual(self.server.store.writes, [])
        other.does(b"delete d")
        self.client.does(b"get d/t=1000")
        self.server.queues.apply(Policies())
        self.assertEqual(other.sets(b"d", b"y"), memcache.STORED)
        self.assertEqual(self.client.hears(), value(b"d", b"y"))
        self.restart()
        self.assertEqual(self.server.queues.names(), [b"d"])

    def test_large_items_here_and_there(self) -> None:
        self.client.sets(b"m", LARGE)
        self.client.does(b"delete m")
        self.server.queues.apply(Policies())
        self.client.sets(b"m", LARGE)
        self.restart()
        self.server.queues.apply(Policies(overrides={"m": NOT_DURABLE}))
        self.client.sets(b"m", LARGE)
        self.assertEqual(self.had(b"m"), [BRIEF, BRIEF])
        self.assertNothingLeft()
        self.client.does(b"delete m")
        self.client.sets(b"m", LARGE)
        self.client.does(b"delete m")
        self.server.queues.apply(Policies())
        self.client.sets(b"m", LARGE)
        self.assertEqual(self.had(b"m"), [BRIEF])
        self.assertNothingLeft()

    def test_large_item_for_somebody_who_waits(self) -> None:
        """A queue that was in memory, and for which a client waits, is on disk when it is made again."""
        self.client.sets(b"m", b"x")
        waiter = self.server.client()
        self.client.does(b"get m")
        waiter.ask(b"get m/t=60000")
        self.client.does(b"delete m")
        self.server.queues.apply(Policies())
        self.client.sets(b"m", LARGE)
        self.settle()
        self.assertIn(b"VALUE m 0 %d\r\n" % len(LARGE), waiter.hears())
        self.assertTrue(self.fifo(b"m").durable)
        self.assertNothingLeft()

    def test_back_and_forth_while_its_deletion_fails(self) -> None:
        """The records on disk are deleted as soon as writes work."""
        self.client.sets(b"d", b"x")
        self.server.store.broken = 2
        self.switch()
        self.assertEqual(self.client.does(b"delete d"), REFUSED)
        self.assertEqual(self.client.sets(b"d", b"y"), memcache.STORED)
        self.client.does(b"delete d")
        self.server.queues.apply(Policies())
        self.assertEqual(self.client.sets(b"d", b"z"), memcache.STORED)
        self.assertEqual(self.had(b"d"), [b"z"])
        self.client.sets(b"d", b"z")
        self.settle()
        self.restart()
        self.assertEqual(self.had(b"d"), [b"z"])
        self.assertEqual(len(self.memory.queues), 1)


class FaultTests(VolatileTestCase):
    def break_disk(self) -> None:
        self.server.store.full = self.server.store.unmendable = self.server.store.numberless = True
        self.server.store.broken = 1000

    def test_a_turn_of_their_own(self) -> None:
        """A turn of volatile queues alone does not depend on the disk."""
        self.client.sets(b"d", b"there")
        self.break_disk()
        self.assertEqual(self.client.does(b"delete d"), REFUSED)
        for _ in range(3):
            self.assertEqual(self.client.sets(b"m", b"x"), memcache.STORED)
        self.assertEqual(self.client.does(b"get m"), value(b"m", b"x"))
        self.client.does(b"get m/open")
        self.assertEqual(self.client.does(b"get m/close"), memcache.END)
        self.assertEqual(self.client.does(b"flush m"), memcache.END)
        self.assertEqual(self.client.does(b"delete m"), memcache.DELETED)
        self.server.store.broken = 0
        self.server.store.unmendable = False
        self.server.clock.advance(1)
        self.restart()
        self.assertEqual(self.server.queues.names(), [])

    def test_almost_full(self) -> None:
        self.server.store.room = (0, 2**40)
        self.assertIn(b"disk almost full", self.client.sets(b"d", b"x"))
        self.assertEqual(self.client.sets(b"m", b"x"), memcache.STORED)
        self.assertEqual(self.client.sets(b"m", b"x"), memcache.STORED)
        self.assertIn(b"disk almost full", self.client.does(b"requeue m d"))
        self.assertEqual(self.client.does(b"requeue m m2"), b"2\r\n")
        self.assertEqual(self.had(b"m2"), [b"x", b"x"])

    def test_what_is_owed_to_the_disk(self) -> None:
        """It is written with the next turn that writes to the disk, or by a timer, and never delays volatile queues."""
        self.client.sets(b"d", b"one")
        self.client.sets(b"d2", b"two")
        self.server.store.broken = 2
        self.assertEqual(self.client.does(b"flush d"), REFUSED)
        for _ in range(3):
            self.server.store.broken = 1
            self.assertEqual(self.client.sets(b"m", b"x"), memcache.STORED)
            self.assertEqual(self.server.store.broken, 1)
            self.server.store.broken = 2
            self.server.clock.advance(1)
        self.server.store.broken = 0
        self.client.does(b"get d2/open")
        self.client.does(b"get d2/close")
        self.restart()
        self.assertEqual((self.had(b"d"), self.had(b"d2")), ([], []))

    def test_deleted_again_beside_them(self) -> None:
        """The deletion of a queue on disk is not answered before it is written."""
        self.client.sets(b"d", b"x")
        self.break_disk()
        for _ in range(2):
            other = self.server.client()
            other.set(b"m", b"x")
            self.assertEqual(self.client.does(b"delete d"), REFUSED)
        self.assertEqual(self.client.sets(b"m", b"x"), memcache.STORED)

    def test_they_say_nothing_of_the_disk(self) -> None:
        self.break_disk()
        self.assertEqual(self.client.sets(b"m", b"x"), memcache.STORED)
        self.assertTrue(self.server.queues.commit.health.writable)
        self.assertEqual(self.client.sets(b"m/sync", b"y"), REFUSED)
        self.assertFalse(self.server.queues.commit.health.writable)
        with mock.patch.object(self.server.store, "mend", side_effect=AssertionError):
            self.assertEqual(self.client.sets(b"m", b"z"), memcache.STORED)
        self.assertFalse(self.server.queues.commit.health.writable)
        self.assertEqual(self.had(b"m"), [b"x", b"z"])

    def test_moves_from_one_to_another(self) -> None:
        """They depend on the disk only if something must be written there."""
        changes = {"m1": {"expire_to_queue": "m2"}, "m3": {"expire_to_queue": "d"}}
        self.serve(changes=changes)
        for queue in (b"m1", b"m3"):
            self.client.sets(queue, b"x", expiry=1)
        self.break_disk()
        self.server.store.room = (0, 2**40)
        self.assertNotEqual(self.client.sets(b"d", b"x"), memcache.STORED)
        self.client.sets(b"m/sync", b"x")
        self.server.clock.advance(2)
        self.assertEqual(self.client.does(b"get m1"), memcache.END)
        self.assertEqual(self.client.does(b"requeue m2 m4"), b"1\r\n")
        self.assertEqual(self.had(b"m4"), [b"x"])
        self.assertTrue(self.client.does(b"get m3").startswith(b"SERVER_ERROR"))
        self.assertTrue(self.client.does(b"requeue m d").startswith(b"SERVER_ERROR") or not self.had(b"m"))

    def test_with_others(self) -> None:
        """In a turn with queues on disk all is refused together: puts are refused and reads undone."""
        self.client.sets(b"m", b"old")
        self.client.sets(b"d", b"old")
        for broken, reply in ((1, value(b"m", b"old")), (2, REFUSED)):
            self.server.store.broken = broken
            other = self.server.client()
            self.client.ask(b"get m")
            other.set(b"m", b"new")
            other.set(b"m0", b"new")
            other.set(b"d", b"new")
            other.ask(b"get d")
            self.server.commit()
            self.assertEqual(self.client.hears(), reply)
            self.assertTrue(other.hears().startswith(REFUSED * 3))
            self.assertEqual(self.server.queues.names(), [b"d", b"m"])
            self.client.sets(b"m", b"old")
            self.client.sets(b"d", b"old")
            self.server.commit()
        self.assertEqual(self.had(b"m"), [b"old", b"old"])

    def test_expired_and_failed(self) -> None:
        self.client.sets(b"m", LARGE)
        self.server.queues.move(self.fifo(b"m"), self.take(b"m"), b"d")
        self.server.store.broken = 2
        self.server.commit()
        self.assertEqual((self.had(b"m"), self.had(b"d")), ([BRIEF], []))
        self.assertNothingLeft()

    def take(self, queue: bytes) -> Any:
        self.assertIsNotNone(self.fifo(queue).peek())
        return self.fifo(queue).take_out()


class LimitTests(VolatileTestCase):
    """C{max_bytes} is for memory."""

    def fill(self, queue: bytes = b"m", size: int = 0) -> int:
        """@return: how many items there was room for."""
        count = 0
        while self.client.sets(queue, bytes(size)) == memcache.STORED:
            count += 1
            self.assertLess(count, 100)
        return count

    def test_items_count_for_what_they_take(self) -> None:
        self.serve(max_bytes=10 * ITEM_OVERHEAD)
        self.assertEqual(self.fill(), 10)
        self.assertEqual(self.server.figures(b"m"), (10, 0))
        self.client.does(b"get m")
        self.assertEqual(self.client.sets(b"m", b"x"), memcache.NOT_STORED)
        self.assertEqual(self.client.sets(b"m", b""), memcache.STORED)

    def test_larger_than_there_is_room_for(self) -> None:
        """Whether the queue exists or not, and also as one of several queues of a set."""
        self.serve(max_bytes=ITEM_OVERHEAD + 3)
        self.client.does(b"get m+child")
        for name in (b"m2", b"m", b"m+child"):
            self.assertEqual(self.client.sets(name, b"four"), memcache.NOT_STORED)
            self.assertEqual(self.client.sets(name + b"/delay=9", b"four"), memcache.NOT_STORED)
        self.assertEqual(self.server.queues.names(), [b"m+child"])
        self.assertEqual(self.client.sets(b"m", b"two"), memcache.STORED)
        self.assertEqual(self.had(b"m"), [b"two"])

    def test_discarding(self) -> None:
        self.serve(max_bytes=3 * ITEM_OVERHEAD + 3, discard_old_when_full=True)
        for at in range(9):
            self.assertEqual(self.client.sets(b"m", b"%d" % at), memcache.STORED)
        self.assertEqual(self.client.sets(b"m", bytes(2 * ITEM_OVERHEAD + 4)), memcache.NOT_STORED)
        self.assertEqual(self.had(b"m"), [b"6", b"7", b"8"])

    def test_what_is_set_aside_takes_memory(self) -> None:
        self.serve(max_bytes=3 * ITEM_OVERHEAD, retry_delay=60.0)
        for _ in range(2):
            self.client.sets(b"m", b"")
            self.client.does(b"get m/open")
            self.client.does(b"get m/abort")
        self.assertEqual(self.fill(), 1)
        self.server.clock.advance(61)
        self.assertEqual(len(self.had(b"m")), 3)

    def test_discarding_spares_what_is_set_aside(self) -> None:
        """Items that cannot be dropped do not cause an endless loop."""
        self.serve(max_bytes=3 * ITEM_OVERHEAD, retry_delay=60.0, discard_old_when_full=True)
        for at in range(5):
            expected = memcache.STORED if at < 3 else memcache.NOT_STORED
            self.assertEqual(self.client.sets(b"m", b""), expected)
            self.client.does(b"get m/open")
            self.client.does(b"get m/abort")
        self.policies = Policies(overrides={"m": {**NOT_DURABLE, "max_bytes": 1, "discard_old_when_full": True}})
        self.server.queues.apply(self.policies)
        self.server.queues.expiry.sweep(self.fifo(b"m"))
        self.server.commit()
        self.assertFalse(self.server.queues.expiry._sweeps)
        self.assertEqual(self.fifo(b"m").storage.sides.set_aside_count, 3)

    def test_what_is_moved_there(self) -> None:
        """It is accepted even if the queue is full; the excess is dropped soon if the settings allow it."""
        for discard, left in ((False, 10), (True, 3)):
            self.serve(max_bytes=3 * ITEM_OVERHEAD + 9, discard_old_when_full=discard)
            for at in range(10):
                self.client.sets(b"d", b"%d" % at)
            self.assertEqual(self.client.does(b"requeue d m"), b"10\r\n")
            self.settle()
            self.assertEqual(self.had(b"m"), [b"%d" % at for at in range(10 - left, 10)])


class StreamTests(VolatileTestCase):
    """Large items are on disk as long as any queue has them, and no longer."""

    def test_until_it_is_had(self) -> None:
        for end in (b"get m", b"flush m", b"delete m", b"flush_all"):
            self.client.sets(b"m", LARGE)
            self.settle()
            self.assertEqual(len(self.memory.chunks), 1)
            self.client.does(end)
            self.assertNothingLeft()

    def test_open(self) -> None:
        for end in (b"get m/close", b"delete m"):
            self.client.sets(b"m", LARGE)
            self.client.does(b"get m/open")
            self.client.does(b"flush m")
            self.settle()
            self.client.does(b"get m/abort")
            self.assertTrue(self.client.does(b"get m/open") == value(b"m", LARGE))
            self.client.does(end)
            self.assertNothingLeft()

    def test_flushed_or_deleted_after_it_was_had(self) -> None:
        for end in (b"flush m", b"delete m"):
            self.client.sets(b"m", LARGE)
            self.client.ask(b"get m")
            self.server.client().does(end)
            self.assertTrue(self.client.hears() == value(b"m", LARGE))
            self.assertNothingLeft()

    def test_deleted_and_made_again(self) -> None:
        """The new queue's items have the old one's ids."""
        self.client.sets(b"m", LARGE)
        self.client.ask(b"get m")
        other = self.server.client()
        other.ask(b"delete m")
        other.set(b"m", LARGE[::-1])
        self.server.commit()
        self.settle()
        self.assertTrue(self.client.hears() == value(b"m", LARGE))
        self.assertEqual(self.had(b"m"), [brief(LARGE[::-1])])
        self.assertNothingLeft()

    def test_expired_or_discarded(self) -> None:
        self.serve(max_bytes=len(LARGE) * 3 // 2, discard_old_when_full=True)
        self.client.sets(b"m", LARGE)
        self.client.sets(b"m", LARGE, expiry=1)
        self.settle()
        self.assertEqual(self.had(b"m"), [])
        self.assertNothingLeft()

    def test_refused(self) -> None:
        self.server.store.full = True
        self.assertEqual(self.client.sets(b"m", LARGE), REFUSED)
        self.assertNothingLeft()
        self.assertEqual(self.server.queues.names(), [])

    def test_a_reader_that_is_slow(self) -> None:
        """A slow reader gets the whole item, even if no queue has it any more."""
        self.client.sets(b"m", LARGE)
        reader = self.server.client()
        reader.session.choke()
        reader.ask(b"get m")
        self.settle()
        self.assertEqual(len(self.memory.chunks), 1)
        reader.session.unchoke()
        self.settle()
        self.assertTrue(reader.hears() == value(b"m", LARGE))
        self.assertNothingLeft()

    def test_after_a_crash(self) -> None:
        self.client.sets(b"m", LARGE)
        self.client.sets(b"m", LARGE)
        self.client.does(b"get m/open")
        self.restart()
        self.assertNothingLeft()


class TogetherTests(VolatileTestCase):
    """Large items that queues on disk and in memory have, or that go from one to the other."""

    def stores(self) -> Iterator[Any]:
        """@return: new stores to try it on."""
        yield MemoryStore()
        store = LevelStore(Path(self.mktemp()))
        yield store
        store.close()

    def settle(self) -> None:
        # What little was consumed is looked at in a quiet moment.
        self.server.clock.pump([1] * 8)

    def count(self, stream: int) -> int:
        """@return: how many chunks of the stream there are."""
        count = 0
        while True:
            try:
                self.memory.chunk(stream, count)
            except StoreError:
                return count
            count += 1

    def assertGone(self, stream: int = 1) -> None:
        self.settle()
        self.assertEqual(self.count(stream), 0)
        self.assertEqual(self.memory.leftovers(), ([], []))
        self.assertEqual(self.server.queues.reclaimer._pins, {})

    def test_fan_out(self) -> None:
        """A parent and a child, one on disk and one volatile, in either order, with or without a crash in between."""
        for parent, child, settings in ((b"m", b"m+d", True), (b"d", b"d+m", False)):
            for first in (parent, child):
                for crash in (False, True):
                    for store in self.stores():
                        durable = {"durable": True} if settings else NOT_DURABLE
                        self.serve(store, {child.decode(): durable})
                        self.client.does(b"get " + child)
                        self.assertEqual(self.client.sets(parent, LARGE), memcache.STORED)
                        self.settle()
                        self.assertEqual(self.had(first), [BRIEF])
                        self.settle()
                        (second,) = {parent, child} - {first}
                        durables = {child if settings else parent}
                        if crash:
                            self.restart()
                            self.settle()
                        there = not crash or second in durables
                        self.assertEqual(self.had(second), [BRIEF] if there else [])
                        self.assertGone()

    def moved(self, origin: bytes, target: bytes) -> None:
        self.client.sets(origin, b"small")
        self.client.sets(origin, LARGE)
        self.assertEqual(self.client.does(b"requeue %b %b" % (origin, target)), b"2\r\n")
        self.settle()

    def test_from_disk(self) -> None:
        for store in self.stores():
            self.serve(store)
            self.moved(b"d", b"m")
            self.assertEqual(self.count(1), 3)
            self.assertEqual(self.had(b"m"), [b"small", BRIEF])
            self.assertGone()

    def test_from_disk_and_a_crash(self) -> None:
        for store in self.stores():
            self.serve(store)
            self.moved(b"d", b"m")
            self.restart()
            self.assertEqual((self.had(b"d"), self.had(b"m")), ([], []))
            self.assertGone()

    def test_to_disk(self) -> None:
        for store in self.stores():
            self.serve(store)
            self.moved(b"m", b"d")
            self.restart()
            self.settle()
            self.assertEqual(self.had(b"d"), [b"small", BRIEF])
            self.assertGone()

    def test_there_and_back(self) -> None:
        for names in ((b"d", b"m", b"d2", b"m2", b"d"), (b"m", b"d", b"m2", b"m3", b"d2")):
            for pause in (False, True):
                for store in self.stores():
                    self.serve(store)
                    self.client.sets(names[0], LARGE)
                    for origin, target in pairwise(names):
                        self.assertEqual(self.client.does(b"requeue %b %b" % (origin, target)), b"1\r\n")
                        if pause:
                            self.settle()
                    self.settle()
                    self.restart()
                    self.settle()
                    self.assertEqual(self.had(names[-1]), [BRIEF])
                    self.assertGone()

    def test_a_move_that_fails(self) -> None:
        """The item is in its old queue, and in no other."""
        for origin, target in ((b"m", b"d"), (b"d", b"m"), (b"m", b"m2")):
            for broken in (1, 2):
                self.serve()
                self.client.sets(origin, LARGE)
                self.server.store.broken = broken
                self.client.ask(b"requeue %b %b" % (origin, target))
                self.client.set(b"other", b"x")
                other = self.server.client()
                other.sets(b"other", b"x")
                self.settle()
                self.client.hears()
                self.assertEqual((self.had(target), self.had(origin)), ([], [BRIEF]))
                self.settle()
                self.had(b"other")
                self.assertNothingLeft()

    def test_a_move_that_fails_of_what_was_shared(self) -> None:
        """No item on disk refers to the stream any more; only the volatile queue does, to which the item returns."""
        for store in self.stores():
            self.serve(store, {"d+m": NOT_DURABLE})
            self.client.does(b"get d+m")
            self.client.sets(b"d", LARGE)
            self.assertEqual(self.had(b"d"), [BRIEF])
            self.settle()
            self.server.store.broken = 1
            self.client.ask(b"requeue d+m d2")
            self.settle()
            self.assertEqual(self.client.hears(), REFUSED)
            self.assertEqual((self.had(b"d2"), self.had(b"d+m")), ([], [BRIEF]))
            self.assertGone()

    def test_moved_and_deleted_in_one_turn(self) -> None:
        for store in self.stores():
            self.serve(store, {"d+m": NOT_DURABLE})
            self.client.does(b"get d+m")
            self.client.sets(b"d", LARGE)
            self.assertEqual(self.had(b"d"), [BRIEF])
            self.settle()
            other = self.server.client()
            self.client.ask(b"requeue d+m d2")
            other.ask(b"delete d+m")
            self.settle()
            self.assertEqual(self.client.hears(), b"1\r\n")
            self.assertEqual(self.had(b"d2"), [BRIEF])
            self.assertGone()

    def test_moved_while_it_is_reclaimed(self) -> None:
        """A thread that found no other holder may report that after another item refers to the stream."""
        for store in self.stores():
            self.serve(store, {"d+m": NOT_DURABLE})
            self.client.does(b"get d+m")
            self.client.sets(b"d", LARGE)
            self.assertEqual(self.had(b"d"), [BRIEF])
            self.settle()
            # Nobody holds it.  That it is said again stands for the thread that is late.
            chunk = self.memory.chunk(1, 0)
            self.client.ask(b"requeue d+m d2")
            self.server.commit()
            batch = VolatileBatch()
            batch.chunk(1, 0, chunk)
            self.memory.write(batch)
            self.server.queues.reclaimer.stream(1)
            self.settle()
            self.restart()
            self.settle()
            self.assertEqual(self.memory.leftovers(), ([], []))
            self.assertEqual(self.had(b"d2"), [BRIEF])
            self.assertGone()

    def test_dead_letters(self) -> None:
        for queue, dead in (("m", "d"), ("d", "m2"), ("m", "m2")):
            self.serve(changes={queue: {"max_attempts": 1, "dead_letter_queue": dead, "durable": queue == "d"}})
            name, letters = queue.encode(), dead.encode()
            self.client.sets(name, LARGE)
            self.client.does(b"get %b/open" % name)
            self.client.does(b"get %b/abort" % name)
            self.settle()
            self.assertEqual((self.had(name), self.had(letters)), ([], [BRIEF]))
            self.assertNothingLeft()

    def test_expired(self) -> None:
        for queue, target in (("m", "d"), ("d", "m2"), ("m", "m2")):
            self.serve(changes={queue: {"expire_to_queue": target, "durable": queue == "d"}})
            self.client.sets(queue.encode(), LARGE, expiry=1)
            self.settle()
            self.assertEqual(self.had(target.encode()), [BRIEF])
            self.assertNothingLeft()


class Beside:
    """What a queue keeps beside its items: a number, and a count of what was put there."""

    def __init__(self, store: Any) -> None:
        self.number = store.new_number()
        self.pending = False
        self.stopped = False
        self.calls: list[str] = []

    def write_to(self, batch: Batch, puts: bool) -> None:
        self.calls.append("write")

    def written(self) -> None:
        self.calls.append("written")

    def refuse(self, ids: set[int], uncertain: bool) -> None:
        self.calls.append("refuse")

    def not_written(self) -> None:
        self.calls.append("not written")

    def flush(self, open: Collection[int]) -> list[int]:
        return [self.number]

    def delete(self) -> list[int]:
        return [self.number]

    def stop(self) -> None:
        self.stopped = True


class SideTests(VolatileTestCase):
    """What is kept beside the items goes to the store in memory, at the end of a turn."""

    def setUp(self) -> None:
        super().setUp()
        self.client.sets(b"m", b"x")
        self.volatile: VolatileStore = self.server.queues._memory
        self.side = Beside(self.fifo(b"m").storage.medium.store)
        self.fifo(b"m").storage.sides.all.append(self.side)
        self.given_up: list[int] = []
        self.patch(self.volatile, "give_up", self.given_up.append)

    def test_numbers(self) -> None:
        """Their numbers are not those of queues on disk."""
        self.assertGreaterEqual(self.side.number, FIRST_NUMBER)
        self.assertNotEqual(self.side.number, self.fifo(b"m").number)

    def test_flush_and_delete(self) -> None:
        self.client.does(b"flush m")
        self.assertEqual(self.given_up, [self.side.number])
        self.client.does(b"delete m")
        self.assertEqual(self.given_up, [self.side.number] * 2)
        self.assertEqual((self.side.stopped, self.server.store.writes), (True, []))

    def test_refused(self) -> None:
        self.server.store.broken = 2
        self.client.ask(b"flush m")
        self.server.client().sets(b"d", b"x")
        self.assertEqual(self.client.hears(), REFUSED)
        self.assertEqual(self.side.calls[:5], ["write", "refuse", "not written", "write", "not written"])
        self.client.sets(b"m", b"x")
        self.assertEqual(self.given_up, [self.side.number])

    def test_of_a_queue_on_disk(self) -> None:
        for end in (b"flush d", b"delete d"):
            self.client.sets(b"d", b"x")
            side = Beside(self.memory)
            self.fifo(b"d").storage.sides.all.append(side)
            with mock.patch.object(self.memory, "write", wraps=self.memory.write) as write:
                self.client.does(end)
            written = [key for call in write.call_args_list for key, _ in call.args[0].writes]
            self.assertIn(records.deleted_key(side.number), written)
            self.settle()
        self.assertEqual(self.given_up, [])

    def test_nothing_to_give_up(self) -> None:
        self.patch(self.side, "flush", list)
        self.client.does(b"flush m")
        self.assertEqual(self.given_up, [])

    def test_stop(self) -> None:
        self.server.stop()
        self.assertTrue(self.side.stopped)


class VolatileStoreTests(SynchronousTestCase):
    def test_give_up(self) -> None:
        store = VolatileStore()
        number = store.new_number()
        batch = VolatileBatch()
        batch.discard(number)
        store.write(batch)
        self.assertEqual(store.deleted, {number})
        store.give_up(number)
        self.assertEqual(store.deleted, set())
        self.assertEqual(store.read(number, 0, 9, 9), [])

    def test_give_up_large_ones(self) -> None:
        """Their streams are not there, and not remembered."""
        store = VolatileStore()
        number = store.new_number()
        batch = VolatileBatch()
        batch.delay(number, [(5, Item(0, 0, 1, 0, 99, b"", 7))])
        store.write(batch)
        store.give_up(number)
        self.assertEqual((store.delays, store.unheld), ({}, set()))

    def test_batch(self) -> None:
        """Nothing of what follows from items is kept."""
        store = VolatileStore()
        batch = VolatileBatch()
        number = store.new_number()
        batch.create(b"q", number, 0)
        batch.share(1, number, 0)
        batch.attempts(number, [(0, 1)])
        batch.remove(b"q", number)
        self.assertTrue(batch.empty)
        batch.discard(number)
        self.assertFalse(batch.empty)

    def test_a_stream_that_comes_back(self) -> None:
        """An item that is one again when the turn is at its end keeps its stream."""
        server = Server()
        pins = server.queues.reclaimer
        volatile = Volatile(VolatileStore(), server.queues.commit, pins)
        consumed = Consumed()
        volatile.pin(0, 7)
        consumed.add(0, 1)
        volatile.consumed(consumed, 0)
        consumed.discard(0)
        server.commit()
        self.assertEqual(pins._pins, {7: 1})
        volatile.leave()
        server.commit()
        self.assertEqual(pins._pins, {})
