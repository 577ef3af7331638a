"""
Reading the state of each queue when a server starts.

A server may have very many queues, and nearly all of them have nothing beside their mark and their items.  So one
iterator moves from queue to queue, and is moved more than once only where there is more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from darner.errors import StoreDamaged
from darner.store import records
from darner.store.database import Database
from darner.values.consumed import Consumed
from darner.values.items import QueueState


def read_queues(database: Database) -> Iterator[QueueState]:
    """
    @return: the state of each queue, in the order of their numbers, in which their records are.
    @raise StoreDamaged: the mark of one is missing.
    """
    names = database.prefixed(records.NAME)
    names.sort(key=lambda entry: records.unpack_name(entry[1]))
    with database.iterator() as entries:
        for key, value in names:
            yield _read_queue(database, entries, key, value)


def _read_queue(database: Database, entries: Any, key: bytes, value: bytes) -> QueueState:
    number, created = records.unpack_name(value)
    at = records.mark_key(number)
    written = database.get(at)
    if written is None:
        raise StoreDamaged(database.path, f"the mark of queue {key[1:].decode(errors='replace')} is missing")
    mark = records.unpack_mark(written)
    state = QueueState(
        key[1:], number, created, mark.next_id, mark.bytes_put, mark.bytes_consumed, mark.floor, Consumed(mark.low)
    )
    # Nothing at or above the mark's next id was ever deleted: what is read here meets no deletion marks.
    unmarked = records.run_key(number, mark.next_id)
    entries.seek(unmarked)
    if next(entries)[0] != at:
        newest = database.last(unmarked, at)
        assert newest is not None
        state.next_id = records.key_number(newest[0]) + 1
        state.bytes_put = records.run_head(newest[1])[0]
        entries.seek(at)
        next(entries)
    following = next(entries, None)
    if following is not None and following[0] < records.end_key(number):
        _read_more(entries, state, mark.low)
    return state


def _read_more(entries: Any, state: QueueState, low: int) -> None:
    """Read what there is behind the mark of a queue."""
    number = state.number
    # What is below the low-water mark is deleted, or of no use.
    entries.seek(records.interval_key(number, low))
    attempts, end = records.attempts_key(number, low), records.end_key(number)
    above: list[tuple[int, int]] = []
    key, value = next(entries, (end, b""))
    while key < records.intervals_end_key(number):
        above.append((records.key_number(key), records.unpack_u64(value)))
        key, value = next(entries, (end, b""))
    state.consumed = Consumed(low, above)
    if key < attempts:
        entries.seek(attempts)
        key, value = next(entries, (end, b""))
    while key < end:
        if key == records.delayed_key(number):
            state.delayed = records.unpack_delayed(value)
        elif key == records.generations_key(number):
            state.generations = records.unpack_generations(value)
        else:
            state.attempts[records.key_number(key)] = records.unpack_u32(value)
        key, value = next(entries, (end, b""))
