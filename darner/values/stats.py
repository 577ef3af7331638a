"""
What is counted, as plain data.

The names are those of memcached and Kestrel where they have one for the thing.  Counters begin at 0 with the process;
what is said of the queues' contents follows from the store and is right from the start.

A counter is told under its name in `stats` by being in here; what has to be computed is added in
`darner.queues.collection`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from operator import attrgetter
from typing import Any, Final


class Removal(Enum):
    """Why an item left its queue, other than by being read."""

    MOVED = "moved"
    """Somebody asked for it to be moved to another queue."""
    EXPIRED = "expired"
    DISCARDED = "discarded"
    """The queue was full."""
    DEAD = "dead"
    """It was opened too often."""


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
    """Places in the lines of queues, whether these exist or not."""
    queue_creates: int = 0
    queue_deletes: int = 0
    queue_expires: int = 0
    expired_items: int = 0
    discarded: int = 0

    def count_removal(self, removal: Removal, by: int = 1) -> None:
        """Count items that left a queue; a negative number takes back what was counted."""
        if removal is Removal.EXPIRED:
            self.expired_items += by
        elif removal is Removal.DISCARDED:
            self.discarded += by


@dataclass(frozen=True)
class Health:
    """Whether the store takes items."""

    writable: bool = True
    reason: str = ""
    """Why it does not."""
    since: float = 0
    """Since when it does not, in seconds since the epoch."""


@dataclass
class QueueStats:
    """Counters of one queue; they begin anew when it is deleted."""

    total_items: int = 0
    expired_items: int = 0
    discarded: int = 0
    duplicates: int = 0
    """Items that were put under an id that the queue knew, and were left out."""
    total_flushes: int = 0
    transactions: int = 0
    canceled_transactions: int = 0
    dead: int = 0
    """Items that were opened too often and went to the queue of dead letters."""
    age_msec: int = 0
    """How long the last item that was read had been waiting, in ms."""

    def count_removal(self, removal: Removal, by: int = 1) -> None:
        """As L{ServerStats.count_removal}, of this queue."""
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
"""The counters of a server, by name."""
queue_counters: Final[Callable[[QueueStats], dict[str, int]]] = _counters(QueueStats)
"""The counters of a queue, by name."""
