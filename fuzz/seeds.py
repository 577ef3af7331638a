"""
``python -m fuzz.seeds``: writes the seeds again.

They are small, and the same each time.  Inputs that once broke something are beside them, under other names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from random import Random
from struct import pack
from typing import Final

from darner.store.backup.archive import END, header, padding
from darner.store.backup.contents import MANIFEST, BackupFile, Contents

CORPUS: Final = Path(__file__).parent / "corpus"
PROTOCOL: Final = Path(__file__).parent.parent / "docs" / "protocol.rst"

LINES: Final = (
    b"set q 0 0 5", b"set q/sync 4294967295 1700000000 0 noreply", b"SET q//SYNC 1 -1 5 NoReply", b"set q 0 0",
    b"set q 4294967296 0 5", b"set q 0 soon 5", b"set q/later 0 0 5", b"set /sync 0 0 5", b"set q 0 0 -1",
    b"set q/id=a 0 0 1", b"set q/delay=99999999999999999/id=a 0 0 1", b"set q/ID=b=c/sync 0 0 1 noreply",
    b"set q/id= 0 0 1",
    b"set q 0 0 999999999999999999", b"set q 0 0 9999999999999999999", b"set q 0 0 5 please noreply", b"get q",
    b"gets q", b"get q/open", b"get q/close/open/t=100", b"get q/peek/t=999999999999", b"get q/abort", b"get q/close",
    b"get q/peek/close/open", b"get q/abort/t=5", b"get q/t=", b"get q/T=5//OPEN/", b"get a b a", b"get a b/open",
    b"get /", b"get", b"delete q", b"delete q 0 noreply", b"delete noreply", b"delete a/b", b"flush q", b"flush a b",
    b"flush_all", b"flush_all noreply", b"flush_all 0", b"flush_all -1 noreply", b"flush_all 10", b"stats",
    b"touch q", b"touch q 0 noreply", b"touch q 5", b"requeue q r", b"requeue q r 10", b"requeue q q", b"requeue q",
    b"stats items", b"dump_stats", b"dump_stats a b", b"version", b"quit", b"incr q 1", b"", b"  set  q  0 0  1  \r",
    b"set \xb2 0 0 \xb2", b"get " + b"x" * 251, b"set \x00 0 0 1\x0b", b"get ..\tq\x0c", b"monitor q 1", b"GET Q",
    b"dump_config", b"dump_config a b", b"reload", b"shutdown", b"status", b"status ReadOnly", b"status down",
    b"flush_expired q", b"flush_expired", b"flush_all_expired",
    b"get a b a/open/t=5", b"get a/t=0 b/t=0", b"get a b/close/open/T=0", b"get a b/abort/t=0", b"monitor q 5 10",
    b"monitor q 1 x", b"monitor q 99999999999", b"monitor q", b"confirm q 10", b"confirm q", b"confirm q 0 0",
)  # fmt: skip
"""Every command and option once, and some of each kind of error."""

REPLIES: Final = (
    b"STORED\r\nNOT_STORED\r\n", b"VALUE q 7 3\r\nabc\r\nEND\r\nEND\r\n", b"VALUE q/open 0 0\r\n\r\nEND\r\n",
    b"VALUE q 0 1\r\na\r\nVALUE q 0 1\r\nb\r\nEND\r\nVERSION 1\r\n",
    b"VALUE q 0 1\r\na\r\nEND\r\nEND\r\nVERSION 1\r\nEND\r\n", b"VALUE q 0 99999999\r\nx", b"VALUE q 0 1\r\nabc",
    b"STAT a b c\r\nEND\r\n", b"queue 'q' {\r\n  a=b\r\n}\r\nEND\r\n", b"5\r\nDELETED\r\n", b"TOUCHED\r\nNOT_FOUND\r\n",
    b"SERVER_ERROR too many connections\r\n", b"CLIENT_ERROR oh\r\nERROR\r\n", b"UP\r\nVERSION 1\r\nOK\r\n",
)  # fmt: skip
"""Replies of servers, valid and invalid."""

PAGES: Final = (
    b"/", b"/health?live", b"/stats.json", b"/metrics", b"/api/v1/openapi.json", b"/api/v1/session", b"/api/v1/server",
    b"/api/v1/queues?filter=q*&sort=items&order=desc&limit=5&sparkline=true", b"/api/v1/queues/q", b"/api/v1/clients",
    b"/api/v1/queues/q/items?state=ready&contains=x&preview=5", b"/api/v1/queues/q/items/0/payload", b"/static/a.js",
    b"/api/v1/queues/q/history", b"/api/v1/queues/%ff/items?after=1-1&state=delayed", b"/api/v1/events?queues=q",
)
CHANGES: Final = (
    (b"POST /api/v1/queues/q/items", b'{"payload":"a","delay_ms":5,"flags":1,"id":"x"}'),
    (b"POST /api/v1/queues/q/items/delete", b'{"state":"ready","filter":{"contains":"x"}}'),
    (b"POST /api/v1/queues/q/items/move", b'{"ids":["0"],"target":"r"}'), (b"DELETE /api/v1/queues/q", b""),
    (b"POST /api/v1/queues/q/open", b'{"open_ms":5}'), (b"POST /api/v1/queues/r/take", b'{"timeout_ms":100}'),
    (b"POST /api/v1/queues/q/flush", b""), (b"PUT /api/v1/status", b'{"status":"readonly"}'),
    (b"POST /api/v1/session", b'{"user":"a","password":"b"}'), (b"POST /api/v1/queues/q/requeue", b'{"target":"r"}'),
    (b"POST /api/v1/queues/q/items", b'[[[[{"a":1e999}]]]]'), (b"DELETE /api/v1/clients/1", b""),
)
"""What is asked of the HTTP side."""

STREAMS: Final = (
    b"set q 0 0 3\r\nabcdefg\r\n",
    b"set q 0 0 12\r\n\r\nflush_all\r\n\r\nget q\r\n",
    b"set q x 0 8\r\nget q\r\n\r\n\r\nversion\r\n",
    b"set q 0 0 9 noreply\r\nget q/t=9\r\nget q\r\nstats\n",
    b"get q/t=1000\r\nset q 0 0 1\r\nx\r\nget q/open/t=5\r\nquit\r\nversion\r\n",
    b"set q 0 0 4\r\nEND\r\r\nget q/open\r\nget q\r\nget q/abort\r\nget q/peek\r\ndelete q\r\ndump_stats q\r\n",
    b"set q 0 0 200000\r\nget q\r\n",
    b"set q 0 -1 1\r\nx\r\nset q 0 1 1\r\ny\r\nget q\r\nget q r\r\nflush q\r\nflush_all 0\r\n",
    b"set q/id=a 0 0 1\r\nx\r\nset q/id=a 0 0 1\r\ny\r\nset q/id=b 0 0 1\r\nz\r\ndelete q\r\nset q/id=a 0 0 1\r\nx\r\n",
    b"g" * 2100,
    b"VALUE q 0 5\r\nhello\r\nEND\r\n\0\0\n\r\n\n",
)

NAMES: Final = (
    b"..", b".", b"CON", b"NUL", b"~", b"$HOME", b"`id`", b"$(id)", b"a'b\"c\\d", b"%2e%2e%2f", b"..\\..\\x", b"C:",
    b"CURRENT", b"LOCK", b"MANIFEST-000001", b"000001.log", b"darner", b"leveldb", b"reserve", b"*", b"?", b"-rf",
    b"x" * 250, b"x" * 251, b"../../x", b"/tmp/x", b"a/b", b"\x00", b"a\x00b", b"\xff\xfe", b"\x7f", b"q\x1b[2J",
)  # fmt: skip
"""Names that would do harm as file names, and invalid queue names."""


def wire() -> Iterator[bytes]:
    yield from LINES
    yield b"\n".join(LINES)


_OPENS: Final = bytes([0, 4, 0, 1, 0, 0])
_WAITS: Final = bytes([0, 4, 3, 133, 1, 0, 0])
_EVENTS: Final = (
    bytes([112, 2]), bytes([116, 3]), bytes([116, 6]), bytes([119]), bytes([121]),
    bytes([122, 0, 65, 0, 0, 0, 0, 0, 12]), bytes([126, 0, 65, 0, 0, 0, 0, 0, 200]),
)  # fmt: skip
"""Commands and events as `fuzz.protocol` reads them."""


def protocol() -> Iterator[bytes]:
    for way in range(8):
        for length in (40, 80):
            yield bytes([way]) + Random(way * length).randbytes(length)
    for kind in range(14):
        # A few sets, then commands of one kind with random contents.
        random = Random(kind)
        sets = _sets()
        yield bytes([kind]) + sets + b"".join(bytes([128 * (n % 2), kind]) + random.randbytes(6) for n in range(8))


    for way, event in enumerate(_EVENTS):
        for before in (_OPENS, _WAITS):
            yield bytes([way]) + _sets() + before + event + _sets() + bytes([121])


def _sets() -> bytes:
    return b"".join(bytes([0, 0, queue, 65 + queue, 1, 0, 0, 0, 0]) for queue in range(3))


def stream() -> Iterator[bytes]:
    for number, text in enumerate([*STREAMS, *_sessions()]):
        yield bytes([number * 128 % 256]) + text


def _sessions() -> Iterator[bytes]:
    """The client's lines of the sessions in docs/protocol.rst."""
    for block in re.findall(rb"(?:^    [CS]:.*\n)+", PROTOCOL.read_bytes(), re.MULTILINE):
        sent = [line[7:] + b"\r\n" for line in block.splitlines() if line.startswith(b"    C:")]
        yield b"".join(sent)


def files() -> Iterator[bytes]:
    for at in range(0, len(NAMES), 8):
        yield b"\n".join(NAMES[at : at + 8])


def client() -> Iterator[bytes]:
    """Each request with a valid reply, and with invalid ones."""
    for number in range(28):
        yield bytes([2, number, number % 4, number % 7, number, 0, 1]) + REPLIES[number % len(REPLIES)]
    for reply in REPLIES:
        yield b"\0" + reply
        yield bytes([3, 12, 0, 0, 4, 0, 0, 20, 0, 0]) + reply


def migrate() -> Iterator[bytes]:
    """Journals of Kestrel with each operation, binlogs of beanstalkd, and records of the C++ Darner."""
    addx = pack("<Biqq", 2, 17, 1, 0) + b"a"
    operations = (
        pack("<Bii", 0, 5, 0) + b"o", b"\1", addx, b"\3", pack("<Bi", 4, 7), pack("<Bi", 5, 8), pack("<Bi", 6, 8),
        pack("<Biiqq", 7, 5, 18, 1, 0) + b"xy", pack("<Biiqq", 8, 8, 17, 1, 0) + b"c", pack("<Bi", 9, 8),
        pack("<Bii", 8, 3, 2),
    )  # fmt: skip
    for operation in operations:
        yield b"\0" + 3 * addx + pack("<Bi", 9, 8) + operation + b"\3" + addx
    yield b"\0" + addx + b"\xff\xfe" + addx + b"\3\xff\xfe" + addx + b"\1\x0a"
    for kind, name, numbers in ((0x70, "<Q", "<QI4xQQi4xQQIIIIIB"), (0x90, "<i", "<QI4xqqi4xqqIIIIIB3x")):
        for state in range(5):
            jobs = [
                pack(name, 1) + b"t" + pack(numbers, id, 9 - id, 0, 0, 3, 5, 6, 0, 0, 0, 0, 0, state or 1) + b"b\r\n"
                for id in (1, 2, 3)
            ]
            change = pack(name, 0) + pack(numbers, 2, 1, 0, 0, 3, 5, 6, 0, 0, 0, 0, 0, state)
            yield bytes([kind]) + b"".join(jobs) + change
    yield b"\xb0" + b"".join(bytes([kind, number, 2]) + b"a\0" for number in range(4) for kind in range(4))
    yield b"\xb0" + b"".join(bytes([2, number, 1]) + b"c" for number in range(4)) + bytes([3, 0, 3, 0, 0, 0])


def backup() -> Iterator[bytes]:
    """Streams of backups: a whole one, and what a hostile one may have."""
    current = BackupFile("leveldb/CURRENT", 16, "", sha256(b"MANIFEST-000002\n").hexdigest())
    member = header(current.name, 16, 0) + b"MANIFEST-000002\n" + padding(16)
    for files in ((current,), (), (current, current), (BackupFile("leveldb/x", 0, "ab"),)):
        manifest = Contents("1", 5, {"sequence": 7}, files).to_bytes()
        last = header(MANIFEST, len(manifest), 5) + manifest + padding(len(manifest))
        yield member + last + END
        yield member + last
    for name in ("../x", "/x", "leveldb/../../x", "x/y", MANIFEST):
        yield header(name, 3, 0) + b"abc" + padding(3) + END
    yield END


def _request(line: bytes, body: bytes = b"", *headers: bytes) -> bytes:
    lines = [line + b" HTTP/1.1", b"Host: localhost", *headers]
    if body:
        lines += [b"Content-Length: %d" % len(body)]
    if not line.startswith((b"GET", b"HEAD")):
        lines += [b"X-Darner-Request: 1", b"Content-Type: application/json"]
    return b"\n".join([*lines, b"", b""]) + body


def http() -> Iterator[bytes]:
    for number, line in enumerate(PAGES):
        yield bytes([number * 16 % 256]) + _request(b"GET " + line) + _request(b"GET /ping")
    for number, (line, body) in enumerate(CHANGES):
        yield bytes([number * 16 % 256]) + _request(line, body) + _request(b"GET /ping")
    yield b"\0" + _request(b"GET /ping", b"", b"Origin: http://evil") + _request(b"HEAD /health") + b"nonsense\n\n"
    yield b"\x80" + b"POST /api/v1/queues/q/items HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n3\nabc\n0\n\n"
    yield b"\0" + b"POST / HTTP/1.1\nHost: localhost\nContent-Length: 99999999999\n\nx"
    yield b"\0" + b"GET / HTTP/1.0\n\n"


SEEDS: Final = {
    "http": http, "client": client, "wire": wire, "protocol": protocol, "stream": stream, "files": files,
    "migrate": migrate, "backup": backup,
}  # fmt: skip


def main() -> None:
    for target, seeds in SEEDS.items():
        directory = CORPUS / target
        directory.mkdir(parents=True, exist_ok=True)
        for old in directory.glob("seed-*"):
            old.unlink()
        for number, seed in enumerate(seeds()):
            (directory / f"seed-{number:02}").write_bytes(seed)


if __name__ == "__main__":
    main()
