"""Putting under an id: that nothing is put twice, and that no id is known for longer than it has to be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from darner.config.policies import Policies, QueueSettings
from darner.errors import ClientError, QueueFull, StoreError
from darner.front import memcache, memcache_requests
from darner.queues.producer_ids import ID_OVERHEAD
from darner.service import QueueService
from darner.store.leveldb import LevelStore
from darner.store.memory import MemoryStore
from darner.values import requests
from darner.values.items import ITEM_OVERHEAD
from darner.values.vocabulary import CHUNK_BYTES
from test import servers
from test.harness import REFUSED, Client, FaultyStore, Server, from_source, value
from test.servers import make_directory

WINDOW = 60.0
PAUSES = [0, 1, 7, 20, 59, 60, 61, 150]
LARGE = bytes(range(256)) * (CHUNK_BYTES // 100)
FULL = memcache.error_reply(QueueFull())


class Case(SynchronousTestCase):
    """A server whose queues have a window."""

    def setUp(self) -> None:
        self.memory = MemoryStore()
        self.begin(self.memory)

    def begin(self, store: Any, **more: Any) -> None:
        self.server = Server(store, dedupe_window=WINDOW, **more)
        self.client = self.server.client()

    def apply(self, queues: Optional[dict[str, Any]] = None, aliases: Any = None, **defaults: Any) -> None:
        self.server._policies = Policies(QueueSettings(**defaults), queues or {}, aliases or {})
        self.server.queues.apply(self.server._policies)

    def crash(self) -> None:
        """Restart with the same store."""
        self.server.store = FaultyStore(self.server.store.store)
        self.server.start()
        self.client = self.server.client()

    def sets(self, id: bytes, payload: bytes = b"x", queue: bytes = b"q", client: Optional[Client] = None) -> bytes:
        return (client or self.client).sets(b"%b/id=%b" % (queue, id), payload)

    def stores(self, id: bytes, payload: bytes = b"x", queue: bytes = b"q") -> None:
        """Set, and see that it is stored as something new or known."""
        self.assertEqual(self.sets(id, payload, queue), memcache.STORED)

    def count(self, queue: bytes = b"q") -> int:
        return self.server.figures(queue)[0]

    def figure(self, name: str, queue: bytes = b"q") -> int:
        return self.server.queues.queue_figures(queue)[name]

    def passes(self, seconds: float) -> None:
        self.server.clock.advance(seconds)
        self.server.commit()

    def kept(self) -> int:
        """@return: how many ids the store keeps."""
        return sum(len(ids) for ids in self.memory.ids.values())

    def settle(self) -> None:
        """Have everything reclaimed."""
        for _ in range(20):
            self.passes(0.5)
        self.assertEqual(self.server.queues.store.leftovers(), ([], []))


class OnceTests(Case):
    """A second put with the same id stores nothing."""

    def test_again(self) -> None:
        self.stores(b"a", b"first")
        self.stores(b"a", b"second")
        self.stores(b"b", b"third")
        self.assertEqual(self.client.does(b"get q"), value(b"q", b"first"))
        self.assertEqual(self.client.does(b"get q"), value(b"q", b"third"))
        self.assertEqual(self.count(), 0)

    def test_figures(self) -> None:
        for _ in range(3):
            self.stores(b"a")
        self.client.sets(b"q", b"without")
        self.assertEqual((self.figure("duplicates"), self.figure("total_items"), self.count()), (2, 2, 2))
        stats = self.server.queues.stats
        self.assertEqual((stats.cmd_set, stats.total_items), (4, 2))

    def test_without_id(self) -> None:
        for _ in range(2):
            self.assertEqual(self.client.sets(b"q", b"x"), memcache.STORED)
        self.assertEqual((self.count(), self.kept()), (2, 0))

    def test_consumed(self) -> None:
        """Also if the item is already consumed."""
        self.stores(b"a")
        self.client.does(b"get q")
        self.stores(b"a")
        self.assertEqual(self.count(), 0)

    def test_ids_are_of_their_queue(self) -> None:
        self.stores(b"a")
        self.stores(b"a", queue=b"other")
        self.assertEqual((self.count(), self.count(b"other")), (1, 1))

    def test_any_id(self) -> None:
        """Long ones, and those that differ at their end only or in capitals."""
        ids = [b"k" * 250, b"k" * 249 + b"l", b"a", b"A", b"id=x", b"="]
        for id in 2 * ids:
            self.stores(id)
        self.assertEqual(self.count(), len(ids))
        for id in (b"", b"k" * 251, b"\xe4"):
            refused = requests.Refused(b"CLIENT_ERROR bad id\r\n", payload=1)
            self.assertEqual(memcache_requests.parse(b"set q/id=%b 0 0 1" % id), refused)

    def test_noreply(self) -> None:
        for _ in range(2):
            self.assertEqual(self.client.sets(b"q/id=a", b"x", end=b" noreply"), b"")
        self.assertEqual(self.count(), 1)

    def test_large(self) -> None:
        """The chunks of the second put are reclaimed."""
        self.stores(b"a", LARGE)
        self.stores(b"a", LARGE)
        self.assertEqual(self.count(), 1)
        self.settle()
        self.assertEqual(len(self.memory.chunks), 1)
        self.assertEqual(self.client.does(b"get q"), value(b"q", LARGE))

    def test_expired(self) -> None:
        """An item that has expired is not stored again under its id."""
        self.client.sets(b"q/id=a", b"x", expiry=1)
        self.passes(5)
        self.stores(b"a")
        self.assertEqual(self.client.does(b"get q"), memcache.END)

    def test_waiting(self) -> None:
        """A second put wakes no waiting client."""
        self.stores(b"a")
        self.client.does(b"get q")
        other = self.server.client()
        other.ask(b"get q/t=1000")
        self.stores(b"a")
        self.assertEqual(other.hears(), b"")
        self.stores(b"b", b"y")
        self.assertEqual(other.hears(), value(b"q", b"y"))


class VolatileTests(OnceTests):
    """The same for queues in memory, which know ids as long as the server runs."""

    def begin(self, store: Any, **more: Any) -> None:
        super().begin(store, durable=False, max_bytes=1_000_000)

    def kept(self) -> int:
        memory = self.server.queues._memory
        return sum(len(ids) for ids in memory.ids.values())

    def test_they_take_memory(self) -> None:
        """Ids count towards the queue's limit until they are forgotten."""
        limit = 10 * (ITEM_OVERHEAD + 1 + ID_OVERHEAD)
        self.apply(durable=False, max_bytes=limit, dedupe_window=WINDOW)
        for number in range(10):
            self.stores(b"%d" % number)
        self.assertEqual(self.sets(b"more"), FULL)
        self.stores(b"3")
        for _ in range(10):
            self.client.does(b"get q")
        for number in range(10, 30):
            # What an item took is free, and an id is not.
            expected = memcache.STORED if number * ID_OVERHEAD + ITEM_OVERHEAD + 1 <= limit else FULL
            self.assertEqual(self.sets(b"%d" % number), expected)
            self.client.does(b"get q")
        self.apply(durable=False, max_bytes=limit, dedupe_window=WINDOW, discard_old_when_full=True)
        self.assertEqual(self.sets(b"another"), FULL)
        self.passes(WINDOW + 1)
        self.passes(WINDOW + 1)
        for number in range(10):
            self.stores(b"%d" % number)

    def settle(self) -> None:
        """No item on disk refers to the stream of a volatile queue's item."""
        for _ in range(20):
            self.passes(0.5)

    def test_forgotten(self) -> None:
        """After two windows no id is left."""
        self.stores(b"a")
        self.assertEqual(self.kept(), 1)
        self.passes(WINDOW + 1)
        self.passes(WINDOW + 1)
        self.settle()
        memory = self.server.queues._memory
        self.assertEqual((memory.ids, memory.deleted), ({}, set()))


class RefusedTests(Case):
    """Sets that are refused."""

    def test_no_window(self) -> None:
        """The set is refused, as the id cannot be kept.  The payload is skipped, so the connection goes on."""
        self.apply({"q": {"dedupe_window": WINDOW}})
        self.stores(b"a")
        for payload in (b"x", LARGE):
            reply = self.sets(b"a", payload, b"plain")
            self.assertEqual(reply, b"CLIENT_ERROR queue plain has no dedupe_window\r\n")
        self.assertEqual(self.server.queues.names(), [b"q"])
        self.settle()
        self.assertEqual(self.memory.chunks, {})

    def test_known_though_full(self) -> None:
        self.apply(dedupe_window=WINDOW, max_items=1)
        self.stores(b"a")
        self.stores(b"a")
        self.assertEqual(self.sets(b"b"), FULL)
        self.assertEqual(self.sets(b"b"), FULL, "what is not stored is not known")
        self.client.does(b"get q")
        self.stores(b"b", b"y")
        self.assertEqual(self.client.does(b"get q"), value(b"q", b"y"))

    def test_known_and_nothing_dropped_for_it(self) -> None:
        self.apply(dedupe_window=WINDOW, max_items=1, discard_old_when_full=True)
        self.stores(b"a")
        self.stores(b"b", b"y")
        self.stores(b"a")
        self.assertEqual(self.client.does(b"get q"), value(b"q", b"y"))

    def test_readonly(self) -> None:
        self.stores(b"a")
        self.client.does(b"status readonly")
        self.assertEqual(self.sets(b"a"), b"SERVER_ERROR server is readonly\r\n")

    def test_too_large(self) -> None:
        self.stores(b"a", b"xx")
        self.apply(dedupe_window=WINDOW, max_item_bytes=1)
        for payload in (b"xx", LARGE):
            self.assertEqual(self.sets(b"a", payload), b"SERVER_ERROR object too large\r\n")

    def test_no_room_on_the_disk(self) -> None:
        """A set that the store refused may be tried again; one with a known id needs no disk space."""
        self.stores(b"a")
        self.server.store.full = True
        self.assertEqual(self.sets(b"b"), REFUSED)
        self.assertEqual(self.sets(b"b"), REFUSED)
        self.stores(b"a")
        self.server.store.full = False
        self.passes(1)
        self.stores(b"b", b"y")
        self.stores(b"b", b"z")
        self.assertEqual(self.count(), 2)
        self.crash()
        self.stores(b"b", b"z")
        self.assertEqual(self.count(), 2)

    def test_no_room_at_first(self) -> None:
        """Also if the creation of the queue was refused."""
        self.server.store.full = True
        self.assertEqual(self.sets(b"a"), REFUSED)
        self.server.store.full = False
        self.passes(1)
        self.stores(b"a")
        self.stores(b"a")
        self.assertEqual(self.count(), 1)
        self.settle()

    @from_source
    def test_no_number(self) -> None:
        """If one queue of an alias or a family cannot be created, none gets the item."""
        self.client.does(b"get q+c")
        self.server.store.numberless = True
        self.assertEqual(self.sets(b"a"), b"SERVER_ERROR no numbers\r\n")
        self.server.store.numberless = False
        self.assertEqual((self.count(), self.count(b"q+c")), (0, 0))
        given, number = 0, self.server.store.store.new_number

        def once() -> int:
            nonlocal given
            given += 1
            if given > 2:
                raise StoreError("no numbers")
            return number()

        self.patch(self.server.store.store, "new_number", once)
        troubles: list[str] = []
        self.patch(self.server.queues.commit, "trouble", lambda error: troubles.append(str(error)))
        self.assertEqual(self.sets(b"a"), b"SERVER_ERROR no numbers\r\n")
        self.assertEqual(troubles, ["no numbers"], "it is tried by the clock when there are any again")
        self.assertEqual(given, 3, "of the queue and of its ids, and those of the child are refused")
        self.assertNotIn(b"q", self.server.queues.names())
        given = -10
        self.passes(1)
        self.stores(b"a")
        self.stores(b"a")
        self.assertEqual((self.count(), self.count(b"q+c")), (1, 1))

    def test_unreadable(self) -> None:
        """If the ids cannot be read, the set fails, as it is unknown whether the item is stored."""
        self.stores(b"a")
        self.server.store.unreadable = True
        self.assertEqual(self.sets(b"a"), b"SERVER_ERROR unreadable\r\n")
        self.server.store.unreadable = False
        self.stores(b"a")
        self.assertEqual(self.count(), 1)


class UnwrittenTests(Case):
    """A second set, sent before the first is written, gets the same reply."""

    def together(self, *ids: bytes) -> bytes:
        for id in ids:
            self.client.set(b"q/id=" + id, id)
        self.server.commit()
        return self.client.hears()

    def test_one_turn(self) -> None:
        self.assertEqual(self.together(b"a", b"a", b"b"), 3 * memcache.STORED)
        self.assertEqual(self.count(), 2)

    def test_one_turn_refused(self) -> None:
        self.client.sets(b"q", b"before")
        for fault in ("full", "broken"):
            setattr(self.server.store, fault, True)
            self.assertEqual(self.together(b"a", b"a"), 2 * REFUSED)
            self.server.store.full = False
            self.passes(1)
        self.assertEqual(self.together(b"a", b"a"), 2 * memcache.STORED)
        self.assertEqual(self.count(), 2)
        self.crash()
        self.assertEqual(self.together(b"a"), memcache.STORED)
        self.assertEqual(self.count(), 2)

    def hold(self) -> Client:
        """Have a set under the id C{a} be written in a thread, and tell of it a second time meanwhile."""
        self.client.sets(b"q", b"before")
        self.server.holding = True
        other = self.server.client()
        other.set(b"q/sync/id=a", b"x")
        self.server.commit()
        self.assertEqual(self.sets(b"a"), b"")
        self.assertEqual(other.hears(), b"")
        return other

    def test_while_written(self) -> None:
        other = self.hold()
        self.server.release()
        self.assertEqual((other.hears(), self.client.hears()), (memcache.STORED, memcache.STORED))
        self.assertEqual(self.count(), 2)

    def test_while_written_refused(self) -> None:
        other = self.hold()
        self.server.store.full = True
        self.server.release()
        self.assertEqual((other.hears(), self.client.hears()), (REFUSED, REFUSED))
        self.server.store.full = False
        self.server.holding = False
        self.passes(1)
        self.assertEqual(self.together(b"a", b"a"), 2 * memcache.STORED)
        self.assertEqual(self.count(), 2)

    def test_next_turn_refused(self) -> None:
        """The reply of the second set depends on the first one, not on the puts of its own turn."""
        other = self.hold()
        third = self.server.client()
        third.set(b"q", b"y")
        self.server.holding = False
        self.server.store.full = False
        write = self.server.store.write

        def write_and_be_full(batch: Any, sync: bool = False) -> None:
            write(batch, sync)
            self.server.store.full = True

        self.patch(self.server.store, "write", write_and_be_full)
        done, _, arguments = self.server.held.pop()
        write_and_be_full(*arguments)
        done.callback(None)
        self.server.commit()
        heard = (other.hears(), third.hears(), self.client.hears())
        self.assertEqual(heard, (memcache.STORED, REFUSED, memcache.STORED))

    def test_synced_but_refused(self) -> None:
        """If only the fsync fails, the batch may be in the store all the same; the id must not be known then."""
        self.client.sets(b"q", b"before")
        self.server.holding = True
        self.client.set(b"q/sync/id=a", b"x")
        self.server.commit()
        done, _, (batch, _) = self.server.held.pop()
        self.memory.write(batch)
        self.server.holding = False
        self.server.store.broken = 1000
        error = StoreError("no room")
        error.uncertain = True
        done.errback(error)
        self.server.commit()
        self.assertEqual(self.client.hears(), REFUSED)
        self.assertEqual(self.kept(), 1, "nothing could be written either")
        self.server.store.broken = 0
        self.assertEqual(self.sets(b"a", b"again"), memcache.STORED)
        self.assertEqual((self.count(), self.kept()), (2, 1))
        self.crash()
        self.assertEqual(self.client.does(b"get q"), value(b"q", b"before"))
        self.assertEqual(self.client.does(b"get q"), value(b"q", b"again"))
        self.assertEqual(self.client.does(b"get q"), memcache.END)

    def test_sync(self) -> None:
        """A set with C{/sync} and a known id is answered when the first one is on stable storage."""
        self.stores(b"a")
        self.assertEqual(self.client.sets(b"q/id=a/sync", b"x"), memcache.STORED)
        self.assertEqual(self.server.store.writes[-1], True)
        self.server.store.broken = 2
        self.assertEqual(self.client.sets(b"q/id=a/sync", b"x"), REFUSED)

    def test_sync_by_the_settings(self) -> None:
        """The first set may have been written without a sync before a crash."""
        self.stores(b"a")
        self.apply(dedupe_window=WINDOW, sync="always")
        self.crash()
        self.stores(b"a")
        self.assertEqual(self.server.store.writes, [True])
        self.server.store.broken = 2
        self.assertEqual(self.sets(b"a"), REFUSED)
        self.passes(1)
        self.apply(dedupe_window=WINDOW, sync=0.5)
        self.crash()
        self.stores(b"a")
        self.assertEqual(self.server.store.writes, [])
        self.passes(0.5)
        self.assertEqual(self.server.store.writes, [True])


class WindowTests(Case):
    """How long ids are known."""

    def test_end(self) -> None:
        self.stores(b"a")
        self.passes(WINDOW - 0.5)
        self.stores(b"a")
        self.assertEqual(self.count(), 1)
        self.passes(0.5)
        self.stores(b"a")
        self.assertEqual(self.count(), 2, "a second one does not make the time of the first begin anew")
        self.stores(b"a")
        self.assertEqual(self.count(), 2)

    def test_nothing_is_left(self) -> None:
        """After two windows without puts no ids and no timers are left."""
        for id in range(30):
            self.stores(b"%d" % id)
            self.passes(WINDOW / 10)
        self.assertLessEqual(self.kept(), 21)
        self.passes(WINDOW)
        self.passes(WINDOW)
        self.settle()
        self.assertEqual((self.kept(), self.memory.ids), (0, {}))
        self.assertEqual(self.memory.queues[0].generations, (None, None))
        writes = len(self.server.store.writes)
        self.passes(1000 * WINDOW)
        self.assertEqual(len(self.server.store.writes), writes)
        self.stores(b"1")
        self.assertEqual(self.count(), 31)

    @given(st.lists(st.tuples(st.sampled_from([b"a", b"b"]), st.sampled_from(PAUSES)), max_size=30))
    @settings(max_examples=60, deadline=None)
    def test_any_times(self, steps: list[tuple[bytes, int]]) -> None:
        """A second set within a window is left out, a later one is not; restarts and crashes make no difference."""
        self.setUp()
        known: dict[bytes, float] = {}
        count = 0
        for number, (id, seconds) in enumerate(steps):
            now = self.server.clock.seconds()
            self.stores(id)
            if now - known.get(id, -WINDOW) >= WINDOW:
                known[id] = now
                count += 1
            self.assertEqual(self.count(), count)
            self.passes(seconds)
            if number % 5 == 3:
                self.crash()
            elif number % 5 == 4:
                self.server.restart()
                self.client = self.server.client()

    def test_wall_clock_set_back(self) -> None:
        """No id is forgotten because of that, and ids are still dropped after two windows."""
        self.stores(b"a")
        self.server.set_by = -10_000
        self.stores(b"a")
        self.passes(WINDOW / 2)
        self.stores(b"b")
        self.assertEqual(self.count(), 2)
        self.passes(WINDOW)
        self.passes(WINDOW)
        self.settle()
        self.assertEqual(self.kept(), 0)

    def test_wall_clock_set_forward_for_a_while(self) -> None:
        self.stores(b"a")
        self.server.set_by = 10_000
        self.stores(b"b")
        self.server.set_by = 0
        self.stores(b"a")
        self.assertEqual(self.count(), 2)

    def test_set_back_before_the_start(self) -> None:
        self.stores(b"a")
        self.server.set_by = -10_000
        self.crash()
        self.stores(b"a")
        self.assertEqual(self.count(), 1)
        self.passes(WINDOW)
        self.passes(WINDOW)
        self.settle()
        self.assertEqual(self.kept(), 0)

    def test_late_timer(self) -> None:
        """A generation ends in time even if the timer is late."""
        self.stores(b"a")
        self.server.clock.rightNow += 5 * WINDOW
        self.assertEqual(self.sets(b"b"), memcache.STORED)
        self.assertEqual(self.count(), 2)

    def test_other_window(self) -> None:
        self.stores(b"a")
        self.passes(30)
        self.apply(dedupe_window=20.0)
        self.stores(b"a")
        self.assertEqual(self.count(), 2, "it is too old from now on")
        self.passes(15)
        self.stores(b"a")
        self.assertEqual(self.count(), 2, "of what came since the window has not passed")
        self.apply(dedupe_window=1000.0)
        self.passes(500)
        self.stores(b"a")
        self.assertEqual(self.count(), 2)

    def test_longer_window_and_what_is_in_two_generations(self) -> None:
        self.stores(b"a")
        self.passes(WINDOW + 1)
        self.stores(b"b")
        self.apply(dedupe_window=WINDOW + 30)
        self.passes(WINDOW + 20)
        self.stores(b"b")
        self.assertEqual(self.count(), 2)
        self.passes(10)
        self.stores(b"c")
        self.assertEqual(self.count(), 3)
        self.passes(1000)
        self.settle()
        self.passes(1000)
        self.settle()
        self.assertEqual(self.kept(), 0)

    def test_no_window_any_more(self) -> None:
        self.stores(b"a")
        self.apply()
        self.passes(0)
        self.settle()
        self.assertEqual(self.kept(), 0)
        self.apply(dedupe_window=WINDOW)
        self.stores(b"a")
        self.assertEqual(self.count(), 2)


class QueueTests(Case):
    """The ids of queues that are flushed, deleted or moved from."""

    def test_flush(self) -> None:
        """A flush keeps the ids, so that a producer that repeats its set does not bring a flushed item back."""
        self.stores(b"a")
        self.client.does(b"flush q")
        self.stores(b"a")
        self.assertEqual(self.count(), 0)

    def test_delete(self) -> None:
        self.stores(b"a")
        self.passes(WINDOW)
        self.stores(b"b")
        self.client.does(b"delete q")
        self.settle()
        self.assertEqual(self.memory.ids, {})
        self.stores(b"b")
        self.assertEqual(self.count(), 1)

    def test_delete_and_set_in_one_turn(self) -> None:
        self.client.set(b"q/id=a", b"x")
        self.client.ask(b"delete q")
        self.client.set(b"q/id=a", b"y")
        self.server.commit()
        self.assertEqual(self.client.hears(), b"STORED\r\nDELETED\r\nSTORED\r\n")
        self.crash()
        self.stores(b"a")
        self.assertEqual(self.count(), 1)

    def test_moved(self) -> None:
        """An item that is moved from another queue has no id here, and is not refused because of one."""
        self.stores(b"a", queue=b"r")
        self.stores(b"a", b"own")
        self.assertEqual(self.client.does(b"requeue r q"), b"1\r\n")
        self.assertEqual(self.count(), 2)
        self.stores(b"a", queue=b"r")
        self.assertEqual(self.count(b"r"), 0)

    def test_restart(self) -> None:
        for begin_anew in (self.crash, self.server.restart):
            self.stores(b"a")
            begin_anew()
            self.client = self.server.client()
            self.stores(b"a")
            self.assertEqual(self.count(), 1)

    def test_long_after(self) -> None:
        """What is too old is given up at the start; of what may not be, the timer goes on."""
        self.stores(b"a")
        self.passes(WINDOW)
        self.stores(b"b")
        self.server.stop()
        self.server.set_by = 1.5 * WINDOW
        self.crash()
        self.settle()
        self.assertEqual(self.kept(), 1)
        self.stores(b"b")
        self.assertEqual(self.count(), 3)
        self.server.set_by += 10 * WINDOW
        self.crash()
        self.passes(WINDOW)
        self.passes(WINDOW)
        self.settle()
        self.assertEqual(self.memory.ids, {})

    def test_refused_while_generations_end(self) -> None:
        """What ends while nothing can be written ends when it can."""
        self.stores(b"a")
        self.server.store.broken = 1000
        self.passes(WINDOW)
        self.passes(WINDOW)
        self.assertEqual(self.sets(b"a"), REFUSED)
        self.server.store.broken = 0
        self.settle()
        self.stores(b"a")
        self.stores(b"a")
        self.assertEqual(self.count(), 2)
        self.assertEqual(self.kept(), 1)


class FanoutTests(Case):
    """Every queue for which a set is meant knows for itself whether it has it."""

    def test_children(self) -> None:
        self.client.does(b"get q+a")
        self.stores(b"1")
        self.client.does(b"get q+b")
        self.stores(b"1")
        self.stores(b"1")
        self.assertEqual([self.count(name) for name in (b"q", b"q+a", b"q+b")], [1, 1, 1])
        self.assertEqual([self.figure("duplicates", name) for name in (b"q", b"q+a", b"q+b")], [2, 2, 1])

    def test_large(self) -> None:
        """A stream that a part of them holds."""
        self.client.does(b"get q+a")
        self.stores(b"1", LARGE)
        self.client.does(b"get q+b")
        self.stores(b"1", LARGE)
        self.settle()
        for name in (b"q", b"q+a", b"q+b"):
            self.assertEqual(self.client.does(b"get " + name), value(name, LARGE))
        self.settle()
        self.assertEqual(self.memory.chunks, {})

    def test_child_that_was_full(self) -> None:
        self.apply({"q+a": {"max_items": 1}}, dedupe_window=WINDOW)
        self.client.does(b"get q+a")
        self.stores(b"1", b"one")
        self.stores(b"2", b"two")
        self.client.does(b"get q+a")
        self.stores(b"2", b"two")
        self.assertEqual(self.client.does(b"get q+a"), value(b"q+a", b"two"))
        self.assertEqual(self.count(), 2)

    def test_child_without_window(self) -> None:
        """It takes what comes."""
        self.apply({"q+a": {"dedupe_window": None}}, dedupe_window=WINDOW)
        self.client.does(b"get q+a")
        self.stores(b"1")
        self.stores(b"1")
        self.assertEqual((self.count(), self.count(b"q+a")), (1, 2))

    def test_fanout_only(self) -> None:
        self.apply(dedupe_window=WINDOW, fanout_only=True)
        self.stores(b"1")
        self.client.does(b"get q+a")
        self.stores(b"1")
        self.stores(b"1")
        self.assertEqual(self.count(b"q+a"), 1)

    def test_alias(self) -> None:
        self.apply(aliases={b"all": (b"q", b"r")}, dedupe_window=WINDOW)
        self.stores(b"1")
        self.stores(b"1", queue=b"all")
        self.stores(b"1", queue=b"all")
        self.assertEqual((self.count(), self.count(b"r")), (1, 1))

    def test_alias_without_window(self) -> None:
        self.apply({"q": {"dedupe_window": WINDOW}}, {b"all": (b"q", b"r")})
        self.assertEqual(self.sets(b"1", queue=b"all"), b"CLIENT_ERROR queue r has no dedupe_window\r\n")
        self.assertEqual(self.server.queues.names(), [])

    def test_one_is_full(self) -> None:
        """What some of them know is not stored as long as another refuses it."""
        self.apply({"r": {"max_items": 1}}, {b"all": (b"q", b"r")}, dedupe_window=WINDOW)
        self.stores(b"0", queue=b"r")
        self.stores(b"1")
        self.assertEqual(self.sets(b"1", queue=b"all"), FULL)
        self.client.does(b"get r")
        self.stores(b"1", queue=b"all")
        self.assertEqual((self.count(), self.count(b"r")), (1, 1))

    def test_refused_together(self) -> None:
        self.client.does(b"get q+a")
        self.stores(b"1")
        self.client.does(b"get q+b")
        self.server.store.full = True
        self.assertEqual(self.sets(b"1"), REFUSED, "the child that is new does not have it")
        self.server.store.full = False
        self.passes(1)
        self.stores(b"1")
        self.assertEqual([self.count(name) for name in (b"q", b"q+a", b"q+b")], [1, 1, 1])


class LevelTests(SynchronousTestCase):
    """The same on disk."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.level = LevelStore(self.path)
        self.server = Server(self.level, dedupe_window=WINDOW)
        self.addCleanup(lambda: self.level.close())

    def again(self, stop: Callable[[], None] = lambda: None) -> Client:
        stop()
        self.level.close()
        self.level = LevelStore(self.path)
        self.server.store = FaultyStore(self.level)
        self.server.start()
        self.server.commit()
        return self.server.client()

    def test_all(self) -> None:
        client = self.server.client()
        for round in range(2):
            for id in range(50):
                self.assertEqual(client.sets(b"q/id=%d" % id, b"x"), memcache.STORED)
            client = self.again(self.server.stop if round else lambda: None)
        self.assertEqual(self.server.figures(b"q")[0], 50)
        self.server.clock.advance(WINDOW)
        self.assertEqual(client.sets(b"q/id=new", b"x"), memcache.STORED)
        client = self.again()
        for id in (b"new", b"0"):
            self.assertEqual(client.sets(b"q/id=" + id, b"x"), memcache.STORED)
        self.assertEqual(self.server.figures(b"q")[0], 52)
        for _ in range(10):
            self.server.clock.advance(WINDOW)
        self.assertEqual(self.level.leftovers(), ([], []))
        kept = [key for key, _ in self.level._database.prefixed(b"Q") if key[9] == 5]
        self.assertEqual(kept, [])
        self.again()
        self.assertEqual(self.server.figures(b"q")[0], 52)


class CallsTests(SynchronousTestCase):
    """An application's calls."""

    def setUp(self) -> None:
        self.server = Server(dedupe_window=WINDOW)
        self.service = QueueService("unused", reactor=self.server.clock)
        self.service.queues = self.server.queues

    def put(self, payload: bytes = b"x", **more: Any) -> Deferred[None]:
        return self.service.put(b"q", payload, **more)

    def test_twice(self) -> None:
        for payload in (b"x", LARGE):
            puts = [self.put(payload, id=payload[:9].hex().encode()) for _ in range(2)]
            self.server.commit()
            for put in puts:
                self.assertIsNone(self.successResultOf(put))
        self.assertEqual(self.service.count(b"q"), 2)

    def test_refused_together(self) -> None:
        self.server.store.full = True
        puts = [self.put(id=b"a"), self.put(id=b"a"), self.put(id=b"a", sync=True)]
        self.server.commit()
        for put in puts:
            self.failureResultOf(put, StoreError)
        self.server.store.full = False
        self.server.clock.advance(1)
        put = self.put(id=b"a")
        self.server.commit()
        self.assertIsNone(self.successResultOf(put))
        self.assertEqual(self.service.count(b"q"), 1)

    def test_wrong(self) -> None:
        self.assertIn("bad id", str(self.failureResultOf(self.put(id=b"a b"), ClientError)))
        self.server.queues.apply(Policies())
        failure = self.failureResultOf(self.put(id=b"a"), ClientError)
        self.assertIn("queue q has no dedupe_window", str(failure))


class KillTests(SynchronousTestCase):
    """A producer that does not know whether its set was stored when the server was killed."""

    def test_retry(self) -> None:
        directory = make_directory(self)
        config = directory / "darner.toml"
        config.write_text('[queues.q]\ndedupe_window = "1h"\n')
        server = servers.Server(
            self, "--port=0", f"--data-dir={directory / 'data'}", f"--config={config}", directory=directory
        )
        with server.client() as client:
            client.send(b"set q/id=1 0 0 3\r\none\r\nset q/id=2 0 0 5\r\nlarge\r\n")
            self.assertEqual([client.line(), client.line()], [b"STORED"] * 2)
            server.kill()
        server.start()
        with server.client() as client:
            client.send(b"set q/id=1 0 0 3\r\none\r\nset q/id=3 0 0 5\r\nthree\r\nset q/id=2 0 0 5\r\nlarge\r\n")
            self.assertEqual([client.line() for _ in range(3)], [b"STORED"] * 3)
            self.assertEqual([client.get(b"q") for _ in range(3)], [b"one", b"large", b"three"])
            self.assertEqual(client.count(b"q"), 0)
            client.send(b"set q/id=3/sync 0 0 5\r\nthree\r\n")
            self.assertEqual(client.line(), b"STORED")
            self.assertEqual(client.count(b"q"), 0)
