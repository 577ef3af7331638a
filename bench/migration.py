"""
``python -m bench.migration [--items=1000000] [--size=1024] [SOURCE ...]``: what an import takes of time and memory.

It makes files of other servers with so many items, imports them into a new data directory by ``python -m
darner.migrate``, in a process of its own, and counts what is there then.  Payloads are random, so that LevelDB does not
compress them.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random
from struct import pack

import plyvel

from darner.store.leveldb import LevelStore

BLOCK = 4 * 1024 * 1024
"""Random bytes from which payloads are cut."""


class Payloads:
    """Payloads of one size, each different."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._random = Random(1).randbytes(BLOCK + size)

    def __call__(self, number: int) -> bytes:
        at = number * 977 % BLOCK
        return (b"%010d" % number + self._random[at : at + self._size])[: self._size]


def _compare(one: bytes, other: bytes) -> int:
    left, right = ((key[8], int.from_bytes(key[:8], "little")) for key in (one, other))
    return (left > right) - (left < right)


def cpp_darner(directory: Path, items: int, payload: Callable[[int], bytes]) -> None:
    """As a LevelDB with the C++ Darner's order of keys and its options."""
    (directory / "jobs").mkdir()
    with closing(
        plyvel.DB(
            str(directory / "jobs"), create_if_missing=True, comparator=_compare,
            comparator_name=b"queue::comparator",
        )
    ) as database:  # fmt: skip
        for first in range(0, items, 100):
            with database.write_batch() as batch:
                for number in range(first, min(first + 100, items)):
                    # No payload ends in NUL, so that none has to be escaped.
                    batch.put(pack("<QB", number, 1), payload(number)[:-1] + b"x")


def kestrel(directory: Path, items: int, payload: Callable[[int], bytes]) -> None:
    """In journals of 128 MiB, with as many small items before that were removed."""
    file = (directory / "jobs.1").open("wb")
    for _ in range(items):
        file.write(pack("<Biqq", 2, 17, 1, 0) + b"x\1")
    for number in range(items):
        if file.tell() > 128 * 1024 * 1024:
            file.close()
            file = (directory / f"jobs.{2 + number}").open("wb")
        data = payload(number)
        file.write(pack("<Biqq", 2, 16 + len(data), 1_700_000_000_000, 0) + data)
    file.close()


def beanstalkd(directory: Path, items: int, payload: Callable[[int], bytes]) -> None:
    """In files of 10 MiB, of a hundred priorities."""
    file, files = (directory / "binlog.1").open("wb"), 1
    file.write(pack("<i", 7))
    for number in range(items):
        data = payload(number)
        job = pack("<QI4xqqi4xqqIIIIIB3x", number + 1, number % 100, 0, 60, len(data) + 2, 1, 0, 0, 0, 0, 0, 0, 1)
        file.write(pack("<i", 4) + b"jobs" + job + data + b"\r\n")
        if file.tell() > 10 * 1024 * 1024:
            file.close()
            files += 1
            file = (directory / f"binlog.{files}").open("wb")
            file.write(pack("<i", 7))
    file.close()


SOURCES = {"cpp-darner": cpp_darner, "kestrel": kestrel, "beanstalkd": beanstalkd}


def measure(source: str, data: Path) -> tuple[float, float, int]:
    """@return: seconds, seconds of processor time, and the largest resident memory in bytes."""
    program = [sys.executable, "-m", "darner.migrate", source, "--data-dir", str(data), "--quiet"]
    begun = time.monotonic()
    process = os.spawnv(os.P_NOWAIT, sys.executable, program)
    _, status, used = os.wait4(process, 0)
    assert status == 0, status
    return time.monotonic() - begun, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024


def count(data: Path) -> int:
    """@return: how many items are in a data directory."""
    with closing(LevelStore(data)) as store:
        return sum(state.next_id for state in store.recover())


def report(name: str, source: str, items: int, directory: Path) -> None:
    data = directory / f"data-{name}"
    took, processor, memory = measure(source, data)
    found = count(data)
    assert found == items, (found, items)
    print(
        f"{name}: {items} items in {took:.1f} s ({processor:.1f} s of processor time), {memory / 1e6:.0f} MB of memory",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser("python -m bench.migration", description="Measure imports.")
    parser.add_argument("sources", nargs="*", metavar="SOURCE", help=f"{', '.join(SOURCES)}, or a place [default: all]")
    parser.add_argument("--items", type=int, default=1_000_000, help="default: %(default)s")
    parser.add_argument("--size", type=int, default=1024, help="bytes of an item [default: %(default)s]")
    options = parser.parse_args()
    for name in options.sources or SOURCES:
        with tempfile.TemporaryDirectory(prefix="darner-migration-") as directory:
            place = name
            if name in SOURCES:
                place = str(Path(directory) / name)
                Path(place).mkdir()
                SOURCES[name](Path(place), options.items, Payloads(options.size))
            report(name.rpartition("/")[2] or "import", place, options.items, Path(directory))


if __name__ == "__main__":
    main()
