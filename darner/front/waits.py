"""
A client's waiting: in line for one item of several queues, or for all that come for a while.
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
    Standing in line for an item.

    Where it is in the lines of several queues, the first that has an item serves it, and it leaves the others.  As long
    as a queue is sweeping, it does not stand in line for those that are named after it: what is behind goes first.

    @ivar choices: what is asked of each queue, in the order in which they are named.
    @ivar over: whether it is over as soon as nothing is sweeping any more.
    """

    def __init__(
        self, queues: Queues, choices: Sequence[requests.Get], serve: Callable[[ItemWait], None], over: bool = False
    ) -> None:
        """@param serve: called when there is an item or all that has expired is dropped; it is in no line then."""
        self._queues = queues
        self._serve = serve
        self.choices = choices
        self.over = over
        self._lines: list[tuple[Fifo, Waiter]] = []

    def stand(self) -> None:
        """Stand in line."""
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

        @return: whether it has to go on, as nobody knows yet what is behind that which has expired.
        """
        self.over = True
        for fifo, waiter in self._lines:
            if fifo.sweeping:
                waiter.even_if_empty = True
                return True
        return False

    def go_on(self) -> None:
        """What was on its way to the client is sent: there is nothing to be done."""

    def stop(self) -> None:
        """ItemWait no longer."""
        lines, self._lines = self._lines, []
        for fifo, waiter in lines:
            fifo.leave(waiter)
            self._queues.release(fifo)


class SweepWait:
    """Waiting until it is known what is behind that which has expired at the head of a queue."""

    def __init__(self, queues: Queues, fifo: Fifo, serve: Callable[[], None]) -> None:
        self._queues = queues
        self._fifo = fifo
        self.queue = fifo.name
        self._waiter = fifo.wait(serve, even_if_empty=True)

    def hasten(self) -> bool:
        """The time is up, which changes nothing."""
        return True

    def go_on(self) -> None:
        """What was on its way to the client is sent: there is nothing to be done."""

    def stop(self) -> None:
        """ItemWait no longer."""
        self._fifo.leave(self._waiter)
        self._queues.release(self._fifo)


class Monitor(Protocol):
    """The client that monitors a queue."""

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

    def monitored(self, wait: MonitorWait) -> None:
        """It has all that it may have."""

    def broken_off(self, wait: MonitorWait, error: StoreError) -> None:
        """The queue cannot be read."""


class MonitorWait:
    """
    Opening items as they come.

    After each item it goes to the end of the line, so that several monitors share a queue fairly.
    """

    def __init__(
        self, queues: Queues, client: Monitor, queue: bytes, maximum: Optional[int], over: bool = False
    ) -> None:
        """
        @param maximum: after how many items it is over; C{None}: when no more may be open.
        @param over: whether it is for what is there, and not for what comes.
        """
        self._queues = queues
        self._client = client
        self._left = maximum
        self.queue = queue
        self._over = over
        self._line: Optional[tuple[Fifo, Waiter]] = None

    def go_on(self) -> None:
        """Take what there is, as much as can be sent, and wait for what comes."""
        while self._line is None and self._hungry():
            # Not the same one each time: who is not in line does not keep it.
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
        """@return: whether it should have an item now; it may be over after that."""
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

        @return: whether it has to go on, as nobody knows yet what is behind that which has expired.
        """
        self._over = True
        if self._line is None or not self._line[0].sweeping:
            return False
        self._line[1].even_if_empty = True
        return True

    def stop(self) -> None:
        """ItemWait no longer."""
        if self._line is not None:
            (fifo, waiter), self._line = self._line, None
            fifo.leave(waiter)
            self._queues.release(fifo)
