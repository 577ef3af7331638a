"""
The wall clock is set: by seconds, by years, to before 1970, to before the times that are in the store.

Waits and everything that the server does by itself go by the monotonic clock, and notice nothing.  What has to outlive
the process goes by the wall clock: expiry, ages, the time of day.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import Factory, define
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from darner.front import memcache
from darner.store.leveldb import LevelStore
from darner.store.memory import MemoryStore
from darner.values.vocabulary import CHUNK_BYTES
from test.harness import EPOCH, Asker, Server, value
from test.servers import FOREGROUND, TWISTD, make_directory
from test.servers import Server as RealServer

HOUR = 3600
YEAR = 365 * 86_400

JUMPS = (1, -1, HOUR, -HOUR, 10 * YEAR, -10 * YEAR, -EPOCH - 1, -EPOCH - YEAR, 200 * YEAR)


def figures(text: bytes) -> Iterator[tuple[bytes, int]]:
    """@return: every figure of a reply to `stats` or `dump_stats`."""
    for name, figure in re.findall(rb"^(?:STAT |  )(\S+?)[ =](-?\d+)\r$", text, re.MULTILINE):
        yield name, int(figure)


class JumpTestCase(SynchronousTestCase):
    """A server whose wall clock is set while it serves."""

    def setUp(self) -> None:
        self.server = Server(self.store())
        self.client = self.server.client()

    def store(self) -> Any:
        return MemoryStore()

    def set_clock(self, seconds: float) -> None:
        self.server.set_by += seconds

    def figure(self, name: bytes) -> int:
        return dict(figures(self.client.does(b"stats")))[name]

    def restart(self) -> None:
        self.client.leave()
        self.server.restart()
        self.client = self.server.client()


class ExpiryTests(JumpTestCase):
    """An item expires by the wall clock, when the queue is looked at."""

    def test_relative(self) -> None:
        """A relative expiry becomes absolute at the set, so that setting the clock changes the remaining time."""
        for payload in (b"a", b"b"):
            self.client.sets(b"q", payload, expiry=60)
        self.set_clock(-HOUR)
        self.server.clock.advance(120)
        self.assertEqual(self.client.does(b"get q"), value(b"q", b"a"))
        self.set_clock(HOUR)
        self.assertEqual(self.client.does(b"get q"), memcache.END)

    def test_a_jump_that_is_taken_back_harms_only_what_was_looked_at(self) -> None:
        for name in (b"q", b"r"):
            self.client.sets(name, b"x", expiry=60)
        self.set_clock(HOUR)
        self.assertEqual(self.client.does(b"get q"), memcache.END)
        self.assertEqual(self.figure(b"queue_r_items"), 1)
        self.set_clock(-HOUR)
        self.assertEqual(self.client.does(b"get q r"), value(b"r", b"x"))

    def test_without_expiry(self) -> None:
        for jump in JUMPS:
            self.assertEqual(self.client.sets(b"q", b"x"), memcache.STORED)
            self.set_clock(jump)
            self.assertEqual(self.client.does(b"get q"), value(b"q", b"x"), jump)

    def test_expired_at_once(self) -> None:
        """Also if the clock is before 1970."""
        for jump in (0, *JUMPS):
            self.set_clock(jump)
            self.client.sets(b"q", b"x", expiry=-1)
            self.assertEqual(self.client.does(b"get q"), memcache.END, jump)

    def test_absolute(self) -> None:
        self.client.sets(b"q", b"x", expiry=EPOCH + HOUR)
        self.client.sets(b"q", b"y", expiry=EPOCH + 2 * HOUR)
        self.set_clock(-EPOCH - YEAR)
        self.assertEqual(self.client.does(b"get q/peek"), value(b"q", b"x"))
        self.set_clock(EPOCH + YEAR + HOUR)
        self.assertEqual(self.client.does(b"get q/peek"), value(b"q", b"y"))

    def test_an_open_item_is_judged_when_it_has_come_back(self) -> None:
        self.client.sets(b"q", b"x", expiry=60)
        self.client.does(b"get q/open")
        self.set_clock(HOUR)
        self.client.does(b"get q/abort")
        self.set_clock(-HOUR)
        self.assertEqual(self.client.does(b"get q/peek"), value(b"q", b"x"))
        self.set_clock(HOUR)
        self.assertEqual(self.client.does(b"get q"), memcache.END)

    def test_a_waiter_is_not_served_what_has_expired(self) -> None:
        waiting = self.server.client()
        waiting.ask(b"get q/t=1000")
        self.client.sets(b"q", b"x", expiry=-1)
        self.assertEqual(waiting.hears(), b"")
        self.set_clock(-EPOCH - YEAR)
        self.client.sets(b"q", b"y", expiry=1)
        self.assertEqual(waiting.hears(), value(b"q", b"y"))


class FiguresTests(JumpTestCase):
    """No figure is ever negative."""

    def test_age(self) -> None:
        """The age by the wall clock; 0 if that was set to a time before the item."""
        for payload in (b"a", b"b"):
            self.client.sets(b"q", payload)
        self.client.sets(b"q", b"c")
        self.set_clock(HOUR)
        self.client.does(b"get q/open")
        self.assertEqual(self.figure(b"queue_q_age_msec"), HOUR * 1000)
        for jump in (-2 * HOUR, -EPOCH):
            self.set_clock(jump)
            self.client.does(b"get q/close/open")
            self.assertEqual(self.figure(b"queue_q_age_msec"), 0)

    def test_uptime(self) -> None:
        """By the monotonic clock."""
        self.server.clock.advance(5)
        for jump in JUMPS:
            self.set_clock(jump)
            self.assertEqual(self.figure(b"uptime"), 5)

    def test_time(self) -> None:
        """The time of the wall clock, but never before 1970."""
        for jump in (HOUR, -2 * HOUR):
            self.set_clock(jump)
            self.assertEqual(self.figure(b"time"), EPOCH + self.server.set_by)
        self.set_clock(-EPOCH - YEAR)
        self.assertEqual(self.figure(b"time"), 0)


class WaitTests(JumpTestCase):
    """Waits have the right length, whatever the wall clock does."""

    def test_jumps(self) -> None:
        for jump in JUMPS:
            self.client.ask(b"get q/t=1000")
            self.set_clock(jump)
            self.server.clock.advance(0.99)
            self.assertEqual(self.client.hears(), b"")
            self.server.clock.advance(0.01)
            self.server.commit()
            self.assertEqual(self.client.hears(), memcache.END)


class ReclaimTests(JumpTestCase):
    """Space is reclaimed as soon as usual."""

    def test_jumps(self) -> None:
        for jump in JUMPS:
            self.client.sets(b"q", b"x" * (2 * CHUNK_BYTES))
            self.client.does(b"get q")
            self.assertTrue(self.server.queues.reclaimer.pending)
            self.set_clock(jump)
            for _ in range(4):
                self.server.clock.advance(0.5)
            self.assertFalse(self.server.queues.reclaimer.pending)
            self.assertEqual(self.server.store.leftovers(), ([], []))
            self.assertEqual(self.server.store.store.chunks, {})


class StoredTests(JumpTestCase):
    """The times on disk may be in the past or the future of the clock."""

    def store(self) -> LevelStore:
        return LevelStore(Path(self.mktemp()))

    def tearDown(self) -> None:
        self.server.store.close()

    def test_any_time_can_be_written_and_read(self) -> None:
        for jump in JUMPS:
            name = b"q%d" % jump
            self.set_clock(jump)
            self.assertEqual(self.client.sets(name, b"x", expiry=60), memcache.STORED)
            self.assertEqual(self.client.sets(name, b"x" * (CHUNK_BYTES + 1)), memcache.STORED)
            self.restart()
            self.assertEqual(self.client.does(b"get %b" % name), value(name, b"x"))
            self.assertTrue(self.client.does(b"get %b" % name).startswith(b"VALUE"))

    def test_times_of_the_future(self) -> None:
        """Items and queues that were made when the clock was wrong are served as others."""
        self.set_clock(10 * YEAR)
        made = (EPOCH + 10 * YEAR) * 1000
        self.client.sets(b"q", b"a", expiry=60)
        self.client.sets(b"q", b"b")
        self.set_clock(-10 * YEAR)
        self.client.sets(b"q", b"c")
        self.restart()
        self.assertEqual(self.figure(b"queue_q_create_time"), made)
        self.assertEqual(self.client.does(b"get q/open"), value(b"q", b"a"))
        self.assertEqual(self.figure(b"queue_q_age_msec"), 0)
        self.client.does(b"get q/abort")
        self.set_clock(10 * YEAR + 60)
        self.assertEqual(self.client.does(b"get q"), value(b"q", b"b"))
        self.assertEqual(self.client.does(b"get q"), value(b"q", b"c"))


# A real server ---------------------------------------------------------------------------------------------------

_SETTABLE = """
import time
from pathlib import Path
real, by = time.time, Path("set_by")
time.time = lambda: real() + float(by.read_text())
from twisted.scripts.twistd import run
run()
"""
"""twistd with a wall clock that somebody else sets: all of Python, Twisted's reactor included, has it from here."""


class RealServerTests(SynchronousTestCase):
    """A server in a process of its own, over both kinds of transports."""

    def setUp(self) -> None:
        self.directory = make_directory(self)
        self.set_clock(0)
        self.server = RealServer(
            self, f"--data-dir={self.directory / 'data'}", "--port=0", "--listen=tcp:0:interface=127.0.0.1",
            program=(sys.executable, "-c", _SETTABLE, *FOREGROUND[len(TWISTD) :]), directory=self.directory,
        )  # fmt: skip

    def set_clock(self, seconds: float) -> None:
        """Have the server's wall clock differ from the machine's by so many seconds."""
        (self.directory / "set").write_text(str(seconds))
        os.replace(self.directory / "set", self.directory / "set_by")

    def test_waits(self) -> None:
        """They end when they should, and are served before, on whatever side of a jump."""
        for address in self.server.addresses:
            with self.server.client(address) as client, self.server.client(address) as other:
                for jump in (-HOUR, 10 * YEAR, -time.time() - YEAR, 0):
                    began = time.monotonic()
                    client.send(b"get q/t=150\r\n")
                    self.set_clock(jump)
                    self.assertEqual(client.line(), b"END")
                    # That it ends before the client has had enough tells it from a wait of an hour.
                    self.assertLess(0.14, time.monotonic() - began, jump)
                    client.send(b"get q/t=60000\r\n")
                    self.assertEqual(other.set(b"q", b"%d" % jump), b"STORED")
                    self.assertEqual(client.value(), (0, b"%d" % jump))
        self.assertNotIn("Traceback", self.server.text)

    def test_items_and_figures(self) -> None:
        with self.server.client() as client:
            client.send(b"set q 0 60 1\r\na\r\nset q 0 60 1\r\nb\r\nset q 0 0 1\r\nc\r\n")
            self.assertEqual([client.line() for _ in range(3)], [b"STORED"] * 3)
            self.set_clock(-HOUR)
            self.assertEqual(client.get(b"q"), b"a")
            self.assertEqual(client.stats()[b"queue_q_age_msec"], b"0")
            self.set_clock(HOUR)
            self.assertEqual(client.get(b"q/peek"), b"c")
            self.set_clock(-time.time() - YEAR)
            stats = client.stats()
            self.assertEqual((stats[b"time"], stats[b"queue_q_items"]), (b"0", b"1"))
            self.assertIn(int(stats[b"uptime"]), range(HOUR))
            self.assertEqual(client.set(b"r", b"d"), b"STORED")
        # It stops by the monotonic clock too, and goes on where its times lie in the future.
        self.assertEqual(self.server.stop(), 0)
        self.server.start()
        with self.server.client() as client:
            self.assertEqual((client.get(b"q"), client.get(b"r")), (b"c", b"d"))
        self.assertEqual(self.server.stop(), 0)


# Anything at any time --------------------------------------------------------------------------------------------

NAMES = (b"a", b"b")


@define(eq=False)
class Expected:
    """A queue as it should be: payload and expiry (in ms) of its items, by their order."""

    items: dict[int, tuple[bytes, int]] = Factory(dict)


class _Run:
    """A server, and what should be in its queues, side by side."""

    def __init__(self, case: SynchronousTestCase, store: Any) -> None:
        self.case = case
        self.server = Server(store)
        self.client = self.server.client()
        self.queues = {name: Expected() for name in NAMES}
        self.opens: dict[bytes, int] = {}
        self.opened: dict[int, tuple[bytes, int]] = {}
        self.orders = 0

    @property
    def now(self) -> int:
        return max(1, int((EPOCH + self.server.set_by + self.server.clock.seconds()) * 1000))

    def jump(self, name: bytes, jump: int) -> None:
        self.server.set_by += jump

    def put(self, name: bytes, expiry: int) -> None:
        payload = b"%d" % self.orders
        due = expiry and (self.now + expiry * 1000 if expiry < 1_000_000 else expiry * 1000)
        self.queues[name].items[self.orders] = (payload, due)
        self.orders += 1
        self.case.assertEqual(self.client.sets(name, payload, expiry=expiry), memcache.STORED)

    def head(self, name: bytes) -> int | None:
        items = self.queues[name].items
        for order in sorted(items):
            if not items[order][1] or items[order][1] > self.now:
                return order
            del items[order]
        return None

    def read(self, name: bytes, options: bytes) -> None:
        if options != b"/peek":
            self.opens.pop(name, None)
        order = self.head(name)
        expected = memcache.END
        if order is not None:
            item = self.queues[name].items[order]
            expected = value(name, item[0])
            if options != b"/peek":
                del self.queues[name].items[order]
                if options == b"/close/open":
                    self.opens[name] = order
                    self.opened[order] = item
        # A plain read would be refused where one is open.
        heard = self.client.does(b"get %b%b" % (name, options or b"/close/open"))
        if not options:
            self.client.does(b"get %b/close" % name)
        self.case.assertEqual(heard, expected)

    def abort(self, name: bytes, _: object) -> None:
        order = self.opens.pop(name, None)
        if order is not None:
            self.queues[name].items[order] = self.opened[order]
        self.case.assertEqual(self.client.does(b"get %b/abort" % name), memcache.END)

    def wait(self, name: bytes, _: object) -> None:
        """A wait ends when it should, whatever the clock did before."""
        waiting = self.server.client()
        waiting.ask(b"get nothing/t=1000")
        self.server.clock.advance(0.999)
        self.case.assertEqual(waiting.hears(), b"")
        self.server.clock.advance(0.001)
        self.server.commit()
        self.case.assertEqual(waiting.hears(), memcache.END)
        waiting.leave()
        # The server has looked at the queues meanwhile, or is just about to.
        Asker(self.server.queues).flush_expired()
        self.server.commit()
        for queue in self.queues:
            self.head(queue)

    def restart(self, name: bytes, _: object) -> None:
        for name in list(self.opens):
            self.abort(name, None)
        self.client.leave()
        self.server.restart()
        self.client = self.server.client()

    def check(self) -> None:
        told = dict(figures(self.client.does(b"stats")))
        self.case.assertEqual([name for name, figure in told.items() if figure < 0], [])
        for name, queue in self.queues.items():
            self.case.assertEqual(told.get(b"queue_%b_items" % name, 0), len(queue.items))


OPERATIONS = st.one_of(
    st.tuples(st.just("jump"), st.sampled_from(NAMES), st.sampled_from(JUMPS) | st.integers(-YEAR, YEAR)),
    st.tuples(st.just("put"), st.sampled_from(NAMES), st.sampled_from((0, 0, 1, HOUR, 999_999, EPOCH, EPOCH + YEAR))),
    st.tuples(st.just("read"), st.sampled_from(NAMES), st.sampled_from((b"", b"/peek", b"/close/open"))),
    st.tuples(st.sampled_from(("abort", "wait", "restart")), st.sampled_from(NAMES), st.none()),
)


class AnyJumpTests(SynchronousTestCase):
    """Whatever the clock does between what a client does: order is kept, and nothing is lost that has not expired."""

    def hold(self, operations: list[tuple[str, bytes, Any]], store: Any) -> None:
        run = _Run(self, store)
        for operation, name, argument in operations:
            getattr(run, operation)(name, argument)
            run.check()
        self.assertEqual(self.flushLoggedErrors(), [])

    @given(st.lists(OPERATIONS, max_size=40))
    @settings(deadline=None, max_examples=150)
    def test_in_memory(self, operations: list[tuple[str, bytes, Any]]) -> None:
        self.hold(operations, MemoryStore())

    @given(st.lists(OPERATIONS, min_size=5, max_size=40))
    @settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
    def test_on_disk(self, operations: list[tuple[str, bytes, Any]]) -> None:
        directory = tempfile.mkdtemp(prefix="darner-")
        store = LevelStore(Path(directory))
        try:
            self.hold(operations, store)
        finally:
            store.close()
            shutil.rmtree(directory)
