"""
Taking items so that none is lost: each is gone from its queue when it was dealt with, and else goes back.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Final, Optional

from darner.client import requests
from darner.client.addresses import Backoff
from darner.client.errors import ConnectionFailed, InDoubt
from darner.client.links import Link
from darner.client.protocol import Item
from darner.client.reads import OpenRead
from darner.commands.exits import explain
from darner.commands.output import Output
from darner.commands.servers import Client, Reached
from darner.errors import ServerError

FOR_EVER: Final = float("inf")


async def next_item(
    output: Output, reached: Reached, queues: tuple[str, ...], wait: float, heartbeat: Optional[float] = None
) -> Optional[OpenRead]:
    """
    Open an item.  Who waits for ever does so through restarts of the server.

    @param wait: for how many seconds to wait.
    @return: None where there is none in time.
    """
    backoff = Backoff(0.2, 5.0)
    told = False
    while True:
        try:
            return await reached.open(queues, wait, heartbeat=heartbeat)
        except (ConnectionFailed, InDoubt, ServerError) as error:
            if wait != FOR_EVER:
                raise
            if not told:
                output.warn(f"{explain(error)}; trying again")
                told = True
        await asyncio.sleep(backoff.next())


class Drain:
    """
    Takes what is in a queue of one server, with one request for each item: it closes the last one and opens the next.

    As an asynchronous context manager it closes the last one where the block is left, and gives it back where that is
    by an exception.
    """

    def __init__(self, client: Client, queue: str) -> None:
        self._client = client
        self._queue = queue
        self._link: Optional[Link] = None
        self._open = False

    async def __aenter__(self) -> Drain:
        self._link = await self._client._borrow(self._client._deadline(None))
        return self

    async def __aexit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        link = self._link
        assert link is not None
        try:
            if kind is None and self._open:
                await self._ask(requests.close(self._queue))
        except BaseException:
            self._client._drop(link)
            raise
        if kind is None:
            self._client._release(link)
        else:
            self._client._drop(link)

    async def next(self) -> Optional[Item]:
        """
        The last item was dealt with.

        @return: the next one; None where there is none.
        @raise InDoubt: the connection broke: the last item may be had again.
        """
        item: Optional[Item] = await self._ask(requests.get(self._queue, open=True, close=self._open))
        self._open = item is not None
        return item

    async def _ask(self, request: requests.Request) -> Any:
        assert self._link is not None
        return await self._link.ask(request, self._client._deadline(None))
