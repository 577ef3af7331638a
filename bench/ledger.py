"""
The entries in the books (L{bench.books}): items, and requests to their queues.
"""

from __future__ import annotations

from collections import Counter
from typing import Optional

from attrs import Factory, define


@define(eq=False)
class Item:
    """An item that a client set."""

    ledger: Ledger
    producer: int
    number: int
    size: int
    round: int
    asked: int
    stored: Optional[int] = None
    """When its set was acknowledged."""
    half: bool = False
    """Whether only a part of it was sent."""
    had: bool = False
    """Whether it was read plainly or closed, so that it must not come again."""
    closing: bool = False
    """Whether a close of it is in doubt."""
    open: Optional[Read] = None

    def __str__(self) -> str:
        queue = self.ledger.name.decode()
        return f"item {self.producer}.{self.number} of {self.size} bytes, set on {queue} in round {self.round}"


@define(eq=False)
class View:
    """The items that one consumer got from a queue where nothing was given back meanwhile; they must be in order."""

    last: dict[int, int] = Factory(dict)
    """The number of the last item of each producer."""
    newest: int = 0
    """When the last of these reads was sent."""
    alone: bool = False
    """Whether there is no other reader, and all reads are open reads: an item given back must be the next to come."""
    returned: Optional[Item] = None


@define(eq=False)
class Read:
    """A read that was sent."""

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
    """When it was over: it does not cover later requests; C{None} while it may still happen."""


@define(eq=False)
class Ledger:
    """One queue."""

    name: bytes
    items: dict[tuple[int, int], Item] = Factory(dict)
    """The items that are not settled."""
    settled: int = 0
    """Every item of this and earlier producers is settled: it was read, or is gone for a known reason."""
    reading: set[Read] = Factory(set)
    """Plain reads that have no reply yet."""
    doubts: Counter[int] = Factory(Counter)
    """Plain reads that never got a reply, by round."""
    flushes: list[Flush] = Factory(list)
    opened: bool = False
    """Whether any item may have been open since all were settled: a flush does not remove open items."""

    def may_be_flushed(self, item: Item) -> bool:
        return any(flush.until is None or item.asked < flush.until for flush in self.flushes)

    def must_be_flushed(self, item: Item, now: int) -> bool:
        """Whether, at a time, a flush was over that may have removed the item."""
        if self.opened or item.stored is None:
            return False
        before = (flush for flush in reversed(self.flushes) if flush.answered is not None and flush.answered < now)
        last = next(before, None)
        return last is not None and item.stored < last.asked
