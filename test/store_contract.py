"""
What every L{IStore} promises, as tests.

A store's own test module mixes L{StoreContract} into a test case and says how to make a store, and how to open anew
what an earlier one left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Optional

from zope.interface.verify import verifyObject

from darner.errors import StoreError
from darner.store.batch import Batch
from darner.store.interfaces import IStore
from darner.values.consumed import Consumed
from darner.values.items import Delayed, Generation, Imported, Item, Mark, QueueState, Step
from darner.values.vocabulary import CHUNK_BYTES

if TYPE_CHECKING:
    from twisted.trial.unittest import SynchronousTestCase

    Base = SynchronousTestCase
else:
    Base = object

EVERYTHING = 10_000_000
"""More bytes than any test reads."""


def small(id: int, payload: bytes = b"payload") -> Item:
    return Item(id, 7, 1_700_000_000_000 + id, 0, len(payload), payload)


def large(id: int, stream: int, size: int) -> Item:
    return Item(id, 7, 1_700_000_000_000 + id, 0, size, stream=stream)


class Writer:
    """Writes to one queue, and keeps count as a queue does."""

    def __init__(self, store: IStore, name: bytes = b"q") -> None:
        self.store = store
        self.name = name
        self.number = store.new_number()
        self.next_id = self.bytes_put = self.bytes_consumed = 0
        self.consumed = Consumed()
        self._write(lambda batch: batch.create(name, self.number, 1000))

    def _write(self, change: Callable[[Batch], None]) -> None:
        batch = Batch()
        change(batch)
        self.store.write(batch)

    def put(self, *payloads: bytes) -> list[Item]:
        """Put items with one turn."""
        return self.put_items([small(id, payload) for id, payload in enumerate(payloads, self.next_id)])

    def put_items(self, items: list[Item]) -> list[Item]:
        self.next_id += len(items)
        self.bytes_put += sum(item.size for item in items)
        self._write(lambda batch: batch.put(self.number, items, self.bytes_put))
        return items

    def put_large(self, size: int) -> Item:
        """Put one large item; each of its chunks is filled with its own index."""
        stream = write_stream(self.store, size)
        return self.put_items([large(self.next_id, stream, size)])[0]

    def consume(self, start: int, stop: int, bytes_consumed: int = 0) -> None:
        """Consume ids with one turn."""
        self.consumed.add(start, stop)
        self.bytes_consumed += bytes_consumed

        def change(batch: Batch) -> None:
            batch.mark(self.number, Mark(self.consumed.low, self.next_id, self.bytes_put, self.bytes_consumed))
            batch.consume(self.number, self.consumed.take_changes())

        self._write(change)

    def remove(self) -> None:
        self._write(lambda batch: batch.remove(self.name, self.number))

    def items(self) -> list[Item]:
        """The items that the store has, those that are consumed left out."""
        found = self.store.read(self.number, 0, self.next_id, EVERYTHING)
        return [item for item in found if item.id not in self.consumed]


def write_stream(store: IStore, size: int) -> int:
    """Write a stream that no item holds yet; each of its chunks is filled with its own index."""
    stream = store.new_stream()
    for index, at in enumerate(range(0, size, CHUNK_BYTES)):
        batch = Batch()
        batch.chunk(stream, index, bytes([index % 256]) * min(CHUNK_BYTES, size - at))
        store.write(batch)
    return stream


def all_steps(step: Callable[[int], Step]) -> tuple[list[Step], list[int]]:
    """
    Reclaim to the end.

    @return: the steps, and the streams that no item holds any more.
    """
    steps = [step(0)]
    while (next_id := steps[-1].next_id) is not None:
        assert len(steps) < 10_000, "reclaiming does not come to an end"
        steps.append(step(next_id))
    return steps, [stream for made in steps for stream in made.streams]


def drain(store: IStore, limit: int = 100) -> None:
    """Reclaim all deleted queues and all streams that no item holds."""
    for number in store.leftovers()[0]:
        all_steps(lambda next_id, number=number: store.reclaim_queue(number, next_id, limit))
    for stream in store.leftovers()[1]:
        all_steps(lambda index, stream=stream: store.reclaim_stream(stream, index, limit))


def described(states: Sequence[QueueState]) -> dict[bytes, tuple[object, ...]]:
    """States as something to compare."""
    return {
        state.name: (
            state.number,
            state.created,
            state.next_id,
            state.bytes_put,
            state.bytes_consumed,
            list(state.consumed.intervals()),
        )
        for state in states
    }


class StoreContract(Base):
    """What a store promises, whatever it is made of."""

    def make_store(self) -> IStore:
        """@return: a new, empty store; it is closed when the test ends."""
        raise NotImplementedError

    def reopen(self, store: IStore) -> IStore:
        """Close a store and open anew what it left."""
        raise NotImplementedError

    def setUp(self) -> None:
        self.store = self.make_store()

    def again(self) -> None:
        """Go on with what the store left behind, as after a restart."""
        self.store = self.reopen(self.store)

    def state(self, name: bytes = b"q") -> QueueState:
        """What recovery finds of a queue after a restart."""
        self.again()
        return {state.name: state for state in self.store.recover()}[name]

    # What it is

    def test_interfaces(self) -> None:
        self.assertTrue(verifyObject(IStore, self.store))

    def test_empty(self) -> None:
        self.assertEqual(list(self.store.recover()), [])
        self.assertEqual(self.store.leftovers(), ([], []))

    def test_close_twice(self) -> None:
        Writer(self.store)
        self.store.close()
        self.store.close()
        self.assertEqual(len(list(self.reopen(self.store).recover())), 1)

    # Numbers

    def test_numbers_are_never_given_twice(self) -> None:
        given = [[self.store.new_number(), self.store.new_stream()] for _ in range(3000)]
        self.again()
        given += [[self.store.new_number(), self.store.new_stream()] for _ in range(3000)]
        numbers, streams = zip(*given, strict=True)
        self.assertEqual(len(set(numbers)), 6000)
        self.assertEqual(len(set(streams)), 6000)

    def test_streams_begin_at_1(self) -> None:
        """0 says that an item has none."""
        self.assertEqual(self.store.new_stream(), 1)

    # Queues

    def test_create(self) -> None:
        number = Writer(self.store, b"made").number
        state = self.state(b"made")
        self.assertEqual((state.number, state.created), (number, 1000))
        self.assertEqual((state.next_id, state.bytes_put, state.bytes_consumed, state.floor), (0, 0, 0, 0))
        self.assertEqual(list(state.consumed.intervals()), [])

    def test_names_are_any_bytes(self) -> None:
        names = [b"..", b"a", b"a+b", b"N", b"!format", b"x" * 250]
        for name in names:
            Writer(self.store, name)
        self.again()
        self.assertEqual(sorted(state.name for state in self.store.recover()), sorted(names))

    def test_queues_do_not_mix(self) -> None:
        one, other = Writer(self.store, b"one"), Writer(self.store, b"other")
        first, second = one.put(b"1"), other.put(b"2", b"3")
        self.assertEqual(one.items(), first)
        self.assertEqual(other.items(), second)
        self.assertEqual(self.state(b"one").next_id, 1)
        self.assertEqual(self.state(b"other").next_id, 2)

    def test_batch_is_not_written_by_itself(self) -> None:
        number = self.store.new_number()
        batch = Batch()
        batch.create(b"q", number, 1)
        batch.put(number, [small(0)], 7)
        self.assertEqual(list(self.store.recover()), [])
        self.store.write(batch)
        self.assertEqual([state.next_id for state in self.store.recover()], [1])

    def test_sync(self) -> None:
        batch = Batch()
        batch.create(b"q", self.store.new_number(), 1)
        self.store.write(batch, sync=True)
        self.assertEqual(self.state().created, 1)

    def test_mend_what_is_whole(self) -> None:
        writer = Writer(self.store)
        items = writer.put(b"1")
        self.store.mend()
        self.assertEqual(writer.items(), items)

    # Items

    def test_items_come_back_whole(self) -> None:
        items = [
            Item(0, 0, 0, 0, 0, b""),
            Item(1, 2**32 - 1, 2**63, 2**63, 1, b"\0"),
            Item(2, 1, 2, 3, 12, b"\r\nEND\r\n\xff\xfe\0\0\0"),
        ]
        writer = Writer(self.store)
        writer.put_items(items)
        self.again()
        self.assertEqual(self.store.read(writer.number, 0, 3, EVERYTHING), items)

    def test_read_a_part(self) -> None:
        writer = Writer(self.store)
        items = writer.put(b"0", b"1", b"2") + writer.put(b"3") + writer.put(b"4", b"5")
        for start in range(7):
            for stop in range(start, 8):
                self.assertEqual(self.store.read(writer.number, start, stop, EVERYTHING), items[start:stop])

    def test_read_is_bounded(self) -> None:
        """A read brings the first of what it was asked for, whatever its size, and not much more than asked for."""
        writer = Writer(self.store)
        items = [item for _ in range(20) for item in writer.put(bytes(1000))]
        for max_bytes in (1, 1000, 5000):
            found = self.store.read(writer.number, 4, 20, max_bytes)
            self.assertEqual(found, items[4 : 4 + len(found)])
            self.assertTrue(1 <= len(found) <= 1 + max_bytes // 1000, found)

    def test_next_id_and_bytes(self) -> None:
        """They follow from the last items put, where nothing was consumed since."""
        writer = Writer(self.store)
        writer.put(b"12", b"345")
        writer.put(b"6")
        state = self.state()
        self.assertEqual((state.next_id, state.bytes_put), (3, 6))

    # Consuming

    def test_low_water_mark(self) -> None:
        writer = Writer(self.store)
        writer.put(b"1", b"23", b"4")
        writer.consume(0, 2, 3)
        state = self.state()
        self.assertEqual((state.next_id, state.bytes_put, state.bytes_consumed), (3, 4, 3))
        self.assertEqual(list(state.consumed.intervals()), [(0, 2)])

    def test_marked_to_the_end(self) -> None:
        """A queue that was emptied goes on where it was."""
        writer = Writer(self.store)
        writer.put(b"1", b"23")
        writer.consume(0, 2, 3)
        state = self.state()
        self.assertEqual((state.next_id, state.bytes_put, state.bytes_consumed), (2, 3, 3))

    def test_put_after_the_mark(self) -> None:
        writer = Writer(self.store)
        writer.put(b"1", b"23")
        writer.consume(0, 1, 1)
        writer.put(b"456")
        state = self.state()
        self.assertEqual((state.next_id, state.bytes_put, state.bytes_consumed), (3, 6, 1))

    def test_mark_is_kept_whole(self) -> None:
        writer = Writer(self.store)
        batch = Batch()
        batch.mark(writer.number, Mark(5, 9, 100, 60, 4))
        self.store.write(batch)
        state = self.state()
        self.assertEqual((state.next_id, state.bytes_put, state.bytes_consumed, state.floor), (9, 100, 60, 4))
        self.assertEqual(state.consumed.low, 5)

    def test_holes_stay_holes(self) -> None:
        """
        An old item that stays open hides nothing: a restart finds exactly what was not consumed.
        """
        writer = Writer(self.store)
        items = [item for _ in range(50) for item in writer.put(b"x")]
        writer.consume(1, 20)
        writer.consume(21, 40)
        state = self.state()
        self.assertEqual(list(state.consumed.intervals()), [(1, 20), (21, 40)])
        self.assertEqual(state.next_id - len(state.consumed), 12)
        self.assertEqual(self.store.read(writer.number, 20, 21, EVERYTHING), [items[20]])

    def test_hole_is_closed(self) -> None:
        writer = Writer(self.store)
        writer.put(*[b"x"] * 10)
        writer.consume(1, 3)
        writer.consume(5, 7)
        writer.consume(0, 1)
        self.assertEqual(list(self.state().consumed.intervals()), [(0, 3), (5, 7)])
        writer.store = self.store
        writer.consume(3, 5)
        self.assertEqual(list(self.state().consumed.intervals()), [(0, 7)])

    # Reclaiming

    def test_reclaim(self) -> None:
        """What is consumed is given up in bounded steps; what is not stays."""
        writer = Writer(self.store)
        items = [item for _ in range(20) for item in writer.put(b"payload")]
        writer.consume(2, 15)
        steps, _ = all_steps(lambda next_id: self.store.reclaim(writer.number, 2, 15, next_id or 2, 4))
        self.assertGreaterEqual(len(steps), 3)
        self.assertGreater(sum(step.freed for step in steps), 0)
        self.assertEqual(self.store.read(writer.number, 0, 2, EVERYTHING), items[:2])
        self.assertEqual(self.store.read(writer.number, 15, 20, EVERYTHING), items[15:])
        state = self.state()
        self.assertEqual(state.next_id, 20)
        self.assertEqual(list(state.consumed.intervals()), [(2, 15)])
        self.assertEqual(self.store.read(writer.number, 15, 20, EVERYTHING), items[15:])

    def test_reclaim_a_part_of_a_turn(self) -> None:
        """What was put together is not lost together."""
        writer = Writer(self.store)
        items = writer.put(b"0", b"1", b"2", b"3") + writer.put(b"4", b"5", b"6", b"7")
        writer.consume(1, 7)
        all_steps(lambda next_id: self.store.reclaim(writer.number, 1, 7, next_id or 1, 10))
        self.assertEqual(writer.items(), [items[0], items[7]])

    def test_reclaim_again(self) -> None:
        """An interval that grew is reclaimed whole, also where a part of it was before."""
        writer = Writer(self.store)
        items = [item for _ in range(10) for item in writer.put(b"0", b"1", b"2")]
        writer.consume(0, 10)
        all_steps(lambda next_id: self.store.reclaim(writer.number, 0, 10, next_id, 100))
        writer.consume(10, 20)
        all_steps(lambda next_id: self.store.reclaim(writer.number, 0, 20, max(next_id, 10), 100))
        self.assertEqual(writer.items(), items[20:])
        steps, _ = all_steps(lambda next_id: self.store.reclaim(writer.number, 0, 20, max(next_id, 10), 100))
        self.assertEqual(steps, [Step()])

    def test_reclaim_nothing(self) -> None:
        writer = Writer(self.store)
        self.assertEqual(self.store.reclaim(writer.number, 0, 0, 0, 10), Step())

    def test_compact(self) -> None:
        writer = Writer(self.store)
        writer.put(*[b"x"] * 10)
        last = writer.put(b"last")
        writer.consume(0, 10)
        self.store.reclaim(writer.number, 0, 10, 0, 100)
        self.store.compact()
        self.store.compact()
        self.assertEqual(writer.items(), last)

    # Deleting

    def test_remove(self) -> None:
        """A deleted queue does not come back to life."""
        writer = Writer(self.store)
        writer.put(b"1")
        writer.remove()
        self.assertEqual(list(self.store.recover()), [])
        self.again()
        self.assertEqual(list(self.store.recover()), [])
        self.assertEqual(self.store.leftovers(), ([writer.number], []))

    def test_make_anew(self) -> None:
        """The queue that is made anew under the name of a deleted one has nothing of it."""
        writer = Writer(self.store)
        writer.put(b"old", b"older")
        writer.consume(0, 1)
        writer.remove()
        anew = Writer(self.store)
        items = anew.put(b"new")
        drain(self.store)
        self.assertEqual(anew.items(), items)
        state = self.state()
        self.assertEqual((state.number, state.next_id), (anew.number, 1))
        self.assertEqual(list(state.consumed.intervals()), [])

    def test_reclaim_queue(self) -> None:
        """In bounded steps; a restart between them forgets nothing."""
        before, writer, after = (Writer(self.store, name) for name in (b"a", b"b", b"c"))
        neighbours = before.put(b"before"), after.put(b"after")
        for _ in range(20):
            writer.put(b"payload")
        writer.consume(3, 5)
        writer.consume(7, 9)
        writer.remove()
        first = self.store.reclaim_queue(writer.number, 0, 5)
        self.assertIsNotNone(first.next_id)
        self.again()
        self.assertEqual(self.store.leftovers(), ([writer.number], []))
        steps, _ = all_steps(lambda next_id: self.store.reclaim_queue(writer.number, next_id, 5))
        self.assertGreaterEqual(len(steps), 3)
        self.assertEqual(self.store.leftovers(), ([], []))
        before.store = after.store = self.store
        self.assertEqual((before.items(), after.items()), neighbours)

    # Attempts

    def attempts(self, writer: Writer, *changes: tuple[int, int]) -> None:
        batch = Batch()
        batch.attempts(writer.number, changes)
        self.store.write(batch)

    def test_attempts(self) -> None:
        writer, other = Writer(self.store), Writer(self.store, b"other")
        writer.put(b"0", b"1", b"2", b"3")
        writer.consume(2, 3)
        self.assertEqual(self.state().attempts, {})
        self.attempts(writer, (0, 1), (1, 1), (3, 7))
        self.attempts(writer, (0, 2), (1, 0))
        self.attempts(other, (1, 0))
        self.again()
        self.assertEqual(self.state().attempts, {0: 2, 3: 7})
        self.assertEqual(list(self.state().consumed.intervals()), [(2, 3)])
        self.assertEqual(self.state(b"other").attempts, {})

    def test_attempts_of_what_is_consumed(self) -> None:
        """Below the low-water mark nobody asks for them."""
        writer = Writer(self.store)
        writer.put(b"0", b"1")
        self.attempts(writer, (0, 1), (1, 1))
        writer.consume(0, 1)
        self.assertEqual(self.state().attempts, {1: 1})

    def test_attempts_of_a_deleted_queue(self) -> None:
        writer = Writer(self.store)
        writer.put(b"0")
        self.attempts(writer, (0, 1))
        writer.remove()
        drain(self.store)
        self.store.compact()
        self.assertEqual(self.store.leftovers(), ([], []))

    # Delayed items

    def delay(self, number: int, *items: tuple[int, Item]) -> None:
        batch = Batch()
        batch.delay(number, items)
        self.store.write(batch)

    def test_delayed(self) -> None:
        """What is known of them comes back, and goes."""
        writer = Writer(self.store)
        for known in (Delayed(7, 3, 60, 1000, 12), Delayed(7, 2, 40, 2000, 12), None):
            batch = Batch()
            batch.delayed(writer.number, known)
            self.store.write(batch)
            self.again()
            self.assertEqual(self.state().delayed, known)

    def test_delayed_in_order(self) -> None:
        number, other = self.store.new_number(), self.store.new_number()
        items = [Item(id, 1, 2, 3, 3, b"%03d" % id) for id in range(6)]
        dues = [300, 100, 200, 100, 300, 400]
        self.delay(other, (150, Item(0, 0, 1, 0, 5, b"other")))
        self.delay(number, *zip(dues[:4], items[:4], strict=True))
        self.delay(number, *zip(dues[4:], items[4:], strict=True))
        self.again()
        read = self.store.read_delayed
        self.assertEqual(read(number, 0, 99, EVERYTHING), ([], 100))
        self.assertEqual(read(number, 0, 100, EVERYTHING), ([(100, items[1]), (100, items[3])], 200))
        self.assertEqual(read(number, 0, 350, 1), ([(100, items[1])], 100))
        rest = [(200, items[2]), (300, items[0]), (300, items[4]), (400, items[5])]
        self.assertEqual(read(number, 101, 900, EVERYTHING), (rest, None))
        self.assertEqual(read(77, 0, 900, EVERYTHING), ([], None))
        batch = Batch()
        batch.due(number, rest[:2])
        self.store.write(batch)
        for _ in range(2):
            self.store.delayed_deleted(number, 200, 300)
        self.store.compact()
        self.again()
        read = self.store.read_delayed
        self.assertEqual(read(number, 150, 900, EVERYTHING), (rest[2:], None))
        self.assertEqual(read(other, 0, 900, EVERYTHING)[0][0][1].payload, b"other")

    def test_delayed_that_are_discarded(self) -> None:
        """In bounded steps, and their streams with them."""
        number = self.store.new_number()
        stream = write_stream(self.store, CHUNK_BYTES + 1)
        self.delay(number, *((at % 7, Item(at, 0, 1, 0, 1, b"x")) for at in range(30)))
        self.delay(number, (3, large(30, stream, CHUNK_BYTES + 1)))
        self.assertEqual(self.store.leftovers(), ([], []))
        batch = Batch()
        batch.discard(number)
        self.store.write(batch)
        self.again()
        self.assertEqual(self.store.leftovers(), ([number], []))
        steps, streams = all_steps(lambda next_id: self.store.reclaim_queue(number, next_id, 4))
        self.assertGreater(len(steps), 6)
        self.assertEqual(streams, [stream])
        self.assertEqual(self.store.leftovers(), ([], [stream]))
        self.assertEqual(self.store.read_delayed(number, 0, 99, EVERYTHING), ([], None))

    def test_delayed_that_were_refused(self) -> None:
        """Whether they are there or not, they are not afterwards, and their streams are nobody's."""
        number = self.store.new_number()
        for there in (True, False):
            stream = write_stream(self.store, CHUNK_BYTES + 1)
            refused = [(5, large(0, stream, CHUNK_BYTES + 1)), (6, Item(1, 0, 1, 0, 1, b"x"))]
            if there:
                self.delay(number, *refused)
            self.delay(number, (5, Item(7, 0, 1, 0, 1, b"y")))
            batch = Batch()
            batch.undelay(number, refused)
            self.store.write(batch)
            self.assertEqual([item.id for _, item in self.store.read_delayed(number, 0, 9, EVERYTHING)[0]], [7])
            self.assertEqual(self.store.leftovers(), ([], [stream]))
            drain(self.store)
            self.assertEqual(self.store.leftovers(), ([], []))
            self.assertRaises(StoreError, self.store.chunk, stream, 0)

    def test_delayed_that_are_there_already(self) -> None:
        """They are written once more."""
        number = self.store.new_number()
        for _ in range(2):
            self.delay(number, (5, Item(7, 0, 1, 0, 1, b"y")))
        self.assertEqual(len(self.store.read_delayed(number, 0, 9, EVERYTHING)[0]), 1)

    def test_large_that_comes_due(self) -> None:
        """From then on the queue's item holds the stream, alone or with others."""
        for others in (0, 1):
            writer = Writer(self.store, b"%d" % others)
            number = self.store.new_number()
            stream = write_stream(self.store, CHUNK_BYTES + 1)
            delayed = large(0, stream, CHUNK_BYTES + 1)
            self.delay(number, (5, delayed))
            batch = Batch()
            for other in range(others):
                batch.share(stream, number, 0)
                batch.delay(number, [(9, large(1 + other, stream, CHUNK_BYTES + 1))])
                batch.share(stream, number, 1 + other)
            self.store.write(batch)
            batch = Batch()
            batch.due(number, [(5, delayed)])
            batch.put(writer.number, [large(0, stream, CHUNK_BYTES + 1)], CHUNK_BYTES + 1)
            batch.share(stream, writer.number, 0)
            self.store.write(batch)
            writer.next_id = 1
            writer.consume(0, 1)
            _, streams = all_steps(
                lambda next_id, number=writer.number: self.store.reclaim(number, 0, 1, next_id, 10)
            )
            self.assertEqual(streams, [stream] * (not others))

    # Ids of producers

    def see(self, generation: int, *ids: bytes, time: int = 5) -> None:
        batch = Batch()
        for id in ids:
            batch.seen(generation, id, time)
        self.store.write(batch)

    def keep(self, writer: Writer, current: Optional[Generation], previous: Optional[Generation]) -> None:
        batch = Batch()
        batch.generations(writer.number, current, previous)
        self.store.write(batch)

    def test_generations(self) -> None:
        writer, _ = Writer(self.store), Writer(self.store, b"other")
        self.assertEqual(self.state().generations, (None, None))
        one, two = (Generation(self.store.new_number(), since) for since in (1000, 2**40))
        for current, previous in ((one, None), (None, one), (two, one), (None, None)):
            self.keep(writer, current, previous)
            self.assertEqual(self.state().generations, (current, previous))
            self.assertEqual(self.state().attempts, {})
            self.assertEqual(self.state(b"other").generations, (None, None))

    def test_seen(self) -> None:
        writer = Writer(self.store)
        one, two = self.store.new_number(), self.store.new_number()
        self.keep(writer, Generation(two, 7), Generation(one, 6))
        ids = [bytes(16), b"\xff" * 16, b"0123456789abcdef"]
        self.see(one, *ids)
        self.see(two, ids[2], time=2**40)
        self.see(one, ids[0], time=0)
        self.again()
        self.assertEqual([self.store.seen(one, id) for id in ids], [None, 5, 5])
        self.assertEqual([self.store.seen(two, id) for id in ids], [None, None, 2**40])
        self.assertIsNone(self.store.seen(9999, ids[0]))

    def test_seen_is_discarded(self) -> None:
        """A whole generation in bounded steps, and nothing else."""
        writer = Writer(self.store)
        items = writer.put(b"x")
        one, two = self.store.new_number(), self.store.new_number()
        self.keep(writer, Generation(two, 7), Generation(one, 6))
        ids = [bytes([at]) * 16 for at in range(30)] + [b"12345678" + bytes([at]) * 8 for at in range(9)]
        self.see(one, *ids)
        self.see(two, *ids)
        batch = Batch()
        batch.generations(writer.number, Generation(two, 7), None)
        batch.discard(one)
        self.store.write(batch)
        self.again()
        self.assertEqual(self.store.leftovers(), ([one], []))
        steps, _ = all_steps(lambda next_id: self.store.reclaim_queue(one, next_id, 4))
        self.assertGreaterEqual(len(steps), len(ids) // 4)
        self.store.compact()
        self.assertEqual(self.store.leftovers(), ([], []))
        self.assertEqual({self.store.seen(one, id) for id in ids}, {None})
        self.assertEqual({self.store.seen(two, id) for id in ids}, {5})
        self.assertEqual(self.state().generations, (Generation(two, 7), None))
        writer.store = self.store
        self.assertEqual(writer.items(), items)

    def test_generations_of_a_deleted_queue(self) -> None:
        writer = Writer(self.store)
        one = self.store.new_number()
        self.keep(writer, Generation(one, 7), None)
        self.see(one, bytes(16))
        batch = Batch()
        batch.remove(b"q", writer.number)
        batch.discard(one)
        self.store.write(batch)
        drain(self.store)
        self.assertEqual(self.store.leftovers(), ([], []))
        self.assertIsNone(self.store.seen(one, bytes(16)))
        Writer(self.store)
        self.assertEqual(self.state().generations, (None, None))

    # Imports

    def test_imported(self) -> None:
        """How far a queue was imported, by source; it is no item, nor in their way, and goes with its queue."""
        writer, other = Writer(self.store), Writer(self.store, b"other")
        items = writer.put(b"x", b"y")
        self.assertEqual(self.store.imported(writer.number), [])
        one, two = Imported(b"a" * 16, b"f" * 16, 7, False), Imported(b"\xff" * 16, b"g" * 16, 2**40, True)
        for imported in (two, one, one._replace(items=9)):
            batch = Batch()
            batch.imported(writer.number, imported)
            self.store.write(batch)
        self.again()
        self.assertEqual(self.store.imported(writer.number), [one._replace(items=9), two])
        self.assertEqual(self.store.imported(other.number), [])
        self.assertEqual((self.state().next_id, self.state().attempts), (2, {}))
        writer.store = self.store
        self.assertEqual(writer.items(), items)
        writer.remove()
        drain(self.store)
        self.assertEqual(self.store.leftovers(), ([], []))
        self.assertEqual(self.store.imported(Writer(self.store).number), [])

    def test_reclaim_queue_by_ones(self) -> None:
        """However small the steps are, they come to an end."""
        writer = Writer(self.store)
        for _ in range(5):
            writer.put(b"payload")
        writer.consume(1, 2)
        writer.consume(3, 4)
        writer.remove()
        all_steps(lambda next_id: self.store.reclaim_queue(writer.number, next_id, 1))
        self.assertEqual(self.store.leftovers(), ([], []))

    def test_reclaim_queue_that_is_gone(self) -> None:
        """Harmless, as is the removal of one that was never made: its creation was refused."""
        self.assertIsNone(self.store.reclaim_queue(77, 0, 10).next_id)
        batch = Batch()
        batch.remove(b"q", 78)
        self.store.write(batch)
        drain(self.store)
        self.assertEqual(self.store.leftovers(), ([], []))

    # Streams

    def test_stream(self) -> None:
        writer = Writer(self.store)
        item = writer.put_large(CHUNK_BYTES * 2 + 5)
        self.again()
        self.assertEqual(self.store.read(writer.number, 0, 1, EVERYTHING), [item])
        chunks = [self.store.chunk(item.stream, index) for index in range(3)]
        self.assertEqual(chunks, [b"\0" * CHUNK_BYTES, b"\1" * CHUNK_BYTES, b"\2" * 5])
        self.assertEqual(self.store.leftovers(), ([], []))

    def test_missing_chunk(self) -> None:
        stream = write_stream(self.store, CHUNK_BYTES + 1)
        error = self.assertRaises(StoreError, self.store.chunk, stream, 2)
        self.assertEqual(str(error), f"chunk 2 of stream {stream} is missing")
        self.assertRaises(StoreError, self.store.chunk, stream + 1, 0)

    def test_large_items_do_not_fill_memory(self) -> None:
        """A large item is read as its stream's number: many of them fit in a read."""
        writer = Writer(self.store)
        items = [writer.put_large(CHUNK_BYTES * 3) for _ in range(3)]
        self.assertEqual(self.store.read(writer.number, 0, 3, CHUNK_BYTES), items)

    def test_stream_of_a_dead_writer(self) -> None:
        """What a client that died has written is found and reclaimed, also after a crash."""
        stream = write_stream(self.store, CHUNK_BYTES * 5)
        self.again()
        self.assertEqual(self.store.leftovers(), ([], [stream]))
        first = self.store.reclaim_stream(stream, 0, 2)
        self.assertIsNotNone(first.next_id)
        self.assertGreaterEqual(first.freed, 2 * CHUNK_BYTES)
        self.again()
        self.assertEqual(self.store.leftovers(), ([], [stream]))
        all_steps(lambda index: self.store.reclaim_stream(stream, index, 2))
        self.assertEqual(self.store.leftovers(), ([], []))
        for index in range(5):
            self.assertRaises(StoreError, self.store.chunk, stream, index)

    def test_stream_of_a_consumed_item(self) -> None:
        """The reader may still be at it: the stream outlives its item, and is reclaimed apart."""
        writer = Writer(self.store)
        item = writer.put_large(CHUNK_BYTES * 3)
        writer.put(b"small")
        writer.consume(0, 1)
        step = self.store.reclaim(writer.number, 0, 1, 0, 100)
        self.assertEqual((step.next_id, step.streams), (None, (item.stream,)))
        self.assertEqual(len(self.store.chunk(item.stream, 2)), CHUNK_BYTES)
        self.again()
        self.assertEqual(self.store.leftovers(), ([], [item.stream]))
        all_steps(lambda index: self.store.reclaim_stream(item.stream, index, 2))
        self.assertEqual(self.store.leftovers(), ([], []))
        self.assertRaises(StoreError, self.store.chunk, item.stream, 2)

    def share(self, *writers: Writer) -> int:
        """@return: a stream that an item of each of these queues holds; the first was there before the others."""
        first = writers[0].put_large(CHUNK_BYTES + 1)
        batch = Batch()
        batch.share(first.stream, writers[0].number, first.id)
        for writer in writers[1:]:
            item = large(writer.next_id, first.stream, first.size)
            writer.next_id += 1
            writer.bytes_put += item.size
            batch.put(writer.number, [item], writer.bytes_put)
            batch.share(first.stream, writer.number, item.id)
        self.store.write(batch)
        return first.stream

    def test_stream_that_several_items_hold(self) -> None:
        """It stays until the last of them is gone, in whatever order they go."""
        for order in ((0, 1, 2), (2, 0, 1)):
            writers = [Writer(self.store, b"%d of %d" % (at, order[0])) for at in range(3)]
            stream = self.share(*writers)
            for at in order:
                self.again()
                self.assertEqual(self.store.chunk(stream, 1), b"\1")
                writer = writers[at]
                writer.store = self.store
                writer.consume(0, 1)
                _, let_go = all_steps(
                    lambda next_id, number=writer.number: self.store.reclaim(number, 0, 1, next_id, 10)
                )
                self.assertEqual(let_go, [stream] if at == order[-1] else [])
            self.again()
            self.assertEqual(self.store.leftovers(), ([], [stream]))
            drain(self.store)
            self.assertRaises(StoreError, self.store.chunk, stream, 0)

    def test_stream_that_two_items_of_one_queue_hold(self) -> None:
        """Both go in one step."""
        writer = Writer(self.store)
        stream = self.share(writer, writer)
        writer.consume(0, 2)
        _, let_go = all_steps(lambda next_id: self.store.reclaim(writer.number, 0, 2, next_id, 10))
        self.assertEqual(let_go, [stream])
        drain(self.store)
        self.assertEqual(self.store.leftovers(), ([], []))

    def test_stream_that_deleted_queues_hold(self) -> None:
        one, other = Writer(self.store, b"one"), Writer(self.store, b"other")
        stream = self.share(one, other)
        one.remove()
        _, let_go = all_steps(lambda next_id: self.store.reclaim_queue(one.number, next_id, 10))
        self.assertEqual(let_go, [])
        self.assertEqual(self.store.chunk(stream, 1), b"\1")
        other.remove()
        _, let_go = all_steps(lambda next_id: self.store.reclaim_queue(other.number, next_id, 10))
        self.assertEqual(let_go, [stream])
        drain(self.store)

    def test_streams_of_a_deleted_queue(self) -> None:
        writer = Writer(self.store)
        streams = [writer.put_large(CHUNK_BYTES + 1).stream for _ in range(3)]
        writer.remove()
        _, let_go = all_steps(lambda next_id: self.store.reclaim_queue(writer.number, next_id, 2))
        self.assertEqual(let_go, streams)
        self.assertEqual(self.store.leftovers(), ([], streams))
        drain(self.store)
        self.assertEqual(self.store.leftovers(), ([], []))

    def test_reclaim_stream_that_is_gone(self) -> None:
        """Harmless: a client that dies while its write is refused gives its stream up twice."""
        self.assertEqual(self.store.reclaim_stream(77, 0, 10), Step())
        stream = write_stream(self.store, CHUNK_BYTES)
        self.assertGreater(self.store.reclaim_stream(stream, 0, 10).freed, CHUNK_BYTES - 1)
        self.assertEqual(self.store.reclaim_stream(stream, 0, 10), Step())
        self.assertEqual(self.store.leftovers(), ([], []))

    def test_stream_that_an_item_holds(self) -> None:
        """It is not reclaimed."""
        item = Writer(self.store).put_large(CHUNK_BYTES + 1)
        self.assertEqual(self.store.reclaim_stream(item.stream, 0, 10), Step())
        self.assertEqual(self.store.chunk(item.stream, 1), b"\1")

    def test_stream_that_came_to_be_held(self) -> None:
        """That it is not was said by a thread that had not seen that yet: it stays until its item is gone."""
        stream = write_stream(self.store, CHUNK_BYTES + 1)
        writer = Writer(self.store)
        item = large(0, stream, CHUNK_BYTES + 1)
        batch = Batch()
        batch.put(writer.number, [item], item.size)
        batch.share(stream, writer.number, 0)
        self.store.write(batch)
        writer.next_id, writer.bytes_put = 1, item.size
        batch = Batch()
        batch.chunk(stream, 0, b"\0" * CHUNK_BYTES)
        self.store.write(batch)
        self.assertEqual(self.store.reclaim_stream(stream, 0, 10), Step())
        self.again()
        self.assertEqual(self.store.leftovers(), ([], []))
        self.assertEqual(self.store.chunk(stream, 1), b"\1")
        writer.store = self.store
        writer.consume(0, 1)
        _, let_go = all_steps(lambda next_id: self.store.reclaim(writer.number, 0, 1, next_id, 10))
        self.assertEqual(let_go, [stream])
        drain(self.store)
        self.assertRaises(StoreError, self.store.chunk, stream, 0)

    def test_empty_batch(self) -> None:
        batch = Batch()
        self.assertTrue(batch.empty)
        batch.discard(5)
        self.assertFalse(batch.empty)

    def test_reclaim_one_stream(self) -> None:
        """Its neighbours stay."""
        streams = [write_stream(self.store, CHUNK_BYTES + 1) for _ in range(3)]
        all_steps(lambda index: self.store.reclaim_stream(streams[1], index, 1))
        self.assertEqual(self.store.leftovers(), ([], [streams[0], streams[2]]))
        self.assertEqual(self.store.chunk(streams[0], 1), b"\1")
        self.assertEqual(self.store.chunk(streams[2], 1), b"\1")
