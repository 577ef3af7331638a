"""
The connections of a client to its server: connecting again, the one that is shared, and the pool of the others.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Awaitable
from typing import Any, Optional, Union

from darner.client import requests
from darner.client.addresses import Address, Backoff, address
from darner.client.errors import ClientClosed, ConnectionFailed, InDoubt, TimedOut, TooManyConnections, TooManyLogins
from darner.client.links import Future, Link, Runtime
from darner.client.put_back import PutBack
from darner.client.requests import Request
from darner.errors import DarnerError

Place = Union[str, Address, tuple[str, int]]
"""Where a server is; see `darner.client.addresses.address`."""


class Core:
    """
    What every client has.

    Short calls share one connection where the front end can pipeline.  What waits for an item, or has one open, has a
    connection to itself for that long; afterwards it is kept for the next one.

    @ivar address: of the server.
    """

    def __init__(
        self, runtime: Runtime, place: Place, *, user: str = "", password: str = "", timeout: float = 10.0,
        connect_timeout: float = 5.0, reconnect: bool = True, max_idle: int = 16,
    ) -> None:  # fmt: skip
        """
        @param timeout: seconds that each call may take, connecting again included; those that wait for an item have
            their wait besides.
        @param connect_timeout: seconds for one attempt to connect.
        @param reconnect: whether to try again, within C{timeout}, where no connection could be made.
        @param max_idle: how many connections that are not in use are kept for reads.
        """
        self.address = address(place)
        self.timeout = timeout
        self._runtime = runtime
        self._connect_timeout = connect_timeout
        self._reconnect = reconnect
        self._max_idle = max_idle
        self._login = requests.login(user, password) if user else None
        self._main: Optional[Link] = None
        self._retired: list[Link] = []  # those that were the shared one, as long as somebody waits there
        self._idle: list[Link] = []
        self._busy: set[Link] = set()
        self._connecting = False
        self._arrivals: list[Future] = []
        self._closed = False
        self._put_back = PutBack(self)

    # Connections

    async def _connect(self, deadline: float) -> Link:
        backoff = Backoff()
        while True:
            try:
                return await self._try_to_connect(deadline)
            except (ConnectionFailed, InDoubt, TooManyConnections, TooManyLogins) as error:
                reason = error
            if self._closed:
                raise ClientClosed()
            pause = backoff.next()
            if not self._reconnect or self._runtime.now() + pause >= deadline:
                if isinstance(reason, TooManyConnections):
                    raise reason
                raise ConnectionFailed(f"no connection to {self.address}: {reason}") from reason
            await self._runtime.sleep(pause)

    async def _try_to_connect(self, deadline: float) -> Link:
        left = deadline - self._runtime.now()
        if self._closed:
            raise ClientClosed()
        if left <= 0:
            raise TimedOut(f"no connection to {self.address} in time")
        link = await self._runtime.connect(self.address, min(left, self._connect_timeout))
        link.unwanted = self._put_back.add
        if self._closed:
            link.abort()
            raise ClientClosed()
        if self._login is not None:
            try:
                await link.ask(self._login, deadline)
            except BaseException:
                link.abort()
                raise
        return link

    async def _shared(self, deadline: float) -> Link:
        """@return: the connection for short calls; one call connects for all."""
        if not self._runtime.pipelining:
            return await self._borrow(deadline)
        while True:
            link = self._main
            if link is not None and not link.retired:
                return link
            if not self._connecting:
                self._connecting = True
                self._retired = [link for link in [*self._retired, self._main] if link is not None and not link.closed]
                self._main = None
                try:
                    self._main = link = await self._connect(deadline)
                    return link
                finally:
                    self._connecting = False
                    arrivals, self._arrivals = self._arrivals, []
                    for arrival in arrivals:
                        if not arrival.done():
                            arrival.set_result(None)
            await self._arrival(deadline)

    async def _arrival(self, deadline: float) -> None:
        """Wait until the one who connects is done."""
        arrival = self._runtime.future()
        self._arrivals.append(arrival)

        def give_up() -> None:
            if not arrival.done():
                arrival.set_exception(TimedOut(f"no connection to {self.address} in time"))

        timer = self._runtime.call_later(max(0.0, deadline - self._runtime.now()), give_up)
        try:
            await arrival
        finally:
            timer.cancel()

    async def _borrow(self, deadline: float) -> Link:
        """@return: a connection that nobody else uses until it is released."""
        if self._closed:
            raise ClientClosed()
        while True:
            try:
                link = self._idle.pop()
            except IndexError:
                link = await self._connect(deadline)
                break
            if link.fresh():
                break
        self._busy.add(link)
        return link

    def _release(self, link: Link) -> None:
        """Nothing is open there, and nothing is waited for."""
        self._busy.discard(link)
        if self._closed or link.retired or len(self._idle) >= self._max_idle:
            link.abort()
        else:
            self._idle.append(link)

    def _drop(self, link: Link) -> None:
        """End it: what is open there goes back."""
        self._busy.discard(link)
        link.abort()

    # Calls

    def _deadline(self, timeout: Optional[float]) -> float:
        return self._runtime.now() + (self.timeout if timeout is None else timeout)

    async def _call(self, request: Request, timeout: Optional[float] = None) -> Any:
        """
        Ask on the shared connection.

        @raise ConnectionFailed: there is none in time.
        @raise InDoubt: it broke in between, and the request cannot be sent again without harm.
        """
        deadline = self._runtime.now() + (self.timeout if timeout is None else timeout)
        while True:
            link = self._main
            if link is None or link.retired:
                link = await self._shared(deadline)
            if not self._runtime.pipelining:
                return await self._call_alone(link, request, deadline)
            answer = link.ask(request, deadline)
            try:
                return await answer
            except InDoubt:
                if not request.repeatable or self._closed or self._runtime.now() >= deadline:
                    raise
            except DarnerError:
                raise
            except BaseException:
                link.disown(request, answer)
                raise
            await self._runtime.sleep(random.uniform(0, 0.05))

    async def _call_alone(self, link: Link, request: Request, deadline: float) -> Any:
        """The same where a connection serves one call at a time."""
        while True:
            try:
                result = await link.ask(request, deadline)
            except InDoubt:
                self._drop(link)
                if not request.repeatable or self._closed or self._runtime.now() >= deadline:
                    raise
            except DarnerError:
                self._release(link)
                raise
            except BaseException:
                self._drop(link)
                raise
            else:
                self._release(link)
                return result
            await self._runtime.sleep(random.uniform(0, 0.05))
            link = await self._shared(deadline)

    async def _call_all(self, asked: list[Request], timeout: Optional[float]) -> list[Union[Any, DarnerError]]:
        """
        Ask all in one go.

        @return: the result of each, or why there is none.
        """
        deadline = self._deadline(timeout)
        link = await self._shared(deadline)
        answer = link.ask_all(asked, deadline)
        try:
            results = await answer
        except BaseException:
            link.disown_all(asked, answer)
            if not self._runtime.pipelining:
                self._drop(link)
            raise
        if not self._runtime.pipelining:
            self._release(link)
        return results

    async def _call_with_payload(self, request: Request, chunks: Any, timeout: Optional[float]) -> None:
        """Send a request whose payload comes in pieces, on a connection of its own."""
        deadline = self._deadline(timeout)
        link = await self._borrow(deadline)
        missing = request.payload_size or 0
        answer: Optional[Awaitable[Any]] = None
        try:
            answer = link.ask(request, deadline)
            async for chunk in _async(chunks):
                missing -= len(chunk)
                if missing < 0:
                    raise ValueError("the payload is longer than was said")
                await link.write(bytes(chunk))
            if missing:
                raise ValueError("the payload is shorter than was said")
            await link.write(b"\r\n")
            await answer
        except BaseException as error:
            # What is not whole is not stored, and nothing may follow it.
            self._drop(link)
            if answer is not None and not isinstance(error, DarnerError):
                with contextlib.suppress(DarnerError):
                    await answer
            raise
        self._release(link)

    async def _close(self) -> None:
        """
        Wait for what was sent on the shared connection, and end all.  Open reads that were not closed go back.
        """
        await self._put_back.end(self.timeout)  # for which it may still connect
        self._closed = True
        deadline = self._deadline(None)
        for link in [*self._retired, self._main]:
            if link is not None and not link.closed:
                with contextlib.suppress(DarnerError):
                    await link.ask(requests.version(), deadline)
        # What has come meanwhile for a cancelled call is put back.
        await self._put_back.end(self.timeout)
        self._end()

    def _end(self) -> None:
        """End all connections at once."""
        self._closed = True
        links = [*self._idle, *self._busy, *self._retired, *([self._main] if self._main is not None else [])]
        self._idle.clear()
        self._busy.clear()
        for link in links:
            link.abort()


async def _async(chunks: Any) -> Any:
    if hasattr(chunks, "__aiter__"):
        async for chunk in chunks:
            yield chunk
    else:
        for chunk in chunks:
            yield chunk
