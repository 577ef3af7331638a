"""
Tests of `darner.store.payloads`, of what is in segments and what is on stable storage when.
"""

from __future__ import annotations

import errno
import os
import shutil
import tarfile
import threading
from pathlib import Path
from typing import Any, Optional

import plyvel
from twisted.trial.unittest import SynchronousTestCase

from bench.remains import look_at
from darner.errors import StoreDamaged, StoreError
from darner.store import database, opening, records, references
from darner.store import segments as segments_module
from darner.store.batch import Batch
from darner.store.leveldb import LevelStore
from darner.store.payloads import DENSITY
from darner.values.vocabulary import CHUNK_BYTES
from test import allow_critical, unpack
from test.damage import Keeper, payload
from test.store_contract import EVERYTHING, Writer, all_steps, drain

BUFFER = 64 * 1024
SMALL = b"s" * 100


class PayloadsTestCase(SynchronousTestCase):
    """A store with small segments: a quarter of a MiB."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.store = self.open()
        self.writer = Writer(self.store)

    def lengths(self) -> list[tuple[Path, int]]:
        """@return: the file of each segment, and its length."""
        segments = self.store._database.payloads.segments
        return [(segments.path_of(number), segment.size) for number, segment in sorted(segments.by_number.items())]

    def open(self, path: Optional[Path] = None, **options: Any) -> LevelStore:
        store = LevelStore(path or self.path, write_buffer=BUFFER, **options)
        self.addCleanup(store.close)
        list(store.recover())
        return store

    def again(self) -> None:
        self.store.close()
        self.store = self.writer.store = self.open()

    def copy(self) -> Path:
        """@return: what is there when the process is killed now."""
        copy = Path(self.mktemp())
        shutil.copytree(self.path, copy)
        return copy

    @property
    def segments(self) -> dict[int, Any]:
        return self.store._database.payloads.segments.by_number

    def files(self) -> list[str]:
        return sorted(file.name for file in (self.path / "segments").glob("*"))

    def referred(self) -> int:
        """@return: how many values of the database are in segments."""
        with self.store._database.iterator() as entries:
            return sum(references.reference_of(key, value) is not None for key, value in entries)

    def crowd(self) -> None:
        """Put small items until LevelDB may begin a new log with any write."""
        while not self.crowded():
            self.writer.put(SMALL)

    def crowded(self) -> bool:
        payloads = self.store._database.payloads
        return payloads._length() * DENSITY >= BUFFER


class PlaceTests(PayloadsTestCase):
    """Large payloads are in segments, and read from there."""

    def test_large(self) -> None:
        items = self.writer.put(bytes(4095)) + self.writer.put(os.urandom(4096)) + self.writer.put(os.urandom(60_000))
        large = self.writer.put_large(3 * CHUNK_BYTES)
        self.assertEqual((self.referred(), self.files()), (5, ["000001.seg"]))
        for _ in range(2):
            self.assertEqual(self.writer.items(), [*items, large])
            self.assertEqual([self.store.chunk(large.stream, index)[:1] for index in range(3)], [b"\0", b"\1", b"\2"])
            self.assertRaises(StoreError, self.store.chunk, large.stream, 3)
            self.again()

    def test_none(self) -> None:
        """A store of small items has no segments."""
        self.writer.put(*[SMALL] * 100)
        self.store.compact()
        self.assertFalse((self.path / "segments").exists())

    def test_after_a_restart(self) -> None:
        """A new process goes on in a new segment."""
        first = self.writer.put(bytes(5000))
        self.again()
        second = self.writer.put(bytes(6000))
        self.assertEqual(self.files(), ["000001.seg", "000002.seg"])
        self.again()
        self.assertEqual(self.writer.items(), first + second)

    def test_batch_is_whole(self) -> None:
        """A batch contains its payloads, wherever they are written to."""
        batch = Batch()
        batch.chunk(1, 0, b"x" * CHUNK_BYTES)
        again = Batch.from_bytes(batch.to_bytes())
        self.assertEqual((again.writes, again.large), (batch.writes, True))
        batch = Batch()
        batch.put(1, self.writer.put(SMALL), 100)
        self.assertFalse(Batch.from_bytes(batch.to_bytes()).large or batch.large)

    def test_killed_before_the_database_knew(self) -> None:
        """What nothing refers to is deleted at the next start, and not before that has succeeded."""
        items = self.writer.put(bytes(5000))
        payloads = self.store._database.payloads
        payloads._hot.append([(b"key", bytes(5000))])
        (self.path / "segments" / "000099.seg").write_bytes(b"?")
        killed = self.copy()
        store = LevelStore(killed)
        self.assertTrue((killed / "segments" / "000099.seg").exists())
        list(store.recover())
        self.assertEqual(sorted(os.listdir(killed / "segments")), ["000001.seg"])
        self.assertEqual(store.read(self.writer.number, 0, 9, EVERYTHING), items)
        self.assertTrue(store.uncompacted())
        store.compact()
        self.assertEqual(self.sizes(store), [(10_000, 5000)])
        store.close()
        self.assertEqual(look_at(killed).astray(), [])

    def sizes(self, store: LevelStore) -> list[tuple[int, int]]:
        """Of each segment, its size and what is needed of it, in steps of 100 bytes."""
        known = store._database.payloads.segments.by_number.values()
        return [(segment.size // 100 * 100, segment.live // 100 * 100) for segment in known]

    def test_old_format(self) -> None:
        """A store of format 1 is served as it is; what is put from then on is in segments."""
        old = Path(self.mktemp())
        with tarfile.open(Path(__file__).parent / "format_1.tar.gz") as archive:
            unpack(archive, old)
        keeper = Keeper(LevelStore(old))
        kept = {
            b"jobs": [payload(b"jobs", id, size) for id, size in enumerate((20, 300, 20_000, 200_000, 50, 5000))][1:],
            b"later": [payload(b"later", id, size) for id, size in enumerate((20, 100_000))],
            b"images": [payload(b"images", id, size) for id, size in enumerate((150_000, 70_000, 66_000))],
        }
        self.assertEqual(keeper.everything(wait=False), {**kept, b"later": []})
        self.assertFalse((old / "segments").exists())
        self.assertEqual(keeper.everything(), kept)
        self.assertEqual(keeper.store._database.get(records.FORMAT_KEY), records.FORMAT)
        keeper.close()
        keeper = Keeper(LevelStore(old))
        self.assertEqual(keeper.everything(), kept)
        keeper.queues.forget(b"images")
        keeper.rest()
        self.assertEqual(keeper.store.leftovers(), ([], []))
        keeper.close()


class DamageTests(PayloadsTestCase):
    """What is damaged is not handed out, and the rest is."""

    def setUp(self) -> None:
        super().setUp()
        allow_critical(self, " is damaged")
        self.first, self.second = self.writer.put(bytes(5000)) + self.writer.put(bytes(6000))

    def test_flipped(self) -> None:
        segment = self.path / "segments" / "000001.seg"
        data = bytearray(segment.read_bytes())
        data[1000] ^= 1
        segment.write_bytes(data)
        error = self.assertRaises(StoreError, self.store.read, self.writer.number, 0, 1, EVERYTHING)
        self.assertEqual(
            str(error), "cannot read: the store is damaged (segments/000001.seg: the checksum of a record is wrong, "
            "at 16): stop the server and start it with --repair",
        )  # fmt: skip
        self.assertEqual(self.store.read(self.writer.number, 1, 2, EVERYTHING), [self.second])
        self.writer.put(bytes(7000))

    def test_deleted_under_it(self) -> None:
        (self.path / "segments" / "000001.seg").unlink()
        error = self.assertRaises(StoreError, self.store.read, self.writer.number, 0, 1, EVERYTHING)
        self.assertIn("cannot read: the store is damaged (segments: a segment is missing): ", str(error))

    def test_missing_at_the_start(self) -> None:
        self.store.close()
        (self.path / "segments" / "000001.seg").unlink()
        error = self.assertRaises(StoreDamaged, LevelStore, self.path)
        self.assertIn("is damaged: segments/000001.seg: it is missing: start with --repair", str(error))


class RaceTests(PayloadsTestCase):
    """A payload is found though it is moved, or deleted, while it is looked for."""

    def setUp(self) -> None:
        super().setUp()
        (self.item,) = self.writer.put(bytes(5000))
        self.key = records.run_key(self.writer.number, 0)
        found = self.store._database.get(self.key)
        assert found is not None
        self.value = found

    def test_moved(self) -> None:
        self.writer.put(*[bytes(50_000)] * 6)
        self.store._releasing._move(self.segments[1])
        self.store._database.payloads.segments.remove(1)
        found = self.store._database.payloads.find(self.key, self.value)
        assert found is not None
        self.assertEqual(list(records.run_items(0, found)), [self.item])

    def test_gone(self) -> None:
        payloads = self.store._database.payloads
        payloads.segments.remove(1)
        self.store._database.write([(self.key, None)])
        self.assertIsNone(payloads.find(self.key, self.value))
        real = payloads.find
        self.store._database.write([(self.key, self.value)])
        self.patch(payloads, "find", lambda key, value: None)
        self.assertEqual(self.store.read(self.writer.number, 0, 1, EVERYTHING), [])
        self.patch(payloads, "find", real)

    def test_in_the_database_by_now(self) -> None:
        payloads = self.store._database.payloads
        payloads.segments.remove(1)
        ((_, inline),) = records.runs([self.item], 5000)
        self.store._database.write([(self.key, inline)])
        allow_critical(self, " is damaged")
        self.assertRaises(StoreError, self.store._database.guarded, lambda: payloads.find(self.key, self.value))


class FaultTests(PayloadsTestCase):
    """The disk refuses; service goes on by itself once it no longer does."""

    def fail(self, function: str, error: int) -> Any:
        """Let a function of C{os} fail until what this returns is called."""
        real = getattr(os, function)

        def fail(*arguments: Any) -> Any:
            raise OSError(error, os.strerror(error))

        self.patch(segments_module.os, function, fail)
        return lambda: setattr(os, function, real)

    def test_refused(self) -> None:
        items = self.writer.put(bytes(5000))
        for error, reason in ((errno.ENOSPC, "No space left on device"), (errno.EIO, "Input/output error")):
            works = self.fail("write", error)
            batch = Batch()
            batch.put(self.writer.number, [self.writer.put(SMALL)[0]], 100)
            self.store.write(batch)
            refused = Batch()
            refused.chunk(77, 0, bytes(CHUNK_BYTES))
            told = self.assertRaises(StoreError, self.store.write, refused)
            self.assertEqual((str(told), told.uncertain), (f"cannot write: {reason}", False))
            self.assertFalse(self.store._database.writer.torn)
            works()
        self.assertEqual(self.store.leftovers(), ([], []))
        items += self.writer.put(bytes(6000))
        self.assertEqual([item for item in self.writer.items() if item.size > 100], items)
        self.store.compact()
        self.again()
        self.assertEqual([item for item in self.writer.items() if item.size > 100], items)
        self.store.close()
        self.assertEqual(look_at(self.path).astray(), [])

    def test_database_refuses(self) -> None:
        """What was written for it is given up."""
        self.writer.put(bytes(5000))

        def full(**options: Any) -> None:
            raise plyvel.IOError(b"IO error: No space left on device")

        db = self.store._database.writer.db

        class Full:
            put = get_property = staticmethod(full)

            def write_batch(self, sync: bool) -> Any:
                return full()

            def __getattr__(self, name: str) -> Any:
                return getattr(db, name)

        self.store._database.writer.db = Full()
        refused = Batch()
        refused.chunk(77, 0, bytes(CHUNK_BYTES))
        self.assertTrue(self.assertRaises(StoreError, self.store.write, refused).uncertain)
        self.assertEqual([segment.known for segment in self.segments.values()], [False])
        self.assertRaises(StoreError, self.store._releasing._move, self.segments[1])
        self.store.mend()
        self.writer.put(bytes(6000))
        self.store.compact()
        self.assertTrue(all(segment.known for segment in self.segments.values()))
        self.assertLess(sum(segment.size for segment in self.segments.values()), 20_000)
        self.assertEqual([item.size for item in self.writer.items()], [5000, 6000])

    def test_sync_fails(self) -> None:
        """Nothing is promised then, and nothing is in doubt: the database was not told."""
        calls: list[str] = []

        def sync(path: Path) -> None:
            calls.append(path.name)
            if len(calls) == 1:
                raise OSError(errno.EIO, "Input/output error")

        self.patch(segments_module, "sync", sync)
        batch = Batch()
        batch.put(self.writer.number, [], 0)
        batch.chunk(77, 0, bytes(CHUNK_BYTES))
        error = self.assertRaises(StoreError, self.store.write, batch, sync=True)
        self.assertEqual((str(error), error.uncertain), ("cannot write: Input/output error", False))
        self.store.write(batch, sync=True)
        self.assertEqual(self.store.chunk(77, 0), bytes(CHUNK_BYTES))

    def test_nothing_is_synced_when_it_is_closed(self) -> None:
        """Though the disk fails then, the next start finds all."""
        items = self.writer.put(bytes(5000))

        def sync(path: Path) -> None:
            raise OSError(errno.EIO, "Input/output error")

        with_sync = segments_module.sync
        self.patch(segments_module, "sync", sync)
        self.store.close()
        self.patch(segments_module, "sync", with_sync)
        self.store = self.writer.store = self.open()
        self.assertEqual(self.writer.items(), items)

    def test_reopened(self) -> None:
        """LevelDB makes a table of its log then, so all that it refers to is synced before."""
        self.writer.put(bytes(5000))
        self.assertTrue(self.store._database.payloads.segments.dirty)
        self.store._database.writer.torn = True
        self.store.mend()
        self.assertFalse(self.store._database.payloads.segments.dirty)


class OrderTests(PayloadsTestCase):
    """No table refers to a payload that is not on stable storage, and no promise is made of one."""

    def setUp(self) -> None:
        super().setUp()
        self.steps: list[str] = []
        real = segments_module.sync

        def sync(path: Path) -> None:
            real(path)
            if path != self.path:
                self.steps.append(path.name)

        self.patch(segments_module, "sync", sync)

    def watch_database(self) -> None:
        db = self.store._database.writer.db
        steps = self.steps

        class Watched:
            def write_batch(self, sync: bool) -> Any:
                steps.append("database, synced" if sync else "database")
                return db.write_batch(sync=sync)

            def __getattr__(self, name: str) -> Any:
                return getattr(db, name)

        self.store._database.writer.db = Watched()

    def test_sync(self) -> None:
        """Segment first, then its directory, then the database."""
        self.watch_database()
        batch = Batch()
        batch.chunk(77, 0, bytes(CHUNK_BYTES))
        self.store.write(batch, sync=True)
        self.assertEqual(self.steps, ["000001.seg", "segments", "database, synced"])
        self.assertFalse(self.store._database.payloads.segments.dirty)
        value = self.store._database.get(references.SYNCED_KEY)
        assert value is not None
        self.assertEqual(references.unpack_synced(value), {1: self.segments[1].size})

    def test_sync_of_what_was_written_before(self) -> None:
        self.writer.put(bytes(5000))
        self.watch_database()
        batch = Batch()
        batch.put(self.writer.number, self.writer.put(SMALL), 100)
        del self.steps[:]
        self.store.write(batch, sync=True)
        self.assertEqual(self.steps, ["000001.seg", "segments", "database, synced"])

    def test_before_a_table(self) -> None:
        """Where LevelDB may write its buffer, nothing is unsynced, and payloads are in the database."""
        payloads = self.store._database.payloads
        self.patch(payloads, "_sync_behind", lambda: None)
        self.writer.put(bytes(5000))
        while not self.crowded():
            self.assertTrue(self.store._database.payloads.segments.dirty)
            self.writer.put(SMALL)
        self.writer.put(SMALL)
        self.assertFalse(self.store._database.payloads.segments.dirty)
        self.assertEqual(self.steps, ["000001.seg", "segments"])
        log = payloads.newest_log()
        before = self.referred()
        inline = 0
        while payloads.newest_log() == log:
            self.writer.put(bytes(5000))
            inline += 1
        self.assertTrue(2 <= inline < BUFFER // 5000 + 2, inline)
        self.assertEqual(self.referred(), before)
        self.writer.put(bytes(5000))
        self.assertEqual(self.referred(), before + 1)

    def test_log_that_ended_unseen(self) -> None:
        """Small items alone are not watched; a new log is noticed with the next large one."""
        self.crowd()
        log = self.store._database.payloads.newest_log()
        while self.store._database.payloads.newest_log() == log:
            self.writer.put(*[SMALL] * 30)
        before = self.referred()
        while not self.referred() > before:
            self.writer.put(bytes(5000))
        log.unlink(missing_ok=True)
        self.writer.put(bytes(5000))
        self.assertEqual(self.referred(), before + 2)

    def test_in_the_background(self) -> None:
        """Long before, what is unsynced is synced by a thread."""
        self.writer.put(bytes(5000))
        payloads = self.store._database.payloads
        while payloads._thread is None:
            self.writer.put(SMALL)
            self.assertFalse(self.crowded())
        payloads._thread.join()
        self.assertFalse(self.store._database.payloads.segments.dirty)
        self.assertIsNotNone(self.store._database.get(references.SYNCED_KEY))

    def test_lengths_of_one_that_is_gone(self) -> None:
        """They may have been recorded while it was deleted."""
        self.writer.put(bytes(5000))
        self.store._database.write([(references.SYNCED_KEY, references.pack_synced([(1, 16), (9, 1000)]))])
        found = self.open(self.copy())._database.payloads.segments.by_number
        self.assertEqual({number: segment.synced for number, segment in found.items()}, {1: 16})

    def test_closed_while_nobody_writes(self) -> None:
        """The thread that syncs writes that it has: LevelDB is not closed then."""
        lock, db = self.store._database.writer.lock, self.store._database.writer.db

        class Watched:
            def close(self) -> None:
                held.append(lock.locked())
                db.close()

        held: list[bool] = []
        self.store._database.writer.db = Watched()
        self.store.close()
        self.assertEqual((held, lock.locked()), ([True], False))

    def test_one_thread_at_a_time(self) -> None:
        entered, go_on = threading.Event(), threading.Event()
        payloads = self.store._database.payloads
        count: list[None] = []

        def slow(without: frozenset[int] = frozenset()) -> None:
            count.append(None)
            entered.set()
            go_on.wait()

        self.patch(payloads, "sync", slow)
        self.addCleanup(go_on.set)
        payloads._sync_behind()
        entered.wait()
        payloads._sync_behind()
        go_on.set()
        assert payloads._thread is not None
        payloads._thread.join()
        self.assertEqual(len(count), 1)

    def test_compaction(self) -> None:
        """LevelDB begins a new log for it: until it has, payloads are in the database."""
        self.writer.put(bytes(5000))
        payloads = self.store._database.payloads
        db = self.store._database.writer.db
        before = self.referred()
        test = self

        class Compacting:
            def compact_range(self, start: bytes, stop: bytes) -> None:
                test.assertFalse(test.store._database.payloads.segments.dirty)
                test.assertTrue(payloads.held)
                db.compact_range(start=start, stop=stop)

            def __getattr__(self, name: str) -> Any:
                return getattr(db, name)

        self.store._database.writer.db = Compacting()
        self.store._database.compact_range(b"Q", b"R")
        self.assertFalse(payloads.held)
        payloads.held = True
        self.writer.put(bytes(5000))
        self.assertEqual(self.referred(), before)
        payloads.held = False
        self.writer.put(bytes(5000))
        self.assertEqual(self.referred(), before + 1)

    def test_compaction_that_fails(self) -> None:
        db = self.store._database.writer.db

        class Broken:
            def compact_range(self, start: bytes, stop: bytes) -> None:
                raise plyvel.IOError(b"IO error: Input/output error")

            def __getattr__(self, name: str) -> Any:
                return getattr(db, name)

        self.store._database.writer.db = Broken()
        self.assertRaises(plyvel.IOError, self.store._database.compact_range, b"Q", b"R")
        self.assertFalse(self.store._database.payloads.held)

    def test_density(self) -> None:
        """LevelDB begins no new log before the old one has a quarter of its buffer, however small the writes are."""
        smallest = [b"D" + number.to_bytes(8, "big") for number in range(100_000)]
        for at_once in (1, 1000):
            db = plyvel.DB(
                str(Path(self.mktemp())), create_if_missing=True, write_buffer_size=BUFFER, compression=None
            )
            self.addCleanup(db.close)
            path = Path(db.name)
            (first,) = path.glob("*.log")
            size = 0
            for at in range(0, len(smallest), at_once):
                batch = db.write_batch()
                for key in smallest[at : at + at_once]:
                    batch.delete(key)
                batch.write()
                if len(list(path.glob("*.log"))) > 1 or not first.exists():
                    break
                size = first.stat().st_size
            self.assertGreaterEqual(size, BUFFER // DENSITY)


class DescriptorsTests(PayloadsTestCase):
    """Clients may use up the descriptors of the process."""

    def test_none_left(self) -> None:
        """The database takes what is large; once there are descriptors again, segments do."""

        def refuse(*_: object, **__: object) -> int:
            raise OSError(errno.EMFILE, "Too many open files")

        segments = self.store._database.payloads.segments
        create = self.patch(segments, "create", refuse)
        items = self.writer.put(bytes(5000))
        self.assertEqual(self.lengths(), [])
        create.restore()
        items += self.writer.put(bytes(30_000))
        ((_, length),) = self.lengths()
        self.assertGreater(length, 30_000)
        self.assertEqual(self.writer.items(), items)

    def test_sealed(self) -> None:
        """Whoever copies the files has to know which may still grow."""
        self.writer.put(bytes(20_000))
        segments = self.store._database.payloads.segments
        self.assertEqual([segments.is_sealed(name) for name in (*self.files(), "000099.seg", "other")], [False] * 3)
        self.store._database.payloads.seal()
        self.assertEqual([segments.is_sealed(name) for name in self.files()], [True])


class ThresholdTests(PayloadsTestCase):
    """From which size on payloads go to segments."""

    def test_none(self) -> None:
        """They go to the database; those that are in segments are read, deleted and given back as before."""
        items = self.writer.put(bytes(5000), bytes(20_000))
        large = self.writer.put_large(CHUNK_BYTES + 5000)
        before = self.lengths()
        self.store.close()
        self.store = self.writer.store = self.open(separate_from=None)
        self.assertEqual(self.writer.items()[:2], items)
        items += [*self.writer.items()[2:], *self.writer.put(bytes(30_000))]
        other = self.writer.put_large(CHUNK_BYTES + 6000)
        self.assertEqual(self.lengths(), before)
        for item in (large, other):
            self.assertEqual(len(self.store.chunk(item.stream, 0)), CHUNK_BYTES)
        self.store.close()
        self.assertEqual(look_at(self.path).astray(), [])
        self.store = self.writer.store = self.open(separate_from=None)
        self.writer.consume(0, 5)
        all_steps(lambda next_id: self.store.reclaim(self.writer.number, 0, 5, next_id, 10))
        drain(self.store, 3)
        self.store.compact()
        self.assertEqual((self.files(), self.store.leftovers()), ([], ([], [])))

    def test_higher(self) -> None:
        self.store.close()
        self.store = self.writer.store = self.open(separate_from=20_000)
        self.writer.put(bytes(10_000))
        self.assertEqual(self.lengths(), [])
        self.writer.put(bytes(30_000))
        ((_, length),) = self.lengths()
        self.assertTrue(30_000 < length < 31_000)
        self.assertEqual([item.size for item in self.writer.items()], [10_000, 30_000])


class EndTests(PayloadsTestCase):
    """A store that was closed has nothing to look at when it is opened again."""

    def test_settled(self) -> None:
        items = self.writer.put(bytes(5000))
        self.store.close()
        self.assertEqual(look_at(self.path).astray(), [])
        looked: list[Path] = []
        self.patch(opening, "drop_lost_payloads", lambda *paths: looked.extend(paths) or [])
        self.store = self.writer.store = self.open()
        self.assertEqual(len(looked), 3)
        self.assertFalse(self.store.uncompacted())
        self.assertEqual(self.writer.items(), items)
        self.assertTrue(all(segment.known for segment in self.segments.values()))

    def test_all_consumed(self) -> None:
        self.writer.put(bytes(5000))
        self.writer.consume(0, 1)
        all_steps(lambda next_id: self.store.reclaim(self.writer.number, 0, 1, next_id, 10))
        self.assertTrue(self.store.uncompacted())
        self.store.compact()
        self.assertEqual(self.files(), [])
        self.assertFalse(self.store.uncompacted())
        self.store.close()
        remains = look_at(self.path)
        self.assertEqual((remains.astray(), remains.dead), ([], {}))
        self.assertIs(database.SEGMENT_BYTES, segments_module.SEGMENT_BYTES)
