"""
Tests of `darner.store.batch`: a batch as bytes, for every kind of change.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from darner.errors import StoreError
from darner.store.batch import Batch, VolatileBatch
from darner.store.leveldb import LevelStore
from darner.store.memory import MemoryStore
from darner.values.items import Delayed, Generation, Imported, Item, Mark

NUMBERS = st.integers(0, 3)
IDS = st.integers(0, 5)
TIMES = st.integers(0, 2**64 - 1)
ITEMS = st.builds(
    lambda id, flags, time, expiry, payload, stream: Item(
        id, flags, time, expiry, 70_000 if stream else len(payload), b"" if stream else payload, stream
    ),
    IDS, st.integers(0, 2**32 - 1), TIMES, TIMES, st.binary(max_size=9), st.sampled_from([0, 0, 1, 2]),
)  # fmt: skip
RUNS = st.lists(ITEMS, min_size=1, max_size=3).map(
    lambda items: [
        Item(id, item.flags, item.time, item.expiry, item.size, item.payload, item.stream)
        for id, item in enumerate(items)
    ]
)
DELAYED = st.lists(st.tuples(st.integers(1, 9), ITEMS), min_size=1, max_size=3)
GENERATIONS = st.none() | st.builds(Generation, NUMBERS, TIMES)
CHANGES: dict[str, tuple[st.SearchStrategy[Any], ...]] = {
    "create": (st.sampled_from([b"a", b"b"]), NUMBERS, TIMES),
    "remove": (st.sampled_from([b"a", b"b"]), NUMBERS),
    "discard": (NUMBERS,),
    "put": (NUMBERS, RUNS, st.integers(10**6, 10**9)),
    "share": (st.integers(1, 2), NUMBERS, IDS),
    "mark": (NUMBERS, st.builds(Mark, *[TIMES] * 5)),
    "reclaim": (NUMBERS, st.sampled_from([[0, 0], [1, 2], [0, 0, 1, 1], [3, 5, 2, 2]])),
    "consume": (NUMBERS, st.lists(st.tuples(IDS, IDS), max_size=3)),
    "attempts": (NUMBERS, st.lists(st.tuples(IDS, st.integers(0, 2)), max_size=3)),
    "delayed": (NUMBERS, st.none() | st.builds(Delayed, NUMBERS, IDS, IDS, TIMES, IDS)),
    "delay": (NUMBERS, DELAYED),
    "due": (NUMBERS, DELAYED),
    "undelay": (NUMBERS, DELAYED),
    "generations": (NUMBERS, GENERATIONS, GENERATIONS),
    "imported": (NUMBERS, st.builds(Imported, *[st.binary(min_size=16, max_size=16)] * 2, TIMES, st.booleans())),
    "seen": (NUMBERS, st.binary(min_size=16, max_size=16), st.sampled_from([0, 7])),
    "chunk": (st.integers(1, 2), st.integers(0, 2), st.binary(min_size=1, max_size=9)),
}
"""Every kind of change, and what it takes."""

BATCHES = st.lists(
    st.lists(st.one_of([st.tuples(st.just(name), st.tuples(*taken)) for name, taken in CHANGES.items()]), max_size=6),
    max_size=6,
)


def batch_of(changes: list[tuple[str, tuple[Any, ...]]]) -> Batch:
    batch = Batch()
    for name, arguments in changes:
        getattr(batch, name)(*arguments)
    return batch


def all_changes() -> Batch:
    """@return: a batch with one change of each kind."""
    items = [Item(0, 7, 1, 2, 3, b"abc"), Item(1, 7, 1, 2, 70_000, b"", 9)]
    return batch_of([
        ("create", (b"q", 0, 1)), ("chunk", (9, 0, b"x")), ("put", (0, items, 70_003)), ("share", (9, 0, 1)),
        ("mark", (0, Mark(1, 2, 3, 4, 5))), ("reclaim", (0, [0, 0])), ("consume", (0, [(3, 4), (5, 5)])),
        ("attempts", (0, [(0, 1), (1, 0)])), ("delay", (1, [(5, items[1])])), ("delayed", (0, Delayed(1, 1, 2, 3, 4))),
        ("due", (1, [(5, items[1])])), ("undelay", (1, [(6, items[1])])), ("generations", (0, Generation(2, 3), None)),
        ("seen", (2, bytes(16), 5)), ("imported", (0, Imported(bytes(16), b"f" * 16, 2, True))), ("discard", (3,)),
        ("remove", (b"q", 0)),
    ])  # fmt: skip


class BytesTests(SynchronousTestCase):
    """A batch that was encoded and decoded is the same batch."""

    def test_every_kind(self) -> None:
        """The list of kinds below is whole: a new one is tested as well."""
        kinds = {name for name, kind in vars(Batch).items() if not name.startswith("_") and callable(kind)}
        self.assertEqual(kinds - {"to_bytes", "from_bytes"}, set(CHANGES))

    @given(BATCHES)
    @settings(deadline=None, max_examples=100)
    def test_same_store(self, turns: list[list[tuple[str, tuple[Any, ...]]]]) -> None:
        """Applied to another store it gives an equal one, key by key."""
        with tempfile.TemporaryDirectory() as directory:
            one, other = Path(directory) / "one", Path(directory) / "other"
            with closing(LevelStore(one)) as first, closing(LevelStore(other)) as second:
                for changes in turns:
                    batch = batch_of(changes)
                    again = Batch.from_bytes(batch.to_bytes())
                    self.assertEqual((again.writes, again.puts, again.empty), (batch.writes, batch.puts, batch.empty))
                    first.write(batch)
                    second.write(again)
                self.assertEqual(first._database.prefixed(b""), second._database.prefixed(b""))

    def test_same_twin(self) -> None:
        first, second = MemoryStore(), MemoryStore()
        batch = all_changes()
        first.write(batch)
        second.write(Batch.from_bytes(batch.to_bytes()))
        self.assertEqual(first.read(0, 0, 2, 10**6), second.read(0, 0, 2, 10**6))
        self.assertEqual(second.leftovers(), ([0, 3], [9]))
        self.assertEqual(first.queues[0].__dict__, second.queues[0].__dict__)
        for kept in ("ids", "chunks", "holders", "delays"):
            self.assertEqual(getattr(first, kept), getattr(second, kept))

    def refused(self, data: bytes) -> str:
        return str(self.assertRaises(StoreError, Batch.from_bytes, data))

    def test_damaged(self) -> None:
        """No bit may change, and none may be missing."""
        data = all_changes().to_bytes()
        for at in range(1, len(data)):
            changed = bytearray(data)
            changed[at] ^= 1
            self.assertEqual(self.refused(bytes(changed)), "a batch is damaged: its checksum is wrong")
            self.assertIn("a batch is damaged: ", self.refused(data[:at]))
        self.assertIn("a batch is damaged: ", self.refused(data + b"\0"))
        self.assertEqual(self.refused(b""), "a batch is damaged: it is cut short")

    def test_version(self) -> None:
        data = all_changes().to_bytes()
        self.assertEqual(self.refused(b"\2" + data[1:]), "a batch is of version 2, which this version cannot read")

    def test_unchanged(self) -> None:
        """The bytes of a version stay as they are."""
        batch = Batch()
        batch.discard(1)
        batch.consume(1, [(2, 2)])
        body = (
            b"\0\0\0\0\2"
            b"\1\0\x09\0\0\0\0D\0\0\0\0\0\0\0\1"
            b"\0\0\x12\0\0\0\0Q\0\0\0\0\0\0\0\1\2\0\0\0\0\0\0\0\2"
        )
        self.assertEqual(batch.to_bytes()[5:], body)
        self.assertEqual(batch.to_bytes()[:1], b"\1")


class VolatileBatchTests(SynchronousTestCase):
    def test_left_out(self) -> None:
        """What queues in memory keep themselves is not written."""
        changes: list[Callable[[Batch], None]] = [
            lambda batch: batch.create(b"q", 0, 1),
            lambda batch: batch.put(0, [Item(0, 0, 0, 0, 1, b"x")], 1),
            lambda batch: batch.share(1, 0, 0),
            lambda batch: batch.mark(0, Mark()),
            lambda batch: batch.consume(0, [(0, 1)]),
            lambda batch: batch.attempts(0, [(0, 1)]),
            lambda batch: batch.delayed(0, Delayed(1)),
            lambda batch: batch.generations(0, None, None),
            lambda batch: batch.remove(b"q", 0),
        ]
        for change in changes:
            batch = VolatileBatch()
            change(batch)
            self.assertTrue(batch.empty)

    def test_undelay(self) -> None:
        """The stream is the other store's."""
        batch, due = VolatileBatch(), Batch()
        items = [(5, Item(0, 0, 0, 0, 99, b"", 7))]
        batch.undelay(1, items)
        due.due(1, items)
        self.assertEqual(batch.writes, due.writes)
