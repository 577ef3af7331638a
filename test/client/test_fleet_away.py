"""
Tests of fleets of which no server answers, or some do not.
"""

from __future__ import annotations

import asyncio
import math
import socket
from typing import Any, Optional

from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from darner.client import loops, members
from darner.client.addresses import Address
from darner.client.asyncio import Fleet
from darner.client.errors import ConnectionFailed, InDoubt, NotAllowed, ServerError, Unavailable
from darner.client.members import Member
from test.client.front_ends import LONG, WHOLE, AsyncioFront, BlockingFront, TwistedFront, run_in_asyncio
from test.client.test_shards_apart import run, time_is_up, until
from test.servers import Server


class FrontEndTests(TestCase):
    """The same for all front ends, against sockets."""

    timeout = WHOLE

    def place(self) -> str:
        """@return: an address where nobody listens, nor will."""
        bound = socket.socket()
        self.addCleanup(bound.close)
        bound.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{bound.getsockname()[1]}"

    def test_nobody_or_one_answers(self) -> Any:
        server = Server(self)
        nobody, some = [self.place(), self.place()], [self.place(), f"127.0.0.1:{server.address[1]}"]

        async def scenario(front: Any) -> None:
            async with front.fleet(nobody, timeout=LONG) as fleet:
                for timeout in (0, 0.05):
                    for read in (fleet.get, fleet.open):
                        try:
                            await read("q", timeout)
                        except ConnectionFailed as error:
                            self.assertIn("no server could be asked: no connection to", str(error))
                        else:
                            self.fail("nobody was asked")
            async with front.fleet(some, timeout=LONG, connect_timeout=LONG) as fleet:
                for timeout in (0, 0.05):
                    for read in (fleet.get, fleet.open):
                        self.assertIsNone(await read("q", timeout))
                await fleet.put("q", b"x")
                self.assertEqual((await fleet.get("q", LONG)).payload, b"x")

        run_in_asyncio(scenario(AsyncioFront()))
        run_in_asyncio(scenario(BlockingFront()))
        return ensureDeferred(scenario(TwistedFront()))


class _Server:
    """
    A client of one server.

    @ivar error: what each call ends with; None where the server answers.
    @ivar payload: an item that is there.
    @ivar waits: of each call for how long it was to wait.
    """

    def __init__(self, error: Optional[Exception] = None) -> None:
        self.error = error
        self.payload: Optional[bytes] = None
        self.waits: list[float] = []

    async def open(self, queues: Any, timeout: float = 0, *, heartbeat: Optional[float] = None) -> Optional[Any]:
        self.waits.append(timeout)
        if self.error is not None:
            raise self.error
        for _ in range(round(min(timeout, 10) * 100)):
            if self.payload is not None:
                break
            await asyncio.sleep(0.01)
        return self.payload

    async def _close(self) -> None:
        pass


class _Hung(_Server):
    """It never answers."""

    async def open(self, queues: Any, timeout: float = 0, *, heartbeat: Optional[float] = None) -> Optional[Any]:
        await asyncio.sleep(2 * WHOLE)


class ReadTests(SynchronousTestCase):
    """Which servers are asked when, and what is raised."""

    def setUp(self) -> None:
        self.patch(members, "_LOOK_AGAIN", 0.02)
        self.first, self.second = _Server(ConnectionFailed("first is off")), _Server(InDoubt("second has gone"))

    def fleet(self, *servers: _Server, aside: float = 0) -> Any:
        """@param aside: for how many seconds all are set aside."""
        fleet: Any = Fleet([])
        fleet._members = {Address("a", number): Member(server) for number, server in enumerate(servers)}  # type: ignore[arg-type]
        for member in fleet._members.values():
            member.aside_until = asyncio.get_running_loop().time() + aside
        return fleet

    def test_set_aside(self) -> None:
        """Those that are set aside are asked where no other one answers, and else not."""

        async def scenario() -> None:
            fleet = self.fleet(self.first, self.second, aside=600)
            with self.assertRaises(ConnectionFailed):
                await fleet.open("q")
            self.assertEqual((self.first.waits, self.second.waits), ([0], [0]))
            self.second.error = None
            self.assertIsNone(await fleet.open("q"))
            self.assertEqual(fleet.available, ["a:1"])
            asked = len(self.first.waits)
            for timeout in (0, 0.05):
                self.assertIsNone(await fleet.open("q", timeout))
                self.assertIsNone(await fleet._open_ready("q"))
            self.assertEqual(len(self.first.waits), asked)

        run(scenario())

    def test_back_within_the_wait(self) -> None:
        """However long it was to be set aside: its items are had, and where it has none that is its answer."""

        async def scenario() -> None:
            for payload in (b"x", None):
                server = _Server(ConnectionFailed("off"))
                fleet = self.fleet(server, aside=600)
                waiting = asyncio.ensure_future(fleet.open("q", math.inf))
                await until(lambda: len(server.waits) >= 3)  # noqa: B023
                self.assertEqual(set(server.waits), {0})
                server.error = None
                await until(lambda: server.waits[-1] > 0)  # noqa: B023
                self.assertEqual(fleet.available, ["a:0"])
                server.payload = payload
                if payload is None:
                    await time_is_up(fleet, waiting)
                self.assertEqual(await waiting, payload)

        run(scenario())

    def test_answered_before(self) -> None:
        """It answered, and went away: there was no item."""

        async def scenario() -> None:
            self.first.error = None
            fleet = self.fleet(self.first)
            waiting = asyncio.ensure_future(fleet.open("q", 0.3))
            await until(lambda: bool(self.first.waits))
            self.first.error = ConnectionFailed("off")
            self.assertIsNone(await waiting)

        run(scenario())

    def test_waiting_reads_try_together(self) -> None:
        """Many reads do not ask a server that is off more often than one does."""
        self.patch(members, "_LOOK_AGAIN", 60)

        async def scenario() -> None:
            fleet = self.fleet(self.first, aside=600)
            reads = [asyncio.ensure_future(fleet.open("q", LONG)) for _ in range(9)]
            await until(lambda: len(fleet._races) == 9 and bool(self.first.waits))
            await asyncio.sleep(0.1)
            await time_is_up(fleet, *reads)
            for error in await asyncio.gather(*reads, return_exceptions=True):
                self.assertIsInstance(error, ConnectionFailed)
            self.assertEqual(self.first.waits, [0])

        run(scenario())

    def test_why(self) -> None:
        """Who refuses has answered for those that are off; nothing else is raised but ConnectionFailed."""

        async def scenario() -> None:
            for servers, waits, error, text in (
                ([self.second], False, ConnectionFailed, "no server could be asked: second has gone"),
                ([self.second], True, ConnectionFailed, "no server could be asked: second has gone"),
                ([_Hung()], True, ConnectionFailed, "no server could be asked: none answered in time"),
                ([], False, ConnectionFailed, "the fleet has no servers"),
                ([], True, ConnectionFailed, "the fleet has no servers"),
                ([self.first, _Server(Unavailable("quiescent"))], False, Unavailable, "quiescent"),
                ([self.first, _Server(ServerError("bad disk"))], True, ServerError, "bad disk"),
                ([self.first, _Server(NotAllowed())], True, NotAllowed, "not allowed"),
            ):
                fleet = self.fleet(*servers)
                if isinstance(next(iter(servers), None), _Hung):  # else that is found out before the wait
                    fleet = self.fleet(*servers, aside=600)
                for read in (fleet.get, fleet.open):
                    asking = asyncio.ensure_future(read("q", LONG if waits else 0))
                    if waits:
                        await time_is_up(fleet, asking)
                    with self.assertRaisesRegex(error, text):
                        await asking

        run(scenario())

    def test_closed(self) -> None:
        """Who waits when the fleet is closed is told that there is no item."""

        async def scenario() -> None:
            fleet = self.fleet(self.first)
            waiting = asyncio.ensure_future(fleet.open("q", LONG))
            await until(lambda: bool(fleet._races))
            await fleet.close()
            self.assertIsNone(await waiting)

        run(scenario())


class LoopTests(SynchronousTestCase):
    """A loop that runs in a thread of its own."""

    def test_what_still_runs(self) -> None:
        """It is waited for, and cancelled where that takes too long."""
        self.patch(loops, "_PATIENCE", 0.5)
        ended: list[str] = []

        class Front:
            async def start(self) -> None:
                self.tasks = [asyncio.ensure_future(self.end(name, name == "early")) for name in ("early", "late")]
                await asyncio.sleep(0)

            async def end(self, name: str, early: bool) -> None:
                try:
                    await asyncio.sleep(0.01 if early else 600)
                    ended.append(name)
                except asyncio.CancelledError:
                    await asyncio.sleep(0.01)
                    ended.append(f"{name}, cancelled")
                    raise

            async def close(self) -> None:
                pass

        with loops.InLoop(Front()):
            pass
        self.assertEqual(ended, ["early", "late, cancelled"])
