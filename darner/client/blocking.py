"""
The client for scripts and threads: every call blocks until it is answered::

    with Client("localhost:22133") as client:
        client.put("jobs", b"resize photo 1")
        with client.open("jobs", timeout=5) as read:
            work(read.payload)

Public here: L{Client}, L{Fleet}, L{Shards}, L{Worker}, what they return (L{Item}, L{OpenRead}, L{Monitor}, L{Stats}),
and the errors of `darner.client.errors`.  A client may be used by many threads.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Optional, Union

from darner.client import reads
from darner.client.commands import Commands, Queues
from darner.client.core import Place
from darner.client.errors import ConnectionFailed, GivenBack, InDoubt, SpansShards, TimedOut
from darner.client.figures import QueueStats, Stats
from darner.client.protocol import Item
from darner.client.requests import Name, touch
from darner.client.sockets import SocketRuntime, run
from darner.client.threaded_shards import Shards
from darner.client.threads import Fleet, Monitor, OpenRead, Worker

__all__ = [
    "Client", "ConnectionFailed", "Fleet", "GivenBack", "InDoubt", "Item", "Monitor", "OpenRead", "QueueStats",
    "Shards", "SpansShards", "Stats", "TimedOut", "Worker",
]  # fmt: skip


class _Read(reads.OpenRead):
    """The heartbeat runs in a thread beside the one that has the connection, and so waits for no reply."""

    def _beat(self) -> None:
        link = self._link
        if link is None or link.closed:
            return
        link.tell(touch(self.item.queue, noreply=True))
        assert self._heartbeat is not None
        self._timer = self._client._runtime.call_later(self._heartbeat, self._beat)


class _Commands(Commands):
    open_read: ClassVar[type[reads.OpenRead]] = _Read


class Client:
    """
    A client of one server.  It connects when it is first asked something, and again when the connection has broken.

    Its calls raise a L{DarnerError}: what the server answered (C{ClientError}, C{ServerError} and what is derived from
    them), C{ConnectionFailed} where there was no connection in time, and C{InDoubt} where it broke before the reply.
    C{timeout} is in seconds and goes before that of the client.
    """

    def __init__(
        self, server: Place = "127.0.0.1", *, user: str = "", password: str = "",
        tls: Union[bool, ssl.SSLContext, None] = None, server_hostname: Optional[str] = None, timeout: float = 10.0,
        connect_timeout: float = 5.0, max_idle: int = 16,
    ) -> None:  # fmt: skip
        """
        @param server: C{host:port}, or C{unix:/path}.
        @param tls: True for the system's authorities, or a context.
        @param server_hostname: the name that the server's certificate has to have; by default that of C{server}.
        @param timeout: seconds that each call may take, besides its wait for an item.
        @param max_idle: how many connections that are not in use are kept.
        """
        context = ssl.create_default_context() if tls is True else tls or None
        self._commands = _Commands(
            SocketRuntime(context, server_hostname, timeout), server, user=user, password=password, timeout=timeout,
            connect_timeout=connect_timeout, max_idle=max_idle,
        )  # fmt: skip

    def put(
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
        run(self._commands.put(
            queue, payload, flags=flags, expiry=expiry, delay=delay, id=id, sync=sync, timeout=timeout
        ))  # fmt: skip

    def put_many(
        self, queue: Name, payloads: Iterable[bytes], *, flags: int = 0, expiry: int = 0,
        delay: Optional[float] = None, sync: bool = False, timeout: Optional[float] = None,
    ) -> int:  # fmt: skip
        """
        Put many, without waiting for each reply.

        @return: how many: all of them.
        @raise DarnerError: why the first one that was not put was refused; C{error.stored} says how many were put, and
            C{error.refused} has the payloads that were not, or are in doubt.
        """
        return run(self._commands.put_many(
            queue, payloads, flags=flags, expiry=expiry, delay=delay, sync=sync, timeout=timeout
        ))  # fmt: skip

    def put_stream(
        self, queue: Name, chunks: Iterable[bytes], size: int, *, flags: int = 0, expiry: int = 0,
        delay: Optional[float] = None, id: Optional[Name] = None, sync: bool = False,
        timeout: Optional[float] = None,
    ) -> None:  # fmt: skip
        """
        Put an item of any size without having it in memory.

        @param chunks: its pieces, C{size} bytes together.
        @raise ValueError: they are not; nothing is put.
        """
        run(self._commands.put_stream(
            queue, chunks, size, flags=flags, expiry=expiry, delay=delay, id=id, sync=sync, timeout=timeout
        ))  # fmt: skip

    def get(self, queue: Queues, timeout: float = 0) -> Optional[Item]:
        """
        Take an item.

        Without a wait it is at most once: C{InDoubt} where the connection breaks.  With a wait the item is opened, and
        closed when it is here, so that one that comes after the call was cancelled goes back.

        @param timeout: for how many seconds to wait for one.
        @return: None where there is none.
        """
        return run(self._commands.get(queue, timeout))

    def get_many(self, queue: Name, count: int, *, timeout: Optional[float] = None) -> list[Item]:
        """
        Take up to so many items that are there.

        Where the call is interrupted, what it has taken goes back to the end of the queue, with its flags, but without
        an expiry.

        @raise DarnerError: none was had.  Where some were, they are what is returned.
        """
        return run(self._commands.get_many(queue, count, timeout=timeout))

    def get_into(
        self, queue: Name, sink: Callable[[bytes], object], *, timeout: Optional[float] = None,
    ) -> Optional[Item]:  # fmt: skip
        """
        Take an item of any size without having it in memory.

        It is open until all of it is there: where the sink raises or the connection breaks, it goes back.

        @param sink: is called with each piece.
        @return: the item, without its payload; None where there is none.
        """
        return run(self._commands.get_into(queue, sink, timeout=timeout))

    def peek(self, queue: Queues, timeout: float = 0) -> Optional[Item]:
        """@return: the item at the head, which stays there; None where there is none."""
        return run(self._commands.peek(queue, timeout))

    def flush(self, queue: Name, *, timeout: Optional[float] = None) -> None:
        """Drop all items of the queue but those that are open."""
        run(self._commands.flush(queue, timeout=timeout))

    def flush_all(self, *, timeout: Optional[float] = None) -> None:
        """The same for all queues."""
        run(self._commands.flush_all(timeout=timeout))

    def flush_expired(self, queue: Optional[Name] = None, *, timeout: Optional[float] = None) -> int:
        """@return: how many items had expired at the head of the queue, or of all queues; they are dropped."""
        return run(self._commands.flush_expired(queue, timeout=timeout))

    def delete(self, queue: Name, *, timeout: Optional[float] = None) -> None:
        """Drop the queue, whether it is there or not."""
        run(self._commands.delete(queue, timeout=timeout))

    def requeue(
        self, origin: Name, target: Name, count: Optional[int] = None, *, timeout: Optional[float] = None,
    ) -> int:  # fmt: skip
        """
        Move items from one queue to the end of another.

        @param count: how many; by default all.
        @return: how many were moved.
        """
        return run(self._commands.requeue(origin, target, count, timeout=timeout))

    def stats(self, *, timeout: Optional[float] = None) -> Stats:
        """@return: the figures of the server and its queues."""
        return run(self._commands.stats(timeout=timeout))

    def dump_stats(self, *queues: Name, timeout: Optional[float] = None) -> dict[str, dict[str, str]]:
        """@return: the figures of the queues that are named, or of all, as text."""
        return run(self._commands.dump_stats(*queues, timeout=timeout))

    def dump_config(self, *queues: Name, timeout: Optional[float] = None) -> dict[str, dict[str, str]]:
        """@return: the settings of the queues that are named, or of all, as text."""
        return run(self._commands.dump_config(*queues, timeout=timeout))

    def status(self, *, timeout: Optional[float] = None) -> str:
        """@return: C{"UP"}, C{"READONLY"} or C{"QUIESCENT"}."""
        return run(self._commands.status(timeout=timeout))

    def set_status(self, status: str, *, timeout: Optional[float] = None) -> None:
        """@param status: C{"up"}, C{"readonly"} or C{"quiescent"}."""
        run(self._commands.set_status(status, timeout=timeout))

    def version(self, *, timeout: Optional[float] = None) -> str:
        """@return: the server's version."""
        return run(self._commands.version(timeout=timeout))

    def reload(self, *, timeout: Optional[float] = None) -> None:
        """Have the server read its configuration file again."""
        run(self._commands.reload(timeout=timeout))

    def shutdown(self, *, timeout: Optional[float] = None) -> None:
        """Stop the server, where it is set to allow that."""
        run(self._commands.shutdown(timeout=timeout))

    def open(self, queue: Queues, timeout: float = 0, *, heartbeat: Optional[float] = None) -> Optional[OpenRead]:
        """
        Open an item: it is set aside until it is closed or given back.

        @param timeout: for how many seconds to wait for one.
        @param heartbeat: touch it each time so many seconds have gone by, from a thread of its own.
        @return: None where there is none.
        """
        read = run(self._commands.open(queue, timeout, heartbeat=heartbeat))
        return None if read is None else OpenRead(read, run)

    def monitor(self, queue: Name, *, prefetch: int = 1, timeout: float = float("inf")) -> Monitor:
        """@return: the items as they come, each confirmed when the next one is asked for."""
        return Monitor(self._commands.monitor(queue, prefetch=prefetch, timeout=timeout), run)

    def close(self) -> None:
        """End all connections.  What is open goes back."""
        run(self._commands.close())

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
