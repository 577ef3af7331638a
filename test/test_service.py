"""
The service as a whole: start, listeners, clients, stop (`darner.service`).
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

from attrs import evolve
from twisted.application.service import MultiService
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
    connectProtocol,
)
from twisted.internet.error import CannotListenError, ConnectionAborted, ConnectionRefusedError
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from bench.ports import reserve_port
from darner import service as service_module
from darner.config.policies import Policies, QueueSettings
from darner.config.settings import Settings
from darner.errors import Stopped, StoreError, StoreUnusable
from darner.net.clock import MonotonicClock
from darner.net.listeners import HTTP, Listener
from darner.service import QueueService
from darner.store.batch import Batch
from darner.store.leveldb import LevelStore
from darner.store.memory import MemoryStore
from test.harness import slow_disk

LARGE = bytes(range(256)) * 1024


class Client(Protocol):
    """What a client has received, and waiting for more of it."""

    def __init__(self) -> None:
        self.received = b""
        self.reason: Optional[Failure] = None
        self._awaited = b""
        self._there: Optional[Deferred[None]] = None
        self._gone: list[Deferred[None]] = []

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if self._there is not None and len(self.received) >= len(self._awaited):
            there, self._there = self._there, None
            there.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason
        if self._there is not None:
            there, self._there = self._there, None
            there.errback(reason)
        for gone in self._gone:
            gone.callback(None)

    def send(self, data: bytes) -> None:
        self.transport.write(data)

    async def expect(self, case: TestCase, reply: bytes) -> None:
        """Wait for as many bytes as C{reply} has; they must be these."""
        if len(self.received) < len(reply):
            self._awaited, self._there = reply, Deferred()
            await self._there
        case.assertEqual(self.received[: len(reply)], reply)
        self.received = self.received[len(reply) :]

    async def ask(self, case: TestCase, request: bytes, reply: bytes) -> None:
        self.send(request)
        await self.expect(case, reply)

    def gone(self) -> Deferred[None]:
        """@return: fires when the connection has ended."""
        gone: Deferred[None] = Deferred()
        if self.reason is None:
            self._gone.append(gone)
        else:
            gone.callback(None)
        return gone


def loopback() -> TCP4ServerEndpoint:
    return TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")


async def until(condition: Callable[[], object]) -> None:
    """Wait until something is so; the test's time-out is the limit."""
    while not condition():
        await deferLater(reactor, 0.005)


class ServiceTestCase(TestCase):
    def make(self, *endpoints: Any, name: str = "", **options: Any) -> QueueService:
        """@return: a service that is not started, with a data directory of its own or that of C{name}."""
        service = QueueService(Path(self.mktemp()) if not name else Path(name), endpoints, **options)
        self.addCleanup(service.stopService)
        return service

    def started(self, *endpoints: Any, **options: Any) -> QueueService:
        service = self.make(*endpoints, **options)
        service.startService()
        return service

    async def connect(self, service: QueueService, index: int = 0) -> Client:
        port = service.ports[index].getHost().port
        return await self.joined(service, TCP4ClientEndpoint(reactor, "127.0.0.1", port))

    async def joined(self, service: QueueService, endpoint: Any) -> Client:
        before = service.queues.stats.total_connections
        client = await connectProtocol(endpoint, Client())
        await until(lambda: service.queues.stats.total_connections > before)
        self.addCleanup(client.transport.abortConnection)
        return client


class StartAndStopTests(ServiceTestCase):
    async def test_before_the_start_and_after_the_stop(self) -> None:
        service = self.make()

        def check() -> None:
            for call in (
                service.put(b"q", b"x"), service.get(b"q"), service.open(b"q", 1), service.peek(b"q"),
                service.flush(b"q"), service.delete(b"q"),
            ):  # fmt: skip
                self.assertEqual(str(self.failureResultOf(call, Stopped).value), "server is stopping")
            self.assertRaises(Stopped, service.count, b"q")
            self.assertRaises(Stopped, service.names)
            self.assertRaises(Stopped, service.health)
            self.assertFalse(service.running)
            self.assertEqual(service.ports, [])

        check()
        service.startService()
        self.assertTrue(service.running)
        await service.put(b"q", b"x")
        await service.stopService()
        check()
        with self.assertRaises(Stopped):
            await anext(service.items(b"q"))

    async def test_a_stop_without_a_start(self) -> None:
        await self.make().stopService()

    async def test_the_same_service_again(self) -> None:
        service = self.make(loopback())
        for number in range(3):
            service.startService()
            client = await self.connect(service)
            await client.ask(self, b"set q 0 0 1\r\n%d\r\n" % number, b"STORED\r\n")
            self.assertEqual(service.count(b"q"), number + 1)
            await service.stopService()
            await client.gone()

    async def test_the_threads_end(self) -> None:
        before = set(threading.enumerate())
        service = self.started()
        await service.put(b"q", b"x", sync=True)
        await service.get(b"none", timeout=0.01)
        self.assertNotEqual(set(threading.enumerate()) - before, set())
        await service.stopService()
        self.assertEqual(set(threading.enumerate()) - before, set())

    async def test_under_a_parent(self) -> None:
        parent = MultiService()
        service = self.make(loopback())
        service.setServiceParent(parent)
        self.assertIsNone(service.queues)
        parent.startService()
        await service.put(b"q", b"x")
        await parent.stopService()
        self.assertIsNone(service.queues)

    async def test_under_a_parent_that_runs(self) -> None:
        parent = MultiService()
        parent.startService()
        service = self.make()
        service.setServiceParent(parent)
        await service.put(b"q", b"x")
        await service.disownServiceParent()
        self.assertIsNone(service.queues)

    async def test_two_services_in_one_process(self) -> None:
        one, two = self.started(loopback()), self.started(loopback())
        client = await self.connect(two)
        await one.put(b"q", b"1")
        await client.ask(self, b"set q 0 0 1\r\n2\r\n", b"STORED\r\n")
        self.assertEqual((await one.get(b"q")).payload, b"1")
        await one.stopService()
        await client.ask(self, b"get q\r\n", b"VALUE q 0 1\r\n2\r\nEND\r\n")

    async def test_another_store(self) -> None:
        store = MemoryStore()
        service = self.started(open_store=lambda path: store)
        await service.put(b"q", LARGE)
        await service.put(b"q", b"x", sync=True)
        await service.stopService()
        service.startService()
        self.assertEqual((await service.get(b"q")).payload, LARGE)

    async def test_text_in_place_of_bytes(self) -> None:
        """A call with text gets an error that says what to do, and has no other effect."""
        service: Any = self.started()
        for call in (
            service.put("jobs", b"x"), service.put(b"jobs", "x"), service.get("jobs"), service.open("jobs"),
            service.peek("jobs"), service.flush("jobs"), service.delete("jobs"), service.requeue("a", b"b"),
            service.requeue(b"a", "b"),
        ):  # fmt: skip
            with self.assertRaises(TypeError) as caught:
                await call
            self.assertIn("has to be bytes: encode it", str(caught.exception))
        await service.put(b"jobs", b"x")
        self.assertEqual(service.count(b"jobs"), 1)

    async def test_a_stop_that_fails_in_parts(self) -> None:
        """If a part of the stop fails, the rest is done, and the process can end."""

        def fails() -> None:
            raise OSError(errno.EIO, "no")

        class Failing:
            """Queues that cannot be stopped."""

            def __init__(self, queues: Any) -> None:
                self._queues = queues

            def stop(self) -> None:
                fails()

            def __getattr__(self, name: str) -> Any:
                return getattr(self._queues, name)

        service: Any = self.started()
        store, clock = service._store, service._clock
        service.queues = Failing(service.queues)
        self.patch(clock, "stop", fails)
        threads = service._pool
        await service.stopService()
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 2)
        self.assertEqual((service.queues, threads.threads), (None, []))
        LevelStore(store.path).close()
        MonotonicClock.stop(clock)

    async def test_the_open_reads_of_the_application_go_back(self) -> None:
        service = self.started()
        await service.put(b"q", b"1")
        await service.put(b"q", b"2")
        read = await service.open(b"q")
        await service.stopService()
        self.assertFalse(read.is_open)
        service.startService()
        self.assertEqual((await service.get(b"q")).payload, b"1")

    async def test_a_read_that_is_closed_while_the_service_stops(self) -> None:
        service = self.started()
        await service.put(b"q", b"1")
        read = await service.open(b"q")
        stopping = service.stopService()
        closing = read.close()
        await stopping
        self.assertIsNone(self.successResultOf(closing))
        service.startService()
        self.assertEqual(service.count(b"q"), 0)

    async def test_what_is_under_way_is_finished(self) -> None:
        service = self.started()
        puts = [service.put(b"q", LARGE), service.put(b"q", b"x", sync=True)]
        await deferLater(reactor, 0)
        puts.append(service.put(b"q", b"y"))
        got = service.peek(b"q")
        await service.stopService()
        self.assertEqual([self.successResultOf(put) for put in puts], [None] * 3)
        self.assertEqual(self.successResultOf(got).payload, LARGE)
        service.startService()
        self.assertEqual(service.count(b"q"), 3)

    async def test_waiting_calls_fail(self) -> None:
        service = self.started()
        calls = [
            service.get(b"q", timeout=None), service.open(b"q", timeout=60), service.peek(b"q", timeout=60),
            Deferred.fromCoroutine(anext(service.items(b"q"))),
        ]  # fmt: skip
        await service.stopService()
        for call in calls:
            self.failureResultOf(call, Stopped)

    async def test_a_waiting_call_that_ends_others_when_it_fails(self) -> None:
        service = self.started()
        calls = [service.get(b"q", timeout=None) for _ in range(5)]
        for call in calls:
            call.addErrback(lambda _: [other.cancel() for other in calls])
        await service.stopService()
        self.assertEqual([call.called for call in calls], [True] * 5)

    async def test_what_a_failed_call_asks_for_is_refused(self) -> None:
        service = self.started()
        again = service.get(b"q", timeout=None).addErrback(lambda _: service.put(b"q", b"x"))
        await service.stopService()
        self.failureResultOf(again, Stopped)

    def test_the_global_reactor_is_the_default(self) -> None:
        self.assertIs(self.make()._reactor, reactor)
        other = object()
        self.assertIs(self.make(reactor=other)._reactor, other)


class FailingStartTests(ServiceTestCase):
    """A start that fails leaves nothing open, and can be tried again."""

    def setUp(self) -> None:
        self.threads = set(threading.enumerate())

    async def check_nothing_open(self, service: QueueService) -> None:
        self.assertFalse(service.running)
        self.assertIsNone(service.queues)
        self.assertEqual(service.ports, [])
        # What was under way in the reactor has its turn, and begins nothing.
        await deferLater(reactor, 0.05)
        self.assertEqual(set(threading.enumerate()) - self.threads, set())

    async def test_a_port_is_taken(self) -> None:
        other = await loopback().listen(Factory())
        self.addCleanup(other.stopListening)
        port = reserve_port()
        path = self.mktemp()
        service = self.make(
            TCP4ServerEndpoint(reactor, port, interface="127.0.0.1"),
            TCP4ServerEndpoint(reactor, other.getHost().port, interface="127.0.0.1"),
            name=path,
        )
        self.assertRaises(CannotListenError, service.startService)
        await self.check_nothing_open(service)
        with self.assertRaises(ConnectionRefusedError):
            await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Client())
        # The store is closed: another service may have it.
        another = self.started(name=path)
        await another.put(b"q", b"x")
        await another.stopService()
        await other.stopListening()
        service.startService()
        self.assertEqual(len(service.ports), 2)
        self.assertEqual(service.count(b"q"), 1)

    async def check_shortage(self, owner: Any, name: str, error: int) -> None:
        """Check a start in which a function fails."""

        def fail(*_: object) -> None:
            raise OSError(error, os.strerror(error))

        service = self.make(name=self.mktemp())
        patch = self.patch(owner, name, fail)
        self.assertRaises(OSError, service.startService)
        patch.restore()
        await self.check_nothing_open(service)
        service.startService()
        await service.put(b"q", b"x", sync=True)

    async def test_no_descriptors_for_the_clock(self) -> None:
        await self.check_shortage(os, "pipe", errno.EMFILE)

    async def test_no_thread_for_the_disk(self) -> None:
        await self.check_shortage(service_module, "start_worker", errno.EAGAIN)

    async def test_a_system_without_the_thread_for_the_disk(self) -> None:
        """The threads of the pool write then."""
        self.patch(service_module, "start_worker", lambda *_: None)
        service = self.make(name=self.mktemp())
        service.startService()
        await service.put(b"q", b"x", sync=True)
        await service.stopService()
        self.assertIsNone(service._worker)
        await self.check_nothing_open(service)

    async def test_a_port_is_taken_and_there_is_room_to_reclaim(self) -> None:
        other = await loopback().listen(Factory())
        self.addCleanup(other.stopListening)

        class Untidy(LevelStore):
            def leftovers(self) -> tuple[list[int], list[int]]:
                return [7], [9]

        taken = TCP4ServerEndpoint(reactor, other.getHost().port, interface="127.0.0.1")
        service = self.make(taken, open_store=Untidy)
        self.assertRaises(CannotListenError, service.startService)
        await self.check_nothing_open(service)

    async def test_the_store_is_in_use(self) -> None:
        path = self.mktemp()
        one, two = self.started(name=path), self.make(loopback(), name=path)
        self.threads = set(threading.enumerate())
        self.assertRaises(StoreUnusable, two.startService)
        await self.check_nothing_open(two)
        await one.put(b"q", b"x")
        await one.stopService()
        two.startService()
        self.assertEqual(two.count(b"q"), 1)

    async def test_a_start_of_what_runs_changes_nothing(self) -> None:
        service = self.started(loopback())
        self.assertRaises(StoreUnusable, service.startService)
        client = await self.connect(service)
        await client.ask(self, b"set q 0 0 1\r\nx\r\n", b"STORED\r\n")
        self.assertEqual(service.count(b"q"), 1)

    async def test_the_store_cannot_be_recovered(self) -> None:
        class Unreadable(MemoryStore):
            closed = False

            def recover(self) -> Any:
                raise StoreError("cannot read")

            def close(self) -> None:
                self.closed = True

        store = Unreadable()
        service = self.make(loopback(), open_store=lambda path: store)
        self.assertRaises(StoreError, service.startService)
        self.assertTrue(store.closed)
        await self.check_nothing_open(service)

    def test_the_directory_is_a_file(self) -> Deferred[None]:
        path = self.mktemp()
        Path(path).write_text("mine")
        service = self.make(name=path)
        self.assertRaises(StoreUnusable, service.startService)
        self.assertEqual(Path(path).read_text(), "mine")
        return Deferred.fromCoroutine(self.check_nothing_open(service))


class ListeningTests(ServiceTestCase):
    async def test_no_listener(self) -> None:
        self.assertEqual(self.started().ports, [])

    async def test_tcp(self) -> None:
        service = self.started(loopback())
        client = await self.connect(service)
        await client.ask(self, b"set q 5 0 1\r\nx\r\n", b"STORED\r\n")
        message = await service.get(b"q")
        self.assertEqual((message.payload, message.flags), (b"x", 5))
        await service.put(b"q", b"y", flags=6)
        await client.ask(self, b"GET q\n", b"VALUE q 6 1\r\ny\r\nEND\r\n")

    async def test_a_unix_socket(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "darner.sock")
            service = self.started(UNIXServerEndpoint(reactor, path, mode=0o600))
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
            client = await self.joined(service, UNIXClientEndpoint(reactor, path))
            await client.ask(self, b"set q 0 0 262144\r\n" + LARGE + b"\r\n", b"STORED\r\n")
            self.assertEqual((await service.get(b"q")).payload, LARGE)
            await service.stopService()
            await client.gone()
            self.assertEqual(os.listdir(directory), [])

    async def test_a_client_and_the_application_wait_in_one_line(self) -> None:
        service = self.started(loopback())
        client = await self.connect(service)
        client.send(b"get q/t=10000\r\n")
        await until(lambda: service.queues.find(b"q"))
        waiting = service.get(b"q", timeout=10)
        await service.put(b"q", b"1")
        await service.put(b"q", b"2")
        await client.expect(self, b"VALUE q 0 1\r\n1\r\nEND\r\n")
        self.assertEqual((await waiting).payload, b"2")

    async def test_dialects(self) -> None:
        for settings, pair, expected in (
            (Settings(), None, b"q"),
            (Settings(dialect="memcache"), None, b"q/t=1"),
            (Settings(), "memcache", b"q/t=1"),
            (Settings(dialect="memcache"), "kestrel", b"q"),
        ):
            endpoint = loopback() if pair is None else Listener(loopback(), dialect=pair)
            service = self.started(endpoint, settings=settings)
            await service.put(b"q", b"x")
            client = await self.connect(service)
            await client.ask(self, b"get q/t=1\r\n", b"VALUE %b 0 1\r\nx\r\nEND\r\n" % expected)

    async def test_the_limits(self) -> None:
        policies = Policies(QueueSettings(max_item_bytes=3, max_open_reads=2))
        service = self.started(loopback(), settings=Settings(policies=policies))
        client = await self.connect(service)
        await client.ask(self, b"set q 0 0 4\r\nabcd\r\n", b"SERVER_ERROR object too large\r\n")
        for _ in range(3):
            await service.put(b"q", b"abc")
        for _ in range(2):
            await client.ask(self, b"get q/open\r\n", b"VALUE q 0 3\r\nabc\r\nEND\r\n")
        await client.ask(self, b"get q/open\r\n", b"CLIENT_ERROR close current item first\r\n")

    async def test_an_expiry_beyond_all_time(self) -> None:
        service = self.started(loopback())
        client = await self.connect(service)
        await client.ask(self, b"set q 0 999999999999999999 1\r\nx\r\n", b"STORED\r\n")
        await client.ask(self, b"get q\r\n", b"VALUE q 0 1\r\nx\r\nEND\r\n")


class Held(LevelStore):
    """A store whose writes to stable storage wait for a gate."""

    gate: threading.Event
    failing = False

    def write(self, batch: Batch, sync: bool = False) -> None:
        if sync:
            self.gate.wait()
            if self.failing:
                raise StoreError("cannot write: no space")
        super().write(batch, sync)


class LargeWhileSyncTests(ServiceTestCase):
    """Large items come in while another client's write to stable storage is under way."""

    async def begin(self) -> None:
        class Store(Held):
            gate = threading.Event()

        self.store = Store
        self.service = self.started(loopback(), open_store=Store)
        slow_disk(self.service)
        self.addCleanup(Store.gate.set)
        self.client = await self.connect(self.service)
        # More than one chunk of it is taken and written before the other's write begins.
        self.client.send(b"set q 0 0 262144\r\n" + LARGE[:100_000])
        await self.taken(100_000)
        await deferLater(reactor, 0.01)
        self.sync = self.service.put(b"other", b"x", sync=True)
        await deferLater(reactor, 0)
        self.assertTrue(self.service.queues.commit.busy)

    async def taken(self, count: int) -> None:
        """Wait until more than so many bytes were read."""
        await until(lambda: self.service.queues.stats.bytes_read > count)

    async def send_the_rest(self) -> None:
        """Of it the server takes a part, and no more until the write is done."""
        before = self.service.queues.stats.bytes_read
        self.client.send(LARGE[100_000:] + b"\r\n")
        await self.taken(before)

    async def test_the_rest_is_taken_up_when_the_write_is_done(self) -> None:
        await self.begin()
        await self.send_the_rest()
        self.store.gate.set()
        await self.client.expect(self, b"STORED\r\n")
        self.assertEqual((await self.service.get(b"q")).payload, LARGE)

    async def test_a_client_that_sends_nothing_more_after_it(self) -> None:
        await self.begin()
        await self.send_the_rest()
        self.client.transport.loseWriteConnection()
        await deferLater(reactor, 0.02)
        self.assertTrue(self.service.queues.commit.busy)
        self.store.gate.set()
        await self.client.expect(self, b"STORED\r\n")
        await self.client.gone()
        self.assertEqual((await self.service.get(b"q")).payload, LARGE)

    async def test_an_item_of_which_a_chunk_is_lost_is_not_stored(self) -> None:
        # All of the payload is in the write that fails, and only its end comes while that is under way.
        await self.begin()
        self.store.gate.set()
        await self.sync
        self.store.gate.clear()
        self.store.failing = True
        sync = self.service.put(b"other", b"x", sync=True)
        (connection,) = self.service._factories[0].connections
        connection.received(LARGE[100_000:])
        await deferLater(reactor, 0)
        self.assertTrue(self.service.queues.commit.busy)
        connection.received(b"\r\n")
        await deferLater(reactor, 0)
        self.store.gate.set()
        with self.assertRaises(StoreError):
            await sync
        await self.client.expect(self, b"SERVER_ERROR cannot write: no space\r\n")
        self.assertEqual(self.service.names(), [b"other"])


class CleanStopTests(ServiceTestCase):
    """Stop listening, finish and end the connections, give back what was open, close the store."""

    def setUp(self) -> None:
        self.patch(service_module, "DRAIN", 600.0)  # however long this process stands still meanwhile

    async def test_connections_are_ended_and_open_reads_go_back(self) -> None:
        port = reserve_port()  # where nobody else answers once the service has stopped
        service = self.started(TCP4ServerEndpoint(reactor, port, interface="127.0.0.1"), loopback())
        for number in range(3):
            await service.put(b"q", b"%d" % number)
        one, two = await self.connect(service, 0), await self.connect(service, 1)
        await one.ask(self, b"get q/open\r\n", b"VALUE q 0 1\r\n0\r\nEND\r\n")
        await two.ask(self, b"get q/open\r\n", b"VALUE q 0 1\r\n1\r\nEND\r\n")
        await service.stopService()
        await gatherResults([one.gone(), two.gone()])
        with self.assertRaises(ConnectionRefusedError):
            await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Client())
        service.startService()
        self.assertEqual([(await service.get(b"q")).payload for _ in range(3)], [b"0", b"1", b"2"])

    async def test_replies_under_way_are_delivered(self) -> None:
        service = self.started(loopback())
        client = await self.connect(service)
        for _ in range(10):
            await service.put(b"q", LARGE)
        client.send(b"get q/peek\r\n" * 10)
        await until(lambda: client.received)
        await service.stopService()
        await client.gone()
        reply = b"VALUE q 0 262144\r\n" + LARGE + b"\r\nEND\r\n"
        self.assertTrue(client.received.startswith(reply))
        self.assertEqual(len(client.received) % len(reply), 0, "no reply is cut short")

    async def test_a_set_on_stable_storage_is_answered(self) -> None:
        class Store(Held):
            gate = threading.Event()

        service = self.started(loopback(), open_store=Store)
        self.addCleanup(Store.gate.set)
        slow_disk(service)
        client = await self.connect(service)
        client.send(b"set q/sync 0 0 1\r\nx\r\n")
        await until(lambda: service.queues.commit.busy)
        stopping = service.stopService()
        await deferLater(reactor, 0.02)
        self.assertNoResult(stopping)
        Store.gate.set()
        await client.expect(self, b"STORED\r\n")
        await stopping
        await client.gone()
        service.startService()
        self.assertEqual(service.count(b"q"), 1)

    async def test_a_waiting_client_is_let_go(self) -> None:
        service = self.started(loopback())
        client = await self.connect(service)
        client.send(b"get q/t=60000\r\n")
        await until(lambda: service.queues.find(b"q"))
        await service.stopService()
        await client.gone()
        self.assertEqual(client.received, b"")

    async def test_a_client_that_does_not_read_is_cut_off(self) -> None:
        self.patch(service_module, "DRAIN", 0.1)
        service = self.started(loopback())
        await service.put(b"q", LARGE * 128)
        client = await self.connect(service)
        client.transport.pauseProducing()
        client.send(b"get q/open\r\n")
        await until(lambda: service.count(b"q") == 0)
        await service.stopService()
        client.transport.resumeProducing()
        await client.gone()
        service.startService()
        self.assertEqual(service.count(b"q"), 1)

    async def test_a_half_sent_item_leaves_nothing(self) -> None:
        service = self.started(loopback())
        client = await self.connect(service)
        client.send(b"set q 0 0 1000000\r\n" + LARGE)
        await until(lambda: service.queues.stats.bytes_read > len(LARGE))
        await service.stopService()
        await client.gone()
        service.startService()
        self.assertEqual(service.names(), [])

    async def test_several_clients_at_once(self) -> None:
        service = self.started(loopback())
        clients = [await self.connect(service) for _ in range(20)]
        for number, client in enumerate(clients):
            client.send(b"set q%d 0 0 1\r\nx\r\n" % number * 50)
        replies = [Deferred.fromCoroutine(client.expect(self, b"STORED\r\n" * 50)) for client in clients]
        await DeferredList(replies, fireOnOneErrback=True)
        await service.stopService()
        await gatherResults([client.gone() for client in clients])
        self.assertFalse([client for client in clients if client.reason.check(ConnectionAborted)])


class DebugTests(ServiceTestCase):
    async def test_connections_are_logged_on_wish(self) -> None:
        for debug in (False, True):
            service = self.started(loopback(), settings=evolve(Settings(), debug=debug))
            self.assertEqual(service._factories[0].debug, debug)


class HttpTests(ServiceTestCase):
    async def test_two_places(self) -> None:
        """They show the same queues, and close with the service."""
        service = self.started(*(Listener(loopback(), HTTP) for _ in range(2)))
        await service.put(b"q", b"x")
        for port in service.ports:
            client = await connectProtocol(
                TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port), Client()
            )
            client.send(b"GET /api/v1/queues/q HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            await client.gone()
            self.assertIn(b'"name":"q"', client.received)
        await service.stopService()
        self.assertEqual((service.ports, service._root), ([], None))
