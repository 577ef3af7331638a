"""
Fleets and workers for programs with threads.
"""

from __future__ import annotations

import signal
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, Optional, TypeVar, Union

from darner.client import reads
from darner.client.addresses import Backoff
from darner.client.asyncio import Fleet as AsyncioFleet
from darner.client.commands import Queues
from darner.client.core import Place
from darner.client.figures import Stats
from darner.client.fleet_monitor import FleetMonitor
from darner.client.loops import InLoop
from darner.client.protocol import Item
from darner.client.requests import Name
from darner.client.servers import Servers
from darner.client.worker import STOP_SIGNALS, Hooks
from darner.errors import ClientError, DarnerError

if TYPE_CHECKING:
    from darner.client.blocking import Client
    from darner.client.threaded_shards import Shards

_T = TypeVar("_T")
Run = Callable[[Coroutine[Any, Any, Any]], Any]
"""Runs a coroutine to its end."""

_WAIT = 1.0
"""For how many seconds a worker waits for an item before it looks whether it is to stop."""


class OpenRead:
    """
    An item that is set aside for this client until it is closed, aborted, or the client goes.

    As a context manager it is closed where the block is left, and given back where that is by an exception.
    """

    def __init__(self, read: reads.OpenRead, run: Run) -> None:
        self._read = read
        self._run = run

    @property
    def item(self) -> Item:
        return self._read.item

    @property
    def payload(self) -> bytes:
        return self._read.payload

    @property
    def flags(self) -> int:
        return self._read.flags

    @property
    def queue(self) -> str:
        """The queue that it came from."""
        return self._read.queue

    @property
    def server(self) -> str:
        """The address of the server that it came from."""
        return self._read.server

    @property
    def is_open(self) -> bool:
        """Whether it is neither closed nor aborted, and was not given back as far as is known."""
        return self._read.is_open

    def close(self) -> None:
        """
        It is done with, and gone for good.  Harmless where it was closed or aborted before.

        @raise GivenBack: it is not: the connection had broken, or a touch has shown that its time was up.
        @raise InDoubt: the connection broke before the server answered.
        """
        self._run(self._read.close())

    def abort(self) -> None:
        """Give it back.  Harmless where it was closed or aborted before, and it never fails."""
        self._run(self._read.abort())

    def touch(self) -> bool:
        """Let its time (``open_timeout``) begin anew.  @return: False where it was given back before."""
        touched: bool = self._run(self._read.touch())
        return touched

    def __enter__(self) -> OpenRead:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._run(self._read.__aexit__(kind, error, trace))


class Monitor:
    """
    The items of a queue as they come, so many of them fetched ahead.

    Each is open until the next one is asked for, which confirms it.  As a context manager the last one is confirmed
    where the
    block is left, and given back where that is by an exception; what was fetched ahead goes back.
    """

    def __init__(self, monitor: Union[reads.Monitor, FleetMonitor], run: Run) -> None:
        self._monitor = monitor
        self._run = run

    def next(self) -> Optional[Item]:
        """Confirm the last one.  @return: the next one; None where none came in time."""
        item: Optional[Item] = self._run(self._monitor.next())
        return item

    def stop(self) -> None:
        """Confirm the last one, and give back what was fetched ahead."""
        self._run(self._monitor.stop())

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        item = self.next()
        if item is None:
            raise StopIteration
        return item

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._run(self._monitor.__aexit__(kind, error, trace))


class Fleet(InLoop):
    """
    Many servers as one loosely ordered queue: see `darner.client.fleet.BaseFleet`.

    An event loop in a thread of its own does the work.  It may be used by many threads.
    """

    def __init__(
        self, servers: Servers, *, user: str = "", password: str = "", tls: Union[bool, ssl.SSLContext, None] = None,
        server_hostname: Optional[str] = None, timeout: float = 10.0, connect_timeout: float = 2.0, again: bool = True,
        choice: str = "random",
    ) -> None:  # fmt: skip
        self._fleet = AsyncioFleet(
            servers, user=user, password=password, tls=tls, server_hostname=server_hostname, timeout=timeout,
            connect_timeout=connect_timeout, again=again, choice=choice,
        )  # fmt: skip
        super().__init__(self._fleet)

    @property
    def available(self) -> list[str]:
        """The addresses of those that are not set aside."""

        async def look() -> list[str]:
            return self._fleet.available

        return self._run(look())

    @property
    def servers(self) -> list[str]:
        """The addresses of all servers."""
        return self._fleet.servers

    def add(self, server: Place) -> None:
        """Use another server from now on; reads that wait, wait there as well."""
        self._run(self._plain(lambda: self._fleet.add(server)))

    def remove(self, server: Place) -> None:
        """Use a server no longer.  What is open there can still be closed."""
        self._run(self._plain(lambda: self._fleet.remove(server)))

    async def _plain(self, call: Callable[[], None]) -> None:
        call()

    def put(
        self, queue: Name, payload: bytes, *, flags: int = 0, expiry: int = 0, delay: Optional[float] = None,
        id: Optional[Name] = None, sync: bool = False, timeout: Optional[float] = None,
    ) -> str:  # fmt: skip
        """
        Put an item to one of the servers; where it fails or refuses, to another one.

        @return: the address of the server that has it.
        """
        return self._run(self._fleet.put(
            queue, payload, flags=flags, expiry=expiry, delay=delay, id=id, sync=sync, timeout=timeout
        ))  # fmt: skip

    def put_many(
        self, queue: Name, payloads: Iterable[bytes], *, timeout: Optional[float] = None, **options: Any
    ) -> int:
        """
        Put many, so many at a time to one of the servers; those that it does not take, to others.

        @param options: those of L{put}, but for the id.
        @return: how many: all of them.
        """
        return self._run(self._fleet.put_many(queue, payloads, timeout=timeout, **options))

    def get(self, queue: Queues, timeout: float = 0) -> Optional[Item]:
        """
        Take an item of any server.

        @return: None where a server has answered, and none has an item in time.
        @raise ConnectionFailed: no server could be asked.
        """
        return self._run(self._fleet.get(queue, timeout))

    def open(self, queue: Queues, timeout: float = 0, *, heartbeat: Optional[float] = None) -> Optional[OpenRead]:
        """Open an item of any server; None, and errors, as for L{get}."""
        read = self._run(self._fleet.open(queue, timeout, heartbeat=heartbeat))
        return None if read is None else OpenRead(read, self._run)

    def monitor(self, queue: Queues, *, prefetch: int = 1, timeout: float = float("inf")) -> Monitor:
        """@return: the items as they come on any server, each closed when the next one is asked for."""
        return Monitor(self._fleet.monitor(queue, prefetch=prefetch, timeout=timeout), self._run)

    def stats(self) -> dict[str, Stats]:
        """@return: the figures of the servers that can be reached, by address."""
        return self._run(self._fleet.stats())

    def flush(self, queue: Name) -> None:
        """Drop all items of the queue, on all servers, but those that are open."""
        self._run(self._fleet.flush(queue))

    def delete(self, queue: Name) -> None:
        """Drop the queue, on all servers."""
        self._run(self._fleet.delete(queue))


class Worker:
    """
    Handles the items of queues in threads, so many at a time; see `darner.client.worker.BaseWorker`.
    """

    def __init__(
        self, client: Union[Client, Fleet, Shards], queue: Queues, handler: Callable[[OpenRead], object], *,
        concurrency: int = 1, heartbeat: Optional[float] = None, grace: float = 30.0, hooks: Any = None,
    ) -> None:  # fmt: skip
        """
        @param grace: for how many seconds handlers may go on when the worker is stopped; then their items are given
            back.
        @param hooks: as `darner.client.worker.Hooks`, but called with what L{Client.open} returns, and in any thread.
        """
        if concurrency < 1:
            raise ValueError("concurrency is below 1")
        self._client = client
        self._queue = queue
        self._handler = handler
        self._concurrency = concurrency
        self._heartbeat = heartbeat
        self._grace = grace
        self._hooks: Any = hooks or Hooks()
        # A signal handler may say so: were it to set an event, it could wait for a lock that its own thread has.
        self._stopped = False
        self._told: SimpleQueue[None] = SimpleQueue()
        self._stopping = threading.Event()
        self._reads: set[OpenRead] = set()
        self._error: Optional[BaseException] = None

    def run(self, signals: tuple[int, ...] = STOP_SIGNALS) -> None:
        """
        Work until L{stop} is called or a signal comes, and what was begun is finished or given back.

        @param signals: none where this is not the main thread.
        @raise ClientError: the server refuses to be read from, for want of a right for example.
        """
        before = [(number, signal.signal(number, lambda *_: self.stop())) for number in signals]
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self._concurrency)]
        for thread in threads:
            thread.start()
        try:
            self._told.get()
        finally:
            self._stopped = True
            self._stopping.set()
            until = time.monotonic() + self._grace
            for thread in threads:
                thread.join(max(0.0, until - time.monotonic()) + _WAIT)
            for read in list(self._reads):
                read.abort()
            for number, handler in before:
                signal.signal(number, handler)
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """
        Begin no more items; what is being handled may be finished within the time of grace.

        A signal handler may call this.
        """
        self._stopped = True
        self._told.put(None)

    def _work(self) -> None:
        backoff = Backoff()
        try:
            while not self._stopped:
                try:
                    read = self._client.open(self._queue, _WAIT, heartbeat=self._heartbeat)
                except DarnerError as problem:
                    if isinstance(problem, ClientError):
                        raise
                    self._hooks.unreachable(problem)
                    self._stopping.wait(backoff.next())
                    continue
                if read is not None:
                    backoff.reset()
                    self._handle(read)
        except Exception as error:
            self._error = error
            self.stop()

    def _handle(self, read: OpenRead) -> None:
        if self._stopped:
            read.abort()
            return
        self._reads.add(read)
        began = time.monotonic()
        self._hooks.started(read)
        try:
            self._handler(read)
            read.close()
        except BaseException as error:
            read.abort()
            self._hooks.failed(read, time.monotonic() - began, error)
            if not isinstance(error, Exception):
                raise
        else:
            self._hooks.succeeded(read, time.monotonic() - began)
        finally:
            self._reads.discard(read)
