"""
The client for Twisted: every call returns a Deferred, which coroutines can await::

    client = Client(reactor, "localhost:22133")
    await client.put("jobs", b"resize photo 1")
    async with await client.open("jobs", timeout=5) as read:
        work(read.payload)
    await client.close()

Public here: L{Client}, L{Fleet}, L{Shards}, L{Worker}, what they return (L{Item}, L{OpenRead}, L{Monitor}, L{Stats}),
and the errors of `darner.client.errors`.  A Deferred that is cancelled ends its call, and no item is lost by that.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from types import TracebackType
from typing import Any, Optional, TypeVar, Union

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint

from darner.client import reads
from darner.client.commands import Chunks, Commands, Queues
from darner.client.core import Place
from darner.client.errors import ConnectionFailed, GivenBack, InDoubt, SpansShards, TimedOut
from darner.client.figures import QueueStats, Stats
from darner.client.fleet import BaseFleet
from darner.client.protocol import Item
from darner.client.reactors import ReactorRuntime, Tls
from darner.client.reads import Monitor
from darner.client.requests import Name
from darner.client.servers import Servers
from darner.client.shards import BaseShards, Nodes
from darner.client.worker import BaseWorker, Hooks

__all__ = [
    "Client", "ConnectionFailed", "Fleet", "GivenBack", "InDoubt", "Item", "Monitor", "OpenRead", "QueueStats",
    "Shards", "SpansShards", "Stats", "TimedOut", "Worker",
]  # fmt: skip

_T = TypeVar("_T")


def start(coroutine: Coroutine[Any, Any, _T]) -> Deferred[_T]:
    return Deferred.fromCoroutine(coroutine)


class OpenRead(reads.OpenRead):
    """
    An item that is set aside for this client until it is closed, aborted, or the client goes.

    As an asynchronous context manager it is closed where the block is left, and given back where that is by an
    exception.
    """

    def close(self) -> Deferred[None]:  # type: ignore[override]
        """
        It is done with, and gone for good.  Harmless where it was closed or aborted before.

        @return: a Deferred that fires with None, or fails with C{GivenBack} or C{InDoubt}.
        """
        return start(super().close())

    def abort(self) -> Deferred[None]:  # type: ignore[override]
        """Give it back.  Harmless where it was closed or aborted before, and it never fails."""
        return start(super().abort())

    def touch(self) -> Deferred[bool]:  # type: ignore[override]
        """Let its time (``open_timeout``) begin anew.  @return: a Deferred; False where it was given back before."""
        return start(super().touch())


class _Commands(Commands):
    open_read = OpenRead


class Client:
    """
    A client of one server.  It connects when it is first asked something, and again when the connection has broken.

    Its Deferreds fail with a L{DarnerError}: what the server answered (C{ClientError}, C{ServerError} and what is
    derived from them), C{ConnectionFailed} where there was no connection in time, and C{InDoubt} where it broke before
    the reply.
    C{timeout} is in seconds and goes before that of the client.
    """

    def __init__(
        self, reactor: Any, server: Union[Place, IStreamClientEndpoint] = "127.0.0.1", *, user: str = "",
        password: str = "", tls: Tls = None, server_hostname: Optional[str] = None, timeout: float = 10.0,
        connect_timeout: float = 5.0, max_idle: int = 16,
    ) -> None:  # fmt: skip
        """
        @param server: C{host:port}, C{unix:/path}, or an endpoint.
        @param tls: True for the system's authorities, or what C{optionsForClientTLS} returns.
        @param server_hostname: the name that the server's certificate has to have; by default that of C{server}.
        @param timeout: seconds that each call may take, besides its wait for an item.
        """
        endpoint = server if IStreamClientEndpoint.providedBy(server) else None
        runtime = ReactorRuntime(reactor, tls, server_hostname, endpoint)
        place: Any = "127.0.0.1" if endpoint is not None else server
        self._commands = _Commands(
            runtime, place, user=user, password=password, timeout=timeout, connect_timeout=connect_timeout,
            max_idle=max_idle,
        )  # fmt: skip

    def put(
        self, queue: Name, payload: bytes, *, flags: int = 0, expiry: int = 0, delay: Optional[float] = None,
        id: Optional[Name] = None, sync: bool = False, timeout: Optional[float] = None,
    ) -> Deferred[None]:  # fmt: skip
        """
        Put an item at the end of a queue.

        @param expiry: seconds from now below 1,000,000, else Unix seconds; 0 is never.
        @param delay: seconds for which it is kept back.
        @param id: within the queue's ``dedupe_window`` an id is stored once: a put that is in doubt is sent again.
        @param sync: wait until it is on stable storage.
        @raise QueueFull: the queue refuses it.
        """
        return start(self._commands.put(
            queue, payload, flags=flags, expiry=expiry, delay=delay, id=id, sync=sync, timeout=timeout
        ))  # fmt: skip

    def put_many(
        self, queue: Name, payloads: Iterable[bytes], *, flags: int = 0, expiry: int = 0,
        delay: Optional[float] = None, sync: bool = False, timeout: Optional[float] = None,
    ) -> Deferred[int]:  # fmt: skip
        """
        Put many, without waiting for each reply.

        @return: how many: all of them.
        @raise DarnerError: why the first one that was not put was refused; C{error.stored} says how many were put, and
            C{error.refused} has the payloads that were not, or are in doubt.
        """
        return start(self._commands.put_many(
            queue, payloads, flags=flags, expiry=expiry, delay=delay, sync=sync, timeout=timeout
        ))  # fmt: skip

    def put_stream(
        self, queue: Name, chunks: Chunks, size: int, *, flags: int = 0, expiry: int = 0,
        delay: Optional[float] = None, id: Optional[Name] = None, sync: bool = False,
        timeout: Optional[float] = None,
    ) -> Deferred[None]:  # fmt: skip
        """
        Put an item of any size without having it in memory.

        @param chunks: its pieces, C{size} bytes together.
        @raise ValueError: they are not; nothing is put.
        """
        return start(self._commands.put_stream(
            queue, chunks, size, flags=flags, expiry=expiry, delay=delay, id=id, sync=sync, timeout=timeout
        ))  # fmt: skip

    def get(self, queue: Queues, timeout: float = 0) -> Deferred[Optional[Item]]:
        """
        Take an item.

        Without a wait it is at most once: C{InDoubt} where the connection breaks.  With a wait the item is opened, and
        closed when it is here, so that one that comes after the call was cancelled goes back.

        @param timeout: for how many seconds to wait for one.
        @return: None where there is none.
        """
        return start(self._commands.get(queue, timeout))

    def get_many(self, queue: Name, count: int, *, timeout: Optional[float] = None) -> Deferred[list[Item]]:
        """
        Take up to so many items that are there.

        Where the call is cancelled, what it has taken goes back to the end of the queue, with its flags, but without an
        expiry.

        @raise DarnerError: none was had.  Where some were, they are what is returned.
        """
        return start(self._commands.get_many(queue, count, timeout=timeout))

    def get_into(
        self, queue: Name, sink: Callable[[bytes], object], *, timeout: Optional[float] = None,
    ) -> Deferred[Optional[Item]]:  # fmt: skip
        """
        Take an item of any size without having it in memory.

        It is open until all of it is there: where the sink raises or the connection breaks, it goes back.

        @param sink: is called with each piece.
        @return: the item, without its payload; None where there is none.
        """
        return start(self._commands.get_into(queue, sink, timeout=timeout))

    def peek(self, queue: Queues, timeout: float = 0) -> Deferred[Optional[Item]]:
        """@return: the item at the head, which stays there; None where there is none."""
        return start(self._commands.peek(queue, timeout))

    def flush(self, queue: Name, *, timeout: Optional[float] = None) -> Deferred[None]:
        """Drop all items of the queue but those that are open."""
        return start(self._commands.flush(queue, timeout=timeout))

    def flush_all(self, *, timeout: Optional[float] = None) -> Deferred[None]:
        """The same for all queues."""
        return start(self._commands.flush_all(timeout=timeout))

    def flush_expired(self, queue: Optional[Name] = None, *, timeout: Optional[float] = None) -> Deferred[int]:
        """@return: how many items had expired at the head of the queue, or of all queues; they are dropped."""
        return start(self._commands.flush_expired(queue, timeout=timeout))

    def delete(self, queue: Name, *, timeout: Optional[float] = None) -> Deferred[None]:
        """Drop the queue, whether it is there or not."""
        return start(self._commands.delete(queue, timeout=timeout))

    def requeue(
        self, origin: Name, target: Name, count: Optional[int] = None, *, timeout: Optional[float] = None,
    ) -> Deferred[int]:  # fmt: skip
        """
        Move items from one queue to the end of another.

        @param count: how many; by default all.
        @return: how many were moved.
        """
        return start(self._commands.requeue(origin, target, count, timeout=timeout))

    def stats(self, *, timeout: Optional[float] = None) -> Deferred[Stats]:
        """@return: the figures of the server and its queues."""
        return start(self._commands.stats(timeout=timeout))

    def dump_stats(self, *queues: Name, timeout: Optional[float] = None) -> Deferred[dict[str, dict[str, str]]]:
        """@return: the figures of the queues that are named, or of all, as text."""
        return start(self._commands.dump_stats(*queues, timeout=timeout))

    def dump_config(self, *queues: Name, timeout: Optional[float] = None) -> Deferred[dict[str, dict[str, str]]]:
        """@return: the settings of the queues that are named, or of all, as text."""
        return start(self._commands.dump_config(*queues, timeout=timeout))

    def status(self, *, timeout: Optional[float] = None) -> Deferred[str]:
        """@return: C{"UP"}, C{"READONLY"} or C{"QUIESCENT"}."""
        return start(self._commands.status(timeout=timeout))

    def set_status(self, status: str, *, timeout: Optional[float] = None) -> Deferred[None]:
        """@param status: C{"up"}, C{"readonly"} or C{"quiescent"}."""
        return start(self._commands.set_status(status, timeout=timeout))

    def version(self, *, timeout: Optional[float] = None) -> Deferred[str]:
        """@return: the server's version."""
        return start(self._commands.version(timeout=timeout))

    def reload(self, *, timeout: Optional[float] = None) -> Deferred[None]:
        """Have the server read its configuration file again."""
        return start(self._commands.reload(timeout=timeout))

    def shutdown(self, *, timeout: Optional[float] = None) -> Deferred[None]:
        """Stop the server, where it is set to allow that."""
        return start(self._commands.shutdown(timeout=timeout))

    def open(
        self, queue: Queues, timeout: float = 0, *, heartbeat: Optional[float] = None
    ) -> Deferred[Optional[OpenRead]]:
        """
        Open an item: it is set aside until it is closed or given back.

        @param timeout: for how many seconds to wait for one.
        @param heartbeat: touch it each time so many seconds have gone by, for queues with an ``open_timeout``.
        @return: a Deferred of it, or of None where there is none.
        """
        opened: Deferred[Any] = start(self._commands.open(queue, timeout, heartbeat=heartbeat))
        return opened

    def monitor(self, queue: Name, *, prefetch: int = 1, timeout: float = float("inf")) -> Monitor:
        """@return: the items as they come, each confirmed when the next one is asked for; an asynchronous iterator."""
        return self._commands.monitor(queue, prefetch=prefetch, timeout=timeout)

    def close(self) -> Deferred[None]:
        """End all connections, when what was sent is answered.  What is open goes back."""
        return start(self._commands.close())

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.close()


class Fleet(BaseFleet):
    """
    Many servers as one loosely ordered queue: see `darner.client.fleet.BaseFleet`.  Its calls are coroutines.
    """

    def __init__(
        self, reactor: Any, servers: Servers, *, user: str = "", password: str = "", tls: Tls = None,
        server_hostname: Optional[str] = None, timeout: float = 10.0, connect_timeout: float = 2.0, again: bool = True,
        choice: str = "random",
    ) -> None:  # fmt: skip
        super().__init__(
            ReactorRuntime(reactor, tls, server_hostname, None), servers, user=user, password=password, timeout=timeout,
            connect_timeout=connect_timeout, again=again, choice=choice,
        )  # fmt: skip

    async def __aenter__(self) -> Fleet:
        await self.start()
        return self

    async def __aexit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.close()


class Shards(BaseShards):
    """
    Several shards as one service: see `darner.client.shards.BaseShards`.  Its calls are coroutines.
    """

    def __init__(
        self, reactor: Any, shards: Sequence[Nodes], *, old: Sequence[Nodes] = (), user: str = "", password: str = "",
        tls: Tls = None, server_hostname: Optional[str] = None, timeout: float = 10.0, connect_timeout: float = 1.0,
        max_idle: int = 16,
    ) -> None:  # fmt: skip
        super().__init__(
            ReactorRuntime(reactor, tls, server_hostname, None), shards, old=old, user=user, password=password,
            timeout=timeout, connect_timeout=connect_timeout, max_idle=max_idle,
        )  # fmt: skip

    async def __aenter__(self) -> Shards:
        return self

    async def __aexit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.close()


class Worker(BaseWorker):
    """
    Handles the items of queues, so many at a time: see `darner.client.worker.BaseWorker`.

    Where C{threads} is False, the handler may return a Deferred.
    """

    def __init__(
        self, client: Union[Client, Fleet, Shards], queue: Queues, handler: Callable[[reads.OpenRead], Any], *,
        concurrency: int = 1, heartbeat: Optional[float] = None, grace: float = 30.0, threads: Optional[bool] = None,
        hooks: Optional[Hooks] = None,
    ) -> None:  # fmt: skip
        super().__init__(
            client._commands if isinstance(client, Client) else client, queue, handler, concurrency=concurrency,
            heartbeat=heartbeat, grace=grace, threads=threads, hooks=hooks,
        )  # fmt: skip

    def _on_signals(self, stop: Callable[[], None], signals: tuple[int, ...]) -> Callable[[], None]:
        # SIGTERM and SIGINT stop the reactor: the worker stops before that.
        reactor = self._runtime.reactor

        def stop_and_wait() -> Deferred[None]:
            stop()
            waiting: Deferred[None] = Deferred()
            self.on_end(lambda: waiting.callback(None))
            return waiting

        trigger = reactor.addSystemEventTrigger("before", "shutdown", stop_and_wait)

        def undo() -> None:
            if not self._stopping:
                reactor.removeSystemEventTrigger(trigger)

        return undo
