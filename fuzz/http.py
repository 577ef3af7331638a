"""
A browser, or whatever it is, that sends any bytes to the HTTP side.

However they are cut, they are answered the same: by whole answers, each a status with a body of its length, JSON where
it says so, and with the headers of every answer.  Nothing is left of the client when it has gone, nothing fails, and
the clients of the queues are served as if nobody else was there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from twisted.internet.address import IPv4Address
from twisted.internet.testing import StringTransportWithDisconnection

from darner.config.settings import Settings
from darner.web.site import WebFactory, make_root
from fuzz.choices import byte_by_byte, pieces
from fuzz.server import Server

_PEER: Final = IPv4Address("TCP", "127.0.0.1", 1)
_HEAD: Final = re.compile(rb"HTTP/1\.[01] (\d{3}) [A-Za-z -]+\r\n((?:[A-Za-z-]+: [^\r\n]*\r\n)*)\r\n")
_BARE: Final = b"HTTP/1.1 400 Bad Request\r\n\r\n"
"""What twisted.web answers to what is no HTTP."""
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class _Transport(StringTransportWithDisconnection):
    def loseConnection(self) -> None:
        self.disconnecting = True
        super().loseConnection()

    def abortConnection(self) -> None:
        if self.connected:
            self.loseConnection()

    def setTcpNoDelay(self, _: bool) -> None:
        pass


def check(data: bytes) -> None:
    """
    @param data: how to cut, in the first byte; then what the client sends, with C{\\n} for the ends of lines.
    @raise AssertionError: it is answered wrongly, or something is left behind.
    """
    way, sent = data[:1], data[1:].replace(b"\n", b"\r\n")
    answers = _answers(sent, [sent] if sent else [])
    cut = byte_by_byte(sent) if way < b"\x80" else pieces(sent, data)
    assert _answers(sent, cut) == answers


def _answers(sent: bytes, cut: Iterable[bytes]) -> list[tuple[int, bytes]]:
    """@return: status and type of each answer."""
    with Server() as server:
        server.queues.make(b"q").put(0, 0, 1, b"x")
        root = make_root(server.queues, Settings(), None, list, server._wall)
        factory = WebFactory(root)
        channel = factory.buildProtocol(_PEER)
        transport: Any = _Transport(peerAddress=_PEER)
        transport.protocol = channel
        channel.makeConnection(transport)
        for piece in cut:
            if not transport.connected or transport.disconnecting:
                break
            channel.dataReceived(piece)
            server.commit()
        for _ in range(3):
            server.advance(61)
        heard = transport.value()
        transport.abortConnection()
        root.close()
        server.commit()
        assert root.connections == 0
        assert not root.served.waiting
        assert not root.served.events.listening
        fifo = server.queues.find(b"q")
        assert fifo is None or not fifo.open_count
        server.check_faults()
        return list(parse(sent, heard))


def parse(sent: bytes, heard: bytes) -> Iterator[tuple[int, bytes]]:
    """
    @return: status and type of each answer.
    @raise AssertionError: what was heard are not whole answers.
    """
    while heard:
        if heard.startswith(_CONTINUE):
            heard = heard[len(_CONTINUE) :]
            continue
        if heard == _BARE:
            yield 400, b""
            return
        head = _HEAD.match(heard)
        assert head is not None, heard[:200]
        headers = dict(line.split(b": ", 1) for line in head[2].splitlines())
        assert b"default-src 'none'" in headers[b"Content-Security-Policy"], headers
        status, kind = int(head[1]), headers.get(b"Content-Type", b"")
        assert status != 500, heard[:1000]
        body, heard = _body(headers, heard[head.end() :], b"HEAD" in sent)
        if kind.startswith((b"application/json", b"application/problem+json")) and body:
            json.loads(body)
        yield status, kind


def _body(headers: dict[bytes, bytes], rest: bytes, maybe_none: bool) -> tuple[bytes, bytes]:
    """
    @param maybe_none: whether there may be no body whatever its length.
    @return: the body of an answer, and what follows.
    """
    if b"Content-Length" in headers:
        size = int(headers[b"Content-Length"])
        if maybe_none and (not rest or rest.startswith(b"HTTP/1.1 ")):
            return b"", rest
        assert len(rest) >= size, (headers, rest)
        return rest[:size], rest[size:]
    if headers.get(b"Transfer-Encoding") != b"chunked":
        if rest.startswith(b"HTTP/1.1 ") or maybe_none:
            return b"", rest
        return rest, b""  # the end of the connection ends it
    body = b""
    while rest and not (maybe_none and rest.startswith(b"HTTP/1.1 ")):
        size_text, _, rest = rest.partition(b"\r\n")
        size = int(size_text, 16)
        piece, rest = rest[:size], rest[size + 2 :]
        if not size:
            break
        body += piece
    return body, rest
