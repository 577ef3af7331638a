"""
When queues are to be looked at next: times in the future, each for any number of queues.
"""

from __future__ import annotations

from typing import Final

from darner.queues.fifo import Fifo

SECOND: Final = 1000
"""Milliseconds, to which what is due soon is distinguished."""
STEPS: Final = 1000
"""What is due later than so many of one unit from now is put down by a unit that is so many times as long."""


class Agenda:
    """
    Which queues are due when.

    Queues that are due in the same second lie together: so neither a queue that is put down nor a look at what is due
    takes longer where there are more of them.  What is due far from now lies together by longer units, the beginning
    of which counts: it is looked at too early, and put down anew.
    """

    def __init__(self) -> None:
        self._times: dict[Fifo, int] = {}
        self._due: dict[int, dict[Fifo, None]] = {}  # by the beginning of their unit

    def __len__(self) -> int:
        return len(self._times)

    def put(self, fifo: Fifo, due: int, now: int) -> None:
        """
        A queue is due then, and not when it was before.

        @param due: in ms since the epoch; after C{now}.
        """
        self.discard(fifo)
        unit = SECOND
        while due - now >= unit * STEPS:
            unit *= STEPS
        time = due - due % unit
        self._times[fifo] = time
        queues = self._due.get(time)
        if queues is None:
            queues = self._due[time] = {}
        queues[fifo] = None

    def discard(self, fifo: Fifo) -> None:
        """A queue is due no more."""
        time = self._times.pop(fifo, None)
        if time is not None:
            queues = self._due.get(time)
            if queues is not None:
                queues.pop(fifo, None)
                if not queues:
                    del self._due[time]

    def take(self, now: int) -> list[dict[Fifo, None]]:
        """@return: the queues that are due now, or soon, and to be put down anew if they are not."""
        return [self._due.pop(time) for time in [time for time in self._due if time <= now]]
