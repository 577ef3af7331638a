"""
Kestrel's text protocol as bytes: parses request lines into frozen requests, and spells replies.

As in `darner.front.memcache`, no Twisted and no state; no other module knows how this protocol is spelled.  Requests
that mean the same as one of the memcache protocol are parsed into the same class.

A request line is::

    line  = command *(SP argument) [":"] [CR] LF

The colon says that lines with an item each follow, and that an empty line ends them.  Only ``put`` has items.  What
names a queue may end in a colon too, as that may be of the name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from darner.errors import ClientError
from darner.front import memcache, memcache_requests
from darner.front.memcache import KestrelDialect
from darner.values import requests
from darner.values.vocabulary import MAX_WAIT, check_queue_name

MAX_ITEMS: Final = 1024
"""The maximum number of items of one C{put}, as in Kestrel."""
MAX_PUT: Final = 1024 * 1024
"""The maximum size of all items of one C{put}, which is kept in memory until it is complete."""

_NUMBER: Final = re.compile(rb"-?[0-9]{1,18}")


NOTHING: Final = b"*\n"
"""There is no item."""


ITEM_HEADER: Final = b":"
AFTER_ITEM: Final = b"\n"


def count(number: int) -> bytes:
    """The reply with a number of items."""
    return b"+%d\n" % number


DONE: Final = count(0)


def line(text: str) -> bytes:
    """The reply with a line of text."""
    return b":%b\n" % text.encode("ascii")


def refusal(reason: bytes) -> bytes:
    return b"-%b\n" % reason


LINE_TOO_LONG: Final = refusal(b"Line too long.")
TOO_MUCH: Final = refusal(b"Too many items; limit=%d, %d bytes" % (MAX_ITEMS, MAX_PUT))
TOO_FEW: Final = refusal(b"Not that many transactions open.")
TOO_MANY_CONNECTIONS: Final = refusal(b"Too many connections.")


def error_reply(error: BaseException) -> bytes:
    """The reply for an error: that of the memcache protocol, without its first word."""
    kind, _, reason = memcache.error_reply(error).rstrip().partition(b" ")
    return refusal(reason or kind)


class TextSpelling(KestrelDialect):
    """The spelling of the text protocol; replies to requests that it does not have are those of memcache."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = NOTHING
        self.flushed = DONE
        self.deleted = DONE
        self.not_found = DONE
        self.status_changed = DONE

    def error(self, error: BaseException) -> bytes:
        return error_reply(error)

    def item(self, key: bytes, flags: int, payload: bytes, whole: bool) -> bytes:
        return b":%b\n" % payload

    def before_item(self, key: bytes, flags: int, size: int) -> bytes:
        return ITEM_HEADER

    def after_item(self, whole: bool) -> bytes:
        return AFTER_ITEM

    def number(self, number: int) -> bytes:
        return count(number)

    def confirmed(self, count: int) -> bytes:
        return b"+%d\n" % count if count else TOO_FEW

    def status(self, name: str) -> bytes:
        return line(name.upper())

    def version(self, number: str) -> bytes:
        return line(number)


TEXT: Final = TextSpelling()


_WITH_PAYLOAD: Final = (b"set", b"add", b"replace", b"append", b"prepend", b"cas", b"ms")
"""Commands of the memcache protocol: what follows their lines is no command."""

_Parser = Callable[[list[bytes]], requests.Request]

_PARSERS: Final[dict[bytes, _Parser]] = {}


def _parses(command: str) -> Callable[[_Parser], _Parser]:
    """Decorates the parser of a command, which makes a request out of the words after the command."""

    def register(parser: _Parser) -> _Parser:
        _PARSERS[command.encode("ascii")] = parser
        return parser

    return register


def parse(line: bytes) -> requests.Request:
    """
    Parse one request line.

    @param line: the line without its line feed.
    @return: a request; L{requests.Refused}, or L{requests.PutItems} with a C{refusal}, if it cannot be served.  Nothing
        is raised.
    """
    if line[:1] in memcache_requests.BINARY_STARTS:
        return requests.Refused(b"", close=True, warning=memcache_requests.BINARY)
    line = line.rstrip()
    has_colon = line.endswith(b":")
    all_words = line.split()
    if all_words and memcache_requests.is_http(all_words, all_words[0].lower()):
        return requests.Refused(b"", close=True, warning=memcache_requests.HTTP)
    words = line[:-1].split() if has_colon else all_words
    command = words[0].lower() if words else b""
    parser = _PARSERS.get(command)
    has_items = has_colon and (parser is None or command == b"put")
    try:
        if parser is None:
            raise ClientError("Unknown command.")
        return _put(words[1:]) if has_items else parser(all_words[1:])
    except ClientError as error:
        reply = error_reply(error)
    if has_items:
        return requests.PutItems(b"", refusal=reply)
    if command == b"put":
        # Whether items follow, and where they end, nobody knows; Kestrel takes them for commands.
        return requests.Refused(reply, close=True)
    if command in _WITH_PAYLOAD:
        return requests.Refused(reply, close=True, warning=memcache_requests.OTHER)
    return requests.Refused(reply)


def _queue(words: list[bytes], most: int) -> bytes:
    if not words:
        raise ClientError("Queue name required.")
    if len(words) > most:
        raise ClientError("Too many words.")
    return check_queue_name(words[0])


def _number(words: list[bytes], what: str) -> int:
    """@return: the number after the queue name, by default 0."""
    if len(words) < 2:
        return 0
    if not _NUMBER.fullmatch(words[1]):
        raise ClientError(f"Error parsing {what}.")
    return int(words[1])


def _put(words: list[bytes]) -> requests.Request:
    return requests.PutItems(_queue(words, 2), _number(words, "expiration time"))


@_parses("put")
def _put_without_items(words: list[bytes]) -> requests.Request:
    raise ClientError("A colon is to end the line, and items are to follow.")


def _read(words: list[bytes], open: bool) -> requests.Request:
    """Every read, also a peek, closes the open reads of its queue first."""
    queue = _queue(words, 2)
    wait = min(max(_number(words, "timeout"), 0), MAX_WAIT)
    return requests.Get(queue, queue, wait, open=open, peek=not open, close_all=True)


@_parses("get")
def _get(words: list[bytes]) -> requests.Request:
    return _read(words, True)


@_parses("peek")
def _peek(words: list[bytes]) -> requests.Request:
    return _read(words, False)


@_parses("flush")
def _flush(words: list[bytes]) -> requests.Request:
    return requests.Flush(_queue(words, 1))


@_parses("delete")
def _delete(words: list[bytes]) -> requests.Request:
    return requests.Delete(_queue(words, 1))


@_parses("monitor")
def _monitor(words: list[bytes]) -> requests.Request:
    if len(words) < 2:
        raise ClientError("Queue name & timeout required.")
    queue = _queue(words, 2)
    return requests.Monitor(queue, min(max(_number(words, "timeout"), 0), MAX_WAIT) / 1000, close_all=True)


@_parses("confirm")
def _confirm(words: list[bytes]) -> requests.Request:
    if len(words) < 2:
        raise ClientError("Queue name & count required.")
    return requests.Confirm(_queue(words, 2), _number(words, "count"))


@_parses("shutdown")
def _shutdown(words: list[bytes]) -> requests.Request:
    return requests.Shutdown()


@_parses("version")
def _version(words: list[bytes]) -> requests.Request:
    return requests.Version()


@_parses("quit")
def _quit(words: list[bytes]) -> requests.Request:
    return requests.Quit()


@_parses("status")
def _status(words: list[bytes]) -> requests.Request:
    request = memcache_requests.parse(b" ".join([b"status", *words]))
    if isinstance(request, requests.Refused):
        raise ClientError("Unknown status.")
    return request
