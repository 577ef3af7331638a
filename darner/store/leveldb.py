"""
Queues on disk: one LevelDB for all of them.

How the records look stands in `darner.store.records`; why they look so in `docs/design.rst`.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from struct import error as struct_error
from typing import Any, Final, Optional, TypeVar

import plyvel
from twisted.logger import Logger
from zope.interface import implementer

from darner.errors import StoreDamaged, StoreError, StoreUnusable
from darner.store import records, rollback
from darner.store.batch import Deletion, LevelBatch
from darner.store.directory import LOST, DataDirectory, check_access, in_use, set_aside, sync
from darner.store.inspection import first_damage, inspect, is_new, missing
from darner.store.interfaces import IBatch, IStore
from darner.store.mapped_memory import MappedMemory
from darner.store.power_loss import cut, settle
from darner.store.rollback import Rollback
from darner.values.consumed import Consumed
from darner.values.items import ITEM_OVERHEAD, Item, QueueState, Step
from darner.values.vocabulary import CHUNK_BYTES

_NUMBERS_AT_ONCE: Final = 1024
_NEWEST_TABLES: Final = b"leveldb.num-files-at-level0"
_REPAIR: Final = "stop the server and start it with --repair"
_FILLED: Final = 1024 * 1024
_LOOK: Final = 4096  # a look for a key reads about a page of a table
_TORN: Final = "cannot write: the store awaits mending after a fault"

_T = TypeVar("_T")


@implementer(IStore)
class LevelStore:
    """
    Queues in a LevelDB.

    After a failed write LevelDB's log may be torn, and what is written behind the tear would not be found again.  So
    the database is opened anew before the next write, which starts a new log.  That takes room, and so does to consume
    items; where the disk is full, there is the directory's reserve.  Nothing is put before it is there again.

    Every checksum is looked at, when something is read and when LevelDB merges tables.  After a merge that came upon
    damage LevelDB refuses every write until it is opened anew, and merges the same tables then.  So from that on
    nothing is put, and what is consumed is written as far as that goes.
    """

    _log = Logger()

    WRITE_BUFFER: Final = 4 * 1024 * 1024
    CACHE: Final = 4 * 1024 * 1024
    PRESSED: Final = 4
    """Tables that are not merged yet, of which LevelDB slows every write down at 8 and stops at 12."""
    OPEN_FILES: Final = 74
    """The fewest that LevelDB takes.  It maps the 2 MiB tables that are open into memory, where they count as ours."""
    REOPEN: Final = (0.2, 10.0)
    """
    Seconds between two openings of a database whose tables cannot be merged: each makes a table more, so they become
    rarer, twice as long each time up to the second of the pair.
    """
    PATIENCE: Final = 0.5
    """Seconds for which a database that is to be opened anew waits for those who are at work on it in threads."""
    MAPPED: Final = 8 * 1024 * 1024
    """How many bytes are read before it is seen whether the memory into which LevelDB maps its tables is given back."""

    def __init__(
        self,
        path: Path,
        open_database: Callable[..., Any] = plyvel.DB,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Open the store in a data directory, which is made if it is missing.

        @param path: the data directory.
        @param open_database: what opens the LevelDB; C{plyvel.DB} but for tests of its faults.
        @param seconds: a monotonic clock.
        @raise StoreUnusable: see L{DataDirectory}; also when LevelDB cannot open what is there.
        @raise StoreDamaged: files are missing or damaged.  Nothing was changed.
        """
        self.path = path
        self._open_database = open_database
        self._db: Any = None  # a plyvel.DB, while it is open
        self._mapped = 0
        self._torn = False
        self._seconds = seconds
        self._damage = ""
        self._mend_at = 0.0
        self._reopen = self.REOPEN[0]
        self._in_threads = 0
        self._lock = threading.Condition(threading.Lock())
        self._patient = True
        self._writing = threading.Lock()
        self._dirty: dict[bytes, tuple[bytes, bytes]] = {}
        self._before: Optional[Rollback] = None
        self._directory = DataDirectory(path)
        self._keeper = MappedMemory(self._directory.database)
        try:
            rollback.recover(path)
            if not self._directory.database.is_dir():
                raise StoreDamaged(path, missing(path))
            if not is_new(self._directory.database):
                self._before = Rollback(path)
                self._prepare()
            self._open_at_start()
            known = self._get(records.FORMAT_KEY)
            if known is None:
                self._database().put(records.FORMAT_KEY, records.FORMAT)
            elif known != records.FORMAT:
                raise StoreUnusable(f"the store in {path} is of a format that this version does not know")
            self._numbers = (self._counter(records.NUMBERS_KEY), 0)
            self._streams = (max(1, self._counter(records.STREAMS_KEY)), 0)
            for key, value in self._prefixed(records.UNCOMPACTED):
                self._dirty[key[1:]] = records.unpack_bounds(value)
        except plyvel.CorruptionError as error:
            raise self._cannot_start(error) from error
        except (plyvel.Error, OSError) as error:
            self._put_back()
            raise StoreUnusable(f"the store in {path} cannot be opened: {_reason(error)}") from error
        except BaseException:
            self._put_back()
            raise

    def _prepare(self) -> None:
        """Put right what a loss of power has left, and see whether the rest is sound."""
        try:
            self._settle_tails()
        except OSError:
            self._directory.reserve.give_up()
            self._settle_tails()
        self._inspect()

    def _settle_tails(self) -> None:
        for done in settle(self._directory.database, self.path / LOST):
            self._log.warn("after a loss of power: {done}", done=done)

    def _inspect(self) -> None:
        inspection = inspect(self.path)
        for name in inspection.strange:
            self._log.warn("{file} is not part of the store in {path}, and is left alone", file=name, path=self.path)
        for log, length in inspection.cuts:
            aside = set_aside(self.path)
            shutil.copy2(log, aside)
            self._log.warn(
                "{file} ends in zeros from {length} on, in place of what was last being written: it is cut there, and "
                "a copy is in {aside}",
                file=log.name, length=length, aside=aside,
            )  # fmt: skip
            cut(log, length)

    def _cannot_start(self, error: Exception) -> StoreDamaged:
        """Leave everything as it was."""
        self._put_back()
        check_access(self._directory.database)
        return StoreDamaged(self.path, first_damage(self.path) or _reason(error))

    def _put_back(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
        if self._before is not None:
            self._before.put_back()
        self.close()

    def _open_at_start(self) -> None:
        self._directory.reserve.take()
        try:
            self._make_and_open()
        except OSError:  # plyvel's is one as well
            self._directory.make_room()
            self._make_and_open()

    def _make_and_open(self) -> None:
        self._directory.make_database(lambda path: self._open_database(str(path), create_if_missing=True).close())
        self._open()

    def _open(self) -> None:
        try:
            self._db = self._open_database(
                str(self._directory.database),
                create_if_missing=True,
                write_buffer_size=self.WRITE_BUFFER,
                lru_cache_size=self.CACHE,
                max_open_files=self.OPEN_FILES,
                compression=None,
                paranoid_checks=True,
            )
        except plyvel.IOError as error:
            if _reason(error).startswith("IO error: lock "):
                self._settle()  # somebody else works on it
                raise in_use(self.path) from error
            raise

    # Numbers

    def _counter(self, key: bytes) -> int:
        value = self._get(key)
        return records.unpack_u64(value) if value is not None else 0

    def _next(self, key: bytes, given: tuple[int, int]) -> tuple[int, int]:
        """Hand out one number; those that may be handed out without another write end at the second of the pair."""
        number, end = given
        if number >= end:
            end = number + _NUMBERS_AT_ONCE
            self._require_room()
            self.mend()
            self._write([(key, records.pack_u64(end))], False)
        return number + 1, end

    def new_number(self) -> int:
        self._numbers = self._next(records.NUMBERS_KEY, self._numbers)
        return self._numbers[0] - 1

    def new_stream(self) -> int:
        self._streams = self._next(records.STREAMS_KEY, self._streams)
        return self._streams[0] - 1

    # Recovery

    def recover(self) -> list[QueueState]:
        try:
            states = [self._recover(*entry) for entry in self._prefixed(records.NAME)]
            self._read_leftovers()
        except (plyvel.CorruptionError, struct_error) as error:
            raise self._cannot_start(error) from error
        except StoreDamaged:
            self._put_back()
            raise
        except (plyvel.Error, OSError) as error:
            raise StoreError(f"cannot read: {_reason(error)}") from error
        self._settle()
        return states

    def _settle(self) -> None:
        """The database as it was before it was opened is not needed any more."""
        if self._before is not None:
            self._before.forget()
            self._before = None

    def _get(self, key: bytes) -> Optional[bytes]:
        value: Optional[bytes] = self._database().get(key, verify_checksums=True)
        return value

    def _iterator(self, **bounds: Any) -> Any:
        return self._database().iterator(verify_checksums=True, **bounds)

    def _prefixed(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        with self._iterator(prefix=prefix) as entries:
            return list(entries)

    def _recover(self, key: bytes, value: bytes) -> QueueState:
        number, created = records.unpack_name(value)
        written = self._get(records.mark_key(number))
        if written is None:
            raise StoreDamaged(self.path, f"the mark of queue {key[1:].decode(errors='replace')} is missing")
        mark = records.unpack_mark(written)
        with self._iterator(
            start=records.interval_key(number, mark.low), stop=records.intervals_end_key(number)
        ) as entries:
            above = [(records.key_number(start), records.unpack_u64(stop)) for start, stop in entries]
        state = QueueState(
            key[1:], number, created, mark.next_id, mark.bytes_put, mark.bytes_consumed, mark.floor,
            Consumed(mark.low, above),
        )  # fmt: skip
        with self._iterator(
            start=records.attempts_key(number, mark.low), stop=records.end_key(number)
        ) as entries:
            for beside, written in entries:
                if beside == records.delayed_key(number):
                    state.delayed = records.unpack_delayed(written)
                elif beside == records.generations_key(number):
                    state.generations = records.unpack_generations(written)
                else:
                    state.attempts[records.key_number(beside)] = records.unpack_u32(written)
        # Nothing at or above the mark's next id was ever deleted, so neither look below meets a deletion mark.
        bounds = {"start": records.run_key(number, mark.next_id), "stop": records.mark_key(number)}
        with self._iterator(include_value=False, **bounds) as keys:
            newer = next(keys, None) is not None
        newest = self._last(**bounds) if newer else None
        if newest is not None:
            state.next_id = records.key_number(newest[0]) + 1
            state.bytes_put = records.run_head(newest[1])[0]
        return state

    def _last(self, start: bytes, stop: bytes) -> Optional[tuple[bytes, bytes]]:
        """
        Find the last entry from C{start} up to, not including, C{stop}.  There is one at C{stop} or beyond.

        plyvel's reversed iterator does not find one that is at C{start} itself, and looks beyond the one it has found,
        which may be a long way over deletion marks.
        """
        with self._database().raw_iterator(verify_checksums=True) as entries:
            entries.seek(stop)
            entries.prev()
            entry: tuple[bytes, bytes] = entries.item()
        return entry if entry[0] >= start else None

    def leftovers(self) -> tuple[list[int], list[int]]:
        return self._guarded(self._read_leftovers)

    def _read_leftovers(self) -> tuple[list[int], list[int]]:
        def numbers(prefix: bytes) -> list[int]:
            return [records.key_number(key) for key, _ in self._prefixed(prefix)]

        return numbers(records.DELETED), numbers(records.UNHELD)

    # Reading and writing

    def batch(self) -> LevelBatch:
        return LevelBatch()

    def write(self, batch: IBatch, sync: bool = False) -> None:
        assert isinstance(batch, LevelBatch)
        if batch.puts:
            self._require_room()
        if sync:
            self._in_thread(lambda: self._write_safely(batch.writes))
        else:
            self._write(batch.writes, False)

    def _write_safely(self, writes: Sequence[tuple[bytes, Optional[bytes]]]) -> None:
        self._write(writes, True)
        try:
            self._directory.sync_older_logs()
        except OSError as error:
            self._torn = True
            raise _uncertain(f"cannot write: {_reason(error)}") from error

    def _require_room(self) -> None:
        """@raise StoreError: there is no room to put anything, or the store is damaged."""
        if self._damage:
            raise StoreError(self._damage)
        reserve = self._directory.reserve
        if not reserve.held and not reserve.take():
            raise StoreError(f"cannot write: {reserve.reason}")

    def _write(self, writes: Sequence[tuple[bytes, Optional[bytes]]], sync: bool) -> None:
        self._keeper.writes()
        # One at a time, as in LevelDB itself: so that no thread writes behind a tear that another is just making.
        with self._writing:
            if self._torn:
                raise StoreError(self._damage or _TORN)
            if self._before is not None:
                self._settle()
            try:
                if len(writes) == 1 and writes[0][1] is not None:
                    self._database().put(*writes[0], sync=sync)  # half the price of a batch
                    return
                batch = self._database().write_batch(sync=sync)
                put, delete = batch.put, batch.delete
                for key, value in writes:
                    if value is None:
                        delete(key)
                    else:
                        put(key, value)
                batch.write()
            except plyvel.CorruptionError as error:
                self._torn = True
                if not self._damage:
                    self._damage = f"cannot write: the store is damaged ({_reason(error)}): {_REPAIR}"
                    self._log.critical(
                        "the store in {path} is damaged, and its tables cannot be merged ({reason}): nothing is put "
                        "until it is repaired: {repair}",
                        path=self.path, reason=_reason(error), repair=_REPAIR,
                    )  # fmt: skip
                raise _uncertain(self._damage) from error
            except (plyvel.Error, OSError) as error:
                self._torn = True
                raise _uncertain(f"cannot write: {_reason(error)}") from error

    def pressed(self) -> bool:
        return self._db is not None and int(self._db.get_property(_NEWEST_TABLES) or 0) >= self.PRESSED

    def mend(self) -> None:
        if not self._torn:
            return
        if self._damage:
            now = self._seconds()
            if now < self._mend_at:
                raise StoreError(self._damage)
            self._mend_at = now + self._reopen
            self._reopen = min(2 * self._reopen, self.REOPEN[1])
        with self._lock:
            if self._in_threads and self._patient:
                # What they are at mostly ends by the same fault.  Once only: others wait as well.
                self._patient = False
                self._lock.wait_for(lambda: not self._in_threads, self.PATIENCE)
            if self._in_threads:
                raise StoreError(_TORN)
            try:
                if self._db is not None:
                    self._db.close()
                    self._db = None
                self._directory.make_room()
                self._open()
            except (plyvel.Error, StoreUnusable, OSError) as error:
                raise StoreError(f"cannot write: {_reason(error)}") from error
            self._torn = False
            self._patient = True
        self._log.info("the store was opened anew after a fault and writes again")

    def ready(self) -> None:
        # LevelDB says nothing of a compaction that failed until something is written.
        self._write([(records.FORMAT_KEY, records.FORMAT)], False)
        self._require_room()

    def space(self) -> Optional[tuple[int, int]]:
        try:
            space = os.statvfs(self.path)
        except OSError:
            return None
        return space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize

    def read(self, number: int, start: int, stop: int, max_bytes: int) -> list[Item]:
        return self._guarded(lambda: self._read(number, start, stop, max_bytes))

    def _read(self, number: int, start: int, stop: int, max_bytes: int) -> list[Item]:
        items: list[Item] = []
        with self._iterator(
            start=records.run_key(number, start), stop=records.mark_key(number)
        ) as entries:
            for key, value in entries:
                last = records.key_number(key)
                for item in records.run_items(last, value):
                    if start <= item.id < stop:
                        items.append(item)
                        max_bytes -= len(item.payload) + ITEM_OVERHEAD
                self._has_read(len(value))
                if max_bytes <= 0 or last + 1 >= stop:
                    break
        return items

    def _has_read(self, size: int) -> None:
        self._mapped += size
        if self._mapped > self.MAPPED:
            self._mapped = 0
            self._keeper.look()

    def seen(self, generation: int, id: bytes) -> Optional[int]:
        found: Optional[bytes] = self._guarded(lambda: self._get(records.seen_key(generation, id)))
        self._has_read(_LOOK)
        return None if found is None else records.unpack_u64(found)

    def chunk(self, stream: int, index: int) -> bytes:
        data: Optional[bytes] = self._guarded(lambda: self._get(records.chunk_key(stream, index)))
        if data is None:
            raise StoreError(f"chunk {index} of stream {stream} is missing")
        self._has_read(len(data))
        return data

    def read_delayed(
        self, number: int, since: int, until: int, max_bytes: int
    ) -> tuple[list[tuple[int, Item]], Optional[int]]:
        return self._guarded(lambda: self._read_delayed(number, since, until, max_bytes))

    def _read_delayed(
        self, number: int, since: int, until: int, max_bytes: int
    ) -> tuple[list[tuple[int, Item]], Optional[int]]:
        items: list[tuple[int, Item]] = []
        with self._iterator(
            start=records.due_key(number, since, 0), stop=records.end_key(number)
        ) as entries:
            for key, value in entries:
                due = records.due_of(key)
                if due > until or max_bytes <= 0:
                    return items, due
                for item in records.run_items(records.key_number(key), value):
                    items.append((due, item))
                    max_bytes -= len(item.payload) + ITEM_OVERHEAD
                self._has_read(len(value))
        return items, None

    # Reclaiming

    def reclaim(self, number: int, start: int, stop: int, next_id: int, limit: int) -> Step:
        bounds = (records.run_key(number, next_id), records.run_key(number, stop))
        return self._in_thread(lambda: self._reclaim_runs(number, start, bounds, limit))

    def _reclaim_runs(self, number: int, start: int, bounds: tuple[bytes, bytes], limit: int) -> Step:
        deletion = Deletion(self._iterator)
        with self._iterator(start=bounds[0], stop=bounds[1]) as entries:
            for key, value in entries:
                if deletion.count >= limit:
                    return self._delete(deletion, records.key_number(key))
                first = records.key_number(key) - records.run_head(value)[1] + 1
                if first >= start:
                    deletion.run(key, value)
        return self._delete(deletion)

    def reclaim_queue(self, number: int, next_id: int, limit: int) -> Step:
        return self._in_thread(lambda: self._reclaim_queue(number, next_id, limit))

    def _reclaim_queue(self, number: int, next_id: int, limit: int) -> Step:
        deletion = Deletion(self._iterator)
        start = records.key_at(number, next_id)
        with self._iterator(start=start, stop=records.end_key(number)) as entries:
            for key, value in entries:
                if deletion.count >= limit:
                    return self._delete(deletion, records.place_of(key))
                if records.is_run(key) or records.is_delayed(key):
                    deletion.run(key, value)
                else:
                    deletion.key(key, len(value))
        deletion.key(records.end_key(number), 0)
        deletion.key(records.deleted_key(number), 0)
        return self._delete(deletion)

    def reclaim_stream(self, stream: int, next_index: int, limit: int) -> Step:
        return self._in_thread(lambda: self._reclaim_stream(stream, next_index, limit))

    def _reclaim_stream(self, stream: int, next_index: int, limit: int) -> Step:
        unheld = self._get(records.unheld_key(stream))
        if unheld is None:
            return Step()  # it is reclaimed already
        with self._iterator(prefix=records.holders_prefix(stream), include_value=False) as keys:
            if next(keys, None) is not None:
                self._write([(records.unheld_key(stream), None)], False)
                return Step()
        count = records.unpack_u64(unheld) if unheld else self._count_chunks(stream)
        deletion = Deletion(self._iterator)
        stop = min(count, next_index + limit)
        for index in range(next_index, stop):
            deletion.key(records.chunk_key(stream, index), CHUNK_BYTES)
        if stop < count:
            return self._delete(deletion, stop)
        deletion.key(records.unheld_key(stream), 0)
        return self._delete(deletion)

    def _count_chunks(self, stream: int) -> int:
        last = self._last(records.chunk_key(stream, 0), records.chunk_key(stream + 1, 0))
        return 0 if last is None else records.chunk_index(last[0]) + 1

    def _delete(self, deletion: Deletion, next_id: Optional[int] = None) -> Step:
        if deletion.writes:
            self._write_and_note(deletion.writes, deletion.ranges)
        return Step(next_id, deletion.freed, tuple(deletion.streams))

    def _write_and_note(
        self, writes: list[tuple[bytes, Optional[bytes]]], ranges: dict[bytes, tuple[bytes, bytes]]
    ) -> None:
        """@param ranges: where there is something to compact, by neighbourhood."""
        dirty = {}
        for kind, (low, high) in ranges.items():
            known = self._dirty.get(kind, (low, high))
            dirty[kind] = (min(low, known[0]), max(high, known[1]))
            if dirty[kind] != self._dirty.get(kind):
                writes.append((records.uncompacted_key(kind), records.pack_bounds(*dirty[kind])))
        if writes:
            self._write(writes, False)
        self._dirty.update(dirty)

    def spent(self, number: int, since: int, until: int) -> None:
        low, high = records.due_key(number, since, 0), records.due_key(number, until + 1, 0)
        ranges = {records.neighbourhood(low): (low, high)}
        self._in_thread(lambda: self._write_and_note([], ranges))

    def uncompacted(self) -> bool:
        return bool(self._dirty)

    def compact(self, wanted: Callable[[], bool] = lambda: True) -> None:
        """Compact where keys were deleted since the last time; in a damaged store that is left alone."""
        if self._damage:
            return
        for kind, (low, high) in list(self._dirty.items()):
            if not wanted():
                return
            self._in_thread(functools.partial(self._compact, low, high + b"\0"))
            if records.is_run(low):
                # Where the attempts of items that are gone lay.
                number, _ = records.run_place(low)
                bounds = records.intervals_end_key(number), records.delayed_key(number)
                self._in_thread(functools.partial(self._compact, *bounds))
            self._in_thread(functools.partial(self._write, [(records.uncompacted_key(kind), None)], False))
            del self._dirty[kind]
        self._keeper.let_go()

    def _compact(self, start: bytes, stop: bytes) -> None:
        # LevelDB begins a new log for this.  One that is left empty would look as if it was lost
        # (`darner.store.power_loss`).
        self._write([(records.FORMAT_KEY, records.FORMAT)], False)
        self._database().compact_range(start=start, stop=stop)

    # The database's guard

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
            self._torn = False
        self._keeper.stop()
        self._settle()
        self._directory.release()

    def _database(self) -> Any:
        if self._db is None:
            raise StoreError("the store is closed")
        return self._db

    def _guarded(self, read: Callable[[], _T]) -> _T:
        try:
            return read()
        except plyvel.CorruptionError as error:
            self._log.critical(
                "the store in {path} is damaged ({reason}), and some items cannot be read: {repair}",
                path=self.path, reason=_reason(error), repair=_REPAIR,
            )  # fmt: skip
            raise StoreError(f"cannot read: the store is damaged ({_reason(error)}): {_REPAIR}") from error
        except (plyvel.Error, OSError) as error:
            raise StoreError(f"cannot read: {_reason(error)}") from error

    def _in_thread(self, work: Callable[[], _T]) -> _T:
        """Do what may run in a worker thread: the database is not closed under it."""
        with self._lock:
            self._in_threads += 1
        try:
            return self._guarded(work)
        finally:
            with self._lock:
                self._in_threads -= 1
                self._lock.notify_all()


def fill(database: Path, entries: Iterable[tuple[bytes, bytes]]) -> None:
    """
    Make a new database of these records, on stable storage.

    @raise StoreError: it cannot be written.
    """
    try:
        with contextlib.closing(
            plyvel.DB(
                str(database), create_if_missing=True, error_if_exists=True, compression=None,
                write_buffer_size=LevelStore.WRITE_BUFFER, max_open_files=LevelStore.OPEN_FILES,
            )
        ) as db:  # fmt: skip
            batch, size = db.write_batch(), 0
            for key, value in entries:
                batch.put(key, value)
                size += len(key) + len(value)
                if size > _FILLED:
                    batch.write()
                    batch.clear()
                    size = 0
            batch.write()
        for file in database.iterdir():
            sync(file)
        sync(database)
    except (plyvel.Error, OSError) as error:
        raise StoreError(f"cannot write {database.name}: {_reason(error)}") from error


def _uncertain(text: str) -> StoreError:
    """@return: the error of a write that may have been made all the same."""
    error = StoreError(text)
    error.uncertain = True
    return error


def _reason(error: BaseException) -> str:
    """What LevelDB or the operating system said, in one line."""
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    said = error.args[0] if error.args else ""
    text = " ".join((said.decode(errors="replace") if isinstance(said, bytes) else str(said)).split())
    for number in (errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EDQUOT, errno.EROFS):
        if os.strerror(number) in text:
            return os.strerror(number)
    return text
