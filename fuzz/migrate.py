"""
Files of other servers, with anything in them: they are read to a place that is told, or to the end.

What is in a journal of Kestrel or a binlog of beanstalkd is worked out here once more, in memory.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import closing
from pathlib import Path
from struct import pack, unpack_from
from typing import Optional

from darner.migrate.beanstalkd import Beanstalkd
from darner.migrate.cpp_darner import CppDarner
from darner.migrate.kestrel import Kestrel
from darner.migrate.sources import Findings, Source, SourceError, Unreadable, queue_name
from darner.store.files.crc32c import crc32c, masked

Contents = dict[bytes, list[bytes]]
"""Payloads by queue."""


def check(data: bytes) -> None:
    """
    @param data: which kind of source it is, and what is in its files.
    @raise AssertionError: they are read wrongly, or not the same way each time.
    """
    directory = Path(tempfile.mkdtemp(prefix="darner-fuzz-"))
    kind, body = data[:1], data[1:]
    try:
        if kind < b"\x60":
            files = body.split(b"\xff\xfe")[:3]
            for number, contents in enumerate(files):
                (directory / (f"q.{number}" if number < len(files) - 1 else "q")).write_bytes(contents)
            _check(Kestrel(directory), {b"q": _journal(files)})
        elif kind < b"\xa0":
            version = 5 if kind < b"\x80" else 7
            (directory / "binlog.1").write_bytes(pack("<i", version) + body)
            _check(Beanstalkd(directory), _binlog(body, version))
        else:
            _write_queue(directory / "q", body)
            _check(CppDarner(directory), None)
    finally:
        shutil.rmtree(directory)


def _read(source: Source) -> tuple[Contents, list[str]]:
    findings = Findings()
    found: Contents = {}
    for queue in source.queues(findings):
        payloads = found.setdefault(queue.target, [])
        for item in queue.items(findings):
            try:
                payload = b"".join(item.pieces)
            except Unreadable as error:
                findings.lose(error.place, error.reason)
                continue
            assert len(payload) == item.size, (item, payload)
            payloads.append(payload)
    return found, [str(loss) for loss in findings.losses]


def _check(source: Source, expected: Optional[Contents]) -> None:
    with closing(source):
        before = source.fingerprint()
        try:
            found = _read(source)
        except SourceError:
            assert expected is None
            return
        assert _read(source) == found
        assert source.fingerprint() == before
        assert expected is None or found[0] == expected, (found, expected)


def _journal(files: list[bytes]) -> list[bytes]:
    """@return: what is left in a queue of Kestrel."""
    queue: list[tuple[int, bytes]] = []
    opened: dict[int, bytes] = {}
    last = 0
    for data in files:
        at = 0
        while at < len(data):
            code, at = data[at], at + 1
            xid = size = 0
            if code in (4, 5, 6, 7, 8, 9):
                if at + 4 > len(data):
                    break
                xid, at = unpack_from("<i", data, at)[0], at + 4
            if code in (0, 2, 7, 8):
                if at + 4 > len(data):
                    break
                size, at = unpack_from("<i", data, at)[0], at + 4
                if code == 8 and 0 <= size < 16:
                    last = xid
                    continue
                head = 4 if code == 0 else 16
                if size < head or at + size > len(data):
                    break
                if code == 8:
                    opened.pop(xid, None)
                queue.append((xid if code == 7 else 0, data[at + head : at + size]))
                at += size
            elif code == 1:
                del queue[:1]
            elif code == 3 and queue:
                named, payload = queue.pop(0)
                if not named:
                    last += 1
                    while last in opened or not last:
                        last += 1
                opened[named or last] = payload
            elif code == 9:
                if queue:
                    opened[xid] = queue.pop(0)[1]
                last = xid
            elif code == 4:
                last = xid
            elif code == 5 and xid in opened:
                queue.insert(0, (0, opened.pop(xid)))
            elif code == 6:
                opened.pop(xid, None)
            elif code > 9:
                break
    return [*(opened[xid] for xid in sorted(opened)), *(payload for _, payload in queue)]


def _binlog(data: bytes, version: int) -> Contents:
    """@return: what is left in tubes of beanstalkd, in the order of the queues."""
    jobs: dict[int, tuple[bytes, int, int, int, bytes]] = {}
    length, numbers = (8, 77) if version == 5 else (4, 80)
    at = 0
    while at + length <= len(data):
        named = int.from_bytes(data[at : at + length], "little")
        start = at + length + named
        if named > 200 or start + numbers > len(data):
            break
        id, priority = unpack_from("<QI", data, start)
        (size,) = unpack_from("<i", data, start + 32)
        (deadline,) = unpack_from("<Q" if version == 5 else "<q", data, start + 48)
        state = data[start + 76]
        end = start + numbers + (size if named else 0)
        if not 0 < id < 2**63 or state > 4 or size < 2 or end > len(data):
            break
        due = deadline // 1000 if version == 5 else deadline // 1_000_000
        if not state:
            jobs.pop(id, None)
        elif named:
            body = data[start + numbers : end - 2]
            jobs[id] = (data[at + length : start], state, priority, due, body)
        elif id in jobs:
            tube, _, _, _, body = jobs[id]
            jobs[id] = (tube, state, priority, due, body)
        at = end
    found: Contents = {}
    for tube, buried in sorted({(tube, state == 3) for tube, state, *_ in jobs.values()}):
        kept = [(id, *job) for id, job in jobs.items() if job[0] == tube and (job[1] == 3) == buried]
        kept.sort(key=lambda job: (job[2] == 4, job[4] if job[2] == 4 else 0 if buried else job[3], job[0]))
        name = queue_name(tube + b".buried" if buried else tube)
        found.setdefault(name, []).extend(job[5] for job in kept)
    return found


def _write_queue(path: Path, data: bytes) -> None:
    """Make what is left of a LevelDB: a log with records whose keys and values are in C{data}."""
    path.mkdir()
    writes = b""
    count = at = 0
    while at + 3 <= len(data):
        kind, number, size = data[at] % 4, data[at + 1], data[at + 2]
        value = data[at + 3 : at + 3 + size]
        if kind == 3:
            value = pack("<QQQ", number % 8, number % 8 + size % 5, max(0, 1024 * (size % 5) - number)) + b"\1\0"
        elif kind == 2:
            value = value.ljust(1024, b"x") if size % 8 else value
        key = pack("<QB", number, 2 if kind == 2 else 1)
        writes += b"\1" + bytes([len(key)]) + key + bytes([len(value) % 128 | 128, len(value) // 128]) + value
        count += 1
        at += 3 + size
    record = pack("<QI", 1, count) + writes
    blocks, first = b"", True
    while record or first:
        piece, record = record[: 32768 - 7], record[32768 - 7 :]
        kind = (1 if not record else 2) if first else (3 if record else 4)
        blocks += pack("<IHB", masked(crc32c(bytes([kind]) + piece)), len(piece), kind) + piece
        first = False
    (path / "000003.log").write_bytes(blocks)
