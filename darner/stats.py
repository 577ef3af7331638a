"""
What is counted, as plain data.

The names are those of memcached and Kestrel where they have one for the thing.  Counters begin at 0 with the process;
what is said of the queues' contents follows from the store and is right from the start.
"""

from __future__ import annotations

from attrs import define, frozen


@define
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
    queue_creates: int = 0
    queue_deletes: int = 0
    queue_expires: int = 0
    expired_items: int = 0
    discarded: int = 0


@frozen
class Health:
    """Whether the store takes items."""

    writable: bool = True
    reason: str = ""
    """Why it does not."""
    since: float = 0
    """Since when it does not, in seconds since the epoch."""


@define
class QueueStats:
    """Counters of one queue; they begin anew when it is deleted."""

    total_items: int = 0
    expired_items: int = 0
    discarded: int = 0
    total_flushes: int = 0
    transactions: int = 0
    canceled_transactions: int = 0
    age_msec: int = 0
    """How long the last item that was read had been waiting, in ms."""
