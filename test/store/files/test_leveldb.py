"""
Tests of `darner.store.files.leveldb`: what it reads is what LevelDB has written, and what is damaged it says.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random
from struct import pack
from typing import Any

import plyvel
from twisted.trial.unittest import SynchronousTestCase

from darner.store.files import leveldb
from darner.store.files.crc32c import crc32c, masked
from darner.store.files.leveldb import (
    BadFile,
    Entry,
    LogFile,
    Manifest,
    Table,
    batch_entries,
    begins_with,
    current,
    ends_well,
    file_number,
    footer,
    is_ours,
    manifests,
    tables,
)

BLOCK = 32768


@contextlib.contextmanager
def database(path: Path, **options: Any) -> Iterator[Any]:
    with contextlib.closing(
        plyvel.DB(str(path), create_if_missing=True, compression=None, write_buffer_size=64 * 1024, **options)
    ) as db:
        yield db


def physical(kind: int, data: bytes) -> bytes:
    """@return: a record as it stands in a log."""
    return pack("<IHB", masked(crc32c(bytes([kind]) + data)), len(data), kind) + data


class NameTests(SynchronousTestCase):
    def test_names(self) -> None:
        for name, number in (
            ("000012.ldb", 12), ("12.sst", 12), ("000003.log", 3), ("MANIFEST-000007", 7), ("CURRENT", -1),
            ("LOG.old", -1), ("LOCK", -1),
        ):  # fmt: skip
            self.assertTrue(is_ours(name), name)
            self.assertEqual(file_number(name), number)
        for name in ("letter.txt", "000012.ldb.bak", "x.log", ".ldb", "MANIFEST-", "CURRENT~", "12"):
            self.assertFalse(is_ours(name), name)
            self.assertEqual(file_number(name), -1)


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
                self.assertTrue(lost.reason.endswith("; its contents are whole"), lost.reason)
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
            self.assertRaises(BadFile, leveldb._uncompressed, data)

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


class LogTests(SynchronousTestCase):
    """What is at the end of a log may be left of a write that was cut short; anything else is damage."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        random = Random(3)
        self.records = [random.randbytes(size) for size in (100, 1, 0, 5000, 30_000, 300, 70_000, 40)]
        self.data = self.log(self.records)
        self.assertEqual(self.read(self.data), (self.records, [], None))

    def log(self, records: list[bytes]) -> bytes:
        """@return: a log as LevelDB writes it."""
        log = b""
        for record in records:
            first = True
            while True:
                room = BLOCK - len(log) % BLOCK
                if room < 7:
                    log += bytes(room)
                    continue
                piece, record = record[: room - 7], record[room - 7 :]
                log += physical((1 if first else 4) if not record else (2 if first else 3), piece)
                first = False
                if not record:
                    break
        return log

    def read(self, data: bytes) -> tuple[list[bytes], list[str], Any]:
        self.path.write_bytes(data)
        log = LogFile(self.path)
        found = list(log.records())
        return found, [lost.reason for lost in log.lost], log.cut

    def assert_leveldb_takes(self, data: bytes, whole: bool) -> None:
        """LevelDB opens a database with such a log, or not."""
        path = Path(self.mktemp())
        database(path).__enter__().close()
        (log,) = Manifest(current(path)).logs(path).values()
        log.write_bytes(data)
        try:
            with database(path, paranoid_checks=True):
                taken = True
        except plyvel.CorruptionError:
            taken = False
        self.assertEqual(taken, whole)

    def test_cut_anywhere(self) -> None:
        """A log that was cut is a log that was not written to its end, and nothing is to be done."""
        random = Random(1)
        for size in [random.randrange(len(self.data)) for _ in range(80)]:
            if size % BLOCK:
                found, lost, cut = self.read(self.data[:size])
                self.assertEqual((found, lost, cut), (self.records[: len(found)], [], None), size)

    def test_zeros_behind_it(self) -> None:
        for zeros in (1, 6, 7, 511, 4096, 100_000):
            self.assertEqual(self.read(self.data + bytes(zeros)), (self.records, [], None))

    def test_zeros_in_place_of_its_end(self) -> None:
        """As the loss of power leaves them.  LevelDB would not open it, and so it is to be cut."""
        for start in (512 * 75, 512 * 150):
            data = self.data[:start] + bytes(len(self.data) - start)
            found, lost, cut = self.read(data)
            self.assertEqual((found, lost), (self.records[: len(found)], []))
            assert cut is not None
            self.assertLessEqual(cut, start)
            self.assertFalse(ends_well(self.path))
            self.assertEqual(self.read(data[:cut]), (found, [], None))

    def test_zeros_from_any_byte_on(self) -> None:
        """A page that was kept as it was when less of it was written."""
        for missing in (1, 2, 30, 200):
            data = self.data[:-missing].rstrip(b"\0")
            data += bytes(len(self.data) - len(data))
            found, lost, cut = self.read(data)
            self.assertEqual((found, lost), (self.records[: len(found)], []))
            self.assertLess(len(found), len(self.records))
            self.assertFalse(ends_well(self.path))
            self.assertEqual(self.read(data[:cut]), (found, [], None))

    def test_what_leveldb_says(self) -> None:
        """It refuses what is to be cut, and takes it when it is."""
        batch = pack("<QI", 1, 1) + b"\x01\x01k" + b"\xd0\x0f" + b"v" * 2000
        later = pack("<QI", 2, 1) + b"\x01\x01k" + b"\xd0\x0f" + b"w" * 2000
        whole = self.log([batch, later])
        torn = whole[:3072] + bytes(4096)
        found, lost, cut = self.read(torn)
        self.assertEqual((found, lost), ([batch], []))
        self.assert_leveldb_takes(whole, True)
        self.assert_leveldb_takes(whole + bytes(9000), True)
        self.assert_leveldb_takes(whole[:-5], True)
        self.assert_leveldb_takes(torn, False)
        self.assert_leveldb_takes(torn[:cut], True)

    def test_flipped_anywhere(self) -> None:
        """Whatever bit it is, either that is said, or it was in what nobody reads."""
        random = Random(2)
        for at in [random.randrange(len(self.data)) for _ in range(60)]:
            data = bytearray(self.data)
            data[at] ^= 1 << random.randrange(8)
            found, lost, cut = self.read(bytes(data))
            self.assertTrue(lost, at)
            self.assertIsNone(cut)
            self.assertTrue(all(record in self.records for record in found))

    def test_a_length_that_hides_good_records(self) -> None:
        """LevelDB would take that for the end of the log."""
        data = bytearray(self.log([b"a" * 100, b"b" * 100, b"c" * 100]))
        data[107 + 5] = 0x40
        found, lost, cut = self.read(bytes(data))
        self.assertEqual((found, cut), ([b"a" * 100], None))
        self.assertRegex(lost[0], "a record is longer than there is room for it, at 107 of 321")
        self.assertFalse(ends_well(self.path))

    def test_a_wrong_length_at_the_end(self) -> None:
        data = bytearray(self.log([b"a" * 100, b"b" * 100]))
        data[107 + 5] = 0x40
        self.assertEqual(len(self.read(bytes(data))[1]), 1)

    def test_zeroed_header(self) -> None:
        """LevelDB would pass over the rest of the block without a word."""
        data = self.log([b"a" * 100, b"b" * 100, b"c" * 100])
        found, lost, _ = self.read(data[:107] + bytes(7) + data[114:])
        self.assertEqual((found, len(lost)), ([b"a" * 100], 1))
        self.assertFalse(ends_well(self.path))

    def test_cut_at_the_end_of_a_block(self) -> None:
        """Where the file ends with a block, LevelDB takes half a record for damage; so it is cut."""
        data = bytearray(self.log([b"a" * 100, b"b" * 32_000]))
        data += self.log([b"c" * 3000])[: BLOCK - len(data)]
        data = data[:BLOCK]
        # Half a record whose length says that it goes on beyond the block.
        found, lost, cut = self.read(bytes(data))
        self.assertEqual((found, lost, cut), ([b"a" * 100, b"b" * 32_000], [], 32_114))
