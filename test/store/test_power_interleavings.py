"""
Interleavings of threads, a loss of power and a start, beside those of L{test.store.test_lost_payloads}.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

from darner.errors import StoreDamaged
from darner.store.batch import Batch
from darner.store.files.names import logs
from darner.store.leveldb import LevelStore
from darner.store.segments import Segment
from darner.values.items import Item
from test.store.test_payloads import BUFFER, SMALL, PayloadsTestCase
from test.store_contract import EVERYTHING, small

LARGE = b"\1" * 5000


class InterleavingTests(PayloadsTestCase):
    """A loss of power is no damage, and loses nothing that was promised."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(self.store._database.payloads, "_sync_behind", lambda: None)
        self.payloads = self.store._database.payloads
        self.synced: list[str] = []
        fsync = os.fsync

        def noted(file: Any) -> None:
            number = file if isinstance(file, int) else file.fileno()
            self.synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{number}")))
            fsync(file)

        self.patch(os, "fsync", noted)

    def promise(self, *payloads: bytes) -> list[Item]:
        writer = self.writer
        items = [small(id, payload) for id, payload in enumerate(payloads, writer.next_id)]
        writer.next_id += len(items)
        writer.bytes_put += sum(item.size for item in items)
        batch = Batch()
        batch.put(writer.number, items, writer.bytes_put)
        self.store.write(batch, sync=True)
        return items

    def found(self, path: Path) -> list[Item]:
        store = self.open(path)
        found = store.read(self.writer.number, 0, 99, EVERYTHING)
        store.close()
        return found

    def test_copies_during_a_promise(self) -> None:
        """While a promise syncs the payloads, the worker begins a segment for copies."""
        segments = self.payloads.segments
        sync = segments.sync

        def meanwhile(without: frozenset[int] = frozenset()) -> None:
            sync(without)
            self.synced.append("promise")
            self.store._releasing._cold.append([(b"key", b"copy")])

        self.writer.put(LARGE)
        self.patch(segments, "sync", meanwhile)
        self.synced.clear()
        promised = self.promise(LARGE)
        path = self.copy()
        if "segments" not in self.synced[self.synced.index("promise") :]:
            (path / "segments" / "000002.seg").unlink()
        self.assertEqual(self.found(path)[1:], promised)

    def test_copies_created_and_not_begun(self) -> None:
        """The worker is between the creation of the file and its first write: it is not dirty, and recorded as 0."""
        self.writer.put(LARGE)
        self.payloads.sync()
        self.payloads.segments.create()
        batch = Batch()
        batch.put(self.writer.number, [small(1, SMALL)], 5100)
        batch.reclaim(self.writer.number, [0, 0])
        self.synced.clear()
        self.store.write(batch, sync=True)
        path = self.copy()
        if "segments" not in self.synced:
            (path / "segments" / "000002.seg").unlink()
        self.assertEqual([item.id for item in self.found(path)], [1])

    def test_counted_tail_of_a_killed_process(self) -> None:
        """A start counts what a killed process left, with a record to which nothing refers: that is not synced."""
        promised = self.promise(LARGE)
        size = self.segments[1].size
        self.store._database.compact_range(b"~", b"~~")  # or as LevelDB does by itself
        self.payloads._hot.append([(b"key", LARGE)])
        killed = self.copy()
        self.synced.clear()
        store = self.open(killed)
        store.compact()
        batch = Batch()
        batch.put(self.writer.number, [small(1, SMALL)], 5100)
        store.write(batch, sync=True)
        lost = Path(self.mktemp())
        shutil.copytree(killed, lost)
        if "000001.seg" not in self.synced:
            os.truncate(lost / "segments" / "000001.seg", size)
        self.assertEqual(self.found(lost), [*promised, small(1, SMALL)])

    def test_counted_tail_without_descriptors(self) -> None:
        """The same within a process: a batch filled a segment, and there was no descriptor for the next."""
        promised = self.promise(b"\1" * 150_000)
        size = self.segments[1].size
        segments = self.payloads.segments

        def refuse(entered: bool = False) -> tuple[Segment, int]:
            raise OSError(errno.EMFILE, "Too many open files")

        create = self.patch(segments, "create", refuse)
        batch = Batch()
        chunk = b"c" * (segments.segment_bytes - size)
        batch.chunk(1, 0, chunk)
        batch.chunk(1, 1, chunk)
        self.store.write(batch)
        create.restore()
        self.assertEqual((self.referred(), self.segments[1].known), (1, False))
        self.payloads._buffer = 1 << 30
        self.synced.clear()
        self.store._releasing.all(lambda: True)
        path = self.copy()
        if "000001.seg" not in self.synced:
            os.truncate(path / "segments" / "000001.seg", size)
        self.assertEqual(self.found(path), promised)

    def test_number_of_a_stray(self) -> None:
        """A stray is deleted, which is not synced, and the process after that one uses its number again."""
        self.promise(LARGE)
        self.payloads.seal()
        separate = self.payloads.separate
        killed: list[Path] = []

        def kill(*arguments: Any) -> Any:
            writes = separate(*arguments)
            killed.append(self.copy())
            return writes

        self.patch(self.payloads, "separate", kill)
        self.writer.put(b"A" * 5000)
        path = killed[0]
        stray = (path / "segments" / "000002.seg").read_bytes()  # let the kernel have written it by now
        store = LevelStore(path, write_buffer=BUFFER)
        self.synced.clear()
        list(store.recover())
        store.close()
        self.assertEqual(os.listdir(path / "segments"), ["000001.seg"])
        store = self.open(path)
        batch = Batch()
        batch.put(self.writer.number, [small(1, b"B" * 5000)], 10_000)
        store.write(batch)
        lost = Path(self.mktemp())
        shutil.copytree(path, lost)
        if "segments" not in self.synced:  # then the deletion of 2 may be lost, and with it the new 2
            self.assertTrue((lost / "segments" / "000002.seg").exists())
            (lost / "segments" / "000002.seg").write_bytes(stray)
        self.assertIn([item.payload[:1] for item in self.found(lost)], ([b"\1"], [b"\1", b"B"]))

    def test_promise_before_the_note(self) -> None:
        """The thread has synced and not noted it yet: then a file that somebody deletes is taken for lost."""
        self.writer.put(LARGE)
        self.payloads.segments.sync()
        self.promise(SMALL)
        path = self.copy()
        (path / "segments" / "000001.seg").unlink()
        self.assertRaises(StoreDamaged, self.open, path)

    def test_promise_without_a_note(self) -> None:
        """
        A small write has synced the payloads, as the log is long, and nothing notes it: a promise finds nothing dirty.
        """
        self.writer.put(LARGE)
        self.crowd()
        self.writer.put(SMALL)
        self.assertEqual(dict(self.payloads.segments.dirty), {})
        self.promise(SMALL)
        path = self.copy()
        (path / "segments" / "000001.seg").unlink()
        self.assertRaises(StoreDamaged, self.open, path)

    def test_two_losses(self) -> None:
        """
        A start truncates the log before the record that a segment is gone, and then renames CURRENT.  Another loss of
        power undoes that, keeps the next log, and takes a payload to which that refers.
        """
        self.payloads._buffer = 1 << 30
        writer, payloads = self.writer, self.payloads
        writer.put(LARGE)
        payloads.sync()
        writer.put(LARGE)
        payloads.seal()
        writer.consume(0, 2)
        self.store.reclaim(writer.number, 0, 2, 0, 100)
        sync = payloads.sync
        first: list[Path] = []

        def before(without: frozenset[int] = frozenset()) -> None:
            sync(without)
            if without:
                first.append(self.copy())  # what a start leaves that truncates the log here

        self.patch(payloads, "sync", before)
        self.store._releasing.all(lambda: True)
        (path,) = first
        (path / "segments" / "000001.seg").unlink()
        old = Path(self.mktemp())
        shutil.copytree(path, old)
        self.store = writer.store = self.open(path)
        log = self.store._database.payloads.newest_log()
        self.synced.clear()
        writer.put(SMALL)
        writer.put(LARGE)
        self.assertNotIn("leveldb", self.synced)
        shutil.copy(log, old / "leveldb")
        (old / "segments" / "000002.seg").touch()
        self.assertEqual([item.payload for item in self.found(old)], [SMALL])

    def test_torn_deletion(self) -> None:
        """
        The record that segment 257 is gone ends in two zeros: without its checksum, it says that 256 is gone, of which
        the payload is lost that was put meanwhile.
        """
        self.payloads._buffer = 1 << 30
        self.payloads.segments.next_number = 256
        kept = self.writer.put(LARGE)
        cold = self.store._releasing._cold
        cold.give_up(cold.append([(b"key", b"copy")]))
        sync, sync_logs = self.payloads.sync, self.store._database.directory.sync_logs
        size: list[int] = []
        copies: list[Path] = []

        def between(without: frozenset[int] = frozenset()) -> None:
            sync(without)
            if without:
                size.append(self.segments[256].size)
                self.writer.put(LARGE)

        def recorded() -> None:
            copies.append(self.copy())
            sync_logs()

        self.patch(self.payloads, "sync", between)
        self.patch(self.store._database.directory, "sync_logs", recorded)
        self.store._releasing.all(lambda: True)
        (path,) = copies
        os.truncate(path / "segments" / "000256.seg", size[-1])
        (log,) = logs(path / "leveldb").values()
        log.write_bytes(log.read_bytes()[:-2] + bytes(2))
        self.assertEqual(self.found(path)[:1], kept)
