"""
The quick look at a store before it is opened: `darner.store.inspection`.  Damaged tables are the business of
`test.rescue.test_repair`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from darner.errors import StoreDamaged
from darner.store.inspection import inspect
from darner.store.leveldb import LevelStore
from test.store_contract import Writer


class InspectTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        store = LevelStore(self.path)
        Writer(store).put(b"x" * 1000, b"y" * 1000)
        store.close()

    def refusal(self) -> str:
        return str(self.assertRaises(StoreDamaged, inspect, self.path))

    def test_sound(self) -> None:
        inspection = inspect(self.path)
        self.assertEqual((inspection.foreign, inspection.cuts), ((), ()))

    def test_foreign_files(self) -> None:
        (self.path / "letter").touch()
        (self.path / "leveldb" / "letter").touch()
        self.assertEqual(inspect(self.path).foreign, ("letter", "leveldb/letter"))

    def test_no_database(self) -> None:
        shutil.rmtree(self.path / "leveldb")
        self.assertIn("leveldb: it is missing, with all queues", self.refusal())
        (self.path / "leveldb").touch()
        self.assertIn("leveldb: it is not a directory", self.refusal())

    def test_new_database(self) -> None:
        """One that was never made has nothing that could be missing."""
        shutil.rmtree(self.path / "leveldb")
        (self.path / "leveldb").mkdir()
        self.assertEqual(inspect(self.path).cuts, ())

    def test_damaged_log(self) -> None:
        """Its end is not as it was written, and further on in front something else is not either."""
        store = LevelStore(self.path)
        Writer(store, b"other").put(*(b"z" * 20_000 for _ in range(10)))
        store.close()
        log = max((self.path / "leveldb").glob("*.log"), key=lambda log: log.stat().st_size)
        data = bytearray(log.read_bytes())
        data[100] ^= 1
        log.write_bytes(data[:-3])
        self.assertIn(f"{log.name}: ", self.refusal())
