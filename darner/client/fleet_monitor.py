"""
The items of a queue as they come, of all servers of a fleet.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Optional, Union

from darner.client.commands import Queues
from darner.client.links import Future, Timer
from darner.client.protocol import Item
from darner.client.reads import ItemStream, OpenRead
from darner.errors import ClientError, DarnerError

if TYPE_CHECKING:
    from darner.client.fleet import BaseFleet
    from darner.client.shards import BaseShards


class FleetMonitor(ItemStream):
    """
    The items of a queue as they come, of all servers, so many of them fetched ahead.

    Each is open until the next one is asked for, which closes it on the server that it came from.  As an asynchronous
    context manager the last one is closed where the block is left, and given back where that is by an exception; what
    was fetched ahead goes back.
    """

    def __init__(self, fleet: Union[BaseFleet, BaseShards], queue: Queues, prefetch: int, timeout: float) -> None:
        """
        @param queue: one queue, or several: then it is the first of them that has an item.
        @param prefetch: how many items are open at most.
        @param timeout: for how many seconds to wait for the next one before the iteration ends.
        """
        if prefetch < 1:
            raise ClientError("prefetch is below 1")
        self._fleet = fleet
        self._queue = queue
        self._prefetch = prefetch
        self._timeout = timeout
        self._current: Optional[OpenRead] = None
        self._held: deque[OpenRead] = deque()
        self._fetcher: Optional[Timer] = None
        self._fetching = False
        self._arrival: Optional[Future] = None  # something was fetched, or no more is
        self._stopped = False

    async def next(self) -> Optional[Item]:
        """
        Close the last one.

        @return: the next one; None where none came in time.
        @raise ConnectionFailed: no server could be reached.
        """
        self._stopped = False
        self._confirm()
        read = await self._next_held()
        if read is None:
            read = await self._fleet.open(self._queue, self._timeout)
        if read is None:
            return None
        self._current = read
        self._fetch_ahead()
        return read.item

    async def stop(self) -> None:
        """
        Close the last one, and give back what was fetched ahead.

        @raise GivenBack, InDoubt: the last one is not closed, or perhaps not.
        """
        current, self._current = self._current, None
        self._give_back()
        if current is not None:
            await current.close()

    async def _next_held(self) -> Optional[OpenRead]:
        """@return: the next one that was fetched ahead, or is just being fetched."""
        while True:
            while self._held:
                read = self._held.popleft()
                if read.is_open:  # else its connection has broken, and it is had again
                    return read
            if not self._fetching:
                return None
            self._arrival = self._fleet._runtime.future()
            await self._arrival

    def _arrived(self) -> None:
        arrival, self._arrival = self._arrival, None
        if arrival is not None and not arrival.done():
            arrival.set_result(None)

    def _confirm(self) -> None:
        read, self._current = self._current, None
        if read is not None:
            read._close_at_once()

    def _fetch_ahead(self) -> None:
        if not self._fetching and len(self._held) < self._prefetch - 1:
            self._fetching = True
            self._fetcher = self._fleet._runtime.spawn(self._fetch())

    async def _fetch(self) -> None:
        try:
            while not self._stopped and len(self._held) < self._prefetch - 1:
                read = await self._fleet._open_ready(self._queue)
                if read is None:
                    break
                if self._stopped:
                    read._give_back()
                else:
                    self._held.append(read)
                    self._arrived()
        except DarnerError:
            pass  # who asks for the next one is told
        finally:
            self._fetching = False
            self._arrived()

    def _give_back(self) -> None:
        self._stopped = True
        if self._fetcher is not None:
            self._fetcher.cancel()
        held, self._held = self._held, deque()
        for read in held:
            read._give_back()

    def _stop(self) -> None:
        current, self._current = self._current, None
        self._give_back()
        if current is not None:
            current._give_back()
