"""
Clients that wait for an item of a queue.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from darner.values.stats import ServerStats


class Waiter:
    """
    A client that waits for an item.  When there is one, L{serve} is called; it need not take the item.

    @ivar even_if_empty: whether to call C{serve} too when all expired items are dropped and the queue is empty.
    """

    __slots__ = ("even_if_empty", "serve")

    def __init__(self, serve: Callable[[], None], even_if_empty: bool) -> None:
        self.serve = serve
        self.even_if_empty = even_if_empty


class Waiters:
    """
    The waiters of a queue, in the order in which they came.  A waiter that is served or leaves is removed.

    @ivar line: the waiters; only this class changes it.
    """

    __slots__ = ("_stats", "line")

    def __init__(self, stats: ServerStats) -> None:
        """@param stats: the server's counters."""
        self._stats = stats
        self.line: OrderedDict[Waiter, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self.line)

    def join(self, waiter: Waiter) -> Waiter:
        """Add a waiter at the end of the line."""
        self.line[waiter] = None
        self._stats.waiters += 1
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Remove a waiter.  Does nothing if it was served already."""
        if waiter in self.line:
            del self.line[waiter]
            self._stats.waiters -= 1

    def serve_next(self) -> None:
        """Serve the first waiter."""
        waiter, _ = self.line.popitem(last=False)
        self._stats.waiters -= 1
        waiter.serve()

    def serve_for_nothing(self, go_on: Callable[[], bool]) -> None:
        """
        Serve the waiters that want it even if the queue is empty.

        @param go_on: called before each; returns whether the queue is still known to be empty.
        """
        for waiter in [waiter for waiter in self.line if waiter.even_if_empty]:
            if not go_on():
                break
            self.leave(waiter)
            waiter.serve()
