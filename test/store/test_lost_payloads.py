"""
Tests of `darner.store.lost_payloads`: what a start gives up after a loss of power.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Optional

from twisted.logger import capturedLogs, formatEvent

from darner.errors import StoreDamaged
from darner.store import lost_payloads, references
from darner.store.batch import Batch
from darner.store.files.names import logs
from darner.values.items import Item
from test import allow_critical
from test.store.test_payloads import SMALL, PayloadsTestCase
from test.store_contract import EVERYTHING


class LostTests(PayloadsTestCase):
    """From the first payload on that is lost, all is given up, and nothing else ever."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(self.store._database.payloads, "_sync_behind", lambda: None)
        self.items: list[Item] = []
        self.sizes: list[int] = []
        for _ in range(4):
            self.items += self.writer.put(b"\1" * 5000)
            self.sizes.append(self.segments[1].size)
            self.items += self.writer.put(SMALL)

    def start(self, path: Path) -> tuple[list[Item], list[str]]:
        """@return: what is there, and what the log says of it."""
        with capturedLogs() as events:
            store = self.open(path)
        said = [formatEvent(event) for event in events if event["log_level"].name == "warn"]
        found = store.read(self.writer.number, 0, 99, EVERYTHING)
        store.close()
        return found, said

    def lose(self, path: Path, length: int, zeros: int = 0) -> Path:
        """Have a segment end there, or have zeros from there on."""
        segment = path / "segments" / "000001.seg"
        os.truncate(segment, length)
        os.truncate(segment, length + zeros)
        return path

    def test_nothing_lost(self) -> None:
        self.assertEqual(self.start(self.copy()), (self.items, []))

    def test_lost(self) -> None:
        for zeros in (0, 7000):
            path = self.lose(self.copy(), self.sizes[1] + 3000, zeros)
            (log,) = logs(path / "leveldb").values()
            before = log.read_bytes()
            found, said = self.start(path)
            self.assertEqual(found, self.items[:4])
            self.assertEqual(len(said), 1)
            self.assertRegex(
                said[0], rf"\Aafter a loss of power: a payload is lost \(000001.seg: .*, at {self.sizes[1]}\): "
                rf"{log.name} was truncated to \d+ bytes\Z",
            )  # fmt: skip
            self.assertEqual((path / "lost" / log.name).read_bytes(), before)
            self.assertEqual(self.start(path), (found, []))

    def test_segment_lost(self) -> None:
        path = self.copy()
        (path / "segments" / "000001.seg").unlink()
        found, said = self.start(path)
        self.assertEqual((found, len(said)), ([], 1))
        self.assertIn("a payload is lost (000001.seg is missing)", said[0])

    def test_new_segment_lost(self) -> None:
        """The lengths that are synced are recorded together with a segment that is not."""
        payloads = self.store._database.payloads
        payloads.sync()
        payloads.seal()
        after = self.writer.put(bytes(5000), SMALL)
        path = self.copy()
        self.assertEqual(self.start(path), (self.items + after, []))
        path = self.copy()
        (path / "segments" / "000002.seg").unlink()
        found, said = self.start(path)
        self.assertEqual((found, len(said)), (self.items, 1))
        self.assertIn("a payload is lost (000002.seg is missing)", said[0])

    def test_segment_lost_that_older_versions_recorded(self) -> None:
        """They recorded that of a new segment nothing was synced."""
        self.store._database.write([(references.SYNCED_KEY, references.pack_synced([(1, 0)]))])
        path = self.copy()
        (path / "segments" / "000001.seg").unlink()
        found, said = self.start(path)
        self.assertEqual((found, len(said)), ([], 1))

    def test_segment_lost_before_anything_refers_to_it(self) -> None:
        """A thread has made it to move payloads there, and a turn has recorded that."""
        releasing = self.store._releasing
        releasing._cold.append([(b"key", b"copy")])
        releasing._cold.seal()
        between = self.writer.put(SMALL)
        self.store._database.write([], large=True)
        self.writer.put(SMALL)
        synced: list[Path] = []
        self.patch(lost_payloads, "sync", synced.append)
        path = self.copy()
        found, said = self.start(path)
        self.assertEqual((found[: len(self.items) + 1], said), (self.items + between, []))
        self.assertEqual(synced, [path / "segments"])
        path = self.copy()
        (path / "segments" / "000002.seg").unlink()
        found, said = self.start(path)
        self.assertEqual(found, self.items + between)
        self.assertEqual(len(said), 1)
        self.assertIn("a payload is lost (000002.seg is missing)", said[0])

    def test_promised(self) -> None:
        """What was promised is not looked at again: if it is not there, it is damaged."""
        batch = Batch()
        batch.put(self.writer.number, self.writer.put(SMALL), 100)
        self.store.write(batch, sync=True)
        allow_critical(self, " is damaged")
        path = self.copy()
        self.lose(path, self.sizes[0] + 10, 100_000)
        store = self.open(path)
        self.assertEqual(store.read(self.writer.number, 0, 2, EVERYTHING), self.items[:2])
        self.assertFalse((path / "lost").exists())
        store.close()
        path = self.copy()
        (path / "segments" / "000001.seg").unlink()
        self.assertRaises(StoreDamaged, self.open, path)
        self.assertFalse((path / "lost").exists())

    def test_damaged(self) -> None:
        """A bit that flipped is no loss of power: nothing is given up for it."""
        path = self.copy()
        segment = path / "segments" / "000001.seg"
        data = bytearray(segment.read_bytes())
        data[self.sizes[0] + 1000] ^= 4
        segment.write_bytes(data)
        allow_critical(self, " is damaged")
        store = self.open(path)
        self.assertEqual(store.read(self.writer.number, 0, 2, EVERYTHING), self.items[:2])
        self.assertEqual(store.read(self.writer.number, 3, 99, EVERYTHING), self.items[3:])
        self.assertFalse((path / "lost").exists())

    def test_deleted(self) -> None:
        """A segment that is missing because nothing of it was needed is not lost."""
        self.writer.consume(0, 8)
        self.store.reclaim(self.writer.number, 0, 8, 0, 100)
        compact_range = self.store._database.compact_range
        self.patch(self.store._database, "compact_range", lambda start, stop: None)
        self.store.compact()
        self.patch(self.store._database, "compact_range", compact_range)
        self.assertEqual(self.files(), [])
        after = self.writer.put(bytes(6000))
        self.assertEqual(self.start(self.copy()), (after, []))

    def test_later_logs(self) -> None:
        """They go with it."""
        path = self.copy()
        (log,) = logs(path / "leveldb").values()
        length = log.stat().st_size
        later = log.with_name(f"{int(log.stem) + 90:06}.log")
        later.write_bytes(log.read_bytes())
        self.lose(path, self.sizes[0] + 10)
        done = lost_payloads.drop_lost_payloads(path / "leveldb", path / "segments", path / "lost")
        self.assertEqual(
            done[0], f"{later.name} follows a write whose payload is lost: it was moved to {path / 'lost'}"
        )
        self.assertEqual(sorted(os.listdir(path / "lost")), [log.name, later.name])
        self.assertFalse(later.exists())
        self.assertLess(log.stat().st_size, length)

    def test_not_the_effect_of_a_loss_of_power(self) -> None:
        """Where a log, or the manifest, is damaged, that is for others to say."""
        drop = lost_payloads.drop_lost_payloads

        def lost(change: Any) -> list[str]:
            path = self.copy()
            self.lose(path, self.sizes[0] + 10)
            change(path)
            return drop(path / "leveldb", path / "segments", path / "lost")

        def flip(path: Path) -> None:
            (log,) = logs(path / "leveldb").values()
            data = bytearray(log.read_bytes())
            data[200] ^= 1
            log.write_bytes(data)

        def unreadable(path: Path) -> None:
            (log,) = logs(path / "leveldb").values()
            log.unlink()
            log.mkdir()

        self.assertEqual(lost(lambda path: (path / "leveldb" / "CURRENT").unlink()), [])
        self.assertEqual(lost(flip), [])
        self.assertEqual(lost(unreadable), [])
        self.assertEqual(drop(self.path / "leveldb", self.path / "none", self.path / "lost"), [])

    def test_only_part_of_the_logs_is_verified(self) -> None:
        """The checksums of the logs take long: a start that finds nothing does without."""
        verified: list[Optional[bool]] = []
        real = lost_payloads.LogFile

        def log_file(path: Path, verify: bool) -> Any:
            verified.append(verify)
            return real(path, verify)

        self.patch(lost_payloads, "LogFile", log_file)
        self.start(self.copy())
        self.assertEqual(verified, [False])
        self.start(self.lose(self.copy(), self.sizes[0] + 10))
        self.assertEqual(verified, [False, False, True])
