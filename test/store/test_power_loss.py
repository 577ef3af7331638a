"""
Tests of `darner.store.power_loss`.  What it is for is tested in `test.system.test_powerloss`, with many states of a
disk.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from types import SimpleNamespace

import plyvel
from twisted.trial.unittest import SynchronousTestCase

from darner.errors import StoreError
from darner.store import compaction, opening
from darner.store.files.crc32c import crc32c, masked
from darner.store.files.manifest import Manifest
from darner.store.leveldb import LevelStore
from darner.store.power_loss import drop_unsafe_tail, unfinished_files
from test.harness import from_source


def framed(*entries: bytes) -> bytes:
    """@return: a log with these entries."""
    log = b""
    for entry in entries:
        first = True
        while True:
            room = 32768 - len(log) % 32768
            if room < 7:
                log += bytes(room)
                continue
            piece, entry = entry[: room - 7], entry[room - 7 :]
            kind = (1 if first else 4) if not entry else (2 if first else 3)
            log += struct.pack("<IHB", masked(crc32c(bytes([kind]) + piece)), len(piece), kind) + piece
            first = False
            if not entry:
                break
    return log


def batch(sequence: int, count: int = 1, size: int = 10) -> bytes:
    return struct.pack("<QI", sequence, count) + b"x" * size


def edit(log: int, last: int, new: int = 0, gone: int = 0) -> bytes:
    """@return: an entry of a manifest, numbers all small."""
    text = bytes([2, log, 9, 0, 3, 99, 4, last])
    if gone:
        text += bytes([5, 1, 1]) + b"k" + bytes([6, 0, gone])
    if new:
        text += bytes([7, 0, new, 100, 1]) + b"a" + bytes([1]) + b"z"
    return text


COMPARATOR = bytes([1, 26]) + b"leveldb.BytewiseComparator"


class UnfinishedFilesTests(SynchronousTestCase):
    """What LevelDB left of work that it could not finish."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.mkdir()
        (self.path / "CURRENT").write_bytes(b"MANIFEST-000002\n")
        self.manifest = self.path / "MANIFEST-000002"
        self.good = framed(COMPARATOR, edit(log=5, last=9, new=3), edit(log=5, last=9, new=4, gone=3))
        for name in ("000003.ldb", "000004.ldb", "000006.ldb", "000002.log", "000005.log", "000007.log", "LOG"):
            (self.path / name).write_bytes(b"x")
        (self.path / "000008.log").touch()

    def unfinished(self, manifest: bytes) -> list[str]:
        self.manifest.write_bytes(manifest)
        return [path.name for path in unfinished_files(self.path)]

    def test_unfinished_files(self) -> None:
        self.assertEqual(self.unfinished(self.good), ["000002.log", "000003.ldb", "000006.ldb", "000008.log"])

    def test_in_doubt_nothing(self) -> None:
        at = self.good.index(b"leveldb")
        for manifest in (
            b"", self.good[:-1], self.good + b"\1", self.good + bytes(9), framed(bytes([77])),
            self.good[:at] + b"L" + self.good[at + 1 :],
        ):  # fmt: skip
            self.assertEqual(self.unfinished(manifest), [])
        (self.path / "CURRENT").unlink()
        self.assertEqual(unfinished_files(self.path), [])

    def test_of_leveldb(self) -> None:
        """A database that was closed loses nothing."""
        path = Path(self.mktemp())
        options = {"create_if_missing": True, "write_buffer_size": 65536}
        with plyvel.DB(str(path), **options) as database:
            for number in range(100):
                database.put(b"%d" % number, os.urandom(20_000))
        for table in unfinished_files(path):
            table.unlink()
        with plyvel.DB(str(path), **options) as database:
            self.assertEqual(len(list(database)), 100)

    def test_mending_removes_it(self) -> None:
        """There may be no room to open the database otherwise."""
        store = LevelStore(Path(self.mktemp()))
        self.addCleanup(store.close)
        table = store._database.directory.database / "999999.ldb"
        table.touch()
        store._database.writer.torn = True
        opened: list[bool] = []
        open_database = store._database.open
        store._database.open = lambda: (opened.append(table.exists()), open_database())  # type: ignore[method-assign]
        store.mend()
        self.assertEqual(opened, [False])

    def test_that_cannot_be_removed(self) -> None:
        store = LevelStore(Path(self.mktemp()))
        self.addCleanup(store.close)
        (store._database.directory.database / "999999.ldb").mkdir()
        store._database.writer.torn = True
        self.assertIn("cannot write: ", str(self.assertRaises(StoreError, store.mend)))


class UnsafeTailTests(SynchronousTestCase):
    """What is given up, and what is not."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.mkdir()
        self.aside = Path(self.mktemp())
        (self.path / "CURRENT").write_bytes(b"MANIFEST-000002\n")
        self.manifest = self.path / "MANIFEST-000002"
        self.manifest.write_bytes(framed(COMPARATOR, edit(log=5, last=9)))

    def log(self, number: int, data: bytes) -> None:
        (self.path / f"{number:06}.log").write_bytes(data)

    def drop(self) -> tuple[list[str], list[str]]:
        """@return: the logs that are there after it, and those that are not."""
        done = drop_unsafe_tail(self.path, self.aside)
        gone = sorted(path.name for path in self.aside.iterdir()) if self.aside.exists() else []
        self.assertEqual(len(done), len(gone))
        return sorted(path.name for path in self.path.glob("*.log")), gone

    def test_no_gap(self) -> None:
        self.log(4, b"")  # it does not matter any more
        self.log(5, framed(batch(8, 2), batch(10, 5, 50_000)))
        self.log(7, framed(batch(15)))
        self.assertEqual(self.drop(), (["000004.log", "000005.log", "000007.log"], []))
        self.log(8, b"")
        self.assertEqual(self.drop(), (["000004.log", "000005.log", "000007.log", "000008.log"], []))

    def test_gap(self) -> None:
        whole = framed(batch(10, 2), batch(12, 5, 50_000))
        for data in (b"", framed(batch(10, 2)), whole[:-1], whole[:-9] + bytes(9), bytes(50)):
            self.log(5, data)
            self.log(7, framed(batch(17), batch(18)))
            self.log(8, framed(batch(19)))
            self.assertEqual(self.drop(), (["000005.log"], ["000007.log", "000008.log"]))

    def test_damage_is_no_gap(self) -> None:
        """A log that has lost something in its middle was not lost with the power: nothing behind it is given up."""
        whole = framed(batch(10, 2), batch(12, 5))
        self.log(5, whole[:9] + bytes([whole[9] ^ 1]) + whole[10:])
        self.log(7, framed(batch(17)))
        self.assertEqual(self.drop(), (["000005.log", "000007.log"], []))

    def test_a_log_of_something_else(self) -> None:
        self.log(5, framed(b"short"))
        self.log(7, framed(batch(17)))
        self.assertEqual(self.drop(), (["000005.log", "000007.log"], []))

    def test_log_that_is_not_there(self) -> None:
        self.log(7, framed(batch(17)))
        self.log(8, framed(batch(18)))
        self.assertEqual(self.drop(), ([], ["000007.log", "000008.log"]))

    def test_single_log(self) -> None:
        """LevelDB takes the good part of it by itself."""
        self.log(5, framed(batch(10)) + b"torn")
        self.log(6, b"")
        self.assertEqual(self.drop(), (["000005.log", "000006.log"], []))

    def test_an_entry_that_is_not_safe(self) -> None:
        """LevelDB would not open a manifest with zeros in its last entry: it is cut when the store is inspected."""
        before = framed(COMPARATOR, edit(log=5, last=9, new=3))
        torn = before + framed(edit(log=7, last=12, new=6))[:-5] + bytes(5)
        (self.path / "000003.ldb").touch()
        self.manifest.write_bytes(torn)
        self.log(5, framed(batch(10)))
        self.assertEqual(self.drop(), (["000005.log"], []))
        self.assertEqual(self.manifest.read_bytes(), torn)
        self.assertEqual(Manifest(self.manifest).cut, len(before))

    def test_a_table_that_is_not_safe(self) -> None:
        before = framed(COMPARATOR, edit(log=5, last=9, new=3), edit(log=5, last=9, new=4, gone=3))
        whole = before + framed(edit(log=7, last=12, new=6, gone=4))
        (self.path / "000004.sst").touch()
        self.manifest.write_bytes(whole)
        self.log(5, framed(batch(10)))
        done = drop_unsafe_tail(self.path, self.aside)
        self.assertEqual(len(done), 1)
        self.assertEqual(self.manifest.read_bytes(), before)
        # What else is missing, is another matter.
        (self.path / "000004.sst").unlink()
        self.manifest.write_bytes(whole)
        self.assertEqual(drop_unsafe_tail(self.path, self.aside), [])
        self.assertEqual(self.manifest.read_bytes(), whole)

    def test_a_table_of_the_only_entry(self) -> None:
        """Without that entry there would be no database."""
        whole = framed(COMPARATOR + edit(log=5, last=9, new=6))
        self.manifest.write_bytes(whole)
        self.log(5, framed(batch(10)))
        self.assertEqual(self.drop(), (["000005.log"], []))
        self.assertEqual(self.manifest.read_bytes(), whole)

    def test_what_cannot_be_read_is_left_to_leveldb(self) -> None:
        self.log(5, b"")
        self.log(7, framed(batch(17)))
        for data in (b"", framed(bytes([77])), framed(bytes([2]))):
            self.manifest.write_bytes(data)
            self.assertEqual(self.drop(), (["000005.log", "000007.log"], []))
        (self.path / "CURRENT").unlink()
        self.assertEqual(self.drop(), (["000005.log", "000007.log"], []))

    def test_store(self) -> None:
        """It is done at the start; what is given up is beside the database, and the log says so."""
        path = Path(self.mktemp())
        store = LevelStore(path)
        database = path / "leveldb"
        store.close()
        newest = max(int(log.stem) for log in database.glob("*.log"))
        (database / f"{newest + 50:06}.log").write_bytes(framed(batch(900)))
        (database / f"{newest + 51:06}.log").write_bytes(framed(batch(901)))
        messages: list[str] = []
        log = SimpleNamespace(warn=lambda text, done: messages.append(text.format(done=done)))
        self.patch(opening, "_log", log)
        LevelStore(path).close()
        self.assertEqual(len(messages), 2)
        self.assertIn("was moved to", messages[0])
        self.assertEqual(len(list((path / "lost").iterdir())), 2)

    @from_source
    def test_a_rotated_log_is_never_empty(self) -> None:
        """One that is empty is taken for one that was lost."""
        self.patch(compaction, "GAP", -1)
        store = LevelStore(Path(self.mktemp()))
        self.addCleanup(store.close)
        store._compaction.ranges = {b"a": (b"a", b"b"), b"c": (b"c", b"d")}
        sizes = []
        compact_range = store._database.writer.db.compact_range

        class Watched:
            def compact_range(self, **bounds: bytes) -> None:
                logs = sorted(store._database.directory.database.glob("*.log"))
                sizes.append(logs[-1].stat().st_size)
                compact_range(**bounds)

            def __getattr__(self, name: str) -> object:
                return getattr(database, name)

        database = store._database.writer.db
        store._database.writer.db = Watched()
        store.compact()
        store._database.writer.db = database
        self.assertEqual(len(sizes), 2)
        self.assertGreater(min(sizes), 0)
