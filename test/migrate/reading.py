"""
What tests of sources share: directories that other servers wrote, and everything that is in a source.
"""

from __future__ import annotations

import hashlib
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

import plyvel

from darner.migrate.opening import open_source
from darner.migrate.sources import Findings, Source, SourceItem, Unreadable
from test import unpack

DATA = Path(__file__).parent.parent / "data"


def unpacked(name: str, directory: Path) -> Path:
    """@return: a directory that another server wrote, unpacked below this one."""
    with tarfile.open(DATA / f"{name}.tar.gz") as archive:
        unpack(archive, directory)
        return directory / archive.getnames()[0]


def whole(item: SourceItem) -> bytes:
    payload = b"".join(item.pieces)
    assert len(payload) == item.size
    return payload


def read(source: Source, findings: Findings) -> dict[bytes, list[bytes]]:
    """@return: the payloads of each queue, by the name of the queue that they are for."""
    found: dict[bytes, list[bytes]] = {}
    for queue in source.queues(findings):
        payloads = found.setdefault(queue.target, [])
        for item in queue.items(findings):
            try:
                payloads.append(whole(item))
            except Unreadable as error:
                findings.lose(error.place, error.reason)
    return found


def read_place(place: Path) -> tuple[dict[bytes, list[bytes]], list[str], dict[str, int]]:
    """@return: the payloads of each queue, what cannot be read, and what cannot be kept."""
    findings = Findings()
    source = open_source(str(place))
    try:
        found = read(source, findings)
    finally:
        source.close()
    return found, [str(loss) for loss in findings.losses], dict(findings.notes)


def snapshot(directory: Path) -> dict[str, Any]:
    """@return: what must stay as it is where nothing is changed: every file, its contents and its time."""
    return {
        str(path.relative_to(directory)): (path.stat().st_mtime_ns, hashlib.md5(path.read_bytes()).digest())
        for path in directory.rglob("*")
        if path.is_file()
    }


def _compare(one: bytes, other: bytes) -> int:
    left, right = ((key[8], int.from_bytes(key[:8], "little")) for key in (one, other))
    return (left > right) - (left < right)


def write_queue(path: Path, records: list[tuple[bytes, bytes]]) -> None:
    """Make a LevelDB with keys that are sorted as the C++ Darner's are."""
    path.mkdir(parents=True)
    with closing(
        plyvel.DB(
            str(path), create_if_missing=True, comparator=_compare, comparator_name=b"queue::comparator",
        )
    ) as database:  # fmt: skip
        for key, value in records:
            database.put(key, value)


def flip(path: Path, offset: int) -> None:
    """Change one byte of a file."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 255
    path.write_bytes(data)
