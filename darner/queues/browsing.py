"""
Looking at the items of a queue, wherever they are.  Nothing is taken, and nothing is read into the queue's window.

Each function looks at a bounded number of items, at one moment.  Whoever looks at more goes on from where the one
before ended, and sees what stays in the queue meanwhile once.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Optional

from darner.queues.fifo import Fifo
from darner.values.items import Item

READY: Final = "ready"
OPEN: Final = "open"
RETRYING: Final = "retrying"
DELAYED: Final = "delayed"
"""
The states of items: to be had; open; set aside until their next attempt; not due yet.  The ids of the first three are
the queue's, delayed items have ids of their own.
"""
BYTES_AT_ONCE: Final = 32 * 1024
"""About how many bytes of payload are read of the store in one go."""


class Seen(NamedTuple):
    """An item, as it was seen."""

    state: str
    item: Item
    due: float
    """When it is to be had, in seconds of the clock, if it is set aside; else 0."""
    attempts: int
    """How often it was opened, where that is counted."""


def _aside(fifo: Fifo) -> dict[int, tuple[float, Item]]:
    retries = fifo.storage.sides.retries
    return {} if retries is None else retries.aside()


def _attempts(fifo: Fifo, id: int) -> int:
    retries = fifo.storage.sides.retries
    return 0 if retries is None else retries.attempts(id)


def find(fifo: Fifo, id: int, near: Optional[dict[int, Item]] = None) -> Optional[Seen]:
    """
    @param near: as for L{darner.queues.contents.Contents.find}.
    @return: the item with this id, unless it is consumed or missing.
    @raise StoreError: it cannot be read.
    """
    ledger, contents = fifo.storage.ledger, fifo.storage.contents
    if fifo.storage.number is None or id >= ledger.next_id or id in ledger.consumed:
        return None
    entry = _aside(fifo).get(id)
    if entry is not None:
        return Seen(RETRYING, entry[1], entry[0], _attempts(fifo, id))
    item = contents.find(id, near)
    if item is None:
        return None
    return Seen(OPEN if id in contents.open else READY, item, 0.0, _attempts(fifo, id))


def look_at_ready(fifo: Fifo, start: int) -> tuple[list[Seen], int]:
    """
    Look at some items that are to be had.

    @param start: the id from which on.
    @return: they, in order, and the id from which on there may be more; -1: there are no more.
    @raise StoreError: they cannot be read.
    """
    ledger, contents = fifo.storage.ledger, fifo.storage.contents
    start = ledger.consumed.next_missing(start)
    if fifo.storage.number is None or start >= ledger.next_id:
        return [], -1
    items, following = contents.some(start, BYTES_AT_ONCE)
    aside = _aside(fifo)
    seen = [
        Seen(READY, item, 0.0, _attempts(fifo, item.id))
        for item in items
        if item.id >= start and item.id not in ledger.consumed and item.id not in contents.open and item.id not in aside
    ]
    return seen, following if following < ledger.next_id else -1


def ids_of(fifo: Fifo, state: str) -> list[int]:
    """@return: the ids of all items that are open, or set aside, in no order."""
    return list(fifo.storage.contents.open if state == OPEN else _aside(fifo))


def count_of(fifo: Fifo, state: str) -> int:
    """@return: how many items are in a state."""
    if state == OPEN:
        return fifo.open_count
    if state == DELAYED:
        return fifo.delayed_count
    aside = len(_aside(fifo))
    return aside if state == RETRYING else fifo.count - aside


def look_at_delayed(fifo: Fifo, due: int, id: int) -> list[tuple[int, Item]]:
    """
    Look at some items that are not due yet; only once all that was put is written
    (L{darner.queues.commit.GroupCommit.written}).

    @param due: the time from which on they are due, in ms since the epoch...
    @param id: ...and the id from which on at that time.
    @return: they, in order, with when they are due; none where there are no more.
    @raise StoreError: they cannot be read.
    """
    delays = fifo.storage.sides.delays
    return [] if delays is None else delays.some(due, id, BYTES_AT_ONCE)
