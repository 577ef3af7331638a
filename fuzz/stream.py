"""
A client that sends any bytes.

Their meaning is unknown, so less can be checked: the replies are the same however the bytes are cut, they
are whole replies and not more than there are lines, they contain no items that were not put, other clients are
served as if they were alone, and the server keeps nothing of the client after it has disconnected.
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
"""The maximum number of parts in which the bytes are sent, with other clients served in between."""

_LINE: Final = re.compile(
    rb"STORED|DELETED|TOUCHED|NOT_FOUND|[0-9]+|END|ERROR|OK|Flushed all queues\.|VERSION [0-9a-z.+]+"
    rb"|CLIENT_ERROR [ -~]+"
    rb"|SERVER_ERROR object too large|SERVER_ERROR server is (?:readonly|quiescent)|UP|READONLY|QUIESCENT"
    rb"|STAT [!-~]+ [!-~]+|queue '[!-~]+' \{|  [a-z_]+=[!-~]+|\}"
)
_PART: Final = re.compile(rb"STAT |queue '|  |\}|VALUE ")
"""The beginning of lines that do not end a reply."""
_VALUE: Final = re.compile(rb"VALUE ([!-.0-~]{1,250}) (\d{1,10}) (\d+)\r\n")
_MOVING: Final = re.compile(rb"(bytes_read|bytes_written) \d+")
"""Figures that depend on how the bytes were cut."""


def check(data: bytes) -> None:
    """
    @param data: how to cut, in the first byte; then the client's bytes.
    @raise AssertionError: it or another client gets a wrong reply, or the server keeps something of it.
    """
    way, sent = data[:1], data[1:]
    answers = _alone(sent, [sent] if sent else [])
    check_replies(sent, answers)
    cut = byte_by_byte(sent) if way < b"\x80" else pieces(sent, data)
    assert _MOVING.sub(b"", _alone(sent, cut)) == _MOVING.sub(b"", answers)
    _beside_others(data, sent)


def check_replies(sent: bytes, heard: bytes) -> None:
    """
    @raise AssertionError: the received bytes are not whole replies to the requests.
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
    # The last line may be too long, and without an end.
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
            # The hostile client may have changed the status.
            server.queues.status.change("up")
            payload = b"\r\nget %b\r\n" % name
            value = b"VALUE %b. 1 %d\r\n%b\r\nEND\r\n" % (name, len(payload), payload)
            request = b"set %b. 1 0 %d\r\n%b\r\nget %b.\r\n" % (name, len(payload), payload, name)
            ask(other, request, b"STORED\r\n" + value)
        heard = third.heard
        assert heard == b"", heard
        ask(other, b"set %b- 0 0 0\r\n\r\n" % name, b"STORED\r\n")
        assert third.heard == b"VALUE %b- 0 0\r\n\r\nEND\r\n" % name, third.heard
        # The hostile client cannot have closed or aborted this open read.
        ask(other, b"get %b/abort\r\nget %b\r\n" % (name, name), b"END\r\nVALUE %b 7 3\r\none\r\nEND\r\n" % name)
        server.check_idle()
