"""
The commands of a client, once for all front ends: coroutines over a `darner.client.links.Runtime`.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from typing import ClassVar, Optional, Union

from darner.client import requests
from darner.client.core import Core
from darner.client.figures import Stats, read_stats
from darner.client.protocol import Item
from darner.client.reads import Monitor, OpenRead, wait_for_item
from darner.client.requests import Name
from darner.errors import ClientError, DarnerError

Queues = Union[Name, Sequence[Name]]
"""One queue, or several: then it is the first of them that has an item."""
Chunks = Union[Iterable[bytes], AsyncIterable[bytes]]
MOST_AT_ONCE = 256
"""How many requests of C{put_many} and C{get_many} are sent without waiting for replies."""


def names(queues: Queues) -> tuple[Name, ...]:
    """@raise ClientError: there is none."""
    if isinstance(queues, (str, bytes)):
        return (queues,)
    if not queues:
        raise ClientError("no queue is named")
    return tuple(queues)


class Commands(Core):
    """
    All that can be asked of a server.

    All raise a L{DarnerError}: what the server answered (C{ClientError}, C{ServerError} and what is derived from them),
    C{ConnectionFailed} where there was no connection in time, and C{InDoubt} where it broke before the reply.
    C{timeout} is in seconds and goes before that of the client.
    """

    open_read: ClassVar[type[OpenRead]] = OpenRead

    async def put(
        self, queue: Name, payload: bytes, *, flags: int = 0, expiry: int = 0, delay: Optional[float] = None,
        id: Optional[Name] = None, sync: bool = False, timeout: Optional[float] = None,
    ) -> None:  # fmt: skip
        """
        Put an item at the end of a queue.

        @param expiry: seconds from now below 1,000,000, else Unix seconds; 0 is never.
        @param delay: seconds for which it is kept back.
        @param id: within the queue's ``dedupe_window`` an id is stored once: a put that is in doubt is sent again.
        @param sync: wait until it is on stable storage.
        @raise QueueFull: the queue refuses it.
        """
        request = requests.put(queue, payload, flags=flags, expiry=expiry, delay=delay, id=id, sync=sync)
        await self._call(request, timeout)

    async def put_many(
        self, queue: Name, payloads: Iterable[bytes], *, flags: int = 0, expiry: int = 0,
        delay: Optional[float] = None, sync: bool = False, timeout: Optional[float] = None,
    ) -> int:  # fmt: skip
        """
        Put many, without waiting for each reply.

        @return: how many: all of them.
        @raise DarnerError: why the first one that was not put was refused; C{error.stored} says how many were put, and
            C{error.refused} has the payloads that were not, or are in doubt.
        """
        stored = 0
        batch: list[bytes] = []
        for payload in payloads:
            batch.append(payload)
            if len(batch) >= MOST_AT_ONCE:
                stored = await self._put_batch(queue, batch, stored, flags, expiry, delay, sync, timeout)
                batch = []
        if batch:
            stored = await self._put_batch(queue, batch, stored, flags, expiry, delay, sync, timeout)
        return stored

    async def _put_batch(
        self, queue: Name, batch: list[bytes], stored: int, flags: int, expiry: int, delay: Optional[float], sync: bool,
        timeout: Optional[float],
    ) -> int:  # fmt: skip
        """@return: how many are stored with those of this batch."""
        asked = [
            requests.put(queue, payload, flags=flags, expiry=expiry, delay=delay, sync=sync) for payload in batch
        ]
        results = await self._call_all(asked, timeout)
        refused = [payload for payload, result in zip(batch, results, strict=True) if isinstance(result, DarnerError)]
        stored += len(batch) - len(refused)
        for result in results:
            if isinstance(result, DarnerError):
                result.stored, result.refused = stored, refused  # type: ignore[attr-defined]
                raise result
        return stored

    async def put_stream(
        self, queue: Name, chunks: Chunks, size: int, *, flags: int = 0, expiry: int = 0, delay: Optional[float] = None,
        id: Optional[Name] = None, sync: bool = False, timeout: Optional[float] = None,
    ) -> None:  # fmt: skip
        """
        Put an item of any size without having it in memory.

        @param chunks: its pieces, C{size} bytes together.
        @raise ValueError: they are not; nothing is put.
        """
        request = requests.put_stream(queue, size, flags=flags, expiry=expiry, delay=delay, id=id, sync=sync)
        await self._call_with_payload(request, chunks, timeout)

    async def get(self, queue: Queues, timeout: float = 0) -> Optional[Item]:
        """
        Take an item.

        Without a wait it is at most once: C{InDoubt} where the connection breaks.  With a wait the item is opened, and
        closed when it is here, so that one that comes after the call was cancelled goes back.

        @param timeout: for how many seconds to wait for one.
        @return: None where there is none.
        """
        asked = names(queue)
        if timeout <= 0:
            request = requests.get(asked[0]) if len(asked) == 1 else requests.get_first(*asked)
            item: Optional[Item] = await self._call(request)
            return item
        found = await wait_for_item(self, asked, timeout, False)
        if found is None:
            return None
        link, item = found
        link.tell(requests.close(item.queue))
        self._release(link)
        return item

    async def get_many(self, queue: Name, count: int, *, timeout: Optional[float] = None) -> list[Item]:
        """
        Take up to so many items that are there.

        Where the call is cancelled, what it has taken goes back to the end of the queue, with its flags, but without an
        expiry.

        @raise DarnerError: none was had.  Where some were, they are what is returned.
        """
        items: list[Item] = []
        try:
            while len(items) < count:
                asked = [requests.get(queue) for _ in range(min(count - len(items), MOST_AT_ONCE))]
                results = await self._call_all(asked, timeout)
                items += [result for result in results if isinstance(result, Item)]
                errors = [result for result in results if isinstance(result, DarnerError)]
                if errors and not items:
                    raise errors[0]
                if errors or None in results:
                    break
        except DarnerError:
            if not items:
                raise
        except BaseException:
            self._put_back.add(items)
            raise
        return items

    async def get_into(
        self, queue: Name, sink: Callable[[bytes], object], *, timeout: Optional[float] = None
    ) -> Optional[Item]:
        """
        Take an item of any size without having it in memory.

        It is open until all of it is there: where the sink raises or the connection breaks, it goes back.

        @param sink: is called with each piece.
        @return: the item, without its payload; None where there is none.
        """
        deadline = self._deadline(timeout)
        link = await self._borrow(deadline)
        try:
            item: Optional[Item] = await link.ask(requests.get(queue, open=True, sink=sink), deadline)
            if item is not None:
                await link.ask(requests.close(queue), deadline)
        except BaseException:
            self._drop(link)
            raise
        self._release(link)
        return item

    async def peek(self, queue: Queues, timeout: float = 0) -> Optional[Item]:
        """@return: the item at the head, which stays there; None where there is none."""
        asked = names(queue)
        if timeout <= 0 and len(asked) == 1:
            item: Optional[Item] = await self._call(requests.get(asked[0], peek=True))
            return item
        found = await wait_for_item(self, asked, max(0.0, timeout), True)
        if found is None:
            return None
        self._release(found[0])
        return found[1]

    async def open(self, queue: Queues, timeout: float = 0, *, heartbeat: Optional[float] = None) -> Optional[OpenRead]:
        """
        Open an item: it is set aside until it is closed or given back.

        @param timeout: for how many seconds to wait for one.
        @param heartbeat: touch it each time so many seconds have gone by, for queues with an ``open_timeout``.
        @return: None where there is none.
        """
        found = await wait_for_item(self, names(queue), max(0.0, timeout), False)
        return None if found is None else self.open_read(self, *found, heartbeat)

    def monitor(self, queue: Name, *, prefetch: int = 1, timeout: float = float("inf")) -> Monitor:
        """@return: the items as they come, each confirmed when the next one is asked for."""
        return Monitor(self, queue, prefetch, timeout)

    async def flush(self, queue: Name, *, timeout: Optional[float] = None) -> None:
        """Drop all items of the queue but those that are open."""
        await self._call(requests.flush(queue), timeout)

    async def flush_all(self, *, timeout: Optional[float] = None) -> None:
        """The same for all queues."""
        await self._call(requests.flush_all(), timeout)

    async def flush_expired(self, queue: Optional[Name] = None, *, timeout: Optional[float] = None) -> int:
        """@return: how many items had expired at the head of the queue, or of all queues; they are dropped."""
        return int(await self._call(requests.flush_expired(queue), timeout))

    async def delete(self, queue: Name, *, timeout: Optional[float] = None) -> None:
        """Drop the queue, whether it is there or not."""
        await self._call(requests.delete(queue), timeout)

    async def requeue(
        self, origin: Name, target: Name, count: Optional[int] = None, *, timeout: Optional[float] = None
    ) -> int:
        """
        Move items from one queue to the end of another.

        @param count: how many; by default all.
        @return: how many were moved.
        """
        return int(await self._call(requests.requeue(origin, target, count), timeout))

    async def stats(self, *, timeout: Optional[float] = None) -> Stats:
        """@return: the figures of the server and its queues."""
        return read_stats(await self._call(requests.stats(), timeout))

    async def dump_stats(self, *queues: Name, timeout: Optional[float] = None) -> dict[str, dict[str, str]]:
        """@return: the figures of the queues that are named, or of all, as text."""
        blocks: dict[str, dict[str, str]] = await self._call(requests.dump_stats(*queues), timeout)
        return blocks

    async def dump_config(self, *queues: Name, timeout: Optional[float] = None) -> dict[str, dict[str, str]]:
        """@return: the settings of the queues that are named, or of all, as text."""
        blocks: dict[str, dict[str, str]] = await self._call(requests.dump_config(*queues), timeout)
        return blocks

    async def status(self, *, timeout: Optional[float] = None) -> str:
        """@return: C{"UP"}, C{"READONLY"} or C{"QUIESCENT"}."""
        return str(await self._call(requests.status(), timeout))

    async def set_status(self, status: str, *, timeout: Optional[float] = None) -> None:
        """@param status: C{"up"}, C{"readonly"} or C{"quiescent"}."""
        await self._call(requests.set_status(status), timeout)

    async def version(self, *, timeout: Optional[float] = None) -> str:
        """@return: the server's version."""
        return str(await self._call(requests.version(), timeout))

    async def reload(self, *, timeout: Optional[float] = None) -> None:
        """Have the server read its configuration file again."""
        await self._call(requests.reload(), timeout)

    async def shutdown(self, *, timeout: Optional[float] = None) -> None:
        """Stop the server, where it is set to allow that."""
        await self._call(requests.shutdown(), timeout)

    async def close(self) -> None:
        """End all connections, when what was sent is answered.  What is open goes back."""
        await self._close()
