"""
What a server has left in its data directory.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import plyvel
from attrs import define, field

from darner.store import records, references
from darner.store.files import segment
from darner.store.files.damage import BadFile
from darner.store.segments import Segments


@define
class Remains:
    """The records of a store, by kind and by stream or queue number."""

    named: set[int] = field(factory=set)
    deleted: set[int] = field(factory=set)
    runs: Counter[int] = field(factory=Counter)
    """By queue."""
    queues: set[int] = field(factory=set)
    """Streams with any record."""
    intervals: Counter[int] = field(factory=Counter)
    chunks: Counter[int] = field(factory=Counter)
    """By stream."""
    unheld: set[int] = field(factory=set)
    """Streams that no item refers to."""
    held: dict[int, int] = field(factory=dict)
    """The number of chunks that the stream of an item must have."""

    delayed: Counter[int] = field(factory=Counter)
    """The number of delayed items, by the number under which they are stored."""

    attempts: int = 0
    """The number of items with a count of attempts."""
    holders: int = 0
    """The number of items that share a stream with others."""
    uncompacted: int = 0
    """How many stretches of keys are still to be compacted."""
    referred: Counter[int] = field(factory=Counter)
    """By segment: bytes of the records that the database refers to."""
    dead: dict[int, int] = field(factory=dict)
    """By segment: bytes that are recorded as needed no more."""
    segments: dict[int, int] = field(factory=dict)
    """The sizes of the segments that are there."""
    counted: dict[int, int] = field(factory=dict)
    """The sizes of those of which it is recorded exactly what is needed."""
    unreadable: list[str] = field(factory=list)
    """What the database refers to, and cannot be read."""

    def astray(self) -> list[str]:
        """@return: records that nothing refers to, so that their space would never be reclaimed."""
        streams = sorted(self.chunks.keys() - self.unheld - self.held.keys())
        torn = sorted(stream for stream, count in self.held.items() if self.chunks[stream] != count)
        queues = sorted(self.queues - self.named - self.deleted)
        return [
            *(f"{self.chunks[stream]} chunks of stream {stream}, which no item holds" for stream in streams),
            *(f"records of queue {number}, which has no name" for number in queues),
            *(f"{self.chunks[stream]} chunks of stream {stream}, of {self.held[stream]}" for stream in torn),
            *(f"segment {number} is missing" for number in sorted(self.dead.keys() - self.segments.keys())),
            *(f"segment {number} is not recorded" for number in sorted(self.referred.keys() - self.dead.keys())),
            *(
                f"of {size} bytes of segment {number} {self.dead[number]} are recorded as needed no more, and "
                f"{self.referred[number]} are needed"
                for number, size in self.segments.items()
                if self.dead.get(number, 0) + self.referred[number] > size
            ),
            *(
                f"of {size} bytes of segment {number} {self.dead.get(number, 0)} are recorded as needed no more, and "
                f"only {self.referred[number]} are needed"
                for number, size in self.counted.items()
                if self.dead.get(number, 0) + self.referred[number] < size
            ),
            *self.unreadable,
        ]

    def room(self) -> list[str]:
        """@return: records that should be gone when all queues are empty and the server was idle for a while."""
        counts = {
            "runs of items": self.runs.total(),
            "delayed items": self.delayed.total(),
            "intervals": self.intervals.total(),
            "counts of attempts": self.attempts,
            "holders of shared streams": self.holders,
            "chunks": self.chunks.total(),
            "streams to be reclaimed": len(self.unheld),
            "deleted queues": len(self.deleted),
            "stretches to be compacted": self.uncompacted,
            "bytes of segments that are needed": self.referred.total(),
            "segments": len(self.dead),
        }
        return [f"{count} {what}" for what, count in counts.items() if count]


def look_at(data: Path) -> Remains:
    """@return: the records in a data directory that no server uses."""
    remains = Remains()
    database = plyvel.DB(str(data / "leveldb"), create_if_missing=False, max_open_files=74)
    segments = Segments(data / "segments", 0)
    remains.segments = {number: path.stat().st_size for number, path in segment.segments(data / "segments").items()}
    try:
        with database.iterator() as entries:
            for key, value in entries:
                _sort(remains, key, value)
                reference = references.reference_of(key, value)
                if reference is not None:
                    remains.referred[reference.segment] += reference.length
                    try:
                        segments.read(reference, key)
                    except (BadFile, OSError) as error:
                        remains.unreadable.append(str(error))
    finally:
        segments.close()
        database.close()
    return remains


def _sort(remains: Remains, key: bytes, value: bytes) -> None:
    kind = key[:1]
    if kind == records.NAME:
        remains.named.add(records.unpack_name(value)[0])
    elif kind == records.DELETED:
        remains.deleted.add(records.key_number(key))
    elif kind == records.UNHELD:
        remains.unheld.add(records.key_number(key))
    elif kind == records.UNCOMPACTED:
        remains.uncompacted += 1
    elif kind == b"C":
        remains.chunks[records.unpack_u64(key[1:9])] += 1
    elif kind == b"Q":
        number = records.unpack_u64(key[1:9])
        remains.queues.add(number)
        if key == records.generations_key(number):
            remains.named.update(kept.number for kept in records.unpack_generations(value) if kept is not None)
        if key == records.delayed_key(number):
            remains.named.add(records.unpack_delayed(value).number)
        if records.is_run(key) or records.is_delayed(key):
            (remains.runs if records.is_run(key) else remains.delayed)[number] += 1
            stream, chunks = records.run_stream(value)
            if stream:
                remains.held[stream] = chunks
        elif key[9] == 2:
            remains.intervals[number] += 1
        elif key[9] == 3 and len(key) == 18:
            remains.attempts += 1
    elif kind == references.SEGMENT:
        number, is_size = references.segment_of(key)
        (remains.counted if is_size else remains.dead)[number] = records.unpack_u64(value)
    elif kind == records.HOLDER:
        remains.holders += 1


def disk_usage(data: Path) -> int:
    """@return: the bytes of the files of the database and of the segments in a data directory that may be in use."""
    total = 0
    for entry in [*(data / "leveldb").iterdir(), *(data / "segments").glob("*")]:
        try:
            total += os.stat(entry).st_size
        except FileNotFoundError:
            continue  # LevelDB has deleted it after a compaction
    return total


def resident(process: int) -> float:
    """@return: the resident memory of a process, in MiB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024
