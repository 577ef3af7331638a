"""
What a loss of power may leave of LevelDB's newest files, put right before LevelDB opens them.

LevelDB writes to a new log while the one before is not safe yet, and names a new table in its manifest before the
table's entry in the directory is safe.  A disk that loses its power may keep the later and lose the earlier of the two.
LevelDB would take what is in the newer log without what was lost before it, or not open at all.  In both cases nothing
of the later was ever promised to be on stable storage, for whoever promises that makes the earlier safe as well.  So
the later is given up: what remains is all that was written up to some moment.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Optional

from attrs import define, field

_BLOCK: Final = 32 * 1024
_HEADER: Final = struct.Struct("<IHB")  # checksum, length, kind
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_BATCH: Final = struct.Struct("<QI")  # sequence number of the first change, count of changes


def _checksums() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CHECKSUMS: Final = _checksums()


def checksum(data: bytes) -> int:
    """@return: the checksum of a piece of a record and its kind (CRC-32C, and turned as LevelDB does)."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _CHECKSUMS[(value ^ byte) & 0xFF] ^ value >> 8
    value ^= 0xFFFFFFFF
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


@define
class Record:
    """One entry of a log or a manifest."""

    start: int
    """Where it begins in the file."""
    pieces: list[tuple[int, bytes]] = field(factory=list)
    """Each with its checksum, and begun by its kind."""

    @property
    def data(self) -> bytes:
        return b"".join(piece[1:] for _, piece in self.pieces)

    @property
    def is_good(self) -> bool:
        """Whether it is as it was written.  Slow."""
        return all(checksum(piece) == said for said, piece in self.pieces)


def records(data: bytes) -> Iterator[Record]:
    """@return: the records of a log or a manifest that are complete, up to the first that is not."""
    at = 0
    record: Optional[Record] = None
    while True:
        if _BLOCK - at % _BLOCK < _HEADER.size:
            at += _BLOCK - at % _BLOCK
        if at + _HEADER.size > len(data):
            return
        said, length, kind = _HEADER.unpack_from(data, at)
        end = at + _HEADER.size + length
        if end > len(data) or not _WHOLE <= kind <= _LAST or (kind in (_WHOLE, _FIRST)) != (record is None):
            return
        if record is None:
            record = Record(at)
        record.pieces.append((said, data[at + _HEADER.size - 1 : end]))
        if kind in (_WHOLE, _LAST):
            yield record
            record = None
        at = end


class Manifest:
    """
    Which files a database is made of.

    @ivar log: the oldest log that matters.
    @ivar last: a sequence number that was given by then.
    @ivar tables: the numbers of its tables.
    """

    def __init__(self) -> None:
        self.log = 0
        self.last = 0
        self.tables: set[int] = set()

    def change(self, data: bytes) -> None:
        """
        Take over what a record says.

        @raise ValueError: this is none that we know; also C{IndexError}.
        """
        at = 0

        def number() -> int:
            nonlocal at
            value = shift = 0
            while True:
                byte = data[at]
                at += 1
                value |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    return value

        def skip() -> None:
            nonlocal at
            length = number()
            at += length

        while at < len(data):
            tag = number()
            if tag == 1:  # the comparator
                skip()
            elif tag == 2:
                self.log = number()
            elif tag in (3, 9):  # the next number of a file; a log before that one, which there never is any more
                number()
            elif tag == 4:
                self.last = number()
            elif tag == 5:  # where to compact next
                number()
                skip()
            elif tag == 6:
                number()
                self.tables.discard(number())
            elif tag == 7:
                number()
                self.tables.add(number())
                number()
                skip()
                skip()
            else:
                raise ValueError(f"unknown entry {tag} in a manifest")


def cut(path: Path, length: int) -> None:
    """
    Have a file of a database end after C{length} bytes: in another file of its name, so that links to it stay whole.

    @raise OSError: it cannot be done, and nothing has changed.
    """
    shorter = path.with_name(path.name + ".cut")
    with shorter.open("wb") as file:
        file.write(path.read_bytes()[:length])
        file.flush()
        os.fsync(file.fileno())
    shorter.rename(path)


def settle(database: Path, aside: Path, is_damaged: Callable[[Path], bool]) -> list[str]:
    """
    Put the tails of a database right, where a loss of power left them so that LevelDB cannot.

    @param database: its directory.  Nobody has it open.
    @param aside: a directory for the logs that are given up, and for a copy of the manifest where its end is; made when
        there is something for it.
    @param is_damaged: whether a log has lost something else than its end.  Then nothing is given up: that is no loss
        of power.
    @return: what was done, a line each.
    @raise OSError: it cannot be read, or changed.
    """
    logs = sorted((_number(path), path) for path in database.glob("*.log"))
    there = {_number(path) for pattern in ("*.ldb", "*.sst") for path in database.glob(pattern)}
    try:
        manifest = database / (database / "CURRENT").read_text().strip()
        data = manifest.read_bytes()
        version, before, last = _read_manifest(data)
    except (OSError, ValueError, IndexError):
        return []  # that is no tail
    done = []
    # Only where all is there that came before: LevelDB removes that when the entry is safe.
    if (
        (version is None or version.tables - there)
        and not before.tables - there
        and before.log in (number for number, _ in logs)
    ):
        aside.mkdir(mode=0o700, exist_ok=True)
        shutil.copy2(manifest, aside)
        cut(manifest, last.start)
        version = before
        done.append(f"the last entry of {manifest.name}, or a table it names, is not safe: it was taken back")
    if version is None:
        return []
    live = [path for number, path in logs if number >= version.log]
    place = _gap(live, version.last)
    if 0 < place < len(live) and is_damaged(live[place - 1]):
        return done
    for path in live[place:]:
        aside.mkdir(mode=0o700, exist_ok=True)
        path.rename(aside / path.name)
        done.append(f"{path.name} was written after what is lost of the log before it: it was moved to {aside}")
    return done


def litter(database: Path) -> list[Path]:
    """
    Find what LevelDB left of work that it could not finish.

    When a compaction runs out of room, its tables stay until the database is opened the next time, and to open it takes
    room as well.  The same goes for the log that each try to open it begins.

    @param database: its directory.  Nobody has it open.
    @return: tables and logs that the database is not made of.  None where its manifest is not understood to the end.
    @raise OSError: it cannot be read.
    """
    try:
        data = (database / (database / "CURRENT").read_text().strip()).read_bytes()
        version, _, last = _read_manifest(data)
    except (FileNotFoundError, ValueError, IndexError):
        return []
    end = last.start + sum(_HEADER.size - 1 + len(piece) for _, piece in last.pieces)
    if version is None or end != len(data) or not all(record.is_good for record in records(data)):
        return []
    tables = [path for path in database.glob("*.ldb") if _number(path) not in version.tables]
    # The manifest's own log stays also where it is empty: were it missing, something would be lost.
    logs = [
        path
        for path in database.glob("*.log")
        if _number(path) < version.log or (_number(path) > version.log and not path.stat().st_size)
    ]
    return sorted(tables + logs)


def _number(path: Path) -> int:
    return int(path.stem) if path.stem.isdecimal() else -1


def _read_manifest(data: bytes) -> tuple[Optional[Manifest], Manifest, Record]:
    """@return: the files there are, C{None} if the last record is not good; those without that record; and that."""
    *earlier, last = records(data)
    version, before = Manifest(), Manifest()
    for record in earlier:
        before.change(record.data)
        version.change(record.data)
    if not last.is_good:
        return None, before, last
    version.change(last.data)
    return version, before, last


def _gap(logs: list[Path], given: int) -> int:
    """
    @param given: the last sequence number in the manifest.
    @return: the place of the first log before which something is lost; the number of logs where there is none.
    """
    expected = given + 1
    # Of a single log LevelDB takes what is good, from its beginning on.
    for place, path in enumerate(logs if len(logs) > 1 else ()):
        last: Optional[Record] = None
        for record in records(path.read_bytes()):
            if len(record.data) < _BATCH.size:
                return len(logs)  # it is none of LevelDB's
            if last is None and _BATCH.unpack_from(record.data)[0] > expected:
                return place
            last = record
            if path is logs[-1]:
                break  # where it ends matters to nobody
        # A log that another followed had something in it: `darner.store` sees to that.
        expected = 0
        if last is not None:
            first, count = _BATCH.unpack_from(last.data)
            # What is zeros in part ends what was kept of a file.
            expected = first + (count if last.is_good else 0)
    return len(logs)
