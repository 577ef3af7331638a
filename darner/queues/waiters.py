"""
Those who wait for an item of a queue.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable


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

    __slots__ = ("line",)

    def __init__(self) -> None:
        self.line: OrderedDict[Waiter, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self.line)

    def join(self, waiter: Waiter) -> Waiter:
        """Stand at the end of the line."""
        self.line[waiter] = None
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Step out of the line.  Harmless for one who was served already."""
        self.line.pop(waiter, None)

    def serve_next(self) -> None:
        """Serve the one who came first."""
        waiter, _ = self.line.popitem(last=False)
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
