"""
Tests of what becomes of items that were taken for calls that were cancelled.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Optional, Union

from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from darner.client import blocking, commands, requests
from darner.client.errors import (
    ClientClosed,
    ConnectionFailed,
    DarnerError,
    InDoubt,
    NotAllowed,
    QueueFull,
    Unavailable,
)  # fmt: skip
from darner.client.protocol import Item
from darner.client.put_back import PutBack
from darner.client.sockets import SocketLink, SocketRuntime
from darner.client.sockets import run as run_at_once
from test.client.front_ends import LONG, WHOLE, AsyncioFront, TwistedFront, run_in_asyncio
from test.servers import Server


class FrontEndTests(TestCase):
    """Against a real server."""

    timeout = WHOLE

    def setUp(self) -> None:
        self.patch(commands, "MOST_AT_ONCE", 3)
        self.server = Server(self)
        self.place = f"127.0.0.1:{self.server.address[1]}"

    def stop_at(self, client: Any, stop: Callable[[], Any]) -> None:
        """Have something done in place of the second batch of a client."""
        core = getattr(client, "_commands", client)
        call_all, calls = core._call_all, [0]

        async def asked(requests: Any, timeout: Any) -> Any:
            calls[0] += 1
            if calls[0] == 2:
                await stop()
            return await call_all(requests, timeout)

        core._call_all = asked

    def test_get_many_between_two_batches(self) -> Any:
        """What was taken is in the queue again, also where the connection has broken."""
        payloads = [b"%d" % number for number in range(5)]

        async def scenario(front: Any) -> None:
            for broken in (False, True):
                async with front.client(self.place, timeout=LONG) as other:
                    for payload in payloads:
                        await other.put("q", payload, flags=7, expiry=3600)
                    async with front.client(self.place, timeout=LONG) as client:
                        at_second: list[Any] = []

                        async def stop() -> None:
                            at_second.append(None)  # noqa: B023
                            if broken:  # noqa: B023
                                getattr(client, "_commands", client)._main.abort()
                            await front.sleep(2 * WHOLE)

                        self.stop_at(client, stop)
                        taking = front.start(client.get_many("q", 10))
                        while not at_second:
                            await front.sleep(0.01)
                        taking.cancel()
                        try:
                            await taking
                            self.fail("it was cancelled")
                        except front.cancelled:
                            pass
                    items = await other.get_many("q", 3)
                    items += await other.get_many("q", 3)
                    self.assertEqual([item.payload for item in items], [b"3", b"4", b"0", b"1", b"2"])
                    self.assertEqual({item.flags for item in items}, {7})

        run_in_asyncio(scenario(AsyncioFront()))
        return ensureDeferred(scenario(TwistedFront()))

    def test_blocking(self) -> None:
        """The same for a program that is interrupted."""

        async def stop() -> None:
            raise KeyboardInterrupt

        with blocking.Client(self.place, timeout=LONG) as client:
            for number in range(5):
                client.put("q", b"%d" % number, flags=7)
            self.stop_at(client, stop)
            self.assertRaises(KeyboardInterrupt, client.get_many, "q", 10)
            items = client.get_many("q", 10)
            self.assertEqual([item.payload for item in items], [b"3", b"4", b"0", b"1", b"2"])
            self.assertEqual({item.flags for item in items}, {7})


class _Socket:
    """One whose second receive is interrupted."""

    def __init__(self, wrapped: socket.socket) -> None:
        self._wrapped = wrapped
        self._received = False

    def recv(self, size: int) -> bytes:
        if self._received:
            raise KeyboardInterrupt
        self._received = True
        return self._wrapped.recv(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)


class InterruptedTests(SynchronousTestCase):
    def test_some_had_come(self) -> None:
        """Of a batch that is interrupted, what has come is not lost."""
        here, there = socket.socketpair()
        self.addCleanup(there.close)
        link = SocketLink(here, 60)
        link._socket = _Socket(here)  # type: ignore[assignment]
        unwanted: list[Item] = []
        link.unwanted = unwanted.extend
        there.sendall(b"VALUE q 0 1\r\n1\r\nEND\r\nVALUE q 3 1\r\n2\r\nEND\r\nVALUE q 0 9\r\n")
        asked = [requests.get("q") for _ in range(4)]
        self.assertRaises(KeyboardInterrupt, run_at_once, link.ask_all(asked, link._timeout + 1e9))
        self.assertEqual(unwanted, [Item(b"1", 0, "q"), Item(b"2", 3, "q")])
        self.assertTrue(link.closed)


_Answer = Union[DarnerError, list[Optional[DarnerError]], None]


class _Core:
    """
    A client.

    @ivar answers: of each turn what puts are answered: an error for all, or for some; then all are stored.
    @ivar put: the payloads of each turn.
    """

    timeout = 10.0

    def __init__(self, runtime: Any, *answers: _Answer) -> None:
        self._runtime = runtime
        self.answers = list(answers)
        self.put: list[bytes] = []
        self.stored: list[bytes] = []

    async def _call_all(self, asked: Any, timeout: Optional[float]) -> list[Any]:
        payloads = [request.data.split(b"\r\n")[1] for request in asked]
        self.put.append(b" ".join(payloads))
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, DarnerError):
            raise answer
        results = [True if error is None else error for error in answer or [None] * len(asked)]
        self.stored += [payload for payload, result in zip(payloads, results, strict=True) if result is True]
        return results


def items(*payloads: bytes) -> list[Item]:
    return [Item(payload, 0, "q") for payload in payloads]


class TurnsTests(SynchronousTestCase):
    """What is put again, and what is lost."""

    def put_back(self, *answers: _Answer, patience: float = LONG, runtime: Any = None) -> _Core:
        """Put three items back."""

        async def scenario() -> Any:
            core: Any = _Core(runtime or AsyncioFront().client("a")._runtime, *answers)
            put_back = PutBack(core)
            put_back.add([])
            put_back.add(items(b"1", b"2"))
            put_back.add(items(b"3"))
            await put_back.end(patience)
            await put_back.end(patience)
            self.assertFalse(put_back._running)
            put_back.add([])
            return core

        core: _Core = run_in_asyncio(scenario())
        return core

    def test_until_the_server_has_them(self) -> None:
        with self.assertNoLogs("darner.client"):
            core = self.put_back(
                ConnectionFailed("nobody"), [None, InDoubt("it broke"), QueueFull()], [None, Unavailable("readonly")]
            )
        self.assertEqual(core.put, [b"1 2 3", b"1 2 3", b"2 3", b"3"])
        self.assertEqual(core.stored, [b"1", b"2", b"3"])

    def test_refused_for_good(self) -> None:
        with self.assertLogs("darner.client") as logged:
            core = self.put_back([None, NotAllowed(), None], None)
        self.assertEqual(core.put, [b"1 2 3"])
        self.assertEqual(
            [record.getMessage() for record in logged.records],
            ["1 items taken by calls that were cancelled are lost (q): not allowed"],
        )

    def test_closed(self) -> None:
        """What cannot be put back in time is told of."""
        for answer, patience in ((ClientClosed(), LONG), (ConnectionFailed("nobody"), 0.05)):
            with self.assertLogs("darner.client") as logged:
                core = self.put_back(*[answer] * 1000, patience=patience)
            self.assertEqual(core.stored, [])
            self.assertEqual(sum(int(str(record.args and record.args[0])) for record in logged.records), 3)
            self.assertIn(str(answer), logged.output[0])

    def test_blocking(self) -> None:
        """A client that blocks tries for the time of one call."""
        runtime: Any = SocketRuntime(None, None, 10)
        time = [0.0]
        runtime.now = lambda: time[0]

        async def sleep(seconds: float) -> None:
            time[0] += seconds

        runtime.sleep = sleep
        with self.assertLogs("darner.client") as logged:
            core = self.put_back(*[ConnectionFailed("nobody")] * 1000, runtime=runtime)
        self.assertGreater(len(core.put), 5)
        self.assertLess(len(core.put), 1000)
        self.assertTrue(5 < time[0] < 20, time)
        self.assertIn("2 items taken by calls that were cancelled are lost (q): nobody", logged.output[0])
        self.assertEqual(len(logged.output), 2)
