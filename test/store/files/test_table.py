"""
Tests of `darner.store.files.table`, `manifest` and `log`: what they read is what LevelDB has written, and what is
damaged they say.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from random import Random
from struct import pack
from typing import Any

import plyvel
from twisted.trial.unittest import SynchronousTestCase

from darner.store.files.damage import BadFile
from darner.store.files.entry import Entry
from darner.store.files.log import LogFile, batch_entries, ends_well
from darner.store.files.manifest import Manifest, current
from darner.store.files.names import manifests, tables
from darner.store.files.snappy import uncompressed
from darner.store.files.table import Table, begins_with, footer
from test.store.files.test_log import database, physical


class WholeTests(SynchronousTestCase):
    """A database that LevelDB has made."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        random = Random(5)
        with database(self.path) as db:
            for number in range(900):
                db.put(b"key %05d" % (number * 7 % 600), random.randbytes(random.choice([0, 30, 500, 5000])))
                if number % 9 == 0:
                    db.delete(b"key %05d" % (number // 3))
            self.large = random.randbytes(200_000)
            db.put(b"large", self.large)
        with database(self.path) as db:
            db.put(b"last", b"1")
            db.put(b"larger", self.large)
            with db.write_batch() as batch:
                batch.put(b"last", b"2")
                batch.delete(b"key 00005")
            self.expected = dict(db)

    def newest(self, entries: list[Entry]) -> dict[bytes, bytes]:
        found: dict[bytes, Entry] = {}
        for entry in entries:
            if entry.key not in found or found[entry.key].sequence < entry.sequence:
                found[entry.key] = entry
        return {entry.key: entry.value for entry in found.values() if entry.value is not None}

    def test_all_of_it(self) -> None:
        manifest = Manifest(current(self.path))
        there = tables(self.path)
        self.assertLessEqual(set(manifest.tables), set(there))
        self.assertGreater(len(manifest.tables), 1)
        entries: list[Entry] = []
        for number, info in manifest.tables.items():
            self.assertEqual(there[number].stat().st_size, info.size)
            table = Table(there[number], info)
            found = list(table.entries())
            self.assertEqual(table.lost, [])
            self.assertEqual((found[0].key, found[-1].key), (info.smallest, info.largest))
            self.assertEqual(Table(there[number]).first_key(), info.smallest)
            self.assertTrue(begins_with(there[number], info.smallest))
            self.assertFalse(begins_with(there[number], info.smallest[:-1]))
            self.assertFalse(begins_with(there[number], info.largest))
            entries += found
        self.assertIn(manifest.log, manifest.logs(self.path))
        for path in manifest.logs(self.path).values():
            log = LogFile(path)
            for record in log.records():
                entries += batch_entries(record)
            self.assertEqual((log.lost, log.cut), ([], None))
            self.assertTrue(ends_well(path))
        self.assertEqual(self.newest(entries), self.expected)
        self.assertEqual(manifest.cut, None)
        self.assertEqual(manifests(self.path), [manifest.path])

    def a_table(self) -> tuple[Path, list[Entry]]:
        there = tables(self.path)
        live = [there[number] for number in Manifest(current(self.path)).tables]
        path = max(live, key=lambda path: path.stat().st_size)
        return path, list(Table(path).entries())

    def test_a_damaged_block_costs_only_itself(self) -> None:
        path, whole = self.a_table()
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        path.write_bytes(data)
        table = Table(path)
        found = list(table.entries())
        self.assertLess(len(found), len(whole))
        (lost,) = table.lost
        self.assertRegex(lost.reason, r"\Athe checksum of a block is wrong, at \d+ of \d+\Z")
        missing = [entry.key for entry in whole if entry not in found]
        assert lost.stop is not None
        self.assertTrue(all(lost.start <= key <= lost.stop for key in missing))
        self.assertEqual([entry for entry in whole if entry in found], found)

    def test_from_a_key_on(self) -> None:
        """Blocks before it are not read, and so their damage does no harm."""
        path, whole = self.a_table()
        start = whole[len(whole) // 2].key
        data = bytearray(path.read_bytes())
        data[9] ^= 1
        path.write_bytes(data)
        table = Table(path)
        found = list(table.entries(lambda last: last < start))
        self.assertEqual(table.lost, [])
        self.assertEqual(found, whole[-len(found) :])
        self.assertLess(len(found), len(whole))
        self.assertLessEqual({entry.key for entry in whole if entry.key >= start}, {entry.key for entry in found})

    def test_first_damage(self) -> None:
        path, _ = self.a_table()
        self.assertEqual(Table(path).first_damage(), "")
        data = bytearray(path.read_bytes())
        data[-60] ^= 1
        path.write_bytes(data)
        self.assertEqual(Table(path).first_damage(), "the checksum of a block is wrong")
        data[9] ^= 1
        data[-60] ^= 1
        path.write_bytes(data)
        self.assertEqual(Table(path).first_damage(), f"the checksum of a block is wrong, at 0 of {len(data)}")

    def test_without_its_index(self) -> None:
        """Where the end of a table is gone, its blocks are read up to where it ends."""
        path, whole = self.a_table()
        data = path.read_bytes()
        for size in (len(data) - 1, len(data) - 48, len(data) - 100, len(data) // 2, 1000, 0):
            os.truncate(path, len(data))
            path.write_bytes(data[:size])
            table = Table(path)
            found = list(table.entries())
            self.assertEqual(found, whole[: len(found)])
            (lost,) = table.lost
            if size >= len(data) - 100:
                self.assertEqual(len(found), len(whole))
                self.assertTrue(lost.reason.endswith("; its contents are complete"), lost.reason)
                self.assertEqual(lost.stop, b"")
            else:
                self.assertIsNone(lost.stop)
                self.assertEqual(lost.start, found[-1].key if found else b"")

    def test_footers(self) -> None:
        path, _ = self.a_table()
        data = path.read_bytes()
        for damaged, reason in (
            (data[:40], "it is cut short, to 40 bytes"),
            (data[:-1] + b"x", "its footer is not that of a table"),
            (data[:-48] + b"\xff" * 40 + data[-8:], "its footer is damaged"),
            (data[:-48] + b"\x00\x00\xff\xff\xff\x7f\x01" + data[-41:], "its footer points outside the file"),
        ):
            path.write_bytes(damaged)
            error = self.assertRaises(BadFile, footer, path, len(damaged))
            self.assertEqual(str(error), reason)

    def test_a_table_that_is_gone(self) -> None:
        table = Table(self.path / "000000.ldb")
        self.assertEqual(list(table.entries()), [])
        self.assertEqual([lost.reason for lost in table.lost], ["No such file or directory"])
        self.assertEqual(Table(self.path / "000000.ldb").first_key(), b"")

    def test_compressed_by_a_tool(self) -> None:
        """A tool that has had the database open may have compressed it."""
        path = Path(self.mktemp())
        random = Random(4)
        words = [random.randbytes(size) for size in (3, 5, 90, 400, 3000)]
        values = {
            b"%04d" % id: b"".join(random.choice(words) * random.choice([1, 1, 9]) for _ in range(20))
            for id in range(200)
        }  # fmt: skip
        with contextlib.closing(plyvel.DB(str(path), create_if_missing=True, compression="snappy")) as db:
            for key, value in values.items():
                db.put(key, value)
            db.compact_range()
        found: dict[bytes, Any] = {}
        for file in tables(path).values():
            table = Table(file)
            found.update((entry.key, entry.value) for entry in table.entries())
            self.assertEqual(table.lost, [])
        self.assertEqual(found, values)
        self.assertLess(sum(file.stat().st_size for file in tables(path).values()), sum(map(len, values.values())))

    def test_not_compressed_as_it_should_be(self) -> None:
        for data in (b"", b"\x05\x00a", b"\x05\x01\x00", b"\x05\x00a\x01\x05", b"\x05\x00a\x01"):
            self.assertRaises(BadFile, uncompressed, data)

    def test_manifests_that_are_none(self) -> None:
        manifest = current(self.path)
        data = manifest.read_bytes()
        damaged = bytearray(data)
        damaged[20] ^= 1
        for contents, reason in (
            (bytes(damaged), "the checksum of a record is wrong"),
            (b"", "it holds no state of the database"),
            (physical(1, b"\x63\x01"), "it holds a record of kind 99, which is unknown"),
            (physical(1, b"\x02"), "a record is cut short"),
        ):
            manifest.write_bytes(contents)
            error = self.assertRaises(BadFile, Manifest, manifest)
            self.assertIn(f"{manifest.name}: {reason}", str(error))
        manifest.unlink()
        self.assertEqual(
            str(self.assertRaises(BadFile, Manifest, manifest)), f"{manifest.name}: No such file or directory"
        )

    def test_current(self) -> None:
        for contents in b"", b"MANIFEST-1", b"MANIFEST-x\n", b"../MANIFEST-1\n":
            (self.path / "CURRENT").write_bytes(contents)
            self.assertEqual(str(self.assertRaises(BadFile, current, self.path)), "CURRENT: it names no manifest")
        (self.path / "CURRENT").unlink()
        self.assertEqual(str(self.assertRaises(BadFile, current, self.path)), "CURRENT: No such file or directory")

    def test_batches_that_are_none(self) -> None:
        head = pack("<QI", 7, 1)
        for record in (b"", head, head + b"\x01\x03abc", head + b"\x01\x03ab", head + b"\x02", head + b"\x00\x01ab"):
            self.assertRaises(BadFile, batch_entries, record)
        self.assertEqual(batch_entries(head + b"\x00\x01a"), [Entry(b"a", 7, None)])
