"""Tests of L{darner.store.backup.capture}."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Optional

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from darner.errors import StoreError
from darner.rescue.repair import check
from darner.store.backup import capture as capturing
from darner.store.backup.capture import Capture
from darner.store.backup.copying import go_on, link
from darner.store.backup.making import make_backup
from darner.store.backup.restoring import find_backup, restore
from darner.store.directory import BACKED_UP
from darner.store.interfaces import IBackedUp
from darner.store.leveldb import LevelStore
from test.servers import make_directory


class CaptureTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = make_directory(self)
        self.store = LevelStore(self.directory / "data")
        self.addCleanup(self.store.close)
        self.database = self.store._database
        self.restored = 0

    def write(self, start: int, stop: int, size: int = 100) -> None:
        for number in range(start, stop):
            self.database.write([(b"x%08d" % number, random.randbytes(size))])

    def write_tables(self) -> None:
        self.write(0, 120, 50_000)
        self.database.compact_range(b"", b"~")

    def capture(self, **more: object) -> Capture:
        capture = Capture(self.database, **more)  # type: ignore[arg-type]
        capture.take()
        self.addCleanup(capture.release)
        return capture

    def restore(self, capture: Capture) -> Path:
        """@return: a data directory that is made of a backup."""
        self.restored += 1
        backups, target = self.directory / "backups", self.directory / f"restored{self.restored}"
        make_backup(backups, capture, "1")
        capture.release()
        restore(find_backup(backups), target)
        return target

    def keys(self, path: Path) -> list[bytes]:
        store = LevelStore(path)
        try:
            return [key for key, _ in store._database.prefixed(b"x")]
        finally:
            store.close()


class CaptureTests(CaptureTestCase):
    def test_moment(self) -> None:
        """What is written afterwards is not in it, and what was before is."""
        self.write(0, 100)
        capture = self.capture()
        self.write(100, 200)
        self.assertEqual(self.keys(self.restore(capture)), [b"x%08d" % number for number in range(100)])

    def test_everything_is_rewritten_meanwhile(self) -> None:
        """LevelDB may delete each of the files: they are held."""
        self.write(0, 80, 50_000)
        capture = self.capture()
        before = set(os.listdir(self.database.directory.database))
        self.write(0, 80, 50_000)
        self.database.compact_range(b"", b"~")
        self.assertEqual({name for name in before if name.endswith(".ldb")} & self.tables(), set())
        self.assertEqual(len(self.keys(self.restore(capture))), 80)
        self.assertFalse((self.directory / "data" / BACKED_UP).exists())

    def tables(self) -> set[str]:
        return {name for name in os.listdir(self.database.directory.database) if name.endswith(".ldb")}

    def test_interface(self) -> None:
        """As the queues call it."""
        self.assertTrue(verifyObject(IBackedUp, self.store))
        self.write(0, 10)
        capture = self.store.capture(go_on, lambda: 5.0)
        self.assertEqual(capture.time, 5000)
        self.assertEqual(len(self.keys(self.restore(capture))), 10)

    def test_new_store(self) -> None:
        target = self.restore(self.capture())
        self.assertEqual(self.keys(target), [])

    def test_behind_a_compaction(self) -> None:
        """The log that the manifest names is empty then."""
        self.write(0, 10)
        self.database.compact_range(b"", b"~")
        self.assertEqual(len(self.keys(self.restore(self.capture()))), 10)

    def test_under_load(self) -> None:
        """Each of many captures is whole and of one moment: the keys up to some number, all of them."""
        stop = threading.Event()
        written = [0]

        def load() -> None:
            while not stop.is_set():
                self.write(written[0], written[0] + 1, 20_000)
                written[0] += 1

        def turnover() -> None:
            while not stop.is_set():
                self.database.in_thread(lambda: self.database.compact_range(b"", b"~"))

        threads = [threading.Thread(target=load), threading.Thread(target=turnover)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(3):
                before = written[0]
                capture = self.capture()
                after = written[0] + 1
                target = self.restore(capture)
                self.assertTrue(check(target).damages == ())
                keys = self.keys(target)
                self.assertEqual(keys, [b"x%08d" % number for number in range(len(keys))])
                self.assertTrue(before <= len(keys) <= after, (before, len(keys), after))
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def test_no_links(self) -> None:
        """The file system has none: everything is copied."""
        self.write(0, 80, 50_000)
        capture = self.capture(add=lambda *_: False)
        self.write(0, 80, 50_000)
        self.assertEqual(len(self.keys(self.restore(capture))), 80)

    def test_tables_vanish(self) -> None:
        """It begins anew, and in the end gives up."""
        self.write_tables()
        tries = []

        def links(times: int) -> Callable[[Path, Path], bool]:
            def add(source: Path, target: Path) -> bool:
                tries.append(source)
                if len(tries) <= times:
                    raise FileNotFoundError(source)
                return link(source, target)

            return add

        self.assertEqual(len(self.keys(self.restore(self.capture(add=links(3))))), 120)
        tries.clear()
        error = self.assertRaises(StoreError, self.capture, add=links(10**6))
        self.assertIn("the store changes too fast", str(error))
        self.assertEqual(len(tries), 20)
        self.assertFalse((self.directory / "data" / BACKED_UP).exists())

    def test_manifest_while_it_is_written(self) -> None:
        """The copy may end in a part of a record: it begins anew."""
        self.write(0, 10)
        answers = [False, True]
        self.patch(capturing, "ends_well", lambda _: answers.pop(0))
        self.assertEqual(len(self.keys(self.restore(self.capture()))), 10)
        self.assertEqual(answers, [])

    def test_log_begun_meanwhile(self) -> None:
        """The manifest names a log that was not there yet: nothing was written to it."""
        self.write(0, 10)
        leveldb = self.database.directory.database
        listed = os.listdir(leveldb)
        self.database.opened().compact_range(start=b"", stop=b"~")
        real = os.listdir
        self.patch(capturing.os, "listdir", lambda path: listed if path == leveldb else real(path))
        self.assertRaises(StoreError, self.capture)  # it cannot open the one that was there
        listed.clear()
        listed.append("CURRENT")
        self.assertEqual(len(self.keys(self.restore(self.capture()))), 10)

    def test_full_disk(self) -> None:
        def add(source: Path, target: Path) -> bool:
            raise OSError(28, "No space left on device", str(target))

        self.write_tables()
        error = self.assertRaises(StoreError, self.capture, add=add)
        self.assertIn("No space left on device", str(error))
        self.assertFalse((self.directory / "data" / BACKED_UP).exists())
        self.write(120, 121)

    def test_damaged(self) -> None:
        self.write_tables()
        table = self.database.directory.database / min(self.tables())
        os.truncate(table, 100)
        error = self.assertRaises(StoreError, self.capture)
        self.assertIn("the store is damaged", str(error))

    def test_torn(self) -> None:
        self.database.writer.torn = True
        self.assertIn("must be reopened", str(self.assertRaises(StoreError, self.capture)))
        self.database.writer.torn = False

    def test_torn_meanwhile(self) -> None:
        """It gives up, as clients wait until the store is reopened."""
        self.write_tables()

        def add(source: Path, target: Path) -> bool:
            self.database.writer.torn = True
            return link(source, target)

        self.assertIn("must be reopened", str(self.assertRaises(StoreError, self.capture, add=add)))
        self.database.writer.torn = False

    def test_what_a_killed_server_leaves(self) -> None:
        self.write(0, 10)
        self.capture()
        self.store.close()
        store = LevelStore(self.directory / "data")
        self.assertFalse((self.directory / "data" / BACKED_UP).exists())
        store.close()


class FolderTests(CaptureTestCase):
    """Folders beside LevelDB, whose files are appended to and sealed."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = self.directory / "data" / "segments"
        self.folder.mkdir()

    def take(self, add: Optional[Callable[[Path, Path], bool]] = None) -> Capture:
        return self.capture(folders={"segments": lambda name: name.endswith(".sealed")}, add=add or link)

    def test_growing(self) -> None:
        (self.folder / "1.sealed").write_bytes(b"one")
        growing = self.folder / "2"
        growing.write_bytes(b"two")
        capture = self.take()
        with growing.open("ab") as file:
            file.write(b" and more")
        (self.folder / "1.sealed").unlink()
        growing.rename(self.folder / "2.sealed")
        target = self.restore(capture)
        self.assertEqual((target / "segments" / "1.sealed").read_bytes(), b"one")
        self.assertEqual((target / "segments" / "2").read_bytes(), b"two")

    def test_sealed_meanwhile(self) -> None:
        """Between the first look and the moment a file comes that is sealed."""
        (self.folder / "1.sealed").write_bytes(b"one")

        def add(source: Path, target: Path) -> bool:
            (self.folder / "2.sealed").write_bytes(b"two")
            return link(source, target)

        target = self.restore(self.take(add))
        self.assertEqual((target / "segments" / "2.sealed").read_bytes(), b"two")

    def test_no_folder(self) -> None:
        self.folder.rmdir()
        self.assertEqual([captured.file.name for captured in self.take().files if "segments" in captured.file.name], [])
