"""
Tests of the model of queues: histories that are wrong are found, each for its feature, and right ones are not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

from twisted.trial.unittest import SynchronousTestCase

from test.cluster.checker import Fault, QueueModel


class QueueModelTests(SynchronousTestCase):
    """L{QueueModel}."""

    def model(self) -> QueueModel:
        model = QueueModel("jobs")
        for number in range(4):
            model.put(b"%d" % number, number != 1)
        return model

    def test_possible(self) -> None:
        model = self.model()
        model.taken(b"0")
        model.opened(b"2")
        model.in_doubt()
        model.opened(b"3")
        model.closed(True)
        model.taken(None)

    def refused(self, text: str, asks: Callable[[], object]) -> None:
        self.assertIn(text, str(self.assertRaises(Fault, asks)))

    def test_impossible(self) -> None:
        for items in ((b"2",), (b"0", b"3"), (b"0", b"0"), (b"0", b"2", b"1"), (None,), (b"x",), (b"0", b"1", None)):
            model = self.model()

            def take(model: QueueModel = model, items: tuple[Optional[bytes], ...] = items) -> None:
                for item in items:
                    model.taken(item)

            self.refused("take", take)

    # Delays

    def delayed(self) -> QueueModel:
        """@return: a queue with items that are due at 10 to 15 and 20 to 25."""
        model = QueueModel("later")
        model.put(b"0", True, (10, 15))
        model.put(b"1", True, (20, 25))
        return model

    def test_delays(self) -> None:
        model = self.delayed()
        model.taken(None, 9, 9)
        model.taken(None, 14, 14)
        model.taken(b"0", 14, 14)
        model.taken(None, 24, 24)
        model.taken(b"1", 19, 20)
        model.taken(None, 30, 30)

    def test_delay_is_ignored(self) -> None:
        self.refused("before its time", lambda: self.delayed().taken(b"0", 9, 9.5))

    def test_delayed_item_is_lost(self) -> None:
        self.refused("is lost", lambda: self.delayed().taken(None, 15, 16))
        self.refused("is lost", lambda: self.delayed().taken(b"1", 30, 30))

    # Fan-out

    def fan(self, answered: bool) -> tuple[QueueModel, QueueModel]:
        """@return: a queue and its child, with an item each."""
        parent = QueueModel("fan", children=[QueueModel("fan+copy")])
        parent.put(b"0", answered)
        return parent, parent.children[0]

    def test_fan_out(self) -> None:
        for item in (b"0", None):
            for order in (1, -1):
                for model in self.fan(False)[::order]:
                    model.taken(item)
        # A read in doubt says nothing of the other queue.
        parent, child = self.fan(False)
        parent.in_doubt()
        parent.taken(None)
        child.taken(b"0")

    def test_half_a_fan_out(self) -> None:
        """What one queue has, all have, also of a set in doubt."""
        for first in (0, 1):
            models = self.fan(False)
            models[first].taken(b"0")
            self.refused("is lost", lambda models=models, first=first: models[1 - first].taken(None))
            models = self.fan(False)
            models[first].taken(None)
            self.refused("never put", lambda models=models, first=first: models[1 - first].taken(b"0"))

    def test_child_goes_without(self) -> None:
        self.refused("is lost", lambda: self.fan(True)[1].taken(None))

    def test_child_has_it_twice(self) -> None:
        _, child = self.fan(True)
        child.taken(b"0")
        self.refused("twice", lambda: child.taken(b"0"))

    # Dead letters

    def tried(self) -> tuple[QueueModel, QueueModel]:
        """@return: a queue whose items may be opened twice, with two items, and its dead letters."""
        dead = QueueModel("dead")
        tried = QueueModel("tried", max_attempts=2, dead_letters=dead)
        for item in (b"0", b"1"):
            tried.put(item, True)
        return tried, dead

    def give_back(self, tried: QueueModel, *items: bytes) -> None:
        for item in items:
            tried.opened(item)
            tried.given_back()

    def test_dead_letters(self) -> None:
        tried, dead = self.tried()
        self.give_back(tried, b"0")
        dead.taken(None)
        self.give_back(tried, b"0", b"1", b"1")
        tried.taken(None)
        dead.taken(b"0")
        dead.taken(b"1")

    def test_attempts_in_doubt(self) -> None:
        """The item may have been opened for the last time, or not."""
        for moved in (False, True):
            tried, dead = self.tried()
            self.give_back(tried, b"0")
            tried.open_in_doubt()
            tried.peeked(b"1" if moved else b"0")
            if moved:
                dead.taken(b"0")
            else:
                self.refused("never put", lambda dead=dead: dead.taken(b"0"))

    def test_close_in_doubt(self) -> None:
        """The item is gone, or a dead letter."""
        for item in (b"0", None):
            tried, dead = self.tried()
            self.give_back(tried, b"0")
            tried.opened(b"0")
            tried.closed(False)
            tried.peeked(b"1")
            dead.taken(item)

    def test_dead_letter_is_lost(self) -> None:
        tried, dead = self.tried()
        self.give_back(tried, b"0", b"0")
        self.refused("is lost", lambda: dead.taken(None))
        tried, dead = self.tried()
        self.give_back(tried, b"0")
        tried.open_in_doubt()
        tried.peeked(b"1")
        self.refused("is lost", lambda: dead.taken(None))

    def test_dead_too_early(self) -> None:
        tried, dead = self.tried()
        self.give_back(tried, b"0")
        self.refused("is lost, or the order", lambda: tried.opened(b"1"))
        self.refused("never put", lambda: dead.taken(b"0"))

    def test_opened_too_often(self) -> None:
        tried, _ = self.tried()
        self.give_back(tried, b"0", b"0")
        self.refused("b'1' is before it", lambda: self.give_back(tried, b"0"))

    def test_dead_and_alive(self) -> None:
        """An item in doubt is in one of both queues."""
        tried, dead = self.tried()
        self.give_back(tried, b"0")
        tried.open_in_doubt()
        dead.taken(b"0")
        self.refused("b'1' is before it", lambda: tried.opened(b"0"))

    def test_order_of_dead_letters(self) -> None:
        tried, dead = self.tried()
        self.give_back(tried, b"0", b"0", b"1", b"1")
        self.refused("the order is wrong", lambda: dead.taken(b"1"))

    # Moves

    def test_moves(self) -> None:
        for count, repeated in ((3, False), (4, False), (1, True)):
            model, other = self.model(), QueueModel("other")
            other.put(b"x", True)
            model.moved(other, count, repeated)
            model.taken(None)
            for item in (b"x", b"0", b"2", b"3", None):
                other.taken(item)

    def test_impossible_moves(self) -> None:
        for count, repeated in ((2, False), (5, False), (5, True)):
            model, other = self.model(), QueueModel("other")
            self.refused("were moved", lambda model=model, other=other, c=count, r=repeated: model.moved(other, c, r))
        for items in ((None,), (b"2",), (b"0", b"0"), (b"0", b"2", None)):
            model, other = self.model(), QueueModel("other")
            model.moved(other, 4)

            def take(other: QueueModel = other, items: tuple[Optional[bytes], ...] = items) -> None:
                for item in items:
                    other.taken(item)

            self.refused("take", take)
        # What was moved is not where it was.
        model, other = self.model(), QueueModel("other")
        model.moved(other, 4)
        self.refused("twice", lambda: model.taken(b"0"))

    def test_attempts_begin_anew(self) -> None:
        tried, dead = self.tried()
        self.give_back(tried, b"0", b"0")
        dead.moved(tried, 1)
        self.give_back(tried, b"1", b"1", b"0")
        dead.taken(b"1")
        self.refused("is lost", lambda: tried.taken(None))
