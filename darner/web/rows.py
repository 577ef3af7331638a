"""
Queues as the API tells of them: one, or those that somebody looks for, sorted and by pages.
"""

from __future__ import annotations

import fnmatch
import heapq
import re
from collections.abc import Callable
from itertools import islice
from typing import Any, Final, Optional

from darner.queues.front_end import IQueues
from darner.web.figures import Row
from darner.web.pacing import Pace
from darner.web.visitors import Visitor
from darner.web.watch import Watch

QUEUES_AT_ONCE: Final = 16
KEPT: Final = 2.0
"""Seconds for which an order of many queues is kept."""
FEW: Final = 2000
"""Up to so many queues are sorted anew each time."""
ORDERS: Final = 8
"""How many are kept."""

Entry = Any
"""
What sorts as a queue is to be sorted: a value and its name; or its name alone, as very many tuples wake the garbage
collector.
"""


def matcher(text: str) -> Optional[Callable[[bytes], object]]:
    """@return: says whether a name has this text in it, or matches it as a pattern; C{None}: every name will do."""
    if not text or text == "*":
        return None
    if "*" in text or "?" in text:
        form = re.compile(fnmatch.translate(text.lower()))
        return lambda name: form.match(name.decode("ascii").lower())
    part = text.lower().encode()
    return lambda name: part in name.lower()


class Rows:
    """The queues of one server, for those who look at them."""

    def __init__(self, queues: IQueues, watch: Watch) -> None:
        self._queues = queues
        self._watch = watch
        self._orders: dict[tuple[Any, ...], tuple[float, int, list[list[Entry]]]] = {}

    # One

    def describe(self, name: bytes) -> Optional[dict[str, Any]]:
        """@return: a queue as it is now, as the schema C{QueueRow} says; C{None} where there is none."""
        queues = self._queues
        row = self._watch.rows.get(name)
        if row is None:
            row = self._watch.see(name)
        figures = queues.queue_figures(name)
        if row is None or not figures:
            return None
        policy = queues.policy(name)
        fifo = queues.find(name)
        return {
            "name": name.decode(),
            "items": figures["items"],
            "bytes": figures["bytes"],
            "open": figures["open_transactions"],
            "delayed": figures["delayed"],
            "retrying": figures["set_aside"],
            "dead_letter_queue": policy.dead_letter_queue,
            "dead": self.dead(name),
            "waiters": figures["waiters"],
            "in_rate": row.in_rate,
            "out_rate": row.out_rate,
            "oldest_ms": figures["oldest_msec"],
            "durable": fifo is None or fifo.durable,
            "max_items": policy.max_items,
            "max_bytes": policy.max_bytes,
            "used": _used(figures, policy.max_items, policy.max_bytes),
        }

    def dead(self, name: bytes) -> int:
        """@return: how many items there are in the queue to which those of this one go that failed too often."""
        target = self._queues.policy(name).dead_letter_queue
        fifo = None if target is None else self._queues.find(target.encode())
        return 0 if fifo is None else fifo.count

    def spark(self, name: bytes) -> list[Optional[float]]:
        """@return: the items of the last ten minutes; nothing where they are not known."""
        row = self._watch.rows.get(name)
        return [] if row is None or row.course is None else row.course.spark()

    # Many

    async def page(
        self, visitor: Visitor, filter: str, sort: str, descending: bool, offset: int, limit: int, pace: Pace
    ) -> tuple[int, list[bytes]]:
        """@return: how many queues there are, and the names of those on the page."""
        key = (visitor.user, filter, sort, descending)
        now = self._queues.clock.seconds()
        known = self._orders.get(key)
        if known is None or now >= known[0]:
            total, parts = await self._sorted(visitor, filter, sort, descending, pace)
            if len(self._watch.rows) > FEW:
                if len(self._orders) >= ORDERS:
                    del self._orders[min(self._orders, key=lambda key: self._orders[key][0])]
                self._orders[key] = now + KEPT, total, parts
        else:
            _, total, parts = known
        if sort == "name" and descending:
            offset, limit = max(0, total - offset - limit), min(limit, max(0, total - offset))
        names: list[bytes] = []
        entries = iter(heapq.merge(*parts))
        while offset + limit > len(names):
            some = [entry if sort == "name" else entry[1] for entry in islice(entries, QUEUES_AT_ONCE)]
            if not some:
                break
            names += some
            await pace.ease()
        names = names[offset : offset + limit]
        return total, names[::-1] if sort == "name" and descending else names

    async def _sorted(
        self, visitor: Visitor, filter: str, sort: str, descending: bool, pace: Pace
    ) -> tuple[int, list[list[Entry]]]:
        """@return: how many queues are selected, and they, in sorted parts."""
        wanted = matcher(filter)
        by = self._by("items" if sort == "name" else sort, descending)
        parts: list[list[Entry]] = []
        total = 0
        names = self._queues.walks.names
        last = b""
        while some := names.after(last, QUEUES_AT_ONCE):
            last = some[-1]
            part: list[Entry] = [
                name if sort == "name" else (by(name), name)
                for name in some
                if (wanted is None or wanted(name)) and visitor.may_see(name) and self._is_there(name)
            ]
            total += len(part)
            if sort == "name" and parts:
                parts[0] += part  # they come in this order
            else:
                parts.append(sorted(part))
            await pace.ease()
        while len(parts) > 32:
            # A few at a time: to merge very many at once takes long from the start.
            some_parts, parts = parts[:16], parts[16:]
            merged: list[Entry] = []
            entries = iter(heapq.merge(*some_parts))
            while more := list(islice(entries, 256)):
                merged += more
                await pace.ease()
            parts.append(merged)
        return total, parts

    def _is_there(self, name: bytes) -> bool:
        fifo = self._queues.find(name)
        return fifo is not None and (fifo.exists or bool(fifo.waiters.line))

    def _by(self, sort: str, descending: bool) -> Callable[[bytes], float]:
        sign = -1 if descending else 1
        if sort in ("dead", "oldest_ms", "used"):
            figure = {"dead": self.dead, "oldest_ms": self._oldest, "used": self._used}[sort]
            return lambda name: sign * figure(name)
        rows = self._watch.rows

        def known(name: bytes) -> float:
            row = rows.get(name) or self._watch.see(name) or Row()
            value: float = getattr(row, sort)
            return sign * value

        return known

    def _oldest(self, name: bytes) -> float:
        fifo = self._queues.find(name)
        return 0 if fifo is None else fifo.oldest_age

    def _used(self, name: bytes) -> float:
        policy = self._queues.policy(name)
        if policy.max_items is None and policy.max_bytes is None:
            return 0
        return _used(self._queues.queue_figures(name), policy.max_items, policy.max_bytes) or 0


def _used(figures: dict[str, int], max_items: Optional[int], max_bytes: Optional[int]) -> Optional[float]:
    """@return: how much of its limits a queue uses."""
    parts = []
    if max_items is not None:
        parts.append(figures["items"] / max_items)
    if max_bytes is not None:
        parts.append(figures["bytes"] / max_bytes)
    return round(max(parts), 4) if parts else None
