"""
Tests of rates where several look at the same queue.
"""

from twisted.trial.unittest import SynchronousTestCase

from darner.web.figures import Row


def glimpse(put: int, items: int) -> tuple[int, ...]:
    return (1, put, items, items, 0, 0, 0, 0)


class RatesTests(SynchronousTestCase):
    def test_second_look_right_after_the_first(self) -> None:
        """It neither shows a rate of 0 nor has the next look miss what came in between."""
        row = Row()
        row.update(glimpse(0, 0), 100.0)
        row.update(glimpse(30, 10), 101.0)
        self.assertEqual((row.in_rate, row.out_rate), (30, 20))
        row.update(glimpse(31, 10), 101.01)
        self.assertEqual((row.in_rate, row.out_rate, row.items), (30, 20, 10))
        row.update(glimpse(60, 10), 102.0)
        self.assertEqual((row.in_rate, row.out_rate), (30, 30))
