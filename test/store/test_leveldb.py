"""
Tests of `darner.store.leveldb`.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import plyvel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from bench.remains import disk_usage
from darner.errors import StoreDamaged, StoreError, StoreUnusable
from darner.store import compaction, opening, references
from darner.store.batch import Batch
from darner.store.database import Database
from darner.store.directory import MARKER, MARKER_TEXT, check_access, check_directory
from darner.store.interfaces import IStore
from darner.store.leveldb import LevelStore, records
from darner.store.mapped_memory import MappedMemory
from darner.store.memory import MemoryStore
from darner.values.items import Item, Mark
from darner.values.vocabulary import CHUNK_BYTES, chunk_count
from test import allow_critical
from test.harness import from_source
from test.store_contract import (
    EVERYTHING,
    StoreContract,
    Writer,
    all_steps,
    described,
    drain,
    large,
    small,
    write_stream,
)

NO_SPACE = b"IO error: /d/leveldb/000003.log: No space left on device"


class Disk:
    """
    What a store opens its LevelDB with: it counts what is read, and fails on demand.

    @ivar reads: how many keys were looked up or iterated over.
    @ivar writes: how many batches and keys were written.
    @ivar opened: how many times a database was opened.
    @ivar full: whether writes fail.
    @ivar broken: whether reads fail.
    @ivar gone: whether opening fails.
    """

    def __init__(self) -> None:
        self.reads = self.writes = self.opened = 0
        self.full = self.broken = self.gone = False
        self.error = NO_SPACE

    def open(self, *args: Any, **kwargs: Any) -> DiskDatabase:
        if self.gone:
            raise plyvel.IOError(self.error)
        self.opened += 1
        return DiskDatabase(self, plyvel.DB(*args, **kwargs))

    def read(self, count: int = 1) -> None:
        if self.broken:
            raise plyvel.IOError(b"IO error: /d/leveldb/000005.ldb: Input/output error")
        self.reads += count

    def write(self) -> None:
        if self.full:
            raise plyvel.IOError(self.error)
        self.writes += 1


class DiskDatabase:
    """A LevelDB on a L{Disk}."""

    def __init__(self, disk: Disk, database: Any) -> None:
        self._disk = disk
        self._database = database
        self.close = database.close
        self.compact_range = database.compact_range
        self.approximate_size = database.approximate_size
        self.get_property = database.get_property

    def get(self, key: bytes, **options: Any) -> Optional[bytes]:
        self._disk.read()
        value: Optional[bytes] = self._database.get(key, **options)
        return value

    def put(self, key: bytes, value: bytes, sync: bool = False) -> None:
        self._disk.write()
        self._database.put(key, value, sync=sync)

    def raw_iterator(self, **options: Any) -> Any:
        self._disk.read()
        return self._database.raw_iterator(**options)

    def iterator(self, **bounds: Any) -> DiskIterator:
        return DiskIterator(self._disk, self._database.iterator(**bounds))

    def write_batch(self, sync: bool) -> DiskBatch:
        return DiskBatch(self._disk, self._database.write_batch(sync=sync))


class DiskIterator:
    """An iterator that counts what it is asked for."""

    def __init__(self, disk: Disk, iterator: Any) -> None:
        self._disk = disk
        self._iterator = iterator

    def __enter__(self) -> DiskIterator:
        return self

    def __exit__(self, *_: object) -> None:
        self._iterator.close()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self._disk.read()
        return next(self._iterator)

    def seek(self, key: bytes) -> None:
        self._disk.read()
        self._iterator.seek(key)


class DiskBatch:
    """A batch that may find the disk full when it is written."""

    def __init__(self, disk: Disk, batch: Any) -> None:
        self._disk = disk
        self._batch = batch

        self.put, self.delete = batch.put, batch.delete

    def write(self) -> None:
        self._disk.write()
        self._batch.write()


class LevelTestCase(SynchronousTestCase):
    """A test case with data directories."""

    def directory(self) -> Path:
        """@return: where no directory is yet."""
        return Path(self.mktemp()).absolute()

    def open(self, path: Optional[Path] = None, **options: Any) -> LevelStore:
        store = LevelStore(path or self.directory(), **options)
        self.addCleanup(store.close)
        return store


class LevelStoreTests(StoreContract, LevelTestCase):
    """The store on disk keeps the contract."""

    def make_store(self) -> IStore:
        return self.open()

    def reopen(self, store: IStore) -> IStore:
        assert isinstance(store, LevelStore)
        store.close()
        return self.open(store.path)

    def test_whole_or_not_at_all(self) -> None:
        """Also where something fails before LevelDB is told to write."""
        store: Any = self.store
        with self.assertRaises(TypeError):
            store._database.write([(b"Qx", b"1"), (b"Qy", "no bytes")])
        self.assertIsNone(store._database.get(b"Qx"))

    def test_closed(self) -> None:
        """A store that is closed says so."""
        self.store.close()
        for call in (
            lambda: list(self.store.recover()),
            self.store.leftovers,
            self.store.new_number,
            self.store.new_stream,
            lambda: self.store.read(0, 0, 1, 1),
            lambda: self.store.chunk(1, 0),
            lambda: self.store.write(Batch()),
            lambda: self.store.reclaim(0, 0, 1, 0, 1),
        ):
            self.assertEqual(str(self.assertRaises(StoreError, call)), "the store is closed")


QUEUE = st.integers(0, 2)
SIZES = st.one_of(st.integers(0, 40), st.sampled_from([CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES + 7]))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), QUEUE, st.lists(SIZES, min_size=1, max_size=4)),
        st.tuples(st.just("put"), QUEUE, st.lists(SIZES, min_size=1, max_size=4)),
        st.tuples(st.just("consume"), QUEUE, st.tuples(st.integers(0, 12), st.integers(1, 8))),
        st.tuples(st.just("consume"), QUEUE, st.tuples(st.integers(0, 2), st.integers(1, 8))),
        st.tuples(st.just("reclaim"), QUEUE, st.integers(1, 5)),
        st.tuples(st.just("remove"), QUEUE, st.none()),
        st.tuples(st.just("orphan"), QUEUE, SIZES),
        st.tuples(st.sampled_from(["reopen", "drain", "compact"]), QUEUE, st.none()),
    ),
    max_size=25,
)


class ModelTests(LevelTestCase):
    """The store on disk against the one in memory, with restarts in between."""

    NAMES = (b"a", b"ab", b"b")

    @given(STEPS)
    @settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
    def test_same(self, steps: list[tuple[str, int, Any]]) -> None:
        level, memory = LevelStore(self.directory()), MemoryStore()
        pairs: dict[int, tuple[Writer, Writer]] = {}
        try:
            for step, index, argument in steps:
                if step == "reopen":
                    level.close()
                    level = LevelStore(level.path)
                    self.catch_up(level, memory, pairs)
                for store in (level, memory):
                    if step == "drain":
                        drain(store, 2)
                    elif step == "compact":
                        store.compact()
                    elif step == "orphan":
                        write_stream(store, argument)
                if step in ("put", "consume", "reclaim", "remove"):
                    if index not in pairs:
                        pairs[index] = self.make(level, memory, self.NAMES[index])
                    for writer in pairs[index]:
                        self.change(writer, step, argument)
                    if step == "remove":
                        del pairs[index]
                self.compare(level, memory, pairs)
            drain(level)
            drain(memory)
            self.assertEqual(level.leftovers(), memory.leftovers())
            self.compare(level, memory, pairs)
        finally:
            level.close()

    def make(self, level: IStore, memory: IStore, name: bytes) -> tuple[Writer, Writer]:
        self.catch_up(level, memory, {})
        return Writer(level, name), Writer(memory, name)

    def catch_up(self, level: IStore, memory: IStore, pairs: dict[int, tuple[Writer, Writer]]) -> None:
        """A restart may skip numbers; the model skips them too, so that both give the same."""
        for ours, _ in pairs.values():
            ours.store = level
        for ask in ("new_number", "new_stream"):
            given, other = getattr(level, ask)(), getattr(memory, ask)()
            while other < given:
                other = getattr(memory, ask)()
            self.assertEqual(given, other)

    def change(self, writer: Writer, step: str, argument: Any) -> None:
        if step == "put":
            items: list[Item] = []
            for id, size in enumerate(argument, writer.next_id):
                if size > CHUNK_BYTES:
                    items.append(large(id, write_stream(writer.store, size), size))
                else:
                    items.append(small(id, bytes([id % 256]) * size))
            writer.put_items(items)
        elif step == "consume":
            start = min(argument[0], writer.next_id)
            writer.consume(start, min(start + argument[1], writer.next_id))
        elif step == "reclaim":
            for start, stop in list(writer.consumed.intervals()):
                all_steps(
                    lambda next_id, start=start, stop=stop: writer.store.reclaim(
                        writer.number, start, stop, max(next_id, start), argument
                    )
                )
        else:
            writer.remove()

    def compare(self, level: LevelStore, memory: MemoryStore, pairs: dict[int, tuple[Writer, Writer]]) -> None:
        self.assertEqual(described(list(level.recover())), described(list(memory.recover())))
        self.assertEqual(level.leftovers()[0], memory.leftovers()[0])
        for ours, model in pairs.values():
            items = ours.items()
            self.assertEqual(items, model.items())
            for item in items:
                for index in range(chunk_count(item.size) if item.stream else 0):
                    self.assertEqual(level.chunk(item.stream, index), memory.chunk(item.stream, index))


class RecoveryTests(LevelTestCase):
    """Recovery reads what it needs, and no more."""

    def cost(self, path: Path) -> tuple[int, int]:
        """@return: how many keys recovery reads, and how many items it finds."""
        disk = Disk()
        store = self.open(path, open_database=disk.open)
        disk.reads = 0
        (state,) = store.recover()
        store.close()
        return disk.reads, state.next_id - len(state.consumed)

    def test_length_does_not_matter(self) -> None:
        costs = []
        for length in (10, 3000):
            store = self.open()
            writer = Writer(store)
            for _ in range(length):
                writer.put(b"payload")
            store.close()
            costs.append(self.cost(store.path))
        (short, ten), (long, thousands) = costs
        self.assertEqual((ten, thousands), (10, 3000))
        self.assertEqual(short, long)
        self.assertLess(long, 20)

    def test_consumed_does_not_matter(self) -> None:
        """A run of consumed items behind an open one is one interval."""
        store = self.open()
        writer = Writer(store)
        for id in range(1000):
            writer.put(b"payload")
            if id:
                writer.consume(id, id + 1)
        store.close()
        reads, count = self.cost(store.path)
        self.assertEqual(count, 1)
        self.assertLess(reads, 20)

    def test_deletion_marks_do_not_matter(self) -> None:
        """What was reclaimed is not waded through, neither by recovery nor by the next read."""
        length = 60_000
        store = self.open()
        number = store.new_number()
        batch = Batch()
        batch.create(b"q", number, 1)
        for id in range(length):
            batch.put(number, [small(id, b"")], 0)
        batch.mark(number, Mark(length, length))
        store.write(batch)
        all_steps(lambda next_id: store.reclaim(number, 0, length, next_id, length))
        with plyvel_database(store).iterator(start=records.run_key(number, 0), stop=records.mark_key(number)) as runs:
            self.assertEqual(list(runs), [])
        store.close()
        seeks = []

        class Sought(DiskIterator):
            def seek(self, key: bytes) -> None:
                seeks.append(key)
                super().seek(key)

        class Recorded:
            def __init__(self, database: Any) -> None:
                self._database = database

            def iterator(self, **bounds: Any) -> Any:
                seeks.append(bounds.get("start", b""))
                return Sought(Disk(), self._database.iterator(**bounds))

            def __getattr__(self, name: str) -> Any:
                return getattr(self._database, name)

        store = self.open(store.path, open_database=lambda *args, **options: Recorded(plyvel.DB(*args, **options)))
        (state,) = store.recover()
        self.assertEqual((state.next_id, len(state.consumed)), (length, length))
        self.assertEqual(store.read(number, length, length + 1, 1000), [])
        among_runs = [start for start in seeks if start.startswith(b"Q") and start < records.mark_key(number)]
        self.assertEqual(among_runs, [records.run_key(number, length)] * 2)

    def test_deleted_queue_is_reclaimed_once_over(self) -> None:
        """The steps of reclaiming go on where the one before stopped: none wades through its deletions."""
        store = self.open()
        writer = Writer(store)
        for _ in range(35):
            writer.put(b"payload")
        writer.remove()
        steps, _ = all_steps(lambda next_id: store.reclaim_queue(writer.number, next_id, 10))
        self.assertEqual([step.next_id for step in steps], [10, 20, 30, None])

    def test_killed(self) -> None:
        """What was written is there after a process that ended without a word."""
        path = self.directory()
        script = (
            "import os, sys; from pathlib import Path; from darner.store.leveldb import LevelStore\n"
            "from test.store_contract import Writer\n"
            "writer = Writer(LevelStore(Path(sys.argv[1]))); writer.put(b'1', b'2', b'3'); writer.consume(1, 2)\n"
            "os.kill(os.getpid(), 9)\n"
        )
        subprocess.run(
            [sys.executable, "-c", script, str(path)], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        )
        store = self.open(path)
        (state,) = store.recover()
        self.assertEqual((state.next_id, list(state.consumed.intervals())), (3, [(1, 2)]))
        self.assertEqual([item.payload for item in store.read(state.number, 0, 3, 1000)], [b"1", b"2", b"3"])


def plyvel_database(store: LevelStore) -> Any:
    """The LevelDB itself, for a look at what is in it."""
    return store._database.writer.db


class PressureTests(LevelTestCase):
    """A store that has fallen behind says so."""

    def test_pressed(self) -> None:
        files = [b"0"]

        class Behind:
            def __init__(self, database: Any) -> None:
                self._database = database

            def get_property(self, name: bytes) -> Optional[bytes]:
                assert self._database.get_property(name) is not None
                return files[0]

            def __getattr__(self, name: str) -> Any:
                return getattr(self._database, name)

        store = self.open(open_database=lambda *args, **options: Behind(plyvel.DB(*args, **options)))
        self.assertFalse(store.pressed())
        files[0] = b"%d" % Database.PRESSED
        self.assertTrue(store.pressed())
        store.close()
        self.assertFalse(store.pressed())


def put_small(writer: Writer, bytes_put: int) -> None:
    """Put items that are too small for a segment, twenty at a time."""
    for _ in range(bytes_put // 60_000):
        writer.put(*(os.urandom(3000) for _ in range(20)))


class RoomTests(LevelTestCase):
    """Room on disk comes back."""

    def test_compact(self) -> None:
        self.patch(Database, "WRITE_BUFFER", 128 * 1024)
        store = self.open()
        writer = Writer(store)
        writer.put(b"first")
        put_small(writer, 6_000_000)
        streams = [writer.put_large(8 * CHUNK_BYTES).stream for _ in range(4)]
        full = disk_usage(store.path)
        self.assertGreater(full, 5_000_000)
        writer.consume(1, writer.next_id)
        _, released = all_steps(lambda next_id: store.reclaim(writer.number, 1, writer.next_id, max(1, next_id), 10))
        self.assertEqual(released, streams)
        drain(store)
        store.compact()
        self.assertLess(disk_usage(store.path), full / 10)
        self.assertEqual([item.id for item in store.read(writer.number, 0, 100, EVERYTHING)], [0])

    def test_compact_what_an_earlier_process_gave_up(self) -> None:
        """One that ended before it came to that."""
        self.patch(Database, "WRITE_BUFFER", 128 * 1024)
        store = self.open()
        writer = Writer(store)
        put_small(writer, 3_840_000)
        self.assertFalse(store.uncompacted())
        writer.consume(0, 640)
        all_steps(lambda next_id: store.reclaim(writer.number, 0, 640, next_id, 10))
        store.close()
        store = self.open(store.path)
        self.assertTrue(store.uncompacted())
        full = disk_usage(store.path)
        writer.store = store
        writer.consume(1240, 1280)
        all_steps(lambda next_id: store.reclaim(writer.number, 1240, 1280, next_id, 10))
        store.compact()
        self.assertFalse(store.uncompacted())
        self.assertLess(disk_usage(store.path), full - 30 * 60_000)
        store.close()
        self.assertFalse(self.open(store.path).uncompacted())

    @from_source
    def test_compact_as_long_as_it_is_wanted(self) -> None:
        """The rest is compacted the next time."""
        compacted: list[bytes] = []
        self.patch(compaction, "GAP", -1)
        store = self.open()
        for number in range(3):
            writer = Writer(store, b"q%d" % number)
            writer.put(b"x")
            writer.remove()
            all_steps(lambda next_id, number=writer.number: store.reclaim_queue(number, next_id, 10))
        self.patch(store._database, "compact_range", lambda start, stop: compacted.append(start))
        store.compact(lambda: len(compacted) < 2)
        self.assertEqual(len(compacted), 2)
        store.compact()
        self.assertEqual(len(compacted), len(set(compacted)))
        self.assertGreater(len(compacted), 2)

    def test_mapped_memory_is_given_back(self) -> None:
        """However much is read, what LevelDB has mapped for that does not stay in memory."""
        looks: list[threading.Thread] = []
        self.patch(MappedMemory, "EVERY", 60)
        self.patch(MappedMemory, "READ", 10_000)
        store = self.open()
        self.patch(store._database._mapped_memory, "check", lambda: looks.append(threading.current_thread()))
        writer = Writer(store)
        for _ in range(10):
            writer.put(bytes(2000))
        looks.clear()
        for _ in range(3):
            self.assertEqual(len(writer.items()), 10)
        # Another thread looks besides, while nobody writes.
        self.assertTrue(3 <= looks.count(threading.current_thread()) <= 6, looks)

    def test_freed_is_about_what_was_given_up(self) -> None:
        """Wherever that is."""
        store = self.open()
        writer = Writer(store)
        writer.put(bytes(4000))
        writer.put(bytes(5000))
        writer.consume(0, 2)
        self.assertTrue(4000 <= store.reclaim(writer.number, 0, 1, 0, 10).freed < 4200)
        self.assertTrue(5000 <= store.reclaim(writer.number, 0, 2, 1, 10).freed < 5200)
        stream = write_stream(store, 3 * CHUNK_BYTES)
        self.assertTrue(3 * CHUNK_BYTES <= store.reclaim_stream(stream, 0, 10).freed < 3 * CHUNK_BYTES + 500)

    def test_nothing_is_left(self) -> None:
        """A deleted queue leaves no key behind, once all is compacted."""
        store = self.open()
        store.new_stream()
        number = store.new_number()
        with plyvel_database(store).iterator(include_value=False) as keys:
            before = list(keys)
        writer = Writer(store)
        writer.put(b"1", b"2", b"3")
        writer.put_large(CHUNK_BYTES + 1)
        writer.consume(1, 2)
        writer.remove()
        drain(store, 1)
        store.compact()
        with plyvel_database(store).iterator(include_value=False) as keys:
            self.assertEqual([key for key in keys if key != references.SEGMENTS_KEY], before)
        self.assertLess(number, store.new_number())

    def test_compact_that_could_not_be_done(self) -> None:
        """What it was to compact is not forgotten."""
        self.patch(Database, "WRITE_BUFFER", 128 * 1024)
        disk = Disk()
        store = self.open(open_database=disk.open)
        writer = Writer(store)
        put_small(writer, 3_840_000)
        writer.consume(0, 1280)
        all_steps(lambda next_id: store.reclaim(writer.number, 0, 1280, next_id, 100))
        disk.full = disk.gone = True
        self.assertRaises(StoreError, writer.put, b"x")
        self.assertRaises(StoreError, store.mend)
        self.assertRaises(StoreError, store.compact)
        disk.full = disk.gone = False
        store.mend()
        store.compact()
        self.assertLess(disk_usage(store.path), 500_000)


class FaultTests(LevelTestCase):
    """The disk refuses; service goes on by itself once it no longer does."""

    def setUp(self) -> None:
        self.disk = Disk()
        self.store = self.open(open_database=self.disk.open)
        self.writer = Writer(self.store)
        self.items = self.writer.put(b"before")

    def fail_to_put(self) -> StoreError:
        batch = Batch()
        batch.put(self.writer.number, [small(1, b"refused")], 13)
        return self.assertRaises(StoreError, self.store.write, batch)

    def test_refused(self) -> None:
        """Nothing of the batch was changed, and what is there can be read."""
        self.disk.full = True
        batch = Batch()
        batch.put(self.writer.number, [small(1, b"refused")], 13)
        batch.mark(self.writer.number, Mark(2, 2, 13, 13))
        error = self.assertRaises(StoreError, self.store.write, batch)
        self.assertEqual(str(error), "cannot write: No space left on device")
        self.assertEqual(self.writer.items(), self.items)
        (state,) = self.store.recover()
        self.assertEqual((state.next_id, state.consumed.low), (1, 0))

    def test_not_written_behind_a_tear(self) -> None:
        """The log may be torn: nothing is written until it was mended."""
        self.disk.full = True
        self.fail_to_put()
        self.disk.full = False
        self.assertEqual(str(self.fail_to_put()), "cannot write: the store must be reopened after an error")

    def test_mend(self) -> None:
        """The database is opened anew, with all that was written before, and writes again."""
        self.disk.full = True
        self.fail_to_put()
        self.disk.full = False
        opened = self.disk.opened
        self.store.mend()
        self.assertEqual(self.disk.opened, opened + 1)
        items = self.items + self.writer.put(b"after")
        self.assertEqual(self.writer.items(), items)
        self.store.close()
        self.assertEqual(next(self.open(self.store.path).recover()).next_id, 2)

    def test_ready(self) -> None:
        self.store.ready()
        self.disk.full = True
        self.fail_to_put()
        error = self.assertRaises(StoreError, self.store.ready)
        self.assertEqual(str(error), "cannot write: the store must be reopened after an error")
        self.store.mend()
        error = self.assertRaises(StoreError, self.store.ready)
        self.assertEqual(str(error), "cannot write: No space left on device")
        self.disk.full = False
        self.store.mend()
        self.store.ready()

    def test_may_not(self) -> None:
        """A file that may not be read while the server runs is no damage: the error says what to do."""
        self.disk.full = True
        self.disk.error = b"IO error: /d/leveldb/000005.ldb: Permission denied"
        error = str(self.fail_to_put())
        self.assertTrue(error.startswith("cannot write: 000005.ldb: Permission denied: nothing is damaged; "), error)
        self.assertIn("(chown)", error)

    def test_nothing_to_mend(self) -> None:
        opened = self.disk.opened
        self.store.mend()
        self.assertEqual(self.disk.opened, opened)

    def test_mend_in_vain(self) -> None:
        """It may be tried again; until then the store says why it cannot."""
        self.disk.full = self.disk.gone = True
        self.fail_to_put()
        for _ in range(2):
            error = self.assertRaises(StoreError, self.store.mend)
            self.assertEqual(str(error), "cannot write: No space left on device")
            self.assertEqual(str(self.assertRaises(StoreError, list, self.store.recover())), "the store is closed")
        self.disk.full = self.disk.gone = False
        self.store.mend()
        self.assertEqual(self.writer.items(), self.items)

    def test_sync(self) -> None:
        self.disk.full = True
        batch = Batch()
        batch.put(self.writer.number, [small(1)], 13)
        error = self.assertRaises(StoreError, self.store.write, batch, True)
        self.assertEqual(str(error), "cannot write: No space left on device")

    def test_reclaim(self) -> None:
        """A step that failed is made again after mending, and loses nothing."""
        self.writer.put(b"1")
        self.writer.consume(0, 1)
        self.disk.full = True
        self.assertRaises(StoreError, self.store.reclaim, self.writer.number, 0, 1, 0, 10)
        self.disk.full = False
        self.assertRaises(StoreError, self.store.reclaim, self.writer.number, 0, 1, 0, 10)
        self.store.mend()
        self.assertGreater(self.store.reclaim(self.writer.number, 0, 1, 0, 10).freed, 0)
        self.assertEqual([item.payload for item in self.writer.items()], [b"1"])

    def test_mending_waits_for_threads(self) -> None:
        """For a little while, and once: what they are at mostly ends by the same fault."""
        entered, leave = threading.Event(), threading.Event()

        self.addCleanup(leave.set)

        def work() -> None:
            self.store._database.in_thread(lambda: (entered.set(), leave.wait()))

        self.disk.full = True
        self.fail_to_put()
        self.disk.full = False
        self.patch(Database, "PATIENCE", 600.0)
        thread = threading.Thread(target=work)
        thread.start()
        entered.wait()
        threading.Timer(0.05, leave.set).start()
        self.store.mend()
        thread.join()
        self.writer.put(b"1")

        for event in (entered, leave):
            event.clear()
        self.disk.full = True
        self.fail_to_put()
        self.disk.full = False
        thread = threading.Thread(target=work)
        thread.start()
        entered.wait()
        self.patch(Database, "PATIENCE", 0.01)
        for _ in range(3):
            self.assertRaises(StoreError, self.store.mend)
            self.patch(Database, "PATIENCE", 1000.0)
        leave.set()
        thread.join()
        self.store.mend()
        self.writer.put(b"2")

    def test_new_numbers(self) -> None:
        """A failed write of a counter is a failed write: the log may be torn by it as well."""
        for ask in (self.store.new_number, self.store.new_stream):
            self.disk.full = True
            given = set()
            with self.assertRaises(StoreError) as caught:
                while True:
                    given.add(ask())
            self.assertEqual(str(caught.exception), "cannot write: No space left on device")
            self.disk.full = False
            self.assertEqual(
                str(self.fail_to_put()), "cannot write: the store must be reopened after an error"
            )
            # Asking again mends: a server that only makes new queues would not get going otherwise.
            self.assertNotIn(ask(), given)
            self.store.write(Batch())

    def test_reads(self) -> None:
        self.disk.broken = True
        for read in (
            lambda: list(self.store.recover()),
            self.store.leftovers,
            lambda: self.store.read(self.writer.number, 0, 1, 1),
            lambda: self.store.chunk(1, 0),
            lambda: self.store.reclaim(self.writer.number, 0, 1, 0, 1),
            lambda: self.store.reclaim_queue(self.writer.number, 0, 1),
            lambda: self.store.reclaim_stream(1, 0, 1),
        ):
            self.assertEqual(str(self.assertRaises(StoreError, read)), "cannot read: Input/output error")
        self.disk.broken = False
        self.assertEqual(self.writer.items(), self.items)

    def test_reason_is_one_line(self) -> None:
        for raised, reason in (
            (plyvel.IOError(b"IO error: /d/x.log: Disk quota exceeded"), "Disk quota exceeded"),
            (plyvel.Error(b"Not implemented:  bad\nblock"), "Not implemented: bad block"),
            (plyvel.Error("what?"), "what?"),
            (plyvel.Error(), ""),
            (OSError(28, "whatever"), "No space left on device"),
        ):
            self.patch(self.disk, "write", self.raiser(raised))
            self.store.mend()
            self.assertEqual(str(self.fail_to_put()), f"cannot write: {reason}")

    def raiser(self, error: BaseException) -> Any:
        def refuse() -> None:
            raise error

        return refuse

    def test_no_mending_under_a_thread(self) -> None:
        """Closing a LevelDB while a thread works on it would end the process."""
        errors: list[str] = []

        def write() -> None:
            """Runs as the write in the thread does; here nothing may be opened anew."""
            self.store._database.writer.torn = True
            errors.append(str(self.assertRaises(StoreError, self.store.mend)))

        self.patch(self.disk, "write", write)
        self.store.write(Batch(), True)
        self.assertEqual(errors, ["cannot write: the store must be reopened after an error"])
        opened = self.disk.opened
        self.store.mend()
        self.assertEqual(self.disk.opened, opened + 1)

    def test_no_thread_writes_behind_a_tear(self) -> None:
        """Who waits for a write in another thread that fails is not written behind the tear."""
        outcomes: list[object] = []

        def other() -> None:
            try:
                self.store.write(Batch())
                outcomes.append("written")
            except StoreError as error:
                outcomes.append(str(error))

        thread = threading.Thread(target=other)

        def write() -> None:
            if threading.current_thread() is thread:
                return
            thread.start()
            thread.join(0.05)
            raise plyvel.IOError(NO_SPACE)

        self.patch(self.disk, "write", write)
        self.fail_to_put()
        thread.join()
        self.assertEqual(outcomes, ["cannot write: the store must be reopened after an error"])


class DirectoryTests(LevelTestCase):
    """The data directory: what can be served from, and what cannot and why."""

    def refusal(self, path: Path, **options: Any) -> str:
        """@return: why a store cannot be opened, without the directory's name.  Nothing in it was changed by trying."""
        before = self.content(path)
        message = str(self.assertRaises(StoreUnusable, LevelStore, path, **options))
        self.assertNotIn("\n", message)
        self.assertIn(str(path), message)
        self.assertEqual(self.content(path), before)
        return message.replace(str(path), "DIR")

    def content(self, path: Path) -> dict[Path, Optional[bytes]]:
        return {file: file.read_bytes() if file.is_file() else None for file in path.rglob("*")}

    def filled(self, **files: bytes) -> Path:
        """@return: a directory with files."""
        path = self.directory()
        path.mkdir()
        for name, content in files.items():
            (path / name).write_bytes(content)
        return path

    def test_made(self) -> None:
        """A missing directory is made, for its owner alone, and says what it is."""
        path = self.directory() / "deep" / "down"
        self.open(path)
        self.assertEqual(path.stat().st_mode & 0o777, 0o700)
        self.assertEqual((path / MARKER).read_bytes(), MARKER_TEXT)
        self.assertEqual({entry.name for entry in path.iterdir()}, {"darner", "leveldb", "reserve"})

    def test_check_changes_nothing(self) -> None:
        path = self.directory()
        check_directory(path)
        self.assertFalse(path.exists())
        path.mkdir()
        check_directory(path)
        self.assertEqual(list(path.iterdir()), [])

    def test_what_may_not_be_read(self) -> None:
        """Neither the directory nor a file in it: that is no damage."""
        path = self.directory()
        LevelStore(path).close()
        may = os.access

        def access(file: Any, mode: int) -> bool:
            return not str(file).endswith("CURRENT") and may(file, mode)

        def exists(_: Path) -> bool:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        self.patch(os, "access", access)
        error = str(self.assertRaises(StoreUnusable, check_access, path / "leveldb"))
        self.assertIn("CURRENT: Permission denied: nothing is damaged; ", error)
        self.patch(Path, "exists", exists)
        error = str(self.assertRaises(StoreUnusable, check_directory, path))
        self.assertEqual(error, f"cannot read the data directory {path}: Permission denied")

    def test_what_goes_meanwhile(self) -> None:
        """A file that the server which uses the database removes is not one without permission."""
        path = self.directory()
        LevelStore(path).close()
        may = os.access

        def access(file: Any, mode: int) -> bool:
            if str(file).endswith(".log"):
                file.unlink()
            return may(file, mode)

        self.patch(os, "access", access)
        check_access(path / "leveldb")
        self.assertEqual(list((path / "leveldb").glob("*.log")), [])

    def test_empty_and_harmless(self) -> None:
        """What a file system or twistd leaves there is no reason to refuse."""
        path = self.filled(**{".hidden": b"", "twistd.log": b"log", "twistd.pid": b"1", "CURRENTLY": b""})
        (path / "CURRENTLY").unlink()
        (path / "lost+found").mkdir()
        self.assertEqual(list(self.open(path).recover()), [])

    def test_claim_was_cut_short(self) -> None:
        """A crash while the directory was claimed leaves it claimable."""
        path = self.filled(**{".darner.new": b"dar"})
        self.open(path)
        self.assertEqual((path / MARKER).read_bytes(), MARKER_TEXT)

    def test_stray_files_of_ours(self) -> None:
        """In a directory that is ours a stray file harms nobody."""
        store = self.open()
        Writer(store)
        store.close()
        (store.path / "notes.txt").write_text("backup me")
        self.assertEqual(len(list(self.open(store.path).recover())), 1)

    def test_not_a_directory(self) -> None:
        path = self.directory()
        path.write_bytes(b"")
        self.assertEqual(self.refusal(path), "DIR is not a directory: name another data directory")

    def test_cannot_be_made(self) -> None:
        file = self.directory()
        file.write_bytes(b"")
        self.assertEqual(
            self.refusal(file / "data"), "cannot create the data directory DIR: Not a directory"
        )

    def test_not_writable(self) -> None:
        path = self.filled()
        self.patch(os, "access", lambda path, mode: False)  # the superuser may write anywhere
        self.assertEqual(
            self.refusal(path),
            "cannot write to the data directory DIR: change its owner or mode, or name another",
        )

    def test_cannot_be_claimed(self) -> None:
        path = self.filled()
        (path / ".darner.new").mkdir()
        self.assertEqual(self.refusal(path), "cannot serve from the data directory DIR: Is a directory")

    def test_marker_cannot_be_read(self) -> None:
        path = self.filled()
        (path / MARKER).mkdir()
        self.assertEqual(self.refusal(path), "cannot read DIR/darner: Is a directory")

    def test_unknown_format(self) -> None:
        path = self.filled(darner=b"darner data directory, format 2\n")
        self.assertEqual(
            self.refusal(path),
            "DIR is in a format that this version does not know: "
            "serve it with the version that created it, or name another data directory",
        )

    def test_unknown_format_of_the_store(self) -> None:
        store = self.open()
        plyvel_database(store).put(records.FORMAT_KEY, b"darner 3")
        store.close()
        message = str(self.assertRaises(StoreUnusable, LevelStore, store.path))
        self.assertEqual(message, f"the store in {store.path} is in a format that this version does not know")
        # It was let go of: whoever knows the format may open it.
        plyvel.DB(str(store.path / "leveldb")).close()

    def test_in_use_in_this_process(self) -> None:
        store = self.open()
        message = str(self.assertRaises(StoreUnusable, LevelStore, store.path))
        self.assertEqual(
            message,
            f"the data directory {store.path} is in use by another process: stop that one, or name another",
        )
        Writer(store).put(b"still works")

    def test_in_use_by_another_process(self) -> None:
        path = self.directory()
        LevelStore(path).close()
        script = "import plyvel, sys; db = plyvel.DB(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
        with subprocess.Popen(
            [sys.executable, "-c", script, str(path / "leveldb")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as other:
            assert other.stdout is not None
            self.assertEqual(other.stdout.readline(), b"open\n")
            self.assertIn("in use by another process", str(self.assertRaises(StoreUnusable, LevelStore, path)))
            other.communicate(b"")
        self.assertEqual(list(self.open(path).recover()), [])

    def test_no_room_to_put_right_what_a_loss_of_power_left(self) -> None:
        """The reserve is there for that."""
        path = Path(self.mktemp())
        LevelStore(path).close()
        tried: list[bool] = []

        def drop(*_: object) -> list[str]:
            tried.append((path / "reserve").exists())
            if len(tried) == 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return []

        self.patch(opening, "drop_unsafe_tail", drop)
        LevelStore(path).close()
        self.assertEqual(tried, [True, False])

    def test_lock_in_its_name(self) -> None:
        """That the directory is called so does not mean that it is locked."""
        disk = Disk()
        disk.gone = True
        disk.error = b"IO error: /srv/LOCKers/blocks/leveldb/000003.log: No space left on device"
        path = self.filled(darner=MARKER_TEXT)
        (path / "leveldb").mkdir()
        self.assertEqual(
            self.refusal(path, open_database=disk.open), "the store in DIR cannot be opened: No space left on device"
        )

    def test_damaged(self) -> None:
        store = self.open()
        store.close()
        (store.path / "leveldb" / "CURRENT").write_bytes(b"MANIFEST-999999\n")
        message = str(self.assertRaises(StoreUnusable, LevelStore, store.path))
        self.assertEqual(
            message,
            f"the store in {store.path} is damaged: MANIFEST-999999: No such file or directory: "
            "start with --repair to save what can be read",
        )

    def test_database_is_a_file(self) -> None:
        path = self.filled(darner=MARKER_TEXT, leveldb=b"")
        self.assertEqual(
            self.refusal(path),
            "the store in DIR is damaged: leveldb: it is not a directory: start with --repair to save what can be read",
        )

    def test_of_the_cpp_darner(self) -> None:
        """It keeps a LevelDB in a directory for each queue."""
        path = self.filled()
        plyvel.DB(str(path / "jobs"), create_if_missing=True).close()
        self.assertEqual(
            self.refusal(path),
            "DIR holds queues of the C++ Darner: name an empty directory as the data directory (nothing was touched)",
        )

    def test_a_leveldb(self) -> None:
        path = self.directory()
        plyvel.DB(str(path), create_if_missing=True).close()
        self.assertEqual(
            self.refusal(path),
            "DIR holds a LevelDB of something else: "
            "name an empty directory as the data directory (nothing was touched)",
        )

    def test_of_kestrel(self) -> None:
        path = self.filled(**{"jobs": b"\0\5\0\0\0hello", "jobs.1700000000000": b"\1", "empty": b""})
        self.assertEqual(
            self.refusal(path),
            "DIR holds journals of Kestrel: name an empty directory as the data directory (nothing was touched)",
        )

    def test_other_files(self) -> None:
        foreign = (
            "DIR holds files that are not darner's ({}, ...): "
            "name an empty directory as the data directory (nothing was touched)"
        )
        self.assertEqual(self.refusal(self.filled(**{"b.txt": b"text", "a.txt": b""})), foreign.format("a.txt"))
        path = self.filled(journal=b"\0")
        (path / "photos").mkdir()
        self.assertEqual(self.refusal(path), foreign.format("journal"))

    def test_file_that_cannot_be_read(self) -> None:
        """What cannot be looked into is foreign, too."""
        path = self.filled(secret=b"\0")
        open_file = Path.open

        def refuse(file: Path, *mode: Any, **options: Any) -> Any:
            if file.name == "secret":
                raise PermissionError(13, "Permission denied")
            return open_file(file, *mode, **options)

        self.patch(Path, "open", refuse)
        message = str(self.assertRaises(StoreUnusable, check_directory, path))
        self.assertIn("holds files that are not darner's (secret, ...)", message)


class DamageTests(LevelTestCase):
    """
    Tables that LevelDB cannot merge, because a block in one is damaged.  The rest of it is in
    `test.rescue.test_repair`.
    """

    TEXT = (
        "the store is damaged (Corruption: block checksum mismatch): stop the server and start it with --repair"
    )

    def setUp(self) -> None:
        allow_critical(self, " is damaged")
        self.patch(Database, "WRITE_BUFFER", 64 * 1024)
        self.seconds = 0.0
        store = self.open()
        self.path = store.path
        self.one, self.other = Writer(store, b"one"), Writer(store, b"other")
        for id in range(400):
            self.one.put(b"%04d" % id * 700)
            self.other.put(b"%04d" % id * 70)
            self.other.consume(0, id // 10 + 1)
        # So that nothing is left for LevelDB to merge by itself.
        store._database.opened().compact_range(start=b"", stop=b"\xff")
        store.close()
        tables = (self.path / "leveldb").glob("*.ldb")
        table = max(tables, key=lambda table: table.stat().st_size)
        data = bytearray(table.read_bytes())
        data[len(data) // 2] ^= 1
        table.write_bytes(data)
        self.store = self.open(self.path, seconds=lambda: self.seconds)
        list(self.store.recover())
        self.one.store = self.other.store = self.store

    def merge(self) -> None:
        """Have all tables merged, as far as LevelDB gets."""
        self.store._database.opened().compact_range(start=b"", stop=b"\xff")

    def come_upon_it(self) -> None:
        """Have a write refused because LevelDB could not merge what is damaged."""
        # What is before all else and behind it, so that every table has to be merged with these.
        self.store._database.write([(b"!", None), (b"~", None)])
        self.merge()
        error = self.assertRaises(StoreError, self.store._database.write, [(b"!", None)])
        self.assertEqual(str(error), f"cannot write: {self.TEXT}")

    def test_said(self) -> None:
        """It is said once in the log, and to everybody who puts something from then on."""
        with capturedLogs() as events:
            self.come_upon_it()
            for _ in range(3):
                self.assertRaises(StoreError, self.one.put, b"x")
        (said,) = [formatEvent(event) for event in events if event["log_level"].name == "critical"]
        self.assertIn("is damaged: LevelDB cannot merge its tables (Corruption: block checksum mismatch)", said)
        self.assertEqual(
            str(self.assertRaises(StoreError, self.store.write, Batch())), f"cannot write: {self.TEXT}"
        )

    def test_reads_are_said_once_a_minute(self) -> None:
        """Clients read what is damaged as often as they like."""

        def fails() -> None:
            raise plyvel.CorruptionError(b"Corruption: block checksum mismatch")

        with capturedLogs() as events:
            for seconds in (0, 1, 59, 61):
                self.seconds = seconds
                self.assertRaises(StoreError, self.store._database.guarded, fails)
        said = [formatEvent(event) for event in events if event["log_level"].name == "critical"]
        self.assertEqual(len(said), 2)
        self.assertIn("some items cannot be read", said[0])
        self.assertTrue(said[1].endswith(" (2 more in the last 61 s)"), said)

    def test_what_is_taken_is_written_at_times(self) -> None:
        """The database is opened anew for that, more and more rarely; nothing is lost meanwhile."""
        self.come_upon_it()
        opened = []
        for _ in range(4000):
            self.seconds += 0.01
            low = self.other.consumed.low
            try:
                self.store.mend()
            except StoreError as error:
                self.assertEqual(str(error), f"cannot write: {self.TEXT}")
                continue
            try:
                self.other.consume(low, low + 1)
            except StoreError as error:
                self.assertEqual(str(error), f"cannot write: {self.TEXT}")
                self.other.consumed.discard(low)
            else:
                opened.append(self.seconds)
                self.merge()
        self.assertGreater(len(opened), 3)
        self.assertLess(len(opened), 20)
        self.store.compact()
        self.store.close()
        again = self.open(self.path)
        states = {state.name: state for state in again.recover()}
        self.assertEqual(states[b"one"].next_id, 400)
        self.assertEqual(states[b"other"].next_id, self.other.next_id)
        self.assertEqual(states[b"other"].consumed.low, self.other.consumed.low)

    def test_reading_goes_on(self) -> None:
        """Apart from what is damaged, everything is still read."""
        self.come_upon_it()
        self.assertEqual(len(self.store.read(self.other.number, 380, 400, EVERYTHING)), 20)
        error = self.assertRaises(StoreError, self.one.items)
        self.assertEqual(str(error), f"cannot read: {self.TEXT}")


class StartTests(LevelTestCase):
    """Records that are not as they should be, at the start."""

    def test_records(self) -> None:
        for key, value in (
            (records.mark_key(0), None),
            (records.mark_key(0), b"short"),
            (records.name_key(b"q"), b"short"),
            (records.interval_key(0, 8), b"short"),
        ):
            store = self.open()
            Writer(store, b"q").put(b"x")
            store._database.write([(key, value)])
            store.close()
            before = {path: path.read_bytes() for path in (store.path / "leveldb").iterdir()}
            again = self.open(store.path)
            error = self.assertRaises(StoreDamaged, list, again.recover())
            self.assertIn("start with --repair to save what can be read", str(error))
            self.assertEqual({path: path.read_bytes() for path in (store.path / "leveldb").iterdir()}, before)

    def test_mark_by_name(self) -> None:
        store = self.open()
        Writer(store, b"q")
        store._database.write([(records.mark_key(0), None)])
        store.close()
        error = self.assertRaises(StoreDamaged, list, self.open(store.path).recover())
        self.assertIn(" is damaged: the mark of queue q is missing: ", str(error))
