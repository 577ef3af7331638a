"""
What the newest logs say after a loss of power, if payloads that they refer to are lost.

A payload is written to its segment before the database refers to it, but a disk may keep the later of the two and lose
the earlier.  No table refers to such a payload (`darner.store.payloads`), so only the logs can.  Nothing from there on
was promised to be on stable storage, and all of it is given up.  The same goes for a new segment that the logs know,
and of which the disk has lost the directory's entry, before anything refers to it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from struct import error as struct_error
from typing import IO, Final, NamedTuple, Optional

from darner.store import records, references
from darner.store.directory import sync
from darner.store.files import segment as files
from darner.store.files.damage import BadFile
from darner.store.files.log import LogFile, batch_entries, ends_well
from darner.store.files.manifest import newest
from darner.store.power_loss import truncate
from darner.store.references import Reference

_KINDS: Final = b"".join((records.CHUNK, records.QUEUE, references.SEGMENT, references.SYNCED_KEY[:1]))
_CREATED: Final = records.pack_u64(len(files.MAGIC))
"""What is recorded of a new segment."""


def drop_lost_payloads(database: Path, segments: Path, aside: Path) -> list[str]:
    """
    Give up what the logs say from the first payload on that was lost.

    All payloads that the rest refers to are on stable storage afterwards, as LevelDB makes a table of the logs.

    @param database: the directory of the database, which no process has open.
    @param segments: the directory of the segments.
    @param aside: the directory for what is given up; created if it is needed.
    @return: a line for the log about each change.
    @raise OSError: a file cannot be changed, or a segment cannot be read.
    """
    if not segments.is_dir():
        return []
    try:
        live = list(newest(database).logs(database).values())
    except BadFile:
        return []  # not the effect of a loss of power
    found = _find(live, segments)
    if found is None:
        return []
    aside.mkdir(mode=0o700, exist_ok=True)
    log = live[found.log]
    shutil.copy2(log, aside)
    done = []
    for path in reversed(live[found.log + 1 :]):
        path.rename(aside / path.name)
        done.append(f"{path.name} follows a write whose payload is lost: it was moved to {aside}")
    truncate(log, found.start)
    done.append(f"a payload is lost ({found.reason}): {log.name} was truncated to {found.start} bytes")
    return done


def _find(logs: Sequence[Path], segments: Path) -> Optional[_Lost]:
    # Most starts find nothing, and need not wait for the checksums of the logs.
    said = _Said(logs, False)
    # The last record may be torn, and seem to say that another segment is gone.
    if not said.damaged and all(map(ends_well, logs)) and said.first_lost(segments) is None:
        return None
    said = _Said(logs, True)
    return None if said.damaged else said.first_lost(segments)


class _Lost(NamedTuple):
    """A lost payload: which log refers to it, the offset of the write there, and the reason."""

    log: int
    start: int
    reason: str


class _Said:
    """
    What logs say of payloads.

    @ivar damaged: whether they cannot be read, which is not the effect of a loss of power.
    """

    def __init__(self, logs: Sequence[Path], verify: bool) -> None:
        self._needed: list[tuple[int, int, bytes, Reference]] = []
        self._synced: dict[int, int] = {}
        self._gone: set[int] = set()
        self._creating = False
        self.damaged = False
        try:
            for place, path in enumerate(logs):
                log = LogFile(path, verify)
                for record in log.records():
                    for key, _, value in batch_entries(record):
                        if key[0] in _KINDS:
                            self._read(place, log.start, key, value)
                    self._creating = False
                self.damaged = self.damaged or bool(log.lost)
        except (BadFile, OSError, struct_error, IndexError):
            self.damaged = True

    def _read(self, log: int, start: int, key: bytes, value: Optional[bytes]) -> None:
        # A write names the next segment, if it has created some, and right behind that those.
        is_segment = key[:1] == references.SEGMENT
        self._creating = key == references.SEGMENTS_KEY or (self._creating and is_segment and value == _CREATED)
        if value is None:
            if is_segment:
                self._gone.add(references.segment_of(key)[0])
        elif key == references.SYNCED_KEY:
            for number, length in references.unpack_synced(value).items():
                self._synced[number] = max(length, self._synced.get(number, 0))
        elif is_segment:
            number, is_size = references.segment_of(key)
            if self._creating and not is_size:
                self._needed.append((log, start, key, Reference(number, 0, 0)))
        else:
            reference = references.reference_of(key, value)
            if reference is not None:
                self._needed.append((log, start, key, reference))

    def first_lost(self, directory: Path) -> Optional[_Lost]:
        """
        Find the first payload that is lost, and write all those before it to stable storage.

        @raise OSError: a segment cannot be read.
        """
        with contextlib.ExitStack() as opened:
            segments: dict[int, IO[bytes]] = {}
            lost = self._look(directory, segments, opened)
            for segment in segments.values():
                os.fsync(segment.fileno())
            if segments:
                sync(directory)
        return lost

    def _look(
        self, directory: Path, segments: dict[int, IO[bytes]], opened: contextlib.ExitStack
    ) -> Optional[_Lost]:
        """@param segments: gets the segments that had to be looked at, which C{opened} closes."""
        there = files.segments(directory)
        for log, start, key, reference in self._needed:
            number = reference.segment
            synced = self._synced.get(number, 0)
            if number in self._gone or (synced and reference.offset + reference.length <= synced):
                continue
            if number not in there:
                if synced:
                    continue  # nothing of it is needed, or it is damage, as `darner.store.segments` finds out
                return _Lost(log, start, f"{files.name_of(number)} is missing")
            if number not in segments:
                segments[number] = opened.enter_context(there[number].open("rb"))
            if not reference.length:
                continue  # it was created
            file = segments[number].fileno()
            try:
                files.read(file, reference.offset, reference.length, key)
            except BadFile as error:
                # Else it is damaged, and whoever reads it is told so.
                if files.is_unwritten(file, reference.offset, reference.length):
                    return _Lost(log, start, f"{files.name_of(number)}: {error}")
        return None
