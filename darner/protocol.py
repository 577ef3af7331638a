"""
The memcache text protocol over any Twisted transport: framing, payloads, backpressure.

What a request means is the session's business (`darner.session`), how it is spelled that of `darner.wire`.
"""

from __future__ import annotations

import socket
from typing import Final, Optional

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableProtocol,
    IPushProducer,
    ITCPTransport,
    ITransport,
)
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from darner import wire
from darner.access import Access
from darner.guard import GuardedSession
from darner.limits import Limits, Patience
from darner.outbox import Outlet
from darner.queues import Queues
from darner.records import CHUNK_BYTES
from darner.session import Session
from darner.streams import Inflow

TOO_MANY_CONNECTIONS: Final = wire.server_error(b"too many connections")

_PROBES: Final = (("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
"""How TCP asks for a silent client: every 15 seconds, and four times in vain mean that it is gone."""


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
    One client's connection.

    Lines and payloads are taken from one buffer by position: C{LineReceiver}'s own loop copies all that is buffered for
    every line.
    """

    delimiter = b"\n"
    MAX_LENGTH = wire.MAX_LINE
    factory: QueueFactory
    transport: IClientTransport

    def __init__(self) -> None:
        self._data = b""
        self._at = 0
        self._working = False
        self._held_back = False
        self._not_reading = False
        self._request: Optional[wire.Set] = None
        self._inflow: Optional[Inflow] = None
        self._missing = 0
        self._refusal = b""
        self._half_closed = False
        self._closed = False
        self.active = True
        self.quiet_since: Optional[float] = None

    def connectionMade(self) -> None:
        self.session = self.factory.make_session(self)
        self._queues = self.factory.queues
        self._stats = self.factory.queues.stats
        self._parse = self.factory.lines.parse
        self.factory.joined(self)
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
            self._keep_alive(self.transport, self.factory.limits.keep_alive)
        self.transport.registerProducer(_Sending(self.session), True)

    @staticmethod
    def _keep_alive(transport: ITCPTransport, silence: float) -> None:
        """Have TCP find out when the client's machine is gone."""
        # A unix socket calls itself TCP as well.
        if not silence or not isinstance(transport.getPeer(), (IPv4Address, IPv6Address)):
            return
        transport.setTcpKeepAlive(True)
        handle = getattr(transport, "getHandle", lambda: None)()
        for name, number in (("TCP_KEEPIDLE", max(1, round(silence))), *_PROBES):
            if handle is not None and hasattr(socket, name):
                handle.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), number)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._closed = True
        self._data = b""
        self._drop_payload()
        self.session.end()
        self.factory.left(self, reason)

    def readConnectionLost(self) -> None:
        """The client will send nothing more: answer what it sent, wait for nothing, and end."""
        self._half_closed = True
        self.session.hurry()
        self._work()

    def writeConnectionLost(self) -> None:
        """The client will read nothing more."""
        self.abort()

    # Framing

    def dataReceived(self, data: bytes) -> None:
        self.active = True
        self._stats.bytes_read += len(data)
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0
        if not self._working:
            self._work()

    def _work(self) -> None:
        """Take requests from the buffer as long as the session takes them."""
        self._working = True
        self._held_back = False
        try:
            session = self.session
            while not session.busy and (self._take_line() if self.line_mode else self._take_raw()):
                pass
        finally:
            self._working = False
        if self._closed:
            return
        if self._at:
            self._data = self._data[self._at :]
            self._at = 0
        if self._data or self._not_reading:
            self._watch_held()
        if self._held_back:
            self.session.resume_when_relieved()
        elif self._half_closed and not self.session.busy:
            # Not when the replies are written, which may take an fsync: whoever comes next finds what this client had.
            self.session.give_back()
            self.session.finish()

    def _watch_held(self) -> None:
        """
        Read from the client as long as not too much of what it sent ahead is held.

        Of a large payload that is held back the client may as well keep the rest.  While it is not read from, its going
        away cannot be seen.
        """
        if self._not_reading != (len(self._data) > (0 if self._held_back else self._queues.client_bytes)):
            self._not_reading = not self._not_reading
            if self._not_reading:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()

    def _take_line(self) -> bool:
        """@return: whether there was a whole line."""
        data, at = self._data, self._at
        end = data.find(b"\n", at)
        stop = end if end >= 0 else len(data)
        # The carriage return is not of the line, and may come before the line feed does.
        if stop - at > self.MAX_LENGTH and (stop - at > self.MAX_LENGTH + 1 or data[stop - 1 : stop] != b"\r"):
            self.lineLengthExceeded(b"")
            return False
        if end < 0:
            return False
        self._at = end + 1
        self.lineReceived(data[at:end])
        return True

    def lineLengthExceeded(self, line: bytes) -> None:
        """No command is that long; where the next one starts, nobody knows."""
        self._lose_step(wire.LINE_TOO_LONG)

    def lineReceived(self, line: bytes) -> None:
        request = self._parse(line)
        if isinstance(request, wire.Set):
            self._expect(request)
        elif isinstance(request, wire.Refused):
            self._refuse(request)
        else:
            self.session.perform(request)

    def _refuse(self, request: wire.Refused) -> None:
        self.factory.refused(self, request)
        if request.payload is None:
            self.session.perform(request)
        else:
            self._refusal = request.reply
            self._missing = request.payload
            self.setRawMode()

    # Payloads

    def _expect(self, request: wire.Set) -> None:
        end = self._at + request.size
        data = self._data
        if len(data) >= end + 2 and request.size <= CHUNK_BYTES:
            # The whole of a small payload is here, as it nearly always is.
            payload = data[self._at : end]
            self._at = end + 2
            if data.startswith(b"\r\n", end):
                self.session.put(request, payload)
            else:
                self._lose_step(wire.BAD_DATA_CHUNK)
            return
        self._request = request
        self._missing = request.size
        self._inflow = self.session.inflow() if self.session.takes(request) else None
        self.setRawMode()

    def _take_raw(self) -> bool:
        """@return: whether any of a payload could be taken."""
        if self._at == len(self._data):
            return False
        if self._inflow is not None and self._inflow.stream and self.session.congested:
            self._held_back = True
            return False
        if self._missing:
            piece = self._data[self._at : self._at + self._missing]
            self._at += len(piece)
            self.rawDataReceived(piece)
            return True
        if len(self._data) - self._at < 2:
            return False
        good = self._data[self._at : self._at + 2] == b"\r\n"
        self._at += 2
        self.setLineMode()
        if good:
            self._payload_complete()
        else:
            self._drop_payload()
            self._lose_step(wire.BAD_DATA_CHUNK)
        return True

    def rawDataReceived(self, data: bytes) -> None:
        """A piece of a payload, and nothing beyond it."""
        self._missing -= len(data)
        if self._inflow is not None:
            self.session.receive(self._inflow, data)

    def _payload_complete(self) -> None:
        request, self._request = self._request, None
        inflow, self._inflow = self._inflow, None
        if request is None:
            if self._refusal:
                self.session.reply(self._refusal)
        elif inflow is None:
            self.session.refuse(request)
        else:
            self.session.put_flow(request, inflow)

    def _drop_payload(self) -> None:
        inflow, self._inflow = self._inflow, None
        if inflow is not None:
            inflow.abandon()

    def _lose_step(self, reply: bytes) -> None:
        """Where the next command starts, nobody knows."""
        self._data = b""
        self._at = 0
        self._refuse(wire.Refused(reply, close=True))

    # Silence

    @property
    def stalled(self) -> bool:
        """Whether the client owes something: the rest of a request, the reading of its replies, its log-in."""
        session = self.session
        if session.busy or self._held_back:
            return session.choked
        return session.anonymous or not self.line_mode or self._at < len(self._data)

    @property
    def idle(self) -> bool:
        """Whether the client has asked for nothing that it has not got."""
        return not (self.session.busy or self._held_back)

    # The session's outlet

    def write(self, data: bytes) -> None:
        self.active = True
        self._stats.bytes_written += len(data)
        self.transport.write(data)

    def proceed(self) -> None:
        if not self._working and not self._closed and (self._at < len(self._data) or self._half_closed):
            self._work()

    def close(self) -> None:
        if not self._closed:
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def abort(self) -> None:
        if not self._closed:
            self.transport.unregisterProducer()
            self.transport.abortConnection()


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
    @ivar lines: the requests that clients repeat.
    @ivar connections: those that are open.
    """

    noisy = False
    refusal = TOO_MANY_CONNECTIONS
    """What a client is told that there is no room for."""

    _log = Logger()

    def __init__(
        self,
        queues: Queues,
        whole_key: bool = False,
        debug: bool = False,
        limits: Limits = Limits(),  # noqa: B008  (it is frozen)
        access: Optional[Access] = None,
    ) -> None:
        """
        @param whole_key: whether C{VALUE} names the key as it was sent, options and all, and not the bare queue.
        @param debug: whether to log connections and refused requests.
        @param limits: what is asked of clients.
        @param access: who may do what; C{None}: everybody may do everything.
        """
        self.queues = queues
        self.whole_key = whole_key
        self.debug = debug
        self.limits = limits
        self._access = access
        self._gone: Optional[Deferred[None]] = None
        self._refusing = False
        self.lines = wire.LineCache()
        self.connections: set[QueueProtocol] = set()
        self._patience = Patience(limits, queues.clock, self.connections, queues.stats)

    def buildProtocol(self, addr: Optional[IAddress]) -> Protocol:
        if self.full():
            return _Refusal(self.refusal)
        protocol = self.make_protocol()
        protocol.factory = self
        return protocol

    def make_protocol(self) -> QueueProtocol:
        """@return: a connection's protocol."""
        return QueueProtocol()

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
        if not self._refusing:
            self._refusing = True
            self._log.warn("too many connections: refusing new ones")

    def make_session(self, outlet: Outlet) -> Session:
        if self._access is None:
            return Session(self.queues, outlet, self.whole_key)
        return GuardedSession(self.queues, outlet, self.whole_key, self._access)

    def joined(self, connection: QueueProtocol) -> None:
        """A client has connected."""
        self._refusing = False
        self.connections.add(connection)
        self.queues.joined()
        self._patience.update()
        if self.debug:
            self._log.debug("{peer} connected", peer=connection.transport.getPeer())

    def left(self, connection: QueueProtocol, reason: Failure) -> None:
        """A client has gone."""
        self.connections.discard(connection)
        self.queues.left()
        self._patience.update()
        if self.debug:
            peer = connection.transport.getPeer()
            self._log.debug("{peer} disconnected: {why}", peer=peer, why=reason.getErrorMessage())
        if self._gone is not None and not self.connections:
            gone, self._gone = self._gone, None
            gone.callback(None)

    def refused(self, connection: QueueProtocol, request: wire.Refused) -> None:
        """A client has sent what is not served."""
        if self.debug:
            peer = connection.transport.getPeer()
            self._log.debug("{peer} was refused: {reply!r}", peer=peer, reply=request.reply)

    def finish(self) -> Deferred[None]:
        """
        Send every client the replies it has coming, and end its connection.

        @return: fires when all are gone.
        """
        if not self.connections:
            return succeed(None)
        self._gone = Deferred()
        for connection in list(self.connections):
            connection.session.stop_waiting()
            connection.session.finish()
        return self._gone

    def abort(self) -> None:
        """End every connection at once."""
        for connection in list(self.connections):
            connection.abort()
