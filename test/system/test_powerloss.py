"""
The store after a loss of power: what was promised to be on stable storage is there, and of the rest the first of it.

C{python -m bench.powerloss} does the same for longer.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path
from typing import Optional

from twisted.trial.unittest import SynchronousTestCase

from bench.disk import Content, Directory, Disk, File, State
from bench.powerloss import LEVELDB, SEGMENTS, THREADS, TURNOVER, Expected, Recording, Turn, lose_power, scratch, script
from bench.syscalls import Call, missing, read_trace
from darner.store import opening
from test import allow_critical


class PowerLossTests(SynchronousTestCase):
    """A few hundred states of the disk."""

    skip = missing() and f"states of the disk cannot be recorded: {missing()}"

    def record(self, kind: str) -> Recording:
        directory = Path(tempfile.mkdtemp(prefix="darner-powerloss-", dir=scratch()))
        self.addCleanup(shutil.rmtree, directory)
        return Recording(directory, 1, 260, kind)

    def test_nothing_promised_is_lost(self) -> None:
        findings = lose_power(self.record(LEVELDB), seed=1, limit=250)
        self.assertEqual([str(fault)[:500] for fault in findings.faults], [])
        self.assertGreater(findings.opened, 200)
        # It was a test of something.
        self.assertGreater(findings.calls, 1000)
        self.assertGreater(findings.synced, 20)
        self.assertGreater(findings.logs, 15)
        self.assertGreater(findings.lost, 50)
        self.assertEqual(len(findings.kinds), 6)

    def test_segments(self) -> None:
        """Nor is anything in segments, also while LevelDB is reopened and what is needed of segments is moved."""
        for kind in (SEGMENTS, TURNOVER):
            findings = lose_power(self.record(kind), seed=1, limit=120)
            self.assertEqual([str(fault)[:500] for fault in findings.faults], [])
            self.assertGreater(findings.lost, 3)

    def test_threads(self) -> None:
        """Nor while threads reclaim and move beside the turns."""
        findings = lose_power(self.record(THREADS), seed=1, limit=120)
        self.assertEqual([str(fault)[:500] for fault in findings.faults], [])
        self.assertGreater(findings.opened, 50)

    def test_lost_payloads(self) -> None:
        """Without what looks for them, items have no payload."""
        allow_critical(self, " is damaged ")
        self.patch(opening, "drop_lost_payloads", lambda *_: [])
        findings = lose_power(self.record(SEGMENTS), seed=1, limit=120)
        self.assertGreater(len(findings.faults), 0)

    def test_a_fault_is_found(self) -> None:
        """Without what puts LevelDB's files right there are holes."""
        self.patch(opening, "drop_unsafe_tail", lambda *_: [])
        recording = self.record(LEVELDB)
        # Which states have holes depends on when LevelDB's thread ran.
        self.assertTrue(any(lose_power(recording, seed, limit=80).faults for seed in range(1, 6)))


class ScriptTests(SynchronousTestCase):
    """What is done is the same for the same seed, and what is expected of it is right."""

    def test_script(self) -> None:
        turns = script(random.Random(7), 500)
        self.assertEqual(turns, script(random.Random(7), 500))
        self.assertEqual(
            {verb for turn in turns for verb, *_ in turn.requests},
            {"put", "get", "open", "close", "abort", "flush", "delete"},
        )

    def test_expected(self) -> None:
        expected = Expected()

        def do(verb: str, number: int = 0) -> dict[bytes, list[tuple[int, int]]]:
            expected.do(Turn(((verb, b"q", number, 9),), False))
            return expected.contents()

        self.assertEqual(do("get"), {})
        for number in (1, 2, 3, 4):
            do("put", number)
        do("open")
        self.assertEqual(do("get"), {b"q": [(1, 9), (3, 9), (4, 9)]})
        self.assertEqual(do("abort"), {b"q": [(1, 9), (3, 9), (4, 9)]})
        self.assertEqual(do("get"), {b"q": [(3, 9), (4, 9)]})
        do("open")
        self.assertEqual(do("flush"), {b"q": [(3, 9)]})
        self.assertEqual(do("close"), {b"q": []})
        self.assertEqual(do("delete"), {})


def texts(state: State) -> dict[str, bytes]:
    return {name: b"/" if content is None else content.bytes() for name, content in state.items()}


class DiskTests(SynchronousTestCase):
    """The model of the disk."""

    def setUp(self) -> None:
        self.disk = Disk(Path("/d"), Path("/marks"))

    def do(self, name: str, arguments: str, *texts: bytes, result: Optional[int] = 0) -> int:
        """@return: how many calls changed something."""
        call = Call(name, tuple(arguments.split()), texts, result)
        return len(list(self.disk.follow([call])))

    def make(self, path: bytes, file: int) -> None:
        self.do("openat", "AT_FDCWD * O_WRONLY|O_CREAT|O_TRUNC 0644", path, result=file)

    def test_what_is_synced_is_certain(self) -> None:
        self.make(b"/d/a", 3)
        self.do("write", "3 * 5", b"first", result=5)
        self.assertEqual(texts(self.disk.least()), {})
        self.assertEqual(texts(self.disk.most()), {"a": b"first"})
        self.do("openat", "AT_FDCWD * O_RDONLY", b"/d", result=4)
        self.assertEqual(self.do("fsync", "4"), 1)
        self.assertEqual(texts(self.disk.least()), {"a": b""})
        self.assertEqual(texts(self.disk.entries(zeros=True)), {"a": bytes(5)})
        self.do("fdatasync", "3")
        self.do("write", "3 * 7", b", second", result=5)
        self.assertEqual(texts(self.disk.least()), {"a": b"first"})
        self.assertEqual(texts(self.disk.most()), {"a": b"first, sec"})

    def test_descriptor_that_another_thread_gets(self) -> None:
        """It may have it before the thread that closes it hears so."""
        self.make(b"/d/a", 3)
        self.do("close", "3", result=None)
        self.make(b"/d/b", 3)
        self.do("write", "3 * 5", b"other", result=5)
        self.do("close", "3")
        self.do("openat", "AT_FDCWD * O_RDONLY", b"/d", result=4)
        self.do("fsync", "4")
        self.do("fsync", "3")
        self.assertEqual(texts(self.disk.least()), {"a": b"", "b": b"other"})
        self.do("close", "3")
        self.assertEqual(self.do("write", "3 * 5", b"other", result=5), 0)

    def test_what_is_written_during_an_fsync_is_not_certain(self) -> None:
        self.make(b"/d/a", 3)
        self.do("fsync", "3", result=None)
        self.do("write", "3 * 1", b"x", result=1)
        self.make(b"/d/b", 5)
        self.do("fsync", "3")
        self.do("openat", "AT_FDCWD * O_RDONLY", b"/d/", result=4)
        self.do("fsync", "4", result=None)
        self.make(b"/d/c", 6)
        self.do("fsync", "4")
        self.assertEqual(texts(self.disk.least()), {"a": b"", "b": b""})

    def test_entries_come_in_order(self) -> None:
        self.make(b"/d/new", 3)
        self.do("rename", "* *", b"/d/new", b"/d/name")
        self.do("unlink", "*", b"/d/name")
        found = {tuple(self.disk.some(random.Random(seed))) for seed in range(50)}
        self.assertEqual(found, {(), ("new",), ("name",)})

    def test_below(self) -> None:
        self.do("mkdir", "* 0700", b"/d/below")
        self.make(b"/d/below/1.log", 3)
        self.make(b"/d/below/2.log", 4)
        for file in ("3", "4"):
            self.do("write", f"{file} * 1", b"x", result=1)
        self.assertEqual(texts(self.disk.newest(".log")), {"below": b"/", "below/1.log": b"", "below/2.log": b"x"})
        self.do("openat", "AT_FDCWD * O_RDONLY", b"/d/below", result=5)
        self.do("fsync", "5")
        self.assertEqual(texts(self.disk.least()), {})

    def test_without_entries(self) -> None:
        self.do("mkdir", "* 0700", b"/d/below")
        self.make(b"/d/below/1.seg", 3)
        self.do("openat", "AT_FDCWD * O_RDONLY", b"/d/below", result=4)
        self.do("fsync", "4")
        self.make(b"/d/below/2.seg", 5)
        self.make(b"/d/1.log", 6)
        for file in ("3", "5", "6"):
            self.do("write", f"{file} * 1", b"x", result=1)
        self.assertEqual(
            texts(self.disk.without_entries(".seg")), {"below": b"/", "below/1.seg": b"x", "1.log": b"x"}
        )

    def test_links(self) -> None:
        """A file has the same content under all its names, and goes by one of them."""
        self.make(b"/d/a", 3)
        self.do("write", "3 * 9", b"unsettled", result=9)
        self.do("mkdir", "* 0700", b"/d/below")
        self.do("link", "* *", b"/d/a", b"/d/below/b")
        for seed in range(30):
            state = texts(self.disk.some(random.Random(seed)))
            if {"a", "below/b"} <= set(state):
                self.assertEqual(state["a"], state["below/b"])
        self.do("openat", "AT_FDCWD * O_RDONLY|O_DIRECTORY", b"/d/below", result=4)
        self.assertEqual(self.do("unlinkat", "4 * 0", b"b"), 1)
        self.do("unlinkat", "AT_FDCWD * AT_REMOVEDIR", b"/d/below")
        self.assertEqual(texts(self.disk.most()), {"a": b"unsettled"})
        self.assertEqual(self.do("link", "* *", b"/elsewhere/a", b"/elsewhere/b"), 0)

    def test_another_process(self) -> None:
        """A descriptor of the one before is none of the next one's."""
        self.make(b"/d/a", 3)
        self.disk.forget_descriptors()
        self.assertEqual(self.do("write", "3 * 5", b"other", result=5), 0)

    def test_marks_and_others(self) -> None:
        self.do("openat", "AT_FDCWD * O_WRONLY|O_APPEND", b"/marks", result=3)
        self.assertEqual(self.do("write", "3 * 1", b"b", result=1), 1)
        self.do("openat", "AT_FDCWD * O_WRONLY|O_CREAT", b"/dd/x", result=4)
        self.assertEqual(self.do("write", "4 * 1", b"b", result=1), 0)
        self.assertEqual(self.do("fsync", "4"), 0)
        self.do("close", "3")
        self.assertEqual(self.do("write", "3 * 1", b"b", result=1), 0)
        self.assertEqual((bytes(self.disk.marks), self.disk.most()), (b"b", {}))

    def test_what_the_model_does_not_know(self) -> None:
        self.make(b"/d/a", 3)
        self.do("mkdir", "* 0700", b"/d/below")
        self.assertRaises(ValueError, self.do, "pwrite64", "3 * 1 0", b"x", result=1)
        self.assertRaises(ValueError, self.do, "ftruncate", "3 0")
        self.assertRaises(ValueError, self.do, "rename", "* *", b"/d/a", b"/d/below/a")
        self.assertEqual(self.do("ftruncate", "9 0"), 0)

    def test_some(self) -> None:
        """Whatever chance brings, what is certain is there."""
        file = File(bytearray(b"0123456789"), 4)
        directory = Directory()
        directory.change(f=file)
        self.disk.root = directory
        directory.sync(1)
        found = set()
        for seed in range(200):
            content = self.disk.some(random.Random(seed))["f"]
            assert isinstance(content, Content)
            self.assertTrue(4 <= content.written <= content.written + content.zeros <= 10)
            self.assertTrue(content.bytes().startswith(b"0123"))
            found.add((content.written, content.zeros))
        self.assertGreater(len(found), 15)


class TraceTests(SynchronousTestCase):
    """Reading what strace writes."""

    def read(self, text: str) -> list[Call]:
        path = Path(self.mktemp())
        path.write_text(text)
        return list(read_trace(path))

    def test_calls(self) -> None:
        self.assertEqual(
            self.read(
                '7 openat(AT_FDCWD, "\\x2f\\x61", O_RDONLY|O_CLOEXEC) = 3\n'
                '7 openat(AT_FDCWD, "\\x2f\\x62", O_RDONLY) = -1 ENOENT (No such file or directory)\n'
                '7 fdatasync(3 <unfinished ...>\n'
                '8 write(4, "\\x2c\\x22", 2) = 2\n'
                '7 <... fdatasync resumed>)          = 0\n'
            ),
            [
                Call("openat", ("AT_FDCWD", "*", "O_RDONLY|O_CLOEXEC"), (b"/a",), 3),
                Call("fdatasync", ("3",), (), None),
                Call("write", ("4", "*", "2"), (b',"',), 2),
                Call("fdatasync", ("3",), (), 0),
            ],
        )

    def test_what_cannot_be_read(self) -> None:
        self.assertRaises(ValueError, self.read, '7 write(4, "\\x2c"..., 2) = 2\n')
        self.assertRaises(ValueError, self.read, "strace: gone\n")
