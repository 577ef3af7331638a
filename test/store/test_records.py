"""
Tests of `darner.store.records`: how queues are written down.
"""

from __future__ import annotations

from struct import pack
from typing import Optional

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from darner.errors import StoreError
from darner.store import records
from darner.store.records import RUN_BYTES
from darner.values.items import Generation, Imported, Item, Mark
from darner.values.vocabulary import CHUNK_BYTES, chunk_count

U64 = 2**64 - 1
NUMBERS = st.integers(0, U64)


class KeyTests(SynchronousTestCase):
    """Keys sort as the numbers in them do."""

    def test_spelling(self) -> None:
        """Format 1, byte for byte: a change here is a new format."""
        seven = b"\0\0\0\0\0\0\0\7"
        nine = b"\0\0\0\0\0\0\0\x09"
        self.assertEqual(records.name_key(b"jobs"), b"Njobs")
        self.assertEqual(records.run_key(7, 9), b"Q" + seven + b"\0" + nine)
        self.assertEqual(records.generations_key(7), b"Q" + seven + b"\5")
        self.assertEqual(records.seen_key(7, bytes(16)), b"Q" + seven + b"\5" + bytes(16))
        self.assertEqual(records.intervals_end_key(7), b"Q" + seven + b"\3")
        self.assertEqual(records.attempts_key(7, 9), b"Q" + seven + b"\3" + nine)
        self.assertEqual(records.imported_key(7, b"s" * 16), b"Q" + seven + b"\1" + b"s" * 16)
        imported = Imported(b"s" * 16, b"f" * 16, 258, True)
        self.assertEqual(records.pack_imported(imported), b"f" * 16 + b"\0\0\0\0\0\0\1\2\1")
        self.assertEqual(records.end_key(7), b"Q" + seven + b"\xff")
        self.assertEqual(records.chunk_key(7, 258), b"C" + seven + b"\0\0\1\2")
        self.assertEqual(records.deleted_key(7), b"D" + seven)
        self.assertEqual(records.unheld_key(7), b"S" + seven)
        self.assertEqual(records.uncompacted_key(records.neighbourhood(records.mark_key(7))), b"UQ" + seven)
        self.assertEqual(records.uncompacted_key(records.neighbourhood(records.unheld_key(7))), b"US")
        self.assertEqual(records.pack_bounds(b"Cab", b"C\0"), b"\0\3CabC\0")
        self.assertEqual(records.unpack_bounds(b"\0\3CabC\0"), (b"Cab", b"C\0"))

    @given(st.tuples(NUMBERS, NUMBERS), st.tuples(NUMBERS, NUMBERS))
    @settings(deadline=None)
    def test_order(self, one: tuple[int, int], other: tuple[int, int]) -> None:
        for key in (records.run_key, records.interval_key, records.attempts_key):
            self.assertEqual(key(*one) < key(*other), one < other)

    @given(NUMBERS, NUMBERS, NUMBERS)
    @settings(deadline=None)
    def test_a_queue_lies_together(self, number: int, low: int, high: int) -> None:
        """
        Whoever looks for runs meets the mark behind them, and who looks for intervals or attempts their ends, whatever
        was deleted.
        """
        intervals, runs = records.interval_key(number, low), records.run_key(number, high)
        self.assertLess(runs, records.mark_key(number))
        self.assertLess(records.mark_key(number), records.imported_key(number, bytes(16)))
        self.assertLess(records.imported_key(number, b"\xff" * 16), intervals)
        self.assertLess(intervals, records.intervals_end_key(number))
        self.assertLess(records.intervals_end_key(number), records.attempts_key(number, low))
        self.assertLess(records.attempts_key(number, high), records.generations_key(number))
        self.assertLess(records.generations_key(number), records.end_key(number))
        self.assertLess(records.seen_key(number, b"\xff" * 16), records.end_key(number))
        if number < U64:
            self.assertLess(records.end_key(number), records.run_key(number + 1, 0))

    @given(NUMBERS, NUMBERS, st.integers(0, 2**32 - 1))
    @settings(deadline=None)
    def test_numbers_come_back(self, number: int, id: int, index: int) -> None:
        self.assertEqual(records.key_number(records.run_key(number, id)), id)
        self.assertEqual(records.key_number(records.interval_key(number, id)), id)
        self.assertEqual(records.key_number(records.attempts_key(number, id)), id)
        self.assertEqual(records.unpack_u32(records.pack_u32(index)), index)
        self.assertEqual(records.key_number(records.deleted_key(number)), number)
        self.assertEqual(records.key_number(records.unheld_key(number)), number)
        self.assertEqual(records.chunk_index(records.chunk_key(number, index)), index)
        self.assertEqual(records.unpack_u64(records.pack_u64(number)), number)

    @given(*[st.none() | st.builds(Generation, NUMBERS, NUMBERS)] * 2)
    @settings(deadline=None)
    def test_generations_come_back(self, current: Optional[Generation], previous: Optional[Generation]) -> None:
        value = records.pack_generations(current, previous)
        self.assertEqual(records.unpack_generations(value), (current, previous))
        self.assertEqual(bool(value), current is not None or previous is not None)

    def test_is_imported(self) -> None:
        key = records.imported_key(1, bytes(16))
        self.assertTrue(records.is_imported(key))
        for other in (records.mark_key(1), records.due_key(1, 2, 3), records.seen_key(1, bytes(16)), b"X" + key[1:]):
            self.assertFalse(records.is_imported(other))
        self.assertFalse(records.is_run(key) or records.is_seen(key) or records.is_delayed(key))

    def test_is_seen(self) -> None:
        self.assertTrue(records.is_seen(records.seen_key(1, bytes(16))))
        for key in (records.generations_key(1), records.run_key(1, 2), records.attempts_key(1, 2), b"Q" * 26):
            self.assertFalse(records.is_seen(key))

    def test_is_run(self) -> None:
        self.assertTrue(records.is_run(records.run_key(1, 2)))
        for key in (
            records.mark_key(1),
            records.interval_key(1, 2),
            records.end_key(1),
            records.chunk_key(1, 2),
            records.name_key(b"nine long\2"),
        ):
            self.assertFalse(records.is_run(key), key)

    def test_neighbourhood(self) -> None:
        """The keys of one queue are neighbours, those of two are not; other keys are by their kind."""
        self.assertEqual(records.neighbourhood(records.mark_key(1)), records.neighbourhood(records.run_key(1, 7)))
        self.assertNotEqual(records.neighbourhood(records.run_key(1, 7)), records.neighbourhood(records.run_key(2, 7)))
        self.assertEqual(
            records.neighbourhood(records.chunk_key(1, 0)), records.neighbourhood(records.chunk_key(2, 5))
        )
        self.assertNotEqual(
            records.neighbourhood(records.chunk_key(1, 0)), records.neighbourhood(records.unheld_key(1))
        )


class ValueTests(SynchronousTestCase):
    """What is packed comes back."""

    @given(NUMBERS, NUMBERS)
    @settings(deadline=None)
    def test_name(self, number: int, created: int) -> None:
        self.assertEqual(records.unpack_name(records.pack_name(number, created)), (number, created))

    @given(st.builds(Mark, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS))
    @settings(deadline=None)
    def test_mark(self, mark: Mark) -> None:
        self.assertEqual(records.unpack_mark(records.pack_mark(mark)), mark)

    @given(st.builds(Imported, st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16), NUMBERS,
                     st.booleans()))  # fmt: skip
    @settings(deadline=None)
    def test_imported(self, imported: Imported) -> None:
        key = records.imported_key(7, imported.source)
        self.assertEqual(records.unpack_imported(key, records.pack_imported(imported)), imported)

    def test_chunk_count(self) -> None:
        counts = [chunk_count(CHUNK_BYTES * 2 + more) for more in (-1, 0, 1)]
        self.assertEqual(counts, [2, 2, 3])
        self.assertEqual(chunk_count(0), 0)


def small(id: int, payload: bytes) -> Item:
    return Item(id, 7, 1000 + id, 0, len(payload), payload)


def large(id: int, size: int, stream: int) -> Item:
    return Item(id, 0, 1, 2, size, stream=stream)


class RunTests(SynchronousTestCase):
    """The items that a turn put on a queue."""

    def assert_written(self, items: list[Item], bytes_before: int = 0) -> list[tuple[int, bytes]]:
        """The runs of C{items} hold these items and tell the bytes put, each through its end."""
        total = bytes_before + sum(item.size for item in items)
        runs = records.runs(items, total)
        found = []
        for last, value in runs:
            held = list(records.run_items(last, value))
            found += held
            self.assertEqual(held[-1].id, last)
            through = bytes_before + sum(item.size for item in found)
            self.assertEqual(records.run_head(value), (through, len(held)))
        self.assertEqual(found, items)
        return runs

    def test_none(self) -> None:
        self.assertEqual(self.assert_written([]), [])

    def test_one_run(self) -> None:
        runs = self.assert_written([small(5, b"a"), small(6, b""), small(7, b"\0\r\n")], 100)
        self.assertEqual([last for last, _ in runs], [7])
        self.assertEqual(records.run_stream(runs[0][1]), (0, 0))

    def test_alike(self) -> None:
        """Items that differ in one thing alone, after ones that are the same."""
        one = {"flags": 7, "time": 1000, "expiry": 0}
        several = [one, one, {**one, "flags": 8}, {**one, "time": 1001}, {**one, "expiry": 9}, {**one, "expiry": 9}]
        for payload in (b"a", b""):
            items = [Item(id, size=len(payload), payload=payload, **head) for id, head in enumerate(several)]
            self.assert_written(items)
        self.assert_written([Item(0, **one, size=1, payload=b"a"), Item(1, **one, size=2, payload=b"aa")])
        size = CHUNK_BYTES + 1
        self.assert_written([Item(0, **one, size=size, stream=1), Item(1, **one, size=size, stream=2)])
        self.assert_written([Item(0, **one, size=size, payload=bytes(size)), Item(1, **one, size=size, stream=2)])

    def test_bounded(self) -> None:
        """A run ends with the item that reaches its bound, so that memory and reading are bounded."""
        runs = self.assert_written([small(id, bytes(RUN_BYTES // 2)) for id in range(5)])
        self.assertEqual([last for last, _ in runs], [1, 3, 4])

    def test_large_item_by_itself(self) -> None:
        items = [small(0, b"a"), large(1, CHUNK_BYTES * 2 + 1, 33), large(2, CHUNK_BYTES + 1, 34), small(3, b"b")]
        runs = self.assert_written(items)
        self.assertEqual([last for last, _ in runs], [0, 1, 2, 3])
        self.assertEqual([records.run_stream(value) for _, value in runs], [(0, 0), (33, 3), (34, 2), (0, 0)])

    def test_unknown_kind(self) -> None:
        """An item of a later format is refused, not misread."""
        _, value = self.assert_written([small(4, b"abc")])[0]
        later = value[:12] + b"\2" + value[13:]
        error = self.assertRaises(StoreError, list, records.run_items(4, later))
        self.assertEqual(str(error), "item 4 is of kind 2, which this version cannot read")

    def test_spelling(self) -> None:
        """Format 1, byte for byte."""
        ((last, value),) = records.runs([Item(3, 0xFFFFFFFF, 5, 6, 2, b"hi")], 12)
        self.assertEqual(last, 3)
        self.assertEqual(value, pack(">QIBIQQQ", 12, 1, 0, 0xFFFFFFFF, 5, 6, 2) + b"hi")
        ((_, value),) = records.runs([Item(3, 0, 5, 6, 70000, stream=9)], 70000)
        self.assertEqual(value, pack(">QIBIQQQQ", 70000, 1, 1, 0, 5, 6, 70000, 9))

    @given(
        st.integers(0, 2**40),
        st.lists(st.one_of(st.binary(max_size=20), st.integers(0, 2 * RUN_BYTES).map(bytes), st.integers(1, 2**40))),
    )
    @settings(deadline=None, max_examples=50)
    def test_any(self, first: int, payloads: list[bytes | int]) -> None:
        items = [
            large(id, payload, payload) if isinstance(payload, int) else small(id, payload)
            for id, payload in enumerate(payloads, first)
        ]
        runs = self.assert_written(items, first)
        for _, value in runs:
            self.assertLess(len(value), 4 * RUN_BYTES)
