"""Tests of `darner.queues.names` and `darner.queues.walk`: work on all queues, a few in a turn."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Optional

from twisted.trial.unittest import SynchronousTestCase

from darner.config.policies import Policies, QueueSettings
from darner.errors import StoreError
from darner.front import memcache
from darner.queues.names import BLOCK, Names
from darner.queues.walk import QUEUES_A_TURN
from test.harness import Server, value

MANY = 3 * QUEUES_A_TURN + 5


class NamesTests(SynchronousTestCase):
    def walk(self, names: Names, count: int) -> list[bytes]:
        seen: list[bytes] = []
        some = names.after(b"", count)
        while some:
            self.assertLessEqual(len(some), count)
            seen += some
            some = names.after(some[-1], count)
        return seen

    def test_in_order(self) -> None:
        names, known = Names(), set[bytes]()
        chance = random.Random(3)
        self.assertEqual((list(names), names.after(b"", 3)), ([], []))
        for _ in range(12 * BLOCK):
            name = b"%d" % chance.randrange(4 * BLOCK)
            if name in known:
                known.remove(name)
                names.discard(name)
            else:
                known.add(name)
                names.add(name)
        self.assertEqual(list(names), sorted(known))
        for count in (1, 7, BLOCK, 10 * BLOCK):
            self.assertEqual(self.walk(names, count), sorted(known))
        for name in chance.sample(sorted(known), len(known)):
            names.discard(name)
        self.assertEqual((list(names), self.walk(names, 1)), ([], []))

    def test_changes_during_a_walk(self) -> None:
        """A name that exists throughout is visited once; a walk continues after a name that was removed."""
        names = Names()
        for number in range(3 * BLOCK):
            names.add(b"%05d" % number)
        seen: list[bytes] = []
        some = names.after(b"", 10)
        while some:
            seen += some
            names.discard(some[-1])
            names.add(some[0] + b"+")
            some = names.after(some[-1], 10)
        self.assertEqual([name for name in seen if not name.endswith(b"+")], [b"%05d" % n for n in range(3 * BLOCK)])


class WalkTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = Server()
        self.client = self.server.client()
        self.other = self.server.client()
        for number in range(MANY):
            self.client.set(b"q%04d" % number, b"x")
        self.server.commit()
        self.client.hears()

    def step(self) -> None:
        """Let one turn of the event loop pass."""
        call = self.server.clock.calls.pop(0)
        self.assertEqual(call.getTime(), self.server.clock.seconds())
        call.called = 1
        call.func(*call.args, **call.kw)

    @property
    def left(self) -> int:
        """How many items there are."""
        items = self.server.queues.figures("")["curr_items"]
        assert isinstance(items, int)
        return items

    def steps(self) -> list[int]:
        """
        Let turns pass, in each of which somebody else is served, until the client is.

        @return: how many items there were after each.
        """
        left = [self.left]
        while self.client.session.busy:
            self.other.ask(b"version")
            self.step()
            self.assertTrue(self.other.hears())
            left.append(self.left)
        return left


class FlushAllTests(WalkTestCase):
    def test_a_bounded_number_in_a_turn(self) -> None:
        self.client.ask(b"flush_all")
        left = [MANY, *self.steps()]
        self.assertEqual(left[-1], 0)
        self.assertEqual(max(before - after for before, after in pairwise(left)), QUEUES_A_TURN)
        self.server.commit()
        self.assertEqual(self.client.hears(), memcache.FLUSHED_ALL)

    def test_in_order_with_the_clients_other_requests(self) -> None:
        last = b"q%04d" % (MANY - 1)
        self.client.set(last, b"before")
        self.client.ask(b"flush_all")
        self.client.ask(b"get " + last)
        self.client.set(last, b"behind")
        self.client.ask(b"get " + last)
        self.server.commit()
        self.assertEqual(
            self.client.hears(),
            memcache.STORED + memcache.FLUSHED_ALL + memcache.END + memcache.STORED + value(last, b"behind"),
        )

    def test_without_a_reply(self) -> None:
        self.client.ask(b"flush_all noreply")
        self.client.ask(b"get q0003")
        self.server.commit()
        self.assertEqual((self.client.hears(), self.left), (memcache.END, 0))

    def test_the_client_goes(self) -> None:
        """If the client disconnects, the work is still done."""
        self.client.ask(b"flush_all noreply")
        self.client.leave()
        self.server.commit()
        self.assertEqual(self.left, 0)

    def test_queues_that_come_and_go(self) -> None:
        self.client.ask(b"flush_all")
        self.other.does(b"delete q%04d" % QUEUES_A_TURN)
        self.other.sets(b"a", b"x")
        self.server.commit()
        self.assertEqual(self.client.hears(), memcache.FLUSHED_ALL)
        self.assertEqual(self.server.queues.names()[0], b"a")
        self.assertEqual(len(self.server.queues.names()), MANY)
        self.assertEqual(self.left, 1)

    def test_refused(self) -> None:
        """A write refused in between is reported as an error; the change is written later."""
        self.client.ask(b"flush_all")
        self.step()
        self.server.store.broken = 2
        self.server.commit()
        self.assertEqual(self.client.hears(), b"SERVER_ERROR no room\r\n")
        self.server.clock.advance(2)
        self.server.start()
        self.assertEqual(self.left, 0)

    def test_stop(self) -> None:
        """After a stop the walk ends, without a call of C{done}."""
        self.client.ask(b"flush_all")
        self.step()
        self.server.stop()
        self.assertEqual(self.client.hears(), b"")
        self.assertFalse(self.server.clock.getDelayedCalls())
        self.assertGreater(self.left, 0)


class AdoptionTests(WalkTestCase):
    def limits(self) -> list[Optional[int]]:
        return [self.server.queues.policy(name).max_items for name in self.server.queues.names()]

    def test_a_bounded_number_in_a_turn(self) -> None:
        told: list[str] = []
        self.server.queues.adoption.when_done(lambda: told.append("before"))
        self.server.queues.apply(Policies(QueueSettings(max_items=3)))
        self.server.queues.adoption.when_done(lambda: told.append("done"))
        self.assertEqual(self.limits().count(3), QUEUES_A_TURN)
        self.client.set(b"new", b"x")
        self.step()
        self.assertEqual(told, ["before"])
        self.server.commit()
        self.assertEqual((set(self.limits()), told), ({3}, ["before", "done"]))

    def test_other_settings_in_between(self) -> None:
        """All queues get the latest settings, and callers that waited for the earlier ones are called."""
        told: list[str] = []
        self.server.queues.apply(Policies(QueueSettings(max_items=3)))
        self.server.queues.adoption.when_done(lambda: told.append("first"))
        self.step()
        self.server.queues.apply(Policies(QueueSettings(max_items=4)))
        self.server.queues.adoption.when_done(lambda: told.append("second"))
        self.server.commit()
        self.assertEqual((set(self.limits()), told), ({4}, ["first", "second"]))

    def test_a_queue_that_is_waited_for(self) -> None:
        self.other.ask(b"get waited/t=1000")
        self.server.queues.apply(Policies(QueueSettings(max_items=3)))
        self.server.commit()
        self.assertEqual(self.server.queues.policy(b"waited").max_items, 3)
        self.assertEqual(set(self.limits()), {3})

    def test_an_error_is_nobodys(self) -> None:
        del self.client
        self.server.store.broken = 1
        self.server.queues.apply(Policies(QueueSettings(max_queue_age=1.0)))
        told: list[Optional[StoreError]] = []
        self.server.queues.adoption.when_done(lambda: told.append(None))
        self.server.commit()
        self.assertEqual(told, [None])
