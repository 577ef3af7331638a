"""Children of queues and aliases: `darner.queues.routing`, and what `darner.queues.collection` makes of it."""

from __future__ import annotations

import shutil
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from bench.powerloss import scratch
from darner.config.policies import Policies, QueueSettings
from darner.front import memcache, memcache_requests
from darner.queues.answers import REPLY_OVERHEAD
from darner.queues.contents import HEAVY
from darner.queues.putting import COPIED_BYTES
from darner.queues.routing import ROUTES, Route, Routing
from darner.store.batch import Batch
from darner.store.leveldb import LevelStore
from darner.store.memory import MemoryStore
from darner.values import requests
from darner.values.vocabulary import CHUNK_BYTES
from test.harness import REFUSED, FaultyStore, Server, value

LARGE = bytes(range(256)) * (CHUNK_BYTES // 100)
NUMBERLESS = b"SERVER_ERROR no numbers\r\n"


def served(overrides: Any = None, aliases: Any = None, **defaults: Any) -> Server:
    """@return: a server with these settings of its queues."""
    server = Server()
    server._policies = Policies(QueueSettings(**defaults), overrides or {}, aliases or {})
    server.start()
    return server


class RouteTests(SynchronousTestCase):
    def route(self, name: bytes, *children: bytes, overrides: Any = None, **aliases: Any) -> Route:
        named = {alias.encode(): queues for alias, queues in aliases.items()}
        fanout = Routing(Policies(overrides=overrides or {}, aliases=named))
        for child in children:
            fanout.born(child)
        self.assertEqual(fanout.concerns(name), fanout.route(name) != Route((name,), (name,), ()))
        return fanout.route(name)

    def test_plain(self) -> None:
        self.assertEqual(self.route(b"q", b"r+a"), Route((b"q",), (b"q",), ()))

    def test_children(self) -> None:
        self.assertEqual(self.route(b"q", b"q+b", b"q+a", b"q"), Route((b"q",), (b"q",), (b"q+b", b"q+a")))

    def test_children_have_none(self) -> None:
        """There is one level: everything after the first plus is the child's name."""
        self.assertEqual(self.route(b"q+a", b"q+a", b"q+a+b"), Route((b"q+a",), (b"q+a",), ()))
        self.assertEqual(self.route(b"q", b"q+a", b"q+a+b").children, (b"q+a", b"q+a+b"))

    def test_no_children(self) -> None:
        """A plus at either end is an ordinary character."""
        for name in (b"+", b"+q", b"q+"):
            self.assertEqual(self.route(name, b"+", b"+q", b"q+"), Route((name,), (name,), ()))
        self.assertEqual(self.route(b"q", b"q+").children, ())

    def test_fanout_only(self) -> None:
        overrides = {"q": {"fanout_only": True}}
        self.assertEqual(self.route(b"q", b"q+a", overrides=overrides), Route((b"q",), (), (b"q+a",)))
        self.assertEqual(self.route(b"q+a", overrides=overrides), Route((b"q+a",), (b"q+a",), ()))

    def test_alias(self) -> None:
        route = self.route(b"all", b"q+a", b"q+b", b"all+c", all=(b"q", b"q+b", b"r"))
        self.assertEqual(route, Route((b"q", b"q+b", b"r"), (b"q", b"q+b", b"r"), (b"q+a",)))

    def test_remembered(self) -> None:
        """Routes are cached while they are valid, and for a limited number of names."""
        fanout = Routing(Policies())
        for number in range(ROUTES + 10):
            fanout.route(b"%d" % number)
        self.assertLessEqual(len(fanout._routes), ROUTES)
        for change in (
            lambda: fanout.born(b"q+a"),
            lambda: fanout.gone(b"q+a"),
            lambda: fanout.apply(Policies(QueueSettings(fanout_only=True))),
        ):
            before = fanout.route(b"q")
            self.assertIs(fanout.route(b"q"), before)
            change()
            self.assertNotEqual(fanout.route(b"q"), before)

    def test_gone(self) -> None:
        fanout = Routing(Policies())
        for name in (b"q+a", b"q+b", b"q"):
            fanout.born(name)
        self.assertEqual(fanout.gone(b"q+a"), b"q")
        self.assertIsNone(fanout.gone(b"q+a"))
        self.assertIsNone(fanout.gone(b"r+a"))
        self.assertIsNone(fanout.gone(b"q"))
        self.assertTrue(fanout.concerns(b"q"))
        self.assertEqual(fanout.gone(b"q+b"), b"q")
        self.assertFalse(fanout.concerns(b"q"))


class FanoutTestCase(SynchronousTestCase):
    def serve(self, server: Server) -> None:
        self.server = server
        self.store = server.store
        self.client = server.client()

    def setUp(self) -> None:
        self.serve(Server())

    def restart(self) -> None:
        self.server.start()
        self.client = self.server.client()

    def had(self, queue: bytes) -> list[bytes]:
        payloads = []
        while (reply := self.client.does(b"get " + queue)) != memcache.END:
            header, _, rest = reply.partition(b"\r\n")
            self.assertTrue(header.startswith(b"VALUE %b " % queue), header)
            payloads.append(rest[: int(header.split()[3])])
        return payloads

    def names(self, *names: bytes) -> None:
        self.assertEqual(self.server.queues.names(), list(names))

    def nothing_left(self) -> None:
        self.server.clock.pump([1] * 8)
        memory = self.store.store
        self.assertEqual((memory.chunks, memory.unheld), ({}, set()))


class ChildTests(FanoutTestCase):
    def test_comes_into_being_by_set(self) -> None:
        self.client.sets(b"q", b"before")
        self.client.sets(b"q+a", b"own")
        self.client.sets(b"q", b"both", flags=7)
        self.assertEqual(self.client.does(b"get q+a"), value(b"q+a", b"own"))
        self.assertEqual(self.client.does(b"get q+a"), value(b"q+a", b"both", flags=7))
        self.assertEqual(self.had(b"q"), [b"before", b"both"])
        self.assertEqual(self.had(b"q+a"), [])

    def test_comes_into_being_by_reads(self) -> None:
        for number, read in enumerate(
            (b"get q+%d", b"get q+%d/open", b"get q+%d/peek", b"get q+%d/close/open", b"get x q+%d", b"get x q+%d/t=0",
             b"monitor q+%d 0")
        ):  # fmt: skip
            self.assertEqual(self.client.does(read % number), memcache.END)
        self.names(*(b"q+%d" % number for number in range(7)))
        self.restart()
        self.names(*(b"q+%d" % number for number in range(7)))
        self.client.sets(b"q", b"1")
        for number in range(7):
            self.assertEqual(self.had(b"q+%d" % number), [b"1"])

    def test_comes_not_into_being_by_others(self) -> None:
        for line in (b"get q+a/close", b"get q+a/abort", b"flush q+a", b"dump_stats q+a"):
            self.assertEqual(self.client.does(line), memcache.END)
        self.client.does(b"delete q+a")
        self.client.does(b"confirm q+a 1")
        self.client.does(b"get q/t=1")
        self.names()

    def test_with_a_plus_at_the_end(self) -> None:
        self.client.does(b"get q+")
        self.client.does(b"get +q")
        self.names()

    def test_waits(self) -> None:
        """A client that waits on a child gets the items set on its parent."""
        waiter = self.server.client()
        waiter.does(b"get q+a/t=1000")
        self.names(b"q+a")
        self.client.sets(b"q", b"1")
        self.assertEqual(waiter.hears(), value(b"q+a", b"1"))
        self.assertEqual(self.had(b"q"), [b"1"])

    def test_one_write(self) -> None:
        self.client.does(b"get q q+a q+b")
        writes = len(self.store.writes)
        self.client.sets(b"q", b"1")
        self.assertEqual(len(self.store.writes), writes + 1)

    def test_large(self) -> None:
        """The items share a stream, which is kept until the last of them is gone."""
        self.client.does(b"get q+a")
        self.client.does(b"get q+b")
        self.client.sets(b"q", LARGE)
        memory = self.store.store
        self.assertEqual(len(memory.chunks), 1)
        self.assertEqual(self.had(b"q+a"), [LARGE])
        self.server.clock.pump([1] * 8)
        self.restart()
        self.assertEqual(self.had(b"q"), [LARGE])
        self.server.clock.pump([1] * 8)
        self.assertEqual(len(memory.chunks), 1)
        self.client.does(b"delete q+b")
        self.nothing_left()

    def test_large_and_deleted_in_the_same_turn(self) -> None:
        self.client.does(b"get q q+a")
        self.client.set(b"q", LARGE)
        self.client.ask(b"delete q+a")
        self.server.commit()
        self.assertEqual(self.client.hears(), memcache.STORED + memcache.DELETED)
        self.assertEqual(self.had(b"q"), [LARGE])
        self.client.set(b"q", LARGE)
        self.client.ask(b"delete q")
        self.server.commit()
        self.nothing_left()

    def test_heavy(self) -> None:
        """Unloaded payloads are read again from the queue's own copy."""
        payload = b"x" * (HEAVY + 1)
        self.client.does(b"get q+a")
        self.client.sets(b"q", payload)
        other = self.server.client()
        other.does(b"get q/open")
        other.does(b"get q+a/open")
        other.leave()
        self.server.commit()
        self.assertEqual((self.had(b"q"), self.had(b"q+a")), ([payload], [payload]))

    def test_delete_the_child(self) -> None:
        self.client.does(b"get q+a")
        self.client.does(b"get q+b")
        self.client.sets(b"q", b"1")
        self.client.does(b"delete q+a")
        self.client.sets(b"q", b"2")
        self.names(b"q", b"q+b")
        self.assertEqual(self.had(b"q+b"), [b"1", b"2"])
        self.client.does(b"delete q+b")
        self.client.sets(b"q", b"3")
        self.assertEqual(self.had(b"q+a"), [])
        self.assertEqual(self.had(b"q"), [b"1", b"2", b"3"])
        self.client.sets(b"q", b"4")
        self.assertEqual(self.had(b"q+a"), [b"4"])

    def test_delete_the_parent(self) -> None:
        self.client.does(b"get q+a")
        self.client.sets(b"q", b"1")
        self.client.does(b"delete q")
        self.names(b"q+a")
        self.client.sets(b"q", b"2")
        self.names(b"q", b"q+a")
        self.assertEqual((self.had(b"q"), self.had(b"q+a")), ([b"2"], [b"1", b"2"]))

    def test_child_of_a_child(self) -> None:
        self.client.does(b"get q+a")
        self.client.does(b"get q+a+b")
        self.client.sets(b"q+a", b"1")
        self.client.sets(b"q", b"2")
        self.assertEqual((self.had(b"q+a"), self.had(b"q+a+b")), ([b"1", b"2"], [b"2"]))

    def test_figures(self) -> None:
        self.client.does(b"get q+a")
        self.client.sets(b"q", b"123")
        self.client.sets(b"q", b"4")
        figures = self.server.queues.figures("")
        self.assertEqual(
            [figures[name] for name in ("curr_items", "total_items", "bytes", "cmd_set", "queue_creates")],
            [4, 4, 8, 2, 2],
        )
        self.assertEqual(self.server.queues.queue_figures(b"q+a")["total_items"], 2)
        self.assertEqual((self.server.figures(b"q"), self.server.figures(b"q+a")), ((2, 4), (2, 4)))

    def test_limit_of_a_child(self) -> None:
        """A full child is left out; the others get the item."""
        self.serve(served({"q+a": {"max_item_bytes": 2}}))
        self.client.does(b"get q+a")
        self.client.does(b"get q+b")
        for payload in (b"1", b"long", LARGE):
            self.assertEqual(self.client.sets(b"q", payload), memcache.STORED)
        self.assertEqual(self.had(b"q+a"), [b"1"])
        self.assertEqual(self.had(b"q+b"), [b"1", b"long", LARGE])
        self.assertEqual(self.had(b"q"), [b"1", b"long", LARGE])
        self.nothing_left()

    def test_limit_of_the_parent(self) -> None:
        self.serve(served({"q": {"max_item_bytes": 2}, "q+a": {"max_item_bytes": 100}}))
        self.client.does(b"get q+a")
        self.assertEqual(self.client.sets(b"q", b"long"), b"SERVER_ERROR object too large\r\n")
        self.assertEqual(self.had(b"q+a"), [])

    def test_expiry(self) -> None:
        self.client.does(b"get q+a")
        self.client.sets(b"q", b"1", expiry=5)
        self.client.sets(b"q", b"2")
        self.server.clock.advance(5)
        self.assertEqual((self.had(b"q"), self.had(b"q+a")), ([b"2"], [b"2"]))

    def test_sync(self) -> None:
        self.client.does(b"get q+a")
        self.server.holding = True
        self.client.sets(b"q/sync", b"1")
        self.client.does(b"get q+b")
        self.server.release()
        self.assertEqual(self.client.hears(), memcache.STORED + memcache.END)
        self.restart()
        self.names(b"q", b"q+a", b"q+b")
        self.assertEqual(self.had(b"q+a"), [b"1"])


class FanoutOnlyTests(FanoutTestCase):
    def setUp(self) -> None:
        self.serve(served({"q": {"fanout_only": True, "max_item_bytes": 1_000_000}}))

    def test_keeps_nothing(self) -> None:
        self.client.does(b"get q+a")
        self.assertEqual(self.client.sets(b"q", b"1"), memcache.STORED)
        self.assertEqual((self.had(b"q"), self.had(b"q+a")), ([], [b"1"]))
        self.names(b"q+a")

    def test_without_children(self) -> None:
        """Without children the item is dropped, as in Kestrel."""
        for payload in (b"1", LARGE):
            self.assertEqual(self.client.sets(b"q", payload), memcache.STORED)
        self.names()
        self.assertEqual(self.server.queues.figures("")["total_items"], 0)
        self.nothing_left()

    def test_limit(self) -> None:
        self.assertEqual(self.client.sets(b"q", b"x" * 1_000_001), b"SERVER_ERROR object too large\r\n")
        self.nothing_left()

    def test_applied(self) -> None:
        self.client.does(b"get q+a")
        self.server.queues.apply(Policies())
        self.client.sets(b"q", b"1")
        self.server.queues.apply(Policies(overrides={"q": {"fanout_only": True}}))
        self.client.sets(b"q", b"2")
        self.assertEqual((self.had(b"q"), self.had(b"q+a")), ([b"1"], [b"1", b"2"]))


class AliasTests(FanoutTestCase):
    def setUp(self) -> None:
        self.serve(served({"r": {"max_item_bytes": 1_000}}, {b"all": (b"q", b"r"), b"x+y": (b"q",)}))

    def test_set(self) -> None:
        self.client.does(b"get q+a")
        writes = len(self.store.writes)
        self.assertEqual(self.client.sets(b"all", b"1", flags=3), memcache.STORED)
        self.assertEqual(len(self.store.writes), writes + 1)
        self.names(b"q", b"q+a", b"r")
        for name in (b"q", b"r", b"q+a"):
            self.assertEqual(self.client.does(b"get " + name), value(name, b"1", flags=3))
        figures = self.server.queues.figures("")
        self.assertEqual((figures["total_items"], figures["cmd_set"]), (3, 1))

    def test_is_no_queue(self) -> None:
        self.client.sets(b"all", b"1")
        for line in (b"get all", b"get all/peek", b"get all/open", b"flush all", b"get x+y", b"dump_stats all"):
            self.assertEqual(self.client.does(line), memcache.END)
        self.assertEqual(self.client.does(b"delete all"), memcache.DELETED)
        self.assertEqual(self.client.does(b"get all/t=100"), b"")
        self.client.sets(b"all", b"2")
        self.server.clock.advance(0.1)
        self.server.commit()
        self.assertEqual(self.client.hears(), memcache.END + memcache.STORED)
        self.names(b"q", b"r")
        self.assertEqual(self.had(b"q"), [b"1", b"2"])

    def test_child_that_could_not_be_made(self) -> None:
        """A set that is served before the queues know of that leaves the child out."""
        server = served()
        first, second = server.client(), server.client()
        first.does(b"get w/t=1000")
        first.set(b"q", b"x")
        second.set(b"q+a", b"refused")
        second.set(b"w", b"refused")
        server.store.broken = 1
        server.commit()
        self.assertEqual(second.hears(), REFUSED * 2)
        self.assertEqual(first.hears(), REFUSED + b"STORED\r\n")
        self.assertEqual(server.queues.names(), [b"q"])

    def test_limit(self) -> None:
        """If one queue refuses the item, none gets it, and none is created."""
        for payload in (b"x" * 1_001, LARGE):
            self.assertEqual(self.client.sets(b"all", payload), b"SERVER_ERROR object too large\r\n")
        self.names()
        self.nothing_left()

    def test_limit_that_is_found_late(self) -> None:
        request = memcache_requests.parse(b"set all 0 0 2000")
        assert isinstance(request, requests.Set)
        self.client.session.put(request, b"x" * 2_000)
        self.server.commit()
        self.assertEqual(self.client.hears(), b"SERVER_ERROR object too large\r\n")
        self.names()

    def test_applied(self) -> None:
        self.client.sets(b"all", b"1")
        self.server.queues.apply(Policies(aliases={b"all": (b"s",)}))
        self.client.sets(b"all", b"2")
        self.server.queues.apply(Policies())
        self.client.sets(b"all", b"3")
        self.server.queues.apply(Policies(aliases={b"all": (b"s",)}))
        self.client.sets(b"all", b"4")
        self.assertEqual((self.had(b"q"), self.had(b"r"), self.had(b"s")), ([b"1"], [b"1"], [b"2", b"4"]))
        # What was set while it was a queue can be read and deleted: nothing is lost by a change of the settings.
        self.assertEqual(self.had(b"all"), [b"3"])
        self.client.does(b"delete all")
        self.names(b"q", b"r", b"s")

    def test_of_a_fanout_only_parent(self) -> None:
        self.serve(served({"q": {"fanout_only": True}}, {b"all": (b"q", b"r")}))
        self.client.does(b"get q+a")
        self.client.sets(b"all", b"1")
        self.names(b"q+a", b"r")
        self.assertEqual(self.had(b"q+a"), [b"1"])

    def test_queue_and_its_child(self) -> None:
        """Each queue gets the item once."""
        self.serve(served({}, {b"all": (b"q", b"q+a")}))
        self.client.sets(b"all", b"1")
        self.client.sets(b"all", LARGE)
        self.assertEqual((self.had(b"q"), self.had(b"q+a")), ([b"1", LARGE], [b"1", LARGE]))
        self.nothing_left()

    def test_no_number(self) -> None:
        """If one queue cannot be created, none is."""
        numbers = iter([False, True])
        self.serve(served({}, {b"all": (b"p", b"q", b"r")}))
        self.client.sets(b"p", b"1")
        new_number = self.store.new_number
        self.store.new_number = lambda: self.store._unless(next(numbers), "no numbers") or new_number()  # type: ignore[method-assign]
        self.assertEqual(self.client.sets(b"all", b"2"), NUMBERLESS)
        self.names(b"p")
        self.restart()
        self.names(b"p")
        self.assertEqual(self.had(b"p"), [b"1"])


class FaultTests(FanoutTestCase):
    def test_set(self) -> None:
        """No queue has the item."""
        self.client.does(b"get q+a")
        for payload in (b"1", LARGE):
            self.store.full = True
            self.assertEqual(self.client.sets(b"q", payload), REFUSED)
            self.store.full = False
            self.names(b"q+a")
        self.client.sets(b"q", b"2")
        self.assertEqual((self.had(b"q"), self.had(b"q+a")), ([b"2"], [b"2"]))
        self.nothing_left()

    def test_child(self) -> None:
        """A reader gets an error instead of C{END} if the child could not be created."""
        for read in (b"get q+a", b"get q+a/open", b"get x q+a", b"get q+a q+b/t=0", b"monitor q+a 0"):
            self.store.full = True
            self.assertEqual(self.client.does(read), REFUSED, read)
            self.store.full = False
            self.names()
        self.client.sets(b"q", b"1")
        self.names(b"q")
        self.assertEqual(self.had(b"q+a"), [])
        self.restart()
        self.names(b"q", b"q+a")

    def test_child_that_is_waited_for(self) -> None:
        for read in (b"get q+a/t=1000", b"get q+a q+b/t=1000", b"monitor q+a 1"):
            self.store.full = True
            self.assertEqual(self.client.does(read), REFUSED)
            self.store.full = False
            self.names()
            self.assertFalse(self.client.session.busy)
        self.assertEqual(self.client.does(b"get q+a/t=1000"), b"")

    def test_child_that_was_waited_for(self) -> None:
        """A client that has stopped waiting, or waits for another queue, gets no error."""
        self.client.ask(b"get q+a/t=1000")
        self.client.leave()
        other = self.server.client()
        other.ask(b"get q+b/t=1000")
        other.session.reads.stop_waiting()
        other.ask(b"get q/t=1000")
        self.store.full = True
        self.server.commit()
        self.assertEqual((self.client.hears(), other.hears()), (b"", b""))
        self.assertTrue(other.session.busy)

    def test_no_number(self) -> None:
        self.store.numberless = True
        for read in (b"get q+a", b"get q+a/t=1000", b"get x q+a", b"monitor q+a 5"):
            self.assertEqual(self.client.does(read), NUMBERLESS)
        self.names()

    def test_deleted_at_once(self) -> None:
        """A client that waits on a child that is deleted goes on waiting, as on any queue."""
        self.client.ask(b"get q+a/t=1000")
        self.server.client().ask(b"delete q+a")
        self.server.commit()
        self.names()
        other = self.server.client()
        other.sets(b"q", b"1")
        other.sets(b"q+a", b"2")
        self.assertEqual(self.client.hears(), value(b"q+a", b"2"))

    def test_almost_full(self) -> None:
        """A read does not create a child while the disk is almost full."""
        self.client.does(b"get q+a")
        self.store.room = (0, 10**12)
        self.server.start()
        client = self.server.client()
        self.assertIn(b"disk almost full", client.sets(b"q", b"1"))
        self.assertEqual(self.server.figures(b"q+a"), (0, 0))


# Any order of things ---------------------------------------------------------------------------------------------

QUEUES = [b"q", b"q+a", b"q+b", b"r", b"r+a"]
ALIASES = {b"all": (b"q", b"r"), b"some": (b"q+a", b"r")}
actions = st.tuples(
    st.sampled_from(
        ["set"] * 6 + ["set large", "set many"] + ["get", "take"] * 3 + ["open", "delete", "flush", "abort"]
    ),
    st.integers(0, 6),
)
endings = st.sampled_from(["write"] * 5 + ["sync", "full", "crash", "lose", "die", "die late", "restart"])
scenarios = st.lists(st.tuples(st.lists(actions, min_size=1, max_size=4), endings), min_size=5, max_size=16)


class Family:
    """A server with parents, children and aliases, and what has to be on each of its queues."""

    def __init__(self, test: SynchronousTestCase, open_store: Any, fanout_only: bool) -> None:
        self.test = test
        self.open_store = open_store
        self.server = Server(open_store(None))
        self.keeping = not fanout_only
        self.server._policies = Policies(
            overrides={"r": {"fanout_only": fanout_only}, "q+b": {"max_item_bytes": 50_000}}, aliases=ALIASES
        )
        self.server.start()
        self.queues: dict[bytes, list[bytes]] = {}
        self.opens: dict[bytes, bytes] = {}
        self.kept: dict[bytes, list[bytes]] = {}
        self.number = 0
        self.begin()

    def begin(self) -> None:
        self.client = self.server.client()
        self.heard = b""

    # Acting

    def act(self, action: str, at: int) -> None:
        name = QUEUES[at % len(QUEUES)]
        if action.startswith("set"):
            self.set([*QUEUES, *ALIASES][at], {"set": 10, "set many": 30_000, "set large": 200_000}[action])
        elif action == "delete":
            self.client.ask(b"delete " + name)
            self.heard += memcache.DELETED
            self.queues.pop(name, None)
            self.opens.pop(name, None)
        elif action == "flush":
            self.client.ask(b"flush " + name)
            self.heard += memcache.END
            self.queues.get(name, []).clear()
        elif action == "abort":
            self.client.ask(b"get %b/abort" % name)
            self.heard += memcache.END
            if name in self.opens:
                self.queues[name].insert(0, self.opens.pop(name))
        else:
            self.read(action, name)

    def set(self, name: bytes, size: int, options: bytes = b"") -> None:
        self.number += 1
        payload = (b"%d," % self.number) * size
        payload = payload[:size]
        self.client.set(name + options, payload)
        self.heard += memcache.STORED
        for queue in dict.fromkeys(
            queue
            for target in ALIASES.get(name, (name,))
            for queue in (target, *(child for child in self.queues if child.startswith(target + b"+")))
        ):
            if queue == b"q+b" and size > 50_000:
                if queue == name:
                    self.heard = self.heard[: -len(memcache.STORED)] + b"SERVER_ERROR object too large\r\n"
            elif queue != b"r" or self.keeping:
                self.queues.setdefault(queue, []).append(payload)

    def read(self, action: str, name: bytes) -> None:
        held = self.opens.pop(name, None)
        assert held is None or name in self.queues
        self.client.ask(b"get %b%b" % (name, b"/close/open" if action == "open" or held is not None else b""))
        items = self.queues.get(name)
        if items:
            payload = items.pop(0)
            self.heard += value(name, payload)
            if action == "open" or held is not None:
                self.opens[name] = payload
            if len(payload) > CHUNK_BYTES:
                self.end("write")
        else:
            self.heard += memcache.END
            if b"+" in name:
                self.queues.setdefault(name, [])

    # Ending

    def end(self, ending: str) -> None:
        if ending == "sync":
            self.set(b"q", 10, b"/sync")
        elif ending.startswith("die"):
            # The process ends while the turn is written; that has come to pass or not.
            self.server.holding = True
            self.set(b"all", 10, b"/sync")
            self.server.commit()
            ((_, call, arguments),) = self.server.held
            if ending == "die late":
                call(*arguments)
                self.keep()
            self.start()
            return
        if ending == "full":
            # Nothing of a turn is kept by which something is put; what was read and deleted is gone all the same.
            self.server.commit()
            self.compare()
            self.keep()
            self.server.store.full = True
            self.server.client().sets(b"all", b"refused")
            self.server.client().sets(b"r+c", LARGE)
            self.server.store.full = False
        elif ending == "lose":
            # The process ends before the turn does.
            self.start()
            return
        self.server.commit()
        self.compare()
        self.keep()
        if ending in ("crash", "restart"):
            if ending == "restart":
                self.client.leave()
                self.server.stop()
            self.start()

    def keep(self) -> None:
        self.kept = {
            name: [*([self.opens[name]] if name in self.opens else ()), *items] for name, items in self.queues.items()
        }

    def start(self) -> None:
        self.queues = {name: list(items) for name, items in self.kept.items()}
        self.opens = {}
        self.server.holding = False
        self.server.store = FaultyStore(self.open_store(self.server.store.store))
        self.server.start()
        self.begin()
        self.compare()

    def compare(self) -> None:
        heard, self.heard = self.heard, b""
        said = self.client.hears()
        if said != heard:
            self.test.fail(f"{_brief(said)} instead of {_brief(heard)}")
        self.test.assertEqual(self.server.queues.names(), sorted(self.queues))
        for name, items in self.queues.items():
            self.test.assertEqual(self.server.figures(name), (len(items), sum(map(len, items))), name)

    def finish(self) -> None:
        """Read everything; then nothing is left of what they shared."""
        self.end("crash")
        for name in list(self.queues):
            while self.queues[name]:
                self.read("get", name)
                self.end("write")
        self.server.clock.pump([1] * 12)
        self.test.assertEqual(self.server.store.leftovers(), ([], []))
        store = self.server.store.store
        if isinstance(store, MemoryStore):
            self.test.assertEqual((store.chunks, store.unheld), ({}, set()))
        else:
            for kind in (b"C", b"S", b"H"):
                self.test.assertEqual(store._database.prefixed(kind), [])


def _brief(said: bytes) -> list[bytes]:
    return [line[:40] for line in said.split(b"\r\n")]


class FamilyTests(SynchronousTestCase):
    """Each child has exactly the items that were set since its creation, in order."""

    def scenarios(self, examples: int, run: Any) -> None:
        profile = settings(
            max_examples=examples, derandomize=True, database=None, deadline=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        profile(given(scenarios, st.booleans())(run))()

    def test_memory(self) -> None:
        def run(scenario: Any, fanout_only: bool) -> None:
            family = Family(self, lambda store: store or MemoryStore(), fanout_only)
            self.play(family, scenario)

        self.scenarios(250, run)

    def test_disk(self) -> None:
        def run(scenario: Any, fanout_only: bool) -> None:
            directory = Path(tempfile.mkdtemp(dir=scratch()))

            def open_store(store: Any) -> LevelStore:
                if store is not None:
                    store.close()
                return LevelStore(directory)

            family = Family(self, open_store, fanout_only)
            try:
                self.play(family, scenario)
            finally:
                family.server.store.close()
                shutil.rmtree(directory)

        self.scenarios(60, run)

    def play(self, family: Family, scenario: Any) -> None:
        for rounds, ending in scenario:
            for action, at in rounds:
                family.act(action, at)
            family.end(ending)
        family.finish()


class CostTests(SynchronousTestCase):
    """The cost of a set is limited by the number of items that it puts."""

    CHILDREN = 100

    def setUp(self) -> None:
        self.server = Server()
        self.client = self.server.client()
        for number in range(self.CHILDREN):
            self.client.set(b"q+%d" % number, b"x")
        self.server.commit()
        self.client.does(b"flush_all")

    def step(self) -> None:
        """Let one turn of the event loop pass."""
        call = self.server.clock.calls.pop(0)
        self.assertEqual(call.getTime(), self.server.clock.seconds())
        call.called = 1
        call.func(*call.args, **call.kw)

    def test_a_client_rests(self) -> None:
        """A client rests after sets that put as many items as it may send sets in a turn."""
        for end in (b"", b" noreply"):
            for _ in range(20):
                self.client.set(b"q", b"x", end=end)
            counts = [self.server.figures(b"q")[0]]
            while self.client._requests or self.client.session.busy:
                self.step()
                counts.append(self.server.figures(b"q")[0])
            put = [after - before for before, after in pairwise([0, *counts])]
            self.assertEqual(sum(put), 20)
            self.assertLessEqual(max(put), self.server.queues.client_bytes // REPLY_OVERHEAD // self.CHILDREN + 1)
            self.server.commit()
            self.assertEqual(self.client.hears(), b"" if end else memcache.STORED * 20)
            self.client.does(b"flush_all")

    def test_clients_take_turns(self) -> None:
        """The items that all resting clients put in one turn are limited too."""
        clients = [self.server.client() for _ in range(16)]
        for client in clients:
            for _ in range(6):
                client.set(b"q", b"x")
        self.step()
        before = most = self.server.figures(b"q")[0]
        most = 0
        while any(client._requests for client in clients):
            self.step()
            now = self.server.figures(b"q")[0]
            most, before = max(most, now - before), now
        self.assertLessEqual(most, 6)
        self.assertEqual(self.server.figures(b"q")[0], 96)

    def test_a_payload_is_written_once(self) -> None:
        """If copies would take much; it is reclaimed with the last of the items."""
        payload = b"x" * (COPIED_BYTES // (self.CHILDREN + 1))
        sizes = []
        write = self.server.store.write

        def watch(batch: Batch, sync: bool = False) -> None:
            sizes.append(sum(len(value or b"") for _, value in batch.writes))
            write(batch, sync)

        self.server.store.write = watch  # type: ignore[method-assign]
        for more, least, most in ((0, COPIED_BYTES // 2, 2 * COPIED_BYTES), (1, 0, COPIED_BYTES // 4)):
            sizes.clear()
            self.assertEqual(self.client.sets(b"q", payload + b"y" * more), memcache.STORED)
            self.assertTrue(least < sum(sizes) < most, sizes)
        for queue in (b"q", b"q+0", b"q+99"):
            for more in (0, 1):
                self.assertEqual(self.client.does(b"get " + queue), value(queue, payload + b"y" * more))
        self.client.does(b"flush_all")
        self.server.clock.pump([1] * 10)
        memory = self.server.store.store
        assert isinstance(memory, MemoryStore)
        self.assertEqual(memory.chunks, {})

    def test_a_payload_that_cannot_be_written(self) -> None:
        payload = b"x" * CHUNK_BYTES
        self.server.store.numberless = True
        self.assertEqual(self.client.sets(b"q", payload), NUMBERLESS)
        self.server.store.numberless = False
        self.server.store.full = True
        self.assertEqual(self.client.sets(b"q", payload), REFUSED)
        self.server.store.full = False
        self.assertEqual(self.server.figures(b"q+0")[0], 0)
        self.assertEqual(self.client.sets(b"q", payload), memcache.STORED)
        self.assertEqual(self.client.does(b"get q+0"), value(b"q+0", payload))
