"""
Parses request lines of the memcache text protocol into frozen requests.

No Twisted and no state: bytes in, values out (`docs/protocol.rst` describes the protocol).  Nothing that a client sends
is decoded to text.  A new command needs a request (`darner.values.requests`), a parser here, and a performer
(`darner.front.commands`).

A request line is::

    line    = *SP command *(1*SP argument) *SP [CR] LF
    target  = queue *("/" option)

The caller strips the line end.  White space anywhere else is tolerated, as clients in use send it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Optional

from darner.errors import ClientError
from darner.front.memcache import ERROR, KESTREL_RELATIVE_EXPIRY, client_error, error_reply
from darner.values.items import PutOptions
from darner.values.requests import (
    Confirm,
    Delete,
    DumpConfig,
    DumpStats,
    Flush,
    FlushAll,
    FlushAllExpired,
    FlushExpired,
    Get,
    GetFirst,
    GetMany,
    Monitor,
    Quit,
    Refused,
    Reload,
    Request,
    Requeue,
    Set,
    SetStatus,
    Shutdown,
    Stats,
    Status,
    Touch,
    Version,
)
from darner.values.vocabulary import MAX_DELAY, MAX_FLAGS, MAX_WAIT, STATUSES, check_expiry, check_id, check_queue_name

MAX_LINE: Final = 2048
"""The longest request line, in bytes, without its line end."""

_STATUSES: Final = {status.encode("ascii"): status for status in STATUSES}
_UNSIGNED: Final = re.compile(rb"[0-9]{1,18}")
_SIGNED: Final = re.compile(rb"-?[0-9]{1,18}")



HTTP: Final = "closed a connection that sent HTTP: a web page may have made a browser send requests here"
BINARY: Final = "closed a connection that sent TLS or memcached's binary protocol: this port serves neither"
BINARY_STARTS: Final = (b"\x80", b"\x16")
"""The first byte of a request of memcached's binary protocol, and of TLS."""
OTHER: Final = "closed a connection that sent a command of another protocol"
_HTTP: Final = (b"host:", b"post")
"""Words that only a browser sends: the body of a form may have commands."""
_OTHERS: Final = re.compile(rb"put|pub|hpub|\*[0-9]+")
"""
The first words of requests with a payload in other protocols: Kestrel's text protocol, beanstalkd, NATS and Redis.
"""
_QUIET: Final = (b"delete", b"touch", b"flush_all", b"incr", b"decr", b"verbosity")
"""The commands without a payload that accept C{noreply}."""

_Parser = Callable[[list[bytes]], Request]

_PARSERS: Final[dict[bytes, _Parser]] = {}


def _parses(*commands: str) -> Callable[[_Parser], _Parser]:
    """Decorates the parser of these commands, which makes a request out of the words after the command."""

    def register(parser: _Parser) -> _Parser:
        for command in commands:
            _PARSERS[command.encode("ascii")] = parser
        return parser

    return register


def parse(line: bytes, relative_expiry: int = KESTREL_RELATIVE_EXPIRY) -> Request:
    """
    Parse one request line.

    @param line: the line without its line end, at most L{MAX_LINE} bytes.
    @param relative_expiry: the longest expiry, in seconds, that counts from now.
    @return: a request; L{Refused} if it cannot be served.  Nothing is raised.
    """
    words = line.split()
    if not words:
        return Refused(ERROR)
    if words[0][:1] in BINARY_STARTS:
        return Refused(b"", close=True, warning=BINARY)
    command = words[0].lower()
    parser = _PARSERS.get(command)
    if is_http(words, command):
        return Refused(b"", close=True, warning=HTTP)
    if parser is None and _OTHERS.fullmatch(command):
        return Refused(ERROR, close=True, warning=OTHER)
    noreply = len(words) > 1 and command in _QUIET and words[-1].lower() == b"noreply"
    if parser is None:
        return Refused(ERROR, noreply=noreply)
    try:
        request = parser(words[1:])
        return _check_expiry(request, relative_expiry) if isinstance(request, Set) else request
    except ClientError as error:
        return Refused(error_reply(error), noreply=noreply)


def is_http(words: list[bytes], command: bytes) -> bool:
    """@return: whether a line is one that a browser sends; C{command} is the first of its words in small letters."""
    return (len(words) == 3 and words[2].startswith(b"HTTP/")) or command in _HTTP


def _check_expiry(request: Set, relative_expiry: int) -> Request:
    try:
        check_expiry(request.expiry, relative_expiry)
    except ClientError as error:
        return Refused(error_reply(error), payload=request.size, noreply=request.noreply)
    return request


def _number(word: bytes, what: str, form: re.Pattern[bytes] = _UNSIGNED) -> int:
    if not form.fullmatch(word):
        raise ClientError(f"bad {what}")
    return int(word)


@_parses("set")
def _parse_set(words: list[bytes]) -> Request:
    # The byte count is checked first: without it the start of the next request is unknown.
    if len(words) < 4 or not _UNSIGNED.fullmatch(words[3]):
        return Refused(client_error(b"bad command line format"), close=True)
    size = int(words[3])
    noreply = words[-1].lower() == b"noreply" and len(words) > 4
    try:
        queue, *options = words[0].split(b"/")
        check_queue_name(queue)
        sync, asked = _put_options(options)
        flags = _number(words[1], "flags")
        if flags > MAX_FLAGS:
            raise ClientError("bad flags")
        expiry = _number(words[2], "expiry", _SIGNED)
        if len(words) > 5 or (len(words) == 5 and not noreply):
            raise ClientError("bad command line format")
    except ClientError as error:
        return Refused(error_reply(error), payload=size, noreply=noreply)
    return Set(queue, flags, expiry, size, noreply, sync, asked)


@_parses("add", "replace", "append", "prepend", "cas")
def _parse_not_served(words: list[bytes]) -> Request:
    """Refuse memcached's other commands with a payload, which is skipped."""
    return _skipped(words, 3)


@_parses("ms")
def _parse_meta_set(words: list[bytes]) -> Request:
    return _skipped(words, 1)


def _skipped(words: list[bytes], at: int) -> Request:
    """@param at: the index of the word with the length of the payload."""
    if len(words) <= at or not _UNSIGNED.fullmatch(words[at]):
        return Refused(ERROR, close=True)
    noreply = words[-1].lower() == b"noreply"
    return Refused(ERROR, payload=int(words[at]), noreply=noreply)


def _put_options(options: list[bytes]) -> tuple[bool, Optional[PutOptions]]:
    """@return: whether to sync the item, and its other options."""
    sync = False
    delay: Optional[int] = None
    id = b""
    for option in options:
        name, _, value = option.partition(b"=")
        if option.lower() == b"sync":
            sync = True
        elif name.lower() == b"delay":
            delay = min(_number(value, "delay"), MAX_DELAY)
        elif name.lower() == b"id":
            id = check_id(value)
        elif option:
            raise ClientError("unknown option of set")
    return sync, PutOptions(delay, id) if delay is not None or id else None


@_parses("gets")
def _parse_gets(words: list[bytes]) -> Request:
    request = _parse_get(words)
    if isinstance(request, GetFirst):
        return GetFirst(tuple(replace(choice, numbered=True) for choice in request.choices))
    assert isinstance(request, (Get, GetMany))
    return replace(request, numbered=True)


@_parses("get")
def _parse_get(words: list[bytes]) -> Request:
    if not words:
        raise ClientError("get needs a queue name")
    if len(words) > 1:
        return _parse_get_several(words)
    queue, *options = words[0].split(b"/")
    return _get(check_queue_name(queue), words[0], options)


def _get(queue: bytes, key: bytes, options: list[bytes]) -> Get:
    wait = 0
    chosen = set()
    for option in map(bytes.lower, options):
        if option.startswith(b"t="):
            wait = min(_number(option[2:], "wait"), MAX_WAIT)
        elif option in (b"open", b"close", b"abort", b"peek"):
            chosen.add(option)
        elif option:
            raise ClientError("unknown option of get")
    if b"abort" in chosen and (len(chosen) > 1 or wait):
        raise ClientError("abort must be by itself")
    if b"peek" in chosen and len(chosen) > 1:
        raise ClientError("cannot open and peek" if b"open" in chosen else "cannot close and peek")
    return Get(queue, key, wait, b"open" in chosen, b"close" in chosen, b"abort" in chosen, b"peek" in chosen)


def _parse_get_several(words: list[bytes]) -> Request:
    last, *options = words[-1].split(b"/")
    if not any(option.lower().startswith(b"t=") for option in options):
        return GetMany(tuple(check_queue_name(word) for word in words))
    queues = dict.fromkeys(check_queue_name(word) for word in [*words[:-1], last])
    choices = tuple(_get(queue, words[-1] if queue == last else queue, options) for queue in queues)
    if choices[0].abort:
        raise ClientError("abort must be by itself")
    return GetFirst(choices)


@_parses("monitor")
def _parse_monitor(words: list[bytes]) -> Request:
    if len(words) not in (2, 3):
        raise ClientError("monitor needs a queue name and seconds")
    maximum = _number(words[2], "maximum") if len(words) == 3 else None
    return Monitor(check_queue_name(words[0]), min(_number(words[1], "seconds"), MAX_WAIT // 1000), maximum)


@_parses("confirm")
def _parse_confirm(words: list[bytes]) -> Request:
    if len(words) != 2:
        raise ClientError("confirm needs a queue name and a count")
    return Confirm(check_queue_name(words[0]), _number(words[1], "count"))


@_parses("delete")
def _parse_delete(words: list[bytes]) -> Request:
    if not words:
        raise ClientError("delete needs a queue name")
    return Delete(check_queue_name(words[0]), len(words) > 1 and words[-1].lower() == b"noreply")


@_parses("flush")
def _parse_flush(words: list[bytes]) -> Request:
    if len(words) != 1:
        raise ClientError("flush needs one queue name")
    return Flush(check_queue_name(words[0]))


@_parses("flush_expired")
def _parse_flush_expired(words: list[bytes]) -> Request:
    if len(words) != 1:
        raise ClientError("flush_expired needs one queue name")
    return FlushExpired(check_queue_name(words[0]))


@_parses("flush_all")
def _parse_flush_all(words: list[bytes]) -> Request:
    noreply = bool(words) and words[-1].lower() == b"noreply"
    arguments = words[:-1] if noreply else words
    if len(arguments) > 1:
        raise ClientError("bad command line format")
    if arguments and _number(arguments[0], "delay", _SIGNED) > 0:
        raise ClientError("flush_all cannot be delayed")
    return FlushAll(noreply, delayed=bool(arguments))


@_parses("touch")
def _parse_touch(words: list[bytes]) -> Request:
    noreply = len(words) > 1 and words[-1].lower() == b"noreply"
    arguments = words[:-1] if noreply else words
    if not 1 <= len(arguments) <= 2:
        raise ClientError("touch needs one queue name")
    queue = check_queue_name(arguments[0])
    # memcached's touch has an expiry; its clients send 0 if the caller gives none.
    if len(arguments) > 1 and _number(arguments[1], "expiry", _SIGNED) != 0:
        raise ClientError("touch sets no expiry")
    return Touch(queue, noreply)


@_parses("requeue")
def _parse_requeue(words: list[bytes]) -> Request:
    if not 2 <= len(words) <= 3:
        raise ClientError("requeue needs two queue names")
    origin, target = (check_queue_name(word) for word in words[:2])
    if origin == target:
        raise ClientError("requeue needs two queues")
    return Requeue(origin, target, _number(words[2], "count") if len(words) > 2 else None)


@_parses("dump_stats")
def _parse_dump_stats(words: list[bytes]) -> Request:
    return DumpStats(tuple(check_queue_name(word) for word in words))


@_parses("dump_config")
def _parse_dump_config(words: list[bytes]) -> Request:
    return DumpConfig(tuple(check_queue_name(word) for word in words))


@_parses("status")
def _parse_status(words: list[bytes]) -> Request:
    if not words:
        return Status()
    status = _STATUSES.get(words[0].lower())
    if status is None or len(words) > 1:
        raise ClientError("unknown status")
    return SetStatus(status)


def _alone(request: Request, command: str, lenient: bool) -> _Parser:
    def parse_alone(words: list[bytes]) -> Request:
        if words and not lenient:
            raise ClientError(f"{command} takes no arguments")
        return request

    return parse_alone


# Kestrel ignores arguments of commands that change nothing, and memcache clients send `stats items`.
for _command, _request, _lenient in (
    ("flush_all_expired", FlushAllExpired(), False), ("reload", Reload(), False), ("shutdown", Shutdown(), False),
    ("stats", Stats(), True), ("version", Version(), True), ("quit", Quit(), True),
):  # fmt: skip
    _parses(_command)(_alone(_request, _command, _lenient))


@dataclass(frozen=True)
class Line:
    """A line that was parsed."""

    text: bytes
    """The line, without the line feed."""
    request: Request
    """What it asks for."""


NO_LINE: Final = Line(b"", Refused(ERROR))
"""The empty line, which is refused in all dialects: it stands for lines that were not received yet."""


class LineCache:
    """
    A cache of the lines that were parsed.

    Clients repeat their lines, and a look-up costs a tenth of a parse.  The number of lines is limited and, as only
    short lines are cached, so is the memory.  A full cache is cleared, which costs less than to track the last uses.
    """

    MAX_LINES: Final = 4096
    MAX_LENGTH: Final = 128

    def __init__(self, relative_expiry: int = KESTREL_RELATIVE_EXPIRY) -> None:
        """@param relative_expiry: as for L{parse}."""
        self._relative_expiry = relative_expiry
        self._lines: dict[bytes, Line] = {}

    def parse(self, text: bytes) -> Line:
        """@return: the line with this text, parsed by L{parse}."""
        line = self._lines.get(text)
        if line is None:
            line = Line(text, parse(text, self._relative_expiry))
            if len(text) <= self.MAX_LENGTH:
                if len(self._lines) >= self.MAX_LINES:
                    self._lines.clear()
                self._lines[text] = line
        return line

    def known(self, text: bytes) -> Optional[Line]:
        """@return: the line with this text if it is in the cache; else C{None}."""
        return self._lines.get(text)

    def __len__(self) -> int:
        return len(self._lines)
