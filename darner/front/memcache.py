"""
The memcache text protocol as bytes: a request line becomes a frozen request, an answer becomes reply bytes.

No Twisted and no state: bytes in, values out.  This is the only module that knows how requests and replies are
spelled (`docs/protocol.rst` is the description for people).  Nothing that a peer sends is decoded to text.

A request line is::

    line    = *SP command *(1*SP argument) *SP [CR] LF
    target  = queue *("/" option)

Stripping of the line end is the caller's work; white space anywhere else is tolerated, as clients in use send it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, Optional, Union

from darner.errors import ClientError, DarnerError, QueueFull
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
from darner.values.vocabulary import MAX_DELAY, MAX_FLAGS, MAX_WAIT, STATUSES, check_id, check_queue_name

MAX_LINE: Final = 2048
"""The longest request line, in bytes, without its line end."""

_STATUSES: Final = {status.encode("ascii"): status for status in STATUSES}
_UNSIGNED: Final = re.compile(rb"[0-9]{1,18}")
_SIGNED: Final = re.compile(rb"-?[0-9]{1,18}")


# Replies ---------------------------------------------------------------------------------------------------------

STORED: Final = b"STORED\r\n"
NOT_STORED: Final = b"NOT_STORED\r\n"
DELETED: Final = b"DELETED\r\n"
TOUCHED: Final = b"TOUCHED\r\n"
NOT_FOUND: Final = b"NOT_FOUND\r\n"
END: Final = b"END\r\n"
ERROR: Final = b"ERROR\r\n"
OK: Final = b"OK\r\n"
FLUSHED_ALL: Final = b"Flushed all queues.\r\n"
RELOADED: Final = b"Reloaded config.\r\n"
AFTER_PAYLOAD: Final = b"\r\n"


def client_error(reason: bytes) -> bytes:
    return b"CLIENT_ERROR %b\r\n" % reason


def server_error(reason: bytes) -> bytes:
    return b"SERVER_ERROR %b\r\n" % reason


LINE_TOO_LONG: Final = client_error(b"line too long")
BAD_DATA_CHUNK: Final = client_error(b"bad data chunk")


def error_reply(error: BaseException) -> bytes:
    """
    The reply for an error; one place for all of them.

    @param error: a L{DarnerError}, or anything else, which is a fault of ours and tells the client nothing more.
    """
    if isinstance(error, QueueFull):
        return NOT_STORED
    text = b" ".join(str(error).encode("utf-8", "replace").split())
    if isinstance(error, ClientError):
        return client_error(text)
    if isinstance(error, DarnerError):
        return server_error(text)
    return server_error(b"internal error")


def value_header(key: bytes, flags: int, size: int) -> bytes:
    """The line before a payload of C{size} bytes."""
    return b"VALUE %b %d %d\r\n" % (key, flags, size)


def value(key: bytes, flags: int, payload: bytes, end: bytes = END) -> bytes:
    """One item, and what ends its reply."""
    return b"VALUE %b %d %d\r\n%b\r\n%b" % (key, flags, len(payload), payload, end)


def count(number: int) -> bytes:
    """A number alone on a line."""
    return b"%d\r\n" % number


def stat(name: str, figure: Union[int, str]) -> bytes:
    return b"STAT %b %b\r\n" % (name.encode("ascii"), str(figure).encode("ascii"))


def queue_stat(queue: bytes, name: str, figure: int) -> bytes:
    """One queue's line of `stats`."""
    return b"STAT queue_%b_%b %d\r\n" % (queue, name.encode("ascii"), figure)


def queue_dump(queue: bytes, figures: Mapping[str, Union[int, str]]) -> bytes:
    """One queue's block of `dump_stats` or `dump_config`."""
    lines = b"".join(f"  {name}={figure}\r\n".encode("ascii") for name, figure in figures.items())
    return b"queue '%b' {\r\n%b}\r\n" % (queue, lines)


def status(name: str) -> bytes:
    """@param name: one of L{STATUSES}."""
    return b"%b\r\n" % name.upper().encode("ascii")


def version(number: str) -> bytes:
    return b"VERSION %b\r\n" % number.encode("ascii")


# Parsing ---------------------------------------------------------------------------------------------------------


def parse(line: bytes) -> Request:
    """
    Understand one request line.

    @param line: the line without its line end, at most L{MAX_LINE} bytes.
    @return: a request.  What cannot be served comes out as L{Refused}; nothing is raised.
    """
    words = line.split()
    if not words:
        return Refused(ERROR)
    parser = _PARSERS.get(words[0].lower())
    if parser is None:
        return Refused(ERROR)
    try:
        return parser(words[1:])
    except ClientError as error:
        return Refused(error_reply(error))


def _number(word: bytes, what: str, form: re.Pattern[bytes] = _UNSIGNED) -> int:
    if not form.fullmatch(word):
        raise ClientError(f"bad {what}")
    return int(word)


def _parse_set(words: list[bytes]) -> Request:
    # The byte count comes first: without it nobody knows where the next command starts.
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
        return Refused(b"" if noreply else error_reply(error), payload=size)
    return Set(queue, flags, expiry, size, noreply, sync, asked)


def _put_options(options: list[bytes]) -> tuple[bool, Optional[PutOptions]]:
    """@return: whether the item is to be on stable storage, and what else is asked for."""
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
    choices = tuple(_get(queue, queue, options) for queue in queues)
    if choices[0].abort:
        raise ClientError("abort must be by itself")
    return GetFirst(choices)


def _parse_monitor(words: list[bytes]) -> Request:
    if len(words) not in (2, 3):
        raise ClientError("monitor needs a queue name and seconds")
    maximum = _number(words[2], "maximum") if len(words) == 3 else None
    return Monitor(check_queue_name(words[0]), min(_number(words[1], "seconds"), MAX_WAIT // 1000), maximum)


def _parse_confirm(words: list[bytes]) -> Request:
    if len(words) != 2:
        raise ClientError("confirm needs a queue name and a count")
    return Confirm(check_queue_name(words[0]), _number(words[1], "count"))


def _parse_delete(words: list[bytes]) -> Request:
    if not words:
        raise ClientError("delete needs a queue name")
    return Delete(check_queue_name(words[0]), len(words) > 1 and words[-1].lower() == b"noreply")


def _parse_flush(words: list[bytes]) -> Request:
    if len(words) != 1:
        raise ClientError("flush needs one queue name")
    return Flush(check_queue_name(words[0]))


def _parse_flush_expired(words: list[bytes]) -> Request:
    if len(words) != 1:
        raise ClientError("flush_expired needs one queue name")
    return FlushExpired(check_queue_name(words[0]))


def _parse_flush_all(words: list[bytes]) -> Request:
    noreply = bool(words) and words[-1].lower() == b"noreply"
    arguments = words[:-1] if noreply else words
    if len(arguments) > 1:
        raise ClientError("bad command line format")
    if arguments and _number(arguments[0], "delay", _SIGNED) > 0:
        raise ClientError("flush_all cannot be delayed")
    return FlushAll(noreply, delayed=bool(arguments))


def _parse_touch(words: list[bytes]) -> Request:
    noreply = len(words) > 1 and words[-1].lower() == b"noreply"
    arguments = words[:-1] if noreply else words
    if not 1 <= len(arguments) <= 2:
        raise ClientError("touch needs one queue name")
    queue = check_queue_name(arguments[0])
    # memcached's touch says when the item is to expire; clients of it send 0 where nothing is said.
    if len(arguments) > 1 and _number(arguments[1], "expiry", _SIGNED) != 0:
        raise ClientError("touch sets no expiry")
    return Touch(queue, noreply)


def _parse_requeue(words: list[bytes]) -> Request:
    if not 2 <= len(words) <= 3:
        raise ClientError("requeue needs two queue names")
    origin, target = (check_queue_name(word) for word in words[:2])
    if origin == target:
        raise ClientError("requeue needs two queues")
    return Requeue(origin, target, _number(words[2], "count") if len(words) > 2 else None)


def _parse_dump_stats(words: list[bytes]) -> Request:
    return DumpStats(tuple(check_queue_name(word) for word in words))


def _parse_dump_config(words: list[bytes]) -> Request:
    return DumpConfig(tuple(check_queue_name(word) for word in words))


def _parse_status(words: list[bytes]) -> Request:
    if not words:
        return Status()
    status = _STATUSES.get(words[0].lower())
    if status is None or len(words) > 1:
        raise ClientError("unknown status")
    return SetStatus(status)


def _alone(request: Request, command: str) -> Callable[[list[bytes]], Request]:
    def parse_alone(words: list[bytes]) -> Request:
        if words:
            raise ClientError(f"{command} takes no arguments")
        return request

    return parse_alone


_PARSERS: Final[dict[bytes, Callable[[list[bytes]], Request]]] = {
    b"set": _parse_set,
    b"get": _parse_get,
    b"gets": _parse_get,
    b"monitor": _parse_monitor,
    b"confirm": _parse_confirm,
    b"delete": _parse_delete,
    b"flush": _parse_flush,
    b"flush_all": _parse_flush_all,
    b"touch": _parse_touch,
    b"requeue": _parse_requeue,
    b"flush_expired": _parse_flush_expired,
    b"flush_all_expired": _alone(FlushAllExpired(), "flush_all_expired"),
    b"stats": _alone(Stats(), "stats"),
    b"dump_stats": _parse_dump_stats,
    b"dump_config": _parse_dump_config,
    b"reload": _alone(Reload(), "reload"),
    b"shutdown": _alone(Shutdown(), "shutdown"),
    b"status": _parse_status,
    b"version": _alone(Version(), "version"),
    b"quit": _alone(Quit(), "quit"),
}


class LineCache:
    """
    Requests by the line they were parsed from.

    Clients repeat their lines, and a look-up is a tenth of a parse.  Bounded in lines and, as only short lines are
    kept, in bytes; when it is full it starts anew, which costs less than to remember what was used last.
    """

    MAX_LINES: Final = 4096
    MAX_LENGTH: Final = 128

    def __init__(self) -> None:
        self._requests: dict[bytes, Request] = {}

    def parse(self, line: bytes) -> Request:
        """As L{parse}."""
        request = self._requests.get(line)
        if request is None:
            request = parse(line)
            if len(line) <= self.MAX_LENGTH:
                if len(self._requests) >= self.MAX_LINES:
                    self._requests.clear()
                self._requests[line] = request
        return request

    def __len__(self) -> int:
        return len(self._requests)
