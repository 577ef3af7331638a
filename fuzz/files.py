"""
Queue names that look like paths, over a store on disk.

The files in the data directory must not depend on the names of queues, no files may be created beside it, and each
name must be the same after a restart.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from darner.store.leveldb import LevelStore
from fuzz.server import Server
from fuzz.wire import is_name


def check(data: bytes) -> None:
    """
    @param data: names of queues, one on each line.
    @raise AssertionError: a name shows in the file system, or is not kept.
    """
    # Together with the other words the line must not be too long.
    _check([name[:1900] for name in data.split(b"\n")][:32], _tame_files())


@cache
def _tame_files() -> frozenset[str]:
    """The files with a queue of a harmless name."""
    return _files([b"q"])


def _check(names: list[bytes], expected: frozenset[str]) -> None:
    found = _files(names)
    assert found == expected, found ^ expected


def _files(names: list[bytes]) -> frozenset[str]:
    """
    Work with queues of these names, then restart.

    @return: the paths of all files, including the data directory itself.
    """
    directory = Path(tempfile.mkdtemp(prefix="darner-fuzz-"))
    try:
        data = directory / "one" / "two" / "data"
        expected = _work(data, names)
        with _serving(data) as server:
            found = {}
            for name in server.queues.names():
                fifo = server.queues.find(name)
                assert fifo is not None
                item = fifo.peek()
                found[name] = item and item.payload
            assert found == expected, (found, expected)
        return frozenset(str(path.relative_to(directory)) for path in directory.rglob("*"))
    finally:
        shutil.rmtree(directory)


@contextmanager
def _serving(data: Path) -> Iterator[Server]:
    store = LevelStore(data)
    try:
        with Server(store) as server:
            yield server
            server.check_faults()
    finally:
        store.close()


def _work(data: Path, names: list[bytes]) -> dict[bytes, bytes]:
    """@return: the queues that must exist after that, and the payload of their one item."""
    expected = {}
    with _serving(data) as server:
        for name in names:
            client = server.client()
            command = b"set %b 0 0 %d\r\n%b\r\n" % (name, len(name), name)
            client.send([command])
            if client.heard != b"STORED\r\n":
                assert not is_name(name), name
                continue
            # The server ignores spaces around a name and empty options after it.
            queue, *options = name.strip().split(b"/")
            assert is_name(queue), name
            assert not {option.lower() for option in options} - {b"", b"sync"}, name
            client.send([b"flush %b\r\nget %b/open\r\n%bget %b/peek\r\n" % (queue, queue, command, queue)])
            client.hang_up()
            expected[queue] = name
    return expected
