"""
A faster transport than Twisted's own, for plain TCP.

Most of what a small request costs over Twisted's TCP transport is the reactor's work for each event.  A L{FastPort}
keeps all its connections in an epoll of its own and shows the reactor that one descriptor.  When the reactor says that
it is readable, the port serves every connection that is ready, ends the turn (`darner.queues.commit`) and so sends
every reply, and returns.  To the protocol its connections are ordinary transports.
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
from typing import Any, ClassVar, Final, Optional, Protocol

from twisted.internet.defer import Deferred, execute
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocol,
    IReactorTime,
    IReadDescriptor,
)
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from zope.interface import classImplements

from darner.net.connection import IN, Address, FastConnection, socket_address
from darner.net.log_limits import LimitedLog
from darner.net.processors import processors

EVENTS: Final = 256
"""How many connections are served before the reactor gets its turn."""
WORK: Final = 0.004
"""Seconds after which the reactor gets its turn, however much there is to do."""
LINGER: Final = 0.001
"""
How long to wait, in seconds, for the clients that were just answered before the reactor gets its turn.

A turn of the reactor costs as much as two small requests; a single client that sends one request after the other is
served nearly twice as fast with this.  It delays whoever else lives in the reactor by as much and by L{WORK} at most.
"""
SPIN: Final = 0.0001
"""
For how long to look again and again before that, in seconds, where few clients were served.

To be put to sleep and woken costs a small request more than all else that is done for it, and its client waits for it.
So as long as one comes back within this time, it is waited for awake: a lone client is nearly twice as fast by that,
and so are two.  It takes a second processor, on which the clients run meanwhile.
"""
FEW: Final = 16
"""
Fewer clients than this in a turn are few: others are looked for before it is written, and waited for awake after it.
To write it costs as much as some requests: with ten clients 6 % more of them are served.
"""
ACCEPTS: Final = 64
"""How many connections are accepted before those that are there get their turn."""
BACKLOG: Final = 1024
SPARE_DESCRIPTORS: Final = 128
"""Descriptors that are left to the store and the rest of the process: clients do not get them."""
RETRY_ACCEPT: Final = 1.0
"""Seconds until accepting is tried again after it failed for want of descriptors or memory."""

_SHORTAGE: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Batch(Protocol):
    """What a port begins before it serves its clients, and ends after that: one write for all of them."""

    def begin(self) -> None:
        """Many clients are served from now on, until L{end}."""

    @property
    def busy(self) -> bool:
        """Whether a write is under way in a thread."""

    def end(self) -> None:
        """Write what the clients asked for, and send them their replies."""


class ServedFactory(Protocol):
    """What a L{FastPort} expects of the factory of its connections, besides Twisted's own methods."""

    refusal: bytes
    """What a client is sent for which there is no room."""
    commit: Batch
    clock: IReactorTime

    def doStart(self) -> None: ...
    def doStop(self) -> None: ...
    def buildProtocol(self, addr: Any) -> IProtocol: ...

    def full(self) -> bool:
        """@return: whether one client more would be one too many."""

    def rejected(self) -> None:
        """A client was told that there is no room for it."""


class FastPort:
    """A listening TCP port whose connections are served in one go; see the module."""

    _log: ClassVar[Logger] = Logger()

    def __init__(self, reactor: Any, port: int, interface: str) -> None:
        self._reactor = reactor
        self._port = port
        self._interface = interface
        self._factory: ServedFactory
        self._commit: Batch
        self._limited: LimitedLog
        self._started = False
        self._seconds = time.monotonic
        self._connections: dict[int, FastConnection] = {}
        self._listening: Optional[socket.socket] = None
        self._later: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self._later_scheduled = False
        self._serving = False
        self._spins = processors() >= 2
        self._prompt = False  # whether somebody came back at once

    # Listening

    def startListening(self) -> None:
        """
        Take the address.  Clients are refused until L{serve}.

        @raise CannotListenError: it is taken, or cannot be had.
        """
        family = socket.AF_INET6 if ":" in self._interface else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setblocking(False)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((self._interface, self._port))
        except OSError as error:
            listening.close()
            raise CannotListenError(self._interface, self._port, error) from error
        self._listening = listening
        self._listening_fd = listening.fileno()
        self._epoll = select.epoll()

    def serve(self, factory: ServedFactory) -> None:
        """
        Begin to accept clients.

        @param factory: makes their protocols.
        @raise CannotListenError: somebody else listens at the address by now.
        """
        assert self._listening is not None
        try:
            self._listening.listen(BACKLOG)
        except OSError as error:
            raise CannotListenError(self._interface, self._port, error) from error
        self._factory = factory
        self._commit = factory.commit
        self._limited = LimitedLog(self._log, factory.clock)
        self._started = True
        self._epoll.register(self._listening_fd, IN)
        self._factory.doStart()
        self._reactor.addReader(self)

    def stopListening(self) -> Deferred[None]:
        """Accept no more connections; those that are there go on."""
        return execute(self._stop_listening)

    def _stop_listening(self) -> None:
        listening, self._listening = self._listening, None
        if listening is None:
            return
        if self._started:
            self._epoll.unregister(listening.fileno())
            self._factory.doStop()
        listening.close()
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self._listening is None and not self._connections and not self._epoll.closed and not self._serving:
            if self._started:
                self._reactor.removeReader(self)
                self._limited.close()
            self._epoll.close()

    def getHost(self) -> Address:
        assert self._listening is not None
        return socket_address(self._listening.getsockname(), self._listening.family)

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
            try:
                self._welcome(sock, name)
            except Exception:
                self._limited.failure("a new connection failed")
                self._give_up(sock)

    def _welcome(self, sock: socket.socket, name: tuple[Any, ...]) -> None:
        """Serve a new client, or tell it that there is no room."""
        sock.setblocking(False)
        if self._factory.full():
            self._refuse(sock)
        elif sock.fileno() >= _descriptor_limit():
            self._factory.rejected()
            self._refuse(sock)
        else:
            self._connect(sock, name)

    def _give_up(self, sock: socket.socket) -> None:
        """Something was raised while a client was welcomed: it alone is lost."""
        connection = self._connections.get(sock.fileno())
        if connection is not None:
            self.later(connection.lose, Failure())
        else:
            sock.close()

    def _connect(self, sock: socket.socket, name: tuple[Any, ...]) -> None:
        try:
            self._epoll.register(sock.fileno(), IN)
        except OSError:
            self._factory.rejected()
            self._refuse(sock)
            return
        peer = socket_address(name, sock.family)
        connection = FastConnection(self, sock, peer)
        connection.protocol = protocol = self._factory.buildProtocol(peer)
        self._connections[connection.fd] = connection
        protocol.makeConnection(connection)

    def _refuse(self, sock: socket.socket) -> None:
        """Tell a client that there is no room for it."""
        with suppress(OSError):
            sock.send(self._factory.refusal)
        sock.close()

    def _accept_none(self, error: OSError) -> None:
        """Not even a descriptor to refuse with: accept again in a while."""
        self._limited.emit(LogLevel.error, "cannot accept connections: {error}", error=error.strerror)
        self._epoll.modify(self._listening_fd, 0)
        self._factory.clock.callLater(RETRY_ACCEPT, self._accept_again)

    def _accept_again(self) -> None:
        if self._listening is not None:
            self._epoll.modify(self._listening_fd, IN)

    # Serving

    def fileno(self) -> int:
        return -1 if self._epoll.closed else self._epoll.fileno()

    def logPrefix(self) -> str:
        return "darner"

    def doRead(self) -> None:
        """
        Serve the connections that are ready, one turn after the other, until none is or others have to be served.

        Nothing is raised: Twisted would not look at this port any more.
        """
        try:
            self._serve_all()
        except Exception:
            self._limited.failure("serving failed; it goes on")

    def _serve_all(self) -> None:
        until = self._seconds() + WORK
        ready = self._epoll.poll(0, EVENTS)
        while ready:
            self._serve(ready)
            if self._commit.busy or self._epoll.closed or self._seconds() > until:
                break
            ready = self._linger(len(ready))

    def _linger(self, served: int) -> list[tuple[int, int]]:
        """
        Wait a little for clients that were just answered.

        @param served: how many.
        @return: those that are ready, and their events.
        """
        poll = self._epoll.poll
        if served >= FEW or not self._spins:
            return poll(LINGER, EVENTS)
        until = self._seconds() + SPIN
        if self._prompt:
            while self._seconds() < until:
                ready = poll(0, EVENTS)
                if ready:
                    return ready
        ready = poll(LINGER, EVENTS)
        self._prompt = bool(ready) and self._seconds() < until
        return ready

    def _serve(self, ready: list[tuple[int, int]]) -> None:
        """Serve these connections, and end the turn."""
        self._commit.begin()
        self._serving = True
        try:
            self._take(ready)
            if 1 < len(ready) < FEW:
                self._take(self._epoll.poll(0, EVENTS))
        finally:
            try:
                self._commit.end()
            except Exception:
                self._limited.failure("a turn could not be ended")
                self._lose(ready)
            self._serving = False
        if self._later:
            self._do_later()

    def _lose(self, ready: list[tuple[int, int]]) -> None:
        """End these connections: nobody knows which of them were answered."""
        for fd, _ in ready:
            connection = self._connections.get(fd)
            if connection is not None:
                self.later(connection.lose, Failure())

    def _take(self, ready: list[tuple[int, int]]) -> None:
        """Have these connections take what they have received."""
        connections = self._connections
        for fd, events in ready:
            connection = connections.get(fd)
            try:
                if connection is not None:
                    connection.ready(events)
                elif fd == self._listening_fd and self._listening is not None:
                    self._accept()
            except Exception:
                self._limited.failure("a connection failed")
                if connection is not None:
                    self.later(connection.lose, Failure())

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
            try:
                call(*arguments)
            except Exception:
                # The reactor would take the port for lost.
                self._limited.failure("a connection failed")


classImplements(FastPort, IListeningPort, IReadDescriptor)


def _descriptor_limit() -> int:
    """@return: the first descriptor that clients do not get."""
    limit: int = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    return limit - min(SPARE_DESCRIPTORS, limit // 4)
