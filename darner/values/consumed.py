"""
The consumed items of a queue: a set of ids, kept as intervals.

A queue gives its items ids from 0 up without gaps.  So two facts tell what a queue contains: the next id, and this set.
Clients mostly consume in order; then the set is the single interval from 0 to the *low-water mark*.  Open items and
items that were given back are gaps between the intervals above the mark.  No code may conclude that an item exists
because its neighbours do.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator


class Consumed:
    """
    A set of item ids that grows mostly at its low end.

    @ivar low: the low-water mark.  Every id below it is consumed; the id itself is not.
    """

    def __init__(self, low: int = 0, above: Iterable[tuple[int, int]] = ()) -> None:
        """
        @param above: intervals C{(start, stop)} of consumed ids above C{low}; they do not touch each other.
        """
        self.low = low
        self._starts: list[int] = []
        self._stops: dict[int, int] = {}
        self._changed: set[int] = set()
        for start, stop in above:
            self.add(start, stop)
        self._changed.clear()

    def __contains__(self, id: int) -> bool:
        if id < self.low:
            return True
        at = bisect_right(self._starts, id) - 1
        return at >= 0 and id < self._stops[self._starts[at]]

    def __len__(self) -> int:
        return self.low + sum(stop - start for start, stop in self._stops.items())

    def intervals(self) -> Iterator[tuple[int, int]]:
        """Every interval, in order.  The first one starts at 0 unless the low-water mark is 0."""
        if self.low:
            yield 0, self.low
        for start in self._starts:
            yield start, self._stops[start]

    def next_missing(self, id: int) -> int:
        """@return: the smallest id from C{id} on that is not consumed."""
        if id < self.low:
            return self.low
        at = bisect_right(self._starts, id) - 1
        if at >= 0:
            return max(id, self._stops[self._starts[at]])
        return id

    def covers(self, start: int, stop: int) -> bool:
        """@return: whether every id from C{start} up to C{stop} is consumed."""
        return self.next_missing(start) >= stop

    def add(self, start: int, stop: int) -> None:
        """Add the ids from C{start} up to, not including, C{stop}.  Some may be in the set already."""
        if start <= self.low:
            if stop > self.low:
                self.low = stop
                if self._starts:
                    self._absorb()
            return
        if start >= stop:
            return
        at = bisect_right(self._starts, start)
        if at and self._stops[self._starts[at - 1]] >= start:
            at -= 1
            start = self._starts[at]
            stop = max(stop, self._stops[start])
        else:
            self._starts.insert(at, start)
        while at + 1 < len(self._starts) and self._starts[at + 1] <= stop:
            swallowed = self._starts.pop(at + 1)
            stop = max(stop, self._stops.pop(swallowed))
            self._changed.add(swallowed)
        self._stops[start] = stop
        self._changed.add(start)

    def _absorb(self) -> None:
        """Merge the intervals that the low-water mark has reached into it."""
        reached = 0
        for start in self._starts:
            if start > self.low:
                break
            self.low = max(self.low, self._stops.pop(start))
            self._changed.add(start)
            reached += 1
        del self._starts[:reached]

    def discard(self, id: int) -> None:
        """Remove C{id} from the set, because the store could not record that the item was consumed."""
        if id not in self:
            return
        if id < self.low:
            rest = self.low
            self.low = id
        else:
            start = self._starts[bisect_right(self._starts, id) - 1]
            rest = self._stops[start]
            self._changed.add(start)
            if start == id:
                self._starts.remove(start)
                del self._stops[start]
            else:
                self._stops[start] = id
        if id + 1 < rest:
            insort(self._starts, id + 1)
            self._stops[id + 1] = rest
            self._changed.add(id + 1)

    def take_changes(self) -> list[tuple[int, int]]:
        """
        Return the changes above the low-water mark since the last call, for the store.

        @return: C{(start, stop)} for each interval that is new or longer, C{(start, start)} for each that is gone.
        """
        if not self._changed:
            return []
        changes = [(start, self._stops.get(start, start)) for start in sorted(self._changed)]
        self._changed.clear()
        return changes

    def put_back_changes(self, changes: list[tuple[int, int]]) -> None:
        """Have the next L{take_changes} return these changes again, because the store could not write them."""
        self._changed.update(start for start, _ in changes)
