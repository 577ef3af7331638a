"""
Queues with different settings, side by side with the reference of `test.model`: whatever clients ask for, however time
goes on, whatever the store refuses and whenever the process ends, every reply, every figure and all that the store has
are the same.

What a server does with a write in a thread is the matter of `test.system.test_fifo_model`; what readers of a queue with
C{expire_to_queue} are told while the store takes nothing, that of `test.queues.test_expiry`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from bench.powerloss import scratch
from darner.config.policies import Policies, QueueSettings, parent_of
from darner.front import memcache, memcache_requests
from darner.queues.collection import Queues
from darner.store.leveldb import LevelStore
from darner.store.memory import MemoryStore
from darner.values import requests
from darner.values.vocabulary import CHUNK_BYTES, STATUSES
from test import model
from test.harness import EPOCH, Asker, Client, FaultyStore, Server

CLIENTS = 4

# The settings ----------------------------------------------------------------------------------------------------

FAILING = {"max_attempts": 2, "dead_letter_queue": "dead"}
RETRIED = {**FAILING, "open_timeout": 4.717, "max_open_reads": 2}
AGEING = {"max_age": 2.0, "expire_to_queue": "late", "max_expire_sweep": 2}
LOOKED_AFTER = {"open_timeout": 600.0}
"""In all of the settings: what is open before the first such setting is not looked after."""
BIG = {"max_bytes": 2 * CHUNK_BYTES + 3000, "discard_old_when_full": True, "max_expire_sweep": 3}
IN_MEMORY = {"durable": False, "max_bytes": 4 * CHUNK_BYTES}
ON_DISK = {"durable": True}
ONCE = {"dedupe_window": 2.3}

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
            "few": {"max_items": 2, "discard_old_when_full": True, "max_expire_sweep": 3},
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
    Policies(
        # Much is delayed, and put once.
        QueueSettings(dedupe_window=3.7),
        {
            "few": {"max_items": 3, "default_delay": 1.237},
            "big": {**BIG, "default_delay": 0.617},
            "ageing": {**AGEING, "default_delay": 0.353, "dedupe_window": 0.9},
            "late": {"max_items": 2, "discard_old_when_full": True, "default_delay": 0.877},
            "jobs": {**RETRIED, "retry_delay": 0.733, "default_delay": 0.283, "max_items": 4},
            "dead": {"default_delay": 1.951, "dedupe_window": None},
            "fan": {**LOOKED_AFTER, "max_open_reads": 2, "default_delay": 0.541},
            "fan+own": {"max_items": 2, "discard_old_when_full": True, "default_delay": None, "dedupe_window": None},
            "fan+strict": {"max_items": 2, "default_delay": 1.459, "dedupe_window": 0.7},
            "fan+x": IN_MEMORY,
            "short": {"max_queue_age": 2.0, "default_delay": 2.131},
            "healer": {"dedupe_window": None},
        },
        {b"both": (b"few", b"fan")},
    ),
    Policies(
        # Much is in memory.
        QueueSettings(**IN_MEMORY),
        {
            "plain": ON_DISK,
            "few": {"max_bytes": 1600},
            "big": {**BIG, **ONCE, "max_bytes": CHUNK_BYTES + 2500},
            "ageing": {**AGEING, "max_items": 3},
            "late": {**ON_DISK, "discard_old_when_full": True, "max_items": 3, "default_delay": 0.467},
            "jobs": {**RETRIED, **ONCE, "retry_delay": 0.971, "max_bytes": 4000},
            "dead": {"discard_old_when_full": True, "max_bytes": 3500},
            "fan": {**LOOKED_AFTER, **ONCE, "max_open_reads": 3, "retry_delay": 0.719, "default_delay": 0.383},
            "fan+own": {**ON_DISK, "expire_to_queue": "plain", "max_age": 1.9},
            "fan+strict": {"max_items": 2, "discard_old_when_full": True, "dedupe_window": 1.1},
            "short": {"max_queue_age": 3.0, "default_delay": 1.033, **ONCE},
            "healer": ON_DISK,
        },
        {b"both": (b"fan", b"big")},
    ),
    Policies(
        # On disk what was in memory, and the other way round.
        QueueSettings(dedupe_window=1.3),
        {
            "plain": {**IN_MEMORY, "dedupe_window": 5.1},
            "few": {"max_bytes": 3500, "discard_old_when_full": True, "default_delay": 0.911},
            "big": {**IN_MEMORY, "max_bytes": 2 * CHUNK_BYTES + 1500, "discard_old_when_full": True},
            "ageing": {**AGEING, **IN_MEMORY, "default_delay": 1.187},
            "late": {**IN_MEMORY, "discard_old_when_full": True, "max_bytes": 1900},
            "jobs": {**RETRIED, "retry_delay": 0.527},
            "dead": {**IN_MEMORY, "max_items": 2, "default_delay": 0.653},
            "fan": {**LOOKED_AFTER, **FAILING, "fanout_only": True},
            "fan+own": {**IN_MEMORY, "max_bytes": 3200, "default_delay": 0.839},
            "fan+strict": {"max_items": 2, "default_delay": 0.397},
            "short": {**IN_MEMORY, "max_queue_age": 2.5, "max_age": 1.7, "discard_old_when_full": True},
            "healer": {"dedupe_window": None},
        },
        {b"both": (b"jobs", b"fan", b"plain")},
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
    *["set"] * 7, "set large", "set large", "set and forget", "set to expire", "set to expire", *["set later"] * 2,
    "set large later", "set to expire later", *["set once"] * 3, "set large once", "set later once", *["get"] * 11,
    "get many", "get first", "get first", "monitor", "monitor", "confirm", "touch", "touch", "requeue", "requeue",
    "flush", "flush_expired", "flush_all_expired", "leave", "leave",
]  # fmt: skip
RARE = ["flush_all", "delete", "delete", "status", "apply"]
ENDINGS = [
    *["write"] * 4, *["pass time"] * 4, *["full"] * 2, "broken", "unreadable", "due", "crash", "lose", "restart",
    "rare", "rare",
]  # fmt: skip
SIZES = [0, 1, 30, 1500]
EXPIRIES = [1, 2, -1, 1]
PASSES = [0.25, 0.9, 1.7, 5.0]
DELAYS = [0, 103, 619, 2621]
"""In ms; a set adds its number, so that no two are due at the same time but by the same set."""
IDS = 3
"""So few that most are there already."""
AILING = 1.1
"""Seconds after a fault within which what is due need not be there."""

actions = st.tuples(
    st.sampled_from(ACTIONS), st.integers(0, CLIENTS - 1), st.integers(0, 3), st.integers(0, 3), st.integers(0, 51)
)
turns = st.tuples(st.lists(actions, min_size=1, max_size=6), st.sampled_from(ENDINGS), st.integers(0, 14))


SmallWindows = partial(Queues, window_bytes=700)
"""Queues that hold hardly anything in memory, so that they read ahead all the time."""


class SideBySide:
    """One server and the reference."""

    def __init__(
        self,
        test: SynchronousTestCase,
        make: Callable[..., Queues],
        open_store: Callable[[Any], Any],
        names: list[bytes],
        policies: int,
    ) -> None:
        """
        @param open_store: given the store of the process before (C{None} for the first), opens it anew.
        @param names: the queues that clients ask for.
        @param policies: the settings to begin with.
        """
        self.test = test
        self.open_store = open_store
        self.names = names
        self.server = Server(open_store(None), make)
        self.sets = 0
        self.ails_until = 0.0
        self.model = model.Model(POLICIES[policies], [], told=self.tells_more)
        self.apply(policies)
        self.begin()

    def begin(self) -> None:
        self.clients = [self.server.client() for _ in range(CLIENTS)]
        self.healer = self.server.client()
        self.model.clients = [model.Client() for _ in range(CLIENTS + 1)]

    def tells_more(self, queue: model.Queue, duplicates: int) -> bool:
        figures = self.server.queues.queue_figures(queue.name)
        return bool(figures) and figures["duplicates"] > duplicates

    def run(self, scenario: list[Any], crashes: bool) -> None:
        for rounds, ending, number in scenario:
            if ending in ("full", "broken"):
                self.settle_expired()
            for action, at, name, option, which in rounds:
                self.act(action, at, name, option, which, ending in ("full", "broken"))
            self.end(ending, number)
        self.finish(crashes)

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
            self.set(client, twin, action, name, option, which, gentle)
            return
        line = self.line(action, name, other, option, which)
        request = memcache_requests.parse(line)
        if isinstance(request, requests.Refused):
            return
        if isinstance(request, requests.GetFirst) and self.is_ambiguous(request, name, other):
            return
        client.ask(line)
        reference = self.model
        if isinstance(request, requests.Get):
            reference.get(twin, [request])
        elif isinstance(request, requests.GetFirst):
            reference.get(twin, request.choices)
        elif isinstance(request, requests.GetMany):
            reference.get_many(twin, request.queues)
        elif isinstance(request, requests.Monitor):
            reference.monitor(twin, request)
        elif isinstance(request, requests.Confirm):
            reference.confirm(twin, request)
        elif isinstance(request, requests.Touch):
            reference.touch(twin, request.queue)
        elif isinstance(request, requests.Requeue):
            reference.requeue(twin, request)
        elif isinstance(request, requests.Flush):
            reference.flush(twin, [request.queue], memcache.END)
        elif isinstance(request, requests.FlushAll):
            reference.flush(twin, list(reference.queues), memcache.FLUSHED_ALL)
        elif isinstance(request, requests.FlushExpired):
            reference.flush_expired(twin, [request.queue])
        elif isinstance(request, requests.FlushAllExpired):
            reference.flush_expired(twin, list(reference.queues))
        elif isinstance(request, requests.SetStatus):
            reference.status = request.status
            reference.reply(twin, memcache.END)
        else:
            assert isinstance(request, requests.Delete)
            reference.delete(twin, request.queue)

    def is_ambiguous(self, request: requests.GetFirst, *names: bytes) -> bool:
        """
        @return: whether it is not promised what is had: what is due for both, which of them has it first; or what
            expires in one of them and goes to the other, whether that is for whoever wants both.
        """
        targets = {policies.of(name).expire_to_queue for policies in POLICIES for name in names}
        return bool(targets & {name.decode() for name in names}) or (
            request.choices[0].wait > 0 and self.are_family(*names)
        )

    def are_family(self, *names: bytes) -> bool:
        """@return: whether one set puts on both."""
        together = {name for alias in self.model.policies.aliases.values() for name in alias}
        return len({b"" if (parent_of(name) or name) in together else parent_of(name) or name for name in names}) == 1

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
            "status": b"status " + STATUSES[which % 3].encode(),
            "flush_all": b"flush_all",
            "flush_all_expired": b"flush_all_expired",
        }
        return lines.get(action) or action.encode() + b" " + name

    def set(
        self, client: Client, twin: model.Client, action: str, name: bytes, option: int, which: int, gentle: bool
    ) -> None:
        flags = self.sets
        self.sets += 1
        size = CHUNK_BYTES * (option % 3) + 1000 if "large" in action else SIZES[option]
        payload = (b"%d," % flags * size)[:size]
        expiry = EXPIRIES[option] if "expire" in action else 0
        if gentle:
            expiry = max(expiry, 0)
        noreply = b" noreply" if action == "set and forget" else b""
        if "later" in action:
            delay = DELAYS[(option + which) % len(DELAYS)]
            name += b"/delay=%d" % (delay and delay + flags)
        if "once" in action:
            name += b"/id=%d" % (which % IDS)
        request = memcache_requests.parse(b"set %b %d %d %d%b" % (name, flags, expiry, size, noreply))
        assert isinstance(request, requests.Set)
        client.set(name, payload, flags, expiry, noreply)
        self.model.set(twin, request, payload)

    def apply(self, number: int) -> None:
        """Other settings."""
        policies = POLICIES[number % len(POLICIES)]
        self.server._policies = policies
        self.server.queues.apply(policies)
        self.model.apply(policies)

    # Endings

    def end(self, ending: str, number: int) -> None:
        if ending in ("full", "broken"):
            self.fail(1 if ending == "full" else 2)
        elif ending == "lose":
            self.crash(PASSES[number % len(PASSES)])
        else:
            self.settle()
        if ending == "pass time":
            self.pass_time(PASSES[number % len(PASSES)])
        elif ending == "unreadable":
            self.read_badly(number)
        elif ending == "due":
            self.refuse_due()
        elif ending == "crash":
            self.crash(number % 2 * PASSES[number % len(PASSES)])
        elif ending == "restart":
            self.restart(number % 2 * PASSES[number % len(PASSES)])
        elif ending == "rare":
            action = RARE[number % len(RARE)]
            if action == "apply":
                self.apply(number // len(RARE))
            else:
                self.act(action, 0, number, number % 3, number // len(RARE))
            self.settle()

    def settle(self) -> None:
        """Let everything happen that is to happen now, and compare."""
        self.server.commit()
        self.compare()
        self.server.commit()  # the figures have to know what time it is

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
        self.server.queues.commit.end()
        hits = faults - store.broken
        store.broken = 0
        self.model.end(hits)
        if hits:
            self.heal()
        self.settle()

    def heal(self) -> None:
        """Have something written, now that it can be."""
        self.ails_until = self.server.clock.seconds() + AILING
        queues = self.server.queues
        status = queues.status.name
        queues.status.change("up")
        Asker(queues).put(HEALER, b"")
        queues.status.change(status)
        self.model.put(self.model.queue(HEALER), 0, b"", 0)

    def refuse_due(self) -> None:
        """Have the next item come due, and nothing else happen, while the disk has no room for it."""
        waiting = [queue for queue in self.model.queues.values() if queue.delayed]
        if not waiting:
            return
        queue = min(waiting, key=lambda queue: queue.delayed[0])
        first = queue.delayed[0]
        due = first[0] / 1000 - EPOCH
        self.pass_time(max(0.0, due - 0.002 - self.server.clock.seconds()))
        until = due + 0.002
        calls = [call for call in self.server.clock.getDelayedCalls() if call.getTime() <= until]
        if queue.line or first not in queue.delayed or len(calls) != 1:
            return
        self.server.store.full = True
        self.ails_until = self.server.clock.seconds() + AILING
        self.go_to(until)
        self.test.assertEqual(first in queue.delayed, queue.durable)
        self.server.store.full = False
        self.heal()
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
        self.server.commit()
        self.server.store.unreadable = False
        client, twin = self.clients[at], self.model.clients[at]
        if client.writes == [b"SERVER_ERROR unreadable\r\n"]:
            client.hears()
        else:
            request = memcache_requests.parse(line)
            assert isinstance(request, requests.Get)
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

    def crash(self, seconds: float = 0.0) -> None:
        """The process ends; so much later there is another one."""
        self.start(seconds)

    def restart(self, seconds: float) -> None:
        """A clean stop, as the service makes it, and so much later a start."""
        for client, twin in zip(self.clients, self.model.clients, strict=False):
            client.session.reads.stop_waiting()
            self.model.stop_waiting(twin)
        for client, twin in zip(self.clients, list(self.model.clients), strict=False):
            client.leave()
            self.model.leave(twin, model.Client())
        self.server.stop()
        self.observe()
        self.model.end()
        self.start(seconds)

    def start(self, seconds: float) -> None:
        self.server.clock.rightNow += seconds
        self.server.store = FaultyStore(self.open_store(self.server.store.store))
        self.server.start()
        self.clients = [self.server.client() for _ in range(CLIENTS)]
        self.healer = self.server.client()
        self.model.crash([model.Client() for _ in range(CLIENTS + 1)], self.server.clock.seconds())
        self.settle()
        if seconds:
            # Whether a reader or a queue that is over its limit has first what is behind expired items is not promised.
            self.pass_time(1.1)

    # Comparing

    def observe(self) -> None:
        """See what the server did by itself, which it may do sooner or later."""
        figures = self.server.queues.queue_figures
        known = list(self.model.queues.values())
        due = [queue for queue in known if queue.delayed and figures(queue.name).get("delayed", 0) < len(queue.delayed)]
        if due:
            self.model.end()
        for queue in sorted(due, key=lambda queue: queue.delayed[0]):
            self.model.came_due(queue, figures(queue.name)["delayed"])
        while sum(self.look(queue) for queue in list(self.model.queues.values())):
            pass  # what is moved may drop something where it comes to

    def look(self, queue: model.Queue) -> bool:
        """@return: whether anything went by that."""
        figures = self.server.queues.queue_figures(queue.name)
        if figures:
            return self.model.looked(queue, figures["expired_items"], figures["dead"], figures["discarded"])
        if queue.exists and self.model.may_vanish(queue):
            self.model.vanish(queue)
        return False

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
            if queue.delayed and reference.now > self.ails_until:
                test.assertGreater(queue.delayed[0][0] + 2, reference.wall)
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
            "delayed": len(queue.delayed),
            "duplicates": queue.duplicates,
            "create_time": queue.created,
        }
        self.test.assertEqual({name: figures[name] for name in expected}, expected, queue.name)

    def compare_store(self) -> None:
        """What the process would find if it began anew."""
        store = self.server.store.store
        if isinstance(store, MemoryStore):
            expected = {
                name: (
                    [(item.flags, item.expiry, attempts) for item, attempts in contents.items],
                    [(due, item.flags, item.expiry) for due, item in contents.delayed],
                )
                for name, contents in self.model.store.items()
            }
            self.test.assertEqual(stored(store), expected)

    def finish(self, crashes: bool) -> None:
        """Crash once more, or have all clients go, and read all there is: nothing is missing or was never there."""
        self.settle()
        if crashes:
            self.crash()
        else:
            for at in range(CLIENTS):
                self.act("leave", at, 0, 0, 0)
            self.server.queues.status.change("up")
            self.model.status = "up"
        self.settle()
        self.pass_time(15.0)
        for queue in self.model.queues.values():
            # By now the server has looked by itself.
            self.test.assertFalse(queue.exists and self.model.may_vanish(queue))
            self.test.assertFalse(queue.ready and self.model.has_expired(queue.ready[0]))
            self.test.assertEqual(queue.delayed, [])
        self.read_all()
        self.pass_time(15.0)
        self.read_all()  # dead letters
        self.pass_time(15.0)
        for log in (self.server.queues.commit.log, self.server.queues.status.log):
            log.close()  # what was logged lately is to be forgotten by the clock
        # The ids are forgotten, too.
        soon = self.server.clock.seconds() + 500.0  # C{LOOKED_AFTER} leaves a call for later
        self.test.assertEqual([call for call in self.server.clock.getDelayedCalls() if call.getTime() < soon], [])
        for name in self.server.queues.names():
            self.clients[0].does(b"delete " + name)
        self.check_nothing_left()

    def read_all(self) -> None:
        for name in [queue.name for queue in self.model.queues.values()]:
            while self.model.queue(name).ready:
                line = b"get " + name
                request = memcache_requests.parse(line)
                assert isinstance(request, requests.Get)
                self.clients[0].ask(line)
                self.model.get(self.model.clients[0], [request])
                self.settle()

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
        self.test.assertEqual(list(store.recover()), [])
        self.test.assertEqual(store.leftovers(), ([], []))
        queues = self.server.queues
        self.test.assertEqual([fifo.name for fifo in queues._fifos.values() if not fifo.idle], [])
        self.test.assertEqual(queues.reclaimer._pins, {})
        self.check_empty(queues._memory)
        if isinstance(store, MemoryStore):
            self.check_empty(store)

    def check_empty(self, store: MemoryStore) -> None:
        kept = (store.queues, store.chunks, store.ids, store.delays, store.deleted, store.unheld)
        self.test.assertEqual(kept, ({}, {}, {}, {}, set(), set()))


Stored = tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]
"""Flags, expiry and attempts of items; when others are due, and their flags and expiry."""


def stored(store: MemoryStore) -> dict[bytes, Stored]:
    """@return: what a store has, by queues."""
    return {
        state.name: (
            [
                (item.flags, item.expiry, state.attempts.get(item.id, 0))
                for item in store.read(state.number, 0, state.next_id, 2**40) if item.id not in state.consumed
            ],
            [
                (due, item.flags, item.expiry)
                for due, _, item in (store.delays.get(state.delayed.number, []) if state.delayed else [])
            ],
        )
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

    def scenarios(self, examples: int, length: int, run: Callable[..., None]) -> None:
        profile = settings(
            max_examples=int(os.environ.get("DARNER_EXAMPLES", examples)),
            derandomize="DARNER_EXAMPLES" not in os.environ,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        names = st.lists(st.sampled_from(NAMES), min_size=2, max_size=4, unique=True)
        policies = st.integers(0, len(POLICIES) - 1)
        scenario = st.lists(turns, min_size=length, max_size=length)
        profile(given(names, policies, scenario, st.booleans())(run))()

    def in_memory(self, make: Callable[..., Queues]) -> Callable[..., None]:
        def run(names: list[bytes], policies: int, scenario: list[Any], crashes: bool) -> None:
            SideBySide(self, make, lambda store: store or MemoryStore(), names, policies).run(scenario, crashes)

        return run

    def test_memory(self) -> None:
        self.scenarios(300, 20, self.in_memory(Queues))

    def test_small_windows(self) -> None:
        self.scenarios(300, 20, self.in_memory(SmallWindows))

    def test_disk(self) -> None:
        def run(names: list[bytes], policies: int, scenario: list[Any], crashes: bool) -> None:
            directory = Path(tempfile.mkdtemp(dir=scratch()))

            def open_store(store: Any) -> LevelStore:
                if store is not None:
                    store.close()
                return LevelStore(directory)

            side_by_side = SideBySide(self, SmallWindows, open_store, names, policies)
            try:
                side_by_side.run(scenario, crashes)
            finally:
                side_by_side.server.store.close()
                shutil.rmtree(directory)

        self.scenarios(50, 15, run)
