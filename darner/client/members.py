"""
The servers of a fleet, the shards that are away, and the reads that wait at all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any, Final, Optional

from darner.client.addresses import Backoff
from darner.client.commands import Commands
from darner.client.errors import ConnectionFailed, InDoubt, TooManyConnections, Unavailable
from darner.client.links import Future, Runtime, Timer
from darner.client.reads import OpenRead
from darner.client.requests import Name, Request
from darner.errors import DarnerError, ServerError

PASSING: Final = (ConnectionFailed, InDoubt, TooManyConnections, Unavailable)
"""What ends when another node leads."""
_PEEK_WAIT: Final = 0.01
_LOOK_AGAIN: Final = 0.5
"""Seconds before what is away is asked again: a shard, besides by those who wait there, or a server of a fleet."""


class Member:
    """
    A server of a fleet.

    @ivar aside_until: when it may be tried again, by the runtime's clock, after it failed.
    @ivar putting: how many items are on their way to it.
    @ivar why: why it could not be asked, or refused a read, the last time; None where that went well.
    """

    def __init__(self, client: Commands) -> None:
        self.client = client
        self.aside_until = 0.0
        self.putting = 0
        self.why: Optional[DarnerError] = None
        self._tried = -math.inf
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

    def failed(self, now: float, error: DarnerError) -> None:
        """A call to it has ended with an error; where it could not be asked, set it aside, for longer each time."""
        if isinstance(error, PASSING):
            self.why = error
            if now >= self.aside_until:
                self.aside_until = now + self._backoff.next()

    def refused_read(self, now: float, error: DarnerError) -> None:
        """The same of a read, which any server may refuse for reasons of its own."""
        self.failed(now, error)
        self.why = error

    def went_well(self) -> None:
        self.aside_until = 0.0
        self.why = None
        self._backoff.reset()

    def pause(self, now: float, answered: bool) -> float:
        """
        How long a read that waits leaves it alone.  At 0 it is to be asked at once.

        @param answered: whether any server has answered that read; else those that are set aside are tried twice a
            second, by all reads together.
        @return: seconds.
        """
        if self.aside_until <= now:
            return 0.0
        if answered:
            return self.aside_until - now
        if self._tried + _LOOK_AGAIN <= now:
            self._tried = now
            return 0.0
        return min(self.aside_until, self._tried + _LOOK_AGAIN) - now


def unanswered(members: Collection[Member]) -> DarnerError:
    """@return: why no server of a fleet has answered a read."""
    reasons = [member.why for member in members if member.why is not None]
    for why in reasons:
        if isinstance(why, ServerError):
            return why
    if not members:
        return ConnectionFailed("the fleet has no servers")
    error = ConnectionFailed(f"no server could be asked: {reasons[-1] if reasons else 'none answered in time'}")
    error.__cause__ = reasons[-1] if reasons else None
    return error


class Away:
    """
    The shards that could not be asked, until they answer again.

    @ivar why: the error of the last call to each.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.why: dict[Commands, DarnerError] = {}
        self._runtime = runtime
        self._looking: dict[Commands, Timer] = {}
        self._closed = False

    def note(self, client: Commands, queue: Name, error: DarnerError) -> None:
        """A shard could not be asked.  From now on it is asked for the queue until it answers."""
        if self._closed:
            return
        self.why[client] = error
        if client not in self._looking:
            self._looking[client] = self._runtime.spawn(self._look(client, queue))

    def back(self, client: Commands) -> None:
        """It has answered."""
        self.why.pop(client, None)

    def close(self) -> None:
        """Ask no more."""
        self._closed = True
        looking, self._looking = self._looking, {}
        for task in looking.values():
            task.cancel()

    async def _look(self, client: Commands, queue: Name) -> None:
        try:
            while client in self.why:
                await self._runtime.sleep(_LOOK_AGAIN)
                try:
                    # With a wait, and so on a connection of its own: where the time of one call is up, the shared one
                    # is retired.
                    await client.peek(queue, _PEEK_WAIT)
                except PASSING as error:
                    if client in self.why:
                        self.why[client] = error
                except DarnerError:
                    self.back(client)
                else:
                    self.back(client)
        finally:
            self._looking.pop(client, None)


class Race:
    """
    A read that waits at all servers: the first item is had.

    @ivar answered: whether any server of a fleet has answered.
    """

    def __init__(self, queues: tuple[Name, ...], until: float, heartbeat: Optional[float], won: Future) -> None:
        self.queues = queues
        self.until = until
        self.heartbeat = heartbeat
        self.won = won
        self.answered = False
        self.waits: dict[Any, Timer] = {}

    def end(self, read: Optional[OpenRead]) -> None:
        if not self.won.done():
            self.won.set_result(read)
        elif read is not None:
            read._give_back()

    async def run(self, runtime: Runtime, races: set[Race], begin: Callable[[], None]) -> Optional[OpenRead]:
        """
        Wait until it is won, or the time is up.

        @param races: those that are under way; it is among them meanwhile.
        @param begin: begins to wait at all of them.
        """
        timer: Optional[Timer] = None
        if math.isfinite(self.until):
            timer = runtime.call_later(self.until - runtime.now(), lambda: self.end(None))
        races.add(self)
        try:
            begin()
            read: Optional[OpenRead] = await self.won
            return read
        except BaseException:
            # The caller was cancelled when the item was there already.
            if self.won.done() and not self.won.cancelled() and self.won.exception() is None and self.won.result():
                self.won.result()._give_back()
            raise
        finally:
            races.discard(self)
            if timer is not None:
                timer.cancel()
            for wait in list(self.waits.values()):
                wait.cancel()
