"""Tests of `darner.queues.head`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from darner.queues.head import Head, MemoryBudget
from darner.values.items import ITEM_OVERHEAD, Item

SIZE = 100
HELD = SIZE + ITEM_OVERHEAD


def item(id: int) -> Item:
    return Item(id, 0, 0, 0, SIZE, bytes(SIZE))


def filled(*ids: int, bound: int = 100 * HELD) -> Head:
    head = Head(ids[0] if ids else 0, bound)
    for id in ids:
        head.follow(item(id))
    return head


def drain(head: Head) -> list[int]:
    ids = []
    while head.first() is not None:
        ids.append(head.take_first().id)
    return ids


class HeadTests(SynchronousTestCase):
    """The next items of a queue."""

    def test_order(self) -> None:
        head = filled(5, 6, 7)
        self.assertEqual((drain(head), head.held, head.read_id), ([5, 6, 7], 0, 8))

    def test_given_back_items_go_first_in_their_old_order(self) -> None:
        head = filled(0, 1, 2, 3)
        taken = [head.take_first() for _ in range(3)]
        for given in (taken[2], taken[0], taken[1]):
            head.give_back(given)
        self.assertEqual(drain(head), [0, 1, 2, 3])

    def test_bound(self) -> None:
        head = filled(*range(10), bound=3 * HELD)
        self.assertTrue(head.full)
        self.assertEqual((drain(head), head.read_id), ([0, 1, 2], 3))

    def test_what_does_not_follow_is_not_held(self) -> None:
        head = filled(0, 1)
        head.follow(item(3))
        self.assertEqual((drain(head), head.read_id), ([0, 1], 2))

    def test_remove(self) -> None:
        head = filled(0, 1, 2, 3)
        head.give_back(head.take_first())
        head.remove({0, 2})
        self.assertEqual(head.held, 2 * HELD)
        self.assertEqual(drain(head), [1, 3])

    def test_evict(self) -> None:
        head = filled(0, 1, 2)
        head.give_back(head.take_first())
        head.evict()
        self.assertEqual((head.held, head.read_id), (0, 1))
        self.assertEqual(drain(head), [0])
        head.evict()
        self.assertEqual(head.read_id, 1)


class RoomTests(SynchronousTestCase):
    """The memory of all windows together is limited."""

    def test_the_window_filled_first_lets_go(self) -> None:
        room = MemoryBudget(10 * HELD)
        heads = [filled(*range(4)) for _ in range(3)]
        for head in heads:
            room.account(head)
        self.assertEqual([head.held // HELD for head in heads], [0, 4, 4])
        self.assertEqual(room.held, 8 * HELD)

    def test_a_window_that_grows_is_the_last_to_let_go(self) -> None:
        room = MemoryBudget(10 * HELD)
        first, second = filled(*range(4)), filled(*range(4))
        room.account(first)
        room.account(second)
        for id in range(4, 9):
            first.follow(item(id))
        room.account(first)
        self.assertEqual([first.held // HELD, second.held], [9, 0])

    def test_one_window_is_left_alone(self) -> None:
        room = MemoryBudget(HELD)
        head = filled(*range(4))
        room.account(head)
        self.assertEqual((head.held, room.held), (4 * HELD, 4 * HELD))

    def test_what_is_drained_counts_no_more(self) -> None:
        room = MemoryBudget(10 * HELD)
        head = filled(*range(4))
        room.account(head)
        drain(head)
        room.account(head)
        room.account(head)
        self.assertEqual(room.held, 0)
