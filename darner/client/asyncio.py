"""
The client for asyncio::

    async with Client("localhost:22133") as client:
        await client.put("jobs", b"resize photo 1")
        async with await client.open("jobs", timeout=5) as read:
            work(read.payload)

Public here: L{Client}, L{Fleet}, L{Shards}, L{Worker}, what they return (L{Item}, L{OpenRead}, L{Monitor}, L{Stats}),
and the errors of `darner.client.errors`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Optional, Union

from darner.client.addresses import Address
from darner.client.commands import Commands
from darner.client.core import Place
from darner.client.errors import ConnectionFailed, GivenBack, InDoubt, SpansShards, TimedOut
from darner.client.figures import QueueStats, Stats
from darner.client.fleet import BaseFleet
from darner.client.links import Future, Link, PipelinedLink, Timer
from darner.client.protocol import Item
from darner.client.reads import Monitor, OpenRead
from darner.client.servers import Servers
from darner.client.shards import BaseShards, Nodes
from darner.client.worker import BaseWorker

__all__ = [
    "Client", "ConnectionFailed", "Fleet", "GivenBack", "InDoubt", "Item", "Monitor", "OpenRead", "QueueStats",
    "Shards", "SpansShards", "Stats", "TimedOut", "Worker",
]  # fmt: skip

Tls = Union[bool, ssl.SSLContext]
"""True for the system's authorities, or a context."""


class _Link(PipelinedLink, asyncio.Protocol):
    """What is sent within a turn of the loop goes out in one piece."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        self._unsent: list[bytes] = []
        self._transport: Optional[asyncio.Transport] = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._call_soon = asyncio.get_running_loop().call_soon

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.received(data)

    def eof_received(self) -> None:
        self.lost("the server has ended the connection")

    def connection_lost(self, error: Optional[Exception]) -> None:
        self.lost(str(error) if error else "the connection has ended")

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _send(self, data: bytes) -> None:
        unsent = self._unsent
        if not unsent:
            self._call_soon(self._flush)
        unsent.append(data)

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self._transport is not None and unsent:
            self._transport.write(unsent[0] if len(unsent) == 1 else b"".join(unsent))

    async def write(self, data: bytes) -> None:
        self._flush()
        if not self.closed and self._transport is not None:
            self._transport.write(data)
            await self._writable.wait()

    def _end(self) -> None:
        self._writable.set()
        if self._transport is not None:
            if self._unsent:
                self._flush()
                self._transport.close()
            else:
                self._transport.abort()


class Runtime:
    """asyncio, as L{darner.client.links.Runtime} has it."""

    pipelining = True

    def __init__(self, tls: Union[Tls, None] = None, server_hostname: Optional[str] = None) -> None:
        self._tls = ssl.create_default_context() if tls is True else tls or None
        self._server_hostname = server_hostname
        self._tasks: set[asyncio.Task[None]] = set()

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def call_later(self, seconds: float, call: Callable[[], object]) -> Timer:
        return asyncio.get_running_loop().call_later(seconds, call)

    def future(self) -> Future:
        return asyncio.get_running_loop().create_future()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> Timer:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def connect(self, address: Address, timeout: float) -> Link:
        loop = asyncio.get_running_loop()
        link = _Link(self)
        hostname = self._server_hostname or address.host or None
        try:
            if address.path:
                connecting: Any = loop.create_unix_connection(
                    lambda: link, address.path, ssl=self._tls, server_hostname=hostname if self._tls else None
                )
            else:
                connecting = loop.create_connection(
                    lambda: link, address.host, address.port, ssl=self._tls,
                    server_hostname=hostname if self._tls else None,
                )  # fmt: skip
            await asyncio.wait_for(connecting, timeout)  # asyncio sets TCP_NODELAY itself
        except (asyncio.TimeoutError, TimeoutError) as error:
            raise TimedOut(f"{address} did not answer in time") from error
        except (OSError, ssl.SSLError) as error:
            raise ConnectionFailed(f"{address}: {error}") from error
        return link

    async def resolve(self, host: str, port: int) -> list[tuple[str, int]]:
        """@return: the addresses of a host."""
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return [(str(place[4][0]), port) for place in found]

    async def services(self, name: str) -> list[tuple[str, int]]:
        """@return: hosts and ports of an SRV record, the preferred ones first."""
        try:
            from dns.asyncresolver import resolve
        except ImportError:
            raise ValueError("SRV records need dnspython: pip install dnspython") from None
        records = sorted(await resolve(name, "SRV"), key=lambda record: int(record.priority))
        return [(str(record.target).rstrip("."), int(record.port)) for record in records]

    async def in_thread(self, call: Callable[[], Any]) -> Any:
        return await asyncio.to_thread(call)


class Client(Commands):
    """
    A client of one server: see `darner.client.commands.Commands` for what it can ask.

    It connects when it is first asked something, and again when the connection has broken.
    """

    def __init__(
        self, server: Place = "127.0.0.1", *, user: str = "", password: str = "", tls: Optional[Tls] = None,
        server_hostname: Optional[str] = None, timeout: float = 10.0, connect_timeout: float = 5.0, max_idle: int = 16,
    ) -> None:  # fmt: skip
        """
        @param server: C{host:port}, or C{unix:/path}.
        @param server_hostname: the name that the server's certificate has to have; by default that of C{server}.
        @param timeout: seconds that each call may take, besides its wait for an item.
        """
        super().__init__(
            Runtime(tls, server_hostname), server, user=user, password=password, timeout=timeout,
            connect_timeout=connect_timeout, max_idle=max_idle,
        )  # fmt: skip

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.close()


class Fleet(BaseFleet):
    """
    Many servers as one loosely ordered queue: see `darner.client.fleet.BaseFleet`.
    """

    def __init__(
        self, servers: Servers, *, user: str = "", password: str = "", tls: Optional[Tls] = None,
        server_hostname: Optional[str] = None, timeout: float = 10.0, connect_timeout: float = 2.0,
        again: bool = True, choice: str = "random",
    ) -> None:  # fmt: skip
        super().__init__(
            Runtime(tls, server_hostname), servers, user=user, password=password, timeout=timeout,
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
    Several shards as one service: see `darner.client.shards.BaseShards`.
    """

    def __init__(
        self, shards: Sequence[Nodes], *, old: Sequence[Nodes] = (), user: str = "", password: str = "",
        tls: Optional[Tls] = None, server_hostname: Optional[str] = None, timeout: float = 10.0,
        connect_timeout: float = 1.0, max_idle: int = 16,
    ) -> None:  # fmt: skip
        super().__init__(
            Runtime(tls, server_hostname), shards, old=old, user=user, password=password, timeout=timeout,
            connect_timeout=connect_timeout, max_idle=max_idle,
        )  # fmt: skip

    async def __aenter__(self) -> Shards:
        return self

    async def __aexit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.close()


class Worker(BaseWorker):
    """Handles the items of queues, so many at a time: see `darner.client.worker.BaseWorker`."""

    def _on_signals(self, stop: Callable[[], None], signals: tuple[int, ...]) -> Callable[[], None]:
        loop = asyncio.get_running_loop()
        for number in signals:
            loop.add_signal_handler(number, stop)

        def undo() -> None:
            for number in signals:
                loop.remove_signal_handler(number)

        return undo
