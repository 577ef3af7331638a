"""
Tests of `darner.queues.reclaiming`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Optional

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from darner.errors import StoreError
from darner.queues import reclaiming
from darner.queues.commit import GroupCommit
from darner.queues.expiry import Expiry
from darner.queues.fifo import Fifo
from darner.queues.head import MemoryBudget
from darner.queues.open_read import OpenRead
from darner.queues.reclaiming import QUIET, RECLAIM_BYTES, RETRY, Reclaimer
from darner.store.memory import MemoryStore
from darner.values.items import Step
from darner.values.stats import ServerStats
from darner.values.vocabulary import CHUNK_BYTES
from test.store_contract import Writer, write_stream


class WorkedStore(MemoryStore):
    """
    A store that records the calls of the reclaimer, and fails on demand.

    @ivar steps: the arguments of each step of reclaiming consumed items.
    @ivar compactions: how many were done.
    @ivar faults: what the next steps and compactions raise; C{None} is one that succeeds.
    @ivar torn: whether a fault awaits mending.
    @ivar full: whether writes fail.
    """

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[int, ...]] = []
        self.compactions = 0
        self.faults: list[Optional[Exception]] = []
        self.torn = False
        self.full = False

    def _maybe_fail(self) -> None:
        if self.torn:
            raise StoreError("torn")
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            self.torn = isinstance(fault, StoreError)
            raise fault

    def mend(self) -> None:
        self.torn = False

    def write(self, batch: Any, sync: bool = False) -> None:
        if self.full:
            raise StoreError("no room")
        super().write(batch, sync)

    def new_stream(self) -> int:
        if self.full:
            raise StoreError("no room")
        return super().new_stream()

    def reclaim(self, *arguments: int) -> Step:
        self._maybe_fail()
        self.steps.append(arguments)
        return super().reclaim(*arguments)

    def reclaim_queue(self, *arguments: int) -> Step:
        self._maybe_fail()
        return super().reclaim_queue(*arguments)

    def reclaim_stream(self, *arguments: int) -> Step:
        self._maybe_fail()
        return super().reclaim_stream(*arguments)

    def compact(self, wanted: Callable[[], bool] = lambda: True, all: bool = True) -> None:
        self._maybe_fail()
        self.compactions += wanted()


class ReclaimTestCase(SynchronousTestCase):
    """
    A test case with a reclaimer, whose time and threads are the test's.

    @ivar holding: whether what is given to a thread stays there until L{release}.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.store = WorkedStore()
        self.holding = False
        self.held: list[Callable[[], None]] = []
        self.start()

    def start(self) -> None:
        self.commit = GroupCommit(
            self.store, lambda end: self.clock.callLater(0, end), self.in_thread,
            lambda: 1e9 + self.clock.seconds(), self.clock,
        )  # fmt: skip
        self.reclaimer = Reclaimer(self.store, self.commit, self.in_thread, self.clock)
        self.reclaimer.start()
        self.expiry = Expiry(self.commit, self.clock, ServerStats(), lambda *_: None, lambda _: None, lambda _: True)

    def in_thread(self, work: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        if not self.holding:
            return maybeDeferred(work, *arguments)
        done: Deferred[Any] = Deferred()
        self.held.append(lambda: maybeDeferred(work, *arguments).chainDeferred(done))
        return done

    def release(self) -> None:
        """Let what is in the thread come to its end, and what follows from that begin."""
        self.held.pop(0)()
        self.settle()

    def settle(self) -> None:
        """Let everything happen that is to happen now."""
        self.clock.advance(0)

    def quiet(self) -> None:
        """Let a quiet moment pass, and the one after it in which what was given up is compacted."""
        self.clock.pump([QUIET] * 3)

    def fifo(self, *sizes: int, name: bytes = b"q") -> Fifo:
        """@return: a queue with items of these sizes, each put by a turn of its own."""
        fifo = Fifo(name, self.store, self.commit, self.reclaimer, self.expiry, MemoryBudget())
        self.put(fifo, *sizes)
        return fifo

    def put(self, fifo: Fifo, *sizes: int) -> None:
        """Put items of these sizes, each by a turn of its own."""
        for size in sizes:
            fifo.put(0, 0, size, bytes(size))
            self.settle()

    def kept(self, fifo: Fifo) -> list[int]:
        """@return: the ids of the items that the store has still room for."""
        assert fifo.number is not None
        return sorted(self.store.queues[fifo.number].items)

    def take(self, fifo: Fifo, count: int) -> None:
        """Consume items with one turn."""
        for _ in range(count):
            self.assertIsNotNone(fifo.take())
        self.settle()

    def flush(self, fifo: Fifo) -> None:
        """Consume all items with one turn, which knows nothing of their runs."""
        fifo.flush()
        self.settle()

    def open(self, fifo: Fifo) -> OpenRead:
        read = fifo.open()
        assert read is not None
        return read


MUCH = RECLAIM_BYTES // 2
"""The size of items of which two are worth while to be reclaimed at once."""


class ConsumedTests(ReclaimTestCase):
    """Reclaiming the space of consumed items."""

    def test_much(self) -> None:
        """Much is reclaimed at once, but not before the turn that consumed it is written."""
        fifo = self.fifo(MUCH, MUCH, 10)
        fifo.take()
        fifo.take()
        self.commit.end()
        self.assertEqual(self.kept(fifo), [0, 1, 2])
        self.settle()
        self.assertEqual(self.kept(fifo), [2])

    def test_little(self) -> None:
        """Little is reclaimed in a quiet moment."""
        fifo = self.fifo(10, 10, 10)
        self.take(fifo, 2)
        self.assertEqual(self.kept(fifo), [0, 1, 2])
        self.assertTrue(self.reclaimer.pending)
        self.clock.advance(QUIET)
        self.assertEqual(self.kept(fifo), [2])
        self.quiet()
        self.assertFalse(self.reclaimer.pending)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_little_by_little(self) -> None:
        """Constant reads delay the quiet moment only once."""
        fifo = self.fifo(*[10] * 10)
        for _ in range(5):
            self.take(fifo, 1)
            self.clock.advance(QUIET / 4)
        self.assertEqual(self.kept(fifo)[0], 4)

    def test_nothing_written_down(self) -> None:
        """Items whose consumption could not be written are kept."""
        fifo = self.fifo(MUCH, MUCH)
        self.store.full = True
        fifo.take()
        fifo.take()
        self.settle()
        self.quiet()
        self.assertEqual(self.kept(fifo), [0, 1])

    def test_behind_an_open_item(self) -> None:
        """An old item that stays open does not delay the reclaiming of items behind it."""
        fifo = self.fifo(MUCH, MUCH, MUCH, 10)
        read = self.open(fifo)
        self.take(fifo, 2)
        self.assertEqual(self.kept(fifo), [0, 3])
        read.close()
        self.settle()
        self.quiet()
        self.assertEqual(self.kept(fifo), [3])

    def test_behind_an_item_that_was_given_back(self) -> None:
        fifo = self.fifo(10, MUCH, MUCH)
        read = self.open(fifo)
        self.take(fifo, 2)
        read.abort()
        self.quiet()
        self.assertEqual(self.kept(fifo), [0])
        item = fifo.take()
        assert item is not None
        self.assertEqual(item.id, 0)

    def test_bounded_steps(self) -> None:
        """Other work gets the thread between the steps."""
        self.patch(reclaiming, "STEP", 2)
        fifo = self.fifo(*[10] * 7)
        self.flush(fifo)
        self.holding = True
        self.clock.advance(QUIET)
        kept = []
        while self.held:
            kept.append(len(self.kept(fifo)))
            self.release()
        self.assertEqual(kept, [7, 5, 3, 1])
        self.assertEqual(self.kept(fifo), [])

    def test_not_looked_at_again(self) -> None:
        """What is reclaimed is not looked at again, nor would it be after a restart."""
        fifo = self.fifo()
        for count in (2, 3):
            self.put(fifo, *[10] * count)
            self.flush(fifo)
            self.quiet()
        self.assertEqual([(start, stop, at) for _, start, stop, at, _ in self.store.steps], [(0, 2, 0), (0, 5, 2)])
        self.assertEqual(fifo.storage.ledger.reclaimed.low, 5)
        self.put(fifo, 10)
        self.take(fifo, 1)
        self.assertEqual(next(self.store.recover()).floor, 5)

    def test_interval_that_grows(self) -> None:
        """Behind an open item as well, only what came to it is looked at."""
        fifo = self.fifo(10)
        self.open(fifo)
        for count in (2, 3):
            self.put(fifo, *[10] * count)
            self.flush(fifo)
            self.quiet()
        self.assertEqual([(start, stop, at) for _, start, stop, at, _ in self.store.steps], [(1, 3, 1), (1, 6, 3)])

    def test_no_longer_consumed(self) -> None:
        """Items whose consumption was undone before they were reclaimed are kept."""
        fifo = self.fifo(10, 10)
        assert fifo.number is not None
        self.reclaimer.reclaim(fifo, fifo.number, [(0, 2)])
        self.settle()
        self.assertEqual(self.kept(fifo), [0, 1])

    def test_deleted_meanwhile(self) -> None:
        """The steps for a deleted queue do not touch the new queue of the same name."""
        fifo = self.fifo(10, 10)
        number = fifo.number
        assert number is not None
        fifo.delete()
        fifo.put(0, 0, 1, b"x")
        self.settle()
        self.reclaimer.reclaim(fifo, number, [(0, 2)])
        self.settle()
        self.assertEqual(self.store.steps, [])
        self.assertEqual(self.kept(fifo), [0])

    def test_deleted_under_a_step(self) -> None:
        fifo = self.fifo(MUCH, MUCH, 10)
        self.holding = True
        self.take(fifo, 2)
        fifo.delete()
        fifo.put(0, 0, 1, b"x")
        self.settle()
        while self.held:
            self.release()
        self.assertEqual(fifo.storage.ledger.reclaimed.low, 0)
        self.assertEqual(self.kept(fifo), [0])
        self.assertEqual(self.store.leftovers(), ([], []))


class DeletedTests(ReclaimTestCase):
    """Reclaiming the space of deleted queues."""

    def test_deleted(self) -> None:
        self.patch(reclaiming, "STEP", 2)
        fifo = self.fifo(*[10] * 5)
        fifo.delete()
        self.settle()
        self.assertEqual(self.store.leftovers(), ([], []))
        self.assertEqual(self.store.queues, {})

    def test_left_over(self) -> None:
        """A process continues the reclaiming that an earlier process had not finished."""
        writer = Writer(self.store)
        writer.put_large(CHUNK_BYTES * 2)
        writer.remove()
        write_stream(self.store, CHUNK_BYTES * 2)
        self.start()
        self.settle()
        self.assertEqual(self.store.leftovers(), ([], []))
        self.assertEqual((self.store.queues, self.store.chunks), ({}, {}))

    def test_forgotten(self) -> None:
        """Nothing of a deleted queue stays in memory, even if it was read just before."""
        fifo = self.fifo(MUCH, MUCH, 10)
        fifo.take()
        fifo.take()
        self.commit.end()
        fifo.delete()
        self.commit.end()
        self.settle()
        self.quiet()
        self.assertEqual(self.store.leftovers(), ([], []))
        self.assertFalse(self.reclaimer.pending)


class StreamTests(ReclaimTestCase):
    """Reclaiming the space of large items."""

    def setUp(self) -> None:
        super().setUp()
        self.queue = self.fifo()
        size = 2 * CHUNK_BYTES
        self.stream = write_stream(self.store, size)
        self.queue.put(0, 0, size, b"", self.stream)
        self.settle()

    def test_consumed(self) -> None:
        self.take(self.queue, 1)
        self.quiet()
        self.assertEqual(self.store.chunks, {})
        self.assertEqual(self.store.leftovers(), ([], []))

    def test_read_meanwhile(self) -> None:
        """A stream is kept as long as a client reads it."""
        for _ in range(2):
            self.reclaimer.pin(self.stream)
        self.take(self.queue, 1)
        self.quiet()
        self.assertEqual(len(self.store.chunks[self.stream]), 2)
        self.reclaimer.unpin(self.stream)
        self.settle()
        self.assertEqual(len(self.store.chunks[self.stream]), 2)
        self.reclaimer.unpin(self.stream)
        self.settle()
        self.assertEqual(self.store.chunks, {})

    def test_read_only(self) -> None:
        """A peek reclaims nothing."""
        self.reclaimer.pin(self.stream)
        self.reclaimer.unpin(self.stream)
        self.quiet()
        self.assertEqual(len(self.store.chunks[self.stream]), 2)

    def test_given_up_by_its_writer(self) -> None:
        """Chunks that are written after their writer was abandoned are reclaimed too."""
        stream = self.store.new_stream()
        for index in range(2):
            self.commit.chunk(self.inflow(), stream, index, bytes(CHUNK_BYTES))
        self.reclaimer.stream(stream)
        self.settle()
        self.assertNotIn(stream, self.store.chunks)
        self.assertEqual(self.store.leftovers(), ([], []))

    def inflow(self) -> Any:
        class Careless:
            def fail(self, error: StoreError) -> None:
                raise AssertionError("nothing fails here")

        return Careless()


class CompactionTests(ReclaimTestCase):
    """Compaction returns reclaimed space to the file system."""

    def test_quiet(self) -> None:
        """Little reclaimed space waits for a quiet moment."""
        fifo = self.fifo(10, 10)
        self.take(fifo, 1)
        self.clock.advance(QUIET)
        self.assertEqual(self.store.compactions, 0)
        self.clock.advance(QUIET)
        self.assertEqual(self.store.compactions, 1)
        self.clock.pump([QUIET] * 10)
        self.assertEqual(self.store.compactions, 1)

    def test_quiet_where_a_queue_was_read_and_deleted(self) -> None:
        """Nothing is left to be written of these reads, so the quiet moment need not wait."""
        fifo = self.fifo(10, 10)
        self.take(fifo, 1)
        fifo.delete()
        self.settle()
        self.quiet()
        self.assertEqual(self.store.compactions, 1)
        self.assertFalse(self.reclaimer.pending)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_an_earlier_process_has_left(self) -> None:
        self.patch(self.store, "uncompacted", lambda: True)
        self.start()
        self.settle()
        self.assertEqual(self.store.compactions, 0, "in a quiet moment")
        self.quiet()
        self.assertEqual(self.store.compactions, 1)
        self.assertFalse(self.reclaimer.pending)

    def test_much(self) -> None:
        self.patch(reclaiming, "COMPACT_BYTES", 2 * MUCH)
        fifo = self.fifo(MUCH, MUCH, 10)
        self.take(fifo, 2)
        self.assertEqual(self.store.compactions, 1)

    def test_much_in_one_go(self) -> None:
        """Also between the steps, so that no compaction has much to do."""
        self.patch(reclaiming, "STEP", 2)
        self.patch(reclaiming, "COMPACT_BYTES", 2 * MUCH)
        fifo = self.fifo(*[MUCH] * 6)
        fifo.delete()
        self.settle()
        self.assertEqual(self.store.compactions, 3)

    def test_fault(self) -> None:
        """A failed compaction is tried again, and the other work goes on."""
        self.patch(reclaiming, "COMPACT_BYTES", 2 * MUCH)
        fifo = self.fifo(MUCH, MUCH, 10)
        stream = write_stream(self.store, CHUNK_BYTES)
        self.store.faults = [None, StoreError("no")]
        fifo.take()
        fifo.take()
        self.commit.end()
        self.reclaimer.stream(stream)
        self.settle()
        self.assertEqual((self.kept(fifo), self.store.compactions), ([2], 0))
        self.clock.pump([RETRY] * 3)
        self.assertGreaterEqual(self.store.compactions, 1)
        self.assertNotIn(stream, self.store.chunks)
        self.assertFalse(self.reclaimer.pending)


class OneAtATimeTests(ReclaimTestCase):
    """The thread gets one step at a time."""

    def test_quiet_moment_under_a_step(self) -> None:
        """Work of the quiet moment waits until the running step ends."""
        fifo, deleted = self.fifo(10, 10), self.fifo(10, name=b"deleted")
        self.holding = True
        deleted.delete()
        self.settle()
        self.take(fifo, 1)
        self.clock.pump([QUIET] * 3)
        self.assertEqual(len(self.held), 1)
        self.holding = False
        self.release()
        self.quiet()
        self.assertEqual(self.kept(fifo), [1])
        self.assertEqual(self.store.leftovers(), ([], []))
        self.assertFalse(self.reclaimer.pending)


class FaultTests(ReclaimTestCase):
    """The store fails; reclaiming continues by itself when it works again."""

    def test_tried_again(self) -> None:
        """Reclaiming continues after the store is mended, even if no client writes."""
        fifo = self.fifo(MUCH, MUCH, 10)
        self.store.faults = [StoreError("no"), StoreError("still not")]
        self.take(fifo, 2)
        self.assertEqual(self.kept(fifo), [0, 1, 2])
        self.assertTrue(self.reclaimer.pending)
        self.clock.advance(RETRY)
        self.assertEqual(self.kept(fifo), [0, 1, 2])
        self.clock.advance(RETRY)
        self.assertEqual(self.kept(fifo), [2])

    def test_between_steps(self) -> None:
        self.patch(reclaiming, "STEP", 2)
        fifo = self.fifo(*[10] * 5)
        self.store.faults = [None, StoreError("no")]
        self.flush(fifo)
        self.clock.advance(QUIET)
        self.assertEqual(self.kept(fifo), [2, 3, 4])
        self.clock.advance(RETRY)
        self.assertEqual(self.kept(fifo), [])

    def test_unexpected(self) -> None:
        """An internal error is logged, and the other work goes on."""
        streams = [write_stream(self.store, CHUNK_BYTES) for _ in range(2)]
        self.store.faults = [ZeroDivisionError("ours")]
        for stream in streams:
            self.reclaimer.stream(stream)
        self.settle()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(list(self.store.chunks), [streams[0]])
        self.quiet()
        self.assertFalse(self.reclaimer.pending)


class StopTests(ReclaimTestCase):
    """A clean stop."""

    def test_idle(self) -> None:
        self.successResultOf(self.reclaimer.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_before_a_quiet_moment(self) -> None:
        """Little work is left to the next process."""
        fifo = self.fifo(10, 10)
        self.take(fifo, 1)
        self.successResultOf(self.reclaimer.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.kept(fifo), [0, 1])

    def test_under_a_step(self) -> None:
        """A stop waits for the running step, and no other follows."""
        self.patch(reclaiming, "STEP", 2)
        fifo = self.fifo(*[10] * 5)
        self.flush(fifo)
        self.holding = True
        self.clock.advance(QUIET)
        stopped = self.reclaimer.stop()
        self.assertNoResult(stopped)
        self.release()
        self.successResultOf(stopped)
        self.assertEqual((self.kept(fifo), self.held), ([2, 3, 4], []))
        self.assertEqual(fifo.storage.ledger.reclaimed.low, 0)

    def test_log(self) -> None:
        """An attempt each second does not fill the log, and at the stop it says what was left out."""
        fifo = self.fifo(MUCH, MUCH)
        self.store.faults = [StoreError("no") for _ in range(30)]
        with capturedLogs() as logs:
            self.take(fifo, 2)
            self.clock.pump([RETRY] * 10)
            self.reclaimer.stop()
            self.commit.stop()
        failed = "cannot reclaim disk space, will try again: no"
        first, last = map(formatEvent, logs)
        self.assertEqual(first, failed)
        self.assertRegex(last, failed + r" \(\d+ more in the last 10 s\)")

    def test_under_a_compaction(self) -> None:
        """A stop interrupts a compaction, which may have hundreds of ranges left."""
        fifo = self.fifo(10)
        self.take(fifo, 1)
        self.clock.advance(QUIET)
        self.settle()
        self.holding = True
        self.clock.advance(QUIET)
        self.assertEqual(len(self.held), 1)
        stopped = self.reclaimer.stop()
        self.assertNoResult(stopped)
        self.release()
        self.successResultOf(stopped)
        self.assertEqual(self.store.compactions, 0)

    def test_under_a_step_that_fails(self) -> None:
        for fault in (StoreError("no"), ZeroDivisionError("ours")):
            self.setUp()
            fifo = self.fifo(MUCH, MUCH)
            self.holding = True
            self.store.faults = [fault]
            self.take(fifo, 2)
            stopped = self.reclaimer.stop()
            self.release()
            self.successResultOf(stopped)
            self.commit.log.close()
            self.assertEqual(self.clock.getDelayedCalls(), [])
        self.flushLoggedErrors(ZeroDivisionError)

    def test_afterwards(self) -> None:
        """The last turns of a stopping server start no reclaiming."""
        fifo = self.fifo(MUCH, MUCH, 10)
        self.reclaimer.stop()
        self.take(fifo, 3)
        fifo.delete()
        self.settle()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.store.leftovers()[0]), 1)
