"""
Tests of `darner.migrate.importing` and `darner.migrate.offline`: into a data directory.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import ClassVar, Optional

from twisted.trial.unittest import SynchronousTestCase

from darner.errors import StoreError, StoreUnusable
from darner.migrate import offline
from darner.migrate.importing import DryRun, ImportRefused, run_import
from darner.migrate.kestrel import Kestrel
from darner.migrate.offline import DataDirectoryImport
from darner.migrate.report import Report
from darner.migrate.sources import Findings, Source, SourceItem, SourceQueue, Unreadable, digest
from darner.rescue.repair import check
from darner.store.leveldb import LevelStore
from darner.values.items import Item
from test.migrate import journals as write
from test.servers import ROOT, environment

NOW = 1_700_000_000.0
NOW_MS = 1_700_000_000_000


def item(payload: bytes, time: int = 0, expiry: int = 0, due: int = 0, piece: int = 10_000) -> SourceItem:
    pieces = tuple(payload[at : at + piece] for at in range(0, len(payload), piece))
    return SourceItem(len(payload), pieces, time, expiry, due)


def torn(payload: bytes, size: int) -> SourceItem:
    """@return: an item of which only the beginning can be read."""

    def pieces() -> Iterator[bytes]:
        yield payload
        raise Unreadable("q, item 7", "the rest is missing")

    return SourceItem(size, pieces())


class GivenQueue(SourceQueue):
    def __init__(self, name: bytes, items: Sequence[SourceItem], target: Optional[bytes] = None) -> None:
        super().__init__(name, target)
        self._items = items

    def items(self, findings: Findings) -> Iterator[SourceItem]:
        yield from self._items
        findings.note("something is not kept", 2)


class GivenSource(Source):
    """A source that tests make up."""

    kind: ClassVar[str] = "made up"

    def __init__(self, *queues: SourceQueue, place: str = "here", state: str = "one") -> None:
        super().__init__(place)
        self._queues = list(queues)
        self.state = state

    def fingerprint(self) -> bytes:
        return digest(self.state.encode())

    def queues(self, findings: Findings) -> list[SourceQueue]:
        return self._queues


def contents(path: Path) -> dict[bytes, list[Item]]:
    """@return: the items of each queue in a data directory, with whole payloads; those that are delayed come last."""
    found = {}
    with closing(LevelStore(path)) as store:
        for state in store.recover():
            items = store.read(state.number, 0, state.next_id, 2**40)
            if state.delayed is not None:
                items += [item for _, item in store.read_delayed(state.delayed.number, 0, 2**50, 2**40)[0]]
            for item in items:
                if item.stream:
                    chunks = range(-(-item.size // 65536))
                    item.payload = b"".join(store.chunk(item.stream, index) for index in chunks)
            found[state.name] = items
    return found


class OfflineCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp()) / "data"

    def put(self, source: Source, again: bool = False) -> Report:
        with closing(DataDirectoryImport(self.path, lambda: NOW, again)) as destination:
            return run_import(source, destination, NOW_MS)

    def payloads(self, queue: bytes = b"q") -> list[bytes]:
        """What is in a queue now, in a store that is sound."""
        report = check(self.path)
        self.assertTrue(report.sound, report.lines())
        return [item.payload for item in contents(self.path).get(queue, [])]


class OfflineTests(OfflineCase):
    def test_items(self) -> None:
        payloads = [b"a", b"", bytes(65536), bytes(range(256)) * 257, b"x" * 200_000, b"last"]
        source = GivenSource(GivenQueue(b"q", [item(payload, time=5 + i) for i, payload in enumerate(payloads)]))
        report = self.put(source)
        self.assertEqual(self.payloads(), payloads)
        self.assertEqual([item.time for item in contents(self.path)[b"q"]], [5, 6, 7, 8, 9, 10])
        (line,) = report.queues
        self.assertEqual((line.items, line.bytes, line.lost, line.before), (6, sum(map(len, payloads)), 0, 0))
        self.assertEqual(report.notes, {"something is not kept": 2})

    def test_times(self) -> None:
        """An item whose time is not known is as old as the import; one that has expired is left out."""
        report = self.put(GivenSource(GivenQueue(b"q", [
            item(b"a", expiry=NOW_MS + 1), item(b"b", expiry=NOW_MS), item(b"c", time=3, expiry=9),
            item(b"d", due=NOW_MS),
        ])))  # fmt: skip
        self.assertEqual(self.payloads(), [b"a", b"d"])
        first, _ = contents(self.path)[b"q"]
        self.assertEqual((first.time, first.expiry), (NOW_MS, NOW_MS + 1))
        self.assertEqual((report.queues[0].expired, report.queues[0].delayed), (2, 0))

    def test_delayed(self) -> None:
        """They are available when they were to be, also where the queue had delayed items before."""
        for state in ("one", "two"):
            report = self.put(GivenSource(GivenQueue(b"q", [
                item(state.encode(), due=NOW_MS + 700), item(b"at once"),
                item(state.encode() * 70_000, due=NOW_MS + 500),
            ]), state=state, place=state))  # fmt: skip
            self.assertEqual(report.queues[0].delayed, 2)
        self.assertEqual(
            self.payloads(), [b"at once", b"at once", b"one" * 70_000, b"two" * 70_000, b"one", b"two"]
        )
        with closing(LevelStore(self.path)) as store:
            (state,) = store.recover()
            assert state.delayed is not None
            self.assertEqual(state.delayed[1:], (4, 420_006, NOW_MS + 500, 4))

    def test_what_was_there(self) -> None:
        """It stays in front."""
        self.put(GivenSource(GivenQueue(b"q", [item(b"a"), item(b"b")]), GivenQueue(b"r", [item(b"x")])))
        self.put(GivenSource(GivenQueue(b"q", [item(b"c"), item(b"d" * 70_000)]), place="there", state="two"))
        self.assertEqual(self.payloads(), [b"a", b"b", b"c", b"d" * 70_000])
        self.assertEqual(self.payloads(b"r"), [b"x"])

    def test_unreadable(self) -> None:
        """They are left out, large or small, and nothing of them stays."""
        report = self.put(GivenSource(GivenQueue(b"q", [
            item(b"a"), torn(b"bb", 5), item(b"c"), torn(b"d" * 150_000, 200_000), item(b"e" * 100_000), torn(b"", 1),
        ])))  # fmt: skip
        self.assertEqual(self.payloads(), [b"a", b"c", b"e" * 100_000])
        self.assertEqual((report.queues[0].lost, report.sound), (3, False))
        self.assertEqual(list(map(str, report.losses)), ["q, item 7: the rest is missing"])
        with closing(LevelStore(self.path)) as store:
            self.assertEqual(len(store.leftovers()[1]), 1)  # the stream of which half is there is reclaimed

    def test_buffer(self) -> None:
        """LevelDB has the buffer with which the store reckons: it syncs large payloads before that is full."""
        with closing(DataDirectoryImport(self.path, lambda: NOW)) as destination:
            database = destination._store._database
            self.assertEqual(database.payloads._buffer, offline._BUFFER)

    def test_exclude(self) -> None:
        queues = [GivenQueue(name, [item(name)]) for name in (b"gone.0", b"jobs", b"gone", b"\xff")]
        with closing(DataDirectoryImport(self.path, lambda: NOW)) as destination:
            run_import(GivenSource(*queues), destination, NOW_MS, exclude=["gone.*", "\udcff"])
        self.assertEqual(set(contents(self.path)), {b"jobs", b"gone"})

    def test_progress(self) -> None:
        told: list[tuple[str, int, int]] = []
        queues = [GivenQueue(b"a", [item(b"xy")] * 2500), GivenQueue(b"b", [item(b"z")])]
        run_import(GivenSource(*queues), DryRun(), NOW_MS, lambda *figures: told.append(figures))
        self.assertEqual(told, [
            ("a", 0, 0), ("a", 1000, 2000), ("a", 2000, 4000), ("a", 2500, 5000), ("b", 2500, 5000), ("b", 2501, 5001),
        ])  # fmt: skip

    def test_source_that_changes(self) -> None:
        source = GivenSource(GivenQueue(b"q", [item(b"a")]))

        def change(*_: object) -> None:
            source.state += "!"

        report = run_import(source, DryRun(), NOW_MS, change)
        self.assertIn("the source changed while it was read: it may be in use", report.notes)

    def test_data_directory_in_use(self) -> None:
        with closing(LevelStore(self.path)):
            self.assertRaises(StoreUnusable, DataDirectoryImport, self.path, lambda: NOW)

    def test_data_directory_that_cannot_be_read(self) -> None:
        self.put(GivenSource(GivenQueue(b"q", [item(b"a")])))

        def fail(_: LevelStore) -> None:
            raise StoreError("cannot read")

        with self.subTest():
            self.patch(LevelStore, "recover", fail)
            self.assertRaises(StoreError, DataDirectoryImport, self.path, lambda: NOW)
        LevelStore(self.path).close()  # it is free again


class DryRunTests(OfflineCase):
    def test_report(self) -> None:
        source = GivenSource(
            GivenQueue(b"a b", [item(b"xyz"), item(b"1", expiry=7), item(b"2", due=NOW_MS + 9), torn(b"12", 5)]),
            GivenQueue(b"c", []),
        )
        report = run_import(source, DryRun(), NOW_MS)
        self.assertEqual(report.lines(), [
            "made up, here",
            "queue a b: 2 items, 4 bytes, to a%20b, 1 delayed, 1 expired and left out, 1 unreadable",
            "queue c: 0 items, 0 bytes",
            "unreadable: q, item 7: the rest is missing",
            "note: something is not kept (4)",
            "total: 2 queues, 2 items, 4 bytes to import",
        ])  # fmt: skip

    def test_item_of_another_size(self) -> None:
        report = run_import(GivenSource(GivenQueue(b"q", [SourceItem(5, (b"four",))])), DryRun(), NOW_MS)
        self.assertEqual(report.queues[0].lost, 1)


class AgainTests(OfflineCase):
    """An import that is begun again puts nothing twice."""

    def test_finished(self) -> None:
        queues = GivenQueue(b"q", [item(b"a"), item(b"b", expiry=3), item(b"c")]), GivenQueue(b"r", [item(b"x")])
        source = GivenSource(*queues)
        self.put(source)
        report = self.put(source)
        self.assertEqual((report.items, [queue.before for queue in report.queues]), (0, [3, 1]))
        self.assertEqual(report.lines()[-1], "total: 2 queues, 0 items, 0 bytes imported; 4 items were imported before")
        self.assertEqual(self.payloads(), [b"a", b"c"])

    def test_moved(self) -> None:
        """A copy of the source is the same source."""
        self.put(GivenSource(GivenQueue(b"q", [item(b"a")])))
        self.assertEqual(self.put(GivenSource(GivenQueue(b"q", [item(b"a")]), place="there")).items, 0)
        self.assertEqual(self.payloads(), [b"a"])

    def test_two_queues_of_a_source_for_one(self) -> None:
        source = GivenSource(GivenQueue(b"q", [item(b"a")]), GivenQueue(b"r", [item(b"b")], b"q"))
        self.put(source)
        self.put(source)
        self.assertEqual(self.payloads(), [b"a", b"b"])

    def test_changed(self) -> None:
        self.put(GivenSource(GivenQueue(b"q", [item(b"a")])))
        changed = GivenSource(GivenQueue(b"q", [item(b"a"), item(b"b")]), state="two")
        error = self.assertRaises(ImportRefused, self.put, changed)
        self.assertIn("an import of queue q from this source was finished after 1 items, and the", str(error))
        self.assertEqual(self.payloads(), [b"a"])
        self.put(changed, again=True)
        self.assertEqual(self.payloads(), [b"a", b"a", b"b"])
        self.put(changed, again=True)
        self.put(changed)
        self.assertEqual(self.payloads(), [b"a", b"a", b"b"])

    def test_interrupted(self) -> None:
        """Wherever the source or the store fails, the next run goes on where this one has come to."""
        items = [
            item(b"%d" % i * (1 + i * 977 % 30_000), due=NOW_MS + 5 if i % 7 == 3 else 0, expiry=5 if i % 5 == 4 else 0)
            for i in range(60)
        ]  # fmt: skip
        for broken in range(0, 60, 3):
            self.path = Path(self.mktemp()) / "data"

            def some(broken: int = broken) -> Iterator[SourceItem]:
                yield from items[:broken]
                raise StoreError("the source fails")

            class Broken(GivenQueue):
                def items(self, findings: Findings) -> Iterator[SourceItem]:
                    return some()

            self.assertRaises(StoreError, self.put, GivenSource(Broken(b"q", [])))
            reached = len(self.payloads())
            report = self.put(GivenSource(GivenQueue(b"q", items)))
            expected = [item for item in items if not item.expiry]
            found = self.payloads()
            self.assertEqual(sorted(found), sorted(b"".join(item.pieces) for item in expected), broken)
            self.assertEqual(report.items, len(expected) - reached)

    def test_changed_after_an_interruption(self) -> None:
        class Broken(GivenQueue):
            def items(self, findings: Findings) -> Iterator[SourceItem]:
                yield from [item(b"a" * 100_000)] * 9
                raise StoreError("the source fails")

        self.assertRaises(StoreError, self.put, GivenSource(Broken(b"q", [])))
        changed = GivenSource(GivenQueue(b"q", [item(b"b")]), state="two")
        error = self.assertRaises(ImportRefused, self.put, changed)
        self.assertIn("was interrupted after 8 items", str(error))

    def test_killed(self) -> None:
        """By SIGKILL, after some of what was put was written."""
        journal = Path(self.mktemp())
        journal.mkdir()
        payloads = [b"%d" % i * (1 + i % 300) for i in range(20_000)]
        (journal / "q").write_bytes(b"".join(map(write.addx, payloads)))
        program = (
            "import os, sys; from darner.migrate import __main__ as command\n"
            "def progress(write):\n"
            "    return lambda queue, items, size: items >= int(sys.argv[3]) and os.kill(os.getpid(), 9)\n"
            "command._progress = progress; sys.stderr.isatty = lambda: True\n"
            "command.main([sys.argv[1], '--data-dir', sys.argv[2]])\n"
        )
        command = [sys.executable, "-c", program, str(journal.absolute()), str(self.path.absolute())]
        for count in ("5000", "12000"):
            done = subprocess.run([*command, count], cwd=ROOT, env=environment(), capture_output=True, check=False)
            self.assertEqual(done.returncode, -signal.SIGKILL, done.stderr)
        reached = len(self.payloads())
        self.assertGreater(reached, 5000)
        report = self.put(Kestrel(journal))
        self.assertEqual((report.queues[0].before, report.items), (reached, 20_000 - reached))
        self.assertEqual(self.payloads(), payloads)
