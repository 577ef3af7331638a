"""
Tests of `darner.values.consumed`.
"""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from darner.values.consumed import Consumed


class ConsumedTests(SynchronousTestCase):
    """A set of ids, kept as intervals."""

    def test_empty(self) -> None:
        consumed = Consumed()
        self.assertNotIn(0, consumed)
        self.assertEqual(len(consumed), 0)
        self.assertEqual(list(consumed.intervals()), [])
        self.assertEqual(consumed.next_missing(0), 0)
        self.assertEqual(consumed.take_changes(), [])

    def test_in_order(self) -> None:
        """Reading in order moves the low-water mark and leaves nothing else to write down."""
        consumed = Consumed()
        for id in range(5):
            consumed.add(id, id + 1)
        self.assertEqual(consumed.low, 5)
        self.assertEqual(list(consumed.intervals()), [(0, 5)])
        self.assertEqual(consumed.take_changes(), [])

    def test_behind_an_open_item(self) -> None:
        """What is consumed behind an item that is open is one interval, however much it is."""
        consumed = Consumed()
        for id in range(1, 1000):
            consumed.add(id, id + 1)
        self.assertEqual(consumed.low, 0)
        self.assertEqual(list(consumed.intervals()), [(1, 1000)])
        self.assertEqual(consumed.take_changes(), [(1, 1000)])

    def test_hole_is_closed(self) -> None:
        consumed = Consumed(0, [(1, 3), (4, 6), (8, 9)])
        consumed.add(0, 1)
        self.assertEqual((consumed.low, list(consumed.intervals())), (3, [(0, 3), (4, 6), (8, 9)]))
        self.assertEqual(consumed.take_changes(), [(1, 1)])
        consumed.add(3, 4)
        self.assertEqual((consumed.low, list(consumed.intervals())), (6, [(0, 6), (8, 9)]))
        self.assertEqual(consumed.take_changes(), [(4, 4)])

    def test_intervals_join(self) -> None:
        consumed = Consumed(0, [(2, 4), (6, 8), (10, 12)])
        consumed.add(3, 11)
        self.assertEqual(list(consumed.intervals()), [(2, 12)])
        self.assertEqual(consumed.take_changes(), [(2, 12), (6, 6), (10, 10)])

    def test_adding_nothing(self) -> None:
        consumed = Consumed(3, [(5, 7)])
        consumed.add(4, 4)
        consumed.add(1, 3)
        self.assertEqual(list(consumed.intervals()), [(0, 3), (5, 7)])
        self.assertEqual(consumed.take_changes(), [])

    def test_next_missing(self) -> None:
        consumed = Consumed(3, [(5, 7)])
        self.assertEqual([consumed.next_missing(id) for id in range(9)], [3, 3, 3, 3, 4, 7, 7, 7, 8])

    def test_covers(self) -> None:
        consumed = Consumed(3, [(5, 7)])
        self.assertTrue(consumed.covers(0, 3))
        self.assertTrue(consumed.covers(5, 7))
        self.assertTrue(consumed.covers(6, 7))
        self.assertFalse(consumed.covers(0, 4))
        self.assertFalse(consumed.covers(4, 7))
        self.assertFalse(consumed.covers(2, 6))

    def test_discard(self) -> None:
        """An id whose consumption could not be written is missing again, and what changed by that is written."""
        consumed = Consumed(4, [(6, 9)])
        consumed.discard(1)
        self.assertEqual(list(consumed.intervals()), [(0, 1), (2, 4), (6, 9)])
        consumed.discard(6)
        consumed.discard(8)
        consumed.discard(5)
        self.assertEqual(list(consumed.intervals()), [(0, 1), (2, 4), (7, 8)])
        self.assertEqual(consumed.take_changes(), [(2, 4), (6, 6), (7, 8)])

    def test_changes_that_could_not_be_written(self) -> None:
        consumed = Consumed()
        consumed.add(2, 3)
        changes = consumed.take_changes()
        self.assertEqual(consumed.take_changes(), [])
        consumed.put_back_changes(changes)
        consumed.add(3, 4)
        self.assertEqual(consumed.take_changes(), [(2, 4)])

    def test_recovered_is_unchanged(self) -> None:
        """What comes from the store need not be written again."""
        self.assertEqual(Consumed(2, [(4, 5)]).take_changes(), [])


IDS = st.integers(0, 40)
ADD = st.tuples(st.just("add"), IDS, st.integers(0, 12))
STEPS = st.lists(
    st.one_of(
        ADD,
        ADD,
        st.tuples(st.just("discard"), IDS, st.just(0)),
        st.tuples(st.sampled_from(["write", "fail", "recover"]), st.just(0), st.just(0)),
    ),
    max_size=40,
)


class ModelTests(SynchronousTestCase):
    """Against a plain set, with what is written down on the way."""

    @given(STEPS)
    @settings(deadline=None, max_examples=300)
    def test_steps(self, steps: list[tuple[str, int, int]]) -> None:
        consumed, model = Consumed(), set[int]()
        low, above = 0, dict[int, int]()
        for step, id, count in steps:
            if step == "add":
                consumed.add(id, id + count)
                model.update(range(id, id + count))
            elif step == "discard":
                consumed.discard(id)
                model.discard(id)
            elif step == "fail":
                consumed.put_back_changes(consumed.take_changes())
            else:
                low = consumed.low
                for start, stop in consumed.take_changes():
                    if stop > start:
                        above[start] = stop
                    else:
                        above.pop(start, None)
                self.assert_same(Consumed(low, above.items()), model)
                # What is written down for ever is no more than what there is.
                self.assertEqual(sorted(above.items()), [pair for pair in consumed.intervals() if pair[0]])
                if step == "recover":
                    consumed = Consumed(low, above.items())
            self.assert_same(consumed, model)

    def assert_same(self, consumed: Consumed, model: set[int]) -> None:
        ids = range(60)
        self.assertEqual({id for id in ids if id in consumed}, model)
        self.assertEqual(len(consumed), len(model))
        missing = [id for id in ids if id not in model]
        self.assertEqual(consumed.low, missing[0])
        for id in range(0, 60, 7):
            self.assertEqual(consumed.next_missing(id), next(other for other in missing if other >= id))
        intervals = list(consumed.intervals())
        self.assertEqual({id for start, stop in intervals for id in range(start, stop)}, model)
        for (_, stop), (start, _) in pairwise(intervals):
            self.assertLess(stop, start, "intervals are apart from each other")
