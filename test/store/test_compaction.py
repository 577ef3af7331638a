"""
Tests of `darner.store.compaction`.
"""

from __future__ import annotations

import os
from typing import Any

from darner.errors import StoreError
from darner.store import compaction, records
from darner.store.batch import Batch
from darner.store.database import Database
from darner.values.items import Mark
from test.harness import from_source
from test.store.test_leveldb import LevelTestCase, disk_usage
from test.store_contract import Writer, drain, small

SIZE = 50_000


class CompactionTestCase(LevelTestCase):
    """
    A test case with a store and small tables.

    @ivar compacted: the ranges that were compacted.
    """

    def setUp(self) -> None:
        self.patch(Database, "WRITE_BUFFER", 128 * 1024)
        self.store = self.open(separate_from=None)
        self.compacted: list[tuple[bytes, bytes]] = []

    def watch(self) -> None:
        """Count compactions from now on."""
        database: Any = self.store._database
        compact_range = database.compact_range

        def watched(start: bytes, stop: bytes) -> None:
            self.compacted.append((start, stop))
            compact_range(start, stop)

        self.patch(database, "compact_range", watched)

    def queue(self, name: bytes, count: int = 20) -> Writer:
        """@return: a queue with large runs."""
        writer = Writer(self.store, name)
        for _ in range(count):
            writer.put(os.urandom(SIZE))
        return writer

    def reclaim(self, writer: Writer, first: int, last: int) -> None:
        """Consume runs of one item each, and delete them as a queue does."""
        writer.consume(first, last + 1)
        batch = Batch()
        batch.reclaim(writer.number, [id for run in range(first, last + 1) for id in (run, run)])
        self.store.write(batch)

    def again(self) -> None:
        self.store.close()
        self.store = self.open(self.store.path, separate_from=None)

    def kinds(self) -> list[bytes]:
        """@return: what the store has recorded."""
        return [key for key, _ in self.store._database.prefixed(records.UNCOMPACTED)]


class RecordTests(CompactionTestCase):
    """What is to be compacted is recorded."""

    def test_one_record_is_enough(self) -> None:
        """It is not written again as more is deleted."""
        writer = self.queue(b"q")
        self.reclaim(writer, 0, 4)
        batch = Batch()
        batch.reclaim(writer.number, [5, 5, 6, 6])
        count = len(batch.writes)
        self.store.write(batch)
        self.assertEqual(len(batch.writes), count)
        kind = records.neighbourhood(records.mark_key(writer.number))
        self.assertEqual(self.kinds(), [records.uncompacted_key(kind)])
        self.watch()
        self.store.compact()
        self.assertEqual(
            self.compacted, [(records.run_key(writer.number, 0), records.run_key(writer.number, 6) + b"\0")]
        )
        self.assertEqual(self.kinds(), [])
        self.assertFalse(self.store.uncompacted())

    def test_deleted_queue(self) -> None:
        """The next process compacts all of its range, as nothing says how far it was consumed."""
        writer = self.queue(b"q")
        self.reclaim(writer, 0, 4)
        self.store._database.write([(records.mark_key(writer.number), None)])
        self.again()
        self.watch()
        self.store.compact()
        (low, high), *_ = self.compacted
        self.assertLessEqual(low, records.run_key(writer.number, 0))
        self.assertGreater(high, records.run_key(writer.number, 19))
        self.assertFalse(self.store.uncompacted())

    def test_next_process(self) -> None:
        """It leaves out what is not consumed."""
        writer = self.queue(b"q")
        self.reclaim(writer, 0, 4)
        full = disk_usage(self.store.path)
        self.again()
        self.assertTrue(self.store.uncompacted())
        self.watch()
        self.store.compact()
        self.assertEqual(self.compacted[0][1], records.run_key(writer.number, 5) + b"\0")
        self.assertLess(disk_usage(self.store.path), full - 4 * SIZE)
        self.assertEqual(len(self.store.read(writer.number, 0, 100, 10**7)), 15)

    def test_next_process_behind_an_item_that_stays(self) -> None:
        writer = self.queue(b"q")
        self.reclaim(writer, 1, 4)
        self.again()
        self.watch()
        self.store.compact()
        self.assertEqual(self.compacted[0][1], records.run_key(writer.number, 5) + b"\0")

    def test_next_process_without_the_queue(self) -> None:
        """All that it had is consumed."""
        writer = self.queue(b"q")
        self.reclaim(writer, 0, 4)
        writer.remove()
        self.store.reclaim_queue(writer.number, 0, 100)
        self.store._database.write([(records.mark_key(writer.number), None)])
        self.again()
        self.store.compact()
        self.assertFalse(self.store.uncompacted())
        self.assertLess(disk_usage(self.store.path), 10 * SIZE)

    def test_deleted_while_it_is_compacted(self) -> None:
        """That is compacted the next time, in this process or the next one."""
        writer = self.queue(b"q")
        self.reclaim(writer, 0, 4)
        database: Any = self.store._database
        compact_range = database.compact_range

        def meanwhile(start: bytes, stop: bytes) -> None:
            compact_range(start, stop)
            self.reclaim(writer, 5, 6)

        self.patch(database, "compact_range", meanwhile)
        self.store.compact()
        self.assertEqual(len(self.kinds()), 1)
        self.assertTrue(self.store.uncompacted())
        self.again()
        self.assertTrue(self.store.uncompacted())

    def test_that_failed(self) -> None:
        """All that was to be compacted still is."""
        writer = self.queue(b"q")
        self.reclaim(writer, 0, 4)

        def fail(start: bytes, stop: bytes) -> None:
            self.reclaim(writer, 5, 6)
            raise StoreError("no")

        database: Any = self.store._database
        compact_range = database.compact_range
        database.compact_range = fail
        self.assertRaises(StoreError, self.store.compact)
        database.compact_range = compact_range
        self.watch()
        self.store.compact()
        self.assertEqual(
            self.compacted, [(records.run_key(writer.number, 0), records.run_key(writer.number, 6) + b"\0")]
        )


class ChoiceTests(CompactionTestCase):
    """What is compacted, and together with what."""

    def test_neighbours(self) -> None:
        """Queues with nothing between them are compacted together."""
        writers = [self.queue(b"q%d" % number, 4) for number in range(3)]
        for writer in writers:
            self.reclaim(writer, 0, 3)
        self.watch()
        self.store.compact()
        low, high = records.run_key(writers[0].number, 0), records.run_key(writers[2].number, 3)
        self.assertEqual(self.compacted, [(low, high + b"\0")])
        self.assertEqual(self.kinds(), [])

    def test_backlog_between(self) -> None:
        """What is alive is not merged again and again for its neighbours."""
        writers = [self.queue(b"q%d" % number, 20) for number in range(3)]
        self.reclaim(writers[0], 0, 19)
        self.reclaim(writers[2], 0, 19)
        self.watch()
        self.store.compact()
        self.assertEqual(len(self.compacted), 2)

    def test_many(self) -> None:
        """
        However many queues earlier processes have left, a few compactions do for them.  With one for each, 1,800 queues
        took minutes, and what was deleted meanwhile waited for that.
        """
        for number in range(200):
            writer = Writer(self.store, b"q%d" % number)
            writer.put(bytes(100), bytes(100))
            self.reclaim(writer, 0, 0)
            if number % 2:
                writer.remove()
                drain(self.store)
        self.assertGreater(len(self.kinds()), 200)
        self.again()
        self.watch()
        self.store.compact()
        self.assertLess(len(self.compacted), 5)
        self.assertEqual(self.kinds(), [])

    def test_little_garbage(self) -> None:
        """While the server is busy, it stays."""
        writer = self.queue(b"q")
        self.reclaim(writer, 0, 19)
        self.watch()
        self.store.compact(lambda: True, False)
        self.assertEqual(self.compacted, [])
        self.assertTrue(self.store.uncompacted())

    @from_source
    def test_much_garbage(self) -> None:
        """Where there is most of it, and as long as there is much."""
        self.patch(compaction, "GARBAGE", 10 * SIZE)
        self.patch(compaction, "GAP", -1)
        self.patch(Database, "newest_bytes", lambda _: 0)
        few, many = self.queue(b"few", 5), self.queue(b"many", 20)
        self.store._database.compact_range(b"", b"~")
        self.reclaim(few, 0, 4)
        self.reclaim(many, 0, 19)
        self.watch()
        self.store.compact(lambda: True, False)
        runs = [start for start, _ in self.compacted if records.is_run(start)]
        self.assertEqual(runs, [records.run_key(many.number, 0)])

    @from_source
    def test_newest_tables(self) -> None:
        """LevelDB merges them unasked: how much garbage they have does not count."""
        self.patch(compaction, "GARBAGE", 10 * SIZE)
        writer = self.queue(b"q")
        self.store._database.compact_range(b"", b"~")
        self.reclaim(writer, 0, 19)
        self.patch(Database, "newest_bytes", lambda _: 30 * SIZE)
        self.watch()
        self.store.compact(lambda: True, False)
        self.assertEqual(self.compacted, [])

    def test_attempts(self) -> None:
        """Those of deleted items are compacted where they take space."""
        writer = self.queue(b"q", 4)
        ids = range(30_000)
        batch = Batch()
        batch.attempts(writer.number, [(id, 1) for id in ids])
        batch.mark(writer.number, Mark(4, 4))
        self.store.write(batch)
        self.store._database.compact_range(b"", b"~")
        batch = Batch()
        batch.attempts(writer.number, [(id, 0) for id in ids])
        batch.put(writer.number, [small(4, b"x")], 1)
        self.store.write(batch)
        self.reclaim(writer, 0, 3)
        self.patch(compaction, "GAP", 1000)
        full = disk_usage(self.store.path)
        self.store.compact()
        self.assertLess(disk_usage(self.store.path), full / 2)
