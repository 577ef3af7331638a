"""
Several shards as one service: each queue is in the shard that its name says.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Optional, TypeVar, Union

from darner.client.addresses import addresses
from darner.client.commands import Commands, Queues, names
from darner.client.core import Place
from darner.client.errors import ClientClosed, ConnectionFailed, SpansShards, TooManyConnections, Unavailable
from darner.client.figures import Stats
from darner.client.fleet_monitor import FleetMonitor
from darner.client.leaders import LeaderRuntime
from darner.client.links import Runtime
from darner.client.members import PASSING, Away, Race
from darner.client.protocol import Item
from darner.client.reads import Monitor, OpenRead
from darner.client.requests import Name
from darner.errors import DarnerError
from darner.values.shards import shard_of

Nodes = Union[str, Sequence[Place]]
"""The nodes of a shard: a sequence of addresses, or text with commas between them."""

_Group = tuple[Commands, list[Name]]
"""A shard, and which of its queues are asked for."""
_T = TypeVar("_T")

_PAUSE: Final = 0.05
_NOT_DONE: Final = (ConnectionFailed, TooManyConnections, Unavailable)
"""What says that a shard could not be asked, and that nothing was taken there."""


def _bytes(queue: Name) -> bytes:
    return queue.encode() if isinstance(queue, str) else queue


class BaseShards:
    """
    Each call goes to the leader of the queue's shard, whichever node that is, and goes on with the next leader after a
    failover, within the time that the call has.

    Errors are those of a client of one server.  A put without an id whose connection broke raises C{InDoubt}.
    """

    def __init__(
        self, runtime: Runtime, shards: Sequence[Nodes], *, old: Sequence[Nodes] = (), user: str = "",
        password: str = "", timeout: float = 10.0, connect_timeout: float = 1.0, max_idle: int = 16,
    ) -> None:  # fmt: skip
        """
        @param shards: the nodes of each shard, the first one first.
        @param old: those from which queues are being moved: they are read first, until they are empty, and nothing is
            put there.
        @param timeout: seconds that each call may take, finding the leader included, besides its wait for an item.
        @param connect_timeout: seconds for one attempt to connect to one node.
        """
        if not shards:
            raise ValueError("there are no shards")
        self.timeout = timeout
        self._runtime = runtime
        self._closed = False

        def client(nodes: Nodes) -> Commands:
            places = addresses(nodes)
            if not places:
                raise ValueError("a shard has no nodes")
            return Commands(
                LeaderRuntime(runtime, places, connect_timeout), places[0], user=user, password=password,
                timeout=timeout, connect_timeout=timeout, max_idle=max_idle,
            )  # fmt: skip

        self._clients = [client(nodes) for nodes in shards]
        self._old = [client(nodes) for nodes in old]
        self._races: set[Race] = set()
        self._away = Away(runtime)

    async def start(self) -> None:
        """Nothing: it connects when it is first asked something."""

    async def close(self) -> None:
        """End all connections, when what was sent is answered.  What is open goes back."""
        self._closed = True
        for race in list(self._races):
            race.end(None)
        self._away.close()
        for client in (*self._old, *self._clients):
            await client._close()

    def shard_of(self, queue: Name) -> int:
        """@return: the number of a queue's shard, from 1 on."""
        return shard_of(_bytes(queue), len(self._clients))

    def of(self, queue: Name) -> Commands:
        """@return: the client of a queue's shard, for what is not here."""
        return self._clients[self.shard_of(queue) - 1]

    def _with_old(self, queue: Name) -> list[Commands]:
        """@return: the clients of the shards where a queue may have items, the one to read first first."""
        if not self._old:
            return [self.of(queue)]
        return [self._old[shard_of(_bytes(queue), len(self._old)) - 1], self.of(queue)]

    # Putting

    async def put(self, queue: Name, payload: bytes, **options: Any) -> None:
        """As L{Commands.put}."""
        await self.of(queue).put(queue, payload, **options)

    async def put_many(self, queue: Name, payloads: Any, **options: Any) -> int:
        """As L{Commands.put_many}."""
        return await self.of(queue).put_many(queue, payloads, **options)

    async def put_stream(self, queue: Name, chunks: Any, size: int, **options: Any) -> None:
        """As L{Commands.put_stream}."""
        await self.of(queue).put_stream(queue, chunks, size, **options)

    # Reading

    def _groups(self, queues: tuple[Name, ...]) -> list[_Group]:
        """@return: queues that are named one after the other and are in one shard, together."""
        groups: list[_Group] = []
        for queue in queues:
            for client in self._with_old(queue):
                if groups and groups[-1][0] is client:
                    groups[-1][1].append(queue)
                else:
                    groups.append((client, [queue]))
        return groups

    async def open(self, queue: Queues, timeout: float = 0, *, heartbeat: Optional[float] = None) -> Optional[OpenRead]:
        """
        Open an item, as L{Commands.open}.

        Several queues may be in different shards.  Then they are asked in turn, and where none has an item, it is
        waited for at all of them: of items that come at the same moment any may be had.  A shard that could not be
        asked, and has not answered since, is asked last; where there is a wait, it is only waited at.

        @raise DarnerError: a shard cannot be asked, and no other one has an item.
        """
        groups = self._groups(names(queue))
        if len(groups) == 1:
            client, queues = groups[0]
            return await client.open(queues, timeout, heartbeat=heartbeat)
        until = self._runtime.now() + max(0.0, timeout)
        read, failed = await self._ask_each(
            groups, lambda client, queues: client.open(queues, heartbeat=heartbeat), skip=timeout > 0
        )
        if read is not None:
            return read
        if self._runtime.now() < until:
            read = await self._race(groups, until, heartbeat)
            if read is not None or self._closed:
                return read
            failed = {client: self._away.why[client] for client in failed if client in self._away.why}
        if failed:
            raise next(iter(failed.values()))
        return None

    async def _open_ready(self, queue: Queues) -> Optional[OpenRead]:
        """As L{open}, of the shards that are not away, and without an error where there are none."""
        read, _ = await self._ask_each(
            self._groups(names(queue)), lambda client, queues: client.open(queues), skip=True
        )
        return read

    async def _ask_each(
        self, groups: list[_Group], ask: Callable[[Commands, list[Name]], Awaitable[Optional[_T]]], skip: bool = False
    ) -> tuple[Optional[_T], dict[Commands, DarnerError]]:
        """
        Ask one shard after the other, those that are away last, until one has an item.

        @param skip: do not ask those that are away.
        @return: the item, and of each shard that could not be asked why.
        """
        failed: dict[Commands, DarnerError] = {}
        for client, queues in sorted(groups, key=lambda group: group[0] in self._away.why):
            if client in failed:
                continue
            if skip and client in self._away.why:
                failed[client] = self._away.why[client]
                continue
            try:
                found = await ask(client, queues)
            except PASSING as error:
                failed[client] = error
                self._away.note(client, queues[0], error)
                continue
            self._away.back(client)
            if found is not None:
                return found, failed
        return None, failed

    async def _race(self, groups: list[_Group], until: float, heartbeat: Optional[float]) -> Optional[OpenRead]:
        """
        Wait at several shards.

        @raise ClientClosed: it was closed before this began, so that nobody would end the wait.
        """
        if self._closed:
            raise ClientClosed()
        together: dict[Commands, list[Name]] = {}
        for client, queues in groups:
            together.setdefault(client, []).extend(queues)
        race = Race((), until, heartbeat, self._runtime.future())

        def begin() -> None:
            for client, queues in together.items():
                race.waits[client] = self._runtime.spawn(self._wait(race, client, queues))

        return await race.run(self._runtime, self._races, begin)

    async def _wait(self, race: Race, client: Commands, queues: list[Name]) -> None:
        while not race.won.done() and not self._closed:
            try:
                read = await client.open(queues, race.until - self._runtime.now(), heartbeat=race.heartbeat)
            except ClientClosed:
                return
            except PASSING as error:
                self._away.note(client, queues[0], error)
                await self._runtime.sleep(_PAUSE)
                continue
            except DarnerError as error:
                if not race.won.done():
                    race.won.set_exception(error)
                return
            self._away.back(client)
            if read is None:
                return
            race.end(read)

    async def get(self, queue: Queues, timeout: float = 0) -> Optional[Item]:
        """Take an item, as L{Commands.get}; of queues in different shards it is opened, and closed when it is here."""
        groups = self._groups(names(queue))
        if len(groups) == 1:
            return await groups[0][0].get(groups[0][1], timeout)
        read = await self.open(queue, timeout)
        return None if read is None else read._close_at_once()

    async def get_many(self, queue: Name, count: int, *, timeout: Optional[float] = None) -> list[Item]:
        """
        As L{Commands.get_many}; while queues move, of the old shard and then of the new one, which gets back what was
        taken where it is cancelled.

        @raise DarnerError: none was had, and a shard cannot be asked, or it is in doubt.  Where some were, those are
            returned, whatever the other shard says.
        """
        if not self._old:
            return await self.of(queue).get_many(queue, count, timeout=timeout)
        found: list[Item] = []

        async def take(client: Commands) -> int:
            found.extend(await client.get_many(queue, count - len(found), timeout=timeout))
            return len(found)

        try:
            await self._take_each(queue, take, count)
        except BaseException:  # it was cancelled
            self.of(queue)._put_back.add(found)
            raise
        return found

    async def get_into(
        self, queue: Name, sink: Callable[[bytes], object], *, timeout: Optional[float] = None
    ) -> Optional[Item]:
        """
        As L{Commands.get_into}; while queues move, of the old shard or else of the new one.  Errors as for L{get_many}:
        where it is in doubt, the sink may have been given pieces.
        """
        if not self._old:
            return await self.of(queue).get_into(queue, sink, timeout=timeout)
        found: list[Item] = []

        async def take(client: Commands) -> int:
            item = await client.get_into(queue, sink, timeout=timeout)
            if item is not None:
                found.append(item)
            return len(found)

        await self._take_each(queue, take, 1)
        return found[0] if found else None

    async def _take_each(self, queue: Name, take: Callable[[Commands], Awaitable[int]], count: int) -> None:
        """
        Take items of the old shard and of the new one.  One that is away is asked last, and only where none was had.

        @param take: takes some of one shard, and returns how many were had in all; C{count} are enough.
        """
        had, failed = 0, None
        for client in sorted(self._with_old(queue), key=lambda client: client in self._away.why):
            if had and client in self._away.why:
                return
            try:
                had = await take(client)
            except DarnerError as error:
                if isinstance(error, PASSING):
                    self._away.note(client, queue, error)
                if not had and not isinstance(error, _NOT_DONE):
                    raise
                failed = failed or error
                continue
            self._away.back(client)
            if had >= count:
                return
        if failed is not None and not had:
            raise failed

    async def peek(self, queue: Queues, timeout: float = 0) -> Optional[Item]:
        """
        As L{Commands.peek}; it waits at the new shard alone.

        @raise SpansShards: it is to wait for an item of queues in different shards.
        @raise DarnerError: a shard cannot be asked, and no other one has an item.
        """
        asked = names(queue)
        groups = self._groups(asked)
        if len(groups) == 1:
            return await groups[0][0].peek(groups[0][1], timeout)
        if timeout > 0 and len({self.of(name) for name in asked}) > 1:
            raise SpansShards(f"queues of different shards, {_listed(asked)}: a peek cannot wait for them")
        until = self._runtime.now() + timeout
        if timeout > 0:
            groups.pop()  # that of the shard where it waits
        item, failed = await self._ask_each(groups, lambda client, queues: client.peek(queues))
        if item is None and timeout > 0:
            item = await self.of(asked[0]).peek(asked, until - self._runtime.now())
        if item is None and failed:
            raise next(iter(failed.values()))
        return item

    def monitor(
        self, queue: Queues, *, prefetch: int = 1, timeout: float = float("inf")
    ) -> Union[Monitor, FleetMonitor]:
        """@return: the items as they come, each confirmed when the next one is asked for."""
        queues = names(queue)
        if len(queues) == 1 and not self._old:
            return self.of(queues[0]).monitor(queues[0], prefetch=prefetch, timeout=timeout)
        return FleetMonitor(self, queue, prefetch, timeout)

    # Consuming

    async def flush(self, queue: Name, *, timeout: Optional[float] = None) -> None:
        """Drop all items of the queue but those that are open."""
        for client in self._with_old(queue):
            await client.flush(queue, timeout=timeout)

    async def delete(self, queue: Name, *, timeout: Optional[float] = None) -> None:
        """Drop the queue, whether it is there or not."""
        for client in self._with_old(queue):
            await client.delete(queue, timeout=timeout)

    async def flush_all(self, *, timeout: Optional[float] = None) -> None:
        """
        Drop all items of all queues, in one shard after the other.

        @raise DarnerError: one of them did not; those before it have.
        """
        for client in (*self._old, *self._clients):
            await client.flush_all(timeout=timeout)

    async def requeue(
        self, origin: Name, target: Name, count: Optional[int] = None, *, timeout: Optional[float] = None
    ) -> int:
        """
        As L{Commands.requeue}.

        @raise SpansShards: the two queues are in different shards.
        """
        if self.of(origin) is not self.of(target):
            raise SpansShards(
                f"requeue from {_listed((origin,))} in shard {self.shard_of(origin)} to {_listed((target,))} in shard "
                f"{self.shard_of(target)}: items do not move between shards"
            )
        return await self.of(origin).requeue(origin, target, count, timeout=timeout)

    # All shards

    async def stats(self, *, timeout: Optional[float] = None) -> dict[int, Stats]:
        """@return: the figures of the leader of each shard, by its number."""
        return {number: await client.stats(timeout=timeout) for number, client in enumerate(self._clients, 1)}

    async def left_behind(self, *, timeout: Optional[float] = None) -> dict[str, int]:
        """
        @return: how many items there are in each queue of the old shards: to be had, open, set aside or delayed.  Where
            it is empty, the old shards are of no more use.
        """
        left: dict[str, int] = {}
        for client in self._old:
            for name, queue in (await client.stats(timeout=timeout)).queues.items():
                count = queue.items + queue.open_transactions + queue.set_aside + queue.delayed
                if count:
                    left[name] = count
        return left


def _listed(queues: tuple[Name, ...]) -> str:
    return " and ".join(_bytes(queue).decode(errors="replace") for queue in queues)
