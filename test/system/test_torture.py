"""
The torture bench: its books find each promise that is broken, and it finds nothing else with this server.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Optional

import plyvel
from twisted.trial.unittest import SynchronousTestCase

from bench.books import (
    COUNT,
    FLUSHED,
    GARBAGE,
    LOST,
    NEVER_SET,
    ORDER,
    REPLY,
    SERVER,
    TWICE,
    Books,
    ServerGone,
)  # fmt: skip
from bench.ledger import Item, View
from bench.remains import disk_usage, look_at
from bench.torture import Torture, Twistd, main
from darner.store.batch import Batch
from darner.store.leveldb import LevelStore, records
from darner.values.items import Item as StoredItem
from darner.values.items import Mark
from darner.values.vocabulary import CHUNK_BYTES
from test.servers import make_directory

Q = b"q"


class History(SynchronousTestCase):
    """Invents histories, by methods with short names."""

    def setUp(self) -> None:
        self.books = Books()
        self.producer = self.books.new_producer()
        self.payloads: dict[Item, bytes] = {}

    def ask(self, body: bytes = b"x", queue: bytes = Q, half: bool = False, producer: int = 0) -> Item:
        """Set an item, and hear nothing of it."""
        item, payload = self.books.set(queue, producer or self.producer, body, half)
        self.payloads[item] = payload
        return item

    def put(self, body: bytes = b"x", queue: bytes = Q, producer: int = 0) -> Item:
        item = self.ask(body, queue, producer=producer)
        self.books.stored(item)
        return item

    def get(self, item: Optional[Item], view: Optional[View] = None) -> Optional[Item]:
        """Read plainly, and be given this item or nothing."""
        return self.gets(self.payloads[item] if item else None, view)

    def gets(self, payload: Optional[bytes], view: Optional[View] = None) -> Optional[Item]:
        return self.books.answered(self.books.read(Q, True, view), payload)

    def open(self, item: Optional[Item], view: Optional[View] = None) -> Optional[Item]:
        return self.books.answered(self.books.read(Q, False, view), self.payloads[item] if item else None)

    def close(self, item: Item) -> None:
        self.books.closing(item)
        self.books.closed(item)

    def flush(self) -> None:
        self.books.flushed(self.books.flush(Q))

    def kill(self) -> None:
        self.books.end_asking()
        self.books.all_gone()
        self.books.round += 1

    def settle(self) -> None:
        self.books.settle(Q)

    def faults(self, *wanted: tuple[str, Item] | str) -> None:
        """These are the faults, by their kind, and by the item that they are about."""
        kinds = [want if isinstance(want, str) else want[0] for want in wanted]
        self.assertEqual([fault.kind for fault in self.books.faults], kinds, self.books.faults)
        for fault, want in zip(self.books.faults, wanted, strict=True):
            if not isinstance(want, str):
                self.assertIn(str(want[1]), fault.text)


class LossTests(History):
    """Every acknowledged item was read, is there, or has a reason to be gone."""

    def test_all_is_well(self) -> None:
        first, second, third = self.put(), self.put(), self.put()
        self.assertIs(self.get(first), first)
        self.kill()
        self.assertIs(self.open(second), second)
        self.close(second)
        self.get(third)
        self.get(None)
        self.settle()
        self.faults()
        figures = self.books.figures
        self.assertEqual((figures.stored, figures.read, figures.opened, figures.closed), (3, 2, 1, 1))
        self.assertEqual(figures.bytes_stored, sum(map(len, self.payloads.values())))
        self.assertEqual((figures.sets_in_doubt, figures.reads_in_doubt, figures.closes_in_doubt), (0, 0, 0))

    def test_lost(self) -> None:
        item, _ = self.put(), self.ask()
        self.settle()
        self.faults((LOST, item))

    def test_lost_by_a_kill(self) -> None:
        item = self.put()
        self.kill()
        self.settle()
        self.faults((LOST, item))
        self.assertEqual((self.books.faults[0].round, item.round), (1, 0))

    def test_what_was_open_is_lost_with_its_client(self) -> None:
        item = self.put()
        self.open(item)
        self.books.given_back(item)
        self.settle()
        self.faults((LOST, item))

    def test_what_was_open_is_lost_with_the_server(self) -> None:
        item = self.put()
        self.open(item)
        self.kill()
        self.assertEqual(self.books.figures.left_open, 1)
        self.settle()
        self.faults((LOST, item))

    def test_a_close_in_doubt(self) -> None:
        """Either outcome of a close in doubt is right."""
        gone, there = self.put(), self.put()
        for item in (gone, there):
            self.open(item)
            self.books.closing(item)
        self.kill()
        self.get(there)
        self.settle()
        self.faults()
        self.assertEqual((self.books.figures.closes_in_doubt, self.books.figures.gone_in_doubt), (2, 1))

    def test_a_read_in_doubt_takes_one(self) -> None:
        self.put()
        self.books.read(Q, True)
        second = self.put()
        self.kill()
        self.settle()
        self.faults((LOST, second))
        self.assertEqual(self.books.figures.reads_in_doubt, 1)

    def test_a_read_in_doubt_takes_nothing_that_was_set_later(self) -> None:
        self.books.read(Q, True)
        self.kill()
        item = self.put()
        self.settle()
        self.faults((LOST, item))

    def test_an_open_read_in_doubt_takes_nothing(self) -> None:
        item = self.put()
        self.books.read(Q, False)
        self.kill()
        self.settle()
        self.faults((LOST, item))

    def test_flushed(self) -> None:
        self.put()
        self.flush()
        self.settle()
        self.faults()
        self.assertEqual(self.books.figures.flushed, 1)

    def test_a_flush_in_doubt(self) -> None:
        """A flush in doubt may remove items set before it, but none that were set after the next start."""
        _, there = self.put(), self.put()
        self.books.flush(Q)
        self.kill()
        self.get(there)
        later = self.put()
        self.settle()
        self.faults((LOST, later))
        self.assertEqual((self.books.figures.flushes_in_doubt, self.books.figures.flushed), (1, 1))

    def test_set_after_a_flush(self) -> None:
        self.flush()
        item = self.put()
        self.settle()
        self.faults((LOST, item))

    def test_after_the_kill_nothing_can_be_asked(self) -> None:
        item = self.put()
        self.open(item)
        self.books.end_asking()
        for ask in (self.ask, self.flush, lambda: self.get(None), lambda: self.books.closing(item)):
            self.assertRaises(ServerGone, ask)
        self.books.all_gone()
        self.get(item)
        self.settle()
        self.faults()


class ReadTests(History):
    """Items that a read may return."""

    def test_twice(self) -> None:
        item = self.put()
        self.get(item)
        self.kill()
        self.get(item)
        self.faults((TWICE, item))

    def test_after_it_was_closed(self) -> None:
        item = self.put()
        self.open(item)
        self.close(item)
        self.open(item)
        self.faults((TWICE, item))

    def test_while_it_is_open(self) -> None:
        item = self.put()
        self.open(item)
        self.get(item)
        self.faults((TWICE, item))

    def test_after_it_was_given_back(self) -> None:
        item = self.put()
        self.open(item)
        self.books.given_back(item)
        self.get(item)
        self.settle()
        self.faults()
        self.assertEqual(self.books.figures.given_back, 1)

    def test_after_it_was_gone(self) -> None:
        """The queue was empty once without it."""
        item = self.ask()
        self.settle()
        self.get(item)
        self.faults(TWICE)

    def test_never_set(self) -> None:
        others = Books()
        _, payload = others.set(Q, others.new_producer(), b"x")
        self.assertIsNone(self.gets(payload))
        self.faults(NEVER_SET)

    def test_half_sent(self) -> None:
        self.get(self.ask(half=True))
        self.faults(NEVER_SET)

    def test_garbage(self) -> None:
        payload = self.payloads[self.put(b"hello")]
        for wrong in (payload[:-1], payload + b"x", payload[:-1] + b"a", payload[1:], b"", b"\n", payload[-4:]):
            self.assertIsNone(self.gets(wrong))
        self.faults(*[GARBAGE] * 7)

    def test_of_another_queue(self) -> None:
        self.get(self.put(queue=b"other"))
        self.faults(GARBAGE)

    def test_flushed_and_still_there(self) -> None:
        item = self.put()
        self.flush()
        self.get(item)
        self.faults((FLUSHED, item))

    def test_a_flush_that_is_not_over(self) -> None:
        """It may happen before or after requests that are sent meanwhile."""
        first, second = self.put(), self.put()
        flush = self.books.flush(Q)
        self.get(first)
        read = self.books.read(Q, True)
        self.books.flushed(flush)
        self.books.answered(read, self.payloads[second])
        self.faults()

    def test_what_is_open_outlives_a_flush(self) -> None:
        item = self.put()
        self.open(item)
        self.flush()
        self.books.given_back(item)
        self.get(item)
        self.faults()


class OrderTests(History):
    """Items come in the order in which they were set."""

    def setUp(self) -> None:
        super().setUp()
        self.view = View()

    def test_in_order(self) -> None:
        for item in [self.put(), self.ask(), self.put()]:
            self.get(item, self.view)
        self.faults()

    def test_of_one_producer(self) -> None:
        """Also where it was not answered."""
        first, second = self.ask(), self.ask()
        self.get(second, self.view)
        self.get(first, self.view)
        self.faults((ORDER, first))

    def test_of_two_producers(self) -> None:
        first = self.put()
        second = self.put(producer=self.books.new_producer())
        self.get(second, self.view)
        self.get(first, self.view)
        self.faults((ORDER, first))

    def test_of_two_at_the_same_time(self) -> None:
        """Sets at the same time may be stored in either order."""
        first, second = self.ask(), self.ask(producer=self.books.new_producer())
        self.books.stored(first)
        self.books.stored(second)
        self.get(second, self.view)
        self.get(first, self.view)
        self.faults()

    def test_two_consumers(self) -> None:
        """A consumer with a later reply may have been served earlier."""
        first, second = self.put(), self.put()
        self.get(second, self.view)
        self.get(first, View())
        self.faults()

    def test_given_back(self) -> None:
        """It is the next to come: also where it is open when the server dies."""
        view = View(alone=True)
        first, second = self.put(), self.put()
        self.open(first, view)
        self.books.given_back(first)
        self.open(first, view)
        self.kill()
        self.open(first, view)
        self.close(first)
        self.open(second, view)
        self.faults()

    def test_given_back_and_another_comes(self) -> None:
        view = View(alone=True)
        first, second = self.put(), self.put()
        self.open(first, view)
        self.kill()
        self.open(second, view)
        self.faults((ORDER, first))

    def test_given_back_and_nothing_comes(self) -> None:
        view = View(alone=True)
        item = self.put()
        self.open(item, view)
        self.books.given_back(item)
        self.open(None, view)
        self.faults((ORDER, item))

    def test_closed_and_an_earlier_one_comes(self) -> None:
        view = View(alone=True)
        first, second = self.put(), self.put()
        self.open(second, view)
        self.close(second)
        self.open(first, view)
        self.faults((ORDER, first))

    def test_a_close_in_doubt_that_was_none(self) -> None:
        view = View(alone=True)
        item = self.put()
        self.open(item, view)
        self.books.closing(item)
        self.kill()
        self.open(item, view)
        self.faults()


class CountTests(History):
    """The server's counts must be possible."""

    def test_exact(self) -> None:
        self.put()
        self.get(self.put())
        self.ask(half=True)
        self.assertEqual(self.books.bounds(Q), (1, 1))
        self.books.check_counts({Q: 1})
        self.faults()

    def test_too_few_and_too_many(self) -> None:
        self.put()
        self.books.check_counts({})
        self.books.check_counts({Q: 2})
        self.faults(COUNT, COUNT)

    def test_doubts(self) -> None:
        self.put()
        self.ask()
        closing = self.put()
        self.open(closing)
        self.books.closing(closing)
        self.assertEqual(self.books.bounds(Q), (1, 3))
        self.books.read(Q, True)
        self.kill()
        self.assertEqual(self.books.bounds(Q), (0, 3))

    def test_flushes(self) -> None:
        self.put()
        flush = self.books.flush(Q)
        self.assertEqual(self.books.bounds(Q), (0, 1))
        self.books.flushed(flush)
        self.assertEqual(self.books.bounds(Q), (0, 0))
        self.put()
        self.assertEqual(self.books.bounds(Q), (1, 1))

    def test_a_queue_that_nobody_made(self) -> None:
        self.get(None)
        self.books.check_counts({b"q": 0, b"r": 0})
        self.faults(COUNT, COUNT)
        self.assertEqual(self.books.names(), [])


class RemainsTests(SynchronousTestCase):
    """The check of what is left on the disk."""

    def setUp(self) -> None:
        self.data = make_directory(self) / "data"
        self.store = LevelStore(self.data, separate_from=None)
        self.addCleanup(self.store.close)
        batch = Batch()
        batch.create(b"q", 1, 0)
        batch.chunk(1, 0, b"x" * CHUNK_BYTES)
        batch.chunk(1, 1, b"x")
        batch.put(1, [StoredItem(0, 0, 0, 0, CHUNK_BYTES + 1, b"", 1)], CHUNK_BYTES + 1)
        self.store.write(batch)

    def check(self, astray: Sequence[str], room: Sequence[str]) -> None:
        self.store.close()
        remains = look_at(self.data)
        self.assertEqual((remains.astray(), remains.room()), (astray, room))

    def change(self, *writes: tuple[bytes, Optional[bytes]]) -> None:
        self.store.close()
        with plyvel.DB(str(self.data / "leveldb")) as database:
            for key, value in writes:
                if value is None:
                    database.delete(key)
                else:
                    database.put(key, value)

    def test_an_item(self) -> None:
        self.assertGreater(disk_usage(self.data), CHUNK_BYTES)
        self.check([], ["1 runs of items", "2 chunks"])

    def test_a_file_that_is_gone(self) -> None:
        """LevelDB removes what it has merged, also between the look at a directory and that at its files."""
        self.store.close()
        before = disk_usage(self.data)
        (self.data / "leveldb" / "000099.ldb").symlink_to(self.data / "nothing")
        self.assertEqual(disk_usage(self.data), before)

    def test_an_empty_queue(self) -> None:
        batch = Batch()
        batch.mark(1, Mark(1, 1, CHUNK_BYTES + 1, CHUNK_BYTES + 1, 0))
        self.store.write(batch)
        self.store.reclaim(1, 0, 1, 0, 10)
        self.store.reclaim_stream(1, 0, 10)
        self.store.compact()
        self.check([], [])

    def test_what_is_to_be_compacted(self) -> None:
        batch = Batch()
        batch.consume(1, [(0, 1)])
        self.store.write(batch)
        self.store.reclaim(1, 0, 1, 0, 10)
        left = ["1 intervals", "2 chunks", "1 streams to be reclaimed", "1 stretches to be compacted"]
        self.check([], left)

    def test_what_is_to_be_reclaimed(self) -> None:
        batch = Batch()
        batch.consume(1, [(0, 1)])
        batch.remove(b"q", 1)
        batch.chunk(2, 0, b"x")
        self.store.write(batch)
        left = ["1 runs of items", "1 intervals", "3 chunks", "1 streams to be reclaimed", "1 deleted queues"]
        self.check([], left)

    def test_a_stream_that_is_nobodys(self) -> None:
        self.change((records.chunk_key(5, 0), b"x"))
        self.check(["1 chunks of stream 5, which no item holds"], ["1 runs of items", "3 chunks"])

    def test_a_stream_that_is_torn(self) -> None:
        self.change((records.chunk_key(1, 1), None))
        self.check(["1 chunks of stream 1, of 2"], ["1 runs of items", "1 chunks"])

    def test_a_queue_that_is_nobodys(self) -> None:
        self.change((records.name_key(b"q"), None))
        self.check(["records of queue 1, which has no name"], ["1 runs of items", "2 chunks"])


def twistd(*before: str) -> type[Twistd]:
    """@return: this server, with some statements run before it."""

    class Broken(Twistd):
        script = ("-c", "\n".join([*before, "from twisted.scripts.twistd import run", "run()"]))

    return Broken


class TortureTests(SynchronousTestCase):
    """Real servers, killed."""

    def torture(self, *arguments: str, kind: type[Twistd] = Twistd) -> tuple[int, str]:
        """@return: the exit status and the output.  The logs of a run with a fault go when the test is over."""
        if tempfile.tempdir is None:
            self.patch(tempfile, "tempdir", str(make_directory(self)))
        out = io.StringIO()
        with redirect_stdout(out), redirect_stderr(out):
            status = main(arguments, kind)
        return status, out.getvalue()

    def test_this_server(self) -> None:
        output = make_directory(self) / "figures.json"
        status, out = self.torture("--rounds=3", "--seed=4", "--seconds-per-round=1", "--output", str(output))
        self.assertEqual(status, 0, out)
        self.assertEqual(out.count(", 0 faults\n"), 3)
        figures = json.loads(output.read_text())
        self.assertEqual((figures["kills"], figures["seed"], figures["faults"]), (3, 4, []))
        for name in ("stored", "half_sent", "read", "closed", "given_back", "left_open", "queues_emptied"):
            self.assertGreater(figures[name], 0, name)

    def test_one_that_forgets_what_was_read(self) -> None:
        forgetful = twistd("from darner.store.batch import Batch", "Batch.mark = lambda *_: None")
        status, out = self.torture("--rounds=2", "--seed=4", "--seconds-per-round=0.5", kind=forgetful)
        self.assertEqual(status, 1)
        self.assertRegex(out, r"FAULT in round [12]: handed out twice: item [\d.]+ ")
        self.assertIn("\nrepeat it by --seed=4 --rounds=2 --seconds-per-round=0.5\n", out)

    def test_one_that_ends_by_itself(self) -> None:
        """A server that ends by itself is a fault, even if it keeps all promises at the next start."""
        output = make_directory(self) / "figures.json"
        fault = ("from darner.queues.collection import Queues", "Queues.flush = lambda *_: os._exit(3)")
        weak = twistd("import os", *fault)
        status, out = self.torture(
            "--rounds=1", "--seed=4", "--seconds-per-round=60", "--output", str(output), kind=weak
        )  # fmt: skip
        self.assertEqual(status, 1)
        self.assertIn(f": {SERVER}: it ended by itself, with 3\n", out)
        kinds = {fault["kind"] for fault in json.loads(output.read_text())["faults"]}
        self.assertLessEqual(kinds, {SERVER, REPLY})

    def test_one_that_does_not_start(self) -> None:
        status, out = self.torture("--seed=5", kind=twistd("raise SystemExit('no')"))
        self.assertEqual(status, 1)
        self.assertRegex(out, r"FAULT in round 0: server at fault: darner ended with 1: no")

    def test_its_log_is_read(self) -> None:
        """The log of each life is read once."""
        torture = Torture(Twistd(), 1, 1.0)
        server = torture.server
        server.directory = make_directory(self)
        stamp = "2026-01-02T03:04:05+0000"
        refused = f"{stamp} [darner.queues.commit.GroupCommit#error] the store refused a write: no"
        failed = f"{stamp} [-#info] oh\n\tTraceback (most recent call last):\n\tbuiltins.OSError: no"
        for said in (refused, "", failed):
            server.lives += 1
            server.log_path.write_text(f"{stamp} [-#info] well\n{said}\n{stamp} [-#info] well\n")
            torture.read_logs()
        torture.read_logs()
        self.assertEqual(
            [(fault.kind, fault.text) for fault in torture.books.faults],
            [(SERVER, f"log-00001: {refused}"), (SERVER, f"log-00003: {failed}")],
        )

    def test_logs_are_kept(self) -> None:
        """Those of a run with a fault, and nothing else of it; of one without a fault nothing stays."""
        faulty = twistd(
            "from twisted.internet import reactor", "from twisted.python.log import err",
            "reactor.callWhenRunning(err, OSError('on purpose'))",
        )  # fmt: skip
        for kind, kept in ((Twistd, []), (faulty, ["darner.toml", "log-00001"])):
            self.patch(tempfile, "tempdir", str(make_directory(self)))
            status, out = self.torture("--rounds=0", "--seed=7", kind=kind)
            self.assertEqual(status, bool(kept), out)
            paths = sorted(Path(tempfile.gettempdir()).glob("bench-*/*"))
            self.assertEqual([path.name for path in paths], kept)
            for path in paths[1:]:
                self.assertIn("on purpose", path.read_text())
                self.assertIn(f"the logs of the server's 1 lives: {path} to ", out)

    def test_a_directory_that_is_there(self) -> None:
        status, out = self.torture("--data-dir", str(Path(sys.prefix)))
        self.assertEqual((status, out), (2, f"{sys.prefix} is there already\n"))
