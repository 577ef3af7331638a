"""
One connection of a `darner.net.port.FastPort`.  To its protocol it is an ordinary Twisted transport.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Optional, Protocol, Union

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    IProtocol,
    IPushProducer,
    ITCPTransport,
)
from twisted.python.failure import Failure
from zope.interface import classImplements

READ_BYTES: Final = 64 * 1024
"""The maximum number of bytes read from a connection at once."""
READ_FEW: Final = 448
"""
The same, of a connection that sends little at once: for so many Python has memory at hand, while to get 64 KiB and give
them back costs as much as a quarter of a read.
"""
FEW_READS: Final = 16
"""After so many reads of little in a row, less than L{READ_FEW}, a connection is one that sends little."""
SEND_BUFFER: Final = 64 * 1024
"""The number of unsent bytes above which a connection's producer is paused."""

IN: Final[int] = getattr(select, "EPOLLIN", 1)
OUT: Final[int] = getattr(select, "EPOLLOUT", 4)
BROKEN: Final[int] = getattr(select, "EPOLLERR", 8) | getattr(select, "EPOLLHUP", 16)
AGAIN: Final = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR)

# As values, since an attribute of a module is looked up at each use.
_read: Final = os.read
_write: Final = os.write

Address = Union[IPv4Address, IPv6Address]


def socket_address(name: tuple[Any, ...], family: int) -> Address:
    if family == socket.AF_INET6:
        return IPv6Address("TCP", *name[:2], *name[2:])
    return IPv4Address("TCP", *name[:2])


class Port(Protocol):
    """The port, as its connections see it."""

    def watch(self, fd: int, events: int) -> None:
        """Set the epoll events for a connection's socket."""

    def forget(self, connection: FastConnection) -> None:
        """Remove a connection that has ended; its socket is still open."""

    def later(self, call: Callable[..., object], *arguments: object) -> None:
        """Call after the present events are handled, when no protocol's method is running."""


class Sender(Protocol):
    """What a protocol sends by: one of Twisted's stream transports."""

    def write(self, data: bytes) -> None:
        """Send these bytes, or keep them until they can be sent."""


class Receiver(Protocol):
    """What takes the bytes that a connection receives, in place of its protocol's C{dataReceived}."""

    def received(self, data: bytes) -> None:
        """Called with bytes that the client has sent."""


class FastConnection(Sender):
    """
    A connection that sends and receives when its port tells it that the socket is ready.

    If nothing is waiting to be sent, C{write} sends at once: the protocol writes once a turn, so buffering would gain
    nothing.  It reads and writes by its descriptor, as for the methods of a socket Python does a third more.

    @ivar fd: the descriptor of its socket; -1 when that is closed.
    @ivar receiver: what takes the received bytes; C{None}: the protocol does.
    """

    def __init__(self, port: Port, sock: socket.socket, peer: Address) -> None:
        self._port = port
        self._socket = sock
        self.fd = sock.fileno()
        self._peer = peer
        self._unsent: deque[memoryview] = deque()
        self._unsent_bytes = 0
        self._events = IN
        self._few_reads = FEW_READS  # how many there were in a row
        self._reading = True
        self._read_closed = False
        self._write_closing = False
        self._write_closed = False
        self._producer: Optional[IPushProducer] = None  # or a pull producer, which is not paused
        self._streaming = False
        self._producer_paused = False
        self.disconnecting = False
        self.connected = True
        self.protocol: IProtocol
        self.receiver: Optional[Receiver] = None

    # Calls from the port

    def ready(self, events: int) -> None:
        """Handle epoll events: the socket can be read or written, or the connection is broken."""
        if events & OUT:
            self._flush()
        if events & IN and self._reading and self.connected:
            self._read()
        elif events & BROKEN and self.connected and not events & OUT:
            self.lose(Failure(ConnectionLost()))

    def _read(self) -> None:
        few = self._few_reads >= FEW_READS
        try:
            data = _read(self.fd, READ_FEW if few else READ_BYTES)
        except OSError as error:
            if error.errno not in AGAIN:
                self.lose(Failure(ConnectionLost(error.strerror)))
            return
        if data:
            if len(data) >= READ_FEW:
                self._few_reads = 0
            elif not few:
                self._few_reads += 1
            if self.receiver is not None:
                self.receiver.received(data)
            else:
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
        self.fd = -1  # by now it may be another's
        try:
            if producer is not None:
                producer.stopProducing()
        finally:
            # In any case, so that the client's open reads go back to their queues.
            self.protocol.connectionLost(reason)

    def _watch(self) -> None:
        """Tell epoll which events to report."""
        events = (IN if self._reading else 0) | (OUT if self._unsent else 0)
        if events != self._events and self.connected:
            self._events = events
            self._port.watch(self.fd, events)

    # Writing

    def write(self, data: bytes) -> None:
        if self._write_closed or self._write_closing or not self.connected or not data:
            return
        if not self._unsent:
            try:
                sent = _write(self.fd, data)
            except OSError as error:
                if error.errno not in AGAIN:
                    # Later, as the protocol that called this is not ready for connectionLost.
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
                self._producer.pauseProducing()

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def _flush(self) -> None:
        """Send the unsent bytes."""
        while self._unsent:
            piece = self._unsent[0]
            try:
                sent = _write(self.fd, piece)
            except OSError as error:
                if error.errno not in AGAIN:
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
            self._producer.resumeProducing()
        elif self.disconnecting:
            self.lose(Failure(ConnectionDone()))
        elif self._write_closing:
            self._close_write()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self._producer is not None:
            raise RuntimeError(f"a producer is registered already: {self._producer!r}")
        if not self.connected:
            producer.stopProducing()
            return
        self._producer = producer
        self._streaming = streaming
        self._producer_paused = False
        if not streaming:
            self._port.later(producer.resumeProducing)

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
            # Send a reset to the peer, and drop unsent bytes from the kernel's buffer.
            with suppress(OSError):
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

    def getHandle(self) -> socket.socket:
        """@return: the socket, so that the caller can set its options."""
        return self._socket

    def getHost(self) -> Address:
        return socket_address(self._socket.getsockname(), self._socket.family)

    def getPeer(self) -> Address:
        return self._peer

    def getTcpNoDelay(self) -> bool:
        return bool(self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def setTcpNoDelay(self, enabled: bool) -> None:
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, enabled)

    def getTcpKeepAlive(self) -> bool:
        return bool(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, enabled)


# Not a decorator, as mypyc would then not compile it to a native class (`docs/design/compiled.rst`).
classImplements(FastConnection, ITCPTransport, IConsumer, IPushProducer)
