"""
Connections of a Twisted reactor.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from typing import Any, Optional

from twisted.internet import defer, protocol, task
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectingCancelledError, ConnectionClosed
from twisted.internet.interfaces import IHandshakeListener, INegotiated, IPushProducer, IStreamClientEndpoint
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from zope.interface import implementer

from darner.client.addresses import Address
from darner.client.errors import ConnectionFailed, TimedOut
from darner.client.links import Future, Link, PipelinedLink, Timer

Tls = Any
"""None, True, or what C{optionsForClientTLS} returns."""


class _Future:
    """A Deferred as L{darner.client.links.Future} has it, for one that waits."""

    __slots__ = ("_deferred", "_done", "_exception", "_result")

    def __init__(self) -> None:
        self._done = False
        self._result: Any = None
        self._exception: Optional[BaseException] = None
        self._deferred: Optional[defer.Deferred[Any]] = None

    def done(self) -> bool:
        return self._done

    def cancel(self) -> None:
        if not self._done:
            self.set_exception(defer.CancelledError())

    def cancelled(self) -> bool:
        return isinstance(self._exception, defer.CancelledError)

    def exception(self) -> Optional[BaseException]:
        return self._exception

    def result(self) -> Any:
        return self._result

    def set_result(self, result: Any) -> None:
        self._done = True
        self._result = result
        if self._deferred is not None:
            self._deferred.callback(result)

    def set_exception(self, exception: BaseException) -> None:
        self._done = True
        self._exception = exception
        if self._deferred is not None:
            self._deferred.errback(exception)

    def _cancelled(self, deferred: defer.Deferred[Any]) -> None:
        self._deferred = None
        self.cancel()

    def __await__(self) -> Generator[Any, None, Any]:
        if not self._done:
            self._deferred = defer.Deferred(self._cancelled)
            return (yield from self._deferred.__await__())
        if self._exception is not None:
            raise self._exception
        return self._result


@implementer(IPushProducer, IHandshakeListener)
class _Link(protocol.Protocol, PipelinedLink):
    """Twisted sends what was written in a turn in one piece."""

    def __init__(self, runtime: ReactorRuntime) -> None:
        PipelinedLink.__init__(self, runtime)
        self._paused: Optional[_Future] = None
        self.ready = _Future()

    @property
    def usable(self) -> bool:
        """Whether requests may be sent."""
        return self.ready.done() and self.ready.exception() is None

    def handshakeCompleted(self) -> None:
        self._become_ready()

    def _become_ready(self) -> None:
        if not self.ready.done():
            self.ready.set_result(None)

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.registerProducer(self, True)
        if hasattr(transport, "setTcpNoDelay"):
            with suppress(OSError):  # the server may have gone already, of which the link is told in its turn
                transport.setTcpNoDelay(True)
        if not INegotiated.providedBy(transport):  # over TLS it is when the server is known
            self._become_ready()

    def dataReceived(self, data: bytes) -> None:
        self.received(data)

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        if not self.ready.done():
            self.ready.set_exception(ConnectionFailed(reason.getErrorMessage()))
        self.lost(reason.getErrorMessage())
        self.resumeProducing()

    def pauseProducing(self) -> None:
        self._paused = self._paused or _Future()

    def resumeProducing(self) -> None:
        paused, self._paused = self._paused, None
        if paused is not None and not paused.done():
            paused.set_result(None)

    def stopProducing(self) -> None:
        self.resumeProducing()

    def _send(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    async def write(self, data: bytes) -> None:
        if not self.closed:
            self._send(data)
            if self._paused is not None:
                await self._paused

    def _end(self) -> None:
        transport: Any = self.transport
        if transport is not None:
            transport.unregisterProducer()
            transport.loseConnection()
        self.resumeProducing()


class ReactorRuntime:
    """A reactor, as L{darner.client.links.Runtime} has it."""

    pipelining = True

    def __init__(
        self, reactor: Any, tls: Tls, server_hostname: Optional[str], endpoint: Optional[IStreamClientEndpoint]
    ) -> None:
        self.reactor = reactor
        self._tls = tls
        self._server_hostname = server_hostname
        self._endpoint = endpoint
        self.now: Callable[[], float] = reactor.seconds

    def sleep(self, seconds: float) -> defer.Deferred[None]:
        return task.deferLater(self.reactor, seconds)

    def call_later(self, seconds: float, call: Callable[[], object]) -> Timer:
        return _Timer(self.reactor.callLater(seconds, call))

    def future(self) -> Future:
        return _Future()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> Timer:
        spawned = defer.Deferred.fromCoroutine(coroutine)
        spawned.addErrback(lambda failure: failure.trap(defer.CancelledError) and None)
        return spawned

    async def connect(self, address: Address, timeout: float) -> Link:
        factory = protocol.Factory.forProtocol(lambda: _Link(self))
        connecting = self._endpoint_of(address).connect(factory)
        link: Any = None
        late = TimedOut(f"{address} did not answer in time")

        def give_up() -> None:
            if link is None:
                connecting.cancel()
            elif not link.ready.done():
                link.ready.set_exception(late)

        timer = self.reactor.callLater(timeout, give_up)
        try:
            link = await connecting
            await link.ready
        except (defer.CancelledError, ConnectingCancelledError) as error:
            if timer.active():
                raise defer.CancelledError() from error
            raise late from error
        except (ConnectError, ConnectionClosed, OSError, ConnectionFailed) as error:
            raise error if error is late else ConnectionFailed(f"{address}: {error}") from error
        finally:
            if timer.active():
                timer.cancel()
            if link is not None and not link.usable:
                link.transport.abortConnection()
        found: Link = link
        return found

    def _endpoint_of(self, address: Address) -> Any:
        if self._endpoint is not None:
            return self._endpoint
        if address.path:
            endpoint: Any = UNIXClientEndpoint(self.reactor, address.path)
        else:
            endpoint = HostnameEndpoint(self.reactor, address.host, address.port)
        if not self._tls:
            return endpoint
        options = self._tls
        if options is True:
            from twisted.internet import ssl  # needs pyOpenSSL

            options = ssl.optionsForClientTLS(self._server_hostname or address.host)
        return wrapClientTLS(options, endpoint)

    async def resolve(self, host: str, port: int) -> list[tuple[str, int]]:
        """@return: the addresses of a host."""
        found = await self.in_thread(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        return [(str(place[4][0]), port) for place in found]

    async def services(self, name: str) -> list[tuple[str, int]]:
        """@return: hosts and ports of an SRV record, the preferred ones first."""
        from twisted.names import client, dns

        answers, _, _ = await client.createResolver().lookupService(name)
        records = [answer.payload for answer in answers if answer.type == dns.SRV]
        records.sort(key=lambda record: record.priority)
        return [(str(record.target), int(record.port)) for record in records]

    async def in_thread(self, call: Callable[[], Any]) -> Any:
        return await deferToThreadPool(self.reactor, self.reactor.getThreadPool(), call)


class _Timer:
    """A delayed call that may be called off twice."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def cancel(self) -> None:
        if self._call.active():
            self._call.cancel()
