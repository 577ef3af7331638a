"""
The calls of an application side by side with a model of what it is promised (`docs/embedding.rst`), over random turns.

`test_model` does the same for clients.  What is peculiar here is that a call can be cancelled at any time, and that no
item may be lost by that.
"""

from __future__ import annotations

from bisect import insort
from typing import Any, Optional

from attrs import Factory, define
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from darner.service import QueueService
from darner.values.vocabulary import CHUNK_BYTES
from test.harness import Server

NAMES = [b"a", b"b"]
CANCELLED = "cancelled"
READS = {"get": 0, "get and wait": None, "get for a while": 1, "open": 0, "open and wait": None, "peek": 0,
         "peek and wait": None}  # fmt: skip
"""How long each read waits, in seconds."""
REST = ["put"] * 5 + ["put and sync", "put large", "close", "abort", "cancel", "cancel", "cancel", "flush", "delete"]
ENDINGS = ["turn"] * 3 + ["hold", "release", "pass time"]

actions = st.tuples(st.sampled_from([*READS, *REST, *ENDINGS]), st.sampled_from(NAMES), st.integers(0, 7))


def payload(item: int, large: bool) -> bytes:
    return b"%d," % item * (CHUNK_BYTES if large else 1)


@define(eq=False)
class ModelQueue:
    ready: list[int] = Factory(list)
    open: set[int] = Factory(set)
    waiters: list[ModelCall] = Factory(list)
    exists: bool = False
    generation: int = 0
    """How often it was deleted."""


@define(eq=False)
class ModelCall:
    """A call, and what came of it in truth."""

    kind: str
    queue: ModelQueue
    deferred: Deferred[Any]
    due: Optional[float] = None
    item: Optional[int] = None
    generation: int = 0
    results: list[Any] = Factory(list)
    ended: bool = False


class SideBySide:
    """A service, and the model of it."""

    def __init__(self, test: SynchronousTestCase) -> None:
        self.test = test
        self.server = Server()
        self.service = QueueService("nowhere", reactor=Clock())
        self.service.queues = self.server.queues
        self.queues = {name: ModelQueue() for name in NAMES}
        self.payloads: list[bytes] = []
        self.calls: list[ModelCall] = []
        self.gathering: list[ModelCall] = []
        self.writing: Optional[list[ModelCall]] = None
        self.sync = False
        self.opened: list[tuple[Any, ModelQueue, int, int]] = []

    def run(self, scenario: list[tuple[str, bytes, int]]) -> None:
        for kind, name, number in scenario:
            self.act(kind, name, number)
        self.server.holding = False
        self.end()
        self.compare()
        self.restart()

    def act(self, kind: str, name: bytes, number: int) -> None:
        queue = self.queues[name]
        if kind in READS:
            read = getattr(self.service, kind.split()[0])
            self.read(self.call(kind.split()[0], queue, read(name, READS[kind])), READS[kind])
        elif kind.startswith("put"):
            self.put(queue, name, kind)
        elif kind == "cancel":
            pending = [call for call in self.calls if not call.ended]
            if pending:
                self.cancel(pending[number % len(pending)])
        elif kind in ("close", "abort"):
            if self.opened:
                self.end_read(kind, *self.opened[number % len(self.opened)])
        elif kind in ("flush", "delete"):
            self.gathering.append(self.call(kind, queue, getattr(self.service, kind)(name)))
            queue.ready.clear()
            if kind == "delete":
                queue.open.clear()
                queue.exists = False
                queue.generation += 1
        else:
            self.server.holding = kind == "hold"
            self.end()
            if kind == "pass time":
                self.pass_time(number / 4)
            self.compare()

    def call(self, kind: str, queue: ModelQueue, deferred: Deferred[Any]) -> ModelCall:
        call = ModelCall(kind, queue, deferred)
        deferred.addBoth(call.results.append)
        self.calls.append(call)
        return call

    # What calls do

    def put(self, queue: ModelQueue, name: bytes, kind: str) -> None:
        item = len(self.payloads)
        self.payloads.append(payload(item, kind == "put large"))
        sync = kind == "put and sync"
        call = self.call("put", queue, self.service.put(name, self.payloads[item], flags=item, sync=sync))
        self.sync |= sync
        self.gathering.append(call)
        queue.exists = True
        self.give(queue, item)

    def give(self, queue: ModelQueue, item: int) -> None:
        insort(queue.ready, item)
        while queue.waiters and queue.ready:
            self.hand(queue.waiters.pop(0))

    def read(self, call: ModelCall, timeout: Optional[float]) -> None:
        if call.queue.ready:
            self.hand(call)
        elif timeout == 0:
            self.gathering.append(call)
        else:
            call.due = None if timeout is None else self.server.clock.seconds() + timeout
            call.queue.waiters.append(call)

    def hand(self, call: ModelCall) -> None:
        queue = call.queue
        call.item, call.generation = queue.ready[0], queue.generation
        if call.kind != "peek":
            del queue.ready[0]
        if call.kind == "open":
            queue.open.add(call.item)
        self.gathering.append(call)

    def cancel(self, call: ModelCall) -> None:
        call.deferred.cancel()
        call.ended = True
        self.expect(call, CANCELLED)
        queue = call.queue
        if call in queue.waiters:
            queue.waiters.remove(call)
        elif call.item is not None and call.kind != "peek" and call.generation == queue.generation:
            queue.open.discard(call.item)
            self.give(queue, call.item)

    def end_read(self, kind: str, read: Any, queue: ModelQueue, item: int, generation: int) -> None:
        is_open = generation == queue.generation and item in queue.open
        self.test.assertEqual(read.is_open, is_open)
        self.gathering.append(self.call(kind, queue, getattr(read, kind)()))
        if is_open:
            queue.open.discard(item)
            if kind == "abort":
                self.give(queue, item)

    # Turns

    def end(self) -> None:
        """End the turn; what is held in a thread stays there only as long as that is asked for."""
        if self.writing is not None and not self.server.holding:
            self.server.release()
            self.answer(self.writing)
            self.writing = None
        self.server.commit()
        if self.writing is None:
            gathered, self.gathering = self.gathering, []
            sync, self.sync = self.sync, False
            if sync and self.server.holding:
                self.writing = gathered
            else:
                self.answer(gathered)

    def answer(self, calls: list[ModelCall]) -> None:
        for call in calls:
            if call.ended:
                continue
            call.ended = True
            self.expect(call, call.item)
            if call.kind == "open" and call.item is not None:
                self.opened.append((call.results[0], call.queue, call.item, call.generation))

    def expect(self, call: ModelCall, expected: Any) -> None:
        (result,) = call.results
        if isinstance(result, Failure):
            result.trap(CancelledError)
            result = CANCELLED
        elif result is not None:
            self.test.assertEqual(result.payload, self.payloads[result.flags])
            result = result.flags
        self.test.assertEqual(result, expected, call)

    def pass_time(self, seconds: float) -> None:
        self.server.clock.advance(seconds)
        now = self.server.clock.seconds()
        for queue in self.queues.values():
            late = [call for call in queue.waiters if call.due is not None and call.due <= now]
            queue.waiters = [call for call in queue.waiters if call not in late]
            self.gathering += late
        self.end()

    def compare(self) -> None:
        test = self.test
        test.assertEqual([call for call in self.calls if call.results and not call.ended], [])
        test.assertEqual(self.service.names(), [name for name, queue in self.queues.items() if queue.exists])
        for name, queue in self.queues.items():
            test.assertEqual(self.service.count(name), len(queue.ready))
            figures = self.server.queues.queue_figures(name)
            if figures:
                test.assertEqual(figures["open_transactions"], len(queue.open))
                test.assertEqual(figures["waiters"], len(queue.waiters))

    def restart(self) -> None:
        """After a crash all is there that was put and not consumed, in its order."""
        self.server.start()
        self.service.queues = self.server.queues
        for name, queue in self.queues.items():
            for item in [*sorted([*queue.ready, *queue.open]), None]:
                call = self.call("get", queue, self.service.get(name))
                self.server.commit()
                self.expect(call, item)


class CallsModelTests(SynchronousTestCase):
    """Random scenarios, the same ones at every run; Hypothesis shrinks one that fails."""

    def test_side_by_side(self) -> None:
        def run(scenario: list[tuple[str, bytes, int]]) -> None:
            SideBySide(self).run(scenario)

        profile = settings(
            max_examples=200, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
        )
        profile(given(st.lists(actions, min_size=40, max_size=40))(run))()
