"""
Tests of `darner.queues.streams`: large items on their way in and out.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from darner.errors import StoreError
from darner.queues.disk_space import DiskSpace
from darner.queues.streams import PayloadReader, PayloadWriter
from darner.values.vocabulary import CHUNK_BYTES
from test.queues.test_reclaiming import ReclaimTestCase


class StreamTestCase(ReclaimTestCase):
    """A test case with a queue to put items on."""

    def setUp(self) -> None:
        super().setUp()
        self.queue = self.fifo()

    def inflow(self, *pieces: bytes) -> PayloadWriter:
        space = DiskSpace(self.store, self.clock, None, self.clock.seconds)
        inflow = PayloadWriter(self.store, self.commit, self.reclaimer, space)
        for piece in pieces:
            inflow.write(piece)
        return inflow

    def nothing_is_left(self) -> bool:
        """@return: whether the store has no chunk, once everything has happened that is to happen."""
        self.settle()
        return not self.store.chunks and self.store.leftovers() == ([], [])


class InflowTests(StreamTestCase):
    """The payload of an item that is being set."""

    def test_small(self) -> None:
        """A payload of one chunk at most is kept in memory."""
        for pieces in ((), (b"",), (b"abc",), (b"a", b"", b"bc"), (bytes(CHUNK_BYTES - 1), b"x")):
            inflow = self.inflow(*pieces)
            payload = b"".join(pieces)
            self.assertEqual((inflow.finish(), inflow.stream, inflow.size), (payload, 0, len(payload)))
            self.assertTrue(self.nothing_is_left())

    def test_large(self) -> None:
        inflow = self.inflow(b"a" * CHUNK_BYTES, b"b" * CHUNK_BYTES, b"c")
        self.assertEqual(inflow.finish(), b"")
        self.assertEqual(inflow.size, 2 * CHUNK_BYTES + 1)
        self.settle()
        chunks = self.store.chunks[inflow.stream]
        self.assertEqual(chunks, {0: b"a" * CHUNK_BYTES, 1: b"b" * CHUNK_BYTES, 2: b"c"})

    def test_full_chunks(self) -> None:
        """If the last chunk is full, no empty one follows it."""
        inflow = self.inflow(bytes(2 * CHUNK_BYTES))
        inflow.finish()
        self.settle()
        self.assertEqual([len(data) for data in self.store.chunks[inflow.stream].values()], [CHUNK_BYTES] * 2)

    def test_written_as_it_comes(self) -> None:
        """At most one chunk of the payload is in memory."""
        inflow = self.inflow()
        for received in range(1, 40):
            inflow.write(bytes(CHUNK_BYTES // 4))
            self.settle()
            written = sum(len(data) for chunks in self.store.chunks.values() for data in chunks.values())
            self.assertLessEqual(received * CHUNK_BYTES // 4 - written, CHUNK_BYTES)

    def test_not_held_until_put(self) -> None:
        """After a crash before the put, the next process reclaims the chunks."""
        inflow = self.inflow(bytes(CHUNK_BYTES + 1))
        inflow.finish()
        self.settle()
        self.assertEqual(self.store.leftovers(), ([], [inflow.stream]))
        self.queue.put(0, 0, inflow.size, b"", inflow.stream)
        self.settle()
        self.assertEqual(self.store.leftovers(), ([], []))

    def test_abandoned(self) -> None:
        """A client that goes away leaves nothing behind, whether its chunks are written yet or not."""
        for written in (False, True):
            inflow = self.inflow(bytes(3 * CHUNK_BYTES))
            if written:
                self.settle()
                self.assertEqual(len(self.store.chunks), 1)
            inflow.abandon()
            inflow.abandon()
            self.assertEqual(inflow.stream, 0)
            self.assertTrue(self.nothing_is_left())

    def test_abandoned_small(self) -> None:
        self.inflow(b"abc").abandon()
        self.assertTrue(self.nothing_is_left())

    def test_no_stream_to_be_had(self) -> None:
        """The rest is counted, so that the connection stays in step, but not kept."""
        self.store.full = True
        inflow = self.inflow(bytes(CHUNK_BYTES), b"x", bytes(CHUNK_BYTES))
        self.assertIsInstance(inflow.error, StoreError)
        self.assertEqual(inflow.size, 2 * CHUNK_BYTES + 1)
        self.assertIs(self.assertRaises(StoreError, inflow.finish), inflow.error)
        self.store.full = False
        self.assertTrue(self.nothing_is_left())

    def test_chunk_is_refused(self) -> None:
        """The chunks written before are reclaimed, and the reply has the first error."""
        inflow = self.inflow(bytes(CHUNK_BYTES + 1))
        self.settle()
        inflow.write(bytes(CHUNK_BYTES))
        self.store.full = True
        self.settle()
        self.store.full = False
        self.assertEqual(str(inflow.error), "no room")
        inflow.fail(StoreError("another reason"))
        inflow.write(bytes(CHUNK_BYTES))
        self.assertEqual(inflow.size, 3 * CHUNK_BYTES + 1)
        self.assertEqual(str(self.assertRaises(StoreError, inflow.finish)), "no room")
        self.assertTrue(self.nothing_is_left())

    def test_last_chunk_is_refused(self) -> None:
        """The item that was to hold it is refused in the same turn."""
        inflow = self.inflow(bytes(CHUNK_BYTES + 1))
        self.settle()
        inflow.finish()
        self.queue.put(0, 0, inflow.size, b"", inflow.stream)
        self.store.full = True
        self.settle()
        self.store.full = False
        self.assertEqual(self.queue.count, 0)
        self.assertTrue(self.nothing_is_left())


class OutflowTests(StreamTestCase):
    """The payload of a large item on its way to a reader."""

    def setUp(self) -> None:
        super().setUp()
        self.done = 0
        self.payload = b"a" * CHUNK_BYTES + b"b" * CHUNK_BYTES + b"c"
        inflow = self.inflow(self.payload)
        inflow.finish()
        self.item = self.queue.put(0, 0, inflow.size, b"", inflow.stream)
        self.settle()

    def outflow(self) -> PayloadReader:
        return PayloadReader(self.store, self.reclaimer, self.item, self.note)

    def note(self) -> None:
        self.done += 1

    def consume(self) -> None:
        self.take(self.queue, 1)
        self.quiet()

    def test_read(self) -> None:
        """A chunk at a time; done once, with the last."""
        outflow = self.outflow()
        self.assertEqual([len(next(outflow)) for _ in range(3)], [CHUNK_BYTES, CHUNK_BYTES, 1])
        self.assertEqual(self.done, 0)
        self.assertEqual(list(outflow), [])
        self.assertEqual(list(outflow), [])
        self.assertEqual(self.done, 1)

    def test_consumed_while_it_is_read(self) -> None:
        """The reader gets it whole, and then its room is given back."""
        outflow = self.outflow()
        first = next(outflow)
        self.consume()
        self.assertEqual(first + b"".join(outflow), self.payload)
        self.assertTrue(self.nothing_is_left())

    def test_cancel(self) -> None:
        """A reader that goes away holds up nothing."""
        outflow = self.outflow()
        next(outflow)
        self.consume()
        outflow.cancel()
        outflow.cancel()
        self.assertEqual(self.done, 1)
        self.assertTrue(self.nothing_is_left())

    def test_several_readers(self) -> None:
        one, other = self.outflow(), self.outflow()
        self.consume()
        self.assertEqual(b"".join(one), self.payload)
        self.settle()
        self.assertEqual(b"".join(other), self.payload)
        self.assertTrue(self.nothing_is_left())

    def test_chunk_that_cannot_be_read(self) -> None:
        outflow = self.outflow()
        next(outflow)
        del self.store.chunks[self.item.stream][1]
        self.assertRaises(StoreError, next, outflow)
        self.assertEqual(self.done, 0)
        outflow.cancel()
        self.assertEqual(self.done, 1)


class ThroughTests(StreamTestCase):
    """In and out again."""

    @given(st.lists(st.one_of(st.integers(0, 100), st.integers(0, 3 * CHUNK_BYTES)), max_size=6))
    @settings(deadline=None, max_examples=50)
    def test_any_pieces(self, sizes: list[int]) -> None:
        pieces = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
        inflow = self.inflow(*pieces)
        payload = inflow.finish()
        if inflow.stream:
            item = self.queue.put(0, 0, inflow.size, payload, inflow.stream)
            self.settle()
            payload = b"".join(PayloadReader(self.store, self.reclaimer, item, lambda: None))
        self.assertEqual(payload, b"".join(pieces))
        self.assertEqual(bool(inflow.stream), len(payload) > CHUNK_BYTES)
