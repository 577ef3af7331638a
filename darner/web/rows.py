"""
Queues as the API tells of them: one, or those that somebody looks for, sorted and by pages.
"""

from __future__ import annotations

import fnmatch
import heapq
import marshal
import re
import struct
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final, Optional

from attrs import frozen

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
MERGED: Final = 16
"""How many sorted parts are merged at once."""
ORDERS: Final = 8
"""How many are kept."""

_FIGURE: Final = struct.Struct(">d")
_INVERTED: Final = bytes(range(255, -1, -1))
"""
What queues are sorted by is bytes: a figure, of 8 bytes, and the name, or the name alone.
"""
RUN: Final = 256
"""
How many of these are in a run, sorted and in one object: the garbage collector looks at all that is in a new list, and
takes some ms where that is very much.
"""


def _figure(figure: float, descending: bool) -> bytes:
    """@return: what sorts as a figure does, which is not negative."""
    packed = _FIGURE.pack(figure)
    return packed.translate(_INVERTED) if descending else packed


class _Sorted:
    """
    Sorted entries, in runs.

    @ivar count: how many there are.
    """

    def __init__(self) -> None:
        self._runs: list[bytes] = []
        self._last: list[bytes] = []
        self.count = 0

    def add(self, entries: list[bytes]) -> None:
        """Add entries, sorted, that come after those that are there; at most C{RUN}."""
        self.count += len(entries)
        self._last += entries
        if len(self._last) >= RUN:
            self._runs.append(marshal.dumps(self._last[:RUN]))
            del self._last[:RUN]

    def entries(self, start: int = 0) -> Iterator[bytes]:
        """@return: the entries, without the first C{start} ones."""
        first, left_out = divmod(start, RUN)
        for number in range(first, len(self._runs)):
            yield from marshal.loads(self._runs[number])[left_out:]
            left_out = 0
        yield from self._last[left_out:]


@frozen
class _Order:
    """The queues that somebody looks for, in their order: in sorted parts."""

    parts: list[_Sorted]
    until: float
    """When it is too old to be told, in seconds of the clock."""

    @property
    def total(self) -> int:
        return sum(part.count for part in self.parts)

    def entries(self, start: int) -> tuple[Iterator[bytes], int]:
        """@return: the entries, and how many were left out at their beginning: at most C{start}."""
        if len(self.parts) == 1:
            return self.parts[0].entries(start), start
        return heapq.merge(*[part.entries() for part in self.parts]), 0


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
        self._orders: dict[tuple[Any, ...], _Order] = {}

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
        order = self._orders.get(key)
        if order is None or now >= order.until:
            order = _Order(await self._sorted(visitor, filter, sort, descending, pace), now + KEPT)
            if len(self._watch.rows) > FEW:
                if len(self._orders) >= ORDERS:
                    del self._orders[min(self._orders, key=lambda key: self._orders[key].until)]
                self._orders[key] = order
        total = order.total
        backwards = sort == "name" and descending
        if backwards:
            offset, limit = max(0, total - offset - limit), min(limit, max(0, total - offset))
        names = await self._some(order, offset, limit, pace)
        if sort != "name":
            names = [entry[_FIGURE.size :] for entry in names]
        return total, names[::-1] if backwards else names

    @staticmethod
    async def _some(order: _Order, offset: int, limit: int, pace: Pace) -> list[bytes]:
        """@return: the entries from C{offset} on, at most C{limit}."""
        offset = min(offset, order.total)
        entries, skipped = order.entries(offset)
        while skipped < offset:
            skipped += sum(1 for _ in islice(entries, min(RUN, offset - skipped)))
            await pace.ease()
        found: list[bytes] = []
        entries = islice(entries, limit)
        while some := list(islice(entries, QUEUES_AT_ONCE)):
            found += some
            await pace.ease()
        return found

    async def _sorted(self, visitor: Visitor, filter: str, sort: str, descending: bool, pace: Pace) -> list[_Sorted]:
        """@return: the queues that are selected, in sorted parts."""
        wanted = matcher(filter)
        by = None if sort == "name" else self._by(sort)
        parts = [_Sorted()]
        found: list[bytes] = []
        names = self._queues.walks.names
        last = b""
        while some := names.after(last, QUEUES_AT_ONCE):
            last = some[-1]
            for name in some:
                if (wanted is None or wanted(name)) and visitor.may_see(name) and self._is_there(name):
                    found.append(name if by is None else _figure(by(name), descending) + name)
            if len(found) >= RUN - QUEUES_AT_ONCE:
                self._add(parts, found, by is None)
                found = []
            await pace.ease()
        self._add(parts, found, by is None)
        while len(parts) > MERGED:
            # A few at a time: to merge very many at once takes long from the start.
            merged = _Sorted()
            entries = heapq.merge(*[part.entries() for part in parts[:MERGED]])
            while more := list(islice(entries, RUN // 2)):
                merged.add(more)
                await pace.ease()
            parts = [*parts[MERGED:], merged]
        return parts

    @staticmethod
    def _add(parts: list[_Sorted], found: list[bytes], in_order: bool) -> None:
        """@param in_order: whether they come after those that were found before."""
        if not in_order:
            found.sort()
            parts.append(_Sorted())
        parts[-1].add(found)

    def _is_there(self, name: bytes) -> bool:
        fifo = self._queues.find(name)
        return fifo is not None and (fifo.exists or bool(fifo.waiters.line))

    def _by(self, sort: str) -> Callable[[bytes], float]:
        if sort in ("dead", "oldest_ms", "used"):
            return {"dead": self.dead, "oldest_ms": self._oldest, "used": self._used}[sort]
        rows = self._watch.rows

        def known(name: bytes) -> float:
            row = rows.get(name) or self._watch.see(name) or Row()
            value: float = getattr(row, sort)
            return value

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
