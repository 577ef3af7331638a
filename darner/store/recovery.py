"""
Reading the state of each queue when a server starts.

A server may have very many queues, and nearly all of them have nothing beside their mark and their items.  So one
iterator moves from queue to queue.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from darner.errors import StoreDamaged
from darner.store import records
from darner.store.database import Database
from darner.values.consumed import Consumed
from darner.values.items import QueueState

SOME: Final = 1000
"""The number of queues whose names are read at once."""

def read_queues(database: Database) -> Iterator[QueueState]:
    """
    @return: the state of each queue: some by some in the order of their names, and these in that of their numbers, in
        which their records are.
    @raise StoreDamaged: the mark of one is missing.
    """
    with database.iterator(prefix=records.NAME) as names, database.iterator() as entries:
        while some := list(islice(names, SOME)):
            some.sort(key=lambda entry: records.unpack_name(entry[1]))
            for key, value in some:
                yield _read_queue(database, entries, key, value)


def _read_queue(database: Database, entries: Any, key: bytes, value: bytes) -> QueueState:
    number, created = records.unpack_name(value)
    mark_at = records.mark_key(number)
    written = database.get(mark_at)
    if written is None:
        raise StoreDamaged(database.path, f"the mark of queue {key[1:].decode(errors='replace')} is missing")
    mark = records.unpack_mark(written)
    state = QueueState(key[1:], number, created, mark.next_id, mark.bytes_put, mark.bytes_consumed, mark.floor)
    # Nothing at or above the mark's next id was ever deleted: the search meets no deletion marks.
    unmarked = records.run_key(number, mark.next_id)
    entries.seek(unmarked)
    if next(entries)[0] != mark_at:
        newest = database.last(unmarked, mark_at)
        assert newest is not None
        state.next_id = records.key_number(newest[0]) + 1
        state.bytes_put = records.run_head(newest[1])[0]
    _read_more(entries, state, mark.low)
    return state


def _read_more(entries: Any, state: QueueState, low: int) -> None:
    """Read what a queue has behind its mark.  What is below the low-water mark is deleted, or of no use."""
    number = state.number
    stop, end = records.intervals_end_key(number), records.end_key(number)
    above: list[tuple[int, int]] = []
    entries.seek(records.interval_key(number, low))
    key, value = next(entries, (end, b""))
    while key < stop:
        above.append((records.key_number(key), records.unpack_u64(value)))
        key, value = next(entries, (end, b""))
    state.consumed = Consumed(low, above)
    entries.seek(records.attempts_key(number, low))
    key, value = next(entries, (end, b""))
    while key < end:
        if key == records.delayed_key(number):
            state.delayed = records.unpack_delayed(value)
        elif key == records.generations_key(number):
            state.generations = records.unpack_generations(value)
        else:
            state.attempts[records.key_number(key)] = records.unpack_u32(value)
        key, value = next(entries, (end, b""))
