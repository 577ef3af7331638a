"""
Taking requests out of what a client sends, and handing them to its session as long as that takes them.

Lines and payloads are taken from one buffer by position: the loop of Twisted's C{LineReceiver} copies all that is
buffered for every line.  A payload that is here as a whole, as it nearly always is, is cut out at once; any other puts
the connection into raw mode, in which the pieces go to the session as they come.

What a request means is the session's business (`darner.front.session`), how it is spelled that of
`darner.front.memcache`, and what Twisted asks of a protocol that of `darner.front.protocol`.
"""

from __future__ import annotations

from typing import Any, Final, Optional, Protocol

from darner.front import memcache
from darner.front.memcache_requests import BINARY, BINARY_STARTS, MAX_LINE, LineCache
from darner.front.session import Session
from darner.queues.collection import Queues
from darner.queues.streams import PayloadWriter
from darner.values import requests
from darner.values.vocabulary import CHUNK_BYTES


class Carrier(Protocol):
    """The connection by which a client is reached."""

    transport: Any
    """To write to: one of Twisted's stream transports, with C{abortConnection}."""

    def refused(self, request: requests.Refused) -> None:
        """The client has sent what is not served."""

    def setRawMode(self) -> None:
        """A payload comes, of which not all is here."""

    def setLineMode(self) -> None:
        """Lines come."""

    def ended(self) -> None:
        """Nothing more is to be said to the client."""


class Framing:
    """
    The requests of one client; for its session, the outlet by which it is answered.

    @ivar session: what they are handed to.
    @ivar active: set whenever anything is received or sent.
    @ivar quiet_since: see L{darner.net.limits.Quiet}.
    @ivar connected_at: the same.
    @ivar number: no other connection of this process has it.
    """

    max_line: Final = MAX_LINE

    session: Session

    def __init__(self, carrier: Carrier, queues: Queues, lines: LineCache) -> None:
        """@param lines: the requests that clients repeat."""
        self._carrier = carrier
        self._queues = queues
        self._stats = queues.stats
        self._lines = lines
        self._data = b""
        self._at = 0
        self._working = False
        self._held_back = False
        self._not_reading = False
        self._request: Optional[requests.Set] = None
        self._inflow: Optional[PayloadWriter] = None
        self._missing = 0
        self._refusal = b""
        self._half_closed = False
        self._closed = False
        self._ending = False  # whether it was told to end, which over TLS takes until the client agrees
        self._raw = False  # whether a payload is being taken, and not lines
        self.active = True
        self.quiet_since: Optional[float] = None
        self.connected_at: float = queues.clock.seconds()
        self.number: int = queues.stats.total_connections + 1

    # What the connection tells

    def received(self, data: bytes) -> None:
        """The client has sent something."""
        self.active = True
        self._stats.bytes_read += len(data)
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0
        if not self._working:
            self._work()

    def half_close(self) -> None:
        """The client will send nothing more: answer what it sent, wait for nothing, and end."""
        self._half_closed = True
        self.session.reads.hurry()
        self._work()

    def lost(self) -> None:
        """The connection has ended."""
        self._closed = True
        self._data = b""
        self._drop_payload()
        self.session.leave()

    # Framing

    def _work(self) -> None:
        """Take requests from the buffer as long as the session takes them."""
        self._working = True
        self._held_back = False
        try:
            session = self.session
            while not session.busy and (self._take_raw() if self._raw else self._take_line()):
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
            self.session.reads.give_back()
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
                self._carrier.transport.pauseProducing()
            else:
                self._carrier.transport.resumeProducing()

    def _take_line(self) -> bool:
        """@return: whether there was a whole line."""
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

    def _is_too_long(self, line: bytes) -> bool:
        """@param line: what there is of a line, longer than usual; only the keys of a get may come to so much."""
        longest = self.max_line
        if line[:4].lower() in (b"get ", b"gets"):
            longest = max(longest, self._queues.client_bytes - 2)
        # The carriage return is not of the line, and may come before the line feed does.
        return len(line.removesuffix(b"\r")) > longest

    def _line_too_long(self) -> None:
        """No command is that long; where the next one starts, nobody knows."""
        self._lose_step(memcache.LINE_TOO_LONG)

    def _take(self, line: bytes) -> None:
        request = self._lines.parse(line)
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
            # The whole of a small payload is here, as it nearly always is.
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
        """@return: whether any of a payload could be taken."""
        if self._at == len(self._data):
            return False
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

    def _lose_step(self, reply: bytes, warning: str = "") -> None:
        """Where the next command starts, nobody knows."""
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
        """Whether the client owes something: the rest of a request, the reading of its replies, log-in or leave."""
        session = self.session
        if self._ending:
            return True
        if session.busy or self._held_back:
            return session.choked
        return session.anonymous or self._raw or self._at < len(self._data)

    @property
    def anonymous(self) -> bool:
        """Whether the client still has to say who it is."""
        return self.session.anonymous

    @property
    def idle(self) -> bool:
        """Whether the client has asked for nothing that it has not got."""
        return not (self.session.busy or self._held_back or self._ending)

    # The session's outlet

    def write(self, data: bytes) -> None:
        self.active = True
        self._stats.bytes_written += len(data)
        self._carrier.transport.write(data)

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
