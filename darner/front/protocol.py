"""
The memcache text protocol over any Twisted transport: connections, backpressure, and the factory of both.

How requests are taken out of what a client sends is the framing's business (`darner.front.framing`), what they mean the
session's (`darner.front.session`), and how they are spelled that of `darner.front.memcache`.
"""

from __future__ import annotations

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
from darner.net.limits import ClientTimeouts, Limits
from darner.net.log_limits import LimitedLog
from darner.net.socket_options import SocketOptions
from darner.queues.collection import Queues
from darner.values import requests

TOO_MANY_CONNECTIONS: Final = memcache.server_error(b"too many connections")


class IClientTransport(ITransport, IConsumer, IPushProducer):
    """What a client's connection has to be able to do: as Twisted's stream transports, all of them."""

    def abortConnection() -> None:
        """Close the connection at once, whatever is still to be sent."""


@implementer(IPushProducer)
class _Sending:
    """What a transport tells of its write side, for the session."""

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
    One client's connection, as Twisted sees it: a C{LineReceiver} that is in raw mode while a payload comes.

    @ivar framing: what takes requests out of what is received.
    """

    delimiter = b"\n"
    MAX_LENGTH = MAX_LINE
    factory: QueueFactory
    transport: IClientTransport

    def connectionMade(self) -> None:
        self.framing = self.factory.make_framing(self)
        self.framing.session = self.factory.make_session(self.framing, self.transport.getPeer())
        # First: every bound on what is held for a client rests on it.
        self.transport.registerProducer(_Sending(self.session), True)
        self.factory.joined(self)
        self.factory.socket_options.apply(self.transport)

    @property
    def session(self) -> Session:
        """The client's state."""
        return self.framing.session

    def dataReceived(self, data: bytes) -> None:
        self.framing.received(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.framing.lost()
        self.factory.left(self, reason)

    def readConnectionLost(self) -> None:
        self.framing.half_close()

    def writeConnectionLost(self) -> None:
        """The client will read nothing more."""
        self.framing.abort()

    # What the framing tells

    def refused(self, request: requests.Refused) -> None:
        self.factory.refused(self, request)

    def ended(self) -> None:
        self.transport.unregisterProducer()


class _Refusal(Protocol):
    """Tells a client that there is no room for it."""

    transport: ITransport

    def __init__(self, reason: bytes) -> None:
        self._reason = reason

    def connectionMade(self) -> None:
        self.transport.write(self._reason)
        self.transport.loseConnection()


class QueueFactory(ServerFactory):
    """
    Connections to one set of queues.

    @ivar queues: the queues they serve.
    @ivar commit: the queues' group commit, for the port.
    @ivar clock: the queues' clock.
    @ivar lines: the requests that clients repeat.
    @ivar connections: the clients that are there.
    @ivar audit: where to log who does what.
    """

    noisy = False
    refusal = TOO_MANY_CONNECTIONS
    """What a client is told that there is no room for."""

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
        @param spelling: how replies are spelled: a protocol, or a dialect of it.
        @param debug: whether to log connections and refused requests.
        @param limits: what is asked of clients.
        @param access: who may do what; C{None}: everybody may do everything.
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
        self.lines = LineCache(spelling.relative_expiry)
        self.connections: set[Framing] = set()
        self._patience = ClientTimeouts(limits, queues.clock, self.connections, queues.stats)

    def buildProtocol(self, addr: Optional[IAddress]) -> Protocol:
        if self.full():
            return _Refusal(self.refusal)
        protocol = QueueProtocol()
        protocol.factory = self
        return protocol

    def make_framing(self, carrier: Carrier) -> Framing:
        """@return: what takes requests out of what a client sends."""
        return Framing(carrier, self.queues, self.lines)

    def full(self) -> bool:
        """@return: whether one client more would be one too many; it has to be told so, and counts as rejected."""
        most = self.limits.max_connections
        if not most or self.queues.stats.curr_connections < most:
            return False
        self.rejected()
        return True

    def rejected(self) -> None:
        """A client is told that there is no room for it."""
        self.queues.stats.rejected_connections += 1
        self._limited.emit(LogLevel.warn, "too many connections: max_connections or the limit of open files is reached")

    def make_session(self, outlet: Outlet, address: Optional[IAddress] = None) -> Session:
        """
        @param address: the client's.
        @return: a new client's state.
        """
        trail = AuditTrail(self.audit, address)
        log_in = None if self._access is None else LogIn(self._access, trail)
        return Session(self.queues, outlet, self.spelling, log_in, trail)

    def joined(self, connection: QueueProtocol) -> None:
        """A client has connected."""
        self.connections.add(connection.framing)
        self.queues.joined()
        self._patience.update()
        if self.debug:
            self._log.debug("{peer} connected", peer=connection.transport.getPeer())

    def left(self, connection: QueueProtocol, reason: Failure) -> None:
        """A client has gone."""
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
        """A client has sent what is not served."""
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
        Send every client the replies it has coming, and end its connection.

        @return: fires when all are gone.
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
        """End every connection at once."""
        for connection in list(self.connections):
            connection.abort()
