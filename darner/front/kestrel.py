"""
Kestrel's text protocol as bytes: a request line becomes a frozen request, an answer becomes reply bytes.

As `darner.front.memcache`: no Twisted and no state, and the only module that knows how this protocol is spelled.
Requests that mean the same as one of the memcache protocol come out as that.

A request line is::

    line  = command *(SP argument) [":"] [CR] LF

Only ``put`` has the colon; lines with an item each follow, and an empty line ends them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Union

from darner.errors import ClientError
from darner.front import memcache
from darner.values import requests
from darner.values.vocabulary import MAX_WAIT, check_queue_name

MAX_ITEMS: Final = 1024
"""The most items of one C{put}, as in Kestrel."""
MAX_PUT: Final = 1024 * 1024
"""The most bytes of all items of one C{put}: it is kept in memory until it is complete."""

_NUMBER: Final = re.compile(rb"-?[0-9]{1,18}")


@dataclass(frozen=True)
class Put:
    """Put items on a queue, all or none of those that follow the line."""

    queue: bytes
    expiry: int = 0
    """In ms from now; 0 never; below 0 at once."""
    refusal: bytes = b""
    """The reply where it cannot be done; the items follow all the same."""


Request = Union[Put, requests.Request]

NOTHING: Final = b"*\n"
"""There is no item."""


def item(payload: bytes) -> bytes:
    return b":%b\n" % payload


ITEM_HEADER: Final = b":"
AFTER_ITEM: Final = b"\n"


def count(number: int) -> bytes:
    """So many things were done."""
    return b"+%d\n" % number


DONE: Final = count(0)


def line(text: str) -> bytes:
    """An answer in words."""
    return b":%b\n" % text.encode("ascii")


def refusal(reason: bytes) -> bytes:
    return b"-%b\n" % reason


LINE_TOO_LONG: Final = refusal(b"Line too long.")
TOO_MUCH: Final = refusal(b"Too many items; limit=%d, %d bytes" % (MAX_ITEMS, MAX_PUT))
TOO_MANY_CONNECTIONS: Final = refusal(b"Too many connections.")


def error_reply(error: BaseException) -> bytes:
    """The reply for an error: what the memcache protocol says of it, without the kind."""
    kind, _, reason = memcache.error_reply(error).rstrip().partition(b" ")
    return refusal(reason or kind)


def parse(line: bytes) -> Request:
    """
    Understand one request line.

    @param line: the line without its line feed.
    @return: a request.  What cannot be served comes out as L{wire.Refused}, or as a L{Put} with its refusal; nothing
        is raised.
    """
    line = line.rstrip()
    has_items = line.endswith(b":")
    words = (line[:-1] if has_items else line).split()
    command = words[0].lower() if words else b""
    try:
        if command == b"put" and has_items:
            return _put(words[1:])
        parser = _PARSERS.get(command)
        if parser is None:
            raise ClientError("Unknown command.")
        return parser(line.split()[1:])
    except ClientError as error:
        reply = error_reply(error)
        return Put(b"", refusal=reply) if has_items and command == b"put" else requests.Refused(reply)


def _queue(words: list[bytes], most: int) -> bytes:
    if not words:
        raise ClientError("Queue name required.")
    if len(words) > most:
        raise ClientError("Too many words.")
    return check_queue_name(words[0])


def _number(words: list[bytes], what: str) -> int:
    """@return: the number behind the queue's name, by default 0."""
    if len(words) < 2:
        return 0
    if not _NUMBER.fullmatch(words[1]):
        raise ClientError(f"Error parsing {what}.")
    return int(words[1])


def _put(words: list[bytes]) -> Request:
    return Put(_queue(words, 2), _number(words, "expiration time"))


def _put_without_items(words: list[bytes]) -> Request:
    raise ClientError("A colon is to end the line, and items are to follow.")


def _reading(peek: bool) -> Callable[[list[bytes]], Request]:
    def parse_reading(words: list[bytes]) -> Request:
        queue = _queue(words, 2)
        wait = min(max(_number(words, "timeout"), 0), MAX_WAIT)
        return requests.Get(queue, queue, wait, open=not peek, peek=peek)

    return parse_reading


def _monitor(words: list[bytes]) -> Request:
    if len(words) < 2:
        raise ClientError("Queue name & timeout required.")
    queue = _queue(words, 2)
    return requests.Monitor(queue, min(max(_number(words, "timeout"), 0), MAX_WAIT) / 1000)


def _confirm(words: list[bytes]) -> Request:
    if len(words) < 2:
        raise ClientError("Queue name & count required.")
    return requests.Confirm(_queue(words, 2), _number(words, "count"))


def _alone(command: bytes) -> Callable[[list[bytes]], Request]:
    return lambda words: memcache.parse(command)


def _status(words: list[bytes]) -> Request:
    request = memcache.parse(b" ".join([b"status", *words]))
    if isinstance(request, requests.Refused):
        raise ClientError("Unknown status.")
    return request


_PARSERS: Final[dict[bytes, Callable[[list[bytes]], Request]]] = {
    b"put": _put_without_items,
    b"get": _reading(peek=False),
    b"peek": _reading(peek=True),
    b"monitor": _monitor,
    b"confirm": _confirm,
    b"flush": lambda words: requests.Flush(_queue(words, 1)),
    b"delete": lambda words: requests.Delete(_queue(words, 1)),
    b"status": _status,
    b"shutdown": _alone(b"shutdown"),
    b"version": _alone(b"version"),
    b"quit": _alone(b"quit"),
}
