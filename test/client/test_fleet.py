"""
Fleets and workers against several real servers, which are killed again and again.

``python -m test.client.test_fleet SECONDS [SEED]`` does that for longer.
"""

# ruff: noqa: ASYNC110, ASYNC240, B023

from __future__ import annotations

import asyncio
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.trial.reporter import TestResult
from twisted.trial.unittest import SynchronousTestCase, TestCase

from bench.ports import reserve_port
from darner.client import blocking
from darner.client.asyncio import Client, Fleet, Worker
from darner.client.errors import ConnectionFailed, InDoubt, QueueFull, Unavailable
from darner.client.servers import source
from darner.client.worker import Hooks
from test.client.front_ends import LONG, WHOLE, AsyncioFront, TwistedFront, run_in_asyncio
from test.servers import PATIENCE, Owner, Server, lend_server, make_directory


def start_server(case: Owner, settings: str = "") -> Server:
    """@return: a server that has the same port after a restart."""
    directory = make_directory(case)
    (directory / "darner.toml").write_text(settings)
    return Server(
        case, f"--port={reserve_port()}", f"--data-dir={directory / 'data'}", f"--config={directory / 'darner.toml'}",
        directory=directory,
    )  # fmt: skip


def place(server: Server) -> str:
    return f"127.0.0.1:{server.address[1]}"


class _FleetContract:
    front: Any

    def fleet(self: Any, servers: list[Server], **options: Any) -> Any:
        return self.front.fleet([place(server) for server in servers], timeout=LONG, connect_timeout=LONG, **options)

    def client(self: Any, server: str) -> Any:
        return self.front.client(server, timeout=LONG)

    def hold(self: Any, scenario: Any, count: int = 3, settings: str = "", **options: Any) -> Any:
        self.servers = [lend_server(self, start_server, settings) for _ in range(count)]

        async def held() -> None:
            async with self.fleet(self.servers, **options) as fleet:
                await scenario(fleet)

        return self.run_async(held())

    async def take_all(self: Any, fleet: Any, queue: str = "q") -> list[bytes]:
        got = []
        while True:
            read = await fleet.open(queue, timeout=0.3)
            if read is None:
                return got
            async with read:
                got.append(read.payload)

    def test_spread(self: Any) -> Any:
        async def scenario(fleet: Any) -> None:
            used = {await fleet.put("q", b"%d" % number) for number in range(60)}
            self.assertEqual(used, set(fleet.servers))
            self.assertEqual(await fleet.put_many("q", [b"%d" % number for number in range(60, 100)]), 40)
            self.assertEqual(sum(stats.curr_items for stats in (await fleet.stats()).values()), 100)
            got = await self.take_all(fleet)
            self.assertEqual(sorted(map(int, got)), list(range(100)))
            self.assertIsNone(await fleet.get("q"))
            await fleet.put("q", b"x")
            self.assertEqual((await fleet.get(["other", "q"])).payload, b"x")
            await fleet.put("q", b"x")
            await fleet.flush("q")
            await fleet.delete("q")
            self.assertIsNone(await fleet.get("q"))

        return self.hold(scenario)

    def test_waiting_read(self: Any) -> Any:
        """An item is had at once, on whichever server it comes."""

        async def scenario(fleet: Any) -> None:
            for server in self.servers:
                waiting = self.front.start(fleet.open("q", timeout=LONG))
                await self.front.sleep(0.1)
                async with self.client(place(server)) as client:
                    await client.put("q", b"x")
                    async with await waiting as read:
                        self.assertEqual((read.payload, read.server), (b"x", place(server)))
                    self.assertIsNone(await client.get("q"))
            waiting = self.front.start(fleet.open("q", timeout=LONG))
            await self.front.sleep(0.1)
            waiting.cancel()
            try:
                await waiting
                self.fail("it was cancelled")
            except self.front.cancelled:
                pass
            await fleet.put("q", b"y")
            self.assertEqual((await fleet.get("q", timeout=LONG)).payload, b"y")

        return self.hold(scenario)

    def test_monitor(self: Any) -> Any:
        """The items of all servers as they come; each is gone when the next one is asked for."""

        async def scenario(fleet: Any) -> None:
            for number in range(12):
                await fleet.put("q", b"%d" % number)
            got = []
            for prefetch in (1, 4):
                async with fleet.monitor("q", prefetch=prefetch, timeout=LONG) as items:
                    async for item in items:
                        got.append(int(item.payload))
                        if len(got) % 6 == 0:
                            break
            self.assertEqual(sorted(got), list(range(12)))
            async with fleet.monitor("q", timeout=0.1) as items:
                self.assertIsNone(await items.next())
            async with fleet.monitor("q", timeout=LONG) as items:
                waiting = self.front.start(items.next())
                await self.front.sleep(0.1)
                await fleet.put("q", b"late")
                self.assertEqual((await waiting).payload, b"late")
            try:
                async with fleet.monitor("q", prefetch=3, timeout=LONG) as items:
                    for number in range(5):
                        await fleet.put("q", b"%d" % number)
                    first = await items.next()
                    raise ZeroDivisionError
            except ZeroDivisionError:
                pass
            # All are had again: that at hand, and those that were fetched ahead.
            back = [item.payload for item in [await fleet.get("q", timeout=LONG) for _ in range(5)]]
            self.assertIn(first.payload, back)
            self.assertEqual(len(set(back)), 5)

        return self.hold(scenario)

    def test_least_loaded(self: Any) -> Any:
        """A server that does not answer has puts unanswered, and gets no more."""

        async def scenario(fleet: Any) -> None:
            first, second = map(place, self.servers)
            await fleet.put_many("warm", [b"x"] * 10)
            done = []

            async def put() -> None:
                done.append(await fleet.put("q", b"x"))

            self.servers[0].pause()
            try:
                puts = [self.front.start(put()) for _ in range(2)]
                while not done:
                    await self.front.sleep(0.01)
                for _ in range(20):
                    self.assertEqual(await fleet.put("q", b"x"), second)
            finally:
                self.servers[0].resume()
            await self.front.all(puts)
            self.assertEqual(done, [second, first])

        return self.hold(scenario, count=2, choice="least_loaded")

    def test_unknown_choice(self: Any) -> Any:
        self.assertRaises(ValueError, self.front.fleet, ["a:1"], choice="best")

    def test_servers_come_and_go(self: Any) -> Any:
        async def scenario(fleet: Any) -> None:
            first, second = map(place, self.servers)
            fleet.remove(second)
            self.assertEqual({await fleet.put("q", b"x") for _ in range(20)}, {first})
            self.assertEqual(len(await self.take_all(fleet)), 20)
            waiting = self.front.start(fleet.open("q", timeout=LONG))
            await self.front.sleep(0.1)
            async with self.client(second) as client:
                await client.put("q", b"y")
            fleet.add(second)
            read = await waiting
            self.assertEqual(read.payload, b"y")
            fleet.remove(second)
            await read.close()
            self.assertEqual(fleet.servers, [first])
            async with self.client(second) as client:
                self.assertIsNone(await client.get("q"))

        return self.hold(scenario, count=2)

    def test_one_is_away(self: Any) -> Any:
        async def scenario(fleet: Any) -> None:
            first, second = map(place, self.servers)
            self.servers[0].kill()
            put, aside = 0, False
            while put < 30 or not aside:
                self.assertEqual(await fleet.put("q", b"x"), second)
                put += 1
                # On a slow machine it may be time to try the other one again.
                aside = aside or fleet.available == [second]
                self.assertLess(put, 1000)
            self.assertEqual(len(await self.take_all(fleet)), put)
            waiting = self.front.start(fleet.open("q", timeout=LONG))
            self.servers[0].start()
            async with self.client(first) as client:
                await client.put("q", b"back")
            self.assertEqual((await waiting).payload, b"back")
            self.servers[0].kill()
            self.servers[1].kill()
            try:
                await fleet.put("q", b"x", timeout=0.5)
                self.fail("nobody is there")
            except (ConnectionFailed, InDoubt):
                pass

        return self.hold(scenario, count=2)

    def test_refused_everywhere(self: Any) -> Any:
        async def scenario(fleet: Any) -> None:
            for _ in range(2):
                await fleet.put("q", b"x")
            try:
                await fleet.put("q", b"x")
                self.fail("all are full")
            except QueueFull:
                pass
            async with self.client(fleet.servers[0]) as client:
                await client.set_status("readonly")
            self.assertEqual(await fleet.put("other", b"x"), fleet.servers[1])
            async with self.client(fleet.servers[1]) as client:
                await client.set_status("readonly")
            try:
                await fleet.put("other", b"x")
                self.fail("all are read-only")
            except Unavailable:
                pass

        return self.hold(scenario, count=2, settings="[defaults]\nmax_items = 1\n")

    def test_killed_again_and_again(self: Any) -> Any:
        return self.run_async(self.kill(3.0, 1))

    async def kill(self: Any, seconds: float, seed: int) -> None:
        """
        Put and take while half of the servers are killed again and again.

        @raise AssertionError: an item that was acknowledged is lost, or a put went nowhere.
        """
        servers = [start_server(self) for _ in range(4)]
        stopping = threading.Event()

        def kill() -> None:
            chance = random.Random(seed)
            while not stopping.is_set():
                victims = chance.sample(servers, 2)
                for server in victims:
                    server.kill()
                stopping.wait(chance.uniform(0, 0.3))
                for server in victims:
                    server.start(ready=False)
                for server in victims:
                    server.wait_for("] starting up")
                stopping.wait(chance.uniform(0, 0.3))

        killer = threading.Thread(target=kill)
        put: set[bytes] = set()
        got: set[bytes] = set()

        async def produce(fleet: Any, number: int) -> None:
            count = 0
            while not stopping.is_set():
                payload = b"%d-%d" % (number, count)
                await fleet.put("q", payload, timeout=LONG)
                put.add(payload)
                count += 1
            producing.discard(number)

        async def consume(fleet: Any) -> None:
            while producing or put - got:
                if time.monotonic() > until:
                    return
                try:
                    read = await fleet.open("q", timeout=1)
                except ConnectionFailed:
                    continue
                if read is None:
                    continue
                got.add(read.payload)
                try:
                    await read.close()
                except Exception:
                    continue  # had again

        until = time.monotonic() + seconds + WHOLE - 40
        async with self.front.fleet([place(server) for server in servers], timeout=10) as fleet:
            killer.start()
            producing = set(range(4))
            work = [self.front.start(produce(fleet, number)) for number in range(4)]
            work += [self.front.start(consume(fleet)) for _ in range(4)]
            await self.front.sleep(seconds)
            while len(put) <= 20 and time.monotonic() < until - WHOLE / 2:
                await self.front.sleep(0.1)
            stopping.set()
            await self.front.all(work)
        killer.join()
        self.assertGreater(len(put), 20)
        self.assertEqual(put - got, set())


class AsyncioFleetTests(_FleetContract, SynchronousTestCase):
    front = AsyncioFront()

    def run_async(self, coroutine: Any) -> None:
        run_in_asyncio(coroutine)

    def test_file(self) -> None:
        """A file that is watched."""
        path = Path(self.mktemp())
        path.write_text("localhost:1 # the first\n\n127.0.0.1:2\n")

        async def scenario() -> None:
            async with Fleet(f"file:{path}") as fleet:
                self.assertEqual(fleet.servers, ["localhost:1", "127.0.0.1:2"])
                for text, servers in (
                    ("localhost:3\nlocalhost:1\n", {"localhost:1", "localhost:3"}),
                    ("oh no: this is wrong\n", {"localhost:1", "localhost:3"}),
                    ("localhost:4\n", {"localhost:4"}),
                ):
                    path.write_text(text)
                    until = time.monotonic() + PATIENCE
                    while set(fleet.servers) != servers and time.monotonic() < until:
                        await asyncio.sleep(0.05)
                    await asyncio.sleep(1.2 * ("wrong" in text))
                    self.assertEqual(set(fleet.servers), servers)

        self.run_async(scenario())

    def test_names(self) -> None:
        async def scenario() -> None:
            async with Fleet("dns:localhost:22133") as fleet:
                self.assertIn("127.0.0.1:22133", fleet.servers)
            async with Fleet("a:1, b:2") as fleet:
                self.assertEqual(fleet.servers, ["a:1", "b:2"])

        self.run_async(scenario())
        for wrong in ("a:b", "a:0", "[::1", ""):
            self.assertRaises(ValueError, source, [wrong])

    def test_blocking(self) -> None:
        """The fleet for threads."""
        servers = [start_server(self) for _ in range(2)]
        with blocking.Fleet([place(server) for server in servers], timeout=LONG, connect_timeout=LONG) as fleet:
            for number in range(20):
                fleet.put("q", b"%d" % number)
            got = set()
            try:
                with fleet.open("q") as read:  # type: ignore[union-attr]
                    raise ZeroDivisionError
            except ZeroDivisionError:
                pass
            while (read := fleet.open("q", timeout=0.2)) is not None:
                with read:
                    self.assertTrue(read.touch())
                    got.add(int(read.payload))
            self.assertEqual(got, set(range(20)))
            self.assertEqual(fleet.put_many("q", [b"%d" % number for number in range(30)], flags=7), 30)
            got = set()
            with fleet.monitor("q", prefetch=3, timeout=0.3) as items:
                for item in items:
                    self.assertEqual(item.flags, 7)
                    got.add(int(item.payload))
            self.assertEqual(got, set(range(30)))
            self.assertEqual(set(fleet.available), set(fleet.servers))
            fleet.remove(place(servers[0]))
            fleet.add(place(servers[0]))
            self.assertEqual(set(fleet.servers), {place(server) for server in servers})
            self.assertIsNone(fleet.get("q"))
            self.assertEqual(set(fleet.stats()), set(fleet.servers))
            fleet.flush("q")
            fleet.delete("q")
        self.assertRaises(RuntimeError, fleet.get, "q")


class TwistedFleetTests(_FleetContract, TestCase):
    front = TwistedFront()
    timeout = WHOLE

    def run_async(self, coroutine: Any) -> Any:
        return ensureDeferred(coroutine)


class _Told(Hooks):
    def __init__(self) -> None:
        self.told: list[str] = []

    def started(self, read: Any) -> None:
        self.told.append(f"started {read.payload.decode()}")

    def succeeded(self, read: Any, seconds: float) -> None:
        self.told.append(f"succeeded {read.payload.decode()}")

    def failed(self, read: Any, seconds: float, error: BaseException) -> None:
        self.told.append(f"failed {read.payload.decode()} {type(error).__name__}")


class _WorkerContract:
    front: Any

    def hold(self: Any, scenario: Any) -> Any:
        self.server = start_server(self, "[queues.q]\nmax_attempts = 2\ndead_letter_queue = 'dead'\n")

        async def held() -> None:
            async with self.front.client(place(self.server), timeout=LONG) as client:
                await scenario(client)

        return self.run_async(held())

    def test_handlers(self: Any) -> Any:
        """In the loop or in threads, so many at a time; what fails is tried again as the queue says."""

        async def scenario(client: Any) -> None:
            for in_threads in (False, True):
                hooks, handled, most = _Told(), [], [0]

                def plain(read: Any) -> None:
                    most[0] = max(most[0], worker.handling)
                    if read.payload == b"bad":
                        raise ZeroDivisionError
                    time.sleep(0.05)
                    while most[0] < 3:
                        time.sleep(0.01)
                    handled.append(read.payload)

                async def asynchronous(read: Any) -> None:
                    most[0] = max(most[0], worker.handling)
                    if read.payload == b"bad":
                        raise ZeroDivisionError
                    await self.front.sleep(0.05)
                    while most[0] < 3:
                        await self.front.sleep(0.01)
                    handled.append(read.payload)

                worker = self.front.worker(
                    client, "q", plain if in_threads else asynchronous, concurrency=3, grace=LONG, hooks=hooks
                )
                await client.put("q", b"bad")
                await client.put_many("q", [b"%d" % number for number in range(9)])
                running = self.front.start(worker.run(signals=()))
                for _ in range(1500):
                    if len(handled) == 9 and (await client.peek("dead")) is not None:
                        break
                    await self.front.sleep(0.02)
                worker.stop()
                await running
                self.assertEqual(sorted(handled), [b"%d" % number for number in range(9)])
                self.assertEqual(most, [3])
                self.assertEqual((await client.get("dead")).payload, b"bad")
                self.assertEqual(hooks.told.count("failed bad ZeroDivisionError"), 2)
                self.assertEqual(hooks.told.count("succeeded 3"), 1)
                self.assertEqual(len([text for text in hooks.told if text.startswith("started")]), 11)

        return self.hold(scenario)

    def test_stopped(self: Any) -> Any:
        """What is being handled is finished, or given back when the grace is over."""

        async def scenario(client: Any) -> None:
            async def handle(read: Any) -> None:
                await self.front.sleep(0.3 if read.payload == b"short" else 2 * WHOLE)

            for payload, grace, told, left in (
                (b"short", LONG, "succeeded short", [b"more"]), (b"long", 0.3, "failed long", [b"long", b"more"]),
            ):  # fmt: skip
                hooks = _Told()
                worker = self.front.worker(client, "r", handle, concurrency=3, grace=grace, hooks=hooks)
                await client.put("r", payload)
                running = self.front.start(worker.run(signals=()))
                while not hooks.told:
                    await self.front.sleep(0.01)
                worker.stop()
                await client.put("r", b"more")
                await running
                self.assertEqual(len(hooks.told), 2)
                self.assertIn(told, hooks.told[1])
                while (await client.stats()).queues["r"].open_transactions:
                    await self.front.sleep(0.01)
                self.assertEqual([item.payload for item in await client.get_many("r", 9)], left)

        return self.hold(scenario)

    def test_refused(self: Any) -> Any:
        async def scenario(client: Any) -> None:
            worker = self.front.worker(client, "a/b", lambda read: None)
            try:
                await worker.run(signals=())
                self.fail("that is no name")
            except Exception as error:
                self.assertEqual(str(error), "bad queue name")

        return self.hold(scenario)


class AsyncioWorkerTests(_WorkerContract, SynchronousTestCase):
    front = AsyncioFront()

    def run_async(self, coroutine: Any) -> None:
        run_in_asyncio(coroutine)

    def test_signal(self) -> None:
        """SIGTERM stops it when what was begun is finished."""

        async def scenario(client: Any) -> None:
            handled = []

            async def handle(read: Any) -> None:
                signal.raise_signal(signal.SIGTERM)
                await asyncio.sleep(0.2)
                handled.append(read.payload)

            await client.put("r", b"x")
            await Worker(client, "r", handle, grace=LONG).run()
            self.assertEqual(handled, [b"x"])
            self.assertIsNone(await client.get("r"))

        self.hold(scenario)

    def test_fleet(self) -> None:
        servers = [start_server(self) for _ in range(2)]

        async def scenario() -> None:
            handled = []
            async with Fleet([place(server) for server in servers], timeout=LONG, connect_timeout=LONG) as fleet:
                for number in range(20):
                    await fleet.put("q", b"%d" % number)
                worker = Worker(fleet, "q", lambda read: handled.append(int(read.payload)), concurrency=2, grace=LONG)
                running = asyncio.ensure_future(worker.run(signals=()))
                while len(handled) < 20:
                    await asyncio.sleep(0.01)
                worker.stop()
                await running
                self.assertEqual(sorted(handled), list(range(20)))

        self.run_async(scenario())

    def test_blocking(self) -> None:
        """The worker for threads."""
        server = start_server(self)
        with blocking.Client(place(server), timeout=LONG) as client:
            client.put_many("q", [b"%d" % number for number in range(10)])
            handled, failed = [], []

            def handle(read: Any) -> None:
                if read.payload == b"3" and not failed:
                    failed.append(read.payload)
                    raise ZeroDivisionError
                handled.append(int(read.payload))
                if len(handled) == 10:
                    worker.stop()

            hooks = _Told()
            worker = blocking.Worker(client, "q", handle, concurrency=3, grace=LONG, hooks=hooks)
            worker.run(signals=())
            self.assertEqual(sorted(handled), list(range(10)))
            self.assertIn("failed 3 ZeroDivisionError", hooks.told)
            self.assertIsNone(client.get("q"))

    def test_stop_by_a_signal_handler(self) -> None:
        """It sets no event, as the thread that the signal interrupts may have the lock of that event."""
        handling = False

        class Event(threading.Event):
            def set(self) -> None:
                assert not handling
                super().set()

        self.patch(threading, "Event", Event)
        worker = blocking.Worker(blocking.Client("127.0.0.1"), "q", print)
        handling = True
        worker.stop()
        handling = False
        worker.run(signals=())

    def test_client_of_asyncio(self) -> None:
        self.assertRaises(ValueError, Worker, Client("127.0.0.1"), "q", print, concurrency=0)


class TwistedWorkerTests(_WorkerContract, TestCase):
    front = TwistedFront()
    timeout = WHOLE

    def run_async(self, coroutine: Any) -> Any:
        return ensureDeferred(coroutine)


if __name__ == "__main__":
    case = AsyncioFleetTests("test_killed_again_and_again")
    try:
        run_in_asyncio(
            case.kill(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(2**32)),
            float(sys.argv[1]) + WHOLE,
        )
    finally:
        case._runCleanups(TestResult())
