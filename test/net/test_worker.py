"""Tests of `darner.net.worker`: calls in a thread, and results that an epoll is told of."""

from __future__ import annotations

import math
import os
import select
import threading
import time
from collections.abc import Callable
from typing import Any
from unittest import skipUnless

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from darner.errors import StoreError
from darner.net.worker import QUICK, Worker, start_worker
from darner.values.vocabulary import CHUNK_BYTES
from test.descriptors import descriptors
from test.net.test_port import FastTestCase, SmallReactor, SocketClient, needs_epoll
from test.servers import PATIENCE, until

needs_eventfd = skipUnless(hasattr(os, "eventfd"), "this system has no eventfd")


@needs_eventfd
class WorkerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = SmallReactor()
        worker = start_worker(self.reactor, "work")
        assert worker is not None
        self.worker = worker
        self.addCleanup(self.worker.stop)

    def told(self, deferred: Deferred[Any]) -> None:
        """Wait until it has a result."""
        while not deferred.called:
            ready, _, _ = select.select([self.worker], [], [], PATIENCE)
            self.assertEqual(ready, [self.worker])
            self.worker.doRead()

    def test_interface(self) -> None:
        self.assertTrue(verifyObject(IReadDescriptor, self.worker))
        self.assertEqual(self.reactor.readers, [self.worker])
        self.worker.connectionLost(Failure(Exception()))

    def test_results(self) -> None:
        """Calls are made in their order, in one other thread; results are told of in this one."""
        threads: list[str] = []
        seen: list[str] = []

        def work(number: int) -> int:
            threads.append(threading.current_thread().name)
            return number

        calls = [self.worker.call(work, number) for number in range(3)]
        for call in calls:
            call.addCallback(lambda result: seen.append(threading.current_thread().name) or result)
        self.assertEqual(seen, [])
        self.told(calls[-1])
        self.assertEqual([self.successResultOf(call) for call in calls], [0, 1, 2])
        self.assertEqual((threads, seen), (["work"] * 3, [threading.current_thread().name] * 3))

    def test_nothing_to_read(self) -> None:
        self.assertEqual(select.select([self.worker], [], [], 0)[0], [])
        self.worker.doRead()

    def test_error(self) -> None:
        """An error is the result; the thread goes on."""
        failing = self.worker.call(int, "x")
        exiting = self.worker.call(exit)
        well = self.worker.call(int, "1")
        for call in (failing, exiting):
            call.addErrback(lambda failure: failure.type)
        self.told(well)
        self.assertEqual([self.successResultOf(call) for call in (failing, exiting, well)], [ValueError, SystemExit, 1])

    def test_quick(self) -> None:
        """What is quick is called at once, and so is what follows; what it raises is raised."""
        self.patch(time, "monotonic", lambda: 1000.0)  # however long this process stands still meanwhile
        threads: list[object] = []
        for _ in range(2):
            self.assertIsNone(self.worker.call_unless_quick(lambda: threads.append(threading.current_thread())))
        self.assertEqual(threads, [threading.current_thread()] * 2)
        self.assertRaises(ValueError, self.worker.call_unless_quick, int, "x")

    def test_slow(self) -> None:
        """After a slow call, here or there, the thread makes them, for a time that is in proportion."""
        now = [1000.0]
        self.patch(time, "monotonic", lambda: now[0])

        def take(seconds: float) -> str:
            now[0] += seconds
            return threading.current_thread().name

        def here() -> bool:
            called = self.worker.call_unless_quick(take, 0)
            if called is not None:
                self.told(called)
                self.assertEqual(self.successResultOf(called), "work")
            return called is None

        self.assertIsNone(self.worker.call_unless_quick(take, QUICK))
        self.assertTrue(here())
        self.assertIsNone(self.worker.call_unless_quick(take, QUICK + 0.002))
        self.assertFalse(here())
        now[0] += 0.19
        self.assertFalse(here())
        now[0] += 0.02
        self.assertTrue(here())
        self.told(self.worker.call(take, 1))
        self.told(self.worker.call(take, QUICK + 0.001))
        now[0] += 99
        self.assertFalse(here())
        now[0] += 1
        self.assertTrue(here())

    def test_stop(self) -> None:
        """The thread ends when what it does is done; stopping again does nothing."""
        begun, go_on = threading.Event(), threading.Event()

        def work() -> None:
            begun.set()
            go_on.wait(PATIENCE)

        self.worker.call(work)
        self.assertTrue(begun.wait(PATIENCE))
        go_on.set()
        self.worker.stop()
        self.assertFalse(self.worker._runner.is_alive())
        self.assertEqual(self.reactor.readers, [])
        self.assertEqual(self.worker.fileno(), -1)
        self.worker.stop()

    def test_no_thread(self) -> None:
        """What is missing is told at the start, and nothing is left open."""

        def start(_: object) -> None:
            raise RuntimeError("can't start new thread")

        self.patch(threading.Thread, "start", start)
        worker = Worker(self.reactor, "work")
        before = descriptors()
        error = self.assertRaises(OSError, worker.start)
        self.assertIn("can't start new thread", str(error))
        self.assertEqual((descriptors() - before, worker.fileno()), (set(), -1))
        self.assertEqual(self.reactor.readers, [self.worker])

    def test_other_systems(self) -> None:
        self.patch(os, "eventfd", None)
        del os.eventfd
        self.assertIsNone(start_worker(self.reactor, "work"))


@needs_epoll
@needs_eventfd
class PortTests(FastTestCase):
    """A fast port waits for clients and for the worker together."""

    def setUp(self) -> None:
        super().setUp()
        self.worker = self.queues.commit.worker = start_worker(self.reactor, "work")
        assert self.worker is not None
        self.addCleanup(self.worker.stop)

    def replies(self, client: SocketClient, last: bytes, count: int, turn: Callable[[], object]) -> bytes:
        """@return: what comes until so many lines have come that begin with C{last}."""
        got = b""

        def came() -> bool:
            nonlocal got
            turn()
            got += client.receive()
            return got.count(last) >= count

        until(came, f"{count} x {last!r}")
        return got

    def test_sync(self) -> None:
        """Each client is answered when its turn is written, and what came meanwhile is in the next one."""
        port = self.port()
        self.reactor.readers.remove(self.worker)  # only the port looks
        clients = [self.connect() for _ in range(3)]
        for number, client in enumerate(clients * 5):
            client.send(b"set q/sync 0 0 2\r\n%02d\r\nget q/open/close\r\n" % number)
        for number, client in enumerate(clients):
            replies = self.replies(client, b"END", 5, port.doRead)
            self.assertEqual(replies.count(b"STORED\r\n"), 5, number)
        self.reactor.readers.append(self.worker)

    def writers(self) -> list[str]:
        """@return: will have the names of the threads that write to stable storage."""
        threads: list[str] = []
        write = self.queues.store.write

        def note(batch: Any, sync: bool = False) -> None:
            if sync:
                threads.append(threading.current_thread().name)
            write(batch, sync)

        self.patch(self.queues.store, "write", note)
        return threads

    def test_quick(self) -> None:
        """A turn is written at once, and answered, but for one with a large item."""
        threads = self.writers()
        client = self.connect()
        stopped = self.patch(time, "monotonic", lambda: 1000.0)  # however long this process stands still meanwhile
        for number in range(3):
            client.send(b"set q/sync 0 0 1\r\n%d\r\n" % number)
            self.assertFalse(self.queues.commit.busy)
            self.assertEqual(client.receive(), b"STORED\r\n")
        stopped.restore()
        here = threading.current_thread().name
        self.assertEqual(set(threads), {here})
        large = bytes(3 * CHUNK_BYTES)
        client.send(b"set q/sync 0 0 %d\r\n%b\r\n" % (len(large), large))
        self.assertEqual(self.replies(client, b"STORED", 1, self.spin), b"STORED\r\n")
        self.assertEqual(set(threads), {here, "work"})

    def test_refused(self) -> None:
        """A turn that is refused when it is written at once is answered with the reason."""
        store = self.queues.store
        write = store.write

        def refuse(batch: Any, sync: bool = False) -> None:
            if sync:
                raise StoreError("cannot write: no")
            write(batch, sync)

        self.patch(store, "write", refuse)
        client = self.connect()
        for request, reply in (
            (b"set q/sync 0 0 1\r\na\r\n", b"SERVER_ERROR cannot write: no\r\n"), (b"get q\r\n", b"END\r\n"),
        ):
            client.send(request)
            self.assertEqual(client.receive(), reply)

    def test_turn_that_takes_long(self) -> None:
        """The port returns to the reactor; who comes meanwhile is answered by the next turn."""
        go_on = threading.Event()
        store = self.queues.store
        write = store.write

        def wait_and_write(batch: Any, sync: bool = False) -> None:
            if sync:
                go_on.wait(PATIENCE)
            write(batch, sync)

        self.patch(store, "write", wait_and_write)
        self.worker.slow_until = math.inf
        client, other = self.connect(), self.connect()
        client.send(b"set q/sync 0 0 1\r\na\r\n")
        self.assertTrue(self.queues.commit.busy)
        other.send(b"set r 0 0 1\r\na\r\n")
        self.assertEqual((client.receive(), other.receive()), (b"", b""))
        go_on.set()
        self.assertEqual(self.replies(client, b"STORED", 1, self.spin), b"STORED\r\n")
        self.assertEqual(self.replies(other, b"STORED", 1, self.spin), b"STORED\r\n")
