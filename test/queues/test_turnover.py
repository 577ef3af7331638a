"""
Tests of what a queue deletes by itself, so that items which pass through it cost nothing but the writes of their turns.
"""

from __future__ import annotations

from typing import Any

from darner.queues import reclaiming
from darner.queues.fifo import Fifo
from darner.queues.head import MemoryBudget
from darner.queues.reclaiming import QUIET, RETRY
from darner.store.batch import Batch
from darner.store.records import LARGE, run_key
from darner.values.vocabulary import CHUNK_BYTES
from test.queues.test_reclaiming import MUCH, ReclaimTestCase
from test.store_contract import write_stream


class TurnoverTestCase(ReclaimTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.queue = self.fifo(10)
        self.take(self.queue, 1)
        self.quiet()

    def put_together(self, count: int) -> None:
        """Put items with one turn, and so in one run."""
        for _ in range(count):
            self.queue.put(0, 0, 10, bytes(10))
        self.settle()

    def turn_of_two(self) -> None:
        """A turn that writes two keys of the queue: it puts an item and takes another."""
        self.queue.put(0, 0, 10, bytes(10))
        self.assertIsNotNone(self.queue.take())
        self.settle()

    def turn_of_another(self) -> None:
        """A turn of another queue."""
        self.put(self.fifo(name=b"other"), 10)

    def again(self) -> Any:
        """@return: the queue's state as the next process finds it."""
        return next(self.store.recover())


class DeletionTests(TurnoverTestCase):
    """Runs are deleted by the turns that follow."""

    def test_with_the_next_turn(self) -> None:
        """Only once it is written that their items are consumed."""
        self.put(self.queue, 10, 10, 10)
        self.take(self.queue, 1)
        self.assertEqual(self.kept(self.queue), [1, 2, 3])
        self.turn_of_two()
        self.assertEqual(self.kept(self.queue), [2, 3, 4])
        self.turn_of_two()
        self.assertEqual(self.kept(self.queue), [3, 4, 5])

    def test_turns_that_write_one_key(self) -> None:
        """One key costs half of a batch: they leave some runs to a later turn, and not many."""
        self.put(self.queue, *(10 for _ in range(10)))
        for _ in range(8):
            self.take(self.queue, 1)
            self.assertEqual(self.kept(self.queue), list(range(1, 11)))
        self.take(self.queue, 1)
        self.assertEqual(self.kept(self.queue), [9, 10])
        self.put(self.queue, 10)
        self.assertEqual(self.kept(self.queue), [9, 10, 11])
        self.turn_of_two()
        self.assertEqual(self.kept(self.queue), [10, 11, 12])

    def test_large_ones_do_not_wait(self) -> None:
        self.put(self.queue, LARGE, 10)
        self.take(self.queue, 1)
        self.put(self.queue, 10)
        self.assertEqual(self.kept(self.queue), [2, 3])

    def test_with_the_next_turn_of_another_queue(self) -> None:
        """A queue may have no turn of its own for a long time."""
        self.put(self.queue, 10)
        self.take(self.queue, 1)
        self.turn_of_another()
        self.assertEqual(self.kept(self.queue), [])
        self.put(self.queue, 10, 10)
        self.take(self.queue, 2)
        self.put(self.queue, 10)
        self.assertEqual(self.kept(self.queue), [2, 3, 4])
        self.turn_of_another()
        self.assertEqual(self.kept(self.queue), [4])

    def test_deleted_meanwhile(self) -> None:
        self.put(self.queue, 10)
        self.take(self.queue, 1)
        self.queue.delete()
        self.settle()
        self.quiet()
        self.assertEqual(self.store.queues, {})

    def test_when_no_turn_follows(self) -> None:
        self.put(self.queue, 10)
        self.take(self.queue, 1)
        self.clock.advance(QUIET)
        self.assertEqual(self.kept(self.queue), [])

    def test_reclaimer_has_nothing_to_do(self) -> None:
        for _ in range(5):
            self.put(self.queue, 10)
            self.take(self.queue, 1)
        self.quiet()
        self.assertEqual(self.kept(self.queue), [])
        self.assertEqual(self.store.steps, [])
        self.assertFalse(self.reclaimer.pending)
        self.take(self.fifo(10, name=b"other"), 1)
        self.queue.remark()
        self.settle()
        self.assertEqual(self.again().floor, 6)

    def test_large_runs_are_named(self) -> None:
        """The engine may have their payloads elsewhere.  It looks nothing up where all runs are small."""
        apart: list[bytes] = []
        write = self.store.write

        def watched(batch: Batch, sync: bool = False) -> None:
            apart.extend(batch.apart)
            write(batch, sync)

        self.patch(self.store, "write", watched)
        self.put(self.queue, LARGE, 10)
        self.take(self.queue, 1)
        self.take(self.queue, 1)
        self.put(self.queue, 10)
        self.assertEqual(self.kept(self.queue), [3])
        self.assertIn(run_key(self.queue.number, 1), apart)
        apart.clear()
        self.take(self.queue, 1)
        self.put(self.queue, 10)
        self.assertEqual(apart, [])

    def test_run_of_several(self) -> None:
        """It goes when all of its items are consumed."""
        self.put_together(3)
        self.put(self.queue, 10)
        self.take(self.queue, 2)
        self.put(self.queue, 10)
        self.turn_of_another()
        self.assertEqual(self.kept(self.queue), [1, 2, 3, 4, 5])
        self.take(self.queue, 1)
        self.put(self.queue, 10)
        self.turn_of_another()
        self.assertEqual(self.kept(self.queue), [4, 5, 6])

    def test_run_that_was_read_from_the_store(self) -> None:
        self.put_together(3)
        self.start()
        queue = Fifo(
            b"q", self.store, self.commit, self.reclaimer, self.expiry, MemoryBudget(), state=self.again()
        )  # fmt: skip
        self.take(queue, 3)
        self.put(queue, 10)
        self.turn_of_another()
        self.assertEqual(self.kept(queue), [4])

    def test_closed_in_another_order(self) -> None:
        """What the queue cannot tell, the reclaimer finds."""
        self.put_together(2)
        first, last = self.open(self.queue), self.open(self.queue)
        last.close()
        self.settle()
        first.close()
        self.settle()
        self.put(self.queue, 10)
        self.assertEqual(self.kept(self.queue), [1, 2, 3])
        self.quiet()
        self.assertEqual(self.kept(self.queue), [3])

    def test_behind_an_item_that_stays(self) -> None:
        self.put(self.queue, 10)
        read = self.open(self.queue)
        for _ in range(3):
            self.put(self.queue, 10)
            self.take(self.queue, 1)
        self.quiet()
        self.assertEqual(self.kept(self.queue), [1])
        self.assertEqual(self.store.steps, [])
        read.close()
        self.settle()
        self.quiet()
        self.assertEqual((self.kept(self.queue), self.store.steps), ([], []))

    def test_large(self) -> None:
        """Its stream has to be given up with it, which the reclaimer does."""
        stream = write_stream(self.store, 2 * CHUNK_BYTES)
        self.queue.put(0, 0, 2 * CHUNK_BYTES, b"", stream)
        self.settle()
        self.take(self.queue, 1)
        self.put(self.queue, 10)
        self.assertEqual(self.kept(self.queue), [1, 2])
        self.quiet()
        self.assertEqual(self.kept(self.queue), [2])
        self.assertEqual(self.store.chunks, {})


class YoungTests(TurnoverTestCase):
    """What is consumed by the turn that puts it is never written."""

    def put_and_take(self, puts: int, takes: int) -> None:
        for _ in range(puts):
            self.queue.put(0, 0, 10, bytes(10))
        for _ in range(takes):
            self.assertIsNotNone(self.queue.take())

    def test_all(self) -> None:
        self.put_and_take(3, 3)
        self.settle()
        self.assertEqual(self.kept(self.queue), [])
        state = self.again()
        self.assertEqual((state.next_id, state.bytes_put, state.bytes_consumed), (4, 40, 40))
        self.quiet()
        self.assertEqual(self.store.steps, [])
        self.assertEqual(self.queue.storage.ledger.reclaimed.low, 4)

    def test_some(self) -> None:
        self.put_and_take(3, 2)
        self.settle()
        self.assertEqual(self.kept(self.queue), [3])
        self.take(self.queue, 1)
        self.put(self.queue, 10)
        self.turn_of_another()
        self.assertEqual(self.kept(self.queue), [4])
        self.assertEqual((self.again().next_id, self.again().bytes_put), (5, 50))

    def test_behind_an_open_item(self) -> None:
        """It is in a run with others, if these stay, and is found by the reclaimer."""
        self.queue.put(0, 0, 10, bytes(10))
        read = self.open(self.queue)
        self.put_and_take(1, 1)
        self.settle()
        self.assertEqual(self.kept(self.queue), [1, 2])
        read.close()
        self.settle()
        self.quiet()
        self.assertEqual(self.kept(self.queue), [])

    def test_large(self) -> None:
        """It is put, so that its stream is reclaimed as ever."""
        self.put_and_take(1, 1)
        stream = write_stream(self.store, 2 * CHUNK_BYTES)
        self.queue.put(0, 0, 2 * CHUNK_BYTES, b"", stream)
        self.queue.take()
        self.settle()
        self.assertEqual(self.kept(self.queue), [2])
        self.quiet()
        self.assertEqual(self.kept(self.queue), [])
        self.assertEqual(self.store.chunks, {})

    def test_in_a_new_queue(self) -> None:
        """The queue is there afterwards, empty."""
        queue = self.fifo(name=b"new")
        queue.put(0, 0, 10, bytes(10))
        queue.take()
        self.settle()
        state = list(self.store.recover())[1]
        self.assertEqual((state.name, state.next_id, len(state.consumed)), (b"new", 1, 1))
        self.assertEqual(self.kept(queue), [])


class FaultTests(TurnoverTestCase):
    """A write fails: nothing is deleted that may be needed, and nothing stays that is not."""

    def test_deletion_refused(self) -> None:
        self.put(self.queue, 10, 10)
        self.take(self.queue, 1)
        self.store.full = True
        self.put(self.queue, 10)
        self.assertEqual(self.kept(self.queue), [1, 2])
        self.store.full = False
        self.clock.advance(RETRY)
        self.quiet()
        self.assertEqual(self.kept(self.queue), [2])
        self.take(self.queue, 1)
        self.quiet()
        self.assertEqual(self.kept(self.queue), [])
        self.assertEqual(self.queue.take(), None)

    def test_consumption_refused(self) -> None:
        """An item that is given back stays, however often it was read."""
        self.put(self.queue, 10)
        item = self.queue.take()
        assert item is not None
        number = self.queue.number
        self.store.full = True
        self.settle()
        self.queue.unread(item, number)
        self.store.full = False
        self.clock.advance(RETRY)
        self.quiet()
        self.assertEqual(self.kept(self.queue), [1])
        self.take(self.queue, 1)
        self.quiet()
        self.assertEqual(self.kept(self.queue), [])

    def test_put_refused(self) -> None:
        """What was never written is not deleted either."""
        self.store.full = True
        self.put(self.queue, 10)
        self.store.full = False
        self.clock.advance(RETRY)
        self.put(self.queue, 10)
        self.assertEqual(len(self.kept(self.queue)), 1)
        self.take(self.queue, 1)
        self.quiet()
        self.assertEqual(self.kept(self.queue), [])


class RenewalTests(TurnoverTestCase):
    """What the engine notes for itself is begun anew."""

    def setUp(self) -> None:
        super().setUp()
        self.done: list[str] = []
        self.worn = True
        self.patch(self.store, "worn", lambda: self.worn)
        self.patch(self.store, "settle", lambda: self.done.append("settle"))
        self.patch(self.store, "renew", self.renew)

    def renew(self) -> None:
        self.assertFalse(self.commit.busy)
        self.done.append("renew")
        self.worn = False

    def test_when_it_is_due(self) -> None:
        self.put(self.queue, 10)
        self.take(self.queue, 1)
        self.quiet()
        self.assertEqual(self.done, ["settle", "renew"])
        self.assertFalse(self.reclaimer.pending)

    def test_not_under_a_write(self) -> None:
        """A write to stable storage is waited for."""
        self.put(self.queue, 10)
        self.take(self.queue, 1)
        self.holding = True
        self.commit.sync()
        self.commit.end()
        self.clock.advance(QUIET)
        self.assertEqual(len(self.held), 2)
        self.held.reverse()
        self.release()
        self.assertEqual(self.done, ["settle"])
        self.holding = False
        self.release()
        self.assertEqual(self.done, ["settle", "renew"])
        self.quiet()

    def test_stopped_meanwhile(self) -> None:
        self.put(self.queue, 10)
        self.take(self.queue, 1)
        self.holding = True
        self.clock.advance(QUIET)
        stopped = self.reclaimer.stop()
        self.release()
        self.successResultOf(stopped)
        self.assertEqual(self.done, ["settle"])


class CompactionTests(TurnoverTestCase):
    def test_what_a_busy_server_leaves(self) -> None:
        """The first quiet moment compacts the rest."""
        all_of_it: list[bool] = []
        self.patch(reclaiming, "COMPACT_BYTES", MUCH)
        self.patch(self.store, "uncompacted", lambda: True)
        self.patch(self.store, "compact", lambda wanted, all: all_of_it.append(all))
        self.put(self.queue, MUCH, MUCH)
        self.take(self.queue, 2)
        self.assertEqual(all_of_it, [False])
        self.quiet()
        self.assertEqual(all_of_it, [False, True])
        self.assertFalse(self.reclaimer.pending)
