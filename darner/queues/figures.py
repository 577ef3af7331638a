"""
The statistics of the server and of each queue, by name.
"""

from __future__ import annotations

from typing import Optional

from darner.queues.fifo import Fifo
from darner.values.stats import Health, ServerStats, queue_counters, server_counters


class Totals:
    """
    Sums over all queues of a server, added up queue by queue.

    @ivar items: the number of available items.
    @ivar bytes: their payload bytes.
    """

    __slots__ = ("bytes", "items")

    def __init__(self) -> None:
        self.items = 0
        self.bytes = 0

    def add(self, fifo: Fifo) -> None:
        """Add one queue."""
        contents = fifo.storage.contents
        self.items += contents.count
        self.bytes += contents.bytes


def server_figures(totals: Totals, stats: ServerStats, health: Health) -> dict[str, int | str]:
    """@return: the sums over all queues, and whether puts are accepted."""
    return {
        "curr_items": totals.items,
        "bytes": totals.bytes,
        **server_counters(stats),
        "reserved_memory_ratio": 0,  # no memory is reserved by queue: all windows together have one bound
        **_health_figures(health),
    }


def _health_figures(health: Health) -> dict[str, int | str]:
    if health.writable:
        return {"store_writable": 1}
    return {"store_writable": 0, "store_refuses": health.reason, "store_refuses_since": int(health.since)}


def glimpse(fifo: Fifo) -> Optional[tuple[int, int, int, int, int, int, int, int]]:
    """
    Look at a queue, for those who look at all of them again and again.

    @return: its number, -1 where it does not exist; how many items have come to it; items and bytes that are to be had
        or set aside; how many items are open, delayed, set aside; how many clients wait.  C{None} where it does not
        exist and nobody waits for it.
    """
    storage = fifo.storage
    if storage.number is None:
        waiting = len(fifo.waiters)
        return (-1, 0, 0, 0, 0, 0, 0, waiting) if waiting else None
    contents, sides = storage.contents, storage.sides
    return (
        storage.number, storage.ledger.next_id, contents.count, contents.bytes, len(contents.open),
        sides.delayed_count, sides.set_aside_count, len(fifo.waiters),
    )  # fmt: skip


def queue_figures(fifo: Optional[Fifo]) -> dict[str, int]:
    """@return: the statistics of one queue; empty if it does not exist and no client waits for it."""
    if fifo is None or not (fifo.exists or fifo.waiters.line):
        return {}
    age = fifo.stats.age_msec if fifo.count else 0
    contents = fifo.storage.contents
    head = contents.head
    return {
        "items": fifo.count,
        "bytes": contents.bytes,
        **queue_counters(fifo.stats),
        "waiters": len(fifo.waiters),
        "open_transactions": fifo.open_count,
        "set_aside": fifo.storage.sides.set_aside_count,
        "delayed": fifo.storage.sides.delayed_count,
        "logsize": contents.bytes if fifo.durable else 0,
        "mem_items": head.window_items,
        "mem_bytes": head.window_payload,
        "age": age,
        "age_msec": age,
        "oldest_msec": fifo.oldest_age,
        "create_time": fifo.created,
    }
