"""
Connections over blocking sockets: each serves one call at a time.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import Any, Optional, TypeVar

from darner.client.addresses import Address
from darner.client.errors import ConnectionFailed, InDoubt, ProtocolError, TimedOut
from darner.client.links import TIME_IS_UP, Deliver, Future, Heard, Link, Timer
from darner.client.protocol import Connection, Delivery, Farewell, Item, Piece, Refusal, Reply
from darner.client.requests import Request
from darner.errors import DarnerError

_T = TypeVar("_T")

_READ_BYTES = 16 * 1024
"""How much is received at a time: it is allocated anew for each, and 256 KiB make a small receive much slower."""
_READ_BYTES_LARGE = 256 * 1024
"""The same in the middle of a large payload."""


def run(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """
    Run a coroutine that waits for nothing but blocking sockets.

    @return: what it returns.
    """
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: _T = done.value
        return result
    coroutine.close()
    raise AssertionError("it waits for something that nobody here does")


class _Answer:
    """To a request; awaiting it blocks until it is there."""

    __slots__ = ("_link", "deadline", "deliver", "done", "error", "heard", "result")

    def __init__(
        self, link: SocketLink, deadline: float, deliver: Optional[Deliver] = None, heard: Optional[Heard] = None
    ) -> None:
        self._link = link
        self.deadline = deadline
        self.deliver = deliver
        self.heard = heard
        self.done = False
        self.result: Any = None
        self.error: Optional[DarnerError] = None

    def settle(self, result: Any, error: Optional[DarnerError]) -> None:
        self.done = True
        self.result = result
        self.error = error
        if self.heard is not None:
            self.heard(result, error)

    def __await__(self) -> Generator[Any, None, Any]:
        if not self.done:
            self._link.receive_until(self)
        if self.error is not None:
            raise self.error
        return self.result
        yield


class SocketLink:
    """
    One connection.

    Only a heartbeat sends from another thread, which the lock is for; it has no reply.
    """

    def __init__(self, connected: socket.socket, timeout: float) -> None:
        self.closed = self.retired = self.dropped = False
        self.unwanted: Callable[[Sequence[Item]], object] = lambda items: None
        self._socket = connected
        self._timeout = timeout
        self._connection = Connection()
        self._calls: deque[_Answer] = deque()
        self._lock = threading.Lock()
        # Over TLS there may be something to read, as tickets, that means nothing.
        self._poll = None if isinstance(connected, ssl.SSLSocket) else select.poll()
        if self._poll is not None:
            self._poll.register(connected, select.POLLIN)

    def fresh(self) -> bool:
        if self.closed or self._calls or self._poll is None or not self._poll.poll(0):
            return not self.closed
        self._fail("it has ended, or what is there was not asked for")
        return False

    def ask(self, request: Request, deadline: float, deliver: Optional[Deliver] = None) -> _Answer:
        answer = _Answer(self, deadline, deliver)
        with self._lock:
            data = self._connection.send(request)
            if request.kind is None:
                answer.settle(None, None)
            else:
                self._calls.append(answer)
        self._send(data, deadline)
        return answer

    async def ask_all(self, asked: Sequence[Request], deadline: float) -> list[Any]:
        answers = [_Answer(self, deadline) for _ in asked]
        with self._lock:
            data = b"".join([self._connection.send(request) for request in asked])
            self._calls.extend(answers)
        self._send(data, deadline)
        results: list[Any] = []
        try:
            for answer in answers:
                try:
                    results.append(await answer)
                except DarnerError as error:
                    results.append(error)
        except BaseException:
            # Interrupted, and so ended: what had come is known here alone.
            self.unwanted([answer.result for answer in answers if isinstance(answer.result, Item)])
            raise
        return results

    def tell(self, request: Request, heard: Optional[Heard] = None, deliver: Optional[Deliver] = None) -> None:
        if self.closed:
            return
        with self._lock:
            data = self._connection.send(request)
            if request.kind is not None:
                self._calls.append(_Answer(self, float("inf"), deliver, heard))
        self._send(data, time.monotonic() + self._timeout)

    async def write(self, data: bytes) -> None:
        self._send(data, time.monotonic() + self._timeout)

    def disown(self, request: Request, answer: Any) -> None:
        self.abort()

    def disown_all(self, asked: Sequence[Request], answer: Any) -> None:
        self.abort()

    def abort(self) -> None:
        self.dropped = self.dropped or not self.closed
        self._fail("the connection was ended")

    def receive_until(self, answer: _Answer) -> None:
        """Receive until a request is answered, or the connection has ended."""
        while not answer.done:
            if not self._has_time(answer.deadline):
                return
            try:
                data = self._socket.recv(_READ_BYTES_LARGE if self._connection.missing > _READ_BYTES else _READ_BYTES)
            except (TimeoutError, ssl.SSLWantReadError):
                continue
            except OSError as error:
                self._fail(str(error))
                return
            except BaseException:
                # Interrupted: nobody knows what comes next.
                self.abort()
                raise
            if not data:
                for event in self._connection.end():
                    assert isinstance(event, Reply)
                    self._calls.popleft().settle(None, None)
                self._fail("the server has ended the connection")
                return
            self._heed(data)

    def _heed(self, data: bytes) -> None:
        calls = self._calls
        try:
            events = self._connection.receive(data)
        except ProtocolError as error:
            self._fail(str(error))
            return
        for event in events:
            if type(event) is Reply:
                calls.popleft().settle(event.result, None)
            elif isinstance(event, Refusal):
                calls.popleft().settle(None, event.error)
            elif isinstance(event, Delivery):
                deliver = calls[0].deliver
                if deliver is not None:
                    deliver(event.item)
            elif isinstance(event, Piece):
                assert event.request.sink is not None
                event.request.sink(event.data)
            elif isinstance(event, Farewell):
                self._fail(str(event.error))

    def _has_time(self, deadline: float) -> bool:
        """Set the time-out of the socket, which is a system call, only where it is to be another one."""
        if self.closed:
            return False
        left = deadline - time.monotonic()
        if left <= 0:
            self._fail(TIME_IS_UP)
            return False
        if not left - 0.1 <= self._timeout <= left:
            self._timeout = left if left < 0.1 else left - 0.05
            self._socket.settimeout(self._timeout)
        return True

    def _send(self, data: bytes, deadline: float) -> None:
        if not data or not self._has_time(deadline):
            return
        try:
            with self._lock:
                self._socket.sendall(data)
        except TimeoutError:
            self._fail(TIME_IS_UP)
        except OSError as error:
            self._fail(str(error))
        except BaseException:
            self.abort()
            raise

    def _fail(self, reason: str) -> None:
        if self.closed:
            return
        self.closed = self.retired = True
        self._socket.close()
        calls, self._calls = self._calls, deque()
        for call in calls:
            call.settle(None, InDoubt(reason))


class _Done:
    """There is nothing to be called off."""

    def cancel(self) -> None:
        pass


class SocketRuntime:
    """Blocking sockets and threads, as L{darner.client.links.Runtime} has it."""

    pipelining = False

    def __init__(self, tls: Optional[ssl.SSLContext], server_hostname: Optional[str], timeout: float) -> None:
        self._tls = tls
        self._server_hostname = server_hostname
        self._timeout = timeout

    def now(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - everything blocks here

    def call_later(self, seconds: float, call: Callable[[], object]) -> Timer:
        timer = threading.Timer(seconds, call)
        timer.daemon = True
        timer.start()
        return timer

    def future(self) -> Future:
        raise NotImplementedError

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> Timer:
        """Do it at once."""
        run(coroutine)
        return _Done()

    async def connect(self, address: Address, timeout: float) -> Link:
        connected: Optional[socket.socket] = None
        try:
            if address.path:
                connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                connected.settimeout(timeout)
                connected.connect(address.path)
            else:
                connected = socket.create_connection((address.host, address.port), timeout)
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                hostname = self._server_hostname or address.host or None
                connected = self._tls.wrap_socket(connected, server_hostname=hostname)
        except OSError as error:
            if connected is not None:
                connected.close()
            if isinstance(error, TimeoutError):
                raise TimedOut(f"{address} did not answer in time") from error
            raise ConnectionFailed(f"{address}: {error}") from error
        except BaseException:
            if connected is not None:
                connected.close()
            raise
        connected.settimeout(self._timeout)
        return SocketLink(connected, self._timeout)
