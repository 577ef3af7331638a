"""
Tests of `darner.store.files.manifest`.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from darner.store.database import DB
from darner.store.files.damage import BadFile
from darner.store.files.manifest import current, newest


class NewestTests(SynchronousTestCase):
    """The current manifest, which is read once as long as it does not change: a start asks for it four times."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        DB(str(self.path), create_if_missing=True).close()

    def test_same(self) -> None:
        manifest = newest(self.path)
        self.assertEqual(manifest.path, current(self.path))
        self.assertIs(newest(self.path), manifest)

    def test_another(self) -> None:
        manifest = newest(self.path)
        DB(str(self.path)).close()
        self.assertNotEqual(newest(self.path).path, manifest.path)

    def test_changed(self) -> None:
        """Also where its length stays the same."""
        manifest = newest(self.path)
        data = bytearray(manifest.path.read_bytes())
        data[8] ^= 1
        manifest.path.write_bytes(data)
        os.utime(manifest.path, ns=(1, 1))
        self.assertRaises(BadFile, newest, self.path)

    def test_missing(self) -> None:
        current(self.path).unlink()
        self.assertIn("No such file", str(self.assertRaises(BadFile, newest, self.path)))
