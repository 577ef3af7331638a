"""
Tests of connections that several calls share, of which some have no reply in time.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from darner.client import requests
from darner.client.errors import InDoubt
from darner.client.links import PipelinedLink
from darner.client.protocol import Item
from darner.client.reactors import ReactorRuntime
from test.client.front_ends import LONG, WHOLE, AsyncioFront, TwistedFront, run_in_asyncio
from test.servers import Server


class _Link(PipelinedLink):
    def _send(self, data: bytes) -> None:
        pass

    def _end(self) -> None:
        pass


class SharedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.link = _Link(ReactorRuntime(self.clock, None, None, None))
        self.unwanted: list[Item] = []
        self.link.unwanted = self.unwanted.extend

    def in_doubt(self, future: Any) -> bool:
        return future.done() and isinstance(future.exception(), InDoubt)

    def test_alone(self) -> None:
        future = self.link.ask(requests.get("q"), 1)
        self.clock.advance(0.9)
        self.assertFalse(future.done() or self.link.retired)
        self.clock.advance(0.2)
        self.assertTrue(self.in_doubt(future) and self.link.retired and self.link.closed)
        self.assertFalse(self.link.dropped)

    def test_beside_others(self) -> None:
        """Those have their own time, and their replies; an item that comes too late goes back."""
        late, waits, last = [
            self.link.ask(request, deadline)
            for request, deadline in (
                (requests.get("q"), 1), (requests.put("q", b"x"), 9), (requests.put("q", b"y"), 2)
            )
        ]  # fmt: skip
        self.clock.advance(1)
        self.assertTrue(self.in_doubt(late) and self.link.retired)
        self.assertFalse(waits.done() or last.done() or self.link.closed)
        self.clock.advance(1)
        self.assertTrue(self.in_doubt(last))
        self.assertFalse(waits.done() or self.link.closed)
        self.link.received(b"VALUE q 0 1\r\nz\r\nEND\r\n")
        self.assertEqual(self.unwanted, [Item(b"z", 0, "q")])
        self.assertFalse(self.link.closed)
        self.link.received(b"STORED\r\nSTORED\r\n")
        self.assertTrue(waits.result())
        self.assertTrue(self.link.closed, "nobody waits there any more")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_reply_at_all(self) -> None:
        futures = [self.link.ask(requests.put("q", b"x"), deadline) for deadline in (2, 1, 3)]
        for expected in ([1], [0, 1], [0, 1, 2]):
            self.clock.advance(1)
            self.assertEqual([index for index, future in enumerate(futures) if self.in_doubt(future)], expected)
        self.assertTrue(self.link.closed)

    def test_cancelled(self) -> None:
        """The time of a call that was cancelled counts: the server owes its reply."""
        request = requests.get("q")
        cancelled, waits = self.link.ask(request, 1), self.link.ask(requests.put("q", b"x"), 9)
        self.link.disown(request, cancelled)
        self.clock.advance(1)
        self.assertTrue(self.link.retired)
        self.assertFalse(waits.done())

    def test_repeatable(self) -> None:
        """What can be sent again waits no longer for a server that may be gone."""
        late = self.link.ask(requests.put("q", b"x"), 1)
        shown, put = self.link.ask(requests.get("q", peek=True), 9), self.link.ask(requests.put("q", b"x"), 9)
        self.clock.advance(1)
        self.assertTrue(self.in_doubt(late) and self.in_doubt(shown))
        self.link.received(b"STORED\r\nVALUE q 0 1\r\nz\r\nEND\r\nSTORED\r\n")
        self.assertTrue(put.result())
        self.assertEqual(self.unwanted, [])

    def test_many(self) -> None:
        """What has come of them in time is theirs, and what comes later goes back."""
        items = self.link.ask_all([requests.get("q") for _ in range(3)], 1)
        waits = self.link.ask_all([requests.put("q", b"x", id="1") for _ in range(2)], 9)
        self.link.received(b"VALUE q 0 1\r\n1\r\nEND\r\n")
        self.clock.advance(1)
        first, *others = items.future.result()
        self.assertEqual((first, list(map(type, others))), (Item(b"1", 0, "q"), [InDoubt] * 2))
        self.assertFalse(waits.future.done())
        self.link.received(b"VALUE q 0 1\r\n2\r\nEND\r\nEND\r\nSTORED\r\n")
        self.assertEqual(self.unwanted, [Item(b"2", 0, "q")])
        self.link.received(b"STORED\r\n")
        self.assertEqual(waits.future.result(), [True, True])
        self.assertTrue(self.link.closed)

    def test_told(self) -> None:
        """Nobody waits for what is only told."""
        late = self.link.ask(requests.get("q"), 1)
        self.link.tell(requests.touch("q"))
        self.clock.advance(1)
        self.assertTrue(self.in_doubt(late) and self.link.closed)


class FrontEndTests(TestCase):
    """Against a real server, which stands still for a while."""

    timeout = WHOLE

    def test_time_of_one_call(self) -> Any:
        """A call whose time is up leaves the connection to those that share it; what comes for it later goes back."""
        server = Server(self)

        async def scenario(front: Any) -> None:
            async with front.client(f"127.0.0.1:{server.address[1]}", timeout=LONG) as client:
                await client.put_many("q", [b"1", b"2"])
                server.process.send_signal(signal.SIGSTOP)
                try:
                    os.waitid(os.P_PID, server.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 - it is short
                    before = front.start(client.put("r", b"before"))
                    taking = front.start(client.get_many("q", 2, timeout=0.2))
                    behind = front.start(client.put("r", b"behind"))
                    try:
                        await taking
                        self.fail("nobody has answered")
                    except InDoubt:
                        pass
                    after = front.start(client.put("r", b"after"))
                    await front.sleep(0.05)
                finally:
                    server.process.send_signal(signal.SIGCONT)
                for put in (before, behind, after):
                    await put
                self.assertEqual(len(await client.get_many("r", 9)), 3)
                payloads = {(await client.get("q", timeout=LONG)).payload for _ in range(2)}
                self.assertEqual(payloads, {b"1", b"2"})

        run_in_asyncio(scenario(AsyncioFront()))
        return ensureDeferred(scenario(TwistedFront()))
