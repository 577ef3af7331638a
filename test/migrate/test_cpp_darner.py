"""
Tests of `darner.migrate.cpp_darner`, over directories that the C++ Darner wrote (`test/data/README.rst`).
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path
from struct import pack

from twisted.trial.unittest import SynchronousTestCase

from darner.migrate.cpp_darner import CppDarner
from darner.migrate.sources import SourceError
from test.migrate.reading import flip, read_place, snapshot, unpacked, write_queue

ESCAPES = [
    b"", b"\0", b"\0\0", b"a\0", b"ab\0", b"\1\0", b"a\1\0", b"\1\0\0", b"x" * 24 + b"\1\0", b"x" * 24 + b"\0\0",
    b"plain", b"line\r\nline", bytes(range(256)), b"end\1",
]  # fmt: skip


def large(size: int) -> bytes:
    """@return: the payload of that size in the data."""
    if size % 2:
        return bytes((i * 7 + size) % 251 for i in range(size - 1)) + b"\0"
    return (b"L%d:" % size).ljust(size, b"y")


def of_run(run: int) -> list[bytes]:
    """@return: what one run put on the queue whose records are in tables."""
    return [*(b"run %d item %d " % (run, i) + b"compressible " * 60 for i in range(40)), large(3000 + run)]


def header(first: int, end: int, size: int) -> bytes:
    return pack("<QQQ", first, end, size) + b"\1\0"


class CppDarnerTests(SynchronousTestCase):
    def unpacked(self, name: str) -> Path:
        directory = Path(self.mktemp())
        directory.mkdir()
        return unpacked(f"cpp-darner-{name}", directory)

    def test_clean(self) -> None:
        found, lost, _ = read_place(self.unpacked("clean"))
        self.assertEqual(found, {
            b"empty": [], b"escapes": ESCAPES, b"jobs": [b"job %d" % i for i in range(5, 20)],
            b"large": [large(size) for size in (1023, 1024, 1025, 2048, 2049, 5000, 70000)], b"we.ird+na%me": [b"odd"],
        })  # fmt: skip
        self.assertEqual(lost, [])

    def test_tables(self) -> None:
        """Several compressed tables, whose keys are sorted as numbers."""
        found, lost, _ = read_place(self.unpacked("tables"))
        self.assertEqual(found, {b"jobs": [*of_run(0), *of_run(1), *of_run(2)][30:]})
        self.assertEqual(lost, [])

    def test_killed(self) -> None:
        """
        Holes are holes, items that were open or given back are there, half an item is not, and what is left of a
        deleted queue is told apart.
        """
        expected = {
            b"gone.0": [b"a", b"b"], b"jobs": [b"job %d" % i for i in (0, 2, 12, *range(14, 30))],
            b"large": [large(5001), large(4000), b"after"],
        }  # fmt: skip
        found, lost, notes = read_place(self.unpacked("killed"))
        self.assertEqual((found, lost), (expected, []))
        self.assertIn("queue gone.0 may be what is left of a deleted or flushed queue", notes)
        expected[b"jobs"].append(b"second run")
        found, lost, _ = read_place(self.unpacked("killed-twice"))
        self.assertEqual((found, lost), (expected, []))

    def test_nothing_is_changed(self) -> None:
        for name in ("clean", "tables", "killed", "killed-twice"):
            directory = self.unpacked(name)
            before = snapshot(directory)
            read_place(directory)
            self.assertEqual(snapshot(directory), before, name)

    def test_in_use(self) -> None:
        """LevelDB's lock is one of the process."""
        directory = self.unpacked("clean")
        program = "import fcntl, sys; f = open(sys.argv[1], 'r+b'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True)"
        command = [sys.executable, "-c", f"{program}; input()", directory / "jobs" / "LOCK"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            holder.stdout.readline()
            error = self.assertRaises(SourceError, CppDarner, directory)
            holder.communicate(b"\n")
        self.assertIn("is in use: stop the server first", str(error))
        CppDarner(directory)

    def test_lock_that_cannot_be_asked_for(self) -> None:
        directory = self.unpacked("clean")

        def fail(*_: object) -> None:
            raise OSError(5, "Input/output error")

        self.patch(fcntl, "lockf", fail)
        error = self.assertRaises(SourceError, CppDarner, directory)
        self.assertIn("LOCK: Input/output error", str(error))

    def test_damaged_table(self) -> None:
        """What is in the other blocks and tables is read, and the place of the damage is told."""
        directory = self.unpacked("tables")
        flip(directory / "jobs" / "000005.ldb", 100)
        found, lost, _ = read_place(directory)
        self.assertEqual(found[b"jobs"][-82:], [*of_run(1), *of_run(2)])
        self.assertIn("jobs/000005.ldb: the checksum of a block is wrong, at 0 of 3011", lost)

    def test_without_a_manifest(self) -> None:
        """The sequence numbers tell which record counts: what was consumed does not come back."""
        directory = self.unpacked("tables")
        expected = read_place(directory)[0]
        (directory / "jobs" / "CURRENT").unlink()
        found, lost, _ = read_place(directory)
        self.assertEqual(found, expected)
        self.assertTrue(lost[0].startswith("jobs/CURRENT: No such file"), lost)

    def test_missing_table(self) -> None:
        directory = self.unpacked("tables")
        (directory / "jobs" / "000008.ldb").unlink()
        found, lost, _ = read_place(directory)
        self.assertLess(len(found[b"jobs"]), 93)
        self.assertIn("jobs/000008.ldb: it is missing", lost)

    def test_changes(self) -> None:
        """The fingerprint is that of the contents, wherever they are."""
        one, other = CppDarner(self.unpacked("killed")), CppDarner(self.unpacked("killed"))
        self.assertEqual(one.fingerprint(), other.fingerprint())
        self.assertNotEqual(one.identity(), other.identity())
        self.assertNotEqual(one.fingerprint(), CppDarner(self.unpacked("killed-twice")).fingerprint())


class RecordsTests(SynchronousTestCase):
    """Records that the C++ Darner would not write, or not in this order."""

    def read(self, *records: tuple[int, int, bytes]) -> tuple[list[bytes], list[str]]:
        """
        @param records: kinds, numbers and values.
        @return: the payloads, and what cannot be read.
        """
        directory = Path(self.mktemp())
        write_queue(directory / "q", [(pack("<QB", number, kind), value) for kind, number, value in records])
        found, lost, _ = read_place(directory)
        return found[b"q"], lost

    def test_chunks_in_any_order(self) -> None:
        """Two large items that were put at the same time end in the other order than they began."""
        chunks = {number: b"%04d" % number * 256 for number in range(700)}
        chunks[699] = b"end"
        found, lost = self.read(
            (1, 1, header(698, 700, 1027)), (1, 2, header(2, 4, 2048)), (1, 3, header(4, 600, 596 * 1024)),
            (1, 4, header(0, 2, 2048)), *((2, number, chunk) for number, chunk in chunks.items()),
        )  # fmt: skip
        self.assertEqual(lost, [])
        self.assertEqual(found, [
            b"".join(chunks[number] for number in range(*ends)) for ends in ((698, 700), (2, 4), (4, 600), (0, 2))
        ])  # fmt: skip

    def test_missing_chunk(self) -> None:
        found, lost = self.read((1, 1, header(0, 3, 3000)), (1, 2, b"next"), (2, 0, b"x" * 1024), (2, 2, b"x" * 952))
        self.assertEqual((found, lost), ([b"next"], ["q, item 1: chunk 1 is missing"]))

    def test_short_chunk(self) -> None:
        found, lost = self.read((1, 1, header(0, 2, 1500)), (2, 0, b"x" * 1024), (2, 1, b"x" * 475))
        self.assertEqual((found, lost), ([], ["q, item 1: chunk 1 has 475 bytes"]))

    def test_bad_values(self) -> None:
        found, lost = self.read(
            (1, 1, b"x\0"), (1, 2, b"short\1\0"), (1, 3, header(5, 2, 10)), (1, 4, header(0, 1, 10)), (1, 5, b"good"),
            (0, 6, b"what"), (1, 7, header(0, 2**63, 5)),
        )  # fmt: skip
        self.assertEqual(found, [b"good"])
        self.assertEqual(lost, [
            "q, key 060000000000000000: it is neither that of an item nor of a chunk",
            "q, item 1: it ends as neither a payload nor a header does",
            "q, item 2: it ends as neither a payload nor a header does",
            "q, item 3: its header names 0 chunks for 10 bytes", "q, item 4: its header names 1 chunks for 10 bytes",
            f"q, item 7: its header names {2**63} chunks for 5 bytes",
        ])  # fmt: skip
