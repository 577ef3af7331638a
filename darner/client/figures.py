"""
What C{stats} answers, as typed values.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final, Optional


@dataclass(frozen=True)
class QueueStats:
    """Of a queue; docs/operations.rst says what each is."""

    items: int = 0
    bytes: int = 0
    total_items: int = 0
    expired_items: int = 0
    discarded: int = 0
    waiters: int = 0
    open_transactions: int = 0
    transactions: int = 0
    canceled_transactions: int = 0
    set_aside: int = 0
    delayed: int = 0
    dead: int = 0
    duplicates: int = 0
    total_flushes: int = 0
    logsize: int = 0
    mem_items: int = 0
    mem_bytes: int = 0
    age: int = 0
    age_msec: int = 0
    oldest_msec: int = 0
    create_time: int = 0


@dataclass(frozen=True)
class Stats:
    """
    Of a server.

    @ivar figures: all that it sent, by name, as text.
    @ivar queues: by name.
    """

    uptime: int = 0
    time: int = 0
    version: str = ""
    status: str = ""
    curr_items: int = 0
    total_items: int = 0
    bytes: int = 0
    curr_connections: int = 0
    total_connections: int = 0
    rejected_connections: int = 0
    cmd_get: int = 0
    cmd_set: int = 0
    cmd_peek: int = 0
    get_hits: int = 0
    get_misses: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    expired_items: int = 0
    discarded: int = 0
    store_writable: Optional[bool] = None
    figures: dict[str, str] = dataclasses.field(default_factory=dict, repr=False)
    queues: dict[str, QueueStats] = dataclasses.field(default_factory=dict)


_TEXTS: Final = frozenset(("version", "status"))
_NUMBERS: Final = frozenset(
    field.name for field in dataclasses.fields(Stats) if field.type in ("int",)
)  # fmt: skip
_OF_QUEUES: Final = sorted((field.name for field in dataclasses.fields(QueueStats)), key=len, reverse=True)
"""The longest first: C{total_items} ends in C{items}."""


def number(text: str) -> int:
    """@return: the number that a figure begins with; 0 where it is none."""
    try:
        return int(text)
    except ValueError:
        try:
            return int(float(text))
        except (ValueError, OverflowError):
            return 0


def read_stats(figures: dict[str, str]) -> Stats:
    """@param figures: the reply to C{stats}."""
    known: dict[str, Any] = {name: number(figures[name]) for name in _NUMBERS if name in figures}
    known.update((name, figures[name]) for name in _TEXTS if name in figures)
    if "store_writable" in figures:
        known["store_writable"] = figures["store_writable"] == "1"
    queues: dict[str, dict[str, int]] = {}
    for name, value in figures.items():
        if not name.startswith("queue_"):
            continue
        for figure in _OF_QUEUES:
            if name.endswith("_" + figure) and len(name) > len(figure) + 7:
                queues.setdefault(name[6 : -len(figure) - 1], {})[figure] = number(value)
                break
    typed = {name: QueueStats(**values) for name, values in sorted(queues.items())}
    return Stats(**known, figures=dict(figures), queues=typed)
