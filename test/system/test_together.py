"""
Tests of what the settings of queues do to each other: sweeps with waits on several queues and monitors, limits with
children and aliases, the server's status with children, open reads that were late with ``confirm``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from twisted.trial.unittest import SynchronousTestCase

from darner.config.policies import Policies, QueueSettings
from darner.errors import StoreError
from darner.front import memcache
from darner.front.calls import Reading
from darner.queues.collection import Queues
from darner.queues.contents import Contents
from darner.queues.fifo import Fifo
from darner.store.memory import MemoryStore
from darner.values import requests
from darner.values.items import Item
from darner.values.vocabulary import CHUNK_BYTES
from test.harness import REFUSED, Server, from_source, value

NOTHING_STORED = b"NOT_STORED\r\n"


class TogetherTestCase(SynchronousTestCase):
    """
    @cvar queues: settings by the name of a queue.
    @cvar aliases: queues by the name of an alias.
    """

    defaults: Mapping[str, Any] = {}
    queues: Mapping[str, dict[str, Any]] = {}
    aliases: Mapping[bytes, tuple[bytes, ...]] = {}

    def setUp(self) -> None:
        policies = Policies(QueueSettings(**self.defaults), dict(self.queues), dict(self.aliases))
        self.server = Server(MemoryStore(), lambda store, surroundings, _: Queues(store, surroundings, policies))
        self.client = self.server.client()
        self.other = self.server.client()

    def fifo(self, name: bytes) -> Fifo:
        fifo = self.server.queues.find(name)
        assert fifo is not None
        return fifo

    def swarm(self, queue: bytes, count: int = 95) -> None:
        """Put items that have expired."""
        for _ in range(count):
            self.other.sets(queue, b"old", expiry=-1)

    def step(self, count: int = 1) -> None:
        """Let turns of the event loop pass."""
        for _ in range(count):
            call = self.server.clock.calls.pop(0)
            self.assertEqual(call.getTime(), self.server.clock.seconds())
            call.called = 1
            call.func(*call.args, **call.kw)

    def advance(self, seconds: float) -> None:
        self.server.clock.advance(seconds)
        self.server.commit()

    def had(self, queue: bytes) -> list[bytes]:
        payloads = []
        while (reply := self.other.does(b"get " + queue)) != memcache.END:
            header, _, rest = reply.partition(b"\r\n")
            payloads.append(rest[: int(header.split()[3])])
        return payloads

    def idle(self) -> None:
        """Nobody waits for anything, and no queue is known for that."""
        queues = self.server.queues
        self.assertEqual(sorted(queues._fifos), queues.names())
        self.assertFalse(any(fifo.waiters for fifo in queues._fifos.values()))
        self.assertFalse(self.client.session.busy)


class SweepTests(TogetherTestCase):
    """More items have expired at the head of a queue than one sweep drops."""

    defaults = {"max_expire_sweep": 10, "max_open_reads": 5}

    def test_first_named_goes_first(self) -> None:
        """An item behind a sweep of the first queue is served before an item of the second."""
        for options in (b"t=0", b"t=1000", b"open/t=0", b"peek/t=500"):
            self.swarm(b"a")
            self.other.sets(b"a", b"first")
            self.other.sets(b"b", b"second")
            self.client.ask(b"get a b/" + options)
            self.step()
            self.assertEqual(self.client.hears(), b"")
            self.assertTrue(self.fifo(b"a").sweeping)
            self.server.commit()
            self.assertEqual(self.client.hears(), value(b"a", b"first"), options)
            self.idle()
            self.client.leave()
            self.client = self.server.client()
            self.other.does(b"flush_all")

    def test_nothing_behind(self) -> None:
        self.swarm(b"a")
        self.other.sets(b"b", b"second")
        self.assertEqual(self.client.does(b"get a b/t=0"), value(b"b", b"second"))
        self.swarm(b"a")
        self.swarm(b"b")
        self.assertEqual(self.client.does(b"get a b/t=0"), memcache.END)
        self.assertEqual(self.server.queues.stats.get_misses, 1)
        self.idle()

    def test_waits_on_behind_it(self) -> None:
        """After the sweep it waits in all lines, and its time counts from the start."""
        self.swarm(b"a")
        self.assertEqual(self.client.does(b"get a b/t=1000"), b"")
        self.assertEqual((len(self.fifo(b"a").waiters), len(self.fifo(b"b").waiters)), (1, 1))
        self.advance(0.999)
        self.assertEqual(self.client.hears(), b"")
        self.advance(0.001)
        self.assertEqual(self.client.hears(), memcache.END)
        self.idle()
        self.assertEqual(self.client.does(b"get a b/t=1000"), b"")
        self.other.sets(b"b", b"1")
        self.assertEqual(self.client.hears(), value(b"b", b"1"))
        self.idle()

    def test_swept_while_it_waits(self) -> None:
        """The item of the second queue has to wait until the sweep of the first ends."""
        self.exist(b"a")
        self.assertEqual(self.client.does(b"get a b/t=1000"), b"")
        self.hold_sweeping(b"a")
        self.other.sets(b"b", b"second")
        self.assertEqual(self.client.hears(), b"")
        self.assertEqual(len(self.fifo(b"b").waiters), 0)
        self.fifo(b"a").sweep_on()
        self.server.commit()
        self.assertEqual(self.client.hears(), value(b"b", b"second"))
        self.idle()

    def exist(self, *names: bytes) -> None:
        for name in names:
            self.other.sets(name, b"")
            self.other.does(b"get " + name)

    def hold_sweeping(self, name: bytes) -> None:
        """Have a queue be in a sweep that nobody goes on with."""
        self.fifo(name).sweeping = True

    def test_time_is_up_meanwhile(self) -> None:
        """It gets a reply when the sweep ends, also if several queues are swept one after the other."""
        self.exist(b"b", b"c")
        self.client.ask(b"get a b c/t=1000")
        self.server.commit()
        self.hold_sweeping(b"b")
        self.hold_sweeping(b"c")
        self.advance(1)
        self.assertEqual(self.client.hears(), b"")
        self.fifo(b"b").sweep_on()
        self.server.commit()
        self.assertEqual(self.client.hears(), b"")
        self.fifo(b"c").sweep_on()
        self.server.commit()
        self.assertEqual(self.client.hears(), memcache.END)
        self.idle()

    def test_hangs_up_meanwhile(self) -> None:
        self.swarm(b"a")
        self.other.sets(b"b", b"second")
        self.client.ask(b"get a b/t=1000")
        self.step()
        self.client.session.reads.hurry()
        self.server.commit()
        self.assertEqual(self.client.hears(), value(b"b", b"second"))
        self.idle()

    def test_hangs_up_with_many(self) -> None:
        """A read of one item of each queue goes on as well."""
        self.swarm(b"a")
        self.other.sets(b"b", b"second")
        self.client.ask(b"get a b")
        self.step()
        self.client.session.reads.hurry()
        self.client.session.go_on()
        self.server.commit()
        self.assertEqual(self.client.hears(), value(b"b", b"second"))
        self.idle()

    def test_refused_meanwhile(self) -> None:
        """The server may be told to refuse reads while it waits to take an item of each queue."""
        self.swarm(b"a")
        self.client.ask(b"get a b")
        self.step()
        self.other.session.perform(requests.SetStatus("quiescent"))
        self.server.commit()
        self.assertEqual(self.client.hears(), b"SERVER_ERROR server is quiescent\r\n")
        self.idle()

    def test_gone_meanwhile(self) -> None:
        for ask in (b"get a b/t=0", b"get a b", b"monitor a 5"):
            self.swarm(b"a")
            client = self.server.client()
            client.ask(ask)
            client.leave()
            self.server.commit()
            self.idle()

    @from_source
    def test_unreadable_behind(self) -> None:
        for ask in (b"get a b/t=0", b"monitor a 0", b"get a b"):
            with self.subTest(ask):
                self.swarm(b"a")
                self.other.sets(b"a", b"1")
                self.client.ask(ask)
                self.step()
                self.assertEqual(self.client.hears(), b"")

                def unreadable(contents: Contents) -> Optional[Item]:
                    raise StoreError("unreadable")

                patch = self.patch(Contents, "read_first", unreadable)
                self.fifo(b"a").storage.contents.head.evict()
                self.server.commit()
                patch.restore()
                self.assertEqual(self.client.hears(), b"SERVER_ERROR unreadable\r\n")
                self.client.does(b"flush a")
                self.idle()

    def test_monitor_of_what_is_there(self) -> None:
        """With 0 seconds the monitor gets all items behind the expired ones."""
        self.swarm(b"a")
        for payload in (b"1", b"2"):
            self.other.sets(b"a", payload)
        self.client.ask(b"monitor a 0")
        self.step()
        self.assertEqual(self.client.hears(), b"")
        self.server.commit()
        self.assertEqual(self.client.hears(), value(b"a", b"1") + value(b"a", b"2") + memcache.END)
        self.client.does(b"confirm a 2")
        self.swarm(b"a")
        self.assertEqual(self.client.does(b"monitor a 0"), memcache.END)
        self.idle()

    def test_monitor_goes_on(self) -> None:
        self.swarm(b"a")
        self.assertEqual(self.client.does(b"monitor a 5"), b"")
        self.other.sets(b"a", b"1")
        self.assertEqual(self.client.hears(), value(b"a", b"1"))
        self.hold_sweeping(b"a")
        self.advance(5)
        self.assertEqual(self.client.hears(), b"", "nobody knows yet what is behind")
        self.fifo(b"a").sweep_on()
        self.server.commit()
        self.assertEqual(self.client.hears(), memcache.END)
        self.idle()

    def test_monitor_is_over_and_sated(self) -> None:
        """With 0 seconds the monitor gets the items that can be sent at once."""
        for _ in range(2):
            self.other.sets(b"a", bytes(CHUNK_BYTES + 1))
        self.client.ask(b"monitor a 0")
        for _ in range(9):
            self.server.commit()
        self.assertEqual(self.client.hears(), value(b"a", bytes(CHUNK_BYTES + 1)) + memcache.END)
        self.assertEqual(self.fifo(b"a").open_count, 1)

    def test_call(self) -> None:
        """An application's read of a child that does not exist makes it, also where others are swept."""
        for name in (b"a+1", b"a"):
            self.swarm(name, 25)
            self.other.sets(name, b"live")
            call = Reading(self.server.queues, name, lambda _: None)
            call.start(0)
            self.server.commit()
            self.assertEqual(self.successResultOf(call.deferred).payload, b"live")


class LimitTests(TogetherTestCase):
    queues = {
        "q": {"max_items": 3},
        "q+short": {"max_items": 1},
        "q+last": {"max_items": 2, "discard_old_when_full": True},
        "q+small": {"max_bytes": 2},
        "p": {"max_items": 1, "fanout_only": True, "discard_old_when_full": True},
        "p+all": {"max_items": None, "discard_old_when_full": False},
        "full": {"max_items": 2},
        "dropping": {"max_items": 2, "discard_old_when_full": True},
        "small": {"max_bytes": 2},
    }
    aliases = {b"all": (b"dropping", b"full", b"new"), b"most": (b"dropping", b"small")}

    def sets(self, queue: bytes, *payloads: bytes) -> list[bytes]:
        return [self.client.sets(queue, payload) for payload in payloads]

    def test_children(self) -> None:
        """A child over its limit is passed over, one that may drop old items does, and the parent refuses for all."""
        for child in (b"q+short", b"q+last", b"q+small", b"q+like"):
            self.client.does(b"get " + child)
        self.assertEqual(self.sets(b"q", b"1", b"2", b"3", b"4"), [memcache.STORED] * 3 + [NOTHING_STORED])
        self.assertEqual(self.had(b"q"), [b"1", b"2", b"3"])
        self.assertEqual(self.had(b"q+short"), [b"1"])
        self.assertEqual(self.had(b"q+last"), [b"2", b"3"])
        self.assertEqual(self.had(b"q+small"), [b"1", b"2"])
        self.assertEqual(self.had(b"q+like"), [b"1", b"2", b"3"])
        self.assertEqual(self.server.queues.queue_figures(b"q+last")["discarded"], 1)

    def test_refused_drops_nothing(self) -> None:
        """Where the parent is full, its children keep what they have."""
        self.client.does(b"get q+last")
        self.sets(b"q", b"1", b"2", b"3")
        self.assertEqual(self.sets(b"q", b"4"), [NOTHING_STORED])
        self.assertEqual(self.had(b"q+last"), [b"2", b"3"])

    def test_too_large_for_a_child(self) -> None:
        self.client.does(b"get q+small")
        self.assertEqual(self.sets(b"q", b"123"), [memcache.STORED])
        self.assertEqual((self.had(b"q"), self.had(b"q+small")), ([b"123"], []))

    def test_large(self) -> None:
        for child in (b"q+short", b"q+last"):
            self.client.does(b"get " + child)
        large = [bytes([number]) * (CHUNK_BYTES + 1) for number in range(4)]
        self.assertEqual(self.sets(b"q", *large), [memcache.STORED] * 3 + [NOTHING_STORED])
        for queue, count in ((b"q", 3), (b"q+short", 1), (b"q+last", 2)):
            self.assertEqual(self.server.figures(queue)[0], count)

    def test_fanout_only(self) -> None:
        """A parent that keeps nothing is never full, and drops nothing for what it does not keep."""
        self.server.queues.apply(Policies())
        self.sets(b"p", b"before")
        self.server.queues.apply(Policies(QueueSettings(), dict(self.queues)))
        self.client.does(b"get p+all")
        self.assertEqual(self.sets(b"p", b"1", b"2"), [memcache.STORED] * 2)
        self.assertEqual((self.had(b"p"), self.had(b"p+all")), ([b"before"], [b"1", b"2"]))

    def test_alias(self) -> None:
        """One that is full refuses for all, nothing is dropped for that, and no queue is made."""
        self.sets(b"full", b"1", b"2")
        self.sets(b"dropping", b"3", b"4")
        self.assertEqual(self.sets(b"all", b"5"), [NOTHING_STORED])
        self.assertEqual(self.server.queues.names(), [b"dropping", b"full"])
        self.assertEqual((self.had(b"full"), self.had(b"dropping")), ([b"1", b"2"], [b"3", b"4"]))
        self.assertEqual(self.sets(b"all", b"5", b"6", b"7"), [memcache.STORED] * 2 + [NOTHING_STORED])
        self.had(b"full")
        self.assertEqual(self.sets(b"all", b"8"), [memcache.STORED])
        self.assertEqual((self.had(b"full"), self.had(b"dropping")), ([b"8"], [b"6", b"8"]))
        self.assertEqual(self.had(b"new"), [b"5", b"6", b"8"])

    def test_too_large_for_one_of_an_alias(self) -> None:
        self.assertEqual(self.sets(b"most", b"123"), [NOTHING_STORED])
        self.assertEqual(self.server.queues.names(), [])
        self.assertEqual(self.sets(b"most", b"12"), [memcache.STORED])

    def test_cannot_make_room(self) -> None:
        """If the oldest items cannot be read, no queue gets the item, and no new queue is left."""
        self.sets(b"dropping", b"1", b"2")
        self.fifo(b"dropping").storage.contents.head.evict()
        self.server.store.unreadable = True
        self.assertEqual(self.sets(b"all", b"3"), [b"SERVER_ERROR unreadable\r\n"])
        self.server.store.unreadable = False
        self.server.commit()
        self.assertEqual(self.server.queues.names(), [b"dropping"])
        self.assertEqual(self.had(b"dropping"), [b"1", b"2"])

    def test_requeue(self) -> None:
        """Items moved to a parent do not go to its children; nothing can be moved to an alias."""
        self.client.does(b"get q+like")
        self.sets(b"dead", b"1")
        self.assertEqual(self.client.does(b"requeue dead all"), b"CLIENT_ERROR an alias is no queue\r\n")
        self.assertEqual(self.client.does(b"requeue dead q"), b"1\r\n")
        self.assertEqual((self.had(b"q"), self.had(b"q+like")), ([b"1"], []))


class StatusTests(TogetherTestCase):
    aliases = {b"all": (b"a", b"b")}

    def test_no_child_while_readonly(self) -> None:
        self.client.sets(b"q", b"0")
        self.client.does(b"status readonly")
        for ask in (b"get q+1", b"get q+1 q+2", b"get q+1 q+2/t=0", b"monitor q+1 0", b"get q+1/peek"):
            self.assertEqual(self.client.does(ask), memcache.END, ask)
        self.assertEqual(self.client.does(b"get q+1/t=1000"), b"")
        self.assertEqual(self.server.queues.names(), [b"q"])
        self.advance(1)
        self.assertEqual(self.client.hears(), memcache.END)
        self.client.does(b"status up")
        self.other.sets(b"q", b"1")
        self.assertEqual(self.client.does(b"get q+1"), memcache.END)
        self.other.sets(b"q", b"2")
        self.assertEqual(self.had(b"q+1"), [b"2"])

    def test_sets(self) -> None:
        self.client.does(b"get q+1")
        self.client.does(b"status readonly")
        for queue in (b"q", b"q+1", b"all"):
            for payload in (b"1", bytes(CHUNK_BYTES + 1)):
                self.assertEqual(self.client.sets(queue, payload), b"SERVER_ERROR server is readonly\r\n")
        self.assertEqual(self.server.queues.names(), [b"q+1"])

    def test_quiescent(self) -> None:
        """Reads are refused; open reads can be confirmed."""
        self.client.does(b"status quiescent")
        for ask in (b"monitor q 5", b"get q r/t=5", b"get q r/close/open/t=0"):
            self.assertEqual(self.client.does(ask), b"SERVER_ERROR server is quiescent\r\n", ask)
        self.client.does(b"status up")
        self.other.sets(b"r", b"1")
        self.assertEqual(self.client.does(b"monitor r 0 1"), value(b"r", b"1") + memcache.END)
        self.client.does(b"status quiescent")
        self.assertEqual(self.client.does(b"confirm r 1"), memcache.END)
        self.assertEqual(self.fifo(b"r").open_count, 0)


class LateTests(TogetherTestCase):
    """Open reads that were given back after C{open_timeout}, without the client knowing."""

    queues = {"q": {"open_timeout": 10, "max_open_reads": 4}, "one": {"open_timeout": 10}}

    def test_late_confirm(self) -> None:
        """A late confirm counts those that were given back, and closes no others."""
        for payload in (b"1", b"2"):
            self.other.sets(b"q", payload)
        self.assertEqual(self.client.does(b"monitor q 0"), value(b"q", b"1") + value(b"q", b"2") + memcache.END)
        self.advance(10)
        self.assertEqual(self.fifo(b"q").open_count, 0)
        self.assertEqual(self.client.does(b"monitor q 0 1"), value(b"q", b"1") + memcache.END)
        self.assertEqual(self.client.does(b"confirm q 2"), memcache.END)
        self.assertEqual(self.fifo(b"q").open_count, 1)
        self.assertEqual(self.client.does(b"confirm q 2"), memcache.ERROR)
        self.assertEqual(self.client.does(b"confirm q 1"), memcache.END)
        self.assertEqual(self.had(b"q"), [b"2"])

    def test_monitor_goes_on_when_they_are_late(self) -> None:
        """They do not count among those that may be open."""
        for number in range(6):
            self.other.sets(b"q", b"%d" % number)
        items = [value(b"q", b"%d" % number) for number in range(4)]
        self.assertEqual(self.client.does(b"monitor q 0"), b"".join(items) + memcache.END)
        self.assertEqual(self.client.does(b"monitor q 0"), memcache.END)
        self.advance(10)
        self.assertEqual(self.client.does(b"monitor q 0"), b"".join(items) + memcache.END)
        self.assertEqual(self.client.does(b"confirm q 4"), memcache.END)
        self.assertEqual(self.had(b"q"), [b"4", b"5"])

    def test_one_at_a_time(self) -> None:
        self.other.sets(b"one", b"1")
        self.assertEqual(self.client.does(b"monitor one 5"), value(b"one", b"1") + memcache.END)
        self.advance(10)
        self.assertEqual(self.client.does(b"monitor one 5"), value(b"one", b"1") + memcache.END)
        self.assertEqual(self.client.does(b"confirm one 1"), memcache.END)
        self.assertEqual(self.had(b"one"), [])

    def test_refused_by_the_store(self) -> None:
        """Items that were left out of the replies do not count for a confirm."""
        self.client.ask(b"monitor q 5")
        self.server.commit()
        self.server.store.full = True
        self.assertEqual(self.other.sets(b"q", b"1"), REFUSED)
        self.server.store.full = False
        self.other.sets(b"q", b"2")
        self.advance(5)
        self.assertEqual(self.client.hears(), value(b"q", b"2") + memcache.END)
        self.assertEqual(self.client.does(b"confirm q 2"), memcache.ERROR)
        self.assertEqual(self.client.does(b"confirm q 1"), memcache.END)
        self.assertEqual(self.fifo(b"q").open_count, 0)
