"""
All readable records of a damaged database, with what is in segments.

It reads the files without LevelDB, verifies every checksum and changes nothing.  The sequence numbers alone tell which
entry of a key is the newest, whichever table contains it and even if the manifest is lost.  This takes memory for one
block of each table whose keys overlap, and for the logs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from pathlib import Path
from struct import error as struct_error
from typing import Any, Optional

from darner.store import references
from darner.store.files.damage import BadFile, Damage, Lost
from darner.store.files.entry import Entry
from darner.store.files.log import LogFile, batch_entries
from darner.store.files.manifest import Manifest, current
from darner.store.files.names import logs, manifests, tables
from darner.store.files.table import Table
from darner.store.segments import Segments

_Merging = tuple[Any, int, int, Entry, Iterator[Entry]]
"""A file while it is merged: where its next entry belongs, the file's place, that entry, and those behind it."""


class Salvage:
    """
    The readable records in a database's directory.

    A database whose keys are not in the order of their bytes has a class of its own, with another C{order}.

    @ivar manifest: the manifest; C{None} if it is lost, so that every file in the directory is read.
    """

    @staticmethod
    def order(key: bytes) -> Any:
        """@return: what keys are compared by."""
        return key

    def __init__(self, database: Path, segments: Optional[Path] = None) -> None:
        """
        @param database: the directory of the database.
        @param segments: the directory of the segments; C{None} if the database is that of a server that has none.
        """
        self._database = database
        self._segments = None if segments is None else Segments(segments, 0)
        self._lost: dict[tuple[str, Lost], None] = {}
        self.manifest = self._manifest()

    def _manifest(self) -> Optional[Manifest]:
        try:
            return Manifest(current(self._database))
        except BadFile as error:
            file, _, reason = str(error).partition(": ")
        if file == "CURRENT":
            for path in manifests(self._database):
                with contextlib.suppress(BadFile):
                    manifest = Manifest(path)
                    self._lose(file, Lost(f"{reason}; {path.name} is the newest there is", b"", b""))
                    return manifest
        # There may have been tables that nothing tells of any more.
        self._lose(file, Lost(reason))
        return None

    def _lose(self, file: str, lost: Lost) -> None:
        self._lost[file, lost] = None

    @property
    def damages(self) -> list[Damage]:
        """What was found to be damaged; all of it once L{entries} was exhausted."""
        return [Damage(file, lost.reason) for file, lost in self._lost]

    def may_have_lost(self, start: bytes, stop: bytes) -> bool:
        """@return: whether records between two keys may be lost."""
        return any(lost.start <= stop and (lost.stop is None or lost.stop >= start) for _, lost in self._lost)

    def entries(self, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """
        Read every key and its value, in order.  Each call reads the files again.

        What is in a segment is read from there, and comes as if it were in the database.

        @param start: leave out what is before this key; none is by default.
        """
        before: Optional[bytes] = None
        segments = self._segments
        try:
            for entry in self._merged(start):
                if entry.key != before:
                    before = entry.key
                    if entry.value is not None and segments is not None:
                        yield from self._whole(segments, entry.key, entry.value)
                    elif entry.value is not None:
                        yield entry.key, entry.value
        finally:
            if segments is not None:
                segments.close()

    def _whole(self, segments: Segments, key: bytes, value: bytes) -> Iterator[tuple[bytes, bytes]]:
        try:
            reference = references.reference_of(key, value)
        except (struct_error, IndexError):
            reference = None  # no record of ours
        if reference is None:
            yield key, value
            return
        file, reason = segments.damage(reference.segment, "it is missing")
        try:
            yield references.whole(key, segments.read(reference, key))
            return
        except FileNotFoundError:
            pass
        except OSError as error:
            reason = f"{error.strerror}"
        except BadFile as error:
            reason = str(error).partition(": ")[2]
        self._lose(file, Lost(reason, key, key))

    def _merged(self, start: bytes) -> Iterator[Entry]:
        """Merge the entries of all files by key, newest first.  A table is opened when its first key is reached."""
        order = self.order
        first = order(start) if start else None

        def unwanted(last: bytes) -> bool:
            return first is not None and order(last) < first

        pending = [(order(low), table) for low, table in self._tables(unwanted)]
        pending.sort(key=lambda table: table[0], reverse=True)
        heap: list[_Merging] = []
        self._push(heap, 0, (entry for entry in self._written() if not unwanted(entry.key)))
        count = 0
        while heap or pending:
            while pending and (not heap or pending[-1][0] <= heap[0][0]):
                count += 1
                self._push(heap, count, self._ordered(pending.pop()[1], unwanted))
            if heap:
                _, _, place, entry, rest = heappop(heap)
                yield entry
                self._push(heap, place, rest)

    def _push(self, heap: list[_Merging], place: int, entries: Iterator[Entry]) -> None:
        entry = next(entries, None)
        if entry is not None:
            heappush(heap, (self.order(entry.key), -entry.sequence, place, entry, entries))

    def _tables(self, unwanted: Callable[[bytes], bool]) -> list[tuple[bytes, Table]]:
        """@return: every table but those whose last key is not wanted, with a lower bound of its keys."""
        there = tables(self._database)
        found: list[tuple[bytes, Table]] = []
        if self.manifest is None:
            return [(table.first_key(), table) for table in map(Table, there.values())]
        for number, info in self.manifest.tables.items():
            if unwanted(info.largest):
                continue
            path = there.get(number)
            if path is None:
                self._lose(f"{number:06}.ldb", Lost("it is missing", info.smallest, info.largest))
                continue
            table = Table(path, info)
            first = Table(path).first_key()
            if first not in (b"", info.smallest):
                self._lose(path.name, Lost("its keys are not those in the manifest", info.smallest, info.largest))
                table = Table(path)
            elif path.stat().st_size > info.size:
                self._lose(path.name, Lost(f"it has more than {info.size} bytes", info.smallest, info.largest))
            found.append((first, table))
        return found

    def _ordered(self, table: Table, unwanted: Callable[[bytes], bool]) -> Iterator[Entry]:
        before: Optional[tuple[Any, int]] = None
        for entry in table.entries(unwanted):
            place = (self.order(entry.key), -entry.sequence)
            if before is not None and place < before:
                self._lose(table.path.name, Lost("its keys are not in order"))
                break
            before = place
            if not unwanted(entry.key):
                yield entry
        for lost in table.lost:
            self._lose(table.path.name, lost)

    def _written(self) -> list[Entry]:
        """@return: the entries of the logs, in order."""
        if self.manifest is None:
            paths = logs(self._database)
        else:
            paths = self.manifest.logs(self._database)
            if self.manifest.log and self.manifest.log not in paths:
                self._lose(f"{self.manifest.log:06}.log", Lost("it is missing"))
        entries: list[Entry] = []
        for path in paths.values():
            file = LogFile(path)
            try:
                for record in file.records():
                    entries += batch_entries(record)
            except OSError as error:
                file.lost.append(Lost(f"{error.strerror}"))
            except BadFile as error:
                file.lost.append(Lost(str(error)))
            for lost in file.lost:
                self._lose(path.name, lost)
        entries.sort(key=lambda entry: (self.order(entry.key), -entry.sequence))
        return entries

