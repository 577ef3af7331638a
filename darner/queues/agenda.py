"""
The times when queues are due to be checked.
"""

from __future__ import annotations

from typing import Final

from darner.queues.fifo import Fifo

SECOND: Final = 1000
"""The smallest unit of time, in ms."""
STEPS: Final = 1000
"""A time more than so many units ahead is recorded in a unit that is so many times as long."""


class Agenda:
    """
    The queues by the time when they are due.

    Queues that are due in the same second share an entry, so that neither L{put} nor L{take} takes longer with more
    queues.  Times far ahead share entries for longer units.  The start of a unit counts: such a queue is taken too
    early and must be put again.
    """

    def __init__(self) -> None:
        self._times: dict[Fifo, int] = {}
        self._due: dict[int, dict[Fifo, None]] = {}  # by the beginning of their unit

    def __len__(self) -> int:
        return len(self._times)

    def put(self, fifo: Fifo, due: int, now: int) -> None:
        """
        Set the time when a queue is due.

        @param due: in ms since the epoch; later than C{now}.
        @param now: in ms since the epoch.
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
        """Remove a queue."""
        time = self._times.pop(fifo, None)
        if time is not None:
            queues = self._due.get(time)
            if queues is not None:
                queues.pop(fifo, None)
                if not queues:
                    del self._due[time]

    def take(self, now: int) -> list[dict[Fifo, None]]:
        """@return: the queues that are due now, or perhaps later, to be L{put} again if they are not."""
        return [self._due.pop(time) for time in [time for time in self._due if time <= now]]
