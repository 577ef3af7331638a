"""
Work in pieces: no request keeps the reactor for long, however many queues and items it is about.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred

from darner.queues.front_end import IQueues

BUDGET: Final = 0.0005
"""Seconds for which a request works before others get their turn."""


class _Pause:
    """Fires in a later turn."""

    def __init__(self) -> None:
        self.over: Deferred[None] = Deferred()

    def go_on(self) -> None:
        if not self.over.called:
            self.over.callback(None)


class Pace:
    """The pace of one request, from when it is made."""

    def __init__(self, queues: IQueues, timer: Callable[[], float] = time.perf_counter, budget: float = BUDGET) -> None:
        """@param timer: the time, in seconds, by which the work is measured."""
        self._commit = queues.commit
        self._timer = timer
        self._budget = budget
        self._since = timer()

    @property
    def spent(self) -> bool:
        """Whether others are to have their turn: then call L{rest}."""
        return self._timer() - self._since >= self._budget

    async def rest(self) -> None:
        """Go on in a later turn."""
        pause = _Pause()
        self._commit.rest(pause)
        await pause.over
        self._since = self._timer()

    async def ease(self) -> None:
        """L{rest}, if that is due."""
        if self.spent:
            await self.rest()
