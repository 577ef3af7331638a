"""
Tests of `darner.store.renewal`.
"""

from __future__ import annotations

import plyvel

from darner.errors import StoreError
from darner.store.renewal import Renewal
from test.store.test_leveldb import Disk, LevelTestCase
from test.store_contract import Writer


class RenewalTests(LevelTestCase):
    """LevelDB's C{LOG} and C{MANIFEST} stay short."""

    def setUp(self) -> None:
        self.disk = Disk()
        self.store = self.open(open_database=self.disk.open)
        self.writer = Writer(self.store)
        self.writer.put(b"before")
        self.opened = self.disk.opened

    def wear(self) -> None:
        """Have both grow."""
        self.patch(Renewal, "MANIFEST", 2000)
        while not self.store.worn():
            self.writer.put(b"more")
            self.store.settle()

    def sizes(self) -> tuple[int, int]:
        """@return: the bytes of C{LOG} and C{MANIFEST}."""
        directory = self.store.path / "leveldb"
        manifest = directory / (directory / "CURRENT").read_text().strip()
        return (directory / "LOG").stat().st_size, manifest.stat().st_size

    def test_not_due(self) -> None:
        self.assertFalse(self.store.worn())
        self.store.renew()
        self.assertEqual(self.disk.opened, self.opened)

    def test_manifest(self) -> None:
        self.wear()
        before = self.sizes()
        self.store.renew()
        after = self.sizes()
        self.assertLess(after[0], before[0])
        self.assertLess(after[1], before[1] / 2)
        self.assertFalse(self.store.worn())
        self.assertEqual(len(list((self.store.path / "leveldb").glob("MANIFEST-*"))), 1)

    def test_log(self) -> None:
        self.patch(Renewal, "LOG", 1000)
        while not self.store.worn():
            self.store.settle()
        self.store.renew()
        self.assertFalse(self.store.worn())

    def test_service_goes_on(self) -> None:
        self.wear()
        self.store.renew()
        self.writer.put(b"after")
        found = [item.payload for item in self.writer.items()]
        self.assertEqual((found[0], found[-1]), (b"before", b"after"))
        self.store.close()
        self.writer.store = self.store = self.open(self.store.path)
        self.assertEqual([item.payload for item in self.writer.items()], found)

    def test_while_a_thread_uses_it(self) -> None:
        """It is for the thread to end first."""
        self.wear()
        self.store._database.in_thread(self.store.renew)
        self.assertEqual(self.disk.opened, self.opened)
        self.assertTrue(self.store.worn())
        self.writer.put(b"after")

    def test_cannot_be_opened(self) -> None:
        """It is mended like one that has failed."""
        self.wear()
        self.disk.gone = True
        self.assertRaises(StoreError, self.store.renew)
        self.assertRaises(StoreError, self.writer.put, b"refused")
        self.disk.gone = False
        self.store.mend()
        self.writer.put(b"after")
        self.assertEqual(self.writer.items()[-1].payload, b"after")

    def test_after_a_failed_write(self) -> None:
        """To mend it is for the next write."""
        self.wear()
        self.disk.full = True
        self.assertRaises(StoreError, self.writer.put, b"refused")
        self.disk.full = False
        self.store.renew()
        self.assertEqual(self.disk.opened, self.opened)

    def test_files_out_of_sight(self) -> None:
        self.patch(Renewal, "LOG", 0)
        self.assertTrue(self.store.worn())
        (self.store.path / "leveldb" / "CURRENT").rename(self.store.path / "leveldb" / "CURRENT.away")
        self.assertFalse(self.store.worn())

    def test_closed(self) -> None:
        self.wear()
        self.store.close()
        self.assertRaises(StoreError, self.store.settle)

    def test_what_leveldb_needs(self) -> None:
        """C{LOG} and C{MANIFEST} of a database that nobody renews grow."""
        path = str(self.directory())
        database = plyvel.DB(path, create_if_missing=True)
        self.addCleanup(database.close)
        with open(f"{path}/LOG", "rb") as log:
            before = len(log.read())
            for number in range(10):
                database.put(b"%d" % number, b"x")
                database.compact_range()
            log.seek(0)
            self.assertGreater(len(log.read()), before + 1000)
