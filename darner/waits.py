"""
A client's waiting: in line for one item of several queues, or for all that come for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Optional, Protocol

from darner import wire
from darner.fifo import Fifo, Waiter
from darner.queues import Queues


class Wait:
    """
    Standing in line for an item.

    Where it is in the lines of several queues, the first that has an item serves it, and it leaves the others.
    """

    def __init__(self, queues: Queues, requests: Sequence[wire.Get], serve: Callable[[Fifo, wire.Get], None]) -> None:
        """@param serve: called when there is an item; it has to call L{stop}, and to take the item."""
        self._queues = queues
        self.request = requests[0]
        self._lines: list[tuple[Fifo, Waiter]] = []
        for request in requests:
            fifo = queues.make(request.queue)
            self._lines.append((fifo, fifo.wait(partial(serve, fifo, request))))

    def go_on(self) -> None:
        """What was on its way to the client is sent: there is nothing to be done."""

    def stop(self) -> None:
        """Wait no longer."""
        for fifo, waiter in self._lines:
            fifo.leave(waiter)
            self._queues.release(fifo)


class Reader(Protocol):
    """Whose monitor it is."""

    @property
    def sated(self) -> bool:
        """Whether what it got is still on its way to the client, so that it should have no more for now."""

    def open_for_monitor(self, fifo: Fifo) -> bool:
        """
        Open the next item.

        @return: whether there was one.
        """

    def may_open(self, queue: bytes) -> bool:
        """Whether it may have one open read more."""

    def monitored(self, monitor: Monitor) -> None:
        """It has all that it may have."""


class Monitor:
    """
    Opening items as they come.

    After each item it goes to the end of the line, so that several monitors share a queue fairly.
    """

    def __init__(self, queues: Queues, reader: Reader, queue: bytes, maximum: Optional[int]) -> None:
        """@param maximum: after how many items it is over; C{None}: when no more may be open."""
        self._queues = queues
        self._reader = reader
        self._left = maximum
        self._queue = queue
        self._line: Optional[tuple[Fifo, Waiter]] = None

    def go_on(self) -> None:
        """Take what there is, as much as can be sent, and wait for what comes."""
        while self._line is None and self._hungry():
            # Not the same one each time: who is not in line does not keep it.
            fifo = self._queues.make(self._queue)
            if self._reader.open_for_monitor(fifo):
                self._count()
            else:
                self._line = fifo, fifo.wait(self._serve)

    def _hungry(self) -> bool:
        """@return: whether it should have an item now; it may be over after that."""
        if self._left == 0 or not self._reader.may_open(self._queue):
            self._reader.monitored(self)
            return False
        return not self._reader.sated

    def _count(self) -> None:
        if self._left is not None:
            self._left -= 1

    def _serve(self) -> None:
        assert self._line is not None
        (fifo, _), self._line = self._line, None
        self._reader.open_for_monitor(fifo)
        self._count()
        if self._hungry():
            self._line = fifo, fifo.wait(self._serve)

    def stop(self) -> None:
        """Wait no longer."""
        if self._line is not None:
            (fifo, waiter), self._line = self._line, None
            fifo.leave(waiter)
            self._queues.release(fifo)
