"""
Tests of `darner.store.files.log`: the ends of logs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from random import Random
from struct import pack
from typing import Any

import plyvel
from twisted.trial.unittest import SynchronousTestCase

from darner.store.files.crc32c import crc32c, masked
from darner.store.files.log import LogFile, ends_well
from darner.store.files.manifest import Manifest, current

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
        self.assertRegex(lost[0], "a record extends beyond its block, at 107 of 321")
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
