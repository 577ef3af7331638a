"""
The memcache text protocol over any Twisted transport: framing, payloads, backpressure.

What a request means is the session's business (`darner.session`), how it is spelled that of `darner.wire`.
"""

from __future__ import annotations

from typing import Final, Optional

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IPushProducer,
    ITCPTransport,
    ITransport,
)
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from darner import wire
from darner.queues import Queues
from darner.records import CHUNK_BYTES
from darner.session import Session
from darner.streams import Inflow

HELD_BYTES: Final = 256 * 1024
"""
How much of what a client sends ahead is held while its requests have to wait.

Beyond that it is not read from, and until it is its going away cannot be seen.
"""


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
    transport: ITransport

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

    def connectionMade(self) -> None:
        self.session = Session(self.factory.queues, self, self.factory.whole_key)
        self._stats = self.factory.queues.stats
        self._parse = self.factory.lines.parse
        self.factory.joined(self)
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(_Sending(self.session), True)  # type: ignore[attr-defined]

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
        if self._not_reading != (len(self._data) > HELD_BYTES):
            self._not_reading = not self._not_reading
            if self._not_reading:
                self.transport.pauseProducing()  # type: ignore[attr-defined]
            else:
                self.transport.resumeProducing()  # type: ignore[attr-defined]
        if self._held_back:
            self.session.resume_when_relieved()
        elif self._half_closed and not self.session.busy:
            # Not when the replies are written, which may take an fsync: whoever comes next finds what this client had.
            self.session.give_back()
            self.session.finish()

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
        self._inflow = self.session.inflow() if self.session.fits(request) else None
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
            self.session.refuse_size(request)
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

    # The session's outlet

    def write(self, data: bytes) -> None:
        self._stats.bytes_written += len(data)
        self.transport.write(data)

    def proceed(self) -> None:
        if not self._working and not self._closed and (self._at < len(self._data) or self._half_closed):
            self._work()

    def close(self) -> None:
        if not self._closed:
            self.transport.unregisterProducer()  # type: ignore[attr-defined]
            self.transport.loseConnection()

    def abort(self) -> None:
        if not self._closed:
            self.transport.unregisterProducer()  # type: ignore[attr-defined]
            self.transport.abortConnection()  # type: ignore[attr-defined]


class QueueFactory(ServerFactory):
    """
    Connections to one set of queues.

    @ivar queues: the queues they serve.
    @ivar lines: the requests that clients repeat.
    @ivar connections: those that are open.
    """

    noisy = False

    _log = Logger()

    def __init__(self, queues: Queues, whole_key: bool = False, debug: bool = False) -> None:
        """
        @param whole_key: whether C{VALUE} names the key as it was sent, options and all, and not the bare queue.
        @param debug: whether to log connections and refused requests.
        """
        self.queues = queues
        self.whole_key = whole_key
        self.debug = debug
        self._gone: Optional[Deferred[None]] = None
        self.lines = wire.LineCache()
        self.connections: set[QueueProtocol] = set()

    def buildProtocol(self, addr: Optional[IAddress]) -> QueueProtocol:  # type: ignore[override]
        protocol = QueueProtocol()
        protocol.factory = self
        return protocol

    def joined(self, connection: QueueProtocol) -> None:
        """A client has connected."""
        self.connections.add(connection)
        self.queues.stats.curr_connections += 1
        self.queues.stats.total_connections += 1
        if self.debug:
            self._log.debug("{peer} connected", peer=connection.transport.getPeer())

    def left(self, connection: QueueProtocol, reason: Failure) -> None:
        """A client has gone."""
        self.connections.discard(connection)
        self.queues.stats.curr_connections -= 1
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
