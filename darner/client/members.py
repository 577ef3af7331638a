"""
The servers of a fleet, and the reads that wait at all of them.
"""

from __future__ import annotations

from typing import Any, Optional

from darner.client.addresses import Backoff
from darner.client.commands import Commands
from darner.client.links import Future, Timer
from darner.client.reads import OpenRead
from darner.client.requests import Name, Request


class Member:
    """
    A server of a fleet.

    @ivar aside_until: when it may be tried again, by the runtime's clock, after it failed.
    @ivar putting: how many items are on their way to it.
    """

    def __init__(self, client: Commands) -> None:
        self.client = client
        self.aside_until = 0.0
        self.putting = 0
        self._backoff = Backoff(0.1, 10.0)

    async def put(self, asked: list[Request], timeout: float) -> list[Any]:
        """
        Put items.

        @return: the result of each, or why there is none.
        @raise DarnerError: there is no connection, or one is in doubt.
        """
        self.putting += len(asked)
        try:
            if len(asked) == 1:
                return [await self.client._call(asked[0], timeout)]
            return await self.client._call_all(asked, timeout)
        finally:
            self.putting -= len(asked)

    def failed(self, now: float) -> None:
        """Set it aside, for longer each time."""
        if now >= self.aside_until:
            self.aside_until = now + self._backoff.next()

    def went_well(self) -> None:
        self.aside_until = 0.0
        self._backoff.reset()


class Race:
    """A read that waits at all servers: the first item is had."""

    def __init__(self, queues: tuple[Name, ...], until: float, heartbeat: Optional[float], won: Future) -> None:
        self.queues = queues
        self.until = until
        self.heartbeat = heartbeat
        self.won = won
        self.waits: dict[Any, Timer] = {}

    def end(self, read: Optional[OpenRead]) -> None:
        if not self.won.done():
            self.won.set_result(read)
        elif read is not None:
            read._give_back()
