"""
Tests of several turns in flight: what is read meanwhile, what becomes of them, and when they are given to the log.
"""

from __future__ import annotations

import random
from typing import Any
from unittest import mock

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from darner.cluster.node import EXIT_FENCED, EXIT_STORE
from darner.cluster.notes import STEP_DOWN
from darner.config.policies import Policies, QueueSettings
from darner.errors import StoreError
from darner.front.calls import Reading
from darner.store.leveldb import LevelStore
from test.cluster.nodes import Cluster, Process
from test.harness import Client

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

    def test_parts_of_large_items(self) -> None:
        """They are worth a record when they are as much as is in flight, and no client must wait for them."""
        sender, small = self.leader.client().session, self.leader.client()
        inflow = sender.inflow()
        for size, in_flight in ((200_000, 1), (70_000, 1), (140_000, 2)):
            sender.receive(inflow, bytes(size))
            self.cluster.clock.advance(0)
            self.assertEqual(self.in_flight, in_flight)
        sender.receive(inflow, bytes(70_000))
        small.ask(b"get nothing")
        self.cluster.clock.advance(0)
        self.assertEqual(self.in_flight, 3)
        self.cluster.run(1)
        self.assertEqual(small.hears(), END)

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

    # Waiting for those just answered

    def clients(self) -> list[Client]:
        """@return: three clients, of whom two were just answered, and one has asked for something meanwhile."""
        one, two, three = (self.leader.client() for _ in range(3))
        self.answer(one, two, three)
        return [one, two, three]

    def answer(self, one: Client, two: Client, three: Client) -> None:
        one.ask(b"get nothing")
        two.ask(b"get nothing")
        self.cluster.clock.advance(0)
        three.ask(b"get nothing")
        self.cluster.clock.advance(self.DELAY)
        self.assertEqual([client.hears() for client in (one, two, three)], [END, END, b""])

    def test_waits_for_those_answered(self) -> None:
        """What they ask for next shares a record with what was asked for meanwhile."""
        one, two, three = self.clients()
        self.assertEqual(self.in_flight, 0)
        last = self.cluster.log.last
        for client in (one, two):
            self.assertEqual(self.in_flight, 0)
            client.ask(b"get nothing")
            self.cluster.clock.advance(0)
        self.assertEqual(self.in_flight, 1)
        self.cluster.clock.advance(self.DELAY)
        self.assertEqual([client.hears() for client in (one, two, three)], [END] * 3)
        self.assertEqual(self.cluster.log.last, last + 1)

    def test_waits_no_longer(self) -> None:
        """One millisecond, where they ask for nothing; the next time not at all, then again."""
        one, two, three = self.clients()
        self.assertEqual(self.in_flight, 0)
        self.cluster.clock.advance(0.001)
        self.assertEqual(self.in_flight, 1)
        self.cluster.run(1)
        self.assertEqual(three.hears(), END)
        self.answer(one, two, three)
        self.assertEqual(self.in_flight, 1)
        self.cluster.run(1)
        self.assertEqual(three.hears(), END)
        self.answer(one, two, three)
        self.assertEqual(self.in_flight, 0)
        self.cluster.run(1)

    def test_one_need_not_wait(self) -> None:
        """Where one client alone asks for one thing after the other, each is given to the log at once."""
        for _ in range(3):
            self.client.ask(b"get nothing")
            self.cluster.clock.advance(0)
            self.assertEqual(self.in_flight, 1)
            self.cluster.clock.advance(self.DELAY)
            self.assertEqual(self.client.hears(), END)

    def test_large_items_need_not_wait(self) -> None:
        """A turn that is full does not wait for anybody."""
        one, _, three = self.clients()
        one.set(b"large", bytes(65 * 65536))
        self.cluster.clock.advance(0)
        self.assertEqual(self.in_flight, 1)
        self.cluster.run(1)
        self.assertEqual((one.hears(), three.hears()), (STORED, END))

    def test_stops_while_it_waits(self) -> None:
        """Who waits is answered before."""
        _, _, three = self.clients()
        self.leader.stop()
        self.cluster.run(5, lambda: not self.leader.alive)
        self.assertEqual(three.hears(), END)

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


class GivenBackTests(SynchronousTestCase):
    """An item that its reader may give back until he is told: nothing deletes it before that."""

    def setUp(self) -> None:
        self.cluster = Cluster(self, policies=Policies(QueueSettings()))
        self.leader = self.cluster.leader()
        self.client = self.leader.client()
        for payload in (b"0", b"1"):
            self.assertEqual(self.client.sets(b"jobs", payload), STORED)
        self.cluster.run(0.3)
        self.leader.log.delay = 0.25

    def turn(self) -> int:
        """@return: how many are in flight."""
        self.cluster.clock.advance(0)
        self.cluster.clock.advance(0)
        return self.leader.log.in_flight

    def read(self) -> Deferred[Any]:
        reading = Reading(self.leader.queues, b"jobs", lambda _: None)
        reading.start(0)
        return reading.deferred

    def left(self) -> list[bytes]:
        """@return: what is in the queue when the leader has died."""
        self.leader.kill()
        client, items = self.cluster.leader().client(), []
        for _ in range(3):
            client.ask(b"get jobs")
            self.cluster.run(1)
            items.append(client.hears())
        return items

    def test_given_back(self) -> None:
        """What comes after it waits until the log has it, and so does what deletes it."""
        reading = self.read()
        self.assertEqual(self.turn(), 1)
        self.client.set(b"other", b"x")
        self.assertEqual(self.turn(), 1)
        reading.cancel()
        self.cluster.run(3)
        self.failureResultOf(reading, CancelledError)
        self.assertEqual(self.client.hears(), STORED)
        self.assertEqual(self.left(), [value(b"jobs", b"0"), value(b"jobs", b"1"), END])

    def test_not_given_back(self) -> None:
        self.client.set(b"other", b"x")
        self.assertEqual(self.turn(), 1)
        reading = self.read()
        self.assertEqual(self.turn(), 2)
        self.client.set(b"other", b"y")
        self.assertEqual(self.turn(), 2)
        self.cluster.run(3)
        self.assertEqual(self.successResultOf(reading).payload, b"0")
        self.assertEqual(self.client.hears(), STORED * 2)
        self.assertEqual(self.left(), [value(b"jobs", b"1"), END, END])

    def test_leaves_without_a_reply(self) -> None:
        """The end of the connection may be taken for one."""
        before = self.cluster.log.last
        self.client.set(b"jobs", b"x", end=b" noreply")
        self.client.ask(b"quit")
        self.turn()
        self.assertFalse(self.client.closed)
        self.cluster.run(1)
        self.assertTrue(self.client.closed)
        self.assertEqual(self.cluster.log.last, before + 1)

    def test_many_without_a_reply(self) -> None:
        """A client cannot fill the memory while the log is away."""
        self.leader.log.delay = 0.5
        for _ in range(1000):
            self.client.set(b"jobs", b"x" * 100, end=b" noreply")
            self.cluster.clock.advance(0)
        queue = self.leader.queues.find(b"jobs")
        assert queue is not None
        self.assertLess(queue.count, 600)
        self.leader.log.delay = 0.01
        self.cluster.run(5)
        self.assertEqual(queue.count, 1002)
