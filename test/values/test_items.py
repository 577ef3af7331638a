"""
Tests of `darner.values.items`.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from darner.values.items import Item, Mark


class ItemTests(SynchronousTestCase):
    """One item of a queue."""

    def test_equal(self) -> None:
        """Items are equal in all that they are, or not at all."""
        same = [Item(1, 2, 3, 4, 5, b"12345"), Item(1, 2, 3, 4, 5, b"12345")]
        self.assertEqual(*same)
        for other in (
            Item(9, 2, 3, 4, 5, b"12345"),
            Item(1, 9, 3, 4, 5, b"12345"),
            Item(1, 2, 9, 4, 5, b"12345"),
            Item(1, 2, 3, 9, 5, b"12345"),
            Item(1, 2, 3, 4, 5, b"54321"),
            Item(1, 2, 3, 4, 5, stream=7),
            b"12345",
        ):
            self.assertNotEqual(same[0], other)

    def test_shown_without_its_payload(self) -> None:
        """It may be long, and is nobody's business in a log."""
        self.assertEqual(repr(Item(1, 2, 3, 4, 5, b"12345")), "<Item 1: 5 bytes, flags 2>")


class MarkTests(SynchronousTestCase):
    """How far a queue is consumed."""

    def test_equal(self) -> None:
        """As for items."""
        self.assertEqual(Mark(1, 2, 3, 4, 5), Mark(1, 2, 3, 4, 5))
        for other in (
            Mark(9, 2, 3, 4, 5), Mark(1, 9, 3, 4, 5), Mark(1, 2, 9, 4, 5), Mark(1, 2, 3, 9, 5), Mark(1, 2, 3, 4, 9),
            (1, 2, 3, 4, 5),
        ):  # fmt: skip
            self.assertNotEqual(Mark(1, 2, 3, 4, 5), other)

    def test_shown(self) -> None:
        self.assertEqual(repr(Mark(1, 2, 3, 4, 5)), "Mark(1, 2, 3, 4, 5)")
