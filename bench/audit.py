"""
Compares the server's counts and contents with the books while no other request is pending.
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

PATIENCE: Final = 600.0
"""The longest time for an audit, in seconds."""
GOING_PATIENCE: Final = 60.0
"""Seconds within which the server must notice that a client has disconnected."""


@frozen
class Counts:
    """The server's figures of a queue."""

    items: int = 0
    bytes: int = 0
    open: int = 0


async def audit(stage: Stage, empty: Callable[[bytes], bool]) -> int:
    """
    Compare the counts of all queues, and the contents of some, with the books.

    @param empty: returns whether to empty a queue.
    @return: the number of queues emptied.
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
    """Wait until the server has dropped the connections of all clients that have left."""
    until = time.monotonic() + GOING_PATIENCE
    while (count := (await caller.stats())[b"curr_connections"]) != 2:
        if time.monotonic() > until:
            books.fault(COUNT, f"{count} connections, and there should be 2")
            return
        await asyncio.sleep(0.01)


async def _all_due(books: Books, caller: Caller) -> None:
    """Wait until no item is delayed any more."""
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
    """Read all items of a queue, the first one last, after it was opened and given back; check the counts meanwhile."""
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
    """Wait for these counts, as the server may not notice a disconnect at once; after a fault, do not wait long."""
    until = time.monotonic() + (0.2 if books.faults else GOING_PATIENCE)
    while (counts := (await _counts(caller)).get(queue)) != wanted:
        if time.monotonic() > until:
            books.fault(COUNT, f"{queue.decode()} counts {counts}, and should {wanted}")
            return
        await asyncio.sleep(0.01)
