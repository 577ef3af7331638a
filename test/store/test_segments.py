"""
Tests of `darner.store.segments`.
"""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any, Optional

from twisted.trial.unittest import SynchronousTestCase

from darner.store import segments as module
from darner.store.directory import sync
from darner.store.files.damage import BadFile
from darner.store.files.segment import MAGIC, SegmentFile
from darner.store.segments import OPEN_FILES, Appender, Segments


class SegmentsTestCase(SynchronousTestCase):
    """A directory of small segments."""

    def setUp(self) -> None:
        parent = Path(self.mktemp())
        parent.mkdir()
        self.segments = Segments(parent / "segments", 1000)
        self.addCleanup(self.segments.close)
        self.appender = Appender(self.segments)
        self.addCleanup(self.appender.seal)

    def failing(self, function: str, error: int, times: int = 1) -> None:
        """Let calls of a function of C{os} fail."""
        real = getattr(os, function)
        left = [times]

        def fail(*arguments: Any, **options: Any) -> Any:
            if left[0]:
                left[0] -= 1
                raise OSError(error, os.strerror(error))
            return real(*arguments, **options)

        self.patch(module.os, function, fail)


class AppendTests(SegmentsTestCase):
    """Records are appended to one segment after another."""

    def test_read_again(self) -> None:
        values = [(b"key %d" % number, bytes([number]) * 300) for number in range(10)]
        references = self.appender.append(values[:7]) + self.appender.append(values[7:])
        for (key, value), reference in zip(values, references, strict=True):
            self.assertEqual(self.segments.read(reference, key), value)
        self.assertEqual(sorted({reference.segment for reference in references}), [1, 2, 3])
        for number, segment in self.segments.by_number.items():
            file = SegmentFile(self.segments.path_of(number))
            there = [(key, at, len(record)) for key, at, record in file.records()]
            self.assertEqual(
                there, [(key, r.offset, r.length) for (key, _), r in zip(values, references, strict=True)
                        if r.segment == number],
            )  # fmt: skip
            self.assertEqual((file.end, segment.dead, segment.sealed), (segment.size, len(MAGIC), number < 3))
        self.assertEqual([segment.number for segment in self.segments.created], [1, 2, 3])
        self.assertEqual([segment.number for segment in self.segments.sealed], [1, 2])

    def test_modes(self) -> None:
        self.assertFalse(self.segments.path.exists())
        self.appender.append([(b"key", b"value")])
        self.assertEqual(self.segments.path.stat().st_mode & 0o777, 0o700)
        self.assertEqual(self.segments.path_of(1).stat().st_mode & 0o777, 0o600)

    def test_refused(self) -> None:
        """Nothing of what could not be written stays in the way."""
        (first,) = self.appender.append([(b"key", b"value")])
        size = self.segments.by_number[1].size
        real = os.write
        self.patch(module.os, "write", lambda file, data: real(file, data[:20]))
        self.failing_after(1)
        self.assertRaises(OSError, self.appender.append, [(b"other", bytes(500))])
        self.assertEqual(self.segments.path_of(1).stat().st_size, size)
        self.assertEqual((self.segments.by_number[1].known, self.segments.by_number[1].sealed), (False, True))
        (after,) = self.appender.append([(b"other", bytes(500))])
        self.assertEqual((first.segment, after.segment), (1, 2))
        self.assertEqual(self.segments.read(after, b"other"), bytes(500))

    def failing_after(self, count: int) -> None:
        """Let one write fail after so many."""
        real = os.write
        left = [count]

        def write(file: int, data: bytes) -> int:
            left[0] -= 1
            if left[0] == -1:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(file, data)

        self.patch(module.os, "write", write)

    def test_refused_in_the_second_segment(self) -> None:
        """What was written to the first one is counted anew too."""
        self.failing_after(2)
        self.assertRaises(OSError, self.appender.append, [(b"key %d" % number, bytes(600)) for number in range(3)])
        self.assertEqual({number: segment.known for number, segment in self.segments.by_number.items()},
                         {1: False, 2: False})  # fmt: skip

    def test_no_segment_can_be_made(self) -> None:
        self.failing("open", errno.EMFILE)
        self.assertRaises(OSError, self.appender.append, [(b"key", b"value")])
        self.assertEqual(self.segments.by_number, {})
        self.assertEqual(self.appender.append([(b"key", b"value")])[0].segment, 1)

    def test_entry_first(self) -> None:
        """Where another thread may record it, a new segment is one only when its entry is on stable storage."""
        appender = Appender(self.segments, True)
        self.addCleanup(appender.seal)
        appender.append([(b"key", b"value")])
        known: list[object] = []

        def synced(path: Path) -> None:
            known.append((path.name, sorted(self.segments.by_number), self.segments.path_of(2).exists()))

        self.patch(module, "sync", synced)
        appender.append([(b"key", bytes(2000)), (b"key", b"value")])
        self.assertEqual(known, [("segments", [1], True)])
        self.assertEqual([segment.number for segment in self.segments.created], [1, 2])

    def test_entry_that_cannot_be_synced(self) -> None:
        def broken(path: Path) -> None:
            raise OSError(errno.EIO, "Input/output error")

        self.segments.path.mkdir()
        appender = Appender(self.segments, True)
        patched = self.patch(module, "sync", broken)
        self.assertRaises(OSError, appender.append, [(b"key", b"value")])
        self.assertEqual((self.segments.by_number, os.listdir(self.segments.path)), ({}, []))
        patched.restore()
        self.assertEqual(appender.append([(b"key", b"value")])[0].segment, 2)
        appender.seal()

    def test_give_up_nothing(self) -> None:
        self.appender.give_up()
        self.assertEqual(self.segments.sealed, [])


class SyncTests(SegmentsTestCase):
    """What was appended is written to stable storage."""

    def setUp(self) -> None:
        super().setUp()
        self.synced: list[str] = []
        self.fails: Optional[str] = None

        def synced(path: Path) -> None:
            self.synced.append(path.name)
            if path.name == self.fails:
                self.fails = None
                raise OSError(errno.EIO, "Input/output error")

        self.appender.append([(b"key", bytes(100))])
        self.patch(module, "sync", synced)

    def sync(self, without: frozenset[int] = frozenset()) -> list[tuple[int, int]]:
        """@return: what was synced, as it is to be recorded."""
        self.segments.synced = []
        self.segments.sync(without)
        return self.segments.synced

    def test_once(self) -> None:
        self.assertEqual(self.sync(), [(1, self.segments.by_number[1].size)])
        self.assertEqual(self.synced, ["000001.seg", "segments"])
        self.assertEqual((self.sync(), self.segments.dirty), ([], {}))
        self.appender.append([(b"key", bytes(100))])
        self.segments.sync()
        self.assertEqual(self.synced, ["000001.seg", "segments", "000001.seg"])

    def test_without(self) -> None:
        self.assertEqual(self.sync(frozenset([1])), [])
        self.assertEqual([*self.segments.dirty], [1])

    def test_written_meanwhile(self) -> None:
        """What is appended while it is synced is synced the next time."""
        size = self.segments.by_number[1].size
        self.patch(module, "sync", lambda path: self.appender.append([(b"more", b"x")]))
        self.assertEqual(self.sync(), [(1, size)])
        self.assertEqual([*self.segments.dirty], [1])

    def test_that_fails(self) -> None:
        """The kernel forgets what it could not write: so it is written once more."""
        written: list[tuple[int, int]] = []
        real = os.pwrite

        def pwrite(file: int, data: bytes, at: int) -> int:
            written.append((at, len(data)))
            return real(file, data, at)

        self.patch(module.os, "pwrite", pwrite)
        self.segments.sync()
        old = self.segments.by_number[1].size
        self.appender.append([(b"key", bytes(100))])
        for self.fails in ("000001.seg", "segments"):
            self.segments._new_entries = True
            self.assertRaises(OSError, self.segments.sync)
        whole = self.segments.path_of(1).read_bytes()
        self.assertEqual(self.sync(), [(1, len(whole))])
        self.assertEqual(written, [(old, len(whole) - old)])
        self.assertEqual(self.synced[-1], "segments")
        self.assertEqual(self.segments.path_of(1).read_bytes(), whole)


    def test_removed_meanwhile(self) -> None:
        """
        A segment of which nothing is needed may be removed while another thread syncs: that removes it later.  Clients
        were refused their sets because a file was missing.
        """
        self.appender.append([(b"key", bytes(900))])
        self.appender.append([(b"key", bytes(900))])
        removing = threading.Thread(target=self.segments.remove, args=(2,))

        def meanwhile(path: Path) -> None:
            if not removing.ident:
                removing.start()
                removing.join(0.1)
            sync(path)

        self.patch(module, "sync", meanwhile)
        self.segments.sync()
        removing.join()
        self.assertFalse(self.segments.path_of(2).exists())
        self.assertEqual(self.segments.dirty, {})


class ReadTests(SegmentsTestCase):
    """Many segments are read with few descriptors."""

    def test_descriptors(self) -> None:
        references = self.appender.append([(b"key", bytes(1000))] * (OPEN_FILES + 8))
        for _ in range(2):
            for reference in references:
                self.assertEqual(self.segments.read(reference, b"key"), bytes(1000))
                self.assertEqual(self.segments.read(reference, b"key"), bytes(1000))
        self.assertEqual(len(self.segments._open), OPEN_FILES)
        self.segments.close()
        self.segments.close()
        self.assertEqual(self.segments.read(references[0], b"key"), bytes(1000))

    def test_damaged(self) -> None:
        (reference,) = self.appender.append([(b"key", bytes(100))])
        error = self.assertRaises(BadFile, self.segments.read, reference, b"yek")
        self.assertEqual(str(error), "segments/000001.seg: a record has another key, at 16")

    def test_removed(self) -> None:
        """Also while it is open: its space comes back."""
        first, second = self.appender.append([(b"key", bytes(1000))] * 2)
        self.segments.read(first, b"key")
        for number in (1, 2, 2):
            self.segments.remove(number)
        self.assertRaises(FileNotFoundError, self.segments.read, first, b"key")
        self.assertRaises(FileNotFoundError, self.segments.read, second, b"key")
        self.assertEqual((self.segments.by_number, self.segments.dirty), ({}, {}))


class FindTests(SegmentsTestCase):
    """What an earlier process left is compared with what is recorded of it."""

    def test_sound(self) -> None:
        self.appender.append([(b"key", bytes(1000))] * 3)
        found = Segments(self.segments.path, 1000)
        self.assertIsNone(found.find({1: 16, 2: 500}, {1: 1000}, 2))
        self.assertEqual(
            {number: (segment.size, segment.dead, segment.known) for number, segment in found.by_number.items()},
            {1: (1000, 16, True), 2: (self.segments.path_of(2).stat().st_size, 500, False)},
        )
        self.assertEqual((found.strays, found.next_number), ([3], 4))
        self.assertIsNone(Segments(self.segments.path, 1000).find({}, {}, 9))

    def test_missing(self) -> None:
        self.assertEqual(str(self.segments.find({7: 16}, {7: 1000}, 8)), "segments/000007.seg: it is missing")
        self.assertEqual(str(self.segments.find({7: 16}, {}, 8)), "segments/000007.seg: it is missing")

    def test_deleted(self) -> None:
        """It may be missing where nothing of it was needed any more."""
        self.assertIsNone(self.segments.find({7: 1000}, {7: 1000}, 8))
        self.assertEqual(self.segments.by_number[7].live, 0)

    def test_too_short(self) -> None:
        self.appender.append([(b"key", bytes(100))])
        damage = self.segments.find({1: 16}, {1: 1000}, 2)
        size = self.segments.by_number[1].size
        self.assertEqual(str(damage), f"segments/000001.seg: it has {size} bytes and not 1000")
