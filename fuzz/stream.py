"""
A client that sends any bytes.

Nobody knows what they mean, so that less can be said of the answers; but they are the same however the bytes are cut,
they are whole replies and not more than there are lines, they hand out nothing that was not put, other clients are
served as if nobody else was there, and nothing is left of the client when it has gone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256
from itertools import islice
from typing import Final

from fuzz.choices import byte_by_byte, pieces
from fuzz.server import Client, Server

PARTS: Final = 16
"""In how many parts the bytes are sent, at most, where others are served in between."""

_LINE: Final = re.compile(
    rb"STORED|DELETED|TOUCHED|NOT_FOUND|[0-9]+|END|ERROR|OK|Flushed all queues\.|VERSION [0-9a-z.+]+"
    rb"|CLIENT_ERROR [ -~]+"
    rb"|SERVER_ERROR object too large|SERVER_ERROR server is (?:readonly|quiescent)|UP|READONLY|QUIESCENT"
    rb"|STAT [!-~]+ [!-~]+|queue '[!-~]+' \{|  [a-z_]+=[!-~]+|\}"
)
_PART: Final = re.compile(rb"STAT |queue '|  |\}|VALUE ")
"""What a line of a reply begins with that is not its last."""
_VALUE: Final = re.compile(rb"VALUE ([!-.0-~]{1,250}) (\d{1,10}) (\d+)\r\n")
_MOVING: Final = re.compile(rb"(bytes_read|bytes_written) \d+")
"""Figures that tell how the bytes were cut."""


def check(data: bytes) -> None:
    """
    @param data: how to cut, in the first byte; then what the client sends.
    @raise AssertionError: it is answered wrongly, another client is, or something is left behind.
    """
    way, sent = data[:1], data[1:]
    answers = _alone(sent, [sent] if sent else [])
    check_replies(sent, answers)
    cut = byte_by_byte(sent) if way < b"\x80" else pieces(sent, data)
    assert _MOVING.sub(b"", _alone(sent, cut)) == _MOVING.sub(b"", answers)
    _beside_others(data, sent)


def check_replies(sent: bytes, heard: bytes) -> None:
    """
    @raise AssertionError: what a client heard are not whole replies to what it sent.
    """
    at = replies = 0
    monitors = b"monitor" in sent.lower()
    while at < len(heard):
        value = _VALUE.match(heard, at)
        if value:
            end = value.end() + int(value[3])
            assert heard[value.end() : end] in sent, heard[at:end]
            assert heard.startswith(b"\r\n", end), heard[at : end + 2]
            at = end + 2
            if monitors and heard.startswith(b"END\r\n", at):
                at += len(b"END\r\n")  # a monitor is answered by any number of items, each with its own end
            continue
        end = heard.index(b"\r\n", at)
        line = heard[at:end]
        assert _LINE.fullmatch(line), line
        replies += not _PART.match(line)
        at = end + 2
    # The last line may be one that is too long, and has no end.
    assert replies <= sent.count(b"\n") + 1, (replies, heard)


def _alone(sent: bytes, cut: Iterable[bytes]) -> bytes:
    with Server() as server:
        client = server.client()
        client.send(cut)
        server.settle(sent.lower().count(b"t=") + sent.lower().count(b"monitor"))
        assert server.turns <= 20 + 3 * len(sent), server.turns
        server.check_idle()
        return client.heard


def _beside_others(data: bytes, sent: bytes) -> None:
    name = sha256(data).hexdigest().encode()
    with Server() as server:
        hostile, other, third = server.client(), server.client(), server.client()
        heard = b""

        def ask(client: Client, request: bytes, answer: bytes) -> None:
            before = len(client.heard)
            client.send([request])
            assert client.heard[before:] == answer, client.heard[before:]

        ask(other, b"set %b 7 0 3\r\none\r\n" % name, b"STORED\r\n")
        ask(other, b"get %b/open\r\n" % name, b"VALUE %b 7 3\r\none\r\nEND\r\n" % name)
        ask(third, b"get %b-/t=100000\r\n" % name, b"")
        for piece in islice(pieces(sent, data), PARTS):
            hostile.send([piece])
            # That is everybody's business, and meant to be.
            server.queues.status.change("up")
            payload = b"\r\nget %b\r\n" % name
            value = b"VALUE %b. 1 %d\r\n%b\r\nEND\r\n" % (name, len(payload), payload)
            request = b"set %b. 1 0 %d\r\n%b\r\nget %b.\r\n" % (name, len(payload), payload, name)
            ask(other, request, b"STORED\r\n" + value)
        heard = third.heard
        assert heard == b"", heard
        ask(other, b"set %b- 0 0 0\r\n\r\n" % name, b"STORED\r\n")
        assert third.heard == b"VALUE %b- 0 0\r\n\r\nEND\r\n" % name, third.heard
        # What is open is nobody else's, and comes back to be had again.
        ask(other, b"get %b/abort\r\nget %b\r\n" % (name, name), b"END\r\nVALUE %b 7 3\r\none\r\nEND\r\n" % name)
        server.check_idle()
