"""
The queues of one server, by name: what every front end works on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Optional

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from darner.config.policies import Policies, QueueSettings, parent_of
from darner.errors import ClientError, DarnerError, ItemTooLarge, QueueFull, StoreError
from darner.net.limits import client_bytes
from darner.queues.commit import GroupCommit, Replies
from darner.queues.control import Control
from darner.queues.disk_space import DiskSpace
from darner.queues.expiry import Expiry
from darner.queues.fifo import Fifo
from darner.queues.head import WINDOW_BYTES, MemoryBudget
from darner.queues.producer_ids import Deduplication
from darner.queues.reclaiming import Reclaimer
from darner.queues.routing import Route, Routing
from darner.queues.status import ServerStatus
from darner.queues.streams import PayloadReader, PayloadWriter
from darner.queues.volatile import VolatileStore
from darner.store.interfaces import IStore
from darner.values.items import ITEM_OVERHEAD, Item, PutOptions
from darner.values.stats import Health, ServerStats, queue_counters, server_counters

RELATIVE_EXPIRY: Final = 1_000_000
"""An expiry below this is in seconds from now, else in seconds since the epoch (Kestrel's rule)."""

LAST_EXPIRY: Final = 2**63 - 1
"""The latest expiry that is kept, in ms since the epoch; what expires later expires then."""


def _fits(policy: QueueSettings, size: int) -> bool:
    return size <= policy.max_item_bytes and (policy.max_bytes is None or size <= policy.max_bytes)


@dataclass(frozen=True)
class Surroundings:
    """
    What the queues need of the process they live in.  Tests put a C{Clock} and synchronous calls in its place.
    """

    clock: IReactorTime
    """For waits and delays; monotonic (`darner.net.clock`)."""
    schedule: Callable[[Callable[[], None]], object]
    """Calls its argument soon, from the reactor."""
    in_thread: Callable[..., Deferred[Any]]
    """Calls its arguments in a worker thread; fires with the result."""
    wall: Callable[[], float] = time.time
    """The time in seconds since the epoch, for expiry and ages."""


class Queues:
    """
    All queues of one store.

    @ivar turn: the group commit they share.
    @ivar space: whether there is room on the disk.
    @ivar stats: the server's counters.
    @ivar status: what is refused for now.
    @ivar control: what clients may ask of the process.
    @ivar policies: the settings of the queues; change them by L{apply}.
    @ivar client_bytes: how much is held at most for each client, in each direction (`darner.net.limits`).
    @ivar stopped: whether L{stop} is done, so that nothing can be written any more.
    """

    def __init__(
        self,
        store: IStore,
        surroundings: Surroundings,
        policies: Policies = Policies(),  # noqa: B008  (it is frozen)
        min_free_bytes: Optional[int] = None,
        status: Optional[ServerStatus] = None,
        control: Control = Control(),  # noqa: B008  (it is frozen)
        window_bytes: int = WINDOW_BYTES,
    ) -> None:
        """
        @param min_free_bytes: room on the disk below which nothing is put (L{DiskSpace}).
        @param status: what is refused for now; by default the server is up, and that is not kept.
        @param control: what clients may ask of the process.
        @param window_bytes: about how much of each queue's head is held in memory.
        """
        self.store = store
        self.clock = surroundings.clock
        self.commit = GroupCommit(
            store, surroundings.schedule, surroundings.in_thread, surroundings.wall, surroundings.clock
        )
        self._wall = surroundings.wall
        self.space = DiskSpace(store, surroundings.clock, min_free_bytes, surroundings.wall)
        self.reclaimer = Reclaimer(store, self.commit, surroundings.in_thread, surroundings.clock)
        self.stats = ServerStats()
        self.status = ServerStatus(surroundings.clock) if status is None else status
        self.control = control
        self.expiry = Expiry(self.commit, surroundings.clock, self.stats, self.move, self.delete, self.is_durable)
        self.policies = policies
        self._fanout = Routing(policies)
        self.client_bytes = client_bytes(0)
        self._fifos: dict[bytes, Fifo] = {}
        self._room = MemoryBudget()
        self._window_bytes = window_bytes
        self._memory = VolatileStore()
        self._started = surroundings.clock.seconds()
        self.stopped = False

    def start(self) -> None:
        """
        Find what is in the store.

        @raise darner.errors.StoreError: it cannot be read.
        """
        for state in self.store.recover():
            fifo = self.make(state.name)
            fifo.recover(state)
            self._born(state.name)
            if any(stop > state.floor for _, stop in state.consumed.intervals()):
                self.reclaimer.reclaim(fifo, state.number, list(state.consumed.intervals()))
        self.reclaimer.start()

    async def stop(self) -> None:
        """Write what is to be written and end all work in threads.  The store may be closed then."""
        self.expiry.stop()
        await self.commit.written()
        await self.reclaimer.stop()
        for fifo in self._fifos.values():
            fifo.remark()
        self.commit.sync_soon()
        await self.commit.written()
        for fifo in self._fifos.values():
            fifo.stop()
        self.commit.stop()
        self.space.stop()
        self.status.stop()
        self.stopped = True

    # Clients

    def joined(self) -> None:
        """A client has connected, by whatever front end."""
        self.stats.curr_connections += 1
        self.stats.total_connections += 1
        self.client_bytes = client_bytes(self.stats.curr_connections)

    def left(self) -> None:
        """A client has gone."""
        self.stats.curr_connections -= 1
        self.client_bytes = client_bytes(self.stats.curr_connections)

    # Finding queues

    def find(self, name: bytes) -> Optional[Fifo]:
        """@return: the queue of that name, where somebody knows it."""
        return self._fifos.get(name)

    def make(self, name: bytes) -> Fifo:
        """@return: the queue of that name, to put an item there or to wait for one; a first put makes it exist."""
        fifo = self._fifos.get(name)
        if fifo is None:
            fifo = self._fifos[name] = Fifo(
                name, self.store, self.commit, self.reclaimer, self.expiry, self._room, self._window_bytes,
                self.policies.of(name), self._memory,
            )  # fmt: skip
            fifo.spreads = self._spreads(name)
        return fifo

    def _spreads(self, name: bytes) -> bool:
        return self._fanout.concerns(name) or self.policies.of(name).default_delay is not None

    def policy(self, name: bytes) -> QueueSettings:
        """@return: the settings in force for a queue, whether there is one of that name or not."""
        fifo = self._fifos.get(name)
        return self.policies.of(name) if fifo is None else fifo.policy

    def is_durable(self, name: bytes) -> bool:
        """@return: whether what is put on a queue is written to disk; it stays so as long as the queue is there."""
        fifo = self._fifos.get(name)
        return self.policies.of(name).durable if fifo is None else fifo.durable

    def apply(self, policies: Policies) -> None:
        """Have other settings from now on."""
        self.policies = policies
        self._fanout.apply(policies)
        for fifo in self._fifos.values():
            fifo.adopt(policies.of(fifo.name))
            fifo.spreads = self._spreads(fifo.name)

    def item_limit(self, name: bytes) -> int:
        """@return: the size of the largest item that may be set on a name."""
        return min(self.policy(queue).max_item_bytes for queue in self.policies.aliases.get(name, (name,)))

    def fits(self, name: bytes, size: int) -> bool:
        """@return: whether an item of that size may be set on a name if there is room."""
        fifo = self._fifos.get(name)
        if fifo is not None and not fifo.spreads:
            return _fits(fifo.policy, size)
        return size <= self.item_limit(name) and all(
            _fits(self.policy(queue), size) for queue in self._fanout.route(name).keeping
        )

    def check_queue(self, name: bytes) -> None:
        """@raise ClientError: it is the name of an alias, to which nothing can be moved."""
        if name in self.policies.aliases:
            raise ClientError("an alias is no queue")

    def refer(self, name: bytes) -> bool:
        """
        Somebody wants to read a queue, and there is nothing to be had: if it is a child that does not exist, it does
        from now on, unless nothing may be written for now.

        @return: whether it comes into being only with what is to be written now (L{GroupCommit.put},
            L{GroupCommit.unless_put}).
        @raise StoreError: the store cannot make it.
        """
        if parent_of(name) is None:
            return False
        fifo = self._fifos.get(name)
        if fifo is None or fifo.number is None:
            if name in self.policies.aliases or self.status.refuses_writes:
                return False
            fifo = self._existing(name)
            self.commit.changed(fifo)
        return fifo.unwritten

    def _born(self, name: bytes) -> None:
        """A queue exists now."""
        parent = self._fanout.born(name)
        if parent is not None and parent in self._fifos:
            self._fifos[parent].spreads = True

    def _gone(self, name: bytes) -> None:
        """A queue exists no more."""
        parent = self._fanout.gone(name)
        if parent is not None and parent in self._fifos:
            self._fifos[parent].spreads = self._spreads(parent)

    def release(self, fifo: Fifo) -> None:
        """Whoever made it to wait there does so no longer."""
        if fifo.idle and self._fifos.get(fifo.name) is fifo:
            del self._fifos[fifo.name]

    def names(self) -> list[bytes]:
        """@return: the names of the queues that exist, sorted."""
        return sorted(fifo.name for fifo in self._fifos.values() if fifo.exists)

    # Working on them

    def put(
        self, name: bytes, flags: int, expiry: float, payload: bytes, options: Optional[PutOptions] = None
    ) -> Optional[Deduplication]:
        """
        Put a small item at the end of a queue, and of all others for which it is meant (`darner.queues.routing`).

        @param expiry: by memcache's rules, to the ms.
        @param options: what else is asked for.
        @return: what the answer depends on, where the item has an id; C{None}: on the turn (L{GroupCommit.put}).
        @raise ItemTooLarge: it is over the limit.
        @raise darner.errors.Unavailable: nothing may be put for now.
        @raise QueueFull: the queue is, and refuses it.
        @raise darner.errors.DiskAlmostFull: there is too little room.
        @raise ClientError: it has an id, and the queue no C{dedupe_window}.
        @raise darner.errors.StoreError: the store cannot make the queue, or not tell whether it knows the id.
        """
        size = len(payload)
        fifo = self._fifos.get(name)
        if fifo is None or fifo.spreads or options is not None:
            retry = Deduplication(options.id) if options is not None and options.id else None
            fifos = self._all_for_put(name, size, size, options, retry)
            self._put_on(fifos, flags, expiry, size, payload, options=options, retry=retry)
            return retry
        self._admit(fifo.policy, size, size, fifo.durable)
        if fifo.number is None:
            self._existing(name)
        elif fifo.limited:
            fifo.make_room(size)
        fifo.put(flags, self._expiry_time(expiry) if expiry else 0, size, payload)
        self.stats.total_items += 1
        return None

    def put_flow(
        self, name: bytes, flags: int, expiry: float, inflow: PayloadWriter, options: Optional[PutOptions] = None
    ) -> Optional[Deduplication]:
        """As L{put}, with a payload that came piece by piece."""
        payload = inflow.finish()
        retry = Deduplication(options.id) if options is not None and options.id else None
        try:
            fifos = self._all_for_put(name, inflow.size, len(payload), options, retry)
        except DarnerError:
            inflow.abandon()
            raise
        self._put_on(fifos, flags, expiry, inflow.size, payload, inflow.stream, options, retry)
        if not fifos:
            inflow.abandon()
        return retry

    def _put_on(
        self, fifos: list[Fifo], flags: int, expiry: float, size: int, payload: bytes, stream: int = 0,
        options: Optional[PutOptions] = None, retry: Optional[Deduplication] = None,
    ) -> None:  # fmt: skip
        ends = self._expiry_time(expiry) if expiry else 0
        shared = len(fifos) > 1
        if retry is not None and fifos:
            retry.anew = True
            self._add_id(fifos, retry.id)
        for fifo in fifos:
            delay = self._delay(fifo, options)
            if delay:
                fifo.delay(self._after(delay), flags, ends, size, payload, stream, shared)
            else:
                fifo.put(flags, ends, size, payload, stream, shared)
        self.stats.total_items += len(fifos)

    def _after(self, delay: int) -> int:
        """
        @return: when so many ms have passed from now on, in ms since the epoch: never too early, though the turn may
            have begun some ms ago.
        """
        return int(self._wall() * 1000 + 0.99) + delay

    @staticmethod
    def _delay(fifo: Fifo, options: Optional[PutOptions]) -> int:
        """@return: after how many ms an item is to be had that is set on a queue."""
        if options is not None and options.delay is not None:
            return options.delay
        return int((fifo.policy.default_delay or 0) * 1000)

    def _add_id(self, fifos: list[Fifo], id: bytes) -> None:
        reply: Replies = [b""]
        self.commit.put(reply, 0)
        for fifo in fifos:
            fifo.add_id(id, reply)

    def _find_id(self, route: Route, retry: Deduplication) -> None:
        """
        Find out which queues have an item that is set under an id.

        @raise ClientError: one of those that matter is not set to know any.
        """
        for queue in route.required:
            if self.policy(queue).dedupe_window is None:
                raise ClientError(f"queue {queue.decode()} has no dedupe_window")
        for queue in (*route.keeping, *route.children):
            fifo = self._fifos.get(queue)
            first = None if fifo is None else fifo.find_id(retry.id)
            if fifo is not None and first is not None:
                retry.left_out.add(queue)
                retry.first.append(first)
                retry.anew |= fifo.leave_out()

    def _admit(self, policy: QueueSettings, size: int, room: int, durable: bool) -> None:
        """
        @param policy: the settings of a queue.
        @param size: of the item that is to be put there, in bytes.
        @param room: what of that is still to be written.
        @param durable: whether the queue is on disk.
        @raise DarnerError: the item is refused, whatever the queue holds.
        """
        if self.status.refuses_writes:
            self.status.check_writes()
        if size > policy.max_item_bytes:
            raise ItemTooLarge()
        least = size if durable else size + ITEM_OVERHEAD  # what it counts for in a queue that holds nothing
        if policy.max_bytes is not None and least > policy.max_bytes:
            raise QueueFull()
        if durable:
            self.space.take(room + ITEM_OVERHEAD)

    def _all_for_put(
        self, name: bytes, size: int, room: int, options: Optional[PutOptions], retry: Optional[Deduplication]
    ) -> list[Fifo]:
        """
        @param size: of the item that is to be put, in bytes.
        @param room: what of that is still to be written, for each queue.
        @param retry: its id, if it has one: those that know it are left out.
        @return: the queues on which a set on this name puts it; they exist.
        @raise DarnerError: it is refused; no queue has been made.
        """
        fifo = self._fifos.get(name)
        if fifo is not None and not fifo.spreads and options is None:
            self._admit(fifo.policy, size, room, fifo.durable)
            if fifo.limited:
                fifo.make_room(size)
            return [self._existing(name)]
        route = self._fanout.route(name)
        self.status.check_writes()
        if size > self.item_limit(name):
            raise ItemTooLarge()
        if retry is not None:
            # First: what was stored once is answered so, though there be no room for it now.
            self._find_id(route, retry)
        left_out = retry.left_out if retry is not None else ()
        taking = [queue for queue in route.keeping if queue not in left_out]
        for queue in taking:
            self._admit(self.policy(queue), size, room, self.is_durable(queue))
            self._check_room(queue, size)
        for child in route.children:
            if child in left_out:
                continue
            fifo = self._fifos.get(child)
            if fifo is None or fifo.number is None:
                self._gone(child)  # it could not be written when it was made
                continue
            with suppress(ItemTooLarge, QueueFull):
                self._admit(fifo.policy, size, room, fifo.durable)
                self._check_room(child, size)
                taking.append(child)
        new = [queue for queue in taking if queue not in self._fifos or not self._fifos[queue].exists]
        try:
            fifos = [self._existing(queue) for queue in taking]
            for fifo in fifos:
                if retry is not None:
                    fifo.begin_ids()
                if self._delay(fifo, options):
                    fifo.begin_delays()
            for fifo in fifos:
                # Only now, as nobody refuses it any more.
                if fifo.limited and fifo.policy.discard_old_when_full:
                    fifo.make_room(size)
        except StoreError:
            for queue in new:
                self.delete(queue)
            raise
        return fifos

    def _check_room(self, name: bytes, size: int) -> None:
        fifo = self._fifos.get(name)
        if fifo is not None and fifo.limited:
            fifo.check_room(size)

    def move(self, fifo: Fifo, item: Item, name: bytes, counter: str = "") -> None:
        """
        Put an item at the end of another queue, and consume it where it was: both are written, or neither is.

        Limits do not hold it up, and it does not expire there but by that queue's C{max_age}.  It goes to that queue
        alone, and not to its children.

        @param item: one that was taken out of C{fifo}'s memory, so that it is neither to be had nor consumed.
        @param counter: the statistic of C{fifo} in which the caller counts that, if any.
        @raise StoreError: it cannot be read, or the other queue cannot be made; nothing has changed.
        """
        payload = fifo.payload(item)
        target = self._existing(name)
        target.put(item.flags, 0, item.size, payload, item.stream, shared=True)
        if not target.durable and target.policy.discard_old_when_full:
            self.expiry.sweep(target)  # memory has no room for what is over the limit
        fifo.move_out(item, counter)

    def _existing(self, name: bytes) -> Fifo:
        """
        @return: the queue of that name, which exists.
        @raise StoreError: the store cannot make it.
        """
        fifo = self._fifos.get(name)
        if fifo is None:
            fifo = self.make(name)
        if fifo.number is None:
            try:
                fifo.make()
            except StoreError as error:
                self.release(fifo)
                self.commit.trouble(error)
                raise
            self.stats.queue_creates += 1
            self._born(name)
            self.commit.unless_put(lambda _: self._not_made(fifo))
        return fifo

    def _not_made(self, fifo: Fifo) -> None:
        """What was to be written in the turn in which a queue was made, is not."""
        if not fifo.exists:
            self._gone(fifo.name)
            self.release(fifo)

    def _expiry_time(self, expiry: float) -> int:
        """@return: an expiry that is not 0, by memcache's rules, in ms since the epoch."""
        if expiry < 0:
            return 1
        if expiry < RELATIVE_EXPIRY:
            return self.commit.now + int(expiry * 1000)
        return min(int(expiry * 1000), LAST_EXPIRY)

    def inflow(self) -> PayloadWriter:
        """@return: where to write the payload of an item that comes piece by piece."""
        return PayloadWriter(self.store, self.commit, self.reclaimer, self.space)

    def outflow(self, item: Item, done: Callable[[], None]) -> PayloadReader:
        """@return: the payload of a large item, chunk by chunk."""
        return PayloadReader(self.store, self.reclaimer, item, done)

    def delete(self, name: bytes) -> None:
        """Forget a queue; harmless where there is none."""
        fifo = self._fifos.get(name)
        if fifo is None:
            return
        if not fifo.exists:
            self.commit.changed(fifo)  # that it was deleted before may still have to be written
            return
        fifo.delete()
        self._gone(name)
        self.stats.queue_deletes += 1
        self.commit.written().addCallback(lambda _: self.release(fifo))

    def flush(self, name: bytes) -> None:
        """Consume all that is to be had of a queue; harmless where there is none."""
        fifo = self._fifos.get(name)
        if fifo is not None:
            fifo.flush()

    def flush_all(self) -> None:
        """L{flush} every queue."""
        for fifo in self._fifos.values():
            fifo.flush()

    def flush_expired(self, name: Optional[bytes] = None) -> Deferred[int]:
        """
        Drop what has expired at the head of a queue, or of all, a bounded number of items in a turn.

        @return: fires with the number of items.
        """
        fifos = list(self._fifos.values()) if name is None else [self._fifos[name]] if name in self._fifos else []
        return Deferred.fromCoroutine(self.expiry.flush(fifos))

    # Figures

    def health(self) -> Health:
        """@return: whether items can be put, and if not, why and since when."""
        return self.commit.health if self.space.health.writable else self.space.health

    def figures(self, version: str) -> dict[str, int | str]:
        """@return: the server's statistics, by name."""
        fifos = self._fifos.values()
        return {
            "uptime": int(self.clock.seconds() - self._started),
            "time": self.commit.now // 1000,
            "version": version,
            "status": self.status.name.upper(),
            "curr_items": sum(fifo.count for fifo in fifos),
            "bytes": sum(fifo.bytes for fifo in fifos),
            **server_counters(self.stats),
            **self._health_figures(),
        }

    def _health_figures(self) -> dict[str, int | str]:
        health = self.health()
        if health.writable:
            return {"store_writable": 1}
        return {"store_writable": 0, "store_refuses": health.reason, "store_refuses_since": int(health.since)}

    def queue_figures(self, name: bytes) -> dict[str, int]:
        """@return: the statistics of one queue, by name; empty where there is no such queue."""
        fifo = self._fifos.get(name)
        if fifo is None or not fifo.exists:
            return {}
        age = fifo.stats.age_msec if fifo.count else 0
        return {
            "items": fifo.count,
            "bytes": fifo.bytes,
            **queue_counters(fifo.stats),
            "waiters": len(fifo.waiters),
            "open_transactions": fifo.open_count,
            "set_aside": fifo.set_aside_count,
            "delayed": fifo.delayed_count,
            "age": age,
            "age_msec": age,
            "oldest_msec": fifo.oldest_age,
            "create_time": fifo.created,
        }
