"""
Counters, as plain data.

They have the names of memcached and Kestrel where those have one.  They begin at 0 with the process; figures of the
queues' contents come from the store and are right from the start.

`stats` reports each field of these classes under its name; `darner.queues.collection` adds the computed figures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from operator import attrgetter
from typing import Any, Final


class Removal(Enum):
    """Why an item left its queue, other than by being consumed."""

    MOVED = "moved"
    """A client moved it to another queue."""
    EXPIRED = "expired"
    DISCARDED = "discarded"
    """The queue was full and evicted it."""
    DEAD = "dead"
    """It was opened too often and became a dead letter."""


@dataclass
class ServerStats:
    """Counters of a whole server."""

    total_items: int = 0
    curr_connections: int = 0
    total_connections: int = 0
    rejected_connections: int = 0
    idle_kicks: int = 0
    auth_cmds: int = 0
    auth_errors: int = 0
    cmd_get: int = 0
    cmd_set: int = 0
    cmd_peek: int = 0
    get_hits: int = 0
    get_misses: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    waiters: int = 0
    """Number of waiters in all queues, whether the queues exist or not."""
    queue_creates: int = 0
    queue_deletes: int = 0
    queue_expires: int = 0
    expired_items: int = 0
    discarded: int = 0

    def count_removal(self, removal: Removal, by: int = 1) -> None:
        """Count items that left a queue; a negative number corrects the count."""
        if removal is Removal.EXPIRED:
            self.expired_items += by
        elif removal is Removal.DISCARDED:
            self.discarded += by


@dataclass(frozen=True)
class Health:
    """Whether the store accepts items."""

    writable: bool = True
    reason: str = ""
    """Why not."""
    since: float = 0
    """Since when not, in seconds since the epoch."""


@dataclass
class QueueStats:
    """Counters of one queue.  They restart at 0 when the queue is deleted."""

    total_items: int = 0
    expired_items: int = 0
    discarded: int = 0
    duplicates: int = 0
    """Puts that deduplication dropped."""
    total_flushes: int = 0
    transactions: int = 0
    canceled_transactions: int = 0
    dead: int = 0
    """Items that were opened too often and became dead letters."""
    age_msec: int = 0
    """How long the item read last had been in the queue, in ms."""

    def count_removal(self, removal: Removal, by: int = 1) -> None:
        if removal is Removal.EXPIRED:
            self.expired_items += by
        elif removal is Removal.DISCARDED:
            self.discarded += by
        elif removal is Removal.DEAD:
            self.dead += by


def _counters(kind: type[Any]) -> Callable[[Any], dict[str, int]]:
    names = [field.name for field in dataclasses.fields(kind)]
    figures = attrgetter(*names)
    return lambda stats: dict(zip(names, figures(stats), strict=True))


server_counters: Final[Callable[[ServerStats], dict[str, int]]] = _counters(ServerStats)
queue_counters: Final[Callable[[QueueStats], dict[str, int]]] = _counters(QueueStats)
"""Functions that return the counters by name."""
