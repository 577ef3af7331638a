"""
Several shards as one service, for programs with threads.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Optional, Union

from darner.client.asyncio import Shards as AsyncioShards
from darner.client.commands import Queues
from darner.client.figures import Stats
from darner.client.loops import InLoop
from darner.client.protocol import Item
from darner.client.requests import Name
from darner.client.shards import Nodes
from darner.client.threads import Monitor, OpenRead


class Shards(InLoop):
    """
    Several shards as one service: see `darner.client.shards.BaseShards`.

    An event loop in a thread of its own does the work.  It may be used by many threads.
    """

    def __init__(
        self, shards: Sequence[Nodes], *, old: Sequence[Nodes] = (), user: str = "", password: str = "",
        tls: Union[bool, ssl.SSLContext, None] = None, server_hostname: Optional[str] = None, timeout: float = 10.0,
        connect_timeout: float = 1.0, max_idle: int = 16,
    ) -> None:  # fmt: skip
        self._shards = AsyncioShards(
            shards, old=old, user=user, password=password, tls=tls, server_hostname=server_hostname, timeout=timeout,
            connect_timeout=connect_timeout, max_idle=max_idle,
        )  # fmt: skip
        super().__init__(self._shards)

    def shard_of(self, queue: Name) -> int:
        """@return: the number of a queue's shard, from 1 on."""
        return self._shards.shard_of(queue)

    def put(self, queue: Name, payload: bytes, **options: Any) -> None:
        """Put an item at the end of a queue; options as for L{darner.client.blocking.Client.put}."""
        self._run(self._shards.put(queue, payload, **options))

    def put_many(self, queue: Name, payloads: Iterable[bytes], **options: Any) -> int:
        """Put many, without waiting for each reply.  @return: how many: all of them."""
        return self._run(self._shards.put_many(queue, payloads, **options))

    def put_stream(self, queue: Name, chunks: Iterable[bytes], size: int, **options: Any) -> None:
        """Put an item of any size without having it in memory."""
        self._run(self._shards.put_stream(queue, chunks, size, **options))

    def get(self, queue: Queues, timeout: float = 0) -> Optional[Item]:
        """Take an item.  @return: None where there is none."""
        return self._run(self._shards.get(queue, timeout))

    def get_many(self, queue: Name, count: int, *, timeout: Optional[float] = None) -> list[Item]:
        """Take up to so many items that are there."""
        return self._run(self._shards.get_many(queue, count, timeout=timeout))

    def get_into(
        self, queue: Name, sink: Callable[[bytes], object], *, timeout: Optional[float] = None
    ) -> Optional[Item]:
        """Take an item of any size without having it in memory: the sink is called with each piece."""
        return self._run(self._shards.get_into(queue, sink, timeout=timeout))

    def peek(self, queue: Queues, timeout: float = 0) -> Optional[Item]:
        """
        @return: the item at the head, which stays there; None where there is none.
        @raise SpansShards: it is to wait for an item of queues in different shards.
        """
        return self._run(self._shards.peek(queue, timeout))

    def open(self, queue: Queues, timeout: float = 0, *, heartbeat: Optional[float] = None) -> Optional[OpenRead]:
        """Open an item: it is set aside until it is closed or given back.  @return: None where there is none."""
        read = self._run(self._shards.open(queue, timeout, heartbeat=heartbeat))
        return None if read is None else OpenRead(read, self._run)

    def monitor(self, queue: Queues, *, prefetch: int = 1, timeout: float = float("inf")) -> Monitor:
        """@return: the items as they come, each confirmed when the next one is asked for."""
        return Monitor(self._shards.monitor(queue, prefetch=prefetch, timeout=timeout), self._run)

    def flush(self, queue: Name, *, timeout: Optional[float] = None) -> None:
        """Drop all items of the queue but those that are open."""
        self._run(self._shards.flush(queue, timeout=timeout))

    def flush_all(self, *, timeout: Optional[float] = None) -> None:
        """The same for all queues, in one shard after the other."""
        self._run(self._shards.flush_all(timeout=timeout))

    def delete(self, queue: Name, *, timeout: Optional[float] = None) -> None:
        """Drop the queue, whether it is there or not."""
        self._run(self._shards.delete(queue, timeout=timeout))

    def requeue(
        self, origin: Name, target: Name, count: Optional[int] = None, *, timeout: Optional[float] = None
    ) -> int:
        """
        Move items from one queue to the end of another.

        @return: how many were moved.
        @raise SpansShards: the two queues are in different shards.
        """
        return self._run(self._shards.requeue(origin, target, count, timeout=timeout))

    def stats(self, *, timeout: Optional[float] = None) -> dict[int, Stats]:
        """@return: the figures of the leader of each shard, by its number."""
        return self._run(self._shards.stats(timeout=timeout))

    def left_behind(self, *, timeout: Optional[float] = None) -> dict[str, int]:
        """@return: how many items there are in each queue of the old shards."""
        return self._run(self._shards.left_behind(timeout=timeout))
