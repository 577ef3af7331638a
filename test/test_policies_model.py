"""
Queues with different settings, side by side with the reference of `test.model`: whatever clients ask for, however time
goes on, whatever the store refuses and whenever the process ends, every reply, every figure and all that the store has
are the same.

What a server does with a write in a thread is the matter of `test.test_model`; what readers of a queue with
C{expire_to_queue} are told while the store takes nothing, that of `test.test_expiry`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from darner import wire
from darner.memory import MemoryStore
from darner.policies import Policies, QueueSettings
from darner.queues import Queues
from darner.records import CHUNK_BYTES
from darner.store import LevelStore
from test import model
from test.harness import Client, FaultyStore, Server

CLIENTS = 4

# The settings ----------------------------------------------------------------------------------------------------

FAILING = {"max_attempts": 2, "dead_letter_queue": "dead"}
RETRIED = {**FAILING, "open_timeout": 4.717, "max_open_reads": 2}
AGEING = {"max_age": 2.0, "expire_to_queue": "late", "max_expire_sweep": 2}
LOOKED_AFTER = {"open_timeout": 600.0}
"""In all of the settings: what is open before the first such setting is not looked after."""
BIG = {"max_bytes": 2 * CHUNK_BYTES + 3000, "discard_old_when_full": True, "max_expire_sweep": 3}

POLICIES = [
    Policies(
        QueueSettings(),
        {
            "few": {"max_items": 3},
            "big": BIG,
            "ageing": AGEING,
            "jobs": {**RETRIED, "retry_delay": 1.313},
            "fan": {"max_open_reads": 3, **LOOKED_AFTER},
            "fan+own": {"max_items": 2, "discard_old_when_full": True, "max_age": 3.0},
            "fan+strict": {"max_items": 2, "max_item_bytes": 2000, "max_attempts": 1, "dead_letter_queue": "plain"},
            "short": {"max_queue_age": 3.0},
            "late": {"max_items": 2},
        },
        {b"both": (b"few", b"fan")},
    ),
    Policies(
        QueueSettings(max_item_bytes=CHUNK_BYTES + 1500),
        {
            "few": {"max_items": 2, "discard_old_when_full": True, "max_expire_sweep": 1},
            "big": {**BIG, "max_bytes": CHUNK_BYTES + 2000, "max_open_reads": 2},
            "ageing": {**AGEING, "max_age": 1.0, "max_items": 4},
            "jobs": RETRIED,
            "fan": {**LOOKED_AFTER, **FAILING, "fanout_only": True, "retry_delay": 0.719},
            "short": {"max_queue_age": 3.0, "max_age": 1.5},
            "late": {"discard_old_when_full": True, "max_items": 3},
        },
        {b"both": (b"jobs", b"fan", b"fan+own")},
    ),
    Policies(
        QueueSettings(),
        {
            "jobs": {**RETRIED, "retry_delay": 0.411, "max_items": 3},
            "fan": LOOKED_AFTER,
            "fan+own": {"open_timeout": 3.119, "expire_to_queue": "short"},
            "big": {"max_item_bytes": 1000},
        },
    ),
]

NAMES = [
    b"plain", b"few", b"big", b"ageing", b"late", b"jobs", b"dead", b"fan", b"fan+own", b"fan+strict", b"fan+x",
    b"short", b"both",
]  # fmt: skip
HEALER = b"healer"
"""A queue on which something is put so that the store is seen to be well again."""

# What clients do -------------------------------------------------------------------------------------------------

GETS = [
    b"", b"", b"/t=607", b"/open", b"/open", b"/open/t=3011", b"/close", b"/close/open", b"/close/open/t=107",
    b"/abort", b"/abort", b"/peek", b"/peek/t=613",
]  # fmt: skip
FIRSTS = [b"/t=0", b"/t=1409", b"/open/t=2203", b"/close/open/t=4519", b"/peek/t=709"]
ACTIONS = [
    *["set"] * 9, "set large", "set large", "set and forget", "set to expire", "set to expire", *["get"] * 10,
    "get many", "get first", "get first", "monitor", "monitor", "confirm", "touch", "touch", "requeue", "requeue",
    "flush", "flush_expired", "flush_all_expired", "leave", "leave",
]  # fmt: skip
RARE = ["flush_all", "delete", "delete", "status", "apply"]
ENDINGS = [
    *["write"] * 4, *["pass time"] * 4, *["full"] * 2, "broken", "unreadable", "crash", "lose", "restart",
    "rare", "rare",
]  # fmt: skip
SIZES = [0, 1, 30, 1500]
EXPIRIES = [1, 2, -1, 1]
PASSES = [0.25, 0.9, 1.7, 5.0]

actions = st.tuples(
    st.sampled_from(ACTIONS), st.integers(0, CLIENTS - 1), st.integers(0, 3), st.integers(0, 3), st.integers(0, 51)
)
turns = st.tuples(st.lists(actions, min_size=1, max_size=6), st.sampled_from(ENDINGS), st.integers(0, 14))


class SmallWindows(Queues):
    """Queues that hold hardly anything in memory, so that they read ahead all the time."""

    window_bytes = 700


class SideBySide:
    """One server and the reference."""

    def __init__(
        self,
        test: SynchronousTestCase,
        make: Callable[..., Queues],
        open_store: Callable[[Any], Any],
        names: list[bytes],
    ) -> None:
        """
        @param open_store: given the store of the process before (C{None} for the first), opens it anew.
        @param names: the queues that clients ask for.
        """
        self.test = test
        self.open_store = open_store
        self.names = names
        self.server = Server(open_store(None), make)
        self.policies = 0
        self.sets = 0
        self.model = model.Model(POLICIES[0], [])
        self.apply(0)
        self.begin()

    def begin(self) -> None:
        self.clients = [self.server.client() for _ in range(CLIENTS)]
        self.healer = self.server.client()
        self.model.clients = [model.Client() for _ in range(CLIENTS + 1)]

    def run(self, scenario: list[Any]) -> None:
        for requests, ending, number in scenario:
            if ending in ("full", "broken"):
                self.settle_expired()
            for action, at, name, option, which in requests:
                self.act(action, at, name, option, which, ending in ("full", "broken"))
            self.end(ending, number)
        self.finish()

    # Requests

    def name(self, number: int) -> bytes:
        return self.names[number % len(self.names)]

    def act(self, action: str, at: int, number: int, option: int, which: int, gentle: bool = False) -> None:
        if action != "leave":
            # Whoever has to be silent lets the next one speak.
            order = [i % CLIENTS for i in range(at, at + CLIENTS)]
            at = next((i for i in order if not self.model.clients[i].silent), at)
        client, twin = self.clients[at], self.model.clients[at]
        name, other = self.name(number), self.name(number + 1 + option)
        if action == "leave":
            client.leave()
            self.clients[at] = self.server.client()
            self.model.leave(twin, model.Client())
        elif not twin.silent:
            self.ask(client, twin, action, name, other, option, which, gentle)
        if self.server.queues.expiry._sweeps:
            # Others are served in between; what they get then is promised only as long as they leave it alone.
            self.settle()

    def ask(
        self, client: Client, twin: model.Client, action: str, name: bytes, other: bytes, option: int, which: int,
        gentle: bool,
    ) -> None:  # fmt: skip
        if action.startswith("set"):
            self.set(client, twin, action, name, option, gentle)
            return
        line = self.line(action, name, other, option, which)
        request = wire.parse(line)
        if isinstance(request, wire.Refused):
            return
        client.ask(line)
        reference = self.model
        if isinstance(request, wire.Get):
            reference.get(twin, [request])
        elif isinstance(request, wire.GetFirst):
            reference.get(twin, request.choices)
        elif isinstance(request, wire.GetMany):
            reference.get_many(twin, request.queues)
        elif isinstance(request, wire.Monitor):
            reference.monitor(twin, request)
        elif isinstance(request, wire.Confirm):
            reference.confirm(twin, request)
        elif isinstance(request, wire.Touch):
            reference.touch(twin, request.queue)
        elif isinstance(request, wire.Requeue):
            reference.requeue(twin, request)
        elif isinstance(request, wire.Flush):
            reference.flush(twin, [request.queue], wire.END)
        elif isinstance(request, wire.FlushAll):
            reference.flush(twin, list(reference.queues), wire.FLUSHED_ALL)
        elif isinstance(request, wire.FlushExpired):
            reference.flush_expired(twin, [request.queue])
        elif isinstance(request, wire.FlushAllExpired):
            reference.flush_expired(twin, list(reference.queues))
        elif isinstance(request, wire.SetStatus):
            reference.status = request.status
            reference.reply(twin, wire.END)
        else:
            assert isinstance(request, wire.Delete)
            reference.delete(twin, request.queue)

    @staticmethod
    def line(action: str, name: bytes, other: bytes, option: int, which: int) -> bytes:
        lines = {
            "get": b"get " + name + GETS[which % len(GETS)],
            "get many": b"get " + name + b" " + other + b" " + name,
            "get first": b"get " + name + b" " + other + FIRSTS[which % len(FIRSTS)],
            "monitor": b"monitor %b %d" % (name, which % 3) + (b"" if option > 1 else b" %d" % (option + 1)),
            "confirm": b"confirm %b %d" % (name, option % 3),
            "touch": b"touch " + name,
            "requeue": b"requeue %b %b" % (name, other) + (b"" if option > 1 else b" %d" % (option + 1)),
            "status": b"status " + wire.STATUSES[which % 3].encode(),
            "flush_all": b"flush_all",
            "flush_all_expired": b"flush_all_expired",
        }
        return lines.get(action) or action.encode() + b" " + name

    def set(
        self, client: Client, twin: model.Client, action: str, name: bytes, option: int, gentle: bool = False
    ) -> None:
        flags = self.sets
        self.sets += 1
        size = CHUNK_BYTES * (option % 3) + 1000 if action == "set large" else SIZES[option]
        payload = (b"%d," % flags * size)[:size]
        expiry = EXPIRIES[option] if action == "set to expire" else 0
        if gentle:
            expiry = max(expiry, 0)
        noreply = b" noreply" if action == "set and forget" else b""
        request = wire.parse(b"set %b %d %d %d%b" % (name, flags, expiry, size, noreply))
        assert isinstance(request, wire.Set)
        client.set(name, payload, flags, expiry, noreply)
        self.model.set(twin, request, payload)

    def apply(self, number: int) -> None:
        """Other settings."""
        policies = POLICIES[number % len(POLICIES)]
        self.model.policies = self.server._policies = policies
        self.server.queues.apply(policies)
        self.model.advance(self.model.now)

    # Endings

    def end(self, ending: str, number: int) -> None:
        if ending in ("full", "broken"):
            self.fail(1 if ending == "full" else 2)
        elif ending == "lose":
            self.crash()
        else:
            self.settle()
        if ending == "pass time":
            self.pass_time(PASSES[number % len(PASSES)])
        elif ending == "unreadable":
            self.read_badly(number)
        elif ending == "crash":
            self.crash()
        elif ending == "restart":
            self.restart()
        elif ending == "rare":
            action = RARE[number % len(RARE)]
            if action == "apply":
                self.apply(number // len(RARE))
            else:
                self.act(action, 0, number, number % 3, number // len(RARE))
            self.settle()

    def settle(self) -> None:
        """Let everything happen that is to happen now, and compare."""
        self.server.turn()
        self.compare()
        self.server.turn()  # the figures have to know what time it is

    def settle_expired(self) -> None:
        """See to it that nothing has expired at any head."""
        self.healer.ask(b"flush_all_expired")
        if self.model.status == "up":
            self.model.flush_expired(self.model.clients[-1], list(self.model.queues))
        else:
            self.model.refuses(self.model.clients[-1], writes=True)
        self.settle()

    def fail(self, faults: int) -> None:
        """End the turn, of which so many attempts to write it fail, and see that the store is well again then."""
        store = self.server.store
        store.broken = faults
        self.server.queues.turn.end()
        hits = faults - store.broken
        store.broken = 0
        self.model.end(hits)
        if hits:
            queues = self.server.queues
            status = queues.status.name
            queues.status.change("up")
            queues.put(HEALER, 0, 0, b"")
            queues.status.change(status)
            self.model.put(self.model.queue(HEALER), 0, b"", 0)
        self.settle()

    def read_badly(self, number: int) -> None:
        """Somebody reads, while the store can not be read: there is an item, or there is an error."""
        at = next((i for i, twin in enumerate(self.model.clients[:CLIENTS]) if not twin.silent), None)
        name = self.name(number)
        if at is None or self.model.queue(name).line:
            return
        line = b"get " + name + [b"", b"/open", b"/peek"][number % 3]
        self.server.store.unreadable = True
        self.clients[at].ask(line)
        self.server.turn()
        self.server.store.unreadable = False
        client, twin = self.clients[at], self.model.clients[at]
        if client.writes == [b"SERVER_ERROR unreadable\r\n"]:
            client.hears()
        else:
            request = wire.parse(line)
            assert isinstance(request, wire.Get)
            self.model.get(twin, [request])
        if client.aborted:
            # In the middle of a large item.
            client.leave()
            self.clients[at] = self.server.client()
            self.model.end()
            self.model.leave(twin, model.Client())
        self.settle()

    def pass_time(self, seconds: float) -> None:
        clock = self.server.clock
        until = clock.seconds() + seconds
        while calls := [call for call in clock.getDelayedCalls() if call.getTime() <= until]:
            self.go_to(min(call.getTime() for call in calls))
        self.go_to(until)

    def go_to(self, now: float) -> None:
        self.server.clock.advance(max(0.0, now - self.server.clock.seconds()))
        self.model.advance(self.server.clock.seconds())
        self.settle()

    def crash(self) -> None:
        """The process ends."""
        self.start()

    def restart(self) -> None:
        """A clean stop, as the service makes it."""
        for client, twin in zip(self.clients, self.model.clients, strict=False):
            client.session.stop_waiting()
            self.model.stop_waiting(twin)
        for client, twin in zip(self.clients, list(self.model.clients), strict=False):
            client.leave()
            self.model.leave(twin, model.Client())
        self.server.stop()
        self.observe()
        self.model.end()
        self.start()

    def start(self) -> None:
        self.server.store = FaultyStore(self.open_store(self.server.store.store))
        self.server.start()
        self.clients = [self.server.client() for _ in range(CLIENTS)]
        self.healer = self.server.client()
        self.model.crash([model.Client() for _ in range(CLIENTS + 1)])
        self.settle()

    # Comparing

    def observe(self) -> None:
        """See what the server did by itself, which it may do sooner or later."""
        queues = self.server.queues
        for queue in list(self.model.queues.values()):
            figures = queues.queue_figures(queue.name)
            if figures:
                self.model.looked(queue, figures["expired_items"], figures["dead"], figures["discarded"])
            elif queue.exists and self.model.may_vanish(queue):
                self.model.vanish(queue)

    def compare(self) -> None:
        test, reference = self.test, self.model
        self.observe()
        reference.end()
        twins = reference.clients
        for client, twin in zip([*self.clients, self.healer], twins, strict=True):
            heard, twin.heard = twin.heard, b""
            said = client.hears()
            if said != heard:
                test.assertEqual(brief(said), brief(heard))
                test.fail("large items differ")
            test.assertFalse(client.closed or client.aborted)
            test.assertEqual(client.session.busy, twin.silent)
        existing = [queue for queue in reference.queues.values() if queue.exists]
        test.assertEqual(self.server.queues.names(), sorted(queue.name for queue in existing))
        for queue in existing:
            self.compare_figures(queue)
        self.compare_store()

    def compare_figures(self, queue: model.Queue) -> None:
        figures = self.server.queues.queue_figures(queue.name)
        aside = [item for _, item in queue.aside]
        expected = {
            "items": len(queue.ready) + len(aside),
            "bytes": model.total(queue.ready) + model.total(aside),
            "set_aside": len(aside),
            "open_transactions": len(self.model.open_reads(queue)),
            "waiters": len(queue.line),
            "expired_items": queue.expired,
            "discarded": queue.discarded,
            "dead": queue.dead,
            "create_time": queue.created,
        }
        self.test.assertEqual({name: figures[name] for name in expected}, expected, queue.name)

    def compare_store(self) -> None:
        """What the process would find if it began anew."""
        store = self.server.store.store
        if isinstance(store, MemoryStore):
            expected = {
                name: [(item.flags, item.expiry, attempts) for item, attempts in contents]
                for name, contents in self.model.durable.items()
            }
            self.test.assertEqual(stored(store), expected)

    def finish(self) -> None:
        """Crash once more, and read all that there is: nothing is missing, and nothing was never there."""
        self.settle()
        self.crash()
        self.pass_time(15.0)
        for queue in self.model.queues.values():
            # By now the server has looked by itself.
            self.test.assertFalse(queue.exists and self.model.may_vanish(queue))
            self.test.assertFalse(queue.ready and self.model.has_expired(queue.ready[0]))
        for name in [queue.name for queue in self.model.queues.values()]:
            while self.model.queue(name).ready:
                line = b"get " + name
                request = wire.parse(line)
                assert isinstance(request, wire.Get)
                self.clients[0].ask(line)
                self.model.get(self.model.clients[0], [request])
                self.settle()
        for name in self.server.queues.names():
            self.clients[0].does(b"delete " + name)
        self.check_nothing_left()

    def check_nothing_left(self) -> None:
        for client in [*self.clients, self.healer]:
            client.leave()
        clock = self.server.clock
        for _ in range(100):
            if not clock.getDelayedCalls():
                break
            clock.advance(1.0)
        self.test.assertEqual(clock.getDelayedCalls(), [])
        store = self.server.store.store
        self.test.assertEqual(store.recover(), [])
        self.test.assertEqual(store.leftovers(), ([], []))
        if isinstance(store, MemoryStore):
            self.test.assertEqual((store.queues, store.chunks), ({}, {}))


def stored(store: MemoryStore) -> dict[bytes, list[tuple[int, int, int]]]:
    """@return: flags, expiry and attempts of the items that a store has, by their queues."""
    return {
        state.name: [
            (item.flags, item.expiry, state.attempts.get(item.id, 0))
            for item in store.read(state.number, 0, state.next_id, 2**40) if item.id not in state.consumed
        ]
        for state in store.recover()
    }  # fmt: skip


def brief(reply: bytes) -> bytes:
    """A reply as one wants to see it when it is wrong: large payloads only by their beginning."""
    return b"\r\n".join(line[:60] for line in reply.split(b"\r\n"))


class PoliciesModelTests(SynchronousTestCase):
    """
    Random scenarios, the same ones at every run; Hypothesis shrinks one that fails.  With C{DARNER_EXAMPLES} in the
    environment it is so many of each kind, others at every run.
    """

    def scenarios(self, examples: int, length: int, run: Callable[[list[bytes], list[Any]], None]) -> None:
        profile = settings(
            max_examples=int(os.environ.get("DARNER_EXAMPLES", examples)),
            derandomize="DARNER_EXAMPLES" not in os.environ,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        names = st.lists(st.sampled_from(NAMES), min_size=2, max_size=4, unique=True)
        profile(given(names, st.lists(turns, min_size=length, max_size=length))(run))()

    def in_memory(self, make: Callable[..., Queues]) -> Callable[[list[bytes], list[Any]], None]:
        def run(names: list[bytes], scenario: list[Any]) -> None:
            SideBySide(self, make, lambda store: store or MemoryStore(), names).run(scenario)

        return run

    def test_memory(self) -> None:
        self.scenarios(250, 20, self.in_memory(Queues))

    def test_small_windows(self) -> None:
        self.scenarios(250, 20, self.in_memory(SmallWindows))

    def test_disk(self) -> None:
        def run(names: list[bytes], scenario: list[Any]) -> None:
            directory = Path(tempfile.mkdtemp())

            def open_store(store: Any) -> LevelStore:
                if store is not None:
                    store.close()
                return LevelStore(directory)

            side_by_side = SideBySide(self, SmallWindows, open_store, names)
            try:
                side_by_side.run(scenario)
            finally:
                side_by_side.server.store.close()
                shutil.rmtree(directory)

        self.scenarios(40, 15, run)
