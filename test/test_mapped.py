"""
Tests of `darner.mapped`.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from darner.mapped import let_go
from darner.records import CHUNK_BYTES
from darner.store import LevelStore

SIZE = 16 * 1024 * 1024


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


class LetGoTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    def test_let_go(self) -> None:
        """The memory is given back, and what is mapped is the same as before."""
        file = self.directory / "table"
        content = bytes(range(256)) * (SIZE // 256)
        file.write_bytes(content)
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            self.assertEqual(mapped[:], content)
            self.assertGreater(resident(self.directory), SIZE // 2)
            self.assertEqual(let_go(self.directory), 1)
            self.assertLess(resident(self.directory), SIZE // 2)
            self.assertEqual(mapped[:], content)
        self.assertEqual(let_go(self.directory), 0)

    def test_other_files(self) -> None:
        """Files elsewhere are left alone."""
        elsewhere = Path(self.mktemp())
        elsewhere.mkdir()
        (elsewhere / "table").write_bytes(bytes(SIZE))
        with (elsewhere / "table").open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            self.assertEqual(mapped[:], bytes(SIZE))
            self.assertEqual(let_go(self.directory), 0)
            self.assertGreater(resident(elsewhere), SIZE // 2)

    def test_system_that_does_not_tell(self) -> None:
        self.assertEqual(let_go(self.directory, maps=self.directory / "none"), 0)

    def test_store(self) -> None:
        """A store that was read from end to end holds little of its tables in memory."""
        store = LevelStore(self.directory)
        self.addCleanup(store.close)
        count = 64 * 1024 * 1024 // CHUNK_BYTES
        for index in range(count):
            batch = store.batch()
            batch.chunk(1, index, index.to_bytes(4, "big") + bytes(CHUNK_BYTES - 4))
            store.write(batch)
        store.compact()
        most = 0
        for index in range(count):
            self.assertEqual(store.chunk(1, index)[:4], index.to_bytes(4, "big"))
            if index % 32 == 0:
                most = max(most, resident(self.directory))
        self.assertGreater(most, 0)
        self.assertLess(most, 32 * 1024 * 1024)
