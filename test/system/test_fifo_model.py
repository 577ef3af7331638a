"""
The queues side by side with a model of what clients are promised (`docs/protocol.rst`), over thousands of random turns:
every reply, every count and every name has to be the same, whatever crashes, faults and restarts come between.
"""

from __future__ import annotations

import shutil
import tempfile
from bisect import insort
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Optional

from attrs import Factory, asdict, define, field, frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from bench.powerloss import scratch
from darner.front import memcache, memcache_requests
from darner.queues.collection import Queues
from darner.store.leveldb import LevelStore
from darner.store.memory import MemoryStore
from darner.values import requests
from darner.values.items import ITEM_OVERHEAD
from darner.values.vocabulary import CHUNK_BYTES
from test.harness import EPOCH, REFUSED, Asker, Client, FaultyStore, Server, value

TOO_MANY = b"CLIENT_ERROR close current item first\r\n"

NAMES = [b"a", b"b", b"c:1"]
CLIENTS = 4


# The model -------------------------------------------------------------------------------------------------------


@define(eq=False)
class ModelItem:
    queue: bytes
    order: int
    payload: bytes
    expiry: int
    refused: bool = False

    def __lt__(self, other: ModelItem) -> bool:
        return self.order < other.order


@define(eq=False)
class ModelClient:
    opens: dict[bytes, list[ModelItem]] = Factory(dict)
    waiting: Optional[tuple[requests.Get, float]] = None
    receiving: bool = False
    """Whether a large item is on its way: nothing more is asked before it is there."""
    heard: bytes = b""

    @property
    def silent(self) -> bool:
        return self.waiting is not None or self.receiving


@define(eq=False)
class ModelReply:
    client: ModelClient
    end: bytes
    values: list[tuple[bytes, ModelItem]] = Factory(list)
    stored: Optional[ModelItem] = None
    large: bool = False

    def text(self) -> bytes:
        if self.stored is not None and self.stored.refused and self.end:
            return REFUSED
        refused = any(item.refused for _, item in self.values)
        there = [value(name, item.payload, item.order, b"") for name, item in self.values if not item.refused]
        return b"".join(there) + (REFUSED if refused else self.end)


@define(eq=False)
class ModelTurn:
    replies: list[ModelReply] = Factory(list)
    puts: list[ModelItem] = Factory(list)
    reads: list[tuple[bytes, ModelItem, ModelReply]] = Factory(list)
    discards: list[tuple[bytes, ModelItem]] = Factory(list)
    """Items that made room for others."""
    sync: bool = False
    deletes: bool = False
    snapshot: dict[bytes, list[ModelItem]] = Factory(dict)


@define(eq=False)
class ModelQueue:
    ready: list[ModelItem] = Factory(list)
    born: Optional[ModelTurn] = None
    exists: bool = False
    waiters: list[ModelClient] = Factory(list)


@frozen
class Limits:
    """What a queue may hold."""

    max_items: Optional[int] = None
    max_bytes: Optional[int] = None
    discard_old_when_full: bool = False
    max_age: Optional[float] = None
    durable: bool = True


NO_LIMITS = Limits()


@define(eq=False)
class Model:
    """What the clients of a server are promised, written down as plainly as can be."""

    max_open_reads: int
    limits: Limits
    queues: dict[bytes, ModelQueue] = field(factory=lambda: {name: ModelQueue() for name in NAMES})
    clients: list[ModelClient] = field(factory=lambda: [ModelClient() for _ in range(CLIENTS)])
    now: float = 0.0
    gathering: ModelTurn = Factory(ModelTurn)
    writing: Optional[ModelTurn] = None
    durable: dict[bytes, list[ModelItem]] = Factory(dict)
    """What is in the store: items by the name of their queue."""
    orders: int = 0

    # Requests

    def reply(self, client: ModelClient, end: bytes) -> ModelReply:
        reply = ModelReply(client, end)
        self.gathering.replies.append(reply)
        return reply

    def set(self, client: ModelClient, name: bytes, payload: bytes, expiry: int, sync: bool, noreply: bool) -> None:
        now = int((EPOCH + self.now) * 1000)
        due = expiry and (1 if expiry < 0 else now + expiry * 1000 if expiry < 1_000_000 else expiry * 1000)
        if self.limits.max_age is not None:
            latest = now + int(self.limits.max_age * 1000)
            due = min(due or latest, latest)
        item = ModelItem(name, self.orders, payload, due)
        self.orders += 1
        queue = self.queues[name]
        if not self.make_room(name, len(payload)):
            self.reply(client, b"" if noreply else memcache.NOT_STORED)
            return
        if not queue.exists:
            queue.exists = True
            queue.born = self.gathering
        queue.ready.append(item)
        self.gathering.puts.append(item)
        self.gathering.sync |= sync
        self.serve(name)
        self.reply(client, b"" if noreply else memcache.STORED).stored = item

    def make_room(self, name: bytes, size: int) -> bool:
        """@return: whether there is room for an item."""
        limits, ready = self.limits, self.queues[name].ready
        if limits.max_bytes is not None and size > limits.max_bytes:
            return False
        while (limits.max_items is not None and len(ready) >= limits.max_items) or (
            limits.max_bytes is not None and total(ready) + size + self.overhead(len(ready) + 1) > limits.max_bytes
        ):
            if not self.expired(ready[0]):
                if not limits.discard_old_when_full:
                    return False
                self.gathering.discards.append((name, ready[0]))
            del ready[0]
        return True

    def overhead(self, count: int) -> int:
        """What so many items count beside their payload."""
        return 0 if self.limits.durable else count * ITEM_OVERHEAD

    def get(self, client: ModelClient, request: requests.Get) -> None:
        name = request.queue
        reads = client.opens.setdefault(name, [])
        if request.abort:
            if reads:
                self.give_back(name, reads.pop(0))
            self.reply(client, memcache.END)
            return
        if request.close and reads:
            reads.pop(0)
        if not request.fetches:
            self.reply(client, memcache.END)
        elif not request.peek and reads and not (request.open and len(reads) < self.max_open_reads):
            self.reply(client, TOO_MANY)
        elif self.head(name) is not None:
            self.hand_out(client, request)
        elif request.wait:
            client.waiting = (request, self.now + request.wait / 1000)
            self.queues[name].waiters.append(client)
        else:
            self.reply(client, memcache.END)

    def get_many(self, client: ModelClient, names: list[bytes]) -> None:
        if any(client.opens.get(name) for name in names):
            self.reply(client, TOO_MANY)
            return
        reply = self.reply(client, memcache.END)
        for name in names:
            item = self.head(name)
            if item is not None:
                self.queues[name].ready.remove(item)
                self.gathering.reads.append((name, item, reply))
                self.attach(reply, name, item)

    def head(self, name: bytes) -> Optional[ModelItem]:
        ready = self.queues[name].ready
        while ready and self.expired(ready[0]):
            del ready[0]
        return ready[0] if ready else None

    def expired(self, item: ModelItem) -> bool:
        return item.expiry != 0 and item.expiry <= int((EPOCH + self.now) * 1000)

    def hand_out(self, client: ModelClient, request: requests.Get) -> None:
        item = self.head(request.queue)
        assert item is not None
        reply = self.reply(client, memcache.END)
        if not request.peek:
            self.queues[request.queue].ready.remove(item)
            if request.open:
                client.opens.setdefault(request.queue, []).append(item)
            else:
                self.gathering.reads.append((request.queue, item, reply))
        self.attach(reply, request.queue, item)

    def attach(self, reply: ModelReply, name: bytes, item: ModelItem) -> None:
        reply.values.append((name, item))
        if len(item.payload) > CHUNK_BYTES:
            reply.large = reply.client.receiving = True

    def give_back(self, name: bytes, item: ModelItem) -> None:
        insort(self.queues[name].ready, item)
        self.serve(name)

    def serve(self, name: bytes) -> None:
        waiters = self.queues[name].waiters
        while waiters and self.head(name) is not None:
            client = waiters.pop(0)
            assert client.waiting is not None
            request, _ = client.waiting
            client.waiting = None
            self.hand_out(client, request)

    def flush(self, names: list[bytes]) -> None:
        for name in names:
            self.queues[name].ready.clear()
            self.gathering.discards = [discard for discard in self.gathering.discards if discard[0] != name]

    def delete(self, name: bytes) -> None:
        self.gathering.deletes = True
        self.queues[name].ready.clear()
        self.queues[name].exists = False
        for client in self.clients:
            client.opens.pop(name, None)

    def leave(self, at: int) -> None:
        client = self.clients[at]
        self.clients[at] = ModelClient()
        self.stop_waiting(client)
        for name, reads in client.opens.items():
            for item in reads:
                self.give_back(name, item)

    def stop_waiting(self, client: ModelClient) -> None:
        if client.waiting is not None:
            self.queues[client.waiting[0].queue].waiters.remove(client)
            client.waiting = None

    # Turns

    def snapshot(self) -> dict[bytes, list[ModelItem]]:
        """What would be there after a crash, if all was written."""
        found = {name: list(queue.ready) for name, queue in self.queues.items() if queue.exists}
        for client in self.clients:
            for name, reads in client.opens.items():
                found.get(name, []).extend(reads)
        return found

    def blurred(self) -> bool:
        """
        Whether items were consumed meanwhile of a queue with which the turn that is being written has nothing to do:
        a second attempt to write it may write that down or not.
        """
        assert self.writing is not None
        current = self.snapshot()
        written = {item.queue for item in self.writing.puts}
        return any(
            item not in current.get(name, ())
            for name, items in self.writing.snapshot.items() if name not in written
            for item in items
        )  # fmt: skip

    def end(self, held: bool, faults: int = 0) -> None:
        """End the turn.  C{faults}: how many attempts to write it fail."""
        if self.writing is not None:
            return
        commit, self.gathering = self.gathering, ModelTurn()
        commit.snapshot = self.snapshot()
        if commit.sync and held:
            self.writing = commit
        else:
            self.finish(commit, faults)

    def release(self, held: bool, faults: int = 0) -> None:
        """The write in the thread comes to its end, and then the turn that gathered behind it ends too."""
        assert self.writing is not None
        commit, self.writing = self.writing, None
        self.finish(commit, faults)
        self.end(held)

    def finish(self, commit: ModelTurn, faults: int) -> None:
        unborn = self.refuse(commit) if faults else []
        restored = [(name, item) for name, item in commit.discards if faults and not item.refused]
        for name, item in restored:
            insort(commit.snapshot[name], item)
            self.give_back(name, item)
        undone = [read for read in commit.reads if not read[1].refused] if faults > 1 else []
        for name, item, reply in undone:
            reply.values.remove((name, item))
            reply.end = REFUSED
        if faults == 1:
            # What was consumed meanwhile may be written down with the second attempt.
            current = self.snapshot()
            commit.snapshot = {
                name: [item for item in items if item in current.get(name, ())]
                for name, items in commit.snapshot.items()
                if name in current and name not in unborn
            }
        if faults < 2:
            self.durable = commit.snapshot
        for name, item, _ in undone:
            self.give_back(name, item)
        for reply in commit.replies:
            reply.client.heard += reply.text()
            if reply.large:
                reply.client.receiving = False
        if undone or (restored and not self.gathering.sync):
            self.end(False)

    def refuse(self, commit: ModelTurn) -> list[bytes]:
        """
        The puts of a turn cannot be written.

        @return: the queues that are not made by that.
        """
        for item in commit.puts:
            item.refused = True
        for queue in self.queues.values():
            queue.ready = [item for item in queue.ready if not item.refused]
        for client in self.clients:
            client.opens = {
                name: [item for item in reads if not item.refused] for name, reads in client.opens.items()
            }
        unborn = [name for name, queue in self.queues.items() if queue.born is commit]
        for name in unborn:
            queue = self.queues[name]
            queue.exists = any(item.queue == name for item in self.gathering.puts)
            queue.born = self.gathering
        return unborn

    def felt(self, faults: int) -> int:
        """@return: how many of the disk's faults concern the turn that is gathering."""
        commit = self.gathering
        if self.limits.durable:
            return faults
        # To be without what a large item left there, nothing is to be written.
        touched = commit.sync or any(len(item.payload) > CHUNK_BYTES for item in commit.puts)
        return min(faults, 1) if touched else 0

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for client in self.clients:
            if client.waiting is not None and client.waiting[1] <= self.now:
                self.stop_waiting(client)
                self.reply(client, memcache.END)

    def crash(self) -> None:
        """Only the store is left."""
        if not self.limits.durable:
            self.durable = {}
        self.clients = [ModelClient() for _ in range(CLIENTS)]
        self.gathering = ModelTurn()
        self.writing = None
        for name, queue in self.queues.items():
            queue.exists = name in self.durable
            queue.born = None
            queue.waiters = []
            queue.ready = sorted(self.durable.get(name, ()))


# Both, side by side ----------------------------------------------------------------------------------------------

GETS = {
    "get": b"",
    "get and wait": b"/t=600",
    "open": b"/open",
    "open and wait": b"/open/t=3000",
    "close": b"/close",
    "close and open": b"/close/open",
    "close, open and wait": b"/close/open/t=100",
    "abort": b"/abort",
    "peek": b"/peek",
    "peek and wait": b"/peek/t=600",
}
OFTEN = ["set"] * 7 + ["set and sync", "get", "get", "get", "open", "open", "close and open", "abort", "abort"]
RARELY = ["set large", "set and forget", "set to expire", "get many", "flush", "flush_all", "delete", "leave"]
CONSUMING = {"close", "close and open", "close, open and wait", "flush", "flush_all", "delete"}
ENDINGS = ["write"] * 3 + ["hold"] * 3 + ["full"] * 2 + ["pass time", "release", "broken", "crash", "lose", "restart"]
SIZES = [0, 1, 30, 1500]
EXPIRIES = [1, 2, -1, EPOCH + 3]

actions = st.tuples(
    st.sampled_from(["nothing", *OFTEN, *GETS, *RARELY]),
    st.integers(0, CLIENTS - 1),
    st.sampled_from(NAMES),
    st.integers(0, 3),
)
turns = st.tuples(st.lists(actions, min_size=2, max_size=6), st.sampled_from(ENDINGS), st.integers(0, 3))


SmallWindows = partial(Queues, window_bytes=700)
"""Queues that hold hardly anything in memory, so that they read ahead all the time."""


class SideBySide:
    """One server and the model of it."""

    def __init__(
        self,
        test: SynchronousTestCase,
        max_open_reads: int,
        make: Callable[..., Queues],
        open_store: Callable[[Any], Any],
        limits: Limits,
    ) -> None:
        """@param open_store: given the store of the process before (C{None} for the first), opens it anew."""
        self.test = test
        self.open_store = open_store
        self.server = Server(open_store(None), make, max_open_reads=max_open_reads, **asdict(limits))
        self.clients = [self.server.client() for _ in range(CLIENTS)]
        self.model = Model(max_open_reads, limits)

    def run(self, scenario: list[Any]) -> None:
        for rounds, ending, number in scenario:
            for request in rounds:
                self.act(*request, gentle=ending == "broken")
            self.end(ending, number)
            self.compare()
        self.finish()

    # Requests

    def act(self, action: str, at: int, name: bytes, number: int, gentle: bool) -> None:
        if action != "leave":
            # Whoever has to be silent lets the next one speak.
            at = next((i % CLIENTS for i in range(at, at + CLIENTS) if not self.model.clients[i % CLIENTS].silent), at)
        client, twin = self.clients[at], self.model.clients[at]
        if gentle and action in CONSUMING:
            action = "get"
        if action == "leave":
            client.leave()
            self.clients[at] = self.server.client()
            self.model.leave(at)
        elif twin.silent or action == "nothing":
            pass
        elif action in GETS:
            line = b"get " + name + GETS[action]
            client.ask(line)
            self.model.get(twin, memcache_requests.parse(line))
        elif action.startswith("set"):
            self.set(client, twin, action, name, number)
        elif action == "get many":
            client.ask(b"get " + b" ".join(NAMES))
            self.model.get_many(twin, NAMES)
        elif action == "flush":
            client.ask(b"flush " + name)
            self.model.flush([name])
            self.model.reply(twin, memcache.END)
        elif action == "flush_all":
            client.ask(b"flush_all")
            self.model.flush(NAMES)
            self.model.reply(twin, memcache.FLUSHED_ALL)
        else:
            client.ask(b"delete " + name)
            self.model.delete(name)
            self.model.reply(twin, memcache.DELETED)

    def set(self, client: Client, twin: ModelClient, action: str, name: bytes, number: int) -> None:
        flags = self.model.orders
        size = CHUNK_BYTES * number + 1000 if action == "set large" else SIZES[number]
        payload = (b"%d," % flags * size)[:size]
        expiry = EXPIRIES[number] if action == "set to expire" else 0
        sync = action == "set and sync"
        noreply = action == "set and forget"
        target = name + b"/sync" if sync else name
        client.set(target, payload, flags, expiry, b" noreply" if noreply else b"")
        self.model.set(twin, name, payload, expiry, sync, noreply)

    # Endings

    def end(self, ending: str, number: int) -> None:
        server, model = self.server, self.model
        if ending == "hold":
            server.holding = True
            self.act("set and sync", number % CLIENTS, NAMES[0], number, False)
        elif ending in ("release", "restart"):
            server.holding = False
        if model.writing is not None and ending in ("release", "restart", "full"):
            deletes = model.writing.deletes or model.gathering.deletes
            server.store.broken = faults = 1 if ending == "full" and not deletes and not model.blurred() else 0
            server.release()
            model.release(server.holding, faults)
        elif ending == "crash":
            model.end(server.holding)
            server.commit()
            self.crash(number % 2 == 0)
        elif ending == "lose":
            self.crash(number % 2 == 0)
        else:
            faults = {"full": 1, "broken": 2}.get(ending, 0)
            if model.writing or model.gathering.deletes or (model.gathering.sync and server.holding):
                faults = 0
            server.store.broken = faults
            server.commit()
            model.end(server.holding, model.felt(faults))
        server.store.broken = 0
        if ending == "pass time":
            seconds = (0.25, 0.5, 1.0, 4.0)[number]
            self.compare()
            server.clock.advance(seconds)
            model.advance(seconds)
            model.end(server.holding)
            # What has expired by now makes room, whatever is given back ahead of it later.
            for name in NAMES:
                Asker(server.queues).flush_expired(name)
                model.head(name)
            server.commit()
            model.end(server.holding)
        elif ending == "restart":
            self.restart()

    def crash(self, written: bool) -> None:
        """The process ends; a write that is held in a thread has reached the store or not."""
        if written and self.server.held:
            assert self.model.writing is not None
            _, call, arguments = self.server.held[0]
            call(*arguments)
            self.model.durable = self.model.writing.snapshot
        self.model.crash()
        self.start()

    def restart(self) -> None:
        """A clean stop, as the service makes it."""
        self.compare()
        for client, twin in zip(self.clients, self.model.clients, strict=True):
            client.session.reads.stop_waiting()
            self.model.stop_waiting(twin)
        for at, client in enumerate(self.clients):
            client.leave()
            self.model.leave(at)
        self.server.stop()
        self.model.end(False)
        self.model.crash()
        self.start()

    def start(self) -> None:
        self.server.holding = False
        self.server.store = FaultyStore(self.open_store(self.server.store.store))
        self.server.start()
        self.clients = [self.server.client() for _ in range(CLIENTS)]

    # Comparing

    def compare(self) -> None:
        test, model, queues = self.test, self.model, self.server.queues
        for client, twin in zip(self.clients, model.clients, strict=True):
            heard, twin.heard = twin.heard, b""
            said = client.hears()
            if said != heard:
                test.assertEqual(brief(said), brief(heard))
                test.fail("large items differ")
            test.assertFalse(client.closed or client.aborted)
            if model.writing is None:
                test.assertEqual(client.session.busy, twin.silent)
        test.assertEqual(queues.names(), [name for name, queue in model.queues.items() if queue.exists])
        for name, queue in model.queues.items():
            figures = queues.queue_figures(name)
            # Somebody may wait for one that does not exist.
            test.assertEqual(bool(figures) and figures["create_time"] > 0, queue.exists)
            if queue.exists:
                # An item that has expired may be counted until it is met.
                live = [item for item in queue.ready if not model.expired(item)]
                test.assertIn(figures["items"], range(len(live), len(queue.ready) + 1))
                test.assertIn(figures["bytes"], range(total(live), total(queue.ready) + 1))
                reads = [item for client in model.clients for item in client.opens.get(name, ())]
                test.assertEqual(figures["open_transactions"], len(reads))
                test.assertEqual(figures["waiters"], len(queue.waiters))

    def finish(self) -> None:
        """Crash once more, and read all that there is: nothing is missing, and nothing was never there."""
        self.end("release", 0)
        self.crash(False)
        self.compare()
        for name in NAMES:
            while self.model.head(name) is not None:
                self.act("get", 0, name, 0, False)
                self.end("write", 0)
                self.compare()
            self.test.assertEqual(self.clients[0].does(b"get " + name), memcache.END)


def total(items: list[ModelItem]) -> int:
    return sum(len(item.payload) for item in items)


def brief(reply: bytes) -> bytes:
    """A reply as one wants to see it when it is wrong: large payloads only by their beginning."""
    return b"\r\n".join(line[:60] for line in reply.split(b"\r\n"))


class ModelTests(SynchronousTestCase):
    """Random scenarios, the same ones at every run; Hypothesis shrinks one that fails."""

    def scenarios(self, examples: int, length: int, run: Callable[[list[Any]], None]) -> None:
        profile = settings(
            max_examples=examples,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        profile(given(st.lists(turns, min_size=length, max_size=length))(run))()

    def in_memory(
        self, max_open_reads: int, make: Callable[..., Queues], limits: Limits = NO_LIMITS
    ) -> Callable[[list[Any]], None]:
        def run(scenario: list[Any]) -> None:
            SideBySide(self, max_open_reads, make, lambda store: store or MemoryStore(), limits).run(scenario)

        return run

    def test_memory(self) -> None:
        self.scenarios(150, 20, self.in_memory(1, Queues))

    def test_small_windows(self) -> None:
        self.scenarios(100, 20, self.in_memory(3, SmallWindows))

    def test_limits(self) -> None:
        self.scenarios(40, 20, self.in_memory(1, Queues, Limits(max_items=3)))
        self.scenarios(40, 20, self.in_memory(2, SmallWindows, Limits(max_bytes=3000, max_age=2.0)))

    def test_discarding(self) -> None:
        self.scenarios(40, 20, self.in_memory(1, Queues, Limits(max_items=2, discard_old_when_full=True)))
        limits = Limits(max_bytes=CHUNK_BYTES * 2 + 3000, max_items=4, discard_old_when_full=True, max_age=4.0)
        self.scenarios(40, 20, self.in_memory(2, SmallWindows, limits))

    def test_volatile(self) -> None:
        """Queues in memory are the same until the process ends, and then there is nothing left of them."""

        def scenarios(limits: Limits) -> None:
            def run(scenario: list[Any]) -> None:
                memory = MemoryStore()
                side_by_side = SideBySide(self, 2, Queues, lambda _: memory, limits)
                side_by_side.run(scenario)
                side_by_side.server.clock.pump([1] * 10)
                self.assertEqual((memory.queues, memory.chunks, memory.unheld), ({}, {}, set()))

            self.scenarios(60, 20, run)

        scenarios(Limits(durable=False))
        scenarios(Limits(durable=False, max_items=3, max_age=2.0))
        scenarios(Limits(durable=False, max_bytes=CHUNK_BYTES * 2 + 3000, discard_old_when_full=True))

    def test_disk(self) -> None:
        self.scenarios(40, 15, self.on_disk(NO_LIMITS))

    def test_limits_on_disk(self) -> None:
        self.scenarios(20, 15, self.on_disk(Limits(max_items=3, discard_old_when_full=True, max_age=2.0)))

    def on_disk(self, limits: Limits) -> Callable[[list[Any]], None]:
        def run(scenario: list[Any]) -> None:
            directory = Path(tempfile.mkdtemp(dir=scratch()))

            def open_store(store: Any) -> LevelStore:
                if store is not None:
                    store.close()
                return LevelStore(directory)

            side_by_side = SideBySide(self, 2, SmallWindows, open_store, limits)
            try:
                side_by_side.run(scenario)
            finally:
                side_by_side.server.store.close()
                shutil.rmtree(directory)

        return run
