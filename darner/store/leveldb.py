"""
The engine on LevelDB: one database for all queues.

`darner.store.records` packs and unpacks the records; `docs/design/store.rst` describes them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Optional

from zope.interface import implementer

from darner.errors import StoreError, StoreUnusable
from darner.store import records, references
from darner.store.backup.capture import Capture
from darner.store.batch import Batch
from darner.store.compaction import Compaction
from darner.store.database import DB, Database
from darner.store.directory import SEGMENTS
from darner.store.interfaces import IBackedUp, IStore
from darner.store.opening import open_database as open_and_inspect
from darner.store.opening import recovering, starting
from darner.store.reclaiming import Reclaiming
from darner.store.recovery import read_queues
from darner.store.releasing import Releasing
from darner.store.renewal import Renewal
from darner.values.items import ITEM_OVERHEAD, Imported, Item, QueueState, Step

_NUMBERS_AT_ONCE: Final = 1024
_LOOKUP: Final = 4096
"""Bytes of a table that the lookup of a key reads: about a page."""


@implementer(IStore, IBackedUp)
class LevelStore:
    """
    A store in a LevelDB.

    @ivar path: the data directory.
    @ivar replicated: whether it is written through the log of a cluster, as the data directory of a node must be.
    """

    replicated = False

    def __init__(
        self,
        path: Path,
        open_database: Callable[..., Any] = DB,
        seconds: Callable[[], float] = time.monotonic,
        write_buffer: Optional[int] = None,
        separate_from: Optional[int] = records.LARGE,
    ) -> None:
        """
        Open the store in a data directory.  Create the directory if it is missing.

        @param path: the data directory.
        @param open_database: as for a L{Database}, and so the following.
        @param seconds: a monotonic clock.
        @param write_buffer: bytes that LevelDB keeps in memory before it writes them to a table.
        @param separate_from: bytes, L{records.LARGE} or more, from which on a payload is written to a segment; C{None}:
            none is.  Those that are in segments already stay readable.
        @raise StoreUnusable: see L{DataDirectory}; also if LevelDB cannot open the database.
        @raise StoreDamaged: files are missing or damaged.  Nothing was changed.
        """
        self.path = path
        database = self._database = Database(path, open_database, seconds, write_buffer, separate_from)
        self._writer = database.writer
        self.mend = database.writer.mend  # its own method, as it is called for each turn
        with starting(database):
            open_and_inspect(database)
            if not self.replicated and database.get(records.POSITION_KEY) is not None:
                raise StoreUnusable(f"{path} belongs to a node of a cluster: start it with --cluster")
            self._numbers = (self._counter(records.NUMBERS_KEY), 0)
            self._streams = (max(1, self._counter(records.STREAMS_KEY)), 0)
            self._compaction = Compaction(database)
        self._releasing = Releasing(database)
        self._reclaiming = Reclaiming(database, self._compaction, self._releasing)
        self._renewal = Renewal(database)

    # Numbers

    def _counter(self, key: bytes) -> int:
        value = self._database.get(key)
        return records.unpack_u64(value) if value is not None else 0

    def _next(self, key: bytes, given: tuple[int, int]) -> tuple[int, int]:
        """@return: the next number, and the end of the numbers that the last write has reserved."""
        number, end = given
        if number >= end:
            end = number + _NUMBERS_AT_ONCE
            self._database.require_room()
            self.mend()
            self._database.write([(key, records.pack_u64(end))])
        return number + 1, end

    def new_number(self) -> int:
        self._numbers = self._next(records.NUMBERS_KEY, self._numbers)
        return self._numbers[0] - 1

    def new_stream(self) -> int:
        self._streams = self._next(records.STREAMS_KEY, self._streams)
        return self._streams[0] - 1

    # Recovery

    def recover(self) -> Iterator[QueueState]:
        with recovering(self._database):
            yield from read_queues(self._database)
            self._read_leftovers()
        self._releasing.remove_strays()

    def leftovers(self) -> tuple[list[int], list[int]]:
        return self._database.guarded(self._read_leftovers)

    def _read_leftovers(self) -> tuple[list[int], list[int]]:
        def numbers(prefix: bytes) -> list[int]:
            return [records.key_number(key) for key, _ in self._database.prefixed(prefix)]

        return numbers(records.DELETED), numbers(records.UNHELD)

    # Writing

    def write(self, batch: Batch, sync: bool = False) -> None:
        if not sync:
            self._writer.write_batch(batch, self._compaction)
            return
        self._writer.prepare(batch, self._compaction)
        self._database.write_safely(batch.writes, batch.large, batch.apart)

    def ready(self) -> None:
        # LevelDB reports a failed compaction only when something is written.
        self._database.write([(records.FORMAT_KEY, records.FORMAT)])
        self._database.require_room()

    def pressed(self) -> bool:
        return self._releasing.behind or self._database.pressed()

    def space(self) -> Optional[tuple[int, int]]:
        try:
            space = os.statvfs(self.path)
        except OSError:
            return None
        return space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize

    # Reading

    def read(self, number: int, start: int, stop: int, max_bytes: int) -> list[Item]:
        return self._database.guarded(lambda: self._read(number, start, stop, max_bytes))

    def _read(self, number: int, start: int, stop: int, max_bytes: int) -> list[Item]:
        items: list[Item] = []
        with self._database.iterator(
            start=records.run_key(number, start), stop=records.mark_key(number)
        ) as entries:
            for key, value in entries:
                last = records.key_number(key)
                if records.is_elsewhere(value):
                    value = self._database.payloads.find(key, value)
                    if value is None:
                        continue
                for item in records.run_items(last, value):
                    if start <= item.id < stop:
                        items.append(item)
                        max_bytes -= len(item.payload) + ITEM_OVERHEAD
                self._database.has_read(len(value))
                if max_bytes <= 0 or last + 1 >= stop:
                    break
        return items

    def seen(self, generation: int, id: bytes) -> Optional[int]:
        found = self._database.guarded(lambda: self._database.get(records.seen_key(generation, id)))
        self._database.has_read(_LOOKUP)
        return None if found is None else records.unpack_u64(found)

    def imported(self, number: int) -> list[Imported]:
        prefix = records.mark_key(number)
        entries = self._database.guarded(lambda: self._database.prefixed(prefix))
        return [records.unpack_imported(key, value) for key, value in entries if records.is_imported(key)]

    def chunk(self, stream: int, index: int) -> bytes:
        data = self._database.guarded(lambda: self._chunk(stream, index))
        if data is None:
            raise StoreError(f"chunk {index} of stream {stream} is missing")
        self._database.has_read(len(data))
        return data

    def _chunk(self, stream: int, index: int) -> Optional[bytes]:
        key = references.chunk_key(stream, index)
        found = self._database.get(key)
        if found is not None:
            return self._database.payloads.find(key, found)
        return self._database.get(records.chunk_key(stream, index))

    def read_delayed(
        self, number: int, since: int, until: int, max_bytes: int, after: int = 0
    ) -> tuple[list[tuple[int, Item]], Optional[int]]:
        return self._database.guarded(lambda: self._read_delayed(number, since, until, max_bytes, after))

    def _read_delayed(
        self, number: int, since: int, until: int, max_bytes: int, after: int
    ) -> tuple[list[tuple[int, Item]], Optional[int]]:
        items: list[tuple[int, Item]] = []
        with self._database.iterator(
            start=records.due_key(number, since, after), stop=records.end_key(number)
        ) as entries:
            for key, value in entries:
                due = records.due_of(key)
                if due > until or max_bytes <= 0:
                    return items, due
                for item in records.run_items(records.key_number(key), value):
                    items.append((due, item))
                    max_bytes -= len(item.payload) + ITEM_OVERHEAD
                self._database.has_read(len(value))
        return items, None

    # Reclaiming

    def reclaim(self, number: int, start: int, stop: int, next_id: int, limit: int) -> Step:
        return self._database.in_thread(lambda: self._reclaiming.runs(number, start, stop, next_id, limit))

    def reclaim_queue(self, number: int, next_id: int, limit: int) -> Step:
        return self._database.in_thread(lambda: self._reclaiming.queue(number, next_id, limit))

    def reclaim_stream(self, stream: int, next_index: int, limit: int) -> Step:
        return self._database.in_thread(lambda: self._reclaiming.stream(stream, next_index, limit))

    def delayed_deleted(self, number: int, since: int, until: int) -> None:
        low, high = records.due_key(number, since, 0), records.due_key(number, until + 1, 0)
        ranges = {records.neighbourhood(low): (low, high)}
        self._database.in_thread(lambda: self._compaction.write([], ranges))

    def worn(self) -> bool:
        return self._renewal.due

    def settle(self) -> None:
        self._renewal.prepare()

    def renew(self) -> None:
        self._renewal.run()

    def uncompacted(self) -> bool:
        return bool(self._compaction.ranges) or self._releasing.wanted

    def compact(self, wanted: Callable[[], bool] = lambda: True, all: bool = True) -> None:
        if not self._database.damage:
            release = self._releasing.all if all else self._releasing.step
            self._database.in_thread(lambda: release(wanted))
        self._compaction.run(wanted, all)

    def capture(self, proceed: Callable[[], None], wall: Callable[[], float]) -> Capture:
        segments = self._database.payloads.segments
        capture = Capture(self._database, {SEGMENTS: segments.is_sealed}, proceed, wall)
        capture.take()
        return capture

    def close(self) -> None:
        self._releasing.close()
        self._database.settle()
        self._database.close()
