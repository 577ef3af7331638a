"""
The head of a queue in memory: its next items.

The size of each queue's window is limited, and so is that of all windows together (L{MemoryBudget}).  The items beyond
are in the store.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Container
from heapq import heapify, heappop, heappush
from typing import Final, Optional

from darner.values.items import ITEM_OVERHEAD, Item

WINDOW_BYTES: Final = 256 * 1024
"""About how many bytes of one queue's head are held in memory."""
LOOKED_AT: Final = 200
"""How many items of a window are looked at in one go."""
GRAIN: Final = 1024
"""Smaller changes of a window's size, in bytes, are not accounted for."""
BUDGET_BYTES: Final = 8 * 1024 * 1024
"""Approximate maximum size of all windows together, in bytes."""


def _id_of(item: Item) -> int:
    return item.id


class Head:
    """
    Items that were given back, and the window on the items that follow: read ahead from the store, or put while the
    queue is short.

    @ivar read_id: the id after the last one that was read into memory.
    @ivar held: approximate bytes in the window.
    @ivar accounted: how many of these the L{MemoryBudget} has counted.
    """

    __slots__ = ("_bound", "_returned", "_window", "accounted", "held", "read_id")

    def __init__(self, read_id: int = 0, bound: int = WINDOW_BYTES) -> None:
        self._bound = bound
        self._returned: list[tuple[int, Item]] = []
        self._window: deque[Item] = deque()
        self.held = 0
        self.accounted = 0
        self.read_id = read_id

    @property
    def full(self) -> bool:
        """Whether the window has reached its limit."""
        return self.held >= self._bound

    @property
    def window_items(self) -> int:
        """How many items the window has; those that were given back are not among them."""
        return len(self._window)

    @property
    def window_payload(self) -> int:
        """How many bytes of payload the window has in memory; large payloads are in the store alone."""
        return self.held - len(self._window) * ITEM_OVERHEAD

    def first(self) -> Optional[Item]:
        """@return: the next item, which stays; C{None} if there is none in memory."""
        if self._returned:
            return self._returned[0][1]
        return self._window[0] if self._window else None

    def take_first(self) -> Item:
        """Remove and return the item that L{first} returned."""
        if self._returned:
            return heappop(self._returned)[1]
        item = self._window.popleft()
        self.held -= len(item.payload) + ITEM_OVERHEAD
        return item

    def give_back(self, item: Item) -> None:
        """Give back an item that was taken; it comes before all items with higher ids."""
        heappush(self._returned, (item.id, item))

    def follow(self, item: Item) -> None:
        """Keep an item that was put at the end, if all items before it are in memory too and the window is not full."""
        if self.read_id == item.id and self.held < self._bound:
            self._window.append(item)
            self.held += len(item.payload) + ITEM_OVERHEAD
            self.read_id = item.id + 1

    def hold(self, item: Item) -> None:
        """Add an item to the window.  All ids between it and the last one in the window are consumed."""
        self._window.append(item)
        self.held += len(item.payload) + ITEM_OVERHEAD
        self.read_id = item.id + 1

    def find(self, id: int) -> Optional[Item]:
        """@return: the item with this id; C{None} where memory has none."""
        for other, item in self._returned:
            if other == id:
                return item
        place = self._place(id)
        return self._window[place] if place < len(self._window) and self._window[place].id == id else None

    def _place(self, id: int) -> int:
        """@return: the index of the first item of the window that does not come before this id."""
        return bisect_left(self._window, id, key=_id_of)

    def some(self, start: int, stop: int) -> tuple[list[Item], int]:
        """
        @return: a few items from C{start} on, in order, and the id from which on there may be more; C{stop} where there
            are no more.
        """
        place = self._place(start)
        items = [self._window[index] for index in range(place, min(place + LOOKED_AT, len(self._window)))]
        last = items[-1].id if len(items) == LOOKED_AT else stop - 1
        returned = [item for id, item in self._returned if start <= id <= last]
        return sorted(items + returned, key=_id_of), last + 1

    def take_out(self, id: int) -> None:
        """Forget an item, which is in memory."""
        place = self._place(id)
        if place < len(self._window) and self._window[place].id == id:
            self.held -= len(self._window[place].payload) + ITEM_OVERHEAD
            del self._window[place]
        else:
            self._returned = [entry for entry in self._returned if entry[0] != id]
            heapify(self._returned)

    def remove(self, ids: Container[int]) -> None:
        """Drop the items with these ids."""
        self._returned = [entry for entry in self._returned if entry[0] not in ids]
        heapify(self._returned)
        self._window = deque(item for item in self._window if item.id not in ids)
        self.held = sum(len(item.payload) + ITEM_OVERHEAD for item in self._window)

    def evict(self) -> None:
        """Drop the window; it is read from the store again when needed."""
        if self._window:
            self.read_id = self._window[0].id
            self._window.clear()
            self.held = 0


class MemoryBudget:
    """Limits the memory of all windows together: the one that was filled first is evicted."""

    def __init__(self, limit: int = BUDGET_BYTES) -> None:
        self._limit = limit
        self._heads: OrderedDict[Head, None] = OrderedDict()
        self.held = 0

    def account(self, head: Head) -> None:
        """Count the present size of a window."""
        held = head.held
        known = head.accounted
        if held == known or (held and abs(held - known) < GRAIN):
            return
        self.held += held - known
        head.accounted = held
        if held:
            self._heads[head] = None
            if self.held > self._limit:
                self._evict_others(head)
        else:
            del self._heads[head]

    def _evict_others(self, head: Head) -> None:
        self._heads.move_to_end(head)
        while self.held > self._limit and len(self._heads) > 1:
            other, _ = self._heads.popitem(last=False)
            other.evict()
            self.held -= other.accounted
            other.accounted = 0
