"""
Takes requests out of the bytes that a client sends, and passes them to its session as long as that accepts them.

Lines and payloads are taken from one buffer by position: the loop of Twisted's C{LineReceiver} copies the whole buffer
for every line.  A payload that has been received whole, as nearly all are, is cut out at once; any other puts the
connection into raw mode, in which the pieces go to the session as they arrive.

The session (`darner.front.session`) performs requests, `darner.front.memcache_requests` parses their lines, and
`darner.front.protocol` implements Twisted's interfaces.
"""

from __future__ import annotations

from typing import Any, Final, Optional, Protocol

from darner.front import memcache
from darner.front.memcache_requests import BINARY, BINARY_STARTS, MAX_LINE, NO_LINE, Line, LineCache
from darner.front.outbox import Outlet
from darner.front.session import Session
from darner.net.connection import Receiver, Sender
from darner.queues.collection import Queues
from darner.queues.streams import PayloadWriter
from darner.values import requests
from darner.values.vocabulary import CHUNK_BYTES

_LINE_FEED: Final = 10


class Carrier(Protocol):
    """The connection to a client."""

    transport: Any
    """One of Twisted's stream transports, with C{abortConnection}."""

    def refused(self, request: requests.Refused) -> None:
        """Called when a request of the client is refused."""

    def setRawMode(self) -> None:
        """Called when a payload begins that has not been received whole."""

    def setLineMode(self) -> None:
        """Called when such a payload is complete."""

    def ended(self) -> None:
        """Called before the connection is closed: nothing more will be written."""


class Framing(Outlet, Receiver):
    """
    Takes the requests of one client out of its bytes, and is the outlet for the replies of its session.

    @ivar session: the client's session.
    @ivar active: set whenever bytes are received or sent.
    @ivar quiet_since: see L{darner.net.limits.Quiet}.
    @ivar connected_at: the same.
    @ivar number: no other connection of this process has it.
    """

    max_line: Final = MAX_LINE

    session: Session

    def __init__(self, carrier: Carrier, queues: Queues, lines: LineCache) -> None:
        """@param lines: cache of parsed request lines."""
        self._carrier = carrier
        self._queues = queues
        self._stats = queues.stats
        self._lines = lines
        self._sender: Sender = carrier.transport
        self._data = b""
        self._at = 0
        self._last = self._last_but_one = NO_LINE  # of those in the cache
        self._working = False
        self._held_back = False
        self._not_reading = False
        self._request: Optional[requests.Set] = None
        self._inflow: Optional[PayloadWriter] = None
        self._missing = 0
        self._refusal = b""
        self._half_closed = False
        self._closed = False
        self._ending = False  # whether it is being closed, which over TLS takes until the client agrees
        self._raw = False  # whether it is receiving a payload, not lines
        self.active = True
        self.quiet_since: Optional[float] = None
        self.connected_at: float = queues.clock.seconds()
        self.number: int = queues.stats.total_connections + 1

    # Calls from the connection

    def received(self, data: bytes) -> None:
        """Called with bytes that the client has sent."""
        self.active = True
        self._stats.bytes_read += len(data)
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0
        if not self._working:
            self._work()

    def half_close(self) -> None:
        """The client will send nothing more: reply to what it sent, without waiting for items, and disconnect."""
        self._half_closed = True
        self.session.reads.hurry()
        self._work()

    def lost(self) -> None:
        """Called when the connection is closed."""
        self._closed = True
        self._data = b""
        self._drop_payload()
        self.session.leave()

    # Framing

    def _work(self) -> None:
        """Take requests from the buffer as long as the session accepts them."""
        self._working = True
        self._held_back = False
        try:
            session = self.session
            while self._at < len(self._data) and not session.busy:
                if not (self._take_raw() if self._raw else self._take_line()):
                    break
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
            # Now and not when the replies are written, which may take an fsync: other clients get these items sooner.
            self.session.reads.give_back()
            self.session.finish()

    def _watch_held(self) -> None:
        """
        Stop reading from the client while more than C{client_bytes} of it are buffered, or any bytes of a large payload
        that is held back.  While the server does not read, it does not notice that the client disconnects.
        """
        if self._not_reading != (len(self._data) > (0 if self._held_back else self._queues.client_bytes)):
            self._not_reading = not self._not_reading
            if self._not_reading:
                self._carrier.transport.pauseProducing()
            else:
                self._carrier.transport.resumeProducing()

    def _take_line(self) -> bool:
        """@return: whether there was a whole line."""
        # Most clients repeat one line, or two by turns.  To look where such a line ends costs a tenth of a search.
        if self._take_like(self._last_but_one) or self._take_like(self._last):
            return True
        data, at = self._data, self._at
        end = data.find(b"\n", at)
        stop = end if end >= 0 else len(data)
        if stop - at > self.max_line and self._is_too_long(data[at:stop]):
            self._line_too_long()
            return False
        if end < 0:
            if data[at : at + 1] in BINARY_STARTS:
                self._lose_step(b"", BINARY)
            return False
        self._at = end + 1
        self._take(data[at:end])
        return True

    def _take_like(self, line: Line) -> bool:
        """
        @return: whether the next line has the length of this one and is the same, or in the cache: no line there has a
            line feed in it.
        """
        data, end = self._data, self._at + len(line.text)
        if end >= len(data) or data[end] != _LINE_FEED:
            return False
        text = data[self._at : end]
        if text != line.text:
            known = self._lines.known(text)
            if known is None:
                return False
            line = known
        self._at = end + 1
        self._remember(line)
        self._act(line.request)
        return True

    def _remember(self, line: Line) -> None:
        if line is not self._last:
            self._last_but_one, self._last = self._last, line

    def _is_too_long(self, line: bytes) -> bool:
        """@param line: the received part of a line over the usual limit; only a get with many keys may be longer."""
        longest = self.max_line
        if line[:4].lower() in (b"get ", b"gets"):
            longest = max(longest, self._queues.client_bytes - 2)
        # The carriage return does not count, and may arrive before the line feed.
        return len(line.removesuffix(b"\r")) > longest

    def _line_too_long(self) -> None:
        """Refuse a line that is too long, and close the connection, as the start of the next request is unknown."""
        self._lose_step(memcache.LINE_TOO_LONG)

    def _take(self, text: bytes) -> None:
        line = self._lines.parse(text)
        if len(text) <= self._lines.MAX_LENGTH:
            self._remember(line)
        self._act(line.request)

    def _act(self, request: requests.Request) -> None:
        if isinstance(request, requests.Set):
            self._expect(request)
        elif isinstance(request, requests.Refused):
            self._refuse(request)
        else:
            self.session.perform(request)

    def _refuse(self, request: requests.Refused) -> None:
        self._carrier.refused(request)
        if request.payload is None:
            self.session.perform(request)
        else:
            self._refusal = b"" if request.noreply else request.reply
            self._missing = request.payload
            self._expect_pieces()

    # Payloads

    def _expect(self, request: requests.Set) -> None:
        end = self._at + request.size
        data = self._data
        if len(data) >= end + 2 and request.size <= CHUNK_BYTES:
            # A small payload that has been received whole, as nearly all are.
            payload = data[self._at : end]
            self._at = end + 2
            if data[end : end + 2] == b"\r\n":
                self.session.put(request, payload)
            else:
                self._lose_step(memcache.BAD_DATA_CHUNK)
            return
        self._request = request
        self._missing = request.size
        self._inflow = self.session.inflow() if self.session.takes(request) else None
        self._expect_pieces()

    def _expect_pieces(self) -> None:
        self._raw = True
        self._carrier.setRawMode()

    def _take_raw(self) -> bool:
        """@return: whether any bytes of a payload could be taken."""
        if self._inflow is not None and self._inflow.stream and self.session.congested:
            self._held_back = True
            return False
        if self._missing:
            piece = self._data[self._at : self._at + self._missing]
            self._at += len(piece)
            self._take_piece(piece)
            return True
        if len(self._data) - self._at < 2:
            return False
        good = self._data[self._at : self._at + 2] == b"\r\n"
        self._at += 2
        self._raw = False
        self._carrier.setLineMode()
        if good:
            self._payload_complete()
        else:
            self._drop_payload()
            self._lose_step(memcache.BAD_DATA_CHUNK)
        return True

    def _take_piece(self, data: bytes) -> None:
        """Take a piece of a payload, without bytes beyond its end."""
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

    def _lose_step(self, reply: bytes, warning: str = "") -> None:
        """Close the connection with this reply, as the start of the next request is unknown."""
        self._data = b""
        self._at = 0
        self._refuse(requests.Refused(reply, close=True, warning=warning))

    @property
    def held(self) -> int:
        """How many bytes of what the client sent are held for it."""
        return len(self._data) - self._at

    # Silence

    @property
    def stalled(self) -> bool:
        """Whether the server waits for the client: to end a request, to log in, to read replies or to disconnect."""
        session = self.session
        if self._ending:
            return True
        if session.busy or self._held_back:
            return session.choked
        return session.anonymous or self._raw or self._at < len(self._data)

    @property
    def anonymous(self) -> bool:
        """Whether the client still has to log in."""
        return self.session.anonymous

    @property
    def idle(self) -> bool:
        """Whether no request of the client is pending."""
        return not (self.session.busy or self._held_back or self._ending)

    # The session's outlet

    def write(self, data: bytes) -> None:
        self.active = True
        self._stats.bytes_written += len(data)
        self._sender.write(data)

    def proceed(self) -> None:
        if not self._working and not self._closed and (self._at < len(self._data) or self._half_closed):
            self._work()

    def close(self) -> None:
        if not self._closed:
            self._ending = True
            self._carrier.ended()
            self._carrier.transport.loseConnection()

    def abort(self) -> None:
        if not self._closed:
            self._carrier.ended()
            self._carrier.transport.abortConnection()
