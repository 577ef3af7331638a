"""
Tests of the switch from a database to a snapshot.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from darner.cluster.replicated_store import ReplicatedStore
from darner.cluster.snapshots.installing import install
from darner.errors import StoreUnusable
from darner.store.directory import DATABASE, MARKER, SNAPSHOT, TAKING
from test.cluster.snapshots.stores import fill


class InstallTests(SynchronousTestCase):
    """L{install}, wherever it was interrupted."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        for place, position in ((self.path, 3), (self.path / SNAPSHOT, 7)):
            store = ReplicatedStore(place)
            fill(store, position)
            store.close()

    def installed(self, position: int) -> None:
        """What is there is whole, and nothing else is."""
        store = ReplicatedStore(self.path)
        self.assertEqual(store.position, position)
        self.assertEqual(len(store.shared()), position)
        store.close()
        self.assertEqual({SNAPSHOT, TAKING} & {entry.name for entry in self.path.iterdir()}, set())

    def test_nothing_to_install(self) -> None:
        shutil.rmtree(self.path / SNAPSHOT)
        self.assertFalse(install(self.path))
        self.assertFalse(install(self.path / "missing"))
        self.installed(3)

    def test_not_complete(self) -> None:
        """What is left of a taker that was killed is removed."""
        (self.path / SNAPSHOT).rename(self.path / TAKING)
        self.assertFalse(install(self.path))
        self.installed(3)

    def test_complete(self) -> None:
        self.assertTrue(install(self.path))
        self.installed(7)

    def test_interrupted(self) -> None:
        """At each step but the first, as a kill would leave it."""
        for steps in (1, 2, 3):
            with self.subTest(steps=steps):
                self.setUp()
                before = self.path / SNAPSHOT / "before"
                (self.path / DATABASE).rename(before)
                if steps > 1:
                    (self.path / SNAPSHOT / DATABASE).rename(self.path / DATABASE)
                if steps > 2:
                    shutil.rmtree(before)
                self.assertEqual(install(self.path), steps == 1)
                self.installed(7)

    def test_in_use(self) -> None:
        store = ReplicatedStore(self.path)
        self.addCleanup(store.close)
        self.assertIn("in use", str(self.assertRaises(StoreUnusable, install, self.path)))

    def test_cannot(self) -> None:
        (self.path / MARKER).unlink()
        self.assertIn("cannot install", str(self.assertRaises(StoreUnusable, install, self.path)))
