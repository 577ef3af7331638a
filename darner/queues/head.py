"""
The head of a queue in memory: the items that are the next to be had.

A queue's window has a bound, and all windows together have one, the L{MemoryBudget}; what is beyond lies in the store.
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
"""What is less than that is not worth accounting for."""
BUDGET_BYTES: Final = 8 * 1024 * 1024
"""About how many bytes the heads of all queues may take together."""


def _id_of(item: Item) -> int:
    return item.id


class Head:
    """
    Items that were given back, and a window on what follows: read ahead from the store, or put while the queue is
    short.

    @ivar read_id: what follows the last id that was taken into memory.
    @ivar held: about how many bytes the window takes.
    @ivar accounted: how many of these the L{MemoryBudget} knows of.
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
        """Whether the window is as large as it should get."""
        return self.held >= self._bound

    def first(self) -> Optional[Item]:
        """@return: the item that is next, which stays; C{None} where memory has none."""
        if self._returned:
            return self._returned[0][1]
        return self._window[0] if self._window else None

    def take_first(self) -> Item:
        """Take the item that L{first} returned."""
        if self._returned:
            return heappop(self._returned)[1]
        item = self._window.popleft()
        self.held -= len(item.payload) + ITEM_OVERHEAD
        return item

    def give_back(self, item: Item) -> None:
        """An item that was taken goes ahead of all that came after it."""
        heappush(self._returned, (item.id, item))

    def follow(self, item: Item) -> None:
        """An item was put at the end: hold it, if all before it is here as well and the window is not full."""
        if self.read_id == item.id and self.held < self._bound:
            self._window.append(item)
            self.held += len(item.payload) + ITEM_OVERHEAD
            self.read_id = item.id + 1

    def hold(self, item: Item) -> None:
        """Add an item to the window; between it and those before are only consumed ones."""
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
        """These are no items any more."""
        self._returned = [entry for entry in self._returned if entry[0] not in ids]
        heapify(self._returned)
        self._window = deque(item for item in self._window if item.id not in ids)
        self.held = sum(len(item.payload) + ITEM_OVERHEAD for item in self._window)

    def evict(self) -> None:
        """Forget the window; it is read again when it is needed."""
        if self._window:
            self.read_id = self._window[0].id
            self._window.clear()
            self.held = 0


class MemoryBudget:
    """How much memory the windows of all queues may take together: the one filled first is evicted for others."""

    def __init__(self, limit: int = BUDGET_BYTES) -> None:
        self._limit = limit
        self._heads: OrderedDict[Head, None] = OrderedDict()
        self.held = 0

    def account(self, head: Head) -> None:
        """Take note of how large a window is now."""
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
