"""
Many servers as one loosely ordered queue, as Kestrel's and Darner's users run it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Any, Final, Optional

from darner.client import requests
from darner.client.addresses import Address, address
from darner.client.commands import MOST_AT_ONCE, Commands, Queues, names
from darner.client.core import Place
from darner.client.errors import ClientClosed, ConnectionFailed, InDoubt, TimedOut, TooManyConnections
from darner.client.figures import Stats
from darner.client.fleet_monitor import FleetMonitor
from darner.client.links import Runtime, Timer
from darner.client.members import PASSING, Member, Race, unanswered
from darner.client.protocol import Item
from darner.client.reads import OpenRead
from darner.client.requests import Name, Request
from darner.client.servers import Servers, source
from darner.errors import DarnerError, QueueFull, ServerError

CHOICES: Final = ("random", "least_loaded")
_PAUSE: Final = 0.05
"""Seconds before all are tried again where none took an item."""


class BaseFleet:
    """
    Items are put to one server by chance, and read from whichever has one: their order is that of each server alone.

    A server that fails is set aside, and tried again after a pause that grows up to 10 s.  Servers may be added and
    removed at any time; an item that is open is closed on the server that it came from.
    """

    def __init__(
        self, runtime: Runtime, servers: Servers, *, user: str = "", password: str = "", timeout: float = 10.0,
        connect_timeout: float = 2.0, again: bool = True, choice: str = "random",
    ) -> None:  # fmt: skip
        """
        @param choice: to which server an item is put: C{"random"} or C{"least_loaded"}, to one of those that have the
            fewest puts of this fleet unanswered.
        @param servers: see `darner.client.servers.Servers`.
        @param timeout: seconds that each call may take, besides its wait for an item.
        @param connect_timeout: seconds for one attempt to connect to one server.
        @param again: whether a put that is in doubt is made again on another server, so that there may be two of it;
            else it raises C{InDoubt}.  A put with an id is made again on the same server alone.
        """
        if choice not in CHOICES:
            raise ValueError(f"choice is neither {' nor '.join(CHOICES)}: {choice!r}")
        self.timeout = timeout
        self._choice = choice
        self._runtime = runtime
        self._source = source(servers)
        self._options: dict[str, Any] = {
            "user": user, "password": password, "connect_timeout": connect_timeout, "reconnect": False,
        }  # fmt: skip
        self._again = again
        self._members: dict[Address, Member] = {}
        self._races: set[Race] = set()
        self._watching: Optional[Timer] = None
        self._closed = False

    async def start(self) -> None:
        """Find out which servers there are, and go on watching where they may change."""
        self._become(await self._source.look(self._runtime))
        if self._source.every is not None:
            self._watching = self._runtime.spawn(self._watch(self._source.every))

    async def close(self) -> None:
        """End all connections, when what was sent is answered.  What is open goes back."""
        self._closed = True
        if self._watching is not None:
            self._watching.cancel()
        for race in list(self._races):
            race.end(None)
        for member in list(self._members.values()):
            await member.client._close()

    @property
    def servers(self) -> list[str]:
        """The addresses of all servers."""
        return [str(place) for place in self._members]

    @property
    def available(self) -> list[str]:
        """The addresses of those that are not set aside."""
        now = self._runtime.now()
        return [str(place) for place, member in self._members.items() if member.aside_until <= now]

    def add(self, server: Place) -> None:
        """Use another server from now on; reads that wait, wait there as well."""
        place = address(server)
        if place in self._members:
            return
        member = Member(Commands(self._runtime, place, timeout=self.timeout, **self._options))
        self._members[place] = member
        for race in self._races:
            self._join(race, place, member)

    def remove(self, server: Place) -> None:
        """Use a server no longer.  What is open there can still be closed."""
        place = address(server)
        member = self._members.pop(place, None)
        if member is None:
            return
        for race in self._races:
            wait = race.waits.pop(place, None)
            if wait is not None:
                wait.cancel()
        client = member.client
        for link in client._idle:
            link.abort()
        client._idle.clear()
        client._max_idle = 0
        if client._main is not None and not client._main.closed:
            main = client._main
            client._main = None
            main.tell(requests.version(), lambda result, error: main.abort())

    def _become(self, places: list[Address]) -> None:
        for place in list(self._members):
            if place not in places:
                self.remove(place)
        for place in places:
            self.add(place)

    async def _watch(self, every: float) -> None:
        while not self._closed:
            await self._runtime.sleep(every)
            try:
                self._become(await self._source.look(self._runtime))
            except Exception:
                continue  # those of before stay

    # Putting

    async def put(
        self, queue: Name, payload: bytes, *, flags: int = 0, expiry: int = 0, delay: Optional[float] = None,
        id: Optional[Name] = None, sync: bool = False, timeout: Optional[float] = None,
    ) -> str:  # fmt: skip
        """
        Put an item to one of the servers; where it fails or refuses, to another one.

        @return: the address of the server that has it.
        @raise QueueFull, ServerError: all that could be reached refuse it.
        @raise ConnectionFailed: none could be reached in time.
        """
        request = requests.put(queue, payload, flags=flags, expiry=expiry, delay=delay, id=id, sync=sync)
        deadline = self._runtime.now() + (self.timeout if timeout is None else timeout)
        refused: dict[Member, DarnerError] = {}
        failed: set[Member] = set()
        doubt: Optional[InDoubt] = None
        while True:
            left = deadline - self._runtime.now()
            if left <= 0:
                raise doubt or next(iter(refused.values()), TimedOut("no server took the item in time"))
            member = self._choose({*refused, *failed})
            if member is None:
                if refused and len(refused) + len(failed) >= len(self._members):
                    raise next(iter(refused.values()))
                failed.clear()
                await self._runtime.sleep(min(_PAUSE, left))
                continue
            try:
                await member.put([request], min(left, max(self.timeout / 3, 0.05)))
                member.went_well()
                return str(member.client.address)
            except ConnectionFailed as error:
                member.failed(self._runtime.now(), error)
                failed.add(member)
            except (ServerError, QueueFull) as error:
                member.failed(self._runtime.now(), error)
                refused[member] = error
            except InDoubt as error:
                member.failed(self._runtime.now(), error)
                failed.add(member)
                doubt = error
                if id is not None:
                    await self._put_until(member, request, deadline)
                    return str(member.client.address)
                if not self._again:
                    raise

    async def put_many(self, queue: Name, payloads: Any, *, timeout: Optional[float] = None, **options: Any) -> int:
        """
        Put many, so many at a time to one of the servers; those that it does not take, to others.

        @param options: those of L{put}, but for the id.
        @return: how many: all of them.
        """
        count = 0
        every = iter(payloads)
        while batch := list(islice(every, MOST_AT_ONCE)):
            asked = [requests.put(queue, payload, **options) for payload in batch]
            member = self._choose(set())
            results: list[Any] = [None] * len(batch)
            if member is not None:
                try:
                    results = await member.put(asked, max(self.timeout / 3, 0.05))
                except (ConnectionFailed, TooManyConnections) as error:
                    member.failed(self._runtime.now(), error)
            for payload, result in zip(batch, results, strict=True):
                if result is not True:
                    if isinstance(result, InDoubt) and not self._again:
                        raise result
                    await self.put(queue, payload, timeout=timeout, **options)
            count += len(batch)
        return count

    async def _put_until(self, member: Member, request: Request, deadline: float) -> None:
        """Send a put with an id to the server that may have it, until it is answered."""
        while True:
            left = deadline - self._runtime.now()
            if left <= 0:
                raise InDoubt(f"{member.client.address} may have the item")
            try:
                await member.put([request], min(left, max(self.timeout / 3, 0.05)))
                return
            except (ConnectionFailed, InDoubt, TooManyConnections):
                await self._runtime.sleep(min(_PAUSE, left))

    def _choose(self, without: set[Member]) -> Optional[Member]:
        """@return: one of those that are not set aside; where all are, of those whose time comes first."""
        if self._closed:
            raise ClientClosed()
        members = [member for member in self._members.values() if member not in without]
        if not members:
            return None
        now = self._runtime.now()
        ready = [member for member in members if member.aside_until <= now]
        if ready:
            if self._choice == "least_loaded":
                least = min(member.putting for member in ready)
                ready = [member for member in ready if member.putting == least]
            return random.choice(ready)
        if len(members) == len(self._members):
            return min(members, key=lambda member: member.aside_until)
        return None

    # Reading

    async def open(self, queue: Queues, timeout: float = 0, *, heartbeat: Optional[float] = None) -> Optional[OpenRead]:
        """
        Open an item of any server.

        Each is asked in turn, in another order each time; where none has one, it is waited for at all of them.  Those
        that are set aside are asked where no other one answers.

        @param timeout: for how many seconds to wait for one.
        @return: None where a server has answered, and none has an item in time; an item is closed on the server that it
            came from.
        @raise ServerError: no server has answered, and one refuses.
        @raise ConnectionFailed: no server could be asked.
        """
        queues = names(queue)
        until = self._runtime.now() + max(0.0, timeout)
        read, answered = await self._ask_each(queues, until, heartbeat)
        if read is None and self._runtime.now() < until:
            read, answered = await self._race(queues, until, heartbeat, answered)
        if read is None and not answered and not self._closed:
            raise unanswered(self._members.values())
        return read

    async def _open_ready(self, queue: Queues) -> Optional[OpenRead]:
        """As L{open}, of the servers that are not set aside, and without an error where there are none."""
        return (await self._ask_each(names(queue), math.inf, None))[0]

    async def _ask_each(
        self, queues: tuple[Name, ...], until: float, heartbeat: Optional[float]
    ) -> tuple[Optional[OpenRead], bool]:
        """
        Ask one server after the other until one has an item.

        @param until: not before that are those asked that are set aside.
        @return: the item, and whether any server has answered.
        """
        answered = False
        began = self._runtime.now()
        members = random.sample(list(self._members.values()), len(self._members))
        for member in sorted(members, key=lambda member: max(member.aside_until, began)):
            now = self._runtime.now()
            if member.aside_until > now and (answered or not until <= now < began + self.timeout):
                continue
            try:
                read = await member.client.open(queues, heartbeat=heartbeat)
            except (*PASSING, ServerError) as error:
                member.refused_read(self._runtime.now(), error)
                continue
            answered = True
            member.went_well()
            if read is not None:
                return read, answered
        return None, answered

    async def _race(
        self, queues: tuple[Name, ...], until: float, heartbeat: Optional[float], answered: bool
    ) -> tuple[Optional[OpenRead], bool]:
        """@return: the item, and whether any server has answered."""
        if self._closed:  # nobody would end the wait
            raise ClientClosed()
        race = Race(queues, until, heartbeat, self._runtime.future())
        race.answered = answered

        def begin() -> None:
            for place, member in self._members.items():
                self._join(race, place, member)

        return await race.run(self._runtime, self._races, begin), race.answered

    def _join(self, race: Race, place: Address, member: Member) -> None:
        race.waits[place] = self._runtime.spawn(self._wait(race, member))

    async def _wait(self, race: Race, member: Member) -> None:
        """
        Wait for an item at one server, also one that is set aside or away, as soon as it is there again.

        Where none has answered yet it is asked without a wait at first, so that it is known when it answers.
        """
        now = self._runtime.now
        while not race.won.done() and not self._closed:
            pause = member.pause(now(), race.answered)
            if pause > 0:
                await self._runtime.sleep(pause)
                continue
            waits = race.answered
            wait = race.until - now() if waits else 0.0
            try:
                read = await member.client.open(race.queues, wait, heartbeat=race.heartbeat)
            except (*PASSING, ServerError) as error:
                member.refused_read(now(), error)
                await self._runtime.sleep(_PAUSE)
                continue
            except DarnerError as error:
                if not race.won.done():
                    race.won.set_exception(error)
                return
            member.went_well()
            race.answered = True
            if read is not None:
                race.end(read)
            elif waits:
                return

    async def get(self, queue: Queues, timeout: float = 0) -> Optional[Item]:
        """
        Take an item of any server: it is opened, and closed when it is here.

        @return: None where there is none.
        @raise DarnerError: as L{open}.
        """
        read = await self.open(queue, timeout)
        return None if read is None else read._close_at_once()

    def monitor(self, queue: Queues, *, prefetch: int = 1, timeout: float = float("inf")) -> FleetMonitor:
        """@return: the items as they come on any server, each closed when the next one is asked for."""
        return FleetMonitor(self, queue, prefetch, timeout)

    # All servers

    async def stats(self) -> dict[str, Stats]:
        """@return: the figures of the servers that can be reached, by address."""
        found = {}
        for place, member in list(self._members.items()):
            try:
                found[str(place)] = await member.client.stats()
            except PASSING as error:
                member.failed(self._runtime.now(), error)
        return found

    async def flush(self, queue: Name) -> None:
        """
        Drop all items of the queue, on all servers, but those that are open.

        @raise DarnerError: why the first of those that failed did; the others have done it.
        """
        await self._everywhere(lambda client: client.flush(queue))

    async def delete(self, queue: Name) -> None:
        """Drop the queue, on all servers; errors as for L{flush}."""
        await self._everywhere(lambda client: client.delete(queue))

    async def _everywhere(self, call: Callable[[Commands], Awaitable[None]]) -> None:
        errors: list[DarnerError] = []
        for member in list(self._members.values()):
            try:
                await call(member.client)
            except DarnerError as error:
                member.failed(self._runtime.now(), error)
                errors.append(error)
        if errors:
            raise errors[0]
