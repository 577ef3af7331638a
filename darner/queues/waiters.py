"""
Those who wait for an item of a queue.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from darner.values.stats import ServerStats


class Waiter:
    """
    Somebody who waits for an item.  L{serve} is called once there is one, and has to take it or leave it.

    @ivar even_if_empty: whether it is called as well when all that has expired is dropped, and there is nothing behind.
    """

    __slots__ = ("even_if_empty", "serve")

    def __init__(self, serve: Callable[[], None], even_if_empty: bool) -> None:
        self.serve = serve
        self.even_if_empty = even_if_empty


class Waiters:
    """
    The line of those who wait, in the order in which they came.  Who is served, or leaves, is in it no more.

    @ivar line: those in it; nobody else changes it.
    """

    __slots__ = ("_stats", "line")

    def __init__(self, stats: ServerStats) -> None:
        """@param stats: the server's, in which they are counted."""
        self._stats = stats
        self.line: OrderedDict[Waiter, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self.line)

    def join(self, waiter: Waiter) -> Waiter:
        """Stand at the end of the line."""
        self.line[waiter] = None
        self._stats.waiters += 1
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Step out of the line.  Harmless for one who was served already."""
        if waiter in self.line:
            del self.line[waiter]
            self._stats.waiters -= 1

    def serve_next(self) -> None:
        """Serve the one who came first."""
        waiter, _ = self.line.popitem(last=False)
        self._stats.waiters -= 1
        waiter.serve()

    def serve_for_nothing(self, go_on: Callable[[], bool]) -> None:
        """
        Serve those who want that even if the queue is empty.

        @param go_on: asked before each of them, whether it still is known to be.
        """
        for waiter in [waiter for waiter in self.line if waiter.even_if_empty]:
            if not go_on():
                break
            self.leave(waiter)
            waiter.serve()
