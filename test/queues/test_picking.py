"""Looking at single items and acting on them, over every store: `darner.queues.browsing`, `darner.queues.picking`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

from twisted.trial.unittest import SynchronousTestCase

from darner.config.policies import Policies, QueueSettings
from darner.errors import ClientError, DiskAlmostFull, StoreError
from darner.front.calls import consume
from darner.queues import browsing
from darner.queues.browsing import DELAYED, OPEN, READY, RETRYING, look_at_delayed, look_at_ready
from darner.queues.head import LOOKED_AT
from darner.queues.picking import Key
from darner.store.leveldb import LevelStore
from darner.store.memory import MemoryStore
from darner.values.vocabulary import CHUNK_BYTES
from test.harness import EPOCH, Server, from_source, value

LARGE = bytes(range(256)) * 300
assert len(LARGE) > CHUNK_BYTES
END = b"END\r\n"


class Base(SynchronousTestCase):
    settings: dict[str, Any] = {}
    durable_only: tuple[str, ...] = ()
    """Tests that say nothing of queues in memory."""

    def run(self, result: Any) -> Any:
        return None if self._testMethodName[5:] in self.durable_only else super().run(result)

    def setUp(self) -> None:
        self.server = Server(self.make_store(), **self.settings)
        self.client = self.server.client()

    def make_store(self) -> Any:
        return MemoryStore()

    def restart(self) -> None:
        self.server.stop()
        self.server.start()
        self.client = self.server.client()

    def put(self, *payloads: bytes, queue: bytes = b"q") -> None:
        for payload in payloads:
            self.client.set(queue, payload)
        self.server.commit()

    def get(self, line: bytes = b"get q") -> bytes:
        self.client.hears()
        return self.client.does(line)

    @property
    def fifo(self) -> Any:
        return self.server.queues.find(b"q")

    def ready(self, start: int = 0) -> list[int]:
        """@return: the ids of all that is to be had."""
        ids: list[int] = []
        while start >= 0:
            seen, start = look_at_ready(self.fifo, start)
            ids += [found.item.id for found in seen]
        return ids

    def delayed(self) -> list[Key]:
        self.server.queues.commit.written()
        self.server.commit()
        found: list[Key] = []
        due = id = 0
        while some := look_at_delayed(self.fifo, due, id):
            found += [(when, item.id) for when, item in some]
            due, id = found[-1][0], found[-1][1] + 1
        return found

    def ids(self, state: str) -> list[int]:
        return sorted(browsing.ids_of(self.fifo, state))

    def pick(self, verb: str, state: str, keys: Any, target: Optional[bytes] = None, queue: bytes = b"q") -> int:
        """@return: how many items something was done to."""
        picks = self.server.queues.picks
        keys = [key if isinstance(key, tuple) else (0, key) for key in keys]
        counts = []

        def work(answers: Any, done: bytes) -> None:
            operation = getattr(picks, verb)
            counts.append(operation(answers, done, queue, state, keys, *([] if target is None else [target])))

        done = consume(self.server.queues, work)
        self.server.commit()
        self.successResultOf(done)
        return counts[0]

    def figures(self) -> tuple[int, int]:
        return self.server.figures(b"q")

    def get_all(self, line: bytes = b"get q") -> list[bytes]:
        got = []
        while (reply := self.get(line)) != END:
            self.assertTrue(reply.startswith(b"VALUE"), reply[:100])
            got.append(reply.split(b"\r\n", 1)[1].removesuffix(b"\r\nEND\r\n"))
        return got


class ReadyTests(Base):
    """Items that are to be had."""

    def test_none(self) -> None:
        self.assertEqual(look_at_ready(self.server.queues.make(b"q"), 0), ([], -1))
        self.assertIsNone(browsing.find(self.fifo, 0))
        for verb in ("drop", "give_back"):
            self.assertEqual(self.pick(verb, READY, [0], queue=b"none"), 0)
        self.assertEqual(self.pick("move", READY, [0], b"t", queue=b"none"), 0)

    def test_look(self) -> None:
        """Wherever they are: not written yet, in the window, or in the store alone; nothing changes by that."""
        self.client.set(b"q", b"0")
        self.client.set(b"q", b"1")
        self.assertEqual(self.ready(), [0, 1])
        self.assertEqual(self.ready(1), [1])
        self.server.commit()
        self.assertEqual(self.ready(), [0, 1])
        self.restart()
        self.assertEqual(self.ready(), [0, 1])
        self.assertEqual(self.fifo.storage.contents.head.held, 0, "nothing is read into the window")
        self.client.set(b"q", b"2")
        self.assertEqual(self.ready(), [0, 1, 2])
        self.server.commit()
        self.assertEqual(self.get_all(), [b"0", b"1", b"2"])
        self.assertEqual(self.ready(), [])

    def test_what_is_gone_is_not_seen(self) -> None:
        self.put(*[b"%d" % number for number in range(6)])
        self.get()
        self.assertIn(b"1", self.get(b"get q/open"))
        self.assertEqual(self.ready(), [2, 3, 4, 5])
        self.assertEqual((self.ids(OPEN), browsing.count_of(self.fifo, OPEN)), ([1], 1))
        self.assertEqual(self.pick("drop", READY, [3, 99, 0, 3]), 1)
        self.assertEqual(self.ready(3), [4, 5])
        self.get(b"get q/abort")
        self.assertEqual(self.ready(), [1, 2, 4, 5])
        self.assertEqual(browsing.count_of(self.fifo, READY), 4)
        self.assertIsNone(browsing.find(self.fifo, 3))
        self.assertEqual(browsing.find(self.fifo, 4).item.payload, b"4")

    def test_missing(self) -> None:
        """An item that a damaged store has lost is no item."""
        self.put(b"0", b"1")
        self.restart()
        self.server.store.read = lambda *_: []
        self.assertIsNone(browsing.find(self.fifo, 0))
        self.assertEqual(look_at_ready(self.fifo, 0), ([], -1))

    def test_many(self) -> None:
        """A bounded number at a time."""
        self.put(*[b"%d" % number + bytes(1000) for number in range(300)])
        seen, following = look_at_ready(self.fifo, 0)
        self.assertTrue(0 < len(seen) < 300 or isinstance(self, VolatileReadyTests))
        self.assertTrue(following > 0)
        self.assertEqual(self.ready(), list(range(300)))

    def test_drop(self) -> None:
        """From anywhere; the others keep their order, also after a restart."""
        self.put(*[b"%d" % number for number in range(8)])
        self.assertEqual(self.pick("drop", READY, [0, 3]), 2)
        self.assertEqual(self.figures(), (6, 6))
        self.get(b"get q/open")
        self.get(b"get q/abort")
        self.assertEqual(self.pick("drop", READY, [1, 7]), 2)
        self.restart()
        self.assertEqual(self.figures(), (4, 4))
        self.assertEqual(self.pick("drop", READY, [4]), 1)
        self.assertEqual(self.figures(), (3, 3))
        self.assertEqual(self.get_all(), [b"2", b"5", b"6"])
        self.assertEqual(self.figures(), (0, 0))

    def test_drop_what_is_not_written(self) -> None:
        self.client.set(b"q", b"0")
        self.client.set(b"q", b"1")
        self.assertEqual(self.pick("drop", READY, [0]), 1)
        self.assertEqual(self.get_all(), [b"1"])

    def test_drop_refused(self) -> None:
        """Where the store takes nothing, whoever asked is told; it is done when that is over."""
        self.put(b"0", b"1")
        self.server.store.broken = 2
        done = consume(
            self.server.queues,
            lambda answers, done: self.server.queues.picks.drop(answers, done, b"q", READY, [(0, 0)]),
        )
        self.server.commit()
        self.failureResultOf(done, StoreError)
        self.server.clock.advance(1)
        self.server.commit()
        self.restart()
        self.assertEqual(self.get_all(), [b"1"])

    def test_puts_refused_meanwhile(self) -> None:
        """What is dropped in the turn that puts it is not counted twice."""
        self.put(b"0")
        self.server.store.full = True
        self.client.set(b"q", b"1")
        self.client.set(b"q", b"2")
        self.pick("drop", READY, [1])
        self.server.store.full = False
        self.assertEqual(self.figures(), (1, 1))
        self.server.clock.advance(1)
        self.assertEqual(self.get_all(), [b"0"])

    def test_move(self) -> None:
        self.put(b"0", b"1", b"2", LARGE, b"4")
        self.assertEqual(self.pick("move", READY, [1, 3, 9], b"t"), 2)
        self.assertEqual(self.server.figures(b"t"), (2, 1 + len(LARGE)))
        self.restart()
        self.assertEqual(self.pick("move", READY, [2], b"t"), 1)
        self.assertEqual(self.get_all(), [b"0", b"4"])
        self.assertEqual(self.get_all(b"get t"), [b"1", LARGE, b"2"])

    def test_move_refused(self) -> None:
        """They stay where they were, and in their order, also those beyond the window."""
        self.put(*[b"%d" % number for number in range(4)])
        self.restart()
        self.server.store.full = True
        done = consume(
            self.server.queues,
            lambda answers, done: self.server.queues.picks.move(answers, done, b"q", READY, [(0, 1), (0, 2)], b"t"),
        )
        self.server.commit()
        self.failureResultOf(done, StoreError)
        self.server.store.full = False
        self.server.clock.advance(1)
        self.server.commit()
        self.assertEqual(self.figures(), (4, 4))
        self.assertEqual(self.get_all(), [b"0", b"1", b"2", b"3"])
        self.assertEqual(self.server.figures(b"t"), (0, 0))

    def test_move_to_an_alias(self) -> None:
        self.server.queues.apply(Policies(aliases={b"all": (b"t",)}))
        self.server.commit()
        self.put(b"0")
        picks = self.server.queues.picks
        with self.assertRaises(ClientError):
            consume(self.server.queues, lambda answers, done: picks.move(answers, done, b"q", READY, [(0, 0)], b"all"))

    @from_source
    def test_no_room(self) -> None:
        """Where only some can be moved, these are."""
        self.put(b"0", b"1", b"2")
        picks, taken = self.server.queues.picks, []
        space = picks._space

        def take(size: int) -> None:
            taken.append(size)
            if len(taken) != 2:
                raise DiskAlmostFull(0, 1)

        picks._space = _Space(take)  # type: ignore[assignment]
        with self.assertRaises(DiskAlmostFull):
            picks.move(None, b"", b"q", READY, [(0, 0)], b"t")  # type: ignore[arg-type]
        self.assertEqual(self.figures(), (3, 3))
        self.assertEqual(self.pick("move", READY, [0, 1], b"t"), 1)
        picks._space = space
        self.assertEqual(self.get_all(), [b"1", b"2"])

    def test_give_back(self) -> None:
        """There is nothing to be given back."""
        self.put(b"0")
        self.assertEqual(self.pick("give_back", READY, [0]), 0)


class _Space:
    def __init__(self, take: Any) -> None:
        self.take = take


class MoveFailsTests(Base):
    """An item that cannot be read when it is to be moved stays available."""

    @from_source
    def test_unreadable(self) -> None:
        self.put(b"0", b"1")
        moved = []

        def move(fifo: Any, item: Any, name: bytes) -> None:
            moved.append(item.id)
            raise StoreError("unreadable")

        queues = self.server.queues
        real, queues.move = queues.move, move  # type: ignore[method-assign,assignment]
        with self.assertRaises(StoreError):
            queues.picks.move(None, b"", b"q", READY, [(0, 0)], b"t")  # type: ignore[arg-type]
        queues.move = real  # type: ignore[method-assign]
        self.assertEqual(moved, [0])
        self.assertEqual(self.get_all(), [b"0", b"1"])


class LevelReadyTests(ReadyTests):
    def make_store(self) -> Any:
        store = LevelStore(Path(self.mktemp()))
        self.addCleanup(store.close)
        return store


class VolatileReadyTests(ReadyTests):
    """Queues in memory, without what is about a restart."""

    settings = {"durable": False}

    def restart(self) -> None:
        pass

    durable_only = ("look", "missing", "drop_refused", "move_refused", "no_room", "puts_refused_meanwhile")

    def test_look_at_returned(self) -> None:
        """Also those that were given back, and between others."""
        self.put(*[b"%d" % number for number in range(LOOKED_AT + 50)])
        for _ in range(3):
            self.get(b"get q/open")
            self.get(b"get q/abort")
        self.get(b"get q/open")
        self.assertEqual(self.ready(), list(range(1, LOOKED_AT + 50)))
        self.assertEqual(browsing.find(self.fifo, 0).state, OPEN)
        self.get(b"get q/abort")
        self.assertEqual(self.ready(), list(range(LOOKED_AT + 50)))
        self.assertEqual(browsing.find(self.fifo, 0).item.payload, b"0")
        self.assertEqual(browsing.find(self.fifo, 100).item.payload, b"100")
        self.assertIsNone(self.fifo.storage.contents.head.find(10**9))
        self.assertEqual(self.pick("drop", READY, [0, 100]), 2)
        self.assertEqual(self.ready(90)[:12], [*range(90, 100), 101, 102])

    def test_returned_among_many(self) -> None:
        """One that was given back is seen although the queue has others of its kind with it."""
        self.put(b"0", b"1")
        other = self.server.client()
        self.get(b"get q/open")
        other.does(b"get q/open")
        self.get(b"get q/abort")
        other.does(b"get q/abort")
        self.assertEqual(browsing.find(self.fifo, 1).item.payload, b"1")
        self.assertEqual(self.pick("drop", READY, [1]), 1)
        self.assertEqual(self.get_all(), [b"0"])


class OpenTests(Base):
    """Items that somebody has open."""

    settings = {"max_open_reads": 3}

    def setUp(self) -> None:
        super().setUp()
        self.put(b"0", b"1", b"2", b"3")
        for _ in range(3):
            self.get(b"get q/open")

    def test_look(self) -> None:
        self.assertEqual(self.ids(OPEN), [0, 1, 2])
        seen = browsing.find(self.fifo, 1)
        self.assertEqual((seen.state, seen.item.payload, seen.attempts), (OPEN, b"1", 0))
        (read, *_) = self.client.session.reads.opens.still_open(b"q")
        self.assertEqual((read.opened, read.item.id), (EPOCH * 1000, 0))
        self.assertEqual(self.client.session.reads.opens.still_open(b"other"), [])
        self.assertEqual(len(self.client.session.reads.opens.still_open()), 3)

    def test_withdrawn(self) -> None:
        """Its reader closes it in vain, and none of the others by mistake."""
        self.assertEqual(self.pick("drop", OPEN, [0, 3]), 1)
        self.assertEqual(self.pick("give_back", OPEN, [1, 0]), 1)
        self.assertEqual(self.ids(OPEN), [2])
        self.assertEqual(self.figures(), (2, 2))
        self.assertEqual(self.server.queues.queue_figures(b"q")["canceled_transactions"], 1)
        for _ in range(2):
            self.get(b"get q/close")
            self.assertEqual(self.ids(OPEN), [2], "the close was of another")
        self.get(b"get q/close")
        self.assertEqual(self.ids(OPEN), [])
        self.assertEqual(self.get_all(), [b"1", b"3"])

    def test_given_back_to_who_waits(self) -> None:
        other = self.server.client()
        other.does(b"get q")
        other.ask(b"get q/t=1000")
        self.assertEqual(self.pick("give_back", OPEN, [2]), 1)
        self.assertEqual(other.hears(), value(b"q", b"2"))

    def test_move(self) -> None:
        self.assertEqual(self.pick("move", OPEN, [1], b"t"), 1)
        self.assertEqual(self.get_all(b"get t"), [b"1"])
        self.client.session.leave()
        self.client = self.server.client()
        self.restart()
        self.assertEqual(self.get_all(), [b"0", b"2", b"3"])

    def test_delete(self) -> None:
        """A queue that is made anew knows nothing of what was withdrawn."""
        self.pick("give_back", OPEN, [0])
        self.get(b"delete q")
        self.put(b"x")
        self.assertEqual(self.fifo.storage.contents.withdrawn or set(), set())


class RetryingTests(Base):
    """Items that were given back, and wait for their next attempt."""

    settings = {"retry_delay": 10.0, "max_attempts": 3, "dead_letter_queue": "dead"}

    def setUp(self) -> None:
        super().setUp()
        self.put(b"0", b"1", b"2", b"3")
        for _ in range(3):
            self.get(b"get q/open")
            self.get(b"get q/abort")

    def test_look(self) -> None:
        self.assertEqual((self.ids(RETRYING), self.ready()), ([0, 1, 2], [3]))
        seen = browsing.find(self.fifo, 1)
        self.assertEqual((seen.state, seen.due, seen.attempts), (RETRYING, 10.0, 1))
        self.assertEqual(browsing.count_of(self.fifo, RETRYING), 3)
        self.assertEqual(browsing.count_of(self.fifo, READY), 1)

    def test_drop(self) -> None:
        self.assertEqual(self.pick("drop", RETRYING, [1, 3]), 1)
        self.assertEqual(self.figures(), (3, 3))
        self.assertEqual(self.get_all(), [b"3"])
        self.server.clock.advance(10)
        self.assertEqual(self.get_all(), [b"0", b"2"])
        self.assertEqual(self.figures(), (0, 0))

    def test_give_back(self) -> None:
        """It is to be had at once, and in its place; the time of the others stays."""
        self.assertEqual(self.pick("give_back", RETRYING, [0]), 1)
        self.assertEqual(self.get_all(), [b"0", b"3"])
        self.server.clock.advance(10)
        self.assertEqual(self.get_all(), [b"1", b"2"])

    def test_again(self) -> None:
        """An item that is set aside anew has its new time, and not what is left of the old one."""
        self.pick("give_back", RETRYING, [0])
        self.server.clock.advance(5)
        self.get(b"get q/open")
        self.get(b"get q/abort")
        self.server.clock.advance(5)
        self.assertEqual(self.get_all(), [b"1", b"2", b"3"])
        self.server.clock.advance(5)
        self.assertEqual(self.get_all(), [b"0"])

    def test_move(self) -> None:
        self.assertEqual(self.pick("move", RETRYING, [2], b"t"), 1)
        self.assertEqual(self.get_all(b"get t"), [b"2"])
        self.restart()
        self.assertEqual(self.get_all(), [b"0", b"1", b"3"])

    def test_open(self) -> None:
        """A read that is withdrawn does not time out."""
        self.server.queues.apply(Policies(QueueSettings(open_timeout=5.0)))
        self.server.commit()
        self.get(b"get q/open")
        self.assertEqual(self.pick("drop", OPEN, [3]), 1)
        self.server.clock.advance(20)
        self.assertEqual(self.get_all(), [b"0", b"1", b"2"])

    def test_flush(self) -> None:
        self.get(b"flush q")
        self.assertEqual(self.ids(RETRYING), [])
        self.server.clock.advance(20)
        self.assertEqual(self.figures(), (0, 0))


class DelayedTests(Base):
    """Items that are not due yet."""

    def setUp(self) -> None:
        super().setUp()
        self.delay(b"0", 30)
        self.delay(b"1", 10)
        self.delay(b"2", 20)
        self.delay(b"3", 20)
        self.server.commit()
        self.keys = self.delayed()

    def delay(self, payload: bytes, seconds: int, queue: bytes = b"q") -> None:
        self.client.set(queue + b"/delay=%d" % (seconds * 1000), payload)

    def at(self, seconds: int) -> int:
        return (EPOCH + seconds) * 1000

    def test_look(self) -> None:
        self.assertEqual(
            self.keys, [(self.at(10), 1), (self.at(20), 2), (self.at(20), 3), (self.at(30), 0)]
        )
        self.assertEqual(look_at_delayed(self.fifo, self.at(20), 3)[0][1].payload, b"3")
        self.assertEqual(browsing.count_of(self.fifo, DELAYED), 4)
        self.put(b"x", queue=b"other")
        self.assertEqual(look_at_delayed(self.server.queues.find(b"other"), 0, 0), [])
        self.assertEqual(self.pick("drop", DELAYED, [(self.at(10), 1)], queue=b"other"), 0)
        self.get(b"flush q")
        self.assertEqual(self.delayed(), [])

    def test_drop(self) -> None:
        self.assertEqual(self.pick("drop", DELAYED, [*self.keys[1:3], self.keys[1], (self.at(20), 9)]), 2)
        self.assertEqual(self.delayed(), [self.keys[0], self.keys[3]])
        self.assertEqual(browsing.count_of(self.fifo, DELAYED), 2)
        self.restart()
        self.assertEqual(self.server.queues.queue_figures(b"q")["delayed"], 2)
        self.server.clock.advance(40)
        self.assertEqual(self.get_all(), [b"1", b"0"])

    def test_drop_large(self) -> None:
        """Nothing of it is left."""
        self.delay(LARGE, 5)
        self.server.commit()
        (key, *_) = self.delayed()
        self.assertEqual(self.pick("drop", DELAYED, [key]), 1)
        self.assertEqual(self.pick("drop", DELAYED, [key]), 0)
        self.server.clock.advance(40)
        self.assertEqual(len(self.get_all()), 4)

    def test_drop_refused(self) -> None:
        """It is done when the store takes writes again, whether the refused write was made or not."""
        for doubtful in (0, 1):
            key = self.delayed()[0]
            self.server.store.doubtful = doubtful
            self.server.store.broken = 0 if doubtful else 2
            done = consume(
                self.server.queues,
                lambda answers, done, key=key: self.server.queues.picks.drop(answers, done, b"q", DELAYED, [key]),
            )
            self.server.commit()
            if doubtful:
                self.successResultOf(done)
            else:
                self.failureResultOf(done, StoreError)
            self.server.clock.advance(1)
            self.server.commit()
            self.assertNotIn(key, self.delayed())
        self.restart()
        self.assertEqual(self.delayed(), self.keys[2:])

    def test_drop_beside_a_refused_put(self) -> None:
        self.server.store.full = True
        self.client.set(b"q", b"x")
        self.assertEqual(self.pick("drop", DELAYED, [self.keys[0]]), 1)
        self.server.store.full = False
        self.server.clock.advance(1)
        self.server.commit()
        self.restart()
        self.assertEqual(self.delayed(), self.keys[1:])

    def test_give_back(self) -> None:
        """It is to be had now."""
        self.assertEqual(self.pick("give_back", DELAYED, [self.keys[3], self.keys[3]]), 1)
        self.assertEqual(self.get_all(), [b"0"])
        self.assertEqual(self.server.queues.queue_figures(b"q")["total_items"], 4)
        self.restart()
        self.assertEqual(self.delayed(), self.keys[:3])

    def test_move(self) -> None:
        self.delay(LARGE, 5)
        self.server.commit()
        key = self.delayed()[0]
        self.assertEqual(self.pick("move", DELAYED, [key, self.keys[1]], b"t"), 2)
        self.restart()
        self.assertEqual(self.get_all(b"get t"), [LARGE, b"2"])
        self.assertEqual(self.delayed(), [self.keys[0], *self.keys[2:]])

    def test_move_refused(self) -> None:
        """It stays delayed."""
        self.server.store.full = True
        done = consume(
            self.server.queues,
            lambda answers, done: self.server.queues.picks.move(answers, done, b"q", DELAYED, self.keys[:1], b"t"),
        )
        self.server.commit()
        self.failureResultOf(done, StoreError)
        self.server.store.full = False
        self.server.clock.advance(1)
        self.assertEqual(self.delayed(), self.keys)
        self.server.clock.advance(40)
        self.assertEqual(len(self.get_all()), 4)


class LevelDelayedTests(DelayedTests):
    def make_store(self) -> Any:
        store = LevelStore(Path(self.mktemp()))
        self.addCleanup(store.close)
        return store


class VolatileDelayedTests(DelayedTests):
    settings = {"durable": False}

    def restart(self) -> None:
        pass

    durable_only = ("drop_refused", "drop_beside_a_refused_put", "move_refused")
