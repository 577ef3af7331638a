"""
How a client waits: for one item of one or several queues, for the end of a sweep, or as a monitor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Optional, Protocol

from darner.errors import StoreError
from darner.queues.collection import Queues
from darner.queues.fifo import Fifo
from darner.queues.waiters import Waiter
from darner.values import requests


class ItemWait:
    """
    A wait for one item, in the lines of one or several queues.

    The first queue that has an item serves it, and it leaves the other lines.  While a queue is being swept, it does
    not wait for the queues that are named after it, as items behind the expired ones go first.

    @ivar choices: the request to each queue, in the order in which they are named.
    @ivar over: whether the wait ends as soon as no queue is being swept.
    """

    def __init__(
        self, queues: Queues, choices: Sequence[requests.Get], serve: Callable[[ItemWait], None], over: bool = False
    ) -> None:
        """@param serve: called when there is an item, or all expired items are dropped; the wait has left all lines."""
        self._queues = queues
        self._serve = serve
        self.choices = choices
        self.over = over
        self._lines: list[tuple[Fifo, Waiter]] = []

    def stand(self) -> None:
        """Join the lines."""
        for request in self.choices:
            fifo = self._queues.make(request.queue)
            even_if_empty = fifo.sweeping and (self.over or len(self.choices) > 1)
            self._lines.append((fifo, fifo.wait(self._served, even_if_empty)))
            if even_if_empty:
                break

    def _served(self) -> None:
        self.stop()
        self._serve(self)

    def hasten(self) -> bool:
        """
        The time is up.

        @return: whether the wait must go on until the expired items at the head are dropped.
        """
        self.over = True
        for fifo, waiter in self._lines:
            if fifo.sweeping:
                waiter.even_if_empty = True
                return True
        return False

    def go_on(self) -> None:
        """Called when the replies on their way have been sent; does nothing."""

    def stop(self) -> None:
        """Stop waiting."""
        lines, self._lines = self._lines, []
        for fifo, waiter in lines:
            fifo.leave(waiter)
            self._queues.release(fifo)


class SweepWait:
    """A wait until the expired items at the head of a queue are dropped."""

    def __init__(self, queues: Queues, fifo: Fifo, serve: Callable[[], None]) -> None:
        self._queues = queues
        self._fifo = fifo
        self.queue = fifo.name
        self._waiter = fifo.wait(serve, even_if_empty=True)

    def hasten(self) -> bool:
        """The time is up; this wait goes on all the same."""
        return True

    def go_on(self) -> None:
        """Called when the replies on their way have been sent; does nothing."""

    def stop(self) -> None:
        """Stop waiting."""
        self._fifo.leave(self._waiter)
        self._queues.release(self._fifo)


class Monitor(Protocol):
    """The client that monitors a queue."""

    @property
    def sated(self) -> bool:
        """Whether enough items are on their way to the client, so that it gets no more for now."""

    def open_for_monitor(self, fifo: Fifo) -> bool:
        """
        Open the next item.

        @return: whether there was one.
        """

    def may_open(self, queue: bytes) -> bool:
        """Whether it may have one more open read."""

    def monitored(self, wait: MonitorWait) -> None:
        """Called when the monitor is done."""

    def broken_off(self, wait: MonitorWait, error: StoreError) -> None:
        """Called when the queue cannot be read."""


class MonitorWait:
    """
    A monitor, which opens items as they arrive.

    After each item it goes to the end of the line, so that several monitors share a queue fairly.
    """

    def __init__(
        self, queues: Queues, client: Monitor, queue: bytes, maximum: Optional[int], over: bool = False
    ) -> None:
        """
        @param maximum: the number of items after which it ends; C{None}: it ends when no more may be open.
        @param over: whether it takes only the items that are there, and waits for none.
        """
        self._queues = queues
        self._client = client
        self._left = maximum
        self.queue = queue
        self._over = over
        self._line: Optional[tuple[Fifo, Waiter]] = None

    def go_on(self) -> None:
        """Take the items that are there, as many as can be sent, then wait for more."""
        while self._line is None and self._hungry():
            # Looked up each time: while nothing waits in its line, the object may be replaced.
            fifo = self._queues.make(self.queue)
            if self._client.open_for_monitor(fifo):
                self._count()
            elif fifo.sweeping or not self._over:
                self._line = fifo, fifo.wait(self._serve, self._over)
            else:
                self._queues.release(fifo)
                self._client.monitored(self)
                break

    def _hungry(self) -> bool:
        """@return: whether to take an item now; if not, the monitor may be done."""
        sated = self._client.sated
        if self._left == 0 or (sated and self._over) or not self._client.may_open(self.queue):
            self._client.monitored(self)
            return False
        return not sated

    def _count(self) -> None:
        if self._left is not None:
            self._left -= 1

    def _serve(self) -> None:
        assert self._line is not None
        (fifo, _), self._line = self._line, None
        try:
            if self._over:
                self._queues.release(fifo)
                self.go_on()
                return
            self._client.open_for_monitor(fifo)
            self._count()
            if self._hungry():
                self._line = fifo, fifo.wait(self._serve)
        except StoreError as error:
            self._client.broken_off(self, error)

    def hasten(self) -> bool:
        """
        The time is up.

        @return: whether the wait must go on until the expired items at the head are dropped.
        """
        self._over = True
        if self._line is None or not self._line[0].sweeping:
            return False
        self._line[1].even_if_empty = True
        return True

    def stop(self) -> None:
        """Stop waiting."""
        if self._line is not None:
            (fifo, waiter), self._line = self._line, None
            fifo.leave(waiter)
            self._queues.release(fifo)
