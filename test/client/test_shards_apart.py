"""
Tests of clients of several shards, of which one does not answer: the shards are played by objects.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Optional

from twisted.trial.unittest import SynchronousTestCase

from darner.client import members
from darner.client.addresses import Address
from darner.client.asyncio import Client, Fleet, Shards
from darner.client.commands import MOST_AT_ONCE
from darner.client.errors import (
    ClientClosed,
    ConnectionFailed,
    InDoubt,
    NotAllowed,
    SpansShards,
    TooManyConnections,
    Unavailable,
)  # fmt: skip
from darner.client.members import Member
from darner.client.protocol import Item
from test.client.front_ends import LONG, WHOLE, run_in_asyncio


class _Shard:
    """
    A client of one shard.

    @ivar error: what each call ends with; None where the shard has a leader.
    @ivar asked: the calls so far.
    """

    def __init__(self, *payloads: bytes) -> None:
        self.payloads = list(payloads)
        self.error: Optional[Exception] = None
        self.asked: list[str] = []
        self.back: list[Item] = []
        self._put_back = self

    def add(self, items: list[Item]) -> None:
        self.back += items

    def _answer(self, call: str) -> None:
        self.asked.append(call)
        if self.error is not None:
            raise self.error

    async def get_many(self, queue: Any, count: int, *, timeout: Optional[float] = None) -> list[Item]:
        self._answer("get_many")
        taken, self.payloads = self.payloads[:count], self.payloads[count:]
        return [Item(payload, 0, "jobs") for payload in taken]

    async def get_into(self, queue: Any, sink: Any, *, timeout: Optional[float] = None) -> Optional[Item]:
        self._answer("get_into")
        if not self.payloads:
            return None
        sink(self.payloads.pop(0))
        return Item(b"", 0, "jobs")

    async def open(self, queues: Any, timeout: float = 0, *, heartbeat: Optional[float] = None) -> Optional[Any]:
        self._answer("open" if timeout <= 0 else "wait")
        return self.payloads.pop(0) if self.payloads else None

    async def peek(self, queues: Any, timeout: float = 0) -> Optional[Any]:
        self._answer("peek" if timeout <= 0 else "peek and wait")
        return self.payloads[0] if self.payloads else None

    async def _close(self) -> None:
        self.asked.append("close")


def away(name: str) -> ConnectionFailed:
    """@return: what a call to a shard without a leader ends with."""
    return ConnectionFailed(f"{name}: no node leads")


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """@return: what a coroutine returns."""
    return run_in_asyncio(coroutine)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("waited in vain")


async def time_is_up(client: Any, *reads: asyncio.Future[Any]) -> None:
    """End all reads of a fleet, or of shards, as their timers do, once all of these wait, or have ended."""
    await until(lambda: len(client._races) >= sum(not read.done() for read in reads))
    for race in list(client._races):
        race.end(None)


class _ApartTestCase(SynchronousTestCase):
    """C{photos} is in the first of two shards, C{jobs} in the second one; while they move, both come from one."""

    def setUp(self) -> None:
        self.old, self.first, self.second = _Shard(), _Shard(), _Shard()
        self.shards: Any = Shards(["a", "b"])
        self.shards._clients = [self.first, self.second]
        self.moving: Any = Shards(["a", "b"], old=["c"])
        self.moving._clients, self.moving._old = [self.first, self.second], [self.old]


class TakingTests(_ApartTestCase):
    """What was taken is returned."""

    def test_new_shard_away(self) -> None:
        self.old.payloads = [b"1", b"2"]
        self.second.error = away("second")
        items = run(self.moving.get_many("jobs", 10))
        self.assertEqual([item.payload for item in items], [b"1", b"2"])
        self.assertIs(self.assertRaises(ConnectionFailed, run, self.moving.get_many("jobs", 10)), self.second.error)

    def test_old_shard_away(self) -> None:
        """The new one is read; once it is known which one is away, that is asked last, where there is nothing else."""
        self.patch(members, "_LOOK_AGAIN", 60)
        for error in (away("old"), Unavailable("quiescent"), TooManyConnections()):
            self.old.error, self.old.asked = error, []
            self.second.payloads = [b"1", b"2", b"3"]

            async def scenario() -> None:
                shards, old, pieces = self.moving, self.old, []
                shards._away = members.Away(shards._runtime)
                self.assertEqual([item.payload for item in await shards.get_many("jobs", 1)], [b"1"])
                self.assertEqual(old.asked, ["get_many"])
                await shards.get_into("jobs", pieces.append)
                self.assertEqual([item.payload for item in await shards.get_many("jobs", 10)], [b"3"])
                self.assertEqual((pieces, old.asked), ([b"2"], ["get_many"]))
                for call in (shards.get_many("jobs", 10), shards.get_into("jobs", pieces.append)):
                    with self.assertRaises(type(old.error)) as raised:
                        await call
                    self.assertIs(raised.exception, old.error)
                self.assertEqual(old.asked, ["get_many", "get_many", "get_into"])
                old.error, old.payloads = None, [b"4"]
                await shards.get_into("jobs", pieces.append)
                self.assertEqual(pieces, [b"2", b"4"])
                self.assertEqual(shards._away.why, {}, "it has answered")
                self.assertIsNone(await shards.get_into("jobs", pieces.append))
                self.assertEqual(await shards.get_many("jobs", 10), [])
                shards._away.close()

            run(scenario())

    def test_cancelled_between_two_shards(self) -> None:
        """What was taken of the old shard goes to the new one: the old one may be ended as soon as it is empty."""
        self.old.payloads = [b"1", b"2"]
        begun = asyncio.Event()

        async def get_many(queue: Any, count: int, *, timeout: Optional[float] = None) -> list[Item]:
            begun.set()
            await asyncio.sleep(2 * WHOLE)
            raise AssertionError("it was not cancelled")

        self.second.get_many = get_many  # type: ignore[method-assign]

        async def scenario() -> None:
            taking = asyncio.ensure_future(self.moving.get_many("jobs", 10))
            await begun.wait()
            taking.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await taking

        run(scenario())
        self.assertEqual([item.payload for item in self.second.back], [b"1", b"2"])
        self.assertEqual((self.old.back, self.first.back), ([], []))

    def test_in_doubt(self) -> None:
        """What may have been taken is told of, and so is what a sink may have been given a part of."""
        self.patch(members, "_LOOK_AGAIN", 60)
        self.old.error = InDoubt("the connection has ended")
        self.second.payloads = [b"1", b"2"]

        async def scenario() -> None:
            with self.assertRaises(InDoubt):
                await self.moving.get_into("jobs", lambda piece: None)
            self.assertEqual(self.second.asked, [])
            self.assertEqual(len(await self.moving.get_many("jobs", 1)), 1, "it is asked last from now on")
            self.moving._away.back(self.old)
            with self.assertRaises(InDoubt):
                await self.moving.get_many("jobs", 1)
            self.moving._away.close()

        run(scenario())

    def test_connection_of_one_server_lost(self) -> None:
        """The same for the second batch from one server."""
        batches: list[Any] = [[Item(b"x", 0, "q")] * MOST_AT_ONCE]

        async def call_all(asked: Any, timeout: Any) -> Any:
            if not batches:
                raise away("server")
            return batches.pop()

        client: Any = Client("a")
        client._call_all = call_all
        self.assertEqual(len(run(client.get_many("q", 1000))), MOST_AT_ONCE)
        self.assertRaises(ConnectionFailed, run, client.get_many("q", 1000))


class _Closing(_Shard):
    """Its client is closed while it is asked."""

    owner: Any

    async def open(self, queues: Any, timeout: float = 0, *, heartbeat: Optional[float] = None) -> Optional[Any]:
        await self.owner.close()
        raise InDoubt("the connection was ended")


class ClosedTests(_ApartTestCase):
    """Who is about to wait when the client is closed is told."""

    def check(self, owner: Any, queues: Any) -> None:
        async def scenario() -> None:
            with self.assertRaises(ClientClosed):
                await owner.open(queues, timeout=float("inf"))

        run(scenario())

    def test_shards(self) -> None:
        closing = _Closing()
        closing.owner = self.shards
        self.shards._clients = [self.first, closing]
        self.check(self.shards, ["photos", "jobs"])

    def test_fleet(self) -> None:
        closing: Any = _Closing()
        fleet: Any = Fleet(["a"])
        closing.owner = fleet
        fleet._members = {Address("a", 1): Member(closing)}
        self.check(fleet, "jobs")


class PeekTests(_ApartTestCase):
    """Items are shown of all shards that have a leader."""

    def test_others_are_read(self) -> None:
        self.first.error = away("first")
        self.second.payloads = [b"1"]
        self.assertEqual(run(self.shards.peek(["photos", "jobs"])), b"1")
        self.second.payloads = []
        self.assertIs(self.assertRaises(ConnectionFailed, run, self.shards.peek(["photos", "jobs"])), self.first.error)

    def test_wait_while_moving(self) -> None:
        """The old shard is asked, and the new one waited at."""
        self.old.payloads = [b"1"]
        self.assertEqual(run(self.moving.peek("jobs", timeout=1)), b"1")
        self.assertEqual((self.old.asked, self.second.asked), (["peek"], []))
        self.old.payloads, self.second.payloads = [], [b"2"]
        self.assertEqual(run(self.moving.peek("jobs", timeout=1)), b"2")
        self.assertEqual((self.old.asked, self.second.asked), (["peek"] * 2, ["peek and wait"]))
        self.second.payloads = []
        self.assertIsNone(run(self.moving.peek(["jobs", "orders"], timeout=1)))
        self.assertRaises(SpansShards, run, self.moving.peek(["photos", "jobs"], timeout=1))
        self.old.error = away("old")
        self.assertIs(self.assertRaises(ConnectionFailed, run, self.moving.peek("jobs", timeout=1)), self.old.error)


class AwayTests(_ApartTestCase):
    """A shard without a leader: each call to it would take the client's whole time."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(members, "_LOOK_AGAIN", 0.01)
        self.first.error = away("first")

    def test_reads_do_not_ask_it_each_time(self) -> None:
        """It is waited at, and asked beside that until it answers; where there is no wait, it is asked last."""
        self.patch(members, "_LOOK_AGAIN", 60)
        self.second.payloads = [b"1", b"2", b"3", b"4"]

        async def scenario() -> None:
            for payload in (b"1", b"2", b"3"):
                self.assertEqual(await self.shards.open(["photos", "jobs"], timeout=LONG), payload)
            self.assertEqual(self.first.asked, ["open"])
            self.assertEqual(await self.shards.open(["photos", "jobs"]), b"4")
            self.assertEqual(self.first.asked, ["open"])
            with self.assertRaises(ConnectionFailed):
                await self.shards.open(["photos", "jobs"])
            self.assertEqual(self.first.asked, ["open", "open"])
            self.first.error = None
            self.first.payloads = [b"5"]
            self.assertEqual(await self.shards.open(["photos", "jobs"], timeout=LONG), b"5", "of the wait")
            self.assertEqual(self.first.asked, ["open", "open", "wait"])
            self.second.payloads = [b"6"]
            self.first.payloads = [b"7"]
            self.assertEqual(await self.shards.open(["photos", "jobs"], timeout=LONG), b"7", "it is there again")
            await self.shards.close()

        run(scenario())

    def test_it_is_found_again(self) -> None:
        self.second.payloads = [b"1", b"2"]
        self.first.payloads = [b"3"]

        async def scenario() -> None:
            await self.shards.open(["photos", "jobs"], timeout=LONG)
            await until(lambda: self.first.asked.count("peek and wait") >= 3)
            self.assertIn(self.first, self.shards._away.why)
            self.first.error = None
            await until(lambda: not self.shards._away._looking)
            self.assertEqual(await self.shards.open(["photos", "jobs"], timeout=LONG), b"3")
            await self.shards.close()

        run(scenario())

    def test_refused_or_closed(self) -> None:
        """One that refuses has answered; nothing is asked after the end."""

        async def scenario() -> None:
            with self.assertRaises(ConnectionFailed):
                await self.shards.open(["photos", "jobs"])
            self.first.error = NotAllowed()
            await until(lambda: not self.shards._away._looking)
            self.assertEqual(self.shards._away.why, {})
            self.first.error = away("first")
            with self.assertRaises(ConnectionFailed):
                await self.shards.open(["photos", "jobs"])
            await self.shards.close()
            self.shards._away.note(self.first, "photos", self.first.error)
            self.assertEqual(self.shards._away._looking, {})

        run(scenario())

    def test_wait_in_vain(self) -> None:
        """An open whose wait is over raises the error of a shard that never answered, and of no other one."""

        async def scenario() -> None:
            for _ in range(2):
                with self.assertRaises(ConnectionFailed) as raised:
                    await self.shards.open(["photos", "jobs"], timeout=0.05)
                self.assertIs(raised.exception, self.first.error)
            self.first.error = None
            waiting = asyncio.ensure_future(self.shards.open(["photos", "jobs"], timeout=LONG))
            await until(lambda: "wait" in self.first.asked)
            await until(lambda: not self.shards._away.why)
            await time_is_up(self.shards, waiting)
            self.assertIsNone(await waiting)
            await self.shards.close()

        run(scenario())

    def test_monitor_fetches_ahead_of_the_others(self) -> None:
        """Who asks for the next item does not wait until one that is fetched ahead has been asked for at that shard."""

        async def scenario() -> None:
            self.second.payloads = [_Read(b"1"), _Read(b"2"), _Read(b"3")]  # type: ignore[list-item]
            items = self.shards.monitor(["photos", "jobs"], prefetch=9, timeout=LONG)
            for payload in (b"1", b"2", b"3"):
                item = await items.next()
                self.assertEqual(item.payload, payload)
            await until(lambda: not items._fetching)
            self.assertEqual(self.first.asked.count("open"), 1, "by the first read of all")
            await items.stop()
            await self.shards.close()

        self.patch(members, "_LOOK_AGAIN", 60)
        run(scenario())


class _Read:
    """An item that is open."""

    is_open = True

    def __init__(self, payload: bytes) -> None:
        self.item = Item(payload, 0, "jobs")

    def _close_at_once(self) -> Item:
        return self.item

    async def close(self) -> None:
        pass
