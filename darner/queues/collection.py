"""
The queues of one server, by name; all front ends use them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Optional

from twisted.internet.defer import Deferred

from darner.config.policies import Policies, QueueSettings, parent_of
from darner.errors import ClientError, StoreError, TooManyChildren, TooManyQueues
from darner.net.limits import client_bytes
from darner.queues.answers import Answers
from darner.queues.backups import Backups
from darner.queues.commit import GroupCommit
from darner.queues.control import Control
from darner.queues.disk_space import DiskSpace
from darner.queues.expiry import Expiry
from darner.queues.fifo import Fifo
from darner.queues.figures import Totals, queue_figures, server_figures
from darner.queues.head import WINDOW_BYTES, MemoryBudget
from darner.queues.loading import load
from darner.queues.picking import Picks
from darner.queues.putting import Puts
from darner.queues.reading import Reads
from darner.queues.reclaiming import Reclaimer
from darner.queues.replicated_commit import ReplicatedCommit
from darner.queues.routing import Routing
from darner.queues.status import ServerStatus
from darner.queues.surroundings import Surroundings
from darner.queues.timings import Timings
from darner.queues.volatile import VolatileStore
from darner.queues.walk import QUEUES_A_TURN, Adoption, Walks
from darner.store.interfaces import IReplicatedStore, IStore
from darner.values.items import Item, QueueState
from darner.values.stats import Health, Removal, ServerStats


class Queues:
    """
    All queues of one store.

    @ivar commit: the group commit they share.
    @ivar puts: where items are put.
    @ivar reads: where they are read.
    @ivar picks: what is done to single items.
    @ivar space: whether there is room on the disk.
    @ivar stats: the server's counters.
    @ivar status: the server's status.
    @ivar control: requests of clients to the process.
    @ivar policies: the settings of the queues; L{apply} changes them.
    @ivar client_bytes: the maximum number of bytes to buffer for each client, in each direction (`darner.net.limits`).
    @ivar walks: work on all queues.
    @ivar adoption: tells when all queues have the settings of the last L{apply}.
    @ivar stopped: whether L{stop} is done, so that nothing can be written any more.
    """

    def __init__(
        self, store: IStore, surroundings: Surroundings,
        policies: Policies = Policies(),  # noqa: B008  (it is frozen)
        min_free_bytes: Optional[int] = None, status: Optional[ServerStatus] = None,
        control: Control = Control(),  # noqa: B008  (it is frozen)
        window_bytes: int = WINDOW_BYTES, max_queues: int = 0, max_children: int = 0,
    ) -> None:  # fmt: skip
        """
        @param min_free_bytes: free disk space below which puts are refused (L{DiskSpace}).
        @param status: the server's status; by default up, and not saved.
        @param control: requests of clients to the process.
        @param window_bytes: approximate maximum size of each queue's window.
        @param max_queues: the maximum number of queues, including those that clients wait for; 0 is unlimited.
        @param max_children: the maximum number of children of a queue; 0 is unlimited.
        """
        self.store = store
        self.clock = surroundings.clock
        self.wall = surroundings.wall
        make_commit = ReplicatedCommit if IReplicatedStore.providedBy(store) else GroupCommit
        self.commit = make_commit(store, surroundings.schedule, surroundings.in_thread, self.wall, self.clock)
        self.space = DiskSpace(store, surroundings.clock, min_free_bytes, surroundings.wall)
        self.reclaimer = Reclaimer(store, self.commit, surroundings.in_thread, surroundings.clock)
        self.backups = Backups(store, surroundings.schedule)
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
        self._max_children = max_children
        self.reads = Reads(self, self._fifos, store, self.commit, self.reclaimer, self.stats, self.status)
        self.picks = Picks(self, self._fifos, self.commit, self.space)
        self._memory = VolatileStore()
        self._nowhere = Fifo(b"", store, self.commit, self.reclaimer, self.expiry, self._budget, window_bytes)
        self._started = surroundings.clock.seconds()
        self.stopped = False

    def start(self) -> None:
        """
        Load the queues from the store.

        @raise darner.errors.StoreError: it cannot be read.
        """
        for _ in self.load():
            pass

    def load(self) -> Iterator[None]:
        """
        Load the queues from the store, one in each step.  They may be used, and begin to work, when all are loaded.

        @raise darner.errors.StoreError: the store cannot be read.
        """
        yield from load(self.store, self._recovered, self.expiry, self.reclaimer)

    def _recovered(self, state: QueueState) -> Fifo:
        fifo = self._add(state.name, state)
        self._born(state.name)
        return fifo

    async def stop(self) -> None:
        """Write all changes and end all work in threads.  The store may be closed after that."""
        self.expiry.stop()
        self.walks.stop()
        await self.commit.written()
        await self.reclaimer.stop()
        await self.backups.stop()
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
        """Count a client that has connected, through any front end."""
        self.stats.curr_connections += 1
        self.stats.total_connections += 1
        self.client_bytes = client_bytes(self.stats.curr_connections)

    def left(self) -> None:
        """Count a client that has disconnected."""
        self.stats.curr_connections -= 1
        self.client_bytes = client_bytes(self.stats.curr_connections)

    # Finding queues

    def find(self, name: bytes) -> Optional[Fifo]:
        """@return: the queue of that name, if there is an object for it."""
        return self._fifos.get(name)

    def make(self, name: bytes) -> Fifo:
        """@return: an object for the queue of that name, for a put or a wait; the first put creates the queue."""
        fifo = self._fifos.get(name)
        return self._add(name) if fifo is None else fifo

    def _add(self, name: bytes, state: Optional[QueueState] = None) -> Fifo:
        policy = self.policies.of(name)
        fifo = self._fifos[name] = Fifo(
            name, self.store, self.commit, self.reclaimer, self.expiry, self._budget, self._window_bytes, policy,
            self._memory, state,
        )  # fmt: skip
        fifo.spreads = self._spreads(name, policy)
        self.walks.names.add(name)
        return fifo

    def _spreads(self, name: bytes, policy: QueueSettings) -> bool:
        return self._routing.concerns(name) or policy.default_delay is not None

    def policy(self, name: bytes) -> QueueSettings:
        """@return: the settings of a queue, whether it exists or not."""
        fifo = self._fifos.get(name)
        return self.policies.of(name) if fifo is None else fifo.policy

    def is_durable(self, name: bytes) -> bool:
        """@return: whether puts on a queue are written to disk; that does not change while the queue exists."""
        fifo = self._fifos.get(name)
        return self.policies.of(name).durable if fifo is None else fifo.durable

    def apply(self, policies: Policies) -> None:
        """
        Apply new settings.  If there are many queues, this goes on in later turns, a few queues in each; C{adoption}
        tells when all have them.
        """
        self.policies = policies
        self._routing.apply(policies)
        self.adoption.begin()

    def _adopt(self, fifo: Fifo) -> None:
        policy = self.policies.of(fifo.name)
        fifo.adopt(policy)
        fifo.spreads = self._spreads(fifo.name, policy)

    def check_queue(self, name: bytes) -> None:
        """@raise ClientError: it is the name of an alias, to which items cannot be moved."""
        if name in self.policies.aliases:
            raise ClientError("an alias is no queue")

    def _born(self, name: bytes) -> None:
        """Note that a queue was created."""
        parent = self._routing.born(name)
        if parent is not None and parent in self._fifos:
            self._fifos[parent].spreads = True

    def gone(self, name: bytes) -> None:
        """Note that a queue does not exist any more."""
        parent = self._routing.gone(name)
        if parent is not None and parent in self._fifos:
            self._fifos[parent].spreads = self._spreads(parent, self.policies.of(parent))

    def release(self, fifo: Fifo) -> None:
        """Drop the object of a queue that does not exist, if no client waits there any more."""
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
        Move an item to the end of another queue: its put there and its consumption here are both written, or neither.

        The limits of that queue do not apply, and the item expires there only by C{max_age}.  The queue's children do
        not get it.

        @param item: taken out of C{fifo}'s memory, so that it is neither available nor consumed.
        @param removal: the reason; the caller counts it.
        @raise StoreError: the item cannot be read, or the other queue cannot be created; nothing has changed.
        """
        payload = fifo.payload(item)
        target = self.existing(name)
        target.put(item.flags, 0, item.size, payload, item.stream, shared=True)
        if not target.durable and target.policy.discard_old_when_full:
            self.expiry.sweep(target)  # its limit is one of memory, so evict what is over it
        fifo.move_out(item, removal)

    def existing(self, name: bytes) -> Fifo:
        """
        @return: the queue of that name, created if it did not exist.
        @raise StoreError: the store cannot create it.
        @raise TooManyQueues: there are C{max_queues} already.
        @raise TooManyChildren: it would be a child, of which its parent has C{max_children} already.
        """
        fifo = self._fifos.get(name)
        if fifo is None:
            fifo = self.make(name)
        if fifo.number is None:
            try:
                self._check_bounds(name)
                fifo.storage.make()
            except (TooManyQueues, TooManyChildren):
                self.release(fifo)
                raise
            except StoreError as error:
                self.release(fifo)
                self.commit.trouble(error)
                raise
            self.stats.queue_creates += 1
            self._born(name)
            self.commit.unless_put(lambda _: self._not_made(fifo))
        return fifo

    def _check_bounds(self, name: bytes) -> None:
        """Check that there may be one queue more, of this name."""
        if 0 < self._max_queues < len(self._fifos):
            raise TooManyQueues(self._max_queues)
        parent = parent_of(name)
        if parent is not None and 0 < self._max_children <= self._routing.count(parent):
            raise TooManyChildren(parent, self._max_children)

    def _not_made(self, fifo: Fifo) -> None:
        """Undo the creation of a queue: the store refused the turn."""
        if not fifo.exists:
            self.gone(fifo.name)
            self.release(fifo)

    # Consuming.  Each method takes the asker's answer sheet and the reply for success, which becomes an error if the
    # change cannot be written; if the reply is empty, none is sent.

    def delete(self, answers: Answers, reply: bytes, name: bytes) -> None:
        """Delete a queue; does nothing if there is none."""
        self.forget(name)
        self._consumed(answers, reply)

    def flush(self, answers: Answers, reply: bytes, name: bytes) -> None:
        """Consume all items of a queue except the open ones; does nothing if there is no such queue."""
        fifo = self._fifos.get(name)
        if fifo is not None:
            fifo.flush()
        self._consumed(answers, reply)

    def flush_all(self, answers: Answers, reply: bytes, done: Callable[[Optional[StoreError]], object]) -> bool:
        """
        L{flush} every queue: at once if they are few, otherwise a bounded number in a turn.  All items that were put
        before are gone when this is done.

        @param done: if not done at once, called when all is written, with the first error if the store refused a part.
        @return: whether it is done at once; then C{reply} is sent.
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
        Drop the expired items at the head of one queue or of all, a bounded number in a turn.

        @param flushed: called with the number of items; returns the answer sheet and the reply.
        @return: fires when it is done.
        """
        fifos = list(self._fifos.values()) if name is None else [self._fifos[name]] if name in self._fifos else []
        flushing = Deferred.fromCoroutine(self.expiry.flush(fifos))
        return flushing.addCallback(lambda count: self._consumed(*flushed(count)))

    def _consumed(self, answers: Answers, reply: bytes) -> None:
        if reply:
            self.commit.consumed(answers, answers.add(reply))

    def forget(self, name: bytes) -> None:
        """L{delete} a queue, without a reply."""
        fifo = self._fifos.get(name)
        if fifo is None:
            return
        if not fifo.exists:
            fifo.changed()  # an earlier deletion may not be written yet
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
        @param totals: the sums over all queues; by default they are computed now, which takes long with many queues.
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
        """Add these queues to the totals."""
        for name in names:
            totals.add(self._fifos[name])

    def queue_figures(self, name: bytes) -> dict[str, int]:
        """@return: the statistics of one queue, by name; empty if it does not exist and no client waits for it."""
        return queue_figures(self._fifos.get(name))
