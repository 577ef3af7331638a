"""
How we listen: Twisted's own transports for every endpoint, and a faster one for plain TCP.

Most of what a small request costs over Twisted's TCP transport is the reactor's work for each event.  A L{FastPort}
keeps all its connections in an epoll of its own and shows the reactor that one descriptor.  When the reactor says that
it is readable, the port serves every connection that is ready, ends the turn (`darner.turn`) and so sends every reply,
and returns.  To the protocol its connections are ordinary transports.
"""

from __future__ import annotations

import errno
import resource
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Optional, Union

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, execute
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint
from twisted.internet.error import CannotListenError, ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    IListeningPort,
    IProducer,
    IProtocolFactory,
    IPushProducer,
    IReadDescriptor,
    IStreamServerEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from darner.protocol import QueueFactory
from darner.wire import server_error

READ_BYTES: Final = 64 * 1024
"""How much is read from a connection at once."""
SEND_BUFFER: Final = 64 * 1024
"""Unsent bytes at which a connection's producer is told to pause."""
EVENTS: Final = 256
"""How many connections are served before the reactor gets its turn."""
WORK: Final = 0.004
"""Seconds after which the reactor gets its turn, however much there is to do."""
LINGER: Final = 0.001
"""
How long to wait, in seconds, for the clients that were just answered before the reactor gets its turn.

A turn of the reactor costs as much as two small requests; a single client that sends one request after the other is
served nearly twice as fast with this.  It delays whoever else lives in the reactor by as much, once.
"""
ACCEPTS: Final = 64
"""How many connections are accepted before those that are there get their turn."""
BACKLOG: Final = 1024
SPARE_DESCRIPTORS: Final = 128
"""Descriptors that are left to the store and the rest of the process: clients do not get them."""
RETRY_ACCEPT: Final = 1.0
"""Seconds until accepting is tried again after it failed for want of descriptors or memory."""

TOO_MANY_CONNECTIONS: Final = server_error(b"too many connections")

_IN: Final = getattr(select, "EPOLLIN", 1)
_OUT: Final = getattr(select, "EPOLLOUT", 4)
_BROKEN: Final = getattr(select, "EPOLLERR", 8) | getattr(select, "EPOLLHUP", 16)
_AGAIN: Final = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR)
_SHORTAGE: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_Address = Union[IPv4Address, IPv6Address]


def _address(name: tuple[Any, ...], family: int) -> _Address:
    if family == socket.AF_INET6:
        return IPv6Address("TCP", *name[:2], *name[2:])
    return IPv4Address("TCP", *name[:2])


@implementer(ITCPTransport, IConsumer, IPushProducer)
class FastConnection:
    """
    One connection of a L{FastPort}.

    What is written is sent at once where nothing waits before it: the protocol writes once a turn, so there is nothing
    to gain by gathering.
    """

    def __init__(self, port: FastPort, sock: socket.socket, peer: _Address) -> None:
        self._port = port
        self._socket = sock
        self.fd = sock.fileno()
        self._peer = peer
        self._receive = sock.recv
        self._send = sock.send
        self._unsent: deque[memoryview] = deque()
        self._unsent_bytes = 0
        self._events = _IN
        self._reading = True
        self._read_closed = False
        self._write_closing = False
        self._write_closed = False
        self._producer: Optional[IProducer] = None
        self._streaming = False
        self._producer_paused = False
        self.disconnecting = False
        self.connected = True
        self.protocol: Protocol

    # What the port tells

    def ready(self, events: int) -> None:
        """The socket can be read from or written to, or is broken."""
        if events & _OUT:
            self._flush()
        if events & _IN and self._reading and self.connected:
            self._read()
        elif events & _BROKEN and self.connected and not events & _OUT:
            self.lose(Failure(ConnectionLost()))

    def _read(self) -> None:
        try:
            data = self._receive(READ_BYTES)
        except OSError as error:
            if error.errno not in _AGAIN:
                self.lose(Failure(ConnectionLost(error.strerror)))
            return
        if data:
            self.protocol.dataReceived(data)
            return
        self._read_closed = True
        self._reading = False
        self._watch()
        if IHalfCloseableProtocol.providedBy(self.protocol):
            self.protocol.readConnectionLost()
        else:
            self.lose(Failure(ConnectionDone()))

    def lose(self, reason: Failure) -> None:
        """Close the socket, and tell the protocol."""
        if not self.connected:
            return
        self.connected = False
        self.disconnecting = True
        self._unsent.clear()
        producer, self._producer = self._producer, None
        self._port.forget(self)
        self._socket.close()
        if producer is not None:
            producer.stopProducing()
        self.protocol.connectionLost(reason)

    def _watch(self) -> None:
        """Tell epoll what to look for."""
        events = (_IN if self._reading else 0) | (_OUT if self._unsent else 0)
        if events != self._events and self.connected:
            self._events = events
            self._port.watch(self.fd, events)

    # Writing

    def write(self, data: bytes) -> None:
        if self._write_closed or self._write_closing or not self.connected or not data:
            return
        if not self._unsent:
            try:
                sent = self._send(data)
            except OSError as error:
                if error.errno not in _AGAIN:
                    # Not from here: the caller is in the middle of something.
                    self._port.later(self.lose, Failure(ConnectionLost(error.strerror)))
                    self._write_closed = True
                    return
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        self._unsent.append(memoryview(data))
        self._unsent_bytes += len(data)
        self._watch()
        if self._unsent_bytes > SEND_BUFFER and self._producer is not None and not self._producer_paused:
            self._producer_paused = True
            if self._streaming:
                self._producer.pauseProducing()  # type: ignore[attr-defined]

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def _flush(self) -> None:
        """Send what could not be sent before."""
        while self._unsent:
            piece = self._unsent[0]
            try:
                sent = self._send(piece)
            except OSError as error:
                if error.errno not in _AGAIN:
                    self.lose(Failure(ConnectionLost(error.strerror)))
                return
            self._unsent_bytes -= sent
            if sent < len(piece):
                self._unsent[0] = piece[sent:]
                return
            self._unsent.popleft()
        self._watch()
        if self._producer is not None and (self._producer_paused or not self._streaming):
            self._producer_paused = False
            self._producer.resumeProducing()  # type: ignore[attr-defined]
        elif self.disconnecting:
            self.lose(Failure(ConnectionDone()))
        elif self._write_closing:
            self._close_write()

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        if self._producer is not None:
            raise RuntimeError(f"a producer is registered already: {self._producer!r}")
        if not self.connected:
            producer.stopProducing()
            return
        self._producer = producer
        self._streaming = streaming
        self._producer_paused = False
        if not streaming:
            self._port.later(producer.resumeProducing)  # type: ignore[attr-defined]

    def unregisterProducer(self) -> None:
        self._producer = None
        if self.connected and self.disconnecting and not self._unsent:
            self._port.later(self.lose, Failure(ConnectionDone()))

    # Closing

    def loseConnection(self, _connDone: object = None) -> None:
        if self.connected and not self.disconnecting:
            self.disconnecting = True
            self._reading = False
            self._watch()
            if not self._unsent and self._producer is None:
                self._port.later(self.lose, Failure(ConnectionDone()))

    def abortConnection(self) -> None:
        if self.connected:
            # The peer is told by a reset, and nothing unsent lingers in the kernel.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.disconnecting = True
            self._reading = False
            self._watch()
            self._port.later(self.lose, Failure(ConnectionAborted()))

    def loseWriteConnection(self) -> None:
        self._write_closing = True
        if not self._unsent:
            self._close_write()

    def _close_write(self) -> None:
        if not self._write_closed and self.connected:
            self._write_closed = True
            try:
                self._socket.shutdown(socket.SHUT_WR)
            except OSError:
                self._port.later(self.lose, Failure(ConnectionLost()))
                return
            if IHalfCloseableProtocol.providedBy(self.protocol):
                self.protocol.writeConnectionLost()

    # Reading

    def pauseProducing(self) -> None:
        self._reading = False
        self._watch()

    def resumeProducing(self) -> None:
        if self.connected and not self.disconnecting and not self._read_closed:
            self._reading = True
            self._watch()

    def stopProducing(self) -> None:
        self.loseConnection()

    # The socket

    def getHost(self) -> _Address:
        return _address(self._socket.getsockname(), self._socket.family)

    def getPeer(self) -> _Address:
        return self._peer

    def getTcpNoDelay(self) -> bool:
        return bool(self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def setTcpNoDelay(self, enabled: bool) -> None:
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, enabled)

    def getTcpKeepAlive(self) -> bool:
        return bool(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, enabled)


@implementer(IListeningPort, IReadDescriptor)
class FastPort:
    """A listening TCP port whose connections are served in one go; see the module."""

    _log = Logger()

    def __init__(self, reactor: Any, port: int, factory: QueueFactory, interface: str) -> None:
        self._reactor = reactor
        self._port = port
        self._interface = interface
        self._factory = factory
        self._turn = factory.queues.turn
        self._seconds = time.monotonic
        self._connections: dict[int, FastConnection] = {}
        self._listening: Optional[socket.socket] = None
        self._later: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self._later_scheduled = False
        self._refusing = False
        self._serving = False

    # Listening

    def startListening(self) -> None:
        """@raise CannotListenError: the address cannot be listened at."""
        family = socket.AF_INET6 if ":" in self._interface else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setblocking(False)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((self._interface, self._port))
            listening.listen(BACKLOG)
        except OSError as error:
            listening.close()
            raise CannotListenError(self._interface, self._port, error) from error
        self._listening = listening
        self._listening_fd = listening.fileno()
        self._epoll = select.epoll()
        self._epoll.register(self._listening_fd, _IN)
        self._factory.doStart()
        self._reactor.addReader(self)

    def stopListening(self) -> Deferred[None]:
        """Accept no more connections; those that are there go on."""
        return execute(self._stop_listening)

    def _stop_listening(self) -> None:
        listening, self._listening = self._listening, None
        if listening is None:
            return
        self._epoll.unregister(listening.fileno())
        listening.close()
        self._factory.doStop()
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self._listening is None and not self._connections and not self._epoll.closed and not self._serving:
            self._reactor.removeReader(self)
            self._epoll.close()

    def getHost(self) -> _Address:
        assert self._listening is not None
        return _address(self._listening.getsockname(), self._listening.family)

    def _accept(self) -> None:
        assert self._listening is not None
        for _ in range(ACCEPTS):
            try:
                sock, name = self._listening.accept()
            except OSError as error:
                if error.errno in _SHORTAGE:
                    self._accept_none(error)
                if error.errno not in (errno.ECONNABORTED, errno.EPROTO, errno.EPERM):
                    return
                continue
            sock.setblocking(False)
            if sock.fileno() >= _descriptor_limit():
                self._refuse(sock)
            else:
                self._connect(sock, name)

    def _connect(self, sock: socket.socket, name: tuple[Any, ...]) -> None:
        peer = _address(name, sock.family)
        connection = FastConnection(self, sock, peer)
        protocol = self._factory.buildProtocol(peer)
        connection.protocol = protocol
        self._connections[connection.fd] = connection
        self._epoll.register(connection.fd, _IN)
        self._refusing = False
        protocol.makeConnection(connection)

    def _refuse(self, sock: socket.socket) -> None:
        """Tell a client that there is no room for it."""
        if not self._refusing:
            self._refusing = True
            self._log.warn("too many connections: refusing new ones")
        with suppress(OSError):
            sock.send(TOO_MANY_CONNECTIONS)
        sock.close()

    def _accept_none(self, error: OSError) -> None:
        """Not even a descriptor to refuse with: accept again in a while."""
        self._log.error("cannot accept connections: {error}", error=error.strerror)
        self._epoll.modify(self._listening_fd, 0)
        self._reactor.callLater(RETRY_ACCEPT, self._accept_again)

    def _accept_again(self) -> None:
        if self._listening is not None:
            self._epoll.modify(self._listening_fd, _IN)

    # Serving

    def fileno(self) -> int:
        return -1 if self._epoll.closed else self._epoll.fileno()

    def logPrefix(self) -> str:
        return "darner"

    def doRead(self) -> None:
        """Serve the connections that are ready, one turn after the other, until none is or others have to be served."""
        until = self._seconds() + WORK
        ready = self._epoll.poll(0, EVENTS)
        while ready:
            self._serve(ready)
            if self._turn.busy or self._epoll.closed or self._seconds() > until:
                break
            ready = self._epoll.poll(LINGER, EVENTS)

    def _serve(self, ready: list[tuple[int, int]]) -> None:
        """Serve these connections, and end the turn."""
        self._turn.begin()
        self._serving = True
        connections = self._connections
        try:
            for fd, events in ready:
                connection = connections.get(fd)
                if connection is not None:
                    try:
                        connection.ready(events)
                    except Exception:
                        self._log.failure("a connection failed")
                        connection.lose(Failure())
                elif fd == self._listening_fd and self._listening is not None:
                    self._accept()
        finally:
            self._turn.end_here()
            self._serving = False
        if self._later:
            self._do_later()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has ended."""

    def watch(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def forget(self, connection: FastConnection) -> None:
        """A connection has ended; its socket is still open."""
        del self._connections[connection.fd]
        self._epoll.unregister(connection.fd)
        self.later(self._end_if_done)

    def later(self, call: Callable[..., object], *arguments: object) -> None:
        """Call back when nobody is in the middle of something."""
        self._later.append((call, arguments))
        if not self._serving and not self._later_scheduled:
            self._later_scheduled = True
            self._reactor.callFromThread(self._do_later)

    def _do_later(self) -> None:
        self._later_scheduled = False
        while self._later:
            call, arguments = self._later.popleft()
            call(*arguments)


def _descriptor_limit() -> int:
    """@return: the first descriptor that clients do not get."""
    limit: int = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    return limit - min(SPARE_DESCRIPTORS, limit // 4)


@implementer(IStreamServerEndpoint)
class FastEndpoint:
    """A TCP endpoint whose connections are served by a L{FastPort}."""

    def __init__(self, reactor: Any, port: int, interface: str) -> None:
        self._reactor = reactor
        self._port = port
        self._interface = interface

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """@param protocolFactory: a L{QueueFactory}; what is gathered in a turn is its."""
        assert isinstance(protocolFactory, QueueFactory)
        return execute(self._listen, protocolFactory)

    def _listen(self, factory: QueueFactory) -> IListeningPort:
        port = FastPort(self._reactor, self._port, factory, self._interface)
        port.startListening()
        return port


def tcp_endpoint(reactor: Any, port: int, interface: str) -> IStreamServerEndpoint:
    """
    @return: the fastest endpoint for plain TCP that this reactor can carry.
    """
    if type(reactor).__name__ == "EPollReactor":
        return FastEndpoint(reactor, port, interface)
    kind = TCP6ServerEndpoint if ":" in interface else TCP4ServerEndpoint
    return kind(reactor, port, interface=interface)
