"""
What a server counts and has, held against the books while nothing else is asked of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from attrs import frozen

from bench.books import COUNT, Books
from bench.callers import Caller, Stage
from bench.ledger import View

PATIENCE: Final = 120.0
"""Seconds that an audit may take."""
GOING_PATIENCE: Final = 5.0
"""Seconds within which the server has to notice that a client has gone."""


@frozen
class Counts:
    """What the server says of a queue."""

    items: int = 0
    bytes: int = 0
    open: int = 0


async def audit(stage: Stage, empty: Callable[[bytes], bool]) -> int:
    """
    Hold the counts of all queues against the books, and the contents of some.

    @param empty: which queues to empty.
    @return: how many were.
    """
    return await asyncio.wait_for(_audit(stage, empty), PATIENCE)


async def _audit(stage: Stage, empty: Callable[[bytes], bool]) -> int:
    books = stage.books
    caller, other = Caller(stage, "auditor"), Caller(stage, "other auditor")
    await caller.connect()
    await other.connect()
    await _alone(books, caller)
    await _all_due(books, caller)
    counts = await _counts(caller)
    books.check_counts({queue: count.items for queue, count in counts.items()})
    for queue, count in counts.items():
        if count.open:
            books.fault(COUNT, f"{queue.decode()} has {count.open} open items, and nobody has opened any")
    queues = [queue for queue in books.names() if empty(queue)]
    for queue in queues:
        await _empty(books, queue, caller, other)
    caller.leave()
    other.leave()
    return len(queues)


async def _alone(books: Books, caller: Caller) -> None:
    """Wait until all that those have sent is done with who have left."""
    until = time.monotonic() + GOING_PATIENCE
    while (count := (await caller.stats())[b"curr_connections"]) != 2:
        if time.monotonic() > until:
            books.fault(COUNT, f"{count} connections, and there should be 2")
            return
        await asyncio.sleep(0.01)


async def _all_due(books: Books, caller: Caller) -> None:
    """Wait until nothing is delayed any more."""
    until = time.monotonic() + GOING_PATIENCE
    while late := [name for name, figure in (await caller.stats()).items() if name.endswith(b"_delayed") and figure]:
        if time.monotonic() > until:
            books.fault(COUNT, f"{late[0].decode()} is still not 0")
            return
        await asyncio.sleep(0.01)


async def _counts(caller: Caller) -> dict[bytes, Counts]:
    figures = await caller.stats()
    names = [name[len(b"queue_") : -len(b"_create_time")] for name in figures if name.endswith(b"_create_time")]
    kinds = (b"items", b"bytes", b"open_transactions")
    return {name: Counts(*(figures[b"queue_%b_%b" % (name, kind)] for kind in kinds)) for name in names}


async def _empty(books: Books, queue: bytes, caller: Caller, other: Caller) -> None:
    """Read all of a queue, its first item at last after it was open and given back; and see that all is counted."""
    counts = (await _counts(caller)).get(queue, Counts())
    view = View()
    first = await other.open(queue, view=view)
    rest = [item for item in await caller.get_ahead(queue, max(0, counts.items - 1), view) if item is not None]
    items = [*([first] if first else []), *rest]
    found = Counts(len(items), sum(item.size for item in items))
    if found != counts:
        books.fault(COUNT, f"{queue.decode()} counts {counts}, and there is {found}")
    if first is not None:
        await _expect(books, caller, queue, Counts(open=1))
        await other.vanish()
        await _expect(books, caller, queue, Counts(1, first.size))
        again = await caller.get(queue)
        if again is not first:
            books.fault(COUNT, f"{first} was given back, and {again or 'nothing'} came")
    if await caller.get(queue) is not None:
        books.fault(COUNT, f"{queue.decode()} has more items than it counts")
    elif counts.items:
        await _expect(books, caller, queue, Counts())
    books.settle(queue)


async def _expect(books: Books, caller: Caller, queue: bytes, wanted: Counts) -> None:
    """A connection's end may not be noticed at once; where faults were found, there is no hope in waiting long."""
    until = time.monotonic() + (0.2 if books.faults else GOING_PATIENCE)
    while (counts := (await _counts(caller)).get(queue)) != wanted:
        if time.monotonic() > until:
            books.fault(COUNT, f"{queue.decode()} counts {counts}, and should {wanted}")
            return
        await asyncio.sleep(0.01)
