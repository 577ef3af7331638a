"""One queue: `darner.queues.fifo`."""

from __future__ import annotations

from typing import Any, Optional

from twisted.trial.unittest import SynchronousTestCase

from darner.errors import StoreError
from darner.queues.contents import HEAVY
from darner.queues.fifo import Fifo
from darner.queues.head import MemoryBudget
from darner.queues.open_read import OpenRead
from darner.store.memory import MemoryStore
from darner.values.items import ITEM_OVERHEAD, Item, QueueState
from darner.values.vocabulary import CHUNK_BYTES
from test.harness import EPOCH, Server


class FifoTestCase(SynchronousTestCase):
    """A queue C{q} on a server that each test may bring to a fall."""

    window_bytes = 10 * (ITEM_OVERHEAD + 100)

    def setUp(self) -> None:
        self.memory = MemoryStore()
        self.server = Server(self.memory)
        self.store = self.server.store
        self.room = MemoryBudget()
        self.fifo = self.new()

    def new(self, name: bytes = b"q", state: Optional[QueueState] = None) -> Fifo:
        queues = self.server.queues
        fifo = Fifo(
            name, self.store, queues.commit, queues.reclaimer, queues.expiry, self.room, self.window_bytes, state=state
        )
        if state is not None:
            fifo.wake(state)
        return fifo

    def put(self, *payloads: bytes, expiry: int = 0) -> None:
        for payload in payloads:
            self.fifo.put(0, expiry, len(payload), payload)

    def fill(self, count: int, turns: int = 1) -> list[bytes]:
        """Put that many items of 100 bytes, in some turns."""
        payloads = [b"%-100d" % number for number in range(count)]
        for commit in range(turns):
            self.put(*payloads[commit * count // turns : (commit + 1) * count // turns])
            self.commit()
        return payloads

    def take(self) -> Optional[bytes]:
        item = self.fifo.take()
        return item.payload if item is not None else None

    def take_all(self) -> list[bytes]:
        payloads = []
        while (payload := self.take()) is not None:
            payloads.append(payload)
        self.assertCounts(0, 0)
        return payloads

    def commit(self) -> None:
        self.server.commit()

    def crash(self) -> None:
        """The process ends, and another one finds the queue in the store."""
        self.server.start()
        self.fifo = self.new()
        for state in self.store.recover():
            if state.name == b"q":
                self.fifo = self.new(state=state)

    def assertCounts(self, items: int, size: int) -> None:
        self.assertEqual((self.fifo.count, self.fifo.storage.contents.bytes), (items, size))


class OrderTests(FifoTestCase):
    def test_first_in_first_out(self) -> None:
        self.put(b"one", b"two", b"")
        self.assertCounts(3, 6)
        self.assertEqual(self.take_all(), [b"one", b"two", b""])

    def test_empty(self) -> None:
        self.assertIsNone(self.fifo.take())
        self.assertIsNone(self.fifo.open())
        self.assertIsNone(self.fifo.peek())
        self.assertFalse(self.fifo.exists)
        self.assertTrue(self.fifo.idle)

    def test_peek_leaves_the_item(self) -> None:
        self.put(b"one", b"two")
        for _ in range(2):
            item = self.fifo.peek()
            assert item is not None
            self.assertEqual(item.payload, b"one")
        self.assertEqual(self.take_all(), [b"one", b"two"])

    def test_open_sets_aside_until_closed(self) -> None:
        self.put(b"one", b"two")
        read = self.fifo.open()
        assert read is not None
        self.assertCounts(1, 3)
        self.assertEqual(self.fifo.open_count, 1)
        self.assertEqual(self.take(), b"two")
        self.assertTrue(read.is_open)
        self.assertTrue(read.close())
        self.assertFalse(read.is_open)
        self.assertFalse(read.close())
        self.assertFalse(read.abort())
        self.assertEqual(self.take_all(), [])
        self.commit()
        self.crash()
        self.assertEqual(self.take_all(), [])

    def test_items_given_back_stand_in_their_old_order(self) -> None:
        """In any order of the aborts, before the items that were put after them."""
        self.put(b"0", b"1", b"2", b"3", b"4")
        reads = [self.fifo.open() for _ in range(4)]
        self.assertEqual(self.take(), b"4")
        self.put(b"5")
        for at in (2, 0, 3, 1):
            read = reads[at]
            assert read is not None
            self.assertTrue(read.abort())
        self.assertEqual(self.take_all(), [b"0", b"1", b"2", b"3", b"5"])

    def test_given_back_is_ahead_of_what_was_read_ahead(self) -> None:
        payloads = self.fill(50)
        first = self.fifo.open()
        assert first is not None
        self.take()
        first.abort()
        self.assertEqual(self.take_all(), payloads[:1] + payloads[2:])


class RecoveryTests(FifoTestCase):
    """A restart finds exactly the items that were written and not consumed."""

    def check(self, expected: list[bytes]) -> None:
        self.commit()
        self.crash()
        self.assertCounts(len(expected), sum(map(len, expected)))
        self.assertEqual(self.take_all(), expected)
        self.commit()
        self.crash()
        self.assertCounts(0, 0)
        self.assertIsNone(self.fifo.take())

    def test_as_it_was(self) -> None:
        self.put(b"one", b"two")
        self.check([b"one", b"two"])

    def test_all_consumed(self) -> None:
        self.put(b"one", b"two")
        self.take_all()
        self.check([])

    def test_an_item_stays_open_while_later_ones_are_consumed(self) -> None:
        payloads = self.fill(200)
        self.fifo.open()
        for _ in range(150):
            self.take()
        self.check(payloads[:1] + payloads[151:])

    def test_many_holes(self) -> None:
        payloads = self.fill(100, turns=2)
        for number in range(100):
            if number % 3 == 0:
                self.fifo.open()
            else:
                self.take()
        self.check(payloads[::3])

    def test_holes_that_close_again(self) -> None:
        payloads = self.fill(9)
        reads = []
        for number in range(9):
            if number % 2 == 0:
                reads.append(self.fifo.open())
            else:
                self.take()
        self.commit()
        for read in reads[1:]:
            assert read is not None
            read.close()
        self.check(payloads[:1])

    def test_nothing_put_after_a_crash_collides_with_what_was_there(self) -> None:
        self.put(b"one", b"two")
        self.commit()
        self.crash()
        self.put(b"three")
        self.check([b"one", b"two", b"three"])

    def test_put_after_everything_was_consumed_and_the_process_ended(self) -> None:
        self.put(b"one")
        self.take_all()
        self.commit()
        self.crash()
        self.put(b"two")
        self.assertEqual(self.take(), b"two")
        self.put(b"three")
        self.check([b"three"])


class WindowTests(FifoTestCase):
    def test_a_short_queue_never_reads_the_store(self) -> None:
        for number in range(100):
            self.put(b"%d" % number)
            self.commit()
            self.assertEqual(self.take(), b"%d" % number)
        self.assertEqual(self.store.reads, [])

    def test_a_long_queue_is_not_held_in_memory(self) -> None:
        payloads = self.fill(500)
        self.assertEqual(self.take_all(), payloads)
        self.assertGreaterEqual(sum(self.store.reads), 489)
        self.assertLessEqual(max(self.store.reads), 11)

    def test_reading_ahead_skips_what_is_consumed(self) -> None:
        payloads = self.fill(30)
        self.fifo.open()
        for _ in range(20):
            self.take()
        self.commit()
        self.crash()
        first = self.fifo.open()
        assert first is not None
        self.assertEqual(self.take_all(), payloads[21:])
        first.abort()
        self.assertEqual(self.take_all(), payloads[:1])

    def test_what_is_only_looked_at_counts_at_once(self) -> None:
        """A peek writes nothing, so the memory of the window must be counted without a write."""
        payloads = self.fill(20)
        self.crash()
        for look in (Fifo.peek, Fifo.open):
            self.room = MemoryBudget(1)
            self.fifo = self.new(state=next(self.store.recover()))
            self.assertIsNotNone(look(self.fifo))
            self.assertGreater(self.room.held, 0)
            other = self.new(b"other", next(self.store.recover()))
            self.assertIsNotNone(other.peek())
            self.assertLessEqual(self.room.held, self.window_bytes + 100 + ITEM_OVERHEAD)
        self.assertEqual(self.take_all(), payloads[1:])

    def test_what_is_on_its_way_to_the_store_is_read_from_memory(self) -> None:
        """The head is in the store, the middle in the batch that a thread writes, the tail in no batch yet."""
        payloads = self.fill(40)
        self.server.holding = True
        middle = [b"%-100d" % number for number in range(40, 70)]
        self.put(*middle)
        self.server.queues.commit.sync()
        self.commit()
        tail = [b"%-100d" % number for number in range(70, 100)]
        self.put(*tail)
        self.assertEqual(self.take_all(), payloads + middle + tail)
        self.server.release()
        self.crash()
        self.assertCounts(0, 0)


class ExpiryTests(FifoTestCase):
    def test_expired_at_the_head(self) -> None:
        self.put(b"old", expiry=(EPOCH + 1) * 1000)
        self.put(b"new")
        self.server.clock.advance(1)
        self.assertEqual(self.take_all(), [b"new"])
        self.assertEqual(self.fifo.stats.expired_items, 1)
        self.commit()
        self.crash()
        self.assertCounts(0, 0)

    def test_not_yet(self) -> None:
        self.put(b"old", expiry=(EPOCH + 1) * 1000)
        self.server.clock.advance(0.5)
        self.assertEqual(self.take(), b"old")

    def test_given_back_too_late(self) -> None:
        self.put(b"old", expiry=(EPOCH + 1) * 1000)
        read = self.fifo.open()
        assert read is not None
        self.server.clock.advance(2)
        read.abort()
        self.assertEqual(self.take_all(), [])


class WaiterTests(FifoTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.got: list[tuple[str, Optional[bytes]]] = []

    def wait(self, who: str) -> Any:
        return self.fifo.wait(lambda: self.got.append((who, self.take())))

    def test_in_the_order_in_which_they_came(self) -> None:
        for who in "abc":
            self.wait(who)
        self.put(b"1", b"2")
        self.assertEqual(self.got, [("a", b"1"), ("b", b"2")])
        self.assertEqual(len(self.fifo.waiters), 1)

    def test_one_that_left_gets_nothing(self) -> None:
        gone = self.wait("a")
        self.wait("b")
        self.fifo.leave(gone)
        self.fifo.leave(gone)
        self.put(b"1", b"2")
        self.assertEqual(self.got, [("b", b"1")])
        self.assertEqual(self.take_all(), [b"2"])

    def test_one_that_leaves_the_item(self) -> None:
        """A waiter that leaves the item, as a peek does: the next waiter gets it."""
        peeked: list[Optional[Item]] = []
        self.fifo.wait(lambda: peeked.append(self.fifo.peek()))
        self.wait("b")
        self.put(b"1")
        self.assertEqual([item.payload for item in peeked if item], [b"1"])
        self.assertEqual(self.got, [("b", b"1")])

    def test_served_with_what_is_given_back(self) -> None:
        self.put(b"1")
        read = self.fifo.open()
        assert read is not None
        self.wait("a")
        read.abort()
        self.assertEqual(self.got, [("a", b"1")])

    def test_not_woken_by_what_expires_at_once(self) -> None:
        self.wait("a")
        self.put(b"1", expiry=1)
        self.assertEqual(self.got, [])
        self.put(b"2")
        self.assertEqual(self.got, [("a", b"2")])

    def test_wait_on_while_the_store_cannot_be_read(self) -> None:
        self.fill(1)
        self.crash()
        self.wait("a")
        self.store.unreadable = True
        self.fifo.serve()
        self.assertEqual(self.got, [])
        self.store.unreadable = False
        self.fifo.serve()
        self.assertEqual(self.got, [("a", b"%-100d" % 0)])

    def test_wait_through_flush_and_delete(self) -> None:
        self.put(b"0")
        self.take()
        self.wait("a")
        self.wait("b")
        self.fifo.flush()
        self.put(b"1")
        self.fifo.delete()
        self.assertFalse(self.fifo.idle)
        self.put(b"2")
        self.assertEqual(self.got, [("a", b"1"), ("b", b"2")])


class FlushAndDeleteTests(FifoTestCase):
    def test_flush_leaves_open_reads_open(self) -> None:
        payloads = self.fill(30)
        self.take()
        first = self.fifo.open()
        self.take()
        second = self.fifo.open()
        third = self.fifo.open()
        assert first is not None
        assert second is not None
        assert third is not None
        third.abort()
        self.fifo.flush()
        self.assertCounts(0, 0)
        self.assertIsNone(self.fifo.take())
        self.put(b"new")
        second.abort()
        first.abort()
        self.commit()
        self.crash()
        self.assertEqual(self.take_all(), [payloads[1], payloads[3], b"new"])

    def test_flush_of_a_queue_that_is_not(self) -> None:
        self.fifo.flush()
        self.commit()
        self.assertEqual(self.store.writes, [])

    def test_delete(self) -> None:
        self.fill(3)
        read = self.fifo.open()
        assert read is not None
        self.fifo.delete()
        self.assertFalse(self.fifo.exists)
        self.assertCounts(0, 0)
        self.assertFalse(read.is_open)
        self.assertFalse(read.abort())
        self.assertIsNone(self.fifo.take())
        self.commit()
        self.assertTrue(self.fifo.idle)
        self.crash()
        self.assertFalse(self.fifo.exists)
        self.server.clock.advance(1)
        self.assertEqual(self.memory.queues, {})

    def test_delete_and_make_again_in_one_turn(self) -> None:
        self.fill(3)
        self.fifo.delete()
        self.put(b"new")
        self.commit()
        self.assertEqual(self.take(), b"new")
        self.crash()
        self.assertEqual(self.take_all(), [b"new"])

    def test_deleted_before_it_was_written(self) -> None:
        self.put(b"one")
        self.fifo.delete()
        self.assertTrue(self.fifo.idle)
        self.commit()
        self.assertEqual(list(self.store.recover()), [])
        self.assertEqual(self.memory.deleted, set())

    def test_deleted_while_it_is_being_made(self) -> None:
        self.server.holding = True
        self.put(b"one")
        self.server.queues.commit.sync()
        self.commit()
        self.fifo.delete()
        self.server.release()
        self.crash()
        self.assertFalse(self.fifo.exists)

    def test_twice(self) -> None:
        self.fill(1)
        self.fifo.delete()
        self.fifo.delete()
        self.commit()
        self.assertFalse(self.fifo.exists)

    def test_a_large_item_deleted_before_it_was_written(self) -> None:
        """Its chunks, which may be on disk already, are reclaimed."""
        inflow = self.server.queues.puts.inflow()
        inflow.write(b"x" * (CHUNK_BYTES + 1))
        self.commit()
        payload = inflow.finish()
        self.put(b"small")
        self.fifo.put(0, 0, inflow.size, payload, inflow.stream)
        self.fifo.delete()
        self.server.clock.advance(1)
        self.assertEqual((self.memory.chunks, self.memory.unheld), ({}, set()))

    def test_item_that_was_read_before_is_not_brought_back_after(self) -> None:
        """The new queue has the same item ids as the deleted one."""
        self.put(b"old")
        item = self.fifo.take()
        assert item is not None
        number = self.fifo.number
        self.fifo.delete()
        self.put(b"new")
        self.assertEqual(self.take(), b"new")
        self.fifo.unread(item, number)
        self.assertEqual(self.take_all(), [])


class UnreadTests(FifoTestCase):
    def test_it_is_an_item_again(self) -> None:
        self.put(b"one", b"two", b"three")
        self.take()
        item = self.fifo.take()
        assert item is not None
        self.fifo.unread(item, self.fifo.number)
        self.fifo.unread(item, self.fifo.number)
        self.assertCounts(2, 8)
        self.commit()
        self.crash()
        self.assertEqual(self.take_all(), [b"two", b"three"])

    def test_it_goes_to_who_waits(self) -> None:
        self.put(b"one")
        item = self.fifo.take()
        assert item is not None
        got: list[Optional[bytes]] = []
        self.fifo.wait(lambda: got.append(self.take()))
        self.fifo.unread(item, self.fifo.number)
        self.assertEqual(got, [b"one"])


class HeavyTests(FifoTestCase):
    """The payloads of items that are open or given back are not kept in memory."""

    window_bytes = 100 * HEAVY

    def setUp(self) -> None:
        super().setUp()
        self.heavy = [bytes([65 + number]) * (HEAVY + 1) for number in range(3)]

    def open(self) -> OpenRead:
        read = self.fifo.open()
        assert read is not None
        return read

    def test_open(self) -> None:
        self.put(*self.heavy, b"light")
        self.commit()
        reads = [self.open() for _ in range(4)]
        self.assertEqual([read.item.payload for read in reads], [*self.heavy, b"light"])
        self.commit()
        for read in reads[:3]:
            self.assertTrue(read.item.unloaded)
        self.assertEqual(reads[3].item.payload, b"light")
        reads[1].close()
        for read in reads:
            read.abort()
        self.assertEqual(self.take_all(), [self.heavy[0], self.heavy[2], b"light"])

    def test_given_back_in_the_same_turn(self) -> None:
        self.put(self.heavy[0])
        self.commit()
        read = self.open()
        read.abort()
        self.commit()
        self.assertTrue(read.item.unloaded)
        self.assertEqual(self.take(), self.heavy[0])

    def test_only_looked_at(self) -> None:
        """A payload that is peeked at is read for that turn and unloaded again."""
        self.put(self.heavy[0])
        read = self.open()
        self.commit()
        read.abort()
        for _ in range(3):
            item = self.fifo.peek()
            assert item is not None
            self.assertEqual(item.payload, self.heavy[0])
            self.commit()
            self.assertTrue(item.unloaded)

    def test_not_before_it_is_written(self) -> None:
        """While a thread writes a turn, more items are put and opened."""
        self.server.holding = True
        self.put(self.heavy[0])
        self.server.queues.commit.sync()
        self.commit()
        self.put(self.heavy[1])
        first, second = self.open(), self.open()
        self.server.release()
        self.assertTrue(first.item.unloaded)
        self.commit()
        self.assertTrue(second.item.unloaded)
        self.crash()
        self.assertEqual(self.take_all(), self.heavy[:2])

    def test_refused(self) -> None:
        self.put(self.heavy[0])
        self.commit()
        kept = self.open()
        self.put(self.heavy[1])
        self.open()
        self.store.broken = 1
        self.commit()
        self.assertCounts(0, 0)
        kept.abort()
        self.assertEqual(self.take_all(), self.heavy[:1])

    def test_unreadable(self) -> None:
        self.put(self.heavy[0])
        read = self.open()
        self.commit()
        read.abort()
        self.store.unreadable = True
        self.assertRaises(StoreError, self.fifo.take)
        self.store.unreadable = False
        self.assertEqual(self.take_all(), self.heavy[:1])

    def test_missing(self) -> None:
        """A damaged store has lost the payload: the item counts as consumed, and the next one is served."""
        self.put(*self.heavy)
        read = self.open()
        self.commit()
        read.abort()
        del next(iter(self.memory.queues.values())).items[0]
        self.assertEqual(self.take_all(), self.heavy[1:])
        self.commit()
        self.crash()
        self.assertCounts(0, 0)


class RefusalTests(FifoTestCase):
    """The store refuses puts."""

    def refuse(self, writes: int = 1) -> None:
        self.store.broken = writes
        self.commit()

    def test_what_was_put_never_was_there(self) -> None:
        """Wherever the refused item is by then: in the window, open, given back, read."""
        self.fill(1)
        self.put(*(b"%d" % number for number in range(30)))
        self.take()
        self.take()
        stays_open = self.fifo.open()
        given_back = self.fifo.open()
        assert stays_open is not None
        assert given_back is not None
        given_back.abort()
        self.refuse()
        self.assertFalse(stays_open.is_open)
        self.assertCounts(0, 0)
        self.assertIsNone(self.fifo.take())
        self.assertEqual(self.fifo.open_count, 0)
        self.put(b"later")
        self.commit()
        self.crash()
        self.assertCounts(1, 5)
        self.assertEqual(self.take_all(), [b"later"])

    def test_what_was_there_before_stays(self) -> None:
        payloads = self.fill(5)
        read = self.fifo.open()
        assert read is not None
        self.assertEqual(self.take(), payloads[1])
        self.put(b"refused")
        self.refuse()
        self.assertTrue(read.is_open)
        self.assertCounts(3, 300)
        self.crash()
        self.assertEqual(self.take_all(), [payloads[0], *payloads[2:]])

    def test_the_queue_was_not_made(self) -> None:
        self.put(b"refused")
        self.refuse()
        self.assertFalse(self.fifo.exists)
        self.assertTrue(self.fifo.idle)
        self.put(b"later")
        self.commit()
        self.crash()
        self.assertEqual(self.take_all(), [b"later"])

    def test_a_deletion_is_made_with_the_second_attempt(self) -> None:
        self.fill(2)
        self.fifo.delete()
        self.put(b"refused")
        self.refuse()
        self.assertFalse(self.fifo.exists)
        self.crash()
        self.assertFalse(self.fifo.exists)

    def test_a_deletion_is_made_when_there_is_room_again(self) -> None:
        self.fill(2)
        self.fifo.delete()
        self.refuse(2)
        self.assertFalse(self.fifo.exists)
        self.assertFalse(self.fifo.idle)
        self.put(b"later")
        self.commit()
        self.crash()
        self.assertEqual(self.take_all(), [b"later"])

    def test_what_is_consumed_is_written_later(self) -> None:
        payloads = self.fill(5)
        self.fifo.open()
        self.take()
        self.refuse(2)
        self.take()
        self.commit()
        self.crash()
        self.assertEqual(self.take_all(), [payloads[0], *payloads[3:]])

    def test_nothing_is_written_down_of_items_that_are_not_there_yet(self) -> None:
        """They were put while a thread made the write that failed; the process crashes before they are written."""
        self.fill(3)
        self.server.holding = True
        self.put(b"refused")
        self.server.queues.commit.sync()
        self.commit()
        self.fifo.open()
        self.take()
        self.put(b"open", b"taken", b"left")
        while self.fifo.count > 2:
            self.take()
        self.fifo.open()
        self.take()
        self.server.queues.commit.sync()
        self.store.broken = 1
        self.server.release()
        self.assertEqual(len(self.server.held), 1)
        self.crash()
        self.assertCounts(1, 100)
        self.assertEqual(self.take_all(), [b"%-100d" % 0])

    def test_items_put_meanwhile_are_written_with_their_turn(self) -> None:
        self.fill(3)
        self.server.holding = True
        self.put(b"refused")
        self.server.queues.commit.sync()
        self.commit()
        self.fifo.open()
        self.put(b"open", b"taken", b"left")
        for _ in range(3):
            self.take()
        self.fifo.open()
        self.take()
        self.store.broken = 1
        self.server.release()
        self.crash()
        self.assertEqual(self.take_all(), [b"%-100d" % 0, b"open", b"left"])

    def test_a_queue_that_gets_items_while_its_making_fails(self) -> None:
        self.server.holding = True
        self.put(b"refused")
        self.server.queues.commit.sync()
        self.commit()
        self.put(b"later")
        self.store.broken = 1
        self.server.release()
        self.assertCounts(1, 5)
        self.crash()
        self.assertEqual(self.take_all(), [b"later"])

    def test_no_number_for_a_new_queue(self) -> None:
        self.store.numberless = True
        self.assertRaises(StoreError, self.put, b"refused")
        self.assertFalse(self.fifo.exists)
        self.assertCounts(0, 0)


class DamageTests(FifoTestCase):
    """Items that should be in the store are not: they are accounted for, and everything else is served."""

    def lose(self, *ids: int) -> None:
        self.commit()
        (queue,) = self.memory.queues.values()
        for id in ids:
            del queue.items[id]
        self.crash()

    def test_some(self) -> None:
        payloads = self.fill(10)
        self.lose(0, 3, 4)
        self.assertEqual(self.take(), payloads[1])
        while self.take() is not None:
            pass
        self.assertEqual(self.fifo.count, 0)
        self.commit()
        self.crash()
        self.assertEqual(self.fifo.count, 0)

    def test_all(self) -> None:
        self.put(b"one", b"two")
        self.put(b"three")
        self.commit()
        (queue,) = self.memory.queues.values()
        self.crash()
        queue.items.clear()
        self.assertIsNone(self.fifo.take())
        self.assertEqual(self.fifo.count, 0)
        self.put(b"four")
        self.assertEqual(self.take(), b"four")

    def test_the_last_ones(self) -> None:
        payloads = self.fill(10)
        (queue,) = self.memory.queues.values()
        self.crash()
        del queue.items[8], queue.items[9]
        self.assertEqual([self.take() for _ in range(8)], payloads[:8])
        self.assertIsNone(self.fifo.take())
        self.assertEqual(self.fifo.count, 0)


class StateTests(FifoTestCase):
    def test_a_mark_of_nothing(self) -> None:
        self.fifo.remark()
        self.commit()
        self.assertEqual(self.store.writes, [])

    def test_made_when_the_first_item_is_put(self) -> None:
        self.server.clock.advance(3)
        self.put(b"one")
        self.assertTrue(self.fifo.exists)
        self.assertFalse(self.fifo.idle)
        self.assertEqual(self.fifo.created, (EPOCH + 3) * 1000)
        self.commit()
        self.server.clock.advance(3)
        self.crash()
        self.assertEqual(self.fifo.created, (EPOCH + 3) * 1000)

    def test_age_of_what_was_read(self) -> None:
        self.put(b"one", b"two")
        self.server.clock.advance(1.5)
        self.take()
        self.assertEqual(self.fifo.stats.age_msec, 1500)
        self.server.clock.advance(1)
        self.fifo.open()
        self.assertEqual(self.fifo.stats.age_msec, 2500)

    def test_age_of_the_oldest(self) -> None:
        self.assertEqual(self.fifo.oldest_age, 0)
        self.put(b"one")
        self.server.clock.advance(1.5)
        self.put(b"two")
        self.server.clock.advance(1)
        self.assertEqual(self.fifo.oldest_age, 2500)
        self.take()
        self.assertEqual(self.fifo.oldest_age, 1000)
        self.commit()
        self.crash()
        self.store.unreadable = True
        self.assertEqual(self.fifo.oldest_age, 0)
        self.store.unreadable = False
        self.store.reads.clear()
        for _ in range(3):
            self.assertEqual(self.fifo.oldest_age, 1000)
        self.assertEqual(self.store.reads, [1], "it is read once")
        self.take()
        self.assertEqual(self.fifo.oldest_age, 0)
        self.fill(40)
        self.server.clock.advance(2)
        self.fifo.storage.contents.head.evict()
        self.assertEqual(self.fifo.oldest_age, 2000)
        self.fill(40)
        self.fifo.storage.contents.head.evict()
        self.fifo.flush()
        self.put(b"one")
        self.fifo.storage.contents.head.evict()
        self.server.queues.commit._now += 3000
        self.assertEqual(self.fifo.oldest_age, 3000, "where it is not written yet")
        self.fifo.delete()
        self.put(b"new")
        self.assertEqual(self.fifo.oldest_age, 0)

    def test_age_after_the_clock_was_set_back(self) -> None:
        self.put(b"one", b"two")
        self.commit()
        self.server.clock.rightNow -= 3600
        self.take()
        self.assertEqual(self.fifo.stats.age_msec, 0)
        self.fifo.open()
        self.assertEqual(self.fifo.stats.age_msec, 0)
