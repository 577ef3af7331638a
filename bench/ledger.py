"""
What is in the books of L{bench.books}: items, and what was asked of their queues.
"""

from __future__ import annotations

from collections import Counter
from typing import Optional

from attrs import Factory, define


@define(eq=False)
class Item:
    """An item that somebody set."""

    ledger: Ledger
    producer: int
    number: int
    size: int
    round: int
    asked: int
    stored: Optional[int] = None
    """When it was acknowledged."""
    half: bool = False
    """Not all of it was sent."""
    had: bool = False
    """Read plainly or closed: it must not come again."""
    closing: bool = False
    """A close of it was asked for and not answered."""
    open: Optional[Read] = None

    def __str__(self) -> str:
        queue = self.ledger.name.decode()
        return f"item {self.producer}.{self.number} of {self.size} bytes, set on {queue} in round {self.round}"


@define(eq=False)
class View:
    """What one consumer has seen of a queue of which nothing is given back meanwhile: it has to be in order."""

    last: dict[int, int] = Factory(dict)
    """The number of the last item of each producer."""
    newest: int = 0
    """When the last of them was asked for."""
    alone: bool = False
    """Whether nobody else reads, and only by open reads: what is given back has to be the next to come."""
    returned: Optional[Item] = None


@define(eq=False)
class Read:
    """A get that was asked for."""

    ledger: Ledger
    plain: bool
    asked: int
    view: Optional[View]


@define(eq=False)
class Flush:
    """A flush or delete."""

    asked: int
    answered: Optional[int] = None
    until: Optional[int] = None
    """What was asked for later is not covered by it; C{None} as long as it may still happen."""


@define(eq=False)
class Ledger:
    """One queue."""

    name: bytes
    items: dict[tuple[int, int], Item] = Factory(dict)
    """Those that are not settled."""
    settled: int = 0
    """Every item of this producer and of those before is settled: had, or gone for a reason."""
    reading: set[Read] = Factory(set)
    """Plain reads that are not answered."""
    doubts: Counter[int] = Factory(Counter)
    """Plain reads that never were answered, by round."""
    flushes: list[Flush] = Factory(list)
    opened: bool = False
    """Whether any item may have been open since all was settled: what is open outlives a flush."""

    def may_be_flushed(self, item: Item) -> bool:
        return any(flush.until is None or item.asked < flush.until for flush in self.flushes)

    def must_be_flushed(self, item: Item, now: int) -> bool:
        """Whether a flush that began when the item was there was over at a time."""
        if self.opened or item.stored is None:
            return False
        before = (flush for flush in reversed(self.flushes) if flush.answered is not None and flush.answered < now)
        last = next(before, None)
        return last is not None and item.stored < last.asked
