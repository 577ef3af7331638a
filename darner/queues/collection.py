"""
The queues of one server, by name: what every front end works on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Optional

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from darner.config.policies import Policies, QueueSettings
from darner.errors import ClientError, StoreError, TooManyQueues
from darner.net.limits import client_bytes
from darner.queues.answers import Answers
from darner.queues.commit import GroupCommit
from darner.queues.control import Control
from darner.queues.disk_space import DiskSpace
from darner.queues.expiry import Expiry
from darner.queues.fifo import Fifo
from darner.queues.figures import Totals, queue_figures, server_figures
from darner.queues.head import WINDOW_BYTES, MemoryBudget
from darner.queues.picking import Picks
from darner.queues.putting import Puts
from darner.queues.reading import Reads
from darner.queues.reclaiming import Reclaimer
from darner.queues.routing import Routing
from darner.queues.status import ServerStatus
from darner.queues.timings import Timings
from darner.queues.volatile import VolatileStore
from darner.queues.walk import QUEUES_A_TURN, Adoption, Walks
from darner.store.interfaces import IStore
from darner.values.items import Item
from darner.values.stats import Health, Removal, ServerStats


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

    @ivar commit: the group commit they share.
    @ivar puts: where items are put.
    @ivar reads: where they are read.
    @ivar picks: what is done to single items.
    @ivar space: whether there is room on the disk.
    @ivar stats: the server's counters.
    @ivar status: what is refused for now.
    @ivar control: what clients may ask of the process.
    @ivar policies: the settings of the queues; change them by L{apply}.
    @ivar client_bytes: how much is held at most for each client, in each direction (`darner.net.limits`).
    @ivar walks: work on all of them.
    @ivar adoption: whether all have the settings of the last L{apply}.
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
        max_queues: int = 0,
    ) -> None:
        """
        @param min_free_bytes: room on the disk below which nothing is put (L{DiskSpace}).
        @param status: what is refused for now; by default the server is up, and that is not kept.
        @param control: what clients may ask of the process.
        @param window_bytes: about how much of each queue's head is held in memory.
        @param max_queues: the maximum number of queues, including those that clients wait for; 0 is unlimited.
        """
        self.store = store
        self.clock = surroundings.clock
        self.wall = surroundings.wall
        self.commit = GroupCommit(
            store, surroundings.schedule, surroundings.in_thread, surroundings.wall, surroundings.clock
        )
        self.space = DiskSpace(store, surroundings.clock, min_free_bytes, surroundings.wall)
        self.reclaimer = Reclaimer(store, self.commit, surroundings.in_thread, surroundings.clock)
        self.stats = ServerStats()
        self.status = ServerStatus(surroundings.clock) if status is None else status
        self.control = control
        self.expiry = Expiry(self.commit, surroundings.clock, self.stats, self.move, self.forget, self.is_durable)
        self.policies = policies
        self._routing = Routing(policies)
        self.client_bytes = client_bytes(0)
        self._fifos: dict[bytes, Fifo] = {}
        self.walks = Walks(self._fifos, self.commit)
        self.adoption = Adoption(self.walks, self._adopt)
        self.puts = Puts(
            self, self._fifos, self._routing, store, self.commit, self.reclaimer, self.space, self.stats, self.status,
            surroundings.wall,
        )  # fmt: skip
        self._budget = MemoryBudget()
        self._window_bytes = window_bytes
        self._max_queues = max_queues
        self.reads = Reads(self, self._fifos, store, self.commit, self.reclaimer, self.stats, self.status)
        self.picks = Picks(self, self._fifos, self.commit, self.space)
        self._memory = VolatileStore()
        self._nowhere = Fifo(b"", store, self.commit, self.reclaimer, self.expiry, self._budget, window_bytes)
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
        self.walks.stop()
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
                name, self.store, self.commit, self.reclaimer, self.expiry, self._budget, self._window_bytes,
                self.policies.of(name), self._memory,
            )  # fmt: skip
            fifo.spreads = self._spreads(name)
            self.walks.names.add(name)
        return fifo

    def _spreads(self, name: bytes) -> bool:
        return self._routing.concerns(name) or self.policies.of(name).default_delay is not None

    def policy(self, name: bytes) -> QueueSettings:
        """@return: the settings in force for a queue, whether there is one of that name or not."""
        fifo = self._fifos.get(name)
        return self.policies.of(name) if fifo is None else fifo.policy

    def is_durable(self, name: bytes) -> bool:
        """@return: whether what is put on a queue is written to disk; it stays so as long as the queue is there."""
        fifo = self._fifos.get(name)
        return self.policies.of(name).durable if fifo is None else fifo.durable

    def apply(self, policies: Policies) -> None:
        """
        Have other settings from now on.  Where there are many queues they take them over a few in a turn; C{adoption}
        tells when all have.
        """
        self.policies = policies
        self._routing.apply(policies)
        self.adoption.begin()

    def _adopt(self, fifo: Fifo) -> None:
        fifo.adopt(self.policies.of(fifo.name))
        fifo.spreads = self._spreads(fifo.name)

    def check_queue(self, name: bytes) -> None:
        """@raise ClientError: it is the name of an alias, to which nothing can be moved."""
        if name in self.policies.aliases:
            raise ClientError("an alias is no queue")

    def _born(self, name: bytes) -> None:
        """A queue exists now."""
        parent = self._routing.born(name)
        if parent is not None and parent in self._fifos:
            self._fifos[parent].spreads = True

    def gone(self, name: bytes) -> None:
        """A queue exists no more."""
        parent = self._routing.gone(name)
        if parent is not None and parent in self._fifos:
            self._fifos[parent].spreads = self._spreads(parent)

    def release(self, fifo: Fifo) -> None:
        """Whoever made it to wait there does so no longer."""
        if fifo.idle and self._fifos.get(fifo.name) is fifo:
            del self._fifos[fifo.name]
            self.walks.names.discard(fifo.name)
            fifo.storage.retire(self._nowhere.storage)

    def names(self) -> list[bytes]:
        """@return: the names of the queues that exist, sorted."""
        return [name for name in self.walks.names if self._fifos[name].exists]

    # Working on them

    def move(self, fifo: Fifo, item: Item, name: bytes, removal: Removal = Removal.MOVED) -> None:
        """
        Put an item at the end of another queue, and consume it where it was: both are written, or neither is.

        Limits do not hold it up, and it does not expire there but by that queue's C{max_age}.  It goes to that queue
        alone, and not to its children.

        @param item: one that was taken out of C{fifo}'s memory, so that it is neither to be had nor consumed.
        @param removal: why; the caller counts it.
        @raise StoreError: it cannot be read, or the other queue cannot be made; nothing has changed.
        """
        payload = fifo.payload(item)
        target = self.existing(name)
        target.put(item.flags, 0, item.size, payload, item.stream, shared=True)
        if not target.durable and target.policy.discard_old_when_full:
            self.expiry.sweep(target)  # memory has no room for what is over the limit
        fifo.move_out(item, removal)

    def existing(self, name: bytes) -> Fifo:
        """
        @return: the queue of that name, which exists.
        @raise StoreError: the store cannot make it.
        @raise TooManyQueues: there are C{max_queues} already.
        """
        fifo = self._fifos.get(name)
        if fifo is None:
            fifo = self.make(name)
        if fifo.number is None:
            if 0 < self._max_queues < len(self._fifos):
                self.release(fifo)
                raise TooManyQueues(self._max_queues)
            try:
                fifo.storage.make()
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
            self.gone(fifo.name)
            self.release(fifo)

    # Consuming.  Each takes the answer sheet of who asks and the reply that says it is done, which becomes an error if
    # it cannot be written; empty: none.

    def delete(self, answers: Answers, reply: bytes, name: bytes) -> None:
        """Delete a queue; harmless where there is none."""
        self.forget(name)
        self._consumed(answers, reply)

    def flush(self, answers: Answers, reply: bytes, name: bytes) -> None:
        """Consume all that is to be had of a queue; harmless where there is none."""
        fifo = self._fifos.get(name)
        if fifo is not None:
            fifo.flush()
        self._consumed(answers, reply)

    def flush_all(self, answers: Answers, reply: bytes, done: Callable[[Optional[StoreError]], object]) -> bool:
        """
        L{flush} every queue: at once where they are few, else a bounded number in a turn.  What was put before is gone
        when this is done.

        @param done: called when it was not done at once and all of it is written, or with the error of what could not.
        @return: whether it is done at once; C{reply} is told then.
        """
        if len(self._fifos) > QUEUES_A_TURN:
            self.walks.begin(Fifo.flush, done)
            return False
        for fifo in self._fifos.values():
            fifo.flush()
        self._consumed(answers, reply)
        return True

    def flush_expired(
        self, name: Optional[bytes], flushed: Callable[[int], tuple[Answers, bytes]]
    ) -> Deferred[None]:
        """
        Drop what has expired at the head of a queue, or of all, a bounded number of items in a turn.

        @param flushed: called with the number of items; returns who is told, and the reply.
        @return: fires when it is done.
        """
        fifos = list(self._fifos.values()) if name is None else [self._fifos[name]] if name in self._fifos else []
        flushing = Deferred.fromCoroutine(self.expiry.flush(fifos))
        return flushing.addCallback(lambda count: self._consumed(*flushed(count)))

    def _consumed(self, answers: Answers, reply: bytes) -> None:
        if reply:
            self.commit.consumed(answers, answers.add(reply))

    def forget(self, name: bytes) -> None:
        """L{delete} a queue, and tell nobody."""
        fifo = self._fifos.get(name)
        if fifo is None:
            return
        if not fifo.exists:
            fifo.changed()  # that it was deleted before may still have to be written
            return
        fifo.delete()
        self.gone(name)
        self.stats.queue_deletes += 1
        self.commit.written().addCallback(lambda _: self.release(fifo))

    # Figures

    def measure(self, timer: Callable[[], float]) -> Timings:
        """
        Measure the turns from now on.

        @param timer: a time in seconds, by which durations are measured.
        @return: what is measured.
        """
        self.commit.timings = timings = Timings(self.stats, timer, self.wall)
        return timings

    def health(self) -> Health:
        """@return: whether items can be put, and if not, why and since when."""
        return self.commit.health if self.space.health.writable else self.space.health

    def figures(self, version: str, totals: Optional[Totals] = None) -> dict[str, int | str]:
        """
        @param totals: what was added up over all queues; by default it is now, which takes its time with many.
        @return: the server's statistics, by name.
        """
        if totals is None:
            totals = Totals()
            self.add_up(totals, self._fifos)
        return {
            "uptime": int(self.clock.seconds() - self._started),
            "time": self.commit.now // 1000,
            "version": version,
            "status": self.status.name.upper(),
            **server_figures(totals, self.stats, self.health()),
        }

    def add_up(self, totals: Totals, names: Iterable[bytes]) -> None:
        """Add what these queues have to the totals."""
        for name in names:
            totals.add(self._fifos[name])

    def queue_figures(self, name: bytes) -> dict[str, int]:
        """@return: the statistics of one queue, by name; empty where there is none, and nobody waits for one."""
        return queue_figures(self._fifos.get(name))
