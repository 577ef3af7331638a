"""
Having a database as it was before it was opened: `darner.store.rollback`.  What a start does with it is in
`test.rescue.test_repair`.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from darner.store.rollback import Rollback


class RollbackTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        (self.path / "leveldb").mkdir(parents=True)
        (self.path / "leveldb" / "CURRENT").write_text("old")

    def files(self) -> dict[str, str]:
        """@return: all files below the data directory, and what is in them."""
        files = sorted(path for path in self.path.rglob("*") if path.is_file())
        return {str(path.relative_to(self.path)): path.read_text() for path in files}

    def change(self) -> None:
        """As LevelDB does: it makes new files."""
        (self.path / "leveldb" / "new").write_text("new")
        (self.path / "leveldb" / "CURRENT.new").write_text("new")
        (self.path / "leveldb" / "CURRENT.new").rename(self.path / "leveldb" / "CURRENT")

    def test_restored(self) -> None:
        rollback = Rollback(self.path)
        self.change()
        rollback.restore()
        self.assertEqual(self.files(), {"leveldb/CURRENT": "old"})

    def test_discarded(self) -> None:
        rollback = Rollback(self.path)
        self.change()
        rollback.discard()
        rollback.restore()
        self.assertEqual(self.files(), {"leveldb/CURRENT": "new", "leveldb/new": "new"})

    def test_no_links(self) -> None:
        """Where nothing could be kept, what LevelDB has made stays."""

        def refuse(*_: Any) -> None:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

        self.patch(os, "link", refuse)
        rollback = Rollback(self.path)
        self.assertFalse(rollback.kept)
        self.change()
        rollback.restore()
        self.assertEqual(self.files(), {"leveldb/CURRENT": "new", "leveldb/new": "new"})

    def test_what_was_made_beside_it(self) -> None:
        """The reserve goes again, as does what a repair has set aside; what somebody else has put there stays."""
        rollback = Rollback(self.path)
        self.change()
        (self.path / "reserve").write_text("room")
        (self.path / "letter").write_text("Dear Sir")
        (self.path / "lost").mkdir()
        (self.path / "lost" / "file").write_text("damaged")
        rollback.restore()
        self.assertEqual(self.files(), {"leveldb/CURRENT": "old", "letter": "Dear Sir"})
