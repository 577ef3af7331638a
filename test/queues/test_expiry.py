"""
Tests of `darner.queues.expiry`: what has expired is dropped in bounded steps, and nobody is told `END` before it is
known.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Optional

from twisted.trial.unittest import SynchronousTestCase

from darner.config.policies import Policies, QueueSettings
from darner.front import memcache
from darner.front.calls import Opening, Peeking, Reading
from darner.queues.bounds import SWEEP_BYTES, Bounds
from darner.queues.collection import Queues
from darner.queues.contents import HEAVY
from darner.queues.expiry import LOOKS
from darner.queues.fifo import Fifo
from darner.store.memory import MemoryStore
from darner.values.vocabulary import CHUNK_BYTES
from test.harness import Server, value

LARGE = bytes(range(256)) * (CHUNK_BYTES // 100)


def make_server(queues: Optional[dict[str, dict[str, Any]]] = None, **defaults: Any) -> Server:
    """@param queues: settings by the name of a queue."""
    policies = Policies(QueueSettings(**defaults), queues or {})
    return Server(MemoryStore(), lambda store, surroundings, _: Queues(store, surroundings, policies))


class ExpiryTestCase(SynchronousTestCase):
    def serve(self, queues: Optional[dict[str, dict[str, Any]]] = None, **defaults: Any) -> None:
        self.server = make_server(queues, **defaults)
        self.client = self.server.client()

    def restart(self) -> None:
        self.server.start()
        self.client = self.server.client()

    @property
    def fifo(self) -> Fifo:
        fifo = self.server.queues.find(b"q")
        assert fifo is not None
        return fifo

    def swarm(self, count: int, queue: bytes = b"q") -> None:
        """Put items that have expired."""
        for _ in range(count):
            self.client.sets(queue, b"old", expiry=-1)

    def step(self) -> None:
        """Let one turn of the event loop pass."""
        call = self.server.clock.calls.pop(0)
        self.assertEqual(call.getTime(), self.server.clock.seconds())
        call.called = 1
        call.func(*call.args, **call.kw)

    def had(self, queue: bytes) -> list[bytes]:
        payloads = []
        while (reply := self.client.does(b"get " + queue)) != memcache.END:
            header, _, rest = reply.partition(b"\r\n")
            payloads.append(rest[: int(header.split()[3])])
        return payloads

    def figure(self, name: str, queue: bytes = b"q") -> int:
        return self.server.queues.queue_figures(queue)[name]

    def total(self, name: str) -> Any:
        return self.server.queues.figures("")[name]


class SweepTests(ExpiryTestCase):
    """More items have expired at the head of a queue than one sweep drops."""

    def setUp(self) -> None:
        self.serve(max_expire_sweep=10)
        self.swarm(95)

    def test_bounded_and_others_served_meanwhile(self) -> None:
        self.client.sets(b"q", b"live")
        other = self.server.client()
        self.client.ask(b"get q")
        dropped, heard = [self.figure("expired_items")], []
        while self.client.session.busy:
            other.ask(b"version")
            self.step()
            dropped.append(self.figure("expired_items"))
            heard.append(other.hears())
        self.assertEqual(dropped[0], 10)
        self.assertLessEqual(max(after - before for before, after in pairwise(dropped)), 10)
        self.assertEqual(dropped[-1], 95)
        self.assertGreaterEqual(len(dropped), 9)
        self.assertTrue(all(heard[1:]))
        self.server.commit()
        self.assertEqual(self.client.hears(), value(b"q", b"live"))
        self.assertEqual((self.total("expired_items"), self.total("get_hits")), (95, 1))

    def test_nothing_behind(self) -> None:
        self.client.ask(b"get q")
        self.client.ask(b"version")
        self.step()
        self.assertEqual(self.client.hears(), b"", "it waits, and so does what follows")
        self.server.commit()
        self.assertTrue(self.client.hears().startswith(memcache.END + b"VERSION"))
        self.assertEqual((self.total("get_misses"), self.server.figures(b"q")), (1, (0, 0)))

    def test_bytes_are_bounded_too(self) -> None:
        self.serve()
        for _ in range(50):
            self.client.sets(b"q", bytes(CHUNK_BYTES - 10), expiry=-1)
        self.client.ask(b"get q")
        self.assertLessEqual(self.figure("expired_items"), SWEEP_BYTES // CHUNK_BYTES + 1)
        self.server.commit()
        self.assertEqual((self.client.hears(), self.figure("expired_items")), (memcache.END, 50))

    def test_every_kind_of_read(self) -> None:
        for ask in (b"get q", b"get q/open", b"get q/peek", b"get q/t=1000", b"get q q", b"get r q"):
            self.client.sets(b"q", b"live")
            client = self.server.client()
            self.assertEqual(client.does(ask), value(b"q", b"live"), ask)
            client.leave()
            self.client.does(b"delete q")
            self.swarm(25)

    def test_in_line(self) -> None:
        """Readers without a wait are served in line with those that wait."""
        clients = [self.server.client() for _ in range(4)]
        for at, client in enumerate(clients):
            client.ask(b"get q/t=9000" if at % 2 else b"get q")
        for payload in (b"0", b"1"):
            self.client.set(b"q", payload)
        self.server.commit()
        self.assertEqual(
            [client.hears() for client in clients], [value(b"q", b"0"), value(b"q", b"1"), memcache.END, b""]
        )
        self.assertEqual(self.figure("waiters"), 1)

    def test_wait_ends_meanwhile(self) -> None:
        """A client whose time is up during a sweep gets the item behind the expired ones."""
        self.client.sets(b"q", b"live")
        self.client.ask(b"get q/t=50")
        other = self.server.client()
        other.ask(b"get q/t=60")
        for client in (self.client, other):
            timer = client.session.reads._timer
            assert timer is not None
            timer.cancel()
            client.session.reads._time_out()
            self.assertTrue(client.session.busy)
        self.server.commit()
        self.assertEqual((self.client.hears(), other.hears()), (value(b"q", b"live"), memcache.END))

    def test_half_closed_meanwhile(self) -> None:
        self.client.sets(b"q", b"live")
        self.client.ask(b"get q/t=50")
        self.client.session.reads.hurry()
        self.assertTrue(self.client.session.busy)
        self.server.commit()
        self.assertEqual(self.client.hears(), value(b"q", b"live"))

    def test_client_leaves_meanwhile(self) -> None:
        self.client.sets(b"q", b"live")
        other = self.server.client()
        other.ask(b"get q")
        other.leave()
        self.assertEqual(self.client.does(b"get q"), value(b"q", b"live"))

    def test_given_back_meanwhile(self) -> None:
        """An item that is given back comes before the others."""
        self.client.does(b"delete q")
        self.client.sets(b"q", b"first")
        self.client.does(b"get q/open")
        self.swarm(25)
        other = self.server.client()
        other.ask(b"get q")
        self.client.ask(b"get q/abort")
        self.server.commit()
        self.assertEqual(other.hears(), value(b"q", b"first"))

    def test_flushed_or_deleted_meanwhile(self) -> None:
        for ask in (b"flush q", b"delete q"):
            self.swarm(95)
            other = self.server.client()
            other.ask(b"get q")
            self.assertTrue(self.fifo.sweeping)
            self.client.ask(ask)
            self.server.commit()
            self.assertEqual(other.hears(), memcache.END, ask)

    def test_more_expired_behind_a_live_one(self) -> None:
        self.client.sets(b"q", b"live")
        self.swarm(25)
        self.client.sets(b"q", b"last")
        clients = [self.server.client() for _ in range(3)]
        for client in clients:
            client.ask(b"get q")
        self.server.commit()
        self.assertEqual(
            [client.hears() for client in clients], [value(b"q", b"live"), value(b"q", b"last"), memcache.END]
        )

    def test_unreadable_meanwhile(self) -> None:
        self.client.does(b"delete q")
        for _ in range(40):
            self.client.sets(b"q", bytes(20_000), expiry=-1)
        clients = [self.server.client() for _ in range(2)]
        for client in clients:
            client.ask(b"get q")
        flushing = self.server.client()
        flushing.ask(b"flush_expired q")
        many = self.server.client()
        many.ask(b"get r q")
        self.server.store.unreadable = True
        self.server.commit()
        for client in (*clients, flushing, many):
            self.assertEqual(client.hears(), b"SERVER_ERROR unreadable\r\n")
        self.assertEqual(many.does(b"get q r"), b"SERVER_ERROR unreadable\r\n")
        self.server.store.unreadable = False
        self.assertEqual(self.client.does(b"get q"), memcache.END)

    def test_several_queues(self) -> None:
        """Nothing is taken from any queue before all sweeps are over."""
        self.client.sets(b"q", b"live")
        self.client.sets(b"a", b"one")
        self.swarm(25, b"b")
        self.client.ask(b"get a q b")
        self.assertEqual(self.server.figures(b"a"), (1, 3))
        self.server.commit()
        self.assertEqual(self.client.hears(), value(b"a", b"one", end=b"") + value(b"q", b"live"))
        self.assertEqual(self.total("cmd_get"), 3)

    def test_calls_of_an_application(self) -> None:
        for kind in (Reading, Opening, Peeking):
            for timeout in (0, 9, None):
                self.client.sets(b"q", b"live")
                call = kind(self.server.queues, b"q", lambda _: None)
                self.assertTrue(call.start(timeout))
                self.server.commit()
                self.assertEqual(self.successResultOf(call.deferred).payload, b"live")
                self.client.does(b"delete q")
                self.swarm(25)

    def test_calls_that_find_nothing(self) -> None:
        call = Reading(self.server.queues, b"q", lambda _: None)
        self.assertTrue(call.start(0))
        late = Reading(self.server.queues, b"q", lambda _: None)
        self.assertTrue(late.start(5))
        late._timer.cancel()  # type: ignore[union-attr]
        late._give_up()
        self.server.commit()
        self.assertIsNone(self.successResultOf(call.deferred))
        self.assertIsNone(self.successResultOf(late.deferred))
        self.assertFalse(Reading(self.server.queues, b"q", lambda _: None).start(0))

    def test_stop_meanwhile(self) -> None:
        self.client.ask(b"get q")
        flushing = self.server.client()
        flushing.ask(b"flush_expired q")
        self.client.leave()
        flushing.leave()
        self.server.stop()
        self.assertEqual(self.server.clock.getDelayedCalls(), [])
        self.restart()
        self.assertEqual(self.client.does(b"get q"), memcache.END)


class FlushExpiredTests(ExpiryTestCase):
    def test_queue(self) -> None:
        self.serve(max_expire_sweep=10)
        self.swarm(35)
        self.client.sets(b"q", b"live")
        self.swarm(2)
        self.client.ask(b"flush_expired q")
        self.step()
        self.assertEqual(self.client.hears(), b"")
        self.server.commit()
        self.assertEqual(self.client.hears(), b"35\r\n")
        self.assertEqual(self.client.does(b"flush_expired q"), b"0\r\n")
        self.assertEqual(self.client.does(b"get q"), value(b"q", b"live"))
        self.assertEqual(self.client.does(b"FLUSH_EXPIRED q"), b"2\r\n")
        self.assertEqual(self.client.does(b"flush_expired other"), b"0\r\n")
        self.assertEqual(self.server.queues.names(), [b"q"])

    def test_all(self) -> None:
        self.serve(max_expire_sweep=10)
        for at in range(LOOKS + 2):
            self.swarm(1 + at % 2, b"q%d" % at)
        self.swarm(25, b"q5")
        self.assertEqual(self.client.does(b"flush_all_expired"), b"%d\r\n" % ((LOOKS + 2) * 3 // 2 + 25))
        self.assertEqual(self.client.does(b"flush_all_expired"), b"0\r\n")

    def test_deleted_meanwhile(self) -> None:
        """Items that were dropped before the deletion are counted."""
        self.serve(max_expire_sweep=10)
        self.swarm(35)
        self.client.ask(b"flush_expired q")
        self.server.client().ask(b"delete q")
        self.server.commit()
        self.assertEqual(self.client.hears(), b"10\r\n")

    def test_cannot_be_written(self) -> None:
        self.serve()
        self.swarm(5)
        self.server.store.broken = 2
        self.assertEqual(self.client.does(b"flush_expired q"), b"SERVER_ERROR no room\r\n")

    def test_wrong(self) -> None:
        self.serve()
        for ask, reply in (
            (b"flush_expired", b"CLIENT_ERROR flush_expired needs one queue name\r\n"),
            (b"flush_expired q/r", b"CLIENT_ERROR bad queue name\r\n"),
            (b"flush_all_expired q", b"CLIENT_ERROR flush_all_expired takes no arguments\r\n"),
        ):
            self.assertEqual(self.client.does(ask), reply)


class AgeTests(ExpiryTestCase):
    def test_max_age(self) -> None:
        """The earlier of both holds."""
        self.serve(max_age=5.0)
        self.client.sets(b"never", b"x")
        self.client.sets(b"later", b"x", expiry=60)
        self.client.sets(b"sooner", b"x", expiry=2)
        self.server.clock.advance(3)
        self.assertEqual(self.had(b"sooner"), [])
        self.server.clock.advance(1.9)
        for queue in (b"never", b"later"):
            self.assertNotEqual(self.client.does(b"get %b/peek" % queue), memcache.END)
        self.restart()
        self.server.clock.advance(0.1)
        for queue in (b"never", b"later"):
            self.assertEqual(self.had(queue), [])


class TimerTests(ExpiryTestCase):
    def pass_time(self, seconds: float) -> None:
        self.server.clock.pump([0.5] * int(seconds * 2))

    def test_idle_queue_is_swept(self) -> None:
        self.serve()
        self.client.sets(b"q", b"one", expiry=5)
        self.client.sets(b"q", b"two", expiry=3)
        self.client.sets(b"q", b"three", expiry=20)
        self.pass_time(4)
        self.assertEqual(self.figure("items"), 3)
        self.pass_time(3)
        self.assertEqual((self.figure("items"), self.figure("expired_items")), (1, 2))
        self.pass_time(20)
        self.assertEqual(self.figure("items"), 0)
        self.assertEqual(self.server.clock.getDelayedCalls(), [], "nobody looks any more")

    def test_after_a_restart(self) -> None:
        self.serve()
        self.client.sets(b"q", b"one", expiry=5)
        self.client.sets(b"plain", b"one")
        self.restart()
        self.pass_time(8)
        self.assertEqual(self.server.figures(b"q"), (0, 0))
        self.assertEqual(self.server.figures(b"plain"), (1, 3))

    def test_costs_nothing_where_nothing_expires(self) -> None:
        self.serve()
        self.client.sets(b"q", b"one")
        self.assertEqual(self.server.clock.getDelayedCalls(), [])
        self.restart()
        self.pass_time(2)
        self.assertTrue(self.fifo.perishable, "of what was there at the start nobody knows")
        self.client.does(b"get q")
        self.client.sets(b"q", b"two")
        self.pass_time(4)
        self.assertFalse(self.fifo.perishable)
        self.client.does(b"get q")
        self.assertEqual(self.server.clock.getDelayedCalls()[1:], [])
        self.server.clock.pump([6] * 20)
        self.assertEqual(self.server.clock.getDelayedCalls(), [])

    def test_behind_what_does_not_expire(self) -> None:
        self.serve()
        self.client.sets(b"q", b"one")
        self.client.sets(b"q", b"two", expiry=5)
        self.pass_time(7)
        self.assertEqual(self.figure("items"), 2)
        self.client.does(b"get q")
        self.pass_time(3)
        self.assertEqual(self.figure("items"), 0)

    def test_given_back(self) -> None:
        self.serve()
        self.client.sets(b"q", b"one", expiry=5)
        self.client.does(b"get q/open")
        self.pass_time(7)
        self.client.does(b"get q/abort")
        self.assertEqual(self.figure("items"), 1)
        self.pass_time(2)
        self.assertEqual(self.figure("items"), 0)

    def test_many_queues(self) -> None:
        """A bounded number of queues is checked in a turn, and many expired items in one do not delay the others."""
        self.serve(max_expire_sweep=5)
        for at in range(LOOKS * 2):
            self.client.sets(b"q%d" % at, b"one", expiry=5)
        self.swarm(100)
        self.pass_time(7)
        self.assertEqual(self.total("curr_items"), 0)
        self.assertEqual(self.total("expired_items"), LOOKS * 2 + 100)

    def test_unreadable(self) -> None:
        self.serve()
        self.client.sets(b"q", b"one", expiry=3)
        self.restart()
        self.server.store.unreadable = True
        self.pass_time(5)
        self.assertEqual(self.figure("items"), 1)
        self.server.store.unreadable = False
        self.pass_time(2)
        self.assertEqual(self.figure("items"), 0)

    def test_deleted_queue_is_forgotten(self) -> None:
        self.serve()
        self.client.sets(b"q", b"one", expiry=5000)
        self.pass_time(2)
        self.client.does(b"delete q")
        self.server.clock.pump([6] * 20)
        self.assertEqual(self.server.clock.getDelayedCalls(), [])

    def test_fault_of_ours(self) -> None:
        """An internal error is logged, and the other queues are swept."""
        self.serve()
        self.client.sets(b"q", b"one", expiry=3)
        self.client.sets(b"r", b"one", expiry=3)
        self.pass_time(2)
        self.patch(Bounds, "due", lambda bounds: 1 // (bounds._queue.name != b"q") * 0)
        self.server.queues.expiry.watch(self.fifo)
        self.pass_time(2)
        self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))

    def test_stopped(self) -> None:
        self.serve()
        self.client.sets(b"q", b"one", expiry=3)
        self.server.stop()
        self.server.queues.expiry.watch(self.fifo)
        self.server.queues.expiry.sweep(self.fifo)
        self.assertEqual(self.server.clock.getDelayedCalls(), [])


class MoveTests(ExpiryTestCase):
    """C{expire_to_queue}."""

    def setUp(self) -> None:
        self.serve({"q": {"expire_to_queue": "dead", "max_expire_sweep": 3}})

    def test_order_and_restart(self) -> None:
        payloads = [b"%d" % at for at in range(10)]
        for payload in payloads:
            self.client.sets(b"q", payload, flags=7, expiry=2)
        self.server.clock.pump([0.5] * 8)
        self.assertEqual((self.server.figures(b"q"), self.server.figures(b"dead")), ((0, 0), (10, 10)))
        self.restart()
        self.assertEqual(self.client.does(b"get dead/peek"), value(b"dead", b"0", flags=7))
        self.assertEqual(self.had(b"dead"), payloads)
        self.assertEqual(self.had(b"q"), [])

    def test_large(self) -> None:
        self.client.sets(b"q", LARGE, expiry=2)
        self.server.clock.pump([1] * 4)
        self.restart()
        self.assertEqual(self.had(b"dead"), [LARGE])

    def test_read_moves_too(self) -> None:
        self.swarm(5)
        waiter = self.server.client()
        waiter.ask(b"get dead/t=1000")
        self.client.sets(b"q", b"live")
        self.assertEqual(self.client.does(b"get q"), value(b"q", b"live"))
        self.assertEqual(waiter.hears(), value(b"dead", b"old"))
        self.assertEqual(self.server.figures(b"dead"), (4, 12))

    def test_max_age_of_the_other_queue(self) -> None:
        self.serve({"q": {"expire_to_queue": "dead"}, "dead": {"max_age": 4.0}})
        self.client.sets(b"q", b"one", expiry=2)
        self.server.clock.pump([0.5] * 8)
        self.assertEqual(self.server.figures(b"dead"), (1, 3))
        self.server.clock.pump([0.5] * 8)
        self.assertEqual(self.server.figures(b"dead"), (0, 0))

    def test_payload_that_was_let_go_of(self) -> None:
        payload = b"x" * (HEAVY + 1)
        for _ in range(2):
            self.client.sets(b"q", payload, expiry=2)
        self.client.does(b"get q/open")
        self.client.does(b"get q/abort")
        self.server.clock.pump([1] * 4)
        self.assertEqual(self.had(b"dead"), [payload] * 2)

    def test_payload_that_is_missing(self) -> None:
        """It does not block the queue."""
        self.client.sets(b"q", b"x" * (HEAVY + 1), expiry=2)
        self.client.sets(b"q", b"two", expiry=2)
        self.client.does(b"get q/open")
        self.client.does(b"get q/abort")
        self.server.commit()
        del self.server.store.store.queues[0].items[0]
        self.server.clock.pump([1] * 4)
        self.assertEqual((self.had(b"dead"), self.server.figures(b"q")), ([b"two"], (0, 0)))

    def test_disk_is_full(self) -> None:
        """The item stays, the store is not tried at each request, and the move is made once there is space."""
        self.swarm(8)
        self.client.sets(b"q", b"live")
        self.server.store.full = True
        self.assertEqual(self.client.does(b"get q"), b"SERVER_ERROR no room\r\n")
        self.assertEqual(self.server.figures(b"q"), (9, 28))
        self.server.clock.pump([1] * 4)
        self.assertEqual((self.server.figures(b"q"), self.server.figures(b"dead")), ((9, 28), (0, 0)))
        self.server.store.full = False
        self.server.clock.pump([1] * 4)
        self.assertEqual(self.client.does(b"get q"), value(b"q", b"live"))
        self.assertEqual(self.server.figures(b"dead"), (8, 24))

    def test_queue_cannot_be_made(self) -> None:
        self.swarm(1)
        self.server.store.numberless = True
        self.assertEqual(self.client.does(b"get q"), b"SERVER_ERROR no numbers\r\n")
        self.assertEqual(self.server.figures(b"q"), (1, 3))
        self.server.store.numberless = False
        self.server.clock.pump([1] * 4)
        self.assertEqual(self.server.figures(b"dead"), (1, 3))

    def test_in_a_circle(self) -> None:
        """Two queues that send each other their expired items, while a client waits for both."""
        self.serve({"q": {"expire_to_queue": "r"}, "r": {"expire_to_queue": "q"}})
        self.swarm(3, b"q")
        self.swarm(3, b"r")
        waiters = [self.server.client() for _ in range(2)]
        self.assertEqual(self.server.queues.find(b"r").count, 3)  # type: ignore[union-attr]
        waiters[0].ask(b"get q/t=1000")
        waiters[1].ask(b"get r/t=1000")
        self.server.commit()
        self.server.clock.pump([0.1] * 5)
        self.assertEqual([waiter.hears() for waiter in waiters], [value(b"q", b"old"), value(b"r", b"old")])


class QueueAgeTests(ExpiryTestCase):
    def setUp(self) -> None:
        self.serve({"q": {"max_queue_age": 10.0}})

    def pass_time(self, seconds: float) -> None:
        self.server.clock.pump([0.5] * int(seconds * 2))

    def test_empty(self) -> None:
        self.client.sets(b"q", b"one")
        self.client.does(b"get q")
        self.pass_time(9)
        self.assertEqual(self.server.queues.names(), [b"q"])
        self.pass_time(3)
        self.assertEqual(self.server.queues.names(), [])
        self.assertEqual((self.total("queue_expires"), self.total("queue_deletes")), (1, 1))
        self.restart()
        self.assertEqual(self.server.queues.names(), [])

    def test_with_items(self) -> None:
        self.client.sets(b"q", b"one", expiry=20)
        self.client.sets(b"q", b"two", expiry=30)
        self.pass_time(15)
        self.assertEqual(self.figure("items"), 2)
        self.pass_time(20)
        self.assertEqual(self.server.queues.names(), [])

    def test_flushed_and_read(self) -> None:
        for ask in (b"flush q", b"get q"):
            self.client.sets(b"q", b"one")
            self.pass_time(15)
            self.assertEqual(self.figure("items"), 1)
            self.client.does(ask)
            self.pass_time(2)
            self.assertEqual(self.server.queues.names(), [])

    def test_not_while_somebody_waits_or_has_an_item_open(self) -> None:
        self.client.sets(b"q", b"one")
        self.client.does(b"get q/open")
        self.pass_time(12)
        self.assertEqual(self.server.queues.names(), [b"q"])
        waiter = self.server.client()
        waiter.does(b"get q/t=5000")
        self.client.does(b"get q/close")
        self.pass_time(3)
        self.assertEqual(self.server.queues.names(), [b"q"])
        self.pass_time(4)
        self.assertEqual((waiter.hears(), self.server.queues.names()), (memcache.END, []))

    def test_recovered_and_other_settings(self) -> None:
        self.client.sets(b"q", b"one")
        self.client.sets(b"r", b"one")
        for queue in (b"q", b"r"):
            self.client.does(b"get " + queue)
        self.restart()
        self.server.queues.apply(Policies(QueueSettings(max_queue_age=15.0)))
        self.pass_time(12)
        self.assertEqual(self.server.queues.names(), [b"q", b"r"])
        self.pass_time(5)
        self.assertEqual(self.server.queues.names(), [])
