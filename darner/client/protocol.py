"""
The client's side of the protocol, without I/O: bytes in, events out.

A L{Connection} is told of each request that is sent, in order, and is fed what is received, cut anyhow.  It gives back
events: for each request one L{Reply} or L{Refusal}, and before that, for requests that ask for it, what comes piece by
piece.  What is not complete is kept: an item in pieces, so that a large one is copied once; with a sink not at all.

`darner.client.requests` makes the requests.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final, Optional, Union

from darner.client.errors import ProtocolError, TooManyConnections, error_of
from darner.client.requests import Kind, Request
from darner.errors import DarnerError

MAX_LINE: Final = 64 * 1024
"""Bytes of a line of a reply that are more than any server sends."""

_VALUE: Final = re.compile(rb"VALUE (\S{1,2048}) (\d{1,10}) (\d{1,18})\r\n")
_BLOCK: Final = re.compile(rb"queue '(.*)' \{")
_ERRORS: Final = (b"ERROR", b"CLIENT_ERROR", b"SERVER_ERROR", b"NOT_STORED")


@dataclass(frozen=True)
class Item:
    """
    An item as it was read.

    @ivar payload: its bytes; empty where they went to a sink.
    @ivar queue: the name that the server gave with it.
    """

    payload: bytes
    flags: int = 0
    queue: str = ""


class Reply:
    """
    A request is answered.

    @ivar result: as its L{Kind} says.
    """

    __slots__ = ("request", "result")

    def __init__(self, request: Request, result: Any) -> None:
        self.request = request
        self.result = result

    def __repr__(self) -> str:
        return f"Reply({self.request!r}, {self.result!r})"


class Refusal:
    """A request is answered by an error."""

    __slots__ = ("error", "request")

    def __init__(self, request: Request, error: DarnerError) -> None:
        self.request = request
        self.error = error

    def __repr__(self) -> str:
        return f"Refusal({self.request!r}, {self.error!r})"


@dataclass(frozen=True)
class Delivery:
    """An item of a C{monitor} has come, and is open."""

    request: Request
    item: Item


@dataclass(frozen=True)
class Piece:
    """A part of a payload, for a request with a sink."""

    request: Request
    data: bytes


@dataclass(frozen=True)
class Farewell:
    """The server says, without being asked, why it closes the connection."""

    error: DarnerError


Event = Union[Reply, Refusal, Delivery, Piece, Farewell]


class Connection:
    """The state of one connection."""

    def __init__(self) -> None:
        self._data = b""
        self._requests: deque[Request] = deque()
        # Of the request that is being answered:
        self._items: list[Item] = []
        self._lines: list[bytes] = []
        self._error: Optional[DarnerError] = None
        # Of the item that is being received, with its CR LF:
        self._pieces: list[bytes] = []
        self._missing = 0
        self._queue = b""
        self._flags = 0

    @property
    def outstanding(self) -> int:
        """How many requests are not answered yet."""
        return len(self._requests)

    @property
    def requests(self) -> Collection[Request]:
        """Those that are not answered yet, in order."""
        return self._requests

    @property
    def missing(self) -> int:
        """How many bytes of a payload are known to come."""
        return self._missing

    def send(self, request: Request) -> bytes:
        """
        Note that a request is sent.

        @return: its bytes.
        """
        if request.kind is not None:
            self._requests.append(request)
        return request.data

    def receive(self, data: bytes) -> list[Event]:
        """
        @param data: what was received; not empty.
        @return: what is complete by that, in order.
        @raise ProtocolError: the bytes are no replies to what was sent.  Nothing that comes behind means anything.
        """
        events: list[Event] = []
        requests = self._requests
        if self._data:
            data = self._data + data
            self._data = b""
        at, size = 0, len(data)
        while at < size:
            if self._missing:
                at = self._take_payload(data, at, events)
                continue
            if not requests:
                at = self._take_farewell(data, at, events)
                if at < 0:
                    break
                continue
            kind = requests[0].kind
            if kind == Kind.STORED and data.startswith(b"STORED\r\n", at):
                events.append(Reply(requests.popleft(), True))
                at += 8
                continue
            if data.startswith(b"VALUE ", at) and kind in _WITH_ITEMS:
                found = _VALUE.match(data, at)
                if found is None:
                    if data.find(b"\n", at) >= 0 or size - at > MAX_LINE:
                        raise ProtocolError(f"not a reply: {data[at : at + 200]!r}")
                    self._data = data[at:]
                    break
                self._queue, self._flags = found[1], int(found[2])
                length = int(found[3])
                at = found.end()
                end = at + length
                if size >= end + 2 and requests[0].sink is None:
                    if data[end : end + 2] != b"\r\n":
                        raise ProtocolError("no CR LF after a payload")
                    self._give_item(data[at:end], events)
                    at = end + 2
                else:
                    self._missing = length + 2
                continue
            end = data.find(b"\n", at)
            if end < 0:
                if size - at > MAX_LINE:
                    raise ProtocolError("a line of a reply is too long")
                self._data = data[at:]
                break
            self._take_line(data[at:end].removesuffix(b"\r"), events)
            at = end + 1
        return events

    def end(self) -> list[Event]:
        """
        The connection has ended.

        @return: the replies to requests that are answered by that.  All others that are outstanding are in doubt.
        """
        requests, self._requests = self._requests, deque()
        return [Reply(request, None) for request in requests if request.kind == Kind.LAST]

    def _take_farewell(self, data: bytes, at: int, events: list[Event]) -> int:
        """@return: where the next line begins, or -1 where this one is not whole."""
        end = data.find(b"\n", at)
        if end < 0:
            if not b"SERVER_ERROR ".startswith(data[at : at + 13]) or len(data) - at > MAX_LINE:
                raise ProtocolError(f"a reply to nothing: {data[at : at + 200]!r}")
            self._data = data[at:]
            return -1
        line = data[at:end].removesuffix(b"\r")
        error = error_of(line)
        if not isinstance(error, TooManyConnections) and not line.startswith(b"SERVER_ERROR "):
            raise ProtocolError(f"a reply to nothing: {line[:200]!r}")
        events.append(Farewell(error))
        return end + 1

    def _take_payload(self, data: bytes, at: int, events: list[Event]) -> int:
        """@return: how far the payload, or what is there of it, goes."""
        request = self._requests[0]
        end = min(len(data), at + self._missing)
        piece = data[at:end] if at or end < len(data) else data
        self._missing -= len(piece)
        # Of the two bytes behind the payload, some may be in this piece.
        ends = max(0, min(len(piece), 2 - self._missing))
        tail = piece[len(piece) - ends :]
        if tail != b"\r\n"[2 - self._missing - ends : 2 - self._missing]:
            raise ProtocolError("no CR LF after a payload")
        body = piece[: len(piece) - ends] if ends else piece
        if body:
            if request.sink is not None:
                events.append(Piece(request, body))
            else:
                self._pieces.append(body)
        if not self._missing:
            pieces, self._pieces = self._pieces, []
            self._give_item(b"".join(pieces), events)
        return end

    def _give_item(self, payload: bytes, events: list[Event]) -> None:
        request = self._requests[0]
        item = Item(payload, self._flags, self._queue.partition(b"/")[0].decode("ascii", "replace"))
        if request.kind == Kind.MONITOR:
            events.append(Delivery(request, item))
            return
        if self._items and request.kind == Kind.ITEM:
            raise ProtocolError("two items for one")
        self._items.append(item)

    def _take_line(self, line: bytes, events: list[Event]) -> None:
        request = self._requests[0]
        kind = request.kind
        if kind == Kind.MONITOR:
            self._take_line_of_monitor(line, request, events)
            return
        if kind == Kind.CONFIRMED and line == b"ERROR":
            self._answer(False, events)
            return
        if line.startswith(_ERRORS):
            self._items.clear()
            self._lines.clear()
            error = error_of(line)
            if isinstance(error, ProtocolError):
                raise error
            events.append(Refusal(self._requests.popleft(), error))
            return
        if kind in _WITH_LINES and line != b"END":
            self._lines.append(line)
            return
        self._answer(self._result(kind, line), events)

    def _take_line_of_monitor(self, line: bytes, request: Request, events: list[Event]) -> None:
        if line.startswith(b"VERSION "):
            error, self._error = self._error, None
            self._requests.popleft()
            events.append(Reply(request, None) if error is None else Refusal(request, error))
        elif line.startswith(_ERRORS):
            self._error = error_of(line)
        elif line != b"END":
            raise ProtocolError(f"not a reply to monitor: {line[:200]!r}")

    def _answer(self, result: Any, events: list[Event]) -> None:
        events.append(Reply(self._requests.popleft(), result))

    def _result(self, kind: Optional[Kind], line: bytes) -> Any:
        """@return: what the last line of a reply makes of it."""
        if line == b"END":
            if kind == Kind.ITEM:
                return self._items.pop() if self._items else None
            if kind == Kind.ITEMS:
                items, self._items = self._items, []
                return items
            if kind in (Kind.END, Kind.CONFIRMED):
                return None if kind == Kind.END else True
            if kind in _WITH_LINES:
                lines, self._lines = self._lines, []
                return _stats(lines) if kind == Kind.STATS else _blocks(lines)
        elif kind == Kind.STORED and line == b"STORED":
            return True
        elif kind == Kind.NUMBER and line.isdigit() and len(line) < 20:
            return int(line)
        elif kind == Kind.YES_OR_NO and line in (b"TOUCHED", b"NOT_FOUND"):
            return line == b"TOUCHED"
        elif kind == Kind.WORDS and not line.startswith((b"VALUE ", b"STORED")):
            return line.decode("utf-8", "replace").removeprefix("VERSION ")
        raise ProtocolError(f"not the reply that was due: {line[:200]!r}")


_WITH_ITEMS: Final = frozenset((Kind.ITEM, Kind.ITEMS, Kind.MONITOR))
_WITH_LINES: Final = frozenset((Kind.STATS, Kind.BLOCKS))


def _stats(lines: list[bytes]) -> dict[str, str]:
    figures = {}
    for line in lines:
        word, _, rest = line.decode("utf-8", "replace").partition(" ")
        name, _, value = rest.partition(" ")
        if word != "STAT" or not name:
            raise ProtocolError(f"not a line of stats: {line[:200]!r}")
        figures[name] = value
    return figures


def _blocks(lines: list[bytes]) -> dict[str, dict[str, str]]:
    blocks: dict[str, dict[str, str]] = {}
    block: Optional[dict[str, str]] = None
    for line in lines:
        if block is None:
            found = _BLOCK.fullmatch(line)
            if found is None:
                raise ProtocolError(f"not the head of a block: {line[:200]!r}")
            block = blocks[found[1].decode("ascii", "replace")] = {}
        elif line == b"}":
            block = None
        else:
            name, _, value = line.decode("utf-8", "replace").strip().partition("=")
            block[name] = value
    if block is not None:
        raise ProtocolError("a block has no end")
    return blocks
