"""
Tests of `darner.store.releasing`: the disk space of segments comes back.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from random import Random
from typing import Any

import plyvel

from bench.remains import look_at
from darner.errors import StoreError
from darner.store import records, releasing
from darner.store import segments as segments_module
from darner.store.batch import Batch
from darner.store.references import segment_key
from darner.values.items import Item
from darner.values.vocabulary import CHUNK_BYTES
from test import allow_critical
from test.store.test_payloads import BUFFER, SMALL, PayloadsTestCase
from test.store_contract import EVERYTHING, Writer, all_steps, drain

SEGMENT = 4 * BUFFER


class ReleasingTestCase(PayloadsTestCase):
    """A store with small segments, and items of different sizes in them."""

    def setUp(self) -> None:
        super().setUp()
        # So that the log does not grow by small items, and all large ones are in segments.
        self.patch(self.store._database.payloads, "_buffer", 1 << 30)

    def consume(self, start: int, stop: int, limit: int = 10) -> None:
        self.writer.consume(start, stop)
        all_steps(lambda next_id: self.store.reclaim(self.writer.number, start, stop, max(start, next_id), limit))

    def delete(self, *ids: int) -> None:
        """Delete runs of one item each, as a queue does."""
        batch = Batch()
        batch.reclaim(self.writer.number, [id for last in ids for id in (last, last)])
        self.store.write(batch)

    def size(self) -> int:
        return sum(file.stat().st_size for file in (self.path / "segments").glob("*"))

    def live(self) -> int:
        return sum(segment.live for segment in self.segments.values())

    def assert_sound(self, path: Path) -> None:
        self.assertEqual(look_at(path).astray(), [])


    def released(self) -> list[Path]:
        """
        Release what is empty.

        @return: the directory as it was before the database recorded that segments are gone, with their files gone:
            where a loss of power took a payload that was put in between, a start truncates the log there.
        """
        before: list[Path] = []
        payloads = self.store._database.payloads
        sync = payloads.sync

        def between(without: frozenset[int] = frozenset()) -> None:
            sync(without)
            if without:
                copy = self.copy()
                for number in without:
                    (copy / "segments" / f"{number:06}.seg").unlink()
                before.append(copy)

        self.patch(payloads, "sync", between)
        self.store._releasing.all(lambda: True)
        return before


class ReleaseTests(ReleasingTestCase):
    """A segment of which nothing is needed is deleted."""

    def test_turnover(self) -> None:
        """However much goes through: what is on disk is bounded all the time, and nothing is copied."""
        self.patch(releasing.Releasing, "_copy", None)
        most = 0
        for number in range(300):
            self.writer.put(bytes(20_000))
            self.consume(number, number + 1)
            most = max(most, self.size())
        self.assertLess(most, 4 * SEGMENT)
        self.store.compact()
        self.assertEqual(self.files(), [])
        self.assert_sound(self.copy())

    def test_streams(self) -> None:
        for _ in range(10):
            item = self.writer.put_large(6 * CHUNK_BYTES)
            self.consume(item.id, item.id + 1)
            drain(self.store, 2)
        self.assertLess(self.size(), 4 * SEGMENT)
        self.store.compact()
        self.assertEqual((self.files(), self.store.leftovers()), ([], ([], [])))

    def test_deleted_queue(self) -> None:
        kept = self.writer.put(bytes(5000))
        other = Writer(self.store, b"other")
        for _ in range(40):
            other.put(bytes(20_000))
        other.remove()
        drain(self.store)
        self.store.compact()
        self.assertLess(self.size(), 2 * SEGMENT)
        self.assertEqual(self.writer.items(), kept)
        self.assert_sound(self.copy())

    def test_order(self) -> None:
        """What is still needed is on stable storage, then that the segment is gone, and then the file goes."""
        steps: list[object] = []
        database = self.store._database
        writer = self.writer
        writer.put(*[bytes(50_000)] * 8)  # two segments
        self.consume(0, 6)
        self.assertEqual([segment.live <= 0 for segment in self.segments.values()], [True, False])
        sync, sync_logs, remove = segments_module.sync, database.directory.sync_logs, database.payloads.segments.remove

        def synced(path: Path) -> None:
            steps.append(path.name)
            sync(path)

        def recorded() -> None:
            steps.append(("recorded", database.get(segment_key(1))))
            sync_logs()

        def removed(number: int) -> None:
            steps.append(("removed", number))
            remove(number)

        self.patch(segments_module, "sync", synced)
        self.patch(database.directory, "sync_logs", recorded)
        self.patch(database.payloads.segments, "remove", removed)
        self.store._releasing.all(lambda: True)
        self.assertEqual(steps, ["000002.seg", "segments", ("recorded", None), ("removed", 1)])

    def test_record_that_is_lost(self) -> None:
        """A start without the record that a segment is gone knows that nothing of it was needed."""
        self.writer.put(*[bytes(50_000)] * 8)
        self.store._database.payloads.sync()
        self.consume(0, 6)
        (path,) = self.released()
        store = self.open(path)
        self.assertEqual([item.id for item in store.read(self.writer.number, 0, 9, EVERYTHING)], [6, 7])
        store.compact()
        self.assertEqual(store.leftovers(), ([], []))

    def test_record_that_is_lost_of_what_a_killed_process_left(self) -> None:
        """It is not known then how long that segment was."""
        self.writer.put(bytes(50_000))
        self.path = self.copy()
        store = self.store
        self.store = self.writer.store = self.open()
        store.close()
        self.assertFalse(self.segments[1].known)
        self.consume(0, 1)
        (path,) = self.released()
        self.assertEqual(self.files(), [])
        self.assertEqual(self.open(path).read(self.writer.number, 0, 9, EVERYTHING), [])

    def test_cannot_be_recorded(self) -> None:
        """It stays, and is deleted the next time."""
        self.writer.put(bytes(20_000))
        self.consume(0, 1)

        def broken() -> None:
            raise OSError(errno.EIO, "Input/output error")

        sync_logs = self.store._database.directory.sync_logs
        self.patch(self.store._database.directory, "sync_logs", broken)
        self.assertRaises(StoreError, self.store.compact)
        self.assertEqual(self.files(), ["000001.seg"])
        self.patch(self.store._database.directory, "sync_logs", sync_logs)
        self.store.compact()
        self.assertEqual(self.files(), [])

    def test_of_an_unknown_segment(self) -> None:
        """What is given up may refer to one that is gone already."""
        self.writer.put(bytes(20_000))
        self.store._database.payloads.segments.remove(1)
        self.consume(0, 1)
        self.assertEqual(self.segments, {})

    def test_strays_stay_where_they_cannot_be_deleted(self) -> None:
        self.writer.put(bytes(5000))
        (self.path / "segments" / "000099.seg").mkdir()
        self.again()
        self.assertEqual(self.files(), ["000001.seg", "000099.seg"])
        self.assertEqual(len(self.writer.items()), 1)

    def test_damaged_database(self) -> None:
        """It is not written to."""
        self.writer.put(bytes(20_000))
        self.consume(0, 1)
        self.store._database.damage = "damaged"
        self.store.compact()
        self.assertEqual(self.files(), ["000001.seg"])

    def test_deleted_by_the_queue(self) -> None:
        """What dies is counted by the write that deletes it, once, whoever deletes it again."""
        for _ in range(4):
            self.writer.put(bytes(20_000))
        self.writer.consume(0, 4)
        live = self.live()
        self.delete(0, 1, 1)
        self.assertEqual((live - self.live()) // 1000, 40)
        self.delete(1)
        self.consume(0, 2)
        self.assertEqual((live - self.live()) // 1000, 40)
        self.assert_sound(self.copy())
        self.delete(2, 3)
        self.assertEqual(self.live(), 0)
        self.store.compact()
        self.assertEqual(self.files(), [])

    def test_small_runs_are_not_looked_up(self) -> None:
        self.writer.put(SMALL)
        self.writer.consume(0, 1)
        batch = Batch()
        batch.reclaim(self.writer.number, [0, 0], False)
        self.assertEqual(list(batch.apart), [])

    def test_deleted_unread(self) -> None:
        """Where LevelDB cannot tell what a key refers to, the key is deleted all the same, and segments are counted."""
        self.writer.put(bytes(20_000))
        self.writer.put(bytes(20_000))
        self.writer.consume(0, 1)

        def broken(key: bytes) -> None:
            raise plyvel.CorruptionError(b"Corruption: bad block")

        self.patch(self.store._database, "get", broken)
        self.delete(0)
        del self.store._database.get
        self.assertFalse(self.segments[1].known)
        self.assertEqual([item.id for item in self.writer.items()], [1])
        self.writer.put(*[bytes(60_000)] * 5)
        self.store.compact()
        self.assertTrue(self.segments[1].known)
        self.assert_sound(self.copy())

    def test_in_proportion(self) -> None:
        """A busy server gives back what is worth it, without waiting for a quiet moment."""
        for number in range(60):
            self.writer.put(bytes(20_000))
            self.writer.consume(number, number + 1)
            self.delete(number)
        before = len(self.files())
        self.store.compact(lambda: True, False)
        self.assertLess(len(self.files()), before)
        before = len(self.files())
        self.store.compact(lambda: True, False)  # nothing has died since
        self.assertEqual(len(self.files()), before)

    def test_files_for_a_copy(self) -> None:
        """What is linked and cut at these lengths has all of the payloads, whatever happens later."""
        items = self.writer.put(bytes(20_000), bytes(30_000))
        copy = Path(self.mktemp())
        shutil.copytree(self.path, copy, ignore=shutil.ignore_patterns("segments"))
        (copy / "segments").mkdir()
        files = self.lengths()
        self.assertEqual([path.name for path, _ in files], self.files())
        for path, _ in files:
            os.link(path, copy / "segments" / path.name)
        self.writer.put(bytes(20_000))
        self.consume(0, 3)
        self.store.compact()
        for path, length in files:
            (copy / "segments" / path.name).write_bytes((copy / "segments" / path.name).read_bytes()[:length])
        store = self.open(copy)
        self.assertEqual(store.read(self.writer.number, 0, 9, EVERYTHING), items)
        store.close()
        self.assert_sound(copy)

    def test_steps_that_fail(self) -> None:
        """It is not known whether what they deleted is deleted: so it is counted anew."""
        self.writer.put(*[bytes(20_000)] * 3)
        self.writer.consume(0, 3)
        payloads = self.store._database.payloads
        written = payloads.written

        def fail() -> None:
            payloads.refused()
            raise StoreError("cannot write: Input/output error")

        self.patch(payloads, "written", fail)
        self.assertRaises(StoreError, self.store.reclaim, self.writer.number, 0, 3, 0, 10)
        self.patch(payloads, "written", written)
        self.assertFalse(self.segments[1].known)
        self.store.reclaim(self.writer.number, 0, 3, 0, 10)
        self.writer.put(*[bytes(60_000)] * 5)
        self.assertTrue(self.store.uncompacted())
        self.store.compact()
        self.assertNotIn(1, self.segments)
        self.assertEqual(len(self.writer.items()), 5)
        self.assert_sound(self.copy())


class MoveTests(ReleasingTestCase):
    """What little is needed of a segment is copied to another one."""

    def test_bounded(self) -> None:
        """One item of thirty stays: the disk has at most three times of what is needed, and a few segments."""
        kept: list[Item] = []
        for number in range(600):
            items = self.writer.put(Random(number).randbytes(20_000))
            if number % 30:
                self.consume(number, number + 1)
            else:
                kept += items
            self.assertLess(self.size(), 3 * self.live() + 5 * SEGMENT)
        self.store.compact()
        self.assertLess(self.size(), 3 * self.live() + 3 * SEGMENT)
        self.assertEqual(self.writer.items(), kept)
        self.again()
        self.assertEqual(self.writer.items(), kept)
        self.assert_sound(self.copy())
        self.consume(0, 600)
        self.store.compact()
        self.assertEqual(self.files(), [])

    def test_behind(self) -> None:
        """Where space does not come back as fast as it is taken, large payloads wait."""
        for _ in range(60):
            self.writer.put(bytes(50_000))
        self.writer.consume(0, 59)
        self.assertFalse(self.store.pressed())
        self.patch(self.store._releasing, "_release", lambda least: None)
        all_steps(lambda next_id: self.store.reclaim(self.writer.number, 0, 59, next_id, 10))
        self.assertTrue(self.store.pressed())
        self.store.compact()
        self.assertFalse(self.store.pressed())

    def some(self) -> list[Item]:
        """Put items, and consume most of them.  @return: those that stay, which are in one segment."""
        items = self.writer.put(*[os.urandom(20_000) for _ in range(12)], bytes(60_000))
        self.writer.put(bytes(60_000))
        self.consume(0, 8)
        self.consume(9, 12)
        return [items[8], *self.writer.items()[-2:]]

    def test_record_that_is_lost(self) -> None:
        """Copies may fill a segment before it is known that the database refers to them."""
        self.some()
        releasing_ = self.store._releasing
        refer = releasing_._refer

        def full(*arguments: Any) -> None:
            releasing_._cold.seal()
            self.store._database.write([], large=True)
            refer(*arguments)

        self.patch(releasing_, "_refer", full)
        self.store._releasing.all(lambda: True)
        self.assertTrue(self.segments[max(self.segments)].known)
        self.consume(0, 14)
        for path in self.released():
            self.assertEqual(self.open(path).read(self.writer.number, 0, 99, EVERYTHING), [])
        self.assertEqual(self.files(), [])

    def test_killed_between(self) -> None:
        """The copies alone are nothing: they are counted anew, and go."""
        kept = self.some()
        self.patch(self.store._database, "write_if", lambda wanted: None)
        self.store._releasing._move(self.segments[1])
        killed = self.copy()
        store = self.open(killed)
        self.assertTrue(store.uncompacted())
        store.compact()
        self.assertFalse(store.uncompacted())
        found = store.read(self.writer.number, 0, 99, EVERYTHING)
        self.assertEqual([item for item in found if item in kept], kept)
        store.close()
        self.assert_sound(killed)

    def test_cannot_be_written(self) -> None:
        kept = self.some()

        def fail(wanted: Any) -> None:
            raise StoreError("cannot write: No space left on device")

        write_if = self.store._database.write_if
        self.patch(self.store._database, "write_if", fail)
        self.assertRaises(StoreError, self.store._releasing._move, self.segments[1])
        self.patch(self.store._database, "write_if", write_if)
        self.assertEqual([number for number, segment in self.segments.items() if not segment.known], [3])
        self.assertTrue(self.store._releasing._move(self.segments[1]))
        self.assertEqual(self.segments[1].live, 0)
        self.store.compact()
        self.assertEqual(self.writer.items()[-3:], kept)
        self.assert_sound(self.copy())

    def test_deleted_meanwhile(self) -> None:
        """What is deleted after it was copied does not come back."""
        self.some()
        key = records.run_key(self.writer.number, 12)
        write_if = self.store._database.write_if

        def delete_first(wanted: Any) -> None:
            self.store._database.write([(key, None)])
            write_if(wanted)

        self.patch(self.store._database, "write_if", delete_first)
        self.assertTrue(self.store._releasing._move(self.segments[1]))
        self.assertIsNone(self.store._database.get(key))
        self.assertIn(12, [item.id for item in self.store.read(self.writer.number, 0, 12, EVERYTHING)] + [12])

    def test_deleted_while_it_is_counted(self) -> None:
        """That is counted too."""
        self.some()
        segment = self.segments[1]
        segment.doubts = 1
        find = self.store._releasing._find

        def meanwhile(*arguments: Any) -> Any:
            found = find(*arguments)
            self.delete(8)
            return found

        self.patch(self.store._releasing, "_find", meanwhile)
        self.assertTrue(self.store._releasing._move(segment, False))
        self.assertTrue(segment.known)
        self.assert_sound(self.copy())

    def test_doubt_while_it_is_counted(self) -> None:
        """It is counted again."""
        self.some()
        segment = self.segments[1]
        segment.doubts = 1
        find = self.store._releasing._find

        def meanwhile(*arguments: Any) -> Any:
            self.store._database.payloads.segments.miscounted(segment)
            return find(*arguments)

        self.patch(self.store._releasing, "_find", meanwhile)
        self.assertTrue(self.store._releasing._move(segment, False))
        self.assertFalse(segment.known)
        self.patch(self.store._releasing, "_find", find)
        self.store.compact()
        self.assertTrue(all(segment.known for segment in self.segments.values()))
        self.assert_sound(self.copy())

    def test_not_wanted_in_a_step(self) -> None:
        self.some()
        self.patch(self.store._releasing, "_excess", lambda: 1)
        self.store._releasing._seen = -2 * SEGMENT
        self.store._releasing.step(lambda: False)
        self.assertGreater(self.segments[1].live, 0)
        self.store._releasing._seen = -2 * SEGMENT
        self.store._releasing.step()
        self.assertNotIn(1, [number for number, segment in self.segments.items() if segment.live > 0])

    def test_still_to_be_written(self) -> None:
        """A segment may be full before the database has been told of its last record."""
        self.writer.put(bytes(20_000))
        payloads = self.store._database.payloads
        payloads._hot.append([(records.run_key(self.writer.number, 9), bytes(60_000))] * 6)
        self.assertTrue(self.segments[1].sealed)
        self.assertFalse(self.store._releasing._move(self.segments[1]))
        self.consume(0, 1)
        self.segments[1].dead = self.segments[1].size // 2 + 1
        self.patch(self.store._releasing, "_excess", lambda: 1)
        self.store._releasing.all(lambda: True)
        self.assertIn("000001.seg", self.files())

    def test_damaged(self) -> None:
        """It stays as it is, and that is said once."""
        allow_critical(self, " is damaged at ")
        kept = self.some()
        segment = self.path / "segments" / "000001.seg"
        data = bytearray(segment.read_bytes())
        data[1000] ^= 1
        segment.write_bytes(data)
        self.patch(self.store._releasing, "_excess", lambda: 1)
        self.store._releasing.all(lambda: True)
        self.assertTrue(self.segments[1].damaged)
        self.store._releasing.all(lambda: True)
        self.assertEqual(segment.read_bytes(), bytes(data))
        self.assertEqual(self.writer.items()[-3:], kept)

    def test_not_wanted_any_more(self) -> None:
        self.some()
        self.patch(self.store._releasing, "_excess", lambda: 1)
        self.segments[1].doubts = 1
        self.store._releasing.all(lambda: False)
        self.assertFalse(self.segments[1].known)
        self.assertGreater(self.segments[1].live, 0)

    def test_nothing_worth_it(self) -> None:
        """Where most of every segment is needed."""
        self.writer.put(*[bytes(60_000)] * 10)
        self.consume(0, 1)
        self.patch(self.store._releasing, "_excess", lambda: 1)
        before = self.files()
        self.store._releasing._seen = -SEGMENT
        self.store._releasing.step()
        self.store._releasing.all(lambda: True)
        self.assertEqual(self.files(), before)
        self.assertFalse(self.store._releasing.wanted)
