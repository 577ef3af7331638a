"""
Tests of several turns in flight: what is read meanwhile, and what becomes of them.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional
from unittest import mock

import plyvel
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from darner.cluster.appends import Appends
from darner.cluster.memory_log import MemoryLog, MemoryMember
from darner.cluster.node import EXIT_FENCED, EXIT_STORE
from darner.cluster.notes import STEP_DOWN
from darner.cluster.overlay import Overlay, after
from darner.config.policies import Policies, QueueSettings
from darner.errors import LogConflict, LogInDoubt, StoreError
from darner.store.batch import Write
from darner.store.database import Database
from darner.store.leveldb import LevelStore
from test.cluster.nodes import Cluster, Process

Changes = list[Write]


class OverlayTests(SynchronousTestCase):
    """L{Overlay}: a database is read as one that has all of it."""

    KEYS = [bytes([first, second]) for first in (1, 2, 0x7F, 0xFF) for second in (0, 1, 0xFE, 0xFF)]

    def setUp(self) -> None:
        self.overlay = Overlay(plyvel.DB)
        self.database = self.open(self.overlay.open)
        self.model = self.open(plyvel.DB)
        self.in_flight: list[Changes] = []
        for database in (self.database, self.model):
            database.put(b"\xff\xff\xff", b"behind all")

    def open(self, open_database: Callable[..., Any]) -> Any:
        path = tempfile.mkdtemp(dir=Path(self.mktemp()).parent)
        opened = open_database(path, create_if_missing=True)
        self.addCleanup(opened.close)
        return opened

    def add(self, writes: Changes) -> None:
        self.overlay.add(writes)
        self.in_flight.append(writes)
        self.write(self.model, writes)

    def write(self, database: Any, writes: Changes) -> None:
        with database.write_batch() as batch:
            for key, value in writes:
                if value is None:
                    batch.delete(key)
                else:
                    batch.put(key, value)

    def settle(self) -> None:
        self.overlay.settle(lambda: self.write(self.database, self.in_flight.pop(0)))

    def equal(self) -> None:
        for key in self.KEYS:
            self.assertEqual(self.database.get(key), self.model.get(key))
            self.assertEqual(self.database.get(key, b"none"), self.model.get(key, b"none"))
        ranges: list[dict[str, Any]] = [{}, *({"prefix": key[:1]} for key in self.KEYS[::4])]
        ranges += [{"start": start, "stop": stop} for start in self.KEYS[::3] for stop in self.KEYS[::3]]
        for bounds in ranges:
            for include_value in (True, False):
                with self.database.iterator(include_value=include_value, **bounds) as entries:
                    found = list(entries)
                with self.model.iterator(include_value=include_value, **bounds) as entries:
                    self.assertEqual(found, list(entries), bounds)
        first = next(self.model.iterator(include_value=False))
        for key in self.KEYS:
            if key > first:
                with self.database.raw_iterator() as entries:
                    entries.seek(key)
                    entries.prev()
                    self.assertEqual(entries.item(), list(self.model.iterator(stop=key))[-1])

    def test_as_if_it_were_written(self) -> None:
        """Random batches of puts and deletions, of which some are written at a time, in their order."""
        for seed in range(20):
            chance = random.Random(seed)
            for _ in range(8):
                if self.in_flight and chance.random() < 0.4:
                    self.settle()
                else:
                    keys = chance.choices(self.KEYS, k=chance.randrange(8))
                    self.add([(key, chance.choice((None, chance.randbytes(2)))) for key in keys])
                self.equal()

    def test_iterator_goes_on(self) -> None:
        """What is written, or given to the log, after an iterator is open does not change it."""
        self.add([(b"a", b"1"), (b"c", b"1")])
        with self.database.iterator(stop=b"d") as entries:
            self.assertEqual(next(entries), (b"a", b"1"))
            self.add([(b"b", b"2"), (b"c", None)])
            self.settle()
            self.settle()
            self.assertEqual(list(entries), [(b"c", b"1")])

    def test_written_in_between(self) -> None:
        """
        A thread looks what is in flight, and opens its iterator when that is written, and what came behind it, too: it
        does not see the older values.
        """
        self.add([(b"a", b"old"), (b"b", b"old")])
        opened: list[Any] = []

        def open_iterator() -> Any:
            if not opened:
                self.add([(b"a", None), (b"b", b"new")])
                self.settle()
                self.settle()
            opened.append(self.database.iterator())
            return opened[-1]

        entries, layers = self.overlay.opened(open_iterator)
        self.assertEqual((next(entries), layers, len(opened)), ((b"b", b"new"), (), 2))

    def test_not_written(self) -> None:
        """A batch that cannot be written stays in flight."""
        self.add([(b"a", b"1")])

        def fail() -> None:
            raise StoreError("broken")

        self.assertRaises(StoreError, self.overlay.settle, fail)
        self.assertEqual(self.database.get(b"a"), b"1")

    def test_snapshots_are_the_database(self) -> None:
        """What the log may not have is in no snapshot and no backup."""
        self.add([(b"a", b"1")])
        self.assertIs(self.database.snapshot().get(b"a"), None)

    def test_prefixes(self) -> None:
        self.assertEqual([after(key) for key in (b"a", b"a\xff", b"\xff", b"")], [b"b", b"b", None, None])

    def test_last(self) -> None:
        """L{Database.last} finds entries that are only in flight, also behind the last key of the database."""
        database = Database(Path(self.mktemp()), self.overlay.open, lambda: 0.0, None, None)
        self.addCleanup(database.close)
        database.make_and_open()
        self.overlay.add([(b"C1", b"one"), (b"C2", b"two"), (b"S1", b"")])
        self.assertEqual(database.last(b"C", b"D"), (b"C2", b"two"))
        self.overlay.add([(b"C2", None)])
        self.assertEqual(database.last(b"C", b"D"), (b"C1", b"one"))
        self.assertIs(database.last(b"C2", b"D"), None)


class ShuffledMember(MemoryMember):
    """
    A log whose requests and answers overtake one another, and whose outcomes are not known now and then.  A record that
    arrives before the one in front of it is refused.
    """

    def __init__(self, log: MemoryLog, chance: random.Random) -> None:
        super().__init__(log)
        self._shared = log
        self._chance = chance
        self.doubt = 0.0

    def append(self, number: int, record: bytes) -> Deferred[None]:
        done: Deferred[None] = Deferred()

        def arrive() -> None:
            lost = self._chance.random()
            error: Optional[Exception] = None
            if lost < self.doubt / 2:
                error = LogInDoubt("the request is lost")
            elif number != self._shared.last + 1:
                error = LogConflict(f"record {number} does not follow record {self._shared.last}")
            else:
                self._shared.appended(number, record)
                if lost < self.doubt:
                    error = LogInDoubt("the answer is lost")
            later = self._chance.random()
            self._clock.callLater(later, done.callback if error is None else done.errback, error)

        self._clock.callLater(self._chance.random(), arrive)
        return done


class AppendsTests(SynchronousTestCase):
    """L{Appends}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.log = MemoryLog(self.clock)
        self.begin(self.log.member())

    def begin(self, member: MemoryMember) -> None:
        self.member = member
        self.lost: list[Exception] = []
        self.told: list[int] = []
        self.given = 0
        self.appends = Appends(member, self.clock, self.lost.append)

    def give(self, count: int = 1) -> None:
        for _ in range(count):
            self.given += 1
            self.appends.append(self.given, b"%d" % self.given).addCallback(lambda _, n=self.given: self.tell(n))

    def tell(self, number: int) -> None:
        self.assertEqual(self.log.records.get(number), b"%d" % number)
        self.told.append(number)

    def run_on(self, seconds: float = 1.0) -> None:
        self.clock.pump([0.05] * int(seconds * 20))

    def complete(self) -> None:
        """All is in the log, once, and told in its order."""
        self.assertEqual(self.lost, [])
        self.assertEqual(self.told, list(range(1, self.given + 1)))
        self.assertEqual(self.log.records, {number: b"%d" % number for number in self.told})

    def test_in_flight(self) -> None:
        """They are under way at once, and told as they come."""
        self.member.delay = 0.1
        self.give(2)
        self.clock.advance(0.05)
        self.give()
        self.assertEqual((self.member.in_flight, self.told), (3, []))
        self.clock.advance(0.05)
        self.assertEqual(self.told, [1, 2])
        self.clock.advance(0.05)
        self.complete()

    def test_first_in_doubt(self) -> None:
        """The log has the first one or not; the second one, which was refused or not, is there behind it once."""
        for done in (True, False):
            self.member.doubtful = [done]
            self.give(3)
            self.run_on()
            self.complete()

    def test_out_of_reach(self) -> None:
        """Those under way fail, later ones wait; all are appended in the end."""
        self.member.unavailable = True
        self.give(2)
        self.run_on()
        self.give(2)
        self.run_on(5)
        self.assertEqual(self.told, [])
        self.member.unavailable = False
        self.run_on()
        self.complete()
        self.give()
        self.run_on()
        self.complete()

    def test_shuffled(self) -> None:
        """
        Whatever overtakes what, and whatever answer is lost: nothing is told that the log has not, nothing is there
        twice, and in the end all of it is there.
        """
        for seed in range(30):
            self.log = MemoryLog(self.clock)
            chance = random.Random(seed)
            member = ShuffledMember(self.log, chance)
            member.doubt = chance.choice((0.0, 0.5))
            self.begin(member)
            for _ in range(6):
                self.give(chance.randrange(4))
                self.run_on(chance.random() * 3)
            self.run_on(60)
            self.complete()

    def test_another_leads(self) -> None:
        """Where another node has appended, nothing is told any more, and nothing is appended behind its record."""
        for doubtful in ([], [False]):
            self.log = MemoryLog(self.clock)
            self.begin(self.log.member())
            self.give(2)
            self.run_on()
            self.member.delay = 0.1
            self.member.doubtful = list(doubtful)
            self.give(2)
            self.log.appended(3, b"of another")
            self.run_on(0.05)
            self.give(2)
            self.run_on()
            self.give(2)
            self.run_on()
            self.assertEqual([type(error) for error in self.lost], [LogConflict])
            self.assertEqual((self.told, self.log.last), ([1, 2], 3))

    def test_another_leads_while_it_finds_out(self) -> None:
        """Also where it comes between two records that were in flight together."""
        self.member.doubtful = [True]
        self.member.delay = 0.1
        self.give(2)
        self.clock.advance(0.1)
        self.log.appended(2, b"of another")
        self.run_on()
        self.assertEqual([type(error) for error in self.lost], [LogConflict])
        self.assertEqual((self.told, self.log.last), ([1], 2))

    def test_given_while_one_is_told(self) -> None:
        """What is given in the moment when the first is told, and the second fails, is appended behind that."""
        self.member.doubtful = []
        appended = self.log.appended

        def then_fail(number: int, record: bytes) -> None:
            appended(number, record)
            self.member.doubtful = [False] if number == 1 else []

        self.patch(self.log, "appended", then_fail)
        self.give(2)
        self.tell = lambda number: (self.told.append(number), number < 4 and self.give())  # type: ignore[method-assign,assignment,return-value]
        self.run_on()
        self.complete()
        self.assertEqual(self.given, 5)

    def test_damaged(self) -> None:
        """A record that cannot be read ends it."""
        self.member.doubtful = [True]
        self.log.damaged.add(1)
        self.give(2)
        self.run_on()
        self.assertEqual(([str(error) for error in self.lost], self.told), (["record 1 is damaged"], []))


STORED = b"STORED\r\n"
END = b"END\r\n"


def value(queue: bytes, payload: bytes) -> bytes:
    return b"VALUE %b 0 %d\r\n%b\r\nEND\r\n" % (queue, len(payload), payload)


class NarrowProcess(Process):
    """Its queues have one item each in memory, and read the others from the store."""

    window_bytes = 1


class TurnsTests(SynchronousTestCase):
    """A leader with several turns in flight."""

    DELAY = 0.25

    def setUp(self) -> None:
        self.begin()

    def begin(self, **more: Any) -> None:
        policies = Policies(QueueSettings(dedupe_window=60.0))
        self.cluster = Cluster(self, policies=policies, process=NarrowProcess, **more)
        self.leader = self.cluster.leader()
        self.client, self.companion = self.leader.client(), self.leader.client()
        self.assertEqual(self.client.sets(b"jobs", b"0"), STORED)
        self.cluster.run(0.2)
        self.leader.log.delay = self.DELAY

    def turns(self, *asks: bytes) -> None:
        """Ask for one thing after the other, each in a turn of its own that is given to the log at once, if it may."""
        for ask in asks:
            if self.in_flight == 2:
                # A third one must have as many askers as these.
                self.companion.ask(b"get nothing")
            line, _, payload = ask.partition(b"\r\n")
            if line.startswith(b"set "):
                self.client.set(line[4:], payload)
            else:
                self.client.ask(line)
            self.cluster.clock.advance(0)
            self.cluster.clock.advance(0)

    @property
    def in_flight(self) -> int:
        return self.leader.log.in_flight

    def hears(self) -> bytes:
        """@return: what the client was told once all is over; nothing before."""
        self.assertEqual(self.client.hears(), b"")
        self.cluster.run(2)
        return self.client.hears()

    def test_reads_what_is_in_flight(self) -> None:
        """A turn goes on with what the turn before has changed, and nobody is told anything before the log has both."""
        self.turns(b"set jobs\r\n1", b"set jobs\r\n2", b"get jobs")
        self.assertEqual(self.in_flight, 3)
        self.assertEqual(self.hears(), STORED + STORED + value(b"jobs", b"0"))
        self.turns(b"get jobs", b"get jobs", b"get jobs")
        self.assertEqual(self.in_flight, 3)
        self.assertEqual(self.hears(), value(b"jobs", b"1") + value(b"jobs", b"2") + END)

    def test_answers_in_their_order(self) -> None:
        """They come as the log has the turns."""
        self.turns(b"set jobs\r\n1")
        self.cluster.clock.advance(0.1)
        self.turns(b"get jobs")
        self.cluster.clock.advance(0.15)
        self.assertEqual(self.client.hears(), STORED)
        self.cluster.clock.advance(0.1)
        self.assertEqual(self.client.hears(), value(b"jobs", b"0"))

    def test_at_most(self) -> None:
        """What comes when as many are in flight as may be gathers in one turn."""
        self.turns(*[b"set jobs\r\n1"] * 7)
        self.assertEqual(self.in_flight, 3)
        before = self.cluster.log.last
        self.assertEqual(self.hears(), STORED * 7)
        self.assertEqual(self.cluster.log.last, before + 4)

    def test_worth_a_record(self) -> None:
        """While a turn of several clients is in flight, the next one waits until it has as many."""
        clients = [self.leader.client() for _ in range(5)]
        for client in clients[:3]:
            client.set(b"jobs", b"x")
        self.turns(b"get other")
        self.assertEqual(self.in_flight, 1)
        for client in clients[3:]:
            client.set(b"jobs", b"x")
            self.cluster.clock.advance(0)
        self.assertEqual(self.in_flight, 1)
        self.turns()
        another, last = self.leader.client(), self.leader.client()
        another.set(b"jobs", b"x")
        last.ask(b"get other")
        self.cluster.clock.advance(0)
        self.assertEqual(self.in_flight, 2)
        self.assertEqual(self.hears(), END)
        self.assertEqual([client.hears() for client in (*clients, another, last)], [STORED] * 6 + [END])

    def test_ids(self) -> None:
        """An id is known whose item is in flight."""
        self.turns(b"set once/id=a\r\n1", b"set once/id=a\r\n2", b"get once")
        self.assertEqual(self.in_flight, 3)
        self.assertEqual(self.hears(), STORED + STORED + value(b"once", b"1"))
        self.assertEqual(self.client.does(b"get once"), b"")
        self.assertEqual(self.hears(), END)

    def test_large_items(self) -> None:
        """A large item is read that is in flight, deleted while it is, and reclaimed by what has seen that."""
        payload = random.Random(1).randbytes(150_000)
        self.turns(b"set large\r\n" + payload, b"get large", b"get large")
        self.assertEqual(self.in_flight, 2)
        self.assertEqual(self.hears(), STORED + value(b"large", payload) + END)
        self.cluster.run(5)
        self.assertEqual([key for key in self.leader.store.shared() if key[:1] in b"CS"], [])

    def test_delayed(self) -> None:
        """Delayed items that are due are found among those in flight."""
        self.turns(b"set jobs/delay=100\r\n1")
        self.cluster.run(0.2)
        self.turns(b"set jobs/delay=20\r\n2")
        self.assertEqual((self.in_flight, self.client.hears()), (2, b""))
        self.cluster.run(0.5)
        self.turns(b"get jobs", b"get jobs", b"get jobs")
        self.assertEqual(self.client.hears(), STORED + STORED)
        self.assertEqual(self.hears(), b"".join(value(b"jobs", payload) for payload in (b"0", b"1", b"2")))

    def test_deletes_what_is_in_flight(self) -> None:
        """A queue is deleted and made again while its items are in flight."""
        self.turns(b"set new\r\n1", b"delete new", b"set new\r\n2")
        self.assertEqual(self.in_flight, 3)
        self.assertEqual(self.hears(), STORED + b"DELETED\r\n" + STORED)
        self.turns(b"get new", b"get new")
        self.assertEqual(self.hears(), value(b"new", b"2") + END)
        self.cluster.run(10)
        self.compare()

    def compare(self) -> None:
        self.cluster.settle()
        first, *others = (process.store.shared() for process in self.cluster.processes if process.alive)
        for other in others:
            self.assertEqual(first, other)

    def test_parts(self) -> None:
        """Turns that are too large for a record are in flight in parts."""
        self.begin(max_record_bytes=20_000)
        one, two = (random.Random(seed).randbytes(60_000) for seed in (1, 2))
        self.turns(b"set large\r\n" + one, b"set large\r\n" + two)
        self.assertGreater(self.in_flight, 6)
        self.turns(b"get large")
        self.assertEqual(self.hears(), STORED + STORED + value(b"large", one))
        self.compare()

    def test_dies(self) -> None:
        """
        The leader dies when the log has the first of three turns: nobody was told anything of the others, which never
        happened.
        """
        self.turns(b"set jobs\r\n1")
        self.cluster.clock.advance(0.1)
        self.turns(b"get jobs", b"set jobs\r\n2")
        self.assertEqual(self.in_flight, 3)
        self.cluster.clock.advance(0.15)
        self.assertEqual(self.client.hears(), STORED)
        self.leader.kill()
        self.leader.start()
        client = self.cluster.leader().client()
        told = [client.does(b"get jobs") for _ in range(3)]
        self.assertEqual(told, [value(b"jobs", b"0"), value(b"jobs", b"1"), END])
        self.compare()

    def test_first_in_doubt(self) -> None:
        """It is unknown for a while whether the log has the first of three turns: then all are answered, in order."""
        for done in (True, False):
            self.leader.log.doubtful = [done]
            self.turns(b"set new\r\n1", b"get new", b"get new")
            self.assertEqual(self.in_flight, 3)
            self.assertEqual(self.hears(), STORED + value(b"new", b"1") + END)
            self.cluster.run(3)
        self.compare()

    def test_fenced(self) -> None:
        """Another node leads while turns are in flight: nobody is told anything, and the process ends."""
        self.leader.log.unavailable = True
        self.turns(b"set jobs\r\n1", b"get jobs", b"get nothing")
        self.assertEqual(self.in_flight, 3)
        self.cluster.run(5, lambda: len(self.cluster.leaders) == 2)
        (new,) = (process for process in self.cluster.leaders if process is not self.leader)
        self.leader.log.unavailable = False
        self.turns(b"get nothing")
        self.cluster.run(2)
        self.assertEqual(self.client.hears(), b"")
        assert self.leader.ended is not None
        self.assertEqual(self.leader.ended[0], EXIT_FENCED)
        self.assertEqual(new.client().does(b"get jobs"), value(b"jobs", b"0"))
        self.leader.start()
        self.compare()

    def test_cannot_write(self) -> None:
        """Where the first of three turns cannot be written here, none is answered, and none is written."""
        ended: list[int] = []
        # The process takes a moment to end.
        self.patch(self.leader.node, "_end", lambda status, _: ended.append(status))
        self.turns(b"set jobs\r\n1", b"set jobs\r\n2", b"get jobs")
        position = self.leader.store.position
        for process in self.cluster.followers():
            process.kill()
        with mock.patch.object(LevelStore, "write", mock.Mock(side_effect=StoreError("broken"))):
            self.cluster.clock.advance(self.DELAY)
        self.cluster.run(2)
        self.assertEqual((self.client.hears(), ended), (b"", [EXIT_STORE]))
        self.assertEqual(self.leader.store.position, position)
        self.leader.kill()

    def test_steps_down(self) -> None:
        """A leader that steps down answers all that it has given to the log."""
        leadership = self.leader.node.leadership
        assert leadership is not None
        self.cluster.log.member().note(STEP_DOWN, b"%d" % leadership.claim)
        told = b""
        while self.leader.alive:
            self.turns(b"set jobs\r\n1")
            self.cluster.run(0.1)
            told += self.client.hears()
        self.assertIs(self.leader.ended, None)
        self.assertEqual(told, STORED * (len(told) // len(STORED)))
        self.assertGreater(len(told), 0)
        client = self.cluster.leader().client()
        self.assertEqual(client.does(b"get jobs"), value(b"jobs", b"0"))
        for _ in range(len(told) // len(STORED)):
            self.assertEqual(client.does(b"get jobs"), value(b"jobs", b"1"))
        self.assertEqual(client.does(b"get jobs"), END)

    def test_stops(self) -> None:
        """So does one that is stopped."""
        self.turns(b"set jobs\r\n1", b"get jobs", b"get jobs")
        self.leader.stop()
        self.cluster.run(5, lambda: not self.leader.alive)
        self.assertEqual(self.client.hears(), STORED + value(b"jobs", b"0") + value(b"jobs", b"1"))
        self.assertEqual(self.cluster.leader().client().does(b"get jobs"), END)

    def test_no_room(self) -> None:
        """A put that is refused is told so behind what is in flight; what is read before is not concerned."""
        self.turns(b"set jobs\r\n1", b"get jobs")
        with mock.patch.object(self.leader.store, "check_room", mock.Mock(side_effect=StoreError("no room"))):
            self.turns(b"set jobs\r\n2")
        self.assertEqual(self.in_flight, 3)
        self.assertEqual(self.hears(), STORED + value(b"jobs", b"0") + b"SERVER_ERROR no room\r\n")
        self.turns(b"get jobs", b"get jobs")
        self.assertEqual(self.hears(), value(b"jobs", b"1") + END)

    def test_large_items_gather(self) -> None:
        """While turns are in flight, the next one takes chunks of large items, up to a limit."""
        self.turns(*[b"set jobs\r\n1"] * 3)
        self.assertEqual(self.in_flight, 3)
        self.assertFalse(self.leader.queues.commit.busy)
        other = self.leader.client()
        other.set(b"large", bytes(65 * 65536))
        self.assertTrue(self.leader.queues.commit.busy)
        self.cluster.run(2)
        self.assertEqual((self.client.hears(), other.hears()), (STORED * 3, STORED))
        self.assertFalse(self.leader.queues.commit.busy)

    def test_goes_on_early(self) -> None:
        """Who sends a large item goes on when a part of it is given to the log, and does not wait until it has it."""
        session = self.client.session
        inflow = session.inflow()
        session.receive(inflow, bytes(200_000))
        went_on: list[int] = []
        self.patch(self.client, "proceed", lambda: went_on.append(self.in_flight))
        self.cluster.clock.advance(0)
        self.assertEqual(went_on, [1])
        self.cluster.run(1)

    # What is no record

    def test_nothing_to_say(self) -> None:
        """A turn in which nothing is asked and nothing changes is no record; one that answers is."""
        last = self.cluster.log.last
        self.client.ask(b"quit")
        self.cluster.clock.advance(0)
        self.assertTrue(self.client.closed)
        self.cluster.run(2)
        self.assertEqual(self.cluster.log.last, last)
        other = self.leader.client()
        other.ask(b"get nothing")
        self.cluster.run(2)
        self.assertEqual((other.hears(), self.cluster.log.last), (END, last + 1))

    def test_closed_behind_its_answers(self) -> None:
        """A connection is closed when all is answered that the client asked for, in whichever turn."""
        self.turns(b"set jobs\r\n1", b"get jobs", b"quit")
        self.assertFalse(self.client.closed)
        self.cluster.clock.advance(self.DELAY)
        self.assertEqual((self.client.hears(), self.client.closed), (STORED + value(b"jobs", b"0"), True))

    def test_not_told_but_done(self) -> None:
        """What is done without a reply is a record."""
        last = self.cluster.log.last
        self.client.set(b"jobs", b"1", end=b" noreply")
        self.cluster.run(1)
        self.assertEqual((self.client.hears(), self.cluster.log.last), (b"", last + 1))

    def test_client_fails(self) -> None:
        """An error while one client goes on does not concern others."""
        other = self.leader.client()
        self.patch(self.client, "close", lambda: 1 // 0)
        self.client.ask(b"quit")
        other.ask(b"quit")
        self.cluster.clock.advance(0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertTrue(other.closed)
