"""
The clients of asyncio, Twisted and blocking sockets against real servers: one contract for all three.
"""

# ruff: noqa: ASYNC221

from __future__ import annotations

import asyncio
import errno
import gc
import os
import threading
import time
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase, TestCase

from bench.ports import reserve_port
from darner.client import blocking
from darner.client.commands import Commands
from darner.client.errors import (
    AuthenticationFailed,
    ClientClosed,
    ClientError,
    ConnectionFailed,
    GivenBack,
    InDoubt,
    QueueFull,
    Unauthenticated,
)  # fmt: skip
from darner.client.reactors import ReactorRuntime, _Link
from test.client.front_ends import LONG, WHOLE, AsyncioFront, BlockingFront, Front, TwistedFront, run_in_asyncio
from test.client.test_shards import _Runtime
from test.servers import Owner, Server, lend_server, make_directory, run, until

SETTINGS = """
[queues.ids]
dedupe_window = "1h"
[queues.many]
max_open_reads = 10
[queues.small]
max_items = 2
[queues.hasty]
open_timeout = "600ms"
[queues.kept]
open_timeout = "2s"
"""


def start_server(case: Owner, *options: str) -> Server:
    """@return: a server that has the same port after a restart."""
    directory = make_directory(case)
    (directory / "darner.toml").write_text(SETTINGS)
    return Server(
        case, f"--port={reserve_port()}", f"--data-dir={directory / 'data'}", f"--config={directory / 'darner.toml'}",
        *options, directory=directory,
    )  # fmt: skip


class _Contract:
    """What clients do; L{front} is the front end, L{run} runs a scenario."""

    front: Any

    def setUp(self: Any) -> None:
        self.have(lend_server(self, start_server))

    def have(self: Any, server: Server) -> None:
        self.server = server
        self.place = f"127.0.0.1:{server.address[1]}"

    def hold(self: Any, scenario: Any) -> Any:
        async def held() -> None:
            async with self.front.client(self.place, timeout=LONG) as client:
                await scenario(client)

        return self.run_async(held())

    async def settled(self: Any, client: Any, queue: str) -> None:
        """Wait until nothing is open: what was given back is in its place again."""
        for _ in range(3000):
            if (await client.stats()).queues[queue].open_transactions == 0:
                return
            await self.front.sleep(0.01)
        self.fail("something stays open")

    def test_put_and_get(self: Any) -> Any:
        async def scenario(client: Any) -> None:
            await client.put("q", b"first", flags=7)
            await client.put(b"q", b"second", sync=True)
            await client.put("q", b"\r\nEND\r\n" * 50_000)
            item = await client.peek("q")
            self.assertEqual((item.payload, item.flags, item.queue), (b"first", 7, "q"))
            self.assertEqual((await client.get("q")).payload, b"first")
            self.assertEqual((await client.get(["other", "q"])).payload, b"second")
            self.assertEqual((await client.get("q", timeout=LONG)).payload, b"\r\nEND\r\n" * 50_000)
            self.assertIsNone(await client.get("q"))
            self.assertIsNone(await client.peek("q"))
            began = time.monotonic()
            self.assertIsNone(await client.get("q", timeout=0.2))
            self.assertIsNone(await client.peek("q", timeout=0.2))
            self.assertGreater(time.monotonic() - began, 0.38)

        return self.hold(scenario)

    def test_delay_and_expiry(self: Any) -> Any:
        async def scenario(client: Any) -> None:
            await client.put("q", b"much later", delay=3600)
            began = time.monotonic()
            await client.put("q", b"late", delay=0.2)
            await client.put("q", b"gone", expiry=-1)
            self.assertEqual((await client.get("q", timeout=LONG)).payload, b"late")
            self.assertGreater(time.monotonic() - began, 0.19)
            self.assertIsNone(await client.get("q"))

        return self.hold(scenario)

    def test_many(self: Any) -> Any:
        async def scenario(client: Any) -> None:
            self.assertEqual(await client.put_many("q", [b"%d" % number for number in range(1000)]), 1000)
            items = await client.get_many("q", 700)
            items += await client.get_many("q", 700)
            self.assertEqual([item.payload for item in items], [b"%d" % number for number in range(1000)])
            try:
                await client.put_many("small", [b"a", b"b", b"c", b"d"])
                self.fail("it should be full")
            except QueueFull as error:
                self.assertEqual((error.stored, error.refused), (2, [b"c", b"d"]))  # type: ignore[attr-defined]

        return self.hold(scenario)

    def test_open(self: Any) -> Any:
        async def scenario(client: Any) -> None:
            await client.put("q", b"job", flags=1)
            self.assertIsNone(await client.open("other"))
            try:
                async with await client.open("q") as read:
                    self.assertEqual((read.payload, read.flags, read.queue), (b"job", 1, "q"))
                    self.assertTrue(read.is_open)
                    self.assertIsNone(await client.get("q"))
                    raise ZeroDivisionError
            except ZeroDivisionError:
                self.assertFalse(read.is_open)
            async with await client.open(["other", "q"], timeout=LONG) as read:
                self.assertEqual((read.payload, read.server), (b"job", self.place))
                self.assertTrue(await read.touch())
            await read.close()
            await read.abort()
            self.assertFalse(await read.touch())
            self.assertIsNone(await client.get("q"))
            self.assertEqual((await client.stats()).queues["q"].open_transactions, 0)

        return self.hold(scenario)

    def test_open_reads_have_connections_of_their_own(self: Any) -> Any:
        """Nobody else closes, or gets in the way of, what is open."""

        async def scenario(client: Any) -> None:
            await client.put_many("q", [b"%d" % number for number in range(5)])
            reads = [await client.open("q") for _ in range(5)]
            self.assertEqual([read.payload for read in reads], [b"%d" % number for number in range(5)])
            await reads[3].abort()
            await reads[1].close()
            self.assertEqual((await client.get("q", timeout=LONG)).payload, b"3")
            self.assertEqual((await client.stats()).queues["q"].open_transactions, 3)
            # Connections that are free are used again.
            for _ in range(20):
                await client.put("r", b"x")
                async with await client.open("r", timeout=LONG):
                    pass
            self.assertLess((await client.stats()).curr_connections, 8)

        return self.hold(scenario)

    def test_heartbeat(self: Any) -> Any:
        async def scenario(client: Any) -> None:
            await client.put("kept", b"x")
            for _ in range(20):
                read = await client.open("kept", LONG, heartbeat=0.15)
                await self.front.sleep(2.5)
                try:
                    await read.close()
                    break
                except GivenBack:
                    continue  # this process, or the server, stood still for longer than the item's time
            self.assertIsNone(await client.get("kept"))

        return self.hold(scenario)

    def test_time_is_up(self: Any) -> Any:
        async def scenario(client: Any) -> None:
            await client.put("hasty", b"x")
            read = await client.open("hasty")
            await self.settled(client, "hasty")
            self.assertFalse(await read.touch())
            self.assertFalse(read.is_open)
            try:
                await read.close()
                self.fail("it was given back")
            except GivenBack:
                pass
            self.assertEqual((await client.get("hasty")).payload, b"x")

        return self.hold(scenario)

    def test_monitor(self: Any) -> Any:
        async def scenario(client: Any) -> None:
            for queue, prefetch in (("many", 8), ("many", 1), ("q", 8)):
                await client.put_many(queue, [b"%d" % number for number in range(50)])
                got = []
                async with client.monitor(queue, prefetch=prefetch, timeout=0.2) as items:
                    async for item in items:
                        got.append(item.payload)
                self.assertEqual(got, [b"%d" % number for number in range(50)], queue)
                self.assertEqual((await client.stats()).queues[queue].items, 0)
                self.assertEqual((await client.stats()).queues[queue].open_transactions, 0)

        return self.hold(scenario)

    def test_monitor_left(self: Any) -> Any:
        """What was had is confirmed, and by an exception it is not."""

        async def scenario(client: Any) -> None:
            await client.put_many("many", [b"%d" % number for number in range(6)])
            async with client.monitor("many", prefetch=4) as items:
                async for item in items:
                    if item.payload == b"2":
                        break
            await self.settled(client, "many")
            self.assertEqual((await client.peek("many", timeout=LONG)).payload, b"3")
            try:
                async with client.monitor("many", prefetch=4) as items:
                    async for _ in items:
                        raise ZeroDivisionError
            except ZeroDivisionError:
                pass
            await self.settled(client, "many")
            self.assertEqual((await client.get("many", timeout=LONG)).payload, b"3")
            self.assertEqual(len(await client.get_many("many", 10)), 2)

        return self.hold(scenario)

    def test_any_size(self: Any) -> Any:
        async def scenario(client: Any) -> None:
            pieces = [bytes([number]) * 100_000 for number in range(50)]
            await client.put_stream("q", pieces, 5_000_000, flags=3)
            try:
                await client.put_stream("q", pieces, 5_000_001)
                self.fail("it is too short")
            except ValueError:
                pass
            try:
                await client.put_stream("q", pieces, 4_999_999)
                self.fail("it is too long")
            except ValueError:
                pass
            got: list[bytes] = []
            item = await client.get_into("q", got.append)
            self.assertEqual((b"".join(got), item.payload, item.flags), (b"".join(pieces), b"", 3))
            self.assertIsNone(await client.get_into("q", got.append))

        return self.hold(scenario)

    def test_sink_that_fails(self: Any) -> Any:
        async def scenario(client: Any) -> None:
            def fail(data: bytes) -> None:
                raise ZeroDivisionError

            await client.put("q", b"x" * 200_000)
            try:
                await client.get_into("q", fail)
                self.fail("the sink has failed")
            except (ZeroDivisionError, InDoubt):
                pass
            self.assertEqual(len((await client.get("q", timeout=LONG)).payload), 200_000)

        return self.hold(scenario)

    def test_queues(self: Any) -> Any:
        async def scenario(client: Any) -> None:
            await client.put_many("a", [b"x"] * 5)
            self.assertEqual(await client.requeue("a", "b", 2), 2)
            self.assertEqual(await client.requeue("a", "c"), 3)
            self.assertEqual(await client.flush_expired(), 0)
            self.assertEqual(await client.flush_expired("b"), 0)
            stats = await client.stats()
            self.assertEqual((stats.queues["b"].items, stats.queues["c"].items), (2, 3))
            self.assertEqual((stats.curr_items, stats.status, stats.store_writable), (5, "UP", True))
            self.assertEqual(stats.version, await client.version())
            self.assertEqual((await client.dump_stats("b"))["b"]["items"], "2")
            self.assertEqual((await client.dump_config("small"))["small"]["max_items"], "2")
            await client.flush("b")
            await client.delete("c")
            await client.flush_all()
            await client.reload()
            self.assertEqual((await client.stats()).curr_items, 0)
            self.assertEqual(await client.status(), "UP")
            await client.set_status("readonly")
            self.assertEqual(await client.status(), "READONLY")
            try:
                await client.shutdown()
                self.fail("it is not allowed")
            except ClientError:
                pass

        return self.hold(scenario)

    def test_refused(self: Any) -> Any:
        async def scenario(client: Any) -> None:
            for call in (
                lambda: client.put("a b", b""), lambda: client.get("q/open"), lambda: client.open([]),
                lambda: client.put("q", b"", id="x"), lambda: client.requeue("q", "q"),
            ):  # fmt: skip
                try:
                    await call()
                    self.fail("it is wrong")
                except ClientError:
                    pass
            await client.put("q", b"still in step")
            self.assertEqual((await client.get("q")).payload, b"still in step")

        return self.hold(scenario)

    def test_connects_again(self: Any) -> Any:
        async def scenario(client: Any) -> None:
            await client.put("q", b"kept")
            read = await client.open("q")
            self.server.kill()
            restart = threading.Timer(0.3, self.server.start)
            restart.start()
            self.addCleanup(restart.join)
            try:
                await read.close()
                self.fail("it went back")
            except (GivenBack, InDoubt):
                pass
            self.assertEqual((await client.get("q", timeout=LONG)).payload, b"kept")
            await client.put("q", b"more")
            self.assertEqual((await client.get("q")).payload, b"more")

        return self.hold(scenario)

    def test_in_doubt(self: Any) -> Any:
        """A server that hangs: what was sent is in doubt, and with an id it is there once in the end."""

        async def scenario(client: Any) -> None:
            await client.put("ids", b"0", id="0")
            self.server.pause()
            self.addCleanup(self.server.resume)
            try:
                await client.put("q", b"x", timeout=0.3)
                self.fail("nobody has answered")
            except InDoubt:
                pass
            resume = threading.Timer(0.5, self.server.resume)
            resume.start()
            self.addCleanup(resume.join)
            await client.put("ids", b"1", id="1")
            await client.put("ids", b"1", id="1")
            self.assertEqual([item.payload for item in await client.get_many("ids", 9)], [b"0", b"1"])

        return self.hold(scenario)

    def test_nobody_there(self: Any) -> Any:
        place = f"127.0.0.1:{reserve_port()}"

        async def scenario(_: Any) -> None:
            async with self.front.client(place, timeout=0.3) as client:
                self.assertEqual(getattr(client, "_commands", client).timeout, 0.3)
                for call in (lambda: client.put("q", b""), lambda: client.open("q")):
                    try:
                        await call()
                        self.fail("nobody is there")
                    except ConnectionFailed:
                        pass
            try:
                await client.put("q", b"")
                self.fail("it is closed")
            except ClientClosed:
                pass

        return self.hold(scenario)

    def test_unix_socket(self: Any) -> Any:
        server = start_server(self, "--listen=unix:socket")
        path = server.directory / "socket"
        until(path.exists, "a socket")

        async def scenario(_: Any) -> None:
            async with self.front.client(f"unix:{path}", timeout=LONG) as client:
                await client.put("q", b"x")
                async with await client.open("q") as read:
                    self.assertEqual(read.server, f"unix:{path}")

        return self.hold(scenario)

    def test_users(self: Any) -> Any:
        return self.run_async(self.check_users())

    async def check_users(self: Any) -> None:
        import subprocess
        import sys

        from test.servers import environment

        directory = make_directory(self)
        subprocess.run(
            [sys.executable, "-c", "from darner.cli.passwd import main; main()", directory / "passwords", "ann"],
            input="secret\nsecret\n", text=True, env=environment(), check=True, capture_output=True,
        )  # fmt: skip
        (directory / "darner.toml").write_text(
            f'password_file = "{directory / "passwords"}"\n[users.ann]\nread = ["q"]\nwrite = ["q"]\n'
        )
        server = Server(
            self, "--port=0", f"--data-dir={directory / 'data'}", f"--config={directory / 'darner.toml'}",
            directory=directory,
        )  # fmt: skip
        place = f"127.0.0.1:{server.address[1]}"
        async with self.front.client(place, user="ann", password="secret", timeout=LONG) as client:
            await client.put("q", b"x")
            async with await client.open("q") as read:
                self.assertEqual(read.payload, b"x")
        for options, error in (
            ({"user": "ann", "password": "wrong"}, AuthenticationFailed), ({}, Unauthenticated),
        ):  # fmt: skip
            async with self.front.client(place, timeout=LONG, **options) as client:
                try:
                    await client.get("q")
                    self.fail("it was let in")
                except error:
                    pass


class _CancellingContract(_Contract):
    """What those can do besides whose calls can be cancelled."""

    async def cancel(self: Any, task: Any) -> None:
        task.cancel()
        try:
            await task
            self.fail("it was cancelled")
        except self.front.cancelled:
            pass

    def test_concurrent(self: Any) -> Any:
        """Short calls share a connection; those that wait do not hold them up."""
        self.have(start_server(self))

        async def scenario(client: Any) -> None:
            waiting = self.front.start(client.get("other", timeout=LONG))
            await self.front.all([client.put("q", b"%d" % number) for number in range(200)])
            items = await self.front.all([client.get("q") for _ in range(200)])
            self.assertEqual(sorted(int(item.payload) for item in items), list(range(200)))
            self.assertLess((await client.stats()).total_connections, 6)
            await client.put("other", b"x")
            self.assertEqual((await waiting).payload, b"x")

        return self.hold(scenario)

    def test_cancelled_wait(self: Any) -> Any:
        async def scenario(client: Any) -> None:
            for call in (
                lambda: client.get("q", timeout=LONG), lambda: client.open("q", timeout=LONG),
                lambda: client.peek("q", timeout=LONG),
            ):  # fmt: skip
                waiting = self.front.start(call())
                await self.front.sleep(0.05)
                await self.cancel(waiting)
                await client.put("q", b"x")
                self.assertEqual((await client.get("q", timeout=LONG)).payload, b"x")

        return self.hold(scenario)

    def test_no_item_is_lost(self: Any) -> Any:
        """Reads that are cancelled at any instant, while items come."""

        async def scenario(client: Any) -> None:
            expected = set()
            got: list[bytes] = []

            async def read(call: Any) -> None:
                result = await call()
                if result is None:
                    return
                for item in result if isinstance(result, list) else [result]:
                    got.append(item.payload)
                    if hasattr(item, "close"):
                        await item.close()

            for number in range(120):
                payload = b"%d" % number
                expected.add(payload)
                call = (
                    lambda: client.get("q", timeout=LONG), lambda: client.get("q"),
                    lambda: client.open("q", timeout=LONG), lambda: client.get_many("q", 3),
                )[number % 4]  # fmt: skip
                putting = self.front.start(client.put("q", payload))
                reading = self.front.start(read(call))
                await self.front.sleep((number % 13) * 0.0002)
                before = len(got)
                reading.cancel()
                try:
                    await reading
                except self.front.cancelled:
                    # What it had been given it may not have finished with: it is closed, or will be had again.
                    del before
                await putting
            while set(got) != expected:
                item = await client.get("q", timeout=LONG)
                self.assertIsNotNone(item)
                got.append(item.payload)

        return self.hold(scenario)

    def test_read_that_nobody_has(self: Any) -> Any:
        """An open read that is dropped goes back."""

        async def scenario(client: Any) -> None:
            await client.put("q", b"x")
            read = await client.open("q")
            del read
            gc.collect()
            self.assertEqual((await client.get("q", timeout=LONG)).payload, b"x")

        return self.hold(scenario)


class AsyncioTests(_CancellingContract, SynchronousTestCase):
    front: Front = AsyncioFront()

    def run_async(self, coroutine: Any) -> None:
        run_in_asyncio(coroutine)

    def test_timeout_of_asyncio(self) -> None:
        async def scenario(client: Any) -> None:
            try:
                await asyncio.wait_for(client.open("q", timeout=LONG), 0.1)
                self.fail("nothing is there")
            except (asyncio.TimeoutError, TimeoutError):
                pass
            await client.put("q", b"x")
            self.assertEqual((await client.get("q", timeout=LONG)).payload, b"x")

        self.hold(scenario)


class BlockingTests(_Contract, SynchronousTestCase):
    front: Front = BlockingFront()

    def run_async(self, coroutine: Any) -> None:
        run_in_asyncio(coroutine)

    def test_threads(self) -> None:
        """Many threads share a client."""
        with blocking.Client(self.place, timeout=LONG) as client:
            got: list[bytes] = []

            def work() -> None:
                for _ in range(50):
                    client.put("q", b"x")
                    read = client.open("q", timeout=LONG)
                    assert read is not None
                    with read:
                        got.append(read.payload)

            threads = [threading.Thread(target=work) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(len(got), 400)
            self.assertIsNone(client.get("q"))

    def test_connection_that_ended_meanwhile(self) -> None:
        """A put is not in doubt because the server has closed a connection that was idle."""
        with blocking.Client(self.place, timeout=LONG) as client:
            client.put("q", b"1")
            self.server.kill()
            self.server.start()
            client.put("q", b"2")
            self.assertEqual([item.payload for item in client.get_many("q", 5)], [b"1", b"2"])


class TwistedTests(_CancellingContract, TestCase):
    front: Front = TwistedFront()
    timeout = WHOLE

    def run_async(self, coroutine: Any) -> Any:
        return ensureDeferred(coroutine)


class TimeTests(SynchronousTestCase):
    """How long a client tries where nobody listens, by a clock that shows no other time than that."""

    def test_of_a_call(self) -> None:
        runtime: Any = _Runtime()
        client = Commands(runtime, "a", timeout=3)
        for call, seconds in (
            (client.put("q", b""), 3), (client.open("q"), 3), (client.open("q", 60), 3), (client.get("q"), 3),
            (client.put("q", b"", timeout=9), 9),
        ):  # fmt: skip
            began = runtime.time
            self.assertRaises(ConnectionFailed, call.send, None)
            self.assertTrue(seconds / 3 < runtime.time - began < seconds + 0.2, runtime.time - began)


class ReactorLinkTests(SynchronousTestCase):
    """A connection of a Twisted reactor whose server is gone as soon as it is there."""

    def test_no_option_can_be_set(self) -> None:
        """An optional step that fails does not keep the link from being told when it may send."""

        class Transport(StringTransport):
            def setTcpNoDelay(self, enabled: bool) -> None:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))

        link = _Link(ReactorRuntime(Clock(), None, None, None))
        transport = Transport()
        link.makeConnection(transport)
        self.assertIs(transport.producer, link)


class ImportTests(SynchronousTestCase):
    def test_lean(self) -> None:
        """Those for asyncio and blocking sockets load neither Twisted nor LevelDB."""
        import sys
        from pathlib import Path

        program = "import sys, darner.client.asyncio, darner.client.blocking; print(*sys.modules)"
        loaded = set(run(sys.executable, "-c", program, cwd=Path()).stdout.split())
        self.assertIn("darner.client.protocol", loaded)
        self.assertEqual({name for name in loaded if name.partition(".")[0] in ("twisted", "plyvel", "zope")}, set())
