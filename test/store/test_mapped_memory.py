"""
Tests of `darner.store.mapped_memory`.
"""

from __future__ import annotations

import mmap
import os
import threading
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from darner.store import mapped_memory as mapped_module
from darner.store.batch import Batch
from darner.store.leveldb import LevelStore
from darner.store.mapped_memory import MappedMemory, mapped, page_out
from darner.values.vocabulary import CHUNK_BYTES
from test.servers import PATIENCE

MIB = 1024 * 1024
SIZE = 16 * MIB


def resident(path: Path) -> int:
    """@return: how many bytes of maps of the files below C{path} are in memory."""
    total = 0
    ours = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            ours = str(path.resolve()) in line
        elif ours and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


def lookers() -> set[threading.Thread]:
    """@return: the threads that look at mapped memory."""
    return {thread for thread in threading.enumerate() if thread.name == "darner-maps"}


class LetGoTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    def test_page_out(self) -> None:
        """The memory is given back, and what is mapped is the same as before."""
        file = self.directory / "table"
        content = bytes(range(256)) * (SIZE // 256)
        file.write_bytes(content)
        with file.open("r+b") as written:
            os.fsync(written)  # what the kernel is about to write it does not give back
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            self.assertEqual(mapped[:], content)
            self.assertGreater(resident(self.directory), SIZE // 2)
            self.assertEqual(page_out(self.directory), 1)
            self.assertLess(resident(self.directory), SIZE // 2)
            self.assertEqual(mapped[:], content)
        self.assertEqual(page_out(self.directory), 0)

    def test_other_files(self) -> None:
        """Files elsewhere are left alone."""
        elsewhere = Path(self.mktemp())
        elsewhere.mkdir()
        (elsewhere / "table").write_bytes(bytes(SIZE))
        with (elsewhere / "table").open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            self.assertEqual(mapped[:], bytes(SIZE))
            self.assertEqual(page_out(self.directory), 0)
            self.assertGreater(resident(elsewhere), SIZE // 2)

    def test_system_that_does_not_tell(self) -> None:
        self.assertEqual(page_out(self.directory, maps=self.directory / "none"), 0)

    def test_store(self) -> None:
        """A store that was read from end to end holds little of its tables in memory."""
        store = LevelStore(self.directory)
        self.addCleanup(store.close)
        count = 64 * 1024 * 1024 // CHUNK_BYTES
        for index in range(count):
            batch = Batch()
            batch.chunk(1, index, index.to_bytes(4, "big") + bytes(CHUNK_BYTES - 4))
            batch.large = False  # so that they are in LevelDB's tables
            store.write(batch)
        store.compact()
        most = 0
        for index in range(count):
            self.assertEqual(store.chunk(1, index)[:4], index.to_bytes(4, "big"))
            if index % 32 == 0:
                most = max(most, resident(self.directory))
        self.assertGreater(most, 0)
        self.assertLess(most, 32 * 1024 * 1024)


class KeeperTests(SynchronousTestCase):
    """While something is written, no more than some megabytes stay mapped."""

    def setUp(self) -> None:
        self.size = 10 * MIB
        self.stays = 10 * MIB
        self.given_back: list[Path] = []
        self.now = 1.0
        self.mapped_memory = MappedMemory(Path("database"), lambda: self.size, self.page_out, lambda: self.now)
        self.addCleanup(self.mapped_memory.stop)

    def page_out(self, directory: Path) -> None:
        self.given_back.append(directory)
        self.size = self.stays

    def looks(self, size: int) -> bool:
        self.size = size
        return self.mapped_memory.check()

    def test_much(self) -> None:
        self.assertFalse(self.looks(10 * MIB + MappedMemory.MOST))
        self.assertEqual(self.given_back, [])
        self.assertTrue(self.looks(10 * MIB + MappedMemory.MOST + 1))
        self.assertEqual(self.given_back, [Path("database")])

    def test_less(self) -> None:
        """What counts is how much more it is than at least."""
        self.assertFalse(self.looks(5 * MIB))
        self.assertTrue(self.looks(5 * MIB + MappedMemory.MOST + 1))

    def test_somebody_elses(self) -> None:
        """What others have mapped is not given back, and not asked for again and again."""
        self.stays = 100 * MIB
        self.assertTrue(self.looks(100 * MIB))
        self.assertFalse(self.looks(100 * MIB))
        self.assertTrue(self.looks(100 * MIB + MappedMemory.MOST + 1))

    def test_those_who_write(self) -> None:
        """They look, but not each time."""
        self.patch(MappedMemory, "AWAY", 60)
        for times, (seconds, size) in enumerate([(0, 1000), (MappedMemory.EVERY, 10), (MappedMemory.EVERY, 2000)], 1):
            self.now += seconds
            self.size = size * MIB
            self.mapped_memory.written()
            self.assertEqual(len(self.given_back), (times + 1) // 2)
            self.size = 1000 * MIB
            self.mapped_memory.written()
            self.assertEqual(len(self.given_back), (times + 1) // 2)
            self.size = 10 * MIB

    def test_thread(self) -> None:
        """One looks while nobody writes and there is something to do, and then ends."""
        self.patch(MappedMemory, "EVERY", 0)
        self.patch(MappedMemory, "AWAY", 0)
        self.patch(MappedMemory, "QUIET", 3)
        before = lookers()
        self.now = -1.0  # nobody else looks
        for round in (1, 2):
            self.size = 1000 * MIB
            self.mapped_memory.written()
            for thread in lookers() - before:
                thread.join(PATIENCE)
                self.assertFalse(thread.is_alive())
            self.assertEqual(len(self.given_back), round)

    def test_one_thread(self) -> None:
        self.patch(MappedMemory, "AWAY", 60)
        before = lookers()
        for _ in range(3):
            self.mapped_memory.written()
        self.assertEqual(len(lookers() - before), 1)
        self.mapped_memory.stop()
        self.assertEqual(lookers() - before, set())
        self.mapped_memory.written()
        self.assertEqual(lookers() - before, set())

    def test_nothing_to_look_at(self) -> None:
        """Where the system does not tell how much it is, there is no thread."""
        before = lookers()
        mapped_memory = MappedMemory(Path("database"), lambda: 0, self.page_out)
        mapped_memory.written()
        self.assertEqual(lookers() - before, set())
        self.assertEqual(self.given_back, [])

    def test_no_more_threads(self) -> None:
        """A write is none the worse for it."""

        def start(_: object) -> None:
            raise RuntimeError("can't start new thread")

        patch = self.patch(threading.Thread, "start", start)
        self.mapped_memory.written()
        patch.restore()
        self.patch(MappedMemory, "AWAY", 60)
        before = lookers()
        self.mapped_memory.written()
        self.assertEqual(len(lookers() - before), 1)

    def test_system_that_tells(self) -> None:
        file = Path(self.mktemp())
        file.write_bytes(bytes(SIZE))
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as content:
            before = mapped()
            self.assertEqual(content[:], bytes(SIZE))
            self.assertGreater(mapped() - before, SIZE // 2)

    def test_system_that_does_not_tell(self) -> None:
        self.patch(mapped_module, "_STATM", Path(self.mktemp()))
        self.assertEqual(mapped(), 0)

    def test_store(self) -> None:
        """A store has one for as long as it is open."""
        before = lookers()
        store = LevelStore(Path(self.mktemp()))
        self.addCleanup(store.close)
        batch = Batch()
        batch.chunk(1, 0, bytes(10))
        store.write(batch)
        self.assertEqual(len(lookers() - before), 1)
        store.close()
        self.assertEqual(lookers() - before, set())
