"""
Tests of `darner.store.files.segment`.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from darner.store.files.damage import BadFile
from darner.store.files.segment import (
    MAGIC,
    SegmentFile,
    is_ours,
    is_unwritten,
    name_of,
    pack,
    read,
    segments,
    unpack,
)

KEY = b"Q key"
VALUE = bytes(range(256)) * 20


class RecordTests(SynchronousTestCase):
    """A record is read as it was written, or not at all."""

    def test_whole(self) -> None:
        for value in (b"", b"x", VALUE):
            self.assertEqual(unpack(pack(KEY, value), KEY), value)

    def test_cut_short(self) -> None:
        record = pack(KEY, b"value")
        for length in range(len(record)):
            self.assertRaises(BadFile, unpack, record[:length], KEY)
        self.assertRaises(BadFile, unpack, record + b"x", KEY)

    def test_flipped(self) -> None:
        record = pack(KEY, b"value")
        for at in range(len(record)):
            for bit in range(8):
                flipped = bytearray(record)
                flipped[at] ^= 1 << bit
                self.assertRaises(BadFile, unpack, bytes(flipped), KEY)

    def test_other_key(self) -> None:
        """What a reference leads to is what was asked for."""
        error = self.assertRaises(BadFile, unpack, pack(KEY, VALUE), b"Q yek")
        self.assertEqual(str(error), "a record has another key")


class FileTests(SynchronousTestCase):
    """A segment is read from the beginning to where it ends."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.records = [pack(b"key %d" % number, bytes([number]) * number * 700) for number in range(5)]
        self.whole = MAGIC + b"".join(self.records)

    def look(self, data: bytes) -> tuple[list[tuple[bytes, int, bytes]], int]:
        self.path.write_bytes(data)
        file = SegmentFile(self.path)
        return list(file.records()), file.end

    def test_records(self) -> None:
        found, end = self.look(self.whole)
        self.assertEqual([record for _, _, record in found], self.records)
        self.assertEqual([key for key, _, _ in found], [b"key %d" % number for number in range(5)])
        self.assertEqual([self.whole[at : at + len(record)] for _, at, record in found], self.records)
        self.assertEqual(end, len(self.whole))

    def test_cut_anywhere(self) -> None:
        for length in (0, 5, len(MAGIC) - 1):
            self.assertEqual(self.look(self.whole[:length]), ([], 0))
        for length in range(len(MAGIC), len(self.whole), 97):
            found, end = self.look(self.whole[:length])
            self.assertEqual(self.whole[:end], MAGIC + b"".join(record for _, _, record in found))
            self.assertLess(length - end, len(self.records[len(found)]))
            again, zeros_end = self.look(self.whole[:length] + bytes(3000))
            self.assertEqual((again, zeros_end), (found, end))

    def test_read(self) -> None:
        self.path.write_bytes(self.whole)
        file = os.open(self.path, os.O_RDONLY)
        self.addCleanup(os.close, file)
        at = len(MAGIC) + len(self.records[0])
        self.assertEqual(read(file, at, len(self.records[1]), b"key 1"), b"\1" * 700)
        error = self.assertRaises(BadFile, read, file, at + 1, len(self.records[1]), b"key 1")
        self.assertEqual(str(error), f"the checksum of a record is wrong, at {at + 1}")

    def test_unwritten(self) -> None:
        """What a loss of power leaves is told from what was damaged otherwise."""
        record = pack(KEY, VALUE)
        sector = 4 * 512
        cases = {
            "short": (record[:-1], True),
            "nothing": (b"", True),
            "zeros at the end": (record[:-3] + bytes(3), True),
            "zeros in the middle": (record[: sector - 10] + bytes(600) + record[sector + 590 :], True),
            "flipped": (record[:30] + b"?" + record[31:], False),
        }
        for name, (data, unwritten) in cases.items():
            self.path.write_bytes(data)
            file = os.open(self.path, os.O_RDONLY)
            self.assertEqual(is_unwritten(file, 0, len(record)), unwritten, name)
            os.close(file)


class NameTests(SynchronousTestCase):
    """Segments are known by their names."""

    def test_segments(self) -> None:
        directory = Path(self.mktemp())
        self.assertEqual(segments(directory), {})
        directory.mkdir()
        for number in (1_000_000, 7, 12):
            (directory / name_of(number)).touch()
        (directory / "letter.txt").touch()
        self.assertEqual([*segments(directory).items()], [(n, directory / name_of(n)) for n in (7, 12, 1_000_000)])
        self.assertTrue(is_ours("000007.seg"))
        self.assertFalse(is_ours("000007.seg.bak"))
