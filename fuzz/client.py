"""
The client's side of the protocol (`darner.client.protocol`).

Any bytes as replies to any requests yield events or a L{ProtocolError}, and no other error, and these are the same
however the bytes are cut.  The replies of a darner server always yield one final event for each request, and no
L{ProtocolError}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Final

from darner.client import requests
from darner.client.errors import ClientError, ProtocolError
from darner.client.protocol import Connection, Delivery, Event, Farewell, Piece, Refusal, Reply
from darner.client.requests import Request
from fuzz.choices import Choices, byte_by_byte, pieces
from fuzz.server import Server

_NAMES: Final = ("q", "r", "q+s", "x" * 250)
_PAYLOADS: Final = (b"", b"x", b"END\r\n", b"\r\n", b"VALUE q 0 1\r\nx\r\nEND\r\n", b"y" * 70_000, b"z" * 200_000)
_REQUESTS: Final[tuple[Callable[[str, bytes], Request], ...]] = (
    lambda name, payload: requests.put(name, payload),
    lambda name, payload: requests.put(name, payload, flags=7, id="i", delay=0),
    lambda name, payload: requests.put(name, payload, expiry=-1, sync=True),
    lambda name, payload: requests.put(name, payload, noreply=True),
    lambda name, payload: requests.get(name),
    lambda name, payload: requests.get(name, open=True, sink=len),
    lambda name, payload: requests.get(name, open=True, close=True, wait=0.001),
    lambda name, payload: requests.get(name, peek=True),
    lambda name, payload: requests.get_each("q", "r", name),
    lambda name, payload: requests.get_first("q", "r", name, open=True),
    lambda name, payload: requests.close(name),
    lambda name, payload: requests.abort(name),
    lambda name, payload: requests.monitor(name, 0, 3),
    lambda name, payload: requests.confirm(name, 1),
    lambda name, payload: requests.touch(name),
    lambda name, payload: requests.flush(name),
    lambda name, payload: requests.flush_all(),
    lambda name, payload: requests.flush_expired(),
    lambda name, payload: requests.delete(name),
    lambda name, payload: requests.requeue("q", "r", 2),
    lambda name, payload: requests.stats(),
    lambda name, payload: requests.dump_stats(name),
    lambda name, payload: requests.dump_config(),
    lambda name, payload: requests.status(),
    lambda name, payload: requests.set_status("up"),
    lambda name, payload: requests.version(),
    lambda name, payload: requests.shutdown(),
    lambda name, payload: requests.login("a", "b"),
)


def check(data: bytes) -> None:
    """
    @param data: the number of requests, in the first byte; a byte or three for each; then the replies.
    @raise AssertionError: a reply is read differently when cut differently, or a reply of the server is not understood.
    """
    choices = Choices(data)
    asked = [_request(choices) for _ in range(choices.byte() % 8)]
    _check_any(asked, data[1:] if not asked else choices.bytes(len(data)), data)
    if asked:
        _check_served(asked, data)


def _request(choices: Choices) -> Request:
    make = choices.of(_REQUESTS)
    return make(choices.of(_NAMES), choices.of(_PAYLOADS))


def _read(asked: list[Request], cut: Iterable[bytes]) -> tuple[list[Event], str]:
    """@return: the events, and the error at the end, if any."""
    connection = Connection()
    for request in asked:
        connection.send(request)
    events: list[Event] = []
    for piece in cut:
        try:
            events += connection.receive(piece)
        except ProtocolError as error:
            return events, type(error).__name__
    return events, ""


def _told(events: list[Event]) -> list[Any]:
    """@return: the events with the pieces of each payload joined, so that they do not depend on the cuts."""
    told: list[Any] = []
    for event in events:
        if isinstance(event, Piece):
            if told and isinstance(told[-1], bytes):
                told[-1] += event.data
            else:
                told.append(event.data)
        elif isinstance(event, Reply):
            told.append((event.request, event.result))
        elif isinstance(event, Refusal):
            told.append((event.request, type(event.error), str(event.error)))
        elif isinstance(event, Delivery):
            told.append((event.request, event.item))
        elif isinstance(event, Farewell):
            told.append(str(event.error))
    return told


def _check_any(asked: list[Request], replies: bytes, seed: bytes) -> None:
    whole, fault = _read(asked, [replies] if replies else [])
    for cut in (byte_by_byte(replies), pieces(replies, seed)):
        events, wrong = _read(asked, cut)
        # An error hides the events before it in the same piece.
        assert wrong == fault, (wrong, fault)
        if not fault:
            assert _told(events) == _told(whole), (events, whole)


def _check_served(asked: list[Request], seed: bytes) -> None:
    with Server() as server:
        client = server.client()
        sent = b"".join(request.data for request in asked)
        client.send(pieces(sent, seed))
        server.settle(len(asked))
        heard = client.heard
        server.check_idle()
    due = [request for request in asked if request.kind is not None]
    for cut in ([heard] if heard else [], islice(pieces(heard, seed), len(heard))):
        events, fault = _read(due, cut)
        assert not fault, heard
        ends = [event for event in events if isinstance(event, (Reply, Refusal))]
        assert [event.request for event in ends] == due[: len(ends)]
        assert len(ends) == len(due), (len(ends), due)
        for event in ends:
            if isinstance(event, Refusal):
                assert isinstance(event.error, Exception)
                assert not isinstance(event.error, ProtocolError), event
                assert "bad" not in str(event.error) or not isinstance(event.error, ClientError), event
