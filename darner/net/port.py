"""
A faster transport than Twisted's own, for plain TCP.

Most of what a small request costs over Twisted's TCP transport is the reactor's work for each event.  A L{FastPort}
keeps all its connections in an epoll of its own and shows the reactor that one descriptor.  When the reactor says that
it is readable, the port serves every connection that is ready, ends the turn (`darner.queues.commit`) and so sends
every reply, and returns.  To the protocol its connections are ordinary transports.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar, Final, Optional

from twisted.internet.defer import Deferred, execute
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IReadDescriptor
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from zope.interface import classImplements

from darner.net.connection import IN, Address, FastConnection, socket_address
from darner.net.log_limits import LimitedLog
from darner.net.processors import processors
from darner.net.refusal import descriptor_limit
from darner.net.served import Commit, ServedFactory
from darner.net.worker import Worker

EVENTS: Final = 256
"""The maximum number of connections that are served before the reactor continues."""
WORK: Final = 0.004
"""Seconds after which the reactor continues, even if more connections are ready."""
LINGER: Final = 0.001
"""
How long to wait, in seconds, for new requests of the clients that were just answered, or for the end of a write to
stable storage, before the reactor continues, which costs as much as two small requests.  It delays other users of the
reactor, by L{WORK} at most.
"""
SPIN: Final = 0.0001
"""
How long to poll without sleeping before that, in seconds, if few clients were served.

Sleeping and waking up costs more than all other work for a small request, and the client waits for it.  So as long as
a client sends its next request within this time, the port polls: a single client is served nearly twice as fast.  This
needs a second processor, on which the clients run meanwhile.
"""
FEW: Final = 16
"""With fewer clients than this in a turn, the port polls for more before it writes the turn, and again after that."""
GATHER: Final = 4
"""How often it polls in vain for as many as in the turn before: writing a turn costs as much as some requests."""
GATHER_SYNCED: Final = 24
"""The same, if the turn before was written to stable storage: that costs as much as hundreds of requests."""
ACCEPTS: Final = 64
"""The maximum number of connections that are accepted before the others are served."""
BACKLOG: Final = 1024
RETRY_ACCEPT: Final = 1.0
"""Seconds until the port tries to accept again, after that failed for lack of descriptors or memory."""

_SHORTAGE: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class FastPort:
    """A listening TCP port that serves all its ready connections in one turn; see the module."""

    _log: ClassVar[Logger] = Logger()

    def __init__(
        self, reactor: Any, port: int, interface: str, inherited: Optional[socket.socket] = None
    ) -> None:
        """@param inherited: a socket that listens already; C{port} and C{interface} then only describe it."""
        self._inherited = inherited
        self._reactor = reactor
        self._port = port
        self._interface = interface
        self._factory: ServedFactory
        self._commit: Commit
        self._limited: LimitedLog
        self._started = self._worked = False
        self._seconds = time.monotonic
        self._connections: dict[int, FastConnection] = {}
        self._by_fd: list[Optional[FastConnection]] = []  # the same, found in less time
        self._listening: Optional[socket.socket] = None
        self._worker: Optional[Worker] = None
        self._worker_fd = -1
        self._worker_calls = 0
        self._later: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self._later_scheduled = self._serving = False
        self._spins = processors() >= 2
        self._prompt = False  # whether a client sent its next request at once
        self._synced = False  # the last turn was written to stable storage
        self._served = 0  # in the last turn
        self._last_fd = -1  # the last client that came alone

    # Listening

    def startListening(self) -> None:
        """
        Bind the address.  Clients are refused until L{serve}.

        @raise CannotListenError: it is in use, or cannot be bound.
        """
        if self._inherited is not None:
            self._listen_on(self._inherited)
            return
        family = socket.AF_INET6 if ":" in self._interface else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((self._interface, self._port))
        except OSError as error:
            listening.close()
            raise CannotListenError(self._interface, self._port, error) from error
        self._listen_on(listening)

    def _listen_on(self, listening: socket.socket) -> None:
        listening.setblocking(False)
        self._listening = listening
        self._listening_fd = listening.fileno()
        self._epoll = select.epoll()

    def serve(self, factory: ServedFactory) -> None:
        """
        Begin to accept clients.

        @param factory: creates their protocols.
        @raise CannotListenError: another process listens on the address by now.
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
        if self._commit.worker is not None:
            self._worker = self._commit.worker
            self._worker_fd = self._worker.fileno()
            self._epoll.register(self._worker_fd, IN)
        self._factory.doStart()
        self._reactor.addReader(self)

    def stopListening(self) -> Deferred[None]:
        """Stop accepting connections; open ones stay open."""
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
                self._limited.failure("internal error while accepting a client; closing its connection")
                self._give_up(sock)

    def _welcome(self, sock: socket.socket, name: tuple[Any, ...]) -> None:
        """Serve a new client, or refuse it if there are too many."""
        sock.setblocking(False)
        if self._factory.full():
            self._refuse(sock)
        elif sock.fileno() >= descriptor_limit():
            self._factory.rejected()
            self._refuse(sock)
        else:
            self._connect(sock, name)

    def _give_up(self, sock: socket.socket) -> None:
        """Close the connection of a new client after an internal error."""
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
        self._by_fd.extend([None] * (connection.fd + 1 - len(self._by_fd)))
        self._by_fd[connection.fd] = connection
        protocol.makeConnection(connection)

    def _refuse(self, sock: socket.socket) -> None:
        """Tell a client that there are too many, and disconnect it."""
        with suppress(OSError):
            sock.send(self._factory.refusal)
        sock.close()

    def _accept_none(self, error: OSError) -> None:
        """Stop accepting for a while: there is no descriptor left, not even to refuse a client."""
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
        """Serve who is ready, turn after turn, until the time is up.  Raise nothing: Twisted would drop the port."""
        try:
            self._serve_all()
        except Exception:
            self._limited.failure("internal error while serving clients; the server continues")

    def _serve_all(self) -> None:
        until = self._seconds() + WORK
        ready = self._epoll.poll(0, EVENTS)
        while ready:
            self._serve(ready)
            if self._epoll.closed or self._seconds() > until:
                break
            if not self._commit.busy:
                ready = self._linger(len(ready))
            elif self._worker is not None:
                ready = self._epoll.poll(LINGER, EVENTS)
            else:
                break

    def _linger(self, served: int) -> list[tuple[int, int]]:
        """
        Wait a little for the next requests of clients that were just answered.

        @param served: the number of these clients.
        @return: the descriptors that are ready, and their events.
        """
        poll = self._epoll.poll
        # After a sync nothing is gained by waiting awake: this process has slept, and a client that sleeps, too, is
        # woken sooner if it can have this processor.
        if served >= FEW or not self._spins or self._synced:
            return poll(LINGER, EVENTS)
        until = 0.0
        while self._prompt:
            ready = poll(0, EVENTS)
            if ready:
                return ready
            now = self._seconds()
            until = until or now + SPIN
            if now >= until:
                break
        until = until or self._seconds() + SPIN
        ready = poll(LINGER, EVENTS)
        self._prompt = bool(ready) and self._seconds() < until
        return ready

    def _has_worked(self) -> bool:
        """@return: whether the turn that has ended was written to stable storage."""
        if self._worker is None or self._worker.calls == self._worker_calls:
            return False
        self._worker_calls = self._worker.calls
        return True

    def _serve(self, ready: list[tuple[int, int]]) -> None:
        """Serve these connections, and end the turn."""
        self._commit.begin()
        self._serving = True
        try:
            self._take(ready)
            self._gather(ready)
        finally:
            try:
                self._commit.end()
            except Exception:
                self._limited.failure("internal error while ending a turn; closing the connections it served")
                self._lose(ready)
            self._serving = False
            self._synced = self._has_worked()
        if self._worked and self._worker is not None:
            self._worked = False
            self._worker.doRead()
        if self._later:
            self._do_later()

    def _gather(self, ready: list[tuple[int, int]]) -> None:
        """Serve in this turn, too, those clients that are about to send something."""
        served, wanted = len(ready), self._served
        if not self._synced:
            wanted = min(wanted, FEW)
        elif self._commit.busy:
            return
        if served == 1 and ready[0][0] != self._last_fd:
            self._last_fd = ready[0][0]
            wanted = max(wanted, 2)
        elif 1 < served < FEW:
            wanted = max(wanted, served + 1)
        looks = 1 if not self._spins else GATHER_SYNCED if self._synced else GATHER
        while served < wanted and looks:
            more = self._epoll.poll(0, EVENTS)
            if more:
                self._take(more)
                served += len(more)
            else:
                looks -= 1
        self._served = served

    def _lose(self, ready: list[tuple[int, int]]) -> None:
        """Close these connections, as it is unknown which of them got their replies."""
        for connection in [self._connections[fd] for fd, _ in ready if fd in self._connections]:
            self.later(connection.lose, Failure())

    def _take(self, ready: list[tuple[int, int]]) -> None:
        """Let these connections handle their events."""
        for fd, events in ready:
            connection = self._by_fd[fd] if fd < len(self._by_fd) else None
            try:
                if connection is not None:
                    connection.ready(events)
                elif fd == self._listening_fd and self._listening is not None:
                    self._accept()
                elif fd == self._worker_fd:
                    self._worked = True
            except Exception:
                self._limited.failure("internal error on a client's connection; closing it")
                if connection is not None:
                    self.later(connection.lose, Failure())

    def connectionLost(self, reason: Failure) -> None:
        """Called by the reactor when it ends."""

    def watch(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def forget(self, connection: FastConnection) -> None:
        """Remove a connection that has ended; its socket is still open."""
        del self._connections[connection.fd]
        self._by_fd[connection.fd] = None
        self._epoll.unregister(connection.fd)
        self.later(self._end_if_done)

    def later(self, call: Callable[..., object], *arguments: object) -> None:
        """Call after the present events are handled, when no protocol's method is running."""
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
                # If this were raised, the reactor would drop the port.
                self._limited.failure("internal error on a client's connection; closing it")


classImplements(FastPort, IListeningPort, IReadDescriptor)
