"""
Items that are open: one at a time (L{OpenRead}), and as they come (C{Monitor}).
"""

from __future__ import annotations

import math
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Any, Optional, TypeVar

from darner.client import requests
from darner.client.errors import GivenBack, InDoubt
from darner.client.links import Link, Timer
from darner.client.protocol import Item
from darner.client.requests import Name
from darner.errors import ClientError, DarnerError, TooManyOpenReads

if TYPE_CHECKING:
    from darner.client.commands import Commands

LONGEST_WAIT = 30.0
"""
Seconds for which the server is asked to wait in one request: then it is asked again, so that a server that is gone
without a word is noticed.
"""


class OpenRead:
    """
    An item that is set aside for this client until it is closed, aborted, or the client goes.

    As an asynchronous context manager it is closed where the block is left, and given back where that is by an
    exception
    (cancellation is one).

    @ivar item: what was read.
    """

    def __init__(self, client: Commands, link: Link, item: Item, heartbeat: Optional[float] = None) -> None:
        """@param heartbeat: touch it each time so many seconds have gone by."""
        self.item = item
        self._client = client
        self._link: Optional[Link] = link
        self._lost = False
        self._timer: Optional[Timer] = None
        self._heartbeat = heartbeat
        if heartbeat is not None:
            self._timer = client._runtime.call_later(heartbeat, self._beat)

    @property
    def payload(self) -> bytes:
        return self.item.payload

    @property
    def flags(self) -> int:
        return self.item.flags

    @property
    def queue(self) -> str:
        """The queue that it came from."""
        return self.item.queue

    @property
    def server(self) -> str:
        """The address of the server that it came from."""
        return str(self._client.address)

    @property
    def is_open(self) -> bool:
        """Whether it is neither closed nor aborted, and was not given back as far as is known."""
        return self._link is not None and not self._link.closed and not self._lost

    async def close(self) -> None:
        """
        It is done with, and gone for good.  Harmless where it was closed or aborted before.

        @raise GivenBack: it is not: the connection had broken, or a touch has shown that its time was up.
        @raise InDoubt: the connection broke before the server answered.
        """
        link = self._leave()
        if link is None:
            return
        client = self._client
        if link.closed:
            client._drop(link)
            raise GivenBack()
        try:
            await link.ask(requests.close(self.item.queue), client._deadline(None))
        except InDoubt:
            client._drop(link)
            raise
        except DarnerError:
            client._drop(link)
            raise
        except BaseException:
            # The reply comes some time, and it was to be closed.
            client._release(link)
            raise
        client._release(link)
        if self._lost:
            raise GivenBack()

    async def abort(self) -> None:
        """Give it back.  Harmless where it was closed or aborted before, and it never fails."""
        self._give_back()

    async def touch(self) -> bool:
        """
        Let its time (``open_timeout``) begin anew.

        @return: False where it was given back before.
        """
        link = self._link
        if link is None or link.closed or self._lost:
            return False
        touched: bool = await link.ask(requests.touch(self.item.queue), self._client._deadline(None))
        self._lost = not touched
        return touched

    def _give_back(self) -> None:
        link = self._leave()
        if link is not None:
            link.tell(requests.abort(self.item.queue))
            self._client._release(link)

    def _close_at_once(self) -> Item:
        """Close it, and do not wait for the answer.  @return: the item."""
        link = self._leave()
        if link is not None:
            link.tell(requests.close(self.item.queue))
            self._client._release(link)
        return self.item

    def _leave(self) -> Optional[Link]:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        link, self._link = self._link, None
        return link

    def _beat(self) -> None:
        link = self._link
        if link is None or link.closed or self._lost:
            return
        link.tell(requests.touch(self.item.queue), self._felt)
        assert self._heartbeat is not None
        self._timer = self._client._runtime.call_later(self._heartbeat, self._beat)

    def _felt(self, touched: Any, error: Optional[DarnerError]) -> None:
        self._lost = self._lost or (error is None and not touched)

    async def __aenter__(self) -> OpenRead:
        return self

    async def __aexit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if kind is None:
            await self.close()
        else:
            self._give_back()

    def __del__(self) -> None:
        # Nobody can close it any more: a cancelled call has read it, and has not had it.
        link = self._leave()
        if link is not None:
            self._client._drop(link)


class ItemStream:
    """Items as they come, as an asynchronous iterator, and as a context manager that ends it."""

    async def next(self) -> Optional[Item]:
        """@return: the next item; C{None} where none came in time."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Confirm the last item, and give back what was fetched ahead."""
        raise NotImplementedError

    def _stop(self) -> None:
        """Give back the last item as well."""
        raise NotImplementedError

    def __aiter__(self: _S) -> _S:
        return self

    async def __anext__(self) -> Item:
        item = await self.next()
        if item is None:
            raise StopAsyncIteration
        return item

    async def __aenter__(self: _S) -> _S:
        return self

    async def __aexit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if kind is None:
            await self.stop()
        else:
            self._stop()


_S = TypeVar("_S", bound=ItemStream)


class Monitor(ItemStream):
    """
    The items of a queue as they come, so many of them fetched ahead.

    Each is open until the next one is asked for, which confirms it.  As an asynchronous context manager the last one is
    confirmed where the block is left, and given back where that is by an exception; what was fetched ahead goes back.
    ``max_open_reads`` of the queue bounds what is fetched ahead: it has to be more than 1 for that to be any use.
    """

    def __init__(self, client: Commands, queue: Name, prefetch: int, timeout: float) -> None:
        """
        @param prefetch: how many items are open at most.
        @param timeout: for how many seconds to wait for the next one before the iteration ends.
        """
        if prefetch < 1:
            raise ClientError("prefetch is below 1")
        self._client = client
        self._queue = queue
        self._prefetch = prefetch
        self._timeout = timeout
        self._held: deque[Item] = deque()
        self._link: Optional[Link] = None
        self._current = False
        self._fetching = False

    async def next(self) -> Optional[Item]:
        """
        Confirm the last one.

        @return: the next one; None where none came in time.
        @raise InDoubt: the connection broke and there was no other in time.  What was open goes back.
        """
        runtime = self._client._runtime
        until = runtime.now() + self._timeout
        while True:
            link = self._link
            try:
                if link is None or link.closed:
                    link = await self._connect()
                self._confirm(link)
                if not self._held:
                    await self._fetch(link, until)
                if self._held and not link.closed:
                    self._current = True
                    self._fetch_ahead(link)
                    return self._held.popleft()
            except InDoubt:
                pass
            except BaseException:
                self._stop()
                raise
            if runtime.now() >= until:
                if self._link is not None and self._link.closed:
                    self._stop()
                    raise InDoubt("the connection has ended")
                return None

    async def stop(self) -> None:
        """Confirm the last one, and give back what was fetched ahead."""
        link = self._link
        if link is not None and not link.closed and self._current:
            self._current = False
            try:
                await link.ask(requests.confirm(self._queue, 1), self._client._deadline(None))
            finally:
                self._stop()
        self._stop()

    async def _connect(self) -> Link:
        self._stop()
        self._link = await self._client._borrow(self._client._deadline(None))
        return self._link

    def _confirm(self, link: Link) -> None:
        if self._current:
            self._current = False
            link.tell(requests.confirm(self._queue, 1))

    async def _fetch(self, link: Link, until: float) -> None:
        """Have at least one, where there is any in time."""
        client, now = self._client, self._client._runtime.now
        request = requests.monitor(self._queue, 0, self._prefetch)
        await link.ask(request, client._deadline(None), self._held.append)
        left = until - now()
        if self._held or left <= 0:
            return
        wait = min(left, LONGEST_WAIT)
        read = requests.get(self._queue, wait=wait, open=True)
        item = await link.ask(read, now() + wait + client.timeout)
        if item is not None:
            self._held.append(item)

    def _fetch_ahead(self, link: Link) -> None:
        if self._prefetch > 1 and len(self._held) <= self._prefetch // 2 and not self._fetching:
            self._fetching = True
            request = requests.monitor(self._queue, 0, self._prefetch - len(self._held))
            link.tell(request, self._fetched, self._held.append)

    def _fetched(self, result: Any, error: Optional[DarnerError]) -> None:
        self._fetching = False

    def _stop(self) -> None:
        link, self._link = self._link, None
        self._held = deque()
        self._current = self._fetching = False
        if link is not None:
            self._client._drop(link)

    def __del__(self) -> None:
        if self._link is not None:
            self._stop()


async def wait_for_item(
    client: Commands, queues: tuple[Name, ...], wait: float, peek: bool
) -> Optional[tuple[Link, Item]]:
    """
    Open, or show, an item on a connection of its own.

    Where that breaks, it is tried again on another one: what was open goes back.

    @return: the item, and the connection that it is open on, which is not released.
    """
    now = client._runtime.now
    until = now() + wait
    while True:
        link = await client._borrow(client._deadline(None))
        try:
            left = min(max(0.0, until - now()), LONGEST_WAIT)
            if len(queues) == 1:
                request = requests.get(queues[0], wait=left, open=not peek, peek=peek)
            else:
                request = requests.get_first(*queues, wait=left, open=not peek, peek=peek)
            item: Optional[Item] = await link.ask(request, now() + left + client.timeout)
        except InDoubt:
            client._drop(link)
            if client._closed or now() >= until + client.timeout:
                raise
            if not client._reconnect:
                raise
            continue
        except (TooManyOpenReads, BaseException) as error:
            if isinstance(error, DarnerError) and not isinstance(error, TooManyOpenReads):
                client._release(link)
            else:
                client._drop(link)
            raise
        if item is not None:
            return link, item
        client._release(link)
        if math.isfinite(until) and now() >= until:
            return None
