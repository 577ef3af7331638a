"""
The calls of an application on its queues, with a real reactor and a real store (`darner.front.calls`,
`darner.service`).
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, Optional

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from darner.config.policies import Policies, QueueSettings
from darner.config.settings import Settings
from darner.errors import BadQueueName, ClientError, DarnerError, DiskAlmostFull, ItemTooLarge, Stopped, StoreError
from darner.interfaces import IMessage, IOpenRead, IQueueService
from darner.queues.transfer import ITEMS_A_TURN
from darner.service import QueueService
from darner.store.batch import Batch
from darner.store.leveldb import LevelStore
from darner.values.stats import Health
from test.harness import from_source, slow_disk

LARGE = bytes(range(256)) * 1024
"""256 KiB: a stream of several chunks."""
LONG = 600.0
"""Seconds that no test takes, however long this process stands still meanwhile."""


class TrickyStore(LevelStore):
    """
    A real store that can be held up and can fail.

    @ivar gate: writes to stable storage wait until it is set.
    @ivar failing: what fails: C{"write"}, C{"chunk"}, C{"read"}, C{"number"}.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.gate = threading.Event()
        self.gate.set()
        self.failing: set[str] = set()
        self.syncs = 0

    def _check(self, what: str) -> None:
        if what in self.failing:
            raise StoreError(f"no {what}")

    def write(self, batch: Batch, sync: bool = False) -> None:
        if sync:
            self.syncs += 1
            self.gate.wait()
        self._check("write")
        super().write(batch, sync)

    def read(self, *arguments: int) -> Any:
        self._check("read")
        return super().read(*arguments)

    def chunk(self, stream: int, index: int) -> bytes:
        self._check("chunk")
        return super().chunk(stream, index)

    def new_number(self) -> int:
        self._check("number")
        return super().new_number()


def commit() -> Deferred[None]:
    """@return: fires when the reactor has done what is due."""
    return deferLater(reactor, 0)


class CallsTestCase(TestCase):
    """A running service without listeners."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.service = self.start()

    def start(self, **options: Any) -> QueueService:
        def open_store(path: Path) -> TrickyStore:
            self.store = TrickyStore(path)
            return self.store

        service = QueueService(self.path, open_store=open_store, **options)
        service.startService()
        slow_disk(service)
        self.addCleanup(service.stopService)
        self.addCleanup(self.store.gate.set)
        return service

    async def restart(self) -> None:
        await self.service.stopService()
        self.service = self.start()

    async def payloads(self, queue: bytes) -> list[bytes]:
        """@return: all that is in a queue, which is empty after that."""
        found = []
        while (message := await self.service.get(queue)) is not None:
            found.append(message.payload)
        return found


class AlmostFullTests(CallsTestCase):
    """Applications are told as clients are."""

    async def test_put(self) -> None:
        self.assertEqual(self.service.health(), Health())
        await self.service.put(b"q", b"before")
        await self.service.stopService()
        self.service = self.start(settings=Settings(min_free_bytes=1000))
        self.patch(self.store, "space", lambda: (999, 10_000))
        for payload in (b"x", bytes(200_000)):
            with self.assertRaises(DiskAlmostFull) as caught:
                await self.service.put(b"q", payload)
        self.assertEqual(str(caught.exception), "disk almost full: 999 bytes are free, 1000 are kept free")
        health = self.service.health()
        self.assertEqual((health.writable, health.reason), (False, str(caught.exception)))
        self.assertEqual(await self.payloads(b"q"), [b"before"])
        self.assertEqual(self.store.leftovers(), ([], []))


class PutAndGetTests(CallsTestCase):
    def test_provides_the_interface(self) -> None:
        verifyObject(IQueueService, self.service)

    async def test_an_item_comes_back_as_it_was_put(self) -> None:
        await self.service.put(b"q", b"\0\r\nEND\r\n", flags=2**32 - 1)
        message = await self.service.get(b"q")
        verifyObject(IMessage, message)
        self.assertEqual((message.queue, message.payload, message.flags), (b"q", b"\0\r\nEND\r\n", 2**32 - 1))

    async def test_nothing(self) -> None:
        self.assertIsNone(await self.service.get(b"q"))
        self.assertIsNone(await self.service.open(b"q", timeout=-1))
        self.assertIsNone(await self.service.peek(b"q"))
        self.assertEqual(self.service.names(), [])

    async def test_items_leave_in_the_order_in_which_they_were_put(self) -> None:
        await gatherResults([self.service.put(b"q", b"%d" % number) for number in range(100)])
        self.assertEqual(await self.payloads(b"q"), [b"%d" % number for number in range(100)])

    async def test_an_empty_item(self) -> None:
        await self.service.put(b"q", b"")
        message = await self.service.get(b"q")
        self.assertEqual(message.payload, b"")

    async def test_a_get_in_the_turn_of_the_put(self) -> None:
        put = self.service.put(b"q", b"x")
        message = await self.service.get(b"q")
        self.assertEqual(message.payload, b"x")
        self.assertIsNone(self.successResultOf(put))

    async def test_a_large_item(self) -> None:
        await self.service.put(b"q", LARGE, flags=7)
        for call in (self.service.peek, self.service.open):
            message = await call(b"q")
            self.assertEqual((message.payload, message.flags), (LARGE, 7))
        await message.abort()
        await self.restart()
        message = await self.service.get(b"q")
        self.assertEqual(message.payload, LARGE)
        self.assertEqual(self.service.count(b"q"), 0)

    async def test_an_item_of_another_bytes_type(self) -> None:
        await self.service.put(b"q", memoryview(LARGE))  # type: ignore[arg-type]
        await self.service.put(b"q", bytearray(b"x"))
        self.assertEqual(await self.payloads(b"q"), [LARGE, b"x"])

    async def test_an_item_that_expired_is_not_had(self) -> None:
        await self.service.put(b"q", b"gone", expiry=-1)
        await self.service.put(b"q", b"gone", expiry=1_000_000_000)
        await self.service.put(b"q", b"soon", expiry=2_592_000)
        await self.service.put(b"q", b"late", expiry=10**30)
        self.assertEqual(await self.payloads(b"q"), [b"soon", b"late"])

    async def test_put_on_stable_storage(self) -> None:
        await self.service.put(b"q", b"x")
        self.assertEqual(self.store.syncs, 0)
        await self.service.put(b"q", b"y", sync=True)
        self.assertEqual(self.store.syncs, 1)
        self.assertEqual(await self.payloads(b"q"), [b"x", b"y"])

    async def test_one_write_to_stable_storage_serves_all_who_wait_for_it(self) -> None:
        self.store.gate.clear()
        first = self.service.put(b"q", b"0", sync=True)
        await commit()
        rest = [self.service.put(b"q", b"%d" % number, sync=True) for number in range(1, 20)]
        await commit()
        self.assertNoResult(first)
        self.store.gate.set()
        await gatherResults([first, *rest])
        self.assertEqual(self.store.syncs, 2)

    async def test_what_was_put_is_there_after_a_restart(self) -> None:
        await self.service.put(b"q", b"1", flags=3)
        await self.service.put(b"q", b"2")
        await self.service.put(b"r", b"3", sync=True)
        await self.service.get(b"q")
        await self.restart()
        self.assertEqual(self.service.names(), [b"q", b"r"])
        self.assertEqual(await self.payloads(b"q"), [b"2"])
        self.assertEqual(await self.payloads(b"r"), [b"3"])


class RefusalTests(CallsTestCase):
    """A call that cannot be done fails its Deferred with a L{DarnerError}, and changes nothing."""

    def refused(self, call: Deferred[Any], error: type[DarnerError], text: str) -> None:
        self.assertEqual(str(self.failureResultOf(call, error).value), text)
        self.assertEqual(self.service.names(), [])

    def test_bad_names(self) -> None:
        service = self.service
        for name in (b"", b"a b", b"a/b", b"\xff", b"a\n", b"x" * 251):
            for call in (
                service.put(name, b"x"), service.get(name), service.open(name, timeout=1), service.peek(name),
                service.flush(name), service.delete(name),
            ):  # fmt: skip
                self.refused(call, BadQueueName, "bad queue name")
        self.assertEqual(service.count(b"a b"), 0)

    async def test_the_longest_name_and_the_oddest(self) -> None:
        for name in (b"x" * 250, b".", b"..", b"a:b"):
            await self.service.put(name, b"x")
            self.assertEqual(await self.payloads(name), [b"x"])

    def test_bad_flags(self) -> None:
        for flags in (-1, 2**32, 1.0, None):
            self.refused(self.service.put(b"q", b"x", flags=flags), ClientError, "bad flags")

    def test_bad_expiry(self) -> None:
        self.refused(self.service.put(b"q", b"x", expiry=1.5), ClientError, "bad expiry")
        decades = "expiry is over 2592000 s, and too early for a date"
        for expiry in 2_592_001, 999_999_999:
            self.refused(self.service.put(b"q", b"x", expiry=expiry), ClientError, decades)

    def test_bad_delay(self) -> None:
        for delay in (-1, 1e12):
            self.refused(self.service.put(b"q", b"x", delay=delay), ClientError, "bad delay")

    async def test_delay(self) -> None:
        began = reactor.seconds()
        await gatherResults([
            self.service.put(b"q", b"much later", delay=3600), self.service.put(b"q", b"late", delay=0.05),
            self.service.put(b"q", b"now", delay=0),
        ])  # fmt: skip
        for expected in (b"now", b"late"):
            message = await self.service.get(b"q", timeout=LONG)
            assert message is not None
            self.assertEqual(message.payload, expected)
        self.assertGreater(reactor.seconds() - began, 0.04)
        self.assertEqual(self.service.count(b"q"), 0)

    async def test_too_large(self) -> None:
        await self.service.stopService()
        self.service = self.start(settings=Settings(policies=Policies(QueueSettings(max_item_bytes=100_000))))
        self.refused(self.service.put(b"q", b"x" * 100_001), ItemTooLarge, "object too large")
        await self.service.put(b"q", b"x" * 100_000)
        self.assertEqual(self.service.count(b"q"), 1)

    async def test_a_bad_name_to_iterate_over(self) -> None:
        with self.assertRaises(BadQueueName):
            await anext(self.service.items(b"a b"))


class FaultTests(CallsTestCase):
    """The store fails."""

    async def test_a_put_that_cannot_be_written(self) -> None:
        self.store.failing = {"write"}
        put, got = self.service.put(b"q", b"x"), self.service.get(b"q")
        for call in (put, got):
            with self.assertRaises(StoreError):
                await call
        self.store.failing = set()
        self.assertEqual(self.service.count(b"q"), 0)
        await self.service.put(b"q", b"y")
        self.assertEqual(await self.payloads(b"q"), [b"y"])

    async def test_a_new_queue_that_cannot_be_made(self) -> None:
        self.store.failing = {"number"}
        for payload in (b"x", LARGE):
            self.failureResultOf(self.service.put(b"q", payload), StoreError)
        self.store.failing = set()
        reclaimed: set[int] = set()
        reclaim = self.store.reclaim_stream
        self.patch(
            self.store, "reclaim_stream",
            lambda stream, *more: reclaimed.add(stream) or reclaim(stream, *more),  # type: ignore[func-returns-value]
        )  # fmt: skip
        while not reclaimed or self.store.leftovers()[1]:
            await deferLater(reactor, 0.005)
        self.assertEqual(len(reclaimed), 1)
        self.assertEqual(self.service.names(), [])
        await self.service.put(b"q", LARGE)
        self.assertEqual(await self.payloads(b"q"), [LARGE])

    async def test_a_read_that_cannot_be_written_leaves_the_item(self) -> None:
        await self.service.put(b"q", b"x")
        self.store.failing = {"write"}
        with self.assertRaises(StoreError):
            await self.service.get(b"q")
        self.store.failing = set()
        self.assertEqual(self.service.count(b"q"), 1)
        self.assertEqual(await self.payloads(b"q"), [b"x"])

    async def test_a_queue_that_cannot_be_read(self) -> None:
        await self.service.put(b"q", b"x")
        await self.restart()
        self.store.failing = {"read"}
        for call in (self.service.get, self.service.open, self.service.peek):
            self.failureResultOf(call(b"q"), StoreError)
        self.store.failing = set()
        self.assertEqual(await self.payloads(b"q"), [b"x"])

    async def test_a_large_item_that_cannot_be_read_stays(self) -> None:
        await self.service.put(b"q", LARGE)
        self.store.failing = {"chunk"}
        for call in (self.service.get, self.service.open, self.service.peek):
            with self.assertRaises(StoreError):
                await call(b"q")
            self.assertEqual(self.service.count(b"q"), 1)
        self.store.failing = set()
        self.assertEqual(await self.payloads(b"q"), [LARGE])

    @from_source
    async def test_one_who_waits_hears_that_the_item_cannot_be_read(self) -> None:
        waiting = self.service.open(b"q", timeout=None)
        await self.service.put(b"other", b"x")
        self.patch(type(self.service.queues.find(b"q")), "open", self._fail)
        await self.service.put(b"q", b"x")
        with self.assertRaises(StoreError):
            await waiting

    @staticmethod
    def _fail(fifo: object) -> None:
        raise StoreError("no read")


class WaitingTests(CallsTestCase):
    async def test_a_waiting_get_has_the_next_item(self) -> None:
        waiting = self.service.get(b"q", timeout=LONG)
        await commit()
        self.assertNoResult(waiting)
        await self.service.put(b"q", b"x")
        message = await waiting
        self.assertEqual(message.payload, b"x")
        self.assertEqual(self.service.count(b"q"), 0)

    async def test_waits_are_served_in_the_order_in_which_they_came(self) -> None:
        first, second = self.service.get(b"q", timeout=LONG), self.service.open(b"q", timeout=None)
        await self.service.put(b"q", b"1")
        await self.service.put(b"q", b"2")
        self.assertEqual(((await first).payload, (await second).payload), (b"1", b"2"))

    async def test_a_waiting_peek_leaves_the_item(self) -> None:
        peeking, getting = self.service.peek(b"q", timeout=LONG), self.service.get(b"q", timeout=LONG)
        await self.service.put(b"q", b"x")
        self.assertEqual(((await peeking).payload, (await getting).payload), (b"x", b"x"))

    async def test_a_wait_ends_with_nothing(self) -> None:
        for call in (self.service.get, self.service.open, self.service.peek):
            self.assertIsNone(await call(b"q", timeout=0.01))
        self.assertEqual(self.service.names(), [])
        self.assertIsNone(self.service.queues.find(b"q"), "nobody needs to know the queue any more")

    async def test_a_wait_for_a_large_item(self) -> None:
        waiting = self.service.get(b"q", timeout=None)
        await self.service.put(b"q", LARGE)
        self.assertEqual((await waiting).payload, LARGE)

    async def test_an_item_given_back_goes_to_one_who_waits(self) -> None:
        await self.service.put(b"q", b"x")
        read = await self.service.open(b"q")
        waiting = self.service.get(b"q", timeout=LONG)
        await read.abort()
        self.assertEqual((await waiting).payload, b"x")

    async def test_a_deleted_queue_does_not_strand_those_who_wait(self) -> None:
        await self.service.put(b"q", b"x")
        await self.service.get(b"q")
        waiting = self.service.get(b"q", timeout=LONG)
        await self.service.delete(b"q")
        await self.service.put(b"q", b"y")
        self.assertEqual((await waiting).payload, b"y")


class FanoutTests(CallsTestCase):
    """Children and aliases are the same for applications as for clients."""

    async def test_children(self) -> None:
        for read in (self.service.get, self.service.open, self.service.peek):
            self.assertIsNone(await read(b"q+%s" % read.__name__.encode()))
        waiting = self.service.get(b"q+waiting", timeout=LONG)
        self.assertEqual(self.service.names(), [b"q+get", b"q+open", b"q+peek", b"q+waiting"])
        await self.service.put(b"q", b"1")
        await self.service.put(b"q", LARGE)
        message = await waiting
        self.assertEqual((message.queue, message.payload), (b"q+waiting", b"1"))
        await self.restart()
        self.assertEqual(await self.payloads(b"q"), [b"1", LARGE])
        self.assertEqual(await self.payloads(b"q+waiting"), [LARGE])
        for child in (b"q+get", b"q+open", b"q+peek"):
            self.assertEqual(await self.payloads(child), [b"1", LARGE])

    async def test_child_that_cannot_be_written(self) -> None:
        self.store.failing.add("write")
        for timeout in (0, 5, None):
            with self.assertRaises(StoreError):
                await self.service.get(b"q+a", timeout)
        cancelled = self.service.get(b"q+a", 5)
        cancelled.cancel()
        await self.assertFailure(cancelled, CancelledError)
        await commit()
        await commit()
        self.assertEqual(self.service.names(), [])
        self.flushLoggedErrors()

    async def test_alias(self) -> None:
        await self.service.stopService()
        policies = Policies(QueueSettings(max_item_bytes=10), {"q": {"max_item_bytes": 20}}, {b"all": (b"q", b"r")})
        self.service = self.start(settings=Settings(policies=policies))
        await self.service.put(b"all", b"1")
        with self.assertRaises(ItemTooLarge):
            await self.service.put(b"all", b"x" * 11)
        await self.service.put(b"q", b"x" * 11)
        self.assertIsNone(await self.service.get(b"all"))
        self.assertEqual(await self.payloads(b"q"), [b"1", b"x" * 11])
        self.assertEqual(await self.payloads(b"r"), [b"1"])


class CancellingTests(CallsTestCase):
    """Cancelling loses no item, whenever it comes."""

    def cancelled(self, call: Deferred[Any]) -> None:
        call.cancel()
        self.failureResultOf(call, CancelledError)

    async def test_while_it_waits(self) -> None:
        for call in (self.service.get, self.service.open, self.service.peek):
            for timeout in (LONG, None):
                self.cancelled(call(b"q", timeout=timeout))
        await self.service.put(b"q", b"x")
        self.assertEqual(await self.payloads(b"q"), [b"x"])

    async def test_when_it_has_been_handed_an_item_in_this_turn(self) -> None:
        for payload in (b"x", LARGE):
            for call in (self.service.get, self.service.open, self.service.peek):
                await self.service.put(b"q", payload)
                self.cancelled(call(b"q"))
                self.assertEqual(self.service.count(b"q"), 1)
                self.assertEqual(await self.payloads(b"q"), [payload])

    async def test_when_it_waited_and_has_been_handed_an_item_in_this_turn(self) -> None:
        for payload in (b"x", LARGE):
            for call in (self.service.get, self.service.open, self.service.peek):
                waiting = call(b"q", timeout=LONG)
                put = self.service.put(b"q", payload)
                self.cancelled(waiting)
                await put
                self.assertEqual(await self.payloads(b"q"), [payload])

    async def test_the_item_goes_to_the_next_who_waits(self) -> None:
        first, second = self.service.get(b"q", timeout=LONG), self.service.get(b"q", timeout=LONG)
        put = self.service.put(b"q", b"x")
        self.cancelled(first)
        self.assertEqual((await second).payload, b"x")
        await put

    async def test_the_item_stays_ahead_of_what_came_after_it(self) -> None:
        await gatherResults([self.service.put(b"q", b"%d" % number) for number in range(3)])
        self.cancelled(self.service.get(b"q"))
        self.assertEqual(await self.payloads(b"q"), [b"0", b"1", b"2"])

    async def test_what_the_same_write_puts(self) -> None:
        """It is put all the same."""
        self.store.gate.clear()
        put = self.service.put(b"q", b"x", sync=True)
        reading = self.service.get(b"q")
        await commit()
        self.cancelled(reading)
        self.store.gate.set()
        await put
        await self.restart()
        self.assertEqual(await self.payloads(b"q"), [b"x"])

    async def test_while_a_write_to_stable_storage_is_under_way(self) -> None:
        await self.service.put(b"q", b"x")
        for call in (self.service.get, self.service.open, self.service.peek):
            self.store.gate.clear()
            sync = self.service.put(b"other", b"x", sync=True)
            in_the_write = call(b"q")
            await commit()
            self.cancelled(in_the_write)
            behind_the_write = call(b"q")
            await commit()
            self.cancelled(behind_the_write)
            self.store.gate.set()
            await sync
            self.assertEqual(self.service.count(b"q"), 1)
        await self.restart()
        self.assertEqual(await self.payloads(b"q"), [b"x"])

    async def test_when_the_write_fails_too(self) -> None:
        await self.service.put(b"q", b"x")
        self.store.failing = {"write"}
        self.cancelled(self.service.get(b"q"))
        other = self.service.get(b"q")
        with self.assertRaises(StoreError):
            await other
        self.store.failing = set()
        self.assertEqual(await self.payloads(b"q"), [b"x"])

    async def test_when_its_time_is_just_up(self) -> None:
        # Nothing is handed out when the cancelling comes between the end of the wait and that of the turn.
        self.cancelled(self.service.get(b"q"))
        waiting = self.service.get(b"q", timeout=LONG)
        (waiter,) = self.service.queues.find(b"q").waiters.line
        reading = waiter.serve.__self__
        reading._timer.cancel()
        reading._give_up()
        self.cancelled(waiting)
        await self.service.put(b"q", b"x")
        self.assertEqual(await self.payloads(b"q"), [b"x"])

    async def test_when_the_queue_was_deleted_since(self) -> None:
        # The new queue numbers its items anew: what is given back must not be taken for one of them.
        for call in (self.service.get, self.service.open):
            await self.service.put(b"q", b"old")
            reading = call(b"q")
            self.service.delete(b"q")
            self.service.put(b"q", b"new")
            taken = self.service.get(b"q")
            self.cancelled(reading)
            self.assertEqual((await taken).payload, b"new")
            self.assertEqual(await self.payloads(b"q"), [])
            await self.service.delete(b"q")

    async def test_what_was_put_or_flushed_stays_so(self) -> None:
        self.cancelled(self.service.put(b"q", b"x"))
        self.cancelled(self.service.put(b"r", b"x"))
        self.cancelled(self.service.flush(b"r"))
        await commit()
        self.assertEqual((self.service.count(b"q"), self.service.count(b"r")), (1, 0))

    async def test_after_it_was_answered(self) -> None:
        await self.service.put(b"q", b"x")
        read = self.service.open(b"q")
        message = await read
        read.cancel()
        self.assertTrue(message.is_open)


class OpenReadTests(CallsTestCase):
    async def opened(self, payload: bytes = b"x") -> Any:
        await self.service.put(b"q", payload, flags=5)
        return await self.service.open(b"q")

    async def test_what_it_shows(self) -> None:
        read = await self.opened()
        verifyObject(IOpenRead, read)
        self.assertEqual((read.queue, read.payload, read.flags, read.is_open), (b"q", b"x", 5, True))
        self.assertEqual(self.service.count(b"q"), 0)

    async def test_close(self) -> None:
        read = await self.opened()
        self.assertIsNone(await read.close())
        self.assertFalse(read.is_open)
        await read.close()
        await read.abort()
        self.assertEqual(self.service.count(b"q"), 0)
        await self.restart()
        self.assertEqual(self.service.count(b"q"), 0)

    async def test_abort(self) -> None:
        read = await self.opened()
        await self.service.put(b"q", b"y")
        self.assertIsNone(await read.abort())
        self.assertFalse(read.is_open)
        await read.close()
        await read.abort()
        self.assertEqual(await self.payloads(b"q"), [b"x", b"y"])

    async def test_several_go_back_in_their_old_order(self) -> None:
        await gatherResults([self.service.put(b"q", b"%d" % number) for number in range(4)])
        reads = [await self.service.open(b"q") for _ in range(3)]
        for read in (reads[1], reads[2], reads[0]):
            await read.abort()
        self.assertEqual(await self.payloads(b"q"), [b"0", b"1", b"2", b"3"])

    async def test_as_a_context(self) -> None:
        async with await self.opened() as read:
            self.assertTrue(read.is_open)
        self.assertFalse(read.is_open)
        self.assertEqual(self.service.count(b"q"), 0)

    async def test_as_a_context_left_by_an_error(self) -> None:
        with self.assertRaises(ZeroDivisionError):
            async with await self.opened():
                raise ZeroDivisionError
        self.assertEqual(await self.payloads(b"q"), [b"x"])

    async def test_as_a_context_it_may_be_ended_before(self) -> None:
        async with await self.opened() as read:
            await read.abort()
        self.assertEqual(await self.payloads(b"q"), [b"x"])

    async def test_nowhere_to_go_back_to(self) -> None:
        read = await self.opened()
        await self.service.delete(b"q")
        self.assertFalse(read.is_open)
        await read.abort()
        await read.close()
        self.assertEqual(self.service.names(), [])

    async def test_open_for_too_long(self) -> None:
        self.service.queues.apply(Policies(QueueSettings(open_timeout=LONG)))
        read = await self.opened()
        self.service.queues.apply(Policies(QueueSettings(open_timeout=0.05)))
        self.assertTrue(read.touch())
        self.assertEqual((await self.service.get(b"q", LONG)).payload, b"x")
        self.assertFalse(read.is_open)
        self.assertFalse(read.touch())
        self.assertIsNone(await read.close())

    async def test_a_flush_leaves_it_open(self) -> None:
        read = await self.opened()
        await self.service.put(b"q", b"y")
        await self.service.flush(b"q")
        self.assertTrue(read.is_open)
        await read.abort()
        self.assertEqual(await self.payloads(b"q"), [b"x"])

    async def test_a_close_that_cannot_be_written(self) -> None:
        read = await self.opened()
        self.store.failing = {"write"}
        with self.assertRaises(StoreError):
            await read.close()
        self.assertFalse(read.is_open)
        self.store.failing = set()
        # It is made up for with the next write.
        await self.service.put(b"q", b"y")
        await self.restart()
        self.assertEqual(await self.payloads(b"q"), [b"y"])

    async def test_when_the_service_has_stopped(self) -> None:
        read, other = await self.opened(), await self.opened()
        await self.service.stopService()
        self.assertFalse(read.is_open)
        self.assertEqual(str(self.failureResultOf(read.close()).value), "server is stopping")
        self.assertIsNone(self.successResultOf(other.abort()))
        self.service = self.start()
        self.failureResultOf(read.close())
        self.assertEqual(await self.payloads(b"q"), [b"x", b"x"])


class ManagingTests(CallsTestCase):
    async def test_peek(self) -> None:
        await self.service.put(b"q", b"x", flags=9)
        for _ in range(2):
            message = await self.service.peek(b"q")
            self.assertEqual((message.queue, message.payload, message.flags), (b"q", b"x", 9))
        self.assertEqual(self.service.count(b"q"), 1)

    async def test_requeue(self) -> None:
        for number in range(3 * ITEMS_A_TURN):
            self.service.put(b"p", b"%d" % number)
        await self.service.put(b"q", b"first")
        self.assertEqual(await self.service.requeue(b"p", b"q", 1), 1)
        self.assertEqual(await self.service.requeue(b"p", b"q"), 3 * ITEMS_A_TURN - 1)
        self.assertEqual(await self.service.requeue(b"p", b"q"), 0)
        numbers = [b"%d" % number for number in range(3 * ITEMS_A_TURN)]
        self.assertEqual(await self.payloads(b"q"), [b"first", *numbers])

    async def test_requeue_that_cannot_begin(self) -> None:
        """It does not delay the stop."""
        self.assertRaises(TypeError, self.service.requeue, b"p", [b"q"])
        self.assertRaises((TypeError, AttributeError), self.service.requeue, b"p", b"q", "many")
        await self.service.put(b"p", b"x")
        self.assertRaises(TypeError, self.service.requeue, b"p", b"q", "many")

    async def test_requeue_refused(self) -> None:
        for arguments in ((b"q", b"q"), (b"/", b"q"), (b"q", b"/")):
            self.assertIsInstance(self.failureResultOf(self.service.requeue(*arguments)).value, ClientError)
        await self.service.put(b"p", b"x")
        self.store.failing = {"write"}
        with self.assertRaises(StoreError):
            await self.service.requeue(b"p", b"q")
        self.store.failing = set()
        self.assertEqual((self.service.count(b"p"), self.service.count(b"q")), (1, 0))

    async def test_requeue_cancelled_or_stopped(self) -> None:
        for number in range(3 * ITEMS_A_TURN):
            self.service.put(b"p", b"%d" % number)
        await self.service.put(b"q", b"first")
        call = self.service.requeue(b"p", b"q")
        call.cancel()
        self.failureResultOf(call, CancelledError)
        await commit()
        self.assertEqual(self.service.count(b"p"), 2 * ITEMS_A_TURN)
        call = self.service.requeue(b"p", b"q")
        await self.restart()
        self.failureResultOf(call, Stopped)
        self.assertEqual(self.service.count(b"p"), ITEMS_A_TURN)
        self.assertEqual(self.service.count(b"q"), 2 * ITEMS_A_TURN + 1)

    async def test_count_and_names(self) -> None:
        self.assertEqual((self.service.count(b"b"), self.service.names()), (0, []))
        for queue in (b"b", b"a", b"b"):
            await self.service.put(queue, b"x")
        self.assertEqual((self.service.count(b"a"), self.service.count(b"b")), (1, 2))
        self.assertEqual(self.service.names(), [b"a", b"b"])
        await self.service.get(b"a")
        self.assertEqual((self.service.count(b"a"), self.service.names()), (0, [b"a", b"b"]))

    async def test_flush(self) -> None:
        for number in range(10):
            await self.service.put(b"q", b"%d" % number)
        self.assertIsNone(await self.service.flush(b"q"))
        await self.service.flush(b"unknown")
        self.assertEqual((self.service.count(b"q"), self.service.names()), (0, [b"q"]))
        await self.service.put(b"q", b"new")
        await self.restart()
        self.assertEqual(await self.payloads(b"q"), [b"new"])

    async def test_delete(self) -> None:
        for number in range(10):
            await self.service.put(b"q", b"%d" % number)
        self.assertIsNone(await self.service.delete(b"q"))
        await self.service.delete(b"unknown")
        self.assertEqual((self.service.count(b"q"), self.service.names()), (0, []))
        await self.restart()
        self.assertEqual(self.service.names(), [])


class IteratingTests(CallsTestCase):
    async def first(self, count: int, items: AsyncIterator[IOpenRead]) -> list[bytes]:
        found: list[bytes] = []
        async for read in items:
            found.append(read.payload)
            if len(found) == count:
                await read.close()
                break
        return found

    async def test_each_item_is_closed_when_the_next_is_asked_for(self) -> None:
        for number in range(3):
            await self.service.put(b"q", b"%d" % number)
        items = self.service.items(b"q")
        first = await anext(items)
        self.assertTrue(first.is_open)
        second = await anext(items)
        self.assertEqual((first.is_open, second.is_open), (False, True))
        await items.aclose()
        self.assertEqual(await self.payloads(b"q"), [b"1", b"2"])

    async def test_it_waits_for_items(self) -> None:
        walking = Deferred.fromCoroutine(self.first(3, self.service.items(b"q")))
        for number in range(4):
            await self.service.put(b"q", b"%d" % number)
        self.assertEqual(await walking, [b"0", b"1", b"2"])
        self.assertEqual(await self.payloads(b"q"), [b"3"])

    async def test_an_error_in_the_loop_gives_the_item_back(self) -> None:
        await self.service.put(b"q", b"x")
        with self.assertRaises(ZeroDivisionError):
            async with aclosing(self.service.items(b"q")) as items:
                async for _ in items:
                    raise ZeroDivisionError
        self.assertEqual(await self.payloads(b"q"), [b"x"])

    async def test_a_loop_that_is_left_gives_the_item_back(self) -> None:
        await self.service.put(b"q", b"x")
        async for _ in self.service.items(b"q"):
            break
        self.assertEqual(await self.payloads(b"q"), [b"x"])

    async def test_cancelling_while_it_waits(self) -> None:
        walking = Deferred.fromCoroutine(self.first(1, self.service.items(b"q")))
        await commit()
        walking.cancel()
        self.failureResultOf(walking, CancelledError)
        await self.service.put(b"q", b"x")
        self.assertEqual(await self.payloads(b"q"), [b"x"])

    async def test_cancelling_in_the_loop(self) -> None:
        busy: Deferred[Optional[object]] = Deferred()

        async def work() -> None:
            async with aclosing(self.service.items(b"q")) as items:
                async for _ in items:
                    await busy

        await self.service.put(b"q", b"x")
        working = Deferred.fromCoroutine(work())
        await commit()
        await commit()
        self.assertEqual(self.service.count(b"q"), 0)
        working.cancel()
        self.failureResultOf(working, CancelledError)
        self.assertEqual(await self.payloads(b"q"), [b"x"])
