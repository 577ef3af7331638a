"""
Commands as structures, with their bytes and their meaning, so that the reference need not parse the bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Union

from attrs import frozen

from darner.values.vocabulary import CHUNK_BYTES
from fuzz.choices import Choices
from fuzz.server import EPOCH, MAX_ITEM_BYTES

NAMES: Final = (b"q", b"r", b"..", b"get", b"END", b"a'\"\\b", b"q+{%s}", b"x" * 250)

PAYLOADS: Final = (
    b"", b"x", b"\r\n", b"\r\nget q\r\n", b"\nflush_all\r\n", b"END\r\n", b"\r\nSTORED\r\n", b"VALUE q 0 5\r\nhello",
    b"\0", b"\r", b"quit\r\n", b"delete q noreply\r\n", b"\r\n\r\nset q 0 0 2\r\n", b"\xff\xfe", b"\r\n" * 50,
)  # fmt: skip
"""Payloads that would do harm if the server interpreted them."""

SIZES: Final = (
    CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, MAX_ITEM_BYTES, MAX_ITEM_BYTES + 1,
)  # fmt: skip
"""The sizes of items with several chunks, or nearly so."""

EXPIRIES: Final = (0, 0, 0, -1, 1, 5, 999_999, EPOCH - 3, EPOCH + 3, 10**18 - 1)
WAITS: Final = (250, 1000, 60_000, 10**15)


@frozen
class Put:
    """Put an item."""

    queue: bytes
    flags: int
    expiry: int
    payload: bytes
    noreply: bool
    id: bytes = b""
    never: bool = False
    """Whether it is delayed beyond the end of the test."""


@frozen
class Read:
    """Read a queue."""

    queue: bytes
    wait: int = 0
    open: bool = False
    close: bool = False
    abort: bool = False
    peek: bool = False


@frozen
class ReadMany:
    """Read several queues."""

    queues: tuple[bytes, ...]


@frozen
class Drop:
    """Flush queues, or delete one."""

    queues: tuple[bytes, ...]
    """None means all."""
    delete: bool
    reply: bytes


@frozen
class Expire:
    """Drop the expired items of one queue or of all."""

    queues: tuple[bytes, ...]
    """None means all."""


@frozen
class Say:
    """A command that does nothing and always has this reply."""

    reply: bytes


@frozen
class Part:
    """Send this, if anything, and close the connection."""

    reply: bytes


@frozen
class Figures:
    """Statistics of the server and its queues."""


@frozen
class Dump:
    """Statistics of queues."""

    queues: tuple[bytes, ...]


Meaning = Union[Put, Read, ReadMany, Drop, Expire, Say, Part, Figures, Dump]


@frozen
class Command:
    text: bytes
    """All bytes of the command, including payload and line ends."""
    meaning: Meaning


def _line(choices: Choices, *words: bytes) -> bytes:
    """Spell a line in one of several ways with the same meaning."""
    style = choices.byte()
    first = words[0].upper() if style & 1 else words[0]
    space = b"   " if style & 2 else b" "
    line = space.join([first, *words[1:]])
    if style & 4:
        line = b" " + line + b" "
    return line + (b"\n" if style & 8 else b"\r\n")


def _payload(choices: Choices) -> bytes:
    kind = choices.byte()
    if kind < 64:
        return choices.bytes(kind)
    if kind >= 250:
        size = choices.of(SIZES)
        return (choices.of(PAYLOADS) or b"x").ljust(size, b"\r\nget q\r\n"[kind - 250 : kind - 249])
    return PAYLOADS[kind % len(PAYLOADS)]


_OPTIONS: Final = (
    (b"", b""), (b"/sync", b""), (b"/", b""), (b"//SYNC", b""), (b"/id=a", b"a"), (b"/ID=a/sync", b"a"),
    (b"/id=A", b"A"), (b"/id=x/id==", b"="), (b"/delay=0", b""), (b"/Delay=999999999999999999", b""),
    (b"/id=a/delay=9999999999999", b"a"),
)  # fmt: skip
"""The options of a set, and the id in them."""


def put(choices: Choices) -> Command:
    """@return: a set."""
    name, payload = choices.of(NAMES), _payload(choices)
    flags, expiry = choices.of((0, 7, 2**32 - 1)), choices.of(EXPIRIES)
    style = choices.byte()
    noreply = bool(style & 1)
    options, id = choices.of(_OPTIONS)
    words = [b"set", name + options, b"%d" % flags, b"%d" % expiry]
    words += [b"%d" % len(payload), *[b"NoReply"] * noreply]
    text = _line(choices, *words) + payload + b"\r\n"
    if len(payload) > MAX_ITEM_BYTES:
        return Command(text, Say(b"" if noreply else b"SERVER_ERROR object too large\r\n"))
    return Command(text, Put(name, flags, expiry, payload, noreply, id, b"=9999" in options))


def _read(choices: Choices) -> Command:
    name, kind = choices.of(NAMES), choices.byte()
    options = ((), ("open",), ("close",), ("abort",), ("peek",), ("close", "open"), ("open", "close"))[kind % 7]
    wait = choices.of(WAITS) if kind & 128 and "abort" not in options else 0
    key = b"/".join([name, *(option.encode() for option in options), *[b"t=%d" % wait] * bool(wait)])
    if kind & 64:
        key = name + key[len(name) :].upper() + b"/"
    wait = min(wait, 2**31 - 1)
    meaning = Read(
        name, wait, "open" in options, "close" in options, "abort" in options, "peek" in options
    )
    return Command(_line(choices, choices.of((b"get", b"gets")), key), meaning)


def _read_many(choices: Choices) -> Command:
    names = tuple(choices.of(NAMES) for _ in range(2 + choices.byte() % 4))
    return Command(_line(choices, b"get", *names), ReadMany(names))


def _drop(choices: Choices) -> Command:
    kind, name = choices.byte() % 6, choices.of(NAMES)
    if kind == 0:
        return Command(_line(choices, b"flush", name), Drop((name,), False, b"END\r\n"))
    if kind == 1:
        return Command(_line(choices, b"delete", name), Drop((name,), True, b"DELETED\r\n"))
    if kind == 2:
        return Command(_line(choices, b"delete", name, b"0", b"noreply"), Drop((name,), True, b""))
    if kind == 3:
        return Command(_line(choices, b"flush_all"), Drop((), False, b"Flushed all queues.\r\n"))
    if kind == 4:
        return Command(_line(choices, b"flush_all", b"0"), Drop((), False, b"OK\r\n"))
    return Command(_line(choices, b"flush_all", b"noreply"), Drop((), False, b""))


def _expire(choices: Choices) -> Command:
    if choices.byte() % 2:
        return Command(_line(choices, b"flush_all_expired"), Expire(()))
    name = choices.of(NAMES)
    return Command(_line(choices, b"flush_expired", name), Expire((name,)))


def _tell(choices: Choices) -> Command:
    kind, name = choices.byte() % 3, choices.of(NAMES)
    if kind == 0:
        return Command(_line(choices, b"stats"), Figures())
    if kind == 1:
        return Command(_line(choices, b"dump_stats"), Dump(()))
    return Command(_line(choices, b"dump_stats", name), Dump((name,)))


_REFUSED: Final = (
    (b"set q x 0", b"bad flags"),
    (b"set q 4294967296 0", b"bad flags"),
    (b"set q 0 soon", b"bad expiry"),
    (b"set q/later 0 0", b"unknown option of set"),
    (b"set q/id= 0 0", b"bad id"),
    (b"set q/sync/id 0 0", b"bad id"),
    (b"set q/id=%b 0 0" % (b"x" * 251), b"bad id"),
    (b"set /sync 0 0", b"bad queue name"),
    (b"set %b 0 0" % (b"x" * 251), b"bad queue name"),
    (b"set \x80 0 0", b"bad queue name"),
)


def _refused_put(choices: Choices) -> Command:
    """A set that is refused because of its line; its payload must be skipped."""
    (line, reason), payload, noreply = choices.of(_REFUSED), _payload(choices), choices.byte() & 1
    text = b"%b %d%b\r\n%b\r\n" % (line, len(payload), b" noreply" * noreply, payload)
    return Command(text, Say(b"" if noreply else b"CLIENT_ERROR %b\r\n" % reason))


_WRONG: Final = (
    (b"", b"ERROR"),
    (b"incr q 1", b"ERROR"),
    (b"\xff\0", b"ERROR"),
    (b"get", b"CLIENT_ERROR get needs a queue name"),
    (b"get q/abort/t=5", b"CLIENT_ERROR abort must be by itself"),
    (b"get q/peek/close", b"CLIENT_ERROR cannot close and peek"),
    (b"get q r/open", b"CLIENT_ERROR bad queue name"),
    (b"get q/t=", b"CLIENT_ERROR bad wait"),
    (b"flush", b"CLIENT_ERROR flush needs one queue name"),
    (b"delete /", b"CLIENT_ERROR bad queue name"),
    (b"flush_all 10", b"CLIENT_ERROR flush_all cannot be delayed"),
    (b"reload items", b"CLIENT_ERROR reload takes no arguments"),
    (b"g" * 2048, b"ERROR"),
)


def _wrong(choices: Choices) -> Command:
    line, reply = choices.of(_WRONG)
    return Command(line + choices.of((b"\r\n", b"\n")), Say(reply + b"\r\n"))


def _part(choices: Choices) -> Command:
    return Command(*choices.of((
        (b"quit\r\n", Part(b"")),
        (b"set q 0 0 -1\r\n", Part(b"CLIENT_ERROR bad command line format\r\n")),
        (b"set q 0 0 3\r\nabcdefg\r\n", Part(b"CLIENT_ERROR bad data chunk\r\n")),
        (b"set q 0 0 3\r\nabc\n\n", Part(b"CLIENT_ERROR bad data chunk\r\n")),
        (b"g" * 2050, Part(b"CLIENT_ERROR line too long\r\n")),
    )))  # fmt: skip


_KINDS: Final[tuple[Callable[[Choices], Command], ...]] = (
    put, put, put, put, _read, _read, _read, _read, _read_many, _drop, _expire, _tell, _refused_put,
    _wrong, _part,
)  # fmt: skip


def command(choices: Choices) -> Command:
    """@return: any command."""
    return choices.of(_KINDS)(choices)
