"""
The memcache text protocol over any Twisted transport: connections, backpressure, and the factory.

`darner.front.framing` takes requests out of the received bytes, `darner.front.session` performs them, and
`darner.front.memcache` and `darner.front.memcache_requests` know how replies and requests are spelled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Optional

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableProtocol,
    IPushProducer,
    ITransport,
)
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.logger import Logger, LogLevel
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from darner.front import commands, memcache  # noqa: F401  (the commands register themselves)
from darner.front.access import Access
from darner.front.audit import AuditLog, AuditTrail
from darner.front.framing import Carrier, Framing
from darner.front.log_in import LogIn
from darner.front.memcache import KESTREL
from darner.front.memcache_requests import MAX_LINE, LineCache
from darner.front.outbox import Outlet
from darner.front.session import Session
from darner.front.spelling import Spelling
from darner.net.connection import FastConnection
from darner.net.limits import ClientTimeouts, Limits
from darner.net.log_limits import LimitedLog
from darner.net.refusal import Refusal
from darner.net.socket_options import SocketOptions
from darner.queues.collection import Queues
from darner.values import requests

TOO_MANY_CONNECTIONS: Final = memcache.server_error(b"too many connections")


class IClientTransport(ITransport, IConsumer, IPushProducer):
    """What a client's connection must implement, as all of Twisted's stream transports do."""

    def abortConnection() -> None:
        """Close the connection at once, without sending what is pending."""


@implementer(IPushProducer)
class _Sending:
    """Passes the backpressure of a transport on to the session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def pauseProducing(self) -> None:
        self._session.choke()

    def resumeProducing(self) -> None:
        self._session.unchoke()

    def stopProducing(self) -> None:
        self._session.choke()


@implementer(IHalfCloseableProtocol)
class QueueProtocol(LineReceiver):
    """
    One client's connection, as Twisted sees it: a C{LineReceiver} that is in raw mode while it receives a payload.

    @ivar framing: takes the requests out of the received bytes.
    """

    delimiter = b"\n"
    MAX_LENGTH = MAX_LINE
    factory: QueueFactory
    transport: IClientTransport

    def connectionMade(self) -> None:
        self.framing = self.factory.make_framing(self)
        # Directly: a method in between would cost as much as it takes to parse a line.
        self.dataReceived = self.framing.received  # type: ignore[method-assign]
        if isinstance(self.transport, FastConnection):
            self.transport.receiver = self.framing
        self.framing.session = self.factory.make_session(self.framing, self.transport.getPeer())
        # First, as every limit on the memory for a client depends on it.
        self.transport.registerProducer(_Sending(self.session), True)
        self.factory.joined(self)
        self.factory.socket_options.apply(self.transport)

    @property
    def session(self) -> Session:
        """The client's state."""
        return self.framing.session

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.framing.lost()
        self.factory.left(self, reason)

    def readConnectionLost(self) -> None:
        self.framing.half_close()

    def writeConnectionLost(self) -> None:
        """Called when the client has closed its side for reading."""
        self.framing.abort()

    # Calls from the framing

    def refused(self, request: requests.Refused) -> None:
        self.factory.refused(self, request)

    def ended(self) -> None:
        self.transport.unregisterProducer()


class QueueFactory(ServerFactory):
    """
    The factory of the connections of a listener.

    @ivar queues: the queues of the server.
    @ivar commit: the queues' group commit, for the port.
    @ivar clock: the queues' clock.
    @ivar lines: cache of parsed request lines.
    @ivar connections: the connected clients.
    @ivar audit: the audit log.
    @ivar make_log_in: makes what checks the requests of a client; by default none is made where there are no users.
    """

    noisy = False
    refusal = TOO_MANY_CONNECTIONS
    """The reply to a client that is refused, as there are too many."""

    _log = Logger()

    def __init__(
        self,
        queues: Queues,
        spelling: Spelling = KESTREL,
        debug: bool = False,
        limits: Limits = Limits(),  # noqa: B008  (it is frozen)
        access: Optional[Access] = None,
    ) -> None:
        """
        @param spelling: the spelling of replies: that of a protocol, or of a dialect of it.
        @param debug: whether to log connections and refused requests.
        @param limits: limits and time-outs for clients.
        @param access: users and rights; C{None}: everybody may do everything.
        """
        self.queues = queues
        self.commit = queues.commit
        self.clock = queues.clock
        self.spelling = spelling
        self.debug = debug
        self.limits = limits
        self.socket_options = SocketOptions(limits)
        self._access = access
        self._gone: Optional[Deferred[None]] = None
        self._limited = LimitedLog(self._log, queues.clock)
        self.audit = AuditLog(queues.clock, debug)
        self.make_log_in: Callable[[Optional[Access], AuditTrail], LogIn] = LogIn
        self.lines = LineCache(spelling.relative_expiry)
        self.connections: set[Framing] = set()
        self._patience = ClientTimeouts(limits, queues.clock, self.connections, queues.stats)

    def buildProtocol(self, addr: Optional[IAddress]) -> Protocol:
        if self.full():
            return Refusal(self.refusal, self.clock)
        protocol = QueueProtocol()
        protocol.factory = self
        return protocol

    def make_framing(self, carrier: Carrier) -> Framing:
        """@return: the framing of a new connection."""
        return Framing(carrier, self.queues, self.lines)

    def full(self) -> bool:
        """@return: whether C{max_connections} is reached; the caller must then refuse the client, which is counted."""
        most = self.limits.max_connections
        if not most or self.queues.stats.curr_connections < most:
            return False
        self.rejected()
        return True

    def rejected(self) -> None:
        """Count and log a client that is refused."""
        self.queues.stats.rejected_connections += 1
        self._limited.emit(LogLevel.warn, "too many connections: max_connections or the limit of open files is reached")

    def make_session(self, outlet: Outlet, address: Optional[IAddress] = None) -> Session:
        """
        @param address: the client's address.
        @return: the session of a new client.
        """
        trail = AuditTrail(self.audit, address)
        plain = self._access is None and self.make_log_in is LogIn
        log_in = None if plain else self.make_log_in(self._access, trail)
        return Session(self.queues, outlet, self.spelling, log_in, trail)

    def joined(self, connection: QueueProtocol) -> None:
        """Called when a client has connected."""
        self.connections.add(connection.framing)
        self.queues.joined()
        self._patience.update()
        if self.debug:
            self._log.debug("{peer} connected", peer=connection.transport.getPeer())

    def left(self, connection: QueueProtocol, reason: Failure) -> None:
        """Called when a client has disconnected."""
        self.connections.discard(connection.framing)
        self.queues.left()
        self._patience.update()
        if self.debug:
            peer = connection.transport.getPeer()
            self._log.debug("{peer} disconnected: {why}", peer=peer, why=reason.getErrorMessage())
        if self._gone is not None and not self.connections:
            gone, self._gone = self._gone, None
            gone.callback(None)

    def refused(self, connection: QueueProtocol, request: requests.Refused) -> None:
        """Log a request that is refused."""
        if request.warning:
            self._limited.emit(LogLevel.warn, request.warning + ", from {peer}", peer=connection.transport.getPeer())
        elif request.noreply:
            self._limited.emit(
                LogLevel.warn, "a request with noreply was refused: {reply!r}", reply=request.reply
            )
        if self.debug:
            peer = connection.transport.getPeer()
            self._log.debug("{peer} was refused: {reply!r}", peer=peer, reply=request.reply)

    def finish(self) -> Deferred[None]:
        """
        Send every client its pending replies, then close its connection.

        @return: fires when all are disconnected.
        """
        self._limited.close()
        self.audit.close()
        if self._access is not None:
            self._access.log.close()
        if not self.connections:
            return succeed(None)
        self._gone = Deferred()
        for connection in list(self.connections):
            connection.session.reads.stop_waiting()
            connection.session.finish()
        return self._gone

    def abort(self) -> None:
        """Close every connection at once."""
        for connection in list(self.connections):
            connection.abort()
