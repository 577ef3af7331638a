"""
The replies of the memcache text protocol, as bytes (`docs/protocol.rst` describes it).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Union

from darner.errors import ClientError, DarnerError, ItemTooLarge, QueueFull
from darner.front.spelling import Spelling
from darner.values.vocabulary import MAX_RELATIVE_EXPIRY

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

KESTREL_RELATIVE_EXPIRY: Final = 999_999
"""The largest expiry that Kestrel takes as seconds from now."""


def client_error(reason: bytes) -> bytes:
    return b"CLIENT_ERROR %b\r\n" % reason


def server_error(reason: bytes) -> bytes:
    return b"SERVER_ERROR %b\r\n" % reason


TOO_LARGE: Final = server_error(b"object too large for cache")
LINE_TOO_LONG: Final = client_error(b"line too long")
BAD_DATA_CHUNK: Final = client_error(b"bad data chunk")


def error_reply(error: BaseException) -> bytes:
    """
    @param error: a L{DarnerError}; any other is an internal error, of which the client gets no details.
    @return: the reply for it.
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


def count(number: int) -> bytes:
    """A number alone on a line."""
    return b"%d\r\n" % number


_SIZES: Final = 4096
"""For smaller payloads, the middle of the reply is kept: to spell numbers costs half of what a reply costs."""


class KestrelDialect(Spelling):
    """Replies as Kestrel's clients expect them."""

    def __init__(self) -> None:
        super().__init__(
            stored=STORED, nothing=END, closed=END, flushed=END, deleted=DELETED, not_found=DELETED, status_changed=END,
            whole_key=False, relative_expiry=KESTREL_RELATIVE_EXPIRY,
        )  # fmt: skip
        self._described: dict[int, bytes] = {}  # what is between key and payload without flags, by size

    def error(self, error: BaseException) -> bytes:
        return error_reply(error)

    def item(self, key: bytes, flags: int, payload: bytes, whole: bool) -> bytes:
        size = len(payload)
        if flags or size >= _SIZES:
            return b"VALUE %b %d %d\r\n%b\r\n%b" % (key, flags, size, payload, END if whole else b"")
        described = self._described.get(size)
        if described is None:
            described = self._described[size] = b" 0 %d\r\n" % size
        return b"VALUE %b%b%b\r\n%b" % (key, described, payload, END if whole else b"")

    def before_item(self, key: bytes, flags: int, size: int) -> bytes:
        return value_header(key, flags, size)

    def before_numbered_item(self, key: bytes, flags: int, size: int, number: int) -> bytes:
        return self.before_item(key, flags, size)

    def after_item(self, whole: bool) -> bytes:
        return AFTER_PAYLOAD + END if whole else AFTER_PAYLOAD

    def number(self, number: int) -> bytes:
        return count(number)

    def confirmed(self, count: int) -> bytes:
        return END if count else ERROR

    def touched(self, any: bool) -> bytes:
        return TOUCHED if any else NOT_FOUND

    def flushed_all(self, delayed: bool) -> bytes:
        return OK if delayed else FLUSHED_ALL

    def reloaded(self) -> bytes:
        return RELOADED

    def status(self, name: str) -> bytes:
        return b"%b\r\n" % name.upper().encode("ascii")

    def version(self, number: str) -> bytes:
        return b"VERSION %b\r\n" % number.encode("ascii")

    def stats(
        self, server: Mapping[str, Union[int, str]], queues: Iterable[tuple[bytes, Mapping[str, int]]]
    ) -> bytes:
        lines = [f"STAT {name} {figure}\r\n".encode("ascii") for name, figure in server.items()]
        for queue, figures in queues:
            for name, figure in figures.items():
                lines.append(b"STAT queue_%b_%b %d\r\n" % (queue, name.encode("ascii"), figure))
        return b"".join(lines)

    def dump(self, queues: Iterable[tuple[bytes, Mapping[str, Union[int, str]]]]) -> bytes:
        blocks = []
        for queue, figures in queues:
            lines = b"".join(f"  {name}={figure}\r\n".encode("ascii") for name, figure in figures.items())
            blocks.append(b"queue '%b' {\r\n%b}\r\n" % (queue, lines))
        return b"".join(blocks)

    def after_report(self) -> bytes:
        return END


class MemcacheDialect(KestrelDialect):
    """Replies as memcached's stock clients expect them."""

    def __init__(self) -> None:
        super().__init__()
        self.flushed = OK
        self.not_found = NOT_FOUND
        self.status_changed = OK
        self.whole_key = True
        self.relative_expiry = MAX_RELATIVE_EXPIRY

    def error(self, error: BaseException) -> bytes:
        return TOO_LARGE if isinstance(error, ItemTooLarge) else error_reply(error)

    def before_numbered_item(self, key: bytes, flags: int, size: int, number: int) -> bytes:
        return b"VALUE %b %d %d %d\r\n" % (key, flags, size, number)

    def confirmed(self, count: int) -> bytes:
        return OK if count else NOT_FOUND

    def flushed_all(self, delayed: bool) -> bytes:
        return OK

    def reloaded(self) -> bytes:
        return OK


KESTREL: Final = KestrelDialect()
MEMCACHE: Final = MemcacheDialect()

DIALECTS: Final[dict[str, KestrelDialect]] = {"kestrel": KESTREL, "memcache": MEMCACHE}
"""How replies are spelled, by the setting C{dialect}."""
