"""
Tests of clients of several shards, against real servers; C{photos} is in the first of two shards, C{jobs} and C{orders}
in the second one.
"""

from __future__ import annotations

from typing import Any, Optional

from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from bench.ports import reserve_port
from darner.client import requests
from darner.client.addresses import Address
from darner.client.asyncio import Client
from darner.client.errors import ClientError, ConnectionFailed, SpansShards
from darner.client.leaders import LeaderRuntime
from darner.client.links import PipelinedLink
from darner.client.shards import BaseShards
from test.client.front_ends import LONG, WHOLE, AsyncioFront, BlockingFront, TwistedFront, run_in_asyncio
from test.servers import Server


def place(port: int) -> str:
    return f"127.0.0.1:{port}"


class ShardsTestCase:
    """Of each shard there are two nodes, of which one listens."""

    def start(self: Any) -> tuple[Server, str]:
        """@return: a server, and an address where it could go on."""
        return Server(self), place(reserve_port())

    def nodes(self: Any) -> list[Any]:
        """Start two servers."""
        (self.first, self.first_other), (self.second, second_other) = self.start(), self.start()
        return [[self.first_other, place(self.first.address[1])], f"{place(self.second.address[1])},{second_other}"]

    async def taken(self: Any, monitor: Any) -> list[bytes]:
        return [item.payload async for item in monitor]


class FrontEndTests(ShardsTestCase, TestCase):
    """The same for all front ends."""

    timeout = WHOLE

    def test_each_queue_in_its_shard(self) -> Any:
        nodes = self.nodes()

        async def run(front: Any) -> None:
            async with front.shards(nodes, timeout=LONG) as shards:
                await self.use(shards)
                for queue in ("photos", "jobs"):
                    await shards.delete(queue)

        run_in_asyncio(run(AsyncioFront()))
        run_in_asyncio(run(BlockingFront()))
        return ensureDeferred(run(TwistedFront()))

    async def use(self, shards: Any) -> None:
        await shards.put("photos", b"p1", flags=3)
        await shards.put(b"jobs", b"j1")
        self.assertEqual(await shards.put_many("jobs", [b"j2", b"j3"]), 2)
        await shards.put_stream("jobs+a", [b"x" * 1000] * 100, 100_000)
        stats = await shards.stats()
        there = {number: sorted(stats[number].queues) for number in stats}
        self.assertEqual(there, {1: ["photos"], 2: ["jobs", "jobs+a"]})
        sizes: list[int] = []
        await shards.get_into("jobs+a", lambda piece: sizes.append(len(piece)))
        self.assertEqual(sum(sizes), 100_000)
        self.assertIsNone(await shards.get_into("jobs+a", lambda piece: sizes.append(len(piece))))
        await shards.delete("jobs+a")
        self.assertEqual((await shards.get("photos")).flags, 3)
        self.assertIsNone(await shards.get("photos"))
        self.assertEqual((await shards.peek("jobs")).payload, b"j1")
        self.assertEqual([item.payload for item in await shards.get_many("jobs", 10)], [b"j1", b"j2", b"j3"])
        # Several queues
        await shards.put("jobs", b"j4")
        await shards.put("photos", b"p2")
        self.assertEqual((await shards.peek(["jobs", "photos"])).payload, b"j4")
        self.assertEqual((await shards.get(["orders", "jobs", "photos"])).payload, b"j4")
        read = await shards.open(["orders", "photos", "jobs"])
        self.assertEqual((read.payload, read.queue), (b"p2", "photos"))
        await read.close()
        self.assertIsNone(await shards.open(["jobs", "photos"]))
        self.assertIsNone(await shards.open(["jobs", "photos"], timeout=0.05))
        self.assertIsNone(await shards.get(["jobs", "photos"], timeout=0.05))
        self.assertIsNone(await shards.peek(["jobs", "photos"]))
        await shards.put_many("jobs", [b"j5", b"j6"])
        await shards.put("photos", b"p3")
        self.assertEqual(await self.taken(shards.monitor(["photos", "jobs"], timeout=0.05)), [b"p3", b"j5", b"j6"])
        await shards.put("jobs", b"j7")
        self.assertEqual(await self.taken(shards.monitor("jobs", timeout=0.05)), [b"j7"])
        # What is done to queues
        await shards.put_many("jobs", [b"1", b"2"])
        self.assertEqual(await shards.requeue("jobs", "orders", 1), 1)
        await shards.flush("jobs")
        await shards.put("photos", b"p")
        stats = await shards.stats()
        self.assertEqual((stats[1].curr_items, stats[2].curr_items), (1, 1))
        await shards.flush_all()
        await shards.delete("orders")
        stats = await shards.stats()
        self.assertEqual((stats[1].curr_items, sorted(stats[2].queues)), (0, ["jobs"]))
        self.assertEqual(await shards.left_behind(), {})
        await self.refused(shards)

    async def refused(self, shards: Any) -> None:
        await shards.put("photos", b"p")
        for call, reason in (
            (lambda: shards.requeue("photos", "jobs"), "requeue from photos in shard 1 to jobs in shard 2"),
            (lambda: shards.peek(["photos", "jobs"], timeout=1), "queues of different shards, photos and jobs"),
            (lambda: shards.open([]), "no queue is named"),
            (lambda: shards.put("photos", b"x", id="1"), "queue photos has no dedupe_window"),
        ):
            try:
                await call()
            except ClientError as error:
                self.assertIn(reason, str(error))
            else:
                self.fail("it was done")
        self.assertEqual((await shards.stats())[1].curr_items, 1)


class AsyncioTests(ShardsTestCase, SynchronousTestCase):
    """What takes time, for one of them."""

    front = AsyncioFront()

    def hold(self, scenario: Any, **options: Any) -> None:
        nodes = self.nodes()

        async def held() -> None:
            async with self.front.shards(nodes, **options) as shards:
                await scenario(shards)

        run_in_asyncio(held())

    def test_failover(self) -> None:
        """
        Where a shard has no leader, others are read.  Who waits, or puts, goes on at the node that leads next, and what
        was open goes back.
        """

        async def scenario(shards: Any) -> None:
            await shards.put("photos", b"1", timeout=LONG)
            read = await shards.open(["jobs", "photos"], timeout=LONG)
            self.first.kill()
            await shards.put("jobs", b"2", timeout=LONG)
            self.assertEqual((await shards.open(["photos", "jobs"])).payload, b"2")
            self.assertFalse(read.is_open)
            try:
                await shards.open(["photos", "orders"])
            except ConnectionFailed as error:
                self.assertIn("no node leads", str(error))
            else:
                self.fail("it has looked everywhere")
            waiting = self.front.start(shards.get(["photos", "orders"], timeout=LONG))
            await shards.put("orders", b"3", timeout=LONG)
            self.assertEqual((await waiting).payload, b"3")
            waiting = self.front.start(shards.open(["photos", "orders"], timeout=LONG))
            putting = self.front.start(shards.put("photos", b"4", timeout=LONG))
            await self.front.sleep(0.1)
            self.first.options = (f"--port={self.first_other.partition(':')[2]}", f"--data-dir={self.first.data}")
            self.first.start()
            await putting
            again = await waiting
            self.assertEqual(again.payload, b"1")
            await again.close()
            self.assertEqual((await shards.get("photos", timeout=LONG)).payload, b"4")

        self.hold(scenario, timeout=10)

    def test_reads(self) -> None:
        async def scenario(shards: Any) -> None:
            await self.work(shards)
            await self.move(shards)
            await self.cancel(shards)

        self.hold(scenario, timeout=LONG)

    async def work(self, shards: Any) -> None:
        """A worker takes queues of several shards."""
        handled: list[str] = []

        async def handle(read: Any) -> None:
            handled.append(read.queue)
            if len(handled) == 2:
                worker.stop()

        await shards.put("photos", b"1")
        await shards.put("jobs", b"2")
        worker = self.front.worker(shards, ["photos", "jobs"], handle, grace=LONG)
        await worker.run(())
        self.assertEqual(handled, ["photos", "jobs"])

    async def move(self, shards: Any) -> None:
        """What is in the old shards is read first, and nothing is put there; in the end nothing is left behind."""
        await shards.put_many("photos", [b"1", b"2"])
        await shards.put_many("jobs", [b"3", b"4"])
        await shards.put("orders", b"delayed", delay=1)
        new = Server(self)
        old = [[place(self.first.address[1])], [place(self.second.address[1])]]
        async with self.front.shards([[place(new.address[1])]], old=old, timeout=LONG) as moving:
            await moving.put("photos", b"5")
            await moving.put("jobs", b"6")
            left = await moving.left_behind()
            left.pop("orders", None)  # where this took long, it is due
            self.assertEqual(left, {"photos": 2, "jobs": 2})
            self.assertEqual((await moving.peek("photos")).payload, b"1")
            self.assertEqual(await self.taken(moving.monitor("photos", timeout=0.05)), [b"1", b"2", b"5"])
            self.assertEqual([item.payload for item in await moving.get_many("jobs", 3)], [b"3", b"4", b"6"])
            self.assertEqual((await moving.get("orders", timeout=LONG)).payload, b"delayed")
            while await moving.left_behind():  # a get of two shards does not wait until its item is closed
                await self.front.sleep(0.01)
            await moving.put("jobs", b"7")
            await moving.flush("jobs")
            await moving.put("jobs", b"8")
        async with Client(place(new.address[1]), timeout=LONG) as client:
            self.assertEqual((await client.get("jobs")).payload, b"8")

    async def cancel(self, shards: Any) -> None:
        """An item that comes for a call that was cancelled goes back."""
        for round in range(5):
            waiting = self.front.start(shards.get(["jobs", "photos"], timeout=LONG))
            await self.front.sleep(0.02 * round)
            await shards.put("photos", b"1")
            waiting.cancel()
            try:
                item = await waiting
            except self.front.cancelled:
                item = await shards.get("photos", timeout=LONG)
            self.assertEqual(item.payload, b"1")
        closing = self.front.start(shards.open(["jobs", "photos"], timeout=LONG))
        for _ in range(3000):
            if shards._races:  # else it has not come to wait, and is told that the client is closed
                break
            await self.front.sleep(0.01)
        await shards.close()
        self.assertIsNone(await closing)


class _Link:
    closed = retired = dropped = False

    def __init__(self, node: Address) -> None:
        self.node = node


class _Runtime:
    """Each attempt to connect takes a tenth of a second, and time passes by that alone."""

    pipelining = True

    def __init__(self) -> None:
        self.time = 0.0
        self.listening: set[Address] = set()
        self.tried: list[int] = []

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds

    async def connect(self, node: Address, timeout: float) -> Any:
        self.tried.append(node.port)
        self.time += min(timeout, 0.1)
        if node not in self.listening:
            raise ConnectionFailed("refused")
        return _Link(node)


class LeaderTests(SynchronousTestCase):
    """Which node is tried when."""

    def setUp(self) -> None:
        self.nodes = [Address("a", port) for port in (1, 2, 3)]
        self.runtime: Any = _Runtime()
        self.leaders = LeaderRuntime(self.runtime, self.nodes, 1.0)

    def connect(self, timeout: float = 5.0) -> Optional[_Link]:
        self.runtime.tried.clear()
        coroutine = self.leaders.connect(self.nodes[0], timeout)
        try:
            coroutine.send(None)
        except StopIteration as stop:
            link: _Link = stop.value
            return link
        raise AssertionError("nothing waits here")

    def test_the_one_that_listens(self) -> None:
        self.runtime.listening = {self.nodes[1]}
        link = self.connect()
        self.assertEqual(self.runtime.tried, [1, 2])
        self.connect()
        self.assertEqual(self.runtime.tried, [2], "as long as the connection holds")
        self.assertIsNotNone(link)

    def test_the_last_one_after_its_connection_has_ended(self) -> None:
        """One that was replaced may take connections, and never answer."""
        self.runtime.listening = {self.nodes[0]}
        link = self.connect()
        assert link is not None
        self.connect()
        self.runtime.listening = {self.nodes[0], self.nodes[2]}
        link.closed = link.retired = True
        found = self.connect()
        assert found is not None
        self.assertEqual((self.runtime.tried, found.node.port), ([2, 3], 3))

    def test_dropped_by_the_client(self) -> None:
        """The node whose connection the client did not need any more goes on to be tried first."""
        self.runtime.listening = {self.nodes[1]}
        for _ in range(3):
            link = self.connect()
            assert link is not None
            link.closed = link.retired = link.dropped = True
        self.assertEqual(self.runtime.tried, [2])
        link = self.connect()
        assert link is not None
        link.closed = link.retired = True
        self.connect()
        self.assertEqual(self.runtime.tried, [1, 3, 2], "that one ended by itself")

    def test_who_ends_a_connection(self) -> None:
        """What the client ends is dropped, but for one that was never answered on, and one that had ended before."""

        class Link(PipelinedLink):
            def _send(self, data: bytes) -> None:
                pass

            def _end(self) -> None:
                pass

        used, silent, ended = [Link(self.runtime) for _ in range(3)]
        for link in (used, ended):
            link.tell(requests.version())
            link.received(b"VERSION 1\r\n")
        ended.lost("the connection has ended")
        for link in (used, silent, ended):
            link.abort()
            link.abort()
        self.assertEqual([link.dropped for link in (used, silent, ended)], [True, False, False])

    def test_none(self) -> None:
        error = self.assertRaises(ConnectionFailed, self.connect, 2.0)
        self.assertIn("no node leads; the last one that was tried: refused", str(error))
        self.assertEqual(self.runtime.tried[:6], [1, 2, 3, 1, 2, 3])
        self.assertLess(self.runtime.time, 2.5)

    def test_the_rest_of_the_runtime(self) -> None:
        runtime: Any = _Runtime()
        runtime.call_later = runtime.spawn = runtime.future = lambda *given: given
        leaders = LeaderRuntime(runtime, self.nodes, 1.0)
        self.assertEqual(leaders.now(), 0.0)
        self.assertEqual(leaders.call_later(1, self.fail), (1, self.fail))
        self.assertEqual(leaders.future(), ())


class ArgumentsTests(SynchronousTestCase):
    """What cannot be."""

    def test_no_nodes(self) -> None:
        runtime: Any = _Runtime()
        self.assertRaises(ValueError, BaseShards, runtime, [])
        self.assertRaises(ValueError, BaseShards, runtime, [["a"], []])
        self.assertTrue(issubclass(SpansShards, ClientError))
        self.assertEqual(BaseShards(runtime, ["a", "b"]).shard_of("jobs"), 2)
