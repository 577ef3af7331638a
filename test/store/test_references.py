"""
Tests of `darner.store.references`.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from darner.store import records, references
from darner.store.references import Reference
from darner.values.items import Item
from darner.values.vocabulary import CHUNK_BYTES


def runs(*sizes: int) -> list[tuple[int, bytes]]:
    items = [Item(id, 1, 2, 3, size, bytes(size)) for id, size in enumerate(sizes)]
    return records.runs(items, sum(sizes))


class ReferenceTests(SynchronousTestCase):
    """What stands for a value in the database leads to it, and tells as much as the start needs."""

    def setUp(self) -> None:
        self.reference = Reference(2**40, 2**31, 70_000)

    def test_chunk(self) -> None:
        key = records.chunk_key(7, 3)
        separate = references.separate_key(key)
        self.assertEqual(separate, references.chunk_key(7, 3))
        self.assertTrue(key < separate < records.chunk_key(7, 4))
        self.assertEqual((records.chunk_stream(separate), records.chunk_index(separate)), (7, 3))
        value = references.referring(key, bytes(CHUNK_BYTES), self.reference)
        self.assertEqual(references.reference_of(separate, value), self.reference)
        self.assertIsNone(references.reference_of(key, bytes(CHUNK_BYTES)))
        self.assertEqual(references.whole(separate, b"found"), (key, b"found"))

    def test_run(self) -> None:
        ((last, value),) = runs(5000, 6000, 4096)
        key = records.run_key(9, last)
        self.assertEqual(references.separate_key(key), key)
        referring = references.referring(key, value, self.reference)
        self.assertEqual(references.reference_of(key, referring), self.reference)
        self.assertIsNone(references.reference_of(key, value))
        self.assertEqual(records.run_head(referring), records.run_head(value))
        self.assertEqual(records.run_stream(referring), (0, 0))
        self.assertEqual(references.whole(key, value), (key, value))

    def test_moved(self) -> None:
        other = Reference(1, 2, 3)
        for key, value in ((records.run_key(9, 0), runs(5000)[0][1]), (records.chunk_key(1, 2), bytes(5000))):
            moved = references.moved(references.referring(key, value, self.reference), other)
            self.assertEqual(moved, references.referring(key, value, other))

    def test_what_is_separated(self) -> None:
        """Chunks and runs with large payloads; a run has large ones or others, and never both."""
        separated = [
            references.is_separable(records.run_key(1, last), value)
            for last, value in runs(4095, 4096, 60_000, 10, 5000, *[100] * 50)
        ]
        self.assertEqual(separated, [False, True, False, True, False])
        self.assertEqual([records.run_head(value)[1] for _, value in runs(10, 5000, 5000, 10)], [1, 2, 1])
        ((_, stream),) = records.runs([Item(0, 1, 2, 3, 200_000, stream=7)], 200_000)
        self.assertFalse(records.is_large(stream))
        self.assertTrue(references.is_separable(records.chunk_key(1, 0), bytes(CHUNK_BYTES)))
        self.assertFalse(references.is_separable(records.chunk_key(1, 0), bytes(100)))
        self.assertFalse(references.is_separable(records.due_key(1, 2, 3), runs(5000)[0][1]))
        self.assertFalse(references.is_separable(records.name_key(b"x" * 5000), bytes(5000)))

    def test_segments(self) -> None:
        self.assertEqual(references.segment_of(references.segment_key(2**40)), (2**40, False))
        self.assertEqual(references.segment_of(references.size_key(2**40)), (2**40, True))
        self.assertEqual(references.unpack_synced(references.pack_synced([(1, 2), (3, 4)])), {1: 2, 3: 4})
