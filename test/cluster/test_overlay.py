"""
Tests of what lies over the database of a leader.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import plyvel
from twisted.trial.unittest import SynchronousTestCase

from darner.cluster.overlay import Overlay, after
from darner.errors import StoreError
from darner.store.batch import Write
from darner.store.database import Database

Changes = list[Write]


class OverlayTests(SynchronousTestCase):
    """L{Overlay}: a database is read as one that has all of it."""

    KEYS = [bytes([first, second]) for first in (1, 2, 0x7F, 0xFF) for second in (0, 1, 0xFE, 0xFF)]

    def setUp(self) -> None:
        self.overlay = Overlay(plyvel.DB)
        self.database = self.open(self.overlay.open)
        self.model = self.open(plyvel.DB)
        self.in_flight: list[Changes] = []
        for database in (self.database, self.model):
            database.put(b"\xff\xff\xff", b"behind all")

    def open(self, open_database: Callable[..., Any]) -> Any:
        path = tempfile.mkdtemp(dir=Path(self.mktemp()).parent)
        opened = open_database(path, create_if_missing=True)
        self.addCleanup(opened.close)
        return opened

    def add(self, writes: Changes) -> None:
        self.overlay.add(writes)
        self.in_flight.append(writes)
        self.write(self.model, writes)

    def write(self, database: Any, writes: Changes) -> None:
        with database.write_batch() as batch:
            for key, value in writes:
                if value is None:
                    batch.delete(key)
                else:
                    batch.put(key, value)

    def settle(self) -> None:
        self.overlay.settle(lambda: self.write(self.database, self.in_flight.pop(0)))

    def equal(self) -> None:
        for key in self.KEYS:
            self.assertEqual(self.database.get(key), self.model.get(key))
            self.assertEqual(self.database.get(key, b"none"), self.model.get(key, b"none"))
        ranges: list[dict[str, Any]] = [{}, *({"prefix": key[:1]} for key in self.KEYS[::4])]
        ranges += [{"start": start, "stop": stop} for start in self.KEYS[::3] for stop in self.KEYS[::3]]
        for bounds in ranges:
            for include_value in (True, False):
                with self.database.iterator(include_value=include_value, **bounds) as entries:
                    found = list(entries)
                with self.model.iterator(include_value=include_value, **bounds) as entries:
                    self.assertEqual(found, list(entries), bounds)
        first = next(self.model.iterator(include_value=False))
        for key in self.KEYS:
            if key > first:
                with self.database.raw_iterator() as entries:
                    entries.seek(key)
                    entries.prev()
                    self.assertEqual(entries.item(), list(self.model.iterator(stop=key))[-1])

    def test_as_if_it_were_written(self) -> None:
        """Random batches of puts and deletions, of which some are written at a time, in their order."""
        for seed in range(20):
            chance = random.Random(seed)
            for _ in range(8):
                if self.in_flight and chance.random() < 0.4:
                    self.settle()
                else:
                    keys = chance.choices(self.KEYS, k=chance.randrange(8))
                    self.add([(key, chance.choice((None, chance.randbytes(2)))) for key in keys])
                self.equal()

    def test_iterator_goes_on(self) -> None:
        """What is written, or given to the log, after an iterator is open does not change it."""
        self.add([(b"a", b"1"), (b"c", b"1")])
        with self.database.iterator(stop=b"d") as entries:
            self.assertEqual(next(entries), (b"a", b"1"))
            self.add([(b"b", b"2"), (b"c", None)])
            self.settle()
            self.settle()
            self.assertEqual(list(entries), [(b"c", b"1")])

    def test_written_in_between(self) -> None:
        """
        A thread looks what is in flight, and opens its iterator when that is written, and what came behind it, too: it
        does not see the older values.
        """
        self.add([(b"a", b"old"), (b"b", b"old")])
        opened: list[Any] = []

        def open_iterator() -> Any:
            if not opened:
                self.add([(b"a", None), (b"b", b"new")])
                self.settle()
                self.settle()
            opened.append(self.database.iterator())
            return opened[-1]

        entries, layers = self.overlay.opened(open_iterator)
        self.assertEqual((next(entries), layers, len(opened)), ((b"b", b"new"), (), 2))

    def test_not_written(self) -> None:
        """A batch that cannot be written stays in flight."""
        self.add([(b"a", b"1")])

        def fail() -> None:
            raise StoreError("broken")

        self.assertRaises(StoreError, self.overlay.settle, fail)
        self.assertEqual(self.database.get(b"a"), b"1")

    def test_snapshots_are_the_database(self) -> None:
        """What the log may not have is in no snapshot and no backup."""
        self.add([(b"a", b"1")])
        self.assertIs(self.database.snapshot().get(b"a"), None)

    def test_prefixes(self) -> None:
        self.assertEqual([after(key) for key in (b"a", b"a\xff", b"\xff", b"")], [b"b", b"b", None, None])

    def test_last(self) -> None:
        """L{Database.last} finds entries that are only in flight, also behind the last key of the database."""
        database = Database(Path(self.mktemp()), self.overlay.open, lambda: 0.0, None, None)
        self.addCleanup(database.close)
        database.make_and_open()
        self.overlay.add([(b"C1", b"one"), (b"C2", b"two"), (b"S1", b"")])
        self.assertEqual(database.last(b"C", b"D"), (b"C2", b"two"))
        self.overlay.add([(b"C2", None)])
        self.assertEqual(database.last(b"C", b"D"), (b"C1", b"one"))
        self.assertIs(database.last(b"C2", b"D"), None)
