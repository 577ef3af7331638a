"""
The items of a queue one after the other, as they are while somebody looks, and those of them that a filter selects.
"""

from __future__ import annotations

import heapq
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any, Final, Optional

from attrs import frozen

from darner.errors import StoreError
from darner.queues import browsing
from darner.queues.collection import Queues
from darner.queues.fifo import Fifo
from darner.queues.picking import Key
from darner.values.items import Item
from darner.web.pacing import Pace
from darner.web.problems import Problem, bad_request

IDS_AT_ONCE: Final = 2000


@frozen
class Entry:
    """
    An item that was seen.

    @ivar due: when it is to be had, in ms since the epoch, if it is delayed; else 0.
    @ivar after: in how many seconds it is to be had, if it is set aside.
    """

    state: str
    item: Item
    due: int = 0
    after: float = 0.0
    attempts: int = 0

    @property
    def key(self) -> Key:
        return self.due, self.item.id

    @property
    def id(self) -> str:
        return f"{self.due}-{self.item.id}" if self.due else str(self.item.id)


def key_of(text: str, state: str) -> Key:
    """
    @param text: an id, as clients have it.
    @raise Problem: it is none of an item in this state.
    """
    due, dash, id = text.rpartition("-")
    if bool(dash) != (state == browsing.DELAYED):
        raise bad_request("id: not of an item in this state")
    return (int(due) if dash else 0), int(id)


@frozen
class Place:
    """Where items of a state are: for dead ones, the queue of dead letters."""

    queue: bytes
    state: str


def place_of(queues: Queues, queue: bytes, state: str) -> Place:
    """@raise Problem: the queue has no dead letters."""
    if state != "dead":
        return Place(queue, state)
    target = queues.policy(queue).dead_letter_queue
    if target is None:
        raise Problem(409, "the queue has no dead_letter_queue")
    return Place(target.encode(), browsing.READY)


class Scanner:
    """Looks at the items of one queue that are in one state."""

    def __init__(self, queues: Queues, place: Place, pace: Pace) -> None:
        self._queues = queues
        self._place = place
        self._pace = pace
        fifo = queues.find(place.queue)
        self._number = None if fifo is None else fifo.number

    def _fifo(self) -> Optional[Fifo]:
        """@return: the queue, unless it was deleted meanwhile."""
        fifo = self._queues.find(self._place.queue)
        return fifo if fifo is not None and fifo.number is not None and fifo.number == self._number else None

    def entries(self, start: Key) -> AsyncGenerator[Entry, None]:
        """@return: the items from there on, in order."""
        if self._place.state == browsing.READY:
            return self._ready(start[1])
        if self._place.state == browsing.DELAYED:
            return self._delayed(start)
        return self._listed(start[1])

    async def find(self, key: Key) -> Entry:
        """@raise Problem: the item is not there any more, or in another state."""
        if self._place.state == browsing.DELAYED:
            async for entry in self._delayed(key):
                if entry.key == key:
                    return entry
                break
        else:
            fifo = self._fifo()
            seen = None if fifo is None else browsing.find(fifo, key[1])
            if seen is not None and seen.state == self._place.state:
                return self._entry(seen)
        raise Problem(404, "the item is not there any more, or in another state")

    def _entry(self, seen: browsing.Seen) -> Entry:
        after = max(0.0, seen.due - self._queues.clock.seconds()) if seen.due else 0.0
        return Entry(seen.state, seen.item, 0, after, seen.attempts)

    async def _ready(self, start: int) -> AsyncGenerator[Entry, None]:
        while start >= 0:
            fifo = self._fifo()
            if fifo is None:
                return
            found, start = browsing.look_at_ready(fifo, start)
            await self._pace.ease()
            for seen in found:
                yield self._entry(seen)

    async def _listed(self, start: int) -> AsyncGenerator[Entry, None]:
        fifo = self._fifo()
        ids = [] if fifo is None else browsing.ids_of(fifo, self._place.state)
        parts = []
        for at in range(0, len(ids), IDS_AT_ONCE):
            parts.append(sorted(id for id in ids[at : at + IDS_AT_ONCE] if id >= start))
            await self._pace.ease()
        for id in heapq.merge(*parts):
            await self._pace.ease()
            fifo = self._fifo()
            if fifo is None:
                return
            seen = browsing.find(fifo, id)
            if seen is not None and seen.state == self._place.state:
                yield self._entry(seen)

    async def _delayed(self, start: Key) -> AsyncGenerator[Entry, None]:
        due, id = start
        while True:
            await self._queues.commit.written()
            fifo = self._fifo()
            found = [] if fifo is None else browsing.look_at_delayed(fifo, due, id)
            if not found:
                return
            due, id = found[-1][0], found[-1][1].id + 1
            await self._pace.ease()
            for when, item in found:
                yield Entry(browsing.DELAYED, item, when)


def first_bytes(queues: Queues, fifo: Fifo, item: Item) -> bytes:
    """
    @return: the payload; of a large item, its first 64 KiB.
    @raise StoreError: it cannot be read.
    """
    if not item.stream:
        return fifo.payload(item)
    reader = queues.reads.outflow(item, lambda: None)
    try:
        return next(reader)
    finally:
        reader.cancel()


class Filter:
    """What somebody looks for among items."""

    def __init__(self, queues: Queues, queue: bytes, values: dict[str, Any], now: int) -> None:
        """
        @param values: of the fields of filters; missing ones, and C{None}, select everything.
        @param now: in ms since the epoch.
        """
        self._queues = queues
        self._queue = queue
        self._values = {name: value for name, value in values.items() if value is not None}
        self._now = now
        self._text = self._values.get("contains", "").encode()

    def selects(self, item: Item) -> bool:
        values, age = self._values, self._now - item.time
        return (
            values.get("min_age_ms", age) <= age <= values.get("max_age_ms", age)
            and values.get("min_size", 0) <= item.size <= values.get("max_size", item.size)
            and item.flags == values.get("flags", item.flags)
            and (not self._text or self._text in self._payload(item))
        )

    def _payload(self, item: Item) -> bytes:
        fifo = self._queues.find(self._queue)
        if fifo is not None:
            with suppress(StoreError):  # it went meanwhile
                return first_bytes(self._queues, fifo, item)
        return b""
