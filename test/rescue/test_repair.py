"""
Tests of damaged stores: `darner.rescue.repair`, and with it `darner.rescue.salvage`, `darner.rescue.survey`,
`darner.store.inspection` and `darner.store.rollback`.

The first half damages stores by chance, hundreds of times, and asks for what must hold of each; the other half is about
single cases.
"""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import ExitStack, closing
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import plyvel
from attrs import evolve
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from darner.errors import StoreDamaged, StoreError, StoreUnusable
from darner.rescue import repair as repair_module
from darner.rescue.repair import REPORT, Report, check, repair
from darner.rescue.survey import QueueFinding
from darner.store import directory, records, rollback
from darner.store.batch import Batch
from darner.store.database import Database
from darner.store.directory import AFTER, BEFORE, SAVED, SAVING
from darner.store.files.manifest import Manifest, current
from darner.store.files.names import logs, tables
from darner.store.inspection import first_damage
from darner.store.leveldb import LevelStore
from darner.store.opening import fill
from darner.values.items import Generation
from darner.values.vocabulary import CHUNK_BYTES
from test import allow_critical
from test.damage import DAMAGES, Keeper, Kept, contents, files, live_tables, make_store
from test.store_contract import Writer, large

CASES = 60
"""How many damages are tried; each takes about a tenth of a second."""
STORES = 2


def serve(path: Path) -> dict[bytes, list[bytes]]:
    """
    Open a store and read all that is to be had, as a server would.

    @raise StoreError: the store is refused, or something cannot be read.
    """
    store = LevelStore(path)
    try:
        return Keeper(store).everything()
    finally:
        store.close()


class DamagedTestCase(SynchronousTestCase):
    """Stores to be damaged.  They are made once."""

    made: list[tuple[Path, Kept]] = []

    def setUp(self) -> None:
        allow_critical(self, " is damaged")
        # A store has a file of 12 MiB, which would be copied again and again.
        self.patch(directory, "RESERVE_BYTES", 4096)
        self.base = Path(self.mktemp()).absolute()
        self.base.mkdir()

    def store(self, number: int = 0) -> tuple[Path, Kept]:
        """@return: a new copy of a store, and what it holds."""
        while len(self.made) <= number:
            path = Path(self.mktemp()).absolute()
            self.made.append((path, make_store(path, Random(len(self.made)))))
        original, kept = self.made[number]
        return self.copy(original), deepcopy(kept)

    def copy(self, original: Path) -> Path:
        path = self.base / str(len(list(self.base.iterdir())))
        shutil.copytree(original, path)
        return path

    def refusal(self, path: Path) -> str:
        """@return: what is said of a store that is not served; nothing is changed."""
        unchanged = contents(path)
        error = self.assertRaises(StoreUnusable, serve, path)
        self.assertEqual(contents(path), unchanged)
        return str(error)

    def places(self, kept: Kept, queue: bytes, found: list[bytes]) -> set[int]:
        """@return: which of the payloads that were put on a queue these are; they are whole, and in order."""
        places = []
        at = 0
        for data in found:
            while at < len(kept.put[queue]) and kept.put[queue][at] != data:
                at += 1
            self.assertLess(at, len(kept.put[queue]), f"{data[:60]!r} was not put there, or not so late")
            places.append(at)
            at += 1
        return set(places)


class ChanceTests(DamagedTestCase):
    """Whatever is damaged, nobody is handed anything that was not put, and the rest is saved."""

    def damage(self, random: Random, path: Path) -> list[tuple[str, str]]:
        done = []
        for _ in range(random.choice([1, 1, 1, 2])):
            file = random.choice([file for file in files(path) if file.exists()])
            damage = random.choice(DAMAGES)
            damage(random, file)
            done.append((damage.__name__, file.name))
        return done

    def test_anything(self) -> None:
        seen = {"refused": 0, "unreadable": 0, "served": 0, "exact": 0}
        for seed in range(CASES):
            random = Random(seed)
            path, kept = self.store(random.randrange(STORES))
            done = self.damage(random, path)
            try:
                self.check_case(path, kept, done, seen)
            except BaseException as error:
                raise AssertionError(f"seed {seed}, {done}: {error}") from error
            shutil.rmtree(path)
        self.flushLoggedErrors()
        self.assertTrue(all(seen.values()), seen)

    def check_case(self, path: Path, kept: Kept, done: list[tuple[str, str]], seen: dict[str, int]) -> None:
        unchanged = contents(path)
        checked = check(path)
        self.assertEqual(contents(path), unchanged)
        # The end of a log may be gone without a trace, as if it had never been written.
        cut = any(file.endswith(".log") and what in ("truncate", "empty", "overwrite") for what, file in done)
        self.check_start(self.copy(path), kept, checked, cut, seen)
        report = repair(path)
        self.assertEqual((report.damages, report.queues), (checked.damages, checked.queues))
        if not report.sound:
            assert report.aside is not None
            for place in ("leveldb", "segments"):
                was = {name[len(place) + 1 :]: data for name, data in unchanged.items() if name.startswith(f"{place}/")}
                self.assertEqual(contents(report.aside / place), was)
        found = serve(path)
        self.assertTrue(check(path).sound, check(path).lines())
        if not report.sound:
            self.check_saved(report, kept, found, cut, seen)

    def check_start(
        self, path: Path, kept: Kept, checked: Report, cut: bool, seen: dict[str, int]
    ) -> None:
        """Without a repair: all is served, or what is wrong is said and nothing is changed."""
        unchanged = contents(path)
        try:
            found = serve(path)
        except StoreUnusable as error:
            self.assertEqual(contents(path), unchanged)
            self.assertFalse(checked.sound)
            self.assertTrue(str(error).endswith(": start with --repair to save what can be read"), error)
            seen["refused"] += 1
        except StoreError as error:
            self.assertFalse(checked.sound)
            self.assertRegex(str(error), r"cannot read: the store is damaged \((Corruption|segments/\d+.seg): ")
            seen["unreadable"] += 1
        else:
            for queue, payloads in found.items():
                self.places(kept, queue, payloads)
            if not cut:
                self.assertEqual(found, all_of(kept))
            seen["served"] += 1
        shutil.rmtree(path)

    def check_saved(
        self, report: Report, kept: Kept, found: dict[bytes, list[bytes]], cut: bool, seen: dict[str, int]
    ) -> None:
        findings = {finding.name: finding for finding in report.queues}
        self.assertLessEqual(set(found), set(findings))
        for name, payloads in found.items():
            finding = findings[name]
            self.assertEqual(finding.saved, len(payloads))
            if finding.unnamed and not payloads:
                continue
            queue = payloads[0].split(b" ")[0] if finding.unnamed else name
            places = self.places(kept, queue, payloads)
            if not finding.uncertain and not cut:
                self.assertLessEqual(places, set(kept.left[queue]), f"{name!r}: what was taken is there again")
                self.assertEqual(finding.saved + finding.lost, len(kept.left[queue]), f"{name!r}")
                seen["exact"] += 1
        named = not any(finding.unnamed for finding in report.queues)
        if named and not cut and set(kept.left) - set(found):
            said = " ".join([*report.notes, *map(str, report.damages)])
            self.assertRegex(said, "whole queues with them|with all queues")


def all_of(kept: Kept) -> dict[bytes, list[bytes]]:
    return {queue: [kept.put[queue][place] for place in places] for queue, places in kept.left.items()}


class SoundTests(DamagedTestCase):
    """A store that is not damaged."""

    def test_check(self) -> None:
        path, kept = self.store()
        unchanged = contents(path)
        report = check(path)
        self.assertEqual(contents(path), unchanged)
        self.assertTrue(report.sound)
        self.assertEqual((report.saved, report.lost), (kept.count, 0))
        self.assertEqual(
            report.lines(),
            [f"6 queues are whole, with {kept.count} items", f"total: {kept.count} items found, 0 lost"],
        )

    def test_repair_leaves_it_alone(self) -> None:
        path, kept = self.store()
        unchanged = contents(path)
        report = repair(path)
        self.assertEqual((report.sound, report.aside), (True, None))
        self.assertEqual(contents(path), unchanged)
        self.assertEqual(serve(path), all_of(kept))

    def test_none_yet(self) -> None:
        path = self.base / "new"
        self.assertRaises(StoreUnusable, check, path)
        self.assertFalse(path.exists())
        self.assertTrue(repair(path).sound)
        self.assertEqual(serve(path), {})
        self.assertTrue(check(path).sound)

    def test_first_start_that_was_cut_short(self) -> None:
        """Directory and marker are there, and no database; or there is only the directory for it."""
        path = self.base / "new"
        LevelStore(path).close()
        shutil.rmtree(path / "leveldb")
        (path / "leveldb").mkdir()
        (path / "leveldb" / "LOG").touch()
        self.assertTrue(check(path).sound)
        self.assertEqual(serve(path), {})
        for name in "darner", "reserve":
            (path / name).unlink()
        shutil.rmtree(path / "leveldb")
        (path / "leveldb").mkdir()
        self.assertEqual(serve(path), {})

    def test_in_use(self) -> None:
        path, _ = self.store()
        store = LevelStore(path)
        for look in (check, repair):
            self.assertIn("is in use by another process", str(self.assertRaises(StoreUnusable, look, path)))
        store.close()

    def test_not_ours(self) -> None:
        path = self.base / "other"
        path.mkdir()
        (path / "letter.txt").touch()
        for look in (check, repair):
            self.assertIn("files that are not darner's", str(self.assertRaises(StoreUnusable, look, path)))

    def test_other_database_without_marker(self) -> None:
        """A database named as ours is not made ours by a repair."""
        path = self.base / "other"
        path.mkdir()
        fill(path / "leveldb", [(b"a", b"b")])
        unchanged = contents(path)
        self.assertIn("start with --repair", self.refusal(path))
        for look in (check, repair):
            said = str(self.assertRaises(StoreUnusable, look, path))
            self.assertIn("in a format that this version does not know", said)
        self.assertEqual(contents(path), unchanged)

    def test_other_format(self) -> None:
        path = self.base / "later"
        LevelStore(path).close()
        shutil.rmtree(path / "leveldb")
        fill(path / "leveldb", [(records.FORMAT_KEY, b"darner 3")])
        self.assertIn("in a format that this version does not know", self.refusal(path))
        self.assertRaises(StoreUnusable, repair, path)

    def test_strange_files(self) -> None:
        """They are named, and left alone."""
        path, kept = self.store()
        (path / "letter.txt").write_text("Dear Sir\n")
        (path / "leveldb" / "core.1").write_text("!")
        report = repair(path)
        self.assertEqual((report.foreign, report.sound), (("letter.txt", "leveldb/core.1"), True))
        self.assertIn("not part of the store, ignored: letter.txt", report.lines())
        with capturedLogs() as events:
            self.assertEqual(serve(path), all_of(kept))
        said = [formatEvent(event) for event in events if event["log_level"].name == "warn"]
        self.assertEqual(
            said, [f"{name} is not part of the store in {path}: it is ignored" for name in report.foreign]
        )
        self.assertEqual((path / "letter.txt").read_text(), "Dear Sir\n")
        self.assertEqual((path / "leveldb" / "core.1").read_text(), "!")


class CaseTests(DamagedTestCase):
    """Single damages."""

    def assert_all_saved(self, path: Path, kept: Kept, said: str) -> Report:
        self.assertIn(said, self.refusal(path))
        report = repair(path)
        self.assertEqual((report.saved, report.lost), (kept.count, 0))
        self.assertEqual(serve(path), all_of(kept))
        return report

    def manifest(self, path: Path) -> Path:
        return current(path / "leveldb")

    def test_current_lost(self) -> None:
        path, kept = self.store()
        (path / "leveldb" / "CURRENT").unlink()
        report = self.assert_all_saved(path, kept, "CURRENT: No such file or directory")
        self.assertFalse(any(queue.uncertain for queue in report.queues))

    def test_manifest_lost(self) -> None:
        path, kept = self.store()
        manifest = self.manifest(path)
        manifest.unlink()
        report = self.assert_all_saved(path, kept, f"{manifest.name}: No such file or directory")
        self.assertIn("the list of tables is lost", " ".join(report.lines()))

    def test_marker_lost(self) -> None:
        path, kept = self.store()
        (path / "darner").unlink()
        self.assert_all_saved(path, kept, "darner: it is missing")
        self.assertTrue(check(path).sound)

    def test_marker_damaged(self) -> None:
        path, kept = self.store()
        (path / "darner").write_bytes(b"darner data?")
        report = self.assert_all_saved(path, kept, "darner: its contents are wrong")
        assert report.aside is not None
        self.assertEqual((report.aside / "darner").read_bytes(), b"darner data?")

    def test_database_lost(self) -> None:
        path, _ = self.store()
        shutil.rmtree(path / "leveldb")
        self.assertIn("leveldb: it is missing, with all queues", self.refusal(path))
        self.assertFalse(repair(path).sound)
        self.assertEqual(serve(path), {})

    def test_table_lost(self) -> None:
        path, _kept = self.store()
        table = max(live_tables(path).values(), key=lambda table: table.stat().st_size)
        table.unlink()
        self.assertIn(f"{table.name}: it is missing", self.refusal(path))
        report = repair(path)
        self.assertGreater(report.lost, 0)
        assert report.aside is not None
        self.assertEqual(report.lines(), (report.aside / REPORT).read_text().splitlines())
        self.assertIn(f"damaged: {table.name}: it is missing", report.lines())

    def test_table_of_another_size(self) -> None:
        path, kept = self.store()
        table = min(live_tables(path).values())
        size = table.stat().st_size
        with table.open("ab") as file:
            file.write(b"more")
        self.assertIn(f"{table.name}: it has {size + 4} bytes and not {size}", self.refusal(path))
        self.assertEqual(repair(path).lost, 0)
        self.assertEqual(serve(path), all_of(kept))

    def test_tables_of_one_size_swapped(self) -> None:
        path = self.base / "twins"
        self.patch(Database, "WRITE_BUFFER", 64 * 1024)
        kept = Kept()
        keeper = Keeper(LevelStore(path))
        for _number in range(240):
            keeper.put(kept, b"q", 3000)
        keeper.close()
        infos = Manifest(self.manifest(path)).tables
        one, other = next(
            (one, other) for one in infos for other in infos if one != other and infos[one].size == infos[other].size
        )
        names = tables(path / "leveldb")
        names[one].rename(path / "between")
        names[other].rename(names[one])
        (path / "between").rename(names[other])
        self.assertIn("its first key is not the one in the manifest", self.refusal(path))
        repair(path)
        self.assertEqual(serve(path), all_of(kept))

    def test_log_lost(self) -> None:
        path, kept = self.store()
        log = max(logs(path / "leveldb").values())
        log.unlink()
        self.assertIn(f"{log.name}: it is missing", self.refusal(path))
        report = repair(path)
        self.assertTrue(all(queue.uncertain for queue in report.queues))
        self.assertIn("names of queues may be lost, and whole queues with them", report.notes)
        self.assertEqual(report.lost, 0)
        self.assertIn(f"total: {report.saved} items found, it is not known how many are lost", report.lines())
        some = evolve(report, queues=(evolve(report.queues[0], lost=3), *report.queues[1:]))
        self.assertIn(f"total: {report.saved} items found, at least 3 lost", some.lines())
        for queue, payloads in serve(path).items():
            self.places(kept, queue, payloads)

    def log_of_small_items(self) -> tuple[Path, Kept]:
        """@return: a store whose log has small items only, and what it holds."""
        path, kept = self.store()
        keeper = Keeper(LevelStore(path))
        for _ in range(30):
            keeper.put(kept, b"late", 3000)
        keeper.close()
        return path, kept

    def test_log_that_ends_in_zeros(self) -> None:
        """As the loss of power leaves it: it is cut, a copy is kept, and the start goes on."""
        path, kept = self.log_of_small_items()
        log = max(logs(path / "leveldb").values())
        data = log.read_bytes()
        zeros = 512 * 100
        log.write_bytes(data[:zeros] + bytes(len(data) - zeros + 5000))
        torn = log.read_bytes()
        self.assertTrue(check(path).sound)
        with capturedLogs() as events:
            found = serve(path)
        (said,) = [formatEvent(event) for event in events if event["log_level"].name == "warn"]
        self.assertRegex(said, rf"\A{log.name} ends in zeros from byte \d+ on, where the last write was cut short: ")
        (aside,) = path.glob("damaged-*")
        self.assertEqual((aside / log.name).read_bytes(), torn)
        for queue, payloads in found.items():
            self.places(kept, queue, payloads)
        self.assertNotEqual(found, all_of(kept))
        self.assertEqual(serve(path), found)

    def test_last_record_of_the_log_ends_in_zeros(self) -> None:
        """The file is as long as it was, and so is the record: only the checksum tells."""
        path, kept = self.log_of_small_items()
        log = max(logs(path / "leveldb").values())
        data = log.read_bytes()
        for zeros in 1, 3, 20:
            log.write_bytes(data[:-zeros] + bytes(zeros))
            self.assertTrue(check(path).sound)
        found = serve(path)
        (aside,) = path.glob("damaged-*")
        self.assertEqual((aside / log.name).read_bytes(), data[:-20] + bytes(20))
        for queue, payloads in found.items():
            self.places(kept, queue, payloads)
        self.assertNotEqual(found, all_of(kept))

    def test_flipped_bit_of_the_log(self) -> None:
        """A damaged record with good ones behind it is not taken for the end of the log."""
        path, _ = self.store()
        log = max(logs(path / "leveldb").values())
        data = bytearray(log.read_bytes())
        data[2000] ^= 1
        log.write_bytes(data)
        self.assertIn(f"{log.name}: the checksum of a record is wrong, at ", self.refusal(path))

    def assert_unreadable(self, path: Path, file: Path) -> None:
        """A file that is a directory cannot be read as a file."""
        file.unlink()
        file.mkdir()
        self.assertIn(f"{file.name}: ", self.refusal(path))
        report = repair(path)
        self.assertIn(file.name, [damage.file for damage in report.damages])
        serve(path)

    def test_log_cannot_be_read(self) -> None:
        path, _ = self.store()
        self.assert_unreadable(path, max(logs(path / "leveldb").values()))

    def test_table_cannot_be_read(self) -> None:
        path, _ = self.store()
        self.assert_unreadable(path, max(live_tables(path).values()))

    def test_zeros_at_the_end_of_the_manifest(self) -> None:
        """It is cut like a log, where LevelDB would not read it."""
        path, kept = self.store()
        manifest = self.manifest(path)
        with manifest.open("ab") as file:
            # The beginning of a record whose end was not written.
            file.write(b"\1\2\3\4\0\5\1abc" + bytes(3000))
        self.assertTrue(check(path).sound)
        self.assertEqual(serve(path), all_of(kept))
        (aside,) = path.glob("damaged-*")
        self.assertEqual([entry.name for entry in aside.iterdir()], [manifest.name])

    def test_records_missing_from_sound_files(self) -> None:
        """Somebody has deleted them by a tool, for example."""
        path, _ = self.store()
        with closing(plyvel.DB(str(path / "leveldb"))) as db:
            number = records.unpack_name(db.get(records.name_key(b"mails")))[0]
            runs = list(db.iterator(prefix=records.run_key(number, 0)[:10], include_value=False))
            db.delete(runs[len(runs) // 2])
            db.put(b"Z", b"")
        report = check(path)
        self.assertFalse(report.sound)
        self.assertEqual(
            report.notes,
            (
                "1 records cannot be read by this version",
                "records are missing, though no file is damaged",
            ),
        )
        self.assertGreater(repair(path).lost, 0)
        self.assertTrue(check(path).sound)

    def test_first_damage(self) -> None:
        """Where LevelDB says that something is damaged, and not what, it is looked for."""
        path, _ = self.store()
        self.assertEqual(first_damage(path), "")
        log = max(logs(path / "leveldb").values())
        data = bytearray(log.read_bytes())
        data[500] ^= 1
        log.write_bytes(data)
        self.assertTrue(first_damage(path).startswith(f"{log.name}: the checksum of a record is wrong, at "))
        (path / "leveldb" / "CURRENT").unlink()
        self.assertEqual(first_damage(path), "CURRENT: No such file or directory")

    def test_damage_where_the_start_reads(self) -> None:
        """LevelDB has changed its directory by then; that is undone."""
        path, _ = self.store()
        self.patch(Database, "WRITE_BUFFER", 64 * 1024)
        for table in live_tables(path).values():
            data = bytearray(table.read_bytes())
            blocks = slice(len(data) // 3, len(data) - 48, 3000)  # not in the footer
            data[blocks] = bytes(len(data[blocks]))
            table.write_bytes(data)
        (path / "reserve").unlink()
        self.assertRegex(
            self.refusal(path), r"is damaged: 0\d+\.ldb: the checksum of a block is wrong(, at \d+ of \d+)?: start "
        )
        self.assertEqual(sorted(entry.name for entry in path.iterdir()), ["darner", "leveldb", "segments"])

    def test_flipped_payload_is_not_handed_out(self) -> None:
        """Reading what is damaged is refused, with what to do; other queues go on."""
        path, kept = self.store()
        files = [*(path / "segments").iterdir()]
        id, wanted = next(
            (id, wanted)
            for id in kept.left[b"images"]
            for wanted in [kept.put[b"images"][id][:3000]]
            if any(wanted in file.read_bytes() for file in files)
        )
        for segment in files:
            data = bytearray(segment.read_bytes())
            if wanted in data:  # it may have been moved from one to another
                data[data.index(wanted) + 1500] ^= 1
                segment.write_bytes(data)
        store = LevelStore(path)
        self.addCleanup(store.close)
        keeper = Keeper(store)
        error = self.assertRaises(StoreError, keeper.everything, wait=False)
        self.assertRegex(
            str(error),
            r"\Acannot read: the store is damaged \(segments/\d+.seg: the checksum of a record is wrong, at \d+\): "
            r"stop the server and start it with --repair\Z",
        )
        keeper.take(kept, b"mails", 50)
        keeper.put(kept, b"mails", 30)
        keeper.close()
        report = repair(path)
        (lossy,) = [queue for queue in report.queues if queue.lost]
        self.assertEqual(lossy, QueueFinding(b"images", len(kept.left[b"images"]) - 1, 1))
        del kept.left[b"images"][kept.left[b"images"].index(id)]
        self.assertEqual(serve(path), all_of(kept))

    def test_as_good_as_new(self) -> None:
        """What was repaired is worked on like any other store."""
        path, _kept = self.store()
        table = max(live_tables(path).values(), key=lambda table: table.stat().st_size)
        data = bytearray(table.read_bytes())
        data[len(data) // 2] ^= 1
        table.write_bytes(data)
        repair(path)
        keeper = Keeper(LevelStore(path))
        found = keeper.everything()
        for queue in found:
            for number in range(20):
                keeper.put(Kept(), queue, 100 + number)
            for expected in found[queue]:
                item = keeper.queues.make(queue).take()
                assert item is not None
                self.assertEqual(item.payload or item.size, expected if item.payload else len(expected))
        keeper.put(Kept(), b"images", 100_000)
        keeper.rest()
        keeper.close()
        self.assertTrue(check(path).sound)


class AttemptsTests(SynchronousTestCase):
    """How often items were opened is saved as well."""

    def test_saved(self) -> None:
        path = Path(self.mktemp())
        with closing(LevelStore(path)) as store:
            writer = Writer(store)
            writer.put(b"one", b"two", b"three")
            writer.consume(0, 1, 3)
            batch = Batch()
            batch.attempts(writer.number, [(0, 1), (1, 2), (2, 3)])
            store.write(batch)
        (path / "leveldb" / "CURRENT").unlink()
        repair(path)
        with closing(LevelStore(path)) as store:
            (state,) = store.recover()
            self.assertEqual(state.attempts, {1: 2, 2: 3})
        self.assertTrue(check(path).sound)


class SeenTests(SynchronousTestCase):
    """Under which ids items were put is saved as well, where a queue asks for it."""

    IDS = [bytes([at]) * 16 for at in range(5)]

    def make(self, path: Path) -> None:
        with closing(LevelStore(path)) as store:
            writer = Writer(store)
            writer.put(b"one", b"two")
            deleted = Writer(store, b"deleted")
            one, two, gone, nobodys = (store.new_number() for _ in range(4))
            batch = Batch()
            batch.generations(writer.number, Generation(one, 100), Generation(two, 90))
            batch.generations(deleted.number, Generation(gone, 80), None)
            for at, id in enumerate(self.IDS):
                for number in (one, two, gone, nobodys):
                    batch.seen(number, id, number * 100 + at + 1)
            batch.remove(b"deleted", deleted.number)
            batch.discard(gone)
            store.write(batch)

    def test_sound(self) -> None:
        path = Path(self.mktemp())
        self.make(path)
        self.assertTrue(check(path).sound)

    def test_saved(self) -> None:
        path = Path(self.mktemp())
        self.make(path)
        (path / "leveldb" / "CURRENT").unlink()
        report = repair(path)
        self.assertEqual((report.saved, report.lost), (2, 0))
        self.assertEqual([queue.name for queue in report.queues], [b"q"])
        with closing(LevelStore(path)) as store:
            (state,) = store.recover()
            one, two = state.generations
            assert one is not None
            assert two is not None
            self.assertEqual((one.since, two.since), (100, 90))
            for number in (one.number, two.number):
                found = [store.seen(number, id) for id in self.IDS]
                self.assertEqual(found, [number * 100 + at + 1 for at in range(5)])
            self.assertEqual([store.seen(two.number + more, self.IDS[0]) for more in (1, 2)], [None, None])
            self.assertGreater(store.new_number(), two.number + 2)
        self.assertTrue(check(path).sound)


class SharedTests(SynchronousTestCase):
    """Streams that several items hold."""

    def test_still_shared(self) -> None:
        """The first that is consumed does not take it from the others."""
        path = Path(self.mktemp())
        with closing(LevelStore(path)) as store:
            writers = [Writer(store, name) for name in (b"one", b"other")]
            item = writers[0].put_large(CHUNK_BYTES + 1)
            batch = Batch()
            batch.put(writers[1].number, [large(0, item.stream, item.size)], item.size)
            for writer in writers:
                batch.share(item.stream, writer.number, 0)
            store.write(batch)
        (path / "leveldb" / "CURRENT").unlink()
        report = repair(path)
        self.assertEqual([(queue.name, queue.saved) for queue in report.queues], [(b"one", 1), (b"other", 1)])
        with closing(LevelStore(path)) as store:
            list(store.recover())
            numbers = [writer.number for writer in writers]
            steps = [store.reclaim(number, 0, 1, 0, 10) for number in numbers]
            self.assertEqual([step.streams for step in steps], [(), (item.stream,)])
            self.assertEqual(store.chunk(item.stream, 1), b"\1")


class CutShortTests(DamagedTestCase):
    """A repair, or a start, that ends anywhere leaves what the next one can go on with."""

    def damaged(self) -> tuple[Path, dict[bytes, list[bytes]]]:
        """@return: a damaged store, and what is there when it is repaired."""
        path, _ = self.store()
        table = max(live_tables(path).values(), key=lambda table: table.stat().st_size)
        data = bytearray(table.read_bytes())
        data[len(data) // 2] ^= 1
        table.write_bytes(data)
        (path / "darner").write_bytes(b"?")
        repaired = self.copy(path)
        repair(repaired)
        return path, serve(repaired)

    def test_anywhere(self) -> None:
        """Every change that it makes to the directory is in turn the last."""
        path, expected = self.damaged()
        step = 0
        while not self.cut_short(self.copy(path), step, expected):
            step += 1
        self.assertGreater(step, 10)

    def cut_short(self, path: Path, steps: int, expected: dict[bytes, list[bytes]]) -> bool:
        """@return: whether the repair ended by itself."""
        original, segments = contents(path / "leveldb"), contents(path / "segments")
        left = [steps]

        def counted(work: Any) -> Any:
            def step(*args: Any, **options: Any) -> Any:
                if not left[0]:
                    raise KeyboardInterrupt
                left[0] -= 1
                return work(*args, **options)

            return step

        with self.patched((Path, "rename"), (Path, "mkdir"), (Path, "write_text"), counted=counted):
            try:
                repair(path)
            except KeyboardInterrupt:
                ended = False
            else:
                ended = True
        if not ended:
            try:
                # Only where the last step was made, and it was not known yet that it was.
                self.assertEqual(serve(self.copy(path)), expected)
            except StoreError as error:
                self.assertIn("start", str(error))
                self.assertIn("--repair", str(error))
            repair(path)
        self.assertEqual(serve(path), expected)
        asides = [aside / "leveldb" for aside in path.glob("damaged-*") if (aside / "leveldb").exists()]
        self.assertIn(original, [contents(aside) for aside in asides])
        self.assertIn(segments, [contents(aside / "segments") for aside in path.glob("damaged-*")])
        self.assertFalse((path / SAVING).exists() or (path / SAVED).exists())
        return ended

    def patched(self, *places: tuple[Any, str], counted: Any) -> Any:
        stack = ExitStack()
        for owner, name in places:
            stack.enter_context(patch.object(owner, name, counted(getattr(owner, name))))
        for function in ("fill", "sync", "claim", "set_aside"):
            stack.enter_context(patch.object(repair_module, function, counted(getattr(repair_module, function))))
        return stack

    def test_no_room(self) -> None:
        """What was there is there as it was."""
        path, _expected = self.damaged()
        unchanged = contents(path)

        def full(*args: Any) -> None:
            fill(*args)
            raise StoreError("cannot write leveldb.saving: No space left on device")

        self.patch(repair_module, "fill", full)
        self.assertRaises(StoreError, repair, path)
        self.assertEqual(contents(path), unchanged)

    def test_fill_fails(self) -> None:
        (self.base / "file").touch()
        error = self.assertRaises(StoreError, fill, self.base / "file" / "db", [])
        self.assertTrue(str(error).startswith("cannot write db: "), error)

    def test_fill(self) -> None:
        """In batches, however much it is."""
        path = self.base / "db"
        entries = [(b"%04d" % id, bytes([id % 256]) * 10_000) for id in range(300)]
        fill(path, iter(entries))
        with closing(plyvel.DB(str(path))) as db:
            self.assertEqual(list(db), entries)

    def test_two_at_once(self) -> None:
        """Directories for what is set aside have names of their own."""
        made = [directory.set_aside(self.base) for _ in range(4)]
        self.assertEqual(len(set(made)), 4)

    def test_refused_without_links(self) -> None:
        """Nothing can be put back then; nothing is lost either."""
        path, _ = self.damaged()
        (path / "darner").write_bytes(directory.MARKER_TEXT)
        store = LevelStore(path)
        assert store._database.rollback is not None
        store._database.rollback.discard()
        store._database.rollback.restore()
        store._database.write([(records.name_key(b"q"), b"short")])
        store.close()
        again = LevelStore(path)
        self.patch(again._database, "rollback", None)
        self.assertRaises(StoreDamaged, list, again.recover())

    def test_check_cannot_read(self) -> None:
        path, _ = self.damaged()

        def broken(*paths: Path) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        self.patch(repair_module, "Salvage", broken)
        error = self.assertRaises(StoreUnusable, check, path)
        self.assertEqual(str(error), f"cannot check the store in {path}: Input/output error")

    def test_claim_fails(self) -> None:
        """No directory stays behind that would have the next start think that a database was lost."""
        path = self.base / "new"
        path.mkdir()
        (path / ".darner.new").mkdir()
        self.assertIn("cannot serve from the data directory", self.refusal(path))

    def test_directory_cannot_be_written(self) -> None:
        path, _ = self.damaged()

        def broken(path: Path) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        self.patch(repair_module, "set_aside", broken)
        error = self.assertRaises(StoreError, repair, path)
        self.assertEqual(str(error), f"cannot repair the store in {path}: Input/output error")

    def test_start_between_two_moves(self) -> None:
        """A start that was refused, and ended while it was putting everything back."""
        path, kept = self.store()
        (path / "leveldb").rename(path / BEFORE)
        (path / AFTER).mkdir()
        self.assertEqual(serve(path), all_of(kept))
        self.assertEqual(sorted(entry.name for entry in path.iterdir()), ["darner", "leveldb", "reserve", "segments"])

    def test_start_that_was_killed(self) -> None:
        path, kept = self.store()
        (path / BEFORE).mkdir()
        os.link(path / "leveldb" / "CURRENT", path / BEFORE / "CURRENT")
        self.assertEqual(serve(path), all_of(kept))
        self.assertFalse((path / BEFORE).exists())

    def test_no_links(self) -> None:
        """Where the file system knows none, a start is not held up by that."""
        path, kept = self.store()

        def refuse(*args: Any) -> None:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

        self.patch(rollback.os, "link", refuse)
        self.assertEqual(serve(path), all_of(kept))
        self.assertFalse((path / BEFORE).exists())
