"""
Stores to be damaged, ways to damage them, and what must be so whatever was damaged.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final
from unittest.mock import patch

from attrs import define, field
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock

from darner.queues.collection import Queues
from darner.queues.surroundings import Surroundings
from darner.store.database import Database
from darner.store.files.manifest import Manifest, current
from darner.store.files.names import tables
from darner.store.leveldb import LevelStore
from darner.values.items import PutOptions
from darner.values.vocabulary import CHUNK_BYTES
from test.harness import Asker

EPOCH = 1_700_000_000


def contents(path: Path) -> dict[str, bytes]:
    """@return: the bytes of every file below a directory."""
    return {
        str(entry.relative_to(path)): b"" if entry.is_dir() else entry.read_bytes() for entry in path.rglob("*")
    }


def live_tables(path: Path) -> dict[int, Path]:
    """@return: the tables of the store in a data directory, without what a merge that was cut short has left."""
    database = path / "leveldb"
    expected = Manifest(current(database)).tables
    return {number: table for number, table in tables(database).items() if number in expected}


def payload(queue: bytes, id: int, size: int) -> bytes:
    """@return: a payload of which every part tells whose it is."""
    word = b"%b %d of %d." % (queue, id, size)
    return (word * (size // len(word) + 1))[:size]


@define
class Kept:
    """
    What a store holds.

    @ivar put: every payload that was ever put, by queue, in order.
    @ivar left: the places of those of them that were not taken.
    @ivar names: all queues.
    """

    put: dict[bytes, list[bytes]] = field(factory=dict)
    left: dict[bytes, list[int]] = field(factory=dict)

    @property
    def count(self) -> int:
        return sum(map(len, self.left.values()))


DELAY: Final = 3600 * 1000
"""In ms: the shortest of any item that is delayed."""


class Keeper:
    """Queues over a store, without a reactor."""

    def __init__(self, store: LevelStore) -> None:
        self.store = store
        self.clock = Clock()
        surroundings = Surroundings(
            self.clock, lambda call: self.clock.callLater(0, call), maybeDeferred,
            lambda: EPOCH + self.clock.seconds(),
        )  # fmt: skip
        self.queues = Queues(store, surroundings)
        self.queues.start()

    def put(self, kept: Kept, queue: bytes, size: int, together: bool = False, delayed: bool = False) -> None:
        """Put an item, with a turn of its own or C{together} with the next; it may be C{delayed}."""
        known = kept.put.setdefault(queue, [])
        data = payload(queue, len(known), size)
        options = PutOptions(DELAY + len(known) * 1000) if delayed else None
        if size > CHUNK_BYTES:
            inflow = self.queues.puts.inflow()
            for at in range(0, size, 50_000):
                inflow.write(data[at : at + 50_000])
            Asker(self.queues).put_flow(queue, inflow, options, 5)
        else:
            Asker(self.queues).put(queue, data, options, 5)
        kept.left.setdefault(queue, []).append(len(known))
        known.append(data)
        if not together:
            self.clock.advance(0)

    def take(self, kept: Kept, queue: bytes, count: int, skip: int = 0) -> None:
        """Take items behind those that are skipped."""
        fifo = self.queues.make(queue)
        reads = [fifo.open() for _ in range(skip + count)]
        for read in reads[skip:]:
            assert read is not None
            read.close()
        for read in reads[:skip]:
            assert read is not None
            read.abort()
        del kept.left[queue][skip : skip + count]
        self.clock.advance(0)

    def rest(self) -> None:
        """Let a while go by, in which room is given back."""
        for _ in range(6):
            self.clock.advance(1)

    def everything(self, wait: bool = True) -> dict[bytes, list[bytes]]:
        """
        @param wait: until what is delayed is to be had, and room is given back.
        @return: the payload of each item that is to be had, by queue; nothing is taken.
        @raise darner.errors.StoreError: one cannot be read.
        """
        found = {}
        if wait:
            self.clock.advance(2 * DELAY / 1000)
            self.rest()
        for name in self.queues.names():
            fifo = self.queues.make(name)
            reads = [fifo.open() for _ in range(fifo.count)]
            found[name] = [self._payload(read.item) for read in reads if read is not None]
            assert len(found[name]) == len(reads), f"{name!r} has fewer items than it says"
            for read in reads:
                if read is not None:
                    assert read.item.flags == 5
                    read.abort()
            assert fifo.storage.contents.bytes == sum(map(len, found[name])), f"{name!r} has other bytes than it says"
        return found

    def _payload(self, item: Any) -> bytes:
        if item.stream:
            return b"".join(self.queues.reads.outflow(item, lambda: None))
        data: bytes = item.payload
        return data

    def close(self) -> None:
        self.queues.reclaimer.stop()
        self.store.close()


def make_store(path: Path, random: Random) -> Kept:
    """Make a store with several queues, large items, holes, a deleted queue, several tables and a log."""
    kept = Kept()
    with patch.object(Database, "WRITE_BUFFER", 64 * 1024):
        keeper = Keeper(LevelStore(path))
        for number in range(150):
            keeper.put(kept, b"jobs", random.randrange(20, 400), together=random.random() < 0.4)
            keeper.put(kept, b"mails", random.choice([20, 30, 800, 5000]), together=random.random() < 0.7)
            if number % 40 == 0:
                keeper.put(kept, b"images", random.randrange(CHUNK_BYTES + 1, 2 * CHUNK_BYTES))
            if number % 50 == 0:
                keeper.put(kept, b"deleted", 3000)
            if number % 10 == 0:
                keeper.put(kept, b"later", random.choice([10, 20, 300, CHUNK_BYTES + 5000]), delayed=True)
            if number == 60:
                keeper.take(kept, b"jobs", 30)
                keeper.take(kept, b"images", 1, skip=1)
        keeper.take(kept, b"jobs", 20, skip=5)
        keeper.take(kept, b"jobs", 10, skip=12)
        keeper.rest()
        keeper.put(kept, b"drained", 20)
        keeper.take(kept, b"drained", 1)
        keeper.queues.forget(b"deleted")
        keeper.rest()
        del kept.left[b"deleted"]
        keeper.close()
        keeper = Keeper(LevelStore(path))
        for number in range(30):
            keeper.put(kept, b"mails", 3000)
            keeper.put(kept, b"jobs", random.randrange(20, 60))
            if number == 15:
                keeper.put(kept, b"images", 2 * CHUNK_BYTES + 1)
                keeper.take(kept, b"jobs", 3)
        keeper.close()
    keeper = Keeper(LevelStore(path))
    for _ in range(40):
        keeper.put(kept, b"late", 200)
        keeper.put(kept, b"later", 200, delayed=True)
        keeper.put(kept, b"jobs", 300)
    keeper.put(kept, b"late", CHUNK_BYTES + 5000)
    keeper.take(kept, b"late", 3)
    keeper.take(kept, b"mails", 2)
    keeper.close()
    return kept


# Damages ---------------------------------------------------------------------------------------------------------

Damage = Callable[[Random, Path], None]
"""Damages a file."""


def flip(random: Random, path: Path) -> None:
    """One to three bits are not what they were."""
    data = bytearray(path.read_bytes())
    for _ in range(random.choice([1, 1, 1, 2, 3]) if data else 0):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    path.write_bytes(data)


def overwrite(random: Random, path: Path) -> None:
    """A part is zeros, or something else."""
    data = bytearray(path.read_bytes())
    start = random.randrange(len(data) + 1)
    stop = min(len(data), start + random.choice([1, 16, 512, 4096, 60_000]))
    data[start:stop] = bytes(stop - start) if random.random() < 0.5 else random.randbytes(stop - start)
    path.write_bytes(data)


def truncate(random: Random, path: Path) -> None:
    size = path.stat().st_size
    os.truncate(path, random.choice([size // 2, max(0, size - random.randrange(1, 60)), random.randrange(size + 1)]))


def empty(random: Random, path: Path) -> None:
    os.truncate(path, 0)


def remove(random: Random, path: Path) -> None:
    path.unlink()


def append(random: Random, path: Path) -> None:
    with path.open("ab") as file:
        file.write(random.choice([bytes, random.randbytes])(random.choice([1, 100, 5000, 40_000])))


def swap(random: Random, path: Path) -> None:
    """Its contents are those of another file, and the other way round."""
    alike = [other for other in sorted(path.parent.iterdir()) if other.is_file() and other.suffix == path.suffix]
    others = [other for other in alike if other != path]
    if others:
        other = random.choice(others)
        data = path.read_bytes()
        path.write_bytes(other.read_bytes())
        other.write_bytes(data)


def add(random: Random, path: Path) -> None:
    """There is one file more."""
    name = random.choice(
        ["letter.txt", "000777.ldb", "core.1", f"{path.name}.bak", "MANIFEST-000999", "000998.log", "000997.seg"]
    )
    (path.parent / name).write_bytes(random.choice([b"", random.randbytes(300), path.read_bytes()]))


DAMAGES: tuple[Damage, ...] = (
    flip, flip, flip, overwrite, overwrite, truncate, truncate, empty, remove, append, swap, add
)  # fmt: skip
"""Each as often as it should be tried."""


def files(path: Path) -> list[Path]:
    """@return: the files of a store that are worth damaging, tables and logs several times."""
    found = []
    for file in sorted((path / "leveldb").iterdir()):
        times = {".ldb": 3, ".log": 4}.get(file.suffix, 1)
        if not file.name.startswith("LO"):
            found += [file] * times
    segments = sorted((path / "segments").glob("*.seg"))
    return [*found, *segments, *segments, path / "darner"]
