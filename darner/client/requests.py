"""
What a client can ask: each function makes a L{Request}, which has the bytes to send and says what answers it.

Queue names and ids are text or bytes; times are in seconds, as everywhere in `darner.client`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Final, Optional, Union

from darner.errors import ClientError
from darner.values.vocabulary import MAX_FLAGS, check_id, check_queue_name

Name = Union[str, bytes]
"""Of a queue, or an id."""

MAX_LINE: Final = 2048
"""Bytes of a request line without its end."""


class Kind(IntEnum):
    """The shapes of replies."""

    STORED = 0
    """C{STORED} or C{NOT_STORED}: True."""
    ITEM = 1
    """At most one C{VALUE} block, and C{END}: the item or None."""
    ITEMS = 2
    """Any number of them: a list."""
    MONITOR = 3
    """C{VALUE} blocks, and ends that are told by the reply to a C{version} behind: each item is an event of its own."""
    END = 4
    """C{END}: None."""
    NUMBER = 5
    """A number alone on a line."""
    YES_OR_NO = 6
    """C{TOUCHED} or C{NOT_FOUND}: whether it was the first."""
    WORDS = 7
    """One line: its text."""
    STATS = 8
    """Lines C{STAT name value}, and C{END}: a dict of text."""
    BLOCKS = 9
    """Blocks of a line with the queue's name, lines C{name=value} and a brace, and C{END}: a dict of dicts by queue."""
    LAST = 10
    """An error, or the end of the connection, which means that it is done."""
    CONFIRMED = 11
    """C{END} or C{ERROR}: whether it was the first."""


class Request:
    """
    One request.

    @ivar data: the bytes to send.
    @ivar kind: what answers it; None where nothing does.
    @ivar repeatable: whether sending it twice does what sending it once does.
    @ivar payload_size: for C{set} without its payload: how many bytes, and CR LF, are to be sent behind C{data}.
    @ivar sink: where given, the payloads that answer are not kept: each piece goes there as it comes.
    """

    __slots__ = ("data", "kind", "payload_size", "repeatable", "sink")

    def __init__(
        self,
        data: bytes,
        kind: Optional[Kind],
        repeatable: bool = False,
        payload_size: Optional[int] = None,
        sink: Optional[Callable[[bytes], object]] = None,
    ) -> None:
        self.data = data
        self.kind = kind
        self.repeatable = repeatable
        self.payload_size = payload_size
        self.sink = sink

    def __repr__(self) -> str:
        return f"<Request {self.data[:60]!r}>"


_names: dict[Name, bytes] = {}
_KNOWN_NAMES: Final = 1000


def queue_name(name: Name) -> bytes:
    """
    @return: the name as bytes.
    @raise BadQueueName: it cannot be the name of a queue.
    """
    known = _names.get(name)
    if known is None:
        known = check_queue_name(name.encode() if isinstance(name, str) else bytes(name))
        if len(_names) >= _KNOWN_NAMES:
            _names.clear()
        _names[name] = known
    return known


def milliseconds(seconds: float) -> int:
    """@raise ClientError: it is below 0."""
    if not seconds >= 0:
        raise ClientError("a time is below 0")
    return min(round(seconds * 1000), 2**62) if seconds < 1e15 else 2**62


def set_line(
    queue: Name, size: int, flags: int, expiry: int, delay: Optional[float], id: Optional[Name], sync: bool, noreply:
    bool
) -> bytes:
    """@return: the line of a C{set}, with its end."""
    if not 0 <= flags <= MAX_FLAGS:
        raise ClientError("bad flags")
    name = queue_name(queue)
    if sync:
        name += b"/sync"
    if delay is not None:
        name += b"/delay=%d" % milliseconds(delay)
    if id is not None:
        name += b"/id=" + check_id(id.encode() if isinstance(id, str) else bytes(id))
    return b"set %b %d %d %d%b\r\n" % (name, flags, expiry, size, b" noreply" if noreply else b"")


def put(
    queue: Name, payload: bytes, *, flags: int = 0, expiry: int = 0, delay: Optional[float] = None,
    id: Optional[Name] = None, sync: bool = False, noreply: bool = False,
) -> Request:  # fmt: skip
    """@param expiry: as in the protocol: seconds from now below 1,000,000, else Unix seconds; 0 is never."""
    if delay is None and id is None and not sync and not noreply and not flags and not expiry:
        return Request(b"set %b 0 0 %d\r\n%b\r\n" % (queue_name(queue), len(payload), payload), Kind.STORED)
    line = set_line(queue, len(payload), flags, expiry, delay, id, sync, noreply)
    return Request(b"%b%b\r\n" % (line, payload), None if noreply else Kind.STORED, id is not None)


def put_stream(
    queue: Name, size: int, *, flags: int = 0, expiry: int = 0, delay: Optional[float] = None,
    id: Optional[Name] = None, sync: bool = False,
) -> Request:  # fmt: skip
    """As L{put}, for a payload of C{size} bytes that is sent behind the request, with CR LF after it."""
    line = set_line(queue, size, flags, expiry, delay, id, sync, False)
    return Request(line, Kind.STORED, False, size)


def login(user: str, password: str) -> Request:
    """For a server that has users, the first request of a connection."""
    payload = f"{user} {password}".encode()
    if not user or " " in user or len(payload) > 1024:
        raise ClientError("a user has no spaces, and user and password are 1024 bytes at most")
    return Request(b"set auth 0 0 %d\r\n%b\r\n" % (len(payload), payload), Kind.STORED, True)


def get(
    queue: Name, *, wait: float = 0, open: bool = False, close: bool = False, peek: bool = False,
    sink: Optional[Callable[[bytes], object]] = None,
) -> Request:  # fmt: skip
    """At most one item.  What is opened goes back with the connection, so that asking again does no harm."""
    name = queue_name(queue)
    if close:
        name += b"/close"
    if open:
        name += b"/open"
    if peek:
        name += b"/peek"
    if wait:
        name += b"/t=%d" % milliseconds(wait)
    return Request(b"get %b\r\n" % name, Kind.ITEM, (open or peek) and not close, None, sink)


def close(queue: Name) -> Request:
    """Close the oldest open read of the connection on the queue."""
    return Request(b"get %b/close\r\n" % queue_name(queue), Kind.END)


def abort(queue: Name) -> Request:
    """Give it back."""
    return Request(b"get %b/abort\r\n" % queue_name(queue), Kind.END)


def get_each(*queues: Name) -> Request:
    """At most one item of each queue."""
    return Request(_line(b"get", *map(queue_name, queues)), Kind.ITEMS)


def get_first(
    *queues: Name, wait: float = 0, open: bool = False, close: bool = False, peek: bool = False
) -> Request:  # fmt: skip
    """One item, of the first queue that has any."""
    names = [queue_name(queue) for queue in queues]
    options = b"/t=%d" % milliseconds(wait)
    options += b"/close" * close + b"/open" * open + b"/peek" * peek
    return Request(_line(b"get", *names[:-1], names[-1] + options), Kind.ITEM, (open or peek) and not close)


def monitor(queue: Name, seconds: float, maximum: Optional[int] = None) -> Request:
    """
    Open items as they come.  Each is an event, and then the reply.

    Servers end each item with C{END} or not, as Kestrel does or did; the C{version} behind says for both what the last
    one was.
    """
    limit = b"" if maximum is None else b" %d" % maximum
    whole = -(-milliseconds(seconds) // 1000)
    return Request(b"monitor %b %d%b\r\nversion\r\n" % (queue_name(queue), whole, limit), Kind.MONITOR)


def confirm(queue: Name, count: int) -> Request:
    """Close the oldest open reads: whether there were so many; none is closed where there were not."""
    return Request(b"confirm %b %d\r\n" % (queue_name(queue), count), Kind.CONFIRMED)


def touch(queue: Name, noreply: bool = False) -> Request:
    """Let the time of the open reads begin anew: whether any is open."""
    end = b" noreply" if noreply else b""
    return Request(b"touch %b%b\r\n" % (queue_name(queue), end), None if noreply else Kind.YES_OR_NO, True)


def flush(queue: Name) -> Request:
    return Request(b"flush %b\r\n" % queue_name(queue), Kind.END)


def flush_all() -> Request:
    return Request(b"flush_all\r\n", Kind.WORDS)


def flush_expired(queue: Optional[Name] = None) -> Request:
    """@param queue: by default all."""
    return Request(
        b"flush_all_expired\r\n" if queue is None else b"flush_expired %b\r\n" % queue_name(queue), Kind.NUMBER
    )


def delete(queue: Name) -> Request:
    return Request(b"delete %b\r\n" % queue_name(queue), Kind.WORDS)


def requeue(origin: Name, target: Name, count: Optional[int] = None) -> Request:
    limit = b"" if count is None else b" %d" % count
    return Request(b"requeue %b %b%b\r\n" % (queue_name(origin), queue_name(target), limit), Kind.NUMBER)


def stats() -> Request:
    return Request(b"stats\r\n", Kind.STATS, True)


def dump_stats(*queues: Name) -> Request:
    return Request(_line(b"dump_stats", *map(queue_name, queues)), Kind.BLOCKS, True)


def dump_config(*queues: Name) -> Request:
    return Request(_line(b"dump_config", *map(queue_name, queues)), Kind.BLOCKS, True)


def status() -> Request:
    return Request(b"status\r\n", Kind.WORDS, True)


def set_status(status: str) -> Request:
    if not status.isalpha() or not status.isascii():
        raise ClientError("unknown status")
    return Request(b"status %b\r\n" % status.encode(), Kind.END, True)


def version() -> Request:
    return Request(b"version\r\n", Kind.WORDS, True)


def reload() -> Request:
    return Request(b"reload\r\n", Kind.WORDS, True)


def shutdown() -> Request:
    return Request(b"shutdown\r\n", Kind.LAST)


def quit() -> Request:
    """There is no reply; the server closes the connection."""
    return Request(b"quit\r\n", None)


def _line(*words: bytes) -> bytes:
    line = b" ".join(words)
    if len(line) > MAX_LINE:
        raise ClientError("line too long")
    return line + b"\r\n"
